"""Bytes in memory as a block device; nothing survives the process.

`blocks` remembers which blocks were written, so that holes are seen as in a sparse file.
Locking: one lock around every access, since growing replaces the array.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

from ulvm.blockdev.base import BlockDevice, Buffer, Extent, WritableBuffer

__all__ = ["MemoryDevice"]

_BLOCK = 4096


class MemoryDevice(BlockDevice):
    """`content`: a size in bytes (all zeros), or the bytes to begin with."""

    can_discard = True

    def __init__(self, content: int | Buffer) -> None:
        self._lock = threading.Lock()
        self._data = bytearray(content)
        filled = 0 if isinstance(content, int) else 1
        self._written = bytearray([filled]) * -(-len(self._data) // _BLOCK)

    @property
    def size(self) -> int:
        return len(self._data)

    def grow(self, size: int) -> None:
        """Add zeros up to `size` bytes."""
        with self._lock:
            self._data = self._data + bytes(size - len(self._data))
            self._written = self._written + bytes(-(-size // _BLOCK) - len(self._written))

    def readinto(self, offset: int, buffer: WritableBuffer) -> None:
        with self._lock:
            self.check_range(offset, len(buffer))
            buffer[:] = self._data[offset : offset + len(buffer)]

    def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
        with self._lock:
            self.check_range(offset, len(data), write=True)
            self._data[offset : offset + len(data)] = data
            self._mark(offset, len(data))

    def _mark(self, offset: int, length: int) -> None:
        first, last = offset // _BLOCK, -(-(offset + length) // _BLOCK)
        if length:
            self._written[first:last] = b"\1" * (last - first)

    def flush(self) -> None:
        """Memory has nothing behind it."""

    def discard(self, offset: int, length: int) -> None:
        self.write_zeroes(offset, length)

    def write_zeroes(
        self, offset: int, length: int, *, no_hole: bool = False, fua: bool = False
    ) -> None:
        with self._lock:
            self.check_range(offset, length, write=True)
            self._data[offset : offset + length] = bytes(length)
            if no_hole:
                self._mark(offset, length)
                return
            first, last = -(-offset // _BLOCK), (offset + length) // _BLOCK
            if offset + length == len(self._data):
                last = len(self._written)
            if first < last:
                self._written[first:last] = bytes(last - first)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        self.check_range(offset, length)
        with self._lock:
            written = bytes(self._written)
        end = offset + length
        while offset < end:
            block = offset // _BLOCK
            state = written[block]
            change = written.find(1 - state, block)
            stop = end if change < 0 else min(change * _BLOCK, end)
            yield Extent(offset, stop - offset, not state, not state)
            offset = stop
