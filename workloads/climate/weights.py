"""Weights of fields: by latitude, by area, or from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gridcompute.collection import Collection
from gridcompute.errors import DimensionError, MissingInputError, ParameterError

from .grids import check_monotonic
from .inputs import coordinate_along

Array = np.ndarray[Any, Any]

WEIGHTS = ("none", "cos", "sqrt-cos", "area")


def weights_of(series: Collection, weights: str | Array, dim: str = "time") -> Array:
    """What fields are multiplied by before they are analysed.

    Args:
        series: the fields.
        weights: "none"; "cos" or "sqrt-cos" of the latitude; "area": the root of a cell's share of the area of all; a
            path of a NumPy file or of a dataset with one variable; or an array.
        dim: the dimension that isn't of the fields.

    Returns:
        An array over the dimensions of the fields.

    Raises:
        ParameterError: weights that don't fit, or are negative or NaN.
        DimensionError: no latitudes where they are needed.
    """
    f, space = series.fields[0], series.space
    dims = tuple(name for name in f.dims if name != dim)
    shape = tuple(space[name] or 0 for name in dims)
    if isinstance(weights, str) and weights in WEIGHTS:
        if weights == "none":
            return np.ones(shape)
        along = coordinate_along(series, "latitude")
        if along.dim not in dims:
            raise DimensionError(f"the latitudes lie along {along.dim!r}, which isn't one of {', '.join(dims)}")
        one = _by_latitude(np.asarray(along.values, np.float64), weights)
        whole = np.broadcast_to(one.reshape([-1 if name == along.dim else 1 for name in dims]), shape)
        return np.sqrt(whole / whole.sum()) if weights == "area" else np.ascontiguousarray(whole)
    found = np.asarray(_read(weights) if isinstance(weights, str) else weights, np.float64)
    try:
        found = np.broadcast_to(found, shape)
    except ValueError:
        raise ParameterError(f"the weights have shape {found.shape}, the fields {shape}",
                             hint=f"give them over {', '.join(dims)}") from None
    if not (found >= 0).all() or not (found > 0).any():
        raise ParameterError("weights that are negative, NaN, or all 0", hint="1 takes a point as it is")
    return np.ascontiguousarray(found)


def _by_latitude(degrees: Array, weights: str) -> Array:
    if not (np.abs(degrees) <= 90 + 1e-5).all():
        raise ParameterError(f"the latitudes reach from {degrees.min():g} to {degrees.max():g}",
                             hint="weights need degrees between -90 and 90; or take the weights none")
    if weights != "area":
        cosine = np.clip(np.cos(np.deg2rad(degrees)), 0.0, 1.0)
        return np.sqrt(cosine) if weights == "sqrt-cos" else cosine
    if len(degrees) < 2:
        return np.ones(len(degrees))
    check_monotonic("latitudes", degrees)
    middle = (degrees[1:] + degrees[:-1]) / 2
    edges = np.clip([2 * degrees[0] - middle[0], *middle, 2 * degrees[-1] - middle[-1]], -90.0, 90.0)
    return np.asarray(np.abs(np.diff(np.sin(np.deg2rad(edges)))))


def _read(path: str) -> Array:
    if not Path(path).exists():
        raise MissingInputError(f"no weights {path!r}", hint=f"choose from {', '.join(WEIGHTS)}, or name a file")
    if path.endswith(".npy"):
        return np.asarray(np.load(path, allow_pickle=False))
    import xarray as xr

    with xr.open_dataset(path) as data:
        names = [name for name in data.data_vars if data[name].dtype.kind in "iuf"]
        if len(names) != 1:
            raise ParameterError(f"{path} has {len(names)} variables of numbers, not the weights alone",
                                 hint="write them to a file of their own")
        return np.asarray(data[names[0]].values)
