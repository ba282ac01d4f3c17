"""The sizes of a snapshot's store: chunks, and how much of it can be of use. Pure."""

from __future__ import annotations

from ulvm.errors import NotFoundError, RefusedError, UsageError
from ulvm.metadata.model import VolumeGroup

__all__ = [
    "MAX_CHUNK",
    "MIN_CHUNK",
    "check_chunk_size",
    "check_cow_size",
    "cow_max_extents",
    "cow_min_extents",
    "store_chunks",
]

MIN_CHUNK, MAX_CHUNK = 8, 1024
"""Sectors: 4 KiB and 512 KiB."""
_MIN_COW_CHUNKS = 3


def check_chunk_size(sectors: int) -> None:
    """UsageError unless LVM takes it as a snapshot's chunk size."""
    if not MIN_CHUNK <= sectors <= MAX_CHUNK or sectors & (sectors - 1):
        raise UsageError("Chunk size must be a power of 2 in the range 4K to 512K.")


def store_chunks(chunks: int, chunk_size: int) -> int:
    """How many chunks a store takes that has room for so many: those, the header, and an area of
    metadata for each `chunk_size` * 32 of them, begun or not. `chunk_size` in sectors."""
    return 1 + chunks + chunks // (chunk_size * 32) + 1


def cow_max_extents(vg: VolumeGroup, origin: str, chunk_size: int) -> int:
    """Extents of the largest COW that can be of use: every chunk changed (cow_max_extents)."""
    base = vg.lv(origin)
    if base is None:
        raise NotFoundError(f'Failed to find logical volume "{vg.name}/{origin}"')
    chunks = -(-vg.lv_sectors(base) // chunk_size)
    return -(-store_chunks(chunks, chunk_size) * chunk_size // vg.extent_size)


def cow_min_extents(vg: VolumeGroup, chunk_size: int) -> int:
    """Extents of the least COW: a header, an area and a chunk."""
    return -(-_MIN_COW_CHUNKS * chunk_size // vg.extent_size)


def check_cow_size(vg: VolumeGroup, extents: int, chunk_size: int) -> None:
    """RefusedError unless a COW of so many extents has the least size."""
    smallest = cow_min_extents(vg, chunk_size)
    if extents < smallest:
        raise RefusedError(
            f"Snapshot volume cannot be smaller than {_MIN_COW_CHUNKS} chunks ({smallest} extents)."
        )
