"""What the climate workloads read: the default archive, the variable that is meant, its attributes and time steps."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gridcompute.collection import Collection
from gridcompute.columns import Field
from gridcompute.coords import Coordinate
from gridcompute.errors import DimensionError, MissingInputError, ParameterError
from gridcompute.times import time_attrs

YEAR = {"360_day": 360.0, "noleap": 365.0, "all_leap": 366.0, "julian": 365.25}
"""Days in a mean year of a CF calendar; 365.2425 in the others."""

UNEVEN = 1.25
"""Steps whose longest is more than so many times their shortest are worth a remark (months are 1.11)."""


def default_archive() -> str:
    """The file that is used without --input.

    Raises:
        MissingInputError: iris-sample-data isn't installed.
    """
    try:
        import iris_sample_data
    except ImportError:
        raise MissingInputError(
            "the default input needs the package iris-sample-data", hint="install it, or name a file with --input"
        ) from None
    return str(Path(iris_sample_data.path) / "A1B_north_america.nc")


def zarr_named(output: str) -> str:
    """The place of an output, which is a Zarr store.

    Raises:
        ParameterError: its name says another format.
    """
    if output and not output.rstrip("/").endswith(".zarr"):
        raise ParameterError(f"the output {output!r} isn't a Zarr store", hint="name it like out.zarr; xarray makes "
                             'other formats of it: xr.open_zarr("out.zarr").to_netcdf("out.nc")')
    return output


def chosen(data: Collection, variable: str, dim: str, option: str = "") -> Collection:
    """The variable that is asked for, or the only one that fits; whole numbers with gaps as `gapped`, durations as
    numbers of their unit.

    Args:
        data: where it is looked for.
        variable: its name, or "".
        dim: a dimension that it must have.
        option: of the command line that says another dimension, where there is one, for the hints.

    Raises:
        MissingInputError: it isn't there, or none fits; the hint lists those that are there.
        DimensionError: it has no dimension `dim`.
        ParameterError: several fit, or it holds no numbers.
    """
    listed = ", ".join(f"{f.name} ({', '.join(f.dims)})" for f in data.fields) or "none"
    see = f"; see {option}" if option else ""
    if variable:
        if variable not in data.columns:
            raise MissingInputError(f"the input has no variable {variable!r}", hint=f"it has {listed}")
        field = next(f for f in data.fields if f.name == variable)
        if dim not in field.dims:
            raise DimensionError(
                f"variable {variable!r} has no dimension {dim!r}",
                hint=f"its dimensions are {', '.join(field.dims) or 'none'}{see}",
            )
        if not is_measured(field):
            held = field.kind if field.ragged else "dates" if field.dtype.kind in "iuf" else field.dtype
            raise ParameterError(f"variable {variable!r} holds {held}, not numbers", hint=f"the input has {listed}")
        return gapped(data[variable])
    bounds = {
        str(attrs.get(key))
        for attrs in (attrs_of(data[f.name]) for f in data.fields)
        for key in ("bounds", "climatology")
    }
    fits = [
        f.name
        for f in data.fields
        if dim in f.dims
        and is_measured(f)
        and f.name not in bounds
        and not f.name.endswith(("_bnds", "_bounds"))
    ]
    if not fits:
        raise MissingInputError(f"the input has no variable of numbers along {dim!r}", hint=f"it has {listed}{see}")
    if len(fits) > 1:
        raise ParameterError(
            f"the input has several variables along {dim!r}: {', '.join(fits)}", hint="choose one with --variable"
        )
    return gapped(data[fits[0]])


def is_measured(field: Field) -> bool:
    """Whether a column holds numbers, durations among them; dates count from an origin that no statistic knows of."""
    dated = bool(times := dict(time_attrs(field))) and "dtype" not in times
    return not field.ragged and field.dtype.kind in "iuf" and not dated


def gapped(series: Collection) -> Collection:
    """Whole numbers of which some may be missing as float64, in which a gap is NaN; durations as plain numbers of
    their unit; others as they are.
    """
    field = series.fields[0]
    if "dtype" in dict(time_attrs(field)):
        attrs = {key: value for key, value in attrs_of(series).items() if key not in ("dtype", "timezone")}
        return gapped(with_attrs(series, {field.name: attrs}))
    if field.dtype.kind not in "iu" or not field.nullable:
        return series
    return with_attrs(series * 1.0, {field.name: attrs_of(series)})


def attrs_of(series: Collection) -> dict[str, Any]:
    """Attributes of a collection's first column."""
    return {key: json.loads(text) for key, text in series.fields[0].attrs}


def methods_of(series: Collection, done: str) -> str:
    """`cell_methods` of what was done to a column, after those that it has."""
    return f"{attrs_of(series).get('cell_methods', '')} {done}".strip()


def with_attrs(result: Collection, attrs: dict[str, dict[str, Any]]) -> Collection:
    """The collection with attributes of its columns. They are no part of a recipe."""
    op = result.op
    fields = tuple(
        replace(f, attrs=tuple(sorted((key, json.dumps(value)) for key, value in attrs[f.name].items())))
        for f in op.fields
    )
    return Collection.of(replace(op, fields=fields), result.coords)


def as_measured(result: Collection, field: Collection, **more: str) -> Collection:
    """The result with the unit of the field that it was made from, where that has one, and with more attributes."""
    units = attrs_of(field).get("units")
    attrs = ({} if units is None else {"units": str(units)}) | more
    return with_attrs(result, dict.fromkeys(result.columns, attrs))


def scale_of(series: Collection, dim: str) -> tuple[float, str, list[str]]:
    """Steps per year, the slope's unit, and what should be said about the steps.

    Raises:
        ParameterError: dates that don't increase.
    """
    found = next((c for c in series.coords if c.dim == dim and c.name == dim), None)
    if found is None or not found.is_time or len(found) < 2:
        units = "" if found is None else str(dict(found.attrs).get("units", ""))
        said = f"the dates of {dim} can't be read, or some are missing: slopes are per step"
        return 1.0, f"per step of {dim}", [said] * (" since " in units)
    steps = np.diff(found.micros)
    if steps.min() <= 0:
        where = int(np.argmin(steps > 0)) + 1
        raise ParameterError(
            f"the dates of {dim!r} don't increase: {found.labels()[where]} comes after {found.labels()[where - 1]}",
            hint="sort the input by time first",
        )
    days = float(steps.mean()) / 86_400_000_000
    year = YEAR.get(found.time_unit.calendar, 365.2425)
    remark = []
    if steps.max() > UNEVEN * steps.min():
        remark = [
            f"the steps of {dim} are uneven ({steps.min() / 8.64e10:.4g} to {steps.max() / 8.64e10:.4g} days): "
            f"slopes are per step, times {year / days:.6g} steps a year"
        ]
    return year / days, "year-1", remark


UNITS = {"latitude": ("degrees_north", "degree_north", "degrees_n", "degree_n"),
         "longitude": ("degrees_east", "degree_east", "degrees_e", "degree_e")}  # fmt: skip
NAMES = {"latitude": ("latitude", "lat", "rlat", "y"), "longitude": ("longitude", "lon", "rlon", "x"),
         "time": ("time",)}  # fmt: skip


def coordinate_along(data: Collection, kind: str, dim: str = "") -> Coordinate:
    """The coordinate of latitudes, longitudes or times: by its CF attributes, else by its name, if its units aren't
    others than degrees.

    Args:
        data: whose.
        kind: "latitude", "longitude" or "time".
        dim: the dimension, where it was said.

    Raises:
        DimensionError: there is none, or `dim` has none.
    """
    own = [c for c in data.coords if c.dim == c.name and c.dim in data.space.names]
    if dim:
        own = [c for c in own if c.dim == dim]
    else:
        own = ([c for c in own if _is_said(c, kind)] or
               [c for name in NAMES[kind] for c in own if c.name.lower() == name and _may_be(c, kind)])[:1]  # fmt: skip
    if not own:
        raise DimensionError(
            f"the input has no {kind} coordinate{f' along {dim!r}' if dim else ''}",
            hint=f"its dimensions are {', '.join(data.space.names) or 'none'}; coordinates have their dimension's name"
            + ("; where they have two dimensions, climate.regrid comes first" if kind != "time" else ""),
        )
    return own[0]


def _may_be(coordinate: Coordinate, kind: str) -> bool:
    """Whether the units don't speak against it: x and y may as well be metres of a projection."""
    unit = json.loads(dict(coordinate.attrs).get("units", '""'))
    return kind == "time" or str(unit).lower() in ("", "1") or str(unit).lower().startswith("deg")


def _is_said(coordinate: Coordinate, kind: str) -> bool:
    attrs = {key: json.loads(text) for key, text in coordinate.attrs}
    if kind == "time":
        return coordinate.is_time
    return attrs.get("standard_name") == kind or str(attrs.get("units", "")).lower() in UNITS[kind]
