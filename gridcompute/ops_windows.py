"""Building ops over neighbourhoods: a stencil once, or step after step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, get_args

import numpy as np

from gridcompute.access import Boundary, Halo, Whole
from gridcompute.actions.maps import Map
from gridcompute.actions.stencils import Edges, Iterate, Stencil
from gridcompute.columns import Field
from gridcompute.compiled import output_dtypes
from gridcompute.errors import DimensionError, ParameterError, SignatureError, UsageError
from gridcompute.kernels import Kernel
from gridcompute.op import Op
from gridcompute.ops import Ref, field_of, joint_space, output_names
from gridcompute.ops_rows import one_dimension
from gridcompute.skipping import on_error_of, refuse_on_error
from gridcompute.spaces import Space


def halo_of(op: Op, halo: Mapping[str, int | tuple[int, int]], boundary: str | Mapping[str, str]) -> Halo:
    """A checked halo; a boundary by dimension may leave some out, which are clipped.

    Raises:
        DimensionError: an unknown dimension.
        ParameterError: a negative width, an unknown boundary, or one of a dimension without a halo.
    """
    by_name = boundary if isinstance(boundary, Mapping) else dict.fromkeys([*halo], boundary)
    for name, kind in by_name.items():
        if name not in halo:
            raise ParameterError(f"boundary names the dimension {name!r}, which has no halo",
                                 hint=f"the halo's dimensions are {', '.join(map(str, halo)) or 'none'}")
        if kind not in get_args(Boundary):
            raise ParameterError(f"the boundary of {name!r} is {kind!r}", hint="one of clip, periodic, fill")
    dims = []
    for name, width in halo.items():
        sides = tuple(width) if isinstance(width, tuple | list) else (width, width)
        if len(sides) != 2 or not all(isinstance(w, int | np.integer) and not isinstance(w, bool) for w in sides):
            raise ParameterError(f"the halo of {name!r} is {width!r}", hint="a number of cells, or (before, after)")
        before, after = sides
        if before < 0 or after < 0:
            raise ParameterError(f"the halo of {name!r} is negative: {width}")
        length = op.space[name]
        dims.append((name, int(before), int(after), length or 0))
    return Halo(tuple(dims), tuple(by_name.get(name, "clip") for name in halo))  # type: ignore[misc]


def stencil(
    kernel: Kernel,
    ref: Ref,
    halo: Halo,
    *,
    names: Sequence[str] | None,
    params: Mapping[str, Any],
    fill: float,
    seed: int,
    name: str,
    on_error: str | None = None,
) -> Op:
    """A kernel over the window around each cell; its core dimensions are the halo's, in the signature's order."""
    cells, _ = _window_cells(kernel, [ref], halo, params, seed, name)
    cells = replace(cells, on_error=on_error_of(kernel, on_error))
    require_fill(ref, halo, fill)
    space = ref[0].space.only(*field_of(ref).dims)
    fields = tuple(
        Field(label, space.names, dtype, nullable=cells.skips)
        for label, dtype in zip(output_names(kernel, names), cells.dtypes, strict=True)
    )
    return Op(
        Stencil(cells, _ordered(kernel, halo), fill), (ref[0],), (_ordered(kernel, halo),), space, fields, cells.name
    )


def _ordered(kernel: Kernel, halo: Halo) -> Halo:
    by_name = {dim[0]: (dim, boundary) for dim, boundary in zip(halo.dims, halo.boundaries, strict=True)}
    ordered = [by_name[name] for name in kernel.signature.inputs[0]]
    return Halo(tuple(dim for dim, _ in ordered), tuple(boundary for _, boundary in ordered))


def _window_cells(
    kernel: Kernel, refs: Sequence[Ref], halo: Halo, params: Mapping[str, Any], seed: int, name: str
) -> tuple[Map, Space]:
    windows = {dim for dim, *_ in halo.dims}
    if (
        len(kernel.signature.inputs) != len(refs)
        or any(set(dims) != windows for dims in kernel.signature.inputs)
        or any(kernel.signature.outputs)
    ):
        raise SignatureError(
            f"kernel {kernel.name} {kernel.signature} doesn't take a window over {', '.join(sorted(windows))} of "
            f"{len(refs)} columns and give one value each",
            hint=f"its signature would be ({','.join(sorted(windows))})->()",
        )
    if any(dims != kernel.signature.inputs[0] for dims in kernel.signature.inputs):
        raise SignatureError(f"kernel {kernel.name} {kernel.signature}: its windows order dimensions differently",
                             hint="write them in the same order")
    bound = kernel.bind(params)
    for ref in refs:
        require_windows(kernel, ref, windows)
        if field_of(ref).nullable and field_of(ref).dtype.kind != "f" and "valid" not in kernel.specials:
            raise UsageError(f"kernel {kernel.name}: column {ref[1]!r} may have nulls",
                             hint=f"take a last argument `valid`, or fill them first: [{ref[1]!r}].fillna(0)")
    space = joint_space(refs)
    dtypes = tuple(output_dtypes(kernel, [field_of(ref) for ref in refs], bound, ndim=len(space.names)))
    columns = tuple((0, ref[1]) for ref in refs)
    return Map(
        kernel, columns, kernel.signature.inputs, space.names, tuple(bound.items()), dtypes, seed, name or kernel.name,
        space.shape[1:],
    ), space


def require_windows(kernel: Kernel, ref: Ref, windows: set[str]) -> None:
    """Refuse a column without windows.

    Raises:
        ParameterError: a column of strings or lists.
        DimensionError: a column that doesn't span the windows' dimensions.
    """
    field = field_of(ref)
    if field.ragged:
        raise ParameterError(f"kernel {kernel.name}: column {field.name!r} holds a {field.kind} a cell: no windows "
                             "of it", hint="map a kernel over it first")
    missing = sorted(windows - set(field.dims))
    if missing:
        raise DimensionError(f"kernel {kernel.name}: column {field.name!r} has no dimension {missing[0]!r}",
                             hint=f"its dimensions are {', '.join(field.dims) or 'none'}")


def require_fill(ref: Ref, halo: Halo, fill: float) -> None:
    """Refuse a value outside that the column's dtype doesn't hold.

    Raises:
        ParameterError: naming both.
    """
    dtype = field_of(ref).dtype
    if "fill" not in halo.boundaries:
        return
    try:
        with np.errstate(all="ignore"):
            fits = dtype.kind == "f" or dtype.type(fill) == fill
    except (TypeError, ValueError, OverflowError):
        fits = False
    if not fits:
        raise ParameterError(f"column {ref[1]!r} is {dtype}, which doesn't hold fill={fill!r}",
                             hint="give a fill of its dtype, or convert the column first")


def iterate(
    kernel: Kernel,
    op: Op,
    steps: int,
    neighbours: Halo | Edges,
    *,
    params: Mapping[str, Any],
    fill: float,
    keep: int,
    seed: int,
    name: str,
) -> Op:
    """The kernel `steps` times over all columns of an op, each value replaced by what the kernel gives."""
    refuse_on_error(params, "iterate")
    for number, what in ((steps, f"iterate can't take {steps!r} steps"), (keep, f"iterate: checkpoint is {keep!r}")):
        if not isinstance(number, int | np.integer) or isinstance(number, bool) or number < 0:
            raise ParameterError(what, hint="a whole number, 0 or more")
    refs = [(op, f.name) for f in op.fields]
    for ref in refs:
        field = field_of(ref)
        require_windows(kernel, ref, set(op.space.names))  # all columns go from step to step together
        if field.nullable and field.dtype.kind != "f":
            raise UsageError(f"iterate: column {field.name!r} ({field.dtype}) may have nulls, which have no next step",
                             hint=f"fill them first: [{field.name!r}].fillna(0)")
        if isinstance(neighbours, Halo):
            require_fill(ref, neighbours, fill)
    if isinstance(neighbours, Halo):
        cells, _ = _window_cells(kernel, refs, neighbours, params, seed, name)
        neighbours = _ordered(kernel, neighbours)
    else:
        one_dimension(op, "iterate over edges")
        bound = kernel.bind(params)
        ragged = [Field(f.name, f.dims, f.dtype, "list") for f in op.fields]
        if any(len(dims) != 1 for dims in kernel.signature.inputs) or any(kernel.signature.outputs):
            raise SignatureError(
                f"kernel {kernel.name} {kernel.signature} doesn't take the values of a cell's neighbours",
                hint="its signature would be (n)->()",
            )
        dtypes = tuple(output_dtypes(kernel, ragged, bound))
        columns = tuple((0, f.name) for f in op.fields)
        cells = Map(
            kernel, columns, ((),) * len(refs), op.space.names, tuple(bound.items()), dtypes, seed, name or kernel.name
        )
    if len(cells.dtypes) != len(op.fields):
        raise SignatureError(
            f"kernel {kernel.name} gives {len(cells.dtypes)} values for {len(op.fields)} columns, not one each"
        )
    fields = tuple(Field(f.name, f.dims, f.dtype, attrs=f.attrs) for f in op.fields)
    whole = Whole(tuple(op.space.dims))
    return Op(Iterate(cells, steps, neighbours, fill, keep), (op,), (whole,), op.space, fields, cells.name)
