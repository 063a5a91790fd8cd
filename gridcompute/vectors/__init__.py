"""Vectors of integers for kernels: many lanes at once, in registers, with the same bits on every processor.

    from gridcompute.vectors import i8x64

    @grid.kernel(...)
    def kernel(...):
        score, best = i8x64.splat(0), i8x64.load(column, 64 * i)
        score = (a == b).select(score + match, score - mismatch).max(best)
        score.store(column, 64 * i)

`i8x64` has 64 lanes of int8 (512 bits), `i8x32` the half of that; so i16, i32, i64 and the unsigned u8 to u64. Numba
compiles each operation to the instructions of its machine: one where there are registers of that width, several where
there are narrower ones. Without numba (NUMBA_DISABLE_JIT, a debugger) the same is done with NumPy.
"""

from gridcompute.vectors import methods  # noqa: F401 - makes them known to numba
from gridcompute.vectors.lanes import (
    KINDS,
    Kind,
    Mask,
    Vector,
    i8x32,
    i8x64,
    i16x16,
    i16x32,
    i32x8,
    i32x16,
    i64x4,
    i64x8,
    u8x32,
    u8x64,
    u16x16,
    u16x32,
    u32x8,
    u32x16,
    u64x4,
    u64x8,
)

__all__ = [
    "KINDS", "Kind", "Mask", "Vector", "i8x32", "i8x64", "i16x16", "i16x32", "i32x8", "i32x16", "i64x4", "i64x8",
    "u8x32", "u8x64", "u16x16", "u16x32", "u32x8", "u32x16", "u64x4", "u64x8",
]  # fmt: skip
