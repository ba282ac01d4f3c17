"""pvmove in the metadata: what LVM2 writes and refuses, and every extent where it belongs."""

from __future__ import annotations

import random

import pytest

from tests.unit.metadata.test_edit import add, group, places, snap
from ulvm.errors import FormatError, NotFoundError, RefusedError
from ulvm.metadata import edit
from ulvm.metadata.check import check_vg
from ulvm.metadata.model import Area, LogicalVolume, MirrorSegment, StripedSegment, VolumeGroup
from ulvm.metadata.move import Moved, advance_move, current_segment, finish_move, start_move
from ulvm.metadata.segments import PvExtents
from ulvm.metadata.snapshot_edit import join_snapshot
from ulvm.metadata.text import TextHeader, vg_from_text, vg_to_text
from ulvm.metadata.uuid import new_uuid

HEADER = TextHeader("", "", 0, "")


def move(vg: VolumeGroup, source: int = 0, *runs: tuple[int, int], **options: object) -> Moved:
    place = PvExtents(vg.pvs[source].uuid, runs)
    moved = start_move(vg, place, new_uuid=new_uuid, now=1, host="h", **options)  # type: ignore[arg-type]
    check_vg(moved.vg)
    read = vg_from_text(vg_to_text(moved.vg, HEADER))  # in another order
    assert {lv.name: lv for lv in read.lvs} == {lv.name: lv for lv in moved.vg.lvs}
    return moved


def done(moved: Moved) -> VolumeGroup:
    vg = moved.vg
    while True:
        lv = vg.lv(moved.name)
        assert lv is not None
        number = current_segment(lv)
        if number is None:
            break
        vg = advance_move(vg, moved.name, number)
        check_vg(vg)
    vg = finish_move(vg, moved.name)
    check_vg(vg)
    return vg


def mirrors(moved: Moved) -> list[tuple[int, Area, Area]]:
    lv = moved.vg.lv(moved.name)
    assert lv is not None
    found = []
    for segment in lv.segments:
        assert isinstance(segment, MirrorSegment)
        found.append((segment.extent_count, *segment.areas))
    return found  # type: ignore[return-value]


def where(vg: VolumeGroup, name: str) -> list[tuple[str, int]]:
    """PV and extent of each logical extent; a stripe's in the order of its areas."""
    lv = vg.lv(name)
    assert lv is not None
    found = []
    for segment in lv.segments:
        assert isinstance(segment, StripedSegment)
        for at in range(segment.area_len):
            found += [(area.lv or area.pv_uuid, area.pe + at) for area in segment.areas]
    return found


def test_all_of_a_pv_goes_and_what_was_cut_is_whole_again() -> None:
    vg = group(100, 100)
    for name, extents in (("a", 7), ("b", 4)):
        vg = add(vg, name, extents)
    vg = edit.extend_lv(vg, "a", 10)
    vg = snap(vg, "a", "s", 5)
    moved = move(vg)
    assert moved.extents == (("a", 10), ("b", 4), ("s", 5))
    first, second = (pv.uuid for pv in vg.pvs)
    assert mirrors(moved) == [
        (7, Area(first, 0), Area(second, 0)),
        (3, Area(first, 11), Area(second, 7)),
        (4, Area(first, 7), Area(second, 10)),
        (5, Area(first, 14), Area(second, 14)),
    ]
    locked = [lv.name for lv in moved.vg.lvs if lv.locked]
    assert locked == ["a", "b", "s", "pvmove0"]
    assert not moved.vg.is_visible(moved.vg.pvmoves()[0])
    assert moved.vg.free_count == vg.free_count - 19
    after = done(moved)
    assert places(after, "a") == [("/dev/1", 0, 10)]
    assert places(after, "s") == [("/dev/1", 14, 5)]
    assert not after.allocated(first)
    assert not any(lv.locked for lv in after.lvs)


def test_ranges_cut_segments_and_stripes() -> None:
    vg = group(100, 100, 100)
    vg = add(vg, "st", 16, stripes=2, stripe_size=128)
    vg = add(vg, "a", 8, places=[PvExtents(vg.pvs[0].uuid)])
    before = {name: where(vg, name) for name in ("st", "a")}
    moved = move(vg, 0, (2, 3), (7, 3))
    assert moved.extents == (("st", 4), ("a", 2))
    after = done(moved)
    source = vg.pvs[0].uuid
    for name, old in before.items():
        for one, now in zip(old, where(after, name), strict=True):
            goes = one[0] == source and (2 <= one[1] < 5 or 7 <= one[1] < 10)
            assert (now != one) == goes
            assert (now[0] == source) == (one[0] == source and not goes)


def test_stripes_are_not_cut() -> None:
    """Each of them has four extents."""
    vg = add(group(100, 100, 100, extent_size=32), "st", 16, stripes=2, stripe_size=128)
    assert move(vg, 0, (4, 4)).extents == (("st", 4),)
    with pytest.raises(RefusedError, match="do not fit the 2 extents"):
        move(vg, 0, (0, 2))
    third = vg.pvs[2].uuid
    assert move(vg, 0, places=[PvExtents(third, ((0, 4), (10, 4)))]).extents == (("st", 8),)
    with pytest.raises(RefusedError, match=r"do not fit the [35] extents"):
        move(vg, 0, places=[PvExtents(third, ((0, 3), (10, 5)))])


def test_other_stripes_are_kept_away_from() -> None:
    vg = add(group(10, 10, 10), "st", 8, stripes=2, stripe_size=128)
    assert {mirrors(move(vg))[0][2].pv_uuid} == {vg.pvs[2].uuid}
    only = [PvExtents(vg.pvs[1].uuid)]
    with pytest.raises(RefusedError) as refused:
        move(vg, places=only)
    assert refused.value.message.splitlines() == [
        "Insufficient suitable allocatable extents for logical volume : 4 more required",
        "Unable to allocate mirror extents for vg/pvmove0.",
        "Failed to convert pvmove LV to mirrored.",
    ]
    assert mirrors(move(vg, places=only, policy="anywhere"))[0][2].pv_uuid == vg.pvs[1].uuid


def test_what_is_refused() -> None:
    vg = add(group(100, 20), "a", 16)
    vg = edit.extend_lv(add(vg, "b", 7), "a", 20)
    with pytest.raises(NotFoundError, match=r"^Logical volume nosuch not found.$"):
        move(vg, only="nosuch")
    with pytest.raises(RefusedError, match=r"^No data to move for vg.$"):
        move(vg, 1)
    with pytest.raises(RefusedError, match=r"^No extents available for allocation.$"):
        move(vg, places=[PvExtents(vg.pvs[0].uuid)])
    with pytest.raises(RefusedError, match="27 extents needed, but only 20 available"):
        move(vg)
    with pytest.raises(
        RefusedError, match="suitable contiguous allocatable extents for logical volume : 4 more"
    ):
        move(vg, only="a", policy="contiguous")
    begun = move(vg, only="b").vg
    for refused, words in (
        (lambda: edit.remove_lv(begun, "b"), "Can't remove locked logical volume vg/b."),
        (lambda: edit.extend_lv(begun, "b", 9), "Can't resize locked logical volume vg/b."),
        (lambda: edit.reduce_lv(begun, "b", 2), "Can't resize locked logical volume vg/b."),
        (lambda: edit.rename_lv(begun, "b", "c"), "Cannot rename locked LV b"),
        (lambda: snap(begun, "b", "s", 3), "Snapshots of locked volumes are not supported."),
    ):
        with pytest.raises(RefusedError) as error:
            refused()
        assert error.value.message == words


def test_two_moves_at_once_and_a_locked_volume() -> None:
    vg = add(group(20, 20, 20, 20), "st", 8, stripes=2, stripe_size=128)
    first = move(vg, 0, places=[PvExtents(vg.pvs[2].uuid)])
    said: list[str] = []
    with pytest.raises(RefusedError, match="All data on source PV skipped"):
        move(first.vg, 1, say=said.append)
    assert said == ["Skipping locked LV vg/st."]
    other = move(add(first.vg, "a", 5, places=[PvExtents(vg.pvs[1].uuid)]), 1)
    assert other.name == "pvmove1"
    assert other.extents == (("a", 5),)
    vg = finish_move(other.vg, "pvmove0")
    check_vg(vg)
    assert [lv.name for lv in vg.pvmoves()] == ["pvmove1"]
    assert [lv.name for lv in vg.lvs if lv.locked] == ["a", "pvmove1"]


def test_atomic_is_all_or_nothing() -> None:
    vg = edit.extend_lv(add(add(group(50, 50), "a", 5), "b", 5), "a", 9)
    moved = move(vg, atomic=True)
    names = [lv.name for lv in moved.vg.lvs]
    assert names == ["a", "b", "pvmove0", "pvmove0_mimage_0", "pvmove0_mimage_1"]
    assert [lv.name for lv in moved.vg.visible_lvs()] == ["a", "b"]
    assert [count for count, _, _ in mirrors(moved)] == [14]
    assert finish_move(moved.vg, "pvmove0").lvs == vg.lvs
    assert places(done(moved), "a") == [("/dev/1", 0, 9)]
    assert not done(moved).allocated(vg.pvs[0].uuid)


def test_the_sides_of_an_atomic_move_are_nobodys_volumes() -> None:
    """LVM2's words."""
    vg = move(add(add(group(50, 50), "a", 5), "o", 2), 0, (0, 5), atomic=True).vg
    side = "pvmove0_mimage_0"
    with pytest.raises(RefusedError, match=f"Can't remove .* vg/{side} used by a mirror."):
        edit.remove_lv(vg, side)
    with pytest.raises(RefusedError, match="Snapshots of hidden volumes"):
        snap(vg, side, "s", 2)
    for origin, name, words in (
        ("o", side, f"Command on LV vg/{side} requires LV with properties: lv_is_visible ."),
        (side, "o", "Snapshots of hidden volumes are not supported."),
    ):
        with pytest.raises(RefusedError) as refused:
            join_snapshot(vg, origin, name, chunk_size=8, snapshot_uuid=new_uuid(), now=1, host="h")
        assert refused.value.message.splitlines()[0] == words


def test_regions_are_no_longer_than_a_segment() -> None:
    vg = add(add(group(20, 20, extent_size=1024), "a", 1), "b", 9)
    lv = move(vg).vg.pvmoves()[0]
    assert {s.region_size for s in lv.segments if isinstance(s, MirrorSegment)} == {1024}


def test_every_extent_is_in_one_place_at_every_moment() -> None:
    """Random groups and moves, aborted at a random moment: logical extents keep their order on the
    PVs, and only those of the source in the range go elsewhere."""
    choose = random.Random(5)
    for _ in range(60):
        vg = group(*(choose.randrange(20, 60) for _ in range(4)))
        for number in range(choose.randrange(1, 6)):
            stripes = choose.choice((1, 1, 2))
            try:
                vg = add(
                    vg, f"v{number}", 2 * choose.randrange(1, 9), stripes=stripes,
                    stripe_size=128 if stripes > 1 else 0,
                    places=[PvExtents(p.uuid) for p in choose.sample(vg.pvs, 3)],
                )  # fmt: skip
                vg = edit.extend_lv(vg, f"v{choose.randrange(number + 1)}", 24)
            except RefusedError:
                continue
        run = (choose.randrange(10), choose.randrange(1, 30))
        atomic = choose.random() < 0.3
        try:
            moved = move(vg, 0, run, atomic=atomic)
        except RefusedError:
            continue
        begun, moves = moved.vg, choose.randrange(4)
        for _ in range(moves):
            number = current_segment(begun.pvmoves()[0])
            if number is not None:
                begun = advance_move(begun, moved.name, number)
        check_vg(begun)
        end = finish_move(begun, moved.name)
        check_vg(end)
        source = vg.pvs[0].uuid
        for lv in vg.lvs:
            for old, new in zip(where(vg, lv.name), where(end, lv.name), strict=True):
                in_run = old[0] == source and run[0] <= old[1] < sum(run)
                assert old == new or (in_run and new[0] != source)
        assert end.free_count == vg.free_count


def broken(vg: VolumeGroup, name: str, **changes: object) -> VolumeGroup:
    lv = vg.lv(name)
    assert lv is not None
    return vg.with_lv(lv._replace(**changes))  # type: ignore[arg-type]


def test_metadata_that_lead_in_circles_or_twice_to_one_place_are_refused() -> None:
    vg = move(add(add(group(20, 20), "a", 4), "b", 4)).vg
    a = vg.lv("a")
    assert isinstance(a, LogicalVolume)
    (segment,) = a.segments
    assert isinstance(segment, StripedSegment)
    for areas, words in (
        ((Area("", 4, "pvmove0"),), "is used twice"),
        ((Area("", 6, "pvmove0"),), "beyond the end"),
        ((Area("", 0, "b"),), "which is no PV"),
        ((Area("", 0, "a"),), "which is no PV"),
    ):
        with pytest.raises(FormatError, match=words):
            check_vg(broken(vg, "a", segments=(segment._replace(areas=areas),)))
    own = MirrorSegment(0, 8, (Area("", 0, "pvmove0"), Area(vg.pvs[1].uuid, 0)), 1024)
    with pytest.raises(FormatError, match="which is no PV"):
        check_vg(broken(vg, "pvmove0", segments=(own,)))
