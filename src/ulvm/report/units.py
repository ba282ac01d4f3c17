"""Sizes in reports: `--units` and `--nosuffix` (lvmreport(7), display_size of LVM2).

h H   human, powers of 1024 or of 1000       r R   the same, `<` where rounding went up
b s   bytes, sectors                         k m g t p e   1024       K M G T P E   1000
4m    in units of 4 MiB, which are called U; 1.5m too, which are called m
"""

from __future__ import annotations

import re
from typing import NamedTuple

from ulvm.errors import UsageError
from ulvm.units import SECTOR, hundredths

__all__ = ["SizeFormat", "parse_units"]

_LETTERS = "bkmgtpe"
_BIG = {"K": "kB", "M": "MB", "G": "GB", "T": "TB", "P": "PB", "E": "EB"}
"""Powers of 1000, as the long forms write them."""


class SizeFormat(NamedTuple):
    """How sizes are written; `unit` is one letter of the table above."""

    unit: str = "r"
    suffix: bool = True
    factor: int = 0
    """Bytes of a unit of one's own: a number stood before the letter."""
    binary: bool = False
    """Yes and no as 1 and 0, unknown as -1 (--binary)."""
    named: bool = False
    """The unit of one's own is between one and two of the letter's, and keeps its name."""

    def text(self, sectors: int) -> str:
        """`32.00m`, `<5.00g`, `65536S`, `0 `."""
        size = sectors * SECTOR
        human = self.unit in "hHrR"
        if self.factor:
            name = self.unit if self.named else "U"
            name = name.upper() if name in "bs" else name
            return self._in_units(size) + (name if self.suffix else "")
        if self.unit in "bBsS":
            whole = size if self.unit in "bB" else sectors
            return f"{whole}{self.unit.upper()}" if self.suffix else str(whole)
        base = 1000 if self.unit.isupper() else 1024
        if size == 0:
            if human:
                return "0 " if self.suffix else "0"
            return f"0{self.unit}" if self.suffix else "0"
        power = _power(size, base) if human else _LETTERS.index(self.unit.lower())
        number = hundredths(size, base**power)
        if human and number >= base * 100 and power < len(_LETTERS) - 1:
            power += 1
            number = hundredths(size, base**power)
        below = self.unit in "rR" and number * base**power > size * 100
        letter = _LETTERS[power].upper() if base == 1000 else _LETTERS[power]
        if power == 0:
            letter = "B"
        number_text = f"{number // 100}.{number % 100:02d}"
        return ("<" if below else "") + number_text + (letter if self.suffix or human else "")

    def long_text(self, sectors: int) -> str:
        """As displays have it: `32.00 MiB`, `<5.00 GB`, `65536 Se`, `24.75 Un`. The unit of human
        sizes stays without suffixes, too."""
        size = sectors * SECTOR
        human = self.unit in "hHrR"
        base = 1000 if self.unit.isupper() else 1024
        if human and size == 0:
            return "0   "
        if self.factor:
            number, name = self._in_units(size), self._long_name() if self.named else "Un"
        elif self.unit in "bBsS":
            whole, name = (size, "B ") if self.unit in "bB" else (sectors, "Se")
            return f"{whole} {name}" if self.suffix else str(whole)
        else:
            short = SizeFormat(self.unit, factor=0).text(sectors)
            number = short[:-1]
            if short[-1] == "B":
                return f"{size} B"
            name = SizeFormat(short[-1].upper() if base == 1000 else short[-1])._long_name()
        if size == 0:
            number = "0"
        return f"{number} {name}" if self.suffix or human else number

    def _in_units(self, size: int) -> str:
        number = hundredths(size, self.factor)
        if self.named and self.unit in "bBsS":
            return str((number + 50) // 100)
        return f"{number // 100}.{number % 100:02d}" if size else "0"

    def _long_name(self) -> str:
        letter = self.unit.upper()
        if letter in "BS":
            return "B " if letter == "B" else "Se"
        return _BIG[letter] if self.unit.isupper() else f"{letter}iB"


def _power(size: int, base: int) -> int:
    power = 0
    while size >= base ** (power + 1) and power < len(_LETTERS) - 1:
        power += 1
    return power


def parse_units(text: str, *, suffix: bool = True, binary: bool = False) -> SizeFormat:
    """The value of --units; UsageError."""
    match = re.fullmatch(r"(\d{1,20}\.?\d{0,20})?([hrbskmgtpe])", text, re.I | re.A)
    if match is None:
        raise UsageError("Invalid units specification")
    count, unit = match.groups()
    # A number before h or r means nothing.
    if count is None or unit in "hHrR":
        return SizeFormat(unit, suffix, binary=binary)
    base = 1000 if unit.isupper() else 1024
    one = SECTOR if unit in "sS" else base ** _LETTERS.index(unit.lower())
    whole, _, parts = count.partition(".")
    factor = int(whole + parts) * one // 10 ** len(parts)
    if not 0 < factor < 1 << 64:
        raise UsageError("Invalid units specification")
    if factor == one:
        return SizeFormat(unit, suffix, binary=binary)
    return SizeFormat(unit, suffix, factor, binary, named=int(whole) == 1)
