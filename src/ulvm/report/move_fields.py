"""What reports show of extents on their way: of the hidden `pvmoveN`, and of what stands on it."""

from __future__ import annotations

from ulvm.metadata.model import Area, MirrorSegment, PhysicalVolume, StripedSegment
from ulvm.report.attributes import percent_of
from ulvm.report.rows import Row
from ulvm.report.table import Value

__all__ = ["copy_percent", "devices", "le_ranges", "move_pv", "move_pv_uuid", "pe_ranges"]


def _source(row: Row) -> PhysicalVolume | None:
    if row.vg is None or row.lv is None or not row.lv.is_pvmove:
        return None
    from ulvm.metadata.move import source_pv

    return row.vg.pv(source_pv(row.vg, row.lv))


def move_pv(row: Row) -> Value:
    """The PV that a move clears."""
    pv = _source(row)
    return "" if pv is None else row.scan.path_of(pv.uuid) or "[unknown]"


def move_pv_uuid(row: Row) -> Value:
    pv = _source(row)
    return "" if pv is None else pv.uuid


def copy_percent(row: Row) -> Value:
    """Of a move that is active, how much is at its destination."""
    move = row.state.move if row.state else None
    return "" if move is None else percent_of(move.fraction)


def _areas(row: Row) -> tuple[tuple[Area, ...], int]:
    segment = row.segment
    if isinstance(segment, StripedSegment | MirrorSegment):
        return segment.areas, segment.area_len
    return (), 0


def _name(row: Row, area: Area) -> str:
    return area.lv or row.scan.path_of(area.pv_uuid) or "[unknown]"


def devices(row: Row) -> Value:
    """Where the segment lies; of a hidden volume LVM shows no extent."""
    areas, _ = _areas(row)
    return ",".join(f"{_name(row, a)}({0 if a.lv else a.pe})" for a in areas)


def _ranges(row: Row, separator: str, *, brackets: bool) -> str:
    """PE ranges; of a hidden volume all of it."""
    areas, length = _areas(row)
    hidden = brackets and any(area.lv for area in areas)
    words = []
    for area in areas:
        name = f"[{_name(row, area)}]" if hidden else _name(row, area)
        first, last = area.pe, area.pe + length - 1
        below = row.vg.lv(area.lv) if row.vg is not None and area.lv else None
        if below is not None:
            first, last = 0, below.extent_count - 1
        words.append(f"{name}:{first}-{last}")
    return separator.join(words)


def pe_ranges(row: Row) -> Value:
    return _ranges(row, " ", brackets=False)


def le_ranges(row: Row) -> Value:
    """The same with commas, and the names of hidden volumes in brackets."""
    return _ranges(row, ",", brackets=True)
