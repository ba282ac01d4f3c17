"""Mounting a volume, that is a file with a file system in it, and unmounting it again.

As root: a loop device over the file and mount(8) on that; the loop device is let go at once, so
the mount alone holds it, and the kernel detaches it when the mount goes: nothing is left behind
whatever happens in between. A volume has one that can be written at most: its second mount is one
of the same file system, as with a disk, by whatever name of the volume the first one was made. Not
as root: fuse2fs, for ext2, ext3 and ext4, once.

A read-only volume whose journal is not empty cannot be recovered; it is mounted as it stands
(`noload`, `norecovery`) and that is said. On a writable volume, the journal is recovered as usual,
also for a read-only mount. XFS refuses to mount two file systems with one UUID, as an origin and
its snapshot have; so `nouuid`.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ulvm.errors import (
    BusyError,
    DeviceError,
    NotFoundError,
    NotSupportedError,
    RefusedError,
)
from ulvm.mounts.loop import Loop, attach, grow, hold, loop_named, tree_of
from ulvm.mounts.table import Mount, mount_at, mount_table, mounts_of
from ulvm.mounts.unmount import unmount

__all__ = [
    "FileSystem",
    "MountedVolume",
    "mount_volume",
    "one_at_a_time",
    "probe",
    "unmount_volume",
]

_EXT_SUPER = 1024
_EXT_MAGIC = 0xEF53
_EXT_INCOMPAT_RECOVER = 0x4
_RELEASE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class FileSystem:
    """What is known of a file system: mount(8)'s type; whether its journal must be replayed."""

    fs_type: str
    needs_recovery: bool


def probe(path: str | os.PathLike[str]) -> FileSystem | None:
    """The ext or XFS file system in a file, None for any other.

    ext: s_magic at 1080, s_feature_incompat at 1120 (kernel Documentation/filesystems/ext4);
    XFS: sb_magicnum at 0; whether its log is clean cannot be told from the superblock.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            head = file.read(4096)
    except FileNotFoundError as error:
        raise NotFoundError(f"{path} does not exist.") from error
    except OSError as error:
        raise DeviceError(f"Cannot read {path}: {error.strerror}.", errno=error.errno) from error
    if head[:4] == b"XFSB":
        return FileSystem("xfs", False)
    if int.from_bytes(head[_EXT_SUPER + 56 : _EXT_SUPER + 58], "little") == _EXT_MAGIC:
        incompat = int.from_bytes(head[_EXT_SUPER + 96 : _EXT_SUPER + 100], "little")
        return FileSystem("ext4", bool(incompat & _EXT_INCOMPAT_RECOVER))
    return None


@dataclass(frozen=True, slots=True)
class MountedVolume:
    """A mount that was made; `notes` are sentences that the user should see."""

    mount: Mount
    notes: tuple[str, ...]


def mount_volume(
    path: str | os.PathLike[str],
    directory: str | os.PathLike[str],
    *,
    read_only: bool = False,
    device_read_only: bool = False,
    options: str = "",
) -> MountedVolume:
    """Mount the file system in `path` on `directory`.

    `device_read_only` says that the volume cannot be written at all. `options` as for mount -o.
    NotFoundError, RefusedError with mount's own reason, NotSupportedError.
    """
    path, where = os.path.realpath(path), os.path.realpath(directory)
    if not os.path.isdir(where):
        raise NotFoundError(f"Mount point {directory} is not a directory.")
    words = [word for word in options.split(",") if word]
    if read_only or device_read_only:
        words.insert(0, "ro")
    with one_at_a_time(path):
        if not device_read_only:
            _check_not_by_fuse(path)
        if os.geteuid() == 0:
            notes = _mount_by_loop(path, where, words, device_read_only)
        else:
            notes = _mount_by_fuse2fs(path, where, words, device_read_only)
    mount = mount_at(where)
    if mount is None:
        raise DeviceError(f"{where} was mounted, but is not mounted any more.")
    return MountedVolume(mount, notes)


@contextmanager
def one_at_a_time(path: str | os.PathLike[str]) -> Iterator[None]:
    """Nobody else of us looks what stands on a volume, and acts on it: two that find nothing would
    mount two file systems. Held from the look until it shows, as a mount or a loop device. It is a
    lock on the directory (flock(2)), for all that lies in it: an open file would be one in use."""
    folder = os.path.dirname(os.path.realpath(path))
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise DeviceError(f"Cannot open {folder}: {error.strerror}.", errno=error.errno) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _not_replayed(path: str) -> str:
    return f"{path} is read-only, its journal is not replayed."


def _mount_by_loop(
    path: str, where: str, words: list[str], device_read_only: bool
) -> tuple[str, ...]:
    found = probe(path)
    attempts: list[tuple[list[str], tuple[str, ...]]] = [(words, ())]
    if found is not None and found.fs_type == "xfs":
        words = [*words, "nouuid"]
        attempts = [(words, ())]
        if device_read_only:
            attempts.append(([*words, "norecovery"], (_not_replayed(path),)))
    elif found is not None and found.needs_recovery and device_read_only:
        attempts = [([*words, "noload"], (_not_replayed(path),))]
    with _loop_over(path, read_only=device_read_only) as device:
        reason = ""
        for attempt, notes in attempts:
            reason = _run_mount(device, where, attempt)
            if not reason:
                return notes
    raise RefusedError(f"Cannot mount {path} on {where}: {reason}.")


def _check_not_by_fuse(path: str) -> None:
    """BusyError if a process of its own has the file system mounted. The mount table tells the name
    that fuse2fs was given, which may be any, a relative one too; so it is asked what each process
    has open that serves by FUSE."""
    for mount in mounts_of(path):
        if mount.is_fuse:
            raise BusyError(f"{path} is mounted on {mount.mount_point} by {mount.fs_type}.")
    file, tree = os.stat(path), os.path.join(tree_of(path), "")
    for process in Path("/proc").glob("[0-9]*"):
        opened = _opened(process)
        if "/dev/fuse" in opened.values() and any(
            name.startswith(tree) and _is_file(entry, file) for entry, name in opened.items()
        ):
            raise BusyError(f"{path} is mounted by process {process.name} (FUSE).")


def _is_file(path: Path, file: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(path), file)
    except OSError:  # closed meanwhile
        return False


@contextmanager
def _loop_over(path: str, *, read_only: bool) -> Iterator[str]:
    """A loop device over the file, held. One that is there and can be written is taken: to the
    kernel a second one is another disk, and the file system on it another one, which overwrites
    what the first one writes."""
    there = None if read_only else hold(path, writable=True)
    if there is None:
        with attach(path, read_only=read_only) as made:
            yield made.path
        return
    with there:
        grow(there.path)
        yield there.path


def _run_mount(device: str, where: str, words: list[str]) -> str:
    """Empty, or why mount(8) refuses."""
    option = ["-o", ",".join(words)] if words else []
    done = subprocess.run(
        ["mount", *option, "--", device, where],
        capture_output=True,
        text=True,
        errors="surrogateescape",
        check=False,
        # A terminal's Ctrl-C that is held back here is not to end it in between.
        start_new_session=True,
    )
    if done.returncode == 0:
        return ""
    return _reason(done.stderr, f"mount ends with {done.returncode}").removeprefix(
        f"mount: {where}: "
    )


def _reason(stderr: str, otherwise: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else otherwise


def _mount_by_fuse2fs(
    path: str, where: str, words: list[str], device_read_only: bool
) -> tuple[str, ...]:
    found = probe(path)
    if found is None or found.fs_type != "ext4":
        raise NotSupportedError(f"Only root can mount {path}: fuse2fs is for ext2, ext3 and ext4.")
    mounts = [] if device_read_only else mounts_of(path)
    if mounts:
        raise BusyError(f"{path} is mounted on {mounts[0].mount_point} already.")
    if shutil.which("fuse2fs") is None:
        raise NotSupportedError("Mounting needs the program fuse2fs when not root.")
    notes: tuple[str, ...] = ()
    if found.needs_recovery and device_read_only:
        words = [*words, "norecovery"]
        notes = (_not_replayed(path),)
    # The file system belongs to whom the volume belongs to, whatever owners its files name.
    option = ["-o", ",".join([*words, "fakeroot"])]
    before = mount_at(where)
    done = subprocess.run(
        ["fuse2fs", os.fspath(path), where, *option],
        capture_output=True,
        text=True,
        errors="surrogateescape",
        check=False,
        # It stays: what is held back here, in the midst of a change, is not to be so for its life.
        start_new_session=True,
        preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, ()),
    )
    # It ends with 0 too where libfuse refuses.
    if done.returncode != 0 or mount_at(where) == before:
        reason = _reason(done.stderr or done.stdout, f"fuse2fs ends with {done.returncode}")
        raise RefusedError(f"Cannot mount {path} on {where}: {reason}.")
    return notes


def unmount_volume(target: Mount | str | os.PathLike[str]) -> tuple[Mount, ...]:
    """Unmount this mount, what is on top at a mount point, or everything that stands on a volume's
    file; says what it was.

    Returns when the volume is let go (loop devices detached, fuse2fs gone), which the kernel does
    a little after the unmounting. NotFoundError if nothing is mounted; BusyError if in use, or if
    another mount lies over it.
    """
    mounts = [target] if isinstance(target, Mount) else _mounts_by(os.path.realpath(target))
    held = [(mount, loop_named(Path(mount.source).name)) for mount in mounts]
    for mount in reversed(mounts):
        unmount(mount)
    for mount, loop in held:
        _wait_for_release(mount, loop)
    return tuple(mounts)


def _mounts_by(path: str) -> list[Mount]:
    on_top = mount_at(path)
    mounts = [on_top] if on_top is not None else mounts_of(path, every=True)
    if not mounts:
        raise NotFoundError(f"{path} is not mounted.")
    return mounts


def _wait_for_release(mount: Mount, loop: Loop | None) -> None:
    deadline = time.monotonic() + _RELEASE_SECONDS
    while _holds(mount, loop):
        if time.monotonic() > deadline:
            raise BusyError(f"{mount.source} is still held after {mount.mount_point} is unmounted.")
        time.sleep(0.01)


def _holds(mount: Mount, loop: Loop | None) -> bool:
    """Does what the mount stood on still wait for its end? The device of a loop that is gone may be
    another's by now."""
    if any(other.device == mount.device for other in mount_table()):
        return False  # mounted elsewhere too: it is to stay
    if mount.is_fuse:
        processes, source = Path("/proc").glob("[0-9]*"), os.path.realpath(mount.source)
        return any(source in _opened(process).values() for process in processes)
    now = None if loop is None else loop_named(loop.name)
    if loop is None or now is None or now.backing_file != loop.backing_file:
        return False
    return now.autoclear


def _opened(process: Path) -> dict[Path, str]:
    """The descriptors of a process, and the names of the files."""
    try:
        return {entry: os.readlink(entry) for entry in (process / "fd").iterdir()}
    except OSError:  # ended meanwhile, or not ours to look into
        return {}
