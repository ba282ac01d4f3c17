"""Changes of a volume group's own attributes (vgchange(8)). Pure, as `metadata.edit`.

What is asked for and is so already is refused where LVM2 refuses it, and left as it is where LVM2
only says so; the sentences are LVM2's (vgchange.c, metadata.c).
"""

from __future__ import annotations

from collections.abc import Sequence

from ulvm.errors import RefusedError
from ulvm.metadata.edit import check_extent_size
from ulvm.metadata.layout import MAX_EXTENTS
from ulvm.metadata.model import (
    LogicalVolume,
    MirrorSegment,
    Segment,
    StripedSegment,
    VolumeGroup,
)

__all__ = [
    "set_autoactivation",
    "set_extent_size",
    "set_max_lv",
    "set_max_pv",
    "set_policy",
    "set_resizeable",
    "set_tags",
]

_NO_AUTO = frozenset({"NOAUTOACTIVATE"})


def set_max_lv(vg: VolumeGroup, limit: int) -> VolumeGroup:
    """The most visible volumes; 0 for no limit."""
    if "RESIZEABLE" not in vg.status:
        raise RefusedError(
            f'Volume group "{vg.name}" must be resizeable to change MaxLogicalVolume'
        )
    count = len(vg.visible_lvs())
    if limit and limit < count:
        raise RefusedError(
            f"MaxLogicalVolume is less than the current number {count} of LVs for {vg.name}"
        )
    return vg._replace(max_lv=limit)


def set_max_pv(vg: VolumeGroup, limit: int) -> VolumeGroup:
    """The most PVs; 0 for no limit."""
    if "RESIZEABLE" not in vg.status:
        raise RefusedError(
            f'Volume group "{vg.name}" must be resizeable to change MaxPhysicalVolumes'
        )
    if limit and limit < len(vg.pvs):
        raise RefusedError(
            f"MaxPhysicalVolumes is less than the current number {len(vg.pvs)} of PVs for "
            f'"{vg.name}"'
        )
    return vg._replace(max_pv=limit)


def set_resizeable(vg: VolumeGroup, resizeable: bool) -> VolumeGroup:
    """Whether PVs may join and leave."""
    if resizeable == ("RESIZEABLE" in vg.status):
        word = "resizeable" if resizeable else "not resizeable"
        raise RefusedError(f'Volume group "{vg.name}" is already {word}')
    change = frozenset({"RESIZEABLE"})
    return vg._replace(status=vg.status | change if resizeable else vg.status - change)


def set_policy(vg: VolumeGroup, policy: str) -> VolumeGroup:
    if policy == "inherit":
        raise RefusedError("Volume Group allocation policy cannot inherit from anything")
    if policy == vg.allocation_policy:
        raise RefusedError(f"Volume group allocation policy is already {policy}")
    return vg._replace(allocation_policy=policy)


def set_autoactivation(vg: VolumeGroup, wanted: bool) -> VolumeGroup:
    """Whether `-aay` activates the VG's volumes."""
    if wanted != bool(_NO_AUTO & vg.flags):
        word = "yes" if wanted else "no"
        raise RefusedError(f"Volume group autoactivation is already {word}.")
    return vg._replace(flags=vg.flags - _NO_AUTO if wanted else vg.flags | _NO_AUTO)


def set_tags(vg: VolumeGroup, *, add: Sequence[str], remove: Sequence[str]) -> VolumeGroup:
    """Removed first, then added."""
    kept = [tag for tag in vg.tags if tag not in remove]
    return vg._replace(tags=tuple(dict.fromkeys([*kept, *add])))


def set_extent_size(vg: VolumeGroup, sectors: int) -> VolumeGroup:
    """Count everything in extents of another size; nothing moves. RefusedError unless each count
    comes out whole."""
    if "RESIZEABLE" not in vg.status:
        raise RefusedError(f'Volume group "{vg.name}" must be resizeable to change PE size')
    if sectors == 0:
        raise RefusedError("Physical extent size may not be zero")
    old = vg.extent_size
    if sectors == old:
        return vg
    check_extent_size(sectors)
    if sectors > old and vg.extent_count * old % sectors:
        raise RefusedError("New extent size is not a perfect fit")

    def count(extents: int, what: str) -> int:
        size = extents * old
        if size % sectors:
            raise RefusedError(f"New size {size} for {what} not an exact number of new extents.")
        if size // sectors > MAX_EXTENTS:
            raise RefusedError(f"New extent count {size // sectors} for {what} exceeds 32 bits.")
        return size // sectors

    def segment_of(lv: LogicalVolume, segment: Segment) -> Segment:
        start = count(segment.start_extent, f"{lv.name} segment start")
        length = count(segment.extent_count, f"{lv.name} segment length")
        if not isinstance(segment, StripedSegment | MirrorSegment):
            return segment._replace(start_extent=start, extent_count=length)
        count(segment.area_len, f"{lv.name} area length")
        areas = tuple(a._replace(pe=count(a.pe, f"{lv.name} area start")) for a in segment.areas)
        if isinstance(segment, MirrorSegment):
            moved = count(segment.extents_moved, f"{lv.name} extents moved")
            segment = segment._replace(extents_moved=moved)
        return segment._replace(start_extent=start, extent_count=length, areas=areas)

    count(vg.extent_count, vg.name)
    count(vg.free_count, f"{vg.name} free space")
    pvs = []
    for pv in vg.pvs:
        pvs.append(pv._replace(pe_count=count(pv.pe_count, pv.device)))
        count(vg.allocated(pv.uuid), f"{pv.device} allocated space")
    lvs = []
    for lv in vg.lvs:
        count(lv.extent_count, lv.name)
        lvs.append(lv._replace(segments=tuple(segment_of(lv, s) for s in lv.segments)))
    return vg._replace(extent_size=sectors, pvs=tuple(pvs), lvs=tuple(lvs))
