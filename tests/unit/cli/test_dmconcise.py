"""The concise form of dmsetup, as dmsetup 1.02.185 reads and prints it."""

from __future__ import annotations

import pytest

from ulvm.cli.dmconcise import ConciseDevice, concise, read_concise
from ulvm.dm_ioctl import DeviceInfo, TableLine
from ulvm.errors import TableError


def device(name: str, uuid: str = "", *, read_only: bool = False) -> DeviceInfo:
    return DeviceInfo(
        name, uuid, 253, 7, 0, 0, suspended=False, live_table=True, inactive_table=False,
        read_only=read_only, target_count=1, size=8,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", []),
        ("a,,,,0 8 zero", [ConciseDevice("a", "", None, False, "0 8 zero")]),
        ("a,u,3,ro,0 8 zero;\n", [ConciseDevice("a", "u", 3, True, "0 8 zero")]),
        (" a, , , rw, 0 8 zero", [ConciseDevice("a", "", None, False, "0 8 zero")]),
        ("a,,,,0 8 zero,,8 8 x", [ConciseDevice("a", "", None, False, "0 8 zero\n\n8 8 x")]),
        (r"a\,b\;c\\d,,,,0 8 x\,y", [ConciseDevice(r"a,b;c\d", "", None, False, "0 8 x,y")]),
        (
            "a,,,,0 8 zero;b,,,,0 8 error",
            [
                ConciseDevice("a", "", None, False, "0 8 zero"),
                ConciseDevice("b", "", None, False, "0 8 error"),
            ],
        ),
    ],
)
def test_what_is_read(text: str, found: list[ConciseDevice]) -> None:
    assert list(read_concise(text)) == found


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a", "Five comma-separated fields"),
        (";a,,,,0 8 zero", "Five comma-separated fields"),
        ("a,,,,0 8 zero;;", "Five comma-separated fields"),
        ("a,,,,", "Incomplete entry"),
        ("a,,,,0 8 zero,", "Incomplete entry"),
        ("a,,,rx,0 8 zero", "Invalid flags parameter 'rx' must be 'ro' or 'rw' or empty."),
        ("a,,,ro ,0 8 zero", "Invalid flags parameter 'ro '"),
    ],
)
def test_what_is_refused(text: str, problem: str) -> None:
    with pytest.raises(TableError, match=problem):
        list(read_concise(text))


@pytest.mark.parametrize("name", ["a", "a b", r"a\b", "a,b;c", "é"])
def test_what_is_printed_is_read_again(name: str) -> None:
    lines = [TableLine(0, 8, "linear", r"/dev/a,b\c 0"), TableLine(8, 8, "error")]
    text = concise(device(name, name, read_only=True), lines)
    table = "0 8 linear /dev/a,b\\c 0\n8 8 error "
    assert list(read_concise(text)) == [ConciseDevice(name, name, 7, True, table)]


def test_a_device_without_a_table() -> None:
    assert concise(device("a"), []) == "a,,7,rw"
