"""Functions of one cell for least-squares lines: centred sums in one pass (see `reductions.linregress`).

State, outs and params are one-dimensional arrays; numba compiles these, and they run as plain Python too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gridcompute.columns import Array


def init(n: Array, mx: Array, my: Array, xx: Array, xy: Array) -> None:
    """No point yet: count, means and centred sums of squares and products are 0."""
    n[0] = 0
    mx[0] = 0.0
    my[0] = 0.0
    xx[0] = 0.0
    xy[0] = 0.0


def step(n: Array, mx: Array, my: Array, xx: Array, xy: Array, y: Any, position: int) -> None:
    """Take a point in."""
    n[0] += 1
    dx = position - mx[0]
    mx[0] += dx / n[0]
    my[0] += (y - my[0]) / n[0]
    xx[0] += dx * (position - mx[0])
    xy[0] += dx * (y - my[0])


def merge(n: Array, mx: Array, my: Array, xx: Array, xy: Array,
               n2: Array, mx2: Array, my2: Array, xx2: Array, xy2: Array) -> None:
    """Take the later points in."""
    if n2[0] == 0:
        return
    if n[0] == 0:
        n[0] = n2[0]
        mx[0] = mx2[0]
        my[0] = my2[0]
        xx[0] = xx2[0]
        xy[0] = xy2[0]
        return
    share = n2[0] / (n[0] + n2[0])
    dx = mx2[0] - mx[0]
    dy = my2[0] - my[0]
    xx[0] += xx2[0] + dx * dx * (n[0] * share)
    xy[0] += xy2[0] + dx * dy * (n[0] * share)
    mx[0] += dx * share
    my[0] += dy * share
    n[0] += n2[0]


def final(n: Array, mx: Array, my: Array, xx: Array, xy: Array,
               slope: Array, level: Array, slope_ok: Array, level_ok: Array) -> None:
    """Slope and value at position 0; missing for fewer than two points."""
    if n[0] < 2:
        slope_ok[0] = False
        level_ok[0] = False
    else:
        slope[0] = xy[0] / xx[0]
        level[0] = my[0] - slope[0] * mx[0]


def general(tested: bool) -> tuple[Callable[..., None], ...]:
    """init, step, merge and final with y's own squares; x is looked up in `xs`, or the position where that is empty."""
    def init(n: Array, mx: Array, my: Array, xx: Array, xy: Array, yy: Array, xs: Array) -> None:
        n[0] = 0
        mx[0] = 0.0
        my[0] = 0.0
        xx[0] = 0.0
        xy[0] = 0.0
        yy[0] = 0.0

    def step(n: Array, mx: Array, my: Array, xx: Array, xy: Array, yy: Array, y: Any, position: int, xs: Array) -> None:
        x = xs[position] if len(xs) > 0 else np.float64(position)
        n[0] += 1
        dx = x - mx[0]
        dy = y - my[0]
        mx[0] += dx / n[0]
        my[0] += dy / n[0]
        xx[0] += dx * (x - mx[0])
        xy[0] += dx * (y - my[0])
        yy[0] += dy * (y - my[0])

    def merge(n: Array, mx: Array, my: Array, xx: Array, xy: Array, yy: Array,
              n2: Array, mx2: Array, my2: Array, xx2: Array, xy2: Array, yy2: Array, xs: Array) -> None:
        if n2[0] == 0:
            return
        share = n2[0] / (n[0] + n2[0])
        dx = mx2[0] - mx[0]
        dy = my2[0] - my[0]
        xx[0] += xx2[0] + dx * dx * (n[0] * share)
        xy[0] += xy2[0] + dx * dy * (n[0] * share)
        yy[0] += yy2[0] + dy * dy * (n[0] * share)
        mx[0] += dx * share
        my[0] += dy * share
        n[0] += n2[0]

    def fitted(n: Array, mx: Array, my: Array, xx: Array, xy: Array, yy: Array,
               slope: Array, level: Array, slope_ok: Array, level_ok: Array, xs: Array) -> None:
        final(n, mx, my, xx, xy, slope, level, slope_ok, level_ok)

    def assessed(n: Array, mx: Array, my: Array, xx: Array, xy: Array, yy: Array,
                 slope: Array, level: Array, r: Array, error: Array, count: Array,
                 slope_ok: Array, level_ok: Array, r_ok: Array, error_ok: Array, count_ok: Array, xs: Array) -> None:
        final(n, mx, my, xx, xy, slope, level, slope_ok, level_ok)
        count[0] = n[0]
        r_ok[0] = n[0] >= 2
        error_ok[0] = n[0] >= 3
        corr = xy[0] / (np.sqrt(xx[0]) * np.sqrt(yy[0]))
        r[0] = 1.0 if corr > 1.0 else (-1.0 if corr < -1.0 else corr)
        rest = yy[0] - xy[0] * (xy[0] / xx[0])
        # Rounding may leave less than nothing of a perfect line.
        error[0] = np.sqrt((rest if not rest < 0.0 else 0.0) / (n[0] - 2) / xx[0])

    return init, step, merge, assessed if tested else fitted
