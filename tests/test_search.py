"""A query against a database equals it against each target; genomics.search, its E-values, and what it refuses."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_scores import PROTEIN, column, relatives, times

import gridcompute as grid
from gridcompute import alignment
from gridcompute.alignment import significance
from gridcompute.errors import CorruptInputError, DimensionError, MissingInputError, ParameterError
from gridcompute.sources.fastx import read_reference

parasail = pytest.importorskip("parasail")
search = pytest.importorskip("gridcompute_workloads.search")
proteins = pytest.importorskip("gridcompute_workloads.proteins")

pytestmark = pytest.mark.usefixtures("own_folder")

SCORINGS = {"blosum62": alignment.matrix(), "words": times(12, 144, 12), "wide": times(4000, 48_000, 4000),
            "dna": alignment.simple(2, 3, 5, 2)}


# --- one against many ---


@pytest.mark.parametrize("name", SCORINGS)
@given(seed=st.integers(0, 2**32), longest=st.sampled_from((3, 40, 300)), count=st.integers(0, 200))
@settings(max_examples=6)
def test_a_search_equals_pairs(name: str, seed: int, longest: int, count: int) -> None:
    letters = np.frombuffer(b"ACGTN", np.uint8) if name == "dna" else PROTEIN
    draw = np.random.default_rng(seed)
    targets = relatives(draw, letters, longest, count)[1]
    laid = alignment.database(column(targets), SCORINGS[name])
    for query in [*relatives(draw, letters, longest, 2)[0], *targets[:1], letters[:0]]:
        pairs = alignment.local_scores(column([query] * count), column(targets), SCORINGS[name])
        assert alignment.search_scores(query, laid).tolist() == pairs.tolist()


def test_long_targets_waste_no_lanes() -> None:
    """One of 35,000 letters and some of thousands among short ones: they share blocks with what fits beside them."""
    draw = np.random.default_rng(3)
    lengths = [35_000, 8000, 7900, *draw.integers(20, 600, 4000).tolist(), 0, 1]
    targets = [draw.choice(PROTEIN[:20], length) for length in lengths]
    query = targets[0][1000:5000]
    laid = alignment.database(column(targets), SCORINGS["blosum62"])
    assert len(laid.codes) < 2.2 * sum(lengths)  # 64 * 35,000 letters alone would be 1.8 times as many
    assert sorted(laid.numbers.tolist()) == [i for i, length in enumerate(lengths) if length]
    found = alignment.search_scores(query, laid)
    assert found.tolist() == alignment.local_scores(column([query] * len(targets)), column(targets),
                                                    SCORINGS["blosum62"]).tolist()
    assert found[0] > 16_000
    assert alignment.search_scores(targets[0], laid)[0] > 2**17  # beyond two bytes


def test_real_proteins_equal_parasail(data_dir: Path) -> None:
    _, offsets, letters = read_reference(str(data_dir / "genomics" / "DB.fasta.gz"))
    _, query_at, queries = read_reference(str(data_dir / "genomics" / "QUERY.fasta.gz"))
    laid = alignment.database((offsets, letters), SCORINGS["blosum62"])
    own = np.where(np.isin(np.arange(256), PROTEIN), np.arange(256), ord("X")).astype(np.uint8)
    own[ord("U")] = ord("C")
    for i in (0, 17):
        query = queries[query_at[i] : query_at[i + 1]]
        found = alignment.search_scores(query, laid)
        profile = parasail.profile_create_sat(own[query].tobytes().decode(), parasail.blosum62)
        for j in range(i, len(found), 19):
            target = own[letters[offsets[j] : offsets[j + 1]]].tobytes().decode()
            assert found[j] == parasail.sw_striped_profile_sat(profile, target, 12, 1).score


def test_what_no_database_holds() -> None:
    none = alignment.database(column([PROTEIN[:0]]), SCORINGS["blosum62"])
    assert alignment.search_scores(PROTEIN, none).tolist() == [0]
    letters = "".join(map(chr, range(33, 65)))
    with pytest.raises(ParameterError, match="34 letters"):
        alignment.database(column([]), alignment.simple(letters=letters))


def test_without_the_compiler(tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(JOB)
    said = [subprocess.run([sys.executable, "job.py"], check=True, cwd=tmp_path, capture_output=True, text=True,
                           env={**os.environ, "NUMBA_DISABLE_JIT": plainly}).stdout for plainly in "01"]
    assert said[0] == said[1]
    assert len(said[0].splitlines()) == 3


JOB = """
import numpy as np
from gridcompute import alignment

draw = np.random.default_rng(1)
targets = [draw.choice(np.frombuffer(b"ARND", np.uint8), n) for n in (3, 40, 0, 9, 9)]
column = np.cumsum([0, *map(len, targets)]), np.concatenate(targets)
for by in (1, 90, 7000):
    table = alignment.matrices.published("BLOSUM62") * by
    scoring = alignment.matrix((alignment.published.LETTERS, table), 12 * by, by)
    print(alignment.search_scores(targets[1], alignment.database(column, scoring)).tolist())
"""


# --- E-values ---


def test_e_values_are_blasts() -> None:
    """What BLAST 2.12 says of searches among 9,055,569 letters in 20,000 sequences: the space, and E-values."""
    constants = significance.significance("blosum62", 12, 1)
    size = 9_055_569, 20_000
    for length, adjustment, space in ((57, 30, 228_300_363), (237, 94, 1_026_106_367), (371, 99, 1_924_554_768)):
        assert significance.length_adjustment(length, *size, constants) == adjustment
        assert (length - adjustment) * (size[0] - size[1] * adjustment) == space
    assert significance.expected(308, 57, *size, constants) == pytest.approx(1.81e-29, rel=3e-3)
    assert significance.expected(511, 237, *size, constants) == pytest.approx(2.34e-52, rel=3e-3)
    assert significance.expected(55, 57, *size, constants) == pytest.approx(3.9, abs=0.05)
    assert significance.bit_score(308, constants) == pytest.approx(123.2, abs=0.1)
    for length, letters, sequences in ((1, 1, 1), (5, 10, 10), (0, 0, 0)):  # hardly anything: no adjustment, no error
        assert significance.length_adjustment(length, letters, sequences, constants) == 0


def test_costs_without_constants() -> None:
    with pytest.raises(ParameterError, match="BLOSUM62 with gap costs 5/1") as error:
        significance.significance("blosum62", 5, 1)
    assert "12/1" in error.value.hint
    with pytest.raises(ParameterError, match="the matrix 'mine'"):
        significance.significance("mine", 12, 1)


# --- rows of whole dimensions, which the workload explodes ---


@grid.kernel("(rank),(n)->(k),(k)", names=("value", "letters"))
def upwards(values, text):  # type: ignore[no-untyped-def]
    kept = values[values > 0]
    return kept, np.full(len(kept), len(text))


def test_rows_of_a_whole_dimension() -> None:
    table = grid.from_arrays({"v": np.array([[1, -1, 2], [0, 0, 0], [3, 4, 5]])}, dims=("row", "rank"))
    named = grid.from_arrays({"text": ["a", "bb", "ccc"]}, dims="row").assign(v=table["v"])
    run = grid.run(named.explode(upwards, on=["v", "text"], keep=["text"], dim="hit"), executor="inline", quiet=True)
    assert run["value"].to_numpy().tolist() == [1, 2, 3, 4, 5]
    assert run["letters"].to_numpy().tolist() == [1, 1, 3, 3, 3]
    assert run["text"].to_arrow()["text"].to_pylist() == ["a", "a", "ccc", "ccc", "ccc"]
    with pytest.raises(DimensionError, match="explode works on rows"):
        table.explode(grid.kernel("()->(k)")(lambda v: np.full(2, v)))
    with pytest.raises(DimensionError, match="explode works on rows"):
        table.explode(grid.kernel("(row)->(k)")(lambda v: v))


# --- genomics.search ---


def carry(**given: Any) -> Any:
    job = search.search(**given)
    run = grid.run(*job.outputs, executor="inline", quiet=True)
    return job, list(job.finish(run))


def rows_of(path: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = grid.open_result(path).to_table().to_pandas().to_dict("records")
    return found


def write(path: str, *records: tuple[str, bytes]) -> None:
    text = b"".join(b">%s\n%s\n" % (name.encode(), letters) for name, letters in records)
    Path(path).write_bytes(gzip.compress(text) if path.endswith(".gz") else text)


def test_planted_copies_are_found() -> None:
    job, said = carry(count=400, top=7)
    assert "hits of 4 queries" in said[0]
    assert Path(said[1]).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    rows = rows_of("hits.parquet")
    assert list(rows[0]) == ["query", "target", "rank", "score", "bits", "evalue", "query_length", "target_length"]
    for query in dict.fromkeys(row["query"] for row in rows):
        own = [row for row in rows if row["query"] == query]
        planted = query.split("copies=")[1].split(",")
        assert [row["target"] for row in own[:2]] == planted[:2]
        assert [row["rank"] for row in own] == list(range(1, len(own) + 1))
        assert [row["evalue"] for row in own] == sorted(row["evalue"] for row in own)
        assert own[0]["evalue"] < 1e-20 < own[-1]["evalue"] <= 10
    assert any("generated, seed 1" in line for line in job.lines)


def test_chunks_and_parts_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, base = proteins.simulated(150, 3)
    for name, some in (("q.fa", asked), ("d.fa.gz", base)):
        write(name, *((title, some.letters[a:b].tobytes()) for title, a, b in
                      zip(some.names, some.offsets, some.offsets[1:], strict=False)))
    carry(queries="q.fa", database="d.fa.gz", output="one.parquet", picture="none", evalue=1e9, top=20)
    monkeypatch.setattr(search, "PART", 1000)
    carry(queries="q.fa", database="d.fa.gz", output="many.parquet", picture="none", evalue=1e9, top=20)
    one, many = rows_of("one.parquet"), rows_of("many.parquet")
    assert len(one) == 20
    assert one == many
    letters = [base.letters[a:b] for a, b in zip(base.offsets, base.offsets[1:], strict=False)]
    scores = alignment.search_scores(asked.letters, alignment.database(column(letters), alignment.matrix()))
    best = sorted(range(150), key=lambda i: (-scores[i], i))[:20]
    assert [(row["target"], row["score"]) for row in one] == [(base.names[i], scores[i]) for i in best]


def test_odd_letters_and_names_and_empty_sequences() -> None:
    write("q.fa", ("stop", b"MKVLAAGIWW*HEQ"), ("empty", b""), ("odd", b"mkvlaagiwwjoxbz"), ("u", b"WUUUUUW"))
    write("d.fa", ("same", b"MKVLAAGIWW*HEQ"), ("same", b"MKVLAAGIWW*HEQ"), ("none", b""), ("c", b"WCCCCCW"))
    job, said = carry(queries="q.fa", database="d.fa", picture="none", evalue=1e6)
    assert "1 names occur more than once in the database" in job.lines
    assert "1 sequences of the database are empty and match nothing" in job.lines
    rows = [(row["query"], row["target"], row["rank"], row["score"]) for row in rows_of("hits.parquet")]
    assert rows[:2] == [("stop", "same", 1, 77), ("stop", "same", 2, 77)]
    assert ("u", "c", 1, 67) in rows
    assert not any(row[0] == "empty" or row[1] == "none" for row in rows)
    assert len(said) == 1


def test_scores_alone_and_no_hits() -> None:
    Path("my.mat").write_text("  A C\nA 2 -9\nC -9 2\n")
    write("q.fa", ("a", b"AAAA"), ("g", b"GGGG"))
    write("d.fa", ("one", b"CAAC"))
    given_ = {"queries": "q.fa", "database": "d.fa", "matrix": "my.mat"}
    with pytest.raises(ParameterError, match="no constants of E-values") as error:
        search.search(**given_)
    assert "--evalues none" in error.value.hint
    _, said = carry(**given_, evalues="none", output="s.parquet")
    assert Path(said[1]).exists()
    assert rows_of("s.parquet") == [{"query": "a", "target": "one", "rank": 1, "score": 4, "query_length": 4,
                                     "target_length": 4}]
    write("q.fa", ("g", b"GGGG"))
    _, said = carry(**given_, evalues="none", output="n.parquet")
    assert said[0] == "no hits"
    Path("none.fa").write_text("")
    _, said = carry(queries="none.fa", database="d.fa", output="e.parquet")
    assert said[0] == "no hits"


def test_what_it_refuses() -> None:
    write("d.fa", ("one", b"MKVLAAGIWW"))
    write("dna.fa", ("chromosome", b"ACGTTGCANN" * 30))
    write("empty.fa", ("one", b""), ("two", b""))
    Path("nothing.fa").write_text("")
    Path("text.fa").write_text("not a sequence")
    for given_, told in (
        ({"database": "dna.fa"}, r"dna.fa holds no proteins: 100.0 %"),
        ({"queries": "dna.fa", "database": "d.fa"}, "dna.fa holds no proteins"),
        ({"gap_open": 5}, "gap costs 5/1"), ({"evalues": "some"}, "evalues is 'some'"), ({"top": 0}, "top is 0"),
        ({"evalue": 0.0}, "evalue is 0"), ({"count": 3}, "count is 3"), ({"seed": -1}, "seed is -1"),
        ({"gap_extend": 20}, "gap_extend is 20"), ({"picture": "a.pdf"}, "isn't a .png"),
    ):  # fmt: skip
        with pytest.raises(ParameterError, match=told):
            search.search(**given_)
    for path, told in (("empty.fa", "no letters"), ("nothing.fa", "no sequence"), ("text.fa", "neither FASTA nor")):
        with pytest.raises(CorruptInputError, match=told):
            search.search(database=path)
    for given_ in ({"database": "nowhere.fa"}, {"queries": "nowhere.fa"}, {"matrix": "BLOSUM63"}):
        with pytest.raises(MissingInputError):
            search.search(**given_)
    Path("nuc.mat").write_text("  A C G T\nA 5 -4 -4 -4\nC -4 5 -4 -4\nG -4 -4 5 -4\nT -4 -4 -4 5\n")
    carry(database="dna.fa", queries="dna.fa", matrix="nuc.mat", evalues="none")  # bases, as their matrix says
    assert rows_of("hits.parquet")[0]["score"] == 240 * 5 - 29 * 8  # N, which the matrix lacks, costs the least


def test_generated_proteins_depend_on_the_seed_only() -> None:
    one, other = proteins.simulated(50, 1)[1], proteins.simulated(50, 2)[1]
    assert (one.letters == proteins.simulated(50, 1)[1].letters).all()
    assert one.letters.tobytes() != other.letters.tobytes()
    assert sum(proteins.BACKGROUND.values()) == 100_000
