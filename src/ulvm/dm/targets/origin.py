"""snapshot-origin: `<origin>`; writes are copied out to the snapshots first (dm-snap.c)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import ClassVar

from ulvm.blockdev.base import BlockDevice, Buffer, Extent, WritableBuffer
from ulvm.dm.cow import mark_invalid
from ulvm.dm.targets.base import Target, TargetContext
from ulvm.errors import DeviceError, TableError

__all__ = ["OriginTarget"]


class OriginTarget(Target):
    """Discard and write-zeroes are not offered, as in the kernel: zeros are written."""

    type_name: ClassVar[str] = "snapshot-origin"
    version: ClassVar[tuple[int, int, int]] = (1, 9, 0)

    def __init__(self, context: TargetContext, begin: int, length: int, args: list[str]) -> None:
        super().__init__(begin, length)
        if len(args) != 1:
            raise TableError("origin: incorrect number of arguments")
        self._device = context.resolve(args[0])
        self._mapped = context.device
        self._origin = context.origins.get(self._device)
        self._writing = False
        self.devices = self.flush_devices = (self._device,)

    def reaches(self) -> Iterable[BlockDevice]:
        return (self._device, *self._origin.cows())

    def areas(self) -> Iterable[tuple[BlockDevice, int, int]]:
        return [(self._device, 0, self.length)]

    def readinto(self, offset: int, buffer: WritableBuffer) -> None:
        self._origin.readinto(offset, buffer)

    def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
        self._origin.write(offset, data, fua=fua)

    def readinto_each(self, pieces: Sequence[tuple[int, memoryview]]) -> None:
        self._origin.readinto_each(pieces)

    def write_each(self, pieces: Sequence[tuple[int, memoryview]]) -> None:
        self._origin.write_each(pieces)

    def settle(self) -> None:
        mark_invalid(self._origin)
        self._origin.write_staged()

    @property
    def refused(self) -> bool:
        stage = self._origin.stage
        return stage is not None and stage.failed

    def would_lose(self, following: Sequence[Target]) -> bool:
        """The stage goes on as long as a table of this device writes to the origin."""
        stage = self._origin.stage
        if not self._writing or stage is None or not stage.holds:
            return False
        return not any(isinstance(t, OriginTarget) and t._origin is self._origin for t in following)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        try:
            self.settle()
        except DeviceError:  # What stays staged are data, whatever is below.
            return super().extents(offset, length)
        return self._device.extents(offset, length)

    def table(self, number: Callable[[BlockDevice], str]) -> str:
        return number(self._device)

    def resume(self) -> None:
        mapped = self._mapped
        if not self._writing:
            self._origin.begin(mapped, self.begin + self.length, stage=self.begin == 0)
            self._writing = True
        self._origin.writer = mapped
        mark_invalid(self._origin)

    def presuspend(self) -> None:
        """Most of what is staged, while requests go on, so that they need not wait for long."""
        self._origin.drain()

    def postsuspend(self) -> None:
        self._origin.drain()
        if self._origin.writer is self._mapped:  # else another device's
            self._origin.writer = None
        mark_invalid(self._origin)

    def destroy(self) -> None:
        if self._writing:
            self._writing = False
            self._origin.end(self._mapped)
