"""The frames of a backup image: how the bytes of a volume become zstd frames and come back.

An image is the volume cut into pieces of `frame_size` bytes (the last may be shorter), each
compressed into one independent zstd frame that carries its content size and an XXH64 checksum
(RFC 8878, section 3.1.1). Frames are simply concatenated, so `zstd -dc` of the file is the raw
image, and any frame can be read alone. A piece of zeros is always the same few bytes, which
are compressed once.

The index says where the frames lie. It is kept as runs, since a run of zero frames needs one
entry however long it is: a manifest from a stranger must not make us allocate what it claims.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import zstandard

from ulvm.blockdev.base import Buffer
from ulvm.errors import FormatError

__all__ = [
    "DEFAULT_FRAME_SIZE",
    "MAX_FRAME_SIZE",
    "MAX_LEVEL",
    "MIN_FRAME_SIZE",
    "Compressor",
    "Decompressor",
    "Frame",
    "FrameIndex",
    "FrameRun",
    "IndexBuilder",
]

DEFAULT_FRAME_SIZE = 4 << 20
MIN_FRAME_SIZE = 64 << 10
MAX_FRAME_SIZE = 64 << 20
MAX_LEVEL = 19
"""Highest compression level offered; above it zstd needs memory by the gigabyte."""


class Frame(NamedTuple):
    """One frame; `raw_*` in bytes of the volume, `offset` and `length` in bytes of the file."""

    number: int
    raw_offset: int
    raw_length: int
    offset: int
    length: int
    zero: bool


@dataclass(frozen=True, slots=True)
class FrameRun:
    """`count` frames of `length` compressed bytes each, one behind the other."""

    count: int
    length: int
    zero: bool


class FrameIndex:
    """Where each frame of an image of `raw_size` bytes lies. Immutable.

    Raises FormatError unless the runs cover the volume exactly.
    """

    def __init__(self, raw_size: int, frame_size: int, runs: Sequence[FrameRun]) -> None:
        self.raw_size = raw_size
        self.frame_size = frame_size
        self.runs = tuple(runs)
        self._first: list[int] = []
        self._offset: list[int] = []
        count = offset = 0
        for run in self.runs:
            self._first.append(count)
            self._offset.append(offset)
            count += run.count
            offset += run.count * run.length
        self.compressed_size = offset
        self._count = count
        expected = (raw_size + frame_size - 1) // frame_size
        if count != expected:
            raise FormatError(
                f"the index has {count} frames, a volume of {raw_size} bytes has {expected}"
            )

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> Frame:
        if not 0 <= number < len(self):
            raise IndexError(number)
        at = bisect.bisect_right(self._first, number) - 1
        run = self.runs[at]
        raw_offset = number * self.frame_size
        return Frame(
            number,
            raw_offset,
            min(self.frame_size, self.raw_size - raw_offset),
            self._offset[at] + (number - self._first[at]) * run.length,
            run.length,
            run.zero,
        )

    def __iter__(self) -> Iterator[Frame]:
        return (self[n] for n in range(len(self)))


class IndexBuilder:
    """Collects frames in order into an index."""

    def __init__(self) -> None:
        self._runs: list[FrameRun] = []

    def add(self, length: int, *, zero: bool) -> None:
        """Append a frame of `length` compressed bytes."""
        last = self._runs[-1] if self._runs else None
        if zero and last is not None and last.zero and last.length == length:
            self._runs[-1] = FrameRun(last.count + 1, length, True)
        else:
            self._runs.append(FrameRun(1, length, zero))

    def finish(self, raw_size: int, frame_size: int) -> FrameIndex:
        return FrameIndex(raw_size, frame_size, self._runs)


class Compressor:
    """Makes frames. Not thread-safe (a zstd context is not): one for each thread."""

    def __init__(self, level: int) -> None:
        self._context = zstandard.ZstdCompressor(
            level=level, write_checksum=True, write_content_size=True
        )
        self._zeros: dict[int, bytes] = {}

    def frame(self, raw: Buffer) -> bytes:
        return self._context.compress(raw)

    def zero_frame(self, length: int) -> bytes:
        """The frame for `length` zero bytes."""
        frame = self._zeros.get(length)
        if frame is None:
            frame = self._zeros[length] = self._context.compress(bytes(length))
        return frame


class Decompressor:
    """Opens frames. Not thread-safe: one for each thread."""

    def __init__(self) -> None:
        self._context = zstandard.ZstdDecompressor()

    def frame(self, compressed: bytes, raw: memoryview) -> None:
        """Fill `raw` with the bytes of one frame; FormatError unless it holds just so many.

        Decompression goes into the caller's memory, which it may use again: fresh memory for
        each frame costs more (in page faults) than the decompression.
        """
        try:
            claimed = zstandard.get_frame_parameters(compressed).content_size
            if claimed != len(raw):
                raise FormatError(f"the frame claims {claimed} bytes, not {len(raw)}")
            length = _frame_length(compressed)
            if length != len(compressed):
                raise FormatError(f"the frame has {len(compressed)} bytes instead of {length}")
            reader = self._context.stream_reader(compressed, read_size=len(compressed))
            got = 0
            while got < len(raw) and (count := reader.readinto(raw[got:])):
                got += count
            # zstd compares the checksum only when asked for more than the content.
            excess = reader.read(1)
        except zstandard.ZstdError as error:
            raise FormatError(f"damaged zstd frame ({error})") from None
        if got != len(raw) or excess:
            raise FormatError(f"the frame does not hold {len(raw)} bytes")


_CHECKSUM_FLAG = 4
_RLE_BLOCK = 1


def _frame_length(compressed: bytes) -> int:
    """Bytes of the first frame by its block headers (RFC 8878, 3.1.1.2).

    The streaming decompressor does not say whether it saw the end of a frame.
    """
    checksum = 4 if compressed[4] & _CHECKSUM_FLAG else 0
    at = int(zstandard.frame_header_size(compressed))
    last = False
    while not last:
        if at + 3 > len(compressed):
            raise FormatError(f"the frame is cut off at {len(compressed)} bytes")
        header = int.from_bytes(compressed[at : at + 3], "little")
        last = bool(header & 1)
        block_type, size = header >> 1 & 3, header >> 3
        at += 3 + (1 if block_type == _RLE_BLOCK else size)
    return at + checksum
