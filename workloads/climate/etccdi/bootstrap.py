"""Percentile thresholds of each day of the year, and the in-base bootstrap of Zhang et al. (2005).

A threshold of a day of the year is a quantile of the days around it in all base years. A day of the base itself would
be compared with a threshold that it took part in, so there the year is left out, each other year is put in its place
once, and the share of the thresholds so made that the day exceeds is counted.

No threshold is made for that: a day x exceeds the one after year j took the place of year i if at most `above` of
the values are >= x, and doesn't if more than `deep` are, where these are the ranks between which the quantile lies.
How many values of each year are >= x is counted once; only where the count falls between the ranks the quantile is
interpolated, from the neighbours of x. Most days aren't even counted: the window's greatest values bound the ranks.

Everything is for days above a high quantile; for days below a low one the values are turned round (-x).

Sources: Zhang, Hegerl, Zwiers & Kenyon (2005), J. Climate 18, 1641-1651; Hyndman & Fan (1996), definition 8.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import njit

Array = np.ndarray[Any, Any]

HALF = 2
"""Days on either side of a day whose values count for its threshold."""

WINDOW = 2 * HALF + 1

LEAST = 0.1
"""The share of a window's values that must be there for a threshold."""

MISSING = -1
FUZZ = float(4 * np.finfo(np.float64).eps)
"""A place so near to a whole number is one, as in R."""


class Ranks(NamedTuple):
    """Between which of n values, the greatest having rank 0, a quantile lies: arrays by n.

    Attributes:
        above: rank of the upper one; `MISSING` where n is too few for a threshold.
        deep: rank of the lower one, which is the next, or the same at the ends.
        share: weight of the upper one.
    """

    above: Array
    deep: Array
    share: Array


def ranks_of(quantile: float, years: int, high: bool) -> Ranks:
    """Ranks of a quantile for any number of values in a window of `years` base years.

    Args:
        quantile: between 0 and 1; definition 8 of Hyndman and Fan.
        years: base years.
        high: whether the greatest value has rank 0, else the least.
    """
    n = np.arange((years + 1) * WINDOW + 1)
    place = n * quantile + (1 / 3 + quantile * (1 - 1 / 3 - 1 / 3)) - 1
    whole = np.floor(place + FUZZ)
    share = np.where(np.abs(place - whole) <= FUZZ, 0.0, place - whole)
    left = np.clip(whole, 0, np.maximum(n - 1, 0)).astype(np.int64)
    right = np.clip(whole + 1, 0, np.maximum(n - 1, 0)).astype(np.int64)
    few = (n < LEAST * WINDOW * years) | (n == 0)
    if high:
        return Ranks(np.where(few, MISSING, n - 1 - right), np.where(few, MISSING, n - 1 - left), share)
    return Ranks(np.where(few, MISSING, left), np.where(few, MISSING, right), 1 - share)


@njit(nogil=True)
def _between(lower: float, upper: float, share: float) -> float:
    """As NumPy and xclim interpolate, from the nearer value: thresholds that a day's value hits have their bits."""
    if lower == upper or share == 1.0:
        return upper
    if share >= 0.5:
        return upper - (upper - lower) * (1.0 - share)
    return lower if share == 0.0 else lower + (upper - lower) * share


@njit(nogil=True)
def definition_8(ordered: Any, quantile: float) -> float:
    """Quantile of ascending values (at least one)."""
    n = ordered.shape[0]
    place = n * quantile + (1 / 3 + quantile * (1 - 1 / 3 - 1 / 3)) - 1
    left = int(math.floor(place + FUZZ))
    share = place - left if abs(place - left) > FUZZ else 0.0
    return _between(ordered[min(max(left, 0), n - 1)], ordered[min(max(left + 1, 0), n - 1)], share)


@njit(nogil=True)
def _sorted_rows(table: Any) -> Any:
    """Each row's values that are there, the greatest first, and -inf behind them."""
    rows, width = table.shape
    out = np.full((rows, width + 1), -math.inf)
    for row in range(rows):
        kept = 0
        for i in range(width):
            value = table[row, i]
            if value == value:
                at = kept
                while at > 0 and out[row, at - 1] < value:
                    out[row, at] = out[row, at - 1]
                    at -= 1
                out[row, at] = value
                kept += 1
    return out


@njit(nogil=True)
def _drop(ordered: Any, value: float) -> None:
    """Take one value out of a row of `_sorted_rows`."""
    at = 0
    while ordered[at] != value:
        at += 1
    for i in range(at, ordered.shape[0] - 1):
        ordered[i] = ordered[i + 1]


@njit(nogil=True)
def _greatest(ordered: Any, top: Any) -> None:
    """The greatest values of several rows of `_sorted_rows`, in order, as many as `top` takes."""
    heads = np.zeros(ordered.shape[0], np.int64)
    for k in range(top.shape[0]):
        best = 0
        for o in range(1, ordered.shape[0]):
            if ordered[o, heads[o]] > ordered[best, heads[best]]:
                best = o
        top[k] = ordered[best, heads[best]]
        if heads[best] < ordered.shape[1] - 1:
            heads[best] += 1


@njit(nogil=True)
def _neighbours(pool: Any, leave_out: int, x: float) -> Any:
    """The greatest value below x and the least that isn't, among all years but one."""
    lower = -math.inf
    upper = math.inf
    for o in range(pool.shape[0]):
        for year in range(pool.shape[1]):
            value = pool[o, year]
            if year != leave_out and value == value:
                if value < x:
                    lower = max(lower, value)
                else:
                    upper = min(upper, value)
    return lower, upper


@njit(nogil=True)
def _count(pool: Any, x: float, out: Any) -> None:
    """How many values of each year are >= x."""
    out[:] = 0
    for o in range(pool.shape[0]):
        row = pool[o]
        for year in range(out.shape[0]):
            out[year] += np.int64(row[year] >= x)


class Window(NamedTuple):
    """The values around one day of the year, and room for counting them.

    Attributes:
        pool: (window, years) the values of each year; NaN where there is none.
        sizes: (years,) how many of them are there.
        counts: (years,) how many of them are at least as great as a value.
        put_in: (window, years) what each year puts in place of another: `pool`, but where the base's ends cut that.
        gained: (years,) as `sizes`, of `put_in`.
        gains: (years,) as `counts`, of `put_in`.
    """

    pool: Array
    sizes: Array
    counts: Array
    put_in: Array
    gained: Array
    gains: Array


@njit(nogil=True)
def _share_exceeded(window: Any, cut: bool, size: int, i: int, x: float, ranks: Any) -> float:
    """The share of the thresholds, made without year i and with each other year in its place, that x exceeds."""
    years = window.sizes.shape[0]
    _count(window.pool, x, window.counts)
    if cut:
        _count(window.put_in, x, window.gains)
    rest = window.counts.sum() - window.counts[i]
    lower = math.nan
    upper = math.nan
    exceeded = 0
    for j in range(years):
        if j == i:
            continue
        n = size - window.sizes[i] + (window.gained[j] if cut else window.sizes[j])
        greater = rest + (window.gains[j] if cut else window.counts[j])
        if ranks.above[n] < 0 or greater > ranks.deep[n]:
            continue
        if greater <= ranks.above[n]:
            exceeded += 1
            continue
        if lower != lower:
            lower, upper = _neighbours(window.pool, i, x)
        low = lower
        high = upper
        if cut:
            for o in range(WINDOW):
                value = window.put_in[o, j]
                if value < x:
                    low = max(low, value)
                elif value >= x:
                    high = min(high, value)
        exceeded += int(x > _between(low, high, ranks.share[n]))
    return float(exceeded / (years - 1))


@njit(nogil=True)
def _fill_window(table: Any, ordered: Any, day: int, wraps: bool, pool: Any, heads: Any) -> bool:
    """The values around a day of the year, and each of the window's days sorted; whether the base's ends cut it."""
    slots, years = table.shape
    cut = False
    for o in range(WINDOW):
        place = day + o - HALF
        row = place % slots
        pool[o] = table[row]
        heads[o] = ordered[row]
        if not wraps and not 0 <= place < slots:
            cut = True
            gone = years - 1 if place < 0 else 0
            if pool[o, gone] == pool[o, gone]:
                _drop(heads[o], pool[o, gone])
            pool[o, gone] = math.nan
    return cut


@njit(nogil=True)
def _put_in(table: Any, day: int, i: int, out: Any) -> None:
    """What years put in place of year i where the base's ends cut the window: only where year i has a place."""
    slots, years = table.shape
    for o in range(WINDOW):
        place = day + o - HALF
        if (place < 0 and i == years - 1) or (place >= slots and i == 0):
            out[o] = math.nan
        else:
            out[o] = table[place % slots]


@njit(nogil=True)
def _sizes(pool: Any, out: Any) -> int:
    """How many values of each year are there, and in all."""
    out[:] = 0
    for o in range(pool.shape[0]):
        for year in range(out.shape[0]):
            out[year] += np.int64(pool[o, year] == pool[o, year])
    return int(out.sum())


class Base(NamedTuple):
    """A pixel's values of the base period, NaN where missing.

    Attributes:
        table: (slots, years) each day of the year.
        leap: (years,) 29 February, which counts for no threshold.
        leap_slot: the slot whose threshold is its own; -1 for none.
    """

    table: Array
    leap: Array
    leap_slot: int


@njit(nogil=True)
def exceedance(base: Any, ranks: Any, wraps: bool, thresholds: Any, shares: Any, leap_shares: Any) -> None:
    """Thresholds of each day of the year, and how the base's own days stand to bootstrapped ones.

    Args:
        base: see `Base`.
        ranks: see `ranks_of`, for as many years.
        wraps: whether a window at a year's end goes on at the same year's beginning (climdex.pcic); else it goes on
            in the next year, and stops at the ends of the base (xclim).
        thresholds: (slots,) to fill; NaN where too few values are there.
        shares: (years, slots) to fill: the share of bootstrapped thresholds that the day exceeds, 0 where missing.
        leap_shares: (years,) to fill: the same of 29 February.
    """
    slots, years = base.table.shape
    ordered = _sorted_rows(base.table)
    heads = np.empty((WINDOW, years + 1))
    top = np.empty(ranks.deep[-1] + WINDOW + 1)
    window = Window(np.empty((WINDOW, years)), np.empty(years, np.int64), np.empty(years, np.int64),
                    np.empty((WINDOW, years)), np.empty(years, np.int64), np.empty(years, np.int64))  # fmt: skip
    for day in range(slots):
        cut = _fill_window(base.table, ordered, day, wraps, window.pool, heads)
        size = _sizes(window.pool, window.sizes)
        _greatest(heads, top)
        thresholds[day] = math.nan
        if ranks.above[size] >= 0:
            thresholds[day] = _between(top[ranks.deep[size]], top[ranks.above[size]], ranks.share[size])
        # Whatever year takes another's place, its ranks move by no more than a year's values.
        never = top[ranks.deep[min(size + WINDOW, ranks.deep.shape[0] - 1)] + WINDOW]
        surely = ranks.above[max(size - WINDOW, 0)] - WINDOW
        always = top[surely] if surely >= 0 else math.inf
        for i in range(years):
            for leap in range(2 if day == base.leap_slot else 1):
                x = base.leap[i] if leap else base.table[day, i]
                share = 0.0
                if x > always:
                    share = 1.0
                elif x > never:
                    if cut:
                        _put_in(base.table, day, i, window.put_in)
                        _sizes(window.put_in, window.gained)
                    share = _share_exceeded(window, cut, size, i, x, ranks)
                if leap:
                    leap_shares[i] = share
                else:
                    shares[i, day] = share
