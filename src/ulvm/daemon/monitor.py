"""Watches how full snapshots are: the part that dmeventd's snapshot plugin plays for LVM2.

Looking is reading a status in process: every two seconds, and sooner when a snapshot will pass the
threshold of its extension before that. It waits for no I/O but the mark of a snapshot that turns
invalid by it, so those whose disks are suspended are left until they are not. For each snapshot:

    from 80 %             each further 5 % is logged, with the time at which it will be full
    above the threshold   `ulvm lvextend --use-policies vg/lv` is started (vgstore.policy); what it
                          says when it fails is logged, once while it stays the same, and it is
                          tried again later
    invalid, overflow     said once; what is mounted on it is unmounted by `ulvm umount --lazy
                          --force`, since its reads fail and its users should learn that now;
                          what that leaves is tried again, later if it failed
    size of all chunks    no longer watched: it cannot overflow

The commands are processes of their own, since they need the VG's lock or wait for a file system,
and this thread must never wait for either. Nothing is decided here that the command does not decide
again under the lock, so a look at an old status does no harm. Settings are read anew when ulvm.conf
changes.

What goes wrong with one snapshot (a dm name that is not LVM's, a process that cannot be started) is
logged, once while it stays the same, and tried again at the next look; the others are looked at.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

from ulvm.activation.names import is_top_level, split_dm_name, vg_uuid_of
from ulvm.activation.status import SnapshotStatus, parse_snapshot_status
from ulvm.daemon.commands import end_commands, start_command
from ulvm.daemon.history import FillHistory
from ulvm.dm.device import MappedDevice
from ulvm.dm.mapper import LocalMapper
from ulvm.dm.order import rests_on_suspended
from ulvm.dm.targets.snapshot import SnapshotTarget
from ulvm.errors import FormatError, NotFoundError
from ulvm.metadata.cow import store_chunks
from ulvm.units import SECTOR, display_size
from ulvm.vgstore.policy import SnapshotPolicy

__all__ = ["Monitor"]

log = logging.getLogger(__name__)

_SECONDS = 2.0
_SOON = 0.1
_WARN_FROM = 80
_STEP = 5
_RETRY_SECONDS = 60.0
_PATIENCE = 10.0
_LONGEST_REASON = 4096


@dataclass
class _Command:
    """A process at work, and what it says on standard error."""

    argv: Sequence[str]

    def __post_init__(self) -> None:
        self._said: IO[bytes] = os.fdopen(os.memfd_create("stderr"), "w+b")
        try:
            self.process = start_command(self.argv, stderr=self._said)
        except BaseException:
            self._said.close()
            raise

    def problem(self) -> str | None:
        """None while it runs; "" when it has ended well; else why it has not."""
        status = self.process.poll()
        if status is None:
            return None
        with self._said:
            self._said.seek(0)
            said = self._said.read(_LONGEST_REASON).decode(errors="replace")
        if not status:
            return ""
        return " ".join(said.split()) or f"exit code {status}"


@dataclass
class _Watched:
    """What is known of one snapshot."""

    history: FillHistory = field(default_factory=FillHistory)
    status: SnapshotStatus | None = None
    warned: int = 0
    told: bool = False
    """That it is invalid."""
    dead: bool = False
    """And nothing is mounted on it any more."""
    growing: _Command | None = None
    unmounting: dict[str, _Command] = field(default_factory=dict)
    """By where it is mounted."""
    retry_at: float = 0.0
    """Neither extended nor unmounted before that time: the last attempt was of no use."""
    held: str = ""
    """Why it cannot be unmounted."""
    problem: str = ""
    """Why it cannot be extended."""
    failed: str = ""

    def commands(self) -> list[_Command]:
        return [*self.unmounting.values(), *([self.growing] if self.growing else [])]


class Monitor:
    """`command(*words)` gives the argv of an ulvm command, `policy()` the settings as they are now,
    `mount_points(name)` where the file systems of a dm device are mounted, and whether that is on
    top there. `monitoring`: whether any snapshot is watched at all (activation/monitoring).

    `_lock` is over `_watched` and `_turned`, for `report` and `set_monitored`, which other threads
    call."""

    def __init__(
        self,
        mapper: LocalMapper,
        *,
        policy: Callable[[], SnapshotPolicy],
        command: Callable[..., Sequence[str]],
        mount_points: Callable[[str], Collection[tuple[str, bool]]] = lambda name: (),
        monitoring: bool = True,
    ) -> None:
        self._mapper = mapper
        self._policy = policy
        self._command = command
        self._mount_points = mount_points
        self._monitoring = monitoring
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._watched: dict[MappedDevice, _Watched] = {}
        self._turned: dict[MappedDevice, bool] = {}
        """Devices for which monitoring was turned on or off by hand."""
        self._thread = threading.Thread(target=self._run, name="monitor", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """The commands under way are ended as well: what they extend is taken down next. A look
        that waits for a device which is suspended at this moment is left: that frees it."""
        self._stop.set()
        self._thread.join(_PATIENCE)
        if self._thread.is_alive():
            log.error("a look at the snapshots does not end")
        with self._lock:
            commands = [c for watched in self._watched.values() for c in watched.commands()]
        end_commands([command.process for command in commands])

    def _run(self) -> None:
        pause, failed = _SECONDS, ""
        while not self._stop.wait(pause):
            try:
                pause, failed = self._look(), ""
            except Exception as error:  # as in `_look`, for what is not about one snapshot
                if failed != repr(error):
                    failed = repr(error)
                    log.exception("cannot watch the snapshots")

    # -- asked by others --------------------------------------------------------------------

    def is_monitored(self, device: MappedDevice) -> bool:
        return self._turned.get(device, self._monitoring)

    def set_monitored(self, device: MappedDevice, on: bool) -> None:
        """lvchange --monitor y|n; as long as the device is active."""
        with self._lock:
            self._turned[device] = on

    def report(self) -> list[dict[str, Any]]:
        """One object for each active snapshot: sizes in sectors, times in seconds from now."""
        policy = self._policy()
        found = []
        for device in self._snapshots():
            status = _status_of(self._mapper, device)
            if status is None or status.merging:
                continue
            try:
                vg, lv, _ = split_dm_name(device.name)
            except FormatError:  # renamed by hand: nobody asks for it by that name
                continue
            with self._lock:
                watched = self._watched.get(device, _Watched())
                history, problem = watched.history, watched.problem
                rate, seconds = history.rate, history.seconds_until(status.total)
            dead = status.invalid or status.overflow
            found.append(
                {
                    "vg": vg,
                    "lv": lv,
                    "monitored": self.is_monitored(device),
                    "state": "invalid" if dead else "active",
                    "allocated": status.allocated,
                    "total": status.total,
                    "full": status.fraction,
                    "rate": None if dead else rate,
                    "seconds": None if dead else seconds,
                    "threshold": policy.threshold if policy.extends else None,
                    "percent": policy.percent,
                    "problem": problem,
                }
            )
        return found

    # -- looking ----------------------------------------------------------------------------

    def _snapshots(self) -> list[MappedDevice]:
        return [
            device
            for device in self._mapper.all_mapped()
            if device.live is not None
            and is_top_level(device.uuid)
            and any(target.type_name == "snapshot" for target in device.targets)
        ]

    def _look(self) -> float:
        """At all of them; seconds until the next look."""
        pause = _SECONDS
        devices = self._snapshots()
        for device in devices:
            if self._stop.is_set():
                return pause
            if not self.is_monitored(device) or _may_wait(device):
                continue
            with self._lock:
                watched = self._watched.setdefault(device, _Watched())
            try:
                pause = min(pause, self._look_at(device, watched))
                watched.failed = ""
            except NotFoundError:
                continue  # removed a moment ago
            except Exception as error:  # the thread must not end of it: all growth would
                if watched.failed != repr(error):
                    watched.failed = repr(error)
                    log.exception("cannot watch %s", device.name)
        with self._lock:
            for gone in set(self._watched) - set(devices):
                if not self._watched[gone].commands():
                    del self._watched[gone]
            for gone in set(self._turned) - set(self._mapper.all_mapped()):
                del self._turned[gone]
        for device, watched in list(self._watched.items()):
            self._see_to_commands(device.name, watched)
        return pause

    def _look_at(self, device: MappedDevice, watched: _Watched) -> float:
        status = _status_of(self._mapper, device)
        if status is None or status.merging:
            return _SECONDS
        fraction = status.fraction
        if fraction is None:
            return _SECONDS
        if status.invalid or status.overflow:
            self._bury(device, watched, "Invalid" if status.invalid else "Overflow")
            return _SECONDS
        before, watched.status = watched.status, status
        now = time.monotonic()
        with self._lock:
            watched.history.add(now, status.allocated)
        if before is not None and status.total > before.total:
            watched.retry_at, watched.problem = 0.0, ""
            log.info(
                "Snapshot %s was extended from %s to %s.",
                device.name,
                display_size(before.total),
                display_size(status.total),
            )
        self._warn(device.name, watched, fraction)
        return self._extend_in_time(device, watched, status, now)

    def _warn(self, name: str, watched: _Watched, fraction: float) -> None:
        level = int(fraction * 100) // _STEP * _STEP
        if level > watched.warned:
            watched.retry_at = 0.0
            if level >= _WARN_FROM:
                log.warning(
                    "WARNING: Snapshot %s is now %.2f%% full%s.",
                    name,
                    fraction * 100,
                    _forecast(watched),
                )
        watched.warned = level

    def _extend_in_time(
        self, device: MappedDevice, watched: _Watched, status: SnapshotStatus, now: float
    ) -> float:
        """Seconds until the next look at it."""
        policy = self._policy()
        if not policy.extends:
            return _SECONDS
        if not policy.wants(100 * status.allocated / status.total):
            with self._lock:
                # More than the threshold: one that rests at it is not full soon.
                soon = watched.history.seconds_until(status.total * policy.threshold // 100 + 1)
            return _SECONDS if soon is None else min(max(soon, _SOON), _SECONDS)
        if _is_whole(self._mapper, device, status):
            return _SECONDS
        if watched.growing is None and now >= watched.retry_at:
            vg, lv, _ = split_dm_name(device.name)
            words = ("--use-policies", "--vguuid", vg_uuid_of(device.uuid), f"{vg}/{lv}")
            watched.growing = _Command(self._command("lvextend", *words))
            watched.retry_at = now + _RETRY_SECONDS
        return _SOON if watched.growing is not None else _SECONDS

    def _bury(self, device: MappedDevice, watched: _Watched, kind: str) -> None:
        """Each time until nothing is mounted on it. A command is told the place alone, and unmounts
        what is on top there: of two mounts the upper one first, and none that something covers."""
        if watched.dead or (watched.told and time.monotonic() < watched.retry_at):
            return
        name = device.name
        if not watched.told:
            watched.told, watched.retry_at = True, 0.0
            log.warning(
                "WARNING: Snapshot %s changed state to: %s and should be removed.", name, kind
            )
        places = self._mount_points(name)
        for where, on_top in places:
            if where in watched.unmounting or not on_top:
                continue
            command = self._command("umount", "--lazy", "--force", where)
            watched.unmounting[where] = _Command(command)
            if not watched.held:
                log.warning("Unmounting invalid snapshot %s from %s.", name, where)
        watched.dead = not places and not watched.unmounting

    def _see_to_commands(self, name: str, watched: _Watched) -> None:
        """What has ended, and how."""
        if watched.growing is not None:
            problem = watched.growing.problem()
            if problem is not None:
                watched.growing = None
                if problem and problem != watched.problem:
                    log.error("WARNING: Snapshot %s cannot be extended: %s", name, problem)
                watched.problem = problem
        for where, command in list(watched.unmounting.items()):
            problem = command.problem()
            if problem is not None:
                del watched.unmounting[where]
                if problem:
                    watched.retry_at = time.monotonic() + _RETRY_SECONDS
                    if problem != watched.held:
                        log.error("Failed to umount snapshot %s from %s: %s", name, where, problem)
                    watched.held = problem


def _status_of(mapper: LocalMapper, device: MappedDevice) -> SnapshotStatus | None:
    try:
        lines = mapper.status(device.name)
    except NotFoundError:
        return None
    return parse_snapshot_status(lines[0]) if lines else None


def _may_wait(device: MappedDevice) -> bool:
    """Whether who looks at it may wait at a gate: what was written to the origin is given its
    exceptions in all snapshots."""
    origins = {target.origin for target in device.targets if isinstance(target, SnapshotTarget)}
    cows = [cow for origin in origins for cow in origin.cows() if isinstance(cow, MappedDevice)]
    return rests_on_suspended(device) or any(c.suspended or rests_on_suspended(c) for c in cows)


def _is_whole(mapper: LocalMapper, device: MappedDevice, status: SnapshotStatus) -> bool:
    """Whether the COW has room for every chunk."""
    chunk = int(mapper.table(device.name)[0].params.split()[3])
    chunks = -(-device.size // SECTOR // chunk)
    return status.total >= store_chunks(chunks, chunk) * chunk


def _forecast(watched: _Watched) -> str:
    status = watched.status
    seconds = watched.history.seconds_until(status.total) if status else None
    return "" if seconds is None else f", and full in {seconds:.0f} s at the present rate"
