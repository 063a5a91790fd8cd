"""Edit distances of many pairs at once, and of one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from gridcompute.alignment.edit_groups import (
    Pairs,
    global_group,
    group_at,
    lengths,
    limit_of,
    ordered,
    scored_group,
    work_of,
)
from gridcompute.alignment.edit_lanes import GLOBAL, LANES, PREFIX, WITHIN, long_enough
from gridcompute.alignment.edit_strips import ROWS, best_end, whole_distance

FIRST_LIMIT = 64
"""Errors that a band is first made for; doubled until a pair's distance is within."""
LONG = 2048
"""Letters of a query from which on a band pays at the start of a target."""


@njit(nogil=True)
def mode_of(name: Any) -> Any:
    """The number of a mode."""
    if name == "global":
        return GLOBAL
    if name == "prefix":
        return PREFIX
    if name == "within":
        return WITHIN
    raise ValueError("mode is none of global, prefix, within")


@njit(nogil=True)
def pairs_of(queries: Any, targets: Any) -> Any:
    """Columns as a kernel of chunks gets them."""
    query_at, query_letters = queries
    target_at, target_letters = targets
    return Pairs(long_enough(query_letters), query_at[:-1].astype(np.int64), query_at[1:].astype(np.int64),
                 long_enough(target_letters), target_at[:-1].astype(np.int64), target_at[1:].astype(np.int64))


@njit(nogil=True)
def _one_whole(pairs: Any, pair: int, planes: int, limit: Any) -> Any:
    """Distance of one pair of whole sequences, by strips."""
    return whole_distance(pairs.queries, (pairs.query_at[pair], pairs.query_end[pair]),
                          pairs.targets, (pairs.target_at[pair], pairs.target_end[pair]), planes, limit)


@njit(nogil=True)
def _whole(pairs: Any, order: Any, planes: Any, distance: Any) -> None:
    """Distances of whole sequences."""
    work, limit = work_of(pairs, order), np.int64(FIRST_LIMIT)
    while len(order):
        left, count, first = np.empty(len(order), np.int64), 0, 0
        while first < len(order):
            group = group_at(pairs, order, first, planes, False)
            first += len(group)
            m, _ = lengths(pairs, group[0])
            # A lane's word costs as much as six of a strip, whose least height is a strip more than the band's.
            if m > ROWS // 2 and len(group) * (ROWS + limit) < 6 * (limit + 128):
                for pair in group:
                    distance[pair] = _one_whole(pairs, pair, planes[pair], max(limit, np.int64(ROWS // 2)))
                continue
            global_group(pairs, group, limit, planes[group[0]], work, distance)
            for pair in group:
                m, n = lengths(pairs, pair)
                if distance[pair] > limit_of(m, n, limit):
                    left[count] = pair
                    count += 1
        order, limit = left[:count], 2 * limit


@njit(nogil=True)
def _by_windows(pairs: Any, pair: int, planes: int) -> Any:
    """Least distance and first end of a query within a much longer target: each lane looks through a part of it.

    A path has at most m errors, so it is at most 2 m letters long: each part begins so much before its first end.
    """
    m, n = lengths(pairs, pair)
    first, last = np.empty(LANES, np.int64), np.empty(LANES, np.int64)
    each = (n + LANES - 1) // LANES
    for lane in range(LANES):  # the first is the shortest, all others are as long as each other
        last[lane] = pairs.target_at[pair] + min(each * (lane + 1), n)
        first[lane] = max(last[lane] - each - 2 * m, pairs.target_at[pair])
    parts = Pairs(pairs.queries, np.full(LANES, pairs.query_at[pair]), np.full(LANES, pairs.query_end[pair]),
                  pairs.targets, first, last)
    distance, end = np.empty(LANES, np.int64), np.empty(LANES, np.int64)
    order = np.arange(LANES)
    scored_group(parts, order, WITHIN, planes, work_of(parts, order), distance, end)
    least, place = m, -1
    for lane in range(LANES):
        if distance[lane] < least:
            least, place = distance[lane], first[lane] + end[lane] - pairs.target_at[pair]
    return least, place


@njit(nogil=True)
def scored(pairs: Any, mode: Any) -> Any:
    """Least distances and ends of queries within targets or at their starts, by any mode but GLOBAL."""
    count, free = len(pairs.query_at), mode == WITHIN
    distance, end = np.empty(count, np.int64), np.full(count, -1, np.int64)
    for pair in range(count):
        distance[pair] = lengths(pairs, pair)[0]
    order, planes = ordered(pairs, True)
    work, first = work_of(pairs, order), 0
    while first < len(order):
        group = group_at(pairs, order, first, planes, True)
        first += len(group)
        m, n = lengths(pairs, group[0])
        few = 4 * len(group) <= (m + 63) // 64
        if free and 2 * len(group) <= LANES and n >= 32 * m:
            for pair in group:
                distance[pair], end[pair] = _by_windows(pairs, pair, planes[pair])
        elif few or (m >= LONG and not free):
            for pair in group:
                query = (pairs.query_at[pair], pairs.query_end[pair])
                target = (pairs.target_at[pair], pairs.target_end[pair])
                distance[pair], end[pair] = best_end(pairs.queries, query, pairs.targets, target, planes[pair], mode)
        else:
            scored_group(pairs, group, mode, planes[group[0]], work, distance, end)
    return distance, end


@njit(nogil=True)
def distances(pairs: Any, mode: Any) -> Any:
    """See `edit_distances`."""
    if mode != GLOBAL:
        return scored(pairs, mode)
    count = len(pairs.query_at)
    distance, end = np.empty(count, np.int64), np.empty(count, np.int64)
    for pair in range(count):
        m, n = lengths(pairs, pair)
        distance[pair], end[pair] = m + n, n - 1
    order, planes = ordered(pairs, False)
    _whole(pairs, order, planes, distance)
    return distance, end


@njit(nogil=True)
def edit_distances(queries: Any, targets: Any, mode: Any = "global") -> Any:
    """Edit distances of many pairs, exact, and where in the targets they end; for kernels of chunks (`batch=True`).

    Letters are compared literally but for their case: N equals N and nothing else.

    Args:
        queries: a column of letters as such a kernel gets it: offsets (pairs + 1,) and uint8 values.
        targets: the same.
        mode: "global", whole sequences (edlib's NW); "within", the whole query and any stretch of the target (HW);
            "prefix", the whole query and a stretch from the target's first letter on (SHW).

    Returns:
        Distances and ends, both int64 (pairs,). An end is the target's last letter, from 0, that has a part in it, the
        first of several equally good ones; -1 where none helps, that is where the distance is the query's length.

    Raises:
        ValueError: another mode.
    """
    return distances(pairs_of(queries, targets), mode_of(mode))
