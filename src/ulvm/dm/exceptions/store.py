"""What a snapshot asks of its exception store (the kernel's dm-exception-store.h)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from ulvm.blockdev.base import BlockDevice
from ulvm.dm.exceptions.map import ExceptionMap

__all__ = ["ExceptionStore", "Run", "Runs", "Usage"]


class Run(NamedTuple):
    """`chunks` chunks from origin chunk `old` on, stored from COW chunk `new` on."""

    old: int
    new: int
    chunks: int


Runs: TypeAlias = npt.NDArray[np.int64]
"""Many of them, a row for each: what is done once a chunk had better not be done in Python."""


class Usage(NamedTuple):
    """The numbers of the status line, in sectors."""

    allocated: int
    total: int
    metadata: int


class ExceptionStore(ABC):
    """Allocation is called under the origin's lock, commits under the store's commit lock.

    `chunk_size` in sectors is known after `open`.
    """

    type_letters: str
    can_merge = False
    cow: BlockDevice
    chunk_size: int
    overflow_support = False

    @abstractmethod
    def open(self) -> None:
        """Read or write the header, so that `chunk_size` is known. TableError when refused."""

    @abstractmethod
    def load(self, exceptions: ExceptionMap) -> bool:
        """Fill the map; False if the store is marked invalid on disk."""

    @abstractmethod
    def allocate(self, count: int) -> list[tuple[int, int]]:
        """Up to `count` COW chunks as (first, how many) runs; fewer in all when room ends."""

    @abstractmethod
    def has_room(self, count: int) -> bool:
        """Whether so many chunks are to be had for sure. Takes no lock."""

    # A commit: prepare, barrier, write_records, barrier. DeviceError if any of them failed: the
    # caller then invalidates the snapshot. More may be prepared before the next step.

    @abstractmethod
    def prepare(self, runs: Runs) -> None:
        """Get ready to make these exceptions (in order of allocation) last; their data were
        written before."""

    @abstractmethod
    def write_records(self) -> None:
        """Of all that was prepared; a barrier came after that."""

    @abstractmethod
    def barrier(self) -> None:
        """Return when what was written to the COW is durable, if barriers are wanted."""

    @abstractmethod
    def usage(self) -> Usage:
        """As it will be when all that is allocated is committed. Takes no lock."""

    @abstractmethod
    def mark_invalid(self) -> None:
        """Invalidate on disk as well. DeviceError if that cannot be written."""

    def prepare_merge(self, limit: int) -> list[Run]:
        """The last committed exceptions, the last one first, as runs of at most
        `limit` chunks in all; [] when none are left. Runs ascend within themselves."""
        raise NotImplementedError

    def next_merge(self, count: int, limit: int) -> list[Run]:
        """What `prepare_merge` will give once the last `count` records are cleared. TableError, as
        from that."""
        raise NotImplementedError

    def commit_merge(self, count: int) -> None:
        """Clear the last `count` records on disk, after their data are safe in the origin."""
        raise NotImplementedError
