"""What the driver sees of running tasks: by their progress word on this machine, else by what they committed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_state import chain, tasks

import gridcompute as grid
from gridcompute.events import Kept, Task, TaskDone, TaskFailed, TaskLate, TaskSlow
from gridcompute.ledger import Ledger
from gridcompute.looks import STORE_SECONDS, look
from gridcompute.outputs import outputs_of
from gridcompute.planning import Plan
from gridcompute.planview import Limits
from gridcompute.progressword import Mark
from gridcompute.retry import Policy
from gridcompute.running import graph_of
from gridcompute.shard import shard_path
from gridcompute.store import open_store
from gridcompute.voting import VotingState


class Seen:
    """A board and a ledger in one: what would be read there."""

    def __init__(self) -> None:
        self.marks: dict[int, int] = {}
        self.commits: dict[int, int] = {}
        self.now, self.asked = 0.0, 0

    def read(self, task: int) -> Mark | None:
        return Mark(self.marks[task]) if task in self.marks else None

    def reached(self, task: Task) -> int:
        self.asked += 1
        self.now += STORE_SECONDS / 2
        return self.commits.get(task.number, 0)

    def committed(self, task: Task) -> tuple[Kept, ...]:
        return tuple(Kept(task.stage, 0, chunk, "", "", 1, 0) for chunk in task.chunks[: self.commits[task.number]])

    def look(self, state: VotingState, now: float) -> list[Any]:
        self.now = now
        return list(look(state, self, self, lambda: self.now))  # type: ignore[arg-type]


def one_task(deadline: float = 1e9) -> tuple[VotingState, Task]:
    """A worker with a task of several chunks, which were all that was left."""
    state = VotingState(chain(9), {}, Limits(1, queue=1, deadline=deadline), Policy())
    task, = tasks(state.start(0.0))
    while len(state.running) == 1 and any(state._ready):
        task, = tasks(state.apply(TaskDone(task.number, (), 1e-5), 0.0))
    assert len(task.chunks) > 2
    return state, task


def test_a_task_on_this_machine_is_seen_by_its_word() -> None:
    state, task = one_task()
    seen = Seen()
    seen.marks[task.number] = task.chunks[1]
    assert seen.look(state, 5.0) == []
    assert state.unseen == []
    assert seen.look(state, 5.0 + task.seconds) == []
    assert seen.look(state, 5.1 + task.seconds) == [TaskLate(task.number, task.chunks[1])]
    assert seen.asked == 0


def test_a_task_elsewhere_is_seen_by_what_it_committed() -> None:
    state, task = one_task()
    seen = Seen()
    assert seen.look(state, 5.0) == []  # perhaps no worker has begun it
    seen.commits[task.number] = 1
    assert seen.look(state, 6.0) == []
    assert state.unseen == []
    assert seen.look(state, 6.05) == []
    assert seen.look(state, 6.2 + task.seconds) == [TaskLate(task.number, task.chunks[1])]
    seen.commits[task.number] = len(task.chunks)
    assert seen.look(state, 9.0) == []  # its answer is on the way
    assert seen.asked == 4


def test_the_store_is_not_asked_for_long() -> None:
    state = VotingState(chain(200), {}, Limits(50, queue=1), Policy())
    commands = state.start(0.0)
    for task in tasks(commands):
        commands += state.apply(TaskDone(task.number, (), 1e-3), 0.0)
    assert len(state.late(1e6)) > 5
    seen = Seen()
    seen.commits = dict.fromkeys(state.running, 0)
    seen.look(state, 1e6)
    assert 1 <= seen.asked <= 3


def test_of_a_slow_task_it_is_told_what_it_committed() -> None:
    state, task = one_task()
    state.limits = Limits(3, queue=1)
    for pace in state._paces:
        pace.tasks = 9
    seen = Seen()
    seen.marks[task.number] = task.chunks[1]
    seen.commits[task.number] = 1
    seen.look(state, 5.0)
    found = [event for event in seen.look(state, 1e6) if isinstance(event, TaskSlow)]
    assert [(event.task, [item.chunk for item in event.kept]) for event in found] == [(task.number, [task.chunks[0]])]


def test_what_hangs_is_told_as_before() -> None:
    state, task = one_task(deadline=10.0)
    seen = Seen()
    seen.marks[task.number] = task.chunks[0]
    seen.look(state, 1.0)
    found = seen.look(state, 11.5)
    assert [type(event) for event in found] == [TaskFailed, TaskLate]
    assert found[0].failure.kind == "hang"


@grid.kernel("()->()")
def doubled(x):  # type: ignore[no-untyped-def]
    return 2 * x


@pytest.fixture(scope="module")
def committed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run's plan, its store and its chunks' shards."""
    folder = tmp_path_factory.mktemp("looks")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRIDCOMPUTE_STATE", str(folder / "state"))
        data = grid.from_arrays({"v": np.arange(12.0)}, dims="row")["v"].map(doubled)
        outputs = {"kept": data, "written": data.write(str(folder / "out.zarr"))}
        for name, output in outputs.items():
            grid.run(output, store=str(folder / name), executor="inline", quiet=True)
        yield folder, outputs


@given(count=st.integers(0, 12))
@pytest.mark.parametrize("name", ["kept", "written"])
def test_what_a_task_reached(committed: Any, name: str, count: int) -> None:
    folder, outputs = committed
    plan = Plan(graph_of((outputs[name],)), {})
    store = open_store(str(folder / name))
    ledger = Ledger(plan, store, outputs_of(plan) if name == "kept" else {})
    stage = plan.stages[-1]
    chunks = tuple(range(stage.chunks))
    count = min(count, stage.chunks)
    gone = {}
    for chunk in chunks[count:]:
        region, token = stage.layouts[0].region(chunk), ledger.token(stage.number, chunk)[0]
        kind: Any = "record" if name == "written" else "arrow"
        path = shard_path(stage.roots[0].recipe, str(region), token, 0, kind)
        gone[path] = store.get(path)
        store.delete(path)
    try:
        assert ledger.reached(Task(1, stage.number, chunks)) == count
    finally:
        for path, content in gone.items():
            store.put_new(path, content)
