"""Backups of mounted file systems under load: what a restore brings back is a database."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import needs
from tests.e2e.host import UlvmHost
from ulvm.demo import ledger
from ulvm.demo.progress import ProgressFile

pytestmark = [needs.root, needs.fuse, needs.loop, needs.program("mkfs.ext4")]


@pytest.fixture
def mounted(host: UlvmHost, tmp_path: Path) -> Iterator[tuple[UlvmHost, Path]]:
    """A host whose vg/db holds an ext4, and where that is mounted."""
    image = host.image("pv0.img", "512M")
    host.run(f"pvcreate {image}")
    host.run(f"vgcreate vg {image}")
    host.run("lvcreate -n db -L 128M vg")
    subprocess.run(["mkfs.ext4", "-q", host.path("vg/db")], check=True)
    directory = tmp_path / "mnt"
    directory.mkdir()
    host.run(f"mount vg/db {directory}")
    yield host, directory
    host.run(f"umount {directory}")


def snapshot_of(target: Path) -> dict[str, object]:
    """What the manifest in `target` says of the snapshot."""
    (manifest,) = target.glob("*.json")
    snapshot = json.loads(manifest.read_text())["snapshot"]
    assert isinstance(snapshot, dict)
    return snapshot


@contextmanager
def under_load(directory: Path, tmp_path: Path) -> Iterator[ProgressFile]:
    """The bank's writer is at it during the block."""
    database = directory / "bank.db"
    ledger.create(database, old_transfers=2000)
    progress = ProgressFile(tmp_path / "progress")
    writer = subprocess.Popen(
        [sys.executable, "-m", "ulvm.demo.ledger", str(database), str(tmp_path / "progress")]
    )
    try:
        while progress.read().transfers < 20:
            assert writer.poll() is None
            time.sleep(0.02)
        yield progress
    finally:
        writer.send_signal(signal.SIGTERM)
        assert writer.wait(60) == 0
        progress.close()


def restored(host: UlvmHost, backup: Path, tmp_path: Path) -> ledger.State:
    """What the bank in a restored volume says of itself."""
    host.run(f"restore {backup} vg/again")
    directory = tmp_path / "again"
    directory.mkdir()
    host.run(f"mount vg/again {directory}")
    try:
        return ledger.inspect(directory / "bank.db")
    finally:
        host.run(f"umount {directory}")


def test_a_database_under_load(mounted: tuple[UlvmHost, Path], tmp_path: Path) -> None:
    host, directory = mounted
    target = tmp_path / "backups"
    target.mkdir()
    with under_load(directory, tmp_path) as progress:
        before = progress.read().transfers
        said = host.run(f"backup vg/db --to {target}").stdout
        after = progress.read().transfers
    assert after > before
    assert f"ms; frozen: {directory}.\n" in said
    assert snapshot_of(target)["frozen"] == [str(directory)]
    assert snapshot_of(target)["synced"] == []
    state = restored(host, target, tmp_path)
    assert state.right
    assert 2000 + before <= state.transfers <= 2000 + after
    assert ledger.inspect(directory / "bank.db").right


def test_a_file_system_is_frozen_whose_volume_was_renamed_meanwhile(
    mounted: tuple[UlvmHost, Path], tmp_path: Path
) -> None:
    """Its mount has the name that the volume had."""
    host, directory = mounted
    host.run("lvrename vg db other")
    assert f"ms; frozen: {directory}.\n" in host.run(f"backup vg/other --to {tmp_path}").stdout
    assert snapshot_of(tmp_path)["frozen"] == [str(directory)]


@pytest.mark.parametrize("mount", [["fuse2fs"], ["mount", "-o", "ro,loop"]])
@needs.program("fuse2fs")
def test_a_file_system_that_cannot_be_frozen_is_not_said_to_be(
    host: UlvmHost, tmp_path: Path, mount: list[str]
) -> None:
    """FUSE refuses FIFREEZE. One that is mounted read-only has nothing to be frozen for."""
    host.run(f"pvcreate {host.image('pv', '128M')}")
    host.run("vgcreate vg pv")
    host.run("lvcreate -n db -L 32M vg")
    subprocess.run(["mkfs.ext4", "-q", host.path("vg/db")], check=True)
    directory, target = tmp_path / "mnt", tmp_path / "backups"
    directory.mkdir()
    target.mkdir()
    subprocess.run([*mount, host.path("vg/db"), directory], check=True)
    synced = mount == ["fuse2fs"]
    try:
        said = host.run(f"backup vg/db --to {target}").stdout
    finally:
        host.run(f"umount {directory}")
    assert "frozen: /" not in said.replace(f"could not be frozen: {directory}", "")
    assert (f"synced, but could not be frozen: {directory}." in said) == synced
    assert ("so none was frozen" in said) == (not synced)
    assert snapshot_of(target)["frozen"] == []
    assert snapshot_of(target)["synced"] == ([str(directory)] if synced else [])


def tree(directory: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(directory)): p.read_bytes()
        for p in sorted(directory.rglob("*"))
        if p.is_file()
    }


@pytest.mark.parametrize(
    "command",
    [
        pytest.param("tar -C {mount} -cf - . | tar -C OUT -xf -", marks=needs.program("tar")),
        pytest.param("rsync -a {mount}/ OUT/", marks=needs.program("rsync")),
    ],
)
def test_a_program_on_the_mounted_snapshot(
    mounted: tuple[UlvmHost, Path], tmp_path: Path, command: str
) -> None:
    host, directory = mounted
    for number in range(20):
        (directory / f"file{number}").write_bytes(os.urandom(10_000))
    expected = tree(directory)
    out = tmp_path / "out"
    out.mkdir()
    command = command.replace("OUT", str(out))
    host.run(f"backup vg/db --exec '{command}' --resume 'rm {directory}/file7'")
    assert "file7" in expected
    assert tree(out) == expected
    assert "file7" not in tree(directory)
    assert host.run("lvs --noheadings -o lv_name vg").stdout.split() == ["db"]
    assert str(host.run_dir / "backup") not in Path("/proc/self/mountinfo").read_text()


def test_the_mounted_snapshot_cannot_be_written(
    mounted: tuple[UlvmHost, Path],
) -> None:
    host, _ = mounted
    done = host.run("backup vg/db --exec 'touch {mount}/x'", rc=1)
    assert "Read-only file system" in done.stderr


def test_the_device_is_a_file(mounted: tuple[UlvmHost, Path], tmp_path: Path) -> None:
    host, _ = mounted
    out = tmp_path / "out"
    host.run(f"backup vg/db --exec 'dd if={{device}} of={out} bs=1M status=none'")
    assert out.stat().st_size == 128 << 20
    # Frozen while the snapshot was taken, so its journal is empty and a check finds nothing to do.
    subprocess.run(["e2fsck", "-fn", str(out)], check=True, stdout=subprocess.DEVNULL)


def test_kill_9_with_a_mounted_snapshot_is_cleaned(
    mounted: tuple[UlvmHost, Path], tmp_path: Path
) -> None:
    host, directory = mounted
    ready = tmp_path / "ready"
    process = host.start(f"backup vg/db --exec ': {{mount}}; echo $$ >{ready}; exec sleep 60'")
    deadline = time.monotonic() + 30
    while not (ready.exists() and ready.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    os.killpg(int(ready.read_text()), signal.SIGKILL)
    process.communicate()
    assert str(host.run_dir / "backup") in Path("/proc/self/mountinfo").read_text()
    host.run("backup --clean vg --yes")
    assert str(host.run_dir / "backup") not in Path("/proc/self/mountinfo").read_text()
    assert host.run("lvs --noheadings -o lv_name vg").stdout.split() == ["db"]
    (directory / "still").write_text("writable")
