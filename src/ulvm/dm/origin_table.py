"""The origins of one mapper: the kernel's `_origins` hash (drivers/md/dm-snap.c)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from weakref import WeakValueDictionary

from ulvm.blockdev.base import BlockDevice
from ulvm.dm.origins import Origin
from ulvm.dm.stage_file import StageSettings

__all__ = ["OriginTable"]


class OriginTable:
    """One `Origin` per underlying device, with all snapshots built on it, by the identity of the
    device object.

    An origin is there as long as a target refers to it: all targets of one device must share one,
    or writes would pass by the snapshots. So the table holds it weakly; an origin holds its device,
    whose identity is not given to another meanwhile.
    """

    def __init__(self, settings: StageSettings, log: Callable[[str], None]) -> None:
        self._settings = settings
        self._log = log
        self._lock = threading.Lock()
        self._origins: WeakValueDictionary[int, Origin] = WeakValueDictionary()

    def get(self, device: BlockDevice) -> Origin:
        with self._lock:
            origin = self._origins.get(id(device))
            if origin is None:
                origin = self._origins[id(device)] = Origin(device, self._settings, self._log)
            return origin
