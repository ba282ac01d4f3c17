"""What stands under and beside a life of `tests.crash.staged_life`: its disks, what each of its
devices may hold, and the hand that moves what else moves by itself."""

from __future__ import annotations

import errno
import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.crash.engine import Tokens, Unsafe
from tests.unit.dm.stage_lab import StageLab, Watched
from ulvm.blockdev.base import BlockDevice, Buffer
from ulvm.blockdev.file import FileDevice
from ulvm.dm import stage
from ulvm.dm.stage import Stage
from ulvm.dm.stage_file import PAGE
from ulvm.dm.targets import merge
from ulvm.dm.targets.merge import MergeTarget

__all__ = ["Content", "Disk", "DiskLab", "Snapshot", "by_hand", "one_batch"]

one_batch = MergeTarget._run
"""Behind `by_hand`: what a merge's worker does until it lets others through."""


class _Unsynced(FileDevice):
    """What is durable its `Disk` knows, and no power is cut."""

    def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
        super().write(offset, data)

    def flush(self) -> None:
        """At once."""


class Disk(Watched):
    """Knows what it would hold if the power went: `durable`."""

    def __init__(self, inner: BlockDevice) -> None:
        super().__init__(inner)
        self.durable = bytearray(inner.read(0, inner.size))
        self._unflushed: list[tuple[int, int]] = []

    def _write(self, offset: int, data: Buffer, *, fua: bool) -> None:
        super()._write(offset, data, fua=fua)
        if fua:
            self.durable[offset : offset + len(data)] = data
        else:
            self._unflushed.append((offset, len(data)))

    def write_zeroes(
        self, offset: int, length: int, *, no_hole: bool = False, fua: bool = False
    ) -> None:
        super().write_zeroes(offset, length, no_hole=no_hole, fua=fua)
        self._unflushed.append((offset, length))

    def flush(self) -> None:
        written, self._unflushed = self._unflushed, []
        try:
            super().flush()
        except BaseException:
            self._unflushed += written
            raise
        for offset, length in written:
            self.durable[offset : offset + length] = self.inner.read(offset, length)


class DiskLab(StageLab):
    """Its disks are such."""

    def _open(self, path: str, writable: bool) -> BlockDevice:
        device = self.faults[Path(path).name] = Disk(_Unsynced(path, writable=writable))
        return device


class Content:
    """Of each sector the newest token, and where a write was refused the others it may hold."""

    def __init__(self, tokens: Tokens, others: dict[int, set[int]] | None = None) -> None:
        self.newest = tokens.copy()
        self.others = {sector: set(may) for sector, may in (others or {}).items()}

    @property
    def sectors(self) -> int:
        return self.newest.size

    def copy(self) -> Content:
        return Content(self.newest, self.others)

    def written(self, sector: int, tokens: Tokens) -> None:
        self.newest[sector : sector + tokens.size] = tokens
        for at in range(sector, sector + tokens.size):
            self.others.pop(at, None)

    def refused(self, sector: int, tokens: Tokens) -> None:
        for at, token in enumerate(tokens.tolist(), sector):
            self.others.setdefault(at, set()).add(token)

    def grown(self, behind: Content) -> None:
        """By what the origin has behind the end."""
        end = self.sectors
        self.newest = np.concatenate((self.newest, behind.newest[end:]))
        self.others.update({s: set(may) for s, may in behind.others.items() if s >= end})

    def check(self, what: str, sector: int, found: Tokens) -> None:
        """Unsafe if it is not that."""
        wanted = self.newest[sector : sector + found.size]
        for at in (np.flatnonzero(found != wanted) + sector).tolist():
            token = int(found[at - sector])
            if token not in self.others.get(at, ()):
                may = [int(self.newest[at]), *self.others.get(at, ())]
                raise Unsafe(f"{what}: sector {at} holds {token}, not one of {may}")


@dataclass
class Snapshot:
    chunk: int
    kind: str
    content: Content
    dead: bool = False
    """It has been seen to be invalid."""
    marked: bool = False
    """Its disk said so at once."""
    taken: set[int] = field(default_factory=set)
    """Chunks that may have got an exception so far."""
    room: int = 0
    """For so many."""

    def chunks(self, sector: int, count: int) -> range:
        return range(sector // self.chunk, (sector + count - 1) // self.chunk + 1)


@contextmanager
def by_hand(choose: random.Random) -> Iterator[None]:
    """Nothing is committed and no batch merged but in a step of a life; batches are small, and a
    stage grows by little, and sometimes not."""
    allocate = stage.allocate

    def no_thread(self: Stage) -> None:
        self._thread = threading.current_thread()

    def sometimes(*args: Any) -> None:
        if choose.random() < 0.05:
            raise OSError(errno.ENOSPC, "no room")
        allocate(*args)

    def leave(self: Stage) -> None:
        """The file of a process that was killed."""
        if getattr(self, "_fd", -1) >= 0:
            os.close(self._fd)

    def stop(self: MergeTarget) -> None:
        self._stop.set()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stage, "_start", no_thread)
        patch.setattr(Stage, "__del__", leave, raising=False)
        patch.setattr(stage, "_GROW_PAGES", 64)
        patch.setattr(stage, "allocate", sometimes)
        patch.setattr(MergeTarget, "_run", lambda self: None)
        patch.setattr(MergeTarget, "_let_writers_through", stop)
        patch.setattr(merge, "_BATCH_BYTES", 8 * PAGE)
        yield
