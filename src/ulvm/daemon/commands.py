"""ulvm commands that the daemon starts beside itself, each a process of its own: it takes the VG's
lock and reads the metadata, for which no thread of the daemon may wait."""

from __future__ import annotations

import logging
import subprocess
import time
from collections.abc import Collection, Sequence
from typing import IO

__all__ = ["end_commands", "start_command"]

log = logging.getLogger(__name__)

_PATIENCE = 10.0
_KILLED_SECONDS = 1.0


def start_command(
    argv: Sequence[str], *, stderr: IO[bytes] | None = None
) -> subprocess.Popen[bytes]:
    """`stderr`: the file for what it says there. OSError if it cannot be started."""
    return subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL if stderr is None else stderr,
        start_new_session=True,
    )


def end_commands(
    processes: Collection[subprocess.Popen[bytes]], patience: float = _PATIENCE
) -> None:
    """Have them end: SIGTERM, which a command holds back where it must not stop half-way, and
    SIGKILL for those that still run after `patience` seconds in all. One that does not end of that
    is left: its request waits for a device of ours, and fails when that is taken down."""
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + patience
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            log.error("process %d does not end and is killed", process.pid)
            process.kill()
            try:
                process.wait(_KILLED_SECONDS)
            except subprocess.TimeoutExpired:
                log.error("process %d is held by a request, and left", process.pid)
