"""A device that fails on demand, and one that knows what a power cut could have left.

Faults are devices: a `FaultDevice` goes in the place of any other, hands every request on to
`inner` and fails those it was told to fail, with EIO.

Power cut. After `record()` every write and flush is kept. A write reaches the disk in sectors of
512 bytes, each at any time between the write's begin and the end of the next flush that began
after the write was done; a sector is never half new. So at an instant (`image_at`) each sector
holds its newest durable version or any later one, independently of its neighbours: that includes
a lost write, a torn write and writes that change places. Records of several devices share one
clock, so that the power can be cut for all of them at one instant.
"""

from __future__ import annotations

import errno
import itertools
import random
import threading
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from ulvm.blockdev.base import BlockDevice, Buffer, Changed, Extent, WritableBuffer
from ulvm.errors import DeviceError
from ulvm.units import SECTOR

__all__ = ["FaultDevice", "Kind", "PowerCut"]

Kind: TypeAlias = Literal["read", "write", "flush", "discard"]
"""Zeroing counts as a write; a write with FUA as a write, not as a flush."""


_clock = itertools.count()


@dataclass(slots=True)
class _Write:
    offset: int
    data: bytes
    done: bool = False


@dataclass
class PowerCut:
    """The record: `events` is in the order of time; `image_at(n, ...)` is after n of them."""

    start: bytes
    events: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)
    """("begin", (write,)), ("done", (write,)) and ("durable", writes)."""
    times: list[int] = field(default_factory=list)
    """Of each event, on the clock of all records of this process."""
    writes: list[_Write] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @staticmethod
    def now() -> int:
        """A time on the clock of all records, later than all that was recorded."""
        return next(_clock)

    def _event(self, kind: str, writes: tuple[int, ...]) -> None:
        self.times.append(next(_clock))
        self.events.append((kind, writes))

    def begin(self, offset: int, data: bytes) -> int:
        with self.lock:
            self.writes.append(_Write(offset, data))
            self._event("begin", (len(self.writes) - 1,))
            return len(self.writes) - 1

    def done(self, write: int, *, durable: bool) -> None:
        with self.lock:
            self.writes[write].done = True
            self._event("done", (write,))
            if durable:
                self._event("durable", (write,))

    def completed(self) -> tuple[int, ...]:
        """The writes that a flush which begins now makes durable."""
        with self.lock:
            return tuple(n for n, write in enumerate(self.writes) if write.done)

    def flushed(self, writes: tuple[int, ...]) -> None:
        with self.lock:
            self._event("durable", writes)

    def events_until(self, time: int) -> int:
        """How many events there were before this time."""
        with self.lock:
            return bisect_left(self.times, time)

    def image_at(self, events: int, choose: random.Random) -> bytes:
        """What the disk may hold if the power goes after so many events."""
        with self.lock:
            past = self.events[:events]
        begun = [write for kind, writes in past if kind == "begin" for write in writes]
        durable = {write for kind, writes in past if kind == "durable" for write in writes}
        versions: dict[int, list[bytes]] = {}
        image = bytearray(self.start)
        for number in begun:
            write = self.writes[number]
            for position, newest in _sectors(write, versions, image):
                if number in durable:
                    versions[position] = [newest]
                else:
                    before = bytes(image[position : position + SECTOR])
                    versions.setdefault(position, [before]).append(newest)
        for position, candidates in sorted(versions.items()):
            image[position : position + SECTOR] = choose.choice(candidates)
        return bytes(image)


def _sectors(
    write: _Write, versions: dict[int, list[bytes]], image: bytearray
) -> Iterator[tuple[int, bytes]]:
    """(position of the sector, its new content); the part that is not written stays as the
    newest version has it."""
    position, end = write.offset, write.offset + len(write.data)
    while position < end:
        start = position // SECTOR * SECTOR
        stop = min(start + SECTOR, end)
        known = versions.get(start)
        sector = bytearray(known[-1] if known else image[start : start + SECTOR])
        sector[position - start : stop - start] = write.data[
            position - write.offset : stop - write.offset
        ]
        yield start, bytes(sector)
        position = stop


@dataclass(slots=True)
class _Fault:
    """`nth` counts down to the request that fails; then `times` of them do (None: all)."""

    kind: Kind
    error: int
    nth: int = 1
    times: int | None = None
    where: tuple[int, int] | None = None
    tear: int | None = None
    """For a write: only so many bytes of it are done."""


class FaultDevice(BlockDevice):
    """`inner` with faults. Closing it closes `inner`. Thread safe."""

    def __init__(self, inner: BlockDevice) -> None:
        self.inner = inner
        self.counts: dict[Kind, int] = {"read": 0, "write": 0, "flush": 0, "discard": 0}
        """Requests that came, failed ones too."""
        self.failed = 0
        """Of all kinds."""
        self._lock = threading.Lock()
        self._faults: list[_Fault] = []
        self._record: PowerCut | None = None

    # -- faults -----------------------------------------------------------------------------

    def fail(self, kind: Kind, *, error: int = errno.EIO) -> None:
        """All requests of this kind from now on."""
        self._add(_Fault(kind, error))

    def fail_nth(self, kind: Kind, n: int, *, times: int = 1, error: int = errno.EIO) -> None:
        """The n-th request of this kind from now (1 is the next), and `times` - 1 after it."""
        self._add(_Fault(kind, error, nth=n, times=times))

    def fail_range(self, kind: Kind, offset: int, length: int, *, error: int = errno.EIO) -> None:
        """All requests of this kind that touch these bytes."""
        self._add(_Fault(kind, error, where=(offset, offset + length)))

    def tear_nth(self, n: int, sectors: int, *, error: int = errno.EIO) -> None:
        """The n-th write from now fails after so many 512-byte sectors."""
        self._add(_Fault("write", error, nth=n, times=1, tear=sectors * SECTOR))

    def clear(self) -> None:
        """No more faults."""
        with self._lock:
            self._faults.clear()

    def _add(self, fault: _Fault) -> None:
        with self._lock:
            self._faults.append(fault)

    def _hit(self, kind: Kind, offset: int = 0, length: int = 0) -> _Fault | None:
        with self._lock:
            self.counts[kind] += 1
            for fault in self._faults:
                if fault.kind != kind:
                    continue
                if fault.where and not (
                    offset < fault.where[1] and fault.where[0] < offset + length
                ):
                    continue
                if fault.nth > 1:
                    fault.nth -= 1
                    continue
                if fault.times is not None:
                    fault.times -= 1
                    if fault.times == 0:
                        self._faults.remove(fault)
                self.failed += 1
                return fault
        return None

    def _check(self, kind: Kind, offset: int = 0, length: int = 0) -> None:
        fault = self._hit(kind, offset, length)
        if fault is not None:
            raise _failure(fault, kind, offset)

    # -- power cut --------------------------------------------------------------------------

    def record(self) -> PowerCut:
        """Start a new record; what the device holds now counts as durable."""
        self.inner.flush()
        self._record = PowerCut(self.inner.read(0, self.inner.size))
        return self._record

    # -- the device -------------------------------------------------------------------------

    @property
    def size(self) -> int:
        return self.inner.size

    @property
    def read_only(self) -> bool:  # type: ignore[override]
        return self.inner.read_only

    @property
    def block_size(self) -> int:  # type: ignore[override]
        return self.inner.block_size

    @property
    def can_discard(self) -> bool:  # type: ignore[override]
        return self.inner.can_discard

    def readinto(self, offset: int, buffer: WritableBuffer) -> None:
        self._check("read", offset, len(buffer))
        self.inner.readinto(offset, buffer)

    def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
        fault = self._hit("write", offset, len(data))
        if fault is not None:
            if fault.tear:
                self._write(offset, memoryview(data)[: fault.tear], fua=False)
            raise _failure(fault, "write", offset)
        self._write(offset, data, fua=fua)

    def _write(self, offset: int, data: Buffer, *, fua: bool) -> None:
        record = self._record
        if record is None:
            self.inner.write(offset, data, fua=fua)
            return
        self.check_range(offset, len(data), write=True)
        number = record.begin(offset, bytes(data))
        self.inner.write(offset, data, fua=fua)
        record.done(number, durable=fua)

    def flush(self) -> None:
        self._check("flush")
        record = self._record
        completed = record.completed() if record is not None else ()
        self.inner.flush()
        if record is not None:
            record.flushed(completed)

    def discard(self, offset: int, length: int) -> None:
        self._check("discard", offset, length)
        self.inner.discard(offset, length)
        record = self._record
        if record is not None:
            record.done(record.begin(offset, self.inner.read(offset, length)), durable=False)

    def write_zeroes(
        self, offset: int, length: int, *, no_hole: bool = False, fua: bool = False
    ) -> None:
        self._check("write", offset, length)
        record = self._record
        if record is None:
            self.inner.write_zeroes(offset, length, no_hole=no_hole, fua=fua)
            return
        self.check_range(offset, length, write=True)
        number = record.begin(offset, bytes(length))
        self.inner.write_zeroes(offset, length, no_hole=no_hole, fua=fua)
        record.done(number, durable=fua)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        return self.inner.extents(offset, length)

    def changed(self, offset: int, length: int) -> Iterator[Changed] | None:
        return self.inner.changed(offset, length)

    def close(self) -> None:
        self.inner.close()


def _failure(fault: _Fault, kind: Kind, offset: int) -> DeviceError:
    return DeviceError(f"injected {kind} fault at byte {offset}", errno=fault.error)
