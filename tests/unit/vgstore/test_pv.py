"""pvcreate and pvremove: the layout, what stands in the way, and every failure on the way."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.vgstore.lab import MIB, Lab
from ulvm.errors import DeviceError, NotFoundError, RefusedError
from ulvm.metadata.label import DiskLocn
from ulvm.metadata.layout import PvOptions
from ulvm.metadata.uuid import new_uuid
from ulvm.vgstore.devices import read_devices
from ulvm.vgstore.pv import (
    as_member,
    create_pv,
    device_path,
    erase_pv,
)


def test_a_new_pv_has_lvms_layout(lab: Lab) -> None:
    path = lab.pv("a")
    pv = lab.scan().pv(path)
    header = pv.label.pv_header
    assert pv.label.sector == 1
    assert header.device_size == 128 * MIB
    assert header.data_areas == (DiskLocn(MIB, 0),)
    assert header.metadata_areas == (DiskLocn(4096, 1044480),)
    assert not header.in_use
    member = as_member(pv, 8192)
    assert (member.pe_start, member.pe_count, member.dev_size) == (2048, 31, 262144)
    assert [e.path for e in read_devices(lab.host)] == [path]


def test_extents_end_before_the_second_metadata_area(lab: Lab) -> None:
    path = lab.pv("a", copies=2, size=9 * MIB)
    pv = lab.scan().pv(path)
    assert [area.offset for area in pv.label.pv_header.metadata_areas] == [4096, 8 * MIB]
    assert as_member(pv, 2048).pe_count == 7


def test_too_small_a_device_is_refused_and_stays_as_it_is(lab: Lab) -> None:
    path = lab.folder / "small"
    path.write_bytes(b"x" * MIB)
    with pytest.raises(RefusedError, match="device is too small"):
        create_pv(lab.host, str(path), uuid=new_uuid(), options=PvOptions())
    assert path.read_bytes() == b"x" * MIB
    assert read_devices(lab.host) == []


@pytest.mark.parametrize("offset", [0, 512, 4096], ids=["wipe", "label", "metadata area"])
def test_a_pvcreate_that_fails_leaves_no_pv(lab: Lab, offset: int) -> None:
    path = str(lab.folder / "a")
    Path(path).write_bytes(bytes(8 * MIB))
    lab.faults[path] = [("write", offset)]
    with pytest.raises(DeviceError):
        create_pv(lab.host, path, uuid=new_uuid(), options=PvOptions())
    lab.faults.clear()
    assert lab.scan().pvs == ()
    assert read_devices(lab.host) == []


def test_an_old_label_does_not_come_before_the_new_one(lab: Lab) -> None:
    path = lab.pv("a")
    uuid = new_uuid()
    create_pv(lab.host, path, uuid=uuid, options=PvOptions(label_sector=3, zero=False))
    (pv,) = lab.scan().pvs
    assert (pv.uuid, pv.label.sector) == (uuid, 3)
    assert Path(path).read_bytes()[:1536] == bytes(1536)


@pytest.mark.parametrize("kept", [0, 3])
def test_without_zero_only_labels_are_wiped(lab: Lab, kept: int) -> None:
    path = lab.folder / "a"
    path.write_bytes(b"x" * 2048 + bytes(8 * MIB))
    create_pv(lab.host, str(path), uuid=new_uuid(), options=PvOptions(zero=False))
    assert path.read_bytes()[kept * 512 :][:512] == b"x" * 512


def test_pvremove_leaves_no_label_and_no_entry(lab: Lab) -> None:
    path = lab.pv("a")
    erase_pv(lab.host, path)
    assert Path(path).read_bytes()[:2048] == bytes(2048)
    assert read_devices(lab.host) == []
    assert lab.scan().pvs == ()


def test_device_path_is_the_real_one(lab: Lab) -> None:
    path = lab.pv("a")
    link = lab.folder / "link"
    link.symlink_to(path)
    assert device_path(str(link)) == path
    with pytest.raises(NotFoundError, match=r"No device found for .*/nothing"):
        device_path(str(lab.folder / "nothing"))
    with pytest.raises(NotFoundError, match="neither a file nor a disk"):
        device_path(str(lab.folder))
