"""Names and UUIDs of LVM's dm devices (dm_build_dm_name and build_dm_uuid of LVM2).

    name  <vg>-<lv>[-<layer>]       a dash inside a part is doubled
    uuid  LVM-<VG UUID><LV UUID>[-<layer>]   the UUIDs without their dashes

The layers here are `real` (an origin's own data) and `cow` (a snapshot's exception store), and
`missing_<segment>_<area>` for what stands in for an area on a missing PV.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ulvm.errors import FormatError
from ulvm.metadata.uuid import UUID_LEN, format_uuid

if TYPE_CHECKING:
    from ulvm.dm_ioctl import DeviceInfo
    from ulvm.metadata.model import VolumeGroup

__all__ = [
    "LVM_UUID_PREFIX",
    "dm_name",
    "dm_uuid",
    "is_top_level",
    "split_dm_name",
    "strays",
    "volume_of",
]

LVM_UUID_PREFIX = "LVM-"
_UUID_LENGTH = 64


def dm_name(vg: str, lv: str, layer: str = "") -> str:
    """`a-b`, `c--d` -> `a--b-c----d`."""
    name = f"{vg.replace('-', '--')}-{lv.replace('-', '--')}"
    return f"{name}-{layer}" if layer else name


def split_dm_name(name: str) -> tuple[str, str, str]:
    """(VG, LV, layer) of a dm name, layer "" for none; FormatError if it is not LVM's form.

    In an odd run of dashes the last one separates, since no name begins with a dash.
    """
    parts = [""]
    position = 0
    while position < len(name):
        if name[position] != "-":
            parts[-1] += name[position]
            position += 1
        elif name.startswith("--", position):
            parts[-1] += "-"
            position += 2
        else:
            parts.append("")
            position += 1
    if len(parts) not in (2, 3) or not all(parts):
        raise FormatError(f"{name!r} is not the dm name of a logical volume")
    return parts[0], parts[1], parts[2] if len(parts) == 3 else ""


def dm_uuid(vg_uuid: str, lv_uuid: str, layer: str = "") -> str:
    """UUIDs in text form, with or without dashes."""
    uuid = LVM_UUID_PREFIX + vg_uuid.replace("-", "") + lv_uuid.replace("-", "")
    return f"{uuid}-{layer}" if layer else uuid


def is_top_level(uuid: str) -> bool:
    """Whether a dm UUID is that of a volume itself and not of one of its layers."""
    return uuid.startswith(LVM_UUID_PREFIX) and len(uuid) == len(LVM_UUID_PREFIX) + _UUID_LENGTH


def volume_of(uuid: str) -> str:
    """The dm UUID of the volume that a device of LVM's is, or is a layer of."""
    return uuid[: len(LVM_UUID_PREFIX) + _UUID_LENGTH]


def vg_uuid_of(uuid: str) -> str:
    """That of the VG, with dashes, of a dm UUID; FormatError if it is not LVM's form."""
    if not uuid.startswith(LVM_UUID_PREFIX):
        raise FormatError(f"{uuid!r} is not the dm UUID of a logical volume")
    return format_uuid(volume_of(uuid)[len(LVM_UUID_PREFIX) :][:UUID_LEN])


def strays(vg: VolumeGroup, devices: Iterable[DeviceInfo]) -> dict[str, str]:
    """Those of the VG's volumes whose names are not what the metadata want: that, by UUID."""
    volumes = {dm_uuid(vg.uuid, lv.uuid): lv.name for lv in vg.lvs}
    found: dict[str, str] = {}
    for info in devices:
        volume = volume_of(info.uuid)
        if volume in volumes:
            name = dm_name(vg.name, volumes[volume], info.uuid[len(volume) + 1 :])
            if name != info.name:
                found[info.uuid] = name
    return found
