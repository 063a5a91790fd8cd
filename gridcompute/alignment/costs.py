"""Scores as costs: what an alignment of whole sequences lacks of the best that sequences of these lengths could have.

With match score a, lengths m and n, and score S the cost is a * (m + n) - 2 * S (Eizenga and Paten 2022): 0 for equal
sequences, and each difference adds its own, so that near-identical pairs have small ones. The same paths are best.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit


class Letters(NamedTuple):
    """What all kinds of scoring have in common, in one type, so that code is compiled once for all of them.

    Attributes:
        queries: code of each byte of a query, uint8 (256,).
        targets: the same for targets.
        scores: int32, by a query's code and a target's.
        gap_open: what the first letter of a gap costs.
        gap_extend: what each further one costs.
    """

    queries: Any
    targets: Any
    scores: Any
    gap_open: int
    gap_extend: int


@njit(nogil=True)
def letters_of(scoring: Any) -> Letters:
    """Of a scoring that has these fields."""
    return Letters(scoring.queries.copy(), scoring.targets.copy(), scoring.scores.copy(), int(scoring.gap_open),
                   int(scoring.gap_extend))


class Costs(NamedTuple):
    """Costs of differences, divided by what all have in common.

    Attributes:
        match: score of two equal letters; 0 if letters have scores of more than two kinds, so that this form has none.
        mismatch: cost of two others.
        first: cost of the first letter of a gap.
        more: cost of each further letter of it; 1 or more.
        unit: what all were divided by.
    """

    match: int
    mismatch: int
    first: int
    more: int
    unit: int


@njit(nogil=True)
def costs_of(scoring: Any) -> Costs:
    """Costs for a scoring with `queries`, `targets`, `scores`, `gap_open`, `gap_extend`."""
    match: Any = np.int64(0)
    mismatch: Any = np.int64(0)
    same, other = False, False
    here, there = np.zeros(256, np.bool_), np.zeros(256, np.bool_)
    for byte in range(256):
        here[scoring.queries[byte]] = there[scoring.targets[byte]] = True
    for a in range(scoring.scores.shape[0]):
        for b in range(scoring.scores.shape[1]):
            if not (here[a] and there[b]):
                continue
            score: Any = np.int64(scoring.scores[a, b])
            if a == b:
                if same and score != match:
                    return Costs(0, 0, 0, 0, 1)
                match, same = score, True
            else:
                if other and score != -mismatch:
                    return Costs(0, 0, 0, 0, 1)
                mismatch, other = -score, True
    gap_open, gap_extend = np.int64(scoring.gap_open), np.int64(scoring.gap_extend)
    unlike, opened, more = 2 * (match + mismatch), 2 * (gap_open - gap_extend), 2 * gap_extend + match
    if match < 1 or unlike < 0 or opened < 0:
        return Costs(0, 0, 0, 0, 1)
    unit = np.gcd(np.gcd(unlike, opened), more)
    return Costs(match, unlike // unit, (opened + more) // unit, more // unit, unit)


@njit(nogil=True)
def score_of(cost: int, letters: int, costs: Costs) -> int:
    """The score of a path of that cost through sequences that have so many letters together."""
    return (costs.match * letters - cost * costs.unit) // 2


@njit(nogil=True)
def gap_cost(length: int, costs: Costs) -> int:
    """What a gap of a length costs."""
    return 0 if length <= 0 else costs.first + (length - 1) * costs.more


@njit(nogil=True)
def cost_outside(low: int, high: int, m: int, n: int, costs: Costs) -> int:
    """The least cost of a path from corner to corner that isn't wholly between two diagonals (place in the target less
    place in the query), both of them within; 2^62 if there is none.
    """
    least = 2**62
    if high < n:
        least = min(least, gap_cost(high + 1, costs) + gap_cost(high + 1 - (n - m), costs))
    if -low < m:
        least = min(least, gap_cost(1 - low, costs) + gap_cost(1 - low + (n - m), costs))
    return least
