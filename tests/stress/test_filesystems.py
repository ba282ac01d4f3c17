"""A mounted file system under load: each snapshot of it is whole but for its journal.

Files are written, mapped, cut, punched, renamed, read, compared and synced all the time, while
snapshots are taken. On each snapshot, or a copy of it, the journal is replayed, and the file
system's own checker must then have nothing to repair; files that were synced before the snapshot
are in it as they were; also where the file system could not be frozen for the snapshot.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import random
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest

from tests import effort, needs
from tests.e2e.host import UlvmHost
from tests.waiting import until

pytestmark = [
    needs.root,
    needs.fuse,
    needs.loop,
    needs.program("mkfs.xfs"),
    pytest.mark.timeout(effort.amount(300, 0)),
]
ROUNDS = effort.amount(1, 12)


def run(*words: str, ok: tuple[int, ...] = (0,)) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode in ok, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


class Load(threading.Thread):
    """Files that are changed and read at random and must be what this thread made of them, and
    others that are synced and left alone from then on."""

    def __init__(self, folder: Path, choose: random.Random) -> None:
        super().__init__(daemon=True)
        self.folder, self.choose = folder, choose
        self.stop = threading.Event()
        self.files: dict[str, bytearray] = {}
        self.synced: dict[str, str] = {}
        self.operations = 0
        self.problem: BaseException | None = None

    def run(self) -> None:
        try:
            while not self.stop.is_set():
                self.step()
                self.operations += 1
        except BaseException as error:
            self.problem = error

    def step(self) -> None:
        choose = self.choose
        name = f"f{choose.randrange(30)}"
        what = choose.random()
        if what < 0.8:
            with (self.folder / name).open("r+b" if name in self.files else "x+b") as file:
                self.change(file, self.files.setdefault(name, bytearray()))
        elif what < 0.85 and name in self.files:
            new = f"f{choose.randrange(30)}"
            (self.folder / name).rename(self.folder / new)
            self.files[new] = self.files.pop(name)
        elif what < 0.88 and name in self.files:
            (self.folder / name).unlink()
            del self.files[name]
        elif what < 0.94:
            (self.folder / f"d{choose.randrange(20)}").mkdir(exist_ok=True)
        else:
            self.keep(f"kept{len(self.synced) % 60}-{self.operations}")

    def change(self, file: BinaryIO, content: bytearray) -> None:
        """One access of a file, by read, write, mmap, truncate or fallocate."""
        choose = self.choose
        what = choose.choice(["write", "write", "read", "read", "map", "cut", "punch", "sync"])
        at = choose.randrange(len(content) + 20_000)
        length = choose.randrange(1, 60_000)
        if what == "write":
            data = choose.randbytes(length)
            file.seek(at)
            file.write(data)
            content.extend(bytes(max(0, at + length - len(content))))
            content[at : at + length] = data
        elif what == "read":
            file.seek(at)
            assert file.read(length) == content[at : at + length]
        elif what == "map" and content:
            at %= len(content)
            data = choose.randbytes(min(length, len(content) - at))
            with mmap.mmap(file.fileno(), 0) as mapped:
                assert mapped[:] == content
                mapped[at : at + len(data)] = data
            content[at : at + len(data)] = data
        elif what == "cut":
            file.truncate(at)
            del content[at:]
            content.extend(bytes(at - len(content)))
        elif what == "punch":
            words = ["--punch-hole", "--offset", str(at), "--length", str(length), file.name]
            run("fallocate", *words)
            end = min(at + length, len(content))
            content[at:end] = bytes(max(0, end - at))
        elif what == "sync":
            os.fsync(file.fileno())

    def keep(self, name: str) -> None:
        data = self.choose.randbytes(self.choose.randrange(1, 30_000))
        with (self.folder / name).open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        folder = os.open(self.folder, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
        self.synced[name] = hashlib.sha256(data).hexdigest()

    def check(self) -> None:
        """When it has stopped: every file as it should be."""
        if self.problem is not None:
            raise self.problem
        assert not self.is_alive()
        for name, content in self.files.items():
            assert (self.folder / name).read_bytes() == content, name


@contextmanager
def mounted(host: UlvmHost, where: Path, *, seen: bool) -> Iterator[Path]:
    """vg/base; with `seen` false in a mount namespace of its own, as a container's: the daemon does
    not know of it, so it is not frozen for a snapshot, which is then as after a power cut."""
    if seen:
        host.run(f"mount vg/base {where}")
        try:
            yield where
        finally:
            host.run(f"umount {where}")
        return
    keeper = subprocess.Popen(["unshare", "--mount", "sleep", "infinity"])
    inside = ("nsenter", f"--target={keeper.pid}", "--mount")
    try:
        until(lambda: os.readlink(f"/proc/{keeper.pid}/ns/mnt") != os.readlink("/proc/self/ns/mnt"))
        run(*inside, "mount", "-o", "loop", str(host.path("vg/base")), str(where))
        try:
            yield Path(f"/proc/{keeper.pid}/root{where}")
        finally:
            run(*inside, "umount", str(where))
    finally:
        keeper.kill()
        keeper.wait()


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_snapshots_of_a_busy_file_system(host: UlvmHost, kind: str, frozen: bool) -> None:
    host.image("a.img", "2G")
    host.run("vgcreate vg a.img")
    host.run("lvcreate -L 400M -n base vg")
    run(f"mkfs.{kind}", "-q", str(host.path("vg/base")))
    where = host.base / "mnt"
    where.mkdir()
    with mounted(host, where, seen=frozen) as folder:
        take_snapshots(host, kind, folder, frozen)


def take_snapshots(host: UlvmHost, kind: str, folder: Path, frozen: bool) -> None:
    load = Load(folder, effort.rng("file system", kind))
    load.start()
    try:
        for number in range(ROUNDS):
            assert not load.stop.wait(1)
            assert load.problem is None, load.problem
            synced = dict(load.synced)
            host.run(f"lvcreate -s -L 200M -n s{number} vg/base")
            with image_of(host, f"s{number}", copied=(number + frozen) % 2 == 1) as image:
                if kind == "ext4":
                    dirty = "needs_recovery" in run("dumpe2fs", "-h", str(image))
                    assert dirty != frozen
                check(kind, image, host.base / "look", synced)
            host.run(f"lvremove -y vg/s{number}")
            effort.tally(f"snapshots of a busy {kind} that its checker found whole")
    finally:
        load.stop.set()
        load.join(60)
    load.check()
    assert load.operations > 20
    effort.tally(f"operations on {kind}", load.operations)


@contextmanager
def image_of(host: UlvmHost, name: str, *, copied: bool) -> Iterator[Path]:
    """A copy of the snapshot, or the snapshot itself, which takes the writes of the replay."""
    if not copied:
        yield host.path(f"vg/{name}")
        return
    copy = host.base / "copy.img"
    run("nbdcopy", host.uri(f"vg/{name}"), str(copy))
    try:
        yield copy
    finally:
        copy.unlink()


def check(kind: str, image: Path, where: Path, synced: dict[str, str]) -> None:
    if kind == "ext4":
        run("e2fsck", "-y", "-E", "journal_only", str(image), ok=(0, 1))
        run("e2fsck", "-f", "-n", str(image))
    where.mkdir(exist_ok=True)
    run("mount", "-o", "loop,nouuid" if kind == "xfs" else "loop", str(image), str(where))
    try:
        for file, total in synced.items():
            data = (where / file).read_bytes()
            assert hashlib.sha256(data).hexdigest() == total, f"{image}: {file} is not as synced"
    finally:
        # Busy for as long as a child that the load has forked has not come to its exec.
        until(lambda: not subprocess.run(["umount", where], check=False).returncode)
    if kind == "xfs":
        run("xfs_repair", "-n", "-f", str(image))
