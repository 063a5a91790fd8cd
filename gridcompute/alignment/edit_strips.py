"""Edit distances of one long pair: 1,024 rows of the table at once, lanes below each other.

A lane is a word of 64 rows. Each lane is one column behind the one above it, so that what that one hands down is there
when it is needed. After a strip of 1,024 rows only the differences along its last row are left; the next strip begins
with them. The first strip has rows before the query's first letter, so that the last one ends with its last letter.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from gridcompute.alignment.edit_lanes import BACKWARDS, GLOBAL, PLAIN, PLANES, WITHIN, ZERO, lay, lowest, step
from gridcompute.vectors import u64x8

ROWS = 1024
WORDS = ROWS // 64
FIRST_LIMIT = 512
"""Errors that a band is first made for."""


@njit(nogil=True, forceinline=True)
def _moved(handed: Any, lanes: Any) -> Any:
    """Lanes one further down, the last of the first vector to the second; the first gets what is handed to it."""
    turn = u64x8.ramp() + u64x8.splat(7)
    first = u64x8.ramp() == u64x8.splat(0)
    upper, lower = lanes[0].permute(turn), lanes[1].permute(turn)
    return (first.select(handed, upper), first.select(upper, lower)), lower.lane(0)


@njit(nogil=True)
def _strip(query: Any, inside: Any, wild: Any, target: Any, planes: int, columns: Any, along: Any, masks: Any) -> None:
    """Do some columns of a strip.

    Args:
        query: planes of its words: plane p of word w at p * WORDS + w.
        inside: bits of rows that letters stand in.
        wild: bits of rows that equal everything.
        target: planes of the target, word by word.
        planes: of both.
        columns: first and behind the last.
        along: of each column what the row above costs more than in the column before, 1, 0, or 2 where it is one less;
            the same of the last row afterwards.
        masks: scratch of two vectors a plane.
    """
    nothing, one, last_bit = u64x8.splat(0), u64x8.splat(1), u64x8.splat(63)
    in0, in1 = u64x8.load(inside, 0), u64x8.load(inside, 8)
    wild0, wild1 = u64x8.load(wild, 0), u64x8.load(wild, 8)
    up0, up1, down0, down1 = in0, in1, nothing, nothing
    rise, fall = (nothing, nothing), (nothing, nothing)
    c0, c1 = (nothing, nothing), (nothing, nothing)
    q00, q01 = u64x8.load(query, 0), u64x8.load(query, 8)
    q10, q11 = u64x8.load(query, WORDS), u64x8.load(query, WORDS + 8)
    for p in range(0, planes * WORDS, 8):
        nothing.store(masks, p)
    begin, stop = columns
    for time in range(begin, stop + WORDS):
        column = min(time, stop - 1)
        at = (column >> 6) * planes
        by: Any = np.uint64(column & 63)
        if planes == PLAIN:
            c0, _ = _moved(nothing - (u64x8.splat(target[at] >> by) & one), c0)
            c1, _ = _moved(nothing - (u64x8.splat(target[at + 1] >> by) & one), c1)
            unequal0 = (q00 ^ c0[0]) | (q10 ^ c1[0])
            unequal1 = (q01 ^ c0[1]) | (q11 ^ c1[1])
        else:
            unequal0 = unequal1 = nothing
            for p in range(planes):
                bit = nothing - (u64x8.splat(target[at + p] >> by) & one)
                mask, _ = _moved(bit, (u64x8.load(masks, p * WORDS), u64x8.load(masks, p * WORDS + 8)))
                mask[0].store(masks, p * WORDS)
                mask[1].store(masks, p * WORDS + 8)
                unequal0 |= u64x8.load(query, p * WORDS) ^ mask[0]
                unequal1 |= u64x8.load(query, p * WORDS + 8) ^ mask[1]
        handed: Any = np.uint64(along[column])
        rise, risen = _moved(u64x8.splat(handed) & one, rise)
        fall, fallen = _moved(u64x8.splat(handed) >> one, fall)
        if time >= begin + WORDS:
            along[time - WORDS] = risen + fallen + fallen
        equal0, equal1 = (~unequal0 & in0) | wild0, (~unequal1 & in1) | wild1
        if time < begin + WORDS:  # lanes that haven't begun stay as they are
            here = u64x8.ramp() <= u64x8.splat(time - begin)
            equal0 = here.select(equal0, ~in0)
            here = u64x8.ramp() + u64x8.splat(8) <= u64x8.splat(time - begin)
            equal1 = here.select(equal1, ~in1)
        up0, down0, more0, less0 = step(equal0, up0, down0, rise[0], fall[0])
        up1, down1, more1, less1 = step(equal1, up1, down1, rise[1], fall[1])
        rise, fall = (more0 >> last_bit, more1 >> last_bit), (less0 >> last_bit, less1 >> last_bit)


@njit(nogil=True)
def laid_target(letters: Any, first: int, last: int, planes: int) -> Any:
    """Planes of a target, word by word."""
    out = np.zeros(((last - first + 63) // 64 + 1) * planes, np.uint64)
    lay(letters, first, last, planes, 1, 0, out)
    return out


@njit(nogil=True)
def last_row(letters: Any, query: Any, target: Any, n: int, planes: int, diagonals: Any, mode: Any,
             limit: Any) -> Any:
    """The last row of a table.

    Args:
        letters: of the query.
        query: its first place and that behind its last letter; not empty.
        target: `laid_target`.
        n: the target's letters; above 0.
        planes: of both.
        diagonals: the least and greatest (row minus column) that are done; others cost more than they must.
        mode: WITHIN, where a column before the query costs nothing, or another.
        limit: errors above which it isn't gone on.

    Returns:
        Of each column what it costs more than the one before, as `_strip` has it; the first column that was done; the
        value before it; and the first one not done. No column and the errors to expect if all are above the limit.
    """
    m, first, free = query[1] - query[0], 0, mode == WITHIN
    along = np.full(n, 0 if free else 1, np.uint8)
    inside, wild = np.zeros(WORDS, np.uint64), np.zeros(WORDS, np.uint64)
    words, masks = np.zeros(8 * WORDS, np.uint64), np.zeros(8 * WORDS, np.uint64)
    row = done = 0
    value: Any = 0
    while row < m:
        length = (m - row - 1) % ROWS + 1
        pad = ROWS - length
        lay_strip(letters, query[0] + row, length, planes, words)
        for word in range(WORDS):
            inside[word] = ~lowest(min(max(pad - 64 * word, 0), 64))
            wild[word] = ~inside[word] if free else ZERO
        begin, stop = max(0, min(row - diagonals[1], n)), min(n, row + length - diagonals[0])
        for column in range(first, begin):
            value += 1 if along[column] == 1 else -np.int64(along[column] >> 1)
        value, first, row, done = value + length, begin, row + length, stop
        if begin < stop:
            _strip(words, inside, wild, target, planes, (begin, stop), along, masks)
        least = here = value
        for column in range(begin, stop):
            here += 1 if along[column] == 1 else -np.int64(along[column] >> 1)
            least = min(least, here)
        if least > limit:
            return along, n, least * m // row, n
    return along, first, value, done


@njit(nogil=True)
def lay_strip(letters: Any, first: int, length: int, planes: int, out: Any) -> None:
    """Planes of a strip's words, plane by plane; its rows before the letters stay as they are."""
    pad = ROWS - length
    for at in range(8 * WORDS):
        out[at] = ZERO
    for i in range(length):
        row, letter = pad + i, letters[first + i]
        if 97 <= letter <= 122:
            letter -= 32
        for p in range(planes):
            if (letter >> PLANES[p]) & 1:
                out[p * WORDS + (row >> 6)] |= np.uint64(1) << np.uint64(row & 63)


@njit(nogil=True)
def whole_distance(queries: Any, query: Any, targets: Any, target: Any, planes: int, k: Any) -> Any:
    """Distance of one pair of whole sequences, none empty; k errors are looked for first."""
    m, n = query[1] - query[0], target[1] - target[0]
    laid = laid_target(targets, target[0], target[1], planes)
    limit = max(k, abs(m - n))
    while True:
        diagonals = (-((limit - m + n) // 2), (limit + m - n) // 2)
        along, first, value, done = last_row(queries, query, laid, n, planes, diagonals, GLOBAL, limit)
        if first == n and done == n and value > limit:
            limit = max(2 * limit, min(value + value // 16, 8 * limit))
            continue
        for column in range(first, n):
            value += 1 if along[column] == 1 else -np.int64(along[column] >> 1)
        if value <= limit:
            return value
        limit *= 2


@njit(nogil=True)
def best_end(queries: Any, query: Any, targets: Any, target: Any, planes: int, mode: Any) -> Any:
    """Least distance of a query, not empty, and its end in the target, as `scored_group` finds them; of one pair."""
    m, n = query[1] - query[0], target[1] - target[0]
    free = mode == WITHIN
    limit = m if free else FIRST_LIMIT
    laid = laid_target(targets, target[0], target[1] if free else min(target[1], target[0] + 2 * m), planes)
    while True:
        limit = min(limit, m)
        columns = n if free else min(n, m + limit)
        diagonals = (-n, m) if free else (-limit, limit)
        along, first, value, done = last_row(queries, query, laid, columns, planes, diagonals, mode, limit)
        least, end = m, -1
        if not (first == columns and done == columns and value > limit):
            for column in range(first, done):
                value += 1 if along[column] == 1 else -np.int64(along[column] >> 1)
                if value < least or (mode == BACKWARDS and value == least):
                    least, end = value, column
        if least <= limit:
            return least, end
        limit *= 4
