"""Functions of one cell for least-squares lines: sums about the first point, in one pass (see `reductions.linregress`).

State, outs and params are one-dimensional arrays; numba compiles these, and they run as plain Python too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from gridcompute.columns import Array


def line(given: bool) -> tuple[Callable[..., None], ...]:
    """init, step, merge and final of a line; x is looked up in `xs` where it is given, else it is the position."""
    def init(n: Array, x0: Array, y0: Array, sx: Array, sy: Array, xx: Array, xy: Array, xs: Array) -> None:
        n[0] = 0
        x0[0] = np.nan  # no point yet
        y0[0] = 0.0
        sx[0] = 0.0
        sy[0] = 0.0
        xx[0] = 0.0
        xy[0] = 0.0

    def step(x0: Array, y0: Array, sx: Array, sy: Array, xx: Array, xy: Array, y: Any, position: int,
             xs: Array) -> None:
        x = xs[position] if given else np.float64(position)
        y0[0] = y if x0[0] != x0[0] else y0[0]
        x0[0] = x if x0[0] != x0[0] else x0[0]
        dx = x - x0[0]
        dy = np.float64(y) - np.float64(y0[0])
        sx[0] += dx
        sy[0] += dy
        xx[0] += dx * dx
        xy[0] += dx * dy

    def merge(n: Array, x0: Array, y0: Array, sx: Array, sy: Array, xx: Array, xy: Array, n2: Array, x2: Array,
              y2: Array, sx2: Array, sy2: Array, xx2: Array, xy2: Array, xs: Array) -> None:
        if n2[0] == 0:
            return
        if n[0] == 0:
            x0[0] = x2[0]
            y0[0] = y2[0]
        dx = x2[0] - x0[0]
        dy = np.float64(y2[0]) - np.float64(y0[0])
        xx[0] += xx2[0] + dx * (2.0 * sx2[0] + n2[0] * dx)
        xy[0] += xy2[0] + dx * sy2[0] + dy * (sx2[0] + n2[0] * dx)
        sx[0] += sx2[0] + n2[0] * dx
        sy[0] += sy2[0] + n2[0] * dy
        n[0] += n2[0]

    def final(n: Array, x0: Array, y0: Array, sx: Array, sy: Array, xx: Array, xy: Array, slope: Array, level: Array,
              slope_ok: Array, level_ok: Array, xs: Array) -> None:
        if n[0] < 2:
            slope_ok[0] = False
            level_ok[0] = False
            return
        mean = sx[0] / n[0]
        slope[0] = (xy[0] - mean * sy[0]) / (xx[0] - mean * sx[0])
        level[0] = y0[0] + sy[0] / n[0] - slope[0] * (x0[0] + mean)

    return init, step, merge, final


def tested_line(given: bool) -> tuple[Callable[..., None], ...]:
    """The same with the sum of y's squares, and what a test of the slope needs."""
    line_init, line_step, line_merge, line_final = line(given)

    def init(n: Array, x0: Array, y0: Array, sx: Array, sy: Array, xx: Array, xy: Array, yy: Array, xs: Array) -> None:
        line_init(n, x0, y0, sx, sy, xx, xy, xs)
        yy[0] = 0.0

    def step(x0: Array, y0: Array, sx: Array, sy: Array, xx: Array, xy: Array, yy: Array, y: Any, position: int,
             xs: Array) -> None:
        line_step(x0, y0, sx, sy, xx, xy, y, position, xs)
        dy = np.float64(y) - np.float64(y0[0])
        yy[0] += dy * dy

    def merge(n: Array, x0: Array, y0: Array, sx: Array, sy: Array, xx: Array, xy: Array, yy: Array, n2: Array,
              x2: Array, y2: Array, sx2: Array, sy2: Array, xx2: Array, xy2: Array, yy2: Array, xs: Array) -> None:
        line_merge(n, x0, y0, sx, sy, xx, xy, n2, x2, y2, sx2, sy2, xx2, xy2, xs)
        if n2[0] > 0:
            dy = np.float64(y2[0]) - np.float64(y0[0])
            yy[0] += yy2[0] + dy * (2.0 * sy2[0] + n2[0] * dy)

    def final(n: Array, x0: Array, y0: Array, sx: Array, sy: Array, xx: Array, xy: Array, yy: Array,
              slope: Array, level: Array, r: Array, error: Array, p: Array, count: Array, slope_ok: Array,
              level_ok: Array, r_ok: Array, error_ok: Array, p_ok: Array, count_ok: Array, xs: Array) -> None:
        line_final(n, x0, y0, sx, sy, xx, xy, slope, level, slope_ok, level_ok, xs)
        count[0] = n[0]
        r_ok[0] = n[0] >= 2
        error_ok[0] = n[0] >= 3
        p_ok[0] = n[0] >= 3
        if n[0] < 2:
            return
        xx[0] -= sx[0] / n[0] * sx[0]
        yy[0] -= sy[0] / n[0] * sy[0]
        explained = slope[0] * (xy[0] - sx[0] / n[0] * sy[0])
        # Rounding may leave less than nothing of constants and of perfect lines.
        rest = yy[0] - explained if not yy[0] < explained else 0.0
        corr = slope[0] * np.sqrt(xx[0]) / np.sqrt(yy[0] if not yy[0] < 0.0 else 0.0)
        r[0] = 1.0 if corr > 1.0 else (-1.0 if corr < -1.0 else corr)
        if n[0] > 2:
            error[0] = np.sqrt(rest / (n[0] - 2) / xx[0])
            p[0] = _slope_test(explained, rest, n[0] - 2)

    return init, step, merge, final


@njit(nogil=True)
def _slope_test(explained: float, rest: float, freedom: int) -> float:
    """P of the two-sided t test of a slope, from the sums of squares that the line explains and leaves.

    It is the regularised incomplete beta function of freedom / 2, 1 / 2 and the share that is left. NaN for NaN.
    """
    if explained == 0.0:
        return 1.0
    a, left, share = 0.5 * freedom, rest / (rest + explained), explained / (rest + explained)
    if not left > 0.0:
        return left
    power = a * (math.log(left) if left < 0.5 else math.log1p(-share))
    front = _gamma_ratio(a) * math.sqrt(share / math.pi) * math.exp(power)
    if left > (a + 1.0) / (a + 2.5):
        return 1.0 - front * _beta_fraction(0.5, a, share) / 0.5
    return front * _beta_fraction(a, 0.5, left) / a


@njit(nogil=True)
def _gamma_ratio(a: float) -> float:
    """Gamma(a + 1/2) / Gamma(a), by recurrence to where its asymptotic series is exact to rounding."""
    ratio = 1.0
    while a < 32.0:
        ratio *= a / (a + 0.5)
        a += 1.0
    u = 0.125 / a
    series = 1 + u * (-1 + u * (0.5 + u * (2.5 + u * (-2.625 + u * (-49.875 + u * (54.3125 + u * 2457.8125))))))
    return ratio * math.sqrt(a) * series


@njit(nogil=True)
def _beta_fraction(a: float, b: float, x: float) -> float:
    """The continued fraction of the incomplete beta function, by Lentz' method.

    Source: Press et al., Numerical Recipes (2007), section 6.4.
    """
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
    return h
