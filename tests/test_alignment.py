"""Alignment scores of many pairs at once equal those of the plain dynamic programme, pair by pair."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

import gridcompute as grid
from gridcompute import alignment
from gridcompute.alignment import Simple, local_scores, simple
from gridcompute.errors import ParameterError

LETTERS = np.frombuffer(b"ACGTacgtNRx-", np.uint8)
SCORINGS = {"unit": simple(), "bowtie": simple(2, 6, 8, 3), "linear": simple(1, 1, 1, 1),
            "wide": simple(60, 50, 70, 10), "wider": simple(20_000, 15_000, 9_000, 100), "free": simple(1, 0, 0, 0)}


@njit  # type: ignore[untyped-decorator]
def plain(query: Any, target: Any, scoring: Simple) -> int:
    """Gotoh's recurrence, cell by cell."""
    kept, gap = np.zeros(len(query) + 1, np.int64), np.full(len(query) + 1, -(2**60))
    best = 0
    for letter in target:
        up, corner = -(2**60), 0
        for i in range(len(query)):
            gap[i] = max(gap[i] - scoring.gap_extend, kept[i] - scoring.gap_open)
            same = scoring.queries[query[i]] == scoring.targets[letter]
            here = max(0, corner + (scoring.match if same else -scoring.mismatch), gap[i], up)
            corner, kept[i] = kept[i], here
            up = max(up - scoring.gap_extend, here - scoring.gap_open)
            best = max(best, here)
    return best


def column(sequences: list[Any]) -> tuple[Any, Any]:
    """As a kernel of chunks gets text."""
    offsets = np.cumsum([0, *(len(one) for one in sequences)])
    return offsets, np.concatenate([np.zeros(0, np.uint8), *sequences])


def relatives(draw: np.random.Generator, longest: int, count: int) -> tuple[list[Any], list[Any]]:
    """Pairs of which some are alike, some have gaps, some nothing in common, some are empty."""
    queries, targets = [], []
    for _ in range(count):
        query = draw.choice(LETTERS, int(draw.integers(0, longest + 1)), p=[0.2] * 4 + [0.2 / 8] * 8)
        cut = int(draw.integers(0, len(query) + 1))
        near = np.concatenate([query[:cut], draw.choice(LETTERS, int(draw.integers(0, 9))), query[cut + 2 :]])
        queries.append(query)
        targets.append(near if draw.random() < 0.7 else draw.choice(LETTERS, int(draw.integers(0, longest + 1))))
    return queries, targets


@pytest.mark.parametrize("name", SCORINGS)
@given(seed=st.integers(0, 2**32), longest=st.sampled_from((1, 20, 150, 400)), count=st.integers(0, 150))
@settings(max_examples=20)
def test_local_scores(name: str, seed: int, longest: int, count: int) -> None:
    scoring = SCORINGS[name]
    queries, targets = relatives(np.random.default_rng(seed), longest, count)
    expected = [plain(*pair, scoring) for pair in zip(queries, targets, strict=True)]
    assert local_scores(column(queries), column(targets), scoring).tolist() == expected


@pytest.mark.parametrize("length", [*range(236, 256), 5000])
def test_where_a_byte_runs_over(length: int) -> None:
    """Of equal sequences the score is the length: below, at and above what a byte holds; among others that aren't."""
    draw, scoring = np.random.default_rng(length), SCORINGS["unit"]
    queries = [draw.choice(LETTERS[:4], length if i % 9 == 0 else 60) for i in range(70)]
    expected = [plain(one, one, scoring) for one in queries]
    assert expected[0] == length
    assert local_scores(column(queries), column(queries), scoring).tolist() == expected


def test_where_two_bytes_run_over() -> None:
    draw, scoring = np.random.default_rng(0), SCORINGS["wide"]
    queries = [draw.choice(LETTERS[:4], length) for length in (1090, 1091, 1092, 1093, 5000, 3, 0)]
    assert local_scores(column(queries), column(queries), scoring).tolist() == [60 * len(one) for one in queries]


def test_a_score_that_no_number_holds_is_an_error() -> None:
    scoring = simple(2**20, 0, 0, 0)
    many = column([np.full(4200, ord("A"), np.uint8)])
    with pytest.raises(OverflowError, match="more than 2"):
        local_scores(many, many, scoring)


def test_neighbours_change_nothing() -> None:
    queries, targets = relatives(np.random.default_rng(7), 260, 300)
    whole = local_scores(column(queries), column(targets), SCORINGS["bowtie"])
    for pick in (slice(None, None, -1), slice(3, 80), slice(5, 6)):
        found = local_scores(column(queries[pick]), column(targets[pick]), SCORINGS["bowtie"])
        assert (found == whole[pick]).all()


def test_without_the_compiler_and_in_a_run(tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(JOB)
    for plainly in ("0", "1"):
        own = {"GRIDCOMPUTE_STATE": str(tmp_path), "NUMBA_DISABLE_JIT": plainly, "STORE": str(tmp_path / plainly)}
        subprocess.run([sys.executable, "job.py"], check=True, cwd=tmp_path, env={**os.environ, **own})
    one, other = (sorted((tmp_path / plainly).glob("shards/**/*.arrow")) for plainly in "01")
    assert [path.name for path in one] == [path.name for path in other]
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in other]


JOB = """
import os
import numpy as np, pyarrow as pa, pyarrow.parquet as pq
import gridcompute as grid
from gridcompute import alignment

@grid.kernel("(m),(n)->()", batch=True, names=("score",), dtypes=("i8",))
def score(reads, windows, scoring):
    return alignment.local_scores(reads, windows, scoring)

draw = np.random.default_rng(0)
windows = ["".join(draw.choice(list("ACGT"), 40)) for _ in range(90)]
if not os.path.exists("pairs.parquet"):
    pq.write_table(pa.table({"read": [one[10:30] for one in windows], "window": windows}), "pairs.parquet")
table = grid.open_table("pairs.parquet").dropna()
scores = table["read"].map(score, table["window"], scoring=alignment.simple(2, 3, 5, 2))
run = grid.run(scores, executor="inline", quiet=True, store=os.environ["STORE"])
assert (run["score"].to_numpy() == 40).all()
"""


@pytest.mark.parametrize(("given_", "told"), [
    ({"match": 0}, "match is 0"), ({"mismatch": -1}, "mismatch is -1"), ({"gap_open": 1.5}, "gap_open is 1.5"),
    ({"match": True}, "match is True"), ({"gap_open": 1, "gap_extend": 2}, "gap_extend is 2, more than gap_open, 1"),
    ({"letters": ""}, "letters are ''"), ({"letters": "AÄ"}, "letters are 'AÄ'"), ({"same": "T"}, "same is 'T'"),
    ({"match": 2**21}, "match is 2097152"), ({"letters": "ACGT", "same": "XU"}, "same is 'XU'"),
])  # fmt: skip
def test_what_scores_nothing_sensible(given_: dict[str, Any], told: str) -> None:
    with pytest.raises(ParameterError, match=told):
        simple(**given_)


def test_letters() -> None:
    rna = simple(1, 2, 3, 1, same="TU")
    one, other = (column([np.frombuffer(text, np.uint8)]) for text in (b"acguNN", b"ACGTNN"))
    assert local_scores(one, other, rna).tolist() == [4]  # N equals nothing, N neither
    assert alignment.local_scores(one, other, simple()).tolist() == [3]
    assert grid.kernel("(m),(n)->()", batch=True)(lambda a, b: local_scores(a, b, rna)).key
