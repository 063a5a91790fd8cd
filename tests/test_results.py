"""Results read back: lazily as xarray, as Arrow and pandas, with nulls as each has them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gridcompute as grid
from gridcompute.destined import UnrunOutputWarning
from gridcompute.errors import ParameterError, RunError
from gridcompute.record import load
from gridcompute.stored import StoredSource


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("GRIDCOMPUTE_STATE", str(folder / "state"))
        values = np.arange(3 * 8 * 9, dtype=np.float32).reshape(3, 8, 9)
        run = grid.run(
            grid.from_arrays({"v": values}, dims=("t", "y", "x")) * 1.0, executor="inline", store=str(folder / "w")
        )
        yield run, values


@given(st.data())
def test_lazy_indexing_equals_numpy(finished, data: st.DataObject) -> None:
    run, values = finished

    def slices(n: int) -> st.SearchStrategy[slice]:  # xarray itself fails on those that are empty and go backwards
        return st.slices(n).filter(lambda s: (s.step or 1) > 0 or len(range(*s.indices(n))) > 0)

    key = tuple(
        data.draw(st.one_of(st.integers(-n, n - 1), slices(n), st.lists(st.integers(0, n - 1), min_size=1, max_size=3)))
        for n in values.shape
    )
    array = run["v"].to_xarray()["v"]
    found = array.isel(t=key[0], y=key[1], x=key[2])
    wanted = values
    for axis in (2, 1, 0):
        index = (slice(None),) * axis + (key[axis],)
        wanted = wanted[index]
    np.testing.assert_array_equal(found.values, wanted)


def test_only_the_chunks_that_are_needed_are_read(finished, monkeypatch: pytest.MonkeyPatch) -> None:
    run, values = finished
    regions = []
    read = StoredSource.read
    monkeypatch.setattr(
        StoredSource, "read", lambda self, region, names: regions.append(region) or read(self, region, names)
    )
    array = run["v"].to_xarray()["v"]
    assert not regions
    assert float(array[1, 2, 3]) == values[1, 2, 3]
    assert [region.cells for region in regions] == [1]


def test_nulls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GRIDCOMPUTE_STATE", str(tmp_path / "state"))
    values = np.ma.MaskedArray([1, 2, 3], [False, True, False])
    run = grid.run(grid.from_arrays({"n": values}, dims="row") + 1, executor="inline")
    np.testing.assert_array_equal(run["n"].to_xarray()["n"], [2.0, np.nan, 4.0])
    assert run["n"].to_arrow()["n"].to_pylist() == [2, None, 4]
    assert list(run["n"].to_numpy().mask) == [False, True, False]


def test_names_that_are_not_there(finished) -> None:
    run, _ = finished
    with pytest.raises(ParameterError, match="no result 'w'"):
        run["w"]
    with pytest.raises(ParameterError, match="one dimension"):
        run["v"].to_arrow()


def test_values_without_dimensions_are_one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GRIDCOMPUTE_STATE", str(tmp_path / "state"))
    table = grid.from_arrays({"a": np.arange(4.0), "b": np.arange(4)}, dims="x")
    result = grid.run(table.sum(), executor="inline")[0]
    assert result.to_arrow().to_pydict() == {"a": [6.0], "b": [6]}
    with pytest.raises(ParameterError, match="a, b") as error:
        result.to_numpy()
    assert "run['a']" in error.value.hint


def test_collections_are_not_taken_for_arrays() -> None:
    table = grid.from_arrays({"a": np.arange(4.0)}, dims="x")
    with pytest.raises(ParameterError, match="before it is computed"):
        np.asarray(table)
    with pytest.raises(TypeError, match="not iterable"):
        list(table)
    assert (np.float64(2) * table["a"]).dims == ("x",)


def test_the_warning_of_a_forgotten_output_points_to_its_write(tmp_path: Path) -> None:
    out = grid.from_arrays({"a": np.arange(4.0)}, dims="x").write(str(tmp_path / "o.zarr"))
    with pytest.warns(UnrunOutputWarning, match=r"o\.zarr") as told:
        del out
    assert told[0].filename == __file__


def test_no_result_before_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GRIDCOMPUTE_STATE", str(tmp_path / "state"))
    run = grid.start(grid.from_arrays({"v": np.ones(3)}, dims="x") + 1, executor="inline")
    run.wait()
    fresh = type(run)([], run._graph, run._settings, run.record)
    with pytest.raises(RunError, match="no results yet"):
        fresh["v"]


def test_a_run_ended_by_a_second_ctrl_c_is_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GRIDCOMPUTE_STATE", str(tmp_path / "state"))

    def end(status: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        grid.run(grid.from_arrays({"v": np.ones(3)}, dims="x") + 1, executor="inline", watch=end)
    assert load("last").state == "interrupted"
