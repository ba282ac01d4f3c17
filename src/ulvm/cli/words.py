"""Types of options' values; refused in LVM's words."""

from __future__ import annotations

import click

from ulvm.errors import UsageError
from ulvm.units import parse_u64

__all__ = [
    "ALLOC",
    "COPIES",
    "PERMISSION",
    "READ_AHEAD",
    "REPORT_FORMAT",
    "YES_NO",
    "Alloc",
    "Copies",
    "Number",
    "OneOf",
    "ReadAhead",
    "SegmentType",
]


def _invalid(param: click.Parameter | None, value: str) -> UsageError:
    """By the first long spelling of the option, or the name of the argument."""
    if isinstance(param, click.Argument):
        return UsageError(f"Invalid {param.name}: {value}")
    spellings = param.opts if param is not None else []
    long = next((o for o in spellings if o.startswith("--")), "option")
    return UsageError(f"Invalid argument for {long}: {value}")


class OneOf(click.ParamType["str"]):
    """An option's value out of a few words; refused in LVM's words."""

    name = "word"

    def __init__(self, *words: str) -> None:
        self.words = words

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        return "|".join(self.words)

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value not in self.words:
            raise _invalid(param, value)
        return value


class Number(click.ParamType["int"]):
    """A whole number, at most `most`; refused in LVM's words."""

    name = "number"

    def __init__(self, most: int = (1 << 32) - 1) -> None:
        self.most = most

    def convert(
        self, value: str | int, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        if isinstance(value, int):
            return value
        number = parse_u64(value.removeprefix("+"))
        if number is None or number > self.most:
            raise _invalid(param, value)
        return number


class Alloc(OneOf):
    """A volume's allocation policy. cling_by_tags is cling: PVs are not chosen by tags."""

    def __init__(self) -> None:
        super().__init__("contiguous", "cling", "cling_by_tags", "normal", "anywhere", "inherit")

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value not in self.words:
            problem = _invalid(param, value)
            raise UsageError(f"Unrecognised allocation policy {value}\n{problem.message}")
        return "cling" if value == "cling_by_tags" else value


class SegmentType(OneOf):
    """--type."""

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value not in self.words:
            from ulvm.cli.absent import absent_type

            absent = absent_type(value)
            if absent is not None:
                raise UsageError(absent)
            problem = _invalid(param, value)
            raise UsageError(f"WARNING: Unrecognised segment type {value}\n{problem.message}")
        return value


class ReadAhead(click.ParamType["int"]):
    """-r: sectors, or a size with a unit; 0 for auto, -1 for none."""

    name = "auto|none|sectors"

    def convert(
        self, value: str | int, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        if isinstance(value, int):
            return value
        word = value.lower()
        if word in ("auto", "none"):
            return 0 if word == "auto" else -1
        if value.startswith("-"):
            raise _invalid(param, value)
        from ulvm.lvm.sizes import parse_sectors

        return parse_sectors(value, "--readahead", unit="s")


class Copies(click.ParamType["int"]):
    """--vgmetadatacopies: a number, `all` (-1) or `unmanaged` (0)."""

    name = "all|unmanaged|number"

    def convert(
        self, value: str | int, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        if isinstance(value, int):
            return value
        if value in ("all", "unmanaged"):
            return -1 if value == "all" else 0
        number = parse_u64(value)
        if number is None or number >= 1 << 32:
            raise _invalid(param, value)
        return number


YES_NO = OneOf("y", "n")
COPIES = Copies()
PERMISSION = OneOf("r", "rw")
REPORT_FORMAT = OneOf("basic", "json", "json_std")
ALLOC = Alloc()
READ_AHEAD = ReadAhead()
