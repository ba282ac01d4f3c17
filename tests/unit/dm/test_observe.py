"""Which granules were written: none is lost, and a device that nobody watches pays nothing."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ulvm.dm.mapper import LocalMapper
from ulvm.dm.observe import WriteObserver
from ulvm.dm_ioctl import TableLine
from ulvm.errors import BusyError

MIB = 1 << 20


@given(st.lists(st.tuples(st.integers(0, 16 * MIB), st.integers(1, 9 * MIB)), max_size=8))
def test_each_granule_once(writes: list[tuple[int, int]]) -> None:
    observer = WriteObserver(16 * MIB)
    wanted = set()
    for offset, length in writes:
        observer.note(offset, length)
        wanted |= set(range(offset >> 12, ((offset + length - 1) >> 12) + 1))
    assert list(observer.take()) == sorted(n for n in wanted if n < 4096)
    assert list(observer.take()) == []


def test_a_great_volume_has_coarser_granules() -> None:
    observer = WriteObserver(15 << 60)
    observer.note((15 << 60) - 1, 1)
    assert observer.shift > 12
    assert list(observer.take()) == [observer.granules - 1]


def test_nothing_is_lost_between_threads() -> None:
    observer = WriteObserver(64 * MIB)
    seen: set[int] = set()
    done = threading.Event()

    def write(first: int) -> None:
        for granule in range(first, 16384, 4):
            observer.note(granule << 12, 4096)

    def collect() -> None:
        while not done.is_set():
            seen.update(map(int, observer.take()))

    reader = threading.Thread(target=collect)
    reader.start()
    writers = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    done.set()
    reader.join()
    seen.update(map(int, observer.take()))
    assert seen == set(range(16384))


def test_writes_through_a_device_are_noted_as_long_as_it_is_watched() -> None:
    mapper = LocalMapper()
    mapper.create("d")
    mapper.load("d", [TableLine(0, 2048, "zero", "")])
    mapper.resume("d")
    device = mapper.mapped("d")
    handle = device.open(write=True)
    observer = WriteObserver(device.size)
    device.observe(observer)
    with pytest.raises(BusyError):
        device.observe(observer)
    handle.write(8192, b"x" * 512)
    handle.write_zeroes(65536, 4097)
    assert list(observer.take()) == [2, 16, 17]
    device.unobserve()
    handle.write(0, b"x" * 512)
    assert list(observer.take()) == []
    handle.close()
    mapper.shutdown()
