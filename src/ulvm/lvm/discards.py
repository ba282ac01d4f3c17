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
from ulvm.metadata.allocate import free_areas
from ulvm.metadata.model import PhysicalVolume, VolumeGroup
from ulvm.units import SECTOR

__all__ = ["FreedRange", "discard_freed", "freed_ranges"]


class FreedRange(NamedTuple):
    """Extents of a PV that belong to nobody any more."""

    pv: PhysicalVolume
    pe: int
    length: int


def freed_ranges(old: VolumeGroup, new: VolumeGroup) -> Iterator[FreedRange]:
    """What is free in `new` and was not in `old`, of PVs that are in both."""
    for pv in new.pvs:
        before = old.pv(pv.uuid)
        if before is None or pv.missing:
            continue
        gone = [(area.pe, area.pe + area.length) for area in free_areas(old, before)]
        for area in free_areas(new, pv):
            at, end = area.pe, area.pe + area.length
            for start, stop in sorted(gone):
                if stop <= at or start >= end:
                    continue
                if start > at:
                    yield FreedRange(pv, at, start - at)
                at = max(at, stop)
            if at < end:
                yield FreedRange(pv, at, end - at)


def discard_freed(
    old: VolumeGroup,
    new: VolumeGroup,
    path_of: Callable[[str], str | None],
    opener: Callable[[str, bool], BlockDevice],
    warn: Callable[[str], None],
) -> None:
    """Discard what `new` has freed; a disk that cannot is passed over, other failures are warned
    of."""
    extent = new.extent_size * SECTOR
    for pv, pe, length in freed_ranges(old, new):
        path = path_of(pv.uuid)
        if path is None:
            continue
        try:
            device = opener(path, True)
            try:
                if device.can_discard:
                    device.discard(pv.pe_start * SECTOR + pe * extent, length * extent)
            finally:
                device.close()
        except UlvmError as error:
            warn(f"WARNING: {path}: discard of freed extents failed: {error.message}")
