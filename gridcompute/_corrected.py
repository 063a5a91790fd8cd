"""Mann-Kendall tests for series whose values depend on each other: by serial correlation, or on the season.

They follow pymannkendall's `hamed_rao_modification_test`, `yue_wang_modification_test`,
`trend_free_pre_whitening_modification_test` and `seasonal_test`, missing values included.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from gridcompute._kendall import Trend, judged, line_of, score_by_merging, test_of, variance
from gridcompute._medians import drop_nan, median, middle_near
from gridcompute._pairs import median_slope
from gridcompute._sen import all_slopes, valid_values

CRITICAL = 1.959963984540054
"""Two-sided 5 % point of the normal distribution."""


@njit(nogil=True)
def _product(a: Any, b: Any) -> float:
    """Sum of products in eight fixed lanes."""
    lanes = np.zeros(8, np.float64)
    n = a.shape[0]
    whole = n - n % 8
    for i in range(0, whole, 8):
        for lane in range(8):
            lanes[lane] += a[i + lane] * b[i + lane]
    for i in range(whole, n):
        lanes[i - whole] += a[i] * b[i]
    return float(((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7])))


@njit(nogil=True)
def _correlation(centred: Any, lag: int, whole: float) -> float:
    """Autocorrelation at a lag; `whole` is the sum of squares over n."""
    n = centred.shape[0]
    if whole == 0.0:
        return math.nan
    return float(_product(centred[lag:], centred[: n - lag]) / n / whole)


@njit(nogil=True)
def _detrended(values: Any, slope: float) -> Any:
    out = np.empty(values.shape[0], np.float64)
    for i in range(values.shape[0]):
        out[i] = values[i] - (i + 1) * slope
    return out


@njit(nogil=True)
def _centred(values: Any) -> Any:
    n = values.shape[0]
    return values - _product(values, np.ones(n, np.float64)) / n


@njit(nogil=True)
def _ranks(values: Any) -> Any:
    """Ranks about their mean, equal values sharing theirs: whole and half numbers, whose products are exact."""
    n = values.shape[0]
    order = np.argsort(values)
    out = np.empty(n, np.float64)
    i = 0
    while i < n:
        j = i + 1
        while j < n and values[order[j]] == values[order[i]]:
            j += 1
        for k in range(i, j):
            out[order[k]] = (i + 1 + j) / 2.0 - (n + 1) / 2.0
        i = j
    return out


@njit(nogil=True)
def hamed_rao(series: Any, critical: float = CRITICAL) -> Trend:
    """Mann-Kendall test whose variance is corrected for the autocorrelation of ranks (Hamed & Rao 1998).

    Args:
        series: shape (n,); NaN is left out.
        critical: autocorrelations beyond `critical` / sqrt(n) count, at all lags; that of 5 % by default.

    Returns:
        As `trend`; z and p are NaN where the corrected variance isn't positive, all are NaN with fewer than three
        values.

    Source: Hamed & Rao (1998), J. Hydrology 204, 182-196.
    """
    positions, values = valid_values(series)
    n = values.shape[0]
    slope = median_slope(positions, values)
    if n < 3:
        return line_of(test_of(values[:0]), positions, values[:0], math.nan)
    test = test_of(values)
    ranks = _ranks(_detrended(values, slope))
    whole = _product(ranks, ranks) / n
    total = 0.0
    for lag in range(1, n):
        found = _correlation(ranks, lag, whole)
        if not abs(found) <= critical / math.sqrt(n):
            total += float(n - lag) * (n - lag - 1) * (n - lag - 2) * found
    size = float(n)
    var_s = test.var_s * (1.0 + 2.0 / (size * (size - 1.0) * (size - 2.0)) * total)
    return line_of(judged(test.s, var_s, 0.5 * size * (size - 1.0)), positions, values, slope)


@njit(nogil=True)
def yue_wang(series: Any) -> Trend:
    """Mann-Kendall test whose variance is corrected for the autocorrelation of all lags (Yue & Wang 2004).

    Args:
        series: shape (n,); NaN is left out.

    Returns:
        As `trend`; z and p are NaN where the corrected variance isn't positive.

    Source: Yue & Wang (2004), Water Resources Management 18, 201-218.
    """
    positions, values = valid_values(series)
    n = values.shape[0]
    slope = median_slope(positions, values)
    test = test_of(values)
    if n < 2:
        return line_of(test, positions, values, slope)
    centred = _centred(_detrended(values, slope))
    whole = _product(centred, centred) / n
    total = 0.0
    for lag in range(1, n):
        total += (1.0 - lag / n) * _correlation(centred, lag, whole)
    size = float(n)
    var_s = test.var_s * (1.0 + 2.0 * total)
    return line_of(judged(test.s, var_s, 0.5 * size * (size - 1.0)), positions, values, slope)


@njit(nogil=True)
def trend_free_prewhitened(series: Any) -> Trend:
    """Mann-Kendall test after the lag-1 autocorrelation of what the trend leaves is taken out (Yue et al. 2002).

    Args:
        series: shape (n,); NaN is left out.

    Returns:
        As `trend`, the score of one value fewer; NaN with fewer than three values.

    Source: Yue, Pilon, Phinney & Cavadias (2002), Hydrological Processes 16, 1807-1829.
    """
    positions, values = valid_values(series)
    n = values.shape[0]
    slope = median_slope(positions, values)
    if n < 3:
        return line_of(test_of(values[:0]), positions, values[:0], math.nan)
    rest = _detrended(values, slope)
    centred = _centred(rest)
    first = _correlation(centred, 1, _product(centred, centred) / n)
    if first != first:  # nothing is left
        first = 0.0
    white = np.empty(n - 1, np.float64)
    for i in range(n - 1):
        white[i] = rest[i + 1] - rest[i] * first + (i + 1) * slope
    return line_of(test_of(white), positions, values, slope)


@njit(nogil=True)
def _seasonal_slope(series: Any, period: int, mean: Any) -> float:
    """Median of the slopes within seasons, per period; `mean` of each season helps to guess it."""
    n = series.shape[0]
    rows = -(-n // period)
    buffer = np.empty(period * (rows * (rows - 1) // 2), np.float64)
    start = 0
    finite = 0
    sxx = 0.0
    sxy = 0.0
    syy = 0.0
    for season in range(period):
        positions, values = valid_values(series[season::period])
        m = values.shape[0]
        pairs = m * (m - 1) // 2
        finite += all_slopes(positions, values, buffer[start : start + pairs])
        start += pairs
        for i in range(m):
            dx = positions[i] - rows / 2.0
            dy = values[i] - mean[season]
            sxx += dx * dx
            sxy += dx * dy
            syy += dy * dy
    buffer = buffer[:start]
    if finite < start:
        return float(median(buffer[: drop_nan(buffer)]))
    if start <= 256 or not sxx > 0.0:
        return float(median(buffer))
    return float(middle_near(buffer, sxy / sxx, math.sqrt(syy / (sxx * n))))


@njit(nogil=True)
def seasonal_kendall(series: Any, period: int = 12) -> Trend:
    """Seasonal Mann-Kendall test: each season is compared with itself only (Hirsch, Slack & Smith 1982).

    Args:
        series: shape (n,), beginning with any season; NaN is left out.
        period: seasons: 12 for months of a year.

    Returns:
        As `trend`: scores and variances are sums over the seasons, the slope is the median of all slopes within
        seasons, per period, and the intercept the line's value at the first step. NaN where no season has two values.

    Memory: 8 bytes for each pair of values of one season.

    Source: Hirsch, Slack & Smith (1982), Water Resources Research 18, 107-121.
    """
    score = 0
    var_s = 0.0
    pairs = 0.0
    mean = np.zeros(period, np.float64)
    for season in range(period):
        _, values = valid_values(series[season::period])
        m = values.shape[0]
        if m > 0:
            mean[season] = values.sum() / m
        if m > 1:
            own, _, correction = score_by_merging(values)
            score += own
            var_s += variance(m, correction)
            pairs += 0.5 * float(m) * (float(m) - 1.0)
    positions, values = valid_values(series)
    if pairs == 0.0:
        return line_of(test_of(values[:0]), positions, values[:0], math.nan)
    slope = _seasonal_slope(series, period, mean)
    return line_of(judged(float(score), var_s, pairs), positions / period, values, slope)
