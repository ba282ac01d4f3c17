"""Random lives of what is staged, with disks that refuse, and with memory that is wanting.

What is promised stands in `tests.crash.staged_life`. The short form lives some, the long form
thousands; a life that breaks a promise says which one it was, and what it did. Taken away one by
one, what keeps a promise is missed (`test_it_is_seen`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests import effort
from tests.crash.engine import Unsafe
from tests.crash.staged_life import Life
from tests.crash.staged_model import by_hand
from tests.crash.want_of_memory import Want
from tests.waiting import ended
from ulvm.dm.cow import CowSnapshot
from ulvm.dm.origins import Origin
from ulvm.dm.stage import Stage
from ulvm.dm.targets.origin import OriginTarget

pytestmark = [
    pytest.mark.timeout(effort.amount(300, 0)),
    pytest.mark.usefixtures("threads_that_died"),
]

STEPS = 120
MEMORY = frozenset(
    (
        "write_origin",
        "write_snapshot",
        "write_pieces",
        "read",
        "flush",
        "settle",
        "compare",
        "suspend",
        "batch",
    )
)
"""Steps in which it may be wanting."""


def refused(life: Life) -> None:
    for _ in range(STEPS):
        life.take(life.pick())


def merging(life: Life) -> None:
    """With many merges, of which the disks refuse much, and kills."""
    life.steps |= {"merge": 20.0, "disk_refuses": 15.0, "kill": 12.0, "grow": 0.0}
    refused(life)


def wanting(life: Life) -> None:
    life.refuse = False
    for _ in range(STEPS):
        step = life.pick()
        if step in MEMORY and life.choose.random() < 0.4:
            short_of_memory(life, step)
        else:
            life.take(step)


def short_of_memory(life: Life, step: str) -> None:
    """A step that may fail for that. Behind it all goes on."""
    expected = life.expected
    life.refusing.add("memory")
    life.expected = (*expected, MemoryError)
    try:
        with Want(life.choose) as want:
            life.take(step)
    finally:
        life.expected = expected
        if want.where:
            life.reasons.add("memory")
            life.trail.append(f"    no memory at {want.where}")
            effort.tally("times memory was wanting under what is staged")
    life.heal()
    if want.where:
        life.look_at_all()


def live(folder: Path, name: str, how: Callable[[Life], None]) -> None:
    """What goes wrong tells the name of the life and what it did last. Unsafe is a promise that was
    broken; any other error, and one that hangs, is not known to be one."""
    life = Life(folder, effort.rng(name))

    def work() -> None:
        with by_hand(life.choose):
            how(life)
            life.end()
            life.close()

    try:
        ended(work, seconds=120)
    except BaseException as error:
        trail = "\n".join(life.trail[-60:])
        error.add_note(f"ULVM_SEED={effort.SEED}, {name}, behind\n{trail}")
        raise


@pytest.mark.parametrize("how", [refused, merging, wanting])
def test_lives(tmp_path: Path, how: Callable[[Life], None]) -> None:
    for number in range(effort.amount(20, 4000)):
        live(tmp_path / "life", f"{how.__name__} {number}", how)
        effort.tally(f"lives of what is staged, {how.__name__}")


# -- tested: with what keeps a promise taken away the lives must fail ------------------------------

Patch = Callable[[pytest.MonkeyPatch], None]
Way = Callable[[Life], None]

MOST = 3000
"""Lives after which a mutation counts as not seen."""
MUTATIONS: dict[str, tuple[Way, Patch]] = {}


def mutation(name: str, how: Way) -> Callable[[Patch], Patch]:
    def add(patch: Patch) -> Patch:
        MUTATIONS[name] = how, patch
        return patch

    return add


@mutation("stage: pages of a commit that failed are forgotten", refused)
def _(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Stage._let_go
    monkeypatch.setattr(Stage, "_let_go", lambda self, kept: real(self, set()))


@mutation("stage: what the origin's disk refuses goes with the table", refused)
def _(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OriginTarget, "would_lose", lambda self, following: False)


@mutation("stage: what the origin's disk refuses is missing from a new snapshot", refused)
def _(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Origin.drain

    def drain(self: Origin) -> bool:
        real(self)
        return True

    monkeypatch.setattr(Origin, "drain", drain)


@mutation("invalidation: a mark that was refused is not tried again", refused)
def _(monkeypatch: pytest.MonkeyPatch) -> None:
    real = CowSnapshot.mark

    def mark(self: CowSnapshot) -> None:
        if self.valid:
            real(self)

    monkeypatch.setattr(CowSnapshot, "mark", mark)


@mutation("stage: pages of a commit that wanted memory are forgotten", wanting)
def _(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Stage._write_out

    def write_out(self: Stage, kept: set[int]) -> None:
        try:
            real(self, kept)
        except MemoryError:
            kept.clear()
            raise

    monkeypatch.setattr(Stage, "_write_out", write_out)


@pytest.mark.parametrize("name", MUTATIONS)
def test_it_is_seen(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    how, patch = MUTATIONS[name]
    patch(monkeypatch)
    lives = 0
    try:
        while True:
            lives += 1
            live(tmp_path / str(lives), f"{name} {lives}", how)
            assert lives < MOST, f"not seen in {lives} lives"
    except Unsafe:
        effort.tally(f"lives until seen: {name}", lives)
