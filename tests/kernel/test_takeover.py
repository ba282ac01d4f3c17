"""Volume groups that change hands all their life, between ulvm and LVM2 on a kernel.

Turn by turn one side goes on where the other stopped, with random steps of all kinds
(`tests/kernel/life.py`): also in the midst of a merge, with the group exported, and without one of
its disks. The bytes of all volumes, valid and invalid snapshots, follow from the writes that
were made and are known beforehand; at each turn reports, tables, status lines and metadata text
of both sides are the same.
"""

from __future__ import annotations

import contextlib
import difflib
import itertools
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest

from tests import effort, needs
from tests.e2e.host import UlvmHost
from tests.kernel import vm
from tests.kernel.hands import SEPARATOR, Kernel, Shown, Ulvm, judge_images
from tests.kernel.life import HAND_OVERS, Cut, Life

pytestmark = [
    needs.qemu,
    needs.fuse,
    pytest.mark.qemu,
    pytest.mark.timeout(effort.amount(600, 0)),
]

LIVES = effort.amount(2, 12)
TURNS = effort.amount(5, 8)
EPISODES = effort.amount(6, 9)

RING = 60 << 10
"""Bytes of a metadata area of @0."""


def live(number: int, base: Path) -> dict[str, int]:
    """One life; how many episodes of each kind there were. AssertionError with the way there."""
    host = UlvmHost(base)
    host.env["TZ"] = "UTC"  # As in the machine.
    images = [host.image(f"{n}.img", "32M") for n in range(4)]
    life = Life(f"g{number}x", effort.rng("takeover", number), hand_overs(number))
    sides: tuple[Ulvm | Kernel, ...] = Ulvm(host, images), Kernel(images)
    shown: Shown = {}
    found: list[str] = []
    ring: list[tuple[int, int]] = []
    try:
        for turn in range(TURNS):
            # Lives with an odd number begin with LVM2.
            side = sides[(turn + number) % 2]
            steps = life.birth() if turn == 0 else []
            steps = [*steps, *life.turn(EPISODES, last=turn == TURNS - 1)]
            try:
                seen = side.take(steps)
                judge_images([image for image in images if image.exists()])
                found += [f"turn {turn}: {d}" for d in differences(shown, seen.shown)]
                if life.half is not None:
                    (made,) = (step.exceptions for step in steps if isinstance(step, Cut))
                    assert seen.left is not None
                    assert 0 < seen.left < made, f"{seen.left} of {made} exceptions are left"
                    effort.tally("merges handed over half done")
            except AssertionError as error:
                name = type(side).__name__
                error.add_note(f"ULVM_SEED={effort.SEED}, life {number}, turn {turn} on {name}")
                raise
            shown = seen.shown
            ring += seen.ring
            effort.tally("turns of VG lives")
    finally:
        host.close()
        for image in images:
            image.unlink(missing_ok=True)
    assert not found, f"ULVM_SEED={effort.SEED}, life {number}:\n" + "\n".join(found)
    effort.tally("times around a ring of metadata", times_around(ring))
    effort.tally("VG lives")
    return life.done


def hand_overs(number: int) -> list[str]:
    """Of lives that begin with ulvm and with LVM2 by turns, so that each kind goes both ways."""
    order = list(HAND_OVERS)
    if number % 2:
        order[1], order[4] = order[4], order[1]
    first = number // 2 % len(order)
    return order[first:] + order[:first]


def times_around(ring: list[tuple[int, int]]) -> int:
    """How often the texts came round to the beginning; not less than what they take up tells."""
    commits = [ring[0], *(b for a, b in itertools.pairwise(ring) if a != b)]
    written = sum(-(-size // 512) * 512 for _, size in commits)
    found = sum(b < a for (a, _), (b, _) in itertools.pairwise(commits))
    assert found >= written // RING - 1, f"{written} bytes of metadata, {found} times around"
    return found


def differences(before: Shown, found: Shown) -> Iterator[str]:
    """Where the one side does not find what the other one left."""
    for key in before.keys() & found.keys():
        assert before[key].keys() == found[key].keys()
        for command, lines in before[key].items():
            effort.tally("reports compared between the two sides")
            if found[key][command] != lines:
                yield f"{key}, {command.split(' -o ')[0]}"
                yield from differing_lines(command, lines, found[key][command])


def differing_lines(command: str, before: list[str], found: list[str]) -> Iterator[str]:
    """Differing fields by name where lines of a report differ, else a diff."""
    names = command.rpartition(" -o ")[2].partition(" ")[0].split(",")
    pairs = [[line.split(SEPARATOR) for line in pair] for pair in zip(before, found, strict=False)]
    if len(before) != len(found) or any(len(a) != len(b) for a, b in pairs):
        yield from difflib.unified_diff(before, found, "left", "found", n=1, lineterm="")
        return
    for one, other in pairs:
        for name, left, right in zip(names, one, other, strict=False):
            if left != right:
                yield f"    {name} of {one[:3]}: {left!r}, found {right!r}"


def test_groups_change_hands(short_base: Path) -> None:
    vm.kernel_release()
    base = Path(tempfile.mkdtemp(dir=short_base))
    bases = [base / str(number) for number in range(LIVES)]
    for folder in bases:
        folder.mkdir()
    try:
        with ThreadPoolExecutor(2) as pool:
            lives = [pool.submit(live, number, base) for number, base in enumerate(bases)]
            with contextlib.suppress(KeyboardInterrupt):
                wait(lives)
            # After an interrupt those that have begun come to their end.
            pool.shutdown(cancel_futures=True)
    finally:
        shutil.rmtree(base)
    lived = [life for life in lives if not life.cancelled()]
    failures = [failure for life in lived if (failure := life.exception())]
    if failures:
        raise BaseExceptionGroup(f"{len(failures)} of {len(lived)} lives failed", failures)
    assert len(lived) == LIVES, f"interrupted after {len(lived)} lives, none of which failed"
    done = Counter[str]()
    for life in lives:
        done.update(life.result())
    missing = [kind for kind in HAND_OVERS if not done[f"handed over: {kind}"]]
    assert not missing, f"never handed over so: {missing}"
    for kind, times in sorted(done.items()):
        effort.tally(f"in VG lives: {kind}", times)
