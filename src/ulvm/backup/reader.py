"""Opening a backup: its manifest, its image, and any frame of it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ulvm.backup.fileio import read_medium, read_whole
from ulvm.backup.frames import Decompressor, Frame
from ulvm.backup.manifest import (
    IMAGE_SUFFIX,
    MANIFEST_SUFFIX,
    MAX_MANIFEST_SIZE,
    Manifest,
    parse_manifest,
)
from ulvm.errors import DeviceError, FormatError, NotFoundError

__all__ = ["Backup"]


class Backup:
    """A backup opened for reading. Frames may be read from any thread.

    `path` is the manifest or the image beside it. With `from_medium` both are read from the disk
    and not from the page cache (see `fileio`). NotFoundError if one of the two is missing,
    FormatError if the manifest is wrong, of another image than the one that is named, or the image
    has another length than it says.
    """

    def __init__(self, path: Path, *, from_medium: bool = False) -> None:
        manifest_path = _manifest_path(path)
        self.manifest = _read_manifest(manifest_path, from_medium=from_medium)
        self.path = manifest_path.with_name(self.manifest.image.file)
        if path.name.endswith(IMAGE_SUFFIX) and path.name != self.path.name:
            raise FormatError(f"{manifest_path} is the manifest of {self.path}, not of {path}.")
        self._fd = _open(self.path, from_medium=from_medium)
        size = os.fstat(self._fd).st_size
        expected = self.manifest.image.compressed_size
        if size != expected:
            os.close(self._fd)
            state = "cut off" if size < expected else "too long"
            raise FormatError(f"{self.path} is {state}: {size} bytes instead of {expected}.")

    def __enter__(self) -> Backup:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def compressed(self, frame: Frame) -> bytes:
        """The bytes of a frame in the file."""
        return read_whole(self._fd, frame.length, frame.offset, str(self.path))

    def raw(
        self, frame: Frame, compressed: bytes, decompressor: Decompressor, raw: memoryview
    ) -> None:
        """Fill `raw` with the bytes of the volume that a frame holds; FormatError that says
        where it is wrong."""
        try:
            decompressor.frame(compressed, raw)
        except FormatError as error:
            raise self.damaged(frame, error.message) from None

    def damaged(self, frame: Frame, what: str) -> FormatError:
        """The error for a bad frame."""
        return FormatError(
            f"{self.path} is damaged in bytes {frame.offset} to {frame.offset + frame.length}, "
            f"which hold bytes {frame.raw_offset} to {frame.raw_offset + frame.raw_length} "
            f"of the volume: {what}."
        )


def _manifest_path(path: Path) -> Path:
    if path.name.endswith(IMAGE_SUFFIX):
        return path.with_name(path.name.removesuffix(IMAGE_SUFFIX) + MANIFEST_SUFFIX)
    return path


def _open(path: Path, *, from_medium: bool) -> int:
    try:
        # A pipe that somebody put there must not make us wait for its other end.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise NotFoundError(f"{path} does not exist.") from None
    except OSError as error:
        raise DeviceError(f"Cannot open {path}: {error.strerror}.", errno=error.errno) from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise FormatError(f"{path} is not a file.")
    if from_medium:
        try:
            read_medium(fd, str(path))
        except BaseException:
            os.close(fd)
            raise
    return fd


def _read_manifest(path: Path, *, from_medium: bool) -> Manifest:
    fd = _open(path, from_medium=from_medium)
    try:
        size = os.fstat(fd).st_size
        if size > MAX_MANIFEST_SIZE:
            raise FormatError(f"{path} has {size} bytes, too much for a manifest.")
        text = read_whole(fd, size, 0, str(path))
    finally:
        os.close(fd)
    try:
        return parse_manifest(text)
    except FormatError as error:
        raise FormatError(f"{path}: {error.message}.") from None
