"""The bank without a file system: the same promise kept on bare blocks, with a journal.

    block 0         the journal: one transfer, whole or not at all
    block 1 ... n   one account each

    journal   magic u64, number of the transfer u64, then twice (account u32, crc32 of the body
              that is to be there u32), then crc32 of all that u32; the two blocks follow in
              blocks n+1 and n+2
    account   magic u64, number of the account u64, balance i64, crc32 of the 24 bytes u32

A transfer writes the two new blocks beside, flushes, then the journal block that names them,
flushes, writes them in place and flushes. Blocks are 4 KiB, written by one request. Opening replays
the journal. So at every instant the money on the volume is whole, as a snapshot has to show.

Run as a program it is the writer: `python -m ulvm.demo.blockbank SOCKET EXPORT PROGRESS`.
"""

from __future__ import annotations

import random
import signal
import struct
import sys
import time
import zlib
from pathlib import Path
from types import FrameType

from ulvm.blockdev.base import BlockDevice
from ulvm.demo.ledger import ACCOUNTS, OPENING_BALANCE, State
from ulvm.demo.progress import ProgressFile
from ulvm.errors import FormatError

__all__ = ["BLOCK", "create", "embezzle", "inspect", "write"]

BLOCK = 4096
_ACCOUNT_MAGIC = 0x756C766D_41434354
_JOURNAL_MAGIC = 0x756C766D_4A524E4C
_ACCOUNT = struct.Struct("<QQq")
_JOURNAL = struct.Struct("<QQ" + "II" * 2)
_CRC = struct.Struct("<I")
_BESIDE = ACCOUNTS + 1
_PAUSE_SECONDS = 0.002


def _sealed(body: bytes) -> bytes:
    """A block with its checksum behind the body."""
    return (body + _CRC.pack(zlib.crc32(body))).ljust(BLOCK, b"\0")


def _body_crc(block: bytes) -> int:
    """Of the body alone: a CRC over data and their CRC is the same for all data."""
    return zlib.crc32(block[: _ACCOUNT.size])


def _account_block(number: int, balance: int) -> bytes:
    return _sealed(_ACCOUNT.pack(_ACCOUNT_MAGIC, number, balance))


def _balance(device: BlockDevice, number: int) -> int:
    """FormatError if the block is not the account's."""
    block = device.read((number + 1) * BLOCK, BLOCK)
    magic, owner, balance = _ACCOUNT.unpack_from(block)
    if block != _account_block(owner, balance) or (magic, owner) != (_ACCOUNT_MAGIC, number):
        raise FormatError(f"block {number + 1} is not account {number}")
    return int(balance)


def create(device: BlockDevice) -> None:
    """Open all accounts."""
    device.write(0, _sealed(_JOURNAL.pack(_JOURNAL_MAGIC, 0, 0, 0, 0, 0)))
    for number in range(ACCOUNTS):
        device.write((number + 1) * BLOCK, _account_block(number, OPENING_BALANCE))
    device.flush()


def _recover(device: BlockDevice) -> int:
    """Finish the transfer that the journal holds; its number."""
    block = device.read(0, BLOCK)
    magic, transfer, first, first_crc, second, second_crc = _JOURNAL.unpack_from(block)
    expected = _JOURNAL.pack(magic, transfer, first, first_crc, second, second_crc)
    if magic != _JOURNAL_MAGIC or block != _sealed(expected):
        raise FormatError("block 0 is not a journal")
    if transfer == 0:
        return 0
    for beside, number, crc in ((0, first, first_crc), (1, second, second_crc)):
        new = device.read((_BESIDE + beside) * BLOCK, BLOCK)
        # The next transfer may have begun to write beside; then this one is in place already.
        if _body_crc(new) == crc:
            device.write((number + 1) * BLOCK, new)
    device.flush()
    return int(transfer)


def inspect(device: BlockDevice) -> State:
    """Recover, check every account and add up the money."""
    try:
        transfers = _recover(device)
        money = sum(_balance(device, number) for number in range(ACCOUNTS))
    except FormatError as error:
        return State(error.message, 0, 0)
    return State("ok", money, transfers)


def embezzle(device: BlockDevice) -> int:
    """The accident: every third account is emptied. The number of accounts hit."""
    hit = range(0, ACCOUNTS, 3)
    for number in hit:
        device.write((number + 1) * BLOCK, _account_block(number, 0))
    device.flush()
    return len(hit)


def write(device: BlockDevice, progress: ProgressFile) -> None:
    """Move money until SIGTERM."""
    stop = False

    def on_signal(_signum: int, _frame: FrameType | None) -> None:
        nonlocal stop
        stop = True

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    rng = random.Random()
    transfer = _recover(device)
    while not stop:
        transfer += 1
        source, target = rng.sample(range(ACCOUNTS), 2)
        amount = rng.randint(1, 20)
        begun = time.monotonic()
        changes = [
            (source, _account_block(source, _balance(device, source) - amount)),
            (target, _account_block(target, _balance(device, target) + amount)),
        ]
        _transfer(device, transfer, changes)
        progress.transferred(5 * BLOCK, time.monotonic() - begun)
        time.sleep(_PAUSE_SECONDS)


def _transfer(device: BlockDevice, transfer: int, changes: list[tuple[int, bytes]]) -> None:
    """Make both changes or none; see the module's note."""
    for beside, (_, block) in enumerate(changes):
        device.write((_BESIDE + beside) * BLOCK, block)
    device.flush()
    entries = [word for number, block in changes for word in (number, _body_crc(block))]
    device.write(0, _sealed(_JOURNAL.pack(_JOURNAL_MAGIC, transfer, *entries)))
    device.flush()
    for number, block in changes:
        device.write((number + 1) * BLOCK, block)
    device.flush()


if __name__ == "__main__":
    from ulvm.blockdev.nbd import NbdDevice

    write(NbdDevice(sys.argv[1], sys.argv[2]), ProgressFile(Path(sys.argv[3])))
