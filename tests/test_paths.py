"""Paths of alignments: their scores are parasail's and the whole table's, and each path gives its score."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aligned_pairs import LETTERS, MODES, Table, alone, checked, column, relatives, rescored, table_score, with_errors

from gridcompute.alignment import cigar_letters, cigar_text, global_paths, local_paths, semiglobal_paths, simple
from gridcompute.alignment.costs import letters_of
from gridcompute.alignment.one import GLOBAL, LOCAL, SEMIGLOBAL, align

parasail = pytest.importorskip("parasail")

pytestmark = pytest.mark.timeout(1200)  # the first of them waits for the compiler

PATHS = {"local": local_paths, "global": global_paths, "semiglobal": semiglobal_paths}
SCORINGS = {"unit": simple(), "bowtie": simple(2, 6, 8, 3), "linear": simple(1, 1, 1, 1),
            "wide": simple(60, 50, 70, 10), "wider": simple(20_000, 15_000, 9_000, 100), "free": simple(1, 0, 0, 0)}


@pytest.mark.parametrize("name", SCORINGS)
@pytest.mark.parametrize("mode", MODES)
def test_paths_of_many_pairs(mode: str, name: str) -> None:
    """A byte, two bytes and pairs one by one all give what the whole table gives, and the path of a pair alone."""
    draw = np.random.default_rng(len(mode) + len(name))
    for longest, count in ((0, 3), (12, 140), (90, 70), (300, 40)):
        queries, targets = relatives(draw, longest, count)
        checked(queries, targets, SCORINGS[name], MODES[mode],
                PATHS[mode](column(queries), column(targets), SCORINGS[name]))


@pytest.mark.parametrize("mode", MODES)
def test_scores_equal_parasail(mode: str) -> None:
    """Its 32-bit functions; a gap of k costs open + (k - 1) * extend there too. Up to 5,000 letters."""
    draw, scoring = np.random.default_rng(5), simple(2, 3, 5, 2)
    queries, targets = relatives(draw, 250, 150)
    for length in (1000, 5000):
        query = draw.choice(LETTERS[:4], length)
        queries += [query, query, with_errors(draw, query, 0.02)]
        targets += [with_errors(draw, query, 0.05), draw.choice(LETTERS[:4], 700), query[length // 2 :]]
    function = {"local": parasail.sw_striped_32, "global": parasail.nw_striped_32,
                "semiglobal": parasail.sg_dx_striped_32}[mode]
    matrix = parasail.matrix_create("ACGT", 2, -3)
    scores, *places, (offsets, runs) = PATHS[mode](column(queries), column(targets), scoring)
    for number, (query, target) in enumerate(zip(queries, targets, strict=True)):
        own = (int(scores[number]), *(int(one[number]) for one in places))
        cigar = runs[offsets[number] : offsets[number + 1]]
        assert rescored(query, target, scoring, own, cigar) == own[0]
        if len(query) and len(target) and 78 not in query and 78 not in target:  # of N it has another opinion
            assert own[0] == function(query.tobytes().decode(), target.tobytes().decode(), 5, 2, matrix).score


def test_neighbours_change_nothing() -> None:
    queries, targets = relatives(np.random.default_rng(11), 200, 150)
    for mode, paths in PATHS.items():
        whole = paths(column(queries), column(targets), SCORINGS["unit"])
        for pick in (slice(None, None, -1), slice(7, 9), slice(40, 120)):
            *columns, (offsets, runs) = paths(column(queries[pick]), column(targets[pick]), SCORINGS["unit"])
            numbers = range(len(queries))[pick]
            for one, other in zip(columns, whole, strict=False):
                assert one.tolist() == other[pick].tolist(), mode
            for i, number in enumerate(numbers):
                path = whole[5][1][whole[5][0][number] : whole[5][0][number + 1]]
                assert runs[offsets[i] : offsets[i + 1]].tolist() == path.tolist()


def test_any_table_of_scores() -> None:
    """With scores that no match and mismatch give, and that aren't the same for both sequences."""
    draw = np.random.default_rng(2)
    codes = np.minimum(np.arange(256) % 7, 5).astype(np.uint8)
    scoring = Table(codes, codes, draw.integers(-9, 12, (6, 6)).astype(np.int32), 7, 2)
    queries, targets = relatives(draw, 60, 30)
    for mode, paths in PATHS.items():
        checked(queries, targets, scoring, MODES[mode], paths(column(queries), column(targets), scoring))


def test_which_of_several_best_paths() -> None:
    """Gaps lie leftmost; of several ends it is the first in the target; the shorter sequence decides nothing."""
    scoring = simple(1, 2, 3, 1)
    cases = [("GATTTC", "GATTC", GLOBAL, "2=1I3="), ("GATTC", "GATTTC", GLOBAL, "2=1D3="),
             ("ACG", "ACGTACG", SEMIGLOBAL, "3="), ("ACGTACG", "ACG", LOCAL, "3="), ("AA", "CC", LOCAL, "*"),
             ("ac", "AT", GLOBAL, "1=1X"), ("", "ACG", GLOBAL, "3D"), ("ACG", "", SEMIGLOBAL, "3I"),
             ("", "", GLOBAL, "*")]
    for query, target, mode, text in cases:
        pair = [np.frombuffer(one.encode(), np.uint8) for one in (query, target)]
        (_, _, _, first, last), cigar = alone(pair[0], pair[1], scoring, mode)
        assert cigar_text(cigar) == text
        if mode != GLOBAL:
            assert (first, last) == ((0, 3) if text == "3=" else (0, 0))
        (_, _, _, first, last), cigar = alone(pair[0], pair[1], scoring, mode, plain=True)
        assert "=" not in cigar_text(cigar)
    *_, (_, runs) = global_paths(column([pair[0]]), column([pair[1]]), scoring, True)
    assert runs.tolist() == []


def test_a_band_that_holds_the_path_changes_nothing() -> None:
    draw, scoring = np.random.default_rng(8), letters_of(SCORINGS["bowtie"])
    query = draw.choice(LETTERS[:4], 400)
    target = np.concatenate([draw.choice(LETTERS[:4], 30), with_errors(draw, query, 0.05)])
    for mode in MODES.values():
        (score, *places), path = alone(query, target, scoring, mode)
        cigar = np.empty(900, np.uint32)
        found = align(query, target, scoring, mode, -25, 60, False, cigar)
        assert found == (score, *places, len(path))
        assert cigar[: len(path)].tolist() == path.tolist()
        assert rescored(query, target, scoring, (score, *places), path) == table_score(query, target, scoring, mode)
    narrow = align(query, target, scoring, LOCAL, -2, 2, False, cigar)
    assert narrow[0] < alone(query, target, scoring, LOCAL)[0][0]


def test_what_one_pair_refuses() -> None:
    query, scoring = np.full(300_000, 65, np.uint8), letters_of(SCORINGS["unit"])
    with pytest.raises(ValueError, match="too long for a path"):
        align(query, query, scoring, GLOBAL, -len(query), len(query), False, np.empty(0, np.uint32))
    with pytest.raises(ValueError, match="longer than its buffer"):
        align(query[:5], query[:5], scoring, GLOBAL, -5, 5, False, np.empty(0, np.uint32))
    with pytest.raises(ValueError, match="no path keeps to the band"):
        align(query[:5], query[:9], scoring, SEMIGLOBAL, 6, 8, False, np.empty(20, np.uint32))
    with pytest.raises(ValueError, match="as many queries as targets"):
        local_paths(column([query[:3]]), column([query[:3], query[:3]]), SCORINGS["unit"])


def test_a_long_target_needs_no_whole_table() -> None:
    """A fiftieth of the table's bytes: 60,000 x 1,000 letters, either way round."""
    draw = np.random.default_rng(4)
    long = draw.choice(LETTERS[:4], 60_000)
    short = with_errors(draw, long[45_000:46_000], 0.03)
    (score, first, last, start, end), path = alone(short, long, SCORINGS["unit"], SEMIGLOBAL)
    assert (first, last) == (0, len(short))
    assert abs(start - 45_000) < 5
    assert rescored(short, long, SCORINGS["unit"], (score, first, last, start, end), path) == score > 800
    turned, _ = alone(long, short, SCORINGS["unit"], LOCAL)
    assert turned == (turned[0], *alone(short, long, SCORINGS["unit"], LOCAL)[0][3:], *turned[3:])


def test_text_of_cigars() -> None:
    runs = [[], [100 << 4 | 7, 1 << 4 | 8, 12 << 4 | 1], [7 << 4 | 2], [5 << 4, 3 << 4 | 4]]
    texts = ["*", "100=1X12I", "7D", "5M3S"]
    assert [cigar_text(one) for one in runs] == texts
    offsets = np.cumsum([0, *map(len, runs)])
    starts, letters = cigar_letters(offsets, np.array([run for cigar in runs for run in cigar], np.uint32))
    found = [letters[a:b].tobytes().decode() or "*" for a, b in itertools.pairwise(starts)]
    assert found == texts


def told(mode: str) -> list[Any]:
    """What a few small pairs give, for JSON."""
    queries, targets = relatives(np.random.default_rng(1), 9, 4)
    *columns, (offsets, runs) = PATHS[mode](column(queries), column(targets), SCORINGS["bowtie"])
    return [*(one.tolist() for one in columns), offsets.tolist(), runs.tolist()]


def test_without_the_compiler(tmp_path: Path) -> None:
    job = "import json, test_paths; print(json.dumps([test_paths.told(mode) for mode in test_paths.PATHS]))"
    given = {**os.environ, "NUMBA_DISABLE_JIT": "1", "GRIDCOMPUTE_STATE": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", job], check=True, cwd=Path(__file__).parent, env=given,
                          capture_output=True, text=True)
    assert json.loads(done.stdout) == [told(mode) for mode in PATHS]


def test_the_letters_that_count() -> None:
    """Lower case counts, N equals nothing, letters that count as one are written as equal."""
    pair: list[Any] = [column([np.frombuffer(text, np.uint8)]) for text in (b"acgunA", b"ACGTNA")]
    *_, (_, runs) = global_paths(pair[0], pair[1], simple(1, 2, 3, 1, same="TU"))
    assert cigar_text(runs) == "4=1X1="
