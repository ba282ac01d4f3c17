"""The commit protocol: old or new, whole, whatever fails."""

from __future__ import annotations

import errno
import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.vgstore.lab import EXTENT, MIB, Lab
from ulvm.errors import DeviceError, RefusedError
from ulvm.metadata import edit
from ulvm.metadata.layout import PvOptions
from ulvm.metadata.mda import MAX_TEXT, MdaHeader, RawLocn
from ulvm.metadata.text import TextHeader, vg_from_text, vg_to_text
from ulvm.metadata.uuid import new_uuid
from ulvm.vgstore.commit import check_size, prepare, remove_vg
from ulvm.vgstore.pv import as_member

MDA = 4096
"""Byte offset of the first metadata area."""


def header(path: str, start: int = MDA) -> MdaHeader:
    data = Path(path).read_bytes()[start : start + 512]
    return MdaHeader.unpack(data, start=start)


def test_a_change_raises_the_seqno_on_every_pv(lab: Lab) -> None:
    a, b = lab.pv("a"), lab.pv("b", copies=2)
    vg = lab.vg(a, b)
    assert vg.seqno == 1
    assert lab.change("x").seqno == 2
    found = lab.scan()
    assert found.warnings == ()
    assert found.vg("vg").seqno == 2
    assert [mda.vg.seqno for pv in found.pvs for mda in pv.mdas if mda.vg] == [2, 2, 2]
    assert all(pv.in_use for pv in found.pvs)


def test_nobody_sees_what_is_not_committed(lab: Lab) -> None:
    a = lab.pv("a")
    old = lab.vg(a)
    pending = lab.prepare(old, lab.add(old, "x"))
    assert not header(a).precommitted.empty
    assert lab.scan().vg("vg") == old
    pending.commit()
    assert header(a).precommitted.empty
    assert lab.scan().vg("vg").lv("x") is not None


def test_revert_clears_slot_1_and_what_joined(lab: Lab) -> None:
    a, b = lab.pv("a"), lab.pv("b")
    old = lab.vg(a)
    orphan = lab.scan().pv(b)
    new = edit.add_pv(old, as_member(orphan, old.extent_size))
    pending = lab.prepare(old, new)
    assert lab.scan().pv(b).in_use
    pending.revert()
    assert header(a).precommitted.empty
    assert not lab.scan().pv(b).in_use
    assert lab.scan().vg("vg") == old


def test_the_ring_wraps_and_the_old_text_survives(lab: Lab) -> None:
    """60 changes in an area of 40 KiB, each with a look at the text before it."""
    a = lab.pv("a", options=PvOptions(metadata_size=80, data_alignment=8))
    lab.vg(a)
    offsets = []
    for number in range(60):
        old = lab.scan().vg("vg")
        name = f"l{number % 8}"
        new = edit.remove_lv(old, name) if old.lv(name) else lab.add(old, name)
        pending = lab.prepare(old, new)
        assert lab.scan().vg("vg") == old
        pending.commit()
        offsets.append(header(a).committed.offset)
    assert lab.scan().vg("vg").seqno == 61
    assert sorted(offsets) != offsets, "the ring never came round"
    assert len(set(offsets)) > 10


def test_archive_before_and_backup_after(lab: Lab) -> None:
    a = lab.pv("a")
    lab.vg(a)
    lab.change("x")
    backup = lab.host.backup_dir / "vg"
    assert vg_from_text(backup.read_text()).seqno == 2
    assert "Created *after* executing 'test'" in backup.read_text()
    assert backup.stat().st_mode & 0o777 == 0o600
    (archived,) = lab.host.archive_dir.iterdir()
    assert archived.name.startswith("vg_00000-")
    assert vg_from_text(archived.read_text()).seqno == 1
    assert "Created *before* executing 'test'" in archived.read_text()


def test_a_failure_before_the_commit_changes_nothing(lab: Lab) -> None:
    a, b = lab.pv("a"), lab.pv("b")
    old = lab.vg(a, b)
    lab.faults[b] = [("write", -1)]
    with pytest.raises(DeviceError):
        lab.prepare(old, lab.add(old, "x"))
    lab.faults.clear()
    found = lab.scan()
    assert found.vg("vg") == old
    assert found.warnings == ()
    assert lab.change("x").seqno == 2


def test_one_area_that_fails_to_commit_is_left_behind_and_mended_later(lab: Lab) -> None:
    a, b = lab.pv("a"), lab.pv("b")
    old = lab.vg(a, b)
    pending = lab.prepare(old, lab.add(old, "x"))
    lab.faults[b] = [("write", MDA)]
    pending.commit()
    assert lab.warnings
    lab.faults.clear()
    found = lab.scan()
    assert found.vg("vg").seqno == 2
    assert found.warnings == (
        f"WARNING: ignoring metadata seqno 1 on {b} for seqno 2 on {a} for VG vg.",
        "WARNING: Inconsistent metadata found for VG vg.",
        "See vgck --updatemetadata to correct inconsistency.",
    )
    lab.warnings.clear()
    lab.change("y")
    assert lab.warnings == [f"WARNING: updating old metadata to 3 on {b} for VG vg."]
    assert lab.scan().warnings == ()


def failing_with(error: Exception) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


@pytest.mark.parametrize(
    ("faults", "says"),
    [
        ({"fsync": OSError(errno.EIO, "bad"), "unlink": OSError(errno.EROFS, "no")}, "bad"),
        ({"fsync": MemoryError()}, "MemoryError"),
    ],
    ids=["the file system turns read-only", "no memory"],
)
def test_a_commit_stands_whatever_becomes_of_the_backup_file(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, faults: dict[str, Exception], says: str
) -> None:
    """And a revert that follows all the same touches nothing."""
    a, b = lab.pv("a"), lab.pv("b")
    old = lab.vg(a, b)
    pending = lab.prepare(old, edit.remove_pv(old, lab.scan().pv(b).uuid))
    with monkeypatch.context() as failing:
        for name, error in faults.items():
            failing.setattr(os, name, failing_with(error))
        pending.commit()
    assert [says in warning for warning in lab.warnings] == [True]
    pending.revert()
    found = lab.scan()
    assert found.warnings == ()
    assert [pv.device for pv in found.vg("vg").pvs] == [a]
    assert not found.pv(b).in_use
    assert lab.change("x").seqno == 3


@pytest.mark.parametrize(
    ("at", "mended"),
    [(0, True), (20, True), (512 + 60, True), (4, False), (24, False)],
    ids=["checksum", "version", "text", "magic", "place"],
)
def test_what_is_damaged_is_mended_where_that_is_asked_for(lab: Lab, at: int, mended: bool) -> None:
    a, b = lab.pv("a", copies=2), lab.pv("b")
    lab.vg(a, b)
    lab.patch(a, MDA + at, b"\xff")
    lab.change("x")
    assert [mda.good for mda in lab.scan().pv(a).mdas] == [False, True]
    old = lab.scan().vg("vg")
    prepare(
        lab.host, lab.scan(), old, old, command="vgck", mend=True, warn=lab.warnings.append
    ).commit()
    found = lab.scan()
    assert found.vg("vg").seqno == old.seqno + 1
    assert [mda.vg is not None for mda in found.pv(a).mdas] == [mended, True]
    assert lab.warnings[-1].startswith(
        "WARNING: repairing bad metadata (0x" if mended else "WARNING: not repairing bad metadata "
    )


def test_an_area_is_no_larger_than_its_label_says(lab: Lab) -> None:
    """What its header counts as its own beyond that are the first extents."""
    a, b = lab.pv("a"), lab.pv("b")
    lab.vg(a, b)
    good = header(a)
    lab.patch(a, MDA, good._replace(size=2 * good.size).pack())
    before = lab.bytes_of(a)
    assert lab.scan().warnings[0] == (
        f"WARNING: wrong size {2 * good.size} in mda header on {a} at {MDA}"
    )
    old = lab.change("x")
    assert lab.bytes_of(a) == before
    prepare(lab.host, lab.scan(), old, old, command="vgck", mend=True).commit()
    assert header(a).size == good.size
    assert lab.scan().warnings == ()


def test_what_is_mended_gets_the_bytes_of_the_others(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LVM2 holds checksums against each other, and the time is in the text."""
    a, b = lab.pv("a"), lab.pv("b")
    old = lab.vg(a, b)
    lab.patch(a, MDA + 512 + 60, b"\xff")
    monkeypatch.setattr(time, "time", map(float, itertools.count(1)).__next__)
    prepare(lab.host, lab.scan(), old, old, command="vgck", mend=True).commit()
    assert header(a).committed.checksum == header(b).committed.checksum


def test_a_pv_that_leaves_has_its_good_areas_alone(lab: Lab) -> None:
    a, b = lab.pv("a", copies=2), lab.pv("b")
    vg = lab.vg(a, b)
    lab.patch(a, MDA, bytes(4))
    pv = lab.scan().pv(a)
    lab.prepare(vg, edit.remove_pv(vg, pv.uuid)).commit()
    left = lab.scan().pv(a)
    assert not left.in_use
    assert [mda.offset for mda in left.mdas] == [pv.mdas[1].offset]


def test_no_area_that_can_be_written_is_an_error(lab: Lab) -> None:
    a = lab.pv("a")
    old = lab.vg(a)
    pending = lab.prepare(old, lab.add(old, "x"))
    lab.faults[a] = [("write", MDA)]
    with pytest.raises(DeviceError, match="Failed to commit VG vg"):
        pending.commit()
    lab.faults.clear()
    assert lab.scan().vg("vg") == old


def test_a_crash_after_the_first_header_is_the_new_vg(lab: Lab) -> None:
    a, b = lab.pv("a"), lab.pv("b")
    old = lab.vg(a, b)
    before = lab.bytes_of(a, b)
    lab.change("x")
    lab.patch(b, 0, before[1])  # b as a power cut between the two would have left it
    assert lab.scan().vg("vg").seqno == 2
    lab.patch(a, 0, before[0])
    assert lab.scan().vg("vg") == old


def test_metadata_larger_than_the_area_are_refused(lab: Lab) -> None:
    a = lab.pv("a")
    old = lab.vg(a)
    tags = tuple(f"{n:04d}" + "t" * 1000 for n in range(600))
    with pytest.raises(RefusedError, match=r"metadata on .* exceeds maximum metadata size"):
        lab.prepare(old, old._replace(tags=tags))
    assert lab.scan().vg("vg") == old


def test_a_text_that_would_not_be_read_again_is_not_written(lab: Lab) -> None:
    vg = lab.vg(lab.pv("a"))
    large = MdaHeader(MDA, 4 * MAX_TEXT)
    check_size(vg, "a", large, bytes(MAX_TEXT))
    with pytest.raises(RefusedError, match=rf"exceeds maximum metadata size \({MAX_TEXT} bytes\)"):
        check_size(vg, "a", large, bytes(MAX_TEXT + 1))


def test_a_text_that_would_touch_the_one_before_is_refused(lab: Lab) -> None:
    """One that is larger than any of ours, as older versions of LVM2 wrote them."""
    a = lab.pv("a", options=PvOptions(metadata_size=64, data_alignment=64))
    old = lab.vg(a)
    (mda,) = lab.scan().pv(a).mdas
    assert mda.header is not None
    text = vg_to_text(old, TextHeader.now("", "")).encode()
    text += b"#" * (mda.size - 4096 - len(text)) + b"\n\0"
    lab.patch(a, MDA + 512, text)
    lab.patch(a, MDA, mda.header.with_commit(RawLocn.of_text(512, text)).pack())
    before = lab.bytes_of(a)
    tags = tuple(f"tag{number}" for number in range(500))
    with pytest.raises(RefusedError, match=r"too large for circular buffer \(\d+ bytes with"):
        lab.prepare(old, old._replace(tags=tags))
    assert lab.bytes_of(a) == before
    assert lab.change("x").seqno == 2


def test_a_vg_with_a_missing_pv_is_not_changed(lab: Lab) -> None:
    a, b = lab.pv("a"), lab.pv("b")
    lab.vg(a, b)
    uuid = lab.scan().pv(b).uuid
    Path(b).rename(lab.folder / "elsewhere")
    found = lab.scan()
    assert found.warnings == (
        f"WARNING: Couldn't find device with uuid {uuid}.",
        f"WARNING: VG vg is missing PV {uuid} (last written to {b}).",
    )
    old = found.vg("vg")
    before = lab.bytes_of(a)
    with pytest.raises(RefusedError) as caught:
        lab.prepare(old, lab.add(old, "x"))
    assert caught.value.message.splitlines() == [
        "Cannot change VG vg while PVs are missing.",
        "See vgreduce --removemissing and vgextend --restoremissing.",
        "Cannot process volume group vg",
    ]
    assert lab.bytes_of(a) == before


def test_removing_a_vg_frees_its_pvs(lab: Lab) -> None:
    a, b = lab.pv("a"), lab.pv("b", copies=2)
    vg = lab.vg(a, b)
    remove_vg(lab.host, lab.scan(), vg, command="vgremove")
    found = lab.scan()
    assert found.vgs == ()
    assert [pv.in_use for pv in found.pvs] == [False, False]
    assert not (lab.host.backup_dir / "vg").exists()
    assert lab.vg(a, b).seqno == 1


def test_a_pv_that_leaves_is_an_orphan(lab: Lab) -> None:
    a, b = lab.pv("a"), lab.pv("b", size=256 * MIB)
    old = lab.vg(a, b)
    new = edit.remove_pv(old, lab.scan().pv(b).uuid)
    lab.prepare(old, new).commit()
    found = lab.scan()
    assert [p.device for p in found.vg("vg").pvs] == [a]
    assert found.pv(b).vg_name is None
    assert not found.pv(b).in_use


def test_a_commit_of_which_nothing_was_written_leaves_the_pvs_free(lab: Lab) -> None:
    path = lab.pv("a")
    vg = edit.new_vg("vg", uuid=new_uuid(), extent_size=EXTENT)
    found = lab.scan().pv(path)
    pending = lab.prepare(None, edit.add_pv(vg, as_member(found, EXTENT)))
    assert lab.scan().pv(path).in_use
    lab.faults[path] = [("write", 4096)]
    with pytest.raises(DeviceError):
        pending.commit()
    lab.faults.clear()
    assert not lab.scan().pv(path).in_use


def test_a_group_does_not_get_a_name_too_long_for_its_volumes(lab: Lab) -> None:
    a = lab.pv("a")
    lab.vg(a)
    old = lab.change("x")
    before = lab.bytes_of(a)
    with pytest.raises(RefusedError, match="length 131 is not supported"):
        lab.prepare(old, edit.rename_vg(old, "v" * 127))
    assert lab.bytes_of(a) == before
    lab.prepare(old, edit.rename_vg(old, "v" * 123)).commit()
