"""The SQLite bank: accounts, a history of transfers, and the promise that no money is lost.

Run as a program it is the writer: `python -m ulvm.demo.ledger DATABASE PROGRESS` moves money
between random accounts, one transaction after the other, until it gets SIGTERM.
"""

from __future__ import annotations

import random
import signal
import sqlite3
import sys
import time
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from ulvm.demo.progress import ProgressFile

__all__ = ["ACCOUNTS", "OPENING_BALANCE", "State", "create", "embezzle", "inspect", "write"]

ACCOUNTS = 1000
OPENING_BALANCE = 1000
_MEMO_BYTES = 900
_PAUSE_SECONDS = 0.002
"""Between two transfers; the demonstration is not to take a whole machine."""
_PATIENCE_SECONDS = 60
"""With the lock that the writer holds nearly all the time, on a machine that is busy."""


class State(NamedTuple):
    """What a database says of itself."""

    integrity: str
    """The answer of PRAGMA integrity_check; "ok" if all is well."""
    money: int
    transfers: int

    @property
    def right(self) -> bool:
        return self.integrity == "ok" and self.money == ACCOUNTS * OPENING_BALANCE


def create(path: Path, *, old_transfers: int) -> None:
    """A new bank with a past of this many transfers (about 1 KiB each)."""
    rng = random.Random(7)
    database = sqlite3.connect(path)
    try:
        database.executescript(
            "PRAGMA page_size=4096;"
            "CREATE TABLE account(id INTEGER PRIMARY KEY, balance INTEGER NOT NULL);"
            "CREATE TABLE transfer(id INTEGER PRIMARY KEY, source INTEGER, target INTEGER,"
            " amount INTEGER, memo BLOB);"
        )
        with database:
            database.executemany(
                "INSERT INTO account VALUES(?, ?)", ((n, OPENING_BALANCE) for n in range(ACCOUNTS))
            )
            database.executemany(
                "INSERT INTO transfer(source, target, amount, memo) VALUES(?, ?, 0, ?)",
                ((n % ACCOUNTS, n % 7, _memo(rng)) for n in range(old_transfers)),
            )
    finally:
        database.close()


def _memo(rng: random.Random) -> bytes:
    """Text that compresses about as well as text does."""
    return rng.randbytes(_MEMO_BYTES // 2).hex().encode()


def inspect(path: Path) -> State:
    """Check a database and add up its money. It may have to be recovered, so it is opened for
    writing: never give the original of a backup."""
    database = sqlite3.connect(path, timeout=_PATIENCE_SECONDS)
    try:
        (integrity,) = database.execute("PRAGMA integrity_check").fetchone()
        (money,) = database.execute("SELECT sum(balance) FROM account").fetchone()
        (transfers,) = database.execute("SELECT count(*) FROM transfer").fetchone()
    except sqlite3.DatabaseError as error:
        return State(str(error), 0, 0)
    finally:
        database.close()
    return State(integrity, money or 0, transfers)


def embezzle(path: Path) -> int:
    """The accident: a careless UPDATE. The number of accounts that it hits."""
    database = sqlite3.connect(path, timeout=_PATIENCE_SECONDS)
    try:
        with database:
            return database.execute("UPDATE account SET balance = 0 WHERE id % 3 = 0").rowcount
    finally:
        database.close()


def write(path: Path, progress: ProgressFile) -> None:
    """Move money until SIGTERM. Every transfer is one durable transaction."""
    stop = False

    def on_signal(_signum: int, _frame: FrameType | None) -> None:
        nonlocal stop
        stop = True

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for the demonstration to handle
    rng = random.Random()
    database = sqlite3.connect(path, timeout=_PATIENCE_SECONDS)
    database.execute("PRAGMA synchronous=FULL")
    while not stop:
        source, target = rng.sample(range(ACCOUNTS), 2)
        amount, memo = rng.randint(1, 20), _memo(rng)
        begun = time.monotonic()
        with database:
            database.execute(
                "UPDATE account SET balance = balance - ? WHERE id = ?", (amount, source)
            )
            database.execute(
                "UPDATE account SET balance = balance + ? WHERE id = ?", (amount, target)
            )
            database.execute(
                "INSERT INTO transfer(source, target, amount, memo) VALUES(?, ?, ?, ?)",
                (source, target, amount, memo),
            )
        progress.transferred(len(memo), time.monotonic() - begun)
        time.sleep(_PAUSE_SECONDS)
    database.close()


if __name__ == "__main__":
    write(Path(sys.argv[1]), ProgressFile(Path(sys.argv[2])))
