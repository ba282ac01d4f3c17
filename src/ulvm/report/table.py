"""What a field of a report is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ulvm.report.rows import Row

__all__ = ["Field", "Table", "Value"]

Value = str | int | None
"""None is blank."""

Table = tuple[tuple[str, str, str, int, Callable[[Row], Value]], ...]
"""(name, heading, kind, least width, value of a row)"""

_RIGHT = ("num", "size", "word", "bin")


@dataclass(frozen=True, slots=True)
class Field:
    """Kinds, as LVM2 has them:

    str, list, time  text; a list's items stand between commas or blanks
    pct              text, a number of two decimals or blank
    num, size        numbers; `size` in sectors
    bin              a word that says yes, blank for no, or `unknown`
    word             text that LVM2 counts as a number (`auto`)
    """

    name: str
    heading: str
    kind: str
    width: int
    value: Callable[[Row], Value]
    group: str
    """lv, seg, vg, pv or pvseg: what a report has a row for, if it shows the field."""

    @property
    def right(self) -> bool:
        """Whether it stands on the right of its column."""
        return self.kind in _RIGHT
