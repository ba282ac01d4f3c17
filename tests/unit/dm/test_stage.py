"""The stage of an origin: who sees what while new data wait, and what becomes of them."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.unit.dm.lab import store_records
from tests.unit.dm.stage_lab import BIG, SECTORS, SMALL, StageLab, Watched, killed, killed_anywhere
from ulvm.dm.mapper import LocalMapper
from ulvm.dm.stage_file import PAGE, StageSettings
from ulvm.dm.table import parse_table
from ulvm.errors import DeviceError


def test_the_origin_shows_it_and_the_snapshot_does_not(stage: StageLab) -> None:
    before = stage.read("snap", 0, 64)
    stage.put(3, 10, 0xAA)
    assert stage.read("org", 0, 16) == before[: 3 * 512] + b"\xaa" * 5120 + before[13 * 512 : 8192]
    assert stage.read("snap", 0, 64) == before
    assert stage.on_disk(0, 64) == before
    assert store_records(str(stage.folder / "cow"), 8) == []
    assert stage.status("snap") == "32/20000 16", "as after a commit"
    stage.dm.mapped("org").flush()
    assert stage.on_disk(3, 10) == b"\xaa" * 5120
    assert store_records(str(stage.folder / "cow"), 8) == [(0, 2), (1, 3)]
    assert stage.read("snap", 0, 64) == before


def test_sectors_of_one_page_by_turns(stage: StageLab) -> None:
    """Staged, sealed, settled: whichever way each goes, none takes another's place."""
    for n in range(8):
        stage.put(n, 1, n + 1)
        if n == 4:
            stage.dm.mapped("org").settle()
    want = b"".join(bytes([n + 1]) * 512 for n in range(8))
    assert stage.read("org", 0, 8) == want
    stage.dm.mapped("org").flush()
    assert stage.on_disk(0, 8) == want


@pytest.mark.parametrize("again", [8, 64])
def test_a_slot_that_is_filled_anew_while_it_is_read(stage: StageLab, again: int) -> None:
    """With another page, or a newer one of the same place."""
    behind = stage.read("org", 8, 8)

    def overtake() -> None:
        stage.faults["origin"].seen = lambda: None
        stage.dm.mapped("org").flush()
        for sector in range(again, again + 8 * 16, 8):
            stage.put(sector, 8, 0xBB)
        stage.put(0, 4, 0xCC)

    stage.put(0, 8, 0xAA)
    stage.faults["origin"].seen = overtake
    data = stage.read("org", 0, 16)
    new = b"\xcc" * 2048 + b"\xaa" * 2048
    assert data[:4096] in (b"\xaa" * 4096, new)
    assert data[4096:] in (behind, b"\xbb" * 4096)


@pytest.mark.parametrize("size", [SMALL, BIG])
@pytest.mark.parametrize("chunk", [1, 8, 64])
@pytest.mark.parametrize("name", ["org", "snap"])
def test_readers_beside_writers_and_commits(
    tmp_path: Path, name: str, size: int, chunk: int
) -> None:
    """A sector only ever becomes newer, for each reader, whatever moves underneath. Of one that is
    being written a reader may see words of both, as of a plain file (pwrite(2) beside pread(2))."""
    lab = StageLab(tmp_path, size)
    lab.pair(chunk, 40_000)
    device = lab.dm.mapped(name)
    for disk in lab.faults.values():
        disk.seen = lambda: time.sleep(0.0003)  # for others to overtake the reader
    span, rounds = 96, 600
    begun, done = [0] * span, [0] * span
    problems: list[str] = []
    stop = threading.Event()

    sectors = np.arange(span, dtype=np.int64) << 32

    def word(sector: int, generation: int) -> bytes:
        return int(sectors[sector] + generation).to_bytes(8, "little")

    def write(part: int) -> None:
        dice = random.Random(part)
        for generation in range(1, rounds + 1):
            first = part + 3 * dice.randrange(span // 3)  # three writers, sectors of their own
            begun[first] = generation
            device.write(first * 512, word(first, generation) * 64)
            done[first] = generation
            if dice.random() < 0.1:
                device.flush()

    def read() -> None:
        seen = np.zeros(span, dtype=np.int64)
        while not stop.is_set():
            least = np.array(done)
            data = device.read(0, span * 512)
            most = np.array(begun)
            values = np.frombuffer(data, dtype="<i8").reshape(span, 64) - sectors[:, np.newaxis]
            low, high = values.min(axis=1), values.max(axis=1)
            wrong = (low < np.maximum(least, seen)) | (high > most)
            wrong |= (low < high) & (least == most)  # torn, and nobody writes it
            problems.extend(f"sector {n}: {values[n]}" for n in np.flatnonzero(wrong))
            seen = low

    for n in range(span):
        device.write(n * 512, word(n, 0) * 64)
    writers = [threading.Thread(target=write, args=(part,), daemon=True) for part in range(3)]
    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    for thread in writers:
        thread.start()
    for thread in writers:
        thread.join(60)
        assert not thread.is_alive()
    stop.set()
    reader.join(60)
    device.flush()
    lab.dm.shutdown()
    assert problems == []
    lab = StageLab(tmp_path, size)
    lab.tables(chunk)
    for n, value in enumerate(done):
        assert lab.read(name, n, 1) == word(n, value) * 64, n
    lab.dm.shutdown()


def test_a_snapshot_made_later_has_what_was_staged(stage: StageLab) -> None:
    """Even if nobody suspends the origin for it."""
    stage.put(0, 8, 0xAA)
    origin, cow = stage.folder / "origin", stage.file("cow2", 20_000)
    stage.device("later", f"0 {SECTORS} snapshot {origin} {cow} P 8")
    stage.put(0, 8, 0xBB)
    assert stage.read("later", 0, 8) == b"\xaa" * 4096
    stage.dm.mapped("org").flush()
    assert stage.read("later", 0, 8) == b"\xaa" * 4096
    assert stage.read("org", 0, 8) == b"\xbb" * 4096


def test_a_snapshot_that_goes_has_its_copies(stage: StageLab) -> None:
    before = stage.read("snap", 0, 8)
    stage.put(0, 8, 0xAA)
    stage.dm.remove("snap")
    assert store_records(str(stage.folder / "cow"), 8) == [(0, 2)]
    stage.dm.remove("org")
    assert stage.on_disk(0, 8) == b"\xaa" * 4096
    stage.tables()
    assert stage.read("snap", 0, 8) == before


@pytest.mark.parametrize("lower", ["cow", "real"])
def test_a_suspend_below_comes_after_what_is_staged(tmp_path: Path, lower: str) -> None:
    lab = StageLab(tmp_path)
    origin, cow = lab.file("origin", SECTORS), lab.file("cow", 20_000)
    lab.device("real", f"0 {SECTORS} linear {origin} 0")
    lab.device("cow", f"0 20000 linear {cow} 0")
    lab.device("snap", f"0 {SECTORS} snapshot 253:0 253:1 P 8")
    lab.device("org", f"0 {SECTORS} snapshot-origin 253:0")
    lab.still()
    lab.put(0, 8, 0xAA)
    lab.dm.suspend(lower)
    assert lab.on_disk(0, 8) == b"\xaa" * 4096
    lab.dm.suspend("org")
    lab.dm.resume("org")
    lab.dm.resume(lower)
    lab.dm.shutdown()


def test_fua_is_on_the_disk(stage: StageLab) -> None:
    stage.put(0, 8, 0xAA)
    stage.dm.mapped("org").write(512, b"\xbb" * 512, fua=True)
    assert stage.on_disk(0, 3) == b"\xaa" * 512 + b"\xbb" * 512 + b"\xaa" * 512


def beside(lab: StageLab, sector: int, most: int = 50) -> list[int]:
    """Whenever the origin's disk is about to be written to, somebody writes a sector there, `most`
    times. What grows with that."""
    done: list[int] = []
    writing = threading.Lock()

    def look() -> None:
        if len(done) < most and writing.acquire(blocking=False):
            done.append(sector)
            lab.put(sector, 1, 0xBB)
            writing.release()

    lab.faults["origin"].look = look  # type: ignore[method-assign]
    return done


@pytest.mark.parametrize(("sectors", "sector"), [(SECTORS, 16), (SECTORS - 4, SECTORS - 7)])
def test_who_writes_beside_a_write_that_waits_does_not_hold_it_up(
    tmp_path: Path, sectors: int, sector: int
) -> None:
    """With FUA, and to the last page if that is not whole: of one chunk, and another page."""
    lab = StageLab(tmp_path)
    disk = lab.file("origin", sectors)
    lab.device("snap", f"0 {sectors} snapshot {disk} {lab.file('cow', 20_000)} P 1024")
    lab.device("org", f"0 {sectors} snapshot-origin {disk}")
    lab.still()
    lab.put(sector - 8, 1, 0xBB)
    done = beside(lab, sector - 8)
    lab.dm.mapped("org").write(sector * 512, b"\xaa" * 512, fua=True)
    assert 0 < len(done) < 10
    assert lab.on_disk(sector, 1) == b"\xaa" * 512
    lab.faults["origin"].look = Watched.look  # type: ignore[method-assign]
    lab.dm.shutdown()


@pytest.mark.parametrize(("count", "fua"), [(1, True), (524, False)])
def test_a_write_past_the_stage_is_not_overtaken_by_older_sectors_of_its_pages(
    tmp_path: Path, count: int, fua: bool
) -> None:
    """The end of the snapshot is within a chunk, of whose rest nothing is known."""
    lab = StageLab(tmp_path)
    disk, end = lab.file("origin", SECTORS), 32 + count
    lab.device("snap", f"0 24 snapshot {disk} {lab.file('cow', 20_000)} P 4096")
    lab.device("org", f"0 {SECTORS} snapshot-origin {disk}")
    lab.still()
    beside(lab, end + 1, 1)
    lab.dm.mapped("org").write(32 * 512, b"\xaa" * (count * 512), fua=fua)
    lab.dm.mapped("org").flush()
    assert lab.on_disk(32, count) == b"\xaa" * (count * 512)
    lab.dm.shutdown()


def test_an_origin_that_takes_nothing_loses_nothing(stage: StageLab) -> None:
    """Flushes fail while it does, reads show what was written, and later it goes through."""
    stage.put(0, 8, 0xAA)
    stage.faults["origin"].fail("write")
    with pytest.raises(DeviceError):
        stage.dm.mapped("org").flush()
    stage.put(2, 1, 0xBB)
    with pytest.raises(DeviceError):
        stage.dm.mapped("org").flush()
    want = b"\xaa" * 1024 + b"\xbb" * 512 + b"\xaa" * 2560
    assert stage.read("org", 0, 8) == want
    assert stage.status("snap") == "24/20000 16"
    stage.faults["origin"].clear()
    stage.dm.mapped("org").flush()
    assert stage.on_disk(0, 8) == want


@pytest.mark.usefixtures("no_threads")
def test_without_a_thread_who_writes_commits(tmp_path: Path) -> None:
    lab = StageLab(tmp_path)
    lab.pair()
    lab.put(0, 8, 0xAA)
    assert lab.on_disk(0, 8) == b"\xaa" * 4096
    lab.dm.shutdown()


def test_a_stage_that_is_full_makes_room(tmp_path: Path) -> None:
    lab = StageLab(tmp_path, SMALL)
    lab.pair()
    lab.still()
    for sector in range(0, SECTORS, 8):
        lab.put(sector, 8, sector // 8 % 251)
    for sector in range(0, SECTORS, 8):
        assert lab.read("org", sector, 8) == bytes([sector // 8 % 251]) * 4096
    lab.dm.shutdown()
    for sector in range(0, SECTORS, 8):
        assert lab.on_disk(sector, 8) == bytes([sector // 8 % 251]) * 4096


def test_who_finds_no_room_waits_for_the_commit_under_way_alone(tmp_path: Path) -> None:
    lab = StageLab(tmp_path, SMALL)
    lab.pair()
    lab.still()
    cow, entered, goes_on = lab.faults["cow"], threading.Event(), threading.Event()
    turns: list[int] = []

    def look() -> None:
        if threading.current_thread() is not flusher:
            turns.append(1)  # the writer commits
            return
        entered.set()
        assert goes_on.wait(10)

    flusher = threading.Thread(target=lab.dm.mapped("org").flush)
    for page in range(10):
        lab.put(page * 8, 8, page + 1)
    cow.look = look
    flusher.start()
    assert entered.wait(10)

    def fill() -> None:
        for page in range(10, 10 + 8):  # there are 16
            lab.put(page * 8, 8, page + 1)

    writer = threading.Thread(target=fill)
    writer.start()
    writer.join(0.2)
    assert writer.is_alive()
    goes_on.set()
    writer.join(10)
    flusher.join(10)
    assert not writer.is_alive()
    assert not turns
    cow.look = Watched.look
    lab.dm.mapped("org").flush()
    assert lab.on_disk(0, 18 * 8) == b"".join(bytes([n + 1]) * PAGE for n in range(18))
    lab.dm.shutdown()


# -- kill -9 ---------------------------------------------------------------------------------------


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[StageLab]:
    lab = StageLab(tmp_path / "first", kept=True)
    yield lab
    lab.dm.shutdown()


@pytest.fixture(autouse=True)
def folder_first(tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()


def test_it_outlives_a_kill(kept: StageLab, tmp_path: Path) -> None:
    kept.pair()
    kept.still()
    before = kept.read("snap", 0, 64)
    kept.put(0, 8, 0x11)
    kept.dm.mapped("org").flush()
    kept.put(2, 1, 0x22)  # settled by then: not staged
    kept.put(16, 8, 0x33)
    kept.put(17, 1, 0x44)
    assert kept.on_disk(16, 8) == before[16 * 512 : 24 * 512]
    again = killed(kept, tmp_path / "second")
    want = b"\x11" * 1024 + b"\x22" * 512 + b"\x11" * 2560
    assert again.read("org", 0, 8) == want
    assert again.read("org", 16, 8) == b"\x33" * 512 + b"\x44" * 512 + b"\x33" * 3072
    assert again.read("snap", 0, 64) == before
    again.dm.mapped("org").flush()
    assert again.read("snap", 0, 64) == before
    assert again.on_disk(16, 2) == b"\x33" * 512 + b"\x44" * 512
    again.dm.shutdown()
    assert list(again.stages.iterdir()) == []


def test_a_kill_in_the_midst_of_a_commit(kept: StageLab, tmp_path: Path) -> None:
    """Between any two requests to the disks, and then once more."""
    kept.pair()
    kept.still()
    before = kept.read("snap", 0, 64)
    for sector in range(0, 64, 8):
        kept.put(sector, 8, sector + 1)
    want = b"".join(bytes([sector + 1]) * 4096 for sector in range(0, 64, 8))

    def check(lab: StageLab, flushed: bool) -> None:
        assert lab.read("org", 0, 64) == want
        assert lab.read("snap", 0, 64) == before
        assert not flushed or lab.on_disk(0, 64) == want

    seen = killed_anywhere(kept, tmp_path, kept.dm.mapped("org").flush, check)
    assert seen > 4


def test_a_file_of_another_device_or_boot_means_nothing(kept: StageLab, tmp_path: Path) -> None:
    kept.pair()
    kept.still()
    before = kept.read("org", 0, 8)
    kept.put(0, 8, 0x11)
    left = (kept.stages / "1").read_bytes()
    place = left.index(Path("/proc/sys/kernel/random/boot_id").read_bytes()[:36])
    for name, spoilt in {
        "boot": left[:place] + b"x" + left[place + 1 :],
        "magic": b"y" + left[1:],
        "short": left[:5000],
        "empty": b"",
    }.items():
        (kept.stages / "1").write_bytes(spoilt)
        again = killed(kept, tmp_path / name)
        assert again.read("org", 0, 8) == before, name
        again.dm.shutdown()


def test_what_is_made_anew_begins_with_nothing(kept: StageLab, tmp_path: Path) -> None:
    """Not a device that came back, but another one of the same number."""
    kept.pair()
    kept.still()
    before = kept.read("org", 0, 8)
    kept.put(0, 8, 0x11)
    folder = tmp_path / "second"
    folder.mkdir()
    (folder / "stage").mkdir()
    for name in ("origin", "cow", "stage/1"):
        (folder / name).write_bytes((kept.folder / name).read_bytes())
    other = StageLab(folder, kept=True)
    other.tables()
    assert other.read("org", 0, 8) == before
    other.dm.shutdown()


def test_without_a_place_for_the_file_all_goes_on(tmp_path: Path) -> None:
    lab = StageLab(tmp_path)
    (tmp_path / "stage").write_text("no directory")
    lab.dm = LocalMapper(log=lab.messages.append, stage=StageSettings(BIG, tmp_path / "stage"))
    lab.pair()
    lab.put(0, 8, 0x11)
    assert lab.on_disk(0, 8) == b"\x11" * 4096
    assert any("no stage" in line for line in lab.messages)
    lab.dm.shutdown()


def test_memory_goes_back(kept: StageLab) -> None:
    kept.pair()
    kept.still()
    org, file = kept.dm.mapped("org"), kept.stages / "1"
    for sector in range(0, SECTORS // 8, 8):
        kept.put(sector, 8, 1)
    org.flush()
    full = file.stat().st_blocks
    inner = org.targets[0]._origin.stage  # type: ignore[attr-defined]
    with inner._lock:
        inner._give_back()
    assert file.stat().st_blocks < full / 4
    kept.put(SECTORS // 2, 8, 2)
    assert kept.read("org", SECTORS // 2, 8) == b"\x02" * 4096


def test_what_a_snapshot_discards_of_its_origin_does_not_come_back(stage: StageLab) -> None:
    line = f"0 {SECTORS} snapshot {stage.folder}/origin {stage.folder}/cow P 8"
    stage.dm.load("snap", parse_table(f"{line} 2 discard_zeroes_cow discard_passdown_origin"))
    for name in ("org", "snap"):
        stage.dm.suspend(name)
    for name in ("snap", "org"):
        stage.dm.resume(name)
    stage.put(8, 32, 0xAA)
    stage.dm.mapped("snap").discard(16 * 512, 8 * 512)
    kept = b"\xaa" * (8 * 512)
    for _ in range(2):
        assert stage.read("org", 8, 32) == kept + bytes(8 * 512) + 2 * kept
        stage.dm.mapped("org").flush()
