"""Where a kernel failed, in the user's words: dimensions, labels, input, and the call that runs the cell alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gridcompute as grid
from gridcompute import driver, slabs
from gridcompute.errors import KernelError, WorkerLostError
from gridcompute.events import Failure, Task, TaskFailed
from gridcompute.executor import InlineExecutor
from gridcompute.losses import named
from gridcompute.orders import Order
from gridcompute.planning import Plan
from gridcompute.progressword import Board, Mark
from gridcompute.running import graph_of

pytestmark = [pytest.mark.faults, pytest.mark.usefixtures("own_folder")]

CUBE = np.arange(3 * 4 * 10.0).reshape(3, 4, 10)
LABELS = {"time": np.array(["2001-01-01", "2001-01-02", "2001-01-03T12"], "M8[us]"),
          "lat": np.linspace(50, 53, 4), "lon": np.arange(10) - 120.0}  # fmt: skip


@grid.kernel("(time)->()")
def series(values):  # type: ignore[no-untyped-def]
    if values[0] == 23.0:
        raise ValueError("not that one")
    return values.sum()


@grid.kernel("(lat,lon)->()")
def window(values):  # type: ignore[no-untyped-def]
    if values[1, 1] == 23.0:
        raise ValueError("not that one")
    return values.sum()


@grid.kernel("()->()")
def single(value, number=7.0):  # type: ignore[no-untyped-def]
    if value == number:
        raise ValueError("not that one")
    return value


@grid.kernel("()->(k)")
def several(value):  # type: ignore[no-untyped-def]
    if value == 7.0:
        raise ValueError("not that one")
    return np.zeros(2) + value


def cube() -> Any:
    return grid.from_arrays({"t": CUBE}, dims=("time", "lat", "lon"), coords=LABELS)["t"]


def failure(out: Any, **options: Any) -> KernelError:
    with pytest.raises(KernelError) as caught:
        grid.run(out, **{"executor": "inline", **options})
    return caught.value


def test_a_failed_cell_is_named_by_dimension_label_and_input() -> None:
    error = failure(cube().map(series))
    assert error.message == ("kernel series failed at lat=2 (52.0), lon=3 (-117.0) of t in arrays in memory: "
                             "ValueError: not that one")  # fmt: skip
    assert (error.op, error.cell, error.dims) == ("series", (2, 3), ("lat", "lon"))
    assert error.args == (error.message,)


def test_labels_are_those_of_the_input_after_a_selection() -> None:
    error = failure((cube() - 0.0).isel(lat=slice(1, 4)).map(series))
    assert "at lat=1 (52.0), lon=3 (-117.0) of t in" in error.message
    assert error.cell == (1, 3)


def test_the_call_that_the_hint_prints_fails_in_that_cell_alone() -> None:
    x = cube().map(series)
    error = failure(x)
    call = error.hint.split(" runs it alone")[0]
    assert call == 'grid.run(x.isel(lat=2, lon=3), executor="inline")'
    assert "where x is what series gives" in error.hint
    with pytest.raises(KernelError) as again:
        eval(call, {"grid": grid, "x": x})
    assert again.value.cell == (2, 3)
    assert grid.run(x.isel(lat=2, lon=4), executor="inline")[0].to_numpy() == CUBE[:, 2, 4].sum()


def test_files_and_variables_are_named(tmp_path: Path) -> None:
    import xarray as xr

    for i in range(2):
        data = xr.Dataset({"t2m": (("time", "lat"), CUBE[:, :, i])}, coords={"time": np.arange(3) + 3 * i})
        data.to_netcdf(tmp_path / f"part{i}.nc", engine="scipy")
    x = grid.open_dataset([str(tmp_path / "part0.nc"), str(tmp_path / "part1.nc")])["t2m"]
    error = failure(x.map(single, number=31.0))
    assert f"of t2m in {tmp_path / 'part1.nc'}: " in error.message
    assert "at time=3 (3), lat=3" in error.message


def test_neighbourhoods_name_the_cell_in_the_middle() -> None:
    for out in (cube().stencil(window, {"lat": 1, "lon": 1}),
                cube().isel(time=0).iterate(window, 2, halo={"lat": 1, "lon": 1})):  # fmt: skip
        assert "lat=2 (52.0), lon=3 (-117.0) of t in arrays in memory: " in failure(out).message


def test_a_chunk_kernel_names_its_cells() -> None:
    @grid.task("(time)->()", dtypes=["f8"])
    def bulk(values: Any) -> Any:
        if len(values) > 1:
            raise ValueError("none of them")
        return values.sum(1)

    error = failure(grid.from_arrays({"t": np.zeros((3, 4, 256))}, dims=("time", "lat", "lon")).map(bulk))
    assert error.message == ("kernel bulk failed on lat 0 to 1, lon 0 to 4 of t in arrays in memory: "
                             "ValueError: none of them")  # fmt: skip
    assert "x.isel(lat=slice(0, 1), lon=slice(0, 4))" in error.hint
    assert error.cell is None


def test_a_kernel_of_all_there_is_says_so_and_its_notes_are_the_hint() -> None:
    @grid.task("(time,lat,lon)->()", dtypes=["f8"])
    def whole(values: Any) -> Any:
        error = ValueError("too flat")
        error.add_note("take a steeper one")
        raise error

    error = failure(cube().map(whole))
    assert str(error) == ("kernel whole failed on all of t in arrays in memory: ValueError: too flat\n"
                          "  -> take a steeper one")  # fmt: skip


def test_a_chunk_kernel_is_run_on_halves_until_a_cell_fails_alone() -> None:
    @grid.task("(time)->()", dtypes=["f8"])
    def bulk(values: Any) -> Any:
        if (values[:, 0] == 1023.0).any():
            raise ValueError("not that one")
        return values.sum(1)

    field = np.arange(3 * 4 * 1024.0).reshape(3, 4, 1024)
    x = grid.from_arrays({"t": field}, dims=("time", "lat", "lon"))
    error = failure(x.map(bulk))
    assert error.message == "kernel bulk failed at lat=0, lon=1023 of t in arrays in memory: ValueError: not that one"
    assert error.cell == (0, 1023)

    error = failure(grid.from_arrays({"v": np.arange(1024.0)}, dims="row").explode(several_at_once))
    assert "failed at row=700 of v in arrays in memory: ValueError: not that one" in error.message


@grid.task("()->(k)", dtypes=["f8"])
def several_at_once(values: Any) -> Any:
    if (values == 700.0).any():
        raise ValueError("not that one")
    return np.ones(len(values), np.int64), values


def test_rows_that_are_not_counted_are_named_within_their_block() -> None:
    rows = grid.from_arrays({"v": np.arange(10.0)}, dims="row")
    error = failure(rows.filter(rows["v"] > 3)["v"].map(single))
    assert "at row 0 of block 7 of v in arrays in memory: " in error.message
    assert "on that cell's input" in error.hint


def test_an_exploded_row_is_named_by_the_input() -> None:
    error = failure(grid.from_arrays({"v": np.arange(10.0)}, dims="row").explode(several))
    assert "at row=7 of v in arrays in memory: " in error.message
    assert error.hint.startswith("x.isel(row=7) is its input, where x is what several reads; ")


def test_rows_of_a_counted_file_are_named_by_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("v\n" + "\n".join(f"{n}.5" for n in range(10)))
    error = failure((grid.open_table(str(tmp_path / "a.csv"))["v"] - 0.5).map(single))
    assert "at row=7 of v in a.csv: " in error.message


def test_names_that_are_no_identifiers_are_passed_as_text() -> None:
    x = grid.from_arrays({"v": np.arange(10.0)}, dims="my row")["v"].map(single)
    assert 'grid.run(x.isel(**{\'my row\': 7}), executor="inline")' in failure(x).hint


def test_a_worker_that_died_names_the_cell_in_the_same_words() -> None:
    plan = Plan(graph_of([cube().map(series)]))
    event = TaskFailed(1, Failure("lost_worker", "the process died"))
    told = named(event, Task(1, 0, (0,)), plan.stages[0], Mark(0, "series", (0, 0)), ()).failure
    assert isinstance(told.error, WorkerLostError)
    assert "in series at lat=0 (50.0), lon=0 (-120.0) of t in arrays in memory: " in told.message


@pytest.mark.parametrize("step", [False, True])
def test_a_window_publishes_the_cell_that_it_is_at(step: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    marks: list[Mark | None] = []

    class Watched(Board):
        def free(self, task: int, *, reuse: bool = True) -> None:
            marks.append(self.read(task))
            super().free(task, reuse=reuse)

    monkeypatch.setattr(driver, "Board", Watched)
    field = cube().isel(time=0)
    halo = {"lat": 1, "lon": 1}
    failure(field.iterate(window, 2, halo=halo) if step else field.stencil(window, halo))
    assert [(mark.op, mark.cell) for mark in marks if mark is not None and mark.op] == [("window", (2, 3))]


@pytest.mark.parametrize(("attempt", "threads"), [(1, 4), (2, 1)])
def test_a_task_is_tried_again_on_the_one_thread_that_publishes_its_cell(
    attempt: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: set[int] = set()

    in_turn = slabs.in_turn

    def noted(*given: Any) -> None:
        used.add(given[-1])
        in_turn(*given)

    class Again(InlineExecutor):
        def submit(self, order: Order) -> None:
            super().submit(replace(order, task=replace(order.task, attempt=attempt)))

    monkeypatch.setattr(slabs, "in_turn", noted)
    run = grid.run(cube().mean("time"), executor=Again(threads=4))
    np.testing.assert_allclose(run[0].to_numpy(), CUBE.mean(0))
    assert used == {threads}
