"""The size of the file system in a volume's file: ext by e2fsck and resize2fs, XFS by xfs_growfs.

What fsadm(8) does for block devices, for a file that is a volume. A file system that is mounted
grows where it is, once its loop device knows that the file is longer; ext shrinks only unmounted,
XFS not at all, and XFS grows only mounted, for which it is mounted in between.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from ulvm.errors import BusyError, NotSupportedError, RefusedError
from ulvm.mounts.loop import Loop, attach, grow, loop_named, loops_over
from ulvm.mounts.table import Mount, mount_table, mounts_of
from ulvm.mounts.unmount import check_reached
from ulvm.mounts.volume import mount_volume, one_at_a_time, probe, unmount_volume

__all__ = ["SizedFileSystem"]

_OF_FUSE = {"ro", "nosuid", "nodev", "noexec", "noatime", "sync", "dirsync"}
"""Those of a mount's options that libfuse takes; of others, relatime say, it mounts nothing."""
_WHOLE = (0, 1)
"""e2fsck(8): no errors, or all corrected. Less than 0 is one that was killed."""

Say = Callable[[str], object]


class SizedFileSystem:
    """The file system in a file; RefusedError if there is none whose size can be changed. `say`
    gets what the programs print. fuse2fs may have been told one of the `other_names` of the file.
    For one thread."""

    def __init__(self, path: Path, say: Say, other_names: Sequence[Path] = ()) -> None:
        found = probe(path)
        if found is None:
            raise RefusedError(f'Cannot get FSTYPE of "{path}".')
        self.fs_type = found.fs_type
        self._path = path
        self._other_names = other_names
        self._say = say
        self._unmounted: list[Mount] = []

    @property
    def mounts(self) -> list[Mount]:
        """Where it is mounted, each mount once."""
        return self._mounts()

    def _mounts(self, *, every: bool = False) -> list[Mount]:
        loops = loops_over(self._path)
        return mounts_of(self._path, every=every, loops=loops, names=self._other_names)

    def check(self) -> None:
        """Check it while it is not mounted; XFS checks itself. RefusedError if it is damaged, or at
        Ctrl-C, though that is held back here: it may take long."""
        if self.fs_type == "xfs" or self.mounts:
            return
        with self._as_device() as device:
            if self._run(["e2fsck", "-f", "-p", device], stops=True) not in _WHOLE:
                raise RefusedError("Filesystem check failed.")

    def may_grow(self) -> None:
        """Whatever can be known beforehand to keep `grow` from its work, or have xfs_growfs, which
        goes by the place, grow another one: NotSupportedError, RefusedError, BusyError."""
        self._program("xfs_growfs" if self.fs_type == "xfs" else "resize2fs")
        for mount in self.mounts:
            _loop_of(mount)
            check_reached(mount)
            if mount.read_only or "ro" in mount.options:
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
        device = _enlarged(self._path, mounts[0])
        if self.fs_type == "xfs":
            self._succeed(["xfs_growfs", mounts[0].mount_point])
        else:
            self._resize_ext(device, size, force)

    def _resize_ext(self, device: str, size: int, force: bool) -> None:
        self._succeed(["resize2fs", *(["-f"] if force else []), device, f"{size >> 10}K"])

    @contextmanager
    def _as_device(self) -> Iterator[str]:
        """A path for programs while it is not mounted. As root a loop device: resize2fs would cut
        a file, which a volume's does not let happen. BusyError if it is mounted meanwhile; whoever
        mounts it from now on waits, or takes the loop device, which is the program's then."""
        with ExitStack() as held:
            held.enter_context(one_at_a_time(self._path))
            if mounts := self.mounts:
                raise BusyError(f"{self._path} is mounted on {mounts[0].mount_point}.")
            if os.geteuid():
                yield str(self._path)
                return
            with attach(self._path) as loop:
                held.close()
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
            with suppress(OSError):  # still mounted: that error is under way
                os.rmdir(folder)

    def shrink(self, size: int, *, force: bool = False) -> None:
        """To `size` bytes; it is not mounted."""
        self.may_shrink()
        with self._as_device() as device:
            self._resize_ext(device, size, force)

    def may_shrink(self) -> None:
        """RefusedError where it is of a kind that cannot."""
        if self.fs_type == "xfs":
            raise RefusedError("Xfs filesystem shrinking is unsupported.")

    def unmount(self) -> None:
        """Unmount it; `mount_again` brings it back. BusyError while somebody uses it, or where that
        could not bring all back: it is mounted in several places, or a directory of it is."""
        mounts = self._mounts(every=True)
        if len(mounts) > 1 or any(mount.root != "/" for mount in mounts):
            places = ", ".join(mount.mount_point for mount in mounts)
            raise BusyError(f"{self._path} is mounted on {places}: unmount it.")
        self._unmounted = mounts
        for mount in mounts:
            unmount_volume(mount)

    def mount_again(self) -> None:
        """Bring back what `unmount` took down, or began to."""
        for mount in self._unmounted:
            if mount not in mount_table():
                mount_volume(self._path, mount.mount_point, options=",".join(_options(mount)))
        self._unmounted = []

    # -- programs ---------------------------------------------------------------------------

    def _program(self, name: str) -> str:
        program = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
        if program is None:
            raise NotSupportedError(f"Resizing {self.fs_type} needs the program {name}.")
        return program

    def _run(self, argv: Sequence[str], *, stops: bool = False) -> int:
        """Its exit code. `stops`: Ctrl-C is for it in any case."""
        done = subprocess.run(
            [self._program(argv[0]), *argv[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
            preexec_fn=_let_ctrl_c_through if stops else None,
        )
        for line in filter(str.strip, done.stdout.splitlines()):
            self._say(line)
        return done.returncode

    def _succeed(self, argv: Sequence[str]) -> None:
        if self._run(argv):
            raise RefusedError("Filesystem resize failed.")


def _let_ctrl_c_through() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT,))


def _options(mount: Mount) -> list[str]:
    """What mounts it as it is mounted, of the file system's own options those of ext; read-only
    where the mount or the file system is so, for to mount(8) the last word counts."""
    options = list(dict.fromkeys((*mount.options, *mount.super_options)))
    if mount.is_fuse or os.geteuid():
        options = [option for option in options if option in _OF_FUSE]
    return [option for option in options if option != "rw" or "ro" not in options]


def _loop_of(mount: Mount) -> Loop:
    """The loop device that the mount stands on; NotSupportedError if it is another thing."""
    loop = loop_named(Path(mount.source).name)
    if mount.is_fuse or loop is None:
        raise NotSupportedError(
            f"{mount.mount_point} is mounted by {mount.fs_type}, which cannot grow: unmount it."
        )
    return loop


def _enlarged(path: Path, mount: Mount) -> str:
    """The device that the mount stands on, when it knows of the file's new size."""
    device = _loop_of(mount).path
    os.stat(path)  # The kernel looks at what it remembers of the file.
    grow(device)
    return device
