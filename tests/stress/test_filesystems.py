"""A mounted file system under load: each snapshot of it is whole but for its journal.

Files are written, cut, punched, renamed and synced all the time, while snapshots are taken. Of each
snapshot a copy is made, its journal is replayed, and the file system's own checker must then have
nothing to repair; files that were synced before the snapshot are in it as they were.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from tests import effort, needs
from tests.e2e.host import UlvmHost

pytestmark = [
    needs.root,
    needs.fuse,
    needs.loop,
    needs.program("mkfs.xfs"),
    pytest.mark.timeout(effort.amount(300, 0)),
]
ROUNDS = effort.amount(2, 12)


def run(*words: str, ok: tuple[int, ...] = (0,)) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode in ok, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


class Load(threading.Thread):
    """Changes files below a folder, and knows the content of those that were synced and are left
    alone from then on."""

    def __init__(self, folder: Path, choose: random.Random) -> None:
        super().__init__(daemon=True)
        self.folder, self.choose = folder, choose
        self.stop = threading.Event()
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
        path = self.folder / f"f{choose.randrange(30)}"
        what = choose.random()
        if what < 0.5:
            with path.open("r+b" if path.exists() else "w+b") as file:
                file.seek(choose.randrange(200_000))
                file.write(choose.randbytes(choose.randrange(1, 60_000)))
                if choose.random() < 0.3:
                    os.fsync(file.fileno())
        elif what < 0.6 and path.exists():
            os.truncate(path, choose.randrange(100_000))
        elif what < 0.7 and path.exists():
            path.rename(self.folder / f"f{choose.randrange(30)}")
        elif what < 0.75 and path.exists():
            path.unlink()
        elif what < 0.85:
            (self.folder / f"d{choose.randrange(20)}").mkdir(exist_ok=True)
        elif what < 0.9:
            name = f"kept{len(self.synced) % 60}-{self.operations}"
            data = choose.randbytes(choose.randrange(1, 30_000))
            with (self.folder / name).open("wb") as file:
                file.write(data)
                os.fsync(file.fileno())
            folder = os.open(self.folder, os.O_RDONLY)
            os.fsync(folder)
            os.close(folder)
            self.synced[name] = hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_snapshots_of_a_busy_file_system(host: UlvmHost, kind: str) -> None:
    host.image("a.img", "2G")
    host.run("vgcreate vg a.img")
    host.run("lvcreate -L 400M -n base vg")
    run(f"mkfs.{kind}", "-q", str(host.path("vg/base")))
    where = host.base / "mnt"
    where.mkdir()
    host.run(f"mount vg/base {where}")
    load = Load(where, effort.rng("file system", kind))
    load.start()
    try:
        for number in range(ROUNDS):
            assert not load.stop.wait(1)
            synced = dict(load.synced)
            host.run(f"lvcreate -s -L 200M -n s{number} vg/base")
            check(host, kind, f"s{number}", synced)
            host.run(f"lvremove -y vg/s{number}")
            effort.tally(f"snapshots of a busy {kind} that its checker found whole")
    finally:
        load.stop.set()
        load.join(60)
        host.run(f"umount {where}")
    assert load.problem is None
    assert load.operations > 20
    effort.tally(f"operations on {kind}", load.operations)


def check(host: UlvmHost, kind: str, name: str, synced: dict[str, str]) -> None:
    copy = host.base / "copy.img"
    run("nbdcopy", host.uri(f"vg/{name}"), str(copy))
    try:
        if kind == "ext4":
            run("e2fsck", "-y", "-E", "journal_only", str(copy), ok=(0, 1))
            run("e2fsck", "-f", "-n", str(copy))
        where = host.base / "look"
        where.mkdir(exist_ok=True)
        options = "loop,nouuid" if kind == "xfs" else "loop"
        run("mount", "-o", options, str(copy), str(where))
        try:
            for file, total in synced.items():
                data = (where / file).read_bytes()
                assert hashlib.sha256(data).hexdigest() == total, f"{name}: {file} is not as synced"
        finally:
            run("umount", str(where))
        if kind == "xfs":
            run("xfs_repair", "-n", "-f", str(copy))
    finally:
        copy.unlink()
        shutil.rmtree(host.base / "look")
