"""Sizes on a command line: `-L` in units, `-l` in extents or per cent (lvcreate(8), lvextend(8)).

Letters are powers of 1024 in either case; `s` is sectors, `b` bytes; without a letter `m`. Numbers
are what strtod(3) reads, `1e3` and `0x10` too, and only the first letter behind one counts, as in
LVM2.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from ulvm.errors import RefusedError, UsageError
from ulvm.metadata.cow import cow_max_extents
from ulvm.metadata.layout import MAX_EXTENTS
from ulvm.metadata.model import LogicalVolume, VolumeGroup
from ulvm.units import MAX_SECTORS, SECTOR, display_size

__all__ = ["SizeRequest", "parse_extents", "parse_sectors", "parse_size"]

_SIZE = re.compile(
    r"([+-]?)(?:0[xX]([0-9a-fA-F]+)(?![.pP])|((?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,3})?))"
    r"(?:([bBsSkKmMgGtTpPeE]).*)?",
    re.ASCII | re.DOTALL,
)
_EXTENTS = re.compile(r"([+-]?)(\d+)(?:%(.*))?", re.ASCII | re.DOTALL)
_LONGEST = 100
"""Characters of a number: with its sign, leading zeros and all."""
_POWERS = {"k": 1, "m": 2, "g": 3, "t": 4, "p": 5, "e": 6}
_WHOLES = {
    **dict.fromkeys(("V", "VG"), "VG"),
    **dict.fromkeys(("F", "FR", "FREE"), "FREE"),
    **dict.fromkeys(("P", "PVS"), "PVS"),
    **dict.fromkeys(("L", "LV"), "LV"),
    **dict.fromkeys(("O", "ORIGIN"), "ORIGIN"),
}
_MOST_PERCENT = (1 << 32) - 2
_UNSIGNED = {"--virtualsize", "--metadatasize", "--bootloaderareasize", "--setphysicalvolumesize"}


class SizeRequest(NamedTuple):
    """One of `sectors`, `extents` and `percent` is set. `sign`: "" for absolute, "+" or "-"."""

    sign: str = ""
    sectors: int | None = None
    extents: int | None = None
    percent: int | None = None
    whole: str = ""
    """What the per cent are of: VG, FREE, PVS, LV, ORIGIN."""

    def in_extents(self, extent_size: int) -> tuple[int, bool]:
        """(extents, rounded up) of a size that is not in per cent. RefusedError if no volume can
        be so large."""
        if self.extents is not None:
            return self.extents, False
        assert self.sectors is not None
        extents = -(-self.sectors // extent_size)
        if extents > MAX_EXTENTS:
            raise RefusedError(
                f"Volume too large ({display_size(extents * extent_size)}) for extent size "
                f"{display_size(extent_size)}. "
                f"Upper limit is less than {display_size(MAX_EXTENTS * extent_size)}."
            )
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
        known = "%FREE, %PVS or %VG" if origin is None else "%FREE, %ORIGIN, %PVS or %VG"
        raise RefusedError(f"Please express size as {known}.")

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
                raise RefusedError("Specified LV does not have an origin LV.")
        if self.sign == "-":
            return whole * self.percent // 100
        return -(-whole * self.percent // 100)


def parse_sectors(text: str, option: str, *, unit: str = "m", zero: bool = False) -> int:
    """A size without a sign, in sectors, rounded up; UsageError. `zero`: it may be none,
    and is refused in the words for the size of extents."""
    if (zero or option in _UNSIGNED) and text[:1] in ("+", "-"):
        raise _bad("Size may not be relative/signed.", option, text)
    request = parse_size(text, option, signs="+", unit=unit, zero=zero)
    assert request.sectors is not None
    return request.sectors


def parse_size(
    text: str,
    option: str = "--size",
    *,
    signs: str = "+-",
    unit: str = "m",
    zero: bool = False,
) -> SizeRequest:
    """`-L`: [+|-]number[unit], where the command takes one of `signs`; `unit` if none is given."""
    from fractions import Fraction  # With all of decimal: for a command with a size alone.

    match = _SIZE.fullmatch(text)
    if match is None or len(text) > _LONGEST:
        raise _bad(_size_problem(text), option, text)
    _check_sign(text, option, "Size", signs)
    sign, letter = match.group(1), (match.group(4) or unit).lower()
    number = Fraction(int(match.group(2), 16)) if match.group(2) else Fraction(match.group(3))
    # As a double has it, which LVM2 reads it into.
    if number >= (1 << 64) - 1024:
        raise _bad("Size is too big (>=16EiB).", option, text)
    if letter == "b":
        size = number
        below = int(number) // SECTOR * SECTOR
        if below != number:
            raise _bad(
                f"Size is not a multiple of 512. Try using {below} or {below + SECTOR}.",
                option,
                text,
            )
    elif letter == "s":
        size = number * SECTOR
    else:
        size = number * (1 << (10 * _POWERS[letter]))
    sectors = -(-size.numerator // (size.denominator * SECTOR))
    if sectors >= MAX_SECTORS:
        raise _bad("Size is too big (>=16EiB).", option, text)
    if not sectors and not zero:
        raise UsageError(f"{option} may not be zero.")
    return SizeRequest(sign, sectors=sectors)


def _size_problem(text: str) -> str:
    if re.match(r"[+-]{2}", text):
        return "Multiple sign symbols detected."
    plain = text.lstrip("+-")
    if plain.startswith("."):
        return "Can't parse size argument at '.'."
    return "Can't parse size argument." if plain[:1].isdigit() else "Size requires number argument."


def parse_extents(text: str, *, signs: str = "+-") -> SizeRequest:
    """`-l`: [+|-]number[%WHOLE], where the command takes one of `signs`."""
    option = "--extents"
    match = _EXTENTS.fullmatch(text)
    if match is None or len(text) > _LONGEST or int(match.group(2)) >= 1 << 64:
        raise UsageError(f"Invalid argument for {option}: {text}")
    sign, number, whole = match.group(1), int(match.group(2)), match.group(3)
    known = _WHOLES.get(whole.upper()) if whole is not None else None
    if whole is not None and known is None:
        raise _bad(f"Specified %{whole} is unknown.", option, text)
    _check_sign(text, option, "Extents", signs)
    if whole is not None and number > _MOST_PERCENT:
        raise _bad("Percentage is too big (>=-1%).", option, text)
    if number == 0:
        raise UsageError(f"{option} may not be zero.")
    if whole is None:
        return SizeRequest(sign, extents=min(number, MAX_EXTENTS))
    assert known is not None
    return SizeRequest(sign, percent=number, whole=known)


def _check_sign(text: str, option: str, what: str, signs: str) -> None:
    if text[:1] in ("+", "-") and text[0] not in signs:
        word = "negative" if text[0] == "-" else "positive"
        raise _bad(f"{what} may not be {word}.", option, text)
    if text[:1] in ("+", "-") and text[1:2] in ("+", "-"):
        raise _bad("Multiple sign symbols detected.", option, text)


def _bad(problem: str, option: str, text: str) -> UsageError:
    return UsageError(f"{problem}\nInvalid argument for {option}: {text}")
