"""Grids of files: the coordinates that a variable has, by CF's attributes or their names, with bounds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gridcompute.errors import CorruptInputError, DimensionError, MissingInputError
from gridcompute.secrecy import clean
from gridcompute.sources.files import expand, is_remote

from ..grids import Grid  # noqa: TID252 - the package has another name where it is installed
from ..inputs import NAMES, UNITS  # noqa: TID252 - the package has another name where it is installed

Array = np.ndarray[Any, Any]


def opened(path: str) -> Any:
    """The (first) file as an xarray Dataset, not decoded.

    Raises:
        MissingInputError, CorruptInputError: it isn't there, or no dataset.
    """
    import xarray as xr

    first = expand(path)[0]
    if not is_remote(first) and not Path(first).exists():
        raise MissingInputError(f"there is no file {first}")
    try:
        return xr.open_dataset(first, decode_cf=False)
    except Exception as error:  # each library behind xarray raises errors of its own
        said = str(error).split("\n")[0].split(". Consider")[0]
        raise CorruptInputError(f"{first} can't be read as a grid: {said}",
                                hint="fetch the file again, or check what wrote it") from clean(error)


def file_grid(path: str, variable: str = "") -> tuple[Grid, tuple[str, ...], tuple[str, ...]]:
    """The grid of a file's variable (or of its first that has one).

    Returns:
        The grid, its dimensions, and the names of the variables that describe it.

    Raises:
        MissingInputError, CorruptInputError: the file isn't there, or no dataset.
        DimensionError: no latitudes and longitudes.
        ParameterError: coordinates that no grid has.
    """
    with opened(path) as data:
        return dataset_grid(data, variable)


def dataset_grid(data: Any, variable: str = "") -> tuple[Grid, tuple[str, ...], tuple[str, ...]]:
    """The same of an open xarray Dataset."""
    dims = set(data.variables[variable].dims) if variable in data.variables else set(data.dims)
    named = str(data[variable].attrs.get("coordinates", "")).split() if variable in data.variables else []
    lats, lons = (_along(data, kind, dims, named) for kind in ("latitude", "longitude"))
    pairs = [(lat, lon) for lat in lats for lon in lons]
    for lat, lon in sorted(pairs, key=lambda pair: (pair[0] not in named, pair[1] not in named)):
        y, x = data[lat], data[lon]
        same = y.dims == x.dims
        if y.ndim == 1 and x.ndim == 1 and not same:
            edges = _edges(data, y), _edges(data, x)
            both = edges if edges[0] is not None and edges[1] is not None else (None, None)
            return Grid("rectilinear", _degrees(y), _degrees(x), *both), (*y.dims, *x.dims), _described(data, lat, lon)
        if same and y.ndim in (1, 2):
            corners = _corners(data, y), _corners(data, x)
            both = corners if corners[0] is not None and corners[1] is not None else (None, None)
            kind: Any = "curvilinear" if y.ndim == 2 else "unstructured"
            return Grid(kind, _degrees(y), _degrees(x), *both), tuple(y.dims), _described(data, lat, lon)
    what = f"variable {variable!r}" if variable else "the file"
    raise DimensionError(
        f"{what} has no latitudes and longitudes", hint='coordinates have units "degrees_north" and "degrees_east" (CF)'
    )


def _along(data: Any, kind: str, dims: set[str], named: list[str]) -> list[str]:
    """Variables that may be the latitudes or longitudes, the surest first."""
    fits = [name for name, one in data.variables.items() if 1 <= one.ndim <= 2 and set(one.dims) <= dims]
    numbers = [name for name in fits if data[name].dtype.kind in "iuf"]
    said = [name for name in numbers if data[name].attrs.get("standard_name") == kind
            or str(data[name].attrs.get("units", "")).lower() in UNITS[kind]]  # fmt: skip
    plain = [name for name in numbers for known in NAMES[kind] if name.lower() == known]
    bounds = {str(one.attrs.get("bounds", "")) for one in data.variables.values()}
    found = dict.fromkeys([*(n for n in named if n in said), *said, *plain])
    return [name for name in found if name not in bounds and "grid_" not in str(data[name].attrs.get("standard_name"))]


def _described(data: Any, lat: str, lon: str) -> tuple[str, ...]:
    bounds = (str(data[name].attrs.get("bounds", "")) for name in (lat, lon))
    return (lat, lon, *(name for name in bounds if name in data.variables))


def _degrees(variable: Any, units: str = "") -> Array:
    values = np.asarray(variable.values, np.float64)
    radians = str(variable.attrs.get("units", units)).lower().startswith("rad")
    return np.rad2deg(values) if radians else values


def _bounds(data: Any, variable: Any) -> Array | None:
    name = str(variable.attrs.get("bounds", ""))
    if name not in data.variables:
        return None
    found = _degrees(data[name], str(variable.attrs.get("units", "")))
    return found if found.shape[:-1] == variable.shape else None


def _edges(data: Any, variable: Any) -> Array | None:
    """Edges (n + 1,) of bounds (n, 2) that leave no gaps."""
    bounds = _bounds(data, variable)
    if bounds is None or bounds.shape[1] != 2 or not np.isfinite(bounds).all():
        return None
    if len(bounds) > 1 and (bounds[1, 0] > bounds[0, 0]) != (bounds[0, 1] > bounds[0, 0]):
        bounds = bounds[:, ::-1]
    if not np.allclose(bounds[1:, 0], bounds[:-1, 1], rtol=0, atol=1e-6):
        return None
    return np.append(bounds[:, 0], bounds[-1, 1])


def _corners(data: Any, variable: Any) -> Array | None:
    bounds = _bounds(data, variable)
    return bounds if bounds is not None and bounds.shape[-1] >= 3 and np.isfinite(bounds).all() else None
