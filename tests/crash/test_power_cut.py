"""The power goes at every instant of a load: what a snapshot and its origin promise holds.

Origin and COW store lie on devices that record every write and flush. For each instant an image of
both is built that a disk with a volatile cache could hold then, another mapper activates them, and

* the snapshot reads as of its creation, or as it was written itself before its last flush;
* the origin holds, sector by sector, what was flushed or something written later;
* a merge that was under way goes on to its end and gives the origin the snapshot's content.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.waiting import until
from ulvm.blockdev.base import BlockDevice
from ulvm.blockdev.faults import FaultDevice, PowerCut
from ulvm.blockdev.memory import MemoryDevice
from ulvm.dm.mapper import LocalMapper
from ulvm.dm.table import parse_table

SECTOR = 512
SECTORS = 520
"""Of the origin: not a multiple of the largest chunk."""
SIZE = SECTORS * SECTOR
COW_SECTORS = 1024


def mapper_over(folder: Path, devices: dict[str, BlockDevice]) -> LocalMapper:
    """A mapper whose files are these devices; the paths only give them an identity."""

    def opener(path: str, writable: bool) -> BlockDevice:
        return devices[Path(path).name]

    for name in devices:
        (folder / name).touch()
    return LocalMapper(open_file=opener)


def activate(mapper: LocalMapper, name: str, line: str) -> None:
    mapper.create(name)
    mapper.load(name, parse_table(line))
    mapper.resume(name)


class Expected:
    """Of every sector, what it may hold after a cut: the versions since the last flush."""

    def __init__(self, content: bytes) -> None:
        self.versions = [[content[n * SECTOR : (n + 1) * SECTOR]] for n in range(SECTORS)]

    def write(self, sector: int, data: bytes) -> None:
        for n in range(len(data) // SECTOR):
            self.versions[sector + n].append(data[n * SECTOR : (n + 1) * SECTOR])

    def flush(self) -> None:
        for versions in self.versions:
            del versions[:-1]

    def copy(self) -> list[list[bytes]]:
        return [list(versions) for versions in self.versions]


def fits(image: bytes, allowed: list[list[bytes]], what: str) -> None:
    for n, versions in enumerate(allowed):
        found = image[n * SECTOR : (n + 1) * SECTOR]
        assert found in versions, f"{what}: sector {n} holds none of {len(versions)} versions"


def later(first: list[list[bytes]], second: list[list[bytes]]) -> list[list[bytes]]:
    """What is allowed between two moments: a request under way may have happened or not."""
    return [a + b for a, b in zip(first, second, strict=True)]


class Load:
    """Writes and flushes of origin and snapshot, with what is allowed at each time."""

    def __init__(self, folder: Path, chunk: int, seed: int) -> None:
        self.choose = random.Random(seed)
        self.original = self.choose.randbytes(SIZE)
        self.chunk = chunk
        origin = FaultDevice(MemoryDevice(self.original))
        cow = FaultDevice(MemoryDevice(COW_SECTORS * SECTOR))
        self.mapper = mapper_over(folder, {"origin": origin, "cow": cow})
        activate(self.mapper, "org", f"0 {SECTORS} snapshot-origin {folder}/origin")
        activate(
            self.mapper, "snap", f"0 {SECTORS} snapshot {folder}/origin {folder}/cow P {chunk}"
        )
        self.records: dict[str, PowerCut] = {"origin": origin.record(), "cow": cow.record()}
        self.origin, self.snapshot = Expected(self.original), Expected(self.original)
        self.history: list[tuple[int, list[list[bytes]], list[list[bytes]]]] = []
        self.note()

    def note(self) -> None:
        times = [t for record in self.records.values() for t in record.times]
        now = max(times) + 1 if times else 0
        self.history.append((now, self.origin.copy(), self.snapshot.copy()))

    def step(self) -> None:
        device, expected = self.choose.choice(
            [("org", self.origin), ("org", self.origin), ("snap", self.snapshot)]
        )
        mapped = self.mapper.mapped(device)
        if self.choose.random() < 0.2:
            mapped.flush()
            expected.flush()
        else:
            count = self.choose.randrange(1, 20)
            sector = self.choose.randrange(SECTORS - count + 1)
            data = self.choose.randbytes(count * SECTOR)
            mapped.write(sector * SECTOR, data)
            expected.write(sector, data)
        self.note()

    def times(self) -> list[int]:
        return sorted(t for record in self.records.values() for t in record.times)

    def images(self, moment: int, choose: random.Random) -> dict[str, BlockDevice]:
        return {
            name: MemoryDevice(record.image_at(record.events_until(moment), choose))
            for name, record in self.records.items()
        }

    def allowed(self, moment: int) -> tuple[list[list[bytes]], list[list[bytes]]]:
        """(origin, snapshot) at a time: before and after the request that was under way."""
        after = next((n for n, h in enumerate(self.history) if h[0] >= moment), -1)
        before = after - 1 if after > 0 else after
        _, origin_before, snap_before = self.history[before]
        _, origin_after, snap_after = self.history[after]
        return later(origin_before, origin_after), later(snap_before, snap_after)


@pytest.mark.parametrize("chunk", [1, 8, 16])
@pytest.mark.parametrize("seed", range(2))
def test_snapshot_and_origin_after_a_power_cut(tmp_path: Path, chunk: int, seed: int) -> None:
    load = Load(tmp_path, chunk, seed)
    for _ in range(60):
        load.step()
    load.mapper.shutdown()
    moments = load.times()
    choose = random.Random(seed)
    for moment in choose.sample(moments, min(len(moments), 150)):
        again = mapper_over(tmp_path, load.images(moment, choose))
        origin_allowed, snapshot_allowed = load.allowed(moment)
        fits(again.resolve(f"{tmp_path}/origin").read(0, SIZE), origin_allowed, "origin")
        activate(again, "snap", f"0 {SECTORS} snapshot {tmp_path}/origin {tmp_path}/cow P {chunk}")
        fits(again.mapped("snap").read(0, SIZE), snapshot_allowed, "snapshot")
        again.shutdown()


def merged(mapper: LocalMapper) -> bool:
    status = str(mapper.status("org")[0].params)
    used, _, metadata = status.replace("/", " ").split()
    return used == metadata


@pytest.mark.parametrize("chunk", [1, 16])
def test_a_merge_goes_on_after_a_power_cut(tmp_path: Path, chunk: int) -> None:
    load = Load(tmp_path, chunk, 5)
    for _ in range(30):
        load.step()
    for device in ("org", "snap"):
        load.mapper.mapped(device).flush()
    wanted = load.mapper.mapped("snap").read(0, SIZE)
    mapper = load.mapper
    start = max(load.times()) + 1
    mapper.suspend("org")
    mapper.suspend("snap")
    line = f"0 {SECTORS} snapshot-merge {tmp_path}/origin {tmp_path}/cow P {chunk}"
    mapper.load("org", parse_table(line))
    mapper.resume("org")
    until(lambda: merged(mapper), seconds=60)
    mapper.shutdown()
    choose = random.Random(1)
    moments = [t for t in load.times() if t >= start]
    assert moments
    for moment in choose.sample(moments, min(len(moments), 60)):
        again = mapper_over(tmp_path, load.images(moment, choose))
        activate(again, "org", line)
        assert again.mapped("org").read(0, SIZE) == wanted
        until(lambda again=again: merged(again), seconds=60)  # type: ignore[misc]
        assert again.mapped("org").read(0, SIZE) == wanted
        again.shutdown()
