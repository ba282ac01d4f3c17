"""snapshot-merge: copies a snapshot's chunks back into its origin (drivers/md/dm-snap.c).

The target takes the place of snapshot-origin. A worker merges from the end of the exception
list, one batch after another; for each batch:

1. the other snapshots of the origin get their own copy of the range (committed);
2. the chunks are copied from the COW to the origin, and the origin is flushed; meanwhile the next
   batch is read, and written to the origin where there are no other snapshots;
3. their records are cleared on disk, between two flushes of the COW;
4. they leave the map: from now on requests go to the origin.

Crash argument: up to 3 the records still lead to the COW data, so the origin reads right
through this target, and a restart copies the same data again, which is harmless. That holds of what
was written ahead as well: the flush of its own batch is the one that counts. After 3 the
data are durable in the origin. Once a batch has begun, the store is no snapshot any more.

Writers and batches exclude each other by one lock, so a write to a chunk that is being merged
waits for its batch (at most `_BATCH_BYTES`); so does a snapshot that comes, which the batch under
way does not know of. A lock is not fair: between two batches the worker
waits until as many writes went through as had come, or it would take the lock again at once and
writers would wait for the whole merge. What was copied ahead does not count any more once something
was written, which may have been to the COW, nor behind a suspend. Reads take no lock: COW data stay
where they are, since chunks are never used again.

Any error, want of memory or threads too, ends the merge with the status `Merge failed`; other I/O
goes on with the remaining exceptions honoured, and suspend and resume try again. If it came when
records were to be cleared, they may be or not; so what is written to their chunks goes to the
origin as well.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import ClassVar, NamedTuple

from ulvm.blockdev.base import BlockDevice, Buffer, Changed, Extent, WritableBuffer
from ulvm.dm.cow import mark_invalid
from ulvm.dm.exceptions.map import anonymous
from ulvm.dm.exceptions.store import Run
from ulvm.dm.targets.base import Target, TargetContext
from ulvm.dm.targets.snapshot import SnapshotTarget, astray
from ulvm.errors import DeviceError, OutsideError
from ulvm.faultpoints import reach

__all__ = ["MergeTarget"]

_BATCH_BYTES = 1 << 20
_END = (0, -1, 0)


class _Batch(NamedTuple):
    """Records, and what is still to be written to the origin for them: (offset, data)."""

    runs: list[Run]
    writes: list[tuple[int, memoryview]]


class MergeTarget(SnapshotTarget):
    type_name: ClassVar[str] = "snapshot-merge"
    version: ClassVar[tuple[int, int, int]] = (1, 5, 0)
    merging: ClassVar[bool] = True

    def __init__(self, context: TargetContext, begin: int, length: int, args: list[str]) -> None:
        self._barriers = context.barriers
        self._step_lock = threading.Lock()
        self._turn = threading.Condition()
        self._arrived = 0
        self._served = 0
        self._stop = threading.Event()
        self._worker: threading.Thread | None = None
        self._buffer = memoryview(anonymous(_BATCH_BYTES))
        """The worker's, for a batch; of the next one when this one is in the origin."""
        self._unsure: list[Run] = []
        """Under the step lock: what was merged when an error came, so that nobody knows whether its
        records are cleared on the disk. What is written there goes to both places."""
        self._ahead: _Batch | None = None
        """Under the step lock, or of the thread that copies within a step."""
        super().__init__(context, begin, length, args)  # the last: from there on the origin has it

    # -- life cycle -------------------------------------------------------------------------

    def resume(self) -> None:
        super().resume()
        self.origin.writer = self._mapped
        self.origin.between_batches = self._between_batches
        mark_invalid(self.origin)
        if self.snapshot.valid and self._mapped.on_read_only:
            # It would cost other snapshots their copies, for nothing.
            self._log(
                "the merge waits until the disks below can be written; the next daemon opens them"
                " anew"
            )
        elif self.snapshot.valid:
            self._stop.clear()
            name = f"merge-{self._mapped.minor}"
            worker = threading.Thread(target=self._run, name=name, daemon=True)
            try:
                worker.start()
                self._worker = worker
            except (RuntimeError, MemoryError) as error:  # no more threads
                self._fail(error)

    def presuspend(self) -> None:
        with self._turn:
            self._stop.set()
            self._turn.notify_all()
        if self._worker is not None:
            self._worker.join()
            self._worker = None
        self._ahead = None

    def postsuspend(self) -> None:
        super().postsuspend()
        if self.origin.writer is self._mapped:  # else another device's
            self.origin.writer = None
        if self.origin.between_batches == self._between_batches:
            self.origin.between_batches = nullcontext

    def destroy(self) -> None:
        self.presuspend()
        super().destroy()

    def settle(self) -> None:
        mark_invalid(self.origin)
        super().settle()

    # -- merging ----------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                with self._step_lock:
                    if not self._step():
                        return
                reach("after a batch was merged")
                self._let_writers_through()
        except Exception as error:  # of a device, or want of memory
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self.snapshot.merge_failed = True
        self._log(f"Merge failed: {error!r}")

    @contextmanager
    def _between_batches(self) -> Iterator[None]:
        """Another snapshot comes: what is copied from now on it is given before."""
        with self._step_lock:
            self._ahead = None
            yield

    def _let_writers_through(self) -> None:
        with self._turn:
            arrived = self._arrived
            self._turn.wait_for(lambda: self._served >= arrived or self._stop.is_set())

    def _step(self) -> bool:
        """Merge one batch; False when there is nothing left."""
        snapshot = self.snapshot
        if not snapshot.valid:
            self._log("Snapshot store is damaged: can't merge")
            return False
        limit = max(1, _BATCH_BYTES >> snapshot.shift)
        runs = snapshot.store.prepare_merge(limit)
        if not runs:
            return False
        self._copy_back(runs)
        count = sum(run.chunks for run in runs)
        if self._barriers:
            with self._copying_ahead(count, limit):
                self._origin_device.flush()
        known = len(self._unsure)
        self._unsure += runs
        snapshot.store.commit_merge(count)
        for run in runs:
            snapshot.map.remove(run.old, run.chunks)
        del self._unsure[known:]
        return True

    def _copy_back(self, runs: list[Run]) -> None:
        """A batch, from COW to origin."""
        batch, self._ahead = self._ahead, None
        pieces = self._pieces(runs)
        # Others are given their chunks in the kernel's order: what came last is merged first.
        self.origin.protect_each([(target, length) for target, _, length in reversed(pieces)])
        if sum(length for _, _, length in pieces) > _BATCH_BYTES:
            for target, source, length in pieces:
                self._copy_long(target, source, length)
            return
        if batch is None or batch.runs != runs:  # or those behind a batch that failed
            batch = self._read(runs, pieces)
        self._origin_device.write_each(batch.writes)

    def _pieces(self, runs: list[Run]) -> list[tuple[int, int, int]]:
        """(offset in the origin, in the COW, length), ascending in the COW. DeviceError for a chunk
        that the origin has not: the record is damaged, and with it the last copy of some chunk
        would go."""
        shift, size = self.snapshot.shift, self._origin_device.size
        pieces: list[tuple[int, int, int]] = []
        for run in reversed(runs):
            target = run.old << shift
            length = min(run.chunks << shift, size - target)
            if run.old + run.chunks > -(-size >> shift):
                raise DeviceError(f"a record for chunk {run.old}, which is beyond the origin")
            pieces.append((target, run.new << shift, length))
        return pieces

    @contextmanager
    def _copying_ahead(self, count: int, limit: int) -> Iterator[None]:
        """What is merged once `count` records are cleared is copied meanwhile, if it can be; else
        the next step does, and says why it cannot. Other snapshots are to be given their chunks
        before: then it is read alone."""

        def copy() -> None:
            with suppress(Exception):
                runs = self.snapshot.store.next_merge(count, limit)
                pieces = self._pieces(runs)
                if 0 < sum(length for _, _, length in pieces) <= _BATCH_BYTES:
                    batch = self._read(runs, pieces)
                    if not self.origin.guarded:
                        self._origin_device.write_each(batch.writes)
                        batch = _Batch(runs, [])
                    self._ahead = batch

        thread = threading.Thread(target=copy, name="ulvm-merge-ahead", daemon=True)
        try:
            thread.start()
        except (RuntimeError, MemoryError):  # no more threads
            yield
            return
        try:
            yield
        finally:
            thread.join()

    def _read(self, runs: list[Run], pieces: list[tuple[int, int, int]]) -> _Batch:
        """What follows each other in the COW is read at once."""
        buffer = self._buffer
        writes: list[tuple[int, memoryview]] = []
        begin = position = first = 0
        for target, source, length in [*pieces, _END]:
            if source != first + position - begin:
                if begin < position:
                    self._cow.readinto(first, buffer[begin:position])
                begin, first = position, source
            if length:
                writes.append((target, buffer[position : position + length]))
            position += length
        # Of two records for a chunk, which no healthy store has, the older one's data stay.
        return _Batch(runs, writes[::-1])

    def _copy_long(self, target: int, source: int, length: int) -> None:
        """Of a chunk that is larger than a batch."""
        end = target + length
        while target < end:
            piece = self._buffer[: end - target]
            self._cow.readinto(source, piece)
            self._origin_device.write(target, piece)
            target, source = target + len(piece), source + len(piece)

    # -- I/O --------------------------------------------------------------------------------

    @property
    def can_discard(self) -> bool:
        return "discard_zeroes_cow" in self._features

    def readinto(self, offset: int, buffer: WritableBuffer) -> None:
        view = memoryview(buffer)
        snapshot = self.snapshot
        if not snapshot.valid:
            self._origin_device.readinto(offset, view)
            return
        for start, length, done in snapshot.runs(offset, len(view)):
            position, end = start, start + length
            while position < end:
                target, device, upto = self._place(position, end, done)
                try:
                    device.readinto(target, view[position - offset : upto - offset])
                except OutsideError as error:
                    raise astray(error) from error
                position = upto

    def readinto_each(self, pieces: Sequence[tuple[int, memoryview]]) -> None:
        Target.readinto_each(self, pieces)  # not the snapshot's, whose map shrinks here

    def _place(self, position: int, end: int, done: bool) -> tuple[int, BlockDevice, int]:
        """Where `position` lies: offset, device, and the end of what lies there in one piece.
        A chunk merged since `done` was seen is in its old COW chunk still."""
        snapshot = self.snapshot
        if not done:
            return position, self._origin_device, end
        shift = snapshot.shift
        chunk = position >> shift
        last = chunk + 1
        where = snapshot.map.where
        distance = where[chunk] - chunk
        while last << shift < end and where[last] - last == distance:
            last += 1
        upto = min(last << shift, end)
        return position + (distance << shift), snapshot.cow, upto

    def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
        view = memoryview(data).cast("B")
        snapshot = self.snapshot
        if not snapshot.valid:
            self.origin.protect(offset, len(view))
            self._origin_device.write(offset, view, fua=fua)
            return
        with self._turn:
            self._arrived += 1
        try:
            with self._step_lock:
                self._ahead = None
                self._write_in_place(offset, view, fua)
        finally:
            with self._turn:
                self._served += 1
                self._turn.notify_all()

    def _write_in_place(self, offset: int, view: memoryview, fua: bool) -> None:
        for start, length, done in self.snapshot.runs(offset, len(view)):
            position, end = start, start + length
            if not done:
                self.origin.protect(start, length)
            while position < end:
                target, device, upto = self._place(position, end, done)
                piece = view[position - offset : upto - offset]
                device.write(target, piece, fua=fua)
                if done and self._is_unsure(position, upto):
                    self.origin.protect(position, len(piece))
                    self._origin_device.write(position, piece, fua=fua)
                position = upto

    def _is_unsure(self, offset: int, end: int) -> bool:
        shift = self.snapshot.shift
        first, last = offset >> shift, (end - 1) >> shift
        return any(run.old <= last and first < run.old + run.chunks for run in self._unsure)

    def discard(self, offset: int, length: int) -> None:
        """Accepted and without effect, as the kernel does with discard_zeroes_cow."""
        if not self.can_discard:
            Target.discard(self, offset, length)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        for start, count, done in self.snapshot.runs(offset, length):
            if done and self.snapshot.valid:
                yield Extent(start, count, False, False)
            else:
                yield from self._origin_device.extents(start, count)

    def changed(self, offset: int, length: int) -> Iterator[Changed] | None:
        return None
