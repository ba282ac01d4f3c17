"""Which devices have to change together.

Two trees are one family if a device of one stands on one of the other, now or as planned: all that
stands on a move is suspended before its table changes. What has nothing to do with another family
need not wait for it, nor fail with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from ulvm.activation.names import volume_of
from ulvm.activation.plan import PlannedDevice
from ulvm.dm_ioctl import DeviceInfo, DeviceMapper
from ulvm.errors import NotFoundError

__all__ = ["Family", "families", "standing"]


class Family(NamedTuple):
    """`gone`: those of its devices that are not wanted any more."""

    wanted: list[PlannedDevice]
    gone: list[DeviceInfo]


def families(
    wanted: Sequence[PlannedDevice],
    gone: Sequence[DeviceInfo],
    together: Iterable[Sequence[str]],
) -> list[Family]:
    """Both as they came, in families: first those in which something is wanted. `together`: UUIDs
    of devices that belong to one."""
    head: dict[str, str] = {}

    def find(uuid: str) -> str:
        while (above := head.get(uuid, uuid)) != uuid:
            uuid = above
        return uuid

    for uuids in together:
        for before, uuid in pairwise(uuids):
            head[find(uuid)] = find(before)
    found: dict[str, Family] = {}
    for device in wanted:
        found.setdefault(find(device.uuid), Family([], [])).wanted.append(device)
    for info in gone:
        found.setdefault(find(info.uuid), Family([], [])).gone.append(info)
    return list(found.values())


def standing(dm: DeviceMapper, devices: Sequence[DeviceInfo]) -> list[list[str]]:
    """The UUIDs of each of these devices, of its volume, and of those that its live table stands
    on."""
    by_number = {(info.major, info.minor): info.uuid for info in devices}
    found = []
    for info in devices:
        try:
            below = dm.deps(info.uuid)
        except NotFoundError:
            below = []
        uuids = [by_number[number] for number in below if number in by_number]
        found.append([info.uuid, volume_of(info.uuid), *uuids])
    return found
