"""The shell: how lines are split, what is run, what it ends with."""

from __future__ import annotations

import io
import os
import pty
import select
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from ulvm.backup import restoring
from ulvm.backup.interrupts import Interrupted
from ulvm.cli import demo
from ulvm.cli.main import main
from ulvm.cli.shell import candidates, run_shell, split_line

KNOWN = ("lvs", "lvscan", "vgs", "help")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("lvs -o name", ["lvs", "-o", "name"]),
        ("  lvs\t-a  \n", ["lvs", "-a"]),
        ("""lvs -S "a b" 'c "d'""", ["lvs", "-S", "a b", 'c "d']),
        ("lvs -S'a b'c", ["lvs", "-Sa bc"]),
        ("lvs ''", ["lvs", ""]),
        (r"vgs a\ b", ["vgs", "a\\", "b"]),
        ('lvs "a b', ["lvs", "a b"]),
        ("# nothing", []),
        ("lvs # nothing", ["lvs"]),
        ("lvs a#b", ["lvs", "a#b"]),
        ("", []),
    ],
)
def test_a_line_is_split_as_lvm_splits_it(line: str, words: Sequence[str]) -> None:
    assert split_line(line) == list(words)


def _typed(monkeypatch: pytest.MonkeyPatch, text: str) -> tuple[int, list[list[str]]]:
    ran: list[list[str]] = []

    def run(name: str, arguments: list[str]) -> int:
        ran.append([name, *arguments])
        return 5

    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    return run_shell(run, KNOWN, program="ulvm", history=None, history_size=0), ran


def test_commands_run_until_it_is_quit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rc, ran = _typed(monkeypatch, "lvs a\n\nlvm vgs\n# c\nnosuch\nquit\nlvs b\n")
    assert (rc, ran) == (0, [["lvs", "a"], ["vgs"]])
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "  No such command 'nosuch'.  Try 'help'.\n  Exiting.\n"


def test_the_end_of_the_input_ends_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rc, ran = _typed(monkeypatch, "lvs")
    assert (rc, ran, capsys.readouterr().out) == (0, [["lvs"]], "\n")


def test_ulvm_alone_is_the_shell(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("ULVM_SYSTEM_DIR", str(tmp_path))
    monkeypatch.setenv("ULVM_RUN_DIR", str(tmp_path / "run"))
    monkeypatch.setattr(sys, "stdin", io.StringIO("formats\nvgs nosuch\nlastlog\n"))
    assert main([]) == 0
    said = capsys.readouterr()
    assert said.out == "  lvm2\n\n"
    assert 'Volume group "nosuch" not found' in said.err
    assert "No log report stored." in said.err


def test_an_interrupted_backup_does_not_end_the_shell(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise Interrupted(signal.SIGTERM)

    monkeypatch.setenv("ULVM_SYSTEM_DIR", str(tmp_path))
    monkeypatch.setenv("ULVM_RUN_DIR", str(tmp_path / "run"))
    monkeypatch.setattr(restoring, "verify_backup", interrupted)
    monkeypatch.setattr(demo, "run", interrupted)
    assert main(["verify", "x"]) == 143
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"verify x\ndemo --dir {tmp_path}/d\nformats\n"))
    assert main([]) == 0
    said = capsys.readouterr()
    assert said.out == "  lvm2\n\n"
    assert said.err.splitlines() == [
        "  Interrupted (SIGTERM): nothing was proved.",
        "  Interrupted (SIGTERM): nothing was proved.",
        f"  Interrupted (SIGTERM); {tmp_path}/d is left.",
    ]


def test_completion(tmp_path: Path) -> None:
    def names(kind: str) -> list[str]:
        return {"volumes": ["vg", "vg/data"], "fields": ["vg_free", "vg_size"]}.get(kind, [])

    def offered(text: str, *before: str) -> list[str]:
        return candidates(text, before, KNOWN, names)

    assert offered("lv") == ["lvs ", "lvscan "]
    assert offered("q") == ["quit "]
    assert offered("v", "help") == ["vgs "]
    assert "--noheadings " in offered("--noh", "lvs")
    assert offered("vg/", "lvremove", "-f") == ["vg/data "]
    assert offered("+vg_free,vg_s", "vgs", "-o") == ["+vg_free,vg_size"]
    assert offered("c", "lvchange", "--alloc") == ["contiguous ", "cling ", "cling_by_tags "]
    (tmp_path / "disk.img").touch()
    assert offered(f"{tmp_path}/d", "pvcreate") == [f"{tmp_path}/disk.img"]
    assert offered("x", "nosuch") == []


@pytest.mark.parametrize(
    ("script", "rc", "said"),
    [
        ("#!/usr/bin/ulvm\nformats\n\n# no\nformats\nquit\nlvs\n", 0, "lvm2 lvm2"),
        ("#!x\nformats\nlvs --nosuch\nformats\n", 3, "lvm2"),
        ("#!x\nformats\nnosuch a\nformats\n", 2, "lvm2"),
        ("#!x\n", 2, ""),
        ("formats\n", 2, ""),
    ],
)
def test_a_script_ends_where_a_command_fails(
    tmp_path: Path, script: str, rc: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "script"
    path.write_text(script)
    assert main([str(path)]) == rc
    assert capsys.readouterr().out.split() == said.split()


def test_on_a_terminal_there_is_a_prompt_and_a_history(tmp_path: Path) -> None:
    child, terminal = pty.fork()
    if child == 0:
        environ = {
            **os.environ,
            "HOME": str(tmp_path),
            "TERM": "dumb",
            "ULVM_SYSTEM_DIR": str(tmp_path / "etc"),
            "ULVM_RUN_DIR": str(tmp_path / "run"),
        }
        os.execve(sys.executable, [sys.executable, "-m", "ulvm.cli.start"], environ)
    seen = ""
    for wanted, typed in (("ulvm> ", "formats\n"), ("lvm2", "form\t\n"), ("lvm2", "quit\n")):
        seen = _read_until(terminal, wanted, seen)
        os.write(terminal, typed.encode())
    _read_until(terminal, "Exiting.", seen)
    _, status = os.waitpid(child, 0)
    os.close(terminal)
    assert status == 0
    assert (tmp_path / ".ulvm_history").read_text().split() == ["formats", "formats", "quit"]


def _read_until(terminal: int, wanted: str, seen: str) -> str:
    """What came behind `wanted`."""
    end = time.monotonic() + 60
    while wanted not in seen:
        assert select.select([terminal], [], [], end - time.monotonic())[0], seen
        seen += os.read(terminal, 4096).decode()
    return seen.partition(wanted)[2]
