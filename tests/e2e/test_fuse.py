"""Volumes as files: what programs do with them, through the FUSE tree of a real daemon."""

from __future__ import annotations

import errno
import mmap
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests import needs
from tests.e2e.host import UlvmHost
from tests.waiting import until
from ulvm.exports.fuse_session import SERVING_THREADS

MIB = 1 << 20

pytestmark = needs.fuse


@pytest.fixture
def vg(host: UlvmHost) -> UlvmHost:
    """vg/lv of 64 MiB on an image of 400 MiB."""
    host.run(f"vgcreate vg {host.image('pv.img', '400M')}")
    host.run("lvcreate -L 64M -n lv vg")
    return host


def allocated(path: Path) -> int:
    return path.stat().st_blocks * 512


def test_names_come_and_go_with_activation(vg: UlvmHost) -> None:
    dev = vg.run_dir / "dev"
    assert sorted(str(p.relative_to(dev)) for p in dev.rglob("*")) == [
        *("mapper", "mapper/vg-lv", "vg", "vg/lv")
    ]
    vg.run("lvcreate -s -L 8M -n snap vg/lv")
    assert sorted(p.name for p in (dev / "vg").iterdir()) == ["lv", "snap"]
    assert len(list((dev / "mapper").iterdir())) == 4
    vg.run("lvrename vg lv other")
    assert sorted(p.name for p in (dev / "vg").iterdir()) == ["other", "snap"]
    vg.run("vgchange -an vg")
    assert list(dev.iterdir()) == []
    assert not vg.path("vg/lv").exists()
    vg.run("vgchange -ay vg")
    assert vg.path("vg/snap").stat().st_size == 64 * MIB


def test_the_tree_cannot_be_changed(vg: UlvmHost) -> None:
    dev = vg.run_dir / "dev"
    for act in (
        (dev / "new").mkdir,
        lambda: (dev / "vg" / "x").write_text(""),
        vg.path("vg/lv").unlink,
        lambda: vg.path("vg/lv").rename(dev / "vg" / "y"),
    ):
        with pytest.raises(PermissionError):
            act()
    with pytest.raises(OSError, match="Invalid argument"):
        os.truncate(vg.path("vg/lv"), 4096)
    assert vg.path("vg/lv").stat().st_size == 64 * MIB


def test_one_write_is_one_write_and_stops_at_the_end(vg: UlvmHost) -> None:
    fd = os.open(vg.path("vg/lv"), os.O_RDWR)
    try:
        assert os.pwrite(fd, b"x" * 777, 513) == 777
        assert os.pread(fd, 779, 512) == b"\0" + b"x" * 777 + b"\0"
        assert os.pwrite(fd, b"y" * 8192, 64 * MIB - 4096) == 4096
        with pytest.raises(OSError, match="No space left") as caught:
            os.pwrite(fd, b"y", 64 * MIB)
        assert caught.value.errno == errno.ENOSPC
        assert os.pread(fd, 100, 64 * MIB) == b""
        os.fsync(fd)
    finally:
        os.close(fd)


def test_o_direct(vg: UlvmHost) -> None:
    buffer = mmap.mmap(-1, 1 * MIB)
    buffer.write(os.urandom(1 * MIB))
    fd = os.open(vg.path("vg/lv"), os.O_RDWR | os.O_DIRECT)
    try:
        assert os.pwritev(fd, [buffer], 4096) == 1 * MIB
        again = mmap.mmap(-1, 1 * MIB)
        assert os.preadv(fd, [again], 4096) == 1 * MIB
        assert again[:] == buffer[:]
    finally:
        os.close(fd)


@needs.program("fallocate")
def test_punching_a_hole_frees_space_in_the_image(vg: UlvmHost) -> None:
    path, image = vg.path("vg/lv"), vg.base / "pv.img"
    before = allocated(image)
    with path.open("r+b", buffering=0) as stream:
        for _ in range(16):
            stream.write(os.urandom(MIB))
        os.fsync(stream.fileno())
    assert allocated(image) >= before + 15 * MIB
    subprocess.run(["fallocate", "-p", "-o", "0", "-l", str(16 * MIB), path], check=True)
    assert allocated(image) <= before + MIB
    with path.open("rb") as stream:
        assert stream.read(16 * MIB) == bytes(16 * MIB)


def test_a_read_only_snapshot_cannot_be_written(vg: UlvmHost) -> None:
    vg.run("lvcreate -s -L 8M -p r -n snap vg/lv")
    with pytest.raises(OSError, match="Read-only file system"):
        os.open(vg.path("vg/snap"), os.O_RDWR)
    assert len(vg.path("vg/snap").read_bytes()[:4096]) == 4096


def test_volumes_beside_a_read_only_one_can_be_written(vg: UlvmHost) -> None:
    """The first to open the image is a volume that only reads."""
    vg.run("lvcreate -L 8M -n golden vg")
    vg.run("vgchange -an vg")
    vg.run("lvchange -pr vg/golden")
    vg.run("lvchange -ay vg/golden")
    vg.run("lvchange -ay vg/lv")
    vg.path("vg/lv").write_bytes(b"x" * 4096)
    vg.run("lvcreate -s -L 4M -n snap vg/lv")
    assert vg.path("vg/snap").read_bytes()[:4096] == b"x" * 4096
    with pytest.raises(OSError, match="Read-only file system"):
        os.open(vg.path("vg/golden"), os.O_RDWR)


def test_an_invalid_snapshot_gives_eio_at_once(vg: UlvmHost) -> None:
    vg.run("lvcreate -s -L 4M -n snap vg/lv")
    fd = os.open(vg.path("vg/snap"), os.O_RDONLY)
    try:
        assert len(os.pread(fd, 4096, 0)) == 4096
        with vg.path("vg/lv").open("r+b", buffering=0) as stream:
            for _ in range(8):
                stream.write(os.urandom(MIB))
        with pytest.raises(OSError, match="Input/output error"):
            os.pread(fd, 4096, 0)
    finally:
        os.close(fd)


def test_a_suspended_volume_holds_its_own_requests_alone(vg: UlvmHost) -> None:
    vg.run("lvcreate -L 8M -n free vg")
    vg.run("dmsetup suspend vg-lv")
    done = threading.Event()

    def write() -> None:
        with vg.path("vg/lv").open("r+b", buffering=0) as stream:
            stream.write(b"waits")
        done.set()

    thread = threading.Thread(target=write)
    thread.start()
    with vg.path("vg/free").open("r+b", buffering=0) as stream:
        stream.write(b"goes on")
    assert not done.wait(0.3)
    vg.run("dmsetup resume vg-lv")
    thread.join(30)
    assert done.is_set()


@needs.root
@needs.loop
@needs.program("mkfs.xfs")
@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_file_systems_by_loop(vg: UlvmHost, kind: str) -> None:
    vg.run("lvcreate -L 320M -n fs vg")
    quiet = ["-q"] if kind == "ext4" else ["-q", "-f"]
    subprocess.run([f"mkfs.{kind}", *quiet, vg.path("vg/fs")], check=True)
    where = vg.base / "mnt"
    where.mkdir()
    vg.run(f"mount vg/fs {where}")
    (where / "big").write_bytes(data := os.urandom(20 * MIB))
    subprocess.run(["fstrim", where], check=True)
    assert "in use" in vg.run("lvchange -an vg/fs", rc=5).stderr
    assert "in use" in vg.run("daemon stop", rc=5).stderr
    vg.run(f"umount {where}")
    vg.run("lvchange -an vg/fs")
    vg.run(f"mount vg/fs {where}")
    assert (where / "big").read_bytes() == data
    (vg.base / "vg" / "fs").mkdir(parents=True)  # a directory of the volume's name, where we are
    vg.run("umount vg/fs")
    assert "is not mounted" in vg.run(f"umount {where}", rc=5).stderr
    for option in ("", "-l", "-f"):
        loop = ["-o", "loop,ro"] if kind == "ext4" else ["-o", "loop,ro,norecovery"]
        subprocess.run(["mount", *loop, vg.dm("vg-fs"), where], check=True)
        vg.run(f"umount {option} vg/fs")
        assert not where.is_mount()
        assert "vg/fs is not mounted" in vg.run(f"umount {option} vg/fs", rc=5).stderr


@needs.root
@needs.loop
def test_a_renamed_volume_is_unmounted_by_its_new_name(vg: UlvmHost) -> None:
    subprocess.run(["mkfs.ext4", "-q", vg.path("vg/lv")], check=True)
    where = vg.base / "mnt"
    where.mkdir()
    vg.run(f"mount vg/lv {where}")
    vg.run("lvrename vg/lv vg/new")
    vg.run("lvcreate -n lv -L 4M vg")
    assert "vg/lv is not mounted" in vg.run("umount vg/lv", rc=5).stderr
    vg.run("umount vg/new")
    assert not where.is_mount()
    vg.run("lvchange -an vg/new")


@needs.root
@needs.loop
def test_a_mounted_volume_whose_name_another_one_gets(vg: UlvmHost) -> None:
    """Reads of what is mounted ended where the new volume does."""
    subprocess.run(["mkfs.ext4", "-q", vg.path("vg/lv")], check=True)
    where = vg.base / "mnt"
    where.mkdir()
    vg.run(f"mount vg/lv {where}")
    (where / "big").write_bytes(data := os.urandom(20 * MIB))
    vg.run("lvrename vg lv old")
    vg.run("lvcreate -L 4M -n lv vg")
    assert vg.path("vg/lv").stat().st_size == 4 * MIB
    subprocess.run(["mkfs.ext4", "-q", vg.path("vg/lv")], check=True)
    for name in ("vg/old", "mapper/vg-old"):
        argv = ["mkfs.ext4", "-q", vg.run_dir / "dev" / name]
        said = subprocess.run(argv, check=False, capture_output=True, text=True)
        assert "is mounted" in said.stderr
    with (where / "big").open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        assert file.read() == data
    vg.run(f"umount {where}")
    subprocess.run(["e2fsck", "-fn", vg.path("vg/old")], check=True, capture_output=True)


@needs.root
@needs.loop
def test_losetup_with_direct_io(vg: UlvmHost) -> None:
    made = subprocess.run(
        ["losetup", "--find", "--show", "--direct-io=on", vg.path("vg/lv")],
        capture_output=True,
        text=True,
        check=True,
    )
    loop = made.stdout.strip()
    try:
        data = os.urandom(MIB)
        with Path(loop).open("r+b", buffering=0) as stream:
            stream.write(data)
            os.fsync(stream.fileno())
        assert vg.path("vg/lv").read_bytes()[:MIB] == data
    finally:
        subprocess.run(["losetup", "--detach", loop], check=True)


@needs.program("fio")
def test_fio_verifies(vg: UlvmHost) -> None:
    vg.run("lvcreate -s -L 32M -n snap vg/lv")
    for volume in ("vg/lv", "vg/snap"):
        subprocess.run(
            [
                *("fio", "--name=job", f"--filename={vg.path(volume)}", "--rw=randwrite"),
                *("--bs=4k", "--size=8m", "--ioengine=psync", "--direct=1", "--verify=crc32c"),
                *("--do_verify=1", "--verify_fatal=1", "--fsync=32", "--numjobs=1"),
            ],
            cwd=vg.base,  # fio leaves a state file where it stands.
            check=True,
            capture_output=True,
        )


@needs.program("dd")
def test_dd(vg: UlvmHost) -> None:
    data = os.urandom(3 * MIB)
    (vg.base / "in").write_bytes(data)
    command = ["dd", f"if={vg.base / 'in'}", f"of={vg.path('vg/lv')}", "bs=64k", "conv=notrunc"]
    subprocess.run([*command, "oflag=direct"], check=True, capture_output=True)
    out = subprocess.run(
        ["dd", f"if={vg.path('vg/lv')}", "bs=1M", "count=3"], check=True, capture_output=True
    )
    assert out.stdout == data


READERS = """
import os, sys, threading
fd = os.open(sys.argv[1], os.O_RDONLY)
threads = [threading.Thread(target=os.pread, args=(fd, 4096, 0)) for _ in range(int(sys.argv[2]))]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def test_requests_to_a_suspended_volume_do_not_use_up_all_threads(vg: UlvmHost) -> None:
    vg.run("lvcreate -L 4M -n other vg")
    tasks = Path(f"/proc/{vg.daemon_pid()}/task")
    before = len(list(tasks.iterdir()))
    vg.run("dmsetup suspend vg-lv")
    count = SERVING_THREADS + 100
    readers = subprocess.Popen([sys.executable, "-c", READERS, vg.path("vg/lv"), str(count)])
    try:
        # Each has one, but for the few that there were.
        until(lambda: len(list(tasks.iterdir())) >= before + count - 10)
        subprocess.run(
            ["dd", f"if={vg.path('vg/other')}", "of=/dev/null", "bs=4k", "count=1", "status=none"],
            check=True,
            timeout=30,
        )
        assert readers.poll() is None
    finally:
        vg.run("dmsetup resume vg-lv")
        assert readers.wait(30) == 0
    until(lambda: len(list(tasks.iterdir())) <= before + SERVING_THREADS)


@needs.root
@needs.program("setpriv")
def test_why_there_is_no_tree_is_told(host: UlvmHost) -> None:
    """As in a container that may not mount."""
    host.run(f"vgcreate vg {host.image('disk', '16M')}")
    words = ["setpriv", "--bounding-set", "-sys_admin", *host.argv("lvcreate -L 4M -n lv vg")]
    subprocess.run(words, env=host.env, check=True, stdout=subprocess.DEVNULL)
    said = host.run("daemon status").stdout
    assert f"cannot be mounted on {host.run_dir}/dev: fusermount3: mount failed: Operation" in said
