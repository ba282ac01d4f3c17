"""Compares what two sides did in a script."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.kernel.commands.differences import Difference, apply
from tests.kernel.commands.plain import Outcome
from tests.kernel.commands.script import Script

__all__ = ["differing", "read_pending", "write_pending"]

_PENDING = Path(__file__).parent / "pending.txt"


def differing(
    script: Script, ours: Sequence[Outcome], theirs: Sequence[Outcome], used: set[Difference]
) -> dict[str, str]:
    """The steps in which the sides differ: under `script:number: line` the lines that do, LVM2's
    with - and ulvm's with +."""
    found = {}
    for number, (step, own, other) in enumerate(zip(script.steps, ours, theirs, strict=True), 1):
        if not apply(step.line, own, other, used):
            lines = difflib.ndiff(_lines(other), _lines(own))
            shown = [f"    {line}" for line in lines if not line.startswith(("?", "  "))]
            found[f"{script.name}:{number}: {step.line}"] = "\n".join(shown)
    return found


def read_pending() -> list[str]:
    """Steps that are known to differ where they should not, as `differing` names them."""
    return _PENDING.read_text().splitlines() if _PENDING.exists() else []


def write_pending(steps: Iterable[str]) -> None:
    _PENDING.write_text("".join(f"{step}\n" for step in steps))


def _lines(outcome: Outcome) -> list[str]:
    return [
        f"exit code {outcome.rc}",
        *(f"out: {line}" for line in outcome.out),
        *(f"err: {line}" for line in outcome.err),
        *(f"disk: {line}" for line in outcome.disks),
    ]
