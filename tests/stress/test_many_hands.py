"""Many hands at once: clients over NBD and FUSE, snapshots that come and go, and a model over all.

Eight clients read, write, flush, zero and trim blocks of an origin and of its snapshots, each block
of each by one client alone, while snapshots are made, read, renamed, extended, filled up, merged
and removed, tables are refreshed, reloaded and suspended, and the origin is backed up and the
backup restored. `tests.stress.model` says what every block may hold; nothing else may ever be read.

A watchdog fails what stands still for a minute, with the stacks of the test and of the daemon.
When all clients and snapshots are gone, the daemon has the descriptors and threads that it began
with, and its memory does not grow from turn to turn.
"""

from __future__ import annotations

import errno
import faulthandler
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from tests import effort, needs
from tests.e2e.host import UlvmHost
from tests.stress.model import BLOCK, ZEROS, Found, Token, Volume, block, token_of
from tests.waiting import until
from ulvm.blockdev.base import BlockDevice
from ulvm.blockdev.file import FileDevice
from ulvm.blockdev.nbd import NbdDevice
from ulvm.errors import DeviceError, NotSupportedError
from ulvm.exports.fuse_requests import MAX_IO
from ulvm.exports.fuse_session import SERVING_THREADS

pytestmark = [needs.fuse, pytest.mark.timeout(effort.amount(300, 0))]

CLIENTS = 8
PER_CLIENT = 512
BLOCKS = CLIENTS * PER_CLIENT
ORIGIN_MIB = BLOCKS * BLOCK // (1 << 20) + 4
SECONDS = effort.amount(10, 600)
TURNS = effort.amount(1, 5)
PATIENCE = 60.0
SNAPSHOTS = 4


class Group:
    """The volumes there are, by their model."""

    def __init__(self, host: UlvmHost) -> None:
        self.host = host
        self.stop = threading.Event()
        self.origin = Volume(1, "base", [frozenset((ZEROS,))] * BLOCKS)
        self.snapshots: list[Volume] = []
        self.made = 1
        self.naming = threading.Lock()
        """Held to open a volume by its name, and to rename one."""

    def volumes(self) -> list[Volume]:
        return [self.origin, self.origin, *self.snapshots]

    def open(self, volume: Volume, *, nbd: bool) -> BlockDevice:
        with self.naming:
            if nbd:
                return NbdDevice(str(self.host.run_dir / "nbd.sock"), f"vg/{volume.name}")
            path = str(self.host.path(f"vg/{volume.name}"))
            return FileDevice(path, writable=True, claim=False)


class Client(threading.Thread):
    """Owns PER_CLIENT blocks of each volume; reads all."""

    def __init__(self, group: Group, number: int, choose: random.Random, generation: int) -> None:
        super().__init__(daemon=True, name=f"client-{number}")
        self.group, self.choose, self.generation = group, choose, generation
        self.first = number * PER_CLIENT
        self.nbd = number % 2 == 0
        self.operations = 0
        self.trims = 0
        self.problem: BaseException | None = None

    def run(self) -> None:
        try:
            while not self.group.stop.is_set():
                self.work(self.choose.choice(self.group.volumes()))
        except BaseException as error:
            self.problem = error
            self.group.stop.set()

    def work(self, volume: Volume) -> None:
        with volume.opened() as usable:
            if not usable:
                time.sleep(0.01)
                self.operations += 1
                return
            try:
                with closing(self.group.open(volume, nbd=self.nbd)) as device:
                    for _ in range(self.choose.randrange(1, 40)):
                        if volume.closing or self.group.stop.is_set():
                            break
                        self.step(volume, device)
                        self.operations += 1
            except DeviceError as error:
                if not volume.may_fail or error.errno not in (errno.EIO, errno.ENOSPC):
                    raise
                volume.closing = True

    def step(self, volume: Volume, device: BlockDevice) -> None:
        choose = self.choose
        count = choose.choice([1, 1, 2, 8, 30])
        mine = self.first + choose.randrange(PER_CLIENT - count + 1)
        at, length = mine * BLOCK, count * BLOCK
        what = choose.random()
        self.generation += 1
        if what < 0.45:
            with volume.writing(mine, count, self.generation) as data:
                device.write(at, data, fua=choose.random() < 0.1)
        elif what < 0.85:
            first = choose.choice([mine, choose.randrange(BLOCKS - count + 1)])
            with volume.watch(first, count) as watch:
                found = device.read(first * BLOCK, length)
            watch.check(volume.name, tokens(first, found))
        elif what < 0.92:
            device.flush()
        elif what < 0.96:
            with volume.zeroing(mine, count, self.generation, sure=True):
                device.write_zeroes(at, length, no_hole=choose.random() < 0.5)
        elif device.can_discard:
            # A file has none while there are snapshots.
            zeroing = volume.zeroing(mine, count, self.generation, sure=False)
            with zeroing, suppress(NotSupportedError):
                device.discard(at, length)
                self.trims += 1


def tokens(first: int, data: bytes) -> Iterator[Found]:
    for at in range(0, len(data), BLOCK):
        yield token_of(first + at // BLOCK, data[at : at + BLOCK])


class Watchdog(threading.Thread):
    """Stops and fails the run when a client, or the conductor, makes no step for a minute."""

    def __init__(self, group: Group, clients: list[Client], conductor: Conductor) -> None:
        super().__init__(daemon=True)
        self.group, self.clients, self.conductor = group, clients, conductor
        self.ended = threading.Event()
        self.stalled: str | None = None

    def run(self) -> None:
        now = time.monotonic()
        seen = {who.name: (-1, now) for who in (*self.clients, self.conductor)}
        while not self.ended.wait(1):
            now = time.monotonic()
            for who in (*self.clients, self.conductor):
                if who.operations != seen[who.name][0] or self.group.stop.is_set():
                    seen[who.name] = who.operations, now
                elif now - seen[who.name][1] > PATIENCE:
                    self.stalled = f"{who.name} has stood still for {PATIENCE:.0f} s"
                    faulthandler.dump_traceback(sys.stderr)
                    os.kill(self.conductor.pid, signal.SIGUSR1)
                    time.sleep(1)
                    print(self.group.host.log()[-20_000:], file=sys.stderr)
                    self.group.stop.set()
                    return


class Conductor:
    """Gives the commands; one at a time, all of them in each turn."""

    name = "conductor"

    def __init__(self, group: Group, choose: random.Random) -> None:
        self.group, self.choose = group, choose
        self.host = group.host
        self.pid = self.host.daemon_pid()
        self.operations = 0
        self.merging: str | None = None
        self.checked = 0
        self.merges = 0
        self.extended = 0
        self.overflowed = 0
        self.backups = 0

    def actions(self) -> list[Callable[[], None]]:
        return [
            *[self.create] * 4,
            *[self.check] * 3,
            *[self.remove] * 2,
            self.rename,
            self.refresh,
            self.suspend,
            self.reload,
            self.extend,
            self.overflow,
            self.backup,
            self.merge,
        ]

    def one_of_each(self) -> None:
        actions = self.actions()
        self.choose.shuffle(actions)
        for action in actions:
            if self.group.stop.is_set():
                return
            action()
            self.operations += 1

    # -- snapshots come and go --------------------------------------------------------------

    def create(self) -> None:
        if len(self.group.snapshots) < SNAPSHOTS:
            self.snapshot("-l 100%ORIGIN")

    def snapshot(self, size: str, *, may_fail: bool = False) -> Volume:
        """A new one, looked at by us before anybody else gets hold of it."""
        self.wait_for_merge()
        group = self.group
        group.made += 1
        name = f"s{group.made}"
        chunk = self.choose.choice(["4k", "16k", "64k"])
        with group.origin.watch() as watch:
            self.host.run(f"lvcreate -s {size} -c {chunk} -n {name} vg/base")
        volume = Volume(group.made, name, [])
        volume.may_fail = may_fail
        try:
            found = self.content(volume)
        except DeviceError:
            assert may_fail
            assert self.is_invalid(volume)
        else:
            volume.becomes(watch.check_instant(name, found, PER_CLIENT))
            group.snapshots.append(volume)
        return volume

    def content(self, volume: Volume) -> list[Found]:
        with closing(self.group.open(volume, nbd=self.choose.random() < 0.5)) as device:
            return list(tokens(0, device.read(0, BLOCKS * BLOCK)))

    def check(self) -> None:
        """All of a volume, while others write to it."""
        if self.group.snapshots:
            volume = self.choose.choice(self.group.snapshots)
            with volume.watch() as watch:
                found = self.content(volume)
            watch.check(volume.name, found)
            self.checked += 1

    def remove(self) -> None:
        if self.group.snapshots:
            self.drop(self.choose.choice(self.group.snapshots))

    def drop(self, volume: Volume) -> None:
        self.closed(volume)
        if volume in self.group.snapshots:
            self.group.snapshots.remove(volume)
        self.host.run(f"lvremove -y vg/{volume.name}")

    def closed(self, volume: Volume) -> None:
        """Nobody has it open any more. A file's close comes to its end after close(2)."""
        volume.close(PATIENCE)
        until(lambda: self.dm_open(volume) == "0", seconds=PATIENCE)

    def dm_open(self, volume: Volume) -> str:
        device = f"vg-{volume.name}"
        return self.host.run(f"dmsetup info -c --noheadings -o open {device}").stdout.strip()

    def rename(self) -> None:
        if self.group.snapshots:
            volume = self.choose.choice(self.group.snapshots)
            new = f"renamed{volume.number}" if volume.name[0] == "s" else f"s{volume.number}"
            with self.group.naming:
                self.host.run(f"lvrename vg/{volume.name} vg/{new}")
                volume.name = new

    def extend(self) -> None:
        """Fails if the snapshot has run out of room before its turn, for no other reason."""
        volume = self.snapshot(f"-L {ORIGIN_MIB - 4}M", may_fail=True)
        done = self.host.attempt(f"lvextend -L +4M vg/{volume.name}")
        if self.is_invalid(volume):
            self.drop(volume)
        else:
            assert done.rc == 0, done
            self.extended += 1
            volume.may_fail = False

    def is_invalid(self, volume: Volume) -> bool:
        shown = self.host.run(f"lvs --noheadings -o lv_attr vg/{volume.name}").stdout.strip()
        return shown[4] == "I"

    def overflow(self) -> None:
        """Readers get what it was, or errors; and it is seen to be invalid."""
        volume = self.snapshot("-L 4M", may_fail=True)
        until(lambda: self.is_invalid(volume) or self.group.stop.is_set(), seconds=PATIENCE)
        self.overflowed += 1
        self.drop(volume)

    def merge(self) -> None:
        """Goes on while the clients use the origin, and the other snapshots, again."""
        if not self.group.snapshots:
            self.create()
        volume = self.choose.choice(self.group.snapshots)
        origin = self.group.origin
        later = self.choose.random() < 0.5
        self.closed(volume)
        self.group.snapshots.remove(volume)
        if later:
            # The origin is in use: its merge begins when it is free and refreshed.
            with closing(self.group.open(origin, nbd=True)):
                said = self.host.run(f"lvconvert --merge -b vg/{volume.name}")
                assert "will occur on next activation" in said.stdout + said.stderr
            self.closed(origin)
            self.host.run("lvchange --refresh vg/base")
        else:
            self.closed(origin)
            self.host.run(f"lvconvert --merge -b vg/{volume.name}")
        origin.becomes(volume.settled())
        origin.reopen()
        self.merging = volume.name
        self.merges += 1

    def wait_for_merge(self) -> None:
        if self.merging is not None:
            name = self.merging
            until(
                lambda: name not in self.host.run("lvs -a --noheadings -o name vg").stdout,
                seconds=PATIENCE,
            )
            self.merging = None

    # -- tables -----------------------------------------------------------------------------

    def refresh(self) -> None:
        self.host.run(self.choose.choice(["lvchange --refresh vg/base", "vgchange --refresh vg"]))

    def a_device(self) -> str:
        return f"vg-{self.choose.choice(self.group.volumes()).name}"

    def suspend(self) -> None:
        device = self.a_device()
        self.host.run(f"dmsetup suspend {device}")
        time.sleep(0.1)
        self.host.run(f"dmsetup resume {device}")

    def reload(self) -> None:
        self.wait_for_merge()
        table = self.host.run("dmsetup table vg-base").stdout.strip()
        self.host.run(f"dmsetup reload vg-base --table '{table}'")
        self.host.run("dmsetup resume vg-base")

    # -- backup -----------------------------------------------------------------------------

    def backup(self) -> None:
        self.wait_for_merge()
        self.backups += 1
        out = self.host.base / f"out{self.backups}"
        out.mkdir()
        with self.group.origin.watch() as watch:
            self.host.run(f"backup vg/base --to {out}")
        self.host.run(f"restore {out} vg/restored")
        restored = Volume(0, "restored", [])
        watch.check_instant("backup", self.content(restored), PER_CLIENT)
        until(lambda: self.dm_open(restored) == "0", seconds=PATIENCE)
        self.host.run("lvremove -y vg/restored")

    # -- the end of a turn -----------------------------------------------------------------

    def all_checked(self) -> None:
        """With nobody else there: all volumes."""
        self.wait_for_merge()
        for volume in (self.group.origin, *self.group.snapshots):
            with volume.watch() as watch:
                pass
            watch.check(volume.name, self.content(volume))
            self.checked += 1

    def restart(self) -> None:
        self.host.run("daemon stop --force")
        self.host.run("vgchange -ay vg")
        self.pid = self.host.daemon_pid()

    def all_removed(self) -> None:
        for volume in list(self.group.snapshots):
            self.drop(volume)
        until(lambda: self.dm_open(self.group.origin) == "0", seconds=PATIENCE)


class Usage:
    """Of a process: KiB of memory, descriptors, threads."""

    def __init__(self, pid: int) -> None:
        status = Path(f"/proc/{pid}/status").read_text()
        fields = dict(line.split(":", 1) for line in status.splitlines())
        self.memory = int(fields["VmRSS"].split()[0])
        self.threads = int(fields["Threads"])
        self.descriptors = len(os.listdir(f"/proc/{pid}/fd"))

    def __repr__(self) -> str:
        return f"{self.memory} KiB, {self.descriptors} descriptors, {self.threads} threads"


def play(group: Group, conductor: Conductor, turn: int, seconds: float) -> int:
    """All commands at least once, beside the clients. Returns the clients' operations."""
    group.stop.clear()
    clients = [Client(group, n, effort.rng("client", turn, n), turn << 32) for n in range(CLIENTS)]
    watchdog = Watchdog(group, clients, conductor)
    for thread in (*clients, watchdog):
        thread.start()
    end = time.monotonic() + seconds
    try:
        conductor.one_of_each()
        while time.monotonic() < end and not group.stop.is_set():
            conductor.one_of_each()
    except AssertionError:
        if watchdog.stalled is None and all(client.problem is None for client in clients):
            raise
    finally:
        group.stop.set()
        for client in clients:
            client.join(PATIENCE)
        watchdog.ended.set()
    for client in clients:
        if client.problem is not None:
            raise client.problem
        assert not client.is_alive(), f"{client.name} hangs"
    assert watchdog.stalled is None, watchdog.stalled
    assert sum(client.trims for client in clients), "no trim"
    return sum(client.operations for client in clients)


def test_many_hands(host: UlvmHost) -> None:
    for name in ("a", "b"):
        host.image(f"{name}.img", "256M")
    host.run("vgcreate vg a.img b.img")
    host.run(f"lvcreate -y -L {ORIGIN_MIB}M -n base vg")
    group = Group(host)
    conductor = Conductor(group, effort.rng("conductor"))
    operations = play(group, conductor, 0, 0)
    conductor.all_checked()
    conductor.restart()
    conductor.all_checked()
    conductor.all_removed()
    idle = [Usage(conductor.pid)]
    for turn in range(1, TURNS + 1):
        operations += play(group, conductor, turn, SECONDS / TURNS)
        conductor.all_checked()
        conductor.all_removed()
        idle.append(Usage(conductor.pid))
    print(f"daemon: {idle}")
    # One more for each PV that COWs lie on, for copies past the page cache.
    descriptors = [use.descriptors for use in idle]
    assert max(descriptors) - min(descriptors) <= 2, idle
    assert descriptors == sorted(descriptors), idle
    # Those of FUSE stay, with a buffer each.
    assert idle[-1].threads <= idle[0].threads + SERVING_THREADS, idle
    buffers = (idle[-1].threads - idle[0].threads) * (MAX_IO >> 10)
    assert idle[-1].memory <= idle[0].memory + buffers + (24 << 10), idle
    assert idle[-1].memory <= idle[1].memory + (24 << 10), idle
    for what, number in {
        "operations of many hands": operations,
        "snapshots checked block by block": conductor.checked,
        "merges under load": conductor.merges,
        "extensions under load": conductor.extended,
        "overflows under load": conductor.overflowed,
        "backups under load restored and checked": conductor.backups,
    }.items():
        assert number, what
        effort.tally(what, number)


def test_the_model_sees_a_wrong_block() -> None:
    token = Token(1, 3)
    assert token_of(7, block(token, 7)) == token
    with pytest.raises(AssertionError, match="holds block 7"):
        token_of(8, block(token, 7))


def test_the_model_sees_a_torn_block() -> None:
    """Beside a write the words of both are what a file gives; otherwise, and of others, a fault."""
    volume = Volume(1, "base", [frozenset((ZEROS,))] * 8)
    old, new, other = Token(1, 3), Token(1, 4), Token(2, 4)
    with volume.writing(7, 1, old.generation):
        pass
    with volume.watch(7, 1) as watch, volume.writing(7, 1, new.generation):
        pass
    torn = token_of(7, block(old, 7)[:2040] + block(new, 7)[2040:])
    watch.check("base", [torn])
    with pytest.raises(AssertionError, match="torn"):
        watch.check_instant("snapshot", [torn], owned=1)
    for wrong in (block(other, 7), block(new, 6), block(ZEROS, 7)):
        with pytest.raises(AssertionError, match="torn"):
            watch.check("base", [token_of(7, block(old, 7)[:2040] + wrong[2040:])])
    with volume.watch(7, 1) as after:
        pass
    with pytest.raises(AssertionError, match="torn"):
        after.check("base", [torn])


def test_the_model_sees_a_write_too_early_or_too_late() -> None:
    volume = Volume(1, "base", [frozenset((ZEROS,))] * 4)
    with volume.watch() as watch:
        for generation, number in enumerate((0, 1, 0), 1):
            with volume.writing(number, 1, generation):
                pass
    old, first, second, third = ZEROS, Token(1, 1), Token(1, 2), Token(1, 3)
    rest = [ZEROS, ZEROS]
    for right in ([old, old], [first, old], [first, second], [third, second]):
        watch.check_instant("snapshot", right + rest, owned=4)
    for wrong in ([old, second], [third, old], [Token(2, 1), old]):
        with pytest.raises(AssertionError):
            watch.check_instant("snapshot", wrong + rest, owned=4)
    watch.check_instant("snapshot", [third, old, *rest], owned=1)
    with volume.watch() as after:
        pass
    after.check("base", [third, second, *rest])
    with pytest.raises(AssertionError):
        after.check("base", [first, second, *rest])
