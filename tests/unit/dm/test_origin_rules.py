"""Which chunks a write copies out, for several snapshots; discards and zeros."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.unit.dm.lab import SECTOR, Lab, runs, store_records
from tests.waiting import until
from ulvm.errors import DeviceError, NotSupportedError


def test_two_snapshots_of_different_chunk_size(lab: Lab) -> None:
    origin = lab.file("origin", 65536)
    a, b = lab.file("a.cow", 4096), lab.file("b.cow", 8192)
    lab.device("org", f"0 65536 snapshot-origin {origin}")
    lab.device("a", f"0 65536 snapshot {origin} {a} P 8")
    lab.device("b", f"0 65536 snapshot {origin} {b} P 32")
    steps = [
        ("org", 40, 1, "24/4096 16", "96/8192 64", ["5>2"], ["1>2"]),
        ("org", 44, 8, "32/4096 16", "96/8192 64", ["6>3"], []),
        ("org", 4000, 64, "96/4096 16", "160/8192 64", ["500..507>4..11"], ["125..126>3..4"]),
        ("a", 100, 1, "104/4096 16", "160/8192 64", ["12>12"], []),
        ("org", 100, 1, "104/4096 16", "192/8192 64", [], ["3>5"]),
    ]
    seen_a: list[tuple[int, int]] = []
    seen_b: list[tuple[int, int]] = []
    for device, sector, count, status_a, status_b, new_a, new_b in steps:
        lab.write(device, sector, count)
        assert (lab.status("a"), lab.status("b")) == (status_a, status_b)
        seen_a += runs(*new_a)
        seen_b += runs(*new_b)
        assert store_records(a, 8) == seen_a
        assert store_records(b, 32) == seen_b


def test_snapshot_shorter_than_the_origin(lab: Lab) -> None:
    origin, cow = lab.file("origin", 65536), lab.file("cow", 4096)
    lab.device("org", f"0 65536 snapshot-origin {origin}")
    lab.device("snap", f"0 1000 snapshot {origin} {cow} P 16")
    lab.write("org", 990, 32)
    assert store_records(cow, 16) == runs("61..62>2..3")
    lab.write("org", 2000, 8)
    assert lab.status("snap") == "64/4096 32"


def test_a_snapshot_added_without_suspending_the_origin_loses_nothing(lab: Lab) -> None:
    """The kernel splits by the chunk size as of the origin's resume and leaks here."""
    origin, cow = lab.file("origin", 65536), lab.file("cow", 4096)
    before = lab.fill_pattern(origin, 65536)
    lab.device("org", f"0 65536 snapshot-origin {origin}")
    lab.device("snap", f"0 65536 snapshot {origin} {cow} P 8")
    lab.write("org", 96, 32)
    assert store_records(cow, 8) == runs("12..15>2..5")
    assert lab.read("snap", 96, 32) == before[96 * SECTOR : 128 * SECTOR]


def test_no_discard_and_plain_zeros_on_the_three_targets(lab: Lab) -> None:
    origin, cow = lab.file("origin", 65536), lab.file("cow", 4096)
    before = lab.fill_pattern(origin, 65536)
    lab.device("org", f"0 65536 snapshot-origin {origin}")
    lab.device("snap", f"0 65536 snapshot {origin} {cow} P 8")
    for name in ("org", "snap"):
        assert not lab.dm.mapped(name).can_discard
        with pytest.raises(NotSupportedError) as caught:
            lab.dm.mapped(name).discard(0, 4096)
        assert caught.value.errno == 95
    lab.dm.mapped("org").write_zeroes(80 * SECTOR, 16 * SECTOR)
    lab.dm.mapped("org").settle()
    assert store_records(cow, 8) == runs("10..11>2..3")
    assert lab.read("org", 80, 16) == bytes(16 * SECTOR)
    assert lab.read("snap", 80, 16) == before[80 * SECTOR : 96 * SECTOR]


def test_discard_zeroes_cow(lab: Lab) -> None:
    origin, cow = lab.file("origin", 65536), lab.file("cow", 4096)
    before = lab.fill_pattern(origin, 65536)
    lab.device("org", f"0 65536 snapshot-origin {origin}")
    lab.device("snap", f"0 65536 snapshot {origin} {cow} P 16 1 discard_zeroes_cow")
    lab.write("snap", 16, 16, 0x33)
    status = lab.status("snap")
    snap = lab.dm.mapped("snap")
    assert snap.can_discard
    snap.discard(16 * SECTOR, 16 * SECTOR)
    assert lab.read("snap", 16, 16) == bytes(16 * SECTOR)
    # Without an exception the origin's data stay visible, and nothing is allocated.
    snap.discard(64 * SECTOR, 16 * SECTOR)
    assert lab.read("snap", 64, 16) == before[64 * SECTOR : 80 * SECTOR]
    assert lab.status("snap") == status
    assert store_records(cow, 16) == runs("1>2")


@pytest.mark.parametrize("order", [(2, 3, 4), (4, 2, 3)])
def test_discard_zeroes_all_its_chunks(lab: Lab, order: tuple[int, ...]) -> None:
    """Wherever in the COW they lie; a chunk between them that has no exception stays as it is."""
    origin, cow = lab.file("origin", 1024), lab.file("cow", 4096)
    before = lab.fill_pattern(origin, 1024)
    lab.device("org", f"0 1024 snapshot-origin {origin}")
    lab.device("snap", f"0 1024 snapshot {origin} {cow} P 16 1 discard_zeroes_cow")
    for chunk in order:
        lab.write("snap", chunk * 16, 16, 0x33)
    lab.write("snap", 6 * 16, 16, 0x33)
    lab.dm.mapped("snap").discard(2 * 16 * SECTOR, 5 * 16 * SECTOR)
    wanted = bytearray(before)
    wanted[32 * SECTOR : 80 * SECTOR] = bytes(48 * SECTOR)
    wanted[96 * SECTOR : 112 * SECTOR] = bytes(16 * SECTOR)
    assert lab.read("snap", 0, 1024) == wanted
    assert lab.read("org", 0, 1024) == before


def test_discard_passdown_reaches_the_origin_behind_all_backs(lab: Lab) -> None:
    origin, cow, other = lab.file("origin", 65536), lab.file("cow", 4096), lab.file("o", 4096)
    lab.fill_pattern(origin, 65536)
    features = "2 discard_zeroes_cow discard_passdown_origin"
    lab.device("org", f"0 65536 snapshot-origin {origin}")
    lab.device("snap", f"0 65536 snapshot {origin} {cow} P 16 {features}")
    lab.device("other", f"0 65536 snapshot {origin} {other} P 16")
    lab.dm.mapped("snap").discard(160 * SECTOR, 16 * SECTOR)
    assert lab.read("org", 160, 16) == bytes(16 * SECTOR)
    assert lab.read("other", 160, 16) == bytes(16 * SECTOR)
    assert lab.status("other") == "32/4096 32"


def test_changed_and_extents_of_a_snapshot(lab: Lab) -> None:
    origin, cow = lab.file("origin", 1024), lab.file("cow", 4096)
    lab.device("org", f"0 1024 snapshot-origin {origin}")
    lab.device("snap", f"0 1024 snapshot {origin} {cow} P 8")
    lab.write("org", 16, 8)
    lab.write("snap", 100, 1)
    snap = lab.dm.mapped("snap")
    changed = snap.changed(0, 1024 * SECTOR)
    assert changed is not None
    found = [(c.offset // SECTOR, c.length // SECTOR, c.changed) for c in changed]
    assert found == [
        (0, 16, False),
        (16, 8, True),
        (24, 72, False),
        (96, 8, True),
        (104, 920, False),
    ]
    extents = list(snap.extents(0, 1024 * SECTOR))
    assert sum(e.length for e in extents) == 1024 * SECTOR
    assert lab.dm.mapped("org").changed(0, 512) is None


@pytest.mark.parametrize("seed", [1, 2])
def test_random_writes_against_a_model(lab: Lab, seed: int) -> None:
    """350 writes through an origin and three snapshots; a model that knows only the rules of
    allocation predicts every record and every byte."""
    rng = random.Random(seed)
    sectors, cow_sectors = 4096, 5000
    origin = lab.file("origin", sectors)
    lab.fill_pattern(origin, sectors)
    current = bytearray(Path(origin).read_bytes())
    lab.device("org", f"0 {sectors} snapshot-origin {origin}")
    chunks = {"a": 1, "b": 4, "c": 16}
    views: dict[str, bytearray] = {}
    expected: dict[str, list[tuple[int, int]]] = {name: [] for name in chunks}
    done: dict[str, set[int]] = {name: set() for name in chunks}
    for name, chunk in chunks.items():
        cow = lab.file(f"{name}.cow", cow_sectors)
        Path(cow).write_bytes(bytes(4) + rng.randbytes(cow_sectors * SECTOR - 4))
        lab.device(name, f"0 {sectors} snapshot {origin} {cow} P {chunk}")
        views[name] = bytearray(current)

    def allocate(name: str, first: int, last: int) -> None:
        per_area = chunks[name] * 32
        for chunk in range(first // chunks[name], last // chunks[name] + 1):
            if chunk not in done[name]:
                index = len(expected[name])
                done[name].add(chunk)
                expected[name].append((chunk, 2 + index + index // per_area))

    for step in range(350):
        device = rng.choice(["org", "org", "a", "b", "c"])
        count = rng.randint(1, 64)
        sector = rng.randrange(sectors - count)
        data = rng.randbytes(count * SECTOR)
        lab.dm.mapped(device).write(sector * SECTOR, data)
        target = current if device == "org" else views[device]
        target[sector * SECTOR : (sector + count) * SECTOR] = data
        for name in chunks if device == "org" else [device]:
            allocate(name, sector, sector + count - 1)
        if step % 50 == 49:
            for name, chunk in chunks.items():
                n, per_area = len(expected[name]), chunk * 32
                allocated = (2 + n + n // per_area) * chunk
                metadata = (2 + n // per_area) * chunk
                assert lab.status(name) == f"{allocated}/{cow_sectors} {metadata}"
    lab.dm.mapped("org").settle()
    for name, chunk in chunks.items():
        assert store_records(str(lab.folder / f"{name}.cow"), chunk) == expected[name]
        assert lab.read(name, 0, sectors) == bytes(views[name])
    assert lab.read("org", 0, sectors) == bytes(current)


def test_reads_of_every_alignment(lab: Lab) -> None:
    origin, cow = lab.file("origin", 256), lab.file("cow", 4096)
    content = bytearray(lab.fill_pattern(origin, 256))
    lab.device("snap", f"0 256 snapshot {origin} {cow} P 8")
    rng = random.Random(3)
    snap = lab.dm.mapped("snap")
    for _ in range(60):
        offset = rng.randrange(256 * SECTOR - 5000)
        data = rng.randbytes(rng.randint(1, 5000))
        snap.write(offset, data)
        content[offset : offset + len(data)] = data
        start = rng.randrange(256 * SECTOR - 9000)
        length = rng.randint(0, 9000)
        assert snap.read(start, length) == bytes(content[start : start + length])
    assert snap.read(0, 256 * SECTOR) == bytes(content)


def test_an_empty_request_is_done_at_once(lab: Lab) -> None:
    origin, cow = lab.file("origin", 256), lab.file("cow", 4096)
    lab.device("org", f"0 256 snapshot-origin {origin}")
    lab.device("snap", f"0 256 snapshot {origin} {cow} P 8")
    for name in ("org", "snap"):
        device = lab.dm.mapped(name)
        device.write(0, b"")
        device.write(256 * SECTOR, b"")
        assert device.read(256 * SECTOR, 0) == b""
    assert lab.status("snap") == "16/4096 16"
    with pytest.raises(DeviceError):
        lab.dm.mapped("org").write(256 * SECTOR + 1, b"")


@pytest.mark.parametrize("kind", ["snapshot", "snapshot-merge"])
def test_a_line_that_does_not_begin_the_table_lies_at_its_own_offsets(lab: Lab, kind: str) -> None:
    """As in the kernel, which hands on the offsets of the device."""
    origin, cow = lab.file("origin", 4096), lab.file("cow", 4096)
    before = lab.fill_pattern(origin, 4096)
    snapshot = f"0 2048 zero\n2048 2048 {{}} {origin} {cow} P 8"
    lab.device("snap", snapshot.format("snapshot"))
    lab.device("org", f"0 2048 zero\n2048 2048 snapshot-origin {origin}")
    lab.write("org", 3000, 8)
    lab.write("snap", 4088, 8, 0x55)
    assert store_records(cow, 8) == [(375, 2), (511, 3)]
    if kind == "snapshot-merge":
        lab.dm.remove("org")
        lab.dm.suspend("snap")
        lab.reload("snap", snapshot.format(kind))
        until(lambda: not store_records(cow, 8))
        assert Path(origin).read_bytes()[: 4088 * SECTOR] == before[: 4088 * SECTOR]
    assert lab.read("snap", 2048, 2040) == before[2048 * SECTOR : 4088 * SECTOR]
    assert lab.read("snap", 4088, 8) == b"\x55" * (8 * SECTOR)


def test_an_origin_that_is_shorter_than_its_line_reaches_fails_what_is_behind(lab: Lab) -> None:
    origin, cow = lab.file("origin", 2048), lab.file("cow", 4096)
    lab.device("snap", f"0 2048 snapshot {origin} {cow} P 8")
    lab.device("org", f"0 2048 zero\n2048 2048 snapshot-origin {origin}")
    with pytest.raises(DeviceError):
        lab.write("org", 3000, 8)
