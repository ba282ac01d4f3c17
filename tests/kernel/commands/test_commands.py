"""Scripts of commands under ulvm beside what LVM2 did, and that beside LVM2 itself.

What LVM2 did is recorded, since the virtual machine takes about a second for a command; the short
form has some of it done again, the long one all.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests import effort, needs
from tests.kernel.commands import differences, sides
from tests.kernel.commands.compare import differing, read_pending
from tests.kernel.commands.differences import Difference
from tests.kernel.commands.plain import Outcome
from tests.kernel.commands.script import SCRIPTS, Script, read_scripts

pytestmark = pytest.mark.timeout(900)

NAMES = sorted(path.stem for path in SCRIPTS.glob("*.txt"))
SAMPLE = 12
"""Steps that LVM2 does again in the short form."""
DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "differences.md"


@pytest.fixture(scope="module")
def used() -> set[Difference]:
    """Which differences were needed so far."""
    return set()


@pytest.fixture(scope="module")
def ours() -> dict[str, list[Outcome]]:
    """What ulvm does in all scripts."""
    scripts = sorted(read_scripts(), key=lambda script: len(script.steps))
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(sides.ours, (scripts[::2], scripts[1::2]))
    return {**first, **second}


@needs.root
@needs.fuse
@needs.loop
@pytest.mark.parametrize("name", NAMES)
def test_ulvm_does_what_lvm2_did(
    name: str, ours: dict[str, list[Outcome]], used: set[Difference]
) -> None:
    (script,) = read_scripts([name])
    theirs = sides.load(script)
    assert theirs, "not recorded: run python -m tests.kernel.commands"
    pending = read_pending()
    problems = differing(script, ours[name], theirs, used)
    new = [f"{step}\n{lines}" for step, lines in problems.items() if step not in pending]
    effort.tally("commands beside LVM2", len(script.steps) - len(problems))
    assert not new, "\n".join(new)


@needs.root
@needs.fuse
@needs.loop
def test_no_difference_is_listed_for_nothing(
    ours: dict[str, list[Outcome]], used: set[Difference]
) -> None:
    for script in read_scripts():
        differing(script, ours[script.name], sides.load(script) or [], used)
    assert [d.what for d in differences.DIFFERENCES if d not in used] == []


@needs.qemu
@pytest.mark.timeout(3 * 3600)
def test_lvm2_does_what_was_recorded() -> None:
    scripts = read_scripts()
    if not effort.LONG:
        script = effort.rng("recorded").choice(scripts)
        scripts = [Script(script.name, script.steps[:SAMPLE])]
    found = sides.theirs(scripts)
    for script in scripts:
        recorded = sides.load(*read_scripts([script.name]))
        assert recorded is not None, script.name
        assert found[script.name] == recorded[: len(script.steps)], script.name


def test_the_scripts_are_as_many_as_they_should_be() -> None:
    assert sum(len(script.steps) for script in read_scripts()) > 1000


def test_the_document_is_that_of_the_table() -> None:
    assert DOCUMENT.read_text() == differences.document()
