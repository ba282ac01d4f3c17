"""Changes of a volume group: from one immutable `VolumeGroup` to the next. Pure.

Every refusal has LVM's sentence (lv_manip.c, vg.c, snapshot_manip.c). The sequence number is not
touched: the commit raises it. Callers hold the volume group's lock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ulvm.errors import ExistsError, NotFoundError, RefusedError, UsageError
from ulvm.metadata.allocate import (
    allocatable_extents,
    allocate,
    allocate_striped,
    effective_policy,
)
from ulvm.metadata.layout import MAX_EXTENTS, check_extents
from ulvm.metadata.model import (
    Area,
    LogicalVolume,
    PhysicalVolume,
    Segment,
    SimpleSegment,
    StripedSegment,
    VolumeGroup,
)
from ulvm.metadata.names import (
    check_lv_name_length,
    check_new_lv_name,
    check_new_vg_name,
    next_lv_name,
)
from ulvm.metadata.segments import (
    PvExtents,
    PvRun,
    check_stripes,
    cut_segments,
    merge_adjacent,
    pv_runs,
    stripe_width,
)

__all__ = [
    "add_linear",
    "add_pv",
    "auto_name",
    "check_extent_size",
    "check_new",
    "check_unlocked",
    "extend_lv",
    "new_vg",
    "reduce_lv",
    "remove_lv",
    "remove_pv",
    "rename_lv",
    "rename_vg",
    "restore_pv",
    "without",
]

_VISIBLE = frozenset({"READ", "WRITE", "VISIBLE"})


# -- volume groups and physical volumes ---------------------------------------------------------


def check_extent_size(sectors: int) -> None:
    """A power of two, or a multiple of 128 KiB; below 2 TiB. UsageError, RefusedError."""
    if sectors <= 0:
        raise UsageError("Physical extent size may not be zero")
    if sectors >= 1 << 32:
        raise UsageError("Physical extent size must be smaller than <2.00 TiB.")
    if sectors & (sectors - 1) and sectors % 256:
        raise RefusedError(
            "Physical Extent size must be a multiple of 128.00 KiB when not a power of 2."
        )


def new_vg(
    name: str,
    *,
    uuid: str,
    extent_size: int,
    max_lv: int = 0,
    max_pv: int = 0,
    tags: Sequence[str] = (),
    allocation_policy: str = "normal",
    metadata_copies: int = 0,
    system_id: str | None = None,
) -> VolumeGroup:
    """A VG without PVs; `extent_size` in sectors, `metadata_copies` 0 for all areas."""
    check_new_vg_name(name)
    check_extent_size(extent_size)
    return VolumeGroup(
        name,
        uuid,
        extent_size,
        max_lv=max_lv,
        max_pv=max_pv,
        tags=tuple(tags),
        allocation_policy=allocation_policy,
        metadata_copies=metadata_copies,
        system_id=system_id,
    )


def add_pv(vg: VolumeGroup, pv: PhysicalVolume) -> VolumeGroup:
    if vg.pv(pv.uuid) is not None:
        raise ExistsError(f"PV {pv.uuid} is already in volume group {vg.name}.")
    if "RESIZEABLE" not in vg.status:
        raise RefusedError(f"Volume group {vg.name} is not resizeable.")
    if vg.max_pv and len(vg.pvs) >= vg.max_pv:
        raise RefusedError(
            f"No space for '{pv.device}' - volume group '{vg.name}' holds max {vg.max_pv} "
            f"physical volume(s).\nPV {pv.device} cannot be added to VG {vg.name}."
        )
    try:
        check_extents(pv.device, pv.pe_count, vg.extent_size)
    except RefusedError as error:
        raise RefusedError(
            f"{error.message}\n"
            f"Format-specific setup of physical volume '{pv.device}' failed.\n"
            f"PV {pv.device} cannot be added to VG {vg.name}."
        ) from None
    if (count := vg.extent_count + pv.pe_count) > MAX_EXTENTS:
        raise RefusedError(
            f"Unable to add {pv.device} to {vg.name}: new extent count ({count}) exceeds limit "
            f"({MAX_EXTENTS}).\nPV {pv.device} cannot be added to VG {vg.name}."
        )
    return vg._replace(pvs=(*vg.pvs, pv))


def remove_pv(vg: VolumeGroup, pv_uuid: str) -> VolumeGroup:
    pv = vg.pv(pv_uuid)
    if pv is None:
        raise NotFoundError(f"PV {pv_uuid} is not in volume group {vg.name}.")
    if "RESIZEABLE" not in vg.status and not pv.missing and pv_uuid not in vg.missing_uuids:
        raise RefusedError(f"Volume group {vg.name} is not resizeable.")
    if vg.allocated(pv_uuid):
        raise RefusedError(f'Physical volume "{pv.device}" still in use')
    if len(vg.pvs) == 1:
        raise RefusedError(
            f'Can\'t remove final physical volume "{pv.device}" from volume group "{vg.name}"'
        )
    return vg._replace(
        pvs=tuple(p for p in vg.pvs if p.uuid != pv_uuid),
        missing_uuids=vg.missing_uuids - {pv_uuid},
    )


def restore_pv(vg: VolumeGroup, pv_uuid: str) -> VolumeGroup:
    """A PV that was missing while the VG was changed is there again: its content counts."""
    pvs = (pv._replace(flags=pv.flags - {"MISSING"}) if pv.uuid == pv_uuid else pv for pv in vg.pvs)
    return vg._replace(pvs=tuple(pvs))


def rename_vg(vg: VolumeGroup, name: str) -> VolumeGroup:
    check_new_vg_name(name)
    if name == vg.name:
        raise RefusedError("Old and new volume group names must differ")
    return vg._replace(name=name)


# -- logical volumes ----------------------------------------------------------------------------


def auto_name(vg: VolumeGroup) -> str:
    """`lvolN` for a volume without a name."""
    return next_lv_name(lv.name for lv in vg.lvs)


def check_unlocked(vg: VolumeGroup, lv: LogicalVolume, what: str) -> None:
    """RefusedError if extents of it are being moved. `what` is wanted of it, such as "remove"."""
    if lv.locked:
        raise RefusedError(f"Can't {what} locked logical volume {vg.name}/{lv.name}.")


def check_new(vg: VolumeGroup, name: str) -> None:
    """UsageError, ExistsError or RefusedError unless a new volume may have the name."""
    check_new_lv_name(name)
    check_lv_name_length(vg.name, name)
    if vg.lv(name) is not None:
        raise ExistsError(f'Logical Volume "{name}" already exists in volume group "{vg.name}"')
    if vg.max_lv and len(vg.visible_lvs()) >= vg.max_lv:
        raise RefusedError(
            f"Maximum number of logical volumes ({vg.max_lv}) reached in volume group {vg.name}"
        )


def _linear_segments(runs: Iterable[PvRun], start: int = 0) -> list[Segment]:
    segments: list[Segment] = []
    for run in runs:
        segments.append(StripedSegment(start, run.length, (Area(run.pv_uuid, run.pe),)))
        start += run.length
    return segments


def _striped_segments(
    vg: VolumeGroup,
    sets: Iterable[Sequence[PvRun]],
    stripe_size: int,
    start: int = 0,
    *,
    approximate: bool,
) -> list[Segment]:
    """`approximate`: without what is left of each area behind its last whole stripe."""
    segments: list[Segment] = []
    for runs in sets:
        width = stripe_width(vg, len(runs), stripe_size)
        extents = runs[0].length * len(runs)
        if approximate:
            extents -= extents % width
        if not extents:
            continue
        areas = tuple(Area(run.pv_uuid, run.pe) for run in runs)
        segments.append(StripedSegment(start, extents, areas, stripe_size))
        start += extents
    return segments


def _loadable(
    vg: VolumeGroup, name: str, segments: Iterable[Segment], start: int = 0
) -> tuple[Segment, ...]:
    """Them merged; RefusedError where an area from extent `start` on would hold a part of a stripe:
    what is free may lie in pieces shorter than a stripe, or odd ones."""
    merged = merge_adjacent(segments)
    for segment in merged:
        if not isinstance(segment, StripedSegment) or len(segment.areas) == 1:
            continue
        if segment.start_extent + segment.extent_count > start:
            check_stripes(vg, name, segment.stripe_size, segment.area_len)
    return merged


def add_linear(
    vg: VolumeGroup,
    name: str,
    extents: int,
    *,
    uuid: str,
    now: int,
    host: str,
    places: Sequence[PvExtents] | None = None,
    read_only: bool = False,
    tags: Sequence[str] = (),
    policy: str | None = None,
    stripes: int = 1,
    stripe_size: int = 0,
    approximate: bool = False,
) -> VolumeGroup:
    """A new linear volume, or a striped one: `stripe_size` in sectors, `extents` a multiple of
    `stripe_width`. `now` in seconds since the epoch; `policy` None inherits the VG's.
    `approximate`: as many extents as the policy lets it have."""
    check_new(vg, name)
    anywhere = places is None or allocatable_extents(vg, places) > 0
    if extents > vg.free_count and anywhere and not approximate:
        raise RefusedError(
            f'Volume group "{vg.name}" has insufficient free space '
            f"({vg.free_count} extents): {extents} required."
        )
    allowed = effective_policy(vg, policy)
    if stripes > 1:
        sets = allocate_striped(
            vg,
            extents,
            stripes,
            name=name,
            policy=allowed,
            places=places,
            approximate=approximate,
        )
        segments = _striped_segments(vg, sets, stripe_size, approximate=approximate)
    else:
        runs = allocate(
            vg, extents, name=name, policy=allowed, places=places, approximate=approximate
        )
        segments = _linear_segments(runs)
    if not segments:
        kind = "contiguous " if allowed == "contiguous" else ""
        raise RefusedError(
            f"Insufficient suitable {kind}allocatable extents found for logical volume {name}."
        )
    lv = LogicalVolume(
        name,
        uuid,
        _loadable(vg, name, segments),
        status=_VISIBLE - {"WRITE"} if read_only else _VISIBLE,
        tags=tuple(tags),
        creation_time=now,
        creation_host=host,
        allocation_policy=policy or "inherit",
    )
    return vg._replace(lvs=(*vg.lvs, lv))


def extend_lv(
    vg: VolumeGroup,
    name: str,
    extents: int,
    *,
    places: Sequence[PvExtents] | None = None,
    stripes: int | None = None,
    stripe_size: int | None = None,
    policy: str | None = None,
    approximate: bool = False,
) -> VolumeGroup:
    """Grow to `extents` logical extents; a snapshot's COW as well as any other volume. Stripes and
    their size as the last segment's, and the policy as the volume's, unless given.
    `approximate`: as far as the policy lets it grow, if at all."""
    lv = vg.volume(name)
    check_unlocked(vg, lv, "resize")
    more = extents - lv.extent_count
    if more <= 0:
        raise RefusedError(
            f"New size ({extents} extents) matches existing size ({lv.extent_count} extents)."
        )
    if extents > MAX_EXTENTS:
        raise RefusedError(
            f"Unable to extend {vg.name}/{name} by {more} logical extents: "
            f"exceeds limit ({MAX_EXTENTS})."
        )
    last = lv.segments[-1]
    allowed = effective_policy(vg, policy or lv.allocation_policy)
    segments: list[Segment]
    if isinstance(last, SimpleSegment):
        segments = [SimpleSegment(lv.extent_count, more, last.type_name)]
    elif isinstance(last, StripedSegment) and (stripes or len(last.areas)) > 1:
        number = stripes or len(last.areas)
        like = len(last.areas) == number
        sets = allocate_striped(
            vg,
            more,
            number,
            name=name,
            policy=allowed,
            places=places,
            approximate=approximate,
            existing=[[PvRun(a.pv_uuid, a.pe, last.area_len) for a in last.areas]] if like else (),
        )
        size = stripe_size or last.stripe_size
        segments = _striped_segments(vg, sets, size, lv.extent_count, approximate=approximate)
    else:
        linear = all(isinstance(s, StripedSegment) and len(s.areas) == 1 for s in lv.segments)
        runs = allocate(
            vg,
            more,
            name=name,
            policy=allowed,
            places=places,
            approximate=approximate,
            existing=list(pv_runs(lv)) if linear else (),
        )
        segments = _linear_segments(runs, lv.extent_count)
    if not segments:
        return vg
    merged = _loadable(vg, name, (*lv.segments, *segments), lv.extent_count)
    return vg.with_lv(lv._replace(segments=merged))


def reduce_lv(vg: VolumeGroup, name: str, extents: int) -> VolumeGroup:
    """Cut to the first `extents` logical extents."""
    lv = vg.volume(name)
    check_unlocked(vg, lv, "resize")
    if vg.is_origin(name):
        raise RefusedError("Snapshot origin volumes cannot be reduced in size yet.")
    if extents <= 0:
        raise RefusedError("New size of 0 not permitted.")
    if extents >= lv.extent_count:
        raise RefusedError(
            f"New size ({extents} extents) matches existing size ({lv.extent_count} extents)."
        )
    return vg.with_lv(lv._replace(segments=cut_segments(lv.segments, extents)))


def rename_lv(vg: VolumeGroup, old: str, new: str) -> VolumeGroup:
    """Rename a volume, and what its snapshots or its origin know it by."""
    lv = vg.volume(old)
    if not vg.is_visible(lv):
        raise RefusedError(f'Cannot rename internal LV "{old}".')
    if lv.locked:
        raise RefusedError(f"Cannot rename locked LV {old}")
    if new == old:
        raise RefusedError("Old and new logical volume names must differ")
    check_new_lv_name(new)
    check_lv_name_length(vg.name, new)
    if vg.lv(new) is not None:
        raise ExistsError(f'Logical Volume "{new}" already exists in volume group "{vg.name}"')

    names = {old: new}
    own = vg.snapshot_of(old)
    below = vg.lv(own.origin) if own is not None else None
    if below is not None and vg.is_virtual_origin(below):
        names[below.name] = f"{new}_vorigin"

    def renamed(volume: LogicalVolume) -> LogicalVolume:
        segment = volume.snapshot_segment
        if segment is not None:
            origin = names.get(segment.origin, segment.origin)
            cow = names.get(segment.cow, segment.cow)
            return volume._replace(segments=(segment._replace(origin=origin, cow=cow),))
        return volume._replace(name=names.get(volume.name, volume.name))

    return vg._replace(lvs=tuple(renamed(v) for v in vg.lvs))


def remove_lv(vg: VolumeGroup, name: str) -> VolumeGroup:
    """Remove a volume; of a snapshot the hidden LV that ties it to its origin, and a virtual
    origin, too; with an origin the snapshot that is merging into it."""
    lv = vg.volume(name)
    check_unlocked(vg, lv, "remove")
    if vg.pvmove_image_of(name) is not None:
        raise RefusedError(f"Can't remove logical volume {vg.name}/{name} used by a mirror.")
    snapshots = [s for s in vg.snapshots_of_origin(name) if not s.merging]
    if snapshots:
        raise RefusedError(
            f"Can't remove logical volume {vg.name}/{name} with {len(snapshots)} snapshot(s)."
        )
    merging = vg.merging_snapshot_of(name)
    if merging is not None:
        vg = without(vg, vg.volume(merging.cow))
    own = vg.snapshot_of(name)
    vg = without(vg, lv)
    origin = vg.lv(own.origin) if own is not None else None
    if origin is not None and vg.is_virtual_origin(origin) and not vg.is_origin(origin.name):
        vg = without(vg, origin)
    return vg


def without(vg: VolumeGroup, lv: LogicalVolume) -> VolumeGroup:
    """The VG without a volume and what ties it to its origin."""

    def stays(volume: LogicalVolume) -> bool:
        segment = volume.snapshot_segment
        return volume.uuid != lv.uuid and (segment is None or segment.cow != lv.name)

    return vg._replace(lvs=tuple(v for v in vg.lvs if stays(v)))
