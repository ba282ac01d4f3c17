"""The one interface to bytes. Everything stacks on it: files, mapped devices, NBD, faults.

Contract, checked by tests/conformance for every implementation:

* Offsets and lengths are bytes and may be unaligned; a request lies wholly inside the device
  (else DeviceError: EINVAL for a read, ENOSPC for a write).
* A request is done when the call returns; it is durable after the next `flush` that returns
  (or with `fua=True`). Failure raises DeviceError and nothing else.
* All methods may be called from any thread. Overlapping requests in flight have no order.
* `size` is in bytes and may grow (a file or table that was extended); never cache it for long.
"""

from __future__ import annotations

import errno
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeAlias

from ulvm.errors import DeviceError, OutsideError

__all__ = ["BlockDevice", "Buffer", "Changed", "Extent", "WritableBuffer"]

Buffer: TypeAlias = bytes | bytearray | memoryview
WritableBuffer: TypeAlias = bytearray | memoryview


class Extent(NamedTuple):
    """A run of bytes as NBD's base:allocation sees it.

    `hole`: no space is allocated; `zero`: reads as zeros.
    """

    offset: int
    length: int
    hole: bool
    zero: bool


class Changed(NamedTuple):
    """A run of bytes of a snapshot: `changed` if its data lie in the COW store."""

    offset: int
    length: int
    changed: bool


class BlockDevice(ABC):
    """A random-access array of bytes with a durability barrier. See the module's contract."""

    read_only: bool = False
    block_size: int = 512
    """Logical block size in bytes: the unit below which a write is not atomic."""
    can_discard: bool = False

    @property
    @abstractmethod
    def size(self) -> int:
        """Length in bytes."""

    @abstractmethod
    def readinto(self, offset: int, buffer: WritableBuffer) -> None:
        """Fill the whole of `buffer` from `offset`."""

    @abstractmethod
    def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
        """Write the whole of `data` at `offset`."""

    def readinto_each(self, pieces: Sequence[tuple[int, memoryview]]) -> None:
        """`readinto` for each (offset, buffer)."""
        for offset, buffer in pieces:
            self.readinto(offset, buffer)

    def write_each(self, pieces: Sequence[tuple[int, memoryview]]) -> None:
        """`write` for each (offset, data), in this order; after a failure some of them may not have
        been made."""
        for offset, data in pieces:
            self.write(offset, data)

    def write_uncached(self, offset: int, data: Buffer) -> None:
        """`write`, of data that are flushed next and that nobody will read soon: they need not go
        through the page cache."""
        self.write(offset, data)

    @abstractmethod
    def flush(self) -> None:
        """Return when every write completed before this call is durable."""

    def discard(self, offset: int, length: int) -> None:
        """Give space back; what reads there afterwards is unspecified (files: zeros).
        NotSupportedError where `can_discard` is false."""
        raise DeviceError("discard is not supported here", errno=errno.EOPNOTSUPP)

    def write_zeroes(
        self, offset: int, length: int, *, no_hole: bool = False, fua: bool = False
    ) -> None:
        """Make a range read as zeros; `no_hole` keeps the space allocated."""
        step = 1 << 20
        zeros = memoryview(bytes(min(length, step)))
        end = offset + length
        while offset < end:
            n = min(step, end - offset)
            self.write(offset, zeros[:n])
            offset += n
        if fua:
            self.flush()

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Runs that cover [offset, offset+length) in order; default: all data."""
        if length:
            yield Extent(offset, length, False, False)

    def changed(self, offset: int, length: int) -> Iterator[Changed] | None:
        """For a snapshot, the runs that differ from its origin; None for anything else."""
        return None

    def close(self) -> None:  # noqa: B027 - most devices hold nothing
        """Give up the resources. Idempotent."""

    def read(self, offset: int, length: int) -> bytes:
        """A copy of [offset, offset+length)."""
        buffer = bytearray(length)
        self.readinto(offset, buffer)
        return bytes(buffer)

    def check_range(self, offset: int, length: int, *, write: bool = False) -> None:
        """Raise DeviceError unless the range lies in the device."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise OutsideError(
                f"request of {length} bytes at {offset} is outside the device of {self.size} bytes",
                errno=errno.ENOSPC if write else errno.EINVAL,
            )
