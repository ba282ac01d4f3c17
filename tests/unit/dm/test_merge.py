"""snapshot-merge: order, status, interruption, other snapshots, failure."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.unit.dm.lab import SECTOR, Lab, header, make_store, runs, store_records
from tests.unit.dm.stage_lab import StageLab
from tests.unit.dm.test_failures import FaultyLab
from tests.waiting import until
from ulvm.dm.table import parse_table
from ulvm.dm.targets import merge
from ulvm.errors import DeviceError, TableError


def wait_status(lab: Lab, name: str, *wanted: str) -> str:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if lab.status(name) in wanted:
            return lab.status(name)
        time.sleep(0.005)
    raise AssertionError(f"{name} is {lab.status(name)!r}, not one of {wanted}")


def test_merge_takes_over_and_ends_empty(lab: Lab) -> None:
    origin, cow = lab.file("origin", 8192), lab.file("cow", 4096)
    before = lab.fill_pattern(origin, 8192)
    lab.device("org", f"0 8192 snapshot-origin {origin}")
    lab.device("snap", f"0 8192 snapshot {origin} {cow} P 8")
    lab.write("org", 100, 200)
    lab.write("org", 4000, 64)
    lab.write("snap", 8000, 8, 0x5A)
    lab.dm.load("org", parse_table(f"0 8192 snapshot-merge {origin} {cow} P 8"))
    assert lab.dm.table("org", inactive=True)[0].params.endswith("P 0")
    lab.dm.suspend("snap")
    lab.dm.resume("org")
    wait_status(lab, "org", "16/4096 16")
    wanted = bytearray(before)
    wanted[8000 * SECTOR : 8008 * SECTOR] = b"\x5a" * (8 * SECTOR)
    assert lab.read("org", 0, 8192) == bytes(wanted)
    assert Path(origin).read_bytes() == bytes(wanted)
    assert store_records(cow, 8) == []
    assert header(cow) == (0x70416E53, 1, 1, 8)
    assert lab.dm.info("org").event_nr == 0
    # The source gave everything away: it may be resumed, and is invalid for ever.
    lab.dm.resume("snap")
    assert lab.status("snap") == "Invalid"
    assert lab.table("snap").endswith("P 0")
    with pytest.raises(DeviceError):
        lab.read("snap", 0, 1)


def test_merge_without_source_reads_the_store(lab: Lab) -> None:
    origin, cow = lab.file("origin", 8192), lab.file("cow", 4096)
    lab.fill_pattern(origin, 8192)
    make_store(cow, 8, runs("5>2", "9..12>3..6"), 4096)
    lab.device("org", f"0 8192 snapshot-merge {origin} {cow} P 8")
    wait_status(lab, "org", "16/4096 16")
    assert lab.read("org", 40, 8) == b"\x02" * (8 * SECTOR)
    assert lab.read("org", 96, 8) == b"\x06" * (8 * SECTOR)
    assert int.from_bytes(lab.read("org", 48, 1)[:8], "little") == 48


def test_of_two_records_for_a_chunk_the_oldest_lasts(lab: Lab) -> None:
    origin, cow = lab.file("origin", 8192), lab.file("cow", 4096)
    make_store(cow, 8, [(5, 2), (5, 3)], 4096)
    lab.device("org", f"0 8192 snapshot-merge {origin} {cow} P 8")
    wait_status(lab, "org", "16/4096 16")
    assert lab.read("org", 40, 8) == b"\x02" * (8 * SECTOR)


def test_merge_gives_the_other_snapshots_their_copies(lab: Lab) -> None:
    origin = lab.file("origin", 8192)
    a, b = lab.file("a.cow", 4096), lab.file("b.cow", 4096)
    lab.fill_pattern(origin, 8192)
    lab.device("org", f"0 8192 snapshot-origin {origin}")
    lab.device("a", f"0 8192 snapshot {origin} {a} P 8")
    lab.write("org", 800, 64, 0x10)
    lab.device("b", f"0 8192 snapshot {origin} {b} P 16")
    at_b = lab.read("b", 0, 8192)
    lab.write("org", 1600, 8, 0x20)
    lab.dm.suspend("org")
    lab.dm.suspend("a")
    lab.reload("org", f"0 8192 snapshot-merge {origin} {a} P 8")
    wait_status(lab, "org", "16/4096 16")
    assert lab.read("b", 0, 8192) == at_b
    assert int.from_bytes(lab.read("org", 801, 1)[:8], "little") == 801
    assert {old for old, _ in store_records(b, 16)} == {50, 51, 52, 53, 100}


def test_others_are_given_their_copies_in_the_order_of_the_merge(lab: Lab) -> None:
    """The last first, as the kernel merges."""
    origin, a, b = lab.file("origin", 8192), lab.file("a.cow", 4096), lab.file("b.cow", 4096)
    make_store(a, 8, runs("5>2", "20..22>3..5", "9>6"), 4096)
    lab.device("b", f"0 8192 snapshot {origin} {b} P 8")
    lab.device("org", f"0 8192 snapshot-merge {origin} {a} P 8")
    wait_status(lab, "org", "16/4096 16")
    assert [old for old, _ in store_records(b, 8)] == [9, 20, 21, 22, 5]


def test_a_second_merge_is_refused(lab: Lab) -> None:
    origin, a, b = lab.file("origin", 8192), lab.file("a.cow", 4096), lab.file("b.cow", 4096)
    lab.device("a", f"0 8192 snapshot {origin} {a} P 8")
    lab.device("b", f"0 8192 snapshot {origin} {b} P 8")
    lab.dm.create("org")
    lab.dm.load("org", parse_table(f"0 8192 snapshot-merge {origin} {a} P 8"))
    lab.dm.create("two")
    with pytest.raises(TableError, match=r"A snapshot is already merging\."):
        lab.dm.load("two", parse_table(f"0 8192 snapshot-merge {origin} {b} P 8"))


def test_an_invalid_store_is_not_merged(lab: Lab) -> None:
    origin, cow = lab.file("origin", 8192), lab.file("cow", 4096)
    lab.fill_pattern(origin, 8192)
    make_store(cow, 8, [(5, 2)], 4096, valid=0)
    lab.device("org", f"0 8192 snapshot-merge {origin} {cow} P 8")
    assert lab.status("org") == "Invalid"
    assert int.from_bytes(lab.read("org", 40, 1)[:8], "little") == 40
    lab.write("org", 40, 1, 0x99)
    assert lab.read("org", 40, 1) == b"\x99" * SECTOR
    one, other = memoryview(bytearray(SECTOR)), memoryview(bytearray(SECTOR))
    lab.dm.mapped("org").readinto_each([(40 * SECTOR, one), (48 * SECTOR, other)])
    assert (one[0], other[0]) == (0x99, 48)


def test_writes_while_suspended_halfway(faulty: FaultyLab) -> None:
    """40 isolated chunks and a run of 6; the origin cannot be written at sector 1290: the
    merge stops with 'Merge failed', goes on with the rest honoured, and ends when mended."""
    lab = faulty
    origin, cow = lab.file("origin", 8192), lab.file("cow", 4096)
    lab.fill_pattern(origin, 8192)
    records = [(1000 + 10 * n, 0) for n in range(40)] + [(3000 + n, 0) for n in range(6)]
    placed = [(old, 2 + i + i // 32) for i, (old, _) in enumerate(records)]
    make_store(cow, 1, placed, 4096)
    lab.device("snap", f"0 8192 snapshot {origin} {cow} P 1")
    assert lab.status("snap") == "49/4096 3"
    lab.dm.remove("snap")
    lab.dm.create("org")
    lab.dm.load("org", parse_table(f"0 8192 snapshot-merge {origin} {cow} P 1"))
    lab.faults["origin"].fail_range("write", 1290 * SECTOR, SECTOR)
    lab.dm.resume("org")
    wait_status(lab, "org", "Merge failed")
    assert lab.read("org", 1290, 1) == bytes([dict(placed)[1290] % 256]) * SECTOR
    lab.write("org", 1000, 1, 0x66)
    assert lab.read("org", 1000, 1) == b"\x66" * SECTOR
    left = store_records(cow, 1)
    assert left == placed[: len(left)]
    assert (1290, dict(placed)[1290]) in left
    lab.faults["origin"].clear()
    lab.dm.suspend("org")
    lab.dm.resume("org")
    deadline = time.monotonic() + 20
    while store_records(cow, 1) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert lab.status("org") == "Merge failed"  # sticky until the table is loaded again
    merge = f"0 8192 snapshot-merge {origin} {cow} P 1"
    with pytest.raises(TableError, match=r"A snapshot is already merging\."):
        lab.reload("org", merge)  # from one merge to another: the kernel refuses, too
    lab.reload("org", f"0 8192 snapshot {origin} {cow} P 1")
    assert lab.status("org") == "2/4096 2"
    lab.reload("org", merge)
    wait_status(lab, "org", "2/4096 2")
    assert lab.read("org", 1000, 1) == b"\x66" * SECTOR
    assert lab.read("org", 3005, 1) == bytes([dict(placed)[3005] % 256]) * SECTOR
    lab.dm.shutdown()


def test_half_merged_store_has_the_kernels_numbers(lab: Lab) -> None:
    """The kernel's half-way vector: 30 records left in area 0, area 1 zero."""
    origin, cow = lab.file("origin", 8192), lab.file("cow", 4096)
    make_store(cow, 1, [(1000 + 10 * n, 2 + n) for n in range(30)], 4096)
    lab.device("snap", f"0 8192 snapshot {origin} {cow} P 1")
    assert lab.status("snap") == "32/4096 2"
    lab.dm.remove("snap")
    lab.device("org", f"0 8192 snapshot-merge {origin} {cow} P 1")
    wait_status(lab, "org", "2/4096 2")


@pytest.fixture
def faulty(tmp_path: Path) -> FaultyLab:
    return FaultyLab(tmp_path)


def test_status_while_merging_is_the_kernels_formula(lab: Lab) -> None:
    """36 isolated chunks of one sector: 39/4096 3 before; every status seen on the way is
    one that the kernel shows, and the numbers never rise."""
    origin, cow = lab.file("origin", 8192), lab.file("cow", 4096)
    placed = [(10 * n, 2 + n + n // 32) for n in range(36)]
    make_store(cow, 1, placed, 4096)
    lab.device("snap", f"0 8192 snapshot {origin} {cow} P 1")
    assert lab.status("snap") == "39/4096 3"
    lab.dm.remove("snap")
    kernel = {f"{n}/4096 3" for n in (39, 38, 37, 36, 35)}
    kernel |= {f"{n}/4096 2" for n in (35, *range(33, 1, -1))}
    lab.device("org", f"0 8192 snapshot-merge {origin} {cow} P 1")
    seen = [lab.status("org")]
    while seen[-1] != "2/4096 2":
        seen.append(lab.status("org"))
    assert set(seen) <= kernel


def test_merge_is_resumed_by_another_mapper(lab: Lab, tmp_path: Path) -> None:
    origin, cow = lab.file("origin", 65536), lab.file("cow", 65536)
    before = lab.fill_pattern(origin, 65536)
    lab.device("org", f"0 65536 snapshot-origin {origin}")
    lab.device("snap", f"0 65536 snapshot {origin} {cow} P 8")
    for n in range(0, 40000, 16):
        lab.write("org", n, 8)
    lab.dm.suspend("org")
    lab.dm.suspend("snap")
    lab.reload("org", f"0 65536 snapshot-merge {origin} {cow} P 8")
    lab.dm.suspend("org")
    state = lab.dm.snapshot_state()
    half = len(store_records(cow, 8))
    lab.dm.shutdown()
    again = Lab(tmp_path)
    assert again.dm.restore_state(state) == []
    assert again.dm.info("org").suspended
    again.dm.resume("org")
    wait_status(again, "org", "16/65536 16")
    assert half <= 2500
    assert again.read("org", 0, 65536) == before
    again.dm.shutdown()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of two chunks."""
    monkeypatch.setattr(merge, "_BATCH_BYTES", 2 * 8 * SECTOR)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("other", [False, True])
def test_the_next_batch_is_copied_while_the_origin_is_flushed(tmp_path: Path, other: bool) -> None:
    """But where another snapshot is to be given its copies before it is only read."""
    lab = StageLab(tmp_path)
    origin, cow = lab.file("origin", 8192), lab.file("cow", 4096)
    make_store(cow, 8, runs("10..29>2..21"), 4096)
    if other:
        lab.device("other", f"0 8192 snapshot {origin} {lab.file('cow2', 4096)} P 8")
    read, wrote = threading.Event(), threading.Event()
    seen: list[tuple[bool, bool]] = []
    lab.dm.create("org")
    lab.dm.load("org", parse_table(f"0 8192 snapshot-merge {origin} {cow} P 8"))
    lab.faults["cow"].seen = read.set  # type: ignore[method-assign]
    write_each, flush = lab.faults["origin"].write_each, lab.faults["origin"].flush
    written: list[int] = []

    def writing(pieces: Sequence[tuple[int, memoryview]]) -> None:
        write_each(pieces)
        written.extend(offset for offset, _ in pieces)
        if len(written) == len(seen) + 2:
            wrote.set()
        elif pieces:
            read.clear()

    def flushing() -> None:
        patience = 10 if len(seen) < 9 else 0
        last = read.wait(patience) if other else wrote.wait(patience)
        seen.append((last, wrote.is_set()))
        wrote.clear()
        flush()

    lab.faults["origin"].write_each = writing  # type: ignore[method-assign]
    lab.faults["origin"].flush = flushing  # type: ignore[method-assign]
    lab.dm.resume("org")
    wait_status(lab, "org", "16/4096 16")
    assert seen[:9] == [(True, not other)] * 9
    assert sorted(written) == [chunk * 8 * SECTOR for chunk in range(10, 30, 2)]
    for chunk in range(20):
        assert lab.read("org", (10 + chunk) * 8, 8) == bytes([2 + chunk]) * (8 * SECTOR)
    lab.dm.shutdown()


@pytest.mark.usefixtures("small")
def test_what_was_copied_ahead_does_not_count_once_it_is_written_to(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two batches, to the chunks of the next one."""
    origin, cow = lab.file("origin", 8192), lab.file("cow", 4096)
    make_store(cow, 8, runs("10..29>2..21"), 4096)
    left = list(range(10, 28))

    def between(_: str) -> None:
        if left:
            chunk = left.pop()
            lab.dm.mapped("org").write(chunk * 8 * SECTOR, b"\xee" * SECTOR)
            left.pop()

    monkeypatch.setattr(merge, "reach", between)
    lab.device("org", f"0 8192 snapshot-merge {origin} {cow} P 8")
    wait_status(lab, "org", "16/4096 16")
    data = Path(origin).read_bytes()
    for chunk in range(10, 30):
        new = b"\xee" * SECTOR if chunk % 2 and chunk < 28 else bytes([chunk - 8]) * SECTOR
        start = chunk * 8 * SECTOR
        assert data[start : start + 2 * SECTOR] == new + bytes([chunk - 8]) * SECTOR


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("failed", [True, False])
def test_what_was_copied_ahead_does_not_count_behind_a_suspend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failed: bool
) -> None:
    """What the disk took is lost with a flush that failed; or somebody has written meanwhile."""
    lab = StageLab(tmp_path)
    origin, cow = lab.file("origin", 8192), lab.file("cow", 4096)
    make_store(cow, 8, runs("10..29>2..21"), 4096)
    lab.dm.create("org")
    lab.dm.load("org", parse_table(f"0 8192 snapshot-merge {origin} {cow} P 8"))
    inactive = lab.dm.mapped("org").inactive
    assert inactive is not None
    target = inactive.targets[0]
    assert isinstance(target, merge.MergeTarget)

    def stop(_: str) -> None:
        if lab.status("org").split()[0] == f"{(2 + 16) * 8}/4096":
            target._stop.set()

    with monkeypatch.context() as first:
        if failed:
            lab.faults["origin"].fail_nth("flush", 3)
        else:
            first.setattr(merge, "reach", stop)
        lab.dm.resume("org")
        assert target._worker is not None
        target._worker.join()
    assert (lab.status("org") == "Merge failed") == failed
    lab.dm.suspend("org")
    with open(origin, "r+b") as file:
        file.write(bytes(8192 * SECTOR))
    before = store_records(cow, 8)
    lab.dm.resume("org")
    until(lambda: not store_records(cow, 8))
    data = Path(origin).read_bytes()
    assert len(before) == 16
    for old, new in before:
        assert data[old * 8 * SECTOR : (old + 1) * 8 * SECTOR] == bytes([new]) * (8 * SECTOR)
    lab.dm.shutdown()


def test_an_area_that_was_read_ahead_is_forgotten_when_areas_move(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A merge that stops before it, a snapshot again that is written to, a merge again."""
    monkeypatch.setattr(merge, "_BATCH_BYTES", 4 * SECTOR)
    lab = Lab(tmp_path)
    origin, cow = lab.file("origin", 512), lab.file("cow", 4096)
    data_chunks = [chunk for chunk in range(2, 200) if (chunk - 1) % 33][:64]
    make_store(cow, 1, list(enumerate(data_chunks)), 4096)
    line = f"0 512 snapshot{{}} {origin} {cow} P 1"
    lab.dm.create("org")
    lab.dm.load("org", parse_table(line.format("-merge")))
    inactive = lab.dm.mapped("org").inactive
    assert inactive is not None
    target = inactive.targets[0]
    assert isinstance(target, merge.MergeTarget)

    def stop_behind_the_second_area(_: str) -> None:
        if int(lab.status("org").split("/")[0]) == 2 + 32 + 1:
            target._stop.set()

    with monkeypatch.context() as first:
        first.setattr(merge, "reach", stop_behind_the_second_area)
        lab.dm.resume("org")
        assert target._worker is not None
        target._worker.join()
    lab.reload("org", line.format(""))
    lab.write("org", 300, 32, 0x77)
    lab.reload("org", line.format("-merge"))
    wait_status(lab, "org", "2/4096 2")
    assert Path(origin).read_bytes()[300 * SECTOR : 332 * SECTOR] == b"\x77" * (32 * SECTOR)
    lab.dm.shutdown()


@pytest.mark.parametrize("record", ["512>2", "510..513>2"], ids=["at", "over"])
def test_a_record_at_or_over_the_end_of_the_origin_ends_it(lab: Lab, record: str) -> None:
    """And stays: nobody knows what chunk it was for."""
    origin, cow = lab.file("origin", 4096), lab.file("cow", 4096)
    make_store(cow, 8, runs(record), 4096)
    lab.device("org", f"0 4096 snapshot-merge {origin} {cow} P 8")
    wait_status(lab, "org", "Merge failed")
    assert store_records(cow, 8) == runs(record)
    assert any("beyond the origin" in line for line in lab.messages)
    assert Path(origin).stat().st_size == 4096 * SECTOR


def test_the_last_chunk_of_an_origin_may_be_short(lab: Lab) -> None:
    origin, cow = lab.file("origin", 4092), lab.file("cow", 4096)
    make_store(cow, 8, runs("510..511>2"), 4096)
    lab.device("org", f"0 4092 snapshot-merge {origin} {cow} P 8")
    wait_status(lab, "org", "16/4096 16")
    assert Path(origin).read_bytes()[-4 * SECTOR :] == b"\x03" * (4 * SECTOR)


def test_writes_behind_where_the_origin_ended(lab: Lab) -> None:
    """It has grown since its other snapshot was made, and no snapshot-origin has been there."""
    disk, cow = lab.file("disk", 8192), lab.file("cow", 4096)
    make_store(cow, 8, runs("600>2"), 4096)
    lab.device("real", f"0 4096 linear {disk} 0")
    lab.device("snap", f"0 4096 snapshot real {lab.file('kept', 4096)} P 8")
    lab.reload("real", f"0 8192 linear {disk} 0")
    lab.device("org", f"0 8192 snapshot-merge real {cow} P 8")
    for sector in (0, 4088, 6144, 8184):
        lab.write("org", sector, 8)
        assert lab.read("org", sector, 8) == b"\xaa" * (8 * SECTOR)
    wait_status(lab, "org", "16/4096 16")
    assert lab.read("snap", 0, 4096) == bytes(4096 * SECTOR)


def test_one_that_gets_no_thread_has_failed_and_is_taken_up_again(
    lab: Lab, no_threads: pytest.MonkeyPatch
) -> None:
    origin, cow = lab.file("origin", 4096), lab.file("cow", 4096)
    make_store(cow, 8, runs("10..29>2..21"), 4096)
    lab.device("cow", f"0 4096 linear {cow} 0")
    lab.device("org", f"0 4096 snapshot-merge {origin} cow P 8")
    assert lab.status("org") == "Merge failed"
    assert lab.read("org", 80, 8) == b"\x02" * (8 * SECTOR)
    no_threads.undo()
    lab.dm.suspend("org")
    lab.dm.resume("org")
    until(lambda: not store_records(cow, 8))
    lab.dm.remove("org")
    assert lab.dm.info("cow").open_count == 0


def test_one_that_gets_no_second_thread_does_without(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "ulvm-merge-ahead":
            raise MemoryError
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    origin, cow = lab.file("origin", 4096), lab.file("cow", 4096)
    make_store(cow, 8, runs("10..29>2..21"), 4096)
    lab.device("org", f"0 4096 snapshot-merge {origin} {cow} P 8")
    wait_status(lab, "org", "16/4096 16")
