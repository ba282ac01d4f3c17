"""A volume's bytes straight on its PVs are those that its devices show."""

from __future__ import annotations

import random

import pytest

from tests.unit.lvm.lab import EXTENT, KIB, Lab
from ulvm.errors import DeviceError, RefusedError
from ulvm.lvm.extents import VolumeExtents, wipe_new
from ulvm.metadata import edit
from ulvm.metadata.model import Area, StripedSegment, VolumeGroup
from ulvm.metadata.uuid import new_uuid

EXTENT_BYTES = EXTENT * 512


def with_segments(vg: VolumeGroup, segments: tuple[StripedSegment, ...]) -> VolumeGroup:
    count = sum(s.extent_count for s in segments)
    vg = edit.add_linear(vg, "v", count, uuid=new_uuid(), now=1, host="h")
    lv = vg.lv("v")
    assert lv is not None
    return vg.with_lv(lv._replace(segments=segments))


def shapes(vg: VolumeGroup) -> dict[str, tuple[StripedSegment, ...]]:
    a, b = (pv.uuid for pv in vg.pvs)
    return {
        "linear": (StripedSegment(0, 4, (Area(a, 3),)),),
        "in pieces": (
            StripedSegment(0, 1, (Area(b, 7),)),
            StripedSegment(1, 2, (Area(a, 0),)),
            StripedSegment(3, 1, (Area(b, 2),)),
        ),
        "striped": (StripedSegment(0, 4, (Area(a, 1), Area(b, 5)), stripe_size=16),),
    }


@pytest.mark.parametrize("shape", ["linear", "in pieces", "striped"])
def test_the_same_bytes_as_through_the_devices(lab: Lab, shape: str) -> None:
    vg = with_segments(lab.vg, shapes(lab.vg)[shape])
    lv = vg.lv("v")
    assert lv is not None
    extents = VolumeExtents(vg, lv, lab.session.scan().path_of, lab.open)
    assert extents.size == 4 * EXTENT_BYTES
    content = random.Random(1).randbytes(extents.size)
    choose = random.Random(2)
    at = 0
    while at < len(content):
        count = min(choose.choice([512, 4 * KIB, 20 * KIB, 100 * KIB]), len(content) - at)
        extents.write(at, content[at : at + count])
        at += count
    extents.flush()
    lab.session.activator.activate(vg, "v")
    assert lab.read("v", 0, len(content)) == content
    lab.write("v", 12345 * 8, b"through the device")
    assert extents.read(12345 * 8, 18) == b"through the device"


def test_outside_the_volume(lab: Lab) -> None:
    vg = with_segments(lab.vg, shapes(lab.vg)["linear"])
    lv = vg.lv("v")
    assert lv is not None
    extents = VolumeExtents(vg, lv, lab.session.scan().path_of, lab.open)
    with pytest.raises(DeviceError):
        extents.read(extents.size - 511, 512)
    with pytest.raises(DeviceError):
        extents.write(extents.size, b"x")


def test_what_is_too_long_for_a_device_is_not_wiped(lab: Lab) -> None:
    vg = with_segments(lab.vg, shapes(lab.vg)["linear"])._replace(extent_size=1 << 52)
    lv = vg.lv("v")
    assert lv is not None
    before = lab.contents()
    with pytest.raises(RefusedError, match=r"vg/v of 8\.00 EiB is too large for a device"):
        wipe_new(lab.session, vg, lv, signatures=True)
    assert lab.contents() == before


def test_a_missing_pv(lab: Lab) -> None:
    vg = with_segments(lab.vg, shapes(lab.vg)["striped"])
    lv = vg.lv("v")
    assert lv is not None
    with pytest.raises(RefusedError, match="is missing"):
        VolumeExtents(vg, lv, lambda uuid: None, lab.open)
