"""What waits in memory when a table is to go: it is written before that, or the table stays.

A suspend drains what is staged (dm.stage), but what the devices below refuse stays staged, and
would go with the targets that hold it: it was answered, and the next flush, of a table that knows
nothing of it, would say that it is durable. So it is looked at while nothing is changed yet. What
the next table takes up may wait on, and what nobody will ever be able to read may go.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence

from ulvm.dm.device import MappedDevice
from ulvm.dm.order import rests_on_suspended
from ulvm.dm.stage_file import StageSettings
from ulvm.dm.table import Table
from ulvm.dm.targets.base import Target
from ulvm.errors import DeviceError, TableError

__all__ = ["holds_unwritten", "write_before_removal", "write_before_swap"]

_HINT = "; the next daemon, for which a stop keeps it, opens a disk anew that could only be read"


def holds_unwritten(device: MappedDevice, settings: StageSettings) -> bool:
    """Whether what was written to it waits in memory, or in the file of a killed process."""
    try:
        if device.goes_on and settings.pages_left(device.minor):
            return True
    except TableError:  # Nobody knows.
        return True
    return any(target.would_lose(()) for target in device.targets)


def write_before_swap(device: MappedDevice, new: Table) -> None:
    """TableError if something of the live table is lost with it. The gate is closed."""
    try:
        _write_left(device, new.targets)
    except DeviceError as error:
        raise TableError(
            f"device {device.name} keeps its table: {error}; when they take it, load the new table"
            " again, or resume it with the old one",
            errno=error.errno,
        ) from error


def write_before_removal(device: MappedDevice, left: int) -> None:
    """DeviceError if something is lost with the device; one that is open stays anyhow. `left`: how
    many pages a killed process left for it, as it has not come back yet."""
    try:
        if not device.open_count:
            _write_left(device, ())
            if left:
                raise DeviceError("what was written to it before a kill waits for its table")
    except DeviceError as error:
        hint = _HINT if error.errno == errno.EROFS else ""
        raise DeviceError(
            f"device {device.name} is not removed: {error}{hint}; if its removal is forced, that is"
            " lost",
            errno=error.errno,
        ) from error


def _write_left(device: MappedDevice, following: Sequence[Target]) -> None:
    for target in device.targets:
        if not target.would_lose(following):
            continue
        try:
            if rests_on_suspended(device):  # It would wait there, for who may wait for us.
                raise DeviceError("one of them is suspended", errno=errno.EBUSY)
            target.settle()
            if target.would_lose(following):
                raise DeviceError("they can only be read", errno=errno.EROFS)
        except DeviceError as error:
            if target.would_lose(following):
                raise DeviceError(
                    f"what was written to it cannot reach the devices below: {error}",
                    errno=error.errno,
                ) from error
