"""Which chunks an output has, and how data gets there that is stored in others: decided from shapes alone.

Where output chunks cut across stored ones, each stored chunk would be decoded for every output chunk that meets it. Two
things are done about that, both within a fixed number of bytes, so that a plan is the same on every machine:

- A *row* is a run of output chunks that one task makes; the larger it is, the fewer rows meet a stored chunk.
- Where that isn't enough, *slabs* of stored chunks are read once each and kept as *pieces*, what a slab and a row have
  in common. This is rechunker's plan (Pangeo): read chunks and write chunks are made as large as memory allows, the
  intermediate chunks are what two of them share; but the pieces of a slab lie in one file, row by row.

>>> stored = {"time": Axis((240,), multiple=24), "lat": Axis((721,), multiple=721), "lon": Axis((1440,), multiple=1440)}
>>> rows = rows_of(stored, (240, 91, 180), [(("time", "lat", "lon"), 4.0)])
>>> rows, passes(stored.values(), (240, 91, 180)), passes(stored.values(), rows)
((240, 182, 1440), 64.0, 4.0)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from gridcompute.axes import Axis, Layout
from gridcompute.columns import Array
from gridcompute.errors import ParameterError
from gridcompute.spaces import Region, Space

CHUNK_BYTES = 32 * 2**20
"""Byte target of an output's chunk along the dimensions for which none was asked."""

ROW_BYTES = 256 * 2**20
"""Of the output chunks that one task makes."""

SMALL_BYTES = 16 * 2**20
"""Output chunks are put together up to so many bytes, even where that saves no decoding: a task has its own costs."""

SLAB_BYTES = 64 * 2**20
"""Of the stored chunks that are read together; a single one may have more."""

ENOUGH = 1.5
"""Decodings of a stored chunk that larger rows wouldn't save: they take memory, and fewer of them spread worse."""

PASSES = 4.0
"""Times that stored chunks may be decoded: keeping and reading what was decoded once costs about as much."""


Columns = Sequence[tuple[tuple[str, ...], float]]
"""Dimensions of some columns and the bytes of a value."""


def bytes_of(columns: Columns, extents: Mapping[str, int]) -> list[float]:
    """Bytes of a box of each column."""
    return [size * math.prod(extents[dim] for dim in dims) for dims, size in columns]


def grid(chunks: Mapping[str, int], space: Space, columns: Columns, chunk_bytes: int = 0) -> tuple[int, ...]:
    """Extents of an output's chunks.

    Args:
        chunks: extents by dimension, -1 for all of it; the dimensions that aren't named are halved, the longest first,
            until a chunk has at most `chunk_bytes`.
        space: of the output.
        columns: of the output; a chunk is of one of them.
        chunk_bytes: the byte target; 0 for `CHUNK_BYTES`.

    Raises:
        ParameterError: a dimension that isn't there.
    """
    for name in chunks:
        if name not in space:
            raise ParameterError(f"chunks names {name!r}, which isn't a dimension of {space}",
                                 hint=f"the dimensions are {', '.join(space.names)}")
    lengths = {name: max(length or 0, 1) for name, length in space.dims}
    found = {name: min(n, chunks[name]) if chunks.get(name, -1) > 0 else n for name, n in lengths.items()}
    while max(sizes := bytes_of(columns, found), default=0.0) > (chunk_bytes or CHUNK_BYTES):
        free = [name for name in columns[sizes.index(max(sizes))][0] if name not in chunks]
        longest = max(free, key=lambda name: found[name], default="")
        if not longest or found[longest] <= 1:
            break
        found[longest] = -(-found[longest] // 2)
    return tuple(found.values())


def _ends(axis: Axis) -> tuple[Array, Array]:
    """First and last-plus-one positions of the stored chunks along an axis: its chunks where it is cut."""
    step, first, starts = max(1, axis.extent * axis.run or axis.multiple), 0, []
    for part in axis.parts:
        starts.append(np.arange(first, first + part, step))
        first += part
    every = np.concatenate(starts) if starts else np.zeros(0, np.int64)
    return every, np.append(every[1:], axis.length)[:len(every)]


def passes(stored: Iterable[Axis], extents: Iterable[int]) -> float:
    """How often a stored chunk is decoded on average where each box of these extents reads what it meets."""
    total = 1.0
    for axis, extent in zip(stored, extents, strict=True):
        first, last = _ends(axis)
        if len(first):
            total *= float(np.mean((last - 1) // extent - first // extent + 1))
    return total


def rows_of(stored: Mapping[str, Axis], chunk: Sequence[int], columns: Columns, most: int = 0) -> tuple[int, ...]:
    """Extents of rows: whole chunks, as many as save decoding, in at most so many bytes.

    Args:
        stored: the dimensions, with the extents of stored chunks as `multiple`, or as `extent` where they are cut.
        chunk: extents of an output chunk.
        columns: of the output.
        most: bytes of a row, 0 for `ROW_BYTES`; a single chunk may have more.
    """
    lengths, found = [axis.length for axis in stored.values()], list(chunk)

    def size(extents: Sequence[int]) -> float:
        return sum(bytes_of(columns, dict(zip(stored, map(min, extents, lengths), strict=True))))

    largest = max(columns, key=lambda one: bytes_of([one], {name: axis.length for name, axis in stored.items()}))[0]

    def decodings(extents: Sequence[int]) -> float:
        return passes(*zip(*((stored[name], extent) for name, extent in zip(stored, extents, strict=True)
                             if name in largest), strict=True))

    while True:
        now = decodings(found)
        small = size(found) < SMALL_BYTES
        grown = []
        for i in reversed(range(len(found))):  # of equals the fastest dimension: the longest runs
            count = -(-lengths[i] // chunk[i])
            more = [*found[:i], chunk[i] * min(count, 2 * (found[i] // chunk[i])), *found[i + 1:]]
            room = SMALL_BYTES if small and decodings(more) >= now else most or ROW_BYTES
            if more != found and size(more) <= room:
                grown.append((decodings(more), more))
        best = min(grown, key=lambda one: one[0], default=(now, found))
        if not grown or ((best[0] >= now or now <= ENOUGH) and not small):
            return tuple(found)
        found = best[1]


def slabs_of(stored: Mapping[str, Axis], row: Sequence[int], cell_bytes: float) -> Layout:
    """Slabs: whole stored chunks, as many as fit, along the dimensions in which rows are longer."""
    found = {name: min(max(1, axis.extent * axis.run or axis.multiple), max(axis.parts, default=1) or 1)
             for name, axis in stored.items()}
    long = dict(zip(stored, row, strict=True))
    while True:
        room = [name for name, axis in stored.items() if found[name] < max(axis.parts, default=1)
                and 2 * math.prod(found.values()) * cell_bytes <= SLAB_BYTES]
        if not room:
            break
        name = max(room, key=lambda name: long[name] / found[name])
        found[name] *= 2
    return Layout.of({name: replace(axis, extent=found[name], multiple=1, run=1) for name, axis in stored.items()})


def pieces(slab: Region, rows: Layout, within: Region | None = None) -> list[tuple[int, Region]]:
    """What rows have of a slab, numbered in their order.

    Args:
        slab: any region.
        rows: how the space is cut into rows.
        within: only the pieces that meet this region.
    """
    spans = [axis.covering(lo, hi) for (_, axis), (lo, hi) in zip(rows.axes, slab, strict=True)]
    part = slab if within is None else slab.intersect(within)
    wanted = [axis.covering(lo, hi) for (_, axis), (lo, hi) in zip(rows.axes, part, strict=True)]
    found = []
    counts = [len(span) for span in spans]
    for places in np.ndindex(*map(len, wanted)):
        number, bounds = 0, []
        for place, span, some, count, (_, axis), (lo, hi) in zip(
                places, spans, wanted, counts, rows.axes, slab, strict=True):
            at = some[place]
            number = number * count + at - span.start
            first, last = axis.bounds(at)
            bounds.append((max(first, lo), min(last, hi)))
        found.append((number, Region(tuple(bounds))))
    return found


def chunks_of(bounds: Sequence[tuple[int, int]], extents: Sequence[int]
              ) -> list[tuple[tuple[int, ...], tuple[slice, ...]]]:
    """Places of the chunks of a region that begins and ends with chunks, and where each lies within it.

    >>> chunks_of([(4, 9)], [4])
    [((1,), (slice(0, 4, None),)), ((2,), (slice(4, 5, None),))]
    """
    spans = [range(lo // extent, -(-hi // extent)) for (lo, hi), extent in zip(bounds, extents, strict=True)]
    return [(place, tuple(slice(i * n - lo, min(hi, (i + 1) * n) - lo)
                          for i, (lo, hi), n in zip(place, bounds, extents, strict=True)))
            for place in itertools.product(*spans)]
