"""Least-squares lines as a reduction, with what is needed to judge them."""

from __future__ import annotations

import math
from typing import Any

from numba import njit

from gridcompute.columns import Array
from gridcompute.reducer import Output, Reduction, StateField

_FIELDS = ("n", "x0", "y0", "x", "y", "xx", "xy", "yy")
_OUTPUTS = ("slope", "intercept", "r", "stderr", "p")


def least_squares(*, skipna: bool = True) -> Reduction:
    """Least-squares line against the position, as SciPy's `linregress` gives it: slope, intercept, r, stderr and p.

    The slope and its standard error are per position, the intercept is the line's value at position 0, p is that of
    the two-sided t test of the slope. NaN for fewer than two values, stderr and p for fewer than three, r of values
    that are all the same. Positions count as for `argmin`. Sums are taken about the first point, so values far from 0
    cost no digits.
    """
    return Reduction(
        "least_squares",
        tuple(StateField(name, "i8" if name == "n" else "f8") for name in _FIELDS),
        _init,
        _step,
        _merge,
        _final,
        tuple(Output(name, "f8") for name in _OUTPUTS),
        skipna=skipna,
        commutative=True,
        positional=True,
    )


def _init(n: Array, x0: Array, y0: Array, sx: Array, sy: Array, xx: Array, xy: Array, yy: Array) -> None:
    """No point yet."""
    n[0] = 0
    x0[0] = 0.0
    y0[0] = 0.0
    sx[0] = 0.0
    sy[0] = 0.0
    xx[0] = 0.0
    xy[0] = 0.0
    yy[0] = 0.0


def _step(n: Array, x0: Array, y0: Array, sx: Array, sy: Array, xx: Array, xy: Array, yy: Array, y: Any,
          position: int) -> None:
    """Take a point in."""
    if n[0] == 0:
        x0[0] = position
        y0[0] = y
    dx = position - x0[0]
    dy = y - y0[0]
    n[0] += 1
    sx[0] += dx
    sy[0] += dy
    xx[0] += dx * dx
    xy[0] += dx * dy
    yy[0] += dy * dy


def _merge(n: Array, x0: Array, y0: Array, sx: Array, sy: Array, xx: Array, xy: Array, yy: Array, n2: Array,
           x2: Array, y2: Array, sx2: Array, sy2: Array, xx2: Array, xy2: Array, yy2: Array) -> None:
    """Take the later points in, about this state's first point."""
    if n2[0] == 0:
        return
    if n[0] == 0:
        x0[0] = x2[0]
        y0[0] = y2[0]
    dx = x2[0] - x0[0]
    dy = y2[0] - y0[0]
    n[0] += n2[0]
    xx[0] += xx2[0] + 2.0 * dx * sx2[0] + n2[0] * dx * dx
    xy[0] += xy2[0] + dx * sy2[0] + dy * sx2[0] + n2[0] * dx * dy
    yy[0] += yy2[0] + 2.0 * dy * sy2[0] + n2[0] * dy * dy
    sx[0] += sx2[0] + n2[0] * dx
    sy[0] += sy2[0] + n2[0] * dy


def _final(n: Array, x0: Array, y0: Array, sx: Array, sy: Array, xx: Array, xy: Array, yy: Array, slope: Array,
           level: Array, r: Array, stderr: Array, p: Array) -> None:
    """The line and its test."""
    slope[0] = math.nan
    level[0] = math.nan
    r[0] = math.nan
    stderr[0] = math.nan
    p[0] = math.nan
    if n[0] < 2:
        return
    size = float(n[0])
    sxx = xx[0] - sx[0] * sx[0] / size
    sxy = xy[0] - sx[0] * sy[0] / size
    syy = max(yy[0] - sy[0] * sy[0] / size, 0.0)
    slope[0] = sxy / sxx
    level[0] = y0[0] + sy[0] / size - slope[0] * (x0[0] + sx[0] / size)
    if syy > 0.0:
        r[0] = min(max(sxy / math.sqrt(sxx * syy), -1.0), 1.0)
    if n[0] > 2:
        freedom = size - 2.0
        rest = max(syy - slope[0] * sxy, 0.0)
        stderr[0] = math.sqrt(rest / freedom / sxx)
        p[0] = 1.0
        if slope[0] != 0.0:
            explained = slope[0] * sxy
            p[0] = _beta_share(0.5 * freedom, 0.5, rest / (rest + explained))


@njit(nogil=True)
def _beta_share(a: float, b: float, x: float) -> float:
    """Regularised incomplete beta function, by Lentz' continued fraction; relative error about 1e-14.

    Source: Press et al., Numerical Recipes (2007), section 6.4.
    """
    if x <= 0.0 or x >= 1.0:
        return 0.0 if x <= 0.0 else 1.0
    if x > (a + 1.0) / (a + b + 2.0):
        return 1.0 - _beta_fraction(b, a, 1.0 - x)
    return _beta_fraction(a, b, x)


@njit(nogil=True)
def _beta_fraction(a: float, b: float, x: float) -> float:
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    c = 1.0
    d = 1.0 / (1.0 - (a + b) * x / (a + 1.0))
    h = d
    for m in range(1, 1000):
        odd = m * (b - m) * x / ((a + 2 * m - 1.0) * (a + 2 * m))
        d = 1.0 / (1.0 + odd * d)
        c = 1.0 + odd / c
        h *= d * c
        even = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1.0))
        d = 1.0 / (1.0 + even * d)
        c = 1.0 + even / c
        h *= d * c
        if abs(d * c - 1.0) < 1e-16:
            break
    return front * h / a
