"""Command lines with hostile words: never a traceback, an exit code of lvm(8), and no file made
where none was asked for.

Most run in this process, where whatever is raised is seen; some as whole programs.
"""

from __future__ import annotations

import io
import os
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from random import Random

import pytest

from tests import effort
from tests.e2e.host import UlvmHost
from tests.fuzz.mutate import mutate
from tests.fuzz.test_hostile import in_time
from ulvm.cli.catalogue import COMMON, catalogue
from ulvm.cli.main import main

pytestmark = pytest.mark.timeout(effort.amount(300, 0))

SECONDS = 20
EXIT_CODES = {0, 2, 3, 5}

LINES = """
pvcreate disk2 --metadatasize 1m --dataalignment 64k --metadatacopies 1
pvcreate -ff -y disk2
pvchange --addtag t disk1
pvchange -x y disk1
pvresize --setphysicalvolumesize 30m disk2
pvremove -y disk2
pvs -o +pv_size,pv_tags --units m --separator : disk1
pvs --segments -o+pvseg_all -S pv_size>1m -O -pv_size
pvdisplay -m disk1
pvdisplay -s disk1
pvscan
pvmove -i 0 -n lv disk1:0-99 disk2
pvmove --abort
vgcreate other disk2 -s 64k -l 5 -p 5 --addtag t --alloc normal
vgextend vg disk2
vgreduce vg disk2
vgchange --refresh vg
vgchange --addtag t vg
vgchange -x y vg
vgchange -ay vg
vgrename vg vg
vgs -o +tags --units 3m --nosuffix --noheadings vg
vgs --reportformat json -S vg_free>=1m||tags=t
vgdisplay -c vg
vgsplit vg other disk2
vgmerge vg other
vgexport other
vgimport other
vgck vg
vgcfgrestore -l vg
vgcfgrestore -f nothing vg
lvcreate -n new -L 1m vg
lvcreate -n new -l 50%FREE -i 1 -I 64k -p r --addtag t -an vg disk1:0-10
lvcreate -s -n new2 -L 1m -c 4k vg/lv
lvcreate --type zero -n z -L 1m vg
lvextend -L +1m vg/lv
lvextend -l +10%VG vg/lv disk1
lvreduce -y -L -1m vg/lv
lvresize -L 4m vg/lv
lvrename vg lv lv9
lvrename vg/lv9 lv
lvchange -an vg/lv
lvchange -ay vg/lv
lvchange -p rw vg/lv
lvchange --addtag a --deltag b vg/lv
lvconvert --merge vg/new2
lvremove -y vg/new
lvscan -a
lvs -a -o lv_name,lv_size,seg_all,devices --sort -lv_size,name vg
lvs -o+lv_all -S lv_size>1m&&!(lv_name=~^x)||tags={a|b} --binary
lvs --nameprefixes --unquoted --rows --units H --config global/units="k" vg/lv
lvdisplay -m vg/lv
lvdisplay vg
dmsetup create dev --table "0 8 zero"
dmsetup create dev2 --uuid u --table "0 16 linear disk1 0" --readonly
dmsetup load dev --table "0 8 error"
dmsetup info -c -o name,uuid --separator , dev
dmsetup table --target zero dev
dmsetup status dev
dmsetup suspend --noflush dev
dmsetup resume dev
dmsetup message dev 0 hello
dmsetup rename dev dev3
dmsetup rename dev3 dev
dmsetup remove --force dev
dmsetup ls --tree
dmsetup deps dev
devices add disk2
devices remove disk2
daemon status --json
backup vg/lv --to nowhere --size 1m --chunksize 8k --level 1 --threads 2
backup --clean vg
restore nothing vg/back --threads 2
verify nothing
umount vg/lv
help lvs
lvmconfig --typeconfig full global/units activation
lvmconfig --typeconfig new --sinceversion 2.3.1
lvmconfig --validate
completion bash
tags
systemid
devtypes --noheadings
""".strip().splitlines()

HOSTILE = [
    "../x", "a/../../x", "/", "//", "/dev/../x", "\n", "a\nb", "\t", " ", "", "-", "--", "--x",
    "-Z", "x" * 127, "x" * 128, "x" * 5000, "x/" * 3000, "é", "\udcff", "\x1b[2J", "%s%n", "$(id)",
    "@", "@t", "@../x", "vg/", "/vg", "vg//lv", "vg/lv/x", "vg/snapshot0", "vg/lv_tmeta", "vg/..",
    "vg/.", "vg-lv", "1e999", "-1", "+-1m", "0", "00", "99999999999999999999E", "9" * 5000, "1.",
    ".5m", "1.5.5", "0x10", "٣", "1m1m", "100%", "101%FREE", "-5%VG", "1e400%ORIGIN",
    "9" * 400 + "%FREE", "nan", "inf", "NaN%VG", "18446744073709551615", "18446744073709551616s",
    "9223372036854775808b", "1s", "1b", "1z", "disk1:0-", "disk1:-1", "disk1:5-2",
    "disk1:99999999999999999999", "disk1:a", "disk1:" + "9" * 5000, "lv_size>", "&&", "!", "(",
    "((((" * 2000, "lv_name=~(", "lv_name=~(a+)+$", "lv_size=1e999", "{}", "tags={a&&b|c}", "help",
    "+", "-all", "+all,all", ",,,", "name,name", "nosuch", "-size,+name", "global/units=1", "a{",
    'a="', "a=[", "devices/scan=5", "backup/retain_min=" + "9" * 5000, "report/separator=1",
    "log{prefix=", "json", "0 8 zero\n8 8 error", "0 18446744073709551616 zero",
    "0 8 linear ../x 0", "0 8 snapshot x y P 8", "1:1", "253:0", "253:99999999999999999999",
]  # fmt: skip
OPTIONS = [
    "-S", "-o", "-O", "-L", "-l", "-n", "-c", "-s", "--units", "--config", "--separator", "-v",
    "-q", "--select", "--options", "--sort", "--addtag", "-i", "-I", "-p", "-a", "--reportformat",
    "--alloc", "--type", "-V", "--table", "-u", "--force", "-P", "-h", "--version", "--threads",
    "--size",
]  # fmt: skip


def words_of(choose: Random) -> list[str]:
    """A command line with one to three hostile changes. The name of the command stays."""
    name, *words = shlex.split(choose.choice(LINES))
    for _ in range(choose.choice([1, 1, 2, 3])):
        at = choose.randrange(len(words) + 1)
        match choose.randrange(6):
            case 0 | 1 if words:
                words[at % len(words)] = choose.choice(HOSTILE)
            case 2:
                words[at:at] = [choose.choice(OPTIONS), choose.choice(HOSTILE)]
            case 3 if words:
                raw = words[at % len(words)].encode(errors="surrogateescape")
                changed = mutate(choose, raw).replace(b"\0", b"")
                words[at % len(words)] = changed.decode(errors="surrogateescape")
            case 4 if words:
                del words[at % len(words)]
            case _:
                words[at:at] = [choose.choice(HOSTILE)]
    # What asks for a file is given one: that it is made is no fault.
    if name == "vgcfgbackup" or any(word.startswith(("-f", "--file")) for word in words):
        return [name, *(word for word in words if not word.startswith(("-f", "--file")))]
    return [name, *words]


class Ground:
    """A host whose working directory must stay empty of what nobody asked for."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.outside = sorted(os.listdir("/")) + sorted(os.listdir(base.parent))
        self.host = UlvmHost(base)
        for name in ("disk1", "disk2"):
            self.host.image(name, "32M")
        self.inside = [*sorted(os.listdir(base)), "run"]

    def prepare(self) -> None:
        """vg/lv on disk1, active; disk2 free or in another group."""
        if self.run(["lvs", "vg/lv"]) == 0:
            return
        for line in (
            "dmsetup remove_all --force", "vgchange -an", "vgimport other",
            "vgremove -ff -y vg other", "pvremove -ff -y disk1 disk2", "vgcreate -s 64k vg disk1",
            "lvcreate -y -L 1m -n lv vg",
        ):  # fmt: skip
            self.run(line.split())
        assert self.run(["lvs", "vg/lv"]) == 0, "the group cannot be made anew"

    def run(self, words: list[str]) -> int:
        """In this process. Words leave as they came (cli.streams)."""
        out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="surrogateescape")
        err = io.StringIO()
        with in_time(SECONDS), redirect_stdout(out), redirect_stderr(err):
            code = main(words)
        self.check(words, code, err.getvalue())
        return code

    def program(self, words: list[str]) -> int:
        """As a program of its own."""
        done = subprocess.run(
            [*self.host.argv(""), *words],
            cwd=self.base,
            env=self.host.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS,
            check=False,
        )
        self.check(words, done.returncode, done.stderr)
        return done.returncode

    def check(self, words: list[str], code: int, said: str) -> None:
        assert "Traceback" not in said, said
        assert "Internal error" not in said, said
        allowed = EXIT_CODES | ({1} if words[:1] in (["dmsetup"], ["blkdeactivate"]) else set())
        assert code in allowed, f"exit code {code}: {said}"
        # A report of the log, in which the failure is, goes to standard output.
        quiet = {"-q", "--quiet", "--logonly"}.intersection(words)
        assert code == 0 or said.strip() or quiet, "fails in silence"
        found = sorted(os.listdir("/")) + sorted(os.listdir(self.base.parent))
        assert found == self.outside, "made outside"
        left = set(os.listdir(self.base)) - set(self.inside)
        assert not left, f"made: {left}"


@pytest.fixture
def ground(short_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ground]:
    base = short_tmp / "h"
    base.mkdir()
    made = Ground(base)
    monkeypatch.chdir(base)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    for name in ("ULVM_SYSTEM_DIR", "ULVM_RUN_DIR"):
        monkeypatch.setenv(name, made.host.env[name])
    yield made
    made.host.close()


def attempt(ground: Ground, words: list[str], *, whole: bool) -> int:
    try:
        return (ground.program if whole else ground.run)(words)
    except BaseException as error:
        raise AssertionError(f"ULVM_SEED={effort.SEED}: {words!r}: {error!r}"[:4000]) from error


def test_the_lines_are_good(ground: Ground) -> None:
    """What is mutated below is understood as it stands: no line is refused for how it is put."""
    ground.prepare()
    ends = {line: attempt(ground, shlex.split(line), whole=False) for line in LINES}
    assert [line for line, code in ends.items() if code not in (0, 1, 5)] == []
    assert sum(code == 0 for code in ends.values()) > len(LINES) / 2, ends


# Not swept: they make files where they are told to, call other programs, or take minutes.
UNSWEPT = {"demo", "links", "lvmdump", "man", "mount", "umount"}
WRITES_A_FILE = {"-f", "--file", "-d", "--directory"}
ARGUMENTS = {"lvcreate": ["-an", "-n", "n", "-L", "1m", "vg"], "lvrename": ["vg", "lv", "lv8"]}


def swept_lines(choose: Random) -> Iterator[list[str]]:
    """Each option of each command, by one of its names, with one word or two more."""
    everything = [e for e in catalogue() if e.name not in UNSWEPT and not e.hidden]
    inner = [e for entry in everything for e in entry.subcommands if e.name != "daemon listen"]
    for entry in (*everything, *inner):
        name = entry.name.split()
        usual = {"pv": ["disk2"], "vg": ["vg"], "lv": ["vg/lv"]}.get(entry.name[:2], [])
        arguments = ARGUMENTS.get(entry.name, usual)
        yield name
        yield [*name, choose.choice(HOSTILE)]
        for option in entry.options:
            if option.spellings[-1] in COMMON and choose.randrange(10):
                continue
            spelling = choose.choice(option.spellings)
            if spelling in WRITES_A_FILE:
                continue
            value = [choose.choice([*option.choices, choose.choice(HOSTILE)])]
            yield [*name, spelling, *(value if option.value else []), *arguments]


def test_every_option_of_every_command(ground: Ground) -> None:
    choose = effort.rng("options of commands")
    failures = []
    for _ in range(effort.amount(1, 30)):
        for count, words in enumerate(swept_lines(choose)):
            if count % 50 == 0:
                ground.prepare()
            try:
                attempt(ground, words, whole=False)
            except AssertionError as error:
                failures.append(str(error)[:500])
            effort.tally("hostile command lines")
        assert count > 300
    assert not failures, "\n".join(failures)


def test_hostile_words(ground: Ground) -> None:
    choose = effort.rng("words of commands")
    ends: Counter[int] = Counter()
    for number in range(effort.amount(350, 10_000)):
        if number % 20 == 0:
            ground.prepare()
        ends[attempt(ground, words_of(choose), whole=False)] += 1
        effort.tally("hostile command lines")
    assert ends[0], ends
    assert ends[3], ends
    assert ends[5], ends
    log = ground.host.run_dir / "ulvmd.log"
    assert not log.exists() or "Traceback" not in log.read_text()


def test_every_hostile_word_where_words_are_parsed(ground: Ground) -> None:
    """In each place that has a grammar of its own, every word of the list."""
    ground.prepare()
    places = [
        ["lvs", "-S"], ["lvs", "-o"], ["vgs", "-O"], ["pvs", "--units"], ["lvs", "--config"],
        ["lvs"], ["lvcreate", "-an", "-n", "n", "vg", "-L"],
        ["lvcreate", "-an", "-n", "n", "vg", "-l"],
        ["lvextend", "vg/lv", "-l", "+1", "--"], ["dmsetup", "info"], ["lvrename", "vg", "lv"],
    ]  # fmt: skip
    if not effort.LONG:
        places = places[:6]
    for place in places:
        for word in HOSTILE:
            attempt(ground, [*place, word], whole=False)
            effort.tally("hostile command lines")
        ground.prepare()


TAKE_A_FILE = [
    "verify NAME", "restore NAME vg/new", "pvcreate NAME", "vgcreate new NAME", "pvs NAME",
    "devices add NAME", "vgcfgrestore -f NAME vg", "backup vg/lv --to NAME", "lvs NAME",
    "daemon listen --tls-certificates NAME", "lvcreate -n n -L 1m vg NAME",
]  # fmt: skip


def test_names_that_no_file_can_have(ground: Ground) -> None:
    ground.prepare()
    for line in TAKE_A_FILE:
        for name in ("x" * 5000, "x/" * 3000, "disk1/x", "\udcff"):
            words = [name if word == "NAME" else word for word in line.split()]
            assert attempt(ground, words, whole=False) in (3, 5), words


def test_as_whole_programs(ground: Ground) -> None:
    ground.prepare()
    choose = effort.rng("words of programs")
    for _ in range(effort.amount(8, 200)):
        words = words_of(choose)
        attempt(ground, [w for w in words if "\0" not in w], whole=True)
        effort.tally("hostile programs")


@pytest.mark.parametrize("line", ["help", "version", "lvs --help", "daemon status"])
def test_nowhere_to_write_to(ground: Ground, line: str) -> None:
    """What a command says goes to a file system that is full."""
    if line == "daemon status":
        ground.prepare()
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            ground.host.argv(line),
            env=ground.host.env,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    assert (done.returncode, done.stderr) == (
        5,
        "  Standard output: No space left on device\n",
    )
