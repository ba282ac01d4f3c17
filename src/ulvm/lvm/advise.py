"""What size a snapshot needs: the live origin is watched for a while, without a snapshot.

The daemon notes which chunks are written (dm.observe); nothing is copied and nothing is committed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from ulvm.activation.names import dm_name
from ulvm.errors import RefusedError
from ulvm.lvm import lv as lvm_lv
from ulvm.lvm.cow_size import ChunkChanges, Estimate
from ulvm.lvm.session import Session
from ulvm.metadata.cow import MAX_CHUNK, cow_max_extents, cow_min_extents, store_chunks
from ulvm.metadata.model import VolumeGroup
from ulvm.units import SECTOR

__all__ = ["Advice", "ChunkAdvice", "measure_changes"]

_SLOTS = 120
_LEAST_SLOT = 0.05
"""Seconds: a request to the daemon is short beside it."""
_LEAST_SLOTS = 10
_NEARLY = 1.1
"""A larger chunk, whose copies are faster, is taken for so much more space."""


@dataclass(frozen=True, slots=True)
class ChunkAdvice:
    """For one chunk size in bytes; the rest are sizes of a COW in extents."""

    chunk_size: int
    expected: int
    in_95: int
    in_99: int
    largest: int
    """Never overflows."""
    changes: ChunkChanges


@dataclass(frozen=True, slots=True)
class Advice:
    """What was measured, and what follows for a snapshot that is to live `lifetime` seconds."""

    vg_name: str
    lv_name: str
    extent_size: int
    """Sectors."""
    lifetime: float
    measured: float
    """Seconds."""
    slots: int
    chunks: tuple[ChunkAdvice, ...]
    """By ascending chunk size."""

    @property
    def best(self) -> ChunkAdvice:
        """The largest chunk size that needs hardly more space than the one that needs least."""
        least = min(chunk.in_99 for chunk in self.chunks)
        return [chunk for chunk in self.chunks if chunk.in_99 <= _NEARLY * least][-1]

    def changed_bytes(self, seconds: float) -> float:
        """What is expected to have changed after so long, in chunks of the least size."""
        first = self.chunks[0]
        return first.changes.expected(seconds * self.slots / self.measured) * first.chunk_size


def measure_changes(
    session: Session,
    vg_name: str,
    lv_name: str,
    *,
    lifetime: float,
    measure: float,
    progress: Callable[[int, int], None] = lambda slot, slots: None,
) -> Advice:
    """Watch the volume for `measure` seconds. `progress` is told of each slot; KeyboardInterrupt
    ends the measurement early when there is something to go by. RefusedError for a snapshot, and
    for a volume that is not active; BusyError while another measures it."""
    vg = session.find_vg(vg_name)
    lv = lvm_lv.get(vg, lv_name)
    snapshot = vg.snapshot_of(lv_name)
    if snapshot is not None:
        raise RefusedError(f"{vg_name}/{lv_name} is a snapshot; its origin is {snapshot.origin}.")
    if lv_name not in lvm_lv.states(session, vg):
        raise RefusedError(f"{vg_name}/{lv_name} is not active, so nothing changes it.")
    wanted = max(min(_SLOTS, int(measure / _LEAST_SLOT)), _LEAST_SLOTS)
    sizes = session.dm.measure(dm_name(vg_name, lv_name))
    began = time.monotonic()
    measured = 0.0
    slots: list[list[dict[int, int]]] = []
    try:
        while len(slots) < wanted:
            end = began + measure * (len(slots) + 1) / wanted
            time.sleep(max(end - time.monotonic(), 0.0))
            slots.append(session.dm.measure_slot())
            measured = time.monotonic() - began
            progress(len(slots), wanted)
    except KeyboardInterrupt:
        if len(slots) < _LEAST_SLOTS:
            raise
    origin_bytes = vg.lv_sectors(lv) * SECTOR
    chunks = []
    for number, size in enumerate(sizes):
        chunk_size = min(size, MAX_CHUNK * SECTOR)
        changes = _changes([slot[number] for slot in slots], origin_bytes, size, chunk_size)
        found = changes.estimate(lifetime * len(slots) / measured)
        chunks.append(_in_extents(vg, lv_name, found, changes, chunk_size))
    return Advice(vg_name, lv_name, vg.extent_size, lifetime, measured, len(slots), tuple(chunks))


def _changes(
    slots: list[dict[int, int]], origin_bytes: int, size: int, chunk_size: int
) -> ChunkChanges:
    """In chunks, where parts of `size` were watched: each that changed may have changed wholly."""
    times = size // chunk_size
    in_chunks = [{gap: count * times for gap, count in slot.items()} for slot in slots]
    return ChunkChanges(in_chunks, -(-origin_bytes // chunk_size))


def _in_extents(
    vg: VolumeGroup, lv_name: str, found: Estimate, changes: ChunkChanges, chunk_size: int
) -> ChunkAdvice:
    sectors = chunk_size // SECTOR
    least, largest = cow_min_extents(vg, sectors), cow_max_extents(vg, lv_name, sectors)

    def extents(chunks: int) -> int:
        size = store_chunks(chunks, sectors) * sectors
        return max(min(-(-size // vg.extent_size), largest), least)

    return ChunkAdvice(
        chunk_size,
        extents(found.expected),
        extents(found.in_95),
        extents(found.in_99),
        largest,
        changes,
    )
