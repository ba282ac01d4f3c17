"""What a command says, and that it is kept while volumes are suspended.

Standard output, or the log, may be a file on a file system that is frozen then: who writes to it
waits for the end of the freeze, for which nobody else would care.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

__all__ = ["Messages", "Words"]


class Messages(Protocol):
    """Where a command's words go. Texts are without LVM's indentation; a text of several lines is
    several messages."""

    verbosity: int
    """How much of `verbose` is wanted: nothing at 0."""

    def say(self, text: str) -> None:
        """A result, on standard output."""

    def warn(self, text: str) -> None:
        """A warning, on standard error."""

    def verbose(self, text: str) -> None:
        """What is done, for who wants to know it (-v)."""

    def ask(self, question: str) -> bool:
        """`question` ends before ` [y/n]: `, or is the whole prompt if it ends in a blank. Without
        a terminal the answer is no; with --yes nothing is printed and it is yes."""


class Words:
    """The `Messages` of a command, but for its questions; within `kept` they wait for its end."""

    def __init__(self, messages: Messages) -> None:
        self._messages = messages
        self._kept: list[tuple[Callable[[str], None], str]] | None = None

    def say(self, text: str) -> None:
        self._tell(self._messages.say, text)

    def warn(self, text: str) -> None:
        self._tell(self._messages.warn, text)

    def verbose(self, text: str) -> None:
        self._tell(self._messages.verbose, text)

    def _tell(self, tell: Callable[[str], None], text: str) -> None:
        if self._kept is None:
            tell(text)
        else:
            self._kept.append((tell, text))

    @contextmanager
    def kept(self) -> Iterator[None]:
        if self._kept is not None:
            yield
            return
        kept = self._kept = []
        try:
            yield
        finally:
            self._kept = None
            for tell, text in kept:
                tell(text)
