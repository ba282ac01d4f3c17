"""One snapshot: origin, COW, store and exceptions; what snapshot and snapshot-merge share.

The kernel's struct dm_snapshot (drivers/md/dm-snap.c). Reading and writing through a snapshot
and copying out for origin writes are here; the targets add table lines and the life cycle.

Failure states (spec of the status line): `valid` false shows `Invalid`, on disk too; it never
comes back. `overflowed` (store type PO, a snapshot write found no room) is in memory only.

Reading without a lock: look at the state of a chunk, read the origin, look again. The origin
cannot have changed under the read unless the state has meanwhile become DONE (then read the
COW) or the snapshot invalid (then EIO), because `Origin.protect` returns only after that.

Handover (`take_over`): store, map and chunk size move from the active snapshot to the one
that was loaded with the same COW, while the source is suspended and the origin is paused.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ulvm.blockdev.base import BlockDevice, Buffer, Changed, WritableBuffer
from ulvm.dm.commit import GroupCommit, settle
from ulvm.dm.copies import OldData, copy_runs
from ulvm.dm.exceptions.map import DONE, NONE, ExceptionMap, Numbers, chunks_of, firsts_of
from ulvm.dm.exceptions.sparse_map import exception_map
from ulvm.dm.exceptions.store import ExceptionStore, Run, Runs
from ulvm.dm.origins import Origin
from ulvm.dm.stage_file import PAGE_SHIFT
from ulvm.errors import DeviceError
from ulvm.units import SECTOR

if TYPE_CHECKING:
    from ulvm.dm.snapshot_stage import SnapshotStage

__all__ = ["CowSnapshot", "mark_invalid", "without_room"]


def without_room() -> DeviceError:
    """What is said to who writes where no chunk is to be had."""
    return DeviceError("no room in the snapshot's COW store", errno=errno.EIO)


def mark_invalid(origin: Origin) -> None:
    """On their disks those of its snapshots that are, if an error kept them from that: power may go
    when it has changed without them."""
    for snapshot in origin.snapshots:
        snapshot.mark()


class CowSnapshot:
    """`length` in bytes: up to where the table line goes. Thread safe as the module says."""

    def __init__(
        self,
        origin: Origin,
        cow: BlockDevice,
        store: ExceptionStore,
        length: int,
        *,
        merging: bool,
        event: Callable[[], None],
        tell: Callable[[], None],
        log: Callable[[str], None],
    ) -> None:
        self.origin = origin
        self.lock = origin.lock
        self.cow = cow
        self.length = length
        self.merging = merging
        self.active = False
        self.valid = True
        self.overflowed = False
        self.merge_failed = False
        self.awaits_handover = False
        self.is_suspended: Callable[[], bool] = lambda: False
        self._event = event
        self._tell = tell
        self._log = log
        self._invalidate_lock = threading.Lock()
        self._unmarked = False
        self.passed_by = False
        """It is invalid, which who brings it back knows of: writes to the origin go on without it,
        if it is still guarded, for want of memory."""
        self._mark_failure = ""
        """The last that was said."""
        self.stage: SnapshotStage | None = None
        """Of its own writes; `write` is for a snapshot without one."""
        self.store = store
        self.map = ExceptionMap(0)
        self.commit = GroupCommit(store, self.map, self)
        self.shift = 0

    @property
    def chunk_size(self) -> int:
        """Sectors; 0 while waiting for a handover and after having given away."""
        return self.store.chunk_size

    def load(self) -> None:
        """Open the store and read the exceptions. TableError when the kernel would refuse."""
        self.store.open()
        self._size_map()
        self.valid = self.store.load(self.map)

    def _size_map(self) -> None:
        chunk_bytes = self.store.chunk_size * SECTOR
        self.shift = chunk_bytes.bit_length() - 1
        self.map = exception_map((self.length + chunk_bytes - 1) >> self.shift)
        self.commit = GroupCommit(self.store, self.map, self)

    def take_over(self, source: CowSnapshot) -> None:
        """Handover of exceptions (kernel: __handover_exceptions). Under the origin's lock; a stage
        of the source commits nothing meanwhile."""
        self.origin.allocate_staged()  # In the map that goes over.
        with source._invalidate_lock:
            self._take(source)

    def _take(self, source: CowSnapshot) -> None:
        own = self.store
        self.store, self.map, self.commit = source.store, source.map, source.commit
        self.store.overflow_support = own.overflow_support
        self.shift = source.shift
        if self.map.chunks < (self.length + (1 << self.shift) - 1) >> self.shift:
            self.map.grow((self.length + (1 << self.shift) - 1) >> self.shift)
        self.commit.owner = self
        self.valid, self.overflowed = source.valid, source.overflowed
        self._unmarked, source._unmarked = source._unmarked, False
        self.awaits_handover = False
        own.chunk_size = 0
        source.store, source.map, source.valid = own, ExceptionMap(0), False
        source.commit = GroupCommit(own, source.map, source)

    @property
    def gave_away(self) -> bool:
        """Whether another snapshot took the exceptions over; this one stays invalid."""
        return not self.awaits_handover and self.store.chunk_size == 0

    # -- failure ----------------------------------------------------------------------------

    def invalidate(self, reason: str) -> None:
        """Turn invalid for good, on disk too; the event counter of the device goes up once.

        On disk first: from `valid` being false on, writes to the origin pass without copies."""
        with self._invalidate_lock:
            if not self.valid:
                return
            self._log(f"Invalidating snapshot: {reason}")
            try:
                self._unmarked = True
                self._mark()
            finally:
                self.valid = False
        try:
            self._event()  # Who brings it back after a kill knows of it before a write passes.
        finally:
            self.passed_by = True
            self.origin.update()

    def stay_invalid(self) -> None:
        """As it was in a process before this one, which its disk may not say."""
        self._unmarked = self.valid and not self.awaits_handover
        self.valid = False

    def mark(self) -> None:
        """Say on disk that it is invalid, if an error kept it from that, and nobody is at it; not
        if the COW is suspended: whoever comes here may be about to resume it."""
        if self._unmarked and not self.mark_waits and self._invalidate_lock.acquire(blocking=False):
            try:
                self._mark()
            finally:
                self._invalidate_lock.release()

    @property
    def mark_waits(self) -> bool:
        """For a COW that is suspended."""
        from ulvm.dm.order import may_wait  # which knows of targets

        return self._unmarked and may_wait(self.cow)

    def _mark(self) -> None:
        if self._unmarked:
            try:
                self.store.mark_invalid()
                self._unmarked = False
            except Exception as error:  # of the device, or want of memory
                failure = f"write header failed, the COW store still looks valid on disk: {error}"
                if failure != self._mark_failure:
                    self._log(failure)
                self._mark_failure = failure

    @property
    def copies_wait(self) -> bool:
        """Neither its COW nor the origin can be written. What was staged for that before cannot
        reach it, and a copy that is refused would cost the snapshot for nothing."""
        return self.cow.read_only and self.origin.device.read_only

    @property
    def lacks_copies(self) -> bool:
        """Some of them wait, and would be missing if it came back when the origin has changed."""
        waits = self.active and self.copies_wait
        return waits and (self.commit.pending or bool(self.origin.staged))

    def commit_failed(self, error: Exception) -> None:
        """Of `commit`."""
        self.invalidate(f"Error reading/writing. ({error})")

    def no_room(self) -> None:
        """A write to the snapshot needs a chunk, and there is none."""
        if self.store.overflow_support:
            self._log("Snapshot overflowed: Unable to allocate exception.")
            if not self.overflowed:
                self.overflowed = True
                self._tell()
        else:
            self.invalidate("Unable to allocate exception.")

    def check(self) -> None:
        """DeviceError (EIO) of one that is invalid."""
        if not self.valid:
            raise DeviceError("the snapshot is invalid", errno=errno.EIO)

    # -- copying out ------------------------------------------------------------------------

    def copy_out(self, first: int, last: int) -> None:
        """Before the origin changes there: as `allocate`, and a snapshot without room turns
        invalid. The caller then settles, or stages its data."""
        if self.allocate(first, last) >= 0:
            self.invalidate("Unable to allocate exception.")

    def copy_out_pages(self, pages: Numbers) -> None:
        """`copy_out` of the chunks that many pages lie in. No chunk is smaller."""
        pages = pages[pages < self.length >> PAGE_SHIFT]
        old = firsts_of(self.map.without(pages >> (self.shift - PAGE_SHIFT)))
        if old.size:
            runs = np.array(self.store.allocate(old.size), dtype=np.int64).reshape(-1, 2)
            new = chunks_of(runs[:, 0], runs[:, 1])
            if new.size:
                self.commit.add_each(old[: new.size], new)
            if new.size < old.size:
                self.invalidate("Unable to allocate exception.")

    def allocate(self, first: int, last: int) -> int:
        """Give the chunks first..last that have none an exception; their data are copied when it
        is committed. The first one without room, or -1. Under the origin's lock."""
        state = self.map.state
        if first == last:
            if state[first] == NONE:
                for new, _ in self.store.allocate(1):
                    self.commit.add(Run(first, new, 1), copied=False)
                    return -1
                return first
            return -1
        chunk = state.find(b"\0", first, last + 1)
        while chunk >= 0:
            end = self.map.run_end(chunk, last + 1)
            for new, count in self.store.allocate(end - chunk):
                self.commit.add(Run(chunk, new, count), copied=False)
                chunk += count
            if chunk < end:
                return chunk
            chunk = state.find(b"\0", end, last + 1)
        return -1

    def copy_runs(self, runs: Runs, shared: OldData | None) -> None:
        """Of `commit`."""
        stage = self.stage
        if stage is not None:
            runs = stage.copy_whole(runs)
        if runs.size:
            copy_runs(self.origin.device, self.cow, self.shift, runs, shared)

    # -- reading ----------------------------------------------------------------------------

    def readinto(self, offset: int, buffer: WritableBuffer) -> None:
        if not self.valid:
            raise DeviceError("the snapshot is invalid", errno=errno.EIO)
        shift, state = self.shift, self.map.state
        end = offset + len(buffer)
        chunk = offset >> shift
        if chunk == (end - 1) >> shift:  # most are of this kind
            if state[chunk] == DONE:
                place = (self.map.where[chunk] << shift) + offset - (chunk << shift)
                self.cow.readinto(place, buffer)
                return
            self.origin.device.readinto(offset, buffer)
            self.check()
            if state[chunk] != DONE:
                return
        view = memoryview(buffer)
        position = offset
        while position < end:
            chunk = position >> shift
            stop = ((end - 1) >> shift) + 1
            if state[chunk] == DONE:
                stop = self.map.contiguous_end(chunk, stop) if chunk + 1 < stop else stop
                upto = min(stop << shift, end)
                target = (self.map.where[chunk] << shift) + position - (chunk << shift)
                self.cow.readinto(target, view[position - offset : upto - offset])
                position = upto
                continue
            if chunk + 1 < stop:
                found = state.find(b"\1", chunk + 1, stop)
                stop = found if found >= 0 else stop
            upto = min(stop << shift, end)
            self.origin.device.readinto(position, view[position - offset : upto - offset])
            self.check()
            changed = state.find(b"\1", chunk, stop)
            if changed >= 0:
                upto = max(position, changed << shift)
            position = upto

    def readinto_each(self, pieces: Sequence[tuple[int, memoryview]]) -> None:
        """`readinto` of each; what lies in one chunk in one call of the device it lies on."""
        self.check()
        shift, state = self.shift, self.map.state
        origin: list[tuple[int, memoryview]] = []
        cow: list[tuple[int, memoryview]] = []
        for offset, buffer in pieces:
            chunk = offset >> shift
            if chunk != (offset + len(buffer) - 1) >> shift:
                self.readinto(offset, buffer)
            elif state[chunk] == DONE:
                cow.append(((self.map.where[chunk] << shift) + offset - (chunk << shift), buffer))
            else:
                origin.append((offset, buffer))
        if cow:
            self.cow.readinto_each(cow)
        if origin:
            self.origin.device.readinto_each(origin)
            self.check()
            for offset, buffer in origin:
                if state[offset >> shift] == DONE:  # since then; the origin may be newer
                    self.readinto(offset, buffer)

    # -- writing ----------------------------------------------------------------------------

    def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
        """A write through the snapshot device; the origin never sees it."""
        self.check_writable()
        view = memoryview(data).cast("B")
        if not view:
            return
        first, last = offset >> self.shift, (offset + len(view) - 1) >> self.shift
        written: list[tuple[int, int]] = []
        complete = True
        if not self.map.all_done(first, last):
            with self.origin.lock:
                complete = self._write_new(offset, view, first, last, written)
            settle([self.commit])
            self.check()
        self.write_done(offset, view, written)
        if not complete:
            raise without_room()
        if fua:
            self.cow.flush()

    def check_writable(self) -> None:
        self.check()
        if self.overflowed:
            raise DeviceError("the snapshot has overflowed", errno=errno.EIO)

    def _write_new(
        self, offset: int, view: memoryview, first: int, last: int, written: list[tuple[int, int]]
    ) -> bool:
        """Give every chunk of first..last an exception: chunks that the request covers get
        the new data at once (noted in `written` as byte ranges), others a copy of the
        origin's. False if room ended: what comes before stays, the rest fails."""
        self.origin.allocate_staged()
        self.check()
        end = offset + len(view)
        state = self.map.state
        limit = self.origin.device.size
        chunk = first
        while chunk <= last:
            if state[chunk] != NONE:
                chunk += 1
                continue
            stop = self.map.run_end(chunk, last + 1)
            start_byte = chunk << self.shift
            if start_byte < offset or (chunk + 1) << self.shift > min(end, limit):
                stop, whole = chunk + 1, False
            else:
                whole = True
                if stop << self.shift > min(end, limit):
                    stop -= 1
            for new, count in self.store.allocate(stop - chunk):
                try:
                    if whole:
                        start_byte = chunk << self.shift
                        upto = (chunk + count) << self.shift
                        self.cow.write(new << self.shift, view[start_byte - offset : upto - offset])
                        written.append((start_byte, upto))
                    else:
                        copied = np.array([(chunk, new, count)], dtype=np.int64)
                        copy_runs(self.origin.device, self.cow, self.shift, copied)
                except DeviceError as error:
                    self.invalidate(f"Error reading/writing. ({error})")
                    raise DeviceError("the snapshot is invalid", errno=errno.EIO) from error
                self.commit.add(Run(chunk, new, count), copied=True)
                chunk += count
            if chunk < stop:
                self.no_room()
                self.check()
                return False
        return True

    def write_done(
        self, offset: int, view: memoryview, written: Sequence[tuple[int, int]] = ()
    ) -> None:
        """Write in place to complete exceptions all of the request but the ranges `written`."""
        end = offset + len(view)
        position = offset
        for start, upto in [*written, (end, end)]:
            while position < start:
                position = self._write_run(offset, view, position, start)
                if position < 0:
                    return
            position = upto

    def _write_run(self, offset: int, view: memoryview, position: int, end: int) -> int:
        """One contiguous piece; the position behind it, or -1 at a chunk without exception
        (where an overflow cut the request short)."""
        if self.map.state[position >> self.shift] != DONE:
            return -1
        target, upto = self.place(position, end)
        self.cow.write(target, view[position - offset : upto - offset])
        return upto

    def place(self, position: int, end: int) -> tuple[int, int]:
        """Where in the COW the byte `position` of a chunk that is DONE lies, and up to where before
        `end` the bytes behind it follow it there."""
        shift = self.shift
        chunk = position >> shift
        stop = self.map.contiguous_end(chunk, ((end - 1) >> shift) + 1)
        target = (self.map.where[chunk] << shift) + position - (chunk << shift)
        return target, min(stop << shift, end)

    def places(self, offset: int, view: memoryview) -> list[tuple[int, memoryview]]:
        """(where in the COW, what of the data) of chunks that are DONE."""
        end = offset + len(view)
        position = offset
        placed: list[tuple[int, memoryview]] = []
        while position < end:
            if self.map.state[position >> self.shift] != DONE:
                raise without_room()
            target, upto = self.place(position, end)
            placed.append((target, view[position - offset : upto - offset]))
            position = upto
        return placed

    # -- what lies where --------------------------------------------------------------------

    def runs(self, offset: int, length: int) -> Iterator[tuple[int, int, bool]]:
        """(offset, length, has exception) runs of bytes that cover the range."""
        end = offset + length
        state = self.map.state
        position = offset
        while position < end:
            chunk = position >> self.shift
            done = state[chunk] == DONE
            stop = ((end - 1) >> self.shift) + 1
            if done:
                ends = [
                    e
                    for e in (state.find(b"\0", chunk, stop), state.find(b"\2", chunk, stop))
                    if e >= 0
                ]
                stop = min(ends, default=stop)
            else:
                found = state.find(b"\1", chunk, stop)
                stop = found if found >= 0 else stop
            upto = min(stop << self.shift, end)
            yield position, upto - position, done
            position = upto

    def changed(self, offset: int, length: int) -> Iterator[Changed]:
        self.check()
        for start, count, done in self.runs(offset, length):
            yield Changed(start, count, done)
