"""What a commit copies: many writes of it, the next of them read meanwhile."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ulvm.blockdev.base import BlockDevice
from ulvm.blockdev.faults import FaultDevice
from ulvm.blockdev.file import FileDevice
from ulvm.dm.copies import OldData, copy_runs
from ulvm.dm.exceptions.store import Runs
from ulvm.errors import DeviceError

MIB = 1 << 20
SIZE = 9 * MIB - 1536
"""Of the origin: its last chunk is not whole."""


class Lab:
    def __init__(self, folder: Path) -> None:
        self.data = random.Random(1).randbytes(SIZE)
        (folder / "origin").write_bytes(self.data)
        (folder / "cow").write_bytes(b"\xaa" * (24 * MIB))
        self.source = FaultDevice(FileDevice(str(folder / "origin")))
        self.cow = FaultDevice(FileDevice(str(folder / "cow")))

    def check(self, shift: int, runs: Runs) -> None:
        """Each chunk is where its run says, and nothing else was written."""
        wanted = bytearray(b"\xaa" * self.cow.size)
        for old, new, count in runs.tolist():
            piece = self.data[old << shift : (old + count) << shift]
            wanted[new << shift : (new << shift) + len(piece)] = piece
        assert self.cow.read(0, self.cow.size) == wanted


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path)
    before = threading.active_count()
    yield made
    assert threading.active_count() == before
    made.source.close()
    made.cow.close()


def scattered(shift: int, seed: int) -> Runs:
    """All chunks of the origin, in runs that come in no order; in the COW they follow each other
    but for a gap here and there."""
    dice = random.Random(seed)
    chunks = -(-SIZE >> shift)
    runs = []
    old = 0
    while old < chunks:
        count = min(dice.choice([1, 1, 2, 7, 300]), chunks - old)
        runs.append((old, count))
        old += count
    dice.shuffle(runs)
    rows, new = [], 3
    for old, count in runs:
        rows.append((old, new, count))
        new += count + (dice.random() < 0.2)
    return np.array(rows, dtype=np.int64)


@pytest.mark.parametrize("shift", [9, 12, 16, 21])
@pytest.mark.parametrize("shared", [False, True])
def test_every_chunk_is_where_its_run_says(lab: Lab, shift: int, shared: bool) -> None:
    """Chunks of 512 bytes to 2 MiB, more than two writes of them."""
    runs = scattered(shift, shift)
    copy_runs(lab.source, lab.cow, shift, runs, OldData() if shared else None)
    lab.check(shift, runs)


def test_the_next_is_read_while_one_is_written(lab: Lab) -> None:
    """A write that waits for the reading of what comes behind it ends."""
    read_on = threading.Event()

    class Watched(FaultDevice):
        def readinto(self, offset: int, buffer: bytearray | memoryview) -> None:  # type: ignore[override]
            if offset >= MIB:
                read_on.set()
            super().readinto(offset, buffer)

    class Waiting(FaultDevice):
        def write(self, offset: int, data: bytes, *, fua: bool = False) -> None:  # type: ignore[override]
            assert read_on.wait(10)
            super().write(offset, data, fua=fua)

    runs = np.array([(0, 1, 700)], dtype=np.int64)
    copy_runs(Watched(lab.source), Waiting(lab.cow), 12, runs)
    lab.check(12, runs)


def test_none_is_read_over_what_is_being_written(lab: Lab) -> None:
    """However slow the writes are: each finds its own data."""

    class Slow(FaultDevice):
        def write(self, offset: int, data: bytes, *, fua: bool = False) -> None:  # type: ignore[override]
            threading.Event().wait(0.02)
            super().write(offset, data, fua=fua)

    runs = np.array([(0, 1, SIZE >> 12)], dtype=np.int64)
    copy_runs(lab.source, Slow(lab.cow), 12, runs)
    lab.check(12, runs)


@pytest.mark.parametrize("nth", [1, 2, 3, 9])
@pytest.mark.parametrize("side", ["source", "cow"])
def test_an_error_of_either_is_told(lab: Lab, side: str, nth: int) -> None:
    device: FaultDevice = getattr(lab, side)
    device.fail_nth("read" if side == "source" else "write", nth)
    with pytest.raises(DeviceError):
        copy_runs(lab.source, lab.cow, 12, np.array([(0, 1, SIZE >> 12)], dtype=np.int64))


def test_a_failed_write_waits_for_what_is_being_read(lab: Lab) -> None:
    """Its buffer is the next one's."""
    reading = []

    class Slow(FaultDevice):
        def readinto(self, offset: int, buffer: bytearray | memoryview) -> None:  # type: ignore[override]
            reading.append(offset)
            threading.Event().wait(0.1)
            super().readinto(offset, buffer)
            reading.remove(offset)

    lab.cow.fail("write")
    with pytest.raises(DeviceError):
        copy_runs(Slow(lab.source), lab.cow, 12, np.array([(0, 1, SIZE >> 12)], dtype=np.int64))
    assert not reading


@pytest.mark.usefixtures("no_threads")
def test_without_another_thread(lab: Lab) -> None:
    runs = scattered(12, 5)
    copy_runs(lab.source, lab.cow, 12, runs)
    lab.check(12, runs)


def test_chunks_behind_the_end(lab: Lab) -> None:
    """Of an origin that is shorter than its snapshot: there is nothing to copy."""
    devices: tuple[BlockDevice, BlockDevice] = lab.source, lab.cow
    copy_runs(*devices, 12, np.array([(5000, 1, 3)], dtype=np.int64))
    lab.check(12, np.zeros((0, 3), dtype=np.int64))
