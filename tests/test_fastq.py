"""FASTQ: compiled parsing equals dnaio's, plain files are read where they lie, gzip ahead, and what can be wrong."""

from __future__ import annotations

import contextlib
import gzip
import http.server
import io
import os
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pysam
import pytest
import s3fs
from fixtures_s3 import S3, s3, s3_endpoint
from hypothesis import given, settings
from hypothesis import strategies as st
from places import code_cache, what_is_loaded_stays

import gridcompute as grid
from gridcompute.columns import Ragged
from gridcompute.errors import AlignmentError, CorruptInputError, GridError, MissingInputError, ParameterError
from gridcompute.sources import marks, parsing
from gridcompute.sources import reads as reading
from gridcompute.sources.blocks import Cut, recut
from gridcompute.sources.fastx import SequenceSource, open_sequences
from gridcompute.sources.inflating import Ahead
from gridcompute.sources.parsing import _plainly, reads_of
from gridcompute.sources.reads import COLUMNS, columns_of

__all__ = ["code_cache", "s3", "s3_endpoint", "what_is_loaded_stays"]

Rows = list[tuple[str, ...]]


def cells(columns: Any, names: Any = COLUMNS) -> Rows:
    texts = []
    for name in names:
        column = columns[name]
        assert isinstance(column, Ragged)
        texts.append([bytes(column.values[a:b]).decode() for a, b in
                      zip(column.offsets[:-1], column.offsets[1:], strict=True)])
    return list(zip(*texts, strict=True))


def outcome(pieces: Any) -> tuple[Rows, str]:
    """The rows that a reader gives, and its error."""
    rows: Rows = []
    try:
        for piece in pieces:
            rows += cells(columns_of([piece], COLUMNS))
    except CorruptInputError as error:
        return rows, str(error)
    return rows, ""


def rows_of(source: SequenceSource, part: int = 0) -> Rows:
    return [row for block in source.blocks(source.parts[part]) for row in cells(block, source.every)]


def fastq(count: int, seed: int = 1, low: int = 10, high: int = 30) -> bytes:
    draw = np.random.default_rng(seed)
    lengths = draw.integers(low, high, count)
    bases = np.frombuffer(b"ACGTN", np.uint8)[draw.integers(0, 5, lengths.sum())].tobytes()
    scores = draw.integers(33, 75, lengths.sum()).astype(np.uint8).tobytes()
    out, at = [], 0
    for i, n in enumerate(lengths.tolist()):
        out.append(b"@r%d x\n%b\n+\n%b\n" % (i, bases[at : at + n], scores[at : at + n]))
        at += n
    return b"".join(out)


# --- parsing ---

LINE = st.sampled_from(["\n", "\n", "\n", "\r\n"])
RECORD = st.builds(
    lambda name, pairs, again, ends: f"@{name}{ends[0]}{''.join(p[0] for p in pairs)}{ends[1]}"
                                     f"+{name if again else ''}{ends[2]}{''.join(p[1] for p in pairs)}{ends[3]}",
    st.text("ab@+ /1\t", max_size=6), st.lists(st.tuples(st.sampled_from("ACGTN@+"), st.sampled_from("@+I!~")),
                                              max_size=9),
    st.booleans(), st.tuples(LINE, LINE, LINE, LINE))
HARM = st.sampled_from([b"", b"\n", b"@", b"+", b"\r", b"A", b"\xff", b"\0"])


@settings(max_examples=150, deadline=None)
@given(st.lists(RECORD, max_size=8), st.integers(0, 3), st.lists(st.tuples(st.integers(0, 400), HARM), max_size=2),
       st.sampled_from([32, 100, 2**20]))
def test_compiled_parsing_is_dnaio_s(records: list[str], cut: int, harm: list[tuple[int, bytes]], piece: int) -> None:
    content = "".join(records).encode()
    content = content[: max(0, len(content) - cut)]
    for at, what in harm:
        content = content[:at] + what + content[at + 1 :]
    expected, why = outcome(_plainly("r.fq", "fastq", io.BytesIO(content), 0))
    held, reading.PIECE = reading.PIECE, piece
    try:
        scan = reading.FastqScan(io.BytesIO(content).readinto)
        rows, _ = outcome(iter(scan))
        rest, error = outcome(_plainly("r.fq", "fastq", io.BytesIO(scan.rest), scan.done)) if scan.rest else ([], "")
    finally:
        reading.PIECE = held
    assert bool(why) == bool(error)
    if why:  # dnaio gives rows in pieces, and looks further ahead than a record for letters that aren't ASCII
        assert (rows + rest)[: len(expected)] == expected
    else:
        assert rows == expected
        assert not rest
    if why and content.isascii():
        # It quotes what it hasn't taken, which may be more than a record.
        assert error.partition("final record was")[0] == why.partition("final record was")[0]


@pytest.mark.parametrize("size", [2**20 - 7, 2**20, 2**20 + 1, 3 * 2**20])
def test_long_reads_and_ends_of_pieces(tmp_path: Path, size: int) -> None:
    path = tmp_path / "r.fq"
    rows = [("a", "AC", "II"), ("long", "G" * size, "@" * size), ("b b", "", "")]
    path.write_text("".join(f"@{n}\n{s}\n+\n{q}\n" for n, s, q in rows))
    assert outcome(reads_of(str(path), "fastq", {})) == (rows, "")


@pytest.mark.parametrize(("content", "record", "line"), [
    (b"@a\nAC\n+\nII\n@b\nACG\n+\nII\n", 2, "line 8: Length of sequence and qualities differ"),
    (b"@a\nAC\n+\nII\n@b\nACG\n", 2, "line 7: Premature end of file"),
    (b"@a\nAC\n+\nII\n@b\nACG\nIII\n@c\n", 2, "line 7: Line expected to start with '+'"),
    (b"@a\nAC\n+\nII\n@b\nACG\n+c\nIII\n", 2, "descriptions don't match"),
    (b"@a\nAC\n+\nII\n>b\nACG\n", 2, "Premature end of file"),
    (b"@a\nAC\n+\nII\n\n@b\nA\n+\nI\n", 2, "line 5: Line expected to start with '@'"),
    (b"@a\nAC\n+\nII\n" * 99 + b"@b\xc3\xa9\nA\n+\nI\n", 100, "Non-ASCII characters"),
])  # fmt: skip
@pytest.mark.parametrize("packed", [False, True])
def test_what_is_broken_is_named(tmp_path: Path, content: bytes, record: int, line: str, packed: bool) -> None:
    path = tmp_path / "reads.fastq"
    path.write_bytes(gzip.compress(content) if packed else content)
    source = open_sequences(path)
    for blocks in (source.blocks, *([] if packed else [source.marks])):
        with pytest.raises(CorruptInputError) as caught:
            list(blocks(source.parts[0]))
        assert f"reads.fastq: record {record}: " in str(caught.value)
        assert line in str(caught.value)


@pytest.mark.parametrize(("name", "content", "error", "message"), [
    ("r.fq", bytes(range(128, 256)), CorruptInputError, "neither FASTA nor FASTQ"),
    ("r.fq", b"@" + bytes(range(256)) * 90, CorruptInputError, "record 1"),
    ("r.fq", b"CRAM\3\0" + bytes(90), CorruptInputError, "samtools view"),
    ("r.fq.gz", gzip.compress(fastq(9000))[:-2000], CorruptInputError, "record"),
    ("r.fq.gz", gzip.compress(fastq(9000))[:-8], CorruptInputError, r"record \d{4}"),
    ("r.fq.gz", gzip.compress(fastq(9)) + b"junk", CorruptInputError, "ended before"),
    ("r.fq.gz", b"\x1f\x8b\x08" + bytes(range(90)), CorruptInputError, "can't be decompressed"),
    ("folder/r.fq", b"", MissingInputError, "can't be read"),
])  # fmt: skip
def test_bad_files(tmp_path: Path, name: str, content: bytes, error: type[GridError], message: str) -> None:
    path = tmp_path / name
    if name.startswith("folder"):
        path.mkdir(parents=True)
    else:
        path.write_bytes(content)
    with pytest.raises(error, match=message) as caught:
        rows_of(open_sequences(path))
    assert caught.value.hint
    assert path.name in str(caught.value)


def test_empty_files_and_what_is_no_fault(tmp_path: Path) -> None:
    for content in (b"", gzip.compress(b"")):
        (tmp_path / "r.fq").write_bytes(content)
        source = open_sequences(tmp_path / "r.fq")
        assert rows_of(source) == []
        assert list(source.marks(source.parts[0])) == []
    (tmp_path / "r.fq").write_bytes(b"@a\r\nAC\r\n+\r\nII\r\n@a\nac\n+a\n@+\n@\n\n+\n\n@z\nG\n+\n@")
    assert rows_of(open_sequences(tmp_path / "r.fq")) == [
        ("a", "AC", "II"), ("a", "ac", "@+"), ("", "", ""), ("z", "G", "@")]


# --- gzip ---

@pytest.mark.parametrize("kind", ["one member", "many members", "bgzf", "padded"])
def test_kinds_of_gzip(tmp_path: Path, kind: str) -> None:
    content, path = fastq(20_000), tmp_path / "r.fq.gz"
    if kind == "bgzf":
        with pysam.BGZFile(str(path), "wb") as file:
            file.write(content)
    else:
        step = len(content) if kind != "many members" else 99_991
        packed = b"".join(gzip.compress(content[at : at + step], 1) for at in range(0, len(content), step))
        path.write_bytes(packed + bytes(512 if kind == "padded" else 0))
    (tmp_path / "r.fq").write_bytes(content)
    plain = open_sequences(tmp_path / "r.fq")
    assert rows_of(open_sequences(path)) == rows_of(plain)
    assert plain.located
    assert not open_sequences(path).located


class Failing(io.RawIOBase):
    """A file that breaks after some pieces."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces, self.asked = pieces, threading.Event()

    def read1(self, size: int = -1) -> bytes:
        self.asked.set()
        if not self.pieces:
            raise OSError("the disk is gone")
        return self.pieces.pop(0)


def test_reading_ahead_tells_of_an_error_after_all_that_was_read() -> None:
    with Ahead(Failing([b"ab", b"cd"])) as file:
        assert file.read(3) in (b"ab", b"abc")
        rest = b""
        with pytest.raises(OSError, match="the disk is gone"):
            while True:
                rest += file.read(1)
        assert rest.endswith(b"cd"[-1:])
        with pytest.raises(OSError, match="the disk is gone"):
            file.read(1)


def test_reading_ahead_ends_with_its_reader(tmp_path: Path) -> None:
    (tmp_path / "r.fq.gz").write_bytes(gzip.compress(fastq(300_000, 1, 40, 41), 1))
    before = threading.active_count()
    pieces = reads_of(str(tmp_path / "r.fq.gz"), "fastq", {})
    next(pieces)
    assert threading.active_count() == before + 1
    pieces.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
    endless = Failing([b"x"] * 1000)
    with Ahead(endless):
        assert endless.asked.wait(60)
    assert endless.pieces


# --- read where they lie ---

@grid.kernel("(n)->()")
def gc(read):  # type: ignore[no-untyped-def]
    count = 0
    for base in read:
        count += base == 71 or base == 67
    return count


def run_of(folder: Path, *outputs: Any) -> Any:
    return grid.run(*outputs, store=folder / "work", executor="inline", quiet=True)


def test_any_rows_of_any_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(marks, "BLOCK_ROWS", 500)
    monkeypatch.setattr(marks, "MARK_BYTES", 700)
    content = fastq(2_100, 3, 0, 60)
    (tmp_path / "r.fq").write_bytes(content[:-1])  # the last line has no end
    source = open_sequences(tmp_path / "r.fq")
    part, = source.parts
    every = rows_of(source)
    found = list(source.marks(part))
    assert [marks.rows_of(block) for block in found] == [500, 500, 500, 500, 100]
    assert found[0].rows > 20
    draw, first = np.random.default_rng(4), 0
    for block in found:
        rows = marks.rows_of(block)
        spans = [(0, rows), (rows - 1, rows), *(sorted(draw.integers(0, rows + 1, 2)) for _ in range(30))]
        for lo, hi in spans:
            if lo < hi:
                columns = source.read_rows(part, block, int(lo), int(hi), ("name", "quality"))
                assert list(columns) == ["name", "quality"]
                assert cells(columns, columns) == [(n, q) for n, _, q in every[first + lo : first + hi]]
        first += rows


def test_marks_cut_as_blocks_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for function in (Cut.__init__, recut):  # by bytes, which real blocks have too many of for a test
        monkeypatch.setattr(function, "__defaults__", (2**16, 100_000, *function.__defaults__[2:]))
    (tmp_path / "r.fq").write_bytes(fastq(150, 5, 350, 9_000))
    source = open_sequences(tmp_path / "r.fq")
    part, = source.parts
    assert [marks.rows_of(block) for block in source.marks(part)] == [block.rows for block in source.blocks(part)]
    assert len(list(source.marks(part))) > 2


def test_a_plain_file_spreads_and_isn_t_copied(tmp_path: Path) -> None:
    content = fastq(140_000, 6, 60, 120)
    (tmp_path / "r.fq").write_bytes(content)
    (tmp_path / "r.fq.gz").write_bytes(gzip.compress(content, 1))
    results, sizes = [], []
    for name in ("r.fq", "r.fq.gz"):
        run = run_of(tmp_path / name[-2:], grid.open_sequences(tmp_path / name)["sequence"].map(gc))
        results.append((run["gc"].to_numpy(), run.summary()["computed"]))
        kept = sorted(path.stat().st_size for path in (tmp_path / name[-2:] / "work").glob("shards/**/*.arrow"))
        sizes.append(kept[-1])
    np.testing.assert_array_equal(results[0][0], results[1][0])
    assert results[0][1] == results[1][1] >= 3 * 16  # chunks of three blocks, and the ingest
    lines = content.split(b"\n")[1::4]
    assert results[0][0].tolist() == [line.count(b"G") + line.count(b"C") for line in lines]
    plan = grid.plan(grid.open_sequences(tmp_path / "r.fq")["sequence"].map(gc), store=tmp_path / "none")
    assert "ingest r.fq" in plan.explain()


def test_resume_append_and_change(tmp_path: Path) -> None:
    def go() -> tuple[int, int, list[int]]:
        names = sorted(str(path) for path in tmp_path.glob("lane*.fq"))
        run = run_of(tmp_path, grid.open_sequences(names)["sequence"].map(gc))
        return run.summary()["computed"], run.summary()["reused"], run["gc"].to_numpy().tolist()

    (tmp_path / "lane0.fq").write_bytes(b"@a\nGC\n+\nII\n")
    (tmp_path / "lane1.fq").write_bytes(b"@a\nGCG\n+\nIII\n")
    assert go() == (4, 0, [2, 3])
    assert go() == (0, 4, [2, 3])
    (tmp_path / "lane2.fq").write_bytes(b"@a\nAAA\n+\nIII\n")
    assert go() == (2, 4, [2, 3, 0])
    # Other reads of the same length: the marks are alike, but not the file that they are of.
    (tmp_path / "new.fq").write_bytes(b"@a\nAAG\n+\nIII\n")
    os.replace(tmp_path / "new.fq", tmp_path / "lane1.fq")
    assert go() == (2, 4, [2, 1, 0])


def test_contents_tell_versions_where_inputs_are_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRIDCOMPUTE_VERIFY_INPUTS", "1")
    path = tmp_path / "r.fq"
    path.write_bytes(b"@a\nGCG\n+\nIII\n")
    status = path.stat()
    assert run_of(tmp_path, grid.open_sequences(path)["sequence"].map(gc))["gc"].to_numpy().tolist() == [3]
    path.write_bytes(b"@a\nGCA\n+\nIII\n")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    from gridcompute.sources import files

    files._hashes.clear()  # as in a new process
    assert run_of(tmp_path, grid.open_sequences(path)["sequence"].map(gc))["gc"].to_numpy().tolist() == [2]


@pytest.mark.faults
@pytest.mark.parametrize("how", ["grown", "shorter", "gone", "same size"])
def test_a_file_that_changes_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    path = tmp_path / "r.fq"
    path.write_bytes(fastq(50))
    plain = SequenceSource.read_rows

    def changed(self: SequenceSource, *args: Any) -> Any:
        content = fastq(50)
        if how == "gone":
            path.unlink()
        else:
            path.write_bytes({"grown": content * 2, "shorter": content[:700],
                              "same size": content.replace(b"A", b"G")}[how])
            os.utime(path, ns=(1, 1))
        return plain(self, *args)

    monkeypatch.setattr(SequenceSource, "read_rows", changed)
    with pytest.raises(GridError, match="no file" if how == "gone" else "changed since the reads were counted"):
        run_of(tmp_path, grid.open_sequences(path)["sequence"].map(gc))


def test_marks_that_lie_are_refused(tmp_path: Path) -> None:
    """What a hostile store says of places leads to no crash, nor to another file."""
    path = tmp_path / "r.fq"
    path.write_bytes(fastq(50))
    source = open_sequences(path)
    block, = source.marks(source.parts[0])
    start: Any = block["start"]
    for wrong in (-(2**62), 2**62, 5):
        for place in (0, -1):
            held = start.values[place]
            start.values[place] = wrong
            # Beyond an end of the file there is nothing; what is then whole is the right rows.
            with contextlib.suppress(CorruptInputError):
                assert cells(source.read_rows(source.parts[0], block, 0, 50, COLUMNS)) == rows_of(source)
            start.values[place] = held
    start.values[-1] = 5
    with pytest.raises(CorruptInputError, match="changed since"):
        source.read_rows(source.parts[0], block, 0, 50, COLUMNS)


def test_replay_makes_marks_anew(tmp_path: Path) -> None:
    from gridcompute.marked import MarkedSource
    from gridcompute.reading import Remade
    from gridcompute.stored import Entry, StoredSource

    kept = StoredSource("x", "y", (), grid.axes.Layout(()), [Entry("p", "d", 1)])
    over = Remade.of(MarkedSource.over(kept, open_sequences(_one(tmp_path)), (0,)), None, 0)  # type: ignore[arg-type]
    assert isinstance(over, MarkedSource)
    assert isinstance(over.marks, Remade)


def _one(folder: Path) -> Path:
    (folder / "r.fq").write_bytes(b"@a\nGC\n+\nII\n")
    return folder / "r.fq"


def test_without_the_compiler(tmp_path: Path) -> None:
    (tmp_path / "r.fq").write_bytes(fastq(300, 8).replace(b"+\n", b"+\r\n"))
    (tmp_path / "job.py").write_text(JOB)
    for plainly in ("0", "1"):
        own = {"GRIDCOMPUTE_STATE": str(tmp_path), "NUMBA_DISABLE_JIT": plainly}
        subprocess.run([sys.executable, "job.py", plainly], check=True, cwd=tmp_path, env={**os.environ, **own})
    one, other = (sorted((tmp_path / plainly).glob("shards/**/*.arrow")) for plainly in "01")
    assert [path.name for path in one] == [path.name for path in other] != []
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in other]


JOB = """
import sys
import gridcompute as grid
reads = grid.open_sequences("r.fq", interleaved=False)
grid.run(reads["sequence"], reads["quality"], store=sys.argv[1], executor="inline", quiet=True)
"""


# --- from elsewhere ---

def test_over_http(tmp_path: Path) -> None:
    content = fastq(500)
    (tmp_path / "r.fq").write_bytes(content)
    (tmp_path / "r.fq.gz").write_bytes(gzip.compress(content))
    serve = partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            for name in ("r.fq", "r.fq.gz"):
                source = open_sequences(f"http://127.0.0.1:{server.server_port}/{name}")
                assert not source.located
                assert rows_of(source) == rows_of(open_sequences(tmp_path / "r.fq"))
        finally:
            server.shutdown()


def test_on_s3(s3: S3, tmp_path: Path) -> None:
    content = fastq(500)
    (tmp_path / "r.fq").write_bytes(content)
    s3fs.S3FileSystem(**s3.options).pipe_file(s3.url + "/r.fq", content)
    source = open_sequences(s3.url + "/*.fq", storage_options=s3.options)
    assert not source.located
    assert rows_of(source) == rows_of(open_sequences(tmp_path / "r.fq"))


def test_arguments_that_can_t_be(tmp_path: Path) -> None:
    path = _one(tmp_path)
    (tmp_path / "r.fa").write_text(">a\nAC\n")
    with pytest.raises(ParameterError, match="columns= is for Parquet"):
        open_sequences(path, columns={"name": "id"})
    with pytest.raises(AlignmentError, match=r"r\.fa is FASTA, but .*r\.fq is FASTQ"):
        open_sequences([path, tmp_path / "r.fa"])
    with pytest.raises(MissingInputError, match="quality"):
        open_sequences(tmp_path / "r.fa").select(["quality"])
    assert parsing.read_between(str(path), 0, 11).text(0) == "a"
