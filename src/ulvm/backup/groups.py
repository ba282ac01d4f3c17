"""The process groups that the user's commands get, and their end."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress

__all__ = ["end_group"]

_GRACE = 10.0
"""Seconds between SIGTERM and SIGKILL."""


def end_group(process: subprocess.Popen[bytes]) -> None:
    """Wait until no process of the group that `process` leads is left, asking and then forcing them
    to go. One that is another user's may not let itself be forced, and is left in the end."""
    for signum, patience in ((signal.SIGTERM, _GRACE), (signal.SIGKILL, _GRACE)):
        if not _signal_group(process.pid, signum):
            break
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline and _signal_group(process.pid, 0):
            process.poll()
            time.sleep(0.02)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE)


def _signal_group(group: int, signum: int) -> bool:
    """False if the group is empty. Whom we may not signal (what sudo runs, say) is in it."""
    try:
        os.killpg(group, signum)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
