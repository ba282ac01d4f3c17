"""A dm machine on recorded disks, its random life, and what each of its devices may hold.

The disks (an origin and COW devices) remember every write, discard and flush. Each sector that a
life writes holds a token, a number of its own, 64 times over, so that a torn, lost or misplaced
sector shows. The model is a log of what was asked when: `Cursor` walks along it and knows for any
moment which tokens a sector of each device may hold if the power goes then:

* the newest that was durable by a flush or FUA, or anything written later;
* of a snapshot the same with its own writes, on top of what the origin held at its creation;
* a snapshot that ran out of room is invalid from then on, and shows nothing. It turns so for that
  alone: not before more chunks were written, in it or in its origin, than its COW has room for.

`Machine.check_moment` starts another machine on what the disks may hold at a moment.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ulvm.blockdev.base import BlockDevice, Buffer
from ulvm.blockdev.faults import FaultDevice, PowerCut
from ulvm.blockdev.memory import MemoryDevice
from ulvm.dm.mapper import LocalMapper
from ulvm.dm.stage_file import StageSettings
from ulvm.dm.table import parse_table
from ulvm.errors import DeviceError, UlvmError

__all__ = ["Config", "Cursor", "Machine", "Snap", "Unsafe", "room"]

SECTOR = 512
SECTORS = 392
"""Of the origin: whole pages, and not a multiple of the larger chunks."""
COW_SECTORS = 1400
COWS = 4
STAGES = (0, 16 << 12, 1 << 20)
"""Bytes: none, one that is full all the time, one that never is."""

Tokens = npt.NDArray[np.uint64]


class Disk(FaultDevice):
    """In memory; `pause` seconds before each write let another thread go on."""

    pause = 0.0

    def _write(self, offset: int, data: Buffer, *, fua: bool) -> None:
        if self.pause:
            time.sleep(self.pause)
        super()._write(offset, data, fua=fua)


class Unsafe(AssertionError):
    """A promise was broken at a power cut."""


def content_of(tokens: Tokens) -> bytes:
    return np.repeat(tokens, SECTOR // 8).tobytes()


def tokens_of(data: bytes, what: str) -> Tokens:
    rows = np.frombuffer(data, dtype="<u8").reshape(-1, SECTOR // 8)
    if not (rows == rows[:, :1]).all():
        raise Unsafe(f"{what}: a sector is torn or holds records of a store")
    return rows[:, 0].copy()


def room(cow_sectors: int, chunk: int) -> int:
    """How many exceptions a COW has room for (drivers/md/dm-snap-persistent.c): a header, then
    metadata areas of a chunk, each followed by the chunks that it has records for."""
    behind_header = cow_sectors // chunk - 1
    a_round = chunk * SECTOR // 16 + 1
    rounds, rest = divmod(behind_header, a_round)
    return rounds * (a_round - 1) + max(0, rest - 1)


# -- the log and the model ------------------------------------------------------------------------


@dataclass(frozen=True)
class Snap:
    """A snapshot as the metadata of a volume group would have it; `cow_sectors` of COW `cow`."""

    name: str
    cow: int
    cow_sectors: int
    kind: str
    chunk: int
    merging: bool = False

    def chunks(self, sector: int, count: int) -> range:
        return range(sector // self.chunk, (sector + count - 1) // self.chunk + 1)

    def fits(self, chunks: set[int]) -> bool:
        return len(chunks) <= room(self.cow_sectors, self.chunk)


Config = tuple[Snap, ...]


@dataclass(frozen=True)
class Entry:
    """Something of the life at a time of the disks' clock."""

    time: int
    kind: str
    device: str = ""
    operation: int = 0
    sector: int = 0
    tokens: tuple[int, ...] = ()
    source: str = ""
    config: Config = ()


class View:
    """Of each sector the tokens that a device may hold, the newest last."""

    def __init__(self, versions: list[list[int]], base: bool) -> None:
        self.versions = versions
        # How many of the versions are the origin's of before the snapshot was made.
        self.base = [len(v) if base else 0 for v in versions]
        self.writes: dict[int, tuple[int, tuple[int, ...]]] = {}

    def begin(self, operation: int, sector: int, tokens: tuple[int, ...]) -> None:
        for n, token in enumerate(tokens):
            self.versions[sector + n].append(token)
        self.writes[operation] = (sector, tokens)

    def durable(self, operations: list[int]) -> None:
        """These writes are on the disk: what is older than them is not."""
        for operation in operations:
            sector, tokens = self.writes.pop(operation, (0, ()))
            for n, token in enumerate(tokens):
                versions = self.versions[sector + n]
                if token in versions:
                    at = versions.index(token)
                    del versions[:at]
                    self.base[sector + n] = 0

    def base_durable(self) -> None:
        for n, count in enumerate(self.base):
            if count > 1:
                del self.versions[n][: count - 1]
                self.base[n] = 1


class Cursor:
    """Walks along the log; `to(moment)` gives what is allowed then. Moments ascend."""

    def __init__(self, start: Tokens, log: list[Entry], *, kept: bool = False) -> None:
        """`kept`: nothing that was answered is lost, flushed or not."""
        self.kept = kept
        self.log = sorted(log, key=lambda e: e.time)
        self.views = {"origin": View([[int(t)] for t in start], base=False)}
        self.done: dict[str, list[int]] = {}
        self.flushes: dict[int, tuple[str, list[int]]] = {}
        self.config: Config = ()
        self.dying: set[str] = set()
        self.dead: set[str] = set()
        self._at = 0

    def to(self, moment: int) -> None:
        while self._at < len(self.log) and self.log[self._at].time < moment:
            self._take(self.log[self._at])
            self._at += 1

    def _take(self, entry: Entry) -> None:
        device = entry.device
        match entry.kind:
            case "write":
                self.views[device].begin(entry.operation, entry.sector, entry.tokens)
            case "written":
                self.done.setdefault(device, []).append(entry.operation)
                if self.kept:
                    self.views[device].durable([entry.operation])
            case "fua":
                self.views[device].durable([entry.operation])
            case "flush":
                self.flushes[entry.operation] = (device, list(self.done.get(device, ())))
            case "flushed":
                where, operations = self.flushes.pop(entry.operation)
                if where in self.views:
                    self.views[where].durable(operations)
                if where == "origin":  # Itself too, if it is what a snapshot was.
                    for view in self.views.values():
                        view.base_durable()
                gone = set(operations)
                self.done[where] = [o for o in self.done.get(where, ()) if o not in gone]
            case "snapshot":
                origin = self.views["origin"].versions
                self.views[device] = View([list(v) for v in origin], base=True)
            case "merge":
                # The origin is from now on what the snapshot is.
                self.views["origin"] = self.views.pop(device)
                self.done["origin"] = self.done.pop(device, [])
            case "removed":
                self.views.pop(device, None)
            case "dying":
                self.dying.add(device)
            case "dead":
                self.dead.add(device)
            case "config":
                self.config = entry.config

    def check_newest(self, device: str, found: Tokens) -> None:
        """What is read while all goes well: of each sector the newest that was answered, or what
        was refused since."""
        view = self.views[device]
        answered = set(self.done.get(device, ()))
        refused = {
            token
            for operation, (_, tokens) in view.writes.items()
            if operation not in answered
            for token in tokens
        }
        for sector, (token, versions) in enumerate(zip(found.tolist(), view.versions, strict=True)):
            may: list[int] = []
            for version in reversed(versions):
                may.append(version)
                if version not in refused:
                    break
            if token not in may:
                raise Unsafe(f"{device}: sector {sector} holds {token}, and not {may}")

    def check(self, device: str, found: Tokens) -> None:
        for sector, (token, versions) in enumerate(
            zip(found.tolist(), self.views[device].versions, strict=True)
        ):
            if token not in versions:
                raise Unsafe(f"{device}: sector {sector} holds {token}, not one of {versions[-6:]}")


# -- the machine ----------------------------------------------------------------------------------


def start_mapper(
    folder: Path,
    devices: dict[str, BlockDevice],
    durability: str,
    log: Callable[[str], None] = lambda text: None,
    stage: int = 0,
) -> LocalMapper:
    """A mapper whose files are these devices; the paths only give them an identity. `stage` in
    bytes."""
    for name in devices:
        (folder / name).touch()
    return LocalMapper(
        open_file=lambda path, writable: devices[Path(path).name],
        durability=durability,
        log=log,
        stage=StageSettings(stage),
    )


def activate(mapper: LocalMapper, name: str, line: str) -> None:
    mapper.create(name)
    mapper.load(name, parse_table(line))
    mapper.resume(name)


@dataclass
class Machine:
    """One life: `steps` of `random_step`, or calls of the single ones."""

    folder: Path
    choose: random.Random
    durability: str = "host"
    log: list[Entry] = field(default_factory=list)
    config: Config = ()
    merging: Snap | None = None
    merge_began: int | None = None
    stage: int | None = None
    """In bytes; None for any. What is in it outlives a kill -9 by a file, which the images of one
    do not hold, so that lives of durability "process" have none."""
    dead: set[str] = field(default_factory=set)
    taken: dict[str, set[int]] = field(default_factory=dict)
    """Of each snapshot the chunks that may have got an exception so far."""

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        self._tokens = itertools.count(1)
        self._operations = itertools.count(1)
        self._names = itertools.count(1)
        self._lock = threading.Lock()
        self.start = self.new_tokens(SECTORS)
        self.disks = {"origin": Disk(MemoryDevice(content_of(self.start)))}
        for n in range(COWS):
            # As lvcreate leaves it: the first 4 KiB wiped, the rest an old snapshot's.
            self.disks[f"cow{n}"] = Disk(MemoryDevice(bytes(4096) + self._old_records()[4096:]))
        self.said: list[str] = []
        """The mapper's log."""
        if self.durability == "host" and self.stage is None:
            self.stage = self.choose.choice(STAGES)
        self.mapper = start_mapper(
            self.folder, dict(self.disks), self.durability, self.said.append, self.stage or 0
        )
        self.records: dict[str, PowerCut] = {n: d.record() for n, d in self.disks.items()}
        activate(self.mapper, "org", self._origin_line())

    def _old_records(self) -> bytes:
        """A COW device full of records that would count if they were not cleared."""
        dice = np.random.default_rng(self.choose.randrange(1 << 32))
        records = np.empty((COW_SECTORS * SECTOR // 16, 2), dtype="<u8")
        records[:, 0] = dice.integers(0, SECTORS, len(records))
        records[:, 1] = dice.integers(2, 60, len(records))
        return records.tobytes()

    def look_at_all(self) -> None:
        """What is there holds the newest that it was given."""
        cursor = self.cursor()
        cursor.to(self.now())
        plain = [s.name for s in self.config if not s.merging]
        for name in ("origin", *(n for n in plain if self._valid(n))):
            mapped = self.mapper.mapped("org" if name == "origin" else name)
            try:
                found = tokens_of(mapped.read(0, SECTORS * SECTOR), name)
            except DeviceError:
                if name == "origin" or self._valid(name):
                    raise
                continue  # The merge has filled it.
            cursor.check_newest(name, found)

    def close(self) -> None:
        """The end of the life; a merge stops in the midst of it."""
        if self.merging is not None:
            with self.watched():
                self.mapper.suspend("org")
        self.mapper.shutdown()

    # -- the log ------------------------------------------------------------------------------

    def now(self) -> int:
        """A time after all that the disks have seen; each call another one."""
        return PowerCut.now()

    def note(self, kind: str, **values: object) -> None:
        entry = Entry(self.now(), kind, **values)  # type: ignore[arg-type]
        with self._lock:
            self.log.append(entry)

    def new_tokens(self, count: int) -> Tokens:
        with self._lock:
            return np.array([next(self._tokens) for _ in range(count)], dtype="<u8")

    def operation(self) -> int:
        with self._lock:
            return next(self._operations)

    def take(self, device: str, sector: int, count: int) -> None:
        """Chunks that a write gives an exception if they have none."""
        with self._lock:
            for snap in self.config:
                if not snap.merging and device in ("origin", snap.name):
                    self.taken.setdefault(snap.name, set()).update(snap.chunks(sector, count))

    # -- tables -------------------------------------------------------------------------------

    def _origin_line(self) -> str:
        return f"0 {SECTORS} snapshot-origin {self.folder}/origin"

    def _snap_line(self, mapper: LocalMapper, snap: Snap) -> str:
        cow = mapper.mapped(f"c-{snap.name}").number
        kind = "snapshot-merge" if snap.merging else "snapshot"
        return f"0 {SECTORS} {kind} {self.folder}/origin {cow} {snap.kind} {snap.chunk}"

    def _cow_line(self, snap: Snap) -> str:
        return f"0 {snap.cow_sectors} linear {self.folder}/cow{snap.cow} 0"

    def _commit(self, config: Config) -> None:
        """Where a volume group would commit its metadata: between suspend and resume."""
        self.config = config
        self.note("config", config=config)

    # -- steps --------------------------------------------------------------------------------

    def write(self, device: str, sector: int, count: int, *, fua: bool = False) -> bool:
        """To "origin" or a snapshot. False if it was refused for want of room."""
        tokens, operation = self.new_tokens(count), self.operation()
        self.note(
            "write",
            device=device,
            operation=operation,
            sector=sector,
            tokens=tuple(tokens.tolist()),
        )
        self.take(device, sector, count)
        mapped = self.mapper.mapped("org" if device == "origin" else device)
        try:
            mapped.write(sector * SECTOR, content_of(tokens), fua=fua)
        except DeviceError:
            if device == "origin":
                raise
            return False
        self.note("written", device=device, operation=operation)
        if fua:
            self.note("fua", device=device, operation=operation)
        return True

    def zero(self, sector: int, count: int) -> None:
        operation = self.operation()
        self.note("write", device="origin", operation=operation, sector=sector, tokens=(0,) * count)
        self.take("origin", sector, count)
        self.mapper.mapped("org").write_zeroes(sector * SECTOR, count * SECTOR)
        self.note("written", device="origin", operation=operation)

    def flush(self, device: str) -> None:
        operation = self.operation()
        self.note("flush", device=device, operation=operation)
        self.mapper.mapped("org" if device == "origin" else device).flush()
        self.note("flushed", device=device, operation=operation)

    def snapshot(self, kind: str, chunk: int, cow_sectors: int) -> Snap:
        """In activation's order: load (which writes the new store), suspend, commit, resume."""
        used = {snap.cow for snap in self.config}
        snap = Snap(
            f"s{next(self._names)}",
            next(n for n in range(COWS) if n not in used),
            cow_sectors,
            kind,
            chunk,
        )
        # The old store, if there is one, was wiped by lvcreate, durably.
        cow = self.disks[f"cow{snap.cow}"]
        cow.write(0, bytes(4096))
        cow.flush()
        activate(self.mapper, f"c-{snap.name}", self._cow_line(snap))
        self.mapper.create(snap.name)
        self.mapper.load(snap.name, parse_table(self._snap_line(self.mapper, snap)))
        self.mapper.suspend("org")
        self.note("snapshot", device=snap.name)
        self._commit((*self.config, snap))
        self.mapper.resume(snap.name)
        self.mapper.resume("org")
        return snap

    def grow(self, snap: Snap, more: int) -> Snap:
        """The COW, in use: the snapshot takes itself over on the longer device."""
        grown = Snap(snap.name, snap.cow, snap.cow_sectors + more, snap.kind, snap.chunk)
        for name, line in (
            (f"c-{snap.name}", self._cow_line(grown)),
            (snap.name, self._snap_line(self.mapper, grown)),
        ):
            self.mapper.load(name, parse_table(line))
        for name in ("org", snap.name, f"c-{snap.name}"):
            self.mapper.suspend(name)
        self._commit(tuple(grown if s == snap else s for s in self.config))
        for name in (f"c-{snap.name}", snap.name, "org"):
            self.mapper.resume(name)
        return grown

    def remove(self, snap: Snap) -> None:
        self.mapper.suspend("org")
        self._commit(tuple(s for s in self.config if s != snap))
        self.note("removed", device=snap.name)
        self.mapper.remove(snap.name)
        self.mapper.remove(f"c-{snap.name}")
        self.mapper.resume("org")

    def merge(self, snap: Snap) -> None:
        """Begin to merge: from the commit on the origin is what the snapshot was."""
        merging = Snap(snap.name, snap.cow, snap.cow_sectors, snap.kind, snap.chunk, merging=True)
        self.mapper.load("org", parse_table(self._snap_line(self.mapper, merging)))
        for name in ("org", snap.name):
            self.mapper.suspend(name)
        self.note("merge", device=snap.name)
        self._commit(tuple(merging if s == snap else s for s in self.config))
        self.merging = merging
        for chunk in self.taken.get(snap.name, ()):
            self.take("origin", chunk * snap.chunk, min(snap.chunk, SECTORS - chunk * snap.chunk))
        self.mapper.resume("org")
        self.mapper.remove(snap.name)

    def finish_merge(self) -> None:
        snap = self.merging
        assert snap is not None
        until(lambda: merged(self.mapper))
        self.mapper.load("org", parse_table(self._origin_line()))
        self.mapper.suspend("org")
        self._commit(tuple(s for s in self.config if s != snap))
        self.merging = None
        self.mapper.resume("org")
        self.mapper.remove(f"c-{snap.name}")

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Snapshots that turn invalid in this step are dying since its begin, dead after it."""
        alive = [s for s in self.config if not s.merging and s.name not in self.dead]
        # A merge fills other snapshots of its origin all the time.
        start = self.now() if self.merge_began is None else self.merge_began
        yield
        if self.merging is not None and self.merge_began is None:
            self.merge_began = start
        for snap in alive:
            name = snap.name
            there = any(s.name == name and not s.merging for s in self.config)
            if there and not self._valid(name):
                if snap.fits(self.taken.get(name, set())):
                    raise Unsafe(f"{name} turned invalid, and had room")
                self.dead.add(name)
                with self._lock:
                    self.log.append(Entry(start, "dying", name))
                self.note("dead", device=name)
        if self.merging is None:
            self.merge_began = None

    def _valid(self, name: str) -> bool:
        return self.mapper.status(name)[0].params != "Invalid"

    def _can_merge(self, name: str) -> bool:
        """As LVM2 sees it: what was refused for want of room is in no snapshot's view for sure."""
        return self.mapper.status(name)[0].params not in ("Invalid", "Overflow")

    def _where(self, largest: int) -> tuple[int, int]:
        count = self.choose.randrange(1, largest)
        return self.choose.randrange(SECTORS - count + 1), count

    def random_step(self) -> None:
        """One step that is possible now."""
        with self.watched():
            self._random_step()

    def _random_step(self) -> None:
        choose = self.choose
        valid = [s for s in self.config if not s.merging and self._valid(s.name)]
        mergeable = [s for s in valid if self._can_merge(s.name)]
        what = choose.random()
        if what < 0.45:
            self.write("origin", *self._where(choose.choice([3, 20, 120])), fua=what < 0.06)
        elif what < 0.50:
            self.zero(*self._where(30))
        elif what < 0.62:
            self.flush("origin")
        elif what < 0.78 and valid:
            snap = choose.choice(valid)
            self.write(snap.name, *self._where(choose.choice([3, 20, 60])), fua=what < 0.64)
        elif what < 0.84 and valid:
            self.flush(choose.choice(valid).name)
        elif what < 0.92 and len(self.config) < COWS and self.merging is None:
            chunk = choose.choice([1, 2, 8, 16, 32])
            room = choose.choice([COW_SECTORS // 2, COW_SECTORS // 6, COW_SECTORS])
            self.snapshot(choose.choice(["P", "PO"]), chunk, max(room, 3 * chunk))
        elif what < 0.95 and valid:
            snap = choose.choice(valid)
            if snap.cow_sectors < COW_SECTORS:
                self.grow(snap, min(200, COW_SECTORS - snap.cow_sectors))
        elif what < 0.965 and self.merging is not None:
            self.finish_merge()
        elif what < 0.985 and mergeable and self.merging is None:
            self.merge(choose.choice(mergeable))
        elif self.config and self.merging is None:
            self.remove(choose.choice(self.config))

    # -- whole lives ------------------------------------------------------------------------

    def live(self) -> None:
        """Steps of all kinds."""
        for _ in range(60):
            self.random_step()

    def fill(self) -> None:
        """Small writes until a COW of small chunks is full: areas fill, the next are zeroed."""
        with self.watched():
            self.snapshot(self.choose.choice(["P", "PO"]), 1, 120)
        for sector in range(0, SECTORS - 8, 5):
            with self.watched():
                self.write("origin", sector, self.choose.randrange(1, 6))

    def spread(self) -> None:
        """Large writes: commits of many records, which a power cut can tear."""
        with self.watched():
            for _ in range(2):
                self.snapshot("P", self.choose.choice([2, 4]), COW_SECTORS)
        for _ in range(12):
            with self.watched():
                device = self.choose.choice(["origin", "origin", "s1", "s2"])
                count = self.choose.randrange(30, 200)
                self.write(device, self.choose.randrange(SECTORS - count + 1), count)

    def merge_under_load(self) -> None:
        """A merge step by step, with writes and flushes of its origin between the steps."""
        snap = self.snapshot("P", 1, COW_SECTORS)
        order = self.choose.sample(range(SECTORS), 150)
        for sector in order:
            self.write(self.choose.choice(["origin", snap.name]), sector, 1)
        with self.watched():
            self.snapshot("P", 8, COW_SECTORS)
        with self.watched():
            self.merge(snap)
        self.disks["origin"].pause = 0.0002
        for _ in range(25):
            # The last records are merged first: chunks that are still in the COW, chunks that
            # were merged just now, and any.
            with self.watched():
                what = self.choose.random()
                if what < 0.4:
                    self.write("origin", self.choose.choice(order[:60]), 1)
                    self.flush("origin")
                elif what < 0.7:
                    self.write("origin", self.choose.choice(order[60:]), 1, fua=True)
                else:
                    self.write("origin", *self._where(6), fua=what < 0.85)
        self.disks["origin"].pause = 0.0
        with self.watched():
            self.finish_merge()

    # -- after the power cut ------------------------------------------------------------------

    def moments(self) -> list[int]:
        """A time after each event of the disks, ascending."""
        times = [t + 1 for record in self.records.values() for t in record.times]
        return sorted({self.log[0].time if self.log else 0, *times})

    def cursor(self) -> Cursor:
        return Cursor(self.start, self.log, kept=self.durability == "process")

    def images(self, moment: int, choose: random.Random) -> dict[str, bytes]:
        """What the disks may hold; of durability "process" after kill -9, which loses nothing."""
        pick = choose if self.durability == "host" else _Newest()
        return {
            name: record.image_at(record.events_until(moment), pick)
            for name, record in self.records.items()
        }

    def check_moment(self, cursor: Cursor, moment: int, choose: random.Random) -> None:
        """Start a machine on an image of this moment. Unsafe if it shows what it must not."""
        cursor.to(moment)
        after = AfterCut(self, cursor, self.images(moment, choose))
        try:
            after.check(choose)
        except UlvmError as error:
            raise Unsafe(f"what is left cannot be used: {error}") from error
        finally:
            after.mapper.shutdown()


class _Newest(random.Random):
    def choice(self, seq):  # type: ignore[no-untyped-def]
        return seq[-1]


class AfterCut:
    """A machine on the images of a power cut."""

    def __init__(self, machine: Machine, cursor: Cursor, images: dict[str, bytes]) -> None:
        self.machine = machine
        self.cursor = cursor
        self.disks = {name: FaultDevice(MemoryDevice(image)) for name, image in images.items()}
        self.mapper = start_mapper(machine.folder, dict(self.disks), machine.durability)
        self.invalid: set[str] = set()
        """Snapshots that were so when they were activated."""
        self.merging = False

    def check(self, choose: random.Random) -> None:
        cursor, mapper = self.cursor, self.mapper
        merging = next((s for s in cursor.config if s.merging), None)
        records = {name: disk.record() for name, disk in self.disks.items()} if merging else {}
        self._activate(mapper)
        found = self._compare()
        if merging is not None:
            until(lambda: merged(mapper))
            self._same(found, "after the merge")
            self._cut_again(records, found, choose)
        elif found.keys() - {"origin"} and choose.random() < 0.5:
            self._live_on(found, choose)

    def _plain(self) -> list[str]:
        return [s.name for s in self.cursor.config if not s.merging]

    def _has_room(self, name: str, *written: tuple[int, int]) -> bool:
        """For all that the life wrote, before and after the cut, and for this."""
        snap = next(s for s in self.cursor.config if s.name == name)
        chunks = (snap.chunks(sector, count) for sector, count in written)
        return snap.fits(self.machine.taken.get(name, set()).union(*chunks))

    def _activate(self, mapper: LocalMapper) -> None:
        merging = None
        self.invalid = set()
        for snap in self.cursor.config:
            activate(mapper, f"c-{snap.name}", self.machine._cow_line(snap))
            if snap.merging:
                merging = snap
                continue
            activate(mapper, snap.name, self.machine._snap_line(mapper, snap))
            if mapper.status(snap.name)[0].params == "Invalid":
                self.invalid.add(snap.name)
        self.merging = merging is not None
        line = self.machine._origin_line()
        if merging is not None:
            line = self.machine._snap_line(mapper, merging)
        activate(mapper, "org", line)

    def _read(self, name: str) -> Tokens:
        device = "org" if name == "origin" else name
        return tokens_of(self.mapper.mapped(device).read(0, SECTORS * SECTOR), name)

    def _compare(self) -> dict[str, Tokens]:
        """What the devices hold, each as the model allows; without the invalid ones."""
        cursor = self.cursor
        found = {"origin": self._read("origin")}
        cursor.check("origin", found["origin"])
        for name in self._plain():
            if name in self.invalid and name not in cursor.dying:
                raise Unsafe(f"{name} is invalid for no reason")
            if name not in self.invalid and name in cursor.dead:
                raise Unsafe(f"{name} ran out of room and is served again as valid")
            try:
                tokens = self._read(name)
            except DeviceError:
                if name not in self.invalid and (not self.merging or self._has_room(name)):
                    raise Unsafe(f"{name} turned invalid by being looked at") from None
                continue  # the merge that goes on has filled it
            if name in self.invalid:
                raise Unsafe(f"{name} is invalid and can be read")
            cursor.check(name, tokens)
            found[name] = tokens
        return found

    def _same(self, found: dict[str, Tokens], when: str, *written: tuple[int, int]) -> None:
        for name, tokens in found.items():
            if name != "origin" and self.mapper.status(name)[0].params == "Invalid":
                if self._has_room(name, *written):
                    raise Unsafe(f"{name} is invalid, and had room for more than it was {when}")
                continue  # it had no room for what the merge or the writes changed
            if not np.array_equal(self._read(name), tokens):
                raise Unsafe(f"{name} is not what it was {when}")

    def _cut_again(
        self, records: dict[str, PowerCut], found: dict[str, Tokens], choose: random.Random
    ) -> None:
        """The merge that went on is cut as well; the next machine ends it."""
        times = sorted(t + 1 for record in records.values() for t in record.times)
        if not times:
            return
        moment = choose.choice(times)
        self.mapper.shutdown()
        pick = choose if self.machine.durability == "host" else _Newest()
        self.disks = {
            name: FaultDevice(MemoryDevice(record.image_at(record.events_until(moment), pick)))
            for name, record in records.items()
        }
        self.mapper = start_mapper(self.machine.folder, dict(self.disks), self.machine.durability)
        self._activate(self.mapper)
        self._same(found, "before the second cut")
        until(lambda: merged(self.mapper))
        self._same(found, "before the second cut, merged")

    def _live_on(self, found: dict[str, Tokens], choose: random.Random) -> None:
        """Writes to the origin leave the snapshots as they are, over another restart too."""
        origin = self.mapper.mapped("org")
        written = []
        for _ in range(4):
            count = choose.randrange(1, 60)
            tokens = self.machine.new_tokens(count)
            sector = choose.randrange(SECTORS - count + 1)
            origin.write(sector * SECTOR, content_of(tokens))
            found["origin"][sector : sector + count] = tokens
            written.append((sector, count))
        self._same(found, "before the origin was written to", *written)
        self.mapper.shutdown()
        self.mapper = start_mapper(self.machine.folder, dict(self.disks), self.machine.durability)
        self._activate(self.mapper)
        self._same(found, "before the restart", *written)


def merged(mapper: LocalMapper) -> bool:
    status = mapper.status("org")[0].params
    if status == "Merge failed":
        raise Unsafe("the merge failed")
    used, _, metadata = status.replace("/", " ").split()
    return used == metadata


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        if time.monotonic() > deadline:
            raise Unsafe("a merge does not end")
        time.sleep(0.0005)
