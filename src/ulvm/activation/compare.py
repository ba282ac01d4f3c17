"""Whether a device is what was planned, and which trees a change of the volume group touches."""

from __future__ import annotations

import os

from ulvm.activation.plan import PlannedDevice, root_of, tree_members
from ulvm.dm_ioctl import DeviceInfo, DeviceMapper, TableLine, quoted_word, words_of
from ulvm.errors import NotFoundError
from ulvm.metadata.model import LogicalVolume, VolumeGroup

__all__ = [
    "ABSENT",
    "changed_roots",
    "is_next",
    "roots",
    "table_differs",
    "visible_roots",
    "with_numbers",
]

ABSENT = "/absent"
"""Stands in a plan for the device of a missing PV, which may be anything."""


def with_numbers(line: TableLine, numbers: dict[str, str]) -> TableLine:
    """The line with major:minor in place of the dm names that are in `numbers`."""
    words = (quoted_word(numbers.get(word, word)) for word in words_of(line.params))
    return TableLine(line.start, line.length, line.target_type, " ".join(words))


def table_differs(
    dm: DeviceMapper,
    device: PlannedDevice,
    info: DeviceInfo,
    numbers: dict[str, str],
    *,
    inactive: bool = False,
) -> bool:
    """Whether the live table, or its mode, is another than the planned one; or the `inactive`
    table, whose mode is not told."""
    if not inactive and info.read_only != device.read_only:
        return True
    try:
        live = dm.table(device.uuid, inactive=inactive)
    except NotFoundError:
        return True
    planned = [with_numbers(line, numbers) for line in device.table]
    if len(live) != len(planned):
        return True
    return any(_line_differs(dm, a, b) for a, b in zip(live, planned, strict=True))


def is_next(
    dm: DeviceMapper, device: PlannedDevice, info: DeviceInfo, numbers: dict[str, str]
) -> bool:
    """Whether the inactive table is what was planned and the live one is not."""
    return (
        info.inactive_table
        and table_differs(dm, device, info, numbers)
        and not table_differs(dm, device, info, numbers, inactive=True)
    )


def _line_differs(dm: DeviceMapper, live: TableLine, planned: TableLine) -> bool:
    if (live.start, live.length, live.target_type) != (
        planned.start,
        planned.length,
        planned.target_type,
    ):
        return True
    if live.target_type == "error":
        return False
    a, b = words_of(live.params), words_of(planned.params)
    if live.target_type in ("snapshot", "snapshot-merge"):
        a, b = a[:3], b[:3]  # the chunk size is the store's own
    return len(a) != len(b) or any(not _same(dm, x, y) for x, y in zip(a, b, strict=True))


def _same(dm: DeviceMapper, live: str, planned: str) -> bool:
    """Words of a table are equal, or a number and a path of the same device."""
    if planned in (live, ABSENT):
        return True
    major, _, minor = live.partition(":")
    if not planned.startswith("/") or not (major.isdecimal() and minor.isdecimal()):
        return False
    name = dm.device_name(int(major), int(minor))
    return name is not None and os.path.realpath(name) == os.path.realpath(planned)


def roots(vg: VolumeGroup) -> list[LogicalVolume]:
    """The volumes that have a tree of devices of their own. A side of a move is in the move's."""
    images = {image.name for move in vg.pvmoves() for image in vg.lower_lvs(move)}
    return [
        v
        for v in vg.lvs
        if v.snapshot_segment is None and not vg.is_cow(v.name) and v.name not in images
    ]


def visible_roots(vg: VolumeGroup) -> list[LogicalVolume]:
    """A visible volume of each tree: origins, and of sparse volumes what is seen of them."""
    return [
        lv
        for lv in vg.visible_lvs()
        if not vg.is_cow(lv.name) or vg.is_virtual_origin(root_of(vg, lv.name))
    ]


def changed_roots(old: VolumeGroup, new: VolumeGroup) -> list[LogicalVolume]:
    """The trees of `new` whose devices may be other than `old`'s."""
    return [
        root
        for root in roots(new)
        if (before := old.lv_by_uuid(root.uuid)) is None
        or old.name != new.name
        or old.is_cow(before.name)
        or _shape(old, before) != _shape(new, root)
    ]


def _shape(vg: VolumeGroup, root: LogicalVolume) -> object:
    """All of a tree that its devices depend on."""
    members = tree_members(vg, root.name)
    volumes = [(v.name, v.uuid, v.segments, v.writable) for v in members]
    return volumes, vg.snapshots_of_origin(root.name)
