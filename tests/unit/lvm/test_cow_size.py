"""The size of a COW from what was written when, beside counting by hand."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ulvm.lvm.cow_size import ChunkChanges


def changes(slots: list[set[int]], total: int) -> ChunkChanges:
    """As the daemon counts: {slots since it was written before, 0 for never: chunks}."""
    last: dict[int, int] = {}
    found = []
    for number, chunks in enumerate(slots):
        histogram: dict[int, int] = {}
        for chunk in chunks:
            gap = number - last[chunk] if chunk in last else 0
            histogram[gap] = histogram.get(gap, 0) + 1
            last[chunk] = number
        found.append(histogram)
    return ChunkChanges(found, total)


@given(st.lists(st.sets(st.integers(0, 12)), min_size=1, max_size=12))
def test_every_window_is_counted_exactly(slots: list[set[int]]) -> None:
    found = changes(slots, 13)
    for start in range(len(slots)):
        for length in range(1, len(slots) - start + 1):
            union = set().union(*slots[start : start + length])
            assert found.distinct(start, length) == len(union)


@given(st.lists(st.sets(st.integers(0, 30)), min_size=10, max_size=40), st.floats(0.1, 500))
def test_bounds_are_in_order_and_within_the_volume(slots: list[set[int]], length: float) -> None:
    found = changes(slots, 31).estimate(length)
    assert 0 <= found.expected <= found.in_95 <= found.in_99 <= 31
    later = changes(slots, 31).estimate(length * 2)
    assert later.expected >= found.expected


def test_the_same_places_again_need_no_more() -> None:
    found = changes([set(range(100))] * 40, 10_000).estimate(4000)
    assert (found.expected, found.in_99) == (100, 100)


def test_a_steady_stream_goes_on() -> None:
    found = changes([set(range(n * 10, n * 10 + 10)) for n in range(40)], 1_000_000).estimate(400)
    assert (found.expected, found.in_95, found.in_99) == (4000, 4000, 4000)
    assert changes([{n} for n in range(40)], 60).estimate(400).in_99 == 60


def test_nothing_written_needs_nothing() -> None:
    found = changes([set() for _ in range(20)], 100).estimate(1000)
    assert (found.expected, found.in_95, found.in_99) == (0, 0, 0)


@pytest.mark.parametrize("seed", range(5))
def test_the_bounds_hold_for_a_restless_load(seed: int) -> None:
    """Slots of very different weight: what a further time of the same kind needs stays below the
    bound as often as is said."""
    rng = random.Random(seed)

    def life(slots: int) -> list[set[int]]:
        return [
            {rng.randrange(20_000) for _ in range(int(rng.expovariate(1 / 20)))}
            for _ in range(slots)
        ]

    kept = 0
    for _ in range(30):
        bound = changes(life(60), 20_000).estimate(120)
        kept += len(set().union(*life(120))) <= bound.in_99
    assert kept >= 28
