"""One condition of a selection: how values of each kind of field compare."""

from __future__ import annotations

import calendar
import datetime
import re
from collections.abc import Callable

from ulvm.errors import UsageError
from ulvm.lvm.sizes import parse_size
from ulvm.report.rows import Row
from ulvm.report.table import Field

__all__ = ["binary", "compare", "items_of"]

Bracketed = tuple[str, str, list[str]]
"""("[" or "{", "&&" or "||", words)"""

_NUMBERS: dict[str, Callable[[float, float], bool]] = {
    "=": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    ">": lambda a, b: a > b,
    "<": lambda a, b: a < b,
    ">=": lambda a, b: a >= b,
    "<=": lambda a, b: a <= b,
}
_TIMES = {"since": ">=", "after": ">", "until": "<=", "before": "<"}
_TIME = re.compile(r"(\d{4})(?:-(\d\d?)(?:-(\d\d?)(?:\s+(\d\d?)(?::(\d\d?)(?::(\d\d?))?)?)?)?)?")
_UNKNOWN = "unknown"


def compare(field: Field, operator: str, value: str | Bracketed) -> Callable[[Row], bool]:
    """The test of a row; ValueError with LVM2's words for a value that the field cannot have."""
    if not isinstance(value, str):
        return _bracketed(field, operator, value)
    if operator in ("=~", "!~"):
        return _matches(field, operator, value)
    if field.kind == "time":
        return _time(field, operator, value)
    if operator in _TIMES:
        raise ValueError("Operator can be used only with time fields.")
    if field.kind in ("num", "size", "pct", "bin"):
        return _number(field, operator, value)
    if operator not in ("=", "!="):
        raise ValueError("Operator can be used only with number, size, time or percent fields.")
    if field.kind == "list":
        return _bracketed(field, operator, ("{", "&&", [value] if value else []))
    wanted = operator == "="
    return lambda row: (str(field.value(row) or "") == value) == wanted


def items_of(field: Field, row: Row) -> list[str]:
    """The words of a list field."""
    return re.split(r"[, ]", str(found)) if (found := field.value(row)) else []


def _matches(field: Field, operator: str, value: str) -> Callable[[Row], bool]:
    if field.kind not in ("str", "list", "word"):
        raise ValueError(f"Incompatible comparison type for selection field {field.name}.")
    try:
        pattern = re.compile(value)
    except re.error as error:
        raise ValueError(f"Failed to parse regular expression {value}: {error}.") from None
    wanted = operator == "=~"

    def test(row: Row) -> bool:
        words = items_of(field, row) if field.kind == "list" else [str(field.value(row) or "")]
        return any(pattern.search(word) for word in words) == wanted

    return test


def _bracketed(field: Field, operator: str, value: Bracketed) -> Callable[[Row], bool]:
    begin, joint, words = value
    wanted = operator == "="

    def holds(found: list[str]) -> bool:
        if not words or not found:
            return not words and not found
        if joint == "||":
            return any(word in found for word in words)
        return set(words) == set(found) if begin == "[" else set(words) <= set(found)

    return lambda row: holds(items_of(field, row)) == wanted


# -- numbers --------------------------------------------------------------------------------------


def binary(found: str | int | None) -> int:
    """A yes or no field as a number: 1, 0, or -1 for unknown."""
    return -1 if found == _UNKNOWN else int(bool(found))


def _number(field: Field, operator: str, value: str) -> Callable[[Row], bool]:
    test = _NUMBERS[operator]
    if field.kind == "bin" and not _is_number(value):
        if not value:
            raise _no_number(field)
        wanted = operator == "="
        if operator not in ("=", "!="):
            raise ValueError("Operator can be used only with number, size, time or percent fields.")
        return lambda row: (field.value(row) == value) == wanted
    number = _parse(field, value)

    def compares(row: Row) -> bool:
        found = field.value(row)
        if field.kind == "bin":
            return test(binary(found), number)
        if found is None or found == "":
            # A blank per cent is no number; other blanks count as 0.
            return field.kind != "pct" and test(0, number)
        if isinstance(found, int) and found < 0 and operator not in ("=", "!="):
            return False
        return test(float(found), number)

    return compares


def _is_number(value: str) -> bool:
    return re.fullmatch(r"[+-]?\d+(\.\d*)?", value) is not None


def _no_number(field: Field) -> ValueError:
    return ValueError(f"Failed to parse numeric value for selection field {field.name}.")


def _parse(field: Field, value: str) -> float:
    """In the field's own unit."""
    if field.kind == "size" and not value.startswith("-"):
        if re.fullmatch(r"0*\.?0*[a-zA-Z]?", value) and "0" in value:
            return 0
        try:
            return parse_size(value).sectors or 0
        except UsageError:
            raise _no_number(field) from None
    text = value.removesuffix("%") if field.kind == "pct" else value
    if not _is_number(text):
        raise _no_number(field)
    number = float(text)
    if field.kind == "pct" and not 0 <= number <= 100:
        raise ValueError(
            f"Field selection value {value} out of supported range for field {field.name}."
        )
    return number


# -- times ----------------------------------------------------------------------------------------


def _time(field: Field, operator: str, value: str) -> Callable[[Row], bool]:
    """A day, month or year stands for all of it: `=` is within, `>` is after its end."""
    operator = _TIMES.get(operator, operator)
    if operator not in _NUMBERS:
        raise ValueError(f"Incompatible comparison type for selection field {field.name}.")
    first, last = _span(field, value)

    def test(row: Row) -> bool:
        text = field.value(row)
        if not text:
            return False
        try:
            found = datetime.datetime.strptime(str(text), "%Y-%m-%d %H:%M:%S %z").timestamp()
        except ValueError:
            return False  # a year that metadata can name and no calendar has
        within = first <= found <= last
        if operator in ("=", "!="):
            return within == (operator == "=")
        if operator in (">", "<="):
            return (found > last) == (operator == ">")
        return (found < first) == (operator == "<")

    return test


def _span(field: Field, value: str) -> tuple[float, float]:
    """First and last second, in local time; `@` seconds since the epoch."""
    if re.fullmatch(r"@\d+", value):
        return float(value[1:]), float(value[1:])
    match = _TIME.fullmatch(value.strip())
    try:
        if match is None:
            raise ValueError(value)
        given = [int(part) for part in match.groups() if part is not None]
        year, month = given[0], given[1] if len(given) > 1 else 12
        rest = (year, month, calendar.monthrange(year, month)[1], 23, 59, 59)
        begin = datetime.datetime(*(*given, 1, 1)[: max(3, len(given))])  # type: ignore[arg-type]
        end = datetime.datetime(*(*given, *rest[len(given) :]))  # type: ignore[arg-type]
        return begin.timestamp(), end.timestamp()
    except (ValueError, OverflowError):
        raise ValueError(
            f"Incorrect date format.\nFailed to parse time value for selection field {field.name}."
        ) from None
