"""Commands that the daemon runs beside itself: their end is never waited for without a limit."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import ended
from ulvm.daemon.commands import end_commands, start_command

STUBBORN = """
import signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open(sys.argv[1], "w").close()
print("ready", flush=True)
time.sleep(1000)
"""


def test_what_does_not_end_by_itself_is_killed(
    short_tmp: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sign = short_tmp / "ready"
    stubborn = start_command([sys.executable, "-c", STUBBORN, str(sign)])
    while not sign.exists():
        assert stubborn.poll() is None
    obedient = start_command(["sleep", "1000"])
    through = start_command(["true"])
    through.wait()
    end_commands([stubborn, obedient, through], patience=0.5)
    assert stubborn.returncode == -signal.SIGKILL
    assert obedient.returncode == -signal.SIGTERM
    assert through.returncode == 0
    assert f"process {stubborn.pid} does not end and is killed" in caplog.text


class Held(subprocess.Popen[bytes]):
    """As a process that waits in the kernel for what no signal ends: a suspended volume."""

    held = True

    def kill(self) -> None:
        if not self.held:
            super().kill()


def test_one_that_cannot_be_killed_is_left(caplog: pytest.LogCaptureFixture) -> None:
    held = Held([sys.executable, "-c", STUBBORN, "/dev/null"], stdout=subprocess.PIPE)
    assert held.stdout is not None
    behind = start_command(["sleep", "1000"])
    try:
        assert held.stdout.readline()
        ended(lambda: end_commands([held, behind], patience=0.2), seconds=10)
        assert held.poll() is None
        assert behind.returncode == -signal.SIGTERM
        assert f"process {held.pid} is held by a request" in caplog.text
    finally:
        held.held = False
        held.kill()
        held.communicate()
        behind.wait()
