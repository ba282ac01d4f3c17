"""striped: `<#stripes> <chunk> (<dev> <offset>)+` (drivers/md/dm-stripe.c)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import ClassVar

from ulvm.blockdev.base import BlockDevice, Buffer, Extent, WritableBuffer
from ulvm.dm.targets.base import Target, TargetContext, parse_sector
from ulvm.errors import DeviceError, TableError
from ulvm.units import SECTOR

__all__ = ["StripedTarget"]


class StripedTarget(Target):
    """Byte b of the target lies in chunk c = b // chunk, on stripe c % n, there at
    start + (c // n) * chunk + b % chunk."""

    type_name: ClassVar[str] = "striped"
    version: ClassVar[tuple[int, int, int]] = (1, 6, 0)

    def __init__(self, context: TargetContext, begin: int, length: int, args: list[str]) -> None:
        super().__init__(begin, length)
        if len(args) < 2:
            raise TableError("Not enough arguments")
        count = parse_sector(args[0], "Invalid stripe count")
        chunk = parse_sector(args[1], "Invalid chunk_size")
        if count == 0:
            raise TableError("Invalid stripe count")
        if chunk == 0 or chunk >= 1 << 32:
            raise TableError("Invalid chunk_size")
        if (length // SECTOR) % count:
            raise TableError("Target length not divisible by number of stripes")
        width = length // count
        if (width // SECTOR) % chunk:
            raise TableError("Target length not divisible by chunk size")
        if len(args) != 2 + 2 * count:
            raise TableError("Not enough destinations specified")
        self._chunk = chunk * SECTOR
        self._starts: list[int] = []
        self._legs: list[BlockDevice] = []
        for name, start in _pairs(args[2:]):
            sector = parse_sector(start, "Couldn't parse stripe destination")
            self._legs.append(context.resolve(name))
            self._starts.append(sector * SECTOR)
        self._failed = [False] * count
        self.devices = self.flush_devices = tuple(self._legs)

    def areas(self) -> Iterable[tuple[BlockDevice, int, int]]:
        width = self.length // len(self._legs)
        return [(leg, start, width) for leg, start in zip(self._legs, self._starts, strict=True)]

    @property
    def can_discard(self) -> bool:
        return all(leg.can_discard for leg in self._legs)

    def _pieces(self, offset: int, length: int) -> Iterator[tuple[int, int, int, int]]:
        """(leg, offset on the leg, position in the request, length) of each chunk touched."""
        position = 0
        offset -= self.begin
        while position < length:
            chunk, inside = divmod(offset + position, self._chunk)
            row, leg = divmod(chunk, len(self._legs))
            n = min(self._chunk - inside, length - position)
            yield leg, self._starts[leg] + row * self._chunk + inside, position, n
            position += n

    def readinto(self, offset: int, buffer: WritableBuffer) -> None:
        view = memoryview(buffer)
        for leg, where, position, n in self._pieces(offset, len(view)):
            with _Watch(self._failed, leg):
                self._legs[leg].readinto(where, view[position : position + n])

    def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
        view = memoryview(data).cast("B")
        for leg, where, position, n in self._pieces(offset, len(view)):
            with _Watch(self._failed, leg):
                self._legs[leg].write(where, view[position : position + n], fua=fua)

    def discard(self, offset: int, length: int) -> None:
        for leg, where, _, n in self._pieces(offset, length):
            self._legs[leg].discard(where, n)

    def write_zeroes(self, offset: int, length: int, *, no_hole: bool, fua: bool) -> None:
        for leg, where, _, n in self._pieces(offset, length):
            self._legs[leg].write_zeroes(where, n, no_hole=no_hole, fua=fua)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        for leg, where, position, n in self._pieces(offset, length):
            base = offset + position - where
            for extent in self._legs[leg].extents(where, n):
                yield extent._replace(offset=extent.offset + base)

    def table(self, number: Callable[[BlockDevice], str]) -> str:
        legs = zip(self._legs, self._starts, strict=True)
        words = (f"{number(device)} {start // SECTOR}" for device, start in legs)
        return f"{len(self._legs)} {self._chunk // SECTOR} " + " ".join(words)

    def status(self, number: Callable[[BlockDevice], str]) -> str:
        names = " ".join(number(device) for device in self._legs)
        health = "".join("D" if failed else "A" for failed in self._failed)
        return f"{len(self._legs)} {names} 1 {health}"


def _pairs(words: list[str]) -> Iterator[tuple[str, str]]:
    return zip(words[::2], words[1::2], strict=True)


class _Watch:
    """Marks a leg as failed (`D` in the status) when a request to it fails."""

    def __init__(self, failed: list[bool], leg: int) -> None:
        self._failed, self._leg = failed, leg

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and issubclass(kind, DeviceError):
            self._failed[self._leg] = True
