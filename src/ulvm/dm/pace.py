"""How fast writers may fill a stage while a commit is under way (dm.stage).

Without it they would fill what is free at the speed of memory, and then one of them would wait for
all of the commit: a quarter of a second for 32 MiB. So each waits for a moment instead. At half the
time that the commit should take they may have filled half of what was free, then in as much again
half of the rest, and so on: a commit that takes longer than the one before finds some room still.
"""

from __future__ import annotations

import math
import time

__all__ = ["Pace"]

_PAGE_SECONDS = 50e-6
"""What a page costs in a commit, as long as there was none that tells."""
_MANY = 1024
"""A commit of so many pages tells; of fewer the barriers would."""
_LEAST_FREE = 1 / 1024
_LEAST_WAIT = 0.5e-3
_MOST_WAIT = 2e-3
"""Seconds that a writer is held at a time. A connection's other requests wait with it."""


class Pace:
    """Of one stage. `begin` and `end` belong to one thread at a time, `wait` to any."""

    def __init__(self) -> None:
        self._begun = 0.0
        self._page_seconds = _PAGE_SECONDS

    def begin(self) -> None:
        """A commit begins now."""
        self._begun = time.monotonic()

    def end(self, pages: int) -> None:
        """It was one of so many pages."""
        if pages >= _MANY:
            self._page_seconds = (time.monotonic() - self._begun) / pages

    def wait(self, filled: float, sealed: int) -> bool:
        """Let a writer wait if need be; whether it had to. `filled`: the part of the room that has
        been filled since the commit of `sealed` pages began."""
        half_life = sealed * self._page_seconds / 2
        due = self._begun - half_life * math.log2(max(1 - filled, _LEAST_FREE))
        ahead = due - time.monotonic()
        if ahead <= _LEAST_WAIT:
            return False
        time.sleep(min(ahead, _MOST_WAIT))
        return True
