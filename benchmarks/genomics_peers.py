"""The peers' side of the benchmark `genomics` in Python: pyopal and pywfa. Nothing of gridcompute is imported.

What they align lies in files that NumPy wrote: letters and offsets of queries and targets.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from itertools import pairwise
from typing import Any

Answer = tuple[float, Any]


def _took(work: Callable[[], Any], scores: Callable[[Any], list[int]]) -> Answer:
    """Seconds of the thread's processor; on the clock, and the scores."""
    clock, own = time.perf_counter(), time.thread_time()
    value = work()
    spent, clock = time.thread_time() - own, time.perf_counter() - clock
    return spent, {"clock": clock, "scores": scores(value)}


@lru_cache
def _sequences(path: str, what: str) -> list[str]:
    import numpy as np

    with np.load(path) as stored:
        offsets, letters = stored[f"{what}_at"].tolist(), stored[what].tobytes().decode()
    return [letters[a:b] for a, b in pairwise(offsets)]


@lru_cache
def _database(path: str, matrix: str) -> Any:
    """The targets as Opal wants them, encoded beforehand."""
    pyopal = import_module("pyopal")
    return pyopal.Database(_sequences(path, "targets"), pyopal.Aligner(matrix).alphabet)


def pyopal_search(path: str, query: str, matrix: str, gap_open: int, gap_extend: int, overflow: str) -> Answer:
    """Local scores of one query against all targets by one call."""
    aligner = import_module("pyopal").Aligner(matrix, gap_open=gap_open, gap_extend=gap_extend)
    database = _database(path, matrix)
    return _took(lambda: aligner.align(query, database, mode="score", overflow=overflow, algorithm="sw"),
                 lambda found: [one.score for one in found])


def pywfa_pairs(path: str, scope: str, mismatch: int, gap_open: int, gap_extend: int) -> Answer:
    """Costs of global alignments, a call for each pair, by one aligner for all of them."""
    aligner = import_module("pywfa").WavefrontAligner(
        distance="affine", scope=scope, span="end-to-end", heuristic=None, match=0, mismatch=mismatch,
        gap_opening=gap_open, gap_extension=gap_extend)  # fmt: skip
    queries, targets = _sequences(path, "queries"), _sequences(path, "targets")
    align = aligner.wavefront_align
    return _took(lambda: [align(target, query) for query, target in zip(queries, targets, strict=True)],
                 lambda found: [-score for score in found])
