"""Rows of the benchmark `genomics` for `genomics.map`: how fast, and how right, against minimap2 and bwa mem."""

from __future__ import annotations

import gzip
import shutil
import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.genomics_data import Genome, first_genome, genomes
from benchmarks.genomics_mapping import Reads, by_bwa, by_minimap2, check_bam, cleared, counted, mapped, versions
from benchmarks.genomics_truth import Tally
from benchmarks.memory import Watch
from benchmarks.overhead_tasks import end_ray
from benchmarks.peering import Peers
from benchmarks.rows import OURS, Reference, Row, Session, check
from gridcompute.ray_session import connect

WORKERS = 2
SCALING = Reference(1.8, "two workers map at least 1.8 times as fast as one")
FRAMEWORK = Reference(5.0, "the framework costs under 5 % of the mapping time")
POSITIONS: dict[str, Any] = {"cigar": False}
"""What asks `genomics.map` for places alone."""


def mapping(session: Session, peers: Peers) -> Iterator[Row]:
    """Reads a second, from submission on a warm local Ray to the finished file."""
    session.begin("map, start")
    versions(peers)
    genome = first_genome(Path(session.folder))
    yield from started(genome)
    for count in session.pick((20_000,), (1_000_000,), (1_000_000, 10_000_000)):
        reads = Reads.simulated(genome, count)
        repeat = session.pick(1, 3, 3) if count <= 10**6 else 1
        session.begin(f"map, {count:,} reads")
        yield from _bam_rows(reads, repeat, peers.wanted("minimap2"))
        yield from _position_row(reads, repeat, peers.wanted("minimap2"))
        if count <= 10**6:
            session.begin(f"map, {count:,} reads, one worker")
            yield from _scaling_rows(reads, repeat)
            yield _memory_row(reads)
        for path in reads.paths:
            path.unlink()


def started(genome: Genome) -> Iterator[Row]:
    """Start Ray, compile what mapping needs, and say how long both took."""
    end_ray()
    began = time.perf_counter()
    connect(workers=WORKERS)
    yield Row("start/ray", "s", {OURS: [time.perf_counter() - began]},
              note=f"Starting a local Ray of {WORKERS} cores; it isn't in the rows below.")
    compiled, spent = 0.0, []
    for output in ("warm.bam", "warm.parquet"):
        reads = Reads.simulated(genome, 1000)
        seconds, run = mapped(reads, output, workers=WORKERS, **_options(output))
        spent.append(seconds)
        compiled += run.status.compile_seconds
    yield Row("compile/genomics.map", "s", {OURS: [compiled]},
              note="Compiling, by workers that share a cache which was empty, while 1,000 reads are mapped to BAM and "
              f"then to Parquet, in {sum(spent):.1f} s; it isn't in the rows below.")


def _options(output: str) -> dict[str, Any]:
    return POSITIONS if output.endswith(".parquet") else {}


def _ours(reads: Reads, output: str, workers: int = WORKERS) -> tuple[float, float]:
    """Reads a second, and the share in percent of the workers' time that no task had."""
    seconds, run = mapped(reads, output, workers=workers, **_options(output))
    if output.endswith(".bam"):
        check_bam(Path(output), reads.total)
    else:
        check(_rows_of(output) == reads.total, f"{output} of {reads.total:,} reads")
    cleared(output)
    had = workers * (run.status.ended - run.status.started)
    return reads.total / seconds, 100 * max(0.0, 1 - run.status.task_seconds / had)


def _rows_of(path: str) -> int:
    import pyarrow.dataset as ds

    return int(ds.dataset(path).count_rows())


def _theirs(reads: Reads, kind: str) -> float:
    seconds, made = by_minimap2(reads, kind, threads=WORKERS)
    if kind == "bam":
        check_bam(made, reads.total)
    cleared(str(made))
    return reads.total / seconds


def _told(reads: Reads) -> str:
    return f"{reads.total:,} reads of 150 bp that wgsim made of {reads.genome.source}."


def _goal(theirs: list[float], times: float) -> Reference | None:
    return Reference(times * statistics.median(theirs), f"at least {times:g} times minimap2") if theirs else None


def _bam_rows(reads: Reads, repeat: int, peer: bool) -> Iterator[Row]:
    raw: dict[str, list[float]] = {OURS: [], "minimap2 | samtools sort": []}
    idle = []
    for _ in range(repeat):
        rate, share = _ours(reads, "ours.bam")
        raw[OURS].append(rate)
        idle.append(share)
        if peer:
            raw["minimap2 | samtools sort"].append(_theirs(reads, "bam"))
    goal = _goal(raw["minimap2 | samtools sort"], 1.5)
    yield Row(f"map/{reads.count:,} reads to sorted BAM", "reads/s", raw, more=True, target=goal,
              note=f"{_told(reads)} {WORKERS} workers or threads each, by the clock; both index the reference, sort, "
              "and index the file.")
    yield Row(f"map/{reads.count:,} reads, framework", "%", {OURS: idle}, target=FRAMEWORK,
              note="Of the workers' time from the run's first moment to its last, what no task had: dispatch, waiting, "
              "the driver's own steps. Reading, sorting and writing are tasks' work.")


def _position_row(reads: Reads, repeat: int, peer: bool) -> Iterator[Row]:
    raw: dict[str, list[float]] = {OURS: [], "minimap2 (PAF)": []}
    for _ in range(repeat):
        raw[OURS].append(_ours(reads, "ours.parquet")[0])
        if peer:
            raw["minimap2 (PAF)"].append(_theirs(reads, "paf"))
    goal = _goal(raw["minimap2 (PAF)"], 2)
    yield Row(f"map/{reads.count:,} reads to positions", "reads/s", raw, more=True, target=goal,
              note=f"{_told(reads)} Without CIGARs: ours as columns in Parquet, theirs as lines of PAF.")


def _scaling_rows(reads: Reads, repeat: int) -> Iterator[Row]:
    one, two, packed = list[float](), list[float](), list[float]()
    zipped = replace(reads, paths=tuple(map(_gzipped, reads.paths)))
    for _ in range(repeat):
        one.append(_ours(reads, "one.bam", 1)[0])
        two.append(_ours(reads, "two.bam")[0])
        packed.append(_ours(zipped, "packed.bam")[0])
    yield Row(f"map/{reads.count:,} reads, two workers over one", "x",
              {OURS: [b / a for a, b in zip(one, two, strict=True)]}, more=True, target=SCALING,
              note=f"{_told(reads)} Plain FASTQ to sorted BAM.")
    yield Row(f"map/{reads.count:,} reads, gzip", "reads/s", {OURS: packed, "ours, plain": two}, more=True,
              note="The same reads from FASTQ.gz, which one worker must unpack from the front, against plain FASTQ.")


def _memory_row(reads: Reads) -> Row:
    with Watch() as watch:
        _, run = mapped(reads, "memory.bam", workers=WORKERS)
    check_bam(Path("memory.bam"), reads.total)
    return Row(f"map/{reads.count:,} reads, memory", "MiB", {OURS: [watch.peak / 2**20]},
               target=Reference(run.status.bound_bytes / 2**20, "the plan's bound"),
               note="The most that a worker had (PSS, twenty times a second), in a run of its own.")


def _gzipped(path: Path) -> Path:
    made = path.with_name(path.name + ".gz")
    with path.open("rb") as plain, gzip.open(made, "wb", compresslevel=6) as packed:
        shutil.copyfileobj(plain, packed, 2**20)
    return made


# --- accuracy ---


def accuracy(session: Session, peers: Peers) -> Iterator[Row]:
    """How many simulated reads are put where they are from."""
    session.begin("accuracy")
    versions(peers)
    end_ray()
    connect(workers=WORKERS)
    known = genomes(Path(session.folder))
    for genome in known[: session.pick(1, None, None)]:
        for paired in (False, True):
            session.begin(f"accuracy, {genome.name}, {'paired' if paired else 'single'}")
            reads = Reads.simulated(genome, session.pick(10_000, 100_000, 100_000), paired=paired, seed=11)
            yield from accuracy_rows(reads, _tallies(reads, peers))


def _tallies(reads: Reads, peers: Peers) -> dict[str, Tally]:
    mapped(reads, "accuracy.bam", workers=WORKERS)
    found = {OURS: counted(Path("accuracy.bam"))}
    if peers.wanted("minimap2"):
        found["minimap2"] = counted(by_minimap2(reads, "bam", threads=WORKERS)[1])
    if peers.wanted("bwa"):
        found["bwa mem"] = counted(by_bwa(reads, threads=WORKERS))
    for system, one in found.items():
        check(one.reads == reads.total, f"{system}: {one.reads:,} reads of {reads.total:,}")
    return found


def accuracy_rows(reads: Reads, found: Mapping[str, Tally]) -> Iterator[Row]:
    """What was counted, as rows with targets."""
    label = f"accuracy/{reads.genome.name}, {'paired' if len(reads.paths) > 1 else 'single'}"
    note = f"{reads.total:,} reads of 150 bp that wgsim made of {reads.genome.source} (-e .01 -r .001 -R .15 -X .3)."
    minimap2, bwa = found.get("minimap2"), found.get("bwa mem")
    shares = {system: [one.percent(one.correct)] for system, one in found.items()}
    goal = None
    if minimap2:
        goal = Reference(round(minimap2.percent(minimap2.correct) - 0.05, 6), "within 0.05 points of minimap2")
    yield Row(f"{label}/correct", "%", shares, more=True, target=goal,
              note=f"{note} Begin or end within 10 bp of the origin.")
    yield Row(f"{label}/wrong at MAPQ 20", "reads", {system: [float(one.wrong)] for system, one in found.items()},
              target=Reference(bwa.wrong, "no more than bwa mem") if bwa else None,
              note="MAPQ of 20 or more, and not correct.")
    confident = {system: [one.percent(one.confident)] for system, one in found.items()}
    yield Row(f"{label}/MAPQ 20", "%", confident, more=True, note="Reads with a MAPQ of 20 or more.")
    if len(reads.paths) > 1:
        proper = {system: [one.percent(one.proper)] for system, one in found.items()}
        yield Row(f"{label}/proper pairs", "%", proper, more=True)
        if bwa:
            away = round(abs(proper[OURS][0] - proper["bwa mem"][0]), 6)
            yield Row(f"{label}/proper pairs, difference", "points", {OURS: [away]},
                      target=Reference(0.1, "within 0.1 points of bwa mem"), note="Between ours and bwa mem's share.")
