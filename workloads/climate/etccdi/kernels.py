"""Kernels of the ETCCDI indices, one for each set of series that it takes.

Values are turned into degC and mm a day in the precision that they come in, so that 273.15 K is 0 degC in float32 too.
A month with more than three missing days has no result, nor a year with such a month or more than 15 missing days.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from .bootstrap import Array, Base, definition_8, exceedance

MONTH_MISSING = 3
YEAR_MISSING = 15
SPELL = 6
"""Days in a row that make a warm or cold spell, or begin and end a growing season."""

GROWTH = 5.0
"""Mean temperature above which things grow, degC."""

WET = 1.0
"""Least precipitation of a wet day, mm."""


class Scale(NamedTuple):
    """From a unit to degC or mm a day: values times `factor` plus `shift`, arrays of one value of the series' dtype."""

    factor: Array
    shift: Array


@njit(nogil=True)
def filled(series: Any, scale: Any, days: Any) -> Any:
    """Every day's value in float64; NaN where it is missing."""
    out = np.full(days.year.shape[0], math.nan)
    for i in range(series.shape[0]):
        out[days.place[i]] = series[i] * scale.factor[0] + scale.shift[0]
    return out


@njit(nogil=True)
def complete(values: Any, days: Any) -> Any:
    """Which periods and years have few enough missing days."""
    years = days.seasons.shape[1]
    missing = np.zeros(12 * years, np.int64)
    for day in range(values.shape[0]):
        if values[day] != values[day]:
            missing[days.month[day]] += 1
    year_ok = np.empty(years, np.bool_)
    for year in range(years):
        of_year = missing[12 * year : 12 * year + 12]
        year_ok[year] = of_year.max() <= MONTH_MISSING and of_year.sum() <= YEAR_MISSING
    if days.monthly:
        return missing <= MONTH_MISSING, year_ok
    return year_ok, year_ok


@njit(nogil=True)
def masked(values: Any, ok: Any) -> Any:
    """The values as float64, NaN where not ok."""
    out = np.empty(values.shape[0])
    for i in range(values.shape[0]):
        out[i] = values[i] if ok[i] else math.nan
    return out


@njit(nogil=True)
def spell_days(inside: Any, days: Any) -> Any:
    """Days of each year in spells of at least `SPELL` days within the year."""
    out = np.zeros(days.seasons.shape[1], np.int64)
    run = 0
    for day in range(inside.shape[0]):
        year = days.year[day]
        if day > 0 and days.year[day - 1] != year:
            run = 0
        run = run + 1 if inside[day] else 0
        if run == SPELL:
            out[year] += SPELL
        elif run > SPELL:
            out[year] += 1
    return out


@njit(nogil=True)
def longest(inside: Any, known: Any, days: Any) -> Any:
    """Each year's longest run among those that end in it; NaN in a year that lies within one."""
    years = days.seasons.shape[1]
    out = np.zeros(years)
    broken = np.zeros(years, np.bool_)
    run = 0
    last = inside.shape[0] - 1
    for day in range(last + 1):
        year = days.year[day]
        if inside[day]:
            run += 1
            if day == last or not inside[day + 1]:
                out[year] = max(out[year], float(run))
        else:
            run = 0
            broken[year] |= known[day]
    for year in range(years):
        if out[year] == 0.0 and not broken[year]:
            out[year] = math.nan
    return out


@njit(nogil=True)
def growing(mean: Any, begin: int, turn: int, end: int) -> float:
    """Length of a growing season: from the first warm spell before the turn to the first cold spell after it."""
    start = -1
    run = 0
    for day in range(begin, turn):
        run = run + 1 if mean[day] > GROWTH else 0
        if run == SPELL:
            start = day - SPELL + 1
            break
    if start < 0:
        return 0.0
    run = 0
    for day in range(turn, end):
        run = run + 1 if mean[day] < GROWTH else 0
        if run == SPELL:
            return float(day - SPELL + 1 - start)
    return float(end - start)


def temperature_counts(series, scale, days, hot, cold):  # type: ignore[no-untyped-def]  # numba infers the types
    """Days of each year above `hot` and below `cold`, greatest and least value of each period."""
    values = filled(series, scale, days)
    period_ok, year_ok = complete(values, days)
    above = np.zeros(year_ok.shape[0], np.int64)
    below = np.zeros(year_ok.shape[0], np.int64)
    highest = np.full(period_ok.shape[0], -math.inf)
    lowest = np.full(period_ok.shape[0], math.inf)
    for day in range(values.shape[0]):
        value = values[day]
        if value == value:
            above[days.year[day]] += np.int64(value > hot)
            below[days.year[day]] += np.int64(value < cold)
            highest[days.period[day]] = max(highest[days.period[day]], value)
            lowest[days.period[day]] = min(lowest[days.period[day]], value)
    return masked(above, year_ok), masked(below, year_ok), masked(highest, period_ok), masked(lowest, period_ok)


LEAP_SLOT = 58
"""28 February."""


@njit(nogil=True)
def exceeded_days(values: Any, days: Any, sign: float, ranks: Any, wraps: bool) -> Any:
    """How far each day exceeds its threshold: 0 to 1 in the base, 0 or 1 elsewhere, NaN where unknown.

    Returns:
        that, and which days exceed the threshold of the base as it is.
    """
    years, slots = days.base.shape
    base = Base(np.full((slots, years), math.nan), np.full(years, math.nan), LEAP_SLOT)
    for year in range(years):
        for slot in range(slots):
            if days.base[year, slot] >= 0:
                base.table[slot, year] = sign * values[days.base[year, slot]]
        if days.leap[year] >= 0:
            base.leap[year] = sign * values[days.leap[year]]
    thresholds = np.empty(slots)
    shares = np.empty((years, slots))
    leap_shares = np.empty(years)
    exceedance(base, ranks, wraps, thresholds, shares, leap_shares)
    out = np.empty(values.shape[0])
    plain = np.empty(values.shape[0], np.bool_)
    for day in range(values.shape[0]):
        value = sign * values[day]
        threshold = thresholds[days.slot[day]]
        year = days.base_year[day]
        plain[day] = value > threshold
        if year >= 0:
            out[day] = leap_shares[year] if days.leap[year] == day else shares[year, days.slot[day]]
        else:
            known = value == value and threshold == threshold
            out[day] = np.float64(plain[day]) if known else math.nan
    return out, plain


@njit(nogil=True)
def percent(exceeded: Any, period_ok: Any, days: Any) -> Any:
    """Percentage of each period's days that exceed their thresholds."""
    total = np.zeros(period_ok.shape[0])
    known = np.zeros(period_ok.shape[0], np.int64)
    unknown = np.zeros(period_ok.shape[0], np.int64)
    for day in range(exceeded.shape[0]):
        period = days.period[day]
        if exceeded[day] == exceeded[day]:
            total[period] += exceeded[day]
            known[period] += 1
        else:
            unknown[period] += 1
    out = np.full(period_ok.shape[0], math.nan)
    allowed = MONTH_MISSING if days.monthly else YEAR_MISSING
    for period in range(out.shape[0]):
        if period_ok[period] and known[period] > 0 and unknown[period] <= allowed:
            out[period] = 100.0 * total[period] / known[period]
    return out


def percentile_days(series, scale, days, low, high, warm, wraps):  # type: ignore[no-untyped-def]
    """Percentage of days below the 10th and above the 90th percentile, days in warm (or cold) spells."""
    values = filled(series, scale, days)
    period_ok, year_ok = complete(values, days)
    below, cold = exceeded_days(values, days, -1.0, low, wraps)
    above, hot = exceeded_days(values, days, 1.0, high, wraps)
    spells = spell_days(hot if warm else cold, days)
    return percent(below, period_ok, days), percent(above, period_ok, days), masked(spells, year_ok)


def warm_days(series, scale, days, high, wraps):  # type: ignore[no-untyped-def]
    """Days of each year above the 90th percentile; a base day counts by its share of bootstrapped thresholds."""
    exceeded, _ = exceeded_days(filled(series, scale, days), days, 1.0, high, wraps)
    out = np.zeros(days.seasons.shape[1])
    for day in range(exceeded.shape[0]):
        if exceeded[day] == exceeded[day]:
            out[days.year[day]] += exceeded[day]
    return out


def both_temperatures(tx, tn, south, scale_x, scale_n, days):  # type: ignore[no-untyped-def]
    """Mean daily range, and the growing season's length, by July in the north and by January in the south."""
    warm = filled(tx, scale_x, days)
    cold = filled(tn, scale_n, days)
    mean = (warm + cold) / 2.0
    period_ok, year_ok = complete(mean, days)
    total = np.zeros(period_ok.shape[0])
    known = np.zeros(period_ok.shape[0], np.int64)
    for day in range(mean.shape[0]):
        if mean[day] == mean[day]:
            total[days.period[day]] += warm[day] - cold[day]
            known[days.period[day]] += 1
    span = np.full(period_ok.shape[0], math.nan)
    for period in range(span.shape[0]):
        if known[period] > 0:
            span[period] = total[period] / known[period]
    half = np.int64(south)
    season = np.full(year_ok.shape[0], math.nan)
    for year in range(season.shape[0]):
        begin, turn, end = days.seasons[half, year]
        missing = 0
        for day in range(begin, end):
            missing += int(mean[day] != mean[day])
        if end > begin and missing <= YEAR_MISSING and (half == 1 or year_ok[year]):
            season[year] = growing(mean, begin, turn, end)
    return masked(span, period_ok), season


@njit(nogil=True)
def five_days(values: Any, day: int) -> float:
    """Sum of the five days around a day, missing ones counting as dry; 0 within two days of the series' ends."""
    total = 0.0
    if day >= 2 and day < values.shape[0] - 2:
        for i in range(day - 2, day + 3):
            if values[i] == values[i]:
                total += values[i]
    return total


@njit(nogil=True)
def wet_quantiles(values: Any, days: Any) -> Any:
    """The 95th and 99th percentile (definition 8) of the base's wet days; NaN if it has none."""
    wet = np.empty(values.shape[0])
    n = 0
    for day in range(values.shape[0]):
        if days.base_year[day] >= 0 and values[day] >= WET:
            wet[n] = values[day]
            n += 1
    if n == 0:
        return math.nan, math.nan
    ordered = np.sort(wet[:n])
    return definition_8(ordered, 0.95), definition_8(ordered, 0.99)


def precipitation(series, scale, days, amount):  # type: ignore[no-untyped-def]
    """All indices of precipitation; `amount` is that of rnnmm."""
    values = filled(series, scale, days)
    period_ok, year_ok = complete(values, days)
    years = year_ok.shape[0]
    most, most_of_five = np.full(period_ok.shape[0], -math.inf), np.zeros(period_ok.shape[0])
    counts = np.zeros((4, years))
    sums = np.zeros((3, years))
    very, extremely = wet_quantiles(values, days)
    for day in range(values.shape[0]):
        value, year, period = values[day], days.year[day], days.period[day]
        most_of_five[period] = max(most_of_five[period], five_days(values, day))
        if value != value:
            continue
        most[period] = max(most[period], value)
        counts[1, year] += np.int64(value >= 10.0)
        counts[2, year] += np.int64(value >= 20.0)
        counts[3, year] += np.int64(value >= amount)
        if value >= WET:
            counts[0, year] += 1
            sums[0, year] += value
        if value > very:
            sums[1, year] += value
        if value > extremely:
            sums[2, year] += value
    intensity = np.zeros(years)
    for year in range(years):
        if counts[0, year] > 0:
            intensity[year] = sums[0, year] / counts[0, year]
    known = values == values
    base_ok = year_ok & (very == very)
    return (masked(most, period_ok), masked(most_of_five, period_ok), masked(intensity, year_ok),
            masked(counts[1], year_ok), masked(counts[2], year_ok), masked(counts[3], year_ok),
            masked(longest(values < WET, known, days), year_ok), masked(longest(values >= WET, known, days), year_ok),
            masked(sums[1], base_ok), masked(sums[2], base_ok), masked(sums[0], year_ok))
