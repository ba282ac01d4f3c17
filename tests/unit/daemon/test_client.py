"""Connecting while a daemon comes or goes."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests import needs
from tests.waiting import until
from ulvm.daemon import client
from ulvm.daemon.control import Connection, ControlServer
from ulvm.daemon.state import drop_state, write_state
from ulvm.errors import DeviceError, RefusedError


def running(folder: Path) -> list[str]:
    """Daemons that run, or do not yet end, for a folder below `folder`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes()
        except OSError:  # ended since the directory was read
            continue
        if str(folder).encode() in words:
            found.append(entry.name)
    return found


def test_no_daemon_is_started_after_one_that_was_stopping(
    short_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has no socket any more, and its state still; a command that only looks waits for its
    end, since a killed daemon would look the same."""
    write_state(short_tmp, [{"name": "a", "uuid": "", "minor": 0}])
    launch, said = client._launch, []

    def launch_and_drop(run_dir: Path, system_dir: Path, overrides: str) -> str:
        said.append(launch(run_dir, system_dir, overrides))
        if len(said) == 2:
            drop_state(short_tmp)
        return said[-1]

    monkeypatch.setattr(client, "_launch", launch_and_drop)
    monkeypatch.setattr(client, "_START_SECONDS", 20.0)
    with (short_tmp / "ulvmd.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert client.connect(short_tmp, start=False, system_dir=short_tmp) is None
    assert len(said) == 2
    assert all("already runs" in text for text in said)
    until(lambda: not running(short_tmp))


class Interrupted(BaseException):
    """What Ctrl-C is to a command."""


def interrupted(asking: client.DaemonClient) -> bytes:
    raise Interrupted


def test_a_reply_that_comes_late_is_not_taken_for_the_next(
    short_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def message(connection: Connection, args: Mapping[str, Any]) -> str:
        return "253:7"

    def table(connection: Connection, args: Mapping[str, Any]) -> list[Any]:
        return []

    path = short_tmp / client.CONTROL_SOCKET
    handlers = {"message": message, "table": table}
    server = ControlServer(path, handlers, abandoned=lambda held: None)
    server.start()
    try:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(path))
        asking = client.DaemonClient(sock)
        with monkeypatch.context() as patch:
            patch.setattr(client.DaemonClient, "_line", interrupted)
            with pytest.raises(Interrupted):
                asking.message("x", 0, "help")
        assert asking.table("x") == []
        asking.close()
    finally:
        server.stop()


@pytest.mark.parametrize("side", ["control", "client"])
def test_a_daemon_of_another_version_is_told_and_can_be_stopped(
    short_tmp: Path, monkeypatch: pytest.MonkeyPatch, side: str
) -> None:
    """Whichever of the two sees it: a daemon from before there was a protocol sees nothing."""
    done = []

    def devices(connection: Connection, args: Mapping[str, Any]) -> list[Any]:
        done.append("devices")
        return []

    def status(connection: Connection, args: Mapping[str, Any]) -> dict[str, Any]:
        return {"pid": 7}

    path = short_tmp / client.CONTROL_SOCKET
    handlers = {"devices": devices, "daemon_status": status}
    server = ControlServer(path, handlers, abandoned=lambda held: None)
    monkeypatch.setattr(f"ulvm.daemon.{side}.PROTOCOL", 77)
    if side == "client":  # one that looks at nothing
        monkeypatch.setattr("ulvm.daemon.control.FOR_ALL", {"daemon_status", "devices"})
    server.start()
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(path))
            asking = client.DaemonClient(sock)
            with pytest.raises(RefusedError, match=r"another version of ulvm .*77"):
                asking.devices()
            assert asking.daemon_status() == {"pid": 7}
    finally:
        server.stop()
    assert done == (["devices"] if side == "client" else [])


@pytest.mark.parametrize(
    ("number", "asked"), [(errno.ENOSYS, True), (errno.EPERM, True), (errno.ESRCH, False)]
)
def test_a_daemon_is_stopped_where_its_process_cannot_be_had(
    short_tmp: Path, monkeypatch: pytest.MonkeyPatch, number: int, asked: bool
) -> None:
    """In a sandbox, by the lock that it holds until its end; or it has just ended by itself."""
    done, held = [], [True, True]

    def refuse(pid: int) -> int:
        raise OSError(number, os.strerror(number))

    def stop(connection: Connection, args: Mapping[str, Any]) -> None:
        done.append("stop")

    path = short_tmp / client.CONTROL_SOCKET
    server = ControlServer(path, {"stop": stop}, abandoned=lambda held: None)
    monkeypatch.setattr(os, "pidfd_open", refuse)
    monkeypatch.setattr("ulvm.daemon.process.is_held", lambda run_dir: bool(held and held.pop()))
    server.start()
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(path))
            assert client.DaemonClient(sock, run_dir=short_tmp).stop() == []
    finally:
        server.stop()
    assert done == (["stop"] if asked else [])
    assert bool(held) is not asked


@pytest.mark.parametrize(
    ("ours", "theirs", "taken"), [(1, 1, True), (1, 0, True), (0, 1, True), (1, 2, False)]
)
def test_only_an_own_daemon_is_believed(
    short_tmp: Path, monkeypatch: pytest.MonkeyPatch, ours: int, theirs: int, taken: bool
) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(short_tmp / client.CONTROL_SOCKET))
        listener.listen()
        monkeypatch.setattr(client, "_credentials", lambda _: struct.pack("3i", 1, theirs, theirs))
        monkeypatch.setattr(os, "geteuid", lambda: ours)
        if taken:
            found = client.connect(short_tmp, start=False)
            assert found is not None
            found.close()
        else:
            with pytest.raises(RefusedError, match="is user 2's"):
                client.connect(short_tmp, start=False)


@needs.root
def test_no_daemon_runs_in_the_directory_of_another_user(short_tmp: Path) -> None:
    """A link of theirs would have it write where they may not."""
    (short_tmp / "run").mkdir()
    (short_tmp / "run" / "ulvmd.log").symlink_to(short_tmp / "made")
    os.chown(short_tmp / "run", 65534, 65534)
    with pytest.raises(DeviceError, match=r"did not start: .*/run belongs to user 65534"):
        client.connect(short_tmp / "run", start=True, system_dir=short_tmp)
    assert not (short_tmp / "made").exists()
    until(lambda: not running(short_tmp))
