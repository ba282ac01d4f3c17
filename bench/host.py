"""A host of ulvm's for one measurement: directories of its own, real commands, the real daemon."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from bench.bed import Bed
from bench.fio import Target

__all__ = ["Host", "hosting"]


class Host:
    """`settings` as in ulvm.conf, such as {"ulvm/durability": '"process"'}."""

    def __init__(self, base: Path, settings: Mapping[str, str]) -> None:
        self.base = base
        self.run_dir = base / "run"
        system_dir = base / "etc"
        system_dir.mkdir()
        # Snapshots are to fill up to where the load ends, and not to grow meanwhile.
        lines = ["activation/snapshot_autoextend_threshold = 100"]
        lines += [f"{name} = {value}" for name, value in settings.items()]
        (system_dir / "ulvm.conf").write_text("\n".join(lines) + "\n")
        self.environment = {
            **os.environ,
            "ULVM_SYSTEM_DIR": str(system_dir),
            "ULVM_RUN_DIR": str(self.run_dir),
        }

    @staticmethod
    def words(command: str) -> list[str]:
        """`ulvm COMMAND` as it is started from a shell."""
        return [str(Path(sys.executable).with_name("ulvm")), *shlex.split(command)]

    def ulvm(self, command: str) -> str:
        """Run a command; what it prints. RuntimeError when it fails."""
        done = subprocess.run(
            self.words(command),
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"ulvm {command}: {done.stderr.strip()}")
        return done.stdout

    def pid(self) -> int:
        """Of the daemon."""
        return int(json.loads(self.ulvm("daemon status --json"))["pid"])

    def uri(self, volume: str) -> str:
        return f"nbd+unix:///{volume}?socket={self.run_dir}/nbd.sock"

    def target(self, volume: str, door: str = "nbd") -> Target:
        """The volume through NBD or FUSE."""
        if door == "fuse":
            return Target(path=str(self.run_dir / "dev" / volume), pids=(self.pid(),))
        return Target(uri=self.uri(volume), pids=(self.pid(),))


@contextmanager
def hosting(bed: Bed, settings: Mapping[str, str] | None = None) -> Iterator[Host]:
    """A host; with the context its daemon ends."""
    base = bed.folder()
    host = Host(base, settings or {})
    try:
        yield host
    finally:
        host.ulvm("daemon stop --force")
        shutil.rmtree(base)
