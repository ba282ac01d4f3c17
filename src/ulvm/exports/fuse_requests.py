"""The fast path of FUSE: READ and WRITE are taken from /dev/fuse and answered there by Python.

Anything else is for libfuse, which gets it in the buffer in which it came. libfuse's way of a read
is a C function that finds the node, locks it, allocates, calls Python through ctypes, which looks
at the file handle through ctypes, and writes the answer: most of the time of a request of 4 KiB.
Here it is two system calls around the device's own, one `unpack` and one `pack_into`, in one buffer
a thread: the data of a read are put behind the header of the answer.

libfuse need not know of these requests: they change nothing that it keeps. The number of a file
handle is what the open gave it, and the kernel sends it along. INTERRUPT is dropped, since no
request here is cut short for it (the kernel allows that); libfuse, which would wait for the request
that it belongs to, must not see it.

The layout is that of linux/fuse.h: struct fuse_in_header, fuse_read_in, fuse_write_in,
fuse_out_header and fuse_write_out, in the machine's byte order.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import select
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from ulvm.blockdev.base import BlockDevice
from ulvm.errors import UlvmError
from ulvm.exports.patience import patient

__all__ = ["MAX_IO", "Requests"]

log = logging.getLogger(__name__)

MAX_IO = 1 << 20
"""Largest read or write request in bytes; the kernel allows 256 pages."""

_LOOKUP = 1  # enum fuse_opcode
_GETATTR = 3
_UNLINK = 10
_READ = 15
_WRITE = 16
_INTERRUPT = 36

_IN = struct.Struct("=4xIQ24x")
"""fuse_in_header: (len), opcode, unique, (nodeid, uid, gid, pid, padding)."""
_IO = struct.Struct("=QQI12xI4x")
"""fuse_read_in and fuse_write_in: fh, offset, size, (flags of the request, lock_owner), flags of
the open file, (padding)."""
_OUT = struct.Struct("=IiQ")
"""fuse_out_header: len, error, unique."""
_WRITTEN = struct.Struct("=IiQII")
"""fuse_out_header and fuse_write_out: size, padding."""

_NODE = struct.Struct("=Q")
_NODE_AT = 16
_HEAD = struct.Struct("=IQ")
"""opcode and unique, from 4 on."""
_BY_HANDLE = struct.Struct("=I")
"""getattr_flags of fuse_getattr_in: FUSE_GETATTR_FH."""
_OURS = 1 << 62
"""The unique of a request that is not the kernel's, which counts from 0 on: it takes no answer to
it (ENOENT), and libfuse does not mind."""

_DATA = _IN.size + _IO.size
_BUFFER = MAX_IO + 4096
"""The kernel wants room for the largest request with its headers."""

_TAKEN_BACK = (errno.ENOENT, errno.EINTR)
"""read(2): the request that came was."""


def _receiver(descriptor: int, end: int) -> Callable[[memoryview], int]:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    poll.register(end, select.POLLIN)

    def take(buffer: memoryview) -> int:
        """BlockingIOError if there is none."""
        while True:
            try:
                return os.readv(descriptor, (buffer,))
            except OSError as error:
                if error.errno == errno.ENODEV:
                    return 0
                if error.errno not in _TAKEN_BACK:
                    raise

    def sleep(buffer: memoryview) -> int:
        while True:
            ready = poll.poll()
            if len(ready) > 1 or ready[0][0] == end:
                return 0
            try:
                return take(buffer)
            except BlockingIOError:  # another thread was first
                continue

    return patient(take, sleep)


class Requests:
    """One thread's. `descriptor` does not block; once `end` can be read who would wait for a
    request finds the file system unmounted. `devices` are the open files, by the numbers of their
    handles; the table is the caller's, and changes while we look."""

    def __init__(self, descriptor: int, end: int, devices: Mapping[int, BlockDevice]) -> None:
        self._descriptor = descriptor
        self._devices = devices
        self._buffer = bytearray(_BUFFER)
        self._view = memoryview(self._buffer)
        # Nothing of it refers to us: the buffer is to go when the thread ends.
        self._wait = _receiver(descriptor, end)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self._buffer))
        """Of the request that was received."""

    def receive(self) -> int:
        """Wait for a request; its length. 0 when the file system is unmounted; OSError for what
        should not happen."""
        return self._wait(self._view)

    @property
    def is_lookup(self) -> bool:
        """Whether what was received asks for a name, not for a file that the kernel knows."""
        return bool(_IN.unpack_from(self._buffer)[0] == _LOOKUP)

    @property
    def is_getattr(self) -> bool:
        return bool(_IN.unpack_from(self._buffer)[0] == _GETATTR)

    @property
    def is_ours(self) -> bool:
        """Within `as_unlink`."""
        return bool(_IN.unpack_from(self._buffer)[1] == _OURS)

    @property
    def node(self) -> int:
        """What it is about: of a lookup the directory."""
        return int(_NODE.unpack_from(self._buffer, _NODE_AT)[0])

    @property
    def place(self) -> tuple[int, bytes]:
        """Of a lookup: the directory and the name."""
        return self.node, bytes(self._buffer[40 : self._buffer.index(0, 40)])

    @contextmanager
    def as_unlink(self) -> Iterator[None]:
        """For libfuse, in between, a lookup is a removal of the name: both have the same form."""
        saved = bytes(self._buffer[4:16])
        _HEAD.pack_into(self._buffer, 4, _UNLINK, _OURS)
        try:
            yield
        finally:
            self._buffer[4:16] = saved

    def ask_the_handle(self) -> None:
        """libfuse is to look for no name for this GETATTR: the operation knows who has the node
        open."""
        _BY_HANDLE.pack_into(self._buffer, 40, 1)

    def answer(self) -> bool:
        """Answer what was received; False if it is for libfuse. Flat on purpose."""
        buffer = self._buffer
        opcode, unique = _IN.unpack_from(buffer)
        if opcode == _READ:
            handle, offset, size, _ = _IO.unpack_from(buffer, 40)
            try:
                device = self._devices[handle]
                end = device.size
                if offset + size > end:
                    size = max(0, end - offset)
                if size:
                    device.readinto(offset, self._view[16 : 16 + size])
            except Exception as error:
                self._fail(error, "read", unique, offset, size)
                return True
            _OUT.pack_into(buffer, 0, 16 + size, 0, unique)
            length = 16 + size
        elif opcode == _WRITE:
            handle, offset, size, flags = _IO.unpack_from(buffer, 40)
            try:
                device = self._devices[handle]
                end = device.size
                if offset + size > end:
                    size = end - offset
                    if size <= 0:
                        self._send(_OUT.pack(16, -errno.ENOSPC, unique))
                        return True
                # The kernel sends no fsync behind a synchronous write to a direct_io file; that it
                # is one (O_SYNC, O_DSYNC, RWF_DSYNC) stands in the flags of the file alone.
                fua = bool(flags & os.O_DSYNC)
                device.write(offset, self._view[_DATA : _DATA + size], fua=fua)
            except Exception as error:
                self._fail(error, "write", unique, offset, size)
                return True
            _WRITTEN.pack_into(buffer, 0, 24, 0, unique, size, 0)
            length = 24
        else:
            return bool(opcode == _INTERRUPT)
        self._send(self._view[:length])
        return True

    def _fail(self, error: Exception, what: str, unique: int, offset: int, size: int) -> None:
        if isinstance(error, UlvmError):
            number = error.errno
        else:
            log.error("FUSE %s of %d bytes at %d failed", what, size, offset, exc_info=error)
            number = errno.EIO
        self._send(_OUT.pack(16, -number, unique))

    def _send(self, answer: bytes | memoryview) -> None:
        try:
            os.write(self._descriptor, answer)
        except OSError as error:
            # The asker was killed, or the connection is gone: nobody is left to be told.
            if error.errno not in (errno.ENOENT, errno.ENODEV):
                log.error("FUSE answer was not taken: %s", error)
