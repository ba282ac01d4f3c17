"""All tests, in two processes, since each keeps hardly more than one core busy. Those in virtual
machines, of crashes and of the parts are beside the others, and what they say comes last. The lives
that change hands come behind the others: a merge that is cut in its midst wants a machine that is
not held up."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BESIDE = ["tests/kernel", "tests/crash", "tests/unit"]
ALONE = "tests/kernel/test_takeover.py"


def main() -> int:
    log = ROOT / "build" / "beside.log"
    log.parent.mkdir(exist_ok=True)
    pytest = [sys.executable, "-m", "pytest"]
    packages = {f"tests/{path.parent.name}" for path in ROOT.glob("tests/*/__init__.py")}
    others = sorted(packages.difference(BESIDE))
    with log.open("wb") as stream:
        beside = [*pytest, *BESIDE, f"--ignore={ALONE}"]
        runs = [
            subprocess.Popen(beside, cwd=ROOT, stdout=stream, stderr=stream),
            subprocess.Popen([*pytest, *others, ALONE], cwd=ROOT),
        ]
        for run in runs:
            while run.poll() is None:
                with contextlib.suppress(KeyboardInterrupt):  # they have got it too, and tidy up
                    run.wait()
    print(log.read_text(errors="replace"))
    return max(abs(run.returncode) for run in runs)


if __name__ == "__main__":
    sys.exit(main())
