"""Writing a backup image: device -> frames -> file, and reading it back.

Three stages run beside each other. Worker threads read a piece of the device, compress it and
decompress the result again to compare it with what was read. The calling thread appends the
frames to the file in order, and computes the digests of volume and file. Behind the writer a
checker makes each batch durable, drops it from the page cache, reads it back and compares it with
the frames. So a verified image was seen to decompress to what was read, and its bytes were seen to
come back from the file system, without a second pass.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass

from ulvm.backup.compare import is_zero
from ulvm.backup.digest import VOLUME_DIGEST, Digest, new_hash
from ulvm.backup.fileio import CACHED_PIECE, drop_cache, read_whole, sync, write_whole
from ulvm.backup.frames import (
    DEFAULT_FRAME_SIZE,
    Compressor,
    Decompressor,
    FrameIndex,
    IndexBuilder,
)
from ulvm.backup.pipeline import BufferPool, DevicePool, Progress, SerialWorker, in_order
from ulvm.blockdev.base import BlockDevice
from ulvm.errors import DeviceError

__all__ = ["ImageSummary", "write_image"]

_BATCH = 16 << 20
"""Compressed bytes that the checker makes durable and reads back at a time."""


@dataclass(frozen=True, slots=True)
class ImageSummary:
    """What was written."""

    index: FrameIndex
    digest: Digest
    compressed_sha256: str


def write_image(
    open_device: Callable[[], BlockDevice],
    fd: int,
    name: str,
    *,
    level: int = 1,
    threads: int = 2,
    verify: bool = True,
    frame_size: int = DEFAULT_FRAME_SIZE,
    progress: Progress = lambda _done, _total: None,
) -> ImageSummary:
    """Append the image of a device to the empty file `fd` and make it durable.

    `name` is the file's, for messages; `open_device` is called for each connection.
    DeviceError if the device cannot be read, the file not be written, or what is read back
    differs.
    """
    # One connection more than threads that compress: it reads while they compute.
    workers = threads + 1
    devices = DevicePool(open_device, workers)
    try:
        return _Writer(devices, fd, name, level=level, verify=verify, frame_size=frame_size).run(
            workers, progress
        )
    finally:
        devices.close()


@dataclass(slots=True)
class _Piece:
    """A frame on its way; `raw` is None for zeros."""

    number: int
    length: int
    raw: bytearray | None
    compressed: bytes


class _Writer:
    """The state of one `write_image`. `_read` runs in the workers, all else in one thread."""

    def __init__(
        self,
        devices: DevicePool,
        fd: int,
        name: str,
        *,
        level: int,
        verify: bool,
        frame_size: int,
    ) -> None:
        self._devices = devices
        self._fd = fd
        self._name = name
        self._level = level
        self._verify = verify
        self._frame_size = frame_size
        self._size = devices.size
        self._local = threading.local()
        self._zeros = memoryview(bytes(frame_size))
        self._buffers = BufferPool(frame_size)

    def run(self, workers: int, progress: Progress) -> ImageSummary:
        size, frame_size = self._size, self._frame_size
        volume_hash, compressed_hash = new_hash(), hashlib.sha256()
        index = IndexBuilder()
        checker = _Checker(self._fd, self._name) if self._verify else None
        pieces = in_order(
            range(-(-size // frame_size)), self._read, threads=workers, window=workers + 3
        )
        offset = done = 0
        try:
            for piece in pieces:
                raw = self._zeros if piece.raw is None else memoryview(piece.raw)
                volume_hash.update(raw[: piece.length])
                if piece.raw is not None:
                    self._buffers.give(piece.raw)
                compressed_hash.update(piece.compressed)
                write_whole(self._fd, piece.compressed, offset, self._name)
                if checker is not None:
                    checker.wrote(piece.compressed)
                offset += len(piece.compressed)
                index.add(len(piece.compressed), zero=piece.raw is None)
                done += piece.length
                progress(done, size)
            if checker is not None:
                checker.finish()
            sync(self._fd, self._name)
        finally:
            pieces.close()
            if checker is not None:
                checker.close()
        return ImageSummary(
            index.finish(size, frame_size),
            Digest(VOLUME_DIGEST, volume_hash.hexdigest()),
            compressed_hash.hexdigest(),
        )

    def _read(self, number: int) -> _Piece:
        """One piece, read, compressed and checked."""
        local = self._local
        if not hasattr(local, "compressor"):
            local.compressor = Compressor(self._level)
            local.decompressor = Decompressor()
            local.check = bytearray(self._frame_size)
        offset = number * self._frame_size
        length = min(self._frame_size, self._size - offset)
        buffer = self._buffers.take()
        raw = memoryview(buffer)[:length]
        with self._devices.borrow() as device:
            data = read_sparse(device, offset, raw, self._zeros)
        if not data or is_zero(raw):
            self._buffers.give(buffer)
            return _Piece(number, length, None, local.compressor.zero_frame(length))
        compressed = local.compressor.frame(raw)
        if self._verify:
            local.decompressor.frame(compressed, memoryview(local.check)[:length])
            if not local.check.startswith(raw):
                raise DeviceError(f"Frame {number} does not decompress to what was compressed.")
        return _Piece(number, length, buffer, compressed)


def read_sparse(device: BlockDevice, offset: int, buffer: memoryview, zeros: memoryview) -> bool:
    """Fill `buffer` from `offset`, reading only what is not known to be zeros.

    False if all of it is (`buffer` is untouched then); `zeros` is at least as long.
    """
    data = [e for e in device.extents(offset, len(buffer)) if not e.zero]
    if not data:
        return False
    filled = 0
    for extent in data:
        start = extent.offset - offset
        buffer[filled:start] = zeros[: start - filled]
        filled = start + extent.length
        device.readinto(extent.offset, buffer[start:filled])
    buffer[filled:] = zeros[: len(buffer) - filled]
    return True


class _Checker:
    """Follows the writer by batches: makes them durable and compares the file with the frames.

    A piece of the cache into which the writer still writes is not dropped. So a batch is compared
    as far as such pieces are complete; what is left of it goes with the next.
    """

    def __init__(self, fd: int, name: str) -> None:
        self._fd = fd
        self._name = name
        self._frames: list[bytes] = []
        self._held = 0
        # Of the worker alone:
        self._start = 0
        self._left: list[bytes] = []
        """What is not compared yet of what was handed over, from `_start` on."""
        self._worker: SerialWorker[tuple[list[bytes], bool]] = SerialWorker(
            self._check, depth=2, name="ulvm-backup-check"
        )

    def wrote(self, frame: bytes) -> None:
        """Note a frame that was written; frames come from the file's start on, without gaps."""
        self._frames.append(frame)
        self._held += len(frame)
        if self._held >= _BATCH:
            self._hand_over(last=False)

    def _hand_over(self, *, last: bool) -> None:
        self._worker.put((self._frames, last))
        self._frames, self._held = [], 0

    def finish(self) -> None:
        """Check what is left; DeviceError if anything differed."""
        self._hand_over(last=True)
        self._worker.finish()

    def close(self) -> None:
        self._worker.close()

    def _check(self, batch: tuple[list[bytes], bool]) -> None:
        frames, last = batch
        sync(self._fd, self._name)
        frames = [*self._left, *frames]
        end = self._start + sum(map(len, frames))
        stop = end if last else end - end % CACHED_PIECE
        # Only clean pages can be dropped, so after the sync; then the reads below reach the disk.
        drop_cache(self._fd, self._start, stop - self._start)
        self._left = []
        for frame in frames:
            room = max(stop - self._start, 0)
            if room < len(frame):
                self._left.append(frame[room:])
            self._compare(frame[:room])

    def _compare(self, data: bytes) -> None:
        if read_whole(self._fd, len(data), self._start, self._name) != data:
            raise DeviceError(
                f"{self._name} reads back otherwise than it was written "
                f"(bytes {self._start} to {self._start + len(data)})."
            )
        self._start += len(data)
