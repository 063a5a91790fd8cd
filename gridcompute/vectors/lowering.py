"""What numba makes of vectors' operations.

LLVM makes of an operation over 64 bytes what the machine has: one instruction with AVX-512, two with AVX2, four with
SSE or NEON; all give the same bits. Only `permute` has no such operation: its instructions are chosen by the
processor's features, and where there are none it goes through memory.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from gridcompute.vectors.lanes import Kind, half
from gridcompute.vectors.permute import INDEX, cgutils, permuted
from gridcompute.vectors.types import MaskType, VectorType, element, llvm, signed


def _intrinsic(function: Any) -> Any:
    """Numba's decorator, whose own annotations don't know that its first argument is left out in a call."""
    return intrinsic(function)


# --- made ---


@_intrinsic
def splat(_: Any, kind: Any, value: Any) -> Any:
    """A scalar in each lane."""
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        lane = context.cast(builder, args[1], value, element(kind.kind))
        one = builder.insert_element(ir.Constant(llvm(kind.kind), ir.Undefined), lane, INDEX(0))
        return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(INDEX, kind.kind.lanes), None))

    return VectorType(kind.kind)(kind, value), code


@_intrinsic
def ramp(_: Any, kind: Any) -> Any:
    """0, 1, 2, ... by lane."""
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return ir.Constant(llvm(kind.kind), list(range(kind.kind.lanes)))

    return VectorType(kind.kind)(kind), code


@_intrinsic
def load(_: Any, kind: Any, array: Any, at: Any) -> Any:
    """Lanes from an array."""
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        found = builder.load(_place(context, builder, array, args[1], at, args[2], kind.kind))
        found.align = 1
        return found

    return VectorType(kind.kind)(kind, array, at), code


@_intrinsic
def store(_: Any, vector: Any, array: Any, at: Any) -> Any:
    """Lanes to an array."""
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[0], _place(context, builder, array, args[1], at, args[2], vector.kind)).align = 1
        return context.get_dummy_value()

    return types.none(vector, array, at), code


def _place(context: Any, builder: Any, array_type: Any, array: Any, at_type: Any, at: Any, kind: Kind) -> Any:
    data = cgutils.create_struct_proxy(array_type)(context, builder, value=array).data
    offset = context.cast(builder, at, at_type, types.intp)
    return builder.bitcast(builder.gep(data, [offset]), llvm(kind).as_pointer())


@_intrinsic
def of(_: Any, kind: Any, vector: Any) -> Any:
    """Lanes of another width or sign."""
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        old, new = vector.kind.dtype.itemsize, kind.kind.dtype.itemsize
        if old == new:
            return args[1]
        cast = builder.trunc if old > new else builder.sext if signed(vector.kind) else builder.zext
        return cast(args[1], llvm(kind.kind))

    return VectorType(kind.kind)(kind, vector), code


def _chosen(numbers: range) -> ir.Constant:
    return ir.Constant(ir.VectorType(INDEX, len(numbers)), list(numbers))


@_intrinsic
def join(_: Any, kind: Any, low: Any, high: Any) -> Any:
    """Two halves."""
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.shuffle_vector(args[1], args[2], _chosen(range(kind.kind.lanes)))

    return VectorType(kind.kind)(kind, low, high), code


def half_of(upper: bool) -> Any:
    """An intrinsic: one half of the lanes."""
    @_intrinsic
    def one(_: Any, vector: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            n = vector.kind.lanes
            return builder.shuffle_vector(args[0], args[0], _chosen(range(n // 2, n) if upper else range(n // 2)))

        return VectorType(half(vector.kind))(vector), code

    return one


@_intrinsic
def lane(_: Any, vector: Any, number: Any) -> Any:
    """One lane as a scalar."""
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        at = context.cast(builder, args[1], number, types.int64)
        return builder.extract_element(args[0], builder.and_(at, at.type(vector.kind.lanes - 1)))

    return element(vector.kind)(vector, number), code


# --- by lane ---


def _binary(emit: Callable[[Any, Kind, Any, Any], Any]) -> Any:
    """An intrinsic of two vectors of one kind."""

    @_intrinsic
    def one(_: Any, a: Any, b: Any) -> Any:
        kind: Any = getattr(a, "kind", None)  # a mask has none
        return a(a, b), lambda context, builder, signature, args: emit(builder, kind, *args)

    return one


def _called(name: str) -> Callable[[Any, Kind, Any, Any], Any]:
    """LLVM's own function, which has a signed and an unsigned form."""

    def emit(builder: Any, kind: Kind, a: Any, b: Any) -> Any:
        full = f"llvm.{'s' if signed(kind) else 'u'}{name}.v{kind.lanes}i{kind.dtype.itemsize * 8}"
        function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(a.type, [a.type, a.type]), full)
        return builder.call(function, [a, b])

    return emit


def _shifted(left: bool) -> Callable[[Any, Kind, Any, Any], Any]:
    def emit(builder: Any, kind: Kind, a: Any, by: Any) -> Any:
        # LLVM leaves open what a shift by more than there are bits gives.
        by = builder.and_(by, ir.Constant(by.type, [kind.dtype.itemsize * 8 - 1] * kind.lanes))
        return (builder.shl if left else builder.ashr if signed(kind) else builder.lshr)(a, by)

    return emit


OPERATORS = {
    operator.add: _binary(lambda builder, kind, a, b: builder.add(a, b)),
    operator.sub: _binary(lambda builder, kind, a, b: builder.sub(a, b)),
    operator.mul: _binary(lambda builder, kind, a, b: builder.mul(a, b)),
    operator.and_: _binary(lambda builder, kind, a, b: builder.and_(a, b)),
    operator.or_: _binary(lambda builder, kind, a, b: builder.or_(a, b)),
    operator.xor: _binary(lambda builder, kind, a, b: builder.xor(a, b)),
    operator.lshift: _binary(_shifted(True)),
    operator.rshift: _binary(_shifted(False)),
}  # fmt: skip

METHODS = {
    "max": _binary(_called("max")),
    "min": _binary(_called("min")),
    "add_saturated": _binary(_called("add.sat")),
    "sub_saturated": _binary(_called("sub.sat")),
}


def compared(word: str) -> Any:
    """An intrinsic: a mask of two vectors, by LLVM's word for the comparison."""
    @_intrinsic
    def one(_: Any, a: Any, b: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return (builder.icmp_signed if signed(a.kind) else builder.icmp_unsigned)(word, *args)

        return MaskType(a.kind.lanes)(a, b), code

    return one


@_intrinsic
def inverted(_: Any, a: Any) -> Any:
    """Each bit turned."""
    return a(a), lambda context, builder, signature, args: builder.not_(args[0])


@_intrinsic
def select(_: Any, mask: Any, there: Any, elsewhere: Any) -> Any:
    """Lanes of one or the other."""
    return there(mask, there, elsewhere), lambda context, builder, signature, args: builder.select(*args)


@_intrinsic
def bits(_: Any, mask: Any) -> Any:
    """A mask as the bits of an integer."""
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = ir.IntType(64)
        found = builder.bitcast(args[0], ir.IntType(mask.lanes))
        return found if mask.lanes == word.width else builder.zext(found, word)

    return types.uint64(mask), code


def reduced(every: bool) -> Any:
    """An intrinsic: whether a mask is true in every lane, or in any."""
    @_intrinsic
    def one(_: Any, mask: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            bits = builder.bitcast(args[0], ir.IntType(mask.lanes))
            full = ir.Constant(bits.type, (1 << mask.lanes) - 1 if every else 0)
            return builder.icmp_unsigned("==" if every else "!=", bits, full)

        return types.boolean(mask), code

    return one


@_intrinsic
def permute(_: Any, table: Any, index: Any) -> Any:
    """Lanes by number."""
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return permuted(builder, table.kind, *args, features=context.codegen().magic_tuple()[2])

    return table(table, index), code
