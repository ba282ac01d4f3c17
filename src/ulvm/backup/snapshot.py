"""The snapshot that a backup reads: made, watched, extended, removed, whatever happens.

    locked -> quiesced -> created (tagged; writers waited) -> resumed -> ... -> removed -> unlocked

Every step that changes metadata runs with signals deferred, so Ctrl-C and SIGTERM find either
no snapshot or one whose removal is on the stack; and so does all of `close`, which takes back
what is on it. The removal looks for the snapshot in the metadata first, so a creation that failed
half-way is taken back as well. A kill -9 leaves a tagged snapshot whose lock is free: see
`leftovers`.

The group's lock is not held while the application is quiesced: its command may use ulvm. So another
command may come in between, and the application does not wait for that one without bound.

Quiescing may take minutes, copying hours, and volumes and their group may be renamed meanwhile
(`in_hand`). The snapshot is opened by the name that the daemon has for its UUID, without the lock:
the watcher may hold that.

A volume that is not active is activated for the time of the backup.
"""

from __future__ import annotations

import os
import secrets
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from ulvm.activation.names import dm_name, dm_uuid, split_dm_name
from ulvm.backup.in_hand import locked_group, remove_when_free
from ulvm.backup.interrupts import deferred
from ulvm.backup.leftovers import TAG, check_restored, hold, hold_snapshot
from ulvm.backup.quiesce.commands import quiesced
from ulvm.backup.size import choose_cow_extents
from ulvm.backup.watch import CowStatus, parse_cow_status
from ulvm.blockdev.base import BlockDevice
from ulvm.errors import (
    DaemonGoneError,
    NotFoundError,
    NotSupportedError,
    RefusedError,
    UlvmError,
)
from ulvm.lvm import lv as lvm_lv
from ulvm.lvm import snapshot as lvm_snapshot
from ulvm.lvm.session import Session
from ulvm.metadata.allocate import allocatable_extents
from ulvm.metadata.cow import cow_max_extents
from ulvm.metadata.lv_edit import Properties
from ulvm.metadata.model import LogicalVolume, VolumeGroup
from ulvm.metadata.names import NAME_LEN
from ulvm.units import SECTOR

__all__ = ["BackupSnapshot", "SnapshotRequest"]

_MIB = 1 << 20
_LOCK_SECONDS = 30.0
"""How long an application stands still for another command that has the group's lock."""


class SnapshotRequest(NamedTuple):
    """What is to be snapshotted and how; see BackupRequest."""

    volume: str
    cow_bytes: int | None = None
    """None to choose."""
    chunk_sectors: int = lvm_snapshot.DEFAULT_CHUNK
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
        self._uuid = ""
        """The snapshot's, once it is made."""
        self._extent_size = 0
        self._devices: list[BlockDevice] = []
        self.left = False
        """Whether it could not be removed."""

    @property
    def name_of_origin(self) -> str:
        return f"{self.vg_name}/{self.origin_name}"

    @property
    def nbd_uri(self) -> str:
        from urllib.parse import quote  # for this alone

        socket = quote(os.fsencode(self._session.host.run_dir / "nbd.sock"))
        return f"nbd+unix:///{'/'.join(self._names())}?socket={socket}"

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
            vg = session.scan().vg(self.vg_name)
            origin = self._check(vg)
            self._activate(vg)
            extents, how = self._cow_extents(vg, origin)
            owned = self._stack.enter_context(ExitStack())  # it is removed before that is let go
            patience = None
            if request.quiesce is not None:
                with session.lock(self.vg_name):  # whoever is at work ends it first
                    patience = _LOCK_SECONDS
            with quiesced(
                request.quiesce,
                request.resume,
                environment=self.environment,
                warn=session.warn,
            ):
                self._stack.callback(self._remove)
                with (
                    locked_group(session, self.vg_uuid, patience=patience) as vg,
                    deferred(),
                ):
                    made = self._create(vg, extents)
                    owned.enter_context(hold_snapshot(session.host, made, made.volume(self.name)))
            session.say(self._words(made, how))
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
            self._session.close()  # the daemon may be another by now, with the same devices
            self._stack.close()

    def _check(self, vg: VolumeGroup) -> LogicalVolume:
        """The origin; RefusedError if it cannot have a snapshot, or none that is worth it."""
        self.vg_name = vg.name
        origin = vg.lv_by_uuid(self.origin_uuid) if self.origin_uuid else vg.lv(self.origin_name)
        if origin is None:
            raise NotFoundError(f"{self.name_of_origin} is not there any more.")
        self.origin_name = origin.name
        segment = vg.snapshot_of(origin.name)
        if segment is not None:
            words = "is a snapshot, which cannot have snapshots: back up its origin."
            if vg.is_virtual_origin(vg.volume(segment.origin)):
                words = "is sparse, a snapshot of nothing, which cannot have snapshots."
            raise RefusedError(f"{self.name_of_origin} {words}")
        if vg.merging_snapshot_of(origin.name) is not None:
            raise RefusedError(f"A snapshot is being merged into {self.name_of_origin}.")
        check_restored(vg, origin)
        self.vg_uuid, self.origin_uuid = vg.uuid, origin.uuid
        self._extent_size = vg.extent_size
        return origin

    def _activate(self, vg: VolumeGroup) -> None:
        """An inactive origin gets devices for the time of the backup."""
        session = self._session
        if session.activator.is_active(vg, self.origin_name):
            return
        lvm_lv.check_listed(session, vg, self.origin_name)
        self._stack.callback(self._deactivate)
        with deferred():
            lvm_lv.activate(session, self.vg_name, self.origin_name)
        session.say(f"{self.name_of_origin} is inactive: activated for the backup.")

    def _deactivate(self) -> None:
        try:
            with locked_group(self._session, self.vg_uuid) as vg:
                origin = vg.lv_by_uuid(self.origin_uuid)
                if origin is not None:
                    lvm_lv.deactivate(self._session, vg.name, origin.name)
        except UlvmError as error:
            self._session.warn(f"{self.name_of_origin} stays active: {error.message}")

    def _cow_extents(self, vg: VolumeGroup, origin: LogicalVolume) -> tuple[int, str]:
        """How large the COW is to be, and how that came."""
        most = cow_max_extents(vg, origin.name, self._request.chunk_sectors)
        extent_bytes = vg.extent_size * SECTOR
        free = allocatable_extents(vg)
        if self._request.cow_bytes is None:
            extents = choose_cow_extents(
                origin_extents=origin.extent_count,
                most_extents=most,
                free_extents=free,
                extent_size=vg.extent_size,
                vg=vg.name,
            )
            return extents, f"chosen from {free * extent_bytes / _MIB:.2f} MiB free in {vg.name}"
        extents = min(-(-self._request.cow_bytes // extent_bytes), most)
        if extents > free:
            raise RefusedError(
                f'Volume group "{vg.name}" has insufficient free space ({free} extents): '
                f"{extents} required."
            )
        return extents, "as given"

    def _create(self, vg: VolumeGroup, extents: int) -> VolumeGroup:
        """The VG with the snapshot. Its lock is held."""
        origin = self._check(vg)
        report = lvm_snapshot.create(
            self._session,
            vg.name,
            origin.name,
            self.name,
            extents=extents,
            chunk_size=self._request.chunk_sectors,
            properties=Properties(read_only=self._request.read_only, tags=(TAG,)),
            approximate=self._request.cow_bytes is None,
        ).report
        self.time = datetime.now(UTC)
        self.waited_seconds = report.suspended_seconds
        self.frozen, self.synced = tuple(report.frozen), tuple(report.synced)
        vg = self._session.scan().vg(vg.name)
        self._uuid = vg.volume(self.name).uuid
        most = cow_max_extents(vg, origin.name, self._request.chunk_sectors)
        self.enough_bytes = most * vg.extent_size * SECTOR
        return vg

    def _words(self, vg: VolumeGroup, how: str) -> str:
        """The sentence about the snapshot's size."""
        size = vg.volume(self.name).extent_count * vg.extent_size * SECTOR
        grows = (
            "cannot overflow"
            if size >= self.enough_bytes
            else "extended before it fills"
            if allocatable_extents(vg)
            else "cannot be extended"
        )
        return f"Snapshot {vg.name}/{self.name} of {size / _MIB:.2f} MiB ({how}; {grows})."

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
            remove_when_free(session, self.vg_uuid, self._found)
        except UlvmError as error:
            self.left = True
            session.warn(
                f"Snapshot {self.vg_name}/{self.name} is left behind: {error.message}\n"
                f'  "ulvm backup --clean {self.vg_name}" removes it.'
            )

    def _found(self, vg: VolumeGroup) -> LogicalVolume | None:
        """The snapshot in its group, if it is there; what is said from now on has their names."""
        # Without a UUID its creation failed, half-way perhaps.
        lv = vg.lv_by_uuid(self._uuid) if self._uuid else vg.lv(self.name)
        if lv is not None:
            self.vg_name, self.name = vg.name, lv.name
        return lv

    # -- while it is there --------------------------------------------------------------------

    def _names(self) -> tuple[str, str]:
        """What the daemon calls the snapshot's group and itself now."""
        info = self._session.dm.info(dm_uuid(self.vg_uuid, self._uuid))
        vg_name, name, _ = split_dm_name(info.name)
        return vg_name, name

    def open_device(self) -> BlockDevice:
        """One connection to the snapshot, for reading. `close` closes it at the latest: as long
        as one is open the snapshot cannot be removed."""
        while True:
            names = self._names()
            with deferred():
                device = self._session.device_for(*names, write=False)
                self._devices.append(device)
            if self._names() == names:  # else another volume may have had them
                return device
            device.close()

    def device_path(self) -> Path:
        """The file that is the snapshot. NotSupportedError without FUSE."""
        path = self._session.host.run_dir.joinpath("dev", *self._names())
        if not path.exists():
            raise NotSupportedError(
                f"There is no {path}, since this daemon runs without FUSE: use {{nbd}}."
            )
        return path

    def status(self) -> CowStatus:
        """How full the COW is."""
        lines = self._watching.dm.status(dm_uuid(self.vg_uuid, self._uuid))
        return parse_cow_status(lines[0].params)

    def extend(self, total: int) -> int | None:
        """Double a COW of `total` bytes, or add what there is; its new size in bytes. Somebody else
        may have extended it since it was looked at, and taken the room too. None where it cannot be
        done now (another command is at work, a PV is missing): the snapshot is as it was."""
        session = self._watching
        try:
            return self._extended(session, total)
        except DaemonGoneError:
            raise
        except UlvmError as error:
            session.warn_once(error.message)
        return None

    def _extended(self, session: Session, total: int) -> int:
        extent_bytes = self._extent_size * SECTOR
        with locked_group(session, self.vg_uuid) as vg:
            lv = vg.lv_by_uuid(self._uuid)
            if lv is None:
                raise NotFoundError(f"Snapshot {vg.name}/{self.name} is not there any more.")
            extents = lv.extent_count
            wanted = min(total * 2, self.enough_bytes) // extent_bytes
            if wanted > extents:
                new = lvm_lv.extend(session, vg.name, lv.name, wanted, approximate=True).vg
                extents = new.volume(lv.name).extent_count
        return extents * extent_bytes


def _snapshot_name(vg: str, origin: str) -> str:
    """`db` -> `db_backup_1f3a9c`, cut so that its devices have names; nobody else chooses this
    one."""
    suffix = f"_backup_{secrets.token_hex(3)}"
    while origin and len(dm_name(vg, origin + suffix, "cow")) >= NAME_LEN:
        origin = origin[:-1]
    return origin + suffix
