"""The job `genomics.pairs`: scores, distances and paths of pairs from tables and from files of sequences."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from aligned_pairs import MODES, alone, relatives, table_score
from gridcompute_workloads import pairs as job

import gridcompute as grid
from gridcompute.alignment import cigar_text, simple
from gridcompute.errors import CorruptInputError, KernelError, MissingInputError, ParameterError
from gridcompute.resuming import Carried, run_workload

pytestmark = [pytest.mark.usefixtures("own_folder"), pytest.mark.timeout(1200)]
"""The first of them waits for the compiler."""

edlib = pytest.importorskip("edlib")


def carry(**given: Any) -> Carried:
    return run_workload("genomics.pairs", given, {"executor": "inline", "quiet": True})


def some() -> tuple[list[str], list[str]]:
    queries, targets = relatives(np.random.default_rng(3), 120, 60)
    queries[0], targets[1] = queries[0][:0], targets[1][:0]
    return [one.tobytes().decode() for one in queries], [one.tobytes().decode() for one in targets]


def expected(queries: list[str], targets: list[str], mode: str, plain: bool = False) -> list[dict[str, Any]]:
    """Rows by the whole table and edlib."""
    rows = []
    for query, target in zip(queries, targets, strict=True):
        ours, theirs = (np.frombuffer(one.encode(), np.uint8) for one in (query, target))
        found, cigar = alone(ours, theirs, simple(), MODES[mode], plain)
        assert found[0] == table_score(ours, theirs, simple(), MODES[mode])
        distance = max(len(query), 0 if mode == "semiglobal" else len(target))
        if query and target:
            how = "HW" if mode == "semiglobal" else "NW"
            distance = edlib.align(query, target, mode=how, task="distance")["editDistance"]
        rows.append(dict(zip(job.NAMES, (*found, distance, cigar.tolist()), strict=True)))
    return rows


@pytest.mark.parametrize("mode", MODES)
def test_a_table_of_pairs(mode: str) -> None:
    queries, targets = some()
    numbers = list(range(len(queries)))
    pq.write_table(pa.table({"id": numbers, "read": queries, "window": targets}), "in.parquet")
    carried = carry(input="in.parquet", query="read", target="window", mode=mode, output="out.parquet",
                    plain=mode == "local")
    assert carried.runs[0].state == "done"
    assert [path.name for path in carried.files] == ["out.png"]
    assert carried.files[0].read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert f"{mode} scores" in carried.lines[-1]
    rows = pq.read_table("out.parquet").to_pylist()
    assert [row.pop("id") for row in rows] == numbers
    assert rows == expected(queries, targets, mode, mode == "local")


def test_files_of_sequences_and_text() -> None:
    """FASTA beside FASTQ, wrapped lines, lower case and an empty sequence; the same pairs as CSV and TSV."""
    queries, targets = ["ACGTTGCA", "", "acgtnryk"], ["ACGTGCA", "AC", "ACGTNRYK"]
    Path("q.fa").write_text(">a one\nACGT\nTGCA\n>b\n\n>c\nacgtnryk\n")
    with gzip.open("t.fq.gz", "wt") as file:
        for name, text in zip("xyz", targets, strict=True):
            file.write(f"@{name}\n{text}\n+\n{'I' * len(text)}\n")
    carry(queries="q.fa", targets="t.fq.gz", output="f.parquet", picture="none")
    rows = pq.read_table("f.parquet").to_pylist()
    assert [(row.pop("query_name"), row.pop("target_name")) for row in rows] == [("a one", "x"), ("b", "y"), ("c", "z")]
    assert [cigar_text(row["cigar"]) for row in rows] == ["3=1I4=", "2D", "4=4X"]
    assert [row["distance"] for row in rows] == [1, 2, 0]  # letters are compared as they are but for case
    assert [row["score"] for row in rows] == [7 - 3, -4, 4 - 8]
    for name, sign in (("p.csv", ","), ("p.tsv", "\t")):
        lines = [sign.join(pair) for pair in (("query", "target"), *zip(queries, targets, strict=True))]
        Path(name).write_text("\n".join(lines) + "\n")
        carry(input=name, output=f"{name}.parquet", picture="none")
        assert pq.read_table(f"{name}.parquet").to_pylist() == rows


def test_rows_without_a_sequence_are_left_out() -> None:
    pq.write_table(pa.table({"query": ["ACGT", None, "A", ""], "target": ["ACGT", "A", None, "A"], "id": [1, 2, 3, 4]}),
                   "n.parquet")
    carry(input="n.parquet", output="n2.parquet", picture="none")
    assert [(row["id"], row["score"]) for row in pq.read_table("n2.parquet").to_pylist()] == [(1, 4), (4, -3)]


def test_simulated_pairs_are_the_same_each_time() -> None:
    for name in ("a.parquet", "b.parquet"):
        carry(count=300, length=100, errors=0.1, output=name, picture="none")
    found = pq.read_table("a.parquet")
    assert found.equals(pq.read_table("b.parquet"))
    assert 5 < np.median(found["distance"].to_numpy()) < 15
    carry(count=50, length=100, errors=0.0, output="c.parquet", picture="none")
    assert set(pq.read_table("c.parquet")["score"].to_pylist()) == {100}


@pytest.mark.parametrize(("given", "error", "told"), [
    ({"mode": "glocal"}, ParameterError, "mode is 'glocal'"),
    ({"match": 0}, ParameterError, "match is 0"),
    ({"gap_open": 1, "gap_extend": 2}, ParameterError, "gap_extend is 2, more than gap_open"),
    ({"input": "in.parquet", "query": "reed"}, ParameterError, "has no column 'reed'"),
    ({"input": "in.parquet", "query": "id"}, ParameterError, "'id' of in.parquet holds no text"),
    ({"input": "none.parquet"}, MissingInputError, "none.parquet"),
    ({"input": "in.parquet", "queries": "q.fa"}, ParameterError, "both a table"),
    ({"queries": "q.fa"}, ParameterError, "only one file"),
    ({"input": "score.parquet"}, ParameterError, "score.parquet has a column 'score'"),
    ({"queries": "q.fa", "targets": "short.fa"}, CorruptInputError, "q.fa has 2 sequences, short.fa has 1"),
    ({"queries": "q.fa", "targets": "in.parquet"}, MissingInputError, "no column 'name' in "),
    ({"queries": "q.fa", "targets": "junk.txt"}, CorruptInputError, "neither FASTA nor FASTQ"),
    ({"queries": "q.fa", "targets": "none.fa"}, MissingInputError, "none.fa"),
    ({"count": 0}, ParameterError, "count is 0"),
    ({"length": 0}, ParameterError, "length is 0"),
])  # fmt: skip
def test_what_is_refused(given: dict[str, Any], error: type[Exception], told: str) -> None:
    pq.write_table(pa.table({"query": ["A"], "target": ["A"], "id": [1]}), "in.parquet")
    Path("junk.txt").write_text("junk")
    pq.write_table(pa.table({"query": ["A"], "target": ["A"], "score": [1]}), "score.parquet")
    Path("q.fa").write_text(">a\nAC\n>b\nAC\n")
    Path("short.fa").write_text(">a\nAC\n")
    with pytest.raises(error, match=told):
        grid.workload("genomics.pairs")(output="x.parquet", **given)


def test_a_matrix_that_there_is_none_of() -> None:
    with pytest.raises(MissingInputError, match="no matrix 'BLOSUM0'"):
        job.scoring_of(1, 2, 12, 1, "BLOSUM0")


def test_a_pair_too_long_for_its_path_is_named() -> None:
    """A million letters against 80,000 others: refused before a table of 8 * 80,000 * 1,000 bytes is made."""
    draw = np.random.default_rng(1)
    long, short = (draw.choice(np.frombuffer(b"ACGT", np.uint8), n).tobytes().decode() for n in (1_000_000, 80_000))
    pq.write_table(pa.table({"query": ["ACGT", short], "target": ["ACGT", long]}), "l.parquet")
    with pytest.raises(KernelError, match=r"row 0 of block 1 .*too long for a path"):
        carry(input="l.parquet", mode="local", output="l2.parquet", picture="none")


def test_no_pairs() -> None:
    pq.write_table(pa.table({"query": pa.array([], pa.string()), "target": pa.array([], pa.string())}), "e.parquet")
    assert carry(input="e.parquet", output="e2.parquet", picture="none").lines[-1] == "no pairs"
