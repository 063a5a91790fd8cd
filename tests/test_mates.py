"""Mates: two files, one file in which they follow each other, tables; and those that are out of step."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from places import code_cache, what_is_loaded_stays
from test_fastq import cells, rows_of, run_of

import gridcompute as grid
from gridcompute.errors import AlignmentError, CorruptInputError, GridError, MissingInputError, ParameterError
from gridcompute.sources import marks
from gridcompute.sources.fastx import open_sequences

__all__ = ["code_cache", "what_is_loaded_stays"]


def text(rows: list[tuple[str, str, str]]) -> bytes:
    return "".join(f"@{n}\n{s}\n+\n{q}\n" for n, s, q in rows).encode()


def fragments(count: int, seed: int = 1, most: int = 40) -> tuple[list[Any], list[Any]]:
    """First and second mates; names as sequencers of several ages write them."""
    draw = np.random.default_rng(seed)
    sides: tuple[list[Any], list[Any]] = ([], [])
    for i in range(count):
        for side, rows in enumerate(sides):
            letters = "".join("ACGT"[k] for k in draw.integers(0, 4, draw.integers(0, most)))
            name = (f"r{i}/{side + 1}", f"r{i} {side + 1}:N:0:AC", f"r{i}", f"r{i}/{side + 1}\tx")[i % 4]
            rows.append((name, letters, "I" * len(letters)))
    return sides


def woven(sides: tuple[list[Any], list[Any]]) -> list[Any]:
    return [row for pair in zip(*sides, strict=True) for row in pair]


@pytest.mark.parametrize("packed", [(False, False), (True, False), (True, True)])
def test_two_files(tmp_path: Path, packed: tuple[bool, bool]) -> None:
    sides = fragments(20_000)
    for name, rows, pack in zip(("a_1.fq", "a_2.fq"), sides, packed, strict=True):
        (tmp_path / name).write_bytes(gzip.compress(text(rows), 1) if pack else text(rows))
    source = open_sequences(tmp_path / "a_1.fq", mates=tmp_path / "a_2.fq")
    assert source.located == (not any(packed))
    assert rows_of(source) == woven(sides)
    assert source.objects(source.parts[0]) != open_sequences(tmp_path / "a_1.fq").objects(source.parts[0])


@pytest.mark.parametrize("two", [True, False])
def test_any_rows_where_they_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, two: bool) -> None:
    monkeypatch.setattr(marks, "BLOCK_ROWS", 300)
    monkeypatch.setattr(marks, "MARK_BYTES", 500)
    sides = fragments(1_000, 2)
    for name, rows in (("1.fq", sides[0]), ("2.fq", sides[1]), ("both.fq", woven(sides))):
        (tmp_path / name).write_bytes(text(rows))
    source = (open_sequences(tmp_path / "1.fq", mates=tmp_path / "2.fq") if two else
              open_sequences(tmp_path / "both.fq", interleaved=True))
    part, every, first = source.parts[0], woven(sides), 0
    draw = np.random.default_rng(3)
    for block in source.marks(part):
        rows = marks.rows_of(block)
        assert rows % 2 == 0
        for _ in range(30):
            lo, hi = sorted(draw.integers(0, rows + 1, 2).tolist())
            if lo < hi:
                columns = source.read_rows(part, block, lo, hi, ("name", "sequence", "quality"))
                assert cells(columns) == every[first + lo : first + hi]
        first += rows
    assert first == 2_000


@grid.kernel("(n)->()", batch=True, names=("side",), dtypes=("i8",))
def sides_of(names):  # type: ignore[no-untyped-def]
    """Whether a row is the first or the second of its chunk's pairs; a chunk of an odd number of rows has -1."""
    count = len(names[0]) - 1
    return np.arange(count) % 2 if count % 2 == 0 else np.full(count, -1)


@pytest.mark.parametrize("count", [3, 130, 40_001])
@pytest.mark.parametrize("kind", ["files", "packed", "interleaved", "table"])
def test_chunks_hold_whole_pairs(tmp_path: Path, kind: str, count: int) -> None:
    sides = fragments(count, 4, 9)
    if kind == "table":
        columns = {"name": [n for n, *_ in sides[0]]} | {
            name + mate: [row[i] for row in rows] for mate, rows in zip(("", "2"), sides, strict=True)
            for i, name in ((1, "sequence"), (2, "quality"))}
        pq.write_table(pa.table(columns), tmp_path / "r.parquet", row_group_size=7_777)
        reads = grid.open_sequences(tmp_path / "r.parquet")
    elif kind == "interleaved":
        (tmp_path / "r.fq").write_bytes(text(woven(sides)))
        reads = grid.open_sequences(tmp_path / "r.fq", interleaved=True)
    else:
        for name, rows in zip(("r_1.fq", "r_2.fq"), sides, strict=True):
            (tmp_path / name).write_bytes(gzip.compress(text(rows), 1) if kind == "packed" else text(rows))
        reads = grid.open_sequences(tmp_path / "r_1.fq", mates=tmp_path / "r_2.fq")
    run = run_of(tmp_path, reads["name"].map(sides_of), reads["sequence"])
    np.testing.assert_array_equal(run["side"].to_numpy(), np.arange(2 * count) % 2)
    assert run[1].to_arrow()["sequence"].to_pylist() == [row[1] for row in woven(sides)]
    assert run.summary()["computed"] > min(count, 16)


def test_lists_and_patterns_pair_up_in_order(tmp_path: Path) -> None:
    for lane in ("x", "y"):
        for mate in "12":
            (tmp_path / f"{lane}_{mate}.fq").write_bytes(text([(f"{lane}/{mate}", "AC" * int(mate), "II" * int(mate))]))
    for source in (open_sequences(str(tmp_path / "*_1.fq"), mates=str(tmp_path / "*_2.fq")),
                   open_sequences([tmp_path / "x_1.fq", tmp_path / "y_1.fq"],
                                  mates=[tmp_path / "x_2.fq", tmp_path / "y_2.fq"])):
        assert [row[0] for part in (0, 1) for row in rows_of(source, part)] == ["x/1", "x/2", "y/1", "y/2"]
    with pytest.raises(CorruptInputError, match="out of step"):
        rows_of(open_sequences([tmp_path / "x_1.fq"], mates=[tmp_path / "y_2.fq"]))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("at", [0, 1, 4_999, 30_000])
def test_mates_out_of_step(tmp_path: Path, packed: bool, at: int) -> None:
    sides = fragments(30_001, 5, 9)
    del sides[1][at]
    for name, rows in (("1.fq", sides[0]), ("2.fq", sides[1])):
        (tmp_path / name).write_bytes(gzip.compress(text(rows), 1) if packed else text(rows))
    source = open_sequences(tmp_path / "1.fq", mates=tmp_path / "2.fq")
    for blocks in (source.blocks, *([] if packed else [source.marks])):
        with pytest.raises(CorruptInputError) as caught:
            list(blocks(source.parts[0]))
        said = str(caught.value)
        assert "1.fq and " in said
        assert f"2.fq: record {at + 1}: " in said
        assert repr(sides[0][at][0]) in said
        assert (f"ends after {at:,} reads" if at == 30_000 else repr(sides[1][at][0])) in said
        assert caught.value.hint


@pytest.mark.parametrize(("rows", "message"), [
    ([("a/1", "A", "I"), ("a/2", "A", "I"), ("b/1", "A", "I")], r"record 3: 'b/1', the last one, has no mate"),
    ([("a/1", "A", "I")], r"record 1: 'a/1', the last one, has no mate"),
    ([("a", "A", "I"), ("a", "A", "I"), ("b x", "A", "I"), ("c x", "A", "I")],
     "records 3 and 4: mates are out of step: 'b x' and 'c x'"),
    ([("a/1", "A", "I"), ("ab/2", "A", "I")], "records 1 and 2: mates are out of step: 'a/1' and 'ab/2'"),
    ([("a/1", "A", "I"), ("a/3", "A", "I")], "records 1 and 2: mates are out of step"),
])  # fmt: skip
def test_interleaved_files_that_aren_t(tmp_path: Path, rows: list[Any], message: str) -> None:
    (tmp_path / "r.fq").write_bytes(text(rows))
    table = {name: [row[i] for row in rows] for i, name in enumerate(("name", "sequence", "quality"))}
    pq.write_table(pa.table(table), tmp_path / "r.parquet", row_group_size=1)
    for name in ("r.fq", "r.parquet"):
        assert rows_of(open_sequences(tmp_path / name)) == rows  # they are reads like others
        with pytest.raises(CorruptInputError, match=message):
            rows_of(open_sequences(tmp_path / name, interleaved=True))


def test_a_broken_record_among_mates(tmp_path: Path) -> None:
    sides = fragments(9, 6)
    (tmp_path / "1.fq").write_bytes(text(sides[0]))
    (tmp_path / "2.fq").write_bytes(text(sides[1])[:-1].rsplit(b"\n", 1)[0])
    (tmp_path / "r.fq").write_bytes(text(woven(sides)).rsplit(b"\n", 2)[0] + b"\n")
    with pytest.raises(CorruptInputError, match=r"2\.fq: record 9: .*Premature end"):
        rows_of(open_sequences(tmp_path / "1.fq", mates=tmp_path / "2.fq"))
    with pytest.raises(CorruptInputError, match=r"r\.fq: record 18: .*Premature end"):
        rows_of(open_sequences(tmp_path / "r.fq", interleaved=True))


def test_fasta_has_mates_too(tmp_path: Path) -> None:
    (tmp_path / "r.fa").write_text(">a/1\nAC\nGT\n>a/2\nG\n>b\nT\n>b\nC\n")
    assert rows_of(open_sequences(tmp_path / "r.fa", interleaved=True)) == [
        ("a/1", "ACGT"), ("a/2", "G"), ("b", "T"), ("b", "C")]


def test_arguments_that_can_t_be(tmp_path: Path) -> None:
    for name in ("1.fq", "2.fq", "3.fq"):
        (tmp_path / name).write_bytes(text([("a", "A", "I")]))
    one, two, three = (tmp_path / name for name in ("1.fq", "2.fq", "3.fq"))
    for error, message, paths, options in (
        (ParameterError, "not both", one, {"mates": two, "interleaved": True}),
        (AlignmentError, "2 files of reads, but 1 of their mates", [one, two], {"mates": three}),
        (ParameterError, "given twice", [one, one], {"mates": [two, three]}),
        (ParameterError, "among the reads and among their mates", one, {"mates": one}),
        (MissingInputError, "none.fq", one, {"mates": tmp_path / "none.fq"}),
    ):
        with pytest.raises(error, match=message) as caught:
            open_sequences(paths, **options)
        assert caught.value.hint


# --- tables ---

@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary(), pa.string_view()])
def test_tables(tmp_path: Path, kind: pa.DataType) -> None:
    rows = [("a b", "ACG", "III"), ("b", "", ""), ("c", "T", None)]
    table = pa.table({name: pa.array([row[i] for row in rows], pa.string()).cast(kind)
                      for i, name in enumerate(("id", "bases", "quality"))}).append_column("n", pa.array([1, 2, 3]))
    pq.write_table(table, tmp_path / "r.parquet", row_group_size=2)
    names = {"name": "id", "sequence": "bases"}
    source = open_sequences(tmp_path / "r.parquet", columns=names)
    assert rows_of(source) == [(n, s, q or "") for n, s, q in rows]
    pq.write_table(table.drop_columns("quality"), tmp_path / "s.parquet")
    assert open_sequences(tmp_path / "s.parquet", columns=names).every == ("name", "sequence")
    with pytest.raises(AlignmentError, match=r"s\.parquet has the columns name, sequence, .*r\.parquet name"):
        open_sequences([tmp_path / "r.parquet", tmp_path / "s.parquet"], columns=names)


@pytest.mark.parametrize(("table", "options", "error", "message"), [
    ({"name": ["a"]}, {}, MissingInputError, "no column 'sequence' in"),
    ({"name": ["a"], "sequence": ["A"]}, {"columns": {"quality": "q"}}, MissingInputError, "no column 'q'"),
    ({"name": ["a"], "sequence": ["A"]}, {"columns": {"qual": "q"}}, ParameterError, "names 'qual'"),
    ({"name": [1], "sequence": ["A"]}, {}, ParameterError, "column 'name' of .* is int64"),
    ({"name": ["a", None], "sequence": ["A", "C"]}, {}, CorruptInputError, "row 1: the name is null"),
    ({"name": ["a"], "sequence": ["A"], "quality": ["I"], "sequence2": ["C"]}, {}, ParameterError, "one mate only"),
    ({"name": ["a"], "sequence": [b"\xff"]}, {}, CorruptInputError, "after row 0"),
])  # fmt: skip
def test_tables_that_aren_t_reads(tmp_path: Path, table: Any, options: Any, error: type[GridError],
                                  message: str) -> None:
    pq.write_table(pa.table(table), tmp_path / "r.parquet")
    with pytest.raises(error, match=message) as caught:
        rows_of(open_sequences(tmp_path / "r.parquet", **options))
    assert caught.value.hint


def test_a_broken_table(tmp_path: Path) -> None:
    pq.write_table(pa.table({"name": ["a"] * 9, "sequence": ["A"] * 9}), tmp_path / "r.parquet", compression="none",
                   use_dictionary=False, write_page_checksum=True)
    content = (tmp_path / "r.parquet").read_bytes()
    at = content.index(b"\1\0\0\0A")
    for broken in (content[:-9], content[: at + 4] + b"C" + content[at + 5 :]):
        (tmp_path / "r.parquet").write_bytes(broken)
        with pytest.raises(CorruptInputError, match=r"r\.parquet"):
            rows_of(open_sequences(tmp_path / "r.parquet"))
