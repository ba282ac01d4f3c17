"""Metadata area headers and the ring."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ulvm.errors import FormatError
from ulvm.metadata.crc import lvm_crc
from ulvm.metadata.mda import (
    MdaHeader,
    RawLocn,
    max_text,
    next_offset,
    ring_parts,
    ring_write,
    room_beside,
)

SIZE = 1044480


def test_pack_and_unpack() -> None:
    header = MdaHeader(4096, SIZE, RawLocn(512, 100, 7), RawLocn(1024, 200, 8))
    data = header.pack()
    assert len(data) == 512
    assert data[4:20] == bytes.fromhex("204c564d3220785b35412572304e2a3e")
    assert MdaHeader.unpack(data, start=4096) == header


def test_steps_of_a_commit() -> None:
    old, new = RawLocn(512, 100, 7), RawLocn(1024, 200, 8)
    header = MdaHeader(4096, SIZE, old)
    announced = header.with_precommit(new)
    assert (announced.committed, announced.precommitted) == (old, new)
    assert announced.with_revert() == header
    assert announced.with_commit(new) == MdaHeader(4096, SIZE, new)
    assert announced.cleared() == MdaHeader(4096, SIZE)


def test_an_ignored_area_has_no_current_text() -> None:
    header = MdaHeader(4096, SIZE, RawLocn(512, 100, 7, flags=1))
    assert header.ignored
    assert header.current is None
    assert MdaHeader.unpack(header.pack(), start=4096).ignored


def test_a_precommitted_text_without_a_committed_one_is_kept() -> None:
    header = MdaHeader(4096, SIZE).with_precommit(RawLocn(512, 9, 1))
    assert MdaHeader.unpack(header.pack(), start=4096) == header


def patched(at: int, data: bytes, *, fix_crc: bool = True) -> bytes:
    raw = bytearray(MdaHeader(4096, SIZE, RawLocn(512, 100, 7)).pack())
    raw[at : at + len(data)] = data
    if fix_crc:
        struct.pack_into("<L", raw, 0, lvm_crc(bytes(raw[4:])))
    return bytes(raw)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (patched(0, b"\xd8\x16\xd6\xed", fix_crc=False), "wrong checksum edd616d8 in mda header"),
        (patched(4, b"?"), "wrong magic number in mda header on /dev/x at 4096"),
        (patched(20, b"\2"), "wrong version 2"),
        (patched(24, struct.pack("<Q", 8192)), "wrong start sector 8192"),
        (patched(32, struct.pack("<Q", 512)), "wrong size 512"),
        (patched(40, struct.pack("<Q", SIZE)), "wrong location in slot 0"),
        (patched(40, struct.pack("<Q", 100)), "wrong location in slot 0"),
        (patched(48, struct.pack("<Q", SIZE)), "wrong location in slot 0"),
        (b"short", "short read"),
    ],
)
def test_a_damaged_header_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(FormatError, match=says):
        MdaHeader.unpack(data, start=4096, device="/dev/x")


def test_first_text_goes_right_behind_the_header() -> None:
    assert next_offset(SIZE, None) == 512


@pytest.mark.parametrize(
    ("offset", "size", "after"),
    [
        (512, 1, 1024),
        (512, 512, 1024),
        (512, 513, 1536),
        (SIZE - 1024, 512, SIZE - 512),
        (SIZE - 1024, 513, 512),
        (SIZE - 512, 512, 512),
        (SIZE - 512, 513, 1024),  # wraps: its last byte is at 512
        (SIZE - 512, 1024, 1024),
        (SIZE - 512, 1025, 1536),
    ],
)
def test_next_text_begins_on_the_next_sector(offset: int, size: int, after: int) -> None:
    assert next_offset(SIZE, RawLocn(offset, size)) == after


def test_a_wrapped_text_goes_on_at_512() -> None:
    assert ring_parts(SIZE, SIZE - 512, 600) == [(SIZE - 512, 512), (512, 88)]
    writes = ring_write(SIZE, SIZE - 512, b"x" * 600)
    assert writes == [(SIZE - 512, b"x" * 512), (512, (b"x" * 88).ljust(512, b"\0"))]


@given(
    sectors=st.integers(3, 400),
    tail=st.sampled_from([0, 1, 511]),
    sizes=st.lists(st.integers(1, 1 << 18), min_size=1, max_size=60),
)
def test_no_text_ever_touches_the_one_before(sectors: int, tail: int, sizes: list[int]) -> None:
    """The property that makes a torn write harmless."""
    area = sectors * 512 + tail
    old: RawLocn | None = None
    old_bytes: set[int] = set()
    for wish in sizes:
        size = min(wish, max_text(area))
        if size <= 0:
            continue
        assert size <= room_beside(area, old)
        offset = next_offset(area, old)
        text = bytes(size)
        touched: set[int] = set()
        for start, data in ring_write(area, offset, text):
            assert start >= 512
            assert start + len(data) <= area
            touched.update(range(start, start + len(data)))
        assert len(touched) >= size
        assert not touched & old_bytes
        old = RawLocn(offset, size)
        old_bytes = {b for s, n in ring_parts(area, offset, size) for b in range(s, s + n)}


@given(
    sectors=st.integers(3, 100),
    tail=st.sampled_from([0, 1, 511]),
    place=st.floats(0, 1, exclude_max=True),
    part=st.floats(0, 1),
)
def test_a_text_beside_one_of_any_size_does_not_touch_it(
    sectors: int, tail: int, place: float, part: float
) -> None:
    """Other programs write larger ones than we do, and begin anywhere."""
    area = sectors * 512 + tail
    ring = area - 512
    old = RawLocn(512 + int(place * ring), max(1, int(part * ring)))
    used = {b for s, n in ring_parts(area, old.offset, old.size) for b in range(s, s + n)}
    room = room_beside(area, old)
    for start, data in ring_write(area, next_offset(area, old), bytes(room)) if room else ():
        assert start + len(data) <= area
        assert used.isdisjoint(range(start, start + len(data)))
