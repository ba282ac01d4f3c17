"""Ctrl-C, SIGTERM and SIGHUP as exceptions that cleaning up survives.

Within `interruptible()` the first of these signals raises `Interrupted` in the main thread, so
that `finally` blocks undo what was begun. Within `deferred()`, for steps that must not stop
half-way (a change of metadata, cleaning up), a signal is only noted and raised at the end of the
block.

    state                            a signal
    nothing came yet                 raises Interrupted
    within deferred()                is noted; raises Interrupted at the block's end
    Interrupted is under way         is passed over: what was begun is being undone already

The last is what an impatient second Ctrl-C meets. Were it raised, it would strike between or in
the steps of cleaning up, of which no care makes every line safe. An Interrupted is under way as
long as the object lives; one that got lost (Python drops what is raised in a finalizer) does not
make the program deaf.

An error may be under way instead, and the first signal come then. So what cleans up does so
within `deferred()`; and since between its call and that block a signal can still strike, once,
what must not be left (`BackupSnapshot`) is closed by two contexts, of which the second finds
nothing to do as a rule.

Signal handlers belong to the process, so both are for the main thread of a program; used from
another thread they do nothing, nor does `deferred` outside `interruptible`.
"""

from __future__ import annotations

import signal
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Interrupted", "deferred", "interruptible"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """A signal asked the program to end; not an error, so `except Exception` lets it pass."""

    outcome: str | None = None
    """What is left of the work, as a sentence's end, where the one who was at it knows better."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum

    @property
    def exit_code(self) -> int:
        """As a shell reports a program killed by the signal."""
        return 128 + self.signum


class _State:
    """What the handler goes by. Of the main thread alone."""

    held = 0
    """How many deferred() blocks it is in."""
    came: list[int] = []  # noqa: RUF012
    """Signals noted in them."""
    under_way: weakref.ref[Interrupted] | None = None


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _handle(signum: int, _frame: FrameType | None = None) -> None:
    if _State.held:
        _State.came.append(signum)
    elif _State.under_way is None or _State.under_way() is None:
        stop = Interrupted(signum)
        _State.under_way = weakref.ref(stop)
        try:
            raise stop
        finally:
            del stop  # its traceback holds this frame: a circle would keep it alive


@contextmanager
def interruptible() -> Iterator[None]:
    """Signals raise Interrupted. One that the caller ignores (nohup) stays ignored."""
    if not _in_main_thread():
        yield
        return
    previous = {s: signal.getsignal(s) for s in _SIGNALS}
    _State.under_way = None
    try:
        for signum, handler in previous.items():
            if handler is not signal.SIG_IGN:
                signal.signal(signum, _handle)
        yield
    except RuntimeError:
        # Raised between the lines of threading.Condition, an Interrupted leaves its lock released,
        # and the second release fails in its place.
        stop = None if _State.under_way is None else _State.under_way()
        if stop is None:
            raise
        raise stop from None
    finally:
        _State.held += 1  # as deferred() does, at whose call a signal might strike
        for signum, handler in previous.items():
            signal.signal(signum, handler)
        _State.held -= 1


@contextmanager
def deferred() -> Iterator[None]:
    """Signals wait until the end of the block; then the first that came takes effect, unless the
    block ends with an error."""
    if not _in_main_thread():
        yield
        return
    if not _State.held:
        _State.came.clear()
    # Python looks for signals between calls, so none is handled between this line and the next.
    _State.held += 1
    try:
        yield
    finally:
        _State.held -= 1
    if _State.came and not _State.held:
        _handle(_State.came[0])
