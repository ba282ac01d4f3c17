"""What `verify` and `restore` prove is what the disk holds, not what the page cache remembers."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import needs
from tests.e2e.host import UlvmHost
from ulvm.backup import image, restoring
from ulvm.backup.fileio import sync
from ulvm.backup.pipeline import Progress
from ulvm.backup.restoring import restore
from ulvm.errors import DeviceError, FormatError
from ulvm.lvm.session import Session
from ulvm.vgstore.host import Host

MIB = 1 << 20

pytestmark = [needs.root, needs.loop]


class Silent:
    """Messages that nobody reads, and no to every question."""

    verbosity = 0

    def say(self, text: str) -> None:
        pass

    def warn(self, text: str) -> None:
        pass

    def verbose(self, text: str) -> None:
        pass

    def ask(self, question: str) -> bool:
        return False


@contextmanager
def loop(disk: Path, size: int) -> Iterator[str]:
    """A loop device over a new file. It has a page cache of its own over the file's."""
    disk.touch()
    os.truncate(disk, size)
    losetup = ["losetup", "--find", "--show", str(disk)]
    device = subprocess.run(losetup, capture_output=True, text=True, check=True).stdout.strip()
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def lose(disk: Path, block: bytes) -> None:
    """The disk loses the only block with this content, and the kernel above does not know."""
    at = disk.read_bytes().find(block)
    assert at >= 0
    with disk.open("r+b", buffering=0) as file:
        file.seek(at)
        file.write(bytes(len(block)))
        os.fsync(file.fileno())


@pytest.fixture
def target(host: UlvmHost) -> Iterator[Path]:
    """A directory on a disk of its own, `disk`, for backups."""
    directory = host.base / "out"
    directory.mkdir()
    with loop(host.base / "disk", 64 * MIB) as device:
        subprocess.run(["mkfs.ext4", "-q", device], check=True)
        subprocess.run(["mount", device, str(directory)], check=True)
        try:
            yield directory
        finally:
            subprocess.run(["umount", str(directory)], check=True)


def fill(host: UlvmHost, volume: str, length: int) -> bytes:
    data = random.Random(volume).randbytes(length)
    host.path(volume).open("r+b", buffering=0).write(data)
    return data


@pytest.mark.parametrize("suffix", [".raw.zst", ".json"])
def test_verify_sees_what_the_disk_lost(host: UlvmHost, target: Path, suffix: str) -> None:
    host.run(f"pvcreate {host.image('pv', '64M')}")
    host.run("vgcreate vg pv")
    host.run("lvcreate -n a -L 16M vg")
    fill(host, "vg/a", 8 * MIB)
    host.run(f"backup vg/a --to {target}")
    host.run(f"verify {target}")
    (file,) = target.glob(f"*{suffix}")
    data = file.read_bytes()
    subprocess.run(["sync", "--file-system", str(target)], check=True)
    at = len(data) // 2 // 4096 * 4096
    lose(host.base / "disk", data[at : at + 4096])
    assert file.read_bytes() == data  # so says the page cache
    host.run(f"verify {target}", rc=5)


def test_a_backup_sees_what_the_disk_lost_where_two_batches_meet(
    host: UlvmHost, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch ends at any byte, the cache is dropped by pages, or more at once."""
    frames = [random.Random(number).randbytes(700_001) for number in range(9)]
    data = b"".join(frames)
    at = 4 * 700_001 // 4096 * 4096
    page = data[at : at + 4096]  # the first batch ends in it
    path = target / "image"
    path.write_bytes(data)

    def sync_and_lose(fd: int, name: str) -> None:
        sync(fd, name)
        if page in (host.base / "disk").read_bytes():
            lose(host.base / "disk", page)

    monkeypatch.setattr(image, "_BATCH", 2_500_000)
    monkeypatch.setattr(image, "sync", sync_and_lose)
    with path.open("r+b", buffering=0) as file:
        checker = image._Checker(file.fileno(), "image")
        for frame in frames:
            checker.wrote(frame)
        with pytest.raises(DeviceError, match="image reads back otherwise"):
            checker.finish()
        checker.close()


def test_restore_sees_what_the_disk_lost(host: UlvmHost) -> None:
    """The disk under the volume loses a block between the writing and the reading back."""
    out, disk = host.base / "out", host.base / "disk"
    out.mkdir()
    with loop(disk, 64 * MIB) as device:
        host.run(f"pvcreate {device}")
        host.run(f"vgcreate vg {device}")
        host.run("lvcreate -n a -L 16M vg")
        data = fill(host, "vg/a", 8 * MIB)
        host.run(f"backup vg/a --to {out}")
        host.run("lvremove -y vg/a")
        session = Session(Host.from_environment(host.env), Silent())

        @contextmanager
        def stage(name: str) -> Iterator[Progress]:
            if name == "Reading back":
                lose(disk, data[4 * MIB : 4 * MIB + 4096])
            yield lambda _done, _total: None

        with pytest.raises(FormatError, match="reads back"):
            restore(session, out, "vg/b", stage=stage)
        session.close()
        assert host.run("lvs --noheadings vg").stdout == ""
        host.run("daemon stop --force")


@pytest.mark.parametrize("kind", ["", "--atomic"])
def test_restore_reads_what_is_being_moved_from_the_disks(
    host: UlvmHost, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From where it was, or where it is to be."""
    host.run(f"vgcreate vg {host.image('from', '64M')} {host.image('to', '64M')}")
    host.run("lvcreate -n a -L 16M vg from")
    fill(host, "vg/a", 8 * MIB)
    (host.base / "out").mkdir()
    host.run("backup vg/a --to out")
    host.env["ULVM_FAULT_POINT"] = "at=after a move was begun"
    assert host.attempt(f"pvmove {kind} -n a from to").rc == -9
    del host.env["ULVM_FAULT_POINT"]
    dropped: set[tuple[str, int]] = set()

    def drop_cache(fd: int, _offset: int, length: int) -> None:
        dropped.add((Path(os.readlink(f"/proc/self/fd/{fd}")).name, length))

    monkeypatch.setattr(restoring, "drop_cache", drop_cache)
    session = Session(Host.from_environment(host.env), Silent())
    restore(session, host.base / "out", "vg/a", force=True)
    session.close()
    assert dropped == {("from", 16 * MIB), ("to", 16 * MIB)}
