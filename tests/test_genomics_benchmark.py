"""The benchmark `genomics`: what it counts and compares, and each measurement at a tiny size, without Ray."""

from __future__ import annotations

import contextlib
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

import gridcompute as grid  # noqa: E402
from benchmarks import (  # noqa: E402
    genomics,
    genomics_contest,
    genomics_data,
    genomics_kernels,
    genomics_map,
    genomics_mapping,
    genomics_ours,
    genomics_peers,
    genomics_published,
    genomics_truth,
)
from benchmarks.genomics_data import Genome, column, texts  # noqa: E402
from benchmarks.genomics_libraries import libraries  # noqa: E402
from benchmarks.genomics_mapping import Reads  # noqa: E402
from benchmarks.genomics_truth import Origin, Tally, tally  # noqa: E402
from benchmarks.peering import PeerError, Peers, interpreter  # noqa: E402
from benchmarks.rows import OURS, Reference, Row, Session, WrongResultError  # noqa: E402

MAPPERS = pytest.mark.skipif(not all(map(shutil.which, ("minimap2", "bwa", "samtools", "wgsim"))),
                             reason="minimap2, bwa, samtools or wgsim isn't installed (make peers)")  # fmt: skip


def needs(*names: str) -> Any:
    """Skip where a peer isn't installed, and say so."""
    absent = [name for name in names if interpreter(name) is None]
    absent += ["gcc"] if "parasail" in names and shutil.which("gcc") is None else []
    return pytest.mark.skipif(bool(absent), reason=f"{', '.join(absent)}: not installed (make peers)")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GRIDCOMPUTE_DATA", str(tmp_path / "nowhere"))
    genomics_kernels._letters.cache_clear()
    genomics_data.proteins.cache_clear()


def session(folder: Path, **more: Any) -> Session:
    return Session(mode="quick", folder=str(folder), **more)


# --- truth ---


@pytest.mark.parametrize(("name", "found"), [
    ("NC_017625.1_100_599_1:0:0_0:0:0_2a/1", Origin("NC_017625.1", 100, 599)),
    ("gi|88193823|ref|NC_007795.1|_5_400_0:0:0_3:1:0_0", Origin("gi|88193823|ref|NC_007795.1|", 5, 400)),
])  # fmt: skip
def test_names_tell_the_origin(name: str, found: Origin) -> None:
    assert genomics_truth.origin(name) == found


@pytest.mark.parametrize("name", ["r1", "", "read_1_2"])
def test_other_names_have_none(name: str) -> None:
    with pytest.raises(ValueError, match="wgsim"):
        genomics_truth.origin(name)


@pytest.mark.parametrize(("cigar", "bases"), [("150M", 150), ("5S100M2D43M2I", 145), ("3H10=1X4N", 15), ("*", 0)])
def test_an_alignment_s_span(cigar: str, bases: int) -> None:
    assert genomics_truth.span(cigar) == bases


def test_reads_are_counted() -> None:
    """Right by begin, right by end, 11 off, on another contig, not mapped; and lines that don't count."""
    name = "chr_1_100_599_1:0:0_0:0:0_2a"
    lines = [
        "@SQ\tSN:chr_1\tLN:5000\n",
        f"{name}\t99\tchr_1\t110\t60\t150M\t*\t0\t0\tA\tI\n",
        f"{name}\t147\tchr_1\t450\t20\t150M\t*\t0\t0\tA\tI\n",
        f"{name}\t0\tchr_1\t111\t60\t150M\t*\t0\t0\tA\tI\n",
        f"{name}\t0\tchr_1\t111\t19\t150M\t*\t0\t0\tA\tI\n",
        f"{name}\t16\tchr_2\t100\t20\t150M\t*\t0\t0\tA\tI\n",
        f"{name}\t4\t*\t0\t0\t*\t*\t0\t0\tA\tI\n",
        f"{name}\t256\tchr_1\t100\t60\t150M\t*\t0\t0\tA\tI\n",
        f"{name}\t2048\tchr_1\t100\t60\t150M\t*\t0\t0\tA\tI\n",
    ]
    assert tally(lines) == Tally(reads=6, mapped=5, correct=2, confident=4, wrong=2, proper=2)
    assert tally(lines).percent(3) == 50
    assert tally([]).percent(0) == 0


def test_accuracy_has_targets(tmp_path: Path) -> None:
    reads = Reads(Genome("DH1", tmp_path / "x.fa", "a genome"), 500, (tmp_path / "1", tmp_path / "2"))
    found = {OURS: Tally(1000, 1000, 980, 970, 1, 955), "minimap2": Tally(1000, 1000, 981, 975, 0, 950),
             "bwa mem": Tally(1000, 1000, 984, 970, 2, 957)}  # fmt: skip
    rows = {row.name.rpartition("/")[2]: row for row in genomics_map.accuracy_rows(reads, found)}
    assert list(rows) == ["correct", "wrong at MAPQ 20", "MAPQ 20", "proper pairs", "proper pairs, difference"]
    assert rows["correct"].target is not None
    assert rows["correct"].target.value == pytest.approx(98.05)
    assert [row.met for row in rows.values()] == [False, True, None, None, False]
    found[OURS] = Tally(1000, 1000, 981, 970, 3, 956)
    rows = {row.name.rpartition("/")[2]: row for row in genomics_map.accuracy_rows(reads, found)}
    assert [row.met for row in rows.values()] == [True, False, None, None, True]
    single = Reads(reads.genome, 1000, reads.paths[:1])
    assert len(list(genomics_map.accuracy_rows(single, {OURS: found[OURS]}))) == 3


# --- data ---


def test_fasta_plain_and_packed(tmp_path: Path) -> None:
    import gzip

    text = b">one first\nACGT\nacg\n>two\n\n>three\nNN\n"
    (tmp_path / "x.fa").write_bytes(text)
    (tmp_path / "x.fa.gz").write_bytes(gzip.compress(text))
    for name in ("x.fa", "x.fa.gz"):
        assert list(genomics_data.fasta(name)) == [("one", b"ACGTACG"), ("two", b""), ("three", b"NN")]


def test_pairs_have_their_errors(tmp_path: Path) -> None:
    genome = genomics_data.first_genome(tmp_path)
    assert genome.source == "bases made up"
    letters = genome.letters
    queries, targets = genomics_data.pairs(letters, 50, 40, 0.0)
    assert texts(queries) == texts(targets)
    assert all(one in letters.tobytes().decode() for one in texts(targets))
    queries, targets = genomics_data.pairs(letters, 400, 100, 0.1)
    assert abs(len(queries[1]) - 40_000) < 400
    distances = [edit_distance(*pair) for pair in zip(texts(queries)[:40], texts(targets), strict=False)]
    assert 7 < np.mean(distances) < 11
    assert genomics_data.cells(queries, targets) == len(queries[1]) * 100


def test_columns() -> None:
    found = column([b"AC", b"", b"GTT"])
    assert texts(found) == ["AC", "", "GTT"]
    assert texts(genomics_data.first(found, 2)) == ["AC", ""]
    assert genomics_data.of_length([b"AAAA", b"A", b"AA"], 2) == b"AA"


def test_made_up_proteins() -> None:
    found, source = genomics_data.proteins("QUERY")
    assert source == "residues made up"
    assert len(found) == 500
    assert min(map(len, found)) >= 20


# --- contests ---


def test_a_contest_is_only_among_equals() -> None:
    def system(*scores: int) -> genomics_contest.System:
        return lambda: ((1.0, 2.0), np.array(scores))

    raw = genomics_contest.contest({OURS: system(1, 2), "peer": system(1, 2)}, 3, "scores")
    assert raw == {OURS: [(1.0, 2.0)] * 3, "peer": [(1.0, 2.0)] * 3}
    with pytest.raises(WrongResultError, match="scores by peer"):
        genomics_contest.contest({OURS: system(1, 2), "peer": system(1, 3)}, 3, "scores")


def test_rates_and_their_targets() -> None:
    raw = {OURS: [(1.0, 2.0), (2.0, 2.0), (1.0, 4.0)], "ours, alone": [(0.1, 0.1)], "slow": [(20.0, 20.0)],
           "fast": [(8.0, 10.0)]}  # fmt: skip
    row = genomics_contest.rated("a", "pairs/s", 80.0, raw, times=8, note="Told.")
    assert row.stats[OURS].median == 80
    assert row.ratio("fast") == 8
    assert row.target == Reference(80.0, "at least 8 times fast")
    assert row.met
    assert row.note == "Told. By the clock: ours 40, ours, alone 800, slow 4, fast 8."
    assert genomics_contest.rated("a", "pairs/s", 80.0, {OURS: raw[OURS]}, times=8).target is None


def test_a_peer_is_called_in_its_fastest_way_that_is_right() -> None:
    def fails() -> Any:
        raise WrongResultError("it ran over")

    ways: dict[str, genomics_contest.System] = {
        "slow": lambda: ((2.0, 2.0), np.array([5])), "wrong": lambda: ((0.1, 0.1), np.array([4])),
        "good": lambda: ((1.0, 1.0), np.array([5])), "over": fails}  # fmt: skip
    assert genomics_contest.fastest(ways, np.array([5])) == "good"
    with pytest.raises(WrongResultError, match="none of slow"):
        genomics_contest.fastest(ways, np.array([6]))


# --- peers ---


def edit_distance(query: str, target: str) -> int:
    """By the table."""
    row = list(range(len(target) + 1))
    for i, a in enumerate(query, 1):
        corner, row[0] = row[0], i
        for j, b in enumerate(target, 1):
            corner, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, corner + (a != b))
    return row[-1]


def affine(query: str, target: str, score: Any, gaps: tuple[int, int], *, local: bool) -> int:
    """By Gotoh's tables: the best score, of whole sequences or of any parts."""
    low, best = -(10**9), 0
    here = [0 if local else -(gaps[0] + (j - 1) * gaps[1]) * (j > 0) for j in range(len(target) + 1)]
    down = [low] * (len(target) + 1)
    for i, a in enumerate(query, 1):
        corner, across = here[0], low
        here[0] = 0 if local else -(gaps[0] + (i - 1) * gaps[1])
        for j, b in enumerate(target, 1):
            down[j] = max(down[j] - gaps[1], here[j] - gaps[0])
            across = max(across - gaps[1], here[j - 1] - gaps[0])
            corner, here[j] = here[j], max(corner + score(a, b), down[j], across, 0 if local else low)
            best = max(best, here[j])
    return best if local else here[-1]


def two_scores(match: int, mismatch: int) -> Any:
    return lambda a, b: match if a == b else -mismatch


def by_tables(queries: Any, targets: Any, costs: Any, *, local: bool = False) -> Any:
    """What a kernel of ours gives, slowly."""
    match, mismatch, first, more = costs
    return np.array([affine(a, b, two_scores(match, mismatch), (first, more), local=local)
                     for a, b in zip(texts(queries), texts(targets), strict=True)])


def edits_by_tables(queries: Any, targets: Any) -> Any:
    return np.array([edit_distance(*pair) for pair in zip(texts(queries), texts(targets), strict=True)])


def drawn(count: int = 30, length: int = 40) -> tuple[Any, Any]:
    letters = np.random.default_rng(3).choice(genomics_data.BASES, 5000)
    return genomics_data.pairs(letters, count, length, 0.15)


@needs("parasail")
def test_parasail_in_c(tmp_path: Path) -> None:
    queries, targets = drawn()
    expected = by_tables(queries, targets, genomics_kernels.BWA, local=True)
    with Peers(session(tmp_path)) as peers:
        library = libraries(peers, "parasail")["parasail"]
        assert peers.versions["peer parasail"][0].isdigit()
    for how in genomics_kernels.PARASAIL:
        assert np.array_equal(library.pairs(how, queries, targets, genomics_kernels.BWA)[1], expected)
    with pytest.raises(WrongResultError, match="sw_nothing"):
        library.pairs("sw_nothing", queries, targets, genomics_kernels.BWA)
    for how in genomics_kernels.PROFILED:
        (own, clock), scores = library.search(how, "blosum62", b"MKWW", column([b"MKWW", b"PPKWGP"]), (12, 1))
        assert scores.tolist() == [32, 16]
        assert own > 0
        assert clock > 0


@needs("edlib")
def test_edlib_in_c(tmp_path: Path) -> None:
    queries, targets = drawn()
    with Peers(session(tmp_path)) as peers:
        library = libraries(peers, "edlib")["edlib"]
    assert np.array_equal(library.pairs("NW", queries, targets, ())[1], edits_by_tables(queries, targets))
    inside = column([b"CGTA"]), column([b"TTTCGTATTT"])
    assert library.pairs("HW", *inside, ())[1].tolist() == [0]
    with pytest.raises(WrongResultError, match="edlib's XW"):
        library.pairs("XW", *inside, ())


@needs("wfa2", "pywfa")
def test_wavefronts_in_c_and_from_python(tmp_path: Path) -> None:
    """Both give costs that are the scores' complement."""
    queries, targets = drawn()
    expected = by_tables(queries, targets, genomics_kernels.WFA_SCORES)
    letters = np.diff(queries[0]) + np.diff(targets[0])
    path = str(tmp_path / "pairs.npz")
    np.savez(path, queries=queries[1], queries_at=queries[0], targets=targets[1], targets_at=targets[0])
    with Peers(session(tmp_path)) as peers:
        library = libraries(peers, "wfa2")["wfa2"]
        for how in ("score", "path"):
            costs = library.pairs(how, queries, targets, genomics_kernels.WFA)[1]
            assert np.array_equal(letters - costs, expected)
        for peer in peers.of("pywfa").values():
            (own, clock), costs = genomics_kernels._pywfa(peer, path)()
            assert np.array_equal(letters - costs, expected)
            assert own > 0
            assert clock > 0


@needs("pyopal")
def test_opal_s_scores(tmp_path: Path) -> None:
    sequences = column([b"MKWW", b"PPKWGP", b"ARND"])
    np.savez(tmp_path / "x.npz", targets=sequences[1], targets_at=sequences[0])
    with Peers(session(tmp_path)) as peers:
        for overflow in ("buckets", "simple"):
            for peer in peers.of("pyopal").values():
                path = str(tmp_path / "x.npz")
                _, scores = genomics_kernels._opal(peer, path, b"MKWW", "BLOSUM62", (12, 1), overflow)()
                assert scores.tolist() == [32, 16, 2]
    assert genomics_peers._took(lambda: 3, lambda found: [found])[1]["scores"] == [3]


def test_a_library_that_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import peering

    monkeypatch.setattr(peering, "interpreter", lambda name: None)
    own = session(tmp_path)
    assert libraries(Peers(own), "edlib", "wfa2") == {}
    assert own.absent == ["edlib", "wfa2"]
    with pytest.raises(PeerError, match=r"edlib isn't installed; its header is edlib\.h"):
        Peers(session(tmp_path, peers=("edlib",)))


# --- sections ---


def sizes(monkeypatch: pytest.MonkeyPatch, chosen: dict[Any, Any]) -> None:
    monkeypatch.setattr(Session, "pick", lambda self, quick, *_: chosen.get(quick, quick))


def measured(section: Any, folder: Path) -> dict[str, Row]:
    own = session(folder)
    with Peers(own) as peers:
        found = {row.name: row for row in section(own, peers)}
    assert all(value > 0 for row in found.values() for values in row.raw.values() for value in values)
    return found


def test_scores_at_a_tiny_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes(monkeypatch, {(4096, 2): (70, 1)})
    found = measured(genomics_kernels.scores, tmp_path)
    assert list(found) == ["compile/local scores", "scores/100 bp", "scores/150 bp", "scores/250 bp"]
    assert "70 stretches of 150 bp (bases made up), with 5% errors." in found["scores/150 bp"].note
    assert ("parasail" in found["scores/150 bp"].raw) == (interpreter("parasail") is not None)


def test_edits_at_a_tiny_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes(monkeypatch, {(4096, 2): (4, 1), (100, 150, 250, 1000, 10_000): (100, 250)})
    monkeypatch.setattr(genomics_ours, "edits", edits_by_tables)
    found = measured(genomics_kernels.edits, tmp_path)
    assert list(found) == ["compile/edit distances", "edits/100 bp", "edits/250 bp"]


def test_similar_pairs_at_a_tiny_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes(monkeypatch, {(4096, 2): (8, 1)})
    monkeypatch.setattr(genomics_ours, "similar", by_tables)
    found = measured(genomics_kernels.similar, tmp_path)
    assert list(found)[1:] == ["similar/150 bp, 2%", "similar/1000 bp, 2%", "similar/150 bp, 5%", "similar/1000 bp, 5%"]


def test_proteins_at_a_tiny_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With parasail's matrix in place of ours; where there is no parasail, ours is alone."""
    sizes(monkeypatch, {2000: 20, (66, 374): (66,)})
    monkeypatch.setattr(genomics_ours, "stored", lambda *database: database)
    monkeypatch.setattr(genomics_ours, "search", searched(tmp_path))
    found = measured(genomics_kernels.searches, tmp_path)
    assert list(found) == ["compile/search", "proteins/66 aa"]
    published = measured(genomics_published._parasail, tmp_path)
    assert list(published) == ["published/parasail, 110 aa"]
    figure = published["published/parasail, 110 aa"].published
    assert figure is not None
    assert figure.value == pytest.approx(2.308, abs=1e-3)


def searched(folder: Path) -> Any:
    """A search that gives what parasail gives, or nothing but zeros."""
    own = session(folder)
    found = libraries(Peers(own), "parasail")

    def search(query: bytes, database: Any) -> Any:
        targets, matrix, gaps = database
        for library in found.values():
            return library.search("sw_scan_profile_16", matrix.lower(), query, targets, gaps)[1]
        return np.zeros(len(targets[0]) - 1)

    return search


def test_published_pairs_at_a_tiny_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes(monkeypatch, {1000: 30, 10**7: 9000, (): (99,)})
    monkeypatch.setattr(genomics_ours, "edits", edits_by_tables)
    monkeypatch.setattr(genomics_published, "_phage", lambda similarity: b"ACGTTGCA"[similarity % 2 :] * 5)
    found = measured(genomics_published._edlib, tmp_path)
    assert list(found) == ["published/edlib, 30 bp", "published/phage, 99 %"]
    row = found["published/edlib, 30 bp"]
    assert {OURS, "ours, a pair at a time"} <= set(row.raw)
    assert row.published is not None
    assert row.published.value == pytest.approx(1e6 / 1.88)


def test_reads_within_a_genome_at_a_tiny_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gzip

    folder = genomics_data.data_folder() / genomics_published.READS / "100bp"
    folder.mkdir(parents=True)
    for name, letters in (("read", b"GATTACA"), ("mutated_90_perc", b"GATCACA")):
        (folder / f"{name}.fasta.gz").write_bytes(gzip.compress(b">x\n" + letters + b"\n"))
    monkeypatch.setattr(genomics_published, "_genome", lambda: b"CCCGATTACACCC")
    monkeypatch.setattr(genomics_ours, "within", lambda queries, targets: np.array([1, 0]))
    assert list(measured(genomics_published._within, tmp_path)) == ["published/100bp within DH1"]


def mapped_by_minimap2(reads: Reads, output: str, *, workers: int, **options: Any) -> tuple[float, Any]:
    """In place of ours, where that is to be measured."""
    genomics_mapping.cleared(output)
    seconds, made = genomics_mapping.by_minimap2(reads, "bam", threads=workers)
    if output.endswith(".bam"):
        assert not options
        made.rename(output)
        Path(f"{made}.bai").rename(f"{output}.bai")
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        assert options == {"cigar": False}
        pq.write_table(pa.table({"pos": np.arange(genomics_mapping.counted(made).reads)}), output)
    status = SimpleNamespace(started=1.0, ended=2.0, task_seconds=0.9 * workers, compile_seconds=0.5, bound_bytes=2**30)
    return seconds, SimpleNamespace(status=status)


@MAPPERS
def test_mapping_at_a_tiny_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes(monkeypatch, {(20_000,): (300,)})
    monkeypatch.setattr(genomics_map, "mapped", mapped_by_minimap2)
    monkeypatch.setattr(genomics_map, "connect", lambda workers: None)
    monkeypatch.setattr(genomics_map, "Watch", lambda: contextlib.nullcontext(SimpleNamespace(peak=2**20)))
    found = measured(genomics_map.mapping, tmp_path)
    assert list(found) == [
        "start/ray", "compile/genomics.map", "map/300 reads to sorted BAM", "map/300 reads, framework",
        "map/300 reads to positions", "map/300 reads, two workers over one", "map/300 reads, gzip",
        "map/300 reads, memory"]  # fmt: skip
    assert found["map/300 reads, framework"].raw[OURS][0] == pytest.approx(10)
    assert found["compile/genomics.map"].raw[OURS] == [1.0]


def test_a_run_of_ours_gets_its_files_and_is_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, with a workload that does next to nothing."""
    given: dict[str, Any] = {}

    class Known:
        parameters = (SimpleNamespace(name="picture"),)

        def __call__(self, **values: Any) -> grid.Job:
            given.update(values)
            return grid.Job([grid.from_arrays({"x": np.arange(3)}, dims="row")["x"] + 1])

    def inline(*outputs: Any, executor: str, workers: int, **more: Any) -> grid.Run:
        return run(*outputs, executor="inline", **more)

    run = grid.run
    monkeypatch.setattr(genomics_mapping, "workload", {"genomics.map": Known()}.__getitem__)
    monkeypatch.setattr(grid, "run", inline)
    (tmp_path / "o.bam").write_bytes(b"old")
    reads = Reads(Genome("g", tmp_path / "g.fa", ""), 3, (tmp_path / "1.fq", tmp_path / "2.fq"))
    seconds, done = genomics_mapping.mapped(reads, "o.bam", workers=2, cigar=False)
    assert given == {"reads": str(tmp_path / "1.fq"), "mates": str(tmp_path / "2.fq"), "output": "o.bam",
                     "reference": str(tmp_path / "g.fa"), "picture": "none", "cigar": False}  # fmt: skip
    assert seconds > 0
    assert done.state == "done"
    assert not (tmp_path / "o.bam").exists()


@MAPPERS
@pytest.mark.parametrize("paired", [False, True])
def test_what_mappers_find(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, paired: bool) -> None:
    monkeypatch.setattr(genomics_map, "mapped", mapped_by_minimap2)
    genome = genomics_data.first_genome(tmp_path)
    reads = Reads.simulated(genome, 200, paired=paired, seed=1)
    with Peers(session(tmp_path)) as peers:
        found = genomics_map._tallies(reads, peers)
        genomics_mapping.versions(peers)
        assert {"peer bwa", "peer minimap2", "peer samtools"} <= set(peers.versions)
    assert list(found) == [OURS, "minimap2", "bwa mem"]
    assert all(one.reads == reads.total and one.correct > 0.8 * reads.total for one in found.values())
    assert all((one.proper > 0) == paired for one in found.values())


@MAPPERS
def test_a_bam_file_that_lacks_reads_is_refused(tmp_path: Path) -> None:
    reads = Reads.simulated(genomics_data.first_genome(tmp_path), 50)
    _, made = genomics_mapping.by_minimap2(reads, "bam", threads=1)
    genomics_mapping.check_bam(made, 50)
    with pytest.raises(WrongResultError, match="50 reads of 51"):
        genomics_mapping.check_bam(made, 51)
    Path(f"{made}.bai").unlink()
    with pytest.raises(WrongResultError, match="no index"):
        genomics_mapping.check_bam(made, 50)
    made.write_bytes(made.read_bytes()[:-40])
    with pytest.raises(WrongResultError, match="quickcheck"):
        genomics_mapping.check_bam(made, 50)


@MAPPERS
def test_a_command_that_fails_is_said() -> None:
    with pytest.raises(PeerError, match="minimap2 nothing"):
        genomics_mapping._written(["minimap2", "nothing.fa", "nothing.fq"], Path("x.paf"))


def test_sections_run_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(genomics, "SECTIONS", {name: one_row(name) for name in genomics.SECTIONS})
    assert [row.name for row in genomics.rows(session(tmp_path), Peers(session(tmp_path)))] == list(genomics.SECTIONS)
    only = session(tmp_path, only=("edits", "map"))
    assert [row.name for row in genomics.rows(only, Peers(only))] == ["edits", "map"]


def one_row(name: str) -> Any:
    return lambda session, peers: iter([Row(name, "s", {OURS: [1.0]})])
