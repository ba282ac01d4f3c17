"""What a disk is known by, whatever its name is today (lvmdevices(8), IDTYPE).

| type | of | from sysfs |
| --- | --- | --- |
| `mpath_uuid`, `crypt_uuid`, `lvmlv_uuid` | the kernel's dm devices | `dm/uuid`, by its prefix |
| `md_uuid` | RAID | `md/uuid` |
| `loop_file` | loop devices | `loop/backing_file` |
| `sys_wwid`, `sys_serial` | disks | `device/wwid`, `wwid`; `device/serial`, `serial` |
| `devname` | what has none of these, plain files among it | its name |

They are tried in this order, as LVM2 does. A partition has its disk's, and its number.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

__all__ = ["DEVNAME", "KNOWN_TYPES", "device_id", "find_device", "part_of"]

DEVNAME = "devname"

_DM_PREFIXES = {"mpath_uuid": "mpath-", "crypt_uuid": "CRYPT-", "lvmlv_uuid": "LVM-"}
_FILES = {
    "md_uuid": ("md/uuid",),
    "loop_file": ("loop/backing_file",),
    "sys_wwid": ("device/wwid", "wwid"),
    "sys_serial": ("device/serial", "serial"),
}
KNOWN_TYPES = (*_DM_PREFIXES, *_FILES, DEVNAME)

_UNSAFE = re.compile(r"[^\x21-\x7e]+")
_DISKS = Path("/sys/class/block")


def device_id(path: str, id_type: str = "") -> tuple[str, str]:
    """(type, name) of the device at a path; of the type asked for if it has that. An empty name if
    it has not."""
    if id_type == DEVNAME:
        return DEVNAME, path
    disk = _disk_of(path)
    for known in (id_type,) if id_type else KNOWN_TYPES[:-1]:
        name = _read(disk, known) if disk is not None else ""
        if name or id_type:
            return known, name
    return DEVNAME, path


def part_of(path: str) -> int:
    """The number of a partition; 0 for what is none."""
    node = _node_of(path)
    return int(_line(node / "partition") or 0) if node is not None else 0


def find_device(id_type: str, id_name: str, part: int) -> str | None:
    """The path of the device that is known by this; None if it is not here."""
    for entry in sorted(_DISKS.iterdir()) if _DISKS.is_dir() else ():
        path = f"/dev/{entry.name.replace('!', '/')}"
        if device_id(path, id_type) == (id_type, id_name) and part_of(path) == part:
            return path
    return None


def _node_of(path: str) -> Path | None:
    """In sysfs; None for what is no disk."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    if not stat.S_ISBLK(found.st_mode):
        return None
    return Path(f"/sys/dev/block/{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}").resolve()


def _disk_of(path: str) -> Path | None:
    node = _node_of(path)
    return node.parent if node is not None and (node / "partition").exists() else node


def _read(disk: Path, id_type: str) -> str:
    prefix = _DM_PREFIXES.get(id_type)
    if prefix is not None:
        name = _line(disk / "dm/uuid")
        return name if name.startswith(prefix) else ""
    names = (_line(disk / file) for file in _FILES.get(id_type, ()))
    name = next((name for name in names if name), "")
    if id_type == "loop_file":
        return name.removesuffix(" (deleted)")
    return _UNSAFE.sub("_", name)


def _line(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
