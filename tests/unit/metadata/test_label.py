"""Labels and PV headers: a real one, the fields, and what is not a label."""

from __future__ import annotations

import struct

import pytest

from ulvm.errors import FormatError
from ulvm.metadata.crc import lvm_crc
from ulvm.metadata.label import DiskLocn, Label, PvHeader, find_label
from ulvm.metadata.uuid import new_uuid

REAL = bytes.fromhex(
    "4c4142454c4f4e4501000000000000008b237a63200000004c564d3220303031"
) + b"jik4B2HATj0MdVolEAkFVZ56jktXEUMa" + bytes.fromhex(
    "0000000800000000" "0000100000000000" "0000000000000000" + "00" * 16
    + "0010000000000000" "00f00f0000000000" + "00" * 16 + "0200000001000000" + "00" * 16
)  # fmt: skip
"""Sector 1 of a PV of real LVM2 (spec/lvm2-format.md sec. 2), zeros after it cut off."""


def test_a_real_label() -> None:
    sector = REAL.ljust(512, b"\0")
    label = Label.unpack(sector, 1)
    assert label is not None
    header = label.pv_header
    assert header.uuid == "jik4B2-HATj-0MdV-olEA-kFVZ-56jk-tXEUMa"
    assert header.device_size == 128 << 20
    assert header.pe_start == 1 << 20
    assert header.metadata_areas == (DiskLocn(4096, 1044480),)
    assert header.in_use
    assert label.pack() == sector


def test_the_first_valid_label_of_four_sectors_counts() -> None:
    header = PvHeader(new_uuid(), 1 << 30, (DiskLocn(1 << 20, 0),))
    first, second = Label(2, header), Label(3, header._replace(uuid=new_uuid()))
    start = bytes(1024) + first.pack() + second.pack()
    assert find_label(start) == first
    broken = start[:1024] + b"X" + start[1025:]
    assert find_label(broken) == second
    assert find_label(bytes(2048)) is None
    assert find_label(b"short") is None


@pytest.mark.parametrize("at", [0, 8, 16, 100, 511], ids=["magic", "sector", "crc", "body", "end"])
def test_a_damaged_label_is_no_label(at: int) -> None:
    sector = bytearray(REAL.ljust(512, b"\0"))
    sector[at] ^= 1
    assert Label.unpack(bytes(sector), 1) is None


def test_in_use_flag_and_old_headers() -> None:
    header = PvHeader(new_uuid(), 1 << 30, (DiskLocn(1 << 20, 0),), extension_version=0)
    old = Label.unpack(Label(1, header).pack(), 1)
    assert old is not None
    assert not old.pv_header.in_use
    used = Label.unpack(Label(1, old.pv_header.with_in_use(True)).pack(), 1)
    assert used is not None
    assert used.pv_header.in_use
    assert used.pv_header.extension_version == 2


def with_crc(sector: bytearray) -> bytes:
    struct.pack_into("<L", sector, 16, lvm_crc(bytes(sector[20:])))
    return bytes(sector)


@pytest.mark.parametrize(
    ("at", "data", "says"),
    [
        (20, struct.pack("<L", 600), "outside its sector"),
        (20, struct.pack("<L", 500), "does not fit"),
        (24, b"LVM1 001", "unknown type"),
        (32, b"\xff", "bad UUID"),
        (72, bytes(8), "no data area"),
        (72, b"\1" * 440, "does not end"),
    ],
)
def test_a_label_that_makes_no_sense_is_refused(at: int, data: bytes, says: str) -> None:
    sector = bytearray(REAL.ljust(512, b"\0"))
    sector[at : at + len(data)] = data
    with pytest.raises(FormatError, match=says):
        Label.unpack(with_crc(sector), 1)


def test_a_header_too_large_for_its_sector() -> None:
    areas = tuple(DiskLocn(n + 1, 1) for n in range(40))
    with pytest.raises(FormatError, match="too large"):
        Label(1, PvHeader(new_uuid(), 1, areas)).pack()
