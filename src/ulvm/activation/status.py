"""What a snapshot's status line says (`dmsetup status`, dm-snap.c, snapshot_status)."""

from __future__ import annotations

from typing import NamedTuple

from ulvm.dm_ioctl import TableLine
from ulvm.errors import FormatError

__all__ = ["SnapshotStatus", "parse_snapshot_status"]

_TYPES = ("snapshot", "snapshot-merge")


class SnapshotStatus(NamedTuple):
    """Sizes in sectors; all 0 when the line holds a word in their place."""

    allocated: int = 0
    total: int = 0
    metadata: int = 0
    invalid: bool = False
    merge_failed: bool = False
    overflow: bool = False
    merging: bool = False
    """The line is a snapshot-merge target's."""

    @property
    def fraction(self) -> float | None:
        """How full the COW is, 0..1; 1 when invalid; None if the line does not tell."""
        if self.invalid or self.overflow:
            return 1.0
        if not self.total:
            return None
        return 0.0 if self.allocated == self.metadata else self.allocated / self.total

    @property
    def merge_done(self) -> bool:
        """Nothing is left to merge."""
        return self.merging and self.total > 0 and self.allocated == self.metadata


def parse_snapshot_status(line: TableLine) -> SnapshotStatus | None:
    """None for other targets; FormatError for words that no kernel writes."""
    if line.target_type not in _TYPES:
        return None
    merging = line.target_type == "snapshot-merge"
    text = line.params.strip()
    if text == "Invalid":
        return SnapshotStatus(invalid=True, merging=merging)
    if text == "Merge failed":
        return SnapshotStatus(merge_failed=True, merging=merging)
    if text == "Overflow":
        return SnapshotStatus(overflow=True, merging=merging)
    if text == "Unknown":
        return SnapshotStatus(merging=merging)
    try:
        usage, metadata = text.split()
        allocated, total = usage.split("/")
        return SnapshotStatus(int(allocated), int(total), int(metadata), merging=merging)
    except ValueError:
        raise FormatError(f"unexpected snapshot status {text!r}") from None
