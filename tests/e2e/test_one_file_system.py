"""A volume that is mounted twice is one file system, by whatever names and at whatever time."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from tests import needs
from tests.e2e.host import UlvmHost
from ulvm.mounts import loops_over, mount_at, one_at_a_time

pytestmark = [
    needs.root,
    needs.fuse,
    needs.loop,
    needs.program("mkfs.ext4"),
    needs.program("fuse2fs"),
    needs.program("resize2fs"),
]


@pytest.fixture
def places(host: UlvmHost, tmp_path: Path) -> tuple[Path, Path]:
    """vg/fs of 16 MiB with a file system, links to it in `base`/dev, and two directories."""
    settings = f'ulvm {{ device_links = 1 }} devices {{ dir = "{host.base}/dev" }}'
    (host.system_dir / "ulvm.conf").write_text(settings)
    host.run(f"vgcreate vg {host.image('a.img', '100M')}")
    host.run("lvcreate -L 16M -n fs vg")
    subprocess.run(["mkfs.ext4", "-q", host.path("vg/fs")], check=True)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    return tmp_path / "one", tmp_path / "two"


def test_by_another_name(host: UlvmHost, places: tuple[Path, Path]) -> None:
    one, two = places
    subprocess.run(["mount", host.base / "dev/mapper/vg-fs", one], check=True)
    (one / "file").write_text("kept")
    host.run(f"mount vg/fs {two}")
    assert (two / "file").read_text() == "kept"
    first, second = mount_at(one), mount_at(two)
    assert first is not None
    assert second is not None
    assert first.device == second.device


@pytest.mark.parametrize("name", ["run/dev/mapper/vg-fs", "dev/vg/fs", "dev/mapper/vg-fs", "fs"])
def test_by_a_process(host: UlvmHost, places: tuple[Path, Path], name: str) -> None:
    one, two = places
    path, folder = (name, host.path("vg")) if name == "fs" else (host.base / name, host.base)
    subprocess.run(["fuse2fs", path, one, "-o", "fakeroot"], cwd=folder, check=True)
    try:
        assert "is mounted" in host.run(f"mount vg/fs {two}", rc=5).stderr
        if name == "fs":
            assert "in use" in host.run("lvreduce -r -y -L 8M vg/fs", rc=5).stderr
        else:
            said = host.run("backup vg/fs --exec 'true {nbd}'").stdout
            assert f"synced, but could not be frozen: {one}" in said
            host.run("umount vg/fs")
    finally:
        if one.is_mount():
            host.run(f"umount {one}")


def test_at_once(host: UlvmHost, places: tuple[Path, Path]) -> None:
    with one_at_a_time(host.path("vg/fs")):
        commands = [host.start(f"mount vg/fs {where}") for where in places]
        time.sleep(2)
        assert [command.poll() for command in commands] == [None, None]
    said = [command.communicate() for command in commands]
    assert [command.returncode for command in commands] == [0, 0], said
    assert len(loops_over(host.path("vg/fs"))) == 1
    host.run("umount vg/fs")


def test_a_part_of_it_is_another(host: UlvmHost, places: tuple[Path, Path]) -> None:
    where, _ = places
    part = ["losetup", "--offset", "1M", "--show", "-f", host.path("vg/fs")]
    loop = subprocess.run(part, capture_output=True, text=True, check=True).stdout.strip()
    subprocess.run(["mkfs.ext4", "-q", loop, "8M"], check=True)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-L", "whole", host.path("vg/fs")], check=True)
    host.run(f"mount vg/fs {where}")
    mount = mount_at(where)
    assert mount is not None
    assert mount.source != loop
    host.run("umount vg/fs")
