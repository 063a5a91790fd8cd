"""`genomics.map`: reads in, BAM and tables out; against the places where reads are from, pysam and samtools."""

from __future__ import annotations

import gzip
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pysam
import pytest
from gridcompute_workloads import genomes
from gridcompute_workloads.mapping.header import sam_header

import gridcompute as grid
from gridcompute.errors import CorruptInputError, GridError, MissingInputError, ParameterError
from gridcompute.resuming import Carried, run_workload
from gridcompute.sequences import reverse_complement, simulate_pairs
from gridcompute.testing.chaos import Schedule, run_chaos

pytestmark = pytest.mark.usefixtures("own_folder")

LETTERS = np.frombuffer(b"ACGT", np.uint8)
CONTIGS = {"chr1": 30_000, "chr2": 8_000, "tiny": 40}


def carry(**given: Any) -> Carried:
    return run_workload("genomics.map", {"picture": "none", **given}, {"executor": "inline", "quiet": True})


def genome() -> dict[str, bytes]:
    draw = np.random.default_rng(11)
    return {name: bytes(draw.choice(LETTERS, length)) for name, length in CONTIGS.items()}


def fasta(path: str, contigs: dict[str, bytes]) -> str:
    Path(path).write_bytes(b"".join(b">%s some words\n%s\n" % (name.encode(), letters)
                                    for name, letters in contigs.items()))
    return path


def record(name: str, letters: bytes, quality: bytes = b"") -> bytes:
    return b"@%s\n%s\n+\n%s\n" % (name.encode(), letters, quality or b"I" * len(letters))


Pair = tuple[bytes, bytes, int, int]


def pairs(letters: bytes, count: int = 300, seed: int = 5) -> list[Pair]:
    """Letters of both mates, and their places."""
    drawn = simulate_pairs(np.frombuffer(letters, np.uint8), count, length=100, insert=(300.0, 30.0), seed=seed)
    cut = [drawn.values[a:b].tobytes() for a, b in zip(drawn.offsets[:-1], drawn.offsets[1:], strict=True)]
    at = drawn.position.tolist()
    return [(cut[2 * i], cut[2 * i + 1], at[2 * i], at[2 * i + 1]) for i in range(count)]


@pytest.fixture
def two_files() -> list[Pair]:
    """genome.fa, and pairs of its longest contig in a.fq and b.fq."""
    contigs = genome()
    fasta("genome.fa", contigs)
    drawn = pairs(contigs["chr1"])
    Path("a.fq").write_bytes(b"".join(record(f"r{i}/1", one) for i, (one, *_) in enumerate(drawn)))
    Path("b.fq").write_bytes(b"".join(record(f"r{i}/2", two) for i, (_, two, *_) in enumerate(drawn)))
    return drawn


def lines(path: str) -> list[str]:
    """What a BAM file says of each read, without its header."""
    with pysam.AlignmentFile(path) as file:
        return [one.to_string() for one in file]


def samtools(*words: str) -> str:
    if shutil.which("samtools") is None:
        pytest.skip("samtools isn't installed: make servers")
    done = subprocess.run(["samtools", *words], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_default_is_a_whole_job() -> None:
    carried = carry(count=1000, picture="")
    assert carried.runs[0].state == "done"
    unsure = 0
    with pysam.AlignmentFile("mapped.bam") as file:
        assert file.header["HD"]["SO"] == "coordinate"
        for one in file:
            assert not one.is_unmapped
            assert one.is_proper_pair
            unsure += one.mapping_quality < 20
        assert file.mapped == 2000
    assert unsure < 60
    assert Path("mapped.bam.bai").exists()
    assert Path("mapped.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    shown = "\n".join(str(line) for line in carried.lines)
    assert "2,000 reads" in shown
    carry(count=1000, output="mapped.parquet")
    for row in pq.read_table("mapped.parquet").to_pylist():  # a name tells where its read is from
        contig, place, strand = row["name"].split()[1].split(":")
        assert row["mapq"] < 20 or (row["contig"], strand) == (contig, "-+"[not row["flag"] & 16])
        assert row["mapq"] < 20 or abs(row["position"] - int(place)) <= 12  # clipped or shifted by errors at its begin


def test_mates_of_two_files_come_to_their_places(two_files: list[Pair]) -> None:
    carry(reads="a.fq", mates="b.fq", reference="genome.fa", output="o.bam",
          read_group=r"@RG\tID:lane1\tSM:someone\tPL:ILLUMINA")
    samtools("quickcheck", "o.bam")
    assert "600 + 0 properly paired" in samtools("flagstat", "o.bam")
    with pysam.AlignmentFile("o.bam") as file:
        assert file.references == tuple(CONTIGS)
        assert file.header["RG"] == [{"ID": "lane1", "SM": "someone", "PL": "ILLUMINA"}]
        reads = list(file)
        assert [(one.reference_id, one.reference_start) for one in reads] == sorted(
            (one.reference_id, one.reference_start) for one in reads)
        for one in reads:
            number = int(one.query_name[1:])  # /1 and /2 are gone
            first, second, *places = two_files[number]
            place = places[one.is_read2]
            assert one.reference_name == "chr1"
            assert abs(one.reference_start - one.query_alignment_start - place) <= 3
            assert one.mapping_quality == 60
            assert one.get_tag("RG") == "lane1"
            letters = np.frombuffer(second if one.is_read2 else first, np.uint8)
            assert one.get_forward_sequence() == letters.tobytes().decode()
            stored = reverse_complement(letters) if one.is_reverse else letters
            assert one.query_sequence == bytes(stored).decode()
        found = [one.query_name for one in file.fetch("chr1", 1000, 2000)]
        assert sorted(found) == sorted(one.query_name for one in reads
                                       if one.reference_start < 2000 and one.reference_end > 1000)


def test_the_same_reads_in_any_form_give_the_same_records(two_files: list[Pair]) -> None:
    carry(reads="a.fq", mates="b.fq", reference="genome.fa", output="two.bam")
    want = lines("two.bam")
    both = [one for i, pair in enumerate(two_files) for one in (record(f"r{i}", pair[0]), record(f"r{i}", pair[1]))]
    with gzip.open("both.fq.gz", "wb") as file:
        file.writelines(both)
    carry(reads="both.fq.gz", interleaved=True, reference="genome.fa", output="gzip.bam")
    assert lines("gzip.bam") == want
    header = pysam.AlignmentHeader.from_dict({"HD": {"VN": "1.6"}})
    with pysam.AlignmentFile("u.bam", "wb", header=header) as file:
        for i, pair in enumerate(two_files):
            for mate in range(2):
                one = pysam.AlignedSegment(header)
                one.query_name, one.flag = f"r{i}", 77 if mate == 0 else 141
                one.query_sequence = pair[mate].decode()
                one.query_qualities = pysam.qualitystring_to_array("I" * len(pair[mate]))
                file.write(one)
    carry(reads="u.bam", interleaved=True, reference="genome.fa", output="u.mapped.bam")
    assert lines("u.mapped.bam") == want


def test_a_table_says_what_the_bam_file_says(two_files: list[Pair]) -> None:
    carry(reads="a.fq", mates="b.fq", reference="genome.fa", output="o.bam")
    carry(reads="a.fq", mates="b.fq", reference="genome.fa", output="o.parquet")
    rows = pq.read_table("o.parquet").to_pylist()
    assert [row["name"] for row in rows[:3]] == ["r0/1", "r0/2", "r1/1"]  # in the order of the input
    told = {(row["name"][:-2], bool(row["flag"] & 128)): row for row in rows}
    with pysam.AlignmentFile("o.bam") as file:
        for one in file:
            row = told[one.query_name, one.is_read2]
            said = [row[name] for name in ("flag", "contig", "position", "mapq", "mate_contig", "mate_position")]
            assert said == [one.flag, one.reference_name, one.reference_start, one.mapping_quality,
                            one.next_reference_name, one.next_reference_start]
            assert (row["template_length"], row["distance"], row["score"]) == (
                one.template_length, one.get_tag("NM"), one.get_tag("AS"))
            assert [(op & 15, op >> 4) for op in row["cigar"]] == one.cigartuples
    carry(reads="a.fq", mates="b.fq", reference="genome.fa", output="places.parquet", cigar=False)
    places = pq.read_table("places.parquet")
    assert "cigar" not in places.column_names
    assert places["position"].to_pylist() == [row["position"] for row in rows]


def test_odd_reads_are_kept_in_their_place() -> None:
    contigs = genome()
    fasta("genome.fa", contigs)
    good = contigs["chr1"][5000:5150]
    odd = {"good": good, "lower": good.lower(), "empty": b"", "n": b"N" * 150, "short": good[:10], "one": b"A",
           "iupac": good[:70] + b"R" + good[71:], "long": good * 8_000, "good2": good,
           "few n": good[:60] + b"NNN" + good[63:]}
    Path("a.fq").write_bytes(b"".join(record(name, letters) for name, letters in odd.items()))
    carry(reads="a.fq", reference="genome.fa", output="o.bam")
    with pysam.AlignmentFile("o.bam") as file:
        found = {one.query_name: one for one in file.fetch(until_eof=True)}
    assert len(found) == len({name.split()[0] for name in odd})
    for name in ("good", "lower", "good2", "iupac", "few"):
        assert (found[name].reference_name, found[name].reference_start) == ("chr1", 5000), name
    assert found["few"].get_tag("NM") == 3
    for name in ("empty", "n", "short", "one", "long"):
        assert found[name].is_unmapped, name
        assert found[name].mapping_quality == 0
    assert found["long"].query_length == 1_200_000
    assert found["empty"].query_sequence is None


def test_references_of_many_contigs_lower_case_and_codes() -> None:
    draw = np.random.default_rng(3)
    contigs = {f"c{i}": bytes(draw.choice(LETTERS, 220)) for i in range(10_000)}
    contigs["c5"] = contigs["c5"].lower()
    contigs["c6"] = contigs["c6"][:50] + b"RYN" + contigs["c6"][53:]
    fasta("many.fa", contigs)
    chosen = [5, 6, 0, 9_999, 4_321]
    Path("a.fq").write_bytes(b"".join(record(f"c{i}", contigs[f"c{i}"][10:160].upper()) for i in chosen))
    carry(reads="a.fq", reference="many.fa", output="o.bam")
    with pysam.AlignmentFile("o.bam") as file:
        assert file.nreferences == 10_000
        for one in file:
            assert (one.query_name, one.reference_start) == (one.reference_name, 10)


@pytest.mark.parametrize(
    ("given", "kind", "says"),
    [
        ({"reads": "none.fq"}, MissingInputError, "none.fq"),
        ({"reads": "a.fq", "mates": "short.fq"}, GridError, "ends after 2 reads"),
        ({"reads": "a.fq", "mates": "swapped.fq"}, GridError, "'r2/1'.*'r1/2'|r1.*r2"),
        ({"reads": "odd.fq", "interleaved": True}, GridError, "odd.fq"),
        ({"reads": "cut.fq"}, GridError, r"cut.fq.*record 3|record 3.*cut.fq"),
        ({"mates": "b.fq"}, ParameterError, "no reads"),
        ({"reads": "a.fq", "reference": "empty.fa"}, GridError, "empty.fa|no base"),
        ({"reads": "a.fq", "reference": "bare.fa"}, GridError, "no base"),
        ({"reads": "a.fq", "reference": "a.fq"}, CorruptInputError, "isn't FASTA"),
        ({"reads": "a.fq", "reference": "gap.fa"}, CorruptInputError, "gap.fa has '-' among the bases of 'b x'"),
        ({"reads": "a.fq", "reference": "none.fa"}, ParameterError, "contig 'b' has no bases"),
        ({"reads": "a.fq", "reference": "comma.fa"}, ParameterError, "contig 'a,b' can't have that name"),
        ({"reads": "a.fq", "reference": "twice.fa"}, ParameterError, "names the contig 'a' twice"),
        ({"reads": "a.fq", "reference": "twice.fa", "output": "o.parquet"}, ParameterError, "the contig 'a' twice"),
        ({"reads": "a.fq", "read_group": "SM:x"}, ParameterError, "isn't a read group"),
        ({"reads": "a.fq", "cigar": False}, ParameterError, "operations"),
        ({"reads": "a.fq", "index": "a.fq"}, CorruptInputError, "isn't an index"),
        ({"count": 0}, ParameterError, "count is 0"),
        ({"count": 5, "length": 50_000}, ParameterError, "length"),
    ],
)
def test_bad_input_is_told_before_or_where_it_is_met(given: dict[str, Any], kind: type[Exception], says: str) -> None:
    reads = [record(f"r{i}/1", b"ACGTTGCA" * 10) for i in range(4)]
    Path("a.fq").write_bytes(b"".join(reads))
    mates = [record(f"r{i}/2", b"ACGTTGCA" * 10) for i in range(4)]
    Path("b.fq").write_bytes(b"".join(mates))
    Path("short.fq").write_bytes(b"".join(mates[:2]))
    Path("swapped.fq").write_bytes(b"".join([mates[0], mates[2], mates[1], mates[3]]))
    Path("odd.fq").write_bytes(reads[0] + mates[0] + reads[1])
    Path("cut.fq").write_bytes(b"".join(reads)[:-260])
    Path("empty.fa").write_bytes(b"")
    Path("bare.fa").write_bytes(b">a\n>b\n")
    Path("gap.fa").write_bytes(b">a\nACGT\n>b x\nAC-T\n")
    Path("none.fa").write_bytes(b">a\nACGT\n>b\n")
    Path("comma.fa").write_bytes(b">a,b\nACGT\n")
    fasta("genome.fa", genome())
    Path("twice.fa").write_bytes(b">a\nACGTACGTACGTAGCTACGATCGATCG\n>a\nACGATCGATCGATCGATCGAT\n")
    with pytest.raises(kind, match=says):
        carry(**{"reference": "genome.fa", "output": "o.bam", **given})
    assert not Path("o.bam").exists()
    assert not Path("o.bam.bai").exists()


def test_an_index_is_made_once_and_checked(two_files: list[Pair], monkeypatch: pytest.MonkeyPatch) -> None:
    carry(reads="a.fq", reference="genome.fa", index="g.index", output="one.bam")
    with monkeypatch.context() as patch:
        patch.delattr(genomes, "build_index")
        carry(reads="a.fq", index="g.index", output="two.bam")
    assert lines("two.bam") == lines("one.bam")
    fasta("other.fa", {"chr1": genome()["chr2"]})
    with pytest.raises(ParameterError, match=r"an index of another reference than other\.fa"):
        carry(reads="a.fq", index="g.index", reference="other.fa", output="three.bam")
    damaged = bytearray(Path("g.index").read_bytes())
    damaged[len(damaged) // 2] ^= 1
    Path("g.index").write_bytes(damaged)
    with pytest.raises(CorruptInputError, match=r"g\.index is damaged"):
        carry(reads="a.fq", index="g.index", output="three.bam")
    with pytest.raises(GridError, match="can't be written"):
        carry(reads="a.fq", reference="genome.fa", index="nowhere/g.index", output="three.bam")
    assert [path.name for path in Path().glob(".g.index*")] == []


def test_the_kept_index_of_a_file_is_used_until_the_file_changes(two_files: list[Pair],
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = genomes.open_genome("genome.fa")
    built: list[Any] = []
    real = genomes.build_index
    monkeypatch.setattr(genomes, "build_index", lambda *given: built.append(given) or real(*given))
    again, _ = genomes.open_genome("genome.fa")
    assert (again.digest, built) == (first.digest, [])
    fasta("genome.fa", {"chr1": genome()["chr2"]})
    other, _ = genomes.open_genome("genome.fa")
    assert other.names == ("chr1",)
    assert len(built) == 1


def test_a_header_without_a_group() -> None:
    fasta("genome.fa", genome())
    opened, _ = genomes.open_genome("genome.fa")
    header, group = sam_header(opened, "")
    assert header.splitlines()[:3] == [f"@SQ\tSN:{name}\tLN:{length}" for name, length in CONTIGS.items()]
    assert header.splitlines()[3].startswith("@PG\tID:gridcompute")
    assert len(group) == 0


def test_reads_without_mates_say_nothing_of_any(two_files: list[Pair]) -> None:
    carry(reads="a.fq", reference="genome.fa", output="o.bam")
    with pysam.AlignmentFile("o.bam") as file:
        assert {(one.next_reference_id, one.next_reference_start, one.template_length) for one in file} == {(-1, -1, 0)}
    carry(reads="a.fq", reference="genome.fa", output="o.parquet")
    table = pq.read_table("o.parquet")
    assert set(table["mate_contig"].to_pylist()) == {""}
    assert set(table["mate_position"].to_pylist()) == {-1}


def test_mates_in_a_row_of_a_table_are_pairs_without_being_told(two_files: list[Pair]) -> None:
    carry(reads="a.fq", mates="b.fq", reference="genome.fa", output="two.bam")
    quality = ["I" * 100] * len(two_files)
    first, second = ([pair[mate].decode() for pair in two_files] for mate in (0, 1))
    table = pa.table({"name": [f"r{i}" for i in range(len(two_files))], "sequence": first, "quality": quality,
                      "sequence2": second, "quality2": quality})
    pq.write_table(table, "reads.parquet")
    carry(reads="reads.parquet", reference="genome.fa", output="table.bam")
    assert lines("table.bam") == lines("two.bam")


@pytest.mark.parametrize("mark", [b" ", b"\0", b"\x7f"])
def test_a_quality_that_is_none_is_refused(mark: bytes) -> None:
    fasta("genome.fa", genome())
    Path("a.fq").write_bytes(record("r", b"ACGT" * 10, mark + b"I" * 39))
    with pytest.raises(GridError, match="outside ! to ~"):
        carry(reads="a.fq", reference="genome.fa", output="o.bam")
    assert not Path("o.bam").exists()


def test_an_index_of_somebody_else_is_kept(two_files: list[Pair]) -> None:
    Path("o.bam.bai").write_bytes(b"kept")
    with pytest.raises(GridError, match=r"o\.bam\.bai exists already"):
        carry(reads="a.fq", reference="genome.fa", output="o.bam")
    assert Path("o.bam.bai").read_bytes() == b"kept"


def test_a_link_at_the_output_keeps_its_index(two_files: list[Pair]) -> None:
    carry(reads="a.fq", reference="genome.fa", output="real.bam")
    Path("link.bam").symlink_to("real.bam")
    Path("link.bam.bai").write_bytes(b"kept")
    with pytest.raises(GridError, match=r"link\.bam is a link"):
        carry(reads="b.fq", reference="genome.fa", output="link.bam", overwrite=True)
    assert Path("link.bam.bai").read_bytes() == b"kept"


def test_a_reference_may_be_shorter_than_simulated_reads() -> None:
    letters = genome()["tiny"]
    fasta("tiny.fa", {"tiny": letters})
    Path("a.fq").write_bytes(record("r", letters))
    carry(reads="a.fq", reference="tiny.fa", output="o.bam")
    with pysam.AlignmentFile("o.bam") as file:
        assert [one.reference_start for one in file] == [0]


@pytest.mark.faults
@pytest.mark.parametrize("executor", ["inline", "simulated"])
def test_faults_change_no_byte(two_files: list[Pair], executor: str) -> None:
    job = grid.workload("genomics.map")(reads="a.fq", mates="b.fq", reference="genome.fa", output="o.bam",
                                        picture="none")
    report = run_chaos(job, Schedule(seed=7, kill_worker=0.2, kill_driver=1), executor=executor)
    assert (report.failed, report.different, report.doubled, report.left) == ("", (), (), ())
    assert report.injected
