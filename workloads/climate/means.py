"""Means of a record: by month, season and year, and over neighbouring times."""

from __future__ import annotations

import numpy as np

import gridcompute as grid
from gridcompute.calendar import DAY, TimeUnit, dates_of, days_of
from gridcompute.collection import Collection
from gridcompute.coords import Coordinate
from gridcompute.errors import ParameterError
from gridcompute.reductions import mean

from .grids import check_monotonic
from .inputs import coordinate_along
from .normals import along


def monthly_means(field: Collection, dim: str = "") -> Collection:
    """The mean of each month of the record; its time is the month's first day."""
    return _means(field, dim, 1, 0)


def seasonal_means(field: Collection, dim: str = "") -> Collection:
    """The mean of each season (DJF, MAM, JJA, SON); a December belongs to the winter of the year that follows."""
    return _means(field, dim, 3, 1)


def annual_means(field: Collection, dim: str = "") -> Collection:
    """The mean of each year of the record."""
    return _means(field, dim, 12, 0)


def _means(field: Collection, dim: str, months: int, early: int) -> Collection:
    """Means over so many months each, of which the first begins `early` months before the year."""
    time = coordinate_along(field, "time", dim)
    calendar = time.time_unit.calendar
    year, month, _ = dates_of(np.floor_divide(time.micros, DAY), calendar)
    periods = (year * 12 + month - 1 + early) // months
    known, codes = np.unique(periods, return_inverse=True)
    first = known * months - early
    unit = TimeUnit.parse("days since 1970-01-01", calendar)
    assert unit is not None
    days = days_of(first // 12, first % 12 + 1, np.ones_like(first), calendar) - unit.origin // DAY
    labels = Coordinate(time.dim, time.name, days, str(unit), time.calendar, time.attrs)
    return field.reduced(mean(), [time.dim], (labels, codes.astype(np.int64)))


@grid.kernel("(step)->()")
def running(window):  # type: ignore[no-untyped-def]  # numba infers the types
    """Mean of the values of a window that aren't NaN."""
    total, count = 0.0, 0
    for value in window:
        if not np.isnan(value):
            total += value
            count += 1
    return total / count if count else np.nan


def running_means(field: Collection, steps: int, dim: str = "") -> Collection:
    """Means over so many neighbouring times, as many fewer as don't have all neighbours; each at its middle time.

    Raises:
        ParameterError: fewer than one step, or more than the record has; times that aren't in order.
    """
    time = coordinate_along(field, "time", dim)
    if not 1 <= steps <= len(time):
        raise ParameterError(f"a running mean over {steps} steps of a record of {len(time)}",
                             hint=f"from 1 to {len(time)}")
    check_monotonic("times", time.values)
    before, after = steps // 2, steps - 1 - steps // 2
    (name,) = field.columns
    found = field.stencil(along(running, time.dim), {time.dim: (before, after)}, names=[name])
    return found.isel(**{time.dim: slice(before, len(time) - after)})
