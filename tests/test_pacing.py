"""Sizes of tasks, alone and in a simulated run: near the bound, whatever the chunks cost and however many workers."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridcompute.pacing import DISPATCH_SECONDS, LEAST_SECONDS, MOST, TASK_SECONDS, Pace
from gridcompute.retry import Policy
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


@given(st.floats(1e-6, 10), st.integers(1, 10**6), st.integers(1, 10**4))
def test_times(each, ready, workers):
    """A task may take its target, or a little more than its chunks usually do where these are few."""
    pace = Pace(each)
    size = pace.size(ready, workers)
    limit = pace.limit(size, workers)
    assert LEAST_SECONDS <= limit <= pace.target(workers)
    assert limit >= min(size * each, pace.target(workers)) * 0.999
    assert Pace().limit(1, workers) == pace.target(workers)


@given(st.floats(1e-6, 1), st.integers(2, 10**4))
def test_the_driver_keeps_up_until_the_last_round(each, workers):
    """While more than a round is left, all workers' tasks together last longer than dispatching them."""
    round_seconds = DISPATCH_SECONDS * workers
    ready = int(round_seconds * workers / each) + 1
    assert (Pace(each).size(ready, workers) + 1) * each >= min(round_seconds, MOST * each)
    # and then, tasks get shorter with what is left, down to single chunks
    sizes = [Pace(each).size(left, workers) for left in (ready, max(1, ready // 10), max(1, ready // 1000), 1)]
    assert sizes == sorted(sizes, reverse=True)
    assert Pace(each).size(1, workers) <= max(1, 2 * (DISPATCH_SECONDS / each) ** 0.5)


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
         "falling": lambda n: sorted(pareto(n), reverse=True), "bimodal": lambda n: [5.0, *[0.01] * 99] * (n // 100)}


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


def test_what_stands_behind_long_chunks_is_taken_back():
    """Where each of 500 workers has five seconds of work, most tasks meet a long chunk."""
    draw = random.Random(3)
    costs = [3.0 if draw.random() < 0.01 else 0.01 for _ in range(60_000)]
    end = simulate(FlatPlan(len(costs)), lambda _, chunk: costs[chunk], Cluster(500))
    never = simulate(FlatPlan(len(costs)), lambda _, chunk: costs[chunk], Cluster(500, looks=1e9))
    for one in (end, never):
        assert set(one.done.values()) == {1}
        assert len(one.done) == len(costs)
    assert end.makespan < 0.95 * never.makespan
    assert end.makespan <= 1.2 * (sum(costs) / 500 + max(costs))


@given(seed=st.integers(0, 2**32), workers=st.integers(1, 40), looks=st.sampled_from((0.05, 0.5, 5.0)),
       failing=st.sampled_from((0.0, 0.05)))
def test_each_chunk_is_kept_once_whatever_happens(seed, workers, looks, failing):
    draw = random.Random(seed)
    costs = [draw.choice((0.001, 0.01, 0.3, 4.0)) for _ in range(draw.randint(1, 600))]
    slow = [draw.choice((1.0, 1.0, 10.0)) for _ in range(workers)]
    fails = lambda task: draw.choice(("transient", "lost_worker")) if draw.random() < failing else None  # noqa: E731
    cluster = Cluster(workers, looks=looks, slow=slow.__getitem__, fails=fails)
    policy = Policy(attempts={"transient": 100, "lost_worker": 100})
    end = simulate(FlatPlan(len(costs)), lambda _, chunk: costs[chunk], cluster, policy)
    assert end.outcome.outcome == "done"
    assert sorted(chunk for _, chunk in end.done) == list(range(len(costs)))
    assert set(end.done.values()) == {1}


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
    assert list_schedule([1.0, 1.0, 1.0, 1.0], 2, lambda worker: 3.0 if worker else 1.0) == 3.0
