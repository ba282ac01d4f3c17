"""dmsetup: the device mapper without LVM on top (dmsetup(8)).

As in dmsetup, options may stand anywhere and belong to all commands alike. Failures print what
dmsetup prints, and the reason where we know it, and exit with 1.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click

import ulvm
from ulvm.activation.names import split_dm_name
from ulvm.cli.context import Context, own_options
from ulvm.cli.dminfo import column_lines, info_lines
from ulvm.cli.dmtree import tree_lines
from ulvm.daemon.client import DaemonClient, connect
from ulvm.dm.table import parse_table
from ulvm.dm_ioctl import DeviceInfo, TableLine
from ulvm.errors import BusyError, FormatError, NotFoundError, TableError, UlvmError, UsageError
from ulvm.units import parse_u64

__all__ = ["dmsetup"]

_FAILED = 1
_RETRIES, _RETRY_SECONDS = 25, 0.2
"""Of `remove --retry`, as libdevmapper."""


@dataclass(frozen=True)
class _Options:
    """What was given on the command line, for whichever command it means something to."""

    words: tuple[str, ...]
    uuid: str | None
    major: int | None
    minor: int | None
    table: str | None
    notable: bool
    readonly: bool
    noflush: bool
    nolockfs: bool
    inactive: bool
    force: bool
    retry: bool
    setuuid: bool
    target: str | None
    tree: bool
    columns: bool
    options: str | None
    noheadings: bool
    separator: str | None


@click.command()
@click.argument("command", metavar="COMMAND")
@click.argument("words", nargs=-1, metavar="[DEVICE|ARGUMENT...]")
@click.option("-u", "--uuid", help="Name the device by its UUID; with create: its UUID.")
@click.option("-j", "--major", type=int, help="Name the device by its number, with -m.")
@click.option("-m", "--minor", type=int, help="Likewise; with create: its minor number.")
@click.option("--table", help="The table; by default it is read from standard input.")
@click.option("-n", "--notable", is_flag=True, help="create: without a table.")
@click.option("-r", "--readonly", is_flag=True, help="A table for reading only.")
@click.option("--noflush", is_flag=True, help="suspend, status: do not flush.")
@click.option("--nolockfs", is_flag=True, help="suspend: do not freeze file systems.")
@click.option("--inactive", is_flag=True, help="table, deps: of the inactive table.")
@click.option("-f", "--force", is_flag=True, help="remove: replace the table by errors first.")
@click.option("--retry", is_flag=True, help="remove: try for some seconds.")
@click.option("--setuuid", is_flag=True, help="rename: set the UUID instead of the name.")
@click.option("--target", help="Only devices with a target of this type.")
@click.option("--tree", is_flag=True, help="ls: as a tree.")
@click.option("-c", "-C", "--columns", is_flag=True, help="info: in columns.")
@click.option("-o", "--options", help="info -c: columns; deps: devno, devname or blkdevname.")
@click.option("--noheadings", is_flag=True, help="info -c: no headings.")
@click.option("--separator", help="info -c: between columns.")
@click.option("--addnodeonresume", is_flag=True, hidden=True)
@click.option("--addnodeoncreate", is_flag=True, hidden=True)
@click.option("--noudevrules", is_flag=True, hidden=True)
@click.option("--verifyudev", is_flag=True, hidden=True)
@click.option("--noopencount", is_flag=True, hidden=True)
@own_options
@click.pass_obj
def dmsetup(context: Context, /, command: str, words: tuple[str, ...], **values: object) -> int:
    """Work with mapped devices directly.

    \b
    create NAME [--table T | --notable]   load NAME [FILE]      clear NAME
    suspend NAME...   resume NAME...      remove NAME...        rename NAME NEW
    table [NAME...]   status [NAME...]    info [-c] [NAME...]   deps [NAME...]
    ls [--tree]       message NAME SECTOR TEXT   wait NAME [EVENT]
    targets           version             splitname NAME        mknodes

    In a table a device is a file's or disk's path, a mapped device's name or
    path, or major:minor.
    """
    kept = {k: v for k, v in values.items() if k in _Options.__dataclass_fields__}
    options = _Options(words=words, **kept)  # type: ignore[arg-type]
    handler = _COMMANDS.get(command)
    if handler is None:
        click.echo("Unknown command", err=True)
        return _FAILED
    try:
        handler(context, options)
    except UsageError:
        raise
    except UlvmError as error:
        click.echo(error.message, err=True)
        click.echo("Command failed.", err=True)
        return _FAILED
    return 0


# -- the daemon and its devices -------------------------------------------------------------------


def _client(context: Context, *, start: bool) -> DaemonClient | None:
    """Without a lease: what dmsetup suspends stays suspended."""
    host = context.host
    return connect(
        host.run_dir,
        start=start,
        system_dir=host.system_dir,
        overrides=host.overrides,
        lease=False,
    )


def _running(context: Context) -> DaemonClient:
    client = _client(context, start=False)
    if client is None:
        raise NotFoundError("Device does not exist.")
    return client


def _names(options: _Options) -> list[str]:
    """The devices meant, by name, -u, or -j and -m."""
    if options.uuid is not None:
        return [options.uuid]
    if options.major is not None and options.minor is not None:
        return [f"{options.major}:{options.minor}"]
    return [word.removeprefix("/dev/mapper/") for word in options.words]


def _one(options: _Options) -> str:
    names = _names(options)
    if not names:
        raise UsageError("Incorrect number of arguments")
    return names[0]


def _wrapped(kind: str, device: str, work: Callable[[], object]) -> None:
    """Failures in dmsetup's words."""
    try:
        work()
    except NotFoundError as error:
        raise NotFoundError(f"Device {device} not found") from error
    except UlvmError as error:
        raise type(error)(
            f"device-mapper: {kind} ioctl on {device} failed: {os.strerror(error.errno)}\n"
            f"{error.message}",
            errno=error.errno,
        ) from error


def _read_table(options: _Options, path: str | None) -> list[TableLine]:
    if options.table is not None:
        text = options.table
    elif path is not None:
        try:
            text = Path(path).read_text()
        except OSError as error:
            raise TableError(f"{path}: {error.strerror}") from error
    else:
        text = sys.stdin.read()
    return parse_table(text)


def _selected(context: Context, options: _Options) -> tuple[DaemonClient | None, list[DeviceInfo]]:
    """The devices named, or all. NotFoundError for one that is not there."""
    names = _names(options)
    client = _client(context, start=False)
    if client is None:
        if names:
            raise NotFoundError("Device does not exist.")
        return None, []
    if not names:
        return client, sorted(client.devices(), key=lambda info: info.name)
    found = []
    for name in names:
        try:
            found.append(client.info(name))
        except NotFoundError:
            raise NotFoundError("Device does not exist.") from None
    return client, found


# -- commands that change -------------------------------------------------------------------------


def _create(context: Context, options: _Options) -> None:
    if not options.words:
        raise UsageError("Incorrect number of arguments")
    name = options.words[0]
    table = None
    if not options.notable:
        table = _read_table(options, options.words[1] if len(options.words) > 1 else None)
    client = _client(context, start=True)
    assert client is not None
    _wrapped(
        "create",
        name,
        lambda: client.create(
            name, options.uuid or "", minor=options.minor, read_only=options.readonly
        ),
    )
    if table is None:
        return
    try:
        _wrapped("reload", name, lambda: client.load(name, table, read_only=options.readonly))
        _wrapped("resume", name, lambda: client.resume(name))
    except UlvmError:
        client.remove(name)
        raise


def _load(context: Context, options: _Options) -> None:
    name = _one(options)
    named = options.uuid is not None or options.major is not None
    rest = options.words if named else options.words[1:]
    table = _read_table(options, rest[0] if rest else None)
    client = _running(context)
    _wrapped("reload", name, lambda: client.load(name, table, read_only=options.readonly))


def _each(kind: str, work: Callable[[DaemonClient, str, _Options], object]) -> Command:
    def run(context: Context, options: _Options) -> None:
        if not _names(options):
            raise UsageError("Incorrect number of arguments")
        client = _running(context)
        for name in _names(options):
            _wrapped(kind, name, lambda: work(client, name, options))  # noqa: B023

    return run


def _remove(client: DaemonClient, name: str, options: _Options) -> None:
    attempts = _RETRIES if options.retry else 1
    for left in reversed(range(attempts)):
        try:
            client.remove(name, force=options.force, retry=options.retry)
            return
        except BusyError:
            if not left:
                raise
            time.sleep(_RETRY_SECONDS)


def _remove_all(context: Context, options: _Options) -> None:
    client = _client(context, start=False)
    if client is None:
        return
    left = {info.name for info in client.devices()}
    while left:
        gone = set()
        for name in sorted(left):
            try:
                client.remove(name, force=options.force)
                gone.add(name)
            except BusyError:
                continue
        if not gone:
            raise BusyError(f"Unable to remove: {', '.join(sorted(left))}")
        left -= gone


def _rename(context: Context, options: _Options) -> None:
    if len(options.words) != 2:
        raise UsageError("Incorrect number of arguments")
    name, new = options.words
    client = _running(context)
    change = client.set_uuid if options.setuuid else client.rename
    _wrapped("rename", name, lambda: change(name, new))


def _message(context: Context, options: _Options) -> None:
    sector = parse_u64(options.words[1]) if len(options.words) >= 3 else None
    if sector is None:
        raise UsageError("Incorrect number of arguments")
    name = options.words[0]
    client = _running(context)

    def send() -> None:
        answer = client.message(name, sector, " ".join(options.words[2:]))
        if answer:
            click.echo(answer)

    _wrapped("message", name, send)


def _wait(context: Context, options: _Options) -> None:
    name = _one(options)
    rest = options.words[1:]
    event = parse_u64(rest[0]) if rest else None
    _running(context).wait(name, event)


# -- commands that show ---------------------------------------------------------------------------


def _lines(what: str) -> Command:
    def run(context: Context, options: _Options) -> None:
        client, devices = _selected(context, options)
        if client is None or not devices:
            click.echo("No devices found")
            return
        prefix = len(_names(options)) != 1
        for info in devices:
            if what == "table":
                lines = client.table(info.name, inactive=options.inactive)
            else:
                lines = client.status(info.name, flush=not options.noflush)
            if options.target is not None:
                lines = [line for line in lines if line.target_type == options.target]
            elif not lines and prefix:
                click.echo(f"{info.name}: ")
            for line in lines:
                click.echo(f"{info.name}: {line}" if prefix else str(line))

    return run


def _info(context: Context, options: _Options) -> None:
    _, devices = _selected(context, options)
    if not devices:
        click.echo("No devices found")
        return
    if options.columns:
        for line in column_lines(
            devices,
            options.options,
            headings=not options.noheadings,
            separator=options.separator,
        ):
            click.echo(line)
        return
    for info in devices:
        for line in info_lines(info):
            click.echo(line)


def _ls(context: Context, options: _Options) -> None:
    client = _client(context, start=False)
    devices = [] if client is None else sorted(client.devices(), key=lambda info: info.name)
    if client is not None and options.target is not None:
        devices = [
            info
            for info in devices
            if any(line.target_type == options.target for line in client.table(info.name))
        ]
    if client is None or not devices:
        click.echo("No devices found")
        return
    if options.tree:
        for line in tree_lines(client, devices):
            click.echo(line)
        return
    for info in devices:
        click.echo(f"{info.name}\t({info.major}:{info.minor})")


def _deps(context: Context, options: _Options) -> None:
    client, devices = _selected(context, options)
    if client is None or not devices:
        click.echo("No devices found")
        return
    prefix = len(_names(options)) != 1
    by_name = options.options in ("devname", "blkdevname")
    for info in devices:
        deps = client.deps(info.name, inactive=options.inactive)
        shown = []
        for major, minor in deps:
            name = client.device_name(major, minor) if by_name else None
            shown.append(f"({name})" if name is not None else f"({major}, {minor})")
        start = f"{info.name}: " if prefix else ""
        click.echo(f"{start}{len(deps)} dependencies\t: {' '.join(shown)}")


def _targets(context: Context, options: _Options) -> None:
    client = _client(context, start=True)
    assert client is not None
    for name, (major, minor, patch) in client.targets():
        click.echo(f"{name:<16} v{major}.{minor}.{patch}")


def _version(context: Context, options: _Options) -> None:
    click.echo(f"Library version:   ulvm {ulvm.__version__}")
    click.echo("Driver version:    4.47.0")


def _splitname(context: Context, options: _Options) -> None:
    if not options.words:
        raise UsageError("Incorrect number of arguments")
    try:
        vg, lv, layer = split_dm_name(options.words[0])
    except FormatError:
        vg, lv, layer = options.words[0], "", ""
    if not options.noheadings:
        click.echo("VG LV LVLayer")
    click.echo(f"{vg} {lv} {layer}".rstrip())


def _nothing(context: Context, options: _Options) -> None:
    """Device nodes and udev cookies are the kernel's affair; there are none here."""


Command = Callable[[Context, _Options], None]
_COMMANDS: dict[str, Command] = {
    "create": _create,
    "load": _load,
    "reload": _load,
    "clear": _each("clear", lambda client, name, _: client.clear(name)),
    "suspend": _each(
        "suspend",
        lambda client, name, o: client.suspend(name, lockfs=not o.nolockfs, flush=not o.noflush),
    ),
    "resume": _each("resume", lambda client, name, _: client.resume(name)),
    "remove": _each("remove", _remove),
    "remove_all": _remove_all,
    "rename": _rename,
    "message": _message,
    "wait": _wait,
    "table": _lines("table"),
    "status": _lines("status"),
    "info": _info,
    "ls": _ls,
    "deps": _deps,
    "targets": _targets,
    "version": _version,
    "splitname": _splitname,
    "mknodes": _nothing,
    "udevcookies": _nothing,
}
