"""Alignments of many pairs with their paths, and scores of near-identical ones: for kernels of chunks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from gridcompute.alignment.costs import Costs, costs_of, letters_of, score_of
from gridcompute.alignment.lanes import (
    Pairs,
    Runs,
    begun,
    by_length,
    joined,
    lengths_of,
    pairs_of,
    query_of,
    room,
    target_of,
)
from gridcompute.alignment.one import GLOBAL, LOCAL, SEMIGLOBAL, align
from gridcompute.alignment.similar import margin_for, similar_paths_laned, similar_scores_laned
from gridcompute.alignment.tables import equal_and_other, local_bytes, local_words
from gridcompute.alignment.wavefront import limit_of, wavefront

LONG = 2048
"""Letters from which on a global alignment is tried by wavefronts first, pair by pair."""

MOST_BESIDE = 2**15
"""Letters of sequences that are laid side by side."""

MOST_LETTERS = 2**14
"""Up to which those that aren't alike enough for wavefronts are scored side by side."""

FIRST_LIMIT = 512
"""Cost up to which wavefronts go at first; then four times that, and so on."""


@njit(nogil=True)
def _by_wavefront(query: Any, target: Any, scoring: Any, costs: Costs, traced: bool, plain: bool, cigar: Any) -> Any:
    """The cost, -1 if it is too great for wavefronts; and the number of runs."""
    most = limit_of(len(query), len(target), costs, traced)
    limit = min(FIRST_LIMIT, most)
    while limit >= 0:
        cost, count = wavefront(query, target, scoring, costs, limit, traced, plain, cigar)
        if cost >= 0:
            return cost, count
        if limit == most:
            break
        limit = min(4 * limit, most)
    return -1, 0


@njit(nogil=True)
def _one_by_one(numbers: Any, pairs: Pairs, scoring: Any, costs: Costs, mode: int, plain: bool, scores: Any,
                places: Any, runs: Runs) -> Runs:
    """Pairs that are too long for lanes, or whose scores are too great."""
    for pair in numbers:
        query, target = query_of(pairs, pair), target_of(pairs, pair)
        m, n = len(query), len(target)
        runs = room(runs, m + n)
        cigar, cost, margin, count = runs.pool[runs.used : runs.used + m + n], -1, max(m, n), 0
        if mode == GLOBAL:
            cost, count = _by_wavefront(query, target, scoring, costs, bool(1), plain, cigar)
            if cost < 0:
                without, _ = _by_wavefront(query, target, scoring, costs, bool(0), plain, cigar)
                margin = margin_for(without, m, n, costs) if without >= 0 else margin
        if cost >= 0:
            scores[pair] = score_of(cost, m + n, costs)
        else:
            low, high = max(min(0, n - m) - margin, -m), min(max(0, n - m) + margin, n)
            scores[pair], places[0, pair], places[1, pair], places[2, pair], places[3, pair], count = align(
                query, target, scoring, mode, low, high, plain, cigar)
        runs.starts[pair], runs.counts[pair] = runs.used, count
        runs = Runs(runs.starts, runs.counts, runs.pool, runs.used + count)
    return runs


@njit(nogil=True)
def _parted(numbers: Any, pairs: Pairs, longest: int) -> Any:
    """Numbers of short pairs and of long ones, in their order."""
    lengths, short, long = lengths_of(pairs, numbers), 0, 0
    out, others = np.empty(len(numbers), np.int64), np.empty(len(numbers), np.int64)
    for i, pair in enumerate(numbers):
        if max(lengths[i, 0], lengths[i, 1]) <= longest:
            out[short], short = pair, short + 1
        else:
            others[long], long = pair, long + 1
    return out[:short], others[:long]


@njit(nogil=True)
def _found(scores: Any, places: Any, runs: Runs) -> Any:
    return scores, places[0], places[1], places[2], places[3], joined(runs)


@njit(nogil=True)
def _by_table(queries: Any, targets: Any, scoring: Any, mode: int, plain: bool) -> Any:
    pairs, table = pairs_of(queries, targets), letters_of(scoring)
    costs = costs_of(table)
    count = len(pairs.query_at) - 1
    scores, places, runs = np.zeros(count, np.int64), np.zeros((4, count), np.int64), begun(count)
    left, long = _parted(by_length(pairs), pairs, MOST_BESIDE)
    if costs.match:
        letters = equal_and_other(costs)
        if mode == LOCAL:
            left, runs = local_bytes(left, pairs, table, letters, True, plain, scores, places, runs)
        left, runs = local_words(left, pairs, table, letters, mode == LOCAL, plain, scores, places, runs)
    left = np.concatenate((left, long))
    return _found(scores, places, _one_by_one(left, pairs, table, costs, mode, plain, scores, places, runs))


@njit(nogil=True)
def local_paths(queries: Any, targets: Any, scoring: Any, plain: bool = False) -> Any:
    """Best local alignments with their paths; for use in a kernel of chunks (`batch=True`).

    Args:
        queries: a column of letters as such a kernel gets it: offsets (pairs + 1,) and uint8 values.
        targets: the same.
        scoring: see `simple`.
        plain: M in CIGARs, in place of = (letters that count as the same) and X.

    Returns:
        Scores; where the aligned stretch starts and ends in the query; where in the target; CIGARs. All but the last
        are int64 (pairs,), places count from 0 and ends are exclusive. CIGARs are a column of runs: offsets
        (pairs + 1,) and uint32 values, length << 4 | operation as in BAM. Where nothing is alike all are 0 and the
        CIGAR is empty.

    Raises:
        ValueError: 8 * shorter * sqrt(longer) letters of a pair are above 2^28, and it isn't near-identical.

    Of several best alignments it is the one that ends first in the target, then in the query, and from there backwards
    takes letters against each other where it may, else a deletion: gaps lie leftmost.
    """
    return _by_table(queries, targets, scoring, int(LOCAL), bool(plain))


@njit(nogil=True)
def semiglobal_paths(queries: Any, targets: Any, scoring: Any, plain: bool = False) -> Any:
    """Best alignments of whole queries with stretches of targets, with their paths; as `local_paths`."""
    return _by_table(queries, targets, scoring, int(SEMIGLOBAL), bool(plain))


@njit(nogil=True)
def global_paths(queries: Any, targets: Any, scoring: Any, plain: bool = False) -> Any:
    """Best alignments of whole queries with whole targets, with their paths; as `local_paths`.

    Fast where pairs are alike: short ones in a band, long ones by wavefronts. The path is that of the whole table.
    """
    pairs, table = pairs_of(queries, targets), letters_of(scoring)
    costs = costs_of(table)
    count = len(pairs.query_at) - 1
    lengths = lengths_of(pairs, np.arange(count))
    scores, places, runs = np.zeros(count, np.int64), np.zeros((4, count), np.int64), begun(count)
    left, matches = by_length(pairs), bool(plain)
    if costs.match:
        short, long = _parted(left, pairs, LONG)
        short, runs = similar_paths_laned(short, pairs, table, costs, matches, scores, runs)
        left = np.concatenate((short, long))
    runs = _one_by_one(left, pairs, table, costs, int(GLOBAL), matches, scores, places, runs)
    places[1], places[3] = lengths[:, 0], lengths[:, 1]
    return _found(scores, places, runs)


@njit(nogil=True)
def similar_scores(queries: Any, targets: Any, scoring: Any) -> Any:
    """Scores of global alignments, fastest where pairs are alike; for use in a kernel of chunks (`batch=True`).

    Args:
        queries: a column of letters as such a kernel gets it: offsets (pairs + 1,) and uint8 values.
        targets: the same.
        scoring: see `simple`.

    Returns:
        int64, shape (pairs,): exact, however alike a pair is.

    Raises:
        ValueError: a pair of long sequences isn't alike, see `local_paths`.
    """
    pairs, table = pairs_of(queries, targets), letters_of(scoring)
    costs = costs_of(table)
    count = len(pairs.query_at) - 1
    scores, none = np.zeros(count, np.int64), np.zeros(0, np.uint32)
    left = by_length(pairs)
    if costs.match:
        short, long = _parted(left, pairs, LONG)
        number = 0
        for pair in long:
            query, target = query_of(pairs, pair), target_of(pairs, pair)
            cost, _ = _by_wavefront(query, target, table, costs, bool(0), bool(0), none)
            if cost >= 0:
                scores[pair] = score_of(cost, len(query) + len(target), costs)
            else:
                long[number] = pair
                number += 1
        rest, far = _parted(long[:number], pairs, MOST_LETTERS)
        short = np.concatenate((short, rest))
        left, _ = similar_scores_laned(short, pairs, table, costs, bool(0), scores, begun(0))
        left = np.concatenate((left, far))
    places = np.zeros((4, count), np.int64)
    _one_by_one(left, pairs, table, costs, int(GLOBAL), bool(1), scores, places, begun(count))
    return scores
