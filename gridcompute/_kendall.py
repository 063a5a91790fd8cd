"""The Mann-Kendall test and the Theil-Sen line of one series, for the functions of `gridcompute.stats`."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from gridcompute._medians import median_near_mean, moderate
from gridcompute._pairs import median_slope, sort_falling, ties
from gridcompute._sen import signed_slope

SHORT = 256
"""Up to so many values pairs are counted while their slopes are computed: that is quicker than sorting."""


class MannKendall(NamedTuple):
    """Outcome of the Mann-Kendall trend test.

    Attributes:
        s: Mann-Kendall score, the number of rising minus falling pairs (a whole number).
        var_s: variance of `s` under no trend, corrected for ties.
        z: normal test statistic with continuity correction.
        p: two-sided p-value.
        tau: s / (n (n - 1) / 2).
    """

    s: float
    var_s: float
    z: float
    p: float
    tau: float


class Trend(NamedTuple):
    """Mann-Kendall test and Theil-Sen line of one series.

    Attributes:
        tau, p, z, s, var_s: as in `MannKendall`.
        slope: median pairwise slope, per step.
        intercept: value of the Theil-Sen line at position 0.
    """

    tau: float
    p: float
    z: float
    s: float
    var_s: float
    slope: float
    intercept: float


@njit(nogil=True)
def score_by_pairs(values: Any) -> Any:
    """Mann-Kendall score and number of tied pairs of `values` (no NaN), pair by pair: n(n-1)/2 steps."""
    n = values.shape[0]
    rising = 0
    falling = 0
    for lag in range(1, n):
        late = values[lag:]
        for i in range(n - lag):
            rising += int(late[i] > values[i])
            falling += int(late[i] < values[i])
    return rising - falling, n * (n - 1) // 2 - rising - falling


@njit(nogil=True)
def score_by_merging(values: Any) -> Any:
    """Score, number of tied pairs, and the ties' part of 18 times the variance, in n log n steps."""
    n = values.shape[0]
    falling, ordered = sort_falling(values.copy(), np.empty(n, np.float64))
    tied, correction = ties(ordered)
    return n * (n - 1) // 2 - tied - 2 * falling, tied, correction


@njit(nogil=True)
def variance(n: int, correction: float) -> float:
    """Variance of the score of n values under no trend; `correction` as `score_by_merging` gives it."""
    size = float(n)
    return (size * (size - 1.0) * (2.0 * size + 5.0) - correction) / 18.0


@njit(nogil=True)
def judged(s: float, var_s: float, pairs: float) -> MannKendall:
    """The test of a score: z with continuity correction, two-sided p, tau of so many pairs."""
    z = 0.0
    if s != 0.0:
        step = 1.0 if s > 0.0 else -1.0
        z = (s - step) / math.sqrt(var_s) if var_s > 0.0 else math.nan
    return MannKendall(s, var_s, z, math.erfc(abs(z) / math.sqrt(2.0)), s / pairs)


@njit(nogil=True)
def test_of(values: Any) -> MannKendall:
    """Mann-Kendall test of `values` (float64, no NaN)."""
    n = values.shape[0]
    if n < 2:
        return MannKendall(math.nan, math.nan, math.nan, math.nan, math.nan)
    score, _, correction = score_by_merging(values)
    return judged(float(score), variance(n, correction), 0.5 * float(n) * (float(n) - 1.0))


@njit(nogil=True)
def intercept_of(positions: Any, values: Any, slope: float) -> float:
    """Theil-Sen intercept; reorders `values`."""
    n = values.shape[0]
    if n < 2:
        return math.nan
    middle = (float(positions[(n - 1) // 2]) + float(positions[n // 2])) / 2.0
    return float(median_near_mean(values)) - middle * slope


@njit(nogil=True)
def line_of(test: MannKendall, positions: Any, values: Any, slope: float) -> Trend:
    """A test's outcome together with the Theil-Sen line; reorders `values`."""
    intercept = intercept_of(positions, values, slope)
    return Trend(test.tau, test.p, test.z, test.s, test.var_s, slope, intercept)


@njit(nogil=True)
def trend_of(positions: Any, values: Any) -> Trend:
    """Mann-Kendall test and Theil-Sen line of values at increasing positions (float64, no NaN); reorders `values`."""
    n = values.shape[0]
    if n < 2 or n > SHORT or not moderate(values):
        return line_of(test_of(values), positions, values, median_slope(positions, values))
    slope, rising, falling = signed_slope(positions, values)
    pairs = n * (n - 1) // 2
    correction = score_by_merging(values)[2] if rising + falling < pairs else 0.0
    test = judged(float(rising - falling), variance(n, correction), float(pairs))
    return line_of(test, positions, values, slope)
