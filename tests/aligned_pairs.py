"""Pairs of sequences for tests of alignments, and what is checked of a path."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from gridcompute.alignment.costs import letters_of
from gridcompute.alignment.one import GLOBAL, LOCAL, SEMIGLOBAL, align

LETTERS = np.frombuffer(b"ACGTN", np.uint8)
MODES = {"local": LOCAL, "global": GLOBAL, "semiglobal": SEMIGLOBAL}


class Table(NamedTuple):
    """A scoring of any letters."""

    queries: Any
    targets: Any
    scores: Any
    gap_open: int
    gap_extend: int


def column(sequences: list[Any]) -> tuple[Any, Any]:
    """As a kernel of chunks gets text."""
    offsets = np.cumsum([0, *(len(one) for one in sequences)])
    return offsets, np.concatenate([np.zeros(0, np.uint8), *sequences])


def with_errors(draw: np.random.Generator, letters: Any, share: float) -> Any:
    """The letters with a share of them changed, an eighth of that left out, and an eighth doubled."""
    out = letters.copy()
    wrong = draw.random(len(letters)) < share
    out[wrong] = draw.choice(LETTERS, int(wrong.sum()))
    times = 1 + (draw.random(len(letters)) < share / 8) - 1 * (draw.random(len(letters)) < share / 8)
    return np.repeat(out, times)


def relatives(draw: np.random.Generator, longest: int, count: int) -> tuple[list[Any], list[Any]]:
    """Pairs of which some are alike, some lie within each other, some have nothing in common, some are empty."""
    queries, targets = [], []
    for _ in range(count):
        query = draw.choice(LETTERS, int(draw.integers(0, longest + 1)), p=[0.24] * 4 + [0.04])
        kind = draw.random()
        near = with_errors(draw, query, float(draw.choice((0.0, 0.02, 0.1, 0.3))))
        if kind < 0.2:
            near = draw.choice(LETTERS, int(draw.integers(0, longest + 1)))
        elif kind < 0.5:
            near = np.concatenate([draw.choice(LETTERS, int(draw.integers(0, 30))), near, draw.choice(LETTERS, 9)])
        elif kind < 0.6:
            query, near = near, query[len(query) // 3 :]
        queries.append(query)
        targets.append(near)
    return queries, targets


@njit  # type: ignore[untyped-decorator]
def table_score(query: Any, target: Any, scoring: Any, mode: int) -> int:
    """The best score, by Gotoh's recurrence over the whole table."""
    m, n = len(query), len(target)
    best, across, down = np.zeros((m + 1, n + 1), np.int64), np.full(m + 1, -(2**60)), np.int64(0)
    for i in range(1, m + 1):
        best[i, 0] = 0 if mode == LOCAL else -scoring.gap_open - (i - 1) * scoring.gap_extend
    for j in range(1, n + 1):
        best[0, j] = -scoring.gap_open - (j - 1) * scoring.gap_extend if mode == GLOBAL else 0
        down = np.int64(-(2**60))
        for i in range(1, m + 1):
            across[i] = max(across[i] - scoring.gap_extend, best[i, j - 1] - scoring.gap_open)
            down = max(down - scoring.gap_extend, best[i - 1, j] - scoring.gap_open)
            score = scoring.scores[scoring.queries[query[i - 1]], scoring.targets[target[j - 1]]]
            best[i, j] = max(best[i - 1, j - 1] + score, across[i], down, 0 if mode == LOCAL else down)
    if mode == GLOBAL:
        return best[m, n]
    return best.max() if mode == LOCAL else best[m].max()


def rescored(query: Any, target: Any, scoring: Any, found: tuple[int, ...], cigar: Any) -> int:
    """The score of a path, whose runs and ends must be sound."""
    _, i, end, j, target_end = found
    score, before = 0, -1
    for run in cigar:
        length, operation = int(run) >> 4, int(run) & 15
        assert length > 0
        assert operation != before
        before = operation
        if operation in (1, 2):
            score -= scoring.gap_open + (length - 1) * scoring.gap_extend
        else:
            ours, theirs = scoring.queries[query[i : i + length]], scoring.targets[target[j : j + length]]
            assert operation == 0 or ((ours == theirs) == (operation == 7)).all()
            score += int(scoring.scores[ours, theirs].sum())
        i, j = i + length * (operation != 2), j + length * (operation != 1)
    assert (i, j) == (end, target_end)
    return score


def alone(query: Any, target: Any, scoring: Any, mode: int, plain: bool = False) -> tuple[tuple[int, ...], Any]:
    """What `align` finds for one pair: score and places, and the CIGAR."""
    cigar = np.empty(len(query) + len(target), np.uint32)
    *found, count = align(query, target, letters_of(scoring), mode, -len(query), len(target), plain, cigar)
    return tuple(int(one) for one in found), cigar[:count]


def checked(queries: list[Any], targets: list[Any], scoring: Any, mode: int, found: Any) -> None:
    """Paths of many pairs have the scores that they should have, and are those that `align` finds."""
    *columns, (offsets, runs) = found
    for number, (query, target) in enumerate(zip(queries, targets, strict=True)):
        own = tuple(int(one[number]) for one in columns)
        cigar = runs[offsets[number] : offsets[number + 1]]
        assert own[0] == table_score(query, target, scoring, mode)
        assert rescored(query, target, scoring, own, cigar) == own[0]
        if mode != LOCAL:
            assert own[1:3] == (0, len(query))
        if mode == GLOBAL:
            assert own[3:] == (0, len(target))
        places, path = alone(query, target, scoring, mode)
        assert places == own
        assert path.tolist() == cigar.tolist()
