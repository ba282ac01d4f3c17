"""Sizes as LVM2 writes them."""

from __future__ import annotations

import pytest

from ulvm.errors import UsageError
from ulvm.report.units import parse_units
from ulvm.units import display_size

GIB = 1 << 21  # sectors
MIB = 1 << 11


@pytest.mark.parametrize(
    ("units", "sectors", "text"),
    [
        ("r", 65536, "32.00m"),
        ("r", 5 * GIB, "5.00g"),
        ("r", 5 * GIB - 4 * MIB, "<5.00g"),
        ("h", 5 * GIB - 4 * MIB, "5.00g"),
        ("r", 8, "4.00k"),
        ("r", 0, "0 "),
        ("m", 0, "0m"),
        ("s", 65536, "65536S"),
        ("s", 0, "0S"),
        ("b", 65536, "33554432B"),
        ("k", 65536, "32768.00k"),
        ("K", 65536, "33554.43K"),
        ("g", 3 * MIB, "0.00g"),
        ("M", 65536, "33.55M"),
        ("H", 65536, "33.55M"),
        ("t", 5 * GIB, "0.00t"),
        ("4m", 16384, "2.00U"),
        ("512b", 16384, "16384.00U"),
        ("10s", 16384, "1638.40U"),
        ("2K", 16384, "4194.30U"),
        ("4r", 65536, "32.00m"),
        ("3H", 65536, "33.55M"),
        ("1.5H", 65536, "33.55M"),
        ("1.5m", 65536, "21.33m"),
        ("1.5m", 0, "0m"),
        ("1k", 65536, "32768.00k"),
        ("1s", 65536, "65536S"),
        ("0.5k", 65536, "65536.00U"),
        ("1.m", 65536, "32.00m"),
        ("1.5s", 4, "3S"),
        ("16E", 65536, "0.00U"),
    ],
)
def test_sizes(units: str, sectors: int, text: str) -> None:
    assert parse_units(units).text(sectors) == text


def test_without_suffix() -> None:
    assert parse_units("m", suffix=False).text(65536) == "32.00"
    assert parse_units("b", suffix=False).text(1) == "512"


@pytest.mark.parametrize("units", ["", "q", "mm", "3", "0m", "r4", "-1m", "0.1b", ".5m", "32e"])
def test_other_units_are_refused(units: str) -> None:
    with pytest.raises(UsageError, match="Invalid units specification"):
        parse_units(units)


@pytest.mark.parametrize(
    ("sectors", "text"),
    [
        (8192, "4.00 MiB"),
        (5 * GIB - 8192, "<5.00 GiB"),
        (3, "1.50 KiB"),
        (1024 * GIB, "1.00 TiB"),
        (2466250, "<1.18 GiB"),
    ],
)
def test_sizes_in_messages(sectors: int, text: str) -> None:
    assert display_size(sectors) == text
