"""What alignments of many pairs, one a lane, have in common: letters laid side by side, and the ways back."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from gridcompute.alignment.cigars import DELETION, EQUAL, INSERTION, MATCH, UNEQUAL, push


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
    lengths = lengths_of(pairs, numbers)
    return sorted_by(numbers, (lengths[:, 1] << 32) + lengths[:, 0])


@njit(nogil=True)
def sorted_by(numbers: Any, keys: Any) -> Any:
    """Numbers in the order of their keys, those of one key in theirs."""
    for i in range(1, len(keys)):
        if keys[i] < keys[i - 1]:
            return numbers[np.argsort(keys, kind="mergesort")]
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
def traced_back(i: int, j: int, lane: int, lanes: int, ways: Any, height: int, high: int, query: Any, target: Any,
                free: Any, greedy: bool, plain: bool, cigar: Any) -> Any:
    """Go back from a cell to where the path begins: its row and column, and the number of runs, last one first.

    Args:
        i: row, from 1.
        j: column, from 1.
        lane: of the pair.
        lanes: there are.
        ways: (columns, height, lanes), by row from the first one of the band: how cells were reached.
        height: see there.
        high: the band's highest diagonal.
        query: codes, position by position.
        target: the same.
        free: whether letters left of the target, and of the query, cost nothing.
        greedy: equal letters always lie against each other in a best path from there (of whole sequences they do).
        plain: M for = and X.
        cigar: where runs are written.
    """
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
