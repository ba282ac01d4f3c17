"""Numbers out of words: as C reads them, and soon."""

from __future__ import annotations

import pytest

from ulvm.dm.table import parse_table
from ulvm.errors import RefusedError, TableError, UsageError
from ulvm.lvm.sizes import parse_extents, parse_size
from ulvm.metadata.tree import parse
from ulvm.report.select import parse_selection
from ulvm.report.units import parse_units
from ulvm.units import parse_u64
from ulvm.vgstore.config import Config

MANY = "9" * 5000
"""More digits than Python turns into a number."""


@pytest.mark.parametrize(
    ("text", "number"),
    [("0", 0), ("7", 7), ("000", 0), ("0" * 5000 + "7", 7), (str((1 << 64) - 1), (1 << 64) - 1)],
)
def test_numbers(text: str, number: int) -> None:
    assert parse_u64(text) == number


@pytest.mark.parametrize("text", ["", "-1", "+1", "1.0", " 1", "1_0", "٣", "²", str(1 << 64), MANY])
def test_no_numbers(text: str) -> None:
    assert parse_u64(text) is None


@pytest.mark.parametrize("word", [MANY, "٣", "-1"])
def test_words_that_take_a_number(word: str) -> None:
    with pytest.raises(UsageError):
        parse_size(f"{word}m", signs="")
    with pytest.raises(UsageError):
        parse_extents(f"{word}%FREE", signs="")
    with pytest.raises(UsageError):
        parse_units(f"{word}m")
    for line in (f"{word} 8 zero", f"0 {word} zero"):
        with pytest.raises(TableError):
            parse_table(line)


@pytest.mark.parametrize("value", [f'"{MANY}"', '"+-5"', '"٣"', '"1e9"', "1e999", "[ 1 ]"])
def test_settings_that_are_no_number(value: str) -> None:
    with pytest.raises(UsageError):
        Config(parse(f"a {{ b = {value} }}")).get_int("a/b", 1)


def test_parentheses_without_end() -> None:
    for text in ("(" * 5000, "!(" * 5000, "(" * 65 + "lv_name=x" + ")" * 65):
        with pytest.raises(RefusedError):
            parse_selection(text, "lv_")
    parse_selection("(" * 64 + "lv_name=x" + ")" * 64, "lv_")
    parse_selection("||".join(["(lv_name=x)"] * 500), "lv_")


@pytest.mark.parametrize("day", ["2024-13-01", "10000-01-01"])
def test_days_that_no_calendar_has(day: str) -> None:
    with pytest.raises(RefusedError, match="Failed to parse time"):
        parse_selection(f"lv_time={day}", "lv_")


@pytest.mark.parametrize("day", ["0000-01-01", "9999-12-31", "@" + "9" * 18])
def test_days_at_the_end_of_the_calendar(day: str) -> None:
    parse_selection(f"lv_time={day}", "lv_")
