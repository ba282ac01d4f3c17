"""The daemon's memory on disk: `<run_dir>/state.json`, all mapped devices as of the last change.

    {"version": 1, "boot_id": "...", "devices": [...]}        (see dm.state for the devices)

Written beside and renamed after every change, before the change is answered; it need survive
kill -9, not a power cut, so nothing is synced: after a boot the boot_id differs and the file means
nothing, as the kernel's devices are gone after a boot. A clean stop removes it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["STATE_FILE", "drop_state", "read_state", "write_state"]

STATE_FILE = "state.json"
_VERSION = 1
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def read_state(
    run_dir: Path, warn: Callable[[str], None] = lambda text: None
) -> dict[str, Any] | None:
    """The state that a daemon of this boot left behind; None if there is none of use. A file that
    no daemon wrote is none, and `warn` is told; the devices in it are for `dm.state` to judge."""
    path = run_dir / STATE_FILE
    try:
        state = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        warn(f"{path} is passed over: {error.strerror}")
        return None
    except (ValueError, RecursionError) as error:
        # A rename is whole or not at all.
        warn(f"{path} is passed over, it is no file of ours: {str(error)[:200]}")
        return None
    if not isinstance(state, dict) or state.get("version") != _VERSION:
        warn(f"{path} is passed over: it is of another version, or no file of ours")
        return None
    if state.get("boot_id") != _BOOT_ID.read_text().strip():
        return None
    devices = state.get("devices")
    if not isinstance(devices, list):
        warn(f"{path} is passed over, it is no file of ours: devices are no list")
        return None
    return state if devices else None


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
