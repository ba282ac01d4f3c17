"""The FUSE tree over devices of a test: what reaches the device."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import needs
from tests.static_source import StaticSource
from ulvm.blockdev.base import BlockDevice, Extent, WritableBuffer
from ulvm.blockdev.faults import FaultDevice
from ulvm.blockdev.file import FileDevice
from ulvm.blockdev.memory import MemoryDevice
from ulvm.errors import RefusedError
from ulvm.exports.fuse import FuseServer
from ulvm.exports.fuse_session import SERVING_THREADS
from ulvm.mounts.unmount import unmount

pytestmark = needs.fuse


@pytest.mark.parametrize("direct", [0, os.O_DIRECT])
@pytest.mark.parametrize(
    ("opened", "written", "durable"),
    [
        (0, 0, False),
        (os.O_DSYNC, 0, True),
        (os.O_SYNC, 0, True),
        (0, os.RWF_DSYNC, True),
        (0, os.RWF_SYNC, True),
    ],
)
def test_a_synchronous_write_is_durable(
    tmp_path: Path, opened: int, written: int, durable: bool, direct: int
) -> None:
    """Its return is all that the writer waits for."""
    device = FaultDevice(MemoryDevice(1 << 20))
    record = device.record()
    server = FuseServer(StaticSource({"vg/lv": device}), tmp_path)
    server.start()
    try:
        fd = os.open(tmp_path / "vg/lv", os.O_RDWR | opened | direct)
        page = mmap.mmap(-1, 4096)
        assert os.pwritev(fd, [page], 8192, written) == 4096
        events = [kind for kind, _ in record.events]
        os.close(fd)
    finally:
        server.stop()
    assert ("durable" in events) == durable, events


def test_a_disk_on_any_fuse_server_is_written_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that does not heed the flag of the write."""
    device = FaultDevice(MemoryDevice(1 << 20))
    record = device.record()
    server = FuseServer(StaticSource({"vg/lv": device}), tmp_path)
    server.start()
    try:
        disk = FileDevice(str(tmp_path / "vg/lv"))
        monkeypatch.setattr(os, "RWF_DSYNC", 0)
        disk.write(0, bytes(4096), fua=True)
        events = [kind for kind, _ in record.events]
        disk.close()
    finally:
        server.stop()
    assert "durable" in events


def test_a_hole_is_found_without_a_look_at_all_others(tmp_path: Path) -> None:
    """Else a copy of a file of many holes takes the square of their number."""
    asked = []

    class Asked(MemoryDevice):
        def extents(self, offset: int, length: int) -> Iterator[Extent]:
            asked.append(length)
            return super().extents(offset, length)

    device = Asked(32 << 20)
    for offset in (0, 1 << 16, 31 << 20):
        device.write(offset, b"x" * 4096)
    server = FuseServer(StaticSource({"vg/lv": device}), tmp_path)
    server.start()
    try:
        fd = os.open(tmp_path / "vg/lv", os.O_RDONLY)
        assert os.lseek(fd, 0, os.SEEK_HOLE) == 4096
        assert os.lseek(fd, 4096, os.SEEK_DATA) == 1 << 16
        assert asked == [1 << 20] * 2
        assert os.lseek(fd, 1 << 17, os.SEEK_DATA) == 31 << 20
        assert os.lseek(fd, 31 << 20, os.SEEK_HOLE) == (31 << 20) + 4096
        with pytest.raises(OSError, match="No such device or address"):
            os.lseek(fd, (31 << 20) + 4096, os.SEEK_DATA)
        os.close(fd)
    finally:
        server.stop()


def test_what_is_open_when_the_tree_is_torn_away_is_closed(tmp_path: Path) -> None:
    """By umount -f, say: the kernel sends no release, and the volume would be in use for ever."""
    closed = threading.Event()

    class Watched(StaticSource):
        def open(self, name: str, *, write: bool) -> BlockDevice:
            device = super().open(name, write=write)
            device.close = closed.set  # type: ignore[method-assign]
            return device

    server = FuseServer(Watched({"vg/lv": MemoryDevice(1 << 20)}), tmp_path)
    server.start()
    try:
        fd = os.open(tmp_path / "vg/lv", os.O_RDONLY)
        assert not closed.is_set()
        unmount(tmp_path, force=True)
        assert closed.wait(30)
        with contextlib.suppress(OSError):  # nobody is connected
            os.close(fd)
        assert not server.mounted
    finally:
        server.stop()


def test_what_is_open_keeps_its_size_when_it_is_renamed(tmp_path: Path) -> None:
    """fstat, and a loop device that is told to look at its file again, ask by the old name."""
    source = StaticSource({"vg/old": MemoryDevice(1 << 20)})
    server = FuseServer(source, tmp_path)
    server.start()
    try:
        fd = os.open(tmp_path / "vg/old", os.O_RDONLY)
        source._devices["vg/new"] = source._devices.pop("vg/old")
        assert os.fstat(fd).st_size == 1 << 20
        assert os.listdir(tmp_path / "vg") == ["new"]
        assert not (tmp_path / "vg/old").exists()
        assert os.readlink(f"/proc/self/fd/{fd}").endswith("old (deleted)")
        assert os.fstat(fd).st_size == 1 << 20
        os.close(fd)
    finally:
        server.stop()


def test_a_name_that_is_given_to_another_volume_leaves_what_is_open_as_it_is(
    tmp_path: Path,
) -> None:
    """They were one inode to the kernel, with the size of either."""
    old, new = MemoryDevice(1 << 20), MemoryDevice(1 << 16)
    source = StaticSource({"vg/lv": old})
    server = FuseServer(source, tmp_path)
    server.start()
    try:
        fd = os.open(tmp_path / "vg/lv", os.O_RDWR)
        source._devices.update({"vg/kept": old, "vg/lv": new})
        for _ in range(2):
            assert (tmp_path / "vg/lv").stat().st_size == 1 << 16
            assert os.fstat(fd).st_size == 1 << 20
            assert (tmp_path / "vg/kept").stat().st_size == 1 << 20
        assert os.path.samestat(os.fstat(fd), (tmp_path / "vg/kept").stat())
        assert not os.path.samestat(os.fstat(fd), (tmp_path / "vg/lv").stat())
        inside = {entry.name: entry.inode() for entry in os.scandir(tmp_path / "vg")}
        assert inside["kept"] == os.fstat(fd).st_ino
        other = os.open(tmp_path / "vg/lv", os.O_RDWR)
        assert [os.fstat(number).st_size for number in (fd, other)] == [1 << 20, 1 << 16]
        assert os.pwrite(fd, b"a" * 512, (1 << 20) - 512) == 512
        assert os.pwrite(other, b"b" * 512, 0) == 512
        os.fsync(fd)
        assert os.lseek(fd, 0, os.SEEK_END) == 1 << 20
        assert bytes(old.read(0, 512)) == bytes(512)
        assert bytes(new.read(0, 512)) == b"b" * 512
        with pytest.raises(PermissionError):
            (tmp_path / "vg/lv").unlink()
        os.close(other)
        source._devices["vg/lv"] = source._devices.pop("vg/kept")
        assert (tmp_path / "vg/lv").stat().st_size == 1 << 20
        assert os.fstat(fd).st_size == 1 << 20
        os.close(fd)
    finally:
        server.stop()


def test_names_that_change_hands_under_those_who_open_them(tmp_path: Path) -> None:
    """What is open has the size that it had when it was opened, and what is read is its own."""
    devices = [MemoryDevice(4096 * (number + 1)) for number in range(3)]
    for number, device in enumerate(devices):
        device.write(0, bytes([number + 1]) * device.size)
    source = StaticSource({f"vg/{number}": device for number, device in enumerate(devices)})
    server = FuseServer(source, tmp_path)
    server.start()
    over = threading.Event()
    problems: list[str] = []

    def use() -> None:
        turn = 0
        while not over.is_set():
            turn += 1
            path = tmp_path / f"vg/{turn % 3}"
            try:
                fd = os.open(path, os.O_RDONLY)
            except OSError as error:
                if error.errno != errno.ESTALE:  # changed hands twice on the way
                    problems.append(str(error))
                continue
            which = os.pread(fd, 1, 0)[0]
            for _ in range(3):
                with contextlib.suppress(OSError):
                    path.stat()
                size, found = os.fstat(fd).st_size, os.pread(fd, 1 << 20, 0)
                if size != 4096 * which or found != bytes([which]) * size:
                    problems.append(f"{which}: {size}, {len(found)} of {set(found)}")
            os.close(fd)

    users = [threading.Thread(target=use) for _ in range(3)]
    try:
        for user in users:
            user.start()
        for turn in range(400):
            source._devices.update(
                {f"vg/{number}": devices[(number + turn) % 3] for number in range(3)}
            )
            time.sleep(0.001)
    finally:
        over.set()
        for user in users:
            user.join()
        server.stop()
    assert problems == []
    assert not server._handles
    assert not any((server._nodes._on, server._nodes._at, server._nodes._of))


class Slow(MemoryDevice):
    """Reads wait until `go`."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.go = threading.Event()
        self.asked = threading.Event()

    def readinto(self, offset: int, buffer: WritableBuffer) -> None:
        self.asked.set()
        self.go.wait()
        super().readinto(offset, buffer)


def reader(path: Path) -> subprocess.Popen[bytes]:
    argv = ["dd", f"if={path}", "of=/dev/null", "bs=4k", "count=1", "status=none"]
    return subprocess.Popen(argv)


def test_a_request_is_answered_when_there_are_no_more_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    slow, quick = Slow(1 << 20), MemoryDevice(1 << 20)
    server = FuseServer(StaticSource({"vg/slow": slow, "vg/quick": quick}), tmp_path)
    server.start()
    children = []

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    try:
        with monkeypatch.context() as shortage:
            shortage.setattr(threading.Thread, "start", refuse)
            children.append(reader(tmp_path / "vg/slow"))
            assert slow.asked.wait(20)
            # One thread is held there, and one is left: whatever it takes, none waits any more.
            children.append(reader(tmp_path / "vg/quick"))
            assert children[1].wait(20) == 0
            assert "can't start new thread" in caplog.text
        slow.go.set()
        assert children[0].wait(20) == 0
        assert reader(tmp_path / "vg/quick").wait(20) == 0
    finally:
        slow.go.set()
        server.stop()
        for child in children:
            child.wait()


@pytest.mark.parametrize("shortage", [RuntimeError, MemoryError])
def test_a_thread_that_was_not_to_be_had_is_had_a_little_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shortage: type[Exception]
) -> None:
    """All that there are wait for volumes, so that no request comes which would tell."""
    slow = {f"vg/slow{n}": Slow(1 << 20) for n in range(SERVING_THREADS)}
    server = FuseServer(StaticSource({**slow, "vg/quick": MemoryDevice(1 << 20)}), tmp_path)
    server.start()
    children = []

    def refuse(thread: threading.Thread) -> None:
        raise shortage

    try:
        with monkeypatch.context() as short:
            short.setattr(threading.Thread, "start", refuse)
            for name, device in slow.items():
                children.append(reader(tmp_path / name))
                if not device.asked.wait(1):
                    break
            time.sleep(0.5)
        children.append(reader(tmp_path / "vg/quick"))
        assert children[-1].wait(20) == 0
    finally:
        for device in slow.values():
            device.go.set()
        server.stop()
        for child in children:
            child.wait()


def test_a_server_that_gets_no_thread_leaves_no_mount(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    server = FuseServer(StaticSource({}), tmp_path)
    with monkeypatch.context() as shortage:
        shortage.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RefusedError, match="can't start new thread"):
            server.start()
    assert not tmp_path.is_mount()
    server.start()
    assert tmp_path.is_mount()
    server.stop()


def test_a_server_that_gets_no_descriptor_leaves_no_mount(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(value: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    server = FuseServer(StaticSource({}), tmp_path)
    with monkeypatch.context() as shortage:
        shortage.setattr(os, "eventfd", refuse)
        with pytest.raises(OSError, match="Too many open files"):
            server.start()
        assert not tmp_path.is_mount()
        server.stop()
    server.start()
    assert tmp_path.is_mount()
    server.stop()
