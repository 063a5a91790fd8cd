"""Quantiles of a climate archive: of each pixel over time, or of each step over space; exact, or by a sketch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

import gridcompute as grid
from gridcompute.actions.loads import Load
from gridcompute.coords import Coordinate
from gridcompute.errors import DimensionError, ParameterError
from gridcompute.planning import Plan
from gridcompute.plots import Axis, picture_path
from gridcompute.registry import Job
from gridcompute.running import Run, graph_of

from .inputs import as_measured, attrs_of, chosen, default_archive, with_attrs, zarr_named
from .pictures import draw_field, draw_series
from .refining import Passes, refined

MOST_PIXELS = 4_000_000
"""A picture of more pixels than these takes every second, third ... one."""


def in_cell(levels: Sequence[float], dims: Sequence[str]) -> grid.Kernel:
    """The kernel that takes exact quantiles of a cell's whole axes."""
    def cell_quantiles(values, q):  # type: ignore[no-untyped-def]  # numba infers the types
        found = np.empty(len(q))
        series = values.reshape(-1)
        for i in range(len(q)):
            found[i] = grid.stats.nanquantile(series, q[i])
        return found

    made: grid.Kernel = grid.kernel(f"({','.join(dims)})->(quantile)", sizes={"quantile": len(levels)},
                                    names=("quantile",))(cell_quantiles)  # fmt: skip
    return made


def quantiles_over(data: grid.Collection, q: Sequence[float], dims: str | Sequence[str] = "time", *,
                   method: str = "exact", capacity: int = 1024) -> grid.Collection:  # fmt: skip
    """Quantiles of one column over some dimensions, along the new last dimension "quantile", in float64.

    Nulls and NaN are left out; NaN where there is no value. Exact ones equal NumPy's (`nanquantile`, method "linear",
    of the values as float64) to the last bit, but that an infinity which is the order statistic asked for is the
    result. Where the stored chunks hold the reduced dimensions whole, or nearly, each cell's values are read at once;
    else they are found by refinement in several passes over the data (see `refining`), each of which keeps a few
    counters a cell: `strategy` says which. A sketch takes one pass; its error is that of the reduction "quantile".

    Args:
        data: one column of numbers.
        q: levels, 0 to 1.
        dims: reduced dimensions.
        method: "exact" or "sketch".
        capacity: values a cell that a sketch keeps.

    Raises:
        ParameterError: no such method, no levels, or some outside 0 to 1.
        DimensionError: a dimension that the column doesn't have.
    """
    levels, over = [float(level) for level in q], [dims] if isinstance(dims, str) else list(dims)
    if not levels or not all(0 <= level <= 1 for level in levels) or len(set(levels)) < len(levels):
        raise ParameterError(f"quantiles can't be taken at {q!r}", hint="give distinct levels between 0 and 1")
    if method not in ("exact", "sketch"):
        raise ParameterError(f"no method {method!r}", hint='"exact" or "sketch"')
    field = data.fields[0]
    for dim in over:
        if dim not in field.dims:
            raise DimensionError(f"column {field.name!r} has no dimension {dim!r} to take quantiles over",
                                 hint=f"its dimensions are {', '.join(field.dims)}")
    if method == "sketch":
        return data.reduce("quantile", over, q=levels, capacity=capacity)
    floats = data if field.dtype.kind == "f" else data * 1.0
    passes = strategy(floats, len(levels), over)
    if passes is None:
        found = floats.map(in_cell(levels, [dim for dim in field.dims if dim in over]), q=np.array(levels))
        found = found.rename(quantile=field.name)
    else:
        found = refined(floats, levels, over, passes)
    labels = Coordinate("quantile", "quantile", np.array(levels))
    return as_measured(grid.Collection(found.columns, [*found.coords, labels]), data)


def strategy(data: grid.Collection, levels: int, dims: Sequence[str]) -> Passes | None:
    """The passes of a refinement that takes exact quantiles; None where whole axes are read at once.

    Whole axes at once decode a stored chunk once for each piece of the kept dimensions that is cut from it, or only
    once where the chunk has all of the axes: pieces that follow each other share it then. That is done where it is no
    more decoding than the passes of a refinement.
    """
    passes, field = Passes.of(data, levels, dims), data.fields[0]
    stored: dict[str, int] = {}
    for op in data.op.walk():
        stored |= dict(op.action.source.stored) if isinstance(op.action, Load) else {}
    kept = [dim for dim in field.dims if dim not in dims]
    if all(stored.get(dim, 1) >= (data.space[dim] or 0) for dim in dims):
        return None
    kernel = in_cell([0.5] * levels, [dim for dim in field.dims if dim in dims])
    layout = Plan(graph_of([data.map(kernel, q=np.full(levels, 0.5))])).stages[-1].layouts[0]
    pieces = math.prod(math.ceil(stored.get(dim, 1) / layout[dim].extent) for dim in kept)
    return None if pieces <= passes.count else passes


def quantile(
    input: str = "",
    variable: str = "",
    quantiles: str = "0.1,0.5,0.9",
    dim: str = "time",
    method: str = "exact",
    capacity: int = 1024,
    output: str = "quantile.zarr",
    picture: str = "",
    overwrite: bool = False,
) -> Job:
    """Quantiles of every pixel over time, or of every step over space.

    Writes them as a Zarr store that xarray opens, along the new last dimension "quantile", in float64, and draws the
    middle one as a map, or all as lines over the one dimension that is left. Missing values are left out; a pixel
    without any is NaN. Exact quantiles are NumPy's (method "linear"), read along whole axes or refined in several
    passes over the data, whatever decodes less; a sketch takes one pass and has a small error of rank.

    Args:
        input: netCDF file, Zarr store, anything else that xarray reads, a URL or a pattern; by default the 240 years
            of North American air temperature of the package iris-sample-data.
        variable: the variable; needed where the input has several that fit.
        quantiles: levels between 0 and 1, with commas between them.
        dim: the dimension over which they are taken, or several with commas between them: "latitude,longitude".
        method: "exact" or "sketch".
        capacity: values a pixel that a sketch keeps.
        output: Zarr store to write.
        picture: PNG to draw; by default beside the output, "none" for no picture.
        overwrite: replace an output that other data or parameters have left there.

    Examples:
        gridcompute run climate.quantile
        gridcompute run climate.quantile --input era5.zarr --variable t2m --quantiles 0.05,0.95
        gridcompute run climate.quantile --input era5.zarr --dim latitude,longitude --method sketch
    """
    try:
        levels = [float(word) for word in quantiles.split(",")]
    except ValueError:
        raise ParameterError(f"quantiles are {quantiles!r}", hint="numbers with commas between them: 0.1,0.5") from None
    dims = [word.strip() for word in dim.split(",")]
    drawn = picture_path(picture, zarr_named(output))
    data = grid.open_dataset(input or default_archive())
    values = chosen(data, variable, dims[0], "--dim")
    name, units = next(iter(values.columns)), str(attrs_of(values).get("units", "1"))
    result = quantiles_over(values, levels, dims, method=method, capacity=capacity)
    described = {name: {"long_name": f"quantiles of {name} over {', '.join(dims)}", "units": units}}

    def finish(run: Run) -> Iterator[str | Path]:
        yield from picture_of(output, drawn, name, units)

    source = f"{name} of {input}" if input else f"{name} of A1B_north_america.nc from iris-sample-data (240 years)"
    return Job([with_attrs(result, described).write(output, overwrite=overwrite)], finish,
               [f"input {source}", _way(values, len(levels), dims, method, capacity)])  # fmt: skip


def _way(data: grid.Collection, levels: int, dims: Sequence[str], method: str, capacity: int) -> str:
    if method == "sketch":
        return f"a sketch in one pass: exact up to {capacity} values, see the guide on reductions for its error beyond"
    passes = strategy(data if data.fields[0].dtype.kind == "f" else data * 1.0, levels, dims)
    if passes is None:
        return "exact, along whole axes"
    return (f"exact by refinement: {passes.count} passes over the data, of {passes.bits} bits of the values, which "
            f"keep {passes.state_bytes / 2**20:.1f} MiB of counters each")


def picture_of(output: str, picture: Path | None, name: str, units: str) -> Iterator[str | Path]:
    """Draw what was written; gives the lines and paths for the summary."""
    result = grid.open_result(output)
    found = result[name]
    levels = [float(level) for level in result.coords["quantile"].values]
    for i, level in enumerate(levels):
        part = np.asarray(found[..., i].values, np.float64)
        known = part[np.isfinite(part)]
        if known.size:
            said = f"{known.min():.4g} to {known.max():.4g}, median {np.median(known):.4g} {units}"
        yield f"quantile {level:g}: {said if known.size else 'no value'}"
    while found.ndim > 3:  # the first of further dimensions, such as levels
        yield f"the picture shows the first {found.dims[0]} of {found.sizes[found.dims[0]]}"
        found = found[0]
    if picture is None or found.ndim == 1:
        return
    axes = [Axis.of(d, result.coords[d]) if d in result.coords else Axis(d, np.arange(found.sizes[d], dtype=np.float64))
            for d in found.dims[:-1]]  # fmt: skip
    if found.ndim == 2:
        lines = {f"{level:g}": np.asarray(found[:, i].values, np.float64) for i, level in enumerate(levels)}
        said = f"Quantile {levels[0]:g}" if len(levels) == 1 else "Quantiles"
        yield draw_series(picture, lines, axes[0], title=f"{said} of {name.replace('_', ' ')}", unit=units)
        return
    step = max(1, int(np.ceil(np.sqrt(found[..., 0].size / MOST_PIXELS))))
    middle = len(levels) // 2
    shown = np.asarray(found[::step, ::step, middle].values, np.float64)
    y, x = (replace(axis, values=axis.values[::step]) for axis in axes)
    yield draw_field(picture, shown, y, x, title=f"Quantile {levels[middle]:g} of {name.replace('_', ' ')}", unit=units)
