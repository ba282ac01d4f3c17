"""What C code, or a program that it starts, says on standard error: libfuse gives no other reason.

A daemon has nobody at its standard error. For a moment that of the whole process goes elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["standard_error"]

_MOST = 4096


@contextmanager
def standard_error() -> Iterator[list[str]]:
    """The lines, once the block is left."""
    said: list[str] = []
    kept = os.memfd_create("heard")
    before = os.dup(2)
    os.dup2(kept, 2)
    try:
        yield said
    finally:
        os.dup2(before, 2)
        said += os.pread(kept, _MOST, 0).decode(errors="replace").split("\n")[:-1]
        os.close(before)
        os.close(kept)
