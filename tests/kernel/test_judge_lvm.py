"""ulvm's commands against LVM2's, in two boots.

The same commands make a volume group with ulvm ("ours") and with LVM2 in the machine ("theirs").
What they print, their exit codes, and what reports, tables and status show must be the same. Then
each opens the other's group, reads the same bytes, merges a snapshot and makes another one. At the
end LVM2 looks at all of it once more.
"""

from __future__ import annotations

import hashlib
import random
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from tests import needs
from tests.e2e.host import UlvmHost
from tests.kernel import vm
from ulvm.report.fields import FIELDS

pytestmark = [needs.qemu, needs.fuse, pytest.mark.timeout(900)]

PV_SIZE = "48M"
BLOCK = 4096
SEED = 7

MAKE = (
    "pvcreate PV0 PV1",
    "vgcreate -s 1M VG PV0 PV1",
    # Later /dev/VG would be in the way; LVM2 looks at that first.
    "vgcreate VG PV0",
    "lvcreate -n a -L 12M VG",
    "lvcreate -n b -l 60 VG",
    "lvcreate -n a -L 1M VG",
    "lvcreate -n toobig -L 1G VG",
    "lvcreate -n bad/name -L 1M VG",
    "lvcreate -s -n s4 -c 4k -L 8M VG/a",
    "lvcreate -s -n s64 -c 64k -L 4M VG/a",
    "lvcreate -s -n badchunk -c 5k -L 4M VG/a",
    "lvcreate -s -n none -L 4M VG/nothere",
    "lvcreate -s -n twice -L 1M VG/s4",
    "lvcreate -n c -L 2M --addtag keep VG",
    "lvrename VG c d",
    "lvextend -L +1M VG/d",
    "lvextend -L +1M VG/s64",
    "lvextend -L 1M VG/d",
    "lvremove -y VG/nothere",
    "vgremove VG",
    "pvremove PV0",
    "lvconvert --merge VG/d",
    "lvcreate -s -n capped -c 512k -l 100%FREE VG/d",
    "lvremove -y VG/capped",
    "lvextend -L 1T VG/d",
    "lvreduce -y -L 2M VG/d",
    "lvrename VG d a",
    "lvchange -an VG/d",
    "lvremove VG/d",
    "vgs nosuch",
    "lvs VG/nosuch",
    "lvconvert --merge VG/a",
    "lvcreate -s -n full -L 100G VG/a",
    "vgextend VG PV1",
    "vgreduce VG PV0",
    "lvcreate --nothing VG",
    "lvcreate -n x VG",
    "vgcreate other PV0",
    "pvcreate PV0",
    "vgchange -an nosuch",
    "vgchange -ay VG",
    "lvchange -pr VG/b",
    "lvchange -prw VG/b",
    "lvchange --addtag t VG/b",
    "lvrename VG/b VG/b",
    "lvrename VG a snapshot0",
    "lvscan",
    "vgscan",
    "pvscan",
    "vgdisplay -s VG",
    "lvremove -y nosuch/a",
    "vgremove nosuch",
    "vgdisplay nosuch",
    "lvdisplay VG/nosuch",
    "pvs nosuch",
    "lvcreate -L 0 VG",
    "lvcreate -L 1X -n z VG",
    "vgchange VG",
)
"""Run by both; VG, PV0 and PV1 are put in."""

MERGE = (
    "lvconvert --merge -i 1 VG/s4",
    "lvcreate -s -n late -c 16k -L 2M VG/b",
)


def fields(*groups: str) -> str:
    """All fields of these kinds that we have, but for the numbers of disks: a file has none; and
    but for what dmeventd, which the machine has not, would tell."""
    return ",".join(
        name
        for name, field in FIELDS.items()
        if field.group in groups and name not in ("pv_major", "pv_minor", "seg_monitor")
    )


PLAIN = "--noheadings --separator / --units s --nosuffix"

REPORTS = (
    # Values of every field; paths of devices differ in width, so no padding where they stand.
    f"pvs {PLAIN} -o {fields('pv')} PV0 PV1",
    f"pvs --segments {PLAIN} -o pv_name,{fields('pvseg')} PV0 PV1",
    f"vgs {PLAIN} -o {fields('vg')} VG",
    f"lvs -a {PLAIN} -o {fields('lv')} VG",
    f"lvs --segments {PLAIN} -o lv_name,{fields('seg')} VG",
    # Columns, as people see them.
    f"vgs -o {fields('vg')} VG",
    f"lvs -a -o {fields('lv')} VG",
    "lvs VG",
    "lvs --noheadings VG",
    "lvs -S lv_attr=~^s -O -lv_size --units m VG",
    "lvs --reportformat json VG",
    "vgs VG",
    "vgs --nameprefixes --noheadings VG",
)

VOLUMES = ("a", "b", "s4", "s64")


def writes(part: int) -> list[tuple[str, int, int]]:
    """(volume, block, blocks) of 4 KiB; few enough for the stores."""
    dice = random.Random(SEED + part)
    names = ("a", "a", "b", "s4", "s64")
    return [(dice.choice(names), dice.randrange(2900), dice.randrange(1, 24)) for _ in range(16)]


class Seen(NamedTuple):
    """A volume group as a program shows it."""

    printed: dict[str, tuple[str, str, int]]
    table: list[str]
    status: list[str]
    digests: dict[str, str]


def plain(text: str, names: Mapping[str, str]) -> str:
    """Without the names that differ: of the group and of the devices."""
    for name, common in names.items():
        text = re.sub(rf"{re.escape(name)}(?!\w)", common, text)
    return text


def by_name(table: str, listed: str) -> list[str]:
    """Lines of `dmsetup table` with dm devices by name, PVs by order of appearance."""
    numbers = {number: name for name, number in re.findall(r"(\S+)\s+\((\d+:\d+)\)", listed)}
    for line in sorted(table.splitlines()):
        for number in re.findall(r"\b\d+:\d+\b", line):
            numbers.setdefault(number, f"PV{sum('PV' in name for name in numbers.values())}")
    return sorted(
        re.sub(r"\b\d+:\d+\b", lambda match: numbers[match[0]], line) for line in table.splitlines()
    )


class Ours:
    """The group as ulvm's commands work on it."""

    def __init__(self, host: UlvmHost, vg: str, images: list[Path]) -> None:
        self.host = host
        self.vg = vg
        self.names = {vg: "VG"} | {str(path): f"PV{n}" for n, path in enumerate(images)}
        self.put_in = {common: name for name, common in self.names.items()}

    def command(self, command: str) -> tuple[str, str, int]:
        done = self.host.attempt(plain(command, self.put_in))
        return plain(done.stdout, self.names), plain(done.stderr, self.names), done.rc

    def write(self, part: int) -> None:
        dice = random.Random(part)
        for volume, block, blocks in writes(part):
            with self.host.path(f"{self.vg}/{volume}").open("r+b") as file:
                file.seek(block * BLOCK)
                file.write(dice.randbytes(blocks * BLOCK))

    def look(self, volumes: tuple[str, ...]) -> Seen:
        return Seen(
            {command: self.command(command) for command in REPORTS},
            by_name(
                plain(self.host.run("dmsetup table").stdout, self.names),
                plain(self.host.run("dmsetup ls").stdout, self.names),
            ),
            sorted(plain(self.host.run("dmsetup status").stdout, self.names).splitlines()),
            {name: self.digest(name) for name in volumes},
        )

    def digest(self, volume: str) -> str:
        return hashlib.sha256(self.host.path(f"{self.vg}/{volume}").read_bytes()).hexdigest()


class Theirs:
    """Commands for the machine on one group. Nothing else is visible to LVM2 meanwhile."""

    def __init__(self, key: str, vg: str, drives: tuple[str, str]) -> None:
        self.key = key
        self.vg = vg
        self.names = {vg: "VG", drives[0]: "PV0", drives[1]: "PV1"}
        self.put_in = {common: name for name, common in self.names.items()}
        self.filter = (
            f"""--config 'devices/filter=["a|^{drives[0]}$|","a|^{drives[1]}$|","r|.*|"]'"""
        )
        self.script: dict[str, str] = {}
        self.outcomes: Mapping[str, vm.Outcome] = {}

    def command(self, key: str, command: str) -> None:
        name, _, rest = plain(command, self.put_in).partition(" ")
        self.script[f"{self.key} {key} {command}"] = f"lvm {name} {self.filter} {rest}"

    def shell(self, key: str, command: str) -> None:
        self.script[f"{self.key} {key}"] = command

    def write(self, part: int) -> None:
        for number, (volume, block, blocks) in enumerate(writes(part)):
            self.shell(
                f"write {part} {number}",
                f"dd if=/dev/urandom of=/dev/{self.vg}/{volume} bs={BLOCK} seek={block}"
                f" count={blocks} conv=notrunc,fsync",
            )

    def look(self, key: str, volumes: tuple[str, ...]) -> None:
        for command in REPORTS:
            self.command(key, command)
        for what in ("table", "ls", "status"):
            self.shell(f"{key} dmsetup {what}", f"dmsetup {what}")
        for volume in volumes:
            self.shell(f"{key} sha256 {volume}", f"sha256sum </dev/{self.vg}/{volume}")

    def result(self, key: str, command: str) -> tuple[str, str, int]:
        outcome = self.outcomes[f"{self.key} {key} {command}"]
        return plain(outcome.stdout, self.names), plain(outcome.stderr, self.names), outcome.rc

    def text(self, key: str) -> str:
        outcome = self.outcomes[f"{self.key} {key}"]
        assert outcome.rc == 0, outcome
        return plain(outcome.stdout, self.names)

    def seen(self, key: str, volumes: tuple[str, ...]) -> Seen:
        return Seen(
            {command: self.result(key, command) for command in REPORTS},
            by_name(self.text(f"{key} dmsetup table"), self.text(f"{key} dmsetup ls")),
            sorted(self.text(f"{key} dmsetup status").splitlines()),
            {name: self.text(f"{key} sha256 {name}").split()[0] for name in volumes},
        )


AFTER = ("a", "b", "s64", "late")


class Judged:
    """The whole course; the tests look at what came of it."""

    def __init__(self, host: UlvmHost) -> None:
        host.env["TZ"] = "UTC"  # As in the machine.
        images = [host.image(f"{vg}-pv{n}.img", PV_SIZE) for vg in ("ours", "peer") for n in "01"]

        # Ours makes its group.
        ours = Ours(host, "vgours", images[:2])
        self.made = {command: ours.command(command) for command in MAKE}
        ours.write(0)
        host.run("vgchange -an vgours")
        host.run("vgchange -ay vgours")
        self.ours_before = ours.look(VOLUMES)
        host.run("vgchange -an vgours")
        host.run("daemon stop")

        # LVM2 makes its own, and works on ours.
        there = Theirs("ours", "vgours", ("/dev/vda", "/dev/vdb"))
        there.command("act", "vgck VG")
        there.command("act", "vgchange -ay VG")
        there.look("before", VOLUMES)
        for command in MERGE:
            there.command("merge", command)
        # Device numbers depend on the order of activation.
        there.command("act", "vgchange -an VG")
        there.command("again", "vgchange -ay VG")
        there.look("after", AFTER)
        there.command("end", "vgchange -an VG")
        made = Theirs("theirs", "vgpeer", ("/dev/vdc", "/dev/vdd"))
        for command in MAKE:
            made.command("make", command)
        made.write(0)
        made.command("act", "vgchange -an VG")
        made.command("act", "vgchange -ay VG")
        made.look("before", VOLUMES)
        made.command("act", "vgchange -an VG ")
        outcomes = vm.run(there.script | made.script, images, timeout=600)
        there.outcomes = made.outcomes = outcomes
        self.ours_there, self.theirs_there = there, made

        # Ours sees what LVM2 did, and works on LVM2's group.
        host.run(f"devices add {images[2]} {images[3]}")
        host.run("vgchange -ay vgours")
        self.ours_back = ours.look(AFTER)
        host.run("vgchange -an vgours")
        theirs = Ours(host, "vgpeer", images[2:])
        host.run("vgchange -ay vgpeer")
        self.theirs_here = theirs.look(VOLUMES)
        self.merged = {command: theirs.command(command) for command in MERGE}
        host.run("vgchange -an vgpeer")
        host.run("vgchange -ay vgpeer")
        self.theirs_after = theirs.look(AFTER)
        host.run("vgchange -an vgpeer")
        host.run("daemon stop")

        # LVM2 has the last word.
        last = Theirs("last", "vgpeer", ("/dev/vda", "/dev/vdb"))
        last.command("act", "vgck VG")
        last.command("act", "vgchange -ay VG")
        last.look("end", AFTER)
        last.command("act", "vgchange -an VG")
        last.outcomes = vm.run(last.script, images[2:])
        self.last = last


@pytest.fixture(scope="module")
def judged(short_base: Path) -> Iterator[Judged]:
    base = Path(tempfile.mkdtemp(dir=short_base))
    host = UlvmHost(base)
    try:
        yield Judged(host)
    finally:
        host.close()
        shutil.rmtree(base)


@pytest.mark.parametrize("command", MAKE)
def test_a_command_prints_the_same(judged: Judged, command: str) -> None:
    assert judged.made[command] == judged.theirs_there.result("make", command)


@pytest.mark.parametrize("command", REPORTS)
def test_a_report_of_our_group_is_the_same(judged: Judged, command: str) -> None:
    theirs = judged.ours_there.seen("before", VOLUMES).printed[command]
    assert judged.ours_before.printed[command] == theirs


@pytest.mark.parametrize("command", REPORTS)
def test_a_report_of_their_group_is_the_same(judged: Judged, command: str) -> None:
    theirs = judged.theirs_there.seen("before", VOLUMES).printed[command]
    assert judged.theirs_here.printed[command] == theirs


def test_lvm2_checks_and_activates_our_groups(judged: Judged) -> None:
    for there in (judged.ours_there, judged.last):
        assert there.result("act", "vgck VG") == ("", "", 0)
        assert there.result("act", "vgchange -ay VG")[2] == 0


def test_lvm2_reads_what_we_wrote(judged: Judged) -> None:
    theirs = judged.ours_there.seen("before", VOLUMES)
    assert theirs.digests == judged.ours_before.digests
    assert len(set(theirs.digests.values())) == len(VOLUMES)
    assert theirs.table == judged.ours_before.table
    assert theirs.status == judged.ours_before.status


def test_we_read_what_lvm2_wrote(judged: Judged) -> None:
    theirs = judged.theirs_there.seen("before", VOLUMES)
    assert judged.theirs_here.digests == theirs.digests
    assert len(set(theirs.digests.values())) == len(VOLUMES)
    assert judged.theirs_here.table == theirs.table
    assert judged.theirs_here.status == theirs.status


def test_the_same_commands_lay_a_group_out_the_same(judged: Judged) -> None:
    theirs = judged.theirs_there.seen("before", VOLUMES)
    assert judged.ours_before.table == theirs.table
    assert judged.ours_before.status == theirs.status


def test_lvm2_merges_our_snapshot_and_we_go_on(judged: Judged) -> None:
    theirs = judged.ours_there.seen("after", AFTER)
    assert theirs.digests["a"] == judged.ours_before.digests["s4"]
    assert theirs.digests["s64"] == judged.ours_before.digests["s64"]
    assert judged.ours_back.digests == theirs.digests
    assert judged.ours_back.table == theirs.table
    assert judged.ours_back.status == theirs.status
    assert judged.ours_back.printed == theirs.printed


def test_we_merge_their_snapshot_and_lvm2_goes_on(judged: Judged) -> None:
    assert judged.theirs_after.digests["a"] == judged.theirs_here.digests["s4"]
    assert judged.theirs_after.digests["s64"] == judged.theirs_here.digests["s64"]
    theirs = judged.last.seen("end", AFTER)
    assert theirs.digests == judged.theirs_after.digests
    assert theirs.table == judged.theirs_after.table
    assert theirs.status == judged.theirs_after.status
    assert theirs.printed == judged.theirs_after.printed


def without_progress(result: tuple[str, str, int]) -> tuple[str, str, int]:
    """How often a merge says how far it is depends on the machine's speed."""
    stdout, stderr, rc = result
    return re.sub(r"  VG/\w+: Merged: \d?\d\.\d\d%\n", "", stdout), stderr, rc


@pytest.mark.parametrize("command", MERGE)
def test_merging_prints_the_same(judged: Judged, command: str) -> None:
    ours, theirs = judged.merged[command], judged.ours_there.result("merge", command)
    assert without_progress(ours) == without_progress(theirs)
