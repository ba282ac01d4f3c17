"""The handshake, byte for byte, without a socket."""

from __future__ import annotations

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.static_source import StaticSource
from ulvm.blockdev.base import BlockDevice
from ulvm.blockdev.memory import MemoryDevice
from ulvm.blockdev.nbd_protocol import (
    GREETING,
    IHAVEOPT,
    NBDMAGIC,
    OPTION,
    OPTION_REPLY,
    OPTION_REPLY_MAGIC,
    ExportFlag,
    InfoType,
    Option,
    ReplyType,
)
from ulvm.errors import NotFoundError
from ulvm.exports.nbd_handshake import Handshake
from ulvm.exports.source import ExportInfo

SIZE = 1 << 20


class CountingSource:
    """One snapshot and one plain export; knows how many opens there are."""

    def __init__(self) -> None:
        self.opened = 0
        self._infos = {
            "vg/lv": ExportInfo("vg/lv", SIZE, False, "a volume"),
            "vg/snap": ExportInfo("vg/snap", SIZE, False, is_snapshot=True),
        }

    def exports(self) -> list[ExportInfo]:
        return [self._infos[name] for name in sorted(self._infos)]

    def describe(self, name: str) -> ExportInfo:
        if name not in self._infos:
            raise NotFoundError(f"no export named {name!r}")
        return self._infos[name]

    def open(self, name: str, *, write: bool) -> BlockDevice:
        self.describe(name)
        source = self

        class Handle(MemoryDevice):
            def close(self) -> None:
                source.opened -= 1

        self.opened += 1
        return Handle(SIZE)


def option(number: int, data: bytes = b"") -> bytes:
    return OPTION.pack(IHAVEOPT, number, len(data)) + data


def name(text: str) -> bytes:
    return struct.pack(">I", len(text.encode())) + text.encode()


def replies(data: bytes) -> list[tuple[int, int, bytes]]:
    """(option, type, body) of each."""
    found = []
    while data:
        magic, about, kind, length = OPTION_REPLY.unpack_from(data)
        assert magic == OPTION_REPLY_MAGIC
        found.append((about, kind, data[OPTION_REPLY.size : OPTION_REPLY.size + length]))
        data = data[OPTION_REPLY.size + length :]
    return found


def begun(source: object | None = None) -> Handshake:
    handshake = Handshake(source or CountingSource())  # type: ignore[arg-type]
    assert handshake.greeting == GREETING.pack(NBDMAGIC, IHAVEOPT, 3)
    assert handshake.feed(b"\0\0\0\3") == b""
    return handshake


def types(data: bytes) -> list[int]:
    return [kind for _, kind, _ in replies(data)]


def test_list() -> None:
    handshake = begun()
    found = replies(handshake.feed(option(Option.LIST)))
    assert [body for _, kind, body in found if kind == ReplyType.SERVER] == [
        name("vg/lv"),
        name("vg/snap"),
    ]
    assert found[-1][1] == ReplyType.ACK
    assert handshake.agreed is None


def test_go_tells_size_flags_and_block_sizes() -> None:
    source = CountingSource()
    handshake = begun(source)
    found = replies(handshake.feed(option(Option.GO, name("vg/lv") + b"\0\0") + b"rest"))
    bodies = {int.from_bytes(body[:2], "big"): body[2:] for _, kind, body in found[:-1]}
    size, flags = struct.unpack(">QH", bodies[InfoType.EXPORT])
    assert size == SIZE
    assert flags & ExportFlag.HAS_FLAGS
    assert flags & ExportFlag.CAN_MULTI_CONN
    assert not flags & (ExportFlag.READ_ONLY | ExportFlag.SEND_DF)
    assert struct.unpack(">III", bodies[InfoType.BLOCK_SIZE]) == (1, 4096, 32 << 20)
    assert found[-1][1] == ReplyType.ACK
    assert handshake.agreed is not None
    assert handshake.rest == b"rest"
    assert source.opened == 1


def test_info_leaves_nothing_open_and_can_be_followed_by_go() -> None:
    source = CountingSource()
    handshake = begun(source)
    wanted = struct.pack(">HHH", 2, InfoType.NAME, InfoType.DESCRIPTION)
    found = replies(handshake.feed(option(Option.INFO, name("vg/lv") + wanted)))
    bodies = [body for _, kind, body in found if kind == ReplyType.INFO]
    assert struct.pack(">H", InfoType.NAME) + b"vg/lv" in bodies
    assert struct.pack(">H", InfoType.DESCRIPTION) + b"a volume" in bodies
    assert source.opened == 0
    handshake.feed(option(Option.GO, name("vg/lv") + b"\0\0"))
    assert handshake.agreed is not None


def test_unknown_export_leaves_the_client_another_try() -> None:
    handshake = begun()
    assert types(handshake.feed(option(Option.GO, name("none") + b"\0\0"))) == [
        ReplyType.ERR_UNKNOWN
    ]
    assert not handshake.closed
    handshake.feed(option(Option.GO, name("vg/lv") + b"\0\0"))
    assert handshake.agreed is not None


@pytest.mark.parametrize(("flags", "length"), [(3, 10), (1, 134)])
def test_export_name(flags: int, length: int) -> None:
    handshake = Handshake(CountingSource())
    handshake.feed(struct.pack(">I", flags))
    answer = handshake.feed(option(Option.EXPORT_NAME, b"vg/lv"))
    assert len(answer) == length
    assert struct.unpack_from(">Q", answer)[0] == SIZE
    assert handshake.agreed is not None


def test_export_name_of_nothing_closes() -> None:
    handshake = begun()
    assert handshake.feed(option(Option.EXPORT_NAME, b"none")) == b""
    assert handshake.closed


def test_read_only_exports() -> None:
    device = MemoryDevice(SIZE)
    device.read_only = True
    handshake = begun(StaticSource({"ro": device}))
    handshake.feed(option(Option.GO, name("ro") + b"\0\0"))
    assert handshake.agreed is not None
    flags = handshake.agreed.flags
    assert flags & ExportFlag.READ_ONLY
    assert not flags & (ExportFlag.SEND_TRIM | ExportFlag.SEND_WRITE_ZEROES | ExportFlag.SEND_FUA)


# -- meta contexts -----------------------------------------------------------------------------


def queries(export: str, *wanted: str) -> bytes:
    return name(export) + struct.pack(">I", len(wanted)) + b"".join(name(w) for w in wanted)


def contexts(data: bytes) -> list[str]:
    found = replies(data)
    assert found[-1][1] == ReplyType.ACK
    return [body[4:].decode() for _, kind, body in found if kind == ReplyType.META_CONTEXT]


@pytest.mark.parametrize(
    ("export", "wanted", "listed"),
    [
        ("vg/lv", (), ["base:allocation"]),
        ("vg/snap", (), ["base:allocation", "ulvm:changed"]),
        ("vg/snap", ("ulvm:",), ["ulvm:changed"]),
        ("vg/snap", ("qemu:dirty-bitmap:x", "base:"), ["base:allocation"]),
        ("vg/lv", ("ulvm:changed",), []),
    ],
)
def test_list_of_contexts(export: str, wanted: tuple[str, ...], listed: list[str]) -> None:
    handshake = begun()
    handshake.feed(option(Option.STRUCTURED_REPLY))
    assert contexts(handshake.feed(option(Option.LIST_META_CONTEXT, queries(export, *wanted)))) == (
        listed
    )


def test_contexts_hold_for_their_export_only() -> None:
    for export, expected in (("vg/snap", ["base:allocation", "ulvm:changed"]), ("vg/lv", [])):
        handshake = begun()
        handshake.feed(option(Option.STRUCTURED_REPLY))
        wanted = queries("vg/snap", "base:allocation", "ulvm:changed", "base:")
        assert len(contexts(handshake.feed(option(Option.SET_META_CONTEXT, wanted)))) == 2
        handshake.feed(option(Option.GO, name(export) + b"\0\0"))
        assert handshake.agreed is not None
        assert [context for _, context in handshake.agreed.contexts] == expected


def test_a_second_set_replaces_the_first() -> None:
    handshake = begun()
    handshake.feed(option(Option.STRUCTURED_REPLY))
    handshake.feed(option(Option.SET_META_CONTEXT, queries("vg/lv", "base:allocation")))
    handshake.feed(option(Option.SET_META_CONTEXT, queries("vg/lv")))
    handshake.feed(option(Option.GO, name("vg/lv") + b"\0\0"))
    assert handshake.agreed is not None
    assert handshake.agreed.contexts == ()


@pytest.mark.parametrize(
    "data", [b"", name("vg/lv") + b"\0\0\0\2", queries("nowhere", "base:allocation")]
)
def test_a_set_that_fails_leaves_none(data: bytes) -> None:
    handshake = begun()
    handshake.feed(option(Option.STRUCTURED_REPLY))
    handshake.feed(option(Option.SET_META_CONTEXT, queries("vg/lv", "base:allocation")))
    assert ReplyType.ACK not in types(handshake.feed(option(Option.SET_META_CONTEXT, data)))
    handshake.feed(option(Option.GO, name("vg/lv") + b"\0\0"))
    assert handshake.agreed is not None
    assert handshake.agreed.contexts == ()


def test_contexts_need_structured_replies_first() -> None:
    asked = option(Option.SET_META_CONTEXT, queries("vg/lv", "base:allocation"))
    assert types(begun().feed(asked)) == [ReplyType.ERR_INVALID]


# -- what a client may do wrong -----------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 5, 11, 77, 0xFFFFFFFF])
def test_unknown_options_are_refused_and_harmless(number: int) -> None:
    handshake = begun()
    assert types(handshake.feed(option(number, b"data") + option(Option.ABORT))) == [
        ReplyType.ERR_UNSUP,
        ReplyType.ACK,
    ]
    assert handshake.closed


@pytest.mark.parametrize(
    ("number", "data"),
    [
        (Option.LIST, b"x"),
        (Option.STRUCTURED_REPLY, b"x"),
        (Option.GO, b""),
        (Option.GO, b"\0\0\0\5vg"),
        (Option.GO, name("vg/lv")),
        (Option.GO, name("vg/lv") + b"\0\1"),
        (Option.GO, name("vg/lv") + b"\0\0\0"),
        (Option.GO, b"\xff\xff\xff\xffvg/lv\0\0"),
        (Option.GO, b"\0\0\0\2\xff\xfe\0\0"),
        (Option.SET_META_CONTEXT, name("vg/lv") + b"\0\0\0\2" + name("base:allocation")),
        (Option.LIST_META_CONTEXT, b"\0"),
    ],
)
def test_data_that_do_not_fit_their_option(number: int, data: bytes) -> None:
    source = CountingSource()
    handshake = begun(source)
    handshake.feed(option(Option.STRUCTURED_REPLY))
    assert types(handshake.feed(option(number, data))) == [ReplyType.ERR_INVALID]
    assert handshake.agreed is None
    assert not handshake.closed
    assert source.opened == 0


@pytest.mark.parametrize("flags", [0, 2, 4, 7, 0xFFFFFFFF])
def test_client_flags_that_we_do_not_know(flags: int) -> None:
    handshake = Handshake(CountingSource())
    assert handshake.feed(struct.pack(">I", flags) + option(Option.LIST)) == b""
    assert handshake.closed


def test_a_wrong_magic_number_closes() -> None:
    handshake = begun()
    assert handshake.feed(b"GET / HTTP/1.1\r\n\r\n") == b""
    assert handshake.closed


def test_an_endless_option_closes() -> None:
    handshake = begun()
    answer = handshake.feed(OPTION.pack(IHAVEOPT, Option.GO, 1 << 31))
    assert types(answer) == [ReplyType.ERR_TOO_BIG]
    assert handshake.closed


CONVERSATION = (
    b"\0\0\0\3"
    + option(Option.STRUCTURED_REPLY)
    + option(Option.LIST)
    + option(Option.SET_META_CONTEXT, queries("vg/snap", "base:allocation", "ulvm:changed"))
    + option(Option.INFO, name("vg/lv") + b"\0\1\0\3")
    + option(Option.GO, name("vg/snap") + b"\0\0")
)


@given(st.lists(st.integers(0, len(CONVERSATION)), max_size=8))
def test_how_the_bytes_are_cut_makes_no_difference(cuts: list[int]) -> None:
    whole = Handshake(CountingSource())
    expected = whole.feed(CONVERSATION)
    handshake = Handshake(CountingSource())
    answer, places = b"", sorted([0, *cuts, len(CONVERSATION)])
    for start, end in itertools.pairwise(places):
        answer += handshake.feed(CONVERSATION[start:end])
    assert answer == expected
    assert handshake.agreed is not None


@given(st.data())
def test_damaged_conversations_leave_at_most_one_open_device(data: st.DataObject) -> None:
    damaged = bytearray(CONVERSATION)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(damaged) - 1))
        damaged[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    source = CountingSource()
    handshake = Handshake(source)
    handshake.feed(bytes(damaged))
    assert source.opened == (handshake.agreed is not None)
    assert not (handshake.closed and handshake.agreed)


@given(st.binary(max_size=200))
def test_any_bytes_after_the_flags(data: bytes) -> None:
    source = CountingSource()
    handshake = begun(source)
    handshake.feed(data)
    assert source.opened == 0
