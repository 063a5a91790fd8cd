"""Scores of global and semi-global alignments with affine gaps of many pairs at once.

What is kept of the table are differences between neighbours (Suzuki and Kasahara 2018): they are no greater than what
letters and gaps score, however long the sequences are. So a byte a lane is enough for any length, and nothing runs over.
With M the best score of two letters and G what a gap's first letter costs, the table H and the gaps E (to the right) and F
(downwards) are kept as

    down   H[i, j] - H[i-1, j] + G      right  H[i, j] - H[i, j-1] + G      from 0 to M + 2 G
    e      E[i, j+1] - H[i, j] + G      f      F[i+1, j] - H[i, j] + G      from 0 to G

and a step is z = max(score + 2 G, f + right, e + down), which is H[i, j] - H[i-1, j-1] + 2 G, and from 0 to M + 2 G too.
A cell's score is a sum of differences along the table's edge; these alone are added up in 64 bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from gridcompute.alignment.local import COLUMNS, by_length
from gridcompute.alignment.lookups import Lookup, by_scoring, compared, looked_up
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


def _stepper(kind: Kind, four: Callable[..., Any]) -> Callable[..., Any]:
    """A function that goes over the tables of as many pairs as a kind has lanes."""
    lanes, one = kind.lanes, _cell(kind)

    @njit(nogil=True)
    def step(query: Any, target: Any, rows: int, passes: int, table: Any, saved: int, edges: Any, places: Any,
             marks: Any, last: Any, work: Any, bottom: Any, side: Any) -> None:
        """Differences along the last row of each lane in `bottom`, along its last column in `side`.

        Args:
            query: codes, position by position, a lane beside the other; pads behind the ends.
            target: the same; a lane's last letter is among the last COLUMNS positions, its first one begins a pass.
            rows: of the longest query.
            passes: of COLUMNS positions.
            table: what letters score.
            saved: by a gap's further letter, compared to its first.
            edges: `right` of the row above the first, in the first column and in others; `down` left of the first
                column, in the first row and in others.
            places: number of the lanes marked that begin at each pass, then those that end at each row; -1 for none.
            marks: 1 for each lane marked and 0 for others, number by number.
            last: which of the last COLUMNS positions is a lane's last letter.
            work: scratch of 2 * rows * lanes.
            bottom: COLUMNS * passes * lanes.
            side: rows * lanes.
        """
        nothing, save = kind.splat(0), kind.splat(saved)
        good, bad = kind.splat(table[0]), kind.splat(table[1])
        top, later, aside, below = kind.splat(edges[0]), kind.splat(edges[1]), kind.splat(edges[2]), kind.splat(edges[3])
        ends = kind.load(last, 0)
        end0, end1, end2 = ends == nothing, ends == kind.splat(1), ends == kind.splat(2)
        for at in range(passes):
            column = at * COLUMNS * lanes
            t0, t1 = kind.load(target, column), kind.load(target, column + lanes)
            t2, t3 = kind.load(target, column + 2 * lanes), kind.load(target, column + 3 * lanes)
            f0, f1, f2, f3 = nothing, nothing, nothing, nothing
            r0, r1, r2, r3 = later, later, later, later
            begin, beside = places[at] >= 0, aside
            begins = nothing
            if begin:
                begins = kind.load(marks, places[at] * lanes)
                r0 = (begins != nothing).select(top, later)
            for row in range(rows):
                s0, s1, s2, s3 = four(query, row, table, good, bad, t0, t1, t2, t3)
                down, e = kind.load(work, 2 * row * lanes), kind.load(work, (2 * row + 1) * lanes)
                if begin:
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
                    here.select(r0, kind.load(bottom, column)).store(bottom, column)
                    here.select(r1, kind.load(bottom, column + lanes)).store(bottom, column + lanes)
                    here.select(r2, kind.load(bottom, column + 2 * lanes)).store(bottom, column + 2 * lanes)
                    here.select(r3, kind.load(bottom, column + 3 * lanes)).store(bottom, column + 3 * lanes)
                if at == passes - 1:
                    end0.select(down0, end1.select(down1, end2.select(down2, down3))).store(side, row * lanes)

    return step


@njit(nogil=True)
def _marked(numbers: Any, lanes: int, places: Any, marks: Any, count: int) -> int:
    """Mark each lane at the place of its number; `count` of the marks' numbers are taken, and how many then are."""
    for lane in range(len(numbers)):
        if numbers[lane] >= 0:
            if places[numbers[lane]] < 0:
                places[numbers[lane]] = count
                marks[count * lanes : (count + 1) * lanes] = 0
                count += 1
            marks[places[numbers[lane]] * lanes + lane] = 1
    return count


@njit(nogil=True)
def _placed(group: Any, at: Any, letters: Any, codes: Any, lanes: int, first: Any, positions: int, out: Any) -> None:
    """Lay sequences side by side, each from its first position on, and pads where there are none."""
    for lane in range(lanes):
        begin, own = 0, 0
        if lane < len(group):
            begin, own = first[lane], at[group[lane] + 1] - at[group[lane]]
            for i in range(own):
                out[(begin + i) * lanes + lane] = codes[letters[at[group[lane]] + i]]
        for i in range(begin):
            out[i * lanes + lane] = codes[256]
        for i in range(begin + own, positions):
            out[i * lanes + lane] = codes[256]


@njit(nogil=True)
def _edge_sum(start: int, differences: Any, first: int, own: int, lane: int, lanes: int, shift: int) -> Any:
    """The last value along an edge, and the greatest after the first."""
    here, best = start, NEVER
    for i in range(first, first + own):
        here += np.int64(differences[i * lanes + lane]) - shift
        best = max(best, here)
    return here, best


@njit(nogil=True)
def _outer(length: int, free: int, scoring: Any) -> int:
    """What a gap at the table's edge scores."""
    return 0 if free or not length else -(np.int64(scoring.gap_open) + (length - 1) * np.int64(scoring.gap_extend))


def _level(kind: Kind, lookup: Lookup) -> Callable[..., Any]:
    """A function that scores any pairs with the lanes of a kind, if those hold the differences."""
    lanes, dtype = kind.lanes, kind.dtype
    step, letters = _stepper(kind, lookup.four), lookup.letters

    @njit(nogil=True)
    def level(query_at: Any, queries: Any, target_at: Any, targets: Any, scoring: Any, free: int, out: Any) -> None:
        opened, pairs = np.int64(scoring.gap_open), by_length(query_at, target_at)
        query_codes, target_codes, table = letters(scoring, -2 * opened, 2 * opened)
        rows = columns = 0
        for pair in pairs:
            rows = max(rows, query_at[pair + 1] - query_at[pair])
            columns = max(columns, target_at[pair + 1] - target_at[pair])
        passes = (columns + COLUMNS - 1) // COLUMNS
        query, target = np.empty(max(rows, 1) * lanes, dtype), np.empty(max(passes, 1) * COLUMNS * lanes, dtype)
        work, side = np.empty(2 * max(rows, 1) * lanes, dtype), np.empty(max(rows, 1) * lanes, dtype)
        bottom, places = np.empty(max(passes, 1) * COLUMNS * lanes, dtype), np.empty(passes + rows, np.int64)
        marks, last = np.empty(2 * lanes * lanes, dtype), np.zeros(lanes, dtype)
        further = opened - scoring.gap_extend
        edges = (opened if free & TARGET_FREE else 0, opened if free & TARGET_FREE else further,
                 opened if free & QUERY_FREE else 0, opened if free & QUERY_FREE else further)
        begin, end, zeros = np.empty(lanes, np.int64), np.empty(lanes, np.int64), np.zeros(lanes, np.int64)
        for chosen in range(0, len(pairs), lanes):
            group = pairs[chosen : chosen + lanes]
            rows = columns = 0
            for pair in group:
                rows = max(rows, query_at[pair + 1] - query_at[pair])
                columns = max(columns, target_at[pair + 1] - target_at[pair])
            passes = (columns + COLUMNS - 1) // COLUMNS
            for lane in range(len(group)):
                own = target_at[group[lane] + 1] - target_at[group[lane]]
                begin[lane] = passes - (own + COLUMNS - 1) // COLUMNS if own else -1
                last[lane] = (own - 1) % COLUMNS
                end[lane] = query_at[group[lane] + 1] - query_at[group[lane]] - 1
            places[: passes + rows] = -1
            count = _marked(begin[: len(group)], lanes, places[:passes], marks, 0)
            _marked(end[: len(group)], lanes, places[passes : passes + rows], marks, count)
            for lane in range(len(group)):
                begin[lane] = max(begin[lane], 0) * COLUMNS
            _placed(group, query_at, queries, query_codes, lanes, zeros, rows, query)
            _placed(group, target_at, targets, target_codes, lanes, begin, passes * COLUMNS, target)
            step(query, target, rows, passes, table, further, edges, places, marks, last, work, bottom, side)
            for lane in range(len(group)):
                m, n = end[lane] + 1, target_at[group[lane] + 1] - target_at[group[lane]]
                left, top = _outer(m, free & QUERY_FREE, scoring), _outer(n, free & TARGET_FREE, scoring)
                if not m or not n:
                    out[group[lane]] = 0 if free == QUERY_FREE + TARGET_FREE else left + top
                    continue
                found, best = _edge_sum(left, bottom, begin[lane], n, lane, lanes, opened)
                if free & TARGET_FREE:
                    found = best
                if free & QUERY_FREE:
                    end_, best = _edge_sum(top, side, 0, m, lane, lanes, opened)
                    found = max(found, best) if free & TARGET_FREE else best
                out[group[lane]] = found

    return level


def _levels(lookup: Callable[[Kind], Lookup]) -> Callable[..., Any]:
    """A function that scores any pairs with the narrowest lanes that hold all differences."""
    few, more, most = _level(i8x64, lookup(i8x64)), _level(i16x32, lookup(i16x32)), _level(i32x16, lookup(i32x16))

    @njit(nogil=True)
    def scores(queries: Any, targets: Any, scoring: Any, free: int, out: Any) -> None:
        query_at, query_letters = queries
        target_at, target_letters = targets
        greatest = max(np.int64(scoring.scores.max()), 0) + 2 * np.int64(scoring.gap_open)
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
