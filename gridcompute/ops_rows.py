"""Building ops over rows: one dimension, of which the data may decide the length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gridcompute.access import Point
from gridcompute.actions.maps import Map
from gridcompute.actions.rows import Explode, Filter
from gridcompute.actions.shuffles import Shuffle
from gridcompute.columns import Field
from gridcompute.compiled import output_dtypes
from gridcompute.errors import DimensionError, ParameterError, SignatureError
from gridcompute.kernels import Kernel
from gridcompute.op import Op
from gridcompute.ops import Ref, check_inputs, field_of, gathered, joint_space, output_names
from gridcompute.spaces import Space


def one_dimension(op: Op, verb: str) -> str:
    """The name of the only dimension.

    Raises:
        DimensionError: there are others.
    """
    if len(op.space.names) != 1:
        raise DimensionError(
            f"{verb} works on rows: one dimension, but there are {op.space}", hint="reduce or isel the others first"
        )
    return op.space.names[0]


def filter_rows(op: Op, mask: Ref) -> Op:
    """Rows of `op` where a boolean column of the same rows is true."""
    dim = one_dimension(op, "filter")
    if field_of(mask).dims != (dim,):
        raise DimensionError(
            f"filter needs a condition for each cell along {dim!r}, but {mask[1]!r} spans "
            f"({', '.join(field_of(mask).dims)})",
            hint="compare a column of the same rows",
        )
    if field_of(mask).dtype != np.bool_:
        raise ParameterError(
            f"filter needs a boolean column, but {mask[1]!r} is {field_of(mask).dtype}",
            hint="compare it with something",
        )
    joint_space([(op, op.fields[0].name), mask])
    return Op(Filter(mask[1]), (op, mask[0]), (Point, Point), Space(((dim, None),)), op.fields, "filter")


def explode_rows(
    kernel: Kernel,
    refs: Sequence[Ref],
    *,
    keep: Op | None,
    names: Sequence[str] | None,
    params: Mapping[str, Any],
    dim: str,
    most: int | None,
    seed: int,
    name: str,
) -> Op:
    """One row to many: the elements of the arrays that a kernel gives."""
    core = check_inputs(kernel, refs)
    space = joint_space(refs)
    if len(space.names) != 1 or any(core):
        raise DimensionError(
            f"explode works on rows: one dimension, but there are {space}", hint="reduce or isel the others first"
        )
    lengths = set(kernel.signature.outputs)
    if len(lengths) != 1 or len(next(iter(lengths))) != 1:
        raise SignatureError(
            f"kernel {kernel.name} {kernel.signature}: explode needs outputs of one shared dimension: (n)->(k),(k)"
        )
    bound = kernel.bind(params)
    dtypes = tuple(output_dtypes(kernel, [field_of(ref) for ref in refs], bound))
    ops, columns = gathered([*([(keep, f.name) for f in keep.fields] if keep else []), *refs])
    columns = columns[len(columns) - len(refs) :]
    cells = Map(kernel, columns, core, space.names, tuple(bound.items()), dtypes, seed, name or kernel.name)
    made = tuple(Field(label, (dim,), dtype) for label, dtype in zip(output_names(kernel, names), dtypes, strict=True))
    twice = sorted({f.name for f in made} & {f.name for f in keep.fields}) if keep else []
    if twice:
        raise ParameterError(f"explode would give two columns {twice[0]!r}: a kept one and an output of {kernel.name}",
                             hint="name the outputs by names=, or rename the column first")
    if most is not None and (not isinstance(most, int | np.integer) or isinstance(most, bool) or most < 0):
        raise ParameterError(f"explode got max={most!r}", hint="the most rows that a cell gives, 0 or more")
    kept = tuple(Field(f.name, (dim,), f.dtype, f.kind, f.nullable, f.attrs) for f in keep.fields) if keep else ()
    action = Explode(cells, tuple(f.name for f in kept), most)
    return Op(action, ops, (Point,) * len(ops), Space(((dim, None),)), (*kept, *made), name or kernel.name)


def shuffle(op: Op, keys: Sequence[tuple[str, bool]], order: bool) -> Op:
    """Rows brought together by key, or sorted by it."""
    dim = one_dimension(op, "sort" if order else "shuffle")
    known = [f.name for f in op.fields]
    for key, _ in keys:
        if key not in known:
            raise ParameterError(
                f"no column {key!r} to {'sort' if order else 'shuffle'} by", hint=f"the columns are {', '.join(known)}"
            )
    for key, _ in keys:
        if order and op.field(key).kind == "list":
            raise ParameterError(f"column {key!r} holds a list a cell: no order to sort by",
                                 hint="map a kernel over it, sort by that")
        if dim not in op.field(key).dims:
            raise DimensionError(f"column {key!r} has no cell for each position along {dim!r}",
                                 hint="go by another column")
    if not keys:
        raise ParameterError("a sort or shuffle needs at least one column to go by")
    return Op(
        Shuffle(tuple(keys), order), (op,), (Point,), Space(((dim, None),)), op.fields, "sort" if order else "shuffle"
    )
