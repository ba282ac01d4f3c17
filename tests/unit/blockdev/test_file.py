"""Files and disks: claims, sparseness, failed flushes, what cannot be opened."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import pytest

from tests import needs
from ulvm.blockdev import aio
from ulvm.blockdev.file import FileDevice
from ulvm.errors import BusyError, DeviceError, NotFoundError
from ulvm.mounts.loop import attach

MIB = 1 << 20


@pytest.fixture
def path(tmp_path: Path) -> str:
    path = tmp_path / "image"
    with path.open("wb") as stream:
        stream.truncate(8 * MIB)
    return str(path)


# -- claims ------------------------------------------------------------------------------------


def test_who_opens_a_file_while_it_is_looked_at_ends_nobody(path: str) -> None:
    """A program opens it for writing in the moment of the lease, which tells the holder."""
    script = """
import fcntl, os, sys
from ulvm.blockdev.claim import check_users

real = fcntl.fcntl
broken = []

def crowded(fd, command, argument=0):
    answer = real(fd, command, argument)
    if command == fcntl.F_SETLEASE and argument == fcntl.F_RDLCK:
        try:
            os.open(sys.argv[1], os.O_RDWR | os.O_NONBLOCK)
        except BlockingIOError:
            broken.append(fd)
    return answer

fcntl.fcntl = crowded
check_users(sys.argv[1], writable=True)
assert broken
"""
    subprocess.run([sys.executable, "-c", script, path], check=True)


def test_one_owner_at_a_time(path: str) -> None:
    owner = FileDevice(path)
    with pytest.raises(BusyError, match="in use by another program"):
        FileDevice(path, writable=False)
    with pytest.raises(BusyError):
        FileDevice(path)
    owner.close()
    FileDevice(path).close()


def test_without_a_claim_it_opens_beside_its_owner(path: str) -> None:
    owner = FileDevice(path)
    guest = FileDevice(path, claim=False)
    guest.write(0, b"metadata")
    assert owner.read(0, 8) == b"metadata"
    guest.close()
    owner.close()


def test_readers_may_be_many_but_exclude_an_owner(path: str) -> None:
    first = FileDevice(path, writable=False)
    second = FileDevice(path, writable=False)
    with pytest.raises(BusyError):
        FileDevice(path)
    first.close()
    second.close()


@pytest.mark.parametrize("writable", [True, False])
def test_a_file_that_another_program_has_open_for_writing_is_busy(
    path: str, writable: bool
) -> None:
    with (
        open(path, "r+b"),
        pytest.raises(BusyError, match="held open for writing by another program"),
    ):
        FileDevice(path, writable=writable)
    FileDevice(path, writable=writable).close()


def test_a_reader_of_another_program_does_no_harm(path: str) -> None:
    with open(path, "rb"):
        FileDevice(path).close()


def test_a_claim_ends_with_the_process(path: str) -> None:
    code = (
        "import sys, time\n"
        "from ulvm.blockdev.file import FileDevice\n"
        "device = FileDevice(sys.argv[1])\n"
        "print('claimed', flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"claimed\n"
        try:
            with pytest.raises(BusyError):
                FileDevice(path)
        finally:
            child.kill()
    FileDevice(path).close()


@needs.root
@needs.loop
@pytest.mark.parametrize("read_only", [True, False])
def test_a_file_under_a_loop_device_is_busy(path: str, tmp_path: Path, read_only: bool) -> None:
    with attach(path, read_only=read_only, direct_io=False) as loop:
        with pytest.raises(BusyError, match=f"in use by the loop device {loop.path}"):
            FileDevice(path)
        other_name = tmp_path / "hard link"
        os.link(path, other_name)
        with pytest.raises(BusyError):
            FileDevice(str(other_name))


@needs.root
@needs.loop
def test_files_of_other_file_systems_are_left_alone(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One may be of the FUSE tree that this process serves: it would wait for itself."""
    look, seen = os.stat, []

    def stat(name: str | bytes, **words: Any) -> os.stat_result:
        seen.append(os.fsdecode(name) if isinstance(name, (str, bytes)) else "")
        return look(name, **words)

    with tempfile.TemporaryDirectory(dir="/dev/shm") as elsewhere:
        (tmp_path / "bound").mkdir()
        other = Path(elsewhere) / "a disk"
        other.write_bytes(bytes(1 << 16))
        bound = tmp_path / "bound" / other.name
        subprocess.run(["mount", "--bind", elsewhere, bound.parent], check=True)
        try:
            with attach(other, direct_io=False), monkeypatch.context() as looking:
                looking.setattr(os, "stat", stat)
                FileDevice(path).close()
                assert path in seen
                assert not [name for name in seen if name.endswith(other.name)]
                with pytest.raises(BusyError, match="loop device"):
                    FileDevice(str(bound))
        finally:
            subprocess.run(["umount", bound.parent], check=True)


@needs.root
@needs.loop
def test_a_disk_has_one_owner(path: str) -> None:
    with attach(path, direct_io=False) as loop:
        owner = FileDevice(loop.path)
        with pytest.raises(BusyError):
            FileDevice(loop.path)
        FileDevice(loop.path, claim=False).close()
        owner.close()
        FileDevice(loop.path).close()


@needs.program("qemu-io")
def test_qemu_respects_the_claim(path: str) -> None:
    command = ["qemu-io", "-f", "raw", "-c", "write 0 4k", path]
    owner = FileDevice(path)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "lock" in done.stderr
    owner.close()
    subprocess.run(command, check=True, capture_output=True)


# -- what cannot be opened ----------------------------------------------------------------------


def test_a_path_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError) as caught:
        FileDevice(str(tmp_path / "none"))
    assert caught.value.errno == errno.ENOENT


@pytest.mark.parametrize("kind", ["directory", "fifo", "/dev/null"])
def test_what_is_no_disk(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "thing"
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path = Path(kind)
    with pytest.raises(DeviceError, match="neither a file nor a block device"):
        FileDevice(str(path))


def test_a_refused_open_leaks_no_descriptor(path: str) -> None:
    owner = FileDevice(path)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with pytest.raises(BusyError):
            FileDevice(path)
    assert len(os.listdir("/proc/self/fd")) == before
    owner.close()


def test_a_device_opened_for_reading_refuses_writes(path: str) -> None:
    device = FileDevice(path, writable=False)
    assert device.read_only
    assert not device.can_discard
    for request in (
        lambda: device.write(0, b"x"),
        lambda: device.write(0, b"x", fua=True),
        lambda: device.write_zeroes(0, 512),
        lambda: device.discard(0, 512),
    ):
        with pytest.raises(DeviceError) as caught:
            request()
        assert caught.value.errno == errno.EROFS
    device.close()


@needs.root
@needs.loop
def test_a_read_only_disk_is_not_opened_for_writing(path: str) -> None:
    """The kernel would open it, and refuse each write."""
    with attach(Path(path), read_only=True, direct_io=False) as loop:
        with pytest.raises(DeviceError, match="read-only") as caught:
            FileDevice(loop.path)
        assert caught.value.errno == errno.EROFS
        FileDevice(loop.path, writable=False).close()


def test_one_file_under_two_names_has_one_identity(path: str, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(path)
    first, second = FileDevice(path, claim=False), FileDevice(str(link), claim=False)
    assert first.identity == second.identity
    first.close()
    second.close()


# -- space and size -----------------------------------------------------------------------------


def allocated(path: str) -> int:
    return os.stat(path).st_blocks * 512


def test_discard_and_zeroes_give_space_back_and_no_hole_keeps_it(path: str) -> None:
    device = FileDevice(path)
    assert allocated(path) == 0
    device.write(0, b"x" * (4 * MIB))
    device.flush()
    full = allocated(path)
    assert full >= 4 * MIB
    device.write_zeroes(0, MIB, no_hole=True)
    assert allocated(path) >= 4 * MIB
    device.write_zeroes(0, MIB)
    assert allocated(path) <= full - MIB
    device.discard(MIB, MIB)
    assert allocated(path) <= full - 2 * MIB
    assert device.read(0, 2 * MIB) == bytes(2 * MIB)
    assert os.path.getsize(path) == 8 * MIB
    device.close()


def test_extents_show_the_holes_of_the_file(path: str) -> None:
    device = FileDevice(path)
    device.write(MIB, b"x" * MIB)
    found = [(e.offset, e.length, e.hole, e.zero) for e in device.extents(0, 4 * MIB)]
    assert found == [
        (0, MIB, True, True),
        (MIB, MIB, False, False),
        (2 * MIB, 2 * MIB, True, True),
    ]
    device.close()


def test_a_file_that_grows(path: str) -> None:
    device = FileDevice(path)
    with pytest.raises(DeviceError):
        device.write(8 * MIB, b"x")
    os.truncate(path, 9 * MIB)
    device.write(8 * MIB, b"x")
    assert device.size == 9 * MIB
    assert device.read(8 * MIB, 2) == b"x\0"
    device.close()


def pages(count: int) -> list[tuple[int, memoryview]]:
    return [(n * 4096, memoryview(bytearray(os.urandom(4096)))) for n in range(count)]


def test_many_pieces_are_one_system_call(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin of each call is the loop; if io_submit(2) is not there it is what is left."""
    device = FileDevice(path)
    pieces = pages(100)
    for name in ("pread", "preadv", "pwrite", "pwritev"):
        monkeypatch.setattr(os, name, None)
    device.write_each(pieces)
    again = pages(100)
    device.readinto_each(again)
    assert again == pieces
    monkeypatch.undo()
    device.close()


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EAGAIN])
def test_without_that_call_each_is_made_by_itself(
    path: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(aio, "_idle", [])
    monkeypatch.setattr(aio, "_made", 0)
    monkeypatch.setattr(aio, "_refused", False)
    monkeypatch.setattr(aio._Context, "_call", refuse)
    device = FileDevice(path)
    pieces = pages(100)
    device.write_each(pieces)
    again = pages(100)
    device.readinto_each(again)
    assert again == pieces
    assert aio._refused == (code == errno.ENOSYS)
    device.close()


def test_a_context_of_which_nothing_is_known_is_not_used_again(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it would still tell is of the requests before."""
    device = FileDevice(path)
    device.write_each(pages(100))
    before = aio._made
    failed: list[int] = []
    real = aio._Context._call

    def call(self: aio._Context, number: int, *arguments: int) -> int:
        if number == self._getevents and not failed:
            failed.append(number)
            raise OSError(errno.EFAULT, "no events")
        return real(self, number, *arguments)

    monkeypatch.setattr(aio._Context, "_call", call)
    pieces = pages(100)
    device.write_each(pieces)
    assert failed
    assert aio._made == before - 1
    again = pages(100)
    device.readinto_each(again)
    assert again == pieces
    device.close()


def test_more_threads_at_once_than_it_is_made_for(path: str) -> None:
    device = FileDevice(path)
    device.write_each(pages(2048))
    wanted = device.read(0, 8 * MIB)

    def work(number: int) -> bool:
        found = pages(2048)
        for _ in range(5):
            device.readinto_each(found)
        return b"".join(bytes(piece) for _, piece in found) == wanted

    with ThreadPoolExecutor(12) as pool:
        assert all(pool.map(work, range(12)))
    assert len(aio._idle) == aio._made <= 4
    device.close()


def test_an_error_of_one_piece_is_the_error_of_all(small_file_system: Path) -> None:
    path = small_file_system / "image"
    with path.open("wb") as stream:
        stream.truncate(64 * MIB)
    device = FileDevice(str(path))
    piece = memoryview(os.urandom(MIB))
    with pytest.raises(DeviceError) as caught:
        device.write_each([(n * MIB, piece) for n in range(64)])
    assert caught.value.errno == errno.ENOSPC
    device.close()


def test_a_file_that_became_shorter_under_many_pieces(path: str) -> None:
    device = FileDevice(path)
    os.truncate(path, MIB)
    with pytest.raises(DeviceError, match="became shorter"):
        device.readinto_each(pages(2048))
    device.close()


def test_past_the_cache_goes_past_it(path: str) -> None:
    device = FileDevice(path)
    data = mmap.mmap(-1, 4 * MIB)
    data[:] = os.urandom(4 * MIB)
    device.write_uncached(MIB, memoryview(data))
    # The file system took O_DIRECT: nothing of it is in memory.
    assert resident(path, MIB, 4 * MIB) == 0
    assert device.read(MIB, 4 * MIB) == data[:]
    before = len(os.listdir("/proc/self/fd"))
    device.close()
    assert len(os.listdir("/proc/self/fd")) == before - 2


def resident(path: str, offset: int, length: int) -> int:
    """How many pages of a range are in the page cache: mincore(2)."""
    vector = (ctypes.c_ubyte * (length // mmap.PAGESIZE))()
    with open(path, "r+b") as stream, mmap.mmap(stream.fileno(), 0) as memory:
        view = ctypes.c_char.from_buffer(memory, offset)
        address = ctypes.c_void_p(ctypes.addressof(view))
        assert ctypes.CDLL(None).mincore(address, ctypes.c_size_t(length), vector) == 0
        del view
    return sum(page & 1 for page in vector)


def test_where_it_cannot_go_past_the_cache_it_is_a_plain_write(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = FileDevice(path)
    plain = os.open

    def refuse(name: str, flags: int) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "no direct I/O")
        return plain(name, flags)

    monkeypatch.setattr(os, "open", refuse)
    data = mmap.mmap(-1, MIB)
    data[:] = os.urandom(MIB)
    device.write_uncached(0, memoryview(data))
    assert device.read(0, MIB) == data[:]
    device.close()


def test_a_file_that_became_shorter_gives_an_error_not_stale_bytes(path: str) -> None:
    device = FileDevice(path)
    os.truncate(path, MIB)
    with pytest.raises(DeviceError, match="became shorter"):
        device.read(MIB - 10, 20)
    with pytest.raises(DeviceError):
        list(device.extents(0, 8 * MIB))
    device.close()


# -- a file system that is full -----------------------------------------------------------------


@pytest.fixture
def small_file_system(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 1 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1M,mode=0700", "tmpfs", str(folder)]
    subprocess.run(mount, check=True)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@needs.root
def test_no_space_left_on_the_host(small_file_system: Path) -> None:
    path = small_file_system / "image"
    with path.open("wb") as stream:
        stream.truncate(8 * MIB)
    device = FileDevice(str(path))
    device.write(0, b"a" * (MIB // 2))
    with pytest.raises(DeviceError) as caught:
        device.write(4 * MIB, b"b" * MIB)
    assert caught.value.errno == errno.ENOSPC
    assert device.read(0, MIB // 2) == b"a" * (MIB // 2)
    device.flush()
    device.discard(4 * MIB, MIB)
    device.write(5 * MIB, b"c" * 4096)
    device.close()


@needs.root
def test_zeroes_are_written_where_the_file_system_cannot_zero_a_range(
    small_file_system: Path,
) -> None:
    path = small_file_system / "image"
    path.write_bytes(b"x" * 65536)
    device = FileDevice(str(path))
    device.write_zeroes(1000, 30000, no_hole=True)
    assert device.read(0, 65536) == b"x" * 1000 + bytes(30000) + b"x" * 34536
    assert allocated(str(path)) == 65536
    device.close()


@needs.root
@needs.loop
def test_after_a_failed_flush_every_flush_fails(small_file_system: Path) -> None:
    """The kernel says so once and then forgets; what was lost is lost all the same."""
    path = small_file_system / "image"
    with path.open("wb") as stream:
        stream.truncate(8 * MIB)
    with attach(path, direct_io=False) as loop:
        device = FileDevice(loop.path)
        device.write(0, b"x" * (4 * MIB))
        with pytest.raises(DeviceError):
            device.flush()
        os.fdatasync(device._fd)  # the kernel has forgotten
        with pytest.raises(DeviceError, match="an earlier flush failed"):
            device.flush()
        with pytest.raises(DeviceError, match="an earlier flush failed"):
            device.write(0, b"x", fua=True)
        device.close()


@pytest.fixture
def full_below(tmp_path: Path) -> Iterator[Path]:
    """A file of 8 MiB, all of it allocated, in a file system on a thin disk: that finds no room for
    it any more when the data are written back."""
    with ExitStack() as stack:

        def mounted(disk: Path, name: str, *, direct_io: bool) -> Path:
            loop = stack.enter_context(attach(disk, direct_io=direct_io))
            make = ["mkfs.ext4", "-q", "-O", "^has_journal", "-E", "nodiscard", loop.path]
            subprocess.run(make, check=True)
            folder = tmp_path / name
            folder.mkdir()
            subprocess.run(["mount", "-o", "errors=continue", loop.path, folder], check=True)
            stack.callback(subprocess.run, ["umount", str(folder)], check=True)
            return folder

        disk = tmp_path / "disk"
        with disk.open("wb") as stream:
            stream.truncate(48 * MIB)
        lower = mounted(disk, "lower", direct_io=False)
        thin = lower / "thin"
        with thin.open("wb") as stream:
            stream.truncate(64 * MIB)
        image = mounted(thin, "upper", direct_io=True) / "image"
        image.write_bytes(bytes(8 * MIB))
        subprocess.run(["sync", "-f", image], check=True)
        subprocess.run(["fallocate", "--dig-holes", thin], check=True)
        with suppress(OSError), (lower / "rest").open("wb", buffering=0) as stream:
            while True:
                stream.write(b"x" * 4096)
        subprocess.run(["sync", "-f", lower], check=True)
        yield image


@needs.root
@needs.loop
@needs.program("mkfs.ext4")
def test_a_loss_that_a_durable_write_is_told_of_fails_every_flush(full_below: Path) -> None:
    """Whatever the error's number: the kernel says ENOSPC as well, and it is not of this write."""
    with closing(FileDevice(str(full_below))) as device:
        device.write(0, b"x" * (4 * MIB))
        fd = os.open(full_below, os.O_RDONLY)
        with pytest.raises(OSError, match="No space left"):
            os.fdatasync(fd)
        os.close(fd)
        with pytest.raises(DeviceError) as caught:
            device.write(6 * MIB, b"y" * 4096, fua=True)
        assert caught.value.errno == errno.ENOSPC
        with pytest.raises(DeviceError, match="an earlier flush failed"):
            device.flush()


@needs.root
def test_a_durable_write_without_room_costs_no_flush(small_file_system: Path) -> None:
    path = small_file_system / "image"
    with path.open("wb") as stream:
        stream.truncate(8 * MIB)
    device = FileDevice(str(path))
    with pytest.raises(DeviceError) as caught:
        device.write(0, b"x" * (2 * MIB), fua=True)
    assert caught.value.errno == errno.ENOSPC
    device.flush()
    device.close()


@needs.root
@needs.loop
def test_of_flushes_at_once_none_hides_the_loss(small_file_system: Path) -> None:
    """All wait for the same data, and the kernel tells one of them."""
    path = small_file_system / "image"
    with path.open("wb") as stream:
        stream.truncate(8 * MIB)
    with attach(path, direct_io=False) as loop:
        device = FileDevice(loop.path)
        device.write(0, b"x" * (4 * MIB))
        together = threading.Barrier(8)

        def flush(fua: bool) -> None:
            together.wait()
            if fua:
                device.write(0, b"y" * 4096, fua=True)
            else:
                device.flush()

        try:
            with ThreadPoolExecutor(8) as threads:
                done = [threads.submit(flush, n % 2 == 1) for n in range(8)]
                assert all(isinstance(one.exception(60), DeviceError) for one in done)
        finally:
            device.close()


class WrittenMeanwhile(FileDevice):
    """Whoever looks whether there is something to sync has another thread write behind it."""

    armed = False

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        if name == "_unsynced" and self.armed:
            self.armed = False
            self.write(0, b"x")
        return value


def test_reads_do_not_hide_a_write_from_the_next_flush(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = WrittenMeanwhile(path)
    device.flush()
    device.armed = True
    device.readinto_each(pages(100))
    if device.armed:
        device.write(0, b"x")
        device.armed = False
    synced = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    device.flush()
    assert len(synced) == 1
    device.close()
