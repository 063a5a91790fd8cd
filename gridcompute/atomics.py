"""What threads need to wait for each other within compiled code: ordered loads and stores, pauses, a clock.

An array's element that is stored with `store_release` and then seen by `load_acquire` in another thread carries
with it all that was written before. `wait_equal` and `wait_least` spin first, then yield the core, then sleep, so that
more threads than cores cost time and nothing else.
"""

from __future__ import annotations

import platform
from typing import Any

import numba
from llvmlite import ir
from numba.extending import intrinsic

types: Any = numba.types
cgutils: Any = numba.core.cgutils

CAME, ENDED, LATE = 0, 1, 2
"""How a wait ended: the value came; somebody raised the flag; the deadline passed."""

SPINS = 2000
YIELD_NANOSECONDS = 2_000_000
"""How long a wait yields before it sleeps: two members that both sleep would wake each other for every step."""

SLEEP_MICROSECONDS = 50

_PAUSES = {"x86_64": ("llvm.x86.sse2.pause", ()), "amd64": ("llvm.x86.sse2.pause", ()),
           "aarch64": ("llvm.aarch64.hint", (1,)), "arm64": ("llvm.aarch64.hint", (1,))}  # fmt: skip
_HERE = _PAUSES.get(platform.machine().lower())


def _element(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    data = cgutils.create_struct_proxy(array_type)(context, builder, array).data
    return builder.gep(data, [index])


@intrinsic
def _load_acquire(typingctx: Any, array: Any, index: Any) -> Any:
    """array[index] of an int64 or uint8 array; nothing after it happens before it."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place, bits = _element(context, builder, signature.args[0], args[0], args[1]), array.dtype.bitwidth
        value = builder.load_atomic(place, "acquire", bits // 8, typ=ir.IntType(bits))
        return value if bits == 64 else builder.zext(value, ir.IntType(64))

    return types.int64(array, types.intp), codegen


@intrinsic
def _store_release(typingctx: Any, array: Any, index: Any, value: Any) -> Any:
    """array[index] = value of an int64 or uint8 array; everything before it happens before it."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place, bits = _element(context, builder, signature.args[0], args[0], args[1]), array.dtype.bitwidth
        builder.store_atomic(args[2] if bits == 64 else builder.trunc(args[2], ir.IntType(bits)), place, "release",
                             bits // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.int64), codegen


@intrinsic
def _fetch_add(typingctx: Any, array: Any, index: Any, value: Any) -> Any:
    """array[index] += value of an int64 array, in one piece; gives what was there before."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = _element(context, builder, signature.args[0], args[0], args[1])
        return builder.atomic_rmw("add", place, args[2], "monotonic")

    return types.int64(array, types.intp, types.int64), codegen


@intrinsic
def _pause(typingctx: Any) -> Any:
    """Tell the processor that this is a loop that waits; nothing where there is no such instruction."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if _HERE is not None:
            name, hints = _HERE
            kind = ir.FunctionType(ir.VoidType(), [ir.IntType(32)] * len(hints))
            builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [ir.IntType(32)(h) for h in hints])
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def _nanoseconds(typingctx: Any) -> Any:
    """The monotonic clock, which Python's `time.perf_counter_ns` reads too."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pair = cgutils.alloca_once(builder, ir.LiteralStructType([ir.IntType(64), ir.IntType(64)]))
        kind = ir.FunctionType(ir.IntType(32), [ir.IntType(32), pair.type])
        call = cgutils.get_or_insert_function(builder.module, kind, "clock_gettime")
        builder.call(call, [ir.IntType(32)(1), pair])
        seconds, rest = (builder.load(cgutils.gep_inbounds(builder, pair, 0, i)) for i in range(2))
        return builder.add(builder.mul(seconds, ir.IntType(64)(10**9)), rest)

    return types.int64(), codegen


@intrinsic
def _yield_core(typingctx: Any) -> Any:
    """Let another thread run on this core."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        call = cgutils.get_or_insert_function(builder.module, ir.FunctionType(ir.IntType(32), []), "sched_yield")
        builder.call(call, [])
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def _sleep_microseconds(typingctx: Any, amount: Any) -> Any:
    """Sleep for less than a second."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.IntType(32), [ir.IntType(32)])
        call = cgutils.get_or_insert_function(builder.module, kind, "usleep")
        builder.call(call, [args[0]])
        return context.get_dummy_value()

    return types.void(types.uint32), codegen


@intrinsic
def _frozen(typingctx: Any, array: Any, start: Any, length: Any) -> Any:
    """array[start:start + length] of a contiguous array, read-only, without a count of its owners.

    The count would be an atomic instruction, which takes longer than a small kernel; the array must outlive the view.
    """
    view = types.Array(array.dtype, array.ndim, "C", readonly=True)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = signature.args[0]
        whole = cgutils.create_struct_proxy(kind)(context, builder, args[0])
        made = cgutils.create_struct_proxy(view)(context, builder)
        inner = cgutils.unpack_tuple(builder, whole.shape)[1:]
        start, made.nitems = args[1], args[2]
        for length in inner:
            start, made.nitems = builder.mul(start, length), builder.mul(made.nitems, length)
        made.data = builder.gep(whole.data, [start])
        made.shape = cgutils.pack_array(builder, [args[2], *inner])
        made.strides, made.itemsize = whole.strides, whole.itemsize
        made.meminfo = cgutils.get_null_value(made.meminfo.type)
        made.parent = cgutils.get_null_value(made.parent.type)
        return made._getvalue()

    return view(array, types.intp, types.intp), codegen


# For type checkers: an intrinsic is called without its first argument.
load_acquire: Any = _load_acquire
store_release: Any = _store_release
fetch_add: Any = _fetch_add
pause: Any = _pause
nanoseconds: Any = _nanoseconds
yield_core: Any = _yield_core
sleep_microseconds: Any = _sleep_microseconds
frozen: Any = _frozen


@numba.njit(nogil=True)
def wait_equal(flags: Any, index: int, value: int, control: Any, patience: int) -> int:
    """Wait until flags[index] == value; see `CAME`, `ENDED`, `LATE`.

    Args:
        flags: int64 or uint8.
        index: of the flag.
        value: awaited.
        control: control[0] isn't 0 when all are to end.
        patience: nanoseconds.
    """
    for _ in range(SPINS):
        if load_acquire(flags, index) == value:
            return CAME
        pause()
    began = nanoseconds()
    while load_acquire(flags, index) != value:
        code = _rest(began, control, patience)
        if code != CAME:
            return code
    return CAME


@numba.njit(nogil=True)
def wait_least(flags: Any, index: int, value: int, control: Any, patience: int) -> int:
    """Wait until flags[index] >= value; as `wait_equal`."""
    for _ in range(SPINS):
        if load_acquire(flags, index) >= value:
            return CAME
        pause()
    began = nanoseconds()
    while load_acquire(flags, index) < value:
        code = _rest(began, control, patience)
        if code != CAME:
            return code
    return CAME


@numba.njit(nogil=True)
def _rest(began: int, control: Any, patience: int) -> int:
    if load_acquire(control, 0) != 0:
        return ENDED
    waited = nanoseconds() - began
    if waited > patience:
        return LATE
    if waited < YIELD_NANOSECONDS:
        yield_core()
    else:
        sleep_microseconds(SLEEP_MICROSECONDS)
    return CAME
