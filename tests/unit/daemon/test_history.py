"""When a snapshot will be full, from how full it was."""

from __future__ import annotations

import pytest

from ulvm.daemon.history import FillHistory


def test_nothing_is_said_before_the_second_look() -> None:
    history = FillHistory()
    assert (history.rate, history.seconds_until(100)) == (0.0, None)
    history.add(10.0, 40)
    assert (history.rate, history.seconds_until(100)) == (0.0, None)
    history.add(12.0, 60)
    assert (history.rate, history.seconds_until(100)) == (10.0, 4.0)


def test_full_is_full_and_rest_is_never() -> None:
    history = FillHistory()
    for now in range(100):
        history.add(float(now), 50)
    assert history.seconds_until(50) == 0.0
    assert history.seconds_until(51) is None


def test_the_rate_is_that_of_the_last_minute() -> None:
    history = FillHistory()
    for now in range(1000):
        history.add(float(now), now * 100)
    for now in range(1000, 1061):
        history.add(float(now), 99_900 + (now - 999) * 7)
    assert history.rate == pytest.approx(7, rel=0.01)


def test_looks_that_follow_quickly_do_not_shorten_the_window() -> None:
    history = FillHistory()
    for step in range(10_000):
        history.add(step * 0.01, step)
    assert history.rate == pytest.approx(100, rel=0.01)
    history.add(101.0, 9999)  # a pause of a second is hardly seen in a minute
    assert history.rate == pytest.approx(100, rel=0.03)


def test_another_snapshot_under_the_name_begins_anew() -> None:
    history = FillHistory()
    history.add(0.0, 1000)
    history.add(10.0, 3000)
    history.add(20.0, 16)
    assert history.rate == 0.0
    history.add(22.0, 216)
    assert history.rate == 100.0
