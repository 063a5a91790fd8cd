"""Which dtypes a kernel's outputs have, from those of its inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numba
import numpy as np
from numba.core.errors import NumbaError

from gridcompute import random
from gridcompute.cellinputs import loop_parameter
from gridcompute.columns import Field, Fixed, Ragged
from gridcompute.errors import SignatureError
from gridcompute.kernels import Kernel, explodes, runs
from gridcompute.loops import compile_types, kernel_function
from gridcompute.status import counted

types: Any = numba.types
config: Any = numba.core.config
typeof: Any = numba.typeof
numpy_support: Any = numba.np.numpy_support

Dtype = np.dtype[Any]
Input = Field | Fixed | Ragged | tuple[Any, bool]

TRIED = ((3, False), (100, True), (1000, True))
"""Lengths of made-up cells, and whether their values rise: a kernel may refuse short or constant series."""


def output_dtypes(
    kernel: Kernel, inputs: Sequence[Input], params: Mapping[str, Any] | None = None, *, ndim: int = 1
) -> list[Dtype]:
    """The dtype of each output: declared, or inferred by compiling the kernel for the inputs' dtypes.

    Args:
        kernel: any kernel.
        inputs: per input a field, a column, or a pair of dtype and whether cells differ in length.
        params: the kernel's parameters; only their types count.
        ndim: number of loop dimensions (the length of `cell`).

    Raises:
        UsageError: the kernel can't be compiled for these inputs.
        SignatureError: it doesn't return what its signature says.
    """
    if kernel.dtypes is not None:
        return list(kernel.dtypes)
    kinds = [_kind(one) for one in inputs]
    if len(kinds) != len(kernel.signature.inputs):
        raise SignatureError(f"kernel {kernel.name} takes {len(kernel.signature.inputs)} inputs, not {len(kinds)}")
    bound = {name: loop_parameter(value) for name, value in kernel.bind(params or {}).items()}
    if config.DISABLE_JIT:
        return _by_running(kernel, kinds, bound, ndim)
    function = kernel_function(kernel)
    signature = argument_types(kernel, kinds, bound, ndim)
    compile_types(kernel, function, signature)
    return _from_type(kernel, function.overloads[signature].signature.return_type)


def _kind(one: Input) -> tuple[Dtype, bool]:
    if isinstance(one, Field):
        found = (one.dtype, one.ragged)
    elif isinstance(one, (Fixed, Ragged)):
        found = (one.values.dtype, isinstance(one, Ragged))
    else:
        found = (np.dtype(one[0]), bool(one[1]))
    dtype = found[0].newbyteorder("=")
    return (np.dtype(np.float32) if dtype == np.float16 else dtype), found[1]


def _array(dtype: Any, ndim: int) -> Any:
    return types.Array(dtype, ndim, "C", readonly=True)


def argument_types(kernel: Kernel, kinds: Sequence[tuple[Dtype, bool]], bound: Mapping[str, Any], ndim: int) -> Any:
    """Numba's types of the kernel's arguments, as its loop passes them."""
    batch = 1 if kernel.mode == "batch" else 0
    found: list[Any] = []
    masks: list[Any] = []
    for (dtype, ragged), core in zip(kinds, kernel.signature.inputs, strict=True):
        element = numpy_support.from_dtype(dtype)
        dims = batch + len(core)
        if ragged and batch:
            found.append(types.Tuple((_array(types.int64, 1), _array(element, 1))))
        else:
            found.append(_array(element, dims) if dims else element)
        mask_dims = batch if ragged else dims
        masks.append(_array(types.boolean, mask_dims) if mask_dims else types.boolean)
    found += [typeof(value) for value in bound.values()]
    special = {
        "cell": types.Array(types.int64, 2, "C", readonly=True) if batch else types.UniTuple(types.int64, ndim),
        "step": types.int64,
        "rng": types.Array(types.uint64, 1, "C"),
        "valid": masks[0] if len(masks) == 1 else types.Tuple(tuple(masks)),
    }
    return (*found, *(special[name] for name in kernel.specials))


def _from_type(kernel: Kernel, returned: Any) -> list[Dtype]:
    count = len(kernel.signature.outputs)
    parts = list(returned.types) if isinstance(returned, types.BaseTuple) else [returned]
    if kernel.mode == "batch" and explodes(kernel):
        parts = parts[1:]
    where = f"kernel {kernel.name} {kernel.signature}"
    if isinstance(returned, types.BaseTuple) and len(returned.types) == 1:
        raise SignatureError(f"{where}: the function returns a tuple of one", hint="return the value itself")
    if len(parts) != count or returned == types.none:
        what = "nothing" if returned == types.none else counted(len(parts), "value")
        raise SignatureError(f"{where} has {counted(count, 'output')}, but the function returns {what}")
    found = []
    for i, (part, core) in enumerate(zip(parts, kernel.signature.outputs, strict=True)):
        part = _run_values(kernel, types.unliteral(part), core)
        ndim = part.ndim if isinstance(part, types.Array) else 0
        wanted = 1 if core and core[0] in runs(kernel) else len(core) + (kernel.mode == "batch")
        if ndim != wanted and not (kernel.mode == "batch" and explodes(kernel)):
            kinds = {0: f"a scalar ({part})"}
            raise SignatureError(
                f"{where}: output {i} should have {wanted} dimensions, but the function returns "
                f"{kinds.get(ndim, f'an array of {ndim}')}"
            )
        try:
            found.append(np.dtype(numpy_support.as_dtype(part.dtype if ndim else part)))
        except NumbaError:
            raise SignatureError(
                f"{where}: output {i} is of the type {part}, which no array can hold",
                hint="return numbers or arrays of numbers; None in some cases isn't a number",
            ) from None
    return found


def _run_values(kernel: Kernel, part: Any, core: tuple[str, ...]) -> Any:
    """The type of an output's values, of (offsets, values) the second."""
    if not core or core[0] not in runs(kernel):
        return part
    pair = list(part.types) if isinstance(part, types.BaseTuple) else []
    if len(pair) != 2 or any(not isinstance(one, types.Array) or one.ndim != 1 for one in pair):
        raise SignatureError(
            f"kernel {kernel.name} {kernel.signature}: the output along {core[0]!r} is of the type {part}",
            hint="its cells have lengths of their own: return (offsets, values), as such inputs come",
        )
    return pair[1]


def _by_running(
    kernel: Kernel, kinds: Sequence[tuple[Dtype, bool]], bound: Mapping[str, Any], ndim: int
) -> list[Dtype]:
    """Without a compiler: run the function once, on ones; where it refuses those, on longer and rising values."""
    problem: Exception | None = None
    for length, rising in TRIED:
        try:
            with np.errstate(all="ignore"):
                returned = kernel.func(*_made_up(kernel, kinds, bound, ndim, length, rising=rising))
            break
        except Exception as error:
            problem = problem or error
    else:
        raise SignatureError(
            f"kernel {kernel.name} can't be run on ones to see its dtypes: {type(problem).__name__}: {problem}",
            hint="declare them: dtypes=(...)",
        ) from problem
    parts = list(returned) if isinstance(returned, tuple) else [returned]
    if kernel.mode == "batch" and explodes(kernel):
        parts = parts[1:]
    if len(parts) != len(kernel.signature.outputs) or any(part is None for part in parts):
        raise SignatureError(
            f"kernel {kernel.name} {kernel.signature} has {counted(len(kernel.signature.outputs), 'output')}, but "
            f"the function returns {'nothing' if returned is None else counted(len(parts), 'value')}"
        )
    return [np.asarray(part[1] if core and core[0] in runs(kernel) else part).dtype
            for part, core in zip(parts, kernel.signature.outputs, strict=True)]


def _made_up(kernel: Kernel, kinds: Sequence[tuple[Dtype, bool]], bound: Mapping[str, Any], ndim: int, length: int,
             *, rising: bool) -> list[Any]:
    """A cell's arguments: ones, or 1, 2, 3 ... along its core dimensions."""
    batch = (1,) if kernel.mode == "batch" else ()
    arguments: list[Any] = []
    masks: list[Any] = []
    for (dtype, ragged), core in zip(kinds, kernel.signature.inputs, strict=True):
        shape = batch + tuple(kernel.sizes.get(name, length) for name in core)
        values = np.ones(length if ragged and batch else shape, dtype)
        if rising:
            values = np.arange(1, values.size + 1).astype(dtype).reshape(values.shape)
        if ragged and batch:
            arguments.append((np.array([0, length]), values))
            masks.append(np.ones(1, bool))
        else:
            arguments.append(values if shape else dtype.type(1))
            masks.append(np.bool_(True) if ragged or not shape else np.ones(shape, bool))
    special = {
        "cell": np.zeros((1, ndim), np.int64) if batch else (np.int64(0),) * ndim,
        "step": np.int64(0),
        "rng": random.state(0),
        "valid": masks[0] if len(masks) == 1 else tuple(masks),
    }
    return [*arguments, *bound.values(), *(special[name] for name in kernel.specials)]
