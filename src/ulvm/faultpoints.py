"""Points between the steps of a command at which tests end the process as kill -9 does.

A step that changes something (a write of metadata, a swap of a table, a rename of a file) stands
between two calls of `reach`. Nothing happens there unless the program's entry point has armed them
by ULVM_FAULT_POINT, of the daemon by ULVM_DAEMON_FAULT_POINT:

    12            the process kills itself at the 12th point that it reaches
    at=NAME       at the first point of this name
    list=FILE     the names of the points that are reached are added to FILE

None lies on the way of a client's data. Threads share the count.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

__all__ = ["arm", "reach"]

_left = 0
_at = ""
_list: Path | None = None


def arm(setting: str) -> None:
    """Take a setting as above; nothing for an empty one. ValueError for nonsense."""
    global _left, _at, _list  # noqa: PLW0603
    if setting.startswith("list="):
        _list = Path(setting.removeprefix("list="))
    elif setting.startswith("at="):
        _at = setting.removeprefix("at=")
    elif setting:
        _left = int(setting)


def reach(name: str) -> None:
    """A point has been reached; `name` says between which steps it lies."""
    global _left  # noqa: PLW0603
    if _left:
        _left -= 1
        if not _left:
            os.kill(os.getpid(), signal.SIGKILL)
    elif _at == name:
        os.kill(os.getpid(), signal.SIGKILL)
    elif _list is not None:
        with _list.open("a") as file:
            file.write(f"{name}\n")
