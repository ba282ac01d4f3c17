"""How much the random tests do, from which seed, and what they did.

`make test` takes the short form, with a seed that does not change, so that it fails for a change
of the code alone. `make judge`, `make crash`, `make fuzz` and `make stress` with LONG=1 take the
long form, for a night, with a new seed each time, and SEED=n repeats a run. Each run ends with its
counts and its seed:

    tally: 512 crash images, ULVM_SEED=1
"""

from __future__ import annotations

import os
import random
from collections import Counter

__all__ = ["LONG", "SEED", "amount", "counts", "rng", "tallies", "tally"]

LONG = bool(os.environ.get("ULVM_LONG"))
"""Whether this run is the one for the night."""

SEED = int(os.environ.get("ULVM_SEED") or (random.SystemRandom().randrange(1 << 32) if LONG else 1))

_tallies: Counter[str] = Counter()


def amount(short: int, long: int) -> int:
    """How many of something this run takes."""
    return long if LONG else short


def rng(*names: object) -> random.Random:
    """Randomness for one test, or one case of it; the same for the same seed and names."""
    return random.Random(f"{SEED} {' '.join(map(str, names))}")


def tally(what: str, number: int = 1) -> None:
    """Count for the lines at the end of the run."""
    _tallies[what] += number


def counts() -> dict[str, int]:
    """What was counted in this process."""
    return dict(_tallies)


def tallies() -> list[str]:
    """The lines at the end of the run."""
    return [f"tally: {number} {what}, ULVM_SEED={SEED}" for what, number in _tallies.items()]
