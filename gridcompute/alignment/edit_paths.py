"""Paths of least edit distance of many pairs at once."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from gridcompute.alignment.edit_groups import (
    Pairs,
    group_at,
    lengths,
    ordered,
    pair_planes,
    reversed_pairs,
    work_of,
)
from gridcompute.alignment.edit_lanes import BACKWARDS, GLOBAL, LANES, WITHIN
from gridcompute.alignment.edit_path import (
    DELETION,
    EQUAL,
    INSERTION,
    band,
    extend,
    keep_group,
    keeping,
    path_back,
    words_kept,
)
from gridcompute.alignment.edit_strips import laid_target, last_row
from gridcompute.alignment.edits import distances, mode_of, pairs_of, scored

MOST_KEPT = 2**17
"""Words of a pair's columns that are kept at once, of 128 bytes each for a group; longer pairs are divided."""


class Parts(NamedTuple):
    """Parts of pairs, one behind the other.

    Attributes:
        pairs: the parts, as pairs.
        distance: of each.
        first: number of a pair's first part, (pairs + 1,).
    """

    pairs: Pairs
    distance: Any
    first: Any


@njit(nogil=True)
def _values(row: Any, n: int, out: Any) -> None:
    """Values of a `last_row` after 0, 1, ... n columns; where it wasn't done they are greater than any."""
    along, first, value, done = row
    out[:] = 2**40
    out[first] = value
    for column in range(first, done):
        value += 1 if along[column] == 1 else -np.int64(along[column] >> 1)
        out[column + 1] = value


@njit(nogil=True)
def _middle(pairs: Any, back: Any, part: Any, planes: int) -> Any:
    """Where a path passes the middle of a part's query: letters of the target before it, and errors there (Hirschberg
    1975, Comm. ACM 18, 341-343).

    Args:
        pairs: with the letters.
        back: the same backwards.
        part: query's first and last, target's first and last, distance.
        planes: of the letters.
    """
    query, query_end, target, target_end, distance = part[0], part[1], part[2], part[3], part[4]
    m, n = query_end - query, target_end - target
    half = query + m // 2
    least, most = band(m, n, distance)
    before, behind = np.empty(n + 1, np.int64), np.empty(n + 1, np.int64)
    laid = laid_target(pairs.targets, target, target_end, planes)
    _values(last_row(pairs.queries, (query, half), laid, n, planes, (least, most), GLOBAL, distance), n, before)
    letters, others = len(back.queries), len(back.targets)
    laid = laid_target(back.targets, others - target_end, others - target, planes)
    turned = (m - n - most, m - n - least)
    _values(last_row(back.queries, (letters - query_end, letters - half), laid, n, planes, turned, GLOBAL, distance), n,
            behind)
    place = 0
    for column in range(n + 1):
        if before[column] + behind[n - column] < before[place] + behind[n - place]:
            place = column
    return half, target + place, before[place], behind[n - place]


@njit(nogil=True)
def _large(m: int, n: int, distance: int) -> bool:
    """Whether too many columns would be kept of a part."""
    least, most = band(m, n, distance)
    return m > 1 and n > 1 and distance > 0 and words_kept(least, most, m, n) > MOST_KEPT * 2 * LANES


@njit(nogil=True)
def _divided(pairs: Any, distance: Any) -> Parts:
    """Pairs in parts, none of which is large."""
    count, parts, large = len(distance), 0, False
    for pair in range(count):
        m, n = lengths(pairs, pair)
        large |= _large(m, n, distance[pair])
    back = reversed_pairs(pairs) if large else pairs
    first, found, left = np.zeros(count + 1, np.int64), np.empty((count, 5), np.int64), np.empty((64, 5), np.int64)
    for pair in range(count):
        left[0, 0], left[0, 1], left[0, 4] = pairs.query_at[pair], pairs.query_end[pair], distance[pair]
        left[0, 2], left[0, 3], waiting = pairs.target_at[pair], pairs.target_end[pair], 1
        while waiting:  # no more than once for each halving of a query
            part = left[waiting - 1]
            if _large(part[1] - part[0], part[3] - part[2], part[4]):
                half, place, before, behind = _middle(pairs, back, part, pair_planes(pairs, pair))
                other, waiting = left[waiting], waiting + 1
                other[0], other[1], other[2], other[3], other[4] = part[0], half, part[2], place, before
                part[0], part[2], part[4] = half, place, behind
                continue
            if parts == len(found):
                found = np.concatenate((found, np.empty_like(found)))
            for i in range(5):
                found[parts, i] = part[i]
            parts, waiting = parts + 1, waiting - 1
        first[pair + 1] = parts
    return Parts(Pairs(pairs.queries, found[:parts, 0].copy(), found[:parts, 1].copy(), pairs.targets,
                       found[:parts, 2].copy(), found[:parts, 3].copy()), found[:parts, 4].copy(), first)


@njit(nogil=True)
def _runs(pairs: Any, distance: Any, place: Any, runs: Any, out: Any) -> None:
    """Runs of paths of whole sequences, each from its place on in `out`, the last of a path first."""
    hard, left = np.empty(len(distance), np.int64), 0
    order, planes = ordered(pairs, False)
    for pair in range(len(distance)):
        m, n = lengths(pairs, pair)
        own = out[place[pair] :]
        if distance[pair] == 0:
            runs[pair] = extend(own, 0, EQUAL, m)
        elif m == 0 or n == 0:
            runs[pair] = extend(own, extend(own, 0, INSERTION, m), DELETION, n)
    for pair in order:
        if distance[pair]:
            hard[left] = pair
            left += 1
    order = hard[:left]
    work, kept, first = work_of(pairs, order), keeping(16, 16), 0
    while first < len(order):
        group = group_at(pairs, order, first, planes, False)
        first += len(group)
        least = most = rows = columns = 0
        for pair in group:
            m, n = lengths(pairs, pair)
            one, other = band(m, n, distance[pair])
            least, most, rows, columns = min(least, one), max(most, other), max(rows, m), max(columns, n)
        words = words_kept(least, most, rows, columns)
        if words > len(kept.words) or columns // 16 >= len(kept.first):
            kept = keeping(words, columns)
        keep_group(pairs, group, (least, most), planes[group[0]], work, kept)
        for lane in range(len(group)):
            runs[group[lane]] = path_back(pairs, group[lane], lane, kept, out[place[group[lane]] :])


@njit(nogil=True)
def _cigars(parts: Parts) -> Any:
    """Runs of whole pairs, and where each pair's begin."""
    place, runs = np.zeros(len(parts.distance) + 1, np.int64), np.zeros(len(parts.distance), np.int64)
    for part in range(len(runs)):
        place[part + 1] = place[part] + 2 * parts.distance[part] + 1
    found = np.empty(place[-1], np.uint32)
    _runs(parts.pairs, parts.distance, place, runs, found)
    at, cigar = np.zeros(len(parts.first), np.int64), np.empty(runs.sum(), np.uint32)
    for pair in range(len(at) - 1):
        own, count = cigar[at[pair] :], 0
        for part in range(parts.first[pair], parts.first[pair + 1]):
            for i in range(place[part] + runs[part] - 1, place[part] - 1, -1):
                count = extend(own, count, np.int64(found[i] & np.uint32(15)), np.int64(found[i] >> np.uint32(4)))
        at[pair + 1] = at[pair] + count
    return at, cigar[: at[-1]].copy()


@njit(nogil=True)
def _stretches(pairs: Any, mode: Any, distance: Any, end: Any) -> Any:
    """Pairs of the queries and those stretches of the targets that have a part in the distance."""
    first, last = pairs.target_at.copy(), pairs.target_at + end + 1
    if mode == WITHIN:
        for pair in range(len(end)):  # from the end back no farther than errors allow
            first[pair] = max(first[pair], last[pair] - (pairs.query_end[pair] - pairs.query_at[pair]) - distance[pair])
        near = Pairs(pairs.queries, pairs.query_at, pairs.query_end, pairs.targets, first, last)
        _, back = scored(reversed_pairs(near), BACKWARDS)
        first = last - 1 - back
    return Pairs(pairs.queries, pairs.query_at, pairs.query_end, pairs.targets, first, last)


@njit(nogil=True)
def edit_paths(queries: Any, targets: Any, mode: Any = "global") -> Any:
    """Alignments of least edit distance of many pairs; for kernels of chunks (`batch=True`).

    Args:
        queries: as `edit_distances` has them.
        targets: likewise.
        mode: likewise.

    Returns:
        Distances, starts, ends, and CIGARs, these as offsets (pairs + 1,) and uint32 values. Start and end are the
        first and last letter of the target that have a part in the distance, from 0: the first of several equally
        good ends, and the first of several starts for it. A stretch without a letter starts at 0 and ends at -1. A
        CIGAR's value is length << 4 | operation, as BAM has it: 1 is I, a letter that only the query has, 2 is D,
        7 is = and 8 is X. Gaps lie to the left, but for the few places at which a very long pair was divided.

    Raises:
        ValueError: another mode.
    """
    pairs, kind = pairs_of(queries, targets), mode_of(mode)
    distance, end = distances(pairs, kind)
    if kind == GLOBAL:
        return distance, np.zeros(len(end), np.int64), end, _cigars(_divided(pairs, distance))
    stretches = _stretches(pairs, kind, distance, end)
    return distance, stretches.target_at - pairs.target_at, end, _cigars(_divided(stretches, distance))
