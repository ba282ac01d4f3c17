"""The size of the file system in a volume's file: ext by e2fsck and resize2fs, XFS by xfs_growfs.

What fsadm(8) does for block devices, for a file that is a volume. A file system that is mounted
grows where it is, once its loop device knows that the file is longer; ext shrinks only unmounted,
XFS not at all, and XFS grows only mounted, for which it is mounted in between.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ulvm.errors import BusyError, DeviceError, NotSupportedError, RefusedError
from ulvm.mounts.loop import Loop, attach, loop_named
from ulvm.mounts.table import Mount, mounts_of
from ulvm.mounts.volume import mount_volume, probe, unmount_volume

__all__ = ["SizedFileSystem"]

_LOOP_SET_CAPACITY = 0x4C07
_CORRECTED = 1
"""e2fsck(8): file system errors corrected."""

Say = Callable[[str], object]


class SizedFileSystem:
    """The file system in a file; RefusedError if there is none whose size can be changed. `say`
    gets what the programs print. It may be mounted by one of the `other_names` of the file. For one
    thread."""

    def __init__(self, path: Path, say: Say, other_names: Sequence[Path] = ()) -> None:
        found = probe(path)
        if found is None:
            raise RefusedError(f'Cannot get FSTYPE of "{path}".')
        self.fs_type = found.fs_type
        self._path = path
        self._names = (path, *other_names)
        self._say = say
        self._unmounted: list[Mount] = []

    @property
    def mounts(self) -> list[Mount]:
        """Where it is mounted, each mount once."""
        found = (mount for name in self._names for mount in mounts_of(name))
        return list({mount.device: mount for mount in found}.values())

    def check(self) -> None:
        """Check it while it is not mounted; XFS checks itself. RefusedError if it is damaged."""
        if self.fs_type == "xfs" or self.mounts:
            return
        with self._as_device() as device:
            if self._run(["e2fsck", "-f", "-p", device]) > _CORRECTED:
                raise RefusedError("Filesystem check failed.")

    def may_grow(self) -> None:
        """Whatever can be known beforehand to keep `grow` from its work: NotSupportedError,
        RefusedError."""
        self._program("xfs_growfs" if self.fs_type == "xfs" else "resize2fs")
        for mount in self.mounts:
            _loop_of(mount)
            if mount.read_only:
                raise RefusedError(
                    f"{mount.mount_point} is mounted read-only, and cannot grow so: unmount it."
                )
        if self.fs_type == "xfs" and not self.mounts and os.geteuid():
            raise NotSupportedError("XFS grows only while it is mounted, which takes root.")

    def grow(self, size: int, *, force: bool = False) -> None:
        """To `size` bytes, which the file has already."""
        mounts = self.mounts
        if not mounts and self.fs_type == "xfs":
            self._grow_xfs_mounted_for_it()
            return
        if not mounts:
            with self._as_device() as device:
                self._resize_ext(device, size, force)
            return
        device = _enlarged(mounts[0])
        if self.fs_type == "xfs":
            self._succeed(["xfs_growfs", mounts[0].mount_point])
        else:
            self._resize_ext(device, size, force)

    def _resize_ext(self, device: str, size: int, force: bool) -> None:
        self._succeed(["resize2fs", *(["-f"] if force else []), device, f"{size >> 10}K"])

    @contextmanager
    def _as_device(self) -> Iterator[str]:
        """A path for programs while it is not mounted. As root a loop device: resize2fs would cut
        a file, which a volume's does not let happen."""
        if os.geteuid():
            yield str(self._path)
            return
        with attach(self._path) as loop:
            yield loop.path

    def _grow_xfs_mounted_for_it(self) -> None:
        folder = tempfile.mkdtemp(prefix="ulvm-growfs")
        try:
            mount_volume(self._path, folder)
            try:
                self._succeed(["xfs_growfs", folder])
            finally:
                unmount_volume(folder)
        finally:
            os.rmdir(folder)

    def shrink(self, size: int, *, force: bool = False) -> None:
        """To `size` bytes; it is not mounted."""
        self.may_shrink()
        if self.mounts:
            raise BusyError(f"{self._path} is mounted on {self.mounts[0].mount_point}.")
        with self._as_device() as device:
            self._resize_ext(device, size, force)

    def may_shrink(self) -> None:
        """RefusedError where it is of a kind that cannot."""
        if self.fs_type == "xfs":
            raise RefusedError("Xfs filesystem shrinking is unsupported.")

    def unmount(self) -> None:
        """Unmount it; `mount_again` brings it back. BusyError while somebody uses it, or where that
        could not bring all back: it is mounted in several places, or a directory of it is."""
        mounts = [mount for name in self._names for mount in mounts_of(name, every=True)]
        if len(mounts) > 1 or any(mount.root != "/" for mount in mounts):
            places = ", ".join(mount.mount_point for mount in mounts)
            raise BusyError(f"{self._path} is mounted on {places}: unmount it.")
        self._unmounted = mounts
        for name in self._names:
            if mounts_of(name):
                unmount_volume(name)

    def mount_again(self) -> None:
        for mount in self._unmounted:
            mount_volume(self._path, mount.mount_point, options=",".join(o for o in mount.options))
        self._unmounted = []

    # -- programs ---------------------------------------------------------------------------

    def _program(self, name: str) -> str:
        program = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
        if program is None:
            raise NotSupportedError(f"Resizing {self.fs_type} needs the program {name}.")
        return program

    def _run(self, argv: Sequence[str]) -> int:
        done = subprocess.run(
            [self._program(argv[0]), *argv[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
        for line in filter(str.strip, done.stdout.splitlines()):
            self._say(line)
        return done.returncode

    def _succeed(self, argv: Sequence[str]) -> None:
        if self._run(argv):
            raise RefusedError("Filesystem resize failed.")


def _loop_of(mount: Mount) -> Loop:
    """The loop device that the mount stands on; NotSupportedError if it is another thing."""
    loop = loop_named(Path(mount.source).name)
    if mount.is_fuse or loop is None:
        raise NotSupportedError(
            f"{mount.mount_point} is mounted by {mount.fs_type}, which cannot grow: unmount it."
        )
    return loop


def _enlarged(mount: Mount) -> str:
    """The device that the mount stands on, when it knows of the file's new size."""
    loop = _loop_of(mount)
    os.stat(loop.backing_file)  # The kernel looks at what it remembers of the file.
    descriptor = os.open(loop.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, _LOOP_SET_CAPACITY)
    except OSError as error:
        raise DeviceError(
            f"Cannot enlarge {loop.path}: {error.strerror}.", errno=error.errno
        ) from error
    finally:
        os.close(descriptor)
    return loop.path
