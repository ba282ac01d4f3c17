"""When exceptions become durable, and who waits for it.

Exceptions are added in order of allocation under the origin's lock. Whoever comes first to `settle`
commits all that is there: copies the old data that are not in the COW store yet, in runs of chunks
that follow each other there, then has the store write the exceptions. Those who waited for the
lock meanwhile find theirs committed. So n writers at once, or n writes that were staged
(`dm.stage`), pay two barriers, not 2n.

The old data can be copied that late because the origin does not change under a pending exception.
Snapshots that are settled one after the other share what was read of it (`OldData`).
"""

from __future__ import annotations

import threading
from typing import Protocol

from ulvm.dm.exceptions.map import ExceptionMap, anonymous
from ulvm.dm.exceptions.store import ExceptionStore, Run

__all__ = ["Committer", "GroupCommit", "OldData"]

_MOST_SHARED = 64 << 20


class OldData:
    """What the first of several snapshots read of the origin, for those after it that are given the
    same chunks: `runs` are its runs of chunks of 1 << `shift` bytes, `data` theirs, one after the
    other. The origin does not change under any of them until all are committed."""

    def __init__(self) -> None:
        self._shift = 0
        self._olds: list[tuple[int, int]] = []
        self._data = memoryview(b"")

    @staticmethod
    def room(shift: int, runs: list[Run]) -> memoryview | None:
        """For their data; None if they are too much."""
        size = sum(run.chunks for run in runs) << shift
        return memoryview(anonymous(size)) if size <= _MOST_SHARED else None

    def keep(self, shift: int, runs: list[Run], data: memoryview) -> None:
        """All of it has been read."""
        self._shift, self._olds = shift, [(run.old, run.chunks) for run in runs]
        self._data = data

    def find(self, shift: int, runs: list[Run]) -> memoryview | None:
        """The data of all these runs, if they are there."""
        if shift != self._shift or [(run.old, run.chunks) for run in runs] != self._olds:
            return None
        return self._data


class Committer(Protocol):
    """The snapshot whose store it is."""

    def copy_runs(self, runs: list[Run], shared: OldData | None) -> None:
        """Old data of the origin to the COW. DeviceError."""

    def commit_failed(self, error: Exception) -> None:
        """Called once: nothing is committed to this store any more."""


class GroupCommit:
    """The uncommitted exceptions of one store."""

    def __init__(self, store: ExceptionStore, exceptions: ExceptionMap, owner: Committer) -> None:
        self._store = store
        self._map = exceptions
        self.owner = owner
        """Another snapshot after a handover."""
        self._commit_lock = threading.Lock()
        self._mutex = threading.Lock()
        self._runs: list[Run] = []
        self._to_copy: list[Run] = []
        self._broken = False

    def add(self, run: Run, *, copied: bool) -> None:
        """Under the origin's lock. `copied`: the data of the run are in the COW already."""
        with self._mutex:
            self._map.insert_pending(run.old, run.new, run.chunks)
            self._runs.append(run)
            if not copied:
                self._to_copy.append(run)

    @property
    def pending(self) -> bool:
        """Whether any wait for a commit that has not begun."""
        return bool(self._runs)

    def settle(self, shared: OldData | None = None) -> None:
        """Return when everything added before this call is committed, or the store failed.
        `shared`: with other snapshots of the origin that are settled with this one."""
        with self._commit_lock:
            with self._mutex:
                runs, self._runs = self._runs, []
                to_copy, self._to_copy = self._to_copy, []
            if not runs or self._broken:
                return
            try:
                if to_copy:
                    self.owner.copy_runs(to_copy, shared)
                self._store.commit(runs)
            except Exception as error:  # of the device, or want of memory: they are not committed
                # Nothing is committed to this store any more: later records would follow a gap.
                # Whoever waits for us returns when the snapshot is invalid, on disk too.
                self._broken = True
                self.owner.commit_failed(error)
                return
            for run in runs:
                self._map.complete(run.old, run.chunks)
