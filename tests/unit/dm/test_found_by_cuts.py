"""What the random lives of tests/crash, and reading with cuts in mind, found; in few steps."""

from __future__ import annotations

import errno
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from pathlib import Path

import pytest

from tests.unit.dm.lab import Lab
from tests.waiting import until
from ulvm.blockdev.base import BlockDevice, Buffer, WritableBuffer
from ulvm.blockdev.file import FileDevice
from ulvm.dm.mapper import LocalMapper
from ulvm.dm.table import parse_table
from ulvm.errors import DeviceError


def test_the_last_snapshot_goes_while_its_origin_is_suspended(lab: Lab) -> None:
    """The origin's live table and the next snapshot have to share one list of snapshots."""
    origin, cow = lab.file("origin", 64), lab.file("cow", 64)
    lab.fill_pattern(origin, 64)
    lab.device("org", f"0 64 snapshot-origin {origin}")
    lab.device("first", f"0 64 snapshot {origin} {cow} P 8")
    lab.dm.suspend("org")
    lab.dm.remove("first")
    lab.dm.resume("org")
    before = lab.read("org", 0, 64)
    lab.device("second", f"0 64 snapshot {origin} {lab.file('other', 64)} P 8")
    lab.write("org", 0, 16)
    assert lab.read("second", 0, 64) == before


class Slow(FileDevice):
    """A disk on which a merge takes its time."""

    def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
        time.sleep(0.002)
        super().write(offset, data, fua=fua)


def test_a_shutdown_stops_a_merge_before_the_snapshots_that_it_fills(tmp_path: Path) -> None:
    origin = tmp_path / "origin"

    def opener(path: str, writable: bool) -> BlockDevice:
        return Slow(path, writable=writable) if path == str(origin) else FileDevice(path)

    lab = Lab(tmp_path)
    lab.dm = LocalMapper(open_file=opener)
    path = lab.file("origin", 1024)
    line = f"0 1024 snapshot {path}"
    lab.device("org", f"0 1024 snapshot-origin {path}")
    merging, other = lab.file("cow", 4096), lab.file("other", 4096)
    lab.device("merging", f"{line} {merging} P 1")
    for sector in reversed(range(1024)):  # in one piece it would be merged at once
        lab.write("merging", sector, 1)
    before = lab.read("org", 0, 1024)
    lab.device("other", f"{line} {other} P 1")
    lab.dm.load("org", parse_table(f"0 1024 snapshot-merge {path} {merging} P 1"))
    lab.dm.suspend("org")
    lab.dm.suspend("merging")
    lab.dm.resume("org")
    assert lab.dm.shutdown() == []

    lab.dm = LocalMapper()
    lab.device("other", f"{line} {other} P 1")
    lab.device("org", f"0 1024 snapshot {path} {merging} P 1")
    assert lab.status("org") != "32/4096 32", "the merge was over before the shutdown"
    assert lab.read("other", 0, 1024) == before


def test_a_merge_that_cannot_read_an_area_finds_it_again(tmp_path: Path) -> None:
    """It had counted the area as the current one before it was read, and then passed it by."""
    cow_path = tmp_path / "cow"
    area = (1 + 33) * 512  # the second: 32 records of chunks of a sector

    class TwiceUnreadable(FileDevice):
        """Ahead of its turn, and in it."""

        fails = 0

        def readinto(self, offset: int, buffer: WritableBuffer) -> None:
            if self.fails and offset == area:
                TwiceUnreadable.fails -= 1
                raise DeviceError("twice", errno=errno.EIO)
            super().readinto(offset, buffer)

    lab = Lab(tmp_path)
    lab.file("cow", 4096)
    lab.dm = LocalMapper(
        open_file=lambda path, _: (TwiceUnreadable if path == str(cow_path) else FileDevice)(path)
    )
    path = lab.file("origin", 256)
    lab.device("merging", f"0 256 snapshot {path} {cow_path} P 1")
    for sector in range(0, 200, 2):
        lab.write("merging", sector, 1, sector)
    want = lab.read("merging", 0, 256)
    lab.dm.remove("merging")
    lab.dm.create("org")
    lab.dm.load("org", parse_table(f"0 256 snapshot-merge {path} {cow_path} P 1"))
    TwiceUnreadable.fails = 2
    lab.dm.resume("org")
    until(lambda: lab.status("org") == "Merge failed")
    lab.dm.suspend("org")
    lab.dm.resume("org")
    until(lambda: Path(path).read_bytes() == want)
    assert lab.read("org", 0, 256) == want


def test_who_finds_a_commit_failed_waits_until_the_snapshot_is_invalid_on_disk(
    tmp_path: Path,
) -> None:
    """A write that is answered before could, after a power cut, stand before a valid snapshot."""
    cow_path = tmp_path / "cow"
    reached, go_on = threading.Event(), threading.Event()

    class Failing(FileDevice):
        fails = False

        def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
            if self.fails and offset == 4096:
                raise DeviceError("a record", errno=errno.EIO)
            if self.fails and offset == 0:
                reached.set()
                assert go_on.wait(30)
            super().write(offset, data, fua=fua)

    lab = Lab(tmp_path)
    cow_device = Failing(lab.file("cow", 512))
    lab.dm = LocalMapper(
        open_file=lambda path, _: cow_device if path == str(cow_path) else FileDevice(path)
    )
    path = lab.file("origin", 256)
    lab.device("snap", f"0 256 snapshot {path} {cow_path} P 8")
    lab.device("org", f"0 256 snapshot-origin {path}")
    cow_device.fails = True
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(lab.write, "org", 0, 8)
        assert reached.wait(30)
        second = threads.submit(lab.write, "org", 80, 8)
        try:
            assert not wait_for([second], timeout=1).done
            assert cow_path.read_bytes()[4] == 1, "valid on disk"
        finally:
            go_on.set()
        first.result(30)
        second.result(30)
    assert lab.status("snap") == "Invalid"
    assert cow_path.read_bytes()[4] == 0


class SlowFlush(FileDevice):
    """A disk on which whoever copies out waits."""

    def flush(self) -> None:
        time.sleep(0.005)
        super().flush()


@pytest.mark.parametrize("cow_is_suspended", [False, True])
def test_a_shutdown_under_load_spoils_no_snapshot(tmp_path: Path, cow_is_suspended: bool) -> None:
    """Writes that come while it takes the devices down are copied out first, or refused."""
    lab = Lab(tmp_path)
    lab.dm = LocalMapper(open_file=lambda path, _: SlowFlush(path))
    origin, cow = lab.file("origin", 4096), lab.file("cow", 16384)
    before = lab.fill_pattern(origin, 4096)
    lab.device("org", "0 4096 error")  # the lowest numbers, as the volume was there first
    lab.device("real", f"0 4096 linear {origin} 0")
    lab.device("store", f"0 16384 linear {cow} 0")
    lab.device("snap", "0 4096 snapshot real store P 8")
    lab.reload("org", "0 4096 snapshot-origin real")
    lab.device("idle", f"0 4096 linear {lab.file('other', 4096)} 0")
    lab.dm.suspend("idle")
    handle = lab.dm.mapped("org").open(write=True)
    waiting = lab.dm.mapped("idle").open(write=True)
    written = threading.Event()

    def write_all() -> int:
        for chunk in range(512):
            handle.write(chunk * 4096, b"\xee" * 4096)
            written.set()
        return 512

    with ThreadPoolExecutor(2) as threads:
        writer, waiter = threads.submit(write_all), threads.submit(waiting.read, 0, 512)
        assert written.wait(30)
        if cow_is_suspended:
            lab.dm.suspend("store")
            time.sleep(0.1)
        assert lab.dm.shutdown() == []
        for one in (writer, waiter):
            with pytest.raises(DeviceError) as refused:
                one.result(30)
            assert refused.value.errno == errno.ENXIO
    lab.dm = LocalMapper()
    lab.device("snap", f"0 4096 snapshot {origin} {cow} P 8")
    assert lab.read("snap", 0, 4096) == before
    assert Path(origin).read_bytes() != before


def test_a_shutdown_that_a_request_outlasts_takes_nothing_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ulvm.dm.mapper._DRAIN_SECONDS", 0.2)
    entered, go_on = threading.Event(), threading.Event()

    class Stuck(FileDevice):
        def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
            if offset == 4096:
                entered.set()
                assert go_on.wait(30)
            super().write(offset, data, fua=fua)

    lab = Lab(tmp_path)
    origin, cow = lab.file("origin", 512), lab.file("cow", 512)
    before = lab.fill_pattern(origin, 512)
    lab.dm = LocalMapper(open_file=lambda path, _: (Stuck if path == origin else FileDevice)(path))
    lab.device("snap", f"0 512 snapshot {origin} {cow} P 8")
    lab.device("org", f"0 512 snapshot-origin {origin}")
    handle = lab.dm.mapped("org").open(write=True)
    with ThreadPoolExecutor(1) as threads:
        writer = threads.submit(handle.write, 4096, b"\xee" * 4096)
        assert entered.wait(30)
        assert lab.dm.shutdown() == ["org: requests are still under way"]
        with pytest.raises(DeviceError):
            handle.write(0, b"\xee" * 4096)
        go_on.set()
        writer.result(30)
    lab.dm = LocalMapper(open_file=lambda path, _: FileDevice(path, claim=False))
    lab.device("snap", f"0 512 snapshot {origin} {cow} P 8")
    assert lab.read("snap", 0, 512) == before
