"""What is written can be read again, whatever went wrong with a change before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.unit.metadata.test_edit import add, group, snap
from ulvm.errors import FormatError, RefusedError
from ulvm.metadata.check import check_name_lengths, check_vg
from ulvm.metadata.model import (
    Area,
    LogicalVolume,
    PhysicalVolume,
    SimpleSegment,
    VolumeGroup,
)
from ulvm.metadata.move import start_move
from ulvm.metadata.segments import PvExtents
from ulvm.metadata.snapshot_edit import add_virtual
from ulvm.metadata.text import TextHeader, vg_from_text, vg_to_text
from ulvm.metadata.uuid import new_uuid

NUMBERS = (-2, -1, 0, 1, 2, 3, 7, 768)
NUMBERS += tuple((1 << bits) + more for bits in (31, 32, 63, 64) for more in (-1, 0))


def with_all_kinds(*, atomic: bool) -> VolumeGroup:
    vg = add(group(100, 100, 100), "lin", 3)
    vg = add(vg, "str", 6, stripes=2, stripe_size=64)
    vg = snap(vg, "lin", "snap", 4)
    vg = add_virtual(vg, "z", 5, type_name="zero", uuid=new_uuid(), now=1, host="h")
    lv = vg.volume("z")
    vg = vg.with_lv(lv._replace(major=253, minor=7, read_ahead=256))
    source = PvExtents(vg.pvs[0].uuid)
    return start_move(vg, source, new_uuid=new_uuid, now=1, host="h", atomic=atomic, only="lin").vg


def changed(found: Any) -> Iterator[tuple[str, Any]]:
    """What it would be with another number in it, each in the place of each."""
    if isinstance(found, VolumeGroup | PhysicalVolume | LogicalVolume | Area) or (
        hasattr(found, "type_name")
    ):
        for field in found._fields:
            for path, value in changed(getattr(found, field)):
                yield f"{field}{path}", found._replace(**{field: value})
    elif isinstance(found, tuple):
        for number, item in enumerate(found):
            for path, value in changed(item):
                yield f"[{number}].{path}", (*found[:number], value, *found[number + 1 :])
    elif isinstance(found, int) and not isinstance(found, bool):
        for number in NUMBERS:
            yield f" = {number}", number


@pytest.mark.parametrize("atomic", [False, True])
def test_what_passes_is_read_again(atomic: bool) -> None:
    vg = with_all_kinds(atomic=atomic)
    check_vg(vg)
    passed, refused = 0, 0
    for what, other in changed(vg):
        try:
            check_vg(other)
        except FormatError:
            refused += 1
            continue
        passed += 1
        text = vg_to_text(other, TextHeader("", "", 0, ""))
        try:
            vg_from_text(text)
        except FormatError as error:
            pytest.fail(f"{what}: {error.message}")
    assert passed > 100
    assert refused > 300


def test_a_segment_has_extents() -> None:
    vg = group(10)
    for count in (0, 1 << 32):
        lv = LogicalVolume("z", new_uuid(), (SimpleSegment(0, count, "zero"),))
        with pytest.raises(FormatError, match=r"'extent_count' of z in VG vg is .* out of range"):
            check_vg(vg._replace(lvs=(lv,)))


def test_no_volume_gets_a_name_that_is_too_long_and_what_has_one_keeps_it() -> None:
    """As LVM2, which counts hidden ones too."""
    vg = add(group(10), "a", 1)
    check_name_lengths(vg._replace(name="v" * 123), vg)
    long = vg._replace(name="v" * 124)
    for old in (None, vg):
        with pytest.raises(RefusedError, match='/a" length 128 is not supported'):
            check_name_lengths(long, old)
    check_name_lengths(add(long, "b", 1)._replace(lvs=long.lvs), long)
    hidden = snap(vg._replace(name="v" * 120), "a", "b", 1)
    with pytest.raises(RefusedError, match='/snapshot0" length 132 is not supported'):
        check_name_lengths(hidden, vg._replace(name="v" * 120))
