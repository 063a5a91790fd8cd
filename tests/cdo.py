"""Climate Data Operators beside our results: called through netCDF files, in float64, where they are installed."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

import numpy as np
import pytest
import xarray as xr

Array = np.ndarray[Any, Any]


def cdo(*words: str, precision: str = "F64") -> Array:
    """The one variable that a chain of operators gives, missing values as NaN.

    The test is skipped where there is no cdo.
    """
    return cdo_files(*words, precision=precision)[0]


def cdo_files(*words: str, precision: str = "F64", count: int = 1) -> list[Array]:
    """The one variable of each file that an operator gives, as `cdo` does: "trend" and "eof" give two."""
    if shutil.which("cdo") is None:
        pytest.skip("no cdo here; make servers installs it")
    paths = [f"cdo-result{i or ''}.nc" for i in range(count)]
    # -L: operators of a chain are threads, and HDF5 isn't made for those.
    called = subprocess.run(["cdo", "-L", "-O", "-s", "-b", precision, *words, *paths], capture_output=True, text=True,
                            check=False)  # fmt: skip
    assert called.returncode == 0, called.stderr
    return [_variable(path) for path in paths]


def _variable(path: str) -> Array:
    with xr.open_dataset(path, decode_times=False) as data:
        (name,) = [name for name in data.data_vars if not name.endswith(("bnds", "bounds"))]
        return np.asarray(data[name].values)


def agrees(found: Any, expected: Array, rel: float, atol: float = 0.0) -> None:
    """Assert that two arrays miss the same values and agree within a relative error of their size."""
    ours, theirs = np.squeeze(np.asarray(found, np.float64)), np.squeeze(np.asarray(expected, np.float64))
    assert ours.shape == theirs.shape
    np.testing.assert_array_equal(np.isnan(ours), np.isnan(theirs))
    np.testing.assert_allclose(ours, theirs, rtol=rel, atol=atol)


def archive(path: str, calendar: str, first: str, last: str, dtype: str = "f8",
            shape: tuple[int, int] = (3, 4)) -> None:  # fmt: skip
    """A seeded daily record with gaps: a pixel without values, one with a single one, one without any variance."""
    times = xr.date_range(first, last, use_cftime=True, calendar=calendar)
    rng, days = np.random.default_rng(11), np.arange(len(times))
    values = 280 + 10 * np.sin(days / 58.0)[:, None, None] + rng.standard_normal((len(times), *shape))
    values[rng.random(values.shape) < 0.1] = np.nan
    values[:, 0, 0] = np.nan
    values[1:, 0, 1] = np.nan
    values[:, 0, 2] = 271.25
    lat, lon = np.linspace(-60, 60, shape[0]), np.arange(shape[1]) * 360 / shape[1]
    coords = {"time": times, "lat": ("lat", lat, {"units": "degrees_north"}),
              "lon": ("lon", lon, {"units": "degrees_east"})}  # fmt: skip
    data = xr.Dataset({"t": (("time", "lat", "lon"), values.astype(dtype), {"units": "K"})}, coords)
    data.to_netcdf(path, encoding={"t": {"_FillValue": np.array(-9e33, dtype)[()]}})
