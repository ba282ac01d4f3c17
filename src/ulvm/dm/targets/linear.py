"""linear: `<dev> <offset>` (drivers/md/dm-linear.c)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import ClassVar

from ulvm.blockdev.base import BlockDevice, Buffer, Extent, WritableBuffer
from ulvm.dm.targets.base import Target, TargetContext, parse_sector
from ulvm.errors import TableError
from ulvm.units import SECTOR

__all__ = ["LinearTarget"]


class LinearTarget(Target):
    type_name: ClassVar[str] = "linear"
    version: ClassVar[tuple[int, int, int]] = (1, 4, 0)

    def __init__(self, context: TargetContext, begin: int, length: int, args: list[str]) -> None:
        super().__init__(begin, length)
        if len(args) != 2:
            raise TableError("Invalid argument count")
        self._start = parse_sector(args[1], "Invalid device sector")
        self._device = context.resolve(args[0])
        self._shift = self._start * SECTOR - begin
        self.devices = self.flush_devices = (self._device,)

    def areas(self) -> Iterable[tuple[BlockDevice, int, int]]:
        return [(self._device, self._start * SECTOR, self.length)]

    @property
    def can_discard(self) -> bool:
        return self._device.can_discard

    def readinto(self, offset: int, buffer: WritableBuffer) -> None:
        self._device.readinto(offset + self._shift, buffer)

    def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
        self._device.write(offset + self._shift, data, fua=fua)

    def write_uncached(self, offset: int, data: Buffer) -> None:
        self._device.write_uncached(offset + self._shift, data)

    def readinto_each(self, pieces: Sequence[tuple[int, memoryview]]) -> None:
        shift = self._shift
        self._device.readinto_each([(offset + shift, buffer) for offset, buffer in pieces])

    def write_each(self, pieces: Sequence[tuple[int, memoryview]]) -> None:
        shift = self._shift
        self._device.write_each([(offset + shift, data) for offset, data in pieces])

    def discard(self, offset: int, length: int) -> None:
        self._device.discard(offset + self._shift, length)

    def write_zeroes(self, offset: int, length: int, *, no_hole: bool, fua: bool) -> None:
        self._device.write_zeroes(offset + self._shift, length, no_hole=no_hole, fua=fua)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        for extent in self._device.extents(offset + self._shift, length):
            yield extent._replace(offset=extent.offset - self._shift)

    def table(self, number: Callable[[BlockDevice], str]) -> str:
        return f"{number(self._device)} {self._start}"
