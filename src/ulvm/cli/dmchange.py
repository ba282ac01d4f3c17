"""The commands of dmsetup that change something."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import click

from ulvm.cli.dmrequest import ArgumentsError, Request
from ulvm.daemon.client import DaemonClient
from ulvm.dm.table import parse_table
from ulvm.dm_ioctl import TableLine
from ulvm.errors import BusyError, NotFoundError, TableError, UlvmError
from ulvm.units import parse_u64

__all__ = [
    "clear",
    "create",
    "load",
    "message",
    "remove",
    "remove_all",
    "rename",
    "resume",
    "set_geometry",
    "suspend",
    "wait",
    "wipe_table",
]

_RETRIES, _RETRY_SECONDS = 25, 0.2
"""Of `remove --retry`, as libdevmapper."""

_NO_DEVICE = "No device specified."

Work = Callable[[DaemonClient, str, Request], object]


def create(request: Request) -> None:
    if request.concise:
        for entry in _concise_entries(request):
            _create(request, *entry)
        return
    if not request.words:
        raise UlvmError("Please provide a name for the new device.")
    request.check_count(1, 1 if request.notable or request.table is not None else 2)
    name = request.plain(request.words[0])
    if "/" in name:
        raise UlvmError(f'Name "{name}" invalid. It contains "/".')
    path = request.words[1] if len(request.words) > 1 else None
    table = None if request.notable else request.read_table(path)
    _create(request, name, request.uuid or "", request.minor, request.readonly, table)


def _create(
    request: Request,
    name: str,
    uuid: str,
    minor: int | None,
    read_only: bool,
    table: list[TableLine] | None,
) -> None:
    request.started()
    made = request.call(
        "create",
        name,
        lambda client: client.create(name, uuid, minor=minor, read_only=read_only),
        f"{name} {uuid}",
    )
    if table is None:
        return
    label = f"{name} ({made.major}:{made.minor})"
    try:
        request.call("reload", name, lambda c: c.load(name, table, read_only=read_only), label)
        request.call("resume", name, lambda c: c.resume(name), label)
    except UlvmError:
        request.call("remove", name, lambda c: c.remove(name))
        raise


Entry = tuple[str, str, int | None, bool, list[TableLine]]


def _concise_entries(request: Request) -> list[Entry]:
    """`name,uuid,minor,flags,table;...`"""
    text = request.words[0] if request.words else sys.stdin.read()
    entries = []
    for part in filter(None, text.strip().split(";")):
        fields = part.split(",", 4)
        if len(fields) < 5:
            shown = [*fields, *["(null)"] * (5 - len(fields))]
            raise TableError(
                "Five comma-separated fields are required for each device\n"
                + _parsed_fields(len(fields), shown)
            )
        name, uuid, minor, flags, table = fields
        number = parse_u64(minor) if minor else None
        if not table.strip() or (minor and number is None) or flags not in ("", "ro", "rw"):
            raise TableError(
                "Incomplete entry: five comma-separated fields are required for each device\n"
                + _parsed_fields(5, fields)
            )
        lines = parse_table(table.replace(",", "\n"))
        entries.append((request.plain(name), uuid, number, flags == "ro", lines))
    return entries


def _parsed_fields(count: int, fields: list[str]) -> str:
    names = ("name", "uuid", "minor", "flags", "table")
    shown = " ".join(f"{name}: {text}" for name, text in zip(names, fields, strict=True))
    return f"Parsed {count} fields: {shown}"


def load(request: Request) -> None:
    name = request.one("Please specify device.")
    rest = request.words if request.by_option else request.words[1:]
    table = request.read_table(rest[0] if rest else None)
    read_only = request.readonly
    request.call("reload", name, lambda client: client.load(name, table, read_only=read_only))


def _each(kind: str, work: Work) -> Callable[[Request], None]:
    def run(request: Request) -> None:
        request.one(_NO_DEVICE)
        for name in request.names:
            request.call(kind, name, lambda client: work(client, name, request))  # noqa: B023

    return run


def _remove(client: DaemonClient, name: str, request: Request) -> None:
    attempts = _RETRIES if request.retry else 1
    for left in reversed(range(attempts)):
        try:
            client.remove(name, force=request.force, retry=request.retry)
            return
        except BusyError:
            if request.deferred and not left:
                raise BusyError(
                    f"device {name} is in use, and its removal cannot be put off here"
                ) from None
            if not left:
                raise
            time.sleep(_RETRY_SECONDS)


def _wipe(client: DaemonClient, name: str, request: Request) -> None:
    """A table of errors in place of the device's, of the same length."""
    size = client.info(name).size
    client.load(name, [TableLine(0, size, "error")])
    client.suspend(name, lockfs=not request.nolockfs, flush=not request.noflush)
    client.resume(name)


clear = _each("clear", lambda client, name, _: client.clear(name))
suspend = _each(
    "suspend",
    lambda client, name, r: client.suspend(name, lockfs=not r.nolockfs, flush=not r.noflush),
)
resume = _each("resume", lambda client, name, _: client.resume(name))
remove = _each("remove", _remove)
wipe_table = _each("table", _wipe)


def remove_all(request: Request) -> None:
    """From the top: what others stand on goes last. What is in use stays."""
    client = request.client(start=False)
    if client is None:
        return
    left = [info.name for info in client.devices()]
    progress = True
    while left and progress:
        progress = False
        for name in list(left):
            try:
                client.remove(name, force=request.force)
            except BusyError:
                continue
            except NotFoundError:
                pass
            left.remove(name)
            progress = True


def rename(request: Request) -> None:
    request.check_count(1, 2)
    names = request.names
    if len(request.words) == 1 and not request.by_option:
        raise UlvmError(_NO_DEVICE)
    new = request.words[-1]
    if request.setuuid:
        request.call("rename", names[0], lambda client: client.set_uuid(names[0], new))
    else:
        new = request.plain(new)
        if "/" in new:
            raise UlvmError(f'Name "{new}" invalid. It contains "/".')
        request.call("rename", names[0], lambda client: client.rename(names[0], new))


def message(request: Request) -> None:
    rest = request.words if request.by_option else request.words[1:]
    if not rest:
        raise ArgumentsError("Incorrect number of arguments.")
    sector = parse_u64(rest[0])
    if sector is None:
        raise UlvmError("Invalid sector.")
    if len(rest) < 2:
        click.echo("No message supplied.", err=True)
    name = request.one(_NO_DEVICE)
    text = " ".join(rest[1:])
    answer = request.call("message", name, lambda client: client.message(name, sector, text))
    if answer:
        click.echo(answer)


def wait(request: Request) -> None:
    name = request.one(_NO_DEVICE)
    rest = request.words if request.by_option else request.words[1:]
    event = parse_u64(rest[0]) if rest else 0
    request.call("waitevent", name, lambda client: client.wait(name, event))


def set_geometry(request: Request) -> None:
    """Cylinders, heads and sectors are the BIOS's affair: they are checked and not kept."""
    request.check_count(4 if request.by_option else 5)
    name = request.names[0]
    numbers = [parse_u64(word) for word in request.words[-4:]]

    def check(client: DaemonClient) -> None:
        client.info(name)
        if None in numbers:
            raise TableError("")

    request.call("setgeometry", name, check)
