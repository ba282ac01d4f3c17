"""lvm2's own fsadm, on volumes that are mounted and on those that are not."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests import needs
from tests.e2e.host import UlvmHost
from tests.e2e.scripts import ScriptHost

MIB = 1 << 20

pytestmark = [
    needs.fuse,
    needs.root,
    needs.loop,
    needs.program("fsadm"),
    needs.program("blkid"),
]


@pytest.fixture
def scripts(host: UlvmHost) -> ScriptHost:
    host.run(f"vgcreate vg {host.image('a.img', '512M')}")
    host.run("lvcreate -y -n lv -L 304M vg")
    return ScriptHost(host)


@needs.program("xfs_growfs")
def test_a_mounted_file_system_grows(host: UlvmHost, scripts: ScriptHost) -> None:
    subprocess.run(["mkfs.xfs", "-q", host.path("vg/lv")], check=True)
    where = host.base / "mnt"
    where.mkdir()
    host.run(f"mount vg/lv {where}")
    before = os.statvfs(where).f_blocks
    host.run("lvextend -L 352M vg/lv")
    scripts.run("fsadm", "resize", "/dev/vg/lv")
    after = os.statvfs(where)
    assert (after.f_blocks - before) * after.f_frsize == 48 * MIB
    host.run(f"umount {where}")


@needs.program("resize2fs")
@needs.program("dumpe2fs")
def test_one_that_is_not_mounted_is_checked_grown_and_cut(
    host: UlvmHost, scripts: ScriptHost
) -> None:
    subprocess.run(["mkfs.ext4", "-q", "-b", "4096", host.path("vg/lv")], check=True)
    host.run("lvextend -L 352M vg/lv")
    scripts.run("fsadm", "check", "/dev/vg/lv")
    scripts.run("fsadm", "-y", "-f", "resize", "/dev/vg/lv")
    assert blocks(host.path("vg/lv")) == 352 * MIB // 4096
    scripts.run("fsadm", "-y", "-f", "resize", "vg/lv", "200M")
    assert blocks(host.path("vg/lv")) == 200 * MIB // 4096
    held = Path("/sys/block").glob("loop*/loop/backing_file")
    assert not any(path.read_text().startswith(str(host.base)) for path in held)


def blocks(path: Path) -> int:
    listed = subprocess.run(["dumpe2fs", "-h", path], capture_output=True, text=True, check=True)
    (line,) = [line for line in listed.stdout.splitlines() if line.startswith("Block count:")]
    return int(line.split()[-1])


@needs.program("resize2fs")
@needs.program("dumpe2fs")
def test_one_that_is_mounted_by_another_name_is_cut_where_it_is(
    host: UlvmHost, scripts: ScriptHost
) -> None:
    subprocess.run(["mkfs.ext4", "-q", "-b", "4096", host.path("vg/lv")], check=True)
    where = host.base / "mnt"
    where.mkdir()
    subprocess.run(["mount", host.dm("vg-lv"), where], check=True)
    (where / "file").write_text("kept")
    scripts.run("fsadm", "-y", "-f", "resize", "vg/lv", "200M")
    assert (where / "file").read_text() == "kept"
    host.run(f"umount {where}")
    assert blocks(host.path("vg/lv")) == 200 * MIB // 4096
