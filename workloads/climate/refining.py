"""Exact quantiles by refinement: each pass over the data narrows down in which of some equal parts the value lies.

A float's bits, ordered, are an unsigned whole number, its key. The first pass counts the keys of each cell by their
leading bits and finds the part that holds the wanted rank; each pass after it looks at the next bits within that part.
After the last one the key is known, and so is the next greater one; between the two NumPy's method "linear"
interpolates. So a pass keeps a few counters a cell, whatever the length of the data, and any stored chunks will do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import gridcompute as grid
from gridcompute.columns import Array
from gridcompute.reducer import Output, Reduction, StateField

STATE_BYTES = 256 * 2**20
"""Bytes of counters that a pass may keep for all cells: they decide how many bits it looks at."""

BITS = (3, 6)
"""Fewest and most bits that a pass looks at: with more, a cell's counters leave the fastest cache, and take longer."""

EXTRA = 3
"""Counters beside those of the steps."""

SIGN, ONES = np.uint64(1 << 63), np.uint64(0xFFFFFFFFFFFFFFFF)
SIGN_32, ONES_32 = np.uint64(1 << 31), np.uint64(0xFFFFFFFF)


@grid.kernel("(),()->()", names=("place",))
def single_place(x, part, before, shift):  # type: ignore[no-untyped-def]  # numba infers the types
    """Where a float32 lies: 0: missing; 1: before the part; else 2 + how many steps from the part's start on."""
    if x != x:
        return np.uint32(0)
    bits = np.uint64(np.float32(x).view(np.uint32))
    key = bits | SIGN_32 if bits < SIGN_32 else ONES_32 - bits
    low = np.uint64(part) << np.uint64(before)
    return np.uint32(1) if key < low else np.uint32(((key - low) >> np.uint64(shift)) + np.uint64(2))


@grid.kernel("(),()->()", names=("place",))
def double_place(x, part, before, shift):  # type: ignore[no-untyped-def]
    """As `single_place`, of a float64."""
    if x != x:
        return np.uint64(0)
    bits = np.float64(x).view(np.uint64)
    key = bits | SIGN if bits < SIGN else ONES - bits
    low = np.uint64(part) << np.uint64(before)
    return np.uint64(1) if key < low else ((key - low) >> np.uint64(shift)) + np.uint64(2)


@grid.kernel("()->()", names=("place",))
def single_start(x, shift):  # type: ignore[no-untyped-def]
    """As `single_place` for the part that is everything."""
    if x != x:
        return np.uint32(0)
    bits = np.uint64(np.float32(x).view(np.uint32))
    key = bits | SIGN_32 if bits < SIGN_32 else ONES_32 - bits
    return np.uint32((key >> np.uint64(shift)) + np.uint64(2))


@grid.kernel("()->()", names=("place",))
def double_start(x, shift):  # type: ignore[no-untyped-def]
    """As `double_place` for the part that is everything."""
    if x != x:
        return np.uint64(0)
    bits = np.float64(x).view(np.uint64)
    key = bits | SIGN if bits < SIGN else ONES - bits
    return (key >> np.uint64(shift)) + np.uint64(2)


@grid.kernel("(),()->()", names=("part",), parallel=8)
def narrowed(part, place, bits):  # type: ignore[no-untyped-def]
    """The part's number among those of the next pass."""
    return (np.uint64(part) << np.uint64(bits)) | np.uint64(place)


@grid.kernel("(),(),(),()->(quantile)", sizes={"quantile": 1}, names=("value",), parallel=8)
def between(part, place, follow, count, q, bits, single):  # type: ignore[no-untyped-def]
    """The quantile of the order statistics that the last pass found, as `grid.stats.nanquantile` has it."""
    out = np.full(1, np.nan)
    if count == 0:
        return out
    low = np.uint64(part) << np.uint64(bits)
    a = value_of(low + np.uint64(place), single)  # type: ignore[no-untyped-call]
    b = value_of(low + np.uint64(follow), single)  # type: ignore[no-untyped-call]
    spot = (count - 1) * q
    weight = spot - math.floor(spot)
    if weight == 0.0 or a == b:
        out[0] = a
    elif weight >= 0.5:
        out[0] = b - (b - a) * (1.0 - weight)
    else:
        out[0] = a + (b - a) * weight
    return out


def value_of(key, single):  # type: ignore[no-untyped-def]
    """The float of a key, in float64."""
    if single:
        bits = key - SIGN_32 if key >= SIGN_32 else ONES_32 - key
        return np.float64(np.uint32(bits).view(np.float32))
    bits = key - SIGN if key >= SIGN else ONES - key
    return np.float64(np.uint64(bits).view(np.float64))


def _init(n: Array, least: Array, q: Array) -> None:
    for i in range(len(n)):
        n[i] = 0
    least[0] = ONES


def _step(n: Array, least: Array, place: Any, q: Array) -> None:
    # No branches, which would be foretold wrongly: what lies beyond the part has the last counter, and is told from
    # what doesn't by going below zero, round to the greatest numbers.
    last = np.uint64(len(n) - 1)
    at = np.uint64(place)
    n[np.int64(at if at < last else last)] += 1
    beyond = at - last
    least[0] = beyond if beyond < least[0] else least[0]


def _merge(n: Array, least: Array, n2: Array, least2: Array, q: Array) -> None:
    for i in range(len(n)):
        n[i] += n2[i]
    least[0] = least2[0] if least2[0] < least[0] else least[0]


def _final(n: Array, least: Array, step: Array, follow: Array, count: Array, q: Array) -> None:
    total = np.int64(0)
    for i in range(1, len(n)):
        total += np.int64(n[i])
    count[0] = total
    if total == 0:
        return
    rank = np.int64(math.floor((total - 1) * q[0]))
    upto = np.int64(n[1])
    i = 2
    while upto + np.int64(n[i]) <= rank:
        upto += np.int64(n[i])
        i += 1
    step[0] = i - 2
    upto += np.int64(n[i])
    # The next order statistic: of the same step, of a later one, beyond the part, or there is none.
    last = len(n) - 1
    if upto == rank + 1 and rank + 1 < total:
        i += 1
        while i < last and n[i] == 0:
            i += 1
    follow[0] = np.uint64(i - 2) + (least[0] if i == last else np.uint64(0))


def ranked(q: float, steps: int, counter: str) -> Reduction:
    """Finds the step that holds a quantile's lower order statistic, and the step of the next one.

    Args:
        q: 0 to 1.
        steps: equal steps of the part that is looked at; values are places, as `single_place` gives them.
        counter: dtype that holds the most values a cell.
    """
    # Missing values, those before the part, those of each step, and those beyond; and how far the least of these is.
    state = (StateField("n", counter, steps + EXTRA), StateField("least", "u8"))
    outputs = (Output("step", "u4"), Output("follow", "u8"), Output("count", "i8"))
    return Reduction("rank", state, _init, _step, _merge, _final, outputs, params=((float(q),),), kinds="u")


@dataclass(frozen=True)
class Passes:
    """How a refinement goes over the data.

    Attributes:
        count: number of passes.
        bits: that each looks at, leading ones first.
        counter: dtype of the counters.
        single: whether keys are those of float32.
        state_bytes: of a pass for all cells.
    """

    count: int
    bits: int
    counter: str
    single: bool
    state_bytes: int

    @classmethod
    def of(cls, data: grid.Collection, levels: int, dims: Sequence[str]) -> Passes:
        """Few passes whose counters take no more than `STATE_BYTES`, if they can.

        Args:
            data: one column of floats.
            levels: number of quantiles.
            dims: reduced dimensions.
        """
        field = data.fields[0]
        single = field.dtype.itemsize <= 4
        lengths = [data.space[dim] for dim in dims]
        positions = 2**63 if None in lengths else math.prod(n or 1 for n in lengths)
        cells = math.prod(data.space[dim] or 1 for dim in field.dims if dim not in dims)
        counter = "u2" if positions < 2**16 else "u4" if positions < 2**32 else "i8"
        size = np.dtype(counter).itemsize
        steps = (STATE_BYTES / (cells * levels) - 8) / size - EXTRA
        most = min(max(int(math.log2(max(steps, 1))), BITS[0]), BITS[1])
        width = 32 if single else 64
        count = -(-width // most)
        bits = -(-width // count)  # the same for all, so that one loop is compiled; zeros may lead the first one's
        return cls(count, bits, counter, single, cells * levels * (size * ((1 << bits) + EXTRA) + 8))


def refined(data: grid.Collection, q: Sequence[float], dims: Sequence[str], passes: Passes) -> grid.Collection:
    """Exact quantiles of one column of floats over some dimensions, along the new dimension "quantile", in float64.

    Args:
        data: one column of float32 or float64.
        q: levels, 0 to 1.
        dims: reduced dimensions.
        passes: how to go over the data.
    """
    field, single, bits = data.fields[0], passes.single, passes.bits
    place, start = (single_place, single_start) if single else (double_place, double_start)
    found = []
    for level in q:
        part: grid.Collection | None = None
        for left in range(passes.count * bits, 0, -bits):
            shift = left - bits
            places = data.map(start, shift=shift) if part is None else data.map(place, part, before=left, shift=shift)
            rank = places.reduce(ranked(level, 1 << bits, passes.counter), dims)
            step, last = rank["place_step"], part
            part = step if part is None else part.map(narrowed, step, bits=bits)
        assert last is not None
        found.append(last.map(between, step, rank["place_follow"], rank["place_count"], q=float(level), bits=bits,
                              single=single))
    joined = grid.concat(found, "quantile") if len(found) > 1 else found[0]
    return joined.rename(value=field.name)
