"""Writing a backup back onto a device, and proving that it arrived."""

from __future__ import annotations

from collections.abc import Callable

from ulvm.backup.compare import data_runs
from ulvm.backup.digest import new_hash
from ulvm.backup.frames import DEFAULT_FRAME_SIZE, Frame
from ulvm.backup.image import read_sparse
from ulvm.backup.pipeline import BufferPool, DevicePool, Progress, SerialWorker, in_order
from ulvm.backup.reader import Backup
from ulvm.backup.verify import read_frames
from ulvm.blockdev.base import BlockDevice
from ulvm.errors import FormatError

__all__ = ["check_device", "write_device"]

_SPARSE_BLOCK = 64 << 10
"""Runs of zeros in units of this many bytes are not written but zeroed, which keeps them holes
where the device can."""
_FLUSH_BYTES = 64 << 20
"""So much is flushed while the next is decompressed: at the end the disk has little left to do."""


def write_device(
    backup: Backup,
    open_device: Callable[[], BlockDevice],
    *,
    threads: int = 2,
    before_write: Callable[[], None] = lambda: None,
    after_flush: Callable[[], None] = lambda: None,
    progress: Progress = lambda _done, _total: None,
) -> None:
    """Make a device hold what the backup holds, durably. It must be at least as large. The digest
    of the volume is left to `check_device`, which has to compute it anyway. `after_flush` comes
    after those on the way, in another thread.

    FormatError if the backup is damaged: the device then holds part of it, or is as it was if
    `before_write`, which comes before every write, in any thread, was never called.
    """
    devices = DevicePool(open_device, threads + 2)  # one to flush while the others write
    told = 0

    def write(frame: Frame, raw: memoryview | None) -> None:
        with devices.borrow() as device:
            before_write()
            if raw is None:
                device.write_zeroes(frame.raw_offset, frame.raw_length)
                return
            for offset, length, data in data_runs(raw, _SPARSE_BLOCK):
                if data:
                    device.write(frame.raw_offset + offset, raw[offset : offset + length])
                else:
                    device.write_zeroes(frame.raw_offset + offset, length)

    def flush(_done: int) -> None:
        with devices.borrow() as device:
            device.flush()
        after_flush()

    def written(done: int, total: int) -> None:
        nonlocal told
        if done - told >= _FLUSH_BYTES:
            told = done
            flusher.put(done)
        progress(done, total)

    try:
        flusher = SerialWorker(flush, depth=1, name="ulvm-restore-flush")
        try:
            read_frames(backup, write, threads=threads + 1, progress=written, hash_raw=False)
            flusher.finish()
            devices.flush()
        finally:
            flusher.close()
    finally:
        devices.close()


def check_device(
    backup: Backup,
    open_device: Callable[[], BlockDevice],
    *,
    threads: int = 2,
    progress: Progress = lambda _done, _total: None,
) -> None:
    """Read the device back; FormatError unless its digest over the backup's size is the
    backup's."""
    size, expected = backup.manifest.image.size, backup.manifest.image.digest
    step = DEFAULT_FRAME_SIZE
    devices = DevicePool(open_device, threads + 1)
    buffers = BufferPool(step)
    zeros = memoryview(bytes(step))
    found = new_hash(expected.kind)

    def read(offset: int) -> tuple[int, bytearray | None]:
        length = min(step, size - offset)
        buffer = buffers.take()
        with devices.borrow() as device:
            data = read_sparse(device, offset, memoryview(buffer)[:length], zeros)
        if not data:
            buffers.give(buffer)
        return length, buffer if data else None

    pieces = in_order(range(0, size, step), read, threads=threads + 1, window=threads + 4)
    done = 0
    try:
        for length, buffer in pieces:
            found.update((zeros if buffer is None else memoryview(buffer))[:length])
            if buffer is not None:
                buffers.give(buffer)
            done += length
            progress(done, size)
    finally:
        pieces.close()
        devices.close()
    if found.hexdigest() != expected.value:
        raise FormatError(
            f"The volume reads back with the {expected.kind} {found.hexdigest()}, "
            f"the backup has {expected.value}."
        )
