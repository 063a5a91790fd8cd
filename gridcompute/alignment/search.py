"""Scores of one query against many targets: each target in a lane, its letters looked up in the query's row of a table.

As SWIPE does it (Rognes 2011), one permutation a step. The targets are laid side by side once, for any number of
queries: sorted by length, in blocks of 64 lanes as long as the longest target of each. Where others are much shorter
than that, several lie behind each other in a lane: a target of 35,000 letters costs little more than its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from gridcompute.alignment.local import COLUMNS, cell, limits
from gridcompute.alignment.lookups import by_row, columns_of
from gridcompute.alignment.matrices import MOST_LETTERS
from gridcompute.alignment.scoring import Matrix, Simple
from gridcompute.columns import Array
from gridcompute.errors import ParameterError
from gridcompute.vectors import Kind, i8x64, i16x32, i32x16

LANES = 64
"""Of a block: as many as a register has bytes."""

FULL = 8
"""A lane is filled up until less than one part in so many is free."""


class Database(NamedTuple):
    """Targets laid out for `search_scores`; see `database`.

    Attributes:
        codes: int8, of all blocks: position by position, a lane beside the other.
        starts: int64 (blocks + 1,), first position of each block.
        firsts: int64 (blocks + 1,), first entry of each block among those that follow.
        lanes: int64, lane of each target, by block and position.
        begins: int64, its first position within the block, a multiple of 4.
        lengths: int64, its letters.
        numbers: int64, its place among the targets given.
        queries: code of each byte of a query, uint8 (256,).
        targets: the same for targets.
        scores: int32 (codes, codes).
        gap_open: what the first letter of a gap costs.
        gap_extend: what each further one costs.
        total: how many targets were given, empty ones among them.
    """

    codes: Array
    starts: Array
    firsts: Array
    lanes: Array
    begins: Array
    lengths: Array
    numbers: Array
    queries: Array
    targets: Array
    scores: Array
    gap_open: int
    gap_extend: int
    total: int


def database(targets: tuple[Array, Array], scoring: Simple | Matrix) -> Database:
    """Lay targets out for `search_scores`: a named tuple of arrays, to be passed to kernels as a parameter.

    Args:
        targets: offsets (targets + 1,) and uint8 letters; empty ones are allowed, and score 0.
        scoring: see `simple` and `matrix`.

    Raises:
        ParameterError: a scoring of more than 31 letters.
    """
    if len(scoring.scores) > MOST_LETTERS:
        raise ParameterError(f"the scoring has {len(scoring.scores)} letters", hint=f"{MOST_LETTERS} are the most")
    at, letters = np.asarray(targets[0], np.int64), np.asarray(targets[1], np.uint8)
    lengths = np.diff(at)
    order = np.argsort(lengths, kind="stable")
    order = np.ascontiguousarray(order[lengths[order] > 0])
    blocks, lanes, begins, places = _packed(lengths[order])
    count = int(blocks[-1]) + 1 if len(order) else 0
    chosen = np.lexsort((lanes, begins, blocks))
    blocks, lanes, begins, numbers = blocks[chosen], lanes[chosen], begins[chosen], order[places[chosen]]
    longest = np.zeros(count, np.int64)
    np.maximum.at(longest, blocks, begins + -(-lengths[numbers] // COLUMNS) * COLUMNS)
    starts = np.concatenate([[0], np.cumsum(longest)])
    codes = np.full(int(starts[-1]) * LANES, len(scoring.scores), np.int8)
    _written(at, letters, scoring.targets, numbers, starts[blocks] + begins, lanes, codes)
    firsts = np.searchsorted(blocks, np.arange(count + 1))
    return Database(codes, starts, firsts, lanes, begins, lengths[numbers], numbers, scoring.queries, scoring.targets,
                    scoring.scores, scoring.gap_open, scoring.gap_extend, len(lengths))


@njit(nogil=True)
def _packed(lengths: Any) -> Any:
    """Block, lane, first position there and number of each sequence, of lengths that ascend and aren't 0."""
    count = len(lengths)
    blocks, lanes = np.empty(count, np.int64), np.empty(count, np.int64)
    begins, places = np.empty(count, np.int64), np.empty(count, np.int64)
    left = np.arange(count + 1)  # the longest one left among the first so many, counted from 1; or a step to it
    done, block = 0, -1
    while done < count:
        block += 1
        room = _rounded(lengths[_longest(left, count) - 1])
        for lane in range(LANES):
            at = 0
            while (room - at) * FULL > room:
                found = _longest(left, np.searchsorted(lengths, room - at, side="right"))
                if not found:
                    break
                blocks[done], lanes[done], begins[done], places[done] = block, lane, at, found - 1
                left[found] = found - 1
                at += _rounded(lengths[found - 1])
                done += 1
    return blocks, lanes, begins, places


@njit(nogil=True)
def _rounded(length: Any) -> Any:
    return (length + COLUMNS - 1) // COLUMNS * COLUMNS


@njit(nogil=True)
def _longest(left: Any, among: Any) -> Any:
    while left[among] != among:
        left[among] = left[left[among]]
        among = left[among]
    return among


@njit(nogil=True)
def _written(at: Any, letters: Any, codes: Any, numbers: Any, positions: Any, lanes: Any, out: Any) -> None:
    """Write the codes of sequences to their lanes."""
    for one in range(len(numbers)):
        first = at[numbers[one]]
        for i in range(at[numbers[one] + 1] - first):
            out[(positions[one] + i) * LANES + lanes[one]] = codes[letters[first + i]]


@njit(nogil=True)
def _entered(after: Any, at: int, places: Any, begins: Any, found: Any, zero: int, holds: Any, marks: Any,
             out: Any) -> Any:
    """Put the targets that begin at a position into their lanes, and the scores of those that were there in `out`.

    Args:
        after: number of the first of the targets.
        at: the position.
        places: lane of each target.
        begins: first position of each.
        found: best score of each lane, `zero` included.
        zero: what stands for 0.
        holds: number of the target in each lane; -1 for none.
        marks: becomes 1 in lanes where one begins, 0 in others.
        out: of the targets.
    """
    marks[:] = 0
    while after < len(begins) and begins[after] == at:
        lane = places[after]
        if holds[lane] >= 0:
            out[holds[lane]] = np.int64(found[lane]) - zero
        holds[lane], marks[lane] = after, 1
        after += 1
    return after


def _scanner(kind: Kind, four: Callable[..., Any]) -> Callable[..., Any]:
    """A function that scores a query against all targets of as many lanes as a kind has."""
    lanes, loaded, one, dtype = kind.lanes, columns_of(kind), cell(kind), kind.dtype

    @njit(nogil=True)
    def scan(query: Any, rows: int, target: Any, start: int, columns: int, places: Any, begins: Any, table: Any,
             costs: Any, zero: int, work: Any, out: Any) -> None:
        """Best score of each target in `out`.

        Args:
            query: codes.
            rows: how many.
            target: codes, position by position, a lane beside the other.
            start: the first position.
            columns: how many; a multiple of COLUMNS.
            places: lane of each target, by where they begin.
            begins: the first position of each.
            table: what letters score.
            costs: of a gap's first letter and of a further one.
            zero: what stands for 0.
            work: scratch of 2 * rows * lanes.
            out: of the targets.
        """
        nothing, first, more = kind.splat(zero), kind.splat(costs[0]), kind.splat(costs[1])
        marks, found, holds = np.empty(lanes, dtype), np.empty(lanes, dtype), np.full(lanes, -1)
        best, after = nothing, 0
        for at in range(0, columns, COLUMNS):
            column = (start + at) * lanes
            t0, t1, t2, t3 = loaded(target, column)
            f0, f1, f2, f3 = nothing, nothing, nothing, nothing
            d0, d1, d2, d3 = nothing, nothing, nothing, nothing
            begin = after < len(begins) and begins[after] == at
            if begin:
                best.store(found, 0)
                after = _entered(after, at, places, begins, found, zero, holds, marks, out)
                best = (kind.load(marks, 0) != kind.splat(0)).select(nothing, best)
            fresh = kind.load(marks, 0) != kind.splat(0)
            for row in range(rows):
                s0, s1, s2, s3 = four(query, row, table, nothing, nothing, t0, t1, t2, t3)
                left, e = kind.load(work, 2 * row * lanes), kind.load(work, (2 * row + 1) * lanes)
                if begin:
                    left, e = fresh.select(nothing, left), fresh.select(nothing, e)
                h0, e, f0 = one(d0, s0, e, f0, nothing, first, more)
                h1, e, f1 = one(d1, s1, e, f1, nothing, first, more)
                h2, e, f2 = one(d2, s2, e, f2, nothing, first, more)
                h3, e, f3 = one(d3, s3, e, f3, nothing, first, more)
                d0, d1, d2, d3 = left, h0, h1, h2
                best = best.max(h0).max(h1).max(h2).max(h3)
                h3.store(work, 2 * row * lanes)
                e.store(work, (2 * row + 1) * lanes)
        best.store(found, 0)
        for lane in range(lanes):
            if holds[lane] >= 0:
                out[holds[lane]] = np.int64(found[lane]) - zero

    return scan


@njit(nogil=True)
def _coded(query: Any, codes: Any) -> Any:
    out = np.empty(len(query), codes.dtype)
    for i in range(len(query)):
        out[i] = codes[query[i]]
    return out


def _of_blocks(kind: Kind) -> Callable[..., Any]:
    """A function that scores a query against whole blocks."""
    lookup = by_row(kind)
    least, greatest = int(np.iinfo(kind.dtype).min), int(np.iinfo(kind.dtype).max)
    scan, letters, dtype = _scanner(kind, lookup.four), lookup.letters, kind.dtype

    @njit(nogil=True)
    def blocks(query: Any, targets: Database, first: int, last: int, out: Any) -> Any:
        """Scores of the targets of some blocks in `out`; the numbers of those whose score may have run over."""
        base, end = targets.firsts[first], targets.firsts[last]
        zero, enough, room = limits(targets.scores, targets.gap_open, targets.gap_extend, least, greatest)
        if not room:
            return np.arange(base, end)
        codes, _, table = letters(targets, least, 0)
        coded, work = _coded(query, codes), np.empty(2 * len(query) * LANES, dtype)
        costs = (targets.gap_open, targets.gap_extend)
        for block in range(first, last):
            one, other = targets.firsts[block], targets.firsts[block + 1]
            start, columns = targets.starts[block], targets.starts[block + 1] - targets.starts[block]
            scan(coded, len(coded), targets.codes, start, columns, targets.lanes[one:other], targets.begins[one:other],
                 table, costs, zero, work, out[one - base : other - base])
        return base + np.flatnonzero(out[: end - base] >= enough - zero)

    return blocks


def _of_targets(kind: Kind) -> Callable[..., Any]:
    """A function that scores a query against single targets."""
    lanes, lookup, element = kind.lanes, by_row(kind), kind.dtype.type
    least, greatest = int(np.iinfo(kind.dtype).min), int(np.iinfo(kind.dtype).max)
    scan, letters, dtype = _scanner(kind, lookup.four), lookup.letters, kind.dtype

    @njit(nogil=True)
    def some(query: Any, targets: Database, chosen: Any, starts: Any, base: int, out: Any) -> Any:
        """Scores of the targets chosen, which start where it says, in `out`; those whose score may have run over."""
        zero, enough, room = limits(targets.scores, targets.gap_open, targets.gap_extend, least, greatest)
        if not room or not len(chosen):
            return chosen
        codes, _, table = letters(targets, least, 0)
        costs = (targets.gap_open, targets.gap_extend)
        coded, work = _coded(query, codes), np.empty(2 * len(query) * lanes, dtype)
        places, begins, found = np.arange(lanes), np.zeros(lanes, np.int64), np.empty(lanes, np.int64)
        for first in range(0, len(chosen), lanes):
            group = chosen[first : first + lanes]
            columns = np.int64(0)  # a plain 0 is a type of its own to numba, which then compiles all twice
            for one in group:
                columns = max(columns, _rounded(targets.lengths[one]))
            laid = np.full(columns * lanes, element(len(targets.scores)))
            for lane in range(len(group)):
                one = group[lane]
                at = (starts[one - base] + targets.begins[one]) * LANES + targets.lanes[one]
                for i in range(targets.lengths[one]):
                    laid[i * lanes + lane] = targets.codes[at + i * LANES]
            scan(coded, len(coded), laid, 0, columns, places, begins, table, costs, zero, work, found)
            for lane in range(len(group)):
                out[group[lane] - base] = found[lane]
        return chosen[out[chosen - base] >= enough - zero]

    return some


_bytes, _words, _wide = _of_blocks(i8x64), _of_targets(i16x32), _of_targets(i32x16)


@njit(nogil=True)
def block_scores(query: Any, targets: Database, first: int, last: int) -> Any:
    """The best local alignments' scores of a query with the targets of some blocks, exact.

    Args:
        query: uint8 letters.
        targets: see `database`.
        first: the first block.
        last: the one after the last.

    Returns:
        int64, one of each of the targets `targets.numbers[targets.firsts[first] : targets.firsts[last]]`.

    Raises:
        OverflowError: a score is above 2^31.
    """
    base = targets.firsts[first]
    out = np.zeros(targets.firsts[last] - base, np.int64)
    if not len(query) or not len(out):
        return out
    left = _bytes(query, targets, first, last, out)
    if len(left):
        starts = np.empty(len(out), np.int64)
        for block in range(first, last):
            starts[targets.firsts[block] - base : targets.firsts[block + 1] - base] = targets.starts[block]
        left = _words(query, targets, left, starts, base, out)
        left = _wide(query, targets, left, starts, base, out)
        if len(left):
            raise OverflowError("a local alignment scores more than 2^31")
    return out


@njit(nogil=True)
def search_scores(query: Any, targets: Database) -> Any:
    """The best local alignment's score of a query with each target of a database, exact; for use in kernels.

    Args:
        query: uint8 letters, such as a cell of a column of sequences.
        targets: see `database`.

    Returns:
        int64, shape (targets,). Of an empty sequence 0.

    Raises:
        OverflowError: a score is above 2^31.
    """
    out = np.zeros(targets.total, np.int64)
    found = block_scores(query, targets, 0, len(targets.starts) - 1)
    for i in range(len(found)):
        out[targets.numbers[i]] = found[i]
    return out
