"""What edlib and parasail have published that can be redone: their figure, ours, and the peer's on this machine."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks import genomics_ours as kernels
from benchmarks.genomics_contest import contest, ours, rated
from benchmarks.genomics_data import Column, column, data_folder, fasta, of_length
from benchmarks.genomics_kernels import Database, by_library
from benchmarks.genomics_libraries import Library, libraries
from benchmarks.peering import Peers
from benchmarks.rows import OURS, Reference, Row, Session

PHAGE = Path("edlib", "test_data", "Enterobacteria_Phage_1")
SIMILARITIES = (99, 97, 94, 90, 80, 70, 60)
READS = Path("edlib", "test_data", "E_coli_DH1", "mason_illumina_reads")
PREFIXES = {30: 1.88e-6, 100: 3.64e-6, 1000: 47e-6, 10_000: 2.1e-3, 50_000: 31e-3}
"""Seconds of one call, by the length of the prefixes of phage and 90 % copy."""

EDLIB = "edlib, bindings/python/README: Benchmark of 7 Feb 2017 (timeit, called from Python), the same two sequences"
RESIDUES = 195_174_196
"""Of the 547,964 sequences of Swiss-Prot that the table was made with, as libssa's test counts those of that file."""

QUERIES = {110: (9.3, 12.2, 9.6), 195: (12.0, 15.4, 16.5), 390: (17.4, 22.9, 30.9), 513: (21.5, 28.4, 39.9)}
"""Seconds of parasail (AVX2, 16 bit), Opal (AVX2) and SWIPE (SSSE3) on a Xeon E5-2670 v3, by the query's residues."""

PARASAIL = "parasail, performance.md: AVX2, 16 bit, one thread of a Xeon E5-2670 v3, {seconds} s for all of " \
           "Swiss-Prot (547,964 sequences, 195,174,196 residues)"
LANES = 8
"""Copies of a pair that ours gets at once, or more: those that its lanes hold."""


def published(session: Session, peers: Peers) -> Iterator[Row]:
    """What edlib's table, edlib's test data and parasail's table say."""
    session.begin("published, edlib")
    if (data_folder() / PHAGE).is_dir():
        yield from _edlib(session, peers)
        yield from _within(session, peers)
    else:
        print(f"edlib's pairs are left out: {PHAGE} isn't in the folder of real data", file=sys.stderr)
    session.begin("published, parasail")
    yield from _parasail(session, peers)


def _phage(similarity: int) -> bytes:
    """The phage, or its copy of a similarity in percent."""
    name = f"mutated_{similarity}_perc" if similarity < 100 else "Enterobacteria_phage_1"
    return next(letters for _, letters in fasta(data_folder() / PHAGE / f"{name}.fasta.gz"))


def _edlib(session: Session, peers: Peers) -> Iterator[Row]:
    found, (copy, phage) = libraries(peers, "edlib"), (_phage(90), _phage(100))
    wanted = [length for length in PREFIXES if length <= session.pick(1000, 50_000, 50_000)]
    for length in wanted:
        pair = column([copy[:length]]), column([phage[:length]])
        yield _pair(f"published/edlib, {length:,} bp", session, found, pair, length,
                    f"The first {length:,} bp of edlib's phage and of its 90 % copy, global.",
                    Reference(1 / PREFIXES[length], EDLIB, "edlib"))
    for similarity in session.pick((), SIMILARITIES, SIMILARITIES):
        pair = column([_phage(similarity)]), column([phage])
        yield _pair(f"published/phage, {similarity} %", session, found, pair, len(phage),
                    f"edlib's phage of {len(phage):,} bp and its {similarity} % copy, global; without a figure.", None)


def _within(session: Session, peers: Peers) -> Iterator[Row]:
    """Edlib's simulated reads of E. coli and their mutated copies, each within the whole genome."""
    found, genome = libraries(peers, "edlib"), _genome()
    for length in session.pick(("100bp",), ("100bp", "10kbp"), ("100bp", "10kbp")):
        files = sorted((data_folder() / READS / length).glob("*.fasta.gz"))
        queries = column([next(letters for _, letters in fasta(file)) for file in files])
        targets = _copies(column([genome]), len(files))
        systems = {OURS: ours(partial(kernels.within, queries, targets))}
        systems |= {name: by_library(library, "HW", queries, targets, ()) for name, library in found.items()}
        raw = contest(systems, session.pick(1, 2, 5), f"reads of {length}")
        yield rated(f"published/{length} within DH1", "pairs/s", len(files), raw,
                    note=f"edlib's read of {length} and its {len(files) - 1} copies of 97 to 60 %, each within "
                    f"{len(genome):,} bp; without a figure.")


def _genome() -> bytes:
    return next(letters for _, letters in fasta(data_folder() / "DH1.fasta.gz"))


def _pair(name: str, session: Session, found: Mapping[str, Library], pair: tuple[Column, Column], length: int,
          note: str, figure: Reference | None) -> Row:
    """One pair: by edlib as often as is needed to measure it, by ours alone and in all lanes."""
    repeat = session.pick(1, 5, 15)
    times = max(1, session.pick(10**7, 10**8, 10**8) // length**2)
    many = tuple(_copies(one, times) for one in pair)
    lanes = tuple(_copies(one, LANES * max(1, times // LANES)) for one in pair)
    full = len(lanes[0][0]) - 1
    alone = {f"{OURS}, a pair at a time": ours(lambda: np.concatenate([kernels.edits(*pair) for _ in range(times)]))}
    alone |= {one: by_library(library, "NW", *many, ()) for one, library in found.items()}
    raw = contest(alone, repeat, name)
    in_lanes = contest({OURS: ours(partial(kernels.edits, *lanes))}, repeat, name)[OURS]
    scaled = {OURS: [(own * times / full, wall * times / full) for own, wall in in_lanes], **raw}
    return rated(name, "pairs/s", times, scaled, published=figure,
                 note=f"{note} Ours: {LANES} or more copies of the pair at once, and the pair alone.")


def _copies(one: Column, times: int) -> Column:
    """A column of one sequence so many times over."""
    return np.arange(times + 1) * len(one[1]), np.tile(one[1], times)


def _parasail(session: Session, peers: Peers) -> Iterator[Row]:
    database = Database(session, peers)
    for length, (seconds, opal, swipe) in QUERIES.items():
        if length > session.pick(110, 513, 513):
            continue
        rates = [length * RESIDUES / 1e9 / one for one in (seconds, opal, swipe)]
        figure = Reference(rates[0], PARASAIL.format(seconds=seconds), "parasail")
        yield database.row(f"published/parasail, {length} aa", of_length(database.queries, length), "BLOSUM50", (3, 1),
                           published=figure, note="Another query of that length, fewer sequences; there Opal "
                           f"(AVX2) {rates[1]:.2f} and SWIPE (SSSE3) {rates[2]:.2f}.")
    peers.rest("pyopal")
