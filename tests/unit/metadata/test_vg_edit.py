"""Attributes of a volume group: what is refused, and what comes of the rest."""

from __future__ import annotations

import pytest

from ulvm.errors import RefusedError
from ulvm.metadata import edit, vg_edit
from ulvm.metadata.check import check_vg
from ulvm.metadata.model import PhysicalVolume, VolumeGroup
from ulvm.metadata.move import advance_move, finish_move, start_move
from ulvm.metadata.segments import PvExtents
from ulvm.metadata.snapshot_edit import add_snapshot
from ulvm.metadata.uuid import new_uuid


@pytest.fixture
def vg() -> VolumeGroup:
    """100 extents of 1 MiB, of which l1 has 4 and l2 has 3."""
    found = edit.new_vg("vg", uuid=new_uuid(), extent_size=2048)
    pv = PhysicalVolume(new_uuid(), "/d", dev_size=2048 * 101, pe_start=2048, pe_count=100)
    found = edit.add_pv(found, pv)
    for name, extents in (("l1", 4), ("l2", 3)):
        found = edit.add_linear(found, name, extents, uuid=new_uuid(), now=1, host="h")
    return found


def test_smaller_extents_leave_all_where_it_is(vg: VolumeGroup) -> None:
    new = vg_edit.set_extent_size(vg, 512)
    assert (new.extent_count, new.free_count) == (400, 4 * vg.free_count)
    assert [lv.extent_count for lv in new.lvs] == [16, 12]
    assert [vg.lv_sectors(lv) for lv in vg.lvs] == [new.lv_sectors(lv) for lv in new.lvs]
    second = new.lvs[1].segments[0]
    assert second.areas[0].pe == 16  # type: ignore[union-attr]
    assert vg_edit.set_extent_size(new, 2048) == vg


@pytest.mark.parametrize("atomic", [False, True])
def test_smaller_extents_while_some_are_moved(vg: VolumeGroup, atomic: bool) -> None:
    other = PhysicalVolume(new_uuid(), "/e", dev_size=2048 * 101, pe_start=2048, pe_count=100)
    vg = edit.add_pv(vg, other)
    source = PvExtents(vg.pvs[0].uuid)
    moving = start_move(vg, source, new_uuid=new_uuid, now=1, host="h", atomic=atomic).vg
    if not atomic:
        moving = advance_move(moving, "pvmove0", 0)
    new = vg_edit.set_extent_size(moving, 512)
    check_vg(new)
    assert vg_edit.set_extent_size(new, 2048) == moving
    ended = finish_move(moving, "pvmove0")
    assert finish_move(new, "pvmove0") == vg_edit.set_extent_size(ended, 512)


@pytest.mark.parametrize(
    ("sectors", "said"),
    [
        (4096, "New size 190464 for vg free space not an exact number of new extents."),
        (6144, "New extent size is not a perfect fit"),
        (300, "must be a multiple of 128.00 KiB"),
        (0, "may not be zero"),
    ],
)
def test_extents_that_do_not_come_out_whole(vg: VolumeGroup, sectors: int, said: str) -> None:
    with pytest.raises(RefusedError, match=said):
        vg_edit.set_extent_size(vg, sectors)


def test_limits_are_no_less_than_what_there_is(vg: VolumeGroup) -> None:
    assert vg_edit.set_max_lv(vg, 2).max_lv == 2
    assert vg_edit.set_max_pv(vg, 0).max_pv == 0
    with pytest.raises(RefusedError, match="less than the current number 2 of LVs"):
        vg_edit.set_max_lv(vg, 1)
    fixed = vg_edit.set_resizeable(vg, False)
    for change in (vg_edit.set_max_lv, vg_edit.set_max_pv, vg_edit.set_extent_size):
        with pytest.raises(RefusedError, match="must be resizeable to change"):
            change(fixed, 4096)


def test_what_is_so_already_is_refused(vg: VolumeGroup) -> None:
    off = vg_edit.set_autoactivation(vg, False)
    assert off.flags == {"NOAUTOACTIVATE"}
    assert vg_edit.set_autoactivation(off, True) == vg
    for change, value in (
        (vg_edit.set_autoactivation, True),
        (vg_edit.set_resizeable, True),
        (vg_edit.set_policy, "normal"),
        (vg_edit.set_policy, "inherit"),
    ):
        with pytest.raises(RefusedError):
            change(vg, value)  # type: ignore[operator]
    tagged = vg_edit.set_tags(vg, add=["a", "b"], remove=[])
    assert vg_edit.set_tags(tagged, add=["c", "b"], remove=["a"]).tags == ("b", "c")


def test_a_partial_snapshot_makes_its_origin_partial_and_not_lost(vg: VolumeGroup) -> None:
    other = PhysicalVolume(new_uuid(), "/e", dev_size=2048 * 101, pe_start=2048, pe_count=100)
    vg = edit.add_pv(vg, other)
    vg = add_snapshot(
        vg, "l1", "s", 2, chunk_size=8, uuid=new_uuid(), snapshot_uuid=new_uuid(), now=1, host="h"
    )
    cow = vg.lv("s")
    assert cow is not None
    area = cow.segments[0].areas[0]._replace(pv_uuid=other.uuid)  # type: ignore[union-attr]
    moved = cow._replace(segments=(cow.segments[0]._replace(areas=(area,)),))  # type: ignore[call-arg]
    vg = vg.with_lv(moved)._replace(missing_uuids=frozenset({other.uuid}))
    origin, snapshot = vg.lv("l1"), vg.lv("s")
    assert origin is not None
    assert snapshot is not None
    assert (vg.is_partial(origin), vg.has_lost_extents(origin)) == (True, False)
    assert (vg.is_partial(snapshot), vg.has_lost_extents(snapshot)) == (True, True)
