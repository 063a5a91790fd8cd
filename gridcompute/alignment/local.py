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

from gridcompute.alignment.scoring import QUERY_PAD, TARGET_PAD, Simple
from gridcompute.vectors import Kind, i8x64, i16x32, i32x16

COLUMNS = 4
"""Of the table that a pass does."""


def _scorer(kind: Kind) -> Callable[..., Any]:
    """A function that scores as many pairs as a kind has lanes."""
    lanes = kind.lanes

    @njit(nogil=True)
    def score(query: Any, target: Any, rows: int, columns: int, scoring: Simple, zero: int, enough: int, work: Any,
              out: Any) -> None:
        """Best scores plus `zero` in `out`; in each lane at least `enough` where that was reached in all of them.

        Args:
            query: codes, position by position, a lane beside the other.
            target: the same.
            rows: of the longest query.
            columns: of the longest target; a multiple of COLUMNS.
            scoring: what letters and gaps score.
            zero: what stands for 0.
            enough: a score, `zero` included, from which on it isn't worth while to go on.
            work: scratch of 2 * rows * lanes.
            out: of lanes.
        """
        nothing, most = kind.splat(zero), kind.splat(enough)
        match, mismatch = kind.splat(scoring.match), kind.splat(-scoring.mismatch)
        first, more = kind.splat(scoring.gap_open), kind.splat(scoring.gap_extend)
        best = nothing
        for at in range(0, 2 * rows * lanes, lanes):
            nothing.store(work, at)
        for column in range(0, columns * lanes, COLUMNS * lanes):
            t0, t1 = kind.load(target, column), kind.load(target, column + lanes)
            t2, t3 = kind.load(target, column + 2 * lanes), kind.load(target, column + 3 * lanes)
            f0, f1, f2, f3 = nothing, nothing, nothing, nothing
            d0, d1, d2, d3 = nothing, nothing, nothing, nothing
            for row in range(rows):
                letter = kind.load(query, row * lanes)
                left, e = kind.load(work, 2 * row * lanes), kind.load(work, (2 * row + 1) * lanes)
                h0 = (d0 + (letter == t0).select(match, mismatch)).max(nothing).max(f0).max(e)
                d0, opened = left, h0 - first
                e, f0 = (e - more).max(opened), (f0 - more).max(opened)
                h1 = (d1 + (letter == t1).select(match, mismatch)).max(nothing).max(f1).max(e)
                d1, opened = h0, h1 - first
                e, f1 = (e - more).max(opened), (f1 - more).max(opened)
                h2 = (d2 + (letter == t2).select(match, mismatch)).max(nothing).max(f2).max(e)
                d2, opened = h1, h2 - first
                e, f2 = (e - more).max(opened), (f2 - more).max(opened)
                h3 = (d3 + (letter == t3).select(match, mismatch)).max(nothing).max(f3).max(e)
                d3, opened = h2, h3 - first
                e, f3 = (e - more).max(opened), (f3 - more).max(opened)
                best = best.max(h0).max(h1).max(h2).max(h3)
                h3.store(work, 2 * row * lanes)
                e.store(work, (2 * row + 1) * lanes)
            if (best >= most).all():
                break
        best.store(out, 0)

    return score


def _level(kind: Kind) -> Callable[..., Any]:
    """A function that scores any pairs with the lanes of a kind, as far as those hold the scores."""
    lanes, dtype, element = kind.lanes, kind.dtype, kind.dtype.type
    least, greatest = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    score = _scorer(kind)

    @njit(nogil=True)
    def level(pairs: Any, query_at: Any, queries: Any, target_at: Any, targets: Any, scoring: Simple, out: Any) -> Any:
        """Scores of pairs, by number and sorted by length, in `out`; the numbers of those whose score ran over."""
        zero = least + max(scoring.gap_open + scoring.gap_extend, scoring.mismatch)
        enough = greatest - scoring.match + 1  # none below has met a sum that is too great
        if enough <= zero + scoring.match:
            return pairs
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
            rows = _laid(group, query_at, queries, scoring.queries, element(QUERY_PAD), lanes, 1, query)
            columns = _laid(group, target_at, targets, scoring.targets, element(TARGET_PAD), lanes, COLUMNS, target)
            score(query, target, rows, columns, scoring, zero, enough, work, found)
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
def _laid(pairs: Any, at: Any, letters: Any, codes: Any, pad: Any, lanes: int, multiple: int, out: Any) -> int:
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
            out[i * lanes + lane] = pad
    return length


_bytes, _words, _wide = _level(i8x64), _level(i16x32), _level(i32x16)


@njit(nogil=True)
def local_scores(queries: Any, targets: Any, scoring: Simple) -> Any:
    """The best local alignment's score of each pair, exact; for use in a kernel of chunks (`batch=True`).

    Args:
        queries: a column of letters as such a kernel gets it: offsets (pairs + 1,) and uint8 values.
        targets: the same.
        scoring: see `simple`.

    Returns:
        int64, shape (pairs,). Of an empty sequence 0.

    Raises:
        OverflowError: a score is above 2^31.
    """
    query_at, query_letters = queries
    target_at, target_letters = targets
    count = len(query_at) - 1
    out, lengths = np.zeros(count, np.int64), np.empty(count, np.int64)
    for pair in range(count):  # neighbours of one length keep all lanes busy
        lengths[pair] = (target_at[pair + 1] - target_at[pair] << 32) + query_at[pair + 1] - query_at[pair]
    left = np.argsort(lengths)
    left = _bytes(left, query_at, query_letters, target_at, target_letters, scoring, out)
    left = _words(left, query_at, query_letters, target_at, target_letters, scoring, out)
    left = _wide(left, query_at, query_letters, target_at, target_letters, scoring, out)
    if len(left):
        raise OverflowError("a local alignment scores more than 2^31")
    return out
