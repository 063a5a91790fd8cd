"""Memory is used again once the last array that looks into it has gone, and never before."""

from __future__ import annotations

import gc
import pickle
import threading
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridcompute.sources.buffers import Buffers

F4 = np.dtype("f4")


def place(array: Any) -> int:
    return int(array.__array_interface__["data"][0])


@pytest.mark.parametrize("view", [
    lambda array: array[3:5, ::2].T,
    lambda array: np.lib.stride_tricks.as_strided(array, (3,), (4,), writeable=False),
    lambda array: memoryview(array),
    lambda array: pa.array(array.reshape(-1)),
    lambda array: array.view(np.uint8).reshape(-1)[7:9],
    lambda array: np.broadcast_to(array, (2, *array.shape)),
    lambda array: [{"deep": array[0]}],
])  # fmt: skip
def test_memory_isn_t_given_again_while_something_looks_into_it(view: Any) -> None:
    buffers = Buffers()
    array = buffers.array((10, 10), F4)
    where, seen = place(array), view(array)
    del array
    gc.collect()
    assert buffers.nbytes == 0
    assert place(buffers.array((10, 10), F4)) != where
    del seen
    assert buffers.nbytes == 800
    assert where in {place(one) for one in [buffers.array((10, 10), F4), buffers.array((10, 10), F4)]}


def test_copies_don_t_hold_it() -> None:
    buffers = Buffers()
    array = buffers.array((100,), F4)
    array[:] = 1
    copies = [pickle.loads(pickle.dumps(array)), array.copy(), array * 2, array.tolist()]
    del array
    assert buffers.nbytes == 400
    buffers.array((100,), F4)[:] = 9
    assert copies[0].tolist() == copies[1].tolist() == copies[3] == [1.0] * 100


def test_the_fitting_one_is_given_and_no_more_is_kept_than_asked_for() -> None:
    buffers = Buffers(most_bytes=1000)
    held = [buffers.array((n,), np.dtype("u1")) for n in (100, 300, 500)]
    places = [place(one) for one in held]
    held.clear()
    assert buffers.nbytes == 900
    assert place(buffers.array((290,), np.dtype("u1"))) == places[1]
    tiny = buffers.array((40,), np.dtype("u1"))
    assert place(tiny) not in places  # a buffer twice as large, or larger, isn't given for little
    assert buffers.array((0, 3), F4).shape == (0, 3)
    big = buffers.array((990,), np.dtype("u1"))
    del big
    assert buffers.nbytes <= 1000


def test_what_was_in_use_at_once_is_kept_until_something_else_begins() -> None:
    buffers = Buffers(most_bytes=100)
    held = [buffers.array((1000,), np.dtype("u1")) for _ in range(2)]
    places = {place(one) for one in held}
    held.clear()
    assert buffers.nbytes == 2000
    for _ in range(3):  # chunk after chunk, the memory is the same
        held = [buffers.array((1000,), np.dtype("u1")) for _ in range(2)]
        assert {place(one) for one in held} == places
        held.pop()
        assert buffers.nbytes == 1000
        held.clear()
    larger = buffers.array((1900,), np.dtype("u1"))
    assert buffers.nbytes + larger.nbytes <= 2000, "no more than was in use at once"
    buffers.settle()
    assert buffers.nbytes <= 100
    del larger
    assert buffers.nbytes == 1900
    buffers.settle()
    assert buffers.nbytes == 0


@given(st.lists(st.tuples(st.integers(1, 300), st.booleans()), max_size=60))
def test_arrays_that_live_at_once_lie_apart(steps: list[tuple[int, bool]]) -> None:
    buffers, alive = Buffers(most_bytes=2000), list[Any]()
    for number, (size, keep) in enumerate(steps):
        array = buffers.array((size,), np.dtype("i8"))
        array[:] = number
        alive.append((number, array))
        if not keep:
            del alive[0]
        del array
        assert all((values == mark).all() for mark, values in alive)


def test_threads_share_it() -> None:
    buffers, wrong = Buffers(), list[int]()

    def work(number: int) -> None:
        for _ in range(300):
            array = buffers.array((1000,), np.dtype("i8"))
            array[:] = number
            if not (array == number).all():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert not wrong
    assert buffers.nbytes <= 2 * 4 * 8000  # a thread still has the last one while it asks for the next
