"""How a space is cut into chunks: extents that follow from the graph alone (law 1).

An `Axis` is one dimension with its cuts; a `Layout` is a space with all of them. Neither knows of workers,
threads or time, so the same graph is always cut the same way.

>>> layout = cut({"lat": Axis((37,)), "lon": Axis((49,))}, cell_bytes=960)
>>> layout.chunks, str(layout.region(0))
(259, '0-1_0-7')
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from gridcompute.errors import DimensionError
from gridcompute.spaces import Region, Space

CHUNK_BYTES = 64 * 2**20
"""Byte target of a chunk's input."""

SLAB_BYTES = 256 * 2**20
"""Bytes up to which a chunk takes a whole stored chunk that is above the target, and live ones up to which it takes as
much input as the target allows."""

SPREAD = 256
"""Chunks that even small data is cut into, where its cells may be heavy."""

PART_PIECES = 64
"""Pieces that a file or block of unknown origin is cut into, more or fewer as `parallel` says; a rule that looks at
one part alone, so that appending a part leaves the cuts of the others as they are."""

PART_FLOOR = 64 * 2**10
"""Input bytes below which such a piece isn't cut further."""

LIGHT_FLOOR = 2**20
"""Input bytes below which nothing is cut further where no kernel runs: its cells cost next to nothing."""

DECODE_BYTES = 4 * 2**20
"""A stored chunk larger than this isn't shared by chunks: decoding it again costs more than the spread gains."""

DECODED_AGAIN, DECODED_BYTES = 4, 512 * 2**20
"""Chunks that share a stored chunk, each of which decodes it: so many, or as many as come to so many bytes in all."""


@dataclass(frozen=True)
class Axis:
    """One dimension and its cuts.

    Attributes:
        parts: lengths of the parts (files, blocks) that lie one after the other; no chunk straddles two.
        extent: positions per chunk, 0 while not cut (the whole part).
        multiple: extent of the chunks that the data is stored in.
        blocks: positions count blocks whose numbers of cells aren't known yet.
        together: positions that no chunk separates, such as two mates; each part is a multiple of it.
        run: cuts that make one chunk; only of more than one may a chunk straddle two parts.
    """

    parts: tuple[int, ...]
    extent: int = 0
    multiple: int = 1
    blocks: bool = False
    together: int = 1
    run: int = 1

    @cached_property
    def length(self) -> int:
        """Positions in all."""
        return sum(self.parts)

    @cached_property
    def _starts(self) -> tuple[list[int], list[int]]:
        """First position and first chunk of each part, with the totals at the end."""
        positions = [0, *itertools.accumulate(self.parts)]
        chunks = [0, *itertools.accumulate(-(-part // self._extent(part)) for part in self.parts)]
        return positions, chunks

    def _extent(self, part: int) -> int:
        return self.extent or max(part, 1)

    @property
    def cuts(self) -> Axis:
        """The same axis with a chunk for each cut."""
        return self if self.run == 1 else replace(self, run=1)

    @property
    def chunks(self) -> int:
        """Number of chunks."""
        return -(-self._starts[1][-1] // self.run)

    def bounds(self, chunk: int) -> tuple[int, int]:
        """First and last-plus-one position of a chunk."""
        positions, chunks = self._starts
        if self.run > 1:
            last = min((chunk + 1) * self.run, chunks[-1]) - 1
            return self.cuts.bounds(chunk * self.run)[0], self.cuts.bounds(last)[1]
        part = bisect_right(chunks, chunk) - 1
        extent = self._extent(self.parts[part])
        start = positions[part] + (chunk - chunks[part]) * extent
        return start, min(start + extent, positions[part + 1])

    def covering(self, lo: int, hi: int) -> range:
        """Chunks that meet positions lo to hi."""
        if hi <= lo:
            return range(0)
        return range(self._chunk_at(lo), self._chunk_at(hi - 1) + 1)

    def _chunk_at(self, position: int) -> int:
        positions, chunks = self._starts
        part = bisect_right(positions, position) - 1
        return (chunks[part] + (position - positions[part]) // self._extent(self.parts[part])) // self.run

    @property
    def regular(self) -> Axis:
        """The same positions as a single part."""
        return self if len(self.parts) == 1 else replace(self, parts=(self.length,))


@dataclass(frozen=True)
class Layout:
    """A space with its cuts; chunk numbers run row-major over the axes."""

    axes: tuple[tuple[str, Axis], ...]

    @classmethod
    def of(cls, axes: Mapping[str, Axis]) -> Layout:
        """Build from a mapping of dimension to axis."""
        return cls(tuple(axes.items()))

    @cached_property
    def space(self) -> Space:
        """The space that is cut; lengths are unknown along axes of blocks."""
        return Space(tuple((name, None if axis.blocks else axis.length) for name, axis in self.axes))

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """Chunks per dimension."""
        return tuple(axis.chunks for _, axis in self.axes)

    @property
    def chunks(self) -> int:
        """Number of chunks."""
        return math.prod(self.counts)

    @cached_property
    def whole(self) -> Region:
        """The region of all positions."""
        return Region(tuple((0, axis.length) for _, axis in self.axes))

    def region(self, chunk: int) -> Region:
        """The positions of a chunk."""
        bounds: list[tuple[int, int]] = []
        for (_, axis), count in zip(reversed(self.axes), reversed(self.counts), strict=True):
            chunk, place = divmod(chunk, count)
            bounds.append(axis.bounds(place))
        return Region(tuple(reversed(bounds)))

    def place(self, chunk: int) -> tuple[int, ...]:
        """A chunk's place per dimension."""
        places = []
        for count in reversed(self.counts):
            chunk, at = divmod(chunk, count)
            places.append(at)
        return tuple(reversed(places))

    def covering(self, region: Region) -> Iterator[int]:
        """Chunks that meet a region, in order."""
        ranges = [axis.covering(lo, hi) for (_, axis), (lo, hi) in zip(self.axes, region, strict=True)]
        for places in itertools.product(*ranges):
            chunk = 0
            for place, count in zip(places, self.counts, strict=True):
                chunk = chunk * count + place
            yield chunk

    @property
    def blocked(self) -> bool:
        """Whether a dimension's length isn't known yet."""
        return any(axis.blocks for _, axis in self.axes)

    def __getitem__(self, name: str) -> Axis:
        return dict(self.axes)[name]


def cut(axes: Mapping[str, Axis], *, cell_bytes: float, whole: frozenset[str] = frozenset(), parallel: int = 0,
        chunk_bytes: int = 0, stored_bytes: int = 0, light: bool = False, live_bytes: float = 0.0) -> Layout:
    """Choose the extents: the least of a byte target, a multiple of the stored chunk, and ceil(cells / parallel).

    A stored chunk above the byte target isn't cut where it and what is live with it stay below `SLAB_BYTES`, else into
    pieces of equal length where there are such.

    Args:
        axes: dimensions, slowest first.
        cell_bytes: input bytes that one position of the output needs.
        whole: dimensions that aren't cut.
        parallel: chunks that even small data of one part is cut into; 0 for `SPREAD`.
        chunk_bytes: the byte target; 0 for `CHUNK_BYTES`.
        stored_bytes: decoded bytes of one stored chunk; above `DECODE_BYTES` it isn't cut into several.
        light: whether no kernel runs over the cells, so that spreading small data gains nothing.
        live_bytes: bytes in memory at once for one position, where these are more than its input.

    Raises:
        DimensionError: a dimension without cells.
    """
    free = {name: axis for name, axis in axes.items() if name not in whole and not axis.blocks}
    fixed = math.prod(axis.length for name, axis in axes.items() if name in whole)
    per_position = max(cell_bytes * fixed, 1e-9)
    cells = math.prod(axis.length for axis in free.values())
    most = SLAB_BYTES / max(per_position, live_bytes * fixed)
    budget = max(1, int(min((chunk_bytes or CHUNK_BYTES) / per_position, most)))
    stored = math.prod(_stored(axis) for axis in free.values())
    if stored_bytes > DECODE_BYTES and stored <= most and not chunk_bytes:
        budget = max(budget, stored)
    many = any(len(axis.parts) > 1 for axis in free.values())
    if stored_bytes > DECODE_BYTES:
        spread = stored
    elif many:
        longest = math.prod(max(axis.parts, default=0) for axis in free.values())
        pieces = max(1, PART_PIECES * (parallel or SPREAD) // SPREAD)
        spread = max(-(-longest // pieces), int(PART_FLOOR / per_position), 1)
    else:
        again = max(DECODED_AGAIN, DECODED_BYTES / max(cells * per_position, 1.0))
        spread = max(-(-cells // (parallel or SPREAD)), int(stored / again))
    floor = max(int(LIGHT_FLOOR / per_position), stored) if light else 1
    extents = {name: 1 if axis.blocks else max(axis.length, 1) for name, axis in axes.items()}
    extents |= _extents(free, max(1, min(budget, max(spread, floor))))
    extents |= {name: -(-extents[name] // axis.together) * axis.together for name, axis in free.items()}
    return Layout.of({name: replace(axis.regular if name in whole else axis, extent=extents[name], run=1)
                      for name, axis in axes.items()})


def _stored(axis: Axis) -> int:
    """Length of a stored chunk along an axis."""
    return max(1, min(axis.multiple, max(axis.parts, default=0)))


def _extents(axes: Mapping[str, Axis], room: int) -> dict[str, int]:
    """Extents of at most `room` positions: several stored chunks, fastest dimension first, or a piece of one."""
    extents = {name: _stored(axis) for name, axis in axes.items()}
    several = room // math.prod(extents.values())
    for name, axis in reversed(list(axes.items())):
        if several:
            count = min(several, -(-max(axis.parts, default=0) // extents[name]))
            extents[name] = max(1, min(extents[name] * count, max(axis.parts, default=0)))
            several = max(1, several // max(count, 1))
        else:
            extents[name] = _piece(extents[name], room)
            room = max(1, room // extents[name])
    return extents


def _piece(stored: int, room: int) -> int:
    """Length of a piece of a stored chunk: one that divides it, unless such pieces were small."""
    if stored <= room:
        return stored
    return next((n for n in range(room, room // 2, -1) if stored % n == 0), room)


def require_cells(space: Space) -> None:
    """Refuse a space known to be empty along a dimension that can't be.

    Raises:
        DimensionError: naming the dimension.
    """
    for name, length in space.dims:
        if length == 0:
            raise DimensionError(f"dimension {name!r} of {space} has no cells", hint="check the selection before it")
