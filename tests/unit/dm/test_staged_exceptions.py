"""Exceptions of what is staged for an origin: given late and all at once, and the same ones."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.dm.lab import Lab, store_records
from tests.unit.dm.stage_lab import BIG, SECTORS, StageLab
from ulvm.dm import origins
from ulvm.dm.origins import Origin
from ulvm.dm.targets.origin import OriginTarget

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
    """The chunks that have one on disk."""
    chunk = int(lab.table(f"s{number}").split()[3])
    return sorted(old for old, _ in store_records(str(lab.folder / f"cow{number}"), chunk))


def test_they_are_those_that_each_write_would_have_got(labs: tuple[Lab, Lab]) -> None:
    rng = random.Random(1)
    numbers = range(len(labs[0].dm.devices()) - 1)
    staged, at_once = labs
    for count in (1, 5, 70, 30, 100):
        for _ in range(count):
            sector, sectors = rng.randrange(SECTORS - 64), rng.choice((1, 1, 8, 8, 8, 24, 64))
            if rng.random() < 0.7:
                sector &= -8
            for lab in labs:
                lab.dm.mapped("org").write(sector * 512, b"\xaa" * (sectors * 512))
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


@pytest.mark.parametrize("tried", [True, False])
@pytest.mark.parametrize("pages", [1, 100])
def test_a_new_snapshot_has_no_part_in_what_was_written_before(
    stage: StageLab, pages: int, tried: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even where that could not be written yet, whether or not it was tried."""
    if not tried:
        monkeypatch.setattr(Origin, "drain", lambda self: None)
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
    target = stage.dm.mapped("org").targets[0]
    assert isinstance(target, OriginTarget)
    assert len(target._origin._staged) <= 100
    assert stage.status("snap") == "24/20000 16"
