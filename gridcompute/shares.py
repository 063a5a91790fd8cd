"""Who computes which units of a space, and what each of them reads, as tables for a loop over steps.

A unit is an index of the space's first dimension. Its place in a row of the state is its number plus its member's
`shift`, so that no two members write to one cache line.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from gridcompute.columns import Array
from gridcompute.edges import Edges

LINE = 64
"""Bytes of a cache line."""

APART, SAME = -1, -2
"""Where inputs begin that don't lie side by side: to be gathered, or gathered already for the unit before."""

PIECE = 2**16
"""Units that are tabulated at a time."""


@dataclass(frozen=True)
class Share:
    """A member's units, and what is added to a unit's number for its place in a row."""

    lo: int
    hi: int
    shift: int

    @property
    def places(self) -> slice:
        """Of the units in a row."""
        return slice(self.lo + self.shift, self.hi + self.shift)


def even(length: int, members: int) -> list[int]:
    """Where shares of as many units each begin and end.

    >>> even(5, 2)
    [0, 2, 5]
    """
    return [length * m // members for m in range(members + 1)]


def laid_out(cuts: Sequence[int], unit_bytes: int) -> tuple[tuple[Share, ...], int]:
    """Shares that begin and end at these units, and the width of a row.

    >>> laid_out(even(5, 2), 8)
    ((Share(lo=0, hi=2, shift=0), Share(lo=2, hi=5, shift=6)), 16)
    """
    found, end, pad = [], 0, 1 if len(cuts) == 2 else max(1, LINE // unit_bytes)
    for lo, hi in pairwise(cuts):
        found.append(Share(lo, hi, end - lo))
        end += -(-(hi - lo) // pad) * pad
    return tuple(found), end


def slabs(cuts: Sequence[int], columns: int) -> tuple[tuple[Share, ...], int, int]:
    """As `laid_out`, with room after each member's flags for as many values of so many columns of eight bytes.

    Flags and values of a small share then lie on one cache line, which moves to its reader once. A unit's flag has its
    place in the row; its value of column i lies 1 + i pitches after that.

    Returns:
        The shares, the width of a row and the pitch, in words of eight bytes.

    >>> slabs(even(4, 2), 3)
    ((Share(lo=0, hi=2, shift=0), Share(lo=2, hi=4, shift=6)), 16, 2)
    """
    pitch = max(hi - lo for lo, hi in pairwise(cuts))
    slab = -(-pitch * (1 + columns) * 8 // LINE) * LINE // 8
    found = tuple(Share(lo, hi, member * slab - lo) for member, (lo, hi) in enumerate(pairwise(cuts)))
    return found, len(found) * slab, pitch


def places_of(found: Iterable[Share]) -> Array:
    """The place of each unit in a row."""
    return np.concatenate([np.arange(s.lo, s.hi) + s.shift for s in found])


@dataclass(frozen=True, eq=False)
class Reads:
    """What a member's units read.

    Attributes:
        await_rows: offsets into `await_at`, by phase and unit.
        await_at: places of what other members make, in the order of the units; each for the first unit that reads it
            where those before a unit are always computed before it.
        tables: further arguments of the loop.
    """

    await_rows: Array
    await_at: Array
    tables: tuple[Array, ...] = field(default=())


def edge_reads(edges: Edges, length: int, widest: Sequence[int], found: Sequence[Share]) -> list[Reads]:
    """Per member: where each unit's inputs begin, how many, and all of them.

    Inputs that don't lie side by side begin nowhere: `APART`, or `SAME` where the unit before has the same.

    Args:
        edges: the rule.
        length: units.
        widest: by phase, the widest row that is computed.
        found: the shares.
    """
    places = places_of(found)
    by_phase = [edges.table(phase, width, length) for phase, width in enumerate(widest)]
    return [member_reads(by_phase, places, share) for share in found]


def member_reads(by_phase: Sequence[tuple[Array, Array]], places: Array, share: Share, *,
                 leading: bool = True) -> Reads:
    """What a member's units read.

    Args:
        by_phase: offsets and indices of what all units read.
        places: of all units in a row.
        share: the member's.
        leading: whether the units that are computed in a step are always the first of the member's.
    """
    starts, counts, at, waits, awaited = [], [], [], [], []
    for offsets, index in by_phase:
        for lo in range(share.lo, share.hi, PIECE):
            start, count, place, outside = _piece(offsets, index, places, share, lo, min(lo + PIECE, share.hi))
            if leading:
                start[(start == APART) & _as_before(start, count, place)] = SAME
            starts.append(start)
            counts.append(count)
            at.append(place.astype(np.int32))
            first = _first_of_each(place, outside) if leading else np.flatnonzero(outside)
            waits.append(np.bincount(np.repeat(np.arange(len(count)), count)[first], minlength=len(count)))
            awaited.append(place[first])
    rows = offsets_of(np.concatenate(counts))[:-1]
    tables = (_small(starts), _small(counts), rows, _small(at))
    return Reads(offsets_of(np.concatenate(waits)), np.concatenate(awaited).astype(np.int64), tables)


def _piece(offsets: Array, index: Array, places: Array, share: Share, lo: int, hi: int) -> tuple[Array, ...]:
    """Of some units: where their inputs begin, how many, the inputs' places, and which of these are other members'."""
    count = np.zeros(hi - lo, np.int64)
    known = slice(min(lo, len(offsets) - 1), min(hi, len(offsets) - 1) + 1)  # beyond the widest row none is computed
    count[: known.stop - known.start - 1] = np.diff(offsets[known])
    mine = index[offsets[known.start]: offsets[known.stop - 1]]
    unit, place = np.repeat(np.arange(hi - lo), count), places[mine]
    apart = (unit[1:] == unit[:-1]) & (place[1:] != place[:-1] + 1)
    start = np.zeros(hi - lo, np.int64)
    start[count > 0] = place[(np.cumsum(count) - count)[count > 0]]
    start[unit[1:][apart]] = APART
    return start, count, place, (mine < share.lo) | (mine >= share.hi)


def _first_of_each(place: Array, outside: Array) -> Array:
    """Where each of the places outside is read first."""
    found = np.flatnonzero(outside)
    return np.sort(found[np.unique(place[found], return_index=True)[1]])


def _as_before(start: Array, count: Array, place: Array) -> Array:
    """Whether a unit reads what the one before does, in the same order; of those whose inputs lie apart."""
    alike = np.zeros(len(count), bool)
    alike[1:] = (start[1:] == APART) & (start[:-1] == APART) & (count[1:] == count[:-1])
    unit = np.repeat(np.arange(len(count)), count)
    at = np.flatnonzero(alike[unit])
    differ = place[at] != place[at - count[unit[at]]]
    alike[unit[at[differ]]] = False
    return alike


def _small(parts: Sequence[Array]) -> Array:
    return np.concatenate(parts).astype(np.int32)


def offsets_of(counts: Array) -> Array:
    """Where each of several runs begins, and the end."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])


def axis_map(length: int, before: int, after: int, boundary: str) -> Array:
    """The index that each position from -before to length + after reads; -1 where it is the fill value.

    >>> axis_map(3, 1, 2, "periodic").tolist(), axis_map(3, 1, 1, "clip").tolist(), axis_map(2, 1, 1, "fill").tolist()
    ([2, 0, 1, 2, 0, 1], [0, 0, 1, 2, 2], [-1, 0, 1, -1])
    """
    at = np.arange(-before, length + after)
    if boundary == "periodic":
        return at % length
    if boundary == "clip":
        return np.clip(at, 0, length - 1)
    return np.where((at < 0) | (at >= length), -1, at)


def window_reads(units: Array, before: int, after: int, found: Sequence[Share]) -> list[Reads]:
    """Per member: which units of others the windows of its own reach.

    Args:
        units: `axis_map` of the first dimension.
        before: that a window reaches back.
        after: that it reaches on.
        found: the shares.
    """
    places = places_of(found)
    reads = []
    for share in found:
        counts, awaited, known = np.zeros(share.hi - share.lo, np.int64), [], set[int]()
        ends = {*range(share.lo, min(share.hi, share.lo + before)), *range(max(share.lo, share.hi - after), share.hi)}
        for unit in sorted(ends):
            around = {int(one) for one in units[unit: unit + before + after + 1]}
            outside = sorted(one for one in around - known if one >= 0 and not share.lo <= one < share.hi)
            known.update(outside)
            counts[unit - share.lo] = len(outside)
            awaited += [int(places[one]) for one in outside]
        reads.append(Reads(offsets_of(counts), np.array(awaited, np.int64)))
    return reads


def readers(reads: Sequence[Reads], found: Sequence[Share]) -> list[tuple[Array, Array]]:
    """Per member: which other members read units of its own, and (uint8, by unit) which units they read."""
    answers = []
    for me, share in enumerate(found):
        shown, by = np.zeros(share.hi - share.lo, np.uint8), []
        for other, one in enumerate(reads):
            at = one.await_at - share.places.start
            at = at[(at >= 0) & (at < len(shown))]
            if other != me and len(at):
                shown[at] = 1
                by.append(other)
        answers.append((np.array(by, np.int64), shown))
    return answers

