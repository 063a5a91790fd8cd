"""How two sequences a row go together: scores, distances and paths."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit

import gridcompute as grid
from gridcompute import alignment
from gridcompute.alignment import global_paths, local_paths, semiglobal_paths
from gridcompute.collection import Collection
from gridcompute.errors import CorruptInputError, ParameterError
from gridcompute.plots import draw_histograms, picture_path
from gridcompute.registry import Job
from gridcompute.sequences import best_semiglobal, edit_distance, reverse_complement, simulate_reads
from gridcompute.sources.fastx import read_sequences

NAMES = ("score", "query_start", "query_end", "target_start", "target_end", "distance", "cigar")
"""Columns of the result."""


@njit(nogil=True)
def distances(queries: Any, targets: Any, free: bool) -> Any:
    """Edit distances of pairs: of whole sequences, or of whole queries and the nearest stretch of the target."""
    (query_at, query_letters), (target_at, target_letters) = queries, targets
    found = np.empty(len(query_at) - 1, np.int64)
    for i in range(len(found)):
        query = query_letters[query_at[i] : query_at[i + 1]]
        target = target_letters[target_at[i] : target_at[i + 1]]
        found[i] = best_semiglobal(query, target)[0] if free else edit_distance(query, target)
    return found


def _kernel(paths: Callable[..., Any], free: bool) -> Any:
    """A kernel of a mode."""

    def aligned(queries, targets, scoring, plain):  # type: ignore[no-untyped-def]  # numba infers the types
        score, query_start, query_end, target_start, target_end, cigar = paths(queries, targets, scoring, plain)
        distance = distances(queries, targets, free)
        return score, query_start, query_end, target_start, target_end, distance, cigar

    return grid.kernel("(m),(n)->(),(),(),(),(),(),(cigar)", batch=True, names=NAMES,
                       dtypes=("i8",) * 6 + ("u4",))(aligned)


MODES = {"local": _kernel(local_paths, False), "global": _kernel(global_paths, False),
         "semiglobal": _kernel(semiglobal_paths, True)}
"""Kernels by mode."""


def pairs(
    input: str = "",
    query: str = "query",
    target: str = "target",
    queries: str = "",
    targets: str = "",
    mode: str = "global",
    match: int = 1,
    mismatch: int = 2,
    gap_open: int = 3,
    gap_extend: int = 1,
    matrix: str = "",
    plain: bool = False,
    count: int = 20_000,
    length: int = 150,
    errors: float = 0.05,
    seed: int = 1,
    output: str = "pairs.parquet",
    picture: str = "",
    overwrite: bool = False,
) -> Job:
    """Alignment score, path and edit distance of each pair of sequences.

    Writes one row a pair: the table's other columns (or both names), score, query_start, query_end, target_start,
    target_end (from 0, ends exclusive), distance and cigar, numbers as in BAM: length << 4 | operation. The distance is
    that of the whole sequences; in mode semiglobal, of the query and the nearest stretch of the target. In scores a
    letter outside ACGT equals none, in distances N equals N. Rows with a null are left out. Exact, whatever the length.

    Args:
        input: Parquet, Arrow, CSV or TSV files with two columns of sequences: a path, URL or pattern.
        query: name of the column of queries.
        target: name of the column of targets.
        queries: in place of a table, FASTA or FASTQ of queries; both files are read into memory.
        targets: FASTA or FASTQ of targets, row by row those of the queries.
        mode: local, global or semiglobal (the whole query against a stretch of the target).
        match: what two equal letters score.
        mismatch: what two others cost.
        gap_open: what the first letter of a gap costs.
        gap_extend: what each further one costs.
        matrix: name of a substitution matrix in place of match and mismatch, such as BLOSUM62.
        plain: M in CIGARs, in place of = and X.
        count: how many pairs to simulate where no input is named.
        length: letters of simulated sequences.
        errors: share of wrong letters in simulated targets.
        seed: of the simulation.
        output: Parquet (.parquet) or Arrow (.arrow) folder to write.
        picture: PNG to draw; by default beside the output, "none" for no picture.
        overwrite: replace an output that other data or parameters have left there.

    Examples:
        gridcompute run genomics.pairs --input pairs.tsv --query read --target window --mode semiglobal
        gridcompute run genomics.pairs --queries a.fasta --targets b.fasta --match 2 --mismatch 4 --gap-open 6
    """
    drawn, scoring = picture_path(picture, output), scoring_of(match, mismatch, gap_open, gap_extend, matrix)
    rows = opened(input, query, target, queries, targets)
    given, kept, what = rows or simulated(count, length, errors, seed, query, target)
    found = given[query].map(kernel_of(mode), given[target], scoring=scoring, plain=plain)
    result = given[kept].assign(**{name: found[name] for name in NAMES}) if kept else found
    written = result.write(output, overwrite=overwrite)
    return Job([written], lambda run: picture_of(output, drawn, mode), [f"input {what}"])


def kernel_of(mode: str) -> Any:
    """The kernel of a mode.

    Raises:
        ParameterError: no such mode.
    """
    if mode not in MODES:
        raise ParameterError(f"mode is {mode!r}", hint=f"one of {', '.join(MODES)}")
    return MODES[mode]


def scoring_of(match: int, mismatch: int, gap_open: int, gap_extend: int, matrix: str) -> Any:
    """Scores by their parameters.

    Raises:
        ParameterError: they make no sense, or no matrix has that name.
    """
    if not matrix:
        return alignment.simple(match, mismatch, gap_open, gap_extend)
    named = getattr(alignment, "matrix", None)
    if named is None:
        raise ParameterError(f"matrix is {matrix!r}, but there are no matrices", hint="leave it away")
    return named(matrix, gap_open, gap_extend)


def opened(input: str, query: str, target: str, queries: str, targets: str) -> tuple[Collection, list[str], str] | None:
    """The rows that are named, the columns to keep, and a line for people; None where none are named.

    Raises:
        ParameterError: a table and files together, one file of two, no such columns, or one that the result has.
        CorruptInputError: files of different numbers of sequences.
    """
    if input and (queries or targets):
        raise ParameterError("both a table (--input) and files of sequences are named", hint="name one of them")
    if input:
        table = grid.open_table(input)
        names = [f.name for f in table.fields]
        for name in (query, target):
            if name not in names:
                raise ParameterError(f"{input} has no column {name!r}", hint=f"it has {', '.join(names)}; see --query "
                                     "and --target")
            if table.op.field(name).kind != "string":
                raise ParameterError(f"column {name!r} of {input} holds no text", hint="sequences are text")
        if twice := sorted({*NAMES} & {*names}):
            raise ParameterError(f"{input} has a column {twice[0]!r}, as the result will have",
                                 hint="rename it, or leave it out of the table")
        there = table[[query, target]].dropna() if len(names) == 2 else table.dropna([query, target])
        return there, [name for name in names if name not in (query, target)], f"pairs {input}"
    if not (queries or targets):
        return None
    if not (queries and targets):
        raise ParameterError("only one file of sequences is named", hint="pairs need --queries and --targets")
    ours, theirs = read_sequences(queries), read_sequences(targets)
    if len(ours[0]) != len(theirs[0]):
        raise CorruptInputError(f"{queries} has {len(ours[0]):,} sequences, {targets} has {len(theirs[0]):,}",
                                hint="row by row a query and its target: both files must have as many")
    columns = {"query_name": list(ours[0]), "target_name": list(theirs[0]), query: _cells(ours[1], ours[2]),
               target: _cells(theirs[1], theirs[2])}
    return grid.from_arrays(columns, dims="row"), ["query_name", "target_name"], f"pairs of {queries} and {targets}"


def _cells(offsets: Any, letters: Any) -> list[bytes]:
    cuts = offsets.tolist()
    return [letters[a:b].tobytes() for a, b in itertools.pairwise(cuts)]


def simulated(count: int, length: int, errors: float, seed: int, query: str,
              target: str) -> tuple[Collection, list[str], str]:
    """Pairs of which the targets are the queries with errors, eight tenths of them substitutions.

    Raises:
        ParameterError: a count, length or rate that makes no sense.
    """
    if count < 1 or length < 1:
        raise ParameterError(f"count is {count}, length is {length}", hint="1 or more")
    letters = np.frombuffer(b"ACGT", np.uint8)
    source = np.random.default_rng(seed).choice(letters, max(4 * length, 100_000))
    rates = {"substitution": 0.8 * errors, "insertion": 0.1 * errors, "deletion": 0.1 * errors}
    drawn = simulate_reads(source, count, length=(length, length), seed=seed, **rates)
    places = zip(drawn.position.tolist(), drawn.end.tolist(), drawn.strand.tolist(), strict=True)
    true = [source[a : b + 1] if strand > 0 else reverse_complement(source[a : b + 1]) for a, b, strand in places]
    columns = {query: [one.tobytes() for one in true], target: _cells(drawn.offsets, drawn.values)}
    what = f"{count:,} simulated pairs of {length} letters, {100 * errors:g} % errors, seed {seed}"
    return grid.from_arrays(columns, dims="row"), [], what


def picture_of(output: str, picture: Path | None, mode: str) -> Iterator[str | Path]:
    """Draw scores and distances; gives the lines and paths for the summary."""
    table: Any = grid.open_result(output).to_table(columns=["score", "distance"])
    scores, found = table["score"].to_numpy(), table["distance"].to_numpy()
    if not len(scores):
        yield "no pairs"
        return
    yield (f"{len(scores):,} pairs, {mode} scores {scores.min()} to {scores.max()}, median {np.median(scores):g}; "
           f"distances {found.min()} to {found.max()}, median {np.median(found):g}")
    if picture is not None:
        panels = [("score", {"score": scores}, True), ("edit distance", {"distance": found}, True)]
        yield draw_histograms(picture, panels, f"Alignment of {len(scores):,} pairs ({mode})", "pairs")
