"""Changes of one physical volume in its group; pure, as `metadata.edit` (pvchange, pvresize)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ulvm.errors import RefusedError
from ulvm.metadata.model import PhysicalVolume, StripedSegment, VolumeGroup

__all__ = ["resize_pv", "set_allocatable", "set_tags"]


def _with_pv(vg: VolumeGroup, pv: PhysicalVolume) -> VolumeGroup:
    return replace(vg, pvs=tuple(pv if p.uuid == pv.uuid else p for p in vg.pvs))


def _pv(vg: VolumeGroup, uuid: str) -> PhysicalVolume:
    pv = vg.pv(uuid)
    assert pv is not None, uuid
    return pv


def set_allocatable(vg: VolumeGroup, pv_uuid: str, allocatable: bool) -> VolumeGroup:
    """Whether new extents may come from the PV."""
    pv = _pv(vg, pv_uuid)
    change = frozenset({"ALLOCATABLE"})
    return _with_pv(
        vg, replace(pv, status=pv.status | change if allocatable else pv.status - change)
    )


def set_tags(
    vg: VolumeGroup, pv_uuid: str, *, add: Sequence[str], remove: Sequence[str]
) -> VolumeGroup:
    pv = _pv(vg, pv_uuid)
    kept = [tag for tag in pv.tags if tag not in remove]
    return _with_pv(vg, replace(pv, tags=tuple(dict.fromkeys([*kept, *add]))))


def resize_pv(vg: VolumeGroup, pv_uuid: str, sectors: int, extents: int) -> VolumeGroup:
    """The device has `sectors` now, room for `extents`. RefusedError if those in use do not fit."""
    pv = _pv(vg, pv_uuid)
    end = max(
        (
            area.pe + segment.area_len
            for lv in vg.lvs
            for segment in lv.segments
            if isinstance(segment, StripedSegment)
            for area in segment.areas
            if area.pv_uuid == pv_uuid
        ),
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
    return _with_pv(vg, replace(pv, dev_size=sectors, pe_count=extents))
