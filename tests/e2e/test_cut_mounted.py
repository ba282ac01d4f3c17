"""A mounted file system is cut (lvreduce -r): whatever happens meanwhile, it is mounted in the end."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests import needs
from tests.e2e.host import UlvmHost

pytestmark = [
    needs.root,
    needs.fuse,
    needs.loop,
    needs.program("mkfs.ext4"),
    needs.program("resize2fs"),
]

MIB = 1 << 20


@pytest.fixture
def where(host: UlvmHost, tmp_path: Path) -> Path:
    """vg/fs of 16 MiB with a file system is mounted there."""
    host.run(f"vgcreate vg {host.image('a.img', '100M')}")
    host.run("lvcreate -L 16M -n fs vg")
    subprocess.run(["mkfs.ext4", "-q", host.path("vg/fs")], check=True)
    where = tmp_path / "mnt"
    where.mkdir()
    host.run(f"mount vg/fs {where}")
    return where


def test_what_lies_over_it_stays(host: UlvmHost, where: Path) -> None:
    (where / "below").write_text("kept")
    subprocess.run(["mount", "-t", "tmpfs", "over", where], check=True)
    try:
        (where / "over").write_text("kept")
        assert "Another mount lies over" in host.run("lvreduce -r -y -L 8M vg/fs", rc=5).stderr
        assert (where / "over").read_text() == "kept"
        assert host.path("vg/fs").stat().st_size == 16 * MIB
    finally:
        subprocess.run(["umount", where], check=True)
    assert (where / "below").read_text() == "kept"
