"""zero: reads as zeros, writes are dropped (drivers/md/dm-zero.c)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import ClassVar

from ulvm.blockdev.base import BlockDevice, Buffer, Extent, WritableBuffer
from ulvm.dm.targets.base import Target, TargetContext
from ulvm.errors import TableError

__all__ = ["ZeroTarget"]


class ZeroTarget(Target):
    type_name: ClassVar[str] = "zero"
    version: ClassVar[tuple[int, int, int]] = (1, 1, 0)

    def __init__(self, context: TargetContext, begin: int, length: int, args: list[str]) -> None:
        super().__init__(begin, length)
        if args:
            raise TableError("No arguments required")

    def readinto(self, offset: int, buffer: WritableBuffer) -> None:
        view = memoryview(buffer)
        view[:] = bytes(len(view))

    def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
        """Dropped."""

    def write_zeroes(self, offset: int, length: int, *, no_hole: bool, fua: bool) -> None:
        """It reads so already."""

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        yield Extent(offset, length, True, True)

    def table(self, number: Callable[[BlockDevice], str]) -> str:
        return ""
