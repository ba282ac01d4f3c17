"""Watches how full snapshots are: the part that dmeventd's snapshot plugin plays for LVM2.

Every few seconds the status of each snapshot is looked at, in process, without I/O. From 80 % on
each further 5 % is logged. With `activation/snapshot_autoextend_threshold` below 100 (at least
50), `ulvm lvextend --use-policies vg/lv` is started when a snapshot is fuller than that: a
process of its own, since it needs the VG's lock and this thread must never wait for one.
An invalid snapshot is said once; it is not removed.

What goes wrong with one snapshot (a dm name that is not LVM's, a process that cannot be started) is
logged, once while it stays the same, and tried again at the next look; the others are looked at.
"""

from __future__ import annotations

import logging
import subprocess
import threading
import time
from collections.abc import Callable, Sequence

from ulvm.activation.names import is_top_level, split_dm_name
from ulvm.activation.status import SnapshotStatus, parse_snapshot_status
from ulvm.daemon.commands import end_commands, start_command
from ulvm.dm.mapper import LocalMapper
from ulvm.errors import NotFoundError

__all__ = ["Monitor"]

log = logging.getLogger(__name__)

_SECONDS = 2.0
_WARN_FROM = 80
_STEP = 5
_MIN_THRESHOLD = 50


class Monitor:
    """`command(*words)` gives the argv of an ulvm command; `threshold` in per cent."""

    def __init__(
        self, mapper: LocalMapper, *, threshold: int, command: Callable[..., Sequence[str]]
    ) -> None:
        self._mapper = mapper
        self._threshold = max(threshold, _MIN_THRESHOLD)
        self._command = command
        self._stop = threading.Event()
        self._warned: dict[str, int] = {}
        self._growing: dict[str, subprocess.Popen[bytes]] = {}
        self._seen: dict[str, tuple[float, int]] = {}
        self._failed: dict[str, str] = {}
        self._thread = threading.Thread(target=self._run, name="monitor", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """The commands under way are ended as well: what they extend is taken down next."""
        self._stop.set()
        self._thread.join()
        end_commands(self._growing.values())

    def _run(self) -> None:
        while not self._stop.wait(_SECONDS):
            self._look()

    def _look(self) -> None:
        names = set()
        for device in self._mapper.all_mapped():
            if device.live is None or not is_top_level(device.uuid):
                continue
            name = device.name
            names.add(name)
            try:
                self._look_at(name)
                self._failed.pop(name, None)
            except NotFoundError:
                continue  # removed a moment ago
            except Exception as error:  # the thread must not end of it: all growth would
                if self._failed.get(name) != repr(error):
                    self._failed[name] = repr(error)
                    log.exception("cannot watch %s", name)
        for about in (self._warned, self._seen, self._failed):
            for gone in set(about) - names:
                del about[gone]
        for name, process in list(self._growing.items()):
            if process.poll() is not None:
                del self._growing[name]
                if process.returncode:
                    log.error("extending %s failed, exit code %d", name, process.returncode)

    def _look_at(self, name: str) -> None:
        lines = self._mapper.status(name)
        status = parse_snapshot_status(lines[0]) if lines else None
        if status is not None and not status.merging:
            self._judge(name, status)

    def _judge(self, name: str, status: SnapshotStatus) -> None:
        fraction = status.fraction
        if fraction is None:
            return
        percent = int(fraction * 100)
        if status.invalid or status.overflow:
            if self._warned.get(name) != 101:
                self._warned[name] = 101
                kind = "Invalid" if status.invalid else "Overflow"
                log.warning(
                    "WARNING: Snapshot %s changed state to: %s and should be removed.", name, kind
                )
            return
        level = percent // _STEP * _STEP
        if level >= _WARN_FROM and level > self._warned.get(name, 0):
            log.warning(
                "WARNING: Snapshot %s is now %.2f%% full%s.",
                name,
                fraction * 100,
                self._forecast(name, status),
            )
        self._warned[name] = level
        self._seen[name] = (time.monotonic(), status.allocated)
        if self._threshold < 100 and percent > self._threshold and name not in self._growing:
            self._extend(name)

    def _forecast(self, name: str, status: SnapshotStatus) -> str:
        """When it will be full if it goes on as since the last look."""
        before = self._seen.get(name)
        if before is None or status.allocated <= before[1]:
            return ""
        rate = (status.allocated - before[1]) / max(time.monotonic() - before[0], 1e-3)
        seconds = (status.total - status.allocated) / rate
        return f", and full in {seconds:.0f} s at the present rate"

    def _extend(self, name: str) -> None:
        vg, lv, _ = split_dm_name(name)
        argv = self._command("lvextend", "--use-policies", f"{vg}/{lv}")
        log.info("extending snapshot %s/%s", vg, lv)
        self._growing[name] = start_command(argv)
