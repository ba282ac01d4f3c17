"""The host's system ID (lvmsystemid(7)): global/system_id_source says where it comes from."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ulvm.vgstore.config import Config

__all__ = ["host_system_id"]

_MACHINE_ID = Path("/etc/machine-id")
_NOT_ALLOWED = re.compile(r"[^A-Za-z0-9._+-]")


def host_system_id(config: Config) -> tuple[str, list[str]]:
    """(system ID, or "" if the host has none; warnings in LVM's words)."""
    source = config.get_str("global/system_id_source", "none")
    local = config.get_str("local/system_id", "")
    warnings = []
    if local and source != "lvmlocal":
        warnings.append(
            "WARNING: local/system_id is set, so should global/system_id_source be "
            f'"lvmlocal" not "{source}"?'
        )
    if source == "none":
        return "", warnings
    if source == "lvmlocal":
        found, where = local, "lvm.conf"
    elif source == "uname":
        found, where = os.uname().nodename, source
        if found.startswith("localhost"):
            warnings.append("WARNING: system_id_source is uname, which gives localhost.")
            found = ""
    elif source == "machineid":
        found, where = _first_line(_MACHINE_ID), source
    elif source == "file":
        path = config.get_str("global/system_id_file", "")
        found, where = _first_line(Path(path)) if path else "", "file"
    else:
        warnings.append(f'WARNING: Unrecognised system_id_source "{source}".')
        found, where = "", source
    found = _NOT_ALLOWED.sub("", found)
    if not found:
        warnings.append(f"WARNING: No system ID found from system_id_source {where}.")
    return found, warnings


def _first_line(path: Path) -> str:
    """The first line that is no comment; "" where none can be read."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in lines if line.strip() and line[0] != "#"), "")
