"""The snapshot that a backup reads: made, watched, extended, removed, whatever happens.

    locked -> quiesced -> created (tagged; writers waited) -> resumed -> ... -> removed -> unlocked

Every step that changes metadata runs with signals deferred, so Ctrl-C and SIGTERM find either
no snapshot or one whose removal is on the stack; and so does all of `close`, which takes back
what is on it. The removal looks for the snapshot in the metadata first, so a creation that failed
half-way is taken back as well. A kill -9 leaves a tagged snapshot whose lock is free: see
`leftovers`.

A volume that is not active is activated for the time of the backup.
"""

from __future__ import annotations

import secrets
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from ulvm.activation.names import dm_name
from ulvm.backup.interrupts import deferred
from ulvm.backup.leftovers import TAG, hold
from ulvm.backup.quiesce.commands import quiesced
from ulvm.backup.size import choose_cow_extents
from ulvm.backup.watch import CowStatus, parse_cow_status
from ulvm.blockdev.base import BlockDevice
from ulvm.errors import BusyError, NotSupportedError, RefusedError, UlvmError
from ulvm.lvm import lv as lvm_lv
from ulvm.lvm import snapshot as lvm_snapshot
from ulvm.lvm.session import Session
from ulvm.metadata.cow import cow_max_extents
from ulvm.metadata.lv_edit import Properties
from ulvm.metadata.model import LogicalVolume, VolumeGroup
from ulvm.metadata.names import NAME_LEN
from ulvm.units import SECTOR

__all__ = ["BackupSnapshot", "SnapshotRequest"]

_MIB = 1 << 20
_DEFAULT_CHUNK = 8
"""Sectors, as lvcreate's."""
_RELEASE_SECONDS = 3.0
"""How long a snapshot may still be open when the backup is done with it."""


class SnapshotRequest(NamedTuple):
    """What is to be snapshotted and how; see BackupRequest."""

    volume: str
    cow_bytes: int | None = None
    """None to choose."""
    chunk_sectors: int = _DEFAULT_CHUNK
    quiesce: str | None = None
    resume: str | None = None
    read_only: bool = True


class BackupSnapshot:
    """A context: the snapshot exists inside it. Used from the main thread, but `status` and
    `extend` from the watcher's. To be put into `closing` as well: see `interrupts`."""

    def __init__(self, session: Session, request: SnapshotRequest) -> None:
        self._session = session
        self._watching = session.another()
        self._request = request
        self.vg_name, self.origin_name = session.resolve_lv(request.volume)
        self.name = _snapshot_name(self.vg_name, self.origin_name)
        self._stack = ExitStack()
        self.time = datetime.now(UTC)
        """When the snapshot was taken."""
        self.waited_seconds = 0.0
        """How long writers waited for it."""
        self.frozen: tuple[str, ...] = ()
        """Mount points of the file systems that were frozen for it: they are clean in it."""
        self.synced: tuple[str, ...] = ()
        """Of those that could only be synced: in it they are as after a power cut, at worst."""
        self.vg_uuid = self.origin_uuid = ""
        self.enough_bytes = 0
        """Size of the COW at which it cannot overflow."""
        self._extent_size = 0
        self._devices: list[BlockDevice] = []
        self.left = False
        """Whether it could not be removed."""

    @property
    def name_of_origin(self) -> str:
        return f"{self.vg_name}/{self.origin_name}"

    @property
    def nbd_uri(self) -> str:
        return (
            f"nbd+unix:///{self.vg_name}/{self.name}?socket={self._session.host.run_dir}/nbd.sock"
        )

    @property
    def environment(self) -> dict[str, str]:
        """What the user's commands find in theirs."""
        return {
            "ULVM_VG": self.vg_name,
            "ULVM_LV": self.origin_name,
            "ULVM_SNAPSHOT": self.name,
        }

    # -- making and removing ------------------------------------------------------------------

    def __enter__(self) -> BackupSnapshot:
        session, request = self._session, self._request
        try:
            with deferred():
                self._stack.enter_context(hold(session.host, self.vg_name, self.name))
            vg, origin = self._check()
            self._activate(vg)
            extents, words = self._cow_extents(vg, origin)
            with quiesced(
                request.quiesce,
                request.resume,
                environment=self.environment,
                warn=session.warn,
            ):
                self._stack.callback(self._remove)
                with deferred():
                    self._create(extents)
            session.say(words)
            self._say_waited()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Take back what was begun, with signals deferred. Idempotent."""
        with deferred():
            for device in self._devices:
                device.close()
            self._watching.close()
            self._stack.close()

    def _check(self) -> tuple[VolumeGroup, LogicalVolume]:
        """The origin; RefusedError if it cannot have a snapshot."""
        vg = self._session.scan().vg(self.vg_name)
        origin = vg.lv(self.origin_name)
        assert origin is not None, "resolve_lv found it"
        if vg.is_cow(origin.name):
            raise RefusedError(
                f"{self.name_of_origin} is a snapshot, which cannot have snapshots: "
                "back up its origin."
            )
        if vg.merging_snapshot_of(origin.name) is not None:
            raise RefusedError(f"A snapshot is being merged into {self.name_of_origin}.")
        self.vg_uuid, self.origin_uuid = vg.uuid, origin.uuid
        self._extent_size = vg.extent_size
        return vg, origin

    def _activate(self, vg: VolumeGroup) -> None:
        """An inactive origin gets devices for the time of the backup."""
        session = self._session
        if session.activator.is_active(vg, self.origin_name):
            return
        self._stack.callback(self._deactivate)
        with deferred():
            lvm_lv.activate(session, self.vg_name, self.origin_name)
        session.say(f"{self.name_of_origin} is inactive: activated for the backup.")

    def _deactivate(self) -> None:
        try:
            lvm_lv.deactivate(self._session, self.vg_name, self.origin_name)
        except UlvmError as error:
            self._session.warn(f"{self.name_of_origin} stays active: {error.message}")

    def _cow_extents(self, vg: VolumeGroup, origin: LogicalVolume) -> tuple[int, str]:
        """How large the COW is to be, and the sentence about it."""
        most = cow_max_extents(vg, origin.name, self._request.chunk_sectors)
        extent_bytes = vg.extent_size * SECTOR
        self.enough_bytes = most * extent_bytes
        free = vg.free_count
        if self._request.cow_bytes is not None:
            wanted = -(-self._request.cow_bytes // extent_bytes)
            if wanted > free:
                raise RefusedError(
                    f'Volume group "{vg.name}" has insufficient free space ({free} extents): '
                    f"{wanted} required."
                )
            extents, how = min(wanted, most), "as given"
        else:
            extents = choose_cow_extents(
                origin_extents=origin.extent_count,
                most_extents=most,
                free_extents=free,
                extent_size=vg.extent_size,
                vg=vg.name,
            )
            how = f"chosen from {free * extent_bytes / _MIB:.2f} MiB free in {vg.name}"
        grows = (
            "cannot overflow"
            if extents == most
            else "extended before it fills"
            if free > extents
            else "cannot be extended"
        )
        size = extents * extent_bytes / _MIB
        return extents, f"Snapshot {vg.name}/{self.name} of {size:.2f} MiB ({how}; {grows})."

    def _create(self, extents: int) -> None:
        made = lvm_snapshot.create(
            self._session,
            self.vg_name,
            self.origin_name,
            self.name,
            extents=extents,
            chunk_size=self._request.chunk_sectors,
            properties=Properties(read_only=self._request.read_only, tags=(TAG,)),
        )
        self.time = datetime.now(UTC)
        self.waited_seconds = made.report.suspended_seconds
        self.frozen, self.synced = tuple(made.report.frozen), tuple(made.report.synced)

    def _say_waited(self) -> None:
        """How long writers waited, and how clean the snapshot is."""
        state = ""
        if self.frozen:
            state += "; frozen: " + ", ".join(self.frozen)
        if self.synced:
            state += "; synced, but could not be frozen: " + ", ".join(self.synced)
        if not state:
            state = "; no file system is mounted here for writing, so none was frozen"
        self._session.say(f"Writers waited {self.waited_seconds * 1000:.1f} ms{state}.")

    def _remove(self) -> None:
        """Remove the snapshot if it is there. Never raises: the backup's own outcome counts, and
        what is left behind is found by the next command."""
        session = self._session
        try:
            if session.scan().vg(self.vg_name).lv(self.name) is not None:
                self._remove_when_free()
        except UlvmError as error:
            self.left = True
            session.warn(
                f"Snapshot {self.vg_name}/{self.name} is left behind: {error.message}\n"
                f'  "ulvm backup --clean {self.vg_name}" removes it.'
            )

    def _remove_when_free(self) -> None:
        """The daemon notices a little later that our connections to the snapshot are closed."""
        deadline = time.monotonic() + _RELEASE_SECONDS
        while True:
            try:
                lvm_lv.remove(self._session, self.vg_name, self.name)
                return
            except BusyError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.05)

    # -- while it is there --------------------------------------------------------------------

    def open_device(self) -> BlockDevice:
        """One connection to the snapshot, for reading. `close` closes it at the latest: as long
        as one is open the snapshot cannot be removed."""
        with deferred():
            device = self._session.device_for(self.vg_name, self.name, write=False)
            self._devices.append(device)
        return device

    def device_path(self) -> Path:
        """The file that is the snapshot. NotSupportedError without FUSE."""
        path = self._session.host.run_dir / "dev" / self.vg_name / self.name
        if not path.exists():
            raise NotSupportedError(
                f"There is no {path}, since this daemon runs without FUSE: use {{nbd}}."
            )
        return path

    def status(self) -> CowStatus:
        """How full the COW is."""
        lines = self._watching.dm.status(dm_name(self.vg_name, self.name))
        return parse_cow_status(lines[0].params)

    def extend(self, total: int) -> int:
        """Double a COW of `total` bytes, or add what there is; its new size in bytes."""
        extent_bytes = self._extent_size * SECTOR
        free = self._watching.scan().vg(self.vg_name).free_count
        have = total // extent_bytes
        most = self.enough_bytes // extent_bytes
        extents = min(have * 2, have + free, most)
        if extents <= have:
            return total
        lvm_lv.extend(self._watching, self.vg_name, self.name, extents)
        return extents * extent_bytes


def _snapshot_name(vg: str, origin: str) -> str:
    """`db` -> `db_backup_1f3a9c`, cut so that its devices have names; nobody else chooses this
    one."""
    suffix = f"_backup_{secrets.token_hex(3)}"
    while origin and len(dm_name(vg, origin + suffix, "cow")) >= NAME_LEN:
        origin = origin[:-1]
    return origin + suffix
