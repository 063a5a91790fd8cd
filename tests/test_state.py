"""The run's state machine against a plain model: random plans, random events, every promise checked at each command."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gridcompute.attempts import FORGIVEN
from gridcompute.drops import DONE, GONE, IDLE, READY, RUNNING
from gridcompute.durations import START_SECONDS
from gridcompute.errors import RunError
from gridcompute.events import (
    CancelAsked,
    Command,
    Drop,
    Event,
    Failure,
    FailureKind,
    Finish,
    Kept,
    Kill,
    Submit,
    Task,
    TaskDone,
    TaskFailed,
    TaskLate,
    Tick,
)
from gridcompute.pacing import MOST_BYTES
from gridcompute.planview import Limits
from gridcompute.retry import Policy
from gridcompute.state import CANCEL_SECONDS, RunState

ChunkId = tuple[int, int]


@dataclass(frozen=True)
class FakeStage:
    chunks: int
    held: bool = False
    task_bytes: int = 1
    block_bytes: int = 0


@dataclass
class FakePlan:
    """Stages with the chunks that each chunk reads, written out."""

    stages: list[FakeStage]
    reads: dict[ChunkId, list[ChunkId]]
    goals: tuple[int, ...]
    feeds: dict[ChunkId, list[ChunkId]] = field(default_factory=dict)
    divisible: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for chunk, inputs in self.reads.items():
            for one in inputs:
                self.feeds.setdefault(one, []).append(chunk)
        self.producers = [frozenset(p for (s, _), inputs in self.reads.items() if s == stage for p, _ in inputs)
                          for stage in range(len(self.stages))]

    def inputs(self, stage: int, chunk: int) -> Iterator[ChunkId]:
        yield from self.reads.get((stage, chunk), ())

    def consumers(self, stage: int, chunk: int) -> Iterator[ChunkId]:
        yield from self.feeds.get((stage, chunk), ())

    def barrier(self, stage: int, producer: int) -> bool:
        total = self.stages[producer].chunks
        return total > 1 and all(sum(p == producer for p, _ in self.reads.get((stage, c), ())) == total
                                 for c in range(self.stages[stage].chunks))

    def most_parts(self, stage: int, chunk: int) -> int:
        return self.divisible.get(stage, 1)


def random_plan(draw: random.Random) -> FakePlan:
    count = draw.randint(1, 5)
    chunks = [draw.randint(1, 6) for _ in range(count)]
    reads: dict[ChunkId, list[ChunkId]] = {}
    for stage in range(1, count):
        for producer in draw.sample(range(stage), draw.randint(0, min(2, stage))):
            whole = draw.random() < 0.3
            for chunk in range(chunks[stage]):
                wanted = range(chunks[producer]) if whole else sorted(
                    draw.sample(range(chunks[producer]), draw.randint(1, min(3, chunks[producer]))))
                reads.setdefault((stage, chunk), []).extend((producer, one) for one in wanted)
    goals = sorted({count - 1, *(s for s in range(count) if draw.random() < 0.2)})
    stages = [FakeStage(n, s not in goals and draw.random() < 0.5, draw.randint(1, 4)) for s, n in enumerate(chunks)]
    return FakePlan(stages, reads, tuple(goals))


KINDS: tuple[FailureKind, ...] = ("user", "transient", "lost_worker", "out_of_memory", "corrupt_shard", "hang",
                                  "divergence", "fatal")  # fmt: skip
PASSING: tuple[FailureKind, ...] = ("transient", "lost_worker", "out_of_memory", "hang")


class RunMachine(RuleBasedStateMachine):
    """Plays driver and executor at once, with a plain record of what is kept and what runs."""

    @initialize(seed=st.integers(0, 2**32), workers=st.integers(1, 3), cap=st.sampled_from((1, 4, 9, 2**62)),
                before=st.floats(0, 1), nbytes=st.integers(0, 3))
    def begin(self, seed: int, workers: int, cap: int, before: float, nbytes: int) -> None:
        draw = random.Random(seed)
        self.plan, self.nbytes = random_plan(draw), nbytes
        self.limits = Limits(workers, live_bytes=cap, deadline=1e9)
        self.found = {s: sorted(c for c in range(stage.chunks) if draw.random() < before * 0.8)
                      for s, stage in enumerate(self.plan.stages) if not stage.held}
        self.kept: set[ChunkId] = {(s, c) for s, chunks in self.found.items() for c in chunks}
        self.held: set[ChunkId] = set()
        self.running: dict[int, Task] = {}
        self.taken: dict[int, tuple[int, ...]] = {}
        self.over: list[int] = []
        self.blamed: Counter[tuple[int, int, FailureKind, ChunkId | None]] = Counter()
        self.now, self.finish = 0.0, None
        self.cancelled: float | None = None
        self.history: list[tuple[Event, float]] = []
        self.commands: list[list[Command]] = []
        self.disposable = {s for s, stage in enumerate(self.plan.stages)
                           if not stage.held and s not in self.plan.goals and draw.random() < 0.7}
        self.partly = {(s, c) for s, stage in enumerate(self.plan.stages) if not stage.held
                       for c in range(stage.chunks) if (s, c) not in self.kept and draw.random() < 0.2}
        self.at_first = sorted(self.partly)
        self.state = self.made(draw)
        self.take(self.state.start(0.0, self.at_first))

    def made(self, draw: random.Random | None = None) -> RunState:
        return RunState(self.plan, self.found, self.limits, Policy(), disposable=self.disposable)

    def take(self, commands: list[Command]) -> None:
        self.commands.append(commands)
        for command in commands:
            assert self.finish is None, "a command after the end"
            if isinstance(command, Submit):
                self.submitted(command.task)
            elif isinstance(command, Kill):
                self.running.pop(command.task, None)
                self.over.append(command.task)
            elif isinstance(command, Drop):
                one = (command.stage, command.chunk)
                there = one in self.kept or one in self.partly
                assert one in self.held or (one[0] in self.disposable and there), "let go of what stays"
                assert not self.busy() & set(self.plan.feeds.get(one, ())), "let go while a task reads it"
                self.held.discard(one)
                self.kept.discard(one)
                self.partly.discard(one)
                if not self.plan.stages[one[0]].held:
                    self.resumable(one)
            else:
                assert isinstance(command, Finish)
                self.finish = command

    def busy(self) -> set[ChunkId]:
        return {(t.stage, c) for t in self.running.values() for c in t.chunks}

    def resumable(self, gone: ChunkId) -> None:
        """A run that breaks off here and goes on needs nothing of what was deleted: what was held is gone with it."""
        found: dict[int, list[int]] = {}
        for stage, chunk in self.kept:
            if not self.plan.stages[stage].held:
                found.setdefault(stage, []).append(chunk)
        again = RunState(self.plan, found, self.limits, Policy())
        assert again.status[gone[0]][gone[1]] == IDLE, "deleted, though a resumed run makes it again"

    def submitted(self, task: Task) -> None:
        assert self.cancelled is None
        busy = self.busy()
        assert task.number not in self.running
        assert task.number not in self.over
        for chunk in task.chunks:
            assert (task.stage, chunk) not in busy, "submitted while it runs"
            assert (task.stage, chunk) not in self.kept, "submitted though it is kept"
            for one in self.plan.inputs(task.stage, chunk):
                assert one in self.kept, f"submitted before its input {one} is kept"
        self.running[task.number] = task
        live = sum(self.plan.stages[t.stage].task_bytes for t in self.running.values()) + self.nbytes * len(self.held)
        assert live <= self.limits.live_bytes or len(self.running) == 1
        assert len(self.running) <= max(1, self.limits.workers * self.limits.queue)

    def send(self, event: Event) -> None:
        self.history.append((event, self.now))
        self.take(self.state.apply(event, self.now))

    def keep(self, task: Task, chunks: tuple[int, ...]) -> tuple[Kept, ...]:
        """As the driver does: what another task has kept already is no news."""
        status = self.state.status[task.stage]
        chunks = tuple(chunk for chunk in chunks if status[chunk] not in (DONE, GONE))
        for chunk in chunks:
            self.kept.add((task.stage, chunk))
            self.partly.discard((task.stage, chunk))
            if self.plan.stages[task.stage].held:
                self.held.add((task.stage, chunk))
        return tuple(Kept(task.stage, 0, c, "", "", 1, self.nbytes) for c in chunks)

    def pick(self, data: st.DataObject) -> tuple[Task, tuple[int, ...]]:
        """A task that ends, and its chunks with those that were taken from it: it may have gone on to them."""
        number = data.draw(st.sampled_from(sorted(self.running)))
        self.over.append(number)
        task = self.running.pop(number)
        return task, task.chunks + self.taken.pop(number, ())

    def lost_by(self, task: Task) -> list[int]:
        """The chunks that only this task has."""
        return [chunk for chunk in task.chunks if self.state.status[task.stage][chunk] == RUNNING]

    def live(self) -> bool:
        return self.finish is None and bool(self.running)

    @rule(data=st.data(), seconds=st.sampled_from((0.0, 1e-4, 0.05, 2.0)))
    @precondition(live)
    def done(self, data: st.DataObject, seconds: float) -> None:
        task, chunks = self.pick(data)
        self.now += seconds
        count = data.draw(st.one_of(st.just(len(task.chunks)), st.integers(1, len(chunks))))
        kept = self.keep(task, chunks[:count])
        self.send(TaskDone(task.number, kept, seconds, left=chunks[count:]))

    @rule(data=st.data())
    @precondition(lambda self: self.live() and any(n not in self.taken for n in self.running))
    def split(self, data: st.DataObject) -> None:
        """A task is past its time: what is behind the chunk in work is ready for others."""
        task = self.running[data.draw(st.sampled_from(sorted(n for n in self.running if n not in self.taken)))]
        at = data.draw(st.integers(1, len(task.chunks)))
        self.running[task.number] = replace(task, chunks=task.chunks[:at])
        self.taken[task.number] = task.chunks[at:]
        self.send(TaskLate(task.number, task.chunks[at - 1]))

    @rule(data=st.data(), kind=st.sampled_from(PASSING * 3 + KINDS), known=st.booleans())
    @precondition(live)
    def failed(self, data: st.DataObject, kind: FailureKind, known: bool) -> None:
        task, chunks = self.pick(data)
        count = data.draw(st.integers(0, len(chunks) - 1))
        rest = [chunk for chunk in self.lost_by(task) if chunk in chunks[count:]]
        failure = Failure(kind, "it failed", chunks[count] if known else -1)
        blamed = [chunks[count]] if known and chunks[count] in rest else rest
        for chunk in blamed:
            self.blamed[task.stage, chunk, kind, None] += 1
        self.send(TaskFailed(task.number, failure, self.keep(task, chunks[:count])))
        if blamed and kind in ("user", "divergence", "fatal", "corrupt_shard"):
            assert self.finish == Finish("failed", failure)

    @rule(data=st.data())
    @precondition(lambda self: self.live() and any(self.inputs_of(t) for t in self.running.values()))
    def input_lost(self, data: st.DataObject) -> None:
        numbers = sorted(n for n, t in self.running.items() if self.inputs_of(t))
        task = self.running.pop(data.draw(st.sampled_from(numbers)))
        self.over.append(task.number)
        self.taken.pop(task.number, None)
        chunk = data.draw(st.sampled_from([c for c in self.lost_by(task) if (task.stage, c) in self.plan.reads]))
        place = task.chunks.index(chunk)
        lost = data.draw(st.sampled_from(self.plan.reads[task.stage, chunk]))
        self.blamed[task.stage, chunk, "corrupt_shard", lost] += 1
        kept = self.keep(task, task.chunks[:place])
        self.kept.discard(lost)
        self.held.discard(lost)
        self.send(TaskFailed(task.number, Failure("corrupt_shard", "an input is gone", chunk, lost=lost), kept))

    def inputs_of(self, task: Task) -> list[ChunkId]:
        return [one for chunk in self.lost_by(task) for one in self.plan.reads.get((task.stage, chunk), ())]

    @rule(seconds=st.sampled_from((0.0, 0.1, 1.0, 60.0)))
    def tick(self, seconds: float) -> None:
        self.now += seconds
        self.send(Tick())

    @rule(data=st.data())
    @precondition(lambda self: bool(self.over))
    def late(self, data: st.DataObject) -> None:
        """Events of tasks that have ended or were killed change nothing."""
        number = data.draw(st.sampled_from(self.over))
        before = (list(map(bytes, self.state.status)), list(self.state.left), self.state.retries)
        event = data.draw(st.sampled_from((TaskDone(number, ()), TaskFailed(number, Failure("user", "late")))))
        self.send(event)
        after = (list(map(bytes, self.state.status)), list(self.state.left), self.state.retries)
        if not any(isinstance(c, Submit) for c in self.commands[-1]):
            assert before == after
        assert self.finish is None or self.finish.failure is None or self.finish.failure.message != "late"

    @rule()
    @precondition(lambda self: self.finish is None and len(self.history) > 6)
    def cancel(self) -> None:
        self.cancelled = self.now if self.cancelled is None else self.cancelled
        self.send(CancelAsked())

    @invariant()
    def bounded(self) -> None:
        if hasattr(self, "blamed"):
            for (_, _, kind, _), count in self.blamed.items():
                limit = Policy().attempts.get(kind, 1) * (FORGIVEN if kind == "lost_worker" else 1)
                assert count <= limit
                assert count < limit or (self.finish is not None and self.finish.outcome != "done")

    def teardown(self) -> None:
        if not hasattr(self, "plan"):
            return
        for _ in range(2000):
            if self.finish is not None:
                break
            if self.running and self.cancelled is None:
                task = self.running.pop(min(self.running))
                taken = self.taken.pop(task.number, ())
                self.send(TaskDone(task.number, self.keep(task, task.chunks), 0.01, left=taken))
            else:
                self.now += CANCEL_SECONDS
                self.send(Tick())
        assert self.finish is not None, "the run doesn't end"
        if self.finish.outcome == "done":
            assert all((s, c) in self.kept for s in self.plan.goals for c in range(self.plan.stages[s].chunks))
            assert not self.held, "held chunks that nobody let go of"
            left = {(s, c) for s, c in self.kept if s in self.disposable and self.plan.feeds.get((s, c))}
            assert not left, "committed chunks that nobody deleted"
            assert not {one for one in self.partly if one[0] in self.disposable}, "parts of chunks that nobody deleted"
            assert not self.running
        assert (self.finish.outcome == "cancelled") <= (self.cancelled is not None)
        again = self.made()
        repeated = [again.start(0.0, self.at_first)] + [again.apply(event, now) for event, now in self.history]
        assert repeated == self.commands, "the same events gave other commands"


TestRunMachine = RunMachine.TestCase
TestRunMachine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def chain(*chunks: int, held: tuple[int, ...] = ()) -> FakePlan:
    """Stages in a row, chunk k reading chunk k."""
    reads = {(s, c): [(s - 1, c)] for s in range(1, len(chunks)) for c in range(chunks[s])}
    return FakePlan([FakeStage(n, s in held) for s, n in enumerate(chunks)], reads, (len(chunks) - 1,))


def tasks(commands: list[Command]) -> list[Task]:
    return [c.task for c in commands if isinstance(c, Submit)]


def test_needed_chunks_only() -> None:
    plan = chain(4, 4)
    state = RunState(plan, {1: [0, 1, 2]}, Limits(4), Policy())
    assert [(t.stage, t.chunks) for t in tasks(state.start(0.0))] == [(0, (3,))]
    assert state.needed == [1, 4]
    assert RunState(plan, {1: range(4)}, Limits(), Policy()).start(0.0) == [Finish("done")]


def test_depth_first() -> None:
    state = RunState(chain(3, 3), {}, Limits(1, queue=1), Policy())
    first, = tasks(state.start(0.0))
    second, = tasks(state.apply(TaskDone(first.number, (), 9.0), 1.0))
    assert (second.stage, second.chunks) == (1, first.chunks)


def test_tasks_grow_with_quick_chunks() -> None:
    state = RunState(chain(1000), {}, Limits(1, queue=1), Policy())
    task, = tasks(state.start(0.0))
    assert len(task.chunks) == 1
    task, = tasks(state.apply(TaskDone(task.number, (), 1e-3), 0.0))
    assert len(task.chunks) == 250


@pytest.mark.parametrize(("each", "most"), [(0, 250), (MOST_BYTES // 3, 3), (2 * MOST_BYTES, 1)])
def test_what_a_task_holds_is_bounded(each: int, most: int) -> None:
    plan = chain(1000, 1, held=(0,))
    plan.stages[0] = FakeStage(1000, held=True, block_bytes=each)
    plan.reads[1, 0] = [(0, chunk) for chunk in range(1000)]
    state = RunState(FakePlan(plan.stages, plan.reads, (1,)), {}, Limits(1, queue=1), Policy())
    task, = tasks(state.start(0.0))
    task, = tasks(state.apply(TaskDone(task.number, (), 1e-3), 0.0))
    assert len(task.chunks) == most


def test_others_of_a_task_wait_for_an_input_that_one_of_them_lost() -> None:
    plan = FakePlan([FakeStage(1), FakeStage(40)], {(1, c): [(0, 0)] for c in range(40)}, (1,))
    state = RunState(plan, {0: [0]}, Limits(1, queue=1), Policy())
    task, = tasks(state.start(0.0))
    task, = tasks(state.apply(TaskDone(task.number, (), 1e-3), 0.0))
    assert len(task.chunks) > 2
    again = tasks(state.apply(TaskFailed(task.number, Failure("corrupt_shard", "", task.chunks[0], lost=(0, 0))), 0.0))
    assert [(t.stage, t.chunks) for t in again] == [(0, (0,))]


def test_lost_held_chunk_takes_its_own_gone_inputs_along() -> None:
    state = RunState(chain(1, 1, 1, held=(0, 1)), {}, Limits(1), Policy())
    commands = state.start(0.0)
    for stage in (0, 1):
        task, = tasks(commands)
        assert task.stage == stage
        commands = state.apply(TaskDone(task.number, ()), 0.0)
    assert Drop(0, 0) in commands
    task, = tasks(commands)
    order = []
    commands = state.apply(TaskFailed(task.number, Failure("corrupt_shard", "", 0, lost=(1, 0))), 0.0)
    while tasks(commands):
        task, = tasks(commands)
        order.append(task.stage)
        commands = state.apply(TaskDone(task.number, ()), 0.0)
    assert order == [0, 1, 2]
    assert commands[-1] == Finish("done")


def test_deadline_counts_from_when_a_worker_is_free() -> None:
    state = RunState(chain(3), {}, Limits(1, queue=2, deadline=10), Policy())
    first, second = tasks(state.start(0.0))
    assert state.overdue(9.0) == []
    state.apply(TaskDone(first.number, (), 9.0), 9.0)
    state.began(second.number, 9.5)
    state.began(first.number, 9.5)
    assert state.unseen == [3]
    assert state.overdue(19.0) == []
    assert state.overdue(20.0) == [second]
    hang = TaskFailed(second.number, Failure("hang", "too long"))
    commands = state.apply(hang, 20.0)
    assert Kill(second.number) in commands
    assert state.apply(hang, 20.0) == []


def test_unseen_tasks_get_time_to_start() -> None:
    state = RunState(chain(1), {}, Limits(deadline=10), Policy())
    task, = tasks(state.start(0.0))
    assert state.overdue(10.0 + START_SECONDS) == []
    assert state.overdue(10.5 + START_SECONDS) == [task]


def test_hang_stops_at_the_second_time() -> None:
    state = RunState(chain(1), {}, Limits(deadline=10), Policy())
    commands = state.start(0.0)
    for _ in range(2):
        task, = tasks(commands)
        commands = state.apply(TaskFailed(task.number, Failure("hang", "too long")), 0.0)
    assert commands[-1] == Finish("failed", Failure("hang", "too long"))


def test_a_task_that_came_further_forgets_how_often_it_failed() -> None:
    lost, most = Failure("lost_worker", "gone"), Policy().attempts["lost_worker"]
    state = RunState(chain(1), {}, Limits(), Policy())
    commands = state.start(0.0)
    for _ in range(3):
        for attempt in range(1, most):
            task, = tasks(commands)
            assert task.attempt == attempt
            commands = state.apply(TaskFailed(task.number, lost), 0.0)
        task, = tasks(commands)
        commands = state.apply(TaskDone(task.number, (), left=task.chunks), 0.0)  # it kept its state, and goes on
    assert tasks(commands)[0].attempt == 1


def test_transient_waits_its_delay_even_if_an_input_is_made_again() -> None:
    plan = FakePlan([FakeStage(1), FakeStage(2)], {(1, c): [(0, 0)] for c in range(2)}, (1,))
    state = RunState(plan, {0: [0]}, Limits(2), Policy())
    first, second = tasks(state.start(0.0))
    state.apply(TaskFailed(first.number, Failure("transient", "", 0)), 0.0)
    made, = tasks(state.apply(TaskFailed(second.number, Failure("corrupt_shard", "", 1, lost=(0, 0))), 0.0))
    assert made.stage == 0
    then, = tasks(state.apply(TaskDone(made.number, ()), 0.0))
    assert then.chunks == (1,)
    due = state.wake_at
    assert due is not None
    assert 0.1 <= due <= 0.2
    assert [t.chunks for t in tasks(state.apply(Tick(), due))] == [(0,)]


def late_task(queue: int = 2) -> tuple[RunState, Task]:
    """A task of 25 chunks and a worker that waits for work: two workers, 50 chunks, of which others are done."""
    state = RunState(chain(103), {}, Limits(2, queue=queue), Policy())
    commands = state.start(0.0)
    for task in tasks(commands)[:2]:
        commands += state.apply(TaskDone(task.number, (), 0.001), 0.0)
    first = max(state.running.values(), key=lambda task: len(task.chunks))
    return state, first


def test_what_a_late_task_holds_back_goes_to_others() -> None:
    state, task = late_task()
    assert len(task.chunks) > 10
    state.began(task.number, 0.0)
    while len(state.running) > 1 or any(state._ready):
        other = next(number for number in state.running if number != task.number)
        state.apply(TaskDone(other, (), 0.001), 0.0)
    assert state.late(task.seconds) == []
    assert state.late(task.seconds + 0.01) == [task]
    commands = state.apply(TaskLate(task.number, task.chunks[2]), 1.0)
    assert [chunk for other in tasks(commands) for chunk in other.chunks][:3] == list(task.chunks[3:6])
    assert task.number not in [late.number for late in state.late(1e9)]
    assert state.apply(TaskLate(task.number, task.chunks[0]), 1.0) == []
    # It goes on to one all the same, which another has: whoever is first counts, and nothing is asked for twice.
    before = state.kept[0]
    state.apply(TaskDone(task.number, (), 3.0, left=task.chunks[4:]), 3.0)
    assert state.kept[0] == before + 4
    while state.running:
        commands = state.apply(TaskDone(min(state.running), (), 0.001), 3.0)
    assert commands[-1] == Finish("done")
    assert state.kept == [103]


def test_a_chunk_that_was_done_all_the_same_is_not_submitted() -> None:
    state = RunState(chain(40), {}, Limits(1, queue=1), Policy())
    task, = tasks(state.start(0.0))
    task, = tasks(state.apply(TaskDone(task.number, (), 1e-3), 0.0))
    state.apply(TaskLate(task.number, task.chunks[0]), 1.0)
    assert state.status[0][task.chunks[1]] == READY
    then, = tasks(state.apply(TaskDone(task.number, (), 1.0, left=task.chunks[2:]), 1.0))
    assert then.chunks[0] == task.chunks[2]


def test_late_tasks_are_left_alone_while_enough_is_ready() -> None:
    state = RunState(chain(1000), {}, Limits(1, queue=1), Policy())
    task, = tasks(state.start(0.0))
    task, = tasks(state.apply(TaskDone(task.number, (), 1e-3), 0.0))
    assert len(task.chunks) == 250
    assert state.late(1e9) == []


def test_cancel_gives_running_tasks_their_grace() -> None:
    state = RunState(chain(3), {}, Limits(2, queue=1), Policy())
    first, second = tasks(state.start(0.0))
    assert state.apply(CancelAsked(), 1.0) == []
    assert state.apply(TaskDone(first.number, ()), 2.0) == []
    assert state.apply(Tick(), 1.0 + CANCEL_SECONDS) == [Kill(second.number), Finish("cancelled")]
    assert state.apply(TaskDone(second.number, ()), 9.0) == []


def test_stuck_is_an_error_not_a_wait() -> None:
    plan = chain(1, 1)
    state = RunState(plan, {}, Limits(), Policy())
    task, = tasks(state.start(0.0))
    plan.reads[1, 0] = [(1, 0)]
    plan.feeds.clear()
    with pytest.raises(RunError, match="stuck"):
        state.apply(TaskDone(task.number, ()), 0.0)
