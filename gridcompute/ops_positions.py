"""Building ops that choose positions along a dimension."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np

from gridcompute.access import Point, Slice, Take, Whole
from gridcompute.actions.shapes import Select, TakeAt, Transpose
from gridcompute.columns import Array, Field
from gridcompute.coords import Coordinate
from gridcompute.errors import DimensionError, ParameterError
from gridcompute.op import Op
from gridcompute.ops import Ref, choose, field_of
from gridcompute.spaces import Space


def how_selected(space: Space, dim: str, index: Any) -> tuple[Slice | Take, Array | slice | None, int]:
    """An index along a dimension as an access, what it leaves of a coordinate (None: nothing), and its length.

    Raises:
        DimensionError: no such dimension, or one whose length isn't known.
        ParameterError: a position outside, or no position at all.
    """
    length = space[dim]
    if length is None:
        raise DimensionError(
            f"positions along {dim!r} can't be chosen: how many cells it has isn't known before the run",
            hint="filter by a condition instead, or run it first and open the result",
        )
    if isinstance(index, slice):
        found = range(*index.indices(length))
        return Slice(dim, found.start, found.step), index, len(found)
    if isinstance(index, int | np.integer):
        return Slice(dim, int(positions(length, [int(index)], dim)[0]), keep=False), None, 1
    array = positions(length, index, dim)
    return Take(dim, array), array, len(array)


def select(op: Op, how: Slice | Take, length: int) -> Op:
    """Positions along one dimension."""
    keep = not isinstance(how, Slice) or how.keep
    dims = tuple((name, length if name == how.dim else n) for name, n in op.space.dims if keep or name != how.dim)
    fields = tuple(
        Field(f.name, tuple(d for d in f.dims if keep or d != how.dim), f.dtype, f.kind, f.nullable, f.attrs)
        for f in op.fields
    )
    return Op(Select(how), (op,), (how,), Space(dims), fields, "isel")


def transposed(op: Op, dims: Sequence[str]) -> Op:
    """The same columns with their dimensions in this order.

    Raises:
        DimensionError: not each dimension once.
        ParameterError: text or lists, whose cells have no order but their own.
    """
    if sorted(dims) != sorted(op.space.names):
        raise DimensionError(f"transpose got the dimensions {', '.join(dims) or 'none'}",
                             hint=f"name each once: {', '.join(op.space.names)}")
    if ragged := [f.name for f in op.fields if f.ragged]:
        raise ParameterError(f"column {ragged[0]!r} has cells of variable length", hint="select the other columns")
    space = Space(tuple((name, op.space[name]) for name in dims))
    fields = tuple(replace(f, dims=tuple(name for name in dims if name in f.dims)) for f in op.fields)
    return Op(Transpose(), (op,), (Point,), space, fields, "transpose")


def take_at(op: Op, dim: str, index: Ref) -> Op:
    """Positions along one dimension, as a column of another op gives them."""
    field = field_of(index)
    if len(field.dims) != 1:
        raise DimensionError(f"take needs positions along one dimension, but column {index[1]!r} spans "
                             f"({', '.join(field.dims)})", hint="reduce or isel the others first")
    (new,) = field.dims
    if field.dtype.kind not in "iu":
        raise ParameterError(f"take needs positions, but column {index[1]!r} is {field.dtype}")
    dims = tuple((new, index[0].space[new]) if name == dim else (name, n) for name, n in op.space.dims)
    fields = tuple(
        Field(f.name, tuple(new if d == dim else d for d in f.dims), f.dtype, f.kind, f.nullable, f.attrs)
        for f in op.fields
    )
    return Op(
        TakeAt(dim, index[1]), (op, index[0]), (Whole(((dim, op.space[dim]),)), Point), Space(dims), fields, "take"
    )


def positions(length: int, index: Any, dim: str) -> Array:
    """Positions from 0, from indices that may count from the end.

    Raises:
        ParameterError: one lies outside, or is masked; or they aren't one list of whole numbers.
    """
    if np.ma.is_masked(index):
        raise ParameterError(f"positions along {dim!r} are masked: which of them are meant?", hint="index.compressed()")
    array = np.asarray(index)
    if array.ndim != 1:
        raise ParameterError(f"positions along {dim!r} must be one list, not of shape {array.shape}")
    if array.dtype == np.bool_ and array.shape == (length,):
        return np.flatnonzero(array)
    if array.dtype.kind not in "iu":
        if array.size:
            raise ParameterError(f"positions along {dim!r} must be whole numbers, not {array.dtype}")
        array = array.astype(np.int64)
    found = np.where(array < 0, array + length, array).astype(np.int64)
    outside = (found < 0) | (found >= length)
    if outside.any():
        raise ParameterError(f"position {array[outside][0]} lies outside dimension {dim!r} of length {length}")
    return found


class Arranged:
    """The verb for the order of dimensions, in terms of a collection's columns."""

    columns: dict[str, Ref]
    coords: tuple[Coordinate, ...]

    @classmethod
    def of(cls, op: Op, coords: Iterable[Coordinate] = ()) -> Self:
        """All columns of an op."""
        raise TypeError(f"{cls.__name__} isn't made of an op")

    def transpose(self, *dims: str) -> Self:
        """The dimensions of all columns in this order.

        Raises:
            DimensionError: not each dimension once.
            ParameterError: text or lists.
        """
        op = choose(self.columns)
        done = tuple(dims) == op.space.names and all(f.dims == tuple(d for d in dims if d in f.dims) for f in op.fields)
        return self.of(op if done else transposed(op, dims), self.coords)
