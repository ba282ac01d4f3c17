"""What a mapped device may be called: its name, its UUID and its minor number.

Bounds of linux/dm-ioctl.h (DM_NAME_LEN, in `dm_ioctl`, and DM_UUID_LEN, with the NUL) and of a
minor number (MINORBITS in linux/kdev_t.h). Names are UTF-8 here, as NBD wants export names to be.
"""

from __future__ import annotations

from ulvm.dm_ioctl import DM_NAME_MAX
from ulvm.errors import TableError

__all__ = ["check_minor", "check_name", "check_uuid"]

_UUID_MAX = 128
_MINORS = 1 << 20


def check_name(name: str) -> None:
    """TableError unless a device may have this name."""
    bad = name in ("", ".", "..") or "/" in name or "\0" in name
    if bad or not _fits(name, DM_NAME_MAX):
        raise TableError(f"{name[:200]!r} is not a valid device name")


def check_uuid(uuid: str) -> None:
    """TableError unless a device may have this UUID; none at all is well, too."""
    if "\0" in uuid or not _fits(uuid, _UUID_MAX):
        raise TableError(f"{uuid[:200]!r} is not a valid UUID")


def check_minor(minor: int) -> None:
    """TableError unless there is such a minor number."""
    if not 0 <= minor < _MINORS:
        raise TableError(f"{minor} is no minor number")


def _fits(text: str, most: int) -> bool:
    try:
        return len(text.encode()) <= most
    except UnicodeEncodeError:  # half a surrogate pair, out of JSON or out of a command line
        return False
