"""snapshot: `<origin> <cow> <P|PO|N> <chunk> [<#features> ...]` (drivers/md/dm-snap.c).

Handover: when the constructor finds an active snapshot with the same origin and COW, the new
one reads no metadata; at its resume it takes the exceptions over from the source, which must
be suspended by then and is invalid for ever after. Removing the source before that makes the
destination invalid in memory; the store on disk is unharmed.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from typing import ClassVar

from ulvm.blockdev.base import BlockDevice, Buffer, Changed, Extent, WritableBuffer
from ulvm.dm.commit import settle
from ulvm.dm.cow import CowSnapshot
from ulvm.dm.exceptions.persistent import PersistentStore, check_chunk_size
from ulvm.dm.exceptions.store import ExceptionStore
from ulvm.dm.exceptions.transient import TransientStore
from ulvm.dm.snapshot_stage import SnapshotStage, fits
from ulvm.dm.targets.base import Target, TargetContext
from ulvm.errors import DeviceError, NotSupportedError, OutsideError, TableError
from ulvm.units import parse_u64

__all__ = ["SnapshotTarget", "astray"]

_FEATURES = ("discard_zeroes_cow", "discard_passdown_origin")


def _build_store(
    args: list[str], origin: BlockDevice, cow: BlockDevice, *, merging: bool, barriers: bool
) -> ExceptionStore:
    """The store type and chunk size words (kernel: dm_exception_store_create)."""
    kind, size = args
    refused = "Couldn't create exception store"
    chunk_size = parse_u64(size)
    if chunk_size is None or chunk_size >= 1 << 32:
        raise TableError(f"{refused}: Invalid chunk size")
    if chunk_size:
        reason = check_chunk_size(chunk_size, cow, origin)
        if reason is not None:
            raise TableError(f"{refused}: {reason}")
    letter = kind[:1].upper()
    if letter == "N":
        if merging:
            raise TableError("Snapshot exception store does not support snapshot-merge.")
        return TransientStore(cow, chunk_size)
    if letter != "P":
        raise TableError(f"{refused}: Exception store type is not P or N")
    if len(kind) > 1 and kind[1].upper() != "O":
        raise TableError(f"{refused}: Unsupported persistent store options {kind[1:]!r}")
    return PersistentStore(
        cow, origin, chunk_size, overflow_support=len(kind) > 1, barriers=barriers
    )


def _parse_features(words: list[str]) -> tuple[str, ...]:
    """The features in the order in which the kernel prints them; words behind the counted
    ones are ignored."""
    if not words:
        return ()
    count = parse_u64(words[0])
    if count is None or count > len(_FEATURES):
        raise TableError("Invalid number of feature arguments")
    given = {word.lower() for word in words[1 : 1 + count]}
    if len(words) - 1 < count or not given.issubset(_FEATURES):
        raise TableError("Unrecognised feature requested")
    if "discard_passdown_origin" in given and "discard_zeroes_cow" not in given:
        raise TableError("discard_passdown_origin feature depends on discard_zeroes_cow")
    return tuple(f for f in _FEATURES if f in given)


def astray(error: OutsideError) -> DeviceError:
    """Of a request that a record of a damaged store led outside it."""
    return DeviceError(str(error), errno=errno.EIO)


class SnapshotTarget(Target):
    type_name: ClassVar[str] = "snapshot"
    version: ClassVar[tuple[int, int, int]] = (1, 16, 0)
    merging: ClassVar[bool] = False

    def __init__(self, context: TargetContext, begin: int, length: int, args: list[str]) -> None:
        super().__init__(begin, length)
        if len(args) < 4:
            raise TableError("requires 4 or more arguments")
        self._features = _parse_features(args[4:])
        self._origin_device = context.resolve(args[0])
        self._cow = context.resolve(args[1])
        if self._cow is self._origin_device:
            raise TableError("COW device cannot be the same as origin device")
        self._mapped = context.device
        self._log = context.log
        store = _build_store(
            args[2:4],
            self._origin_device,
            self._cow,
            merging=self.merging,
            barriers=context.barriers,
        )
        self.origin = context.origins.get(self._origin_device)
        self.snapshot = CowSnapshot(
            self.origin,
            self._cow,
            store,
            begin + length,  # as in the kernel it lies where its line does
            merging=self.merging,
            event=context.device.event,
            tell=context.device.tell,
            log=context.log,
        )
        self._may_stage = False
        """The first write begins a stage."""
        self.snapshot.is_suspended = lambda: self._mapped.suspended
        self.devices = (self._origin_device, self._cow)
        self.modes = ("w" if self.merging else "r", "rw")
        self.flush_devices = (self._origin_device, self._cow) if self.merging else (self._cow,)
        self._register()

    def _register(self) -> None:
        with self.origin.lock:
            source, destination, merging = self.origin.sharing_cow(self._cow)
            if destination is not None:
                raise TableError("Snapshot cow pairing for exception table handover failed")
            if source is not None:
                if self.merging and merging is not None:
                    raise TableError("A snapshot is already merging.")
                if self.merging and not source.store.can_merge:
                    raise TableError("Snapshot exception store does not support snapshot-merge.")
                self.snapshot.store.chunk_size = 0
                self.snapshot.awaits_handover = True
            else:
                self.snapshot.load()
                if not self.snapshot.valid:
                    self._log("Snapshot is marked invalid.")
                if isinstance(self.snapshot.store, PersistentStore):
                    for warning in self.snapshot.store.warnings:
                        self._log(warning)
            self.origin.add(self.snapshot)

    def reaches(self) -> Iterable[BlockDevice]:
        return (*self.devices, *self.origin.cows()) if self.merging else self.devices

    def areas(self) -> Iterable[tuple[BlockDevice, int, int]]:
        return [(self._origin_device, 0, self.length)]

    # -- life cycle -------------------------------------------------------------------------

    def preresume(self) -> None:
        source, destination, _ = self.origin.sharing_cow(self._cow)
        if source is None or destination is None:
            return
        if self.snapshot is source:
            raise TableError("Unable to resume snapshot source until handover completes.")
        if not source.is_suspended():
            raise TableError("Unable to perform snapshot handover until source is suspended.")
        stage = source.stage
        if stage is not None and not self._can_have(stage):
            try:
                stage.settle()
            except DeviceError as error:
                if source.valid:  # else it is lost whoever takes over
                    raise TableError(
                        f"What was written to the snapshot cannot go on: {error}"
                    ) from error

    def resume(self) -> None:
        """Take over if there is a source, then let origin writes copy out to this snapshot.
        The origin is paused meanwhile, so that no write, nor a batch of a merge (kernel: stop_merge
        in snapshot_resume), is half way past the decision."""
        writer = self.origin.writer
        if writer is self._mapped:
            writer = None
        self.origin.drain()
        try:
            if writer is not None:
                writer.pause()
            with self.origin.between_batches():
                self._join()
        finally:
            if writer is not None:
                writer.unpause()
        self._expect_writes()
        self.snapshot.mark()

    def _join(self) -> None:
        """What was written to the origin before belongs to a new snapshot, so none of that stays
        staged. Nor are there exceptions PENDING when a store goes over, of a write that failed."""
        drained = self.origin.drain()
        source, _, _ = self.origin.sharing_cow(self._cow)
        if source is not None:
            with self.origin.lock:
                self.origin.allocate_staged()
            if not source.copies_wait:
                settle([source.commit])
        elif not drained and not self.merging:
            raise TableError("What was written to the origin before cannot reach it.")
        stage = source.stage if source is not None else None
        with stage.stage.committing if stage is not None else nullcontext(), self.origin.lock:
            source, destination, _ = self.origin.sharing_cow(self._cow)
            if source is not None and destination is self.snapshot:
                self.snapshot.take_over(source)
                if stage is not None and source.stage is stage and self._can_have(stage):
                    self.snapshot.stage, source.stage = stage, None
                    stage.follow(self.snapshot)
            self.snapshot.active = True
            self.origin.update()

    def _can_have(self, stage: SnapshotStage) -> bool:
        """Whether the stage of a table before this one goes on, with what is in it."""
        return not self.merging and stage.writer is self._mapped and fits(self.snapshot)

    def _expect_writes(self) -> None:
        """A stage takes memory, and most snapshots are never written to: it begins with the first
        write, or now with what a killed process left in it."""
        snapshot, mapped, settings = self.snapshot, self._mapped, self.origin.settings
        wanted = self.begin == 0 and not self.merging and fits(snapshot)
        self._may_stage = wanted and snapshot.valid and snapshot.stage is None
        if self._may_stage and not mapped.goes_on:
            if problem := settings.forget(mapped.minor):  # of another device that had this number
                self._log(problem)
        elif self._may_stage and settings.slots_left(mapped.minor):
            self._begin_stage()

    def _begin_stage(self) -> SnapshotStage | None:
        """Or the one that another writer began. Where there is none to be had there will be none
        as long as writes go on: one that is staged and one that is not must not meet."""
        with self.origin.lock:
            if self._may_stage:
                snapshot, settings = self.snapshot, self.origin.settings
                snapshot.stage = SnapshotStage.begin(snapshot, settings, self._mapped, self._log)
                self._may_stage = False  # after it is there, see `_writes`
        return self.snapshot.stage

    def _writes(self) -> SnapshotStage | None:
        return self._begin_stage() if self._may_stage else self.snapshot.stage

    def settle(self) -> None:
        self.snapshot.mark()
        stage = self.snapshot.stage
        if stage is not None:
            stage.settle()

    @property
    def refused(self) -> bool:
        stage = self.snapshot.stage
        return stage is not None and stage.refused

    def would_lose(self, following: Sequence[Target]) -> bool:
        """What was written to an invalid snapshot is lost whoever takes over, but not the mark that
        it is, unless it turned so as its COW was abandoned. Of a valid one copies may be lost too,
        of what is staged for the origin."""
        snapshot = self.snapshot
        stage = snapshot.stage if snapshot.valid else None
        if stage is not None and not stage.stage.holds:
            stage = None
        marked = self._mapped.abandoned or not snapshot.mark_waits
        waits = snapshot.lacks_copies if snapshot.valid else not marked
        if stage is None and not waits:
            return False
        return not any(
            isinstance(t, SnapshotTarget)
            and t.snapshot.awaits_handover
            and t.origin is self.origin
            and t._cow is self._cow
            and (stage is None or t._can_have(stage))
            for t in following
        )

    def _drain(self) -> None:
        """What cannot be written stays staged, which is said."""
        try:
            self.settle()
        except Exception as error:  # of a device, or want of memory
            self._log(f"{self._mapped.name}: written data cannot reach the COW: {error!r}")

    def presuspend(self) -> None:
        """Most of what is staged, while requests go on, so that they need not wait for long."""
        self._drain()

    def postsuspend(self) -> None:
        self._drain()
        self.origin.drain()

    def destroy(self) -> None:
        self._drain()
        self.snapshot.mark()
        self.origin.finish(self.snapshot)
        with self.origin.lock:
            source, destination, _ = self.origin.sharing_cow(self._cow)
            if source is self.snapshot and destination is not None:
                destination.valid = False
                self._log("Cancelling snapshot handover.")
            self.origin.discard(self.snapshot)
        stage, self.snapshot.stage = self.snapshot.stage, None
        if stage is not None:
            stage.close()

    # -- I/O --------------------------------------------------------------------------------

    @property
    def can_discard(self) -> bool:
        return "discard_zeroes_cow" in self._features

    def _account(self) -> None:
        """Before a request: what was written to the origin may have left no room, and the snapshot
        is invalid then."""
        snapshot = self.snapshot
        if snapshot.valid and not snapshot.store.has_room(len(self.origin.staged)):
            self.origin.account()

    def readinto(self, offset: int, buffer: WritableBuffer) -> None:
        if self.origin.staged:
            self._account()
        own = self.snapshot.stage
        try:
            if own is not None and own.stage.holds:
                own.readinto(offset, buffer)
            else:
                self.snapshot.readinto(offset, buffer)
        except OutsideError as error:
            raise astray(error) from error

    def readinto_each(self, pieces: Sequence[tuple[int, memoryview]]) -> None:
        if self.origin.staged:
            self._account()
        own = self.snapshot.stage
        try:
            if own is not None and own.stage.holds:
                for offset, buffer in pieces:
                    own.readinto(offset, buffer)
            else:
                self.snapshot.readinto_each(pieces)
        except OutsideError as error:
            raise astray(error) from error

    def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
        if self.origin.staged:
            self._account()
        own = self._writes()
        try:
            if own is not None:
                own.write(offset, data, fua=fua)
            else:
                self.snapshot.write(offset, data, fua=fua)
        except OutsideError as error:
            raise astray(error) from error

    def write_each(self, pieces: Sequence[tuple[int, memoryview]]) -> None:
        if self.origin.staged:
            self._account()
        own = self._writes()
        try:
            if own is not None:
                own.write_each(pieces)
            else:
                super().write_each(pieces)
        except OutsideError as error:
            raise astray(error) from error

    def discard(self, offset: int, length: int) -> None:
        """Whole chunks with an exception are zeroed in the COW, parts of one are passed to
        the COW device, chunks without one stay as they are."""
        if not self.can_discard:
            raise NotSupportedError("this snapshot does not support discard")
        self.settle()
        snapshot = self.snapshot
        snapshot.check_writable()
        if "discard_passdown_origin" in self._features:
            self.origin.write_staged()  # Later it would undo the discard.
            self._origin_device.discard(offset, length)
        shift = snapshot.shift
        for start, count, done in snapshot.runs(offset, length):
            position, end = start, start + count
            while done and position < end:
                chunk = position >> shift
                upto = min((chunk + 1) << shift, end)
                target = (snapshot.map.where[chunk] << shift) + position - (chunk << shift)
                if upto - position == 1 << shift:
                    self._cow.write_zeroes(target, upto - position)
                elif self._cow.can_discard:
                    self._cow.discard(target, upto - position)
                position = upto

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        try:
            self.settle()
        except DeviceError:  # What stays staged are data, whatever is below.
            self.snapshot.check()
            yield Extent(offset, length, False, False)
            return
        self.snapshot.check()
        for start, count, done in self.snapshot.runs(offset, length):
            if done:
                yield Extent(start, count, False, False)
            else:
                yield from self._origin_device.extents(start, count)

    def changed(self, offset: int, length: int) -> Iterator[Changed] | None:
        self.settle()
        self.origin.settle()  # What is staged there has changed already.
        return self.snapshot.changed(offset, length)

    # -- lines ------------------------------------------------------------------------------

    def table(self, number: Callable[[BlockDevice], str]) -> str:
        store = self.snapshot.store
        kind = store.type_letters + ("O" if store.overflow_support else "")
        words = [number(self._origin_device), number(self._cow), kind, str(store.chunk_size)]
        if self._features:
            words += [str(len(self._features)), *self._features]
        return " ".join(words)

    def status(self, number: Callable[[BlockDevice], str]) -> str:
        self.origin.account()
        snapshot = self.snapshot
        if not snapshot.valid:
            return "Invalid"
        if snapshot.merge_failed:
            return "Merge failed"
        if snapshot.overflowed:
            return "Overflow"
        allocated, total, metadata = snapshot.store.usage()
        return f"{allocated}/{total} {metadata}"
