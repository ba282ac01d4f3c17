"""Snapshots that killed backups left behind: how they are known, found and removed.

A backup's snapshot carries the LV tag `ulvm_backup` from the same metadata commit that creates
it, so there is no instant at which it exists untagged. While its backup lives, that holds flock
on `<run_dir>/lock/B_<vg>_<snapshot>`, taken before the commit, and from the commit on, before the
VG's lock is let go, on `U_<dm UUID>`, since it may be renamed; the kernel drops the locks when the
process dies, however it dies.

    tag   locks     the snapshot is
    yes   one held  in use by a backup that runs
    yes   free      left behind: nobody will remove it but us
    no    -         the user's own

A restore holds two locks in the same way as long as it has its volume in hand: `R_<dm name>`, be
there a volume of that name or not yet, and `U_<dm UUID>`, since a volume may be renamed meanwhile.
Two that took turns would end with a mixture, and with a tag that says nothing of it
(backup.restoring).

A lock's file goes with its holder. So who has the lock of a file looks whether the name is still
that file's; if not, it takes the lock of the one that is.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ulvm.activation.names import dm_name, dm_uuid
from ulvm.errors import BusyError, DeviceError, RefusedError
from ulvm.metadata.model import LogicalVolume, VolumeGroup
from ulvm.vgstore.files import private_dir
from ulvm.vgstore.host import Host

__all__ = [
    "RESTORING_TAG",
    "TAG",
    "check_restored",
    "forget",
    "hold",
    "hold_snapshot",
    "hold_target",
    "hold_volume",
    "is_held",
    "left_behind",
    "lock_path",
]

TAG = "ulvm_backup"
RESTORING_TAG = "ulvm_restoring"
"""Of a volume whose content is neither the old nor the new (backup.restoring)."""


def check_restored(vg: VolumeGroup, lv: LogicalVolume) -> None:
    """RefusedError for a volume whose content is neither the old nor the new."""
    if RESTORING_TAG in lv.tags:
        name = f"{vg.name}/{lv.name}"
        raise RefusedError(
            f"{name} holds part of a restore that runs, or did not end well: restore it again, or "
            "take its tag off if you want what it holds, by "
            f'"lvchange --deltag {RESTORING_TAG} {name}".'
        )


def lock_path(host: Host, vg: str, snapshot: str) -> Path:
    """The file whose lock says that the snapshot's backup is alive."""
    return host.lock_dir / f"B_{vg}_{snapshot}"


@contextmanager
def hold(host: Host, vg: str, snapshot: str) -> Iterator[None]:
    """Be the living owner of a snapshot. BusyError if somebody else is."""
    with _flock(host, lock_path(host, vg, snapshot), _backed_up(vg, snapshot)):
        yield


@contextmanager
def hold_snapshot(host: Host, vg: VolumeGroup, snapshot: LogicalVolume) -> Iterator[None]:
    """As `hold`, of a snapshot that is there, whatever its name becomes."""
    with _flock(host, _volume_path(host, vg, snapshot), _backed_up(vg.name, snapshot.name)):
        yield


def _backed_up(vg: str, snapshot: str) -> str:
    return f"{vg}/{snapshot} belongs to a backup that is running."


def forget(host: Host, vg: VolumeGroup, snapshot: LogicalVolume) -> None:
    """Remove the locks' files of a snapshot that was left behind and is removed."""
    lock_path(host, vg.name, snapshot.name).unlink(missing_ok=True)
    _volume_path(host, vg, snapshot).unlink(missing_ok=True)


@contextmanager
def hold_target(host: Host, vg: str, lv: str) -> Iterator[None]:
    """Be the only one who restores to this name, be there a volume or not. BusyError if somebody
    else is."""
    with _flock(host, host.lock_dir / f"R_{dm_name(vg, lv)}", _restoring(vg, lv)):
        yield


@contextmanager
def hold_volume(host: Host, vg: VolumeGroup, lv: LogicalVolume) -> Iterator[None]:
    """Be the only one who restores to this volume, whatever its name becomes. BusyError if somebody
    else is."""
    with _flock(host, _volume_path(host, vg, lv), _restoring(vg.name, lv.name)):
        yield


def _volume_path(host: Host, vg: VolumeGroup, lv: LogicalVolume) -> Path:
    return host.lock_dir / f"U_{dm_uuid(vg.uuid, lv.uuid)}"


def _restoring(vg: str, lv: str) -> str:
    return f"Another command is restoring to {vg}/{lv}: wait for its end."


@contextmanager
def _flock(host: Host, path: Path, refusal: str) -> Iterator[None]:
    private_dir(host.run_dir)
    private_dir(host.lock_dir)
    fd = _locked(path, refusal)
    try:
        yield
    finally:
        with suppress(FileNotFoundError):
            path.unlink()
        os.close(fd)


def _locked(path: Path, refusal: str) -> int:
    """A descriptor with the lock of the file that has the name."""
    while True:
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise DeviceError(
                f"{path}: open failed: {error.strerror}", errno=error.errno
            ) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(fd), path.stat()):
                    return fd
        except BaseException as error:
            os.close(fd)
            if isinstance(error, BlockingIOError):
                raise BusyError(refusal) from None
            raise
        os.close(fd)


def is_held(host: Host, vg: str, snapshot: str) -> bool:
    """Whether a living backup owns the snapshot, so far as its name tells."""
    return _is_locked(lock_path(host, vg, snapshot))


def _is_locked(path: Path) -> bool:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def left_behind(host: Host, vg: VolumeGroup) -> list[str]:
    """Names of the snapshots in a volume group that killed backups left behind."""
    return [
        lv.name
        for lv in vg.visible_lvs()
        if TAG in lv.tags
        and vg.is_cow(lv.name)
        and not is_held(host, vg.name, lv.name)
        and not _is_locked(_volume_path(host, vg, lv))
    ]
