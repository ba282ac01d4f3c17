"""Volume groups taken apart, put together, sent away and taken in. Pure, as `metadata.edit`.

vgsplit(8), vgmerge(8), vgexport(8), vgimport(8); refusals have LVM's sentences.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple

from ulvm.errors import RefusedError
from ulvm.metadata.layout import MAX_EXTENTS
from ulvm.metadata.model import LogicalVolume, VolumeGroup
from ulvm.metadata.names import check_lv_name_length, next_snapshot_name
from ulvm.metadata.segments import pv_runs
from ulvm.metadata.uuid import new_uuid

__all__ = [
    "Split",
    "check_limits",
    "export_vg",
    "import_vg",
    "merge_vgs",
    "pvs_of_lv",
    "split_vg",
]


def export_vg(vg: VolumeGroup) -> VolumeGroup:
    """Nobody activates or changes the VG until it is imported."""
    pvs = tuple(pv._replace(status=pv.status | {"EXPORTED"}) for pv in vg.pvs)
    return vg._replace(status=vg.status | {"EXPORTED"}, pvs=pvs, system_id=None)


def import_vg(vg: VolumeGroup) -> VolumeGroup:
    if "EXPORTED" not in vg.status:
        raise RefusedError(f'Volume group "{vg.name}" is not exported')
    pvs = tuple(pv._replace(status=pv.status - {"EXPORTED"}) for pv in vg.pvs)
    return vg._replace(status=vg.status - {"EXPORTED"}, pvs=pvs)


class Split(NamedTuple):
    """`rest` is None when all PVs went."""

    rest: VolumeGroup | None
    new: VolumeGroup


def pvs_of_lv(vg: VolumeGroup, lv: LogicalVolume) -> set[str]:
    """UUIDs of the PVs that a volume lies on."""
    return {run.pv_uuid for volume in (lv, *vg.lower_lvs(lv)) for run in pv_runs(volume)}


def split_vg(
    vg: VolumeGroup,
    target: VolumeGroup,
    pv_uuids: Collection[str],
    is_active: Callable[[str], bool],
) -> Split:
    """Move PVs and what lies on them from `vg` to `target`, which may be empty; as in LVM2 also
    what lies on none, but a virtual origin, which stays with its COW. `is_active` tells of a
    volume's name; what moves must be inactive."""
    moving = set()
    for lv in vg.lvs:
        on = pvs_of_lv(vg, lv)
        tied = lv.snapshot_segment is not None or vg.is_virtual_origin(lv)
        if tied or (on and on.isdisjoint(pv_uuids)):
            continue
        if not on <= set(pv_uuids):
            raise RefusedError(f"Can't split Logical Volume {lv.name} between two Volume Groups")
        moving.add(lv.name)
    for tie in vg.lvs:
        segment = tie.snapshot_segment
        if segment is None:
            continue
        origin = vg.lv(segment.origin)
        if segment.cow in moving and origin is not None and vg.is_virtual_origin(origin):
            moving.add(origin.name)
        if (segment.cow in moving) != (segment.origin in moving):
            raise RefusedError(f"Can't split snapshot {segment.cow} between two Volume Groups")
        if segment.cow in moving:
            moving.add(tie.name)
    for lv in vg.lvs:
        if lv.name in moving and is_active(lv.name):
            raise RefusedError(f"Logical volume {vg.name}/{lv.name} must be inactive.")
    pvs = tuple(pv for pv in vg.pvs if pv.uuid in pv_uuids)
    lvs = tuple(lv for lv in vg.lvs if lv.name in moving)
    new = _joined(target, vg._replace(pvs=pvs, lvs=lvs))
    rest = vg._replace(
        pvs=tuple(pv for pv in vg.pvs if pv.uuid not in pv_uuids),
        lvs=tuple(lv for lv in vg.lvs if lv.name not in moving),
    )
    return Split(rest if rest.pvs else None, new)


def check_limits(target: VolumeGroup, source: VolumeGroup) -> None:
    """RefusedError if all of `source` is more than `target` may have; LVM2 asks no less when but a
    part of it is to go there."""
    volumes = len(target.visible_lvs()) + len(source.visible_lvs())
    for limit, count, what in (
        (target.max_pv, len(target.pvs) + len(source.pvs), "physical volumes"),
        (target.max_lv, volumes, "logical volumes"),
    ):
        if limit and count > limit:
            raise RefusedError(
                f"Maximum number of {what} ({limit}) exceeded  for "
                f'"{target.name}" and "{source.name}"'
            )
    if (count := target.extent_count + source.extent_count) > MAX_EXTENTS:
        raise RefusedError(
            f"Unable to merge {source.name} into {target.name}: new extent count ({count}) exceeds "
            f"limit ({MAX_EXTENTS})."
        )


def merge_vgs(target: VolumeGroup, source: VolumeGroup) -> VolumeGroup:
    """All of `source` in `target`; the names of hidden volumes are made anew where both have
    them."""
    for vg in (target, source):
        if "RESIZEABLE" not in vg.status:
            raise RefusedError(f"Volume group {vg.name} is not resizeable.")
    if target.extent_size != source.extent_size:
        raise RefusedError(
            f"Extent sizes differ: {target.extent_size} ({target.name}) and "
            f"{source.extent_size} ({source.name})"
        )
    check_limits(target, source)
    return _joined(target, source)


def _joined(target: VolumeGroup, source: VolumeGroup) -> VolumeGroup:
    lvs = list(target.lvs)
    names, uuids = {lv.name for lv in lvs}, {lv.uuid for lv in lvs}
    for lv in source.lvs:
        name = lv.name
        if lv.snapshot_segment is not None and name in names:
            name = next_snapshot_name([*names, *(v.name for v in source.lvs)])
        elif name in names:
            raise RefusedError(
                f'Duplicate logical volume name "{name}" in "{target.name}" and "{source.name}"'
            )
        check_lv_name_length(target.name, name)
        uuid = new_uuid() if lv.uuid in uuids else lv.uuid
        names.add(name)
        lvs.append(lv._replace(name=name, uuid=uuid))
    return target._replace(
        pvs=(*target.pvs, *source.pvs),
        lvs=tuple(lvs),
        missing_uuids=target.missing_uuids | source.missing_uuids,
    )
