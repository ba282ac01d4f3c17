"""A device whose writes stay in memory: what `--test` lets a command write to."""

from __future__ import annotations

from ulvm.blockdev.base import BlockDevice, Buffer, WritableBuffer

__all__ = ["OverlayDevice", "Written"]

Written = list[tuple[int, bytes]]
"""(offset in bytes, data), the oldest first."""


class OverlayDevice(BlockDevice):
    """Reads `lower` with what was written on top; `lower` is never written. Devices that share
    `written` see each other's writes. For the few writes of one command in one thread."""

    can_discard = True

    def __init__(self, lower: BlockDevice, written: Written) -> None:
        self._lower = lower
        self._written = written
        self.block_size = lower.block_size

    @property
    def size(self) -> int:
        return self._lower.size

    def readinto(self, offset: int, buffer: WritableBuffer) -> None:
        self._lower.readinto(offset, buffer)
        end = offset + len(buffer)
        for start, data in self._written:
            first, last = max(start, offset), min(start + len(data), end)
            if first < last:
                buffer[first - offset : last - offset] = data[first - start : last - start]

    def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
        self.check_range(offset, len(data), write=True)
        self._written.append((offset, bytes(data)))

    def flush(self) -> None:
        """Nothing here is durable, nor meant to be."""

    def discard(self, offset: int, length: int) -> None:
        """Unspecified content afterwards: that which was there."""
        self.check_range(offset, length, write=True)

    def close(self) -> None:
        self._lower.close()
