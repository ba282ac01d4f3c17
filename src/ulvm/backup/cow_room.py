"""Whether the COWs that a restore fills have room for it.

A restore writes every chunk of the backup's size. On an origin each is copied to each snapshot that
does not have it yet; on a snapshot each becomes one of its own. A COW that is too small overflows
in the midst of it, and what the snapshot held is lost. Which chunks a COW has is not known, only
how many; so what is reckoned is the most that it may come to hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ulvm.activation.states import LvState
from ulvm.metadata.cow import store_chunks
from ulvm.metadata.model import SnapshotSegment, VolumeGroup
from ulvm.units import SECTOR

__all__ = ["Short", "short_of_room"]


class Short(NamedTuple):
    """A snapshot that may overflow; sizes of its COW in extents."""

    name: str
    extents: int
    enough: int


def short_of_room(
    vg: VolumeGroup, lv_name: str, states: Mapping[str, LvState], size: int
) -> list[Short]:
    """The snapshots that may overflow when the first `size` bytes of an active volume, origin or
    snapshot, are written. Those that have overflowed already are left out."""
    own = vg.snapshot_of(lv_name)
    segments = vg.snapshots_of_origin(lv_name) if own is None else (own,)
    found = []
    for segment in segments:
        extents = vg.volume(segment.cow).extent_count
        enough = _enough(vg, segment, states.get(segment.cow), size)
        if enough > extents:
            found.append(Short(segment.cow, extents, enough))
    return found


def _enough(vg: VolumeGroup, segment: SnapshotSegment, state: LvState | None, size: int) -> int:
    """Extents of a COW that cannot overflow; 0 if it has."""
    status = None if state is None else state.status
    if status is not None and (status.invalid or status.overflow):
        return 0
    chunk = segment.chunk_size
    chunks = -(-segment.extent_count * vg.extent_size // chunk)
    if status is not None:
        held = (status.allocated - status.metadata) // chunk
        chunks = min(chunks, held + -(-size // (chunk * SECTOR)))
    return -(-store_chunks(chunks, chunk) * chunk // vg.extent_size)
