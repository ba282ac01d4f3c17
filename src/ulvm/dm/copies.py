"""Old data of an origin to a COW: the first step of a commit (dm.commit).

What follows each other in the COW goes out in one write, of at most `_COPY_BYTES`. Where there are
several, another thread reads what the next one takes meanwhile: a write past the page cache waits
for the disk, reading waits for the processor. Order means nothing among them, as the origin does
not change under any, and a flush comes behind them all.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, suppress
from queue import SimpleQueue

import numpy as np

import ulvm.blockdev.aio  # noqa: F401  # not at the first copy, when files may be used up
from ulvm.blockdev.base import BlockDevice
from ulvm.dm.exceptions.map import anonymous
from ulvm.dm.exceptions.store import Runs
from ulvm.errors import TableError

__all__ = ["OldData", "copy_runs"]

_COPY_BYTES = 1 << 20
_LEAST_SHIFT = 12
"""Smaller chunks lie between so many metadata areas that a write of them is not worth a thread."""
_MOST_SHARED = 64 << 20
_local = threading.local()
"""`scratch`: what a thread copies through."""

_Batch = tuple[int, list[tuple[int, int]]]
"""Of one write: where in the COW, and (offset, length) of its parts in the origin."""
_Filled = tuple[int, memoryview]
"""Where in the COW, and the data."""


class OldData:
    """What the first of several snapshots read of the origin, for those after it that are given the
    same chunks: `runs` are its runs of chunks of 1 << `shift` bytes, `data` theirs, one after the
    other. The origin does not change under any of them until all are committed."""

    def __init__(self) -> None:
        self._shift = 0
        self._runs: Runs = np.zeros((0, 3), dtype=np.int64)
        self._data = memoryview(b"")

    @staticmethod
    def room(shift: int, runs: Runs, size: int) -> memoryview | None:
        """For their data; None if there is none, or they do not end within the origin's `size`."""
        if int((runs[:, 0] + runs[:, 2]).max()) > size >> shift:
            return None
        length = int(runs[:, 2].sum()) << shift
        with suppress(TableError):  # no memory for it
            return memoryview(anonymous(length)) if length <= _MOST_SHARED else None
        return None

    def keep(self, shift: int, runs: Runs, data: memoryview) -> None:
        """All of it has been read."""
        self._shift, self._runs, self._data = shift, runs, data

    def find(self, shift: int, runs: Runs) -> memoryview | None:
        """The data of all these runs, if they are there."""
        same = shift == self._shift and np.array_equal(runs[:, ::2], self._runs[:, ::2])
        return self._data if same else None


def copy_runs(
    source: BlockDevice, cow: BlockDevice, shift: int, runs: Runs, shared: OldData | None = None
) -> None:
    """Chunks of 1 << `shift` bytes; the last one of the source may be short. DeviceError of
    either device, with nothing under way any more: a write that fails waits for the read behind it.
    """
    size = source.size
    batches = list(_batches(shift, runs, size))
    data = room = None
    if shared is not None:
        data = shared.find(shift, runs)
        room = shared.room(shift, runs, size) if data is None else None
    kept = room if data is None else data
    reader = source if data is None else None
    filled = _filled(reader, batches, _scratch() if kept is None else kept, keep=kept is not None)
    if reader is not None and len(batches) > 1 and shift >= _LEAST_SHIFT:
        filled = _read_ahead(filled)
    with closing(filled):
        for place, piece in filled:
            cow.write_uncached(place, piece)
    if shared is not None and room is not None:
        shared.keep(shift, runs, room)


def _batches(shift: int, runs: Runs, size: int) -> Iterator[_Batch]:
    """`size`: that of the origin."""
    begin = total = 0
    parts: list[tuple[int, int]] = []
    for old, new, count in runs.tolist():
        start, place = old << shift, new << shift
        left = min(count << shift, size - start)
        while left > 0:
            length = min(left, _COPY_BYTES)
            if parts and (place != begin + total or total + length > _COPY_BYTES):
                yield begin, parts
                total, parts = 0, []
            if not parts:
                begin = place
            parts.append((start, length))
            total += length
            start, place, left = start + length, place + length, left - length
    if parts:
        yield begin, parts


def _filled(
    source: BlockDevice | None, batches: Sequence[_Batch], memory: memoryview, *, keep: bool
) -> Generator[_Filled, None, None]:
    """Each is read when it is asked for; where the last but one was, if they are not to be kept.
    Without a source they are there, one after the other."""
    start = 0
    for number, (place, parts) in enumerate(batches):
        if not keep:
            start = (number & 1) * _COPY_BYTES
        position, pieces = start, []
        for offset, length in parts:
            pieces.append((offset, memory[position : position + length]))
            position += length
        if source is not None:
            source.readinto_each(pieces)
        yield place, memory[start:position]
        start = position


def _read_ahead(items: Iterator[_Filled]) -> Generator[_Filled, None, None]:
    """The same, each read by another thread while the one before is used; never more than that."""
    ready: SimpleQueue[_Filled | BaseException | None] = SimpleQueue()
    more: SimpleQueue[bool] = SimpleQueue()

    def read() -> None:
        try:
            for item in items:
                ready.put(item)
                if not more.get():
                    return
            ready.put(None)
        except BaseException as error:
            ready.put(error)

    thread = threading.Thread(target=read, name="ulvm-copy", daemon=True)
    try:
        thread.start()
    except (RuntimeError, MemoryError):  # no more threads
        yield from items
        return
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            more.put(True)
            yield item
    finally:
        item = None  # an error would hold this frame, with its buffers, and this frame the error
        more.put(False)
        thread.join()


def _scratch() -> memoryview:
    """For two batches. A thread's own: several snapshots are committed at a time."""
    scratch: memoryview | None = getattr(_local, "scratch", None)
    if scratch is None:
        scratch = _local.scratch = memoryview(anonymous(2 * _COPY_BYTES))
    return scratch
