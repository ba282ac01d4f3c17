"""Exception stores that no kernel would write, one by one, over a huge sparse origin.

What the kernel does with them is done here, too: a header is checked, records are not. A record
that leads nowhere fails what needs it, and never the origin.
"""

from __future__ import annotations

import errno
import os
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests import effort
from tests.e2e.host import UlvmHost
from tests.fuzz.test_hostile import in_time
from ulvm.dm.mapper import LocalMapper
from ulvm.dm.table import parse_table
from ulvm.dm_ioctl import DeviceInfo
from ulvm.errors import DeviceError, UlvmError
from ulvm.units import SECTOR

pytestmark = pytest.mark.timeout(effort.amount(300, 0))

CHUNK = 8 * SECTOR
EPA = CHUNK // 16
"""Exceptions per area: area k is chunk 1 + k * (EPA + 1)."""
COW_CHUNKS = 1024
ORIGIN = 1 << 40
"""Bytes, all holes at first."""
CHUNKS = ORIGIN // CHUNK
MEMORY = 64 << 20


def header(chunk_size: int = 8, *, magic: int = 0x70416E53, version: int = 1) -> bytes:
    return struct.pack("<IIII", magic, 1, version, chunk_size).ljust(CHUNK, b"\0")


def area(*records: tuple[int, int]) -> bytes:
    return b"".join(struct.pack("<QQ", old, new) for old, new in records).ljust(CHUNK, b"\0")


class Box:
    """An origin and a COW store as files, and a mapper over them."""

    def __init__(self, folder: Path, store: bytes) -> None:
        self.origin, self.cow = folder / "origin", folder / "cow"
        self.origin.touch()
        os.truncate(self.origin, ORIGIN)
        chunks = b"".join(bytes([n % 251 + 1]) * CHUNK for n in range(2, 16))
        self.cow.write_bytes(
            store[: 2 * CHUNK].ljust(2 * CHUNK, b"\0") + chunks + store[2 * CHUNK :]
        )
        os.truncate(self.cow, COW_CHUNKS * CHUNK)
        self.mapper = LocalMapper()

    def make(self, name: str, line: str) -> DeviceInfo:
        self.mapper.create(name)
        self.mapper.load(name, parse_table(line))
        return self.mapper.resume(name)

    def up(self, *, kind: str = "P") -> None:
        sectors = ORIGIN // SECTOR
        self.make("s", f"0 {sectors} snapshot {self.origin} {self.cow} {kind} 8")
        self.make("o", f"0 {sectors} snapshot-origin {self.origin}")

    def read(self, name: str, chunk: int) -> bytes:
        return bytes(self.mapper.mapped(name).read(chunk * CHUNK, CHUNK))

    def write(self, name: str, chunk: int, byte: bytes) -> None:
        self.mapper.mapped(name).write(chunk * CHUNK, byte * CHUNK)

    def status(self) -> str:
        (line,) = self.mapper.status("s")
        return line.params

    def origin_holds(self) -> None:
        """Whatever becomes of the snapshot, what is written to the origin is there."""
        for chunk in (0, 3, 77, CHUNKS - 1):
            self.write("o", chunk, b"o")
            assert self.read("o", chunk) == b"o" * CHUNK


@pytest.fixture(autouse=True)
def little_memory() -> Iterator[None]:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    before = resident()
    with in_time(60):
        yield
    assert resident() - before < MEMORY
    effort.tally("hostile exception stores")


@pytest.mark.parametrize(
    ("head", "number"),
    [
        (header(0), errno.EINVAL),
        (header(3), errno.EINVAL),
        (header(24), errno.EINVAL),
        (header(1 << 22), errno.EINVAL),
        (header(1 << 31), errno.EINVAL),
        (header((1 << 32) - 1), errno.EINVAL),
        (header(1 << 21), errno.EIO),  # the kernel's greatest, and no room for an area
        (header(1 << 13), errno.EIO),
        (header(version=2), errno.EINVAL),
        (header(magic=0x70416E52), errno.ENXIO),
        (header(magic=1), errno.ENXIO),
    ],
)
def test_headers(tmp_path: Path, head: bytes, number: int) -> None:
    """Refused with the kernel's errno, and not written to."""
    box = Box(tmp_path, head)
    before = box.cow.read_bytes()
    for kind in ("P", "PO"):
        box.mapper.create("s")
        with pytest.raises(UlvmError) as raised:
            box.mapper.load("s", parse_table(f"0 2048 snapshot {box.origin} {box.cow} {kind} 8"))
        assert raised.value.errno == number
        box.mapper.remove("s")
    box.mapper.shutdown()
    assert box.cow.read_bytes() == before


def test_the_smallest_chunks_over_the_largest_origin(tmp_path: Path) -> None:
    """2^31 chunks: what is not touched costs nothing."""
    box = Box(tmp_path, header(1))
    box.up()
    box.write("o", CHUNKS - 1, b"o")
    assert box.read("s", CHUNKS - 1) == bytes(CHUNK)
    box.origin_holds()
    box.mapper.shutdown()


@pytest.mark.parametrize("records", [((3, 2), (3, 5)), ((3, 2),) * EPA])
def test_one_chunk_twice(tmp_path: Path, records: tuple[tuple[int, int], ...]) -> None:
    """The first record counts for who reads, as in the kernel, and for a merge."""
    box = Box(tmp_path, header() + area(*records))
    box.up()
    assert box.read("s", 3) == bytes([3]) * CHUNK
    assert box.read("s", 4) == bytes(CHUNK)
    box.origin_holds()
    assert "Invalid" not in box.status()
    merge_ends(box)
    assert box.read("m", 3) == bytes([3]) * CHUNK
    box.mapper.shutdown()


@pytest.mark.parametrize("new", [1, EPA + 2], ids=["area 0", "area 1"])
def test_data_in_the_metadata(tmp_path: Path, new: int) -> None:
    """As in the kernel the record is followed, whatever lies there."""
    box = Box(tmp_path, header() + area((3, new), (9, 4)))
    box.up()
    assert len(box.read("s", 3)) == CHUNK
    assert box.read("s", 9) == bytes([5]) * CHUNK
    box.origin_holds()
    box.write("s", 3, b"\xff")
    box.origin_holds()
    box.status()
    box.mapper.shutdown()
    # The damage that it did itself is met at the next start.
    box.mapper = LocalMapper()
    with suppress(UlvmError):
        box.up()
        box.origin_holds()
    box.mapper.shutdown()


@pytest.mark.parametrize("new", [COW_CHUNKS, 1 << 20, (1 << 32) - 1, 1 << 32, (1 << 56) + 2])
@pytest.mark.parametrize("kind", ["P", "PO"])
def test_data_beyond_the_store(tmp_path: Path, new: int, kind: str) -> None:
    """Loaded as in the kernel; what needs the chunk fails, and there is no room for another."""
    box = Box(tmp_path, header() + area((3, new), (9, 4)))
    store = box.cow.read_bytes()
    box.up(kind=kind)
    assert box.read("s", 9) == bytes([5]) * CHUNK
    for request in (
        lambda: box.read("s", 3),
        lambda: box.mapper.mapped("s").read(2 * CHUNK, 3 * CHUNK),
        lambda: box.mapper.mapped("s").readinto_each([(3 * CHUNK, memoryview(bytearray(CHUNK)))]),
        lambda: box.write("s", 3, b"s"),
        lambda: box.mapper.mapped("s").write_each([(3 * CHUNK, memoryview(bytes(CHUNK)))]),
    ):
        with pytest.raises(DeviceError) as caught:
            request()
        assert caught.value.errno == errno.EIO
    box.origin_holds()
    assert box.status() == "Invalid", "a first write to the origin found no room for its copy"
    box.mapper.shutdown()
    box.cow.write_bytes(store)
    box.mapper = LocalMapper()
    box.make("m", f"0 {ORIGIN // SECTOR} snapshot-merge {box.origin} {box.cow} {kind} 8")
    with pytest.raises(DeviceError) as caught:
        box.read("m", 3)
    assert caught.value.errno == errno.EIO
    box.mapper.shutdown()


def test_numbers_that_no_disk_has(tmp_path: Path) -> None:
    box = Box(tmp_path, header() + area((3, (1 << 64) - 1), ((1 << 64) - 1, 5), (9, 4)))
    box.up()
    assert box.read("s", 9) == bytes([5]) * CHUNK
    with pytest.raises(DeviceError):
        box.read("s", 3)
    box.origin_holds()
    box.mapper.shutdown()


@pytest.mark.parametrize("old", [CHUNKS, CHUNKS + 1, 1 << 55, (1 << 64) - 1])
def test_copies_of_chunks_beyond_the_origin(tmp_path: Path, old: int) -> None:
    """They are counted and never asked for. A merge fails at them and keeps the store, as in the
    kernel: such a number was another one before it was damaged."""
    box = Box(tmp_path, header() + area((3, 2), (old, 3), (9, 4)))
    box.up()
    assert box.status().startswith("40/8192 16")
    assert box.read("s", 3) == bytes([3]) * CHUNK
    assert box.read("s", CHUNKS - 1) == bytes(CHUNK)
    box.origin_holds()
    merge_ends(box)
    if old > CHUNKS:  # As the kernel: at the very end there is nothing to be copied.
        assert box.mapper.status("m")[0].params == "Merge failed"
        assert box.read("m", 3) == bytes([3]) * CHUNK
        assert struct.unpack_from("<QQ", box.cow.read_bytes(), CHUNK + 16) == (old, 3)
    box.mapper.shutdown()


def test_areas_without_end(tmp_path: Path) -> None:
    """Every area is full, to the end of the device: there is none to end the list."""
    records = iter(range(1, 1 << 40))
    box = Box(tmp_path, header())
    with box.cow.open("r+b") as file:
        for k in range(-(-COW_CHUNKS // (EPA + 1))):
            file.seek((1 + k * (EPA + 1)) * CHUNK)
            file.write(area(*((next(records), 5) for _ in range(EPA))))
    os.truncate(box.cow, COW_CHUNKS * CHUNK)
    box.mapper.create("s")
    with pytest.raises(UlvmError) as raised:
        box.mapper.load("s", parse_table(f"0 2048 snapshot {box.origin} {box.cow} P 8"))
    assert raised.value.errno == errno.EIO
    box.mapper.shutdown()


def merge_ends(box: Box) -> None:
    """A merge of the store comes to its end, or says that it failed."""
    sectors = ORIGIN // SECTOR
    for name in ("o", "s"):
        box.mapper.remove(name)
    box.make("m", f"0 {sectors} snapshot-merge {box.origin} {box.cow} P 8")
    end = time.monotonic() + 30
    while time.monotonic() < end:
        (line,) = box.mapper.status("m")
        words = line.params.replace("/", " ").split()
        if not words[0].isdecimal():
            assert words[0] in ("Merge", "Invalid"), line.params
            return
        if words[0] == words[2]:
            return
        time.sleep(0.01)
    raise AssertionError(f"the merge goes on and on: {line.params}")


# -- the commands ---------------------------------------------------------------------------------


def test_the_commands_over_such_stores(short_tmp: Path) -> None:
    """Activation of such a snapshot is refused with a sentence; the origin goes on without it."""
    host = UlvmHost(short_tmp)
    disk = host.image("disk", "32M")
    try:
        host.run("vgcreate vg disk")
        host.run("lvcreate -y -an -n base -L 4M vg")
        host.run("lvcreate -y -s -c 4k -n snap -L 4M vg/base")
        host.run("vgchange -ay vg")
        host.run("vgchange -an vg")
        at = (1 << 20) + (4 << 20)
        assert disk.read_bytes()[at : at + 4] == b"SnAp"
        for head in (header(0), header(3), header(1 << 31), header(magic=7)):
            with disk.open("r+b") as file:
                file.seek(at)
                file.write(head)
            done = host.run("lvchange -ay vg/base", rc=5)
            assert "Traceback" not in done.stderr, done
            assert "snap" in done.stderr, done
            host.run("lvs -a -o +all vg")
        assert "Traceback" not in host.log()
        host.run("lvremove -f vg/snap")
        host.run("lvchange -ay vg/base")
        assert host.run("lvs --noheadings -o lv_active vg").stdout.split() == ["active"]
    finally:
        host.close()
