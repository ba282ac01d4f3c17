"""The user's commands around a snapshot: order, failure, and that resume always runs."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tests import needs
from ulvm.backup import groups
from ulvm.backup.quiesce import commands
from ulvm.backup.quiesce.commands import quiesced
from ulvm.errors import RefusedError


def run(
    log: Path, quiesce: str | None, resume: str | None, *, timeout: float = 30
) -> tuple[str, list[str]]:
    """What was written to the log, and the warnings."""
    warnings: list[str] = []
    environment = {"LOG": str(log), "NAME": "vg/db"}
    with (
        quiesced(quiesce, resume, environment=environment, warn=warnings.append, timeout=timeout),
        log.open("a") as file,
    ):
        file.write("snapshot\n")
    return log.read_text(), warnings


def test_order_and_environment(tmp_path: Path) -> None:
    text, _ = run(tmp_path / "log", 'echo "q $NAME" >>$LOG', "echo r >>$LOG")
    assert text == "q vg/db\nsnapshot\nr\n"


def test_without_commands_only_the_block_runs(tmp_path: Path) -> None:
    assert run(tmp_path / "log", None, None)[0] == "snapshot\n"


def test_resume_alone(tmp_path: Path) -> None:
    assert run(tmp_path / "log", None, "echo r >>$LOG")[0] == "snapshot\nr\n"


def test_one_shell_so_a_session_can_hold_a_lock(tmp_path: Path) -> None:
    """What MySQL's FLUSH TABLES WITH READ LOCK needs: a client that lives in between."""
    quiesce = "(echo locked >>$LOG; exec sleep 100) & holder=$!; sleep 0.2"
    resume = "kill -0 $holder && echo held >>$LOG; kill $holder"
    text, _ = run(tmp_path / "log", quiesce, resume)
    assert text == "locked\nsnapshot\nheld\n"


@pytest.mark.parametrize("quiesce", ["false", "exit 3", "exit 0", "kill -9 $$", "if", "nosuchcmd"])
def test_a_failing_quiesce_gives_up_but_resumes(tmp_path: Path, quiesce: str) -> None:
    log = tmp_path / "log"
    with pytest.raises(RefusedError, match="no snapshot was taken"):
        run(log, quiesce, "echo r >>$LOG")
    assert log.read_text() == "r\n"


def test_a_shell_that_cannot_be_started_leaves_no_pipe(tmp_path: Path) -> None:
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="Argument list too long"):
        run(tmp_path / "log", ":" * (200 << 10), "echo r >>$LOG")
    assert set(os.listdir("/proc/self/fd")) <= before


def test_a_hanging_quiesce_is_given_up(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with pytest.raises(RefusedError, match=r"no answer in 0.3 s"):
        run(log, "sleep 60", "echo r >>$LOG", timeout=0.3)
    assert log.read_text() == "r\n"


def test_resume_runs_when_all_that_quiesce_started_has_ended(tmp_path: Path) -> None:
    """A program that takes its time over SIGTERM may still freeze what resume has thawed."""
    log = tmp_path / "log"
    stubborn = """sh -c 'trap "" TERM; echo q >>$LOG; sleep 2; echo frozen >>$LOG'; :"""
    with pytest.raises(RefusedError, match=r"no answer in 1 s"):
        run(log, stubborn, "echo r >>$LOG", timeout=1)
    assert log.read_text() == "q\nfrozen\nr\n"


NOBODY = 65534


def to_another_user(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let a function of `commands` meet what root runs as another user would: what sudo has started
    is in the group of a user's shell as well."""
    function = getattr(commands, name)

    def call(process: subprocess.Popen[bytes]) -> object:
        os.setresuid(NOBODY, NOBODY, 0)
        try:
            return function(process)
        finally:
            os.setresuid(0, 0, 0)

    monkeypatch.setattr(commands, name, call)


@needs.root
def test_resume_runs_though_quiesce_cannot_be_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "_GRACE", 0.2)
    to_another_user(monkeypatch, "end_group")
    log = tmp_path / "log"
    with pytest.raises(RefusedError, match=r"no answer in 2 s.*no snapshot was taken"):
        run(log, "echo $$ >>$LOG; exec sleep 100", "echo r >>$LOG", timeout=2)
    pid, resumed = log.read_text().split()
    assert resumed == "r"
    os.kill(int(pid), signal.SIGKILL)  # it was there to the end


@needs.root
def test_a_resume_that_cannot_be_killed_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "_KILL_SECONDS", 0.2)
    to_another_user(monkeypatch, "_kill")
    log = tmp_path / "log"
    with pytest.raises(RefusedError, match=r"did not end in 2 s and could not be killed"):
        run(log, None, "echo $$ >>$LOG; exec sleep 100", timeout=2)
    os.kill(int(log.read_text().split()[-1]), signal.SIGKILL)


def test_a_failing_resume_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="resume command failed with status 7"):
        run(tmp_path / "log", ":", "exit 7")


def test_a_failing_resume_does_not_hide_the_first_error(tmp_path: Path) -> None:
    warnings: list[str] = []
    with (
        pytest.raises(KeyError),
        quiesced(":", "exit 7", environment={}, warn=warnings.append),
    ):
        raise KeyError("the block's own")
    assert warnings == ["The resume command failed with status 7."]


def test_a_resume_that_cannot_be_run_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a warning: why there is no snapshot is what the error says."""
    end_group = groups.end_group

    def refuse(*_words: object, **_options: object) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    def end(process: subprocess.Popen[bytes]) -> None:
        end_group(process)
        monkeypatch.setattr(subprocess, "Popen", refuse)

    monkeypatch.setattr(commands, "end_group", end)
    warnings: list[str] = []
    with (
        pytest.raises(RefusedError, match="no snapshot was taken"),
        quiesced("exit 3", ":", environment={}, warn=warnings.append),
    ):
        pass
    assert warnings == ["The resume command could not be run: Cannot allocate memory."]


def test_what_a_killed_shell_has_started_ends_before_resume_runs(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with pytest.raises(RefusedError, match="no snapshot was taken"):
        run(log, "(sleep 0.5; echo frozen >>$LOG) & kill -9 $$", "echo r >>$LOG")
    time.sleep(0.7)
    assert log.read_text() == "r\n"


def test_resume_runs_after_the_shell_was_killed_and_the_backup_is_given_up(tmp_path: Path) -> None:
    """The snapshot may be from after the shell's end, and with it that of the lock it held."""
    log = tmp_path / "log"
    environment = {"LOG": str(log)}

    def kill_in_between() -> None:
        with quiesced("echo $$ >$LOG", "echo r >>$LOG", environment=environment, warn=print):
            os.kill(int(log.read_text()), signal.SIGKILL)
            time.sleep(0.1)

    with pytest.raises(RefusedError, match="let go too soon"):
        kill_in_between()
    assert log.read_text().endswith("\nr\n")


PROGRAM = textwrap.dedent(
    """
    import sys, time
    from ulvm.backup.interrupts import Interrupted, interruptible
    from ulvm.backup.quiesce.commands import quiesced
    try:
        with interruptible(), quiesced(
            sys.argv[1], "sleep 0.3; echo r >>$LOG", environment={}, warn=print
        ):
            time.sleep(60)
    except Interrupted as stop:
        sys.exit(stop.exit_code)
    """
)


def start(log: Path, quiesce: str) -> subprocess.Popen[bytes]:
    """A program in the middle of the quiesce command, or behind it."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, quiesce],
        env={**os.environ, "LOG": str(log)},
        start_new_session=True,
    )
    while not log.exists():
        time.sleep(0.02)
    time.sleep(0.2)
    return process


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("quiesce", ["echo q >>$LOG", "echo q >>$LOG; sleep 60"])
def test_resume_runs_after_a_signal(tmp_path: Path, signum: signal.Signals, quiesce: str) -> None:
    """In the middle of the snapshot, and in the middle of the quiesce command itself."""
    log = tmp_path / "log"
    process = start(log, quiesce)
    os.killpg(process.pid, signum)  # as a terminal does: the whole foreground group
    time.sleep(0.1)
    os.killpg(process.pid, signum)  # and the impatient second one, during resume
    assert process.wait(20) == 128 + signum
    assert log.read_text() == "q\nr\n"


@pytest.mark.parametrize("quiesce", ["echo q >>$LOG", "echo q >>$LOG; sleep 1"])
def test_resume_runs_after_kill_9(tmp_path: Path, quiesce: str) -> None:
    log = tmp_path / "log"
    process = start(log, quiesce)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 20
    while log.read_text() != "q\nr\n":
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
