"""What every block of every volume may hold at every moment, while many write.

A block names the volume that it was written to, its number and its generation, with a checksum, so
that one that is torn, misplaced or from elsewhere shows by itself. Each block of each volume is
written by one client alone, one write after the other, with generations that rise over all that
the client writes. Of a block the model holds the tokens that may be read now: the last that was
written, and the one under way.

A `Watch` follows a volume from a moment on, for those whose look takes time: a reader beside
writers, a snapshot that is being made, a backup. In its end a block may be one of those that were
possible at its begin, or came since; words of several of these where it was written meanwhile, for
a read(2) beside a write(2) of one file sees words of both. Of what was taken at one instant (a
snapshot) more is asked: no block is torn, and of each client there is no write without all of the
same client that had ended before it.
"""

from __future__ import annotations

import hashlib
import struct
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, TypeAlias

import numpy as np

__all__ = ["BLOCK", "Found", "Token", "Volume", "Watch", "block", "token_of"]

BLOCK = 4096


class Token(NamedTuple):
    """Who wrote a block: the volume's number and the generation; zeros are (0, 0)."""

    volume: int
    generation: int


ZEROS = Token(0, 0)

Found: TypeAlias = Token | bytes
"""What was read of a block: the bytes of one that is torn."""


def block(token: Token, number: int) -> bytes:
    if token == ZEROS:
        return bytes(BLOCK)
    head = struct.pack("<IIQ", token.volume, number, token.generation)
    return (head + hashlib.blake2b(head, digest_size=48).digest()) * (BLOCK // 64)


def token_of(number: int, data: bytes) -> Found:
    """AssertionError if the block is another's."""
    if not any(data):
        return ZEROS
    volume, found, generation = struct.unpack_from("<IIQ", data)
    token = Token(volume, generation)
    if data != block(token, found):
        return data
    assert found == number, f"block {number} holds block {found}"
    return token


def _is_mixed(number: int, data: bytes, allowed: frozenset[Token]) -> bool:
    """Whether each word is that of one of the tokens."""
    wholes = np.stack([np.frombuffer(block(token, number), np.uint64) for token in allowed])
    return bool((wholes == np.frombuffer(data, np.uint64)).any(axis=0).all())


class Watch:
    """Of each block of a range: what it may have held when the watch began, and since."""

    def __init__(self, may: list[frozenset[Token]], first: int) -> None:
        self.first = first
        self.begin = may
        self.since: list[list[tuple[int, frozenset[Token]]]] = [[] for _ in may]
        """(generation of the write, what the block may hold after it)."""

    def note(self, number: int, generation: int, allowed: frozenset[Token]) -> None:
        at = number - self.first
        if 0 <= at < len(self.since):
            self.since[at].append((generation, allowed))

    def allowed(self, number: int) -> frozenset[Token]:
        at = number - self.first
        return self.begin[at].union(*(allowed for _, allowed in self.since[at]))

    def check(self, name: str, blocks: Iterable[Found]) -> None:
        """Blocks of the range, from its first on, looked at one after the other."""
        for number, found in enumerate(blocks, self.first):
            allowed = self.allowed(number)
            if isinstance(found, Token):
                assert found in allowed, f"{name}: block {number} is {found}, not one of {allowed}"
            else:
                mixed = _is_mixed(number, found, allowed)
                assert mixed, f"{name}: block {number} is torn, not of {allowed} alone"

    def check_instant(
        self, name: str, blocks: Sequence[Found], owned: int
    ) -> list[frozenset[Token]]:
        """As `check`, of an instant within the watch; `owned` blocks in a row have one writer.
        Returns what each block may have held then, its own token alone in most cases."""
        tokens = [found for found in blocks if isinstance(found, Token)]
        assert len(tokens) == len(blocks), f"{name}: a block is torn"
        self.check(name, tokens)
        for start in range(0, len(tokens), owned):
            self._check_client(name, tokens, range(start, min(start + owned, len(tokens))))
        return [frozenset((token,)) for token in tokens]

    def _check_client(self, name: str, tokens: list[Token], mine: range) -> None:
        """Is there a write such that all before it had ended, none after it had begun, and it was
        under way itself? From the first on: where a block rules one out, the next that it allows
        comes into question."""
        newest = 0
        at, agreed = mine.start, 0
        while agreed < len(mine):
            if tokens[at] in self._at(at, newest):
                agreed += 1
            else:
                agreed = 0
                later = (
                    generation
                    for generation, allowed in self.since[at]
                    if generation > newest and tokens[at] in allowed
                )
                found = next(later, None)
                assert found is not None, (
                    f"{name}: block {at + self.first} is {tokens[at]}, not one of "
                    f"{self._at(at, newest)}, and a later write, {newest}, is there"
                )
                newest = found
                continue
            at = at + 1 if at + 1 < mine.stop else mine.start

    def _at(self, at: int, newest: int) -> frozenset[Token]:
        """What a block may hold while the write `newest` is under way."""
        last = self.begin[at]
        for generation, allowed in self.since[at]:
            if generation > newest:
                break
            if generation == newest:
                return last | allowed
            last = allowed
        return last


class Volume:
    """A volume of `blocks` blocks. Thread safe."""

    def __init__(self, number: int, name: str, may: list[frozenset[Token]]) -> None:
        self.number = number
        self.name = name
        self.lock = threading.Condition()
        self._may = may
        self._watches: list[Watch] = []
        self._users = 0
        self.closing = False
        """Whoever has it open closes it soon."""
        self.may_fail = False
        """It may run out of room: then reads fail, or tell the truth."""

    @property
    def blocks(self) -> int:
        return len(self._may)

    # -- writes -----------------------------------------------------------------------------

    @contextmanager
    def writing(self, first: int, count: int, generation: int) -> Iterator[bytes]:
        """A write of the bytes given, by the one client that writes these blocks. If it fails,
        it may have come to be in part."""
        token = Token(self.number, generation)
        self._begin(first, count, generation, frozenset((token,)))
        yield b"".join(block(token, n) for n in range(first, first + count))
        with self.lock:
            for n in range(first, first + count):
                self._may[n] = frozenset((token,))

    @contextmanager
    def zeroing(self, first: int, count: int, generation: int, *, sure: bool) -> Iterator[None]:
        """Zeroes, or with `sure` false a discard, which may leave what was there."""
        self._begin(first, count, generation, frozenset((ZEROS,)), keep=not sure)
        yield
        if sure:
            with self.lock:
                for n in range(first, first + count):
                    self._may[n] = frozenset((ZEROS,))

    def _begin(
        self,
        first: int,
        count: int,
        generation: int,
        after: frozenset[Token],
        *,
        keep: bool = False,
    ) -> None:
        with self.lock:
            for n in range(first, first + count):
                allowed = after | self._may[n] if keep else after
                for watch in self._watches:
                    watch.note(n, generation, allowed)
                self._may[n] |= after

    # -- looks ------------------------------------------------------------------------------

    @contextmanager
    def watch(self, first: int = 0, count: int | None = None) -> Iterator[Watch]:
        with self.lock:
            end = self.blocks if count is None else first + count
            watch = Watch(self._may[first:end], first)
            self._watches.append(watch)
        try:
            yield watch
        finally:
            with self.lock:
                self._watches.remove(watch)

    def settled(self) -> list[frozenset[Token]]:
        """What each block may hold now; for a time in which nobody writes."""
        with self.lock:
            return list(self._may)

    def becomes(self, may: list[frozenset[Token]]) -> None:
        """By a merge, while nobody has the volume open."""
        with self.lock:
            assert self._users == 0
            self._may = may

    # -- who has it open --------------------------------------------------------------------

    @contextmanager
    def opened(self) -> Iterator[bool]:
        """Whether it may be used: not while it is being closed."""
        with self.lock:
            usable = not self.closing
            self._users += usable
        try:
            yield usable
        finally:
            with self.lock:
                self._users -= usable
                self.lock.notify_all()

    def close(self, seconds: float) -> None:
        """Have all users let go, and wait for that."""
        self.closing = True
        with self.lock:
            assert self.lock.wait_for(lambda: self._users == 0, seconds), (
                f"{self._users} clients of {self.name} are stuck"
            )

    def reopen(self) -> None:
        self.closing = False
