"""The daemon's memory on disk: `<run_dir>/state.json`, all mapped devices as of the last change.

    {"version": 1, "boot_id": "...", "devices": [...]}        (see dm.state for the devices)

Written beside and renamed after every change, before the change is answered; it need survive
kill -9, not a power cut, so nothing is synced: after a boot the boot_id differs and the file means
nothing, as the kernel's devices are gone after a boot. A clean stop removes it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

__all__ = ["STATE_FILE", "drop_state", "read_state", "write_state"]

STATE_FILE = "state.json"
_VERSION = 1
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def read_state(run_dir: Path) -> dict[str, Any] | None:
    """The state that a daemon of this boot left behind; None if there is none of use."""
    try:
        state = json.loads((run_dir / STATE_FILE).read_bytes())
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    except (ValueError, RecursionError):
        return None  # a rename is whole or not at all: this is no file of ours
    if not isinstance(state, dict) or state.get("version") != _VERSION:
        return None
    if state.get("boot_id") != _BOOT_ID.read_text().strip() or not state.get("devices"):
        return None
    return state


def write_state(run_dir: Path, devices: list[dict[str, Any]]) -> None:
    """OSError if the run directory will not have it."""
    state = {
        "version": _VERSION,
        "boot_id": _BOOT_ID.read_text().strip(),
        "devices": devices,
    }
    path = run_dir / STATE_FILE
    beside = path.with_suffix(".new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        json.dump(state, stream, separators=(",", ":"))
    os.replace(beside, path)


def drop_state(run_dir: Path) -> None:
    (run_dir / STATE_FILE).unlink(missing_ok=True)
