"""Fields on another grid."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gridcompute import from_arrays, open_dataset, open_result
from gridcompute.collection import Collection
from gridcompute.coords import Coordinate, packed
from gridcompute.errors import CorruptInputError, DimensionError, GridError, ParameterError, StoreError
from gridcompute.plots import Axis, picture_path
from gridcompute.registry import Job
from gridcompute.running import Run
from gridcompute.signature import Signature

from .grids import Grid, box_grid, grid_of, named_grid
from .inputs import attrs_of, chosen, default_archive, methods_of, with_attrs, zarr_named
from .pictures import cropped, draw_field
from .regridding.applying import regrid_field, regrid_list
from .regridding.bilinear import bilinear_weights
from .regridding.clipping import clipped_weights
from .regridding.conservative import conservative_weights
from .regridding.files import fitted, read_weights, write_weights
from .regridding.gridfiles import file_grid
from .regridding.nearest import curvilinear_weights, nearest_weights
from .regridding.weights import Weights

Array = np.ndarray[Any, Any]

METHODS = ("conservative", "bilinear", "nearest")
FORMS = ("scrip", "esmf")
MOST_PIXELS = 4_000_000
"""A picture of more pixels than these takes every second, third ... one."""

DEFAULT = "A1B_north_america.nc of iris-sample-data (240 years)"

DEGREES = {"latitude": {"standard_name": "latitude", "long_name": "latitude", "units": "degrees_north"},
           "longitude": {"standard_name": "longitude", "long_name": "longitude", "units": "degrees_east"}}  # fmt: skip


def weights_between(source: Grid, target: Grid, method: str = "conservative") -> Weights:
    """What each cell of the target takes of which cells of the source.

    Args:
        source: any grid.
        target: rectilinear or curvilinear.
        method: "conservative" (first order), "bilinear" or "nearest", as cdo's remapcon, remapbil and remapnn.

    Raises:
        ParameterError: there is no such method for these grids.
    """
    if method not in METHODS:
        raise ParameterError(f"there is no method {method!r}", hint=f"there are {', '.join(METHODS)}")
    if target.kind == "unstructured":
        raise ParameterError("the target has cells in a list, not rows and columns", hint="choose another grid")
    rectilinear = source.kind == target.kind == "rectilinear"
    if method == "nearest":
        return nearest_weights(source, target)
    if method == "conservative":
        return (conservative_weights if rectilinear else clipped_weights)(source, target)
    if source.kind == "unstructured":
        raise ParameterError(
            "bilinear weights need rows and columns, but the input's cells are a list",
            hint="take --method conservative or nearest, or weights from elsewhere by --weights",
        )
    if rectilinear:
        return bilinear_weights(source, target)
    if source.kind == "rectilinear":
        lat, lon = (one.reshape(source.shape) for one in source.centres)
        source = Grid("curvilinear", lat, lon)
    return curvilinear_weights(source, target)


def regridded(field: Collection, target: Grid, method: str = "conservative", *, source: Grid | None = None,
              dims: tuple[str, ...] = (), weights: Weights | None = None, min_valid: float | None = None) -> Collection:
    """Each field of a collection on another grid, along all its other dimensions.

    The result's dimensions are lat and lon (latitude and longitude, where the input has those names already), or y and
    x of a curvilinear target, whose lat and lon then are columns. Whole numbers become float64; floats stay.
    Sums are float64.

    Args:
        field: one column.
        target: rectilinear or curvilinear grid.
        method: "conservative", "bilinear" or "nearest".
        source: the input's grid; by default that of its coordinates.
        dims: the dimensions that the source grid has; by default those of its coordinates.
        weights: ready ones, instead of the method's.
        min_valid: least share of a target cell that valid source cells must make up, 0 to 1; by default any for
            conservative weights, and all else, as in cdo.

    Raises:
        DimensionError: the input has no grid.
        ParameterError: the method doesn't fit the grids.
    """
    if source is None:
        source, dims = grid_of(field)
    if weights is None:
        weights = weights_between(source, target, method)
    least = (0.0 if method == "conservative" else 1.0) if min_valid is None else float(min_valid)
    if not 0 <= least <= 1:
        raise ParameterError(f"the least valid share is {least:g}", hint="give a share from 0 to 1")
    names = ("y", "x") if target.kind == "curvilinear" else ("lat", "lon")
    if set(names) & set(field.dims):
        names = ("row", "column") if target.kind == "curvilinear" else ("latitude", "longitude")
    if set(names) & set(field.dims):
        raise DimensionError(f"the input's dimensions {', '.join(field.dims)} have the names of the result's")
    if field.fields[0].dtype.kind != "f":
        field = field * 1.0
    kernel = regrid_list if len(dims) == 1 else regrid_field
    signature = Signature.parse(f"({','.join(dims)})->({','.join(names)})")
    sizes = dict(zip(names, (int(one) for one in weights.shape), strict=True))
    made = replace(kernel, signature=signature, sizes=sizes)
    result = field.map(made, names=list(field.columns), weights=weights, least=least)
    coords = [c for c in result.coords if c.dim not in names]
    if target.kind == "rectilinear":
        sides = zip(names, ("latitude", "longitude"), (target.lat, target.lon), strict=True)
        coords += [Coordinate(dim, dim, values, attrs=packed(DEGREES[kind])) for dim, kind, values in sides]
        return Collection.of(result.op, coords)
    places = from_arrays({"lat": target.lat, "lon": target.lon}, dims=names)
    described = with_attrs(places, {"lat": DEGREES["latitude"], "lon": DEGREES["longitude"]})
    return Collection.of(result.op, coords).assign(lat=described["lat"], lon=described["lon"])


def regrid(
    input: str = "",
    variable: str = "",
    grid: str = "",
    like: str = "",
    bounds: str = "",
    resolution: float = 0.0,
    method: str = "conservative",
    min_valid: float | None = None,
    weights: str = "",
    save_weights: str = "",
    weight_format: str = "scrip",
    output: str = "regridded.zarr",
    picture: str = "",
    overwrite: bool = False,
) -> Job:
    """Fields on another grid: conservative, bilinear or nearest, as cdo's remapcon, remapbil and remapnn.

    The target is named (--grid), another file's (--like), a box (--bounds, --resolution), or what a weight file says;
    by default r360x180. A target cell is missing where valid cells make up less than --min-valid of it.

    Args:
        input: netCDF file, Zarr store, anything else that xarray reads, a URL or a pattern; by default the 240 years
            of North American air temperature of the package iris-sample-data.
        variable: the variable; needed where the input has several that fit.
        grid: target as cdo names it: r360x180, global_0.5, F80.
        like: a file whose grid is the target.
        bounds: west,east,south,north of the target in degrees, as in a box of climate.zonal.
        resolution: size of its cells in degrees.
        method: conservative, bilinear or nearest.
        min_valid: least share of a target cell that must be valid, 0 to 1; by default any (conservative) or all.
        weights: weight file (SCRIP or ESMF) to use instead of making weights.
        save_weights: weight file to write.
        weight_format: of that file, scrip or esmf.
        output: Zarr store to write.
        picture: PNG to draw; by default beside the output, "none" for no picture.
        overwrite: replace an output that other data or parameters have left there.

    Examples:
        gridcompute run climate.regrid --grid r180x90
        gridcompute run climate.regrid --input era5.nc --variable t2m --save-weights era5-1deg.nc
        gridcompute run climate.regrid --input ocean.nc --variable tos --like era5.nc --method bilinear
    """
    drawn = picture_path(picture, zarr_named(output))
    _check_replaceable(save_weights, weight_format, output)
    series, source, dims = _source(input or default_archive(), variable)
    name = next(iter(series.columns))
    target = _target(grid, like, bounds, resolution, bool(weights))
    made, target, method = _weights(weights, source, target, method)
    result = regridded(series, target, method, source=source, dims=dims, weights=made, min_valid=min_valid)
    described = {name: _attrs(series, method), "lat": DEGREES["latitude"], "lon": DEGREES["longitude"]}
    result = with_attrs(result, {column: described[column] for column in result.columns})

    def finish(run: Run) -> Iterator[str | Path]:
        if save_weights:
            yield write_weights(save_weights, made, source, target, method, weight_format)
        yield from picture_of(output, drawn, name, str(described[name].get("units", "1")), f"{name}, {method}")

    lines = [f"input {name} of {input or DEFAULT}: {_said(source)}", f"target {_said(target)}; {method}"]
    return Job([result.write(output, overwrite=overwrite)], finish, lines)


def _weights(path: str, source: Grid, target: Grid | None, method: str) -> tuple[Weights, Grid, str]:
    """Weights of a file, or new ones; their target and method."""
    if not path:
        assert target is not None
        return weights_between(source, target, method), target, method
    stored = read_weights(path)
    made, target = fitted(stored, source, target)
    return made, target, stored.method or method


def _said(grid: Grid) -> str:
    return f"{' x '.join(str(one) for one in grid.shape)} {grid.kind} cells"


def _attrs(series: Collection, method: str) -> dict[str, str]:
    kept = ("units", "long_name", "standard_name", "cell_methods")
    attrs = {key: str(value) for key, value in attrs_of(series).items() if key in kept}
    return attrs | ({"cell_methods": methods_of(series, "area: mean")} if method == "conservative" else {})


def _check_replaceable(path: str, form: str, output: str) -> None:
    """Weights replace weights only, and go to a place of their own."""
    if form not in FORMS:
        raise ParameterError(f"there is no weight format {form!r}", hint=f"there are {', '.join(FORMS)}")
    folder = Path(path).absolute().parent
    if path and not (folder.is_dir() and os.access(folder, os.W_OK)):
        said = "it can't be written to" if folder.is_dir() else "there is no such folder"
        raise StoreError(f"the weights can't go to {folder}: {said}", hint="choose another --save-weights")
    if path and Path(path).absolute() == Path(output).absolute():
        raise StoreError(f"weights and fields can't both go to {path}", hint="choose another --save-weights")
    if path and Path(path).exists():
        try:
            read_weights(path)
        except CorruptInputError as error:
            raise StoreError(f"{path} exists and holds no weights", hint="choose another --save-weights") from error


def _target(named: str, like: str, bounds: str, resolution: float, ready: bool) -> Grid | None:
    """The target that is asked for; None: whatever the weight file says."""
    asked = [what for what, given in (("--grid", named), ("--like", like), ("--bounds", bounds)) if given]
    if len(asked) > 1:
        raise ParameterError(f"the target is said twice, by {' and '.join(asked)}", hint="give one of them")
    if bool(bounds) != bool(resolution):
        raise ParameterError("a box needs both --bounds and --resolution")
    if like:
        return file_grid(like)[0]
    if bounds:
        try:
            west, east, south, north = (float(one) for one in bounds.split(","))
        except ValueError:
            raise ParameterError(f"bounds are {bounds!r}", hint="give west,east,south,north in degrees") from None
        return box_grid((west, east, south, north), resolution)
    return None if ready and not named else named_grid(named or "r360x180")


def _source(path: str, variable: str) -> tuple[Collection, Grid, tuple[str, ...]]:
    """The variable, its grid, and the grid's dimensions."""
    data = open_dataset(path)
    try:
        source, dims, described = file_grid(path, variable)
    except GridError:
        source, dims = grid_of(data)  # of a URL or format that only the collection reads
        described = ()
    others = [f.name for f in data.fields if f.name not in described and set(dims) <= set(f.dims)]
    series = chosen(data[others] if others and not variable else data, variable, dims[0])
    missing = [dim for dim in dims if dim not in series.dims]
    if missing:
        raise DimensionError(f"variable {next(iter(series.columns))!r} has no dimension {missing[0]!r} of the grid")
    return series, source, dims


def picture_of(output: str, picture: Path | None, name: str, unit: str, title: str,
               nothing: str = "no target cell has a value: do the grids overlap?") -> Iterator[str | Path]:
    """Draw the first field of what was written; gives the lines and paths for the summary."""
    field = open_result(output)[name]
    if field.ndim > 2:
        others = ", ".join(f"{dim} {field.sizes[dim]}" for dim in field.dims[:-2])
        yield f"summary and picture are of the first field of {others}"
        dims, field = field.dims[:-2], field[(0,) * (field.ndim - 2)]
        title += "".join(f", {dim} {str(field[dim].values)[:10]}" for dim in dims if dim in field.coords)
    step = max(1, int(np.ceil(np.sqrt(field.size / MOST_PIXELS))))
    field = field[::step, ::step]
    values = np.asarray(field.values, np.float64)
    known = np.isfinite(values)
    if known.any():
        low, middle, high = np.nanmin(values), np.nanmedian(values[known]), np.nanmax(values)
        share = f"{100 * known.mean():.1f} % of cells have a value"
        yield f"{name} {low:.4g} to {high:.4g} {unit}, median {middle:.4g}; {share}"
    else:
        yield nothing
    if picture is not None:
        y, x = (
            Axis.of(d, field.coords[d]) if d in field.coords else Axis(d, np.arange(field.sizes[d], dtype=np.float64))
            for d in field.dims
        )
        part, y, x = cropped(values, y, x)
        note = "the part that has values" if part.shape != values.shape else ""
        yield draw_field(picture, part, y, x, title=title.replace("_", " "), unit=unit, note=note)
