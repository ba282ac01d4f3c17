"""What a server serves: named block devices, opened one client at a time.

The daemon implements `ExportSource` over its mapped devices (daemon.volumes). FUSE shows the names
as paths, NBD as exports.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from ulvm.blockdev.base import BlockDevice

__all__ = ["ExportInfo", "ExportSource", "windows"]

_FIRST_WINDOW = 1 << 20


@dataclass(frozen=True, slots=True)
class ExportInfo:
    """One name; `size` in bytes. A snapshot also offers the NBD context `ulvm:changed`. `device` is
    there to be told from another one that gets the name."""

    name: str
    size: int
    read_only: bool
    description: str = ""
    is_snapshot: bool = False
    device: object = None


class ExportSource(Protocol):
    """Names look like `vg/lv` or `mapper/<dm name>`; one slash, no leading slash."""

    def exports(self) -> list[ExportInfo]:
        """All that can be opened now, sorted by name."""

    def describe(self, name: str) -> ExportInfo:
        """NotFoundError if there is no such export."""

    def open(self, name: str, *, write: bool) -> BlockDevice:
        """A handle that counts as an open of the device until its close().
        NotFoundError; DeviceError(EROFS) for `write` on a read-only device."""


def windows(offset: int, length: int, most: int) -> Iterator[tuple[int, int]]:
    """(offset, length) of the pieces in which to ask for the extents of a range. Small at first and
    then longer and longer: who wants the first ones alone, and goes on where they end, must not
    have all others looked up each time."""
    end = offset + length
    step = min(_FIRST_WINDOW, most)
    while offset < end:
        n = min(step, end - offset)
        yield offset, n
        offset += n
        step = min(2 * step, most)
