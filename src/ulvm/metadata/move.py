"""Extents on their way from one PV to another (pvmove): from one immutable `VolumeGroup` to the
next. Pure, as `metadata.edit`; refusals have LVM's sentences (tools/pvmove.c).

    start     the volumes' areas on the source lie on a hidden volume `pvmoveN` instead, which has a
              `mirror` segment (source, destination) for each; all of them are LOCKED
    advance   a segment whose copy is complete is marked as moved; the next one is copied
    finish    the volumes' areas lie at the destination where the segment was moved, else at the
              source; `pvmoveN` is gone

With `atomic` the two sides are hidden volumes (`pvmoveN_mimage_0`, `_1`) and there is one segment,
so all is moved or nothing. Only one segment is copied at a time, the first that is not moved: what
lies before it is used at its destination, what lies behind it at its source.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ulvm.errors import NotFoundError, RefusedError
from ulvm.metadata.allocate import allocate_beside, effective_policy
from ulvm.metadata.model import (
    Area,
    LogicalVolume,
    MirrorSegment,
    Segment,
    StripedSegment,
    VolumeGroup,
)
from ulvm.metadata.names import next_lv_index
from ulvm.metadata.segments import PvExtents, PvRun, check_stripes, merge_adjacent, pv_runs

__all__ = [
    "Moved",
    "advance_move",
    "current_segment",
    "finish_move",
    "move_from",
    "move_of_pv",
    "source_pv",
    "start_move",
]

REGION_SIZE = 4096
"""Sectors of a region at most (activation/mirror_region_size)."""


@dataclass(frozen=True, slots=True)
class Moved:
    """What `start_move` made. `extents`: (volume, extents on their way)."""

    vg: VolumeGroup
    name: str
    extents: tuple[tuple[str, int], ...]


@dataclass
class _Piece:
    """An area of a volume that moves."""

    extents: int
    source: Area
    shunned: frozenset[str]
    lv_name: str
    stripe_size: int
    """Sectors; 0 for one stripe."""


# -- what is under way ----------------------------------------------------------------------------


def source_pv(vg: VolumeGroup, move: LogicalVolume) -> str:
    """UUID of the PV that a move clears; empty for one that has nothing to move (any more)."""
    area = _side(vg, move, 0)
    return area.pv_uuid if area is not None else ""


def _side(vg: VolumeGroup, move: LogicalVolume, number: int) -> Area | None:
    for segment in move.segments:
        if isinstance(segment, MirrorSegment):
            return next((place for place, _ in _resolved(vg, segment.areas[number], 1)), None)
    return None


def move_from(vg: VolumeGroup, name: str) -> LogicalVolume:
    """The move of this name; NotFoundError."""
    found = vg.lv(name)
    if found is None or not found.is_pvmove:
        raise NotFoundError(
            f"{vg.name}/{name}: No pvmove in progress - already finished or aborted."
        )
    return found


def move_of_pv(vg: VolumeGroup, pv_uuid: str) -> LogicalVolume | None:
    """The move that clears this PV."""
    return next((move for move in vg.pvmoves() if source_pv(vg, move) == pv_uuid), None)


def current_segment(move: LogicalVolume) -> int | None:
    """The number of the segment that is copied; None if all are moved."""
    for number, segment in enumerate(move.segments):
        if isinstance(segment, MirrorSegment) and not segment.moved:
            return number
    return None


def _resolved(vg: VolumeGroup, area: Area, extents: int) -> Iterator[tuple[Area, int]]:
    """The areas on PVs, with their extents, that an area of a move's side stands for."""
    image = vg.lv(area.lv) if area.lv else None
    if image is None:
        yield area, extents
        return
    at, end = area.pe, area.pe + extents
    for segment in image.segments:
        upto = min(end, segment.start_extent + segment.extent_count)
        if segment.start_extent <= at < upto:
            assert isinstance(segment, StripedSegment), "the metadata were checked on reading"
            place = segment.areas[0]
            yield place._replace(pe=place.pe + at - segment.start_extent), upto - at
            at = upto


# -- start ----------------------------------------------------------------------------------------


def start_move(
    vg: VolumeGroup,
    source: PvExtents,
    *,
    new_uuid: Callable[[], str],
    now: int,
    host: str,
    only: str | None = None,
    places: Sequence[PvExtents] | None = None,
    policy: str | None = None,
    atomic: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> Moved:
    """Put a new `pvmoveN` under all that lies in `source`, or under that part of the volume `only`.

    `places`: where to, anywhere else in the VG without. `say` is told of volumes that are passed
    over. RefusedError, NotFoundError.
    """
    if only is not None and vg.lv(only) is None:
        raise NotFoundError(f"Logical volume {only} not found.")
    allowed = effective_policy(vg, policy)
    targets = list(places) if places is not None else [PvExtents(pv.uuid) for pv in vg.pvs]
    if allowed != "anywhere":
        targets = [place for place in targets if place.pv_uuid != source.pv_uuid]
    if places is not None and not places:
        raise RefusedError("No specified PVs have space available.")
    if not targets:
        raise RefusedError("No extents available for allocation.")
    name = f"pvmove{next_lv_index((lv.name for lv in vg.lvs), 'pvmove')}"
    hidden = {image.name for move in vg.pvmoves() for image in vg.lower_lvs(move)}
    pieces: list[_Piece] = []
    volumes: list[LogicalVolume] = []
    extents: list[tuple[str, int]] = []
    passed = False
    at = 0
    for lv in vg.lvs:
        taken: list[_Piece] = []
        segments = tuple(_rerouted(lv, source, name, at, taken))
        uses = bool(taken) or any(run.pv_uuid == source.pv_uuid for run in pv_runs(lv))
        wanted = uses and (only is None or lv.name == only)
        if wanted and not (lv.is_pvmove or lv.name in hidden or lv.locked) and taken:
            whole = {(segment.start_extent, segment.extent_count) for segment in lv.segments}
            for part in segments:
                if not isinstance(part, StripedSegment) or len(part.areas) == 1:
                    continue
                if (part.start_extent, part.extent_count) not in whole:
                    check_stripes(vg, lv.name, part.stripe_size, part.area_len)
            count = sum(piece.extents for piece in taken)
            at += count
            extents.append((lv.name, count))
            pieces += taken
            status = lv.status | {"LOCKED"}
            volumes.append(lv._replace(segments=segments, status=status))
            continue
        volumes.append(lv)
        if wanted and lv.locked and not lv.is_pvmove:
            say(f"Skipping locked LV {vg.name}/{lv.name}.")
        passed = passed or (wanted and (lv.locked or lv.name in hidden))
    if not pieces:
        why = ""
        if passed:
            why = (
                "All data on source PV skipped. "
                "It contains locked, hidden or non-top level LVs only.\n"
            )
        raise RefusedError(f"{why}No data to move for {vg.name}.")
    try:
        runs = allocate_beside(
            vg, [(p.extents, p.shunned) for p in pieces], policy=allowed, places=targets
        )
    except RefusedError as error:
        raise RefusedError(
            f"{error.message}\n"
            f"Unable to allocate mirror extents for {vg.name}/{name}.\n"
            "Failed to convert pvmove LV to mirrored."
        ) from error
    for piece, found in zip(pieces, runs, strict=True):
        for run in found if piece.stripe_size and len(found) > 1 else ():
            check_stripes(vg, piece.lv_name, piece.stripe_size, run.length)
    sides = list(_sides(pieces, runs))
    move = LogicalVolume(
        name,
        new_uuid(),
        (),
        status=frozenset({"READ", "WRITE", "PVMOVE", "LOCKED"}),
        creation_time=now,
        creation_host=host,
        allocation_policy="contiguous",
    )
    region = _region_size(vg, [at] if atomic else [count for count, _, _ in sides])
    images: tuple[LogicalVolume, ...] = ()
    if atomic:
        images = tuple(
            move._replace(
                name=f"{name}_mimage_{number}",
                uuid=new_uuid(),
                segments=_image((count, areas[number]) for count, *areas in sides),
                status=frozenset({"READ", "WRITE"}),
                allocation_policy="inherit",
            )
            for number in (0, 1)
        )
        areas = tuple(Area("", 0, image.name) for image in images)
        move = move._replace(segments=(MirrorSegment(0, at, areas, region),))
    else:
        move = move._replace(segments=tuple(_mirrors(sides, region)))
    return Moved(vg._replace(lvs=(*volumes, move, *images)), name, tuple(extents))


def _rerouted(
    lv: LogicalVolume, source: PvExtents, name: str, at: int, taken: list[_Piece]
) -> Iterator[Segment]:
    """The volume's segments with what lies in `source` on the move instead, whose next free extent
    is `at`. Each such area is added to `taken`."""
    for segment in lv.segments:
        if not isinstance(segment, StripedSegment):
            yield segment
            continue
        for part in _cut(segment, source):
            areas = list(part.areas)
            for number, area in enumerate(areas):
                if _covers(source, area, part.area_len):
                    others = {a.pv_uuid for a in part.areas if a is not area}
                    shunned = frozenset({area.pv_uuid, *others} - {""})
                    size = part.stripe_size if len(areas) > 1 else 0
                    taken.append(_Piece(part.area_len, area, shunned, lv.name, size))
                    areas[number] = Area("", at, name)
                    at += part.area_len
            yield part._replace(areas=tuple(areas))


def _cut(segment: StripedSegment, source: PvExtents) -> Iterator[StripedSegment]:
    """The segment in parts of which each area lies in `source` wholly or not at all."""
    cuts = {0, segment.area_len}
    for area in segment.areas:
        if area.pv_uuid == source.pv_uuid:
            for pe, length in source.within([(area.pe, segment.area_len)]):
                cuts |= {pe - area.pe, pe - area.pe + length}
    bounds = sorted(cuts)
    width = len(segment.areas)
    for first, last in pairwise(bounds):
        yield segment._replace(
            start_extent=segment.start_extent + first * width,
            extent_count=(last - first) * width,
            areas=tuple(area._replace(pe=area.pe + first) for area in segment.areas),
        )


def _covers(source: PvExtents, area: Area, length: int) -> bool:
    if area.pv_uuid != source.pv_uuid:
        return False
    return sum(count for _, count in source.within([(area.pe, length)])) >= length


def _sides(
    pieces: Sequence[_Piece], runs: Sequence[Sequence[PvRun]]
) -> Iterator[tuple[int, Area, Area]]:
    """(extents, from, to), a piece in as many parts as its destination has."""
    for piece, found in zip(pieces, runs, strict=True):
        done = 0
        for run in found:
            here = piece.source._replace(pe=piece.source.pe + done)
            yield run.length, here, Area(run.pv_uuid, run.pe)
            done += run.length


def _mirrors(sides: Sequence[tuple[int, Area, Area]], region: int) -> Iterator[MirrorSegment]:
    at = 0
    for count, here, there in sides:
        yield MirrorSegment(at, count, (here, there), region)
        at += count


def _image(parts: Iterator[tuple[int, Area]]) -> tuple[Segment, ...]:
    segments = []
    at = 0
    for count, area in parts:
        segments.append(StripedSegment(at, count, (area,)))
        at += count
    return merge_adjacent(segments)


def _region_size(vg: VolumeGroup, lengths: Sequence[int]) -> int:
    """The kernel takes no region that is longer than what it is a part of."""
    region = REGION_SIZE
    while region > min(lengths) * vg.extent_size:
        region >>= 1
    return region


# -- go on and end --------------------------------------------------------------------------------


def advance_move(vg: VolumeGroup, name: str, number: int) -> VolumeGroup:
    """The copy of segment `number` is complete: from now on it is what counts."""
    move = move_from(vg, name)
    segment = move.segments[number]
    assert isinstance(segment, MirrorSegment)
    done = segment._replace(extents_moved=segment.extent_count)
    segments = (*move.segments[:number], done, *move.segments[number + 1 :])
    return vg.with_lv(move._replace(segments=segments))


def finish_move(vg: VolumeGroup, name: str) -> VolumeGroup:
    """Take the move away: what is moved stays at its destination, the rest at its source."""
    move = move_from(vg, name)
    images = {
        area.lv
        for segment in move.segments
        if isinstance(segment, MirrorSegment)
        for area in segment.areas
        if area.lv
    }
    volumes = []
    for lv in vg.lvs:
        if lv.name == name or lv.name in images:
            continue
        if all(below.name != name for below in vg.lower_lvs(lv)):
            volumes.append(lv)
            continue
        segments = merge_adjacent(part for s in lv.segments for part in _settled(vg, move, s))
        settled = lv._replace(segments=segments)
        if not vg.lower_lvs(settled):
            settled = settled._replace(status=lv.status - {"LOCKED"})
        volumes.append(settled)
    return vg._replace(lvs=tuple(volumes))


def _settled(vg: VolumeGroup, move: LogicalVolume, segment: Segment) -> Iterator[Segment]:
    """The segment with its areas on the move where they are now, cut where the move is."""
    if not isinstance(segment, StripedSegment):
        yield segment
        return
    at = 0
    width = len(segment.areas)
    while at < segment.area_len:
        areas = []
        length = segment.area_len - at
        for area in segment.areas:
            here = area._replace(pe=area.pe + at)
            if area.lv == move.name:
                here, room = _place(vg, move, here.pe)
                length = min(length, room)
            areas.append(here)
        yield segment._replace(
            start_extent=segment.start_extent + at * width,
            extent_count=length * width,
            areas=tuple(areas),
        )
        at += length


def _place(vg: VolumeGroup, move: LogicalVolume, extent: int) -> tuple[Area, int]:
    """Where an extent of the move is now, and how many more follow it there."""
    for segment in move.segments:
        inside = extent - segment.start_extent
        if 0 <= inside < segment.extent_count and isinstance(segment, MirrorSegment):
            area = segment.areas[1 if segment.moved else 0]
            room = segment.extent_count - inside
            return next(_resolved(vg, area._replace(pe=area.pe + inside), room))
    raise RefusedError(f"Extent {extent} of {vg.name}/{move.name} is nowhere.")
