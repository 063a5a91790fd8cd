"""Local and semi-global alignments of many pairs with their paths, one pair a lane, over the whole table.

As `local` does scores, but a column at a time, with a byte a cell that says how it was reached. Scores have a byte, or
two where that may run over; pairs that are longer than that are `one`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from gridcompute.alignment.costs import Costs
from gridcompute.alignment.lanes import Pairs, Runs, laid, lengths_of, ways_of, with_path
from gridcompute.alignment.scoring import QUERY_PAD, TARGET_PAD
from gridcompute.vectors import Kind, i8x64, i16x32, u8x32, u8x64

MOST_WAYS = 2**26
"""Bytes of cells' ways that a group of pairs may take."""

STOP = 3
"""In a cell's way: a local path begins there."""

RISES = 16
"""In a cell's way: its score is above those of all cells before it."""


def _filler(kind: Kind) -> Callable[..., Any]:
    """A function that fills the tables of as many pairs as a kind has lanes."""
    lanes, narrow = kind.lanes, u8x64 if kind.lanes == 64 else u8x32
    ways_by = ways_of(narrow)

    @njit(nogil=True)
    def fill(query: Any, target: Any, rows: int, columns: int, letters: Any, gaps: Any, zero: int, floor: int,
             lengths: Any, work: Any, ways: Any, rises: Any, found: Any) -> None:
        """Ways of all cells, and by lane in `found` the best score, `zero` included, and the column where it is.

        Args:
            query: codes, position by position, a lane beside the other.
            target: the same.
            rows: of the longest query.
            columns: of the longest target.
            letters: scores of two equal letters and of two others.
            gaps: what the first and each further letter of a gap cost.
            zero: what stands for 0.
            floor: what no score is below: `zero` for local alignments; else below all, for semi-global ones.
            lengths: by lane, of query and target.
            work: scratch of 2 * (rows + 1) * lanes.
            ways: (columns, rows, lanes) bytes.
            rises: (columns, lanes) bytes: whether the best score of a local alignment rose in a column.
            found: int64, (lanes, 2).
        """
        local, none = zero == floor, kind.splat(floor)
        equal, other = kind.splat(letters[0]), kind.splat(letters[1])
        first, more, nothing = kind.splat(gaps[0]), kind.splat(gaps[1]), kind.splat(zero)
        flat, stop, rising = narrow.splat(0), narrow.splat(STOP), narrow.splat(RISES)
        _begun(rows, lanes, zero, local, gaps, work)
        _ended(0, lengths, lanes, work, found)
        best, way_at = nothing, 0
        for column in range(1, columns + 1):
            letter, before = kind.load(target, (column - 1) * lanes), best
            corner, down = nothing, nothing - first
            for row in range(1, rows + 1):
                left, gap = kind.load(work, 2 * row * lanes), kind.load(work, (2 * row + 1) * lanes)
                both = corner + (kind.load(query, (row - 1) * lanes) == letter).select(equal, other)
                here = both.max(gap).max(down).max(none)
                corner, opened, longer, lower = left, here - first, gap - more, down - more
                way = ways_by(here == both, here == gap, longer > opened, lower > opened)
                way |= (here == none).select(stop, flat) | (here > best).select(rising, flat)
                way.store(ways, way_at)
                way_at += lanes
                best = best.max(here)
                here.store(work, 2 * row * lanes)
                longer.max(opened).store(work, (2 * row + 1) * lanes)
                down = lower.max(opened)
            (best > before).select(rising, flat).store(rises, (column - 1) * lanes)
            if not local:
                _ended(column, lengths, lanes, work, found)
        if local:
            best.store(work, 0)
            _last_risen(columns, lengths, lanes, work, rises, found)

    return fill


def _level(kind: Kind) -> Callable[..., Any]:
    """A function that aligns any pairs with the lanes of a kind, as far as those hold their scores."""
    lanes, dtype, element = kind.lanes, kind.dtype, kind.dtype.type
    least, greatest = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    fill = _filler(kind)

    @njit(nogil=True)
    def level(numbers: Any, pairs: Pairs, scoring: Any, letters: Any, local: bool, plain: bool, scores: Any,
              places: Any, runs: Runs) -> Any:
        """Scores, places and paths of pairs; the numbers of those that aren't done, and the runs.

        Args:
            numbers: of the pairs, sorted by length.
            pairs: all of them.
            scoring: see `align`.
            letters: scores of two equal letters and of two others.
            local: or semi-global.
            plain: M in CIGARs, in place of = and X.
            scores: out, int64.
            places: out, int64 (4, pairs): starts and ends in queries, in targets.
            runs: out.
        """
        lengths = lengths_of(pairs, numbers)
        rows, columns = _longest(lengths)
        gaps = (np.int64(scoring.gap_open), np.int64(scoring.gap_extend))
        query, target = np.empty(rows * lanes, dtype), np.empty(columns * lanes, dtype)
        work, rises = np.empty(2 * (rows + 1) * lanes, dtype), np.empty(columns * lanes, np.uint8)
        found, ways = np.empty((lanes, 2), np.int64), np.empty(0, np.uint8)
        left, count = np.empty(len(numbers), np.int64), 0
        for first in range(0, len(numbers), lanes):
            group, own = numbers[first : first + lanes], lengths[first : first + lanes]
            rows, columns = own[:, 0].max(), own[:, 1].max()
            zero, enough = _zero(least, rows, local, letters, gaps), greatest - letters[0] + 1
            reached = zero + letters[0] * (1 if local else min(rows, columns))
            if reached >= enough or columns * rows * lanes > MOST_WAYS:
                left[count : count + len(group)], count = group, count + len(group)
                continue
            if columns * rows * lanes > len(ways):
                ways = np.empty(columns * rows * lanes * 5 // 4, np.uint8)
            laid(group, pairs.query_at, pairs.queries, scoring.queries, element(QUERY_PAD), lanes, rows, query)
            laid(group, pairs.target_at, pairs.targets, scoring.targets, element(TARGET_PAD), lanes, columns, target)
            fill(query, target, rows, columns, letters, gaps, zero, zero if local else least, own, work, ways, rises,
                 found)
            before = count
            for lane, pair in enumerate(group):
                i, j = own[lane, 0], found[lane, 1]
                if local and found[lane, 0] >= enough:
                    left[count], count = pair, count + 1
                    continue
                i = _highest(ways, rows, i, j, lane, lanes) if local else i
                scores[pair], places[1, pair], places[3, pair] = found[lane, 0] - zero, i, j
                places[0, pair], places[2, pair], runs = with_path(pair, lane, lanes, (i, j), (rows, columns), query,
                                                                   target, ways, (True, local), plain, runs)
            if local and 2 * (count - before) > lanes:  # so it will be with the rest, which are longer
                rest = numbers[first + lanes :]
                left[count : count + len(rest)], count = rest, count + len(rest)
                break
        return left[:count], runs

    return level


@njit(nogil=True)
def _ended(column: int, lengths: Any, lanes: int, work: Any, found: Any) -> None:
    """Take the last row's score in a column where it is the best so far."""
    for lane in range(len(lengths)):
        score = np.int64(work[2 * lengths[lane, 0] * lanes + lane])
        if column == 0 or (column <= lengths[lane, 1] and score > found[lane, 0]):
            found[lane, 0], found[lane, 1] = score, column


@njit(nogil=True)
def _last_risen(columns: int, lengths: Any, lanes: int, best: Any, rises: Any, found: Any) -> None:
    """The best score of each lane, and the column where it rose last; 0 if it never did."""
    for lane in range(len(lengths)):
        column = columns
        while column > 0 and rises[(column - 1) * lanes + lane] == 0:
            column -= 1
        found[lane, 0], found[lane, 1] = best[lane], column


@njit(nogil=True)
def _longest(lengths: Any) -> Any:
    """Letters of the longest query and of the longest target, 1 or more."""
    rows = columns = 1
    for i in range(len(lengths)):
        rows, columns = max(rows, lengths[i, 0]), max(columns, lengths[i, 1])
    return rows, columns


@njit(nogil=True)
def _zero(least: int, rows: int, local: bool, letters: Any, gaps: Any) -> int:
    """What stands for 0 where nothing taken off leads below the least value."""
    under: int = least + 1 + max(gaps[0] + gaps[1], -letters[1])
    return under if local else under + gaps[0] + rows * gaps[1]


@njit(nogil=True)
def _highest(ways: Any, rows: int, row: int, column: int, lane: int, lanes: int) -> int:
    """The last row up to one, in the column where the best score rose last, where it did so; 0 if there is none."""
    if column == 0:
        return 0
    while (ways[((column - 1) * rows + row - 1) * lanes + lane] & RISES) == 0:
        row -= 1
    return row


@njit(nogil=True)
def _begun(rows: int, lanes: int, zero: int, local: bool, gaps: Any, work: Any) -> None:
    """Column 0 in all lanes: scores, and of gaps that enter the next column."""
    for row in range(rows + 1):
        edge = zero if local or row == 0 else zero - gaps[0] - (row - 1) * gaps[1]
        for lane in range(lanes):
            work[2 * row * lanes + lane], work[(2 * row + 1) * lanes + lane] = edge, edge - gaps[0]


@njit(nogil=True)
def equal_and_other(costs: Costs) -> Any:
    """Scores of two equal letters and of two others."""
    return costs.match, costs.match - costs.mismatch * costs.unit // 2


local_bytes, local_words = _level(i8x64), _level(i16x32)
