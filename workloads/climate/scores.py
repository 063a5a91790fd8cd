"""Scores of a forecast, or of any field, against a reference: as time series, in all, and as maps."""

from __future__ import annotations

import numpy as np

import gridcompute as grid
from gridcompute.collection import Collection
from gridcompute.coords import Coordinate
from gridcompute.errors import AlignmentError, DimensionError, MissingInputError, ParameterError
from gridcompute.reducer import Output

from .areas import latitude_weights
from .grids import Grid, check_even
from .inputs import coordinate_along, gapped, is_measured
from .normals import FEW, STEPS, Array, Cycle, along


def _nothing(count, error, square, size):  # type: ignore[no-untyped-def]  # numba infers the types
    count[0], error[0], square[0], size[0] = 0, 0.0, 0.0, 0.0


def _one_more(count, error, square, size, x):  # type: ignore[no-untyped-def]
    value = np.float64(x)
    count[0] += 1
    error[0] += value
    square[0] += value * value
    size[0] += abs(value)


def _later(count, error, square, size, count2, error2, square2, size2):  # type: ignore[no-untyped-def]
    count[0] += count2[0]
    error[0] += error2[0]
    square[0] += square2[0]
    size[0] += size2[0]


def _as_it_is(count, error, square, size):  # type: ignore[no-untyped-def]
    return count[0], error[0], square[0], size[0]


errors = grid.reduction(
    state={"count": "i8", "error": "f8", "square": "f8", "size": "f8"},
    init=_nothing, step=_one_more, merge=_later, final=_as_it_is, commutative=True, name="errors",
    outputs=[Output("count", "i8"), Output("error", "f8"), Output("square", "f8"), Output("size", "f8")],
)  # fmt: skip
"""Number of errors, their sum, that of their squares, and that of their absolute values."""


def _no_pair(ff, oo, fo):  # type: ignore[no-untyped-def]
    ff[0], oo[0], fo[0] = 0.0, 0.0, 0.0


def _pair(ff, oo, fo, x):  # type: ignore[no-untyped-def]
    ff[0] += x.real * x.real
    oo[0] += x.imag * x.imag
    fo[0] += x.real * x.imag


def _more_pairs(ff, oo, fo, ff2, oo2, fo2):  # type: ignore[no-untyped-def]
    ff[0] += ff2[0]
    oo[0] += oo2[0]
    fo[0] += fo2[0]


def _products(ff, oo, fo):  # type: ignore[no-untyped-def]
    return ff[0], oo[0], fo[0]


products = grid.reduction(
    state={"ff": "f8", "oo": "f8", "fo": "f8"},
    init=_no_pair, step=_pair, merge=_more_pairs, final=_products, commutative=True, name="products", kinds="c",
    outputs=[Output("ff", "f8"), Output("oo", "f8"), Output("fo", "f8")],
)  # fmt: skip
"""Sums of squares and products of pairs, each of which is a complex number: one column keeps its two parts together."""


@grid.kernel("(),(),()->()", names=("pair",), parallel=FEW)
def pair_of_anomalies(forecast, reference, normal):  # type: ignore[no-untyped-def]
    """Both minus the climatology; NaN where one of the three is."""
    first, second = np.float64(forecast) - normal, np.float64(reference) - normal
    if np.isnan(first) or np.isnan(second):
        return complex(np.nan, np.nan)
    return complex(first, second)


@grid.kernel("(row),(row),(row),(row)->(),(),()", names=("bias", "mae", "rmse"), parallel=FEW)
def weighted_scores(count, error, square, size, weights):  # type: ignore[no-untyped-def]
    """Of the rows of a step."""
    total, bias, squares, sizes = 0.0, 0.0, 0.0, 0.0
    for row in range(len(weights)):
        total += weights[row] * count[row]
        bias += weights[row] * error[row]
        squares += weights[row] * square[row]
        sizes += weights[row] * size[row]
    if total == 0.0:
        return np.nan, np.nan, np.nan
    return bias / total, sizes / total, np.sqrt(squares / total)


@grid.kernel("(row),(row),(row)->()", names=("acc",), parallel=FEW)
def weighted_correlation(ff, oo, fo, weights):  # type: ignore[no-untyped-def]
    """Of the rows of a step."""
    first, second, both = 0.0, 0.0, 0.0
    for row in range(len(weights)):
        first += weights[row] * ff[row]
        second += weights[row] * oo[row]
        both += weights[row] * fo[row]
    scale = np.sqrt(first) * np.sqrt(second)
    return both / scale if scale > 0 else np.nan


def _named(found: Collection, name: str) -> Collection:
    return found.rename(**{column: column.removeprefix(f"{name}_") for column in found.columns})


def error_of(forecast: Collection, reference: Collection) -> Collection:
    """Forecast minus reference, cell by cell.

    Raises:
        DimensionError: the reference has a dimension that the forecast hasn't.
        AlignmentError: labels of a dimension differ; names it and the first that do.
    """
    if missing := [dim for dim in reference.dims if dim not in forecast.dims]:
        raise DimensionError(f"the reference has the dimension {missing[0]!r}, the forecast has "
                             f"{', '.join(forecast.dims)}", hint="select a part of it, or rename it in the file")
    for dim in reference.dims:
        if (here := forecast.space[dim]) != (there := reference.space[dim]):
            raise AlignmentError(f"the forecast has {here} cells along {dim!r}, the reference {there}",
                                 hint="select the same labels of both first")
    return forecast - reference


def scores(forecast: Collection, reference: Collection, normal: Collection | None = None, *, weights: str = "area",
           dim: str = "") -> Collection:
    """Scores of each step: `bias`, `mae`, `rmse`, and `acc` where a climatology is given; every cell by its area.

    `rmse` is the root of the weighted mean of the squared errors. `acc`, the anomaly correlation, is
    sum(w f o) / sqrt(sum(w f^2) sum(w o^2)) with the anomalies f and o from the same climatology, as WeatherBench 2
    has it (no means taken off). Cells where one of them is missing count in none.

    Args:
        forecast: one column over latitude, longitude and any other dimensions, such as time and lead.
        reference: one column over the same dimensions, or some of them, with the same labels.
        normal: a climatology: over `dayofyear`, `month` or `season`, or without time, then latitude and longitude.
        weights: "area" or "cos", see `areas.latitude_weights`.
        dim: the time dimension, where it isn't plain.

    Raises:
        DimensionError, AlignmentError: they don't go together.
        ParameterError: the climatology has no values for a step of the year; latitudes that aren't in order, or
            uneven longitudes.
    """
    error = error_of(forecast, reference)
    lat, lon = coordinate_along(error, "latitude"), coordinate_along(error, "longitude")
    rows = latitude_weights(lat, weights)
    check_even(Grid("rectilinear", np.zeros(1), lon.values).lon)
    (name,) = error.columns
    sums = _named(error.reduce(errors, lon.dim), name)
    found = sums.map(along(weighted_scores, lat.dim, "row"), weights=rows)
    if normal is None:
        return found
    pairs = grid.map(pair_of_anomalies, forecast, reference, normal_at(normal, forecast, dim))
    sums = _named(pairs.reduce(products, lon.dim), "pair")
    return found.assign(acc=sums.map(along(weighted_correlation, lat.dim, "row"), weights=rows))


def normal_at(normal: Collection, field: Collection, dim: str = "") -> Collection:
    """The climatology at each time of a field.

    Raises:
        ParameterError: it has no values for a step of the year that the field has.
        DimensionError: it has a dimension that the field hasn't, or times of its own.
    """
    part = next((name for name in STEPS.values() if name in normal.dims), "")
    dated = [c.dim for c in normal.coords if c.is_time and c.dim in normal.dims]
    if extra := [name for name in normal.dims if name != part and (name in dated or name not in field.dims)]:
        raise DimensionError(f"the climatology has the dimension {extra[0]!r}, the field has {', '.join(field.dims)}",
                             hint="one over dayofyear, month or season, as climate.climatology writes it")
    if not part:
        return normal
    frequency = next(one for one, name in STEPS.items() if name == part)
    time = coordinate_along(field, "time", dim)
    wanted, known = Cycle(frequency).steps(time).numbers, _labels(normal.coord(part))
    if missing := sorted(set(wanted.tolist()) - set(known)):
        raise ParameterError(f"the climatology has no {part} {missing[0]}", hint="take it from a longer record")
    index = np.array([known[step] for step in wanted.tolist()], np.int64)
    return normal.take(grid.from_arrays({"step": index}, dims=(time.dim,)), part)


def _labels(coordinate: Coordinate) -> dict[int, int]:
    values: Array = coordinate.values
    return {int(label): place for place, label in enumerate(values.tolist())}


def overall(series: Collection, dim: str = "time") -> Collection:
    """Scores over all steps from those of each: means, and two kinds of RMSE.

    `rmse` is the root of the mean over time of the squared errors (WeatherBench 2 takes the root after the mean over
    time); `rmse_of_steps` the mean of the RMSE of each step (the root before it, as WeatherBench had it first).
    """
    found = series[["bias", "mae"]].assign(squared=series["rmse"] ** 2.0, rmse_of_steps=series["rmse"])
    if "acc" in series.columns:
        found = found.assign(acc=series["acc"])
    means = found.mean(dim)
    kept = [name for name in means.columns if name != "squared"]
    return means[kept].assign(rmse=means["squared"] ** 0.5)


def error_maps(forecast: Collection, reference: Collection, dim: str = "") -> Collection:
    """`bias`, `mae`, `rmse` and `count` of each pixel over time.

    Raises:
        DimensionError, AlignmentError: they don't go together.
    """
    error = error_of(forecast, reference)
    time = coordinate_along(error, "time", dim)
    (name,) = error.columns
    sums = _named(error.reduce(errors, time.dim), name)
    count = sums["count"]
    return (sums["error"] / count).rename(error="bias").assign(
        mae=sums["size"] / count, rmse=(sums["square"] / count) ** 0.5, count=count)


def require_variable(data: Collection, name: str, what: str) -> Collection:
    """The column of that name, or the only one.

    Raises:
        MissingInputError: it isn't there, or there are several.
        ParameterError: it holds no numbers.
    """
    names = [name] if name in data.columns else list(data.columns)
    if len(names) != 1:
        raise MissingInputError(f"{what} has no variable {name!r}", hint=f"it has {', '.join(data.columns) or 'none'}")
    if not is_measured((found := data[names]).fields[0]):
        raise ParameterError(f"variable {names[0]!r} of {what} holds dates or text, not numbers",
                             hint=f"it has {', '.join(data.columns)}")
    return gapped(found)
