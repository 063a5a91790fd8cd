"""Daily series as the kernels take them: which variable is which, its unit, and an example made of random numbers."""

from __future__ import annotations

import numpy as np

import gridcompute as grid
from gridcompute.collection import Collection
from gridcompute.coords import Coordinate, packed
from gridcompute.errors import MissingInputError, ParameterError

from .etccdi.kernels import Scale
from .etccdi.table import SERIES
from .inputs import attrs_of, chosen, with_attrs

NAMES = {
    "tx": ("tasmax", "tx", "tmax", "t2max", "mx2t", "maximum_temperature", "max_temp"),
    "tn": ("tasmin", "tn", "tmin", "t2min", "mn2t", "minimum_temperature", "min_temp"),
    "pr": ("pr", "precip", "prec", "rr", "tp", "precipitation", "rain", "rainfall"),
}
"""Names by which the variables are known."""

TEMPERATURES = dict.fromkeys(("degc", "°c", "c", "celsius", "deg_c", "degree_celsius", "degrees_celsius", "degree_c",
                              "degrees_c"), 0.0) | dict.fromkeys(("k", "kelvin"), -273.15)  # fmt: skip
"""What is added to a temperature, by its unit without blanks in lower case."""

RATES = dict.fromkeys(("mm", "mm/day", "mm/d", "mmday-1", "mmd-1", "kgm-2", "kgm-2day-1", "kgm-2d-1", "kg/m2",
                       "kg/m2/day"), 1.0) | dict.fromkeys(
    ("kgm-2s-1", "kg/m2/s", "kg/m^2/s", "kgm^-2s^-1", "mms-1", "mm/s"), 86400.0)  # fmt: skip
"""What precipitation is multiplied by, by its unit."""


def found(data: Collection, kind: str, named: str) -> Collection | None:
    """The variable of a kind of series: the one that is named, else one with a usual name, or None.

    Raises:
        MissingInputError, DimensionError, ParameterError: the one that is named isn't there or isn't a series.
    """
    if named:
        return chosen(data, named, time_of(data).dim)
    known = {name.lower(): name for name in data.columns}
    names = [known[name] for name in NAMES[kind] if name in known]
    return chosen(data, names[0], time_of(data).dim) if names else None


def time_of(data: Collection) -> Coordinate:
    """The coordinate of dates.

    Raises:
        MissingInputError: there is none.
    """
    for one in data.coords:
        if one.is_time and one.dim == one.name:
            return one
    raise MissingInputError("the input has no coordinate of dates",
                            hint=f"it has {', '.join(c.name for c in data.coords) or 'none'}")


def scale_of(series: Collection, kind: str) -> Scale:
    """What turns a series into degC or mm a day.

    Raises:
        ParameterError: a unit that isn't known.
    """
    units = str(attrs_of(series).get("units", ""))
    name = units.lower().replace(" ", "")
    known = RATES if kind == "pr" else TEMPERATURES
    if name not in known:
        raise ParameterError(
            f"{next(iter(series.columns))!r} ({SERIES[kind]}) has the units {units!r}" if units else
            f"{next(iter(series.columns))!r} ({SERIES[kind]}) has no units",
            hint="known are " + ("mm, mm/day and kg m-2 s-1" if kind == "pr" else "degC and K")
            + ": set the attribute before",
        )
    dtype = series.fields[0].dtype
    dtype = dtype if dtype.kind == "f" else np.dtype(np.float64)
    factor, shift = (known[name], 0.0) if kind == "pr" else (1.0, known[name])
    return Scale(np.array([factor], dtype), np.array([shift], dtype))


def example() -> Collection:
    """Forty years of made-up weather on 4 x 6 pixels of both hemispheres, from a fixed seed, getting warmer."""
    days, latitude, longitude = 14610, np.linspace(60.0, -60.0, 4), np.arange(0.0, 360.0, 60.0)
    random = np.random.default_rng(1961)
    shape = (days, len(latitude), len(longitude))
    year = np.arange(days)[:, None, None] / 365.25
    tilt = np.sin(np.deg2rad(latitude))[:, None]
    season = -np.cos(2 * np.pi * (year - 0.05)) * tilt * 12 + 26 * np.cos(np.deg2rad(latitude))[:, None] - 2
    noise = np.zeros(shape)
    for day, kick in enumerate(random.normal(0, 2.0, shape)):
        noise[day] = 0.75 * noise[day - 1] + kick
    mean = season + noise + 0.03 * year
    half = 4 + random.gamma(2.0, 1.0, shape) / 2
    wet = random.random(shape) < 0.35 + 0.1 * tilt
    rain = np.where(wet, random.gamma(0.8, 8.0, shape), 0.0)
    dims = ("time", "latitude", "longitude")
    values = {"tasmax": mean + half, "tasmin": mean - half, "pr": rain}
    data = grid.from_arrays(
        {name: np.round(value, 1) for name, value in values.items()},
        dims,
        coords=[
            Coordinate("time", "time", np.arange(days), "days since 1961-01-01", "standard"),
            Coordinate("latitude", "latitude", latitude, attrs=packed({"units": "degrees_north"})),
            Coordinate("longitude", "longitude", longitude, attrs=packed({"units": "degrees_east"})),
        ],
    )
    units = {"tasmax": "degC", "tasmin": "degC", "pr": "mm/day"}
    return with_attrs(data, {name: {"units": unit} for name, unit in units.items()})
