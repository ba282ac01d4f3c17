"""Extents that a change has freed are given back to the disks (devices/issue_discards).

When: after the commit and the swap of tables, under the VG's lock. Then no device leads to the
extents any more and no other command can take them; what died before that leaves them as they are,
which costs room and nothing else. An earlier state of the metadata (vgcfgrestore) finds no data in
them: that is why it is off unless asked for, as in LVM2; and vgcfgrestore itself discards nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from ulvm.blockdev.base import BlockDevice
from ulvm.errors import UlvmError
from ulvm.metadata.allocate import FreeArea, free_areas
from ulvm.metadata.model import PhysicalVolume, VolumeGroup
from ulvm.units import SECTOR

__all__ = ["FreedRange", "discard_freed", "freed_ranges"]


class FreedRange(NamedTuple):
    """Sectors of a PV, from its begin, that belong to nobody any more."""

    pv: PhysicalVolume
    start: int
    length: int


def freed_ranges(old: VolumeGroup, new: VolumeGroup) -> Iterator[FreedRange]:
    """What is free in `new` and was a volume's in `old`, of PVs that are in both; their extents may
    be of two sizes."""
    for pv in new.pvs:
        before = old.pv(pv.uuid)
        if before is None or pv.missing:
            continue
        used = list(_used(old, before))
        for area in free_areas(new, pv):
            at = pv.pe_start + area.pe * new.extent_size
            end = at + area.length * new.extent_size
            for start, stop in used:
                if max(at, start) < min(end, stop):
                    yield FreedRange(pv, max(at, start), min(end, stop) - max(at, start))


def _used(vg: VolumeGroup, pv: PhysicalVolume) -> Iterator[tuple[int, int]]:
    """The sectors of a PV that are volumes', each run as (begin, end), in order."""
    at = 0
    for area in (*free_areas(vg, pv), FreeArea(pv.pe_count, 0)):
        if area.pe > at:
            yield pv.pe_start + at * vg.extent_size, pv.pe_start + area.pe * vg.extent_size
        at = area.pe + area.length


def discard_freed(
    old: VolumeGroup,
    new: VolumeGroup,
    path_of: Callable[[str], str | None],
    opener: Callable[[str, bool], BlockDevice],
    warn: Callable[[str], None],
) -> None:
    """Discard what `new` has freed; a disk that cannot is passed over, other failures are warned
    of."""
    for pv, start, length in freed_ranges(old, new):
        path = path_of(pv.uuid)
        if path is None:
            continue
        try:
            device = opener(path, True)
            try:
                if device.can_discard:
                    device.discard(start * SECTOR, length * SECTOR)
            finally:
                device.close()
        except UlvmError as error:
            warn(f"WARNING: {path}: discard of freed extents failed: {error.message}")
