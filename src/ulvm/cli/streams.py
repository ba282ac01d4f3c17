"""The standard streams, whatever they are: closed, full, without a reader, or in an encoding that
lacks a letter.

A command's work must not depend on who reads its words. So what cannot be written is lost, the work
goes on, and the loss is told in the end; and a descriptor that is closed is opened to /dev/null,
for otherwise the next file opened, a disk perhaps, would be standard output. LVM2 does the same.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import select
import sys
from typing import Any

__all__ = ["settled", "steady_streams"]

_BROKEN_PIPE = 141
"""The exit code of a program that SIGPIPE ended."""
_ERRORS = "ulvm.as_it_came"


class _Output(io.FileIO):
    """A file that takes all that is written to it; `lost` is the first error."""

    lost: OSError | None = None

    def write(self, data: Any, /) -> int:
        length = memoryview(data).nbytes
        try:
            while (written := super().write(data)) is None:
                select.select([], [self], [])
        except OSError as error:
            self.lost = self.lost or error
            return length
        return written


def steady_streams() -> None:
    """Put them in order, before anything is opened. Streams that a test put there stay."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    codecs.register_error(_ERRORS, _as_it_came)
    if sys.stdin is None:
        sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)))
    elif isinstance(sys.stdin, io.TextIOWrapper) and sys.stdin is sys.__stdin__:
        sys.stdin.reconfigure(errors="surrogateescape")
    if sys.stdout is sys.__stdout__:
        sys.stdout = _steady(sys.stdout, 1)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _steady(sys.stderr, 2)


def _steady(stream: io.TextIOBase | None, number: int) -> io.TextIOWrapper:
    encoding = (stream.encoding if stream is not None else None) or "utf-8"
    raw = _Output(number, "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=encoding,
        errors=_ERRORS,
        line_buffering=number == 2 or raw.isatty(),
    )


def _as_it_came(error: UnicodeError) -> tuple[str | bytes, int]:
    """Names of files and words of metadata need not be text: they leave as they came. What the
    encoding has no letter for is a question mark."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    try:
        return text.encode(error.encoding, "surrogateescape"), error.end
    except UnicodeEncodeError:
        return "?" * len(text), error.end


def settled(status: int, *, works: bool) -> int:
    """The exit code, now that a command ends with `status`. A report that was lost is a failure; of
    a command that `works`, what it told of the work is not."""
    sys.stdout.flush()
    sys.stderr.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    if not isinstance(raw, _Output) or raw.lost is None or status:
        return status
    if raw.lost.errno == errno.EPIPE:
        return _BROKEN_PIPE  # its reader has gone, which is its own business
    print(f"  Standard output: {raw.lost.strerror}", file=sys.stderr)
    raw.lost = None
    return status if works else 5
