"""The task of Task Bench in numba, for every system that runs Python: it checks, hashes, computes and stamps.

Nothing of gridcompute is imported here, as peers may run where it isn't installed.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba.extending import intrinsic

from benchmarks import taskbench_oracle as oracle

types: Any = numba.types
cgutils: Any = numba.core.cgutils

START, FACTOR = np.uint64(oracle.START), np.uint64(oracle.FACTOR)
HALF = np.uint64(32)
LANES = 64
FLOPS = 2 * LANES
"""Of an iteration of the kernel; `LANES` more come at the end."""


@intrinsic
def _stack(typingctx: Any) -> Any:
    """64 float64 on the stack: an array of the heap takes longer to get than the smallest task."""
    array = types.Array(types.float64, 1, "C")

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        count = context.get_constant(types.intp, LANES)
        made = cgutils.create_struct_proxy(array)(context, builder)
        made.data = cgutils.alloca_once(builder, context.get_data_type(types.float64), size=count)
        made.shape = cgutils.pack_array(builder, [count])
        made.strides = cgutils.pack_array(builder, [context.get_constant(types.intp, 8)])
        made.itemsize, made.nitems = context.get_constant(types.intp, 8), count
        made.meminfo = cgutils.get_null_value(made.meminfo.type)
        made.parent = cgutils.get_null_value(made.parent.type)
        return made._getvalue()

    return array(), codegen


_lanes: Any = _stack  # for type checkers: an intrinsic is called without its first argument


@numba.njit(nogil=True, error_model="numpy", fastmath={"contract"})
def computed(iterations: int, begin: float) -> float:
    """64 independent multiply-adds an iteration, then their sum in order, as in `taskbench.c`."""
    a = _lanes()
    for k in range(64):
        a[k] = begin + k
    for _ in range(iterations):
        for k in range(64):
            a[k] = a[k] * 0.999 + 0.001
    total = 0.0
    for k in range(64):
        total += a[k]
    return total


@numba.njit(nogil=True)
def kernels(tasks: int, iterations: int) -> float:
    """So many tasks' work and nothing else; the sum of what they computed."""
    total = 0.0
    for t in range(tasks):
        total += computed(iterations, 0.001 * t)
    return total


def kernels_sum(tasks: int, iterations: int) -> float:
    """What `kernels` gives, but for rounding: lane k of a task that began at b has 1 + (b + k - 1) 0.999^n."""
    begun = LANES * (0.001 * tasks * (tasks - 1) / 2 - tasks) + tasks * LANES * (LANES - 1) / 2
    return tasks * LANES + begun * float(0.999**iterations)


def task(at: Any, points: Any, hashes: Any, expected: Any, lead: Any, period: Any, iterations: Any, cell: Any,
         step: Any) -> Any:  # fmt: skip
    """One task: check what every input says of itself, chain the hashes, compute, and give the own stamps."""
    p, phase = cell[0], step
    if step >= lead:
        phase = lead if period == 1 else lead + (step - lead) % period
    wrong = at.size != expected[phase, p, 0]
    chain = START * np.uint64(step + 1) + np.uint64(p)
    for k in range(at.size):
        wrong |= (at[k] != step - 1) | (points[k] != expected[phase, p, 1 + k])
        chain = (chain + hashes[k]) * FACTOR
        chain ^= chain >> HALF
    if wrong:
        raise ValueError("an input isn't the one that the oracle names")
    value = computed(iterations, 0.001 * step + p)
    if value != value:
        chain += START
    return step, p, chain
