"""How long writers are held while a stage is committed. The clock is ours."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from ulvm.dm import pace as pace_module
from ulvm.dm.pace import Pace

PAGES = 8192


class Clock:
    def __init__(self) -> None:
        self.now = 100.0
        self.waits: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    time = SimpleNamespace(monotonic=lambda: made.now, sleep=made.sleep)
    monkeypatch.setattr(pace_module, "time", time)
    return made


def after_a_commit(clock: Clock, seconds: float) -> Pace:
    pace = Pace()
    pace.begin()
    clock.now += seconds
    pace.end(PAGES)
    pace.begin()
    return pace


def test_half_of_the_room_lasts_for_half_of_the_commit(clock: Clock) -> None:
    pace = after_a_commit(clock, 0.2)
    assert pace.wait(0.01, PAGES)
    assert clock.waits == [pytest.approx(-0.1 * math.log2(0.99))]
    clock.now += 0.1
    assert not pace.wait(0.5, PAGES)
    assert pace.wait(0.55, PAGES)
    clock.now += 0.1
    assert not pace.wait(0.75, PAGES)


def test_a_small_commit_holds_nobody(clock: Clock) -> None:
    pace = after_a_commit(clock, 0.2)
    assert not pace.wait(0.5, 32)
    assert not clock.waits


def test_a_commit_that_does_not_end_gets_no_writer_to_wait_in_one_piece(clock: Clock) -> None:
    """As fast a writer as can be, until the room is filled: it takes several times as long as the
    commit should have taken, in steps."""
    pace = after_a_commit(clock, 0.2)
    begun = clock.now
    for page in range(PAGES):
        pace.wait(page / PAGES, PAGES)
    assert max(clock.waits) <= 2e-3
    assert clock.now - begun > 0.6


def test_few_pages_tell_nothing_of_many(clock: Clock) -> None:
    pace = after_a_commit(clock, 0.2)
    clock.now += 5
    pace.end(32)
    pace.begin()
    pace.wait(0.01, PAGES)
    assert clock.waits == [pytest.approx(-0.1 * math.log2(0.99))]
