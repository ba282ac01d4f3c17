"""The NBD protocol's numbers and structures, for the server and the client.

Source: doc/proto.md of the NetworkBlockDevice project, whose names are used. All integers are
big-endian.

    greeting   NBDMAGIC u64, IHAVEOPT u64, handshake flags u16; the client answers u32 flags
    option     IHAVEOPT u64, option u32, length u32, data
    answer     OPTION_REPLY u64, option u32, type u32, length u32, data
    request    REQUEST u32, flags u16, type u16, cookie u64, offset u64, length u32, data
    simple     SIMPLE_REPLY u32, error u32, cookie u64, data
    structured STRUCTURED_REPLY u32, flags u16, type u16, cookie u64, length u32, data
"""

from __future__ import annotations

import errno
import struct
from enum import IntEnum, IntFlag

__all__ = [
    "ALLOCATION",
    "CHANGED",
    "CHUNK_DONE",
    "GREETING",
    "IHAVEOPT",
    "MAX_LENGTH",
    "NBDMAGIC",
    "OPTION",
    "OPTION_REPLY",
    "OPTION_REPLY_MAGIC",
    "REPLY_ERROR",
    "REQUEST",
    "REQUEST_MAGIC",
    "SIMPLE_REPLY",
    "SIMPLE_REPLY_MAGIC",
    "STRUCTURED_REPLY",
    "STRUCTURED_REPLY_MAGIC",
    "ChunkType",
    "CommandFlag",
    "CommandType",
    "ExportFlag",
    "HandshakeFlag",
    "InfoType",
    "Option",
    "ReplyType",
    "errno_of",
    "error_number",
]

NBDMAGIC = 0x4E42444D41474943
IHAVEOPT = 0x49484156454F5054
OPTION_REPLY_MAGIC = 0x0003E889045565A9
REQUEST_MAGIC = 0x25609513
SIMPLE_REPLY_MAGIC = 0x67446698
STRUCTURED_REPLY_MAGIC = 0x668E33EF

GREETING = struct.Struct(">QQH")
OPTION = struct.Struct(">QII")
OPTION_REPLY = struct.Struct(">QIII")
REQUEST = struct.Struct(">IHHQQI")
SIMPLE_REPLY = struct.Struct(">IIQ")
STRUCTURED_REPLY = struct.Struct(">IHHQI")

MAX_LENGTH = 32 << 20
"""Bytes of data in one request or reply: what the document says every peer should take."""

ALLOCATION = "base:allocation"
"""Bit 0: a hole; bit 1: reads as zeros."""
CHANGED = "ulvm:changed"
"""Bit 0: this run of a snapshot lies in its COW store; clear: it is the origin's."""


class HandshakeFlag(IntFlag):
    FIXED_NEWSTYLE = 1
    NO_ZEROES = 2


class Option(IntEnum):
    EXPORT_NAME = 1
    ABORT = 2
    LIST = 3
    STARTTLS = 5
    INFO = 6
    GO = 7
    STRUCTURED_REPLY = 8
    LIST_META_CONTEXT = 9
    SET_META_CONTEXT = 10


REPLY_ERROR = 1 << 31


class ReplyType(IntEnum):
    ACK = 1
    SERVER = 2
    INFO = 3
    META_CONTEXT = 4
    ERR_UNSUP = REPLY_ERROR | 1
    ERR_POLICY = REPLY_ERROR | 2
    ERR_INVALID = REPLY_ERROR | 3
    ERR_TLS_REQD = REPLY_ERROR | 5
    ERR_UNKNOWN = REPLY_ERROR | 6
    ERR_SHUTDOWN = REPLY_ERROR | 7
    ERR_TOO_BIG = REPLY_ERROR | 9


class InfoType(IntEnum):
    EXPORT = 0
    NAME = 1
    DESCRIPTION = 2
    BLOCK_SIZE = 3


class ExportFlag(IntFlag):
    HAS_FLAGS = 1
    READ_ONLY = 2
    SEND_FLUSH = 4
    SEND_FUA = 8
    SEND_TRIM = 32
    SEND_WRITE_ZEROES = 64
    SEND_DF = 128
    CAN_MULTI_CONN = 256
    SEND_FAST_ZERO = 2048


class CommandType(IntEnum):
    READ = 0
    WRITE = 1
    DISC = 2
    FLUSH = 3
    TRIM = 4
    WRITE_ZEROES = 6
    BLOCK_STATUS = 7


class CommandFlag(IntFlag):
    FUA = 1
    NO_HOLE = 2
    DF = 4
    REQ_ONE = 8
    FAST_ZERO = 16


class ChunkType(IntEnum):
    NONE = 0
    OFFSET_DATA = 1
    OFFSET_HOLE = 2
    BLOCK_STATUS = 5
    ERROR = 32769
    ERROR_OFFSET = 32770


CHUNK_DONE = 1

_ERRORS = {
    1: errno.EPERM,
    5: errno.EIO,
    12: errno.ENOMEM,
    22: errno.EINVAL,
    28: errno.ENOSPC,
    75: errno.EOVERFLOW,
    95: errno.EOPNOTSUPP,
    108: errno.ESHUTDOWN,
}
_NUMBERS = {code: number for number, code in _ERRORS.items()} | {
    errno.EROFS: 1,
    errno.EACCES: 1,
    errno.EBADF: 1,
    errno.EDQUOT: 28,
    errno.EFBIG: 28,
    errno.ENXIO: 108,
    errno.ENODEV: 108,
}


def error_number(code: int) -> int:
    """The protocol's number for an errno; EIO for what it has no word for."""
    return _NUMBERS.get(code, 5)


def errno_of(number: int) -> int:
    """The errno for the protocol's number; unknown ones count as EINVAL (proto.md)."""
    return _ERRORS.get(number, errno.EINVAL)
