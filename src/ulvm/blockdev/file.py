"""A plain file or disk (provisional)."""

from __future__ import annotations

import errno
import os

from ulvm.blockdev.base import BlockDevice, Buffer, WritableBuffer
from ulvm.errors import DeviceError

__all__ = ["FileDevice"]


class FileDevice(BlockDevice):
    can_discard = True

    def __init__(self, path: str, *, writable: bool = True, claim: bool = True) -> None:
        self.path = path
        self.read_only = not writable
        try:
            self._fd = os.open(path, os.O_RDWR if writable else os.O_RDONLY)
        except OSError as error:
            raise DeviceError(f"{path}: {error.strerror}", errno=error.errno) from error

    @property
    def size(self) -> int:
        return os.lseek(self._fd, 0, os.SEEK_END)

    def readinto(self, offset: int, buffer: WritableBuffer) -> None:
        self.check_range(offset, len(buffer))
        if os.preadv(self._fd, [buffer], offset) != len(buffer):
            raise DeviceError("short read", errno=errno.EIO)

    def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
        self.check_range(offset, len(data), write=True)
        os.pwrite(self._fd, data, offset)
        if fua:
            os.fdatasync(self._fd)

    def flush(self) -> None:
        os.fdatasync(self._fd)

    def discard(self, offset: int, length: int) -> None:
        self.write_zeroes(offset, length)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
