"""The crash tests, tested: with each barrier or ordering taken away they must fail.

Each mutation breaks one promise in the code while lives of `tests.crash.engine` are lived and cut;
how many images it took until that was seen is printed at the end of the run.
"""

from __future__ import annotations

import inspect
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import effort
from tests.crash.engine import Machine, Unsafe
from ulvm.blockdev.base import Buffer
from ulvm.blockdev.memory import MemoryDevice
from ulvm.dm.commit import GroupCommit
from ulvm.dm.copies import OldData
from ulvm.dm.device import MappedDevice
from ulvm.dm.exceptions.map import ExceptionMap
from ulvm.dm.exceptions.persistent import PersistentStore
from ulvm.dm.exceptions.store import Run, Runs
from ulvm.dm.origins import Origin
from ulvm.dm.stage import Stage
from ulvm.dm.targets.merge import MergeTarget
from ulvm.dm.targets.origin import OriginTarget
from ulvm.dm.targets.snapshot import SnapshotTarget

Patch = Callable[[pytest.MonkeyPatch], None]

MOST = 20_000
"""Images after which a mutation counts as not seen."""
MUTATIONS: dict[str, Patch] = {}


def mutation(name: str) -> Callable[[Patch], Patch]:
    def add(patch: Patch) -> Patch:
        MUTATIONS[name] = patch
        return patch

    return add


def without_barrier(function: Callable[..., Any], number: int) -> Patch:
    """The `number`-th `self.barrier()` of a method of the store does nothing."""
    lines, first = inspect.getsourcelines(function)
    where = [first + n for n, line in enumerate(lines) if "self.barrier()" in line][number]

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        real = PersistentStore.barrier

        def barrier(self: PersistentStore) -> None:
            caller = sys._getframe(1)
            if caller.f_code is not function.__code__ or caller.f_lineno != where:
                real(self)

        monkeypatch.setattr(PersistentStore, "barrier", barrier)

    return patch


MUTATIONS["new store: no flush between area and header"] = without_barrier(
    PersistentStore._create, 0
)
MUTATIONS["invalidation: no flush behind the header"] = without_barrier(
    PersistentStore.mark_invalid, 0
)
MUTATIONS["merge: no flush behind the cleared records"] = without_barrier(
    PersistentStore.commit_merge, 1
)


@mutation("commit: no flush before the records")
def _(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GroupCommit, "_make_safe", lambda self: None)


@mutation("commit: no flush behind the records")
def _(monkeypatch: pytest.MonkeyPatch) -> None:
    real = GroupCommit.complete

    def complete(self: GroupCommit) -> None:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(self._store, "barrier", lambda: None)
            real(self)

    monkeypatch.setattr(GroupCommit, "complete", complete)


@mutation("commit: the flush of other data counts for the records")
def _(monkeypatch: pytest.MonkeyPatch) -> None:
    real = GroupCommit.copy

    def copy(self: GroupCommit, shared: OldData | None) -> None:
        safe = self._safe
        real(self, shared)
        self._safe = safe

    monkeypatch.setattr(GroupCommit, "copy", copy)


@mutation("commit: the next area is not zeroed")
def _(monkeypatch: pytest.MonkeyPatch) -> None:
    real = PersistentStore.prepare

    def prepare(self: PersistentStore, runs: Runs) -> None:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(self.cow, "write_zeroes", lambda *args, **options: None)
            real(self, runs)

    monkeypatch.setattr(PersistentStore, "prepare", prepare)


def _keep_stale_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    real = PersistentStore.load

    def load(self: PersistentStore, exceptions: ExceptionMap) -> bool:
        valid = real(self, exceptions)
        self._disk_dirty_tail = False
        return valid

    monkeypatch.setattr(PersistentStore, "load", load)


@mutation("invalidation: not written to the disk")
def _(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PersistentStore, "mark_invalid", lambda self: None)


@mutation("origin write: before its copies")
def _(monkeypatch: pytest.MonkeyPatch) -> None:
    def write(self: OriginTarget, offset: int, data: Buffer, *, fua: bool = False) -> None:
        self._origin.protect(offset, 0)
        self._device.write(offset, data, fua=fua)
        self._origin.protect(offset, len(data))

    monkeypatch.setattr(OriginTarget, "write", write)


@mutation("origin write: does not wait for the commit")
def _(monkeypatch: pytest.MonkeyPatch) -> None:
    def protect(self: Origin, offset: int, length: int) -> None:
        with self.lock:
            self._allocate(offset, offset + length)

    monkeypatch.setattr(Origin, "protect", protect)


@mutation("origin write: copies to one snapshot only")
def _(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Origin.update

    def update(self: Origin) -> None:
        real(self)
        self.guarded = self.guarded[:1]

    monkeypatch.setattr(Origin, "update", update)


@mutation("snapshot write: FUA is not heeded")
def _(monkeypatch: pytest.MonkeyPatch) -> None:
    real = SnapshotTarget.write

    def write(self: SnapshotTarget, offset: int, data: Buffer, *, fua: bool = False) -> None:
        real(self, offset, data)

    monkeypatch.setattr(SnapshotTarget, "write", write)


@mutation("flush: does not reach the disks")
def _(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MappedDevice, "flush", lambda self: None)


@mutation("merge: the origin is not flushed before records are cleared")
def _(monkeypatch: pytest.MonkeyPatch) -> None:
    real = MergeTarget._step

    def step(self: MergeTarget) -> bool:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(self._origin_device, "flush", lambda: None)
            return real(self)

    monkeypatch.setattr(MergeTarget, "_step", step)


@mutation("merge: other snapshots get no copies")
def _(monkeypatch: pytest.MonkeyPatch) -> None:
    real = MergeTarget._copy_back

    def copy_back(self: MergeTarget, runs: list[Run]) -> None:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(self.origin, "guarded", ())
            real(self, runs)

    monkeypatch.setattr(MergeTarget, "_copy_back", copy_back)


@mutation("merge: a flush leaves the COW out")
def _(monkeypatch: pytest.MonkeyPatch) -> None:
    real = MergeTarget.__init__

    def init(self: MergeTarget, *args: Any) -> None:
        real(self, *args)
        self.flush_devices = (self._origin_device,)

    monkeypatch.setattr(MergeTarget, "__init__", init)


@mutation("stage: its pages do not wait for the commit")
def _(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Stage.commit

    def commit(self: Stage) -> None:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(self, "_settle", lambda: None)
            real(self)

    monkeypatch.setattr(Stage, "commit", commit)


@mutation("stage: its pages get no exceptions")
def _(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Origin, "allocate_staged", lambda self: None)


@mutation("stage: a flush leaves it out")
def _(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OriginTarget, "settle", lambda self: None)


@mutation("stage of a snapshot: a flush leaves it out")
def _(monkeypatch: pytest.MonkeyPatch) -> None:
    real = SnapshotTarget.settle

    def settle(self: SnapshotTarget) -> None:
        if sys._getframe(1).f_code.co_name != "_drain":
            return
        real(self)

    monkeypatch.setattr(SnapshotTarget, "settle", settle)


@mutation("stage: a new snapshot does not wait for it")
def _(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Origin, "drain", lambda self: True)


def lives(folder: Path, name: str) -> Iterator[Machine]:
    """Of all kinds by turns; where a merge is broken, of those that merge."""
    for number in itertools.count():
        machine = Machine(folder / str(number), effort.rng(name, number))
        kinds = [machine.merge_under_load, machine.live]
        if not name.startswith("merge"):
            kinds += [machine.fill, machine.spread]
        kinds[number % len(kinds)]()
        machine.close()
        yield machine


@pytest.mark.parametrize("name", MUTATIONS)
def test_it_is_seen(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    MUTATIONS[name](monkeypatch)
    images = 0
    try:
        for machine in lives(tmp_path, name):
            choose = effort.rng(name, images)
            cursor = machine.cursor()
            for moment in sorted(choose.choices(machine.moments(), k=30)):
                images += 1
                machine.check_moment(cursor, moment, choose)
            assert images < MOST, f"{name}: not seen in {images} images"
    except Unsafe:
        effort.tally(f"images until seen: {name}", images)


def commit(store: PersistentStore, runs: list[Run]) -> None:
    store.prepare(np.array(runs))
    store.barrier()
    store.write_records()
    store.barrier()


def stale_records() -> None:
    """A power cut keeps the second block of a metadata area and loses the first; the next commit
    reaches the end of the first. What the second holds must not come back to life."""
    cow, origin = MemoryDevice(20_000 * 512), MemoryDevice(20_000 * 512)
    store = PersistentStore(cow, origin, 16)
    store.open()
    store.load(ExceptionMap(1200))
    commit(store, [Run(old, old + 100, 1) for old in range(250)])
    area = 16 * 512
    before = cow.read(area, area)
    commit(store, [Run(old, old + 100, 1) for old in range(250, 270)])
    cow.write(area, before[:4096])
    for first, count in ((400, 6), (500, 1)):
        again, exceptions = PersistentStore(cow, origin, 16), ExceptionMap(1200)
        again.open()
        again.load(exceptions)
        commit(again, [Run(old, old + 300, 1) for old in range(first, first + count)])
    exceptions = ExceptionMap(1200)
    last = PersistentStore(cow, origin, 16)
    last.open()
    last.load(exceptions)
    found = {chunk for chunk in range(1200) if exceptions.state[chunk]}
    if found != {*range(250), *range(400, 406), 500}:
        raise Unsafe(f"{len(found)} exceptions")


class LastFlush(MemoryDevice):
    """Remembers what it held at the last flush."""

    durable = b""

    def flush(self) -> None:
        self.durable = self.read(0, self.size)


def stale_records_behind_a_sector() -> None:
    """As above, by sectors: the next commit fills a sector to its end, and of what it writes a
    second cut keeps that sector alone."""
    cow, origin = LastFlush(20_000 * 512), MemoryDevice(20_000 * 512)
    area, per_sector = 16 * 512, 512 // 16

    def life(first: int, count: int, kept: Sequence[int]) -> None:
        """A commit, and a cut in which of its last writes only these sectors of the area stay."""
        store = PersistentStore(cow, origin, 16)
        store.open()
        store.load(ExceptionMap(1200))
        durable: list[bytes] = []
        real = cow.flush

        def flush() -> None:
            durable.append(cow.durable)
            real()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cow, "flush", flush)
            commit(store, [Run(old, old + 300, 1) for old in range(first, first + count)])
        after = cow.read(0, cow.size)
        cow.write(0, durable[-1])  # as of the flush before the last
        for sector in kept:
            at = area + sector * 512
            cow.write(at, after[at : at + 512])
        cow.flush()

    life(0, 20, range(16))
    life(20, 60, (1, 2))
    life(100, per_sector - 20, (0,))
    exceptions = ExceptionMap(1200)
    last = PersistentStore(cow, origin, 16)
    last.open()
    last.load(exceptions)
    found = {chunk for chunk in range(1200) if exceptions.state[chunk]}
    if found != {*range(20), *range(100, 112)}:
        raise Unsafe(f"{len(found)} exceptions")


def test_they_are_wiped_before_the_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    real = PersistentStore.prepare

    def prepare(self: PersistentStore, runs: Runs) -> None:
        """The next barrier does nothing."""
        real(self, runs)
        vars(self)["barrier"] = lambda: vars(self).pop("barrier")

    monkeypatch.setattr(PersistentStore, "prepare", prepare)
    with pytest.raises(Unsafe):
        stale_records_behind_a_sector()


@pytest.mark.parametrize("case", [stale_records, stale_records_behind_a_sector])
def test_stale_records_stay_dead(case: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    case()
    _keep_stale_bytes(monkeypatch)
    with pytest.raises(Unsafe):
        case()
