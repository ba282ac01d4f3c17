"""Snapshots, those of nothing, merges, and volumes that cease or begin to be a snapshot. Pure, as
`metadata.edit`.

A sparse volume is a snapshot of a virtual origin: a hidden volume `NAME_vorigin` of zeroes that
takes no space. All that was written lies in the COW. The origin comes and goes with its one
snapshot.
"""

from __future__ import annotations

from collections.abc import Sequence

from ulvm.errors import NotFoundError, RefusedError
from ulvm.metadata import edit
from ulvm.metadata.cow import check_chunk_size, check_cow_size, cow_max_extents
from ulvm.metadata.model import (
    LogicalVolume,
    SimpleSegment,
    SnapshotSegment,
    StripedSegment,
    VolumeGroup,
)
from ulvm.metadata.names import next_snapshot_name
from ulvm.metadata.segments import PvExtents, stripe_width

__all__ = [
    "add_snapshot",
    "add_sparse",
    "add_virtual",
    "finish_merge",
    "join_snapshot",
    "split_snapshot",
    "start_merge",
    "tie_snapshot",
    "virtual_origin_of",
]

_VIRTUAL = "_vorigin"


def add_snapshot(
    vg: VolumeGroup,
    origin: str,
    name: str,
    cow_extents: int,
    *,
    chunk_size: int,
    uuid: str,
    snapshot_uuid: str,
    now: int,
    host: str,
    places: Sequence[PvExtents] | None = None,
    read_only: bool = False,
    tags: Sequence[str] = (),
    policy: str | None = None,
    stripes: int = 1,
    stripe_size: int = 0,
    approximate: bool = False,
    clamp: bool = True,
) -> VolumeGroup:
    """A snapshot of `origin` whose COW has `cow_extents`, with `clamp` cut to what can be of use.

    Two volumes come: the COW under the snapshot's name and UUID, and a hidden `snapshotN`
    (`snapshot_uuid`) that ties it to its origin. `chunk_size` in sectors.
    """
    base = vg.volume(origin)
    check_chunk_size(chunk_size)
    if base.locked:
        raise RefusedError("Snapshots of locked volumes are not supported.")
    if vg.is_cow(origin):
        raise RefusedError("Snapshots of snapshots are not supported.")
    if vg.is_virtual_origin(base) and vg.is_origin(origin):
        raise RefusedError("Can't share virtual origins. Use --virtualsize.")
    if not (vg.is_visible(base) or vg.is_virtual_origin(base)):
        raise RefusedError("Snapshots of hidden volumes are not supported.")
    if vg.merging_snapshot_of(origin) is not None:
        raise RefusedError("Snapshots of an origin that has a merging snapshot are not supported.")
    check_cow_size(vg, cow_extents, chunk_size)
    extents = cow_extents
    if clamp:
        extents = min(extents, cow_max_extents(vg, origin, chunk_size))
    extents += -extents % stripe_width(vg, stripes, stripe_size)
    with_cow = edit.add_linear(
        vg,
        name,
        extents,
        uuid=uuid,
        now=now,
        host=host,
        places=places,
        read_only=read_only,
        tags=tags,
        policy=policy,
        stripes=stripes,
        stripe_size=stripe_size,
        approximate=approximate,
    )
    segment = SnapshotSegment(0, base.extent_count, chunk_size, origin, name)
    return tie_snapshot(with_cow, segment, snapshot_uuid, now=now, host=host)


def tie_snapshot(
    vg: VolumeGroup, segment: SnapshotSegment, uuid: str, *, now: int, host: str
) -> VolumeGroup:
    """The hidden `snapshotN` that makes a volume the store that the segment names, and the store
    no volume of its own."""
    tie = LogicalVolume(
        next_snapshot_name(v.name for v in vg.lvs),
        uuid,
        (segment,),
        creation_time=now,
        creation_host=host,
    )
    cow = vg.volume(segment.cow)
    hidden = vg.with_lv(cow._replace(status=cow.status - {"VISIBLE"}))
    return hidden._replace(lvs=(*hidden.lvs, tie))


def virtual_origin_of(vg: VolumeGroup, name: str) -> LogicalVolume | None:
    """The virtual origin of a sparse volume; None for any other."""
    segment = vg.snapshot_of(name)
    origin = vg.lv(segment.origin) if segment is not None else None
    return origin if origin is not None and vg.is_virtual_origin(origin) else None


def add_virtual(
    vg: VolumeGroup,
    name: str,
    extents: int,
    *,
    type_name: str,
    uuid: str,
    now: int,
    host: str,
    tags: Sequence[str] = (),
) -> VolumeGroup:
    """A new volume of `type_name` error or zero, which takes no space."""
    edit.check_new(vg, name)
    lv = LogicalVolume(
        name,
        uuid,
        (SimpleSegment(0, extents, type_name),),
        status=frozenset({"READ", "WRITE", "VISIBLE"}),
        tags=tuple(tags),
        creation_time=now,
        creation_host=host,
    )
    return vg._replace(lvs=(*vg.lvs, lv))


def add_sparse(
    vg: VolumeGroup,
    name: str,
    virtual_extents: int,
    cow_extents: int,
    *,
    chunk_size: int,
    uuid: str,
    origin_uuid: str,
    snapshot_uuid: str,
    now: int,
    host: str,
    places: Sequence[PvExtents] | None = None,
    policy: str | None = None,
    approximate: bool = False,
) -> VolumeGroup:
    """A sparse volume of `virtual_extents` with room for `cow_extents` of data, its metadata
    included. `chunk_size` in sectors."""
    origin = LogicalVolume(
        name + _VIRTUAL,
        origin_uuid,
        (SimpleSegment(0, virtual_extents, "zero"),),
        status=frozenset({"READ"}),
        creation_time=now,
        creation_host=host,
    )
    made = add_snapshot(
        vg._replace(lvs=(*vg.lvs, origin)),
        origin.name,
        name,
        cow_extents,
        chunk_size=chunk_size,
        uuid=uuid,
        snapshot_uuid=snapshot_uuid,
        now=now,
        host=host,
        places=places,
        policy=policy,
        approximate=approximate,
        clamp=False,
    )
    before, (_, cow, tie) = made.lvs[:-3], made.lvs[-3:]
    return made._replace(lvs=(*before, cow, origin, tie))


def _check_unlocked(vg: VolumeGroup, *names: str) -> None:
    """RefusedError while extents of one of the volumes are moved."""
    for name in names:
        lv = vg.lv(name)
        if lv is not None and lv.locked:
            raise RefusedError(
                f"Command on LV {vg.name}/{name} is invalid on LV with properties: lv_is_locked .\n"
                f"Command not permitted on LV {vg.name}/{name}."
            )


def split_snapshot(vg: VolumeGroup, name: str) -> VolumeGroup:
    """A snapshot becomes a volume of its own, which holds its store; a virtual origin goes."""
    segment = vg.snapshot_of(name)
    cow = vg.lv(name)
    if segment is None or cow is None:
        raise RefusedError(f"{vg.name}/{name} is not a snapshot.")
    _check_unlocked(vg, name)
    if segment.merging:
        raise RefusedError(f"Unable to split merging snapshot {vg.name}/{name}.")
    origin = virtual_origin_of(vg, name)
    kept = tuple(
        lv
        for lv in vg.lvs
        if lv is not origin and (lv.snapshot_segment is None or lv.snapshot_segment.cow != name)
    )
    return vg._replace(lvs=kept).with_lv(cow._replace(status=cow.status | {"VISIBLE"}))


def join_snapshot(
    vg: VolumeGroup,
    origin: str,
    name: str,
    *,
    chunk_size: int,
    snapshot_uuid: str,
    now: int,
    host: str,
) -> VolumeGroup:
    """A volume becomes the store of a new snapshot of `origin`; `chunk_size` in sectors."""
    if name == origin:
        raise RefusedError(f"Unable to use {vg.name}/{name} as both snapshot and origin.")
    base, cow = vg.lv(origin), vg.lv(name)
    if base is None or base.snapshot_segment is not None:
        raise RefusedError(f"Couldn't find origin volume {origin} in Volume group {vg.name}.")
    if cow is None or cow.snapshot_segment is not None:
        raise NotFoundError(f'Failed to find logical volume "{vg.name}/{name}"')
    if vg.is_cow(origin):
        raise RefusedError("Snapshots of snapshots are not supported.")
    if not vg.is_visible(base):
        raise RefusedError("Snapshots of hidden volumes are not supported.")
    if vg.merging_snapshot_of(origin) is not None:
        raise RefusedError("Snapshots of an origin that has a merging snapshot are not supported.")
    kinds = [s.type_name for s in cow.segments if not isinstance(s, StripedSegment)]
    if vg.is_cow(name) or vg.is_origin(name):
        kinds = ["snapshot" if vg.is_cow(name) else "origin"]
    if kinds:
        raise RefusedError(
            f"Command on LV {vg.name}/{name} does not accept LV type {kinds[0]}.\n"
            f"Command not permitted on LV {vg.name}/{name}."
        )
    _check_unlocked(vg, name, origin)
    if not vg.is_visible(cow):
        raise RefusedError(
            f"Command on LV {vg.name}/{name} requires LV with properties: lv_is_visible .\n"
            f"Command not permitted on LV {vg.name}/{name}."
        )
    check_cow_size(vg, cow.extent_count, chunk_size)
    segment = SnapshotSegment(0, base.extent_count, chunk_size, origin, name)
    return tie_snapshot(vg, segment, snapshot_uuid, now=now, host=host)


def start_merge(vg: VolumeGroup, snapshot: str) -> VolumeGroup:
    """Mark a snapshot as merging into its origin."""
    segment = vg.snapshot_of(snapshot)
    if segment is None:
        raise RefusedError(
            f"{vg.name}/{snapshot} cannot be merged because --trackchanges was not used."
        )
    base = vg.lv(segment.origin)
    assert base is not None, "the metadata were checked on reading"
    _check_unlocked(vg, snapshot, base.name)
    if not base.writable:
        raise RefusedError(
            f"Cannot merge snapshot {vg.name}/{snapshot} into the read-only origin "
            f"{vg.name}/{base.name}. (Use lvchange -p rw)."
        )
    if vg.merging_snapshot_of(segment.origin) is not None:
        raise RefusedError(
            f"Cannot merge snapshot {vg.name}/{snapshot} into the origin "
            f"{vg.name}/{segment.origin} with merging snapshot {vg.name}/{snapshot}."
        )

    def marked(volume: LogicalVolume) -> LogicalVolume:
        own = volume.snapshot_segment
        if own is None or own.cow != snapshot:
            return volume
        status = volume.status - {"VISIBLE"}
        return volume._replace(status=status, segments=(own._replace(merging=True),))

    return vg._replace(lvs=tuple(marked(v) for v in vg.lvs))


def finish_merge(vg: VolumeGroup, snapshot: str) -> VolumeGroup:
    """The VG when all of a merging snapshot has been copied back."""
    segment = vg.snapshot_of(snapshot)
    if segment is None or not segment.merging:
        raise RefusedError(f"{vg.name}/{snapshot} is not being merged.")
    cow = vg.lv(snapshot)
    assert cow is not None, "the metadata were checked on reading"
    return edit.without(vg, cow)
