"""One connection to an NBD server: handshake, then one request at a time.

Everything the server says is checked before it is used: magic numbers, cookie, lengths and
offsets. A server that breaks the protocol cannot be followed any further, so the connection is
closed then. Not thread safe, but for `close`.
"""

from __future__ import annotations

import errno
import socket
import struct
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from ulvm.blockdev.base import Buffer
from ulvm.blockdev.nbd_protocol import (
    ALLOCATION,
    CHANGED,
    CHUNK_DONE,
    GREETING,
    IHAVEOPT,
    MAX_LENGTH,
    NBDMAGIC,
    OPTION,
    OPTION_REPLY,
    OPTION_REPLY_MAGIC,
    REPLY_ERROR,
    REQUEST,
    REQUEST_MAGIC,
    SIMPLE_REPLY,
    SIMPLE_REPLY_MAGIC,
    STRUCTURED_REPLY,
    STRUCTURED_REPLY_MAGIC,
    ChunkType,
    CommandType,
    HandshakeFlag,
    InfoType,
    Option,
    ReplyType,
    errno_of,
)
from ulvm.errors import DeviceError, NotFoundError, ProtocolError

__all__ = ["Address", "Connection", "ExportDetails"]

Address: TypeAlias = "str | tuple[str, int]"

_MAX_ANSWER = 64 << 10
_MAX_STATUS_REPLY = 16 << 20


@dataclass(frozen=True, slots=True)
class ExportDetails:
    """What the server says of the export; sizes in bytes. `contexts`: id by name."""

    size: int = 0
    flags: int = 0
    min_block: int = 1
    max_block: int = MAX_LENGTH
    contexts: dict[str, int] = field(default_factory=dict)


class Connection:
    """NotFoundError: no such export. DeviceError: no server. ProtocolError: not fixed newstyle."""

    def __init__(self, address: Address, export: str) -> None:
        self._cookie = 0
        self._structured = False
        self._under_way = False
        """A request has not been answered to its end. What is sent now is part of it to the server,
        so nothing must be."""
        where = address if isinstance(address, str) else f"{address[0]} port {address[1]}"
        try:
            self._sock = _dial(address)
        except OSError as error:
            raise DeviceError(
                f"Cannot connect to the NBD server at {where}: {error.strerror}.",
                errno=error.errno or errno.EIO,
            ) from error
        try:
            self.details = self._handshake(export)
        except OSError as error:
            self._sock.close()
            raise DeviceError(
                f"The NBD server at {where} hung up: {error.strerror or error}.",
                errno=error.errno or errno.EIO,
            ) from error
        except BaseException:
            self._sock.close()
            raise

    def _receive(self, length: int) -> bytes:
        data = bytearray(length)
        self._receive_into(memoryview(data))
        return bytes(data)

    def _receive_into(self, view: memoryview) -> None:
        while view:
            n = self._sock.recv_into(view)
            if not n:
                raise ConnectionResetError(errno.ECONNRESET, "the connection was closed")
            view = view[n:]

    # -- handshake --------------------------------------------------------------------------

    def _handshake(self, export: str) -> ExportDetails:
        magic, option_magic, flags = GREETING.unpack(self._receive(GREETING.size))
        if magic != NBDMAGIC or option_magic != IHAVEOPT:
            raise ProtocolError("The server does not speak newstyle NBD.")
        if not flags & HandshakeFlag.FIXED_NEWSTYLE:
            raise ProtocolError("The server does not speak fixed newstyle NBD.")
        ours = flags & (HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES)
        self._sock.sendall(struct.pack(">I", ours))
        name = export.encode()
        self._structured = self._ask(Option.STRUCTURED_REPLY, b"")[0] == ReplyType.ACK
        contexts = self._set_contexts(name) if self._structured else {}
        kind, answers = self._ask(Option.GO, struct.pack(">I", len(name)) + name + b"\0\0")
        if kind != ReplyType.ACK:
            reason = answers[-1][1].decode(errors="replace")
            if kind == ReplyType.ERR_UNKNOWN:
                raise NotFoundError(f"The NBD server has no export {export!r}.")
            raise DeviceError(f"The NBD server refuses export {export!r}: {reason}")
        details = _details(answers)
        if details is None:
            raise ProtocolError("The NBD server does not say how large the export is.")
        return replace(details, contexts=contexts)

    def _set_contexts(self, name: bytes) -> dict[str, int]:
        queries = [context.encode() for context in (ALLOCATION, CHANGED)]
        data = struct.pack(">I", len(name)) + name + struct.pack(">I", len(queries))
        for query in queries:
            data += struct.pack(">I", len(query)) + query
        contexts: dict[str, int] = {}
        kind, answers = self._ask(Option.SET_META_CONTEXT, data)
        for answer, body in answers:
            if answer == ReplyType.META_CONTEXT and len(body) > 4:
                contexts[body[4:].decode(errors="replace")] = int.from_bytes(body[:4], "big")
        return contexts if kind == ReplyType.ACK else {}

    def _ask(self, option: int, data: bytes) -> tuple[int, list[tuple[int, bytes]]]:
        """(type of the last reply, all replies): ACK or an error ends them."""
        self._sock.sendall(OPTION.pack(IHAVEOPT, option, len(data)) + data)
        answers: list[tuple[int, bytes]] = []
        while True:
            magic, about, kind, length = OPTION_REPLY.unpack(self._receive(OPTION_REPLY.size))
            if magic != OPTION_REPLY_MAGIC or about != option or length > _MAX_ANSWER:
                raise ProtocolError("The NBD server answers an option with something else.")
            answers.append((kind, self._receive(length)))
            if kind == ReplyType.ACK or kind & REPLY_ERROR:
                return kind, answers

    # -- requests ---------------------------------------------------------------------------

    def read(self, offset: int, view: memoryview) -> None:
        """Fill the view. DeviceError."""
        self._request(CommandType.READ, offset, len(view), view=view)

    def command(self, kind: int, offset: int, length: int, flags: int, data: Buffer) -> None:
        """A request whose reply holds no data."""
        self._request(kind, offset, length, flags=flags, data=data)

    def block_status(self, context: str, offset: int, length: int) -> list[tuple[int, int]]:
        """(length, flags) of runs from `offset` on, at least one."""
        bodies = self._request(CommandType.BLOCK_STATUS, offset, length)
        wanted = struct.pack(">I", self.details.contexts[context])
        for body in bodies:
            if body[:4] == wanted:
                found = list(struct.iter_unpack(">II", body[4:]))
                if found and all(run for run, _ in found):
                    return found
        self.close()
        raise DeviceError("the NBD server gives no block status", errno=errno.EIO)

    def _request(
        self,
        kind: int,
        offset: int,
        length: int,
        *,
        flags: int = 0,
        data: Buffer = b"",
        view: memoryview | None = None,
    ) -> list[bytes]:
        """Block status chunks, for other requests nothing."""
        if self.closed:
            raise DeviceError("the NBD connection is closed", errno=errno.EIO)
        if self._under_way:
            self.close()
            raise DeviceError("the NBD connection was interrupted", errno=errno.EIO)
        self._under_way = True
        self._cookie += 1
        header = REQUEST.pack(REQUEST_MAGIC, flags, kind, self._cookie, offset, length)
        try:
            self._send(header, data)
            error, text, bodies = self._reply(offset, view)
        except OSError as failure:
            self.close()
            raise DeviceError(
                f"the NBD connection broke: {failure.strerror or failure}", errno=errno.EIO
            ) from failure
        except ProtocolError as failure:
            self.close()
            raise DeviceError(failure.message, errno=errno.EIO) from failure
        self._under_way = False
        if error:
            code = errno_of(error)
            raise DeviceError(
                f"the NBD server answers: {text or errno.errorcode[code]}", errno=code
            )
        return bodies

    def _send(self, header: bytes, data: Buffer) -> None:
        if not data:
            self._sock.sendall(header)
            return
        sent = self._sock.sendmsg((header, data))
        if sent < len(header):
            self._sock.sendall(header[sent:])
            sent = len(header)
        if sent < len(header) + len(data):
            self._sock.sendall(memoryview(data)[sent - len(header) :])

    def _reply(self, offset: int, view: memoryview | None) -> tuple[int, str, list[bytes]]:
        """(error number, its text, block status chunks)."""
        error, text = 0, ""
        bodies: list[bytes] = []
        covered = 0
        while True:
            head = self._receive(SIMPLE_REPLY.size)
            magic, first, cookie = SIMPLE_REPLY.unpack(head)
            if magic == SIMPLE_REPLY_MAGIC and not bodies and not covered:
                self._check_cookie(cookie)
                if view is not None and self._structured:
                    if not first:
                        raise ProtocolError("a simple reply to a read after structured replies")
                elif view is not None and not first:
                    self._receive_into(view)
                return first, "", []
            if magic != STRUCTURED_REPLY_MAGIC or not self._structured:
                raise ProtocolError(f"the NBD server sent a reply of magic {magic:#x}")
            head += self._receive(STRUCTURED_REPLY.size - SIMPLE_REPLY.size)
            _, flags, kind, cookie, length = STRUCTURED_REPLY.unpack(head)
            self._check_cookie(cookie)
            if kind in (ChunkType.OFFSET_DATA, ChunkType.OFFSET_HOLE) and view is not None:
                covered += self._data_chunk(kind, length, offset, view)
            elif kind & 1 << 15:
                error, text = _error_chunk(self._bounded(length))
            elif kind == ChunkType.BLOCK_STATUS and length % 8 == 4:
                bodies.append(self._bounded(length))
            elif kind != ChunkType.NONE or length:
                raise ProtocolError(f"the NBD server sent a chunk of type {kind}")
            if flags & CHUNK_DONE:
                if view is not None and not error and covered != len(view):
                    raise ProtocolError("the NBD server sent less than was read")
                return error, text, bodies

    def _check_cookie(self, cookie: int) -> None:
        if cookie != self._cookie:
            raise ProtocolError("the NBD server answers another request")

    def _bounded(self, length: int) -> bytes:
        if length > _MAX_STATUS_REPLY:
            raise ProtocolError(f"the NBD server sent a chunk of {length} bytes")
        return self._receive(length)

    def _data_chunk(self, kind: int, length: int, offset: int, view: memoryview) -> int:
        """Put it in its place; returns how many bytes it covers."""
        if length < 8 or (kind == ChunkType.OFFSET_HOLE and length != 12):
            raise ProtocolError("the NBD server sent a data chunk without its place")
        start = int.from_bytes(self._receive(8), "big") - offset
        hole = kind == ChunkType.OFFSET_HOLE
        n = int.from_bytes(self._receive(4), "big") if hole else length - 8
        if start < 0 or n <= 0 or start + n > len(view):
            raise ProtocolError("the NBD server sent data that were not asked for")
        if hole:
            view[start : start + n] = bytes(n)
        else:
            self._receive_into(view[start : start + n])
        return n

    @property
    def closed(self) -> bool:
        return self._sock.fileno() < 0

    def close(self) -> None:
        """Say goodbye, if the server listens for it. Another thread's request fails. Idempotent."""
        if self.closed:
            return
        try:
            if self._under_way:
                self._sock.shutdown(socket.SHUT_RDWR)  # wakes who waits there
            else:
                goodbye = REQUEST.pack(REQUEST_MAGIC, 0, CommandType.DISC, 0, 0, 0)
                self._sock.sendall(goodbye)
        except OSError:  # it is gone already
            pass
        finally:
            self._sock.close()


def _dial(address: Address) -> socket.socket:
    if isinstance(address, tuple):
        sock = socket.create_connection(address)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.connect(address)
    except OSError:
        sock.close()
        raise
    return sock


def _details(answers: list[tuple[int, bytes]]) -> ExportDetails | None:
    details: ExportDetails | None = None
    sizes: tuple[int, int, int] | None = None
    for kind, body in answers:
        if kind != ReplyType.INFO or len(body) < 2:
            continue
        what = int.from_bytes(body[:2], "big")
        if what == InfoType.EXPORT and len(body) == 12:
            details = ExportDetails(*struct.unpack(">QH", body[2:]))
        elif what == InfoType.BLOCK_SIZE and len(body) == 14:
            sizes = struct.unpack(">III", body[2:])
    if details is not None and sizes is not None and sizes[0] and sizes[2] >= 4096:
        return replace(details, min_block=sizes[0], max_block=min(sizes[2], MAX_LENGTH))
    return details


def _error_chunk(body: bytes) -> tuple[int, str]:
    if len(body) < 6:
        raise ProtocolError("the NBD server sent an error without a number")
    number, length = struct.unpack_from(">IH", body)
    return number or 5, body[6 : 6 + length].decode(errors="replace")
