"""A function of several things, by as many threads as there are cores for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def each(threads: int, function: Callable[[T], R], things: Iterable[T]) -> Iterator[R]:
    """What a function gives for each of some things, in their order; by this thread alone where `threads` is 1."""
    some = list(things)
    if min(threads, len(some)) <= 1:
        yield from map(function, some)
        return
    with ThreadPoolExecutor(min(threads, len(some))) as pool:
        yield from pool.map(function, some)
