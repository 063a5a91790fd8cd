"""Conservative weights between rectilinear grids: shares of area, which are products of shares of rows and of columns.

A cell between two parallels and two meridians has the area (sin(north) - sin(south)) (east - west): so what two such
cells share is the product of what their rows share in sin(latitude) and their columns in longitude (Jones 1999, first
order). Each target cell's weights add up to 1, whatever part of it the source covers (cdo: fracarea).
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from ..grids import Grid  # noqa: TID252 - the package has another name where it is installed
from .weights import FULL, Line, Weights, product_weights

Array = np.ndarray[Any, Any]


def conservative_weights(source: Grid, target: Grid) -> Weights:
    """First-order conservative weights of a rectilinear target for a rectilinear source."""
    (lat, lon), (north, east) = source.edges, target.edges
    rows = _overlaps(np.sin(np.deg2rad(lat)), np.sin(np.deg2rad(north)), 0.0)
    return product_weights(rows, _overlaps(lon, east, 360.0))


def _overlaps(source: Array, target: Array, period: float) -> Line:
    """What the intervals of `target` share with those of `source`; edges of either may decrease."""
    order = np.arange(len(source) - 1)
    lows, highs = np.minimum(source[:-1], source[1:]), np.maximum(source[:-1], source[1:])
    if period:
        turns = np.arange(-2.0, 3.0)[:, None] * period
        base = np.floor((min(target[0], target[-1]) - lows.min()) / period) * period
        lows, highs, order = (lows + turns + base).ravel(), (highs + turns + base).ravel(), np.tile(order, 5)
    taken, share = [], []
    for one, other in itertools.pairwise(target):
        low, high = min(one, other), max(one, other)
        shared = np.minimum(high, highs) - np.maximum(low, lows)
        found = np.flatnonzero(shared > FULL * FULL * (high - low) + 1e-14)
        total = shared[found].sum()
        taken.append((order[found], shared[found] / total if len(found) else shared[found]))
        share.append(total / (high - low))
    return Line.of(taken, np.array(share))
