"""Changes of one physical volume in its group; pure, as `metadata.edit` (pvchange, pvresize)."""

from __future__ import annotations

from collections.abc import Sequence

from ulvm.errors import RefusedError
from ulvm.metadata.layout import check_extents
from ulvm.metadata.model import (
    MirrorSegment,
    PhysicalVolume,
    Segment,
    StripedSegment,
    VolumeGroup,
)
from ulvm.metadata.segments import pv_runs

__all__ = ["resize_pv", "set_allocatable", "set_tags", "set_uuid"]


def _with_pv(vg: VolumeGroup, pv: PhysicalVolume) -> VolumeGroup:
    return vg._replace(pvs=tuple(pv if p.uuid == pv.uuid else p for p in vg.pvs))


def _pv(vg: VolumeGroup, uuid: str) -> PhysicalVolume:
    pv = vg.pv(uuid)
    assert pv is not None, uuid
    return pv


def set_allocatable(vg: VolumeGroup, pv_uuid: str, allocatable: bool) -> VolumeGroup:
    """Whether new extents may come from the PV."""
    pv = _pv(vg, pv_uuid)
    change = frozenset({"ALLOCATABLE"})
    return _with_pv(
        vg, pv._replace(status=pv.status | change if allocatable else pv.status - change)
    )


def set_tags(
    vg: VolumeGroup, pv_uuid: str, *, add: Sequence[str], remove: Sequence[str]
) -> VolumeGroup:
    """A tag that is added and removed is not there in the end, as with LVM2."""
    pv = _pv(vg, pv_uuid)
    tags = dict.fromkeys([*pv.tags, *add])
    return _with_pv(vg, pv._replace(tags=tuple(tag for tag in tags if tag not in remove)))


def set_uuid(vg: VolumeGroup, pv_uuid: str, new: str) -> VolumeGroup:
    """The PV under another UUID, with all that lies on it."""

    def moved(segment: Segment) -> Segment:
        if not isinstance(segment, StripedSegment | MirrorSegment):
            return segment
        areas = tuple(a._replace(pv_uuid=new) if a.pv_uuid == pv_uuid else a for a in segment.areas)
        return segment._replace(areas=areas)

    pvs = tuple(p._replace(uuid=new) if p.uuid == pv_uuid else p for p in vg.pvs)
    lvs = tuple(lv._replace(segments=tuple(map(moved, lv.segments))) for lv in vg.lvs)
    return vg._replace(pvs=pvs, lvs=lvs)


def resize_pv(vg: VolumeGroup, pv_uuid: str, sectors: int, extents: int) -> VolumeGroup:
    """The device has `sectors` now, room for `extents`. RefusedError if those in use do not fit,
    or there are more than can be counted."""
    pv = _pv(vg, pv_uuid)
    check_extents(pv.device, extents, vg.extent_size)
    end = max(
        (run.pe + run.length for lv in vg.lvs for run in pv_runs(lv) if run.pv_uuid == pv_uuid),
        default=0,
    )
    if extents < vg.allocated(pv_uuid):
        raise RefusedError(
            f"{pv.device}: cannot resize to {extents} extents as {vg.allocated(pv_uuid)} "
            "are allocated."
        )
    if extents < end:
        raise RefusedError(
            f"{pv.device}: cannot resize to {extents} extents as later ones are allocated."
        )
    return _with_pv(vg, pv._replace(dev_size=sectors, pe_count=extents))
