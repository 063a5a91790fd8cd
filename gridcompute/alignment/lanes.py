"""What alignments of many pairs, one a lane, have in common: letters laid side by side, and the ways back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from gridcompute.alignment.cigars import DELETION, EQUAL, INSERTION, MATCH, UNEQUAL, push, turned
from gridcompute.vectors import Kind


class Pairs(NamedTuple):
    """Two columns of letters, as kernels of chunks get them; see `pairs_of`."""

    query_at: Any
    queries: Any
    target_at: Any
    targets: Any


class Runs(NamedTuple):
    """CIGARs of pairs, in the order in which they were found.

    Attributes:
        starts: where each pair's runs begin in `pool`.
        counts: how many there are.
        pool: uint32.
        used: how much of it is.
    """

    starts: Any
    counts: Any
    pool: Any
    used: int


@njit(nogil=True)
def pairs_of(queries: Any, targets: Any) -> Pairs:
    """The columns together.

    Raises:
        ValueError: they aren't of as many cells.
    """
    if len(queries[0]) != len(targets[0]):
        raise ValueError("as many queries as targets are aligned")
    return Pairs(queries[0], queries[1], targets[0], targets[1])


@njit(nogil=True)
def query_of(pairs: Pairs, pair: int) -> Any:
    """Letters."""
    return pairs.queries[pairs.query_at[pair] : pairs.query_at[pair + 1]]


@njit(nogil=True)
def target_of(pairs: Pairs, pair: int) -> Any:
    """Letters."""
    return pairs.targets[pairs.target_at[pair] : pairs.target_at[pair + 1]]


@njit(nogil=True)
def lengths_of(pairs: Pairs, numbers: Any) -> Any:
    """Of queries and targets by number, int64 (numbers, 2)."""
    out = np.empty((len(numbers), 2), np.int64)
    for i, pair in enumerate(numbers):
        out[i, 0] = pairs.query_at[pair + 1] - pairs.query_at[pair]
        out[i, 1] = pairs.target_at[pair + 1] - pairs.target_at[pair]
    return out


@njit(nogil=True)
def by_length(pairs: Pairs) -> Any:
    """Numbers of all pairs, those of short targets first, then those of short queries."""
    numbers = np.arange(len(pairs.query_at) - 1)
    keys = np.empty(len(numbers), np.int64)
    for pair in numbers:
        query, target = pairs.query_at[pair : pair + 2], pairs.target_at[pair : pair + 2]
        keys[pair] = (target[1] - target[0] << 32) + query[1] - query[0]
    return sorted_by(numbers, keys)


@njit(nogil=True)
def sorted_by(numbers: Any, keys: Any) -> Any:
    """Numbers in the order of their keys."""
    for i in range(1, len(keys)):
        if keys[i] < keys[i - 1]:
            return numbers[np.argsort(keys)]
    return numbers


@njit(nogil=True)
def laid(numbers: Any, at: Any, letters: Any, codes: Any, pad: Any, lanes: int, length: int, out: Any) -> None:
    """Lay sequences side by side, a lane each, and pads behind their ends up to a length."""
    for lane in range(lanes):
        own = 0
        if lane < len(numbers):
            first = at[numbers[lane]]
            own = at[numbers[lane] + 1] - first
            for i in range(own):
                out[i * lanes + lane] = codes[letters[first + i]]
        for i in range(own, length):
            out[i * lanes + lane] = pad


def ways_of(narrow: Kind) -> Callable[..., Any]:
    """A function that makes bytes, in lanes of a kind, of how cells were reached.

    0 is by both letters, 1 by a gap in the query, 2 by one in the target; 4 and 8 are added where such a gap that comes
    to the next column, or row, from here goes on instead of beginning.
    """

    @njit(nogil=True)
    def ways(both: Any, across: Any, across_on: Any, down_on: Any) -> Any:
        """Of masks: whether a cell was reached by both letters; else whether across; whether gaps go on."""
        none = narrow.splat(0)
        way = both.select(none, across.select(narrow.splat(1), narrow.splat(2)))
        return way | across_on.select(narrow.splat(4), none) | down_on.select(narrow.splat(8), none)

    return ways


@njit(nogil=True)
def begun(count: int) -> Runs:
    """Of pairs that have no runs yet."""
    return Runs(np.zeros(count, np.int64), np.zeros(count, np.int64), np.empty(16 * count + 16, np.uint32), 0)


@njit(nogil=True)
def room(runs: Runs, more: int) -> Runs:
    """The same with room for more."""
    if runs.used + more <= len(runs.pool):
        return runs
    pool = np.empty(2 * len(runs.pool) + more, np.uint32)
    pool[: runs.used] = runs.pool[: runs.used]
    return Runs(runs.starts, runs.counts, pool, runs.used)


@njit(nogil=True)
def joined(runs: Runs) -> Any:
    """A column: offsets (pairs + 1,) and runs in the order of the pairs."""
    count = len(runs.counts)
    offsets = np.zeros(count + 1, np.int64)
    for pair in range(count):
        offsets[pair + 1] = offsets[pair] + runs.counts[pair]
    out = np.empty(offsets[count], np.uint32)
    for pair in range(count):
        for i in range(runs.counts[pair]):
            out[offsets[pair] + i] = runs.pool[runs.starts[pair] + i]
    return offsets, out


@njit(nogil=True)
def with_path(pair: int, lane: int, lanes: int, end: Any, band: Any, query: Any, target: Any, ways: Any, free: Any,
              plain: bool, runs: Runs) -> Any:
    """Row and column where the path of a pair begins, and the runs with its own.

    Args:
        pair: its number.
        lane: where it is.
        lanes: there are.
        end: row and column of the cell where the path ends.
        band: most rows of a column in `ways`, and the highest diagonal.
        query: codes, position by position.
        target: the same.
        ways: (columns, rows, lanes), by row from the first one of the band: how cells were reached.
        free: whether letters left of the target, and of the query, cost nothing. If neither do, equal letters always
            lie against each other in a best path.
        plain: M for = and X.
        runs: of the pairs before.
    """
    i, j = end
    runs = room(runs, i + j)
    cigar = runs.pool[runs.used : runs.used + i + j]
    i, j, count = _back(i, j, lane, lanes, ways, band, query, target, free, plain, cigar)
    turned(cigar, count)
    runs.starts[pair], runs.counts[pair] = runs.used, count
    return i, j, Runs(runs.starts, runs.counts, runs.pool, runs.used + count)


@njit(nogil=True)
def _back(i: int, j: int, lane: int, lanes: int, ways: Any, band: Any, query: Any, target: Any, free: Any, plain: bool,
          cigar: Any) -> Any:
    """Go back from a cell to where the path begins: its row and column, and the number of runs, last one first."""
    height, high = band
    greedy = not (free[0] or free[1])
    gapped, count = 0, 0
    while i > 0 and j > 0:
        if greedy and gapped == 0:
            last = i
            while i > 0 and j > 0 and query[(i - 1) * lanes + lane] == target[(j - 1) * lanes + lane]:
                i, j = i - 1, j - 1
            count = push(cigar, count, MATCH if plain else EQUAL, last - i)
            if i == 0 or j == 0:
                break
        way = int(ways[((j - 1) * height + i - max(1, j - high)) * lanes + lane])
        if gapped == 0:
            gapped = way & 3
            if gapped == 3:
                return i, j, count
        elif (way & (4 * gapped)) == 0:  # the gap begins here
            gapped = 0
            continue
        if gapped == 0:
            same = EQUAL if query[(i - 1) * lanes + lane] == target[(j - 1) * lanes + lane] else UNEQUAL
            count, i, j = push(cigar, count, MATCH if plain else same, 1), i - 1, j - 1
        elif gapped == 1:
            count, j = push(cigar, count, DELETION, 1), j - 1
        else:
            count, i = push(cigar, count, INSERTION, 1), i - 1
    if j == 0 and not free[1]:
        count, i = push(cigar, count, INSERTION, i), 0
    if i == 0 and not free[0]:
        count, j = push(cigar, count, DELETION, j), 0
    return i, j, count
