"""The devices file: which files and disks hold this host's PVs (lvmdevices(8)).

`<system_dir>/devices/system.devices` has LVM's own format, one line a PV:

    IDTYPE=devname IDNAME=/images/a.img DEVNAME=/images/a.img PVID=<32 characters>

A disk that has an identity is known by that (`device_ids`): the entry holds for it wherever it is,
and for no other that has its name today. Blanks, backslashes and line ends in a path are written
in octal (`\\040`). Lines that are not understood are kept as they are; the last number of VERSION
counts the changes. Every change is made under the global lock by its caller.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import NamedTuple

from ulvm.errors import FormatError
from ulvm.metadata.uuid import format_uuid, parse_uuid
from ulvm.vgstore.device_ids import DEVNAME, KNOWN_TYPES, device_id, find_device, part_of
from ulvm.vgstore.files import write_atomically
from ulvm.vgstore.host import Host

__all__ = [
    "DeviceEntry",
    "add_devices",
    "lost_words",
    "read_devices",
    "remove_devices",
    "uses_devices_file",
]

_HEADER = """\
# ulvm uses the devices listed in this file.
VERSION=1.1.0
"""
_ESCAPED = re.compile(rb"\\([0-3][0-7]{2})")
_VERSION = re.compile(r"(VERSION=\d+\.\d+\.)(\d{1,9})", re.ASCII)
_UNSAFE = re.compile(r"[\s\\]")


class DeviceEntry(NamedTuple):
    """Where a device is, and the PV that was on it when it was added."""

    path: str
    pv_uuid: str | None
    """In text form, with dashes."""
    id_type: str = ""
    """What the device is known by; `devname`: by its path alone. Empty: by the best it has."""
    id_name: str = ""
    """Empty: the path."""
    part: int = 0
    """Of the disk that is known by the name; 0 for the whole."""
    listed: str = ""
    """The path in the file, where the device is elsewhere now."""
    lost: bool = False
    """No device here is known by the name."""


def lost_words(entry: DeviceEntry) -> str:
    """Of an entry whose device is not there."""
    pvid = parse_uuid(entry.pv_uuid) if entry.pv_uuid else "none"
    return (
        f"Devices file {entry.id_type} {entry.id_name or entry.path} PVID {pvid} "
        f"last seen on {entry.listed or entry.path} not found."
    )


def uses_devices_file(host: Host) -> bool:
    """Whether the devices file counts, so that a new PV is entered there."""
    return host.config.get_bool("devices/use_devicesfile", True)


def read_devices(host: Host) -> list[DeviceEntry]:
    """The entries in the order of the file; none if there is no file."""
    entries = []
    for line in _lines(host):
        entry = _located(line)
        if entry is not None:
            entries.append(entry)
    return entries


def add_devices(host: Host, entries: Iterable[DeviceEntry]) -> None:
    """Add or replace the entries of these devices; nothing where the file does not count."""
    if not uses_devices_file(host):
        return
    new = {e.path: _identified(e) for e in entries}
    lines = []
    for line in _lines(host):
        old = _located(line)
        if old is not None and not old.lost and old.path in new:
            lines.append(_format(new.pop(old.path)))
        else:
            lines.append(line)
    lines += [_format(e) for e in new.values()]
    _write(host, lines)


def remove_devices(host: Host, paths: Iterable[str]) -> None:
    """Drop the entries of these paths; those that are not there do not matter."""
    gone = set(paths)
    old = _lines(host)
    lines = []
    for line in old:
        entry = _located(line)
        if entry is None or entry.path not in gone:
            lines.append(line)
    if lines != old:
        _write(host, lines)


def _identified(entry: DeviceEntry) -> DeviceEntry:
    if entry.id_type:
        return entry
    id_type, id_name = device_id(entry.path)
    return entry._replace(id_type=id_type, id_name=id_name, part=part_of(entry.path))


def _located(line: str) -> DeviceEntry | None:
    """The entry with the path that its device has now."""
    entry = _parse(line)
    if entry is None or entry.id_type == DEVNAME or entry.id_type not in KNOWN_TYPES:
        return entry
    if device_id(entry.path, entry.id_type)[1] == entry.id_name:
        return entry
    path = find_device(entry.id_type, entry.id_name, entry.part)
    if path is None:
        return entry._replace(lost=True)
    return entry._replace(path=path, listed=entry.path)


def _lines(host: Host) -> list[str]:
    path = host.devices_file
    if host.memory is not None and path in host.memory:
        return host.memory[path].splitlines()
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except FileNotFoundError:
        return _HEADER.splitlines()
    except OSError as error:
        raise FormatError(f"Failed to read {path}: {error.strerror}") from error


def _write(host: Host, lines: list[str]) -> None:
    for at, line in enumerate(lines):
        version = _VERSION.fullmatch(line)
        if version is not None:
            lines[at] = f"{version[1]}{int(version[2]) + 1}"
    text = "".join(f"{line}\n" for line in lines)
    if host.memory is not None:
        host.memory[host.devices_file] = text
        return
    write_atomically(host.devices_file, text.encode("utf-8", errors="surrogateescape"))


def _parse(line: str) -> DeviceEntry | None:
    fields = dict(f.split("=", 1) for f in line.split() if "=" in f and not line.startswith("#"))
    path = fields.get("DEVNAME", "")
    if "IDTYPE" not in fields or path in {"", "."}:
        return None
    pvid = fields.get("PVID", ".")
    try:
        uuid = format_uuid(parse_uuid(pvid)) if pvid != "." else None
    except FormatError:
        uuid = None  # a hint only: the label says which PV it is
    plain, id_name = _plain(path), _plain(fields.get("IDNAME", ""))
    part = fields.get("PART", "0")
    number = int(part) if part.isascii() and part.isdigit() and len(part) < 6 else 0
    return DeviceEntry(plain, uuid, fields["IDTYPE"], id_name, number)


def _format(entry: DeviceEntry) -> str:
    path = _escaped(entry.path)
    pvid = parse_uuid(entry.pv_uuid) if entry.pv_uuid else "."
    name = _escaped(entry.id_name) or path
    part = f" PART={entry.part}" if entry.part and entry.id_type != DEVNAME else ""
    return f"IDTYPE={entry.id_type or DEVNAME} IDNAME={name} DEVNAME={path} PVID={pvid}{part}"


def _escaped(text: str) -> str:
    """Blanks of every alphabet, and backslashes, by their bytes in octal."""

    def octal(match: re.Match[str]) -> str:
        return "".join(f"\\{byte:03o}" for byte in os.fsencode(match.group()))

    return _UNSAFE.sub(octal, text)


def _plain(text: str) -> str:
    return os.fsdecode(_ESCAPED.sub(lambda m: bytes([int(m[1], 8)]), os.fsencode(text)))
