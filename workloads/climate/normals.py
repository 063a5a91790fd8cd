"""Climatologies: what each day, month or season of the year is like at each pixel, and anomalies from that.

A day is a month and a day of the month, as cdo's ydaymean counts them: 29 February is a day of its own, and 1 March has
one number in every year. So `dayofyear` goes to 366 in calendars with leap years, to 365 in noleap, to 360 in 360_day.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

import gridcompute as grid
from gridcompute.collection import Collection
from gridcompute.coords import Coordinate, components, packed
from gridcompute.errors import ParameterError
from gridcompute.kernels import Kernel
from gridcompute.reductions import mean_and_count, mean_and_var, var
from gridcompute.signature import Signature

from .inputs import as_measured, attrs_of, coordinate_along, with_attrs

Array = np.ndarray[Any, Any]

STEPS = {"day": "dayofyear", "month": "month", "season": "season"}
"""Frequencies of a climatology, and the dimension that each gives."""

FEW = 8
"""Chunks of small data for quick kernels: each reads of a climatology, so that more would cost more than they gain."""

SEASONS = ("DJF", "MAM", "JJA", "SON")

WEIGHTS = ("uniform", "linear")


@dataclass(frozen=True)
class Cycle:
    """How a climatology is taken: the parameters that `normals`, `anomalies` and `anomaly_spread` share.

    Attributes:
        frequency: "day", "month" or "season".
        window: days over which each day is smoothed, an odd number; the window goes round the end of the year.
        weights: of the window's days: "uniform", or "linear": 1 - |k| / h for the day k days off, of a window of
            2 h + 1, as WeatherBench 2 has it.
        base: first and last year of the base period; None for all years.
        dim: the time dimension, where it isn't plain.
    """

    frequency: str = "day"
    window: int = 1
    weights: str = "uniform"
    base: tuple[int, int] | None = None
    dim: str = ""

    def __post_init__(self) -> None:
        if self.frequency not in STEPS:
            raise ParameterError(f"a climatology can't be by {self.frequency!r}", hint=f"one of {', '.join(STEPS)}")
        if self.weights not in WEIGHTS:
            raise ParameterError(f"the window can't have {self.weights!r} weights", hint=f"one of {', '.join(WEIGHTS)}")
        if self.window < 1 or self.window % 2 == 0 or self.window > 359:
            raise ParameterError(f"a window of {self.window} days has no middle, or is longer than a year",
                                 hint="an odd number, such as 31")
        if self.window > 1 and self.frequency != "day":
            raise ParameterError(f"a window of days goes with days, not with a {self.frequency}", hint="take days")

    @property
    def name(self) -> str:
        """The dimension of the steps of the year."""
        return STEPS[self.frequency]

    @property
    def kernel_weights(self) -> Array:
        """Of the window's days."""
        half = self.window // 2
        off = np.abs(np.arange(-half, half + 1))
        return np.ones(self.window) if self.weights == "uniform" or not half else 1.0 - off / half

    def steps(self, time: Coordinate) -> Steps:
        """The steps of the year that a record's times are of.

        Raises:
            ParameterError: times without dates, or none of them in the base period.
        """
        found = Steps(self, time)
        if (found.base < 0).all():
            years = components(time, "year")
            raise ParameterError(f"the base period {self.base} lies outside the record",
                                 hint=f"which has the years {years.min()} to {years.max()}")
        return found


@dataclass(frozen=True, eq=False)
class Steps:
    """The steps of the year along the time of one record.

    Attributes:
        cycle: how they are taken.
        time: the record's times.
    """

    cycle: Cycle
    time: Coordinate

    @cached_property
    def numbers(self) -> Array:
        """Of each position: the day of the year or the month from 1 on, or the season from 0 on."""
        if self.cycle.frequency != "day":
            return components(self.time, "month" if self.cycle.frequency == "month" else "season")
        month, day = components(self.time, "month"), components(self.time, "day")
        return np.asarray(self.starts[month - 1] + day)

    @cached_property
    def starts(self) -> Array:
        """Days of a year before each month, and of all of it."""
        calendar = self.time.time_unit.calendar
        if calendar == "360_day":
            return np.arange(0, 361, 30)
        february = 28 if calendar == "noleap" else 29
        return np.cumsum([0, 31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])

    @cached_property
    def coordinate(self) -> Coordinate:
        """Of the steps that the record has."""
        told = {"day": "day of the year, of a year with 29 February where the calendar has it",
                "month": "month of the year", "season": "season: 0 to 3 for DJF, MAM, JJA and SON"}  # fmt: skip
        attrs = packed({"long_name": told[self.cycle.frequency]})
        return Coordinate(self.cycle.name, self.cycle.name, np.unique(self.numbers), attrs=attrs)

    @cached_property
    def codes(self) -> Array:
        """The place among these steps of each position."""
        return np.searchsorted(self.coordinate.values, self.numbers).astype(np.int64)

    @cached_property
    def base(self) -> Array:
        """The same, -1 outside the base period."""
        if self.cycle.base is None:
            return self.codes
        years, (first, last) = components(self.time, "year"), self.cycle.base
        return np.where((years >= first) & (years <= last), self.codes, -1)


@grid.kernel("(step),(step),(step)->(step),(step),(step)", names=("count", "mean", "std"))
def pooled(count, mean, var, at, weights, length):  # type: ignore[no-untyped-def]  # numba infers the types
    """Moments of the values of all days in the window around each; what is squared is small, so nothing cancels."""
    half, many = len(weights) // 2, len(count)
    values, offsets, squares = np.zeros(length + 2 * half), np.zeros(length + 2 * half), np.zeros(length + 2 * half)
    middle = 0.0
    for i in range(many - 1, -1, -1):
        if count[i] > 0:
            middle = mean[i]
    for i in range(many):
        if count[i] > 0:
            for turn in range(-1, 2):  # the days before the first and after the last are those of the other end
                place = at[i] + half + turn * length
                if 0 <= place < length + 2 * half:
                    values[place], offsets[place] = count[i], mean[i] - middle
                    squares[place] = var[i] * count[i]
    counted, total, sums, spread = np.zeros(length), np.zeros(length), np.zeros(length), np.zeros(length)
    for k in range(len(weights)):
        if weights[k] > 0:
            for day in range(length):
                counted[day] += values[day + k]
                total[day] += weights[k] * values[day + k]
                sums[day] += weights[k] * values[day + k] * offsets[day + k]
    for day in range(length):
        sums[day] = sums[day] / total[day] if total[day] > 0 else np.nan
    for k in range(len(weights)):
        for day in range(length):
            off = offsets[day + k] - sums[day]
            spread[day] += weights[k] * (squares[day + k] + values[day + k] * off * off)
    counts, means, stds = np.zeros(many, np.int64), np.zeros(many), np.zeros(many)
    for i in range(many):
        day = at[i]
        counts[i], means[i] = np.int64(counted[day]), middle + sums[day]
        stds[i] = np.sqrt(spread[day] / total[day]) if total[day] > 0 else np.nan
    return counts, means, stds


@grid.kernel("(step),(step),(step),(step)->()", names=("anomaly_std",), parallel=1)
def spread_about(count, mean, var, normal):  # type: ignore[no-untyped-def]  # numba infers the types
    """Standard deviation of the anomalies of a whole record, from the moments of its days: sums of squares only."""
    total, middle, squares = 0.0, 0.0, 0.0
    for i in range(len(count)):
        if count[i] > 0 and not np.isnan(normal[i]):
            total += count[i]
            middle += count[i] * (mean[i] - normal[i])
    if total == 0.0:
        return np.nan
    middle /= total
    for i in range(len(count)):
        if count[i] > 0 and not np.isnan(normal[i]):
            off = mean[i] - normal[i] - middle
            squares += count[i] * (var[i] + off * off)
    return np.sqrt(squares / total)


@grid.kernel("(step),(step),(step),(),()->()", names=("anomaly_std",), parallel=1)
def spread_within(count, mean, normal, middle, var):  # type: ignore[no-untyped-def]  # numba infers the types
    """The same from the moments of the whole record and the means of its days, where each day with values has a
    climatology: of the variance what lies between the days is taken away, that of the anomalies' means added.
    """
    total, between, off = 0.0, 0.0, 0.0
    for i in range(len(count)):
        if count[i] > 0:
            total += count[i]
            between += count[i] * (mean[i] - middle) ** 2
            off += count[i] * (mean[i] - normal[i])
    if total == 0.0:
        return np.nan
    off /= total
    squares = max(total * var - between, 0.0)
    for i in range(len(count)):
        if count[i] > 0:
            squares += count[i] * (mean[i] - normal[i] - off) ** 2
    return np.sqrt(squares / total)


@grid.kernel("(),()->()", names=("anomaly",), parallel=FEW)
def departure(value, mean):  # type: ignore[no-untyped-def]  # numba infers the types
    """Value minus climatology."""
    return value - mean


@grid.kernel("(),(),()->()", names=("standardised_anomaly",), parallel=FEW)
def standardised_departure(value, mean, std):  # type: ignore[no-untyped-def]  # numba infers the types
    """Value minus climatology, in standard deviations; NaN where there is no deviation."""
    return (value - mean) / std if std > 0 else np.nan


@grid.kernel("(),(),()->(),()", names=("anomaly", "standardised_anomaly"), parallel=FEW)
def departures(value, mean, std):  # type: ignore[no-untyped-def]  # numba infers the types
    """Both."""
    return value - mean, (value - mean) / std if std > 0 else np.nan


@grid.kernel("()->()", names=("mean",), parallel=FEW)
def laid_out(mean):  # type: ignore[no-untyped-def]  # numba infers the types
    """A climatology as it is, but kept in chunks of its own: each piece of a record then reads only the days it has."""
    return mean


@grid.kernel("(),()->(),()", names=("mean", "std"), parallel=FEW)
def both_laid_out(mean, std):  # type: ignore[no-untyped-def]  # numba infers the types
    """The same of mean and deviation."""
    return mean, std


def along(kernel: Kernel, dim: str, core: str = "step", **sizes: int) -> Kernel:
    """A kernel whose core dimension `core` is another dimension, with these lengths of new ones."""
    text = re.sub(rf"\b{core}\b", dim, str(kernel.signature))
    return replace(kernel, signature=Signature.parse(text), sizes={**kernel.sizes, **sizes})


def _moments(field: Collection, steps: Steps, codes: Array) -> Collection:
    """Mean, count and variance of the values of each step; the variance is only computed where it is used."""
    (name,) = field.columns
    where = [steps.time.dim], (steps.coordinate, codes)
    found = field.reduced(mean_and_count(), *where).rename(**{f"{name}_mean": "mean", f"{name}_count": "count"})
    return found.assign(var=field.reduced(var(), *where))


def _normals(field: Collection, steps: Steps) -> Collection:
    cycle, own = steps.cycle, _moments(field, steps, steps.base)
    if cycle.window == 1:
        return own[["mean"]].assign(std=own["var"] ** 0.5, count=own["count"])
    at, length = steps.coordinate.values - 1, int(steps.starts[-1])
    moments = own[["count", "mean", "var"]]  # the order in which the kernel takes them
    found = moments.map(along(pooled, cycle.name), at=at, weights=cycle.kernel_weights, length=length)
    return found[["mean", "std", "count"]].transpose(*own.dims)


def normals(field: Collection, cycle: Cycle = Cycle()) -> Collection:
    """Mean, standard deviation and number of values of each step of the year.

    Standard deviations divide by the number of values. In a window all values of its days are pooled, each with its
    day's weight, so that days with more values count more; its deviation is that from the smoothed mean.

    Args:
        field: one column over time and any other dimensions.
        cycle: how it is taken.

    Returns:
        Columns `mean`, `std`, `count` over `dayofyear`, `month` or `season`, then the other dimensions; NaN counts in
        none.

    Raises:
        DimensionError: no time coordinate.
        ParameterError: none of the times lies in the base period.
    """
    return _normals(field, cycle.steps(coordinate_along(field, "time", cycle.dim)))


def anomaly_spread(field: Collection, cycle: Cycle = Cycle()) -> Collection:
    """`anomaly_std`: the standard deviation of the anomalies of the whole record, without computing the anomalies.

    Of N values with the anomalies a it is sqrt(sum((a - mean(a))^2) / N). From the moments of each step:
    sum over steps of n (var + (mean - climatology - mean(a))^2). Arguments as for `normals`.

    Without a base period, of which a step may have no values, the sum of n var is that of the whole record less what
    lies between the steps: then no step needs a variance of its own, and the pass goes at the speed of reading.
    """
    steps = cycle.steps(coordinate_along(field, "time", cycle.dim))
    every, found = _moments(field, steps, steps.codes), _normals(field, steps)["mean"]
    if cycle.base is not None:
        return every[["count", "mean", "var"]].map(along(spread_about, cycle.name), found)
    (name,) = field.columns
    whole = field.reduced(mean_and_var(), [steps.time.dim])
    return every[["count", "mean"]].map(
        along(spread_within, cycle.name), found.rename(mean="normal"), whole[[f"{name}_mean"]], whole[[f"{name}_var"]])


def anomalies(field: Collection, cycle: Cycle = Cycle(), *, plain: bool = True,
              standardised: bool = False) -> Collection:
    """Each value minus the climatology of its step of the year, in the field's own shape and precision.

    Args:
        field: as for `normals`.
        cycle: as for `normals`.
        plain: give `anomaly`.
        standardised: give `standardised_anomaly`, divided by the standard deviation of the step; NaN where that is 0.
    """
    steps = cycle.steps(coordinate_along(field, "time", cycle.dim))
    kind = field.fields[0].dtype
    dtype = kind if kind.kind == "f" else np.dtype(np.float64)
    index = grid.from_arrays({"step": steps.codes}, dims=(steps.time.dim,))
    normal = _normals(field, steps)[["mean", "std"] if standardised else ["mean"]]
    found = normal.map(both_laid_out if standardised else laid_out).take(index, cycle.name)
    kernel = departure if not standardised else departures if plain else standardised_departure
    kernel = replace(kernel, dtypes=(dtype,) * len(kernel.names))
    result = as_measured(grid.map(kernel, field, found), field)
    if not standardised:
        return result
    units = {"anomaly": attrs_of(result), "standardised_anomaly": {"units": "1"}}
    return with_attrs(result, {name: units[name] for name in result.columns})
