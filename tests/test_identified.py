"""Equal ops are one op, an archive that was opened twice is read once, and archives of one form stay apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import xarray as xr
from pyarrow import csv

import gridcompute as grid
from gridcompute.errors import DimensionError, OutputExistsError, ParameterError
from gridcompute.identified import identified
from gridcompute.sources.zarrs import ZarrSource

pytestmark = pytest.mark.usefixtures("own_folder")

QUIET: dict[str, Any] = {"executor": "inline", "quiet": True, "store": "work"}


def archive(path: str, seed: int, start: float = 0.0) -> np.ndarray[Any, Any]:
    values = np.random.default_rng(seed).random((8, 3, 4))
    dims = ("time", "lat", "lon")
    data = xr.Dataset({"t": (dims, values)}, {"time": np.arange(8.0) + start, "lat": np.arange(3.0)})
    if path.endswith(".zarr"):
        data.to_zarr(path, consolidated=False, encoding={"t": {"chunks": (4, 3, 4)}})
    else:
        data.to_netcdf(path)
    return values


def test_an_archive_opened_twice_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    values, read = archive("a.zarr", 1), ZarrSource.read
    reads: list[str] = []

    def counted(self: ZarrSource, region: Any, names: Any) -> Any:
        reads.append(str(region))
        return read(self, region, names)

    monkeypatch.setattr(ZarrSource, "read", counted)
    first, again = grid.open_dataset("a.zarr")["t"], grid.open_dataset("a.zarr")["t"]
    run = grid.run(first.mean("time"), again.std("time"), again.mean("time"), **QUIET)
    assert len(reads) == len(set(reads))
    assert len(run.status.total) == 1  # one stage
    for place, expected in enumerate((values.mean(0), values.std(0), values.mean(0))):
        np.testing.assert_allclose(run[place].to_numpy(), expected, rtol=1e-12)


def test_equal_ops_are_one_and_outputs_with_places_stay_two() -> None:
    archive("a.nc", 2)
    ops = [(grid.open_dataset("a.nc")["t"] * 2.0).max("time").op for _ in range(2)]
    one, other = identified(ops)
    assert one is other
    assert one.recipe == ops[1].recipe
    writes = [grid.open_dataset("a.nc")["t"].mean("time").write(f"{name}.zarr") for name in "xy"]
    written = identified([write.op for write in writes])
    assert written[0] is not written[1]
    assert written[0].inputs[0] is written[1].inputs[0]
    grid.run(*writes, **QUIET)
    xr.testing.assert_equal(xr.open_zarr("x.zarr").load(), xr.open_zarr("y.zarr").load())


def test_arrays_of_one_form_stay_apart() -> None:
    a, b = (grid.from_arrays({"t": np.arange(6.0) * k}, dims=("x",))["t"] for k in (1, 2))
    same = grid.from_arrays({"t": np.arange(6.0)}, dims=("x",))["t"]
    run = grid.run(a - b, a.mean() - b.mean(), a - same, **QUIET)
    np.testing.assert_array_equal(run[0].to_numpy(), -np.arange(6.0))
    assert float(run[1].to_numpy()) == -2.5
    np.testing.assert_array_equal(run[2].to_numpy(), np.zeros(6))


def test_archives_of_several_files_stay_apart() -> None:
    whole = [np.concatenate([archive(f"{name}.{k}.nc", seed + k, 8.0 * k) for k in (0, 1)])
             for name, seed in (("a", 3), ("b", 7))]
    a, b = (grid.open_dataset(f"{name}.*.nc", dim="time")["t"] for name in "ab")
    again = grid.open_dataset("a.*.nc", dim="time")["t"]
    assert len(identified([a.op, again.op, b.op])) == 3
    assert len(set(identified([a.op, again.op, b.op]))) == 2
    run = grid.run(a - b, a.mean("time") - b.mean("time"), **QUIET)
    np.testing.assert_array_equal(run[0].to_numpy(), whole[0] - whole[1])
    np.testing.assert_allclose(run[1].to_numpy(), whole[0].mean(0) - whole[1].mean(0), rtol=1e-12, atol=1e-15)


def test_tables_of_one_form_stay_apart_though_their_rows_are_counted_first() -> None:
    rng = np.random.default_rng(5)
    values = [rng.random(20), rng.random(30)]
    for name, column in zip("ab", values, strict=True):
        csv.write_csv(pa.table({"v": column}), f"{name}.csv")
    a, b = (grid.open_table(f"{name}.csv") for name in "ab")
    run = grid.run(a["v"].max(), b["v"].max(), b.filter(b["v"] > 0.5)["v"].count(), **QUIET)
    assert [float(run[0].to_numpy()), float(run[1].to_numpy())] == [column.max() for column in values]
    assert int(run[2].to_numpy()) == (values[1] > 0.5).sum()


def test_a_part_of_a_run_counts_its_outputs_from_nought() -> None:
    t = grid.from_arrays({"t": np.arange(6.0)}, dims=("x",))["t"]
    run = grid.run(t.min(), t.max(), t.mean().rename(t="middle"), **QUIET)
    part = run.part(1, 3)
    assert (float(part[0].to_numpy()), float(part["middle"].to_numpy())) == (5.0, 2.5)
    with pytest.raises(ParameterError, match="no result 2"):
        part[2]
    assert float(run[0].to_numpy()) == 0.0


def test_dimensions_in_another_order() -> None:
    values = np.random.default_rng(1).random((4, 3, 5))
    t = grid.from_arrays({"t": values, "n": np.arange(3)}, dims={"t": ("time", "lat", "lon"), "n": ("lat",)})
    turned = t.transpose("lon", "lat", "time")
    assert turned["t"].dims == ("lon", "lat", "time")
    run = grid.run(turned, turned["t"].max("lon"), t["t"].mean("time").transpose("lon", "lat"),
                   turned.write("turned.zarr"), **QUIET)
    np.testing.assert_array_equal(run.part(0, 1)["t"].to_numpy(), values.transpose(2, 1, 0))
    np.testing.assert_array_equal(run.part(0, 1)["n"].to_numpy(), np.arange(3))
    np.testing.assert_array_equal(run[1].to_numpy(), values.max(2).T)
    np.testing.assert_allclose(run[2].to_numpy(), values.mean(0).T, rtol=1e-15)
    np.testing.assert_array_equal(xr.open_zarr("turned.zarr")["t"].values, values.transpose(2, 1, 0))
    assert t["t"].transpose("time", "lat", "lon").op is t["t"].op
    with pytest.raises(DimensionError, match="transpose"):
        t.transpose("time", "lat")
    text = grid.from_arrays({"s": ["a", "b"]}, dims=("x",))
    assert text.transpose("x").op is text.op


@pytest.mark.parametrize("name", ["o.zarr", "o.parquet"])
def test_values_with_other_labels_are_another_dataset(name: str) -> None:
    def written(labels: list[float], unit: str) -> Any:
        values = xr.DataArray(np.arange(6.0).reshape(2, 3), {"lat": labels}, ("time", "lat"), "t", {"units": unit})
        return grid.from_xarray(values).write(name)

    grid.run(written([1.0, 2.0, 3.0], "K"), **QUIET)
    grid.run(written([1.0, 2.0, 3.0], "K"), **QUIET)  # it is there
    for labels, unit in (([1.0, 2.0, 4.0], "K"), ([1.0, 2.0, 3.0], "degC")):
        with pytest.raises(OutputExistsError):
            grid.run(written(labels, unit), **QUIET)
