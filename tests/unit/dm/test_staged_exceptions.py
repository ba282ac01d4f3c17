"""Exceptions of what is staged for an origin: given late and all at once, and the same ones."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.unit.dm.lab import Lab, store_records
from tests.unit.dm.stage_lab import BIG, SECTORS, StageLab
from ulvm.dm import origins
from ulvm.dm.commit import GroupCommit
from ulvm.dm.origins import Origin
from ulvm.dm.table import parse_table
from ulvm.dm.targets.origin import OriginTarget
from ulvm.dm.targets.snapshot import SnapshotTarget
from ulvm.errors import DeviceError, TableError

SNAPSHOTS = {
    "as large": [(8, SECTORS), (128, SECTORS)],
    "less than a page": [(1, SECTORS), (8, SECTORS)],
    "shorter, by pages": [(8, 1600), (16, 1608), (64, SECTORS)],
    "shorter, within a page": [(8, 1601), (32, SECTORS)],
    "no room": [(8, SECTORS), (16, SECTORS)],
}
"""Chunk size and length, in sectors."""


def lab_of(folder: Path, kind: str, stage: int) -> Lab:
    folder.mkdir()
    lab: Lab = StageLab(folder, BIG) if stage else Lab(folder)
    origin = lab.file("origin", SECTORS)
    lab.fill_pattern(origin, SECTORS)
    for number, (chunk, length) in enumerate(SNAPSHOTS[kind]):
        cow = lab.file(f"cow{number}", 700 if kind == "no room" and number == 0 else 20_000)
        lab.device(f"s{number}", f"0 {length} snapshot {origin} {cow} P {chunk}")
    lab.device("org", f"0 {SECTORS} snapshot-origin {origin}")
    if isinstance(lab, StageLab):
        lab.still()
    return lab


@pytest.fixture(params=SNAPSHOTS)
def labs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Lab, Lab]]:
    """With a stage, and without."""
    pair = lab_of(tmp_path / "a", request.param, BIG), lab_of(tmp_path / "b", request.param, 0)
    yield pair
    for lab in pair:
        lab.dm.shutdown()


def exceptions(lab: Lab, number: int) -> list[int]:
    """The chunks that have one on disk, in the order of the records."""
    chunk = int(lab.table(f"s{number}").split()[3])
    return [old for old, _ in store_records(str(lab.folder / f"cow{number}"), chunk)]


def write(lab: Lab, name: str, sector: int, data: bytes) -> int:
    """Its errno; one behind the end is cut."""
    device = lab.dm.mapped(name)
    try:
        device.write(sector * 512, data[: max(device.size - sector * 512, 0)])
    except DeviceError as error:
        return error.errno or -1
    return 0


@pytest.mark.parametrize("seed", range(3))
def test_they_are_those_that_each_write_would_have_got(labs: tuple[Lab, Lab], seed: int) -> None:
    rng = random.Random(seed)
    numbers = range(len(labs[0].dm.devices()) - 1)
    staged, at_once = labs
    for count in (1, 5, 70, 30, 100):
        for _ in range(count):
            sector, sectors = rng.randrange(SECTORS - 64), rng.choice((1, 1, 8, 8, 8, 24, 64))
            if rng.random() < 0.1:
                sector, sectors = 1600, rng.choice((1, 4))
            elif rng.random() < 0.7:
                sector &= -8
            # One to a snapshot is behind all that is staged, which has its exceptions from then on.
            name = rng.choice(("org", "org", "s0")) if count < 70 else "org"
            data = bytes([count]) * (sectors * 512)
            outcomes = {write(lab, name, sector, data) for lab in labs}
            assert len(outcomes) == 1, outcomes
        for number in numbers:
            assert staged.status(f"s{number}") == at_once.status(f"s{number}")
        if rng.random() < 0.5:
            staged.dm.mapped("org").flush()
    staged.dm.mapped("org").flush()
    for number in numbers:
        if staged.status(f"s{number}") != "Invalid":
            length = staged.dm.mapped(f"s{number}").size // 512
            assert exceptions(staged, number) == exceptions(at_once, number) != []
            assert staged.read(f"s{number}", 0, length) == at_once.read(f"s{number}", 0, length)


@pytest.mark.parametrize("pages", [1, 100])
def test_a_new_snapshot_has_no_part_in_what_was_written_before(
    stage: StageLab, pages: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even where that was not written."""
    monkeypatch.setattr(Origin, "drain", lambda self: True)
    origin = stage.faults["origin"]
    for page in range(pages):
        stage.put(8 * page, 8, 0xAA)
    origin.fail("write")
    cow = stage.file("cow1", 20_000)
    stage.device("s1", f"0 {SECTORS} snapshot {stage.folder}/origin {cow} P 8")
    origin.clear()
    stage.put(8 * pages, 8, 0xBB)
    stage.dm.mapped("org").flush()
    assert stage.status("s1") == "24/20000 16", "one exception"
    assert stage.read("s1", 0, 8 * pages) == b"\xaa" * (4096 * pages)
    assert len(store_records(str(stage.folder / "cow"), 8)) == pages + 1


def test_no_snapshot_of_an_origin_that_refuses_what_was_written(stage: StageLab) -> None:
    """It would lack that, or get it later."""
    stage.put(0, 8, 0xAA)
    stage.faults["origin"].fail("write")
    cow = stage.file("cow1", 20_000)
    stage.dm.create("s1")
    stage.dm.load("s1", parse_table(f"0 {SECTORS} snapshot {stage.folder}/origin {cow} P 8"))
    with pytest.raises(TableError, match="cannot reach it"):
        stage.dm.resume("s1")
    stage.put(0, 8, 0xBB)
    stage.faults["origin"].clear()
    stage.dm.resume("s1")
    stage.put(0, 8, 0xCC)
    stage.dm.mapped("org").flush()
    assert stage.read("s1", 0, 8) == b"\xbb" * 4096
    assert stage.read("org", 0, 8) == b"\xcc" * 4096


@pytest.mark.parametrize("sectors", [1, 8])
@pytest.mark.parametrize("asked", [False, True], ids=["before a commit", "after a look"])
def test_a_write_to_a_snapshot_takes_the_chunk_first(
    stage: StageLab, sectors: int, asked: bool
) -> None:
    before = stage.read("org", 0, 16)
    stage.put(0, 16, 0xAA)
    if asked:
        assert stage.status("snap") == "32/20000 16"
    stage.dm.mapped("snap").write(0, b"\xbb" * (sectors * 512))
    for name in ("org", "snap", "org"):
        stage.dm.mapped(name).flush()
        assert stage.read("org", 0, 16) == b"\xaa" * 8192
        assert stage.read("snap", 0, 16) == b"\xbb" * (sectors * 512) + before[sectors * 512 :]
    assert sorted(old for old, _ in store_records(str(stage.folder / "cow"), 8)) == [0, 1]


@pytest.mark.parametrize("how", ["staged", "not staged", "to the origin with FUA"])
def test_what_is_not_staged_comes_behind_what_is(
    stage: StageLab, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As its writes came."""
    stage.put(8 * 5, 8, 0xAA)
    if how == "not staged":
        monkeypatch.setattr(SnapshotTarget, "_writes", lambda self: None)
    if how == "to the origin with FUA":
        stage.dm.mapped("org").write(2 * 4096, b"\xbb" * 4096, fua=True)
    else:
        stage.dm.mapped("snap").write(2 * 4096, b"\xbb" * 4096)
        stage.dm.mapped("snap").flush()
    stage.dm.mapped("org").flush()
    assert [old for old, _ in store_records(str(stage.folder / "cow"), 8)] == [5, 2]


def test_a_status_line_is_told_while_somebody_waits_below(stage: StageLab) -> None:
    """With the lock: then it says what was known before."""
    stage.put(0, 8, 0xAA)
    lock = stage.stage("org")._lock
    held, free = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            free.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    try:
        assert stage.status("snap") == "16/20000 16"
    finally:
        free.set()
        holder.join()
    assert stage.status("snap") == "24/20000 16"


def test_a_page_that_is_written_again_and_again_is_not_noted_for_ever(
    stage: StageLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the commit waits for a device, say."""
    monkeypatch.setattr(origins, "_MOST_STAGED", 100)
    for _ in range(1000):
        stage.put(0, 8, 0xAA)
    assert len(origin_of(stage).staged) <= 100
    assert stage.status("snap") == "24/20000 16"


def origin_of(stage: StageLab) -> Origin:
    target = stage.dm.mapped("org").targets[0]
    assert isinstance(target, OriginTarget)
    return target._origin


def put_pages(stage: StageLab, pages: int) -> bytes:
    """What they held."""
    before = stage.read("snap", 0, 8 * pages)
    for page in range(pages):
        stage.put(8 * page, 8, 0xAA)
    return before


@pytest.mark.parametrize("pages", [3, 100])
def test_what_could_not_be_given_exceptions_is_given_them_later(
    stage: StageLab, pages: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For want of memory, say; nothing is written without."""
    before = put_pages(stage, pages)

    def fail(*_: object, **options: object) -> None:
        raise MemoryError

    with monkeypatch.context() as short:
        for name in ("add", "add_each"):
            short.setattr(GroupCommit, name, fail)
        with pytest.raises(MemoryError):
            stage.dm.mapped("org").flush()
    assert stage.on_disk(0, 8 * pages) == before
    stage.dm.mapped("org").flush()
    assert stage.on_disk(0, 8 * pages) == b"\xaa" * len(before)
    assert stage.read("snap", 0, 8 * pages) == before


class Full(list[int]):
    """For more numbers there is no memory."""

    def extend(self, numbers: Iterable[int], /) -> None:
        raise MemoryError


def test_a_chunk_is_not_pending_without_its_run(stage: StageLab) -> None:
    before = put_pages(stage, 3)
    (snapshot,) = origin_of(stage).guarded
    for name in ("_runs", "_to_copy"):
        kept = getattr(snapshot.commit, name)
        setattr(snapshot.commit, name, Full())
        with pytest.raises(MemoryError):
            stage.dm.mapped("org").flush()
        assert not any(snapshot.map.state[chunk] for chunk in range(3))
        assert not snapshot.commit.pending
        setattr(snapshot.commit, name, kept)
    stage.dm.mapped("org").flush()
    assert stage.on_disk(0, 24) == b"\xaa" * len(before)
    assert stage.read("snap", 0, 24) == before


@pytest.mark.parametrize("pages", [3, 100])
def test_a_handover_takes_what_was_staged_a_moment_before(
    stage: StageLab, pages: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The origin's resume is not through, so nobody could hold its writers up."""
    line = f"0 {SECTORS} snapshot {stage.folder}/origin {stage.folder}/cow P 8"
    stage.dm.load("snap", parse_table(line))
    before = stage.read("snap", 0, 8 * pages)
    stage.dm.suspend("snap")
    real, drains = Origin.drain, iter((1, 2))

    def drain(self: Origin) -> None:
        real(self)
        if next(drains, 0) == 2:
            for page in range(pages):
                stage.put(8 * page, 8, 0xAA)

    origin = origin_of(stage)
    with monkeypatch.context() as moment:
        moment.setattr(Origin, "drain", drain)
        moment.setattr(origin, "writer", None)
        stage.dm.resume("snap")
    stage.dm.mapped("org").flush()
    assert stage.read("snap", 0, 8 * pages) == before


def test_a_snapshot_that_goes_gets_what_came_meanwhile(
    stage: StageLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = stage.read("snap", 0, 16)
    real, left = Origin.drain, [1, 2]

    def drain(self: Origin) -> None:
        real(self)
        if left:
            stage.put(8 * (left.pop() - 1), 8, 0xAA)

    with monkeypatch.context() as moment:
        moment.setattr(Origin, "drain", drain)
        stage.dm.remove("snap")
    cow = stage.folder / "cow"
    assert sorted(old for old, _ in store_records(str(cow), 8)) == [0, 1]
    assert cow.read_bytes()[3 * 4096 : 4 * 4096] == before[:4096]


def test_who_lists_devices_does_not_wait_for_a_suspended_one(tmp_path: Path) -> None:
    """Nor for a snapshot that has no room and cannot say so on its disk."""
    lab = StageLab(tmp_path)
    origin = lab.file("origin", SECTORS)
    lab.device("low", f"0 80 linear {lab.file('cow', 80)} 0")
    lab.device("snap", f"0 {SECTORS} snapshot {origin} {lab.dm.mapped('low').number} P 8")
    lab.device("org", f"0 {SECTORS} snapshot-origin {origin}")
    lab.still()
    lab.dm.suspend("low")
    for page in range(20):
        lab.put(8 * page, 8, 0xAA)
    assert [info.name for info in lab.dm.devices() if info.suspended] == ["low"]
    lab.dm.resume("low")
    assert lab.status("snap") == "Invalid"
    lab.dm.shutdown()


@pytest.mark.parametrize(("kind", "room"), [("P", 48), ("N", 50)])
@pytest.mark.parametrize("act", ["read", "write"])
def test_a_snapshot_without_room_for_what_is_staged_fails_at_once(
    tmp_path: Path, kind: str, room: int, act: str
) -> None:
    lab = StageLab(tmp_path)
    origin, cow = lab.file("origin", SECTORS), lab.file("cow", 400)
    lab.device("snap", f"0 {SECTORS} snapshot {origin} {cow} {kind} 8")
    lab.device("org", f"0 {SECTORS} snapshot-origin {origin}")
    lab.still()
    snap = lab.dm.mapped("snap")
    snap.write(0, bytes(4096))
    snap.flush()
    use = {"read": lambda: snap.read(0, 4096), "write": lambda: snap.write(0, bytes(4096))}[act]
    for page in range(1, room):
        lab.put(8 * page, 8, 0xAA)
        use()
    lab.put(8 * room, 8, 0xAA)
    with pytest.raises(DeviceError):
        use()
    assert lab.dm.info("snap").event_nr == 1
    assert lab.status("snap") == "Invalid"
    lab.dm.shutdown()
