"""A group of which two PVs have different metadata and none that are older, or some that nobody
understands, or of which a PV is there twice: it is shown, and not used before that is settled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.lvm.lab import Kept, Lab
from ulvm.blockdev.memory import MemoryDevice
from ulvm.errors import RefusedError
from ulvm.lvm import lv, lv_change, regroup, restore, vg, vg_activation
from ulvm.lvm.clone import import_clone
from ulvm.metadata.mda import MdaHeader, RawLocn, ring_parts
from ulvm.metadata.model import VolumeGroup
from ulvm.metadata.text import TextHeader, vg_to_text
from ulvm.metadata.uuid import new_uuid
from ulvm.vgstore.devices import DeviceEntry, add_devices, remove_devices
from ulvm.vgstore.scan import scan

AREA = 4096
"""Where the metadata area of a PV begins."""


def tagged(tag: str) -> Callable[[VolumeGroup], VolumeGroup]:
    return lambda vg: vg._replace(tags=(tag,))


@pytest.fixture
def apart(lab: Lab) -> Lab:
    """A commit reached disk a alone, which was away when the group was changed on b."""
    lv.create(lab.session, "vg", "o", extents=4)
    lv.deactivate(lab.session, "vg", "o")
    a, b = lab.devices
    old = lab.contents()[b]
    lab.session.change_vg("vg", tagged("first"))
    lab.devices[b].write(0, old)
    Path(a).rename(f"{a}.away")
    lab.session.change_vg("vg", tagged("later"), allow_missing=True)
    Path(f"{a}.away").rename(a)
    lab.heard.warned.clear()
    return lab


def test_that_is_told_and_the_later_one_is_shown(apart: Lab) -> None:
    a, b = apart.devices
    found = scan(apart.host)
    assert found.vg("vg").tags == ("later",)
    assert found.warnings[:2] == (
        f"WARNING: Scanning {a} mda1 found mismatch with other metadata.",
        f"WARNING: VG vg has two different metadata of seqno 3: those on {b} are used, "
        f"those on {a} are not.",
    )


USES: list[Callable[[Lab], object]] = [
    lambda lab: lv.create(lab.session, "vg", "new", extents=1),
    lambda lab: lv.remove(lab.session, "vg", "o"),
    lambda lab: lv.activate(lab.session, "vg", "o", partial=True),
    lambda lab: lv_change.refresh(lab.session, "vg", ["o"], partial=True),
    lambda lab: vg_activation.activate(lab.session, "vg"),
    lambda lab: vg.remove(lab.session, "vg", incomplete=True),
    lambda lab: regroup.exported(lab.session, "vg"),
]


@pytest.mark.parametrize("use", USES)
def test_nothing_is_changed_nor_activated(apart: Lab, use: Callable[[Lab], object]) -> None:
    a, b = apart.devices
    before = apart.contents()
    with pytest.raises(RefusedError) as refused:
        use(apart)
    assert refused.value.message == (
        f"Cannot use VG vg while its metadata on {b} and on {a} differ: run "
        "vgck --updatemetadata to go on with those that lvs shows, or vgcfgrestore with those of "
        "a file.\n"
        "Cannot process volume group vg"
    )
    assert apart.contents() == before
    assert apart.tables() == []


def test_what_is_active_can_be_deactivated(apart: Lab) -> None:
    assert vg_activation.deactivate(apart.session, "vg") == (0, 0)


def agreed(lab: Lab, tag: str) -> None:
    found = scan(lab.host)
    assert not found.differing
    assert found.vg("vg").tags == (tag,)
    lab.session.change_vg("vg", tagged("new"), allow_missing=True)


def test_the_one_that_is_shown_is_taken(apart: Lab) -> None:
    restore.rewrite(apart.session, "vg")
    agreed(apart, "later")


def test_that_of_a_file_is_taken(apart: Lab, tmp_path: Path) -> None:
    (text,) = [mda.vg for mda in scan(apart.host).pvs[0].mdas]
    assert text is not None
    (tmp_path / "text").write_text(vg_to_text(text, TextHeader.now("", ""), file_form=True))
    restore.restore(apart.session, "vg", tmp_path / "text")
    agreed(apart, "first")


def test_copies_of_it_are_no_group_of_their_own(apart: Lab) -> None:
    copies = []
    for path, content in apart.contents().items():
        copies.append(f"{path}.copy")
        Path(copies[-1]).touch()
        apart.devices[copies[-1]] = Kept(MemoryDevice(len(content)))
        apart.devices[copies[-1]].write(0, content)
    before = apart.contents()
    with pytest.raises(RefusedError, match="The devices have different metadata of VG vg"):
        import_clone(apart.session, copies)
    assert apart.contents() == before


def test_a_text_that_is_not_understood_is_not_written_over(lab: Lab) -> None:
    """It may be the newest, of a program that knows more."""
    a = next(iter(lab.devices))
    device = lab.devices[a]
    header = MdaHeader.unpack(device.read(AREA, 512), start=AREA)
    locn = header.committed
    (part,) = ring_parts(header.size, locn.offset, locn.size)
    text = device.read(AREA + part[0], part[1])
    text = text.replace(b"seqno = 1", b"seqno = x")
    device.write(AREA + part[0], text)
    header = header.with_commit(RawLocn.of_text(part[0], text))
    device.write(AREA, header.pack())
    before = lab.contents()
    assert [text.partition(": ")[2] for text in scan(lab.host).warnings] == [
        f"ignoring metadata of VG vg on {a} mda1: 'seqno' of volume group vg is not a number."
    ]
    with pytest.raises(RefusedError, match=f"while its metadata on {a} are not understood"):
        lv.create(lab.session, "vg", "new", extents=1)
    assert lab.contents() == before
    restore.rewrite(lab.session, "vg")
    assert scan(lab.host).warnings == ()
    lv.create(lab.session, "vg", "new", extents=1)


@pytest.fixture
def twice(lab: Lab) -> Lab:
    """Disk a has another name, a copy of it stands before it, and a volume on it has changed."""
    lv.create(lab.session, "vg", "o", extents=4)
    lab.write("o", 0, b"before")
    a = next(iter(lab.devices))
    copy, moved = f"{a}1", f"{a}2"
    Path(a).rename(moved)
    Path(copy).touch()
    lab.devices[moved] = lab.devices.pop(a)
    lab.devices[copy] = Kept(MemoryDevice(lab.devices[moved].size))
    lab.devices[copy].write(0, lab.contents()[moved])
    remove_devices(lab.host, [a])
    add_devices(lab.host, [DeviceEntry(copy, None), DeviceEntry(moved, None)])
    lab.write("o", 0, b"behind")
    return lab


def test_what_is_active_keeps_to_its_device(twice: Lab) -> None:
    tables = twice.tables()
    with pytest.raises(RefusedError, match="Cannot activate LVs in VG vg while PVs appear on dup"):
        lv_change.refresh(twice.session, "vg", ["o"])
    assert vg_activation.refresh(twice.session, "vg") == 1
    twice.mapper.suspend("vg-o")
    before = twice.contents()
    with pytest.raises(RefusedError, match="Cannot update volume group vg with duplicate PV dev"):
        lv.create(twice.session, "vg", "new", extents=1)
    assert twice.contents() == before
    assert twice.tables() == tables
    assert twice.read("o", 0, 6) == b"behind"


def test_a_disk_that_missed_the_new_uuid_and_more_is_brought_up_to_date(lab: Lab) -> None:
    a, b = lab.devices
    lv.create(lab.session, "vg", "o", extents=4)
    lv.deactivate(lab.session, "vg", "o")
    old = lab.contents()[b]
    lab.session.change_vg("vg", lambda vg: vg._replace(uuid=new_uuid()))
    lv.create(lab.session, "vg", "p", extents=4)
    lab.devices[b].write(0, old)
    found = scan(lab.host)
    assert found.vg("vg").seqno == 4
    assert found.warnings[0] == (
        f"WARNING: ignoring metadata seqno 2 on {b} for seqno 4 on {a} for VG vg."
    )
    lab.session.change_vg("vg", tagged("new"))
    assert scan(lab.host).warnings == ()
