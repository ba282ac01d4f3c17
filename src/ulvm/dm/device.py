"""A mapped device: a live and an inactive table, a gate for I/O, an open count, events.

Gate. Every request passes `_enter` and `_leave`; suspend closes the gate and waits until
nothing is under way; requests that come meanwhile wait until resume. `pause` is the kernel's
internal suspend: the same gate for the short time of a handover, without any hook.

States: a device without live table takes no I/O (EIO). Loading fills the inactive slot;
resume makes it live. Control operations on one device exclude each other by `control`; it is
never taken by a request, so a request that waits at another device's gate blocks nobody's
control.
"""

from __future__ import annotations

import errno
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Protocol

from ulvm.blockdev.base import BlockDevice, Buffer, Changed, Extent, WritableBuffer
from ulvm.dm.handle import DeviceHandle
from ulvm.dm.observe import WriteObserver
from ulvm.dm.table import Table
from ulvm.dm.targets.base import Target
from ulvm.dm_ioctl import DM_MAJOR, DeviceInfo
from ulvm.errors import BusyError, DeviceError, NotSupportedError
from ulvm.units import SECTOR

__all__ = ["Frozen", "MappedDevice"]

_NO_TABLE = Table((), read_only=False)


class Frozen(Protocol):
    """What a freezer gives for the file systems that it froze: where they are mounted, and where
    those are that it could only sync."""

    @property
    def frozen_places(self) -> tuple[str, ...]: ...

    @property
    def synced_places(self) -> tuple[str, ...]: ...


class MappedDevice(BlockDevice):
    """One device of the mapper. Only the mapper calls the control methods."""

    def __init__(
        self,
        name: str,
        uuid: str,
        minor: int,
        *,
        read_only: bool,
        honour_flush: bool = True,
        notify: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self.former_names: frozenset[str] = frozenset()
        """By which somebody may have opened it who has it open still."""
        self.uuid = uuid
        self.minor = minor
        self.forced_read_only = read_only
        self.control = threading.RLock()
        self.live: Table | None = None
        self.inactive: Table | None = None
        self.ever_loaded = False
        """Whether it has had any table: without, it cannot be opened (dm_setup_md_queue)."""
        self.suspended = False
        self.removed = False
        self.abandoned = False
        """By `mapper.shutdown`: others go as well, so that copies fail."""
        self.frozen: Frozen | None = None
        """What the freezer gave when it froze for a suspend."""
        self.event_nr = 0
        self.open_count = 0
        self.uses: Counter[tuple[MappedDevice, str]] = Counter()
        """Devices, with modes, that tables of this one lead to, and how many of the tables do."""
        self.goes_on = False
        """It was brought back after a kill, and what may wait in a file since then (dm.stage) has
        not been taken up yet."""
        self.left_cows: dict[str, int] = {}
        """Of the snapshots that it is to be again then, by their stable names: how many bytes these
        have."""
        self._honour_flush = honour_flush
        self._notify = notify
        self._events = threading.Condition()
        self._gate_lock = threading.Lock()  # bare: a Condition is entered by Python code
        self._gate = threading.Condition(self._gate_lock)
        self._in_flight = 0
        self._closed = 0
        self._table = _NO_TABLE
        self.on_read_only = False
        """A disk below its live table cannot be written. To dmsetup the device can, as the kernel
        has it; a write is refused at once, before a snapshot is lost for want of its copy."""
        self._single: Target | None = None
        self._observer: WriteObserver | None = None

    # -- properties -------------------------------------------------------------------------

    @property
    def size(self) -> int:
        return self._table.size

    @property
    def read_only(self) -> bool:  # type: ignore[override]
        return self.forced_read_only or self._table.read_only or self.on_read_only

    @property
    def block_size(self) -> int:  # type: ignore[override]
        return self._table.block_size

    @property
    def can_discard(self) -> bool:  # type: ignore[override]
        return self._table.can_discard

    @property
    def number(self) -> str:
        return f"{DM_MAJOR}:{self.minor}"

    @property
    def targets(self) -> tuple[Target, ...]:
        """Of the live table, as it is at this moment; none without one."""
        return self._table.targets

    def info(self) -> DeviceInfo:
        shown, following = self.live, self.inactive or _NO_TABLE
        return DeviceInfo(
            name=self.name,
            uuid=self.uuid,
            major=DM_MAJOR,
            minor=self.minor,
            open_count=self.open_count,
            event_nr=self.event_nr,
            suspended=self.suspended,
            live_table=self.live is not None,
            inactive_table=self.inactive is not None,
            read_only=self.forced_read_only or bool(shown and shown.read_only),
            target_count=len(shown.targets) if shown else 0,
            size=self._table.size // SECTOR,
            frozen=self.frozen.frozen_places if self.frozen else (),
            synced=self.frozen.synced_places if self.frozen else (),
            unwritten=self.suspended
            and any(target.would_lose(following.targets) for target in self.targets),
        )

    # -- opens and events -------------------------------------------------------------------

    def open(self, *, write: bool) -> DeviceHandle:
        """A handle that counts until closed. DeviceError(EROFS) for writing if read-only,
        DeviceError(ENXIO) if the device is gone."""
        if write and self.read_only:
            raise DeviceError(f"device {self.name} is read-only", errno=errno.EROFS)
        self.hold()
        return DeviceHandle(self, write=write)

    def hold(self) -> None:
        with self._events:
            if self.removed:
                raise DeviceError(f"device {self.name} is gone", errno=errno.ENXIO)
            self.open_count += 1

    def release(self) -> None:
        with self._events:
            self.open_count -= 1

    @property
    def leaving(self) -> bool:
        """Somebody removes it. It is nobody else's any more, but for its name and numbers."""
        return self.removed and not self.abandoned

    def claim_removal(self) -> bool:
        """Mark as removed if nobody else did, has it open, or had since all was written."""
        with self._events:
            if self.removed or self.open_count or any(t.would_lose(()) for t in self.targets):
                return False
            self.removed = True
            self._events.notify_all()
            return True

    def abandon(self) -> bool:
        """The end: who comes to the gate when it is closed is told, and who waits there with the
        next `wake_removed`. False: somebody removes it already."""
        with self._events:
            if not self.leaving:
                self.removed = self.abandoned = True
                self._events.notify_all()
            return self.abandoned

    def event(self) -> None:
        """dm_table_event: wake those who wait for the device."""
        with self._events:
            self.event_nr += 1
            self._events.notify_all()
        self._notify()

    def tell(self) -> None:
        """Of what is to come back after a kill and is no event."""
        self._notify()

    def take_name(self, name: str) -> None:
        """The mapper's lock is held."""
        self.former_names = self.former_names | {self.name} if self.open_count else frozenset()
        self.name = name

    def renamed(self) -> None:
        """Who waits for events sees a new name or UUID too (dm-ioctl.c, dm_hash_rename)."""
        if self.live is not None:
            self.event()

    def wait_event(self, event_nr: int, timeout: float | None) -> int:
        with self._events:
            self._events.wait_for(
                lambda: self.removed or self.event_nr != event_nr, timeout=timeout
            )
            if self.removed:
                raise DeviceError(f"device {self.name} is gone", errno=errno.ENXIO)
            return self.event_nr

    def observe(self, observer: WriteObserver) -> None:
        """Have writes noted from now on; BusyError if another has."""
        with self._events:
            if self._observer is not None:
                raise BusyError(f"Writes to {self.name} are being measured already.")
            self._observer = observer

    def unobserve(self) -> None:
        self._observer = None

    # -- the gate and the live table --------------------------------------------------------

    def pause(self, timeout: float | None = None) -> bool:
        """Close the gate and wait until no request is under way. False after so many seconds
        without that; the gate then stays closed, and whatever is raised."""
        with self._gate:
            self._closed += 1
            return self._gate.wait_for(lambda: not self._in_flight, timeout)

    def unpause(self) -> None:
        with self._gate:
            if self._closed:  # else memory was wanting to close it
                self._closed -= 1
            self._gate.notify_all()

    def halt(self, then: Callable[[], None]) -> None:
        """Close the gate as a suspend does; `then` comes last. Each is done, whatever fails."""
        with ExitStack() as stack:
            stack.callback(then)
            for target in reversed(self.targets):
                stack.callback(target.postsuspend)
            stack.callback(self.pause)
            for target in reversed(self.targets):
                stack.callback(target.presuspend)

    @contextmanager
    def opening(self) -> Iterator[None]:
        """The last of a resume. Whatever fails, it is suspended still, and may be resumed again."""
        self.suspended = False
        try:
            yield
            self.unpause()
        except BaseException:
            self.suspended = True
            raise

    def set_live(self, table: Table | None) -> None:
        """Swap the live table; only while the gate is closed."""
        self.live = table
        self._table = table or _NO_TABLE
        self._single = table.targets[0] if table and len(table.targets) == 1 else None
        self.on_read_only = any(
            lower.on_read_only if isinstance(lower, MappedDevice) else lower.read_only
            for lower in self._table.devices
        )

    def settle(self) -> None:
        """What waits in memory to be written goes to the devices below. DeviceError."""
        for target in self._table.settling:
            target.settle()

    def wake_removed(self) -> None:
        """Let requests that wait at the gate of a removed device fail."""
        with self._gate:
            self._gate.notify_all()

    # -- requests: flat on purpose ----------------------------------------------------------

    def _enter(self) -> None:
        with self._gate_lock:
            while self._closed:
                if self.removed:
                    raise DeviceError(f"device {self.name} is gone", errno=errno.ENXIO)
                if self.live is None:
                    # As the kernel: without a table there is nothing to wait for.
                    raise DeviceError(f"device {self.name} has no table", errno=errno.EIO)
                self._gate.wait()
            self._in_flight += 1

    def _leave(self) -> None:
        with self._gate_lock:
            self._in_flight -= 1
            if self._closed and not self._in_flight:
                self._gate.notify_all()

    def readinto(self, offset: int, buffer: WritableBuffer) -> None:
        self._enter()
        try:
            length = len(buffer)
            if offset < 0 or offset + length > self._table.size:
                self._out_of_range(offset, length, write=False)
            if self._single is not None:
                self._single.readinto(offset, buffer)
            elif length:
                view = memoryview(buffer)
                for target, start, position, n in self._split(offset, length):
                    target.readinto(start, view[position : position + n])
        finally:
            self._leave()

    def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
        self._enter()
        try:
            length = len(data)
            if offset < 0 or offset + length > self._table.size:
                self._out_of_range(offset, length, write=True)
            if self.read_only:
                raise DeviceError(f"device {self.name} is read-only", errno=errno.EROFS)
            if self._observer is not None:
                self._observer.note(offset, length)
            if self._single is not None:
                self._single.write(offset, data, fua=fua)
            elif length:
                view = memoryview(data).cast("B")
                for target, start, position, n in self._split(offset, length):
                    target.write(start, view[position : position + n], fua=fua)
        finally:
            self._leave()

    def _split(self, offset: int, length: int) -> Iterator[tuple[Target, int, int, int]]:
        """(target, offset on the device, position in the request, length) of each part."""
        position = 0
        while position < length:
            target = self._table.find(offset + position)
            n = min(length - position, target.begin + target.length - offset - position)
            yield target, offset + position, position, n
            position += n

    def _out_of_range(self, offset: int, length: int, *, write: bool) -> None:
        self._check_live()
        self.check_range(offset, length, write=write)

    def _check_live(self) -> None:
        if self.live is None:
            raise DeviceError(f"device {self.name} has no table", errno=errno.EIO)

    # -- many requests at once --------------------------------------------------------------

    def readinto_each(self, pieces: Sequence[tuple[int, memoryview]]) -> None:
        self._enter()
        try:
            single, size = self._single, self._table.size
            for offset, buffer in pieces:
                if offset < 0 or offset + len(buffer) > size:
                    self._out_of_range(offset, len(buffer), write=False)
            if single is not None:
                single.readinto_each(pieces)
                return
            for offset, buffer in pieces:
                for target, start, position, n in self._split(offset, len(buffer)):
                    target.readinto(start, buffer[position : position + n])
        finally:
            self._leave()

    def write_each(self, pieces: Sequence[tuple[int, memoryview]]) -> None:
        self._enter()
        try:
            size = self._table.size
            # Behind the gate: what waits there may find another table.
            if self._single is not None and self._observer is None and not self.read_only:
                for offset, data in pieces:
                    if offset < 0 or offset + len(data) > size:
                        self._out_of_range(offset, len(data), write=True)
                self._single.write_each(pieces)
                return
        finally:
            self._leave()
        super().write_each(pieces)

    def write_uncached(self, offset: int, data: Buffer) -> None:
        self._enter()
        try:
            length = len(data)
            if offset < 0 or offset + length > self._table.size:
                self._out_of_range(offset, length, write=True)
            straight = self._honour_flush and self._observer is None and not self.read_only
            if straight and self._single is not None:
                self._single.write_uncached(offset, data)
                return
        finally:
            self._leave()
        self.write(offset, data)

    # -- slower requests --------------------------------------------------------------------

    def _parts(self, offset: int, length: int, *, write: bool) -> Iterator[tuple[Target, int, int]]:
        if self.live is None or offset < 0 or offset + length > self._table.size:
            self._out_of_range(offset, length, write=write)
        if write and self.read_only:
            raise DeviceError(f"device {self.name} is read-only", errno=errno.EROFS)
        for target, start, _, n in self._split(offset, length):
            yield target, start, n

    def flush(self) -> None:
        self._enter()
        try:
            self._check_live()
            if self._honour_flush:
                self.settle()
            else:  # What waits outlives the process; that a disk refuses it is told all the same.
                for target in self._table.settling:
                    if target.refused:
                        target.settle()
            for device in self._table.flush_devices:
                if self._honour_flush or isinstance(device, MappedDevice):
                    device.flush()
        finally:
            self._leave()

    def flush_at_the_end(self) -> None:
        """As `flush`, past the gates of what is suspended here and below: no one opens them now."""
        self.settle()
        for device in self._table.flush_devices if self._honour_flush else ():
            if isinstance(device, MappedDevice):
                device.flush_at_the_end()
            else:
                device.flush()

    def discard(self, offset: int, length: int) -> None:
        self._enter()
        try:
            if self.live is not None and not self._table.can_discard:
                raise NotSupportedError(f"device {self.name} does not support discard")
            for target, start, n in self._parts(offset, length, write=True):
                target.discard(start, n)
        finally:
            self._leave()

    def write_zeroes(
        self, offset: int, length: int, *, no_hole: bool = False, fua: bool = False
    ) -> None:
        self._enter()
        try:
            if self._observer is not None:
                self._observer.note(offset, length)
            for target, start, n in self._parts(offset, length, write=True):
                target.write_zeroes(start, n, no_hole=no_hole, fua=fua)
        finally:
            self._leave()

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        self._enter()
        try:
            found: list[Extent] = []
            for target, start, n in self._parts(offset, length, write=False):
                found.extend(target.extents(start, n))
        finally:
            self._leave()
        return iter(found)

    def changed(self, offset: int, length: int) -> Iterator[Changed] | None:
        self._enter()
        try:
            if self._single is None:
                return None
            runs = self._single.changed(offset, length)
            return None if runs is None else iter(list(runs))
        finally:
            self._leave()
