"""Weights by distance: the nearest source cell, and the bilinear place within curvilinear quadrangles."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from ..grids import Grid  # noqa: TID252 - the package has another name where it is installed
from .weights import Weights, listed_weights

Array = np.ndarray[Any, Any]

TIE = 1e-10
"""Squared distances that differ by no more than this part of them are equal: the lower number is nearest."""

ITERATIONS = 100
CONVERGED = 1e-10
"""Of a place within a quadrangle, in parts of its sides: Newton's next step is then far below rounding."""


def nearest_weights(source: Grid, target: Grid) -> Weights:
    """Each target cell takes the source cell whose centre is nearest; of equally near ones the lowest number's."""
    found = nearest_cells(source, target)
    count = len(found)
    return listed_weights(_rows(target), np.arange(count), np.arange(count + 1), found, np.ones(count))


def curvilinear_weights(source: Grid, target: Grid) -> Weights:
    """Bilinear weights from a curvilinear source, as cdo has them: within quadrangles of longitude and latitude.

    Target points that lie in no quadrangle of source points take nothing.
    """
    lat, lon = (np.deg2rad(one) for one in target.centres)
    near = nearest_cells(source, target)
    ys, xs = np.deg2rad(source.lat), np.deg2rad(source.lon)
    cells, weights = find_places(ys, xs, _columns_go_round(source), near, lat, lon)
    found = np.flatnonzero(cells[:, 0] >= 0)
    start = np.arange(len(found) + 1) * 4
    return listed_weights(_rows(target), found, start, cells[found].ravel(), weights[found].ravel())


def nearest_cells(source: Grid, target: Grid) -> Array:
    """Number of the source cell nearest to each target cell, (cells,)."""
    lat, _ = source.centres
    order = np.argsort(lat, kind="stable")
    found: Array = find_nearest(vectors(*source.centres)[order], np.deg2rad(lat[order]), order,
                                vectors(*target.centres), np.deg2rad(target.centres[0]))  # fmt: skip
    return found


def vectors(lat: Array, lon: Array) -> Array:
    """Points on the unit sphere, (points, 3), from degrees."""
    y, x = np.deg2rad(lat), np.deg2rad(lon)
    return np.stack([np.cos(y) * np.cos(x), np.cos(y) * np.sin(x), np.sin(y)], axis=-1)


def _rows(target: Grid) -> tuple[int, int]:
    my, mx = target.shape if len(target.shape) == 2 else (1, target.size)
    return my, mx


def _columns_go_round(grid: Grid) -> bool:
    """Whether the last column of a curvilinear grid lies beside the first."""
    points = vectors(grid.lat, grid.lon)
    if grid.lat.shape[1] < 3:
        return False
    inner = np.median(np.linalg.norm(np.diff(points, axis=1), axis=-1), axis=1)
    closing = np.linalg.norm(points[:, -1] - points[:, 0], axis=-1)
    return bool(np.median(closing - 1.5 * inner) <= 0)


@njit(nogil=True)
def find_nearest(points: Any, lats: Any, numbers: Any, targets: Any, target_lats: Any) -> Any:
    """Nearest of points sorted by latitude: up and down from the target's, until latitude alone is farther."""
    out = np.empty(targets.shape[0], np.int64)
    for t in range(targets.shape[0]):
        a, b, c = targets[t]
        up = np.searchsorted(lats, target_lats[t])
        down, best, number = up - 1, 5.0, 0
        while up < lats.shape[0] or down >= 0:
            north = lats[up] - target_lats[t] if up < lats.shape[0] else 10.0
            south = target_lats[t] - lats[down] if down >= 0 else 10.0
            least = min(north, south)
            if 4.0 * np.sin(min(0.5 * least, 1.5)) ** 2 > best * (1.0 + TIE):
                break
            if north <= south:
                at = up
                up += 1
            else:
                at = down
                down -= 1
            x, y, z = points[at, 0] - a, points[at, 1] - b, points[at, 2] - c
            distance = x * x + y * y + z * z
            closer = distance < best - TIE * best - 1e-30
            if closer or (distance <= best + TIE * best + 1e-30 and numbers[at] < number):
                best = min(best, distance)
                number = numbers[at]
        out[t] = number
    return out


@njit(nogil=True)
def turned(angle: Any) -> Any:
    """An angle between -pi and pi."""
    return angle - 2.0 * np.pi * np.round(angle / (2.0 * np.pi))


@njit(nogil=True)
def encloses(y: Any, x: Any) -> Any:
    """Whether the quadrangle of four points, given as seen from the target, has the target in it or on its edge."""
    positive, negative = False, False
    for k in range(4):
        n = (k + 1) % 4
        if abs(x[n] - x[k]) > np.pi:
            return False
        cross = x[k] * y[n] - x[n] * y[k]
        size = abs(x[k] * y[n]) + abs(x[n] * y[k])
        positive |= cross > 1e-14 * size
        negative |= cross < -1e-14 * size
    return not (positive and negative)


@njit(nogil=True)
def place_within(y: Any, x: Any) -> Any:
    """Place of the target within a quadrangle, along its first side and along its second, by Newton's method."""
    i, j = 0.5, 0.5
    y1, y2, x1, x2 = y[1] - y[0], y[3] - y[0], x[1] - x[0], x[3] - x[0]
    y3, x3 = y[2] - y[1] - y2, x[2] - x[1] - x2
    for _ in range(ITERATIONS):
        dy = -y[0] - y1 * i - y2 * j - y3 * i * j
        dx = -x[0] - x1 * i - x2 * j - x3 * i * j
        a, b, c, d = y1 + y3 * j, y2 + y3 * i, x1 + x3 * j, x2 + x3 * i
        determinant = a * d - b * c
        if determinant == 0.0:
            return -1.0, -1.0
        di, dj = (dy * d - dx * b) / determinant, (dx * a - dy * c) / determinant
        if abs(di) < CONVERGED and abs(dj) < CONVERGED:
            return i, j
        i += di
        j += dj
    return -1.0, -1.0


@njit(nogil=True)
def find_places(ys: Any, xs: Any, round_: Any, near: Any, lat: Any, lon: Any) -> Any:
    """The four source cells around each target point and their weights: (points, 4) each; -1: there are none."""
    ny, nx = ys.shape
    cells, weights = np.full((lat.shape[0], 4), -1, np.int64), np.zeros((lat.shape[0], 4))
    y, x, corner = np.empty(4), np.empty(4), np.empty(4, np.int64)
    for t in range(lat.shape[0]):
        row, column, done = near[t] // nx, near[t] % nx, False
        for shift in range(36):  # quadrangles around the nearest point, in order
            j, i = row - 3 + shift // 6, column - 3 + shift % 6
            if done or j < 0 or j + 1 >= ny or not (round_ or (i >= 0 and i + 1 < nx)):
                continue
            i %= nx
            corner[0], corner[1] = j * nx + i, j * nx + (i + 1) % nx
            corner[2], corner[3] = corner[1] + nx, corner[0] + nx
            for k in range(4):
                y[k] = ys[corner[k] // nx, corner[k] % nx] - lat[t]
                x[k] = turned(xs[corner[k] // nx, corner[k] % nx] - lon[t])
            if encloses(y, x):
                p, q = place_within(y, x)
                if -1e-6 < p < 1.0 + 1e-6 and -1e-6 < q < 1.0 + 1e-6:
                    cells[t] = corner
                    weights[t, 0], weights[t, 1] = (1 - p) * (1 - q), p * (1 - q)
                    weights[t, 2], weights[t, 3] = p * q, (1 - p) * q
                    done = True
    return cells, weights
