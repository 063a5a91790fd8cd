"""Statistics of one cell's series, for use inside kernels.

Every function is compiled (nogil), callable from other kernels and from Python on one-dimensional NumPy
arrays of any integer or float type, computes in float64 in strict IEEE order, and gives the same bits under
NUMBA_DISABLE_JIT=1. NaN means missing: such values are left out, and slopes use the positions of the values
that remain. Slopes are per step of the series (its index), in the series' unit.

The Mann-Kendall functions follow pymannkendall's `original_test`: S, its variance, Z and tau equal it
exactly, p within 1e-12, slope and intercept to the last bit. With fewer than two valid values, where that
raises, the answer here is NaN.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from gridcompute._corrected import hamed_rao, seasonal_kendall, trend_free_prewhitened, yue_wang
from gridcompute._kendall import MannKendall, Trend, intercept_of, test_of, trend_of
from gridcompute._medians import select
from gridcompute._pairs import median_slope
from gridcompute._sen import valid_values

__all__ = [
    "LinearTrend",
    "MannKendall",
    "Trend",
    "hamed_rao",
    "kendall_tau",
    "linear_trend",
    "mann_kendall",
    "nanmean",
    "nanquantile",
    "nanvar",
    "seasonal_kendall",
    "sen_intercept",
    "sen_slope",
    "trend",
    "trend_free_prewhitened",
    "yue_wang",
]


class LinearTrend(NamedTuple):
    """Least-squares line.

    Attributes:
        slope: per step.
        intercept: value of the line at position 0.
    """

    slope: float
    intercept: float


@njit(nogil=True)
def mann_kendall(series: Any) -> MannKendall:
    """Mann-Kendall test for a monotonic trend.

    Args:
        series: shape (n,); NaN is left out. Equal infinities count as ties.

    Returns:
        s, var_s, z, p, tau; all NaN with fewer than two valid values. A constant series has s = z = 0 and p =
        1.

    Sources: Mann (1945), Econometrica 13; Kendall (1975), Rank Correlation Methods; ties as Gilbert (1987).
    """
    _, values = valid_values(series)
    return test_of(values)


@njit(nogil=True)
def kendall_tau(series: Any) -> float:
    """Kendall's tau of a series against time: S / (n (n - 1) / 2), pymannkendall's `Tau` (tau-a, ties not
    corrected).

    Args:
        series: shape (n,); NaN is left out.

    Returns:
        tau in [-1, 1]; NaN with fewer than two valid values.
    """
    _, values = valid_values(series)
    return test_of(values).tau


@njit(nogil=True)
def sen_slope(series: Any) -> float:
    """Theil-Sen slope: the exact median of all pairwise slopes (the mean of the middle two if their number is
    even).

    Args:
        series: shape (n,); NaN is left out, the others keep their positions; as pymannkendall's `slope`,
        equal to
            `numpy.nanmedian` of all slopes (x[j] - x[i]) / (j - i) to the last bit. Slopes between equal
            infinities are undefined and left out.

    Returns:
        Slope per step; NaN with fewer than two valid values.

    Memory: 8 bytes for each of the n (n - 1) / 2 slopes up to n = 700, and never more than 4 MiB and a few
    rows of n values beyond. Time grows with n log n beyond; with n squared where infinities or equal slopes abound.
    """
    positions, values = valid_values(series)
    return median_slope(positions, values)


@njit(nogil=True)
def sen_intercept(series: Any) -> float:
    """Intercept of the Theil-Sen line: median(x) - median(positions of the valid values) * slope (Conover
    1980).

    Args:
        series: shape (n,); NaN is left out, the others keep their positions.

    Returns:
        Value at position 0; NaN with fewer than two valid values.
    """
    positions, values = valid_values(series)
    return intercept_of(positions, values, median_slope(positions, values))


@njit(nogil=True)
def trend(series: Any) -> Trend:
    """Mann-Kendall test and Theil-Sen line together.

    Args:
        series: shape (n,); NaN is left out, the others keep their positions.

    Returns:
        tau, p, z, s, var_s, slope, intercept: as `mann_kendall`, `sen_slope` and `sen_intercept` give them.
    """
    positions, values = valid_values(series)
    return trend_of(positions, values)


@njit(nogil=True)
def _sum(values: Any) -> float:
    """Sum in eight fixed lanes joined as a tree, so the order of additions doesn't depend on the compiler."""
    a = b = c = d = e = f = g = h = 0.0
    n = values.shape[0]
    whole = n - n % 8
    for i in range(0, whole, 8):
        a += float(values[i])
        b += float(values[i + 1])
        c += float(values[i + 2])
        d += float(values[i + 3])
        e += float(values[i + 4])
        f += float(values[i + 5])
        g += float(values[i + 6])
        h += float(values[i + 7])
    rest = 0.0
    for i in range(whole, n):
        rest += float(values[i])
    return (((a + e) + (c + g)) + ((b + f) + (d + h))) + rest


@njit(nogil=True)
def nanmean(series: Any) -> float:
    """Mean of the valid values, accumulated in float64; NaN if there are none.

    Args:
        series: shape (n,); NaN is left out.
    """
    _, values = valid_values(series)
    n = values.shape[0]
    return float(_sum(values) / n) if n > 0 else math.nan


@njit(nogil=True)
def nanvar(series: Any, ddof: int = 0) -> float:
    """Variance of the valid values in two passes: sum((x - mean)^2) / (n - ddof).

    Args:
        series: shape (n,); NaN is left out.
        ddof: 0 for the population's variance, 1 for the sample's.

    Returns:
        NaN unless there are more than `ddof` valid values.
    """
    _, values = valid_values(series)
    n = values.shape[0]
    if n <= ddof or n == 0:
        return math.nan
    mean = _sum(values) / n
    for i in range(n):
        deviation = float(values[i]) - mean
        values[i] = deviation * deviation
    return float(_sum(values) / (n - ddof))


@njit(nogil=True)
def nanquantile(series: Any, q: float) -> float:
    """Quantile of the valid values, by linear interpolation between order statistics (NumPy's default
    method).

    Args:
        series: shape (n,); NaN is left out.
        q: in [0, 1].

    Returns:
        The quantile, equal to `numpy.nanquantile` to the last bit for finite values; where an infinity is the
        order statistic asked for, that infinity (NumPy gives NaN). NaN if there are no valid values.

    Raises:
        ValueError: q is outside [0, 1] or NaN.
    """
    if not 0.0 <= q <= 1.0:
        raise ValueError("nanquantile: q must lie in [0, 1]")
    _, values = valid_values(series)
    n = values.shape[0]
    if n == 0:
        return math.nan
    place = (n - 1) * q
    below = int(math.floor(place))
    a = float(select(values, below))
    weight = float(place - below)
    if below >= n - 1 or weight == 0.0:
        return a
    b = float(values[below + 1])
    for i in range(below + 2, n):
        if values[i] < b:
            b = float(values[i])
    if a == b:
        return a
    if weight >= 0.5:
        return b - (b - a) * (1.0 - weight)
    return a + (b - a) * weight


@njit(nogil=True)
def linear_trend(series: Any) -> LinearTrend:
    """Least-squares line of a series against its positions.

    Args:
        series: shape (n,); NaN is left out, the others keep their positions.

    Returns:
        slope and intercept (the value at position 0); NaN with fewer than two valid values.

    Formula: slope = sum((t - mean t)(x - mean x)) / sum((t - mean t)^2).
    """
    positions, values = valid_values(series)
    n = values.shape[0]
    if n < 2:
        return LinearTrend(math.nan, math.nan)
    middle = _sum(positions) / n
    mean = _sum(values) / n
    products = np.empty(n, np.float64)
    squares = np.empty(n, np.float64)
    for i in range(n):
        t = float(positions[i]) - middle
        products[i] = t * (float(values[i]) - mean)
        squares[i] = t * t
    slope = float(_sum(products) / _sum(squares))
    return LinearTrend(slope, float(mean - slope * middle))
