"""Sizes on a command line: `-L` in units, `-l` in extents or per cent (lvcreate(8), lvextend(8)).

Letters are powers of 1024 in either case; `s` is sectors, `b` bytes; without a letter `m`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from ulvm.errors import RefusedError, UsageError
from ulvm.metadata.edit import cow_max_extents
from ulvm.metadata.model import LogicalVolume, VolumeGroup
from ulvm.units import SECTOR

__all__ = ["SizeRequest", "parse_extents", "parse_sectors", "parse_size"]

_SIZE = re.compile(r"([+-]?)(\d+(?:\.\d*)?|\.\d+)([bBsSkKmMgGtTpPeE]?)(?:i?[bB])?")
_EXTENTS = re.compile(r"([+-]?)(\d+)(?:%([A-Za-z]+))?")
_POWERS = {"k": 1, "m": 2, "g": 3, "t": 4, "p": 5, "e": 6}
_WHOLES = {
    **dict.fromkeys(("V", "VG"), "VG"),
    **dict.fromkeys(("F", "FR", "FREE"), "FREE"),
    **dict.fromkeys(("P", "PVS"), "PVS"),
    **dict.fromkeys(("L", "LV"), "LV"),
    **dict.fromkeys(("O", "ORIGIN"), "ORIGIN"),
}
_MOST = 1 << 55
"""Sectors."""


@dataclass(frozen=True, slots=True)
class SizeRequest:
    """One of `sectors`, `extents` and `percent` is set. `sign`: "" for absolute, "+" or "-"."""

    sign: str = ""
    sectors: int | None = None
    extents: int | None = None
    percent: int | None = None
    whole: str = ""
    """What the per cent are of: VG, FREE, PVS, LV, ORIGIN."""

    def count(self, extent_size: int) -> tuple[int, bool]:
        """(extents, rounded up) of a size that is not in per cent."""
        if self.extents is not None:
            return self.extents, False
        assert self.sectors is not None
        extents = -(-self.sectors // extent_size)
        return extents, extents * extent_size != self.sectors

    def for_new(
        self, vg: VolumeGroup, *, origin: str | None, chunk_size: int, pv_free: int | None
    ) -> int:
        """Extents for a new volume; per cent are rounded down, of the origin up (with room for
        the store's metadata). `pv_free`: free extents of the PVs that were named."""
        assert self.percent is not None
        match self.whole:
            case "VG":
                return vg.extent_count * self.percent // 100
            case "FREE":
                free = vg.free_count if pv_free is None else pv_free
                return free * self.percent // 100
            case "PVS":
                total = vg.extent_count if pv_free is None else pv_free
                return total * self.percent // 100
            case "ORIGIN" if origin is not None:
                base = vg.lv(origin)
                assert base is not None
                size = base.extent_count
                metadata = cow_max_extents(vg, origin, chunk_size) - size
                return metadata + -(-size * self.percent // 100)
        raise RefusedError("Please express size as %FREE, %ORIGIN, %PVS or %VG.")

    def for_resize(self, vg: VolumeGroup, lv: LogicalVolume, *, pv_free: int | None = None) -> int:
        """The extents that per cent stand for when a volume grows, rounded up, or shrinks.
        `pv_free`: free extents of the PVs that were named."""
        assert self.percent is not None
        snap = vg.snapshot_of(lv.name)
        origin = vg.lv(snap.origin) if snap else None
        match self.whole:
            case "VG":
                whole = vg.extent_count
            case "PVS":
                whole = vg.extent_count if pv_free is None else pv_free
            case "FREE":
                whole = vg.free_count
            case "LV":
                whole = lv.extent_count
            case "ORIGIN" if origin is not None:
                whole = origin.extent_count
            case _:
                raise RefusedError("Please express size as %FREE, %LV, %ORIGIN, %PVS or %VG.")
        if self.sign == "-":
            return whole * self.percent // 100
        return -(-whole * self.percent // 100)


def parse_sectors(text: str, option: str) -> int:
    """A size without a sign, in sectors, rounded up; UsageError."""
    request = parse_size(text, option)
    if request.sign:
        raise UsageError(f"Size may not be relative for {option}: {text}")
    assert request.sectors is not None
    return request.sectors


def parse_size(text: str, option: str = "--size") -> SizeRequest:
    """`-L`: [+|-]number[unit]."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise UsageError(f"Invalid argument for {option}: {text}")
    sign, number, letter = match.group(1), Fraction(match.group(2)), match.group(3).lower() or "m"
    if letter == "b":
        size = number
    elif letter == "s":
        size = number * SECTOR
    else:
        size = number * (1 << (10 * _POWERS[letter]))
    sectors = -(-size.numerator // (size.denominator * SECTOR))
    if sectors >= _MOST:
        raise UsageError(f"Size is too big for {option}: {text}")
    if not sectors:
        raise UsageError(f"{option} may not be zero.")
    return SizeRequest(sign, sectors=sectors)


def parse_extents(text: str) -> SizeRequest:
    """`-l`: [+|-]number[%WHOLE]."""
    match = _EXTENTS.fullmatch(text)
    if match is None:
        raise UsageError(f"Invalid argument for --extents: {text}")
    sign, number, whole = match.group(1), int(match.group(2)), match.group(3)
    if number == 0:
        raise UsageError("--extents may not be zero.")
    if whole is None:
        if number >= 1 << 32:
            raise RefusedError(f"Number of extents is too big: {text}")
        return SizeRequest(sign, extents=number)
    known = _WHOLES.get(whole.upper())
    if known is None:
        raise UsageError(f"Invalid argument for --extents: {text}")
    return SizeRequest(sign, percent=number, whole=known)
