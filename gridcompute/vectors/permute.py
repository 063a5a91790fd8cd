"""Lanes of a vector by number, with the instructions that a processor has for it (see `types`)."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils as _untyped

from gridcompute.vectors.lanes import Kind

cgutils: Any = _untyped
INDEX = ir.IntType(32)

_AVX512 = {(8, 512): ("avx512vbmi", "permvar.qi.512"), (16, 512): ("avx512bw", "permvar.hi.512"),
           (32, 512): ("avx512f", "permvar.si.512"), (64, 512): ("avx512f", "permvar.di.512"),
           (8, 256): ("avx512vbmi,avx512vl", "permvar.qi.256"), (16, 256): ("avx512bw,avx512vl", "permvar.hi.256"),
           (64, 256): ("avx512f,avx512vl", "permvar.di.256")}  # fmt: skip
"""By bits of a lane and of all: what the processor must have, and LLVM's name of the one instruction."""


def permuted(builder: Any, kind: Kind, table: Any, index: Any, *, features: str) -> Any:
    """The table's lanes by number, modulo how many there are.

    Args:
        builder: of the function.
        kind: of both.
        table: the lanes.
        index: their numbers.
        features: of the processor, as LLVM writes them: "+avx2,-avx512f".
    """
    has = {word[1:] for word in features.split(",") if word.startswith("+")}
    bits = kind.dtype.itemsize * 8
    needs, name = _AVX512.get((bits, bits * kind.lanes), ("", ""))
    if name and has.issuperset(needs.split(",")):
        return _call(builder, f"llvm.x86.avx512.{name}", table, index)
    if (bits, kind.lanes) == (32, 8) and "avx2" in has:
        return _call(builder, "llvm.x86.avx2.permd", table, index)
    if bits == 8 and "avx2" in has:
        return _by_blocks(builder, kind.lanes, table, index, 32, "llvm.x86.avx2.pshuf.b")
    if bits == 8 and "ssse3" in has:
        return _by_blocks(builder, kind.lanes, table, index, 16, "llvm.x86.ssse3.pshuf.b.128")
    return _through_memory(builder, kind, table, index)


def _call(builder: Any, name: str, *args: Any) -> Any:
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(args[0].type, [one.type for one in args]), name)
    return builder.call(function, args)


def _by_blocks(builder: Any, lanes: int, table: Any, index: Any, width: int, name: str) -> Any:
    """Bytes of a table of 32 or 64: looked up among each 16 of them, as the instruction does, and chosen."""
    parts = []
    wide = ir.VectorType(ir.IntType(8), width)
    for first in range(0, lanes, width):
        at = builder.shuffle_vector(index, index, _numbers(range(first, first + width)))
        at = builder.and_(at, ir.Constant(wide, [lanes - 1] * width))
        block = builder.lshr(at, ir.Constant(wide, [4] * width))
        within = builder.and_(at, ir.Constant(wide, [15] * width))
        found = ir.Constant(wide, [0] * width)
        for number in range(lanes // 16):
            entries = [16 * number + lane % 16 for lane in range(width)]
            looked = _call(builder, name, builder.shuffle_vector(table, table, _numbers(entries)), within)
            here = builder.icmp_unsigned("==", block, ir.Constant(wide, [number] * width))
            found = builder.select(here, looked, found)
        parts.append(found)
    while len(parts) > 1:
        each = parts[0].type.count
        parts = [builder.shuffle_vector(a, b, _numbers(range(2 * each)))
                 for a, b in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0]


def _numbers(numbers: Any) -> ir.Constant:
    found = list(numbers)
    return ir.Constant(ir.VectorType(INDEX, len(found)), found)


def _through_memory(builder: Any, kind: Kind, table: Any, index: Any) -> Any:
    """Lane by lane, for whatever processor."""
    place = cgutils.alloca_once(builder, table.type)
    builder.store(table, place)
    at = builder.and_(index, ir.Constant(index.type, [kind.lanes - 1] * kind.lanes))
    element = builder.bitcast(place, ir.IntType(kind.dtype.itemsize * 8).as_pointer())
    found = ir.Constant(table.type, ir.Undefined)
    for lane in range(kind.lanes):
        number = builder.extract_element(at, INDEX(lane))
        wide = number if number.type.width == 64 else builder.zext(number, ir.IntType(64))
        found = builder.insert_element(found, builder.load(builder.gep(element, [wide])), INDEX(lane))
    return found
