"""Times of a selection, at a moment that does not move."""

from __future__ import annotations

import datetime

import pytest

from ulvm.report.times import parse_time

NOW = datetime.datetime(2026, 11, 21, 11, 24, 30)  # a Saturday


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("today", "2026-11-21 00:00:00", "2026-11-21 23:59:59"),
        ("yesterday", "2026-11-20 00:00:00", "2026-11-20 23:59:59"),
        ("2 weeks ago", "2026-11-07 00:00:00", "2026-11-07 23:59:59"),
        ("1 month ago", "2026-10-21 00:00:00", "2026-10-21 23:59:59"),
        ("1 year 2 months ago", "2025-09-21 00:00:00", "2025-09-21 23:59:59"),
        ("5 hours ago", "2026-11-21 05:24:30", "2026-11-21 06:24:29"),
        ("2 days 3 hours ago", "2026-11-19 07:24:30", "2026-11-19 08:24:29"),
        ("Sunday", "2026-11-15 00:00:00", "2026-11-15 23:59:59"),
        ("sat", "2026-11-21 00:00:00", "2026-11-21 23:59:59"),
        ("Sunday 10 am", "2026-11-15 10:00:00", "2026-11-15 10:59:59"),
        ("10:30 pm yesterday", "2026-11-20 22:30:00", "2026-11-20 22:30:59"),
        ("yesterday noon", "2026-11-20 12:00:00", "2026-11-20 12:00:59"),
        ("Oct", "2026-10-01 00:00:00", "2026-10-31 23:59:59"),
        ("12 Oct 2025", "2025-10-12 00:00:00", "2025-10-12 23:59:59"),
        ("2026-02", "2026-02-01 00:00:00", "2026-02-28 23:59:59"),
        ("20261120 10:30", "2026-11-20 10:30:00", "2026-11-20 10:30:59"),
        ("2026-1-5 1030", "2026-01-05 10:30:00", "2026-01-05 10:30:59"),
        ("202601", "2026-01-01 00:00:00", "2026-01-31 23:59:59"),
    ],
)
def test_ranges(text: str, first: str, last: str) -> None:
    ends = [datetime.datetime.fromisoformat(end).timestamp() for end in (first, last)]
    assert list(parse_time(text, NOW)) == ends


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("20261", "Incorrect date format."),
        ("2026112", "Incorrect date format."),
        ("20261-05", ""),
        ("2026-111", "Specified month out of range."),
        ("2026-11 10:30", "Full date specification needed."),
        ("2026 10", "Full date specification needed."),
        ("2026-11-05 1", "Incorrect time format."),
        ("2026-11-05 102", "Incorrect time format."),
    ],
)
def test_what_is_no_time(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=f"^{words}$"):
        parse_time(text, NOW)


def test_a_zone_of_its_own() -> None:
    begin, end = parse_time("2026-11-20 10:00 +02:00")
    assert datetime.datetime.fromtimestamp(begin, datetime.UTC).hour == 8
    assert end - begin == 59
