"""What the graphs of Task Bench are, in plain formulas: the judge of every system, sharing no code with any of them.

Source: E. Slaughter et al., "Task Bench: A Parameterized Benchmark for Evaluating Parallel Runtime Performance", SC'20
(arXiv 1908.05790), written anew from its rules. A task (t, p) of row t reads tasks of row t - 1; row -1 is given.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

PATTERNS = ("trivial", "no_comm", "stencil_1d", "stencil_1d_periodic", "dom", "tree", "fft", "all_to_all", "nearest",
            "spread", "random_nearest")  # fmt: skip
RADIX = 5
SEED = 20
MASK = 2**64 - 1
START, FACTOR = 0x9E3779B97F4A7C15, 0xD1342543DE82EF95


def levels(width: int) -> int:
    """Doublings from 1 until a width is reached."""
    return (width - 1).bit_length()


def radix(pattern: str, width: int) -> int:
    """Inputs of a task where the pattern has a parameter for it."""
    return min(RADIX, width) if pattern == "spread" else RADIX


def cycle(pattern: str, width: int) -> tuple[int, int]:
    """Steps before the pattern repeats itself, and after how many it does."""
    periods = {"fft": max(1, levels(width)), "spread": width, "random_nearest": 3}
    return (levels(width) + 1 if pattern == "tree" else 0), periods.get(pattern, 1)


def scattered(*numbers: int) -> int:
    """64 bits from whole numbers: the finaliser of splitmix64 after each."""
    x = 0
    for number in numbers:
        x = (x + number + START) & MASK
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
        x ^= x >> 31
    return x


def row(pattern: str, t: int, width: int) -> int:
    """Tasks of a row."""
    return min(width, 2**t) if pattern == "tree" and t < 63 else width


def inputs(pattern: str, t: int, p: int, width: int) -> list[int]:
    """The points of row t - 1 that the task (t, p) reads, in order."""
    r = radix(pattern, width)
    near = [p + d for d in range(-(r // 2), r - r // 2)]
    far = 2 ** ((t - 1) % max(1, levels(width)))
    found = {
        "trivial": [],
        "no_comm": [p],
        "stencil_1d": [p - 1, p, p + 1],
        "dom": [p - 1, p],
        "tree": [p // 2 if t <= levels(width) else p],
        "fft": [p - far, p, p + far],
        "all_to_all": list(range(width)),
        "nearest": near,
        "random_nearest": [q for q in near if scattered(SEED, t % 3, p, q & MASK) < 2**63],
    }
    if pattern == "stencil_1d_periodic":
        return [(p + d) % width for d in (-1, 0, 1)]
    if pattern == "spread":
        return [(p + i * width // r + (t if i else 0)) % width for i in range(r)]
    return [q for q in found[pattern] if 0 <= q < width]


@lru_cache(maxsize=256)
def expected(pattern: str, width: int) -> Any:
    """What each task must find, int64 of phases x width x (1 + most inputs): how many, then which points."""
    lead, period = cycle(pattern, width)
    rows = [[inputs(pattern, t, p, width) for p in range(width)] for t in range(lead + period)]
    most = max(len(one) for several in rows for one in several)
    table = np.zeros((lead + period, width, 1 + most), np.int64)
    for t, several in enumerate(rows):
        for p, one in enumerate(several):
            table[t, p, : 1 + len(one)] = [len(one), *one]
    return table


def first_row(width: int) -> dict[str, Any]:
    """Row -1: the stamps and hashes that row 0 reads."""
    points = np.arange(width)
    return {"at": np.full(width, -1), "point": points, "hash": points.astype(np.uint64) * np.uint64(FACTOR)}


@lru_cache(maxsize=256)
def last_hashes(pattern: str, width: int, steps: int) -> tuple[int, ...]:
    """The hashes after so many steps, one point after the other."""
    lead, period = cycle(pattern, width)
    lists = [[inputs(pattern, t, p, width) for p in range(width)] for t in range(lead + period)]
    before = [int(one) for one in first_row(width)["hash"]]
    for t in range(steps):
        after = list(before)
        for p in range(row(pattern, t, width)):
            chain = (START * (t + 1) + p) & MASK
            for q in lists[t if t < lead else lead + (t - lead) % period][p]:
                chain = ((chain + before[q]) * FACTOR) & MASK
                chain ^= chain >> 32
            after[p] = chain
        before = after
    return tuple(before)


def tasks(pattern: str, width: int, steps: int) -> int:
    """Tasks of a graph."""
    lead = min(steps, 64)
    return sum(row(pattern, t, width) for t in range(lead)) + (steps - lead) * width
