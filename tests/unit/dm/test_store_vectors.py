"""The persistent and transient store against what a real kernel wrote and showed."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from tests.unit.dm.lab import SECTOR, Lab, header, make_store, runs, store_records
from ulvm.errors import DeviceError, TableError


def setup(lab: Lab, chunk: int, cow: int, origin: int = 65536, kind: str = "P") -> tuple[str, str]:
    origin_path, cow_path = lab.file("origin", origin), lab.file("cow", cow)
    lab.device("org", f"0 {origin} snapshot-origin {origin_path}")
    lab.device("snap", f"0 {origin} snapshot {origin_path} {cow_path} {kind} {chunk}")
    return origin_path, cow_path


def test_chunk_of_eight_step_by_step(lab: Lab) -> None:
    origin_path, cow = setup(lab, 8, 4096)
    before = lab.fill_pattern(origin_path, 65536)
    assert lab.status("snap") == "16/4096 16"
    assert header(cow) == (0x70416E53, 1, 1, 8)
    assert Path(cow).read_bytes()[:4] == b"SnAp"
    steps: list[tuple[str, int, int, str, list[str]]] = [
        ("org", 100, 1, "24/4096 16", ["12>2"]),
        ("org", 101, 2, "24/4096 16", ["12>2"]),
        ("snap", 201, 1, "32/4096 16", ["12>2", "25>3"]),
        ("snap", 400, 8, "40/4096 16", ["12>2", "25>3", "50>4"]),
        ("snap", 1004, 16, "64/4096 16", ["12>2", "25>3", "50>4", "125..127>5..7"]),
        (
            "org",
            2004,
            16,
            "88/4096 16",
            ["12>2", "25>3", "50>4", "125..127>5..7", "250..252>8..10"],
        ),
        (
            "org",
            4096,
            64,
            "152/4096 16",
            ["12>2", "25>3", "50>4", "125..127>5..7", "250..252>8..10", "512..519>11..18"],
        ),
    ]
    for device, sector, count, status, records in steps:
        lab.write(device, sector, count)
        assert lab.status("snap") == status
        assert store_records(cow, 8) == runs(*records)
    stored = Path(cow).read_bytes()
    assert stored[16 * SECTOR : 24 * SECTOR] == before[96 * SECTOR : 104 * SECTOR]
    # Chunk 25 was copied, then sector 201 overwritten in it.
    chunk = stored[24 * SECTOR : 32 * SECTOR]
    assert (
        chunk
        == before[200 * SECTOR : 201 * SECTOR] + b"\xaa" * SECTOR + before[202 * 512 : 208 * 512]
    )
    assert lab.read("snap", 4096, 64) == before[4096 * SECTOR : 4160 * SECTOR]
    assert lab.read("org", 201, 1) == before[201 * SECTOR : 202 * SECTOR]


@pytest.mark.parametrize(
    ("count", "status"),
    [(254, "2048/8192 16"), (255, "2056/8192 16"), (256, "2072/8192 24"), (257, "2080/8192 24")],
)
def test_area_boundary_of_chunk_eight(lab: Lab, count: int, status: str) -> None:
    setup(lab, 8, 8192)
    lab.write("org", 0, count * 8)
    assert lab.status("snap") == status


def test_two_areas_of_chunk_eight(lab: Lab) -> None:
    _, cow = setup(lab, 8, 8192)
    lab.write("org", 0, 259 * 8)
    assert store_records(cow, 8) == runs("0..255>2..257", "256..258>259..261")


def test_chunk_of_one_sector_in_allocation_order(lab: Lab) -> None:
    origin, cow = setup(lab, 1, 200)
    for sector in (9, 3, 1000, 77, 5, 6, 7, 8, 50000):
        lab.write("org", sector, 1)
    assert lab.status("snap") == "11/200 2"
    first = runs("9>2", "3>3", "1000>4", "77>5", "5..8>6..9", "50000>10")
    assert store_records(cow, 1) == first
    raw = Path(cow).read_bytes()[0x200:0x230]
    assert raw == b"".join(struct.pack("<QQ", *pair) for pair in ((9, 2), (3, 3), (1000, 4)))
    lab.write("org", 2000, 23)
    assert lab.status("snap") == "35/200 3"
    second = first + runs("2000..2022>11..33")
    assert store_records(cow, 1) == second
    assert Path(cow).read_bytes()[34 * SECTOR : 35 * SECTOR] == bytes(SECTOR)
    lab.write("org", 3000, 1)
    assert lab.status("snap") == "36/200 3"
    assert store_records(cow, 1) == second + runs("3000>35")
    lab.dm.remove("snap")
    lab.device("snap", f"0 65536 snapshot {origin} {cow} P 1")
    assert lab.status("snap") == "36/200 3"


@pytest.mark.parametrize("chunk", [1, 2, 4, 16, 32, 1024, 2048])
def test_fresh_store_of_every_chunk_size(lab: Lab, chunk: int) -> None:
    setup(lab, chunk, 8192)
    assert lab.status("snap") == f"{2 * chunk}/8192 {2 * chunk}"


def test_crafted_store_continues_behind_the_highest_chunk(lab: Lab) -> None:
    origin, cow = lab.file("origin", 65536), lab.file("cow", 4096)
    make_store(cow, 1, [(5, 2), (7, 10)], 4096)
    lab.device("org", f"0 65536 snapshot-origin {origin}")
    lab.device("snap", f"0 65536 snapshot {origin} {cow} P 1")
    assert lab.status("snap") == "11/4096 2"
    lab.write("org", 100, 1)
    assert store_records(cow, 1) == [(5, 2), (7, 10), (100, 11)]


def test_crafted_store_skips_the_metadata_chunk(lab: Lab) -> None:
    origin, cow = lab.file("origin", 65536), lab.file("cow", 4096)
    make_store(cow, 1, [(5, 33)], 4096)
    lab.device("org", f"0 65536 snapshot-origin {origin}")
    lab.device("snap", f"0 65536 snapshot {origin} {cow} P 1")
    assert lab.status("snap") == "35/4096 2"
    lab.write("org", 100, 1)
    assert store_records(cow, 1) == [(5, 33), (100, 35)]


def test_transient_store(lab: Lab) -> None:
    origin, cow = setup(lab, 16, 8192, kind="N")
    before = lab.fill_pattern(origin, 65536)
    assert lab.status("snap") == "0/8192 0"
    lab.write("org", 160, 1)
    assert lab.status("snap") == "16/8192 0"
    lab.write("org", 32, 1)
    assert lab.status("snap") == "32/8192 0"
    stored = Path(cow).read_bytes()
    assert stored[: 16 * SECTOR] == before[160 * SECTOR : 176 * SECTOR]
    assert stored[16 * SECTOR : 32 * SECTOR] == before[32 * SECTOR : 48 * SECTOR]


# -- loading -------------------------------------------------------------------------------


def load(lab: Lab, cow: str, chunk: int = 8, sectors: int = 4096) -> None:
    origin = str(lab.folder / "origin")
    if not Path(origin).exists():
        lab.file("origin", 65536)
    lab.device("snap", f"0 65536 snapshot {origin} {cow} P {chunk}")


def test_foreign_magic_is_refused(lab: Lab) -> None:
    cow = lab.file("cow", 4096)
    with open(cow, "r+b") as stream:
        stream.write(b"XYZ\0")
    with pytest.raises(TableError, match="Invalid or corrupt snapshot") as caught:
        load(lab, cow)
    assert caught.value.errno == 6  # ENXIO
    assert Path(cow).read_bytes()[:8] == b"XYZ\0" + bytes(4)


def test_other_version_is_refused(lab: Lab) -> None:
    cow = lab.file("cow", 4096)
    make_store(cow, 8, [], 4096)
    with open(cow, "r+b") as stream:
        stream.seek(8)
        stream.write(struct.pack("<I", 2))
    with pytest.raises(TableError, match="version 2") as caught:
        load(lab, cow)
    assert caught.value.errno == 22


def test_only_a_zero_magic_makes_a_store_fresh(lab: Lab) -> None:
    cow = lab.file("cow", 4096)
    Path(cow).write_bytes(bytes(4) + b"\xff" * (4096 * SECTOR - 4))
    load(lab, cow)
    assert lab.status("snap") == "16/4096 16"
    stored = Path(cow).read_bytes()
    assert stored[16 : 16 * SECTOR] == bytes(16 * SECTOR - 16)
    assert stored[16 * SECTOR :] == b"\xff" * (4080 * SECTOR)


@pytest.mark.parametrize(
    ("valid", "status"), [(0, "Invalid"), (1, "24/4096 16"), (2, "24/4096 16")]
)
def test_valid_field(lab: Lab, valid: int, status: str) -> None:
    cow = lab.file("cow", 4096)
    make_store(cow, 8, [(7, 2)], 4096, valid=valid)
    load(lab, cow)
    assert lab.status("snap") == status
    if not valid:
        assert any("Snapshot is marked invalid." in m for m in lab.messages)
        with pytest.raises(DeviceError):
            lab.read("snap", 0, 1)


def test_header_wins_over_the_table(lab: Lab) -> None:
    cow = lab.file("cow", 4096)
    make_store(cow, 8, [(7, 2)], 4096)
    load(lab, cow, chunk=16)
    assert lab.table("snap").endswith("P 8")
    warning = "chunk size 8 in device metadata overrides table chunk size of 16."
    assert any(warning in m for m in lab.messages)


def test_chunk_zero_takes_the_header_without_warning(lab: Lab) -> None:
    cow = lab.file("cow", 4096)
    make_store(cow, 8, [(7, 2)], 4096)
    load(lab, cow, chunk=0)
    assert lab.table("snap").endswith("P 8")
    assert not any("overrides" in m for m in lab.messages)


def test_chunk_zero_of_a_fresh_store_is_sixteen_kib(lab: Lab) -> None:
    load(lab, lab.file("cow", 4096), chunk=0)
    assert lab.table("snap").endswith("P 32")


@pytest.mark.parametrize("bad", [0, 3, 4194304])
def test_bad_chunk_size_on_disk(lab: Lab, bad: int) -> None:
    cow = lab.file("cow", 4096)
    make_store(cow, 8, [], 4096)
    with open(cow, "r+b") as stream:
        stream.seek(12)
        stream.write(struct.pack("<I", bad))
    with pytest.raises(TableError, match="invalid on-disk chunk size") as caught:
        load(lab, cow)
    assert caught.value.errno == 22


def test_full_area_at_the_end_of_the_device_cannot_load(lab: Lab) -> None:
    cow = lab.file("cow", 34)
    make_store(cow, 1, [(n, 2 + n) for n in range(32)], 34)
    with pytest.raises(TableError) as caught:
        load(lab, cow, chunk=1)
    assert caught.value.errno == 5


@pytest.mark.parametrize("sectors", [8, 15])
def test_store_of_less_than_two_chunks(lab: Lab, sectors: int) -> None:
    with pytest.raises(TableError) as caught:
        load(lab, lab.file("cow", sectors))
    assert caught.value.errno == 5


def test_bytes_behind_the_terminator_do_not_come_back(lab: Lab) -> None:
    origin, cow = lab.file("origin", 65536), lab.file("cow", 4096)
    make_store(cow, 1, [(5, 2), (0, 0), (9, 3)], 4096)
    lab.device("org", f"0 65536 snapshot-origin {origin}")
    lab.device("snap", f"0 65536 snapshot {origin} {cow} P 1")
    lab.write("org", 100, 1)
    assert store_records(cow, 1) == [(5, 2), (100, 3)]
    assert Path(cow).read_bytes()[0x220:0x230] == bytes(16)


def test_records_beyond_the_device_load_and_fail_later(lab: Lab) -> None:
    origin, cow = lab.file("origin", 65536), lab.file("cow", 4096)
    make_store(cow, 8, [(5, 100_000)], 4096)
    load(lab, cow)
    with pytest.raises(DeviceError):
        lab.read("snap", 40, 1)
    assert lab.read("snap", 0, 1) == bytes(SECTOR)
    assert not lab.status("snap").startswith("Invalid")
    assert Path(origin).exists()


# -- capacity ------------------------------------------------------------------------------


@pytest.mark.parametrize(("chunk", "total"), [(1, 34), (8, 258)])
def test_edge_trap_next_area_outside_the_device(lab: Lab, chunk: int, total: int) -> None:
    per_area = chunk * 32
    _, cow = setup(lab, chunk, total * chunk)
    for n in range(per_area - 1):
        lab.write("org", n * chunk, 1)
    assert not lab.status("snap").startswith("Invalid")
    lab.write("org", 60000, 1)
    assert lab.status("snap") == "Invalid"
    assert header(cow)[1] == 0
    assert store_records_without_terminator(cow, chunk) == per_area - 1


def store_records_without_terminator(path: str, chunk: int) -> int:
    data = Path(path).read_bytes()[chunk * SECTOR : 2 * chunk * SECTOR]
    return sum(1 for n in range(chunk * 32) if struct.unpack_from("<QQ", data, n * 16)[1])


def test_edge_trap_holds_for_overflow_support_too(lab: Lab) -> None:
    setup(lab, 1, 34, kind="PO")
    for n in range(31):
        lab.write("org", n, 1)
    lab.write("org", 60000, 1)
    assert lab.status("snap") == "Invalid"


def test_trailing_partial_chunk_is_no_room(lab: Lab) -> None:
    setup(lab, 8, 8 * 4 + 7)
    lab.write("snap", 0, 8)
    lab.write("snap", 8, 8)
    with pytest.raises(DeviceError):
        lab.write("snap", 16, 8)
    assert lab.status("snap") == "Invalid"


def test_growing_the_cow_counts_at_once(lab: Lab) -> None:
    _, cow = setup(lab, 8, 32)
    lab.write("org", 0, 8)
    lab.write("org", 8, 8)
    assert lab.status("snap") == "32/32 16"
    with open(cow, "r+b") as stream:
        stream.truncate(64 * SECTOR)
    assert lab.status("snap") == "32/64 16"
    lab.write("org", 16, 8)
    assert lab.status("snap") == "40/64 16"


def test_last_partial_chunk_of_the_origin(lab: Lab) -> None:
    origin, cow = lab.file("origin", 1010), lab.file("cow", 4096)
    Path(cow).write_bytes(bytes(4) + b"\xee" * (4096 * SECTOR - 4))
    before = lab.fill_pattern(origin, 1010)
    lab.device("org", f"0 1010 snapshot-origin {origin}")
    lab.device("snap", f"0 1010 snapshot {origin} {cow} P 16")
    lab.write("org", 1008, 2)
    stored = Path(cow).read_bytes()
    assert stored[32 * SECTOR : 34 * SECTOR] == before[1008 * SECTOR :]
    assert stored[34 * SECTOR : 48 * SECTOR] == b"\xee" * (14 * SECTOR)
    assert lab.read("snap", 1008, 2) == before[1008 * SECTOR :]


def test_a_cow_that_shrinks_under_a_live_snapshot(lab: Lab) -> None:
    origin, cow = lab.file("origin", 65536), lab.file("cow", 4096)
    lab.device("cow-dev", f"0 4096 linear {cow} 0")
    lab.device("org", f"0 65536 snapshot-origin {origin}")
    lab.device("snap", f"0 65536 snapshot {origin} cow-dev P 8")
    for sector in (0, 80, 160, 240):
        lab.write("org", sector, 8)
    assert lab.status("snap") == "48/4096 16"
    lab.reload("cow-dev", f"0 40 linear {cow} 0")
    assert lab.status("snap") == "48/40 16"
