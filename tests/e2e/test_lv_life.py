"""What commands for logical volumes do to bytes and devices: wiping, use, merge, growth, death."""

from __future__ import annotations

import os
import random
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.host import UlvmHost
from tests.e2e.machine import MIB, Machine, wait_closed, wait_merged
from ulvm.errors import UlvmError

EXT_MAGIC = (1080, b"\x53\xef")
LUKS_HEADER = (0, b"LUKS\xba\xbe\0\1".ljust(168, b"\0") + b"1234-abcd")
SWAP_HEADER = (1024, struct.pack("<LL", 1, 255).ljust(4086 - 1024, b"\0") + b"SWAPSPACE2")
BTRFS_MAGIC = (0x10040, b"_BHRfS_M")
FIRST_EXTENT = MIB


@pytest.fixture
def machine(host: UlvmHost) -> Machine:
    return Machine.with_group(host)


@pytest.fixture
def tree(machine: Machine) -> Machine:
    """A plain volume, and an origin with a snapshot that holds 8 chunks."""
    machine.ok("lvcreate -L 8M -n plain vg")
    machine.ok("lvcreate -L 8M -n o vg")
    machine.write("vg/o", 0, b"before".ljust(64 << 10, b"."))
    machine.ok("lvcreate -s -L 4M -n s vg/o")
    machine.write("vg/o", 0, b"after".ljust(32 << 10, b"."))
    return machine


def scribble(machine: Machine, offset: int, data: bytes) -> None:
    """Leave bytes on the first disk where no volume is, as a removed one would have."""
    with Path(machine.disks["/dev/vda"]).open("r+b") as file:
        file.seek(offset)
        file.write(data)


def on_disk(machine: Machine, offset: int, length: int) -> bytes:
    with Path(machine.disks["/dev/vda"]).open("rb") as file:
        file.seek(offset)
        return file.read(length)


def daemon_pid(machine: Machine) -> int:
    line = machine.ok("daemon status").splitlines()[0]
    return int(line.split()[1].rstrip(","))


# -- a new volume ---------------------------------------------------------------------------------


def test_the_first_4_kib_of_a_new_volume_are_zeroed_and_no_more(machine: Machine) -> None:
    scribble(machine, FIRST_EXTENT, b"\xaa" * 8192)
    machine.ok("lvcreate -L 4M -n a vg")
    assert machine.read("vg/a", 0, 8192) == bytes(4096) + b"\xaa" * 4096


def test_without_zeroing_the_bytes_stay(machine: Machine) -> None:
    scribble(machine, FIRST_EXTENT, b"\xaa" * 8192)
    assert machine.ok("lvcreate -Zn -L 4M -n a vg") == (
        "  WARNING: Logical volume vg/a not zeroed.\n"
        '  Logical volume "a" created.\n'
    )  # fmt: skip
    assert machine.read("vg/a", 0, 8192) == b"\xaa" * 8192


def test_a_read_only_volume_is_not_zeroed_and_cannot_be_written(machine: Machine) -> None:
    scribble(machine, FIRST_EXTENT, b"\xaa" * 8192)
    assert "WARNING: Logical volume vg/a not zeroed." in machine.ok("lvcreate -pr -L 4M -n a vg")
    assert machine.read("vg/a", 0, 8192) == b"\xaa" * 8192
    with pytest.raises(UlvmError):
        machine.write("vg/a", 0, b"no")


@pytest.mark.parametrize(
    ("name", "offset", "header"),
    [("ext2", 1080, EXT_MAGIC), ("crypto_LUKS", 0, LUKS_HEADER), ("swap", 4086, SWAP_HEADER)],
)
def test_a_signature_is_not_wiped_without_a_yes(
    machine: Machine, name: str, offset: int, header: tuple[int, bytes]
) -> None:
    at, value = header
    scribble(machine, FIRST_EXTENT + at, value)
    before = machine.disk()
    text, status = machine.typed("lvcreate -L 4M -n a vg")
    assert status == 5
    lines = text.splitlines()
    assert lines[0].startswith("WARNING: ")
    assert (
        f"{name} signature detected on /dev/vg/a at offset {offset}. Wipe it? [y/n]: [n]"
        in lines[0]
    )
    assert lines[1].startswith("  Aborted wiping of ")
    assert lines[2:] == [
        "  1 existing signature left on the device.",
        "  Failed to wipe signatures on logical volume vg/a.",
        "  Aborting. Failed to wipe start of new LV.",
    ]
    assert machine.disk() == before
    assert on_disk(machine, FIRST_EXTENT + at, len(value)) == value


def test_a_signature_is_wiped_with_yes(machine: Machine) -> None:
    scribble(machine, FIRST_EXTENT + BTRFS_MAGIC[0], BTRFS_MAGIC[1])
    text = machine.ok("lvcreate -y -L 4M -n a vg")
    assert "  Wiping btrfs signature on /dev/vg/a.\n" in text
    assert machine.read("vg/a", BTRFS_MAGIC[0], 8) == bytes(8)


def test_a_signature_may_be_kept(machine: Machine) -> None:
    scribble(machine, FIRST_EXTENT + BTRFS_MAGIC[0], BTRFS_MAGIC[1])
    machine.ok("lvcreate -Wn -L 4M -n a vg")
    assert machine.read("vg/a", BTRFS_MAGIC[0], 8) == BTRFS_MAGIC[1]


def test_a_snapshot_never_takes_over_the_store_of_an_older_one(machine: Machine) -> None:
    machine.ok("lvcreate -L 8M -n o vg")
    machine.ok("lvcreate -s -L 4M -n old vg/o")
    machine.write("vg/o", 0, b"\x11" * 65536)
    machine.ok("lvremove -f vg/old")
    machine.ok("lvcreate -an -s -L 4M -n new vg/o")
    assert "0.00" in machine.ok("lvs --noheadings -o data_percent vg/new")
    assert machine.read("vg/new", 0, 65536) == b"\x11" * 65536


# -- refusals while volumes are active ------------------------------------------------------------

REFUSED = [
    ("lvremove vg/plain", "  Logical volume vg/plain not removed."),
    ("lvremove vg/s", "  Logical volume vg/s not removed."),
    ("lvremove vg/o", "  Logical volume vg/o not removed."),
    ("lvreduce -L 4M vg/plain", "  Logical volume vg/plain NOT reduced."),
    ("lvchange -an vg/s", "  Logical volume vg/s not changed."),
    ("lvcreate -s -n t -L 4M vg/s", "  Snapshots of snapshots are not supported."),
    ("lvcreate -s -n t -L 400M vg/plain -c 2k",
     "  Chunk size must be a power of 2 in the range 4K to 512K."),
    ("lvextend -L +4M vg/o",
     "  Snapshot origin volumes can be resized only while inactive: try lvchange -an."),
    ("lvreduce -y -L 4M vg/o", "  Snapshot origin volumes cannot be reduced in size yet."),
    ("lvextend -L +1G vg/plain",
     "  Insufficient free space: 256 extents needed, but only 57 available"),
    ("lvrename vg s o", '  Logical Volume "o" already exists in volume group "vg"'),
    ("lvcreate -s -n s -L 4M vg/o", '  Logical Volume "s" already exists in volume group "vg"'),
    ("lvconvert --mergesnapshot vg/plain", "  Command not permitted on LV vg/plain."),
]  # fmt: skip


def test_a_refusal_leaves_volumes_and_their_devices_alone(tree: Machine) -> None:
    before = tree.disk(), tree.ok("dmsetup table"), tree.read("vg/s", 0, 65536)
    for line, sentence in REFUSED:
        text, status = tree.typed(line)
        assert status in (3, 5), line
        assert sentence in text.splitlines(), f"{line}\n{text}"
        now = tree.disk(), tree.ok("dmsetup table"), tree.read("vg/s", 0, 65536)
        assert now == before, line


@pytest.mark.parametrize("volume", ["plain", "o", "s"])
@pytest.mark.parametrize("command", ["lvremove -f vg/{}", "lvchange -y -an vg/{}"])
def test_what_is_open_is_not_taken_away(tree: Machine, volume: str, command: str) -> None:
    before = tree.disk(), tree.ok("dmsetup table")
    device = tree.device(f"vg/{volume}")
    try:
        text, status = tree.typed(command.format(volume))
        assert (text, status) == (f"  Logical volume vg/{volume} in use.\n", 5)
        assert (tree.disk(), tree.ok("dmsetup table")) == before
    finally:
        device.close()


def test_an_answer_counts(tree: Machine) -> None:
    text, status = tree.typed("lvremove vg/plain", "y\n")
    question = "Do you really want to remove active logical volume vg/plain? [y/n]: "
    assert text == f'{question}  Logical volume "plain" successfully removed.\n'
    assert status == 0


# -- changes of volumes that are in use -----------------------------------------------------------


def test_an_open_volume_is_renamed_under_its_user(tree: Machine) -> None:
    device = tree.device("vg/o")
    try:
        tree.ok("lvrename vg o p")
        tree.ok("lvrename vg s t")
        device.write(0, b"through the old name")
        device.flush()
    finally:
        device.close()
    assert tree.read("vg/p", 0, 20) == b"through the old name"
    assert tree.read("vg/t", 0, 6) == b"before"
    assert sorted(p.name for p in (tree.host.run_dir / "dev" / "vg").iterdir()) == [
        "p", "plain", "t",
    ]  # fmt: skip


def test_read_only_and_back_while_active(tree: Machine) -> None:
    tree.ok("lvchange -pr vg/plain")
    with pytest.raises(UlvmError):
        tree.write("vg/plain", 0, b"no")
    tree.ok("lvchange -prw vg/plain")
    tree.write("vg/plain", 0, b"yes")
    assert tree.read("vg/plain", 0, 3) == b"yes"


def test_a_store_that_fills_is_extended_in_time(tree: Machine) -> None:
    tree.write("vg/o", 0, bytes(3 * MIB))
    tree.ok("lvextend -L 8M vg/s")
    tree.write("vg/o", 3 * MIB, bytes(3 * MIB))
    assert tree.ok("lvs --noheadings -o lv_attr vg/s").strip() == "swi-a-s---"
    assert tree.read("vg/s", 0, 6) == b"before"


def test_a_plain_volume_grows_while_it_is_open(tree: Machine) -> None:
    device = tree.device("vg/plain")
    tree.ok("lvextend -l +100%FREE vg/plain")
    device.close()
    grown = tree.device("vg/plain")
    assert grown.size == (2 + 57) * 4 * MIB
    grown.close()


# -- growing by policy ----------------------------------------------------------------------------


def policy(threshold: int, percent: int) -> str:
    return (
        f"--config 'activation{{snapshot_autoextend_threshold={threshold} "
        f"snapshot_autoextend_percent={percent}}}'"
    )


def cow_size(machine: Machine) -> str:
    return machine.ok("lvs --noheadings -o lv_size vg/s").strip()


def test_policy_extends_a_snapshot_that_is_fuller_than_the_threshold(tree: Machine) -> None:
    tree.write("vg/o", 0, bytes(3 * MIB + MIB // 2))  # 87 % and more
    tree.ok(f"lvextend --use-policies vg/s {policy(70, 50)}")
    assert cow_size(tree) == "8.00m"


def test_policy_extends_a_striped_snapshot_by_whole_stripes(machine: Machine) -> None:
    machine.ok("lvcreate -L 24M -n o vg")
    machine.ok("lvcreate -s -i 2 -l 4 -n s vg/o")
    machine.write("vg/o", 0, bytes(9 * MIB))  # 57 %: 5 extents would do
    machine.ok(f"lvextend --use-policies vg/s {policy(50, 20)}")
    assert cow_size(machine) == "24.00m"
    # No more than 7 extents can be of use, and whole stripes are 8.
    text = machine.ok("lvextend -l +10 vg/s")
    assert "Reached maximum COW size 28.00 MiB (7 extents)." in text
    assert cow_size(machine) == "32.00m"


def test_policy_extends_a_snapshot_whose_merge_waits(tree: Machine) -> None:
    device = tree.device("vg/o")
    assert "origin is open" in tree.ok("lvconvert --merge vg/s")
    device.write(0, bytes(3 * MIB + MIB // 2))
    device.flush()
    tree.ok(f"lvextend --use-policies vg/s {policy(70, 50)}")
    assert cow_size(tree) == "8.00m"
    device.write(0, bytes(6 * MIB))  # more than it had room for
    device.close()
    wait_closed(tree, "vg/o")
    tree.ok("lvchange --refresh vg/o")
    wait_merged(tree, "o")
    assert tree.read("vg/o", 0, 6) == b"before"


def test_policy_leaves_alone_what_has_room(tree: Machine) -> None:
    before = tree.disk()
    assert tree.ok(f"lvextend --use-policies vg/s {policy(70, 50)}") == ""
    assert tree.disk() == before


def test_policy_is_off_with_a_threshold_of_100(tree: Machine) -> None:
    tree.write("vg/o", 0, bytes(3 * MIB + MIB // 2))
    assert tree.ok(f"lvextend --use-policies vg/s {policy(100, 50)}") == ""
    assert cow_size(tree) == "4.00m"


def test_policy_needs_a_step_and_an_active_snapshot(tree: Machine) -> None:
    tree.write("vg/o", 0, bytes(3 * MIB + MIB // 2))
    before = tree.disk()
    text, status = tree.typed(f"lvextend --use-policies vg/s {policy(70, 0)}")
    assert status == 5
    assert "autoextend percent set to 0%" in text
    tree.ok("lvchange -an vg/o")
    text, status = tree.typed(f"lvextend --use-policies vg/s {policy(70, 50)}")
    assert (text, status) == ("  Can't read state of locally inactive LV vg/s.\n", 5)
    assert tree.disk() == before


# -- merge ----------------------------------------------------------------------------------------


@pytest.fixture
def large(machine: Machine) -> tuple[Machine, bytes]:
    """A machine with an origin of 40 MiB all of which has changed since vg/s; what it was."""
    machine.ok("lvcreate -L 40M -n o vg")
    was = random.Random(1).randbytes(40 * MIB)
    machine.write("vg/o", 0, was)
    machine.ok("lvcreate -s -l 100%ORIGIN -n s vg/o")
    machine.write("vg/o", 0, random.Random(2).randbytes(40 * MIB))
    return machine, was


def only_origin(machine: Machine) -> list[str]:
    return machine.ok("lvs -a --noheadings -o lv_name,lv_attr vg").split()


def test_a_merge_in_the_background(large: tuple[Machine, bytes]) -> None:
    machine, was = large
    assert machine.ok("lvconvert -b --merge vg/s") == "  Merging of volume vg/s started.\n"
    wait_merged(machine, "o")
    assert only_origin(machine) == ["o", "-wi-a-----"]
    assert machine.read("vg/o", 0, len(was)) == was


def test_who_reads_the_origin_during_a_merge_sees_the_past(large: tuple[Machine, bytes]) -> None:
    machine, was = large
    machine.ok("lvconvert -b --merge vg/s")
    assert machine.read("vg/o", 0, len(was)) == was
    machine.write("vg/o", 20 * MIB, b"written during the merge")
    wait_merged(machine, "o")
    assert machine.read("vg/o", 20 * MIB, 24) == b"written during the merge"


@pytest.mark.parametrize("delay", [0.0, 0.1, 0.3])
def test_a_merge_outlives_the_daemon(large: tuple[Machine, bytes], delay: float) -> None:
    machine, was = large
    machine.ok("lvconvert -b --merge vg/s")
    time.sleep(delay)
    os.kill(daemon_pid(machine), signal.SIGKILL)
    wait_merged(machine, "o")
    assert only_origin(machine) == ["o", "-wi-a-----"]
    assert machine.read("vg/o", 0, len(was)) == was


def test_the_next_activation_goes_on_with_a_merge(large: tuple[Machine, bytes]) -> None:
    machine, was = large
    command = subprocess.Popen(
        [sys.executable, "-m", "ulvm.cli.start", "lvconvert", "--merge", "vg/s"],
        env=machine.host.env,
        stdout=subprocess.PIPE,
    )
    assert command.stdout is not None
    try:
        command.stdout.read(1)  # The merge has begun, or ended.
    finally:
        command.kill()
        command.wait()
        command.stdout.close()
    os.kill(daemon_pid(machine), signal.SIGKILL)
    machine.ok("lvchange -an vg/o")
    machine.ok("lvchange -ay vg/o")
    wait_merged(machine, "o")
    assert only_origin(machine) == ["o", "-wi-a-----"]
    assert machine.read("vg/o", 0, len(was)) == was


def test_an_open_snapshot_delays_the_merge(tree: Machine) -> None:
    device = tree.device("vg/s")
    assert tree.ok("lvconvert --merge vg/s").splitlines() == [
        "  Delaying merge since snapshot is open.",
        "  Merging of snapshot vg/s will occur on next activation of vg/o.",
    ]
    assert tree.read("vg/o", 0, 5) == b"after"
    device.close()
    wait_closed(tree, "vg/o")
    tree.ok("lvchange -an vg/o")
    tree.ok("lvchange -ay vg/o")
    wait_merged(tree, "o")
    assert tree.read("vg/o", 0, 6) == b"before"


def test_a_merge_that_waits_goes_with_its_origin(tree: Machine) -> None:
    tree.ok("lvchange -an vg/o")
    tree.ok("lvconvert --merge vg/s")
    assert tree.ok("lvremove -f vg/o").splitlines() == [
        '  Logical volume "s" successfully removed.',
        '  Logical volume "o" successfully removed.',
    ]
    assert only_origin(tree) == ["plain", "-wi-a-----"]


def test_a_merge_of_which_nothing_can_come_is_given_up(tree: Machine) -> None:
    device = tree.device("vg/o")
    assert "origin is open" in tree.ok("lvconvert --merge vg/s")
    refused = "  Can't remove merging snapshot logical volume vg/s.\n"
    assert tree.typed("lvremove -f vg/s") == (refused, 5)
    device.write(0, b"last".ljust(6 * MIB, b"."))  # more than the store has room for
    device.flush()
    assert "successfully removed" in tree.ok("lvremove -f vg/s")
    assert tree.read("vg/o", 0, 4) == b"last"
    device.close()


def cut_off(machine: Machine) -> int:
    """The second disk ends in the midst of the store that lies on it, for a merge to fail; what its
    size was."""
    size = os.stat(machine.disks["/dev/vdb"]).st_size
    os.truncate(machine.disks["/dev/vdb"], 3 * MIB)
    return size


def merging_pair(machine: Machine, origin: str, disk: str) -> None:
    machine.ok(f"lvcreate -L 8M -n {origin} vg /dev/vda")
    machine.ok(f"lvcreate -s -L 8M -n s{origin} vg/{origin} {disk}")
    machine.write(f"vg/{origin}", 0, b"after".ljust(4 * MIB, b"."))


def test_the_snapshot_of_a_merge_that_failed_goes_if_that_is_wanted(machine: Machine) -> None:
    merging_pair(machine, "a", "/dev/vdb")
    size = cut_off(machine)
    text, status = machine.typed("lvconvert --merge vg/sa")
    assert "Merge of snapshot vg/sa into vg/a failed" in text
    assert status == 5
    os.truncate(machine.disks["/dev/vdb"], size)
    text, status = machine.typed("lvremove vg/sa", answer="n\n")
    assert "that failed to merge may leave origin vg/a inconsistent. Proceed? [y/n]: " in text
    assert status == 5
    assert "successfully removed" in machine.ok("lvremove -y vg/sa")
    assert only_origin(machine) == ["a", "-wi-a-----"]


def test_a_merge_that_fails_keeps_no_other_from_its_end(machine: Machine) -> None:
    merging_pair(machine, "a", "/dev/vdb")
    merging_pair(machine, "b", "/dev/vda")
    size = cut_off(machine)
    text, status = machine.typed("lvconvert --merge vg/sa vg/sb")
    assert "Merge of snapshot vg/sa into vg/a failed" in text
    assert "Merge of snapshot into logical volume vg/b has finished." in text
    assert status == 5
    os.truncate(machine.disks["/dev/vdb"], size)


def test_the_other_snapshot_keeps_its_past_through_a_merge(tree: Machine) -> None:
    tree.ok("lvcreate -s -L 4M -n later vg/o")
    tree.ok("lvconvert --merge vg/s")
    assert tree.read("vg/o", 0, 6) == b"before"
    assert tree.read("vg/later", 0, 5) == b"after"


# -- a PV is missing ------------------------------------------------------------------------------


@pytest.fixture
def partial(machine: Machine) -> Iterator[Machine]:
    """vg/span lies on both disks, vg/a on the first alone; the second is away."""
    machine.ok("lvcreate -L 16M -n a vg")
    machine.ok("lvcreate -L 200M -n span vg")
    machine.ok("vgchange -an vg")
    away = Path(machine.disks["/dev/vdb"])
    away.rename(away.with_suffix(".away"))
    yield machine
    away.with_suffix(".away").rename(away)


def test_a_missing_pv_stops_changes_but_not_complete_volumes(partial: Machine) -> None:
    before = partial.disk("/dev/vda")
    text, status = partial.typed("lvcreate -L 4M -n new vg")
    assert status == 5
    assert text.splitlines()[-3:] == [
        "  Cannot change VG vg while PVs are missing.",
        "  See vgreduce --removemissing and vgextend --restoremissing.",
        "  Cannot process volume group vg",
    ]
    text, status = partial.typed("lvchange -ay vg/span")
    assert status == 5
    assert text.splitlines()[-1] == (
        "  Refusing activation of partial LV vg/span.  Use '--activationmode partial' to override."
    )
    assert partial.disk("/dev/vda") == before
    partial.ok("lvchange -ay vg/a")
    assert "vg-a: 0 32768 linear" in partial.ok("dmsetup table")


def test_a_volume_may_be_removed_while_a_pv_is_missing(partial: Machine) -> None:
    text = partial.ok("lvremove -y vg/a")
    assert text.splitlines()[-1] == '  Logical volume "a" successfully removed.'


# -- two commands at once -------------------------------------------------------------------------


def at_once(machine: Machine, lines: list[str]) -> list[int]:
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "ulvm.cli.start", *line.split()],
            env=machine.host.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for line in lines
    ]
    return [process.wait() for process in running]


def test_commands_take_turns(machine: Machine) -> None:
    lines = [f"lvcreate -L 4M -n v{n} vg" for n in range(6)]
    assert at_once(machine, lines) == [0] * 6
    names = machine.ok("lvs --noheadings -o lv_name vg").split()
    assert names == [f"v{n}" for n in range(6)]
    table = machine.ok("dmsetup table")
    assert len({line.split()[-1] for line in table.splitlines()}) == 6, table
