"""Elements and windows of one-dimensional arrays without checks, for compiled loops that know their bounds."""

from __future__ import annotations

from typing import Any

from numba.core import types
from numba.extending import intrinsic
from numba.np import arrayobj

from gridcompute.columns import Array


@intrinsic
def peek(typingctx: Any, array: Any, index: Any) -> Any:
    """Element `index` of a one-dimensional contiguous array, unchecked (negative indices don't wrap)."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = signature.args[0]
        source = context.make_array(kind)(context, builder, args[0])
        load: Any = arrayobj.load_item
        return load(context, builder, kind, builder.gep(source.data, [args[1]], inbounds=True))

    return array.dtype(array, types.intp), codegen


@intrinsic
def window(typingctx: Any, array: Any, start: Any, size: Any) -> Any:
    """`array[start : start + size]`, unchecked, borrowed: a slice's checks keep loops from vectorising."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = signature.args[0]
        source = context.make_array(kind)(context, builder, args[0])
        out = context.make_array(kind)(context, builder)
        populate: Any = arrayobj.populate_array
        populate(
            out,
            data=builder.gep(source.data, [args[1]], inbounds=True),
            shape=[args[2]],
            strides=[source.itemsize],
            itemsize=source.itemsize,
            meminfo=None,
        )
        return out._getvalue()

    return array(array, types.intp, types.intp), codegen


def peek_plain(array: Array, index: int) -> Any:
    """`peek` in plain Python."""
    return array[index]


def window_plain(array: Array, start: int, size: int) -> Array:
    """`window` in plain Python."""
    return array[start : start + size]
