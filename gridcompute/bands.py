"""Bands of a space: runs of units that several processes carry, each with what it reads around its own for some steps.

A unit is an index of the space's first dimension. For a round of h steps a band needs, beside its own units, those
that its own depend on up to h steps back: its halo, in layers. A unit of layer j is needed for its own units j steps
later, so with `left` steps to go in the round the layers 0 to `left` are computed, and nothing is computed from what
isn't there. What several bands compute is the same in all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from gridcompute.access import Halo
from gridcompute.columns import Array
from gridcompute.edges import Edges
from gridcompute.shares import Reads, Share, axis_map, member_reads, offsets_of, places_of

Inputs = Callable[[Array], Array]
"""The units that units read, in any step; repeated and in no order."""


@dataclass(frozen=True, eq=False)
class Band:
    """Units that one process carries, and those around them.

    Attributes:
        length: units of the space.
        lo: its first own unit.
        hi: after its last.
        halo: units around its own, by layer.
        layers: how many of the halo are of the layers up to 0, 1, ..., h: int64, h + 1 of them.
    """

    length: int
    lo: int
    hi: int
    halo: Array
    layers: Array

    @property
    def reach(self) -> int:
        """Steps of a round, at most."""
        return len(self.layers) - 1

    def narrowed(self, reach: int) -> Band:
        """The same for shorter rounds."""
        layers = self.layers[: reach + 1]
        return Band(self.length, self.lo, self.hi, self.halo[: layers[-1]], layers)


Tables = Sequence[tuple[Array, Array]]
"""By phase the offsets and indices of what cells read by edges."""


def inputs_of(neighbours: Halo | Edges, first: str, length: int, tables: Tables = ()) -> Inputs:
    """What units read.

    Args:
        neighbours: of each cell.
        first: name of the first dimension.
        length: units.
        tables: of edges.
    """
    if isinstance(neighbours, Edges):
        own = neighbours.active is not None  # beyond the width of a row a cell reads itself

        def rows(units: Array) -> Array:
            found = [_rows(offsets, index, units)[1] for offsets, index in tables]
            return np.concatenate([units if own else units[:0], *found])

        return rows
    if first not in neighbours.sides:
        return lambda units: units[:0]
    before, after, boundary = neighbours.sides[first]
    at, window = axis_map(length, before, after, boundary), np.arange(before + after + 1)

    def windows(units: Array) -> Array:
        found = at[units[:, None] + window].ravel()
        return found[found >= 0]

    return windows


def tables_of(edges: Edges, length: int, steps: int) -> Tables:
    """The tables of edges, each as wide as its widest row of so many steps."""
    return [edges.table(phase, width, length) for phase, width in enumerate(edges.widest(length, steps))]


def _rows(offsets: Array, index: Array, units: Array) -> tuple[Array, Array]:
    """Of some units how many inputs they have, and these; none beyond the table."""
    known = units < len(offsets) - 1
    starts = offsets[np.where(known, units, 0)]
    counts = np.where(known, offsets[np.where(known, units + 1, 0)] - starts, 0)
    skipped = np.cumsum(counts) - counts
    return counts, index[np.repeat(starts - skipped, counts) + np.arange(int(counts.sum()))]


def band_around(inputs: Inputs, length: int, lo: int, hi: int, reach: int) -> Band:
    """The band of some units, for rounds of up to so many steps; of fewer where its halo would have more units than
    itself, so that it fits in memory.

    >>> ring = lambda units: np.concatenate([(units - 1) % 9, (units + 1) % 9])
    >>> made = band_around(ring, 9, 2, 6, 3)
    >>> made.halo.tolist(), made.layers.tolist()
    ([1, 6, 0, 7], [0, 2, 4])
    """
    known = np.zeros(length, bool)
    known[lo:hi] = True
    last, halo, size = np.arange(lo, hi), list[Array](), 0
    while len(halo) < reach:
        near = inputs(last)
        last = np.unique(near[~known[near]])
        size += len(last)
        if halo and size > hi - lo:
            break
        known[last] = True
        halo.append(last)
    layers = np.cumsum([0, *(len(layer) for layer in halo)])
    return Band(length, lo, hi, np.concatenate([last[:0], *halo]), layers)


def cut(length: int, weights: Sequence[int]) -> list[tuple[int, int]]:
    """Runs of units in proportion to the weights, none of them empty: fewer than there are weights for few units.

    >>> cut(10, [1, 3]), cut(2, [1, 1, 1])
    ([(0, 2), (2, 10)], [(0, 1), (1, 2)])
    """
    weights = weights[:length]
    ends = [0]
    for i in range(len(weights)):
        at = round(length * sum(weights[: i + 1]) / sum(weights))
        ends.append(min(max(at, ends[-1] + 1), length - (len(weights) - 1 - i)))
    return list(pairwise(ends))


@dataclass(frozen=True, eq=False)
class Part:
    """A band, and what it exchanges before each round.

    Attributes:
        band: the units.
        gives: per band that reads some of its own units: which band, and the units.
        takes: per band that owns some of its halo: which band, and the units.
    """

    band: Band
    gives: tuple[tuple[int, Array], ...]
    takes: tuple[tuple[int, Array], ...]


def parts_of(bands: Sequence[Band]) -> list[Part]:
    """The parts of bands that are the whole space together."""
    takes = [tuple((other, found) for other, by in enumerate(bands)
                   if len(found := band.halo[(band.halo >= by.lo) & (band.halo < by.hi)])) for band in bands]
    return [Part(band, tuple((reader, units) for reader, taken in enumerate(takes) for other, units in taken
                             if other == me), takes[me]) for me, band in enumerate(bands)]


@dataclass(frozen=True, eq=False)
class Deal:
    """A band's units numbered so that each member of its gang has a run of numbers, its own first, then by layer.

    Attributes:
        band: whose.
        units: by number.
        cuts: where each member's numbers begin, and the end.
        owns: how many of a member's numbers are the band's own units.
        counts: how many of a member's numbers are computed with so many steps left: int64, (members, h).
    """

    band: Band
    units: Array
    cuts: tuple[int, ...]
    owns: tuple[int, ...]
    counts: Array

    def numbers(self, units: Array) -> Array:
        """The numbers of some of its units."""
        order = np.argsort(self.units)
        return order[np.searchsorted(self.units, units, sorter=order)]

    def computed(self, member: int) -> Array:
        """The units of a member that are computed in some step; those of the outermost layer are only read."""
        found: Array = self.units[self.cuts[member]: self.cuts[member + 1]][: self.counts[member, -1]]
        return found


def deal(band: Band, members: int) -> Deal:
    """Deal a band's units: its own in runs, the halo one by one.

    >>> made = deal(Band(8, 2, 5, np.array([1, 5, 0, 6]), np.array([0, 2, 4])), 2)
    >>> made.units.tolist(), made.cuts, made.counts.tolist()
    ([2, 1, 0, 3, 4, 5, 6], (0, 3, 7), [[1, 2], [2, 3]])
    """
    members = min(members, band.hi - band.lo)
    runs = [range(band.lo + (band.hi - band.lo) * m // members, band.lo + (band.hi - band.lo) * (m + 1) // members)
            for m in range(members)]
    dealt = [np.concatenate([np.array(run, np.int64), band.halo[m::members]]) for m, run in enumerate(runs)]
    counts = [[len(run) + len(range(m, int(band.layers[left]), members)) for left in range(max(1, band.reach))]
              for m, run in enumerate(runs)]
    cuts = np.cumsum([0, *(len(one) for one in dealt)])
    return Deal(band, np.concatenate(dealt), tuple(int(one) for one in cuts), tuple(len(run) for run in runs),
                np.array(counts, np.int64))


def edge_tables(tables: Tables, given: Deal, found: Sequence[Share], *, leading: bool) -> list[Reads]:
    """As `gridcompute.shares.edge_reads`, for a band; `leading` as in `member_reads`."""
    by_phase = []
    for offsets, index in tables:
        counts, inputs = np.zeros(len(given.units), np.int64), []
        for member, lo in enumerate(given.cuts[:-1]):
            units = given.computed(member)
            counts[lo: lo + len(units)], values = _rows(offsets, index, units)
            inputs.append(values)
        by_phase.append((offsets_of(counts), given.numbers(np.concatenate(inputs))))
    places = places_of(found)
    return [member_reads(by_phase, places, share, leading=leading) for share in found]


def window_tables(before: int, after: int, boundary: str, given: Deal,
                  found: Sequence[Share]) -> tuple[list[Reads], list[Array]]:
    """Per member what it awaits, and the places that the windows of its units read along the first dimension.

    These are int64, (units, before + after + 1); -1 where it is the fill value.
    """
    at, window = axis_map(given.band.length, before, after, boundary), np.arange(before + after + 1)
    places, reads, near = places_of(found), [], []
    for member, share in enumerate(found):
        units = given.computed(member)
        around = at[units[:, None] + window]
        numbers = np.where(around < 0, -1, given.numbers(np.where(around < 0, units[:, None], around)))
        outside = (numbers >= 0) & ((numbers < share.lo) | (numbers >= share.hi))
        waits = np.zeros(share.hi - share.lo, np.int64)
        waits[: len(units)] = outside.sum(axis=1)
        reads.append(Reads(offsets_of(waits), places[numbers[outside]].astype(np.int64)))
        near.append(np.where(numbers < 0, -1, places[numbers]))
    return reads, near
