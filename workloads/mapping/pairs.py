"""Mates: how far apart they lie, the best two placements together, and a search for one mate beside the other.

A pair is proper if its mates face each other (forward before reverse) and the distance of their outer ends, clipped
letters included, lies within bounds that are found once for a run from its first reads (as bwa mem's from a batch, Li
2013), so that no pair's result depends on which reads it was with.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from gridcompute.errors import ParameterError

from .places import (
    AT,
    COLUMNS,
    CONTIG,
    EDITS,
    FAR,
    HEAD,
    HIGH,
    LEFT,
    LOW,
    READ,
    RIGHT,
    SCORE,
    SEEDS,
    STRAND,
    TAIL,
    lay_out,
    words_differ,
)  # fmt: skip

UNPAIRED = 17
"""Of a score, what two mates that don't go together have less than a proper pair."""

ANCHORS = 4
"""Placements of a read beside which its mate is searched for."""

CLOSE = 7
"""A score is close to another if it is less by no more than this: a gap of one."""

CONFIDENT = 20
FEWEST_PAIRS = 25
"""Confident pairs that the distances are learnt from, at the least."""


class Inserts(NamedTuple):
    """Distances of the outer ends of mates, in bases.

    Attributes:
        low: the least of a proper pair.
        high: the greatest; 0 if nothing is known, and then no pair is proper.
        mean: without outliers.
        deviation: standard deviation, without outliers.
    """

    low: int
    high: int
    mean: float
    deviation: float


def insert_sizes(flag: Any, contig: Any, position: Any, quality: Any, cigar: Any) -> Inserts:
    """Distances of mates, from reads mapped one by one: rows 2 i and 2 i + 1 are mates.

    As bwa mem does: quartiles of the confident pairs; mean and deviation of what lies within twice the distance between
    the quartiles beyond them; bounds at 4 deviations, or 3 times that distance beyond the quartiles if that is further.

    Args:
        flag: as `map_reads` gives it, as all that follows.
        contig: the same.
        position: the same.
        quality: the same.
        cigar: offsets and operations.

    Raises:
        ParameterError: an odd number of reads.
    """
    if len(flag) % 2:
        raise ParameterError(f"{len(flag)} reads aren't pairs", hint="rows 2 i and 2 i + 1 have to be mates")
    offsets, ops = (np.asarray(one).astype(np.int64) for one in cigar)
    first, last = outer_ends(np.asarray(position).astype(np.int64), offsets, ops)
    back = (np.asarray(flag) & 16) > 0
    sure = (np.asarray(quality) >= CONFIDENT) & ((np.asarray(flag) & 4) == 0)
    a, b = slice(0, None, 2), slice(1, None, 2)
    fits = sure[a] & sure[b] & (np.asarray(contig)[a] == np.asarray(contig)[b]) & (back[a] != back[b])
    sizes = np.where(back[a], last[a] - first[b], last[b] - first[a])[fits]
    sizes = np.sort(sizes[sizes > 0])
    if len(sizes) < FEWEST_PAIRS:
        return Inserts(0, 0, 0.0, 1.0)
    lower, upper = int(sizes[len(sizes) // 4]), int(sizes[3 * len(sizes) // 4])
    spread = upper - lower
    kept = sizes[(sizes >= lower - 2 * spread) & (sizes <= upper + 2 * spread)]
    mean, deviation = float(kept.mean()), max(float(kept.std()), 1.0)
    low = min(lower - 3 * spread, int(mean - 4 * deviation))
    high = max(upper + 3 * spread, int(mean + 4 * deviation + 1))
    return Inserts(max(low, 1), high, mean, deviation)


@njit(nogil=True)
def outer_ends(position: Any, offsets: Any, ops: Any) -> Any:
    """Where reads would begin and end (behind the last base) if what is clipped were aligned."""
    first, last = position.copy(), position.copy()
    for i in range(len(position)):
        for j in range(offsets[i], offsets[i + 1]):
            op, length = ops[j] & 15, ops[j] >> 4
            if op == 0 or op == 2 or (op == 4 and j > offsets[i]):
                last[i] += length
            elif op == 4:
                first[i] -= length
    return first, last


@njit(nogil=True)
def insert_of(table: Any, one: Any, other: Any) -> Any:
    """Distance of the outer ends of two placements that face each other; -1 of others."""
    if table[one, STRAND] == table[other, STRAND] or table[one, CONTIG] != table[other, CONTIG]:
        return -1
    if table[one, STRAND]:
        one, other = other, one
    return max(table[other, RIGHT] + table[other, TAIL] - table[one, LEFT] + table[one, HEAD], -1)


@njit(nogil=True)
def pair_score(table: Any, one: Any, other: Any, settings: Any) -> Any:
    """Score of two placements as a proper pair; -1 if they are none."""
    size = insert_of(table, one, other)
    if size < settings.low or size > settings.high:
        return -1
    off = (size - settings.mean) / settings.deviation
    return max(table[one, SCORE] + table[other, SCORE] - min(np.int64(0.36 * off * off + 0.5), UNPAIRED), 0)


@njit(nogil=True)
def best_pair(one: Any, ones: Any, other: Any, others: Any, table: Any, settings: Any, mark: Any) -> Any:
    """The best proper pair: score, the next one's, how many more are close to the best, and its two rows.

    Args:
        one: rows of a read.
        ones: how many.
        other: rows of its mate.
        others: how many.
        table: candidates.
        settings: how to map.
        mark: a number from the reads' letters, which chooses among equals.
    """
    top, second, equal, close = -1, -1, 0, 0
    for i in range(ones):
        for j in range(others):
            score = pair_score(table, one[i], other[j], settings)
            if score > top:
                top, second, equal = score, top, 1
            elif score >= 0:
                equal += int(score == top)
                second = max(second, score)
    chosen, a, b = mark % max(equal, 1), -1, -1
    for i in range(ones):
        for j in range(others):
            score = pair_score(table, one[i], other[j], settings)
            if score < 0:
                continue
            if score == top:
                if chosen == 0:
                    a, b = one[i], other[j]
                chosen -= 1
            close += int(top - score <= CLOSE)
    return top, second, max(close - 1, 0), a, b


@njit(nogil=True)
def differ(words: Any, query: Any, at: Any, first: Any, last: Any, length: Any, most: Any) -> Any:
    """How many letters of query words first to last differ; when more than `most`, some number above it."""
    count = np.int64(0)
    for i in range(first, last):
        x = words_differ(words, query, at, i, length)
        x += x >> np.uint64(32)
        x += x >> np.uint64(16)
        count += np.int64((x + (x >> np.uint64(8))) & np.uint64(0xFF))
        if count > most:
            break
    return count


@njit(nogil=True)
def rescue(anchor: Any, read: Any, index: Any, words: Any, query: Any, eights: Any, length: Any, settings: Any,
           table: Any, row: Any, wrong: Any) -> Any:
    """Search for a read beside its mate; rows for where it, its first or its second half agrees best. Behind the last.

    Args:
        anchor: row of a placement of the mate.
        read: its number in the block.
        index: of the reference.
        words: its codes, 8 in a word.
        query: the read's codes on the strand that faces the mate.
        eights: the same, 8 in a word.
        length: letters.
        settings: how to map.
        table: candidates.
        row: first free one.
        wrong: scratch.
    """
    contig = table[anchor, CONTIG]
    start, stop = index.starts[contig], index.starts[contig] + index.lengths[contig]
    if table[anchor, STRAND]:
        end = table[anchor, RIGHT] + table[anchor, TAIL]
        low, high = end - settings.high, end - settings.low
    else:
        begin = table[anchor, LEFT] - table[anchor, HEAD]
        low, high = begin + settings.low - length, begin + settings.high - length
    low, high = max(low, start - length // 2), min(high, stop - length // 2)
    count = (length + 7) >> 3
    half, none, most = count // 2, np.int64(0), length // 5
    least = np.full(3, length, np.int64)
    where = np.full(3, -1, np.int64)
    for at in range(low, high + 1):
        one = differ(words, eights, at, none, half, length, most)
        two = differ(words, eights, at, half, count, length, most)
        for part, found in enumerate((one + two, one, two)):
            if found < least[part]:
                least[part], where[part] = found, at
    letters = (length, 8 * half, length - 8 * half)
    for part in range(3):
        at = where[part]
        if at < 0 or 5 * least[part] > letters[part] or letters[part] < 16:
            continue
        known = False
        for other in range(part):
            known |= where[other] >= 0 and 5 * least[other] <= letters[other] and abs(where[other] - at) <= FAR
        if known:
            continue
        for column in range(COLUMNS):
            table[row, column] = 0
        table[row, STRAND], table[row, AT], table[row, CONTIG] = 1 - table[anchor, STRAND], at, contig
        table[row, SEEDS], table[row, READ], table[row, EDITS] = 0, read, 0
        table[row, LOW] = table[row, HIGH] = at
        for other in range(3):  # the halves may lie on diagonals of their own
            if 5 * least[other] <= letters[other] and abs(where[other] - at) <= FAR:
                table[row, LOW] = min(table[row, LOW], where[other])
                table[row, HIGH] = max(table[row, HIGH], where[other])
        lay_out(table, row, index, words, query, eights, length, wrong)
        row += 1
    return row
