"""Sizes of tasks, alone and in a simulated run: near the bound, whatever the chunks cost and however many workers."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridcompute.pacing import MOST, TASK_SECONDS, Pace
from gridcompute.testing.simulated import Cluster, FlatPlan, list_schedule, simulate


@given(st.lists(st.tuples(st.floats(0, 1e5), st.integers(1, MOST)), max_size=20), st.integers(1, 10**6),
       st.integers(1, 10**4))
def test_sizes(history, ready, workers):
    pace = Pace()
    for seconds, chunks in history:
        pace.took(seconds, chunks)
    size = pace.size(ready, workers)
    assert 1 <= size <= MOST
    if pace.seconds is None:
        assert size == 1
    else:
        assert size == 1 or size * pace.seconds <= pace.target(workers) * 1.001
        assert pace.seconds <= max(max(s / c for s, c in history), 1e-9) * 1.001


def test_tasks_grow_toward_the_target_and_shrink_at_the_end():
    pace = Pace()
    pace.took(0.001, 1)
    assert pace.size(10**6, 2) == int(TASK_SECONDS / 0.001)
    assert pace.size(100, 2) == 25
    assert pace.size(3, 2) <= 2
    assert pace.size(10**6, 1000) > pace.size(10**6, 2)


def pareto(n: int) -> list[float]:
    draw = random.Random(1)
    return [0.02 * draw.paretovariate(1.5) for _ in range(n)]


COSTS = {"uniform": lambda n: [0.05] * n, "pareto": pareto, "sorted": lambda n: sorted(pareto(n)),
         "falling": lambda n: sorted(pareto(n), reverse=True)}


@pytest.mark.parametrize("workers", [2, 16, 64])
@pytest.mark.parametrize("kind", COSTS)
def test_makespan(kind, workers):
    costs = COSTS[kind](max(4000, 300 * workers))
    end = simulate(FlatPlan(len(costs)), lambda _, chunk: costs[chunk], Cluster(workers))
    assert set(end.done.values()) == {1}
    assert len(end.done) == len(costs)
    # The bound counts no dispatch: 2 % of the work, and a task at each end.
    assert end.makespan <= sum(costs) / workers * 1.02 + max(costs) + 2 * TASK_SECONDS
    assert end.makespan <= 1.1 * list_schedule(costs, workers)


def test_a_straggler_is_not_waited_for_long():
    cluster = Cluster(16, slow=lambda worker: 20.0 if worker == 0 else 1.0)
    end = simulate(FlatPlan(5000), lambda *_: 0.05, cluster)
    assert end.makespan <= 5000 * 0.05 / 15 * 1.05 + 2 * 0.05 * 20


def test_failures_are_tried_again_and_nothing_is_done_twice():
    draw = random.Random(2)
    kinds = {task: draw.choice(["transient", "lost_worker"]) for task in draw.sample(range(400), 40)}
    end = simulate(FlatPlan(2000), lambda *_: 0.05, Cluster(8, fails=lambda task: kinds.get(task.number)))
    assert end.outcome is not None
    assert end.outcome.outcome == "done"
    assert end.retries >= 40
    assert set(end.done.values()) == {1}


def test_list_scheduling():
    assert list_schedule([3.0], 4) == 3.0
    assert list_schedule([1.0] * 6, 3) == 2.0
    assert list_schedule([2.0, 2.0, 3.0], 2) == 5.0
