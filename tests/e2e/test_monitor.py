"""The watch over snapshots: growth, warnings, the reason why not, and the end of a dead one."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

from tests import needs
from tests.e2e.host import UlvmHost
from tests.waiting import until

pytestmark = needs.fuse

MIB = 1 << 20


def origin_and_snapshot(host: UlvmHost, disk: str, settings: str) -> None:
    """vg/lv of 32 MiB, and vg/snap with a COW of 8 MiB, on a disk of so much."""
    (host.system_dir / "ulvm.conf").write_text(settings)
    host.run(f"vgcreate vg {host.image('d.img', disk)}")
    host.run("lvcreate -y -n lv -L 32M vg")
    host.run("lvcreate -s -n snap -L 8M vg/lv")


def change(host: UlvmHost, first: int, count: int) -> None:
    """Chunks of the origin, so many MiB from there."""
    with host.path("vg/lv").open("r+b", buffering=0) as file:
        file.seek(first * MIB)
        for _ in range(count):
            file.write(os.urandom(MIB))


def size(host: UlvmHost) -> str:
    return host.run("lvs --noheadings -o lv_size vg/snap").stdout.strip()


def report(host: UlvmHost) -> dict[str, Any]:
    (found,) = json.loads(host.run("monitor status --json vg/snap").stdout)
    assert isinstance(found, dict)
    return found


def test_a_snapshot_grows_without_a_setting_as_long_as_there_is_room(host: UlvmHost) -> None:
    origin_and_snapshot(host, "52M", "")
    change(host, 0, 6)
    until(lambda: size(host) == "12.00m")
    # 12 extents in all: one last one can be had, then none.
    change(host, 6, 4)
    until(lambda: size(host) == "16.00m")
    until(lambda: "was extended from 12.00 MiB to 16.00 MiB" in host.log())
    change(host, 10, 4)
    until(lambda: "Snapshot vg-snap cannot be extended: Insufficient" in host.log(), seconds=60)
    assert host.log().count("cannot be extended") == 1
    shown = host.run("monitor status")
    assert "vg/snap" in shown.stdout
    assert "Above 70% a snapshot is extended by 20%" in shown.stdout
    assert "Snapshot vg/snap cannot be extended: Insufficient free space" in shown.stderr


def test_it_warns_when_nothing_extends_it_and_does_when_that_is_set(host: UlvmHost) -> None:
    origin_and_snapshot(host, "128M", "activation { snapshot_autoextend_threshold = 100 }")
    assert report(host)["threshold"] is None
    change(host, 0, 7)
    until(lambda: "WARNING: Snapshot vg-snap is now 8" in host.log())
    host.run("lvchange --monitor n vg/snap")
    watched = "lvs --noheadings -o lv_name,seg_monitor"
    assert host.run(watched).stdout.split() == ["lv", "snap", "not", "monitored"]
    assert "not monitored" in host.run("monitor status").stdout
    host.run("lvchange --monitor y vg/snap")
    assert host.run(watched).stdout.split() == ["lv", "snap", "monitored"]
    found = report(host)
    assert 0.87 < found["full"] < 0.9
    assert found["seconds"] is None or found["seconds"] > 0
    assert size(host) == "8.00m"
    assert "Snapshots are not extended" in host.run("monitor status").stdout
    # Settings are read anew.
    (host.system_dir / "ulvm.conf").write_text(
        "activation { snapshot_autoextend_threshold = 60 snapshot_autoextend_percent = 100 }"
    )
    until(lambda: size(host) == "16.00m")
    assert report(host)["threshold"] == 60


@needs.root
@needs.loop
@needs.program("mkfs.ext4")
def test_what_is_mounted_on_a_dead_snapshot_is_unmounted(host: UlvmHost) -> None:
    origin_and_snapshot(host, "128M", "activation { snapshot_autoextend_threshold = 100 }")
    host.run("lvremove -y vg/snap")
    subprocess.run(["mkfs.ext4", "-q", host.path("vg/lv")], check=True)
    host.run("lvcreate -s -n snap -L 8M vg/lv")
    where, other = host.base / "mnt", host.base / "other place"
    where.mkdir()
    other.mkdir()
    host.run(f"mount -o ro vg/snap {where}")
    subprocess.run(["mount", "--bind", where, other], check=True)
    held = os.open(where, os.O_RDONLY)  # in use: it goes all the same
    try:
        change(host, 8, 12)
        until(lambda: not mounted(where) and not mounted(other))
    finally:
        os.close(held)
    assert "Snapshot vg-snap changed state to: Invalid and should be removed." in host.log()
    assert f"Unmounting invalid snapshot vg-snap from {where}." in host.log()
    until(lambda: "swi-I-s---" in host.run("lvs -o lv_attr vg/snap").stdout)
    assert "invalid: it should be removed" in host.run("monitor status").stdout
    host.run("lvremove -y vg/snap")


@needs.root
@needs.loop
@needs.program("mkfs.ext4")
def test_what_is_mounted_over_a_dead_snapshot_stays(host: UlvmHost) -> None:
    origin_and_snapshot(host, "128M", "activation { snapshot_autoextend_threshold = 100 }")
    host.run("lvremove -y vg/snap")
    subprocess.run(["mkfs.ext4", "-q", host.path("vg/lv")], check=True)
    host.run("lvcreate -s -n snap -L 8M vg/lv")
    where, other = host.base / "mnt", host.base / "other"
    where.mkdir()
    other.mkdir()
    host.run(f"mount -o ro vg/snap {where}")
    subprocess.run(["mount", "--bind", where, other], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", other], check=True)
    (other / "file").write_text("data")
    change(host, 8, 12)
    until(lambda: not mounted(where))
    time.sleep(3)  # and a look more
    assert (other / "file").read_text() == "data"
    subprocess.run(["umount", other], check=True)
    until(lambda: not mounted(other))
    host.run("lvremove -y vg/snap")


def mounted(where: Path) -> bool:
    text = str(where).replace(" ", "\\040")
    return any(line.split()[1] == text for line in Path("/proc/mounts").read_text().splitlines())


def test_no_snapshot_and_a_name_that_is_none(host: UlvmHost) -> None:
    assert host.run("monitor status").stdout == "  No snapshot is active.\n"
    assert host.run("monitor status vg/x", rc=5).stderr == "  vg/x is no active snapshot.\n"


def test_a_forced_unmount_of_nothing_is_refused(host: UlvmHost) -> None:
    said = host.run(f"umount --lazy --force {host.base}", rc=5).stderr
    assert said == f"  Nothing is mounted on {host.base}.\n"


def test_what_one_command_was_told_is_not_the_daemons(host: UlvmHost) -> None:
    """Which is started by whoever comes first; `daemon start` is told for its whole life."""
    never = "--config 'activation { snapshot_autoextend_threshold = 100 }'"
    origin_and_snapshot(host, "64M", "")
    host.run("vgchange -an vg")
    host.run("daemon stop")
    host.run(f"vgchange -ay -An {never} vg")
    before = len(list((host.system_dir / "archive").iterdir()))
    change(host, 0, 6)
    until(lambda: size(host) == "12.00m")
    assert len(list((host.system_dir / "archive").iterdir())) == before + 1
    host.run("vgchange -an vg")
    host.run("daemon stop")
    host.run(f"daemon start {never}")
    host.run("vgchange -ay vg")
    assert "snapshot_autoextend_threshold is 100" in host.run("monitor status").stdout
    change(host, 6, 4)
    until(lambda: "Snapshot vg-snap is now 8" in host.log())
    assert size(host) == "12.00m"
