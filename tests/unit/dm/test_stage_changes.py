"""The stage of an origin while tables, sizes and names change around it, and hostile files."""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.dm.stage_lab import BIG, SECTORS, StageLab, killed
from tests.waiting import until
from ulvm.dm import origins
from ulvm.dm.stage import Stage
from ulvm.dm.stage_begin import begin_stage
from ulvm.dm.stage_file import PAGE, StageSettings
from ulvm.dm.table import parse_table
from ulvm.errors import TableError

ODD = SECTORS - 5
"""An origin whose last page is not whole."""


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[StageLab]:
    (tmp_path / "first").mkdir()
    lab = StageLab(tmp_path / "first", kept=True)
    yield lab
    lab.dm.shutdown()


def inner(lab: StageLab, name: str = "org") -> Stage:
    found: Stage = lab.dm.mapped(name).targets[0]._origin.stage  # type: ignore[attr-defined]
    return found


def test_a_name_given_later_hides_nothing(kept: StageLab, tmp_path: Path) -> None:
    kept.pair()
    kept.still()
    kept.put(0, 8, 0x11)
    kept.dm.set_uuid("org", "LVM-x")
    again = killed(kept, tmp_path / "second")
    assert again.read("org", 0, 8) == b"\x11" * 4096
    again.dm.shutdown()


@pytest.mark.parametrize("size", [0, BIG * 2])
def test_another_size_of_the_stage_loses_nothing(kept: StageLab, tmp_path: Path, size: int) -> None:
    """The settings may change before a kill."""
    kept.pair()
    kept.still()
    kept.put(0, 8, 0x11)
    again = killed(kept, tmp_path / "second", size)
    assert again.read("org", 0, 8) == b"\x11" * 4096
    again.dm.shutdown()
    assert again.on_disk(0, 8) == b"\x11" * 4096


def test_an_origin_that_grew_keeps_what_was_staged(kept: StageLab, tmp_path: Path) -> None:
    kept.pair()
    kept.still()
    with open(kept.folder / "origin", "r+b") as stream:
        stream.truncate((SECTORS + 64) * 512)
    kept.put(0, 8, 0x11)
    again = killed(kept, tmp_path / "second")
    assert again.read("org", 0, 8) == b"\x11" * 4096
    again.dm.shutdown()


@pytest.mark.timeout(20)
def test_a_flush_that_waits_below_holds_no_suspend_up(kept: StageLab) -> None:
    """As a move of extents does it: what lies below is suspended, one by one, under a writer."""
    for name, size in (("origin", SECTORS), ("cow", 20_000)):
        path = kept.file(name, size)
        kept.device(f"{name}-low", f"0 {size} linear {path} 0")
    before = kept.fill_pattern(kept.folder / "origin", SECTORS)
    kept.device("snap", f"0 {SECTORS} snapshot 253:0 253:1 P 8")
    kept.device("org", f"0 {SECTORS} snapshot-origin 253:0")
    kept.dm.suspend("origin-low")
    kept.put(0, 8, 0x11)
    flush = threading.Thread(target=kept.dm.mapped("org").flush)
    flush.start()
    until(inner(kept).committing.locked)
    kept.dm.suspend("cow-low")
    assert flush.is_alive()
    for name in ("cow-low", "origin-low"):
        kept.dm.resume(name)
    flush.join()
    assert kept.on_disk(0, 8) == b"\x11" * 4096
    assert kept.read("snap", 0, 8) == before[:4096]


def test_writes_to_what_an_origin_grew_by(kept: StageLab) -> None:
    """The snapshot ends where it did; the new part, the once partial page among it, is written
    as it comes."""
    origin = kept.file("origin", SECTORS + 64)
    kept.fill_pattern(origin, SECTORS + 64)
    cow = kept.file("cow", 20_000)
    kept.device("real", f"0 {ODD} linear {origin} 0")
    kept.device("snap", f"0 {ODD} snapshot 253:0 {cow} P 8")
    kept.device("org", f"0 {ODD} snapshot-origin 253:0")
    kept.still()
    before = kept.on_disk(ODD, 64)
    kept.put(ODD - 1, 1, 0x11)
    assert kept.read("org", ODD - 1, 1) == b"\x11" * 512
    kept.reload("real", f"0 {SECTORS + 64} linear {origin} 0")
    kept.reload("org", f"0 {SECTORS + 64} snapshot-origin 253:0")
    kept.dm.mapped("org").flush()
    assert kept.on_disk(ODD, 64) == before
    for sector in (ODD, ODD + 2, SECTORS + 8, SECTORS + 63):
        kept.put(sector, 1, 0x22)
        assert kept.read("org", sector, 1) == b"\x22" * 512
    kept.dm.mapped("org").flush()
    assert kept.on_disk(ODD - 1, 2) == b"\x11" * 512 + b"\x22" * 512


@pytest.mark.parametrize("chunk", [1, 8])
def test_requests_over_a_partial_last_page(kept: StageLab, chunk: int) -> None:
    origin, cow = kept.file("origin", ODD), kept.file("cow", 20_000)
    before = kept.fill_pattern(origin, ODD)
    kept.device("snap", f"0 {ODD} snapshot {origin} {cow} P {chunk}")
    kept.device("org", f"0 {ODD} snapshot-origin {origin}")
    kept.still()
    org = kept.dm.mapped("org")
    for fill, start, count in ((1, ODD - 7, 7), (2, ODD - 2, 2), (3, ODD - 20, 19), (4, 0, ODD)):
        kept.put(start, count, fill)
        assert kept.read("org", start, count) == bytes([fill]) * (count * 512)
        org.write((ODD - 1) * 512, b"\x09" * 512, fua=True)
        assert kept.on_disk(ODD - 1, 1) == b"\x09" * 512
    org.flush()
    assert kept.on_disk(0, ODD) == b"\x04" * ((ODD - 1) * 512) + b"\x09" * 512
    assert kept.read("snap", 0, ODD) == before


def test_a_stage_without_memory_copies_each_small_chunk(kept: StageLab) -> None:
    """A page of which one chunk is copied is not settled."""
    kept.pair(1)
    stage = inner(kept)
    stage.slots = 0
    before = kept.read("snap", 0, 16)
    for sector in range(8):
        kept.put(sector, 1, 0x11)
    kept.dm.mapped("org").flush()
    assert kept.read("snap", 0, 16) == before


def test_one_device_after_another_below(kept: StageLab, tmp_path: Path) -> None:
    """The file of the new origin is not that of the old, which goes when its table does."""
    kept.pair()
    other, cow = kept.file("other", SECTORS), kept.file("cow2", 20_000)
    kept.device("snap2", f"0 {SECTORS} snapshot {other} {cow} P 8")
    kept.put(0, 8, 0x11)
    kept.reload("org", f"0 {SECTORS} snapshot-origin {other}")
    kept.still()
    assert kept.on_disk(0, 8) == b"\x11" * 4096
    kept.put(0, 8, 0x22)
    assert (kept.stages / "1").exists()
    again = killed(kept, tmp_path / "second")
    assert again.read("org", 0, 8) == b"\x22" * 4096
    again.dm.shutdown()


def test_two_origins_in_one_table(kept: StageLab) -> None:
    """Each has data of its own."""
    kept.pair()
    other, cow = kept.file("other", SECTORS), kept.file("cow2", 20_000)
    kept.device("snap2", f"0 {SECTORS} snapshot {other} {cow} P 8")
    half = SECTORS // 2
    first = kept.folder / "origin"
    lines = f"0 {half} snapshot-origin {first}\n{half} {half} snapshot-origin {other}"
    kept.device("both", lines)
    both = kept.dm.mapped("both")
    for n in range(8):
        both.write(n * PAGE, b"\x11" * PAGE)
        both.write(half * 512 + n * PAGE, b"\x22" * PAGE)
    assert both.read(0, 8 * PAGE) == b"\x11" * (8 * PAGE)
    assert both.read(half * 512, 8 * PAGE) == b"\x22" * (8 * PAGE)
    both.flush()
    assert kept.on_disk(0, 64) == b"\x11" * (8 * PAGE)
    assert Path(other).read_bytes()[half * 512 :][: 8 * PAGE] == b"\x22" * (8 * PAGE)


def test_two_devices_over_one_origin(kept: StageLab, tmp_path: Path) -> None:
    """Whichever goes, and whoever gets its number, what the other wrote outlives a kill."""
    kept.pair()
    origin = kept.folder / "origin"
    kept.device("org2", f"0 {SECTORS} snapshot-origin {origin}")
    kept.put(0, 8, 0x11)
    kept.dm.remove("org")
    kept.dm.mapped("org2").write(PAGE, b"\x22" * PAGE)
    other, cow = kept.file("other", SECTORS), kept.file("cow2", 20_000)
    kept.dm.create("third", minor=1)
    kept.device("snap2", f"0 {SECTORS} snapshot {other} {cow} P 8")
    kept.reload("third", f"0 {SECTORS} snapshot-origin {other}")
    kept.dm.mapped("third").write(0, b"\x33" * PAGE)
    assert kept.read("org2", 0, 16) == b"\x11" * PAGE + b"\x22" * PAGE
    kept.dm.mapped("org2").flush()
    kept.dm.mapped("third").flush()
    assert kept.on_disk(0, 16) == b"\x11" * PAGE + b"\x22" * PAGE


def test_two_devices_that_begin_at_once_over_one_origin(
    kept: StageLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stage retires all the same: it belongs to one of them, which may go first."""
    kept.pair()
    origin = f"0 {SECTORS} snapshot-origin {kept.folder}/origin"
    kept.dm.remove("org")
    for name in ("org", "org2"):
        kept.dm.create(name)
        kept.dm.load(name, parse_table(origin))
    second = threading.Thread(target=kept.dm.resume, args=("org2",))

    def slowly(*args: Any, **options: Any) -> Stage | None:
        if not second.ident:
            second.start()
            second.join(0.3)
        return begin_stage(*args, **options)

    monkeypatch.setattr(origins, "begin_stage", slowly)
    kept.dm.resume("org")
    second.join()
    assert kept.stage("org").slots == 0


def back_without(lab: StageLab, folder: Path) -> StageLab:
    """`killed`, and the snapshot's COW is away."""
    (lab.folder / "cow").rename(lab.folder / "away")
    state = lab.dm.snapshot_state()
    folder.mkdir()
    (folder / "stage").mkdir()
    for name in ("origin", "stage/1"):
        (folder / name).write_bytes((lab.folder / name).read_bytes())
    for device in state["devices"]:
        for line in device.get("table", ()):
            line[3] = line[3].replace(str(lab.folder), str(folder))
    again = StageLab(folder, kept=True)
    assert len(again.dm.restore_state(state)) == 2
    again.dm.forget_stages()
    return again


def test_it_goes_through_whatever_table_comes_next(kept: StageLab, tmp_path: Path) -> None:
    """The snapshot is given up, the volume is a plain one; later it has another snapshot."""
    kept.pair()
    kept.still()
    kept.put(0, 8, 0x11)
    kept.put(16, 8, 0x11)
    again = back_without(kept, tmp_path / "second")
    origin = again.folder / "origin"
    again.dm.remove("snap")
    again.reload("org", f"0 {SECTORS} linear {origin} 0")
    assert again.on_disk(0, 8) == again.on_disk(16, 8) == b"\x11" * 4096
    assert list(again.stages.iterdir()) == []
    again.put(0, 8, 0x22)
    cow = again.file("cow2", 20_000)
    again.device("snap", f"0 {SECTORS} snapshot {origin} {cow} P 8")
    again.reload("org", f"0 {SECTORS} snapshot-origin {origin}")
    assert again.read("org", 0, 8) == b"\x22" * 4096
    again.dm.shutdown()


@pytest.mark.parametrize("committed", [False, True])
def test_a_merge_takes_none_of_it(kept: StageLab, tmp_path: Path, committed: bool) -> None:
    """The origin becomes what the snapshot was, whether its exceptions were there or not."""
    kept.pair()
    kept.still()
    kept.put(8, 8, 0x11)
    kept.dm.mapped("org").flush()
    before = kept.read("snap", 0, 32)
    kept.put(0, 16, 0x22)
    if committed:
        kept.dm.mapped("org").targets[0]._origin.settle()  # type: ignore[attr-defined]
    cow = (kept.folder / "cow").read_bytes()
    again = back_without(kept, tmp_path / "second")
    (again.folder / "cow").write_bytes(cow)
    again.dm.remove("snap")
    again.reload("org", f"0 {SECTORS} snapshot-merge {again.folder}/origin {again.folder}/cow P 8")
    until(lambda: again.status("org").split("/")[0] == again.status("org").split()[1])
    assert again.read("org", 0, 32) == again.on_disk(0, 32) == before
    assert list(again.stages.iterdir()) == []
    again.dm.shutdown()


@pytest.mark.parametrize("valid", [True, False])
def test_what_no_merge_gives_back_is_written(kept: StageLab, tmp_path: Path, valid: bool) -> None:
    """What lies behind it in the table; all of it where the snapshot turned out invalid."""
    kept.pair()
    kept.still()
    before = kept.on_disk(0, 8)
    kept.put(0, 8, 0x11)
    kept.put(SECTORS - 8, 8, 0x11)
    cow = (kept.folder / "cow").read_bytes()
    again = back_without(kept, tmp_path / "second")
    origin, half = again.folder / "origin", SECTORS // 2
    (again.folder / "cow").write_bytes(cow if valid else cow[:4] + bytes(4) + cow[8:])
    again.dm.remove("snap")
    again.reload(
        "org",
        f"0 {half} snapshot-merge {origin} {again.folder}/cow P 8\n"
        f"{half} {half} linear {origin} {half}",
    )
    assert again.on_disk(0, 8) == (before if valid else b"\x11" * 4096)
    assert again.on_disk(SECTORS - 8, 8) == b"\x11" * 4096
    again.dm.shutdown()


def test_what_no_table_takes_stays_until_removal_is_forced(kept: StageLab, tmp_path: Path) -> None:
    kept.pair()
    kept.still()
    kept.put(0, 8, 0x11)
    again = back_without(kept, tmp_path / "second")
    with pytest.raises(TableError, match="stays suspended"):
        again.reload("org", f"0 {SECTORS} error")
    assert not any("are lost" in line for line in again.messages)
    again.dm.remove("org", force=True)
    assert "org: 4096 bytes that were written to it are lost" in again.messages
    assert list(again.stages.iterdir()) == []
    again.dm.shutdown()


def test_the_state_is_told_before_the_first_write_is_taken(kept: StageLab) -> None:
    """Or a kill would forget the file of a device that the state does not know as an origin."""
    told: list[tuple[str, bool]] = []

    def look() -> None:
        for device in kept.dm.snapshot_state()["devices"]:
            if device["name"] == "org" and device.get("table"):
                told.append((device["table"][0][2], kept.dm.mapped("org")._closed > 0))

    kept.dm.on_change.append(look)
    kept.pair()
    assert told[0] == ("snapshot-origin", True)


def test_a_thread_survives_what_it_does_not_know(kept: StageLab) -> None:
    kept.pair()
    stage = inner(kept)
    seen: list[int] = []
    commit = stage.commit

    def fail() -> None:
        seen.append(1)
        raise RuntimeError("no more memory")

    stage.commit = fail  # type: ignore[method-assign]
    stage._wake.set()
    kept.put(0, 8, 0x11)
    for _ in range(500):
        if seen:
            break
        stage._wake.set()
        stage._wake.wait(0.01)
    assert seen
    stage.commit = commit  # type: ignore[method-assign]
    thread = stage._thread
    assert thread is not None
    thread.join(0.1)
    assert thread.is_alive()


def test_a_page_that_comes_back_is_never_out_of_sight(kept: StageLab) -> None:
    """When the origin took nothing, readers without the lock find what they found."""
    kept.pair()
    kept.still()
    stage = inner(kept)
    kept.put(0, 8, 0x11)
    stage._sealed, stage._active = stage._active, {}
    sealed = stage._sealed

    class Watched(dict[int, int]):
        def __setitem__(self, page: int, slot: int) -> None:
            assert page in sealed
            assert stage.holds
            super().__setitem__(page, slot)

    stage._active = Watched()
    with stage._lock:
        stage._let_go({0})
    assert stage.holds
    assert stage._active == {0: sealed[0]}


@pytest.mark.parametrize("head", [(1 << 64) - 1, 1 << 40])
def test_a_hostile_file(kept: StageLab, tmp_path: Path, head: int) -> None:
    kept.pair()
    kept.still()
    before = kept.read("org", 0, 8)
    kept.put(0, 8, 0x11)
    path = kept.stages / "1"
    whole = path.read_bytes()
    stage: Any = inner(kept)
    slot = next(iter(stage._active.values()))
    at = PAGE + 16 * slot
    for name, spoilt in {
        "page": whole[:at] + struct.pack("<QQ", head, 1) + whole[at + 16 :],
        "number": whole[:at] + struct.pack("<QQ", 0, (1 << 64) - 1) + whole[at + 16 :],
        "slots": whole[:16] + struct.pack("<Q", head) + whole[24:],
    }.items():
        path.write_bytes(spoilt)
        again = killed(kept, tmp_path / f"{name}{head}")
        assert again.read("org", 0, 8) in (before, b"\x11" * 4096), name
        again.put(0, 8, 0x22)
        again.dm.mapped("org").flush()
        assert again.on_disk(0, 8) == b"\x22" * 4096
        again.dm.shutdown()


def test_a_suspend_does_not_wait_for_one_that_is_suspended(kept: StageLab) -> None:
    """It was drained; what its origin refuses stays, and must not hold the next command up."""
    origin, cow = kept.file("origin", SECTORS), kept.file("cow", 20_000)
    kept.device("real", f"0 {SECTORS} linear {origin} 0")
    kept.device("cow", f"0 20000 linear {cow} 0")
    kept.device("snap", f"0 {SECTORS} snapshot 253:0 253:1 P 8")
    kept.device("org", f"0 {SECTORS} snapshot-origin 253:0")
    kept.still()
    kept.put(0, 8, 0x11)
    kept.faults["origin"].fail("write")
    kept.dm.suspend("org")
    kept.dm.suspend("real")
    asked: list[int] = []
    kept.dm.mapped("org").settle = lambda: asked.append(1)  # type: ignore[method-assign]
    kept.dm.suspend("cow")
    assert asked == []
    kept.faults["origin"].clear()
    for name in ("cow", "real", "org"):
        kept.dm.resume(name)


def test_a_full_run_directory_keeps_room_for_others(kept: StageLab) -> None:
    """What is there is for the state and everybody else's files, too."""
    kept.pair()
    stage = inner(kept)
    stage._least_free = 1 << 62
    kept.put(0, 8, 0x11)
    assert kept.on_disk(0, 8) == b"\x11" * 4096
    assert any("the stage stays at 0 bytes" in line for line in kept.messages)


def test_a_status_in_the_midst_of_a_commit(kept: StageLab) -> None:
    """It is that of after it, as that of before it."""
    kept.pair(1)
    kept.still()
    kept.put(0, 100, 0x11)
    seen: list[str] = []
    for disk in kept.faults.values():
        disk.look = lambda: seen.append(kept.status("snap"))  # type: ignore[method-assign]
    want = kept.status("snap")
    kept.dm.mapped("org").flush()
    assert len(seen) > 4
    assert set(seen) == {want, kept.status("snap")} == {"105/20000 5"}


def test_sizes_have_a_limit() -> None:
    assert StageSettings(1 << 80).slots == StageSettings(1 << 60).slots
    assert StageSettings(-5).slots == 0
    assert parse_table("0 8 zero")
