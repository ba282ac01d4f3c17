"""Table lines: what the kernel takes, refuses and prints."""

from __future__ import annotations

import errno
import threading

import pytest

from tests.unit.dm.lab import SECTOR, Lab
from ulvm.dm.table import parse_table
from ulvm.dm_ioctl import quoted_word, words_of
from ulvm.errors import BusyError, DeviceError, NotFoundError, TableError


@pytest.fixture
def files(lab: Lab) -> tuple[str, str]:
    return lab.file("origin", 65536), lab.file("cow", 4096)


def snapshot(files: tuple[str, str], rest: str) -> str:
    return f"0 65536 snapshot {files[0]} {files[1]} {rest}"


@pytest.mark.parametrize(
    ("rest", "shown"),
    [
        ("P 8", "P 8"),
        ("p 8", "P 8"),
        ("PO 8", "PO 8"),
        ("po 8", "PO 8"),
        ("POx 8", "PO 8"),
        ("N 8", "N 8"),
        ("nothing 8", "N 8"),
        ("P 8 0", "P 8"),
        ("P 8 1 discard_zeroes_cow", "P 8 1 discard_zeroes_cow"),
        ("P 8 1 DISCARD_ZEROES_COW", "P 8 1 discard_zeroes_cow"),
        (
            "P 8 2 discard_passdown_origin discard_zeroes_cow",
            "P 8 2 discard_zeroes_cow discard_passdown_origin",
        ),
        ("P 8 1 discard_zeroes_cow and more words", "P 8 1 discard_zeroes_cow"),
    ],
)
def test_snapshot_lines_taken(lab: Lab, files: tuple[str, str], rest: str, shown: str) -> None:
    lab.device("snap", snapshot(files, rest))
    assert lab.table("snap") == f"240:0 240:1 {shown}"


@pytest.mark.parametrize(
    "rest",
    [
        "P",
        "PX 8",
        "persistent 8",
        "Q 8",
        "P 3",
        "P 4194304",
        "P 8388608",
        "P x",
        "P -1",
        "P 8 3 discard_zeroes_cow discard_passdown_origin more",
        "P 8 1 nonsense",
        "P 8 1",
        "P 8 x",
        "P 8 1 discard_passdown_origin",
    ],
)
def test_snapshot_lines_refused(lab: Lab, files: tuple[str, str], rest: str) -> None:
    with pytest.raises(TableError) as caught:
        lab.device("snap", snapshot(files, rest))
    assert caught.value.errno == 22
    assert lab.dm.devices() == []
    with open(files[1], "rb") as stream:
        assert stream.read(4096) == bytes(4096)


def test_cow_must_not_be_the_origin(lab: Lab, files: tuple[str, str]) -> None:
    with pytest.raises(TableError, match="COW device cannot be the same as origin device"):
        lab.device("snap", f"0 65536 snapshot {files[0]} {files[0]} P 8")


def test_merge_of_a_transient_store_is_refused(lab: Lab, files: tuple[str, str]) -> None:
    with pytest.raises(TableError, match="does not support snapshot-merge"):
        lab.device("snap", f"0 65536 snapshot-merge {files[0]} {files[1]} N 8")


def test_lines_of_the_simple_targets(lab: Lab) -> None:
    path = lab.file("disk", 400_000)
    lab.device("lin", f"0 1000 linear {path} 2048")
    assert lab.table("lin") == "240:0 2048"
    lab.device("err", "0 1000 error whatever it says")
    assert lab.table("err") == ""
    lab.device("zero", "0 1000 zero")
    lab.device("str", f"0 1600 striped 2 16 {path} 200000 {path} 210000")
    assert lab.table("str") == "2 16 240:0 200000 240:0 210000"
    assert lab.status("str") == "2 240:0 240:0 1 AA"
    assert str(lab.dm.status("lin")[0]) == "0 1000 linear "
    assert lab.dm.deps("str") == [(240, 0)]


@pytest.mark.parametrize(
    "line",
    [
        "0 1000 linear {disk}",
        "0 1000 linear {disk} 0 0",
        "0 1000 linear {disk} x",
        "0 1000 linear {disk} 400000",
        "0 1000 linear /no/such/file 0",
        "0 1000 linear 1:77 0",
        "0 1000 nosuch",
        "0 1000 zero 1",
        "0 1001 striped 2 16 {disk} 0 {disk} 2000",
        "0 1600 striped 2 15 {disk} 0 {disk} 2000",
        "0 1600 striped 0 16 {disk} 0",
        "0 1600 striped 2 0 {disk} 0 {disk} 2000",
        "0 1600 striped 2 16 {disk} 0",
        "0 1600 striped 2 16 {disk} 0 {disk} x",
        "0 1000 snapshot-origin",
        "0 1000 snapshot-origin {disk} {disk}",
        "1 1000 zero",
        "0 0 zero",
        "0 1000 zero\n1001 1000 zero",
    ],
)
def test_lines_refused(lab: Lab, line: str) -> None:
    table = line.format(disk=lab.file("disk", 400_000))
    with pytest.raises(TableError):
        lab.device("bad", table)
    assert lab.dm.devices() == []


@pytest.mark.parametrize("text", ["0 zero", "x 1000 zero", "0 -5 zero", "zero", "0 1000"])
def test_text_that_is_no_table(text: str) -> None:
    with pytest.raises(TableError, match="Invalid format on line 1"):
        parse_table(text)


def test_striped_places_every_sector(lab: Lab) -> None:
    disk = lab.file("disk", 4000)
    lab.fill_pattern(disk, 4000)
    lab.device("str", f"0 900 striped 3 10 {disk} 0 {disk} 1000 {disk} 2000")
    for sector in (0, 9, 10, 29, 30, 45, 899):
        chunk = sector // 10
        expected = (chunk % 3) * 1000 + (chunk // 3) * 10 + sector % 10
        assert int.from_bytes(lab.read("str", sector, 1)[:8], "little") == expected
    whole = lab.read("str", 0, 900)
    assert [int.from_bytes(whole[n * 512 : n * 512 + 8], "little") for n in (0, 10, 20, 30)] == [
        0,
        1000,
        2000,
        10,
    ]


def test_several_targets_in_one_table(lab: Lab) -> None:
    disk = lab.file("disk", 4000)
    lab.fill_pattern(disk, 4000)
    lab.device("mix", f"0 8 linear {disk} 100\n8 8 zero\n16 8 linear {disk} 300\n24 8 error")
    data = lab.read("mix", 0, 24)
    assert int.from_bytes(data[:8], "little") == 100
    assert data[8 * SECTOR : 16 * SECTOR] == bytes(8 * SECTOR)
    assert int.from_bytes(data[16 * SECTOR : 16 * SECTOR + 8], "little") == 300
    with pytest.raises(DeviceError) as caught:
        lab.read("mix", 20, 8)
    assert caught.value.errno == 5
    lab.write("mix", 6, 12, 0x11)
    assert lab.read("mix", 6, 2) == b"\x11" * 1024
    assert lab.read("mix", 8, 8) == bytes(8 * SECTOR)
    assert lab.read("mix", 16, 2) == b"\x11" * 1024


@pytest.mark.parametrize("name", ["", "a/b", "..", "x" * 128])
def test_bad_names(lab: Lab, name: str) -> None:
    with pytest.raises(TableError):
        lab.dm.create(name)


def test_names_uuids_and_minors_are_unique(lab: Lab) -> None:
    lab.dm.create("a", "UUID-1")
    for call in (
        lambda: lab.dm.create("a"),
        lambda: lab.dm.create("b", "UUID-1"),
        lambda: lab.dm.create("b", minor=0),
    ):
        with pytest.raises(BusyError):
            call()
    assert lab.dm.info("UUID-1").name == "a"
    assert lab.dm.info("253:0").name == "a"
    assert lab.dm.rename("a", "c").name == "c"
    with pytest.raises(NotFoundError):
        lab.dm.info("a")
    with pytest.raises(TableError):
        lab.dm.set_uuid("c", "UUID-2")


def test_a_device_that_is_used_cannot_go(lab: Lab) -> None:
    disk = lab.file("disk", 4000)
    lab.device("low", f"0 4000 linear {disk} 0")
    lab.device("high", "0 2000 linear low 8\n2000 8 linear low 3000")
    assert lab.dm.info("low").open_count == 1
    assert lab.table("high").startswith("253:0 8")
    with pytest.raises(BusyError):
        lab.dm.remove("low")
    handle = lab.dm.mapped("high").open(write=True)
    with pytest.raises(BusyError):
        lab.dm.remove("high")
    handle.close()
    handle.close()
    lab.dm.remove("high")
    assert lab.dm.info("low").open_count == 0
    lab.dm.remove("low")


def test_force_replaces_the_table_by_errors(lab: Lab) -> None:
    disk = lab.file("disk", 4000)
    lab.device("low", f"0 4000 linear {disk} 0")
    handle = lab.dm.mapped("low").open(write=False)
    with pytest.raises(BusyError):
        lab.dm.remove("low", force=True)
    assert str(lab.dm.table("low")[0]) == "0 4000 error "
    with pytest.raises(DeviceError):
        handle.read(0, 512)
    handle.close()


def test_read_only_tables_refuse_writes(lab: Lab) -> None:
    disk = lab.file("disk", 4000)
    lab.dm.create("ro")
    lab.dm.load("ro", parse_table(f"0 4000 linear {disk} 0"), read_only=True)
    lab.dm.resume("ro")
    with pytest.raises(DeviceError) as caught:
        lab.write("ro", 0, 1)
    assert caught.value.errno == 30
    assert lab.dm.info("ro").read_only


@pytest.mark.parametrize("call", ["write", "write_each", "write_uncached"])
def test_who_waits_for_a_device_finds_that_it_can_only_be_read(lab: Lab, call: str) -> None:
    disk = lab.file("disk", 64)
    lab.device("x", f"0 64 linear {disk} 0")
    data = memoryview(b"\xaa" * 512)
    arguments = ([(0, data)],) if call == "write_each" else (0, data)
    request = getattr(lab.dm.mapped("x"), call)
    refused: list[int] = []

    def write() -> None:
        with pytest.raises(DeviceError) as failed:
            request(*arguments)
        refused.append(failed.value.errno)

    lab.dm.suspend("x")
    writer = threading.Thread(target=write)
    writer.start()
    writer.join(0.1)
    lab.dm.load("x", parse_table(f"0 64 linear {disk} 0"), read_only=True)
    lab.dm.resume("x")
    writer.join()
    assert refused == [errno.EROFS]
    assert lab.read("x", 0, 1) == bytes(512)


def test_reload_takes_effect_at_resume(lab: Lab) -> None:
    disk = lab.file("disk", 4000)
    lab.fill_pattern(disk, 4000)
    lab.device("dev", f"0 8 linear {disk} 0")
    lab.dm.load("dev", parse_table(f"0 16 linear {disk} 100"))
    info = lab.dm.info("dev")
    assert (info.live_table, info.inactive_table, info.size) == (True, True, 8)
    assert lab.read("dev", 0, 1)[0] == 0
    assert str(lab.dm.table("dev", inactive=True)[0]) == "0 16 linear 240:0 100"
    lab.dm.clear("dev")
    assert not lab.dm.info("dev").inactive_table
    lab.reload("dev", f"0 16 linear {disk} 100")
    assert lab.read("dev", 0, 1)[0] == 100
    assert lab.dm.info("dev").size == 16


def test_requests_outside_the_device(lab: Lab) -> None:
    disk = lab.file("disk", 4000)
    lab.device("dev", f"0 8 linear {disk} 0")
    with pytest.raises(DeviceError) as caught:
        lab.read("dev", 8, 1)
    assert caught.value.errno == 22
    with pytest.raises(DeviceError) as caught:
        lab.write("dev", 7, 2)
    assert caught.value.errno == 28


def test_a_file_has_one_number_under_all_its_names(lab: Lab) -> None:
    disk = lab.file("disk", 4000)
    (lab.folder / "link").symlink_to(disk)
    lab.device("a", f"0 8 linear {disk} 0")
    lab.device("b", f"0 8 linear {lab.folder}/link 8")
    assert lab.table("a").split()[0] == lab.table("b").split()[0] == "240:0"
    lab.device("c", "0 8 linear 240:0 16")
    assert lab.dm.device_name(240, 0) == disk
    assert lab.dm.device_name(253, 2) == "c"


def test_messages_are_refused_by_targets_that_know_none(lab: Lab) -> None:
    lab.device("z", "0 8 zero")
    with pytest.raises(TableError, match="does not support messages"):
        lab.dm.message("z", 0, "hello")
    with pytest.raises(TableError, match="outside"):
        lab.dm.message("z", 8, "hello")


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ("/a 8", ["/a", "8"]),
        ("  /a\\ b \t8 ", ["/a b", "8"]),
        (r"\/a\\b 8", ["/a\\b", "8"]),
        ("/a\\\nb", ["/a\nb"]),
        ("/a\\", ["/a\\"]),
        ("/a\u00a0b\u2028c", ["/a\u00a0b\u2028c"]),
        ("", []),
    ],
)
def test_a_backslash_quotes(params: str, words: list[str]) -> None:
    """dm-table.c, dm_split_args; its blanks are ASCII's."""
    assert words_of(params) == words
    assert words_of(" ".join(map(quoted_word, words))) == words
