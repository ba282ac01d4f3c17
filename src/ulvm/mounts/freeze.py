"""Freezing file systems while a snapshot is taken (FIFREEZE, FITHAW; fsfreeze(8)).

A frozen file system has written everything out and holds back its writers, so a snapshot taken
now is clean: its journal is empty. States of one mount in `FrozenMounts`:

    untouched -> synced -> frozen -> thawed
                        -> cannot freeze: stays synced (fuse2fs; not root), and is reported so

* Everything is synced before the first freeze, so that little is left to write while writers wait.
* A mount is put on the list of what must be thawed *before* the ioctl that freezes it. Whatever
  interrupts us then, it is thawed on the way out; FITHAW on what is not frozen says EINVAL, which
  is ignored.
* What is frozen is held open until it is thawed: with no descriptor left, with another mount over
  it, or lazily unmounted. Of the places where it is mounted one does that a path leads to; where
  other mounts lie over all of them, or over what is above them, it cannot be frozen.
* A file system that somebody else has frozen (EBUSY) is left frozen: it is theirs to thaw.
* FIFREEZE outlives its process. A guard process thaws if ours dies (kill -9) in between, or cannot:
  it waits for the end of a pipe that we hold. It has all open that may be frozen, from before the
  first freeze, for the same reason, and is told of what is frozen by somebody else, or cannot be.
* Freezing writes to the volume, so a volume must not be suspended yet, and in the process that
  serves the volumes another thread must be free to serve them meanwhile.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import logging
import os
import shutil
import subprocess
import time
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from types import TracebackType

from ulvm.errors import DeviceError
from ulvm.mounts.table import Mount, is_open_in

__all__ = ["FrozenMounts"]

log = logging.getLogger(__name__)

FIFREEZE = 0xC0045877
FITHAW = 0xC0045878

_GUARD = """
while read -r word; do
    [ "$word" != thawed ] || exit 0
    others="$others $word "
done
for fd in "$@"; do
    case "$others" in
    *" $fd "*) ;;
    *) "$0" --unfreeze "/proc/self/fd/$fd" ;;
    esac
done
"""
"""Reads descriptors that are not to be thawed, and at last the word that all are."""


def _open(mount: Mount) -> int | None:
    """The mount's own directory; None if another mount lies over it, or over what is above it: no
    path leads there then. DeviceError."""
    with ExitStack() as held:
        try:
            descriptor = os.open(mount.mount_point, os.O_RDONLY | os.O_CLOEXEC)
            held.callback(os.close, descriptor)
            leads_there = is_open_in(descriptor, mount)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise DeviceError(
                f"Cannot open {mount.mount_point}: {error.strerror}.", errno=error.errno
            ) from error
        if not leads_there:
            return None
        held.pop_all()
        return descriptor


def _reached(places: list[Mount]) -> Mount:
    """The first of a file system's mounts that a path leads to, or the first. DeviceError if that
    is one whose path we may not follow."""
    for mount in places:
        with suppress(DeviceError):
            descriptor = _open(mount)
            if descriptor is not None:
                os.close(descriptor)
                return mount
    return places[0]


def _sync(mount: Mount) -> None:
    """Write out what the file system holds in memory (syncfs(2), and fsync(2) for FUSE, where
    the kernel does not pass syncfs on; sync(2) if another mount lies over it). DeviceError."""
    descriptor = _open(mount)
    if descriptor is None:
        os.sync()
        return
    try:
        library = ctypes.CDLL(None, use_errno=True)
        if library.syncfs(descriptor) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        if mount.is_fuse:
            os.fsync(descriptor)
    except OSError as error:
        raise DeviceError(
            f"Cannot sync {mount.mount_point}: {error.strerror}.", errno=error.errno
        ) from error
    finally:
        os.close(descriptor)


def _freeze(descriptor: int, mount: Mount) -> bool:
    """Freeze the file system. False if it cannot be frozen: its kind cannot, or we may not, or
    somebody else has frozen it already. DeviceError."""
    try:
        fcntl.ioctl(descriptor, FIFREEZE, 0)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.ENOTTY, errno.EPERM, errno.EBUSY):
            return False
        raise DeviceError(
            f"Cannot freeze {mount.mount_point}: {error.strerror}.", errno=error.errno
        ) from error
    return True


def _thaw(descriptor: int, mount: Mount) -> None:
    """Thaw the file system; nothing happens if it is not frozen. DeviceError."""
    try:
        fcntl.ioctl(descriptor, FITHAW, 0)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise DeviceError(
                f"Cannot thaw {mount.mount_point}: {error.strerror}.", errno=error.errno
            ) from error


class FrozenMounts:
    """A context in which file systems are frozen. For one thread. Of each the `mounts` may be all
    that there are.

    `frozen`: the mounts that were frozen; `synced`: those that could only be synced;
    `milliseconds`: how long the writers of the frozen ones waited (0.0 if none was).
    """

    def __init__(self, mounts: Iterable[Mount], *, guard: bool = True) -> None:
        self._places: dict[tuple[int, int], list[Mount]] = {}
        """The mounts of each file system that can be written to."""
        for mount in mounts:
            if not mount.read_only:
                self._places.setdefault(mount.device, []).append(mount)
        self._use_guard = guard
        self._guard: subprocess.Popen[bytes] | None = None
        self._to_thaw: list[tuple[Mount, int]] = []
        """With the descriptors that they are held by."""
        self._since = 0.0
        self.frozen: tuple[Mount, ...] = ()
        self.synced: tuple[Mount, ...] = ()
        self.milliseconds = 0.0

    @property
    def frozen_places(self) -> tuple[str, ...]:
        """Mount points of the frozen, printable."""
        return _printable(self.frozen)

    @property
    def synced_places(self) -> tuple[str, ...]:
        """And of the synced."""
        return _printable(self.synced)

    def __enter__(self) -> FrozenMounts:
        writable = [_reached(places) for places in self._places.values()]
        for mount in writable:
            _sync(mount)
        opened: list[tuple[Mount, int]] = []
        try:
            # A process that serves a file system is not to find it in use for as long.
            for mount in (mount for mount in writable if not mount.is_fuse):
                descriptor = _open(mount)
                if descriptor is not None:
                    opened.append((mount, descriptor))
            self._freeze_all(opened)
        except BaseException:
            self._thaw_all()
            raise
        finally:
            for _, descriptor in opened:
                os.close(descriptor)
        self.frozen = tuple(mount for mount, _ in self._to_thaw)
        self.synced = tuple(mount for mount in writable if mount not in self.frozen)
        return self

    def _freeze_all(self, opened: list[tuple[Mount, int]]) -> None:
        """Freeze these; what is not to be thawed stays in the list."""
        if opened and self._use_guard:
            self._guard = _start_guard([descriptor for _, descriptor in opened])
        self._since = time.monotonic()
        for mount, descriptor in list(opened):
            self._to_thaw.append((mount, descriptor))
            opened.remove((mount, descriptor))
            if not _freeze(descriptor, mount):
                opened.append(self._to_thaw.pop())
                self._tell_guard(descriptor)

    def _tell_guard(self, descriptor: int) -> None:
        if self._guard is not None and self._guard.stdin is not None:
            with suppress(OSError):  # killed
                self._guard.stdin.write(b"%d\n" % descriptor)
                self._guard.stdin.flush()

    def _thaw_all(self) -> list[DeviceError]:
        failures = []
        for mount, descriptor in reversed(self._to_thaw):
            try:
                _thaw(descriptor, mount)
            except DeviceError as error:
                failures.append(error)
            finally:
                os.close(descriptor)
        if self._to_thaw:
            self.milliseconds = (time.monotonic() - self._since) * 1000
        self._to_thaw = []
        if self._guard is not None:
            self._guard.communicate(b"" if failures else b"thawed\n")
            self._guard = None
        return failures

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        failures = self._thaw_all()
        for failure in failures:
            log.error("%s", failure)
        if failures and error is None:
            raise failures[0]


def _printable(mounts: Iterable[Mount]) -> tuple[str, ...]:
    return tuple(m.mount_point.encode(errors="backslashreplace").decode() for m in mounts)


def _start_guard(descriptors: list[int]) -> subprocess.Popen[bytes] | None:
    """A process that thaws when our end of its pipe closes without a word."""
    # cron(8)'s PATH has no sbin, and a daemon that it starts has that PATH.
    program = shutil.which("fsfreeze") or shutil.which("fsfreeze", path="/usr/sbin:/sbin")
    if program is None:
        log.warning("no fsfreeze program: a kill of this process would leave mounts frozen")
        return None
    return subprocess.Popen(
        ["/bin/sh", "-c", _GUARD, program, *map(str, descriptors)],
        pass_fds=descriptors,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for us, not for the guard
    )
