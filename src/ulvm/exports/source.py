"""What a server serves: named block devices, opened one client at a time.

The daemon implements `ExportSource` over its mapped devices; tests may use
`StaticSource` over any block devices. FUSE shows the names as paths, NBD as exports.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from ulvm.blockdev.base import BlockDevice, Buffer, WritableBuffer
from ulvm.errors import DeviceError, NotFoundError

__all__ = ["ExportInfo", "ExportSource", "StaticSource", "windows"]

_FIRST_WINDOW = 1 << 20


@dataclass(frozen=True, slots=True)
class ExportInfo:
    """One name; `size` in bytes. A snapshot also offers the NBD context `ulvm:changed`. `device` is
    there to be told from another one that gets the name."""

    name: str
    size: int
    read_only: bool
    description: str = ""
    is_snapshot: bool = False
    device: object = None


class ExportSource(Protocol):
    """Names look like `vg/lv` or `mapper/<dm name>`; one slash, no leading slash."""

    def exports(self) -> list[ExportInfo]:
        """All that can be opened now, sorted by name."""

    def describe(self, name: str) -> ExportInfo:
        """NotFoundError if there is no such export."""

    def open(self, name: str, *, write: bool) -> BlockDevice:
        """A handle that counts as an open of the device until its close().
        NotFoundError; DeviceError(EROFS) for `write` on a read-only device."""


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


def windows(offset: int, length: int, most: int) -> Iterator[tuple[int, int]]:
    """(offset, length) of the pieces in which to ask for the extents of a range. Small at first and
    then longer and longer: who wants the first ones alone, and goes on where they end, must not
    have all others looked up each time."""
    end = offset + length
    step = min(_FIRST_WINDOW, most)
    while offset < end:
        n = min(step, end - offset)
        yield offset, n
        offset += n
        step = min(2 * step, most)
