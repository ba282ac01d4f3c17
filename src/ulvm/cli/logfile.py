"""What a command says, kept elsewhere too (lvm.conf(5), section log).

log/file, log/overwrite     a file, a line each
log/syslog                  the system's log
log/level                   what of it: 3 errors, 4 also warnings and results, 5 also what -v
                            tells; 0, the default, nothing
log/debug_file_fields       what a line of the file has: time, command, fileline, message
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import PurePath

from ulvm.vgstore.config import Config

__all__ = ["ERROR", "INFO", "RESULT", "WARNING", "LogFile", "open_log"]

ERROR, WARNING, INFO = 3, 4, 5
RESULT = WARNING
"""Levels of log/level."""

_FIELDS = ("time", "command", "fileline", "message")
_PACKAGE = PurePath(__file__).parent.parent
_SAYING = (
    "cli/console.py",
    "cli/logfile.py",
    "lvm/session.py",
    "lvm/undisturbed.py",
    "lvm/words.py",
)
"""Where words pass through: the line that is told is that of their caller."""


class LogFile:
    """`file`: a descriptor, or None. A command may be in the midst of a change when it says
    something, so a line that cannot be written is lost, and `problem` tells why."""

    def __init__(
        self,
        file: int | None,
        *,
        syslog: bool,
        level: int,
        command: str,
        fields: tuple[str, ...] = _FIELDS,
    ) -> None:
        self._file = file
        self._syslog = syslog
        self._level = level
        self._command = command
        self._fields = fields
        self.problem = ""

    def write(self, level: int, line: str) -> None:
        """`line` with the prefix that it is printed with."""
        if level > self._level:
            return
        if self._file is not None:
            text = f"{self._head()} {line}\n"
            try:
                os.write(self._file, text.encode("utf-8", errors="surrogateescape"))
            except OSError as error:
                self.problem = error.strerror or str(error)
        if self._syslog:
            import syslog

            syslog.openlog("ulvm", syslog.LOG_PID, syslog.LOG_USER)
            syslog.syslog(level, line.strip().encode("utf-8", "backslashreplace").decode())

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _head(self) -> str:
        found = []
        if "time" in self._fields:
            found.append(datetime.now().strftime("%H:%M:%S.%f"))
        if "command" in self._fields:
            found.append(f"{self._command}[{os.getpid()}]")
        if "fileline" in self._fields:
            found.append(_place())
        return " ".join(found)


def _place() -> str:
    """The line of ours that says it."""
    frame = sys._getframe(2)
    while frame.f_back is not None:
        path = PurePath(frame.f_code.co_filename)
        if path.is_relative_to(_PACKAGE):
            inside = str(path.relative_to(_PACKAGE))
            if inside not in _SAYING:
                return f"{inside}:{frame.f_lineno}"
        frame = frame.f_back
    return "ulvm"


def open_log(config: Config, command: str, warn: Callable[[str], None]) -> LogFile | None:
    """None where nothing is to be kept. A file that cannot be opened is warned of."""
    level = config.get_int("log/level", 0)
    path = config.get_str("log/file", "")
    to_syslog = config.get_bool("log/syslog", False)
    file: int | None = None
    if path and level:
        mode = os.O_TRUNC if config.get_bool("log/overwrite", False) else os.O_APPEND
        try:
            permitted = 0o666 & ~config.get_int("global/umask", 0o77)
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | mode, permitted)
        except OSError as error:
            warn(f"{path}: fopen failed: {error.strerror}")
    if not level or (file is None and not to_syslog):
        return None
    fields = tuple(config.get_list("log/debug_file_fields", list(_FIELDS)))
    return LogFile(file, syslog=to_syslog, level=level, command=command, fields=fields)
