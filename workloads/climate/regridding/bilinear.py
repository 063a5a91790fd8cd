"""Bilinear weights from rectilinear grids, as cdo's remapbil has them.

A target point takes the four source points around it, weighted by longitude and by latitude. Beyond the outermost row
of a grid that goes round and ends at the pole it takes the four nearest points of the two outer rows, weighted by the
inverse of their distance; elsewhere beyond the grid it takes nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..grids import Grid  # noqa: TID252 - the package has another name where it is installed
from .weights import Line, Weights, listed_weights, product_weights

Array = np.ndarray[Any, Any]

TINY = 1e-14
"""Radians added to a distance, so that its inverse is finite."""


def bilinear_weights(source: Grid, target: Grid) -> Weights:
    """Bilinear weights of a rectilinear target for a rectilinear source."""
    lat, lon = np.deg2rad(source.lat), np.deg2rad(source.lon)
    north, east = np.deg2rad(target.lat), np.deg2rad(target.lon)
    if source.periodic:
        lon = np.append(lon, lon[0] + np.copysign(2 * np.pi, lon[-1] - lon[0]))
    rows, columns = _between(lat, north), _between(lon, _turned(east, lon))
    if source.periodic:
        columns = columns._replace(source=columns.source % (len(lon) - 1))
    return product_weights(rows, columns, _caps(source, target))


def _turned(points: Array, lon: Array) -> Array:
    """Longitudes moved by whole turns to where the source's lie, as far as they can be."""
    low, high = min(lon[0], lon[-1]), max(lon[0], lon[-1])
    near = low + np.mod(points - low, 2 * np.pi)
    exact = np.where(points - 2 * np.pi * np.round((points - near) / (2 * np.pi)) == high, high, near)
    same = (points >= low) & (points <= high)  # not moved at all: no rounding
    return np.where(same, points, exact)


def _between(axis: Array, points: Array) -> Line:
    """The two positions of an axis around each point: the upper one is the first that isn't before the point."""
    sign = -1.0 if len(axis) > 1 and axis[-1] < axis[0] else 1.0
    upper = np.searchsorted(sign * axis, sign * points, side="left")
    upper = np.where(points == axis[0], min(1, len(axis) - 1), upper)
    inside = (upper > 0) & (upper < len(axis))
    taken = []
    for at, point, there in zip(upper, points, inside, strict=True):
        if not there:
            taken.append((np.empty(0, np.int32), np.empty(0)))
            continue
        share = (point - axis[at - 1]) / (axis[at] - axis[at - 1])
        taken.append((np.array([at - 1, at]), np.array([1.0 - share, share])))
    return Line.of(taken, inside.astype(np.float64))


def _caps(source: Grid, target: Grid) -> Weights:
    """Weights of the target rows between a pole and the source's outermost row before it."""
    cells, start, sources, weights = [np.empty(0, np.int64)], [0], [np.empty(0, np.int64)], [np.empty(0)]
    ny, nx = source.shape
    if source.periodic and ny > 1:
        edges = source.edges[0]
        for end, second in ((0, 1), (ny - 1, ny - 2)):
            if abs(edges[0 if end == 0 else -1]) < 90:
                continue
            south = source.lat[end] < source.lat[second]
            beyond = target.lat < source.lat[end] if south else target.lat > source.lat[end]
            pair = sorted((end, second))
            for row in np.flatnonzero(beyond):
                near, inverse = _nearest_four(source, pair, float(target.lat[row]), target.lon)
                cells.append(row * len(target.lon) + np.arange(len(target.lon)))
                sources.append((np.array(pair)[near // nx] * nx + near % nx).ravel())
                weights.append((inverse / inverse.sum(1)[:, None]).ravel())
                start += [start[-1] + 4 * (i + 1) for i in range(len(target.lon))]
    found = np.concatenate(cells)
    order = np.argsort(found, kind="stable")
    four = np.concatenate(sources).reshape(-1, 4)[order].ravel(), np.concatenate(weights).reshape(-1, 4)[order].ravel()
    return listed_weights(target.shape, found[order], np.array(start), *four, least=0.0)


def _nearest_four(source: Grid, pair: list[int], lat: float, lon: Array) -> tuple[Array, Array]:
    """Of each point of one row the four nearest in two source rows, and the inverse of their distances: (points, 4)."""
    ys, xs = np.deg2rad(source.lat[pair]), np.deg2rad(source.lon)
    y, x = np.deg2rad(lat), np.deg2rad(lon)
    turn = np.cos(x)[:, None] * np.cos(xs) + np.sin(x)[:, None] * np.sin(xs)
    cosine = (np.cos(y) * np.cos(ys))[:, None] * turn[:, None, :] + (np.sin(y) * np.sin(ys))[:, None]
    distance = np.arccos(np.clip(cosine, -1.0, 1.0)).reshape(len(lon), -1)
    near = np.argsort(distance, axis=1, kind="stable")[:, :4]
    return near, 1.0 / (np.take_along_axis(distance, near, 1) + TINY)
