"""How snapshots are extended before they are full (lvm.conf(5), section activation).

    activation/snapshot_autoextend_threshold  when it is so many per cent full; 50 is the least,
                                              100 is never
    activation/snapshot_autoextend_percent    by so many per cent of its size

LVM2 has 100 for the threshold where nothing is set, so that a snapshot overflows unless somebody
thought of it; here it is 70.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path

from ulvm.errors import UlvmError
from ulvm.vgstore.config import CONFIG_FILES, Config
from ulvm.vgstore.host import Host

__all__ = ["DEFAULT_PERCENT", "DEFAULT_THRESHOLD", "PolicyFile", "SnapshotPolicy"]

log = logging.getLogger(__name__)

DEFAULT_THRESHOLD = 70
DEFAULT_PERCENT = 20
_MIN_THRESHOLD = 50
_NEVER = 100


@dataclass(frozen=True, slots=True)
class SnapshotPolicy:
    """Both in per cent."""

    threshold: int = DEFAULT_THRESHOLD
    percent: int = DEFAULT_PERCENT

    @classmethod
    def of(cls, config: Config) -> SnapshotPolicy:
        """UsageError for a value that is no number."""
        threshold = config.get_int("activation/snapshot_autoextend_threshold", DEFAULT_THRESHOLD)
        percent = config.get_int("activation/snapshot_autoextend_percent", DEFAULT_PERCENT)
        return cls(max(threshold, _MIN_THRESHOLD), percent)

    @property
    def extends(self) -> bool:
        return self.threshold < _NEVER

    def wants(self, full: float) -> bool:
        """Whether a COW that is so many per cent full is to be extended."""
        return self.extends and full > self.threshold

    def wanted(self, extents: int, full: float) -> int:
        """The new size in extents of a COW: larger by the step, and as much as leaves it no fuller
        than the threshold."""
        # Hundredths of a per cent, as the fullness is shown.
        needed = -(-extents * int(full * 100) // (self.threshold * 100))
        return max(extents + -(-extents * self.percent // 100), needed)


class PolicyFile:
    """The policy of a host for who lives long: read anew when ulvm.conf has changed. Settings that
    cannot be read are logged, and those before stay. Threads may share it: both would read the
    same."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._seen = self._stamp()
        self._policy = SnapshotPolicy.of(host.config)

    def policy(self) -> SnapshotPolicy:
        stamp = self._stamp()
        if stamp != self._seen:
            self._seen = stamp
            try:
                host = self._host.with_settings(self._host.overrides)
                self._policy = SnapshotPolicy.of(host.config)
            except UlvmError as error:
                log.error("settings are not read anew: %s", error.message)
        return self._policy

    def _stamp(self) -> list[tuple[int, int, int] | None]:
        return [_stamp(self._host.system_dir / name) for name in CONFIG_FILES]


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
