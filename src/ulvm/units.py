"""Units of size, and numbers as C reads them.

A sector is 512 bytes everywhere, as in device-mapper and LVM2 metadata.
"""

from __future__ import annotations

from typing import NewType

__all__ = [
    "MAX_SECTORS",
    "SECTOR",
    "SECTOR_SHIFT",
    "Bytes",
    "Chunks",
    "Extents",
    "Sectors",
    "display_size",
    "parse_u64",
]

SECTOR = 512
SECTOR_SHIFT = 9
MAX_SECTORS = 1 << 55
"""Of a device: 2^64 bytes, 16 EiB."""

Bytes = NewType("Bytes", int)
Sectors = NewType("Sectors", int)
Chunks = NewType("Chunks", int)
Extents = NewType("Extents", int)

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def parse_u64(text: str) -> int | None:
    """The number of an unsigned decimal; None for anything else, or if 64 bits do not hold it."""
    digits = text.lstrip("0") or text[:1]
    if not (text.isascii() and text.isdecimal()) or len(digits) > 20:
        return None
    number = int(digits)
    return number if number < 1 << 64 else None


def hundredths(size: int, unit: int) -> int:
    """Of the unit, rounded as printf(3) does it: what lies in the middle goes to the even one."""
    whole, rest = divmod(size * 100, unit)
    return whole + (2 * rest > unit or (2 * rest == unit and whole % 2))


def display_size(sectors: int) -> str:
    """A size in LVM's messages: `4.00 MiB`, with `<` where rounding went up (display_size, 'r')."""
    size = sectors * SECTOR
    if size == 0:
        return "0   "
    shift = 0
    while size >> (10 * shift) >= 1024 and shift < len(_UNITS) - 1:
        shift += 1
    unit = 1 << (10 * shift)
    found = hundredths(size, unit)
    if found == 102400 and shift < len(_UNITS) - 1:
        shift, unit = shift + 1, unit << 10
        found = 100
    sign = "<" if found * unit > size * 100 else ""
    if shift == 0:
        return f"{size} B"
    return f"{sign}{found // 100}.{found % 100:02d} {_UNITS[shift]}"
