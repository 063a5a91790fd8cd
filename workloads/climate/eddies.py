"""The transformed Eulerian mean: how eddies force the zonal mean flow, and the circulation that they leave.

Andrews, Holton and Leovy, Middle Atmosphere Dynamics (1987), section 3.5, in log-pressure z = -H ln(p / 1000 hPa), with
bars for zonal means, primes for what is left, and th = T (1000 hPa / p)^(2/7):

    v* = v - (1/rho) d(rho V)/dz        V = [v'th'] / (dth/dz)                                     (3.5.1a)
    w* = w + (1/(a cos)) d(V cos)/dlat                                                             (3.5.1b)
    Fy = rho a cos (V du/dz - [u'v'])                                                              (3.5.3a)
    Fz = rho a cos (V (f - d(u cos)/dlat / (a cos)) - [u'w'])                                      (3.5.3b)
    div F = d(Fy cos)/dlat / (a cos) + dFz/dz,    force = div F / (rho a cos)                      (3.5.3c)

rho = p / (g H). Units: m s-1 for v* and w*, kg s-2 for F, kg m-1 s-2 for div F, m s-2 for the force.
"""

from __future__ import annotations

import datetime
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

import gridcompute as grid
from gridcompute import reductions
from gridcompute.calendar import DAY
from gridcompute.collection import Collection
from gridcompute.coords import Coordinate
from gridcompute.errors import ParameterError
from gridcompute.signature import Signature

from .differences import derivative
from .grids import RADIUS
from .inputs import coordinate_along

Array = np.ndarray[Any, Any]

SURFACE = 100_000.0
"""Reference pressure in Pa."""

HEIGHT = 7_000.0
"""Scale height H in metres."""

GRAVITY = 9.80665
TURN = 7.292115e-5
"""Angular velocity of the Earth, s-1."""

KAPPA = 2.0 / 7.0

FLUXES = ("u", "v", "w", "t", "uv", "uw", "vt")


class Plane(NamedTuple):
    """Heights and latitudes, with weights of derivatives of second order along both, in the form that the kernel reads.

    Attributes:
        density: float64, (levels,): kg m-3.
        warmer: float64, (levels,): potential temperature over temperature.
        lift: float64, (levels,): m s-1 of height for each unit of w as it was read.
        cosine: float64, (ny,): a cos(latitude); 0 at a pole.
        over: float64, (ny,): 1 / (a cos(latitude)); NaN at a pole.
        planetary: float64, (ny,): the Coriolis parameter.
        up_first: int64, (levels,): first of the three levels of a derivative.
        up: float64, (levels, 3).
        north_first: int64, (ny,): first of three rows.
        north: float64, (ny, 3): per radian.
    """

    density: Array
    warmer: Array
    lift: Array
    cosine: Array
    over: Array
    planetary: Array
    up_first: Array
    up: Array
    north_first: Array
    north: Array


def plane_of(pressure: Array, lat: Array, omega: bool) -> Plane:
    """Weights for levels and latitudes.

    Args:
        pressure: of the levels, in Pa.
        lat: in degrees.
        omega: whether w is dp/dt in Pa s-1, not dz/dt in m s-1.

    Raises:
        ParameterError: fewer than three levels or latitudes, pressures that aren't positive, or not in order.
    """
    for what, values in (("levels", pressure), ("latitudes", lat)):
        steps = np.diff(values)
        if len(values) < 3 or not ((steps > 0).all() or (steps < 0).all()):
            raise ParameterError(f"the {what} must be three or more, in order; they are {values[:5].tolist()}")
    if pressure.min() <= 0:
        raise ParameterError(f"a level has the pressure {pressure.min():g} Pa")
    y, z = np.deg2rad(lat), -HEIGHT * np.log(pressure / SURFACE)
    cosine = np.where(np.abs(lat) > 90 - 1e-6, 0.0, RADIUS * np.cos(y))
    over = 1.0 / np.where(cosine > 0, cosine, np.nan)
    (up_first, up), (north_first, north) = _thirds(z), _thirds(y)
    lift = -HEIGHT / pressure if omega else np.ones(len(z))
    warmer = (SURFACE / pressure) ** KAPPA
    return Plane(pressure / (GRAVITY * HEIGHT), warmer, lift, cosine, over, 2 * TURN * np.sin(y), up_first, up,
                 north_first, north)  # fmt: skip


def _thirds(axis: Array) -> tuple[Array, Array]:
    """First of three positions, and their weights, for the derivative at each position."""
    first = np.clip(np.arange(len(axis)) - 1, 0, len(axis) - 3)
    weights = [derivative(axis[at : at + 3], one) for at, one in zip(first, axis, strict=True)]
    return first.astype(np.int64), np.array(weights)


@grid.kernel("(lon),(lon),(lon),(lon)->(),(),(),(),(),(),()", names=FLUXES, flags={"reassoc"})
def row_fluxes(u, v, w, t):  # type: ignore[no-untyped-def]  # numba infers the types
    """Means around a circle of latitude, and of products of departures, where all four are valid; NaN where none is."""
    n = u.shape[0]
    a, b, c, d, count = 0.0, 0.0, 0.0, 0.0, 0
    for i in range(n):
        p, q, r, s = np.float64(u[i]), np.float64(v[i]), np.float64(w[i]), np.float64(t[i])
        if p + q + r + s == p + q + r + s:
            a += p
            b += q
            c += r
            d += s
            count += 1
    if count == 0:
        return np.nan, np.nan, np.nan, np.nan, np.nan, np.nan, np.nan
    a, b, c, d = a / count, b / count, c / count, d / count
    x, y, z = 0.0, 0.0, 0.0
    for i in range(n):
        p, q, r, s = np.float64(u[i]) - a, np.float64(v[i]) - b, np.float64(w[i]) - c, np.float64(t[i]) - d
        if p + q + r + s == p + q + r + s:
            x += p * q
            y += p * r
            z += q * s
    return a, b, c, d, x / count, y / count, z / count


@grid.kernel(
    "(level,lat),(level,lat),(level,lat),(level,lat),(level,lat),(level,lat),(level,lat)"
    "->(level,lat),(level,lat),(level,lat),(level,lat),(level,lat),(level,lat)",
    names=("v_star", "w_star", "f_north", "f_up", "divergence", "force"),
)
def eddy_forcing(u, v, w, t, uv, uw, vt, plane):  # type: ignore[no-untyped-def]
    """One time's residual circulation, EP flux, its divergence, and the force on the mean flow."""
    nz, ny = u.shape
    out, eddy, curl = np.empty((6, nz, ny)), np.empty((nz, ny)), np.empty((nz, ny))
    for k in range(nz):
        for j in range(ny):
            lapse, spin = 0.0, 0.0
            for m in range(3):
                h, y = plane.up_first[k] + m, plane.north_first[j] + m
                lapse += plane.up[k, m] * t[h, j] * plane.warmer[h]
                spin += plane.north[j, m] * u[k, y]
            tangent = plane.planetary[j] / (2.0 * TURN) * plane.over[j] * RADIUS
            curl[k, j] = plane.planetary[j] - (spin - u[k, j] * tangent) / RADIUS
            eddy[k, j] = vt[k, j] * plane.warmer[k] / lapse if lapse != 0.0 else np.nan
    for k in range(nz):
        for j in range(ny):
            shear, lifted, spread = 0.0, 0.0, 0.0
            for m in range(3):
                h, y = plane.up_first[k] + m, plane.north_first[j] + m
                shear += plane.up[k, m] * u[h, j]
                lifted += plane.up[k, m] * plane.density[h] * eddy[h, j]
                if plane.north[j, m] != 0.0:
                    spread += plane.north[j, m] * eddy[k, y] * plane.cosine[y]
            arm = plane.density[k] * plane.cosine[j]
            out[0, k, j] = v[k, j] - lifted / plane.density[k]
            out[1, k, j] = w[k, j] * plane.lift[k] + spread / RADIUS * plane.over[j]
            out[2, k, j] = arm * (eddy[k, j] * shear - uv[k, j])
            out[3, k, j] = arm * (eddy[k, j] * curl[k, j] - uw[k, j] * plane.lift[k])
    for k in range(nz):
        for j in range(ny):
            sum_ = 0.0
            for m in range(3):
                h, y = plane.up_first[k] + m, plane.north_first[j] + m
                sum_ += plane.up[k, m] * out[3, h, j]
                if plane.north[j, m] != 0.0:
                    sum_ += plane.north[j, m] * out[2, k, y] * plane.cosine[y] / RADIUS * plane.over[j]
            out[4, k, j] = sum_
            out[5, k, j] = sum_ / plane.density[k] * plane.over[j]
    return out[0], out[1], out[2], out[3], out[4], out[5]


def eddy_fluxes(u: Collection, v: Collection, w: Collection, t: Collection) -> Collection:
    """Zonal means u, v, w, t, and means of products of departures from them: uv, uw, vt; per time, level and latitude.

    Longitudes where one of the four is missing count in none. Sums and results are float64.

    Args:
        u: one column, the flow to the east, m s-1.
        v: one column, the flow to the north, m s-1.
        w: one column, the flow upwards, m s-1 or Pa s-1.
        t: one column, temperature, K.

    Raises:
        DimensionError, AlignmentError: no longitudes; the four differ in their dimensions.
    """
    lon = coordinate_along(u, "longitude").dim
    signature = Signature(((lon,),) * 4, row_fluxes.signature.outputs)
    return u.map(replace(row_fluxes, signature=signature), v, w, t)


def transformed_mean(fluxes: Collection, level: str, pressure: Array, omega: bool) -> Collection:
    """Residual circulation, EP flux, its divergence and force, of what `eddy_fluxes` gives; formulas: see this module.

    Columns v_star, w_star, f_north, f_up, divergence, force over the fluxes' dimensions. At a pole those are NaN whose
    formula divides by the cosine.

    Args:
        fluxes: also means of these over time.
        level: dimension of the levels.
        pressure: of the levels, in Pa.
        omega: whether w is in Pa s-1.

    Raises:
        DimensionError: no latitudes.
        ParameterError: fewer than three levels or latitudes, or not in order.
    """
    lat = coordinate_along(fluxes, "latitude")
    plane = plane_of(np.asarray(pressure, np.float64), lat.values.astype(np.float64), omega)
    core = (level, lat.dim)
    signature = Signature((core,) * 7, (core,) * 6)
    return fluxes[list(FLUXES)].map(replace(eddy_forcing, signature=signature), plane=plane)


def daily(fluxes: Collection, dim: str = "time") -> Collection:
    """Means over the days of the calendar, along a dimension day.

    Raises:
        ParameterError: the dimension has no times.
    """
    times = fluxes.coord(dim)
    days, codes = np.unique(times.micros // DAY, return_inverse=True)
    calendar = times.time_unit.calendar
    origin = f"days since {datetime.date(1970, 1, 1).isoformat()}"
    day = Coordinate("day", "day", days.astype(np.int64), origin, calendar)
    return fluxes.reduced(reductions.mean(), [dim], (day, codes.astype(np.int64)))
