"""Our alignment functions, as the benchmark `genomics` calls them: on whole columns, in the calling thread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.genomics_data import Column
from gridcompute import alignment


def local(queries: Column, targets: Column, costs: Sequence[int]) -> Any:
    """Local scores; costs: match, mismatch, first letter of a gap, each further one."""
    return alignment.local_scores(queries, targets, alignment.simple(*costs))


def stored(sequences: Column, matrix: str, gaps: tuple[int, int]) -> Any:
    """A database as it is kept for searches; gaps: first letter, each further one."""
    return alignment.database(sequences, alignment.matrix(matrix, *gaps))


def search(query: bytes, database: Any) -> Any:
    """Local scores of one query against all of a database."""
    return alignment.search_scores(np.frombuffer(query, np.uint8), database)


def edits(queries: Column, targets: Column) -> Any:
    """Edit distances of whole sequences."""
    return alignment.edit_distances(queries, targets)[0]


def within(queries: Column, targets: Column) -> Any:
    """Edit distances of whole queries and the best stretches of their targets."""
    return alignment.edit_distances(queries, targets, "within")[0]


def similar(queries: Column, targets: Column, costs: Sequence[int]) -> Any:
    """Scores of whole near-identical sequences; costs as in `local`."""
    return alignment.similar_scores(queries, targets, alignment.simple(*costs))
