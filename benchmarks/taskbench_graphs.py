"""Task Bench as a user of gridcompute writes it: a kernel, and rules for `Edges`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import gridcompute as grid
from benchmarks import taskbench_kernel
from benchmarks import taskbench_oracle as oracle
from benchmarks.taskbench_kernel import START

_30, _27, _31 = (np.uint64(n) for n in (30, 27, 31))
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
task = grid.kernel("(n),(n),(n)->(),(),()", names=("at", "point", "hash"), flags={"contract"})(taskbench_kernel.task)


@grid.kernel("->(),(),()", names=("at", "point", "hash"), flags={"contract"})
def lone_task(iterations: Any, cell: Any) -> Any:
    """The task of the pattern without edges, for `map` over steps and points."""
    t, p = cell[0], cell[1]
    chain = START * np.uint64(t + 1) + np.uint64(p)
    value = taskbench_kernel.computed(iterations, 0.001 * t + p)
    if value != value:  # or else the compiler would leave the work out
        chain += START
    return t, p, chain


def mapped(width: int, steps: int, iterations: int) -> Any:
    """The pattern without edges as one `map`, whose cells run in any order."""
    return grid.space(step=steps, point=width).map(lone_task, iterations=iterations)


# --- which tasks of the row before a task reads ---


def _nothing(step: int, cell: int, out: Any) -> int:
    return 0


def _itself(step: int, cell: int, out: Any) -> int:
    out[0] = cell
    return 1


def _everything(width: int) -> Callable[..., int]:
    def rule(step: int, cell: int, out: Any) -> int:
        for k in range(width):
            out[k] = k
        return width

    return rule


def _between(before: int, after: int, width: int) -> Callable[..., int]:
    def rule(step: int, cell: int, out: Any) -> int:
        lo, hi = max(0, cell - before), min(width, cell + after + 1)
        for k in range(hi - lo):
            out[k] = lo + k
        return hi - lo

    return rule


def _round(width: int) -> Callable[..., int]:
    def rule(step: int, cell: int, out: Any) -> int:
        out[0], out[1], out[2] = (cell + width - 1) % width, cell, (cell + 1) % width
        return 3

    return rule


def _halved(lead: int) -> Callable[..., int]:
    def rule(step: int, cell: int, out: Any) -> int:
        out[0] = cell >> 1 if step < lead else cell
        return 1

    return rule


def _doubling(width: int, lead: int) -> Callable[..., int]:
    def active(step: int) -> int:
        return min(width, 1 << step) if step < lead else width

    return active


def _butterfly(width: int, levels: int) -> Callable[..., int]:
    def rule(step: int, cell: int, out: Any) -> int:
        reach, n = 1 << ((step + levels - 1) % levels), 0
        if cell >= reach:
            out[n] = cell - reach
            n += 1
        out[n] = cell
        n += 1
        if cell + reach < width:
            out[n] = cell + reach
            n += 1
        return n

    return rule


def _spread(width: int, radix: int) -> Callable[..., int]:
    def rule(step: int, cell: int, out: Any) -> int:
        out[0] = cell
        for i in range(1, radix):
            out[i] = (cell + i * width // radix + step) % width
        return radix

    return rule


def _some(width: int, radix: int, seed: int) -> Callable[..., int]:
    def rule(step: int, cell: int, out: Any) -> int:
        n = 0
        for other in range(max(0, cell - radix // 2), min(width, cell + radix - radix // 2)):
            x = np.uint64(0)
            for number in (seed, step, cell, other):
                x += np.uint64(number) + START
                x = (x ^ (x >> _30)) * _FIRST
                x = (x ^ (x >> _27)) * _SECOND
                x ^= x >> _31
            if x >> np.uint64(63) == np.uint64(0):
                out[n] = other
                n += 1
        return n

    return rule


def edges(pattern: str, width: int) -> grid.Edges:
    """A pattern's rule for `iterate`."""
    levels = max(1, (width - 1).bit_length())
    grown = (width - 1).bit_length() + 1
    if pattern == "tree":
        return grid.Edges(_halved(grown), max_inputs=1, lead=grown, active=_doubling(width, grown))
    made: dict[str, tuple[Callable[..., int], int, int]] = {
        "trivial": (_nothing, 1, 1), "no_comm": (_itself, 1, 1), "stencil_1d": (_between(1, 1, width), 1, 3),
        "stencil_1d_periodic": (_round(width), 1, 3), "dom": (_between(1, 0, width), 1, 2),
        "fft": (_butterfly(width, levels), levels, 3), "all_to_all": (_everything(width), 1, width),
        "nearest": (_between(2, 2, width), 1, 5), "spread": (_spread(width, min(5, width)), width, 5),
        "random_nearest": (_some(width, 5, oracle.SEED), 3, 5),
    }  # fmt: skip
    rule, period, most = made[pattern]
    return grid.Edges(rule, period=period, max_inputs=most)


def graph(pattern: str, width: int, steps: int, iterations: int) -> Any:
    """A whole graph: the rows of tasks, step by step."""
    lead, period = oracle.cycle(pattern, width)
    first = grid.from_arrays(oracle.first_row(width), dims="p")
    return first.iterate(task, steps, edges=edges(pattern, width), expected=oracle.expected(pattern, width), lead=lead,
                         period=period, iterations=iterations)  # fmt: skip
