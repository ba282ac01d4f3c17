"""Proving that a backup is whole: every frame, both hashes, against the manifest."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass

from ulvm.backup.frames import Decompressor, Frame
from ulvm.backup.pipeline import Progress, SerialWorker, in_order
from ulvm.backup.reader import Backup
from ulvm.errors import FormatError

__all__ = ["read_frames", "verify"]


@dataclass(slots=True)
class _Read:
    frame: Frame
    compressed: bytes
    raw: bytes | None
    """None for zeros."""


def verify(
    backup: Backup, *, threads: int = 2, progress: Progress = lambda _done, _total: None
) -> None:
    """Read all of a backup; FormatError with the first place where it is not as it should be."""
    read_frames(backup, lambda _frame, _raw: None, threads=threads, progress=progress)


def read_frames(
    backup: Backup,
    handle: Callable[[Frame, bytes | None], None],
    *,
    threads: int,
    progress: Progress,
) -> None:
    """Hand every frame, decompressed, to `handle` in `threads` threads at once, in no order.

    `handle` gets None for a frame of zeros. FormatError if a frame is damaged, or, at the end,
    if a hash is not the manifest's.
    """
    image = backup.manifest.image
    index = image.index
    local = threading.local()
    zeros = bytes(min(index.frame_size, index.raw_size))
    raw_hash, compressed_hash = hashlib.sha256(), hashlib.sha256()

    def work(frame: Frame) -> _Read:
        if not hasattr(local, "decompressor"):
            local.decompressor = Decompressor()
            local.zero_frame = None
        compressed = backup.compressed(frame)
        zero = frame.zero and (frame.raw_length, compressed) == local.zero_frame
        raw = None if zero else backup.raw(frame, compressed, local.decompressor)
        if frame.zero and not zero:
            if raw != zeros[: frame.raw_length]:
                raise backup.damaged(frame, "they should be zeros")
            local.zero_frame = (frame.raw_length, compressed)
            raw = None
        handle(frame, raw)
        return _Read(frame, compressed, raw)

    def hash_raw(read: _Read) -> None:
        raw_hash.update(
            memoryview(zeros)[: read.frame.raw_length] if read.raw is None else read.raw
        )

    hasher = SerialWorker(hash_raw, depth=4, name="ulvm-verify-hash")
    results = in_order(index, work, threads=threads, window=threads + 3)
    done = 0
    try:
        for read in results:
            hasher.put(read)
            compressed_hash.update(read.compressed)
            done += read.frame.raw_length
            progress(done, index.raw_size)
        hasher.finish()
    finally:
        results.close()
        hasher.close()
    for what, got, expected in (
        ("file", compressed_hash.hexdigest(), image.compressed_sha256),
        ("volume", raw_hash.hexdigest(), image.sha256),
    ):
        if got != expected:
            raise FormatError(
                f"The SHA-256 of the {what} in {backup.path} is {got}, "
                f"the manifest says {expected}."
            )
