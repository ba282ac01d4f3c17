"""Looking for the next request for a moment before going to sleep.

To be woken costs both sides more than a request of 4 KiB, on a quiet machine several times as
much: there the processor sleeps as well. So who has just answered looks again and again for about
as long. One thread of the process at a time does: two of them would keep each other from the work.
A client that thinks in between is looked for less and less often.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from time import perf_counter

__all__ = ["patient"]

_LOOK_SECONDS = 60e-6
"""About what a sleep costs both sides."""
_MOST_MISSES = 63
_looking = threading.Lock()
"""Held by the thread that looks."""

Receive = Callable[[memoryview], int]


def patient(look: Receive, sleep: Receive) -> Receive:
    """`sleep`, which waits for a request and puts it into the buffer, but `look`, which raises
    BlockingIOError when there is none, is called for a moment before. When nothing came it sleeps
    at once the next time, then the next three times, and so on."""
    if len(os.sched_getaffinity(0)) < 2:
        return sleep
    misses = rest = 0

    def wait(buffer: memoryview) -> int:
        nonlocal misses, rest
        if rest:
            rest -= 1
        elif _looking.acquire(blocking=False):
            try:
                end = perf_counter() + _LOOK_SECONDS
                while perf_counter() < end:
                    try:
                        n = look(buffer)
                    except BlockingIOError:
                        continue
                    misses = 0
                    return n
            finally:
                _looking.release()
            misses = rest = min(2 * misses + 1, _MOST_MISSES)
        return sleep(buffer)

    return wait
