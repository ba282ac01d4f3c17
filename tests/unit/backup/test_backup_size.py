"""The COW size that a backup chooses."""

from __future__ import annotations

import pytest

from ulvm.backup.size import choose_cow_extents
from ulvm.errors import RefusedError

EXTENT = 8192
"""Sectors: 4 MiB."""


@pytest.mark.parametrize(
    ("origin", "most", "free", "chosen"),
    [
        (1024, 1030, 5000, 256),  # a quarter
        (100, 103, 5000, 25),
        (20, 21, 5000, 16),  # 64 MiB at least
        (4, 6, 5000, 6),  # all that it can ever use
        (1024, 1030, 100, 100),  # all that is free
        (1, 3, 1, 1),
    ],
)
def test_choice(origin: int, most: int, free: int, chosen: int) -> None:
    got = choose_cow_extents(
        origin_extents=origin, most_extents=most, free_extents=free, extent_size=EXTENT, vg="vg"
    )
    assert got == chosen


def test_a_full_group_is_refused() -> None:
    with pytest.raises(RefusedError, match='Volume group "vg" has no free extent'):
        choose_cow_extents(
            origin_extents=10, most_extents=12, free_extents=0, extent_size=EXTENT, vg="vg"
        )
