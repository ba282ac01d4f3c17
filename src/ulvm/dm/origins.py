"""Who must be copied out before an origin changes: the snapshots of each origin device.

The kernel's `_origins` hash: one `Origin` per underlying device, with all snapshots built on
it. Every write that goes to the origin through a snapshot-origin or snapshot-merge target
first passes `protect`.

States of a chunk, per snapshot: NONE -> PENDING (data copied, exception allocated) -> DONE
(exception committed). Crash argument of an origin write (kernel: pending exceptions):

1. old data are written to the COW data chunk;
2. the exception is committed: flush, record, flush (dm.exceptions.persistent);
3. only then is the new data written to the origin.

A power cut before 2 leaves the origin unchanged, so the snapshot reads it there; after 2 it
reads the copy. With several snapshots step 3 waits for step 2 of all of them.

Locks: `Origin.lock` serialises allocation and copying for all snapshots of the origin (so
copies of one request, and allocation order, are in ascending order of sectors). Commits are
made outside of it, so that a commit of one writer carries the exceptions of all who copied
meanwhile (dm.commit). Readers take no lock: they look at the state, read, and look again.
"""

from __future__ import annotations

import errno
import threading
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from ulvm.blockdev.base import BlockDevice
from ulvm.errors import DeviceError

if TYPE_CHECKING:
    from ulvm.dm.cow import CowSnapshot
    from ulvm.dm.device import MappedDevice

__all__ = ["Origin", "OriginTable"]


class Origin:
    """One underlying device and its snapshots, the largest chunk size first.

    `guarded` is the tuple of snapshots that writes must be copied out to: active, valid and
    not merging; it is replaced as a whole, so the data path reads it without a lock.
    """

    def __init__(self, device: BlockDevice) -> None:
        self.device = device
        self.lock = threading.RLock()
        self.snapshots: list[CowSnapshot] = []
        self.guarded: tuple[CowSnapshot, ...] = ()
        self.writer: MappedDevice | None = None
        """The mapped device whose live table writes to the origin (snapshot-origin)."""

    def add(self, snapshot: CowSnapshot) -> None:
        with self.lock:
            self.snapshots.append(snapshot)
            self.update()

    def discard(self, snapshot: CowSnapshot) -> None:
        with self.lock:
            if snapshot in self.snapshots:
                self.snapshots.remove(snapshot)
            self.update()

    def cows(self) -> list[BlockDevice]:
        """Where writes to the origin are copied to. Without the lock: who holds it may wait at a
        suspended COW for what the caller is about to do."""
        return [snapshot.cow for snapshot in list(self.snapshots)]

    def update(self) -> None:
        """Call after anything that decides who is guarded has changed."""
        with self.lock:
            self.snapshots.sort(key=lambda s: -s.chunk_size)
            self.guarded = tuple(
                s for s in self.snapshots if s.active and s.valid and not s.merging
            )

    def sharing_cow(
        self, cow: BlockDevice
    ) -> tuple[CowSnapshot | None, CowSnapshot | None, CowSnapshot | None]:
        """(source, destination, merging): the active and the waiting snapshot with this COW,
        and the merging one of the origin (kernel: __find_snapshots_sharing_cow)."""
        source = destination = merging = None
        for snapshot in self.snapshots:
            if snapshot.merging:
                merging = snapshot
            if snapshot.cow is cow:
                if snapshot.active:
                    source = snapshot
                else:
                    destination = snapshot
        return source, destination, merging

    # -- the data path: flat on purpose -----------------------------------------------------

    def protect(self, offset: int, length: int) -> None:
        """Return when every guarded snapshot has its own copy of [offset, offset+length).

        A snapshot that cannot be given its copy turns invalid instead. DeviceError(ENXIO) when the
        origin was abandoned meanwhile (mapper.shutdown): then copies fail because devices go, and
        whoever is about to change the origin must not."""
        end = offset + length
        for snapshot in self.guarded:
            if offset < snapshot.length:
                last = (min(end, snapshot.length) - 1) >> snapshot.shift
                if not snapshot.map.all_done(offset >> snapshot.shift, last):
                    self._copy_out(offset, end)
                    return

    def _copy_out(self, offset: int, end: int) -> None:
        waits: list[CowSnapshot] = []
        with self.lock:
            for snapshot in self.guarded:
                if snapshot.valid and offset < snapshot.length:
                    last = (min(end, snapshot.length) - 1) >> snapshot.shift
                    first = offset >> snapshot.shift
                    if not snapshot.map.all_done(first, last):
                        snapshot.copy_out(first, last)
                        waits.append(snapshot)
        for snapshot in waits:
            snapshot.commit_pending()
        writer = self.writer
        if writer is not None and writer.removed:
            raise DeviceError(f"device {writer.name} is gone", errno=errno.ENXIO)


class OriginTable:
    """The origins of one mapper, by the identity of their device object.

    An origin is there as long as a target refers to it: all targets of one device must share one,
    or writes would pass by the snapshots. So the table holds it weakly; an origin holds its device,
    whose identity is not given to another meanwhile.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._origins: WeakValueDictionary[int, Origin] = WeakValueDictionary()

    def get(self, device: BlockDevice) -> Origin:
        with self._lock:
            origin = self._origins.get(id(device))
            if origin is None:
                origin = self._origins[id(device)] = Origin(device)
            return origin
