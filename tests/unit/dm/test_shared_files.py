"""Files and disks under several tables: one open of each, for all who may use it."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.dm.lab import SECTOR, Lab
from tests.waiting import ended
from ulvm.blockdev.base import BlockDevice
from ulvm.blockdev.file import FileDevice
from ulvm.dm.mapper import LocalMapper
from ulvm.dm.numbers import DeviceNumbers
from ulvm.dm.table import parse_table
from ulvm.errors import DeviceError, TableError


class FileLab(Lab):
    """Sees every file that is opened and closed. `unwritable`: names that may be opened for
    reading only; `before_open`: run before a file of this name is opened."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.unwritable: set[str] = set()
        self.why_unwritable = errno.EACCES
        self.before_open: dict[str, Callable[[], object]] = {}
        self.open_now: list[str] = []
        self.close_error: DeviceError | None = None
        self.dm = LocalMapper(log=self.messages.append, open_file=self._open)

    def _open(self, path: str, writable: bool) -> BlockDevice:
        name = Path(path).name
        self.before_open.pop(name, lambda: None)()
        if writable and name in self.unwritable:  # root may write to any file
            raise DeviceError(f"{path}: cannot be written", errno=self.why_unwritable)
        device = SeenFile(self, path, writable)
        self.open_now.append(name)
        return device

    def reading(self, name: str, table: str) -> None:
        """A device with a read-only table."""
        self.dm.create(name)
        self.dm.load(name, parse_table(table), read_only=True)
        self.dm.resume(name)


class SeenFile(FileDevice):
    def __init__(self, lab: FileLab, path: str, writable: bool) -> None:
        self.lab = lab
        super().__init__(path, writable=writable)

    def close(self) -> None:
        self.lab.open_now.remove(Path(self.path).name)
        super().close()
        if self.lab.close_error is not None:
            raise self.lab.close_error


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


def test_a_read_only_disk_is_read_and_its_snapshot_is_kept(files: FileLab) -> None:
    """As by the kernel its tables are loaded and called writable; but a write is refused before it
    is staged: it could never be written, and the snapshot would be lost for want of its copy."""
    origin, cow = files.file("origin", 64), files.file("cow", 64)
    data = files.fill_pattern(origin, 64)

    def activate() -> None:
        files.device("low", f"0 64 linear {origin} 0")
        files.device("org", "0 64 snapshot-origin low")
        files.device("snap", f"0 64 snapshot low {cow} P 8")

    activate()
    files.write("org", 0, 8)
    changed = files.read("org", 0, 64)
    files.dm.shutdown()
    files.dm = LocalMapper(log=files.messages.append, open_file=files._open)
    files.unwritable, files.why_unwritable = {"origin", "cow"}, errno.EROFS
    activate()
    assert files.read("snap", 0, 64) == data
    for name in ("low", "org", "snap"):
        assert not files.dm.info(name).read_only
        with pytest.raises(DeviceError) as caught:
            files.dm.mapped(name).open(write=True)
        assert caught.value.errno == errno.EROFS
        with pytest.raises(DeviceError) as caught:
            files.write(name, 8, 8)
        assert caught.value.errno == errno.EROFS
    assert files.read("org", 0, 64) == changed
    assert files.status("snap") == "24/64 16"
    for name in ("snap", "org", "low"):
        files.dm.remove(name)
    assert files.open_now == []


# -- while tables of others come and go --------------------------------------------------------


def refuse(lab: Lab, table: str) -> None:
    with pytest.raises(TableError):
        lab.device("refused", table)


@pytest.mark.parametrize("other", ["refused load", "remove"])
def test_what_a_load_has_opened_is_not_closed_by_another(files: FileLab, other: str) -> None:
    """The other one comes between the first file of a table and its second."""
    first, second, third = (files.file(name, 16) for name in ("first", "second", "third"))
    data = files.fill_pattern(first, 16)
    files.device("other", f"0 8 linear {third} 0")
    files.before_open["second"] = {
        "refused load": lambda: refuse(files, f"0 8 linear {third} 0 superfluous"),
        "remove": lambda: files.dm.remove("other"),
    }[other]
    files.device("two", f"0 8 linear {first} 0\n8 8 linear {second} 0")
    assert files.read("two", 0, 8) == data[: 8 * SECTOR]
    assert files.table("two").startswith("240:1 0 ")
    files.dm.remove("two")
    assert files.open_now == ([] if other == "remove" else ["third"])
    files.dm.shutdown()


@pytest.mark.parametrize(
    "ask",
    [
        lambda dm: dm.snapshot_state()["devices"][0]["table"][0][3].rsplit("/", 1)[1],
        lambda dm: dm.table("gone")[0].params,
        lambda dm: dm.status("gone")[0].params,
        lambda dm: dm.deps("gone"),
    ],
    ids=["state", "table", "status", "deps"],
)
def test_a_table_can_be_told_to_its_end_when_its_device_goes(
    files: FileLab, monkeypatch: pytest.MonkeyPatch, ask: Callable[[LocalMapper], Any]
) -> None:
    """Who saves the state or asks holds no lock that would hinder a removal."""
    table = f"0 16 striped 2 8 {files.file('a', 16)} 0 {files.file('b', 16)} 8"
    files.device("gone", table)
    told = ask(files.dm)
    number, path = DeviceNumbers.number, DeviceNumbers.path_of

    def remove_first(method: Callable[..., str]) -> Callable[..., str]:
        def call(numbers: DeviceNumbers, device: BlockDevice) -> str:
            if files.dm.devices():
                files.dm.remove("gone")
            return method(numbers, device)

        return call

    monkeypatch.setattr(DeviceNumbers, "number", remove_first(number))
    monkeypatch.setattr(DeviceNumbers, "path_of", remove_first(path))
    assert ask(files.dm) == told
    assert (files.dm.devices(), files.open_now) == ([], [])


@pytest.mark.parametrize("error", [TableError("no"), DeviceError("no"), RuntimeError("bug")])
def test_a_load_that_fails_leaves_nothing_behind(files: FileLab, error: Exception) -> None:
    def fail() -> None:
        raise error

    origin, cow, bad = (files.file(name, 64) for name in ("origin", "cow", "bad"))
    files.device("org", f"0 64 snapshot-origin {origin}")
    files.before_open["bad"] = fail
    files.dm.create("snap")
    snapshot = f"snapshot {origin} {cow} P 8"
    with pytest.raises(RuntimeError if isinstance(error, RuntimeError) else TableError):
        files.dm.load("snap", parse_table(f"0 8 {snapshot}\n8 8 linear {bad} 0"))
    assert files.open_now == ["origin"]
    assert files.dm.info("org").open_count == 0
    files.reload("snap", f"0 64 {snapshot}")  # and not as the destination of a handover
    assert files.status("snap") == "16/64 16"
    files.dm.shutdown()


def test_a_failed_close_is_told_and_hinders_nothing(files: FileLab) -> None:
    disk, more = files.file("disk", 16), files.file("more", 16)
    files.device("dev", f"0 8 linear {disk} 0\n8 8 linear {more} 0")
    files.close_error = DeviceError("disk: close failed: Input/output error", errno=errno.EIO)
    files.dm.remove("dev")
    assert files.open_now == []
    assert files.messages == ["disk: close failed: Input/output error"] * 2
    files.close_error = None
    files.device("dev", f"0 8 linear {disk} 0")
    files.write("dev", 0, 8)
    files.dm.shutdown()


def test_a_device_that_was_never_opened_has_no_number(files: FileLab) -> None:
    stranger = FileDevice(files.file("disk", 16))
    with pytest.raises(TableError):
        files.dm.number(stranger)
    stranger.close()


def test_a_file_that_does_not_open_holds_up_no_other_device(tmp_path: Path) -> None:
    """It is on a server that is gone, say."""
    lab = FileLab(tmp_path)
    lab.device("beside", f"0 8 linear {lab.file('plain', 8)} 0")
    told, opening, go = threading.Event(), threading.Event(), threading.Event()

    def tell() -> None:
        lab.dm.snapshot_state()
        told.set()

    def wait() -> None:
        opening.set()
        go.wait(60)

    lab.dm.on_change.append(tell)
    lab.before_open["gone"] = wait
    lab.file("gone", 8)
    lab.dm.create("over")
    line = parse_table(f"0 8 linear {tmp_path}/gone 0")
    loading = threading.Thread(target=lab.dm.load, args=("over", line))
    told.clear()
    loading.start()
    try:
        assert opening.wait(20)

        def use() -> None:
            lab.dm.suspend("beside")
            lab.dm.resume("beside")
            (number,) = lab.dm.deps("beside")
            assert lab.dm.device_name(*number) == f"{tmp_path}/plain"

        ended(use, seconds=10)
        assert told.is_set()
    finally:
        go.set()
        loading.join()
        lab.dm.shutdown()
