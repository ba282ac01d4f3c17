"""blkdeactivate on volumes that are mounted, in use and stacked; lvmdump."""

from __future__ import annotations

import os
import subprocess
import tarfile
import threading
from pathlib import Path

import pytest

from tests import needs
from tests.e2e.host import UlvmHost
from ulvm.mounts import mount_at

pytestmark = [needs.root, needs.fuse, needs.loop, needs.program("mkfs.ext4")]


@pytest.fixture
def mounted(host: UlvmHost) -> UlvmHost:
    """vg with data and its snapshot snap, snap being mounted on `base`/mnt; idle; a dm device."""
    host.run(f"vgcreate vg {host.image('pv.img', '128M')}")
    host.run("lvcreate -n data -L 16M vg")
    subprocess.run(["mkfs.ext4", "-q", "-O", "^has_journal", host.path("vg/data")], check=True)
    host.run("lvcreate -s -n snap -L 8M vg/data")
    host.run("lvcreate -n idle -L 4M vg")
    host.run("lvcreate -n sparse -V 1G -L 4M vg")
    host.run('dmsetup create extra --table "0 8 zero"')
    (host.base / "mnt").mkdir()
    host.run("mount vg/snap mnt")
    return host


def active(host: UlvmHost) -> set[str]:
    """There is no such directory while nothing is active."""
    mapper = host.run_dir / "dev" / "mapper"
    return set(os.listdir(mapper)) if mapper.exists() else set()


def test_what_is_mounted_stays(mounted: UlvmHost) -> None:
    done = mounted.run("blkdeactivate")
    where = f"vg-snap mounted on {mounted.base}/mnt"
    assert done.stdout.splitlines()[0] == "  Deactivating block devices:"
    assert set(done.stdout.splitlines()[1:]) == {
        "    [LVM]: deactivating Logical Volume vg/idle... done",
        "    [LVM]: deactivating Logical Volume vg/sparse... done",
        "    [DM]: deactivating zero device extra (dm-9)... done",
        f"    [SKIP]: unmount of {where}",
    }
    assert {"vg-data", "vg-snap"} <= active(mounted)
    assert not {"vg-idle", "vg-sparse", "vg-sparse_vorigin", "extra"} & active(mounted)
    assert mounted.run("blkdeactivate -u /dev/vg/nosuch", rc=1).stderr == (
        "/dev/vg/nosuch: device not found\n"
    )
    assert mounted.run("blkdeactivate -d nosuch", rc=1).stderr == "nosuch: unknown DM option\n"
    assert os.path.ismount(mounted.base / "mnt")


def test_it_is_unmounted_if_that_is_wanted(mounted: UlvmHost) -> None:
    """Not what is named no more, nor what is open otherwise."""
    with mounted.path("vg/idle").open("rb"):
        done = mounted.run("blkdeactivate -e -u -l wholevg vg")
        assert "  [LVM]: deactivating Volume Group vg... skipping" in done.stdout
        assert "in use" in done.stderr
        assert {"vg-idle", "extra"} <= active(mounted)
        where = f"vg-snap mounted on {mounted.base}/mnt"
        assert f"  [UMOUNT]: unmounting {where}... done" in done.stdout
        assert not os.path.ismount(mounted.base / "mnt")
    assert "Volume Group vg... done" in mounted.run("blkdeactivate -u -l wholevg vg").stdout
    assert active(mounted) == {"extra"}
    mounted.run("blkdeactivate")
    assert active(mounted) == set()


def test_what_lies_over_it_is_not_unmounted_in_its_place(mounted: UlvmHost) -> None:
    over = mounted.base / "mnt"
    subprocess.run(["mount", "-t", "tmpfs", "over", over], check=True)
    try:
        (over / "file").write_text("kept")
        for command in ("umount vg/snap", "umount -l vg/snap"):
            refused = mounted.run(command, rc=5)
            assert f"Another mount lies over {over}" in refused.stderr
        done = mounted.run("blkdeactivate -u -e vg/snap")
        assert "vg/data... skipping" in done.stdout
        assert f"Another mount lies over {over}" in done.stderr
        assert (over / "file").read_text() == "kept"
        mounted.run(f"umount {over}")  # it, by its directory
        assert not (over / "file").exists()
    finally:
        while mount_at(over) is not None:
            subprocess.run(["umount", over], check=True)


def test_a_place_that_goes_with_another(mounted: UlvmHost) -> None:
    """Where mounts are shared, as all are under systemd."""
    mounted.run("umount mnt")
    one, two = mounted.base / "mnt", mounted.base / "two"
    two.mkdir()
    subprocess.run(["mount", "--bind", one, one], check=True)
    try:
        subprocess.run(["mount", "--make-shared", one], check=True)
        (one / "inner").mkdir()
        subprocess.run(["mount", "--bind", one, two], check=True)
        for command in ("umount vg/snap", "blkdeactivate -u vg/snap"):
            mounted.run("mount vg/snap mnt/inner")
            assert (two / "inner").is_mount()
            mounted.run(command)
            assert not (two / "inner").is_mount()
            assert not (one / "inner").is_mount()
        assert "vg-snap" not in active(mounted)
    finally:
        for place in (two, one):
            subprocess.run(["umount", "--recursive", place], check=True)


def test_a_bundle_for_a_report(mounted: UlvmHost) -> None:
    mounted.env["HOME"] = str(mounted.base)
    (mounted.system_dir / "ulvm.conf").write_text("backup { retain_min = 7 }")
    # Files of one name but for what is a folder, and of one that no file may have.
    deep = mounted.base.joinpath(*["d" * 100] * 3)
    deep.mkdir(parents=True)
    (mounted.base / "e").mkdir()
    for place in ("e/f", "e_f", f"{deep}/g"):
        mounted.run(f"pvcreate {mounted.image(place, '8M')}")
    mounted.run("lvmdump -a -m")
    (archive,) = mounted.base.glob("lvmdump-*.tgz")
    with tarfile.open(archive) as tar:
        tar.extractall(mounted.base, filter="data")
    folder = Path(str(archive).removesuffix(".tgz"))
    texts = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    assert b"vg-data" in texts["dmsetup_table"]
    assert b"retain_min=7" in texts["lvmconfig_diff"]
    assert b"retain_min" in texts["etc/ulvm.conf"]
    assert b"snap" in texts["etc/backup/vg"]
    assert b"LVM2 " in texts["lvs"] or b"snap" in texts["lvs"]
    assert b"ulvm" in texts["versions"]
    assert "ulvmd.log" in texts
    metadata = [text for name, text in texts.items() if name.startswith("metadata/")]
    assert [text[512:520] for text in metadata] == [b"LABELONE"] * 4
    assert len(set(metadata)) == 4
    # The volumes' content is nobody's business.
    assert all(len(text) < 2 << 20 for text in texts.values())
    mounted.run("lvmdump -d here")
    assert (mounted.base / "here" / "versions").is_file()
    assert "already exists" in mounted.run("lvmdump -d here", rc=5).stderr


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("blkdeactivate -d retry", "extra"),
        ("dmsetup remove --retry extra", "extra"),
        ("blkdeactivate -l retry vg/idle", "vg-idle"),
    ],
)
def test_what_is_in_use_for_a_moment_is_tried_again(
    mounted: UlvmHost, command: str, name: str
) -> None:
    device = mounted.dm(name).open("rb")
    closing = threading.Timer(1.5, device.close)
    closing.start()
    mounted.run(command)
    closing.join()
    assert name not in active(mounted)
