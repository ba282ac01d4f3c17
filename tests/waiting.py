"""Waiting for what another thread or process does."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["until"]


def until(condition: Callable[[], bool], *, seconds: float = 30, every: float = 0.01) -> None:
    """Return when it holds. Fails the test if that takes longer."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"it does not come to be in {seconds:g} s"
        time.sleep(every)
