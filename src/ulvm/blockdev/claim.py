"""Claims: an image or a disk is used by one owner at a time, and other programs can tell.

A claim on a plain file is three things, each of which catches somebody else:

* an open-file-description lock over the whole file (fcntl(2), F_OFD_SETLK): another ulvm and
  QEMU, which lock images. It ends with the descriptor, so also with kill -9;
* a look at the loop devices: one over the same file writes past our back;
* a read lease that is taken and given back (fcntl(2), F_SETLEASE): refused while anybody has
  the file open for writing, whether that program locks or not. ulvm's own commands open an image
  for a moment to write metadata without a claim, hence a few tries.

The lease is a test, not a guard: who opens the file later without asking for the lock is not kept
out. Where the file system knows no locks or leases, or the file is another user's, the test is
left out. A block device is opened with O_EXCL, the kernel's own claim, in `file`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import signal
import struct
import time
from collections.abc import Callable
from pathlib import Path

from ulvm.errors import BusyError, DeviceError

__all__ = ["check_users", "claim_file", "loop_over"]

_FLOCK = struct.Struct("=hhxxxxqqixxxx")
"""struct flock: l_type, l_whence, l_start, l_len (0: to the end, wherever it moves), l_pid."""

_LEASE_TRIES = 20
_LEASE_PAUSE = 0.05  # seconds
_NOT_OFFERED = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
_SYS_BLOCK = Path("/sys/block")
_DELETED = b" (deleted)"
_MOUNTINFO = Path("/proc/self/mountinfo")
_OCTAL = re.compile(rb"\\([0-7]{3})")


def claim_file(fd: int, path: str, *, writable: bool) -> None:
    """Take the lock on an open plain file; it stays until the descriptor is closed.

    BusyError if somebody holds it, DeviceError if the lock cannot be asked for.
    """
    _lock(fd, path, fcntl.F_OFD_SETLK, writable=writable)


def _lock(fd: int, path: str, command: int, *, writable: bool) -> None:
    """Take the lock (F_OFD_SETLK) or look who has it (F_OFD_GETLK)."""
    kind = fcntl.F_WRLCK if writable else fcntl.F_RDLCK
    try:
        answer = fcntl.fcntl(fd, command, _FLOCK.pack(kind, os.SEEK_SET, 0, 0, 0))
        held = command == fcntl.F_OFD_GETLK and _FLOCK.unpack(answer)[0] != fcntl.F_UNLCK
    except OSError as error:
        if error.errno in _NOT_OFFERED:
            return
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise DeviceError(f"{path}: {error.strerror}", errno=error.errno) from error
        held = True
    if held:
        raise BusyError(f"{path} is in use by another program (it holds a lock).")


def loop_over(fd: int) -> str | None:
    """The name of a loop device over this open file, None without one. OSError without /proc."""
    found = os.fstat(fd)
    entries = list(_SYS_BLOCK.glob("loop*/loop/backing_file"))
    within = _on_its_file_system(fd) if entries else None
    for entry in entries:
        try:
            name = entry.read_bytes().rstrip(b"\n").removesuffix(_DELETED)
            if within is None or not within(name):
                continue
            backing = os.stat(name)
        except OSError:  # detached while we look, or its file has another name by now
            continue
        if (backing.st_dev, backing.st_ino) == (found.st_dev, found.st_ino):
            return f"/dev/{entry.parent.parent.name}"
    return None


def _on_its_file_system(fd: int) -> Callable[[bytes], bool]:
    """Whether a path leads to the file system of this open file, by the table of mounts alone
    (proc_pid_mountinfo(5)): all mounts of one file system show the same number, which need not be
    that of its files (btrfs)."""
    lines = [line.split(b" ") for line in _MOUNTINFO.read_bytes().split(b"\n") if line]
    number_of = {words[0]: words[2] for words in lines}
    at = {
        _OCTAL.sub(lambda match: bytes((int(match[1], 8),)), words[4]).rstrip(b"/"): words[2]
        for words in lines
    }
    info = Path(f"/proc/self/fdinfo/{fd}").read_bytes()
    own = number_of.get(info.partition(b"mnt_id:")[2].split()[0])

    def same(path: bytes) -> bool:
        while path and path not in at:
            path = path.rpartition(b"/")[0]
        return at.get(path) == own

    return same


def check_users(path: str, *, writable: bool) -> None:
    """Before a plain file is opened (our own descriptor would count as a writer): BusyError if
    another holds the lock, a loop device uses it or anybody has it open for writing."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _lock(fd, path, fcntl.F_OFD_GETLK, writable=writable)
        loop = loop_over(fd)
        if loop is not None:
            raise BusyError(f"{path} is in use by the loop device {loop}.")
        for _ in range(_LEASE_TRIES):
            if not _open_for_writing(fd):
                return
            time.sleep(_LEASE_PAUSE)
    finally:
        os.close(fd)
    raise BusyError(f"{path} is held open for writing by another program.")


def _open_for_writing(fd: int) -> bool:
    try:
        # Who opens it for writing just now has us told, by SIGIO unless we choose: that would end
        # the process. SIGURG is passed over by those who do not ask for it.
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False
