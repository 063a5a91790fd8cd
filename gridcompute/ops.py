"""Building ops from columns: checks what a caller said, and gives an `Op`. Collections are thin over these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gridcompute.access import Access, Halo, Point, Slice, Take, Whole
from gridcompute.actions.maps import Elementwise, Map
from gridcompute.actions.rows import Explode, Filter
from gridcompute.actions.shapes import Choose, Select, TakeAt
from gridcompute.actions.shuffles import Shuffle
from gridcompute.actions.stencils import Edges, Iterate, Stencil
from gridcompute.columns import Array, Field
from gridcompute.compiled import output_dtypes
from gridcompute.errors import AlignmentError, DimensionError, ParameterError, SignatureError, UsageError
from gridcompute.kernels import Kernel
from gridcompute.op import Op
from gridcompute.spaces import Space

Ref = tuple[Op, str]
"""One column: its op and its name there."""


def field_of(ref: Ref) -> Field:
    """What the column is."""
    return ref[0].field(ref[1])


def joint_space(refs: Sequence[Ref]) -> Space:
    """The dimensions of several columns together.

    Raises:
        AlignmentError: a dimension has two lengths, or its cells were counted by different ops.
    """
    space = Space()
    origins: dict[str, Op | None] = {}
    for op, name in refs:
        own = op.space.only(*op.field(name).dims)
        try:
            space = space.join(own)
        except DimensionError as error:
            raise AlignmentError(f"columns can't go together: {error.message} (column {name!r} of {op})",
                                 hint="select the same positions of both first") from None
        for dim, length in own.dims:
            if length is None and origins.setdefault(dim, op.origin) is not op.origin:
                raise AlignmentError(f"the cells along {dim!r} of column {name!r} aren't those of the other columns",
                                     hint="map over columns of one table, or filter them together")
    return space


def gathered(refs: Sequence[Ref]) -> tuple[tuple[Op, ...], tuple[tuple[int, str], ...]]:
    """The distinct ops behind columns, and where each column is among them."""
    ops = tuple({id(op): op for op, _ in refs}.values())
    number = {id(op): i for i, op in enumerate(ops)}
    return ops, tuple((number[id(op)], name) for op, name in refs)


def map_cells(kernel: Kernel, refs: Sequence[Ref], cells: Space, *, names: Sequence[str] | None, params: Mapping[str, Any],
              seed: int, name: str) -> Op:
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
        raise DimensionError(f"kernel {kernel.name}: dimension {dim!r} is a core dimension of one input, but another "
                             "input has a cell for each of its positions", hint="give it the same core dimension there")
    loop = tuple(dim for dim in space.names if dim in looped or not refs)
    accesses = tuple(_whole(op, {dim for (i, _), dims in zip(columns, core, strict=True) if ops[i] is op for dim in dims})
                     for op in ops)
    bound = kernel.bind(params)
    dtypes = tuple(output_dtypes(kernel, [field_of(ref) for ref in refs], bound))
    out_space, fields = _outputs(kernel, refs, space, loop, dtypes, names)
    action = Map(kernel, columns, core, loop, tuple(bound.items()), dtypes, seed, name or kernel.name)
    return Op(action, ops, accesses, out_space, fields, name or kernel.name)


def _whole(op: Op, dims: set[str]) -> Access:
    return Whole(tuple((dim, op.space[dim]) for dim in op.space.names if dim in dims)) if dims else Point


def check_inputs(kernel: Kernel, refs: Sequence[Ref]) -> tuple[tuple[str, ...], ...]:
    """The core dimensions that each column's space has.

    Raises:
        SignatureError: the numbers of inputs differ, or a column is no fit for its place in the signature.
        DimensionError: a core dimension isn't one of the column's.
        UsageError: a column with nulls for a kernel that can't tell them.
    """
    wanted = kernel.signature.inputs
    if len(wanted) != len(refs):
        named = ", ".join(repr(name) for _, name in refs) or "none"
        raise SignatureError(f"kernel {kernel.name} {kernel.signature} takes {len(wanted)} columns, but got {len(refs)}: {named}",
                             hint="select the columns first: collection[['a', 'b']].map(...)")
    core: list[tuple[str, ...]] = []
    for ref, dims in zip(refs, wanted, strict=True):
        field = field_of(ref)
        if field.ragged:
            if len(dims) != 1:
                raise SignatureError(f"kernel {kernel.name} {kernel.signature}: column {field.name!r} holds a "
                                     f"{field.kind} a cell", hint="give its place in the signature one dimension, as in (n)->()")
            core.append(())
        else:
            missing = [dim for dim in dims if dim not in field.dims]
            if missing:
                raise DimensionError(f"kernel {kernel.name} {kernel.signature}: column {field.name!r} has no dimension "
                                     f"{missing[0]!r}", hint=f"its dimensions are {', '.join(field.dims) or 'none'}")
            core.append(dims)
        if field.nullable and (field.ragged or field.dtype.kind != "f") and "valid" not in kernel.specials:
            raise UsageError(f"kernel {kernel.name}: column {field.name!r} ({field.dtype}) has nulls, which only a float "
                             "kernel sees as NaN", hint="take a last argument `valid`, or filter the nulls out")
    return tuple(core)


def _outputs(kernel: Kernel, refs: Sequence[Ref], space: Space, loop: tuple[str, ...], dtypes: tuple[np.dtype[Any], ...],
             names: Sequence[str] | None) -> tuple[Space, tuple[Field, ...]]:
    own = {dims[0] for dims, ref in zip(kernel.signature.inputs, refs, strict=True) if field_of(ref).ragged}
    out = space.only(*loop)
    fields = []
    chosen = output_names(kernel, names)
    for dims, dtype, label in zip(kernel.signature.outputs, dtypes, chosen, strict=True):
        if dims and dims[0] in own:
            if len(dims) > 1 or len(loop) != 1:
                raise SignatureError(f"kernel {kernel.name}: output {label!r} can't have a variable length and further dimensions")
            fields.append(Field(label, loop, dtype, "list"))
            continue
        for dim in dims:
            length = kernel.sizes.get(dim, space[dim] if dim in space else None)
            if dim in loop:
                raise DimensionError(f"kernel {kernel.name}: output dimension {dim!r} is also one that it runs over",
                                     hint="give the output dimension another name")
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
        raise SignatureError(f"kernel {kernel.name} has {count} outputs, but the names {chosen}", hint="give each its own name")
    return chosen


def arithmetic(ufunc: str, operands: Sequence[Ref | float | int | bool], label: str) -> Op:
    """A NumPy ufunc over columns and plain numbers.

    Raises:
        ParameterError: a column of strings or lists.
    """
    refs = [operand for operand in operands if isinstance(operand, tuple)]
    for ref in refs:
        if field_of(ref).ragged:
            raise ParameterError(f"column {ref[1]!r} holds a {field_of(ref).kind} a cell: no arithmetic on it", hint="map a kernel over it")
    space = joint_space(refs)
    ops, columns = gathered(refs)
    places = iter(columns)
    arguments = tuple(next(places) if isinstance(operand, tuple) else operand for operand in operands)
    samples = [np.ones(1, field_of(o).dtype) if isinstance(o, tuple) else o for o in operands]
    try:
        with np.errstate(all="ignore"):
            dtype = np.asarray(getattr(np, ufunc)(*samples)).dtype
    except TypeError as error:
        raise ParameterError(f"{ufunc} doesn't go with {', '.join(str(getattr(s, 'dtype', s)) for s in samples)}: {error}") from None
    nullable = any(field_of(ref).nullable for ref in refs)
    field = Field(label, space.names, dtype, nullable=nullable)
    return Op(Elementwise(ufunc, arguments), ops, (Point,) * len(ops), space, (field,), ufunc)


def select(op: Op, how: Slice | Take, length: int) -> Op:
    """Positions along one dimension."""
    keep = not isinstance(how, Slice) or how.keep
    dims = tuple((name, length if name == how.dim else n) for name, n in op.space.dims if keep or name != how.dim)
    fields = tuple(Field(f.name, tuple(d for d in f.dims if keep or d != how.dim), f.dtype, f.kind, f.nullable, f.attrs)
                   for f in op.fields)
    return Op(Select(how), (op,), (how,), Space(dims), fields, "isel")


def take_at(op: Op, dim: str, index: Ref) -> Op:
    """Positions along one dimension, as a column of another op gives them."""
    field, (new,) = field_of(index), field_of(index).dims
    if field.dtype.kind not in "iu":
        raise ParameterError(f"take needs positions, but column {index[1]!r} is {field.dtype}")
    dims = tuple((new, index[0].space[new]) if name == dim else (name, n) for name, n in op.space.dims)
    fields = tuple(Field(f.name, tuple(new if d == dim else d for d in f.dims), f.dtype, f.kind, f.nullable, f.attrs) for f in op.fields)
    return Op(TakeAt(dim, index[1]), (op, index[0]), (Whole(((dim, op.space[dim]),)), Point), Space(dims), fields, "take")


def choose(columns: Mapping[str, Ref]) -> Op:
    """Columns side by side under their new names; the op itself where nothing changes."""
    refs = list(columns.values())
    first = refs[0][0]
    if all(op is first for op, _ in refs) and list(columns) == [f.name for f in first.fields] == [name for _, name in refs]:
        return first
    ops, places = gathered(refs)
    fields = tuple(field_of(ref).renamed(name) for name, ref in columns.items())
    return Op(Choose(tuple(zip(columns, places, strict=True))), ops, (Point,) * len(ops), joint_space(refs), fields,
              "+".join(dict.fromkeys(str(op) for op in ops)))


def one_dimension(op: Op, verb: str) -> str:
    """The name of the only dimension.

    Raises:
        DimensionError: there are others.
    """
    if len(op.space.names) != 1:
        raise DimensionError(f"{verb} works on rows: one dimension, but there are {op.space}", hint="reduce or isel the others first")
    return op.space.names[0]


def filter_rows(op: Op, mask: Ref) -> Op:
    """Rows of `op` where a boolean column of the same rows is true."""
    dim = one_dimension(op, "filter")
    if field_of(mask).dtype != np.bool_:
        raise ParameterError(f"filter needs a boolean column, but {mask[1]!r} is {field_of(mask).dtype}", hint="compare it with something")
    joint_space([(op, op.fields[0].name), mask])
    return Op(Filter(mask[1]), (op, mask[0]), (Point, Point), Space(((dim, None),)), op.fields, "filter")


def explode_rows(kernel: Kernel, refs: Sequence[Ref], *, keep: Op | None, names: Sequence[str] | None, params: Mapping[str, Any],
                 dim: str, most: int | None, seed: int, name: str) -> Op:
    """One row to many: the elements of the arrays that a kernel gives."""
    core = check_inputs(kernel, refs)
    space = joint_space(refs)
    if len(space.names) != 1 or any(core):
        raise DimensionError(f"explode works on rows: one dimension, but there are {space}", hint="reduce or isel the others first")
    lengths = {dims for dims in kernel.signature.outputs}
    if len(lengths) != 1 or len(next(iter(lengths))) != 1:
        raise SignatureError(f"kernel {kernel.name} {kernel.signature}: explode needs outputs of one shared dimension, as in (n)->(k),(k)")
    bound = kernel.bind(params)
    dtypes = tuple(output_dtypes(kernel, [field_of(ref) for ref in refs], bound))
    ops, columns = gathered([*([(keep, f.name) for f in keep.fields] if keep else []), *refs])
    columns = columns[len(columns) - len(refs):]
    cells = Map(kernel, columns, core, space.names, tuple(bound.items()), dtypes, seed, name or kernel.name)
    made = tuple(Field(label, (dim,), dtype) for label, dtype in zip(output_names(kernel, names), dtypes, strict=True))
    kept = tuple(Field(f.name, (dim,), f.dtype, f.kind, f.nullable, f.attrs) for f in keep.fields) if keep else ()
    action = Explode(cells, tuple(f.name for f in kept), most)
    return Op(action, ops, (Point,) * len(ops), Space(((dim, None),)), (*kept, *made), name or kernel.name)


def halo_of(op: Op, halo: Mapping[str, int | tuple[int, int]], boundary: str) -> Halo:
    """A checked halo.

    Raises:
        DimensionError: an unknown dimension, or one shorter than the window.
        ParameterError: a negative width, or an unknown boundary.
    """
    if boundary not in ("clip", "periodic", "fill"):
        raise ParameterError(f"boundary is {boundary!r}", hint="one of clip, periodic, fill")
    dims = []
    for name, width in halo.items():
        before, after = (width, width) if isinstance(width, int) else width
        if before < 0 or after < 0:
            raise ParameterError(f"the halo of {name!r} is negative: {width}")
        length = op.space[name]
        dims.append((name, int(before), int(after), length or 0))
    return Halo(tuple(dims), boundary)  # type: ignore[arg-type]


def stencil(kernel: Kernel, ref: Ref, halo: Halo, *, names: Sequence[str] | None, params: Mapping[str, Any], fill: float,
            seed: int, name: str) -> Op:
    """A kernel over the window around each cell; its core dimensions are the halo's, in the signature's order."""
    cells, _ = _window_cells(kernel, [ref], halo, params, seed, name)
    space = ref[0].space.only(*field_of(ref).dims)
    fields = tuple(Field(label, space.names, dtype) for label, dtype in zip(output_names(kernel, names), cells.dtypes, strict=True))
    return Op(Stencil(cells, _ordered(kernel, halo), fill), (ref[0],), (_ordered(kernel, halo),), space, fields, cells.name)


def _ordered(kernel: Kernel, halo: Halo) -> Halo:
    by_name = {dim[0]: dim for dim in halo.dims}
    return Halo(tuple(by_name[name] for name in kernel.signature.inputs[0]), halo.boundary)


def _window_cells(kernel: Kernel, refs: Sequence[Ref], halo: Halo, params: Mapping[str, Any], seed: int, name: str) -> tuple[Map, Space]:
    windows = {dim for dim, *_ in halo.dims}
    if len(kernel.signature.inputs) != len(refs) or any(set(dims) != windows for dims in kernel.signature.inputs) or any(kernel.signature.outputs):
        raise SignatureError(f"kernel {kernel.name} {kernel.signature} doesn't take a window over {', '.join(sorted(windows))} of "
                             f"{len(refs)} columns and give one value each", hint=f"its signature would be ({','.join(sorted(windows))})->()")
    bound = kernel.bind(params)
    for ref in refs:
        if field_of(ref).nullable and field_of(ref).dtype.kind != "f" and "valid" not in kernel.specials:
            raise UsageError(f"kernel {kernel.name}: column {ref[1]!r} has nulls", hint="take a last argument `valid`")
    dtypes = tuple(output_dtypes(kernel, [field_of(ref) for ref in refs], bound))
    columns = tuple((0, ref[1]) for ref in refs)
    space = joint_space(refs)
    return Map(kernel, columns, kernel.signature.inputs, space.names, tuple(bound.items()), dtypes, seed, name or kernel.name), space


def iterate(kernel: Kernel, op: Op, steps: int, neighbours: Halo | Edges, *, params: Mapping[str, Any], fill: float, seed: int,
            name: str) -> Op:
    """The kernel `steps` times over all columns of an op, each value replaced by what the kernel gives."""
    if steps < 0:
        raise ParameterError(f"iterate can't take {steps} steps")
    refs = [(op, f.name) for f in op.fields]
    if isinstance(neighbours, Halo):
        cells, _ = _window_cells(kernel, refs, neighbours, params, seed, name)
        neighbours = _ordered(kernel, neighbours)
    else:
        one_dimension(op, "iterate over edges")
        bound = kernel.bind(params)
        ragged = [Field(f.name, f.dims, f.dtype, "list") for f in op.fields]
        if any(len(dims) != 1 for dims in kernel.signature.inputs) or any(kernel.signature.outputs):
            raise SignatureError(f"kernel {kernel.name} {kernel.signature} doesn't take the values of a cell's neighbours",
                                 hint="its signature would be (n)->()")
        dtypes = tuple(output_dtypes(kernel, ragged, bound))
        columns = tuple((0, f.name) for f in op.fields)
        cells = Map(kernel, columns, ((),) * len(refs), op.space.names, tuple(bound.items()), dtypes, seed, name or kernel.name)
    if len(cells.dtypes) != len(op.fields):
        raise SignatureError(f"kernel {kernel.name} gives {len(cells.dtypes)} values for {len(op.fields)} columns: iterate needs one each")
    fields = tuple(Field(f.name, f.dims, f.dtype, attrs=f.attrs) for f in op.fields)
    whole = Whole(tuple(op.space.dims))
    return Op(Iterate(cells, steps, neighbours, fill), (op,), (whole,), op.space, fields, cells.name)


def shuffle(op: Op, keys: Sequence[tuple[str, bool]], order: bool) -> Op:
    """Rows brought together by key, or sorted by it."""
    dim = one_dimension(op, "sort" if order else "shuffle")
    known = [f.name for f in op.fields]
    for key, _ in keys:
        if key not in known:
            raise ParameterError(f"no column {key!r} to {'sort' if order else 'shuffle'} by", hint=f"the columns are {', '.join(known)}")
    if not keys:
        raise ParameterError("a sort or shuffle needs at least one column to go by")
    return Op(Shuffle(tuple(keys), order), (op,), (Point,), Space(((dim, None),)), op.fields, "sort" if order else "shuffle")


def positions(length: int, index: Any, dim: str) -> Array:
    """Positions from 0, from indices that may count from the end.

    Raises:
        ParameterError: one lies outside.
    """
    array = np.asarray(index)
    if array.dtype == np.bool_ and array.shape == (length,):
        return np.flatnonzero(array)
    if array.dtype.kind not in "iu" or array.ndim != 1:
        if array.size:
            raise ParameterError(f"positions along {dim!r} must be whole numbers, not {array.dtype}")
        array = array.astype(np.int64)
    found = np.where(array < 0, array + length, array).astype(np.int64)
    outside = (found < 0) | (found >= length)
    if outside.any():
        raise ParameterError(f"position {array[outside][0]} lies outside dimension {dim!r} of length {length}")
    return found
