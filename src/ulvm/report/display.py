"""Rows and columns to text: aligned columns, a separator, or JSON, as LVM2 prints them.

Lines are indented by two blanks. Columns are padded to the widest value, the last one too.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass

from ulvm.report.conditions import binary
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
    rows: bool = False
    """Columns as lines."""
    compact: Container[Field] = ()
    """Columns that are left out when they are blank in all rows."""

    @property
    def between(self) -> str:
        """What stands between two columns."""
        return " " if self.separator is None else self.separator


def _text_of(field: Field, row: Row, sizes: SizeFormat) -> str:
    value = field.value(row)
    if value is None:
        return ""
    if field.kind == "size" and isinstance(value, int) and value >= 0:
        return sizes.text(value)
    if field.kind == "bin" and sizes.binary:
        return str(binary(value))
    return str(value)


def sort_rows(rows: Iterable[Row], keys: Sequence[tuple[Field, bool]]) -> list[Row]:
    """By the keys in turn; brackets of hidden names do not count, and a blank number is least."""
    found = list(rows)
    for field, descending in reversed(keys):
        found.sort(key=lambda row, of=field: _sort_value(of, of.value(row)), reverse=descending)  # type: ignore[misc]
    return found


def _sort_value(field: Field, value: Value) -> tuple[float, str]:
    if field.kind == "bin":
        return binary(value), ""
    if isinstance(value, int):
        return value, ""
    if field.kind in ("num", "size", "pct"):
        return float(value) if value else -1, ""
    return 0, (value or "").lstrip("[").rstrip("]")


def render(fields: Sequence[Field], rows: Sequence[Row], layout: Layout) -> list[str]:
    """The lines of a report; none without rows."""
    table = [[_text_of(f, row, layout.sizes) for f in fields] for row in rows]
    if not table:
        return []
    kept = [
        i for i, f in enumerate(fields) if f not in layout.compact or any(line[i] for line in table)
    ]
    fields = [fields[i] for i in kept]
    table = [[line[i] for i in kept] for line in table]
    headings = [[f.heading for f in fields]] if layout.headings else []
    if layout.name_prefixes:
        table = [_prefixed(fields, line, layout) for line in table]
    if layout.rows:
        turned = zip(*headings, *table, strict=True)
        return [_INDENT + layout.between.join(line) for line in turned]
    if layout.name_prefixes or (layout.separator is not None and not layout.aligned):
        return [_INDENT + layout.between.join(line) for line in (*headings, *table)]
    widths = [max(f.width, *(len(line[i]) for line in table)) for i, f in enumerate(fields)]
    lines = [[h.ljust(w) for h, w in zip(line, widths, strict=True)] for line in headings]
    for line in table:
        cells = zip(line, widths, fields, strict=True)
        lines.append([t.rjust(w) if f.right else t.ljust(w) for t, w, f in cells])
    return [_INDENT + layout.between.join(line) for line in lines]


def _prefixed(fields: Sequence[Field], line: Sequence[str], layout: Layout) -> list[str]:
    quote = "" if layout.unquoted else "'"
    return [
        f"LVM2_{f.name.upper()}={quote}{text}{quote}" for f, text in zip(fields, line, strict=True)
    ]


def render_json(
    name: str, fields: Sequence[Field], rows: Sequence[Row], sizes: SizeFormat
) -> list[str]:
    """`--reportformat json`: every value is a string."""
    lines = ["{", '    "report": [', "        {", f'            "{name}": [']
    for number, row in enumerate(rows):
        text = ", ".join(f'"{f.name}":{json.dumps(_text_of(f, row, sizes))}' for f in fields)
        comma = "," if number < len(rows) - 1 else ""
        lines.append(f"                {{{text}}}{comma}")
    lines += ["            ]", "        }", "    ]", "}"]
    return [_INDENT + line for line in lines]
