"""Ctrl-C, SIGTERM and SIGHUP as exceptions that cleaning up survives.

Within `interruptible()` these signals raise `Interrupted` in the main thread, so that `finally`
blocks undo what was begun. Within `deferred()`, for steps that must not stop half-way (a change
of metadata, cleaning up), a signal is only noted and raised at the end of the block.

Signal handlers belong to the process, so both are for the main thread of a program; used from
another thread they do nothing.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Interrupted", "deferred", "interruptible"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """A signal asked the program to end; not an error, so `except Exception` lets it pass."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum

    @property
    def exit_code(self) -> int:
        """As a shell reports a program killed by the signal."""
        return 128 + self.signum


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _raise(signum: int, _frame: FrameType | None) -> None:
    raise Interrupted(signum)


@contextmanager
def interruptible() -> Iterator[None]:
    """Signals raise Interrupted. One that the caller ignores (nohup) stays ignored."""
    if not _in_main_thread():
        yield
        return
    previous = {s: signal.getsignal(s) for s in _SIGNALS}
    try:
        for signum, handler in previous.items():
            if handler is not signal.SIG_IGN:
                signal.signal(signum, _raise)
        yield
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)


@contextmanager
def deferred() -> Iterator[None]:
    """Signals wait until the end of the block; then the first that came takes effect."""
    if not _in_main_thread():
        yield
        return
    came: list[int] = []

    def note(signum: int, _frame: FrameType | None) -> None:
        came.append(signum)

    previous = {s: signal.getsignal(s) for s in _SIGNALS}
    for signum, handler in previous.items():
        if handler is not signal.SIG_IGN:
            signal.signal(signum, note)
    try:
        yield
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)
    if came:
        signal.raise_signal(came[0])
