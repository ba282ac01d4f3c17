"""The control socket's server: what happens to it when the machine runs short, and at its end."""

from __future__ import annotations

import fcntl
import json
import resource
import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import until
from ulvm.daemon.control import Connection, ControlServer


def client() -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(20)
    return sock


def ask(sock: socket.socket, op: str) -> Any:
    sock.sendall(json.dumps({"op": op, "args": {}}).encode() + b"\n")
    return json.loads(sock.recv(4096))["result"]


def pong(connection: Connection, args: Mapping[str, Any]) -> str:
    return "pong"


@pytest.fixture
def path(short_tmp: Path) -> Path:
    return short_tmp / "control.sock"


@pytest.fixture
def server(path: Path) -> Iterator[ControlServer]:
    server = ControlServer(path, {"ping": pong}, abandoned=lambda held: None)
    server.start()
    yield server
    server.stop()


def test_it_serves_again_once_there_are_descriptors_again(
    server: ControlServer, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with client() as sock:
        # The lowest number that was free: below it there is none.
        resource.setrlimit(resource.RLIMIT_NOFILE, (sock.fileno() + 1, hard))
        try:
            sock.connect(str(path))
            until(lambda: "Too many open files" in caplog.text, seconds=20)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert ask(sock, "ping") == "pong"


@pytest.mark.parametrize("shortage_of", [RuntimeError("no new thread"), MemoryError()])
def test_without_a_thread_for_it_a_client_is_refused_and_the_next_is_served(
    server: ControlServer, path: Path, monkeypatch: pytest.MonkeyPatch, shortage_of: Exception
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise shortage_of

    with monkeypatch.context() as shortage, client() as sock:
        shortage.setattr(threading.Thread, "start", refuse)
        sock.connect(str(path))
        assert sock.recv(1) == b""
    with client() as sock:
        sock.connect(str(path))
        assert ask(sock, "ping") == "pong"


def test_stop_waits_for_the_request_under_way_and_no_other_begins(path: Path) -> None:
    """Else a command could load or resume while the devices are taken down."""
    begun, go = threading.Event(), threading.Event()
    happened = []

    def slow(connection: Connection, args: Mapping[str, Any]) -> None:
        begun.set()
        assert go.wait(20)
        happened.append("slow")

    def next_one(connection: Connection, args: Mapping[str, Any]) -> None:
        happened.append("next")

    server = ControlServer(path, {"slow": slow, "next": next_one}, abandoned=lambda held: None)
    server.start()

    def stop() -> None:
        server.stop()
        happened.append("stopped")

    stopping = threading.Thread(target=stop)
    with client() as sock:
        sock.connect(str(path))
        sock.sendall(b'{"op":"slow"}\n{"op":"next"}\n')
        assert begun.wait(20)
        stopping.start()
        until(lambda: not path.exists(), seconds=20)
        go.set()
        stopping.join()
    assert happened == ["slow", "stopped"]


def test_stop_does_not_wait_for_ever(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    begun, go = threading.Event(), threading.Event()

    def endless(connection: Connection, args: Mapping[str, Any]) -> None:
        begun.set()
        go.wait()

    server = ControlServer(path, {"endless": endless}, abandoned=lambda held: None)
    server.start()
    with client() as sock:
        sock.connect(str(path))
        sock.sendall(b'{"op":"endless"}\n')
        assert begun.wait(20)
        server.stop(patience=0.1)
        go.set()
    assert "1 requests do not end" in caplog.text


def test_a_handler_that_fails_is_answered_for_and_logged(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(connection: Connection, args: Mapping[str, Any]) -> None:
        raise OSError("no such luck")

    server = ControlServer(path, {"fail": fail, "ping": pong}, abandoned=lambda held: None)
    server.start()
    with client() as sock:
        sock.connect(str(path))
        sock.sendall(b'{"op":"fail"}\n')
        assert "no such luck" in json.loads(sock.recv(4096))["error"]["message"]
        assert ask(sock, "ping") == "pong"
    server.stop()
    assert "request fail failed" in caplog.text


def test_whether_a_client_has_gone_is_seen_with_many_descriptors_open() -> None:
    """select(2) takes none above 1023."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    ours, theirs = socket.socketpair()
    try:
        with socket.socket(fileno=fcntl.fcntl(ours, fcntl.F_DUPFD_CLOEXEC, 1024)) as high:
            connection = Connection(high)
            assert not connection.hung_up()
            theirs.close()
            assert connection.hung_up()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        ours.close()
        theirs.close()


def test_what_fails_at_the_end_of_a_client_keeps_no_lease(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise OSError("no such luck")

    def hold(connection: Connection, args: Mapping[str, Any]) -> None:
        connection.at_end.append(fail)
        connection.leased.add("device")

    left: list[set[Any]] = []
    server = ControlServer(path, {"hold": hold}, abandoned=left.append)
    server.start()
    with client() as sock:
        sock.connect(str(path))
        ask(sock, "hold")
    until(lambda: not server._connections)
    server.stop(patience=0.1)
    assert left == [{"device"}]
    assert "no such luck" in caplog.text


def test_where_a_value_was_no_good_is_logged(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It may be no argument, but a defect."""

    def fail(connection: Connection, args: Mapping[str, Any]) -> None:
        json.loads("{")

    server = ControlServer(path, {"fail": fail}, abandoned=lambda held: None)
    server.start()
    with client() as sock:
        sock.connect(str(path))
        sock.sendall(b'{"op":"fail"}\n')
        assert "bad arguments of fail" in json.loads(sock.recv(4096))["error"]["message"]
    server.stop()
    assert f" at {json.decoder.__file__}:" in caplog.text
