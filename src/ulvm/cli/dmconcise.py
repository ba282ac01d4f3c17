"""The concise form of devices: `name,uuid,minor,flags,table[,table...][;...]` (dmsetup(8))."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ulvm.dm_ioctl import DeviceInfo, TableLine
from ulvm.errors import TableError
from ulvm.units import parse_u64

__all__ = ["ConciseDevice", "concise", "read_concise"]

_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_SPECIAL = re.compile(r"[\\,;]")


class ConciseDevice(NamedTuple):
    name: str
    uuid: str
    minor: int | None
    read_only: bool
    table: str
    """A line a target."""


def read_concise(text: str) -> Iterator[ConciseDevice]:
    """One device after the other; TableError for one that is not well formed."""
    parts = _split(text.rstrip("\n"), ";")
    if not parts[-1]:
        del parts[-1]
    for part in parts:
        first, rest = (fields := [_plain(field) for field in _split(part, ",")])[:4], fields[4:]
        if not rest:
            shown = [*first, *["(null)"] * (5 - len(first))]
            raise TableError(
                "Five comma-separated fields are required for each device\n"
                + _parsed_fields(len(first), shown)
            )
        name, uuid, minor, flags = first
        table = "\n".join(rest)
        number = parse_u64(minor) if minor else None
        if not rest[-1] or (minor and number is None):
            raise TableError(
                "Incomplete entry: five comma-separated fields are required for each device\n"
                + _parsed_fields(5, [*first, table])
            )
        if flags not in ("", "ro", "rw"):
            raise TableError(f"Invalid flags parameter '{flags}' must be 'ro' or 'rw' or empty.")
        yield ConciseDevice(name, uuid, number, flags == "ro", table)


def _split(text: str, separator: str) -> list[str]:
    """At separators that no backslash stands before; backslashes stay."""
    parts = [""]
    for token in re.findall(r"\\.|.", text, re.DOTALL):
        if token == separator:
            parts.append("")
        else:
            parts[-1] += token
    return parts


def _plain(field: str) -> str:
    return _ESCAPED.sub(r"\1", field.lstrip())


def _parsed_fields(count: int, fields: Sequence[str]) -> str:
    names = ("name", "uuid", "minor", "flags", "table")
    shown = " ".join(f"{name}: {text}" for name, text in zip(names, fields, strict=True))
    return f"Parsed {count} fields: {shown}"


def concise(device: DeviceInfo, table: Sequence[TableLine]) -> str:
    """The form in which `read_concise` takes the device."""
    flags = "ro" if device.read_only else "rw"
    fields = [device.name, device.uuid, str(device.minor), flags, *map(str, table)]
    return ",".join(_SPECIAL.sub(r"\\\g<0>", field) for field in fields)
