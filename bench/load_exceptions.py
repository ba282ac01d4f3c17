"""How long a store of ten million exceptions takes to load, and what it costs in memory.

    python bench/load_exceptions.py [COUNT]

A store with 4 KiB chunks is written to a sparse file by the formulas of the format (the data
chunks are holes), then activated. Prints seconds, and resident bytes per exception.
"""

from __future__ import annotations

import resource
import struct
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from ulvm.dm.mapper import LocalMapper
from ulvm.dm_ioctl import TableLine

CHUNK = 4096
PER_AREA = CHUNK // 16


def write_store(path: Path, count: int, origin_chunks: int) -> int:
    """Records for `count` chunks in a random order; returns the size in bytes."""
    rng = np.random.default_rng(1)
    old = rng.permutation(origin_chunks)[:count].astype("<u8")
    index = np.arange(count, dtype="<u8")
    new = 2 + index + index // PER_AREA
    size = (int(new[-1]) + 2 + PER_AREA) * CHUNK
    with open(path, "wb") as stream:
        stream.truncate(size)
        stream.write(struct.pack("<IIII", 0x70416E53, 1, 1, CHUNK // 512))
        for area in range(-(-count // PER_AREA)):
            part = slice(area * PER_AREA, (area + 1) * PER_AREA)
            stream.seek((1 + area * (PER_AREA + 1)) * CHUNK)
            stream.write(np.stack((old[part], new[part]), axis=1).tobytes())
    return size


def resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000_000
    chunks = count * 2
    with tempfile.TemporaryDirectory() as folder:
        origin, cow = Path(folder, "origin"), Path(folder, "cow")
        with open(origin, "wb") as stream:
            stream.truncate(chunks * CHUNK)
        size = write_store(cow, count, chunks)
        mapper = LocalMapper()
        mapper.create("snap")
        before, begun = resident(), time.perf_counter()
        line = TableLine(0, chunks * CHUNK // 512, "snapshot", f"{origin} {cow} P 8")
        mapper.load("snap", [line])
        mapper.resume("snap")
        seconds, grown = time.perf_counter() - begun, resident() - before
        print(f"{count} exceptions, COW {size >> 20} MiB: {mapper.status('snap')[0]}")
        print(f"loaded in {seconds:.2f} s, {grown / count:.1f} bytes of memory per exception")
        mapper.shutdown()


if __name__ == "__main__":
    main()
