"""Locks between commands: flock(2) on files in `<run_dir>/lock`, as LVM2's file locking.

`V_<vg>` guards a volume group from scan to commit; `P_global` guards the devices file and the
orphan PVs. Who needs both takes P_global first, then VGs in order of name. The kernel drops a
lock when its holder dies; the files stay and mean nothing.

Who only reads takes none, unless what it finds is odd: then it may have looked in the midst of a
change, and looks again when nobody is at work (`nobody_at_work`). That never waits in the kernel:
whatever its caller holds, two of them cannot wait for each other.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ulvm.errors import BusyError, DeviceError
from ulvm.metadata.names import check_stored_name
from ulvm.vgstore.files import private_dir
from ulvm.vgstore.host import Host

__all__ = ["GLOBAL", "global_lock", "nobody_at_work", "vg_lock"]

GLOBAL = "P_global"

_AGAIN = 0.05
"""Seconds between two looks of who waits for a while."""


@contextmanager
def vg_lock(
    host: Host, name: str, *, exclusive: bool, patience: float | None = None
) -> Iterator[None]:
    """Hold a volume group's lock; waits for it unless global/wait_for_locks is 0, but for no longer
    than `patience` in seconds: BusyError."""
    check_stored_name("volume group", name)
    with _flock(host, f"V_{name}", exclusive, patience):
        yield


@contextmanager
def global_lock(host: Host, *, exclusive: bool) -> Iterator[None]:
    """Hold the lock over the devices file and the PVs that are in no VG."""
    with _flock(host, GLOBAL, exclusive):
        yield


@contextmanager
def nobody_at_work(host: Host, names: Iterable[str]) -> Iterator[bool]:
    """Whether shared locks on these VGs, and on what is in none, could be had at once; they are
    held meanwhile. An empty name stands for the latter."""
    paths = [host.lock_dir / (f"V_{name}" if name else GLOBAL) for name in names]
    held: list[int] = []
    try:
        for path in paths:
            # Where no lock was ever taken nobody holds one.
            with suppress(FileNotFoundError):
                held.append(_open(path, os.O_RDWR))
        yield all(_shared_now(fd) for fd in held)
    finally:
        for fd in held:
            os.close(fd)


def _open(path: Path, flags: int) -> int:
    try:
        return os.open(path, flags | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DeviceError(f"{path}: open failed: {error.strerror}", errno=error.errno) from error


def _shared_now(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _flock(host: Host, name: str, exclusive: bool, patience: float | None = None) -> Iterator[None]:
    if not host.locking:
        yield
        return
    private_dir(host.run_dir)
    private_dir(host.lock_dir)
    path = host.lock_dir / name
    mode = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    if not host.config.get_bool("global/wait_for_locks", True):
        patience = 0.0
    fd = _open(path, os.O_RDWR | os.O_CREAT)
    try:
        try:
            _wait_for(fd, mode, patience)
        except BlockingIOError as error:
            words = f"{path}: flock failed: {error.strerror}"
            if name != GLOBAL:
                group = name.removeprefix("V_")
                words += f"\nCan't get lock for {group}.\nCannot process volume group {group}"
            raise BusyError(words) from error
        yield
    finally:
        os.close(fd)


def _wait_for(fd: int, mode: int, patience: float | None) -> None:
    """BlockingIOError if the lock is not to be had in `patience` seconds; None: wait in the
    kernel."""
    if patience is None:
        fcntl.flock(fd, mode)
        return
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(fd, mode | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(_AGAIN)
        else:
            return
