"""The log of a command: what it did to which object, as a report of its own (lvmreport(7)).

Messages and the state of each object that was gone through, in the order in which they came. It is
shown for `log/report_command_log = 1` and for `--logonly`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from ulvm.report.catalogue import LOG
from ulvm.report.table import Field, Value
from ulvm.report.vocabulary import Vocabulary

__all__ = ["LOG_FIELDS", "CommandLog", "LogEntry", "LogObject"]

_SUCCESS, _FAILURE = 1, 5
_NO_ERROR, _ERROR = 0, -1


class LogObject(NamedTuple):
    """`type`: lv, vg, pv, orphan or cmd. `group`: the VG that it belongs to."""

    type: str
    name: str
    uuid: str = ""
    group: str = ""
    group_uuid: str = ""


class LogEntry(NamedTuple):
    """`type`: status, print, warn or error."""

    number: int
    type: str
    about: LogObject
    message: str
    errno: int
    return_code: int
    context: str = "processing"
    """Else `shell`, of what the shell says of a command."""


class CommandLog:
    """Of one thread's command."""

    def __init__(self) -> None:
        self.entries: list[LogEntry] = []
        self._about = LogObject("", "")

    @contextmanager
    def about(self, thing: LogObject) -> Iterator[None]:
        """Messages within concern this object."""
        before, self._about = self._about, thing
        try:
            yield
        finally:
            self._about = before

    def message(self, kind: str, text: str) -> None:
        """A line that was printed: `print`, `warn` or `error`."""
        errno = _ERROR if kind == "error" else _NO_ERROR
        self._add(kind, self._about, text, errno, 0)

    def state(self, thing: LogObject, *, failed: bool = False) -> None:
        """The object has been gone through."""
        if failed:
            self._add("status", thing, "failure", _ERROR, _FAILURE)
        else:
            self._add("status", thing, "success", _NO_ERROR, _SUCCESS)

    def command_state(self, name: str, status: int) -> None:
        """The shell is done with a command."""
        about = LogObject("cmd", name)
        word, code = ("failure", status) if status else ("success", _SUCCESS)
        number = len(self.entries) + 1
        self.entries.append(LogEntry(number, "status", about, word, _NO_ERROR, code, "shell"))

    def of_group(self, group: LogObject, *, failed: bool) -> None:
        """All that was said concerns one group, which has been gone through now."""
        self.entries = [
            entry._replace(about=group) if not entry.about.type else entry for entry in self.entries
        ]
        self.state(group, failed=failed)

    def _add(self, kind: str, thing: LogObject, text: str, errno: int, code: int) -> None:
        self.entries.append(LogEntry(len(self.entries) + 1, kind, thing, text, errno, code))


_TYPES = {entry.name: entry.type for section in LOG for entry in section.entries}


def _field(name: str, heading: str, value: Callable[[LogEntry], Value], width: int = 0) -> Field:
    kind = _TYPES[name]
    return Field(name, heading, kind, max(width, len(heading)), value, "log", kind)


LOG_FIELDS = Vocabulary(
    LOG,
    {
        field.name: field
        for field in (
            _field("log_seq_num", "Seq", lambda e: e.number),
            _field("log_type", "LogType", lambda e: e.type),
            _field("log_context", "Context", lambda e: e.context),
            _field("log_object_type", "ObjType", lambda e: e.about.type),
            _field("log_object_name", "ObjName", lambda e: e.about.name),
            _field("log_object_id", "ObjID", lambda e: e.about.uuid, 7),
            _field("log_object_group", "ObjGrp", lambda e: e.about.group, 7),
            _field("log_object_group_id", "ObjGrpID", lambda e: e.about.group_uuid),
            _field("log_message", "Msg", lambda e: e.message, 7),
            _field("log_errno", "Errno", lambda e: e.errno),
            _field("log_ret_code", "RetCode", lambda e: e.return_code),
        )
    },
    prefixes=("log_",),
    groups={"log_all": ("log",)},
)
