"""Scores of best local alignments (Smith and Waterman 1981, affine gaps as Gotoh 1982) of many pairs at once.

One pair a lane, as SWIPE does it (Rognes 2011): all lanes do the same step, so no lane waits for another. First 64
pairs with scores of a byte; those whose score may have run over again with two bytes, then with four. Four columns of
the table are done in a pass, which halves what is loaded and stored. Nothing is added with saturation: those
instructions go to fewer ports than plain ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from gridcompute.alignment.lookups import Lookup, by_scoring, columns_of, compared, looked_up
from gridcompute.alignment.scoring import Matrix, Simple
from gridcompute.vectors import Kind, i8x64, i16x32, i32x16

COLUMNS = 4
"""Of the table that a pass does."""


def cell(kind: Kind) -> Callable[..., Any]:
    """A function that does one cell in each lane; values are those of the table plus what stands for 0."""
    @njit(nogil=True)
    def one(corner: Any, score: Any, e: Any, f: Any, nothing: Any, first: Any, more: Any) -> Any:
        """(h, e, f) of the cell; e and f come in from its left and from above, and go out to its right and below."""
        h = (corner + score).max(nothing).max(f).max(e)
        opened = h - first
        return h, (e - more).max(opened), (f - more).max(opened)

    return one


def _scorer(kind: Kind, four: Callable[..., Any]) -> Callable[..., Any]:
    """A function that scores as many pairs as a kind has lanes."""
    lanes, loaded, one = kind.lanes, columns_of(kind), cell(kind)

    @njit(nogil=True)
    def score(query: Any, target: Any, rows: int, columns: int, table: Any, costs: Any, zero: int, enough: int,
              work: Any, out: Any) -> None:
        """Best scores plus `zero` in `out`; in each lane at least `enough` where that was reached in all of them.

        Args:
            query: codes, position by position, a lane beside the other.
            target: the same.
            rows: of the longest query.
            columns: of the longest target; a multiple of COLUMNS.
            table: what letters score.
            costs: of a gap's first letter and of a further one.
            zero: what stands for 0.
            enough: a score, `zero` included, from which on it isn't worth while to go on.
            work: scratch of 2 * rows * lanes.
            out: of lanes.
        """
        nothing, most = kind.splat(zero), kind.splat(enough)
        good, bad = kind.splat(table[0]), kind.splat(table[1])
        first, more = kind.splat(costs[0]), kind.splat(costs[1])
        best = nothing
        for at in range(0, 2 * rows * lanes, lanes):
            nothing.store(work, at)
        for column in range(0, columns * lanes, COLUMNS * lanes):
            t0, t1, t2, t3 = loaded(target, column)
            f0, f1, f2, f3 = nothing, nothing, nothing, nothing
            d0, d1, d2, d3 = nothing, nothing, nothing, nothing
            for row in range(rows):
                s0, s1, s2, s3 = four(query, row, table, good, bad, t0, t1, t2, t3)
                left, e = kind.load(work, 2 * row * lanes), kind.load(work, (2 * row + 1) * lanes)
                h0, e, f0 = one(d0, s0, e, f0, nothing, first, more)
                h1, e, f1 = one(d1, s1, e, f1, nothing, first, more)
                h2, e, f2 = one(d2, s2, e, f2, nothing, first, more)
                h3, e, f3 = one(d3, s3, e, f3, nothing, first, more)
                d0, d1, d2, d3 = left, h0, h1, h2
                best = best.max(h0).max(h1).max(h2).max(h3)
                h3.store(work, 2 * row * lanes)
                e.store(work, (2 * row + 1) * lanes)
            if (best >= most).all():
                break
        best.store(out, 0)

    return score


@njit(nogil=True)
def limits(scores: Any, gap_open: Any, gap_extend: Any, least: int, greatest: int) -> Any:
    """What stands for 0, a value from which on a score may have run over, and whether between them there is room.

    Args:
        scores: of letters.
        gap_open: as in `Simple`.
        gap_extend: the same.
        least: that a lane holds.
        greatest: the same.
    """
    lowest, highest = min(int(scores.min()), 0), max(int(scores.max()), 0)
    zero = least + max(gap_open + gap_extend, -lowest)
    enough = greatest - highest + 1  # none below has met a sum that is too great
    return zero, enough, enough > zero + highest


def _level(kind: Kind, lookup: Lookup) -> Callable[..., Any]:
    """A function that scores any pairs with the lanes of a kind, as far as those hold the scores."""
    lanes, dtype = kind.lanes, kind.dtype
    least, greatest = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    score, letters = _scorer(kind, lookup.four), lookup.letters

    @njit(nogil=True)
    def level(pairs: Any, query_at: Any, queries: Any, target_at: Any, targets: Any, scoring: Any, out: Any) -> Any:
        """Scores of pairs, by number and sorted by length, in `out`; the numbers of those whose score ran over."""
        zero, enough, room = limits(scoring.scores, scoring.gap_open, scoring.gap_extend, least, greatest)
        if not room:
            return pairs
        query_codes, target_codes, table = letters(scoring, least, 0)
        costs = (scoring.gap_open, scoring.gap_extend)
        rows = columns = 0
        for pair in pairs:
            rows = max(rows, query_at[pair + 1] - query_at[pair])
            columns = max(columns, target_at[pair + 1] - target_at[pair])
        query = np.empty(max(rows, 1) * lanes, dtype)
        target = np.empty((columns + COLUMNS) * lanes, dtype)
        work, found = np.empty(2 * max(rows, 1) * lanes, dtype), np.empty(lanes, dtype)
        over, count = np.empty(len(pairs), np.int64), 0
        for first in range(0, len(pairs), lanes):
            group = pairs[first : first + lanes]
            rows = _laid(group, query_at, queries, query_codes, lanes, 1, query)
            columns = _laid(group, target_at, targets, target_codes, lanes, COLUMNS, target)
            score(query, target, rows, columns, table, costs, zero, enough, work, found)
            before = count
            for lane in range(len(group)):
                if found[lane] >= enough:
                    over[count] = group[lane]
                    count += 1
                out[group[lane]] = np.int64(found[lane]) - zero
            if 2 * (count - before) > lanes:  # so it will be with those that follow, which are longer
                for pair in pairs[first + lanes :]:
                    over[count] = pair
                    count += 1
                break
        return over[:count]

    return level


@njit(nogil=True)
def _laid(pairs: Any, at: Any, letters: Any, codes: Any, lanes: int, multiple: int, out: Any) -> int:
    """Lay sequences side by side, a lane each, and pads behind their ends; how many positions there are."""
    length = 0
    for pair in pairs:
        length = max(length, at[pair + 1] - at[pair])
    length = (length + multiple - 1) // multiple * multiple
    for lane in range(lanes):
        own = 0
        if lane < len(pairs):
            first = at[pairs[lane]]
            own = at[pairs[lane] + 1] - first
            for i in range(own):
                out[i * lanes + lane] = codes[letters[first + i]]
        for i in range(own, length):
            out[i * lanes + lane] = codes[256]
    return length


@njit(nogil=True)
def by_length(query_at: Any, target_at: Any) -> Any:
    """Numbers of pairs, those of about one length next to each other: neighbours keep all lanes busy."""
    lengths = np.empty(len(query_at) - 1, np.int64)
    for pair in range(len(lengths)):
        lengths[pair] = (target_at[pair + 1] - target_at[pair] << 32) + query_at[pair + 1] - query_at[pair]
    return np.argsort(lengths)


def _levels(lookup: Callable[[Kind], Lookup]) -> Callable[..., Any]:
    """A function that scores any pairs, with one byte a lane, then two, then four."""
    few, more, most = _level(i8x64, lookup(i8x64)), _level(i16x32, lookup(i16x32)), _level(i32x16, lookup(i32x16))

    @njit(nogil=True)
    def scores(queries: Any, targets: Any, scoring: Any, how: int, out: Any) -> int:
        """Scores in `out`; how many are above 2^31."""
        query_at, query_letters = queries
        target_at, target_letters = targets
        left = few(by_length(query_at, target_at), query_at, query_letters, target_at, target_letters, scoring, out)
        left = more(left, query_at, query_letters, target_at, target_letters, scoring, out)
        return len(most(left, query_at, query_letters, target_at, target_letters, scoring, out))

    return scores


_scores = by_scoring(_levels(compared), _levels(looked_up))


@njit(nogil=True)
def local_scores(queries: Any, targets: Any, scoring: Simple | Matrix) -> Any:
    """The best local alignment's score of each pair, exact; for use in a kernel of chunks (`batch=True`).

    Args:
        queries: a column of letters as such a kernel gets it: offsets (pairs + 1,) and uint8 values.
        targets: the same.
        scoring: see `simple` and `matrix`.

    Returns:
        int64, shape (pairs,). Of an empty sequence 0.

    Raises:
        OverflowError: a score is above 2^31.
    """
    out = np.zeros(len(queries[0]) - 1, np.int64)
    if _scores(queries, targets, scoring, 0, out):
        raise OverflowError("a local alignment scores more than 2^31")
    return out
