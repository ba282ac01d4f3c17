"""Watching a snapshot's COW store while a backup reads it, and extending it before it fills.

Every `interval` the status is read. From the growth since the last look follows when the store
would be full; it is extended when that is nearer than `horizon`, or when it is fuller than
`threshold`. Extending doubles the store, as far as the volume group has room. Where that gained
nothing, or could not be done, it is tried again after `pause`, since the group may be given room. A
writer that fills the whole store between two looks wins, and the snapshot is invalid: that is
noted, and the backup must fail.

The watcher has a thread of its own; while that runs `status` and `extend` are called from it alone.
Extending suspends the origin, and what the thread blocks of signals Ctrl-Z does not go by: it stops
all threads. So one that comes meanwhile is noted, and sent again when the store is extended. Its
handler waits for nothing: the main thread, which runs it, may hold what the thread needs to come to
its end (the lock of a progress bar, to say a word).
"""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import NamedTuple

from ulvm.backup.interrupts import deferred
from ulvm.units import SECTOR

__all__ = ["CowStatus", "CowWatcher", "parse_cow_status"]

_NUMBERS = re.compile(r"(\d+)/(\d+) (\d+)\Z")


class CowStatus(NamedTuple):
    """Fill of a COW store in bytes; `valid` is False once it overflowed or failed."""

    used: int
    total: int
    valid: bool

    @property
    def fraction(self) -> float:
        return self.used / self.total if self.total else 1.0


def parse_cow_status(params: str) -> CowStatus:
    """The parameters of a snapshot's status line (sectors), as the kernel prints them."""
    match = _NUMBERS.match(params)
    if match is None:
        return CowStatus(0, 0, False)
    return CowStatus(int(match[1]) * SECTOR, int(match[2]) * SECTOR, True)


class CowWatcher:
    """Use as a context. Properties may be read from any thread.

    `limit` is the size in bytes at which the store cannot overflow any more. `status` returns
    the fill; `extend(total)` is given the size and returns the new one, all in bytes: the same if
    the volume group has no more room, None if it cannot be done now, for a reason that it tells.
    Errors of both, of any kind, end the watching; `check` raises them.
    """

    def __init__(
        self,
        status: Callable[[], CowStatus],
        extend: Callable[[int], int | None],
        *,
        limit: int,
        say: Callable[[str], None],
        interval: float = 0.2,
        threshold: float = 0.7,
        horizon: float = 4.0,
        pause: float = 3.0,
    ) -> None:
        self._status = status
        self._extend = extend
        self._limit = limit
        self._say = say
        self._interval = interval
        self._threshold = threshold
        self._horizon = horizon
        self._pause = pause
        self._stop = threading.Event()
        self._extending = threading.Lock()
        """Of the thread while it extends, of the main thread while the process is stopped."""
        self._thread = threading.Thread(target=self._run, name="ulvm-cow-watch", daemon=True)
        self._stoppable = False
        """Whether Ctrl-Z stops this process, and is ours to delay."""
        self._stop_wanted = False
        """That it came while the store was being extended."""
        self._try_again = 0.0
        """When it makes sense to, of the monotonic clock."""
        self._told = False
        """That there is no room, since it was extended last."""
        self._error: BaseException | None = None
        self.peak = 0
        """Most bytes that were seen in use."""
        self.last = CowStatus(0, 0, True)
        """What was seen last."""
        self.overflowed = False

    def __enter__(self) -> CowWatcher:
        self.look()
        self._stoppable = (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGTSTP) is signal.SIG_DFL
        )
        try:
            with deferred():
                if self._stoppable:
                    signal.signal(signal.SIGTSTP, self._ctrl_z)
                self._thread.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with deferred():  # what the thread uses is closed next
            self._stop.set()
            if self._thread.ident is not None:  # else it could not be started
                self._thread.join()
            if self._stoppable:
                signal.signal(signal.SIGTSTP, signal.SIG_DFL)

    def _ctrl_z(self, _signum: int, _frame: FrameType | None) -> None:
        """Do what it does without us: the kernel passes over one that nobody could let go on."""
        self._stop_wanted = True  # before the look: who extends looks at it afterwards
        if not self._extending.acquire(blocking=False):
            return
        try:
            self._stop_wanted = False
            signal.signal(signal.SIGTSTP, signal.SIG_DFL)
            signal.raise_signal(signal.SIGTSTP)
            signal.signal(signal.SIGTSTP, self._ctrl_z)
        finally:
            self._extending.release()

    def check(self) -> None:
        """Raise what ended the watching."""
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        before, then = self.last.used, time.monotonic()
        try:
            while not self.overflowed and not self._stop.wait(self._interval):
                status = self.look()
                now = time.monotonic()
                rate = (status.used - before) / (now - then)
                before, then = status.used, now
                if status.valid and now >= self._try_again and self._is_close(status, rate):
                    self._grow(status)
        except BaseException as error:  # for the thread that calls check: nobody else hears of it
            self._error = error

    def look(self) -> CowStatus:
        """Read the status now. Of the thread, while that runs."""
        status = self._status()
        self.last = status
        if status.valid:
            self.peak = max(self.peak, status.used)
        else:
            self.overflowed = True
        return status

    def _is_close(self, status: CowStatus, rate: float) -> bool:
        if status.total >= self._limit:
            return False
        if status.fraction >= self._threshold:
            return True
        return rate > 0 and (status.total - status.used) / rate < self._horizon

    def _grow(self, status: CowStatus) -> None:
        try:
            with self._extending:
                size = self._extend(status.total)
        finally:
            if self._stop_wanted:
                os.kill(os.getpid(), signal.SIGTSTP)
        if size is None:
            self._try_again = time.monotonic() + self._pause
        elif size > status.total:
            self._told = False
            self._say(
                f"Snapshot was {status.fraction:.0%} full: extended from "
                f"{status.total / (1 << 20):.2f} to {size / (1 << 20):.2f} MiB."
            )
        else:
            self._try_again = time.monotonic() + self._pause
            if not self._told:
                self._told = True
                self._say(
                    f"Snapshot is {status.fraction:.0%} full and there is no room to extend it."
                )
