"""`ulvm restore` and `ulvm verify`: a backup becomes a volume again, and is proved to be whole.

Verify reads manifest and image from the disk, not from the page cache (`fileio` says how far).

Restore into a new volume:

    created (tagged `ulvm_restoring`) -> written, durable -> read back, digest -> tag removed

Reading back goes through the daemon, as any use of the volume does, so it proves the mapping too.
Before it the volume's extents on its PVs are dropped from this kernel's page cache, so the bytes
come from the disks; what is durable is dropped while the rest is written, since that takes a while.
The backup itself may come from the cache: the hash of its file is compared while it is written,
that of the volume with what is read back, and good bytes are good from wherever they come.

A failure or a signal on the way removes the volume again. A kill -9 leaves it with the tag, so
that it is not taken for whole: the next restore onto it needs no `force`. So does a failure to take
the tag off.

An existing volume is overwritten with `force` alone, and never while somebody has it open (a
mounted file system does), while a snapshot is merged into it, or if it is too small. Whether a
snapshot may be lost for want of room is asked before. The volume carries the tag as long as its
content is neither the old nor the new:

    tagged -> first write -> ... -> written, durable -> read back, digest -> tag removed

A failure or a signal leaves the tag, but before the first write takes it off again: the content
is the old one then, and the next restore needs `force` to destroy it. After a kill -9 there it
does not, since the tag must be durable before the first byte; for this content `force` was given.

From before the look at the volume to the end no other restore has it in hand (`leftovers`): the
tag is that of one alone, and a volume is taken back by who made it. It may be renamed meanwhile
(`in_hand`).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ulvm.backup.cow_room import short_of_room
from ulvm.backup.fileio import drop_cache
from ulvm.backup.in_hand import (
    group_now,
    kept_names,
    locked_group,
    remove_when_free,
    volume_now,
)
from ulvm.backup.interrupts import Interrupted, deferred, interruptible
from ulvm.backup.leftovers import RESTORING_TAG, hold_target, hold_volume
from ulvm.backup.manifest import IMAGE_SUFFIX, MANIFEST_SUFFIX
from ulvm.backup.pipeline import Stage, no_stage
from ulvm.backup.reader import Backup
from ulvm.backup.restore import check_device, write_device
from ulvm.backup.verify import verify
from ulvm.blockdev.base import BlockDevice
from ulvm.errors import (
    BusyError,
    DeviceError,
    ExistsError,
    NotFoundError,
    RefusedError,
    UlvmError,
    UsageError,
)
from ulvm.lvm import lv as lvm_lv
from ulvm.lvm.names import split_volume
from ulvm.lvm.session import Session
from ulvm.metadata.lv_edit import Properties
from ulvm.metadata.model import LogicalVolume, VolumeGroup
from ulvm.metadata.segments import pv_runs
from ulvm.units import SECTOR

__all__ = ["restore", "verify_backup"]

_MIB = 1 << 20


def find_backup(path: Path) -> Path:
    """The manifest or image that `path` is, or the only backup in the directory that it is."""
    if not path.is_dir():
        return path
    manifests = sorted(p for p in path.glob(f"*{MANIFEST_SUFFIX}") if not p.name.startswith("."))
    if not manifests:
        raise NotFoundError(f"There is no backup in {path}.")
    if len(manifests) > 1:
        # What has no image beside it may be no manifest at all.
        images = {p.name.removesuffix(IMAGE_SUFFIX) for p in path.glob(f"*{IMAGE_SUFFIX}")}
        newest = max(
            manifests,
            key=lambda p: (p.name.removesuffix(MANIFEST_SUFFIX) in images, p.stat().st_mtime_ns),
        )
        raise RefusedError(
            f"{path} holds {len(manifests)} backups; name one, for instance {newest}."
        )
    return manifests[0]


def verify_backup(
    session: Session, path: Path, *, stage: Stage = no_stage, threads: int = 0
) -> None:
    """Prove that a backup is whole; FormatError with the first place where it is not."""
    with (
        interruptible(),
        Backup(find_backup(path), from_medium=True) as backup,
        stage("Verifying") as progress,
    ):
        verify(backup, threads=_threads(threads), progress=progress)
    manifest = backup.manifest
    volume = f"{manifest.volume.vg}/{manifest.volume.lv}"
    session.say(
        f"{backup.path} is whole: {manifest.image.size / _MIB:.2f} MiB of {volume} "
        f"as of {manifest.time:%Y-%m-%d %H:%M:%S} UTC."
    )


def restore(
    session: Session,
    path: Path,
    volume: str,
    *,
    force: bool = False,
    stage: Stage = no_stage,
    threads: int = 0,
) -> None:
    """Make the volume hold what the backup holds, and read it back.

    ExistsError for an existing volume without `force`, BusyError for one in use, RefusedError
    for one that is too small or merging, FormatError for a damaged backup. Raises Interrupted when
    a signal came; its `outcome` says so if the volume was restored by then.
    """
    session.check_touches()
    targets: list[_Target] = []
    try:
        with (
            interruptible(),
            _in_hand(session, volume) as hand,
            Backup(find_backup(path)) as backup,
        ):
            with _target(session, hand, backup.manifest.image.size, force) as target:
                targets.append(target)
                _write(session, backup, target, stage, _threads(threads))
            _say_restored(session, backup, target)
    except Interrupted as stop:
        if targets and targets[0].whole.is_set():
            stop.outcome = f"{volume} is restored, read back and verified."
        raise


def _write(session: Session, backup: Backup, target: _Target, stage: Stage, threads: int) -> None:
    devices: list[BlockDevice] = []

    def open_device() -> BlockDevice:
        with kept_names(session, target.vg_uuid, target.uuid) as names, deferred():
            devices.append(session.device_for(*names, write=True))
        return devices[-1]

    try:
        with stage("Restoring") as progress:
            write_device(
                backup,
                open_device,
                threads=threads,
                before_write=target.touched.set,
                after_flush=_Extents(session, target).drop,
                progress=progress,
            )
        _Extents(session, target).drop()  # the volume may have been moved meanwhile
        with stage("Reading back") as progress:
            check_device(backup, open_device, threads=threads, progress=progress)
    finally:
        with deferred():  # as long as one is open a new volume cannot be taken back
            for device in devices:
                device.close()


def _say_restored(session: Session, backup: Backup, target: _Target) -> None:
    size = backup.manifest.image.size
    session.say(
        f"Restored {size / _MIB:.2f} MiB as of {backup.manifest.time:%Y-%m-%d %H:%M:%S} UTC "
        f"to {target.vg}/{target.lv}; read back and verified."
    )
    if target.size > size:
        session.say(
            f"The volume is larger than the backup: its last "
            f"{(target.size - size) / _MIB:.2f} MiB are as they were."
        )


class _Extents:
    """Where a volume lies now: (path of a PV, start, length) in bytes. Of what is being moved, all
    that is, from where and to where: either may be read."""

    def __init__(self, session: Session, target: _Target) -> None:
        vg = group_now(session, target.vg_uuid)
        volume = volume_now(vg, target.uuid)
        self._places: list[tuple[Path, int, int]] = []
        for run in (run for lv in (volume, *vg.lower_lvs(volume)) for run in pv_runs(lv)):
            pv, path = vg.pv(run.pv_uuid), session.last_scan.path_of(run.pv_uuid)
            if pv is None or path is None:
                continue  # missing: no byte of it is read at all
            start = (pv.pe_start + run.pe * vg.extent_size) * SECTOR
            self._places.append((Path(path), start, run.length * vg.extent_size * SECTOR))

    def drop(self) -> None:
        """Have what was written and flushed read from the disks: the daemon reads its PVs' files
        and disks through the same page cache, so it need not be asked."""
        for path, start, length in self._places:
            try:
                with path.open("rb", buffering=0) as file:
                    drop_cache(file.fileno(), start, length)
            except OSError as error:
                raise DeviceError(
                    f"Cannot read {path}: {error.strerror}.", errno=error.errno
                ) from error


@dataclass(frozen=True, slots=True)
class _Target:
    """The volume that is written: as it and its group were called, and their UUIDs; `size` in
    bytes. `touched` is set before the first write, `whole` when all was read back and the tag is
    off."""

    vg: str
    lv: str
    vg_uuid: str
    uuid: str
    size: int
    touched: threading.Event = field(default_factory=threading.Event)
    whole: threading.Event = field(default_factory=threading.Event)


def _threads(wanted: int) -> int:
    return wanted or os.cpu_count() or 1


class _Hand(NamedTuple):
    """What a restore has in hand; `uuid` is None if there is no volume yet."""

    vg: str
    lv: str
    uuid: str | None


@contextmanager
def _in_hand(session: Session, volume: str) -> Iterator[_Hand]:
    """The volume to restore to, kept from other restores. BusyError if one has it."""
    vg_name, lv_name = split_volume(volume, session.host.run_dir)
    if lv_name is None:
        raise UsageError(f'"{volume}" names no logical volume: use VG/LV.')
    session.scan().vg(vg_name)  # no lock of what is not there
    with ExitStack() as stack:
        stack.enter_context(hold_target(session.host, vg_name, lv_name))
        vg = session.scan().vg(vg_name)
        lv = vg.lv(lv_name)
        if lv is not None:
            stack.enter_context(hold_volume(session.host, vg, lv))
        yield _Hand(vg_name, lv_name, None if lv is None else lv.uuid)


@contextmanager
def _target(session: Session, hand: _Hand, size: int, force: bool) -> Iterator[_Target]:
    """The volume to restore to, active, with the tag while its content is neither old nor new."""
    vg = session.scan().vg(hand.vg)
    if hand.uuid is None:
        with _created(session, vg, hand.lv, size) as target:
            yield target
    else:
        with _overwritten(session, vg, hand.uuid, size, force=force) as target:
            yield target


@contextmanager
def _created(session: Session, vg: VolumeGroup, lv_name: str, size: int) -> Iterator[_Target]:
    extents = -(-size // (vg.extent_size * SECTOR))
    made: list[LogicalVolume] = []
    with ExitStack() as stack:
        try:
            with session.lock(vg.name), deferred():
                made.append(_create(session, vg, lv_name, extents))
                stack.enter_context(hold_volume(session.host, vg, made[0]))
            target = _Target(
                vg.name, lv_name, vg.uuid, made[0].uuid, extents * vg.extent_size * SECTOR
            )
            yield target
        except BaseException:
            with deferred():
                for lv in made:
                    _remove(session, vg, lv_name, lv.uuid)
            raise
        _finish(session, target)


def _create(session: Session, vg: VolumeGroup, lv_name: str, extents: int) -> LogicalVolume:
    """A new volume with the tag. None is left by a failure."""
    with session.lock(vg.name):
        free = session.vg_for_change(vg.name).lv(lv_name) is None
        try:
            lvm_lv.create(
                session,
                vg.name,
                lv_name,
                extents=extents,
                properties=Properties(tags=(RESTORING_TAG,)),
                wipe_signatures=False,
            )
            return lvm_lv.get(session.scan().vg(vg.name), lv_name)
        except BaseException:
            if free:  # what there is of this name is made by us: the lock is held
                _remove(session, vg, lv_name)
            raise


def _remove(session: Session, vg: VolumeGroup, lv_name: str, uuid: str | None = None) -> None:
    """Take a volume back that was made for a restore that failed; that failure is what counts.
    The one of this UUID, if it is known, whatever its name is now."""

    def made(now: VolumeGroup) -> LogicalVolume | None:
        lv = now.lv(lv_name) if uuid is None else now.lv_by_uuid(uuid)
        return lv if lv is not None and RESTORING_TAG in lv.tags else None

    session.close()  # the daemon may be another by now, with the same devices
    try:
        remove_when_free(session, vg.uuid, made)
    except UlvmError as error:
        session.warn(f"{vg.name}/{lv_name} is left behind, incomplete: {error.message}")


def _put_tag_on(session: Session, target: _Target) -> None:
    with kept_names(session, target.vg_uuid, target.uuid) as names, deferred():
        lvm_lv.change_tags(session, *names, add=(RESTORING_TAG,))


def _take_tag_off(session: Session, target: _Target) -> None:
    with deferred(), kept_names(session, target.vg_uuid, target.uuid) as names:
        lvm_lv.change_tags(session, *names, remove=(RESTORING_TAG,))


def _finish(session: Session, target: _Target) -> None:
    with deferred():
        _take_tag_off(session, target)
        target.whole.set()


def _take_tag_back(session: Session, target: _Target) -> None:
    """The content is as it was before a restore that failed; that failure is what counts."""
    session.close()  # as above
    try:
        lv = group_now(session, target.vg_uuid).lv_by_uuid(target.uuid)
        if lv is not None and RESTORING_TAG in lv.tags:
            _take_tag_off(session, target)
    except UlvmError as error:
        session.warn(f"{target.vg}/{target.lv} keeps the tag {RESTORING_TAG}: {error.message}")


@contextmanager
def _overwritten(
    session: Session, vg: VolumeGroup, uuid: str, size: int, *, force: bool
) -> Iterator[_Target]:
    lv = volume_now(vg, uuid)
    room = _check_target(session, vg, lv, size, force=force)
    target = _Target(vg.name, lv.name, vg.uuid, uuid, room)
    try:
        with locked_group(session, vg.uuid) as now, deferred():
            name = volume_now(now, uuid).name
            if not session.activator.is_active(now, name):
                lvm_lv.check_listed(session, now, name)
            lvm_lv.activate(session, now.name, name)  # also one that is active, but half-way
        _ask_about_snapshots(session, vg, lv, size)
        _put_tag_on(session, target)
        now = group_now(session, vg.uuid)  # the question may have waited for its answer
        _check_target(session, now, volume_now(now, uuid), size, force=True)
        yield target
    except BaseException:
        if RESTORING_TAG not in lv.tags and not target.touched.is_set():
            with deferred():
                _take_tag_back(session, target)
        raise
    _finish(session, target)


def _ask_about_snapshots(session: Session, vg: VolumeGroup, lv: LogicalVolume, size: int) -> None:
    """RefusedError unless all COWs have room for the restore, or the user wants to go on."""
    states = lvm_lv.states(session, vg)
    status = states[lv.name].status if lv.name in states else None
    if status is not None and (status.invalid or status.overflow):
        raise RefusedError(
            f"Snapshot {vg.name}/{lv.name} is invalid: nothing can be written to it."
        )
    short = short_of_room(vg, lv.name, states, size)
    for snapshot in short:
        name = f"{vg.name}/{snapshot.name}"
        session.warn(
            f"WARNING: Snapshot {name} has {snapshot.extents} extents of room, and this restore "
            f"may fill {snapshot.enough}: it would overflow, and what it holds be lost.\n"
            f'"lvextend -l {snapshot.enough} {name}" gives it room.'
        )
    if short and not session.ask(
        f"Restore to {vg.name}/{lv.name}, though {len(short)} snapshot(s) may overflow?"
    ):
        raise RefusedError(f"{vg.name}/{lv.name} is not restored.")


def _check_target(
    session: Session, vg: VolumeGroup, lv: LogicalVolume, size: int, *, force: bool
) -> int:
    """How many bytes the volume has; an error if it is not to be overwritten by `size` bytes."""
    name = f"{vg.name}/{lv.name}"
    if not force and RESTORING_TAG not in lv.tags:
        raise ExistsError(f"{name} exists already: overwrite what it holds with --force.")
    snap = vg.snapshot_of(lv.name)
    if vg.merging_snapshot_of(lv.name) is not None or (snap is not None and snap.merging):
        raise RefusedError(f"A snapshot is being merged into {name}.")
    if not lv.writable:
        raise RefusedError(f"{name} is read-only.")
    extents = lv.extent_count if snap is None else snap.extent_count
    room = extents * vg.extent_size * SECTOR
    if room < size:
        raise RefusedError(
            f"{name} is too small: it has {room / _MIB:.2f} MiB, the backup {size / _MIB:.2f} MiB."
        )
    state = lvm_lv.states(session, vg).get(lv.name)
    if state is not None and state.open_count:
        raise BusyError(f"{name} is in use: unmount or close it first.")
    return room
