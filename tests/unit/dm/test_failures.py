"""Overflow, invalidation and errors of the COW or the origin."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.dm.lab import SECTOR, Lab, header, store_records
from ulvm.blockdev.base import BlockDevice
from ulvm.blockdev.faults import FaultDevice
from ulvm.blockdev.file import FileDevice
from ulvm.dm.mapper import LocalMapper
from ulvm.errors import DeviceError


def setup(lab: Lab, kind: str, cow_sectors: int = 32, chunk: int = 8) -> tuple[str, str]:
    origin, cow = lab.file("origin", 4096), lab.file("cow", cow_sectors)
    lab.fill_pattern(origin, 4096)
    lab.device("org", f"0 4096 snapshot-origin {origin}")
    lab.device("snap", f"0 4096 snapshot {origin} {cow} {kind} {chunk}")
    return origin, cow


def fails(lab: Lab, sector: int, count: int, *, write: bool) -> int:
    try:
        if write:
            lab.write("snap", sector, count)
        else:
            lab.read("snap", sector, count)
    except DeviceError as error:
        return error.errno
    pytest.fail("the request did not fail")


def test_a_device_without_a_table_takes_nothing_and_flushes_nothing(lab: Lab) -> None:
    lab.dm.create("bare")
    bare = lab.dm.mapped("bare")
    requests: list[Callable[[], object]] = [
        lambda: bare.read(0, 512),
        lambda: bare.write(0, bytes(512)),
        lambda: bare.write_zeroes(0, 512),
        lambda: bare.discard(0, 512),
        bare.flush,
    ]
    for request in requests:
        with pytest.raises(DeviceError, match="has no table") as failed:
            request()
        assert failed.value.errno == errno.EIO


def test_snapshot_write_without_room_invalidates_p(lab: Lab) -> None:
    _, cow = setup(lab, "P")
    lab.write("snap", 0, 16)
    assert lab.status("snap") == "32/32 16"
    assert fails(lab, 16, 8, write=True) == 5
    assert lab.status("snap") == "Invalid"
    assert header(cow)[1] == 0
    assert len(store_records(cow, 8)) == 2
    assert fails(lab, 0, 1, write=False) == 5
    assert fails(lab, 0, 1, write=True) == 5
    lab.dm.mapped("snap").flush()


def test_origin_write_without_room_invalidates_and_succeeds(lab: Lab) -> None:
    _, cow = setup(lab, "P")
    event = lab.dm.info("snap").event_nr
    lab.write("org", 0, 24, 0x77)
    assert lab.read("org", 0, 24) == b"\x77" * (24 * SECTOR)
    assert lab.status("snap") == "Invalid"
    assert header(cow)[1] == 0
    assert lab.dm.info("snap").event_nr == event + 1
    lab.write("org", 100, 8)
    assert lab.dm.info("snap").event_nr == event + 1
    assert any("Unable to allocate exception" in m for m in lab.messages)


def test_invalid_survives_a_reload(lab: Lab) -> None:
    origin, cow = setup(lab, "P")
    lab.write("org", 0, 24)
    lab.dm.remove("snap")
    lab.device("snap", f"0 4096 snapshot {origin} {cow} P 8")
    assert lab.status("snap") == "Invalid"


def test_snapshot_write_without_room_overflows_po(lab: Lab) -> None:
    origin, cow = setup(lab, "PO", cow_sectors=44)
    event = lab.dm.info("snap").event_nr
    lab.write("snap", 0, 24, 0x11)
    assert lab.status("snap") == "40/44 16"
    assert fails(lab, 24, 8, write=True) == 5
    assert lab.status("snap") == "Overflow"
    assert lab.dm.info("snap").event_nr == event
    assert header(cow)[1] == 1
    assert lab.read("snap", 0, 24) == b"\x11" * (24 * SECTOR)
    assert fails(lab, 0, 8, write=True) == 5
    lab.write("org", 0, 24)
    assert lab.status("snap") == "Overflow"
    assert lab.read("snap", 0, 1) == b"\x11" * SECTOR
    lab.dm.remove("snap")
    lab.device("snap", f"0 4096 snapshot {origin} {cow} PO 8")
    assert lab.status("snap") == "40/44 16"
    assert fails(lab, 24, 8, write=True) == 5
    assert lab.status("snap") == "Overflow"


def test_an_overflow_is_in_the_state_at_once(lab: Lab) -> None:
    setup(lab, "PO", cow_sectors=32)
    told: list[list[str]] = []

    def look() -> None:
        told.extend(d["lost"] for d in lab.dm.snapshot_state()["devices"] if d["name"] == "snap")

    lab.dm.on_change.append(look)
    for _ in range(2):
        assert fails(lab, 0, 32, write=True) == 5
    assert told == [["overflow"]]
    lab.dm.on_change.clear()


def test_overflow_is_kept_across_a_reload_though_the_cow_grew(lab: Lab) -> None:
    origin, cow = setup(lab, "PO", cow_sectors=32)
    lab.write("snap", 0, 16)
    fails(lab, 24, 8, write=True)
    with open(cow, "r+b") as stream:
        stream.truncate(4096 * SECTOR)
    lab.reload("snap", f"0 4096 snapshot {origin} {cow} PO 8")
    assert lab.status("snap") == "Overflow"


def test_origin_write_without_room_invalidates_po_too(lab: Lab) -> None:
    setup(lab, "PO")
    lab.write("org", 0, 24)
    assert lab.status("snap") == "Invalid"


def test_write_that_overflows_midway_keeps_its_beginning(lab: Lab) -> None:
    _, cow = setup(lab, "PO", cow_sectors=32)
    assert fails(lab, 0, 32, write=True) == 5
    lab.dm.mapped("snap").settle()
    assert len(store_records(cow, 8)) == 2
    assert lab.read("snap", 0, 16) == b"\xaa" * (16 * SECTOR)
    assert int.from_bytes(lab.read("snap", 16, 1)[:8], "little") == 16


def test_transient_without_room(lab: Lab) -> None:
    setup(lab, "N", cow_sectors=16)
    lab.write("snap", 0, 16)
    assert fails(lab, 16, 8, write=True) == 5
    assert lab.status("snap") == "Invalid"


def test_transient_origin_write_without_room(lab: Lab) -> None:
    setup(lab, "N", cow_sectors=16)
    lab.write("org", 0, 24, 0x55)
    assert lab.status("snap") == "Invalid"
    assert lab.read("org", 0, 24) == b"\x55" * (24 * SECTOR)


# -- I/O errors --------------------------------------------------------------------------------


class FaultyLab(Lab):
    """Every file is opened behind a FaultDevice, kept in `faults` by file name."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.faults: dict[str, FaultDevice] = {}
        self.dm = LocalMapper(log=self.messages.append, open_file=self._open)

    def _open(self, path: str, writable: bool) -> BlockDevice:
        device = FaultDevice(FileDevice(path, writable=writable))
        self.faults[Path(path).name] = device
        return device


@pytest.fixture
def faulty(tmp_path: Path) -> FaultyLab:
    return FaultyLab(tmp_path)


def test_read_error_of_the_cow_hits_the_reader_only(faulty: FaultyLab) -> None:
    setup(faulty, "P", cow_sectors=4096)
    faulty.write("org", 0, 8)
    faulty.faults["cow"].fail("read")
    assert fails(faulty, 0, 1, write=False) == 5
    assert faulty.status("snap") == "24/4096 16"
    faulty.dm.shutdown()


@pytest.mark.parametrize("kind", ["P", "PO", "N"])
def test_write_error_of_the_cow_invalidates(faulty: FaultyLab, kind: str) -> None:
    setup(faulty, kind, cow_sectors=4096)
    faulty.faults["cow"].fail("write")
    faulty.write("org", 0, 8, 0x42)
    assert faulty.status("snap") == "Invalid"
    assert faulty.read("org", 0, 8) == b"\x42" * (8 * SECTOR)
    faulty.dm.shutdown()


def test_flush_error_of_the_cow_invalidates(faulty: FaultyLab) -> None:
    setup(faulty, "P", cow_sectors=4096)
    faulty.faults["cow"].fail("flush")
    faulty.write("org", 0, 8, 0x42)
    assert faulty.status("snap") == "Invalid"
    assert faulty.read("org", 0, 8) == b"\x42" * (8 * SECTOR)
    faulty.dm.shutdown()


def test_snapshot_write_with_a_broken_cow_fails(faulty: FaultyLab) -> None:
    setup(faulty, "P", cow_sectors=4096)
    faulty.faults["cow"].fail("write")
    assert fails(faulty, 0, 8, write=True) == 5
    assert faulty.status("snap") == "Invalid"
    faulty.dm.shutdown()


def test_origin_read_error_while_copying_invalidates(faulty: FaultyLab) -> None:
    setup(faulty, "P", cow_sectors=4096)
    faulty.faults["origin"].fail("read")
    faulty.write("org", 0, 4, 0x42)
    assert faulty.status("snap") == "Invalid"
    faulty.faults["origin"].clear()
    assert faulty.read("org", 0, 4) == b"\x42" * (4 * SECTOR)
    faulty.dm.shutdown()


def test_a_header_that_cannot_be_written_is_said_and_kept_in_the_state(faulty: FaultyLab) -> None:
    _origin, cow = setup(faulty, "P", cow_sectors=4096)
    faulty.faults["cow"].fail("write")
    faulty.write("org", 0, 8)
    assert header(cow)[1] == 1
    assert any("still looks valid on disk" in m for m in faulty.messages)
    state = faulty.dm.snapshot_state()
    faulty.dm.shutdown()
    again = LocalMapper()
    assert again.restore_state(state) == []
    assert again.status("snap")[0].params == "Invalid"
    again.shutdown()
    assert header(cow)[1] == 0
