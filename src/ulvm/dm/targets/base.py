"""What a target is to its device. Offsets are bytes from the start of the mapped device.

Life cycle, as the kernel calls it: constructor (may raise TableError), `preresume` (may raise
TableError; the device then stays suspended), `resume`, `presuspend`, `postsuspend`, `destroy`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar

from ulvm.blockdev.base import BlockDevice, Buffer, Changed, Extent, WritableBuffer
from ulvm.dm.origin_table import OriginTable
from ulvm.errors import NotSupportedError, TableError
from ulvm.units import parse_u64

if TYPE_CHECKING:
    from ulvm.dm.device import MappedDevice

__all__ = ["Target", "TargetContext", "parse_sector"]


class TargetContext:
    """What a constructor is given: its device and the world around it."""

    def __init__(
        self,
        device: MappedDevice,
        resolve: Callable[[str], BlockDevice],
        origins: OriginTable,
        *,
        barriers: bool,
        log: Callable[[str], None],
    ) -> None:
        self.device = device
        self.resolve = resolve
        self.origins = origins
        self.barriers = barriers
        self.log = log


def parse_sector(word: str, message: str) -> int:
    """An unsigned decimal, or TableError(EINVAL) with the kernel's message."""
    number = parse_u64(word)
    if number is None:
        raise TableError(message)
    return number


class Target(ABC):
    """One line of a table. `devices`: what it maps to, and `modes`, r, w or rw, how each is opened
    (rw if there are none); `flush_devices`: where a flush goes."""

    type_name: ClassVar[str]
    version: ClassVar[tuple[int, int, int]]
    devices: tuple[BlockDevice, ...] = ()
    modes: tuple[str, ...] = ()
    flush_devices: tuple[BlockDevice, ...] = ()

    def __init__(self, begin: int, length: int) -> None:
        self.begin = begin
        self.length = length

    @property
    def can_discard(self) -> bool:
        return False

    def reaches(self) -> Iterable[BlockDevice]:
        """The devices to which a request may lead, beside those it maps to those it copies to."""
        return self.devices

    def areas(self) -> Iterable[tuple[BlockDevice, int, int]]:
        """(device, offset, length) of what it uses of which device, if it must lie within."""
        return ()

    @abstractmethod
    def readinto(self, offset: int, buffer: WritableBuffer) -> None: ...

    @abstractmethod
    def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None: ...

    def write_uncached(self, offset: int, data: Buffer) -> None:
        self.write(offset, data)

    def readinto_each(self, pieces: Sequence[tuple[int, memoryview]]) -> None:
        for offset, buffer in pieces:
            self.readinto(offset, buffer)

    def write_each(self, pieces: Sequence[tuple[int, memoryview]]) -> None:
        for offset, data in pieces:
            self.write(offset, data)

    def settle(self) -> None:
        """What was written and waits in memory goes to the devices below; before a flush of
        them. DeviceError."""
        return

    @property
    def refused(self) -> bool:
        """Whether that could not be done when it was tried last."""
        return False

    def would_lose(self, following: Sequence[Target]) -> bool:
        """Whether such data wait that none of the targets takes up, if these come next on the
        device. They are built, and not resumed."""
        return False

    def discard(self, offset: int, length: int) -> None:
        raise NotSupportedError(f"{self.type_name} does not support discard")

    def write_zeroes(self, offset: int, length: int, *, no_hole: bool, fua: bool) -> None:
        """Default: ordinary writes of zeros, as the block layer falls back to."""
        zeros = memoryview(bytes(min(length, 1 << 20)))
        end = offset + length
        while offset < end:
            n = min(len(zeros), end - offset)
            self.write(offset, zeros[:n], fua=fua)
            offset += n

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        yield Extent(offset, length, False, False)

    def changed(self, offset: int, length: int) -> Iterator[Changed] | None:
        return None

    @abstractmethod
    def table(self, number: Callable[[BlockDevice], str]) -> str:
        """The parameters, with devices as `number` writes them."""

    def status(self, number: Callable[[BlockDevice], str]) -> str:
        return ""

    def message(self, words: list[str]) -> str:
        raise TableError("Target type does not support messages")

    def preresume(self) -> None:  # noqa: B027
        """May refuse with TableError."""

    def resume(self) -> None:  # noqa: B027
        """I/O starts after this."""

    def presuspend(self) -> None:  # noqa: B027
        """I/O still flows; stop what runs by itself."""

    def postsuspend(self) -> None:  # noqa: B027
        """No request is under way any more."""

    def destroy(self) -> None:  # noqa: B027
        """The table goes away."""
