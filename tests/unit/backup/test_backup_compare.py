"""Zeros in buffers, wherever the odd byte is."""

from __future__ import annotations

import pytest

from ulvm.backup.compare import data_runs, is_zero

SIZE = 300 << 10


@pytest.mark.parametrize("at", [0, 4095, 4096, 64 << 10, SIZE // 2, SIZE - 1])
def test_one_byte_makes_the_difference(at: int) -> None:
    buffer = bytearray(SIZE)
    assert is_zero(memoryview(buffer))
    buffer[at] = 1
    assert not is_zero(memoryview(buffer))


def test_runs_cover_the_buffer_and_alternate() -> None:
    buffer = bytearray(10 * 4096 + 512)
    buffer[4096] = buffer[2 * 4096 + 5] = buffer[-1] = 1
    assert list(data_runs(memoryview(buffer), 4096)) == [
        (0, 4096, False),
        (4096, 2 * 4096, True),
        (3 * 4096, 7 * 4096, False),
        (10 * 4096, 512, True),
    ]
