"""All that vectors of a kind can do, in one function; run as a program it is compared for a processor of that name."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numba as nb
import numpy as np

from gridcompute.vectors import KINDS, Kind
from gridcompute.vectors.lanes import half

ROWS = 24
"""Results of an element's size that `everything` writes, one below the other."""


def everything(kind: Kind) -> Callable[..., Any]:
    """A function of three arrays of a kind's lanes, of one to write to, and of an integer."""
    n, halves = kind.lanes, half(kind)
    wider = KINDS.get(f"{kind.dtype.kind}{kind.dtype.itemsize * 16}x{n // 2}", halves)
    other = KINDS[f"{'u' if kind.dtype.kind == 'i' else 'i'}{kind.dtype.itemsize * 8}x{n}"]

    def found(a, b, c, out, number):  # type: ignore[no-untyped-def]
        x, y, z = kind.load(a, 0), kind.load(b, 0), kind.load(c, 0)
        (x + y).store(out, 0)
        (x - y).store(out, n)
        (x * y).store(out, 2 * n)
        (x & y).store(out, 3 * n)
        (x | y).store(out, 4 * n)
        (x ^ y).store(out, 5 * n)
        (~x).store(out, 6 * n)
        (x << y).store(out, 7 * n)
        (x >> y).store(out, 8 * n)
        x.max(y).store(out, 9 * n)
        x.min(y).store(out, 10 * n)
        x.add_saturated(y).store(out, 11 * n)
        x.sub_saturated(y).store(out, 12 * n)
        x.permute(y).store(out, 13 * n)
        kind.splat(number).store(out, 14 * n)
        kind.ramp().store(out, 15 * n)
        kind.join(x.high(), y.low()).store(out, 16 * n)
        ((x < y) & (y >= z)).select(x, z).store(out, 17 * n)
        ((x == y) | (x > z)).select(x, y).store(out, 18 * n)
        (~(x != y) ^ (x <= z)).select(z, y).store(out, 19 * n)
        kind.of(other.of(x)).store(out, 20 * n)
        halves.of(wider.of(x.low()) + wider.of(y.high())).store(out, 21 * n)
        kind.splat(x.lane(number)).store(out, 22 * n)
        w, m = x, x < z
        w += y
        w ^= z
        w <<= y
        m &= y != z
        m.select(w, y).store(out, 23 * n)
        return (x == y).any(), (x == y).all(), (x <= y).any(), (x <= y).all(), (x < y).bits()

    return found


def inputs(kind: Kind, seed: int) -> list[Any]:
    """Three arrays with a good many extremes and equals."""
    draw = np.random.default_rng(seed)
    span = np.iinfo(kind.dtype)
    edges = np.array([span.min, span.min + 1, 0, 1, span.max - 1, span.max, kind.lanes], kind.dtype)
    found = []
    for _ in range(3):
        values = draw.integers(span.min, span.max, kind.lanes, kind.dtype, endpoint=True)
        found.append(np.where(draw.random(kind.lanes) < 0.4, draw.choice(edges, kind.lanes), values))
    return found if seed % 5 else [found[0], found[0].copy(), found[2]]


def results(function: Callable[..., Any], kind: Kind, arrays: list[Any], number: int) -> tuple[Any, Any]:
    """What `everything` writes, and what it gives."""
    out = np.zeros(ROWS * kind.lanes, kind.dtype)
    given = function(*arrays, out, number)
    return out.reshape(ROWS, kind.lanes), given


def main(names: list[str]) -> None:
    """Compare kinds as they are compiled here."""
    for name in names:
        kind = KINDS[name]
        plain = everything(kind)
        compiled = nb.njit(plain)
        for seed in range(50):
            same(compiled, plain, kind, inputs(kind, seed), seed * 37 - 500)
    print("equal:", *names)


def same(compiled: Callable[..., Any], plain: Callable[..., Any], kind: Kind, arrays: list[Any], number: int) -> None:
    """Require that both do the same."""
    ours, theirs = (results(one, kind, arrays, number) for one in (compiled, plain))
    assert ours[1] == theirs[1], (kind, arrays, ours[1], theirs[1])
    differ = np.flatnonzero((ours[0] != theirs[0]).any(axis=1))
    assert not len(differ), f"{kind}: rows {differ} of {arrays}"


if __name__ == "__main__":
    main(sys.argv[1:])
