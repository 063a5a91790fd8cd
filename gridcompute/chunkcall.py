"""Kernels that take a whole chunk: batch kernels (compiled) and tasks (plain Python)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from gridcompute import random
from gridcompute.cellinputs import Cells
from gridcompute.columns import Column, Fixed, Ragged
from gridcompute.errors import KernelError
from gridcompute.kernels import Kernel, runs
from gridcompute.loops import compile_for, kernel_error, kernel_function
from gridcompute.secrecy import clean

Array = np.ndarray[Any, Any]


def run_chunk(kernel: Kernel, cells: Cells, columns: Sequence[Column], *, seed: int, rng_name: str, step: int,
              begins: Callable[[], None] = lambda: None) -> list[Column]:
    """Call a batch kernel or task once, and give the columns with what it returns in them.

    Those along one of `kernels.runs` are new ones. `begins` is called when the kernel is compiled, and begins.
    """
    own: dict[str, Ragged] = {}
    found: list[Column] = []
    parts = _call(kernel, cells, seed, rng_name, step, begins)
    if len(parts) != len(columns):
        raise _wrong(kernel, cells, f"returned {len(parts)} outputs, not {len(columns)}")
    for name, core, part, column in zip(kernel.names, kernel.signature.outputs, parts, columns, strict=True):
        if core and core[0] in runs(kernel):
            made = _own_runs(kernel, cells, name, part, column.values.dtype)
            first = own.setdefault(core[0], made)
            if first is not made and not np.array_equal(np.diff(first.offsets), np.diff(made.offsets)):
                raise _wrong(kernel, cells, f"gave other lengths along {core[0]!r} in output {name!r} than before it")
            column = made
        elif isinstance(column, Ragged):
            lengths, values = _runs(kernel, cells, name, part, column)
            if not np.array_equal(lengths, np.diff(column.offsets)):
                raise _wrong(kernel, cells, f"gave lengths in output {name!r} that differ from the input's")
            column.values[:] = values
        else:
            wanted = (cells.count, *column.values.shape[len(cells.shape) :])
            given = np.asarray(part)
            if given.shape != wanted:
                raise _wrong(kernel, cells, f"gave the shape {given.shape} for output {name!r}, not {wanted}")
            if given.dtype.kind not in "biuf" + column.values.dtype.kind:
                raise _wrong(kernel, cells, f"gave the type {given.dtype} for {name!r}, not {column.values.dtype}")
            column.values.reshape(wanted)[:] = given
        found.append(column)
    return found


def explode_chunk(
    kernel: Kernel,
    cells: Cells,
    dtypes: Sequence[np.dtype[Any]],
    limit: int | None,
    *,
    seed: int,
    rng_name: str,
    step: int,
    begins: Callable[[], None] = lambda: None,
) -> tuple[Array, list[Array]]:
    """Call a batch kernel or task that returns counts, then each output's rows; `begins` as in `run_chunk`."""
    parts = _call(kernel, cells, seed, rng_name, step, begins)
    if len(parts) != len(dtypes) + 1:
        raise _wrong(kernel, cells, f"returned {len(parts)} values, not the counts and {len(dtypes)} outputs")
    counts = np.asarray(parts[0]).astype(np.int64, copy=False)
    if counts.shape != (cells.count,) or (counts < 0).any():
        raise _wrong(
            kernel,
            cells,
            f"gave counts of shape {counts.shape}, not one of 0 or more for each of {cells.count} cells",
        )
    if limit is not None and (counts > limit).any():
        first = int(np.argmax(counts > limit))
        raise KernelError(
            f"kernel {kernel.name} at cell {cells.index(first)} gave {counts[first]} rows, more than max={limit}",
            op=kernel.name,
            cell=cells.index(first),
            hint="raise max=",
        )
    rows = [np.asarray(part).astype(dtype, copy=False) for part, dtype in zip(parts[1:], dtypes, strict=True)]
    for name, one in zip(kernel.names, rows, strict=True):
        if one.shape != (counts.sum(),):
            raise _wrong(kernel, cells, f"gave {one.shape} rows in output {name!r}, the counts say {counts.sum()}")
    return counts, rows


def _call(kernel: Kernel, cells: Cells, seed: int, rng_name: str, step: int, begins: Callable[[], None]) -> list[Any]:
    compiled = kernel.mode == "batch"
    arguments = [_batch_input(one) if compiled else _task_input(one) for one in cells.columns]
    state = random.state(random.seed_key(seed, rng_name), cells.linear())
    masks = tuple(cells.masks)
    indices = cells.indices() if "cell" in kernel.specials else np.zeros((0, 0), np.int64)
    indices.flags.writeable = False
    special = {
        "cell": indices,
        "step": np.int64(step),
        "rng": state,
        "valid": masks[0] if len(masks) == 1 else masks,
    }
    arguments += [*cells.params.values(), *(special[name] for name in kernel.specials)]
    function = kernel_function(kernel) if compiled else kernel.func
    if compiled:
        compile_for(kernel, function, arguments)
    begins()
    try:
        with np.errstate(all="ignore"):
            returned = function(*arguments)
    except MemoryError:
        raise
    except (Exception, SystemExit) as error:  # sys.exit in a task ends the task, not the run
        raise kernel_error(kernel, cells.index(0) if cells.count == 1 else None, error) from clean(error)
    return list(returned) if isinstance(returned, tuple) else [returned]


def _batch_input(column: Column) -> Any:
    return (column.offsets, column.values) if isinstance(column, Ragged) else column.values


def _task_input(column: Column) -> Any:
    if isinstance(column, Fixed):
        return column.values
    offsets = pa.array(column.offsets)
    nulls = None if column.valid is None else pa.array(~column.valid)
    if column.values.dtype != np.uint8:
        return pa.LargeListArray.from_arrays(offsets, pa.array(column.values), mask=nulls)
    validity = None if column.valid is None else pa.array(column.valid).buffers()[1]
    return pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), column.cells, [validity, offsets.buffers()[1], pa.py_buffer(column.values)]
    )


def _runs(kernel: Kernel, cells: Cells, name: str, part: Any, column: Ragged) -> tuple[Array, Array]:
    """Lengths and elements of a variable-length output: a flat array, an Arrow array or a list of cells."""
    if isinstance(part, np.ndarray) and part.dtype != object:
        if part.shape != column.values.shape:
            raise _wrong(kernel, cells, f"gave {part.shape} elements in output {name!r}, not {column.values.shape}")
        return np.diff(column.offsets), part
    listed = part.to_pylist() if hasattr(part, "to_pylist") else list(part)
    found = Ragged.of(
        [one if one is None or isinstance(one, bytes) else np.asarray(one) for one in listed],
        column.values.dtype,
    )
    return np.diff(found.offsets), found.values


def _own_runs(kernel: Kernel, cells: Cells, name: str, part: Any, dtype: np.dtype[Any]) -> Ragged:
    """A column of runs of any length: (offsets, values), or of a task also an Arrow array or a list of cells."""
    if not isinstance(part, tuple):
        listed = part.to_pylist() if hasattr(part, "to_pylist") else list(part)
        column = Ragged.of([b"" if one is None else one if isinstance(one, bytes) else np.asarray(one)
                            for one in listed], dtype)
    else:
        offsets, values = (np.asarray(one) for one in part)
        if offsets.ndim != 1 or values.ndim != 1 or offsets.dtype.kind not in "iu":
            raise _wrong(kernel, cells, f"gave no whole numbers as offsets, or no run of values, in output {name!r}")
        column = Ragged(offsets.astype(np.int64, copy=False), values.astype(dtype, copy=False))
    at = column.offsets
    if column.cells != cells.count or at[0] < 0 or at[-1] > len(column.values) or (np.diff(at) < 0).any():
        raise _wrong(kernel, cells, f"gave offsets in output {name!r} that aren't {cells.count + 1} rising places in "
                                    f"its {len(column.values)} values")
    return column


def _wrong(kernel: Kernel, cells: Cells, what: str) -> KernelError:
    cell = cells.index(0) if cells.count == 1 else None
    return KernelError(
        f"kernel {kernel.name} {kernel.signature} on a chunk ({cells.count} cells) {what}",
        op=kernel.name,
        cell=cell,
        cause=what,
        hint="cells are the first axis of every input and output",
    )
