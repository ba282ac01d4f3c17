"""Warnings reach the system's log, and a log that is full or gone hinders nobody."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from ulvm.daemon import syslog


@pytest.fixture
def server(short_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    path = short_tmp / "log"
    monkeypatch.setattr(syslog, "_SOCKET", str(path))
    before = list(logging.getLogger().handlers)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(path))
        server.settimeout(30)
        syslog.log_to_syslog()
        yield server
    for handler in set(logging.getLogger().handlers) - set(before):
        logging.getLogger().removeHandler(handler)
        handler.close()


def test_warnings_are_sent_and_nothing_less(server: socket.socket) -> None:
    logging.getLogger("x").info("started")
    logging.getLogger("x").warning("WARNING: Snapshot vg-s is now %d%% full.", 80)
    text = server.recv(4096).decode()
    assert text.startswith("<28>ulvmd[")  # daemon.warning
    assert text.endswith("]: WARNING: Snapshot vg-s is now 80% full.")


def test_what_is_no_text_is_sent_as_the_daemons_own_log_has_it(server: socket.socket) -> None:
    # Past pytest, which keeps what is logged and cannot write this down either.
    logger = logging.Logger("x")
    logger.handlers = [h for h in logging.getLogger().handlers if isinstance(h, syslog._Handler)]
    logger.error("not brought back: %s", "\ud800 \udcff")
    assert server.recv(4096).endswith(b"]: not brought back: \\ud800 \\udcff")


def test_a_log_that_nobody_reads_is_not_waited_for(server: socket.socket) -> None:
    for number in range(2000):  # more than a socket's queue holds
        logging.getLogger("x").warning("%d", number)
    assert server.recv(4096).endswith(b": 0")


def test_without_a_system_log_nothing_fails(server: socket.socket, short_tmp: Path) -> None:
    (short_tmp / "log").unlink()
    logging.getLogger("x").error("nobody hears")
