"""Files and disks under several tables: one open of each, for all who may use it."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from tests.unit.dm.lab import SECTOR, Lab
from ulvm.blockdev.base import BlockDevice
from ulvm.blockdev.file import FileDevice
from ulvm.dm.mapper import LocalMapper
from ulvm.dm.table import parse_table
from ulvm.errors import DeviceError, TableError


class FileLab(Lab):
    """Sees every file that is opened; `unwritable`: names that may be opened for reading only."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.unwritable: set[str] = set()
        self.dm = LocalMapper(log=self.messages.append, open_file=self._open)

    def _open(self, path: str, writable: bool) -> BlockDevice:
        if writable and Path(path).name in self.unwritable:  # root may write to any file
            raise DeviceError(f"{path}: Permission denied", errno=errno.EACCES)
        return FileDevice(path, writable=writable)

    def reading(self, name: str, table: str) -> None:
        """A device with a read-only table."""
        self.dm.create(name)
        self.dm.load(name, parse_table(table), read_only=True)
        self.dm.resume(name)


@pytest.fixture
def files(tmp_path: Path) -> FileLab:
    return FileLab(tmp_path)


@pytest.mark.parametrize("word", ["{disk}", "240:0"])
def test_a_file_of_a_read_only_table_can_be_written_by_another(files: FileLab, word: str) -> None:
    disk = files.file("disk", 16)
    files.reading("ro", f"0 8 linear {disk} 0")
    files.device("rw", f"0 8 linear {word.format(disk=disk)} 8")
    files.write("rw", 0, 8, 0x77)
    assert Path(disk).read_bytes() == bytes(8 * SECTOR) + b"\x77" * (8 * SECTOR)
    for request in (
        lambda: files.write("ro", 0, 1),
        lambda: files.dm.mapped("ro").write_zeroes(0, SECTOR),
        lambda: files.dm.mapped("ro").discard(0, SECTOR),
    ):
        with pytest.raises(DeviceError) as caught:
            request()
        assert caught.value.errno == errno.EROFS
    files.dm.shutdown()


def test_the_origin_of_a_read_only_snapshot_can_be_written(files: FileLab) -> None:
    """The copies go to a store that a read-only table alone has opened."""
    origin, cow = files.file("origin", 64), files.file("cow", 64)
    data = files.fill_pattern(origin, 64)
    files.reading("snap", f"0 64 snapshot {origin} {cow} P 8")
    files.device("org", f"0 64 snapshot-origin {origin}")
    files.write("org", 0, 8)
    assert files.read("snap", 0, 64) == data
    assert files.status("snap") == "24/64 16"
    files.dm.shutdown()


def test_an_unwritable_file_is_there_for_read_only_tables_alone(files: FileLab) -> None:
    disk = files.file("disk", 16)
    data = files.fill_pattern(disk, 16)
    files.unwritable.add("disk")
    files.dm.create("rw")
    for held in (False, True):
        for word in (disk, "240:0") if held else (disk,):
            with pytest.raises(TableError) as caught:
                files.dm.load("rw", parse_table(f"0 8 linear {word} 0"))
            assert caught.value.errno == errno.EACCES
        if not held:
            files.reading("ro", f"0 16 linear {disk} 0")
        assert files.read("ro", 0, 16) == data
    # Writable by now: not under the eyes of who has it open, but as soon as nobody has.
    files.unwritable.clear()
    with pytest.raises(TableError, match=r"disk.*for reading only.*in use") as caught:
        files.dm.load("rw", parse_table(f"0 8 linear {disk} 0"))
    assert caught.value.errno == errno.EACCES
    files.dm.remove("ro")
    files.reload("rw", f"0 8 linear {disk} 0")
    files.write("rw", 0, 1)
    files.dm.shutdown()
