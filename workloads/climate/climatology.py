"""The climatology of an archive, pixel by pixel, its anomalies, and means of the record; see `normals` and `means`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import gridcompute as grid
from gridcompute.collection import Collection
from gridcompute.errors import ParameterError
from gridcompute.plots import picture_path
from gridcompute.registry import Job
from gridcompute.running import Run
from gridcompute.status import counted

from .inputs import attrs_of, chosen, default_archive, methods_of, with_attrs, zarr_named
from .means import annual_means, monthly_means, running_means, seasonal_means
from .normals import SEASONS, Cycle, anomalies, anomaly_spread, normals
from .pictures import draw, thinned

__all__ = ["Cycle", "annual_means", "anomalies", "anomaly_spread", "climatology", "monthly_means", "normals",
           "running_means", "seasonal_means"]  # fmt: skip

MEANS = {"month": monthly_means, "season": seasonal_means, "year": annual_means}
"""Means of a record, by the name that --means has for them."""

MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
          "December")  # fmt: skip


def climatology(
    input: str = "",
    variable: str = "",
    dim: str = "time",
    frequency: str = "month",
    window: int = 1,
    window_weights: str = "uniform",
    base: str = "",
    anomalies: bool = False,
    standardised: bool = False,
    means: str = "",
    output: str = "climatology.zarr",
    picture: str = "",
    overwrite: bool = False,
) -> Job:
    """What each day, month or season of the year is like at each pixel: mean, standard deviation, number of values.

    Writes these and anomaly_std, the deviation of the anomalies of the whole record, as a Zarr store that xarray opens,
    and draws the means. The record is read once, and once more where anomalies are written. A day is a month and a day
    of the month, so 29 February is one. Missing values are left out; deviations divide by the number of values.

    Args:
        input: netCDF file, Zarr store, anything else that xarray reads, a URL or a pattern; by default the 240 years
            of North American air temperature of the package iris-sample-data.
        variable: the variable; needed where the input has several that fit.
        dim: the time dimension.
        frequency: day, month or season.
        window: days over which each day is smoothed, an odd number; the window goes round the end of the year.
        window_weights: of the window's days: uniform, or linear (falling to 0 at the window's ends).
        base: years from which the climatology is taken, such as 1961-1990; by default all.
        anomalies: also write each value minus its day's or month's mean, in the input's shape, beside the output.
        standardised: also write anomalies divided by the standard deviation, NaN where that is 0.
        means: also write means of the record: month, season, year, or steps of running means; several with commas.
        output: Zarr store to write; further ones are named after it, such as climatology-anomalies.zarr.
        picture: PNG to draw; by default beside the output, "none" for no picture.
        overwrite: replace outputs that other data or parameters have left there.

    Examples:
        gridcompute run climate.climatology
        gridcompute run climate.climatology --input era5.zarr --frequency day --window 31 --base 1991-2020 --anomalies
        gridcompute run climate.climatology --input "sst.*.nc" --means month,year,13
    """
    cycle = Cycle(frequency, window, window_weights, base_of(base), dim)
    drawn = picture_path(picture, zarr_named(output))
    wanted = means_of(means)
    field = chosen(grid.open_dataset(input or default_archive()), variable, dim, "--dim")
    name = next(iter(field.columns))
    units = str(attrs_of(field).get("units", "1"))
    outputs = [_normals_of(field, cycle, units).write(output, overwrite=overwrite)]
    if anomalies or standardised:
        found = _departures(field, cycle, anomalies, standardised, units)
        outputs.append(found.write(beside(output, "anomalies"), overwrite=overwrite))
    outputs += [_mean_of(field, part, dim, units).write(beside(output, part), overwrite=overwrite)
                for part in dict.fromkeys(wanted)]  # fmt: skip

    def finish(run: Run) -> Iterator[str | Path]:
        yield from summary(output, drawn, name, units, cycle)

    source = f"{name} of {input}" if input else f"{name} of A1B_north_america.nc from iris-sample-data (240 years)"
    return Job(outputs, finish, [f"input {source}"])


def means_of(text: str) -> list[str]:
    """The means of a record that are asked for, with commas between them.

    Raises:
        ParameterError: one that there isn't.
    """
    wanted = [part.strip() for part in text.split(",") if part.strip()]
    if unknown := [part for part in wanted if part not in MEANS and not part.isdecimal()]:
        raise ParameterError(f"there are no {unknown[0]!r} means", hint=f"one of {', '.join(MEANS)}, or a number")
    return wanted


def base_of(text: str) -> tuple[int, int] | None:
    """First and last year of a period such as 1961-1990; None for an empty text.

    Raises:
        ParameterError: it isn't two years in order.
    """
    if not text:
        return None
    match = re.fullmatch(r"\s*(\d{1,4})\s*[-:/]\s*(\d{1,4})\s*", text)
    if match is None or int(match[1]) > int(match[2]):
        raise ParameterError(f"the base period is {text!r}", hint="a first and a last year, such as 1961-1990")
    return int(match[1]), int(match[2])


def beside(output: str, what: str) -> str:
    """The place of a further output, named after the first.

    >>> beside("out/t2m.zarr/", "anomalies")
    'out/t2m-anomalies.zarr'
    """
    plain = output.rstrip("/")
    stem = plain.removesuffix(".zarr")
    return f"{stem}-{what}{plain[len(stem):] or '.zarr'}"


def _described(name: str, units: str, cycle: Cycle) -> dict[str, dict[str, str]]:
    over = f"time: mean within {cycle.frequency}s over years" if cycle.frequency != "day" else "time: mean over years"
    said = [f"base period {cycle.base[0]} to {cycle.base[1]}"] if cycle.base else []
    said += [f"pooled over {cycle.window} days with {cycle.weights} weights"] if cycle.window > 1 else []
    more = {"comment": "; ".join(said)} if said else {}
    deviation = over.replace("mean within", "standard_deviation within").replace("mean over", "standard_deviation over")
    return {
        "mean": {"long_name": f"mean {name} of each {cycle.frequency}", "units": units, "cell_methods": over, **more},
        "std": {"long_name": f"standard deviation of {name} of each {cycle.frequency}", "units": units,
                "cell_methods": deviation, **more},
        "count": {"long_name": f"values of {name} of each {cycle.frequency}", "units": "1"},
        "anomaly_std": {"long_name": f"standard deviation of the anomalies of {name}", "units": units,
                        "cell_methods": "time: standard_deviation", **more},
    }  # fmt: skip


def _normals_of(field: Collection, cycle: Cycle, units: str) -> Collection:
    (name,) = field.columns
    found = normals(field, cycle).assign(anomaly_std=anomaly_spread(field, cycle))
    return with_attrs(found, _described(name, units, cycle))


def _departures(field: Collection, cycle: Cycle, plain: bool, standardised: bool, units: str) -> Collection:
    (name,) = field.columns
    found = anomalies(field, cycle, plain=plain, standardised=standardised)
    told = {"anomaly": {"long_name": f"{name} minus its {cycle.frequency}'s climatology", "units": units},
            "standardised_anomaly": {"long_name": f"standardised anomaly of {name}", "units": "1"}}  # fmt: skip
    return with_attrs(found, {one: told[one] for one in found.columns})


def _mean_of(field: Collection, part: str, dim: str, units: str) -> Collection:
    (name,) = field.columns
    found = MEANS[part](field, dim) if part in MEANS else running_means(field, int(part), dim)
    over = f"{dim}: mean" if part in MEANS else f"{dim}: mean (running, {part} steps)"
    attrs: dict[str, Any] = {**attrs_of(field), "units": units, "cell_methods": methods_of(field, over)}
    return with_attrs(found, {name: {key: str(value) for key, value in attrs.items()}})


def summary(output: str, picture: Path | None, name: str, units: str, cycle: Cycle) -> Iterator[str | Path]:
    """Draw what was written; gives the lines and paths for the summary."""
    result = grid.open_result(output)
    steps = result.sizes[cycle.name]
    shown = thinned(result["anomaly_std"], *result["anomaly_std"].dims[-2:]).values
    if np.isfinite(shown).any():
        yield (f"{counted(steps, cycle.frequency)}; standard deviation of the anomalies {np.nanmin(shown):.3g} to "
               f"{np.nanmax(shown):.3g} {units}, median {np.nanmedian(shown):.3g}")
    else:
        yield "no pixel has a value, or all have an infinity: there are no deviations"
    if cycle.frequency != "day" and steps < (there := {"month": 12, "season": 4}[cycle.frequency]):
        which = ", ".join(label_of(cycle, int(step)) for step in result[cycle.name].values)
        yield f"only {which} of {there} {cycle.frequency}s: the record has no other dates (is it of annual means?)"
    if picture is not None:
        yield draw(picture, result["mean"], title=f"Climatology of {name.replace('_', ' ')}", unit=units, centred=False,
                   panels=[(label_of(cycle, int(result[cycle.name][at])), at) for at in drawn_steps(steps)])


def drawn_steps(steps: int) -> list[int]:
    """Positions of the steps of which there are maps: all up to 12, else four in the middle of the seasons."""
    return list(range(steps)) if steps <= 12 else [(2 * i + 1) * steps // 8 for i in range(4)]


def label_of(cycle: Cycle, step: int) -> str:
    """What a step of the year is called in pictures."""
    if cycle.frequency == "month":
        return MONTHS[step - 1]
    return SEASONS[step] if cycle.frequency == "season" else f"day {step} of the year"
