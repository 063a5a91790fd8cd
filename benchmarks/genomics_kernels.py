"""Rows of the benchmark `genomics` for kernels: pairs of DNA, a protein against a database, near-identical pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import genomics_ours as kernels
from benchmarks.genomics_contest import System, compiled, contest, fastest, ours, rated
from benchmarks.genomics_data import Column, cells, column, first, first_genome, of_length, pairs, proteins
from benchmarks.genomics_libraries import Library, Took, libraries
from benchmarks.peering import PeerProcess, Peers
from benchmarks.rows import OURS, Reference, Row, Session

BWA = (1, 4, 7, 1)
"""What bwa mem scores: match, mismatch, first letter of a gap, each further one (the last three are taken off)."""

WFA = (4, 6, 2)
"""What a mismatch, opening a gap and each letter of it cost WFA2-lib unless it is told otherwise."""

WFA_SCORES = (2, 2, 7, 1)
"""The same with a score for matches, as above: the score is the number of both sequences' letters less the cost."""

GAPS = (12, 1)
"""As BLAST has them for proteins: 11 for opening one, 1 for each letter."""

PARASAIL = tuple(f"sw_{how}_{width}" for how in ("striped", "striped_profile", "scan", "diag")
                 for width in ("sat", "16", "8") if (how, width) != ("striped_profile", "8"))  # fmt: skip
PROFILED = ("sw_striped_profile_sat", "sw_striped_profile_16", "sw_scan_profile_16")
SWIPE = Reference(106 / 12, "Rognes, BMC Bioinformatics 12:221 (2011), abstract: 106 GCUPS on 12 cores, 375 residues, "
                  "SSSE3", "SWIPE, a core")


@lru_cache
def _letters(folder: str) -> tuple[Any, str]:
    genome = first_genome(Path(folder))
    return genome.letters, genome.source


def drawn(session: Session, count: int, length: int, errors: float) -> tuple[Column, Column, str]:
    """Pairs, and what they are."""
    letters, source = _letters(session.folder)
    told = f"{count:,} stretches of {length:,} bp ({source}), with {errors:.0%} errors."
    return *pairs(letters, count, length, errors), told


# --- scores ---


def scores(session: Session, peers: Peers) -> Iterator[Row]:
    """Local alignment scores of DNA pairs, against parasail."""
    found = libraries(peers, "parasail")
    few = drawn(session, 1, 20, 0.0)
    yield compiled("local scores", lambda: kernels.local(few[0], few[1], BWA))
    count, repeat = session.pick((4096, 2), (65_536, 7), (65_536, 31))
    for length in (100, 150, 250):
        session.begin(f"scores, {length} bp")
        queries, targets, told = drawn(session, count, length, 0.05)
        systems: dict[str, System] = {OURS: ours(partial(kernels.local, queries, targets, BWA))}
        for name, library in found.items():
            how = _best_pairs(library, queries, targets)
            told += f" parasail: {how}, the fastest of {len(PARASAIL)} ways that were tried."
            systems[name] = by_library(library, how, queries, targets, BWA)
        raw = contest(systems, repeat, f"local scores of {length} bp")
        yield rated(f"scores/{length} bp", "GCUPS", cells(queries, targets) / 1e9, raw, times=8, note=told)


def _best_pairs(library: Library, queries: Column, targets: Column) -> str:
    some = first(queries, 4096), first(targets, 4096)
    ways = {how: by_library(library, how, *some, BWA) for how in PARASAIL}
    return fastest(ways, kernels.local(*some, BWA))


def by_library(library: Library, how: str, queries: Column, targets: Column, costs: Sequence[int]) -> System:
    return lambda: library.pairs(how, queries, targets, costs)


# --- proteins ---


class Database:
    """A database of proteins that everybody has read before it is searched.

    Attributes:
        sequences: as a column.
        source: where it is from.
        queries: to take some from.
    """

    def __init__(self, session: Session, peers: Peers) -> None:
        every, self.source = proteins("DB")
        self.sequences = column(every[: session.pick(2000, len(every), len(every))])
        self.queries = proteins("QUERY")[0]
        self.path = str(Path(session.folder, "proteins.npz").absolute())
        np.savez(self.path, targets=self.sequences[1], targets_at=self.sequences[0])
        self._parasail, self._pyopal = libraries(peers, "parasail"), peers.of("pyopal")
        self.repeat = session.pick(1, 5, 15)

    def row(self, name: str, query: bytes, matrix: str, gaps: tuple[int, int], *, times: float | None = None,
            published: Reference | None = None, note: str = "") -> Row:
        """One query against all: gaps are what the first letter and each further one take off."""
        stored = kernels.stored(self.sequences, matrix, gaps)
        systems: dict[str, System] = {OURS: ours(lambda: kernels.search(query, stored))}
        expected = kernels.search(query, stored)
        best = list[str]()
        for peer in self._pyopal.values():
            every = {how: _opal(peer, self.path, query, matrix, gaps, how) for how in ("buckets", "simple")}
            best.append(f"overflow={fastest(every, expected)!r}")
            systems["pyopal"] = every[best[-1].split("'")[1]]
        for library in self._parasail.values():
            every = {how: _search(library, how, matrix.lower(), query, self.sequences, gaps) for how in PROFILED}
            best.append(fastest(every, expected))
            systems["parasail"] = every[best[-1]]
        raw = contest(systems, self.repeat, f"search of {len(query)} residues")
        size = len(query) * int(self.sequences[0][-1]) / 1e9
        told = f"{len(query)} residues against {len(self.sequences[0]) - 1:,} ({self.source}), {matrix}, gaps " \
               f"{gaps[0]} and {gaps[1]}; peers: {', '.join(best) or 'none'}. {note}"
        return rated(name, "GCUPS", size, raw, times=times, published=published, note=told.strip())


def _opal(peer: PeerProcess, path: str, query: bytes, matrix: str, gaps: tuple[int, int], overflow: str) -> System:
    def measure() -> tuple[Took, Any]:
        own, value = peer.ask("search", path=path, query=query.decode(), matrix=matrix, gap_open=gaps[0],
                              gap_extend=gaps[1], overflow=overflow)
        return (own, value["clock"]), np.array(value["scores"])

    return measure


def _search(library: Library, how: str, matrix: str, query: bytes, targets: Column, gaps: tuple[int, int]) -> System:
    return lambda: library.search(how, matrix, query, targets, gaps)


def searches(session: Session, peers: Peers) -> Iterator[Row]:
    """Local scores of one protein against many, against Opal (and parasail)."""
    database = Database(session, peers)
    few = first(database.sequences, 1)
    yield compiled("search", lambda: kernels.search(b"MK", kernels.stored(few, "BLOSUM62", GAPS)))
    for length in session.pick((66, 374), (66, 144, 221, 374, 991), (66, 144, 221, 374, 991)):
        session.begin(f"proteins, {length} residues")
        query = of_length(database.queries, length)
        yield database.row(f"proteins/{length} aa", query, "BLOSUM62", GAPS, times=3,
                           published=SWIPE if length == 374 else None)
    peers.rest("pyopal")


# --- edits ---


def edits(session: Session, peers: Peers) -> Iterator[Row]:
    """Edit distances, against edlib."""
    found = libraries(peers, "edlib")
    few = drawn(session, 1, 20, 0.0)
    yield compiled("edit distances", lambda: kernels.edits(few[0], few[1]))
    short, repeat = session.pick((4096, 2), (65_536, 7), (65_536, 31))
    wanted = session.pick((100, 150, 250, 1000, 10_000), *[(100, 150, 250, 1000, 2000, 5000, 10_000)] * 2)
    for length in wanted:
        session.begin(f"edits, {length} bp")
        count = short if length <= 250 else max(64, short * 16 // length // 64 * 64)
        queries, targets, told = drawn(session, count, length, 0.05)
        systems: dict[str, System] = {OURS: ours(partial(kernels.edits, queries, targets))}
        systems |= {name: by_library(library, "NW", queries, targets, ()) for name, library in found.items()}
        raw = contest(systems, repeat, f"edit distances of {length} bp")
        yield rated(f"edits/{length} bp", "pairs/s", count, raw, times=6 if length <= 250 else 1, note=told)


# --- near-identical pairs ---


def similar(session: Session, peers: Peers) -> Iterator[Row]:
    """Scores of global alignments of near-identical pairs, against WFA2-lib in C and by pywfa."""
    found = libraries(peers, "wfa2")
    few = drawn(session, 1, 20, 0.0)
    yield compiled("similar pairs", lambda: kernels.similar(few[0], few[1], WFA_SCORES))
    short, repeat = session.pick((4096, 2), (65_536, 7), (65_536, 31))
    for length, errors, times in ((150, 0.02, 1.5), (1000, 0.02, 1.0), (150, 0.05, None), (1000, 0.05, None)):
        session.begin(f"similar, {length} bp, {errors:.0%}")
        count = short if length < 1000 else max(1, short // 8)
        queries, targets, told = drawn(session, count, length, errors)
        path = str(Path(session.folder, f"similar-{length}-{errors}.npz").absolute())
        np.savez(path, queries=queries[1], queries_at=queries[0], targets=targets[1], targets_at=targets[0])
        systems: dict[str, System] = {OURS: ours(partial(kernels.similar, queries, targets, WFA_SCORES))}
        letters = np.diff(queries[0]) + np.diff(targets[0])
        every = {name: by_library(library, "score", queries, targets, WFA) for name, library in found.items()}
        every |= {name: _pywfa(peer, path) for name, peer in peers.of("pywfa").items()}
        systems |= {name: partial(_as_scores, system, letters) for name, system in every.items()}
        raw = contest(systems, repeat, f"similar pairs of {length} bp")
        yield rated(f"similar/{length} bp, {errors:.0%}", "pairs/s", count, raw, times=times,
                    note=f"{told} Scores only, exact: no heuristic on either side.")
    peers.rest("pywfa")


def _as_scores(system: System, letters: Any) -> tuple[Took, Any]:
    spent, costs = system()
    return spent, letters - costs


def _pywfa(peer: PeerProcess, path: str) -> System:
    def measure() -> tuple[Took, Any]:
        own, value = peer.ask("pairs", path=path, scope="score", mismatch=WFA[0], gap_open=WFA[1], gap_extend=WFA[2])
        return (own, value["clock"]), np.array(value["scores"])

    return measure
