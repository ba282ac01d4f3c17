"""Who must be copied out before an origin changes: its snapshots.

Every write that goes to the origin through a snapshot-origin target passes `write`; what a merge
writes first passes `protect`.

States of a chunk, per snapshot: NONE -> PENDING (exception allocated) -> DONE (exception
committed). Crash argument of an origin write (kernel: pending exceptions):

1. old data are written to the COW data chunk;
2. the exception is committed: flush, record, flush (dm.exceptions.persistent);
3. only then is the new data written to the origin.

A power cut before 2 leaves the origin unchanged, so the snapshot reads it there; after 2 it
reads the copy. With several snapshots step 3 waits for step 2 of all of them. Where there is a
stage (dm.stage), the writer is answered before 1, and the rest is done for many writes at once.

A unit, the smallest chunk or a page if that is more, is marked *settled* when it is durable in
every guarded snapshot and no page of it is staged. From then on writes go straight to the device,
after one look at one map, however many snapshots there are, and no page of it is ever staged: one
with older sectors could overtake such a write. Where it is not marked, no write goes past the
stage, but for a page that is never staged: the last one of an origin, if it is not whole. When the
snapshots change the map begins anew, and fills as writes come.

What is staged is given its exceptions all at once, in the order in which it came: when it is
committed, before any chunk is given one otherwise, when somebody asks for a status line, or uses a
snapshot that may have no room for it. Until then its chunks are NONE, which reads as PENDING does:
the device below has not changed, and a write to a snapshot that takes such a chunk copies the same
old data. What was written before a snapshot came is none of its own; so what is staged is given its
exceptions before the guarded ones change.

One mapped device writes to an origin. When another one comes the stage retires until no table
writes to the origin any more: its file belongs to the first one, which may go before the other.

Locks: `Origin.lock` serialises allocation for all snapshots of the origin (so allocation order is
in ascending order of sectors within a request), and staging. Copies and commits are made outside
of it, so that a commit of one writer carries the exceptions of all who came meanwhile (dm.commit).
Readers take no lock: they look at the state, read, and look again.
"""

from __future__ import annotations

import errno
import mmap
import threading
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import numpy as np

from ulvm.blockdev.base import BlockDevice, Buffer, WritableBuffer
from ulvm.dm.commit import settle
from ulvm.dm.exceptions.map import anonymous
from ulvm.dm.stage import Stage
from ulvm.dm.stage_begin import begin_stage
from ulvm.dm.stage_file import MOST_OF_STAGE, PAGE, PAGE_SHIFT, StageSettings
from ulvm.errors import DeviceError

if TYPE_CHECKING:
    from ulvm.dm.cow import CowSnapshot
    from ulvm.dm.device import MappedDevice

__all__ = ["Origin"]

_MOST_UNITS = 1 << 36
_TRIES = 3
_PATIENCE = 0.05
"""Seconds for which who asks for a status line waits for the lock."""
_MOST_STAGED = 1 << 16
"""Pages noted: one may be written to again and again."""
_MANY = 64
"""From so many pages on, arrays of them are quicker than one after the other."""


class Origin:
    """One underlying device and its snapshots, the largest chunk size first.

    `guarded` is the tuple of snapshots that writes must be copied out to: active, valid and
    not merging; it is replaced as a whole, so the data path reads it without a lock. `settings`:
    of the stage that writers get, if they want one.
    """

    def __init__(
        self, device: BlockDevice, settings: StageSettings, log: Callable[[str], None]
    ) -> None:
        self.device = device
        self.lock = threading.RLock()
        self.snapshots: list[CowSnapshot] = []
        """Replaced as a whole: it is read without the lock."""
        self.guarded: tuple[CowSnapshot, ...] = ()
        self.writer: MappedDevice | None = None
        """The mapped device whose live table writes to the origin (snapshot-origin)."""
        self.between_batches: Callable[[], AbstractContextManager[None]] = nullcontext  # of a merge
        self.stage: Stage | None = None
        self.settings = settings
        self._log = log
        self._writers: list[MappedDevice] = []
        self._whole = device.size & -PAGE
        """Where the last page that the writer has begins, if it is not whole, or the end."""
        self._end = 0
        """Of the tables that wrote to it; may be beyond the device."""
        self._units = 0
        self._shift = PAGE_SHIFT
        """Of a unit: at least a page's."""
        self._exact = False
        """Of a page that is written to not every chunk may want an exception."""
        self.staged = array("q")
        """Pages whose chunks have not been given exceptions since they were staged."""
        self._settled: mmap.mmap | None = None
        """A byte for each unit; None: ask the snapshots."""

    def add(self, snapshot: CowSnapshot) -> None:
        with self.lock:
            self.snapshots = [*self.snapshots, snapshot]  # It is not active yet.

    def discard(self, snapshot: CowSnapshot) -> None:
        with self.lock:
            self.snapshots = [other for other in self.snapshots if other is not snapshot]
            self.update()

    def finish(self, snapshot: CowSnapshot) -> None:
        """Before it goes it gets what was written while it was here, which may still be staged.
        Not under the lock. Writes that go on meanwhile may be too fast for us: their place is
        behind that moment."""
        for _ in range(_TRIES):
            self.drain()
            if not (snapshot.commit.pending or self.staged) or not snapshot.valid:
                break

    def cows(self) -> list[BlockDevice]:
        """Where writes to the origin are copied to. Without the lock: who holds it may wait at a
        suspended COW for what the caller is about to do."""
        return [snapshot.cow for snapshot in list(self.snapshots)]

    def update(self) -> None:
        """Call after anything that decides who is guarded has changed."""
        with self.lock:
            self.snapshots = sorted(self.snapshots, key=lambda s: -s.chunk_size)
            self.allocate_staged()  # What was written before is none of a new snapshot's.
            guarded = [s for s in self.snapshots if s.active and s.valid and not s.merging]
            before, self.guarded = self.guarded, tuple(guarded)
            if self.guarded and set(self.guarded) <= set(before):
                return  # Marks hold for fewer as well, and writes that saw them are under way.
            self._settled = None
            if self.guarded:
                shift = min(s.shift for s in self.guarded)
                self._shift = max(shift, PAGE_SHIFT)
                cut = any(s.length & (PAGE - 1) for s in self.guarded)
                self._exact = shift < PAGE_SHIFT or cut
                self._begin_marks()

    def _begin_marks(self) -> None:
        self._units = self._units_now()
        self._settled = anonymous(self._units) if self._units <= _MOST_UNITS else None

    def _units_now(self) -> int:
        return (max(self.device.size, self._end) >> self._shift) + 1

    def sharing_cow(
        self, cow: BlockDevice
    ) -> tuple[CowSnapshot | None, CowSnapshot | None, CowSnapshot | None]:
        """(source, destination, merging): the active and the waiting snapshot with this COW,
        and the merging one of the origin (kernel: __find_snapshots_sharing_cow)."""
        source = destination = merging = None
        for snapshot in self.snapshots:
            if snapshot.merging:
                merging = snapshot
            if snapshot.cow is cow:
                if snapshot.active:
                    source = snapshot
                else:
                    destination = snapshot
        return source, destination, merging

    # -- the stage --------------------------------------------------------------------------

    def begin(self, writer: MappedDevice, end: int, *, stage: bool) -> None:
        """A writer is about to, up to the byte `end`; `stage`: it may have one. If another writes
        already, it has none, nor has the other any more. Whatever is raised, it has not begun."""
        with self.lock:  # The origin's size may be new as well; no write is under way.
            others = [other for other in self._writers if other is not writer]
            writers = [*self._writers, writer]
            self._whole = min(self.device.size, end) & -PAGE
            self._end = max(self._end, end)
            if self._settled is not None and self._units_now() != self._units:
                self._begin_marks()
            if others and self.stage is not None:
                self.stage.retire()
            elif stage and not others and self.stage is None:
                self.stage = begin_stage(
                    self.device,
                    self.lock,
                    self.settings,
                    writer,
                    settle=self.settle,
                    allocate=self._allocate,
                    log=lambda text: self._log(f"{writer.name}: {text}"),
                )
            self._writers = writers
        if others:
            self.drain()

    def end(self, writer: MappedDevice) -> None:
        """It has ended."""
        with self.lock:  # Who begins finds it among the writers, or no stage.
            self._writers.remove(writer)
            if self._writers or self.stage is None:
                return
            stage, self.stage = self.stage, None
        stage.close()

    def write_staged(self) -> None:
        """All that is staged goes to the device. DeviceError: what cannot stays staged."""
        if (stage := self.stage) is not None:
            stage.commit()

    def drain(self) -> bool:
        """The same; what cannot is said, and False."""
        try:
            self.write_staged()
        except Exception as error:  # of a device, or want of memory
            self._log(f"written data cannot reach the origin: {error!r}")
            return False
        return True

    def settle(self) -> None:
        """Return when every snapshot has what it was given so far, and what is staged needs.
        DeviceError when the origin must not change: ENXIO if it was abandoned meanwhile
        (mapper.shutdown), since then copies fail because devices go, EROFS if copies wait."""
        with self.lock:
            self.allocate_staged()
            guarded = self.guarded
        waits = [snapshot for snapshot in guarded if snapshot.lacks_copies]
        settle([snapshot.commit for snapshot in guarded if snapshot not in waits])
        if waits:
            raise DeviceError("the disks below can only be read", errno=errno.EROFS)
        writer = self.writer
        if writer is not None and writer.abandoned and not all(s.valid for s in guarded):
            raise DeviceError(f"device {writer.name} is gone", errno=errno.ENXIO)

    # -- the data path: flat on purpose -----------------------------------------------------

    def readinto(self, offset: int, buffer: WritableBuffer) -> None:
        """The origin with what is staged."""
        stage = self.stage
        if stage is not None and stage.holds:
            stage.readinto(offset, buffer)
        else:
            self.device.readinto(offset, buffer)

    def readinto_each(self, pieces: Sequence[tuple[int, memoryview]]) -> None:
        stage = self.stage
        if stage is not None and stage.holds:
            for offset, buffer in pieces:
                stage.readinto(offset, buffer)
        else:
            self.device.readinto_each(pieces)

    def write_each(self, pieces: Sequence[tuple[int, memoryview]]) -> None:
        """`write` of each; where all is settled in one call of the device."""
        settled, shift = self._settled, self._shift
        if settled is not None:
            for offset, data in pieces:
                first = offset >> shift
                if not settled[first] or first != (offset + len(data) - 1) >> shift:
                    break
            else:
                self.device.write_each(pieces)
                return
        for offset, data in pieces:
            self.write(offset, data)

    def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
        """Copied out first, or staged."""
        settled = self._settled
        if settled is not None:
            first = offset >> self._shift
            last = (offset + len(data) - 1) >> self._shift
            if settled[first] if first == last else settled.find(b"\0", first, last + 1) < 0:
                self.device.write(offset, data, fua=fua)
                return
        elif not self.guarded and (self.stage is None or not self.stage.holds):
            self.device.write(offset, data, fua=fua)
            return
        whole = self._whole
        if offset < whole < offset + len(data):
            view = memoryview(data)
            self.write(offset, view[: whole - offset], fua=fua)
            self.write(whole, view[whole - offset :], fua=fua)
            return
        if not fua and self._put(offset, data):
            return
        stage = self.stage
        if stage is None or not stage.slots or offset >= whole:
            self.protect(offset, len(data))
        elif not self._settle_units(stage, offset, offset + len(data)):
            # Others stage pages beside it, or of it with the older sectors, and may do so for ever.
            self._stage_all(stage, offset, data)
            if fua:
                stage.commit()
                self.device.flush()
            return
        self.device.write(offset, data, fua=fua)

    def _put(self, offset: int, data: Buffer) -> bool:
        """Stage what of a write is not settled, and make the rest. False for one that had better
        be made at once; nothing of it is then."""
        stage = self.stage
        end = offset + len(data)
        if end > self._whole:
            return False
        pages = ((end - 1) >> PAGE_SHIFT) - (offset >> PAGE_SHIFT) + 1
        while stage is not None and pages * MOST_OF_STAGE <= stage.slots:
            with self.lock:
                if self.guarded and self._settled is None:
                    return False
                if stage.has_room(pages):
                    direct = self._put_parts(stage, offset, end, memoryview(data))
                    break
            stage.make_room()
        else:
            return False
        for start, part in direct:
            self.device.write(start, part)
        stage.keep_pace()
        return True

    def _put_parts(
        self, stage: Stage, offset: int, end: int, view: memoryview
    ) -> list[tuple[int, memoryview]]:
        """Stage what is not settled; (offset, data) of the rest. Under the lock."""
        settled, shift = self._settled, self._shift
        unit = offset >> shift
        if settled is not None and unit == (end - 1) >> shift:  # most are of this kind
            if settled[unit] or (self._is_done(offset, end) and self._mark(unit, unit + 1)):
                return [(offset, view)]
            self._note(offset, end)
            stage.put(offset, view)
            return []
        direct: list[tuple[int, memoryview]] = []
        for start, upto, marked in list(self._parts(stage, offset, end)):
            part = view[start - offset : upto - offset]
            if marked:
                direct.append((start, part))
            else:
                self._note(start, upto)
                stage.put(start, part)
        return direct

    def _note(self, offset: int, end: int) -> None:
        """What is about to be staged wants exceptions: later, where its pages tell of which chunks.
        Under the lock."""
        if self._exact or len(self.staged) >= _MOST_STAGED:
            self._allocate(offset, end)
        else:
            self.staged.extend(range(offset >> PAGE_SHIFT, ((end - 1) >> PAGE_SHIFT) + 1))

    def _parts(self, stage: Stage, offset: int, end: int) -> Iterator[tuple[int, int, bool]]:
        """(start, end, settled) of the parts of a request; what can be marked is."""
        settled, shift = self._settled, self._shift
        position = offset
        if settled is None:  # no snapshot needs a copy; what is still staged must be written there
            while position < end:
                page = position >> PAGE_SHIFT
                upto = min((page + 1) << PAGE_SHIFT, end)
                yield position, upto, not stage.has(page, page)
                position = upto
            return
        stop = ((end - 1) >> shift) + 1
        while position < end:
            unit = position >> shift
            marked = bool(settled[unit])
            found = settled.find(b"\0" if marked else b"\1", unit, stop)
            last = found if found >= 0 else stop
            if not marked and self._is_done(unit << shift, last << shift):
                marked = self._mark(unit, last)
            upto = min(last << shift, end)
            yield position, upto, marked
            position = upto

    def _mark(self, unit: int, stop: int) -> bool:
        """Mark units that are done as settled, if nothing of them is staged. Under the lock."""
        settled = self._settled
        shift, stage = self._shift - PAGE_SHIFT, self.stage
        if stage is not None and stage.has(unit << shift, (stop << shift) - 1):
            return False
        if settled is not None:
            stop = min(stop, len(settled))  # Behind that writes a merge, and nothing is staged.
            settled[unit:stop] = b"\1" * (stop - unit)
        return True

    def _stage_all(self, stage: Stage, offset: int, data: Buffer) -> None:
        """In pieces that the stage takes, wherever they begin."""
        view = memoryview(data).cast("B")
        position = 0
        while position < len(view):
            pages = stage.slots // MOST_OF_STAGE - 1
            piece = view[position : position + max(pages, 1) * PAGE]
            if self._put(offset + position, piece):
                position += len(piece)
            elif not stage.slots or self._settled is None:  # Nothing is staged, nor will be.
                self.protect(offset + position, len(view) - position)
                self.device.write(offset + position, view[position:])
                return

    def _is_done(self, offset: int, end: int) -> bool:
        """Whether all guarded snapshots have the units of [offset, end) durable."""
        unit = 1 << self._shift
        return self._is_copied(offset & -unit, (end + unit - 1) & -unit)

    def _is_copied(self, offset: int, end: int) -> bool:
        """Whether they have the chunks of it."""
        for snapshot in self.guarded:
            if offset < snapshot.length and not snapshot.passed_by:
                last = (min(end, snapshot.length) - 1) >> snapshot.shift
                if not snapshot.map.all_done(offset >> snapshot.shift, last):
                    return False
        return True

    def protect(self, offset: int, length: int) -> None:
        """Return when every guarded snapshot has its own copy of [offset, offset+length) and none
        of it is staged; of the rest of its units nothing is known. It is for what is never staged,
        or is not any more.

        A snapshot that cannot be given its copy turns invalid instead. DeviceError as `settle`, or
        when what was staged cannot be written."""
        stage = self.stage
        if length == 0 or not (self.guarded or (stage is not None and stage.holds)):
            return
        end = offset + length
        first, last = offset >> PAGE_SHIFT, (end - 1) >> PAGE_SHIFT
        while not self._settle_units(stage, offset, end):
            with self.lock:
                # A page that was sealed a moment ago may have been written to and be staged again.
                if self._is_copied(offset, end) and (stage is None or not stage.has(first, last)):
                    return

    def _settle_units(self, stage: Stage | None, offset: int, end: int) -> bool:
        """Try to have all snapshots hold [offset, end), and nothing of its units staged: whether
        they are settled then. Errors as of `protect`."""
        if not self._is_done(offset, end):
            with self.lock:
                self._allocate(offset, end)
            self.settle()
        if stage is not None:
            stage.commit()
        with self.lock:
            units = offset >> self._shift, ((end - 1) >> self._shift) + 1
            return self._is_done(offset, end) and self._mark(*units)

    def protect_each(self, ranges: Sequence[tuple[int, int]]) -> None:
        """`protect` for each (offset, length); their copies are committed together."""
        if self.guarded:
            with self.lock:
                for offset, length in ranges:
                    self._allocate(offset, offset + length)
            self.settle()
        for offset, length in ranges:
            self.protect(offset, length)

    def account(self) -> None:
        """Give what is staged its exceptions, for who asks how many there are. Who asks does not
        wait for long for the lock, but, as in the kernel, for a COW that is suspended if its
        snapshot turns invalid by it."""
        if self.staged and self.lock.acquire(timeout=_PATIENCE):
            try:
                self.allocate_staged()
            finally:
                self.lock.release()

    def allocate_staged(self) -> None:
        """Exceptions for all that was staged without, in that order, which is the kernel's: so
        before any other is given. Under the lock. What fails is to be done once more: without its
        exceptions no page may be written."""
        if not self.staged:
            return
        staged, self.staged = self.staged, array("q")
        try:
            if len(staged) < _MANY:
                for page in staged:
                    self._allocate(page << PAGE_SHIFT, (page + 1) << PAGE_SHIFT)
                return
            pages = np.frombuffer(staged, np.int64)
            for snapshot in self.guarded:
                if snapshot.valid:
                    snapshot.copy_out_pages(pages)
        except BaseException:
            self.staged = staged + self.staged
            raise

    def _allocate(self, offset: int, end: int) -> None:
        """Exceptions for all chunks of [offset, end) that have none. Under the lock."""
        self.allocate_staged()
        for snapshot in self.guarded:
            if snapshot.valid and offset < snapshot.length:
                last = (min(end, snapshot.length) - 1) >> snapshot.shift
                first = offset >> snapshot.shift
                if not snapshot.map.all_done(first, last):
                    snapshot.copy_out(first, last)
