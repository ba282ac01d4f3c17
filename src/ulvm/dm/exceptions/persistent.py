"""The persistent exception store (drivers/md/dm-snap-persistent.c), on disk as the kernel's.

    chunk 0                     disk_header, the rest of the chunk zero
    chunk 1 + k*(epa+1)         metadata area k: `epa` disk_exceptions of 16 bytes
    all other chunks            data

epa (exceptions per area) = chunk bytes / 16. Records fill areas in order of allocation; the
first record with new_chunk 0 ends the list, so a full area needs a zeroed area behind it.

Commit order and why a power cut at any point is safe:

1. The caller has written the data chunks. If the commit fills area k, area k+1 is zeroed
   (`prepare`).
2. flush: data and zeroed area are durable before any record that leads to them.
3. The areas are written (`write_records`), then flush: the records are durable before the caller
   lets the origin change. A cut between 2 and 3 leaves any subset of the new records, by
   sectors: each of them tells the truth (its data are durable, the origin is still unchanged),
   and records behind a missing one are not reached. They must never come back to life: the
   first commit after a `load` that found such wipes them before the flush of step 2. In one
   write with the new records they could stay while a sector before them fills up.

Merging clears records only after the origin is flushed (`commit_merge` itself flushes before
and after the area write), so a cut replays at most copies that were made already.

With barriers off (durability "process") the order of writes is the same, without the flushes:
the page cache keeps it through kill -9, not through a power cut.
"""

from __future__ import annotations

import errno
import mmap
import struct
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ulvm.blockdev.base import BlockDevice
from ulvm.dm.exceptions.map import ExceptionMap, chunks_of
from ulvm.dm.exceptions.store import ExceptionStore, Run, Runs, Usage
from ulvm.errors import DeviceError, TableError
from ulvm.units import SECTOR

__all__ = ["DEFAULT_CHUNK_SIZE", "DiskHeader", "PersistentStore", "check_chunk_size"]

SNAP_MAGIC = 0x70416E53
SNAPSHOT_DISK_VERSION = 1
NUM_SNAPSHOT_HDR_CHUNKS = 1
DEFAULT_CHUNK_SIZE = 32
"""Sectors; taken for a fresh store when the table says 0."""
MAX_CHUNK_SIZE = (2**31 - 1) >> 9

_DISK_EXCEPTION_SIZE = 16
_WRITE_UNIT = 4096


@dataclass(frozen=True, slots=True)
class DiskHeader:
    """struct disk_header: four u32, little endian, at byte 0 of the COW device."""

    magic: int
    valid: int
    version: int
    chunk_size: int

    _format: ClassVar[struct.Struct] = struct.Struct("<IIII")
    size: ClassVar[int] = 16

    @classmethod
    def unpack(cls, data: bytes) -> DiskHeader:
        return cls(*cls._format.unpack_from(data))

    def pack(self) -> bytes:
        return self._format.pack(self.magic, self.valid, self.version, self.chunk_size)


def check_chunk_size(sectors: int, *devices: BlockDevice) -> str | None:
    """Why the kernel refuses this chunk size; None if it does not."""
    if sectors <= 0 or sectors & (sectors - 1):
        return "Chunk size is not a power of 2"
    for device in devices:
        if sectors % (device.block_size // SECTOR):
            return "Chunk size is not a multiple of device blocksize"
    if sectors > MAX_CHUNK_SIZE:
        return "Chunk size is too high"
    return None


class PersistentStore(ExceptionStore):
    """`P` and `PO`. `chunk_size` 0 means: the header's, or the default for a fresh store."""

    type_letters = "P"
    can_merge = True

    def __init__(
        self,
        cow: BlockDevice,
        origin: BlockDevice,
        chunk_size: int,
        *,
        overflow_support: bool = False,
        barriers: bool = True,
    ) -> None:
        self.cow = cow
        self.chunk_size = chunk_size
        self.overflow_support = overflow_support
        self.warnings: list[str] = []
        self._origin = origin
        self._barriers = barriers
        self._header_valid = True
        self._fresh = False
        self._next_free = NUM_SNAPSHOT_HDR_CHUNKS + 1
        self._area_index = 0
        self._committed = 0
        self._exceptions = 0
        """Committed or to be: what is allocated has an exception soon."""
        self._disk_dirty_tail = False
        self._ahead: mmap.mmap | None = None
        """The area before the current one, if `next_merge` has read it: until areas move."""
        self._records: list[tuple[int, bytes]] = []
        """(offset, bytes) of prepared ones, in order: a later one may hold an earlier one's."""

    # -- opening ----------------------------------------------------------------------------

    def open(self) -> None:
        supplied = self.chunk_size
        if supplied == 0:
            self.chunk_size = max(DEFAULT_CHUNK_SIZE, self.cow.block_size // SECTOR)
        if self.cow.size < self.chunk_size * SECTOR:
            raise TableError("Failed to read snapshot metadata", errno=errno.EIO)
        header = DiskHeader.unpack(self._read(0, DiskHeader.size))
        if header.magic == 0:
            self._fresh = True
        elif header.magic != SNAP_MAGIC:
            raise TableError("Invalid or corrupt snapshot", errno=errno.ENXIO)
        else:
            self._adopt(header, supplied)
        chunk_bytes = self._chunk_bytes = self.chunk_size * SECTOR
        self._epa = chunk_bytes // _DISK_EXCEPTION_SIZE
        self._area = self._new_area()
        if self._fresh:
            self._create()

    def _adopt(self, header: DiskHeader, supplied: int) -> None:
        self._header_valid = header.valid != 0
        if header.chunk_size != self.chunk_size:
            reason = check_chunk_size(header.chunk_size, self.cow, self._origin)
            if reason is not None:
                raise TableError(f"invalid on-disk chunk size {header.chunk_size}: {reason}.")
            if supplied:
                self.warnings.append(
                    f"chunk size {header.chunk_size} in device metadata "
                    f"overrides table chunk size of {supplied}."
                )
            self.chunk_size = header.chunk_size
        if header.version != SNAPSHOT_DISK_VERSION:
            raise TableError(f"unable to handle snapshot disk version {header.version}")

    def _create(self) -> None:
        if self.cow.size < 2 * self._chunk_bytes:
            raise TableError("Failed to read snapshot metadata", errno=errno.EIO)
        try:
            # The header last: with it what lies in area 0 counts.
            self.cow.write_zeroes(self._area_offset(0), self._chunk_bytes)
            self.barrier()
            self._write_header(valid=1)
        except DeviceError as error:
            raise TableError(
                f"Failed to read snapshot metadata: {error}", errno=errno.EIO
            ) from error

    def _write_header(self, *, valid: int) -> None:
        header = DiskHeader(SNAP_MAGIC, valid, SNAPSHOT_DISK_VERSION, self.chunk_size)
        head = min(self._chunk_bytes, _WRITE_UNIT)
        self.cow.write(0, header.pack() + bytes(head - DiskHeader.size))
        if head < self._chunk_bytes:
            self.cow.write_zeroes(head, self._chunk_bytes - head)

    def _read(self, offset: int, length: int) -> bytes:
        try:
            return self.cow.read(offset, length)
        except DeviceError as error:
            message = f"Failed to read snapshot metadata: {error}"
            raise TableError(message, errno=errno.EIO) from error

    def load(self, exceptions: ExceptionMap) -> bool:
        if not self._header_valid:
            return False
        if self._fresh:
            return True
        highest = 0
        index = 0
        while True:
            if self._area_offset(index) + self._chunk_bytes > self.cow.size:
                raise TableError("Failed to read snapshot metadata", errno=errno.EIO)
            self._read_area(index, self._area)
            records = np.frombuffer(self._area, dtype="<u8").reshape(-1, 2)
            ends = np.flatnonzero(records[:, 1] == 0)
            count = int(ends[0]) if ends.size else self._epa
            if count:
                new = records[:count, 1]
                highest = max(highest, int(new.max()))
                exceptions.load(records[:count, 0], new)
            if count < self._epa:
                break
            index += 1
        # Bytes behind the terminator must not come back to life when it is overwritten.
        tail = records[count:]
        self._disk_dirty_tail = bool(tail.any())
        tail[:] = 0
        self._area_index = index
        self._committed = count
        self._exceptions = index * self._epa + count
        self._next_free = max(highest + 1, NUM_SNAPSHOT_HDR_CHUNKS + 1)
        self._skip_metadata()
        return True

    # -- geometry ---------------------------------------------------------------------------

    def _area_offset(self, index: int) -> int:
        return (NUM_SNAPSHOT_HDR_CHUNKS + index * (self._epa + 1)) * self._chunk_bytes

    def _skip_metadata(self) -> None:
        if self._next_free % (self._epa + 1) == NUM_SNAPSHOT_HDR_CHUNKS:
            self._next_free += 1

    def _new_area(self) -> mmap.mmap:
        return mmap.mmap(-1, self._chunk_bytes)

    def _read_area(self, index: int, area: mmap.mmap) -> None:
        try:
            self.cow.readinto(self._area_offset(index), memoryview(area))
        except DeviceError as error:
            message = f"Failed to read snapshot metadata: {error}"
            raise TableError(message, errno=errno.EIO) from error

    # -- allocation and commit --------------------------------------------------------------

    def allocate(self, count: int) -> list[tuple[int, int]]:
        stride = self._epa + 1
        end = self.cow.size // self._chunk_bytes
        runs: list[tuple[int, int]] = []
        while count > 0:
            first = self._next_free
            until_area = stride - (first - NUM_SNAPSHOT_HDR_CHUNKS) % stride
            take = min(count, until_area, end - first)
            if take <= 0:
                break
            runs.append((first, take))
            self._next_free = first + take
            self._exceptions += take
            self._skip_metadata()
            count -= take
        return runs

    def has_room(self, count: int) -> bool:
        metadata = count // self._epa + 1
        return self._next_free + count + metadata <= self.cow.size // self._chunk_bytes

    def prepare(self, runs: Runs) -> None:
        self._ahead = None
        self._wipe_tail()
        old, new = chunks_of(runs[:, 0], runs[:, 2]), chunks_of(runs[:, 1], runs[:, 2])
        done = 0
        while done < old.size:
            first_slot = self._committed
            n = min(old.size - done, self._epa - first_slot)
            records = np.frombuffer(self._area, dtype="<u8").reshape(-1, 2)
            records[first_slot : first_slot + n, 0] = old[done : done + n]
            records[first_slot : first_slot + n, 1] = new[done : done + n]
            self._committed += n
            done += n
            if self._committed == self._epa:
                self.cow.write_zeroes(self._area_offset(self._area_index + 1), self._chunk_bytes)
            self._records.append(self._area_write(first_slot))
            if self._committed == self._epa:
                self._area_index += 1
                self._committed = 0
                self._area = self._new_area()

    def write_records(self) -> None:
        records, self._records = self._records, []
        for offset, data in records:
            self.cow.write(offset, data)

    def _wipe_tail(self) -> None:
        """What `load` found behind the end; what comes before stays as it is on disk. The flush
        before the records covers it."""
        if self._disk_dirty_tail:
            self.cow.write(self._area_offset(self._area_index), self._area[:])
            self._disk_dirty_tail = False

    def _area_write(self, first_slot: int) -> tuple[int, bytes]:
        """What must be written of the current area, its slots from `first_slot` being new: the
        touched 4 KiB units."""
        start = first_slot * _DISK_EXCEPTION_SIZE // _WRITE_UNIT * _WRITE_UNIT
        last = self._committed * _DISK_EXCEPTION_SIZE
        end = min(self._chunk_bytes, (last + _WRITE_UNIT - 1) // _WRITE_UNIT * _WRITE_UNIT)
        return self._area_offset(self._area_index) + start, self._area[start:end]

    def barrier(self) -> None:
        if self._barriers:
            self.cow.flush()

    def usage(self) -> Usage:
        if not self.chunk_size:  # it waits for a handover
            return Usage(0, self.cow.size // SECTOR, 0)
        areas = self._exceptions // self._epa + 1
        metadata = (areas + NUM_SNAPSHOT_HDR_CHUNKS) * self.chunk_size
        return Usage(self._next_free * self.chunk_size, self.cow.size // SECTOR, metadata)

    def mark_invalid(self) -> None:
        self._header_valid = False
        self._write_header(valid=0)
        self.barrier()

    # -- merging ----------------------------------------------------------------------------

    def prepare_merge(self, limit: int) -> list[Run]:
        if self._committed == 0:
            if self._area_index == 0:
                return []
            # Not before it is read: a merge that failed here must find this area again.
            area, self._ahead = self._ahead or self._area_before(), None
            self._area, self._area_index, self._committed = area, self._area_index - 1, self._epa
        return self._last_runs(self._area, self._committed, limit)

    def next_merge(self, count: int, limit: int) -> list[Run]:
        if count < self._committed:
            return self._last_runs(self._area, self._committed - count, limit)
        if self._area_index == 0:
            return []
        self._ahead = self._area_before()
        return self._last_runs(self._ahead, self._epa, limit)

    def _area_before(self) -> mmap.mmap:
        area = self._new_area()
        self._read_area(self._area_index - 1, area)
        return area

    @staticmethod
    def _last_runs(area: mmap.mmap, end: int, limit: int) -> list[Run]:
        """Of the records before the slot `end`."""
        records = np.frombuffer(area, dtype="<u8").reshape(-1, 2)
        left = records[max(end - limit, 0) : end].tolist()
        runs: list[Run] = []
        while left:
            old, new = left.pop()
            count = 1
            while left and left[-1] == [old - 1, new - 1]:
                old, new = left.pop()
                count += 1
            runs.append(Run(old, new, count))
        return runs

    def commit_merge(self, count: int) -> None:
        """Memory changes when the disk has: a merge that failed here finds its records again."""
        keep = self._committed - count
        start = keep * _DISK_EXCEPTION_SIZE // _WRITE_UNIT * _WRITE_UNIT
        last = self._committed * _DISK_EXCEPTION_SIZE
        end = min((last + _WRITE_UNIT - 1) // _WRITE_UNIT * _WRITE_UNIT, self._chunk_bytes)
        cleared = bytearray(self._area[start:end])
        first = keep * _DISK_EXCEPTION_SIZE - start
        cleared[first : last - start] = bytes(last - start - first)
        self.barrier()
        self.cow.write(self._area_offset(self._area_index) + start, cleared)
        self.barrier()
        self._area[start:end] = cleared
        self._committed = keep
        self._exceptions = self._area_index * self._epa + keep
        # As the kernel: exact only while merging, when nothing is allocated any more.
        area_chunk = NUM_SNAPSHOT_HDR_CHUNKS + self._area_index * (self._epa + 1)
        self._next_free = area_chunk + keep + 1
