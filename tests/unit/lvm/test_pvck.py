"""pvck on a disk with bad sectors: what is around them is found."""

from __future__ import annotations

import pytest

from tests.unit.lvm.lab import Kept, Lab
from ulvm.blockdev.faults import FaultDevice
from ulvm.errors import DeviceError
from ulvm.lvm import lv, pv_repair, pvck

AREA = 4096


def with_bad_sector(lab: Lab, path: str, at: int) -> None:
    faulty = FaultDevice(lab.devices[path])
    faulty.fail_range("read", at, 512)
    lab.devices[path] = Kept(faulty)


def test_texts_around_a_bad_sector_are_found(lab: Lab) -> None:
    for name in ("one", "two", "three"):
        lv.create(lab.session, "vg", name, extents=1)
    path = next(iter(lab.devices))

    def found() -> list[str]:
        lab.heard.said.clear()
        pvck.dump(lab.session, path, "metadata_search", settings={})
        return [line for line in lab.heard.said if " seqno " in line]

    whole = found()
    first, bad, *_ = (int(line.split()[2]) for line in whole)
    assert first == AREA + 512
    with_bad_sector(lab, path, bad)
    assert found() == [line for line in whole if f"at {bad} " not in line]
    assert lab.heard.warned == [f"WARNING: {path} cannot be read at {bad} length 512."]


def test_a_label_that_cannot_be_read_is_not_made_of_zeroes(lab: Lab) -> None:
    path = next(iter(lab.devices))
    before = lab.contents()
    inner = lab.devices[path]
    with_bad_sector(lab, path, 512)
    with pytest.raises(DeviceError):
        pv_repair.repair(lab.session, path, "label_header", settings={}, file=None)
    lab.devices[path] = inner
    assert lab.contents() == before
