"""What the fields of a report look at: one row for an LV, a segment, a VG or a PV."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from typing import NamedTuple

from ulvm.activation.states import LvState
from ulvm.metadata.model import (
    LogicalVolume,
    MirrorSegment,
    PhysicalVolume,
    Segment,
    StripedSegment,
    VolumeGroup,
)
from ulvm.vgstore.scan import PvDevice, Scan

__all__ = ["Row", "States", "lv_rows", "pv_rows", "vg_lv_rows", "vg_rows"]

States = Mapping[str, Mapping[str, LvState]]
"""Active volumes by the VG's UUID and name; of a VG that is not there nobody asked."""
_NOBODY_ASKED: States = {}


class Row(NamedTuple):
    """Fields of a kind whose part is None are blank."""

    scan: Scan
    vg: VolumeGroup | None = None
    lv: LogicalVolume | None = None
    segment: Segment | None = None
    state: LvState | None = None
    pv: PhysicalVolume | None = None
    device: PvDevice | None = None
    """The PV's device; None for a missing one."""
    asked: bool = True
    """Whether it was asked what is active; else `state` None means nothing."""
    pv_segment: tuple[int, int] | None = None
    """First extent and length of a run on the PV."""
    copy: bool = False
    """The device is a copy of a PV, which was passed over."""

    @property
    def pv_uuid(self) -> str:
        """Of the PV, missing or not; blank for a device that is none."""
        return self.device.uuid if self.device else self.pv.uuid if self.pv else ""


def vg_rows(scan: Scan, groups: Iterable[VolumeGroup]) -> Iterator[Row]:
    for vg in groups:
        yield Row(scan, vg)


def lv_rows(
    scan: Scan,
    groups: Iterable[VolumeGroup],
    states: States,
    *,
    hidden: bool,
    by_segment: bool,
    only: frozenset[tuple[str, str]] | None = None,
) -> Iterator[Row]:
    """`hidden`: also volumes that are not visible, a merging snapshot say. `only`: (UUID of the VG,
    LV)."""
    for vg in groups:
        active = states.get(vg.uuid, {})
        asked = vg.uuid in states
        for lv in vg.lvs:
            if lv.snapshot_segment is not None or not (hidden or vg.is_visible(lv)):
                continue
            if only is not None and (vg.uuid, lv.name) not in only:
                continue
            state = active.get(lv.name)
            for segment in lv.segments if by_segment else lv.segments[:1]:
                yield Row(scan, vg, lv, segment, state, asked=asked)


def vg_lv_rows(
    scan: Scan,
    groups: Iterable[VolumeGroup],
    states: States,
    *,
    by_segment: bool,
    hidden: bool = False,
) -> Iterator[Row]:
    """Rows of the VGs' volumes: none of a VG that has none."""
    for vg in groups:
        yield from lv_rows(scan, [vg], states, hidden=hidden, by_segment=by_segment)


def pv_rows(
    scan: Scan,
    *,
    by_segment: bool = False,
    states: States = _NOBODY_ASKED,
    everything: bool = False,
    named: Container[str] = (),
) -> Iterator[Row]:
    """Every PV, also missing ones: group by group, as the group has them, then those in none.
    `states`: of the volumes that lie on the segments.
    `everything`: also copies of PVs that were passed over, and devices that are no PVs; `named`:
    such copies at these paths."""
    devices = {device.uuid: device for device in scan.pvs}
    members = {pv.uuid for vg in (*scan.vgs, *scan.foreign) for pv in vg.pvs}
    for vg in scan.vgs:
        for pv in vg.pvs:
            row = Row(scan, vg, pv=pv, device=devices.get(pv.uuid))
            yield from _pv_segments(row, states) if by_segment else (row,)
    for device in scan.pvs:
        if device.uuid not in members:
            yield Row(scan, device=device, pv_segment=(0, 0) if by_segment else None)
    copies = (copy for copy in scan.copies if everything or copy.path in named)
    for device in (*copies, *(scan.bare if everything else ())):
        copy = bool(device.uuid)
        yield Row(scan, device=device, pv_segment=(0, 0) if by_segment else None, copy=copy)


def _pv_segments(row: Row, states: States) -> Iterator[Row]:
    vg, pv = row.vg, row.pv
    if vg is None or pv is None:
        yield row._replace(pv_segment=(0, 0))
        return
    active = states.get(vg.uuid, {})
    row = row._replace(asked=vg.uuid in states)
    used = []
    for lv in vg.lvs:
        for segment in lv.segments:
            if isinstance(segment, StripedSegment | MirrorSegment):
                for area in segment.areas:
                    if area.pv_uuid == pv.uuid:
                        used.append((area.pe, segment.area_len, lv, segment))
    at = 0
    for pe, length, lv, segment in sorted(used, key=lambda item: item[0]):
        if pe > at:
            yield row._replace(pv_segment=(at, pe - at))
        state = active.get(lv.name)
        yield row._replace(lv=lv, segment=segment, state=state, pv_segment=(pe, length))
        at = pe + length
    if at < pv.pe_count:
        yield row._replace(pv_segment=(at, pv.pe_count - at))
