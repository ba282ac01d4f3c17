"""Unmounting, as root by umount2(2), else by fusermount3 for what the user mounted by FUSE."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import subprocess

from ulvm.errors import BusyError, NotFoundError, NotSupportedError, RefusedError, UlvmError

__all__ = ["unmount"]

_MNT_DETACH = 2
_UMOUNT_NOFOLLOW = 8


def unmount(mount_point: str | os.PathLike[str], *, lazy: bool = False) -> None:
    """Unmount what is on top at a mount point; `lazy` detaches it at once and lets it end when
    its last user goes. BusyError, NotFoundError (nothing is mounted there), RefusedError."""
    if os.geteuid() == 0:
        _unmount_as_root(os.fspath(mount_point), lazy)
    else:
        _unmount_as_user(os.fspath(mount_point), lazy)


def _unmount_as_root(mount_point: str, lazy: bool) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    flags = _UMOUNT_NOFOLLOW | (_MNT_DETACH if lazy else 0)
    if library.umount2(os.fsencode(mount_point), flags) == 0:
        return
    number = ctypes.get_errno()
    if number == errno.EBUSY:
        raise BusyError(f"{mount_point} is in use by another program.")
    if number in (errno.EINVAL, errno.ENOENT):
        raise NotFoundError(f"Nothing is mounted on {mount_point}.")
    raise UlvmError(f"Cannot unmount {mount_point}: {os.strerror(number)}.", errno=number)


def _unmount_as_user(mount_point: str, lazy: bool) -> None:
    program = shutil.which("fusermount3")
    if program is None:
        raise NotSupportedError("Unmounting needs the program fusermount3 when not root.")
    words = [program, "-u", *(["-z"] if lazy else []), "--", mount_point]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return
    reason = done.stderr.strip().removeprefix("fusermount3: ")
    if "busy" in reason.lower():
        raise BusyError(f"{mount_point} is in use by another program.")
    if "not found" in reason or "not mounted" in reason:
        raise NotFoundError(f"Nothing is mounted on {mount_point}.")
    raise RefusedError(f"Cannot unmount {mount_point}: {reason}.")
