"""Which of its placements a read gets, and how sure that is."""

from __future__ import annotations

from typing import Any

from numba import njit

from .pairs import CLOSE, UNPAIRED, best_pair, insert_of
from .places import CONTIG, LEFT, RIGHT, SCORE, STRAND
from .quality import HIGHEST, PER_POINT, single_quality, ties_cost


@njit(nogil=True)
def distinct(ranges: Any, read: Any, table: Any, least: Any, out: Any) -> Any:
    """Rows of a read that score enough, in `out`; of those that begin or end alike only the best. How many."""
    count = 0
    for part in range(0, 4, 2):
        for row in range(ranges[read, part], ranges[read, part + 1]):
            if table[row, SCORE] < least:
                continue
            to = count
            for i in range(count):
                if _alike(table, out[i], row):
                    to = i
                    break
            if to == count:
                count += 1
                out[to] = row
            elif table[row, SCORE] > table[out[to], SCORE]:
                out[to] = row
    return count


@njit(nogil=True)
def _alike(table: Any, one: Any, other: Any) -> bool:
    if table[one, STRAND] != table[other, STRAND] or table[one, CONTIG] != table[other, CONTIG]:
        return False
    return bool(table[one, LEFT] == table[other, LEFT] or table[one, RIGHT] == table[other, RIGHT])


@njit(nogil=True)
def best_single(rows: Any, count: Any, table: Any, mark: Any) -> Any:
    """The row with the best score, chosen among equals by a number from the read's letters; -1 if there is none."""
    top, equal = -1, 0
    for i in range(count):
        score = table[rows[i], SCORE]
        if score > top:
            top, equal = score, 1
        elif score == top:
            equal += 1
    chosen = mark % max(equal, 1)
    for i in range(count):
        if table[rows[i], SCORE] == top:
            if chosen == 0:
                return int(rows[i])
            chosen -= 1
    return -1


@njit(nogil=True)
def graded(row: Any, rows: Any, count: Any, table: Any, repeated: Any, words: Any) -> Any:
    """Quality of a read's placement by itself, and the best score of the others."""
    second, close, score = 0, 0, table[row, SCORE]
    for i in range(count):
        if rows[i] != row:
            second = max(second, table[rows[i], SCORE])
            close += int(score - table[rows[i], SCORE] <= CLOSE)
    span = table[row, RIGHT] - table[row, LEFT]
    return single_quality(score, second, span, close, repeated, words), second


@njit(nogil=True)
def choose_pair(one: Any, ones: Any, other: Any, others: Any, table: Any, settings: Any, facts: Any,
                read: Any, mark: Any) -> Any:
    """Placements of two mates: their rows (-1: none), qualities, the best other scores, and whether they are proper.

    Args:
        one: rows of the first mate, distinct.
        ones: how many.
        other: rows of the second mate, distinct.
        others: how many.
        table: candidates.
        settings: how to map.
        facts: of all reads: minimizers that occur too often, all of them, mark.
        read: the first mate; the second follows.
        mark: a number from both reads' letters.
    """
    a, b = best_single(one, ones, table, facts[read, 2]), best_single(other, others, table, facts[read + 1, 2])
    together, proper = 0, False
    if a >= 0 and b >= 0:
        apart = table[a, SCORE] + table[b, SCORE] - UNPAIRED
        top, second, close, pair_a, pair_b = best_pair(one, ones, other, others, table, settings, mark)
        if top > apart:
            a, b, proper = pair_a, pair_b, True
            value = PER_POINT * (top - max(second, apart))
            if close > 0:
                value -= ties_cost(close)
            mine, its = facts[read, 0] / max(facts[read, 1], 1), facts[read + 1, 0] / max(facts[read + 1, 1], 1)
            value *= 1.0 - 0.5 * (mine + its)
            together = min(max(int(value + 0.499), 0), HIGHEST)
        else:
            size = insert_of(table, a, b)
            proper = settings.low <= size <= settings.high
    quality_a, second_a, quality_b, second_b = 0, 0, 0, 0
    if a >= 0:
        quality_a, second_a = graded(a, one, ones, table, facts[read, 0], max(facts[read, 1], 1))
        quality_a = max(quality_a, min(together, quality_a + 40))
    if b >= 0:
        quality_b, second_b = graded(b, other, others, table, facts[read + 1, 0], max(facts[read + 1, 1], 1))
        quality_b = max(quality_b, min(together, quality_b + 40))
    return a, b, quality_a, quality_b, second_a, second_b, proper
