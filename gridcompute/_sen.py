"""Exact Theil-Sen slope: the median of all pairwise slopes, without sorting them.

A series of n valid values has n(n-1)/2 pairwise slopes. Up to `BUFFERED` values they are all written to one
buffer (4 MiB at most) and the two middle order statistics are found by narrowing a bracket with counting
passes that the compiler vectorises, starting from the least-squares slope plus and minus its standard error.
Where there are more, or infinities among long series, the slopes are recomputed on every pass and only a sample of
those inside the bracket is kept, so that memory stays at 4 MiB whatever n is; time is then proportional to n squared
(about two passes over all pairs). `gridcompute._pairs` has the way of n log n steps for long series.

Both ways return order statistics of the very same floating-point slopes, so they agree to the last bit with
`numpy.nanmedian` of all slopes; the bracket only decides how fast.

Sources: Theil (1950), Indagationes Mathematicae 12; Sen (1968), J. Am. Stat. Assoc. 63, 1379-1389.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from gridcompute._medians import drop_nan, median, middle_narrowed, middle_near, select

BUFFERED = 1024
"""The longest series (in valid values) whose slopes may all be held at once."""

SAMPLE = BUFFERED * (BUFFERED - 1) // 2
"""Slopes held at once for a longer series: the same 4 MiB."""

_LARGEST = float(np.finfo(np.float64).max)


@njit(nogil=True)
def valid_values(series: Any) -> Any:
    """Positions and values (both float64) of the entries of `series` that aren't NaN."""
    n = series.shape[0]
    positions = np.empty(n, np.float64)
    values = np.empty(n, np.float64)
    count = 0
    for i in range(n):
        value = float(series[i])
        positions[count] = i
        values[count] = value
        count += int(value == value)
    return positions[:count], values[:count]


@njit(nogil=True)
def all_slopes(positions: Any, values: Any, out: Any) -> int:
    """Write every pairwise slope to `out`, lag by lag (unit stride); return how many are finite."""
    n = values.shape[0]
    start = 0
    finite = 0
    for lag in range(1, n):
        m = n - lag
        row = out[start : start + m]
        late = values[lag:]
        late_position = positions[lag:]
        for i in range(m):
            # np.divide, because `/` would test for a zero divisor and not be vectorised.
            slope = np.divide(float(late[i]) - float(values[i]), late_position[i] - positions[i])
            row[i] = slope
            finite += int(abs(slope) <= _LARGEST)
        start += m
    return finite


@njit(nogil=True)
def _least_squares_bracket(positions: Any, values: Any) -> Any:
    """Least-squares slope and its standard error without a trend: a guess, so rounding is harmless."""
    n = values.shape[0]
    mean_position = 0.0
    mean = 0.0
    for i in range(n):
        mean_position += float(positions[i])
        mean += float(values[i])
    mean_position /= n
    mean /= n
    sxx = 0.0
    sxy = 0.0
    syy = 0.0
    for i in range(n):
        dx = float(positions[i]) - mean_position
        dy = float(values[i]) - mean
        sxx += dx * dx
        sxy += dx * dy
        syy += dy * dy
    return sxy / sxx, math.sqrt(syy / (sxx * n))


@njit(nogil=True)
def signed_slope(positions: Any, values: Any) -> Any:
    """`buffered_slope` of moderate values at whole positions, and how many pairs rise and how many fall: counted in
    the pass that divides, as is the first bracket.
    """
    n = values.shape[0]
    buffer = np.empty(n * (n - 1) // 2, np.float64)
    guess, width = _least_squares_bracket(positions, values)
    low = guess - width
    high = guess + width
    start = 0
    rising = 0
    falling = 0
    below = 0
    within = 0
    for lag in range(1, n):
        m = n - lag
        row = buffer[start : start + m]
        late = values[lag:]
        late_position = positions[lag:]
        for i in range(m):
            slope = np.divide(float(late[i]) - float(values[i]), late_position[i] - positions[i])
            row[i] = slope
            rising += int(late[i] > values[i])
            falling += int(late[i] < values[i])
            below += int(slope <= low)
            within += int(slope <= high)
        start += m
    found = middle_narrowed(buffer, guess, width, below, within) + 0.0 if width > 0.0 else median(buffer)
    return found, rising, falling


@njit(nogil=True)
def buffered_slope(positions: Any, values: Any) -> float:
    """Median slope with all n(n-1)/2 slopes in memory."""
    n = values.shape[0]
    pairs = n * (n - 1) // 2
    buffer = np.empty(pairs, np.float64)
    finite = all_slopes(positions, values, buffer)
    if finite < pairs:
        return median(buffer[: drop_nan(buffer)])
    if pairs > 256:
        guess, width = _least_squares_bracket(positions, values)
        return middle_near(buffer, guess, width)
    return median(buffer)


@njit(nogil=True)
def _pass_over_pairs(positions: Any, values: Any, low: float, high: float, stride: int, sample: Any) -> Any:
    """One pass over all pairs: slopes < low, == low, inside, == high, and a sample of those inside.

    About one in `stride` of those inside is stored, at pseudo-random distances so that a period in the data
    can't bias it; with stride 1 all of them, as far as `sample` reaches.
    """
    n = values.shape[0]
    row = np.empty(n, np.float64)
    less = 0
    at_low = 0
    inside = 0
    at_high = 0
    stored = 0
    wait = 0
    state = 12345
    for lag in range(1, n):
        m = n - lag
        late = values[lag:]
        late_position = positions[lag:]
        for i in range(m):
            row[i] = np.divide(float(late[i]) - float(values[i]), late_position[i] - positions[i])
        in_row = 0
        for i in range(m):
            slope = row[i]
            less += int(slope < low)
            at_low += int(slope == low)
            in_row += int(slope > low) & int(slope < high)
            at_high += int(slope == high)
        inside += in_row
        if in_row > 0:
            for i in range(m):
                if low < row[i] < high:
                    if wait > 0:
                        wait -= 1
                    elif stored < sample.shape[0]:
                        sample[stored] = row[i]
                        stored += 1
                        state = (state * 1103515245 + 12345) & 0x7FFFFFFF
                        wait = (state >> 8) % (2 * stride - 1)
    return less, at_low, inside, at_high if low < high else 0, stored


@njit(nogil=True)
def _ranked(rank: int, less: int, at_low: int, inside: Any, low: float, high: float) -> float:
    """Value of `rank` among all slopes, `inside` being every slope between `low` and `high` (reordered)."""
    if rank < less + at_low:
        return low
    if rank < less + at_low + inside.shape[0]:
        return select(inside, rank - less - at_low)
    return high


@njit(nogil=True)
def streamed_slope(positions: Any, values: Any, capacity: int) -> float:
    """Median slope in O(capacity) memory; `buffered_slope` is the plain form, and has the same bits.

    (outer_low, outer_high) always contains both ranks. Each pass counts exactly about a bracket within it and
    samples that bracket, until what is inside fits in `capacity`.
    """
    n = values.shape[0]
    sample = np.empty(capacity, np.float64)
    low = outer_low = -math.inf
    high = outer_high = math.inf
    expected = n * (n - 1) // 2
    lower = -1
    upper = -1
    while True:
        stride = 1 + (2 * expected) // capacity if expected > capacity else 1
        less, at_low, inside, at_high, stored = _pass_over_pairs(positions, values, low, high, stride, sample)
        if lower < 0:
            total = less + at_low + inside + at_high
            if total == 0:
                return math.nan
            lower = (total - 1) // 2
            upper = total // 2
        first = less + at_low
        if lower < less or upper >= first + inside + at_high:
            # The guess missed, or splits the two ranks; its ends are slopes, so the part beside it has both
            # for certain.
            if lower < less:
                outer_high = low
            else:
                outer_low = high
            low, high = outer_low, outer_high
            expected = n * (n - 1) // 2
            continue
        outer_low, outer_high = low, high
        if upper < first or lower >= first + inside or (stride == 1 and inside <= capacity):
            held = sample[: inside if stride == 1 and inside <= capacity else 0]
            a = _ranked(lower, less, at_low, held, low, high)
            b = a if upper == lower else _ranked(upper, less, at_low, held, low, high)
            return a + 0.0 if upper == lower else (a + b) / 2.0 + 0.0
        expected = inside
        if inside > capacity:
            drawn = sample[:stored]
            drawn.sort()
            share = stored / inside
            spread = 2.0 * math.sqrt(stored) + 2.0
            left = int(max((lower - first) * share - spread, 0.0))
            right = int(min((upper - first) * share + spread, stored - 1.0))
            low, high = float(drawn[min(left, stored - 1)]), float(drawn[max(right, 0)])
            expected = int((right - left + 1) / share)
