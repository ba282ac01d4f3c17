"""What lies on damaged, foreign and hostile devices: one warning or error, and nothing changed."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.vgstore.lab import MIB, Lab
from ulvm.errors import FormatError, NotFoundError, RefusedError, UlvmError
from ulvm.lvm.settled import SettledScans
from ulvm.metadata.crc import lvm_crc
from ulvm.metadata.mda import MdaHeader, RawLocn
from ulvm.vgstore.devices import DeviceEntry, add_devices, read_devices, remove_devices
from ulvm.vgstore.locks import vg_lock

MDA = 4096


def test_devices_file_round_trip(lab: Lab) -> None:
    odd = str(lab.folder / "with blank\\and\ttab")
    add_devices(lab.host, [DeviceEntry("/a", None), DeviceEntry(odd, None)])
    assert [e.path for e in read_devices(lab.host)] == ["/a", odd]
    remove_devices(lab.host, ["/a"])
    assert [e.path for e in read_devices(lab.host)] == [odd]


def test_a_vg_that_is_not_there(lab: Lab) -> None:
    with pytest.raises(NotFoundError, match='Volume group "vg" not found'):
        lab.scan().vg("vg")


def test_a_wrong_text_checksum_is_passed_over_when_another_copy_is_good(lab: Lab) -> None:
    a, b = lab.pv("a"), lab.pv("b")
    lab.vg(a, b)
    lab.patch(b, MDA + 512 + 40, b"\0")
    found = lab.scan()
    assert found.vg("vg").seqno == 1
    assert found.warnings[0] == f"WARNING: Checksum error on {b} at offset {MDA + 512}."
    assert found.pv(b).areas == ()


def test_pvs_of_a_vg_of_which_no_copy_is_good_are_known_to_be_in_use(lab: Lab) -> None:
    a = lab.pv("a")
    lab.vg(a)
    lab.patch(a, MDA + 512 + 40, b"\0")
    found = lab.scan()
    assert (found.vgs, found.broken) == ((), {})
    assert found.pv(a).unowned


def test_a_bad_area_header_is_told_in_lvms_words(lab: Lab) -> None:
    a, b = lab.pv("a"), lab.pv("b")
    lab.vg(a, b)
    lab.patch(b, MDA + 100, b"\xff")
    warnings = lab.scan().warnings
    assert warnings[0].startswith("WARNING: wrong checksum ")
    assert warnings[0].endswith(f" in mda header on {b} at 4096")
    assert warnings[1] == f"WARNING: bad metadata header on {b} at 4096."
    assert lab.scan().vg("vg").seqno == 1


@pytest.mark.parametrize("at", [MDA, MDA + 512], ids=["header", "text"])
def test_a_bad_sector_in_an_area_costs_the_area_and_not_the_disk(lab: Lab, at: int) -> None:
    """A change that took the disk for missing would mark it so, and its volumes with it."""
    a, b = lab.pv("a"), lab.pv("b")
    lab.vg(a, b)
    lab.faults[b] = [("read", at)]
    found = lab.scan()
    assert found.vg("vg").seqno == 1
    assert not found.vg("vg").partial
    assert found.pv(b).areas == ()
    assert found.warnings[0].startswith("WARNING: Failed to read metadata ")
    assert f"WARNING: repair VG metadata on {b} with vgck --updatemetadata." in found.warnings
    lab.change("x")
    lab.faults.clear()
    assert not any("missing" in line for line in lab.scan().warnings)
    assert lab.scan().vg("vg").seqno == 2


def rewrite_text(lab: Lab, path: str, change: bytes, to: bytes) -> None:
    """Replace words of the committed text, with right checksums."""
    data = Path(path).read_bytes()
    header = MdaHeader.unpack(data[MDA : MDA + 512], start=MDA)
    locn = header.committed
    text = data[MDA + locn.offset : MDA + locn.offset + locn.size]
    assert change in text
    text = text.replace(change, to)
    lab.patch(path, MDA + locn.offset, text)
    lab.patch(path, MDA, header.with_commit(RawLocn.of_text(locn.offset, text)).pack())


def test_an_unknown_segment_type(lab: Lab) -> None:
    a = lab.pv("a")
    lab.vg(a)
    lab.change("x")
    rewrite_text(lab, a, b'type = "striped"', b'type = "strange"')
    before = lab.bytes_of(a)

    def change() -> None:
        old = lab.scan().vg("vg")
        lab.prepare(old, lab.add(old, "y"))

    with pytest.raises(UlvmError, match=r"unknown|[Uu]nrecognised"):
        change()
    assert lab.bytes_of(a) == before


def test_a_name_that_is_a_path_is_refused(lab: Lab) -> None:
    a = lab.pv("a")
    lab.vg(a)
    lab.change("abcd")
    rewrite_text(lab, a, b"abcd {", b"../x {")
    with pytest.raises(FormatError):
        lab.scan().vg("vg")


@pytest.mark.parametrize("name", [b"a\0b", b"A" * 254, b"vg/b", b"\x1b[2J", b""])
def test_a_text_that_begins_with_no_name_is_damage(lab: Lab, name: bytes) -> None:
    """Locks would have that name. Other groups are as they were; LVM2's words."""
    a, b = lab.pv("a"), lab.pv("b")
    lab.vg(a)
    text = name + b" {\n}\n\0"
    lab.patch(b, MDA + 512, text)
    header = MdaHeader.unpack(Path(b).read_bytes()[MDA : MDA + 512], start=MDA)
    lab.patch(b, MDA, header.with_commit(RawLocn.of_text(512, text)).pack())
    with vg_lock(lab.host, "vg", exclusive=True):
        found = SettledScans(lab.host, ["vg"], [], tuple).scan([])
    assert found.vg("vg").seqno == 1
    assert not found.broken
    assert found.warnings[:2] == (
        f"WARNING: Metadata location on {b} at offset {MDA + 512} begins with invalid name.",
        f"WARNING: invalid metadata text from {b} at {MDA + 512}.",
    )
    with pytest.raises(RefusedError, match="No metadata areas to write to"):
        lab.vg(b, name="new")


def test_a_truncated_image(lab: Lab) -> None:
    a = lab.pv("a")
    lab.vg(a)
    with open(a, "r+b") as stream:
        stream.truncate(64 * MIB)
    found = lab.scan()
    assert found.vg("vg").seqno == 1
    assert "Was device resized?" in found.warnings[0]
    with open(a, "r+b") as stream:
        stream.truncate(100)
    assert lab.scan().pvs == ()
    with open(a, "r+b") as stream:
        stream.truncate(MDA + 100)
    assert lab.scan().vgs == ()


def test_a_foreign_or_empty_file_is_no_pv(lab: Lab) -> None:
    a = lab.pv("a")
    Path(a).write_bytes(b"\x7fELF" * (MIB // 4))
    assert lab.scan().pvs == ()
    Path(a).unlink()
    found = lab.scan()
    assert found.pvs == ()
    assert a in found.unreadable


def test_two_devices_with_one_uuid(lab: Lab) -> None:
    a = lab.pv("a")
    lab.vg(a)
    copy = lab.folder / "copy"
    copy.write_bytes(Path(a).read_bytes())
    uuid = lab.scan().pv(a).uuid
    add_devices(lab.host, [DeviceEntry(str(copy), None)])
    found = lab.scan()
    assert found.duplicates == {uuid}
    assert f"WARNING: Not using device {copy} for PV {uuid}." in found.warnings
    old = found.vg("vg")
    with pytest.raises(Exception, match="duplicate PV devices"):
        lab.prepare(old, lab.add(old, "x"))


def test_a_text_that_claims_2_to_the_60_bytes(lab: Lab) -> None:
    a = lab.pv("a")
    lab.vg(a)
    data = Path(a).read_bytes()[MDA : MDA + 512]
    body = bytearray(data)
    struct.pack_into("<Q", body, 32, 1 << 61)  # size of the area
    struct.pack_into("<QQ", body, 40, 512, 1 << 60)  # slot 0
    struct.pack_into("<L", body, 0, lvm_crc(bytes(body[4:])))
    lab.patch(a, MDA, bytes(body))
    assert lab.scan().vgs == ()


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    offset=st.integers(0, MDA + 6000),
    data=st.binary(min_size=1, max_size=64),
    fix=st.booleans(),
)
def test_no_damage_brings_anything_but_errors_of_ours(
    lab: Lab, offset: int, data: bytes, fix: bool
) -> None:
    path = lab.folder / "a"
    if not path.exists():
        lab.vg(lab.pv("a"))
        lab.change("x")
        (lab.folder / "good").write_bytes(path.read_bytes()[: 2 * MIB])
    lab.patch(str(path), 0, (lab.folder / "good").read_bytes())
    lab.patch(str(path), offset, data)
    if fix:
        body = path.read_bytes()[MDA + 4 : MDA + 512]
        lab.patch(str(path), MDA, struct.pack("<L", lvm_crc(body)))
    found = lab.scan()
    for name in found.broken:
        with pytest.raises(FormatError):
            found.vg(name)
