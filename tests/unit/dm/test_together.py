"""Several reads or writes in one call are the same as each by itself, on devices of all kinds."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests import effort
from tests.unit.dm.stage_lab import BIG, SECTORS, SMALL, StageLab
from ulvm.errors import DeviceError

KINDS = ("linear", "striped", "origin", "snapshot", "merge", "parts")


def make(lab: StageLab, kind: str) -> str:
    lab.pair()
    origin, cow = lab.folder / "origin", lab.folder / "cow"
    match kind:
        case "origin":
            return "org"
        case "snapshot":
            return "snap"
        case "merge":
            for sector in range(0, SECTORS, 64):
                lab.dm.mapped("snap").write(sector * 512, b"\x77" * 9 * 512)
            for name in ("org", "snap"):
                lab.dm.suspend(name)
            lab.reload("org", f"0 {SECTORS} snapshot-merge {origin} {cow} P 8")
            return "org"
    other = lab.file("other", SECTORS)
    tables = {
        "linear": f"0 {SECTORS} linear {other} 0",
        "striped": f"0 {SECTORS} striped 2 16 {other} 0 {other} {SECTORS // 2}",
        "parts": f"0 1000 linear {other} 0\n1000 {SECTORS - 1000} linear {other} 1000",
    }
    return lab.device(kind, tables[kind])


@pytest.mark.parametrize("size", [SMALL, BIG])
@pytest.mark.parametrize("kind", KINDS)
def test_several_in_one_call(tmp_path: Path, kind: str, size: int) -> None:
    lab = StageLab(tmp_path, size)
    device = lab.dm.mapped(make(lab, kind))
    dice = effort.rng("together", kind, size)
    want = bytearray(device.read(0, SECTORS * 512))
    for turn in range(1, 40):
        places = ranges(dice)
        if turn % 3:
            pieces = [(offset, memoryview(bytearray(length))) for offset, length in places]
            device.readinto_each(pieces)
            for offset, buffer in pieces:
                assert buffer == want[offset : offset + len(buffer)], (turn, offset)
        else:
            data = [
                (offset, bytes([turn + n]) * length) for n, (offset, length) in enumerate(places)
            ]
            device.write_each([(offset, memoryview(piece)) for offset, piece in data])
            for offset, piece in data:
                want[offset : offset + len(piece)] = piece
        if turn % 10 == 0:
            device.flush()
    assert device.read(0, SECTORS * 512) == want
    for act in (device.readinto_each, device.write_each):
        with pytest.raises(DeviceError):
            act([(0, memoryview(bytearray(512))), (SECTORS * 512 - 1, memoryview(bytearray(512)))])
    lab.dm.shutdown()


def ranges(dice: random.Random) -> list[tuple[int, int]]:
    """Of sectors, none over another, since the order within a call is nobody's promise."""
    cuts = sorted(dice.sample(range(SECTORS), 2 * dice.choice([1, 2, 16, 80])))
    found = [
        (first * 512, min(last - first, 40) * 512)
        for first, last in zip(cuts[::2], cuts[1::2], strict=True)
    ]
    dice.shuffle(found)
    return found
