"""What the climate workloads say of inputs that don't fit: options that there are, and nothing half-written."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import gridcompute as grid
from gridcompute.errors import GridError
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
