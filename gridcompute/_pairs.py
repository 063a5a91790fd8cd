"""Pairs of a series by sorting, in n log n steps: how many fall, and the exact median of their slopes.

With z = x - b t the pairs whose slope is at most b are those that fall from z to z: a merge sort counts them. A sample
of the pairs gives two slopes around the median, counting says how many lie below each, and interpolation narrows
them until few are between, which are then listed: a second merge sort, of z at the upper slope in the order of z at the
lower, meets just these. What is listed are the same floating-point slopes that `gridcompute._sen` ranks, so the result
is the same to the last bit. That holds because a bracket's end is only taken where no two z are so near that rounding
could have turned their order.

Sources: Knight (1966), J. Am. Stat. Assoc. 61, 436-439; Matousek (1991), Inf. Process. Lett. 39, 183-187.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from gridcompute._medians import middle_of, narrowed, select
from gridcompute._sen import SAMPLE, buffered_slope, streamed_slope

DRAWN = 2
"""Pairs drawn at first, for each value of the series."""

LISTED = 4
"""Pairs for each value that are few enough to be listed."""

BUFFERED = 700
"""Up to so many values all slopes are written out: that is quicker."""

SHORT = 8
"""Runs that are sorted by insertion before they are merged."""

_NEAR = 16 * float(np.finfo(np.float64).eps)
_LARGEST = float(np.finfo(np.float64).max)


@njit(nogil=True)
def _insertion(values: Any) -> int:
    """Sort each run of `SHORT` values; gives how many pairs fell within them."""
    n = values.shape[0]
    falling = 0
    for start in range(0, n, SHORT):
        for i in range(start + 1, min(start + SHORT, n)):
            value = values[i]
            at = i
            while at > start and values[at - 1] > value:
                values[at] = values[at - 1]
                at -= 1
            values[at] = value
            falling += i - at
    return falling


@njit(nogil=True)
def _merge(source: Any, target: Any, start: int, middle: int, stop: int) -> int:
    """Merge two sorted runs that lie side by side; gives how many pairs fell from the first to the second."""
    i = start
    j = middle
    k = start
    falling = 0
    while i < middle and j < stop:
        # Without branches: which is less can't be foreseen.
        a = source[i]
        b = source[j]
        later = int(b < a)
        target[k] = b if b < a else a
        falling += later * (middle - i)
        i += 1 - later
        j += later
        k += 1
    while i < middle:
        target[k] = source[i]
        i += 1
        k += 1
    while j < stop:
        target[k] = source[j]
        j += 1
        k += 1
    return falling


@njit(nogil=True)
def sort_falling(values: Any, room: Any) -> Any:
    """Sort values (no NaN), which are overwritten, with room for as many; how many pairs fell strictly.

    Returns:
        the pairs, and the sorted values: one of the two arrays.
    """
    n = values.shape[0]
    falling = _insertion(values)
    source = values
    target = room
    width = SHORT
    while width < n:
        for start in range(0, n, 2 * width):
            middle = min(start + width, n)
            falling += _merge(source, target, start, middle, min(middle + width, n))
        source, target = target, source
        width *= 2
    return falling, source


@njit(nogil=True)
def _tilted(positions: Any, values: Any, slope: float, out: Any) -> None:
    for i in range(values.shape[0]):
        out[i] = values[i] - slope * positions[i]


@njit(nogil=True)
def _at_most(positions: Any, values: Any, slope: float, size: float, tilted: Any, room: Any) -> int:
    """How many pairs have a slope of at most `slope`; -1 where rounding leaves it open for some pair."""
    _tilted(positions, values, slope, tilted)
    falling, ordered = sort_falling(tilted, room)
    near = _NEAR * (size + abs(slope) * positions[-1])
    closest = math.inf
    for i in range(1, ordered.shape[0]):
        closest = min(closest, ordered[i] - ordered[i - 1])
    return int(falling) if closest > near else -1


@njit(nogil=True)
def _draw(positions: Any, values: Any) -> Any:
    """Slopes of pseudo-random pairs."""
    n = values.shape[0]
    drawn = np.empty(DRAWN * n, np.float64)
    state = 12345
    for m in range(drawn.shape[0]):
        state = (state * 1103515245 + 12345) & 0x7FFFFFFF
        i = (state >> 8) % n
        state = (state * 1103515245 + 12345) & 0x7FFFFFFF
        j = (i + 1 + (state >> 8) % (n - 1)) % n
        drawn[m] = np.divide(values[j] - values[i], positions[j] - positions[i])
    return drawn


@njit(nogil=True)
def _sort_places(keys: Any, places: Any, room: Any, values: Any, positions: Any, out: Any, listing: bool) -> Any:
    """Sort places by their keys; where asked, write the slopes of the pairs whose order that turns to `out`.

    Returns:
        how many these are, and the sorted places: one of the two arrays.
    """
    n = places.shape[0]
    source = places
    target = room
    found = 0
    width = 1
    while width < n:
        for start in range(0, n, 2 * width):
            middle = min(start + width, n)
            stop = min(middle + width, n)
            i = start
            j = middle
            for k in range(start, stop):
                if j >= stop or (i < middle and keys[source[i]] <= keys[source[j]]):
                    target[k] = source[i]
                    i += 1
                    continue
                b = source[j]
                target[k] = b
                j += 1
                if listing:
                    for other in range(i, middle):
                        a = source[other]
                        if found < out.shape[0]:
                            out[found] = np.divide(values[b] - values[a], positions[b] - positions[a])
                        found += 1
        source, target = target, source
        width *= 2
    return found, source


@njit(nogil=True)
def _list_between(positions: Any, values: Any, low: float, high: float, tilted: Any, out: Any) -> int:
    """Slopes of the pairs that lie above `low` and not above `high`; how many. `out` holds as many as were counted."""
    places = np.arange(values.shape[0])
    room = places.copy()
    for listing in range(2):
        _tilted(positions, values, high if listing else low, tilted)
        found, places = _sort_places(tilted, places, room, values, positions, out, listing == 1)
        room = places.copy()
    return int(found)


@njit(nogil=True)
def _bracket(positions: Any, values: Any, size: float, tilted: Any, room: Any) -> Any:
    """Two slopes around the middle ranks, and how many pairs have at most each: (low, high, below, within).

    Throughout: below <= lower rank and within > upper rank, so both ranks lie in (low, high]. below < 0: not found.
    """
    n = values.shape[0]
    total = n * (n - 1) // 2
    lower = (total - 1) // 2
    upper = total // 2
    drawn = _draw(positions, values)
    m = drawn.shape[0]
    spread = 2.0 * math.sqrt(m)
    high = select(drawn, int(m / 2 + spread))
    low = select(drawn, int(m / 2 - spread))
    step = high - low
    below = -1
    within = -1
    for _ in range(8):
        if below < 0 or below > lower:
            below = _at_most(positions, values, low, size, tilted, room)
        if within <= upper:
            within = _at_most(positions, values, high, size, tilted, room)
        if 0 <= below <= lower and within > upper:
            break
        if below < 0 or below > lower:
            low -= 0.1234 * step
        if within <= upper:
            high += 0.1234 * step
        step *= 2.0
    if below < 0 or below > lower or within <= upper:
        return low, high, -1, within
    for _ in range(6):
        inside = within - below
        if inside <= LISTED * n:
            break
        step = (high - low) / inside
        margin = 0.3 * n + 0.02 * inside
        left = low + (lower - margin - below) * step
        right = low + (upper + margin - below) * step
        if not low < left < right < high:
            break
        n_left = _at_most(positions, values, left, size, tilted, room)
        n_right = _at_most(positions, values, right, size, tilted, room)
        if n_left < 0 or n_right < 0:
            break
        low, high, below, within = narrowed(lower, upper, (low, high, below, within), (left, right, n_left, n_right))
    return low, high, below, within


@njit(nogil=True)
def sorted_slope(positions: Any, values: Any) -> float:
    """Median slope in n log n steps; `buffered_slope` is the plain form, and has the same bits."""
    n = values.shape[0]
    size = 0.0
    for i in range(n):
        size = max(size, abs(values[i]))
    tilted = np.empty(n, np.float64)
    room = np.empty(n, np.float64)
    total = n * (n - 1) // 2
    lower = (total - 1) // 2
    upper = total // 2
    if size <= _LARGEST / 4.0:  # no infinities, and no differences that overflow
        low, high, below, within = _bracket(positions, values, size, tilted, room)
        if below >= 0 and within - below <= SAMPLE:
            inside = np.empty(within - below, np.float64)
            if _list_between(positions, values, low, high, tilted, inside) == within - below:
                return float(middle_of(inside, lower - below, upper - below) + 0.0)
        tilted[:] = values
        falling, ordered = sort_falling(tilted, room)
        if falling <= lower and upper < falling + ties(ordered)[0]:
            return 0.0
    return float(streamed_slope(positions, values, SAMPLE))


@njit(nogil=True)
def ties(ordered: Any) -> Any:
    """Pairs of equal values in sorted ones, and the sum of t (t - 1) (2 t + 5) over groups of t of them."""
    pairs = 0
    total = 0.0
    run = 1
    for i in range(1, ordered.shape[0] + 1):
        if i < ordered.shape[0] and ordered[i] == ordered[i - 1]:
            run += 1
        elif run > 1:
            pairs += run * (run - 1) // 2
            size = float(run)
            total += size * (size - 1.0) * (2.0 * size + 5.0)
            run = 1
    return pairs, total


@njit(nogil=True)
def median_slope(positions: Any, values: Any) -> float:
    """Median pairwise slope of values at increasing positions (float64, no NaN); NaN if there is no slope."""
    n = values.shape[0]
    if n < 2:
        return math.nan
    if n <= BUFFERED:
        return buffered_slope(positions, values)
    return sorted_slope(positions, values)
