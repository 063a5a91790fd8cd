"""What the climate workloads say of inputs that don't fit: options that there are, and nothing half-written."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from gridcompute_workloads.climate.inputs import attrs_of, chosen, methods_of

import gridcompute as grid
from gridcompute.errors import GridError, ParameterError
from gridcompute.registry import find, registered

pytestmark = pytest.mark.usefixtures("own_folder")

WORKLOADS = [one.name for one in registered() if one.name.startswith("climate.")]
AXES = {"lat": ([0.0, 10, 20], "degrees_north"), "level": ([200.0, 500, 850], "hPa")}


@pytest.mark.parametrize("name", WORKLOADS)
@pytest.mark.parametrize("dims", [("x", "y"), ("lat", "x"), ("level", "x")])
@pytest.mark.filterwarnings("ignore")  # of outputs that are never run
def test_hints_name_options_that_there_are(name: str, dims: tuple[str, str]) -> None:
    coords = {dim: (dim, AXES[dim][0], {"units": AXES[dim][1]}) for dim in dims if dim in AXES}
    xr.Dataset({"a": (dims, np.ones((3, 3))), "b": ("other", np.ones(2))}, coords).to_netcdf("in.nc")
    given = {"input": "in.nc"} | ({"reference": "in.nc"} if name == "climate.verify" else {})
    message, hint = "", "none is needed"
    try:
        grid.workload(name)(**given)
    except GridError as error:
        message, hint = str(error), error.hint
    has = {f"--{parameter.name.replace('_', '-')}" for parameter in find(name).parameters}
    assert set(re.findall(r"--[a-z][a-z-]*", message)) <= has
    assert hint
    assert not [path for path in Path().iterdir() if path.suffix == ".zarr"]


@pytest.mark.parametrize("name", WORKLOADS)
@pytest.mark.filterwarnings("ignore")  # of outputs that are never run
def test_outputs_are_zarr_stores(name: str) -> None:
    for output in ("out.parquet", "out.nc", "out"):
        with pytest.raises(ParameterError, match=f"the output '{output}' isn't a Zarr store"):
            grid.workload(name)(output=output)


def over_days(**values: np.ndarray[Any, Any]) -> xr.Dataset:
    """Variables over 4 days and 3 latitudes."""
    days = xr.date_range("2001-01-01", periods=4)
    return xr.Dataset({name: (("time", "lat"), one) for name, one in values.items()},
                      {"time": days, "lat": ("lat", AXES["lat"][0], {"units": "degrees_north"})})


def test_dates_are_no_numbers_and_durations_are_those_of_their_unit() -> None:
    count = np.arange(12).reshape(4, 3)
    sunny = count.astype("timedelta64[h]").astype("timedelta64[ns]")
    sunny[1, 1] = np.timedelta64("NaT")
    over_days(begins=np.datetime64("2001-01-01", "ns") + sunny, sunny=sunny).to_netcdf("in.nc")
    data = grid.open_dataset("in.nc")
    with pytest.raises(ParameterError, match="'begins' holds dates, not numbers"):
        chosen(data, "begins", "time")
    hours = chosen(data, "", "time")  # the only one of numbers
    means = grid.run(hours.mean("time"), executor="inline", quiet=True)["sunny"].to_numpy()
    assert attrs_of(hours)["units"] == "hours"
    np.testing.assert_allclose(means, np.nanmean(np.where(count == 4, np.nan, count), axis=0))
    dates = grid.run(data["begins"].reduce("min", "time"), executor="inline", quiet=True)["begins"].to_numpy()
    np.testing.assert_array_equal(dates, np.datetime64("2001-01-01T00", "s") + np.arange(3) * np.timedelta64(1, "h"))


def test_times_that_are_no_dates_stay_numbers_and_texts_are_left_out() -> None:
    data = over_days(t=np.arange(12.0).reshape(4, 3)).assign_coords(
        time=("time", [0.0, 1, 2, 3], {"units": "months since 1958-01-01"}))
    data.assign(name=("lat", ["a", "b", "c"])).to_netcdf("in.nc")
    job = grid.workload("climate.rechunk")(input="in.nc", output="out.zarr")
    run = grid.run(*job.outputs, executor="inline", quiet=True)
    assert job.lines[1] == "left out, as text: name"
    assert list(job.finish(run)) == ["t in 1 chunk of (time 4, lat 3)"]
    found = grid.open_result("out.zarr")
    assert found["time"].values.tolist() == [0, 1, 2, 3]
    assert found["time"].attrs["units"] == "months since 1958-01-01"


def test_rechunking_keeps_coordinates_of_two_dimensions() -> None:
    data = over_days(t=np.arange(12.0).reshape(4, 3)).expand_dims(x=2).drop_vars("lat")
    places = (("lat", "x"), np.arange(6.0).reshape(3, 2), {"units": "degrees_north"})
    data["time"].attrs["bounds"] = "time_bnds"
    bounds = {name: (("time", "nv"), np.zeros((4, 2))) for name in ("time_bnds", "others")}
    data["time"].encoding["units"] = "days since 2001-01-01"
    data.assign_coords(place=places, **bounds).to_netcdf("in.nc")
    job = grid.workload("climate.rechunk")(input="in.nc", output="out.zarr")
    grid.run(*job.outputs, executor="inline", quiet=True)
    found = grid.open_result("out.zarr")
    assert (set(found.data_vars), set(found.coords)) == ({"t", "others"}, {"time", "place", "time_bnds"})
    np.testing.assert_array_equal(found["place"], places[1])


@pytest.mark.filterwarnings("ignore")  # of outputs that are never run
def test_cell_methods_follow_those_of_the_input() -> None:
    data = over_days(t=np.arange(12.0).reshape(4, 3)).expand_dims(lon=[0.0, 120, 240])
    data["t"].attrs = {"units": "K", "cell_methods": "time: maximum"}
    data.to_netcdf("in.nc")
    made = grid.workload("climate.zonal")(input="in.nc", output="z.zarr", meridional=True, picture="none")
    said = [json.loads(dict(one.op.inputs[0].fields[0].attrs)["cell_methods"]) for one in made.outputs]
    assert said == [f"time: maximum {done}" for done in ("lon: mean", "area: mean", "lat: mean")]
    assert methods_of(grid.open_dataset("in.nc")["t"], "area: mean") == "time: maximum area: mean"
    assert methods_of(grid.from_arrays({"t": np.ones(3)}, ("x",)), "area: mean") == "area: mean"
