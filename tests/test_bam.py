"""BAM: pysam reads every record as it was put in, samtools has no complaint, and what is killed leaves no half file."""

from __future__ import annotations

import collections
import hashlib
import itertools
import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pysam
import pytest
from fixtures_s3 import S3, s3, s3_endpoint  # noqa: F401
from gridcompute_workloads.mapping import pictures
from gridcompute_workloads.mapping.records import COLUMNS, UNPLACED, encode_records, records
from hypothesis import given, settings
from hypothesis import strategies as st
from interrupted import finish, load_job, start, write_job
from places import few

import gridcompute as grid
from gridcompute import axes, bai, bamcounts, lower
from gridcompute.collection import Collection
from gridcompute.columns import Block, Field, Ragged
from gridcompute.errors import CorruptInputError, DimensionError, OutputExistsError, ParameterError, StoreError
from gridcompute.sinks import bam as bams
from gridcompute.sinks.bam import BamOutput, BamSink, parsed_header
from gridcompute.spaces import Region, Space
from gridcompute.store import open_store

CONTIGS = (("chr1", 200_000), ("chr2", 50_000), ("empty", 1000), ("far", 2**29))
HEADER = "".join(f"@SQ\tSN:{name}\tLN:{length}\n" for name, length in CONTIGS) + "@RG\tID:one\tSM:sample\n"
OPERATIONS = "MIDNSHP=X"
KINDS = {"flag": "u2", "contig": "i4", "position": "i4", "mapq": "u1", "mate_contig": "i4", "mate_position": "i4",
         "template_length": "i4", "distance": "i4", "score": "i4", "second": "i4"}
COMPLEMENT = bytes.maketrans(b"ACGTUacgtuRYSWKMBDHVNrysw", b"TGCAATGCAAYRSWMKVHDBNYRSW")


def ragged(cells: list[Any], dtype: Any = np.uint8) -> tuple[Any, Any]:
    """As a kernel of chunks gets text and lists."""
    offsets = np.cumsum([0, *(len(cell) for cell in cells)])
    return offsets, np.concatenate([np.zeros(0, dtype), *(np.array(list(cell), dtype) for cell in cells)])


def encoded(reads: list[dict[str, Any]], group: bytes = b"one") -> tuple[Any, tuple[Any, Any]]:
    """Keys and records of reads."""
    texts = [ragged([read[name] for read in reads]) for name in ("name", "sequence", "quality")]
    cigar = ragged([[n << 4 | OPERATIONS.index(letter) for n, letter in read["cigar"]] for read in reads], np.uint32)
    numbers = [np.array([read[name] for read in reads], kind) for name, kind in KINDS.items()]
    return encode_records(*texts, *numbers[:4], cigar, *numbers[4:], np.frombuffer(group, np.uint8))


def aligned(reads: list[dict[str, Any]]) -> Collection:
    """Reads as the columns that a mapper gives."""
    columns: dict[str, Any] = {name: np.array([read[name] for read in reads], kind) for name, kind in KINDS.items()}
    columns |= {name: [read[name].decode() for read in reads] for name in ("name", "sequence", "quality")}
    columns["cigar"] = [np.array([n << 4 | OPERATIONS.index(letter) for n, letter in read["cigar"]], np.uint32)
                        for read in reads]
    return grid.from_arrays(columns, dims="read")


def some_reads(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Reads of all kinds: both strands, indels, clipped, long introns, without a place or with its mate's."""
    draw = np.random.default_rng(seed)
    return [a_read(draw, i) for i in range(count)]


def a_read(draw: np.random.Generator, number: int) -> dict[str, Any]:
    kind = draw.integers(0, 10)
    length = int(draw.integers(0, 5)) if kind == 9 else int(draw.integers(20, 120))
    contig = int(draw.choice([0, 0, 1, 3]))
    position = int(draw.integers(0, CONTIGS[contig][1] - 10_000))
    flag = int(draw.integers(0, 2)) * 16 | 1 | int(draw.choice([64, 128]))
    cigar = [(length, "M")] if length else []
    if kind in (1, 2):
        cigar = [(3, "S"), (5, "M"), (2, "I"), (4, "D"), (length - 10, "="), *([(3, "H")] if kind == 2 else [])]
    elif kind == 3:
        cigar = [(10, "M"), (9_000, "N"), (length - 10, "X")]
    elif kind == 4:
        flag, cigar = flag & ~16 | 4, []
    if kind == 5:
        flag, cigar, contig, position = 4, [], -1, -1
    return {
        "name": b"read%d%s a comment" % (number, b"/1" if flag & 1 else b""), "flag": flag, "contig": contig,
        "sequence": bytes(draw.choice(list(b"ACGTNacgtnRYSW"), length).tolist()), "position": position,
        "quality": b"" if kind == 6 else bytes((draw.integers(0, 42, length) + 33).tolist()),
        "mapq": int(draw.integers(0, 61)), "cigar": cigar, "mate_contig": contig,
        "mate_position": position, "template_length": int(draw.integers(-500, 500)),
        "distance": int(draw.choice([0, 3, 300, 70_000])), "second": int(draw.choice([-1, 0, 40_000])),
        "score": int(draw.choice([-129, -3, 0, 200, 255, 256, 65_536])),
    }  # fmt: skip


def told(read: dict[str, Any]) -> dict[str, Any]:
    """What pysam should say of a read."""
    name = read["name"].split()[0]
    name = name[:-2] if read["flag"] & 1 and name[-2:] in (b"/1", b"/2") else name
    letters, quality = read["sequence"].upper(), [n - 33 for n in read["quality"]]
    if read["flag"] & 16:
        letters, quality = letters.translate(COMPLEMENT)[::-1], quality[::-1]
    tags = {"RG": "one"}
    if not read["flag"] & 4:
        tags |= {"NM": read["distance"], "AS": read["score"]} | ({"XS": read["second"]} if read["second"] >= 0 else {})
    return {
        "query_name": name.decode(), "flag": read["flag"], "reference_id": read["contig"],
        "reference_start": read["position"], "mapping_quality": read["mapq"],
        "cigartuples": [(OPERATIONS.index(letter), n) for n, letter in read["cigar"]] or None,
        "next_reference_id": read["mate_contig"], "next_reference_start": read["mate_position"],
        "template_length": read["template_length"], "query_sequence": letters.decode() or None,
        "query_qualities": quality or None, "tags": tags,
    }  # fmt: skip


def seen(path: Path | str, *region: Any) -> list[dict[str, Any]]:
    """What pysam says of the records of a file, or of those that its index finds for a region."""
    names = told(a_read(np.random.default_rng(0), 0)).keys() - {"tags"}
    with pysam.AlignmentFile(str(path), "rb") as file:
        found = file.fetch(*region) if region else file.fetch(until_eof=True)
        return [{name: _plain(getattr(one, name)) for name in names} | {"tags": dict(one.get_tags())} for one in found]


def _plain(value: Any) -> Any:
    return list(value) if value is not None and type(value).__name__ == "array" else value


def in_order(reads: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Reads as `samtools sort` would put them: stable by contig and position, strand last."""
    return sorted(reads, key=lambda r: (r["contig"] < 0, r["contig"], r["position"], r["flag"] & 16))


def table(reads: list[dict[str, Any]]) -> Collection:
    keys, (offsets, records) = encoded(reads)
    cells = [records[a:b] for a, b in itertools.pairwise(offsets.tolist())]
    return grid.from_arrays({"key": keys, "record": cells}, dims="read")


def written(reads: list[dict[str, Any]], folder: Path, name: str = "out.bam", **options: Any) -> Path:
    """The reads, sorted, through the public interface."""
    path = folder / name
    out = table(reads).sort("key").write(str(path), header=HEADER, **options)
    grid.run(out, store=folder / "work", executor="inline", quiet=True)
    return path


@pytest.fixture(scope="module")
def reads() -> list[dict[str, Any]]:
    return some_reads(3000)


@pytest.fixture(scope="module")
def bam(module_folder: Path, reads: list[dict[str, Any]]) -> Path:
    return written(reads, module_folder)


def test_every_record_comes_back(bam: Path, reads: list[dict[str, Any]]) -> None:
    assert seen(bam) == [told(read) for read in in_order(reads)]
    with pysam.AlignmentFile(str(bam), "rb") as file:
        assert file.header.to_dict()["HD"] == {"VN": "1.6", "SO": "coordinate"}
        assert tuple(zip(file.references, file.lengths, strict=True)) == CONTIGS
        assert file.check_index()
        assert file.mapped == sum(not read["flag"] & 4 for read in reads)
        assert file.nocoordinate == sum(read["contig"] < 0 for read in reads)


def test_from_a_mappers_columns(bam: Path, reads: list[dict[str, Any]], own_folder: Path) -> None:
    made = aligned(reads)[list(COLUMNS)].map(records, group=np.frombuffer(b"one", np.uint8))
    grid.run(made.sort("key").write("out.bam", header=HEADER), store="work", executor="inline", quiet=True)
    assert seen("out.bam") == seen(bam)


def test_nothing_else_stays(bam: Path) -> None:
    assert sorted(os.listdir(bam.parent)) == [".out.bam.gridcompute.json", "out.bam", "out.bam.bai", "state", "work"]


@settings(max_examples=few(60))
@given(contig=st.sampled_from([0, 1, 2, 3]), data=st.data())
def test_the_index_finds_what_a_scan_finds(bam: Path, contig: int, data: st.DataObject) -> None:
    name, length = CONTIGS[contig]
    edges = st.sampled_from([0, 16_383, 16_384, 131_072]).map(lambda place: place % length)
    start = data.draw(st.integers(0, length - 1) | edges)
    stop = data.draw(st.integers(start + 1, length) | st.just(start + 1))
    found = seen(bam, name, start, stop)
    with pysam.AlignmentFile(str(bam), "rb") as file:
        scanned = [one.query_name for one in file.fetch(until_eof=True) if one.reference_id == contig
                   and one.reference_start < stop and (one.reference_end or one.reference_start + 1) > start]
    assert [one["query_name"] for one in found] == scanned


@pytest.mark.skipif(shutil.which("samtools") is None, reason="samtools isn't installed, which checks BAM files")
def test_samtools_has_no_complaint(bam: Path, reads: list[dict[str, Any]], tmp_path: Path) -> None:
    def asked(*arguments: str) -> str:
        done = subprocess.run(["samtools", *arguments], capture_output=True, text=True, check=True)
        assert not done.stderr, done.stderr
        return done.stdout

    asked("quickcheck", "-v", str(bam))
    assert f"{len(reads)} + 0 in total" in asked("flagstat", str(bam))
    asked("index", "-b", str(bam), str(tmp_path / "theirs.bai"))
    own = asked("idxstats", str(bam))
    for region in ("chr1:5000-9000", "chr2", "far:1-300000000", "empty"):
        theirs = asked("view", "-X", str(bam), str(tmp_path / "theirs.bai"), region)
        assert asked("view", str(bam), region) == theirs
    shutil.copy(bam, tmp_path / "copy.bam")
    asked("index", str(tmp_path / "copy.bam"))
    assert asked("idxstats", str(tmp_path / "copy.bam")) == own


@pytest.mark.parametrize("count", [0, 1])
def test_few_reads(own_folder: Path, count: int) -> None:
    path = written(some_reads(count), own_folder) if count else own_folder / "out.bam"
    if not count:
        rows = table(some_reads(2))
        out = rows.filter(rows["key"] < -1).sort("key").write(str(path), header=HEADER)
        grid.run(out, store="work", executor="inline", quiet=True)
    assert seen(path) == [told(read) for read in some_reads(count)]
    with pysam.AlignmentFile(str(path), "rb") as file:
        assert list(file.fetch("chr1")) == [] or count


def test_the_bytes_dont_depend_on_how_it_was_run(
    bam: Path, reads: list[dict[str, Any]], own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = written(reads, own_folder, "again.bam")
    assert again.read_bytes() == bam.read_bytes()
    assert Path(f"{again}.bai").read_bytes() == Path(f"{bam}.bai").read_bytes()
    monkeypatch.setattr(axes, "LIGHT_FLOOR", 40_000)
    monkeypatch.setattr(lower, "BUCKET_BYTES", 60_000)  # other chunks, so other blocks
    parts = written(reads, own_folder, "parts.bam")
    assert seen(parts) == seen(bam)
    assert seen(parts, "chr1", 5_000, 50_000) == seen(bam, "chr1", 5_000, 50_000)


def test_equal_keys_go_over_several_parts(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(axes, "LIGHT_FLOOR", 40_000)
    monkeypatch.setattr(lower, "BUCKET_BYTES", 20_000)
    many = [{**read, "flag": 4, "contig": -1, "position": -1, "cigar": []} for read in some_reads(2000)]
    out = table(many).sort("key").write("out.bam", header=HEADER)
    run = grid.run(out, store="work", executor="inline", quiet=True)
    assert seen("out.bam") == [told(read) for read in many]
    events = [line for line in Path(run.record.journal).read_text().splitlines() if '"finalized"' in line]
    assert len(events) == 1


JOB = '''
import sys
sys.path[:0] = {paths!r}
from unittest import mock
import gridcompute as grid
from gridcompute import axes, lower
import test_bam

def run(folder, **options):
    out = test_bam.table(test_bam.some_reads(2000)).sort("key").write(f"{{folder}}/out.bam", header=test_bam.HEADER)
    with mock.patch.object(lower, "BUCKET_BYTES", 60_000), mock.patch.object(axes, "LIGHT_FLOOR", 40_000):
        return grid.run(out, store=f"{{folder}}/work", quiet=True, **options)
'''


@pytest.mark.faults
@pytest.mark.parametrize("kill", ["kept:2", "finalized"])
def test_killed_in_the_middle_and_resumed(module_folder: Path, kill: str) -> None:
    folder = write_job(module_folder / f"kill-{kill.replace(':', '')}", JOB.format(paths=sys.path))
    code, _, err = finish(start(folder, kill=kill))
    assert code == -9, err
    if kill != "finalized":
        assert not (folder / "out.bam").exists()
    assert load_job(folder).run(str(folder), executor="inline").state == "done"
    plain = write_job(module_folder / "plain", JOB.format(paths=sys.path))
    if not (plain / "out.bam").exists():
        load_job(plain).run(str(plain), executor="inline")
    for name in ("out.bam", "out.bam.bai"):
        assert (folder / name).read_bytes() == (plain / name).read_bytes()
    assert not list(folder.glob("*.partial-*"))


def test_a_run_that_has_its_output_does_nothing(own_folder: Path) -> None:
    path = written(some_reads(50), own_folder)
    before = path.stat().st_mtime_ns
    out = table(some_reads(50)).sort("key").write(str(path), header=HEADER)
    run = grid.run(out, store="elsewhere", executor="inline", quiet=True)
    assert run.state == "done"
    assert path.stat().st_mtime_ns == before


def test_what_is_there_stays_unless_it_may_be_replaced(own_folder: Path) -> None:
    path = own_folder / "out.bam"
    path.write_bytes(b"somebody's")
    with pytest.raises(OutputExistsError, match="exists already"):
        written(some_reads(5), own_folder)
    assert path.read_bytes() == b"somebody's"
    written(some_reads(5), own_folder, overwrite=True)
    assert len(seen(path)) == 5
    written(some_reads(7), own_folder, overwrite=True)
    assert len(seen(path)) == 7
    with pytest.raises(OutputExistsError, match="exists already"):
        written(some_reads(8), own_folder)
    (own_folder / "folder.bam").mkdir()
    (own_folder / "folder.bam" / "file").write_text("")
    with pytest.raises(OutputExistsError, match="exists already"):
        written(some_reads(5), own_folder, "folder.bam")


@pytest.mark.parametrize(("broken", "said"), [
    ("@SQ\tSN:a\n", "names no contig with its length"),
    ("@SQ\tSN:a b\tLN:5\n", "names no contig"),
    ("@SQ\tSN:a\tLN:9\n@SQ\tSN:a\tLN:9\n", "names the contig a twice"),
    (f"@SQ\tSN:a\tLN:{2**29 + 1}\n", "BAI holds 536,870,912"),
    ("@HD\tVN:1.6\tSO:queryname\n", "doesn't say SO:coordinate"),
    ("SN:a", "isn't a SAM header"),
])  # fmt: skip
def test_headers_that_are_refused(broken: str, said: str) -> None:
    with pytest.raises(ParameterError, match=said):
        BamSink("out.bam", header=broken)


def test_a_header_keeps_its_own_first_line() -> None:
    assert parsed_header("@HD\tVN:1.5\tSO:coordinate\n@CO\tx\n")[0] == "@HD\tVN:1.5\tSO:coordinate\n@CO\tx\n"


def test_rows_and_columns_that_are_refused(own_folder: Path) -> None:
    rows = table(some_reads(200))
    options: Any = {"store": "work", "executor": "inline", "quiet": True}
    with pytest.raises(ParameterError, match="rows aren't sorted"):
        grid.run(rows.write("unsorted.bam", header=HEADER), **options)
    with pytest.raises(ParameterError, match="no place for the column 'more'"):
        grid.run(rows.assign(more=rows["key"]).write("more.bam", header=HEADER), **options)
    with pytest.raises(ParameterError, match="a column 'record'"):
        grid.run(rows[["key"]].write("none.bam", header=HEADER), **options)
    with pytest.raises(ParameterError, match="the header names 1"):
        grid.run(rows.sort("key").write("few.bam", header="@SQ\tSN:chr1\tLN:200000\n"), **options)
    bent = grid.from_arrays({"key": np.arange(3), "record": [np.zeros(40, np.uint8)] * 3}, dims="read")
    with pytest.raises(ParameterError, match="isn't a BAM record"):
        grid.run(bent.write("bent.bam", header=HEADER), **options)
    with pytest.raises(ParameterError, match="there is no level 9"):
        rows.write("level.bam", header=HEADER, level=9)
    with pytest.raises(DimensionError, match="one dimension"):
        plane = grid.from_arrays({"record": np.zeros((2, 3))}, dims=("a", "b"))
        grid.run(plane.write("plane.bam", header=HEADER), **options)
    assert not list(own_folder.glob("*.bam"))


def test_parts_out_of_order_are_refused_in_the_end(own_folder: Path) -> None:
    first, second = (table(in_order(some_reads(20, seed))) for seed in (1, 2))
    with pytest.raises(ParameterError, match="rows aren't sorted"):
        out = grid.concat([first, second], dim="read").write("out.bam", header=HEADER)
        grid.run(out, store="work", executor="inline", quiet=True)
    assert not Path("out.bam").exists()


@pytest.mark.faults
def test_a_full_disk_leaves_no_file(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> bool:
        raise StoreError("writing 'out.bam' isn't possible, the disk is full", hint="make room")

    with monkeypatch.context() as patch, pytest.raises(StoreError, match="the disk is full"):
        patch.setattr(bams, "join", full)
        written(some_reads(50), own_folder)
    assert not Path("out.bam").exists()
    assert len(seen(written(some_reads(50), own_folder))) == 50


def test_bam_is_read_by_others(bam: Path) -> None:
    with pytest.raises(ParameterError, match="is a BAM file"):
        grid.open_result(bam)


def test_an_index_that_is_cut_off_is_told(own_folder: Path) -> None:
    with pytest.raises(CorruptInputError, match="is cut off"):
        bai.decoded(b"123", "part")


def test_a_cigar_of_many_operations(own_folder: Path) -> None:
    many = [(1, letter) for _ in range(20_000) for letter in "MIDX"]
    read = {**some_reads(1)[0], "flag": 0, "contig": 0, "position": 7, "cigar": many}
    letters = sum(n for n, letter in many if letter in "MIX")
    read |= {"sequence": b"A" * letters, "quality": b""}
    path = written([read], own_folder)
    assert seen(path) == [told(read)]
    assert [one["query_name"] for one in seen(path, "chr1", 50_000, 50_001)] == [told(read)["query_name"]]


@pytest.mark.parametrize(("change", "said"), [
    ({"name": b"n" * 255}, "more than 254 letters"), ({"quality": b"III", "sequence": b"AC"}, "another length"),
])  # fmt: skip
def test_reads_that_bam_cant_hold(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        encoded([{**some_reads(1)[0], **change}])


def test_names_without_letters_and_keys_of_no_place() -> None:
    read = {**some_reads(1)[0], "name": b" only a comment", "contig": -1}
    keys, (_, record) = encoded([read])
    assert keys.tolist() == [UNPLACED]
    assert record[12] == 2
    assert bytes(record[36:38]) == b"*\0"
    assert struct.unpack("<ii", bytes(record[4:12])) == (-1, -1)


PLAIN = """
import sys
sys.path[:0] = {paths!r}
import hashlib
import test_bam
keys, (offsets, records) = test_bam.encoded(test_bam.some_reads(40, 5))
print(hashlib.sha256(keys.tobytes() + offsets.tobytes() + records.tobytes()).hexdigest())
"""


def test_the_same_without_compiling() -> None:

    keys, (offsets, records) = encoded(some_reads(40, 5))
    own = hashlib.sha256(keys.tobytes() + offsets.tobytes() + records.tobytes()).hexdigest()
    done = subprocess.run([sys.executable, "-c", PLAIN.format(paths=sys.path)], capture_output=True, text=True,
                          env={**os.environ, "NUMBA_DISABLE_JIT": "1"}, check=False)
    assert done.stdout.strip() == own, done.stderr


def test_what_a_run_came_to(own_folder: Path, reads: list[dict[str, Any]]) -> None:
    pairs = [{**read, "flag": read["flag"] | 2, "template_length": 300 + i % 3 - 1} if i % 2 and not read["flag"] & 4
             else {**read, "template_length": -300} for i, read in enumerate(reads[:600])]
    lengths, names = [length for _, length in CONTIGS], [name for name, _ in CONTIGS]
    made = aligned(pairs)[list(COLUMNS)].map(records, group=np.zeros(0, np.uint8)).sort("key")
    grid.run(made.write("counts.bam", header=HEADER), store="work", executor="inline", quiet=True)
    counts = pictures.counts_of("counts.bam", names, lengths)
    mapped = [read for read in pairs if not read["flag"] & 4]
    spans = [max(1, sum(n for n, letter in read["cigar"] if letter in "MDN=X")) for read in mapped]
    assert (counts.reads, counts.having(0, 4)) == (600, len(mapped))
    assert counts.flags == dict(sorted(collections.Counter(read["flag"] for read in pairs).items()))
    assert counts.having(2, 4) == sum(read["flag"] & 2 == 2 for read in mapped) == counts.inserts.sum()
    assert counts.bases.sum() == sum(spans)
    assert counts.qualities.tolist() == np.bincount([read["mapq"] for read in mapped], minlength=256).tolist()
    starts, width = np.cumsum([0, *lengths]), bamcounts.stretch_width(lengths)
    middles = [starts[read["contig"]] + read["position"] + span // 2 for read, span in zip(mapped, spans, strict=True)]
    where = np.bincount(np.array(middles) // width, spans, len(counts.bases))
    assert counts.bases.tolist() == where.tolist()
    said = list(pictures.told(counts))
    assert said[0].startswith("600 reads: ")
    assert said[1].endswith("median insert size 300")
    path = pictures.draw(own_folder / "places.png", counts, names, "600 reads")
    assert path.read_bytes().startswith(b"\x89PNG")
    Path(".counts.bam.gridcompute.json").write_text("{}")
    with pytest.raises(StoreError, match="no counts beside it"):
        pictures.counts_of("counts.bam", names, lengths)


def test_a_picture_of_nothing(own_folder: Path) -> None:
    counts = bamcounts.Counts.of([], [100])
    assert list(pictures.told(counts)) == ["no reads"]
    assert pictures.draw(own_folder / "none.png", counts, ["one"], "nothing").exists()


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6), st.data())
def test_counts_add_up_and_come_back_from_json(cuts: list[int], data: st.DataObject) -> None:
    lengths, many = (700, 0, 5000), sum(cuts)
    draw = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    contig = draw.integers(-1, 3, many)
    columns = (draw.choice([0, 2, 4, 16, 83, 256, 2048], many), np.where(contig == 1, 0, contig),
               draw.integers(0, 600, many), draw.integers(0, 90, many), draw.integers(0, 61, many),
               draw.integers(-3000, 3000, many))
    at = np.cumsum([0, *cuts])
    parts = [bamcounts.counted(*(column[a:b] for column in columns), lengths) for a, b in itertools.pairwise(at)]
    once, together = bamcounts.Counts.of([bamcounts.counted(*columns, lengths)], lengths), bamcounts.Counts.of(parts,
                                                                                                             lengths)
    back = bamcounts.Counts.from_json(json.loads(json.dumps(together.to_json())))
    assert once.to_json() == together.to_json() == back.to_json()


@given(st.lists(st.integers(0, 20), min_size=1))
def test_medians_of_counts(values: list[int]) -> None:
    assert pictures.median(np.bincount(values)) == sorted(values)[(len(values) - 1) // 2]


def at_the_sink(url: str, reads: list[dict[str, Any]], **options: Any) -> BamOutput:
    """Reads in two parts, written by the sink alone."""
    _, (offsets, values) = encoded(in_order(reads))
    sink, space = BamSink(url, header=HEADER, storage_options=options), Space((("read", None),))
    output = sink.prepare(space, [Field("record", ("read",), np.dtype("u1"), "list")], [], [1], "ab" * 16)
    half, files = len(reads) // 2, []
    for number, cells in enumerate((slice(0, half), slice(half, len(reads)))):
        column = Ragged(offsets, values).sliced(cells.start, cells.stop)
        region = Region.of((number, number + 1))
        files += output.write_chunk(Block(region, {"record": column}, column.cells), region, (number,))
    assert all(output.verify(one) for one in files)
    assert not output.complete
    output.finalize(files)
    output.finalize(files)  # twice is fine
    assert output.complete
    return output


@pytest.mark.parametrize("kind", ["local", "memory", "s3"])
def test_on_every_store(kind: str, request: pytest.FixtureRequest, tmp_path: Path, reads: list[dict[str, Any]]) -> None:
    server = request.getfixturevalue("s3") if kind == "s3" else None
    folder = {"local": str(tmp_path), "memory": "memory://bam/deep", "s3": server.url if server else ""}[kind]
    output = at_the_sink(f"{folder}/out.bam", reads[:500], **(server.options if server else {}))
    store = output.sink.store()
    for name in ("copy.bam", "copy.bam.bai"):
        (tmp_path / name).write_bytes(store.get(name.replace("copy", "out")))
    assert seen(tmp_path / "copy.bam") == [told(read) for read in in_order(reads[:500])]
    assert len(seen(tmp_path / "copy.bam", "chr1")) == sum(read["contig"] == 0 for read in reads[:500])
    assert [name for name in store.list() if "partial" in name] == []
    with pytest.raises(OutputExistsError, match="exists already"):
        output.sink.prepare(output.target.space, output.target.fields, [], [1], "cd" * 16)
    output.discard()
    assert not output.complete
    assert output.sink.present() == []


@pytest.mark.faults
def test_an_upload_that_breaks_off_leaves_nothing(s3: S3) -> None:  # noqa: F811
    store = open_store(s3.url, **s3.options)
    with pytest.raises(RuntimeError, match="halfway"), store.writing("file") as file:  # type: ignore[attr-defined]
        file.write(b"x" * 2**20)
        raise RuntimeError("halfway")
    assert not store.exists("file")
