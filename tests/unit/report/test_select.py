"""`-S`: the grammar, over rows of a real volume group."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.activation.lab import Lab
from ulvm.errors import UsageError
from ulvm.report.rows import Row, lv_rows
from ulvm.report.select import parse_selection
from ulvm.vgstore.scan import Scan


@pytest.fixture
def rows(tmp_path: Path) -> list[Row]:
    """base (128 KiB), snap of base (64 KiB) and data (1 MiB), extents of 32 KiB."""
    lab = Lab(tmp_path)
    lab.pv()
    lab.linear("base", 4)
    lab.snapshot("base", "snap", 2)
    lab.linear("data", 32)
    return list(lv_rows(Scan(vgs=(lab.vg,)), [lab.vg], {}, hidden=False, by_segment=False))


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", ["base", "snap", "data"]),
        ("lv_name=base", ["base"]),
        ("name=base", ["base"]),
        ("lv_name!=base", ["snap", "data"]),
        ("lv_size>100k", ["base", "data"]),
        ("size >= 128k", ["base", "data"]),
        ("lv_size<65k", ["snap"]),
        ("origin=base", ["snap"]),
        ("origin=''", ["base", "data"]),
        ("lv_name=~'^[bd]a'", ["base", "data"]),
        ("lv_name!~^b", ["snap", "data"]),
        ("lv_name=base || lv_name=data", ["base", "data"]),
        ("lv_size>100k && origin=''", ["base", "data"]),
        ("!(lv_name=base || lv_name=data)", ["snap"]),
        ("lv_role=~snapshot, lv_size=64k", ["snap"]),
        ("seg_count=1", ["base", "snap", "data"]),
    ],
)
def test_selections(rows: list[Row], text: str, names: list[str]) -> None:
    chosen = parse_selection(text, "lv_")
    assert [row.lv.name for row in rows if row.lv and chosen(row)] == names


@pytest.mark.parametrize(
    "text",
    ["lv_name", "lv_name=", "=base", "nosuch=1", "lv_name=a &&", "(lv_name=a", "lv_name=a)",
     "lv_size=lots", "lv_name>a", "lv_name=~'['", "lv_name=a lv_name=b"],
)  # fmt: skip
def test_nonsense_is_one_error(text: str) -> None:
    with pytest.raises(UsageError):
        parse_selection(text, "lv_")


@given(st.text(alphabet="lv_name=!~<>&|(), 'ab1", max_size=30))
def test_whatever_is_typed(text: str) -> None:
    with contextlib.suppress(UsageError):
        assert callable(parse_selection(text, "lv_"))
