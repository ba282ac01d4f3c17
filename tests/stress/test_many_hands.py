"""Many hands at once: clients over NBD and FUSE, snapshots that come and go, and a model over all.

Eight clients read, write, flush and zero blocks of an origin, each block by one client alone,
while its snapshots are made, read and removed, tables are refreshed, and the origin is backed up;
when the clients have stopped a snapshot is merged. A block names its number and its generation,
with a checksum; a reader knows which generations it may hold:

* of the origin, the last that its client wrote, or the one under way;
* of a snapshot, what the origin held between the begin and the end of its creation.

Nothing else may ever be read. A watchdog shows all stacks when nothing moves any more; memory,
threads and descriptors of the daemon end where they began.
"""

from __future__ import annotations

import faulthandler
import hashlib
import os
import random
import struct
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import effort, needs
from tests.e2e.host import UlvmHost
from ulvm.blockdev.base import BlockDevice
from ulvm.blockdev.file import FileDevice
from ulvm.blockdev.nbd import NbdDevice
from ulvm.errors import UlvmError

pytestmark = [needs.fuse, pytest.mark.timeout(effort.amount(300, 0))]

BLOCK = 4096
CLIENTS = 8
PER_CLIENT = 192
BLOCKS = CLIENTS * PER_CLIENT
SECONDS = effort.amount(20, 600)


def block(number: int, generation: int) -> bytes:
    head = struct.pack("<QQ", number, generation)
    return (head + hashlib.blake2b(head, digest_size=48).digest()) * (BLOCK // 64)


def generation_of(number: int, data: bytes) -> int:
    """The generation; 0 for zeros (trimmed, or never written)."""
    if not any(data):
        return 0
    found, generation = struct.unpack_from("<QQ", data)
    assert found == number, f"block {number} holds block {found}"
    assert data == block(number, generation), f"block {number} is torn"
    return int(generation)


State = tuple[list[int], list[int], list[int]]


class Model:
    """Of the origin's blocks the oldest and the newest generation that may be read now."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.least = [0] * BLOCKS
        self.most = [0] * BLOCKS
        self.trims = [0] * BLOCKS
        """How often each was trimmed; odd while that is under way."""

    def copy(self) -> tuple[list[int], list[int], list[int]]:
        with self.lock:
            return list(self.least), list(self.most), list(self.trims)


class Client(threading.Thread):
    """Owns PER_CLIENT blocks of the origin; by turns through NBD and through the file."""

    def __init__(self, host: UlvmHost, model: Model, number: int, stop: threading.Event) -> None:
        super().__init__(daemon=True, name=f"client-{number}")
        self.host, self.model, self.stop = host, model, stop
        self.first = number * PER_CLIENT
        self.over_nbd = number % 2 == 0
        self.choose: random.Random = effort.rng("client", number)
        self.generation = 0
        self.operations = 0
        self.problem: BaseException | None = None

    def open(self, name: str) -> BlockDevice:
        if self.over_nbd:
            return NbdDevice(str(self.host.run_dir / "nbd.sock"), f"vg/{name}")
        return FileDevice(str(self.host.path(f"vg/{name}")), writable=True, claim=False)

    def run(self) -> None:
        try:
            device = self.open("base")
            try:
                while not self.stop.is_set():
                    self.step(device)
                    self.operations += 1
            finally:
                device.close()
        except BaseException as error:
            self.problem = error
            self.stop.set()

    def step(self, device: BlockDevice) -> None:
        choose, model = self.choose, self.model
        count = choose.choice([1, 1, 2, 8, 30])
        first = self.first + choose.randrange(PER_CLIENT - count)
        numbers = range(first, first + count)
        what = choose.random()
        if what < 0.5:
            self.generation += 1
            with model.lock:
                for n in numbers:
                    model.most[n] = self.generation
            device.write(first * BLOCK, b"".join(block(n, self.generation) for n in numbers))
            with model.lock:
                for n in numbers:
                    model.least[n] = self.generation
        elif what < 0.9:
            data = device.read(first * BLOCK, count * BLOCK)
            for at, n in enumerate(numbers):
                found = generation_of(n, data[at * BLOCK : (at + 1) * BLOCK])
                # Only this client writes to its blocks: there is one right answer.
                assert found == model.most[n], f"origin: block {n} is {found}, not {model.most[n]}"
        elif what < 0.95:
            device.flush()
        else:
            with model.lock:
                for n in numbers:
                    model.trims[n] += 1
            device.write_zeroes(first * BLOCK, count * BLOCK)
            with model.lock:
                for n in numbers:
                    model.trims[n] += 1
                    model.most[n] = model.least[n] = 0


def check_snapshot(host: UlvmHost, name: str, before: State, after: State, door: int) -> None:
    """Every block is what the origin held at some moment of the snapshot's creation."""
    device: BlockDevice
    if door % 2:
        device = NbdDevice(str(host.run_dir / "nbd.sock"), f"vg/{name}", read_only=True)
    else:
        device = FileDevice(str(host.path(f"vg/{name}")), writable=False, claim=False)
    try:
        data = device.read(0, BLOCKS * BLOCK)
    finally:
        device.close()
    (least, newest, trims_before), (_, most, trims) = before, after
    for n in range(BLOCKS):
        found = generation_of(n, data[n * BLOCK : (n + 1) * BLOCK])
        trimmed = trims_before[n] % 2 or trims[n] != trims_before[n]
        if found == 0 and (trimmed or least[n] == 0):
            continue
        low, high = least[n], max(most[n], newest[n]) if not trimmed else found
        assert low <= found <= high, f"{name}: block {n} is {found}, not {low}..{high}"


class Watchdog(threading.Thread):
    """Shows all stacks when the clients have done nothing for a minute."""

    def __init__(self, clients: list[Client], stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.clients, self.stop = clients, stop

    def run(self) -> None:
        last, since = -1, time.monotonic()
        while not self.stop.wait(1):
            done = sum(c.operations for c in self.clients)
            if done != last:
                last, since = done, time.monotonic()
            elif time.monotonic() - since > 60:
                faulthandler.dump_traceback(sys.stderr)
                self.stop.set()
                return


def usage(pid: int) -> tuple[int, int, int]:
    """(KiB of memory, descriptors, threads) of the daemon."""
    status = Path(f"/proc/{pid}/status").read_text()
    values = {
        line.split(":")[0]: line.split()[1]
        for line in status.splitlines()
        if ":" in line and len(line.split()) > 1
    }
    return int(values["VmRSS"]), len(os.listdir(f"/proc/{pid}/fd")), int(values["Threads"])


def test_many_hands(host: UlvmHost) -> None:
    for name in ("a", "b"):
        host.image(f"{name}.img", "256M")
    (host.base / "out").mkdir()
    host.run("vgcreate vg a.img b.img")
    host.run(f"lvcreate -y -L {BLOCKS * BLOCK // (1 << 20) + 2}M -n base vg")
    model, stop = Model(), threading.Event()
    pid = host.daemon_pid()
    clients = [Client(host, model, n, stop) for n in range(CLIENTS)]
    watchdog = Watchdog(clients, stop)
    for thread in (*clients, watchdog):
        thread.start()
    choose = effort.rng("conductor")
    end = time.monotonic() + SECONDS
    snaps: dict[str, tuple[State, State]] = {}
    checked = made = 0
    start: tuple[int, int, int] | None = None
    actions: list[Callable[[], None]] = []

    def create() -> None:
        nonlocal made
        if len(snaps) >= 4:
            remove()
        made += 1
        name = f"s{made}"
        chunk = choose.choice(["4k", "16k", "64k"])
        before = model.copy()
        host.run(f"lvcreate -s -l 100%ORIGIN -c {chunk} -n {name} vg/base")
        snaps[name] = (before, model.copy())

    def check() -> None:
        nonlocal checked
        for name, (before, after) in list(snaps.items())[-2:]:
            check_snapshot(host, name, before, after, checked)
            checked += 1

    def remove() -> None:
        name = choose.choice(list(snaps))
        del snaps[name]
        host.run(f"lvremove -y vg/{name}")

    def reload() -> None:
        host.run(choose.choice(["lvchange --refresh vg/base", "vgchange --refresh vg"]))

    def suspend() -> None:
        host.run("dmsetup suspend vg-base")
        host.run("dmsetup resume vg-base")

    def extend() -> None:
        small = f"x{made}"
        host.run(f"lvcreate -s -L 4M -n {small} vg/base")
        host.attempt(f"lvextend -L +4M vg/{small}")
        host.run(f"lvremove -y vg/{small}")

    def backup() -> None:
        time.sleep(1)  # an image is named by the second
        host.run("backup vg/base --to out")

    actions = [create, create, check, check, reload, suspend, extend, backup]
    while time.monotonic() < end and not stop.is_set():
        choose.choice(actions if snaps else [create])()
        if start is None and made >= 4:
            start = usage(pid)
    stop.set()
    for client in clients:
        client.join(60)
        assert not client.is_alive(), f"{client.name} hangs"
    for client in clients:
        if client.problem is not None:
            raise client.problem
    check()
    if start is not None:
        memory, descriptors, threads = usage(pid)
        assert descriptors <= start[1] + 8, f"descriptors: {start[1]} -> {descriptors}"
        assert threads <= start[2] + 8, f"threads: {start[2]} -> {threads}"
        assert memory <= start[0] * 2 + (32 << 10), f"KiB: {start[0]} -> {memory}"
    merge(host, snaps)
    effort.tally("operations of many hands", sum(c.operations for c in clients))
    effort.tally("snapshots checked block by block", checked)


def merge(host: UlvmHost, snaps: dict[str, tuple[State, State]]) -> None:
    """The origin goes back to a snapshot; the others stay as they are, over a restart too."""
    if len(snaps) < 2:
        return
    name = list(snaps)[-1]
    before, after = snaps.pop(name)
    host.run(f"lvconvert --merge vg/{name}")
    check_snapshot(host, "base", before, after, 0)
    host.run("daemon stop --force")
    host.run("vgchange -ay vg")
    check_snapshot(host, "base", before, after, 1)
    for other, (first, last) in snaps.items():
        check_snapshot(host, other, first, last, 0)


def test_the_model_sees_a_wrong_block() -> None:
    assert generation_of(7, block(7, 3)) == 3
    with pytest.raises(AssertionError):
        generation_of(8, block(7, 3))
    with pytest.raises(AssertionError):
        generation_of(7, block(7, 3)[:2048] + block(7, 4)[2048:])
    with pytest.raises(UlvmError):
        NbdDevice("/nonexistent", "x")
