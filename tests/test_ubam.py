"""BAM as reads: as pysam has them, mates by their flags, and files that are broken."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pysam
import pytest
from places import code_cache, what_is_loaded_stays
from test_fastq import Rows, outcome, rows_of

from gridcompute.errors import AlignmentError, CorruptInputError, ParameterError
from gridcompute.sources import bam, reads
from gridcompute.sources.fastx import open_sequences

__all__ = ["code_cache", "what_is_loaded_stays"]

HEADER = {"HD": {"VN": "1.6"}, "SQ": [{"SN": f"chr{i}", "LN": 10_000} for i in range(3)], "CO": ["x" * 3000]}


def written(path: Path, count: int = 300, seed: int = 1, paired: bool = False, most: int = 200) -> Path:
    """A BAM of random records: some unaligned, reverse, secondary, without qualities or bases, with tags."""
    draw = np.random.default_rng(seed)
    with pysam.AlignmentFile(str(path), "wb", header=HEADER) as file:
        for i in range(count):
            record = pysam.AlignedSegment(file.header)
            record.query_name = f"r{i // 2 if paired else i}"
            record.flag = (0x4D, 0x8D)[i % 2] if paired else int(draw.choice([4, 0, 16, 256, 2048 + 16, 512]))
            length = int(draw.integers(0, most))
            record.query_sequence = "".join("=ACMGRSVTWYHKDBN"[k] for k in draw.integers(0, 16, length))
            if draw.random() < 0.8:
                record.query_qualities = pysam.qualitystring_to_array("".join(
                    chr(k) for k in draw.integers(33, 127, length)))
            if not record.flag & 4 and length:
                record.reference_id, record.reference_start, record.cigartuples = 1, 5, [(0, length)]
            record.set_tag("XX", "y" * int(draw.integers(0, 9)))
            file.write(record)
    return path


def expected(path: Path) -> Rows:
    rows: Rows = []
    with pysam.AlignmentFile(str(path), "rb", check_sq=False) as file:
        for record in file.fetch(until_eof=True):
            if not record.flag & 0x900:
                scores = None if record.query_qualities is None else record.get_forward_qualities()
                text = "" if scores is None else pysam.qualities_to_qualitystring(scores)
                rows.append((record.query_name, record.get_forward_sequence() or "", text or ""))
    return rows


@pytest.mark.parametrize(("seed", "most"), [(1, 200), (2, 3), (3, 20_000)])
def test_reads_are_pysam_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, most: int) -> None:
    path = written(tmp_path / "r.bam", 300, seed, most=most)
    rows = expected(path)
    source = open_sequences(path)
    assert [f.name for f in source.fields] == ["name", "sequence", "quality"]
    assert not source.located
    assert len(rows) > 100
    assert rows_of(source) == rows
    monkeypatch.setattr(bam, "PIECE", 100)  # records over the ends of pieces, and longer than one
    assert rows_of(source) == rows


def test_no_records(tmp_path: Path) -> None:
    source = open_sequences(written(tmp_path / "r.bam", 0))
    assert source.form == "bam"
    assert rows_of(source) == []


def test_as_samtools_makes_it_of_fastq(tmp_path: Path) -> None:
    (tmp_path / "r.fq").write_text("".join(f"@r{i}\n{'ACGTN' * (i % 7)}\n+\n{'5I!~J' * (i % 7)}\n" for i in range(500)))
    pysam.samtools.fqimport("-0", str(tmp_path / "r.fq"), "-o", str(tmp_path / "r.bam"))  # type: ignore[attr-defined]
    rows = rows_of(open_sequences(tmp_path / "r.bam"))
    assert rows == rows_of(open_sequences(tmp_path / "r.fq"))


def test_mates(tmp_path: Path) -> None:
    path = written(tmp_path / "r.bam", 40, paired=True)
    assert rows_of(open_sequences(path, interleaved=True)) == expected(path)
    with pytest.raises(ParameterError, match="mates= is for FASTA and FASTQ") as caught:
        open_sequences(path, mates=written(tmp_path / "s.bam", 4))
    assert "interleaved=True" in caught.value.hint


def records(path: Path) -> tuple[bytes, list[bytes]]:
    """The inflated header and records of a BAM file."""
    content = gzip.decompress(path.read_bytes())
    at = 8 + int.from_bytes(content[4:8], "little")
    count, at = int.from_bytes(content[at : at + 4], "little"), at + 4
    for _ in range(count):
        at += 8 + int.from_bytes(content[at : at + 4], "little")
    found, head = [], content[:at]
    while at < len(content):
        end = at + 4 + int.from_bytes(content[at : at + 4], "little")
        found.append(content[at:end])
        at = end
    return head, found


def packed(path: Path, content: bytes, *, end: bool = True) -> Path:
    with pysam.BGZFile(str(path), "wb") as file:
        file.write(content)
    if not end:
        path.write_bytes(path.read_bytes().removesuffix(bam.END))
    return path


def test_mates_out_of_step(tmp_path: Path) -> None:
    head, found = records(written(tmp_path / "r.bam", 40, paired=True))
    for wrong, message in (
        ([*found[:6], found[7], found[6], *found[8:]], r"record 7: .*it isn't a first mate \(flags 0x8d\)"),
        ([*found[:5], *found[6:]], "record 6: .*it isn't a second mate"),
        ([*found[:5], found[7], found[6], found[5], *found[8:]], "records 5 and 6: mates are out of step: 'r2' and"),
        (found[:-1], "record 39: 'r19', the last one, has no mate"),
    ):
        source = open_sequences(packed(tmp_path / "w.bam", head + b"".join(wrong)), interleaved=True)
        with pytest.raises(CorruptInputError, match=message) as caught:
            rows_of(source)
        assert caught.value.hint
        assert "w.bam" in str(caught.value)


def test_a_file_that_was_cut_off(tmp_path: Path) -> None:
    path = written(tmp_path / "r.bam", 2_000, most=300)
    content, whole = path.read_bytes(), expected(path)
    for size in (40, 300):
        (tmp_path / "cut.bam").write_bytes(content[:size])
        with pytest.raises(CorruptInputError, match=r"cut\.bam: can't be decompressed"):
            open_sequences(tmp_path / "cut.bam")
    for size in (len(content) // 2, len(content) - 29):
        (tmp_path / "cut.bam").write_bytes(content[:size])
        with pytest.warns(UserWarning, match=r"cut\.bam doesn't end with the block"):
            source = open_sequences(tmp_path / "cut.bam")
        with pytest.raises(CorruptInputError, match=r"cut\.bam: record \d+: "):
            rows_of(source)
    # Between two blocks nothing else tells: all that is there is read, with a warning as of samtools.
    (tmp_path / "cut.bam").write_bytes(content.removesuffix(bam.END))
    with pytest.warns(UserWarning, match="reads may be missing"):
        source = open_sequences(tmp_path / "cut.bam")
    assert rows_of(source) == whole
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_sequences(path)


def test_records_that_aren_t(tmp_path: Path) -> None:
    head, found = records(written(tmp_path / "r.bam", 9, most=30))
    good = found[0]

    def at(place: int, *values: int) -> bytes:
        return good[:place] + bytes(values) + good[place + len(values) :]

    for wrong in (at(0, 5, 0, 0, 0), at(0, 0, 0, 0, 128), at(0, *b"\xff\xff\xff\xff"), at(12, 0), at(12, 255),
                  at(16, 255, 255), at(20, 0, 0, 0, 64), at(20, 255, 255, 255, 255), at(35 + good[12], 65)):
        path = packed(tmp_path / "w.bam", head + found[1] + found[2] + wrong + b"".join(found[3:]))
        with pytest.raises(CorruptInputError, match=r"w\.bam: record 3: "):
            rows_of(open_sequences(path))


@pytest.mark.parametrize(("content", "message"), [
    (b"BAM\1", "its header: the file ends"), (b"BAM\1\xff\xff\xff\xff", "its header: a length is -1"),
    (b"BAM\1\xff\xff\xff\x7f" + bytes(99), "its header: the file ends"),
    (b"BAM\1" + bytes(4) + b"\1\0\0\0\xff\xff\xff\x7f", "its header: the file ends"),
    (b"BAM\1" + bytes(4) + b"\xff\xff\xff\x7f", "its header: the file ends"),
    (b"BAM\2" + bytes(99), "neither FASTA nor FASTQ"), (b"CRAM", "CRAM"),
])  # fmt: skip
def test_headers_that_aren_t(tmp_path: Path, content: bytes, message: str) -> None:
    path = packed(tmp_path / "w.bam", content)
    with pytest.raises(CorruptInputError, match=message):
        rows_of(open_sequences(path))


def test_one_format_at_a_time(tmp_path: Path) -> None:
    path = written(tmp_path / "r.bam", 3)
    (tmp_path / "r.fq").write_text("@a\nA\n+\nI\n")
    with pytest.raises(AlignmentError, match=r"r\.bam is BAM, but .*r\.fq is FASTQ"):
        open_sequences([path, tmp_path / "r.fq"])


def test_without_the_compiler(tmp_path: Path) -> None:
    path = written(tmp_path / "r.bam", 40, 4, most=30)
    (tmp_path / "job.py").write_text(JOB)
    subprocess.run([sys.executable, "job.py"], check=True, cwd=tmp_path, env={**os.environ, "NUMBA_DISABLE_JIT": "1"})
    rows = eval((tmp_path / "rows.txt").read_text())
    assert rows == expected(path) == outcome(bam.bam_reads(str(path), {}))[0]


JOB = """
from gridcompute.sources.bam import bam_reads
rows = [tuple(part.text(i, k) for k in range(3)) for part in bam_reads("r.bam", {}) for i in range(len(part))]
open("rows.txt", "w").write(repr(rows))
"""


def test_sizes_and_parts() -> None:
    """A run of reads that is cut and joined is the same run."""
    rows: Any = [("a", "AC", ""), ("bb", "", ""), ("", "T", "I")]
    from gridcompute.columns import Ragged

    whole = reads.Reads.of({name: Ragged.of([row[i].encode() for row in rows])
                            for i, name in enumerate(reads.COLUMNS)})
    again = reads.Reads.joined(whole.part(0, 1), whole.part(1, 3).copied())
    assert outcome([again]) == outcome([whole]) == (rows, "")
    assert whole.sizes.tolist() == again.sizes.tolist() == [27, 26, 26]
