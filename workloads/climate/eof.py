"""Empirical orthogonal functions (principal components) of a climate archive."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit

import gridcompute as grid
from gridcompute.collection import Collection
from gridcompute.coords import Coordinate
from gridcompute.errors import ParameterError
from gridcompute.kernels import Kernel
from gridcompute.plots import Axis, picture_path
from gridcompute.registry import Job
from gridcompute.running import Run
from gridcompute.signature import Signature
from gridcompute.status import counted

from .grams import leading, signed, varimax
from .inputs import attrs_of, chosen, default_archive, with_attrs, zarr_named
from .pictures import draw_field, draw_series
from .weights import weights_of

Array = np.ndarray[Any, Any]

DRAWN = 3
"""Modes whose maps are drawn."""

ROW = 128
"""Points whose sums are carried through time together."""


@grid.task("(time,other)->(mode),(mode),(mode),(time,mode)", dtypes=("f8",) * 4, sizes={"mode": 1},
           names=("eigenvalue", "fraction", "error", "vector"))
def from_times(matrix, modes, column):  # type: ignore[no-untyped-def]
    """Eigenvalues, fractions, errors and unit time series of the matrix between times."""
    sizes, vectors = _leading(matrix[0], modes, column)
    values = _variances(sizes, matrix[0], len(vectors))
    return tuple(one[None] for one in (*values, vectors * signed(vectors)))


@grid.task("(point,other)->(mode),(mode),(mode),(mode,space)", dtypes=("f8",) * 4, sizes={"mode": 1, "space": 1},
           names=("eigenvalue", "fraction", "error", "map"))
def from_points(matrix, modes, times, shape, column):  # type: ignore[no-untyped-def]
    """The same with maps of unit length, of the matrix between points."""
    sizes, maps = _leading(matrix[0], modes, column)
    return (*(one[None] for one in _variances(sizes, matrix[0], times)), maps.T.reshape(1, modes, *shape))


def _leading(matrix: Array, modes: int, column: str) -> tuple[Array, Array]:
    """Of the matrix between times or points; the error of a field that leaves nothing to analyse says what to do."""
    try:
        return leading(matrix, modes)
    except ValueError as error:
        said = ValueError(f"{column}: {error}")
        said.add_note("a point with a gap at any time is left out: leave out times without values, or fill the gaps")
        raise said from None


def _variances(sizes: Array, matrix: Array, times: int) -> tuple[Array, Array, Array]:
    """Eigenvalues as variances, their shares of the whole, and their errors by North et al. (1982)."""
    values = sizes / (times - 1)
    return values, sizes / np.nansum(np.diagonal(matrix)), values * math.sqrt(2.0 / times)


@grid.kernel("(space),(mode,space)->(mode)", names=("projection",))
def projected(field, maps):  # type: ignore[no-untyped-def]  # numba infers the types
    """A field on each map; points with gaps are left out."""
    plain, count = field.ravel(), maps.shape[0]
    turned = maps.reshape(count, plain.size)
    found = np.zeros(count)
    for m in range(count):
        total = 0.0
        for i in range(plain.size):
            if not np.isnan(turned[m, i]):
                total += plain[i] * turned[m, i]
        found[m] = total
    return found


@grid.task("(time,mode)->(time,mode)", dtypes=("f8",), names=("vector",))
def unit_series(series):  # type: ignore[no-untyped-def]
    """Time series of length 1, with their signs."""
    plain = series[0] / np.sqrt((series[0] ** 2).sum(axis=0))
    return (plain * signed(plain))[None]


@njit(nogil=True)
def _modes_of(series, weights, vectors, values):  # type: ignore[no-untyped-def]
    """Maps, correlations and covariances (point, mode) of some points' series (time, point); see `row_modes`."""
    (count, points), modes = series.shape, vectors.shape[1]
    maps, correlations, covariances = np.empty((points, modes)), np.empty((points, modes)), np.empty((points, modes))
    for start in range(0, points, ROW):  # sums of so many points stay in a core's own cache
        size = min(ROW, points - start)
        weight = weights[start: start + size]
        means, squares, dots, row = np.zeros(size), np.zeros(size), np.zeros((modes, size)), np.empty(size)
        for t in range(count):
            for i in range(size):
                means[i] += series[t, start + i] * weight[i]
        means /= count
        for t in range(count):
            for i in range(size):
                row[i] = series[t, start + i] * weight[i] - means[i]
                squares[i] += row[i] * row[i]
            for m in range(modes):
                factor, dot = vectors[t, m], dots[m]
                for i in range(size):
                    dot[i] += row[i] * factor
        for i in range(size):
            for m in range(modes):
                dot = dots[m, i]
                length = np.sqrt(values[m] * (count - 1))
                maps[start + i, m] = dot / length if length > 0.0 else np.nan
                correlations[start + i, m] = dot / np.sqrt(squares[i]) if squares[i] > 0.0 else np.nan
                covariances[start + i, m] = dot / np.sqrt(count - 1.0) / weight[i] if weight[i] != 0.0 else np.nan
    return maps, correlations, covariances


@grid.kernel("(time,point),(point),(time,mode),(mode)->(point,mode),(point,mode),(point,mode)",
             names=("eof", "correlation", "covariance"), parallel=16)
def row_modes(series, weights, vectors, values):  # type: ignore[no-untyped-def]
    """A row of points of each mode: of its map of unit length, its correlation and covariance with the time series."""
    return _modes_of(series, weights, vectors, values)


@grid.kernel("(time),(),(time,mode),(mode)->(mode),(mode),(mode)", names=("eof", "correlation", "covariance"),
             parallel=16)
def point_modes(series, weight, vectors, values):  # type: ignore[no-untyped-def]
    """The same of one point."""
    maps, correlations, covariances = _modes_of(series.reshape(-1, 1), np.full(1, weight), vectors, values)
    return maps[0], correlations[0], covariances[0]


@grid.kernel("(mode),(mode)->(mode)", names=("scaled",))
def scaled(values, variances, power):  # type: ignore[no-untyped-def]
    """Values of each mode times a power of its variance."""
    return values * variances ** power


@grid.kernel("(old),(old,mode)->(mode)", names=("turned",))
def turned(values, rotation):  # type: ignore[no-untyped-def]
    """Values of each mode after a rotation."""
    found = np.zeros(rotation.shape[1])
    for i in range(rotation.shape[0]):
        for m in range(rotation.shape[1]):
            found[m] += values[i] * rotation[i, m]
    return found


@grid.kernel("(mode),(time,mode),()->(time)", names=("field",))
def summed(maps, series, weight):  # type: ignore[no-untyped-def]
    """One point of the fields that modes make."""
    found = np.full(series.shape[0], np.nan)
    if weight != 0.0:
        for t in range(series.shape[0]):
            total = 0.0
            for m in range(series.shape[1]):
                total += maps[m] * series[t, m]
            found[t] = total / weight
    return found


@grid.task("(old,space)->(old,mode),(mode)", dtypes=("f8", "f8"), sizes={"mode": 1}, names=("rotation", "eigenvalue"))
def rotation_of(loadings):  # type: ignore[no-untyped-def]
    """The varimax rotation of loadings, and the variance of each rotated mode."""
    rows = loadings[0].reshape(len(loadings[0]), -1).T
    rows = rows[~np.isnan(rows).any(axis=1)]
    turn = varimax(rows)
    return turn[None], ((rows @ turn) ** 2).sum(axis=0)[None]


def _over(kernel: Kernel, lengths: Mapping[str, int], **dims: str | Sequence[str]) -> Kernel:
    """A kernel with other dimensions in place of those of its signature, some of them new, with their lengths."""
    named = {old: new if isinstance(new, str) else ",".join(new) for old, new in dims.items()}
    text = re.sub(r"\w+", lambda found: named.get(found[0], found[0]), str(kernel.signature))
    return replace(kernel, signature=Signature.parse(text), sizes=dict(lengths))


def eofs(series: Collection, modes: int = 10, weights: str | Array = "sqrt-cos", *, dim: str = "time",
         eof_scaling: int = 0, pc_scaling: int = 0, rotate: str = "none") -> dict[str, Collection]:
    """Empirical orthogonal functions of fields that follow each other in time.

    The mean over time is taken off each point. A point with a gap at any time is left out, and NaN in all maps.
    Eigenvalues and vectors are those of the matrix of inner products between times, or between points where they are
    fewer, summed in float64 with a fixed order. The largest value of each time series is positive; rotated modes come
    in the order of their variances, and the largest loading of each is positive.

    Args:
        series: one column over `dim` and the dimensions of the fields.
        modes: how many, at most one less than there are times.
        weights: see `weights_of`.
        dim: the dimension of time.
        eof_scaling: of the maps: 0 unit length, 1 divided by the root of the eigenvalue, 2 times that.
        pc_scaling: of the time series: 0 their variance is the eigenvalue, 1 it is 1, 2 times the eigenvalue's root.
        rotate: "none", or "varimax": an orthogonal rotation of the maps times the roots of their eigenvalues,
            normalised by points (Kaiser 1958).

    Returns:
        By name: eigenvalue, fraction (of all variance) and error (North et al. 1982) of each mode; pc (time, mode);
        eof, correlation and covariance (the fields' dimensions, mode), the last of the fields as they are without
        weights, with the time series of variance 1.

    Raises:
        ParameterError, DimensionError, MemoryBoundError: what is asked for doesn't fit the data.
    """
    space = tuple(name for name in series.fields[0].dims if name != dim)
    times, points = series.space[dim] or 0, math.prod(series.space[name] or 0 for name in space)
    if not 1 <= modes <= min(times - 1, points):
        most = min(times - 1, points)
        raise ParameterError(f"{modes} modes of {times} times and {points:,} points",
                             hint=f"ask for 1 to {most}" if most > 0 else "give two times or more, and a point")
    if rotate not in ("none", "varimax") or not {eof_scaling, pc_scaling} <= {0, 1, 2} or (
            rotate == "varimax" and modes < 2):
        raise ParameterError(f"rotate={rotate!r} of {modes} modes with the scalings {eof_scaling} and {pc_scaling}",
                             hint='scalings are 0, 1 or 2; "none", or "varimax" of 2 modes or more')
    weight = _weight(series, weights_of(series, weights, dim), space)
    name = "mode" if rotate == "none" else "old"
    values, vectors = _decomposed(series, weight, modes, (dim, space, name), times <= points)
    shaped = _over(row_modes, {}, point=space[-1], time=dim, mode=name) if len(space) > 1 else \
        _over(point_modes, {}, time=dim, mode=name)
    maps = series.map(shaped, weight, vectors, values["eigenvalue"])
    found = {**{key: values[key] for key in ("eigenvalue", "fraction", "error")}, "pc": vectors,
             **{key: maps[key] for key in ("eof", "correlation", "covariance")}}
    unit = math.sqrt(times - 1)
    if rotate == "varimax":
        found = _rotated(found, space, times)
        unit, loaded = 1.0, -0.5
    else:
        loaded = 0.0
    own = found["eigenvalue"]
    if power := (0.0, -0.5, 0.5)[eof_scaling] + loaded:
        found["eof"] = found["eof"].map(scaled, own, power=power, names=["eof"])
    series_of = found["pc"] * unit
    found["pc"] = series_of.map(scaled, own, power=(0.5, 0.0, 1.0)[pc_scaling], names=["pc"])
    numbers = Coordinate("mode", "mode", np.arange(1, modes + 1))
    return {key: Collection(one.columns, [*(c for c in one.coords if c.dim != "mode"), numbers])
            for key, one in found.items()}


def _decomposed(series: Collection, weight: Collection, modes: int, names: tuple[str, tuple[str, ...], str],
                by_times: bool) -> tuple[Collection, Collection]:
    """Eigenvalues with fractions and errors, and unit time series."""
    dim, space, mode = names
    weighted = series * weight
    if by_times:
        matrix = grid.gram(weighted, dim)
        kernel = _over(from_times, {mode: modes}, time=dim, other=f"{dim}_other", mode=mode)
        values = matrix.map(kernel, modes=modes, column=series.fields[0].name)
        return values, values["vector"]
    centred = weighted - weighted.reduce("mean", dim, skipna=False)
    lengths = {name: series.space[name] or 0 for name in space}
    point, new = (space[0], {}) if len(space) == 1 else ("point", lengths)  # a single dimension is the matrix's
    kernel = _over(from_points, {mode: modes, **new}, point=point, other=f"{point}_other", mode=mode, space=space)
    values = grid.gram(centred, *space, centred=False).map(
        kernel, modes=modes, times=series.space[dim] or 0, shape=tuple(lengths.values()), column=series.fields[0].name)
    series_of = centred.map(_over(projected, {}, space=space, mode=mode), values["map"])
    return values, series_of.map(_over(unit_series, {}, time=dim, mode=mode))


def _rotated(found: dict[str, Collection], space: tuple[str, ...], times: int) -> dict[str, Collection]:
    """The same after a varimax rotation; maps are loadings, time series have the variance 1."""
    loadings = found["eof"].map(_over(scaled, {}, mode="old"), found["eigenvalue"], power=0.5)
    turn = loadings.map(_over(rotation_of, {"mode": loadings.space["old"] or 0}, space=space))
    share = found["fraction"].isel(old=0) / found["eigenvalue"].isel(old=0)
    values = turn["eigenvalue"]
    rest = {"eof": loadings, "pc": found["pc"] * math.sqrt(times - 1),
            "correlation": found["correlation"], "covariance": found["covariance"]}
    return {"eigenvalue": values, "fraction": (values * share).rename(eigenvalue="fraction"),
            "error": (values * math.sqrt(2.0 / times)).rename(eigenvalue="error"),
            **{key: one.map(turned, turn["rotation"], names=[key]) for key, one in rest.items()}}


def reconstructed(found: dict[str, Collection], series: Collection, weights: str | Array = "sqrt-cos",
                  dim: str = "time") -> Collection:
    """The fields that some modes make, without the mean over time, over `dim` and the fields' dimensions.

    Args:
        found: by `eofs` without scalings and rotation.
        series: the fields.
        weights: that `eofs` had.
        dim: the dimension of time.
    """
    space = tuple(name for name in series.fields[0].dims if name != dim)
    kernel = _over(summed, {}, time=dim)
    return found["eof"].map(kernel, found["pc"], _weight(series, weights_of(series, weights, dim), space),
                            names=[next(iter(series.columns))])


def _weight(series: Collection, array: Array, space: tuple[str, ...]) -> Collection:
    """Weights as a column beside the fields."""
    column = grid.from_arrays({"weight": array}, dims=space)["weight"]
    return Collection(column.columns, [c for c in series.coords if c.dim in space])


def eof(
    input: str = "",
    variable: str = "",
    modes: int = 10,
    weights: str = "sqrt-cos",
    eof_scaling: int = 0,
    pc_scaling: int = 0,
    rotate: str = "none",
    reconstruct: str = "",
    output: str = "eof.zarr",
    picture: str = "",
    overwrite: bool = False,
) -> Job:
    """Empirical orthogonal functions of a climate archive: maps, time series and how much they explain.

    Writes eigenvalue, fraction, error (North et al. 1982), pc, eof, correlation and covariance as a Zarr store that
    xarray opens, and draws the first maps and time series. A point with a gap at any time is left out.

    Args:
        input: netCDF file, Zarr store, anything else that xarray reads, a URL or a pattern; by default the 240 years
            of North American air temperature of the package iris-sample-data.
        variable: the variable; needed where the input has several that fit.
        modes: how many.
        weights: of the fields: none, cos or sqrt-cos of the latitude, area (the root of a cell's share), or a file.
        eof_scaling: of the maps: 0 unit length, 1 divided by the root of the eigenvalue, 2 times that.
        pc_scaling: of the time series: 0 their variance is the eigenvalue, 1 it is 1, 2 times the eigenvalue's root.
        rotate: none, or varimax.
        reconstruct: Zarr store for the fields that these modes make; by default they aren't made.
        output: Zarr store to write.
        picture: PNG to draw; by default beside the output, "none" for no picture.
        overwrite: replace an output that other data or parameters have left there.

    Examples:
        gridcompute run climate.eof
        gridcompute run climate.eof --input sst.nc --variable sst --modes 5 --rotate varimax
    """
    drawn = picture_path(picture, zarr_named(output))
    if reconstruct and (eof_scaling or pc_scaling or rotate != "none"):
        raise ParameterError("fields are made of modes without scalings and rotation", hint="leave those options out")
    series = chosen(grid.open_dataset(input or default_archive()), variable, "time")
    name = next(iter(series.columns))
    found = eofs(series, modes, weights, eof_scaling=eof_scaling, pc_scaling=pc_scaling, rotate=rotate)
    together = found["eof"].assign(**{key: one for key, one in found.items() if key != "eof"})
    units = str(attrs_of(series).get("units", "1"))
    outputs: list[Any] = [with_attrs(together, _described(name, units, weights, rotate)).write(
        output, overwrite=overwrite, chunks={"mode": -1})]
    if reconstruct:
        outputs.append(reconstructed(found, series, weights).write(zarr_named(reconstruct), overwrite=overwrite))

    def finish(run: Run) -> Iterator[str | Path]:
        yield from _pictures(output, drawn, name)

    source = f"{name} of {input}" if input else f"{name} of A1B_north_america.nc from iris-sample-data (240 years)"
    return Job(outputs, finish, [f"input {source}"])


def _described(name: str, units: str, weights: str, rotate: str) -> dict[str, dict[str, str]]:
    """Attributes of what is written."""
    how = f"{'' if rotate == 'none' else f'{rotate}-rotated '}mode of {name} (weights: {weights})"
    return {
        "eof": {"long_name": f"map of each {how}", "units": "1"},
        "pc": {"long_name": f"time series of each {how}", "units": units},
        "eigenvalue": {"long_name": f"variance of each {how}", "units": f"({units})2"},
        "fraction": {"long_name": f"share of the variance of each {how}", "units": "1"},
        "error": {"long_name": "sampling error of the variance (North et al. 1982)", "units": f"({units})2"},
        "correlation": {"long_name": f"correlation of {name} with each time series", "units": "1"},
        "covariance": {"long_name": f"covariance of {name} with each time series of variance 1", "units": units},
    }


def _pictures(output: str, picture: Path | None, name: str) -> Iterator[str | Path]:
    """Draw what was written; gives the lines and paths for the summary."""
    result = grid.open_result(output).load()
    shares = [100 * share for share in result["fraction"].values.tolist() if share == share]
    rest = "" if len(shares) == result.sizes["mode"] else "; beyond these nothing varies"
    yield (f"{counted(len(shares), 'mode')} explain{'s' * (len(shares) == 1)} {sum(shares):.1f} %: "
           f"{', '.join(f'{share:.1f}' for share in shares[:10])}{rest}")
    eof, pc = result["eof"], result["pc"]
    if picture is None:
        return
    space, time = [dim for dim in eof.dims if dim != "mode"], next(dim for dim in pc.dims if dim != "mode")
    axes = {dim: Axis.of(dim, result.coords[dim]) if dim in result.coords else
            Axis(dim, np.arange(result.sizes[dim], dtype=np.float64)) for dim in (*space, time)}
    if len(space) == 2:
        for mode, share in list(enumerate(shares))[:DRAWN]:
            path = picture.with_name(f"{picture.stem}-{mode + 1}{picture.suffix}") if mode else picture
            yield draw_field(path, eof.isel(mode=mode).transpose(*space).values, axes[space[0]], axes[space[1]],
                             title=f"EOF {mode + 1} of {name.replace('_', ' ')}, {share:.1f} %", unit="")
    lines = {f"PC {mode + 1}": pc.isel(mode=mode).values for mode in range(min(DRAWN, len(shares)))}
    yield draw_series(picture.with_name(f"{picture.stem}-pc{picture.suffix}"), lines, axes[time],
                      title=f"Principal components of {name.replace('_', ' ')}", unit=str(pc.attrs.get("units", "")))
