"""Times in a selection: what LVM2 understands by a date, and by `yesterday` (lvmreport(7)).

    standard   YYYY[-MM[-DD [hh[:mm[:ss]]]]] [+hh[:mm]]      @seconds
    freeform   2 weeks ago    3 hours 10 minutes ago    yesterday 10:30    Sunday 10 am    Nov 11

Every one stands for a range from its first second to its last: a day for all of it. In the freeform
the range is as fine as the finest part that is given; `N hours ago` is the hour that ended then.
"""

from __future__ import annotations

import calendar
import datetime
import re

__all__ = ["parse_time"]

_STANDARD = re.compile(
    r"(\d{4})(?:-(\d{1,9})(?:-(\d{1,9}))?|(\d\d)(\d\d)?)?"
    r"(?:\s+(?:(\d\d?):(\d\d?)(?::(\d\d?))?|(\d\d)(?:(\d\d)(\d\d)?)?))?"
    r"(?:\s*([+-])(\d\d):?(\d\d)?)?",
    re.ASCII,
)
"""Date and time with signs between their parts, or without: two digits each then."""
_RANGES = (
    ("month", 1, 12),
    ("day", 1, 31),
    ("hours", 0, 23),
    ("minutes", 0, 60),
    ("seconds", 0, 60),
)
_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_MONTHS = tuple(name.lower() for name in calendar.month_name[1:])

_UNITS = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), "seconds"),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), "minutes"),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), "hours"),
    **dict.fromkeys(("day", "days"), "days"),
    **dict.fromkeys(("week", "weeks"), "weeks"),
    **dict.fromkeys(("month", "months"), "months"),
    **dict.fromkeys(("year", "years"), "years"),
}
_SPANS = {"seconds": 1, "minutes": 60, "hours": 3600}
"""Seconds; what is longer counts by whole days."""

_CLOCK = re.compile(r"(\d\d?):(\d\d?)(?::(\d\d?))?", re.ASCII)
_WORD = re.compile(r"\d\d?:\d\d?(?::\d\d?)?|\d+|[^\s\d]\S*", re.ASCII)

_BAD_DATE = "Incorrect date format."


def parse_time(text: str, now: datetime.datetime | None = None) -> tuple[float, float]:
    """First and last second since the epoch; `now` (local time) for what is relative to it.
    ValueError with LVM2's words, which may be none."""
    try:
        if text.startswith("@"):
            return _absolute(text[1:])
        if re.search(r"[^\W\d_]", text) and not re.match(r"\d{4}-", text):
            return _Freeform(text, now or datetime.datetime.now()).span()
        return _standard(text.strip())
    except OverflowError:
        raise ValueError(_BAD_DATE) from None


def _absolute(digits: str) -> tuple[float, float]:
    if re.fullmatch(r"\d{1,18}", digits, re.ASCII) is None:
        raise ValueError
    return float(digits), float(digits)


def _standard(text: str) -> tuple[float, float]:
    match = _STANDARD.fullmatch(text)
    if match is None:
        if re.match(r"\d{4}\S*\s+(\d\d?\s*[a-zA-Z]|\d+$)", text, re.ASCII):
            raise ValueError("Incorrect time format.")
        digits = re.fullmatch(r"\d*", text, re.ASCII)
        raise ValueError(_BAD_DATE if text and digits else "")
    year = int(match[1])
    month, day = int(match[2] or match[4] or 1), int(match[3] or match[5] or 1)
    clock = [int(part) for part in match.groups()[5:11] if part is not None]
    if clock and not (match[3] or match[5]):
        raise ValueError("Full date specification needed.")
    last_day = calendar.monthrange(max(year, 1), month)[1] if 1 <= month <= 12 else 31
    for (name, least, most), number in zip(_RANGES, (month, day, *clock), strict=False):
        if not least <= number <= (last_day if name == "day" else most):
            raise ValueError(f"Specified {name} out of range.")
    if year < 1:
        return -1, -1  # before all calendars, and all volumes
    hour, minute, second = (*clock, 0, 0, 0)[:3]
    # 60 is the first of the next minute or hour, as in LVM2.
    begin = datetime.datetime(year, month, day) + datetime.timedelta(
        hours=hour, minutes=minute, seconds=second
    )
    if clock:
        end = begin + datetime.timedelta(seconds=(3600, 60, 1)[len(clock) - 1] - 1)
    elif match[3] or match[5]:
        end = begin + datetime.timedelta(days=1, seconds=-1)
    elif match[2] or match[4]:
        end = datetime.datetime(year, month, last_day, 23, 59, 59)
    else:
        end = datetime.datetime(year, 12, 31, 23, 59, 59)
    if match[12]:
        hours, minutes = int(match[13]), int(match[14] or 0)
        if hours > 14 or minutes > 59:
            raise ValueError
        offset = datetime.timedelta(hours=hours, minutes=minutes)
        zone = datetime.timezone(offset if match[12] == "+" else -offset)
        begin, end = begin.replace(tzinfo=zone), end.replace(tzinfo=zone)
    return begin.timestamp(), end.timestamp()


class _Freeform:
    """Words taken one after the other; then the range that they leave."""

    def __init__(self, text: str, now: datetime.datetime) -> None:
        self._text = text
        self._now = now
        self._day: datetime.date | None = None
        self._month: int | None = None
        self._number: int | None = None
        """A number that waits for what it means; of a month's day or year if nothing comes."""
        self._year: int | None = None
        self._monthday: int | None = None
        self._clock: tuple[int, ...] = ()
        self._amounts: dict[str, int] = {}
        self._ago = False

    def span(self) -> tuple[float, float]:
        for match in _WORD.finditer(self._text):
            self._take(match[0].lower(), self._text[match.start() :])
        if self._number is not None:
            self._of_month(self._number, str(self._number))
        begin, seconds = self._found()
        return begin.timestamp(), begin.timestamp() + seconds - 1

    def _take(self, word: str, rest: str) -> None:
        if word.isdigit():
            if self._number is not None:
                self._of_month(self._number, rest)
            self._number = int(word[:9])
            return
        if _CLOCK.fullmatch(word):
            self._clock = tuple(int(part) for part in word.split(":"))
            return
        if word in ("am", "pm"):
            self._half_day(word, rest)
        elif word in _UNITS:
            unit = _UNITS[word]
            count = 1 if self._number is None else self._number
            self._amounts[unit] = self._amounts.get(unit, 0) + count
            self._number = None
        elif word == "ago":
            self._ago = True
        elif word in ("noon", "midnight"):
            self._clock = (12 if word == "noon" else 0, 0)
        elif word in ("today", "yesterday"):
            self._set_day(self._now.date() - datetime.timedelta(days=word == "yesterday"), rest)
        elif (number := _named(word, _DAYS)) is not None:
            back = (self._now.weekday() - number) % 7
            self._set_day(self._now.date() - datetime.timedelta(days=back), rest)
        elif (number := _named(word, _MONTHS)) is not None:
            if self._month is not None:
                raise _ambiguous(rest)
            self._month = number + 1
        else:
            reason = f'Unrecognized string in date/time specification at "{rest}".'
            after_number = self._text[:1].isdigit()
            raise ValueError(f"{reason}\n{_BAD_DATE}" if after_number else reason)

    def _half_day(self, word: str, rest: str) -> None:
        if self._number is not None:
            self._clock, self._number = (self._number,), None
        if not self._clock:
            raise _ambiguous(rest)
        hour, *more = self._clock
        self._clock = (hour % 12 + (12 if word == "pm" else 0), *more)

    def _set_day(self, day: datetime.date, rest: str) -> None:
        if self._day is not None:
            raise _ambiguous(rest)
        self._day = day

    def _of_month(self, number: int, rest: str) -> None:
        """A bare number beside a month's name: its day, or a year."""
        self._number = None
        if number >= 1000 and self._year is None:
            self._year = number
        elif self._day is None and self._monthday is None and not self._amounts:
            self._monthday = number
        else:
            raise _ambiguous(rest)

    def _found(self) -> tuple[datetime.datetime, int]:
        """The first second, and the length in seconds."""
        if self._month is not None:
            day, seconds = self._in_month()
        elif self._year is not None or self._monthday is not None:
            raise _ambiguous(str(self._monthday or self._year))
        else:
            day, seconds = self._day or self._now.date(), 86400
        day = _moved(day, self._amounts)
        begin = datetime.datetime.combine(day, datetime.time())
        short = {unit: n for unit, n in self._amounts.items() if unit in _SPANS}
        if short and (self._ago or len(self._amounts) > 1):
            finest = min(_SPANS[unit] for unit in short)
            back = sum(_SPANS[unit] * n for unit, n in short.items())
            moment = datetime.datetime.combine(day, self._now.time().replace(microsecond=0))
            return moment - datetime.timedelta(seconds=back + finest), finest
        if short:
            ((unit, number),) = short.items()
            clock = {"hours": (number,), "minutes": (self._now.hour, number)}
            at = clock.get(unit, (self._now.hour, self._now.minute, number))
            self._clock = tuple(at)
        if self._clock:
            hours, minutes, exact = (*self._clock, 0, 0)[:3]
            begin += datetime.timedelta(hours=hours, minutes=minutes, seconds=exact)
            seconds = (3600, 60, 1)[len(self._clock) - 1]
        return begin, seconds

    def _in_month(self) -> tuple[datetime.date, int]:
        assert self._month is not None
        year = self._now.year if self._year is None else self._year
        if not 1 <= year <= 9998:
            raise ValueError(_BAD_DATE)
        first = datetime.date(year, self._month, 1)
        if self._monthday is not None:
            return first + datetime.timedelta(days=self._monthday - 1), 86400
        return first, calendar.monthrange(year, self._month)[1] * 86400


def _moved(day: datetime.date, amounts: dict[str, int]) -> datetime.date:
    """Back by years, months, weeks and days; a day that its month has not is the next month's."""
    months = amounts.get("months", 0) + 12 * amounts.get("years", 0)
    if months:
        index = day.year * 12 + day.month - 1 - months
        if index < 12:
            raise ValueError(_BAD_DATE)
        first = datetime.date(index // 12, index % 12 + 1, 1)
        day = first + datetime.timedelta(days=day.day - 1)
    return day - datetime.timedelta(days=amounts.get("days", 0) + 7 * amounts.get("weeks", 0))


def _named(word: str, names: tuple[str, ...]) -> int | None:
    """The number of a name in full, or of its first three letters."""
    return next((n for n, name in enumerate(names) if word in (name, name[:3])), None)


def _ambiguous(rest: str) -> ValueError:
    return ValueError(f'Ambiguous date specification found at "{rest}".')
