"""The stage of a snapshot: writes that wait for their exceptions, and what becomes of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from tests.unit.dm.lab import store_records
from tests.unit.dm.stage_lab import BIG, SECTORS, SMALL, StageLab, killed, killed_anywhere
from ulvm.blockdev.base import Changed
from ulvm.dm.device import MappedDevice
from ulvm.errors import DeviceError, TableError


def put(lab: StageLab, sector: int, count: int, fill: int) -> None:
    lab.dm.mapped("snap").write(sector * 512, bytes([fill]) * (count * 512))


def on_cow(lab: StageLab, chunk: int, sector: int, count: int) -> bytes:
    """Of chunks of 4 KiB."""
    data = (lab.folder / "cow").read_bytes()
    return data[chunk * 4096 + sector * 512 :][: count * 512]


def records(lab: StageLab) -> list[tuple[int, int]]:
    return store_records(str(lab.folder / "cow"), 8)


def used(chunks: int, chunk: int) -> range:
    """Chunks of a COW with so many exceptions: header, areas, and theirs."""
    per_area = chunk * 512 // 16
    return range(1 + chunks // per_area + 1 + chunks)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[StageLab]:
    lab = StageLab(tmp_path)
    lab.pair()
    lab.still("snap", "org")
    yield lab
    lab.dm.shutdown()


def test_the_snapshot_shows_it_and_the_origin_does_not(stage: StageLab) -> None:
    before = stage.read("org", 0, 64)
    put(stage, 3, 10, 0xAA)
    want = before[: 3 * 512] + b"\xaa" * 5120 + before[13 * 512 : 8192]
    assert stage.read("snap", 0, 16) == want
    assert stage.read("org", 0, 64) == before
    assert records(stage) == []
    assert stage.status("snap") == "32/20000 16", "as after a commit"
    stage.dm.mapped("snap").flush()
    assert records(stage) == [(0, 2), (1, 3)]
    assert on_cow(stage, 2, 0, 16) == want
    assert stage.on_disk(0, 64) == before
    assert stage.read("snap", 0, 16) == want


def test_sectors_of_one_page_by_turns(stage: StageLab) -> None:
    """Staged, sealed, settled by the origin: whichever way each goes, none is lost."""
    snap = stage.dm.mapped("snap")
    for n in range(8):
        put(stage, n, 1, n + 1)
        if n == 2:
            stage.put(0, 8, 0xEE)
            stage.dm.mapped("org").flush()  # its chunk is DONE, its page still staged
            assert records(stage) == [(0, 2)]
            assert on_cow(stage, 2, 0, 1) != b"\1" * 512
        if n == 4:
            snap.settle()
    want = b"".join(bytes([n + 1]) * 512 for n in range(8))
    assert stage.read("snap", 0, 8) == want
    snap.flush()
    assert on_cow(stage, 2, 0, 8) == want
    assert stage.on_disk(0, 8) == b"\xee" * 4096


@pytest.mark.parametrize("size", [SMALL, BIG])
@pytest.mark.parametrize("chunk", [8, 64])
def test_writes_of_all_kinds_at_once(tmp_path: Path, size: int, chunk: int) -> None:
    """Some of it staged, some new, some in place; longer than the stage, too."""
    lab = StageLab(tmp_path, size)
    lab.pair(chunk, 8 * SECTORS)
    want = bytearray(lab.read("snap", 0, SECTORS))
    for turn, (sector, count) in enumerate(
        [(0, 8), (64, 72), (3, 30), (7, 130), (100, 3000), (0, SECTORS), (1, SECTORS - 2)]
    ):
        put(lab, sector, count, turn + 1)
        want[sector * 512 : (sector + count) * 512] = bytes([turn + 1]) * (count * 512)
        assert lab.read("snap", 0, SECTORS) == want
        if turn == 1:
            lab.dm.mapped("snap").flush()
    assert lab.status("snap").split("/")[0] == str(len(used(SECTORS // chunk, chunk)) * chunk)
    lab.dm.shutdown()
    lab = StageLab(tmp_path, size)
    lab.tables(chunk)
    assert lab.read("snap", 0, SECTORS) == want
    lab.dm.shutdown()


@pytest.mark.parametrize("chunk", [8, 64])
def test_a_chunk_that_is_staged_whole_is_written_once(tmp_path: Path, chunk: int) -> None:
    """Its old data are not read, nor its new ones written twice; those of others are."""
    lab = StageLab(tmp_path)
    lab.pair(chunk)
    lab.still("snap")
    before = lab.read("snap", 0, SECTORS)
    put(lab, 0, 2 * chunk, 0xAA)
    put(lab, 4 * chunk + 1, 2, 0xBB)
    put(lab, 2 * chunk, chunk - 1, 0xCC)  # all but a sector of it, which the page has been given
    reads, writes = lab.faults["origin"].counts["read"], lab.faults["cow"].counts["write"]
    lab.dm.mapped("snap").settle()
    copied = chunk // 64  # of 64 sectors that of 0xBB, of which one page is staged
    assert lab.faults["origin"].counts["read"] - reads == copied
    writes = lab.faults["cow"].counts["write"] - writes
    assert writes == (5 if copied else 2), "records and a run; two runs, a copy, a page in place"
    want = bytearray(before)
    want[: 2 * chunk * 512] = b"\xaa" * (2 * chunk * 512)
    want[2 * chunk * 512 : (3 * chunk - 1) * 512] = b"\xcc" * ((chunk - 1) * 512)
    want[(4 * chunk + 1) * 512 : (4 * chunk + 3) * 512] = b"\xbb" * 1024
    assert lab.read("snap", 0, SECTORS) == want
    lab.dm.shutdown()
    lab = StageLab(tmp_path)
    lab.tables(chunk)
    assert lab.read("snap", 0, SECTORS) == want
    lab.dm.shutdown()


def test_fua_is_on_the_disk(stage: StageLab) -> None:
    put(stage, 0, 8, 0xAA)
    flushed: list[bool] = []
    stage.faults["cow"].look = lambda: flushed.append(on_cow(stage, 2, 1, 1) == b"\xbb" * 512)
    stage.dm.mapped("snap").write(512, b"\xbb" * 512, fua=True)
    assert flushed[-1], "the last request to the COW is a flush behind the data"
    assert records(stage) == [(0, 2)]
    assert on_cow(stage, 2, 0, 3) == b"\xaa" * 512 + b"\xbb" * 512 + b"\xaa" * 512


def test_a_cow_that_takes_nothing_loses_nothing(stage: StageLab) -> None:
    """What went through before it failed stays right; an exception that fails is the end."""
    put(stage, 0, 8, 0xAA)
    stage.dm.mapped("snap").flush()
    put(stage, 8, 8, 0xBB)
    stage.put(8, 8, 0xEE)
    stage.dm.mapped("org").flush()  # the exception is committed
    stage.faults["cow"].fail("write")
    with pytest.raises(DeviceError):
        stage.dm.mapped("snap").flush()
    put(stage, 10, 1, 0xCC)
    with pytest.raises(DeviceError):
        stage.dm.mapped("snap").flush()
    want = b"\xbb" * 1024 + b"\xcc" * 512 + b"\xbb" * 2560
    assert stage.read("snap", 8, 8) == want
    stage.faults["cow"].clear()
    stage.dm.mapped("snap").flush()
    assert on_cow(stage, 3, 0, 8) == want


def test_an_invalid_one_drops_it(stage: StageLab) -> None:
    put(stage, 0, 8, 0xAA)
    snap = stage.dm.mapped("snap")
    stage.faults["cow"].fail("write")
    with pytest.raises(DeviceError, match="lost"):
        snap.flush()
    assert stage.status("snap") == "Invalid"
    stage.faults["cow"].clear()
    for act in (lambda: stage.read("snap", 0, 8), lambda: put(stage, 0, 8, 1), snap.flush):
        with pytest.raises(DeviceError):
            act()
    assert not stage.stage("snap").holds


def test_a_forced_write_that_is_lost_is_not_answered_as_written(stage: StageLab) -> None:
    stage.faults["cow"].fail("write")
    with pytest.raises(DeviceError):
        stage.dm.mapped("snap").write(0, bytes(4096), fua=True)


def test_without_room(tmp_path: Path) -> None:
    """Header, area, and three chunks: as the kernel, what fits is kept and the rest refused."""
    for kind, shown in (("P", "Invalid"), ("PO", "Overflow")):
        lab = StageLab(tmp_path)
        origin, cow = lab.file("origin", SECTORS), lab.file("cow", 5 * 8)
        lab.device("snap", f"0 {SECTORS} snapshot {origin} {cow} {kind} 8")
        lab.still("snap")
        put(lab, 2, 8, 0xAA)
        with pytest.raises(DeviceError):
            put(lab, 16, 16, 0xBB)
        assert lab.status("snap") == shown
        if kind == "PO":
            assert lab.read("snap", 2, 8) == b"\xaa" * 4096
            assert lab.read("snap", 16, 8) == b"\xbb" * 4096
            lab.dm.mapped("snap").flush()
            assert records(lab) == [(0, 2), (1, 3), (2, 4)]
            assert on_cow(lab, 4, 0, 8) == b"\xbb" * 4096
            assert lab.read("snap", 2, 8) == b"\xaa" * 4096
        with pytest.raises(DeviceError):
            put(lab, 64, 1, 0xCC)
        lab.dm.shutdown()


def test_without_memory_each_write_goes_through(stage: StageLab) -> None:
    put(stage, 0, 8, 0xAA)
    inner = stage.stage("snap")
    with inner._lock:
        inner.retire()
    put(stage, 4, 8, 0xBB)
    assert records(stage) == [(0, 2), (1, 3)]
    assert on_cow(stage, 2, 0, 12) == b"\xaa" * 2048 + b"\xbb" * 4096
    assert not inner.holds
    flushes = stage.faults["cow"].counts["flush"]
    put(stage, 64, 1024, 0xCC)
    assert stage.faults["cow"].counts["flush"] - flushes == 2, "a long one is one commit"
    assert stage.read("snap", 64, 1024) == b"\xcc" * (1024 * 512)


def test_who_asks_what_has_changed_sees_it(stage: StageLab) -> None:
    put(stage, 8, 8, 0xAA)
    snap = stage.dm.mapped("snap")
    changed = snap.changed(0, 3 * 4096)
    assert changed is not None
    assert list(changed) == [
        Changed(0, 4096, False),
        Changed(4096, 4096, True),
        Changed(8192, 4096, False),
    ]
    put(stage, 16, 8, 0xAA)
    assert [e.length for e in snap.extents(0, 3 * 4096) if not e.hole][-1] >= 4096
    assert records(stage) == [(1, 2), (2, 3)]


@pytest.mark.parametrize("lower", ["cow", "real"])
def test_a_suspend_below_comes_after_what_is_staged(tmp_path: Path, lower: str) -> None:
    lab = StageLab(tmp_path)
    origin, cow = lab.file("origin", SECTORS), lab.file("cow", 20_000)
    lab.device("real", f"0 {SECTORS} linear {origin} 0")
    lab.device("cow", f"0 20000 linear {cow} 0")
    lab.device("snap", f"0 {SECTORS} snapshot 253:0 253:1 P 8")
    lab.still("snap")
    put(lab, 0, 8, 0xAA)
    lab.dm.suspend(lower)
    assert on_cow(lab, 2, 0, 8) == b"\xaa" * 4096
    lab.dm.suspend("snap")
    lab.dm.resume("snap")
    lab.dm.resume(lower)
    lab.dm.shutdown()


def test_a_handover_takes_it_along(stage: StageLab) -> None:
    """To a table of the same device: it is in the COW by then, and there is a stage again."""
    put(stage, 0, 8, 0xAA)
    origin, cow = stage.folder / "origin", stage.folder / "cow"
    stage.reload("snap", f"0 {SECTORS} snapshot {origin} {cow} P 8")
    assert on_cow(stage, 2, 0, 8) == b"\xaa" * 4096
    stage.still("snap")
    put(stage, 8, 8, 0xBB)
    assert stage.read("snap", 0, 16) == b"\xaa" * 4096 + b"\xbb" * 4096
    assert records(stage) == [(0, 2)]


@pytest.mark.parametrize("kind", ["snapshot", "snapshot-merge"])
def test_a_handover_while_the_cow_takes_nothing(stage: StageLab, kind: str) -> None:
    """Another table of the device goes on with what is staged; a merge does not begin."""
    put(stage, 0, 8, 0xAA)
    stage.put(0, 8, 0xEE)
    stage.dm.mapped("org").flush()
    stage.faults["cow"].fail("write")
    stage.dm.suspend("snap")
    origin, cow = stage.folder / "origin", stage.folder / "cow"
    name = "snap" if kind == "snapshot" else "org"
    with nullcontext() if name == "snap" else pytest.raises(TableError, match="cannot go on"):
        stage.reload(name, f"0 {SECTORS} {kind} {origin} {cow} P 8")
    stage.faults["cow"].clear()
    stage.dm.resume(name)
    stage.dm.mapped(name).flush()
    assert stage.read(name, 0, 8) == b"\xaa" * 4096
    assert on_cow(stage, 2, 0, 8) == b"\xaa" * 4096


def test_an_invalid_one_is_handed_over_without_what_was_staged(stage: StageLab) -> None:
    put(stage, 0, 8, 0xAA)
    stage.faults["cow"].fail("write")
    stage.put(64, 8, 0xEE)
    stage.dm.mapped("org").flush()
    assert stage.status("snap") == "Invalid"
    stage.dm.suspend("snap")
    origin, cow = stage.folder / "origin", stage.folder / "cow"
    stage.reload("org", f"0 {SECTORS} snapshot-merge {origin} {cow} P 8")
    assert stage.status("org") == "Invalid"
    stage.dm.mapped("org").flush()
    assert stage.read("org", 64, 8) == b"\xee" * 4096


def test_another_device_has_a_stage_of_its_own(stage: StageLab) -> None:
    """What is in the one before is in the COW before that."""
    put(stage, 0, 8, 0xAA)
    origin, cow = stage.folder / "origin", stage.folder / "cow"
    stage.dm.suspend("snap")
    stage.device("other", f"0 {SECTORS} snapshot {origin} {cow} P 8")
    assert on_cow(stage, 2, 0, 8) == b"\xaa" * 4096
    before = stage.stage("snap")
    assert stage.stage("other") is not before
    stage.dm.mapped("other").write(4096, b"\xbb" * 4096)
    assert stage.stage("other").holds
    assert not before.holds
    stage.dm.remove("snap")
    assert stage.read("other", 0, 16) == b"\xaa" * 4096 + b"\xbb" * 4096


@pytest.mark.parametrize(("length", "chunk"), [(SECTORS - 3, 8), (SECTORS, 1)])
def test_where_a_page_is_not_whole_there_is_none(tmp_path: Path, length: int, chunk: int) -> None:
    lab = StageLab(tmp_path)
    origin, cow = lab.file("origin", SECTORS), lab.file("cow", 20_000)
    lab.device("snap", f"0 {length} snapshot {origin} {cow} P {chunk}")
    put(lab, length - 5, 5, 0xAA)
    assert len(store_records(cow, chunk)) == (5 if chunk == 1 else 1)
    assert lab.read("snap", length - 5, 5) == b"\xaa" * 2560
    lab.dm.shutdown()


def test_it_is_merged(stage: StageLab) -> None:
    put(stage, 0, 8, 0xAA)
    origin, cow = stage.folder / "origin", stage.folder / "cow"
    stage.dm.suspend("org")
    stage.dm.suspend("snap")
    stage.reload("org", f"0 {SECTORS} snapshot-merge {origin} {cow} P 8")
    assert stage.read("org", 0, 8) == b"\xaa" * 4096
    stage.dm.suspend("org")
    stage.dm.resume("org")
    stage.dm.remove("snap")


def test_a_snapshot_that_goes_has_it(stage: StageLab) -> None:
    put(stage, 0, 8, 0xAA)
    stage.dm.remove("snap")
    assert records(stage) == [(0, 2)]
    stage.snapshot()
    assert stage.read("snap", 0, 8) == b"\xaa" * 4096


def test_two_writers_of_one_page(tmp_path: Path) -> None:
    """Each keeps to sectors of its own, one of them with flushes: neither undoes the other's."""
    lab = StageLab(tmp_path, SMALL)
    lab.pair(8, 20_000)
    snap = lab.dm.mapped("snap")
    wrong: list[str] = []

    def work(part: int) -> None:
        for turn in range(1, 400):
            page = turn % 40
            sector = page * 8 + part
            snap.write(sector * 512, bytes([turn % 251]) * 512, fua=part == 1 and turn % 7 == 0)
            if snap.read(sector * 512, 512) != bytes([turn % 251]) * 512:
                wrong.append(f"sector {sector}, turn {turn}")

    threads = [threading.Thread(target=work, args=(part,), daemon=True) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    lab.dm.shutdown()
    assert wrong == []


# -- kill -9 ---------------------------------------------------------------------------------------


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[StageLab]:
    (tmp_path / "first").mkdir()
    lab = StageLab(tmp_path / "first", kept=True)
    lab.pair()
    lab.still("snap", "org")
    yield lab
    lab.dm.shutdown()


def test_it_outlives_a_kill(kept: StageLab, tmp_path: Path) -> None:
    before = kept.read("org", 0, 64)
    put(kept, 0, 8, 0x11)
    kept.dm.mapped("snap").flush()
    put(kept, 2, 1, 0x22)  # settled by then: not staged
    put(kept, 16, 8, 0x33)
    put(kept, 17, 1, 0x44)
    kept.put(16, 8, 0xEE)
    again = killed(kept, tmp_path / "second")
    want = b"\x11" * 1024 + b"\x22" * 512 + b"\x11" * 2560
    assert again.read("snap", 0, 8) == want
    new = b"\x33" * 512 + b"\x44" * 512 + b"\x33" * 3072
    assert again.read("snap", 16, 8) == new
    assert again.read("org", 0, 64) == before[:8192] + b"\xee" * 4096 + before[12288:]
    again.dm.mapped("snap").flush()
    again.dm.mapped("org").flush()
    assert again.read("snap", 16, 8) == new
    assert again.on_disk(16, 8) == b"\xee" * 4096
    again.dm.shutdown()
    assert list(again.stages.iterdir()) == []


def test_a_kill_in_the_midst_of_a_commit(kept: StageLab, tmp_path: Path) -> None:
    """Between any two requests to the disks, and then once more."""
    before = kept.read("org", 0, 64)
    for sector in range(0, 64, 8):
        put(kept, sector, 8, sector + 1)
        kept.put(sector, 4, 0xEE)
    want = b"".join(bytes([sector + 1]) * 4096 for sector in range(0, 64, 8))
    below = b"".join(b"\xee" * 2048 + before[n + 2048 : n + 4096] for n in range(0, 32768, 4096))

    def check(lab: StageLab, flushed: bool) -> None:
        assert lab.read("snap", 0, 64) == want
        assert lab.read("org", 0, 64) == below
        assert not flushed or lab.on_disk(0, 64) == below

    def flush() -> None:
        for name in ("snap", "org"):
            kept.dm.mapped(name).flush()

    seen = killed_anywhere(kept, tmp_path, flush, check)
    assert seen > 6


def test_it_takes_nothing_before_the_first_write(tmp_path: Path) -> None:
    lab = StageLab(tmp_path, kept=True)
    lab.pair()
    lab.dm.suspend("snap")
    lab.dm.resume("snap")
    lab.read("snap", 0, 8)
    lab.dm.mapped("snap").flush()
    assert [path.name for path in lab.stages.iterdir()] == ["1"], "that of the origin"
    put(lab, 0, 8, 0x11)
    assert sorted(path.name for path in lab.stages.iterdir()) == ["0", "1"]
    lab.dm.shutdown()


def test_many_first_writes_begin_one_stage(tmp_path: Path) -> None:
    for turn in range(20):
        folder = tmp_path / str(turn)
        folder.mkdir()
        lab = StageLab(folder)
        lab.pair()
        snap, ready = lab.dm.mapped("snap"), threading.Barrier(4)

        def work(part: int, snap: MappedDevice = snap, ready: threading.Barrier = ready) -> None:
            ready.wait()
            snap.write(part * 1024, bytes([part + 1]) * 1024)

        threads = [threading.Thread(target=work, args=(part,)) for part in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert lab.read("snap", 0, 8) == b"".join(bytes([part + 1]) * 1024 for part in range(4))
        assert lab.stage("snap")
        lab.dm.shutdown()


def test_one_that_comes_back_invalid_says_what_is_lost(kept: StageLab, tmp_path: Path) -> None:
    put(kept, 0, 8, 0x11)
    state = kept.dm.snapshot_state()
    state["devices"][0]["lost"] = ["invalid"]
    kept.dm.snapshot_state = lambda: state  # type: ignore[method-assign]
    again = killed(kept, tmp_path / "second")
    assert again.status("snap") == "Invalid"
    assert "snap: 4096 bytes that were written to it before are lost" in again.messages
    assert again.stages.joinpath("0").exists() is False
    again.dm.shutdown()
