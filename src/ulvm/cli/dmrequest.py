"""What the commands of dmsetup share: the words of a command line, and the devices they mean."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ulvm.activation.names import dm_name
from ulvm.cli.context import Context
from ulvm.daemon.client import DaemonClient, connect
from ulvm.dm.table import parse_table
from ulvm.dm_ioctl import DeviceInfo, TableLine
from ulvm.errors import NotFoundError, TableError, UlvmError, UsageError
from ulvm.report.dm_fields import mangled

__all__ = ["ArgumentsError", "Request", "Wanted", "read_table"]

_MANGLED = re.compile(rb"\\x([0-9a-fA-F]{2})")
_BAD_LINE = re.compile(r"Invalid format on line \d+ of table")
_MODES = ("auto", "hex", "none")


class ArgumentsError(UsageError):
    """Too few words, or too many: the usage is shown."""


class Wanted(NamedTuple):
    """A device as the command line names it: by its name, its UUID or its number, and by nothing
    else, since the name of one may be the UUID of another."""

    kind: str
    word: str

    @property
    def label(self) -> str:
        """In libdevmapper's messages."""
        if self.kind == "name":
            return f"{mangled(self.word)} "
        return f" {mangled(self.word)}" if self.kind == "uuid" else f" ({self.word})"

    def find(self, client: DaemonClient) -> DeviceInfo:
        """NotFoundError when it is not there."""
        info = client.info(self.word)
        if self._means(info):
            return info
        for info in client.devices():
            if self._means(info):
                return info
        raise NotFoundError(f"Device {self.word} not found")

    def _means(self, info: DeviceInfo) -> bool:
        number = f"{info.major}:{info.minor}"
        return {"name": info.name, "uuid": info.uuid}.get(self.kind, number) == self.word


@dataclass(frozen=True)
class Request:
    """A command line of dmsetup: options belong to all commands alike."""

    context: Context
    words: tuple[str, ...]
    uuid: str | None
    major: int | None
    minor: int | None
    table: str | None
    notable: bool
    concise: bool
    readonly: bool
    noflush: bool
    nolockfs: bool
    inactive: bool
    force: bool
    retry: bool
    deferred: bool
    setuuid: bool
    target: str | None
    execute: str | None
    tree: bool
    columns: bool
    options: str | None
    sort: str | None
    select: str | None
    noheadings: bool
    nameprefixes: bool
    unquoted: bool
    rows: bool
    separator: str | None
    manglename: str

    def __post_init__(self) -> None:
        if (self.major is None) != (self.minor is None):
            raise UsageError("Please specify both major number and minor number.")
        if self.manglename not in _MODES:
            raise UsageError("Unknown name mangling mode.")
        if self.notable and self.table is not None:
            raise UsageError("--table and --notable are incompatible.")

    # -- names --------------------------------------------------------------------------------

    def plain(self, name: str) -> str:
        """A device's name as it is kept: without `\\x20` and the like, and not as a path."""
        host = self.context.host
        for folder in ("/dev/mapper/", f"{host.run_dir}/dev/mapper/"):
            name = name.removeprefix(folder)
        for folder in ("/dev/", f"{host.run_dir}/dev/"):
            vg, slash, lv = name.removeprefix(folder).partition("/")
            if name.startswith(folder) and slash and "/" not in lv:
                return dm_name(vg, lv)
        return self._unmangled(name, "name")

    def new_name(self, name: str) -> str:
        """A name that a device is to have; no path."""
        if "/" in name:
            raise UlvmError(f'Name "{name}" invalid. It contains "/".')
        return self._unmangled(name, "name")

    def plain_uuid(self, uuid: str) -> str:
        return self._unmangled(uuid, "UUID")

    def _unmangled(self, text: str, what: str) -> str:
        """`auto` takes both forms, and no mixture; `hex` the text itself; `none` what the kernel
        would call it."""
        raw = text.encode(errors="surrogateescape")
        if self.manglename == "hex" or b"\\x" not in raw:
            return text
        rest = _MANGLED.sub(b"", raw).decode(errors="surrogateescape")
        if self.manglename == "auto" and mangled(rest) != rest:
            raise UlvmError(
                f'The {what} "{text}" contains mixed mangled and unmangled characters or it\'s '
                f'already mangled improperly.\nFailed to mangle device {what.lower()} "{text}".'
            )
        return _MANGLED.sub(lambda m: bytes([int(m[1], 16)]), raw).decode(errors="surrogateescape")

    @property
    def wanted(self) -> list[Wanted]:
        """The devices meant: by names, else by -u, or by -j and -m."""
        return self._by_option or [Wanted("name", self.plain(word)) for word in self.words]

    @property
    def _by_option(self) -> list[Wanted]:
        if self.uuid is not None:
            return [Wanted("uuid", self.plain_uuid(self.uuid))]
        if self.major is not None:
            return [Wanted("number", f"{self.major}:{self.minor}")]
        return []

    @property
    def several(self) -> list[Wanted]:
        """As `wanted`, of a command that takes any number of names: these go before options."""
        return [Wanted("name", self.plain(word)) for word in self.words] or self._by_option

    @property
    def between(self) -> str:
        """What stands between columns."""
        if self.separator is None:
            return ":" if self.noheadings else " "
        return self.separator

    @property
    def by_option(self) -> bool:
        """The device is not among the words."""
        return self.uuid is not None or self.major is not None

    def one(self, problem: str) -> Wanted:
        """The device, which must be named."""
        if not self.wanted:
            raise UlvmError(problem)
        return self.wanted[0]

    def check_count(self, least: int, most: int | None) -> None:
        """Of words; ArgumentsError."""
        if len(self.words) < least or (most is not None and len(self.words) > most):
            raise ArgumentsError("Incorrect number of arguments.")

    # -- the daemon and its devices -----------------------------------------------------------

    def client(self, *, start: bool) -> DaemonClient | None:
        """Without a lease: what dmsetup suspends stays suspended."""
        host = self.context.host
        return connect(host.run_dir, start=start, system_dir=host.system_dir, lease=False)

    def started(self) -> DaemonClient:
        client = self.client(start=True)
        assert client is not None
        return client

    def call(self, kind: str, device: Wanted, work: Callable[[DaemonClient, str], Any]) -> Any:
        """What a running daemon does with a device; failures in dmsetup's words."""
        return self.attempt(
            kind, device.label, lambda client: work(client, device.find(client).name)
        )

    def attempt(self, kind: str, label: str, work: Callable[[DaemonClient], Any]) -> Any:
        client = self.client(start=False)
        if client is None:
            raise _failed(kind, label, NotFoundError(""))
        try:
            return work(client)
        except UlvmError as error:
            raise _failed(kind, label, error) from error

    # -- tables -------------------------------------------------------------------------------

    def read_table(self, path: str | None) -> list[TableLine]:
        """Of --table, of a file, or of standard input."""
        if self.table is not None:
            return read_table(self.table, "")
        if path is None:
            return read_table(sys.stdin.read(), "on stdin")
        try:
            return read_table(Path(path).read_text(errors="surrogateescape"), path)
        except OSError:
            raise TableError(f"Couldn't open '{path}' for reading.") from None


def read_table(text: str, name: str) -> list[TableLine]:
    """A table in lines; `name` says where it stands, in a TableError."""
    try:
        return parse_table(text)
    except TableError as error:
        if (bad := _BAD_LINE.match(error.message)) is not None:
            raise TableError(f"{bad[0]} {name}.") from None
        raise


def _failed(kind: str, label: str, error: UlvmError) -> UlvmError:
    reason = os.strerror(error.errno)
    words = f"device-mapper: {kind} ioctl on {label} failed: {reason}"
    if error.message and not isinstance(error, NotFoundError):
        # The kernel leaves why in its log.
        words += f"\n{error.message}"
    return type(error)(words, errno=error.errno)
