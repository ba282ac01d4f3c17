"""The documents that the project was made from, typed again.

Sizes, names and order of commands are theirs. Where today's LVM2 prints something else than they
show (column names, ten attributes, a default chunk of 4 KiB instead of 8), today's is checked.
`mount` and `umount` of a volume are `ulvm mount` and `ulvm umount`; paths like /mnt lie below the
test's own directory.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import needs
from tests.e2e.host import UlvmHost
from ulvm.blockdev.nbd import NbdDevice
from ulvm.daemon.client import connect

MIB = 1 << 20

pytestmark = [
    needs.root,
    needs.fuse,
    needs.loop,
    needs.program("mkfs.ext4"),
    pytest.mark.timeout(180),
]


class Shell:
    """Types commands, on a host with one volume group."""

    def __init__(self, host: UlvmHost, vg: str, size: str, options: str = "") -> None:
        self.host = host
        self.vg = vg
        host.run(f"pvcreate {host.image('sda.img', size)}")
        host.run(f"vgcreate {options} {vg} sda.img")

    def __call__(self, command: str, rc: int = 0, answer: str | None = None) -> str:
        """An ulvm command; what it prints on standard output."""
        return self.host.run(command, rc, answer).stdout

    def directory(self, name: str) -> Path:
        path = self.host.base / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    @contextmanager
    def mounted(self, volume: str, name: str, *options: str) -> Iterator[Path]:
        where = self.directory(name)
        self(f"mount {' '.join(options)} {volume} {where}")
        try:
            yield where
        finally:
            self(f"umount {where}")

    def mkfs(self, volume: str) -> None:
        subprocess.run(["mkfs.ext4", "-q", "-F", self.host.path(volume)], check=True)

    def percent(self, volume: str) -> float:
        return float(self(f"lvs --noheadings -o snap_percent {volume}"))

    def attr(self, volume: str) -> str:
        return self(f"lvs --noheadings -o lv_attr {volume}").strip()

    def read_fails(self, volume: str) -> None:
        """Reading the snapshot gives EIO through FUSE."""
        done = subprocess.run(
            ["dd", f"if={self.host.path(volume)}", "of=/dev/null", "bs=4096", "count=1"],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
        assert done.returncode != 0
        assert "Input/output error" in done.stderr


def dd(path: Path, mebibytes: int) -> None:
    subprocess.run(
        ["dd", "if=/dev/urandom", f"of={path}", "bs=1M", f"count={mebibytes}", "conv=fsync"],
        check=True,
        capture_output=True,
    )


def displayed(text: str, label: str) -> str:
    """The value of a line of lvdisplay."""
    match = re.search(rf"^  {re.escape(label)} +(.*)$", text, re.MULTILINE)
    assert match is not None, text
    return match.group(1)


# -- 000: how to use LVM snapshot backup ----------------------------------------------------------


def test_a_snapshot_of_20_mb_fills_and_is_released(host: UlvmHost) -> None:
    sh = Shell(host, "vg", "300M")
    sh("lvcreate -L 200M -n lvdata vg")
    sh.mkfs("vg/lvdata")
    with sh.mounted("/dev/vg/lvdata", "media/lvdata") as media:
        said = sh("lvcreate -L20M -s -n lvdata-sp /dev/vg/lvdata")
        assert said == '  Logical volume "lvdata-sp" created.\n'
        shown = sh("lvdisplay /dev/vg/lvdata-sp")
        assert displayed(shown, "LV snapshot status") == "active destination for lvdata"
        assert displayed(shown, "LV Size") == "200.00 MiB"
        assert displayed(shown, "Current LE") == "50"
        assert displayed(shown, "COW-table size") == "20.00 MiB"
        assert displayed(shown, "COW-table LE") == "5"
        assert displayed(shown, "Snapshot chunk size") == "4.00 KiB"
        assert float(displayed(shown, "Allocated to snapshot").rstrip("%")) < 1
        dd(media / "10M", 10)
        shown = sh("lvdisplay /dev/vg/lvdata-sp")
        assert displayed(shown, "LV snapshot status") == "active destination for lvdata"
        assert 50 <= float(displayed(shown, "Allocated to snapshot").rstrip("%")) <= 54

        dd(media / "12M", 12)  # the file is written all the same
        assert "Invalidating snapshot: Unable to allocate exception." in host.log()
        shown = sh("lvdisplay /dev/vg/lvdata-sp")
        assert displayed(shown, "LV snapshot status") == "INACTIVE destination for lvdata"
        assert displayed(shown, "LV Status") == "available"
        assert "Allocated to snapshot" not in shown
        assert sh.attr("vg/lvdata-sp") == "swi-I-s---"
        assert sh.percent("vg/lvdata-sp") == 100.0
        sh.read_fails("vg/lvdata-sp")
        sh(f"mount /dev/vg/lvdata-sp {sh.directory('media/snapshot')}", rc=5)
        sh("lvchange -ay -y /dev/vg/lvdata-sp")
        sh.read_fails("vg/lvdata-sp")
        done = host.run("lvremove /dev/vg/lvdata-sp", input="y\n")
        assert "Do you really want to remove active logical volume vg/lvdata-sp?" in done.stderr
        assert done.stdout == '  Logical volume "lvdata-sp" successfully removed.\n'
        assert (media / "10M").stat().st_size == 10 * MIB
    assert sh("lvs --noheadings -o lv_name,lv_attr vg").split() == ["lvdata", "-wi-a-----"]


@needs.program("sqlite3")
@needs.program("rsync")
def test_a_database_is_locked_snapshotted_unlocked_and_copied(host: UlvmHost) -> None:
    """With SQLite's exclusive lock in the part of `flush tables with read lock`."""
    sh = Shell(host, "VolGroup01", "600M")
    sh("lvcreate -L 256M -n LogVol00 VolGroup01")
    sh.mkfs("VolGroup01/LogVol00")
    with sh.mounted("VolGroup01/LogVol00", "data") as data:
        database = data / "db.sqlite"
        lvcreate = "lvcreate --size 100m --snapshot --name snap /dev/VolGroup01/LogVol00"
        script = f"""
CREATE TABLE t (n INTEGER);
INSERT INTO t VALUES (1), (2), (3);
BEGIN EXCLUSIVE;
.shell {" ".join(host.argv(lvcreate))}
COMMIT;
INSERT INTO t VALUES (4);
"""
        subprocess.run(
            ["sqlite3", "-bail", str(database)],
            input=script,
            text=True,
            check=True,
            cwd=host.base,
            env=host.env,
        )
        with sh.mounted("/dev/VolGroup01/snap", "snap", "-r") as snap:
            copy = sh.directory("copy")
            subprocess.run(["rsync", "-a", f"{snap}/", f"{copy}/"], check=True)
        sh("lvremove -y /dev/VolGroup01/snap")
        count = subprocess.run(
            ["sqlite3", str(copy / "db.sqlite"), "PRAGMA integrity_check; SELECT count(*) FROM t"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert count.stdout.split() == ["ok", "3"]


# -- 001: two snapshots of one origin, the smaller overflows --------------------------------------


def test_of_two_snapshots_the_larger_survives(host: UlvmHost) -> None:
    sh = Shell(host, "vgsrv", "1G", "-s 32M")
    assert sh("lvcreate -L 64M -n b64m /dev/vgsrv") == '  Logical volume "b64m" created.\n'
    assert sh.attr("vgsrv/b64m") == "-wi-a-----"
    sh.mkfs("vgsrv/b64m")
    base = sh.directory("mnt/base1")
    sh(f"mount /dev/vgsrv/b64m {base}")
    (base / "root").write_text("base1\n")
    (base / "install.log").write_bytes(os.urandom(45581))
    sh("lvcreate -L 32M -s -n sb64m /dev/vgsrv/b64m")
    assert sh.attr("vgsrv/b64m") == "owi-aos---"
    assert sh.attr("vgsrv/sb64m") == "swi-a-s---"
    assert 0 < sh.percent("vgsrv/sb64m") < 1
    sh("lvcreate -L 64M -s -n sb64m2 /dev/vgsrv/b64m")
    assert 0 < sh.percent("vgsrv/sb64m2") < sh.percent("vgsrv/sb64m")
    with sh.mounted("/dev/vgsrv/sb64m2", "mnt/sbase2") as second:
        with sh.mounted("/dev/vgsrv/sb64m", "mnt/sbase1") as first:
            assert sh.attr("vgsrv/sb64m") == "swi-aos---"
            names = sorted(p.name for p in base.iterdir())
            assert sorted(p.name for p in first.iterdir()) == names
            assert (first / "root").read_text() == "base1\n"
        assert (second / "root").read_text() == "base1\n"

        dd(base / "40M.img", 40)
        assert (base / "root").read_text() == "base1\n"
        assert sh.attr("vgsrv/sb64m") == "swi-I-s---"
        assert sh.percent("vgsrv/sb64m") == 100.0
        sh.read_fails("vgsrv/sb64m")
        assert 60 <= sh.percent("vgsrv/sb64m2") <= 70
        assert (second / "root").read_text() == "base1\n"

        (second / "sbase2").touch()
        (base / "base1").touch()
        subprocess.run(["sync"], check=True)
        assert not (base / "sbase2").exists()
        assert not (second / "base1").exists()
        assert not (second / "40M.img").exists()
    lines = [line.split() for line in sh("lvs --noheadings vgsrv").splitlines()]
    assert ["sb64m", "vgsrv", "swi-I-s---", "32.00m", "b64m", "100.00"] in lines
    sh(f"umount {base}")


# -- 002: good times with LVM snapshots -----------------------------------------------------------


@needs.program("tar")
def test_a_tar_of_a_snapshot(host: UlvmHost) -> None:
    sh = Shell(host, "xen", "3G")
    sh("lvcreate -L 512M -n ops1test-disk xen")
    sh.mkfs("xen/ops1test-disk")
    with sh.mounted("/dev/xen/ops1test-disk", "disk") as disk:
        (disk / "vm.cfg").write_text("as of the snapshot")
        sh("lvcreate --snapshot --size 1G --name test_snapshot /dev/xen/ops1test-disk")
        (disk / "vm.cfg").write_text("later")
        with sh.mounted("/dev/xen/test_snapshot", "mnt/test_snapshot") as snapshot:
            archive = host.base / "test_snapshot_backup.tar.gz"
            subprocess.run(["tar", "-pczf", archive, "-C", snapshot, "."], check=True)
        sh("lvremove /dev/xen/test_snapshot", answer="y\n")
        found = subprocess.run(
            ["tar", "-xzOf", archive, "./vm.cfg"], check=True, capture_output=True, text=True
        )
        assert found.stdout == "as of the snapshot"
        assert (disk / "vm.cfg").read_text() == "later"


# -- 003: the kernel's snapshot documentation -----------------------------------------------------


def test_four_devices_are_used(host: UlvmHost) -> None:
    sh = Shell(host, "volumeGroup", "1200M")
    sh("lvcreate -L 1G -n base volumeGroup")
    sh("lvcreate -L 100M --snapshot -n snap volumeGroup/base")
    assert sorted(sh("dmsetup table").splitlines()) == [
        "volumeGroup-base-real: 0 2097152 linear 240:0 2048",
        "volumeGroup-base: 0 2097152 snapshot-origin 253:1",
        "volumeGroup-snap-cow: 0 204800 linear 240:0 2099200",
        "volumeGroup-snap: 0 2097152 snapshot 253:1 253:2 P 8",
    ]
    devices = sorted(p.name for p in (host.run_dir / "dev" / "mapper").iterdir())
    names = ["base", "base-real", "snap", "snap-cow"]
    assert devices == [f"volumeGroup-{name}" for name in names]
    for name, sectors in zip(names, (2097152, 2097152, 2097152, 204800), strict=True):
        status = (host.run_dir / "dev" / "mapper" / f"volumeGroup-{name}").stat()
        assert status.st_size == sectors * 512
        assert status.st_mode & 0o777 == 0o600
        assert status.st_uid == os.getuid()


def test_a_merge_shrinks_to_its_end(host: UlvmHost) -> None:
    """49542 exceptions, as the document's status line has them; 4 GiB and 1 GiB as there."""
    sh = Shell(host, "volumeGroup", "6G")
    sh("lvcreate -L 4G -n base volumeGroup")
    sh("lvcreate -L 1G --snapshot -n snap volumeGroup/base")
    device = NbdDevice(str(host.run_dir / "nbd.sock"), "volumeGroup/base")
    piece = os.urandom(MIB)
    left, offset = 49542 * 4096, 512 * MIB
    while left:
        count = min(left, MIB)
        device.write(offset, piece[:count])
        left, offset = left - count, offset + count
    device.flush()
    device.close()
    assert sh("dmsetup status volumeGroup-snap") == "0 8388608 snapshot 397896/2097152 1560\n"
    assert sh("lvs --noheadings volumeGroup/snap").split() == [
        *("snap", "volumeGroup", "swi-a-s---", "1.00g", "base", "18.97")
    ]
    said = sh("lvconvert --merge -b volumeGroup/snap")
    assert said == "  Merging of volume volumeGroup/snap started.\n"

    dm = connect(host.run_dir, start=False, system_dir=host.system_dir)
    assert dm is not None
    seen = []
    end = time.monotonic() + 120
    while (lines := dm.status("volumeGroup-base"))[0].target_type == "snapshot-merge":
        seen.append(lines[0].params)
        assert time.monotonic() < end, seen[-1]
    dm.close()
    assert len(set(seen)) > 3, "the merge was over before it could be seen"
    allocated = [int(text.split("/")[0]) for text in seen]
    assert allocated == sorted(allocated, reverse=True)
    assert seen[-1] == "16/2097152 16"
    # The process in the background drops the snapshot once nothing is left.
    while sh("lvs --noheadings -o lv_name,lv_attr volumeGroup").split() != ["base", "-wi-a-----"]:
        assert time.monotonic() < end
        time.sleep(0.1)
    check = NbdDevice(str(host.run_dir / "nbd.sock"), "volumeGroup/base", read_only=True)
    assert check.read(512 * MIB, MIB) == bytes(MIB)
    check.close()


# -- 004: making snapshots for consistent backups -------------------------------------------------


def test_an_erased_file_stays_in_the_snapshot(host: UlvmHost) -> None:
    sh = Shell(host, "test", "200M")
    sh("lvcreate -L 64M -n HOWTO test")
    sh.mkfs("test/HOWTO")
    with sh.mounted("/dev/test/HOWTO", "mnt") as mnt:
        (mnt / "a.test.file").write_text("\n")
        said = sh("lvcreate --size 16m --snapshot --name snap /dev/test/HOWTO")
        assert said == '  Logical volume "snap" created.\n'
        with sh.mounted("/dev/test/snap", "snap") as snap:
            assert sorted(p.name for p in snap.iterdir()) == ["a.test.file", "lost+found"]
            (mnt / "a.test.file").unlink()
            assert sorted(p.name for p in snap.iterdir()) == ["a.test.file", "lost+found"]
            assert (snap / "a.test.file").read_text() == "\n"
        assert [p.name for p in mnt.iterdir()] == ["lost+found"]
