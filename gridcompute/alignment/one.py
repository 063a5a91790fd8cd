"""One pair's best alignment with its path, in memory that grows with the shorter sequence.

Gotoh's table column by column. Which way each cell was reached is kept, a byte a cell, for a block of columns only: at
each block's start the column is kept, and a block that the path goes through is done again from there. So the path is
that of the whole table, cell by cell. The longer sequence runs along the columns, and a block has 4 sqrt(columns) of
them: 8 * shorter * sqrt(longer) bytes in all, twice the time.

Of several best paths it is the one that, from its end backwards, takes letters against each other where it may, else a
deletion, else an insertion, and ends a gap as soon as it may: gaps lie leftmost. Of several ends it takes that with the
smallest end in the target, then in the query.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from gridcompute.alignment.cigars import DELETION, EQUAL, INSERTION, MATCH, UNEQUAL, push, turned

LOCAL, GLOBAL, SEMIGLOBAL = 0, 1, 2
"""Stretches of both; both whole; the whole query against a stretch of the target."""

DIAGONAL, ACROSS, DOWN, STOP = 0, 1, 2, 3
"""How a cell was reached: both letters; a gap over columns; a gap over rows; the path begins there."""

ACROSS_ON, DOWN_ON = 4, 8
"""A gap that comes to the next column or row from here goes on, instead of beginning here."""

NEVER = -(2**60)

MOST_BYTES = 2**28
"""That a pair may take; more is refused."""


@njit(nogil=True)
def _edge(at: int, free: bool, limit: int, gap_open: int, gap_extend: int) -> int:
    """The score of a cell on the table's edge, so far from its corner; beyond the limit of the band never."""
    if at > limit:
        return NEVER
    return 0 if free or at == 0 else -gap_open - (at - 1) * gap_extend


@njit(nogil=True)
def _column(j: int, rows: Any, scores: Any, free: Any, local: bool, swapped: bool, gaps: Any, band: Any, last: int,
            kept: Any, gap: Any, trace: bool, ways: Any, at: int) -> None:
    """Do column j (from 1) in `kept` (scores) and `gap` (of gaps that enter the next column), both by row from 0.

    Args:
        j: the column's number.
        rows: codes of the letters of the rows.
        scores: by code of a row's letter, of the column's letter.
        free: whether gaps before the first row cost nothing (along columns).
        local: whether a path may begin anywhere.
        swapped: whether queries are along the columns.
        gaps: gap_open, gap_extend.
        band: lowest and highest diagonal (column - row).
        last: row up to which it is done.
        kept: see above.
        gap: see above.
        trace: whether ways are written.
        ways: how cells were reached.
        at: where in `ways` row 0 of this column is.
    """
    gap_open, gap_extend = gaps
    low, high = band
    first, last = max(1, j - high), min(last, j - low)
    corner, down = kept[first - 1], np.int64(NEVER)
    if first == 1:
        kept[0] = _edge(j, free, high, gap_open, gap_extend)
        down = kept[0] - gap_open
    for i in range(first, last + 1):
        across = gap[i]
        here, way = corner + scores[rows[i - 1]], DIAGONAL
        if swapped:
            if down > here:
                here, way = down, DOWN
            if across > here:
                here, way = across, ACROSS
        else:
            if across > here:
                here, way = across, ACROSS
            if down > here:
                here, way = down, DOWN
        if local and here <= 0:
            here, way = np.int64(0), STOP
        corner, kept[i] = kept[i], here
        opened = here - gap_open
        gap[i], down = max(across - gap_extend, opened), max(down - gap_extend, opened)
        if trace:
            way |= ACROSS_ON if gap[i] > opened else 0
            ways[at + i] = way | (DOWN_ON if down > opened else 0)


@njit(nogil=True)
def _begun(rows: int, free: Any, gaps: Any, low: int, kept: Any, gap: Any) -> None:
    """Column 0."""
    for i in range(rows + 1):
        kept[i] = _edge(i, free, -low, gaps[0], gaps[1])
        gap[i] = max(kept[i] - gaps[0], NEVER)


@njit(nogil=True)
def _codes(letters: Any, codes: Any) -> Any:
    out = np.empty(len(letters), np.uint8)
    for i in range(len(letters)):
        out[i] = codes[letters[i]]
    return out


@njit(nogil=True)
def _back(i: int, j: int, gapped: int, first: int, rows: Any, columns: Any, ways: Any, swapped: bool, plain: bool,
          cigar: Any, count: int) -> Any:
    """Go back from a cell while its column is above `first`; the cell, the gap it is in, whether the path begins
    there, and the number of runs.
    """
    across, down = (INSERTION, DELETION) if swapped else (DELETION, INSERTION)
    width = len(rows) + 1
    while i > 0 and j > first:
        way = int(ways[(j - first - 1) * width + i])
        if gapped == DIAGONAL:
            gapped = way & 3
            if gapped == STOP:
                return i, j, DIAGONAL, True, count
        elif (way & (ACROSS_ON if gapped == ACROSS else DOWN_ON)) == 0:
            gapped = DIAGONAL
            continue
        if gapped == DIAGONAL:
            same = EQUAL if rows[i - 1] == columns[j - 1] else UNEQUAL
            count, i, j = push(cigar, count, MATCH if plain else same, 1), i - 1, j - 1
        elif gapped == ACROSS:
            count, j = push(cigar, count, across, 1), j - 1
        else:
            count, i = push(cigar, count, down, 1), i - 1
    return i, j, gapped, False, count


@njit(nogil=True)
def _better(j: int, first: int, last: int, swapped: bool, kept: Any, best: Any) -> None:
    """Take a cell of this column as the end, where it is better: (score, row, column) in `best`."""
    for i in range(first, last + 1):
        if kept[i] > best[0] or (kept[i] == best[0] and swapped and i < best[1]):
            best[0], best[1], best[2] = kept[i], i, j


@njit(nogil=True)
def align(query: Any, target: Any, scoring: Any, mode: int, low: int, high: int, plain: bool, cigar: Any) -> Any:
    """Best alignment of one pair, for use in kernels.

    Args:
        query: letters, uint8.
        target: letters, uint8.
        scoring: with `queries`, `targets`, `scores`, `gap_open`, `gap_extend`; see `Simple`.
        mode: LOCAL, GLOBAL or SEMIGLOBAL (the whole query against a stretch of the target).
        low: the lowest diagonal (place in the target less place in the query) of a band that the path keeps to.
        high: the highest one. For no band: -len(query), len(target).
        plain: M in the CIGAR, in place of = and X.
        cigar: uint32; with room for both sequences' letters it is always long enough. What is in it behind the path's
            runs is undefined.

    Returns:
        The score; first and last (exclusive) place in the query, and in the target; the number of runs in `cigar`.
        Of a local alignment that scores nothing all are 0.

    Raises:
        ValueError: `cigar` is too short, no path keeps to the band, or 8 * shorter * sqrt(longer) is above
            `MOST_BYTES`.
    """
    swapped = len(query) > len(target)
    ours, theirs = _codes(query, scoring.queries), _codes(target, scoring.targets)
    rows, columns = (theirs, ours) if swapped else (ours, theirs)
    scores = np.empty((max(scoring.scores.shape), max(scoring.scores.shape)), np.int64)  # by column's, then row's code
    for a in range(scoring.scores.shape[0]):
        for b in range(scoring.scores.shape[1]):
            scores[(a, b) if swapped else (b, a)] = scoring.scores[a, b]
    m, n = len(rows), len(columns)
    band = (-high, -low) if swapped else (low, high)
    if mode == GLOBAL:
        band = min(band[0], 0, n - m), max(band[1], 0, n - m)
    block = max(int(4 * np.sqrt(n)), 64)
    if (block + 16 * (n // block + 2)) * (m + 1) > MOST_BYTES:
        raise ValueError("a pair is too long for a path: 8 * shorter * sqrt(longer) is above 2^28, and it isn't alike")
    free = (mode == LOCAL or (mode == SEMIGLOBAL and not swapped), mode == LOCAL or (mode == SEMIGLOBAL and swapped))
    count, ends = _there_and_back(rows, columns, scores, free, mode, swapped,
                                  (np.int64(scoring.gap_open), np.int64(scoring.gap_extend)), band, block, plain, cigar)
    score, i, j, end_i, end_j = ends
    turned(cigar, count)
    return (score, j, end_j, i, end_i, count) if swapped else (score, i, end_i, j, end_j, count)


@njit(nogil=True)
def _there_and_back(rows: Any, columns: Any, scores: Any, free: Any, mode: int, swapped: bool, gaps: Any, band: Any,
                    block: int, plain: bool, cigar: Any) -> Any:
    """Number of runs, last one first; score, row and column where the path begins, and where it ends. `free`: whether
    gaps before the first row, and before the first column, cost nothing.
    """
    m, n, local = len(rows), len(columns), mode == LOCAL
    across_free, down_free = free
    kept, gap = np.empty(m + 1, np.int64), np.empty(m + 1, np.int64)
    starts = np.empty((n // block + 1, 2, m + 1), np.int64)
    ways = np.empty(min(block, n) * (m + 1), np.uint8)
    _begun(m, down_free, gaps, band[0], kept, gap)
    best = np.array([0 if local else 2 * NEVER, 0, 0], np.int64)
    whole = n <= block
    for j in range(n + 1):
        if j:
            _column(j, rows, scores[columns[j - 1]], across_free, local, swapped, gaps, band, m, kept, gap, whole, ways,
                    (j - 1) * (m + 1))
        if j % block == 0:
            starts[j // block, 0], starts[j // block, 1] = kept, gap
        if local or (mode == SEMIGLOBAL and not swapped) or j == n:  # the path may end in this column
            inside = min(m, j - band[0])
            if local or (mode == SEMIGLOBAL and swapped):
                _better(j, max(0, j - band[1]), inside, swapped, kept, best)
            elif inside == m:
                _better(j, max(m, j - band[1]), m, swapped, kept, best)
    score, end_i, end_j = best[0], best[1], best[2]
    if score < NEVER // 2:
        raise ValueError("no path keeps to the band")
    i, j, gapped, count, begun = end_i, end_j, DIAGONAL, 0, local and score == 0
    if begun:
        i = j = end_i = end_j = 0
    while i > 0 and j > 0 and not begun:
        number = (j - 1) // block
        first = number * block
        if not whole:
            kept[:], gap[:] = starts[number, 0], starts[number, 1]
            for column in range(first + 1, j + 1):
                _column(column, rows, scores[columns[column - 1]], across_free, local, swapped, gaps, band, i, kept,
                        gap, True, ways, (column - first - 1) * (m + 1))
        i, j, gapped, begun, count = _back(i, j, gapped, first, rows, columns, ways, swapped, plain, cigar, count)
    if j == 0 and not down_free:
        count, i = push(cigar, count, DELETION if swapped else INSERTION, i), 0
    if i == 0 and not across_free:
        count, j = push(cigar, count, INSERTION if swapped else DELETION, j), 0
    return count, (score, i, j, end_i, end_j)
