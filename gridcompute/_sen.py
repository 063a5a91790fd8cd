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
def select(buffer: Any, rank: int) -> float:
    """Value of 0-based `rank` in `buffer` (no NaN), reordered: before it <=, after it >=. Quickselect."""
    low = 0
    high = buffer.shape[0] - 1
    while low < high:
        middle = (low + high) >> 1
        if buffer[middle] < buffer[low]:
            buffer[middle], buffer[low] = buffer[low], buffer[middle]
        if buffer[high] < buffer[low]:
            buffer[high], buffer[low] = buffer[low], buffer[high]
        if buffer[high] < buffer[middle]:
            buffer[high], buffer[middle] = buffer[middle], buffer[high]
        pivot = buffer[middle]
        i = low
        j = high
        while i <= j:
            while buffer[i] < pivot:
                i += 1
            while buffer[j] > pivot:
                j -= 1
            if i <= j:
                buffer[i], buffer[j] = buffer[j], buffer[i]
                i += 1
                j -= 1
        if rank <= j:
            high = j
        elif rank >= i:
            low = i
        else:
            break
    return float(buffer[rank])


@njit(nogil=True)
def middle_of(buffer: Any, lower: int, upper: int) -> float:
    """Mean of the order statistics `lower` and `upper` (equal or one apart) of `buffer`, reordered."""
    a = select(buffer, lower)
    if upper == lower:
        return a
    b = float(buffer[upper])
    for i in range(upper + 1, buffer.shape[0]):
        if buffer[i] < b:
            b = float(buffer[i])
    return (a + b) / 2.0


@njit(nogil=True)
def median(values: Any) -> float:
    """Median of `values` (float64, no NaN), which is reordered; NaN if there are none."""
    n = values.shape[0]
    if n == 0:
        return math.nan
    return middle_of(values, (n - 1) // 2, n // 2) + 0.0


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
def _count_two(buffer: Any, low: float, high: float) -> Any:
    """How many of `buffer` are <= low, and how many <= high."""
    below = 0
    within = 0
    for i in range(buffer.shape[0]):
        value = buffer[i]
        below += int(value <= low)
        within += int(value <= high)
    return below, within


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
def _keep_between(buffer: Any, low: float, high: float) -> int:
    """Move the values in (low, high] to the front of `buffer`; return how many. Skips blocks without any."""
    n = buffer.shape[0]
    kept = 0
    for start in range(0, n, 64):
        stop = min(start + 64, n)
        inside = 0
        for i in range(start, stop):
            inside += int(buffer[i] > low) & int(buffer[i] <= high)
        if inside > 0:
            for i in range(start, stop):
                value = buffer[i]
                buffer[kept] = value
                kept += int(value > low) & int(value <= high)
    return kept


@njit(nogil=True)
def _middle_narrowed(buffer: Any, guess: float, width: float) -> float:
    """`middle_of` the whole `buffer` (finite values; reordered), first narrowed to a bracket that holds both
    ranks.

    Throughout: #{<= low} <= lower and #{<= high} > upper, so both ranks lie in (low, high].
    """
    total = buffer.shape[0]
    lower = (total - 1) // 2
    upper = total // 2
    low = guess - width
    high = guess + width
    below, within = _count_two(buffer, low, high)
    while below > lower or within <= upper:
        width *= 4.0
        if below > lower:
            low = guess - width
        if within <= upper:
            high = guess + width
        below, within = _count_two(buffer, low, high)
    for _ in range(4):
        inside = within - below
        if inside <= 64:
            break
        step = (high - low) / inside
        margin = 8 + (inside >> 5)
        left = low + (lower - margin - below) * step
        right = low + (upper + margin - below) * step
        if not (low < left < right < high):
            break
        n_left, n_right = _count_two(buffer, left, right)
        if n_left > upper:
            high, within = left, n_left
        elif n_right <= lower:
            low, below = right, n_right
        else:
            if n_left <= lower:
                low, below = left, n_left
            if n_right > upper:
                high, within = right, n_right
    kept = _keep_between(buffer, low, high)
    return middle_of(buffer[:kept], lower - below, upper - below)


@njit(nogil=True)
def middle_near(buffer: Any, guess: float, width: float) -> float:
    """Median of `buffer` (finite values; reordered), looked for about a guess where that is one."""
    if abs(guess) <= _LARGEST and 0.0 < width <= _LARGEST:
        return _middle_narrowed(buffer, guess, width) + 0.0
    return median(buffer)


@njit(nogil=True)
def drop_nan(buffer: Any) -> int:
    """Move what isn't NaN to the front of `buffer`; return how many."""
    kept = 0
    for i in range(buffer.shape[0]):
        value = buffer[i]
        buffer[kept] = value
        kept += int(value == value)
    return kept


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
