"""The device mapper in process: devices by name, the calls of `dm_ioctl.DeviceMapper`.

Order of a resume with an inactive table (dm-ioctl.c, do_resume): suspend if that was not
done, look at sizes, and at what would be lost with the old table (dm.unwritten; a refusal drops
the new table and leaves the device suspended with the old one), swap the tables, `preresume` of
every target (a refusal leaves the new table live and the device suspended), `resume` of every
target, tell of the change, open the gate, thaw file systems, and only then destroy the old table:
until then it is the source of a handover.

Locks: `_lock` guards the dictionaries and is held for moments; `MappedDevice.control` excludes
control operations on one device and may be held while a suspend waits for requests. Who waited
for it looks whether the device is still there: its name may be that of a new one by then.

A device that is being removed is found by nobody, but keeps its name and numbers, and its place in
the state, until what it holds is written and its tables are gone: a kill before that brings it
back with what was staged for it, and a new device of its number would take its file (dm.stage).
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

from ulvm.blockdev.base import BlockDevice
from ulvm.blockdev.file import FileDevice
from ulvm.dm.builder import TableBuilder
from ulvm.dm.device import Frozen, MappedDevice
from ulvm.dm.naming import check_minor, check_name, check_uuid
from ulvm.dm.numbers import DeviceNumbers
from ulvm.dm.order import rests_on_suspended, users_first, users_of
from ulvm.dm.stage_file import StageSettings
from ulvm.dm.state import describe, restore
from ulvm.dm.table import Table, check_table
from ulvm.dm.takeup import check_merges, take_up
from ulvm.dm.targets import TARGETS
from ulvm.dm.targets.base import Target
from ulvm.dm.unwritten import holds_unwritten, write_before_removal, write_before_swap
from ulvm.dm_ioctl import DM_MAJOR, DeviceInfo, TableLine
from ulvm.errors import BusyError, DeviceError, NotFoundError, TableError
from ulvm.units import SECTOR

__all__ = ["Freezer", "LocalMapper"]

_DRAIN_SECONDS = 10.0


class Freezer(Protocol):
    """Freezes the file systems mounted on a device around a suspend with lockfs."""

    def freeze(self, name: str) -> Frozen | None: ...

    def thaw(self, token: Frozen) -> None: ...


def _open_file(path: str, writable: bool) -> BlockDevice:
    return FileDevice(path, writable=writable)


class LocalMapper:
    """`name_of_path`: the dm name behind a path of the run directory, None for other paths.
    `durability`: "host" (barriers) or "process" (survives kill -9, no barriers). `stage`: of the
    new data of origins and snapshots; without one a first write waits for its copy, as in the
    kernel."""

    def __init__(
        self,
        *,
        open_file: Callable[[str, bool], BlockDevice] = _open_file,
        name_of_path: Callable[[str], str | None] = lambda path: None,
        durability: str = "host",
        log: Callable[[str], None] = lambda text: None,
        freezer: Freezer | None = None,
        stage: StageSettings | None = None,
    ) -> None:
        if durability not in ("host", "process"):
            raise TableError(f"durability must be host or process, not {durability!r}")
        self._barriers = durability == "host"
        self._name_of_path = name_of_path
        self._log = log
        self.freezer = freezer
        self.on_change: list[Callable[[], None]] = []
        self._lock = threading.RLock()
        self._devices: dict[str, MappedDevice] = {}
        self._files = DeviceNumbers(open_file, log)
        self._stage = stage or StageSettings()
        self._tables = TableBuilder(
            self.resolve, self._files, barriers=self._barriers, log=log, stage=self._stage
        )

    # -- looking up -------------------------------------------------------------------------

    def mapped(self, device: str) -> MappedDevice:
        """The device of this name, UUID or major:minor; NotFoundError (ENXIO) without one."""
        with self._lock:
            found = self.mapped_by_name(device)
            if found is None:
                found = next((d for d in self._present() if d.uuid == device != ""), None)
            if found is None:
                found = next((d for d in self._present() if d.number == device), None)
        if found is None:
            raise NotFoundError(f"Device {device} not found")
        return found

    def mapped_by_name(self, name: str) -> MappedDevice | None:
        """The device of this very name."""
        with self._lock:
            found = self._devices.get(name)
        return None if found is None or found.leaving else found

    def _present(self) -> Iterator[MappedDevice]:
        """Those that nobody removes. Under the lock."""
        return (d for d in self._devices.values() if not d.leaving)

    def resolve(self, word: str, *, writable: bool = True) -> BlockDevice:
        """The device that a word of a table line means (see `dm_ioctl`). A file is held for the
        caller (see `DeviceNumbers.open`)."""
        name = word
        if word.startswith("/dev/mapper/"):
            name = word.removeprefix("/dev/mapper/")
        elif word.startswith("/"):
            name = self._name_of_path(word) or word
        found = self.mapped_by_name(name)
        if found is not None:
            return found
        if word.startswith("/"):
            return self._files.open(word, writable=writable)
        try:
            return self.mapped(word)
        except NotFoundError:
            file = self._files.by_number(word, writable=writable)
            if file is None:
                code = errno.ENXIO if ":" in word else errno.ENODEV
                raise TableError(f"Device lookup failed: {word}", errno=code) from None
            return file

    def number(self, device: BlockDevice) -> str:
        """major:minor as table and status lines show it."""
        return device.number if isinstance(device, MappedDevice) else self._files.number(device)

    def device_name(self, major: int, minor: int) -> str | None:
        word = f"{major}:{minor}"
        if major == DM_MAJOR:
            with self._lock:
                return next((d.name for d in self._present() if d.minor == minor), None)
        return self._files.path(word)

    def all_mapped(self, *, leaving: bool = False) -> list[MappedDevice]:
        """All devices by ascending minor number; `leaving`: with those that are being removed."""
        with self._lock:
            found = self._devices.values() if leaving else self._present()
            return sorted(found, key=lambda d: d.minor)

    def devices(self) -> list[DeviceInfo]:
        return [d.info() for d in self.all_mapped()]

    def stable_name(self, device: BlockDevice) -> str:
        """How a table names the device so that it is found again by another process."""
        return device.name if isinstance(device, MappedDevice) else self._files.path_of(device)

    def targets(self) -> list[tuple[str, tuple[int, int, int]]]:
        return [(name, kind.version) for name, kind in TARGETS.items()]

    # -- create, rename, remove -------------------------------------------------------------

    def create(
        self, name: str, uuid: str = "", *, minor: int | None = None, read_only: bool = False
    ) -> DeviceInfo:
        check_name(name)
        check_uuid(uuid)
        if minor is not None:
            check_minor(minor)
        with self._lock:
            if name in self._devices or (
                uuid and any(d.uuid == uuid for d in self._devices.values())
            ):
                raise BusyError(f"device {name} exists already, or its UUID is taken")
            taken = {d.minor for d in self._devices.values()}
            if minor is None:
                minor = next(n for n in range(len(taken) + 1) if n not in taken)
            elif minor in taken:
                raise BusyError(f"minor number {minor} is in use")
            device = MappedDevice(
                name,
                uuid,
                minor,
                read_only=read_only,
                honour_flush=self._barriers,
                notify=self._changed,
            )
            self._devices[name] = device
        self._changed()
        return device.info()

    def rename(self, device: str, new_name: str) -> DeviceInfo:
        check_name(new_name)
        with self._lock:
            if new_name in self._devices:
                raise BusyError(f"device {new_name} exists already")
            found = self.mapped(device)
            del self._devices[found.name]
            found.take_name(new_name)
            self._devices[new_name] = found
        found.renamed()
        self._changed()
        return found.info()

    def set_uuid(self, device: str, uuid: str) -> DeviceInfo:
        with self._lock:
            found = self.mapped(device)
            if found.uuid:
                raise TableError(f"device {found.name} has a UUID already")
            if not uuid:
                raise TableError("a UUID cannot be taken away")
            check_uuid(uuid)
            if any(d.uuid == uuid for d in self._devices.values()):
                raise BusyError(f"UUID {uuid} is taken")
            found.uuid = uuid
        found.renamed()
        self._changed()
        return found.info()

    @contextmanager
    def _controlled(self, device: str) -> Iterator[MappedDevice]:
        """The device, with its `control`; NotFoundError if it was removed while we waited. Tells
        of the change afterwards, of a refusal as well: one half-way leaves the device suspended or
        with another table, and so it must come back after a kill."""
        found = self.mapped(device)
        try:
            with found.control:
                if found.removed:
                    raise NotFoundError(f"Device {device} not found")
                yield found
        finally:
            self._changed()

    def remove(self, device: str, *, force: bool = False, retry: bool = False) -> None:
        with self._controlled(device) as found:
            if force and found.live is not None:
                self._replace_by_error(found)
            waits = found.goes_on and not force
            write_before_removal(found, self._stage.pages_left(found.minor) if waits else 0)
            if not found.claim_removal():
                raise BusyError(f"device {found.name} is in use")
            try:
                self._take_down(found)
            finally:
                with self._lock:
                    del self._devices[found.name]

    def _take_down(self, device: MappedDevice) -> None:
        """What a device that leaves holds; behind that nothing of it is there any more, whatever
        one of its targets raises."""
        if device.suspended:
            self._let_go(device)
        else:
            device.halt(lambda: self._let_go(device))

    def _let_go(self, device: MappedDevice) -> None:
        tables = device.live, device.inactive
        device.set_live(None)
        device.inactive = None
        device.wake_removed()
        with ExitStack() as stack:
            stack.callback(self._thaw, device)
            for table in tables:
                if table is not None:
                    stack.callback(self._tables.destroy, device, table)
        if device.goes_on and (lost := self._stage.give_up(device.minor)):
            self._log(f"{device.name}: {lost}")

    def _replace_by_error(self, device: MappedDevice) -> None:
        length = max(device.size // SECTOR, 1)
        self._load(device, [TableLine(0, length, "error")], read_only=False)
        self._resume(device, lose=True)

    # -- tables -----------------------------------------------------------------------------

    def load(
        self, device: str, table: Sequence[TableLine], *, read_only: bool = False
    ) -> DeviceInfo:
        check_table(table)
        with self._controlled(device) as found:
            self._load(found, table, read_only=read_only)
        return found.info()

    def _load(self, device: MappedDevice, table: Sequence[TableLine], *, read_only: bool) -> None:
        new = self._tables.build(device, table, read_only=read_only)
        try:
            check_merges(new, self.all_mapped(), self._stage, self.stable_name)
        except BaseException:
            self._tables.destroy(device, new)
            raise
        old, device.inactive = device.inactive, new
        device.ever_loaded = True
        if old is not None:
            self._tables.destroy(device, old)

    def clear(self, device: str) -> DeviceInfo:
        with self._controlled(device) as found:
            old, found.inactive = found.inactive, None
            if old is not None:
                self._tables.destroy(found, old)
        return found.info()

    # -- suspend and resume -----------------------------------------------------------------

    def suspend(self, device: str, *, lockfs: bool = True, flush: bool = True) -> DeviceInfo:
        with self._controlled(device) as found:
            if found.suspended:
                return found.info()
            if lockfs and self.freezer is not None and found.live is not None:
                found.frozen = self.freezer.freeze(found.name)
            try:
                self._suspend(found)
            finally:
                if not found.suspended:  # It failed before its gate closed; a resume does nothing.
                    self._thaw(found)
        return found.info()

    def _suspend(self, device: MappedDevice) -> None:
        for user in users_of(device, self.all_mapped()):
            # It could not, once this one is suspended. One that is suspended has done so, and one
            # over another that is would wait for that, which may not resume before we are done.
            if not user.suspended and not rests_on_suspended(user):
                self._settle(user)
        # Whatever fails, it is suspended, and a resume opens the gate.
        device.halt(lambda: setattr(device, "suspended", True))

    def _settle(self, device: MappedDevice) -> None:
        try:
            device.settle()
        except Exception as error:  # of a device, or want of memory
            self._log(f"{device.name}: {error!r}")

    def resume(self, device: str) -> DeviceInfo:
        with self._controlled(device) as found:
            self._resume(found)
        return found.info()

    def _resume(self, device: MappedDevice, *, lose: bool = False) -> None:
        """`lose`: whatever waits for the device and cannot be written."""
        new, device.inactive = device.inactive, None
        old: Table | None = None
        if new is not None:
            try:
                if not device.suspended:
                    self._suspend(device)
                new.check_sizes()
                if not lose:
                    write_before_swap(device, new)
            except BaseException:
                self._tables.destroy(device, new)
                raise
            old = device.live
            device.set_live(new)
        elif device.live is None and device.suspended:
            raise TableError(f"device {device.name} has no table to resume")
        try:
            if device.suspended:
                self._start(device, lose=lose)
        finally:
            if old is not None:
                self._tables.destroy(device, old)

    def _start(self, device: MappedDevice, *, lose: bool) -> None:
        targets = device.targets
        for target in targets:
            target.preresume()
        with ExitStack() as stack:
            for target in targets:  # What they do by themselves ends if the gate stays closed.
                stack.callback(target.presuspend)
                target.resume()
            if device.goes_on and not lose:
                take_up(device, self.all_mapped(), self._stage, self.stable_name, self._log)
            with device.opening():
                if device.live is not None and device.live.settling:
                    # What is staged is only found again by a process that knows of the device.
                    self._changed()
            stack.pop_all()
        self._thaw(device)

    def _thaw(self, device: MappedDevice) -> None:
        token, device.frozen = device.frozen, None
        if token is not None and self.freezer is not None:
            self.freezer.thaw(token)

    # -- asking -----------------------------------------------------------------------------

    def table(self, device: str, *, inactive: bool = False) -> list[TableLine]:
        found = self.mapped(device)
        shown = found.inactive if inactive else found.live
        return self._lines(shown, lambda target: target.table(self.number))

    def status(self, device: str, *, flush: bool = True, inactive: bool = False) -> list[TableLine]:
        found = self.mapped(device)
        shown = found.inactive if inactive else found.live
        return self._lines(shown, lambda target: target.status(self.number))

    @staticmethod
    def _lines(table: Table | None, params: Callable[[Target], str]) -> list[TableLine]:
        return [
            TableLine(t.begin // SECTOR, t.length // SECTOR, t.type_name, params(t))
            for t in (table.targets if table else ())
        ]

    def info(self, device: str) -> DeviceInfo:
        return self.mapped(device).info()

    def deps(self, device: str, *, inactive: bool = False) -> list[tuple[int, int]]:
        found = self.mapped(device)
        table = found.inactive if inactive else found.live
        # The kernel puts each device that a table opens at the head of its list.
        numbers = [self.number(d) for d in reversed(table.devices if table else ())]
        return [(int(a), int(b)) for a, b in (n.split(":") for n in numbers)]

    def message(self, device: str, sector: int, message: str) -> str:
        found = self.mapped(device)
        words = message.split()
        if not words:
            raise TableError("Invalid target message parameters")
        live = found.live
        if live is None:
            raise TableError(f"device {found.name} has no live table")
        if not 0 <= sector * SECTOR < live.size:
            raise TableError("Target message sector outside device")
        return live.find(sector * SECTOR).message(words)

    def wait(self, device: str, event_nr: int | None = None, timeout: float | None = None) -> int:
        found = self.mapped(device)
        return found.wait_event(found.event_nr if event_nr is None else event_nr, timeout)

    def snapshot_state(self) -> dict[str, Any]:
        """See `dm.state.describe`."""
        return describe(self)

    def restore_state(self, state: dict[str, Any]) -> list[str]:
        """See `dm.state.restore`."""
        return restore(self, state)

    def forget_stages(self) -> list[str]:
        """What a killed process left that no device will take up; a sentence for each loss."""
        devices = self.all_mapped(leaving=True)
        return self._stage.forget_all([d.minor for d in devices if d.goes_on or d.live])

    def shutdown(self) -> list[str]:
        """Take everything down; data are flushed. Requests that come, or wait at a suspended
        device, fail with ENXIO. The stores on disk stay complete. Returns what could not be done,
        one sentence each.

        Nothing is taken down as long as a request may be under way: a snapshot that is gone gets
        no copies. So first merges stop, then the gates close, users of a device before the device;
        if requests do not end, or something staged cannot be written, all stays as it is, for the
        process to end with. That all is abandoned is known before the first one feels it: a write
        to an origin whose copy fails for that does not go on."""
        failures = []
        devices = [device for device in users_first(self.all_mapped()) if device.abandon()]
        for device in devices:
            device.wake_removed()  # A merge over a suspended one, or a client, would wait for ever.
        for device in devices:
            for target in device.targets:
                target.presuspend()
        for device in devices:
            if not device.pause(_DRAIN_SECONDS):
                failures.append(f"{device.name}: requests are still under way")
                break
            try:
                device.flush_at_the_end()
            except DeviceError as error:
                failures.append(f"{device.name}: the last flush failed: {error}")
        else:
            waits = [d.name for d in devices if holds_unwritten(d, self._stage)]
            if waits:  # As behind a kill, the next process finds it.
                failures.append(f"{', '.join(waits)}: what was written waits for the devices below")
            else:
                self._tear_down(devices)
        for failure in failures:
            self._log(failure)
        return failures

    def _tear_down(self, devices: list[MappedDevice]) -> None:
        self.on_change.clear()  # What is half gone is no state to come back to.
        for device in devices:
            if not device.suspended:
                for target in device.targets:
                    target.postsuspend()
        for device in devices:
            with self._lock:
                self._devices.pop(device.name, None)
            for table in (device.live, device.inactive):
                if table is not None:
                    self._tables.destroy(device, table)
        self._files.close()

    def _changed(self) -> None:
        for hook in self.on_change:
            hook()
