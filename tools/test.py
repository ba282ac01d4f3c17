"""All tests. Those in virtual machines have a process of their own, and what it says comes last: a
machine keeps one core busy, and the other tests hardly more than one. The lives that change hands
come behind the others: a merge that is cut in its midst wants a machine that is not held up."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MACHINES = "tests/kernel"
ALONE = "tests/kernel/test_takeover.py"


def main() -> int:
    log = ROOT / "build" / "kernel.log"
    log.parent.mkdir(exist_ok=True)
    pytest = [sys.executable, "-m", "pytest"]
    packages = sorted(f"tests/{path.parent.name}" for path in ROOT.glob("tests/*/__init__.py"))
    packages.remove(MACHINES)
    with log.open("wb") as stream:
        machines = [*pytest, MACHINES, f"--ignore={ALONE}"]
        runs = [
            subprocess.Popen(machines, cwd=ROOT, stdout=stream, stderr=stream),
            subprocess.Popen([*pytest, *packages, ALONE], cwd=ROOT),
        ]
        for run in runs:
            while run.poll() is None:
                with contextlib.suppress(KeyboardInterrupt):  # they have got it too, and tidy up
                    run.wait()
    print(log.read_text(errors="replace"))
    return max(abs(run.returncode) for run in runs)


if __name__ == "__main__":
    sys.exit(main())
