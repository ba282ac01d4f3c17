"""A second thread of an NBD connection, for long writes.

To receive a mebibyte takes about as long as to write it, and neither holds the interpreter's lock.
So where the client has sent more already, a long write is left to another thread that answers it as
well; the first one goes on with another buffer, and makes itself what comes before the other is
through. Replies may overtake each other, as the protocol has it, and a flush is for what was
answered before it.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from queue import SimpleQueue

__all__ = ["SecondHand"]

_LONG = 256 << 10
"""Bytes from which a write is worth another thread's waking."""


class SecondHand:
    """`close` it before the device. Only the connection's thread calls it."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._able = type(sock) is socket.socket and len(os.sched_getaffinity(0)) > 1
        """TLS is not for two threads, nor is one processor."""
        self._todo: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._busy = threading.Lock()
        self._spare = memoryview(b"")
        self._thread: threading.Thread | None = None

    def wanted(self, length: int) -> bool:
        """Whether a write of so many bytes, all of them received, is to be left to it: it is free,
        and the client has sent more."""
        if length < _LONG or not self._able or self._busy.locked():
            return False
        try:
            return bool(self._sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except BlockingIOError:
            return False

    def take(self, work: Callable[[], None], buffer: memoryview) -> memoryview:
        """Have the work done, which has the buffer and must not raise, when it is wanted. Returns
        another buffer of at least that size."""
        spare, self._spare = self._spare, buffer
        if len(spare) < len(buffer):
            spare = memoryview(bytearray(len(buffer)))
        self._busy.acquire()
        if self._thread is None and not self._start():
            work()
            self._busy.release()
        else:
            self._todo.put(work)
        return spare

    def _start(self) -> bool:
        thread = threading.Thread(target=self._run, name="nbd-second", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no more threads
            self._able = False
            return False
        self._thread = thread
        return True

    def rest(self, keep: int) -> None:
        """The client pauses: a buffer of more bytes than that is given back."""
        if len(self._spare) > keep and not self._busy.locked():
            self._spare = memoryview(b"")

    def close(self) -> None:
        """Return when it has nothing to do any more."""
        if self._thread is not None:
            self._todo.put(None)
            self._thread.join()

    def _run(self) -> None:
        while (work := self._todo.get()) is not None:
            try:
                work()
            finally:
                del work  # with its buffer
                self._busy.release()
