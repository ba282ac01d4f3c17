"""A pvmove under way is handed over between LVM2 with a real kernel and ulvm, both ways.

LVM2 begins two moves in the machine and the machine stops in their midst; ulvm shows what LVM2
showed, ends the one and aborts the other. Then ulvm begins some, is killed in their midst, and LVM2
goes on with them. What the volumes and the snapshot hold is the same throughout.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import needs
from tests.e2e.host import UlvmHost
from tests.kernel import vm
from ulvm.metadata.move import current_segment
from ulvm.vgstore.host import Host
from ulvm.vgstore.scan import scan

pytestmark = [needs.qemu, needs.fuse, pytest.mark.timeout(600)]

SLOWLY = "echo 1 > /sys/module/dm_mirror/parameters/raid1_resync_throttle"
FIRST_IS_MOVED = """
n=0
until dmsetup table VG-pvmove0 | head -n 1 | grep -q linear; do
    n=$((n + 1)); [ $n -lt 600 ] || exit 1; sleep 0.1
done
for process in /proc/[0-9]*; do
    [ "$(cat $process/comm)" != lvm ] || kill -9 ${process#/proc/}
done
"""
"""Those who wait for the moves die then, and the moves stay where they are."""
NAMES = ("vda", "vdb", "vdc", "vdd")
SUMS = "md5sum /dev/VG/a /dev/VG/s /dev/VG/st /dev/WG/w"
SHOWN = (
    "lvs -a --noheadings --separator / --units s -o lv_name,lv_attr,lv_layout,lv_role,lv_modules,"
    "lv_allocation_locked,lv_size,seg_count,origin VG",
    "lvs --segments -a --noheadings --separator / --units s "
    "-o lv_name,seg_start_pe,seg_size,segtype,stripes,region_size,seg_pe_ranges,seg_le_ranges VG",
    "vgs --noheadings --units s VG",
    "pvs --noheadings --units s --segments -o pv_name,pvseg_start,pvseg_size,lv_name,segtype "
    "/dev/vda /dev/vdb",
)


@pytest.fixture
def host() -> Iterator[UlvmHost]:
    base = Path(tempfile.mkdtemp(prefix="ulvm", dir="/tmp"))
    host = UlvmHost(base)
    try:
        yield host
    finally:
        host.close()
        shutil.rmtree(base)


def in_the_machine(host: UlvmHost, *commands: str) -> dict[str, vm.Outcome]:
    """LVM's commands go to lvm, others to the shell; all must succeed."""
    words = ("pv", "vg", "lv")
    script = {c: f"lvm {c}" if c.startswith(words) else c for c in commands}
    found = vm.run(script, [host.base / name for name in NAMES])
    bad = [outcome for outcome in found.values() if outcome.rc]
    assert not bad, bad
    return found


def plain(text: str, host: UlvmHost) -> list[str]:
    """Lines without padding, sorted; disks under the machine's names; of lv_attr not what depends
    on activity."""
    lines = "".join(c for c in text.replace(f"{host.base}/", "/dev/") if c != " ").splitlines()
    return sorted(re.sub(r"/(....)..(.{4})/(?=linear|striped|mirror)", r"/\1\2/", a) for a in lines)


def sums(text: str) -> list[str]:
    return [line.split()[0] for line in text.splitlines()]


def our_sums(host: UlvmHost) -> list[str]:
    paths = ("VG/a", "VG/s", "VG/st", "WG/w")
    return [hashlib.md5(host.path(path).read_bytes()).hexdigest() for path in paths]


def under_way(host: UlvmHost) -> dict[str, int | None]:
    """VG -> the segment that its move is at."""
    found = scan(Host.from_environment(host.env))
    return {vg.name: current_segment(move) for vg in found.vgs for move in vg.pvmoves()}


def killed(host: UlvmHost, command: str, at: str) -> None:
    host.env["ULVM_FAULT_POINT"] = f"at={at}"
    assert host.attempt(command).rc == -9, command
    del host.env["ULVM_FAULT_POINT"]


def test_a_move_is_handed_over_and_back(host: UlvmHost) -> None:
    for name in NAMES:
        host.image(name, "64M")
    theirs = in_the_machine(
        host,
        SLOWLY,
        "vgcreate -s 1M VG /dev/vda /dev/vdb",
        "vgcreate -s 1M WG /dev/vdc /dev/vdd",
        "lvcreate -n a -L 6M VG /dev/vda",
        "lvcreate -n st -i 2 -L 8M VG",
        "lvextend -L 10M VG/a /dev/vda",
        "lvcreate -n w -L 40M WG /dev/vdc",
        "for v in VG/a VG/st WG/w; do dd if=/dev/urandom of=/dev/$v bs=1M count=6; done",
        "lvcreate -s -n s -L 8M VG/a /dev/vda",
        "dd if=/dev/urandom of=/dev/VG/a bs=1M count=4 && sync",
        "pvmove -b -i 1 --alloc anywhere /dev/vda /dev/vdb",
        "pvmove -b -i 1 --atomic /dev/vdc",
        FIRST_IS_MOVED,
        SUMS,
        *SHOWN,
    )
    before = sums(theirs[SUMS].stdout)
    host.run(f"devices add {' '.join(NAMES)}")
    at = under_way(host)
    assert (at.get("VG") or 0) > 0, "LVM2 was too fast, or too slow, for this test"
    assert at["WG"] == 0

    for command in SHOWN:
        ours = host.run(command.replace("/dev/", f"{host.base}/")).stdout
        assert plain(ours, host) == plain(theirs[command].stdout, host), command
    done = host.run("pvmove -i 1 vda")
    assert done.stdout.startswith(f"  Detected pvmove in progress for {host.base}/vda.\n")
    assert done.stdout.endswith(f"  {host.base}/vda: Moved: 100.00%\n")
    host.run("pvmove --abort")
    assert under_way(host) == {}
    for group in ("VG", "WG"):
        host.run(f"vgchange -ay {group}")
    assert our_sums(host) == before
    used = host.run("pvs --noheadings -o pv_used --units m --nosuffix").stdout.split()
    assert sorted(map(float, used)) == [0, 0, 26, 40]

    host.run("pvmove -i 0 vdb:4-25 vda --alloc anywhere")
    killed(host, "pvmove -i 0 vda vdb --alloc anywhere", "after a segment counts as moved")
    killed(host, "pvmove -i 0 --atomic vdc", "after a move was begun")
    assert under_way(host) == {"VG": 1, "WG": 0}
    assert our_sums(host) == before
    host.run("daemon stop --force")
    theirs = in_the_machine(
        host,
        "pvmove -i 1 /dev/vda",
        "vgchange -ay WG --poll n",
        "pvmove --abort /dev/vdc",
        "vgchange -ay VG",
        "lvchange --refresh VG/a VG/st",
        SUMS,
        "vgck VG",
        "vgck WG",
        "pvs --noheadings -o pv_used --units m --nosuffix",
    )
    assert theirs["pvmove -i 1 /dev/vda"].stdout.startswith("  Detected pvmove in progress")
    assert sums(theirs[SUMS].stdout) == before
    used = theirs["pvs --noheadings -o pv_used --units m --nosuffix"].stdout.split()
    assert list(map(float, used)) == [0, 26, 40, 0], theirs["pvmove --abort /dev/vdc"]
    assert under_way(host) == {}
