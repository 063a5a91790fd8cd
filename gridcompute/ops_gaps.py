"""Building ops over nulls and NaN, and the verbs of collections that do it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np

from gridcompute.access import Point
from gridcompute.actions.gaps import FillNull, IsNull
from gridcompute.columns import Field
from gridcompute.coords import Coordinate
from gridcompute.errors import DimensionError, ParameterError
from gridcompute.op import Op
from gridcompute.ops import Ref, arithmetic, choose, field_of, gathered, joint_space
from gridcompute.ops_rows import filter_rows, one_dimension
from gridcompute.times import Moment, counted


def is_null(refs: Sequence[Ref], label: str) -> Op:
    """Whether any of several columns of the same cells has no value."""
    ops, columns = gathered(refs)
    space = joint_space(refs)
    fields = (Field(label, space.names, np.dtype(bool)),)
    return Op(IsNull(columns), ops, (Point,) * len(ops), space, fields, "isnull")


def fill_null(ref: Ref, value: float | Moment) -> Op:
    """A column with a value in place of nulls and NaN.

    Raises:
        ParameterError: text or lists, or a value that the column's dtype doesn't hold.
    """
    field = field_of(ref)
    if field.ragged:
        raise ParameterError(f"column {field.name!r} holds a {field.kind} a cell: no value to fill in",
                             hint=f"drop the nulls: dropna({field.name!r})")
    number: Any = counted(value, field)[0] if isinstance(value, Moment) else value
    try:
        with np.errstate(all="ignore"):
            held = field.dtype.type(number)
            fits = bool(np.isinf(held) == np.isinf(number)) if field.dtype.kind == "f" else held == number
    except (TypeError, ValueError, OverflowError):
        fits = False
    if not fits or not isinstance(number, bool | int | float | np.generic):
        raise ParameterError(f"column {field.name!r} is {field.dtype}, which doesn't hold {value!r}",
                             hint="give a number of its dtype, or compute with the column as floats: column * 1.0")
    number = number.item() if isinstance(number, np.generic) else number
    space = ref[0].space.only(*field.dims)
    filled = replace(field, nullable=False)
    return Op(FillNull(field.name, number), (ref[0],), (Point,), space, (filled,), "fillna")


def drop_null(op: Op, names: Sequence[str]) -> Op:
    """The rows in which none of the named columns is null or NaN; these columns can't be null after it."""
    dim = one_dimension(op, "dropna")
    for name in names:
        if op.field(name).dims != (dim,):
            raise DimensionError(f"column {name!r} has no cell for each position along {dim!r}",
                                 hint="name the columns that have: dropna('name')")
    gap = is_null([(op, name) for name in names], "null")
    kept = filter_rows(op, (arithmetic("logical_not", [(gap, "null")], "kept"), "kept"))
    fields = tuple(replace(f, nullable=f.nullable and f.name not in names) for f in kept.fields)
    return replace(kept, fields=fields, name="dropna")


class Gaps:
    """The verbs for nulls and NaN, in terms of a collection's columns."""

    columns: dict[str, Ref]
    coords: tuple[Coordinate, ...]

    @classmethod
    def of(cls, op: Op, coords: Iterable[Coordinate] = ()) -> Self:
        """All columns of an op."""
        raise TypeError(f"{cls.__name__} isn't made of an op")

    def __getitem__(self, names: str | Sequence[str]) -> Self:
        """Some of the columns."""
        raise TypeError(f"{type(self).__name__} has no columns")

    def _one(self) -> Ref:
        raise TypeError(f"{type(self).__name__} has no columns")

    def isnull(self) -> Self:
        """Whether one column has no value: null, or NaN among floats."""
        return self.of(is_null([self._one()], next(iter(self.columns))), self.coords)

    def notnull(self) -> Self:
        """Whether one column has a value."""
        label = next(iter(self.columns), "")
        return self.of(arithmetic("logical_not", [(is_null([self._one()], label), label)], label), self.coords)

    def fillna(self, value: float | Moment) -> Self:
        """One column with a value in place of nulls and NaN: a number of its dtype, or a date.

        Raises:
            ParameterError: text or lists, or a value that the dtype doesn't hold.
        """
        ref = self._one()
        return self.of(choose({next(iter(self.columns)): (fill_null(ref, value), ref[1])}), self.coords)

    def dropna(self, on: str | Sequence[str] | None = None) -> Self:
        """The rows in which no column is null or NaN; kernels of whole numbers and text take the columns then.

        Args:
            on: columns that are looked at; else all.

        Raises:
            MissingInputError: a name that isn't there.
        """
        return self.of(drop_null(choose(self.columns), list((self if on is None else self[on]).columns)))
