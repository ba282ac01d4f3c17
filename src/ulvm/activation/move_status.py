"""How far a pvmove is: what its device's status lines say (`dmsetup status`, dm-raid1.c)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ulvm.dm_ioctl import TableLine
from ulvm.errors import FormatError
from ulvm.metadata.model import LogicalVolume, MirrorSegment

__all__ = ["MirrorStatus", "MoveStatus", "move_status", "parse_mirror_status"]


class MirrorStatus(NamedTuple):
    """Regions that all legs have, and all there are; a letter for each leg, A for a good one."""

    in_sync: int
    regions: int
    health: str


class MoveStatus(NamedTuple):
    """`copied` of `extents`, as LVM counts: whole ones, a segment's share of regions rounded down.
    `current`: the segment that is copied, None if none is left. `in_sync`: it is complete.
    `health`: a letter for each side of it, all A when both are good."""

    copied: int
    extents: int
    current: int | None
    in_sync: bool
    health: str = ""

    @property
    def fraction(self) -> float:
        return self.copied / self.extents if self.extents else 1.0

    @property
    def copying(self) -> bool:
        """A mirror is at work."""
        return bool(self.health) and not self.in_sync and not self.failed

    @property
    def failed(self) -> bool:
        """Reads or writes of a side failed: it will not get in sync."""
        return bool(self.health.strip("A"))


def parse_mirror_status(line: TableLine) -> MirrorStatus | None:
    """None for other targets; FormatError for words that no kernel writes."""
    if line.target_type != "mirror":
        return None
    words = line.params.split()
    try:
        legs = int(words[0])
        done, _, regions = words[1 + legs].partition("/")
        return MirrorStatus(int(done), int(regions), words[3 + legs])
    except (ValueError, IndexError):
        raise FormatError(f"unexpected mirror status {line.params!r}") from None


def move_status(move: LogicalVolume, lines: Sequence[TableLine]) -> MoveStatus:
    """Of a move whose device has these status lines; what they do not tell is not copied."""
    from ulvm.metadata.move import current_segment  # while extents are moved alone

    current = current_segment(move)
    moved = [s.extent_count for s in move.segments if isinstance(s, MirrorSegment) and s.moved]
    copied = sum(moved)
    status = None
    if current is not None and len(lines) == len(move.segments):
        status = parse_mirror_status(lines[current])
    if status is None or current is None:
        return MoveStatus(copied, move.extent_count, current, False)
    copied += move.segments[current].extent_count * status.in_sync // max(status.regions, 1)
    complete = status.in_sync == status.regions
    return MoveStatus(copied, move.extent_count, current, complete, status.health)
