"""A group whose images lie where nothing can be written: evidence, a mounted backup."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import needs
from tests.e2e.host import UlvmHost

pytestmark = [needs.root, needs.fuse, needs.loop, needs.program("mkfs.ext4")]


@pytest.fixture
def evidence(host: UlvmHost) -> Iterator[Path]:
    """Whose PV `pv.img` is in a directory that is mounted read-only by now. vg has data, changed
    since its snapshot snap was taken."""
    folder = host.base / "evidence"
    folder.mkdir()
    host.run(f"vgcreate vg {host.image('evidence/pv.img', '64M')}")
    host.run("lvcreate -n data -L 16M vg")
    subprocess.run(["mkfs.ext4", "-q", host.path("vg/data")], check=True)
    host.run("lvcreate -s -n snap -L 8M vg/data")
    with host.path("vg/data").open("r+b") as volume:
        volume.seek(8 << 20)
        volume.write(b"new" * 4096)
    host.run("vgchange -an vg")
    host.run("daemon stop")
    subprocess.run(["mount", "--bind", folder, folder], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
        yield folder / "pv.img"
    finally:
        host.attempt("vgchange -an vg")
        host.run("daemon stop")
        subprocess.run(["umount", folder], check=True)


def test_it_can_be_read_and_mounted(host: UlvmHost, evidence: Path) -> None:
    before = evidence.read_bytes()
    host.run("vgchange -ay vg")
    attributes = host.run("lvs --noheadings -o name,attr vg").stdout.split()
    assert attributes == ["data", "owi-a-s---", "snap", "swi-a-s---"]
    assert host.path("vg/data").read_bytes()[8 << 20 :].startswith(b"newnew")
    (host.base / "mnt").mkdir()
    host.run("mount vg/snap mnt")
    with pytest.raises(OSError, match="Read-only file system"):
        (host.base / "mnt" / "file").touch()
    host.run("umount mnt")
    done = host.run("lvrename vg data other", rc=5)
    assert "Read-only file system" in done.stderr
    host.run("vgchange -an vg")
    assert evidence.read_bytes() == before
