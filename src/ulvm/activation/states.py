"""Which volumes are active, and what device-mapper says of them. Apart from `activation.activate`,
since who only looks needs no more, and starts sooner so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ulvm.activation.move_status import MoveStatus, move_status
from ulvm.activation.names import dm_uuid
from ulvm.activation.status import SnapshotStatus, parse_snapshot_status
from ulvm.dm_ioctl import DeviceInfo, DeviceMapper
from ulvm.metadata.model import LogicalVolume, VolumeGroup

__all__ = ["LvState", "by_uuid", "lv_states"]


class LvState(NamedTuple):
    """The device of an active volume. `status` for a snapshot; while it is merged, of the merge.
    `move` for a pvmoveN."""

    info: DeviceInfo
    status: SnapshotStatus | None = None
    move: MoveStatus | None = None
    monitored: bool | None = None
    """Whether somebody sees to it that a snapshot does not overflow; None: not asked."""

    @property
    def open_count(self) -> int:
        return self.info.open_count

    @property
    def merge_is_hopeless(self) -> bool:
        """Of a snapshot that is to be merged: it is invalid, or the merge has failed."""
        return self.status is not None and (self.status.invalid or self.status.merge_failed)


def by_uuid(dm: DeviceMapper) -> dict[str, DeviceInfo]:
    """The devices that are there."""
    return {info.uuid: info for info in dm.devices() if info.uuid}


def lv_states(
    dm: DeviceMapper, vg: VolumeGroup, names: Iterable[str] | None = None
) -> dict[str, LvState]:
    """Of all active volumes of a VG, or of these, by name; inactive ones are left out."""
    present = by_uuid(dm)
    found = {}
    for name in [v.name for v in vg.lvs] if names is None else names:
        lv = vg.lv(name)
        info = present.get(dm_uuid(vg.uuid, lv.uuid)) if lv else None
        if lv is not None and info is not None:
            status = _snapshot_status(dm, vg, lv, info, present)
            move = move_status(lv, dm.status(info.name)) if lv.is_pvmove else None
            found[name] = LvState(info, status, move)
    return found


def _snapshot_status(
    dm: DeviceMapper,
    vg: VolumeGroup,
    lv: LogicalVolume,
    info: DeviceInfo,
    present: Mapping[str, DeviceInfo],
) -> SnapshotStatus | None:
    snap = vg.snapshot_of(lv.name)
    merging = snap.merging if snap else vg.merging_snapshot_of(lv.name) is not None
    if snap is not None and merging:
        origin = vg.lv(snap.origin)
        top = present.get(dm_uuid(vg.uuid, origin.uuid)) if origin else None
        status = _status(dm, top.name) if top else None
        if status is not None:
            return status
    if snap is None and not merging:
        return None
    return _status(dm, info.name)


def _status(dm: DeviceMapper, name: str) -> SnapshotStatus | None:
    lines = dm.status(name)
    return parse_snapshot_status(lines[0]) if lines else None
