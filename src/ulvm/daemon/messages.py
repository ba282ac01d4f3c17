"""What passes over the control socket: JSON objects, one a line, UTF-8, at most MAX_MESSAGE bytes.

    request  {"id": 7, "protocol": 1, "op": "suspend", "args": {"device": "vg-base"}}
    reply    {"id": 7, "protocol": 1, "result": ...}
             {"id": 7, "protocol": 1, "error": {"type": "BusyError", "message": "...", "errno": 16}}

A connection carries one request at a time; the id tells a late reply from the one that is waited
for. A daemon lives longer than the program on disk: of another PROTOCOL each side does no more than
`FOR_ALL`, so these requests stay as they are. Pure functions; a message that is not what it should
be raises ProtocolError and nothing else, whatever its bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, get_type_hints

from ulvm import errors
from ulvm.dm_ioctl import DeviceInfo, TableLine
from ulvm.errors import ProtocolError, RefusedError, UlvmError

__all__ = [
    "FOR_ALL",
    "MAX_MESSAGE",
    "PROTOCOL",
    "decode",
    "encode",
    "error_of",
    "error_to_json",
    "info_of",
    "info_to_json",
    "lines_of",
    "lines_to_json",
    "of_another_version",
]

PROTOCOL = 1
"""One more with each change of a request or of what it is answered with."""
FOR_ALL = frozenset({"daemon_status", "stop"})
"""What a command asks a daemon of another version as well, and gets."""

MAX_MESSAGE = 16 << 20
"""Length of the longest line in bytes: a table of some 200,000 targets."""

_INFO_FIELDS: dict[str, type] = {
    name: kind if kind in (str, int, bool) else list
    for name, kind in get_type_hints(DeviceInfo).items()
}


def encode(message: Mapping[str, Any]) -> bytes:
    """One line. ProtocolError if it would be too long for the other side."""
    line = json.dumps(message, separators=(",", ":")).encode() + b"\n"
    if len(line) > MAX_MESSAGE:
        raise ProtocolError(f"message of {len(line)} bytes is longer than {MAX_MESSAGE}")
    return line


def decode(line: bytes | bytearray) -> dict[str, Any]:
    """The JSON object of a line. RecursionError is how the parser refuses deep nesting."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"message is not JSON: {error}") from error
    if not isinstance(message, dict):
        raise ProtocolError(f"message is not a JSON object but {type(message).__name__}")
    return message


def of_another_version(daemons: object, commands: object) -> RefusedError:
    """For a daemon and a command that do not speak the same protocol."""
    return RefusedError(
        "The daemon that runs is of another version of ulvm "
        f"(its protocol {str(daemons)[:20]}, this command's {str(commands)[:20]}): "
        "stop it ('ulvm daemon stop') and activate the volumes again."
    )


# -- errors -----------------------------------------------------------------------------------

_ERRORS: dict[str, type[UlvmError]] = {name: getattr(errors, name) for name in errors.__all__}


def error_to_json(error: UlvmError) -> dict[str, Any]:
    """The nearest class that both sides know, the sentence and the errno."""
    known = next(kind.__name__ for kind in type(error).__mro__ if kind.__name__ in _ERRORS)
    return {"type": known, "message": error.message, "errno": error.errno}


def error_of(value: object) -> UlvmError:
    """The error to raise for the "error" of a reply."""
    if not isinstance(value, dict):
        raise ProtocolError("error in a reply is not a JSON object")
    kind, message, number = value.get("type"), value.get("message"), value.get("errno")
    if not (isinstance(kind, str) and isinstance(message, str) and isinstance(number, int)):
        raise ProtocolError("error in a reply lacks its type, message or errno")
    return _ERRORS.get(kind, UlvmError)(message, errno=number)


# -- values -----------------------------------------------------------------------------------


def lines_to_json(lines: Sequence[TableLine]) -> list[list[Any]]:
    return [[line.start, line.length, line.target_type, line.params] for line in lines]


def lines_of(value: object) -> list[TableLine]:
    """Table lines from [[start, length, type, params], ...]."""
    if not isinstance(value, list):
        raise ProtocolError("table is not a list")
    lines = []
    for line in value:
        if not isinstance(line, list) or [type(word) for word in line] != [int, int, str, str]:
            raise ProtocolError("table line is not [start, length, type, parameters]")
        lines.append(TableLine(*line))
    return lines


def info_to_json(info: DeviceInfo) -> dict[str, Any]:
    return info._asdict()


def info_of(value: object) -> DeviceInfo:
    if not isinstance(value, dict) or set(value) != set(_INFO_FIELDS):
        raise ProtocolError("device information lacks fields or has unknown ones")
    for name, kind in _INFO_FIELDS.items():
        if type(value[name]) is not kind:
            raise ProtocolError(f"{name} in device information is not of type {kind.__name__}")
        if kind is list and any(type(word) is not str for word in value[name]):
            raise ProtocolError(f"{name} in device information is not a list of strings")
    places = {"frozen": tuple(value["frozen"]), "synced": tuple(value["synced"])}
    return DeviceInfo(**{**value, **places})
