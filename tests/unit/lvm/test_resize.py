"""What a size comes to: whole stripes, and never a growth where extents were to go."""

from __future__ import annotations

import pytest

from tests.unit.lvm.lab import EXTENT, Lab
from ulvm.errors import RefusedError
from ulvm.lvm.resize import Resize, target
from ulvm.lvm.sizes import parse_extents
from ulvm.metadata.model import (
    Area,
    LogicalVolume,
    Segment,
    SimpleSegment,
    StripedSegment,
    VolumeGroup,
)
from ulvm.metadata.uuid import new_uuid


def made(lab: Lab, *segments: Segment) -> VolumeGroup:
    lv = LogicalVolume("x", new_uuid(), segments, status=frozenset({"READ", "WRITE", "VISIBLE"}))
    return lab.vg._replace(lvs=(lv,))


def striped(lab: Lab, start: int, extents: int, pe: int = 0) -> StripedSegment:
    """Two stripes of two extents each."""
    areas = tuple(Area(pv.uuid, pe) for pv in lab.vg.pvs)
    return StripedSegment(start, extents, areas, 2 * EXTENT)


def wanted(lab: Lab, vg: VolumeGroup, size: str, grow: bool | None = None, **options: int) -> int:
    asked = Resize(parse_extents(size), grow, **options)  # type: ignore[arg-type]
    return target(lab.session, vg, vg.volume("x"), asked).wanted


@pytest.mark.parametrize("kind", ["zero", "error"])
def test_what_has_no_stripes_is_cut_anywhere(lab: Lab, kind: str) -> None:
    vg = made(lab, SimpleSegment(0, 4, kind))
    assert wanted(lab, vg, "2", stripes=2) == 2
    assert wanted(lab, vg, "3", stripes=2, stripe_size=128) == 3
    assert wanted(lab, vg, "-1", grow=False) == 3
    ignored = "Ignoring stripes, stripesize and mirrors arguments when reducing."
    assert lab.heard.said == [ignored, ignored]
    behind = made(lab, striped(lab, 0, 4), SimpleSegment(4, 4, kind))
    assert wanted(lab, behind, "5") == 5


def test_a_reduction_leaves_whole_stripes(lab: Lab) -> None:
    vg = made(lab, striped(lab, 0, 8))
    assert wanted(lab, vg, "3") == 4
    assert lab.heard.said == [
        "Rounding size (3 extents) up to stripe boundary size for segment (4 extents)."
    ]
    for size, grow in (("-3", None), ("7", True), ("7", False)):
        with pytest.raises(RefusedError, match=r"New size \(8 extents\) matches existing size"):
            wanted(lab, vg, size, grow)
    # As LVM2, which looks at the direction when stripes are whole.
    with pytest.raises(RefusedError, match=r"New size given \(4 extents\) not larger than"):
        wanted(lab, vg, "3", grow=True)
    with pytest.raises(RefusedError, match=r"New size given \(12 extents\) not less than"):
        wanted(lab, vg, "9", grow=False)


@pytest.mark.parametrize("grow", [None, False])
def test_a_reduction_is_no_growth_of_a_volume_with_a_part_of_a_stripe(
    lab: Lab, grow: bool | None
) -> None:
    vg = made(lab, striped(lab, 0, 6))
    with pytest.raises(RefusedError, match=r"New size \(6 extents\) matches existing size"):
        wanted(lab, vg, "5", grow)
    assert lab.heard.said == [
        "Rounding size (5 extents) up to stripe boundary size for segment (6 extents)."
    ]
    assert wanted(lab, vg, "3", grow) == 4
    # Nor does it cut into the stripes of what follows.
    assert wanted(lab, made(lab, striped(lab, 0, 6), striped(lab, 6, 8, 8)), "5", grow) == 6
