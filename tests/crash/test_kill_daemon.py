"""kill -9 of the daemon at random moments under load: nothing that was answered is lost.

Two writers at once: one on the origin through NBD, one on its snapshot through FUSE. A block holds
its number, the generation of its last write, and bytes that follow from both, so a torn, lost or
misplaced block shows. After each kill the next command starts the daemon again; then every block
of the origin must be as new as the last write that was answered, flushed or not, and the snapshot
as of its creation but for what was written to it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import signal
import struct
import threading
import time
from collections.abc import Callable

import pytest

from tests import effort, needs
from tests.e2e.host import UlvmHost
from ulvm.blockdev.base import BlockDevice
from ulvm.blockdev.file import FileDevice
from ulvm.blockdev.nbd import NbdDevice
from ulvm.errors import UlvmError

BLOCK = 4096
BLOCKS = 4096
SNAPSHOT_BLOCKS = 512
"""The writer on the snapshot keeps to these."""
KILLS = effort.amount(50, 1000)


def block(number: int, generation: int) -> bytes:
    head = struct.pack("<QQ", number, generation)
    return (head + hashlib.blake2b(head, digest_size=48).digest()) * (BLOCK // 64)


def generation_of(number: int, data: bytes) -> int:
    """The generation in a block, which must be whole and in its place."""
    found, generation = struct.unpack_from("<QQ", data)
    assert found == number, f"block {number} holds block {found}"
    assert data == block(number, generation), f"block {number} is torn"
    return int(generation)


class Writer(threading.Thread):
    """Writes random blocks and flushes now and then, until the device fails. `failed`: when."""

    def __init__(self, open_device: Callable[[], BlockDevice], blocks: int, seed: int) -> None:
        super().__init__(daemon=True)
        self._open = open_device
        self._blocks = blocks
        self._random = random.Random(seed)
        self.answered: dict[int, int] = {}
        self.written: dict[int, int] = {}
        self.flushes = 0
        self.failed = 0.0

    def run(self) -> None:
        generation = max(self.written.values(), default=0)
        try:
            device = self._open()
        except (UlvmError, OSError):
            self.failed = time.monotonic()
            return  # killed before we came
        try:
            while True:
                for _ in range(self._random.randrange(1, 24)):
                    number = self._random.randrange(self._blocks)
                    generation += 1
                    # Noted before: a write that fails may have reached the disk.
                    self.written[number] = generation
                    device.write(number * BLOCK, block(number, generation))
                    self.answered[number] = generation
                if self._random.random() < 0.3:
                    device.flush()
                    self.flushes += 1
        except UlvmError:
            self.failed = time.monotonic()
        finally:
            with contextlib.suppress(UlvmError):
                device.close()

    def again(self, seed: int) -> Writer:
        """A writer that goes on where this one was stopped."""
        new = Writer(self._open, self._blocks, seed)
        new.answered, new.written = self.answered, self.written
        return new

    def check(self, data: bytes, label: str) -> None:
        for number in range(BLOCKS):
            found = generation_of(number, data[number * BLOCK : (number + 1) * BLOCK])
            least, most = self.answered.get(number, 0), self.written.get(number, 0)
            assert least <= found <= most, f"{label}: block {number} is {found}, not {least}.."
            # What is there now is what a later check may find at least.
            if found:
                self.answered[number] = max(least, found)


@needs.fuse
@pytest.mark.timeout(effort.amount(900, 0))
def test_nothing_answered_is_lost(host: UlvmHost) -> None:
    dice = effort.rng("kill the daemon")
    host.run(f"vgcreate vg {host.image('pv.img', '64M')}")
    host.run("lvcreate -L 16M -n base vg")
    socket = str(host.run_dir / "nbd.sock")
    device = NbdDevice(socket, "vg/base")
    device.write(0, b"".join(block(number, 0) for number in range(BLOCKS)))
    device.flush()
    device.close()
    host.run("lvcreate -s -l 100%ORIGIN -n snap vg/base")

    base = Writer(lambda: NbdDevice(socket, "vg/base"), BLOCKS, dice.randrange(1 << 32))
    path = str(host.path("vg/snap"))
    snap = Writer(lambda: FileDevice(path, claim=False), SNAPSHOT_BLOCKS, dice.randrange(1 << 32))
    killed = 0
    for turn in range(KILLS):
        pid = host.daemon_pid()
        assert pid != killed, "the daemon that was killed serves on"
        killed = pid
        base.start()
        snap.start()
        time.sleep(dice.uniform(0.005, 0.15))
        before = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        base.join(30)
        snap.join(30)
        for writer in (base, snap):
            assert not writer.is_alive(), "a writer hangs"
            assert writer.failed >= before, "a writer was told of an error by a daemon that lived"
        shown = host.run("lvs --noheadings -o lv_name,lv_attr vg").stdout.split()
        assert shown == ["base", "owi-a-s---", "snap", "swi-a-s---"]
        for name, writer in (("base", base), ("snap", snap)):
            with_data = NbdDevice(socket, f"vg/{name}", read_only=True)
            writer.check(with_data.read(0, BLOCKS * BLOCK), f"turn {turn}, {name}")
            with_data.close()
        base, snap = base.again(dice.randrange(1 << 32)), snap.again(dice.randrange(1 << 32))
        effort.tally("kills of the daemon")
    assert base.answered
    assert snap.answered
