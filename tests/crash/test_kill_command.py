"""kill -9 of a command between any two of its steps, and of the daemon between any two requests.

For each command the points that it reaches are asked for first (`ulvm.faultpoints`). Then, for each
point, on a host of its own the command is killed there. The next commands find the group as before
or after, with the right content, and nothing suspended for ever; and the same command, given again,
comes to its end or says that it is done.
"""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests import effort
from tests.e2e.host import UlvmHost
from tests.waiting import until
from ulvm.blockdev.nbd import NbdDevice

pytestmark = pytest.mark.timeout(effort.amount(300, 0))

MIB = 1 << 20
OLD, NEW = b"\x11" * 65536, b"\x22" * 65536


class Case(NamedTuple):
    """`before` and `after`: names of volumes; `again`: exit codes of the second try; `loses`: the
    volume whose content the command is to change; `first`: what happens before, `clone` being
    copies x.img and y.img of the disks; `makes`: how the name of a group begins that is made."""

    command: str
    after: set[str]
    again: tuple[int, ...] = (0, 5)
    origin_merged: bool = False
    group: str = "vg"
    loses: str = ""
    first: str = ""
    makes: str = ""
    shows: str = ""
    """A command that shows what has changed, and behind " = " what it prints then, or one of these
    behind " or "."""

    def is_done(self, host: UlvmHost) -> bool:
        command, _, wanted = self.shows.partition(" = ")
        if not command:
            return True
        printed = " ".join(host.run(command).stdout.split())
        return printed in wanted.split(" or ")


BEFORE = {"base", "snap", "plain"}
CASES = [
    Case(
        "lvcreate -L 4M -n new vg",
        BEFORE | {"new"},
        shows="lvs --noheadings -o lv_size vg/new = 4.00m",
    ),
    Case(
        "lvcreate -s -L 4M -n second vg/base",
        BEFORE | {"second"},
        shows="lvs --noheadings -o origin,lv_size vg/second = base 4.00m",
    ),
    Case(
        "lvcreate -V 64M -L 4M -n new vg",
        BEFORE | {"new"},
        shows="lvs --noheadings -o origin_size vg/new = 64.00m",
    ),
    Case(
        "lvconvert -y --splitsnapshot vg/snap",
        BEFORE,
        loses="snap",
        shows="lvs --noheadings -o origin vg/snap = ",
    ),
    Case(
        "lvconvert -y -s vg/base vg/plain",
        BEFORE,
        loses="plain",
        shows="lvs --noheadings -o origin vg/plain = base",
    ),
    Case(
        "lvchange -y -My --minor 77 vg/plain",
        BEFORE,
        (0,),
        shows="lvs --noheadings -o lv_kernel_minor vg/plain = 77",
    ),
    Case(
        "lvextend -L +4M vg/snap",
        BEFORE,
        (0,),
        shows="lvs --noheadings -o lv_size vg/snap = 12.00m or 16.00m",
    ),
    Case(
        "lvextend -L +4M vg/plain",
        BEFORE,
        (0,),
        shows="lvs --noheadings -o lv_size vg/plain = 12.00m or 16.00m",
    ),
    Case(
        "lvreduce -y -L 4M vg/plain", BEFORE, shows="lvs --noheadings -o lv_size vg/plain = 4.00m"
    ),
    Case("lvrename vg/base vg/other", {"other", "snap", "plain"}),
    Case("lvrename vg/snap vg/other", {"base", "other", "plain"}),
    Case("lvremove -y vg/snap", {"base", "plain"}),
    Case("lvremove -y vg/plain", {"base", "snap"}),
    Case("lvconvert --merge vg/snap", {"base", "plain"}, origin_merged=True),
    Case("lvchange -an vg/base", BEFORE, (0,), shows="lvs --noheadings -o lv_active vg/base = "),
    Case(
        "lvchange -pr vg/plain",
        BEFORE,
        shows="lvs --noheadings -o lv_permissions vg/plain = read-only",
    ),
    Case("pvmove -i 0 a.img b.img", BEFORE, shows="pvs --noheadings -o pv_used a.img = 0"),
    Case(
        "pvmove -i 0 --atomic -n base a.img b.img",
        BEFORE,
        shows="pvs --noheadings -o pv_used b.img = 8.00m",
    ),
    Case("vgextend vg c.img", BEFORE, shows="vgs --noheadings -o pv_count vg = 3"),
    Case("vgreduce vg b.img", BEFORE, shows="vgs --noheadings -o pv_count vg = 1"),
    Case("vgrename vg renamed", BEFORE, group="renamed"),
    Case("vgcreate other c.img", BEFORE),
    Case("pvcreate c.img", BEFORE, (0,)),
    Case(
        "vgchange -an vg", BEFORE, (0,), shows="lvs --noheadings -o lv_name -S active=active vg = "
    ),
    Case("vgchange --addtag t vg", BEFORE, (0,), shows="vgs --noheadings -o vg_tags vg = t"),
    Case("vgchange -s 2m vg", BEFORE, (0,), shows="vgs --noheadings -o vg_extent_size vg = 2.00m"),
    Case(
        "vgchange --vgmetadatacopies 1 vg", BEFORE, shows="vgs --noheadings -o vg_mda_copies vg = 1"
    ),
    Case("vgchange -u vg", BEFORE, (0,), first="vgchange -an vg"),
    Case("pvchange -u a.img", BEFORE, (0,), first="vgchange -an vg"),
    Case("vgimportclone x.img y.img", BEFORE, first="clone", makes="vg1"),
    Case("vgck --updatemetadata vg", BEFORE, (0,)),
    Case(
        "lvchange --addtag t vg/base", BEFORE, (0,), shows="lvs --noheadings -o lv_tags vg/base = t"
    ),
    Case("backup vg/base --to out", BEFORE, (0,)),
]


@contextmanager
def a_host() -> Iterator[UlvmHost]:
    base = Path(tempfile.mkdtemp(prefix="ulvm", dir="/tmp"))
    host = UlvmHost(base)
    try:
        for name in ("a", "b", "c"):
            host.image(f"{name}.img", "64M")
        (base / "out").mkdir()
        host.run("vgcreate vg a.img b.img")
        host.run("lvcreate -L 8M -n base vg a.img")
        host.run("lvcreate -L 8M -n plain vg a.img")
        write(host, "base", OLD)
        write(host, "plain", OLD)
        host.run("lvcreate -s -L 8M -n snap vg/base a.img")
        write(host, "base", NEW)
        yield host
    finally:
        host.close()
        shutil.rmtree(base)


def write(host: UlvmHost, name: str, data: bytes) -> None:
    device = NbdDevice(str(host.run_dir / "nbd.sock"), f"vg/{name}")
    device.write(0, data)
    device.flush()
    device.close()


def read(host: UlvmHost, group: str, name: str) -> bytes:
    """The beginning of a volume, by a process of its own that cannot hang us."""
    done = subprocess.run(
        ["nbdcopy", f"nbd+unix:///{group}/{name}?socket={host.run_dir}/nbd.sock", "-"],
        capture_output=True,
        timeout=60,
        check=True,
    )
    return done.stdout[: len(OLD)]


def killed(host: UlvmHost, command: str, setting: str, variable: str = "ULVM_FAULT_POINT") -> int:
    host.env[variable] = setting
    try:
        return host.attempt(command).rc
    finally:
        del host.env[variable]


def before(host: UlvmHost, case: Case) -> None:
    if case.first == "clone":
        for name, copy in (("a.img", "x.img"), ("b.img", "y.img")):
            shutil.copyfile(host.base / name, host.base / copy)
    elif case.first:
        host.run(case.first)


def points(case: Case) -> list[str]:
    with a_host() as host:
        before(host, case)
        file = host.base / "points"
        assert killed(host, case.command, f"list={file}") == 0, case.command
        return file.read_text().splitlines()


def group_of(host: UlvmHost) -> str:
    names = host.run("vgs --noheadings -o vg_name").stdout.split()
    (group,) = [n for n in names if n in ("vg", "renamed")]
    return group


def check(host: UlvmHost, case: Case, what: str) -> None:
    """What the next commands find."""
    group = group_of(host)
    shown = host.run(f"lvs --noheadings -o lv_name {group}").stdout.split()
    # What a backup leaves the next one finds, and `backup --clean` removes.
    shown = [name for name in shown if not name.startswith("base_backup_")]
    assert set(shown) in (BEFORE, case.after), f"{what}: {shown}"
    host.run(f"vgchange -ay {group}")
    # A move that the activation found under way goes on by itself, and suspends for a moment.
    shows = f"lvs --noheadings -o lv_suspended {group}"
    until(lambda: "suspended" not in host.run(shows).stdout.split())
    # The snapshot of a volume that is gone would go on writing to extents that are free.
    uuids = host.run(f"lvs -a --noheadings -o vg_uuid,lv_uuid {group}").stdout.replace("-", "")
    known = {"LVM-" + "".join(line.split()) for line in uuids.splitlines()}
    there = host.run("dmsetup info -c --noheadings -o uuid").stdout.split()
    assert {uuid[:68] for uuid in there} <= known, f"{what}: {there}"
    names = {"base": "other" if "other" in shown and "base" not in shown else "base"}
    names["snap"] = "other" if "other" in shown and "snap" not in shown else "snap"
    # A merge that is in the metadata and was not begun waits for the next activation.
    merged = case.origin_merged and "snap" not in shown
    allowed = (OLD, NEW) if merged else (NEW,)
    assert read(host, group, names["base"]) in allowed, f"{what}: the origin"
    if names["snap"] in shown and case.loses != "snap":
        assert read(host, group, names["snap"]) == OLD, f"{what}: the snapshot"
    if "plain" in shown and case.loses != "plain":
        assert read(host, group, "plain") == OLD, what
    if not case.origin_merged and not case.command.startswith("pvmove"):  # It goes on meanwhile.
        check_tables(host, what)


def tables(host: UlvmHost) -> dict[str, str]:
    """By dm name; devices are named, as another activation may give them other numbers."""
    rows = host.run("dmsetup info -c --noheadings -o name,major,minor").stdout.split()
    names = {f"{major}:{minor}": name for name, major, minor in (row.split(":") for row in rows)}
    found = {}
    for line in host.run("dmsetup table").stdout.splitlines():
        name, _, table = line.partition(": ")
        found[name] = " ".join(names.get(word, word) for word in table.split())
    return found


def check_tables(host: UlvmHost, what: str) -> None:
    """What is active is what a new activation makes of the metadata."""
    group, found = group_of(host), tables(host)
    host.run(f"vgchange -an {group}")
    host.run(f"vgchange -ay {group}")
    assert found == tables(host), what


def again(host: UlvmHost, case: Case, what: str) -> None:
    """The command to its end, or it is done already."""
    group = group_of(host)
    if case.first != "clone":
        before(host, case)
    if case.command.startswith("lvextend") or group == "vg" or case.group == "vg":
        done = host.attempt(case.command)
        assert done.rc in case.again, f"{what}: {done}"
        until(lambda: case.is_done(host))
    group = group_of(host)
    assert group == case.group, what
    if case.origin_merged:
        host.run(f"vgchange -an {group}")
        host.run(f"vgchange -ay {group}")
        host.attempt(f"lvpoll --polloperation merge {group}/base")
        assert read(host, group, "base") == OLD, f"{what}: the origin in the end"
    if case.command.startswith("backup"):
        host.run(f"backup --clean -y {group}")
    shown = set(host.run(f"lvs --noheadings -o lv_name {group}").stdout.split())
    assert shown == case.after, f"{what}: {shown}"
    if case.makes:
        # Given again when all is done but the entry in the devices file, it clones the clone.
        names = host.run("vgs --noheadings -o vg_name").stdout.split()
        assert any(name.startswith(case.makes) for name in names), what


def chosen() -> Iterator[tuple[Case, int]]:
    """Every point of every command; in the short form a few, guessed, of which some lie beyond the
    end of their command."""
    if not effort.LONG:
        choose = effort.rng("kill command")
        for case in choose.sample(CASES, 8):
            yield case, choose.randrange(1, 16)
        return
    for case in CASES:
        names = points(case)
        effort.tally("fault points of commands", len(names))
        for number in range(1, len(names) + 1):
            yield case, number


def test_a_command_is_killed_between_any_two_steps() -> None:
    kills = tries = 0
    for case, number in chosen():
        what = f"{case.command}, killed at point {number}"
        tries += 1
        with a_host() as host:
            before(host, case)
            status = killed(host, case.command, str(number))
            assert status in (-9, 0), what
            kills += status == -9
            assert status or case.is_done(host), what
            # A PV that has its new UUID already is known to the same command alone.
            only_itself = case.command.startswith("pvchange -u")
            if not only_itself:
                check(host, case, what)
            if status and "pvcreate" not in case.command and "vgcreate" not in case.command:
                again(host, case, what)
            if only_itself:
                check(host, case, what)
    effort.tally("kills of commands", kills)
    assert kills * 2 > tries


def test_a_snapshot_that_is_gone_stops_writing() -> None:
    """Its extents are free when the command that removes it is killed."""
    case = next(case for case in CASES if case.command == "lvremove -y vg/snap")
    with a_host() as host:
        before(host, case)
        assert killed(host, case.command, "at=before remove") == -9
        check(host, case, case.command)


def test_points_are_named(tmp_path: Path) -> None:
    with a_host() as host:
        file = host.base / "points"
        assert killed(host, "lvcreate -s -L 4M -n second vg/base", f"list={file}") == 0
        names = file.read_text().splitlines()
    commit, suspend = names.index("after metadata were written"), names.index("before suspend")
    assert {"before load", "after resume", "after new extents were wiped"} <= set(names)
    assert commit < suspend, "the new text is written ahead"
    assert "before metadata are written" in names[suspend:], "and counts while the origin waits"


def pid_of_daemon(host: UlvmHost) -> int:
    """0 where none runs."""
    status = host.attempt("daemon status --json")
    return int(json.loads(status.stdout)["pid"]) if status.rc == 0 else 0


def test_the_daemon_is_killed_between_any_two_requests() -> None:
    """At requests of a command that swaps tables; the command fails, or is done."""
    choose: random.Random = effort.rng("kill daemon at points")
    cases = [
        c for c in CASES if c.command.split()[0] in ("lvcreate", "lvextend", "lvconvert", "pvmove")
    ]
    kills, tries = 0, effort.amount(3, 200)
    for _ in range(tries):
        case, number = choose.choice(cases), choose.randrange(1, 60)
        what = f"{case.command}, the daemon killed at point {number}"
        with a_host() as host:
            host.run("daemon stop --force")
            # The next command starts the daemon again, which is then armed.
            host.env["ULVM_DAEMON_FAULT_POINT"] = str(number)
            host.attempt("vgchange -ay vg")
            first = pid_of_daemon(host)
            host.attempt(case.command)
            kills += not first or pid_of_daemon(host) != first
            del host.env["ULVM_DAEMON_FAULT_POINT"]
            host.attempt("daemon stop --force")  # if the point was not reached
            check(host, case, what)
    effort.tally("kills of the daemon at points", kills)
    assert kills * 2 > tries


SIGNALLED = """
import os, signal, sys
from ulvm import faultpoints
left, name = int(sys.argv.pop(1)), signal.Signals[sys.argv.pop(1)]
def reach(point):
    global left
    left -= "metadata" in point
    if not left:
        os.kill(os.getpid(), name)
        left = -1
faultpoints.reach = reach
from ulvm.cli.start import main
sys.exit(main())
"""
"""`ulvm`, which sends itself a signal at the n-th point that is about metadata."""


@pytest.mark.parametrize(
    ("first", "command", "point"),
    [
        ("", "vgcreate other c.img d.img", 13),  # before the first header that counts
        ("vgcreate other c.img d.img", "vgremove other", 4),  # areas cleared, labels not
        ("vgcreate other c.img d.img", "vgsplit other split d.img", 12),
        ("vgcreate other c.img; vgcreate more d.img", "vgmerge other more", 14),
        ("vgcreate other c.img", "vgextend other d.img", 4),
        ("vgcreate other c.img", "lvcreate -n new -L 4M other", 4),  # in the midst of the commit
        ("vgcreate other c.img; lvcreate -n a -L 4M other", "lvchange -fMy --minor 7 other/a", 1),
    ],
)
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_waits_for_the_end(first: str, command: str, point: int, name: str) -> None:
    """As in LVM2. What is half done would be refused to all but the same command, or with it."""
    base = Path(tempfile.mkdtemp(prefix="ulvm", dir="/tmp"))
    host = UlvmHost(base)
    try:
        for disk in ("c", "d"):
            host.image(f"{disk}.img", "64M")
        for each in filter(None, first.split("; ")):
            host.run(each)
        done = subprocess.run(
            [sys.executable, "-c", SIGNALLED, str(point), name, *command.split()],
            cwd=base,
            env=host.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode in (130, -signal.Signals[name]), done
        shown = host.run("pvs")
        assert not shown.stderr
        host.run("vgck")
        assert "[unknown]" not in shown.stdout
        assert "exported" not in host.run("vgs -o vg_exported --noheadings").stdout
        assert set(host.run("lvs -o lv_active --noheadings").stdout.split()) <= {"active"}
        if not command.startswith("lvchange"):
            assert host.attempt(command).rc == 5, "it is done already"
    finally:
        host.close()
        shutil.rmtree(base)
