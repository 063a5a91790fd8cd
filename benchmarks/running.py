"""Runs of trivial kernels that the sections measure, each in a store of its own and checked."""

from __future__ import annotations

import contextlib
import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import gridcompute as grid
from benchmarks.rows import check, timed
from gridcompute import pacing
from gridcompute.config import environment
from gridcompute.store import open_store

_numbers = itertools.count()


def index(cell: Any) -> Any:
    """The empty kernel: a cell's own place."""
    return cell[0]


def indices(n: int, chunks: int | None = None) -> Any:
    """A collection of n cells, the empty kernel over them, in so many chunks (None: as the framework likes)."""
    kernel = grid.kernel("->()", names=("i",), parallel=chunks)(index)
    return grid.space(n=n).map(kernel)


@contextlib.contextmanager
def one_chunk_a_task() -> Iterator[None]:
    """Force a dispatch for each chunk, where a run would put as many as fill a quarter of a second."""
    before, pacing.MOST = pacing.MOST, 1
    try:
        yield
    finally:
        pacing.MOST = before


@contextlib.contextmanager
def new_store(kind: str = "folder") -> Iterator[str]:
    """A store that nobody used before, removed at the end: a "folder" of the current one, or in "memory"."""
    name = f"store-{next(_numbers)}"
    url = f"memory://{name}" if kind == "memory" else str(Path(name).absolute())
    try:
        yield url
    finally:
        if kind == "memory":
            store = open_store(url)
            for path in list(store.list()):
                store.delete(path)
        shutil.rmtree(name, ignore_errors=True)


def run_indices(n: int, chunks: int | None, *, executor: str, store: str = "folder", workers: int = 1) -> float:
    """Seconds of one run of the empty kernel, end to end; its result is read back and compared.

    Raises:
        WrongResultError: a cell has another value, or another number of chunks was computed.
    """
    with new_store(store) as url:
        out = indices(n, chunks)
        seconds, run = timed(lambda: grid.run(out, executor=executor, workers=workers, store=url, quiet=True))
        right = np.array_equal(run["i"].to_numpy(), np.arange(n))
        check(right and (chunks is None or run.status.computed == chunks), f"a run of {n} cells ({executor})")
        return seconds


@contextlib.contextmanager
def own_folders(folder: Path) -> Iterator[None]:
    """State, compiled code and default store in the benchmark's own folder."""
    values = {"GRIDCOMPUTE_STATE": "state", "GRIDCOMPUTE_CACHE": "cache", "GRIDCOMPUTE_STORE": "store"}
    with environment({name: str(folder / place) for name, place in values.items()}):
        yield
