"""NumPy's BLAS has one thread within tasks: with more its results have other last bits."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import gridcompute as grid
from gridcompute import blas
from gridcompute.errors import GridError

pytestmark = pytest.mark.usefixtures("own_folder")


@pytest.fixture
def two_threads() -> Iterator[None]:
    functions = blas.openblas()
    if functions is None:
        pytest.skip("NumPy's BLAS isn't an OpenBLAS")
    threads, become = functions
    before = threads()
    become(2)
    yield
    become(before)


def threads_now() -> int:
    functions = blas.openblas()
    assert functions is not None
    return functions[0]()


@grid.task("(x,y)->(x,y),(x)", dtypes=("f8", "f8"), names=("vector", "threads"))
def eigenvectors(matrix):  # type: ignore[no-untyped-def]
    """Of a matrix, with how many threads BLAS had."""
    if np.isnan(matrix).any():
        raise ValueError("no numbers")
    return np.linalg.eigh(matrix[0])[1][None], np.full((1, len(matrix[0])), threads_now())


def found(values: np.ndarray, store: str) -> dict[str, np.ndarray]:
    series = grid.from_arrays({"m": values}, dims=("x", "y"))["m"]
    run = grid.run(series.map(eigenvectors), executor="inline", store=store, quiet=True)
    return {name: run[name].to_numpy() for name in ("vector", "threads")}


def test_eigenvectors_have_the_same_bits_however_many_threads_there_are(two_threads: None) -> None:
    rows = np.random.default_rng(0).normal(size=(180, 2000))
    matrix = rows @ rows.T
    here = found(matrix, "one")
    assert (here["threads"] == 1).all()
    assert threads_now() == 2
    with blas.one_thread():
        with blas.one_thread():
            assert np.linalg.eigh(matrix)[1].tobytes() == here["vector"].tobytes()
        assert threads_now() == 1  # the outer one goes on
    assert threads_now() == 2


def test_a_task_that_fails_gives_the_threads_back(two_threads: None) -> None:
    with pytest.raises(GridError, match="no numbers"):
        found(np.full((3, 3), np.nan), "two")
    assert threads_now() == 2


def test_another_library_is_left_alone(monkeypatch: pytest.MonkeyPatch, two_threads: None) -> None:
    monkeypatch.setattr(blas, "openblas", lambda: None)
    with blas.one_thread():
        pass
    monkeypatch.undo()
    assert threads_now() == 2
