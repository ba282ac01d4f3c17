"""Disks of foreign make, or damaged: what is said of them; nothing takes them for empty."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from tests.e2e.host import UlvmHost
from tests.fuzz.test_disks import LABEL, text_of, with_crc, with_text


@pytest.fixture
def disk(host: UlvmHost) -> Path:
    path = host.image("disk", "16M")
    host.run("vgcreate vg disk")
    host.run("lvcreate -an -l 1 -n data vg")
    return path


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (b'"READ"', b'"REED"', "Unknown status flag 'REED' in volume group vg."),
        (b'"lvm2"', b'"lvm9"', "Unrecognised format lvm9 for volume group vg."),
    ],
)
def test_the_pv_of_a_group_that_is_not_understood(
    host: UlvmHost, disk: Path, old: bytes, new: bytes, why: str
) -> None:
    image = disk.read_bytes()
    text = text_of(image)
    assert old in text
    disk.write_bytes(with_text(image, text.replace(old, new, 1)))
    before = disk.read_bytes()
    shown = host.run("pvs --noheadings -o attr,pv_free,vg_name")
    assert shown.stdout.split() == ["u--", "0", "vg"]
    assert f"WARNING: VG vg on {disk} is not understood: {why}" in shown.stderr
    shown = host.run("pvdisplay disk")
    assert "new" not in shown.stdout.lower()
    for line in ("lvchange --addtag x vg/data", "vgck --updatemetadata vg", "vgremove -f vg"):
        assert why in host.run(line, rc=5).stderr
    for line in ("pvcreate -y disk", "vgcreate -y other disk", "pvremove -y disk"):
        host.run(line, rc=5)
    assert disk.read_bytes() == before


@pytest.mark.parametrize(
    ("version", "flags", "warning"),
    [
        (2, 0, "missing the used flag in PV header."),
        (1, 0, "using an old PV header, modify the VG to update."),
        (3, 0, "missing the used flag in PV header."),
        (3, 1, ""),
    ],
)
def test_an_older_or_later_pv_header(
    host: UlvmHost, disk: Path, version: int, flags: int, warning: str
) -> None:
    """As LVM2 has it; a header that says more than we know is no empty disk."""
    image = bytearray(disk.read_bytes())
    at = 512 + 72 + 4 * 16
    assert struct.unpack_from("<LL", image, at) == (2, 1)
    struct.pack_into("<LL", image, at, version, flags)
    image[LABEL] = with_crc(bytes(image[LABEL]), 16, 20)
    disk.write_bytes(image)
    shown = host.run("pvs --noheadings -o vg_name,pv_in_use")
    assert shown.stdout.split() == ["vg", "used"]
    said = f"WARNING: PV {disk} in VG vg is {warning}" if warning else ""
    assert shown.stderr.strip() == said
    host.run("pvcreate -y disk", rc=5)
    assert disk.read_bytes() == image
    host.run("lvchange -ay vg/data")
    changed = host.run("lvchange --addtag x vg/data").stderr
    assert (f"WARNING: updating PV header on {disk} for VG vg." in changed) is bool(warning)
    assert host.run("pvs").stderr == ""
