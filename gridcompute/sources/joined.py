"""Files of the same columns, end to end along one dimension."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from gridcompute.auxiliary import Auxiliary, end_to_end
from gridcompute.columns import Block, Column, Field, Fixed, Ragged
from gridcompute.coords import Coordinate, concatenated, difference
from gridcompute.errors import AlignmentError, DimensionError
from gridcompute.sources.base import chosen, require_within
from gridcompute.spaces import Region, Space
from gridcompute.times import time_attrs


@dataclass(frozen=True, eq=False)
class Joined:
    """Sources of the same columns end to end along one dimension; columns without it come from the first.

    Its key leaves the files' names to `objects`, so that appending a file keeps the older parts' shards.
    """

    sources: tuple[Any, ...]
    dim: str

    @cached_property
    def parts(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Lengths of the parts along the dimension."""
        return ((self.dim, tuple(int(source.space[self.dim] or 0) for source in self.sources)),)

    @cached_property
    def _starts(self) -> list[int]:
        return [0, *np.cumsum(self.parts[0][1]).tolist()]

    @cached_property
    def space(self) -> Space:
        """See `Source`."""
        return Space(
            tuple(
                (name, self._starts[-1] if name == self.dim else length) for name, length in self.sources[0].space.dims
            )
        )

    @property
    def fields(self) -> tuple[Field, ...]:
        """See `Source`."""
        first: tuple[Field, ...] = self.sources[0].fields
        nullable = {f.name for source in self.sources for f in source.fields if f.nullable}
        return tuple(replace(f, nullable=f.name in nullable) for f in first)

    @cached_property
    def coords(self) -> tuple[Coordinate, ...]:
        """See `Source`: along the dimension, those that all parts have."""
        named = [{c.name: c for c in source.coords} for source in self.sources]
        return tuple(
            c if c.dim != self.dim else concatenated([part[c.name] for part in named])
            for c in self.sources[0].coords
            if c.dim != self.dim or all(c.name in part for part in named)
        )

    @cached_property
    def auxiliary(self) -> tuple[Auxiliary, ...]:
        """Scalar and other coordinates, see `gridcompute.auxiliary`: those that all files have."""
        return end_to_end([getattr(source, "auxiliary", ()) for source in self.sources], self.dim)

    @property
    def stored(self) -> tuple[tuple[str, int], ...]:
        """See `Source`."""
        return tuple(self.sources[0].stored)

    @property
    def stored_bytes(self) -> int:
        """See `Source`."""
        return max(int(source.stored_bytes) for source in self.sources)

    @property
    def piecewise(self) -> bool:
        """See `ZarrSource`: as the first of them, since it only decides how fast the others are read."""
        return bool(getattr(self.sources[0], "piecewise", False))

    @property
    def remote(self) -> bool:
        """See `Source`."""
        return any(getattr(source, "remote", False) for source in self.sources)

    @property
    def key(self) -> object:
        """See `Source`."""
        return ("joined", self.dim, self.sources[0].decoding)

    uniform = False

    def inside(self, region: Region) -> Iterator[tuple[Any, int, Region]]:
        """The files that a region meets: source, its first position, and the region within it."""
        axis = self.space.names.index(self.dim)
        lo, hi = region.bounds[axis]
        for source, start, stop in zip(self.sources, self._starts, self._starts[1:], strict=False):
            if max(lo, start) < min(hi, stop):
                bounds = list(region.bounds)
                bounds[axis] = (max(lo, start) - start, min(hi, stop) - start)
                yield source, start, Region(tuple(bounds))

    def objects(self, region: Region) -> tuple[str, ...]:
        """See `Source`: with the position of each file, as the same rows elsewhere are other data."""
        used = {f"{start}+{name}" for source, start, part in self.inside(region) for name in source.objects(part)}
        if any(self.dim not in f.dims for f in self.fields):
            used |= {f"first+{name}" for name in self.sources[0].objects(self.sources[0].space.whole())}
        return tuple(sorted(used))

    def read(self, region: Region, names: Sequence[str]) -> Block:
        """See `Source`."""
        require_within(self.space, region)
        fields = chosen(self.fields, names, str(self))
        along = [f for f in fields if self.dim in f.dims]
        blocks = [source.read(part, [f.name for f in along]) for source, _, part in self.inside(region)]
        if not blocks:
            raise DimensionError(f"region {region} of {self} is empty")
        columns: dict[str, Column] = {
            f.name: joined([block[f.name] for block in blocks], f.dims.index(self.dim)) for f in along
        }
        rest = [f.name for f in fields if self.dim not in f.dims]
        if rest:
            first = Region(
                tuple(
                    (0, 1) if name == self.dim else bounds
                    for name, bounds in zip(self.space.names, region.bounds, strict=True)
                )
            )
            columns |= self.sources[0].read(first, rest).columns
        return Block(region, {name: columns[name] for name in names}, region.shape[0] if region.bounds else 1)

    def select(self, names: Sequence[str]) -> Any:
        """See `Source`; the first file alone where none of the columns spans the dimension."""
        if not any(self.dim in f.dims for f in chosen(self.fields, names, str(self))):
            return self.sources[0].select(names)
        return Joined(tuple(source.select(names) for source in self.sources), self.dim)

    def __str__(self) -> str:
        return f"{len(self.sources)} files from {self.sources[0]}"


def joined(columns: Sequence[Column], axis: int) -> Column:
    """Columns end to end along an axis of their arrays."""
    if len(columns) == 1:
        return columns[0]
    valid = None
    if any(column.valid is not None for column in columns):
        shapes = [c.cells if isinstance(c, Ragged) else c.values.shape for c in columns]
        full = [np.ones(shape, bool) if c.valid is None else c.valid for c, shape in zip(columns, shapes, strict=True)]
        valid = np.concatenate(full, axis=axis)
    ragged = [column for column in columns if isinstance(column, Ragged)]
    if not ragged:
        return Fixed(np.concatenate([column.values for column in columns], axis=axis), valid)
    values = np.concatenate([c.values[c.offsets[0] : c.offsets[-1]] for c in ragged])
    sizes = np.concatenate([np.diff(c.offsets) for c in ragged])
    offsets = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(sizes, out=offsets[1:])
    return Ragged(offsets, values, valid)


def join(sources: Sequence[Any], dim: str | None = None) -> Joined:
    """Put sources end to end, after checking that they agree in all but that dimension.

    Args:
        sources: in order.
        dim: the dimension; None takes time, else the first that differs, else the first.

    Raises:
        AlignmentError: naming the file and the dimension or variable that doesn't agree.
    """
    first = sources[0]
    dim = _concat_dim(sources) if dim is None else dim
    if dim not in first.space:
        raise DimensionError(f"no dimension {dim!r} in {first}", hint=f"it has {', '.join(first.space.names)}")
    for other in sources[1:]:
        if set(other.space.names) != set(first.space.names):
            raise AlignmentError(f"{other} has dimensions {other.space}, {first} has {first.space}")
        for name in first.space.names:
            if name != dim and other.space[name] != first.space[name]:
                raise AlignmentError(
                    f"dimension {name!r} has length {other.space[name]} in {other} and {first.space[name]} in {first}"
                )
        _require_fields(first, other, dim)
        theirs = {c.name: c for c in other.coords}
        for c in first.coords:
            if c.dim != dim and c.name in theirs and (why := difference(c, theirs[c.name])):
                raise AlignmentError(
                    f"coordinate {c.name!r} of dimension {c.dim!r} differs between {first} and {other}: {why}"
                )
    whole = Joined(tuple(sources), dim)
    _ = whole.coords  # calendars and types of the dimension's own coordinate must agree too
    return whole


def _concat_dim(sources: Sequence[Any]) -> str:
    first = sources[0].space
    if "time" in first or not first.names:
        return "time"
    for other in sources[1:]:
        theirs = {c.name: c for c in other.coords}
        for name in first.names:
            if name in other.space and other.space[name] != first[name]:
                return str(name)
            if any(c.name == name and name in theirs and difference(c, theirs[name]) for c in sources[0].coords):
                return str(name)
    return str(first.names[0])


def _require_fields(first: Any, other: Any, dim: str) -> None:
    theirs = {f.name: f for f in other.fields}
    for f in first.fields:
        if f.name not in theirs:
            raise AlignmentError(f"variable {f.name!r} of {first} isn't in {other}")
        found = theirs[f.name]
        if (found.dims, found.dtype, found.kind) != (f.dims, f.dtype, f.kind):
            raise AlignmentError(
                f"variable {f.name!r} is {f.dtype} over {f.dims} in {first}, {found.dtype} over {found.dims} in {other}"
            )
        if dim in f.dims and time_attrs(found) != time_attrs(f):
            raise AlignmentError(
                f"variable {f.name!r} counts times by {dict(time_attrs(f))} in {first}, {dict(time_attrs(found))} in "
                f"{other}",
                hint="open the files one by one, and convert one by a kernel",
            )
    if extra := sorted(set(theirs) - {f.name for f in first.fields}):
        raise AlignmentError(f"variable {extra[0]!r} of {other} isn't in {first}")
