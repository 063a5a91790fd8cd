"""Global alignments of many pairs, one a lane, of which only a band about the diagonal is done.

Costs are counted (see `costs`), so a byte holds those of similar pairs, whatever their length. A path that leaves the
band has gaps on both sides, which cost something: where the band's best path costs less than that, it is the best of
all. Else its cost tells how wide a band is wide enough (Ukkonen 1985). A pair whose cost a byte can't hold is done with
two.

Nothing in this depends on other pairs but time: a lane's band is at least its own, and the path is that of the whole
table.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from gridcompute.alignment.costs import Costs, cost_outside, gap_cost, score_of
from gridcompute.alignment.lanes import Pairs, Runs, laid, lengths_of, sorted_by, ways_of, with_path
from gridcompute.alignment.scoring import QUERY_PAD, TARGET_PAD
from gridcompute.vectors import Kind, u8x32, u8x64, u16x32

MARGIN = 7
"""Diagonals on either side of a pair's own that are done first."""

COSTLY, LARGE = -1, -2
"""In place of a margin: a pair's cost is too great for the lanes, or too much memory would be taken."""

MOST_WAYS = 2**25
"""Bytes of cells' ways that a group of pairs may take."""


def _filler(kind: Kind, traced: bool) -> Callable[..., Any]:
    """A function that fills the band of as many pairs as a kind has lanes."""
    lanes, most, ways_by = kind.lanes, int(np.iinfo(kind.dtype).max), ways_of(u8x64 if kind.lanes == 64 else u8x32)

    @njit(nogil=True)
    def fill(query: Any, target: Any, rows: int, columns: int, low: int, high: int, costs: Costs, ends: Any, work: Any,
             ways: Any, out: Any) -> None:
        """Costs, at most the greatest value of the lanes' kind, in `out`.

        Args:
            query: codes, position by position, a lane beside the other.
            target: the same.
            rows: of the longest query.
            columns: of the longest target.
            low: the lowest diagonal of the band.
            high: the highest one.
            costs: below the greatest value.
            ends: by lane the lengths of query and target; those of targets rise.
            work: scratch of 2 * (rows + 1) * lanes.
            ways: (columns, min(rows, band's width), lanes) bytes, how cells were reached; unused if none are wanted.
            out: of lanes.
        """
        never, zero = kind.splat(most), kind.splat(0)
        unlike, first, more = kind.splat(costs.mismatch), kind.splat(costs.first), kind.splat(costs.more)
        height = min(rows, high - low + 1)
        for row in range(rows + 1):
            edge = kind.splat(min(gap_cost(row, costs), most)) if row <= -low else never
            edge.store(work, 2 * row * lanes)
            edge.add_saturated(first).store(work, (2 * row + 1) * lanes)
        done = 0
        while done < len(ends) and ends[done, 1] == 0:
            out[done] = work[2 * ends[done, 0] * lanes + done]
            done += 1
        for column in range(1, columns + 1):
            letter = kind.load(target, (column - 1) * lanes)
            begin, end = max(1, column - high), min(rows, column - low)
            corner, down = kind.load(work, 2 * (begin - 1) * lanes), never
            if begin == 1:
                top = kind.splat(min(gap_cost(column, costs), most)) if column <= high else never
                top.store(work, 0)
                down = top.add_saturated(first)
            way_at = (column - 1) * height * lanes
            for row in range(begin, end + 1):
                left, gap = kind.load(work, 2 * row * lanes), kind.load(work, (2 * row + 1) * lanes)
                both = corner.add_saturated((kind.load(query, (row - 1) * lanes) == letter).select(zero, unlike))
                here = both.min(gap).min(down)
                corner, opened = left, here.add_saturated(first)
                longer, lower = gap.add_saturated(more), down.add_saturated(more)
                if traced:
                    ways_by(here == both, here == gap, longer < opened, lower < opened).store(ways, way_at)
                    way_at += lanes
                here.store(work, 2 * row * lanes)
                longer.min(opened).store(work, (2 * row + 1) * lanes)
                down = lower.min(opened)
            while done < len(ends) and ends[done, 1] == column:
                out[done] = work[2 * ends[done, 0] * lanes + done]
                done += 1

    return fill


def _banded(kind: Kind, traced: bool) -> Callable[..., Any]:
    """A function that aligns any pairs with the lanes of a kind, as far as those hold their costs."""
    lanes, dtype, element, most = kind.lanes, kind.dtype, kind.dtype.type, int(np.iinfo(kind.dtype).max)
    fill = _filler(kind, traced)

    @njit(nogil=True)
    def banded(numbers: Any, pairs: Pairs, margins: Any, scoring: Any, costs: Costs, plain: bool, scores: Any,
               runs: Runs) -> Any:
        """Scores and paths of pairs; the numbers of those that aren't done, and the runs.

        Args:
            numbers: of the pairs; neighbours should be alike in length and margin.
            pairs: all of them.
            margins: by pair, how many diagonals there are on either side; where these were too few, they become what is
                enough, or COSTLY or LARGE.
            scoring: see `costs_of`.
            costs: of the scoring.
            plain: M in CIGARs, in place of = and X.
            scores: out, int64.
            runs: out.
        """
        lengths = lengths_of(pairs, numbers)
        rows = columns = 0
        for i in range(len(numbers)):
            rows, columns = max(rows, lengths[i, 0]), max(columns, lengths[i, 1])
        query, target = np.empty(max(rows, 1) * lanes, dtype), np.empty(max(columns, 1) * lanes, dtype)
        work, found = np.empty(2 * (rows + 1) * lanes, dtype), np.empty(lanes, dtype)
        ways, left, count = np.empty(0, np.uint8), np.empty(len(numbers), np.int64), 0
        for first in range(0, len(numbers), lanes):
            group = sorted_by(numbers[first : first + lanes], lengths[first : first + lanes, 1].copy())
            ends = lengths_of(pairs, group)
            rows, columns, low, high = _extents(ends, margins[group].max())
            size = columns * min(rows, high - low + 1) * lanes if traced else 0
            if size > MOST_WAYS or max(costs.mismatch, costs.first) >= most:
                margins[group] = LARGE if size > MOST_WAYS else COSTLY
                left[count : count + len(group)] = group
                count += len(group)
                continue
            if size > len(ways):
                ways = np.empty(size + size // 4, np.uint8)
            laid(group, pairs.query_at, pairs.queries, scoring.queries, element(QUERY_PAD), lanes, rows, query)
            laid(group, pairs.target_at, pairs.targets, scoring.targets, element(TARGET_PAD), lanes, columns, target)
            fill(query, target, rows, columns, low, high, costs, ends, work, ways, found)
            for lane in range(len(group)):
                pair, m, n, cost = group[lane], ends[lane, 0], ends[lane, 1], int(found[lane])
                if cost == most or cost >= cost_outside(low, high, m, n, costs):
                    margins[pair] = COSTLY if cost == most else margin_for(cost, m, n, costs)
                    left[count] = pair
                    count += 1
                    continue
                scores[pair] = score_of(cost, m + n, costs)
                if traced:
                    runs = with_path(pair, lane, lanes, (m, n), (min(rows, high - low + 1), high), query, target, ways,
                                     (False, False), plain, runs)[2]
        return left[:count], runs

    return banded


@njit(nogil=True)
def _extents(ends: Any, margin: int) -> Any:
    """Most rows and columns of some pairs, lowest and highest diagonal."""
    rows, columns, low, high = 0, 0, 0, 0
    for i in range(len(ends)):
        m, n = ends[i]
        rows, columns, low, high = max(rows, m), max(columns, n), min(low, n - m), max(high, n - m)
    return rows, columns, max(low - margin, -rows), min(high + margin, columns)


@njit(nogil=True)
def margin_for(cost: int, m: int, n: int, costs: Costs) -> int:
    """The narrowest margin that each path of a cost, or of a lesser one, keeps to."""
    beyond = (cost - 2 * (costs.first - costs.more) - costs.more * abs(n - m)) // (2 * costs.more)
    return max(min(beyond, max(m, n)), 0)


def _aligner(traced: bool) -> Callable[..., Any]:
    """A function that aligns pairs side by side."""
    bytewise, wide = _banded(u8x64, traced), _banded(u16x32, traced)

    @njit(nogil=True)
    def similar(numbers: Any, pairs: Pairs, scoring: Any, costs: Costs, plain: bool, scores: Any, runs: Runs) -> Any:
        """Global scores and paths; the numbers of pairs that need something else, and the runs. See `banded`."""
        margins = np.full(len(scores), MARGIN)
        lengths = lengths_of(pairs, np.arange(len(scores)))
        over, count = np.empty(len(numbers), np.int64), 0
        while len(numbers):
            numbers, runs = bytewise(_alike(numbers, margins), pairs, margins, scoring, costs, plain, scores, runs)
            numbers, count = _without(numbers, margins, over, count)
        numbers = over[:count]
        for pair in numbers:
            if margins[pair] == COSTLY:
                margins[pair] = max(margin_for(256, lengths[pair, 0], lengths[pair, 1], costs), MARGIN)
        left, count = np.empty(len(numbers), np.int64), 0
        numbers, count = _without(numbers, margins, left, count)
        while len(numbers):
            numbers, runs = wide(_alike(numbers, margins), pairs, margins, scoring, costs, plain, scores, runs)
            numbers, count = _without(numbers, margins, left, count)
        return left[:count], runs

    return similar


@njit(nogil=True)
def _alike(numbers: Any, margins: Any) -> Any:
    """Sorted by margin, roughly, and otherwise in their order."""
    keys = np.empty(len(numbers), np.int64)
    for i, pair in enumerate(numbers):
        step = 8
        while 4 * step <= margins[pair]:
            step *= 2
        keys[i] = ((margins[pair] + step - 1) // step * step << 32) + i
    return sorted_by(numbers, keys)


@njit(nogil=True)
def _without(numbers: Any, margins: Any, others: Any, count: int) -> Any:
    """Numbers of pairs that have a margin, the rest added to `others`, and how many those are."""
    kept = 0
    for pair in numbers:
        if margins[pair] < 0:
            others[count] = pair
            count += 1
        else:
            numbers[kept] = pair
            kept += 1
    return numbers[:kept], count


similar_scores_laned, similar_paths_laned = _aligner(False), _aligner(True)
