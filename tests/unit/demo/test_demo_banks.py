"""Both banks keep their money: under a writer, and however a copy of the volume is cut."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ulvm.blockdev.base import Buffer
from ulvm.blockdev.memory import MemoryDevice
from ulvm.demo import blockbank, ledger
from ulvm.demo.ledger import ACCOUNTS, OPENING_BALANCE
from ulvm.demo.progress import ProgressFile

MONEY = ACCOUNTS * OPENING_BALANCE
DEVICE_SIZE = 8 << 20


def test_sqlite_under_a_writer(tmp_path: Path) -> None:
    database = tmp_path / "bank.db"
    ledger.create(database, old_transfers=50)
    progress = ProgressFile(tmp_path / "progress")
    writer = subprocess.Popen(
        [sys.executable, "-m", "ulvm.demo.ledger", str(database), str(tmp_path / "progress")]
    )
    while progress.read().transfers < 20:
        time.sleep(0.02)
    writer.send_signal(signal.SIGTERM)
    assert writer.wait(20) == 0
    counters = progress.read()
    progress.close()
    state = ledger.inspect(database)
    assert state == ("ok", MONEY, 50 + counters.transfers)
    assert state.right
    assert counters.longest_seconds >= counters.latest_seconds > 0


def test_sqlite_shows_the_accident(tmp_path: Path) -> None:
    ledger.create(tmp_path / "bank.db", old_transfers=0)
    assert ledger.embezzle(tmp_path / "bank.db") == 334
    state = ledger.inspect(tmp_path / "bank.db")
    assert (state.integrity, state.money, state.right) == ("ok", MONEY - 334_000, False)


def test_what_is_no_database_says_so(tmp_path: Path) -> None:
    (tmp_path / "bank.db").write_bytes(b"no database" * 1000)
    assert "not a database" in ledger.inspect(tmp_path / "bank.db").integrity


class Recorder(MemoryDevice):
    """Remembers every write."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.log: list[tuple[int, bytes]] = []

    def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
        super().write(offset, data, fua=fua)
        self.log.append((offset, bytes(data)))


def recorded(transfers: int) -> tuple[Recorder, int]:
    """A device after some transfers, and how many of its writes made the bank."""
    device = Recorder(DEVICE_SIZE)
    blockbank.create(device)
    made = len(device.log)
    rng = random.Random(3)
    for number in range(1, transfers + 1):
        source, target = rng.sample(range(ACCOUNTS), 2)
        changes = [
            (n, blockbank._account_block(n, blockbank._balance(device, n) + amount))
            for n, amount in ((source, -7), (target, 7))
        ]
        blockbank._transfer(device, number, changes)
    return device, made


def test_blocks_at_every_instant_the_money_is_whole() -> None:
    device, made = recorded(6)
    for cut in range(made, len(device.log) + 1):
        copy = MemoryDevice(DEVICE_SIZE)
        for offset, data in device.log[:cut]:
            copy.write(offset, data)
        state = blockbank.inspect(copy)
        # The journal is the third of a transfer's five writes.
        assert state == ("ok", MONEY, (cut - made + 2) // 5), cut


def test_blocks_show_the_accident() -> None:
    device, _ = recorded(1)
    assert blockbank.embezzle(device) == 334
    assert not blockbank.inspect(device).right


@pytest.mark.parametrize(("at", "says"), [(0, "not a journal"), (4096 * 5, "not account 4")])
def test_blocks_damage_is_seen(at: int, says: str) -> None:
    device, _ = recorded(0)
    device.write(at + 100, b"x")
    assert says in blockbank.inspect(device).integrity


def test_an_accident_waits_for_the_writer(tmp_path: Path) -> None:
    """For longer than SQLite does by default."""
    path = tmp_path / "bank.db"
    ledger.create(path, old_transfers=1)
    writer = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    writer.execute("BEGIN EXCLUSIVE")
    timer = threading.Timer(5.5, writer.rollback)
    timer.start()
    assert ledger.embezzle(path) > 0
    assert ledger.inspect(path).integrity == "ok"
    timer.join()
    writer.close()
