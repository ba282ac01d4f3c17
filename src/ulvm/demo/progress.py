"""What the writer process tells about itself, in a small file that both sides map."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import NamedTuple

__all__ = ["Counters", "ProgressFile"]

_LAYOUT = struct.Struct("<QQdd")
"""transfers committed, bytes written by them, longest and latest wait in seconds"""


class Counters(NamedTuple):
    """`longest_seconds`: the longest that one transfer took since the last `reset_longest`."""

    transfers: int
    written: int
    longest_seconds: float
    latest_seconds: float


class ProgressFile:
    """One writer updates, one reader looks; a torn read of a display value does no harm."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(_LAYOUT.size))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _LAYOUT.size)

    def read(self) -> Counters:
        return Counters(*_LAYOUT.unpack_from(self._map))

    def transferred(self, written: int, seconds: float) -> None:
        """One more transfer, which wrote this many bytes and took this long."""
        now = self.read()
        _LAYOUT.pack_into(
            self._map,
            0,
            now.transfers + 1,
            now.written + written,
            max(now.longest_seconds, seconds),
            seconds,
        )

    def reset_longest(self) -> None:
        """Begin to look for the longest wait anew."""
        struct.pack_into("<d", self._map, 16, 0.0)

    def close(self) -> None:
        self._map.close()
