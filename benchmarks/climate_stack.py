"""The data of the benchmark `climate`: a stack made like ERA5, its netCDF copy, and what operations should give.

30 days of a year, year after year, in the calendar `noleap`: air temperature on latitudes and longitudes in K, in
steps of 1/64, with a season and noise that remembers the day before. Zarr v3, 24 steps a chunk, Blosc's zstd level 3
with the shuffle that fits float32. Nothing of gridcompute is imported.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

DAYS, STEP = 30, 24
"""Days of a year that are there, and steps in a stored chunk."""

BLOCK = 4
"""A cell of the coarser grid is so many cells wide and high."""

EARTH = 6_371_000.0
"""Radius in metres."""

TYPESIZE = 3
"""The byte of a Blosc header that tells how many bytes an element has; a wrong one means no shuffle."""

RELATIVE = {"trend": 1e-3, "gradient": 1e-3}
"""Where it isn't 2e-5: a slope of noise is small beside its terms, and radii of the Earth differ."""

ABSOLUTE = {"trend": 2e-6, "gradient": 1e-12}
"""Where it isn't 1e-3 (K)."""


@dataclass(frozen=True)
class Grid:
    """Latitudes from the north to the south pole, longitudes from 0 eastward.

    Attributes:
        lats: number of latitudes, with both poles.
        lons: number of longitudes.
        row: of the latitude whose results are compared: the middle of a cell of the coarser grid.
    """

    lats: int
    lons: int
    row: int

    @property
    def lat(self) -> Any:
        """Degrees north."""
        return np.linspace(90, -90, self.lats)

    @property
    def lon(self) -> Any:
        """Degrees east."""
        return np.arange(self.lons) * (360 / self.lons)

    @property
    def coarse(self) -> tuple[int, int]:
        """Latitudes and longitudes of the grid that is `BLOCK` times coarser: cdo's r360x180 of a quarter degree."""
        return (self.lats - 1) // BLOCK, self.lons // BLOCK

    @property
    def coarse_lat(self) -> Any:
        """Centres of its cells, from north to south; no pole is one."""
        width = 180 / self.coarse[0]
        return 90 - width * (np.arange(self.coarse[0]) + 0.5)

    @property
    def coarse_lon(self) -> Any:
        """Centres of its cells, from 0 eastward."""
        return np.arange(self.coarse[1]) * (360 / self.coarse[1])


QUARTER = Grid(721, 1440, 178)
SMALL = Grid(73, 144, 18)
"""2.5 degrees."""


@dataclass(frozen=True)
class Stack:
    """A stored stack.

    Attributes:
        path: of the Zarr group; its variable is `t`.
        steps: how many.
        grid: of each step.
        year: days of a year that are there.
    """

    path: str
    steps: int
    grid: Grid = QUARTER
    year: int = DAYS

    @property
    def gigabytes(self) -> float:
        """Of float32."""
        return self.steps * self.grid.lats * self.grid.lons * 4 / 1e9

    @property
    def netcdf(self) -> str:
        """Where the copy for cdo is, if it was made."""
        return str(Path(self.path).with_suffix(".nc"))

    @property
    def days(self) -> Any:
        """Which of the days each step is, from 0 on."""
        return np.arange(self.steps) % self.year

    @property
    def years(self) -> Any:
        """Which year each step is in, from 0 on; a year has one month here."""
        return np.arange(self.steps) // self.year

    @property
    def time(self) -> Any:
        """Days since the first of January 2000, of the calendar `noleap`."""
        return self.years * 365 + self.days


def made(path: str, steps: int, grid: Grid, year: int = DAYS) -> Stack:
    """Draw and store a stack.

    Raises:
        ValueError: the codec was written for elements of another size.
    """
    import zarr
    from zarr.codecs import BloscCodec

    group = zarr.open_group(path, mode="w")
    codec = BloscCodec(cname="zstd", clevel=3, shuffle="shuffle", typesize=4)
    field = group.create_array("t", shape=(steps, grid.lats, grid.lons), chunks=(STEP, grid.lats, grid.lons),
                               dtype="f4", compressors=[codec], dimension_names=("time", "lat", "lon"),
                               attributes={"units": "K", "standard_name": "air_temperature"})
    stack = Stack(path, steps, grid, year)
    weather = _weather(stack)
    for at in range(0, steps, STEP):
        field[at : at + STEP] = np.stack([next(weather) for _ in range(at, min(at + STEP, steps))])
    for name, values, attributes in _axes(stack):
        axis = group.create_array(name, shape=values.shape, dtype=values.dtype, dimension_names=(name,),
                                  attributes=attributes)
        axis[:] = values
    _check_shuffle(stack)
    return stack


def _axes(stack: Stack) -> tuple[tuple[str, Any, dict[str, str]], ...]:
    return (("time", stack.time, {"units": "days since 2000-01-01", "calendar": "noleap", "standard_name": "time"}),
            ("lat", stack.grid.lat, {"units": "degrees_north", "standard_name": "latitude"}),
            ("lon", stack.grid.lon, {"units": "degrees_east", "standard_name": "longitude"}))


def _weather(stack: Stack) -> Any:
    """Day after day: warm at the equator, a season of the other sign in the south, weather that lasts, fine noise."""
    grid, draw, patch = stack.grid, np.random.default_rng(0), 8
    north = np.sin(np.radians(grid.lat))[:, None]
    still = 288 - 40 * north**2 + 5 * np.cos(np.radians(grid.lon))
    patches = (-(-grid.lats // patch), -(-grid.lons // patch))
    before, day = np.zeros((grid.lats, grid.lons), "f4"), 0
    while True:
        coarse = draw.standard_normal(patches, dtype="f4")
        noise = coarse.repeat(patch, 0).repeat(patch, 1)[: grid.lats, : grid.lons]
        noise = noise + np.float32(0.3) * draw.standard_normal((grid.lats, grid.lons), dtype="f4")
        before = np.float32(0.8) * before + np.float32(0.6) * noise
        season = 10 * np.sin(2 * np.pi * (day % stack.year) / stack.year) * north
        yield (np.round((still + season + 2 * before) * 64) / 64).astype("f4")
        day += 1


def _check_shuffle(stack: Stack) -> None:
    header = (Path(stack.path) / "t" / "c" / "0" / "0" / "0").read_bytes()[:16]
    if header[TYPESIZE] != 4:
        raise ValueError(f"Blosc was told that an element has {header[TYPESIZE]} bytes: this numcodecs is too old")


def beginning(whole: Stack, path: str, steps: int) -> Stack:
    """The first steps of a stack as one of their own: its chunks are copied."""
    import zarr

    stack = Stack(path, steps, whole.grid, whole.year)
    shutil.copytree(whole.path, path, ignore=lambda folder, names: [
        name for name in names if folder.endswith("/t/c") and int(name) * STEP >= steps])
    zarr.open_group(path, mode="r+")["t"].resize((steps, *whole.grid.lat.shape, *whole.grid.lon.shape))
    zarr.open_group(path, mode="r+")["time"].resize((steps,))
    return stack


def netcdf(stack: Stack) -> str:
    """The stack as netCDF-4 for cdo: a step a chunk, zlib level 1 with shuffle."""
    import netCDF4
    import zarr

    source = zarr.open_group(stack.path, mode="r")["t"]
    with netCDF4.Dataset(stack.netcdf, "w") as file:
        for name, values, attributes in _axes(stack):
            file.createDimension(name, None if name == "time" else len(values))
            axis = file.createVariable(name, "f8", (name,))
            axis.setncatts(attributes)
            axis[:] = values
        field = file.createVariable("t", "f4", ("time", "lat", "lon"), zlib=True, complevel=1, shuffle=True,
                                    chunksizes=(1, stack.grid.lats, stack.grid.lons))
        field.units = "K"
        for at in range(0, stack.steps, STEP):
            field[at : at + STEP] = source[at : at + STEP]
    return stack.netcdf


# --- what operations should give ---


def at_row(values: Any, row: int, every: int = 16) -> Any:
    """Some longitudes of one latitude, of values over (..., lat, lon)."""
    return np.asarray(values)[..., row, ::every]


@lru_cache
def _band(stack: Stack) -> Any:
    """The latitudes around the compared one, in float64: (time, 9, lon), the compared one in the middle."""
    import zarr

    source = zarr.open_group(stack.path, mode="r")["t"]
    rows = slice(stack.grid.row - 4, stack.grid.row + 5)
    return np.concatenate([source[at : at + STEP, rows] for at in range(0, stack.steps, STEP)]).astype("f8")


@lru_cache
def expected(stack: Stack) -> dict[str, Any]:
    """By what was computed, the right results at some longitudes of the compared latitude (all steps: zonal)."""
    band = _band(stack)
    series = at_row(band, 4)
    daily = np.stack([series[stack.days == day].mean(0) for day in range(stack.year)])
    slope, intercept = np.polyfit(np.arange(stack.steps), series, 1)
    return {
        "climatology": daily, "anomaly": (series - daily[stack.days]).std(0), "mean": series.mean(0),
        "months": np.stack([series[stack.years == year].mean(0) for year in range(stack.years[-1] + 1)]),
        "trend": slope, "intercept": intercept, "std": series.std(0), "zonal": band[:, 4].mean(1),
        "gradient": _gradient(stack.grid, band), "regrid": _regridded(stack.grid, band),
    }  # fmt: skip


def _gradient(grid: Grid, band: Any) -> Any:
    """Mean size of the gradient in K/m, by differences over two cells; round the Earth."""
    lat, lon = np.radians(grid.lat), np.radians(grid.lon)
    north = (band[:, 3] - band[:, 5]) / (EARTH * (lat[grid.row - 1] - lat[grid.row + 1]))
    along = EARTH * np.cos(lat[grid.row]) * 2 * (lon[1] - lon[0])
    east = (np.roll(band[:, 4], -1, axis=1) - np.roll(band[:, 4], 1, axis=1)) / along
    return np.hypot(north, east).mean(0)[16:-16:16]


def _regridded(grid: Grid, band: Any) -> Any:
    """Means over the cells of the coarser grid, weighted by area, at its longitudes: (time, lon / 4 / 16)."""
    half, width = 90 / (grid.lats - 1), 180 / grid.coarse[0]
    lat, middle = grid.lat[grid.row - 2 : grid.row + 3], grid.lat[grid.row]
    upper = np.minimum(lat + half, middle + width / 2)
    lower = np.maximum(lat - half, middle - width / 2)
    weights = np.sin(np.radians(upper)) - np.sin(np.radians(lower))
    rows = np.tensordot(band[:, 2:7], weights / weights.sum(), (1, 0))
    shares = {-2: 0.5, -1: 1.0, 0: 1.0, 1: 1.0, 2: 0.5}
    cells = sum(share * np.roll(rows, -at, axis=1)[:, ::BLOCK] for at, share in shares.items()) / BLOCK
    return cells[:, ::16]


def right(stack: Stack, found: Mapping[str, Any]) -> bool:
    """Whether results at the compared latitude are what they should be."""
    known = expected(stack)
    return all(np.shape(values) == known[name].shape and
               np.allclose(values, known[name], rtol=RELATIVE.get(name, 2e-5), atol=ABSOLUTE.get(name, 1e-3))
               for name, values in found.items())  # fmt: skip


def compared(name: str, values: Any, grid: Grid) -> Any:
    """What is compared of one whole result: (..., lat, lon), but zonal (time, lat)."""
    if name == "zonal":
        return np.asarray(values)[:, grid.row]
    if name == "regrid":
        return at_row(values, grid.row // BLOCK)
    return at_row(values, grid.row)[..., 1:-1] if name == "gradient" else at_row(values, grid.row)
