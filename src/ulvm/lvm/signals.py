"""Signals that wait until what was begun is at its end: those of a terminal, and SIGTERM.

The kernel gives a signal to any thread that does not block it, and Python then acts in the main
one, so blocking holds back for certain only where no other thread runs: as in every command. A
backup runs threads, and defers what would end it in the main one as well (`backup.interrupts`).
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["HeldSignals"]

_HELD_BACK = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP)


class HeldSignals:
    """Of the thread that holds and lets go, and of those that it starts meanwhile."""

    def __init__(self) -> None:
        self._before: set[int] | None = None
        """What was blocked before these are; None while they are not held back."""

    def hold(self) -> None:
        if self._before is None:
            # Known before: one that comes just now is raised out of the call that holds it back.
            self._before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
            signal.pthread_sigmask(signal.SIG_BLOCK, _HELD_BACK)

    def let_go(self) -> None:
        """What came meanwhile takes effect now."""
        before, self._before = self._before, None
        if before is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    @contextmanager
    def let_through(self) -> Iterator[None]:
        """For as long as somebody is asked, if they are held back."""
        held = self._before is not None
        self.let_go()
        try:
            yield
        finally:
            if held:
                self.hold()
