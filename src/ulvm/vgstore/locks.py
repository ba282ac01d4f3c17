"""Locks between commands: flock(2) on files in `<run_dir>/lock`, as LVM2's file locking.

`V_<vg>` guards a volume group from scan to commit; `P_global` guards the devices file and the
orphan PVs. Who needs both takes P_global first, then VGs in order of name. The kernel drops a
lock when its holder dies; the files stay and mean nothing.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from ulvm.errors import BusyError, DeviceError
from ulvm.metadata.names import check_stored_name
from ulvm.vgstore.files import private_dir
from ulvm.vgstore.host import Host

__all__ = ["GLOBAL", "global_lock", "vg_lock"]

GLOBAL = "P_global"


@contextmanager
def vg_lock(host: Host, name: str, *, exclusive: bool) -> Iterator[None]:
    """Hold a volume group's lock; waits for it unless global/wait_for_locks is 0."""
    check_stored_name("volume group", name)
    with _flock(host, f"V_{name}", exclusive):
        yield


@contextmanager
def global_lock(host: Host, *, exclusive: bool) -> Iterator[None]:
    """Hold the lock over the devices file and the PVs that are in no VG."""
    with _flock(host, GLOBAL, exclusive):
        yield


@contextmanager
def _flock(host: Host, name: str, exclusive: bool) -> Iterator[None]:
    if not host.locking:
        yield
        return
    private_dir(host.run_dir)
    private_dir(host.lock_dir)
    path = host.lock_dir / name
    mode = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    if not host.config.get_bool("global/wait_for_locks", True):
        mode |= fcntl.LOCK_NB
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise DeviceError(f"{path}: open failed: {error.strerror}", errno=error.errno) from error
    try:
        try:
            fcntl.flock(fd, mode)
        except BlockingIOError as error:
            raise BusyError(f"Can't get lock for {name.removeprefix('V_')}.") from error
        yield
    finally:
        os.close(fd)
