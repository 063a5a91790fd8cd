"""Building reductions: over dimensions, or into the groups of a coordinate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Generic, Protocol, Self, TypeVar

import numpy as np

from gridcompute import reductions
from gridcompute.access import Part, Whole
from gridcompute.actions.folds import Reduce
from gridcompute.actions.shapes import Concat
from gridcompute.auxiliary import Auxiliary, plain
from gridcompute.cellmethods import METHODS, described
from gridcompute.columns import Array, Field
from gridcompute.coords import Coordinate, components, concatenated, difference
from gridcompute.errors import AlignmentError, DimensionError, MissingInputError, ParameterError
from gridcompute.op import Op
from gridcompute.ops import Ref, field_of
from gridcompute.reducer import Reduction
from gridcompute.skipping import refuse_on_error
from gridcompute.spaces import Space
from gridcompute.times import time_attrs

C_co = TypeVar("C_co", covariant=True)

BUILTINS = ("sum", "count", "mean", "var", "std", "min", "max", "argmin", "argmax", "any", "all", "first", "last")


class Reducible:
    """The common reductions as methods, in terms of `reduce`."""

    def reduce(self, how: str | Reduction, dims: str | Sequence[str] = (), **options: Any) -> Self:
        """One reduction over dimensions; see `Collection.reduce`."""
        raise TypeError(f"{type(self).__name__} can't be reduced")

    def sum(self, dims: str | Sequence[str] = (), **options: Any) -> Self:
        """See `reduce`."""
        return self.reduce("sum", dims, **options)

    def mean(self, dims: str | Sequence[str] = (), **options: Any) -> Self:
        """See `reduce`."""
        return self.reduce("mean", dims, **options)

    def var(self, dims: str | Sequence[str] = (), **options: Any) -> Self:
        """See `reduce`."""
        return self.reduce("var", dims, **options)

    def std(self, dims: str | Sequence[str] = (), **options: Any) -> Self:
        """See `reduce`."""
        return self.reduce("std", dims, **options)

    def min(self, dims: str | Sequence[str] = (), **options: Any) -> Self:
        """See `reduce`."""
        return self.reduce("min", dims, **options)

    def max(self, dims: str | Sequence[str] = (), **options: Any) -> Self:
        """See `reduce`."""
        return self.reduce("max", dims, **options)

    def count(self, dims: str | Sequence[str] = (), **options: Any) -> Self:
        """See `reduce`."""
        return self.reduce("count", dims, **options)


class GroupBy(Generic[C_co]):
    """A collection in groups: by labels of a dimension, along which the groups then lie first, or by columns of rows.

    Args:
        reduced: gives all columns reduced into the groups.
    """

    def __init__(self, reduced: Callable[[Reduction], C_co]) -> None:
        self._reduced = reduced

    def reduce(self, how: str | Reduction, **options: Any) -> C_co:
        """See `Collection.reduce`."""
        return self._reduced(chosen(how, options))

    def __getattr__(self, name: str) -> Callable[..., C_co]:
        if name not in BUILTINS:
            raise AttributeError(f"groupby has no {name!r}: one of {', '.join(BUILTINS)}, or reduce(...)")
        return partial(self.reduce, name)


def chosen(how: str | Reduction, options: Mapping[str, Any]) -> Reduction:
    """A builtin reduction by name, or the given one.

    Raises:
        ParameterError: no builtin has that name, or an option it doesn't take.
    """
    refuse_on_error(options, "a reduction")
    if isinstance(how, Reduction):
        return how
    known = (*BUILTINS, "mean_and_count", "mean_and_var", "histogram", "topk", "quantile", "linregress")
    if how not in known:
        raise ParameterError(f"no reduction {how!r}", hint=f"one of {', '.join(known)}, or your own by grid.reduction")
    try:
        made: Reduction = getattr(reductions, how)(**options)
    except TypeError as error:
        named = {"dim", "dims", "axis"} & set(options)
        hint = f"name dimensions without {named.pop()}=: {how}('time')" if named else ""
        raise ParameterError(f"reduction {how}: {error}", hint=hint) from None
    return made


def reduced(
    ref: Ref, name: str, reduction: Reduction, dims: Sequence[str], group: tuple[Coordinate, Array] | None = None
) -> Op:
    """One column reduced over dimensions.

    Args:
        ref: the column.
        name: of the result; several outputs append their own names.
        reduction: what is computed.
        dims: reduced dimensions; all where empty.
        group: the groups' coordinate, and the group of each position along the one reduced dimension.

    Raises:
        DimensionError: a dimension that the column doesn't have.
        ParameterError: strings and lists can only be counted; a dtype that the reduction doesn't take; a sum of dates.
    """
    op, field = ref[0], field_of(ref)
    over = tuple(dim for dim in field.dims if dim in dims) if dims else field.dims
    missing = [dim for dim in dims if dim not in field.dims]
    if missing:
        raise DimensionError(f"column {field.name!r} has no dimension {missing[0]!r} to reduce over",
                             hint=f"its dimensions are {', '.join(field.dims) or 'none'}")
    if not over:
        raise DimensionError(f"column {field.name!r} has no dimension to reduce over")
    if len(over) > 1 and reduction.positional:
        raise DimensionError(f"{reduction.name} of column {field.name!r} over {', '.join(over)}: which position comes "
                             "first is plain along one dimension only",
                             hint=f"reduce over one dimension: reduce({reduction.name!r}, {over[0]!r})")
    if reduction.length and op.space[over[0]] not in (None, reduction.length):
        raise ParameterError(f"{reduction.name} of column {field.name!r} knows {reduction.length} positions, but "
                             f"{over[0]} has {op.space[over[0]]}",
                             hint="give an x for each position of the reduced dimension")
    if field.ragged:
        raise ParameterError(
            f"column {field.name!r} holds a {field.kind} a cell: {reduction.name} can't take it",
            hint="map a kernel first",
        )
    lead = ((group[0].dim, len(group[0])),) if group else ()
    kept = tuple((dim, op.space[dim]) for dim in field.dims if dim not in over)
    outs = reduction.output_fields(field.dtype)
    space = Space((*lead, *kept))
    fields = []
    for out in outs:
        space = space.join(Space(out.dims))
        label = name if len(outs) == 1 else f"{name}_{out.name}"
        dims_out = (*(n for n, _ in lead), *(n for n, _ in kept), *(n for n, _ in out.dims))
        what = out.name if out.name in (*METHODS, "count") else reduction.name
        attrs = still_times(what, field) or described(what, field, over)
        fields.append(Field(label, dims_out, out.dtype, nullable=out.nullable, attrs=attrs))
    codes = None if group is None else group[1]
    action = Reduce(reduction, field.name, over, tuple(f.name for f in fields), lead[0] if lead else None, codes)
    access = Whole(tuple((dim, op.space[dim]) for dim in over))
    by = f" by {group[0].name}" if group else ""
    return Op(action, (op,), (access,), space, tuple(fields), f"{reduction.name}({', '.join(over)}{by})")


def still_times(name: str, field: Field) -> tuple[tuple[str, str], ...]:
    """The attributes that make results times: where they are values of the column, or something between them."""
    attrs = time_attrs(field)
    if name == "sum" and attrs:
        if "dtype" not in dict(attrs):
            raise ParameterError(f"column {field.name!r} holds dates, which can't be added up",
                                 hint="take its min, max, mean or count, or select the other columns first")
        return attrs
    return attrs if name in ("min", "max", "first", "last", "topk", "mean", "quantile") else ()


def group_keys(by: Any, columns: Iterable[str], coords: Sequence[Coordinate], dim: str | None) -> list[str]:
    """The columns that `by` names; none where it names a coordinate, or gives labels."""
    known = set(columns)
    if isinstance(by, str):
        base = by.partition(".")[0]
        if any(base in (c.name, c.dim) for c in plain(coords)):
            return []
        if by not in known and base in known:
            raise DimensionError(f"can't group by {by!r}: parts are those of a coordinate, and {base!r} is a column",
                                 hint=f"group by a column that a kernel computes from {base!r}")
        if by not in known:
            raise DimensionError(f"can't group by {by!r}: no column or coordinate has this name",
                                 hint=f"the columns are {', '.join(columns)}; the coordinates "
                                      f"{', '.join(c.name for c in plain(coords)) or 'none'}; or give labels and dim=")
        return [by]
    named = dim is None and isinstance(by, list | tuple) and by and all(isinstance(one, str) for one in by)
    if named and (missing := [name for name in by if name not in known]):
        raise MissingInputError(f"no column {missing[0]!r} to group by", hint=f"the columns are {', '.join(known)}")
    return list(by) if named else []


def group_codes(
    by: Any, coords: Sequence[Coordinate], space: Space, dim: str | None
) -> tuple[str, Coordinate, Array]:
    """The grouped dimension, the coordinate of the groups, and each position's group.

    Args:
        by: "time.month" and the like, a coordinate's name (groups are its distinct labels), or one label a position.
        coords: of the collection.
        space: of the collection.
        dim: the dimension, where `by` holds labels.

    Raises:
        DimensionError, ParameterError: no such coordinate or dimension; labels of another length.
    """
    if isinstance(by, str):
        base, _, part = by.partition(".")
        found = next((c for c in plain(coords) if c.name == base or c.dim == base), None)
        if found is None:
            raise DimensionError(f"can't group by {by!r}: {base!r} has no coordinate",
                                 hint=f"coordinates: {', '.join(c.name for c in plain(coords)) or 'none'}; or name a "
                                      "column of rows, or give a label for each position and dim=")
        labels = components(found, part) if part else found.labels()  # type: ignore[arg-type]
        return _coded(found.dim, part or f"{base}_group", labels)
    labels = np.asarray(by)
    if dim is None:
        raise ParameterError("groupby with labels needs dim=, the dimension they belong to")
    if labels.shape != (space[dim],):
        raise ParameterError(f"groupby got labels of shape {labels.shape} for dimension {dim!r} of length {space[dim]}")
    return _coded(dim, "group", labels)


def _coded(dim: str, name: str, labels: Array) -> tuple[str, Coordinate, Array]:
    distinct, codes = np.unique(labels, return_inverse=True)
    return dim, Coordinate(name, name, distinct), codes.astype(np.int64)


def concat_ops(parts: Sequence[Op], dim: str) -> Op:
    """Ops with the same columns one after the other along a dimension.

    Raises:
        AlignmentError: columns, dtypes or other dimensions differ.
        DimensionError: a part hasn't the dimension, or its length there isn't known.
    """
    first = parts[0]
    for i, op in enumerate(parts[1:], 1):
        mine = [(f.name, f.dims, f.dtype, f.kind) for f in op.fields]
        if mine != [(f.name, f.dims, f.dtype, f.kind) for f in first.fields]:
            raise AlignmentError(f"part {i} of the concatenation has other columns than the first: {mine}")
        for f, own in zip(first.fields, op.fields, strict=True):
            if time_attrs(f) != time_attrs(own):
                raise AlignmentError(f"column {f.name!r} of part {i} of the concatenation doesn't count times as the "
                                     f"first does: {dict(time_attrs(own))}, {dict(time_attrs(f))}",
                                     hint="convert one by a kernel, or read all files as one type")
        if op.space.without(dim) != first.space.without(dim):
            raise AlignmentError(
                f"part {i} of the concatenation has the dimensions {op.space}, the first {first.space}"
            )
    accesses, offset = [], 0
    for op in parts:
        length = op.space[dim]
        if length is None:
            raise DimensionError(f"{op} can't be concatenated along {dim!r}: its length isn't known before the run",
                                 hint="read all files by one call (a list of paths), or write and open it again")
        accesses.append(Part(dim, offset, length))
        offset += length
    space = Space(tuple((name, offset if name == dim else n) for name, n in first.space.dims))
    nullable = {f.name: any(op.field(f.name).nullable for op in parts) for f in first.fields}
    fields = tuple(Field(f.name, f.dims, f.dtype, f.kind, nullable[f.name], f.attrs) for f in first.fields)
    if any(dim not in f.dims for f in fields):
        raise DimensionError(
            f"a column doesn't span {dim!r}, so it can't be concatenated along it", hint="select the columns that do"
        )
    return Op(Concat(dim), tuple(parts), tuple(accesses), space, fields, "concat")


class Labelled(Protocol):
    """What has coordinates."""

    coords: tuple[Coordinate, ...]


def merged_coords(parts: Sequence[Labelled]) -> tuple[Coordinate, ...]:
    """The coordinates of several collections together; scalar and curvilinear ones only where they don't disagree.

    Raises:
        AlignmentError: two have other labels for a dimension.
    """
    known: dict[tuple[str, str], Coordinate] = {}  # a dimension may have several coordinates, of different names
    disagree: set[str] = set()
    for one in parts:
        for c in one.coords:
            if isinstance(c, Auxiliary):
                disagree |= {c.name} if known.setdefault(("", c.name), c) != c else set()
                continue
            if (c.dim, c.name) in known and (why := difference(known[c.dim, c.name], c)):
                raise AlignmentError(
                    f"the coordinates of dimension {c.dim!r} differ: {why}", hint="select the same labels of both first"
                )
            known.setdefault((c.dim, c.name), c)
    return tuple(c for (dim, name), c in known.items() if dim or name not in disagree)


def concat_coords(parts: Sequence[Sequence[Coordinate]], dim: str) -> list[Coordinate]:
    """The coordinates along the dimension of a concatenation: those that every part has, end to end.

    Raises:
        AlignmentError: parts of different calendars or types.
    """
    joined = []
    for name in dict.fromkeys(c.name for c in parts[0] if c.dim == dim):
        along = [c for part in parts for c in part if (c.dim, c.name) == (dim, name)]
        joined += [concatenated(along)] if len(along) == len(parts) else []
    return joined
