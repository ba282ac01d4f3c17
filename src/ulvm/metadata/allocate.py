"""Which physical extents a volume gets: LVM2's allocation policies.

Facts: spec/lvm2-format.md sec. 6 and the choices of LVM2 2.03.16 itself, against which
tests/conformance/test_lvm2_metadata.py holds this module. Policies are tried in the order
contiguous, cling, normal, anywhere, up to the one that is allowed; what an earlier one found is
kept, and a run may be shorter than what is wanted unless only `contiguous` is allowed:

- contiguous: one run. For an extension the one right behind the last extent; for a new volume an
  area of the PV that has most of what is needed, the first such PV;
- cling: the largest areas of the PV where the volume begins, one after the other;
- normal, anywhere: areas of the PVs that were chosen so far, the smallest first, and when there are
  none left an area of the PV that has most of what is still needed.

For stripes each of these takes as many areas at once, one of a PV, those that give most first, and
of each as much as the shortest has.

Which area of a PV, see `_walk`. Of areas of one size the one with the lower extents counts as the
larger at first.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Collection, Sequence
from copy import copy
from typing import NamedTuple

from ulvm.errors import RefusedError
from ulvm.metadata.model import PhysicalVolume, VolumeGroup
from ulvm.metadata.segments import PvExtents, PvRun

__all__ = [
    "POLICIES",
    "FreeArea",
    "allocatable_extents",
    "allocate",
    "allocate_beside",
    "allocate_striped",
    "effective_policy",
    "free_areas",
]

POLICIES = ("contiguous", "cling", "normal", "anywhere")


class FreeArea(NamedTuple):
    """Unused extents [pe, pe + length) of one PV."""

    pe: int
    length: int


def free_areas(vg: VolumeGroup, pv: PhysicalVolume) -> list[FreeArea]:
    """The unused runs of a PV by ascending extent."""
    areas = []
    at = 0
    for pe, length in vg.used_runs(pv.uuid):
        if pe > at:
            areas.append(FreeArea(at, pe - at))
        at = pe + length
    if at < pv.pe_count:
        areas.append(FreeArea(at, pv.pe_count - at))
    return areas


def allocatable_extents(vg: VolumeGroup, places: Sequence[PvExtents] | None = None) -> int:
    """The free extents that a volume may get, in these places only if they are given."""
    return _Space(vg, places).free


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
    places: Sequence[PvExtents] | None = None,
    existing: Sequence[PvRun] = (),
    approximate: bool = False,
) -> tuple[PvRun, ...]:
    """Runs of physical extents for `extents` logical ones, in logical order.

    `places`: only there, in this order. `existing`: the runs that a volume which is extended
    has. `approximate`: as many as are to be had, none perhaps; else RefusedError with LVM's
    sentence if not all are; `name` is the volume's, for it.
    """
    if extents <= 0:
        raise RefusedError("Unable to allocate less than one extent.")
    search = _Search(_Space(vg, places), extents, may_split=policy != "contiguous")
    if places is not None and search.space.full:
        raise RefusedError("No specified PVs have space available.")
    for level in POLICIES[: POLICIES.index(policy) + 1]:
        free = search.space.free
        if search.needed > free and not approximate:
            raise RefusedError(
                f"Insufficient free space: {search.needed} extents needed, "
                f"but only {free} available"
            )
        if level == "contiguous" and existing:
            search.follow(existing[-1])
        elif level == "contiguous":
            search.take_best()
        elif level == "cling":
            search.cling(existing[0].pv_uuid if existing else None)
        else:
            search.spread()
        if not search.needed:
            break
    if not search.needed or approximate:
        return tuple(search.runs)
    kind = "" if search.may_split else "contiguous "
    raise RefusedError(
        f"Insufficient suitable {kind}allocatable extents for logical volume {name}: "
        f"{search.needed} more required"
    )


def allocate_beside(
    vg: VolumeGroup,
    pieces: Sequence[tuple[int, frozenset[str]]],
    *,
    policy: str = "normal",
    places: Sequence[PvExtents] | None = None,
) -> tuple[tuple[PvRun, ...], ...]:
    """Runs for each piece (its extents, and the PVs that it must keep away from unless anywhere is
    allowed), as LVM gives them to the second half of a mirror: one piece after the other by one
    policy, and on by the next one from the piece that has not got all. RefusedError."""
    space = _Space(vg, places)
    left = [length for length, _ in pieces]
    runs: list[list[PvRun]] = [[] for _ in pieces]
    first: str | None = None
    at = 0
    for level in POLICIES[: POLICIES.index(policy) + 1]:
        needed, free = sum(left), space.free
        if needed > free:
            raise RefusedError(
                f"Insufficient free space: {needed} extents needed, but only {free} available"
            )
        while at < len(pieces):
            shunned = frozenset() if level == "anywhere" else pieces[at][1]
            search = _Search(space.without(shunned), left[at], may_split=policy != "contiguous")
            if level == "contiguous":
                search.take_best()
            elif level == "cling":
                search.cling(first)
            else:
                search.spread()
            runs[at] += search.runs
            left[at] = search.needed
            if first is None and search.runs:
                first = search.runs[0].pv_uuid
            at += not left[at]
            if level == "contiguous" or (at < len(left) and left[at] and not search.runs):
                break
        if at == len(pieces):
            return tuple(tuple(found) for found in runs)
    kind = "contiguous " if policy == "contiguous" else ""
    raise RefusedError(
        f"Insufficient suitable {kind}allocatable extents for logical volume : "
        f"{sum(left)} more required"
    )


def allocate_striped(
    vg: VolumeGroup,
    extents: int,
    stripes: int,
    *,
    name: str,
    policy: str = "normal",
    places: Sequence[PvExtents] | None = None,
    existing: Sequence[Sequence[PvRun]] = (),
    approximate: bool = False,
) -> tuple[tuple[PvRun, ...], ...]:
    """Sets of `stripes` runs of one length on different PVs, in logical order; `extents` in all,
    a multiple of `stripes`. `existing`: the sets that a volume which is extended has.
    `approximate` and RefusedError as `allocate`."""
    search = _StripeSearch(_Space(vg, places), extents // stripes, stripes)
    if places is not None and search.space.full:
        raise RefusedError("No specified PVs have space available.")
    if extents > search.space.free and not approximate:
        raise RefusedError(
            f"Insufficient free space: {extents} extents needed, "
            f"but only {search.space.free} available"
        )
    for level in POLICIES[: POLICIES.index(policy) + 1]:
        if level == "contiguous" and existing:
            search.follow(existing[-1])
        elif level == "contiguous":
            search.take_best(may_split=policy != "contiguous")
        elif level == "cling":
            search.cling([run.pv_uuid for run in existing[0]] if existing else None)
        else:
            while search.needed and search.take_best(may_split=True):
                pass
        if not search.needed:
            break
    if not search.needed or approximate:
        return tuple(search.sets)
    kind = "contiguous " if policy == "contiguous" else ""
    raise RefusedError(
        f"Insufficient suitable {kind}allocatable extents for logical volume {name}: "
        f"{search.needed * stripes} more required"
    )


class _Space:
    """The free areas of each PV that may be used, the largest first, shrinking as they go."""

    def __init__(self, vg: VolumeGroup, places: Sequence[PvExtents] | None) -> None:
        wanted = [PvExtents(pv.uuid) for pv in vg.pvs] if places is None else places
        self.areas: dict[str, list[FreeArea]] = {}
        self.full = True
        """No PV of these has a free extent, outside the runs that are given either."""
        for place in wanted:
            uuid = place.pv_uuid
            pv = vg.pv(uuid)
            if pv is None or not pv.allocatable or pv.missing or uuid in vg.missing_uuids:
                continue
            areas = free_areas(vg, pv)
            self.full = self.full and not areas
            free = [FreeArea(*run) for run in place.within(areas)]
            if free:
                # Of one size, in the order of the ranges that were given.
                self.areas[uuid] = sorted(free, key=lambda a: -a.length)

    def without(self, pv_uuids: Collection[str]) -> _Space:
        """The same areas, which shrink together, but for those of these PVs."""
        if not pv_uuids:
            return self
        rest = copy(self)
        rest.areas = {uuid: a for uuid, a in self.areas.items() if uuid not in pv_uuids}
        return rest

    @property
    def free(self) -> int:
        """Extents."""
        return sum(area.length for areas in self.areas.values() for area in areas)

    def take(self, pv_uuid: str, area: FreeArea, length: int) -> PvRun:
        """The first `length` extents of an area; the rest stays free."""
        self.areas[pv_uuid].remove(area)
        if length < area.length:
            self._insert(pv_uuid, FreeArea(area.pe + length, area.length - length))
        return PvRun(pv_uuid, area.pe, length)

    def put_last(self, pv_uuid: str, area: FreeArea) -> None:
        """Behind the others of its size, if it is still there."""
        if area in self.areas[pv_uuid]:
            self.areas[pv_uuid].remove(area)
            self._insert(pv_uuid, area)

    def _insert(self, pv_uuid: str, area: FreeArea) -> None:
        insort(self.areas[pv_uuid], area, key=lambda a: -a.length)


class _Search:
    """What was found so far, and the steps that find more."""

    def __init__(self, space: _Space, needed: int, *, may_split: bool) -> None:
        self.space = space
        self.needed = needed
        self.may_split = may_split
        self.runs: list[PvRun] = []

    def _take(self, pv_uuid: str, area: FreeArea) -> None:
        run = self.space.take(pv_uuid, area, min(area.length, self.needed))
        self.runs.append(run)
        self.needed -= run.length

    def follow(self, last: PvRun) -> None:
        """The area that begins where the volume ends."""
        for area in self.space.areas.get(last.pv_uuid, ()):
            if area.pe == last.pe + last.length:
                self._take(last.pv_uuid, area)
                return

    def take_best(self) -> bool:
        """An area of the first PV that has most of what is needed."""
        found = {}
        for uuid, areas in self.space.areas.items():
            if areas and (self.may_split or areas[0].length >= self.needed):
                found[uuid] = _walk(areas, self.needed, whole=True)
        return self._take_from(found)

    def cling(self, pv_uuid: str | None) -> None:
        """All of one PV: the given one, or for a new volume that of its first run."""
        if pv_uuid is None and self.runs:
            pv_uuid = self.runs[0].pv_uuid
        while self.needed and pv_uuid is not None and self.space.areas.get(pv_uuid):
            self._take(pv_uuid, self.space.areas[pv_uuid][0])

    def spread(self) -> None:
        """Wherever there is space."""
        while self.needed:
            chosen = {run.pv_uuid for run in self.runs}
            near = {
                uuid: _walk(areas, self.needed, whole=False)
                for uuid, areas in self.space.areas.items()
                if areas and uuid in chosen
            }
            if not self._take_from(near) and not self.take_best():
                return

    def _take_from(self, walks: dict[str, list[FreeArea]]) -> bool:
        """Of the areas that the walks end with, one a PV, that which gives most; the first of
        those that give the same."""
        if not walks:
            return False
        uuid = max(walks, key=lambda u: min(walks[u][-1].length, self.needed))
        self._take(uuid, walks[uuid][-1])
        for pv_uuid, walk in walks.items():
            for area in walk:
                self.space.put_last(pv_uuid, area)
        return True


def _walk(areas: Sequence[FreeArea], needed: int, *, whole: bool) -> list[FreeArea]:
    """The areas of one PV that LVM considers; it takes the last of them.

    It goes from the largest to the smallest and changes to a smaller one only if that is smaller
    than what would be left of the one it has: the list it walks is kept sorted by what is left.
    `whole`: and only if the smaller one holds all that is needed. An area that was considered is
    the last of its size the next time (`put_last`).
    """
    walk = [areas[0]]
    for area in areas[1:]:
        if whole and area.length < needed:
            break
        left = walk[-1].length - needed
        if left <= 0 or area.length < left:
            walk.append(area)
    return walk


class _StripeSearch:
    """As `_Search`, for sets of areas; `needed` counts extents of each stripe."""

    def __init__(self, space: _Space, needed: int, stripes: int) -> None:
        self.space = space
        self.needed = needed
        self.stripes = stripes
        self.sets: list[tuple[PvRun, ...]] = []

    def _take(self, chosen: Sequence[tuple[str, FreeArea]]) -> None:
        length = min(self.needed, *(area.length for _, area in chosen))
        self.sets.append(tuple(self.space.take(uuid, area, length) for uuid, area in chosen))
        self.needed -= length

    def follow(self, last: Sequence[PvRun]) -> None:
        """The areas that begin where the stripes end, if all are there."""
        found = [
            (run.pv_uuid, area)
            for run in last
            for area in self.space.areas.get(run.pv_uuid, ())
            if area.pe == run.pe + run.length
        ]
        if len(found) == len(last) == self.stripes:
            self._take(found)

    def cling(self, pv_uuids: Sequence[str] | None) -> None:
        """More of the same PVs."""
        if pv_uuids is None:
            pv_uuids = [run.pv_uuid for run in self.sets[0]] if self.sets else []
        while self.needed and len(pv_uuids) == self.stripes:
            found = [(uuid, areas[0]) for uuid in pv_uuids if (areas := self.space.areas.get(uuid))]
            if len(found) < self.stripes:
                return
            self._take(found)

    def take_best(self, *, may_split: bool) -> bool:
        """One area each of the PVs that have most of what is needed."""
        walks = {
            uuid: _walk(areas, self.needed, whole=True)
            for uuid, areas in self.space.areas.items()
            if areas and (may_split or areas[0].length >= self.needed)
        }
        if len(walks) < self.stripes:
            return False
        order = sorted(walks, key=lambda u: -min(walks[u][-1].length, self.needed))
        self._take([(uuid, walks[uuid][-1]) for uuid in order[: self.stripes]])
        for uuid, walk in walks.items():
            for area in walk:
                self.space.put_last(uuid, area)
        return True
