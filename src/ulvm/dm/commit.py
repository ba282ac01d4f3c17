"""When exceptions become durable, and who waits for it.

Exceptions are added in order of allocation under the origin's lock. Whoever comes first to
`settle` commits all that is there, in four steps: the old data that are not in the COW store yet
are copied, in runs of chunks that follow each other there; a flush; the records; a flush. Those who
come meanwhile find theirs committed. So n writers at once, or n writes that were staged
(`dm.stage`), pay two barriers, not 2n.

The old data can be copied that late because the origin does not change under a pending exception.

Several snapshots of an origin take each step together: they share what the first of them read
(`OldData`), and where their COWs lie in one file its flush serves all, for a file that was not
written to since is not flushed again. A snapshot's lock is held for its own part of one step alone,
so a COW that is suspended holds up nobody who does not need it; what a step does is for all that
is at that stage by then, whoever began it. The order of a store is kept by its own state: no
record is written before a flush that came after its data (`_safe`), and nothing is complete before
a flush that came after its record.
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import numpy as np

from ulvm.dm.copies import OldData
from ulvm.dm.exceptions.map import ExceptionMap, Numbers, runs_of
from ulvm.dm.exceptions.store import ExceptionStore, Run, Runs

__all__ = ["Committer", "GroupCommit", "settle"]

_NO_RUNS: Runs = np.zeros((0, 3), dtype=np.int64)


def _table(rows: array[int]) -> Runs:
    return np.frombuffer(rows, dtype=np.int64).reshape(-1, 3) if rows else _NO_RUNS


class Committer(Protocol):
    """The snapshot whose store it is."""

    @property
    def lock(self) -> threading.RLock:
        """The origin's: under it chunks become DONE."""

    def copy_runs(self, runs: Runs, shared: OldData | None) -> None:
        """Old data of the origin to the COW. DeviceError."""

    def commit_failed(self, error: Exception) -> None:
        """Nothing is committed to this store any more."""


class GroupCommit:
    """The uncommitted exceptions of one store."""

    def __init__(self, store: ExceptionStore, exceptions: ExceptionMap, owner: Committer) -> None:
        self._store = store
        self._map = exceptions
        self.owner = owner
        """Another snapshot after a handover."""
        self._commit_lock = threading.Lock()
        self._mutex = threading.Lock()
        self._runs = array("q")
        self._to_copy = array("q")
        """Rows of `Runs`."""
        self._prepared = _NO_RUNS
        """Their data are in the COW, flushed if `_safe`; the store has their records ready."""
        self._safe = True
        self._recorded = _NO_RUNS
        self._broken = False

    def add(self, run: Run, *, copied: bool) -> None:
        """Under the origin's lock. `copied`: the data of the run are in the COW already. All of it,
        or nothing and an error: a chunk that is PENDING and in no run would never be committed."""
        with self._mutex:
            runs, to_copy = len(self._runs), len(self._to_copy)
            try:
                self._runs.extend(run)
                if not copied:
                    self._to_copy.extend(run)
                self._map.insert_pending(run.old, run.new, run.chunks)
            except BaseException:
                del self._runs[runs:], self._to_copy[to_copy:]
                raise

    def add_each(self, old: Numbers, new: Numbers) -> None:
        """As `add`, for many chunks whose data are not copied."""
        added = array("q", runs_of(old, new).tobytes())
        with self._mutex:
            runs, to_copy = self._runs + added, self._to_copy + added
            self._map.insert_pending_each(old, new)
            self._runs, self._to_copy = runs, to_copy

    @property
    def pending(self) -> bool:
        """Whether any wait for a commit that has not begun."""
        return bool(self._runs)

    def copy(self, shared: OldData | None) -> None:
        """The first step."""
        with self._commit_lock, self._unbroken():
            with self._mutex:
                none = array("q"), array("q")
                runs, to_copy = _table(self._runs), _table(self._to_copy)
                self._runs, self._to_copy = none
            if runs.size and not self._broken:
                if to_copy.size:
                    self.owner.copy_runs(to_copy, shared)
                self._store.prepare(runs)
                self._safe = False
                self._prepared = np.concatenate((self._prepared, runs))

    def flush(self) -> None:
        """The second step."""
        with self._commit_lock:
            if self._prepared.size:
                with self._unbroken():
                    self._make_safe()

    def _make_safe(self) -> None:
        if not self._safe:
            self._store.barrier()
            self._safe = True

    def record(self) -> None:
        """The third step."""
        with self._commit_lock:
            if self._prepared.size:
                with self._unbroken():
                    self._make_safe()
                    self._store.write_records()
                    self._recorded = np.concatenate((self._recorded, self._prepared))
                    self._prepared = _NO_RUNS

    def complete(self) -> None:
        """The fourth step."""
        with self._commit_lock:
            if self._recorded.size:
                with self._unbroken():
                    self._store.barrier()
                    with self.owner.lock:
                        self._map.complete(self._recorded[:, 0], self._recorded[:, 2])
                    self._recorded = _NO_RUNS

    @contextmanager
    def _unbroken(self) -> Iterator[None]:
        """Nothing is committed to a store of which a commit failed: later records would follow a
        gap. Whoever waits for us returns when the snapshot is invalid, on disk too."""
        try:
            yield
        except Exception as error:  # of the device, or want of memory: they are not committed
            self._broken = True
            self._prepared = self._recorded = _NO_RUNS
            told = None
            while told is not self.owner:  # who takes over meanwhile took it for valid
                told = self.owner
                told.commit_failed(error)


def settle(commits: Sequence[GroupCommit]) -> None:
    """Return when everything added to any of them before this call is committed, or its store
    failed."""
    shared = OldData() if len(commits) > 1 else None
    for commit in commits:
        commit.copy(shared)
    for commit in commits:
        commit.flush()
    for commit in commits:
        commit.record()
    for commit in commits:
        commit.complete()
