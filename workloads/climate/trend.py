"""Trends of a climate archive, pixel by pixel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import gridcompute as grid
from gridcompute.errors import ParameterError
from gridcompute.maps import draw_trend
from gridcompute.plots import Axis, picture_path
from gridcompute.registry import Job
from gridcompute.running import Run

from .inputs import attrs_of, chosen, default_archive, scale_of, with_attrs

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
