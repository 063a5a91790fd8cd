"""Ready chunks: the same order as a heap gives, whatever is pushed and popped."""

from __future__ import annotations

import doctest
import heapq

from hypothesis import given
from hypothesis import strategies as st

import gridcompute.ready
from gridcompute.ready import Ready

CHUNK = st.integers(0, 20)


@given(steps=st.lists(st.one_of(st.none(), CHUNK, st.tuples(CHUNK, CHUNK)), max_size=60))
def test_it_is_a_heap(steps: list[int | tuple[int, int] | None]) -> None:
    ours, plain = Ready(), list[int]()
    for step in steps:
        if step is None:
            if plain:
                assert ours.first == plain[0]
                assert ours.pop() == heapq.heappop(plain)
        else:
            for chunk in range(*step) if isinstance(step, tuple) else (step,):
                ours.push(chunk)
                heapq.heappush(plain, chunk)
        assert len(ours) == len(plain)
        assert ours.runs <= len(plain)
    assert [ours.pop() for _ in range(len(ours))] == sorted(plain)


def test_a_stage_of_a_million_is_one_run() -> None:
    ready = Ready()
    for chunk in range(10**6):
        ready.push(chunk)
    assert (ready.runs, len(ready)) == (1, 10**6)
    assert [ready.pop() for _ in range(3)] == [0, 1, 2]
    ready.push(1)
    assert (ready.first, ready.runs) == (1, 2)


def test_its_example() -> None:
    assert doctest.testmod(gridcompute.ready).failed == 0
