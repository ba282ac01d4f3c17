"""A host of the demonstration's own: its directories, its daemon, and real commands on it."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple, Protocol

from ulvm.backup.interrupts import deferred
from ulvm.errors import UlvmError

__all__ = ["DemoHost", "Finished", "Screen"]


class Screen(Protocol):
    """Where the demonstration is shown."""

    def heading(self, text: str) -> None: ...

    def command(self, text: str) -> None: ...

    def output(self, text: str) -> None: ...

    def fact(self, text: str, *, good: bool | None = None) -> None:
        """Something that was seen; `good` says whether it is as it should be."""


class Finished(NamedTuple):
    """A command that ended well."""

    stdout: str
    stderr: str


class DemoHost:
    """Everything lies below `base`; commands are shown before they run."""

    def __init__(self, base: Path, screen: Screen) -> None:
        self.base = base
        self.run_dir = base / "run"
        self.screen = screen
        self.environment = {
            **os.environ,
            "ULVM_SYSTEM_DIR": str(base / "etc"),
            "ULVM_RUN_DIR": str(self.run_dir),
        }

    @property
    def socket(self) -> str:
        return str(self.run_dir / "nbd.sock")

    def device(self, volume: str) -> Path:
        """The file that is the volume."""
        return self.run_dir / "dev" / volume

    def ulvm(self, command: str, *, quietly: bool = False) -> Finished:
        """`ulvm COMMAND`; UlvmError with what it printed if it fails."""
        words = [sys.executable, "-P", "-m", "ulvm.cli.start", *shlex.split(command)]
        return self._run(words, f"ulvm {command}", quietly)

    def shell(self, command: str) -> Finished:
        """Another program."""
        return self._run(shlex.split(command), command, False)

    def _run(self, words: list[str], shown: str, quietly: bool) -> Finished:
        if not quietly:
            self.screen.command(shown)
        # On a terminal a command may draw a progress bar there.
        terminal = sys.stderr.isatty() and not quietly
        # A Ctrl-C waits for the end of the command, and is not the command's: what it began is
        # whole then, and can be undone.
        with deferred():
            done = subprocess.run(
                words,
                cwd=self.base,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=None if terminal else subprocess.PIPE,
                text=True,
                check=False,
                start_new_session=True,
            )
        stderr = done.stderr or ""
        if not quietly:
            self.screen.output(done.stdout + stderr)
        if done.returncode:
            raise UlvmError(f"{shown} ended with {done.returncode}: {stderr.strip()}")
        return Finished(done.stdout, stderr)
