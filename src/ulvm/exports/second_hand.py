"""A second thread of an NBD connection, for long writes.

To receive a mebibyte takes about as long as to write it, and neither holds the interpreter's lock.
So where the client has sent more already, a long write is left to another thread that answers it as
well, and the first one goes on with another buffer. Replies may overtake each other, as the
protocol has it, and a flush is for what was answered before it.

While one is made another one may wait, since now this takes longer, now that. Without a place to
wait in, the first thread would have to make it itself, which is to wait for the lock of the file
that the other one has, and nobody would receive. When both places are taken it waits as well, but
the other one has something to go on with.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable
from queue import SimpleQueue

__all__ = ["SecondHand"]

log = logging.getLogger(__name__)

_LONG = 256 << 10
"""Bytes from which a write is worth another thread's waking."""
_PLACES = 2
"""For one that is made and one that waits."""
_NOTHING = memoryview(b"")


class SecondHand:
    """`close` it before the device. Only the connection's thread calls it.

    A buffer goes with the work that reads it, and comes back into `_spares` when that is through;
    there are as many as places, and to take one out is to take a place. With the one that the
    connection receives into it makes three. Those of more bytes than `keep` are not kept, and for
    one of them all places must be free: it and the connection's own are all the big ones there are.
    """

    def __init__(self, sock: socket.socket, keep: int) -> None:
        self._sock = sock
        self._keep = keep
        self._able = type(sock) is socket.socket and len(os.sched_getaffinity(0)) > 1
        """TLS is not for two threads, nor is one processor."""
        self._todo: SimpleQueue[tuple[Callable[[], None], memoryview] | None] = SimpleQueue()
        self._spares: SimpleQueue[memoryview] = SimpleQueue()
        for _ in range(_PLACES):
            self._spares.put(_NOTHING)
        self._thread: threading.Thread | None = None

    def wanted(self, length: int) -> bool:
        """Whether a write of so many bytes, all of them received, is to be left to it: the client
        has sent more."""
        if length < _LONG or not self._able:
            return False
        try:
            return bool(self._sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except BlockingIOError:
            return False

    def take(self, work: Callable[[], None], buffer: memoryview) -> memoryview:
        """Have the work done, which has the buffer, when it is wanted and there is a place. Returns
        another buffer, of the same size if that is one to keep."""
        if self._thread is None and not self._start():
            work()
            return buffer
        spare = self._spares.get()
        if len(buffer) > self._keep:
            for other in [self._spares.get() for _ in range(_PLACES - 1)]:
                self._spares.put(other)
        self._todo.put((work, buffer))
        size = min(len(buffer), self._keep)
        return spare if len(spare) >= size else memoryview(bytearray(size))

    def _start(self) -> bool:
        thread = threading.Thread(target=self._run, name="nbd-second", daemon=True)
        try:
            thread.start()
        except (RuntimeError, MemoryError):  # no more threads
            self._able = False
            return False
        self._thread = thread
        return True

    def close(self) -> None:
        """Return when all it took is done."""
        if self._thread is not None:
            self._todo.put(None)
            self._thread.join()

    def _run(self) -> None:
        while self._next():
            pass

    def _next(self) -> bool:
        """Wait for work and do it; False if there is to be no more."""
        if (todo := self._todo.get()) is None:
            return False
        work, buffer = todo
        try:
            work()
        except Exception:
            log.exception("a long write failed without an answer")
        finally:
            self._spares.put(buffer if len(buffer) <= self._keep else _NOTHING)
        return True
