"""Whole reads, whole writes and barriers of files, with our errors."""

from __future__ import annotations

import os
from pathlib import Path

from ulvm.errors import DeviceError, FormatError

__all__ = ["read_whole", "sync", "sync_directory", "write_whole"]


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
        raise DeviceError(
            f"Cannot make {what} durable: {error.strerror}.", errno=error.errno
        ) from error


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        sync(fd, str(path))
    finally:
        os.close(fd)
