"""All volumes of a group at once: what one refuses keeps no other from its turn."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from tests.unit.lvm.lab import KIB, MIB, Lab
from ulvm.dm.mapper import LocalMapper
from ulvm.dm.stage_file import StageSettings
from ulvm.lvm import lv, snapshot, vg_activation
from ulvm.lvm.vg_activation import Activity
from ulvm.metadata.model import StripedSegment


def place_of(lab: Lab, name: str) -> tuple[str, int]:
    """The PV's path, and the byte on it at which the volume begins."""
    vg = lab.vg
    volume = vg.lv(name)
    assert volume is not None
    segment = volume.segments[0]
    assert isinstance(segment, StripedSegment)
    pv = vg.pv(segment.areas[0].pv_uuid)
    assert pv is not None
    path = lab.session.last_scan.path_of(pv.uuid)
    assert path is not None
    return path, (pv.pe_start + segment.areas[0].pe * vg.extent_size) * 512


@pytest.fixture
def staged(lab: Lab, tmp_path: Path) -> Lab:
    """The write to vg/a was answered and cannot be written; vg/b is beside it."""
    lab.mapper = lab.session.mapper = LocalMapper(
        open_file=lab.open, stage=StageSettings(MIB, tmp_path / "stage")
    )
    for name in ("a", "b"):
        lv.create(lab.session, "vg", name, extents=1)
    snapshot.create(lab.session, "vg", "a", "s", extents=1)
    path, start = place_of(lab, "a")
    lab.devices[path].fail_range("write", start, 64 * KIB, error=errno.ENOSPC)
    handle = lab.mapper.mapped("vg-a").open(write=True)
    handle.write(0, b"\x11" * (4 * KIB))
    handle.close()
    return lab


def test_a_volume_that_cannot_be_written_keeps_no_other_active(staged: Lab) -> None:
    assert vg_activation.deactivate(staged.session, "vg") == Activity(active=2, failed=1)
    assert sorted(lv.states(staged.session, staged.vg)) == ["a", "s"]
    assert "device vg-a is not removed" in staged.heard.warned[-1]
    for device in staged.devices.values():
        device.clear()
    assert vg_activation.deactivate(staged.session, "vg") == Activity(active=0, failed=0)
    path, start = place_of(staged, "a")
    assert staged.devices[path].read(start, 4 * KIB) == b"\x11" * (4 * KIB)
