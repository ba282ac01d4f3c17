"""Tables made of their lines, and taken down again: targets, and what a table holds open.

Files are held from the first word that names one (`DeviceNumbers.open`), devices of the mapper
when all targets are made; a table that is refused lets go of all of them.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import Protocol

from ulvm.blockdev.base import BlockDevice
from ulvm.dm.device import MappedDevice
from ulvm.dm.numbers import DeviceNumbers
from ulvm.dm.origin_table import OriginTable
from ulvm.dm.stage_file import StageSettings
from ulvm.dm.table import Table
from ulvm.dm.targets import TARGETS
from ulvm.dm.targets.base import Target, TargetContext
from ulvm.dm_ioctl import TableLine, words_of
from ulvm.errors import DeviceError, TableError
from ulvm.units import SECTOR

__all__ = ["Resolve", "TableBuilder"]


class Resolve(Protocol):
    """The device that a word of a table line means; a file is held for the caller."""

    def __call__(self, word: str, *, writable: bool) -> BlockDevice: ...


class TableBuilder:
    """For one mapper. Called with the `control` of the device whose table it is."""

    def __init__(
        self,
        resolve: Resolve,
        files: DeviceNumbers,
        *,
        barriers: bool,
        log: Callable[[str], None],
        stage: StageSettings,
    ) -> None:
        self._resolve = resolve
        self._files = files
        self._origins = OriginTable(stage, log)
        self._barriers = barriers
        self._log = log

    def build(self, device: MappedDevice, lines: Sequence[TableLine], *, read_only: bool) -> Table:
        """The table of `device` that these lines mean, or TableError and nothing left of it."""
        opened: list[BlockDevice] = []

        def resolve(word: str) -> BlockDevice:
            lower = self._resolve(word, writable=not read_only)
            if not isinstance(lower, MappedDevice):
                opened.append(lower)
            if lower is device:
                raise TableError(f"device {device.name} cannot be mapped to itself")
            if isinstance(lower, MappedDevice) and not lower.ever_loaded:
                raise TableError(f"device {lower.name} never had a table", errno=errno.ENXIO)
            return lower

        context = TargetContext(
            device,
            resolve,
            self._origins,
            barriers=self._barriers,
            log=lambda text: self._log(f"{device.name}: {text}"),
        )
        targets: list[Target] = []
        try:
            for line in lines:
                kind = TARGETS.get(line.target_type)
                if kind is None:
                    raise TableError(f"{line.target_type}: unknown target type")
                begin, length = line.start * SECTOR, line.length * SECTOR
                targets.append(kind(context, begin, length, words_of(line.params)))
            table = Table(targets, read_only=read_only)
            if not device.ever_loaded:
                table.check_sizes()
            self._hold(device, table)
            return table
        except BaseException as error:
            with ExitStack() as stack:
                for target in reversed(targets):
                    stack.callback(target.destroy)
            if isinstance(error, DeviceError):
                raise TableError(str(error), errno=error.errno) from error
            raise
        finally:  # from now on the table holds them, or nobody
            for lower in opened:
                self._files.release(lower)

    def destroy(self, owner: MappedDevice, table: Table) -> None:
        """Take down a table that was built for `owner`, all of it whatever one target raises."""
        with ExitStack() as stack:
            stack.callback(self._let_go, owner, zip(table.devices, table.modes, strict=True))
            for target in reversed(table.targets):
                stack.callback(target.destroy)

    def _hold(self, owner: MappedDevice, table: Table) -> None:
        """As the kernel, a device opens another once a mode, whichever table of it leads there."""
        held: list[tuple[BlockDevice, str]] = []
        try:
            for lower, mode in zip(table.devices, table.modes, strict=True):
                if isinstance(lower, MappedDevice):
                    if owner.uses[lower, mode] == 0:
                        lower.hold()
                    owner.uses[lower, mode] += 1
                else:
                    self._files.hold(lower)
                held.append((lower, mode))
        except BaseException:
            self._let_go(owner, held)
            raise

    def _let_go(self, owner: MappedDevice, held: Iterable[tuple[BlockDevice, str]]) -> None:
        for lower, mode in held:
            if isinstance(lower, MappedDevice):
                owner.uses[lower, mode] -= 1
                if owner.uses[lower, mode] == 0:
                    del owner.uses[lower, mode]  # or it would be kept as long as its owner
                    lower.release()
            else:
                self._files.release(lower)
