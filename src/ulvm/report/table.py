"""What a field of a report is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ulvm.report.rows import Row

__all__ = ["Field", "Table", "Value"]

Value = str | int | None
"""None is blank. So is "", which means in a number or a size that it is not defined."""

Table = tuple[tuple[str, str, str, int, Callable[[Row], Value]], ...]
"""(name, heading, kind, least width, value of a row)"""

_RIGHT = ("num", "size", "word", "bin")


class Field(NamedTuple):
    """Kinds, as LVM2 has them:

    str, list, time  text; a list's items stand between commas or blanks; a time in seconds since
                     the epoch
    pct              text, a number of two decimals or blank
    num, size        numbers; `size` in sectors
    bin              a word that says yes, blank for no, or `unknown`
    word             text that LVM2 counts as a number (`auto`)
    """

    name: str
    heading: str
    kind: str
    width: int
    value: Callable[[Any], Value]
    """Of a row of the report that the field belongs to."""
    group: str
    """lv, seg, vg, pv or pvseg: what a report has a row for, if it shows the field."""
    type: str
    """str, list, num, size, pct or time: how a selection compares it."""

    @property
    def right(self) -> bool:
        """Whether it stands on the right of its column."""
        return self.kind in _RIGHT
