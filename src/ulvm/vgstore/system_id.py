"""This host's system ID, by which a volume group on shared disks belongs to one host
(lvmsystemid(7)). A VG with the ID of another, or with any where this host has none, is foreign: it
is shown to those who ask for it, and neither used nor changed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from ulvm.metadata.model import VolumeGroup
from ulvm.vgstore.config import Config

__all__ = ["checked_system_id", "host_system_id", "is_foreign", "local_system_id"]

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
        found = _first_line(_MACHINE_ID, warnings)
    elif source == "file":
        found = _first_line(config.get_str("global/system_id_file", ""), warnings)
    else:
        warnings.append(f'WARNING: Unrecognised system_id_source "{source}".')
    if found:
        found = checked_system_id(found, warnings.append)
    if not found:
        warnings.append(f"WARNING: No system ID found from system_id_source {source}.")
    return found, warnings


def local_system_id(config: Config) -> str:
    """Empty for none."""
    return host_system_id(config)[0]


def checked_system_id(text: str, warn: Callable[[str], None]) -> str:
    """What is left of a text without what no system ID has; empty, with a warning, if that is no
    system ID."""
    found = _NOT_ALLOWED.sub("", text)[:_LONGEST].lstrip("-._+")
    if not found:
        warn(f"WARNING: Invalid system ID format: {text}")
    elif found.startswith("localhost"):
        warn('WARNING: system ID may not begin with the string "localhost".')
        return ""
    return found


def _first_line(path: str, warnings: list[str]) -> str:
    """Of a file, without comments; empty if there is none."""
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        warnings.append(f"WARNING: {path}: fopen failed: {error.strerror}")
        return ""
    found = [text for line in lines if (text := line.partition("#")[0].strip())]
    if len(found) > 1:
        warnings.append(f"WARNING: Ignoring extra line(s) in system ID file {path}.")
    return found[0] if found else ""


def is_foreign(config: Config, vg: VolumeGroup) -> bool:
    if not vg.system_id:
        return False
    local = local_system_id(config)
    also = config.get_list("local/extra_system_ids", []) if local else []
    return vg.system_id not in (local, *also)
