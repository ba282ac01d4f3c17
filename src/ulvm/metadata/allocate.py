"""Which physical extents a volume gets: LVM2's allocation policies for linear volumes.

Facts: spec/lvm2-format.md sec. 6 (lib/metadata/lv_manip.c). Policies are tried in the order
contiguous, cling, normal, anywhere, up to the one that is allowed; what an earlier one found is
kept:

- contiguous: the whole request in one area, which for an extension follows the last extent; for a
  new volume the smallest area of a PV that holds it, on the first PV that has one;
- cling: on the PV of the last extent;
- normal, anywhere: the largest areas first, wherever they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ulvm.errors import RefusedError
from ulvm.metadata.model import PhysicalVolume, VolumeGroup
from ulvm.metadata.segments import PvRun, pv_runs

__all__ = ["POLICIES", "FreeArea", "allocate", "effective_policy", "free_areas"]

POLICIES = ("contiguous", "cling", "normal", "anywhere")


class FreeArea(NamedTuple):
    """Unused extents [pe, pe + length) of one PV."""

    pe: int
    length: int


def free_areas(vg: VolumeGroup, pv: PhysicalVolume) -> list[FreeArea]:
    """The unused runs of a PV by ascending extent."""
    used = sorted(
        (run.pe, run.length) for lv in vg.lvs for run in pv_runs(lv) if run.pv_uuid == pv.uuid
    )
    areas = []
    at = 0
    for pe, length in used:
        if pe > at:
            areas.append(FreeArea(at, pe - at))
        at = pe + length
    if at < pv.pe_count:
        areas.append(FreeArea(at, pv.pe_count - at))
    return areas


def effective_policy(vg: VolumeGroup, policy: str | None) -> str:
    """A volume's policy, the VG's where it inherits."""
    found = vg.allocation_policy if policy in (None, "inherit") else policy
    return found if found in POLICIES else "normal"


def allocate(
    vg: VolumeGroup,
    extents: int,
    *,
    name: str,
    policy: str = "normal",
    pv_uuids: Sequence[str] | None = None,
    after: PvRun | None = None,
) -> tuple[PvRun, ...]:
    """Runs of physical extents for `extents` logical ones, in logical order.

    `pv_uuids`: only these PVs, in this order. `after`: the run that the new extents will follow.
    RefusedError with LVM's sentence if they are not to be had; `name` is the volume's, for it.
    """
    if extents <= 0:
        raise RefusedError("Unable to allocate less than one extent.")
    space = _Space(vg, pv_uuids)
    if not space.areas:
        raise RefusedError("No specified PVs have space available.")
    runs: list[PvRun] = []
    needed = extents
    for level in POLICIES[: POLICIES.index(policy) + 1]:
        last = runs[-1] if runs else after
        if level == "contiguous":
            found = _contiguous(space, needed, after)
        elif level == "cling":
            found = _split(space, needed, [last.pv_uuid]) if last else []
        else:
            found = _split(space, needed, list(space.areas))
        runs += found
        needed -= sum(run.length for run in found)
        if not needed:
            return tuple(runs)
    kind = "contiguous " if policy == "contiguous" else ""
    raise RefusedError(
        f"Insufficient suitable {kind}allocatable extents for logical volume {name}: "
        f"{needed} more required"
    )


class _Space:
    """The free areas of each PV that may be used, the largest first, shrinking as they go."""

    def __init__(self, vg: VolumeGroup, pv_uuids: Sequence[str] | None) -> None:
        wanted = [pv.uuid for pv in vg.pvs] if pv_uuids is None else list(pv_uuids)
        self.areas: dict[str, list[FreeArea]] = {}
        for uuid in wanted:
            pv = vg.pv(uuid)
            if pv is None or not pv.allocatable or pv.missing or uuid in vg.missing_uuids:
                continue
            free = free_areas(vg, pv)
            if free:
                self.areas[uuid] = sorted(free, key=lambda a: (-a.length, a.pe))

    def take(self, pv_uuid: str, area: FreeArea, length: int) -> PvRun:
        """The first `length` extents of an area; the rest stays free."""
        areas = self.areas[pv_uuid]
        areas.remove(area)
        if length < area.length:
            areas.append(FreeArea(area.pe + length, area.length - length))
            areas.sort(key=lambda a: (-a.length, a.pe))
        return PvRun(pv_uuid, area.pe, length)


def _contiguous(space: _Space, needed: int, after: PvRun | None) -> list[PvRun]:
    """One run for the whole request, or nothing."""
    if after is not None:
        for area in space.areas.get(after.pv_uuid, ()):
            if area.pe == after.pe + after.length and area.length >= needed:
                return [space.take(after.pv_uuid, area, needed)]
        return []
    for uuid, areas in space.areas.items():
        fitting = [area for area in areas if area.length >= needed]
        if fitting:
            return [space.take(uuid, fitting[-1], needed)]
    return []


def _split(space: _Space, needed: int, pv_uuids: list[str]) -> list[PvRun]:
    """As much as there is on these PVs: an area that holds all of the rest, the smallest of its
    PV, else the largest area of all."""
    runs: list[PvRun] = []
    while needed:
        candidates = []
        for order, uuid in enumerate(pv_uuids):
            areas = space.areas.get(uuid, ())
            fitting = [area for area in areas if area.length >= needed]
            best = fitting[-1] if fitting else (areas[0] if areas else None)
            if best is not None:
                candidates.append((-min(best.length, needed), order, uuid, best))
        if not candidates:
            break
        _, _, uuid, area = min(candidates)
        runs.append(space.take(uuid, area, min(area.length, needed)))
        needed -= runs[-1].length
    return runs
