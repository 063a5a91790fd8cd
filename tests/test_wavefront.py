"""Near-identical pairs: scores are parasail's and the whole table's, by bands in lanes and by wavefronts."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aligned_pairs import LETTERS, Table, alone, column, relatives, table_score, with_errors

from gridcompute.alignment import similar_scores, simple
from gridcompute.alignment.costs import cost_outside, costs_of, gap_cost, letters_of, score_of
from gridcompute.alignment.one import GLOBAL
from gridcompute.alignment.similar import margin_for
from gridcompute.alignment.wavefront import limit_of, wavefront

parasail = pytest.importorskip("parasail")

pytestmark = pytest.mark.timeout(1200)  # the first of them waits for the compiler

SCORINGS = {"unit": simple(), "bowtie": simple(2, 6, 8, 3), "linear": simple(1, 1, 1, 1),
            "wider": simple(20_000, 15_000, 9_000, 100), "free": simple(1, 0, 0, 0), "zero": simple(3, 0, 5, 0)}


def fronts(query: Any, target: Any, scoring: Any, traced: bool, limit: int | None = None) -> tuple[int, Any]:
    """Cost and CIGAR by wavefronts, whatever the cost."""
    costs = costs_of(scoring)
    most = gap_cost(len(query), costs) + gap_cost(len(target), costs) if limit is None else limit
    cigar = np.empty(len(query) + len(target), np.uint32)
    cost, count = wavefront(query, target, letters_of(scoring), costs, most, traced, False, cigar)
    return cost, cigar[:count]


@pytest.mark.parametrize("name", SCORINGS)
def test_scores_and_paths_are_those_of_the_whole_table(name: str) -> None:
    draw, scoring = np.random.default_rng(len(name)), SCORINGS[name]
    costs = costs_of(scoring)
    for longest, count in ((0, 2), (10, 150), (150, 60), (400, 15)):
        queries, targets = relatives(draw, longest, count)
        expected = [table_score(query, target, scoring, GLOBAL) for query, target in zip(queries, targets, strict=True)]
        assert similar_scores(column(queries), column(targets), scoring).tolist() == expected
        for query, target, score in zip(queries, targets, expected, strict=True):
            if name == "wider":  # costs in their thousands: not for wavefronts of a test
                continue
            cost, _ = fronts(query, target, scoring, False)
            assert score_of(cost, len(query) + len(target), costs) == score
            again, path = fronts(query, target, scoring, True)
            assert again == cost
            assert path.tolist() == alone(query, target, scoring, GLOBAL)[1].tolist()
            if cost:
                assert fronts(query, target, scoring, False, cost - 1)[0] == -1


def test_scores_equal_parasail_up_to_5000_letters() -> None:
    """Also where a byte, and where two, don't hold the cost, and where a long pair isn't alike at all."""
    draw = np.random.default_rng(9)
    queries = [draw.choice(LETTERS[:4], int(n)) for n in draw.integers(1, 5001, 40)]
    targets = [with_errors(draw, query, float(share)) for query, share in
               zip(queries, draw.choice((0.0, 0.001, 0.01, 0.05, 0.2), 40), strict=True)]
    queries += [draw.choice(LETTERS[:4], n) for n in (3000, 2100, 40)]
    targets += [draw.choice(LETTERS[:4], n) for n in (2500, 2900, 2500)]
    targets = [np.where(target == 78, 65, target).astype(np.uint8) for target in targets]
    targets = [target if len(target) else query for query, target in zip(queries, targets, strict=True)]
    for scoring, matrix, gaps in ((simple(), parasail.matrix_create("ACGT", 1, -2), (3, 1)),
                                  (simple(60, 50, 70, 10), parasail.matrix_create("ACGT", 60, -50), (70, 10))):
        expected = [parasail.nw_striped_32(query.tobytes().decode(), target.tobytes().decode(), *gaps, matrix).score
                    for query, target in zip(queries, targets, strict=True)]
        assert similar_scores(column(queries), column(targets), scoring).tolist() == expected


def test_the_test_pairs_of_wfa(data_dir: Path) -> None:
    with gzip.open(data_dir / "genomics" / "wfa.utest.seq.gz", "rb") as lines:
        sides = [np.frombuffer(line.strip()[1:], np.uint8) for line in lines]
    queries, targets = sides[::2], sides[1::2]
    assert len(queries) == len(targets) > 100
    found = similar_scores(column(queries), column(targets), simple(1, 3, 5, 2))
    matrix = parasail.matrix_create("ACGT", 1, -3)
    for query, target, score in zip(queries, targets, found, strict=True):
        assert set(query) | set(target) <= set(b"ACGT")
        assert score == parasail.nw_striped_32(query.tobytes().decode(), target.tobytes().decode(), 5, 2, matrix).score


def test_a_million_letters_with_few_differences() -> None:
    """No table of them would fit anywhere."""
    draw = np.random.default_rng(1)
    query = draw.choice(LETTERS[:4], 1_000_000)
    target = np.concatenate([query[:400_000], query[400_007:]])
    target[123] = 65 if target[123] != 65 else 67
    assert similar_scores(column([query]), column([target]), simple()).tolist() == [999_992 - 2 - 3 - 6]
    cost, path = fronts(query, target, simple(), True, 200)
    assert cost == 6 + gap_cost(7, costs_of(simple()))
    assert [int(run) & 15 for run in path] == [7, 8, 7, 1, 7]


def test_when_wavefronts_are_left_alone() -> None:
    costs = costs_of(simple())
    assert limit_of(10_000, 10_000, costs, True) < limit_of(100_000, 100_000, costs, False)
    assert limit_of(3, 4, costs, False) <= gap_cost(3, costs) + gap_cost(4, costs)
    assert limit_of(100, 100, costs_of(simple(1, 2**20, 3, 1)), False) == -1  # a front would grow by too much at once
    assert limit_of(100, 100, costs._replace(match=0, more=0), True) == -1  # scores that have no costs
    same = np.frombuffer(b"ACGTACGT", np.uint8)
    assert similar_scores(column([same]), column([same[1:]]), simple(1, 2**20, 3, 1)).tolist() == [4]


def test_costs() -> None:
    assert costs_of(simple(1, 2, 3, 1)) == (1, 6, 7, 3, 1)
    assert costs_of(simple(2, 6, 8, 3)) == (2, 8, 9, 4, 2)
    codes = np.arange(256).astype(np.uint8) % 3
    table = np.array([[5, -1, -1], [-1, 4, -1], [-1, -1, 5]], np.int32)
    assert costs_of(Table(codes, codes, table, 3, 1)).match == 0  # two kinds of equal letters
    table[1, 1], table[0, 1] = 5, -2
    assert costs_of(Table(codes, codes, table, 3, 1)).match == 0  # two kinds of others
    table[0, 1] = -1
    assert costs_of(Table(codes, codes, table, 3, 1)).match == 5
    assert costs_of(Table(codes, codes, -table, 3, 1)).match == 0


def test_a_margin_is_just_wide_enough() -> None:
    for scoring in SCORINGS.values():
        costs = costs_of(scoring)
        for m, n in ((100, 100), (100, 90), (80, 100)):
            for cost in (0, 1, 20, 99, 250):
                margin = margin_for(cost, m, n, costs)
                low, high = min(0, n - m) - margin, max(0, n - m) + margin
                assert cost < cost_outside(low, high, m, n, costs)
                assert margin in (0, max(m, n)) or cost >= cost_outside(low + 1, high - 1, m, n, costs)


def told() -> list[Any]:
    """What a few small pairs give, for JSON."""
    queries, targets = relatives(np.random.default_rng(1), 9, 4)
    paths = [fronts(query, target, simple(), True) for query, target in zip(queries, targets, strict=True)]
    scores = similar_scores(column(queries), column(targets), simple())
    return [scores.tolist(), [[cost, path.tolist()] for cost, path in paths]]


def test_without_the_compiler(tmp_path: Path) -> None:
    job = "import json, test_wavefront; print(json.dumps(test_wavefront.told()))"
    given = {**os.environ, "NUMBA_DISABLE_JIT": "1", "GRIDCOMPUTE_STATE": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", job], check=True, cwd=Path(__file__).parent, env=given,
                          capture_output=True, text=True)
    assert json.loads(done.stdout) == told()
