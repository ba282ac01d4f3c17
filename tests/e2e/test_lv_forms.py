"""Volumes with their file systems, volumes of which little exists, snapshots off and on."""

from __future__ import annotations

import os
import shutil
import signal
import struct
import subprocess
import time
from pathlib import Path

import pytest

from tests import needs
from tests.e2e.host import UlvmHost
from tests.waiting import until
from ulvm.blockdev.nbd import NbdDevice
from ulvm.errors import DeviceError
from ulvm.mounts import loops_on, mount_at
from ulvm.mounts.volume import probe

MIB = 1 << 20


def ext_blocks(path: Path) -> int:
    """Bytes of an ext file system by its superblock: s_blocks_count_lo, s_log_block_size."""
    with path.open("rb") as file:
        head = file.read(4096)
    blocks, _, _, _, _, shift = struct.unpack_from("<6I", head, 1024 + 4)
    return int(blocks) << (10 + shift)


def ext4_volume(host: UlvmHost, tmp_path: Path) -> tuple[Path, Path]:
    """vg/fs of 16 MiB in a group of 100 MiB, with a file system, and a directory to mount it on."""
    host.run(f"vgcreate vg {host.image('a.img', '100M')}")
    host.run("lvcreate -L 16M -n fs vg")
    volume, where = host.path("vg/fs"), tmp_path / "mnt"
    subprocess.run(["mkfs.ext4", "-q", volume], check=True)
    where.mkdir()
    return volume, where


@needs.root
@needs.fuse
@needs.loop
@needs.program("mkfs.ext4")
@needs.program("resize2fs")
def test_an_ext_file_system_has_the_size_of_its_volume(host: UlvmHost, tmp_path: Path) -> None:
    host.run(f"vgcreate vg {host.image('a.img', '100M')}")
    host.run("lvcreate -L 16M -n fs vg")
    volume = host.path("vg/fs")
    refused = host.run("lvextend -r -L +4M vg/fs", rc=5)
    assert "Cannot get FSTYPE" in refused.stderr
    subprocess.run(["mkfs.ext4", "-q", volume], check=True)
    host.run("lvextend -r -L 32M vg/fs")
    assert ext_blocks(volume) == 32 * MIB == volume.stat().st_size
    where = tmp_path / "mnt"
    where.mkdir()
    host.run(f"mount vg/fs {where}")
    (where / "kept").write_text("kept")
    # It is asked about, since it has to be unmounted.
    assert "NOT reduced" in host.run("lvreduce -r -L 24M vg/fs", rc=5).stderr
    # resize2fs cuts what is a file to it, which a volume's is not for it to do.
    assert "truncate" not in host.run("lvreduce -r -y -L 24M vg/fs").stdout
    assert (where / "kept").read_text() == "kept"
    host.run(f"umount {where}")
    assert ext_blocks(volume) == 24 * MIB == volume.stat().st_size
    # What lies on the volume does not fit: nothing is cut.
    host.run(f"mount vg/fs {where}")
    (where / "large").write_bytes(bytes(range(256)) * (12 * MIB // 256))
    host.run(f"umount {where}")
    assert "Filesystem resize failed." in host.run("lvreduce -r -y -L 8M vg/fs", rc=5).stderr
    assert volume.stat().st_size == 24 * MIB
    host.run("lvchange -an vg/fs")
    assert "must be activated" in host.run("lvextend -r -L +4M vg/fs", rc=5).stderr


@needs.root
@needs.fuse
@needs.loop
@needs.program("mkfs.ext4")
@needs.program("resize2fs")
def test_a_file_system_in_the_hands_of_a_client_is_not_resized(
    host: UlvmHost, tmp_path: Path
) -> None:
    volume, where = ext4_volume(host, tmp_path)
    client = NbdDevice(str(host.run_dir / "nbd.sock"), "vg/fs")
    for command in ("lvextend -r -L 32M", "lvreduce -r -y -L 8M", "lvreduce -r -y -n -L 8M"):
        assert "vg/fs in use" in host.run(f"{command} vg/fs", rc=5).stderr
    host.run(f"mount vg/fs {where}")
    assert "vg/fs in use" in host.run("lvreduce -r -y -L 8M vg/fs", rc=5).stderr
    assert where.is_mount()
    host.run(f"umount {where}")
    client.close()
    assert ext_blocks(volume) == 16 * MIB == volume.stat().st_size
    host.run("lvreduce -r -L 8M vg/fs")
    assert ext_blocks(volume) == 8 * MIB == volume.stat().st_size


@needs.root
@needs.fuse
@needs.loop
@needs.program("mkfs.ext4")
@needs.program("resize2fs")
def test_ctrl_c_does_not_come_between_a_file_system_and_its_volume(
    host: UlvmHost, tmp_path: Path
) -> None:
    host.run(f"vgcreate vg {host.image('a.img', '100M')}")
    host.run("lvcreate -L 32M -n fs vg")
    volume = host.path("vg/fs")
    subprocess.run(["mkfs.ext4", "-q", volume], check=True)
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    real = shutil.which("resize2fs", path=path)
    program = tmp_path / "resize2fs"
    program.write_text(f'#!/bin/sh\nkill -INT 0\nexec {real} "$@"\n')  # To all in its group.
    program.chmod(0o755)
    done = subprocess.run(
        host.argv("lvreduce -r -L 16M vg/fs"),
        env={**host.env, "PATH": f"{tmp_path}:{path}"},
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,
    )
    assert (done.returncode, "Interrupted" in done.stderr) == (130, True), done
    assert ext_blocks(volume) == 16 * MIB == volume.stat().st_size


@needs.root
@needs.fuse
@needs.loop
@needs.program("mkfs.ext4")
@needs.program("resize2fs")
@needs.program("fuse2fs")
def test_a_volume_does_not_grow_before_a_file_system_that_cannot(
    host: UlvmHost, tmp_path: Path
) -> None:
    volume, where = ext4_volume(host, tmp_path)
    subprocess.run(["fuse2fs", volume, where, "-o", "fakeroot"], check=True)
    assert "cannot grow" in host.run("lvextend -r -L 32M vg/fs", rc=5).stderr
    host.run(f"umount {where}")
    host.run(f"mount -r vg/fs {where}")
    assert "read-only" in host.run("lvextend -r -L 32M vg/fs", rc=5).stderr
    host.run(f"umount {where}")
    host.run("lvchange -pr vg/fs")
    assert "read-only" in host.run("lvextend -r -n -L 32M vg/fs", rc=5).stderr
    assert volume.stat().st_size == 16 * MIB


@needs.root
@needs.fuse
@needs.loop
@needs.program("mkfs.ext4")
def test_a_mount_activates_as_lvchange_does(host: UlvmHost, tmp_path: Path) -> None:
    _, where = ext4_volume(host, tmp_path)
    host.run("lvchange -an vg/fs")
    unlisted = "--config 'activation { volume_list = [ \"other\" ] }'"
    assert "not active locally" in host.run(f"mount {unlisted} vg/fs {where}", rc=5).stderr
    assert host.run("lvs --noheadings -o lv_active vg/fs").stdout.strip() == ""
    # A merge that waited for this is seen to its end.
    host.run("lvcreate -s -L 8M -n s vg/fs")
    host.run("lvconvert --merge vg/s")
    host.run(f"mount vg/fs {where}")
    deadline = time.monotonic() + 60
    while host.run("lvs --noheadings -a -o lv_name vg").stdout.split() != ["fs"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    host.run(f"umount {where}")
    # By its metadata it can be written, by the list it was activated with not.
    host.run("lvchange -an vg/fs")
    host.run("lvchange -ay vg/fs --config 'activation { read_only_volume_list = [ \"vg\" ] }'")
    host.run(f"mount vg/fs {where}")
    host.run(f"umount {where}")


@needs.root
@needs.fuse
@needs.loop
@needs.program("mkfs.ext4")
def test_what_is_unmounted_and_not_let_go_is_mounted_again(host: UlvmHost, tmp_path: Path) -> None:
    _, where = ext4_volume(host, tmp_path)
    host.run(f"mount vg/fs {where}")
    mount = mount_at(where)
    assert mount is not None
    with open(mount.source, "rb"):
        command = host.start("lvreduce -r -y -L 8M vg/fs")
        until(lambda: not where.is_mount())
        command.send_signal(signal.SIGINT)
        command.communicate()
    assert command.returncode != 0
    assert where.is_mount()
    host.run(f"umount {where}")


@needs.root
@needs.fuse
@needs.loop
@needs.program("mkfs.ext4")
@needs.program("resize2fs")
def test_a_mounted_file_system_is_not_taken_for_one_that_is_not(
    host: UlvmHost, tmp_path: Path
) -> None:
    """To check or cut it as such would destroy it."""
    _, where = ext4_volume(host, tmp_path)
    subprocess.run(["mount", "-o", "loop", host.dm("vg-fs"), where], check=True)
    (where / "kept").write_text("kept")
    assert "NOT reduced" in host.run("lvreduce -r -L 12M vg/fs", rc=5).stderr
    host.run("lvreduce -r -y -L 12M vg/fs")
    assert (where / "kept").read_text() == "kept"
    host.run("lvrename vg fs other")
    # The name under which it was mounted is another volume's by now.
    host.run("lvcreate -L 16M -n fs vg")
    subprocess.run(["mkfs.ext4", "-q", "-F", "-F", host.path("vg/fs")], check=True)
    host.run("lvextend -r -L 20M vg/fs")
    host.run("lvreduce -r -y -L 8M vg/other")
    assert host.path("vg/other").stat().st_size == 8 * MIB
    assert (where / "kept").read_text() == "kept"
    subprocess.run(["umount", where], check=True)
    for name in ("fs", "other"):
        host.run(f"lvextend -r -L 24M vg/{name}")
        assert ext_blocks(host.path(f"vg/{name}")) == 24 * MIB


@needs.root
@needs.fuse
@needs.loop
@needs.program("mkfs.xfs")
@needs.program("xfs_growfs")
def test_an_xfs_grows_mounted_or_not(host: UlvmHost, tmp_path: Path) -> None:
    host.run(f"vgcreate vg {host.image('a.img', '1G')}")
    host.run("lvcreate -L 320M -n fs vg")
    volume = host.path("vg/fs")
    subprocess.run(["mkfs.xfs", "-q", volume], check=True)

    def blocks() -> int:
        with volume.open("rb") as file:
            return int.from_bytes(file.read(16)[8:], "big") * 4096

    host.run("lvextend -r -L 360M vg/fs")
    assert blocks() == 360 * MIB
    where = tmp_path / "mnt"
    where.mkdir()
    host.run(f"mount vg/fs {where}")
    host.run("lvextend -r -L 400M vg/fs")
    host.run(f"umount {where}")
    assert blocks() == 400 * MIB
    assert "shrinking is unsupported" in host.run("lvreduce -r -y -L 360M vg/fs", rc=5).stderr
    assert volume.stat().st_size == 400 * MIB


def test_stripes_that_are_no_part_of_an_extent_are_whole(host: UlvmHost) -> None:
    for name in ("a.img", "b.img"):
        host.image(name, "32M")
    host.run("vgcreate -s 384k vg a.img b.img")
    made = host.run("lvcreate -y -i2 -I256k -l2 -n x vg")
    assert (
        "Rounding size 768.00 KiB (2 extents) up to stripe boundary size 1.50 MiB (4 extents)."
        in made.stdout
    )
    assert "0 3072 striped 2 512 " in host.run("dmsetup table vg-x").stdout
    host.run("lvextend -l+1 vg/x")
    # No more than 9 extents can be of use, and whole stripes are 12.
    host.run("lvcreate -s -i2 -I256k -l 100%ORIGIN -n s vg/x")
    shown = host.run("lvs --noheadings -o lv_name,seg_size_pe --separator , vg").stdout.split()
    assert shown == ["s,12", "x,8"]
    host.run("vgremove -y vg")
    # The default is longer than such an extent.
    host.run("vgcreate -s 32k vg a.img b.img")
    made = host.run("lvcreate -an -Zn -i2 -l3 -n x vg")
    assert made.stdout.splitlines()[:3] == [
        "  Using default stripesize 64.00 KiB.",
        "  Reducing requested stripe size 64.00 KiB to maximum, physical extent size 32.00 KiB.",
        "  Rounding size 96.00 KiB (3 extents) up to stripe boundary size 128.00 KiB (4 extents).",
    ]


def test_a_sparse_volume_takes_space_for_what_is_written(host: UlvmHost) -> None:
    host.run(f"vgcreate vg {host.image('a.img', '64M')}")
    host.run("lvcreate -V 15P -L 8M -n wide vg")
    far = 14 << 50

    def device() -> NbdDevice:
        return NbdDevice(str(host.run_dir / "nbd.sock"), "vg/wide")

    wide = device()
    wide.write(far, b"far".ljust(4096, b"."))
    wide.flush()
    wide.close()
    host.run("lvchange -an vg/wide")
    host.run("lvchange -ay vg/wide")
    wide = device()
    assert wide.read(far - 4096, 12288) == bytes(4096) + b"far".ljust(4096, b".") + bytes(4096)
    with pytest.raises(DeviceError):
        wide.write(0, bytes(range(1, 251)) * (9 * MIB // 250))
    # What is full loses nothing of what was written before.
    wide.close()
    shown = host.run("lvs --noheadings -o lv_size,data_percent,origin -a vg").stdout.split()
    assert shown[:3] == ["8.00m", "100.00", "[wide_vorigin]"]
    host.run("lvremove -y vg/wide")
    assert host.run("lvs -a vg").stdout == ""


def test_a_sparse_volume_may_have_seven_exbibytes(host: UlvmHost) -> None:
    host.run(f"vgcreate -s 4g vg {host.image('a.img', '5G')}")
    # The kernel counts bytes of a device with 63 bits.
    assert "too large device" in host.run("lvcreate -V 8E -l 1 -c 512k -n wide vg", rc=5).stderr
    assert host.run("lvs -a vg").stdout == ""
    host.run("lvcreate -V 7E -l 1 -c 512k -n wide vg")
    wide = NbdDevice(str(host.run_dir / "nbd.sock"), "vg/wide")
    far = (7 << 60) - (1 << 20)
    wide.write(far, b"far".ljust(4096, b"."))
    assert wide.read(far, 3) == b"far"
    wide.close()
    assert host.run("lvs --noheadings -o origin_size vg/wide").stdout.strip() == "7.00e"


def test_a_store_is_taken_off_and_put_back_with_what_it_holds(host: UlvmHost) -> None:
    host.run(f"vgcreate vg {host.image('a.img', '64M')}")
    host.run("lvcreate -L 8M -n o vg")

    def device(name: str) -> NbdDevice:
        return NbdDevice(str(host.run_dir / "nbd.sock"), f"vg/{name}")

    def write(name: str, data: bytes) -> None:
        opened = device(name)
        opened.write(0, data)
        opened.flush()
        opened.close()

    def read(name: str) -> bytes:
        opened = device(name)
        try:
            return opened.read(0, 4096)
        finally:
            opened.close()

    old, new = b"old" * 1365 + b".", b"new" * 1365 + b"."
    write("o", old)
    host.run("lvcreate -s -L 4M -n s vg/o")
    write("o", new)
    host.run("lvconvert -y --splitsnapshot vg/s")
    assert read("s").startswith(b"SnAp")
    host.run("lvconvert -y -s -Zn vg/o vg/s")
    assert (read("o"), read("s")) == (new, old)
    host.run("lvconvert -y --splitsnapshot vg/s")
    host.run("lvconvert -y -s vg/o vg/s")
    assert (read("o"), read("s")) == (new, new)
    held = device("s")
    assert (
        "Logical volume vg/s in use." in host.run("lvconvert -y --splitsnapshot vg/s", rc=5).stderr
    )
    held.close()


def test_a_minor_number_that_another_device_has_is_not_given(host: UlvmHost) -> None:
    host.run(f"vgcreate vg {host.image('a.img', '100M')}")
    for name in ("one", "two"):
        host.run(f"lvcreate -L 4M -n {name} vg")
    numbers = dict(
        line.split()
        for line in host.run("lvs --noheadings -o lv_name,lv_kernel_minor").stdout.splitlines()
    )
    refused = host.run(f"lvchange -y -My --minor {numbers['one']} vg/two", rc=5)
    assert f"Minor number {numbers['one']} is that of vg-one" in refused.stderr
    for wanted in (numbers["two"], "77"):
        host.run(f"lvchange -y -My --minor {wanted} vg/two")
        shown = host.run("lvs --noheadings -o lv_active,lv_minor,lv_kernel_minor vg/two").stdout
        assert shown.split() == ["active", wanted, wanted]


def test_a_volume_comes_back_from_a_change_of_its_minor_number(host: UlvmHost) -> None:
    host.run(f"vgcreate vg {host.image('a.img', '64M')}")
    host.run("lvcreate -L 4M -n o vg")
    host.run("lvcreate -s -L 4M -n s vg/o")
    refused = "--config 'backup { archive_dir = \"/proc/none\" }'"
    host.run(f"lvchange {refused} -y -My --minor 9 vg/o", rc=5)
    assert host.run("lvs --noheadings -o lv_active vg/o").stdout.strip() == "active"
    # It begins the merge that waited, and sees to its end.
    with host.path("vg/o").open("rb"):
        host.run("lvconvert --merge vg/s")
    host.run("lvchange -y -My --minor 9 vg/o")
    deadline = time.monotonic() + 60
    while host.run("lvs --noheadings -a -o lv_name vg").stdout.split() != ["o"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@needs.root
@needs.fuse
@needs.loop
@needs.program("mkfs.ext4")
@needs.program("resize2fs")
def test_mounts_are_seen_by_way_of_a_link_to_the_run_directory(
    host: UlvmHost, tmp_path: Path
) -> None:
    """As /var/run is one."""
    _, where = ext4_volume(host, tmp_path)
    link = tmp_path / "link"
    link.symlink_to(host.run_dir)
    host.env["ULVM_RUN_DIR"] = str(link)
    host.run("daemon stop --force")
    host.run("lvchange -ay vg/fs")
    host.run(f"mount vg/fs {where}")
    assert "want to unmount" in host.run("lvreduce -r -L 8M vg/fs", rc=5).stderr
    assert "unmounting" in host.run("blkdeactivate -u").stdout
    assert not where.is_mount()


@needs.root
@needs.fuse
@needs.loop
@needs.program("mkfs.ext4")
@needs.program("fuse2fs")
def test_a_second_mount_is_of_the_same_file_system(host: UlvmHost, tmp_path: Path) -> None:
    host.run(f"vgcreate vg {host.image('a.img', '64M')}")
    host.run("lvcreate -L 16M -n fs vg")
    subprocess.run(["mkfs.ext4", "-q", host.path("vg/fs")], check=True)
    one, two = tmp_path / "one", tmp_path / "two"
    for where in (one, two):
        where.mkdir()
        host.run(f"mount vg/fs {where}")
    (one / "by one").write_text("kept")
    (two / "by two").write_text("kept")
    assert {path.name for path in one.iterdir()} >= {"by one", "by two"}
    assert "unmount it" in host.run("lvreduce -r -y -L 8M vg/fs", rc=5).stderr
    assert (one.is_mount(), two.is_mount()) == (True, True)
    host.run("umount vg/fs")
    assert (one.is_mount(), two.is_mount()) == (False, False)
    for where in (one, two):
        host.run(f"mount vg/fs {where}")
    assert host.run("blkdeactivate -u").stdout.count("unmounting") == 2
    host.run("lvchange -ay vg/fs")
    # Who mounts a file system by a process of his own has it for himself.
    subprocess.run(["fuse2fs", host.path("vg/fs"), one, "-o", "fakeroot"], check=True)
    assert (one / "by two").read_text() == "kept"
    assert "is mounted on" in host.run(f"mount vg/fs {two}", rc=5).stderr
    host.run(f"umount {one}")


@needs.root
@needs.fuse
@needs.loop
@needs.program("mkfs.ext4")
def test_a_directory_of_a_file_system_stays_what_is_mounted(host: UlvmHost, tmp_path: Path) -> None:
    """Brought back as a whole, it would have its users write to other places."""
    host.run(f"vgcreate vg {host.image('a.img', '96M')}")
    host.run("lvcreate -L 32M -n fs vg")
    subprocess.run(["mkfs.ext4", "-q", host.path("vg/fs")], check=True)
    whole, part = tmp_path / "whole", tmp_path / "part"
    for where in (whole, part):
        where.mkdir()
    host.run(f"mount vg/fs {whole}")
    (whole / "inner").mkdir()
    (whole / "inner/file").write_text("kept")
    subprocess.run(["mount", "--bind", whole / "inner", part], check=True)
    subprocess.run(["umount", whole], check=True)
    refused = host.run("lvreduce -r -y -L 16M vg/fs", rc=5)
    assert f"is mounted on {part}: unmount it" in refused.stderr
    assert (part / "file").read_text() == "kept"


@needs.root
@needs.fuse
@needs.loop
@needs.program("mkfs.ext4")
def test_a_mounted_volume_is_known_after_it_was_renamed(host: UlvmHost, tmp_path: Path) -> None:
    host.run(f"vgcreate vg {host.image('a.img', '96M')}")
    host.run("lvcreate -L 16M -n fs vg")
    subprocess.run(["mkfs.ext4", "-q", host.path("vg/fs")], check=True)
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    host.run(f"mount vg/fs {one}")
    host.run("lvrename vg/fs old")
    assert not loops_on(host.path("vg/fs"))
    (one / "file").write_text("kept")
    # It is frozen for a snapshot: nothing is left to be replayed from the journal.
    host.run("lvcreate -s -L 8M -n s vg/old")
    found = probe(host.path("vg/s"))
    assert found is not None
    assert not found.needs_recovery
    host.run(f"mount vg/old {two}")  # once more the same file system, not another one
    assert (two / "file").read_text() == "kept"
    host.run(f"umount {two}")
    # And another volume of the name that it had is not taken for it.
    host.run("lvcreate -L 16M -n fs vg")
    assert "is not mounted" in host.run("umount vg/fs", rc=5).stderr
    subprocess.run(["mkfs.ext4", "-q", "-FF", host.path("vg/fs")], check=True)
    host.run(f"mount vg/fs {two}")
    assert not (two / "file").exists()
    host.run("umount vg/fs")
    assert one.is_mount()
    host.run(f"umount {one}")
