"""How large a COW store a backup starts with, when the user does not say.

A backup's snapshot lives as long as the copy takes. What it must hold is what writers change in
that time, which nobody knows beforehand; so it starts with a quarter of the origin (64 MiB at
least), never more than the snapshot can ever use nor than is free, and the watcher extends it as
it fills. What is left free is what it can be extended by.
"""

from __future__ import annotations

from ulvm.errors import RefusedError

__all__ = ["choose_cow_extents"]

_LEAST_SECTORS = (64 << 20) >> 9


def choose_cow_extents(
    *, origin_extents: int, most_extents: int, free_extents: int, extent_size: int, vg: str
) -> int:
    """Extents for the COW; `most_extents` is the size at which it cannot overflow any more.

    `extent_size` in sectors. RefusedError if the volume group is full.
    """
    if free_extents <= 0:
        raise RefusedError(
            f'Volume group "{vg}" has no free extent for the snapshot that a backup needs: '
            "extend it with vgextend."
        )
    least = -(-_LEAST_SECTORS // extent_size)
    wanted = max(-(-origin_extents // 4), least)
    return min(wanted, most_extents, free_extents)
