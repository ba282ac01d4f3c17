"""Rows and columns to text: aligned columns, a separator, or JSON, as LVM2 prints them.

Lines are indented by two blanks; columns are padded to the widest value, the last one too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ulvm.report.fields import Field, Value
from ulvm.report.rows import Row
from ulvm.report.units import SizeFormat

__all__ = ["Layout", "render", "render_json", "sort_rows"]

_INDENT = "  "


@dataclass(frozen=True, slots=True)
class Layout:
    """How a report looks."""

    sizes: SizeFormat
    headings: bool = True
    separator: str | None = None
    aligned: bool = False
    """With a separator: pad all the same."""
    name_prefixes: bool = False
    unquoted: bool = False


def text_of(field: Field, row: Row, sizes: SizeFormat) -> str:
    value = field.value(row)
    if value is None:
        return ""
    if field.kind == "size" and isinstance(value, int):
        return sizes.text(value)
    return str(value)


def sort_rows(rows: Iterable[Row], keys: Sequence[tuple[Field, bool]]) -> list[Row]:
    """By the keys in turn; brackets of hidden names do not count."""
    found = list(rows)
    for field, descending in reversed(keys):
        found.sort(key=lambda row: _sort_value(field.value(row)), reverse=descending)
    return found


def _sort_value(value: Value) -> tuple[int, str]:
    if isinstance(value, int):
        return value, ""
    return 0, (value or "").lstrip("[").rstrip("]")


def render(fields: Sequence[Field], rows: Sequence[Row], layout: Layout) -> list[str]:
    """The lines of a report; none without rows."""
    table = [[text_of(f, row, layout.sizes) for f in fields] for row in rows]
    if not table:
        return []
    if layout.name_prefixes:
        return [_prefixed(fields, line, layout) for line in table]
    headings = [f.heading for f in fields]
    if layout.separator is not None and not layout.aligned:
        lines = [headings, *table] if layout.headings else table
        return [_INDENT + layout.separator.join(line) for line in lines]
    widths = [max(f.width, *(len(line[i]) for line in table)) for i, f in enumerate(fields)]
    between = " " if layout.separator is None else layout.separator
    lines = []
    if layout.headings:
        lines.append([h.ljust(w) for h, w in zip(headings, widths, strict=True)])
    for line in table:
        cells = zip(line, widths, fields, strict=True)
        lines.append([t.rjust(w) if f.right else t.ljust(w) for t, w, f in cells])
    return [_INDENT + between.join(line) for line in lines]


def _prefixed(fields: Sequence[Field], line: Sequence[str], layout: Layout) -> str:
    quote = "" if layout.unquoted else "'"
    words = [
        f"LVM2_{f.name.upper()}={quote}{text}{quote}" for f, text in zip(fields, line, strict=True)
    ]
    return _INDENT + (layout.separator or " ").join(words)


def render_json(
    name: str, fields: Sequence[Field], rows: Sequence[Row], sizes: SizeFormat
) -> list[str]:
    """`--reportformat json`: every value is a string."""
    lines = ["{", '    "report": [', "        {", f'            "{name}": [']
    for number, row in enumerate(rows):
        values: dict[str, Any] = {f.name: text_of(f, row, sizes) for f in fields}
        text = ", ".join(f'"{k}":{json.dumps(v)}' for k, v in values.items())
        comma = "," if number < len(rows) - 1 else ""
        lines.append(f"                {{{text}}}{comma}")
    lines += ["            ]", "        }", "    ]", "}"]
    return [_INDENT + line for line in lines]
