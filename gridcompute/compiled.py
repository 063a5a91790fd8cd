"""Run a kernel over a region's cells: inputs checked and laid out, the compiled loop called, outputs shaped.

`run_cells` and `explode_cells` are what a worker calls; a kernel that is called on arrays goes the same way.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gridcompute import chunkcall, loops, random
from gridcompute.argtypes import output_dtypes
from gridcompute.cellinputs import Cells, arrange, is_shared
from gridcompute.columns import Column, Field, Fixed, Ragged
from gridcompute.errors import DimensionError, KernelError, SignatureError
from gridcompute.kernels import Kernel, explodes, install_eager, runs
from gridcompute.secrecy import clean
from gridcompute.sources.buffers import BUFFERS
from gridcompute.status import counted

__all__ = ["Field", "explode_cells", "output_dtypes", "run_cells"]

Array = np.ndarray[Any, Any]

LARGE_BYTES = 2**20
"""Of an output, from which it lies where another one was that nobody looks into any more."""


def run_cells(
    kernel: Kernel,
    inputs: Sequence[Column],
    params: Mapping[str, Any] | None = None,
    *,
    outputs: Sequence[np.dtype[Any]] | None = None,
    shape: Sequence[int],
    origin: Sequence[int] | None = None,
    space_shape: Sequence[int] | None = None,
    seed: int = 0,
    rng_name: str = "",
    step: int = 0,
    progress: Array | None = None,
) -> list[Column]:
    """Run the kernel on every cell of a region.

    Args:
        kernel: not one that gives rows (see `explode_cells`).
        inputs: one per input of the signature: `Fixed` of shape + core extents, or `Ragged` with one run of
            elements a cell for an input of one core dimension.
        params: the kernel's parameters by name; defaults are filled in.
        outputs: dtype per output; inferred if None.
        shape: extents of the region over the loop dimensions.
        origin: index of the region's first cell; zeros if None. Used for `cell`, `rng` and error messages.
        space_shape: extents of the whole space; origin + shape if None. `rng` counts cells in it, last
            dimension fastest.
        seed: the run's seed, for `rng`.
        rng_name: the op's declared name, for `rng`.
        step: value of `step`.
        progress: int64, one element or more; the first holds the index (within the region, last dimension
            fastest) of the cell being run.

    Returns:
        One column per output: `Fixed` of shape + core extents; `Ragged` where the core dimension is that of a
        ragged input, or one of `kernels.runs`.

    Raises:
        UsageError: inputs that don't fit the kernel, or a kernel that can't be compiled.
        KernelError: the kernel raised, or gave an array of a wrong length; names the cell.
    """
    require_kind(kernel, rows=False)
    cells = arrange(kernel, inputs, params, shape, origin, space_shape)
    dtypes = declared_dtypes(kernel, cells, inputs, outputs)
    columns = empty_outputs(kernel, cells, dtypes)
    if cells.count == 0:
        return columns
    mark = np.zeros(1, np.int64) if progress is None else progress
    if kernel.mode != "cell":
        return chunkcall.run_chunk(kernel, cells, columns, seed=seed, rng_name=rng_name, step=step)
    kinds, arguments = targets(kernel, cells, columns)
    loop = loops.make_loop(kernel, loop_shape(kernel, cells, kinds))
    leading = leading_of(kernel, cells, seed, rng_name, step)
    call(kernel, cells, loop, mark, (np.int64(cells.count), *leading, *arguments))
    return columns


def require_kind(kernel: Kernel, *, rows: bool) -> None:
    """Refuse a kernel that gives rows where cells are wanted, or the other way round."""
    what = f"kernel {kernel.name} {kernel.signature}"
    if rows and not explodes(kernel):
        raise SignatureError(f"{what} gives no rows: all outputs need one same new dimension without a size",
                             hint="write it like '(n)->(k)' or '()->(k),(k)'")
    if not rows and explodes(kernel):
        raise SignatureError(f"{what}: the new output dimension {kernel.signature.new_dims[0]!r} has no length",
                             hint="add sizes={...: ...}, or use explode for a number of rows that differs by cell")


def declared_dtypes(kernel: Kernel, cells: Cells, inputs: Sequence[Column],
              outputs: Sequence[np.dtype[Any]] | None) -> tuple[np.dtype[Any], ...]:
    """The outputs' dtypes: as given, else inferred."""
    found = outputs or output_dtypes(kernel, inputs, cells.params, ndim=len(cells.shape))
    return tuple(np.dtype(one) for one in found)


def targets(kernel: Kernel, cells: Cells, columns: Sequence[Column]) -> tuple[tuple[tuple[str, int], ...], list[Any]]:
    """Kinds of the outputs, and the arrays that the loop fills."""
    kinds: list[tuple[str, int]] = []
    arguments: list[Any] = []
    for core, column in zip(kernel.signature.outputs, columns, strict=True):
        if isinstance(column, Ragged):
            kinds.append(("ragged", 0))
            arguments += [column.offsets, column.values]
        else:
            kinds.append(("core", len(core)) if core else ("scalar", 0))
            arguments.append(column.values.reshape(cells.count, *column.values.shape[len(cells.shape) :]))
    return tuple(kinds), arguments


def explode_cells(
    kernel: Kernel,
    inputs: Sequence[Column],
    params: Mapping[str, Any] | None = None,
    *,
    outputs: Sequence[np.dtype[Any]] | None = None,
    shape: Sequence[int],
    origin: Sequence[int] | None = None,
    space_shape: Sequence[int] | None = None,
    seed: int = 0,
    rng_name: str = "",
    step: int = 0,
    progress: Array | None = None,
    max: int | None = None,
) -> tuple[Array, list[Array]]:
    """Run a kernel that gives a different number of rows a cell: "(n)->(k)", "()->(k),(k)".

    Without `max` the kernel runs twice on each cell (to count, then to fill), so memory is exact; with `max`
    once. A batch kernel or task returns the counts (int64, one a cell), then each output's rows in one array.

    All arguments are as for `run_cells`, but for `max`: the most rows that a cell may give.

    Returns:
        Rows per cell (int64), and per output all rows, in the order of the cells.

    Raises:
        UsageError: as `run_cells`.
        KernelError: as `run_cells`; also for a cell with more rows than `max`.
    """
    require_kind(kernel, rows=True)
    cells = arrange(kernel, inputs, params, shape, origin, space_shape)
    dtypes = declared_dtypes(kernel, cells, inputs, outputs)
    counts = np.zeros(cells.count, np.int64)
    if cells.count == 0:
        return counts, [np.empty(0, dtype) for dtype in dtypes]
    if kernel.mode != "cell":
        return chunkcall.explode_chunk(kernel, cells, dtypes, max, seed=seed, rng_name=rng_name, step=step)
    mark = np.zeros(1, np.int64) if progress is None else progress
    kinds = (("rows", 0),) * len(dtypes)
    limit = np.int64(-1 if max is None else max)

    def go(count_only: bool, rows: list[Array]) -> None:
        # Each pass draws the same random numbers: the state is fresh, and reset at every cell.
        leading = leading_of(kernel, cells, seed, rng_name, step)
        loop = loops.make_loop(kernel, loop_shape(kernel, cells, kinds, count_only))
        call(kernel, cells, loop, mark, (np.int64(cells.count), *leading, *rows, counts, limit), limit=max)

    if max is None:
        go(True, [])
        rows = [np.empty(int(counts.sum()), dtype) for dtype in dtypes]
        go(False, rows)
        return counts, rows
    # Untouched pages of these buffers cost nothing; what is kept is copied out.
    rows = [np.empty(cells.count * max, dtype) for dtype in dtypes]
    go(False, rows)
    total = int(counts.sum())
    return counts, [one[:total].copy() for one in rows]


def loop_shape(
    kernel: Kernel, cells: Cells, outputs: tuple[tuple[str, int], ...], count_only: bool = False, resumes: bool = False
) -> loops.Shape:
    """What the source of a kernel's loop over these cells depends on."""
    kinds = tuple("ragged" if isinstance(column, Ragged) else "shared" if is_shared(column) else "fixed"
                  for column in cells.columns)
    masks = tuple("cell" if mask is not None else "" for mask in cells.masks)
    return loops.Shape(kinds, masks, len(cells.params), kernel.specials, outputs, len(cells.shape), count_only,
                       resumes)


def leading_of(kernel: Kernel, cells: Cells, seed: int, rng_name: str, step: int) -> list[Any]:
    """The loop's arguments between the count and the outputs."""
    found: list[Any] = []
    if {"cell", "rng"} & set(kernel.specials) and cells.shape:
        found += [_int_tuple(cells.origin), _int_tuple(cells.shape), _int_tuple(cells.space_shape)]
    if "rng" in kernel.specials:
        found.append(random.state(random.seed_key(seed, rng_name)))
    if "step" in kernel.specials:
        found.append(np.int64(step))
    for column, mask in zip(cells.columns, cells.masks, strict=True):
        if isinstance(column, Ragged):
            found += [column.offsets, column.values]
        else:
            found.append(column.values[:1] if is_shared(column) else column.values)
        found += [mask] if mask is not None else []
    return found + list(cells.params.values())


def _int_tuple(values: Sequence[int]) -> tuple[np.int64, ...]:
    return tuple(np.int64(one) for one in values)


def call(kernel: Kernel, cells: Cells, loop: Any, mark: Array, rest: tuple[Any, ...], limit: int | None = None) -> None:
    """Call a loop with its arguments from the count on; what goes wrong in a cell becomes an error that names it.

    Raises:
        KernelError: the kernel failed in the cell that `mark` holds.
        UsageError: numba can't compile the kernel for these arguments.
    """
    status = np.zeros(3, np.int64)
    arguments = (mark, status, *rest)
    loops.compile_for(kernel, loop, arguments)
    try:
        with np.errstate(all="ignore"):  # under NUMBA_DISABLE_JIT NumPy would warn where compiled code doesn't
            code = loop(*arguments)
    except MemoryError:
        raise
    except Exception as error:
        raise loops.kernel_error(kernel, cells.index(int(mark[0])), error) from clean(error)
    if code == 0:
        return
    which, found, axis = (int(one) for one in status)
    name, cell = kernel.names[which], cells.index(int(mark[0]))
    core = kernel.signature.outputs[which]
    if code == loops.TOO_LONG:
        what = f"gave {found} rows, more than max={limit}"
        hint = "raise max=, or leave it away (the kernel then runs twice on each cell)"
    elif code == loops.UNEQUAL:
        what = f"gave {found} rows in output {name!r} and another number in {kernel.names[0]!r}"
        hint = "all outputs of an explode kernel have the same length in a cell"
    else:
        what = f"gave {found} elements along {core[axis]!r} in output {name!r}"
        hint = "the length must be that of the dimension; a kernel must do the same each time it is run"
        if core[axis] in cells.lengths:
            what += f", not {cells.lengths[core[axis]]}"
    raise KernelError(f"kernel {kernel.name} at cell {cell} {what}", op=kernel.name, cell=cell, cause=what, hint=hint)


def empty_outputs(kernel: Kernel, cells: Cells, dtypes: Sequence[np.dtype[Any]]) -> list[Column]:
    """Columns for a kernel's outputs, of any values; without elements where only running it tells how many."""
    if len(dtypes) != len(kernel.signature.outputs):
        raise SignatureError(
            f"kernel {kernel.name} has {counted(len(kernel.signature.outputs), 'output')}, "
            f"but {counted(len(dtypes), 'dtype')}"
        )
    columns: list[Column] = []
    for core, dtype in zip(kernel.signature.outputs, dtypes, strict=True):
        if core and core[0] in runs(kernel):
            columns.append(Ragged(np.zeros(cells.count + 1, np.int64), np.empty(0, dtype)))
            continue
        ragged = [name for name in core if name in cells.ragged]
        if ragged and len(core) > 1:
            raise DimensionError(
                f"kernel {kernel.name}: an output over {core} can't have the varying length "
                f"{ragged[0]!r} beside another dimension"
            )
        if ragged:
            offsets = cells.ragged[ragged[0]] - cells.ragged[ragged[0]][0]
            columns.append(Ragged(offsets, np.empty(int(offsets[-1]), dtype)))
        else:
            shape = cells.shape + tuple(cells.lengths[name] for name in core)
            large = math.prod(shape) * dtype.itemsize >= LARGE_BYTES
            columns.append(Fixed(BUFFERS.array(shape, dtype) if large else np.empty(shape, dtype)))
    return columns


def _eager(kernel: Kernel, arrays: Sequence[Any], params: Mapping[str, Any], *, seed: int, step: int) -> Any:
    """`Kernel.__call__`: broadcast the loop dimensions, run, hand back plain arrays."""
    cores = kernel.signature.inputs
    if len(arrays) != len(cores):
        raise SignatureError(
            f"kernel {kernel.name} {kernel.signature} takes {len(cores)} inputs, not {len(arrays)}",
            hint="parameters are given by keyword",
        )
    columns = [_as_column(kernel, i, one) for i, one in enumerate(arrays)]
    loop_shapes = [
        (one.cells,) if isinstance(one, Ragged) else one.values.shape[: one.values.ndim - len(core)]
        for one, core in zip(columns, cores, strict=True)
    ]
    try:
        shape = np.broadcast_shapes(*loop_shapes) if loop_shapes else ()
    except ValueError:
        raise DimensionError(
            f"kernel {kernel.name}: the inputs' loop dimensions {loop_shapes} don't broadcast",
            hint=f"core dimensions come last: {kernel.signature}",
        ) from None
    inputs = [_broadcast(one, shape, core) for one, core in zip(columns, cores, strict=True)]
    common: dict[str, Any] = {"shape": shape, "seed": seed, "rng_name": kernel.name, "step": step}
    if explodes(kernel):
        counts, rows = explode_cells(kernel, inputs, params, **common)
        offsets = np.concatenate(([0], np.cumsum(counts)))
        found: list[Any] = [Ragged(offsets, one) if shape else one for one in rows]
    else:
        results = run_cells(kernel, inputs, params, **common)
        found = [one if isinstance(one, Ragged) else one.values[()] for one in results]
    return found[0] if len(found) == 1 else tuple(found)


def _as_column(kernel: Kernel, position: int, value: Any) -> Column:
    core = kernel.signature.inputs[position]
    if isinstance(value, (Fixed, Ragged)):
        return value
    if isinstance(value, bytes) and len(core) == 1:
        return Fixed(np.frombuffer(value, np.uint8))
    if (
        isinstance(value, (list, tuple))
        and len(core) == 1
        and any(one is None or isinstance(one, (bytes, np.ndarray, list)) for one in value)
    ):
        first = next(
            (np.asarray(one).dtype for one in value if one is not None and not isinstance(one, bytes)),
            np.uint8,
        )
        return Ragged.of(value, first)
    valid = None
    if isinstance(value, np.ma.MaskedArray):
        valid = ~np.ma.getmaskarray(value)
        value = value.data
    array = np.asarray(value)
    if array.dtype.hasobject:
        raise SignatureError(
            f"kernel {kernel.name}: input {position} is an array of Python objects",
            hint="pass numbers, or a list of bytes or arrays for cells of different length",
        )
    if array.ndim < len(core):
        raise DimensionError(
            f"kernel {kernel.name}: input {position} has {array.ndim} dimensions, its core "
            f"({','.join(core)}) alone has {len(core)}"
        )
    return Fixed(array, valid)


def _broadcast(column: Column, shape: tuple[int, ...], core: tuple[str, ...]) -> Column:
    if isinstance(column, Ragged):
        if math.prod(shape) == column.cells and len(shape) == 1:
            return column
        index = np.broadcast_to(np.arange(column.cells), shape).reshape(-1)
        return column.taken(index)
    inner = column.values.shape[column.values.ndim - len(core) :]
    values = np.broadcast_to(column.values, shape + inner)
    valid = None if column.valid is None else np.broadcast_to(column.valid, shape + inner)
    return Fixed(values, valid)


install_eager(_eager)
