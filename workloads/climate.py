"""Trends of a climate archive, pixel by pixel."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import gridcompute as grid
from gridcompute.collection import Collection
from gridcompute.errors import DimensionError, MissingInputError, ParameterError
from gridcompute.plots import Axis, draw_trend, picture_path
from gridcompute.registry import Job
from gridcompute.running import Run

YEAR = {"360_day": 360.0, "noleap": 365.0, "all_leap": 366.0, "julian": 365.25}
"""Days in a mean year of a CF calendar; 365.2425 in the others."""

UNEVEN = 1.25
"""Steps whose longest is more than so many times their shortest are worth a remark (months are 1.11)."""

MOST_PIXELS = 4_000_000
"""A picture of more pixels than these takes every second, third ... one."""


@grid.kernel(
    "(time)->(),(),(),(),(),()",
    names=("slope", "intercept", "tau", "p", "z", "s"),
)
def pixel_trend(series, per_year):  # type: ignore[no-untyped-def]  # numba infers the types
    """One pixel's Mann-Kendall test and Theil-Sen line; all NaN with fewer than two values."""
    test = grid.stats.trend(series)
    return test.slope * per_year, test.intercept, test.tau, test.p, test.z, test.s


def trend(
    input: str = "",
    variable: str = "",
    dim: str = "time",
    alpha: float = 0.05,
    output: str = "trend.zarr",
    picture: str = "",
    overwrite: bool = False,
) -> Job:
    """Mann-Kendall test and exact Theil-Sen slope of every pixel's time series.

    Writes slope, intercept, tau, p, z, s and significant (p < alpha) as a Zarr store that xarray opens, and draws the
    slopes with dots where they are significant. Where the time coordinate holds dates the slope is per year: the
    slope per step times the mean number of steps in a year of the file's calendar. Missing values are left out;
    pixels with fewer than two values are NaN.

    Args:
        input: netCDF file, Zarr store, anything else that xarray reads, a URL or a pattern; by default the 240 years
            of North American air temperature of the package iris-sample-data.
        variable: the variable; needed where the input has several that fit.
        dim: the dimension along which the trend is taken.
        alpha: significance level, above 0 and below 1.
        output: Zarr store to write.
        picture: PNG to draw; by default beside the output, "none" for no picture.
        overwrite: replace an output that other data or parameters have left there.

    Examples:
        gridcompute run climate.trend
        gridcompute run climate.trend --input era5.nc --variable t2m --output t2m.zarr
        gridcompute run climate.trend --input "ersst.*.nc" --variable sst --alpha 0.01 --workers 8
    """
    if not 0 < alpha < 1:
        raise ParameterError(f"alpha is {alpha}", hint="a significance level above 0 and below 1, such as 0.05")
    drawn = picture_path(picture, output)
    data = grid.open_dataset(input or default_archive())
    series = chosen(data, variable, dim)
    name = next(iter(series.columns))
    scale, unit, remark = scale_of(series, dim)
    kernel = pixel_trend if dim == "time" else replace(pixel_trend, signature=_signature(dim))
    test = series.map(kernel, per_year=scale)
    result = test.assign(significant=test["p"] < alpha)
    units = str(attrs_of(series).get("units", "1"))
    described = {
        "slope": {"long_name": f"Theil-Sen slope of {name}", "units": f"{units} {unit}"},
        "intercept": {"long_name": f"Theil-Sen line at the first {dim}", "units": units},
        "tau": {"long_name": "Kendall's tau against time", "units": "1"},
        "p": {"long_name": "two-sided p-value of the Mann-Kendall test", "units": "1"},
        "z": {"long_name": "Mann-Kendall test statistic", "units": "1"},
        "s": {"long_name": "Mann-Kendall score", "units": "1"},
        "significant": {"long_name": f"p < {alpha:g}"},
    }

    def finish(run: Run) -> Iterator[str | Path]:
        yield from picture_of(output, drawn, name, f"{units} {unit}", alpha)

    source = f"{name} of {input}" if input else f"{name} of A1B_north_america.nc from iris-sample-data (240 years)"
    return Job([with_attrs(result, described).write(output, overwrite=overwrite)], finish, [f"input {source}", *remark])


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


def chosen(data: Collection, variable: str, dim: str) -> Collection:
    """The variable that is asked for, or the only one that fits.

    Raises:
        MissingInputError: it isn't there, or none fits; the hint lists those that are there.
        DimensionError: it has no dimension `dim`.
        ParameterError: several fit, or it holds no numbers.
    """
    listed = ", ".join(f"{f.name} ({', '.join(f.dims)})" for f in data.fields) or "none"
    if variable:
        if variable not in data.columns:
            raise MissingInputError(f"the input has no variable {variable!r}", hint=f"it has {listed}")
        field = next(f for f in data.fields if f.name == variable)
        if dim not in field.dims:
            raise DimensionError(
                f"variable {variable!r} has no dimension {dim!r}",
                hint=f"its dimensions are {', '.join(field.dims) or 'none'}: choose one with --dim",
            )
        if field.ragged or field.dtype.kind not in "iuf":
            raise ParameterError(
                f"variable {variable!r} holds {field.kind if field.ragged else field.dtype}, not numbers",
                hint=f"the input has {listed}",
            )
        return data[variable]
    bounds = {
        str(attrs.get(key))
        for attrs in (attrs_of(data[f.name]) for f in data.fields)
        for key in ("bounds", "climatology")
    }
    fits = [
        f.name
        for f in data.fields
        if dim in f.dims
        and not f.ragged
        and f.dtype.kind in "iuf"
        and f.name not in bounds
        and not f.name.endswith(("_bnds", "_bounds"))
    ]
    if not fits:
        raise MissingInputError(
            f"the input has no variable of numbers along {dim!r}", hint=f"it has {listed}; see --dim"
        )
    if len(fits) > 1:
        raise ParameterError(
            f"the input has several variables along {dim!r}: {', '.join(fits)}", hint="choose one with --variable"
        )
    return data[fits[0]]


def attrs_of(series: Collection) -> dict[str, Any]:
    """Attributes of a collection's first column."""
    return {key: json.loads(text) for key, text in series.fields[0].attrs}


def with_attrs(result: Collection, attrs: dict[str, dict[str, str]]) -> Collection:
    """The collection with attributes of its columns. They are no part of a recipe."""
    op = result.op
    fields = tuple(
        replace(f, attrs=tuple(sorted((key, json.dumps(value)) for key, value in attrs[f.name].items())))
        for f in op.fields
    )
    return Collection.of(replace(op, fields=fields), result.coords)


def scale_of(series: Collection, dim: str) -> tuple[float, str, list[str]]:
    """Steps per year, the slope's unit, and what should be said about the steps.

    Raises:
        ParameterError: dates that don't increase.
    """
    found = next((c for c in series.coords if c.dim == dim and c.name == dim), None)
    if found is None or not found.is_time or len(found) < 2:
        return 1.0, f"per step of {dim}", []
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


def _signature(dim: str) -> Any:
    from gridcompute.signature import Signature

    return Signature.parse(str(pixel_trend.signature).replace("time", dim))


def picture_of(output: str, picture: Path | None, name: str, unit: str, alpha: float) -> Iterator[str | Path]:
    """Draw what was written; gives the lines and paths for the summary."""
    result = grid.open_result(output)
    slope, flags = result["slope"], result["significant"]
    while slope.ndim > 2:  # the first of further dimensions, such as levels
        yield f"the picture shows the first {slope.dims[0]} of {slope.sizes[slope.dims[0]]}"
        slope, flags = slope[0], flags[0]
    step = max(1, int(np.ceil(np.sqrt(slope.size / MOST_PIXELS)))) if slope.ndim == 2 else 1
    slope, flags = slope[(slice(None, None, step),) * slope.ndim], flags[(slice(None, None, step),) * slope.ndim]
    values, significant = np.asarray(slope.values, np.float64), np.asarray(flags.values, bool)
    known = np.isfinite(values)
    if known.any():
        share = 100 * float((significant & known).sum()) / float(known.sum())
        yield (
            f"slope {np.nanmin(values):.3g} to {np.nanmax(values):.3g} {unit}, median {np.nanmedian(values):.3g}; "
            f"{share:.1f} % of {known.sum():,} pixels with p < {alpha:g}"
        )
    else:
        yield "no pixel has two values: all results are NaN"
    if picture is not None:
        axes = [
            Axis.of(d, result.coords[d]) if d in result.coords else Axis(d, np.arange(slope.sizes[d], dtype=np.float64))
            for d in slope.dims
        ]
        yield draw_trend(picture, values, significant, axes, name=name, unit=unit, alpha=alpha)
