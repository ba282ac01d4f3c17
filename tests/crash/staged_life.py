"""A life of an origin with snapshots over disks that refuse, and what each device must read.

Writes are answered from a stage in memory and reach the disks later (`ulvm.dm.stage`), so a disk
that refuses, or want of memory, comes in the midst of work that was answered long ago. The model
(`Content`) knows of each sector of each device what may be read, and the promises are:

* What was answered is read back by who asks that device, from then on, over suspends, new tables,
  handovers, growth, a merge, kill -9 and a stop of the daemon. A sector of a write that was refused
  holds the old or the new, whole.
* A flush that said OK is on the disks: of all that the device was written before nothing is
  missing if the power goes then, though its disks lose all that they were not flushed for. (Of a
  snapshot: if that of its origin said so too.)
* A snapshot is the origin as of its creation with its own writes, or it is invalid. It turns so for
  a disk that refuses or for want of room alone; then it gives nothing to read, stays invalid over a
  kill, and is marked on its disk when the disk takes that.
* An origin is refused nothing because of its snapshots. A new snapshot of an origin that holds what
  its disk refuses, or a table or a removal that would lose that, is refused or lacks nothing.
* Once the disks take everything again nothing stays refused: what was suspended resumes, what was
  staged gets there, a merge that failed goes on to its end.
* Nothing hangs, and only errors of our own come out.

Nothing runs by itself here: the stages' threads and a merge's worker are taken a step at a time,
so that a life is the same each time it is lived (`by_hand`).
"""

from __future__ import annotations

import gc
import itertools
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from tests.crash.engine import SECTOR, Tokens, Unsafe, content_of, room, tokens_of
from tests.crash.staged_model import Content, Disk, DiskLab, Snapshot, one_batch
from tests.unit.dm.lab import header
from tests.unit.dm.stage_lab import BIG, SMALL, StageLab, killed
from ulvm.blockdev.faults import FaultDevice, Kind
from ulvm.dm.device import MappedDevice
from ulvm.dm.stage_file import PAGE
from ulvm.dm.table import parse_table
from ulvm.dm.targets.merge import MergeTarget
from ulvm.errors import UlvmError

__all__ = ["STEPS", "Life"]

MOST = 1200
"""Sectors of the origin's disk."""
LENGTHS = (250, 256, 300, 512, 513)
STAGES = (SMALL, 32 * PAGE, 64 * PAGE, 256 * PAGE, BIG)
CHUNKS = (1, 2, 4, 8, 8, 16, 32, 64)
COWS = (400, 2000, 6000, 6000)
SNAPSHOTS = 3

STEPS = {
    "write_origin": 20.0,
    "write_snapshot": 14.0,
    "write_pieces": 4.0,
    "read": 20.0,
    "flush": 8.0,
    "settle": 4.0,
    "disk_refuses": 4.0,
    "heal": 2.0,
    "look_at_all": 2.0,
    "compare": 2.0,
    "suspend": 2.0,
    "reload": 3.0,
    "grow": 1.2,
    "add": 3.0,
    "remove": 1.5,
    "be_plain": 1.0,
    "merge": 2.0,
    "kill": 2.0,
    "stop": 1.0,
    "cut": 2.0,
}


@dataclass
class Life:
    """Of `real`, a part of a disk, `org` over it, and snapshots. `lives` steps and says what it did
    when something is not as promised."""

    folder: Path
    choose: random.Random
    refuse: bool = True
    """Disks do, now and then."""
    refusing: set[str] = field(default_factory=set)
    """Those that may have since all was well, and "memory" where that may be wanting."""
    snapshots: dict[str, Snapshot] = field(default_factory=dict)
    merging: Snapshot | None = None
    merged_cow: str = ""
    steps: dict[str, float] = field(default_factory=STEPS.copy)
    """Their weights."""
    expected: tuple[type[BaseException], ...] = (UlvmError,)
    """What a device may answer."""
    trail: list[str] = field(default_factory=list)
    reasons: set[str] = field(default_factory=set)
    """To turn invalid since it was looked which have: disks that refused something, "memory"."""

    def __post_init__(self) -> None:
        self._tokens = itertools.count(MOST + 1)
        self._numbers = itertools.count(1)
        self._folders = itertools.count(1)
        self._failed: dict[FaultDevice, int] = {}
        self.size = self.choose.choice(STAGES)
        self.sectors = self.choose.choice(LENGTHS)
        self.lab: StageLab = DiskLab(self._made(self._new_folder()), self.size, kept=True)
        self.lab.file("origin", MOST)
        start = np.arange(1, MOST + 1, dtype="<u8")
        (self.lab.folder / "origin").write_bytes(content_of(start))
        self.origin = Content(start)
        """Of the whole disk: what a longer table shows."""
        self.plain = False
        """`org` is linear, as it has no snapshots."""
        self.lab.device("real", self._table("real"))
        self.add()
        self.lab.device("org", self._table("org"))

    def _new_folder(self) -> Path:
        return self.folder / f"k{next(self._folders)}"

    @staticmethod
    def _made(folder: Path) -> Path:
        folder.mkdir(parents=True)
        return folder

    # -- the devices --------------------------------------------------------------------------

    def _table(self, name: str, lab: StageLab | None = None) -> str:
        folder = (lab or self.lab).folder
        if name == "real":
            return f"0 {self.sectors} linear {folder}/origin 0"
        if name == "org" and self.merging is not None:
            return self._snapshot_table("snapshot-merge", self.merged_cow, self.merging, folder)
        if name == "org":
            kind = "linear real 0" if self.plain else "snapshot-origin real"
            return f"0 {self.sectors} {kind}"
        return self._snapshot_table("snapshot", name, self.snapshots[name], folder)

    def _snapshot_table(self, kind: str, name: str, snap: Snapshot, folder: Path) -> str:
        return f"0 {self.sectors} {kind} real {folder}/{name}.cow {snap.kind} {snap.chunk}"

    def content(self, name: str) -> Content:
        return self.origin if name == "org" else self.snapshots[name].content

    def alive(self) -> list[str]:
        return [name for name, snap in self.snapshots.items() if not snap.dead]

    def anyone(self) -> str:
        """The origin as often as all its snapshots."""
        alive = self.alive()
        return self.choose.choice(alive) if alive and self.choose.random() < 0.5 else "org"

    def device(self, name: str) -> MappedDevice:
        return self.lab.dm.mapped(name)

    def disk(self, name: str) -> Disk:
        found = self.lab.faults[name]
        assert isinstance(found, Disk)
        return found

    def disks(self) -> list[str]:
        cows = [*self.snapshots, *([self.merged_cow] if self.merging else [])]
        return ["origin", *(f"{cow}.cow" for cow in cows)]

    def needs(self, name: str, sector: int, count: int) -> None:
        """Chunks that a write gives an exception if they have none."""
        for snap in self.snapshots.values() if name == "org" else (self.snapshots[name],):
            snap.taken.update(snap.chunks(sector, count))

    def count_the_failed(self) -> None:
        """Disks that have refused something are a reason to turn invalid."""
        for name, disk in self.lab.faults.items():
            if disk.failed > self._failed.get(disk, 0):
                self._failed[disk] = disk.failed
                self.reasons.add(name)

    # -- asking -------------------------------------------------------------------------------

    def ask(self, name: str, what: str, act: Callable[[], object]) -> bool:
        """Whether it was done. Unsafe if it was refused and nothing is a reason for that."""
        self.trail.append(f"{name}: {what}")
        try:
            act()
        except self.expected as error:
            self.trail.append(f"    {error!r}")
            if not self.refusing & self.below(name) and not self.out_of_room(name):
                raise Unsafe(f"{what} of {name} was refused, and by no disk: {error!r}") from error
            return False
        return True

    def below(self, name: str) -> set[str]:
        """What may be the reason that something is refused to this device: of an origin none of its
        snapshots, but that which it merges."""
        found = {"memory", "origin"}
        if name in self.snapshots:
            found.add(f"{name}.cow")
        if self.merging is not None:
            found.add(f"{self.merged_cow}.cow")
        return found

    def out_of_room(self, name: str) -> bool:
        snap = self.snapshots.get(name)
        return snap is not None and (snap.dead or self.lab.status(name) in ("Invalid", "Overflow"))

    def somewhere(self) -> tuple[int, int]:
        """A sector and how many."""
        choose, end = self.choose, self.sectors
        edges = (0, end - 1, end & -8, max(0, (end & -8) - 3))
        sector = choose.randrange(end) if choose.random() < 0.7 else choose.choice(edges) % end
        if choose.random() < 0.4:
            sector &= -8
        return sector, min(choose.choice((1, 1, 2, 7, 8, 8, 9, 16, 40, 100)), end - sector)

    def new_tokens(self, count: int) -> Tokens:
        return np.array(list(itertools.islice(self._tokens, count)), dtype="<u8")

    def _write(self, name: str) -> None:
        sector, count = self.somewhere()
        tokens, fua = self.new_tokens(count), self.choose.random() < 0.15
        content = self.content(name)
        self.needs(name, sector, count)
        what = f"write of {tokens[0]}.. to {sector}+{count}{' FUA' if fua else ''}"
        data = content_of(tokens)
        if self.ask(name, what, lambda: self.device(name).write(sector * SECTOR, data, fua=fua)):
            content.written(sector, tokens)
        else:
            content.refused(sector, tokens)

    def _verify(self, name: str, sector: int, count: int) -> None:
        found = bytearray()

        def read() -> None:
            found.extend(self.device(name).read(sector * SECTOR, count * SECTOR))

        if self.ask(name, f"read of {sector}+{count}", read):
            self.content(name).check(name, sector, tokens_of(bytes(found), name))

    def _flush(self, name: str) -> bool:
        if not self.ask(name, "flush", lambda: self.device(name).flush()):
            return False
        if name == "org" and self.merging is None:
            held = bytes(self.disk("origin").durable[: self.sectors * SECTOR])
            self.origin.check("the disk after a flush", 0, tokens_of(held, "the disk"))
        return True

    # -- steps that change nothing --------------------------------------------------------------

    def read(self) -> None:
        self._verify(self.anyone(), *self.somewhere())

    def look_at_all(self) -> None:
        for name in ("org", *self.alive()):
            self._verify(name, 0, self.sectors)

    def flush(self) -> None:
        self._flush(self.anyone())

    def settle(self) -> None:
        """As a stage's thread does in time."""
        name = self.anyone()
        self.ask(name, "settle", lambda: self.device(name).settle())

    def compare(self) -> None:
        """Who asks what changed since a snapshot is told of all that differs."""
        for name in self.alive() if self.merging is None else ():
            same: list[tuple[int, int]] = []

            def look(name: str = name, same: list[tuple[int, int]] = same) -> None:
                for run in self.device(name).changed(0, self.sectors * SECTOR) or ():
                    if not run.changed:
                        same.append((run.offset // SECTOR, run.length // SECTOR))

            if self.ask(name, "what has changed", look):
                mine = self.content(name)
                for sector, count in same:
                    for at in range(sector, sector + count):
                        known = not (mine.others.get(at) or self.origin.others.get(at))
                        if known and mine.newest[at] != self.origin.newest[at]:
                            raise Unsafe(f"{name}: sector {at} differs from the origin's")

    # -- steps that write -----------------------------------------------------------------------

    def write_origin(self) -> None:
        self._write("org")

    def write_snapshot(self) -> None:
        alive = self.alive()
        if alive:
            self._write(self.choose.choice(alive))

    def write_pieces(self) -> None:
        """Several in one call, of which some may overlap."""
        name = self.anyone()
        places = [self.somewhere() for _ in range(self.choose.randrange(2, 6))]
        pieces = [(sector, self.new_tokens(count)) for sector, count in places]
        content = self.content(name)
        for place in places:
            self.needs(name, *place)
        data = [(sector * SECTOR, memoryview(content_of(tokens))) for sector, tokens in pieces]
        if self.ask(name, f"writes to {places}", lambda: self.device(name).write_each(data)):
            for sector, tokens in pieces:
                content.written(sector, tokens)
        else:
            for sector, tokens in pieces:
                content.refused(sector, tokens)

    # -- disks --------------------------------------------------------------------------------

    def disk_refuses(self) -> None:
        if not self.refuse:
            return
        kind: Kind = self.choose.choice(("read", "write", "write", "flush"))
        nth, times = self.choose.randrange(1, 4), self.choose.choice((1, 2, 30, 1000))
        name = self.choose.choice(self.disks())
        self.trail.append(f"{name} refuses {kind} {nth}, {times} times")
        self.disk(name).fail_nth(kind, nth, times=times)
        self.refusing.add(name)

    def heal(self) -> None:
        """All disks take everything again; so what was answered gets to them."""
        if not self.refusing:
            return
        self.trail.append("heal")
        for disk in self.lab.faults.values():
            disk.clear()
        self.refusing.clear()
        self.open_all()
        for name in ("org", *self.alive()):
            self._flush(name)

    def open_all(self) -> None:
        if self.merging is not None:  # One that failed goes on behind that.
            self.lab.dm.suspend("org")
        for name in ("real", *self.snapshots, "org"):
            device = self.lab.dm.mapped_by_name(name)
            if device is not None and device.suspended:
                self.ask(name, "resume", lambda name=name: self.lab.dm.resume(name))

    # -- tables -------------------------------------------------------------------------------

    def change(self, name: str, what: str, act: Callable[[], object]) -> bool:
        """A change of devices, which leaves them suspended if it is refused: then all is healed."""
        done = self.ask(name, what, act)
        if not done:
            self.heal()
            self.open_all()
        return done

    def suspend(self) -> None:
        name = self.choose.choice(["org", "real", *self.snapshots])

        def around() -> None:
            self.lab.dm.suspend(name)
            self.lab.dm.resume(name)

        self.change(name, "suspend and resume", around)

    def reload(self) -> None:
        """Of a snapshot: it takes itself over."""
        name = self.anyone()
        if name != "org" or self.merging is None:
            self.change(name, "new table", lambda: self.lab.reload(name, self._table(name)))

    def grow(self) -> None:
        """Origin and snapshots; snapshots show the longer origin there."""
        if self.merging is not None or self.refusing or self.sectors == MOST:
            return
        self.bury_all()
        old, names = self.sectors, list(self.snapshots)
        self.sectors = min(MOST, old + self.choose.choice((1, 3, 8, 16, 50)))
        self.trail.append(f"grow to {self.sectors}")
        dm = self.lab.dm
        for name in ("org", *names, "real"):
            dm.load(name, parse_table(self._table(name)))
        for name in ("org", *names, "real"):
            dm.suspend(name)
        for name in ("real", *names, "org"):
            dm.resume(name)
        for name in names:
            self._fill_last_chunk(name, old)

    def _fill_last_chunk(self, name: str, old: int) -> None:
        """Behind the old end a chunk that was cut short there holds what its COW did."""
        snap = self.snapshots[name]
        snap.content.grown(self.origin)
        end = min(-(-old // snap.chunk) * snap.chunk, self.sectors)
        if end > old and self.lab.status(name) != "Invalid":
            tokens = self.new_tokens(end - old)
            data = content_of(tokens)
            self.needs(name, old, end - old)
            write = partial(self.device(name).write, old * SECTOR, data)
            if self.ask(name, "write behind the end", write):
                snap.content.written(old, tokens)
            else:
                self.lab.dm.remove(name)
                del self.snapshots[name]

    def add(self) -> None:
        """A new snapshot, whether its origin is suspended around that or not."""
        if len(self.snapshots) >= SNAPSHOTS or self.merging is not None:
            return
        choose, dm = self.choose, self.lab.dm
        name = f"s{next(self._numbers)}"
        snap = Snapshot(choose.choice(CHUNKS), choose.choice(("P", "PO")), self.origin.copy())
        cow_sectors = choose.choice(COWS)
        snap.room = room(cow_sectors, snap.chunk)
        self.lab.file(f"{name}.cow", cow_sectors)
        there = dm.mapped_by_name("org") is not None
        around = there and choose.random() < 0.7

        def act() -> None:
            if self.plain:
                self.lab.reload("org", f"0 {self.sectors} snapshot-origin real")
                self.plain = False
            if around:
                dm.suspend("org")
            table = self._snapshot_table("snapshot", name, snap, self.lab.folder)
            self.lab.device(name, table)
            self.snapshots[name] = snap
            if around:
                dm.resume("org")

        if self.change(name, f"new snapshot {snap.kind} {snap.chunk}", act):
            self._verify(name, 0, self.sectors)

    def remove(self) -> None:
        if self.snapshots:
            self._remove(self.choose.choice(list(self.snapshots)))

    def _remove(self, name: str) -> bool:
        dm = self.lab.dm
        around = self.choose.random() < 0.5

        def act() -> None:
            if around:
                dm.suspend("org")
            dm.remove(name)
            dead = self.snapshots.pop(name).dead
            if dead and not self.refusing and header(f"{self.lab.folder}/{name}.cow")[1]:
                raise Unsafe(f"{name} is invalid, and valid on its disk")
            if around:
                dm.resume("org")

        return self.change(name, "removal", act)

    def be_plain(self) -> None:
        """An origin without snapshots is an ordinary volume again."""
        if self.merging is not None or self.plain:
            return
        while self.snapshots:
            if not self._remove(next(iter(self.snapshots))):
                return
        table = f"0 {self.sectors} linear real 0"
        self.plain = self.change("org", "linear", lambda: self.lab.reload("org", table))

    # -- merges -------------------------------------------------------------------------------

    def merge(self) -> None:
        """From its begin on the origin is what the snapshot was."""
        if self.merging is not None or self.refusing:
            return
        self.bury_all()
        names = [s for s in self.alive() if self.lab.status(s) != "Overflow"]
        if not names:
            return
        dm, name = self.lab.dm, self.choose.choice(names)
        snap = self.snapshots[name]
        self.trail.append(f"{name}: merge")
        table = self._snapshot_table("snapshot-merge", name, snap, self.lab.folder)
        dm.load("org", parse_table(table))
        dm.suspend("org")
        dm.suspend(name)
        if self.lab.status(name) == "Invalid":
            dm.clear("org")
            dm.resume(name)
            dm.resume("org")
            return
        dm.resume("org")
        dm.remove(name)
        del self.snapshots[name]
        for chunk in snap.taken:
            self.needs("org", chunk * snap.chunk, snap.chunk)
        behind = self.origin.newest[snap.content.sectors :]
        self.origin = Content(
            np.concatenate((snap.content.newest, behind)),
            snap.content.others,
        )
        self.merging, self.merged_cow = snap, name

    def merge_target(self) -> MergeTarget:
        target = self.device("org").targets[0]
        assert isinstance(target, MergeTarget)
        return target

    def batch(self) -> None:
        """Of the merge under way, as its worker does it."""
        found: list[MergeTarget] = []
        if not self.ask("org", "batch", lambda: found.append(self.merge_target())):
            return
        messages = self.lab.messages
        said = len(messages)
        found[0]._stop.clear()
        one_batch(found[0])
        failed = any("Merge failed" in line for line in messages[said:])
        if failed:
            self.trail.append("    which failed")
            if not self.refusing:
                raise Unsafe(f"the merge failed: {messages[-1]}")

    def end_merge(self) -> None:
        """Behind the last batch; one that failed goes on when the device was suspended."""
        target = self.merge_target()
        used, _, metadata = target.snapshot.store.usage()
        if used == metadata:
            merging, self.merging = self.merging, None
            if not self.change("org", "origin", lambda: self.lab.reload("org", self._table("org"))):
                self.merging = merging
        elif target.snapshot.merge_failed:
            self.heal()

    # -- the end of a process, and of the power -------------------------------------------------

    def kill(self) -> None:
        """Disks that refused stand for a cable that is plugged in again meanwhile."""
        self._restart("kill -9", stopped=False)

    def stop(self) -> None:
        """What no disk takes is left to the next process."""
        self._restart("stop", stopped=True)

    def _restart(self, what: str, *, stopped: bool) -> None:
        self.trail.append(what)
        old = self.lab
        old.stages.mkdir(exist_ok=True)
        lab = killed(old, self._new_folder(), self.size, stopped=stopped)
        self.count_the_failed()
        self.lab = lab
        self.lab.messages[:0] = old.messages
        for disk in old.faults.values():
            disk.inner.close()
        shutil.rmtree(old.folder)
        self.refusing.clear()

    def cut(self) -> None:
        """Of devices whose flush said OK a power cut takes nothing; invalid ones stay so."""
        self.trail.append("power cut")
        flushed = [name for name in ("org", *self.alive()) if self._flush(name)]
        if "org" not in flushed:  # What a snapshot has of it is no more durable than it is there.
            flushed = []
        flushed = [name for name in flushed if name == "org" or not self._turned_invalid(name)]
        after = DiskLab(self._made(self._new_folder()), 0)
        for name in self.disks():
            (after.folder / name).write_bytes(self.disk(name).durable)
        for name in ("real", *self.snapshots, "org"):
            after.device(name, self._table(name, after))
        for name in flushed:
            found = after.read(name, 0, self.sectors)
            self.content(name).check(f"{name} after a cut", 0, tokens_of(found, name))
        for name, snap in self.snapshots.items():
            if snap.marked and after.status(name) != "Invalid":
                raise Unsafe(f"{name} is valid again after a power cut")
        after.dm.shutdown()
        shutil.rmtree(after.folder)

    # -- living -------------------------------------------------------------------------------

    def _turned_invalid(self, name: str) -> bool:
        return self.lab.status(name) == "Invalid"

    def count_the_dead(self) -> None:
        self.count_the_failed()
        reasons, self.reasons = self.reasons, set()
        mine = {"memory", "origin", f"{self.merged_cow}.cow"}
        for name, snap in self.snapshots.items():
            invalid = self._turned_invalid(name)
            if snap.dead and not invalid:
                raise Unsafe(f"{name} was invalid and is not")
            if invalid and not snap.dead:
                snap.dead = True
                if len(snap.taken) <= snap.room and not reasons & {*mine, f"{name}.cow"}:
                    raise Unsafe(f"{name} turned invalid, and had room: {self.lab.messages[-1:]}")
                said = [line for line in self.lab.messages if line.startswith(f"{name}:")]
                snap.marked = not any("still looks valid on disk" in line for line in said)
                self.trail.append(f"{name} is invalid: {self.lab.messages[-1:]}")

    def bury_all(self) -> None:
        self.count_the_dead()
        for name in [name for name, snap in self.snapshots.items() if snap.dead]:
            self._remove(name)

    def pick(self) -> str:
        """The name of the next step."""
        self.count_the_dead()
        if self.choose.random() < 0.3:
            self.bury_all()
        if self.merging is not None and self.choose.random() < 0.4:
            return self.choose.choice(("batch", "batch", "end_merge"))
        return self.choose.choices([*self.steps], [*self.steps.values()])[0]

    def take(self, step: str) -> None:
        getattr(self, step)()

    def end(self) -> None:
        """All that is left must get to its place."""
        self.refusing.add("memory")
        self.heal()
        self.look_at_all()
        while self.merging is not None:
            self.batch()
            self.end_merge()
        self.look_at_all()
        self.cut()

    def close(self) -> None:
        self.lab.dm.shutdown()
        shutil.rmtree(self.folder)
        gc.collect()  # Mappers that were killed hold maps of their own.
