"""Loops over cells around a kernel: source is written for each shape of kernel, then compiled (or just run).

For a kernel "(time)->(),()" that takes `cell`, the loop reads

    def loop(mark, status, count, origin, extent, space, i0, o0, o1, ...):
        c0 = 0; c1 = 0
        for i in range(count):
            touch(mark, i)
            r0, r1 = kernel(i0[i], (origin[0] + c0, origin[1] + c1))
            o0[i] = r0
            o1[i] = r1
            (count c1 and c0 up)
        return 0
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numba
import numpy as np
from numba.core.errors import NumbaError, UnsupportedBytecodeError
from numba.extending import intrinsic

from gridcompute import random
from gridcompute.codecache import cached_njit
from gridcompute.errors import KernelError, UsageError
from gridcompute.kernels import Kernel
from gridcompute.keys import digest, machine_key
from gridcompute.secrecy import clean

types: Any = numba.types
config: Any = numba.core.config
cgutils: Any = numba.core.cgutils
typeof: Any = numba.typeof

_functions: dict[str, Any] = {}

ALONE = "run the kernel on that cell's input to see why, under NUMBA_DISABLE_JIT=1 in a debugger"
"""What to do about a cell that failed, where nothing more is known of it."""

LOOP = "<gridcompute loop>"
"""What stands for a loop's file."""

WRONG_LENGTH = 1
TOO_LONG = 2
UNEQUAL = 3


@intrinsic
def touch_compiled(typingctx: Any, mark: Any, index: Any) -> Any:
    """Store the index into mark[0]; atomic, so that the compiler neither drops nor moves the store."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = cgutils.create_struct_proxy(signature.args[0])(context, builder, args[0])
        value = context.cast(builder, args[1], signature.args[1], types.int64)
        builder.store_atomic(value, array.data, "monotonic", 8)
        return context.get_dummy_value()

    return types.void(mark, index), codegen


def _touch_plain(mark: Any, index: int) -> None:
    mark[0] = index


@dataclass(frozen=True)
class Shape:
    """What a loop's source depends on.

    Attributes:
        inputs: per input "fixed", "shared" (the same for all cells) or "ragged".
        masks: per input, whether its mask is passed on as `valid`: "" or "cell" or "core".
        params: number of parameters.
        specials: those that the kernel takes.
        outputs: per output "scalar", "core" with its number of dimensions, "ragged" with the position of the
            input whose lengths it has; or "rows" (a run of rows a cell).
        dims: number of loop dimensions.
        count_only: for "rows": only count them.
        resumes: whether the loop begins at the cell `first`, and rows at `at`: to go on behind a cell that failed.
    """

    inputs: tuple[str, ...]
    masks: tuple[str, ...]
    params: int
    specials: tuple[str, ...]
    outputs: tuple[tuple[str, int], ...]
    dims: int
    count_only: bool = False
    resumes: bool = False


def source(shape: Shape) -> str:
    """The loop's Python source; `loop` returns 0, or what was wrong with an output (see `status`)."""
    arguments = ["mark", "status", "count", *(["first"] if shape.resumes else [])]
    located = bool({"cell", "rng"} & set(shape.specials))
    arguments += ["origin", "extent", "space"] if located and shape.dims else []
    arguments += ["rng"] if "rng" in shape.specials else []
    arguments += ["step"] if "step" in shape.specials else []
    for i, kind in enumerate(shape.inputs):
        arguments += [f"i{i}"] if kind != "ragged" else [f"i{i}_offsets", f"i{i}"]
        arguments += [f"m{i}"] if shape.masks[i] else []
    arguments += [f"p{i}" for i in range(shape.params)]
    for i, (kind, _) in enumerate(shape.outputs):
        arguments += [f"o{i}_offsets"] if kind == "ragged" else []
        arguments += [] if shape.count_only else [f"o{i}"]
    rows = shape.outputs[0][0] == "rows"
    arguments += ["counts", "limit"] if rows else []
    arguments += ["at"] if rows and shape.resumes else []
    body = _beginning(shape) if located else []
    body += ["at = 0"] if rows and not shape.resumes else []
    body += ["for i in range(first, count):" if shape.resumes else "for i in range(count):"]
    body += ["    " + line for line in _cell(shape, located)]
    lines = [f"def loop({', '.join(arguments)}):", *("    " + line for line in body), "    return 0"]
    return "\n".join(lines) + "\n"


def _beginning(shape: Shape) -> list[str]:
    """The index of the first cell."""
    if not shape.resumes:
        return [f"c{d} = 0" for d in range(shape.dims)]
    lines = ["rest = first"]
    for d in reversed(range(shape.dims)):
        lines += [f"c{d} = rest % extent[{d}]", f"rest //= extent[{d}]"] if d else ["c0 = rest"]
    return lines


def _cell(shape: Shape, located: bool) -> list[str]:
    lines = ["touch(mark, i)"]
    position = [f"origin[{d}] + c{d}" for d in range(shape.dims)]
    if "rng" in shape.specials:
        linear = "0"
        for d, one in enumerate(position):
            linear = f"({linear}) * space[{d}] + {one}" if d else one
        lines.append(f"reset(rng, {linear})")
    place = {"fixed": "i{0}[i]", "shared": "i{0}[0]", "ragged": "i{0}[i{0}_offsets[i]:i{0}_offsets[i + 1]]"}
    passed = [place[kind].format(i) for i, kind in enumerate(shape.inputs)]
    passed += [f"p{i}" for i in range(shape.params)]
    masks = [f"m{i}[i]" for i in range(len(shape.inputs))]
    special = {
        "cell": "(" + "".join(f"{one}, " for one in position) + ")",
        "step": "step",
        "rng": "rng",
        "valid": masks[0] if len(masks) == 1 else "(" + "".join(f"{one}, " for one in masks) + ")",
    }
    passed += [special[name] for name in shape.specials]
    results = ", ".join(f"r{i}" for i in range(len(shape.outputs)))
    lines.append(f"{results} = kernel({', '.join(passed)})")
    lines += _rows(shape) if shape.outputs[0][0] == "rows" else _stores(shape)
    if located and shape.dims:
        lines += _advance(shape.dims)
    return lines


def _stores(shape: Shape) -> list[str]:
    lines = []
    for i, (kind, number) in enumerate(shape.outputs):
        if kind == "scalar":
            lines.append(f"o{i}[i] = r{i}")
        elif kind == "core":
            for axis in range(number):
                lines += _refuse(f"r{i}.shape[{axis}] != o{i}.shape[{axis + 1}]", i, f"r{i}.shape[{axis}]", axis)
            lines.append(f"o{i}[i] = r{i}")
        else:
            first, last = f"o{i}_offsets[i]", f"o{i}_offsets[i + 1]"
            lines += _refuse(f"r{i}.shape[0] != {last} - {first}", i, f"r{i}.shape[0]", 0)
            lines.append(f"o{i}[{first}:{last}] = r{i}")
    return lines


def _rows(shape: Shape) -> list[str]:
    lines = ["rows = r0.shape[0]"]
    for i in range(1, len(shape.outputs)):
        lines += _refuse(f"r{i}.shape[0] != rows", i, f"r{i}.shape[0]", 0, UNEQUAL)
    lines += _refuse("limit >= 0 and rows > limit", 0, "rows", 0, TOO_LONG)
    if shape.count_only:
        return [*lines, "counts[i] = rows"]
    # The second pass of a kernel that isn't pure could run over the end of what the first counted.
    lines += _refuse("limit < 0 and rows != counts[i]", 0, "rows", 0)
    lines.append("counts[i] = rows")
    lines += [f"o{i}[at:at + rows] = r{i}" for i in range(len(shape.outputs))]
    return [*lines, "at += rows"]


def _refuse(test: str, output: int, found: str, axis: int, code: int = WRONG_LENGTH) -> list[str]:
    return [
        f"if {test}:",
        f"    status[0] = {output}",
        f"    status[1] = {found}",
        f"    status[2] = {axis}",
        f"    return {code}",
    ]


def _advance(dims: int) -> list[str]:
    """Count the cell's index up, the last dimension fastest."""
    lines: list[str] = []
    for d in reversed(range(dims)):
        pad = "    " * (dims - 1 - d)
        lines.append(f"{pad}c{d} += 1")
        if d:
            lines += [f"{pad}if c{d} == extent[{d}]:", f"{pad}    c{d} = 0"]
    return lines


def kernel_function(kernel: Kernel) -> Any:
    """The kernel's function, compiled (or plain, under NUMBA_DISABLE_JIT).

    Raises:
        UsageError: what the function reaches isn't what it was when the kernel's key was taken.
    """
    if kernel.key not in _functions:
        if machine_key(kernel.func) != kernel.loaded:
            raise UsageError(
                f"kernel {kernel.name}: something that it reads has changed since its key was taken",
                hint="define the kernel again; on a cluster, give all nodes the same versions of its modules",
            )
        _functions[kernel.key] = cached_njit(kernel.func, kernel.code, flags=kernel.flags, inline=True)
    return _functions[kernel.key]


def make_loop(kernel: Kernel, shape: Shape) -> Any:
    """The loop around a kernel, compiled (or plain, under NUMBA_DISABLE_JIT)."""
    return _make_loop(kernel_function(kernel), kernel.code, kernel.flags, shape)


@contextlib.contextmanager
def plainly(kernel: Kernel, func: Any = None) -> Iterator[None]:
    """For a while a kernel is plain Python, as under NUMBA_DISABLE_JIT; `func` takes its function's place."""
    before, known = config.DISABLE_JIT, _functions.pop(kernel.key, None)
    config.DISABLE_JIT = 1
    if func is not None:
        _functions[kernel.key] = func
    try:
        yield
    finally:
        config.DISABLE_JIT = before
        _functions.pop(kernel.key, None)
        if known is not None:
            _functions[kernel.key] = known


@lru_cache(maxsize=256)
def _make_loop(function: Any, key: str, flags: frozenset[str], shape: Shape) -> Any:
    text = source(shape)
    plain = config.DISABLE_JIT
    namespace = {
        "__name__": __name__,
        "kernel": function,
        "reset": random.reset,
        "touch": _touch_plain if plain else touch_compiled,
    }
    exec(compile(text, LOOP, "exec"), namespace)
    return cached_njit(namespace["loop"], digest((key, text)), flags=flags)


def compile_for(kernel: Kernel, function: Any, arguments: Sequence[Any]) -> None:
    """Compile for the types of these arguments, if that hasn't been done; see `compile_types`."""
    if config.DISABLE_JIT:
        return
    # numba's typeof takes longer than the rest of a call on a small chunk, so what was seen is remembered.
    seen = function.__dict__.setdefault("seen_arguments", set())
    marks = tuple(_mark(one) for one in arguments)
    if marks not in seen:
        compile_types(kernel, function, tuple(typeof(one) for one in arguments))
        seen.add(marks)


def _mark(value: Any) -> Any:
    """Something cheap that determines numba's type of a value; the type itself where there is nothing cheaper."""
    if type(value) is np.ndarray:
        flags = value.flags
        return value.dtype, value.ndim, flags.c_contiguous, flags.f_contiguous, flags.writeable, flags.aligned
    if isinstance(value, np.generic) and value.dtype.kind in "biufc":
        return type(value)
    return tuple(_mark(one) for one in value) if type(value) is tuple else typeof(value)


def compile_types(kernel: Kernel, function: Any, signature: tuple[Any, ...]) -> None:
    """Compile or load; numba's complaint becomes ours.

    Raises:
        UsageError: numba can't compile the kernel for these types.
    """
    if signature in function.overloads:
        return
    try:
        function.compile(signature)
    except (NumbaError, UnsupportedBytecodeError, NotImplementedError) as error:
        raise UsageError(
            f"kernel {kernel.name} can't be compiled: {_short(str(error))}",
            hint="numba compiles a subset of Python and NumPy; inputs are read-only; for anything else use @grid.task",
        ) from clean(error)


def _short(text: str) -> str:
    """The lines of numba's message that say what is wrong and where."""
    lines = [line.strip() for line in text.splitlines()]
    useful = [
        line
        for line in lines
        if line
        and not line.startswith(
            (
                "During:",
                "Failed in nopython",
                "Overload of",
                "[",
                "Known signatures",
                "Parameterized",
                "raised from",
            )
        )
    ]
    return "\n    ".join(useful[:8])


def kernel_error(kernel: Kernel, cell: tuple[int, ...] | None, error: BaseException) -> KernelError:
    """The error for a function that raised; notes of what it raised (`add_note`) are the hint."""
    cause = f"{type(error).__name__}: {error}"
    where = "on a chunk" if cell is None else f"at cell {cell}"
    return KernelError(
        f"kernel {kernel.name} failed {where}: {cause}",
        op=kernel.name,
        cell=cell,
        cause=cause,
        hint="; ".join(getattr(error, "__notes__", ())) or ALONE,
    )


def in_step(error: KernelError, step: int) -> KernelError:
    """A kernel's error with the step of an `iterate` that it failed in."""
    error.message = error.message.replace(" failed ", f" failed in step {step} ", 1)
    error.args, error.step = (error.message,), step
    return error


def read_only(array: Any) -> Any:
    """A contiguous, aligned, native view or copy, not writable, so that one compiled loop serves all."""
    array = np.require(array, dtype=array.dtype.newbyteorder("="), requirements=["C", "A"])
    view = array.view()
    view.flags.writeable = False
    return view
