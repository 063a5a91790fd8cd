"""Climate Data Operators beside our results: called through netCDF files, in float64, where they are installed."""

from __future__ import annotations

import itertools
import shutil
import subprocess
from typing import Any

import numpy as np
import pytest
import xarray as xr

Array = np.ndarray[Any, Any]

TWO = ("-ydaysub", "-ymonsub", "-sub")
"""Operators of two inputs that tests take the result of."""

STEPS = itertools.count()


def cdo(*words: str, precision: str = "F64") -> Array:
    """The one variable that a chain of operators gives, missing values as NaN.

    The test is skipped where there is no cdo.
    """
    return cdo_files(*words, precision=precision)[0]


def cdo_files(*words: str, precision: str = "F64", count: int = 1) -> list[Array]:
    """The one variable of each file that an operator gives, as `cdo` does: "trend" and "eof" give two."""
    if shutil.which("cdo") is None:
        pytest.skip("no cdo here; make servers installs it")
    paths, rest = [f"cdo-result{i or ''}.nc" for i in range(count)], list(words[1:])
    inputs = []
    while rest:
        inputs += _computed(rest)
    _run(precision, words[0], *inputs, *paths)
    return [_variable(path) for path in paths]


def _computed(words: list[str]) -> list[str]:
    """An input's words, the first of `words`, each operator's result in a file of its own.

    Operators of one call are threads, for which HDF5 isn't made, and not all that they read is locked by -L. Only the
    areas that "setgridarea" gives aren't kept by a file.
    """
    word = words.pop(0)
    if not word.startswith("-"):
        return [word]
    inputs = [one for _ in range(2 if word in TWO else 1) for one in _computed(words)]
    if word.startswith("-setgridarea"):
        return [word, *inputs]
    path = f"cdo-step{next(STEPS)}.nc"
    _run("F64", word[1:], *inputs, path)
    return [path]


def _run(precision: str, *words: str) -> None:
    called = subprocess.run(["cdo", "-L", "-O", "-s", "-b", precision, *words], capture_output=True, text=True,
                            check=False)  # fmt: skip
    assert called.returncode == 0, called.stderr


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
