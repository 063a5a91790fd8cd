"""Weighted sums and means: built of plain reductions and small kernels.

The dimensions along which the weights are the same are reduced first, at the speed of a plain sum: for a mean over
latitudes and longitudes with the weights of latitudes, little more than a sum a latitude is left to weigh.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import numpy as np

from gridcompute import reductions
from gridcompute.actions.loads import Load
from gridcompute.columns import Array
from gridcompute.coords import Coordinate
from gridcompute.errors import DimensionError, ParameterError
from gridcompute.kernels import kernel
from gridcompute.op import Op
from gridcompute.ops import Ref, arithmetic, choose, field_of, map_cells
from gridcompute.reducing import merged_coords, reduced
from gridcompute.sources.arrays import from_arrays
from gridcompute.spaces import Space


@kernel("(),(),()->(),()", names=("total", "weight"))
def weigh_sums(total, count, weight):  # type: ignore[no-untyped-def]  # numba infers the types
    """A sum and count of values that have the same weight; nothing where there was no value."""
    if count == 0:
        return 0.0, 0.0
    return total * weight, count * weight


@kernel("(),()->(),()", names=("total", "weight"))
def weigh_values(value, weight, skipna, valid):  # type: ignore[no-untyped-def]
    """A value times its weight, and the weight; nothing for a value that is missing: null, or NaN if it is to go."""
    if not valid[0] or (skipna and value != value):
        return 0.0, 0.0
    if not valid[1]:
        return np.nan, np.nan
    return value * weight, weight * 1.0


@kernel("(),()->()", names=("mean",))
def per_weight(total, weight):  # type: ignore[no-untyped-def]
    """Total over weight; NaN where nothing has a weight."""
    if weight == 0:
        return np.nan
    return total / weight


def weighted(ref: Ref, name: str, how: str, dims: Sequence[str], weights: Ref, skipna: bool) -> Op:
    """A column's weighted sum or mean.

    Args:
        ref: the column.
        name: of the result.
        how: "sum" or "mean".
        dims: reduced dimensions; all where empty.
        weights: a column along some of them, and of others that the column has.
        skipna: leave NaN out of sum and weights, as nulls are.

    Raises:
        DimensionError: the weights lie along no reduced dimension, or along one that the column doesn't have.
        ParameterError: values that can't be weighed.
    """
    field, own = field_of(ref), field_of(weights)
    if field.ragged or field.dtype.kind not in "biuf" or own.ragged or own.dtype.kind not in "biuf":
        raise ParameterError(f"a weighted {how} of column {field.name!r} needs numbers and weights that are numbers")
    over = tuple(dim for dim in field.dims if not dims or dim in dims)
    along = [dim for dim in over if dim in own.dims]
    strange = [dim for dim in (*dims, *own.dims) if dim not in field.dims]
    if strange or not along:
        raise DimensionError(
            f"column {field.name!r} has no dimension {strange[0]!r}" if strange
            else f"the weights lie along {', '.join(own.dims) or 'no dimension'}, which aren't reduced",
            hint=f"weights lie along one or more of {', '.join(over) or 'its dimensions'}")
    before = [dim for dim in over if dim not in along]
    given: dict[str, Any] = {"names": None, "seed": 0, "name": ""}
    if before:
        refs = [(reduced(ref, label, made, before), label) for label, made in (
            ("sum", reductions.sum(skipna=skipna)), ("count", reductions.count(skipna=skipna)))]
        terms = map_cells(weigh_sums, [*refs, weights], Space(), params={}, **given)
    else:
        values = ref if field.dtype.kind == "f" else (arithmetic("multiply", [ref, 1.0], field.name), field.name)
        terms = map_cells(weigh_values, [values, weights], Space(), params={"skipna": skipna}, **given)
    # Nothing is left out of these sums: what was missing is 0, and a NaN is the weights' or wasn't to be skipped.
    plain = reductions.sum(skipna=False)
    totals = [(reduced((terms, label), label, plain, along), label) for label in ("total", "weight")]
    result = totals[0] if how == "sum" else (map_cells(per_weight, totals, Space(), params={}, **given), "mean")
    return choose({name: result})


def constant(weights: Any, dims: Sequence[str], space: Space) -> Op:
    """Weights in memory as a column.

    Args:
        weights: an array for the only reduced dimension; or by dimension, whose products are meant.
        dims: reduced.
        space: of what is weighted.

    Raises:
        ParameterError: not a finite number for each position.
    """
    if not isinstance(weights, Mapping) and len(dims) != 1:
        raise ParameterError(f"weights in an array need one reduced dimension, not {', '.join(dims) or 'all'}",
                             hint='name theirs: weights={"lat": array}; or give a collection')
    named = weights if isinstance(weights, Mapping) else {dims[0]: weights}
    parts = []
    for dim, given in named.items():
        try:
            values = np.asarray(given, np.float64)
        except (TypeError, ValueError):
            values = np.full(1, np.nan)
        length = dict(space.dims).get(dim, len(values.reshape(-1)))  # a dimension that isn't there is refused later
        if values.shape != (length,) or not np.isfinite(values).all():
            raise ParameterError(f"the weights along {dim!r} aren't a finite number for each of its {length} positions")
        parts.append(values)
    table: Array = np.ones(())
    for part in parts:
        table = np.multiply.outer(table, part)
    source = from_arrays({"weights": table}, tuple(named))
    return Op(Load(source), (), (), source.space, source.fields, "weights")


class Weighted:
    """Weighted reductions, in terms of a collection's columns."""

    columns: dict[str, Ref]
    coords: tuple[Coordinate, ...]

    @property
    def space(self) -> Space:
        """The dimensions of all columns together."""
        raise TypeError(f"{type(self).__name__} has no space")

    @classmethod
    def of(cls, op: Op, coords: Iterable[Coordinate] = ()) -> Self:
        """All columns of an op."""
        raise TypeError(f"{cls.__name__} isn't made of an op")

    def _weighted(self, how: Any, dims: Sequence[str], weights: Any, skipna: bool = True, **options: Any) -> Self:
        if how not in ("sum", "mean") or options:
            extra = f" with {', '.join(options)}" if options else ""
            raise ParameterError(f"no weighted reduction {how!r}{extra}", hint='"sum" or "mean", with skipna= alone')
        if isinstance(weights, Weighted):
            if len(weights.columns) != 1:
                raise ParameterError(f"weights are one column, not {len(weights.columns)}", hint="select it by name")
            ref = next(iter(weights.columns.values()))
            merged_coords([self, weights])
        else:
            ref = (constant(weights, dims or self.space.names, self.space), "weights")
        made = {name: weighted(one, name, how, dims, ref, skipna) for name, one in self.columns.items()}
        coords = [c for c in self.coords if dims and c.dim not in dims]
        return self.of(choose({name: (op, name) for name, op in made.items()}), coords)
