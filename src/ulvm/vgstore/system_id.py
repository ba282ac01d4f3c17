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

__all__ = ["is_foreign", "local_system_id"]

_NOT_ALLOWED = re.compile(r"[^a-zA-Z0-9._+-]")
_LONGEST = 128


def local_system_id(config: Config) -> str:
    """As global/system_id_source says; empty for none."""
    source = config.get_str("global/system_id_source", "none")
    if source == "lvmlocal":
        text = config.get_str("local/system_id", "")
    elif source == "uname":
        text = os.uname().nodename
    elif source in ("machineid", "appmachineid"):
        text = _first_line("/etc/machine-id")
    elif source == "file":
        text = _first_line(config.get_str("global/system_id_file", ""))
    else:
        text = ""
    text = _NOT_ALLOWED.sub("", text)[:_LONGEST].lstrip("-._+")
    return "" if text.startswith("localhost") else text


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
