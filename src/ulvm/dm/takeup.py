"""What a killed process left staged for a device that comes back as something else.

An origin whose snapshot could not be brought back may become a plain volume, or the snapshot be
merged: what was answered when it was an origin goes through its new table then, before its gate
opens, and the file is forgotten. Kept longer, it would be written over what is newer.

A merge takes none of it. A page that was staged had not reached the origin, so there the origin is
still what the snapshot is, or it had, behind its exceptions, and the merge brings the old data
back: either way it is older than what the merge gives, and the copies may be behind us already.
Behind the end of a snapshot that is shorter than its origin the merge gives nothing back, and what
was staged there is written.

What was written to the snapshot itself is part of what a merge gives back, and waits for the device
of the snapshot. So no merge is loaded as long as that has not come back.

A kill in the midst of it does no harm: all of it is written again. What the table does not take at
that moment stays in the file, and the device suspended, until a resume finds that it does: so it is
where the disks can only be read by now. It does not matter whether the table is for reading only.
What was written to a snapshot that is invalid by now is lost with it, which is said.

A table with a stage takes it up whatever the disks are, and it is read from there until it can be
written (dm.origins, `CowSnapshot.copies_wait`).
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterable, Mapping

from ulvm.blockdev.base import BlockDevice, Buffer, WritableBuffer
from ulvm.dm.device import MappedDevice
from ulvm.dm.stage import Stage
from ulvm.dm.stage_file import StageSettings
from ulvm.dm.table import Table
from ulvm.dm.targets.base import Target
from ulvm.dm.targets.merge import MergeTarget
from ulvm.dm.targets.snapshot import SnapshotTarget
from ulvm.errors import DeviceError, TableError

__all__ = ["check_merges", "take_up"]


class _PastTheGate(BlockDevice):
    """A table without its device."""

    def __init__(self, table: Table, superseded: Mapping[Target, int]) -> None:
        """`superseded`: where that ends on the device of which a merge gives what is newer."""
        self._table = table
        self._superseded = superseded
        self.lost = 0
        """Bytes for snapshots that have turned invalid."""

    @property
    def size(self) -> int:
        return self._table.size

    def readinto(self, offset: int, buffer: WritableBuffer) -> None:
        raise AssertionError("whole pages are written")

    def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
        view = memoryview(data)
        end = offset + len(view)
        position = offset
        while position < end:
            target = self._table.find(position)
            upto = min(end, target.begin + target.length)
            if type(target) is SnapshotTarget and not target.snapshot.valid:
                self.lost += upto - position
            elif position < (end_of_old := self._superseded.get(target, 0)):
                upto = min(upto, end_of_old)
            else:
                target.write(position, view[position - offset : upto - offset], fua=fua)
            position = upto

    def flush(self) -> None:
        raise AssertionError("whoever wants that asks the device")


def check_merges(
    table: Table,
    devices: Iterable[MappedDevice],
    settings: StageSettings,
    stable_name: Callable[[BlockDevice], str],
) -> None:
    """TableError if a killed process left something for a snapshot that the new table merges."""
    merged = {stable_name(t.snapshot.cow) for t in table.targets if isinstance(t, MergeTarget)}
    for device in devices if merged else ():
        waits = device.goes_on and not merged.isdisjoint(device.left_cows)
        if waits and settings.pages_left(device.minor):
            raise TableError(
                f"What was written to {device.name} is not in its COW store yet: "
                "it has to come back as a snapshot before it is merged.",
                errno=errno.EBUSY,
            )


def _superseded(
    table: Table, devices: Iterable[MappedDevice], stable_name: Callable[[BlockDevice], str]
) -> dict[Target, int]:
    """All that a merge covers, if nobody knows any more how long the snapshot was."""
    sizes = {cow: size for device in devices for cow, size in device.left_cows.items()}
    return {
        target: target.begin + sizes.get(stable_name(target.snapshot.cow), target.length)
        for target in table.targets
        if isinstance(target, MergeTarget) and target.snapshot.valid
    }


def take_up(
    device: MappedDevice,
    devices: Iterable[MappedDevice],
    settings: StageSettings,
    stable_name: Callable[[BlockDevice], str],
    log: Callable[[str], None],
) -> None:
    """The gate of `device` is closed and its targets are resumed. `devices`: all that there are.
    TableError when the file cannot be read or the table does not take what is in it; the rest is
    still there then."""
    table = device.live
    if table is None:
        return
    slots = settings.slots_left(device.minor)
    if slots:
        below = _PastTheGate(table, _superseded(table, devices, stable_name))
        try:
            stage = Stage(
                below,
                threading.RLock(),
                settle=lambda: None,
                log=log,
                slots=slots,
                path=settings.path(device.minor),
                whose=device.uuid,
                goes_on=True,
            )
        except OSError as error:
            raise TableError(f"{device.name}: what was written to it: {error}") from error
        written = False
        try:
            stage.adopt(stage.left())
            stage.commit()
            written = True
        except DeviceError as error:
            raise TableError(
                f"device {device.name} stays suspended: what was written to it before a kill "
                f"cannot reach the devices below: {error}; when they take it, resume it; a disk"
                " that could only be read is opened anew by the next daemon",
                errno=error.errno,
            ) from error
        finally:
            stage.close(keep=not written)
        if below.lost:
            log(f"{device.name}: {below.lost} bytes that were written to it before are lost")
    if problem := settings.forget(device.minor):
        log(problem)
    device.goes_on = False
