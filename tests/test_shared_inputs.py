"""What all cells share is in memory once, and gives what it gives if it is repeated."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

import gridcompute as grid
from gridcompute.cellinputs import arrange, is_shared
from gridcompute.columns import Fixed
from gridcompute.compiled import run_cells
from gridcompute.kernels import Kernel

pytestmark = pytest.mark.usefixtures("own_folder")

CELLS, TIMES, MODES = (5, 7), 6, 3


@grid.kernel("(time),(time,mode),()->(mode)", names=("dots",))
def cell_dots(series, vectors, factor):  # type: ignore[no-untyped-def]
    """Products of a series with vectors."""
    found = np.zeros(vectors.shape[1])
    for t in range(len(series)):
        for m in range(vectors.shape[1]):
            found[m] += series[t] * vectors[t, m] * factor
    if series[0] > 100.0:
        raise ValueError("too large")
    return found


@grid.kernel("(time),(time,mode),()->(mode)", names=("dots",), batch=True)
def batch_dots(series, vectors, factor):  # type: ignore[no-untyped-def]
    """The same of all cells."""
    found = np.zeros((series.shape[0], vectors.shape[2]))
    for i in range(series.shape[0]):
        for t in range(series.shape[1]):
            for m in range(vectors.shape[2]):
                found[i, m] += series[i, t] * vectors[i, t, m] * factor[i]
    return found


@grid.task("(time),(time,mode),()->(mode)", dtypes=("f8",), names=("dots",))
def task_dots(series, vectors, factor):  # type: ignore[no-untyped-def]
    """The same in Python."""
    assert vectors.shape == (len(series), TIMES, MODES)
    found = np.zeros((len(series), MODES))
    for t in range(TIMES):
        found += series[:, t, None] * vectors[:, t] * factor[:, None]
    return found


def inputs(cells: tuple[int, ...] = CELLS) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(2)
    return draw.normal(size=(TIMES, *cells)), draw.normal(size=(TIMES, MODES))


@pytest.mark.parametrize("on_error", ["stop", "skip"])
@pytest.mark.parametrize("kernel", [cell_dots, batch_dots, task_dots])
def test_a_run_gives_what_it_gives_of_repeated_inputs(kernel: Kernel, on_error: str) -> None:
    series, vectors = inputs()
    skips = on_error == "skip" and kernel is cell_dots
    if skips:
        series[0, 2, 3] = 1000.0
    field = grid.from_arrays({"x": series}, dims=("time", "lat", "lon"))["x"]
    options: dict[str, Any] = {"on_error": "skip"} if skips else {}
    found = []
    for name, dims, shape in (("once", ("time", "mode"), ()), ("rows", ("lat", "time", "mode"), CELLS[:1]),
                              ("cells", ("lat", "lon", "time", "mode"), CELLS)):
        given = grid.from_arrays({"v": np.broadcast_to(vectors, (*shape, TIMES, MODES)).copy()}, dims=dims)["v"]
        factor = grid.from_arrays({"f": np.full((), 0.3)}, dims=())["f"]
        run = grid.run(field.map(kernel, given, factor, **options), executor="inline", store=name, quiet=True)
        found.append(run[0].to_xarray()["dots"].transpose("lat", "lon", "mode").values)
    assert found[0].tobytes() == found[1].tobytes() == found[2].tobytes()
    want = np.einsum("tyx,tm->yxm", series, vectors) * 0.3
    there = ~np.isnan(found[0])
    assert there.all() != skips
    np.testing.assert_allclose(found[0][there], want[there], rtol=1e-12)


@pytest.mark.parametrize("cells", [(40, 50), (1, 1)])
def test_it_is_in_memory_once(cells: tuple[int, int]) -> None:
    series, _ = inputs(cells)
    vectors = np.random.default_rng(1).normal(size=(TIMES, 400))
    shared = Fixed(np.broadcast_to(vectors, (*cells, *vectors.shape)))
    columns = [Fixed(np.ascontiguousarray(np.moveaxis(series, 0, -1))), shared, Fixed(np.full(cells, 0.3))]
    laid = arrange(cell_dots, columns, {}, cells, None, None)
    assert [is_shared(column) for column in laid.columns] == [False, True, False]
    run_cells(cell_dots, columns, shape=cells)  # compiles
    tracemalloc.start()
    (one,) = run_cells(cell_dots, columns, shape=cells)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    count = cells[0] * cells[1]
    assert peak < count * 400 * 8 + vectors.nbytes + 2**16  # the results, and not the vectors of each cell
    repeated = [columns[0], Fixed(np.array(shared.values)), columns[2]]
    (other,) = run_cells(cell_dots, repeated, shape=cells)
    assert one.values.tobytes() == other.values.tobytes()
