"""When exceptions become durable, and who waits for it.

Exceptions are added in order of allocation under the origin's lock. Whoever comes first to `settle`
commits all that is there: copies the old data that are not in the COW store yet, in runs of chunks
that follow each other there, then has the store write the exceptions. Those who waited for the
lock meanwhile find theirs committed. So n writers at once, or n writes that were staged
(`dm.stage`), pay two barriers, not 2n.

The old data can be copied that late because the origin does not change under a pending exception.
"""

from __future__ import annotations

import threading
from typing import Protocol

from ulvm.dm.exceptions.map import ExceptionMap
from ulvm.dm.exceptions.store import ExceptionStore, Run

__all__ = ["Committer", "GroupCommit"]


class Committer(Protocol):
    """The snapshot whose store it is."""

    def copy_runs(self, runs: list[Run]) -> None:
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

    def settle(self) -> None:
        """Return when everything added before this call is committed, or the store failed."""
        with self._commit_lock:
            with self._mutex:
                runs, self._runs = self._runs, []
                to_copy, self._to_copy = self._to_copy, []
            if not runs or self._broken:
                return
            try:
                if to_copy:
                    self.owner.copy_runs(to_copy)
                self._store.commit(runs)
            except Exception as error:  # of the device, or want of memory: they are not committed
                # Nothing is committed to this store any more: later records would follow a gap.
                # Whoever waits for us returns when the snapshot is invalid, on disk too.
                self._broken = True
                self.owner.commit_failed(error)
                return
            for run in runs:
                self._map.complete(run.old, run.chunks)
