"""What a command says, kept while volumes are suspended.

Standard output, or the log, may be a file on a file system that is frozen then: who writes to it
waits for the end of the freeze, for which nobody else would care.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ulvm.lvm.session import Messages

__all__ = ["Words"]


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
