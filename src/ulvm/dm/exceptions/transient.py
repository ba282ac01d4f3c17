"""The transient exception store (drivers/md/dm-snap-transient.c): data chunks only.

Nothing is written but data; the exceptions live in memory and are gone when the device is
removed. Chunk i of the store is chunk i of the COW device.
"""

from __future__ import annotations

from ulvm.blockdev.base import BlockDevice
from ulvm.dm.exceptions.map import ExceptionMap
from ulvm.dm.exceptions.persistent import DEFAULT_CHUNK_SIZE
from ulvm.dm.exceptions.store import ExceptionStore, Runs, Usage
from ulvm.units import SECTOR

__all__ = ["TransientStore"]


class TransientStore(ExceptionStore):
    type_letters = "N"

    def __init__(self, cow: BlockDevice, chunk_size: int) -> None:
        self.cow = cow
        self.chunk_size = chunk_size
        self._next_free = 0

    def open(self) -> None:
        if self.chunk_size == 0:
            self.chunk_size = DEFAULT_CHUNK_SIZE

    def load(self, exceptions: ExceptionMap) -> bool:
        return True

    def allocate(self, count: int) -> list[tuple[int, int]]:
        room = self.cow.size // (self.chunk_size * SECTOR) - self._next_free
        take = min(count, room)
        if take <= 0:
            return []
        first = self._next_free
        self._next_free += take
        return [(first, take)]

    def has_room(self, count: int) -> bool:
        return self._next_free + count <= self.cow.size // (self.chunk_size * SECTOR)

    def prepare(self, runs: Runs) -> None:
        """Nothing: a transient exception is complete once its data are written."""

    def write_records(self) -> None:
        """There are none."""

    def barrier(self) -> None:
        """Nothing of it is to last."""

    def usage(self) -> Usage:
        return Usage(self._next_free * self.chunk_size, self.cow.size // SECTOR, 0)

    def mark_invalid(self) -> None:
        """Nothing on disk to mark."""
