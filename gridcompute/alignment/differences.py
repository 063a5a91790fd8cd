"""Scores of global and semi-global alignments with affine gaps of many pairs at once.

What is kept of the table are differences between neighbours (Suzuki and Kasahara 2018). They are no greater than what
letters and gaps score, however long the sequences are: a byte a lane is enough for any length, and nothing runs over.
With M the best score of two letters and G what a gap's first letter costs, the table H and the gaps E (to the right)
and F (downwards) are kept as

    down   H[i, j] - H[i-1, j] + G      right  H[i, j] - H[i, j-1] + G      from 0 to M + 2 G
    e      E[i, j+1] - H[i, j] + G      f      F[i+1, j] - H[i, j] + G      from 0 to G

and a step is z = max(score + 2 G, f + right, e + down), which is H[i, j] - H[i-1, j-1] + 2 G, and from 0 to M + 2 G as
well. A score is a sum of differences along an edge of the table; these alone are added up, in 64 bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from gridcompute.alignment.local import COLUMNS, by_length
from gridcompute.alignment.lookups import Lookup, by_scoring, columns_of, compared, looked_up
from gridcompute.alignment.scoring import Matrix, Simple
from gridcompute.vectors import Kind, i8x64, i16x32, i32x16

QUERY_FREE, TARGET_FREE = 1, 2
"""Gaps at the ends of the query, or of the target, cost nothing."""

NEVER = -(2**62)


def _cell(kind: Kind) -> Callable[..., Any]:
    """A function that does one cell in each lane."""
    @njit(nogil=True)
    def one(score: Any, down: Any, e: Any, right: Any, f: Any, nothing: Any, saved: Any) -> Any:
        """(down, e, right, f): the first two come from the cell's left, the others from above."""
        above, beside = f + right, e + down
        z = score.max(above).max(beside)
        opened = z - saved
        return z - right, (beside - opened).max(nothing), z - down, (above - opened).max(nothing)

    return one


def _merger(kind: Kind) -> Callable[..., Any]:
    """A function that writes the lanes of a mask, and leaves others as they are."""
    @njit(nogil=True)
    def merge(where: Any, lanes: Any, out: Any, at: int) -> None:
        where.select(lanes, kind.load(out, at)).store(out, at)

    return merge


def _stepper(kind: Kind, four: Callable[..., Any]) -> Callable[..., Any]:
    """A function that goes over the tables of as many pairs as a kind has lanes."""
    lanes, loaded, one, merge = kind.lanes, columns_of(kind), _cell(kind), _merger(kind)

    @njit(nogil=True)
    def step(query: Any, target: Any, rows: int, passes: int, table: Any, saved: int, edges: Any, places: Any,
             marks: Any, last: Any, work: Any, bottom: Any, side: Any) -> None:
        """Differences along the last row of each lane in `bottom`, and along its last column in `side`.

        Args:
            query: codes, position by position, a lane beside the other; pads behind the ends.
            target: the same; a lane's last letter is among the last COLUMNS, its first one begins a pass.
            rows: of the longest query.
            passes: of COLUMNS positions.
            table: what letters score.
            saved: by a gap's further letter, compared to its first.
            edges: `right` above the first row, in the first column and in others; `down` left of the first column.
            places: number of the marks of lanes that begin at each pass, then that end at each row; or -1.
            marks: 1 for each lane marked and 0 for others, number by number.
            last: which of the last COLUMNS positions is a lane's last letter.
            work: scratch of 2 * rows * lanes.
            bottom: of as many positions as the target's.
            side: of as many as the query's.
        """
        nothing, save = kind.splat(0), kind.splat(saved)
        good, bad = kind.splat(table[0]), kind.splat(table[1])
        top, later = kind.splat(edges[0]), kind.splat(edges[1])
        aside, below = kind.splat(edges[2]), kind.splat(edges[3])
        end = kind.load(last, 0)
        end0, end1, end2 = end == nothing, end == kind.splat(1), end == kind.splat(2)
        for at in range(passes):
            column = at * COLUMNS * lanes
            t0, t1, t2, t3 = loaded(target, column)
            f0, f1, f2, f3, begins, beside = nothing, nothing, nothing, nothing, nothing, aside
            r0, r1, r2, r3 = later, later, later, later
            if places[at] >= 0:
                begins = kind.load(marks, places[at] * lanes)
                r0 = (begins != nothing).select(top, later)
            for row in range(rows):
                s0, s1, s2, s3 = four(query, row, table, good, bad, t0, t1, t2, t3)
                down, e = kind.load(work, 2 * row * lanes), kind.load(work, (2 * row + 1) * lanes)
                if places[at] >= 0:
                    here = begins != nothing
                    down, e, beside = here.select(beside, down), here.select(nothing, e), below
                down0, e, r0, f0 = one(s0, down, e, r0, f0, nothing, save)
                down1, e, r1, f1 = one(s1, down0, e, r1, f1, nothing, save)
                down2, e, r2, f2 = one(s2, down1, e, r2, f2, nothing, save)
                down3, e, r3, f3 = one(s3, down2, e, r3, f3, nothing, save)
                down3.store(work, 2 * row * lanes)
                e.store(work, (2 * row + 1) * lanes)
                if places[passes + row] >= 0:
                    here = kind.load(marks, places[passes + row] * lanes) != nothing
                    merge(here, r0, bottom, column)
                    merge(here, r1, bottom, column + lanes)
                    merge(here, r2, bottom, column + 2 * lanes)
                    merge(here, r3, bottom, column + 3 * lanes)
                if at == passes - 1:
                    end0.select(down0, end1.select(down1, end2.select(down2, down3))).store(side, row * lanes)

    return step


@njit(nogil=True)
def _lengths(group: Any, at: Any, out: Any) -> Any:
    """Lengths of a group's sequences in `out`, one a lane, 0 in lanes that are left; the greatest."""
    out[:] = 0
    for lane in range(len(group)):
        out[lane] = at[group[lane] + 1] - at[group[lane]]
    return max(out)


@njit(nogil=True)
def _marked(numbers: Any, own: Any, places: Any, marks: Any, count: int) -> int:
    """Mark each lane that isn't empty at the place of its number.

    Args:
        numbers: of the lanes.
        own: their lengths.
        places: number of the marks at each place, which is written where there are none.
        marks: see `step`.
        count: how many of the marks are taken; those that are taken then are returned.
    """
    lanes = len(own)
    for lane in range(lanes):
        if own[lane]:
            at = numbers[lane]
            if places[at] < 0:
                places[at] = count
                marks[count * lanes : (count + 1) * lanes] = 0
                count += 1
            marks[places[at] * lanes + lane] = 1
    return count


@njit(nogil=True)
def _placed(group: Any, at: Any, letters: Any, codes: Any, first: Any, own: Any, positions: int, out: Any) -> None:
    """Lay sequences side by side, each from its first position on, and pads where there are none."""
    lanes = len(own)
    for lane in range(lanes):
        begin, end = first[lane], first[lane] + own[lane]
        for i in range(begin, end):
            out[i * lanes + lane] = codes[letters[at[group[lane]] + i - begin]]
        for i in range(begin):
            out[i * lanes + lane] = codes[256]
        for i in range(end, positions):
            out[i * lanes + lane] = codes[256]


@njit(nogil=True)
def _summed(differences: Any, first: Any, own: Any, positions: int, shift: Any, here: Any, best: Any) -> None:
    """From the first value along an edge, in `here`, to the last one of each lane; and the greatest after the first."""
    lanes = len(here)
    for i in range(positions):
        for lane in range(lanes):  # the inner loop, so that numba does several lanes at once
            within = first[lane] <= i < first[lane] + own[lane]
            here[lane] += np.int64(differences[i * lanes + lane]) - shift if within else 0
            best[lane] = max(best[lane], here[lane]) if within else best[lane]


@njit(nogil=True)
def _outer(own: Any, free: int, scoring: Any, here: Any, best: Any) -> None:
    """What a gap at the table's edge scores, in `here`; and something less than any score."""
    for lane in range(len(own)):
        best[lane], here[lane] = NEVER, 0
        if own[lane] and not free:
            here[lane] = -(np.int64(scoring.gap_open) + (own[lane] - 1) * np.int64(scoring.gap_extend))


@njit(nogil=True)
def _edges(free: int, scoring: Any) -> Any:
    """What `step` takes: differences, G added, of the table's outer row and column."""
    opened, further = np.int64(scoring.gap_open), np.int64(scoring.gap_open) - np.int64(scoring.gap_extend)
    top = (opened, opened) if free & TARGET_FREE else (0, further)
    aside = (opened, opened) if free & QUERY_FREE else (0, further)
    return top[0], top[1], aside[0], aside[1]


def _level(kind: Kind, lookup: Lookup) -> Callable[..., Any]:
    """A function that scores any pairs with the lanes of a kind, if those hold the differences."""
    lanes, dtype = kind.lanes, kind.dtype
    step, letters = _stepper(kind, lookup.four), lookup.letters

    @njit(nogil=True)
    def level(query_at: Any, queries: Any, target_at: Any, targets: Any, scoring: Any, free: int, out: Any) -> None:
        opened, pairs = np.int64(scoring.gap_open), by_length(query_at, target_at)
        query_codes, target_codes, table = letters(scoring, -2 * opened, 2 * opened)
        saved, edges = opened - np.int64(scoring.gap_extend), _edges(free, scoring)
        rows, passes = 1, 1
        for pair in pairs:
            rows = max(rows, query_at[pair + 1] - query_at[pair])
            passes = max(passes, (target_at[pair + 1] - target_at[pair] + COLUMNS - 1) // COLUMNS)
        query, side = np.empty(rows * lanes, dtype), np.empty(rows * lanes, dtype)
        target, bottom = np.empty(passes * COLUMNS * lanes, dtype), np.empty(passes * COLUMNS * lanes, dtype)
        work, last = np.empty(2 * rows * lanes, dtype), np.empty(lanes, dtype)
        marks = np.empty(2 * lanes * lanes, dtype)
        high, wide, zeros, begin, left, top, low, right = np.zeros((8, lanes), np.int64)
        for first in range(0, len(pairs), lanes):
            group = pairs[first : first + lanes]
            rows = _lengths(group, query_at, high)
            passes = (_lengths(group, target_at, wide) + COLUMNS - 1) // COLUMNS
            for lane in range(lanes):
                begin[lane] = passes - (wide[lane] + COLUMNS - 1) // COLUMNS
                last[lane] = (wide[lane] - 1) % COLUMNS
            places = np.full(passes + rows, -1)
            count = _marked(begin, wide, places[:passes], marks, 0)
            _marked(high - 1, high, places[passes:], marks, count)
            begin *= COLUMNS
            _placed(group, query_at, queries, query_codes, zeros, high, rows, query)
            _placed(group, target_at, targets, target_codes, begin, wide, passes * COLUMNS, target)
            step(query, target, rows, passes, table, saved, edges, places, marks, last, work, bottom, side)
            _outer(high, free & QUERY_FREE, scoring, left, low)
            _outer(wide, free & TARGET_FREE, scoring, top, right)
            for lane in range(len(group)):
                if not high[lane] or not wide[lane]:
                    out[group[lane]] = 0 if free == QUERY_FREE + TARGET_FREE else left[lane] + top[lane]
            _summed(bottom, begin, wide, passes * COLUMNS, opened, left, low)
            if free & QUERY_FREE:
                _summed(side, zeros, high, rows, opened, top, right)
            for lane in range(len(group)):
                if high[lane] and wide[lane]:
                    ends = max(low[lane] if free & TARGET_FREE else NEVER, right[lane] if free & QUERY_FREE else NEVER)
                    out[group[lane]] = ends if free else left[lane]

    return level


def _levels(lookup: Callable[[Kind], Lookup]) -> Callable[..., Any]:
    """A function that scores any pairs with the narrowest lanes that hold all differences."""
    few, more, most = _level(i8x64, lookup(i8x64)), _level(i16x32, lookup(i16x32)), _level(i32x16, lookup(i32x16))

    @njit(nogil=True)
    def scores(queries: Any, targets: Any, scoring: Any, free: int, out: Any) -> None:
        query_at, query_letters = queries
        target_at, target_letters = targets
        greatest = max(int(scoring.scores.max()), 0) + 2 * scoring.gap_open
        if greatest <= 127:
            few(query_at, query_letters, target_at, target_letters, scoring, free, out)
        elif greatest <= 32767:
            more(query_at, query_letters, target_at, target_letters, scoring, free, out)
        else:
            most(query_at, query_letters, target_at, target_letters, scoring, free, out)

    return scores


_scores = by_scoring(_levels(compared), _levels(looked_up))


@njit(nogil=True)
def global_scores(queries: Any, targets: Any, scoring: Simple | Matrix) -> Any:
    """The score of the best alignment of each pair from end to end (Needleman and Wunsch 1970), exact.

    Args:
        queries: a column of letters as a kernel of chunks gets it: offsets (pairs + 1,) and uint8 values.
        targets: the same.
        scoring: see `simple` and `matrix`.

    Returns:
        int64, shape (pairs,). Against an empty sequence the score is that of one gap.
    """
    out = np.zeros(len(queries[0]) - 1, np.int64)
    _scores(queries, targets, scoring, 0, out)
    return out


@njit(nogil=True)
def semiglobal_scores(queries: Any, targets: Any, scoring: Simple | Matrix, free: str = "both") -> Any:
    """The score of the best alignment of each pair in which gaps at some of the ends cost nothing, exact.

    Args:
        queries: a column of letters as a kernel of chunks gets it: offsets (pairs + 1,) and uint8 values.
        targets: the same.
        scoring: see `simple` and `matrix`.
        free: whose ends may be left out: "target" (the whole query somewhere in the target, as reads are mapped;
            parasail's sg_dx), "query" (the other way round, sg_qx), or "both" (sequences that overlap, sg).

    Returns:
        int64, shape (pairs,). At least one letter of each sequence is aligned or lies within a gap. Against an empty
        sequence: 0 where both are free or it costs nothing, else the score of one gap.

    Raises:
        ValueError: `free` is something else.
    """
    out = np.zeros(len(queries[0]) - 1, np.int64)
    if free == "both":
        _scores(queries, targets, scoring, QUERY_FREE + TARGET_FREE, out)
    elif free == "target":
        _scores(queries, targets, scoring, TARGET_FREE, out)
    elif free == "query":
        _scores(queries, targets, scoring, QUERY_FREE, out)
    else:
        raise ValueError("free is none of 'target', 'query', 'both'")
    return out
