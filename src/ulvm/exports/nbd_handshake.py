"""NBD's handshake (fixed newstyle) without I/O: bytes in, bytes out.

States: `flags` (the client's answer to the greeting is awaited), `options` (any number of them),
then for good `transmission` (`agreed` says on what) or `closed`.

| option                 | answer                                                          |
| ---                    | ---                                                             |
| EXPORT_NAME            | the export's size and flags -> transmission; unknown -> closed  |
| GO                     | INFO ..., ACK -> transmission; else an error, still in options  |
| INFO                   | INFO ..., ACK                                                   |
| LIST                   | SERVER ..., ACK                                                 |
| STRUCTURED_REPLY       | ACK                                                             |
| LIST/SET_META_CONTEXT  | META_CONTEXT ..., ACK                                           |
| ABORT                  | ACK -> closed                                                   |
| anything else          | ERR_UNSUP                                                       |

An option whose data do not follow its structure gets ERR_INVALID. A wrong magic number, client
flags that we do not know or an option of more than 64 KiB close the connection: nothing can be
known about what follows. Meta contexts hold for the export for which they were set, and only there.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from ulvm.blockdev.base import BlockDevice
from ulvm.blockdev.nbd_protocol import (
    ALLOCATION,
    CHANGED,
    GREETING,
    IHAVEOPT,
    MAX_LENGTH,
    NBDMAGIC,
    OPTION,
    OPTION_REPLY,
    OPTION_REPLY_MAGIC,
    ExportFlag,
    HandshakeFlag,
    InfoType,
    Option,
    ReplyType,
)
from ulvm.errors import FormatError, NotFoundError, UlvmError
from ulvm.exports.source import ExportInfo, ExportSource

__all__ = ["Agreed", "Handshake"]

_MAX_OPTION = 64 << 10
_MAX_NAME = 4096
_PREFERRED = 4096
_CONTEXT_IDS = {ALLOCATION: 1, CHANGED: 2}
_OUR_FLAGS = int(HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES)
"""An int: the complement of an IntFlag has only the bits that have names."""


@dataclass(frozen=True, slots=True)
class Agreed:
    """What a connection serves. `contexts`: (id, name) in the order of the block status reply."""

    info: ExportInfo
    device: BlockDevice
    flags: ExportFlag
    structured: bool
    contexts: tuple[tuple[int, str], ...]


class _Fields:
    """Takes an option's data apart; FormatError where they end early or late."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def take(self, length: int) -> bytes:
        part = self._data[self._position : self._position + length]
        if len(part) != length:
            raise FormatError("the option's data are too short")
        self._position += length
        return part

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def text(self) -> str:
        length = self.number(4)
        if length > _MAX_NAME:
            raise FormatError(f"a name of {length} bytes is too long")
        return _decode(self.take(length))

    def end(self) -> None:
        if self._position != len(self._data):
            raise FormatError("the option's data are too long")


def _decode(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise FormatError("a name is not UTF-8") from error


class Handshake:
    """Feed what the client sends, send what comes back, until `agreed` or `closed`. The
    device of `agreed` is open and the caller's to close. `rest`: bytes that came after the end.

    With `tls` nothing is told to a client before STARTTLS: `starting_tls` says that the caller has
    to secure the connection now and to call `secured`. What came behind that option in the clear
    was not said by whom the certificate names, so the client must not have sent it."""

    def __init__(self, source: ExportSource, *, tls: bool = False) -> None:
        self.starting_tls = False
        self._tls = tls
        self.agreed: Agreed | None = None
        self.closed = False
        self.rest = b""
        self._source = source
        self._pending = b""
        self._flags: int | None = None
        self._structured = False
        self._contexts: tuple[str, tuple[str, ...]] = ("", ())

    @property
    def greeting(self) -> bytes:
        return GREETING.pack(NBDMAGIC, IHAVEOPT, _OUR_FLAGS)

    def feed(self, data: bytes) -> bytes:
        """The answer to these bytes, perhaps none."""
        self._pending += data
        answers = b""
        while not self.closed and self.agreed is None and not self.starting_tls:
            answer = self._step()
            if answer is None:
                return answers
            answers += answer
        self.rest, self._pending = self._pending, b""
        return answers

    def secured(self) -> None:
        """The connection is a TLS one from here on. FormatError if bytes came before that."""
        if self.rest:
            raise FormatError("the client sent bytes in the clear behind STARTTLS")
        self.starting_tls = self._tls = False

    def _step(self) -> bytes | None:
        """Handle one message; None if it is not whole yet."""
        if self._flags is None:
            return self._client_flags()
        if len(self._pending) < OPTION.size:
            return None
        magic, option, length = OPTION.unpack_from(self._pending)
        if magic != IHAVEOPT:
            self.closed = True
            return b""
        if length > _MAX_OPTION:
            self.closed = True
            return _reply(option, ReplyType.ERR_TOO_BIG, b"the option is too long")
        if len(self._pending) < OPTION.size + length:
            return None
        data = self._pending[OPTION.size : OPTION.size + length]
        self._pending = self._pending[OPTION.size + length :]
        try:
            return self._option(option, data)
        except FormatError as error:
            self.closed = option == Option.EXPORT_NAME
            return b"" if self.closed else _refuse(option, ReplyType.ERR_INVALID, error)

    def _client_flags(self) -> bytes | None:
        if len(self._pending) < 4:
            return None
        flags = int.from_bytes(self._pending[:4], "big")
        self._pending = self._pending[4:]
        self._flags = flags
        self.closed = bool(flags & ~_OUR_FLAGS) or not flags & HandshakeFlag.FIXED_NEWSTYLE
        return b""

    # -- options ----------------------------------------------------------------------------

    def _option(self, option: int, data: bytes) -> bytes:
        if self._tls and option != Option.ABORT:
            return self._before_tls(option, data)
        match option:
            case Option.EXPORT_NAME:
                return self._export_name(data)
            case Option.ABORT:
                self.closed = True
                return _reply(option, ReplyType.ACK)
            case Option.LIST:
                _Fields(data).end()
                return self._list()
            case Option.INFO | Option.GO:
                return self._info(option, data)
            case Option.STRUCTURED_REPLY:
                _Fields(data).end()
                self._structured = True
                return _reply(option, ReplyType.ACK)
            case Option.LIST_META_CONTEXT | Option.SET_META_CONTEXT:
                return self._meta_context(option, data)
            case _:
                return _reply(option, ReplyType.ERR_UNSUP, b"this option is not supported")

    def _before_tls(self, option: int, data: bytes) -> bytes:
        if option == Option.STARTTLS:
            _Fields(data).end()
            self.starting_tls = True
            return _reply(option, ReplyType.ACK)
        self.closed = option == Option.EXPORT_NAME
        return b"" if self.closed else _reply(option, ReplyType.ERR_TLS_REQD, b"TLS comes first")

    def _list(self) -> bytes:
        names = [info.name.encode() for info in self._source.exports()]
        answers = [
            _reply(Option.LIST, ReplyType.SERVER, struct.pack(">I", len(name)) + name)
            for name in names
        ]
        return b"".join(answers) + _reply(Option.LIST, ReplyType.ACK)

    def _open(self, name: str) -> Agreed:
        info = self._source.describe(name)
        device = self._source.open(name, write=not info.read_only)
        try:
            flags = _flags_of(device, structured=self._structured)
        except BaseException:
            device.close()
            raise
        asked = self._contexts[1] if self._contexts[0] == name else ()
        contexts = tuple(
            (_CONTEXT_IDS[context], context) for context in asked if context in _offered(info)
        )
        return Agreed(info, device, flags, self._structured, contexts)

    def _export_name(self, data: bytes) -> bytes:
        try:
            agreed = self._open(_decode(data))
        except UlvmError:  # this option has no error reply: proto.md wants the connection closed
            self.closed = True
            return b""
        self.agreed = agreed
        assert self._flags is not None
        padding = 0 if self._flags & HandshakeFlag.NO_ZEROES else 124
        return struct.pack(">QH", agreed.device.size, agreed.flags) + bytes(padding)

    def _info(self, option: int, data: bytes) -> bytes:
        fields = _Fields(data)
        name = fields.text()
        wanted = {fields.number(2) for _ in range(fields.number(2))}
        fields.end()
        try:
            agreed = self._open(name)
        except NotFoundError as error:
            return _refuse(option, ReplyType.ERR_UNKNOWN, error)
        except UlvmError as error:
            return _refuse(option, ReplyType.ERR_POLICY, error)
        size = agreed.device.size
        infos = [
            struct.pack(">HQH", InfoType.EXPORT, size, agreed.flags),
            struct.pack(
                ">HIII",
                InfoType.BLOCK_SIZE,
                1,
                max(_PREFERRED, agreed.device.block_size),
                MAX_LENGTH,
            ),
        ]
        if InfoType.NAME in wanted:
            infos.append(struct.pack(">H", InfoType.NAME) + name.encode())
        if InfoType.DESCRIPTION in wanted and agreed.info.description:
            infos.append(struct.pack(">H", InfoType.DESCRIPTION) + agreed.info.description.encode())
        if option == Option.GO:
            self.agreed = agreed
        else:
            agreed.device.close()
        answers = [_reply(option, ReplyType.INFO, info) for info in infos]
        return b"".join(answers) + _reply(option, ReplyType.ACK)

    def _meta_context(self, option: int, data: bytes) -> bytes:
        setting = option == Option.SET_META_CONTEXT
        if setting:  # those of before go even if this fails
            self._contexts = ("", ())
        fields = _Fields(data)
        name = fields.text()
        queries = [fields.text() for _ in range(fields.number(4))]
        fields.end()
        if not self._structured:
            return _reply(option, ReplyType.ERR_INVALID, b"structured replies come first")
        try:
            offered = _offered(self._source.describe(name))
        except UlvmError as error:
            return _refuse(option, ReplyType.ERR_UNKNOWN, error)
        chosen = tuple(
            context for context in offered if _asked(context, queries, listing=not setting)
        )
        if setting:
            self._contexts = (name, chosen)
        answers = []
        for context in chosen:
            number = _CONTEXT_IDS[context] if setting else 0
            body = struct.pack(">I", number) + context.encode()
            answers.append(_reply(option, ReplyType.META_CONTEXT, body))
        return b"".join(answers) + _reply(option, ReplyType.ACK)


def _offered(info: ExportInfo) -> tuple[str, ...]:
    return (ALLOCATION, CHANGED) if info.is_snapshot else (ALLOCATION,)


def _asked(context: str, queries: list[str], *, listing: bool) -> bool:
    """A list may ask for all (no query) or for a namespace (`base:`)."""
    namespace = context[: context.index(":") + 1]
    return context in queries or (listing and (not queries or namespace in queries))


def _flags_of(device: BlockDevice, *, structured: bool) -> ExportFlag:
    flags = ExportFlag.HAS_FLAGS | ExportFlag.SEND_FLUSH | ExportFlag.CAN_MULTI_CONN
    if device.read_only:
        flags |= ExportFlag.READ_ONLY
    else:
        flags |= ExportFlag.SEND_FUA | ExportFlag.SEND_WRITE_ZEROES | ExportFlag.SEND_FAST_ZERO
        if device.can_discard:
            flags |= ExportFlag.SEND_TRIM
    if structured:
        flags |= ExportFlag.SEND_DF
    return flags


def _reply(option: int, kind: int, data: bytes = b"") -> bytes:
    return OPTION_REPLY.pack(OPTION_REPLY_MAGIC, option, kind, len(data)) + data


def _refuse(option: int, kind: int, error: UlvmError) -> bytes:
    return _reply(option, kind, error.message.encode()[:_MAX_NAME])
