"""Work on many items in threads, results in order, memory bounded.

zstd, hashing, sockets and files all release the interpreter lock, so threads use the cores. At
most `window` items are under way or waiting for their turn; that bounds memory and is what lets
reading run ahead. The consumer is the calling thread, so that a signal (Ctrl-C) interrupts the
whole, and the first error of a worker surfaces where its item would have come.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import Generic, TypeVar

from ulvm.backup.interrupts import deferred
from ulvm.blockdev.base import BlockDevice

__all__ = [
    "BufferPool",
    "DevicePool",
    "Progress",
    "SerialWorker",
    "Stage",
    "in_order",
    "no_stage",
]

Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in all."""

Stage = Callable[[str], AbstractContextManager[Progress]]
"""Begins a stage that takes a while; gives what to tell the progress to."""

T = TypeVar("T")
R = TypeVar("R")


@contextmanager
def no_stage(_name: str) -> Iterator[Progress]:
    """A stage that nobody watches."""
    yield lambda _done, _total: None


def in_order(
    items: Iterable[T], work: Callable[[T], R], *, threads: int, window: int
) -> Generator[R, None, None]:
    """Results of `work` for every item, in the order of the items.

    Closing the generator early waits for the items that are being worked on.
    """
    pending: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="ulvm-backup")
    try:
        for item in items:
            pending.append(pool.submit(work, item))
            if len(pending) >= window:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        with deferred():  # what the threads use is closed next
            pool.shutdown(wait=True, cancel_futures=True)


class SerialWorker(Generic[T]):
    """One thread that handles what it is given in order, at most `depth` behind.

    `put` and `finish` raise the handler's error; after an error nothing more is handled.
    Used from one thread.
    """

    def __init__(self, handler: Callable[[T], None], *, depth: int, name: str) -> None:
        self._handler = handler
        self._queue: queue.Queue[T | None] = queue.Queue(depth)
        self._error: BaseException | None = None
        self._finished = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            if self._error is None:
                try:
                    self._handler(item)
                except BaseException as error:  # handed to the thread that calls put or finish
                    self._error = error

    def put(self, item: T) -> None:
        if self._error is not None:
            raise self._error
        self._queue.put(item)

    def close(self) -> None:
        """Stop after what is queued; no error is raised. Idempotent."""
        with deferred():  # what the thread uses is closed next
            if not self._finished:
                self._finished = True
                self._queue.put(None)
                self._thread.join()

    def finish(self) -> None:
        """Wait until all is handled."""
        self.close()
        if self._error is not None:
            raise self._error


class BufferPool:
    """Buffers of one size that go round between threads. `give` back what is done with; what
    is not given back (after an error) is simply garbage."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._free: deque[bytearray] = deque()

    def take(self) -> bytearray:
        """A buffer with any content."""
        try:
            return self._free.pop()
        except IndexError:
            return bytearray(self._size)

    def give(self, buffer: bytearray) -> None:
        self._free.append(buffer)


class DevicePool:
    """Several handles of one device, so that several requests are under way at once. Whoever opens
    them closes what a signal keeps from coming here."""

    def __init__(self, open_device: Callable[[], BlockDevice], count: int) -> None:
        self._devices: list[BlockDevice] = []
        self._free: queue.SimpleQueue[BlockDevice] = queue.SimpleQueue()
        try:
            for _ in range(count):
                device = open_device()
                self._devices.append(device)
                self._free.put(device)
        except BaseException:
            self.close()
            raise

    @property
    def size(self) -> int:
        """Of the device, in bytes."""
        return self._devices[0].size

    @contextmanager
    def borrow(self) -> Iterator[BlockDevice]:
        """A handle of one's own for a while; waits for one to be free."""
        device = self._free.get()
        try:
            yield device
        finally:
            self._free.put(device)

    def flush(self) -> None:
        """What was written through any of them is durable: a file's handle answers for its own."""
        for device in self._devices:
            device.flush()

    def close(self) -> None:
        """Close all handles."""
        with deferred():
            for device in self._devices:
                device.close()
