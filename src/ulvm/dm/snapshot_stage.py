"""The stage of a snapshot: new data of writes to chunks that it has no durable exception for.

Such a write is answered as soon as its data are staged (dm.stage), as a first write to an origin
is. Its chunks are given exceptions before that, so room and status lines are the kernel's. A commit

1. copies the old data of these chunks to the COW, or the new ones where a chunk is staged whole,
   and commits their exceptions (dm.commit);
2. writes the other staged pages in place, to chunks that are DONE.

Crash argument. After a power cut a chunk has no record, and reads as the origin, or it has one, and
what 1 wrote was on the disk before it: what 2 writes comes later, sector by sector, as on any disk.
Nobody was told that they are durable before 1, 2 and a flush of the COW. A kill -9 loses nothing
that was answered: the next process takes the pages up, and gives their chunks exceptions anew,
before anybody can write to the origin (dm.state resumes snapshots first).

A page is staged if its chunk is not DONE, or if it is staged already; the rest of a write is made
in place. That is decided under the origin's lock, under which alone chunks become DONE. So no page
of a chunk that is DONE becomes staged any more, and who finds it DONE, and then no page of the
write staged, may write in place without the lock: nothing older can come behind it.

There is no stage for chunks of less than a page, since a page with older sectors of one could
overtake such a write, nor where the last page is not whole, whose end may be another's when the
snapshot grows. An invalid snapshot drops what is staged, as nobody can read it; every flush says so
from then on.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ulvm.blockdev.base import BlockDevice, Buffer, WritableBuffer
from ulvm.dm.commit import settle
from ulvm.dm.cow import CowSnapshot, without_room
from ulvm.dm.exceptions.map import DONE, chunks_of, runs_of
from ulvm.dm.exceptions.store import Runs
from ulvm.dm.stage import Stage
from ulvm.dm.stage_begin import begin_stage
from ulvm.dm.stage_file import MOST_OF_STAGE, PAGE, PAGE_SHIFT, StageSettings
from ulvm.errors import DeviceError

if TYPE_CHECKING:
    from ulvm.dm.device import MappedDevice

__all__ = ["SnapshotStage", "fits"]

_RUN_PAGES = 4096
"""At most so many are one write."""


def fits(snapshot: CowSnapshot) -> bool:
    """Whether it can have a stage. A snapshot that waits for a handover has no chunks yet."""
    return (not snapshot.shift or snapshot.shift >= PAGE_SHIFT) and snapshot.length % PAGE == 0


class _Below(BlockDevice):
    """The snapshot without what is staged."""

    def __init__(self, snapshot: CowSnapshot) -> None:
        self.snapshot = snapshot
        self.lost = False
        """The snapshot turned invalid while something was staged."""

    @property
    def size(self) -> int:
        return self.snapshot.length

    @property
    def read_only(self) -> bool:  # type: ignore[override]
        return self.snapshot.cow.read_only

    def readinto(self, offset: int, buffer: WritableBuffer) -> None:
        self.snapshot.readinto(offset, buffer)

    def settle(self) -> None:
        if self.snapshot.valid and self.read_only:  # It would cost the snapshot.
            raise DeviceError("the disk of its COW store can only be read", errno=errno.EROFS)
        settle([self.snapshot.commit])
        if not self.snapshot.valid:
            self.lost = True

    def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
        self.write_each([(offset, memoryview(data))])

    def write_each(self, pieces: Sequence[tuple[int, memoryview]]) -> None:
        snapshot = self.snapshot
        if snapshot.valid:
            snapshot.cow.write_each(
                [placed for offset, data in pieces for placed in snapshot.places(offset, data)]
            )
        else:
            self.lost = True

    def flush(self) -> None:
        raise AssertionError("whoever wants that asks the device")


class SnapshotStage:
    """Writes to `snapshot` through `stage`, and reads of it. Thread safe as the module says."""

    def __init__(self, below: _Below, stage: Stage, writer: MappedDevice) -> None:
        self.writer = writer
        """The device of the snapshot."""
        self._below = below
        self._snapshot = below.snapshot
        self.stage = stage
        self._lock = below.snapshot.origin.lock

    @classmethod
    def begin(
        cls,
        snapshot: CowSnapshot,
        settings: StageSettings,
        writer: MappedDevice,
        log: Callable[[str], None],
    ) -> SnapshotStage | None:
        """As `begin_stage`, for one that `fits`."""

        def allocate(offset: int, end: int) -> None:
            if snapshot.allocate(offset >> snapshot.shift, (end - 1) >> snapshot.shift) >= 0:
                snapshot.no_room()

        below = _Below(snapshot)
        stage = begin_stage(
            below,
            snapshot.origin.lock,
            settings,
            writer,
            settle=below.settle,
            allocate=allocate,
            log=log,
        )
        return None if stage is None else cls(below, stage, writer)

    def follow(self, snapshot: CowSnapshot) -> None:
        """To the one that takes the exceptions over, on the same device. Under `committing` and the
        lock; no request is under way."""
        self._snapshot = self._below.snapshot = snapshot

    def settle(self) -> None:
        """All that was written before goes to the COW, behind its exceptions; not flushed.
        DeviceError: what could not be written is still staged, or the snapshot is invalid."""
        self.stage.commit()
        if self._below.lost:
            raise DeviceError("what was written to the snapshot is lost with it", errno=errno.EIO)

    @property
    def refused(self) -> bool:
        """Whether that failed when it was tried last."""
        return self.stage.failed or self._below.lost

    def close(self) -> None:
        """For good; what could not be written is lost, and said so."""
        self.stage.close()

    def copy_whole(self, runs: Runs) -> Runs:
        """Of `CowSnapshot.copy_runs`, under the lock of its commits, whoever commits: give chunks
        that are staged whole their new data. Returns those that want the old ones.

        What is sealed when a chunk still waits for its copy stays so meanwhile: the commit of those
        pages comes by here before it lets go of them."""
        pages, slots = self.stage.sealed()
        if not pages.size:
            return runs
        snapshot = self._snapshot
        shift = snapshot.shift
        inner = np.arange(1 << (shift - PAGE_SHIFT))
        old, new = chunks_of(runs[:, 0], runs[:, 2]), chunks_of(runs[:, 1], runs[:, 2])
        wanted = (old[:, np.newaxis] << (shift - PAGE_SHIFT)) + inner
        at = np.minimum(np.searchsorted(pages, wanted), pages.size - 1)
        whole = (pages[at] == wanted).all(axis=1) & ((old + 1) << shift <= snapshot.length)
        if not whole.any():
            return runs
        places = ((new[whole][:, np.newaxis] << (shift - PAGE_SHIFT)) + inner).ravel()
        snapshot.cow.write_each(
            [
                (place << PAGE_SHIFT, self.stage.data(slot, count))
                for place, slot, count in runs_of(
                    places, slots[at[whole]].ravel(), _RUN_PAGES
                ).tolist()
            ]
        )
        self.stage.are_there(wanted[whole].ravel())
        rest = ~whole
        return np.column_stack((old[rest], new[rest], np.ones(np.count_nonzero(rest), np.int64)))

    def readinto(self, offset: int, buffer: WritableBuffer) -> None:
        """The snapshot with what is staged."""
        self._snapshot.check()
        self.stage.readinto(offset, buffer)

    def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
        snapshot = self._snapshot
        snapshot.check_writable()
        view = memoryview(data).cast("B")
        if not view:
            return
        if self._is_in_place(offset, len(view)):
            snapshot.write_done(offset, view)
        else:
            self._write_new(offset, view)
            if fua:
                self.settle()
                snapshot.check()
        if fua:
            snapshot.cow.flush()

    def write_each(self, pieces: Sequence[tuple[int, memoryview]]) -> None:
        """`write` of each; what is written in place in one call of the COW."""
        snapshot = self._snapshot
        snapshot.check_writable()
        placed: list[tuple[int, memoryview]] = []
        for offset, data in pieces:
            if self._is_in_place(offset, len(data)):
                placed += snapshot.places(offset, data)
                continue
            if placed:
                snapshot.cow.write_each(placed)
                placed = []
            self._write_new(offset, data)
        if placed:
            snapshot.cow.write_each(placed)

    def _is_in_place(self, offset: int, length: int) -> bool:
        """Whether a write is to DONE chunks alone, and then to no page that is staged."""
        stage, shift, last = self.stage, self._snapshot.shift, offset + length - 1
        if not self._snapshot.map.all_done(offset >> shift, last >> shift):
            return False
        return not (stage.holds and stage.has(offset >> PAGE_SHIFT, last >> PAGE_SHIFT))

    def _write_new(self, offset: int, view: memoryview) -> None:
        """In pieces that the stage takes; all at once when it takes none."""
        position = 0
        while position < len(view):
            most = max(self.stage.slots // MOST_OF_STAGE - 1, 1) << PAGE_SHIFT
            piece = view[position : position + most]
            if not self._put(offset + position, piece):
                piece = view[position:]
                self._write_through(offset + position, piece)
            position += len(piece)

    def _put(self, offset: int, view: memoryview) -> bool:
        """Stage what must be, and write the rest in place. False if there is no room, nor will
        be; nothing is done then."""
        stage = self.stage
        pages = ((offset + len(view) - 1) >> PAGE_SHIFT) - (offset >> PAGE_SHIFT) + 1
        while pages <= stage.slots:
            with self._lock:
                if stage.has_room(pages):
                    room = self._allocate(offset, len(view))
                    direct = self._put_parts(offset, view[:room])
                    break
            stage.make_room()
        else:
            return False
        for start, part in direct:
            self._snapshot.write_done(start, part)
        stage.keep_pace()
        if room < len(view):
            raise without_room()
        return True

    def _allocate(self, offset: int, length: int) -> int:
        """Exceptions for all chunks of a write; of how many bytes there are. Under the lock."""
        snapshot = self._snapshot
        snapshot.origin.allocate_staged()
        snapshot.check()
        short = snapshot.allocate(offset >> snapshot.shift, (offset + length - 1) >> snapshot.shift)
        if short < 0:
            return length
        snapshot.no_room()
        snapshot.check()
        return max(0, (short << snapshot.shift) - offset)

    def _put_parts(self, offset: int, view: memoryview) -> list[tuple[int, memoryview]]:
        """Stage what must be; (offset, data) of the rest. Under the lock."""
        stage, shift, state = self.stage, self._snapshot.shift, self._snapshot.map.state
        end = offset + len(view)
        if offset >> shift == (end - 1) >> shift and state[offset >> shift] != DONE:
            stage.put(offset, view)  # most are of this kind
            return []
        direct: list[tuple[int, memoryview]] = []
        begin = position = offset
        staged = False
        while position < end:  # page by page, neighbours of one kind together
            page = position >> PAGE_SHIFT
            kind = state[position >> shift] != DONE or stage.has(page, page)
            if position > begin and kind != staged:
                self._put_part(begin, view[begin - offset : position - offset], staged, direct)
                begin = position
            staged = kind
            position = min((page + 1) << PAGE_SHIFT, end)
        if view:
            self._put_part(begin, view[begin - offset :], staged, direct)
        return direct

    def _put_part(
        self, start: int, part: memoryview, staged: bool, direct: list[tuple[int, memoryview]]
    ) -> None:
        if staged:
            self.stage.put(start, part)
        else:
            direct.append((start, part))

    def _write_through(self, offset: int, view: memoryview) -> None:
        """In place, when the chunks are DONE and nothing of them is staged."""
        snapshot, stage, shift = self._snapshot, self.stage, self._snapshot.shift
        with self._lock:
            room = self._allocate(offset, len(view))
        last = offset + room - 1
        done = not room
        while not done:
            stage.commit()
            settle([snapshot.commit])
            snapshot.check()
            with self._lock:
                done = snapshot.map.all_done(offset >> shift, last >> shift) and not stage.has(
                    offset >> PAGE_SHIFT, last >> PAGE_SHIFT
                )
        snapshot.write_done(offset, view[:room])
        if room < len(view):
            raise without_room()
