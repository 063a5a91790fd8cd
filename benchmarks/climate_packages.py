"""The peers' side of the benchmark `climate` for statistics: pymannkendall, xclim, eofs. Nothing of ours.

What they read lies in files that NumPy wrote.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

Answer = tuple[float, Any]


def _took(work: Callable[[], Any]) -> Answer:
    began = time.perf_counter()
    value = work()
    return time.perf_counter() - began, value


def mann_kendall(path: str, count: int) -> Answer:
    """Mann-Kendall's test and Sen's slope of the first series of (time, series), a call for each: S, Z and slope."""
    test, values = import_module("pymannkendall").original_test, np.load(path).astype("f8")
    seconds, found = _took(lambda: [test(values[:, at]) for at in range(count)])
    return seconds, [[float(one.s), float(one.z), float(one.slope)] for one in found]


def warm_days(path: str, first_year: int, base: int) -> Answer:
    """Days of each year above the 90th percentile of the base years, its own days by the bootstrap of Zhang (2005).

    Args:
        path: of daily maximum temperatures in degC, (time, pixel), in the calendar `noleap`.
        first_year: of the data.
        base: number of years of the base, from the first one on.
    """
    xr, indices, calendar = map(import_module, ("xarray", "xclim.indices", "xclim.core.calendar"))
    values = np.load(path)
    time_ = xr.date_range(f"{first_year}-01-01", periods=len(values), calendar="noleap", use_cftime=True)
    tasmax = xr.DataArray(values, dims=("time", "pixel"), coords={"time": time_}, attrs={"units": "degC"})

    def work() -> Any:
        own = tasmax.sel(time=slice(str(first_year), str(first_year + base - 1)))
        threshold = calendar.percentile_doy(own, per=90, window=5).sel(percentiles=90)
        return indices.tx90p(tasmax, threshold, freq="YS", bootstrap=True).values

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seconds, days = _took(work)
    return seconds, days.tolist()


def functions(path: str, count: int, weights: str, threads: int) -> Answer:
    """The first empirical orthogonal functions of (time, lat, lon): shares of variance, and sums of squares by row.

    Args:
        path: of the fields.
        count: how many functions.
        weights: path of the weights.
        threads: of BLAS.
    """
    solver, values, weight = import_module("eofs.standard").Eof, np.load(path), np.load(weights)
    import_module("threadpoolctl").threadpool_limits(threads)

    def work() -> Any:
        solved = solver(values, weights=weight)
        return solved.eofs(neofs=count), solved.varianceFraction(neigs=count), solved.pcs(npcs=count)

    seconds, (maps, shares, _) = _took(work)
    return seconds, {"shares": shares.tolist(), "rows": (maps**2).sum(axis=-1).tolist()}
