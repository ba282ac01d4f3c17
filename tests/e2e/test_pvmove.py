"""pvmove as people type it: progress, background, abort, activation, what is shown meanwhile."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import threading
import time

import pytest

from tests import needs
from tests.e2e.host import UlvmHost
from ulvm.blockdev.nbd import NbdDevice

pytestmark = needs.fuse

MIB = 1 << 20
DISKS = ("a.img", "b.img", "c.img")


@pytest.fixture
def group(host: UlvmHost) -> UlvmHost:
    """An origin with a snapshot, a striped volume and an inactive one, on the first disk."""
    for name in DISKS:
        host.image(name, "64M")
    host.run("vgcreate -s 1M vg a.img b.img c.img")
    host.run("lvcreate -qn base -L 10M vg a.img")
    host.run("lvcreate -qn st -i2 -L 8M vg a.img b.img")
    host.run("lvcreate -qn off -L 2M vg a.img")
    fill(host, "base", 1)
    fill(host, "st", 2)
    host.run("lvcreate -qs -n snap -L 8M vg/base a.img")
    fill(host, "base", 3, 2 * MIB)
    host.run("lvchange -an vg/off")
    return host


def fill(host: UlvmHost, name: str, seed: int, size: int = 8 * MIB) -> None:
    with host.path(f"vg/{name}").open("r+b") as file:
        file.write(bytes([seed]) * size)


def sums(host: UlvmHost) -> list[str]:
    names = ("base", "st", "snap")
    return [hashlib.sha256(host.path(f"vg/{n}").read_bytes()).hexdigest() for n in names]


def killed(host: UlvmHost, command: str, at: str) -> None:
    host.env["ULVM_FAULT_POINT"] = f"at={at}"
    assert host.attempt(command).rc == -9
    del host.env["ULVM_FAULT_POINT"]


BEGUN = "after a move was begun"
ONE_MOVED = "after a segment counts as moved"


def used(host: UlvmHost) -> list[float]:
    shown = host.run("pvs --noheadings --units m --nosuffix -o pv_used").stdout
    return [float(word) for word in shown.split()]


def test_a_disk_that_is_full_can_be_emptied(host: UlvmHost) -> None:
    for name in ("a.img", "b.img"):
        host.image(name, "32M")
    host.run("vgcreate vg a.img b.img")
    host.run("lvcreate -qn full -l 100%PVS vg a.img")
    fill(host, "full", 1)
    host.run("pvmove -i0 a.img b.img")
    assert used(host) == [0, 28]
    with host.path("vg/full").open("rb") as file:
        assert file.read(8 * MIB) == b"\1" * (8 * MIB)
    assert "No data to move" in host.run("pvmove a.img", rc=5).stderr
    host.run("pvmove -i0 b.img:0-3 a.img")
    assert used(host) == [16, 12]


def test_all_of_a_disk_under_load(group: UlvmHost) -> None:
    """A writer goes on through every door meanwhile, and finds all that it wrote."""
    snapshot = sums(group)[2]
    stop = threading.Event()
    written: dict[int, bytes] = {}
    device = NbdDevice(str(group.run_dir / "nbd.sock"), "vg/base")

    def write() -> None:
        number = 0
        while not stop.is_set():
            at = number * 4096 * 7 % (6 * MIB)  # with what `group` wrote it fits the COW
            written[at] = os.urandom(4096)
            device.write(at, written[at])
            if number % 16 == 0:
                device.flush()
            number += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        done = group.run("pvmove -i 1 a.img c.img")
    finally:
        stop.set()
        writer.join()
    path = f"{group.base}/a.img"
    assert re.fullmatch(rf"(  {path}: Moved: \d+\.\d\d%\n)+", done.stdout), done
    assert done.stdout.endswith("Moved: 100.00%\n")
    assert used(group) == [0, 4, 24]
    assert all(device.read(at, 4096) == data for at, data in written.items())
    assert len(written) > 20
    assert sums(group)[2] == snapshot
    device.close()
    group.run("vgchange -an vg")
    group.run("vgchange -ay vg")
    content = group.path("vg/base").read_bytes()
    assert all(content[at : at + 4096] == data for at, data in written.items())
    table = group.run("dmsetup table").stdout
    assert "pvmove" not in table
    assert "mirror" not in table


def test_what_is_shown_and_refused_meanwhile(group: UlvmHost) -> None:
    before = sums(group)
    killed(group, "pvmove a.img c.img", ONE_MOVED)
    fields = "lv_name,lv_attr,copy_percent,move_pv,devices"
    shown = group.run(f"lvs -a --noheadings --separator / -o {fields} vg").stdout
    lines = [line.strip() for line in shown.replace(f"{group.base}/", "").splitlines()]
    assert lines[:2] == ["base/owI-a-s---///pvmove0(0)", "off/-wI-------///pvmove0(0)"]
    assert "st/-wI-a-----///pvmove0(0),b.img(0)" in lines
    moving = [line for line in lines if line.startswith("[pvmove0]/p-C-aom---/")]
    assert len(moving) == 4
    assert moving[0].endswith("/a.img/a.img(0),c.img(0)")
    assert float(moving[0].split("/")[2]) >= 41.66
    for command, words in (
        ("lvremove -y vg/st", "Can't remove locked logical volume vg/st."),
        ("lvextend -l+1 vg/st", "Can't resize locked logical volume vg/st."),
        ("lvrename vg/st vg/new", "Cannot rename locked LV st"),
        ("lvcreate -s -L4M vg/base", "Snapshots of locked volumes are not supported."),
        ("lvremove -y vg/pvmove0", ""),
        ("vgreduce vg c.img", "still in use"),
        ("lvconvert --merge vg/snap", "is invalid on LV with properties: lv_is_locked ."),
        ("lvconvert -y --splitsnapshot vg/snap", "lv_is_locked"),
    ):
        refused = group.attempt(command)
        assert refused.rc == 5, command
        assert words in refused.stderr, refused
    names = {path.name for path in group.path("vg").iterdir()}
    assert names == {"base", "snap", "st"}, "the move itself is nobody's"
    table = group.run("dmsetup table vg-pvmove0").stdout.splitlines()
    assert [line.split()[2] for line in table] == ["linear", "mirror", "linear", "linear"]
    again = group.run("pvmove -i1 -n st a.img b.img")
    assert again.stdout.startswith(f"  Detected pvmove in progress for {group.base}/a.img.\n")
    assert "Ignoring remaining command line arguments." in again.stderr
    assert used(group) == [0, 4, 24]
    assert sums(group) == before


def test_abort_leaves_what_is_moved(group: UlvmHost) -> None:
    before = sums(group)
    killed(group, "pvmove a.img c.img", ONE_MOVED)
    group.run("pvmove --abort a.img")
    assert used(group) == [14, 4, 10]
    assert sums(group) == before
    killed(group, "pvmove --atomic a.img c.img", BEGUN)
    for command, words in (
        ("lvchange -pr vg/pvmove0_mimage_1", "lv_is_mirror_image"),
        ("lvchange -Cy vg/pvmove0_mimage_1", "lv_is_mirror_image"),
        ("lvchange --addtag x vg/pvmove0", "lv_is_pvmove"),
        ("lvchange -My --minor 77 vg/pvmove0_mimage_1", "not permitted on hidden LV"),
        ("lvchange -My --minor 77 vg/pvmove0", "not permitted on hidden LV"),
    ):
        assert words in group.run(command, rc=5).stderr
    group.run("pvmove --abort")
    assert used(group) == [14, 4, 10]
    assert sums(group) == before
    done = group.run("pvmove --abort a.img")
    assert done.stdout == (
        f"  {group.base}/a.img: No pvmove in progress - already finished or aborted.\n"
    )


def test_nobody_uses_what_a_move_is_made_of(group: UlvmHost) -> None:
    """Nor activates it by itself: the copy would write over what is written there."""
    before = sums(group)
    killed(group, "pvmove --atomic a.img c.img", BEGUN)
    group.run("vgchange -an vg")
    assert group.run("dmsetup ls").stdout == "No devices found\n"
    directory = group.base / "mnt"
    directory.mkdir()
    for name in ("pvmove0_mimage_0", "pvmove0_mimage_1", "pvmove0"):
        for command in (f"lvchange -y -ay vg/{name}", f"mount vg/{name} {directory}"):
            refused = group.run(command, rc=5).stderr
            assert f"Operation not permitted on hidden LV vg/{name}." in refused
    assert group.run("dmsetup ls").stdout == "No devices found\n"
    group.run("vgchange -ay --poll n vg")
    for name in ("pvmove0_mimage_1", "pvmove0"):
        refused = group.run(f"mount vg/{name} {directory}", rc=5).stderr
        assert f"Operation not permitted on hidden LV vg/{name}." in refused
    group.run("pvmove -i0")
    assert used(group)[0] == 0
    assert sums(group) == before


def test_a_move_goes_on_by_itself(group: UlvmHost) -> None:
    """In the background though the daemon dies, and with the next activation."""
    before = sums(group)
    group.run("pvmove -b -i 0 a.img c.img")
    os.kill(group.daemon_pid(), signal.SIGKILL)
    wait_until_moved(group)
    assert sums(group) == before
    group.run("pvmove -i 0 c.img a.img")
    killed(group, "pvmove a.img c.img", ONE_MOVED)
    group.run("vgchange -an vg")
    assert group.run("dmsetup ls").stdout == "No devices found\n"
    done = group.run("pvmove")
    assert done.stdout == (
        f"  {group.base}/a.img: Skipping inactive LV. Try lvchange or vgchange.\n"
    )
    done = group.run("vgchange -ay vg")
    assert 'Background polling started for 1 logical volume(s) in volume group "vg"' in done.stdout
    wait_until_moved(group)
    assert sums(group) == before


def wait_until_moved(host: UlvmHost) -> None:
    deadline = time.monotonic() + 240
    while used(host) != [0, 4, 24]:
        assert time.monotonic() < deadline, host.run("lvs -a -o+devices").stdout
        time.sleep(0.1)


def test_what_is_moved_is_not_removed_and_keeps_its_snapshots(group: UlvmHost) -> None:
    killed(group, "pvmove -n base a.img c.img", BEGUN)
    volumes = group.run("lvs -a --noheadings -o lv_name vg").stdout
    locked = "Can't remove locked logical volume vg/base."
    assert locked in group.run("lvremove -y vg/base", rc=5).stderr
    group.run("vgchange -an vg")
    (group.base / "c.img").rename(group.base / "away.img")
    refused = group.run("vgreduce --removemissing --force vg", rc=5).stderr
    assert locked in refused
    assert "pvmove --abort" in refused
    assert group.run("lvs -a --noheadings -o lv_name vg").stdout == volumes
    group.run("pvmove --abort")
    group.run("vgreduce --removemissing --force vg")
    group.run("vgchange -ay vg")
    assert set(group.path("vg/snap").read_bytes()[: 8 * MIB]) == {1}
