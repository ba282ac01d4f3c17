"""Disks that fail: EIO and ENOSPC on every n-th read, write and flush of a load.

For each request of a load that an origin, its snapshots and their merge make to the disks, the load
is done again with that request failing. Whatever it was:

* the caller of what cannot be done gets the error, and nobody else; a flush of the origin that
  says OK is durable;
* an origin is never failed by a COW, and holds all that was written to it;
* a snapshot that lost data is invalid, on disk too, and no other is; one that is valid is right,
  now, after a restart and after a power cut; if the disk refuses even the mark, it stays invalid in
  this life and the log says so;
* no thread dies, nothing hangs, and everything can be taken down.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from tests import effort
from tests.crash.engine import SECTOR, SECTORS, Machine, Snap, Tokens, tokens_of
from tests.waiting import ended
from ulvm.blockdev.base import BlockDevice
from ulvm.blockdev.faults import Kind
from ulvm.blockdev.memory import MemoryDevice
from ulvm.dm.table import parse_table
from ulvm.errors import DeviceError, UlvmError

pytestmark = [
    pytest.mark.timeout(effort.amount(300, 0)),
    pytest.mark.usefixtures("threads_that_died"),
]


class Oldest(random.Random):
    def choice(self, seq):  # type: ignore[no-untyped-def]
        return seq[0]


class Played:
    """A load on a machine, with what each device must hold."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.choose = random.Random(seed)
        self.machine = Machine(folder, self.choose)
        self.origin: Tokens = self.machine.start.copy()
        self.snaps: dict[str, Tokens] = {}
        self.errors: list[tuple[str, int]] = []
        self.log = self.machine.said
        self.made: list[Snap] = []
        self.what = ""
        self.known = True
        """Whether what the origin holds is known: a write to it that failed may be half done."""

    def write(self, device: str, sector: int, count: int) -> None:
        tokens = self.machine.new_tokens(count)
        mapped = self.machine.mapper.mapped("org" if device == "origin" else device)
        try:
            mapped.write(sector * SECTOR, np.repeat(tokens, SECTOR // 8).tobytes())
        except DeviceError as error:
            self.errors.append((device, error.errno or 0))
            if device == "origin":
                self.known = False
            else:
                self.snaps.pop(device, None)
            return
        if device == "origin":
            self.origin[sector : sector + count] = tokens
        elif device in self.snaps:
            self.snaps[device][sector : sector + count] = tokens

    def flush(self, device: str) -> None:
        try:
            self.machine.mapper.mapped("org" if device == "origin" else device).flush()
        except DeviceError as error:
            self.errors.append((device, error.errno or 0))
            return
        if device == "origin" and self.known:
            held = tokens_of(self.durable("origin"), "the origin's disk")
            assert np.array_equal(held, self.origin), (
                f"{self.what}: a flush said OK, and is not durable"
            )

    def durable(self, disk: str) -> bytes:
        """What it holds if the power goes and takes all that it may."""
        record = self.machine.records[disk]
        return record.image_at(len(record.events), Oldest())

    def load(self) -> None:
        """First writes, rewrites, writes of snapshots, growth, flushes."""
        machine = self.machine
        for chunk in (16, 1):
            try:
                snap = machine.snapshot("P", chunk, 700)
            except UlvmError as error:
                self.errors.append(("load", getattr(error, "errno", None) or 0))
                self.take_back()
                continue
            self.made.append(snap)
            self.snaps[snap.name] = self.origin.copy()
        self.write("origin", SECTORS - 3, 3)  # In the last chunk, which is cut short.
        for n in range(14):
            count = self.choose.randrange(1, 40)
            self.write("origin", self.choose.randrange(SECTORS - count + 1), count)
            for snap in self.made:
                if n % 3 == 0:
                    self.write(snap.name, self.choose.randrange(SECTORS - n), 1 + n)
            if n % 5 == 4:
                for device in ("origin", *(s.name for s in self.made)):
                    self.flush(device)
            if n == 8 and self.made:
                try:
                    self.made[0] = machine.grow(self.made[0], 100)
                except UlvmError as error:
                    self.errors.append(("grow", getattr(error, "errno", None) or 0))

    def take_back(self) -> None:
        """As activation does when a table is refused."""
        mapper = self.machine.mapper
        for info in mapper.devices():
            name = info.name
            if not info.live_table or name == f"c-s{len(self.made) + 1}":
                mapper.remove(name)
        if mapper.info("org").suspended:
            mapper.resume("org")

    def valid(self, name: str) -> bool:
        return self.machine.mapper.status(name)[0].params != "Invalid"

    def requests(self) -> dict[tuple[str, Kind], int]:
        """How many of each kind came to each disk."""
        return {
            (name, kind): count
            for name, disk in self.machine.disks.items()
            for kind, count in disk.counts.items()
        }


KINDS: tuple[Kind, ...] = ("read", "write", "flush")


def cases(folder: Path, seed: int) -> list[tuple[str, Kind, int]]:
    """(disk, kind, n) of every request of the load."""
    played = Played(folder, seed)
    before = played.requests()
    played.load()
    after = played.requests()
    played.machine.close()
    assert not played.errors
    return [
        (disk, kind, n)
        for (disk, kind), count in after.items()
        for n in range(1, count - before[disk, kind] + 1)
        if kind in KINDS
    ]


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC], ids=["EIO", "ENOSPC"])
@pytest.mark.parametrize("times", [1, 1000], ids=["once", "from then on"])
def test_every_request_fails_once(tmp_path: Path, error: int, times: int) -> None:
    for seed in range(effort.amount(1, 8)):
        everything = cases(tmp_path / "first", seed)
        count = effort.amount(60, len(everything))
        for disk, kind, n in effort.rng("faults", seed, error, times).sample(everything, count):
            what = f"seed {seed}, {kind} {n} of {disk}"
            fault = Fault(disk, kind, n, error, times, what)
            ended(partial(one, tmp_path / "again", seed, fault))
            effort.tally("faults of disks under load")


class Fault(NamedTuple):
    disk: str
    kind: Kind
    n: int
    error: int
    times: int
    what: str


def one(folder: Path, seed: int, fault: Fault) -> None:
    disk, kind, n, error, times, what = fault
    played = Played(folder, seed)
    machine = played.machine
    played.what = what
    machine.disks[disk].fail_nth(kind, n, times=times, error=error)
    played.load()
    assert all(code in (error, errno.EIO, errno.ENXIO) for _, code in played.errors), what
    if disk != "origin":
        above = {snap.name for snap in played.made if disk == f"cow{snap.cow}"}
        told = {device for device, _ in played.errors}
        assert told <= {*above, "load", "grow"}, f"{what}: {told - above} failed"
    machine.disks[disk].clear()
    mapper = machine.mapper
    if played.known:
        found = tokens_of(mapper.mapped("org").read(0, SECTORS * SECTOR), "origin")
        assert np.array_equal(found, played.origin), f"{what}: the origin lost a write"
    there = {info.name for info in mapper.devices()}
    for snap in played.made:
        if snap.name not in there:
            continue
        if played.valid(snap.name):
            check(played, snap.name, what)
        else:
            said = [line for line in played.log if line.startswith(f"{snap.name}: Invalidating")]
            assert said, what
            assert (disk, kind) == ("origin", "read") or disk == f"cow{snap.cow}", (
                f"{what}: {said[0]}"
            )
    invalid = {s.name for s in played.made if s.name in there and not played.valid(s.name)}
    marked = not any("still looks valid on disk" in line for line in played.log)
    devices = ["origin", *(n for n in played.snaps if n in there - invalid)]
    for device in devices:  # Is told of the error if nobody was.
        played.flush(device)
    told_before = len(played.errors)
    for device in devices:
        played.flush(device)
    assert len(played.errors) == told_before, f"{what}: still {played.errors[-1]}"
    cut = {name: MemoryDevice(played.durable(name)) for name in machine.disks}
    machine.close()
    after_restart(played, machine.disks, invalid, marked, f"{what}, after a restart")
    after_restart(played, cut, invalid, marked, f"{what}, after a power cut")


def check(played: Played, name: str, what: str) -> None:
    tokens = played.snaps.get(name)
    found = tokens_of(played.machine.mapper.mapped(name).read(0, SECTORS * SECTOR), name)
    if tokens is not None:
        assert np.array_equal(found, tokens), f"{what}: {name} is valid and wrong"


def after_restart(
    played: Played,
    disks: Mapping[str, BlockDevice],
    invalid: set[str],
    marked: bool,
    what: str,
) -> None:
    machine = played.machine
    machine.mapper = type(machine.mapper)(open_file=lambda path, writable: disks[Path(path).name])
    if played.known:
        found = tokens_of(disks["origin"].read(0, SECTORS * SECTOR), "origin")
        assert np.array_equal(found, played.origin), f"{what}: the origin lost a write"
    for snap in machine.config:
        for name, line in (
            (f"c-{snap.name}", machine._cow_line(snap)),
            (snap.name, None),
        ):
            machine.mapper.create(name)
            text = line or machine._snap_line(machine.mapper, snap)
            machine.mapper.load(name, parse_table(text))
            machine.mapper.resume(name)
        if snap.name in invalid:
            if marked:
                assert not played.valid(snap.name), f"{what}: {snap.name} is valid again"
        elif snap.name in played.snaps:
            assert played.valid(snap.name), f"{what}: {snap.name} is invalid"
            check(played, snap.name, what)
    machine.mapper.shutdown()


@pytest.mark.parametrize("disk", ["origin", "cow0", "cow1"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_merge_whose_disk_fails_ends_and_goes_on(tmp_path: Path, disk: str, kind: Kind) -> None:
    """`Merge failed`, or the end; what is read is right meanwhile; with a good disk it goes on."""
    for n in range(1, effort.amount(8, 60)):
        ended(partial(merging, tmp_path / str(n), disk, kind, n))
        effort.tally("faults of disks under a merge")


def merging(folder: Path, disk: str, kind: Kind, n: int) -> None:
    played = Played(folder, n)
    machine, mapper = played.machine, played.machine.mapper
    snap = machine.snapshot("P", 1, 1400)
    wanted = played.origin.copy()
    for sector in played.choose.sample(range(SECTORS), 120):
        played.write("origin", sector, 1)
    other = machine.snapshot("P", 8, 1400)
    beside = played.origin.copy()
    machine.disks[disk].fail_nth(kind, n)
    try:
        machine.merge(snap)
    except UlvmError:
        machine.disks[disk].clear()
        machine.mapper.resume("org")
    merge_ended(machine)
    machine.disks[disk].clear()
    assert np.array_equal(tokens_of(mapper.mapped("org").read(0, SECTORS * SECTOR), "o"), wanted)
    mapper.suspend("org")
    mapper.resume("org")
    merge_ended(machine)
    assert np.array_equal(tokens_of(mapper.mapped("org").read(0, SECTORS * SECTOR), "o"), wanted)
    if played.valid(other.name):
        found = tokens_of(mapper.mapped(other.name).read(0, SECTORS * SECTOR), other.name)
        assert np.array_equal(found, beside)
    machine.mapper.shutdown()


def merge_ended(machine: Machine) -> None:
    """The worker has ended, with or without an error."""
    worker = getattr(machine.mapper.mapped("org").live.targets[0], "_worker", None)  # type: ignore[union-attr]
    if worker is not None:
        worker.join(30)
        assert not worker.is_alive()
