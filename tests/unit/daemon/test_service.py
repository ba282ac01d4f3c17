"""The stop of a daemon, in this process: its order, and that a failure does not hinder the rest."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from ulvm.daemon.client import CONTROL_SOCKET
from ulvm.daemon.service import Service
from ulvm.daemon.state import STATE_FILE
from ulvm.dm_ioctl import TableLine
from ulvm.vgstore.host import Host


@pytest.fixture
def service(short_tmp: Path) -> Iterator[Service]:
    """One device, a state file, all doors."""
    for name in ("etc", "run"):
        (short_tmp / name).mkdir()
    service = Service(Host(short_tmp / "etc", short_tmp / "run"))
    service.start()
    service.mapper.create("zeros")
    service.mapper.load("zeros", [TableLine(0, 8, "zero")])
    service.mapper.resume("zeros")
    assert (short_tmp / "run" / STATE_FILE).exists()
    yield service
    service.stop()


def test_no_command_reaches_the_daemon_once_its_doors_close(
    service: Service, short_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, seen = service._nbd.stop, []

    def look_and_stop() -> None:
        with socket.socket(socket.AF_UNIX) as sock:
            seen.append(sock.connect_ex(str(short_tmp / "run" / CONTROL_SOCKET)))
        stop()

    monkeypatch.setattr(service._nbd, "stop", look_and_stop)
    service.stop()
    assert 0 not in seen
    assert len(seen) == 1


@pytest.mark.parametrize("door", ["_control", "_monitor", "_nbd", "_fuse"])
def test_a_failure_does_not_hinder_the_rest_of_the_stop(
    service: Service, short_tmp: Path, monkeypatch: pytest.MonkeyPatch, door: str
) -> None:
    def fail() -> None:
        raise OSError("no")

    with monkeypatch.context() as failing:
        failing.setattr(getattr(service, door), "stop", fail)
        service.stop()
    assert service.mapper.all_mapped() == []
    assert not (short_tmp / "run" / STATE_FILE).exists()
