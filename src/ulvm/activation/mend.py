"""What is done beside the change of tables: names, and trees that keep their tables."""

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

__all__ = ["rename_all", "rename_strays", "resume_kept"]


def rename_strays(dm: DeviceMapper, vg: VolumeGroup, failures: list[UlvmError]) -> None:
    """Give devices the names of the metadata."""
    present = by_uuid(dm)
    failures += rename_all(dm, strays(vg, present.values()), present)


def rename_all(
    dm: DeviceMapper, names: Mapping[str, str], present: Mapping[str, DeviceInfo]
) -> list[UlvmError]:
    """Give devices these names, by UUID; what failed. First those whose names no other has that is
    to be renamed itself. Where each waits for another, as in a swap of two, one is called by its
    UUID meanwhile: if we die then, it is a stray as any other."""
    failures: list[UlvmError] = []
    has = {uuid: present[uuid].name for uuid in names}
    left = {uuid: name for uuid, name in names.items() if name != has[uuid]}
    while left:
        taken = {has[uuid] for uuid in left}
        free = [uuid for uuid, name in left.items() if name not in taken]
        if not free:
            aside = next(iter(left))
            has[aside] = aside
            with noted(failures):
                dm.rename(aside, aside)
        for uuid in free:
            with noted(failures):
                dm.rename(uuid, left.pop(uuid))
    return failures


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
