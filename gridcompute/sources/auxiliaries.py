"""What of a stored dataset is neither a column nor a coordinate of one dimension, read when it is opened."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gridcompute.auxiliary import Auxiliary, whole
from gridcompute.coords import Coordinate
from gridcompute.errors import GridError
from gridcompute.secrecy import clean
from gridcompute.sources.decoding import Array, Decoding, Variable, coordinate_of
from gridcompute.sources.files import broken

MOST_BYTES = 2**26
"""Of one such variable: latitudes of a curvilinear grid of 8 million cells. A larger one is a column only."""

FLAT = "all"
_SAID = ("bounds", "climatology")


def auxiliaries(
    variables: Sequence[Variable], read: Callable[[Variable], Array], attrs: Mapping[str, Any], where: str
) -> tuple[Auxiliary, ...]:
    """Scalar and curvilinear coordinates, bounds, grid mappings and the dataset's attributes.

    Args:
        variables: all that it has.
        read: gives the stored values of one.
        attrs: of the dataset.
        where: its path or URL, for messages.
    """
    parents = {str(v.attrs[said]): v for v in variables for said in _SAID if v.is_coordinate and said in v.attrs}
    mappings = {str(v.attrs.get("grid_mapping", "")) for v in variables}
    found = []
    for v in variables:
        wanted = (v.is_coordinate and len(v.dims) != 1) or v.name in parents or v.name in mappings
        if not wanted or math.prod(v.shape) * max(1, v.dtype.itemsize) > MOST_BYTES or len(set(v.dims)) < len(v.dims):
            continue
        try:
            made = _auxiliary(v, read(v), parents.get(v.name))
        except GridError:
            raise
        except Exception as error:  # each library that reads has errors of its own
            raise broken(where, f"coordinate {v.name!r}", error) from clean(error)
        found += [] if made is None else [made]
    return (*found, *whole(attrs))


def _auxiliary(v: Variable, raw: Array, parent: Variable | None) -> Auxiliary | None:
    attrs = dict(v.attrs)
    if parent is not None:  # bounds may leave their units to what they bound
        attrs = {key: parent.attrs[key] for key in ("units", "calendar") if key in parent.attrs} | attrs
    cells = np.asarray(raw)
    cells = cells.reshape(-1)
    decoding = Decoding.of((FLAT,), v.dtype, attrs)
    flat: Coordinate | None = None
    if decoding is not None:
        flat = coordinate_of(replace(v, dims=(FLAT,), shape=cells.shape, attrs=attrs), cells)
    own = () if parent is None else tuple(dim for dim in v.dims if dim not in parent.dims)
    return Auxiliary.of(v.name, v.dims, flat, v.shape, own)
