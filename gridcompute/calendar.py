"""CF calendars in whole numbers: time units, dates from day counts and back, for arrays.

All of CF's calendars are here: standard (Julian until 1582-10-04, Gregorian from 1582-10-15), julian,
proleptic_gregorian, noleap, all_leap and 360_day. Instants are int64 microseconds since 1970-01-01 00:00 of
the calendar (in julian: since the Gregorian 1970-01-01, as the two share their count of days), so nothing is
rounded. The day arithmetic counts years from 1 March and days in eras of 400 (Gregorian) or 4 (Julian) years,
after H. Hinnant, "chrono-compatible low-level date algorithms" (2013).

>>> year, month, day = dates_of(np.array([59, 60]), "noleap")
>>> month.tolist(), day.tolist()
([3, 3], [1, 2])
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

Ints = Any  # int64 arrays; NumPy's stubs lose the type in arithmetic

DAY = 86_400_000_000
"""Microseconds of a day."""

ALIASES = {
    "": "standard",
    "standard": "standard",
    "gregorian": "standard",
    "proleptic_gregorian": "proleptic_gregorian",
    "julian": "julian",
    "noleap": "noleap",
    "365_day": "noleap",
    "no_leap": "noleap",
    "all_leap": "all_leap",
    "366_day": "all_leap",
    "360_day": "360_day",
}
"""Each name that CF allows, and the one used here."""

_SIZES = {
    "days": Fraction(DAY),
    "hours": Fraction(DAY, 24),
    "minutes": Fraction(60_000_000),
    "seconds": Fraction(1_000_000),
    "milliseconds": Fraction(1000),
    "microseconds": Fraction(1),
    "nanoseconds": Fraction(1, 1000),
}
_NAMES = {
    **{name: name for name in _SIZES},
    **{name[:-1]: name for name in _SIZES},
    "d": "days",
    "h": "hours",
    "hr": "hours",
    "hrs": "hours",
    "min": "minutes",
    "mins": "minutes",
    "s": "seconds",
    "sec": "seconds",
    "secs": "seconds",
    "ms": "milliseconds",
    "msec": "milliseconds",
    "msecs": "milliseconds",
    "millisec": "milliseconds",
    "millisecs": "milliseconds",
    "us": "microseconds",
    "microsec": "microseconds",
    "microsecs": "microseconds",
    "ns": "nanoseconds",
}
_UNIT = re.compile(r"^\s*([A-Za-z]+)\s+since\s+(.+?)\s*$")
_REFERENCE = re.compile(
    r"^([+-]?\d{1,6})(?:-(\d{1,2}))?(?:-(\d{1,2}))?"
    r"(?:[T ]\s*(\d{1,2})(?::(\d{1,2})(?::(\d{1,2}(?:\.\d*)?))?)?)?"
    r"\s*(Z|UTC|GMT|[+-]\d{1,2}(?::?\d{2})?)?$"
)
_SHIFT = -141_427  # 1582-10-15, the standard calendar's first Gregorian day, counted from 1970-01-01
GREGORIAN_START = _SHIFT * DAY
"""From this instant on, standard and proleptic_gregorian are the same."""
_NOLEAP = np.array([0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334, 365])
_ALL_LEAP = np.array([0, 31, 60, 91, 121, 152, 182, 213, 244, 274, 305, 335, 366])


@dataclass(frozen=True)
class TimeUnit:
    """A CF time unit such as "hours since 1970-01-01" in a calendar.

    Attributes:
        name: days, hours, minutes, seconds, milliseconds, microseconds or nanoseconds.
        reference: the date as it was written.
        calendar: the calendar's name (see `ALIASES`).
        origin: the reference as microseconds since 1970-01-01 of the calendar, UTC.
    """

    name: str
    reference: str
    calendar: str
    origin: int

    @classmethod
    def parse(cls, unit: str, calendar: str) -> TimeUnit | None:
        """Read a CF unit; None where it isn't a time since a date that this calendar has.

        "months since" counts 30 days in 360_day; in other calendars a month has no length, so it isn't read.
        """
        match, kind = _UNIT.match(unit), ALIASES.get(calendar.lower())
        if match is None or kind is None:
            return None
        name = _NAMES.get(match[1].lower())
        months = match[1].lower() in ("month", "months") and kind == "360_day"
        origin = instant_of(match[2], kind)
        if origin is None or (name is None and not months):
            return None
        return cls("months" if name is None else name, match[2], kind, origin)

    @property
    def size(self) -> Fraction:
        """Microseconds of one unit."""
        return Fraction(30 * DAY) if self.name == "months" else _SIZES[self.name]

    def renamed(self, name: str) -> TimeUnit:
        """The same reference counted in another unit."""
        return TimeUnit(name, self.reference, self.calendar, self.origin)

    def finer(self) -> list[TimeUnit]:
        """This unit and each smaller one, down to microseconds."""
        return [self, *(self.renamed(name) for name, size in _SIZES.items() if 1 <= size < self.size)]

    def micros(self, values: Ints) -> Ints:
        """Instants of int64 counts of this unit (nanoseconds are rounded down)."""
        size = self.size
        return np.asarray(values, np.int64) * size.numerator // size.denominator + self.origin

    def __str__(self) -> str:
        return f"{self.name} since {self.reference}"


def counted(values: Any, unit: TimeUnit) -> tuple[Ints, TimeUnit] | None:
    """Counts of a unit as int64, in the coarsest unit that gives floats back exactly (at worst microseconds).

    None where they can't be counted: not finite, NaT (the least int64), or instants beyond int64.
    """
    if values.dtype.kind in "iu":
        ends = [int(values.min(initial=0)), int(values.max(initial=0))]
        held = max(map(abs, ends)) * unit.size.numerator + abs(unit.origin) < 2**63
        return (values.astype(np.int64), unit) if held and values.dtype != np.uint64 else None
    if not np.isfinite(values).all():
        return None
    exact = values.astype(np.float64)
    last: tuple[Ints, TimeUnit] | None = None
    for finer in unit.finer():
        ratio = float(unit.size / finer.size)
        if np.abs(exact * ratio).max(initial=0.0) >= 2.0**62:
            break
        last = np.rint(exact * ratio).astype(np.int64), finer
        if ((last[0] / ratio).astype(values.dtype) == values).all():
            return last
    return last


def instant_of(text: str, calendar: str) -> int | None:
    """Microseconds since 1970-01-01 of a date such as "1850-1-1 00:00:0.0 +01:00"; None if unreadable."""
    match = _REFERENCE.match(text.strip())
    if match is None:
        return None
    year, month, day = int(match[1]), int(match[2] or 1), int(match[3] or 1)
    hour, minute, second = int(match[4] or 0), int(match[5] or 0), Fraction((match[6] or "0").rstrip("."))
    if not (1 <= month <= 12 and 1 <= day <= 31 and hour < 24 and minute < 60 and second < 60):
        return None
    days = int(days_of(np.array([year]), np.array([month]), np.array([day]), calendar)[0])
    if tuple(int(part[0]) for part in dates_of(np.array([days]), calendar)) != (year, month, day):
        return None  # a date that the calendar doesn't have, such as 31 February
    micros = days * DAY + (hour * 60 + minute) * 60_000_000 + int(second * 1_000_000)
    return micros - _zone(match[7])


def _zone(text: str | None) -> int:
    if text is None or text in ("Z", "UTC", "GMT"):
        return 0
    sign, digits = (-1 if text[0] == "-" else 1), text[1:].replace(":", "")
    hours, minutes = (digits, "0") if len(digits) <= 2 else (digits[:-2], digits[-2:])
    return sign * (int(hours) * 60 + int(minutes)) * 60_000_000


def days_of(year: Ints, month: Ints, day: Ints, calendar: str) -> Ints:
    """Days since 1970-01-01 of the calendar; all arrays int64 of one shape."""
    year, month, day = (np.asarray(part, np.int64) for part in (year, month, day))
    if calendar == "360_day":
        return (year - 1970) * 360 + (month - 1) * 30 + day - 1
    if calendar in ("noleap", "all_leap"):
        starts = _NOLEAP if calendar == "noleap" else _ALL_LEAP
        return (year - 1970) * int(starts[12]) + starts[month - 1] + day - 1
    if calendar == "proleptic_gregorian":
        return _gregorian_days(year, month, day)
    if calendar == "julian":
        return _julian_days(year, month, day)
    old = (year < 1582) | ((year == 1582) & ((month < 10) | ((month == 10) & (day < 15))))
    return np.where(old, _julian_days(year, month, day), _gregorian_days(year, month, day))


def dates_of(days: Ints, calendar: str) -> tuple[Ints, Ints, Ints]:
    """Year (astronomical: 0 is 1 BC), month (1..12) and day (1..31) of days since 1970-01-01."""
    days = np.asarray(days, np.int64)
    if calendar == "360_day":
        year, rest = np.divmod(days, 360)
        return year + 1970, rest // 30 + 1, rest % 30 + 1
    if calendar in ("noleap", "all_leap"):
        starts = _NOLEAP if calendar == "noleap" else _ALL_LEAP
        year, rest = np.divmod(days, int(starts[12]))
        month = np.searchsorted(starts, rest, side="right").astype(np.int64)
        return year + 1970, month, rest - starts[month - 1] + 1
    if calendar == "proleptic_gregorian":
        return _gregorian_dates(days)
    if calendar == "julian":
        return _julian_dates(days)
    old, new = _julian_dates(days), _gregorian_dates(days)
    year, month, day = (np.where(days < _SHIFT, a, b) for a, b in zip(old, new, strict=True))
    return year, month, day


def _gregorian_days(year: Ints, month: Ints, day: Ints) -> Ints:
    year = year - (month <= 2)
    era, rest = np.divmod(year, 400)
    day_of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    return era * 146_097 + rest * 365 + rest // 4 - rest // 100 + day_of_year - 719_468


def _gregorian_dates(days: Ints) -> tuple[Ints, Ints, Ints]:
    era, rest = np.divmod(days + 719_468, 146_097)
    year = (rest - rest // 1460 + rest // 36_524 - rest // 146_096) // 365
    return _from_march(era * 400 + year, rest - (365 * year + year // 4 - year // 100))


def _julian_days(year: Ints, month: Ints, day: Ints) -> Ints:
    year = year - (month <= 2)
    era, rest = np.divmod(year, 4)
    # Counted like the Gregorian days, so that 1582-10-04 (Julian) is the day before 1582-10-15.
    return era * 1461 + rest * 365 + (153 * ((month + 9) % 12) + 2) // 5 + day - 1 - 719_470


def _julian_dates(days: Ints) -> tuple[Ints, Ints, Ints]:
    era, rest = np.divmod(days + 719_470, 1461)
    year = (rest - rest // 1460) // 365
    return _from_march(era * 4 + year, rest - 365 * year)


def _from_march(year: Ints, day_of_year: Ints) -> tuple[Ints, Ints, Ints]:
    month = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * month + 2) // 5 + 1
    month = np.where(month < 10, month + 3, month - 9)
    return year + (month <= 2), month, day
