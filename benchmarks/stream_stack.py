"""The data of the benchmark `stream`: a compressed Zarr stack, a netCDF copy, and what reductions should give."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import zarr

LAT, LON, STEP = 180, 360, 120
CHUNK = (STEP, 60, 120)
CELLS = ((0, 59), (0, 119))
"""Latitudes and longitudes of the cells whose results are compared, within the first stored chunk."""

MONTHS = 12
TOLERANCE = {"slope": 1e-3, "intercept": 1e-3}
"""Relative, where it isn't 1e-4: a slope of noise is small beside its terms, and cdo writes float32."""


def stack(path: str, n: int) -> str:
    """A field with a season, a gradient and noise of two decimals, compressed as Zarr does by itself; n steps."""
    made = zarr.create_array(path, shape=(n, LAT, LON), chunks=CHUNK, dtype="f4",
                             dimension_names=("time", "lat", "lon"))  # fmt: skip
    draw = np.random.default_rng(0)
    still = 20 * np.sin(np.arange(LAT) / 30)[:, None] + 5 * np.cos(np.arange(LON) / 50)
    for at in range(0, n, STEP):
        season = 15 * np.sin(np.arange(at, at + STEP) * np.pi / 6)[:, None, None]
        made[at : at + STEP] = np.round(still + season + draw.normal(size=(STEP, LAT, LON)), 2).astype("f4")
    return path


def netcdf(path: str) -> str:
    """The stack as netCDF-4, a step a chunk, zlib level 1 with shuffle: 30 days a step, in a calendar of 360 days."""
    import netCDF4

    copy, source = str(Path(path).with_suffix(".nc")), zarr.open_array(path, mode="r")
    with netCDF4.Dataset(copy, "w") as file:
        for name, length in (("time", None), ("lat", LAT), ("lon", LON)):
            file.createDimension(name, length)
        axes = {"time": (np.arange(source.shape[0]) * 30.0 + 15, "days since 2000-01-01"),
                "lat": (np.linspace(-89.5, 89.5, LAT), "degrees_north"), "lon": (np.arange(LON) + 0.5, "degrees_east")}
        for name, (values, unit) in axes.items():
            axis = file.createVariable(name, "f8", (name,))
            axis[:] = values
            axis.units = unit
        file["time"].calendar = "360_day"
        field = file.createVariable("v", "f4", ("time", "lat", "lon"), zlib=True, complevel=1, shuffle=True,
                                    chunksizes=(1, LAT, LON))
        for at in range(0, source.shape[0], STEP):
            field[at : at + STEP] = source[at : at + STEP]
    return copy


@lru_cache
def series(path: str) -> Any:
    """Values of the compared cells, in float64: (time, cell)."""
    values = np.asarray(zarr.open_array(path, mode="r")[:, : CHUNK[1], : CHUNK[2]])
    return values[:, CELLS[0], CELLS[1]].astype("f8")


@lru_cache
def expected(path: str) -> dict[str, Any]:
    """By reduction, the right results at the compared cells."""
    values = series(path)
    steps = np.arange(len(values))
    slope, intercept = np.polyfit(steps, values, 1)
    return {"mean": values.mean(0), "var": values.var(0), "max": values.max(0), "slope": slope, "intercept": intercept,
            "months": np.stack([values[steps % MONTHS == month].mean(0) for month in range(MONTHS)])}  # fmt: skip


def right(path: str, found: Mapping[str, Any]) -> bool:
    """Whether results at the compared cells are what they should be."""
    known = expected(path)
    return all(np.allclose(values, known[name], rtol=TOLERANCE.get(name, 1e-4), atol=1e-7)
               for name, values in found.items())


def at_cells(values: Any) -> Any:
    """The compared cells of a result over (..., lat, lon)."""
    return np.asarray(values)[..., CELLS[0], CELLS[1]]


def most_resident() -> int:
    """Most bytes that this process had in memory (VmHWM); `ru_maxrss` would begin with what its parent had."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM:"))
