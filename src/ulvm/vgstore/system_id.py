"""This host's system ID, by which a volume group on shared disks belongs to one host
(lvmsystemid(7)). A VG with the ID of another, or with any where this host has none, is foreign: it
is shown to those who ask for it, and neither used nor changed.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from ulvm.metadata.model import VolumeGroup
from ulvm.vgstore.config import Config

__all__ = ["host_system_id", "is_foreign", "local_system_id"]

_MACHINE_ID = "/etc/machine-id"
_NOT_ALLOWED = re.compile(r"[^a-zA-Z0-9._+-]")
_LONGEST = 128


def host_system_id(config: Config) -> tuple[str, list[str]]:
    """(system ID, or "" if the host has none; warnings in LVM's words), from where
    global/system_id_source says. `appmachineid`, a hash that is LVM2's own, is not known."""
    source = config.get_str("global/system_id_source", "none")
    local = config.get_str("local/system_id", "")
    warnings = []
    if local and source != "lvmlocal":
        warnings.append(
            "WARNING: local/system_id is set, so should global/system_id_source be "
            f'"lvmlocal" not "{source}"?'
        )
    found = ""
    if source == "none":
        return "", warnings
    if source == "lvmlocal":
        found = local
    elif source == "uname":
        found = os.uname().nodename
    elif source == "machineid":
        found = _first_line(_MACHINE_ID)
    elif source == "file":
        found = _first_line(config.get_str("global/system_id_file", ""))
    else:
        warnings.append(f'WARNING: Unrecognised system_id_source "{source}".')
    found = _NOT_ALLOWED.sub("", found)[:_LONGEST].lstrip("-._+")
    if found.startswith("localhost"):
        warnings.append('WARNING: system ID may not begin with the string "localhost".')
        found = ""
    if not found:
        warnings.append(f"WARNING: No system ID found from system_id_source {source}.")
    return found, warnings


def local_system_id(config: Config) -> str:
    """Empty for none."""
    return host_system_id(config)[0]


def _first_line(path: str) -> str:
    """Of a file, without comments; empty if there is none."""
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    found = (line.strip() for line in lines)
    return next((line for line in found if line and not line.startswith("#")), "")


def is_foreign(config: Config, vg: VolumeGroup) -> bool:
    if not vg.system_id:
        return False
    local = local_system_id(config)
    also = config.get_list("local/extra_system_ids", []) if local else []
    return vg.system_id not in (local, *also)
