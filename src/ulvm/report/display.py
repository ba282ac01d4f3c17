"""Rows and columns to text: aligned columns, a separator, or JSON, as LVM2 prints them.

Lines are indented by two blanks. Columns are padded to the widest value, the last one too. Several
reports in one go have a title each; JSON holds them all in one object.
"""

from __future__ import annotations

import math
import re
from collections.abc import Container, Iterable, Sequence
from typing import Any, NamedTuple

from ulvm.metadata.text_words import local_time
from ulvm.report.conditions import binary
from ulvm.report.table import Field, Value
from ulvm.report.units import SizeFormat
from ulvm.report.vocabulary import SELECTED

__all__ = [
    "FORMATS",
    "TIME_FORMAT",
    "Layout",
    "Report",
    "render",
    "render_json",
    "render_titled",
    "sort_rows",
]

_INDENT = "  "
_STEP = "    "
_NUMBER = re.compile(r"-?\d+(\.\d+)?", re.ASCII)

TIME_FORMAT = "%Y-%m-%d %H:%M:%S %z"

FORMATS = ("basic", "json", "json_std")


class Layout(NamedTuple):
    """How a report looks."""

    sizes: SizeFormat
    headings: bool = True
    abbreviated: bool = True
    """Headings as short words, or the names of the fields."""
    separator: str = " "
    aligned: bool = True
    """Columns are padded."""
    buffered: bool = True
    """Or each line comes at once, and knows of no other's width; the headings of the first."""
    name_prefixes: bool = False
    prefix: str = "LVM2_"
    unquoted: bool = False
    rows: bool = False
    """Columns as lines."""
    time_format: str = TIME_FORMAT
    list_separator: str = ","
    mark_hidden: bool = True
    """Brackets around the names of what is not visible."""
    two_word_unknown: bool = False
    """`unknown device`, for programs that were written for it."""
    indent: str = _INDENT


class Report(NamedTuple):
    """Rows that are chosen and in order. `key`: its name in JSON."""

    key: str
    title: str
    fields: Sequence[Field]
    rows: Sequence[Any]
    selected: Container[int] | None = None
    """Numbers of the rows that the selection chose, if all are shown."""
    compact: Container[Field] = ()
    """Columns that are left out when they are blank in all rows."""

    def value(self, field: Field, number: int) -> Value:
        """Of the row of this number."""
        if field is SELECTED:
            return int(self.selected is None or number in self.selected)
        return field.value(self.rows[number])


def _text_of(field: Field, value: Value, layout: Layout) -> str:
    if value is None:
        return ""
    if field.kind == "size" and isinstance(value, int) and value >= 0:
        return layout.sizes.text(value)
    if field.kind == "bin" and layout.sizes.binary:
        return str(binary(value))
    if field.kind == "time" and isinstance(value, int):
        return local_time(layout.time_format, value)
    text = str(value)
    if field.kind == "list" and layout.list_separator != ",":
        return text.replace(",", layout.list_separator)
    if text.startswith("[") and text.endswith("]"):
        if field.name == "pv_name":
            return "unknown device" if layout.two_word_unknown else text
        if not layout.mark_hidden:
            return text[1:-1]
    return text


# -- order ----------------------------------------------------------------------------------------


def sort_rows(rows: Iterable[Any], keys: Sequence[tuple[Field, bool]]) -> list[Any]:
    """By the keys in turn; brackets of hidden names do not count, a blank number is least, `auto`
    and -1, which is not defined, are most."""
    found = list(rows)
    for field, descending in reversed(keys):
        found.sort(key=lambda row, of=field: _sort_value(of, of.value(row)), reverse=descending)  # type: ignore[misc]
    return found


def _sort_value(field: Field, value: Value) -> tuple[float, str]:
    if field.kind == "bin":
        value = binary(value)
    if isinstance(value, int):
        return (math.inf if value < 0 else value), ""
    if field.kind in ("num", "size", "pct", "time"):
        if not value:
            return -1, ""
        return (float(value) if _NUMBER.fullmatch(value) else math.inf), ""
    return 0, (value or "").lstrip("[").rstrip("]")


# -- lines ----------------------------------------------------------------------------------------


def render(report: Report, layout: Layout, *, always: bool = False) -> list[str]:
    """The lines of a report; none without rows, or with `always` its headings."""
    if not report.rows and not always:
        return []
    fields, table = _filled(report, layout)
    words = [f.heading if layout.abbreviated else f.name for f in fields]
    headings = [words] if layout.headings else []
    if layout.aligned and not layout.rows:
        full = not layout.abbreviated
        least = [max(f.width, full * len(w)) for f, w in zip(fields, words, strict=True)]
        widths = _widths(least, table if layout.buffered else table[:1])
        headings = [
            [h[:w].ljust(w) for h, w in zip(line, widths, strict=True)] for line in headings
        ]
        if layout.buffered:
            table = [_padded(fields, line, widths) for line in table]
        else:
            table = [_padded(fields, line, _widths(least, [line])) for line in table]
    if layout.name_prefixes:
        table = [_prefixed(fields, line, layout) for line in table]
    lines = [*headings, *table]
    if layout.rows:
        lines = [list(column) for column in zip(*lines, strict=True)]
    return [layout.indent + layout.separator.join(line) for line in lines]


def _filled(report: Report, layout: Layout) -> tuple[list[Field], list[list[str]]]:
    """The columns that stay, and the text of each row."""
    fields = list(report.fields)
    table = [
        [_text_of(f, report.value(f, number), layout) for f in fields]
        for number in range(len(report.rows))
    ]
    kept = [
        i for i, f in enumerate(fields) if f not in report.compact or any(line[i] for line in table)
    ]
    return [fields[i] for i in kept], [[line[i] for i in kept] for line in table]


def _widths(least: Sequence[int], table: Sequence[Sequence[str]]) -> list[int]:
    return [max([width, *(len(line[i]) for line in table)]) for i, width in enumerate(least)]


def _padded(fields: Sequence[Field], line: Sequence[str], widths: Sequence[int]) -> list[str]:
    cells = zip(line, widths, fields, strict=True)
    return [t.rjust(w) if f.right else t.ljust(w) for t, w, f in cells]


def _prefixed(fields: Sequence[Field], line: Sequence[str], layout: Layout) -> list[str]:
    quote = "" if layout.unquoted else "'"
    return [
        f"{layout.prefix}{f.name.upper()}={quote}{text}{quote}"
        for f, text in zip(fields, line, strict=True)
    ]


def render_titled(reports: Sequence[Report], layout: Layout) -> list[str]:
    """Several reports, each under its title; the last one, a command's log, also without rows."""
    lines: list[str] = []
    for number, report in enumerate(reports):
        last = number == len(reports) - 1
        body = render(report, layout, always=last)
        if number and (lines or last):
            lines.append(_INDENT)
        if body or last:
            lines += [_INDENT + report.title, _INDENT + "=" * len(report.title), *body]
    return lines


# -- JSON -----------------------------------------------------------------------------------------


def render_json(
    groups: Sequence[Sequence[Report]] | None,
    log: Report | None,
    layout: Layout,
    *,
    standard: bool,
) -> list[str]:
    """`--reportformat json`: every value is a string; `standard` (json_std): numbers are numbers or
    null, lists are arrays. Reports of one group, those of a VG say, stand in one object; None: no
    report was asked for."""
    lines = ["{"]
    if groups is not None:
        lines.append(f'{_STEP}"report": [')
        for number, group in enumerate(groups):
            lines += [f"{_STEP * 2},"] if number else []
            lines.append(f"{_STEP * 2}{{")
            for position, report in enumerate(group):
                lines += [f"{_STEP * 3},"] if position else []
                lines += _json_array(report, layout, _STEP * 3, standard=standard)
            lines.append(f"{_STEP * 2}}}")
        lines.append(f"{_STEP}]")
    if log is not None:
        lines += [f"{_STEP},"] if groups is not None else []
        lines += _json_array(log, layout, _STEP, standard=standard)
    lines.append("}")
    return [_INDENT + line for line in lines]


def _json_array(report: Report, layout: Layout, indent: str, *, standard: bool) -> list[str]:
    lines = [f'{indent}"{report.key}": [']
    last = len(report.rows) - 1
    fields, table = _filled(report, layout)
    for number, line in enumerate(table):
        parts = []
        for field, shown in zip(fields, line, strict=True):
            text = _quoted(shown)
            if standard:
                text = _standard_value(field, report.value(field, number), shown, layout)
            parts.append(f'"{field.name}":{text}')
        comma = "," if number < last else ""
        lines.append(f"{indent}{_STEP}{{{', '.join(parts)}}}{comma}")
    lines.append(f"{indent}]")
    return lines


def _standard_value(field: Field, value: Value, text: str, layout: Layout) -> str:
    if field.kind == "list":
        items = [item for item in re.split(r"[, ]", str(value or "")) if item]
        import json

        return json.dumps(items, ensure_ascii=False)
    if field.kind == "bin" and not layout.sizes.binary:
        return _quoted(text)
    if field.type in ("num", "size", "pct"):
        if text in ("", "-1"):
            return "null"
        if _NUMBER.fullmatch(text):
            return text
    return _quoted(text)


def _quoted(text: str) -> str:
    """Characters beyond ASCII as they are, as LVM2 leaves them."""
    import json  # for that format alone

    return json.dumps(text, ensure_ascii=False)
