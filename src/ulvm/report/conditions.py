"""One condition of a selection: how values of each type of field compare."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from ulvm.report.patterns import compile_pattern
from ulvm.report.table import Field, Value
from ulvm.units import SECTOR

__all__ = ["TIME_OPERATORS", "Bracketed", "binary", "compare", "items_of", "reserved_words"]

Bracketed = tuple[str, str, list[str]]
"""("[" or "{", "&&" or "||", words)"""

Test = Callable[[Any], bool]

_ORDERED: dict[str, Callable[[float, float], bool]] = {
    ">": lambda a, b: a > b,
    "<": lambda a, b: a < b,
    ">=": lambda a, b: a >= b,
    "<=": lambda a, b: a <= b,
}
TIME_OPERATORS = {"since": ">=", "after": ">", "until": "<=", "before": "<"}
_UNKNOWN = "unknown"
_UNITS = "bskmgtpe"
_MOST = 1 << 64

# -- words that stand for a value -----------------------------------------------------------------

_UNDEFINED = dict.fromkeys(("-1", "unknown", "undefined", "undef"), -1)

_BINARY_WORDS = {
    "lv_merging": "merging",
    "lv_converting": "converting",
    "lv_initial_image_sync": "initial image sync",
    "lv_image_synced": "image synced",
    "lv_allocation_locked": "allocation locked",
    "lv_fixed_minor": "fixed minor",
    "lv_skip_activation": "skip activation",
    "lv_active_locally": "active locally",
    "lv_active_remotely": "active remotely",
    "lv_active_exclusively": "active exclusively",
    "lv_suspended": "suspended",
    "lv_live_table": "live table present",
    "lv_inactive_table": "inactive table present",
    "lv_device_open": "open",
    "lv_merge_failed": "merge failed",
    "lv_snapshot_invalid": "snapshot invalid",
    "lv_check_needed": "check needed",
    "zero": "zero",
    "pv_allocatable": "allocatable",
    "pv_exported": "exported",
    "pv_missing": "missing",
    "pv_in_use": "in use",
    "pv_duplicate": "duplicate",
    "vg_extendable": "extendable",
    "vg_exported": "exported",
    "vg_partial": "partial",
    "vg_clustered": "clustered",
    "vg_shared": "shared",
}
"""What says yes, beside `yes` itself: the whole, its first words, its last word."""

_OWN_WORDS: dict[str, dict[str, int]] = {
    "lv_read_ahead": {"auto": -1},
    "vg_mda_copies": {"unmanaged": -1},
    "pv_in_use": {"used": 1},
}

_PERMISSIONS = {
    **dict.fromkeys(("rw", "read-write"), "writeable"),
    **dict.fromkeys(("r", "ro"), "read-only"),
    **dict.fromkeys(("ro-override", "r-override"), "read-only-override"),
}
_TEXTS = {
    "lv_permissions": _PERMISSIONS,
    "vg_permissions": _PERMISSIONS,
    "lv_when_full": {"error when full": "error", "queue when full": "queue"},
}
_OF_HIDDEN = ("lv_name", "origin")
_UNDEFINED_TEXTS = {
    "cache_policy",
    "kernel_cache_policy",
    "kernel_discards",
    "lv_health_status",
    "lv_when_full",
    "seg_monitor",
    "vdo_write_policy",
}


def reserved_words(field: Field) -> dict[str, int]:
    """Words that a number may be given by; -1 for not defined."""
    found = dict(_UNDEFINED) if field.type == "num" else {}
    phrase = _BINARY_WORDS.get(field.name)
    if phrase is not None:
        words = phrase.split()
        yes = {" ".join(words[: n + 1]) for n in range(len(words))} | {words[-1], "yes"}
        found.update(dict.fromkeys(yes, 1))
        found["no"] = 0
    return found | _OWN_WORDS.get(field.name, {})


# -- conditions -----------------------------------------------------------------------------------


def compare(field: Field, operator: str, value: str | Bracketed) -> Test:
    """The test of a row; ValueError with LVM2's words for a value that the field cannot have.
    That the operator suits the field's type has been seen to."""
    if operator in ("=~", "!~"):
        assert isinstance(value, str)
        return _matches(field, operator, value)
    if field.type == "list":
        return _in_list(field, operator, value)
    assert isinstance(value, str)
    if field.type == "time":
        return _time(field, TIME_OPERATORS.get(operator, operator), value)
    if field.type == "str":
        return _equals(field, operator, value)
    return _number(field, operator, value)


def items_of(field: Field, row: Any) -> list[str]:
    """The words of a list field."""
    return re.split(r"[, ]", str(found)) if (found := field.value(row)) else []


def _plain(field: Field, row: Any) -> str:
    found = field.value(row)
    text = "" if found is None else str(found)
    # The brackets of a volume that is hidden are not part of its name.
    return text.removeprefix("[").removesuffix("]") if field.name in _OF_HIDDEN else text


def _matches(field: Field, operator: str, value: str) -> Test:
    matches = compile_pattern(value)
    wanted = operator == "=~"
    return lambda row: matches(_plain(field, row)) == wanted


def _equals(field: Field, operator: str, value: str) -> Test:
    value = _TEXTS.get(field.name, {}).get(value, value)
    if value == "undefined" and field.name in _UNDEFINED_TEXTS:
        value = ""
    wanted = operator == "="
    return lambda row: (_plain(field, row) == value) == wanted


def _in_list(field: Field, operator: str, value: str | Bracketed) -> Test:
    if isinstance(value, str):
        value = ("{", "&&", [value])
    begin, joint, words = value
    wanted = operator == "="

    def holds(found: list[str]) -> bool:
        if not found:  # as a blank word, alone or as one of several
            return "" in words if joint == "||" else words == [""]
        if joint == "||":
            return any(word in found for word in words)
        return sorted(words) == sorted(found) if begin == "[" else set(words) <= set(found)

    return lambda row: holds(items_of(field, row)) == wanted


# -- numbers --------------------------------------------------------------------------------------


def binary(found: Value) -> int:
    """A yes or no field as a number: 1, 0, or -1 for unknown."""
    return -1 if found == _UNKNOWN else int(bool(found))


def _amount(field: Field, row: Any) -> float | None:
    """None for a number that is not defined."""
    found = field.value(row)
    if field.kind == "bin":
        return None if (flag := binary(found)) < 0 else flag
    if found is None:
        return None if field.type == "pct" else 0
    try:
        number = float(found)
    except ValueError:
        return None  # `auto`, `unmanaged`, or blank
    return None if number < 0 else number


def _number(field: Field, operator: str, value: str) -> Test:
    reserved = reserved_words(field)
    wanted = float(reserved[value]) if value in reserved else _parse(field, value)
    if operator in ("=", "!="):
        equal = operator == "="

        def equals(row: Any) -> bool:
            found = _amount(field, row)
            if found is None and field.type == "pct":
                return False
            return ((-1 if found is None else found) == wanted) == equal

        return equals
    test = _ORDERED[operator]

    def ordered(row: Any) -> bool:
        found = _amount(field, row)
        return found is not None and wanted >= 0 and test(found, wanted)

    return ordered


def _parse(field: Field, value: str) -> float:
    """A number as it is written, in the field's own unit."""
    match = re.fullmatch(r"(\d+\.?\d*|\.\d+)([a-zA-Z%]?)", value, re.ASCII)
    if match is None:
        raise ValueError(f"Failed to parse numeric value for selection field {field.name}.")
    number, unit = float(match[1]), match[2]
    if field.type == "size":
        return _sectors(match[1], unit or "m")
    if (field.type == "pct" and number > 100) or number >= _MOST:
        raise ValueError(
            f"Field selection value {match[1]} out of supported range for field {field.name}."
        )
    return number


def _sectors(number: str, unit: str) -> float:
    """Capital letters are powers of 1000."""
    if unit in "sS":
        return float(number)
    base = 1000 if unit.isupper() else 1024
    power = 0 if unit in "bB" else _UNITS.index(unit.lower()) - 1
    return float(number) * float(base**power) / SECTOR


# -- times ----------------------------------------------------------------------------------------


def _time(field: Field, operator: str, value: str) -> Test:
    """`=` is within the range that a time stands for, `>` is after its end."""
    from ulvm.report.times import parse_time

    try:
        first, last = parse_time(value)
    except ValueError as error:
        words = f"{error}\n" if str(error) else ""
        raise ValueError(
            f"{words}Failed to parse time value for selection field {field.name}."
        ) from None

    def test(row: Any) -> bool:
        found = _seconds(field.value(row))
        if operator in ("=", "!="):
            return (first <= found <= last) == (operator == "=")
        return _ORDERED[operator](found, last if operator in (">", "<=") else first)

    return test


def _seconds(found: Value) -> float:
    """What is blank is at the epoch."""
    return found if isinstance(found, int) else 0
