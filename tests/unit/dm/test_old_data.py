"""Several snapshots of an origin: what is read of it once, and what each of them gets."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.dm.stage_lab import BIG, SECTORS, StageLab

ODD = SECTORS - 5
"""The last chunk is not whole."""


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[StageLab]:
    made = StageLab(tmp_path)
    yield made
    made.dm.shutdown()


def build(lab: StageLab, chunks: list[int], sectors: int = SECTORS, cow: int = 20_000) -> bytes:
    """org with a snapshot of each chunk size; what the origin holds."""
    origin = lab.file("origin", sectors)
    before = lab.fill_pattern(origin, sectors)
    for number, chunk in enumerate(chunks):
        path = lab.file(f"cow{number}", cow)
        lab.device(f"snap{number}", f"0 {sectors} snapshot {origin} {path} P {chunk}")
    lab.device("org", f"0 {sectors} snapshot-origin {origin}")
    lab.still()
    return before


def test_it_is_read_once(lab: StageLab) -> None:
    before = build(lab, [8, 8, 8])
    for sector in (0, 80, 16, 3000):
        lab.put(sector, 8, 0x11)
    reads = lab.faults["origin"].counts["read"]
    lab.dm.mapped("org").flush()
    assert lab.faults["origin"].counts["read"] == reads + 4
    for number in range(3):
        assert lab.read(f"snap{number}", 0, SECTORS) == before


@pytest.mark.parametrize("chunks", [[8, 8], [8, 16, 8], [1, 8, 1], [4096, 4096]])
@pytest.mark.parametrize("sectors", [SECTORS, ODD])
def test_each_has_its_copies(lab: StageLab, chunks: list[int], sectors: int) -> None:
    """Of whatever chunks, in whatever order, over borders of metadata areas and the end."""
    before = build(lab, chunks, sectors, 60_000)
    now = bytearray(before)
    dice = random.Random(len(chunks) + sectors)
    for turn in range(60):
        count = dice.choice([1, 8, 64, 200])
        first = dice.randrange(sectors - count)
        lab.put(first, count, turn + 1)
        now[first * 512 : (first + count) * 512] = bytes([turn + 1]) * (count * 512)
        if dice.random() < 0.2:
            lab.dm.mapped("org").flush()
    lab.dm.mapped("org").write((sectors - 4) * 512, b"\xee" * 2048)
    now[(sectors - 4) * 512 :] = b"\xee" * 2048
    assert lab.read("org", 0, sectors) == now
    lab.dm.mapped("org").flush()
    assert lab.on_disk(0, sectors) == now
    for number in range(len(chunks)):
        assert lab.read(f"snap{number}", 0, sectors) == before


def test_one_that_was_made_later(lab: StageLab) -> None:
    """It waits for other chunks than those before it."""
    before = build(lab, [8, 8])
    lab.put(0, 8, 0x11)
    lab.dm.suspend("org")
    path = lab.file("later", 20_000)
    lab.device("snap", f"0 {SECTORS} snapshot {lab.folder / 'origin'} {path} P 8")
    lab.dm.resume("org")
    lab.still()
    for sector in (0, 40, 8):
        lab.put(sector, 8, 0x22)
    lab.dm.mapped("org").flush()
    assert lab.read("snap0", 0, SECTORS) == lab.read("snap1", 0, SECTORS) == before
    assert lab.read("snap", 0, SECTORS) == b"\x11" * 4096 + before[4096:]


@pytest.mark.parametrize("name", ["cow0", "cow1"])
def test_one_that_fails_takes_no_other_along(lab: StageLab, name: str) -> None:
    before = build(lab, [8, 8, 8])
    for sector in (0, 80, 16):
        lab.put(sector, 8, 0x11)
    lab.faults[name].fail("write")
    lab.dm.mapped("org").flush()
    for number in range(3):
        if f"cow{number}" == name:
            assert lab.status(f"snap{number}") == "Invalid"
        else:
            assert lab.read(f"snap{number}", 0, SECTORS) == before
    assert lab.on_disk(80, 8) == b"\x11" * 4096


def test_an_origin_that_cannot_be_read(lab: StageLab) -> None:
    """No snapshot gets what was not read; a read that fails once takes one of them alone."""
    before = build(lab, [8, 8])
    for sector in (0, 80, 16):
        lab.put(sector, 8, 0x11)
    lab.faults["origin"].fail_nth("read", 2)
    lab.dm.mapped("org").flush()
    found = [lab.status(f"snap{number}") for number in range(2)]
    assert found.count("Invalid") == 1
    valid = found.index(next(status for status in found if status != "Invalid"))
    assert lab.read(f"snap{valid}", 0, SECTORS) == before


def test_long_writes_into_a_stage_with_gaps(tmp_path: Path) -> None:
    """Slots that follow each other are filled together, wherever single ones came free."""
    lab = StageLab(tmp_path, BIG)
    before = build(lab, [8])
    now = bytearray(before)
    dice = random.Random(7)
    for turn in range(400):
        count = dice.choice([8, 8, 64, 128, 300])
        first = dice.randrange(SECTORS - count)
        data = dice.randbytes(count * 512)
        lab.dm.mapped("org").write(first * 512, data)
        now[first * 512 : (first + count) * 512] = data
        if turn % 97 == 0:
            lab.dm.mapped("org").flush()
        assert lab.read("org", first, count) == data
    assert lab.read("org", 0, SECTORS) == now
    lab.dm.mapped("org").flush()
    assert lab.on_disk(0, SECTORS) == now
    assert lab.read("snap0", 0, SECTORS) == before
    lab.dm.shutdown()
