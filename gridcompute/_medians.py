"""Order statistics of arrays of numbers without sorting them, above all the median.

Ranks are found by narrowing a bracket with counting passes, which the compiler vectorises; where the median is to be
expected only decides how fast. Whatever the way, what is found are the very values of the array.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

FEW = 16
"""So many values around the median are sorted by insertion."""

MARKED = 512
"""Values whose marks are looked at together, eight at a time."""

MODERATE = 1e150
"""Squares of values up to this one are finite, and so are sums of them."""

_LARGEST = float(np.finfo(np.float64).max)


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
    if buffer.shape[0] <= FEW:
        for i in range(1, buffer.shape[0]):
            value = buffer[i]
            at = i
            while at > 0 and buffer[at - 1] > value:
                buffer[at] = buffer[at - 1]
                at -= 1
            buffer[at] = value
        return float(buffer[lower]) if upper == lower else (float(buffer[lower]) + float(buffer[upper])) / 2.0
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
def drop_nan(buffer: Any) -> int:
    """Move what isn't NaN to the front of `buffer`; return how many."""
    kept = 0
    for i in range(buffer.shape[0]):
        value = buffer[i]
        buffer[kept] = value
        kept += int(value == value)
    return kept


@njit(nogil=True)
def count_two(buffer: Any, low: float, high: float) -> Any:
    """How many of `buffer` are <= low, and how many <= high."""
    below = 0
    within = 0
    for i in range(buffer.shape[0]):
        value = buffer[i]
        below += int(value <= low)
        within += int(value <= high)
    return below, within


@njit(nogil=True)
def _keep_between(buffer: Any, low: float, high: float) -> int:
    """Move the values in (low, high] to the front of `buffer`; return how many. Skips eight values without any."""
    n = buffer.shape[0]
    marks = np.zeros(MARKED, np.uint8)
    eights = marks.view(np.uint64)
    kept = 0
    for start in range(0, n, MARKED):
        part = buffer[start : start + MARKED]
        size = part.shape[0]
        marks[size:] = 0
        for i in range(size):
            marks[i] = int(part[i] > low) & int(part[i] <= high)
        for eight in range((size + 7) >> 3):
            if eights[eight] != 0:
                for i in range(8 * eight, min(8 * eight + 8, size)):
                    buffer[kept] = part[i]
                    kept += int(marks[i])
    return kept


@njit(nogil=True)
def narrowed(lower: int, upper: int, bracket: Any, inner: Any) -> Any:
    """The least bracket of two around the ranks `lower` and `upper`; each is low, high, #{<= low} and #{<= high}."""
    low, high, below, within = bracket
    left, right, n_left, n_right = inner
    if n_left > upper:
        return low, left, below, n_left
    if n_right <= lower:
        return right, high, n_right, within
    if n_left <= lower:
        low, below = left, n_left
    if n_right > upper:
        high, within = right, n_right
    return low, high, below, within


@njit(nogil=True)
def middle_narrowed(buffer: Any, guess: float, width: float, below: int, within: int) -> float:
    """`middle_of` the whole `buffer` (finite values; reordered), first narrowed to a bracket that holds both
    ranks.

    Throughout: #{<= low} <= lower and #{<= high} > upper, so both ranks lie in (low, high]. `below` and `within` are
    these numbers for guess - width and guess + width.
    """
    total = buffer.shape[0]
    lower = (total - 1) // 2
    upper = total // 2
    low = guess - width
    high = guess + width
    while below > lower or within <= upper:
        width *= 4.0
        if below > lower:
            low = guess - width
        if within <= upper:
            high = guess + width
        below, within = count_two(buffer, low, high)
    for _ in range(8):
        inside = within - below
        if inside <= FEW:
            break
        step = (high - low) / inside
        margin = 1.0 + 0.75 * math.sqrt(inside)
        left = low + (lower - margin - below) * step
        right = low + (upper + margin - below) * step
        if not (low < left < right < high):
            break
        n_left, n_right = count_two(buffer, left, right)
        low, high, below, within = narrowed(lower, upper, (low, high, below, within), (left, right, n_left, n_right))
    kept = _keep_between(buffer, low, high)
    return middle_of(buffer[:kept], lower - below, upper - below)


@njit(nogil=True)
def middle_near(buffer: Any, guess: float, width: float) -> float:
    """Median of `buffer` (finite values; reordered), looked for about a guess where that is one."""
    if abs(guess) <= _LARGEST and 0.0 < width <= _LARGEST:
        below, within = count_two(buffer, guess - width, guess + width)
        return middle_narrowed(buffer, guess, width, below, within) + 0.0
    return median(buffer)


@njit(nogil=True)
def moderate(values: Any) -> bool:
    """Whether no value is infinite or so large that squares aren't finite."""
    count = 0
    for i in range(values.shape[0]):
        count += int(abs(values[i]) <= MODERATE)
    return bool(count == values.shape[0])


@njit(nogil=True)
def median_near_mean(values: Any) -> float:
    """`median` of `values` (float64, no NaN; reordered), looked for about their mean."""
    n = values.shape[0]
    if n <= FEW or not moderate(values):
        return median(values)
    mean = 0.0
    for i in range(n):
        mean += values[i]
    mean /= n
    square = 0.0
    for i in range(n):
        square += (values[i] - mean) * (values[i] - mean)
    return middle_near(values, mean, 1.5 * math.sqrt(square) / n)
