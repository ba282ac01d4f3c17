"""Which mapped devices lead to which, and so in which order gates may close."""

from __future__ import annotations

from collections.abc import Iterable

from ulvm.blockdev.base import BlockDevice
from ulvm.dm.device import MappedDevice

__all__ = ["may_wait", "rests_on_suspended", "users_first", "users_of"]


def users_first(devices: Iterable[MappedDevice]) -> list[MappedDevice]:
    """In the order in which gates may close: each device before those that its requests reach."""
    order: list[MappedDevice] = []
    left = list(devices)
    while left:
        reached = {
            id(lower)
            for device in left
            for table in (device.live, device.inactive)
            for target in (table.targets if table is not None else ())
            for lower in target.reaches()
        }
        # Devices over each other in a circle have no order, and must not keep us here.
        top = [device for device in left if id(device) not in reached] or left
        order += top
        left = [device for device in left if device not in top]
    return order


def users_of(device: MappedDevice, others: Iterable[MappedDevice]) -> list[MappedDevice]:
    """Those of the others whose requests reach the device, by any way."""
    reached: set[int] = {id(device)}
    found: list[MappedDevice] = []
    left = list(others)
    while True:
        more = [
            other
            for other in left
            if any(id(low) in reached for target in other.targets for low in target.reaches())
        ]
        if not more:
            return found
        found += more
        reached.update(map(id, more))
        left = [other for other in left if other not in more]


def rests_on_suspended(device: MappedDevice) -> bool:
    """Whether a request of the device may wait at the gate of one below it, by any way."""
    seen: set[int] = set()
    left = [device]
    while left:
        for target in left.pop().targets:
            for lower in target.reaches():
                if isinstance(lower, MappedDevice) and id(lower) not in seen:
                    if lower.suspended:
                        return True
                    seen.add(id(lower))
                    left.append(lower)
    return False


def may_wait(device: BlockDevice) -> bool:
    """Whether a request to it may, at its own gate or at one below."""
    return isinstance(device, MappedDevice) and (device.suspended or rests_on_suspended(device))
