"""Derivatives of fields on the sphere by differences, row by row, at the speed of memory.

Along a row longitudes are even: centred differences of second order (two neighbours) or fourth (four). Across rows each
latitude has weights of its own, of three or five rows: those of the polynomial through them (Fornberg 1988), so that
uneven latitudes have the same order. At the first and last rows, and columns that don't go round, the rows or columns
are the outermost ones: differences are one-sided there.

At a pole a field has one gradient, and a flow one curl, whatever the longitude. The gradient is that of the wave with
one crest in the row around the pole; the curl is what goes round this row, over the area within (Stokes). Both have an
error that grows with the row's squared distance from the pole; for fourth order the second row removes it (Richardson).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

import gridcompute as grid
from gridcompute.errors import ParameterError

from .grids import RADIUS, Grid, check_even

Array = np.ndarray[Any, Any]

AT_POLE = 1e-6
"""Degrees from a pole within which a row lies there."""


NEAR, FAR = 8.0 / 12.0, 1.0 / 12.0
"""Weights of the neighbours, and of those behind them, in centred differences of fourth order."""


SCALE = 2.0**22
"""Metres in which squares of gradients are taken: about the Earth's radius, and without rounding."""


class Stencil(NamedTuple):
    """Weights of differences on a grid, in the form in which kernels read it; m is 3 or 5.

    Attributes:
        first: int64, (ny,): first of the m rows that a row's derivative to the north takes.
        north: float64, (ny, m): their weights, per metre; at a pole those of the rows' waves.
        curl: float64, (ny, m): of rows, for f' - f tan(latitude) / radius; at a pole of the rows' means.
        east: float64, (ny,): what the difference of neighbouring columns is multiplied with, per metre; 0 at a pole.
        pole: int64, (ny,): 1 and -1 at the north and south pole, else 0.
        side: float64, (m, m): weights of the m outermost columns for the derivative at each of them.
        cosine: float64, (nx,): of the longitudes.
        sine: float64, (nx,).
        round: bool, (1,): whether columns go round.
    """

    first: Array
    north: Array
    curl: Array
    east: Array
    pole: Array
    side: Array
    cosine: Array
    sine: Array
    round: Array


def stencil_of(place: Grid, order: int = 4, radius: float = RADIUS) -> Stencil:
    """Weights of differences on a rectilinear grid.

    Args:
        place: rows by columns.
        order: 2 or 4.
        radius: of the sphere, in metres.

    Raises:
        ParameterError: another order, too few rows or columns, uneven longitudes.
    """
    if order not in (2, 4):
        raise ParameterError(f"there are no differences of order {order}", hint="take 2 or 4")
    m, (ny, nx) = order + 1, place.shape
    if ny < m or nx < m:
        raise ParameterError(f"differences of order {order} need {m} rows and columns, there are {ny} by {nx}",
                             hint="take order 2" if order == 4 and min(ny, nx) > 2 else "take a larger field")
    steps = np.diff(place.lon)
    check_even(place.lon)
    y = np.deg2rad(place.lat)
    first = np.clip(np.arange(ny) - m // 2, 0, ny - m)
    nodes = y[first[:, None] + np.arange(m)]
    north = np.array([derivative(row, at) for row, at in zip(nodes, y, strict=True)]) / radius
    pole = np.where(np.abs(place.lat) > 90 - AT_POLE, np.sign(place.lat), 0).astype(np.int64)
    cosine = np.where(pole != 0, 0.0, np.cos(y))
    with np.errstate(divide="ignore", invalid="ignore"):
        east = np.where(pole != 0, np.nan, 1.0 / (radius * cosine * np.deg2rad(steps.mean())))
    curl = np.where(pole[:, None] != 0, np.nan, north)
    curl[np.arange(ny), np.arange(ny) - first] -= np.where(pole != 0, 0.0, np.tan(y)) / radius
    if place.periodic:
        for j in np.flatnonzero(pole):
            rings = np.abs(np.pi / 2 - np.abs(nodes[j]))
            near = np.argsort(rings)[1 : 1 + order // 2]
            kept = _extrapolated(rings[near] ** 2)
            north[j], curl[j], east[j] = 0.0, 0.0, 0.0
            north[j, near] = -pole[j] * kept / (radius * rings[near])
            curl[j, near] = -pole[j] * kept / (radius * np.tan(rings[near] / 2))
    side = np.array([derivative(np.arange(float(m)), float(at)) for at in range(m)])
    x = np.deg2rad(place.lon)
    return Stencil(first, north, curl, east, pole, side, np.cos(x), np.sin(x), np.array([place.periodic]))


def derivative(nodes: Array, at: float) -> Array:
    """Weights of values at nodes that give the derivative at a point of the polynomial through them."""
    scale = np.ptp(nodes) / (len(nodes) - 1)
    powers = np.vander((nodes - at) / scale, increasing=True).T
    wanted = np.zeros(len(nodes))
    wanted[1] = 1.0 / scale
    found = np.linalg.solve(powers, wanted)
    return np.asarray(np.where(np.abs(found) < 1e-9 * np.abs(found).max(), 0.0, found))


def _extrapolated(squares: Array) -> Array:
    """Weights of estimates whose errors are as these squares, so that the errors cancel."""
    if len(squares) == 1:
        return np.ones(1)
    return np.asarray(np.array([squares[1], -squares[0]]) / (squares[1] - squares[0]))


@njit(nogil=True)
def slope_east(row: Any, stencil: Any, scale: Any, out: Any) -> None:
    """Difference of neighbouring columns along a row for a step of 1, times a scale."""
    n, m = row.shape[0], stencil.side.shape[0]
    left, right, inner = row[m // 2 - 1 :], row[m // 2 + 1 :], out[m // 2 :]  # views: an index below 0 isn't vectorized
    near_scale, far_scale = (0.5 * scale, 0.0) if m == 3 else (NEAR * scale, FAR * scale)
    if m == 3:
        for i in range(n - 2):
            inner[i] = near_scale * (np.float64(right[i]) - np.float64(left[i]))
    else:
        last = row[4:]
        for i in range(n - 4):
            near, far = np.float64(right[i]) - np.float64(left[i]), np.float64(last[i]) - np.float64(row[i])
            inner[i] = near_scale * near - far_scale * far
    for edge in range(m // 2):
        for i in (edge, n - 1 - edge):
            if stencil.round[0]:
                near = np.float64(row[(i + 1) % n]) - np.float64(row[i - 1])
                far = np.float64(row[(i + 2) % n]) - np.float64(row[i - 2])
                out[i] = near_scale * near if m == 3 else near_scale * near - far_scale * far
            else:
                start, sum_ = 0 if i < m else n - m, 0.0
                for k in range(m):
                    sum_ += stencil.side[i - start, k] * np.float64(row[start + k])
                out[i] = scale * sum_


@njit(nogil=True)
def slope_north(field: Any, first: Any, weights: Any, out: Any) -> None:
    """Weighted sum of rows."""
    n = out.shape[0]
    a, b, c = field[first], field[first + 1], field[first + 2]
    p, q, r = weights[0], weights[1], weights[2]
    if weights.shape[0] == 3:
        for i in range(n):
            out[i] = p * np.float64(a[i]) + q * np.float64(b[i]) + r * np.float64(c[i])
    else:
        d, e, s, t = field[first + 3], field[first + 4], weights[3], weights[4]
        for i in range(n):
            middle = q * np.float64(b[i]) + r * np.float64(c[i]) + s * np.float64(d[i])
            out[i] = p * np.float64(a[i]) + middle + t * np.float64(e[i])


@njit(nogil=True)
def slopes(field: Any, j: Any, stencil: Any, east: Any, north: Any) -> None:
    """Derivatives to the east and to the north of row j."""
    n, pole = field.shape[1], stencil.pole[j]
    if pole == 0 or not stencil.round[0]:
        slope_east(field[j], stencil, stencil.east[j], east)
        slope_north(field, stencil.first[j], stencil.north[j], north)
        return
    a, b = 0.0, 0.0
    for k in range(stencil.north.shape[1]):
        weight = stencil.north[j, k] * 2.0 / n
        if weight != 0.0:
            for i in range(n):
                value = np.float64(field[stencil.first[j] + k, i])
                a += weight * value * stencil.cosine[i]
                b += weight * value * stencil.sine[i]
    for i in range(n):
        north[i] = a * stencil.cosine[i] + b * stencil.sine[i]
        east[i] = pole * (a * stencil.sine[i] - b * stencil.cosine[i])


@njit(nogil=True)
def curls(passing: Any, turning: Any, j: Any, stencil: Any, sign: Any, east: Any, north: Any) -> None:
    """Derivative of one component to the east and, times a sign, of the other to the north, in `east`, for row j."""
    n = passing.shape[1]
    if stencil.pole[j] == 0 or not stencil.round[0]:
        slope_east(passing[j], stencil, stencil.east[j], east)
        slope_north(turning, stencil.first[j], stencil.curl[j], north)
        for i in range(n):
            east[i] += sign * north[i]
        return
    sum_ = 0.0
    for k in range(stencil.curl.shape[1]):
        weight = stencil.curl[j, k] / n
        if weight != 0.0:
            for i in range(n):
                sum_ += weight * np.float64(turning[stencil.first[j] + k, i])
    for i in range(n):
        east[i] = sign * sum_


@grid.kernel("(lat,lon)->(lat,lon),(lat,lon)", names=("east", "north"))
def field_gradient(field, stencil):  # type: ignore[no-untyped-def]  # numba infers the types
    """Derivatives of a field to the east and to the north, per metre."""
    ny, nx = field.shape
    out = np.empty((2, ny, nx), field.dtype)  # one array: two would be given back to the system after each field
    east, north = np.empty(nx), np.empty(nx)
    for j in range(ny):
        slopes(field, j, stencil, east, north)
        for i in range(nx):
            out[0, j, i] = east[i]
            out[1, j, i] = north[i]
    return out[0], out[1]


@grid.kernel("(lat,lon)->(lat,lon)", names=("magnitude",))
def field_steepness(field, stencil):  # type: ignore[no-untyped-def]
    """Length of a field's gradient, per metre."""
    ny, nx = field.shape
    out = np.empty(field.shape, field.dtype)
    east, north = np.empty(nx), np.empty(nx)
    for j in range(ny):
        slopes(field, j, stencil, east, north)
        row = out[j]
        for i in range(nx):  # the root is taken in the field's type, half as wide; scaled, so that squares have room
            row[i] = (SCALE * east[i]) * (SCALE * east[i]) + (SCALE * north[i]) * (SCALE * north[i])
        back = row.dtype.type(1.0 / SCALE)
        for i in range(nx):
            row[i] = np.sqrt(row[i]) * back
    return out


@grid.kernel("(lat,lon),(lat,lon)->(lat,lon)", names=("curl",))
def flow_curl(turning, passing, stencil, sign):  # type: ignore[no-untyped-def]
    """Vorticity of (u, v) with the sign -1, divergence of (v, u) with 1."""
    ny, nx = passing.shape
    out = np.empty(passing.shape, passing.dtype)
    east, north = np.empty(nx), np.empty(nx)
    for j in range(ny):
        curls(passing, turning, j, stencil, sign, east, north)
        for i in range(nx):
            out[j, i] = east[i]
    return out
