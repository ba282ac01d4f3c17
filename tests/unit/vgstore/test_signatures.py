"""What other programs know a device by, found as wipefs(8) finds it and wiped as LVM2 does it."""

from __future__ import annotations

import json
import os
import resource
import struct
import subprocess
import uuid
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import needs
from ulvm.blockdev.faults import FaultDevice
from ulvm.blockdev.file import FileDevice
from ulvm.blockdev.memory import MemoryDevice
from ulvm.errors import DeviceError
from ulvm.vgstore import blkid
from ulvm.vgstore.signatures import LVM_MEMBER, Signature, probe_signatures, wipe_signatures

MIB = 1 << 20
SIZE = 512 * MIB
needs_library = needs.program("wipefs")


def made_by(*words: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        subprocess.run([*words, str(path)], check=True, capture_output=True)

    return make


def holding(*parts: tuple[int, bytes]) -> Callable[[Path], None]:
    """Bytes in their places; negative ones are from the end."""

    def make(path: Path) -> None:
        with path.open("r+b") as file:
            for offset, data in parts:
                file.seek(offset, os.SEEK_END if offset < 0 else os.SEEK_SET)
                file.write(data)

    return make


def gpt(path: Path) -> None:
    """A table with one partition, at both ends, behind a protective MBR (UEFI, chapter 5)."""
    last = SIZE // 512 - 1
    kind, own, disk = (uuid.UUID(int=n + 1).bytes_le for n in range(3))
    entries = (kind + own + struct.pack("<QQQ", 2048, 4096, 0)).ljust(128 * 128, b"\0")

    def header(here: int, there: int, table: int) -> bytes:
        def packed(crc: int) -> bytes:
            return struct.pack(
                "<8s4L4Q16sQ3L", b"EFI PART", 0x10000, 92, crc, 0, here, there, 34, last - 33, disk,
                table, 128, 128, zlib.crc32(entries),
            )  # fmt: skip

        return packed(zlib.crc32(packed(0)))

    protective = struct.pack("<B3sB3sLL", 0, b"\0\2\0", 0xEE, b"\xff\xff\xff", 1, last)
    holding(
        (446, protective.ljust(64, b"\0") + b"\x55\xaa"),
        (512, header(1, last, 2)),
        (1024, entries),
        (-33 * 512, entries),
        (-512, header(last, 1, last - 32)),
    )(path)


DOS = holding((446, struct.pack("<B3sB3sLL", 0, b"\1\1\0", 0x83, b"\x0f\x3f\x0f", 63, 9999)),
              (510, b"\x55\xaa"))  # fmt: skip
LUKS2 = tuple(
    (at, struct.pack(">6sHQQ", magic, 2, 16384, 1).ljust(168, b"\0") + b"1234-abcd")
    for at, magic in ((0, b"LUKS\xba\xbe"), (16384, b"SKUL\xba\xbe"))
)
MD = holding((4096, struct.pack("<4L16s112xQ", 0xA92B4EFC, 1, 0, 0, b"u" * 16, 8)))
ZFS = holding(*((256 * 1024 * n + 128 * 1024 + 1024 * i, struct.pack("<QQ", 0xBAB10C, 5000))
                for n in (0, 1) for i in range(16)))  # fmt: skip
DRBD = holding((-4096, struct.pack(">8sQ28x", b"\0" * 8, 1)), (-4096 + 60, b"\x83\x74\x02\x6b"))
MAKERS: dict[str, Callable[[Path], None]] = {
    "ext4": made_by("mkfs.ext4", "-q", "-F"),
    "ext2": made_by("mkfs.ext2", "-q", "-F"),
    "xfs": made_by("mkfs.xfs", "-q"),
    "swap": made_by("mkswap", "-q"),
    "gpt": gpt,
    "dos": DOS,
    "dos and swap": lambda path: (made_by("mkswap", "-q")(path), DOS(path))[1],
    "btrfs over ext2": lambda path: (
        made_by("mkfs.ext2", "-q", "-F")(path),
        holding((65600, b"_BHRfS_M"))(path),
    )[1],
    "LUKS2": holding(*LUKS2),
    "md": MD,
    "zfs": ZFS,
    "drbd": DRBD,
    "squashfs": holding((0, struct.pack("<L24xHH", 0x73717368, 4, 0))),
    "iso9660": holding((32768, b"\1CD001\1"), (34816, b"\xffCD001\1")),
    "nothing": holding((300 * MIB, b"LUKS\xba\xbe")),
}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image"
    with path.open("xb") as file:
        file.truncate(SIZE)
    return path


def wipefs(path: Path) -> list[tuple[str, int]]:
    """(type, offset) of all that wipefs sees."""
    done = subprocess.run(["wipefs", "--json", path], stdout=subprocess.PIPE, check=True)
    found = json.loads(done.stdout)["signatures"] if done.stdout else []
    return sorted((each["type"], int(each["offset"], 16)) for each in found)


def head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MIB)


def wipe(path: Path, *, yes: bool = True, library: bool = True) -> tuple[list[Signature], int]:
    asked: list[Signature] = []

    def decide(found: Signature) -> bool:
        asked.append(found)
        return yes

    device = FileDevice(str(path))
    try:
        return asked, wipe_signatures(device, decide, library=library)
    finally:
        device.close()


@needs_library
@needs.program("mkfs.ext4")
@needs.program("mkfs.xfs")
@pytest.mark.parametrize("name", MAKERS)
def test_all_is_found_that_wipefs_finds_and_nothing_is_left(image: Path, name: str) -> None:
    MAKERS[name](image)
    expected = wipefs(image)
    assert bool(expected) == (name != "nothing")
    asked, left = wipe(image)
    assert sorted((s.name, s.offset) for s in asked) == expected
    assert left == 0
    assert wipefs(image) == []


@needs_library
@needs.program("mkswap")
def test_what_is_kept_is_asked_about_once_and_counted(image: Path) -> None:
    MAKERS["dos and swap"](image)
    before = head(image)
    asked, left = wipe(image, yes=False)
    assert ([s.name for s in asked], left) == (["swap", "dos"], 2)
    assert head(image) == before


@needs_library
def test_types_that_are_passed_over_are_neither_asked_about_nor_counted() -> None:
    device = MemoryDevice(4 * MIB)
    device.write(0, b"LUKS\xba\xbe\0\1".ljust(168, b"\0") + b"1234-abcd")
    names = []
    left = wipe_signatures(
        device,
        lambda found: bool(names.append(found.name)),
        passed_over=frozenset({"crypto_LUKS"}),
    )
    assert (names, left) == ([], 0)
    assert "LVM2_member" in LVM_MEMBER


@needs_library
def test_a_table_of_large_sectors_is_found_where_the_device_has_them() -> None:
    device = MemoryDevice(64 * MIB)
    device.block_size = 4096
    head = bytearray(b"\0" * 446 + struct.pack("<B3sB3sLL", 0, b"", 0xEE, b"", 1, 16383))
    device.write(0, bytes(head).ljust(510, b"\0") + b"\x55\xaa")
    entries = bytes(128 * 128)
    fields = [0x10000, 92, 0, 0, 1, 16383, 6, 16378, b"d" * 16, 2, 128, 128, zlib.crc32(entries)]
    plain = struct.pack("<8s4L4Q16sQ3L", b"EFI PART", *fields)
    fields[2] = zlib.crc32(plain)
    device.write(4096, struct.pack("<8s4L4Q16sQ3L", b"EFI PART", *fields))
    found: list[tuple[str, int]] = []
    wipe_signatures(device, lambda s: (found.append((s.name, s.offset)), True)[1])
    assert ("gpt", 4096) in found


@needs_library
def test_a_device_that_cannot_be_read_is_an_error() -> None:
    device = FaultDevice(MemoryDevice(8 * MIB))
    device.write(0, b"data")
    device.fail("read")
    with pytest.raises(DeviceError):
        wipe_signatures(device, lambda found: True)


@needs_library
def test_a_limit_of_file_sizes_is_an_error_too() -> None:
    """It holds for what the library is given, which is as long as the device."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    device = MemoryDevice(8 * MIB)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, hard))
    try:
        with pytest.raises(DeviceError, match="for libblkid cannot be made: File too large"):
            wipe_signatures(device, lambda found: True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_without_the_library_the_common_ones_are_found(
    image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpt(image)
    monkeypatch.setattr(blkid, "available", lambda: False)
    asked, left = wipe(image, yes=False)
    assert ([(s.name, s.offset) for s in asked], left) == ([("gpt", 512)], 1)
    asked, left = wipe(image)
    assert [s.name for s in asked] == ["gpt", "gpt", "PMBR"]
    assert (wipe(image), left) == (([], 0), 0)


@pytest.mark.parametrize(
    ("offset", "magic", "name"),
    [
        (0, b"LUKS\xba\xbe", "crypto_LUKS"),
        (16384, b"SKUL\xba\xbe", "crypto_LUKS"),
        (510, b"\x55\xaa", "dos"),
        (512, b"EFI PART", "gpt"),
        (4 * MIB - 512, b"EFI PART", "gpt"),
        (65600, b"_BHRfS_M", "btrfs"),
        (32769, b"CD001", "iso9660"),
    ],
)
def test_a_magic_number_in_its_place(offset: int, magic: bytes, name: str) -> None:
    device = MemoryDevice(4 * MIB)
    device.write(offset, magic)
    assert probe_signatures(device) == [Signature(name, offset, len(magic))]
    wipe_signatures(device, lambda found: True, library=False)
    assert device.read(0, device.size) == bytes(device.size)


def test_an_empty_or_tiny_device_has_no_signature() -> None:
    for size in (4 * MIB, 512):
        assert probe_signatures(MemoryDevice(size)) == []
        assert wipe_signatures(MemoryDevice(size), lambda found: False) == 0


@needs.program("mkfs.ext4")
@needs.program("mkfs.xfs")
@pytest.mark.parametrize("name", ["ext4", "ext2", "xfs", "swap"])
def test_what_a_program_made_is_in_the_own_table_too(image: Path, name: str) -> None:
    MAKERS[name](image)
    device = FileDevice(str(image))
    try:
        assert [s.name for s in probe_signatures(device)] == [name]
    finally:
        device.close()
