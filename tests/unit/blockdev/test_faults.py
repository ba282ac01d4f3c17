"""Injected faults, and what a power cut may leave."""

from __future__ import annotations

import errno
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ulvm.blockdev.faults import FaultDevice
from ulvm.blockdev.memory import MemoryDevice
from ulvm.errors import DeviceError

SIZE = 16 * 512


@pytest.fixture
def device() -> FaultDevice:
    return FaultDevice(MemoryDevice(SIZE))


def test_a_kind_fails_until_cleared(device: FaultDevice) -> None:
    device.fail("write")
    for _ in range(2):
        with pytest.raises(DeviceError) as caught:
            device.write(0, b"x")
        assert caught.value.errno == errno.EIO
    with pytest.raises(DeviceError):
        device.write_zeroes(0, 512)
    assert device.read(0, 1) == b"\0"
    device.flush()
    device.clear()
    device.write(0, b"x")
    assert device.read(0, 1) == b"x"
    assert device.counts == {"read": 2, "write": 4, "flush": 1, "discard": 0}


def test_the_nth_fails_and_the_next_does_not(device: FaultDevice) -> None:
    device.fail_nth("flush", 2, error=errno.ENOSPC)
    device.flush()
    with pytest.raises(DeviceError) as caught:
        device.flush()
    assert caught.value.errno == errno.ENOSPC
    device.flush()


def test_several_in_a_row(device: FaultDevice) -> None:
    device.fail_nth("read", 2, times=2)
    outcome = []
    for _ in range(5):
        try:
            device.read(0, 1)
            outcome.append(True)
        except DeviceError:
            outcome.append(False)
    assert outcome == [True, False, False, True, True]


def test_a_range_fails_for_requests_that_touch_it(device: FaultDevice) -> None:
    device.fail_range("read", 1024, 512)
    device.read(0, 1024)
    device.read(1536, 512)
    for offset, length in ((1023, 2), (1535, 1), (0, SIZE)):
        with pytest.raises(DeviceError):
            device.read(offset, length)
    device.write(1024, b"x")


def test_a_torn_write_leaves_its_first_sectors(device: FaultDevice) -> None:
    device.tear_nth(2, 3)
    device.write(0, b"a" * 4096)
    with pytest.raises(DeviceError):
        device.write(0, b"b" * 4096)
    assert device.read(0, 4096) == b"b" * 1536 + b"a" * 2560


# -- power cut ---------------------------------------------------------------------------------


def test_what_was_flushed_is_there_and_what_was_not_may_be(device: FaultDevice) -> None:
    device.write(0, b"0" * 512)
    record = device.record()
    device.write(0, b"a" * 512)
    device.flush()
    device.write(0, b"b" * 512)
    device.write(512, b"c" * 512)
    found = {record.image_at(len(record.events), random.Random(n))[:1024:512] for n in range(100)}
    assert found == {b"a\0", b"b\0", b"ac", b"bc"}


def test_before_the_flush_the_old_content_is_possible(device: FaultDevice) -> None:
    record = device.record()
    device.write(0, b"a" * 512)
    before = len(record.events)
    device.flush()
    found = {record.image_at(before, random.Random(n))[:1] for n in range(50)}
    assert found == {b"\0", b"a"}
    found = {record.image_at(len(record.events), random.Random(n))[:1] for n in range(50)}
    assert found == {b"a"}


def test_a_write_may_be_torn_between_sectors_never_within(device: FaultDevice) -> None:
    record = device.record()
    device.write(256, b"x" * 1024)
    found = {record.image_at(len(record.events), random.Random(n)) for n in range(200)}
    sectors = {tuple(image[n * 512 : n * 512 + 512] for n in range(3)) for image in found}
    assert len(sectors) == 8
    for first, second, third in sectors:
        assert first in (bytes(512), bytes(256) + b"x" * 256)
        assert second in (bytes(512), b"x" * 512)
        assert third in (bytes(512), b"x" * 256 + bytes(256))


def test_forced_writes_are_durable_alone(device: FaultDevice) -> None:
    record = device.record()
    device.write(0, b"a" * 512)
    device.write(512, b"b" * 512, fua=True)
    found = {record.image_at(len(record.events), random.Random(n))[:1024:512] for n in range(50)}
    assert found == {b"\0b", b"ab"}


def test_a_failed_flush_makes_nothing_durable(device: FaultDevice) -> None:
    record = device.record()
    device.write(0, b"a" * 512)
    device.fail_nth("flush", 1)
    with pytest.raises(DeviceError):
        device.flush()
    found = {record.image_at(len(record.events), random.Random(n))[:1] for n in range(50)}
    assert found == {b"\0", b"a"}


@given(st.lists(st.tuples(st.integers(0, 15), st.integers(1, 255), st.booleans()), max_size=12))
def test_after_a_flush_there_is_one_image(writes: list[tuple[int, int, bool]]) -> None:
    device = FaultDevice(MemoryDevice(SIZE))
    record = device.record()
    for sector, value, fua in writes:
        device.write(sector * 512 + 7, bytes([value]) * 300, fua=fua)
    device.flush()
    live = device.read(0, SIZE)
    for seed in range(5):
        assert record.image_at(len(record.events), random.Random(seed)) == live
    assert record.image_at(0, random.Random(0)) == bytes(SIZE)
