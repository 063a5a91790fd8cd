"""Mapping quality: how likely a placement is wrong, in 10 * -log10, as bwa mem estimates it (Li 2013)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from .places import LONGEST, MATCH, MISMATCH

HIGHEST = 60
LEAST_SCORE = 19
"""What a read scores somewhere by chance."""

PER_POINT = 6.02
"""Of a quality, for a point of score: 10 * log10(4)."""


def _weights() -> Any:
    """What a point of score counts for in an alignment of so many bases, in 1024ths: less in a long one.

    Whole numbers, so that no machine's logarithm can change a quality.
    """
    lengths = np.arange(50, LONGEST + 200)
    long = np.round(1024 * (np.log(50) / np.log(lengths)) ** 2).astype(np.int64)
    return np.concatenate((np.full(50, 1024), long))


WEIGHTS = _weights()


@njit(nogil=True)
def ties_cost(ties: Any) -> Any:
    """What so many placements as good as the best, and one, take off: 10 * log10 of their number, rounded up."""
    cost, reach = 0, 1.0
    while reach < ties + 1:
        reach *= 1.2589254
        cost += 1
    return cost


@njit(nogil=True)
def single_quality(score: Any, second: Any, span: Any, close: Any, repeated: Any, words: Any) -> Any:
    """Mapping quality of a read's best placement by itself.

    Args:
        score: of it.
        second: of the next best one; 0 if there is none.
        span: bases that are aligned.
        close: placements nearly as good as the second.
        repeated: minimizers that occur too often to be looked at.
        words: all minimizers.
    """
    second = max(second, LEAST_SCORE * MATCH)
    if second >= score or span <= 0:
        return 0
    same = 1.0 - (span * MATCH - score) / ((MATCH + MISMATCH) * span)
    same = max(same, 0.0)
    value = PER_POINT * (score - second) / MATCH * WEIGHTS[min(span, LONGEST)] / 1024.0 * same * same * same * same
    if close > 0:
        value -= ties_cost(close)
    if repeated > 0:
        value *= 1.0 - repeated / words
    return min(max(np.int64(value + 0.499), 0), HIGHEST)
