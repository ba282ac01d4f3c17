"""Which parts of a mapped device are written: a mark per granule, made on the way of each write.

Only while somebody measures; a device that is not watched pays one comparison with None a write.

`note` is called by many threads at once, `take` by one. A mark is set before the mark of its block,
and `take` clears a block's mark before it reads the block, and of the marks only those that it has
seen: so none is lost. One that is set again while it is taken counts once.
"""

from __future__ import annotations

import mmap

import numpy as np
import numpy.typing as npt

__all__ = ["WriteObserver"]

_GRANULE_SHIFT = 12
"""4 KiB, the least chunk of a snapshot."""
_MOST = 1 << 28
"""Marks, of a byte each; pages that no write came to cost nothing."""
_BLOCK_SHIFT = 10
"""Marks that are looked through at once."""


class WriteObserver:
    """Of a device of so many bytes. `shift`: a granule has 1 << shift bytes."""

    def __init__(self, size: int) -> None:
        self.shift = _GRANULE_SHIFT
        while size >> self.shift > _MOST:
            self.shift += 1
        self._count = max((size + (1 << self.shift) - 1) >> self.shift, 1)
        self._marks = mmap.mmap(-1, self._count)
        self._seen = np.frombuffer(self._marks, dtype=np.uint8)
        self._blocks = bytearray(((self._count - 1) >> _BLOCK_SHIFT) + 1)

    @property
    def granules(self) -> int:
        return self._count

    def note(self, offset: int, length: int) -> None:
        """[offset, offset+length) bytes are written. What lies beyond the size is not counted: the
        device has grown since."""
        first = offset >> self.shift
        end = min(((offset + length - 1) >> self.shift) + 1, self._count)
        if end <= first:
            return
        self._marks[first:end] = b"\1" * (end - first)
        first >>= _BLOCK_SHIFT
        end = ((end - 1) >> _BLOCK_SHIFT) + 1
        self._blocks[first:end] = b"\1" * (end - first)

    def take(self) -> npt.NDArray[np.int64]:
        """The granules written since the last call, ascending."""
        found = [np.zeros(0, dtype=np.int64)]
        for block in np.flatnonzero(np.frombuffer(bytes(self._blocks), dtype=np.uint8)):
            self._blocks[block] = 0
            first = int(block) << _BLOCK_SHIFT
            marks = self._seen[first : first + (1 << _BLOCK_SHIFT)]
            # Of a copy: NumPy counts, then looks, and marks come between the two.
            here = np.flatnonzero(marks.copy())
            marks[here] = 0
            found.append(here + first)
        return np.concatenate(found)
