"""Proving that a backup is whole: every frame, both digests, against the manifest."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass

from ulvm.backup.compare import is_zero
from ulvm.backup.digest import new_hash
from ulvm.backup.frames import Decompressor, Frame
from ulvm.backup.pipeline import BufferPool, Progress, in_order
from ulvm.backup.reader import Backup
from ulvm.errors import FormatError

__all__ = ["read_frames", "verify"]


@dataclass(slots=True)
class _Read:
    frame: Frame
    compressed: bytes
    raw: bytearray | None
    """A pooled buffer; None for zeros."""


def verify(
    backup: Backup, *, threads: int = 2, progress: Progress = lambda _done, _total: None
) -> None:
    """Read all of a backup; FormatError with the first place where it is not as it should be."""
    read_frames(backup, lambda _frame, _raw: None, threads=threads, progress=progress)


def read_frames(
    backup: Backup,
    handle: Callable[[Frame, memoryview | None], None],
    *,
    threads: int,
    progress: Progress,
    hash_raw: bool = True,
) -> None:
    """Hand every frame, decompressed, to `handle` in `threads` threads at once, in no order.

    `handle` gets None for a frame of zeros. FormatError if a frame is damaged, or, at the end,
    if a digest is not the manifest's; without `hash_raw` that of the volume is left out.
    """
    image = backup.manifest.image
    index = image.index
    local = threading.local()
    zeros = memoryview(bytes(index.frame_size))
    buffers = BufferPool(index.frame_size)
    raw_hash, compressed_hash = new_hash(image.digest.kind), hashlib.sha256()

    def work(frame: Frame) -> _Read:
        if not hasattr(local, "decompressor"):
            local.decompressor = Decompressor()
            local.known_zero = None
        compressed = backup.compressed(frame)
        if frame.zero and (frame.raw_length, compressed) == local.known_zero:
            handle(frame, None)
            return _Read(frame, compressed, None)
        buffer = buffers.take()
        raw = memoryview(buffer)[: frame.raw_length]
        backup.raw(frame, compressed, local.decompressor, raw)
        if not frame.zero:
            handle(frame, raw)
            return _Read(frame, compressed, buffer)
        if not is_zero(raw):
            raise backup.damaged(frame, "they should be zeros")
        buffers.give(buffer)
        local.known_zero = (frame.raw_length, compressed)
        handle(frame, None)
        return _Read(frame, compressed, None)

    results = in_order(index, work, threads=threads, window=threads + 3)
    done = 0
    try:
        for read in results:
            if hash_raw:
                raw = zeros if read.raw is None else memoryview(read.raw)
                raw_hash.update(raw[: read.frame.raw_length])
            if read.raw is not None:
                buffers.give(read.raw)
            compressed_hash.update(read.compressed)
            done += read.frame.raw_length
            progress(done, index.raw_size)
    finally:
        results.close()
    digests = [("SHA-256 of the file", compressed_hash.hexdigest(), image.compressed_sha256)]
    if hash_raw:
        of_volume = f"{image.digest.kind} of the volume"
        digests.append((of_volume, raw_hash.hexdigest(), image.digest.value))
    for what, got, expected in digests:
        if got != expected:
            raise FormatError(
                f"The {what} in {backup.path} is {got}, the manifest says {expected}."
            )
