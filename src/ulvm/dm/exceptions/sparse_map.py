"""The exception map of a snapshot so long that not even addresses for a flat one can be had.

Of the same kind as `dm.exceptions.map`, but leaves of `_LEAF` chunks exist only where an exception
is. A look-up costs a dictionary's; what is not there is skipped by the sorted numbers of the
leaves, so a question about exabytes costs as much as there are exceptions.

Readers take no lock, as with the flat map: a leaf is complete before it can be found, and never
goes; its number may come into the sorted list a moment later, since only exceptions that are done
are asked for by runs, and they are done later still.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, insort

import numpy as np
import numpy.typing as npt

from ulvm.dm.exceptions.map import DONE, NONE, PENDING, ExceptionMap, chunks_of

__all__ = ["FLAT_CHUNKS", "SparseExceptionMap", "exception_map"]

FLAT_CHUNKS = 1 << 36
"""Up to so many chunks the map is flat: 256 TiB with chunks of 4 KiB."""

_SHIFT = 8
_LEAF = 1 << _SHIFT
_MASK = _LEAF - 1


def exception_map(chunks: int) -> ExceptionMap:
    """A map for so many chunks."""
    return ExceptionMap(chunks) if chunks <= FLAT_CHUNKS else SparseExceptionMap(chunks)


class _State:
    """Chunk -> state."""

    def __init__(self) -> None:
        self.leaves: dict[int, bytearray] = {}
        self.order: list[int] = []
        """The numbers of the leaves that exist, ascending."""

    def __getitem__(self, chunk: int, /) -> int:
        leaf = self.leaves.get(chunk >> _SHIFT)
        return NONE if leaf is None else leaf[chunk & _MASK]

    def find(self, needle: bytes, start: int, stop: int, /) -> int:
        """As `bytes.find` with the one byte of a state."""
        if needle[0] == NONE:
            return self._find_none(start, stop)
        order = self.order
        for at in range(bisect_left(order, start >> _SHIFT), len(order)):
            base = order[at] << _SHIFT
            if base >= stop:
                break
            found = self.leaves[order[at]].find(needle, max(start - base, 0), stop - base)
            if found >= 0:
                return base + found
        return -1

    def _find_none(self, start: int, stop: int) -> int:
        while start < stop:
            base = start & ~_MASK
            leaf = self.leaves.get(start >> _SHIFT)
            found = start - base if leaf is None else leaf.find(b"\0", start - base, stop - base)
            if found >= 0:
                return base + found
            start = base + _LEAF
        return -1


class _Where:
    """Chunk -> COW chunk; of chunks that have one."""

    def __init__(self) -> None:
        self.leaves: dict[int, array[int]] = {}

    def __getitem__(self, chunk: int, /) -> int:
        leaf = self.leaves.get(chunk >> _SHIFT)
        return 0 if leaf is None else leaf[chunk & _MASK]


class SparseExceptionMap(ExceptionMap):
    """`chunks`: number of chunks of the snapshot, the last one possibly partial."""

    def __init__(self, chunks: int) -> None:
        super().__init__(0)
        self.chunks = chunks
        self._states = _State()
        self._places = _Where()
        self.state = self._states
        self.where = self._places

    def _leaf(self, number: int) -> tuple[bytearray, array[int]]:
        states = self._states.leaves.get(number)
        if states is None:
            self._places.leaves[number] = array("Q", bytes(8 * _LEAF))
            states = self._states.leaves[number] = bytearray(_LEAF)
            insort(self._states.order, number)
        return states, self._places.leaves[number]

    def grow(self, chunks: int) -> None:
        self.chunks = max(self.chunks, chunks)

    def insert_pending(self, old: int, new: int, count: int) -> None:
        for chunk in range(old, old + count):
            states, places = self._leaf(chunk >> _SHIFT)
            places[chunk & _MASK] = new + chunk - old
            states[chunk & _MASK] = PENDING

    def insert_pending_each(self, old: npt.NDArray[np.int64], new: npt.NDArray[np.int64]) -> None:
        for chunk, place in zip(old.tolist(), new.tolist(), strict=True):
            self.insert_pending(chunk, place, 1)

    def without(self, chunks: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        state = self._states
        return chunks[[state[chunk] == NONE for chunk in chunks.tolist()]]

    def complete(self, old: npt.NDArray[np.int64], count: npt.NDArray[np.int64]) -> None:
        for chunk in chunks_of(old, count).tolist():
            self._states.leaves[chunk >> _SHIFT][chunk & _MASK] = DONE

    def load(self, old: npt.NDArray[np.uint64], new: npt.NDArray[np.uint64]) -> None:
        for chunk, place in zip(old.tolist(), new.tolist(), strict=True):
            if chunk < self.chunks:
                states, places = self._leaf(chunk >> _SHIFT)
                if states[chunk & _MASK] == NONE:
                    places[chunk & _MASK] = place
                    states[chunk & _MASK] = DONE

    def remove(self, old: int, count: int) -> None:
        for chunk in range(old, min(old + count, self.chunks)):
            states = self._states.leaves.get(chunk >> _SHIFT)
            if states is not None:
                states[chunk & _MASK] = NONE

    def all_done(self, first: int, last: int) -> bool:
        return self.run_end(first, last + 1) == last + 1 and self.state[first] == DONE

    def run_end(self, chunk: int, stop: int) -> int:
        kind = self.state[chunk]
        for other in (NONE, DONE, PENDING):
            if other != kind:
                found = self._states.find(bytes([other]), chunk + 1, stop)
                stop = found if found >= 0 else stop
        return stop
