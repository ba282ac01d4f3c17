"""All tests. Those in virtual machines have a process of their own, and what it says comes last: a
machine keeps one core busy, and the other tests hardly more than one."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MACHINES = "tests/kernel"


def main() -> int:
    log = ROOT / "build" / "kernel.log"
    log.parent.mkdir(exist_ok=True)
    pytest = [sys.executable, "-m", "pytest"]
    with log.open("wb") as stream:
        runs = [
            subprocess.Popen([*pytest, MACHINES], cwd=ROOT, stdout=stream, stderr=stream),
            subprocess.Popen([*pytest, f"--ignore={MACHINES}"], cwd=ROOT),
        ]
        for run in runs:
            while run.poll() is None:
                with contextlib.suppress(KeyboardInterrupt):  # they have got it too, and tidy up
                    run.wait()
    print(log.read_text(errors="replace"))
    return max(abs(run.returncode) for run in runs)


if __name__ == "__main__":
    sys.exit(main())
