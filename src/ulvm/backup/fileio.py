"""Whole reads, whole writes and barriers of files, with our errors.

What was written a moment ago is read from the page cache, whatever became of it on the disk. So
who wants to know what the disk holds drops the cache first (`drop_cache`, `read_medium`). That
goes as far as this kernel's cache of this file: what stands below (the file under a loop device,
the server of a network file system, a disk's own memory) may answer in the medium's place. On
tmpfs the cache is the medium.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from ulvm.errors import DeviceError, FormatError

__all__ = [
    "CACHED_PIECE", "drop_cache", "read_medium", "read_whole", "sync", "sync_directory",
    "write_whole",
]  # fmt: skip

CACHED_PIECE = 2 << 20
"""Most bytes that the kernel caches as one (a large folio, which begins at a multiple of its size),
and forgets together or not at all."""


def write_whole(fd: int, data: bytes, offset: int, what: str) -> None:
    """Write all of `data`; `what` names the file in a DeviceError."""
    view = memoryview(data)
    try:
        while view:
            written = os.pwrite(fd, view, offset)
            view = view[written:]
            offset += written
    except OSError as error:
        raise DeviceError(f"Cannot write {what}: {error.strerror}.", errno=error.errno) from error


def read_whole(fd: int, length: int, offset: int, what: str) -> bytes:
    """`length` bytes at `offset`; FormatError if the file ends before."""
    try:
        data = os.pread(fd, length, offset)
        while len(data) < length and (more := os.pread(fd, length - len(data), offset + len(data))):
            data += more
    except OSError as error:
        raise DeviceError(f"Cannot read {what}: {error.strerror}.", errno=error.errno) from error
    if len(data) < length:
        raise FormatError(f"{what} ends at byte {offset + len(data)}.")
    return data


def sync(fd: int, what: str) -> None:
    """fsync; DeviceError if what was written did not reach the disk."""
    try:
        os.fsync(fd)
    except OSError as error:
        raise _not_durable(what, error) from error


def _not_durable(what: str, error: OSError) -> DeviceError:
    return DeviceError(f"Cannot make {what} durable: {error.strerror}.", errno=error.errno)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        sync(fd, str(path))
    finally:
        os.close(fd)


def drop_cache(fd: int, offset: int, length: int) -> None:
    """Forget the clean pages of a range, so that the next read of them reaches the disk. Dirty ones
    stay, so after a `sync` (posix_fadvise(2)). Clean ones around it may go as well."""
    start = offset - offset % CACHED_PIECE
    end = offset + length + -(offset + length) % CACHED_PIECE
    if end > start:  # else the kernel would take it for the whole file
        os.posix_fadvise(fd, start, end - start, os.POSIX_FADV_DONTNEED)


def read_medium(fd: int, what: str) -> None:
    """Have the next reads of a whole file reach the disk; DeviceError if its cached content
    cannot be written there."""
    try:
        os.fsync(fd)
    except OSError as error:
        # A file system that cannot be written (squashfs, iso9660) has nothing to sync.
        if error.errno != errno.EINVAL:
            raise _not_durable(what, error) from error
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
