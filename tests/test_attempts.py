"""Lost workers: a chunk that ends its workers stops the run soon, one that was merely in the way doesn't."""

from __future__ import annotations

import random

import pytest

from gridcompute.attempts import FORGIVEN, Attempts
from gridcompute.events import Failure, FailureKind, Task
from gridcompute.retry import Policy
from gridcompute.testing.simulated import Cluster, FlatPlan, simulate

pytestmark = pytest.mark.faults

LIMIT = Policy().attempts["lost_worker"]


def lost(chunk: int, cell: tuple[int, ...] | None = None) -> Failure:
    return Failure("lost_worker", "gone", chunk, cell)


def tries(attempts: Attempts, *cells: tuple[int, ...] | None) -> int:
    """Losses of one chunk until the run stops."""
    for n, cell in enumerate(cells, 1):
        if attempts.failed((0, 7), lost(7, cell), float(n)).action == "stop":
            return n
    return 0


def test_the_same_cell_each_time_is_a_fault() -> None:
    assert tries(Attempts(Policy()), *[(3, 1)] * 20) == LIMIT
    assert tries(Attempts(Policy()), *[None] * 20) == LIMIT


def test_another_cell_each_time_is_bad_luck_for_a_while() -> None:
    assert tries(Attempts(Policy()), *[(n,) for n in range(40)]) == LIMIT * FORGIVEN + LIMIT - 2


def test_others_that_go_on_are_needed_for_a_chunk_to_be_let_off() -> None:
    """Of the cell nothing is known, as on other machines."""
    for progress, ends in ((0, LIMIT), (1, 0)):
        attempts = Attempts(Policy())
        stopped = 0
        for n in range(LIMIT + 3):
            attempts.failed((0, 100 + n), lost(100 + n), 10.0 * n)
            attempts.kept += progress
            if attempts.failed((0, 7), lost(7), 10.0 * n + 5).action == "stop":
                stopped = n + 1
                break
        assert stopped == ends


def failing(rate: float, seed: int, poison: frozenset[int] = frozenset()) -> Cluster:
    draw = random.Random(seed)

    def fails(task: Task) -> FailureKind | None:
        middle = task.chunks[len(task.chunks) // 2]
        return "lost_worker" if middle in poison or draw.random() < rate else None

    return Cluster(2, fails=fails, restart=2.0)


@pytest.mark.parametrize("seed", range(12))
def test_a_run_survives_that_a_third_of_tasks_loses_their_worker(seed: int) -> None:
    """Some of the 300 chunks lose four in a row."""
    end = simulate(FlatPlan(300), lambda stage, chunk: 3.0, failing(0.35, seed))
    assert end.outcome is not None
    assert end.outcome.outcome == "done"
    assert set(end.done.values()) == {1}
    # A third of all tries lose half a chunk and 2 s: a chunk takes 4.9 s of a worker, and there are two.
    assert end.makespan < 300 * 4.9 / 2 * 1.4


@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_a_poison_chunk_still_stops_it(rate: float) -> None:
    end = simulate(FlatPlan(300), lambda stage, chunk: 3.0, failing(rate, 1, frozenset({150})))
    assert end.outcome is not None
    assert end.outcome.outcome == "failed"
    assert end.outcome.failure is not None
    assert end.outcome.failure.chunk == 150


def test_where_every_chunk_ends_its_worker_the_run_stops_at_once() -> None:
    end = simulate(FlatPlan(300), lambda stage, chunk: 3.0, failing(1.0, 1))
    assert end.outcome is not None
    assert end.outcome.outcome == "failed"
    assert end.tasks <= LIMIT * LIMIT
