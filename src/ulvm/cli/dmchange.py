"""The commands of dmsetup that change something."""

from __future__ import annotations

import sys
from collections.abc import Callable

import click

from ulvm.cli.dmconcise import read_concise
from ulvm.cli.dminfo import chosen
from ulvm.cli.dmrequest import ArgumentsError, Request, Wanted, read_table
from ulvm.daemon.client import DaemonClient
from ulvm.dm_ioctl import TableLine
from ulvm.errors import BusyError, NotFoundError, TableError, UlvmError
from ulvm.report.dm_fields import by_name, mangled
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

_NO_DEVICE = "No device specified."

Work = Callable[[DaemonClient, str, Request], object]


def create(request: Request) -> None:
    if request.concise:
        _create_concise(request)
        return
    if not request.words:
        raise UlvmError("Please provide a name for the new device.")
    request.check_count(1, 2)
    name = request.new_name(request.words[0])
    path = request.words[1] if len(request.words) > 1 else None
    table = None if request.notable else request.read_table(path)
    uuid = request.plain_uuid(request.uuid or "")
    _create(request, name, uuid, request.minor, request.readonly, table)


def _create(
    request: Request,
    name: str,
    uuid: str,
    minor: int | None,
    read_only: bool,
    table: list[TableLine] | None,
) -> None:
    request.started()
    made = request.attempt(
        "create",
        f"{mangled(name)} {mangled(uuid)}",
        # Read-only is the table.
        lambda client: client.create(name, uuid, minor=minor, read_only=read_only and bool(table)),
    )
    if not table:
        return
    label = f"{mangled(name)} ({made.major}:{made.minor})"
    try:
        request.attempt("reload", label, lambda c: c.load(name, table, read_only=read_only))
        request.attempt("resume", f"{mangled(name)} ", lambda c: c.resume(name))
    except UlvmError:
        request.attempt("remove", label, lambda c: c.remove(name))
        raise


def _create_concise(request: Request) -> None:
    if len(request.words) > 1:
        raise UlvmError("dmsetup create --concise takes at most one argument")
    given = (request.notable, request.table, request.minor, request.uuid, request.inactive)
    if any(value not in (None, False) for value in given):
        raise UlvmError(
            "--concise is incompatible with --[no]table, --minor, --uuid and --inactive."
        )
    for entry in read_concise(request.words[0] if request.words else sys.stdin.read()):
        name, uuid = request.new_name(entry.name), request.plain_uuid(entry.uuid)
        read_only = request.readonly or entry.read_only
        _create(request, name, uuid, entry.minor, read_only, read_table(entry.table, ""))


def load(request: Request) -> None:
    device = request.one("Please specify device.")
    rest = request.words if request.by_option else request.words[1:]
    table = request.read_table(rest[0] if rest else None)
    read_only = request.readonly
    request.call(
        "reload", device, lambda client, name: client.load(name, table, read_only=read_only)
    )


def _each(kind: str, work: Work) -> Callable[[Request], None]:
    """For the devices named, up to the first that fails; with -S alone for all that it chooses."""

    def run(request: Request) -> None:
        if request.several:
            for device in request.several:
                if _is_chosen(request, device):
                    request.call(kind, device, lambda client, name: work(client, name, request))
            return
        if request.select is None:
            raise UlvmError(_NO_DEVICE)
        client = request.client(start=False)
        failed = []
        for info in chosen(request, client, by_name(client.devices())) if client else ():
            try:
                request.call(
                    kind, Wanted("name", info.name), lambda c, name: work(c, name, request)
                )
            except UlvmError as error:
                failed.append(error.message)
        if failed:
            raise UlvmError("\n".join(failed))

    return run


def _is_chosen(request: Request, device: Wanted) -> bool:
    client = None if request.select is None else request.client(start=False)
    return client is None or bool(chosen(request, client, [device.find(client)]))


def _remove(client: DaemonClient, name: str, request: Request) -> None:
    try:
        client.remove(name, force=request.force, retry=request.retry)
    except BusyError:
        if request.deferred:
            raise BusyError(
                f"device {name} is in use, and its removal cannot be put off here"
            ) from None
        raise


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
wipe_table = _each("reload", _wipe)


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
    if len(request.words) == 1 and not request.by_option:
        raise UlvmError(_NO_DEVICE)
    device = request.wanted[0]
    if len(request.words) > 1:
        device = Wanted("name", request.plain(request.words[0]))
    if request.setuuid:
        uuid = request.plain_uuid(request.words[-1])
        request.call("rename", device, lambda client, name: client.set_uuid(name, uuid))
    else:
        new = request.new_name(request.words[-1])
        request.call("rename", device, lambda client, name: client.rename(name, new))


def message(request: Request) -> None:
    rest = request.words if request.by_option else request.words[1:]
    if not rest:
        raise ArgumentsError("Incorrect number of arguments.")
    sector = parse_u64(rest[0])
    if sector is None:
        raise UlvmError("Invalid sector.")
    if len(rest) < 2:
        click.echo("No message supplied.", err=True)
    device = request.one(_NO_DEVICE)
    text = " ".join(rest[1:])
    answer = request.call(
        "message", device, lambda client, name: client.message(name, sector, text)
    )
    if answer:
        click.echo(answer)


def wait(request: Request) -> None:
    device = request.one(_NO_DEVICE)
    rest = request.words if request.by_option else request.words[1:]
    event = (parse_u64(rest[0]) or 0) if rest else 0
    request.call("waitevent", device, lambda client, name: client.wait(name, event))


def set_geometry(request: Request) -> None:
    """Cylinders, heads and sectors are the BIOS's affair: they are checked and not kept."""
    numbers = [parse_u64(word) for word in request.words[-4:]]

    def check(client: DaemonClient, name: str) -> None:
        cylinders, heads, sectors, start = (-1 if n is None else n for n in numbers)
        if not (
            0 <= cylinders < 1 << 16
            and 0 <= heads < 1 << 8
            and 0 <= sectors < 1 << 8
            and 0 <= start <= cylinders * heads * sectors
        ):
            raise TableError("")

    request.call("setgeometry", request.wanted[0], check)
