"""When exceptions become durable, and who waits for it.

`GroupCommit` is the kernel's behaviour (a stage of 0): a writer waits until its own exceptions
are committed. It is also the seam at which the in-memory stage takes its place: a stage keeps
the new data of first writes and lets `settle` return at once, commits on flush, FUA, a full
stage or a timer, and only then passes the data to the origin; targets call nothing but
`add`, `settle` and `flush`.

Group commit: exceptions are added in order of allocation under the origin's lock; whoever
comes first to `settle` commits all that is there, and those who waited for the lock
meanwhile find theirs committed. So n writers at once pay two barriers, not 2n.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from ulvm.dm.exceptions.map import ExceptionMap
from ulvm.dm.exceptions.store import ExceptionStore, Run

__all__ = ["GroupCommit"]


class GroupCommit:
    """The uncommitted exceptions of one store. `failed` is called once when a commit failed."""

    def __init__(
        self,
        store: ExceptionStore,
        exceptions: ExceptionMap,
        failed: Callable[[Exception], None],
    ) -> None:
        self._store = store
        self._map = exceptions
        self._failed = failed
        self._commit_lock = threading.Lock()
        self._mutex = threading.Lock()
        self._pending: list[Run] = []
        self._broken = False

    def owner(self, failed: Callable[[Exception], None]) -> None:
        """The snapshot to invalidate is another one now (handover)."""
        self._failed = failed

    def add(self, run: Run) -> None:
        """Under the origin's lock, after the data of the run were written to the COW."""
        with self._mutex:
            self._map.insert_pending(run.old, run.new, run.chunks)
            self._pending.append(run)

    def settle(self) -> None:
        """Return when everything added before this call is committed, or the store failed."""
        with self._commit_lock:
            with self._mutex:
                runs, self._pending = self._pending, []
            if not runs or self._broken:
                return
            try:
                self._store.commit(runs)
            except Exception as error:  # of the device, or want of memory: they are not committed
                # Nothing is committed to this store any more: later records would follow a gap.
                # Whoever waits for us returns when the snapshot is invalid, on disk too.
                self._broken = True
                self._failed(error)
                return
            for run in runs:
                self._map.complete(run.old, run.chunks)
