"""Lost workers: a chunk that ends its workers stops the run soon, one that was merely in the way doesn't.

A store that fails everybody: as many rounds of failures as one chunk has attempts, however many chunks take turns.
"""

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


ROUNDS = Policy().attempts["transient"]


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_a_store_that_keeps_all_waiting_ends_the_run_after_as_many_rounds_as_attempts(workers: int) -> None:
    end = simulate(FlatPlan(50), lambda stage, chunk: 20.0, Cluster(workers, fails=lambda task: "transient"))
    assert end.outcome is not None
    assert end.outcome.outcome == "failed"
    assert 20.0 * (ROUNDS - 2) < end.makespan < 20.0 * (ROUNDS + 1) + 7


def test_what_fails_at_once_has_its_delays_all_the_same() -> None:
    """Fifty chunks that fail within the same tenth of a second are one round."""
    attempts = Attempts(Policy())
    for chunk in range(50):
        failure = Failure("transient", "503", chunk)
        assert attempts.failed((0, chunk), failure, 1.0 + chunk / 500, 0.001).action == "retry"


def test_whatever_is_kept_in_between_ends_an_outage() -> None:
    for kept, last in ((0, "stop"), (1, "retry")):
        attempts, actions = Attempts(Policy()), []
        for n in range(2 * 3):
            attempts.kept += kept
            failure = Failure("transient", "no answer", n % 2)
            actions.append(attempts.failed((0, n % 2), failure, 20.0 * (n + 1), 20.0).action)
        assert actions == ["retry"] * 5 + [last]


def test_a_chunk_that_is_new_to_it_is_tried_again_in_any_outage() -> None:
    attempts = Attempts(Policy())
    decisions = [attempts.failed((0, n), Failure("transient", "no answer", n), 20.0 * (n + 1), 20.0) for n in range(40)]
    assert {decision.action for decision in decisions} == {"retry"}
