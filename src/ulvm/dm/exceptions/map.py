"""The exception map: origin chunk -> COW chunk, flat, in anonymous memory.

Two arrays indexed by origin chunk: one state byte, and the COW chunk as a 4-byte (8-byte where
needed) integer. Both are anonymous private maps without swap reservation, so that chunks never
touched cost nothing and one exception costs at most a few bytes once its neighbours exist.

Readers take no lock: a state byte is set to DONE only after `where` holds the COW chunk and the
exception is as durable as its store promises. Only the holder of the origin's lock changes
anything.

    NONE     not copied; the snapshot reads the origin here
    DONE     the exception is complete: the snapshot reads its COW chunk
    PENDING  allocated, not yet committed, nor perhaps copied: reads still go to the origin,
             writes (to the origin or the snapshot) wait for the commit
"""

from __future__ import annotations

import errno
import mmap
import sys
from collections.abc import Iterator
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from ulvm.errors import TableError

__all__ = [
    "DONE",
    "NONE",
    "PENDING",
    "ExceptionMap",
    "Lookup",
    "Numbers",
    "States",
    "anonymous",
    "chunks_of",
    "firsts_of",
    "runs_of",
]

Numbers: TypeAlias = npt.NDArray[np.int64]

NONE = 0
DONE = 1
PENDING = 2

_DONE = bytes([DONE])
_MAP_NORESERVE = 0x4000  # linux/mman.h; not in Python's mmap before 3.12
_U32_LIMIT = 1 << 32


def anonymous(size: int) -> mmap.mmap:
    """Zeros that cost nothing until they are written. TableError (ENOMEM) for more than there are
    addresses."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
    try:
        return mmap.mmap(-1, max(size, 8), flags=flags)
    except (OSError, OverflowError, ValueError) as error:
        message = f"Unable to allocate exception tables of {size} bytes"
        raise TableError(message, errno=errno.ENOMEM) from error


def chunks_of(first: Numbers, count: Numbers) -> Numbers:
    """All chunks of runs of `count` chunks from `first` on, one run's after the other's."""
    total = int(count.sum())
    if total == first.size:
        return first
    return np.repeat(first - (np.cumsum(count) - count), count) + np.arange(total)


def runs_of(one: Numbers, other: Numbers, most: int = sys.maxsize) -> Numbers:
    """(of the one, of the other, how many), a row for each of all runs in which both go on by one;
    none is longer than `most`."""
    ends = (np.diff(one) != 1) | (np.diff(other) != 1)
    ends[most - 1 :: most] = True
    firsts = np.concatenate(([0], np.flatnonzero(ends) + 1)) if one.size else np.flatnonzero(ends)
    return np.column_stack((one[firsts], other[firsts], np.diff(firsts, append=one.size)))


def firsts_of(numbers: Numbers) -> Numbers:
    """Each of them once, in the order in which they come first."""
    _, at = np.unique(numbers, return_index=True)
    return numbers[np.sort(at)]


class Lookup(Protocol):
    """Chunk -> a number."""

    def __getitem__(self, chunk: int, /) -> int: ...


class States(Lookup, Protocol):
    """Chunk -> state, and where one is next: `find` as that of bytes."""

    def find(self, needle: bytes, start: int, stop: int, /) -> int: ...


class ExceptionMap:
    """`chunks`: number of chunks of the snapshot, the last one possibly partial.

    `state` and `where` are public for the data path: `state[c] == DONE`, then `where[c]`.
    """

    def __init__(self, chunks: int) -> None:
        self.chunks = chunks
        self._state = anonymous(chunks)
        self._memory = anonymous(chunks * 4)
        self._where = memoryview(self._memory).cast("I")
        self.state: States = self._state
        self.where: Lookup = self._where

    def grow(self, chunks: int) -> None:
        """Make room for a longer snapshot; nobody may be using the map meanwhile."""
        other = ExceptionMap(chunks)
        if self._where.itemsize == 8:
            other._memory = anonymous(chunks * 8)
            other._where = memoryview(other._memory).cast("Q")
        position = self._state.find(_DONE)
        while position >= 0:
            end = self.run_end(position, self.chunks)
            other._where[position:end] = self._where[position:end]
            other._state[position:end] = self._state[position:end]
            position = self._state.find(_DONE, end)
        for chunk in self._pending():
            other._where[chunk], other._state[chunk] = self._where[chunk], PENDING
        self.chunks, self._state = chunks, other._state
        self._memory, self._where = other._memory, other._where
        self.state, self.where = self._state, self._where

    def _widen(self) -> None:
        """Go over to 8-byte COW chunk numbers (a COW of 2^32 chunks or more)."""
        memory = anonymous(self.chunks * 8)
        wide = memoryview(memory).cast("Q")
        narrow = np.frombuffer(self._where, dtype=np.uint32)
        view = np.frombuffer(wide, dtype=np.uint64)
        position = self._state.find(_DONE)
        while position >= 0:
            end = self.run_end(position, self.chunks)
            view[position:end] = narrow[position:end]
            position = self._state.find(_DONE, end)
        for chunk in self._pending():
            view[chunk] = narrow[chunk]
        self._memory = memory
        self.where = self._where = wide

    def _pending(self) -> Iterator[int]:
        needle = bytes([PENDING])
        position = self._state.find(needle)
        while position >= 0:
            yield position
            position = self._state.find(needle, position + 1)

    def insert_pending(self, old: int, new: int, count: int) -> None:
        """Chunks old..old+count-1 get new..new+count-1; not committed."""
        if new + count > _U32_LIMIT and self._where.itemsize == 4:
            self._widen()
        if count == 1:
            self._where[old] = new
            self._state[old] = PENDING
            return
        where = np.frombuffer(
            self._where, dtype=np.uint32 if self._where.itemsize == 4 else np.uint64
        )
        where[old : old + count] = np.arange(new, new + count, dtype=where.dtype)
        self._state[old : old + count] = bytes([PENDING]) * count

    def insert_pending_each(self, old: Numbers, new: Numbers) -> None:
        """As `insert_pending`, for each of many chunks."""
        if self._where.itemsize == 4 and int(new.max()) >= _U32_LIMIT:
            self._widen()
        dtype = np.uint32 if self._where.itemsize == 4 else np.uint64
        np.frombuffer(self._where, dtype=dtype)[old] = new
        np.frombuffer(self._state, dtype=np.uint8)[old] = PENDING

    def without(self, chunks: Numbers) -> Numbers:
        """Those of the chunks that have no exception."""
        found: Numbers = chunks[np.frombuffer(self._state, dtype=np.uint8)[chunks] == NONE]
        return found

    def complete(self, old: Numbers, count: Numbers) -> None:
        """The exceptions of these runs of chunks are committed."""
        np.frombuffer(self._state, dtype=np.uint8)[chunks_of(old, count)] = DONE

    def load(self, old: npt.NDArray[np.uint64], new: npt.NDArray[np.uint64]) -> None:
        """Insert committed exceptions, a whole metadata area at once; of two for the same
        chunk the first counts, as for the kernel and for a merge. Chunks beyond the snapshot's
        length are left out."""
        inside = old < self.chunks
        if not inside.all():
            old, new = old[inside], new[inside]
        state = np.frombuffer(self._state, dtype=np.uint8)
        known = state[old]
        if known.any():
            old, new = old[known == NONE], new[known == NONE]
        if old.size == 0:
            return
        if self._where.itemsize == 4 and int(new.max()) >= _U32_LIMIT:
            self._widen()
        dtype = np.uint32 if self._where.itemsize == 4 else np.uint64
        np.frombuffer(self._where, dtype=dtype)[old[::-1]] = new[::-1]
        state[old] = DONE

    def remove(self, old: int, count: int) -> None:
        """Forget exceptions that were merged."""
        end = min(old + count, self.chunks)
        if old < end:
            self._state[old:end] = bytes(end - old)

    def all_done(self, first: int, last: int) -> bool:
        """Whether every chunk of first..last (inclusive) has a complete exception."""
        if first == last:
            return self._state[first] == DONE
        return self._state[first : last + 1].count(DONE) == last + 1 - first

    def run_end(self, chunk: int, stop: int) -> int:
        """The end (exclusive, at most `stop`) of the run of equal state that holds `chunk`."""
        state = self._state
        kind = state[chunk]
        ends = [stop]
        for other in (NONE, DONE, PENDING):
            if other != kind:
                found = state.find(bytes([other]), chunk + 1, ends[-1])
                if found >= 0:
                    ends.append(found)
        return ends[-1]

    def contiguous_end(self, chunk: int, stop: int) -> int:
        """The end of the run of complete exceptions from `chunk` whose COW chunks follow each
        other, so that one request covers it."""
        state, where = self.state, self.where
        shift = where[chunk] - chunk
        chunk += 1
        while chunk < stop and state[chunk] == DONE and where[chunk] - chunk == shift:
            chunk += 1
        return chunk
