"""The peers' side of the benchmark `climate` for workloads of other suites: xarray with dask. Nothing of ours.

Each gives the seconds from opening the store to the computed values, and some of the values.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

Answer = tuple[float, Any]
EDDIES = ("uv", "vt", "uw")


def _computed(work: Callable[[], dict[str, Any]], threads: int) -> tuple[float, dict[str, Any]]:
    dask = import_module("dask")
    began = time.perf_counter()
    wanted = work()
    values = dask.compute(*wanted.values(), scheduler="threads", num_workers=threads)
    return time.perf_counter() - began, dict(zip(wanted, values, strict=True))


def _opened(path: str) -> Any:
    return import_module("xarray").open_zarr(path, consolidated=False, chunks={})


def smoothed(path: str, window: int, row: int, threads: int) -> Answer:
    """Means of each day of the year, over all years and a window of days with linear weights: (day, lon) of one row.

    Years are averaged before the window is laid over them, which gives the same for years of equal length and is less
    work than the suite's own order.
    """
    xr, half = import_module("xarray"), window // 2

    def work() -> dict[str, Any]:
        weights = xr.DataArray(1 - np.abs(np.arange(-half, half + 1)) / half, dims="window")
        daily = _opened(path)["t"].groupby("time.dayofyear").mean().chunk(dayofyear=-1, lat=45)
        around = daily.pad(dayofyear=half, mode="wrap").rolling(dayofyear=window, center=True).construct("window")
        inside = around.isel(dayofyear=slice(half, -half))
        return {"mean": inside.weighted(weights).mean("window")}

    seconds, found = _computed(work, threads)
    return seconds, found["mean"].transpose("dayofyear", "lat", "lon").values[:, row].tolist()


def bilinear(path: str, lat: list[float], lon: list[float], row: int, threads: int) -> Answer:
    """Each step on another grid, between the four points around: (time, lon) of one row."""
    seconds, found = _computed(lambda: {"t": _opened(path)["t"].interp(lat=lat, lon=lon, method="linear")}, threads)
    return seconds, found["t"].transpose("time", "lat", "lon").values[:, row].tolist()


def eddies(path: str, hours: int, threads: int) -> Answer:
    """Zonal means of u, v, t, w and of products of what is left, daily: the last day of each product."""

    def work() -> dict[str, Any]:
        data = _opened(path)
        day = ("time", np.arange(data.sizes["time"]) // hours)
        means = data[["u", "v", "t", "w"]].mean("lon")
        rest = data - means
        products = {name: (rest[name[0]] * rest[name[1]]).mean("lon") for name in EDDIES}
        return {name: one.assign_coords(day=day).groupby("day").mean()
                for name, one in (dict(means.data_vars) | products).items()}

    seconds, found = _computed(work, threads)
    return seconds, {name: found[name].transpose("day", "lev", "lat").values[-1].tolist() for name in EDDIES}
