"""A volume group as immutable values, in the terms of LVM2's text metadata.

Sizes are sectors (512 bytes) or extents, as named. A change is a new `VolumeGroup` (see
`metadata.edit`); nothing here does I/O. Field order follows the text format
(lib/format_text/export.c of LVM2).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

from ulvm.errors import NotFoundError

__all__ = [
    "Area",
    "LogicalVolume",
    "MirrorSegment",
    "PhysicalVolume",
    "Segment",
    "SimpleSegment",
    "SnapshotSegment",
    "StripedSegment",
    "UnknownSegment",
    "VolumeGroup",
]


class PhysicalVolume(NamedTuple):
    """One PV as its VG's metadata describe it."""

    uuid: str
    """In text form, with dashes: 6-4-4-4-4-4-6."""
    device: str
    """Path when last written; a hint only."""
    dev_size: int
    """Sectors."""
    pe_start: int
    """Sectors from the start of the device to extent 0."""
    pe_count: int
    status: frozenset[str] = frozenset({"ALLOCATABLE"})
    flags: frozenset[str] = frozenset()
    tags: tuple[str, ...] = ()
    device_id_type: str | None = None
    device_id: str | None = None
    ba_start: int = 0
    ba_size: int = 0

    @property
    def allocatable(self) -> bool:
        return "ALLOCATABLE" in self.status

    @property
    def missing(self) -> bool:
        return "MISSING" in self.flags


class Area(NamedTuple):
    """Where a stripe starts: PV (by UUID) and its first physical extent.

    While extents are moved it lies on a hidden volume instead: `lv` is that one's name, `pe` its
    first logical extent, and `pv_uuid` is empty.
    """

    pv_uuid: str
    pe: int
    lv: str = ""


class StripedSegment(NamedTuple):
    """`type = "striped"`; one stripe is what users call linear."""

    start_extent: int
    extent_count: int
    """Logical extents over all stripes; each area has extent_count / len(areas) extents."""
    areas: tuple[Area, ...]
    stripe_size: int = 0
    """Sectors; 0 for one stripe."""
    tags: tuple[str, ...] = ()

    @property
    def type_name(self) -> str:
        return "striped" if len(self.areas) > 1 else "linear"

    @property
    def area_len(self) -> int:
        """Physical extents in each area."""
        return self.extent_count // len(self.areas)


class SnapshotSegment(NamedTuple):
    """The one segment of a hidden `snapshotN` LV; ties a COW to its origin by name."""

    start_extent: int
    extent_count: int
    chunk_size: int
    """Sectors."""
    origin: str
    cow: str
    merging: bool = False
    tags: tuple[str, ...] = ()

    @property
    def type_name(self) -> str:
        return "snapshot"


class SimpleSegment(NamedTuple):
    """A segment without areas: `zero` or `error`."""

    start_extent: int
    extent_count: int
    type_name: str
    tags: tuple[str, ...] = ()


class MirrorSegment(NamedTuple):
    """`type = "mirror"` of a `pvmoveN` volume: extents on their way from the first area to the
    second. Other mirrors are not known here."""

    start_extent: int
    extent_count: int
    areas: tuple[Area, ...]
    region_size: int
    """Sectors that are copied, and are in sync, together."""
    extents_moved: int = 0
    """All or nothing counts: extent_count once the second area holds the data."""
    tags: tuple[str, ...] = ()

    @property
    def type_name(self) -> str:
        return "mirror"

    @property
    def area_len(self) -> int:
        return self.extent_count

    @property
    def moved(self) -> bool:
        return self.extents_moved == self.extent_count


class UnknownSegment(NamedTuple):
    """A segment of a type that is not supported (a mirror, a thin pool). What it stands on is not
    known, so the VG that has one can be looked at and not changed."""

    start_extent: int
    extent_count: int
    type_name: str
    tags: tuple[str, ...] = ()


Segment = StripedSegment | SnapshotSegment | SimpleSegment | MirrorSegment | UnknownSegment


class LogicalVolume(NamedTuple):
    """One LV section. A COW is an LV under the snapshot's user-visible name; a hidden
    `snapshotN` LV (one SnapshotSegment) makes it a snapshot."""

    name: str
    uuid: str
    segments: tuple[Segment, ...]
    status: frozenset[str] = frozenset({"READ", "WRITE", "VISIBLE"})
    flags: frozenset[str] = frozenset()
    tags: tuple[str, ...] = ()
    creation_time: int = 0
    """Seconds since the epoch; 0 if unknown."""
    creation_host: str = ""
    allocation_policy: str = "inherit"
    read_ahead: int | None = None
    """Sectors; None = auto, -1 = none."""
    major: int | None = None
    minor: int | None = None
    profile: str | None = None

    @property
    def extent_count(self) -> int:
        """Logical extents."""
        return sum(s.extent_count for s in self.segments)

    @property
    def snapshot_segment(self) -> SnapshotSegment | None:
        """The segment if this is a hidden snapshotN LV."""
        if len(self.segments) == 1 and isinstance(self.segments[0], SnapshotSegment):
            return self.segments[0]
        return None

    @property
    def writable(self) -> bool:
        return "WRITE" in self.status

    @property
    def locked(self) -> bool:
        """While extents of it are moved, its own may not change."""
        return "LOCKED" in self.status

    @property
    def is_pvmove(self) -> bool:
        """A hidden `pvmoveN` that extents pass through on their way."""
        return "PVMOVE" in self.status


class _Index:
    """Look-ups of a VG's volumes, made once: a report asks them of every volume. Where two have
    one name or UUID, the first counts."""

    __slots__ = ("by_cow", "by_name", "by_origin", "by_uuid", "moves", "snapshots")

    def __init__(self, lvs: tuple[LogicalVolume, ...]) -> None:
        self.by_name = {lv.name: lv for lv in reversed(lvs)}
        self.by_uuid = {lv.uuid: lv for lv in reversed(lvs)}
        found = [segment for lv in lvs if (segment := lv.snapshot_segment) is not None]
        self.snapshots = tuple(found)
        self.by_cow = {segment.cow: segment for segment in reversed(found)}
        by_origin: dict[str, list[SnapshotSegment]] = {}
        for segment in found:
            by_origin.setdefault(segment.origin, []).append(segment)
        self.by_origin = {name: tuple(segments) for name, segments in by_origin.items()}
        self.moves = tuple(lv for lv in lvs if lv.is_pvmove)


class _Fields(NamedTuple):
    name: str
    uuid: str
    extent_size: int
    """Sectors."""
    seqno: int = 0
    status: frozenset[str] = frozenset({"RESIZEABLE", "READ", "WRITE"})
    flags: frozenset[str] = frozenset()
    tags: tuple[str, ...] = ()
    system_id: str | None = None
    max_lv: int = 0
    max_pv: int = 0
    allocation_policy: str = "normal"
    metadata_copies: int = 0
    profile: str | None = None
    pvs: tuple[PhysicalVolume, ...] = ()
    lvs: tuple[LogicalVolume, ...] = ()
    missing_uuids: frozenset[str] = frozenset()
    """PVs that no device was found for at the last scan (not part of the text)."""


class VolumeGroup(_Fields):
    """A whole VG. `lvs` holds visible, COW and hidden snapshotN LVs alike, in VG list order."""

    @cached_property
    def _index(self) -> _Index:
        return _Index(self.lvs)

    @cached_property
    def _pvs_by_uuid(self) -> dict[str, PhysicalVolume]:
        return {pv.uuid: pv for pv in reversed(self.pvs)}

    @cached_property
    def _visible_lvs(self) -> tuple[LogicalVolume, ...]:
        return tuple(v for v in self.lvs if self.is_visible(v))

    @cached_property
    def _runs(self) -> dict[str, list[tuple[int, int]]]:
        """By PV, what `used_runs` says of it, unsorted."""
        found: dict[str, list[tuple[int, int]]] = {}
        for lv in self.lvs:
            for segment in lv.segments:
                if isinstance(segment, StripedSegment | MirrorSegment):
                    length = segment.area_len
                    for area in segment.areas:
                        if not area.lv:
                            found.setdefault(area.pv_uuid, []).append((area.pe, length))
        return found

    @cached_property
    def _allocated(self) -> dict[str, int]:
        return {uuid: sum(length for _, length in runs) for uuid, runs in self._runs.items()}

    # -- look-ups ---------------------------------------------------------------------------

    def pv(self, uuid: str) -> PhysicalVolume | None:
        return self._pvs_by_uuid.get(uuid)

    def lv(self, name: str) -> LogicalVolume | None:
        return self._index.by_name.get(name)

    def volume(self, name: str) -> LogicalVolume:
        """One that users know of; NotFoundError as LVM prints it."""
        lv = self.lv(name)
        if lv is None or lv.snapshot_segment is not None:
            raise NotFoundError(f'Failed to find logical volume "{self.name}/{name}"')
        return lv

    def lv_by_uuid(self, uuid: str) -> LogicalVolume | None:
        return self._index.by_uuid.get(uuid)

    def snapshot_segments(self) -> Iterator[SnapshotSegment]:
        return iter(self._index.snapshots)

    def snapshot_of(self, cow_name: str) -> SnapshotSegment | None:
        """The snapshot segment whose COW is this LV; None if the LV is not a COW."""
        return self._index.by_cow.get(cow_name)

    def snapshots_of_origin(self, origin_name: str) -> tuple[SnapshotSegment, ...]:
        """The snapshots of an origin, merging one included, in VG list order."""
        return self._index.by_origin.get(origin_name, ())

    def merging_snapshot_of(self, origin_name: str) -> SnapshotSegment | None:
        return next((s for s in self.snapshots_of_origin(origin_name) if s.merging), None)

    def is_cow(self, name: str) -> bool:
        return self.snapshot_of(name) is not None

    def is_origin(self, name: str) -> bool:
        return bool(self.snapshots_of_origin(name))

    def pvmoves(self) -> tuple[LogicalVolume, ...]:
        """The moves that are under way."""
        return self._index.moves

    def pvmove_image_of(self, name: str) -> LogicalVolume | None:
        """The move that the hidden volume of this name is a side of (pvmove --atomic)."""
        return next(
            (
                move
                for move in self.pvmoves()
                for segment in move.segments
                if isinstance(segment, MirrorSegment) and any(a.lv == name for a in segment.areas)
            ),
            None,
        )

    def lower_lvs(self, lv: LogicalVolume) -> tuple[LogicalVolume, ...]:
        """The hidden volumes that its areas lie on, and those below them, the lowest first."""
        found: dict[str, LogicalVolume] = {}
        for segment in lv.segments:
            if isinstance(segment, StripedSegment | MirrorSegment):
                for area in segment.areas:
                    below = self.lv(area.lv) if area.lv else None
                    if below is not None and below.uuid not in found:
                        found |= {v.uuid: v for v in self.lower_lvs(below)}
                        found[below.uuid] = below
        return tuple(found.values())

    def is_virtual_origin(self, lv: LogicalVolume) -> bool:
        """Whether it is the hidden origin of zeroes of a sparse volume."""
        return lv.name.endswith("_vorigin") and "VISIBLE" not in lv.status

    def is_component(self, lv: LogicalVolume) -> bool:
        """Whether it may be a part of a volume of a type that is not known: hidden, and of no use
        to those that are."""
        hidden = "VISIBLE" not in lv.status and not (lv.is_pvmove or self.is_cow(lv.name))
        return (
            hidden
            and self.has_unknown_segments
            and not self.is_virtual_origin(lv)
            and self.pvmove_image_of(lv.name) is None
        )

    def is_visible(self, lv: LogicalVolume) -> bool:
        """LVM2's derived rule (lv_is_visible): a snapshotN never; a COW iff its origin is
        visible (or virtual) and it is not merging; else the VISIBLE flag."""
        if lv.snapshot_segment is not None:
            return False
        snap = self.snapshot_of(lv.name)
        if snap is not None:
            if snap.merging:
                return False
            origin = self.lv(snap.origin)
            return origin is not None and (
                "VISIBLE" in origin.status or self.is_virtual_origin(origin)
            )
        return "VISIBLE" in lv.status

    def visible_lvs(self) -> tuple[LogicalVolume, ...]:
        return self._visible_lvs

    # -- sizes ------------------------------------------------------------------------------

    @cached_property
    def extent_count(self) -> int:
        return sum(p.pe_count for p in self.pvs)

    def used_runs(self, pv_uuid: str) -> list[tuple[int, int]]:
        """(first physical extent, number) of all that LVs use of a PV, in order."""
        return sorted(self._runs.get(pv_uuid, ()))

    def allocated(self, pv_uuid: str) -> int:
        """Physical extents of a PV that LVs use."""
        return self._allocated.get(pv_uuid, 0)

    @cached_property
    def free_count(self) -> int:
        return self.extent_count - sum(self.allocated(p.uuid) for p in self.pvs)

    @cached_property
    def has_unknown_segments(self) -> bool:
        return any(isinstance(s, UnknownSegment) for lv in self.lvs for s in lv.segments)

    @cached_property
    def all_missing(self) -> frozenset[str]:
        """UUIDs of PVs that are not there, or are back with content that does not count."""
        return self.missing_uuids | {pv.uuid for pv in self.pvs if pv.missing}

    @property
    def partial(self) -> bool:
        return bool(self.all_missing)

    def has_lost_extents(self, lv: LogicalVolume) -> bool:
        """Whether any of its extents is on a missing PV."""
        missing = self.all_missing
        return bool(missing) and any(
            area.pv_uuid in missing
            for volume in (lv, *self.lower_lvs(lv))
            for segment in volume.segments
            if isinstance(segment, StripedSegment | MirrorSegment)
            for area in segment.areas
        )

    def is_partial(self, lv: LogicalVolume) -> bool:
        """Whether it has lost extents, or, of an origin that is not virtual, one of its snapshots
        has."""
        if not self.all_missing:
            return False
        above = () if self.is_virtual_origin(lv) else self.snapshots_of_origin(lv.name)
        cows = (self.lv(snapshot.cow) for snapshot in above)
        return any(self.has_lost_extents(volume) for volume in (lv, *cows) if volume is not None)

    def lv_sectors(self, lv: LogicalVolume) -> int:
        return lv.extent_count * self.extent_size

    # -- replacement ------------------------------------------------------------------------

    def with_lv(self, lv: LogicalVolume) -> VolumeGroup:
        """Replace the LV of the same UUID, or append."""
        if self.lv_by_uuid(lv.uuid) is None:
            return self._replace(lvs=(*self.lvs, lv))
        return self._replace(lvs=tuple(lv if v.uuid == lv.uuid else v for v in self.lvs))
