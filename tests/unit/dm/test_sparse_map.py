"""The map for snapshots of exabytes: it answers as the flat one does, wherever the chunks are."""

from __future__ import annotations

import random

import numpy as np
import pytest

from tests.unit.dm.lab import Lab
from ulvm.dm.exceptions.map import ExceptionMap
from ulvm.dm.exceptions.sparse_map import FLAT_CHUNKS, SparseExceptionMap, exception_map

CHUNKS = 3000


@pytest.mark.parametrize("seed", range(6))
def test_answers_as_the_flat_map(seed: int) -> None:
    choose = random.Random(seed)
    maps = ExceptionMap(CHUNKS), SparseExceptionMap(CHUNKS)
    for _ in range(200):
        first = choose.randrange(CHUNKS)
        count = min(choose.choice([1, 1, 5, 300]), CHUNKS - first)
        what = choose.choice(["insert", "complete", "remove", "load"])
        if what == "complete":
            # Only what was inserted becomes complete.
            count = maps[0].run_end(first, first + count) - first if maps[0].state[first] else 0
        new = choose.randrange(10**6)
        for each in maps:
            if what == "insert":
                each.insert_pending(first, new, count)
            elif what == "complete" and count:
                each.complete(np.array([first]), np.array([count]))
            elif what == "remove":
                each.remove(first, count)
            elif what == "load":
                old = np.array([first, CHUNKS + 5], dtype=np.uint64)
                each.load(old, np.array([new, new], dtype=np.uint64))
        stop = choose.randrange(first + 1, CHUNKS + 1)
        flat, sparse = maps
        assert flat.run_end(first, stop) == sparse.run_end(first, stop)
        assert flat.all_done(first, stop - 1) == sparse.all_done(first, stop - 1)
        for state in (b"\0", b"\1", b"\2"):
            assert flat.state.find(state, first, stop) == sparse.state.find(state, first, stop)
        if flat.state[first]:
            assert flat.where[first] == sparse.where[first]
            assert flat.contiguous_end(first, stop) == sparse.contiguous_end(first, stop)


@pytest.mark.parametrize("kind", [ExceptionMap, SparseExceptionMap])
def test_of_two_records_the_first_counts(kind: type[ExceptionMap]) -> None:
    """In one area and in two; as the kernel reads them, and as a merge leaves them."""
    found = kind(CHUNKS)
    for records in ([(3, 2), (3, 5), (4, 6)], [(4, 7), (3, 8), (5, 9)]):
        old, new = np.array(records, dtype=np.uint64).T
        found.load(old, new)
    assert [found.where[chunk] for chunk in (3, 4, 5)] == [2, 6, 9]
    assert found.all_done(3, 5)


def test_only_what_is_too_long_for_a_flat_map_is_sparse() -> None:
    assert type(exception_map(1000)) is ExceptionMap
    assert type(exception_map(FLAT_CHUNKS + 1)) is SparseExceptionMap


def test_a_snapshot_of_exabytes(lab: Lab) -> None:
    lab.device("o", f"0 {(1 << 54) - 8} zero")
    cow = lab.file("cow", 4096)
    lab.device("s", f"0 {(1 << 54) - 8} snapshot 253:0 {cow} P 8")
    device = lab.dm.mapped("s")
    far = 1 << 62
    device.write(far, b"far away".ljust(4096, b"."))
    block = bytearray(8192)
    device.readinto(far - 4096, block)
    assert bytes(block) == bytes(4096) + b"far away".ljust(4096, b".")
    assert lab.status("s") == "24/4096 16"
