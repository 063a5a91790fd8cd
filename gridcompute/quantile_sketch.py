"""A mergeable sketch of a distribution with deterministic compaction: what `quantile` keeps per cell.

A cell keeps up to `capacity` values, each with a level h and the weight 2**h. When the store is full, the
lowest level that fills its share of it is sorted and every second value moves one level up, alternately the
odd and the even ones. That is the compactor of Karnin, Lang & Liberty (FOCS 2016, KLL) with a counter in
place of the coin, in one shared store as in Manku, Rajagopalan & Lindsay (SIGMOD 1998).

With L levels in use a share is at least capacity / (2 L). A compaction at level h moves the rank of any value
by at most 2**h, and takes at least capacity / (2 L) - 1 values of that weight; a unit of weight passes each
level once, through any tree of merges. So the rank error after n values is at most
n * 2 L (L - 1) / (capacity - 2 L). The sum that really occurred is kept in `error`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gridcompute.columns import Array
from gridcompute.reducer import StateField


def fields(capacity: int) -> tuple[StateField, ...]:
    """State of one cell: 9 * capacity + 48 bytes."""
    return (
        StateField("items", "f8", capacity),
        StateField("level", "u1", capacity),
        StateField("used", "i8"),
        StateField("n", "i8"),
        StateField("odd", "i8"),
        StateField("error", "i8"),
        StateField("low", "f8"),
        StateField("high", "f8"),
    )


def init(
    items: Array,
    level: Array,
    used: Array,
    n: Array,
    odd: Array,
    error: Array,
    low: Array,
    high: Array,
    q: Array,
) -> None:
    """An empty sketch."""
    for i in range(len(items)):
        items[i] = 0.0
        level[i] = 0
    used[0] = 0
    n[0] = 0
    odd[0] = 0
    error[0] = 0
    low[0] = np.inf
    high[0] = -np.inf


def _crowded(level: Array, used: int) -> tuple[int, Any]:
    """The lowest level with its fair share of the values, and how many it holds."""
    counts = np.zeros(64, np.int64)
    for i in range(used):
        counts[level[i]] += 1
    top = 63
    while counts[top] == 0:
        top -= 1
    # Half of the room is shared evenly, half goes to the upper levels, whose weight is the answer's grain: a
    # quarter to the top, an eighth below it, and so on. The shares add up to less than there is, so some
    # level has reached its own.
    h = 0
    while counts[h] < used * (0.5 / (top + 1) + 0.25 * 0.5 ** (top - h)):
        h += 1
    return h, counts[h]


def _sort(items: Array, level: Array, count: int) -> None:
    """Shell sort of values together with their levels: stable enough (equal values may swap levels), quick to
    compile, and quick for the few hundred values it gets.
    """
    gap = 1
    while gap < count // 3:
        gap = 3 * gap + 1
    while gap > 0:
        for i in range(gap, count):
            v = items[i]
            h = level[i]
            j = i
            while j >= gap and items[j - gap] > v:
                items[j] = items[j - gap]
                level[j] = level[j - gap]
                j -= gap
            items[j] = v
            level[j] = h
        gap //= 3


def _compact(items: Array, level: Array, used: Array, odd: Array, error: Array) -> None:
    """Halve the lowest crowded level; an odd one out (the greatest) stays."""
    h, count = _crowded(level, used[0])
    picked = np.empty(count, np.float64)
    same = np.empty(count, np.uint8)
    rest = 0
    j = 0
    for i in range(used[0]):
        if level[i] == h:
            picked[j] = items[i]
            same[j] = h
            j += 1
        else:
            items[rest] = items[i]
            level[rest] = level[i]
            rest += 1
    _sort(picked, same, count)
    even = count // 2 * 2
    for i in range((odd[0] >> h) & 1, even, 2):
        items[rest] = picked[i]
        level[rest] = h + 1
        rest += 1
    if even < count:
        items[rest] = picked[even]
        level[rest] = h
        rest += 1
    used[0] = rest
    odd[0] ^= 1 << h
    error[0] += 1 << h


def step(
    items: Array,
    level: Array,
    used: Array,
    n: Array,
    odd: Array,
    error: Array,
    low: Array,
    high: Array,
    x: Any,
    q: Array,
) -> None:
    """Take one value in; a NaN (where NaN isn't skipped) makes every quantile NaN."""
    v = np.float64(x)
    n[0] += 1
    if v != v:
        low[0] = v
        return
    if used[0] == len(items):
        _compact(items, level, used, odd, error)
    items[used[0]] = v
    level[used[0]] = 0
    used[0] += 1
    if v < low[0]:
        low[0] = v
    if v > high[0]:
        high[0] = v


def merge(
    items: Array,
    level: Array,
    used: Array,
    n: Array,
    odd: Array,
    error: Array,
    low: Array,
    high: Array,
    items2: Array,
    level2: Array,
    used2: Array,
    n2: Array,
    odd2: Array,
    error2: Array,
    low2: Array,
    high2: Array,
    q: Array,
) -> None:
    """Take a later sketch's values in, in the order it holds them."""
    n[0] += n2[0]
    error[0] += error2[0]
    for i in range(used2[0]):
        if used[0] == len(items):
            _compact(items, level, used, odd, error)
        items[used[0]] = items2[i]
        level[used[0]] = level2[i]
        used[0] += 1
    if low2[0] < low[0] or low2[0] != low2[0]:
        low[0] = low2[0]
    if high2[0] > high[0]:
        high[0] = high2[0]


def _at(items: Array, reach: Array, count: int, rank: Any) -> Any:
    """The value at a rank: the first whose cumulative weight exceeds it."""
    low = 0
    high = count - 1
    while low < high:
        middle = (low + high) // 2
        if reach[middle] > rank:
            high = middle
        else:
            low = middle + 1
    return items[low]


def final(
    items: Array,
    level: Array,
    used: Array,
    n: Array,
    odd: Array,
    error: Array,
    low: Array,
    high: Array,
    out: Array,
    ok: Array,
    q: Array,
) -> None:
    """The quantiles at q, linear between the two ranks around q * (n - 1)."""
    if n[0] == 0 or low[0] != low[0]:
        for i in range(len(ok)):
            ok[i] = False
        return
    count = used[0]
    _sort(items, level, count)  # the state's own arrays: final gets a copy
    reach = np.empty(count, np.int64)
    total = np.int64(0)
    for i in range(count):
        total += 1 << np.int64(level[i])
        reach[i] = total
    for i in range(len(q)):
        # Ranks count weights; where compaction left an odd one out they still add up to n.
        where = q[i] * (total - 1)
        rank = np.int64(where)
        if q[i] == 0.0:
            out[i] = low[0]
        elif q[i] == 1.0:
            out[i] = high[0]
        else:
            a = _at(items, reach, count, rank)
            b = _at(items, reach, count, rank + 1)
            part = where - rank
            # NumPy's interpolation, which is exact at both ends.
            out[i] = b - (b - a) * (1.0 - part) if part >= 0.5 else a + (b - a) * part
