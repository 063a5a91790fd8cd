"""Paths of least edit distance: columns of eight pairs' tables are kept, and gone back through pair by pair."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from gridcompute.alignment.edit_groups import BAND_STEP, aligned, begin_words, lay_group, lengths
from gridcompute.alignment.edit_lanes import LANES, ONE, keep

INSERTION, DELETION, EQUAL, UNEQUAL = 1, 2, 7, 8
"""Operations as BAM numbers them; an insertion is a letter that only the query has."""

_FOLD = np.arange(256, dtype=np.uint8)
_FOLD[ord("a") : ord("z") + 1] -= 32


class Kept(NamedTuple):
    """Columns of a group's tables.

    Attributes:
        words: their differences, word by word as `edit_lanes` has them, a column behind the other.
        places: where the first column of each BAND_STEP lies in `words`.
        first: the first word that was done there.
        count: how many were done.
    """

    words: Any
    places: Any
    first: Any
    count: Any


@njit(nogil=True)
def band(m: int, n: int, distance: int) -> Any:
    """Least and greatest diagonal (row minus column) of paths of a distance."""
    return -((distance - m + n) // 2), (distance + m - n) // 2


@njit(nogil=True)
def words_kept(least: int, most: int, rows: int, columns: int) -> int:
    """How long `Kept.words` is for tables of so many rows and columns."""
    return columns * min((most - least + BAND_STEP) // 64 + 2, (rows + 63) // 64) * 2 * LANES


@njit(nogil=True)
def keeping(words: int, columns: int) -> Any:
    """Room for a group's columns."""
    steps = columns // BAND_STEP + 1
    return Kept(aligned(words), np.zeros(steps, np.int64), np.zeros(steps, np.int64), np.zeros(steps, np.int64))


@njit(nogil=True)
def keep_group(pairs: Any, group: Any, diagonals: Any, planes: int, work: Any, kept: Any) -> None:
    """Keep columns of the tables of up to eight pairs, within some diagonals.

    Args:
        pairs: all of them.
        group: numbers of these; no sequence is empty.
        diagonals: the least and the greatest that a path has.
        planes: that all of them can do with.
        work: scratch.
        kept: room.
    """
    lay_group(pairs, group, planes, work)
    rows = columns = first = last = at = 0
    for pair in group:
        m, n = lengths(pairs, pair)
        rows, columns = max(rows, m), max(columns, n)
    for begin in range(0, columns, BAND_STEP):
        low = max((begin + diagonals[0]) >> 6, 0)
        high = min(((begin + BAND_STEP - 1 + diagonals[1]) >> 6) + 1, (rows + 63) // 64)
        begin_words(work.state, last, high)
        first, last = max(first, min(low, high)), max(last, high)
        step = begin // BAND_STEP
        kept.places[step], kept.first[step], kept.count[step] = at, first, last - first
        stop = min(begin + BAND_STEP, columns)
        keep(work.query, work.target, planes, work.state, (begin, stop), (first, last), work.masks, kept.words, at)
        at += (stop - begin) * (last - first) * 2 * LANES


@njit(nogil=True)
def _has(kept: Any, row: int, column: int, lane: int, down: int) -> bool:
    """Whether a row is one more (`down` 0) or one less (1) than the row above; no where it wasn't done."""
    step = column // BAND_STEP
    word = (row >> 6) - kept.first[step]
    if not 0 <= word < kept.count[step]:
        return False
    at = kept.places[step] + ((column % BAND_STEP) * kept.count[step] + word) * 2 * LANES + down * LANES + lane
    return bool((kept.words[at] >> np.uint64(row & 63)) & ONE != 0)


@njit(nogil=True)
def extend(out: Any, count: int, operation: Any, length: Any) -> int:
    """Put a run behind others, which it lengthens if it is of the same kind; how many there are then."""
    if length == 0:
        return count
    if count and out[count - 1] & np.uint32(15) == operation:
        out[count - 1] += np.uint32(length << 4)
        return count
    out[count] = np.uint32(length << 4 | operation)
    return count + 1


@njit(nogil=True)
def path_back(pairs: Any, pair: int, lane: int, kept: Any, out: Any) -> int:
    """A pair's path from its end to its start, gaps as far to the left as they can be.

    Args:
        pairs: all of them.
        pair: which of them.
        lane: in which it was kept.
        kept: columns.
        out: gets the runs, the last of the path first.

    Returns:
        How many runs there are.
    """
    row, column = lengths(pairs, pair)
    query, target = pairs.query_at[pair], pairs.target_at[pair]
    count = 0
    while row and column:
        same = _FOLD[pairs.queries[query + row - 1]] == _FOLD[pairs.targets[target + column - 1]]
        if not same and _has(kept, row - 1, column - 1, lane, 0):
            count = extend(out, count, INSERTION, 1)
            row -= 1
        elif not same and column > 1 and _has(kept, row - 1, column - 2, lane, 1):
            count = extend(out, count, DELETION, 1)
            column -= 1
        else:
            count = extend(out, count, EQUAL if same else UNEQUAL, 1)
            row, column = row - 1, column - 1
    return extend(out, extend(out, count, INSERTION, row), DELETION, column)
