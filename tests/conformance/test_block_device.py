"""What every block device keeps of the contract in `ulvm.blockdev.base`."""

from __future__ import annotations

import errno
import mmap
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import needs
from tests.conformance.devices import KINDS, SIZE
from ulvm.blockdev.base import BlockDevice, Extent
from ulvm.errors import DeviceError

MARKS = {"loop": [needs.root, needs.loop]}


@pytest.fixture(params=[pytest.param(kind, marks=MARKS.get(kind, [])) for kind in KINDS])
def device(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BlockDevice]:
    with KINDS[request.param](tmp_path) as device:
        yield device


def pattern(length: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(length)


def cover(extents: Iterator[Extent], offset: int, length: int) -> list[Extent]:
    """The extents, after checking that they cover the range without gap or overlap."""
    found = list(extents)
    position = offset
    for extent in found:
        assert extent.offset == position
        assert extent.length > 0
        position += extent.length
    assert position == offset + length
    return found


def test_size_and_first_content(device: BlockDevice) -> None:
    assert device.size == SIZE
    assert not device.read_only
    assert device.read(0, SIZE) == bytes(SIZE)


@pytest.mark.parametrize(
    ("offset", "length"),
    [(0, 1), (0, 4096), (511, 2), (4095, 4098), (512 * 999, 1024), (777, 3 << 20), (SIZE - 1, 1)],
)
def test_what_is_written_is_read_and_nothing_else_changes(
    device: BlockDevice, offset: int, length: int
) -> None:
    before = pattern(SIZE)
    device.write(0, before)
    data = pattern(length, 2)
    device.write(offset, data)
    assert device.read(offset, length) == data
    assert device.read(0, SIZE) == before[:offset] + data + before[offset + length :]


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview, lambda b: memoryview(bytearray(b))])
def test_any_buffer_is_taken(device: BlockDevice, wrap: type) -> None:
    data = pattern(5000)
    device.write(100, wrap(data))
    target = bytearray(7000)
    device.readinto(100, memoryview(target)[1000:6000])
    assert target == bytes(1000) + data + bytes(1000)


@pytest.mark.parametrize("count", [3, 700])
@pytest.mark.parametrize("step", [4096, 5001])
def test_many_pieces_at_once(device: BlockDevice, count: int, step: int) -> None:
    """More than one system call takes, in any order, into and from any place in memory."""
    before = pattern(SIZE)
    device.write(0, before)
    order = random.Random(count).sample(range(0, SIZE - 3000, step), min(count, SIZE // step))
    data = memoryview(bytearray(pattern(3000 * len(order), 2)))
    pieces = [
        (offset, data[3000 * n : 3000 * (n + 1)].toreadonly() if n % 2 else data[3000 * n :][:3000])
        for n, offset in enumerate(order)
    ]
    device.write_each(pieces)
    model = bytearray(before)
    for offset, piece in pieces:
        model[offset : offset + 3000] = piece
    assert device.read(0, SIZE) == model
    target = memoryview(bytearray(len(data)))
    device.readinto_each([(o, target[3000 * n : 3000 * (n + 1)]) for n, o in enumerate(order)])
    assert target == data


@pytest.mark.parametrize("count", [3, 700])
def test_of_many_pieces_none_may_be_outside(device: BlockDevice, count: int) -> None:
    pieces = [(4096, memoryview(bytearray(100)))] * count
    with pytest.raises(DeviceError) as caught:
        device.write_each([*pieces, (SIZE - 99, pieces[0][1])])
    assert caught.value.errno == errno.ENOSPC
    with pytest.raises(DeviceError) as caught:
        device.readinto_each([*pieces, (SIZE - 99, pieces[0][1])])
    assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize(
    ("offset", "length"), [(0, 4096), (8192, 1 << 20), (512, 4096), (4096, 5000), (SIZE - 1, 1)]
)
def test_what_is_written_past_the_cache_is_read(
    device: BlockDevice, offset: int, length: int
) -> None:
    before = pattern(SIZE)
    device.write(0, before)
    for seed in (2, 3):
        data = pattern(length, seed)
        memory = memory_of(length)
        memory[:] = data
        device.write_uncached(offset, memoryview(memory))
        assert device.read(0, SIZE) == before[:offset] + data + before[offset + length :]
        device.write_uncached(offset, bytearray(data))
        device.flush()
        assert device.read(offset, length) == data
    with pytest.raises(DeviceError) as caught:
        device.write_uncached(SIZE & -4096, memoryview(memory_of(8192)))
    assert caught.value.errno == errno.ENOSPC


def memory_of(length: int) -> mmap.mmap:
    return mmap.mmap(-1, length)


@pytest.mark.parametrize(("offset", "length"), [(SIZE, 1), (SIZE - 10, 11), (-1, 5), (1 << 62, 1)])
def test_requests_outside_are_refused_and_change_nothing(
    device: BlockDevice, offset: int, length: int
) -> None:
    with pytest.raises(DeviceError) as caught:
        device.read(offset, length)
    assert caught.value.errno == errno.EINVAL
    with pytest.raises(DeviceError) as caught:
        device.write(offset, b"x" * length)
    assert caught.value.errno == errno.ENOSPC
    with pytest.raises(DeviceError) as caught:
        device.write_zeroes(offset, length)
    assert caught.value.errno == errno.ENOSPC
    assert device.size == SIZE
    assert device.read(0, SIZE) == bytes(SIZE)


def test_requests_of_no_bytes(device: BlockDevice) -> None:
    for offset in (0, 100, SIZE):
        assert device.read(offset, 0) == b""
        device.write(offset, b"")
        device.write_zeroes(offset, 0)
        assert list(device.extents(offset, 0)) == []


def test_flush_and_forced_writes_keep_the_data(device: BlockDevice) -> None:
    data = pattern(8192)
    device.write(512, data, fua=True)
    device.flush()
    device.write_zeroes(512, 512, fua=True)
    assert device.read(0, 9216) == bytes(1024) + data[512:] + bytes(512)


@pytest.mark.parametrize("no_hole", [False, True])
@pytest.mark.parametrize(
    ("offset", "length"), [(0, SIZE), (1, 5), (4096, 8192), (5000, 1 << 20), (SIZE - 700, 700)]
)
def test_zeroes(device: BlockDevice, offset: int, length: int, no_hole: bool) -> None:
    before = pattern(SIZE)
    device.write(0, before)
    device.write_zeroes(offset, length, no_hole=no_hole)
    assert device.read(0, SIZE) == before[:offset] + bytes(length) + before[offset + length :]


def test_discard_touches_nothing_outside(device: BlockDevice) -> None:
    assert device.can_discard
    before = pattern(SIZE)
    device.write(0, before)
    device.discard(5000, 1 << 20)
    assert device.read(0, 5000) == before[:5000]
    rest = 5000 + (1 << 20)
    assert device.read(rest, SIZE - rest) == before[rest:]
    with pytest.raises(DeviceError):
        device.discard(SIZE - 1, 2)


def test_extents_of_an_empty_device_read_as_zeros(device: BlockDevice) -> None:
    found = cover(device.extents(0, SIZE), 0, SIZE)
    assert all(extent.zero or not extent.hole for extent in found)


def test_extents_never_call_data_zero(device: BlockDevice) -> None:
    written = [(0, 4096), (65536, 100), (1 << 20, 1 << 16), (SIZE - 512, 512)]
    for offset, length in written:
        device.write(offset, b"\xff" * length)
    device.flush()
    found = cover(device.extents(0, SIZE), 0, SIZE)
    for extent in found:
        if extent.zero:
            assert device.read(extent.offset, extent.length) == bytes(extent.length)
    for offset, length in written:
        for extent in cover(device.extents(offset, length), offset, length):
            assert not extent.hole
            assert not extent.zero


def test_extents_of_a_part(device: BlockDevice) -> None:
    device.write(1 << 20, b"\xff" * 4096)
    cover(device.extents(3, 5), 3, 5)
    cover(device.extents((1 << 20) - 7, 4200), (1 << 20) - 7, 4200)
    with pytest.raises(DeviceError):
        list(device.extents(SIZE - 1, 2))


def test_only_a_snapshot_knows_what_changed(device: BlockDevice) -> None:
    assert device.changed(0, SIZE) is None


def test_requests_from_many_threads(device: BlockDevice) -> None:
    """Each thread owns a stripe; every reader of its own stripe sees its last write."""
    stripe = 300_000
    failures: list[str] = []

    def work(number: int) -> None:
        choose = random.Random(number)
        base = number * stripe
        for _ in range(40):
            length = choose.randrange(1, 50_000)
            offset = base + choose.randrange(stripe - length)
            data = choose.randbytes(length)
            device.write(offset, data)
            if device.read(offset, length) != data:
                failures.append(f"thread {number} at {offset}")
            device.flush()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


@pytest.mark.parametrize("seed", range(3))
def test_any_sequence_is_what_an_array_of_bytes_does(device: BlockDevice, seed: int) -> None:
    choose = random.Random(seed)
    model = bytearray(SIZE)
    for _ in range(150):
        length = choose.choice([1, 512, 4096, 100_001, 1 << 20])
        offset = choose.randrange(SIZE - length + 1)
        match choose.randrange(4):
            case 0:
                data = choose.randbytes(length)
                device.write(offset, data, fua=choose.random() < 0.1)
                model[offset : offset + length] = data
            case 1:
                device.write_zeroes(offset, length, no_hole=choose.random() < 0.5)
                model[offset : offset + length] = bytes(length)
            case 2:
                assert device.read(offset, length) == model[offset : offset + length]
            case 3:
                for extent in cover(device.extents(offset, length), offset, length):
                    end = extent.offset + extent.length
                    assert not extent.zero or not any(model[extent.offset : end])
    assert device.read(0, SIZE) == model


def test_close_twice(device: BlockDevice) -> None:
    device.close()
    device.close()
