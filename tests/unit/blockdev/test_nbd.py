"""The NBD client against servers that are absent, old, rude or gone."""

from __future__ import annotations

import errno
import signal
import socket
import struct
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conformance.devices import serving
from ulvm.blockdev.faults import FaultDevice
from ulvm.blockdev.memory import MemoryDevice
from ulvm.blockdev.nbd import NbdDevice
from ulvm.blockdev.nbd_protocol import (
    GREETING,
    IHAVEOPT,
    NBDMAGIC,
    OPTION,
    OPTION_REPLY,
    OPTION_REPLY_MAGIC,
    REQUEST,
    SIMPLE_REPLY,
    SIMPLE_REPLY_MAGIC,
    STRUCTURED_REPLY,
    STRUCTURED_REPLY_MAGIC,
)
from ulvm.errors import DeviceError, NotFoundError, ProtocolError

SIZE = 1 << 20


def test_no_server(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="Cannot connect to the NBD server") as caught:
        NbdDevice(str(tmp_path / "none"), "vg/lv")
    assert caught.value.errno == errno.ENOENT


def test_no_such_export() -> None:
    with (
        serving(MemoryDevice(SIZE)) as address,
        pytest.raises(NotFoundError, match="no export 'vg/other'"),
    ):
        NbdDevice(address, "vg/other")


def test_a_read_only_export() -> None:
    inner = MemoryDevice(SIZE)
    inner.read_only = True
    with serving(inner) as address:
        device = NbdDevice(address, "vg/lv")
        assert device.read_only
        assert not device.can_discard
        with pytest.raises(DeviceError) as caught:
            device.write(0, b"x")
        assert caught.value.errno == errno.EROFS
        device.close()


def test_errors_of_the_device_come_through_and_the_connection_stays() -> None:
    inner = FaultDevice(MemoryDevice(SIZE))
    inner.fail_nth("read", 1)
    inner.fail_nth("write", 1, error=errno.ENOSPC)
    inner.fail_nth("flush", 1)
    with serving(inner) as address:
        device = NbdDevice(address, "vg/lv")
        codes = []
        for request in (
            lambda: device.read(0, 1),
            lambda: device.write(0, b"x"),
            device.flush,
        ):
            with pytest.raises(DeviceError) as caught:
                request()
            codes.append(caught.value.errno)
        assert codes == [errno.EIO, errno.ENOSPC, errno.EIO]
        device.write(0, b"x")
        assert device.read(0, 1) == b"x"
        device.close()


def test_after_close_nothing_works_and_nothing_hangs() -> None:
    with serving(MemoryDevice(SIZE)) as address:
        device = NbdDevice(address, "vg/lv", connections=2)
        device.close()
        with pytest.raises(DeviceError):
            device.read(0, 1)
        with pytest.raises(DeviceError):
            device.flush()


# -- servers that break the protocol -------------------------------------------------------------


def receive(sock: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        part = sock.recv(length - len(data))
        if not part:
            raise EOFError
        data += part
    return data


def handshake(sock: socket.socket, *, structured: bool = True) -> None:
    """A server's side, as far as our client goes."""
    sock.sendall(GREETING.pack(NBDMAGIC, IHAVEOPT, 3))
    receive(sock, 4)
    while True:
        _, option, length = OPTION.unpack(receive(sock, OPTION.size))
        receive(sock, length)
        if option == 8 and not structured:
            sock.sendall(OPTION_REPLY.pack(OPTION_REPLY_MAGIC, option, (1 << 31) | 1, 0))
            continue
        if option == 7:
            export = struct.pack(">HQH", 0, SIZE, 1 | 4)
            sock.sendall(OPTION_REPLY.pack(OPTION_REPLY_MAGIC, option, 3, len(export)) + export)
        sock.sendall(OPTION_REPLY.pack(OPTION_REPLY_MAGIC, option, 1, 0))
        if option == 7:
            return


@contextmanager
def scripted(script: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that follows the script for one connection."""
    with tempfile.TemporaryDirectory(prefix="ulvm", dir="/tmp") as folder:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(f"{folder}/s")
        listener.listen()

        def run() -> None:
            sock, _ = listener.accept()
            with sock:
                try:
                    script(sock)
                    while sock.recv(4096):
                        pass
                except (OSError, EOFError):  # the client hung up
                    pass

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield f"{folder}/s"
        finally:
            thread.join(20)
            listener.close()
        assert not thread.is_alive()


@pytest.mark.parametrize(
    "greeting",
    [b"SSH-2.0-OpenSSH_9.2 and so on", GREETING.pack(NBDMAGIC, 0x420281861253, 0) + bytes(152)],
)
def test_a_server_of_another_kind(greeting: bytes) -> None:
    with (
        scripted(lambda sock: sock.sendall(greeting)) as path,
        pytest.raises(ProtocolError, match="does not speak"),
    ):
        NbdDevice(path, "vg/lv")


@pytest.mark.parametrize("cut", [0, 5, 18])
def test_a_server_that_hangs_up_while_greeting(cut: int) -> None:
    def script(sock: socket.socket) -> None:
        sock.sendall(GREETING.pack(NBDMAGIC, IHAVEOPT, 3)[:cut])
        sock.shutdown(socket.SHUT_WR)

    with scripted(script) as path, pytest.raises(DeviceError, match="hung up"):
        NbdDevice(path, "vg/lv")


def test_a_server_without_structured_replies() -> None:
    def script(sock: socket.socket) -> None:
        handshake(sock, structured=False)
        cookie = REQUEST.unpack(receive(sock, REQUEST.size))[3]
        sock.sendall(SIMPLE_REPLY.pack(SIMPLE_REPLY_MAGIC, 0, cookie) + b"data")

    with scripted(script) as path:
        device = NbdDevice(path, "vg/lv")
        assert device.read(0, 4) == b"data"
        assert [tuple(e) for e in device.extents(0, 10)] == [(0, 10, False, False)]
        assert device.changed(0, 10) is None
        device.close()


def chunk(cookie: int, kind: int, body: bytes, *, done: bool = True) -> bytes:
    return STRUCTURED_REPLY.pack(STRUCTURED_REPLY_MAGIC, done, kind, cookie, len(body)) + body


def test_chunks_in_any_order_with_holes() -> None:
    def script(sock: socket.socket) -> None:
        handshake(sock)
        cookie = REQUEST.unpack(receive(sock, REQUEST.size))[3]
        sock.sendall(
            chunk(cookie, 1, struct.pack(">Q", 1004) + b"tail", done=False)
            + chunk(cookie, 2, struct.pack(">QI", 1002, 2), done=False)
            + chunk(cookie, 1, struct.pack(">Q", 1000) + b"he", done=False)
            + chunk(cookie, 0, b"")
        )

    with scripted(script) as path:
        device = NbdDevice(path, "vg/lv")
        assert device.read(1000, 8) == b"he\0\0tail"
        device.close()


@pytest.mark.parametrize(
    "answer",
    [
        lambda cookie: bytes(16),
        lambda cookie: SIMPLE_REPLY.pack(SIMPLE_REPLY_MAGIC, 0, cookie) + b"data",
        lambda cookie: SIMPLE_REPLY.pack(SIMPLE_REPLY_MAGIC, 5, cookie + 1),
        lambda cookie: chunk(cookie + 1, 1, struct.pack(">Q", 0) + b"data"),
        lambda cookie: chunk(cookie, 1, struct.pack(">Q", 2) + b"data"),
        lambda cookie: chunk(cookie, 1, struct.pack(">Q", 0) + b"dat"),
        lambda cookie: chunk(cookie, 1, struct.pack(">Q", 0) + b"data!"),
        lambda cookie: chunk(cookie, 2, struct.pack(">QI", 0, 1 << 31)),
        lambda cookie: chunk(cookie, 1, b"short"),
        lambda cookie: chunk(cookie, 0, b""),
        lambda cookie: chunk(cookie, 77, b"what"),
        lambda cookie: chunk(cookie, 32769, b"bad"),
    ],
)
def test_a_broken_reply_to_a_read_ends_the_device(answer: Callable[[int], bytes]) -> None:
    def script(sock: socket.socket) -> None:
        handshake(sock)
        cookie = REQUEST.unpack(receive(sock, REQUEST.size))[3]
        sock.sendall(answer(cookie))
        sock.shutdown(socket.SHUT_WR)

    with scripted(script) as path:
        device = NbdDevice(path, "vg/lv")
        for _ in range(2):
            with pytest.raises(DeviceError) as caught:
                device.read(0, 4)
            assert caught.value.errno == errno.EIO
        device.close()


def test_a_server_that_dies_under_a_request() -> None:
    def script(sock: socket.socket) -> None:
        handshake(sock)
        receive(sock, REQUEST.size)
        sock.shutdown(socket.SHUT_RDWR)

    with scripted(script) as path:
        device = NbdDevice(path, "vg/lv")
        with pytest.raises(DeviceError, match="connection broke"):
            device.flush()
        with pytest.raises(DeviceError, match="is closed"):
            device.flush()
        device.close()


def all_of(sock: socket.socket) -> bytes:
    """What comes until the end of the connection."""
    return b"".join(iter(lambda: sock.recv(1 << 16), b""))


def test_nothing_is_sent_into_a_write_that_was_interrupted() -> None:
    """The server would take it for data."""
    main = threading.main_thread().ident
    assert main is not None
    came: list[bytes] = []

    def script(sock: socket.socket) -> None:
        handshake(sock)
        sock.recv(1, socket.MSG_PEEK)
        signal.pthread_kill(main, signal.SIGUSR2)
        interrupted.wait()
        came.append(all_of(sock))

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    interrupted = threading.Event()
    before = signal.signal(signal.SIGUSR2, interrupt)
    try:
        with scripted(script) as path:
            device = NbdDevice(path, "vg/lv")
            with pytest.raises(KeyboardInterrupt):
                device.write(0, bytes(SIZE))
            interrupted.set()
            with pytest.raises(DeviceError, match="was interrupted"):
                device.write(0, b"x" * 512)
            device.close()
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert len(came[0]) < SIZE
    assert came[0][REQUEST.size :].strip(b"\0") == b""


def test_a_close_ends_the_write_of_another_thread() -> None:
    """All connections of a device are closed when one breaks, whatever the others are at."""
    came: list[bytes] = []
    asked, closed = threading.Event(), threading.Event()

    def script(sock: socket.socket) -> None:
        handshake(sock)
        sock.recv(1, socket.MSG_PEEK)
        asked.set()
        closed.wait(30)
        came.append(all_of(sock))

    def write() -> None:
        with pytest.raises(DeviceError):
            device.write(0, bytes(SIZE))

    with scripted(script) as path:
        device = NbdDevice(path, "vg/lv")
        with ThreadPoolExecutor(2) as threads:
            writing = threads.submit(write)
            asked.wait()
            try:
                threads.submit(device.close).result(20)
                writing.result(20)
            finally:
                closed.set()
    assert came[0][REQUEST.size :].strip(b"\0") == b""
