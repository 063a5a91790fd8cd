"""Building ops along a graph of cells, and the verb of collections that does it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import numpy as np

from gridcompute.access import Whole
from gridcompute.actions.dags import Propagate
from gridcompute.actions.loads import Load
from gridcompute.actions.maps import Map
from gridcompute.columns import Field
from gridcompute.compiled import output_dtypes
from gridcompute.coords import Coordinate
from gridcompute.dags import Dag
from gridcompute.errors import DimensionError, MissingInputError, ParameterError, SignatureError, UsageError
from gridcompute.kernels import Kernel
from gridcompute.op import Op
from gridcompute.ops import Ref, check_inputs, field_of, gathered, joint_space, output_names
from gridcompute.skipping import refuse_on_error
from gridcompute.sources.arrays import from_arrays
from gridcompute.spaces import Space
from gridcompute.status import counted

ROUNDS = 6
"""Times that dtypes of results are inferred from themselves before they count as unsettled."""

Dtypes = tuple[np.dtype[Any], ...]

_DECLARE = 'declare what the results are: @grid.kernel("(n)->()", dtypes=[...])'


def propagate(
    kernels: Sequence[Kernel],
    refs: Sequence[Ref],
    cells: Space,
    dag: Dag,
    *,
    kind: Ref | None,
    names: Sequence[str] | None,
    params: Mapping[str, Any],
    keep: int,
    seed: int,
    name: str,
) -> Op:
    """Kernels over the cells of a graph, each with its inputs' results and its own columns.

    Raises:
        SignatureError, DimensionError, AlignmentError, ParameterError: kernels, columns and graph don't fit.
        UsageError: a column with nulls for a kernel that can't tell them.
    """
    first = kernels[0]
    refuse_on_error(params, "propagate")
    _require_kernels(kernels, kind)
    if not isinstance(dag, Dag):
        raise ParameterError(f"propagate takes a graph of cells, not {type(dag).__name__}",
                             hint="grid.Dag(offsets, inputs), or grid.Dag.of_edges(sources, targets, cells)")
    if not isinstance(keep, int | np.integer) or isinstance(keep, bool) or keep < 0:
        raise ParameterError(f"propagate: checkpoint is {keep!r}", hint="a whole number, 0 or more")
    outputs = len(first.signature.outputs)
    if len(first.signature.inputs) == outputs:
        refs = []
    core = _own_core(kernels, refs, outputs)
    every = [*refs, *([kind] if kind is not None else [])]
    space = joint_space(every) if every else cells
    dim = _dimension(first, space, refs, core, dag)
    if kind is not None:
        _require_kind(kind, dim)
    bound = _bound(kernels, params)
    dtypes = _settled(kernels, bound, [field_of(ref) for ref in refs])
    ops, places = gathered(every)
    label = name or first.name
    # Of several kernels each draws numbers of its own.
    called = [label, *(f"{label} {k}" for k in range(1, len(kernels)))]
    several = tuple(Map(kernel, places[: len(refs)], core, (dim,), tuple(own.items()), dtypes, seed, one)
                    for kernel, own, one in zip(kernels, bound, called, strict=True))
    out = _output_space(first, space, dim)
    fields = tuple(Field(one, (dim, *inner), dtype) for one, dtype, inner in
                   zip(output_names(first, names), dtypes, first.signature.outputs, strict=True))
    accesses = tuple(Whole(tuple(op.space.dims)) for op in ops)
    action = Propagate(several, dag, None if kind is None else places[-1], int(keep))
    return Op(action, ops, accesses, out, fields, label)


def _require_kernels(kernels: Sequence[Kernel], kind: Ref | None) -> None:
    """Refuse kernels that can't go along a graph, or not together."""
    first = kernels[0]
    outputs, inputs = first.signature.outputs, first.signature.inputs
    runs, run = inputs[: len(outputs)], next((dims[0] for dims in inputs if dims), "")
    if not run or runs != tuple((run, *dims) for dims in outputs):
        raise SignatureError(
            f"kernel {first.name} {first.signature} doesn't take its inputs' results and give one value each",
            hint="first as many runs of results as there are outputs, then the cell's own columns: (n),()->() or "
            "(n),(n),()->(),(), or (n,time),(time)->(time)")
    if any(run in dims for dims in (*outputs, *inputs[len(outputs):])):
        raise SignatureError(f"kernel {first.name} {first.signature}: a column can't have the length {run!r} "
                             "of the results", hint="give its dimension another name")
    for other in kernels[1:]:
        if str(other.signature) != str(first.signature):
            raise SignatureError(f"kernels {first.name} {first.signature} and {other.name} {other.signature} have "
                                 "different signatures, but cells read each other's results")
    for kernel in kernels:
        if "step" in kernel.specials:
            raise SignatureError(f"kernel {kernel.name} takes step, but a graph of cells has none",
                                 hint="iterate has steps")
    if (len(kernels) > 1) != (kind is not None):
        given = "no" if kind is None else "a"
        raise ParameterError(f"propagate got {counted(len(kernels), 'kernel')} and {given} kind",
                             hint="kind= says which of several kernels a cell runs")


def _own_core(kernels: Sequence[Kernel], refs: Sequence[Ref], outputs: int) -> tuple[tuple[str, ...], ...]:
    for kernel in kernels[1:]:
        check_inputs(kernel, refs, outputs)
    return check_inputs(kernels[0], refs, outputs)


def _dimension(kernel: Kernel, space: Space, refs: Sequence[Ref], core: Sequence[tuple[str, ...]], dag: Dag) -> str:
    """The dimension whose cells the graph joins."""
    cored = {dim for dims in core for dim in dims}
    loop = [dim for dim in space.names if dim not in cored]
    if len(loop) != 1 or any(loop[0] not in field_of(ref).dims for ref in refs):
        raise DimensionError(f"propagate goes over the cells of one dimension, but the columns span {space}",
                             hint="name further ones in the kernel's signature, as in (n),(time)->(); or reduce them")
    length = space[loop[0]]
    if length is not None and length != dag.cells:
        raise DimensionError(f"propagate: dimension {loop[0]!r} has {counted(length, 'cell')}, but the graph has "
                             f"{dag.cells:,}", hint="give one node a cell, in the cells' order")
    if not dag.cells:
        raise DimensionError("propagate: the graph has no cells")
    _ = dag.order  # refuses cycles
    return loop[0]


def _output_space(kernel: Kernel, space: Space, dim: str) -> Space:
    """The cells' dimension, then those of results that are arrays: dimensions of the columns."""
    inner = kernel.signature.output_dims
    for name in inner:
        if name == dim or name not in space or space[name] is None:
            raise DimensionError(f"kernel {kernel.name} {kernel.signature}: no column has the dimension {name!r} of "
                                 "its results", hint=f"the columns' dimensions are {', '.join(space.names)}")
    return Space(((dim, space[dim]), *((name, space[name]) for name in inner)))


def _kind_of(kind: Any, columns: Mapping[str, Ref], space: Space) -> Ref:
    """The column of kinds: one of these by its name, or an array beside them."""
    if isinstance(kind, str):
        if kind not in columns:
            raise MissingInputError(f"no column {kind!r} for kind=",
                                    hint=f"the columns are {', '.join(columns) or 'none'}")
        return columns[kind]
    array = np.asanyarray(kind)  # masked ones too, which are refused
    along = [name for name, length in space.dims if array.shape == (length,)]
    if len(along) != 1:
        raise ParameterError(f"propagate: kind is of shape {array.shape}, but the cells are {space}",
                             hint="give an array of one number a cell, or a column's name")
    source = from_arrays({"kind": array}, along[0])
    return Op(Load(source), (), (), source.space, source.fields, "kind"), "kind"


def _require_kind(kind: Ref, dim: str) -> None:
    field = field_of(kind)
    if field.dims != (dim,) or field.ragged or field.dtype.kind not in "iu" or field.nullable:
        what = field.kind if field.ragged else f"{field.dtype}{', with nulls' if field.nullable else ''}"
        raise ParameterError(f"propagate: the kind {field.name!r} is {what} over ({', '.join(field.dims)})",
                             hint=f"whole numbers without nulls, one a cell of {dim!r}")


def _bound(kernels: Sequence[Kernel], params: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each kernel's parameters: of those that are given, the ones that it has."""
    if len(kernels) == 1:
        return [kernels[0].bind(params)]
    known = {name for kernel in kernels for name in kernel.parameters}
    if unknown := [name for name in params if name not in known]:
        names = ", ".join(one.name for one in kernels)
        raise ParameterError(f"none of the kernels {names} has a parameter {unknown[0]!r}",
                             hint=f"their parameters: {', '.join(sorted(known)) or 'none'}")
    return [one.bind({name: value for name, value in params.items() if name in one.parameters}) for one in kernels]


def _settled(kernels: Sequence[Kernel], bound: Sequence[Mapping[str, Any]], own: Sequence[Field]) -> Dtypes:
    """The results' dtypes: with which the kernels give them again.

    Inferred from the own columns' dtypes (int64 where there are none), then from what comes out, until it stays.

    Raises:
        SignatureError: they never stay.
        UsageError: a kernel can't be compiled for what it gives.
    """
    count = len(kernels[0].signature.outputs)
    fixed = [field.dtype for field in own if not field.ragged] or [np.dtype(np.int64)]
    found: Dtypes = tuple(fixed[min(i, len(fixed) - 1)] for i in range(count))
    if all(kernel.dtypes is not None for kernel in kernels):
        return _common([kernel.dtypes or () for kernel in kernels])
    seen = [found]
    for _ in range(ROUNDS):
        runs = [(dtype, not inner) for dtype, inner in zip(found, kernels[0].signature.outputs, strict=True)]
        try:
            found = _common([output_dtypes(kernel, [*runs, *own], params)
                             for kernel, params in zip(kernels, bound, strict=True)])
        except UsageError as error:
            told = ", ".join(map(str, found))
            raise type(error)(f"with inputs' results of {told}, {error.message}", hint=_DECLARE) from error
        if found == seen[-1]:
            return found
        seen.append(found)
    told = " -> ".join(", ".join(map(str, one)) for one in seen)
    raise SignatureError(f"kernel {kernels[0].name}: its results' dtypes follow from themselves and never stay: {told}",
                         hint=_DECLARE)


def _common(several: Sequence[Sequence[np.dtype[Any]]]) -> Dtypes:
    """Of several kernels' results the types that hold each other's."""
    try:
        return tuple(np.result_type(*dtypes) for dtypes in zip(*several, strict=True))
    except (TypeError, ValueError) as error:
        raise UsageError(f"the kernels' results have no common type: {error}", hint="declare the same") from None


class Propagating:
    """The verb for graphs of cells, in terms of a collection's columns."""

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

    def propagate(
        self,
        kernel: Kernel | Sequence[Kernel],
        dag: Dag,
        *,
        kind: str | Sequence[int] | np.ndarray[Any, Any] | None = None,
        names: Sequence[str] | None = None,
        checkpoint: int = 0,
        seed: int = 0,
        name: str = "",
        **params: Any,
    ) -> Self:
        """Values along a graph: each cell's kernel takes its inputs' results, then the cell's own columns.

        Args:
            kernel: its first inputs are the results of the cells that a cell reads, in the graph's order, one input
                an output; its others are these columns: "(n),()->()" takes one, "(n,time),(time)->(time)" has a series
                a cell. Where there are no others, columns aren't read. Or several kernels of one signature; of the
                parameters each takes those that it has.
            dag: which cells each cell reads: one node a cell of the collection's dimension.
            kind: which of several kernels each cell runs, from 0: an array, or a column's name, which is then no input.
            names: as in `map`.
            checkpoint: keep the state after each so many cells; 0: about every half minute.
            seed: as in `map`.
            name: as in `map`.
            params: as in `map`.

        Raises:
            SignatureError, DimensionError, ParameterError: kernel, columns and graph don't fit; the graph has a cycle.
        """
        kernels = [kernel] if isinstance(kernel, Kernel) else list(kernel) if isinstance(kernel, Sequence) else []
        if not kernels or not all(isinstance(one, Kernel) for one in kernels):
            raise ParameterError(f"propagate takes a kernel or several, not {kernel!r:.60}",
                                 hint='decorate the function: @grid.kernel("(n),()->()")')
        of_kinds = None if kind is None else _kind_of(kind, self.columns, self.space)
        refs = [ref for own, ref in self.columns.items() if not (isinstance(kind, str) and own == kind)]
        op = propagate(kernels, refs, self.space, dag, kind=of_kinds, names=names, params=params, keep=checkpoint,
                       seed=seed, name=name)
        return self.of(op, self.coords)
