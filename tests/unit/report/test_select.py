"""`-S`: the grammar, over rows of a real volume group."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.activation.lab import Lab
from ulvm.errors import RefusedError
from ulvm.report.rows import Row, lv_rows
from ulvm.report.select import parse_selection
from ulvm.vgstore.scan import Scan


@pytest.fixture
def rows(tmp_path: Path) -> list[Row]:
    """base (128 KiB), snap of base (64 KiB, tags t1 and t2) and data (1 MiB), extents of 32 KiB."""
    lab = Lab(tmp_path)
    lab.pv()
    lab.linear("base", 4)
    lab.snapshot("base", "snap", 2)
    lab.linear("data", 32)
    vg = lab.vg
    for lv in vg.lvs:
        tags = ("t1", "t2") if lv.name == "snap" else ()
        vg = vg.with_lv(lv._replace(tags=tags, creation_time=1795211634))
    return list(lv_rows(Scan(vgs=(vg,)), [vg], {}, hidden=False, by_segment=False))


ALL = ["base", "snap", "data"]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", ALL),
        ("lv_name=base", ["base"]),
        ("name = base", ["base"]),
        ("lv_name!=base", ["snap", "data"]),
        ("lv_name=", []),
        ("lv_size>100k", ["base", "data"]),
        ("size >= 128k", ["base", "data"]),
        ("size = 1", ["data"]),
        ("size=128s", ["snap"]),
        ("lv_size<65k", ["snap"]),
        ("origin=base", ["snap"]),
        ("origin=''", ["base", "data"]),
        ("origin={base}", []),
        ("lv_name=~'^(b|d)a'", ["base", "data"]),
        ("lv_name=~^b|^d", ["base", "data"]),
        ("lv_name!~^b", ["snap", "data"]),
        ("lv_name=base || lv_name=data", ["base", "data"]),
        ("lv_name=base&&lv_size=128k", ["base"]),
        ("lv_size>100k && origin=''", ["base", "data"]),
        ("!(lv_name=base || lv_name=data)", ["snap"]),
        ("(lv_name=~^s)", ["snap"]),
        ("lv_name=~.snap", ["snap"]),
        ("lv_name=~^.snap", []),
        ("lv_name=~'[^x]data[^x]'", ["data"]),
        ("lv_name=~'..data'", []),
        ("move_pv=~.", ALL),
        ("move_pv=~^.", ALL),
        ("move_pv=~^.$", []),
        ("tags=['']", ["base", "data"]),
        ("tags!=['']", ["snap"]),
        ("tags={t1||}", ALL),
        ("tags={x||''}", ["base", "data"]),
        ("tags={t1&&}", []),
        ("tags=[t1&&t2&&]", []),
        ("tags=[t1&&t1&&t2]", []),
        ("tags={&&}", []),
        ("tags={||}", ["base", "data"]),
        ("lv_role=thicksnapshot, lv_size=64k", ["snap"]),
        ("seg_count=1", ALL),
        # Lists: [] equal, {} at least.
        ("tags=t1", ["snap"]),
        ("tags!=t1", ["base", "data"]),
        ("tags={t1, t2}", ["snap"]),
        ("tags=[t1]", []),
        ("tags=[t2&&t1]", ["snap"]),
        ('tags={"t1" || x}', ["snap"]),
        ("tags={t1 && x}", []),
        ("tags=[]", ["base", "data"]),
        ('tags!=""', ["snap"]),
        # Yes and no: by number or by word.
        ("lv_merging=0", ALL),
        ("lv_suspended=unknown", ALL),
        ("lv_suspended=-1", ALL),
        ("lv_suspended=0", []),
        ("lv_autoactivation=1", ALL),
        ("vg_extendable=extendable", ALL),
        # What has no per cent is not compared; what is not there has no number below another.
        ("data_percent>=0", []),
        ("data_percent!=5", []),
        ("origin_size<1g", ALL),
        ("lv_minor=-1", ALL),
        ("lv_minor<1", []),
        # A year is all of it. The volumes were made at the second 1795211634.
        ("lv_time=2026", ALL),
        ("lv_time>2025", ALL),
        ("lv_time since 2026-01", ALL),
        ("lv_time after 2026", []),
        ("lv_time until 2026", ALL),
        ("lv_time before '2026-11-01 10:00'", []),
        ("lv_time=@1795211634", ALL),
        ("lv_time!=2026", []),
    ],
)
def test_selections(rows: list[Row], text: str, names: list[str]) -> None:
    chosen = parse_selection(text, "lv_")
    assert [row.lv.name for row in rows if row.lv and chosen(row)] == names


SYNTAX = "Selection syntax error at '{}'"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lv_name", "Unrecognised comparison operator"),
        ("=base", "Expecting field name"),
        ("nosuch=1", "Unrecognised selection field: nosuch"),
        ("lv_name=a &&", SYNTAX.format("")),
        ("(lv_name=a", "right parenthesis expected"),
        ("!lv_name=a", "left parenthesis expected at 'lv_name=a'"),
        ("lv_name=a)", "Expecting logical operator"),
        ("lv_name=a lv_name=b", SYNTAX.format("lv_name=b")),
        ("lv_size=lots", "Failed to parse numeric value for selection field lv_size."),
        ("lv_size=", "Failed to parse numeric value for selection field lv_size."),
        ("lv_fixed_minor=''", "Failed to parse numeric value"),
        ("lv_name>a", "only with number, size, time or percent fields"),
        ("lv_tags>a", "only with number, size, time or percent fields"),
        ("lv_size since 3", "only with time fields"),
        ("lv_name=~'['", "missing ')' in regular expression"),
        ("lv_size=~8", "ncompatible comparison type"),
        ("lv_name='a", "Missing end quote."),
        ("tags={a", "Invalid operator in selection list."),
        ("tags={", "Failed to parse string list value"),
        ("tags={a,b||c}", "Only one type of logical operator"),
        ("data_percent=200", "out of supported range"),
        ("lv_time>2026-13-01", "Failed to parse time value for selection field lv_time."),
    ],
)
def test_nonsense_is_one_error(text: str, words: str) -> None:
    with pytest.raises(RefusedError) as caught:
        parse_selection(text, "lv_")
    assert words in caught.value.message


@given(st.text(alphabet="lv_nametgsi=!~<>&|(){}[], 'ab12-", max_size=30))
def test_whatever_is_typed(text: str) -> None:
    with contextlib.suppress(RefusedError):
        assert callable(parse_selection(text, "lv_"))


def test_the_fields_that_are_looked_at() -> None:
    found = parse_selection("lv_name=a && (seg_size>1 || !(devices=x))", "lv_")
    assert [field.name for field in found.fields] == ["lv_name", "seg_size", "devices"]
