"""The transformed Eulerian mean of a flow on levels of pressure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import gridcompute as grid
from gridcompute.collection import Collection
from gridcompute.coords import Coordinate
from gridcompute.errors import DimensionError, ParameterError
from gridcompute.plots import Axis, picture_path
from gridcompute.registry import Job
from gridcompute.running import Run

from .eddies import daily, eddy_fluxes, transformed_mean
from .inputs import attrs_of, chosen, coordinate_along, with_attrs, zarr_named
from .pictures import draw_field

Array = np.ndarray[Any, Any]

PRESSURE = {"pa": 1.0, "hpa": 100.0, "mbar": 100.0, "millibar": 100.0, "millibars": 100.0, "mb": 100.0}
"""Pascals in units of pressure."""

FLOWS = ("", "1", "ms", "ms1", "msec", "msec1", "meterspersecond", "metrespersecond", "meterssecond1", "metressecond1")
OMEGAS = ("pas", "pas1", "pasec", "pasec1", "pascalspersecond", "papersecond", "pascalsecond1", "pascalssecond1")
"""Units of flows upwards, their letters and digits only."""


def synthetic_flow(seed: int = 0, times: int = 8, levels: int = 12, rows: int = 37, columns: int = 72) -> Collection:
    """A made-up flow on pressure levels: a jet, a stable atmosphere, and growing waves of random phase; u, v, omega, t.

    Six-hourly from 2001-01-01, float32, on latitudes of both hemispheres without the poles.
    """
    import xarray as xr

    draw = np.random.default_rng(seed)
    p = np.geomspace(1000.0, 10.0, levels)
    lat = (np.arange(rows) + 0.5) * 180 / rows - 90
    lon = np.arange(columns) * 360.0 / columns
    y, x, z = np.deg2rad(lat), np.deg2rad(lon), 7.0 * np.log(1000.0 / p)
    jet = 35.0 * np.exp(-(((np.abs(lat) - 40.0) / 15.0) ** 2)) * np.sin(np.minimum(z / 12.0, 1.0) * np.pi / 2)[:, None]
    warm = 285.0 + 15.0 * np.cos(y) ** 2 - 6.0 * np.minimum(z, 12.0)[:, None] + 1.2 * np.maximum(z - 12.0, 0.0)[:, None]
    shape = (times, levels, rows, columns)
    u, v, w, t = (np.zeros(shape) for _ in range(4))
    u += jet[None, :, :, None]
    t += warm[None, :, :, None]
    for wave in (1, 2, 5):
        size = np.exp(-(((np.abs(lat) - 50.0) / 20.0) ** 2))[:, None] * np.exp(-z / 20.0)[:, None, None]
        phase = wave * x - 0.3 * np.arange(times)[:, None, None, None] - 0.1 * z[:, None, None] + draw.uniform(0, 6.28)
        u += 6.0 * size * np.cos(phase + 0.5 * np.sign(lat)[:, None])
        v += 5.0 * size * np.cos(phase)
        t += 3.0 * size * np.cos(phase - 0.4)
        w += 0.08 * size * np.cos(phase + 0.7) * (p / 1000.0)[:, None, None]
    hours = np.arange(times).astype("timedelta64[h]") * 6
    east = {"standard_name": "longitude", "units": "degrees_east"}
    north = {"standard_name": "latitude", "units": "degrees_north"}
    dims = ("time", "level", "lat", "lon")
    start = np.datetime64("2001-01-01", "ns")
    coords: dict[str, Any] = {"time": start + hours, "level": ("level", p, {"units": "hPa"}),
                              "lat": ("lat", lat, north), "lon": ("lon", lon, east)}  # fmt: skip
    units = {"u": "m s-1", "v": "m s-1", "omega": "Pa s-1", "t": "K"}
    made = {name: (dims, values.astype(np.float32), {"units": units[name]})
            for name, values in (("u", u), ("v", v), ("omega", w), ("t", t))}  # fmt: skip
    return grid.open_dataset(xr.Dataset(made, coords=coords))


DESCRIBED = {
    "v_star": ("residual flow to the north", "m s-1"), "w_star": ("residual flow upwards", "m s-1"),
    "f_north": ("Eliassen-Palm flux to the north", "kg s-2"), "f_up": ("Eliassen-Palm flux upwards", "kg s-2"),
    "divergence": ("divergence of the Eliassen-Palm flux", "kg m-1 s-2"),
    "force": ("force of the eddies on the zonal mean flow", "m s-2"),
    "u": ("zonal mean flow to the east", "m s-1"), "v": ("zonal mean flow to the north", "m s-1"),
    "w": ("zonal mean vertical velocity", ""), "t": ("zonal mean temperature", "K"),
    "uv": ("eddy flux of eastward momentum to the north", "m2 s-2"),
    "uw": ("eddy flux of eastward momentum along the vertical velocity", ""),
    "vt": ("eddy flux of temperature to the north", "K m s-1"),
}  # fmt: skip


def tem(
    input: str = "",
    u: str = "u",
    v: str = "v",
    w: str = "omega",
    t: str = "t",
    level: str = "level",
    every: str = "",
    seed: int = 0,
    output: str = "tem.zarr",
    picture: str = "",
    overwrite: bool = False,
) -> Job:
    """Transformed Eulerian mean: eddy fluxes, Eliassen-Palm flux and its divergence, residual circulation.

    Writes zonal means (u, v, w, t), eddy fluxes (uv, uw, vt), and v_star, w_star, f_north, f_up, divergence and force
    by the equations 3.5.1 and 3.5.3 of Andrews, Holton and Leovy (1987). Longitudes with a missing value are left out.

    Args:
        input: netCDF file, Zarr store, anything else that xarray reads, a URL or a pattern; by default a made-up flow.
        u: variable of the flow to the east, m s-1.
        v: variable of the flow to the north, m s-1.
        w: variable of the flow upwards: m s-1, or Pa s-1 where its units say so.
        t: variable of the temperature, K.
        level: dimension of pressure, in hPa or Pa.
        every: "day" for daily means of the fluxes; by default each time.
        seed: of the made-up flow.
        output: Zarr store to write.
        picture: PNG to draw; by default beside the output, "none" for no picture.
        overwrite: replace an output that other data or parameters have left there.

    Examples:
        gridcompute run climate.tem
        gridcompute run climate.tem --input era5.nc --every day --output tem-daily.zarr
    """
    if every not in ("", "day"):
        raise ParameterError(f"there are no means of every {every!r}", hint='"day", or leave it away')
    if seed < 0:
        raise ParameterError(f"the seed is {seed}", hint="0 or more")
    drawn = picture_path(picture, zarr_named(output))
    data = grid.open_dataset(input) if input else synthetic_flow(seed)
    parts = [chosen(data, name, level) for name in (u, v, w, t)]
    pressure, omega = _pressure(data, level), _is_omega(parts[2])
    _require_kelvin(parts[3])
    fluxes = eddy_fluxes(*parts)
    if every:
        fluxes = daily(fluxes, coordinate_along(data, "time").dim)
    forced = transformed_mean(fluxes, level, pressure, omega)
    result = fluxes.assign(**{name: forced[name] for name in forced.columns})
    unit = "Pa s-1" if omega else "m s-1"
    units = {"w": unit, "uw": "m Pa s-2" if omega else "m2 s-2"}
    attrs = {name: {"long_name": text, "units": units.get(name, fixed)} for name, (text, fixed) in DESCRIBED.items()}

    def finish(run: Run) -> Iterator[str | Path]:
        yield from _picture(output, drawn, level)

    source = f"input {u}, {v}, {w}, {t} of {input}" if input else f"input: a made-up flow, seed {seed}"
    return Job([with_attrs(result, attrs).write(output, overwrite=overwrite)], finish, [f"{source}; w in {unit}"])


def _pressure(data: Collection, level: str) -> Array:
    """Pressures of the levels in Pa.

    Raises:
        DimensionError: the dimension has no coordinate.
        ParameterError: its unit is none of pressure.
    """
    found = data.coord(level)
    unit = str(_attrs(found).get("units", ""))
    if unit.lower() not in PRESSURE:
        raise ParameterError(f"the levels {level!r} have the unit {unit!r}", hint="pressure in Pa or hPa is needed")
    if found.values.dtype.kind not in "iuf":
        raise DimensionError(f"the levels {level!r} aren't numbers")
    return np.asarray(found.values.astype(np.float64) * PRESSURE[unit.lower()])


def _attrs(coordinate: Coordinate) -> dict[str, Any]:
    return {key: json.loads(text) for key, text in coordinate.attrs}


def _is_omega(w: Collection) -> bool:
    """Whether the flow upwards is in Pa s-1; without units it is in m s-1.

    Raises:
        ParameterError: units of neither.
    """
    unit = str(attrs_of(w).get("units", ""))
    plain = re.sub(r"[^a-z0-9]", "", unit.lower())
    if plain not in (*FLOWS, *OMEGAS):
        raise ParameterError(f"{next(iter(w.columns))!r} has the units {unit!r}",
                             hint="the flow upwards is in m s-1 or Pa s-1: convert it, and set the attribute")
    return plain in OMEGAS


def _require_kelvin(t: Collection) -> None:
    unit = str(attrs_of(t).get("units", ""))
    if unit.lower().replace(" ", "") not in ("", "k", "kelvin", "degk", "degree_kelvin", "degrees_kelvin"):
        raise ParameterError(f"{next(iter(t.columns))!r} has the units {unit!r}",
                             hint="the temperature is in K: convert it, and set the attribute")


def _picture(output: str, picture: Path | None, level: str) -> Iterator[str | Path]:
    """The mean force over latitude and pressure."""
    force = grid.open_result(output)["force"]
    others = list(force.dims[:-2])
    values = force.mean(others).values * 86_400 if others else force.values * 86_400
    known = np.isfinite(values)
    if known.any():
        yield f"force of the eddies {np.nanmin(values):.3g} to {np.nanmax(values):.3g} m s-1 day-1, mean of all times"
    if picture is not None:
        y, x = (Axis.of(dim, force.coords[dim]) for dim in force.dims[-2:])
        yield draw_field(picture, values, y, x, title="Force of the eddies, mean of all times", unit="m s-1 day-1")
