"""Handing a snapshot to a program: what it sees, and that nothing of it stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from ulvm.backup.sinks.command import run_command, words_in
from ulvm.errors import UsageError


def test_words() -> None:
    assert words_in("tar -C {mount} -cf - . | ssh h 'cat >{host}'") == {"mount"}
    assert words_in("nbdcopy {nbd} - > x; stat {device}") == {"nbd", "device"}


@pytest.mark.parametrize("command", ["", "tar cf x .", "echo {mnt} ${HOME} {}"])
def test_a_command_without_the_snapshot_is_a_mistake(command: str) -> None:
    with pytest.raises(UsageError, match="none of"):
        words_in(command)


def test_values_are_quoted_and_other_braces_stay(tmp_path: Path) -> None:
    out = tmp_path / "out"
    values = {"device": "/a b/$(x)'y"}
    status = run_command(
        'printf "%s|%s|%s" {device} {other} "${HOME:+{}" >$OUT', values, {"OUT": str(out)}
    )
    assert status == 0
    assert out.read_text() == "/a b/$(x)'y|{other}|{"


@pytest.mark.parametrize(("command", "status"), [("exit 3", 3), ("kill -9 $$", 137), (":", 0)])
def test_status(command: str, status: int) -> None:
    assert run_command(command, {}, {}) == status


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


def test_background_jobs_are_ended(tmp_path: Path) -> None:
    out = tmp_path / "pid"
    assert run_command("sleep 100 & echo $! >$OUT", {}, {"OUT": str(out)}) == 0
    assert not alive(int(out.read_text()))


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_whole_pipeline(tmp_path: Path, signum: signal.Signals) -> None:
    program = textwrap.dedent(
        """
        import sys
        from ulvm.backup.interrupts import Interrupted, interruptible
        from ulvm.backup.sinks.command import run_command
        try:
            with interruptible():
                run_command("sleep 100 | (echo $$ >$OUT; cat) | cat", {}, {"OUT": sys.argv[1]})
        except Interrupted as stop:
            sys.exit(stop.exit_code)
        """
    )
    out = tmp_path / "pid"
    process = subprocess.Popen([sys.executable, "-c", program, str(out)], env=os.environ)
    while not (out.exists() and out.read_text()):
        time.sleep(0.02)
    shell = int(out.read_text())
    process.send_signal(signum)
    assert process.wait(20) == 128 + signum
    assert not alive(shell)
