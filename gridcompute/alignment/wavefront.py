"""One near-identical pair's best global alignment by wavefronts (Marco-Sola and others 2020).

Cost by cost, how far along each diagonal a path comes for it. That takes time and memory by the square of the cost, and
next to nothing by the length: a pair of a million letters with a hundred differences is done in milliseconds. Sixteen
diagonals are done at once, and eight letters compared at once.

The way back takes the same path as that through the whole table would. What the table says of a cell can be read from
wavefronts, as costs don't fall along a diagonal: a cell costs c at most if, for c, a path comes that far or further.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from gridcompute.alignment.cigars import DELETION, EQUAL, INSERTION, MATCH, UNEQUAL, push, turned
from gridcompute.alignment.costs import Costs, gap_cost
from gridcompute.alignment.scoring import QUERY_PAD, TARGET_PAD
from gridcompute.vectors import i32x16

NONE = -(2**30)
"""Of a diagonal that no path of a cost is on."""

LANES = 16

MOST_PAD = 256
"""Diagonals by which a front may grow while a cost of one difference is paid; for more this isn't the way."""

MOST_ENTRIES = 2**22
"""Of all fronts together, where they are kept for the way back; three of four bytes each."""

LOW_HALF, LOW_QUARTER, LOW_BYTE = np.uint64(0xFFFFFFFF), np.uint64(0xFFFF), np.uint64(0xFF)
BYTE = np.uint64(8)


class Fronts(NamedTuple):
    """Places in the target, by cost and diagonal (place in the target less place in the query).

    Attributes:
        best: int32, of any path.
        deleted: of paths that end with a deletion.
        inserted: of paths that end with an insertion.
        starts: by cost, where the front lies in these; its pad before it.
        low: by cost, the lowest diagonal.
        high: by cost, the highest one.
    """

    best: Any
    deleted: Any
    inserted: Any
    starts: Any
    low: Any
    high: Any


@njit(nogil=True)
def _words(letters: Any, codes: Any, pad: int) -> Any:
    """At each place the codes of eight letters from there on, the first one lowest; pads behind the end."""
    out = np.empty(len(letters) + 1, np.uint64)
    word = np.uint64(0)
    for _ in range(8):
        word = (word << BYTE) | np.uint64(pad)
    out[len(letters)] = word
    for i in range(len(letters) - 1, -1, -1):
        word = (word << BYTE) | np.uint64(codes[letters[i]])
        out[i] = word
    return out


@njit(nogil=True)
def _extended(query: Any, target: Any, i: int, j: int) -> int:
    """How far in the target equal letters go on from here."""
    while True:
        other = query[i] ^ target[j]
        if other != 0:
            break
        i, j = i + 8, j + 8
    if other & LOW_HALF == 0:
        j, other = j + 4, other >> np.uint64(32)
    if other & LOW_QUARTER == 0:
        j, other = j + 2, other >> np.uint64(16)
    return j + 1 if other & LOW_BYTE == 0 else j


@njit(nogil=True)
def _next(cost: int, costs: Costs, pad: int, m: int, n: int, fronts: Fronts) -> None:
    """A front from those before it, not extended yet."""
    low, high, start = fronts.low[cost], fronts.high[cost], fronts.starts[cost] + pad
    nothing = len(fronts.low) - 1  # a front without paths
    shorter = cost - costs.mismatch if cost >= costs.mismatch else nothing
    opened = cost - costs.first if cost >= costs.first else nothing
    longer = cost - costs.more if cost >= costs.more else nothing
    at = fronts.starts[shorter] + pad - fronts.low[shorter]
    open_at = fronts.starts[opened] + pad - fronts.low[opened]
    more_at = fronts.starts[longer] + pad - fronts.low[longer]
    one, none = i32x16.splat(1), i32x16.splat(NONE)
    rows, columns = i32x16.splat(m), i32x16.splat(n)
    for k in range(low, high + 1, LANES):
        diagonal = i32x16.ramp() + i32x16.splat(k)
        deleted = i32x16.load(fronts.best, open_at + k - 1).max(i32x16.load(fronts.deleted, more_at + k - 1)) + one
        inserted = i32x16.load(fronts.best, open_at + k + 1).max(i32x16.load(fronts.inserted, more_at + k + 1))
        other = i32x16.load(fronts.best, at + k) + one
        deleted = (deleted <= columns).select(deleted, none)
        inserted = (inserted - diagonal <= rows).select(inserted, none)
        other = ((other <= columns) & (other - diagonal <= rows)).select(other, none)
        deleted.store(fronts.deleted, start + k - low)
        inserted.store(fronts.inserted, start + k - low)
        other.max(deleted).max(inserted).store(fronts.best, start + k - low)
    for i in range(pad):
        for at in (start - 1 - i, start + high - low + 1 + i):
            fronts.best[at] = fronts.deleted[at] = fronts.inserted[at] = NONE


@njit(nogil=True)
def _placed(cost: int, costs: Costs, pad: int, m: int, n: int, ring: int, fronts: Fronts) -> Any:
    """Where the front of a cost lies, and the fronts with room for it. With a ring of more than 0 fronts, only the last
    ones are kept.
    """
    gaps = 0 if cost < costs.first else (cost - costs.first) // costs.more + 1
    fronts.low[cost], fronts.high[cost] = -min(m, gaps), min(n, gaps)
    size = fronts.high[cost] - fronts.low[cost] + 1 + 2 * pad
    if ring:
        fronts.starts[cost] = (1 + cost % ring) * (len(fronts.best) // (ring + 1))
        return fronts
    start = 2 * pad + 1
    if cost:
        start = fronts.starts[cost - 1] + fronts.high[cost - 1] - fronts.low[cost - 1] + 1 + 2 * pad
    fronts.starts[cost] = start
    if start + size <= len(fronts.best):
        return fronts
    old, new = len(fronts.best), 2 * (start + size)
    best, deleted, inserted = np.empty(new, np.int32), np.empty(new, np.int32), np.empty(new, np.int32)
    best[:old], deleted[:old], inserted[:old] = fronts.best, fronts.deleted, fronts.inserted
    return Fronts(best, deleted, inserted, fronts.starts, fronts.low, fronts.high)


@njit(nogil=True)
def _pad_of(costs: Costs) -> int:
    return max(costs.mismatch, costs.first) // costs.more + 2 + LANES


@njit(nogil=True)
def limit_of(m: int, n: int, costs: Costs, traced: bool) -> int:
    """The cost up to which wavefronts are worth while, or fit in memory; below 0 if there is none."""
    if costs.match == 0 or max(m, n) >= 2**29 or _pad_of(costs) > MOST_PAD:
        return -1
    pad = _pad_of(costs)
    entries = (m + 1) * (n + 1) // 8 + 2**16
    if traced:
        entries = min(entries, MOST_ENTRIES)
    # The sum over costs of 2 cost / more + 2 pad, with what a cost can be at most.
    root = np.sqrt(np.float64(pad) ** 2 * costs.more**2 + np.float64(entries) * costs.more)
    limit = int(root) - pad * costs.more
    return max(min(limit, gap_cost(m, costs) + gap_cost(n, costs)), 0)


@njit(nogil=True)
def wavefront(query: Any, target: Any, scoring: Any, costs: Costs, limit: int, traced: bool, plain: bool,
              cigar: Any) -> Any:
    """The cost of the best alignment of two whole sequences, -1 if it is above a limit, and the number of runs.

    Args:
        query: letters, uint8.
        target: letters, uint8.
        scoring: see `costs_of`.
        costs: of the scoring, with a match above 0.
        limit: see `limit_of`; memory is about limit ** 2 / costs.more * 12 bytes with a path, and without it the
            sequences' letters * 8 and what a few costs take.
        traced: whether runs are written.
        plain: M in the CIGAR, in place of = and X.
        cigar: as `align` wants it.
    """
    m, n, pad = len(query), len(target), _pad_of(costs)
    ours, theirs = _words(query, scoring.queries, QUERY_PAD), _words(target, scoring.targets, TARGET_PAD)
    ring = 0 if traced else max(costs.mismatch, costs.first) + 1
    widest = min(m, limit // costs.more + 1) + min(n, limit // costs.more + 1) + 1 + 2 * pad + LANES
    room = 64 * (2 * pad + 64) if traced else (ring + 1) * widest
    starts, low, high = np.zeros(limit + 2, np.int64), np.zeros(limit + 2, np.int64), np.zeros(limit + 2, np.int64)
    fronts = Fronts(np.full(room, NONE, np.int32), np.full(room, NONE, np.int32), np.full(room, NONE, np.int32),
                    starts, low, high)
    for cost in range(limit + 1):
        fronts = _placed(cost, costs, pad, m, n, ring, fronts)
        _next(cost, costs, pad, m, n, fronts)
        start = starts[cost] + pad - low[cost]
        if cost == 0:
            fronts.best[start] = 0
        for k in range(low[cost], high[cost] + 1):
            j = int(fronts.best[start + k])
            if j >= 0:
                fronts.best[start + k] = _extended(ours, theirs, j - k, j)
        if low[cost] <= n - m <= high[cost] and fronts.best[start + n - m] == n:
            count = _way_back(cost, ours, theirs, costs, pad, fronts, plain, cigar) if traced else 0
            return cost, count
    return -1, 0


@njit(nogil=True)
def _reaches(front: Any, fronts: Fronts, pad: int, cost: int, diagonal: int, place: int) -> bool:
    """Whether a path of exactly a cost comes so far on a diagonal."""
    if cost < 0 or diagonal < fronts.low[cost] or diagonal > fronts.high[cost]:
        return False
    return bool(front[fronts.starts[cost] + pad + diagonal - fronts.low[cost]] >= place)


@njit(nogil=True)
def _way_back(cost: int, query: Any, target: Any, costs: Costs, pad: int, fronts: Fronts, plain: bool,
              cigar: Any) -> int:
    """Write the path's runs; how many there are. What is preferred is what `align` prefers."""
    i, j, gapped, count = len(query) - 1, len(target) - 1, 0, 0
    while i > 0 and j > 0:
        if gapped == 0:
            last = i
            while i > 0 and j > 0 and (query[i - 1] ^ target[j - 1]) & LOW_BYTE == 0:
                i, j = i - 1, j - 1
            count = push(cigar, count, MATCH if plain else EQUAL, last - i)
            if i == 0 or j == 0:
                break
            if _reaches(fronts.best, fronts, pad, cost - costs.mismatch, j - i, j - 1):
                count = push(cigar, count, MATCH if plain else UNEQUAL, 1)
                i, j, cost = i - 1, j - 1, cost - costs.mismatch
                continue
            gapped = 1 if _reaches(fronts.deleted, fronts, pad, cost, j - i, j) else 2
        if gapped == 1:
            count, j = push(cigar, count, DELETION, 1), j - 1
        else:
            count, i = push(cigar, count, INSERTION, 1), i - 1
        if _reaches(fronts.best, fronts, pad, cost - costs.first, j - i, j):
            gapped, cost = 0, cost - costs.first
        else:
            cost -= costs.more
    count = push(cigar, count, INSERTION, i)
    count = push(cigar, count, DELETION, j)
    turned(cigar, count)
    return count
