"""Requests and replies on a socket pair: the bytes, errors, and nonsense from a client."""

from __future__ import annotations

import errno
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ulvm.blockdev.base import BlockDevice, Buffer, Changed, Extent, WritableBuffer
from ulvm.blockdev.faults import FaultDevice
from ulvm.blockdev.memory import MemoryDevice
from ulvm.blockdev.nbd_protocol import (
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
)
from ulvm.errors import DeviceError, NotSupportedError
from ulvm.exports.nbd_handshake import Agreed
from ulvm.exports.nbd_transmission import serve
from ulvm.exports.source import ExportInfo

SIZE = 1 << 20
ALL = ((1, "base:allocation"), (2, "ulvm:changed"))


class SnapshotLike(MemoryDevice):
    """Says of every second 64 KiB that they changed."""

    def changed(self, offset: int, length: int) -> Iterator[Changed]:
        end = offset + length
        while offset < end:
            stop = min((offset // 65536 + 1) * 65536, end)
            yield Changed(offset, stop - offset, bool(offset // 65536 % 2))
            offset = stop


class Client:
    """The other end of the socket pair."""

    def __init__(self, sock: socket.socket, thread: threading.Thread) -> None:
        self.sock = sock
        self.thread = thread
        self._cookie = 0

    def send(
        self, kind: int, offset: int = 0, length: int = 0, flags: int = 0, data: bytes = b""
    ) -> int:
        self._cookie += 1
        head = REQUEST.pack(REQUEST_MAGIC, flags, kind, self._cookie, offset, length)
        self.sock.sendall(head + data)
        return self._cookie

    def receive(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            part = self.sock.recv(length - len(data))
            if not part:
                raise EOFError(f"closed after {data!r}")
            data += part
        return data

    def simple(self) -> tuple[int, int]:
        """(error, cookie)"""
        magic, error, cookie = SIMPLE_REPLY.unpack(self.receive(SIMPLE_REPLY.size))
        assert magic == SIMPLE_REPLY_MAGIC
        return error, cookie

    def chunk(self) -> tuple[int, int, int, bytes]:
        """(flags, type, cookie, body)"""
        head = self.receive(STRUCTURED_REPLY.size)
        magic, flags, kind, cookie, length = STRUCTURED_REPLY.unpack(head)
        assert magic == STRUCTURED_REPLY_MAGIC
        return flags, kind, cookie, self.receive(length)

    def ask(
        self, kind: int, offset: int = 0, length: int = 0, flags: int = 0, data: bytes = b""
    ) -> int:
        """The error of a request that is answered by a simple reply."""
        cookie = self.send(kind, offset, length, flags, data)
        error, answered = self.simple()
        assert answered == cookie
        return error

    def ended(self) -> bool:
        self.sock.settimeout(10)
        return self.sock.recv(1) == b""


@contextmanager
def connected(
    device: BlockDevice,
    *,
    structured: bool = False,
    read_only: bool = False,
    contexts: tuple[tuple[int, str], ...] = (),
    first: bytes = b"",
) -> Iterator[Client]:
    ours, theirs = socket.socketpair()
    flags = ExportFlag.HAS_FLAGS | (ExportFlag.READ_ONLY if read_only else 0)
    snapshot = isinstance(device, SnapshotLike)
    info = ExportInfo("vg/lv", device.size, read_only, is_snapshot=snapshot)
    agreed = Agreed(info, device, ExportFlag(flags), structured, contexts)
    broken: list[BaseException] = []

    def run() -> None:
        with theirs:
            try:
                serve(theirs, agreed, first)
            except OSError:  # the client left in the middle; allowed
                pass
            except BaseException as error:
                broken.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        with ours:
            yield Client(ours, thread)
    finally:
        thread.join(20)
    assert not thread.is_alive()
    assert broken == []


def test_reads_and_writes_with_simple_replies() -> None:
    with connected(MemoryDevice(SIZE)) as client:
        assert client.ask(CommandType.WRITE, 1000, 5, data=b"hello") == 0
        cookie = client.send(CommandType.READ, 998, 9)
        assert client.simple() == (0, cookie)
        assert client.receive(9) == b"\0\0hello\0\0"


def test_reads_with_structured_replies() -> None:
    with connected(MemoryDevice(b"abcdefgh" * 100), structured=True) as client:
        cookie = client.send(CommandType.READ, 3, 7, CommandFlag.DF)
        assert client.chunk() == (
            1,
            ChunkType.OFFSET_DATA,
            cookie,
            struct.pack(">Q", 3) + b"defghab",
        )


def test_many_requests_in_one_packet_are_answered_in_order() -> None:
    data = [bytes([n]) * 4096 for n in range(64)]
    packet = b"".join(
        REQUEST.pack(REQUEST_MAGIC, 0, 1, 1000 + n, n * 4096, 4096) + data[n]
        + REQUEST.pack(REQUEST_MAGIC, 0, 0, 2000 + n, n * 4096, 4096)
        for n in range(64)
    )  # fmt: skip
    with connected(MemoryDevice(SIZE)) as client:
        client.sock.sendall(packet)
        for n in range(64):
            assert client.simple() == (0, 1000 + n)
            assert client.simple() == (0, 2000 + n)
            assert client.receive(4096) == data[n]


class Together(MemoryDevice):
    """Notes how many reads and writes came in one call."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.runs: list[int] = []

    def readinto_each(self, pieces: Sequence[tuple[int, memoryview]]) -> None:
        self.runs.append(len(pieces))
        super().readinto_each(pieces)

    def write_each(self, pieces: Sequence[tuple[int, memoryview]]) -> None:
        self.runs.append(-len(pieces))
        super().write_each(pieces)


@pytest.mark.parametrize("structured", [False, True])
def test_requests_of_one_kind_that_came_together_are_one_call(structured: bool) -> None:
    device = Together(bytes(range(256)) * (SIZE // 256))
    with connected(device, structured=structured) as client:
        batch = b""
        for cookie, (kind, offset, length) in enumerate(
            [(0, 0, 3), (0, 256, 5), (1, 600, 4), (1, 700, 5), (1, 602, 1), (0, 512, 300)]
        ):
            batch += REQUEST.pack(REQUEST_MAGIC, 0, kind, cookie, offset, length)
            batch += bytes([cookie + 100]) * length if kind else b""
        client.sock.sendall(batch)
        for cookie, want in [(0, b"\0\1\2"), (1, b"\0\1\2\3\4"), (2, b""), (3, b""), (4, b"")]:
            if want and structured:
                assert client.chunk()[2:] == (cookie, struct.pack(">Q", 256 * cookie) + want)
            else:
                assert client.simple() == (0, cookie)
                assert client.receive(len(want)) == want
    assert device.runs == [2, -3]
    assert device.read(600, 4) == b"\x66\x66\x68\x66"


def test_replies_to_ever_so_many_writes() -> None:
    """More than the buffer of replies holds, all received at once, behind what fills it by half."""
    count = 9000
    first = REQUEST.pack(REQUEST_MAGIC, 0, 0, 1, 0, 127 << 10)
    first += b"".join(REQUEST.pack(REQUEST_MAGIC, 0, 1, n, n, 1) + b"x" for n in range(count))
    with connected(MemoryDevice(SIZE), first=first) as client:
        assert client.simple() == (0, 1)
        assert client.receive(127 << 10) == bytes(127 << 10)
        for n in range(count):
            assert client.simple() == (0, n)


@pytest.mark.parametrize("kind", [CommandType.READ, CommandType.WRITE])
def test_one_of_several_that_fails_fails_alone(kind: CommandType) -> None:
    """Outside the device, and of a length that is none."""
    device = Together(bytes(SIZE))
    with connected(device) as client:
        batch = b""
        for cookie, (offset, length) in enumerate(
            [(0, 8), (SIZE - 4, 8), (8, 8), (16, 8), (24, 0), (32, 8), (40, 8)]
        ):
            batch += REQUEST.pack(REQUEST_MAGIC, 0, kind, cookie, offset, length)
            batch += b"\1" * length if kind else b""
        client.sock.sendall(batch)
        outside = errno.ENOSPC if kind else errno.EINVAL
        for cookie, error in enumerate([0, outside, 0, 0, errno.EINVAL, 0, 0]):
            assert client.simple() == (error, cookie)
            if not kind and not error:
                assert client.receive(8) == bytes(8)
    written = b"\1" if kind else b"\0"
    assert device.read(0, 56) == written * 24 + bytes(8) + written * 16 + bytes(8)


class Slow(MemoryDevice):
    """Writes wait until they may, one by one or all of them."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.entered = threading.Semaphore(0)
        self._may = threading.Semaphore(0)
        self._inside = 0
        self.most_inside = 0

    def let_go_on(self, writes: int = 1000) -> None:
        self._may.release(writes)

    def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
        self._inside += 1
        self.most_inside = max(self.most_inside, self._inside)
        self.entered.release()
        assert self._may.acquire(timeout=30)
        super().write(offset, data, fua=fua)
        self._inside -= 1


LONG = 512 << 10


def long_writes(*fills: int, length: int = LONG) -> bytes:
    """One behind the other on the device; cookies 0, 1, ..."""
    return b"".join(
        REQUEST.pack(REQUEST_MAGIC, 0, 1, n, n * length, length) + bytes([fill]) * length
        for n, fill in enumerate(fills)
    )


@contextmanager
def sending(client: Client, data: bytes) -> Iterator[threading.Thread]:
    """Another thread sends it, and is through by the end."""

    def send() -> None:
        with suppress(OSError):  # hung up on us
            client.sock.sendall(data)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    yield thread
    thread.join(10)
    assert not thread.is_alive()


def test_one_long_write_is_made_and_one_waits_while_the_next_is_received() -> None:
    device = Slow(bytes(4 * LONG))
    packet = long_writes(1, 2, 3, 4)
    three = 3 * (28 + LONG) + 28
    with connected(device) as client:
        with sending(client, packet[:three]) as sender:
            assert device.entered.acquire(timeout=10)
            sender.join(10)
            assert not sender.is_alive(), "the third one is received"
        with sending(client, packet[three:]) as sender:
            sender.join(0.2)
            assert sender.is_alive(), "it waits for a place, and the fourth one behind it"
            assert device.most_inside == 1
            device.let_go_on()
            assert sorted(client.simple() for _ in range(4)) == [(0, n) for n in range(4)]
        assert client.ask(CommandType.FLUSH) == 0
    for n in range(4):
        assert device.read(n * LONG, LONG) == bytes([n + 1]) * LONG


def test_a_long_write_that_waits_for_a_place_gets_the_next_one() -> None:
    device = Slow(bytes(6 * LONG))
    with connected(device) as client, sending(client, long_writes(1, 2, 3, 4, 5, 6)) as sender:
        for n in range(3):
            assert device.entered.acquire(timeout=10)
            sender.join(0.05)
            assert sender.is_alive()
            assert device.most_inside == 1
            device.let_go_on(1)
            assert client.simple() == (0, n)
        device.let_go_on()
        assert sorted(client.simple() for _ in range(3)) == [(0, 3), (0, 4), (0, 5)]
    for n in range(6):
        assert device.read(n * LONG, LONG) == bytes([n + 1]) * LONG


def test_a_write_whose_buffer_is_not_kept_has_nothing_wait_before_it() -> None:
    """Three such would be a lot of memory for one connection."""
    length = 5 << 20
    device = Slow(bytes(3 * length))
    with (
        connected(device) as client,
        sending(client, long_writes(1, 2, 3, length=length)) as sender,
    ):
        assert device.entered.acquire(timeout=10)
        sender.join(0.2)
        assert sender.is_alive(), "the third one is not received yet"
        assert device.most_inside == 1
        device.let_go_on()
        assert sorted(client.simple() for _ in range(3)) == [(0, 0), (0, 1), (0, 2)]
    for n in range(3):
        assert device.read(n * length, length) == bytes([n + 1]) * length


def test_long_writes_of_many_lengths_each_keep_their_data() -> None:
    """The buffers go round, grow, and some of them are not kept."""
    lengths = [256, 300, 1024, 4096, 4097, 512, 6000, 256, 5000, 5000, 1, 900, 4096] * 2
    device = MemoryDevice(sum(lengths) << 10)
    packet, offset = [], 0
    for n, length in enumerate(n << 10 for n in lengths):
        packet.append(REQUEST.pack(REQUEST_MAGIC, 0, 1, n, offset, length))
        packet.append(bytes([n + 1]) * length)
        offset += length
    with connected(device) as client, sending(client, b"".join(packet)):
        answers = sorted(client.simple() for _ in lengths)
        assert answers == [(0, n) for n in range(len(lengths))]
    offset = 0
    for n, length in enumerate(n << 10 for n in lengths):
        assert device.read(offset, length) == bytes([n + 1]) * length
        offset += length


@pytest.mark.parametrize("shortage", [RuntimeError("can't start new thread"), MemoryError()])
def test_without_a_second_thread_long_writes_are_made_by_the_first(
    monkeypatch: pytest.MonkeyPatch, shortage: Exception
) -> None:
    asked = []

    def start(thread: threading.Thread) -> None:
        if thread.name != "nbd-second":
            return really(thread)
        asked.append(thread)
        raise shortage

    really = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", start)
    device = MemoryDevice(bytes(4 * LONG))
    with connected(device) as client, sending(client, long_writes(1, 2, 3, 4)):
        assert [client.simple() for _ in range(4)] == [(0, n) for n in range(4)]
    assert len(asked) == 1
    for n in range(4):
        assert device.read(n * LONG, LONG) == bytes([n + 1]) * LONG


def test_each_of_several_long_writes_has_its_own_error() -> None:
    device = MemoryDevice(bytes(3 * LONG))
    with connected(device) as client, sending(client, long_writes(1, 2, 3, 4)):
        answers = sorted(client.simple() for _ in range(4))
        assert answers == [(0, 0), (0, 1), (0, 2), (errno.ENOSPC, 3)]
    assert device.read(0, 3 * LONG) == b"\1" * LONG + b"\2" * LONG + b"\3" * LONG


class Gone(Slow):
    """As every write finds out."""

    def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
        super().write(offset, data, fua=fua)
        raise DeviceError("gone", errno=errno.ENXIO)


def test_a_device_that_is_gone_for_a_long_write_ends_the_connection() -> None:
    """One waits, one has no place yet; those in the socket are not looked at any more."""
    length = 256 << 10
    device = Gone(bytes(8 * length))
    with connected(device) as client:
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        with sending(client, long_writes(*range(8), length=length)) as sender:
            assert device.entered.acquire(timeout=10)
            sender.join(0.2)
            device.let_go_on()
            answers = []
            with suppress(EOFError, ConnectionResetError):
                while True:
                    answers.append(client.simple())
    assert answers == [(errno.ESHUTDOWN, n) for n in range(len(answers))]
    assert 1 <= len(answers) <= 3


def test_a_client_that_is_done_waits_for_its_long_writes() -> None:
    """`serve` does not return, nor is the device closed, before they are made."""
    device = Slow(bytes(4 * LONG))
    last = REQUEST.pack(REQUEST_MAGIC, 0, CommandType.DISC, 9, 0, 0)
    with connected(device) as client, sending(client, long_writes(1, 2) + last) as sender:
        sender.join(10)
        assert device.entered.acquire(timeout=10)
        client.thread.join(0.2)
        assert client.thread.is_alive()
        device.let_go_on(1)
        assert client.simple() == (0, 0)
        client.thread.join(0.2)
        assert client.thread.is_alive(), "the one that waited is made as well"
        device.let_go_on()
        assert client.simple() == (0, 1)
        client.thread.join(10)
        assert not client.thread.is_alive()
    assert device.read(0, 2 * LONG) == b"\1" * LONG + b"\2" * LONG


def test_a_client_that_leaves_in_the_midst_of_long_writes() -> None:
    device = Slow(bytes(4 * LONG))
    with connected(device) as client:
        with sending(client, long_writes(1, 2, 3)):
            assert device.entered.acquire(timeout=10)
        client.sock.close()
        device.let_go_on()
        client.thread.join(10)
        assert not client.thread.is_alive()
    assert device.read(0, 2 * LONG) == b"\1" * LONG + b"\2" * LONG


def test_bytes_that_came_with_the_handshake_are_the_first_requests() -> None:
    first = REQUEST.pack(REQUEST_MAGIC, 0, 1, 7, 0, 4) + b"ab"
    device = MemoryDevice(SIZE)
    with connected(device, first=first) as client:
        client.sock.sendall(b"cd")
        assert client.simple() == (0, 7)
    assert device.read(0, 4) == b"abcd"


@pytest.mark.parametrize("length", [1, 100_000, 300_000, 5 << 20, MAX_LENGTH])
def test_requests_of_any_length(length: int) -> None:
    device = MemoryDevice(MAX_LENGTH + 4096)
    data = bytes(range(256)) * (length // 256 + 1)
    with connected(device) as client:
        for offset in (0, 4096):
            assert client.ask(CommandType.WRITE, offset, length, data=data[:length]) == 0
            client.send(CommandType.READ, offset, length)
            assert client.simple()[0] == 0
            assert client.receive(length) == data[:length]


@pytest.mark.parametrize(
    ("kind", "offset", "length", "error"),
    [
        (CommandType.READ, SIZE - 1, 2, errno.EINVAL),
        (CommandType.READ, 1 << 63, 10, errno.EINVAL),
        (CommandType.READ, 0, 0, errno.EINVAL),
        (CommandType.READ, 0, MAX_LENGTH + 1, errno.EINVAL),
        (CommandType.TRIM, SIZE - 1, 2, errno.ENOSPC),
        (CommandType.TRIM, 0, 0, errno.EINVAL),
        (CommandType.WRITE_ZEROES, SIZE, 512, errno.ENOSPC),
        (CommandType.BLOCK_STATUS, 0, 4096, errno.EINVAL),
        (9, 0, 0, errno.EINVAL),
        (0xFFFF, 0, 0, errno.EINVAL),
    ],
)
def test_bad_requests_get_an_error_and_the_next_one_is_served(
    kind: int, offset: int, length: int, error: int
) -> None:
    with connected(MemoryDevice(SIZE)) as client:
        assert client.ask(kind, offset, length) == error
        assert client.ask(CommandType.FLUSH) == 0


@pytest.mark.parametrize(
    ("offset", "length", "flags", "error"),
    [
        (SIZE - 1, 2, 0, errno.ENOSPC),
        (0, 0, 0, errno.EINVAL),
        (0, 512, CommandFlag.NO_HOLE, errno.EINVAL),
        (0, MAX_LENGTH + 512, 0, errno.EINVAL),
    ],
)
def test_bad_writes_are_skipped_with_their_data(
    offset: int, length: int, flags: int, error: int
) -> None:
    device = MemoryDevice(SIZE)
    with connected(device) as client:
        assert client.ask(CommandType.WRITE, offset, length, flags, bytes(length)) == error
        assert client.ask(CommandType.WRITE, 0, 2, data=b"ok") == 0
    assert device.read(0, 2) == b"ok"
    assert device.read(2, SIZE - 2) == bytes(SIZE - 2)


@pytest.mark.parametrize("flag", [CommandFlag.FAST_ZERO, 1 << 9])
@pytest.mark.parametrize("kind", [CommandType.FLUSH, CommandType.TRIM, CommandType.READ])
def test_flags_that_a_command_does_not_know(kind: int, flag: int) -> None:
    with connected(MemoryDevice(SIZE)) as client:
        assert client.ask(kind, 0, 512, flag) == errno.EINVAL


def test_a_read_only_export_takes_no_writes() -> None:
    device = MemoryDevice(SIZE)
    with connected(device, read_only=True) as client:
        assert client.ask(CommandType.WRITE, 0, 4, data=b"data") == errno.EPERM
        assert client.ask(CommandType.TRIM, 0, 4096) == errno.EPERM
        assert client.ask(CommandType.WRITE_ZEROES, 0, 4096) == errno.EPERM
        assert client.ask(CommandType.FLUSH) == 0
    assert device.read(0, SIZE) == bytes(SIZE)


def test_errors_of_the_device_reach_the_client() -> None:
    device = FaultDevice(MemoryDevice(SIZE))
    device.fail_nth("read", 1)
    device.fail_nth("write", 1, error=errno.EDQUOT)
    device.fail_nth("flush", 1)
    with connected(device, structured=True) as client:
        cookie = client.send(CommandType.READ, 0, 512)
        flags, kind, answered, body = client.chunk()
        assert (flags, kind, answered) == (1, ChunkType.ERROR, cookie)
        assert struct.unpack(">IH", body) == (errno.EIO, 0)
        assert client.ask(CommandType.WRITE, 0, 4, data=b"data") == errno.ENOSPC
        assert client.ask(CommandType.FLUSH) == errno.EIO
        assert client.ask(CommandType.FLUSH) == 0


def test_a_defect_of_the_device_is_an_io_error_and_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Defect(MemoryDevice):
        def readinto(self, offset: int, buffer: WritableBuffer) -> None:
            raise ZeroDivisionError("defect")

    with connected(Defect(SIZE)) as client:
        assert client.ask(CommandType.READ, 0, 512) == errno.EIO
        assert client.ask(CommandType.FLUSH) == 0
    assert "ZeroDivisionError" in caplog.text


def test_a_device_that_is_gone_ends_the_connection() -> None:
    device = FaultDevice(MemoryDevice(SIZE))
    device.fail("write", error=errno.ENXIO)
    with connected(device) as client:
        assert client.ask(CommandType.WRITE, 0, 4, data=b"data") == errno.ESHUTDOWN
        assert client.ended()


def test_forced_writes_are_durable_and_flush_covers_the_rest() -> None:
    device = FaultDevice(MemoryDevice(SIZE))
    record = device.record()
    with connected(device) as client:
        client.ask(CommandType.WRITE, 0, 512, CommandFlag.FUA, b"f" * 512)
        client.ask(CommandType.WRITE, 512, 512, 0, b"w" * 512)
        client.ask(CommandType.WRITE_ZEROES, 1024, 512, CommandFlag.FUA)
        assert [writes for kind, writes in record.events if kind == "durable"] == [(0,), (2,)]
        client.ask(CommandType.FLUSH)
        assert record.events[-1] == ("durable", (0, 1, 2))


def test_trim_and_zeroes() -> None:
    device = MemoryDevice(b"\xff" * SIZE)
    with connected(device) as client:
        assert client.ask(CommandType.WRITE_ZEROES, 0, 65536, CommandFlag.NO_HOLE) == 0
        assert client.ask(CommandType.WRITE_ZEROES, 65536, 65536, CommandFlag.FAST_ZERO) == 0
        assert client.ask(CommandType.TRIM, 131072, 65536, CommandFlag.FUA) == 0
        both = CommandFlag.FAST_ZERO | CommandFlag.NO_HOLE
        assert client.ask(CommandType.WRITE_ZEROES, 0, 512, both) == errno.EOPNOTSUPP
    found = [(e.offset, e.length, e.hole) for e in device.extents(0, SIZE)]
    assert found == [(0, 65536, False), (65536, 131072, True), (196608, SIZE - 196608, False)]
    assert device.read(0, 196608) == bytes(196608)


class NoDiscard(MemoryDevice):
    """As an origin that got a snapshot after the client was told what it can do."""

    def discard(self, offset: int, length: int) -> None:
        self.check_range(offset, length, write=True)
        raise NotSupportedError("not with a snapshot")


def test_a_trim_that_is_not_possible_is_a_hint_not_taken() -> None:
    device = NoDiscard(b"\xff" * SIZE)
    with connected(device) as client:
        assert client.ask(CommandType.TRIM, 0, 4096) == 0
        assert client.ask(CommandType.TRIM, SIZE, 4096) == errno.ENOSPC
    assert device.read(0, 4096) == b"\xff" * 4096


def test_zeroes_on_a_snapshot_are_not_called_fast() -> None:
    with connected(SnapshotLike(SIZE)) as client:
        asked = client.ask(CommandType.WRITE_ZEROES, 0, 512, CommandFlag.FAST_ZERO)
        assert asked == errno.EOPNOTSUPP


# -- block status -----------------------------------------------------------------------------


def descriptors(body: bytes) -> tuple[int, list[tuple[int, int]]]:
    found = [(length, flags) for length, flags in struct.iter_unpack(">II", body[4:])]
    return int.from_bytes(body[:4], "big"), found


def test_block_status_of_both_contexts() -> None:
    device = SnapshotLike(SIZE)
    device.write(65536, b"x" * 8192)
    with connected(device, structured=True, contexts=ALL) as client:
        cookie = client.send(CommandType.BLOCK_STATUS, 61440, 131072)
        flags, kind, answered, body = client.chunk()
        assert (flags, kind, answered) == (0, ChunkType.BLOCK_STATUS, cookie)
        assert descriptors(body) == (1, [(4096, 3), (8192, 0), (118784, 3)])
        flags, kind, answered, body = client.chunk()
        assert (flags, kind, answered) == (1, ChunkType.BLOCK_STATUS, cookie)
        assert descriptors(body) == (2, [(4096, 0), (65536, 1), (61440, 0)])


def test_block_status_of_one_extent() -> None:
    device = SnapshotLike(SIZE)
    with connected(device, structured=True, contexts=ALL[:1]) as client:
        client.send(CommandType.BLOCK_STATUS, 0, SIZE, CommandFlag.REQ_ONE)
        assert descriptors(client.chunk()[3]) == (1, [(SIZE, 3)])
        client.send(CommandType.BLOCK_STATUS, SIZE - 1, 2)
        assert client.chunk()[1] == ChunkType.ERROR


def test_block_status_of_a_finely_cut_device_is_bounded() -> None:
    class Comb(MemoryDevice):
        def changed(self, offset: int, length: int) -> Iterator[Changed]:
            for place in range(offset, offset + length):
                yield Changed(place, 1, bool(place % 2))

    with connected(Comb(SIZE), structured=True, contexts=ALL[1:]) as client:
        client.send(CommandType.BLOCK_STATUS, 0, SIZE)
        _, found = descriptors(client.chunk()[3])
        assert len(found) == 65536
        assert found[:3] == [(1, 0), (1, 1), (1, 0)]


def test_one_extent_does_not_cost_those_behind_it() -> None:
    """QEMU asks so, again and again, for each extent of a device that may have many."""
    asked = []

    class Asked(MemoryDevice):
        def extents(self, offset: int, length: int) -> Iterator[Extent]:
            asked.append((offset, length))
            return super().extents(offset, length)

    device = Asked(16 * SIZE)
    device.write(SIZE // 2, b"x" * 4096)
    with connected(device, structured=True, contexts=ALL[:1]) as client:
        client.send(CommandType.BLOCK_STATUS, 0, 16 * SIZE, CommandFlag.REQ_ONE)
        assert descriptors(client.chunk()[3]) == (1, [(SIZE // 2, 3)])
        assert asked == [(0, SIZE)]
        client.send(CommandType.BLOCK_STATUS, SIZE, 15 * SIZE, CommandFlag.REQ_ONE)
        assert descriptors(client.chunk()[3]) == (1, [(15 * SIZE, 3)])


# -- clients that misbehave ---------------------------------------------------------------------


def test_a_wrong_magic_number_ends_the_connection_after_what_was_asked() -> None:
    with connected(MemoryDevice(SIZE)) as client:
        client.send(CommandType.FLUSH)
        client.sock.sendall(bytes(28))
        assert client.simple()[0] == 0
        assert client.ended()


def test_disconnect_answers_what_came_before() -> None:
    with connected(MemoryDevice(b"x" * 4096)) as client:
        client.send(CommandType.READ, 0, 4)
        client.send(CommandType.DISC)
        assert client.simple()[0] == 0
        assert client.receive(4) == b"xxxx"
        assert client.ended()


@pytest.mark.parametrize("sent", [1, 27, 28, 28 + 100, 28 + 100_000])
def test_a_client_that_leaves_in_the_middle_of_a_write_changes_nothing(sent: int) -> None:
    device = MemoryDevice(SIZE)
    packet = REQUEST.pack(REQUEST_MAGIC, 0, 1, 1, 0, 200_000) + b"x" * 200_000
    with connected(device) as client:
        client.sock.sendall(packet[:sent])
    assert device.read(0, SIZE) == bytes(SIZE)


REQUESTS = st.builds(
    lambda flags, kind, offset, length, data: (
        REQUEST.pack(REQUEST_MAGIC, flags, kind, 1, offset, length)
        + (data * (length // len(data) + 1))[:length] * (kind == 1)
    ),
    st.integers(0, 40),
    st.integers(0, 9),
    st.integers(0, SIZE + 5000) | st.integers(0, (1 << 64) - 1),
    st.integers(0, 70_000),
    st.binary(min_size=1, max_size=10),
)


@given(st.lists(REQUESTS | st.binary(max_size=60), max_size=6), st.booleans())
def test_nonsense_harms_neither_the_server_nor_the_device(
    packets: list[bytes], structured: bool
) -> None:
    device = SnapshotLike(SIZE)
    with connected(device, structured=structured, contexts=ALL if structured else ()) as client:

        def drain() -> None:
            try:
                while client.sock.recv(1 << 16):
                    pass
            except OSError:
                pass

        reader = threading.Thread(target=drain)
        reader.start()
        try:
            client.sock.sendall(b"".join(packets))
            client.sock.shutdown(socket.SHUT_WR)
        except OSError:  # hung up on us already
            pass
        reader.join(20)
        assert not reader.is_alive()
    assert device.size == SIZE
