"""Who goes first: the order in which devices are suspended, and in which they are removed. Why it
is so stands in `activation.activate`; the order of resume is that of `plan.Rank`."""

from __future__ import annotations

from collections.abc import Sequence

from ulvm.activation.names import dm_uuid, split_dm_name
from ulvm.activation.plan import PlannedDevice, Rank
from ulvm.dm_ioctl import DeviceInfo
from ulvm.errors import FormatError
from ulvm.metadata.model import LogicalVolume, VolumeGroup

__all__ = ["depth", "origin_layer", "removal_order", "to_suspend"]


def removal_order(
    vg: VolumeGroup, members: Sequence[LogicalVolume], present: dict[str, DeviceInfo]
) -> list[DeviceInfo]:
    """Tops of origins, tops of snapshots, then layers, whatever plan they were made by. Origins
    first: a merge that went on would change them without a copy for snapshots that are gone."""
    tops = [dm_uuid(vg.uuid, lv.uuid) for lv in sorted(members, key=lambda lv: vg.is_cow(lv.name))]
    order = [present[uuid] for uuid in tops if uuid in present]
    for uuid in tops:
        order += [info for u, info in present.items() if u.startswith(f"{uuid}-")]
    return order


def to_suspend(
    by_rank: Sequence[PlannedDevice],
    loaded: Sequence[PlannedDevice],
    gone: Sequence[DeviceInfo],
    present: dict[str, DeviceInfo],
) -> list[PlannedDevice]:
    """Top down. An origin waits too when snapshots come or go under a table of its own that
    stays. What is suspended already was left so by a command that died."""
    changed = {d.uuid for d in loaded}
    comes_or_goes = bool(gone) or any(d.rank is Rank.SNAPSHOT for d in loaded)
    order = []
    for device in sorted(by_rank, key=_suspend_order):
        info = present.get(device.uuid)
        if info is None or info.suspended:
            continue
        if device.uuid in changed or (comes_or_goes and _is_origin(device)):
            order.append(device)
    return order


def _is_origin(device: PlannedDevice) -> bool:
    return device.table[0].target_type in ("snapshot-origin", "snapshot-merge")


def origin_layer(device: PlannedDevice) -> str:
    """The planned name of the -real device that an origin, or a snapshot of it, stands on."""
    return device.table[0].params.partition(" ")[0]


def _suspend_order(device: PlannedDevice) -> int:
    """The origin, then snapshots, then lower devices, then what those stand on."""
    return _SUSPEND_ORDER.index(device.rank)


_SUSPEND_ORDER = (
    Rank.ORIGIN, Rank.SNAPSHOT, Rank.MERGED, Rank.LOWER, Rank.MOVE, Rank.IMAGE, Rank.MISSING,
)  # fmt: skip


def depth(info: DeviceInfo) -> int:
    """0 for a volume's own devices, 1 for a move, 2 for a side of one; their names are reserved."""
    try:
        lv = split_dm_name(info.name)[1]
    except FormatError:  # renamed by hand
        return 0
    return lv.startswith("pvmove") + ("_mimage_" in lv)
