"""The daemon's memory on disk: `<run_dir>/state.json`, all mapped devices as of the last change.

    {"version": 1, "boot_id": "...", "devices": [...]}        (see dm.state for the devices)

Written beside and renamed after every change of what it says, before that is answered; it need
survive kill -9, not a power cut, so nothing is synced: after a boot the boot_id differs and the
file means nothing, as the kernel's devices are gone after a boot. A clean stop removes it.

A write that fails leaves no file, since an older one would bring back tables that lead to where
other volumes lie by now. Until it has been tried again with success a kill -9 costs all devices,
and what waits in their stages (dm.stage): so it is tried again at once, and then each second.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ulvm.errors import RefusedError

__all__ = ["STATE_FILE", "StateKeeper", "drop_state", "read_state", "write_state"]

log = logging.getLogger("ulvmd")

STATE_FILE = "state.json"
_SOON = 0.05
_SECONDS = 1.0
_VERSION = 1
"""One more when a daemon of before could not understand an entry, or a file of dm.stage_file."""
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def read_state(
    run_dir: Path, warn: Callable[[str], None] = lambda text: None, *, starting: bool = False
) -> dict[str, Any] | None:
    """The state that a daemon of this boot left behind; None if there is none of use. A file that
    no daemon wrote is none, and `warn` is told; the devices in it are for `dm.state` to judge.
    RefusedError if a daemon of another version wrote it: what waits in its stages is lost for good
    when one that does not understand it starts. `starting`: such a one asks, and a file that is
    there and cannot be read is no less."""
    path = run_dir / STATE_FILE
    try:
        state = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if not starting:
            return None
        raise RefusedError(
            f"{path}, what a killed daemon left, cannot be read: {error.strerror}. If it stays so, "
            "remove it, with which what was written and not flushed is lost."
        ) from error
    except (ValueError, RecursionError) as error:
        # A rename is whole or not at all.
        warn(f"{path} is passed over, it is no file of ours: {str(error)[:200]}")
        return None
    if not isinstance(state, dict) or type(version := state.get("version")) is not int:
        warn(f"{path} is passed over, it is no file of ours: it has no version")
        return None
    if state.get("boot_id") != _BOOT_ID.read_text().strip():
        return None
    if version != _VERSION:
        raise RefusedError(
            f"A daemon of another version of ulvm was killed, and {path} is of its kind "
            f"({str(version)[:20]}, not {_VERSION}): have that version start and stop its daemon, "
            "or remove the file, with which what was written and not flushed is lost."
        )
    devices = state.get("devices")
    if not isinstance(devices, list):
        warn(f"{path} is passed over, it is no file of ours: devices are no list")
        return None
    return state if devices else None


def write_state(run_dir: Path, devices: list[dict[str, Any]], known: str | None = None) -> str:
    """What the file says from now on; `known`: what it says already, which need not be written
    again. OSError if the run directory will not have it; the old one is then as it was."""
    state = {
        "version": _VERSION,
        "boot_id": _BOOT_ID.read_text().strip(),
        "devices": devices,
    }
    text = json.dumps(state, separators=(",", ":"))  # In a tenth of the time of json.dump.
    if text == known:
        return text
    path = run_dir / STATE_FILE
    beside = path.with_suffix(".new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as stream:
            stream.write(text)
        os.replace(beside, path)
    except BaseException:
        with suppress(OSError):  # it takes up room where there may be none
            beside.unlink()
        raise
    return text


def drop_state(run_dir: Path) -> None:
    (run_dir / STATE_FILE).unlink(missing_ok=True)


class StateKeeper:
    """Has the state file say what `describe` says. `save` may be called from any thread and never
    raises; what fails is tried again by a thread of its own, from `start` to `stop`.

    `_lock` is over all, `describe` included, so that what was described first is written first."""

    def __init__(self, run_dir: Path, describe: Callable[[], list[dict[str, Any]]]) -> None:
        self._run_dir = run_dir
        self._describe = describe
        self._lock = threading.Lock()
        self._woken = threading.Condition(self._lock)
        self._thread = threading.Thread(target=self._run, name="ulvm-state", daemon=True)
        self._problem = ""
        """Why the last save failed."""
        self.coming_back: list[dict[str, Any]] | None = None
        """While devices are brought back the entries that they are made of are what is saved: the
        next start has all of them, whatever can be brought back at this one."""
        self._written: str | None = None
        """What the file says, if it is there. Much that is told of changes no device's entry (a
        load), and a file that says the same need not be written again."""
        self._stopped = False

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Nothing is written from here on."""
        with self._lock:
            self._stopped = True
            self._woken.notify()
        if self._thread.is_alive():
            self._thread.join()

    def save(self) -> None:
        with self._lock:
            if not self._stopped:
                self._save()

    def drop(self) -> None:
        with self._lock:
            self._drop()

    def _run(self) -> None:
        pause = _SOON
        with self._lock:
            while not self._stopped:
                if not self._problem:
                    pause = _SOON
                    self._woken.wait()
                    continue
                self._woken.wait(pause)
                if self._problem and not self._stopped:
                    self._save()
                    pause = min(2 * pause, _SECONDS)

    def _save(self) -> None:
        try:
            devices = self._describe() if self.coming_back is None else self.coming_back
            self._written = write_state(self._run_dir, devices, self._written)
        except Exception as error:  # MemoryError, say: as good a reason to try again
            problem = str(error) or type(error).__name__
            if problem != self._problem:
                log.error("cannot write the state file, so there is none yet: %s", problem)
            self._problem = problem
            self._woken.notify()
            self._drop()
        else:
            if self._problem:
                log.warning("the state file is written again")
            self._problem = ""

    def _drop(self) -> None:
        self._written = None
        try:
            drop_state(self._run_dir)
        except OSError as error:
            # The next daemon will bring the devices back.
            log.error("cannot remove the state file: %s", error)
