"""Edit distances of up to eight pairs at once: which words of their tables are done, and what comes out.

A path of at most k errors between whole sequences stays within k diagonals of the table (Ukkonen 1985, Information and
Control 64, 100-118). What lies above the words done counts as one error more a column, what lies below as one more a
row: no value is less than the true one, and those of at most k errors are true.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from gridcompute.alignment.edit_lanes import (
    ANY,
    BACKWARDS,
    FULL,
    LANES,
    WITHIN,
    ZERO,
    lay,
    lowest,
    ones,
    planes_needed,
    score,
    walk,
)

BAND_STEP = 16
"""Columns for which the same words are done; divides 64."""
NARROW = 256
"""Rows of tables that are done whole: there a band would save nothing."""
LOOK = 256
"""Columns after which it is looked whether a pair can still end within its limit."""


class Pairs(NamedTuple):
    """Columns of letters, and where a pair's lie.

    Attributes:
        queries: uint8 letters, `long_enough`.
        query_at: place of a pair's first letter.
        query_end: place behind its last.
        targets: as the queries'.
        target_at: likewise.
        target_end: likewise.
    """

    queries: Any
    query_at: Any
    query_end: Any
    targets: Any
    target_at: Any
    target_end: Any


class Work(NamedTuple):
    """Scratch of a group.

    Attributes:
        query: laid planes.
        target: laid planes.
        state: of the words.
        masks: of a column.
        tally: of what is scored.
        above: a lane's value in the row above the words, but for a column's number.
        limits: a lane's greatest number of errors.
    """

    query: Any
    target: Any
    state: Any
    masks: Any
    tally: Any
    above: Any
    limits: Any


@njit(nogil=True, forceinline=True)
def lengths(pairs: Any, pair: int) -> Any:
    """Of a pair's query and target."""
    return (np.int64(pairs.query_end[pair]) - np.int64(pairs.query_at[pair]),
            np.int64(pairs.target_end[pair]) - np.int64(pairs.target_at[pair]))


@njit(nogil=True)
def pair_planes(pairs: Any, pair: int) -> int:
    """How many planes a pair needs."""
    one = planes_needed(pairs.queries, pairs.query_at[pair], pairs.query_end[pair])
    if one == ANY:
        return one
    return max(one, planes_needed(pairs.targets, pairs.target_at[pair], pairs.target_end[pair]))


@njit(nogil=True)
def aligned(words: int) -> Any:
    """Zeros at an address that a vector's size divides: one that lies across two cache lines takes twice as long."""
    whole = np.zeros(words + LANES, np.uint64)
    first = -(whole.ctypes.data >> 3) % LANES
    return whole[first : first + words]


@njit(nogil=True)
def work_for(rows: int, columns: int) -> Any:
    """Scratch for pairs of so many rows and columns at most."""
    high, wide = (rows + 63) // 64 + 1, (columns + 63) // 64 + 1
    return Work(aligned(high * ANY * LANES), aligned(wide * ANY * LANES), aligned(high * 2 * LANES),
                aligned(ANY * LANES), aligned(5 * LANES),
                np.zeros(LANES, np.int64), np.zeros(LANES, np.int64))


@njit(nogil=True, forceinline=True)
def lay_group(pairs: Any, group: Any, planes: int, work: Any) -> None:
    """Lay the sequences of a group, a lane each."""
    for lane in range(len(group)):
        pair = group[lane]
        lay(pairs.queries, pairs.query_at[pair], pairs.query_end[pair], planes, LANES, lane, work.query)
        lay(pairs.targets, pairs.target_at[pair], pairs.target_end[pair], planes, LANES, lane, work.target)


@njit(nogil=True, forceinline=True)
def begin_words(state: Any, first: int, last: int) -> None:
    """Words whose rows count up from the row above them."""
    for word in range(first, last):
        for each in range(word * 2 * LANES, word * 2 * LANES + LANES):
            state[each], state[each + LANES] = FULL, ZERO


@njit(nogil=True, forceinline=True)
def limit_of(m: int, n: int, k: Any) -> Any:
    """Errors up to which a pair's distance is found when k are asked for."""
    return m + n if m <= NARROW else max(k, abs(m - n))


@njit(nogil=True)
def band_of(pairs: Any, group: Any, k: Any) -> Any:
    """Least and greatest diagonal (row minus column) of paths with at most k errors, over a group."""
    least = most = 0
    for pair in group:
        m, n = lengths(pairs, pair)
        limit = limit_of(m, n, k)
        least, most = min(least, -((limit - m + n) // 2)), max(most, (limit + m - n) // 2)
    return least, most


@njit(nogil=True, forceinline=True)
def _difference(state: Any, word: int, lane: int, rows: Any) -> Any:
    """How much more the last of some rows of a word is than the row above the word."""
    at = word * 2 * LANES + lane
    return ones(state[at] & rows) - ones(state[at + LANES] & rows)


@njit(nogil=True)
def _hopeless(work: Any, column: int, words: Any, lanes: Any) -> bool:
    """Whether none of some lanes has a value within its limit: between words ends no value is less than so."""
    for lane in range(lanes[0], lanes[1]):
        value = column + work.above[lane]
        for word in range(words[0], words[1]):
            below = value + _difference(work.state, word, lane, FULL)
            if (value + below - 64) // 2 <= work.limits[lane]:
                return False
            value = below
    return True


@njit(nogil=True)
def global_group(pairs: Any, group: Any, k: Any, planes: int, work: Any, out: Any) -> None:
    """Distances of whole sequences, none empty, of up to eight pairs by ascending length of their targets.

    Args:
        pairs: all of them.
        group: numbers of these.
        k: errors that are looked for.
        planes: that all of them can do with.
        work: scratch.
        out: by pair; true if at most `limit_of` the pair, else more than that.
    """
    lay_group(pairs, group, planes, work)
    least, most = band_of(pairs, group, k)
    rows = 0
    for lane in range(len(group)):
        m, n = lengths(pairs, group[lane])
        rows, work.limits[lane], work.above[lane] = max(rows, m), limit_of(m, n, k), 0
    step = BAND_STEP if rows > NARROW else 64
    column: Any = np.int64(0)
    first = last = column
    for lane in range(len(group)):
        m, n = lengths(pairs, group[lane])
        while column < n:
            begin = column // step * step
            low = max((begin + least) >> 6, 0)
            high = min(((begin + step - 1 + most) >> 6) + 1, (rows + 63) // 64)
            begin_words(work.state, last, high)
            for word in range(first, low):
                for each in range(LANES):
                    work.above[each] += _difference(work.state, word, each, FULL)
            first, last = max(first, low), max(last, high)
            stop = min(begin + step, n)
            walk(work.query, work.target, planes, work.state, (column, stop), (first, last), work.masks)
            column = stop
            if column % LOOK == 0 and _hopeless(work, column, (first, last), (lane, len(group))):
                for each in group[lane:]:
                    out[each] = 2**62
                return
        out[group[lane]] = n + work.above[lane]
        for word in range(first, (m + 63) // 64):
            out[group[lane]] += _difference(work.state, word, lane, lowest(m - 64 * word))


@njit(nogil=True)
def scored_group(pairs: Any, group: Any, mode: Any, planes: int, work: Any, distance: Any, end: Any) -> None:
    """Least distances of whole queries, none empty, within their targets or to a start of them.

    Args:
        pairs: all of them.
        group: numbers of up to eight, by ascending length of their targets; queries of as many words each.
        mode: but for GLOBAL.
        planes: that all of them can do with.
        work: scratch.
        distance: by pair.
        end: by pair; -1 where no letter of the target helps.
    """
    lay_group(pairs, group, planes, work)
    words = (lengths(pairs, group[0])[0] + 63) // 64
    begin_words(work.state, 0, words)
    for lane in range(len(group)):
        m = np.uint64(lengths(pairs, group[lane])[0])
        work.tally[lane] = work.tally[LANES + lane] = m
        work.tally[4 * LANES + lane] = np.uint64(mode == BACKWARDS)
        work.tally[2 * LANES + lane], work.tally[3 * LANES + lane] = FULL, (m - np.uint64(1)) & np.uint64(63)
    column: Any = np.int64(0)
    rise = 0 if mode == WITHIN else 1
    for lane in range(len(group)):
        m, n = lengths(pairs, group[lane])
        if mode != WITHIN:
            n = min(n, 2 * m)  # behind it each letter is an error, and there are no fewer than the query has letters
        while column < n:
            stop = min((column // 64 + 1) * 64, n)
            score(work.query, work.target, planes, work.state, (column, stop), (0, words), rise, work.tally, work.masks)
            column = stop
        distance[group[lane]] = work.tally[LANES + lane]
        end[group[lane]] = np.int64(work.tally[2 * LANES + lane])


@njit(nogil=True)
def _reversed(letters: Any) -> Any:
    """A copy, the last letter first."""
    out = np.empty(len(letters), np.uint8)
    for i in range(len(letters)):
        out[len(letters) - 1 - i] = letters[i]
    return out


@njit(nogil=True)
def reversed_pairs(pairs: Any) -> Any:
    """The same pairs read backwards."""
    queries, targets = _reversed(pairs.queries), _reversed(pairs.targets)
    return Pairs(queries, len(queries) - pairs.query_end, len(queries) - pairs.query_at,
                 targets, len(targets) - pairs.target_end, len(targets) - pairs.target_at)


@njit(nogil=True)
def _sorted(numbers: Any, key: Any, most: int) -> Any:
    """Numbers by ascending key, none of which is above `most`; 2,048 of its values a pass, the lowest digits first."""
    other, other_key, shift = np.empty_like(numbers), np.empty_like(key), 0
    while most >> shift:
        places = np.zeros(2049, np.int64)
        for i in range(len(key)):
            places[((key[i] >> shift) & 2047) + 1] += 1
        for digit in range(2048):
            places[digit + 1] += places[digit]
        for i in range(len(key)):
            digit = (key[i] >> shift) & 2047
            other[places[digit]], other_key[places[digit]] = numbers[i], key[i]
            places[digit] += 1
        numbers, other, key, other_key, shift = other, numbers, other_key, key, shift + 11
    return numbers


@njit(nogil=True)
def ordered(pairs: Any, by_words: bool) -> Any:
    """Pairs of two sequences that aren't empty, those of like letters and lengths together; and each one's planes."""
    count = len(pairs.query_at)
    planes, key, chosen, found = np.zeros(count, np.int64), np.empty(count, np.int64), np.empty(count, np.int64), 0
    rows = columns = 0
    for pair in range(count):
        m, n = lengths(pairs, pair)
        rows, columns = max(rows, m), max(columns, n)
    words = (rows + 63) // 64 + 1 if by_words else 1
    for pair in range(count):
        m, n = lengths(pairs, pair)
        if m and n:
            planes[pair] = pair_planes(pairs, pair)
            key[found] = (planes[pair] * words + ((m + 63) // 64 if by_words else 0)) * (columns + 1) + n
            chosen[found] = pair
            found += 1
    return _sorted(chosen[:found], key[:found], (ANY + 1) * words * (columns + 1)), planes


@njit(nogil=True)
def group_at(pairs: Any, order: Any, first: int, planes: Any, same_words: bool) -> Any:
    """Up to eight pairs from a place on that go together."""
    stop = first + 1
    words = (lengths(pairs, order[first])[0] + 63) // 64
    while stop < min(first + LANES, len(order)) and planes[order[stop]] == planes[order[first]]:
        if same_words and (lengths(pairs, order[stop])[0] + 63) // 64 != words:
            break
        stop += 1
    return order[first:stop]


@njit(nogil=True)
def work_of(pairs: Any, order: Any) -> Any:
    """Scratch for any of some pairs."""
    rows = columns = 1
    for pair in order:
        m, n = lengths(pairs, pair)
        rows, columns = max(rows, m), max(columns, n)
    return work_for(rows, columns)
