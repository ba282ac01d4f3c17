"""Unmounting, as root by umount2(2), else by fusermount3 for what the user mounted by FUSE."""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import shutil
import subprocess
import threading
from pathlib import Path

from ulvm.errors import BusyError, NotFoundError, NotSupportedError, RefusedError, UlvmError
from ulvm.mounts.table import Mount, is_open_in, mount_at, mount_table

__all__ = ["check_reached", "clear_stale", "unmount"]

log = logging.getLogger(__name__)

_MNT_FORCE = 1
_MNT_DETACH = 2
_UMOUNT_NOFOLLOW = 8
_CONNECTIONS = Path("/sys/fs/fuse/connections")
_ANSWER_SECONDS = 5.0


def unmount(
    what: Mount | str | os.PathLike[str], *, lazy: bool = False, force: bool = False
) -> None:
    """Unmount this mount, if it is still there, or what is on top at a mount point. Where mounts
    are shared (mount_namespaces(7)) one takes its copies in other places along.

    `lazy` detaches it at once and lets it end when its last user goes; `force` moreover aborts the
    connection of a FUSE mount, so that all that its users still ask for fails.
    BusyError, NotFoundError (nothing is mounted there), RefusedError.
    """
    if isinstance(what, Mount):
        if all(mount.mount_id != what.mount_id for mount in mount_table()):
            return
        check_reached(what)
    mount_point = os.fspath(what.mount_point if isinstance(what, Mount) else what)
    if os.geteuid() == 0:
        _unmount_as_root(mount_point, lazy or force, force)
    else:
        if force:
            _abort_connection(mount_point)
        _unmount_as_user(mount_point, lazy or force)


def check_reached(mount: Mount) -> None:
    """BusyError if the place of a mount leads nowhere, or to another mount. Nothing is asked of the
    file system, which may hang."""
    covered = BusyError(f"Another mount lies over {mount.mount_point}.")
    try:
        descriptor = os.open(mount.mount_point, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise covered from None
    except OSError:
        return  # not for us; nor is it to be unmounted then
    try:
        if not is_open_in(descriptor, mount):
            raise covered
    finally:
        os.close(descriptor)


def _unmount_as_root(mount_point: str, lazy: bool, force: bool) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    flags = _UMOUNT_NOFOLLOW | (_MNT_DETACH if lazy else 0) | (_MNT_FORCE if force else 0)
    if library.umount2(os.fsencode(mount_point), flags) == 0:
        return
    number = ctypes.get_errno()
    if number == errno.EBUSY:
        raise BusyError(f"{mount_point} is in use by another program.")
    if number in (errno.EINVAL, errno.ENOENT):
        raise NotFoundError(f"Nothing is mounted on {mount_point}.")
    raise UlvmError(f"Cannot unmount {mount_point}: {os.strerror(number)}.", errno=number)


def _abort_connection(mount_point: str | os.PathLike[str]) -> None:
    """The user's way to what MNT_FORCE does for root (Documentation/filesystems/fuse)."""
    mount = mount_at(mount_point)
    if mount is None or not mount.is_fuse:
        return
    switch = _CONNECTIONS / str(mount.minor) / "abort"
    try:
        switch.write_text("1")
    except OSError as error:
        log.warning("cannot abort the FUSE connection of %s: %s", mount_point, error)


def _unmount_as_user(mount_point: str, lazy: bool) -> None:
    program = shutil.which("fusermount3")
    if program is None:
        raise NotSupportedError("Unmounting needs the program fusermount3 when not root.")
    words = [program, "-u", *(["-z"] if lazy else []), "--", mount_point]
    done = subprocess.run(
        words, capture_output=True, text=True, errors="surrogateescape", check=False
    )
    if done.returncode == 0:
        return
    reason = done.stderr.strip().removeprefix("fusermount3: ")
    if "busy" in reason.lower():
        raise BusyError(f"{mount_point} is in use by another program.")
    if "not found" in reason or "not mounted" in reason:
        raise NotFoundError(f"Nothing is mounted on {mount_point}.")
    raise RefusedError(f"Cannot unmount {mount_point}: {reason}.")


def clear_stale(mountpoint: Path) -> None:
    """Take away the mount that a killed server left behind; BusyError if a living one is there."""
    while (mount := mount_at(mountpoint)) is not None and mount.is_fuse:
        answer: list[int] = []

        def ask(answer: list[int] = answer) -> None:
            try:
                os.stat(mountpoint)
            except OSError as error:
                answer.append(error.errno or 0)

        # In a thread: a server that is alive but stopped never answers.
        asking = threading.Thread(target=ask, name="ulvm-fuse-probe", daemon=True)
        asking.start()
        asking.join(_ANSWER_SECONDS)
        if answer not in ([errno.ENOTCONN], [errno.ECONNABORTED]):
            raise BusyError(f"{mountpoint} is already served by another process.")
        log.warning("unmounting %s, which a dead server left behind", mountpoint)
        unmount(mountpoint, lazy=True)
