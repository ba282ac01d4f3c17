"""Types of options' values; refused in LVM's words."""

from __future__ import annotations

import click

from ulvm.errors import UsageError
from ulvm.units import parse_u64

__all__ = ["PERMISSION", "POLICY", "YES_NO", "Number", "OneOf"]


def _invalid(param: click.Parameter | None, value: str) -> UsageError:
    """By the first long spelling of the option."""
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
        number = parse_u64(value)
        if number is None or number > self.most:
            raise _invalid(param, value)
        return number


YES_NO = OneOf("y", "n")
POLICY = OneOf("contiguous", "cling", "normal", "anywhere")
PERMISSION = OneOf("r", "rw")
