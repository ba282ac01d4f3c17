"""An open of a mapped device."""

from __future__ import annotations

import errno
import threading
from typing import TYPE_CHECKING

from ulvm.blockdev.base import BlockDevice, Buffer, WritableBuffer
from ulvm.errors import DeviceError

if TYPE_CHECKING:
    from ulvm.dm.device import MappedDevice

__all__ = ["DeviceHandle"]


class DeviceHandle(BlockDevice):
    """One open of a mapped device. The request methods are the device's own, bound once, so
    that a handle costs nothing per request."""

    def __init__(self, device: MappedDevice, *, write: bool) -> None:
        self._device = device
        self._open = True
        self._lock = threading.Lock()
        self.writable = write
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

    @property
    def read_only(self) -> bool:  # type: ignore[override]
        return not self.writable or self._device.read_only

    @property
    def block_size(self) -> int:  # type: ignore[override]
        return self._device.block_size

    @property
    def can_discard(self) -> bool:  # type: ignore[override]
        return self.writable and self._device.can_discard

    def readinto(self, offset: int, buffer: WritableBuffer) -> None:
        self._device.readinto(offset, buffer)

    def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
        raise DeviceError("opened for reading only", errno=errno.EBADF)

    def discard(self, offset: int, length: int) -> None:
        raise DeviceError("opened for reading only", errno=errno.EBADF)

    def write_zeroes(
        self, offset: int, length: int, *, no_hole: bool = False, fua: bool = False
    ) -> None:
        raise DeviceError("opened for reading only", errno=errno.EBADF)

    def flush(self) -> None:
        self._device.flush()

    def close(self) -> None:
        with self._lock:
            if self._open:
                self._open = False
                self._device.release()
