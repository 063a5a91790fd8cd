"""Trends of a climate archive, pixel by pixel: Mann-Kendall tests and Theil-Sen lines, or least squares."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import gridcompute as grid
from gridcompute.collection import Collection
from gridcompute.errors import ParameterError
from gridcompute.maps import draw_trend
from gridcompute.plots import Axis, picture_path
from gridcompute.registry import Job
from gridcompute.running import Run
from gridcompute.signature import Signature

from .inputs import attrs_of, chosen, default_archive, scale_of, with_attrs, zarr_named

MOST_PIXELS = 4_000_000
"""A picture of more pixels than these takes every second, third ... one."""


NAMES = ("slope", "intercept", "tau", "p", "z", "s")


@grid.kernel("(time)->(),(),(),(),(),()", names=NAMES, parallel=128)  # a few microseconds for decades of years
def pixel_trend(series, per_year):  # type: ignore[no-untyped-def]  # numba infers the types
    """One pixel's Mann-Kendall test and Theil-Sen line; all NaN with fewer than two values."""
    test = grid.stats.trend(series)
    return test.slope * per_year, test.intercept, test.tau, test.p, test.z, test.s


@grid.kernel("(time)->(),(),(),(),(),()", names=NAMES)
def pixel_hamed_rao(series, per_year):  # type: ignore[no-untyped-def]
    """The same with the variance corrected for autocorrelation as Hamed and Rao do it."""
    test = grid.stats.hamed_rao(series)
    return test.slope * per_year, test.intercept, test.tau, test.p, test.z, test.s


@grid.kernel("(time)->(),(),(),(),(),()", names=NAMES)
def pixel_yue_wang(series, per_year):  # type: ignore[no-untyped-def]
    """The same with the variance corrected for autocorrelation as Yue and Wang do it."""
    test = grid.stats.yue_wang(series)
    return test.slope * per_year, test.intercept, test.tau, test.p, test.z, test.s


@grid.kernel("(time)->(),(),(),(),(),()", names=NAMES)
def pixel_prewhitened(series, per_year):  # type: ignore[no-untyped-def]
    """The same after trend-free pre-whitening."""
    test = grid.stats.trend_free_prewhitened(series)
    return test.slope * per_year, test.intercept, test.tau, test.p, test.z, test.s


@grid.kernel("(time)->(),(),(),(),(),()", names=NAMES)
def pixel_seasonal(series, per_year, period):  # type: ignore[no-untyped-def]
    """The same with each season compared with itself only."""
    test = grid.stats.seasonal_kendall(series, period)
    return test.slope * (per_year / period), test.intercept, test.tau, test.p, test.z, test.s


LINE = ("slope", "intercept", "r", "stderr", "p")


METHODS = {
    "mann-kendall": pixel_trend,
    "hamed-rao": pixel_hamed_rao,
    "yue-wang": pixel_yue_wang,
    "prewhitened": pixel_prewhitened,
    "seasonal": pixel_seasonal,
    "ols": None,
}
"""Kernels by method; least squares is a reduction."""


def trend_test(series: Collection, dim: str = "time", *, method: str = "mann-kendall", period: int = 12,
               per_year: float = 1.0) -> Collection:
    """The trend of every cell's series along a dimension.

    Args:
        series: one column of numbers; missing values are left out.
        dim: the dimension.
        method: one of `METHODS`: "mann-kendall" (with the Theil-Sen line), the same corrected for autocorrelation by
            "hamed-rao", "yue-wang" or "prewhitened", "seasonal" (each season by itself), or "ols" (least squares).
        period: steps after which a season comes again.
        per_year: what slopes per step are multiplied by.

    Returns:
        slope, intercept, tau, p, z, s; of "ols" slope, intercept, r, stderr, p; with their units and long names, where
        slopes are per step of the dimension if `per_year` is 1, else per year.

    Raises:
        ParameterError: no such method, or a period that the series doesn't have twice.
    """
    if method not in METHODS:
        raise ParameterError(f"no method {method!r}", hint=f"one of {', '.join(METHODS)}")
    name, units = series.fields[0].name, str(attrs_of(series).get("units", "1"))
    rate = f"{units} per step of {dim}" if per_year == 1 else f"{units} year-1"
    return with_attrs(_tested(series, dim, method, period, per_year), _described(method, name, dim, units, rate))


def _tested(series: Collection, dim: str, method: str, period: int, per_year: float) -> Collection:
    """`trend_test` of a known method, without attributes."""
    kernel = METHODS[method]
    if kernel is None:
        name = next(iter(series.columns))
        found = series.reduce("linregress", dim, significance=True)
        line = found.rename(**{f"{name}_{one}": one for one in LINE})[list(LINE)]
        return line.assign(slope=line["slope"] * per_year, stderr=line["stderr"] * per_year)
    params: dict[str, Any] = {"per_year": per_year}
    if method == "seasonal":
        steps = series.space[dim] or 0
        if not 2 <= period <= steps // 2:
            raise ParameterError(f"the period is {period}", hint=f"at least 2, and at most half of the {steps} steps")
        params["period"] = period
    signature = Signature.parse(str(kernel.signature).replace("time", dim))
    return series.map(kernel if dim == "time" else replace(kernel, signature=signature), **params)


def trend(
    input: str = "",
    variable: str = "",
    dim: str = "time",
    alpha: float = 0.05,
    method: str = "mann-kendall",
    period: int = 12,
    output: str = "trend.zarr",
    picture: str = "",
    overwrite: bool = False,
) -> Job:
    """Mann-Kendall test and exact Theil-Sen slope of every pixel's time series, or another test or line.

    Writes slope, intercept, tau, p, z, s (least squares: r, stderr, p) and significant (p < alpha) as a Zarr store that
    xarray opens, and draws the slopes with dots where they are significant. Where the time coordinate holds dates the
    slope is per year: the slope per step times the mean number of steps in a year of the file's calendar. Missing
    values are left out; pixels with fewer than two values are NaN.

    Args:
        input: netCDF file, Zarr store, anything else that xarray reads, a URL or a pattern; by default the 240 years
            of North American air temperature of the package iris-sample-data.
        variable: the variable; needed where the input has several that fit.
        dim: the dimension along which the trend is taken.
        alpha: significance level, above 0 and below 1.
        method: mann-kendall; hamed-rao, yue-wang or prewhitened for series whose values depend on those before;
            seasonal; or ols for least squares, which reads the input as it comes.
        period: steps of a seasonal cycle: 12 for months.
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
    drawn = picture_path(picture, zarr_named(output))
    data = grid.open_dataset(input or default_archive())
    series = chosen(data, variable, dim, "--dim")
    name = next(iter(series.columns))
    scale, unit, remark = scale_of(series, dim)
    test = trend_test(series, dim, method=method, period=period, per_year=scale)
    result = test.assign(significant=test["p"] < alpha)
    units = str(attrs_of(series).get("units", "1"))
    described = _described(method, name, dim, units, f"{units} {unit}")
    described["significant"] = {"long_name": f"p < {alpha:g}"}

    def finish(run: Run) -> Iterator[str | Path]:
        yield from picture_of(output, drawn, name, f"{units} {unit}", alpha, method)

    source = f"{name} of {input}" if input else f"{name} of A1B_north_america.nc from iris-sample-data (240 years)"
    return Job([with_attrs(result, described).write(output, overwrite=overwrite)], finish, [f"input {source}", *remark])


def _described(method: str, name: str, dim: str, units: str, rate: str) -> dict[str, dict[str, str]]:
    """Attributes of the results."""
    if method == "ols":
        return {
            "slope": {"long_name": f"least-squares slope of {name}", "units": rate},
            "intercept": {"long_name": f"least-squares line at the first {dim}", "units": units},
            "r": {"long_name": "correlation with time", "units": "1"},
            "stderr": {"long_name": "standard error of the slope", "units": rate},
            "p": {"long_name": "two-sided p-value of the slope's t test", "units": "1"},
        }
    test = "Mann-Kendall" if method == "mann-kendall" else f"Mann-Kendall ({method})"
    return {
        "slope": {"long_name": f"Theil-Sen slope of {name}", "units": rate},
        "intercept": {"long_name": f"Theil-Sen line at the first {dim}", "units": units},
        "tau": {"long_name": "Kendall's tau against time", "units": "1"},
        "p": {"long_name": f"two-sided p-value of the {test} test", "units": "1"},
        "z": {"long_name": f"{test} test statistic", "units": "1"},
        "s": {"long_name": f"{test} score", "units": "1"},
    }


def _test_of(method: str) -> str:
    """What a method's p-value is of, for the caption of a picture."""
    if method == "ols":
        return "least squares"
    return "Mann-Kendall" if method == "mann-kendall" else f"Mann-Kendall, {method}"


def picture_of(output: str, picture: Path | None, name: str, unit: str, alpha: float,
               method: str = "mann-kendall") -> Iterator[str | Path]:
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
        yield "no pixel has two values and no infinity: all results are NaN"
    if picture is not None:
        axes = [
            Axis.of(d, result.coords[d]) if d in result.coords else Axis(d, np.arange(slope.sizes[d], dtype=np.float64))
            for d in slope.dims
        ]
        yield draw_trend(picture, values, significant, axes, name=name, unit=unit, alpha=alpha, test=_test_of(method))
