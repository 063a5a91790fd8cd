"""Which sequences of a database resemble each query, and how surely."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import gridcompute as grid
from gridcompute import alignment
from gridcompute.alignment import Database, Matrix
from gridcompute.alignment.significance import Significance, bit_score, expected, significance
from gridcompute.collection import Collection
from gridcompute.errors import ParameterError
from gridcompute.plots import draw_histograms, picture_path
from gridcompute.registry import Job

from .proteins import Proteins, open_proteins, require_first_proteins, simulated

PART = 2**20
"""Letters of the database that a cell compares with its query: some 5 ms of work for a query of 300."""

MOST_HITS = 10_000
"""That can be asked for, of one query."""

PLACES = 2**32
"""A hit is written as score * PLACES + PLACES - 1 - place: the greater, the better, and of equal ones the first."""

LEAST = 1e-180
"""E-values below are drawn as this."""


class Size(NamedTuple):
    """Of a database.

    Attributes:
        letters: of all sequences.
        sequences: that have letters.
    """

    letters: int
    sequences: int


@grid.kernel("(m),(),()->(rank)", sizes={"rank": 10}, names=("hit",), dtypes=("int64",))
def best_of_part(query, first, last, targets, top):  # type: ignore[no-untyped-def]  # numba infers the types
    """The best hits of a query in some blocks of the database, the best one first; -1 behind the last."""
    scores = alignment.block_scores(query, targets, first, last)
    base = targets.firsts[first]
    hits = np.full(top, -1)
    for i in range(len(scores)):
        hit = scores[i] * PLACES + PLACES - 1 - targets.numbers[base + i]
        if scores[i] > 0 and hit > hits[top - 1]:
            at = top - 1
            while at > 0 and hits[at - 1] < hit:
                hits[at] = hits[at - 1]
                at -= 1
            hits[at] = hit
    return hits


@grid.kernel("(rank),(m)->(k),(k),(k),(k)", names=("number", "rank", "score", "query_length"))
def scored(hits, query):  # type: ignore[no-untyped-def]  # numba infers the types
    """Hits of a query as rows."""
    hits = hits[hits >= 0]
    return PLACES - 1 - hits % PLACES, np.arange(1, len(hits) + 1), hits // PLACES, np.full(len(hits), len(query))


@grid.kernel("(rank),(m)->(k),(k),(k),(k),(k),(k)",
             names=("number", "rank", "score", "query_length", "bits", "evalue"))
def expectable(hits, query, constants, size, most):  # type: ignore[no-untyped-def]  # numba infers the types
    """The same with bit scores and E-values, as far as these are no greater than `most`."""
    count = 0
    bits, evalues = np.empty(len(hits)), np.empty(len(hits))
    for i in range(len(hits)):
        score = hits[i] // PLACES
        if hits[i] < 0:
            break
        evalues[i] = expected(score, len(query), size.letters, size.sequences, constants)
        if evalues[i] > most:
            break
        bits[i] = bit_score(score, constants)
        count += 1
    hits = hits[:count]
    return (PLACES - 1 - hits % PLACES, np.arange(1, count + 1), hits // PLACES, np.full(count, len(query)),
            bits[:count], evalues[:count])


def search(
    queries: str = "", database: str = "", matrix: str = "BLOSUM62", gap_open: int = 12, gap_extend: int = 1,
    top: int = 10, evalue: float = 10.0, evalues: str = "blast", count: int = 2_000, seed: int = 1,
    output: str = "hits.parquet", picture: str = "", overwrite: bool = False,
) -> Job:  # fmt: skip
    """The best local alignments of protein queries with a database: exact scores, and how often chance gives them.

    Writes one row a hit: query and target (their header lines), rank, score, bits, evalue, query_length and
    target_length; in the order of the queries, then by E-value; of equal ones the first in the database first. All of
    each query is compared with all of each target (Smith and Waterman), so nothing is missed. A gap of k letters costs
    gap-open + (k - 1) * gap-extend: the defaults are BLAST's existence 11, extension 1.

    E-values are Karlin and Altschul's with BLAST's published constants and its adjustment of lengths: what BLAST gives
    without composition-based statistics and without Spouge's correction. Lower case counts as upper, U as C, any other
    letter that the matrix doesn't have as X; a stop codon (*) has its own column.

    Args:
        queries: FASTA or FASTQ, plain or gzip: a path, URL or pattern; by default generated proteins.
        database: FASTA, plain or gzip; by default generated proteins, with copies of the generated queries.
        matrix: BLOSUM45, 50, 62, 80, 90, PAM30, 70, 250, or a file in NCBI's format.
        gap_open: what the first letter of a gap costs.
        gap_extend: what each further letter of it costs.
        top: most hits of a query.
        evalue: greatest E-value of a hit.
        evalues: "blast", or "none" for scores alone, where no constants are published for matrix and costs.
        count: how many proteins to generate.
        seed: of the generated proteins.
        output: Parquet (.parquet) or Arrow (.arrow) folder to write.
        picture: PNG to draw; by default beside the output, "none" for no picture.
        overwrite: replace an output that other data or parameters have left there.

    Examples:
        gridcompute run genomics.search
        gridcompute run genomics.search --queries new.faa --database swissprot.fa.gz --top 25 --evalue 0.001
        gridcompute run genomics.search --queries q.fa --database db.fa --matrix my.mat --evalues none
    """
    drawn = picture_path(picture, output)
    if evalues not in ("blast", "none"):
        raise ParameterError(f"evalues is {evalues!r}", hint='"blast" or "none"')
    if not 1 <= top <= MOST_HITS or not evalue > 0:
        raise ParameterError(f"top is {top}, evalue is {evalue:g}", hint=f"1 to {MOST_HITS:,} hits; an E-value above 0")
    scoring = alignment.matrix(matrix, gap_open, gap_extend)
    constants = constants_of(matrix, gap_open, gap_extend) if evalues == "blast" else None
    asked, proteins = simulated(count, seed)
    proteins = open_proteins(database, matrix) if database else proteins
    given = opened(queries, matrix) if queries else collected(asked)
    result = hits_of(given, proteins, scoring, top, constants, evalue)
    lines = [f"queries {queries or asked.described}", f"database {proteins.described}",
             f"matrix {matrix}, a gap's first letter costs {gap_open}, each further one {gap_extend}"]
    return Job([result.write(output, overwrite=overwrite)], lambda run: picture_of(output, drawn),
               lines + remarks(proteins))


def hits_of(given: Collection, proteins: Proteins, scoring: Matrix, top: int, constants: Significance | None,
            most: float) -> Collection:
    """A row a hit.

    Args:
        given: queries.
        proteins: the database.
        scoring: of letters and gaps.
        top: most hits of a query.
        constants: of E-values; none are given without.
        most: greatest E-value.
    """
    laid = alignment.database((proteins.offsets, proteins.letters), scoring)
    hits = given.assign(hit=best_hits(given, laid, top))
    size = Size(len(proteins.letters), len(laid.numbers))
    options: dict[str, Any] = {"on": ["hit", "sequence"], "keep": ["name"], "dim": "hit"}
    rows = (hits.explode(scored, **options) if constants is None else
            hits.explode(expectable, constants=constants, size=size, most=float(most), **options))
    lengths = np.diff(proteins.offsets)
    targets = grid.from_arrays({"target": list(proteins.names), "target_length": lengths}, dims="target")
    found = targets.take(rows["number"], dim="target")
    columns = [name for name in ("rank", "score", "bits", "evalue", "query_length") if name in rows.columns]
    return rows["name"].rename(name="query").assign(
        target=found["target"], **{name: rows[name] for name in columns}, target_length=found["target_length"])


def constants_of(matrix: str, gap_open: int, gap_extend: int) -> Significance:
    """Constants of E-values.

    Raises:
        ParameterError: none are published.
    """
    try:
        return significance(matrix, gap_open, gap_extend)
    except ParameterError as error:
        raise ParameterError(error.message, hint=f"{error.hint}; or scores alone: --evalues none") from None


def opened(queries: str, matrix: str) -> Collection:
    """Queries of a file.

    Raises:
        MissingInputError, CorruptInputError: it isn't there, or is neither FASTA nor FASTQ.
        ParameterError: it holds bases.
    """
    given = grid.open_sequences(queries, dim="query")
    require_first_proteins(given.op.action.source, queries, matrix)  # type: ignore[attr-defined]
    return given


def collected(proteins: Proteins) -> Collection:
    """Sequences as a collection."""
    cuts = proteins.offsets.tolist()
    letters = [proteins.letters[a:b].tobytes() for a, b in itertools.pairwise(cuts)]
    return grid.from_arrays({"name": list(proteins.names), "sequence": letters}, dims="query")


def best_hits(given: Collection, laid: Database, top: int) -> Collection:
    """The best hits of each query in the whole database, the best one first: over query and rank; see `PLACES`.

    A cell is a query and a part of the database, so that one query keeps all workers busy as well as many do.
    """
    ends = parts_of(laid)
    parts = grid.from_arrays({"first": ends[:-1], "last": ends[1:]}, dims="part")
    kernel = replace(best_of_part, sizes={"rank": top})
    found = given["sequence"].map(kernel, parts["first"], parts["last"], targets=laid, top=top)
    return found.reduce("topk", dims=("part", "rank"), k=top).fillna(-1)


def parts_of(laid: Database) -> Any:
    """First block of each part of a database, and the end: at least `PART` letters each, but for the last."""
    ends, begun = [0], 0
    for block, at in enumerate(laid.starts[1:].tolist()):
        if (at - begun) * alignment.LANES >= PART:
            ends.append(block + 1)
            begun = at
    blocks = len(laid.starts) - 1
    return np.array([*ends, *([blocks] if ends[-1] < blocks or not blocks else [])], np.int64)


def remarks(proteins: Proteins) -> list[str]:
    """What should be said about a database."""
    twice = sum(1 for many in Counter(proteins.names).values() if many > 1)
    empty = int((np.diff(proteins.offsets) == 0).sum())
    told = [f"{twice:,} names occur more than once in the database"] if twice else []
    return told + ([f"{empty:,} sequences of the database are empty and match nothing"] if empty else [])


def picture_of(output: str, picture: Path | None) -> Iterator[str | Path]:
    """Draw the scores; gives the lines and paths for the summary."""
    table: Any = grid.open_result(output).to_table()
    rank, score = table["rank"].to_numpy(), table["score"].to_numpy()
    if len(rank):
        yield (f"{len(rank):,} hits of {int((rank == 1).sum()):,} queries, "
               f"score {score.min():,} to {score.max():,}")
    else:
        yield "no hits"
    if picture is None:
        return
    groups = {"best of a query": rank == 1, "further": rank > 1}
    panels = [("score", {name: score[mask] for name, mask in groups.items()}, True)]
    if "evalue" in table.column_names:
        shown = -np.log10(np.maximum(table["evalue"].to_numpy(), LEAST))
        label = f"-log10 of the E-value ({-np.log10(LEAST):.0f} and more in one)"
        panels.append((label, {name: shown[mask] for name, mask in groups.items()}, False))
    yield draw_histograms(picture, panels, f"{len(rank):,} hits in the database", counted="hits")
