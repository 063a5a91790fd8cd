"""What the letters of a step score, in lanes: compared, or looked up in a table that lies in registers.

A step is one row and four columns of the tables of as many pairs as there are lanes. Each way has a function `letters`,
which lays out what it needs once, and `four`, which is compiled into the step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit

from gridcompute.alignment.scoring import QUERY_PAD, TARGET_PAD, Simple
from gridcompute.vectors import Kind

WIDTH = 32
"""Of a table's row: letters, and what stands behind a sequence's end."""


@dataclass(frozen=True)
class Lookup:
    """A way to score letters, for the lanes of a kind.

    Attributes:
        letters: (scoring, floor, shift) -> codes of a query's bytes and of a target's with that of a pad as the last,
            and a table. What letters score is at least `floor`; `shift` is added.
        four: (query, row, table, good, bad, t0, t1, t2, t3) -> what a row's letters score with those of four columns.
    """

    letters: Callable[..., Any]
    four: Callable[..., Any]


def columns_of(kind: Kind) -> Callable[..., Any]:
    """A function that loads the letters of four columns."""
    lanes = kind.lanes

    @njit(nogil=True)
    def loaded(target: Any, at: int) -> Any:
        return (kind.load(target, at), kind.load(target, at + lanes), kind.load(target, at + 2 * lanes),
                kind.load(target, at + 3 * lanes))

    return loaded


def compared(kind: Kind) -> Lookup:
    """For `Simple`: one score where letters are equal, one elsewhere, which are the table."""
    lanes, dtype = kind.lanes, kind.dtype

    @njit(nogil=True)
    def letters(scoring: Any, floor: int, shift: int) -> Any:
        queries, targets = np.empty(257, dtype), np.empty(257, dtype)
        for byte in range(256):
            queries[byte], targets[byte] = scoring.queries[byte], scoring.targets[byte]
        queries[256], targets[256] = QUERY_PAD, TARGET_PAD
        table = np.empty(2, dtype)
        table[0] = max(int(scoring.scores.max()), floor) + shift
        table[1] = max(int(scoring.scores.min()), floor) + shift
        return queries, targets, table

    @njit(nogil=True)
    def four(query: Any, row: int, table: Any, good: Any, bad: Any, t0: Any, t1: Any, t2: Any, t3: Any) -> Any:
        letter = kind.load(query, row * lanes)
        return ((letter == t0).select(good, bad), (letter == t1).select(good, bad), (letter == t2).select(good, bad),
                (letter == t3).select(good, bad))

    return Lookup(letters, four)


def looked_up(kind: Kind) -> Lookup:
    """For `Matrix`, each lane with letters of its own: the table's rows one by one, each for the lanes that want it.

    A register holds one row, of bytes two: then a query's code has the row's number among the two in its sixth bit.
    """
    lanes, dtype, element = kind.lanes, kind.dtype, kind.dtype.type
    each = max(1, lanes // WIDTH)
    half = WIDTH // 2

    @njit(nogil=True)
    def letters(scoring: Any, floor: int, shift: int) -> Any:
        codes = len(scoring.scores)
        queries, targets = np.empty(257, dtype), np.empty(257, dtype)
        for byte in range(257):
            code = np.int64(scoring.queries[byte]) if byte < 256 else codes
            queries[byte] = code // each + code % each * WIDTH
            targets[byte] = np.int64(scoring.targets[byte]) if byte < 256 else codes
        return queries, targets, rows_of(scoring.scores, floor, shift, (codes + each) // each * each, element(0))

    @njit(nogil=True)
    def four(query: Any, row: int, table: Any, good: Any, bad: Any, t0: Any, t1: Any, t2: Any, t3: Any) -> Any:
        letter = kind.load(query, row * lanes)
        wanted, which = letter & kind.splat(WIDTH - 1), letter & kind.splat(WIDTH)
        t0, t1, t2, t3 = t0 | which, t1 | which, t2 | which, t3 | which
        at, one = kind.splat(0), kind.splat(1)
        s0, s1, s2, s3 = at, at, at, at
        for first in range(0, len(table), lanes):
            here, entries = wanted == at, kind.load(table, first)
            s0, s1 = here.select(entries.permute(t0), s0), here.select(entries.permute(t1), s1)
            s2, s3 = here.select(entries.permute(t2), s2), here.select(entries.permute(t3), s3)
            at += one
        return s0, s1, s2, s3

    @njit(nogil=True)
    def four_wide(query: Any, row: int, table: Any, good: Any, bad: Any, t0: Any, t1: Any, t2: Any, t3: Any) -> Any:
        wanted, nothing, one = kind.load(query, row * lanes), kind.splat(0), kind.splat(1)
        at, middle = nothing, kind.splat(half)
        s0, s1, s2, s3 = nothing, nothing, nothing, nothing
        for first in range(0, len(table), WIDTH):
            here, low, high = wanted == at, kind.load(table, first), kind.load(table, first + half)
            s0 = here.select((t0 < middle).select(low.permute(t0), high.permute(t0)), s0)
            s1 = here.select((t1 < middle).select(low.permute(t1), high.permute(t1)), s1)
            s2 = here.select((t2 < middle).select(low.permute(t2), high.permute(t2)), s2)
            s3 = here.select((t3 < middle).select(low.permute(t3), high.permute(t3)), s3)
            at += one
        return s0, s1, s2, s3

    return Lookup(letters, four if lanes >= WIDTH else four_wide)


def by_row(kind: Kind) -> Lookup:
    """For one query with all lanes: its letter's row of the table lies in one register, of 32 bits in two."""
    lanes, dtype, element = kind.lanes, kind.dtype, kind.dtype.type
    half = WIDTH // 2

    @njit(nogil=True)
    def letters(scoring: Any, floor: int, shift: int) -> Any:
        codes = len(scoring.scores)
        queries, targets = np.full(257, codes, dtype), np.full(257, codes, dtype)
        for byte in range(256):
            queries[byte], targets[byte] = scoring.queries[byte], scoring.targets[byte]
        return queries, targets, rows_of(scoring.scores, floor, shift, WIDTH + 1, element(0))

    @njit(nogil=True)
    def four(query: Any, row: int, table: Any, good: Any, bad: Any, t0: Any, t1: Any, t2: Any, t3: Any) -> Any:
        entries = kind.load(table, int(query[row]) * WIDTH)
        return entries.permute(t0), entries.permute(t1), entries.permute(t2), entries.permute(t3)

    @njit(nogil=True)
    def four_wide(query: Any, row: int, table: Any, good: Any, bad: Any, t0: Any, t1: Any, t2: Any, t3: Any) -> Any:
        low = kind.load(table, int(query[row]) * WIDTH)
        high, middle = kind.load(table, int(query[row]) * WIDTH + half), kind.splat(half)
        return ((t0 < middle).select(low.permute(t0), high.permute(t0)),
                (t1 < middle).select(low.permute(t1), high.permute(t1)),
                (t2 < middle).select(low.permute(t2), high.permute(t2)),
                (t3 < middle).select(low.permute(t3), high.permute(t3)))

    return Lookup(letters, four if lanes >= WIDTH else four_wide)


def by_scoring(for_simple: Callable[..., Any], for_matrix: Callable[..., Any]) -> Callable[..., Any]:
    """One function of two, chosen by the kind of scoring: both take either, so that numba can compile both."""
    fields = len(Simple._fields)

    @njit(nogil=True)
    def chosen(queries: Any, targets: Any, scoring: Any, how: int, out: Any) -> Any:
        if len(scoring) == fields:
            return for_simple(queries, targets, scoring, how, out)
        return for_matrix(queries, targets, scoring, how, out)

    return chosen


@njit(nogil=True)
def rows_of(scores: Any, floor: int, shift: int, rows: int, zero: Any) -> Any:
    """A table of `rows` rows of WIDTH, of the dtype of `zero`: what isn't a letter scores the least, and 0 at most."""
    codes, least = len(scores), min(int(scores.min()), 0)
    table = np.full(rows * WIDTH, zero)
    for query in range(rows):
        for target in range(WIDTH):
            inside = query < codes and target < codes
            found = int(scores[query, target]) if inside else least
            table[query * WIDTH + target] = max(found, floor) + shift
    return table
