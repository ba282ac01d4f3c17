"""A row that is not a load of fio's but measured by a function of its own."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bench.bed import Bed
from bench.model import Goal, Measured

__all__ = ["OwnRow", "elapsed", "median_seconds"]


@dataclass(frozen=True)
class OwnRow:
    """`how` does all rounds and gives the samples of every contestant, ours first."""

    name: str
    title: str
    unit: str
    how: Callable[[Bed], Measured]
    goals: tuple[Goal, ...] = ()
    more: bool = False
    programs: tuple[str, ...] = ()

    def measure(self, bed: Bed) -> Measured:
        return self.how(bed)


def elapsed(words: Sequence[str], environment: Mapping[str, str]) -> float:
    """Seconds that a command takes. RuntimeError with what it said when it fails."""
    begun = time.perf_counter()
    done = subprocess.run(
        words,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - begun
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()}")
    return seconds


def median_seconds(words: Sequence[str], environment: Mapping[str, str], times: int) -> float:
    return statistics.median(elapsed(words, environment) for _ in range(times))
