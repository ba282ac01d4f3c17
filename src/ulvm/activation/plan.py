"""Which dm devices a volume is made of, and their tables. Pure.

A volume that has nothing to do with snapshots is one device. An origin and its snapshots are
one tree, active or inactive as a whole (dev_manager.c of LVM2):

    vg-base-real   the origin's segments             vg-snap-cow   the COW's segments
    vg-base        snapshot-origin vg-base-real      vg-snap       snapshot real cow P <chunk>

While a snapshot is merged, `vg-base` has snapshot-merge in place of snapshot-origin, and
`vg-snap` an error table. A merge that had to wait (metadata say merging, the tree was in use)
keeps the tables of a plain snapshot until the tree is activated anew: `merging=False`.

While extents are moved (`metadata.move`), the volumes that they belong to stand on the device of
the hidden `pvmoveN`, which is linear where nothing is copied and a mirror in one place:

    vg-pvmove0     linear (destination) ... mirror (source, destination), linear (source) ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import NamedTuple

from ulvm.activation.names import dm_name, dm_uuid
from ulvm.dm_ioctl import TableLine, quoted_word
from ulvm.errors import NotFoundError, RefusedError
from ulvm.metadata.model import (
    Area,
    LogicalVolume,
    MirrorSegment,
    SimpleSegment,
    SnapshotSegment,
    StripedSegment,
    UnknownSegment,
    VolumeGroup,
)

__all__ = ["PathOf", "PlannedDevice", "Rank", "plan_tree", "root_of", "tree_members", "tree_stack"]

PathOf = Callable[[str], str | None]
"""The path of the device that holds a PV, by the PV's UUID; None for a missing PV."""


class Rank(IntEnum):
    """Order of resume; suspend goes the other way round."""

    MISSING = -3
    """What stands in for areas on missing PVs, under all else."""
    IMAGE = -2
    """A side of a move, if it is a volume of its own."""
    MOVE = -1
    """A pvmoveN: after what it stands on; before it is live, nothing may write past it."""
    LOWER = 0
    """-real and -cow."""
    SNAPSHOT = 1
    """Before the origin: a snapshot that is not there yet misses what is overwritten."""
    ORIGIN = 2
    """The origin, or a volume without snapshots."""
    MERGED = 3
    """After the origin: the merge target takes the exceptions over while this is suspended."""


class PlannedDevice(NamedTuple):
    """In `table`, PVs stand as paths, quoted, and dm devices as their names."""

    name: str
    uuid: str
    table: tuple[TableLine, ...]
    read_only: bool
    rank: Rank
    lv: str
    """The volume that it belongs to."""
    minor: int | None = None
    """The minor number that it must have."""


def root_of(vg: VolumeGroup, lv_name: str) -> LogicalVolume:
    """The origin of a snapshot; any other volume itself. NotFoundError."""
    snap = vg.snapshot_of(lv_name)
    found = vg.lv(snap.origin if snap else lv_name)
    if found is None or found.snapshot_segment is not None:
        raise NotFoundError(f'Failed to find logical volume "{vg.name}/{lv_name}"')
    return found


def tree_members(vg: VolumeGroup, lv_name: str) -> tuple[LogicalVolume, ...]:
    """The volumes that are active together with this one: the root and then its snapshots."""
    root = root_of(vg, lv_name)
    cows = (vg.lv(snap.cow) for snap in vg.snapshots_of_origin(root.name))
    return (root, *(cow for cow in cows if cow is not None))


def tree_stack(vg: VolumeGroup, lv_name: str) -> tuple[LogicalVolume, ...]:
    """`tree_members`, and the hidden volumes that they stand on."""
    members = tree_members(vg, lv_name)
    return (*members, *(low for lv in members for low in vg.lower_lvs(lv)))


def plan_tree(
    vg: VolumeGroup,
    root: LogicalVolume,
    path_of: PathOf,
    *,
    merging: bool = True,
    partial: bool = False,
    filler: str = "error",
) -> tuple[PlannedDevice, ...]:
    """The devices of a tree in the order in which LVM creates them, so that the minor numbers are
    LVM's too.

    RefusedError if a PV is missing, unless `partial`: then `filler` stands in for it, targets of
    type error or zero, or the device of that path.
    """
    planner = _Planner(vg, path_of, partial, filler)
    devices = planner.below(tree_members(vg, root.name))
    snapshots = vg.snapshots_of_origin(root.name)
    if not snapshots:
        rank = Rank.MOVE if root.is_pvmove else Rank.ORIGIN
        return (*devices, *planner.own(root, "", rank), *planner.missing)
    size = vg.lv_sectors(root)
    real = dm_name(vg.name, root.name, "real")
    merged = vg.merging_snapshot_of(root.name) if merging else None
    written = root if merged is None else _writable(root)  # A merge writes, whatever users may.
    devices += planner.own(written, "real", Rank.LOWER)
    if merged is None:
        devices += planner.top(root, TableLine(0, size, "snapshot-origin", real), Rank.ORIGIN)
    else:
        cow = planner.cow(merged)
        line = TableLine(0, size, "snapshot-merge", _snapshot_params(vg, merged, real))
        devices += planner.own(cow, "cow", Rank.LOWER)
        devices += planner.top(root, line, Rank.ORIGIN)
        gone = TableLine(0, merged.extent_count * vg.extent_size, "error")
        devices += planner.top(cow, gone, Rank.MERGED)
    for snap in snapshots:
        if snap is merged:
            continue
        cow = planner.cow(snap)
        length = snap.extent_count * vg.extent_size
        line = TableLine(0, length, "snapshot", _snapshot_params(vg, snap, real))
        devices += planner.own(cow, "cow", Rank.LOWER)
        devices += planner.top(cow, line, Rank.SNAPSHOT)
    return (*devices, *planner.missing)


def _writable(lv: LogicalVolume) -> LogicalVolume:
    return lv._replace(status=lv.status | {"WRITE"})


def _snapshot_params(vg: VolumeGroup, snap: SnapshotSegment, real: str) -> str:
    return f"{real} {dm_name(vg.name, snap.cow, 'cow')} P {snap.chunk_size}"


class _Planner:
    def __init__(self, vg: VolumeGroup, path_of: PathOf, partial: bool, filler: str) -> None:
        self._vg = vg
        self._path_of = path_of
        self._partial = partial
        self._filler = filler
        self.missing: list[PlannedDevice] = []

    def cow(self, snap: SnapshotSegment) -> LogicalVolume:
        found = self._vg.lv(snap.cow)
        assert found is not None, "the metadata were checked on reading"
        return found

    def below(self, members: Iterable[LogicalVolume]) -> list[PlannedDevice]:
        """The hidden volumes that these stand on."""
        found = {low.uuid: low for lv in members for low in self._vg.lower_lvs(lv)}
        devices = []
        for lv in found.values():
            devices += self.own(lv, "", Rank.MOVE if lv.is_pvmove else Rank.IMAGE)
        return devices

    def own(self, lv: LogicalVolume, layer: str, rank: Rank) -> list[PlannedDevice]:
        """The device with the volume's own segments."""
        lines = tuple(self._segments(lv))
        return [self._device(lv, layer, lines, rank)]

    def top(self, lv: LogicalVolume, line: TableLine, rank: Rank) -> list[PlannedDevice]:
        return [self._device(lv, "", (line,), rank)]

    def _device(
        self, lv: LogicalVolume, layer: str, lines: tuple[TableLine, ...], rank: Rank
    ) -> PlannedDevice:
        return PlannedDevice(
            name=dm_name(self._vg.name, lv.name, layer),
            uuid=dm_uuid(self._vg.uuid, lv.uuid, layer),
            table=lines,
            # A read-only snapshot's store takes exceptions all the same.
            read_only=not lv.writable and layer != "cow",
            rank=rank,
            lv=lv.name,
            minor=None if layer else lv.minor,
        )

    def _segments(self, lv: LogicalVolume) -> Iterable[TableLine]:
        extent = self._vg.extent_size
        for index, segment in enumerate(lv.segments):
            start, length = segment.start_extent * extent, segment.extent_count * extent
            match segment:
                case StripedSegment(areas=areas, stripe_size=stripe_size):
                    # LVM2 gives what stands in for a missing stripe the length of all.
                    places = " ".join(
                        self._area(lv, index, number, area, length)
                        for number, area in enumerate(areas)
                    )
                    if len(areas) == 1:
                        yield TableLine(start, length, "linear", places)
                    else:
                        params = f"{len(areas)} {stripe_size} {places}"
                        yield TableLine(start, length, "striped", params)
                case SimpleSegment(type_name=name):
                    yield TableLine(start, length, name)
                case MirrorSegment():
                    yield self._mirror(lv, index, segment, start, length)
                case UnknownSegment():
                    raise RefusedError(
                        f"Refusing activation of LV {self._vg.name}/{lv.name} "
                        "containing an unrecognised segment."
                    )
                case SnapshotSegment():
                    raise AssertionError("a snapshotN volume has no device")

    def _mirror(
        self, lv: LogicalVolume, index: int, segment: MirrorSegment, start: int, length: int
    ) -> TableLine:
        """The mirror for the segment that is copied; linear before it, and behind it."""
        target = segment.areas[1]
        from ulvm.metadata.move import current_segment  # while extents are moved alone

        copied = index == current_segment(lv)
        if self._partial and not target.lv and self._path_of(target.pv_uuid) is None:
            copied = False  # What it was to become is lost; what it is, is not.
        if not copied:
            number = 1 if segment.moved else 0
            place = self._area(lv, index, number, segment.areas[number], length)
            return TableLine(start, length, "linear", place)
        sides = " ".join(
            self._area(lv, index, number, area, length) for number, area in enumerate(segment.areas)
        )
        region = segment.region_size
        while region > length:  # LVM's metadata have one size for all segments.
            region >>= 1
        return TableLine(start, length, "mirror", f"core 1 {region} 2 {sides}")

    def _area(self, lv: LogicalVolume, segment: int, number: int, area: Area, length: int) -> str:
        """`<device> <first sector>` of one area; `length`: of a device that stands in for it, in
        sectors."""
        if area.lv:
            return f"{dm_name(self._vg.name, area.lv)} {area.pe * self._vg.extent_size}"
        pv = self._vg.pv(area.pv_uuid)
        path = self._path_of(area.pv_uuid)
        if pv is not None and path is not None:
            return f"{quoted_word(path)} {pv.pe_start + area.pe * self._vg.extent_size}"
        if not self._partial:
            raise RefusedError(
                f"Refusing activation of partial LV {self._vg.name}/{lv.name}.  "
                "Use '--activationmode partial' to override."
            )
        if self._filler not in ("error", "zero"):
            return f"{quoted_word(self._filler)} 0"
        layer = f"missing_{segment}_{number}"
        table = (TableLine(0, length, self._filler),)
        self.missing.append(self._device(lv, layer, table, Rank.MISSING))
        return f"{self.missing[-1].name} 0"
