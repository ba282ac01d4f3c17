"""The commands of dmsetup that show something."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress

import click

from ulvm.activation.names import LVM_UUID_PREFIX
from ulvm.cli.about import DRIVER_VERSION, LIBRARY_VERSION
from ulvm.cli.dmconcise import concise
from ulvm.cli.dminfo import chosen, column_lines, info_lines, report_lines
from ulvm.cli.dmrequest import Request
from ulvm.cli.dmtree import parse_style, tree_lines
from ulvm.cli.dmusage import USAGE
from ulvm.daemon.client import DaemonClient
from ulvm.dm_ioctl import DM_MAJOR, DeviceInfo, TableLine
from ulvm.errors import NotFoundError, RefusedError, TableError, UlvmError, UsageError
from ulvm.report.dm_fields import DM_REPORT, NAME_REPORT, DmRow, block_name, by_name, mangled
from ulvm.report.helptext import field_lines

__all__ = [
    "dependencies",
    "driver_version",
    "info",
    "list_devices",
    "mangle",
    "split_name",
    "status",
    "table",
    "target_version",
    "targets",
    "udev_complete",
    "udev_complete_all",
    "udev_cookies",
    "udev_flags",
    "udev_release_cookie",
    "usage",
]

_BY = ("devno", "devname", "blkdevname")
_LINE_OF_COOKIES = "Cookie       Semid      Value      Last semop time           Last change time"
_KEYS = "Semaphores with keys prefixed by 3405 (0xd4d)"


def _found(
    request: Request, ioctl: str = "", *, selects: bool = False
) -> Iterator[tuple[DaemonClient, DeviceInfo]]:
    """The devices named, else all by name, one at a time: those before one that is not there are
    shown. `ioctl`: the request that fails for it. `selects`: those alone that -S chooses."""
    if wanted := request.several:
        for device in wanted:
            try:
                found = request.attempt(ioctl, device.label, lambda c: (c, device.find(c)))  # noqa: B023
            except NotFoundError:
                if ioctl:
                    raise
                raise NotFoundError("Device does not exist.") from None
            if not selects or chosen(request, found[0], [found[1]]):
                yield found
        return
    client = request.client(start=False)
    devices = [] if client is None else by_name(client.devices())
    if client is None or not devices:
        click.echo("No devices found")
        return
    for info in chosen(request, client, devices) if selects else devices:
        yield client, info


def usage(request: Request) -> None:
    click.echo(USAGE, err=True)
    if request.columns:
        for line in field_lines(DM_REPORT.vocabulary.sections):
            click.echo(line, err=True)


# -- tables and status ----------------------------------------------------------------------------


def _lines(
    kind: str, of: Callable[[DaemonClient, str, Request], list[TableLine]]
) -> Callable[[Request], None]:
    def run(request: Request) -> None:
        prefix = len(request.several) != 1 or request.select is not None
        for client, device in _found(request, "table" if kind == "table" else "", selects=True):
            lines = of(client, device.name, request)
            if request.target is not None:
                lines = [line for line in lines if line.target_type == request.target]
                if not lines:
                    continue
            verbose = request.context.verbose
            if verbose:
                for line in info_lines(device):
                    click.echo(line)
            for text in [str(line) for line in lines] or [""]:
                click.echo(f"{device.name}: {text}" if prefix and not verbose else text)
            if prefix and verbose:
                click.echo()

    return run


status = _lines(
    "status", lambda client, name, r: client.status(name, flush=not r.noflush, inactive=r.inactive)
)
_plain_table = _lines("table", lambda client, name, r: client.table(name, inactive=r.inactive))


def table(request: Request) -> None:
    if not request.concise:
        _plain_table(request)
        return
    entries = []
    try:
        for client, device in _found(request, "table", selects=True):
            lines = client.table(device.name, inactive=request.inactive)
            if request.target is not None:
                lines = [line for line in lines if line.target_type == request.target]
            if lines or request.target is None:
                entries.append(concise(device, lines))
    finally:
        if entries:
            click.echo(";".join(entries))


# -- devices --------------------------------------------------------------------------------------


def info(request: Request) -> None:
    if not request.columns:
        for _, device in _found(request):
            for line in info_lines(device):
                click.echo(line)
        return
    found = list(_found(request))
    if found:
        for line in column_lines(request, found[0][0], [device for _, device in found]):
            click.echo(line)


def _by(request: Request) -> str:
    """How devices are named by -o: the last word counts."""
    words = [word for word in (request.options or "").split(",") if word]
    if any(word not in _BY for word in words):
        raise UsageError(f"Option not recognised: {request.options}.")
    return words[-1] if words else "devno"


def list_devices(request: Request) -> None:
    style = parse_style(request.options) if request.tree else None
    by = "devno" if request.tree or request.target is not None else _by(request)
    client = request.client(start=False)
    devices = [] if client is None else by_name(client.devices())
    if client is None or not devices:
        click.echo("No devices found")
        return
    if request.target is not None:
        devices = [
            device
            for device in devices
            if any(line.target_type == request.target for line in client.table(device.name))
        ]
    if request.tree and request.target is None:
        for line in tree_lines(client, devices, style):
            click.echo(line)
    elif request.execute is not None:
        _execute(request, request.execute, devices)
    else:
        comma = ", " if request.target is not None else ":"
        for device in devices:
            shown = f"{device.major}{comma}{device.minor}"
            if by == "devname" and device.live_table:
                shown = mangled(device.name)
            elif by == "blkdevname" and device.live_table:
                shown = block_name(device.major, device.minor, None)
            click.echo(f"{device.name}\t({shown})")


def _execute(request: Request, command: str, devices: list[DeviceInfo]) -> None:
    """The command, split at blanks alone, once for each device with its path behind it. That it
    fails is of no consequence."""
    program = [os.fsdecode(word) for word in os.fsencode(command).split()]
    if not program:
        raise RefusedError("Command failed.")
    folder = request.context.host.run_dir / "dev" / "mapper"
    for device in devices:
        with suppress(OSError):
            subprocess.run([*program, str(folder / device.name)], check=False)


def dependencies(request: Request) -> None:
    by = _by(request)
    prefix = len(request.several) != 1 or request.select is not None
    for client, device in _found(request, "deps", selects=True):
        if request.context.verbose:
            for line in info_lines(device):
                click.echo(line)
        lower = client.deps(device.name, inactive=request.inactive)
        shown = "".join(f" ({_named(client, by, *number)})" for number in lower)
        verbose = request.context.verbose
        start = f"{device.name}: " if prefix and not verbose else ""
        click.echo(f"{start}{len(lower)} dependencies\t:{shown}")
        if prefix and verbose:
            click.echo()


def _named(client: DaemonClient, by: str, major: int, minor: int) -> str:
    if by == "devno":
        return f"{major}, {minor}"
    name = client.device_name(major, minor)
    if by == "devname" and major == DM_MAJOR:
        return name or f"{major}, {minor}"
    return block_name(major, minor, name)


def mangle(request: Request) -> None:
    """Names are kept as they are; udev, which would want them otherwise, is not there."""
    for _, device in _found(request):
        words = f"{device.uuid}: name and UUID" if device.uuid else "[no UUID]: name"
        click.echo(f"{mangled(device.name)}: {words} already in correct form")


# -- the mapper itself ----------------------------------------------------------------------------


def targets(request: Request) -> None:
    for name, (major, minor, patch) in request.started().targets():
        click.echo(f"{name:<16} v{major}.{minor}.{patch}")


def target_version(request: Request) -> None:
    known = dict(request.started().targets())
    for name in request.words:
        if name not in known:
            error = "Invalid argument"
            raise TableError(f"device-mapper: target-version ioctl on {name}  failed: {error}")
        click.echo(f"{name:<16} v{'.'.join(map(str, known[name]))}")


def driver_version(request: Request) -> None:
    click.echo(f"Library version:   {LIBRARY_VERSION}")
    click.echo(f"Driver version:    {DRIVER_VERSION}")


def split_name(request: Request) -> None:
    """The parts of a name; none if a subsystem is named that is not LVM."""
    uuid = LVM_UUID_PREFIX if request.words[1:] in ((), ("LVM",)) else ""
    info = DeviceInfo(request.words[0], uuid, 0, 0, 0, 0, False, False, False, False, 0, 0)
    for line in report_lines(request, NAME_REPORT, [DmRow(info)]):
        click.echo(line)


# -- cookies of udev: there are none --------------------------------------------------------------


def udev_cookies(request: Request) -> None:
    click.echo(_LINE_OF_COOKIES)


_UDEV_FLAGS = (
    "DM_UDEV_DISABLE_DM_RULES_FLAG",
    "DM_UDEV_DISABLE_SUBSYSTEM_RULES_FLAG",
    "DM_UDEV_DISABLE_DISK_RULES_FLAG",
    "DM_UDEV_DISABLE_OTHER_RULES_FLAG",
    "DM_UDEV_LOW_PRIORITY_FLAG",
    "DM_UDEV_DISABLE_LIBRARY_FALLBACK_FLAG",
    "DM_UDEV_PRIMARY_SOURCE_FLAG",
    "DM_UDEV_FLAG7",
    *(f"DM_SUBSYSTEM_UDEV_FLAG{bit}" for bit in range(8)),
)
"""libdevmapper.h: the upper half of a cookie, from its lowest bit on."""


_NUMBER = re.compile(r"0x([0-9a-f]+)|0([0-7]+)|([0-9]+)", re.ASCII | re.IGNORECASE)


def udev_flags(request: Request) -> None:
    """What a cookie tells udev's rules, as variables of theirs."""
    number = _NUMBER.fullmatch(request.words[0])
    cookie = 0
    if number is not None:
        cookie = int(
            number[1] or number[2] or number[3], 16 if number[1] else 8 if number[2] else 10
        )
    if not 0 < cookie < 1 << 32:
        raise UlvmError("Incorrect cookie value.")
    for bit, name in enumerate(_UDEV_FLAGS):
        if cookie >> 16 + bit & 1:
            click.echo(f"{name}='1'")


def udev_complete(request: Request) -> None:
    raise UlvmError("Incorrect cookie value.")


def udev_release_cookie(request: Request) -> None:
    if not request.words:
        raise UlvmError("No udev transaction cookie given.")
    raise UlvmError("Incorrect cookie value.")


def udev_complete_all(request: Request) -> None:
    older = ""
    if request.words:
        age = re.match(r"\s*[+-]?\d+", request.words[0], re.ASCII)
        if age is None:
            raise UlvmError("Failed to read age_in_minutes parameter.")
        older = f" older than {int(age[0])} minutes"
    if not request.context.console.yes:
        click.echo(
            f"WARNING: This operation will destroy all semaphores{older} with keys that have a "
            "prefix 3405 (0xd4d).",
            err=True,
        )
    if request.context.console.yes or _asked("Do you really want to continue? [y/n]: "):
        click.echo("0 semaphores with keys prefixed by 3405 (0xd4d) destroyed. 0 skipped.")
    else:
        click.echo(f"{_KEYS} NOT destroyed.")


def _asked(prompt: str) -> bool:
    """dmsetup's own prompt, which is no message: on standard output, again until it is answered."""
    while True:
        click.echo(prompt, nl=False)
        answer = sys.stdin.readline()
        if not answer:
            click.echo()
            return False
        word = answer.strip().lower()
        if word[:1] in ("y", "n"):
            return word[:1] == "y"
