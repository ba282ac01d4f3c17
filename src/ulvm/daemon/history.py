"""How full a snapshot was when: its rate, and when it will be full if that goes on.

The rate is that of the last minute, or of the time since it is watched if that is less. Pure: the
caller gives the time.
"""

from __future__ import annotations

from collections import deque

__all__ = ["FillHistory"]

WINDOW = 60.0
"""Seconds over which the rate is taken."""
_SPACING = 1.0
"""Seconds between two samples that are kept: at most WINDOW of them."""


class FillHistory:
    """Of one snapshot. Times in seconds of one clock, sizes in sectors."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()
        self._last: tuple[float, int] | None = None

    def add(self, now: float, allocated: int) -> None:
        if self._last is not None and allocated < self._last[1]:
            self._samples.clear()  # another snapshot under the same name
        if not self._samples or now - self._samples[-1][0] >= _SPACING:
            self._samples.append((now, allocated))
        self._last = (now, allocated)
        # One sample at the far end of the window stays, to measure from.
        while len(self._samples) > 1 and now - self._samples[1][0] >= WINDOW:
            self._samples.popleft()

    @property
    def rate(self) -> float:
        """Sectors per second; 0 before there are two looks at it."""
        if self._last is None:
            return 0.0
        first, last = self._samples[0], self._last
        seconds = last[0] - first[0]
        return (last[1] - first[1]) / seconds if seconds > 0 else 0.0

    def seconds_until(self, sectors: int) -> float | None:
        """How long until `sectors` are allocated at this rate; None if never."""
        if self._last is None:
            return None
        missing = max(sectors - self._last[1], 0)
        if not missing:
            return 0.0
        return missing / self.rate if self.rate > 0 else None
