"""Sizes as typed: every suffix, sign and per cent, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ulvm.errors import RefusedError, UsageError
from ulvm.lvm.sizes import SizeRequest, parse_extents, parse_sectors, parse_size
from ulvm.metadata import edit
from ulvm.metadata.model import PhysicalVolume, VolumeGroup
from ulvm.metadata.snapshot_edit import add_snapshot
from ulvm.metadata.uuid import new_uuid

EXTENT = 8192


@pytest.fixture
def vg() -> VolumeGroup:
    """100 extents: `o` of 20 with a snapshot `s` of 4, 76 free."""
    vg = edit.new_vg("vg", uuid=new_uuid(), extent_size=EXTENT)
    size = 2048 + 100 * EXTENT
    vg = edit.add_pv(vg, PhysicalVolume(new_uuid(), "/pv", size, 2048, 100))
    vg = edit.add_linear(vg, "o", 20, uuid=new_uuid(), now=1, host="h")
    return add_snapshot(
        vg, "o", "s", 4, chunk_size=8, uuid=new_uuid(), snapshot_uuid=new_uuid(), now=1, host="h"
    )


@pytest.mark.parametrize(
    ("text", "sectors"),
    [
        ("4", 8192), ("4m", 8192), ("4M", 8192), ("4MB", 8192), ("4MiB", 8192), ("4mib", 8192),
        ("512b", 1), ("1B", None), ("3s", 3), ("3S", 3), ("1k", 2), ("1K", 2), ("1g", 1 << 21),
        ("1t", 1 << 31), ("1p", 1 << 41), ("1e", 1 << 51), (".5m", 1024), ("1.5k", 3),
        ("0.0001g", 210), ("007m", 14336), ("1e2", 204800), ("1e-1m", 205), ("0x10m", 32768),
        ("1ex", 1 << 51), ("4m5", 8192),
    ],
)  # fmt: skip
def test_suffixes(text: str, sectors: int | None) -> None:
    if sectors is None:
        with pytest.raises(UsageError, match="Size is not a multiple of 512"):
            parse_size(text)
    else:
        assert parse_size(text) == SizeRequest("", sectors=sectors)


@pytest.mark.parametrize("sign", ["+", "-"])
def test_signs(sign: str) -> None:
    assert parse_size(f"{sign}4m") == SizeRequest(sign, sectors=8192)
    assert parse_extents(f"{sign}4") == SizeRequest(sign, extents=4)
    assert parse_extents(f"{sign}10%FREE") == SizeRequest(sign, percent=10, whole="FREE")


@pytest.mark.parametrize(
    ("text", "signs", "sentence"),
    [
        ("", "+", "Size requires number argument."),
        ("abc", "+", "Size requires number argument."),
        ("m", "+", "Size requires number argument."),
        ("4q", "+", "Can't parse size argument."),
        ("1.5.5m", "+", "Can't parse size argument."),
        ("1,5m", "+", "Can't parse size argument."),
        ("4 m", "+", "Can't parse size argument."),
        ("100%FREE", "+", "Can't parse size argument."),
        ("-4m", "+", "Size may not be negative."),
        ("+4m", "-", "Size may not be positive."),
        ("3000b", "+", "Size is not a multiple of 512. Try using 2560 or 3072."),
        ("16e", "+", "Size is too big (>=16EiB)."),
        ("1e999g", "+", "Size is too big (>=16EiB)."),
        ("18446744073709551615b", "+", "Size is too big (>=16EiB)."),
        ("+-4m", "+", "Multiple sign symbols detected."),
        (".m", "+", "Can't parse size argument at '.'."),
    ],
)
def test_what_is_no_size(text: str, signs: str, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_size(text, signs=signs)
    assert caught.value.message == f"{sentence}\nInvalid argument for --size: {text}"


def test_nothing_is_no_size() -> None:
    for text in ("0", "0m", "0.0g", "+0s"):
        with pytest.raises(UsageError, match="--size may not be zero"):
            parse_size(text)
    for text in ("0", "0%VG", "+0"):
        with pytest.raises(UsageError, match="--extents may not be zero"):
            parse_extents(text)


def test_a_chunk_size_without_a_letter_is_in_kilobytes() -> None:
    assert parse_sectors("64", "--chunksize", unit="k") == 128
    assert parse_sectors("64s", "--chunksize", unit="k") == 64


@pytest.mark.parametrize("text", ["", "x", "4m", "4%", "%FREE", "4.5", "4 "])
def test_what_is_no_number_of_extents(text: str) -> None:
    with pytest.raises(UsageError, match="Invalid argument for --extents"):
        parse_extents(text)


@given(st.integers(1, 1 << 40), st.sampled_from([2, 8, 8192, 24576]))
def test_a_size_is_rounded_up_to_extents(sectors: int, extent: int) -> None:
    if sectors > ((1 << 32) - 1) * extent:
        with pytest.raises(RefusedError, match="Volume too large"):
            SizeRequest(sectors=sectors).in_extents(extent)
        return
    extents, rounded = SizeRequest(sectors=sectors).in_extents(extent)
    assert 0 <= extents * extent - sectors < extent
    assert rounded == (extents * extent != sectors)


@pytest.mark.parametrize(
    ("text", "extents"),
    [("50%VG", 50), ("33%VG", 33), ("50%FREE", 38), ("1%FREE", 0), ("10%PVS", 10)],
)
def test_per_cent_of_a_new_volume_are_rounded_down(
    vg: VolumeGroup, text: str, extents: int
) -> None:
    request = parse_extents(text)
    assert request.for_new(vg, origin=None, chunk_size=8, pv_free=None) == extents


def test_per_cent_of_named_pvs_are_of_what_is_free_there(vg: VolumeGroup) -> None:
    for text in ("50%PVS", "50%FREE"):
        request = parse_extents(text)
        assert request.for_new(vg, origin=None, chunk_size=8, pv_free=7) == 3


@pytest.mark.parametrize(
    ("text", "chunk", "extents"),
    [("100%ORIGIN", 8, 21), ("50%ORIGIN", 8, 11), ("1%ORIGIN", 8, 2), ("100%ORIGIN", 1024, 21)],
)
def test_per_cent_of_an_origin_are_rounded_up_with_room_for_metadata(
    vg: VolumeGroup, text: str, chunk: int, extents: int
) -> None:
    request = parse_extents(text)
    assert request.for_new(vg, origin="o", chunk_size=chunk, pv_free=None) == extents


def test_per_cent_of_what_a_new_volume_does_not_have(vg: VolumeGroup) -> None:
    with pytest.raises(RefusedError, match="as %FREE, %PVS or %VG"):
        parse_extents("10%ORIGIN").for_new(vg, origin=None, chunk_size=8, pv_free=None)
    with pytest.raises(RefusedError, match="as %FREE, %ORIGIN, %PVS or %VG"):
        parse_extents("10%LV").for_new(vg, origin="o", chunk_size=8, pv_free=None)


@pytest.mark.parametrize(
    ("text", "extents"),
    [
        ("10%VG", 10), ("+1%FREE", 1), ("-1%FREE", 0), ("150%LV", 6), ("+30%LV", 2),
        ("-30%LV", 1), ("50%ORIGIN", 10), ("+51%ORIGIN", 11),
    ],
)  # fmt: skip
def test_per_cent_for_growth_are_rounded_up_and_for_cuts_down(
    vg: VolumeGroup, text: str, extents: int
) -> None:
    cow = vg.lv("s")
    assert cow is not None
    assert parse_extents(text).for_resize(vg, cow) == extents


def test_a_volume_without_origin_has_no_per_cent_of_it(vg: VolumeGroup) -> None:
    origin = vg.lv("o")
    assert origin is not None
    with pytest.raises(RefusedError, match="Specified LV does not have an origin LV"):
        parse_extents("10%ORIGIN").for_resize(vg, origin)
