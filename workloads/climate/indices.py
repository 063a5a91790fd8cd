"""The 27 core indices of climate extremes that the Expert Team on Climate Change Detection and Indices defined."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import gridcompute as grid
from gridcompute.collection import Collection
from gridcompute.coords import Coordinate, packed
from gridcompute.errors import DimensionError, MissingInputError, ParameterError
from gridcompute.plots import Axis, picture_path
from gridcompute.registry import Job
from gridcompute.running import Run

from .daily import example, found, scale_of, time_of
from .etccdi.bootstrap import ranks_of
from .etccdi.days import days_of_series, period_starts
from .etccdi.kernels import Scale, warm_days
from .etccdi.table import GROUPS, INDICES, SERIES, Group
from .inputs import coordinate_along, with_attrs, zarr_named
from .pictures import draw_field, draw_series

Array = np.ndarray[Any, Any]


def extreme_indices(
    tx: Collection | None = None,
    tn: Collection | None = None,
    pr: Collection | None = None,
    *,
    only: Sequence[str] = (),
    base: tuple[int, int] = (1961, 1990),
    monthly: bool = True,
    hemisphere: str = "",
    amount: float = 1.0,
    wraps: bool = True,
) -> Collection:
    """ETCCDI indices of every cell's daily series, along the new dimensions year and month.

    The rules are those of climdex.pcic: a month with more than three missing days is NaN, a year with such a month or
    more than 15 missing days too; thresholds are quantiles (definition 8) of five-day windows in the base years, which
    go on at the same year's other end; the base's own days are compared with bootstrapped thresholds (Zhang et al.
    2005); warm and cold spells end with the year, dry and wet spells don't; a five-day sum belongs to its middle day.

    Args:
        tx: daily maximum temperature, one column in degC or K.
        tn: daily minimum temperature.
        pr: daily precipitation in mm, mm/day or kg m-2 s-1.
        only: names of the indices; all that the series allow where empty.
        base: first and last year of the base period.
        monthly: whether the indices that ETCCDI gives per month are so; else they are per year too.
        hemisphere: "north" or "south", which decides when a growing season begins; by default as the latitudes say.
        amount: least precipitation of the days that `rnnmm` counts, mm.
        wraps: False for xclim's windows, which go on in the next year and stop at the ends of the base.

    Raises:
        ParameterError: series that aren't daily, units that aren't known, a base outside the data, unknown names.
        MissingInputError: an index needs a series that isn't there.
        DimensionError: gsl is asked for, but neither latitudes nor the hemisphere are known.
    """
    series = {kind: one for kind, one in (("tx", tx), ("tn", tn), ("pr", pr)) if one is not None}
    wanted = _wanted(tuple(only), series, hemisphere)
    if not base[0] < base[1]:
        raise ParameterError(f"the base period is {base[0]} to {base[1]}", hint="its last year comes after its first")
    if not 0 <= amount < math.inf:
        raise ParameterError(f"the amount is {amount}", hint="millimetres of a day, such as 1")
    times = {kind: time_of(one) for kind, one in series.items()}
    spans = {kind: period_starts(time, monthly) for kind, time in times.items()}
    first = next(iter(spans))
    for kind, span in spans.items():
        if not np.array_equal(span, spans[first]):
            raise ParameterError(f"{SERIES[first]} and {SERIES[kind]} are of other years", hint="select the same years")
    columns: dict[str, Any] = {}
    coords: dict[tuple[str, str], Coordinate] = {}
    years = base[1] - base[0] + 1
    given = {"low": ranks_of(0.1, years, False), "high": ranks_of(0.9, years, True), "wraps": wraps, "amount": amount}
    for group in GROUPS:
        if any(name in wanted for name in group.names):
            made = _group(group, series, times, base, monthly, hemisphere, wanted, given)
            columns.update((name, made.columns[name]) for name in group.names if name in wanted)
            coords.update({(c.dim, c.name): c for c in made.coords})
    for dim, months in (("year", False), ("month", True)):
        coords[dim, dim] = _period_axis(times[first], dim, months)
    return with_attrs(Collection({name: columns[name] for name in wanted}, coords.values()), _described(amount))


def tx90p_days(values: Array, time: Coordinate, base: tuple[int, int], *, wraps: bool = True) -> Array:
    """Days of each year above the 90th percentile of series in memory, with the bootstrap, missing days left out.

    Args:
        values: (cells, steps) daily maximum temperatures, in any one unit.
        time: dates of the steps.
        base: first and last year of the base period.
        wraps: see `extreme_indices`.

    Returns:
        (cells, years), float64.

    Raises:
        ParameterError: as `extreme_indices`.
    """
    days = days_of_series(time, base, False)
    kernel = grid.kernel("(time)->(year)", sizes={"year": days.seasons.shape[1]})(warm_days)
    one = Scale(np.ones(1, values.dtype), np.zeros(1, values.dtype))
    found: Array = kernel(values, scale=one, days=days, high=ranks_of(0.9, base[1] - base[0] + 1, True), wraps=wraps)
    return found


def _wanted(only: tuple[str, ...], series: Mapping[str, Collection], hemisphere: str) -> list[str]:
    """Names of the indices that are asked for, or that the series allow, in ETCCDI's order."""
    if hemisphere not in ("", "north", "south"):
        raise ParameterError(f"hemisphere is {hemisphere!r}", hint="north or south; without it the latitudes decide")
    for name in only:
        if name not in INDICES:
            raise ParameterError(f"no index {name!r}", hint=f"the indices are {', '.join(INDICES)}")
        for kind in INDICES[name].needs:
            if kind not in series:
                raise MissingInputError(f"{name} needs {SERIES[kind]} ({kind})", hint=f"name its variable: --{kind}")
    if only:
        return [name for name in INDICES if name in only]
    lost = [] if hemisphere or "tx" not in series or _latitudes(series["tx"]) else ["gsl"]
    found = [name for name, one in INDICES.items() if name not in lost and set(one.needs) <= series.keys()]
    if not found:
        raise MissingInputError("there is no daily series", hint="give temperatures or precipitation: --tx, --tn, --pr")
    return found


def _latitudes(data: Collection) -> Coordinate | None:
    try:
        return coordinate_along(data, "latitude")
    except DimensionError:
        return None


def _group(group: Group, series: Mapping[str, Collection], times: Mapping[str, Coordinate], base: tuple[int, int],
           monthly: bool, hemisphere: str, wanted: Sequence[str], given: Mapping[str, Any]) -> Collection:
    """The indices of one kernel."""
    taken = [series[kind] for kind in group.needs]
    time = times[group.needs[0]]
    days = days_of_series(time, base, monthly)
    params: dict[str, Any] = dict(group.given) | {"days": days}
    scales = [scale_of(one, kind) for one, kind in zip(taken, group.needs, strict=True)]
    if len(taken) == 2:
        params |= {"scale_x": scales[0], "scale_n": scales[1]}
        taken.append(_southern(taken[0], hemisphere if "gsl" in wanted else "north"))
    else:
        params["scale"] = scales[0]
    names = group.function.__code__.co_varnames[: group.function.__code__.co_argcount]
    params |= {name: value for name, value in given.items() if name in names}
    signature = group.signature.replace("(time)", f"({time.dim})")
    signature = signature if monthly else signature.replace("month", "year")
    sizes = {"year": days.seasons.shape[1]} | ({"month": 12 * days.seasons.shape[1]} if monthly else {})
    kernel = grid.kernel(signature, names=group.names, sizes=sizes)(group.function)
    return taken[0].map(kernel, *taken[1:], **params)


def _southern(series: Collection, hemisphere: str) -> Collection:
    """Whether a cell's growing season begins in July: a column along the latitudes."""
    latitudes = None if hemisphere else _latitudes(series)
    if latitudes is not None:
        return grid.from_arrays({"south": latitudes.values < 0}, latitudes.dim, coords=[latitudes])
    if not hemisphere:
        raise DimensionError("gsl depends on the hemisphere, and the input has no latitudes",
                             hint="say it: --hemisphere north or south")
    return grid.from_arrays({"south": np.array(hemisphere == "south")}, ())


def _period_axis(time: Coordinate, dim: str, months: bool) -> Coordinate:
    starts = period_starts(time, months)
    unit = "days since 1970-01-01"
    if time.time_unit.calendar == "julian":  # its instants count from the Gregorian day
        unit = "days since 1969-12-19"
    about = {"long_name": f"first day of the {dim}", "standard_name": "time"}
    return Coordinate(dim, dim, starts.astype(np.int64), unit, time.calendar, packed(about))


def _described(amount: float) -> dict[str, dict[str, str]]:
    texts = {name: one.about for name, one in INDICES.items()}
    texts["rnnmm"] = f"days of {amount:g} mm or more"
    return {name: {"long_name": texts[name], "units": one.units, "cell_methods": one.methods}
            for name, one in INDICES.items()}


def indices(
    input: str = "",
    tx: str = "",
    tn: str = "",
    pr: str = "",
    tn_input: str = "",
    pr_input: str = "",
    indices: str = "",
    base: str = "1961-1990",
    monthly: bool = True,
    hemisphere: str = "",
    amount: float = 1.0,
    show: str = "",
    output: str = "indices.zarr",
    picture: str = "",
    overwrite: bool = False,
) -> Job:
    """The ETCCDI core indices of climate extremes of every pixel's daily temperatures and precipitation.

    Writes a Zarr store with a variable per index along `year` or `month`, equal to climdex.pcic's, a map of one index'
    mean and its area mean over time. Indices whose series aren't there are left out.

    Args:
        input: netCDF file, Zarr store, anything else that xarray reads, a URL or a pattern; by default 40 years of
            made-up weather.
        tx: variable of the daily maximum temperature; by default one that is named tasmax, tx, tmax or the like.
        tn: variable of the daily minimum temperature.
        pr: variable of the daily precipitation.
        tn_input: where the minimum temperature is, if not in the input.
        pr_input: where the precipitation is, if not in the input.
        indices: names of the indices with commas between, such as tx90p,su; by default all that the series allow.
        base: first and last year of the base period of the percentile indices.
        monthly: give txx, tnx, txn, tnn, tn10p, tx10p, tn90p, tx90p, dtr, rx1day, rx5day per month, else per year.
        hemisphere: north or south, for growing seasons of data without latitudes.
        amount: least precipitation of the days that rnnmm counts, mm.
        show: index to draw: the mean of the record, or the trend of an index in %, and the mean over the area.
        output: Zarr store to write.
        picture: PNG to draw, and another with _series; by default beside the output, "none" for no picture.
        overwrite: replace an output that other data or parameters have left there.

    Examples:
        gridcompute run climate.indices
        gridcompute run climate.indices --input tasmax.nc --indices tx90p,su --base 1981-2010
        gridcompute run climate.indices --input tasmax.nc --tn-input tasmin.nc --pr-input pr.nc --output all.zarr
    """
    drawn = picture_path(picture, zarr_named(output))
    series, where = _series(input, {"tx": tx, "tn": tn, "pr": pr}, {"tn": tn_input, "pr": pr_input})
    only = tuple(name.strip().lower() for name in indices.split(",") if name.strip())
    given: dict[str, Any] = {"base": _years(base), "monthly": monthly, "hemisphere": hemisphere, "amount": amount}
    result = extreme_indices(**series, only=only, **given)
    names = list(result.columns)
    drawing = _telling(names, show)
    lines = [f"input {where}", f"{len(names)} indices of the base {base}"]
    left = [name for name in INDICES if name not in names and not only]
    lines += [f"left out: {', '.join(left)} (no series or no latitudes for them)"] * bool(left)

    def finish(run: Run) -> Iterator[str | Path]:
        yield from pictures_of(output, drawn, drawing)

    return Job([result.write(output, overwrite=overwrite)], finish, lines)


def _telling(names: list[str], show: str) -> str:
    """The index that is drawn."""
    if show and show not in names:
        raise ParameterError(f"the index to draw, {show!r}, isn't computed", hint=f"choose from {', '.join(names)}")
    if show:
        return show
    return next((name for name in ("tx90p", "tn90p", "su", "fd", "r95ptot", "cdd") if name in names), names[0])


def _years(base: str) -> tuple[int, int]:
    match = re.fullmatch(r"\s*(\d{1,4})\s*-\s*(\d{1,4})\s*", base)
    if match is None:
        raise ParameterError(f"the base period {base!r} isn't readable", hint="two years, such as 1981-2010")
    return int(match[1]), int(match[2])


def _series(input: str, named: Mapping[str, str], inputs: Mapping[str, str]) -> tuple[dict[str, Any], str]:
    """The daily series that there are, and where from."""
    first = grid.open_dataset(input) if input else example()
    series = {}
    for kind, name in named.items():
        own = inputs.get(kind, "")
        one = found(grid.open_dataset(own) if own else first, kind, name)
        if own and one is None:
            raise MissingInputError(f"{own} has no {SERIES[kind]}", hint=f"name its variable with --{kind}")
        if one is not None:
            series[kind] = one
    where = ", ".join(f"{kind}: {next(iter(one.columns))}" for kind, one in series.items())
    return series, f"{where} of {input}" if input else f"{where} of 40 years of made-up weather"


def pictures_of(output: str, picture: Path | None, name: str) -> Iterator[str | Path]:
    """Draw one index of what was written; gives the lines and paths for the summary."""
    values = grid.open_result(output)[name]
    along = "month" if "month" in values.dims else "year"
    units = str(values.attrs.get("units", ""))
    plane = [dim for dim in values.dims if dim != along]
    while len(plane) > 2:  # the first of further dimensions, such as levels
        yield f"the picture shows the first {plane[0]} of {values.sizes[plane[0]]}"
        values, plane = values.isel({plane[0]: 0}), plane[1:]
    known = np.asarray(values.values, np.float64)
    if not np.isfinite(known).any():
        yield f"{name} has no value anywhere: too many days are missing"
        return
    yield f"{name} {np.nanmin(known):.4g} to {np.nanmax(known):.4g} {units}, mean {np.nanmean(known):.4g}"
    if picture is None:
        return
    title, period = f"{name}: {values.attrs.get('long_name', '')}", Axis.of(along, values[along])
    if len(plane) == 2:
        axes, share = [Axis.of(dim, values[dim]) for dim in plane], units == "%"
        fields = np.moveaxis(known, values.get_axis_num(along), 0)
        # Shares of days beyond a percentile are 10 % everywhere in the base period: what tells is how they change.
        drawn = _per_decade(fields, period.values) if share else np.asarray(values.mean(along, skipna=True).values)
        years = f"{period.values[0]:.0f}-{period.values[-1] - 0.5:.0f}" if period.kind else ""
        yield draw_field(picture, drawn, axes[0], axes[1], unit=f"{units} per decade" if share else units,
                         title=f"{title}, {'trend' if share else 'mean'} {years}", centred=True if share else None)
        picture = picture.with_name(f"{picture.stem}_series.png")
    line = _area_mean(values, plane)
    if along == "month":
        line = line.resample({along: "YS"}).mean()
    dates = line[along].dt.year.values.astype(np.float64)
    title = f"{title}, area mean"
    yield draw_series(picture, {name: np.asarray(line.values)}, Axis("year", dates), title=title, unit=units)


def _per_decade(values: Array, years: Array) -> Array:
    """Least-squares slopes over the first axis, in ten years; NaN for fewer than two values."""
    known = np.isfinite(values)
    count = np.maximum(known.sum(axis=0), 1)
    time = np.where(known, years[(...,) + (None,) * (values.ndim - 1)], 0.0)
    time = np.where(known, time - time.sum(axis=0) / count, 0.0)
    square = (time ** 2).sum(axis=0)
    rise = (time * np.where(known, values, 0.0)).sum(axis=0)
    return np.asarray(10 * np.where(square > 0, rise / np.where(square > 0, square, 1.0), np.nan))


def _area_mean(values: Any, plane: list[str]) -> Any:
    """Mean over the plane, by the cosine of latitude where there are latitudes."""
    for dim in plane:
        if dim in values.coords and Axis.of(dim, values.coords[dim]).kind == "latitude":
            return values.weighted(np.cos(np.deg2rad(values.coords[dim]))).mean(plane)
    return values.mean(plane)
