"""Mapping reads, ours and by minimap2 and bwa mem: one run of each, with the seconds on the clock."""

from __future__ import annotations

import itertools
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gridcompute as grid
from benchmarks.genomics_data import Genome, simulated
from benchmarks.genomics_truth import OTHER, Tally, tally
from benchmarks.peering import PeerError, Peers
from benchmarks.rows import check
from benchmarks.running import new_store
from gridcompute.registry import workload

_numbers = itertools.count()
VERSIONS = {"minimap2": ("minimap2", "--version"), "bwa": ("bwa",), "samtools": ("samtools", "--version")}
PRESETS = {"bam": ("minimap2", "-ax", "sr"), "paf": ("minimap2", "-x", "sr")}


@dataclass(frozen=True)
class Reads:
    """Simulated reads in FASTQ files.

    Attributes:
        genome: where they are from.
        count: of fragments.
        paths: one file, or two with the mates.
    """

    genome: Genome
    count: int
    paths: tuple[Path, ...]

    @classmethod
    def simulated(cls, genome: Genome, count: int, *, paired: bool = False, seed: int = 7) -> Reads:
        """By wgsim."""
        both = simulated(genome, count, seed, paired=paired)
        return cls(genome, count, both if paired else both[:1])

    @property
    def total(self) -> int:
        """Reads in all files."""
        return self.count * len(self.paths)


def mapped(reads: Reads, output: str, *, workers: int, **options: Any) -> tuple[float, grid.Run]:
    """Seconds from the workload's first line to the finished file, on the Ray that is there; and the run."""
    given: dict[str, Any] = {"reads": str(reads.paths[0]), "reference": str(reads.genome.path), "output": output}
    given |= options
    cleared(output)
    if len(reads.paths) > 1:
        given["mates"] = str(reads.paths[1])
    known = workload("genomics.map")
    if any(parameter.name == "picture" for parameter in known.parameters):
        given["picture"] = "none"
    with new_store() as store:
        began = time.perf_counter()
        job = known(**given)
        run = grid.run(*job.outputs, executor="ray", workers=workers, store=store, quiet=True)
        list(job.finish(run))
        seconds = time.perf_counter() - began
    check(run.state == "done" and run.status.skipped == 0, f"mapping {reads.total:,} reads")
    return seconds, run


def cleared(output: str) -> None:
    """Remove what an earlier run has written."""
    for path in (Path(output), Path(f"{output}.bai")):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def by_minimap2(reads: Reads, kind: str, *, threads: int) -> tuple[float, Path]:
    """Seconds of minimap2, for BAM with samtools' sort and index; the reference is indexed within, as in ours."""
    command = [*PRESETS[kind], f"-t{threads}", str(reads.genome.path), *map(str, reads.paths)]
    made = Path(f"minimap2-{next(_numbers)}.{kind}")
    return (_sorted(command, made, threads) if kind == "bam" else _written(command, made)), made


def by_bwa(reads: Reads, *, threads: int) -> Path:
    """The BAM file that bwa mem gives, sorted; its index is made beforehand."""
    reference = reads.genome.path
    if not reference.with_name(reference.name + ".bwt").exists():
        done = subprocess.run(["bwa", "index", str(reference)], capture_output=True, text=True, check=False)
        check(done.returncode == 0, f"bwa index: {done.stderr[-300:]}")
    made = Path(f"bwa-{next(_numbers)}.bam")
    _sorted(["bwa", "mem", f"-t{threads}", str(reference), *map(str, reads.paths)], made, threads)
    return made


def _sorted(command: Sequence[str], made: Path, threads: int) -> float:
    sort = ["samtools", "sort", f"-@{threads}", "-o", str(made), "-"]
    began = time.perf_counter()
    _chained(command, sort)
    _chained(["samtools", "index", str(made)])
    return time.perf_counter() - began


def _written(command: Sequence[str], made: Path) -> float:
    with made.open("wb") as file:
        began = time.perf_counter()
        _chained(command, output=file)
        return time.perf_counter() - began


def _chained(*commands: Sequence[str], output: Any = None) -> None:
    """Commands of which each reads what the one before writes.

    Raises:
        PeerError: one of them fails, with its last words.
    """
    with ExitStack() as stack:
        running: list[tuple[subprocess.Popen[bytes], Path]] = []
        for number, command in enumerate(commands):
            said = Path(f"said-{next(_numbers)}")
            error = stack.enter_context(said.open("wb"))
            before = running[-1][0].stdout if running else subprocess.DEVNULL
            after = output if number == len(commands) - 1 else subprocess.PIPE
            running.append((subprocess.Popen(command, stdin=before, stdout=after, stderr=error), said))
            if not isinstance(before, int) and before is not None:
                before.close()  # so that a writer learns of its reader's end
        for process, said in running:
            if process.wait():
                raise PeerError(f"{' '.join(map(str, process.args))} failed: {said.read_text()[-300:]}")  # type: ignore[arg-type]


# --- what a file holds ---


def sam_lines(path: Path) -> Iterator[str]:
    """The lines of a BAM file."""
    with subprocess.Popen(["samtools", "view", str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield from process.stdout
    check(process.returncode == 0, f"samtools view {path.name}")


def counted(path: Path) -> Tally:
    """What became of the reads of a BAM file."""
    return tally(sam_lines(path))


def check_bam(path: Path, reads: int) -> None:
    """A BAM file that samtools takes for whole, sorted and indexed, with every read in it once.

    Raises:
        WrongResultError: it isn't.
    """
    for command in (["quickcheck"], ["view", "-c", "-F", str(OTHER)]):
        done = subprocess.run(["samtools", *command, str(path)], capture_output=True, text=True, check=False)
        check(done.returncode == 0, f"samtools {command[0]}: {done.stderr.strip()}")
    check(int(done.stdout) == reads, f"{path.name}: {done.stdout.strip()} reads of {reads:,}")
    check(path.with_name(path.name + ".bai").exists() or path.with_suffix(".bai").exists(), f"{path.name} has no index")


def versions(peers: Peers) -> None:
    """Note the versions of the programs that take part."""
    for name, command in VERSIONS.items():
        if name == "samtools" or peers.wanted(name):
            done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
            lines = [line for line in (done.stdout + done.stderr).splitlines() if name != "bwa" or "Version" in line]
            peers.told[name] = lines[0].split()[-1] if lines else "?"
