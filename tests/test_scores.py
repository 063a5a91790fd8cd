"""Scores of pairs with any scoring, local, global and semi-global, equal parasail's at all lengths and widths.

Those of its form "scan": "striped" gives too low a global score where a gap's letters all cost the same.
"""

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

import gridcompute as grid
from gridcompute import alignment
from gridcompute.alignment import Matrix, Simple, published
from gridcompute.errors import MissingInputError, ParameterError
from gridcompute.sources.fastx import read_sequences

parasail = pytest.importorskip("parasail")

DNA = np.frombuffer(b"ACGT", np.uint8)
PROTEIN = np.frombuffer(published.LETTERS.encode(), np.uint8)


def scaled(by: int) -> Any:
    """BLOSUM62 with scores so many times as high, for parasail."""
    found = parasail.blosum62.copy()
    for i in range(found.size):
        for j in range(found.size):
            found.set_value(i, j, int(parasail.blosum62.matrix[i, j]) * by)
    return found


def times(by: int, gap_open: int, gap_extend: int) -> Matrix:
    return alignment.matrix((published.LETTERS, alignment.matrices.published("BLOSUM62") * by), gap_open, gap_extend)


SCORINGS: dict[str, tuple[Simple | Matrix, Any, Any]] = {
    "dna": (alignment.simple(2, 3, 5, 2), parasail.matrix_create("ACGT", 2, -3), DNA),
    "linear": (alignment.simple(1, 1, 1, 1), parasail.matrix_create("ACGT", 1, -1), DNA),
    "words": (alignment.simple(60, 50, 70, 10), parasail.matrix_create("ACGT", 60, -50), DNA),
    "wide": (alignment.simple(20_000, 15_000, 9_000, 100), parasail.matrix_create("ACGT", 20_000, -15_000), DNA),
    "blosum62": (alignment.matrix("BLOSUM62", 12, 1), parasail.blosum62, PROTEIN),
    "pam30": (alignment.matrix("pam30", 10, 1), parasail.pam30, PROTEIN),
    "no extension": (alignment.matrix("BLOSUM45", 9, 0), parasail.blosum45, PROTEIN),
    "times 20": (times(20, 240, 20), scaled(20), PROTEIN),
    "times 4000": (times(4000, 48_000, 4000), scaled(4000), PROTEIN),
}
WAYS: dict[str, tuple[Any, Any]] = {
    "local": (alignment.local_scores, parasail.sw_scan_32),
    "global": (alignment.global_scores, parasail.nw_scan_32),
    "both": (alignment.semiglobal_scores, parasail.sg_scan_32),
    "target": (lambda q, t, s: alignment.semiglobal_scores(q, t, s, "target"), parasail.sg_dx_scan_32),
    "query": (lambda q, t, s: alignment.semiglobal_scores(q, t, s, "query"), parasail.sg_qx_scan_32),
}


def column(sequences: list[Any]) -> tuple[Any, Any]:
    """As a kernel of chunks gets text."""
    return np.cumsum([0, *map(len, sequences)]), np.concatenate([np.zeros(0, np.uint8), *sequences])


def gap(length: int, scoring: Any) -> int:
    return -(scoring.gap_open + (length - 1) * scoring.gap_extend) if length else 0


def expected(way: str, query: Any, target: Any, scoring: Any, theirs: Any) -> int:
    """Parasail's score; it takes no empty sequences."""
    m, n = len(query), len(target)
    if m and n:
        texts = (one.tobytes().decode() for one in (query, target))
        return int(WAYS[way][1](*texts, scoring.gap_open, scoring.gap_extend, theirs).score)
    ends = {"local": (0, 0), "both": (0, 0), "global": (m, n), "target": (m, 0), "query": (0, n)}[way]
    return sum(gap(length, scoring) for length in ends)


def relatives(draw: np.random.Generator, letters: Any, longest: int, count: int) -> tuple[list[Any], list[Any]]:
    """Pairs of which some are alike, some have gaps at the ends or within, some nothing in common, some are empty."""
    queries, targets = [], []
    for _ in range(count):
        query = draw.choice(letters, int(draw.integers(0, longest + 1)))
        near = np.where(draw.random(len(query)) < 0.1, draw.choice(letters, len(query)), query)
        cut = int(draw.integers(0, len(query) + 1))
        near = np.concatenate([near[:cut], draw.choice(letters, int(draw.integers(0, 9))), near[cut + 2 :]])
        near = near[int(draw.integers(0, 1 + len(near) // 4)) :] if draw.random() < 0.3 else near
        queries.append(query)
        targets.append(near if draw.random() < 0.7 else draw.choice(letters, int(draw.integers(0, longest + 1))))
    return queries, targets


def check(name: str, queries: list[Any], targets: list[Any]) -> None:
    scoring, theirs, _ = SCORINGS[name]
    for way, (ours, _) in WAYS.items():
        found = ours(column(queries), column(targets), scoring).tolist()
        assert found == [expected(way, q, t, scoring, theirs) for q, t in zip(queries, targets, strict=True)], way


@pytest.mark.parametrize("name", SCORINGS)
@given(seed=st.integers(0, 2**32), longest=st.sampled_from((1, 6, 60, 300)), count=st.integers(1, 150))
@settings(max_examples=6)
def test_scores_equal_parasail(name: str, seed: int, longest: int, count: int) -> None:
    check(name, *relatives(np.random.default_rng(seed), SCORINGS[name][2], longest, count))


@pytest.mark.parametrize("name", SCORINGS)
def test_long_ones(name: str) -> None:
    """To 5,000 letters: scores beyond a byte and beyond two, at both ends, beside short ones and empty ones."""
    draw, letters = np.random.default_rng(5), SCORINGS[name][2]
    queries, targets = relatives(draw, letters, 3000, 9)
    whole = draw.choice(letters, 5000)
    check(name, [*queries, whole, whole, whole[:0], whole, whole[:3]],
          [*targets, whole, draw.choice(letters, 4999), whole, whole[:0], whole])


@pytest.mark.parametrize("length", [40, 41, 42, 43, 44, 45, 46, 47])
def test_where_a_byte_runs_over(length: int) -> None:
    """Scores of equal proteins about what a byte holds, each beside others that are far below."""
    draw = np.random.default_rng(length)
    queries = [draw.choice(PROTEIN[:20], length if i % 9 == 0 else 12) for i in range(70)]
    check("blosum62", queries, queries)


def test_real_proteins(data_dir: Path) -> None:
    known = np.isin(np.arange(256), PROTEIN)
    read = [read_sequences(str(data_dir / "genomics" / name))[1:] for name in ("QUERY.fasta.gz", "DB.fasta.gz")]
    queries, targets = ([letters[at[i] : at[i + 1]] for i in range(150)] for at, letters in read)
    queries, targets = ([one[known[one]] for one in some] for some in (queries, targets))
    check("blosum62", queries, targets)


def test_neighbours_change_nothing() -> None:
    queries, targets = relatives(np.random.default_rng(7), PROTEIN, 260, 200)
    scoring = SCORINGS["blosum62"][0]
    for ours, _ in WAYS.values():
        whole = ours(column(queries), column(targets), scoring)
        for pick in (slice(None, None, -1), slice(3, 80), slice(5, 6), slice(0, 0)):
            assert (ours(column(queries[pick]), column(targets[pick]), scoring) == whole[pick]).all()


def test_what_may_be_free() -> None:
    one = column([DNA])
    with pytest.raises(ValueError, match="'target', 'query', 'both'"):
        alignment.semiglobal_scores(one, one, alignment.simple(), "ends")


def test_without_the_compiler(tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(JOB)
    said = [subprocess.run([sys.executable, "job.py"], check=True, cwd=tmp_path, capture_output=True, text=True,
                           env={**os.environ, "NUMBA_DISABLE_JIT": plainly}).stdout for plainly in "01"]
    assert said[0] == said[1]
    assert len(said[0].splitlines()) == 24


JOB = """
import numpy as np
from gridcompute import alignment

draw = np.random.default_rng(1)
column = lambda some: (np.cumsum([0, *map(len, some)]), np.concatenate(some))
def pairs(letters):
    first = [draw.choice(np.frombuffer(letters, np.uint8), n) for n in (0, 1, 5, 14, 14, 3)]
    second = [draw.choice(np.frombuffer(letters, np.uint8), n) for n in (3, 0, 6, 9)] + [first[4], first[4][5:]]
    return column(first), column(second)

for scorings, letters in (([alignment.simple(2, 3, 5, 2), alignment.simple(200, 3, 50, 2),
                            alignment.simple(70_000, 3, 50, 2)], b"ACGT"),
                          ([alignment.matrix(), alignment.matrix(("AC", [[90, 1], [-4, 90]]), 200, 1),
                            alignment.matrix(("AC", [[70_000, 1], [-4, 90]]), 20, 1)], b"ACDE*xZ")):
    for scoring in scorings:
        one, other = pairs(letters)
        print(alignment.local_scores(one, other, scoring))
        print(alignment.global_scores(one, other, scoring))
        print(alignment.semiglobal_scores(one, other, scoring),
              alignment.semiglobal_scores(one, other, scoring, "query"))
        print(alignment.semiglobal_scores(one, other, scoring, "target"))
"""


@grid.kernel("(m),(n)->(),(),()", batch=True, names=("local", "whole", "mapped"))
def three(reads, windows, scoring):  # type: ignore[no-untyped-def]
    return (alignment.local_scores(reads, windows, scoring), alignment.global_scores(reads, windows, scoring),
            alignment.semiglobal_scores(reads, windows, scoring, "target"))


@pytest.mark.usefixtures("own_folder")
def test_in_a_run() -> None:
    windows = [b"MKVLAAGIWWHEQ", b"MKVLAAG"] * 30
    reads = [b"LAAGIWW", b""] * 30
    table = grid.from_arrays({"read": reads, "window": windows}, dims="pair")
    run = grid.run(table["read"].map(three, table["window"], scoring=alignment.matrix()), executor="inline", quiet=True)
    # BLOSUM62: L, A, A, G, I, W, W score 4 + 4 + 4 + 6 + 4 + 11 + 11; three letters more at either end.
    assert run["local"].to_numpy().tolist() == [44, 0] * 30
    assert run["whole"].to_numpy().tolist() == [44 - 14 - 14, -18] * 30
    assert run["mapped"].to_numpy().tolist() == [44, 0] * 30


# --- matrices ---

SMALL = "# mine\n\n   A  C  *\nA  4 -1 -9\nC -2  5 -9\n*  0  0  1\n"


def score(query: bytes, target: bytes, scoring: Matrix) -> int:
    one, other = (column([np.frombuffer(text, np.uint8)]) for text in (query, target))
    return int(alignment.global_scores(one, other, scoring)[0])


@pytest.mark.parametrize("name", published.TABLES)
def test_published_matrices_are_parasails(name: str) -> None:
    assert (alignment.matrices.published(name) == getattr(parasail, name.lower()).matrix).all()
    assert (alignment.matrix(name).scores == alignment.matrices.published(name)).all()


def test_letters_of_a_matrix(tmp_path: Path) -> None:
    (tmp_path / "my.mat").write_text(SMALL)
    table = [[4, -1, -9], [-2, 5, -9], [0, 0, 1]]
    for of in (SMALL, tmp_path / "my.mat", str(tmp_path / "my.mat"), ("AC*", table), ("ac*", np.array(table))):
        own = alignment.matrix(of, 30, 30)
        assert [score(a, c, own) for a, c in ((b"A", b"C"), (b"C", b"A"), (b"c", b"C"), (b"*", b"A"))] == [-1, -2, 5, 0]
        assert score(b"N", b"N", own) == -9  # the least, as there is no X
    blosum = alignment.matrix()
    assert score(b"wL", b"Wl", blosum) == 15
    assert score(b"U", b"C", blosum) == 9
    assert {score(one, b"W", blosum) for one in (b"X", b"J", b"O", b"-", b"\xff")} == {-2}
    assert score(b"*", b"*", blosum) == 1


@pytest.mark.parametrize(("of", "told"), [
    (("AC", [[1, 2]]), "1 rows for 2 letters"), (("AC", [[1, 2], [1]]), "1 values in the row of C, not 2"),
    (("AA", [[1, 2], [1, 2]]), "letters 'AA'"), (("", []), "letters ''"), (("A", [[1.5]]), "1.5, which isn't a whole"),
    (("A", [["x"]]), "'x', which isn't a whole"), (("A", [[None]]), "None, which isn't"), (("Ä", [[1]]), "letters 'Ä'"),
    (("A", [[2**21]]), "holds 2097152"), (("ABCDEFGHIJKLMNOPQRSTUVWXYZ012345", np.eye(32, dtype=int)), "32 letters"),
    (("A", [[float("nan")]]), "nan, which isn't"),
    ("\n\n", "no line of letters"), ("AB C\nA 1 2\n", "no line of letters"), ("A C\nA 1 2\n", "has C not both"),
    ("A\nA 1\nC 1\n", "has C not both"), ("A C\nA 1\nC 1 2\n", "1 values in the row of A"),
    ("A C\nA 1 2\nC 1 two\n", "'two', which isn't"), ("A C\nA 1 2\nA 1 2\nC 1 2\n", "a letter twice"),
])  # fmt: skip
def test_wrong_matrices(of: Any, told: str) -> None:
    with pytest.raises(ParameterError, match=told) as error:
        alignment.matrix(of)
    assert error.value.hint


def test_matrices_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="no matrix 'BLOSUM63'") as error:
        alignment.matrix("BLOSUM63")
    assert "BLOSUM62" in error.value.hint
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ParameterError, match="isn't ASCII"):
        alignment.matrix(tmp_path / "binary")
    with pytest.raises(ParameterError, match="gap_extend is 3, more than gap_open, 2"):
        alignment.matrix("BLOSUM62", 2, 3)
    with pytest.raises(ParameterError, match="gap_open is -1"):
        alignment.matrix("BLOSUM62", -1, 0)
