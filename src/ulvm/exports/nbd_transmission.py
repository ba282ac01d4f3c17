"""Serving one NBD connection after the handshake: requests in, replies out.

One thread (and a second one for long writes, exports.second_hand), one receive buffer, one send
buffer, both bounded by the largest request. Requests are read where they were received; a read puts
the device's bytes behind the reply's header in the send buffer; replies to all requests that came
together go out with one `sendall`. Reads that came one behind the other are one call of the device,
so the gates of all its layers are passed once for all of them; writes too. Before a request that
may take long (anything but a read or write), and before waiting for the client, what is ready goes
out.

Who waits for a client that has nothing else under way looks for its next request for a moment
before going to sleep: to sleep and be woken, with processors that sleep then as well, takes as long
as all the rest. Only one thread does that at a time, and seldom for a client that thinks.

What a client can do wrong costs itself alone: an unknown command, flag or length gets EINVAL,
a wrong magic number ends the connection. A request that finds its device gone (ENXIO) is
answered ESHUTDOWN and ends the connection too.

`serve` is the fast path and flat on purpose; `make bench` measures it.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from functools import partial

from ulvm.blockdev.base import BlockDevice, Buffer
from ulvm.blockdev.nbd_protocol import (
    ALLOCATION,
    CHUNK_DONE,
    MAX_LENGTH,
    REQUEST,
    REQUEST_MAGIC,
    SIMPLE_REPLY,
    SIMPLE_REPLY_MAGIC,
    STRUCTURED_REPLY,
    STRUCTURED_REPLY_MAGIC,
    ChunkType,
    CommandFlag,
    CommandType,
    ExportFlag,
    error_number,
)
from ulvm.errors import DeviceError, NotSupportedError, UlvmError
from ulvm.exports.nbd_handshake import Agreed
from ulvm.exports.patience import patient
from ulvm.exports.second_hand import SecondHand
from ulvm.exports.source import windows

__all__ = ["serve"]

log = logging.getLogger(__name__)

_RECEIVE = 256 << 10
"""First size of the buffers in bytes; they grow to the largest request seen."""
_SEND = 256 << 10
_KEEP = 4 << 20
"""A buffer that grew beyond this is given back when the client pauses."""
_EXACT = 64 << 10
"""Data of a write from this length on are received without anything of the next request."""
_BATCH = 128 << 10
"""Bytes of replies that may wait for others."""
_READ_HEAD = struct.Struct(">IHHQIQ")
"""STRUCTURED_REPLY and the offset of OFFSET_DATA."""
_KIND = 7
"""Where a request says what it is, for all kinds there are."""
_ERROR_CHUNK = struct.Struct(">IHHQIIH")
_ESHUTDOWN = 108
_WINDOW = 256 << 20
"""Bytes of a device whose extents are asked for at a time, at most."""
_MAX_EXTENTS = 1 << 16
"""In one block status reply; the client asks again for the rest."""


def serve(sock: socket.socket, agreed: Agreed, first: bytes = b"") -> None:
    """Return when the client is done or its connection is; `first` are bytes already received.
    The device is the caller's to close. OSError if the connection breaks."""
    second = SecondHand(sock, _KEEP)
    try:
        _serve(sock, agreed, first, second)
    finally:
        second.close()


def _serve(sock: socket.socket, agreed: Agreed, first: bytes, second: SecondHand) -> None:
    device = agreed.device
    structured = agreed.structured
    writable = not agreed.flags & ExportFlag.READ_ONLY
    head_size = _READ_HEAD.size if structured else SIMPLE_REPLY.size
    readinto, write = device.readinto, device.write
    recv_into, sending = sock.recv_into, threading.Lock()

    def sendall(data: Buffer) -> None:
        with sending:
            sock.sendall(data)

    over = False

    def long_write(data: memoryview, offset: int, cookie: int, fua: bool) -> None:
        nonlocal over
        error = 0
        try:
            write(offset, data, fua=fua)
        except Exception as failure:
            error = _number(failure, agreed)
        if error == _ESHUTDOWN:
            over = True
        with contextlib.suppress(OSError):  # the connection broke, as who receives sees as well
            sendall(SIMPLE_REPLY.pack(SIMPLE_REPLY_MAGIC, error, cookie))
            if over:
                sock.shutdown(socket.SHUT_RD)

    wait = _patient(sock)
    parse, read_head, simple = REQUEST.unpack_from, _READ_HEAD.pack_into, SIMPLE_REPLY.pack_into
    simple_magic, chunk_magic = SIMPLE_REPLY_MAGIC, STRUCTURED_REPLY_MAGIC

    received = memoryview(bytearray(max(_RECEIVE, len(first))))
    received[: len(first)] = first
    start, end = 0, len(first)
    replies = memoryview(bytearray(_SEND))
    filled = 0

    while True:
        if filled > _BATCH:
            sendall(replies[:filled])
            filled = 0
        if end - start < 28:
            if filled:
                sendall(replies[:filled])
                filled = 0
            if start == end:
                start = end = 0
                if len(received) > _KEEP:
                    received = memoryview(bytearray(_RECEIVE))
                if len(replies) > _KEEP:
                    replies = memoryview(bytearray(_SEND))
            elif len(received) - start < 28:
                received[: end - start] = received[start:end]
                start, end = 0, end - start
            n = wait(received[end:])
            if not n:
                return
            end += n
            continue
        magic, flags, kind, cookie, offset, length = parse(received, start)
        start += 28
        if magic != REQUEST_MAGIC:
            return
        error = 0

        if kind == 0 and 0 < length <= MAX_LENGTH and not flags & ~5:  # READ; FUA, DF
            if end - start >= 28 and received[start + _KIND] == 0:
                behind, so_far = _reads(
                    agreed, received, start - 28, end, replies=replies, filled=filled
                )
                if behind:
                    start, filled = behind, so_far
                    continue
            body = filled + head_size
            if body + length > len(replies):
                if filled:
                    sendall(replies[:filled])
                filled, body = 0, head_size
                if body + length > len(replies):
                    replies = memoryview(bytearray(body + length))
            try:
                readinto(offset, replies[body : body + length])
            except Exception as failure:
                error = _number(failure, agreed)
            else:
                if structured:
                    # DONE, OFFSET_DATA
                    read_head(replies, filled, chunk_magic, 1, 1, cookie, length + 8, offset)
                else:
                    simple(replies, filled, simple_magic, 0, cookie)
                filled = body + length

        elif kind == 1:  # WRITE
            if end - start >= length + 28 and received[start + length + _KIND] == 1 and writable:
                behind, so_far = _writes(
                    agreed, received, start - 28, end, replies=replies, filled=filled
                )
                if behind:
                    start, filled = behind, so_far
                    continue
            if length > end - start:
                if filled:
                    sendall(replies[:filled])
                    filled = 0
                if length > MAX_LENGTH:
                    _skip(recv_into, received, length - (end - start))
                    start = end = 0
                else:
                    received, end = _receive_rest(recv_into, received, start, end, length)
                    start = 0
                    if over:  # there may be more to receive all the same
                        return
                    if writable and not flags & ~1 and end == length and second.wanted(length):
                        work = partial(
                            long_write, received[:length], offset, cookie, bool(flags & 1)
                        )
                        received, end = second.take(work, received), 0
                        continue
            try:
                if not 0 < length <= MAX_LENGTH or flags & ~1:  # FUA
                    raise DeviceError("bad length or flags", errno=errno.EINVAL)
                if not writable:
                    raise DeviceError("the export is read-only", errno=errno.EROFS)
                write(offset, received[start : start + length], fua=bool(flags & 1))
            except Exception as failure:
                error = _number(failure, agreed)
            if length <= end - start:
                start += length
            if not error:
                simple(replies, filled, simple_magic, 0, cookie)
                filled += 16

        elif kind == CommandType.DISC:
            if filled:
                sendall(replies[:filled])
            return

        else:
            if filled:
                sendall(replies[:filled])
                filled = 0
            try:
                answer = _request(agreed, kind, flags, cookie=cookie, offset=offset, length=length)
            except Exception as failure:
                error = _number(failure, agreed)
            else:
                sendall(answer)

        if error:
            if structured and kind in (CommandType.READ, CommandType.BLOCK_STATUS):
                reply = _ERROR_CHUNK.pack(
                    STRUCTURED_REPLY_MAGIC, CHUNK_DONE, ChunkType.ERROR, cookie, 6, error, 0
                )
            else:
                reply = SIMPLE_REPLY.pack(SIMPLE_REPLY_MAGIC, error, cookie)
            if filled:
                sendall(replies[:filled])
                filled = 0
            sendall(reply)
            if error == _ESHUTDOWN:
                return


def _reads(
    agreed: Agreed, received: memoryview, start: int, end: int, *, replies: memoryview, filled: int
) -> tuple[int, int]:
    """Do the reads from `start` on together, their replies from `filled` on. Returns where both end
    by then; (0, 0) if nothing is done: there is but one, or one fails, and each will be answered by
    itself."""
    structured, room = agreed.structured, len(replies)
    head_size = _READ_HEAD.size if structured else SIMPLE_REPLY.size
    parse, read_head, simple = REQUEST.unpack_from, _READ_HEAD.pack_into, SIMPLE_REPLY.pack_into
    pieces: list[tuple[int, memoryview]] = []
    while end - start >= 28:
        magic, flags, kind, cookie, offset, length = parse(received, start)
        body = filled + head_size
        upto = body + length
        if kind or not length or flags & ~5 or upto > room or magic != REQUEST_MAGIC:
            break
        if structured:
            read_head(replies, filled, STRUCTURED_REPLY_MAGIC, 1, 1, cookie, length + 8, offset)
        else:
            simple(replies, filled, SIMPLE_REPLY_MAGIC, 0, cookie)
        pieces.append((offset, replies[body:upto]))
        filled = upto
        start += 28
    if len(pieces) < 2:
        return 0, 0
    try:
        agreed.device.readinto_each(pieces)
    except Exception:
        return 0, 0
    return start, filled


def _writes(
    agreed: Agreed, received: memoryview, start: int, end: int, *, replies: memoryview, filled: int
) -> tuple[int, int]:
    """As `_reads`, of writes that are here with their data. Those of a run that fails are written
    once more, each by itself: nobody was told of any."""
    room = len(replies)
    parse, simple = REQUEST.unpack_from, SIMPLE_REPLY.pack_into
    pieces: list[tuple[int, memoryview]] = []
    while end - start >= 28:
        magic, flags, kind, cookie, offset, length = parse(received, start)
        upto = start + 28 + length
        if kind != 1 or not length or flags or upto > end or magic != REQUEST_MAGIC:
            break
        if filled + 16 > room:
            break
        simple(replies, filled, SIMPLE_REPLY_MAGIC, 0, cookie)
        pieces.append((offset, received[start + 28 : upto]))
        filled += 16
        start = upto
    if len(pieces) < 2:
        return 0, 0
    try:
        agreed.device.write_each(pieces)
    except Exception:
        return 0, 0
    return start, filled


def _patient(sock: socket.socket) -> Callable[[memoryview], int]:
    receive = sock.recv_into
    if type(sock) is not socket.socket:
        return receive  # TLS has no such flag
    return patient(lambda buffer: receive(buffer, 0, socket.MSG_DONTWAIT), receive)


def _number(failure: Exception, agreed: Agreed) -> int:
    """The error number of a reply; what is not an UlvmError is a defect, logged."""
    if isinstance(failure, UlvmError):
        return error_number(failure.errno)
    log.error("NBD request on %s failed", agreed.info.name, exc_info=failure)
    return error_number(errno.EIO)


# -- receiving what is longer than the buffer -----------------------------------------------


def _receive_rest(
    recv_into: Callable[[memoryview], int],
    received: memoryview,
    start: int,
    end: int,
    length: int,
) -> tuple[memoryview, int]:
    """A write's data, of which [start, end) is here: moved to the front of the buffer, a longer
    one if need be, and received until whole. Of long data no byte more, so that those of
    the next request need not be moved. Returns the buffer and the end of what it holds."""
    have = end - start
    buffer = received if length <= len(received) else memoryview(bytearray(length))
    buffer[:have] = received[start:end]
    limit = len(buffer) if length < _EXACT else length
    while have < length:
        n = recv_into(buffer[have:limit])
        if not n:
            raise ConnectionResetError("the client went away in the middle of a write")
        have += n
    return buffer, have


def _skip(recv_into: Callable[[memoryview], int], buffer: memoryview, length: int) -> None:
    while length > 0:
        n = recv_into(buffer[: min(length, len(buffer))])
        if not n:
            raise ConnectionResetError("the client went away in the middle of a write")
        length -= n


# -- requests other than read and write -----------------------------------------------------

_ALLOWED: dict[int, int] = {
    CommandType.FLUSH: CommandFlag.FUA,
    CommandType.TRIM: CommandFlag.FUA,
    CommandType.WRITE_ZEROES: CommandFlag.FUA | CommandFlag.NO_HOLE | CommandFlag.FAST_ZERO,
    CommandType.BLOCK_STATUS: CommandFlag.FUA | CommandFlag.REQ_ONE,
}


def _request(
    agreed: Agreed, kind: int, flags: int, *, cookie: int, offset: int, length: int
) -> bytes:
    """Do it and return the reply to a success; UlvmError otherwise."""
    allowed = _ALLOWED.get(kind)
    if allowed is None or flags & ~int(allowed):
        raise DeviceError(f"unknown command {kind} or flags {flags:#x}", errno=errno.EINVAL)
    device = agreed.device
    fua = bool(flags & CommandFlag.FUA)
    if kind == CommandType.FLUSH:
        device.flush()
        return SIMPLE_REPLY.pack(SIMPLE_REPLY_MAGIC, 0, cookie)
    if length == 0:
        raise DeviceError("a request of length 0", errno=errno.EINVAL)
    if kind == CommandType.BLOCK_STATUS:
        device.check_range(offset, length)
        return _block_status(agreed, cookie, offset, length, one=bool(flags & CommandFlag.REQ_ONE))
    if agreed.flags & ExportFlag.READ_ONLY:
        raise DeviceError("the export is read-only", errno=errno.EROFS)
    if kind == CommandType.TRIM:
        # A hint, and of a client that was told that it may: an origin cannot discard while it has
        # snapshots, and got one since, say.
        with contextlib.suppress(NotSupportedError):
            device.discard(offset, length)
        if fua:
            device.flush()
    else:
        no_hole = bool(flags & CommandFlag.NO_HOLE)
        if flags & CommandFlag.FAST_ZERO and not _zeroes_fast(agreed, no_hole=no_hole):
            raise NotSupportedError("zeroing is not faster than writing here")
        device.write_zeroes(offset, length, no_hole=no_hole, fua=fua)
    return SIMPLE_REPLY.pack(SIMPLE_REPLY_MAGIC, 0, cookie)


def _zeroes_fast(agreed: Agreed, *, no_hole: bool) -> bool:
    """Where a hole can be made. Not on a snapshot: zeros there are data for its COW store."""
    return agreed.device.can_discard and not no_hole and not agreed.info.is_snapshot


def _block_status(agreed: Agreed, cookie: int, offset: int, length: int, *, one: bool) -> bytes:
    if not agreed.contexts:
        raise DeviceError("no meta context was set", errno=errno.EINVAL)
    chunks = []
    for position, (number, name) in enumerate(agreed.contexts, 1):
        runs = _allocation if name == ALLOCATION else _changed
        body = struct.pack(">I", number) + _descriptors(
            runs(agreed.device, offset, length), 1 if one else _MAX_EXTENTS
        )
        done = CHUNK_DONE if position == len(agreed.contexts) else 0
        chunks.append(
            STRUCTURED_REPLY.pack(
                STRUCTURED_REPLY_MAGIC, done, ChunkType.BLOCK_STATUS, cookie, len(body)
            )
            + body
        )
    return b"".join(chunks)


def _descriptors(runs: Iterator[tuple[int, int]], most: int) -> bytes:
    """(length, flags) each, neighbours with the same flags joined, at most so many."""
    found: list[tuple[int, int]] = []
    for length, flags in runs:
        if found and found[-1][1] == flags:
            found[-1] = (found[-1][0] + length, flags)
        elif len(found) == most:
            break
        else:
            found.append((length, flags))
    return b"".join(struct.pack(">II", *descriptor) for descriptor in found)


def _allocation(device: BlockDevice, offset: int, length: int) -> Iterator[tuple[int, int]]:
    for start, n in windows(offset, length, _WINDOW):
        for extent in device.extents(start, n):
            yield extent.length, extent.hole | extent.zero << 1


def _changed(device: BlockDevice, offset: int, length: int) -> Iterator[tuple[int, int]]:
    for start, n in windows(offset, length, _WINDOW):
        runs = device.changed(start, n)
        if runs is None:
            raise DeviceError("the export is no snapshot any more", errno=errno.EINVAL)
        for run in runs:
            yield run.length, int(run.changed)
