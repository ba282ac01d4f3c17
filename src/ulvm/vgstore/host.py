"""One host: a system directory, a run directory and the settings. Everything else hangs on it.

Two hosts with different directories know nothing of each other. Only `from_environment` looks at
the environment, and only the commands' entry points call it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, TypeAlias

from ulvm.blockdev.base import BlockDevice
from ulvm.blockdev.file import FileDevice
from ulvm.blockdev.overlay import OverlayDevice, Written
from ulvm.errors import RefusedError
from ulvm.metadata.names import name_problem
from ulvm.vgstore.config import Config
from ulvm.vgstore.system_id import local_system_id

__all__ = [
    "ROOT_RUN_DIR",
    "DeviceOpener",
    "Host",
    "lvm_environment",
    "open_shared",
    "trial_opener",
]

ROOT_RUN_DIR = Path("/run/ulvm")

_WAITS = "global/wait_for_locks=1"
_SAME_IN_LVM = ("SYSTEM_DIR", "COMMAND_PROFILE")
"""ULVM_... that has the meaning of LVM_..."""

DeviceOpener: TypeAlias = Callable[[str, bool], BlockDevice]
"""Opens the file or disk at a path; the flag says whether it will be written."""


def open_shared(path: str, writable: bool) -> BlockDevice:
    """A PV's file or disk without a claim on it: the daemon may hold it for the volumes on it."""
    return FileDevice(path, writable=writable, claim=False)


def trial_opener() -> DeviceOpener:
    """Devices whose writes are seen by all that this opener opens, and are kept nowhere."""
    written: dict[str, Written] = {}

    def opened(path: str, writable: bool) -> BlockDevice:
        return OverlayDevice(open_shared(path, False), written.setdefault(path, []))

    return opened


def lvm_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment with what lvm(8) and dmsetup(8) read from it, for a program that was started
    under a name of theirs: LVM_SYSTEM_DIR stands for ULVM_SYSTEM_DIR where that is not set, and so
    on. DM_DEV_DIR is ULVM_DEV_DIR."""
    found = dict(environ)
    pairs = [(f"ULVM_{name}", f"LVM_{name}") for name in _SAME_IN_LVM]
    for ours, theirs in [*pairs, ("ULVM_DEV_DIR", "DM_DEV_DIR")]:
        if not found.get(ours) and found.get(theirs):
            found[ours] = found[theirs]
    return found


def _of_user(environ: Mapping[str, str]) -> Path:
    """Where a user's settings lie. In a container they may have no name and no home."""
    base = environ.get("XDG_CONFIG_HOME")
    try:
        return Path(base) if base else Path.home() / ".config"
    except RuntimeError:
        raise RefusedError(
            f"User {os.geteuid()} has no home directory: set HOME, or ULVM_SYSTEM_DIR."
        ) from None


class Host(NamedTuple):
    """Where this host keeps its things. `opener` is how PVs are opened for metadata."""

    system_dir: Path
    run_dir: Path
    config: Config = Config()
    opener: DeviceOpener = open_shared
    overrides: str = ""
    """The text of --config, for commands that this one begins."""
    memory: dict[Path, str] | None = None
    """Of a command on trial: files as it would have left them."""
    activation: bool = True
    """Whether device-mapper may be talked to: not with `--driverloaded n`, nor with --readonly."""
    locking: bool = True
    """Whether commands wait for each other: not with --nolocking."""
    read_only: bool = False
    """--readonly, or global/locking_type 4: no metadata are changed."""
    activates: bool = True
    """Whether volumes may be made active or not all the same: with the latter."""
    foreign: bool = False
    """--foreign: VGs of other hosts are shown like this host's own."""
    only_devices: tuple[str, ...] = ()
    """--devices: absolute paths to look at instead of the devices file's."""
    default_vg: str = ""
    """LVM_VG_NAME: the VG of a volume that is named without one."""
    dev_dir_override: str = ""

    @classmethod
    def from_environment(
        cls, environ: Mapping[str, str], *, overrides: str = "", profile: str = ""
    ) -> Host:
        """ULVM_SYSTEM_DIR and ULVM_RUN_DIR, else root's or the user's own; `overrides` is the
        text of `--config`, `profile` a command profile's name, else ULVM_COMMAND_PROFILE.
        RefusedError for a user who has no directory at all."""
        root = os.geteuid() == 0
        if environ.get("ULVM_SYSTEM_DIR"):
            system_dir = Path(environ["ULVM_SYSTEM_DIR"])
        elif root:
            system_dir = Path("/etc/ulvm")
        else:
            system_dir = _of_user(environ) / "ulvm"
        if environ.get("ULVM_RUN_DIR"):
            run_dir = Path(environ["ULVM_RUN_DIR"])
        elif root:
            run_dir = ROOT_RUN_DIR
        elif environ.get("XDG_RUNTIME_DIR"):
            run_dir = Path(environ["XDG_RUNTIME_DIR"]) / "ulvm"
        else:
            run_dir = system_dir / "run"
        # Absolute, since the daemon works from another directory. The kernel names what volumes are
        # mounted and looped by paths without links, and they are compared as text.
        system_dir, run_dir = system_dir.absolute(), Path(os.path.realpath(run_dir))
        config = Config.load_directory(system_dir)
        profile = profile or environ.get("ULVM_COMMAND_PROFILE", "")
        if profile:
            config = config.with_profile(system_dir, profile)
        if overrides:
            config = config.with_overrides(overrides)
        vg = environ.get("LVM_VG_NAME", "").removeprefix("/dev/")
        host = cls(system_dir, run_dir, config, overrides=overrides, default_vg=vg)
        dev_dir = environ.get("ULVM_DEV_DIR", "")
        return host._replace(dev_dir_override=dev_dir) if dev_dir.startswith("/") else host

    @property
    def trial(self) -> bool:
        """-t: nothing is written, to no disk and no file, and no volume changes."""
        return self.memory is not None

    def on_trial(self) -> Host:
        """This host for a command with -t."""
        return self._replace(opener=trial_opener(), memory={})

    def with_settings(self, overrides: str) -> Host:
        """This host with the settings of its system directory and those of `--config` on top."""
        config = Config.load_directory(self.system_dir)
        if overrides:
            config = config.with_overrides(overrides)
        return self._replace(config=config, overrides=overrides)

    def with_profile(self, name: str, kind: str) -> Host:
        """This host with a profile of a kind on top; RefusedError."""
        return self._replace(config=self.config.with_profile(self.system_dir, name, kind))

    @property
    def dev_dir(self) -> Path:
        """DM_DEV_DIR or devices/dir: what stands before `vg/lv` in the names of volumes."""
        return Path(self.dev_dir_override or self.config.get_str("devices/dir", "/dev"))

    @property
    def system_id(self) -> str:
        """By which VGs belong to this host; empty for none."""
        return local_system_id(self.config)

    @property
    def backup_dir(self) -> Path:
        """backup/backup_dir."""
        return Path(self.config.get_str("backup/backup_dir", str(self.system_dir / "backup")))

    @property
    def archive_dir(self) -> Path:
        """backup/archive_dir."""
        return Path(self.config.get_str("backup/archive_dir", str(self.system_dir / "archive")))

    @property
    def devices_file(self) -> Path:
        """devices/devicesfile in `<system_dir>/devices`; RefusedError for what is no name."""
        name = self.config.get_str("devices/devicesfile", "system.devices")
        if name_problem(name) is not None:
            raise RefusedError(
                f'Invalid devices file name from config setting "{name}".\n'
                "Failed to set up devices."
            )
        return self.system_dir / "devices" / name

    @property
    def lock_dir(self) -> Path:
        """global/locking_dir."""
        return Path(self.config.get_str("global/locking_dir", str(self.run_dir / "lock")))

    def command(self, *words: str) -> list[str]:
        """An ulvm command for this host as a program with its arguments, to run on its own. What
        lies in the directory where it is run is no part of the program."""
        settings = [f"ULVM_SYSTEM_DIR={self.system_dir}", f"ULVM_RUN_DIR={self.run_dir}"]
        overrides = ["--config", self.overrides] if self.overrides else []
        python = [sys.executable, "-P", "-m"]
        return ["env", *settings, *python, "ulvm.cli.start", *words, *overrides]

    def background_command(self, *words: str) -> list[str]:
        """As `command`, of one that nobody gives again when it is refused: it waits for locks,
        whatever the settings say."""
        overrides = self.overrides
        if _WAITS not in overrides:
            overrides = f"{overrides}\n{_WAITS}".strip()  # which may end with a comment
        return self._replace(overrides=overrides).command(*words)
