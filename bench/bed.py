"""Where it is measured: a directory for the images, one for sockets, and what they start with.

Images that are read or overwritten are full of data, as an old disk is: neither holes nor zeros, so
no contestant is spared the reading. They are written and read by pages, as a database writes: in
the page cache lie pages then. Where it holds large folios ext4 looks through all of one at each
write of 4 KiB, which takes five times as long as the write. They are made once a run and kept; what
a run allocates (the COW of a snapshot, an overlay) lies in a fresh file each time.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.fio import flush_seconds

__all__ = ["MIB", "Bed", "making"]

MIB = 1 << 20
_BLOCK = 4 * MIB
_PAGE = 4096
_SHM = Path("/dev/shm")


@dataclass
class Bed:
    """`directory` holds images, `short` sockets, run directories and mounts: on a tmpfs if there is
    one, as /run is, with a path short enough for a socket. `size`: bytes of a volume."""

    directory: Path
    short: Path
    size: int
    rounds: int
    seconds: float
    told: Callable[[str], None]
    kept: dict[str, object] = field(default_factory=dict)
    """What one row found that others want too."""
    _idle: list[Path] = field(default_factory=list)
    _used: list[Path] = field(default_factory=list)
    _made: int = 0

    def fresh(self, suffix: str = ".img") -> Path:
        """A path for a file that is not there yet."""
        self._made += 1
        return self.directory / f"{self._made}{suffix}"

    def folder(self) -> Path:
        """A new directory with a short path."""
        self._made += 1
        made = self.short / str(self._made)
        made.mkdir()
        return made

    @contextmanager
    def filled(self) -> Iterator[Path]:
        """An image of `size` and 16 MiB more, for metadata, full of data and on the disk. It is
        used again: what is written to it stays."""
        image = self._idle.pop() if self._idle else self._fill(self.fresh())
        self._used.append(image)
        self.settle()
        try:
            yield image
        finally:
            self._used.remove(image)
            self._idle.append(image)

    def flush_seconds(self) -> float:
        """What a flush costs on this machine, measured once: see `bench.fio`."""
        found = self.kept.get("flush")
        if not isinstance(found, float):
            with self.filled() as image:
                found = flush_seconds(image, self.size, self.seconds, self.short)
            self.kept["flush"] = found
        return found

    def settle(self) -> None:
        """Write out what is dirty: it would be written out under the next run. Read the images that
        are served: some systems take from the page cache what rests for some seconds."""
        subprocess.run(["sync", "-f", str(self.directory)], check=True)
        buffer = bytearray(_PAGE)
        for image in self._used:
            with image.open("rb", buffering=0) as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
                while file.readinto(buffer):
                    pass

    def _fill(self, path: Path) -> Path:
        block = os.urandom(_BLOCK)
        with path.open("xb", buffering=0) as file:
            for position in range(0, self.size + 16 * MIB, _PAGE):
                # No two blocks are alike, so nothing on the way can share them.
                start = position % (_BLOCK - _PAGE) + 8
                file.write(position.to_bytes(8, "big") + block[start : start + _PAGE - 8])
        return path

    @contextmanager
    def sparse(self, size: int) -> Iterator[Path]:
        """A fresh image without data; it goes with the context."""
        path = self.fresh()
        with path.open("xb") as file:
            file.truncate(size)
        try:
            yield path
        finally:
            path.unlink()


@contextmanager
def making(
    directory: Path | None, size: int, rounds: int, seconds: float, told: Callable[[str], None]
) -> Iterator[Bed]:
    """A bed in a new directory below `directory` (default: /var/tmp), which goes with it."""
    images = Path(tempfile.mkdtemp(prefix="ulvmbench", dir=directory or "/var/tmp"))
    short = Path(tempfile.mkdtemp(prefix="ub", dir=_SHM if os.access(_SHM, os.W_OK) else None))
    try:
        yield Bed(images, short, size, rounds, seconds, told)
    finally:
        shutil.rmtree(short)
        shutil.rmtree(images)
