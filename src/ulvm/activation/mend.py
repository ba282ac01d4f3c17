"""What a refresh does beside the change of tables: names, and trees that keep their tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ulvm.activation.compare import is_next
from ulvm.activation.names import strays
from ulvm.activation.plan import PlannedDevice
from ulvm.activation.report import noted
from ulvm.activation.states import by_uuid
from ulvm.dm_ioctl import DeviceInfo, DeviceMapper
from ulvm.errors import UlvmError
from ulvm.metadata.model import VolumeGroup

__all__ = ["rename_strays", "resume_kept"]


def rename_strays(dm: DeviceMapper, vg: VolumeGroup, failures: list[UlvmError]) -> None:
    """Give devices the names of the metadata: first those whose names no other has that is to be
    renamed itself."""
    present = by_uuid(dm)
    left = strays(vg, present.values())
    while left:
        taken = {present[uuid].name for uuid in left}
        for uuid in [uuid for uuid, name in left.items() if name not in taken] or [*left]:
            with noted(failures):
                dm.rename(uuid, left.pop(uuid))


def resume_kept(
    dm: DeviceMapper,
    planned: Sequence[PlannedDevice],
    ours: Mapping[str, DeviceInfo],
    numbers: dict[str, str],
    failures: list[UlvmError],
) -> None:
    """Resume the suspended ones of a tree's devices, by UUID. An inactive table, of a command that
    died, goes live if it is the planned one, and away if not."""
    devices = {d.uuid: d for d in sorted(planned, key=lambda d: d.rank)}
    for uuid in dict.fromkeys((*devices, *ours)):
        if uuid not in ours:
            continue
        info = ours[uuid]
        with noted(failures):
            wanted = uuid in devices and is_next(dm, devices[uuid], info, numbers)
            if info.inactive_table and not wanted:
                dm.clear(uuid)
            if info.suspended or wanted:
                dm.resume(uuid)
