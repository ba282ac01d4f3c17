"""An NBD export as a block device: the client's side of the protocol.

Requests are synchronous; `connections` of them can be under way at a time, the others wait (only
where the server says that a flush on one connection covers all, else there is one). A request
longer than the server takes is split.

When a connection breaks, or its peer breaks the protocol, its request fails with EIO. What was
written and not flushed may then be lost, so there is no quiet reconnection: all connections are
closed and every later request fails too.

Locking: a connection belongs to the thread that took it out of the pool.
"""

from __future__ import annotations

import errno
import queue
from collections.abc import Iterator
from contextlib import contextmanager

from ulvm.blockdev.base import BlockDevice, Buffer, Changed, Extent, WritableBuffer
from ulvm.blockdev.nbd_connection import Address, Connection, ExportDetails
from ulvm.blockdev.nbd_protocol import (
    ALLOCATION,
    CHANGED,
    CommandFlag,
    CommandType,
    ExportFlag,
)
from ulvm.errors import DeviceError, NotSupportedError

__all__ = ["NbdDevice"]

_MAX_STATUS = 1 << 30
"""Bytes of a block status or zeroing request: a multiple of any block size, below 4 GiB."""


class NbdDevice(BlockDevice):
    """`address`: the path of a Unix socket or (host, port).

    NotFoundError if the server has no such export, DeviceError if there is no server, ProtocolError
    if it does not speak fixed newstyle. `size` is what it was when the device was opened.
    """

    def __init__(
        self, address: Address, export: str, *, connections: int = 1, read_only: bool = False
    ) -> None:
        self._pool: queue.LifoQueue[Connection] = queue.LifoQueue()
        self._all: list[Connection] = []
        first = self._connect(address, export)
        details = first.details
        self._details: ExportDetails = details
        try:
            if details.flags & ExportFlag.CAN_MULTI_CONN:
                for _ in range(connections - 1):
                    self._connect(address, export)
        except BaseException:
            self.close()
            raise
        self.read_only = read_only or bool(details.flags & ExportFlag.READ_ONLY)
        self.block_size = min(max(details.min_block, 512), 4096)
        self.can_discard = not self.read_only and bool(details.flags & ExportFlag.SEND_TRIM)

    def _connect(self, address: Address, export: str) -> Connection:
        connection = Connection(address, export)
        self._all.append(connection)
        self._pool.put(connection)
        return connection

    @property
    def size(self) -> int:
        return self._details.size

    @contextmanager
    def _borrow(self) -> Iterator[Connection]:
        connection = self._pool.get()
        try:
            yield connection
        finally:
            self._pool.put(connection)
            if connection.closed:
                self.close()

    def readinto(self, offset: int, buffer: WritableBuffer) -> None:
        self.check_range(offset, len(buffer))
        view = memoryview(buffer)
        for position, n in _pieces(len(view), self._details.max_block):
            part = view[position : position + n]
            with self._borrow() as connection:
                connection.read(offset + position, part)

    def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
        self._check_write(offset, len(data))
        flag = self._fua(fua)
        view = memoryview(data)
        for position, n in _pieces(len(view), self._details.max_block):
            part = view[position : position + n]
            self._command(CommandType.WRITE, offset + position, n, flag, part)
        if fua and not flag:
            self.flush()

    def _check_write(self, offset: int, length: int) -> None:
        self.check_range(offset, length, write=True)
        if self.read_only:
            raise DeviceError("the NBD export is read-only", errno=errno.EROFS)

    def _fua(self, fua: bool) -> int:
        return CommandFlag.FUA if fua and self._details.flags & ExportFlag.SEND_FUA else 0

    def _command(
        self, kind: int, offset: int, length: int, flags: int = 0, data: Buffer = b""
    ) -> None:
        with self._borrow() as connection:
            connection.command(kind, offset, length, flags, data)

    def flush(self) -> None:
        if self._details.flags & ExportFlag.SEND_FLUSH:
            self._command(CommandType.FLUSH, 0, 0)

    def discard(self, offset: int, length: int) -> None:
        self._check_write(offset, length)
        if not self.can_discard:
            raise NotSupportedError("the NBD export does not support discard")
        for position, n in _pieces(length, _MAX_STATUS):
            self._command(CommandType.TRIM, offset + position, n)

    def write_zeroes(
        self, offset: int, length: int, *, no_hole: bool = False, fua: bool = False
    ) -> None:
        self._check_write(offset, length)
        if not self._details.flags & ExportFlag.SEND_WRITE_ZEROES:
            super().write_zeroes(offset, length, no_hole=no_hole, fua=fua)
            return
        flag = self._fua(fua)
        flags = flag | (CommandFlag.NO_HOLE if no_hole else 0)
        for position, n in _pieces(length, _MAX_STATUS):
            self._command(CommandType.WRITE_ZEROES, offset + position, n, flags)
        if fua and not flag:
            self.flush()

    def _status(self, context: str, offset: int, length: int) -> Iterator[tuple[int, int, int]]:
        """(offset, length, flags) of runs that cover the range; the server may answer less than
        what was asked, or more."""
        end = offset + length
        while offset < end:
            with self._borrow() as connection:
                runs = connection.block_status(context, offset, min(_MAX_STATUS, end - offset))
            for length_of_run, flags in runs:
                n = min(length_of_run, end - offset)
                if n:
                    yield offset, n, flags
                offset += n

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        self.check_range(offset, length)
        if ALLOCATION not in self._details.contexts:
            yield from super().extents(offset, length)
            return
        for start, run, flags in self._status(ALLOCATION, offset, length):
            yield Extent(start, run, bool(flags & 1), bool(flags & 2))

    def changed(self, offset: int, length: int) -> Iterator[Changed] | None:
        self.check_range(offset, length)
        if CHANGED not in self._details.contexts:
            return None
        runs = self._status(CHANGED, offset, length)
        return (Changed(start, run, bool(flags & 1)) for start, run, flags in runs)

    def close(self) -> None:
        for connection in self._all:
            connection.close()


def _pieces(length: int, most: int) -> Iterator[tuple[int, int]]:
    """(position, length) of the parts of a request."""
    for position in range(0, length, most):
        yield position, min(most, length - position)
