"""A host of its own for a test: system directory, run directory, daemon, and the real commands."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

__all__ = ["Result", "UlvmHost"]

TIMEOUT = 600.0
"""Seconds after which a command counts as hanging."""
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class Result(NamedTuple):
    """What a command printed, and its exit code."""

    stdout: str
    stderr: str
    rc: int


class UlvmHost:
    """All that is made lies below `base`, whose path should be short: sockets lie in it."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.system_dir = base / "etc"
        self.run_dir = base / "run"
        self.system_dir.mkdir()
        # Tests fill snapshots; those of the monitor say what it is to do.
        (self.system_dir / "ulvm.conf").write_text(
            "activation { snapshot_autoextend_threshold = 100 }\n"
        )
        self.env = {
            **os.environ,
            "ULVM_SYSTEM_DIR": str(self.system_dir),
            "ULVM_RUN_DIR": str(self.run_dir),
        }

    @staticmethod
    def argv(command: str) -> list[str]:
        return [sys.executable, "-m", "ulvm.cli.start", *shlex.split(command)]

    def start(self, command: str) -> subprocess.Popen[str]:
        """`ulvm COMMAND` in the background."""
        return subprocess.Popen(
            self.argv(command),
            cwd=self.base,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, command: str, rc: int = 0, input: str | None = None) -> Result:
        """`ulvm COMMAND` in `base`; fails the test unless the exit code is `rc`."""
        done = self.attempt(command, input)
        assert done.rc == rc, (
            f"ulvm {command}: exit code {done.rc}, expected {rc}\n{done.stdout}{done.stderr}"
        )
        return done

    def attempt(self, command: str, input: str | None = None) -> Result:
        """`ulvm COMMAND` in `base`, whatever its exit code."""
        done = subprocess.run(
            self.argv(command),
            cwd=self.base,
            env=self.env,
            stdin=subprocess.DEVNULL if input is None else None,
            input=input,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT,
        )
        return Result(done.stdout, done.stderr, done.returncode)

    def image(self, name: str, size: str) -> Path:
        """A new sparse file of `size`, such as 128M."""
        path = self.base / name
        with path.open("xb") as file:
            file.truncate(int(size[:-1]) * _UNITS[size[-1]])
        return path

    def path(self, volume: str) -> Path:
        """The file that is the active volume `vg/lv`."""
        return self.run_dir / "dev" / volume

    def dm(self, name: str) -> Path:
        """The file that is the dm device `name`."""
        return self.run_dir / "dev" / "mapper" / name

    def uri(self, volume: str) -> str:
        """The volume's NBD URI."""
        return f"nbd+unix:///{volume}?socket={self.run_dir}/nbd.sock"

    def daemon_pid(self) -> int:
        return int(json.loads(self.run("daemon status --json").stdout)["pid"])

    def log(self) -> str:
        """What the daemon logged."""
        return (self.run_dir / "ulvmd.log").read_text()

    def close(self) -> None:
        """Unmount what stands on the volumes, detach their loop devices, stop the daemon."""
        try:
            for loop in self._loops():
                for where in _mounted(loop):
                    subprocess.run(["umount", where], check=True)
                # A loop device that detaches itself is gone with its mount.
                if loop in self._loops():
                    subprocess.run(["losetup", "--detach", loop], check=True)
        finally:
            self.run("daemon stop --force")

    def _loops(self) -> list[str]:
        found = []
        for backing in sorted(Path("/sys/block").glob("loop*/loop/backing_file")):
            try:
                path = backing.read_text()
            except OSError:  # Detached since the directory was read.
                continue
            if path.startswith(f"{self.base}/"):
                found.append(f"/dev/{backing.parts[3]}")
        return found


def _mounted(device: str) -> list[str]:
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return [where for source, where, *_ in map(str.split, lines) if source == device]
