"""Changes of a VG: what LVM2 writes, and what it refuses, in its words."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ulvm.errors import ExistsError, FormatError, NotFoundError, RefusedError, UlvmError, UsageError
from ulvm.metadata import edit, snapshot_edit
from ulvm.metadata.allocate import allocatable_extents, free_areas
from ulvm.metadata.check import check_vg
from ulvm.metadata.cow import cow_max_extents
from ulvm.metadata.model import (
    PhysicalVolume,
    SnapshotSegment,
    StripedSegment,
    UnknownSegment,
    VolumeGroup,
)
from ulvm.metadata.pv_edit import resize_pv
from ulvm.metadata.regroup import merge_vgs
from ulvm.metadata.segments import PvExtents
from ulvm.metadata.snapshot_edit import add_snapshot
from ulvm.metadata.uuid import new_uuid
from ulvm.metadata.vg_edit import set_extent_size

MIB = 2048
"""Sectors."""


def pv(extents: int, name: str = "/dev/a") -> PhysicalVolume:
    return PhysicalVolume(new_uuid(), name, 2048 + extents * 8192, 2048, extents)


def group(*extents: int, extent_size: int = 8192) -> VolumeGroup:
    vg = edit.new_vg("vg", uuid=new_uuid(), extent_size=extent_size)
    for number, count in enumerate(extents or (100,)):
        vg = edit.add_pv(vg, pv(count, f"/dev/{number}"))
    return vg


def add(vg: VolumeGroup, name: str, extents: int, **options: object) -> VolumeGroup:
    return edit.add_linear(vg, name, extents, uuid=new_uuid(), now=1, host="h", **options)  # type: ignore[arg-type]


def snap(
    vg: VolumeGroup, origin: str, name: str, extents: int, *, chunk_size: int = 8
) -> VolumeGroup:
    return add_snapshot(
        vg,
        origin,
        name,
        extents,
        chunk_size=chunk_size,
        uuid=new_uuid(),
        snapshot_uuid=new_uuid(),
        now=1,
        host="h",
    )


def places(vg: VolumeGroup, name: str) -> list[tuple[str, int, int]]:
    """(PV's device, first extent, extents) of a linear volume."""
    lv = vg.lv(name)
    assert lv is not None
    found = []
    for segment in lv.segments:
        assert isinstance(segment, StripedSegment)
        (area,) = segment.areas
        device = vg.pv(area.pv_uuid)
        assert device is not None
        found.append((device.device, area.pe, segment.extent_count))
    return found


def based() -> VolumeGroup:
    """An origin of 8 extents with one snapshot."""
    return snap(add(group(), "base", 8), "base", "s1", 2)


# -- what is written ------------------------------------------------------------------------------


def test_a_linear_volume() -> None:
    vg = add(group(), "x", 3, read_only=True, tags=("t",))
    lv = vg.lv("x")
    assert lv is not None
    assert lv.status == {"READ", "VISIBLE"}
    assert (lv.tags, lv.creation_time, lv.creation_host) == (("t",), 1, "h")
    assert lv.allocation_policy == "inherit"
    assert vg.free_count == 97
    assert vg.seqno == 0


def test_a_snapshot_is_two_volumes() -> None:
    vg = based()
    cow, tie = vg.lv("s1"), vg.lv("snapshot0")
    assert cow is not None
    assert tie is not None
    assert cow.status == {"READ", "WRITE"}
    assert tie.status == {"READ", "WRITE", "VISIBLE"}
    assert tie.snapshot_segment == SnapshotSegment(0, 8, 8, "base", "s1")
    assert [lv.name for lv in vg.visible_lvs()] == ["base", "s1"]
    check_vg(vg)


def test_a_snapshot_is_not_longer_than_its_origin() -> None:
    """Its table would be refused when the metadata are committed already."""
    vg = based()
    tie = vg.lv("snapshot0")
    assert tie is not None
    longer = tie._replace(segments=(SnapshotSegment(0, 9, 8, "base", "s1"),))
    with pytest.raises(FormatError, match="longer than its origin"):
        check_vg(vg.with_lv(longer))


@pytest.mark.parametrize(
    ("origin_mib", "chunk", "extents"),
    [(32, 8, 9), (28, 8, 8), (4, 1024, 2)],
)
def test_the_largest_cow_that_can_be_of_use(origin_mib: int, chunk: int, extents: int) -> None:
    """Seen on real LVM2, with extents of 4 MiB."""
    vg = add(group(), "base", origin_mib // 4)
    assert cow_max_extents(vg, "base", chunk) == extents
    vg = snap(vg, "base", "s", 50, chunk_size=chunk)
    cow = vg.lv("s")
    assert cow is not None
    assert cow.extent_count == extents


def test_numbers_of_hidden_and_unnamed_volumes_are_not_used_again() -> None:
    vg = snap(snap(add(group(), "base", 8), "base", "a", 1), "base", "b", 1)
    vg = snap(edit.remove_lv(vg, "a"), "base", "c", 1)
    assert [lv.name for lv in vg.lvs if lv.snapshot_segment] == ["snapshot1", "snapshot2"]
    assert edit.auto_name(vg) == "lvol0"
    assert edit.auto_name(add(vg, "lvol9", 1)) == "lvol10"


def test_removing_a_snapshot_takes_its_tie() -> None:
    vg = edit.remove_lv(based(), "s1")
    assert [lv.name for lv in vg.lvs] == ["base"]


@pytest.mark.parametrize("name", ["contents", "version"])
def test_no_group_gets_a_name_with_which_lvm2_would_not_find_it(name: str) -> None:
    with pytest.raises(UsageError, match=f'New volume group name "{name}" is invalid.'):
        edit.new_vg(name, uuid=new_uuid(), extent_size=8192)
    with pytest.raises(UsageError, match=f'New volume group name "{name}" is invalid.'):
        edit.rename_vg(group(), name)


def test_renames_are_followed() -> None:
    vg = edit.rename_lv(edit.rename_lv(based(), "base", "b2"), "s1", "s2")
    (segment,) = vg.snapshot_segments()
    assert (segment.origin, segment.cow) == ("b2", "s2")
    check_vg(vg)


def test_a_merge_from_beginning_to_end() -> None:
    vg = snapshot_edit.start_merge(based(), "s1")
    tie = vg.lv("snapshot0")
    assert tie is not None
    assert tie.status == {"READ", "WRITE"}
    assert vg.merging_snapshot_of("base") is not None
    assert [lv.name for lv in vg.visible_lvs()] == ["base"]
    check_vg(vg)
    done = snapshot_edit.finish_merge(vg, "s1")
    assert [lv.name for lv in done.lvs] == ["base"]
    assert done.free_count == 92


def test_an_extension_goes_on_where_the_volume_ends() -> None:
    vg = edit.extend_lv(add(group(), "x", 3), "x", 10)
    assert places(vg, "x") == [("/dev/0", 0, 10)]


def test_stripes_fill_what_they_are_given_on_each_pv() -> None:
    vg = group(9, 9, extent_size=32)
    with pytest.raises(RefusedError, match=r"Stripes of 64\.00 KiB do not fit the 3 extents"):
        add(vg, "a", 6, stripes=2, stripe_size=128)
    vg = add(vg, "a", 8, stripes=2, stripe_size=128)
    with pytest.raises(RefusedError, match=r"do not fit the 5 extents of 16\.00 KiB"):
        edit.extend_lv(vg, "a", 10)
    assert edit.extend_lv(vg, "a", 10, stripes=2, stripe_size=32).free_count == 8
    assert edit.extend_lv(vg, "a", 18, approximate=True).free_count == 2


def test_stripes_that_are_no_part_of_an_extent() -> None:
    """Extents of 384 KiB, stripes of 256 KiB: two extents of each PV hold whole ones."""
    vg = add(group(20, 20, extent_size=768), "base", 8)
    kept = add_snapshot(
        vg,
        "base",
        "s",
        9,
        chunk_size=8,
        uuid=new_uuid(),
        snapshot_uuid=new_uuid(),
        now=1,
        host="h",
        stripes=2,
        stripe_size=512,
    )
    assert cow_max_extents(vg, "base", 8) == 9
    assert kept.volume("s").extent_count == 12


def test_a_reduction_gives_the_end_back() -> None:
    vg = edit.reduce_lv(add(group(), "x", 10), "x", 4)
    assert places(vg, "x") == [("/dev/0", 0, 4)]


# -- where: what LVM2 2.03.16 chose in the same place (see tests/conformance) ----------------------


def test_a_pv_that_holds_it_whole_wins_over_a_larger_one() -> None:
    assert places(add(group(10, 50), "x", 10), "x") == [("/dev/0", 0, 10)]


def test_what_fits_nowhere_begins_on_the_largest_area() -> None:
    vg = add(group(23, 31), "y", 5)
    assert places(add(vg, "span", 45), "span") == [("/dev/1", 0, 31), ("/dev/0", 5, 14)]


def holes(*lengths: int) -> VolumeGroup:
    """One PV whose free areas have these lengths, one used extent between two."""
    vg = group(sum(lengths) + len(lengths) - 1)
    for number, length in enumerate(lengths[:-1]):
        vg = add(vg, f"gap{number}", length)
        vg = add(vg, f"used{number}", 1)
    for number in range(len(lengths) - 1):
        vg = edit.remove_lv(vg, f"gap{number}")
    return vg


@pytest.mark.parametrize(
    ("free", "wanted", "pe"),
    [
        # (free areas in order, extents wanted, first extent that LVM2 chose)
        ((36, 3, 6), 5, 41),
        ((7, 2, 10, 12), 7, 22),
        ((1, 8, 17, 2, 6), 1, 29),
        ((14, 9, 8, 3), 4, 15),
        ((1, 8, 6, 7), 2, 2),
        ((2, 10, 4, 4, 6), 3, 24),
        ((8, 2, 2), 2, 12),
        ((10, 10, 4), 9, 0),
    ],
)
def test_which_area_of_one_pv(free: tuple[int, ...], wanted: int, pe: int) -> None:
    """The area that is left with less than the next smaller one has stays."""
    assert places(add(holes(*free), "x", wanted), "x") == [("/dev/0", pe, wanted)]


def test_only_the_given_pvs_in_the_given_order() -> None:
    vg = group(10, 10, 10)
    order = [PvExtents(vg.pvs[2].uuid), PvExtents(vg.pvs[0].uuid)]
    assert places(add(vg, "x", 4, places=order), "x") == [("/dev/2", 0, 4)]


def test_only_the_given_extents_that_are_free() -> None:
    vg = holes(5, 3, 8)
    (pv,) = vg.pvs
    free = free_areas(vg, pv)
    inside = [PvExtents(pv.uuid, ((free[0].pe + 1, 3), (free[2].pe, 100)))]
    assert allocatable_extents(vg, inside) == 3 + 8
    made = places(add(vg, "x", 3, places=inside), "x")
    assert made == [("/dev/0", free[0].pe + 1, 3)]


def test_pvs_that_are_missing_or_not_allocatable_get_nothing() -> None:
    vg = group(10, 10, 10)
    vg = vg._replace(missing_uuids=frozenset({vg.pvs[0].uuid}))
    closed = vg.pvs[1]._replace(status=frozenset())
    vg = vg._replace(pvs=(vg.pvs[0], closed, vg.pvs[2]))
    assert places(add(vg, "x", 4), "x") == [("/dev/2", 0, 4)]


# -- what is refused ------------------------------------------------------------------------------


def merging() -> VolumeGroup:
    return snapshot_edit.start_merge(snap(based(), "base", "s2", 2), "s1")


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (
            lambda: add(group(10), "x", 11),
            RefusedError,
            'Volume group "vg" has insufficient free space (10 extents): 11 required.',
        ),
        (
            lambda: edit.extend_lv(add(group(10), "x", 4), "x", 15),
            RefusedError,
            "Insufficient free space: 11 extents needed, but only 6 available",
        ),
        (
            lambda: add(group(10, 10), "x", 11, policy="contiguous"),
            RefusedError,
            "Insufficient suitable contiguous allocatable extents for logical volume x: "
            "11 more required",
        ),
        (
            lambda: add(group(10, 10), "x", 11, policy="cling"),
            RefusedError,
            "Insufficient suitable allocatable extents for logical volume x: 1 more required",
        ),
        (
            lambda: edit.extend_lv(add(group(10, 10), "x", 4), "x", 8, stripes=2),
            RefusedError,
            "Stripesize for striped segment should not be 0!",
        ),
        (
            lambda: add(group(10, 10), "x", 4, stripes=2, approximate=True),
            RefusedError,
            "Stripesize for striped segment should not be 0!",
        ),
        (
            lambda: add(group(), "x", 1, places=[]),
            RefusedError,
            "No specified PVs have space available.",
        ),
        (
            lambda: add(add(group(), "x", 1), "x", 1),
            ExistsError,
            'Logical Volume "x" already exists in volume group "vg"',
        ),
        (
            lambda: add(group(), "snapshot1", 1),
            UsageError,
            'Names starting "snapshot" are reserved. Please choose a different LV name.',
        ),
        (lambda: add(group(), "a b", 1), UsageError, 'Logical volume name "a b" is invalid.'),
        (
            lambda: snap(based(), "s1", "s2", 2),
            RefusedError,
            "Snapshots of snapshots are not supported.",
        ),
        (
            lambda: snap(merging(), "base", "s3", 2),
            RefusedError,
            "Snapshots of an origin that has a merging snapshot are not supported.",
        ),
        (
            lambda: snap(add(group(), "b", 8), "b", "s", 2, chunk_size=24),
            UsageError,
            "Chunk size must be a power of 2 in the range 4K to 512K.",
        ),
        (
            lambda: snap(add(group(extent_size=8), "b", 8), "b", "s", 2),
            RefusedError,
            "Snapshot volume cannot be smaller than 3 chunks (3 extents).",
        ),
        (
            lambda: snapshot_edit.start_merge(merging(), "s2"),
            RefusedError,
            "Cannot merge snapshot vg/s2 into the origin vg/base with merging snapshot vg/s2.",
        ),
        (
            lambda: edit.rename_lv(merging(), "s1", "z"),
            RefusedError,
            'Cannot rename internal LV "s1".',
        ),
        (
            lambda: edit.reduce_lv(based(), "base", 2),
            RefusedError,
            "Snapshot origin volumes cannot be reduced in size yet.",
        ),
        (
            lambda: edit.extend_lv(based(), "base", 8),
            RefusedError,
            "New size (8 extents) matches existing size (8 extents).",
        ),
        (
            lambda: edit.remove_lv(group(), "nothing"),
            NotFoundError,
            'Failed to find logical volume "vg/nothing"',
        ),
        (
            lambda: edit.remove_lv(based(), "snapshot0"),
            NotFoundError,
            'Failed to find logical volume "vg/snapshot0"',
        ),
    ],
)
def test_refusals(change: Callable[[], object], error: type[UlvmError], text: str) -> None:
    with pytest.raises(error) as caught:
        change()
    assert caught.value.message == text


def test_a_pv_in_use_or_the_last_one_stays() -> None:
    vg = add(group(10), "x", 1)
    with pytest.raises(RefusedError, match='Physical volume "/dev/0" still in use'):
        edit.remove_pv(vg, vg.pvs[0].uuid)
    with pytest.raises(RefusedError, match="Can't remove final physical volume"):
        edit.remove_pv(edit.remove_lv(vg, "x"), vg.pvs[0].uuid)


@pytest.mark.parametrize("sectors", [8192, 2, 1, 256 * 3, 1 << 31])
def test_extent_sizes(sectors: int) -> None:
    edit.check_extent_size(sectors)


def test_extent_sizes_that_are_refused() -> None:
    with pytest.raises(RefusedError, match="when not a power of 2"):
        edit.check_extent_size(300)
    with pytest.raises(UsageError, match="must be smaller than"):
        edit.check_extent_size(1 << 32)
    with pytest.raises(UsageError, match="may not be zero"):
        edit.check_extent_size(0)


def test_a_pv_that_was_missing_is_taken_back() -> None:
    vg = group()
    first = vg.pvs[0]._replace(flags=frozenset({"MISSING"}))
    vg = vg._replace(pvs=(first, *vg.pvs[1:]))
    assert vg.partial
    assert not edit.restore_pv(vg, first.uuid).partial


def test_no_pv_joins_a_vg_that_is_not_resizeable() -> None:
    vg = group()
    fixed = vg._replace(pvs=(), status=vg.status - {"RESIZEABLE"})
    with pytest.raises(RefusedError, match="Volume group vg is not resizeable"):
        edit.add_pv(fixed, vg.pvs[0])


def test_unknown_segments_are_told() -> None:
    vg = add(group(), "x", 3)
    lv = vg.lv("x")
    assert lv is not None
    assert not vg.has_unknown_segments
    odd = lv._replace(segments=(UnknownSegment(0, 3, "thin-pool"),))
    assert vg.with_lv(odd).has_unknown_segments


def test_what_cannot_be_counted_in_32_bits_is_refused() -> None:
    """LVM2's words; what was written with more extents would not be read again."""
    most = (1 << 32) - 1
    vg = group(10)
    with pytest.raises(RefusedError) as refused:
        edit.add_pv(vg, pv(most + 1, "/dev/x"))
    assert refused.value.message == (
        "PV /dev/x too large for extent size 4.00 MiB.\n"
        "Format-specific setup of physical volume '/dev/x' failed.\n"
        "PV /dev/x cannot be added to VG vg."
    )
    with pytest.raises(RefusedError) as refused:
        edit.add_pv(vg, pv(most - 9, "/dev/x"))
    assert refused.value.message == (
        "Unable to add /dev/x to vg: new extent count (4294967296) exceeds limit (4294967295).\n"
        "PV /dev/x cannot be added to VG vg."
    )
    full = edit.add_pv(vg, pv(most - 10, "/dev/x"))
    assert full.extent_count == most
    with pytest.raises(RefusedError, match="New extent count 8589934590 for vg exceeds 32 bits"):
        set_extent_size(full, 4096)
    with pytest.raises(RefusedError, match="PV /dev/0 too large for extent size"):
        resize_pv(vg, vg.pvs[0].uuid, 1 << 46, most + 1)
    with pytest.raises(RefusedError, match="4294967305"):
        merge_vgs(full, group(10))
    zeroes = snapshot_edit.add_virtual(
        vg, "z", most, type_name="zero", uuid=new_uuid(), now=1, host="h"
    )
    with pytest.raises(RefusedError) as refused:
        edit.extend_lv(zeroes, "z", most + 1)
    assert refused.value.message == (
        "Unable to extend vg/z by 1 logical extents: exceeds limit (4294967295)."
    )
