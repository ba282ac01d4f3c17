"""What the commands of dmsetup share: the words of a command line, and the devices they mean."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ulvm.activation.names import dm_name
from ulvm.cli.context import Context
from ulvm.daemon.client import DaemonClient, connect
from ulvm.dm.table import parse_table
from ulvm.dm_ioctl import DeviceInfo, TableLine
from ulvm.errors import NotFoundError, TableError, UlvmError, UsageError

__all__ = ["ArgumentsError", "Request"]

_MANGLED = re.compile(r"\\x([0-9a-fA-F]{2})")
_BAD_LINE = re.compile(r"Invalid format on line \d+ of table")
_MODES = ("auto", "hex", "none")


class ArgumentsError(UsageError):
    """Too few words, or too many: the usage is shown."""


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

    # -- names --------------------------------------------------------------------------------

    def plain(self, name: str) -> str:
        """A name as it is kept: without `\\x20` and the like, and not as a path."""
        host = self.context.host
        for folder in ("/dev/mapper/", f"{host.run_dir}/dev/mapper/"):
            name = name.removeprefix(folder)
        for folder in ("/dev/", f"{host.run_dir}/dev/"):
            vg, slash, lv = name.removeprefix(folder).partition("/")
            if name.startswith(folder) and slash and "/" not in lv:
                return dm_name(vg, lv)
        if self.manglename == "none":
            return name
        return _MANGLED.sub(lambda m: chr(int(m[1], 16)), name)

    @property
    def names(self) -> list[str]:
        """The devices meant, by name, -u, or -j and -m."""
        if self.uuid is not None:
            return [self.uuid]
        if self.major is not None:
            return [f"{self.major}:{self.minor}"]
        return [self.plain(word) for word in self.words]

    @property
    def by_option(self) -> bool:
        """The device is not among the words."""
        return self.uuid is not None or self.major is not None

    def one(self, problem: str) -> str:
        """The device, which must be named."""
        if not self.names:
            raise UlvmError(problem)
        return self.names[0]

    def check_count(self, least: int, most: int | None = None) -> None:
        """Of words; ArgumentsError."""
        most = least if most is None else most
        if not least <= len(self.words) <= most:
            raise ArgumentsError("Incorrect number of arguments.")

    # -- the daemon and its devices -----------------------------------------------------------

    def client(self, *, start: bool) -> DaemonClient | None:
        """Without a lease: what dmsetup suspends stays suspended."""
        host = self.context.host
        return connect(
            host.run_dir,
            start=start,
            system_dir=host.system_dir,
            overrides=host.overrides,
            lease=False,
        )

    def started(self) -> DaemonClient:
        client = self.client(start=True)
        assert client is not None
        return client

    def selected(self) -> tuple[DaemonClient | None, list[DeviceInfo]]:
        """The devices named, or all by name. NotFoundError for one that is not there."""
        client = self.client(start=False)
        if client is None:
            if self.names:
                raise NotFoundError("Device does not exist.")
            return None, []
        if not self.names:
            return client, sorted(client.devices(), key=lambda info: info.name)
        found = []
        for name in self.names:
            try:
                found.append(client.info(name))
            except NotFoundError:
                raise NotFoundError("Device does not exist.") from None
        return client, found

    def call(
        self, kind: str, device: str, work: Callable[[DaemonClient], Any], label: str = ""
    ) -> Any:
        """What a running daemon does with a device; failures in dmsetup's words."""
        label = label or (f" {device}" if self.uuid == device else f"{device} ")
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
            return _parsed(self.table, "")
        if path is None:
            return _parsed(sys.stdin.read(), "")
        try:
            return _parsed(Path(path).read_text(errors="surrogateescape"), path)
        except OSError:
            raise TableError(f"Couldn't open '{path}' for reading.") from None


def _parsed(text: str, name: str) -> list[TableLine]:
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
