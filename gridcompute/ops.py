"""Building ops from columns: checks what a caller said, and gives an `Op`. Collections are thin over these."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gridcompute.access import Access, Point, Whole
from gridcompute.actions.maps import Elementwise, Map
from gridcompute.actions.shapes import Choose
from gridcompute.columns import Field
from gridcompute.compiled import output_dtypes
from gridcompute.errors import AlignmentError, DimensionError, ParameterError, SignatureError, UsageError
from gridcompute.kernels import Kernel, runs
from gridcompute.op import Op
from gridcompute.skipping import on_error_of
from gridcompute.spaces import Space
from gridcompute.status import counted as number_of
from gridcompute.times import COMPARED, Moment, counted, require_moment, result_attrs, time_attrs

Ref = tuple[Op, str]
"""One column: its op and its name there."""


def field_of(ref: Ref) -> Field:
    """What the column is."""
    return ref[0].field(ref[1])


def joint_space(refs: Sequence[Ref]) -> Space:
    """The dimensions of several columns together.

    Raises:
        AlignmentError: a dimension has two lengths, or its cells were counted by different ops.
        DimensionError: two dimensions of unknown length.
    """
    space = Space()
    origins: dict[str, Op | None] = {}
    for op, name in refs:
        own = op.space.only(*op.field(name).dims)
        try:
            space = space.join(own)
        except DimensionError as error:
            raise AlignmentError(
                f"columns can't go together: {error.message} (column {name!r} of {op})",
                hint="take all of them from one collection, after it was filtered or selected from",
            ) from None
        for dim, length in own.dims:
            if length is None and origins.setdefault(dim, op.origin) is not op.origin:
                raise AlignmentError(
                    f"the cells along {dim!r} of column {name!r} aren't those of the other columns",
                    hint="map over columns of one table, or filter them together",
                )
    unknown = tuple(dim for dim in space.dims if dim[1] is None)
    if len(unknown) > 1:
        raise DimensionError(
            f"columns can't go together: how many cells {unknown[0][0]!r} and {unknown[1][0]!r} have isn't known "
            "before the run",
            hint="write one of them, run it, and open it again",
        )
    # Blocks of uncounted cells lie along the first dimension.
    return Space(unknown + tuple(dim for dim in space.dims if dim[1] is not None))


def gathered(refs: Sequence[Ref]) -> tuple[tuple[Op, ...], tuple[tuple[int, str], ...]]:
    """The distinct ops behind columns, and where each column is among them."""
    ops = tuple({id(op): op for op, _ in refs}.values())
    number = {id(op): i for i, op in enumerate(ops)}
    return ops, tuple((number[id(op)], name) for op, name in refs)


def map_cells(
    kernel: Kernel,
    refs: Sequence[Ref],
    cells: Space,
    *,
    names: Sequence[str] | None,
    params: Mapping[str, Any],
    seed: int,
    name: str,
    on_error: str | None = None,
) -> Op:
    """A kernel over columns (or over a space without columns: `cells`).

    Raises:
        SignatureError, DimensionError, AlignmentError, ParameterError: the kernel and the columns don't fit.
    """
    ops, columns = gathered(refs)
    core = check_inputs(kernel, refs)
    space = joint_space(refs) if refs else cells
    cored = {dim for dims in core for dim in dims}
    looped = {dim for ref, dims in zip(refs, core, strict=True) for dim in field_of(ref).dims if dim not in dims}
    if refs and cored & looped:
        dim = min(cored & looped)
        raise DimensionError(
            f"kernel {kernel.name}: dimension {dim!r} is a core dimension of one input, but another "
            "input has a cell for each of its positions",
            hint="give it the same core dimension there",
        )
    loop = tuple(dim for dim in space.names if dim in looped or not refs)
    accesses = tuple(
        _whole(op, {dim for (i, _), dims in zip(columns, core, strict=True) if ops[i] is op for dim in dims})
        for op in ops
    )
    bound = kernel.bind(params)
    dtypes = tuple(output_dtypes(kernel, [field_of(ref) for ref in refs], bound, ndim=max(len(loop), 1)))
    out_space, fields = _outputs(kernel, refs, space, loop, dtypes, names)
    inner = space.only(*loop).shape[1:]
    action = Map(kernel, columns, core, loop, tuple(bound.items()), dtypes, seed, name or kernel.name, inner,
                 on_error_of(kernel, on_error))
    fields = tuple(replace(f, nullable=action.skips) for f in fields)
    return Op(action, ops, accesses, out_space, fields, name or kernel.name)


def _whole(op: Op, dims: set[str]) -> Access:
    return Whole(tuple((dim, op.space[dim]) for dim in op.space.names if dim in dims)) if dims else Point


def check_inputs(kernel: Kernel, refs: Sequence[Ref], skip: int = 0) -> tuple[tuple[str, ...], ...]:
    """The core dimensions that each column's space has; the kernel's first inputs, `skip` of them, are no columns.

    Raises:
        SignatureError: the numbers of inputs differ, or a column is no fit for its place in the signature.
        DimensionError: a core dimension isn't one of the column's.
        UsageError: a column with nulls for a kernel that can't tell them.
    """
    wanted = kernel.signature.inputs[skip:]
    if len(wanted) != len(refs):
        named = ", ".join(repr(name) for _, name in refs) or "none"
        raise SignatureError(
            f"kernel {kernel.name} {kernel.signature} takes {len(wanted)} columns, but got {len(refs)}: {named}",
            hint="select the columns first: collection[['a', 'b']].map(...)",
        )
    core: list[tuple[str, ...]] = []
    for ref, dims in zip(refs, wanted, strict=True):
        field = field_of(ref)
        if field.ragged:
            if len(dims) != 1:
                raise SignatureError(
                    f"kernel {kernel.name} {kernel.signature}: column {field.name!r} holds a {field.kind} a cell",
                    hint="give its place in the signature one dimension, as in (n)->()",
                )
            core.append(())
        else:
            missing = [dim for dim in dims if dim not in field.dims]
            if missing:
                raise DimensionError(
                    f"kernel {kernel.name} {kernel.signature}: column {field.name!r} has no dimension {missing[0]!r}",
                    hint=f"its dimensions are {', '.join(field.dims) or 'none'}",
                )
            core.append(dims)
        if field.nullable and (field.ragged or field.dtype.kind != "f") and "valid" not in kernel.specials:
            held = field.kind if field.kind == "string" else f"list of {field.dtype}" if field.ragged else field.dtype
            raise UsageError(
                f"kernel {kernel.name}: column {field.name!r} ({held}) may have nulls, which only a float "
                "kernel sees as NaN",
                hint=f"drop them first: dropna({field.name!r}); or take a last argument `valid`"
                + ("" if field.ragged else f"; or fill them: [{field.name!r}].fillna(0)"),
            )
    return tuple(core)


def _outputs(
    kernel: Kernel,
    refs: Sequence[Ref],
    space: Space,
    loop: tuple[str, ...],
    dtypes: tuple[np.dtype[Any], ...],
    names: Sequence[str] | None,
) -> tuple[Space, tuple[Field, ...]]:
    own = {dims[0] for dims, ref in zip(kernel.signature.inputs, refs, strict=True) if field_of(ref).ragged}
    own |= set(runs(kernel))
    out = space.only(*loop)
    fields = []
    chosen = output_names(kernel, names)
    for dims, dtype, label in zip(kernel.signature.outputs, dtypes, chosen, strict=True):
        if dims and dims[0] in own:
            if len(dims) > 1 or len(loop) != 1:
                raise SignatureError(
                    f"kernel {kernel.name}: output {label!r} can't have a variable length and further dimensions"
                )
            fields.append(Field(label, loop, dtype, "list"))
            continue
        for dim in dims:
            length = kernel.sizes.get(dim, dict(space.dims).get(dim))
            if dim in loop:
                raise DimensionError(
                    f"kernel {kernel.name}: output dimension {dim!r} is also one that it runs over",
                    hint="give the output dimension another name",
                )
            out = out.join(Space(((dim, length),)))
        fields.append(Field(label, (*loop, *dims), dtype))
    return out, tuple(fields)


def output_names(kernel: Kernel, names: Sequence[str] | None) -> tuple[str, ...]:
    """Names of a kernel's outputs: as said here, as said at the kernel, or after the kernel.

    Raises:
        SignatureError: not one name an output, or one twice.
    """
    count = len(kernel.signature.outputs)
    chosen = tuple(names) if names is not None else kernel.names
    if not chosen:
        chosen = (kernel.name,) if count == 1 else tuple(f"{kernel.name}_{i}" for i in range(count))
    if len(chosen) != count or len(set(chosen)) != count:
        raise SignatureError(
            f"kernel {kernel.name} has {number_of(count, 'output')}, but the names {chosen}",
            hint="give each its own name",
        )
    return chosen


def arithmetic(ufunc: str, operands: Sequence[Ref | float | int | bool | np.generic | Moment], label: str) -> Op:
    """A NumPy ufunc over columns, plain numbers, and dates or durations, which become numbers of a column's unit.

    Raises:
        ParameterError: a column of strings or lists; times that don't go together, see `times.result_attrs`.
    """
    refs = [operand for operand in operands if isinstance(operand, tuple)]
    for ref in refs:
        if field_of(ref).ragged:
            raise ParameterError(
                f"column {ref[1]!r} holds a {field_of(ref).kind} a cell: no arithmetic on it",
                hint="map a kernel over it",
            )
    space = joint_space(refs)
    ops, columns = gathered(refs)
    places, units = iter(columns), [time_attrs(field_of(o)) if isinstance(o, tuple) else () for o in operands]
    plain: list[tuple[int, str] | float | int | bool] = []
    words = [str(one) if isinstance(one, Moment) else "" for one in operands]
    for i, operand in enumerate(operands):
        if isinstance(operand, tuple):
            plain.append(next(places))
        elif isinstance(operand, Moment):
            value, units[i] = counted(operand, field_of(refs[0]))
            if isinstance(value, float) and ufunc in ("add", "subtract"):
                raise ParameterError(f"column {refs[0][1]!r} counts whole {json.loads(dict(units[i])['units'])}, which "
                                     f"doesn't go with {operand!r}", hint="convert the column by a kernel first")
            plain.append(value)
        else:
            number: Any = operand.item() if isinstance(operand, np.generic) else operand
            if ufunc in COMPARED:
                require_moment(number, *(field_of(ref) for ref in refs))
            plain.append(number)
    samples = [np.ones(1, field_of(o).dtype) if isinstance(o, tuple) else p
               for o, p in zip(operands, plain, strict=True)]
    try:
        with np.errstate(all="ignore"):
            dtype = np.asarray(getattr(np, ufunc)(*samples)).dtype
    except (TypeError, ValueError, OverflowError) as error:
        raise ParameterError(
            f"{ufunc} doesn't go with {', '.join(str(getattr(s, 'dtype', s)) for s in samples)}: {error}"
        ) from None
    nullable = any(field_of(ref).nullable for ref in refs)
    attrs = result_attrs(ufunc, units, dtype.kind in "iu") if any(units) else ()
    field = Field(label, space.names, dtype, nullable=nullable, attrs=attrs)
    action = Elementwise(ufunc, tuple(plain), words=tuple(words) if any(words) else ())
    return Op(action, ops, (Point,) * len(ops), space, (field,), ufunc)


def choose(columns: Mapping[str, Ref]) -> Op:
    """Columns side by side under their new names; the op itself where nothing changes."""
    refs = list(columns.values())
    first = refs[0][0]
    if all(op is first for op, _ in refs) and list(columns) == [f.name for f in first.fields] == [
        name for _, name in refs
    ]:
        return first
    ops, places = gathered(refs)
    fields = tuple(field_of(ref).renamed(name) for name, ref in columns.items())
    return Op(
        Choose(tuple(zip(columns, places, strict=True))),
        ops,
        (Point,) * len(ops),
        joint_space(refs),
        fields,
        "+".join(dict.fromkeys(str(op) for op in ops)),
    )
