"""Listening, connections side by side, ending. The clients are NbdDevice and bare sockets."""

from __future__ import annotations

import os
import re
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.static_source import StaticSource
from tests.waiting import until
from ulvm.blockdev.base import BlockDevice
from ulvm.blockdev.memory import MemoryDevice
from ulvm.blockdev.nbd import NbdDevice
from ulvm.blockdev.nbd_protocol import IHAVEOPT, OPTION, HandshakeFlag
from ulvm.dm.mapper import LocalMapper
from ulvm.dm.table import parse_table
from ulvm.errors import BusyError, DeviceError, NotFoundError, RefusedError
from ulvm.exports import nbd_server
from ulvm.exports.nbd_server import NbdServer
from ulvm.exports.source import ExportInfo

SIZE = 1 << 20


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short: the path of a Unix socket has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="ulvm", dir="/tmp") as path:
        yield Path(path)


@pytest.fixture
def server() -> Iterator[NbdServer]:
    server = NbdServer(StaticSource({"vg/lv": MemoryDevice(SIZE), "vg/b": MemoryDevice(SIZE)}))
    yield server
    server.stop()


# -- listening ---------------------------------------------------------------------------------


def test_the_unix_socket_is_private_and_goes_with_the_server(
    server: NbdServer, folder: Path
) -> None:
    path = folder / "nbd.sock"
    old = os.umask(0)
    try:
        server.listen_unix(str(path))
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    server.stop()
    assert not path.exists()


def test_a_socket_left_behind_is_replaced_a_live_one_is_not(
    server: NbdServer, folder: Path
) -> None:
    path = str(folder / "nbd.sock")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    server.listen_unix(path)
    with pytest.raises(BusyError):
        NbdServer(StaticSource({})).listen_unix(path)
    NbdDevice(path, "vg/lv").close()


def test_what_is_no_socket_is_left_alone(server: NbdServer, folder: Path) -> None:
    (folder / "file").write_text("precious")
    with pytest.raises(BusyError):
        server.listen_unix(str(folder / "file"))
    assert (folder / "file").read_text() == "precious"


def test_without_a_thread_to_accept_it_does_not_listen(
    server: NbdServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as shortage:
        shortage.setattr(threading.Thread, "start", refuse)
        with pytest.raises(DeviceError, match="can't start new thread"):
            server.listen_unix(str(folder / "s"))
    assert not (folder / "s").exists()
    server.listen_unix(str(folder / "s"))
    NbdDevice(str(folder / "s"), "vg/lv").close()


def test_a_path_that_cannot_be_bound(server: NbdServer, folder: Path) -> None:
    with pytest.raises(DeviceError):
        server.listen_unix(str(folder / "none" / "nbd.sock"))
    with pytest.raises(DeviceError):
        server.listen_unix(str(folder / ("x" * 120)))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_tcp_on_loopback(server: NbdServer, host: str) -> None:
    port = server.listen_tcp(host, 0)
    device = NbdDevice((host, port), "vg/lv")
    device.write(0, b"x")
    assert device.read(0, 2) == b"x\0"
    device.close()
    with pytest.raises(DeviceError):
        server.listen_tcp(host, port)


def test_a_machine_that_is_gone_is_noticed(server: NbdServer) -> None:
    """Else its volume is in use for ever. Linux shows which timer runs for a connection: 1 until an
    answer has arrived, then 2 for keepalive (Documentation/networking/proc_net_tcp.rst)."""
    port = server.listen_tcp("127.0.0.1", 0)
    device = NbdDevice(("127.0.0.1", port), "vg/lv")
    device.read(0, 1)

    def timer() -> str:
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        (ours,) = (row for row in rows if row[1] == f"0100007F:{port:04X}" and row[3] == "01")
        return ours[5].partition(":")[0]

    while timer() == "01":
        pass
    assert timer() == "02"
    device.close()


@pytest.mark.parametrize("host", ["a..b", 70 * "x", "no-such.invalid"])
def test_what_is_no_host_is_refused(server: NbdServer, host: str) -> None:
    with pytest.raises(RefusedError, match=f"Cannot listen on {re.escape(host)}: "):
        server.listen_tcp(host, 0)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", ""])
def test_tcp_elsewhere_is_refused(server: NbdServer, host: str) -> None:
    with pytest.raises(RefusedError):
        server.listen_tcp(host or "0.0.0.0", 0)


# -- connections --------------------------------------------------------------------------------


def test_half_a_handshake_and_strangers_disturb_nobody(server: NbdServer, folder: Path) -> None:
    path = str(folder / "s")
    server.listen_unix(path)
    idle = socket.socket(socket.AF_UNIX)
    idle.connect(path)
    stranger = socket.socket(socket.AF_UNIX)
    stranger.connect(path)
    stranger.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    device = NbdDevice(path, "vg/lv")
    device.write(0, b"x")
    stranger.settimeout(20)
    while stranger.recv(100):
        pass
    device.close()
    idle.close()
    stranger.close()


def test_who_talks_on_in_the_handshake_is_hung_up_on(
    server: NbdServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nbd_server, "_HANDSHAKE_SECONDS", 0.5)
    server.listen_unix(str(folder / "nbd.sock"))
    ended = threading.Event()

    def talk(sock: socket.socket) -> None:
        with suppress(OSError):
            while not ended.is_set():
                sock.sendall(100 * OPTION.pack(IHAVEOPT, 99, 0))

    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(folder / "nbd.sock"))
        sock.sendall(HandshakeFlag.FIXED_NEWSTYLE.to_bytes(4, "big"))
        talker = threading.Thread(target=talk, args=(sock,))
        talker.start()
        end = time.monotonic() + 5
        try:
            with suppress(ConnectionError):
                while sock.recv(1 << 16):
                    assert time.monotonic() < end
        finally:
            ended.set()
            sock.shutdown(socket.SHUT_RDWR)
            talker.join()


def test_a_crowd_at_one_door_leaves_the_others_open(
    server: NbdServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By TCP whoever reaches the port may connect, though not shake hands."""
    monkeypatch.setattr(nbd_server, "_MAX_CONNECTIONS", 3)
    path = str(folder / "s")
    server.listen_unix(path)
    port = server.listen_tcp("127.0.0.1", 0)
    with ExitStack() as stack:
        for _ in range(3):
            crowd = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            assert crowd.recv(8) == b"NBDMAGIC"
        with pytest.raises(DeviceError):
            NbdDevice(("127.0.0.1", port), "vg/lv")
        device = NbdDevice(path, "vg/lv")
        assert device.read(0, 1) == b"\0"
        device.close()


def test_a_crowd_does_not_fill_the_log(
    server: NbdServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(nbd_server, "_MAX_CONNECTIONS", 0)
    monkeypatch.setattr(nbd_server, "_QUIET_SECONDS", float("inf"))
    port = server.listen_tcp("127.0.0.1", 0)
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", port)) as refused:
            assert refused.recv(1) == b""
    assert caplog.text.count("a connection refused") == 1


def test_stop_ends_all_and_no_thread_stays(server: NbdServer, folder: Path) -> None:
    server.listen_unix(str(folder / "s"))
    port = server.listen_tcp("127.0.0.1", 0)
    device = NbdDevice(("127.0.0.1", port), "vg/lv")
    half = socket.socket(socket.AF_UNIX)
    half.connect(str(folder / "s"))
    server.stop()
    assert [t.name for t in threading.enumerate() if t.name.startswith("nbd")] == []
    with pytest.raises(DeviceError):
        device.read(0, 1)
    with pytest.raises(DeviceError):
        NbdDevice(("127.0.0.1", port), "vg/lv")
    half.close()


def test_a_client_killed_in_the_middle_leaves_the_export_usable(
    server: NbdServer, folder: Path
) -> None:
    path = str(folder / "s")
    server.listen_unix(path)
    code = (
        "import sys\n"
        "from ulvm.blockdev.nbd import NbdDevice\n"
        "device = NbdDevice(sys.argv[1], 'vg/lv')\n"
        "print('on', flush=True)\n"
        "while True:\n"
        "    device.write(0, b'x' * 500_000)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"on\n"
        child.kill()
    until(lambda: not server._clients, seconds=20)
    device = NbdDevice(path, "vg/lv")
    device.write(0, b"mine")
    assert device.read(0, 4) == b"mine"
    device.close()


@pytest.mark.parametrize("shortage_of", [RuntimeError("no new thread"), MemoryError()])
def test_without_a_thread_for_it_a_client_is_refused_and_the_next_is_served(
    server: NbdServer, folder: Path, monkeypatch: pytest.MonkeyPatch, shortage_of: Exception
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise shortage_of

    path = str(folder / "s")
    server.listen_unix(path)
    with monkeypatch.context() as shortage, socket.socket(socket.AF_UNIX) as sock:
        shortage.setattr(threading.Thread, "start", refuse)
        sock.settimeout(20)
        sock.connect(path)
        assert sock.recv(1) == b""
    device = NbdDevice(path, "vg/lv")
    assert device.read(0, 1) == b"\0"
    device.close()


# -- mapped devices -----------------------------------------------------------------------------


class MapperSource:
    """Mapped devices by their dm names."""

    def __init__(self, mapper: LocalMapper) -> None:
        self.mapper = mapper

    def exports(self) -> list[ExportInfo]:
        return [self.describe(device.name) for device in self.mapper.all_mapped()]

    def describe(self, name: str) -> ExportInfo:
        device = self.mapper.mapped(name)
        return ExportInfo(
            name, device.size, device.read_only, is_snapshot=device.changed(0, 0) is not None
        )

    def open(self, name: str, *, write: bool) -> BlockDevice:
        return self.mapper.mapped(name).open(write=write)


@pytest.fixture
def mapper(tmp_path: Path) -> Iterator[LocalMapper]:
    mapper = LocalMapper()
    for name in ("one", "two"):
        path = tmp_path / name
        path.write_bytes(bytes(SIZE))
        mapper.create(name)
        mapper.load(name, parse_table(f"0 {SIZE // 512} linear {path} 0"))
        mapper.resume(name)
    yield mapper
    mapper.shutdown()


def test_a_suspended_device_holds_up_its_own_connections_only(
    mapper: LocalMapper, folder: Path
) -> None:
    server = NbdServer(MapperSource(mapper))
    server.listen_unix(str(folder / "s"))
    one, two = NbdDevice(str(folder / "s"), "one"), NbdDevice(str(folder / "s"), "two")
    mapper.suspend("one")
    done = threading.Event()

    def write() -> None:
        one.write(0, b"late")
        done.set()

    thread = threading.Thread(target=write)
    thread.start()
    for _ in range(50):
        two.write(0, b"x")
        assert two.read(0, 1) == b"x"
    third = NbdDevice(str(folder / "s"), "two")
    third.read(0, 1)
    assert not done.wait(0.2)
    mapper.resume("one")
    assert done.wait(20)
    thread.join()
    assert one.read(0, 4) == b"late"
    for device in (one, two, third):
        device.close()
    server.stop()


def test_a_connection_counts_as_an_open(mapper: LocalMapper, folder: Path) -> None:
    server = NbdServer(MapperSource(mapper))
    server.listen_unix(str(folder / "s"))
    device = NbdDevice(str(folder / "s"), "one", connections=2)
    assert mapper.info("one").open_count == 2
    with pytest.raises(BusyError):
        mapper.remove("one")
    device.close()
    until(lambda: mapper.info("one").open_count == 0, seconds=20)
    mapper.remove("one")
    with pytest.raises(NotFoundError):
        NbdDevice(str(folder / "s"), "one")
    server.stop()


def test_what_a_snapshot_changed_is_told(mapper: LocalMapper, folder: Path, tmp_path: Path) -> None:
    cow = tmp_path / "cow"
    cow.write_bytes(bytes(SIZE))
    for name, line in (
        ("org", f"0 {SIZE // 512} snapshot-origin one"),
        ("snap", f"0 {SIZE // 512} snapshot one {cow} P 8"),
    ):
        mapper.create(name)
        mapper.load(name, parse_table(line.replace(" one", f" {mapper.mapped('one').number}")))
        mapper.resume(name)
    server = NbdServer(MapperSource(mapper))
    server.listen_unix(str(folder / "s"))
    origin, snapshot = NbdDevice(str(folder / "s"), "org"), NbdDevice(str(folder / "s"), "snap")
    origin.write(8192, b"new" * 1000)
    snapshot.write(40960, b"x")
    assert origin.changed(0, SIZE) is None
    runs = snapshot.changed(0, SIZE)
    assert runs is not None
    assert [(r.offset, r.length, r.changed) for r in runs] == [
        (0, 8192, False),
        (8192, 4096, True),
        (12288, 28672, False),
        (40960, 4096, True),
        (45056, SIZE - 45056, False),
    ]
    assert snapshot.read(8192, 10) == bytes(10)
    origin.close()
    snapshot.close()
    server.stop()
