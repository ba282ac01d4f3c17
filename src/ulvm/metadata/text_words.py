"""The vocabulary of the text format: status words in LVM's order, policies, the header.

Facts: lib/format_text/flags.c and lib/format_text/export.c of LVM2; spec/lvm2-format.md sec. 5.
"""

from __future__ import annotations

import os
import time
from typing import NamedTuple

from ulvm import __version__

__all__ = [
    "CONTENTS",
    "FORMAT_VERSION",
    "INT64",
    "LV_FLAGS",
    "LV_STATUS",
    "POLICIES",
    "PV_FLAGS",
    "PV_STATUS",
    "UINT32",
    "VG_FLAGS",
    "VG_STATUS",
    "TextHeader",
    "local_time",
]

CONTENTS = "Text Format Volume Group"
FORMAT_VERSION = 1
UINT32, INT64 = (1 << 32) - 1, (1 << 63) - 1
"""The largest numbers that the text has."""

# Words in the order in which LVM writes them (lib/format_text/flags.c).
VG_STATUS = ("EXPORTED", "RESIZEABLE", "PVMOVE", "READ", "WRITE", "CLUSTERED", "SHARED")
VG_FLAGS = ("WRITE_LOCKED", "NOAUTOACTIVATE")
PV_STATUS = ("ALLOCATABLE", "EXPORTED")
PV_FLAGS = ("MISSING",)
LV_STATUS = (
    "READ", "WRITE", "FIXED_MINOR", "VISIBLE", "PVMOVE", "LOCKED", "NOTSYNCED", "REBUILD",
    "WRITEMOSTLY",
)  # fmt: skip
LV_FLAGS = ("WRITE_LOCKED", "ACTIVATION_SKIP", "ERROR_WHEN_FULL", "CACHE_VOL", "NOAUTOACTIVATE")
POLICIES = ("contiguous", "cling", "cling_by_tags", "normal", "anywhere", "inherit")


class TextHeader(NamedTuple):
    """Who wrote a text, when and why; all but the description is informational."""

    description: str
    creation_host: str
    creation_time: int
    """Seconds since the epoch."""
    system: str
    """sysname, release, version and machine of the host, as uname(2) gives them."""
    generator: str = f"ulvm {__version__}"
    system_id: str = ""
    """Of the host; empty for none."""

    @classmethod
    def now(cls, description: str, system_id: str = "") -> TextHeader:
        """A header of this host at this moment."""
        name = os.uname()
        system = f"{name.sysname} {name.nodename} {name.release} {name.version} {name.machine}"
        return cls(description, name.nodename, int(time.time()), system, system_id=system_id)


def local_time(template: str, seconds: int) -> str:
    """A time of the metadata, by strftime(3); empty if the C library has no such year."""
    try:
        return time.strftime(template, time.localtime(seconds))
    except (OverflowError, ValueError, OSError):
        return ""
