"""Which input region an output region reads. Frozen values: `inputs` and its inverse `consumers`.

Planning, release order and tokens all follow from these; an op's `compute` may read no more than its access
says (the worker checks). Regions are boxes, so `consumers` may name more than really read, never less.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

import numpy as np

from gridcompute.axes import SPREAD
from gridcompute.columns import Array
from gridcompute.spaces import Region, Space

MOST_RUNS = 64
"""Intervals that a take of one chunk reads at most."""

PIECE = 2**14
"""Positions of a take that are looked through at a time."""

Boundary = Literal["clip", "periodic", "fill"]
Bounds = dict[str, tuple[int, int]]


class Access(Protocol):
    """What every access answers; `out` and `into` are the dimensions of the output and of the input."""

    def inputs(self, region: Region, out: Space, into: Region, names: tuple[str, ...]) -> tuple[Region, ...]:
        """Regions of the input that an output region reads.

        Args:
            region: the output region.
            out: the output's space.
            into: the input's whole region.
            names: the input's dimensions.
        """
        ...

    def consumers(self, region: Region, names: tuple[str, ...], out: Space, whole: Region) -> Region:
        """The output region that may read a region of the input.

        Args:
            region: the input region.
            names: the input's dimensions.
            out: the output's space.
            whole: the output's whole region.
        """
        ...


def _by_name(region: Region, names: tuple[str, ...]) -> Bounds:
    return dict(zip(names, region.bounds, strict=True))


@dataclass(frozen=True)
class Whole:
    """Dimensions that both have are read position by position, those named here (or only the input has) as a whole.

    Attributes:
        dims: dimensions read as a whole, with the lengths that the values depend on.
    """

    dims: tuple[tuple[str, int | None], ...] = ()

    def inputs(self, region: Region, out: Space, into: Region, names: tuple[str, ...]) -> tuple[Region, ...]:
        """See `Access`."""
        where, whole = _by_name(region, out.names), {name for name, _ in self.dims}
        return (Region(tuple(where[name] if name in where and name not in whole else full
                             for name, full in zip(names, into.bounds, strict=True))),)

    def consumers(self, region: Region, names: tuple[str, ...], out: Space, whole: Region) -> Region:
        """See `Access`."""
        where, read = _by_name(region, names), {name for name, _ in self.dims}
        return Region(tuple(where[name] if name in where and name not in read else full
                            for name, full in zip(out.names, whole.bounds, strict=True)))


Point = Whole()
"""Each output position reads the same position of its input."""


@dataclass(frozen=True)
class Slice:
    """Output position i along `dim` reads input position `start + i * step`; `keep` False drops the dimension."""

    dim: str
    start: int
    step: int = 1
    keep: bool = True

    def inputs(self, region: Region, out: Space, into: Region, names: tuple[str, ...]) -> tuple[Region, ...]:
        """See `Access`."""
        where = _by_name(region, out.names)
        lo, hi = where[self.dim] if self.keep else (0, 1)
        ends = (self.start + lo * self.step, self.start + (hi - 1) * self.step)
        where[self.dim] = (min(ends), max(ends) + 1) if hi > lo else (0, 0)
        return (Region(tuple(where[name] for name in names)),)

    def consumers(self, region: Region, names: tuple[str, ...], out: Space, whole: Region) -> Region:
        """See `Access`."""
        where, full = _by_name(region, names), _by_name(whole, out.names)
        lo, hi = where.pop(self.dim)
        if self.keep:
            first, last = (lo - self.start) / self.step, (hi - 1 - self.start) / self.step
            a, b = max(0, int(np.ceil(min(first, last)))), int(np.floor(max(first, last))) + 1
            where[self.dim] = (a, max(a, min(b, full[self.dim][1])))
        elif not lo <= self.start < hi:
            return Region(tuple((0, 0) for _ in out.names))
        return Region(tuple(where[name] for name in out.names))


@dataclass(frozen=True, eq=False)
class Take:
    """Output position i along `dim` reads input position `index[i]` (int64, known when the graph is built)."""

    dim: str
    index: Array

    @property
    def key(self) -> tuple[object, ...]:
        """What enters the recipe."""
        return ("take", self.dim, self.index)

    def inputs(self, region: Region, out: Space, into: Region, names: tuple[str, ...]) -> tuple[Region, ...]:
        """See `Access`: a box for each of `runs`."""
        where = _by_name(region, out.names)
        return tuple(Region(tuple(run if name == self.dim else where[name] for name in names))
                     for run in self.runs(*where[self.dim]))

    def runs(self, lo: int, hi: int) -> list[tuple[int, int]]:
        """Intervals, in order, in which the input positions of the output positions lo to hi lie.

        One where they fill half of it at least, else they are parted where much lies between them.
        """
        if (lo, hi) not in self._runs:
            part = self.index[lo:hi]
            first, last = (int(part.min()), int(part.max())) if len(part) else (0, -1)
            cuts = np.zeros((2, 0), np.int64)
            if last + 1 - first > 2 * len(part):
                positions = np.unique(part)
                apart = np.flatnonzero(np.diff(positions) > max(1, (last - first) // MOST_RUNS))
                cuts = np.stack([positions[apart] + 1, positions[apart + 1]])
            ends = zip([first, *cuts[1].tolist()], [*cuts[0].tolist(), last + 1], strict=True)
            self._runs[lo, hi] = list(ends)
        return self._runs[lo, hi]

    @cached_property
    def _runs(self) -> dict[tuple[int, int], list[tuple[int, int]]]:
        """Runs by output positions: each chunk asks for its own several times."""
        return {}

    @cached_property
    def scattered(self) -> bool:
        """Whether chunks of the output, as many as small data is cut into, read the same positions again and again."""
        starts = np.arange(0, len(self.index), -(-len(self.index) // SPREAD) or 1)
        if len(starts) < 2:
            return False
        spans = np.maximum.reduceat(self.index, starts) - np.minimum.reduceat(self.index, starts) + 1
        return bool(spans.sum() > 2 * (self.index.max() - self.index.min() + 1))

    def consumers(self, region: Region, names: tuple[str, ...], out: Space, whole: Region) -> Region:
        """See `Access`."""
        where = _by_name(region, names)
        values, places = self._inverse
        hits = places[slice(*np.searchsorted(values, where[self.dim]))]
        # What lies between two positions may be read with them, see `runs`: by all that have positions on either side.
        ends = [*self._across(*where[self.dim]), *([int(hits.min()), int(hits.max()) + 1] if len(hits) else [])]
        where[self.dim] = (min(ends), max(ends)) if ends else (0, 0)
        return Region(tuple(where[name] for name in out.names))

    def _across(self, lo: int, hi: int) -> list[int]:
        """The first and last-plus-one of neighbouring output positions between which the input's lo to hi lies."""
        found = []
        starts = range(0, len(self.index) - 1, PIECE)
        for order, which in ((starts, 0), (reversed(starts), -1)):
            for at in order:
                least, most = self._spans[:, at // PIECE]
                if least >= lo or most < hi:
                    continue
                part = self.index[at: at + PIECE + 1]
                jumps = np.flatnonzero((np.minimum(part[:-1], part[1:]) < lo) & (np.maximum(part[:-1], part[1:]) >= hi))
                if len(jumps):
                    found.append(at + int(jumps[which]) - 2 * which)
                    break
        return found

    @cached_property
    def _spans(self) -> Array:
        """The least and the greatest index of each `PIECE` with the position after it: in most nothing is across."""
        parts = [self.index[at: at + PIECE + 1] for at in range(0, len(self.index) - 1, PIECE)]
        return np.array([[part.min() for part in parts], [part.max() for part in parts]], np.int64).reshape(2, -1)

    @cached_property
    def _inverse(self) -> tuple[Array, Array]:
        """The index in order, and the position of each: looking through all of it for every chunk takes minutes."""
        places = np.argsort(self.index, kind="stable")
        return self.index[places], places

    def __getstate__(self) -> dict[str, object]:
        return {"dim": self.dim, "index": self.index}


@dataclass(frozen=True)
class Part:
    """The input is positions `offset` to `offset + length` of the output along `dim` (a concatenation)."""

    dim: str
    offset: int
    length: int

    @property
    def key(self) -> tuple[object, ...]:
        """What enters the recipe: not the place, so that parts before or after may grow."""
        return ("part", self.dim)

    def inputs(self, region: Region, out: Space, into: Region, names: tuple[str, ...]) -> tuple[Region, ...]:
        """See `Access`: nothing where the region lies outside this part."""
        where = _by_name(region, out.names)
        lo, hi = where[self.dim]
        lo, hi = max(lo - self.offset, 0), min(hi - self.offset, self.length)
        if hi <= lo:
            return ()
        where[self.dim] = (lo, hi)
        return (Region(tuple(where[name] for name in names)),)

    def consumers(self, region: Region, names: tuple[str, ...], out: Space, whole: Region) -> Region:
        """See `Access`."""
        where = _by_name(region, names)
        lo, hi = where[self.dim]
        where[self.dim] = (lo + self.offset, hi + self.offset)
        return Region(tuple(where[name] for name in out.names))


@dataclass(frozen=True)
class Halo:
    """Each position reads its neighbours: `dims` gives (dimension, cells before, cells after, length).

    `boundaries` says what lies beyond the ends of each of them. Where that is "periodic", a region at the edge reads
    several boxes, in the order of their unwrapped positions.
    """

    dims: tuple[tuple[str, int, int, int], ...]
    boundaries: tuple[Boundary, ...]

    @property
    def sides(self) -> dict[str, tuple[int, int, Boundary]]:
        """Cells before and after, and the boundary, by dimension."""
        return {name: (before, after, boundary)
                for (name, before, after, _), boundary in zip(self.dims, self.boundaries, strict=True)}

    def inputs(self, region: Region, out: Space, into: Region, names: tuple[str, ...]) -> tuple[Region, ...]:
        """See `Access`."""
        where = _by_name(region, out.names)
        sides, choices = self.sides, []
        for name, (_, length) in zip(names, into.bounds, strict=True):
            lo, hi = where[name]
            before, after, boundary = sides.get(name, (0, 0, "clip"))
            if boundary == "periodic":
                choices.append(wrapped(lo - before, hi + after, length))
            else:
                choices.append([(max(0, lo - before), min(length, hi + after))])
        return tuple(Region(bounds) for bounds in itertools.product(*choices))

    def consumers(self, region: Region, names: tuple[str, ...], out: Space, whole: Region) -> Region:
        """See `Access`: everything along a dimension at whose edge a periodic boundary wraps."""
        where, full = _by_name(region, names), _by_name(whole, out.names)
        for name, (before, after, boundary) in self.sides.items():
            length = full[name][1]  # that of `dims` isn't known while cells are being counted
            lo, hi = where[name][0] - after, where[name][1] + before
            wraps = boundary == "periodic" and (lo < 0 or hi > length)
            where[name] = (0, length) if wraps else (max(0, lo), min(length, hi))
        return Region(tuple(where[name] for name in out.names))


def wrapped(lo: int, hi: int, length: int) -> list[tuple[int, int]]:
    """The pieces of lo..hi modulo length, in order."""
    pieces = []
    while lo < hi:
        start = lo % length
        stop = min(length, start + hi - lo)
        pieces.append((start, stop))
        lo += stop - start
    return pieces


@dataclass(frozen=True)
class Tree:
    """Output position i along `dim` reads input positions from `i * fan` on, `fan` of them; without it, i is 0."""

    dim: str
    fan: int

    def inputs(self, region: Region, out: Space, into: Region, names: tuple[str, ...]) -> tuple[Region, ...]:
        """See `Access`."""
        where, full = _by_name(region, out.names), _by_name(into, names)
        lo, hi = where.get(self.dim, (0, 1))
        where[self.dim] = (lo * self.fan, min(hi * self.fan, full[self.dim][1]))
        return (Region(tuple(where.get(name, full[name]) for name in names)),)

    def consumers(self, region: Region, names: tuple[str, ...], out: Space, whole: Region) -> Region:
        """See `Access`."""
        where, full = _by_name(region, names), _by_name(whole, out.names)
        lo, hi = where[self.dim]
        where[self.dim] = (lo // self.fan, -(-hi // self.fan))
        return Region(tuple(where.get(name, full[name]) for name in out.names))
