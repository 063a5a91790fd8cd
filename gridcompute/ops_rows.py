"""Building ops over rows: one dimension, of which the data may decide the length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gridcompute.access import Point
from gridcompute.actions.groups import Group
from gridcompute.actions.maps import Map
from gridcompute.actions.rows import Explode, Filter
from gridcompute.actions.shuffles import Shuffle
from gridcompute.columns import Field
from gridcompute.compiled import output_dtypes
from gridcompute.errors import DimensionError, ParameterError, SignatureError
from gridcompute.kernels import Kernel
from gridcompute.op import Op
from gridcompute.ops import Ref, check_inputs, field_of, gathered, joint_space, output_names
from gridcompute.reducer import Reduction
from gridcompute.reducing import still_times
from gridcompute.skipping import on_error_of
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
    on_error: str | None = None,
) -> Op:
    """One row to many: the elements of the arrays that a kernel gives."""
    core = check_inputs(kernel, refs)
    space = joint_space(refs)
    loop = tuple(name for name in space.names if any(
        name in field_of(ref).dims and name not in own for ref, own in zip(refs, core, strict=True)))
    if len(loop) != 1 or any(field_of(ref).dims[0] != loop[0] or loop[0] in own
                             for ref, own in zip(refs, core, strict=True)):
        raise DimensionError(
            f"explode works on rows: one dimension, but there are {space}",
            hint="reduce or isel the others first; or give those behind the first to the kernel whole: (rank)->(k)",
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
    cells = Map(kernel, columns, core, loop, tuple(bound.items()), dtypes, seed, name or kernel.name,
                on_error=on_error_of(kernel, on_error))
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


def group_rows(op: Op, keys: Sequence[str], reduction: Reduction) -> Op:
    """One row for each distinct key: the keys, then the other columns reduced.

    Raises:
        DimensionError: several dimensions, or a column without cells along the one.
        ParameterError: a key of lists; a reduction that gives several values or positions; text that isn't counted.
    """
    dim = one_dimension(op, "groupby a column")
    ordered = shuffle(op, [(key, False) for key in keys], order=True)
    if reduction.positional or any(out.dims for out in reduction.outputs):
        raise ParameterError(f"groupby a column: {reduction.name} doesn't give one value a group",
                             hint="group by labels that are given with dim=, or sort and map a @grid.task")
    fields = [replace(op.field(key), nullable=False) for key in keys]
    columns = []
    for f in op.fields:
        if f.name in keys:
            continue
        if f.dims != (dim,):
            raise DimensionError(f"column {f.name!r} has no cell for each position along {dim!r}",
                                 hint="select the columns that have")
        if f.ragged and reduction.name != "count":
            raise ParameterError(f"column {f.name!r} holds a {f.kind} a cell: {reduction.name} can't take it",
                                 hint="select the other columns first, count it, or map a kernel over it")
        outs = reduction.output_fields(np.dtype(np.int8) if f.ragged else f.dtype)
        names = tuple(f.name if len(outs) == 1 else f"{f.name}_{out.name}" for out in outs)
        columns.append((f.name, names))
        attrs = still_times(reduction.name, f)
        fields += [Field(name, (dim,), out.dtype, nullable=out.nullable, attrs=attrs)
                   for name, out in zip(names, outs, strict=True)]
    if not columns:
        raise ParameterError("groupby has no column but its keys", hint="assign one to reduce or count")
    if twice := sorted({f.name for f in fields if [g.name for g in fields].count(f.name) > 1}):
        raise ParameterError(f"groupby would give two columns {twice[0]!r}", hint="rename one first")
    group = Group(tuple((key, False) for key in keys), True, reduction, tuple(columns))
    return replace(ordered, action=group, fields=tuple(fields), name=group.label)


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
