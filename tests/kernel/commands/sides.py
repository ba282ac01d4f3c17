"""Runs scripts on either side: LVM2 in the virtual machine, ulvm in a namespace of this machine."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tests.kernel import vm
from tests.kernel.commands import runner
from tests.kernel.commands.plain import Outcome, plain
from tests.kernel.commands.script import DISKS, Script

__all__ = ["RECORDED", "load", "ours", "save", "theirs"]

RECORDED = Path(__file__).parent / "recorded"
_HERE = Path(__file__).parent

_STEPS_A_BOOT = 500
_BOOT_SECONDS = 2400

Outcomes = dict[str, list[Outcome]]
"""Of the steps, under the scripts' names."""


def theirs(scripts: Sequence[Script]) -> Outcomes:
    """What LVM2 does, with a boot for some hundreds of steps each."""
    found: Outcomes = {}
    batch: list[Script] = []
    for script in [*scripts, None]:
        if batch and (script is None or _steps([*batch, script]) > _STEPS_A_BOOT):
            found |= _boot(batch)
            batch = []
        if script is not None:
            batch.append(script)
    return found


def _steps(scripts: Iterable[Script]) -> int:
    return sum(len(script.steps) for script in scripts)


def _boot(scripts: Sequence[Script]) -> Outcomes:
    files = {"job.json": _job(scripts).encode(), "runner.py": Path(runner.__file__).read_bytes()}
    with tempfile.TemporaryDirectory(prefix="ulvm-judge") as name:
        drives = []
        for disk, size in DISKS.items():
            drives.append(Path(name) / disk)
            with drives[-1].open("xb") as file:
                file.truncate(size)
        command = "cd /tmp && python3 /files/runner.py /files/job.json 2>/dev/console"
        done = vm.run({"run": command}, drives, timeout=_BOOT_SECONDS, files=files, python=True)[
            "run"
        ]
    if done.rc:
        raise RuntimeError(f"the runner failed: {done}")
    return _read(done.stdout)


def ours(scripts: Sequence[Script]) -> Outcomes:
    """What ulvm does; needs root, for the namespace, and loop devices."""
    with tempfile.TemporaryDirectory(prefix="ulvm") as name:
        job = Path(name) / "job.json"
        job.write_text(_job(scripts))
        try:
            done = subprocess.run(
                [
                    "unshare",
                    "--mount",
                    "--uts",
                    sys.executable,
                    str(_HERE / "ours.py"),
                    str(job),
                    name,
                ],
                cwd=name,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
        finally:
            for image in DISKS:
                _detach(Path(name) / image)
    if done.returncode:
        raise RuntimeError(f"the runner failed: {done.stderr}\n{done.stdout[-2000:]}")
    return _read(done.stdout)


def _detach(image: Path) -> None:
    listed = subprocess.run(
        ["losetup", "--noheadings", "--output", "NAME", "--associated", image],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    for loop in listed.split():
        subprocess.run(["losetup", "--detach", loop], check=True)


def save(script: Script, outcomes: Iterable[Outcome]) -> None:
    """Keep what LVM2 did, a line a step."""
    RECORDED.mkdir(exist_ok=True)
    lines = (
        json.dumps([step.line, *outcome], ensure_ascii=False)
        for step, outcome in zip(script.steps, outcomes, strict=True)
    )
    (RECORDED / f"{script.name}.json").write_text("".join(f"{line}\n" for line in lines))


def load(script: Script) -> list[Outcome] | None:
    """What LVM2 did; None when it was not recorded, or for another text of the script."""
    path = RECORDED / f"{script.name}.json"
    if not path.exists():
        return None
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    if [line for line, *_ in entries] != [step.line for step in script.steps]:
        return None
    return [Outcome(*rest) for _, *rest in entries]


def _job(scripts: Iterable[Script]) -> str:
    steps = {script.name: [step.job() for step in script.steps] for script in scripts}
    return json.dumps({"disks": DISKS, "scripts": steps})


def _read(text: str) -> Outcomes:
    found: dict[str, list[dict[str, Any]]] = {}
    for line in text.splitlines():
        outcome = json.loads(line)
        found.setdefault(outcome["script"], []).append(outcome)
    return {name: plain(outcomes) for name, outcomes in found.items()}
