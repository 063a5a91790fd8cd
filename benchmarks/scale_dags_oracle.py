"""An irregular graph of tasks in plain formulas, and what it gives: the judge of all systems, with no table of theirs.

Task c reads one to three of the `WINDOW` tasks before it, picked by a hash of numbers; task 0 reads none. It gives a
hash of its own number chained with its inputs' hashes in order, so that a missing, additional or reordered edge shows.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

WINDOW = 10_000
MASK = 2**64 - 1
START, FACTOR = 0x9E3779B97F4A7C15, 0xD1342543DE82EF95
FIRST, SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def scattered(x: int) -> int:
    """64 bits from a whole number: the finaliser of splitmix64."""
    x = (x + START) & MASK
    x = ((x ^ (x >> 30)) * FIRST) & MASK
    x = ((x ^ (x >> 27)) * SECOND) & MASK
    return x ^ (x >> 31)


def inputs(task: int) -> list[int]:
    """What a task reads, in order."""
    if task == 0:
        return []
    count = 1 + scattered(4 * task) % 3
    return [task - 1 - scattered(4 * task + k) % min(task, WINDOW) for k in range(1, 1 + count)]


def chained(task: int, hashes: list[int]) -> int:
    """A task's hash."""
    chain = ((task + 1) * START) & MASK
    for one in hashes:
        chain = ((chain + one) * FACTOR) & MASK
        chain ^= chain >> 32
    return chain


def hashes(tasks: int) -> list[int]:
    """All tasks' hashes, one after the other."""
    found: list[int] = []
    for task in range(tasks):
        found.append(chained(task, [found[i] for i in inputs(task)]))
    return found


def task(number: Any, hashes: Any) -> Any:
    """`chained` for numba, of an array of hashes."""
    chain = np.uint64(number + 1) * np.uint64(START)
    for one in hashes:
        chain = (chain + one) * np.uint64(FACTOR)
        chain ^= chain >> np.uint64(32)
    return chain


def _scattered(x: Any) -> Any:
    """`scattered` of an array (uint64)."""
    x = x + np.uint64(START)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(FIRST)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(SECOND)
    return x ^ (x >> np.uint64(31))


def edges(tasks: int, seed: int = 1) -> tuple[Any, Any]:
    """Sources and targets (int32) of all edges, those of different tasks in random order."""
    counts = (_scattered(4 * np.arange(1, tasks, dtype=np.uint64)) % np.uint64(3)).astype(np.int64) + 1
    order = np.random.default_rng(seed).permutation(tasks - 1)
    target = np.repeat(order, counts[order])  # of the task after this one
    first = np.cumsum(counts[order]) - counts[order]
    k = (np.arange(len(target)) - np.repeat(first, counts[order]) + 1).astype(np.uint64)
    target = (target + 1).astype(np.uint64)
    back = _scattered(4 * target + k) % np.minimum(target, np.uint64(WINDOW))
    return (target - np.uint64(1) - back).astype(np.int32), target.astype(np.int32)


@lru_cache(maxsize=1)
def _walk() -> Any:
    """`hashes` by formula, compiled: too many tasks for Python."""
    import numba

    scatter = numba.njit(_scattered)

    @numba.njit  # type: ignore[untyped-decorator, unused-ignore]
    def walk(found: Any) -> None:
        for number in range(found.size):
            chain, four = np.uint64(number + 1) * np.uint64(START), np.uint64(4) * np.uint64(number)
            count = np.uint64(0) if number == 0 else np.uint64(1) + scatter(four) % np.uint64(3)
            for k in range(np.int64(count)):
                back = scatter(four + np.uint64(k + 1)) % np.uint64(min(number, WINDOW))
                chain = (chain + found[number - 1 - np.int64(back)]) * np.uint64(FACTOR)
                chain ^= chain >> np.uint64(32)
            found[number] = chain

    return walk


@lru_cache(maxsize=4)
def expected(tasks: int) -> Any:
    """All tasks' hashes (uint64)."""
    found = np.zeros(tasks, np.uint64)
    _walk()(found)
    return found
