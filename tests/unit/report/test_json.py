"""`--reportformat json_std`: numbers are numbers or null, lists are arrays."""

from __future__ import annotations

import json

from ulvm.report.display import Layout, Report, render_json
from ulvm.report.table import Field
from ulvm.report.units import SizeFormat


def _field(name: str, kind: str) -> Field:
    return Field(name, name, kind, 0, lambda row: row[name], "lv", kind)


FIELDS = [
    _field("name", "str"),
    _field("count", "num"),
    _field("size", "size"),
    _field("full", "pct"),
    _field("tags", "list"),
]
ROWS = [
    {"name": 'a "b"', "count": 3, "size": 8192, "full": "12.50", "tags": "x,y"},
    {"name": "c", "count": -1, "size": 0, "full": "", "tags": ""},
]


def shown(*, standard: bool, sizes: SizeFormat) -> list[dict[str, object]]:
    report = Report("lv", "", FIELDS, ROWS)
    text = "\n".join(render_json([[report]], None, Layout(sizes), standard=standard))
    rows: list[dict[str, object]] = json.loads(text)["report"][0]["lv"]
    return rows


def test_values_of_their_own_types() -> None:
    first, second = shown(standard=True, sizes=SizeFormat("b", suffix=False))
    assert first == {"name": 'a "b"', "count": 3, "size": 4194304, "full": 12.5, "tags": ["x", "y"]}
    assert second == {"name": "c", "count": None, "size": 0, "full": None, "tags": []}


def test_a_size_with_its_unit_is_text() -> None:
    first, _ = shown(standard=True, sizes=SizeFormat("m"))
    assert first["size"] == "4.00m"


def test_all_is_text_in_the_older_form() -> None:
    first, second = shown(standard=False, sizes=SizeFormat("m"))
    assert first == {"name": 'a "b"', "count": "3", "size": "4.00m", "full": "12.50", "tags": "x,y"}
    assert second["count"] == "-1"
