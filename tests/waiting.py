"""Waiting for what another thread or process does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

__all__ = ["ended", "until"]


def until(condition: Callable[[], bool], *, seconds: float = 30, every: float = 0.01) -> None:
    """Return when it holds. Fails the test if that takes longer."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"it does not come to be in {seconds:g} s"
        time.sleep(every)


def ended(work: Callable[[], None], *, seconds: float = 60) -> None:
    """Return when it is done, in a thread of its own; its error, or AssertionError if it hangs."""
    problems: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            problems.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), "it hangs"
    if problems:
        raise problems[0]
