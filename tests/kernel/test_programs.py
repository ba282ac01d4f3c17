"""Random programs over the dm layer, on a real kernel and on ulvm: no difference may be left.

Compared after each step: the result code, what was read, and of every device its state, open
count, table and status; at the end the origin and every COW device, bit for bit. What is left out
stands in `LEFT_OUT`, with the reason. A difference is shrunk before it is shown; what was found,
and mended, is kept in `REGRESSIONS` and runs beside the random programs.
"""

from __future__ import annotations

import errno
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests import effort, needs
from tests.kernel import vm
from tests.kernel.program import REGION, SECTOR, Local, Program, make

pytestmark = [needs.qemu, pytest.mark.qemu, pytest.mark.timeout(effort.amount(900, 0))]

AGENT = Path(__file__).with_name("agent.py")
PROGRAMS, STEPS = effort.amount(24, 320), effort.amount(50, 100)
_PER_BOOT = 40

LEFT_OUT = {
    "the COW of a shorter snapshot behind its end": "chunks are copied whole, and what was written "
    "to that part of the origin meanwhile is a matter of time in the kernel; nobody can read it",
    "a flush of an invalid snapshot": "what was staged is lost, and ulvm says so; the kernel had "
    "written it, where nobody can read it any more",
    "what is staged, read below its origin": "it is there after a flush, as behind any write "
    "cache; such reads come behind one",
    "status lines and events while a merge is under way": "how far it got is a matter of time; its "
    "end counts",
    "the COW device of an invalid snapshot": "whether copies under way were still recorded is a "
    "matter of time in the kernel; nothing reads it any more",
    "a snapshot added without suspending its origin": "the kernel splits writes by the chunk sizes "
    "of the last resume and leaks new data into it; not generated",
    "a COW without room for two chunks": "the kernel writes a header before it refuses it, ulvm "
    "nothing; not generated",
    "programs that crash the kernel": "a few in a thousand steps make 6.1 corrupt its own memory; "
    "they are counted",
    "reads of a COW device beside its snapshot": "in the kernel they differ from run to run; what "
    "it holds counts in the end",
    "discards of parts of chunks": "the kernel states the granularity in bytes instead of sectors "
    "and drops parts by it; not generated",
}
"""Where the comparison does not look, and why."""


def _steps(*steps: list[Any]) -> Program:
    """A program after two bases: b of 100 sectors, c0 of 200."""
    first = [
        ["create", "b"], ["load", "b", [[0, 100, "linear", "{disk} 0"]]], ["resume", "b"],
        ["create", "c0"], ["load", "c0", [[0, 200, "linear", "{disk} 200"]]], ["resume", "c0"],
    ]  # fmt: skip
    return {
        "fill": [[0, 1, 100]],
        "regions": [["b", 0, 100], ["c0", 200, 200]],
        "steps": [*first, *steps],
    }


_ORIGIN = [[0, 100, "snapshot-origin", "{b}"]]
REGRESSIONS = {
    "a device without a table is resumed, suspended, resumed": _steps(
        ["create", "t"], ["resume", "t"], ["suspend", "t"], ["resume", "t"], ["remove", "t"]
    ),
    "I/O on a suspended device without a table fails": _steps(
        ["create", "t"], ["suspend", "t"], ["read", "t", 0, 1], ["write", "t", 0, 1, 7]
    ),
    "a device opens another once a mode": _steps(
        ["create", "o"], ["load", "o", _ORIGIN], ["resume", "o"], ["load", "o", _ORIGIN],
        ["create", "s"], ["load", "s", [[0, 100, "snapshot", "{b} {c0} P 8"]]], ["resume", "s"],
        ["load", "o", [[0, 100, "snapshot-merge", "{b} {c0} P 8"]]], ["clear", "o"],
        ["remove", "s"], ["remove", "o"],
    ),
    "a name that is taken counts before one that is not there": _steps(
        ["rename", "nope", "b"], ["rename", "nope", "free"], ["rename", "b", "b"]
    ),
    "a flush of a device without a table fails": _steps(
        ["create", "t"], ["flush", "t"], ["resume", "t"], ["flush", "t"],
        ["load", "t", [[0, 8, "linear", "{b} 0"]]], ["flush", "t"], ["resume", "t"], ["flush", "t"],
    ),
    "a message to a device without a table": _steps(
        ["create", "t"], ["message", "t", 0, "hello"], ["message", "b", 0, "hello"]
    ),
    "a number that no device has": _steps(
        ["create", "t"], ["load", "t", [[0, 8, "linear", "{nope} 0"]]],
        ["load", "t", [[0, 8, "snapshot", "{b} {nope} P 8"]]],
    ),
    "a device is suspended twice": _steps(
        ["suspend", "b"], ["suspend", "b"], ["resume", "b"], ["resume", "b"], ["read", "b", 0, 9]
    ),
    "an error target takes no discard": _steps(
        ["create", "t"],
        ["load", "t", [[0, 64, "linear", "{b} 0"], [64, 9, "error", ""]]], ["resume", "t"],
        ["discard", "t", 0, 64], ["read", "t", 0, 64], ["read", "t", 60, 8],
    ),
    "a device that never had a table cannot be opened, one without a live table can": _steps(
        ["create", "t"], ["create", "x"], ["load", "t", [[0, 8, "linear", "{x} 0"]]],
        ["load", "t", [[0, 8, "snapshot", "{b} {x} P 4"]]],
        ["load", "x", [[0, 50, "linear", "{b} 0"]]], ["load", "t", [[0, 8, "linear", "{x} 0"]]],
    ),
    "targets longer than their device": _steps(
        ["create", "t"], ["load", "t", [[0, 101, "snapshot-origin", "{b}"]]],
        ["load", "t", [[0, 101, "linear", "{b} 0"]]],
        ["load", "t", [[0, 101, "snapshot", "{b} {c0} P 4"]]],
        ["load", "t", [[0, 101, "snapshot-merge", "{b} {c0} P 4"]]],
        ["load", "t", [[0, 100, "snapshot", "{b} {c0} P 4"]]],
    ),
    "a table that became too long for its device, at load and at resume": _steps(
        ["create", "t"], ["load", "t", [[0, 100, "linear", "{b} 0"]]], ["resume", "t"],
        ["load", "t", [[0, 101, "linear", "{b} 0"]]], ["resume", "t"], ["resume", "t"],
        ["read", "t", 99, 1],
        ["load", "t", [[0, 202, "striped", "2 1 {b} 0 {c0} 0"]]], ["resume", "t"], ["resume", "t"],
        ["load", "t", [[0, 101, "snapshot-origin", "{b}"]]], ["suspend", "t"], ["resume", "t"],
        ["resume", "t"], ["load", "t", [[0, 101, "snapshot", "{b} {c0} P 8"]]], ["resume", "t"],
        ["resume", "t"], ["load", "t", [[0, 9999, "error", ""]]], ["resume", "t"],
        ["load", "t", [[0, 100, "linear", "{b} 100"]]], ["resume", "t"], ["remove", "t"],
    ),
    "the last snapshot goes while its origin is suspended": _steps(
        ["create", "o"], ["load", "o", _ORIGIN], ["resume", "o"],
        ["create", "s"], ["load", "s", [[0, 100, "snapshot", "{b} {c0} P 8"]]], ["resume", "s"],
        ["suspend", "o"], ["remove", "s"], ["resume", "o"], ["zero", "c0", 0, 8],
        ["create", "s"], ["load", "s", [[0, 100, "snapshot", "{b} {c0} P 8"]]], ["suspend", "o"],
        ["resume", "s"], ["resume", "o"], ["write", "o", 3, 20, 99], ["read", "s", 0, 100],
    ),
    "a snapshot that waits for a handover, and goes on waiting": _steps(
        ["create", "o"], ["load", "o", _ORIGIN], ["resume", "o"],
        ["create", "s"], ["load", "s", [[0, 100, "snapshot", "{b} {c0} PO 8"]]], ["suspend", "o"],
        ["resume", "s"], ["resume", "o"], ["write", "o", 3, 20, 99], ["create", "t"],
        ["load", "t", [[0, 100, "snapshot", "{b} {c0} PO 8"]]], ["resume", "t"],
        ["read", "s", 0, 100], ["suspend", "s"], ["resume", "t"], ["read", "t", 0, 100],
    ),
    "what is written to an origin leaves no room": _steps(
        ["create", "o"], ["load", "o", _ORIGIN], ["resume", "o"],
        ["create", "s"], ["load", "s", [[0, 100, "snapshot", "{b} {c0} P 8"]]], ["suspend", "o"],
        ["resume", "s"], ["resume", "o"],
        *(["write", "o", 8 * (chunk * 5 % 12), 8, 100 * chunk + 7] for chunk in range(12)),
        ["read", "s", 0, 100], ["read", "o", 0, 100],
    ),
    "what was written to an origin is discarded by way of its snapshot": _steps(
        ["create", "o"], ["load", "o", _ORIGIN], ["resume", "o"],
        ["create", "s"],
        ["load", "s", [[0, 100, "snapshot",
                        "{b} {c0} P 8 2 discard_zeroes_cow discard_passdown_origin"]]],
        ["suspend", "o"], ["resume", "s"], ["resume", "o"], ["write", "o", 8, 32, 99],
        ["discard", "s", 16, 8], ["read", "o", 0, 100], ["read", "s", 0, 100],
        ["flush", "o"], ["read", "o", 0, 100],
    ),
    "a snapshot that turned invalid when it had been written to is merged": _steps(
        ["create", "o"], ["load", "o", _ORIGIN], ["resume", "o"],
        ["create", "c1"], ["load", "c1", [[0, 24, "linear", "{disk} 400"]]], ["resume", "c1"],
        ["create", "s"], ["load", "s", [[0, 96, "snapshot", "{b} {c1} P 8"]]], ["suspend", "o"],
        ["resume", "s"], ["resume", "o"], ["write", "s", 0, 8, 99], ["write", "o", 8, 8, 199],
        ["load", "o", [[0, 96, "snapshot-merge", "{b} {c1} P 8"]]],
        ["suspend", "o"], ["suspend", "s"], ["resume", "o"], ["merged", "o"], ["read", "o", 0, 96],
    ),
    "a merge gives another snapshot its chunks": {
        **_steps(
            ["create", "o"], ["load", "o", _ORIGIN], ["resume", "o"],
            ["create", "s"], ["load", "s", [[0, 100, "snapshot", "{b} {c0} P 8"]]],
            ["suspend", "o"], ["resume", "s"], ["resume", "o"], ["write", "o", 40, 8, 99],
            ["write", "o", 8, 8, 199], ["write", "o", 72, 8, 299], ["suspend", "o"],
            ["create", "c1"], ["load", "c1", [[0, 200, "linear", "{disk} 400"]]], ["resume", "c1"],
            ["create", "t"], ["load", "t", [[0, 100, "snapshot", "{b} {c1} P 8"]]], ["resume", "t"],
            ["resume", "o"], ["load", "o", [[0, 100, "snapshot-merge", "{b} {c0} P 8"]]],
            ["suspend", "o"], ["suspend", "s"], ["resume", "o"], ["merged", "o"],
            ["read", "o", 0, 100], ["read", "t", 0, 100],
        ),
        "regions": [["b", 0, 100], ["c0", 200, 200], ["c1", 400, 200]],
    },
}  # fmt: skip
"""What random programs found, in few steps; the kernel is right."""


class Kernel:
    """Runs programs in one virtual machine after the other."""

    def __init__(self, folder: Path) -> None:
        self.disk = folder / "scratch"

    def run(self, programs: list[Program]) -> list[tuple[list[dict[str, Any]], dict[str, str]]]:
        """(outcomes, sums) of each, as `Local.run`."""
        found: list[tuple[list[dict[str, Any]], dict[str, str]]] = []
        for first in range(0, len(programs), _PER_BOOT):
            found += self._some(programs[first : first + _PER_BOOT])
        return found

    def _some(self, programs: list[Program]) -> list[tuple[list[dict[str, Any]], dict[str, str]]]:
        """A program that brings the kernel down, or makes it kill its runner, is found by halves;
        its outcome is empty."""
        try:
            return self._boot(programs)
        except RuntimeError:
            if len(programs) == 1:
                effort.tally("dm programs that crashed the kernel")
                return [([], {})]
            middle = len(programs) // 2
            return self._some(programs[:middle]) + self._some(programs[middle:])

    def _boot(self, programs: list[Program]) -> list[tuple[list[dict[str, Any]], dict[str, str]]]:
        placed = [{**p, "base": n * REGION} for n, p in enumerate(programs)]
        self.disk.unlink(missing_ok=True)
        self.disk.touch()
        os.truncate(self.disk, REGION * SECTOR * len(programs))
        command = "python3 -I -S /files/agent.py /files/programs.json /dev/vda"
        outcome = vm.run(
            {"agent": command},
            [self.disk],
            timeout=300 + 30 * len(programs),
            files={
                "agent.py": AGENT.read_bytes(),
                "programs.json": json.dumps(placed).encode(),
            },
            python=True,
        )["agent"]
        if outcome.rc == 128 + signal.SIGKILL:
            raise RuntimeError("the kernel has killed who ran them, as it does when it oopses")
        assert outcome.rc == 0, outcome.stderr
        found: list[tuple[list[dict[str, Any]], dict[str, str]]] = [([], {}) for _ in programs]
        for line in outcome.stdout.splitlines():
            entry = json.loads(line)
            steps, sums = found[entry["p"]]
            if "sums" in entry:
                sums.update(entry["sums"])
                assert not entry["left"], f"devices were left: {entry['left']}"
            else:
                steps.append({k: v for k, v in entry.items() if k in ("rc", "data", "dev")})
        return found


class Compare:
    """Of one program: the first difference, as (step or None, text); None if there is none.
    `staged`: ulvm had a stage."""

    def __init__(self, program: Program, *, staged: bool = False) -> None:
        self.program = program
        self.staged = staged
        self.states: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
        self.waited = False
        self.length = program["regions"][0][2]
        self.unread: set[str] = set()
        """COW devices that hold what nobody can read."""

    def run(
        self,
        ours: tuple[list[dict[str, Any]], dict[str, str]],
        theirs: tuple[list[dict[str, Any]], dict[str, str]],
    ) -> tuple[int | None, str] | None:
        for number, (mine, other) in enumerate(zip(ours[0], theirs[0], strict=False)):
            text = self._step(self.program["steps"][number], mine, other)
            if text:
                return number, text
        if len(ours[0]) != len(theirs[0]):
            return min(len(ours[0]), len(theirs[0])), "one of them did not go on"
        for name, total in theirs[1].items():
            if ours[1][name] != total and name not in self.unread:
                mine = ours[1][name]
                sectors = [
                    n // 4 for n in range(0, len(total), 4) if mine[n : n + 4] != total[n : n + 4]
                ]
                return None, f"in the end {name} differs in the sectors {sectors[:20]}"
        return None

    def _step(self, step: list[Any], mine: dict[str, Any], other: dict[str, Any]) -> str:
        for key in ("rc", "data"):
            if mine.get(key) != other.get(key) and not self._is_flush_of_lost_data(step, mine):
                return f"{key}: ulvm {mine.get(key)!r}, kernel {other.get(key)!r}"
        for state, outcome in zip(self.states, (mine, other), strict=True):
            if mine["rc"] == 0 and step[0] == "remove":
                state.pop(step[1], None)
            if mine["rc"] == 0 and step[0] == "rename":
                state.pop(step[1], None)
            state.update(outcome["dev"])
        merging = any("snapshot-merge" in str(device[2]) for device in self.states[1].values())
        self.waited = merging and (self.waited or step[0] == "merged")
        under_way = merging and not self.waited
        for name in self.states[0].keys() | self.states[1].keys():
            ours, theirs = (state.get(name) for state in self.states)
            self._note_unread(theirs)
            if under_way and ours is not None and theirs is not None:
                ours, theirs = ours[:-2], theirs[:-2]
            if ours != theirs:
                return f"{name}: ulvm {ours}, kernel {theirs}"
        return ""

    def _is_flush_of_lost_data(self, step: list[Any], mine: dict[str, Any]) -> bool:
        device = self.states[1].get(step[1])
        invalid = any(status.endswith(" Invalid") for status in device[-1]) if device else False
        return self.staged and invalid and step[0] == "flush" and mine["rc"] == errno.EIO

    def _note_unread(self, device: Any) -> None:
        for table, status in zip(device[2], device[-1], strict=True) if device else ():
            words = table.split()
            if words[2] == "snapshot":
                length, cow, chunk = int(words[1]), words[4], int(words[6])
                if chunk and length < self.length and length % chunk:  # 0: it waits for a handover
                    self.unread.add(cow)
            if status.endswith(" Invalid"):
                self.unread.add(words[4])


def differs(folder: Path, program: Program, theirs: Any) -> tuple[int | None, str] | None:
    """With a stage and without."""
    for stage in (0, 1 << 20):
        ours = Local(folder, stage).run(program)
        found = Compare(program, staged=stage > 0).run(ours, theirs)
        if found is not None:
            step, why = found
            return step, f"{why} (a stage of {stage} bytes)"
    return None


def ends(folder: Path, program: Program) -> bool:
    """Whether each step does here. One that does not, as a read of what nobody resumes, would be
    waited for in the virtual machine until its time is up."""
    return all(outcome["rc"] != errno.ETIMEDOUT for outcome in Local(folder).run(program)[0])


def shrink(
    folder: Path, kernel: Kernel, program: Program, found: tuple[int | None, str]
) -> Program:
    """A program of few steps that still shows a difference of this kind: parts are left out, many
    candidates in one boot."""
    step, text = found
    kind = text.partition(":")[0]
    best = program
    if step is not None:
        best = {**program, "steps": program["steps"][: step + 1]}
    whole = ends(folder, best)
    size = len(best["steps"]) // 2
    while size:
        steps = best["steps"]
        candidates = [
            {**best, "steps": steps[:at] + steps[at + size :]} for at in range(0, len(steps), size)
        ]
        candidates = [c for c in candidates if ends(folder, c) or not whole]
        outcomes = kernel.run(candidates)
        smaller = [
            candidate
            for candidate, theirs in zip(candidates, outcomes, strict=True)
            if (difference := differs(folder, candidate, theirs)) is not None
            and difference[1].startswith(kind)
        ]
        if smaller:
            best = min(smaller, key=lambda p: len(p["steps"]))
            size = min(size, len(best["steps"]) // 2)
        else:
            size //= 2
    return best


def test_programs_do_the_same_on_the_kernel_and_on_ulvm(tmp_path: Path) -> None:
    programs = {
        f"random {number}": make(effort.rng("program", number), STEPS) for number in range(PROGRAMS)
    }
    programs |= REGRESSIONS
    kernel = Kernel(tmp_path)
    outcomes = kernel.run(list(programs.values()))
    crashed = []
    for (name, program), theirs in zip(programs.items(), outcomes, strict=True):
        if not theirs[0]:
            crashed.append(name)
            continue
        found = differs(tmp_path, program, theirs)
        if found is not None:
            small = shrink(tmp_path, kernel, program, found)
            pytest.fail(
                f"ULVM_SEED={effort.SEED}, {name}, step {found[0]}: {found[1]}\n{json.dumps(small)}"
            )
        effort.tally("dm programs on the kernel and on ulvm")
        effort.tally("steps of dm programs", len(program["steps"]))
    # A machine that does not start, say, crashes under all of them.
    assert not set(crashed) & set(REGRESSIONS)
    assert len(crashed) * 10 <= PROGRAMS, crashed


def test_a_difference_is_seen(tmp_path: Path) -> None:
    """The comparison itself: a kernel that had answered otherwise."""
    program = make(effort.rng("seen"), 30)
    ours = Local(tmp_path).run(program)
    assert Compare(program).run(ours, ours) is None
    other = json.loads(json.dumps(ours))
    other[0][-1]["data"] = "otherwise"
    assert Compare(program).run(ours, other) is not None
    other = json.loads(json.dumps(ours))
    other[0][5]["rc"] = errno.EIO
    assert Compare(program).run(ours, other) == (5, f"rc: ulvm 0, kernel {errno.EIO}")
    other = json.loads(json.dumps(ours))
    other[1]["b"] = "0000" + other[1]["b"][4:]
    found = Compare(program).run(ours, other)
    assert found == (None, "in the end b differs in the sectors [0]")
