"""What passes between LVM and device-mapper: the counterpart of the kernel's `linux/dm-ioctl.h`.

`dm.mapper` implements `DeviceMapper` in process, `daemon.client` over the control socket;
`activation` and the `dmsetup` command are written against the protocol alone. This module
depends on nothing, so that both sides of the socket can share it.

Devices are named by their dm name; where an argument is called `device`, the name, the UUID
(`LVM-...`) and `major:minor` are all understood, in this order.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple, Protocol

__all__ = [
    "DM_MAJOR",
    "DM_NAME_MAX",
    "FILE_MAJOR",
    "READ_AHEAD",
    "DeviceInfo",
    "DeviceMapper",
    "TableLine",
    "quoted_word",
    "words_of",
]

DM_MAJOR = 253
"""Major number shown for mapped devices (what Debian's kernel gives device-mapper)."""

DM_NAME_MAX = 127
"""Bytes of a device's name: DM_NAME_LEN without the NUL."""

FILE_MAJOR = 240
"""Major number shown for plain files used as disks; 240-254 are for local use."""

READ_AHEAD = 256
"""Sectors: what the kernel gives a device of its own accord."""

_WORD = re.compile(r"(?:\\.|[^ \t\n\v\f\r])+", re.DOTALL)
_QUOTED = re.compile(r"\\(.)", re.DOTALL)
_TO_QUOTE = re.compile(r"[ \t\n\v\f\r\\]")


def words_of(params: str) -> list[str]:
    """The words of a target's parameters, in which a backslash quotes what follows it (the kernel's
    dm_split_args): so a path may have blanks."""
    return [_QUOTED.sub(r"\1", word) for word in _WORD.findall(params)]


def quoted_word(word: str) -> str:
    """A word for parameters, of which `words_of` makes the same one."""
    return _TO_QUOTE.sub(r"\\\g<0>", word)


class TableLine(NamedTuple):
    """One target of a table, or one line of a status; `start` and `length` in sectors."""

    start: int
    length: int
    target_type: str
    params: str = ""

    def __str__(self) -> str:
        # dmsetup prints the blank after the type even when there are no parameters.
        return f"{self.start} {self.length} {self.target_type} {self.params}"


class DeviceInfo(NamedTuple):
    """What `dmsetup info` shows of a device (struct dm_ioctl)."""

    name: str
    uuid: str
    major: int
    minor: int
    open_count: int
    event_nr: int
    suspended: bool
    live_table: bool
    inactive_table: bool
    read_only: bool
    target_count: int
    size: int
    """Size of the live table in sectors; 0 without one."""
    frozen: tuple[str, ...] = ()
    """While suspended with `lockfs`: where the file systems that were frozen for it are mounted
    (the kernel does not tell)."""
    synced: tuple[str, ...] = ()
    """And those that could not be frozen, only synced: their writers go on until they meet the
    suspended device."""
    unwritten: bool = False
    """While suspended: something that was written waits in memory, since the devices below refuse
    it, and the inactive table, if there is one, does not take it up (the kernel has no such)."""


class DeviceMapper(Protocol):
    """The device-mapper calls. Every one may raise NotFoundError (ENXIO) for an unknown device."""

    def create(
        self, name: str, uuid: str = "", *, minor: int | None = None, read_only: bool = False
    ) -> DeviceInfo:
        """A new device without tables. BusyError for a name, UUID or number that is taken."""

    def load(
        self, device: str, table: Sequence[TableLine], *, read_only: bool = False
    ) -> DeviceInfo:
        """Fill the inactive table slot. TableError with the kernel's errno when refused."""

    def clear(self, device: str) -> DeviceInfo:
        """Drop the inactive table."""

    def suspend(self, device: str, *, lockfs: bool = True, flush: bool = True) -> DeviceInfo:
        """Stop I/O: wait for what is under way, hold back what comes. With `lockfs`, file
        systems mounted on the device are frozen first (thawed by resume). `flush` changes nothing:
        what is under way always ends."""

    def resume(self, device: str) -> DeviceInfo:
        """Make an inactive table live, if there is one, and let I/O go on."""

    def remove(self, device: str, *, force: bool = False, retry: bool = False) -> None:
        """BusyError (EBUSY) while open or used by another device's table. `force` replaces the
        table by one of error targets first, as dmsetup does. `retry`: a client of the daemon tries
        for five seconds, as libdevmapper."""

    def rename(self, device: str, new_name: str) -> DeviceInfo:
        """BusyError for a name that is taken."""

    def set_uuid(self, device: str, uuid: str) -> DeviceInfo: ...

    def table(self, device: str, *, inactive: bool = False) -> list[TableLine]: ...

    def status(self, device: str, *, flush: bool = True, inactive: bool = False) -> list[TableLine]:
        """`flush` changes nothing: nothing waits that the line does not count."""

    def info(self, device: str) -> DeviceInfo: ...

    def deps(self, device: str, *, inactive: bool = False) -> list[tuple[int, int]]:
        """(major, minor) of every device the table uses."""

    def message(self, device: str, sector: int, message: str) -> str:
        """Send a message to the target at `sector`; TableError (EINVAL) if it knows none."""

    def wait(self, device: str, event_nr: int | None = None, timeout: float | None = None) -> int:
        """Block while the device's event counter is `event_nr` (default: as of now), as the
        kernel; return the counter."""

    def devices(self) -> list[DeviceInfo]:
        """All mapped devices, by ascending minor number."""

    def targets(self) -> list[tuple[str, tuple[int, int, int]]]:
        """Target types and their versions, as `dmsetup targets` shows them."""

    def device_name(self, major: int, minor: int) -> str | None:
        """The path of the file or disk, or the dm name, behind a major:minor that was shown."""
