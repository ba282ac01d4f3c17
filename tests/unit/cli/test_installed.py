"""Manual pages and completion: complete, well-formed, and what a shell makes of them."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from tests import needs
from ulvm.cli.abbreviations import HELP_OPTIONS, expanded
from ulvm.cli.catalogue import catalogue
from ulvm.cli.completion import completion_script
from ulvm.cli.examples import EXAMPLES
from ulvm.cli.installed import shared_files
from ulvm.cli.links import link_names
from ulvm.cli.loading import load
from ulvm.cli.main import COMMANDS, main
from ulvm.cli.manual import manual_pages

ENTRIES = {entry.name: entry for entry in catalogue()}
SHOWN = {name for name, entry in ENTRIES.items() if not entry.hidden}


@pytest.mark.parametrize("name", sorted(SHOWN))
def test_a_command_and_its_options_are_told_of(name: str) -> None:
    entry = ENTRIES[name]
    assert entry.summary
    assert len(entry.summary) < 110
    for one in (entry, *entry.subcommands):
        for option in one.options:
            assert option.hidden or option.help, f"{one.name} {option.spellings}"


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_an_example_is_a_command_line_of_its_command(name: str) -> None:
    command = load(COMMANDS[name], name)
    for line, what in EXAMPLES[name]:
        program, *words = shlex.split(line)
        assert program == name
        assert what.endswith(".")
        context = click.Context(
            command,
            info_name=name,
            resilient_parsing=True,
            help_option_names=list(HELP_OPTIONS),
        )
        left = command.make_parser(context).parse_args(expanded(words, command))[1]
        assert not left, line


def test_there_is_a_page_for_each_command() -> None:
    pages = manual_pages()
    assert {path.stem for path in pages} == {"ulvm", "ulvm.conf"} | {f"ulvm-{n}" for n in SHOWN}
    for text in pages.values():
        named = re.findall(r"ulvm\\?-[a-z]+", text.partition(".SH SEE ALSO")[2])
        assert {name.replace("\\", "") for name in named} <= {path.stem for path in pages}
    lvcreate = pages[Path("man8/ulvm-lvcreate.8")]
    sections = ("NAME", "SYNOPSIS", "DESCRIPTION", "USAGE", "OPTIONS", "EXAMPLES", "EXIT STATUS")
    for section in (*sections, "ENVIRONMENT", "SEE ALSO"):
        assert f"\n.SH {section}\n" in lvcreate
    for option in ENTRIES["lvcreate"].options:
        if not option.hidden:
            assert option.spellings[-1].replace("-", "\\-") in lvcreate


@needs.program("groff")
def test_pages_are_well_formed(tmp_path: Path) -> None:
    """groff has nothing to say of any page but that a long word does not fit a line."""
    pages = manual_pages()
    for path, text in pages.items():
        place = tmp_path / path.name
        place.write_text(text, encoding="utf-8")
    files = sorted(tmp_path.iterdir())
    done = subprocess.run(
        ["groff", "-man", "-ww", "-Tutf8", "-P-cbou", *files],
        capture_output=True,
        text=True,
        check=True,
    )
    assert [
        x for x in done.stderr.splitlines() if not x.endswith((" adjust line", " break line"))
    ] == []
    assert "ULVM-LVS(8)" in done.stdout
    # What is typed comes out as it is typed.
    assert "lvs -o +snap_percent,origin -S 'lv_attr=~^s'" in done.stdout
    assert "devices/filter" in done.stdout


def test_help_and_page_are_made_of_the_same_text(capsys: pytest.CaptureFixture[str]) -> None:
    page = manual_pages()[Path("man8/ulvm-vgreduce.8")]
    assert main(["vgreduce", "--longhelp"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for line, what in EXAMPLES["vgreduce"]:
        assert line in shown
        assert what in shown
        assert what in page
    for option in ENTRIES["vgreduce"].options:
        if not option.hidden:
            assert " ".join(option.help.split()) in shown
            assert option.help.split()[0] in page


def test_all_of_it_has_a_place() -> None:
    files = shared_files()
    assert Path("share/man/man8/ulvm.8") in files
    assert Path("share/bash-completion/completions/ulvm") in files
    assert Path("share/zsh/site-functions/_ulvm") in files
    assert Path("share/fish/vendor_completions.d/ulvm.fish") in files


# -- completion -----------------------------------------------------------------------------------

_ASK_BASH = """
. "$SCRIPT"
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
compopt() { :; }
_ulvm
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three scripts, and a program `ulvm` that they may ask."""
    folder = tmp_path_factory.mktemp("completion")
    for shell in ("bash", "zsh", "fish"):
        (folder / shell).write_text(completion_script(shell, links=True))
    program = folder / "ulvm"
    program.write_text(
        '#!/bin/sh\ncase "$*" in *lv_full_name*) echo "  vg0 vg0/data";; vgs*) echo "  vg0";; '
        'pvs*) echo "  /dev/sdx";; dmsetup*) echo vg0-data;; esac\n'
    )
    program.chmod(0o755)
    (folder / "disk.img").touch()
    return folder


def _bash(scripts: Path, line: str) -> list[str]:
    """What bash would offer for the last word."""
    done = subprocess.run(
        ["bash", "-c", _ASK_BASH, "bash", *line.split(" ")],
        capture_output=True,
        text=True,
        check=True,
        cwd=scripts,
        env={**os.environ, "SCRIPT": "bash", "PATH": f"{scripts}:{os.environ['PATH']}"},
    )
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("ulvm lvcr", ["lvcreate"]),
        ("ulvm lvcreate --snap", ["--snapshot"]),
        ("lvcreate --snap", ["--snapshot"]),
        ("ulvm vgchange --alloc c", ["contiguous", "cling"]),
        ("ulvm daemon st", ["status", "stop"]),
        ("ulvm vgchange v", ["vg0"]),
        ("lvremove v", ["vg0", "vg0/data"]),
        ("ulvm pvcreate disk", ["disk.img"]),
        ("ulvm help lvcr", ["lvcreate"]),
        ("lvs -o +lv_name,vg_fr", ["+lv_name,vg_free"]),
        ("lvs -S lv_at", ["lv_attr"]),
        ("lvs --units ", ["g"]),
        ("lvcreate -an -L 1g vg0/", ["vg0/data"]),
        ("vgextend vg0 /dev/s", ["/dev/sdx"]),
        ("ulvm dmsetup rem", ["remove"]),
        ("dmsetup remove v", ["vg0-data"]),
        ("lvmconfig activation/snapshot_auto", ["activation/snapshot_autoextend_percent"]),
    ],
)
def test_bash_offers(scripts: Path, line: str, offered: list[str]) -> None:
    assert sorted(set(offered) - set(_bash(scripts, line))) == []
    assert all(word.startswith(line.rpartition(" ")[2]) for word in _bash(scripts, line))


def test_bash_runs_nothing_that_stands_in_a_name(scripts: Path, tmp_path: Path) -> None:
    name = "/img/$(touch ran) `touch ran`"
    (tmp_path / "ulvm").write_text(f"#!/bin/sh\nprintf '  %s   \\n' '{name}' '/img/b'\n")
    (tmp_path / "ulvm").chmod(0o755)
    (tmp_path / "bash").write_text((scripts / "bash").read_text())
    offered = _bash(tmp_path, "ulvm pvs /img/")
    assert not (tmp_path / "ran").exists()
    # What is offered comes onto the command line, and is a word of it.
    assert shlex.split(" ".join(offered)) == [name, "/img/b"]
    assert _bash(tmp_path, "ulvm pvs /img/b") == ["/img/b"]


@needs.program("zsh")
def test_zsh_understands_its_script(scripts: Path) -> None:
    done = subprocess.run(
        ["zsh", "-n", scripts / "zsh"], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    text = (scripts / "zsh").read_text()
    assert text.startswith("#compdef ulvm ")
    assert " lvcreate " in text.splitlines()[0]
    assert re.search(r"^    lvcreate\) _arguments", text, re.MULTILINE)


_ASK_ZSH = """
compadd() { print -r -- ${(P)argv[-1]} }
_describe() { : }
words=(ulvm) CURRENT=2
source ./zsh
for kind in groups volumes disks devices; do _ulvm_$kind; done
"""


@needs.program("zsh")
def test_zsh_asks_for_names(scripts: Path) -> None:
    done = subprocess.run(
        ["zsh", "-fc", _ASK_ZSH.replace("_ulvm_$kind", "_ulvm_$kind 2>/dev/null")],
        capture_output=True,
        text=True,
        check=False,
        cwd=scripts,
        env={**os.environ, "PATH": f"{scripts}:{os.environ['PATH']}"},
    )
    assert done.stdout.split("\n")[:4] == ["vg0", "vg0 vg0/data", "/dev/sdx", "vg0-data"]


@pytest.fixture
def odd_names(scripts: Path, tmp_path: Path) -> Path:
    """The scripts beside a program that knows of two PVs, one of which has an odd name."""
    (tmp_path / "ulvm").write_text("#!/bin/sh\nprintf '  %s   \\n' '/img/a  $(b) c' '/img/d'\n")
    (tmp_path / "ulvm").chmod(0o755)
    for shell in ("zsh", "fish"):
        (tmp_path / shell).write_text((scripts / shell).read_text())
    return tmp_path


def _lines(folder: Path, *words: str) -> list[str]:
    done = subprocess.run(
        words,
        capture_output=True,
        text=True,
        check=True,
        cwd=folder,
        env={**os.environ, "HOME": str(folder), "PATH": f"{folder}:{os.environ['PATH']}"},
    )
    return done.stdout.splitlines()


@needs.program("zsh")
def test_zsh_offers_names_with_blanks(odd_names: Path) -> None:
    asked = _ASK_ZSH.replace("print -r --", "print -rl --").replace("groups volumes", "")
    assert _lines(odd_names, "zsh", "-fc", f"_files() {{ : }}\n{asked}")[:2] == [
        "/img/a  $(b) c",
        "/img/d",
    ]


@needs.program("fish")
def test_fish_offers_names_with_blanks(odd_names: Path) -> None:
    asked = "source fish; complete -C 'ulvm vgextend vg0 /img/'"
    assert _lines(odd_names, "fish", "--no-config", "-c", asked) == ["/img/a  $(b) c", "/img/d"]


@needs.program("fish")
def test_fish_offers(scripts: Path) -> None:
    lines = ("ulvm lvcr", "lvcreate --snap", "ulvm vgchange --alloc c", "ulvm vgremove v")
    lines += ("lvs -o +lv_name,vg_fr", "vgextend vg0 /dev/s")
    asked = "; ".join(f"echo (complete -C '{line}')" for line in lines)
    done = subprocess.run(
        ["fish", "--no-config", "-c", f"source fish; {asked}"],
        capture_output=True,
        text=True,
        check=True,
        cwd=scripts,
        env={**os.environ, "HOME": str(scripts), "PATH": f"{scripts}:{os.environ['PATH']}"},
    )
    assert done.stderr == ""
    answers = done.stdout.splitlines()
    for answer, wanted in zip(
        answers,
        ("lvcreate", "--snapshot", "contiguous", "vg0", "+lv_name,vg_free", "/dev/sdx"),
        strict=True,
    ):
        assert wanted in answer


# -- links ----------------------------------------------------------------------------------------


def test_links_stand_for_lvms_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "bin"
    assert main(["links", str(folder)]) == 0
    assert {path.name for path in folder.iterdir()} == set(link_names())
    assert {"lvm", "lvs", "vgcfgrestore", "dmsetup"} <= set(link_names())
    done = subprocess.run([folder / "lvs", "--version"], capture_output=True, text=True, check=True)
    assert "ulvm version" in done.stdout
    assert main(["links", "--remove", str(folder)]) == 0
    assert list(folder.iterdir()) == []
    capsys.readouterr()


def test_what_is_not_ulvms_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "lvs").write_text("mine")
    assert main(["links", str(tmp_path)]) == 5
    assert f"{tmp_path}/lvs is not a link to ulvm; it stays." in capsys.readouterr().err
    assert (tmp_path / "lvs").read_text() == "mine"
    assert main(["links", "--remove", str(tmp_path)]) == 5
    assert [path.name for path in tmp_path.iterdir()] == ["lvs"]


@pytest.mark.parametrize(
    ("name", "words", "counts"),
    [("lvs", [], True), ("lvm", ["lvs"], True), ("ulvm", ["formats"], False)],
)
def test_lvms_variables_count_under_lvms_names(
    tmp_path: Path, name: str, words: list[str], counts: bool
) -> None:
    (tmp_path / "lvm.conf").write_text("nosuch { }")
    program = tmp_path / name
    program.write_text(
        f"#!{sys.executable}\nimport sys; from ulvm.cli.main import main; sys.exit(main())\n"
    )
    program.chmod(0o755)
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("ULVM", "XDG"))}
    environ |= {
        "HOME": str(tmp_path / "home"),
        "LVM_SYSTEM_DIR": str(tmp_path),
        "ULVM_RUN_DIR": str(tmp_path / "run"),
    }
    done = subprocess.run(
        [program, *words], capture_output=True, text=True, env=environ, check=True
    )
    assert ('section "nosuch" unknown' in done.stderr) == counts
