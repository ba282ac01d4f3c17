"""How large a snapshot's COW must be, from how the chunks of its origin change. Pure.

A snapshot copies a chunk once, when it is first written; so what it needs for a time is the number
of distinct chunks that are written in it, not the number of writes. The measurement gives, for each
slot of time and each written chunk, how many slots ago it was written before (daemon.measure). A
chunk is new to a window that began `m` slots ago if that was never, or longer ago than `m`: so the
distinct chunks of every window of every length are counted exactly.

    expected   as long as the measurement: the mean over all windows of that length; beyond: goes on
               with the rate at which the second half of the longest window met new chunks, which is
               more than comes if the same places change again, so errs on the safe side
    95, 99 %   above that by Student's t on how far the tenths of the measurement lie from each
               other: such noise has the time to come as well as the measurement; not less than what
               so many of the measured windows stayed below; not more than all chunks

What the measurement did not see, a nightly job say, is in none of the numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

__all__ = ["ChunkChanges", "Estimate"]

_PARTS = 10
_STUDENT = {0.95: 1.833, 0.99: 2.821}
"""One-sided, for _PARTS - 1 degrees of freedom."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Distinct chunks: expected, and not exceeded in 95 and 99 of a hundred cases."""

    expected: int
    in_95: int
    in_99: int


class ChunkChanges:
    """For one chunk size: `slots[s]` is {gap: chunks}; `total` chunks has the volume."""

    def __init__(self, slots: Sequence[Mapping[int, int]], total: int) -> None:
        self._slots = slots
        self._total = total

    @cached_property
    def _fresh(self) -> list[list[int]]:
        """[s][m]: chunks of slot s that are new to a window that began m slots before it."""
        table = []
        for s, histogram in enumerate(self._slots):
            row = [histogram.get(0, 0)] * (s + 1)
            more = 0
            for m in range(s, -1, -1):
                row[m] += more
                more += histogram.get(m, 0) if m else 0
            table.append(row)
        return table

    def distinct(self, start: int, length: int) -> int:
        """Chunks written in `length` slots from `start` on."""
        return sum(self._fresh[start + m][m] for m in range(length))

    def mean(self, length: int) -> float:
        """Over all windows of so many slots."""
        starts = range(len(self._slots) - length + 1)
        return sum(self.distinct(start, length) for start in starts) / len(starts)

    def expected(self, slots: float) -> float:
        """Distinct chunks in so many slots."""
        known = len(self._slots)
        whole = min(int(slots), known)
        if slots <= known:
            below = self.mean(whole) if whole else 0.0
            if slots == whole:
                return below
            return below + (slots - whole) * (self.mean(whole + 1) - below)
        half = known // 2
        rate = (self.mean(known) - (self.mean(half) if half else 0)) / (known - half)
        return min(self.mean(known) + (slots - known) * rate, self._total)

    def estimate(self, slots: float) -> Estimate:
        """For a snapshot that lives for so many slots."""
        expected = self.expected(slots)
        spread = self._spread(slots)
        bounds = []
        for share, student in _STUDENT.items():
            upper = max(expected * (1 + student * spread), self._quantile(slots, share))
            bounds.append(min(math.ceil(upper), self._total))
        return Estimate(min(math.ceil(expected), self._total), *bounds)

    def _spread(self, slots: float) -> float:
        """Standard deviation of what comes, by what is expected."""
        known = len(self._slots)
        part = max(known // _PARTS, 1)
        counts = [self.distinct(at, part) for at in range(0, known - part + 1, part)]
        mean = sum(counts) / len(counts)
        if not mean or len(counts) < 2:
            return 0.0
        variance = sum((count - mean) ** 2 for count in counts) / (len(counts) - 1)
        # As many independent parts lie in the time to come, and as many were measured.
        noise = min(part / slots, 1.0) + part / known
        return math.sqrt(variance * noise) / mean

    def _quantile(self, slots: float, share: float) -> float:
        """What this share of the measured windows of that length stayed below."""
        length = math.ceil(slots)
        if length > len(self._slots):
            return 0.0
        starts = range(len(self._slots) - length + 1)
        counts = sorted(self.distinct(start, length) for start in starts)
        return counts[min(math.ceil(share * len(counts)), len(counts)) - 1]
