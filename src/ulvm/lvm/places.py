"""Which extents a command may take: the PVs at the end of its line (lvmcmd's PV arguments).

`PV`, `PV:first`, `PV:first-last` (either end may be left out), `PV:first+count`, several ranges
behind one another, and `@tag` for all PVs of the VG that have the tag. Allocation tries them in the
order of the command line.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress

from ulvm.errors import NotFoundError, RefusedError
from ulvm.lvm.names import given_device
from ulvm.lvm.session import Session
from ulvm.metadata.allocate import free_areas
from ulvm.metadata.model import PhysicalVolume, VolumeGroup
from ulvm.metadata.segments import PvExtents

__all__ = ["free_in", "places_of", "split_place"]

_RANGE = re.compile(r":(\d{1,10}(?!\d))?(?:([-+])(\d{1,10}(?!\d))?)?", re.ASCII)


def places_of(
    session: Session, vg: VolumeGroup, words: Sequence[str], *, source: bool = False
) -> list[PvExtents] | None:
    """What the words name, of the VG as it was scanned; None if there are none. RefusedError with
    LVM's sentence for a PV or a range that is not there; PVs that are closed to allocation are
    warned about. `source`: what lies there is meant, and not where something may lie."""
    if not words:
        return None
    found: dict[str, tuple[tuple[int, int], ...]] = {}
    for word in words:
        if word.startswith("@"):
            named = [(pv, "") for pv in vg.pvs if word[1:] in pv.tags]
        else:
            path, ranges = split_place(word)
            named = [(_member(session, vg, path), ranges)]
        for pv, ranges in named:
            if not pv.allocatable and not source:
                path = session.last_scan.path_of(pv.uuid) or pv.device
                session.warn_once(f"WARNING: Physical volume {path} not allocatable.")
                continue
            if vg.allocated(pv.uuid) == pv.pe_count and not source:
                path = session.last_scan.path_of(pv.uuid) or pv.device
                session.warn_once(f'WARNING: No free extents on physical volume "{path}".')
                continue
            runs = _ranges(ranges, pv) if ranges else ((0, pv.pe_count),)
            found[pv.uuid] = (*found.get(pv.uuid, ()), *runs)
            _check_apart(found[pv.uuid], session.last_scan.path_of(pv.uuid) or pv.device)
    return [PvExtents(uuid, runs) for uuid, runs in found.items()]


def split_place(word: str) -> tuple[str, str]:
    """(path, ranges with their colon). A file's own name may have colons."""
    if ":" in word and not os.path.exists(word):
        path, _, ranges = word.partition(":")
        return path, f":{ranges}"
    return word, ""


def _member(session: Session, vg: VolumeGroup, path: str) -> PhysicalVolume:
    scan, absolute = session.last_scan, given_device(path, session.host.run_dir)
    found = None
    if absolute not in scan.unused:
        with suppress(NotFoundError):
            found = vg.pv(scan.pv(absolute).uuid)
    if found is None:
        raise RefusedError(f'Physical Volume "{path}" not found in Volume Group "{vg.name}".')
    return found


def _ranges(text: str, pv: PhysicalVolume) -> tuple[tuple[int, int], ...]:
    """(first extent, number of extents) of each `:range`."""
    runs = []
    rest = text
    while rest:
        match = _RANGE.match(rest)
        first, sign, end = match.groups() if match else (None, None, None)
        if match is None or (first is None and sign != "-") or not _is_u32(first or "0"):
            raise RefusedError(f"Physical extent parsing error at {rest[1:]}.")
        start = int(first or 0)
        last = start if sign is None else pv.pe_count - 1
        if sign == "-" and end is not None:
            last = int(end)
        elif sign == "+" and end is not None:
            last = start + max(int(end), 1) - 1  # LVM2 takes `+0` for one extent.
        rest = rest[match.end() :]
        if rest and rest[0] != ":":
            raise RefusedError(f"Physical extent parsing error at {rest}.")
        if last < start or last >= pv.pe_count:
            raise RefusedError(f"PE range error: start extent {start} to end extent {last}.")
        runs.append((start, last - start + 1))
    return tuple(runs)


def _is_u32(number: str) -> bool:
    return int(number) < 1 << 32


def _check_apart(runs: Sequence[tuple[int, int]], path: str) -> None:
    """RefusedError if two runs have an extent in common."""
    for index, (first, count) in enumerate(runs):
        for other, length in runs[:index]:
            if first < other + length and other < first + count:
                raise RefusedError(
                    f"Overlapping PE ranges specified ({first}-{first + count - 1}, "
                    f"{other}-{other + length - 1}) on {path}."
                )


def free_in(vg: VolumeGroup, places: Sequence[PvExtents] | None) -> int | None:
    """Free extents in these places; None without places."""
    if places is None:
        return None
    return sum(
        length
        for place in places
        if (pv := vg.pv(place.pv_uuid)) is not None
        for _, length in place.within(free_areas(vg, pv))
    )
