"""Where the days of a daily series lie: in which year, month and day of the year, and which belong to the base."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from gridcompute.calendar import DAY, dates_of, days_of
from gridcompute.coords import Coordinate
from gridcompute.errors import ParameterError

Array = np.ndarray[Any, Any]

LENGTHS = {"360_day": 360, "all_leap": 366}
"""Days of a year of a CF calendar on which thresholds are taken; 365 in the others, whose 29 February is the 28th."""


class Days(NamedTuple):
    """The days of whole calendar years, from the first to the last that a series touches.

    Attributes:
        place: (steps,) the day of each step of the series.
        year: (days,) number of the day's year.
        month: (days,) number of its month, twelve a year.
        period: (days,) number of what monthly indices are given for: the month, or the year.
        slot: (days,) day of the year, from 0.
        base: (base years, slots) the day, or -1 outside the series.
        base_year: (days,) number of the base year, or -1 outside the base.
        leap: (base years,) 29 February, where its threshold is that of the 28th; else -1.
        seasons: (2, years, 3) first day, turning day and end of each year's growing season, in the north and in the
            south, where it begins in July; the end is the beginning where the series doesn't hold it all.
        monthly: whether periods are months.
    """

    place: Array
    year: Array
    month: Array
    period: Array
    slot: Array
    base: Array
    base_year: Array
    leap: Array
    seasons: Array
    monthly: bool


def days_of_series(time: Coordinate, base: tuple[int, int], monthly: bool) -> Days:
    """The days of a daily time axis.

    Args:
        time: dates in any CF calendar; days that are left out count as missing.
        base: first and last year of the base period.
        monthly: whether monthly indices are given per month, or per year too.

    Raises:
        ParameterError: dates that aren't daily, don't increase or stand twice; less than two years of data in the base.
    """
    calendar = time.time_unit.calendar
    stamps = np.floor_divide(time.micros, DAY)
    _require_daily(time, stamps)
    years = dates_of(stamps[[0, -1]], calendar)[0]
    first, last = int(years[0]), int(years[1])
    start, end = _first_days(np.array([first, last + 1]), 1, calendar)
    days = np.arange(start, end)
    year, month, day = dates_of(days, calendar)
    if min(last, base[1]) - max(first, base[0]) < 1:
        raise ParameterError(
            f"the base period {base[0]}-{base[1]} has less than two years of the data, which are of {first} to {last}",
            hint=f"choose it within the data, such as {first}-{min(last, first + 29)}",
        )
    slots = LENGTHS.get(calendar, 365)
    number = year - first
    slot = _slots(days, year, month, day, calendar)
    places = np.full((base[1] - base[0] + 1, slots), -1, np.int64)
    inside = (year >= base[0]) & (year <= base[1])
    extra = (month == 2) & (day == 29) & (slots == 365)
    counted, leaps = np.flatnonzero(inside & ~extra), np.flatnonzero(inside & extra)
    places[year[counted] - base[0], slot[counted]] = counted
    leap = np.full(len(places), -1, np.int64)
    leap[year[leaps] - base[0]] = leaps
    months = number * 12 + month - 1
    return Days(stamps - start, number, months, months if monthly else number, slot, places,
                np.where(inside, year - base[0], -1), leap, _seasons(first, last, start, calendar), monthly)


def period_starts(time: Coordinate, monthly: bool) -> Array:
    """First day of each year (or month) that the days of a series have, counted from 1970-01-01 of the calendar."""
    calendar = time.time_unit.calendar
    years = dates_of(np.floor_divide(time.micros[[0, -1]], DAY), calendar)[0]
    every = np.arange(int(years[0]), int(years[1]) + 1)
    if not monthly:
        return _first_days(every, 1, calendar)
    return np.stack([_first_days(every, month, calendar) for month in range(1, 13)], 1).reshape(-1)


def _first_days(years: Array, month: int, calendar: str) -> Array:
    found: Array = days_of(years, np.full_like(years, month), np.ones_like(years), calendar)
    return found


def _slots(days: Array, year: Array, month: Array, day: Array, calendar: str) -> Array:
    """Day of the year from 0; in calendars with leap days 29 February has the slot of the 28th."""
    slot: Array = days - days_of(year, np.ones_like(year), np.ones_like(year), calendar)
    if calendar in ("360_day", "noleap", "all_leap"):
        return slot
    march = days_of(year, np.full_like(year, 3), np.ones_like(year), calendar)
    long = march - days_of(year, np.ones_like(year), np.ones_like(year), calendar) == 60
    after: Array = slot - (long & ((month > 2) | ((month == 2) & (day == 29))))
    return after


def _seasons(first: int, last: int, start: int, calendar: str) -> Array:
    """See `Days.seasons`."""
    years = np.arange(first, last + 1)
    here, july, then, later = (_first_days(years + more, month, calendar) - start
                               for more, month in ((0, 1), (0, 7), (1, 1), (1, 7)))
    north = np.stack([here, july, then], 1)
    south = np.stack([july, then, np.where(years < last, later, july)], 1)
    return np.stack([north, south]).astype(np.int64)


def _require_daily(time: Coordinate, stamps: Array) -> None:
    steps = np.diff(stamps)
    if not len(steps):
        raise ParameterError(f"{time.name!r} has a single date", hint="indices need daily data of two years at least")
    if steps.min() < 0:
        where = int(np.argmin(steps >= 0)) + 1
        raise ParameterError(
            f"the dates of {time.name!r} don't increase: {time.labels()[where]} comes after {time.labels()[where - 1]}",
            hint="sort the input by time first",
        )
    if steps.min() == 0:
        where = int(np.argmin(steps != 0)) + 1
        raise ParameterError(
            f"{time.name!r} has two dates on one day: {time.labels()[where - 1]} and {time.labels()[where]}",
            hint="indices need daily values: take maxima, minima or sums of each day first, and each day once",
        )
    if float(np.median(steps)) > 1:
        raise ParameterError(
            f"{time.name!r} has steps of {float(np.median(steps)):g} days", hint="indices need daily values"
        )
