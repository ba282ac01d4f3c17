"""Any block devices as what a server serves."""

from __future__ import annotations

import errno
from collections.abc import Mapping

from ulvm.blockdev.base import BlockDevice, Buffer, WritableBuffer
from ulvm.errors import DeviceError, NotFoundError
from ulvm.exports.source import ExportInfo

__all__ = ["StaticSource"]


class StaticSource:
    """A fixed set of devices; `close` of a handle leaves the device open."""

    def __init__(self, devices: Mapping[str, BlockDevice]) -> None:
        self._devices = dict(devices)

    def exports(self) -> list[ExportInfo]:
        return [self.describe(name) for name in sorted(self._devices)]

    def describe(self, name: str) -> ExportInfo:
        device = self._devices.get(name)
        if device is None:
            raise NotFoundError(f"no export named {name!r}")
        snapshot = device.changed(0, 0) is not None
        return ExportInfo(name, device.size, device.read_only, is_snapshot=snapshot, device=device)

    def open(self, name: str, *, write: bool) -> BlockDevice:
        info = self.describe(name)
        if write and info.read_only:
            raise DeviceError(f"export {name} is read-only", errno=errno.EROFS)
        return _Handle(self._devices[name], write=write)


class _Handle(BlockDevice):
    """Passes everything on but `close`; the request methods are the device's own."""

    def __init__(self, device: BlockDevice, *, write: bool) -> None:
        self._device = device
        self.read_only = not write
        self.block_size = device.block_size
        self.can_discard = write and device.can_discard
        self.readinto = device.readinto  # type: ignore[method-assign]
        self.readinto_each = device.readinto_each  # type: ignore[method-assign]
        self.flush = device.flush  # type: ignore[method-assign]
        self.extents = device.extents  # type: ignore[method-assign]
        self.changed = device.changed  # type: ignore[method-assign]
        if write:
            self.write = device.write  # type: ignore[method-assign]
            self.write_each = device.write_each  # type: ignore[method-assign]
            self.discard = device.discard  # type: ignore[method-assign]
            self.write_zeroes = device.write_zeroes  # type: ignore[method-assign]

    @property
    def size(self) -> int:
        return self._device.size

    def readinto(self, offset: int, buffer: WritableBuffer) -> None:
        self._device.readinto(offset, buffer)

    def flush(self) -> None:
        self._device.flush()

    def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
        raise DeviceError("opened for reading only", errno=errno.EBADF)

    def discard(self, offset: int, length: int) -> None:
        raise DeviceError("opened for reading only", errno=errno.EBADF)

    def write_zeroes(
        self, offset: int, length: int, *, no_hole: bool = False, fua: bool = False
    ) -> None:
        raise DeviceError("opened for reading only", errno=errno.EBADF)
