"""Runs of extents: joining neighbours, cutting, and the extents each PV lends."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from ulvm.errors import RefusedError
from ulvm.metadata.model import (
    Area,
    LogicalVolume,
    MirrorSegment,
    Segment,
    SimpleSegment,
    StripedSegment,
    VolumeGroup,
)
from ulvm.units import display_size

__all__ = [
    "PvExtents",
    "PvRun",
    "check_stripes",
    "cut_segments",
    "merge_adjacent",
    "pv_runs",
    "stripe_width",
]


class PvRun(NamedTuple):
    """Physical extents [pe, pe + length) of one PV."""

    pv_uuid: str
    pe: int
    length: int


class PvExtents(NamedTuple):
    """A PV that extents may be taken from; `runs`: only these of it, all without."""

    pv_uuid: str
    runs: tuple[tuple[int, int], ...] = ()
    """(first extent, number of extents)"""

    def within(self, areas: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """What of the areas (first extent, number) may be taken, run by run."""
        if not self.runs:
            return list(areas)
        return [
            (max(pe, first), min(pe + length, first + count) - max(pe, first))
            for first, count in self.runs
            for pe, length in areas
            if first < pe + length and first + count > pe
        ]


def pv_runs(lv: LogicalVolume) -> Iterator[PvRun]:
    """Every run of physical extents that an LV itself uses, in order of its logical extents."""
    for segment in lv.segments:
        if isinstance(segment, StripedSegment | MirrorSegment):
            for area in segment.areas:
                if not area.lv:
                    yield PvRun(area.pv_uuid, area.pe, segment.area_len)


def stripe_width(vg: VolumeGroup, stripes: int, stripe_size: int) -> int:
    """Extents of which a segment with so many stripes must be a multiple: each area holds whole
    ones, and one of `stripe_size`, in sectors, may be longer than an extent or no part of one.
    RefusedError, in LVM's words, for stripes without a size."""
    if stripes == 1:
        return 1
    if not stripe_size:
        raise RefusedError("Stripesize for striped segment should not be 0!")
    return stripes * (math.lcm(stripe_size, vg.extent_size) // vg.extent_size)


def check_stripes(vg: VolumeGroup, name: str, stripe_size: int, area_len: int) -> None:
    """RefusedError if areas of so many extents each would hold a part of a stripe: no device takes
    that. `stripe_size` in sectors; it may be longer than an extent."""
    if area_len * vg.extent_size % stripe_size:
        raise RefusedError(
            f"Stripes of {display_size(stripe_size)} do not fit the {area_len} extents of "
            f"{display_size(vg.extent_size)} in a row that logical volume {name} would have on "
            "each PV."
        )


def merge_adjacent(segments: Iterable[Segment]) -> tuple[Segment, ...]:
    """Join neighbours that are contiguous on every PV, and renumber from extent 0."""
    merged: list[Segment] = []
    start = 0
    for segment in segments:
        placed = segment._replace(start_extent=start)
        start += placed.extent_count
        last = merged[-1] if merged else None
        if last is not None and _continues(last, placed):
            merged[-1] = last._replace(extent_count=last.extent_count + placed.extent_count)
        else:
            merged.append(placed)
    return tuple(merged)


def _continues(first: Segment, second: Segment) -> bool:
    if first.tags != second.tags:
        return False
    if isinstance(first, StripedSegment) and isinstance(second, StripedSegment):
        # LVM leaves those on a hidden volume as they are, too.
        if any(area.lv for area in (*first.areas, *second.areas)):
            return False
        return first.stripe_size == second.stripe_size and second.areas == tuple(
            Area(a.pv_uuid, a.pe + first.area_len) for a in first.areas
        )
    return (
        isinstance(first, SimpleSegment)
        and isinstance(second, SimpleSegment)
        and first.type_name == second.type_name
    )


def cut_segments(segments: Iterable[Segment], extents: int) -> tuple[Segment, ...]:
    """The first `extents` logical extents; a cut inside stripes must fall on a stripe boundary."""
    kept: list[Segment] = []
    for segment in segments:
        room = extents - segment.start_extent
        if room <= 0:
            break
        kept.append(segment._replace(extent_count=min(room, segment.extent_count)))
    return tuple(kept)
