"""Many reads or writes of one file in one system call: io_submit(2).

For a file that is not opened with O_DIRECT Linux makes each of them within that call, from or to
the page cache, one after the other (fs/aio.c), so this is no asynchronous I/O at all. What it saves
is the interpreter's lock: a thread gives it up for each system call and has to get it back, which
beside a busy thread takes longer than hundreds of copies of a page. With one call a page such a
thread gets nearly nothing done; with one call for hundreds it runs on a processor of its own.

The structures are those of linux/aio_abi.h. Where there is no such call (another machine, a filter
of system calls, aio-max-nr used up) nothing is made, and the caller makes each by itself.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import threading
from collections.abc import Iterator, Sequence

import numpy as np

__all__ = ["address", "each"]

_MOST = 512
"""Requests of one call."""
_MOST_KEPT = 4
"""Contexts, for as many threads at once: aio-max-nr is for all programs together."""

_NUMBERS = {"x86_64": (206, 207, 208, 209), "aarch64": (0, 1, 4, 2)}
"""Of io_setup, io_destroy, io_getevents, io_submit."""
_PREAD, _PWRITE = 0, 1

_IOCB = np.dtype(
    [
        ("data", "<u8"),
        ("key", "<u4"),
        ("rw_flags", "<i4"),
        ("opcode", "<u2"),
        ("priority", "<i2"),
        ("fd", "<u4"),
        ("buffer", "<u8"),
        ("length", "<u8"),
        ("offset", "<i8"),
        ("reserved", "<u8"),
        ("flags", "<u4"),
        ("eventfd", "<u4"),
    ]
)
_EVENT = np.dtype([("data", "<u8"), ("iocb", "<u8"), ("result", "<i8"), ("result2", "<i8")])

_lock = threading.Lock()
_idle: list[_Context] = []
_made = 0
_refused = False


class _Context:
    """aio_context_t and what its calls are made with. Of one thread at a time. OSError."""

    def __init__(self) -> None:
        self._setup, self._destroy, self._getevents, self._submit = _NUMBERS[platform.machine()]
        self._syscall = ctypes.CDLL(None, use_errno=True).syscall
        self._syscall.restype = ctypes.c_long
        self._id = ctypes.c_ulong(0)
        self._iocbs = np.zeros(_MOST, _IOCB)
        self._iocbs["data"] = np.arange(_MOST)
        self._events = np.zeros(_MOST, _EVENT)
        self._list = self._iocbs.ctypes.data + _IOCB.itemsize * np.arange(_MOST, dtype=np.uint64)
        self._call(self._setup, _MOST, ctypes.addressof(self._id))

    def _call(self, number: int, *arguments: int) -> int:
        done: int = self._syscall(ctypes.c_long(number), *(ctypes.c_long(n) for n in arguments))
        if done < 0:
            raise OSError(ctypes.get_errno(), "system call for many requests")
        return done

    def run(self, fd: int, pieces: Sequence[tuple[int, memoryview]], opcode: int) -> np.ndarray:
        """For each of _MOST pieces at most what its system call would have returned, or less than
        zero for the error's number; 0 for one that was not made. OSError: nothing is known of
        them, and the context is to be destroyed."""
        count = len(pieces)
        iocbs = self._iocbs[:count]
        iocbs["opcode"] = opcode
        iocbs["fd"] = fd
        iocbs["offset"] = [offset for offset, _ in pieces]
        iocbs["length"] = [len(buffer) for _, buffer in pieces]
        iocbs["buffer"] = [address(buffer) for _, buffer in pieces]
        results = np.zeros(count, dtype=np.int64)
        try:
            submitted = self._call(self._submit, self._id.value, count, self._list.ctypes.data)
        except OSError:  # none was taken; each by itself will tell why
            return results
        while submitted:
            try:
                got = self._call(
                    self._getevents, self._id.value, 1, submitted, self._events.ctypes.data, 0
                )
            except InterruptedError:
                continue
            events = self._events[:got]
            results[events["data"].astype(np.int64)] = events["result"]
            submitted -= got
        return results

    def destroy(self) -> None:
        """Return when all that was submitted is through; what is left of it is forgotten."""
        self._call(self._destroy, self._id.value)


def address(buffer: memoryview) -> int:
    """Where it lies in memory, for as long as it is held; 0 if it is empty."""
    if not len(buffer):
        return 0
    if buffer.readonly:
        return np.frombuffer(buffer, dtype=np.uint8).ctypes.data
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


def _take() -> _Context | None:
    """One for this thread alone; None if there is none to be had."""
    global _made, _refused  # noqa: PLW0603 - of the process, as the limit is
    with _lock:
        if _idle:
            return _idle.pop()
        if _refused or _made >= _MOST_KEPT:
            return None
        try:
            made = _Context()
        except MemoryError:
            return None
        except KeyError:  # another machine
            _refused = True
            return None
        except OSError as error:
            # aio-max-nr is used up, or the memory is, which may change.
            _refused = error.errno not in (errno.EAGAIN, errno.ENOMEM)
            return None
        _made += 1
        return made


def _give_back(context: _Context, *, clean: bool) -> None:
    global _made  # noqa: PLW0603
    with _lock:
        if clean:
            _idle.append(context)
            return
        _made -= 1
    context.destroy()


def each(
    fd: int, pieces: Sequence[tuple[int, memoryview]], *, write: bool
) -> Iterator[tuple[int, int]]:
    """Read or write each (offset, buffer) of an open file; (index, result) of those that are not
    whole: how many bytes came, or less than zero, an error's number."""
    for first in range(0, len(pieces), _MOST):
        part = pieces[first : first + _MOST]
        context = _take()
        results = np.zeros(len(part), dtype=np.int64)
        if context is not None:
            clean = False
            try:
                results = context.run(fd, part, _PWRITE if write else _PREAD)
                clean = True
            except OSError:
                pass  # Each is made once more, by itself.
            finally:
                _give_back(context, clean=clean)
        whole = np.fromiter((len(buffer) for _, buffer in part), dtype=np.int64, count=len(part))
        for index in np.flatnonzero(results != whole):
            yield first + int(index), int(results[index])
