"""A cluster that isn't there: the real state machine and policy in virtual time, with any number of workers.

>>> plan = FlatPlan(1000)
>>> end = simulate(plan, lambda stage, chunk: 1.0, Cluster(workers=10))
>>> 100.0 <= end.makespan < 102.0
True
"""

from __future__ import annotations

import heapq
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from gridcompute.events import Event, Failure, FailureKind, Finish, Kept, Kill, Submit, Task, TaskDone, TaskFailed, Tick
from gridcompute.retry import Policy
from gridcompute.state import Limits, PlanView, RunState

Cost = Callable[[int, int], float]
"""Seconds that a chunk takes: `cost(stage, chunk)`."""


@dataclass(frozen=True)
class FlatStage:
    """A stage of independent chunks."""

    chunks: int
    held: bool = False
    task_bytes: int = 0


@dataclass(frozen=True)
class FlatPlan:
    """One stage of independent chunks, as `gridcompute.state.PlanView`."""

    chunks: int

    @property
    def stages(self) -> Sequence[FlatStage]:
        """See `PlanView`."""
        return (FlatStage(self.chunks),)

    @property
    def goals(self) -> tuple[int, ...]:
        """See `PlanView`."""
        return (0,)

    @property
    def producers(self) -> Sequence[frozenset[int]]:
        """See `PlanView`."""
        return (frozenset(),)

    def inputs(self, stage: int, chunk: int) -> Iterator[tuple[int, int]]:
        """See `PlanView`."""
        return iter(())

    def consumers(self, stage: int, chunk: int) -> Iterator[tuple[int, int]]:
        """See `PlanView`."""
        return iter(())

    def barrier(self, stage: int, producer: int) -> bool:
        """See `PlanView`."""
        return False


@dataclass(frozen=True)
class Cluster:
    """What is simulated. Free workers take submitted tasks in their order, as Ray's do.

    Attributes:
        workers: tasks that run at once.
        dispatch: seconds of the one driver for a task, half to submit it, half to take in its answer.
        latency: seconds from a worker to the next task that waits for it.
        queue: tasks submitted ahead per worker.
        slow: factor by worker number, for stragglers.
        fails: the kind of failure of a task, or None; asked once for each task.
    """

    workers: int
    dispatch: float = 0.001
    latency: float = 0.001
    queue: int = 2
    slow: Callable[[int], float] = lambda worker: 1.0
    fails: Callable[[Task], FailureKind | None] = lambda task: None


@dataclass
class Simulated:
    """How it went.

    Attributes:
        makespan: virtual seconds from the first command to the end.
        work: virtual seconds of chunks that were kept.
        tasks: tasks that ran.
        retries: chunks tried again.
        decisions: commands and events of the state machine.
        seconds: real seconds of processor time that these took.
        outcome: the finish.
        done: how often each (stage, chunk) was kept.
    """

    makespan: float = 0.0
    work: float = 0.0
    tasks: int = 0
    retries: int = 0
    decisions: int = 0
    seconds: float = 0.0
    outcome: Finish | None = None
    done: dict[tuple[int, int], int] = field(default_factory=dict)


def simulate(plan: PlanView, cost: Cost, cluster: Cluster, policy: Policy | None = None) -> Simulated:
    """Run a plan's chunks in virtual time."""
    return _Simulation(plan, cost, cluster, policy or Policy()).run()


def list_schedule(costs: Sequence[float], workers: int) -> float:
    """Makespan of greedy list scheduling (Graham 1966): each chunk in order to the worker that is free first."""
    free = [0.0] * workers
    for seconds in costs:
        heapq.heapreplace(free, free[0] + seconds)
    return max(free)


class _Simulation:
    def __init__(self, plan: PlanView, cost: Cost, cluster: Cluster, policy: Policy) -> None:
        self.cost, self.cluster = cost, cluster
        limits = Limits(cluster.workers, cluster.queue, deadline=1e12)
        began = time.process_time()
        self.state = RunState(plan, {}, limits, policy)
        self.end = Simulated(seconds=time.process_time() - began)
        self.now = 0.0
        self.idle = list(range(cluster.workers))
        self.waiting: deque[Task] = deque()
        self.ends: list[tuple[float, int, int, Event]] = []
        self.killed: set[int] = set()

    def run(self) -> Simulated:
        self._decide([])
        while self.end.outcome is None:
            if self.ends and (self.ends[0][0] <= self.now or not self.state.more):
                self.now = max(self.now, self._next_time())
            self._decide(list(self._arrived()))
        self.end.makespan, self.end.retries = self.now, self.state.retries
        return self.end

    def _next_time(self) -> float:
        due = self.state.wake_at
        return self.ends[0][0] if due is None else min(self.ends[0][0], due)

    def _arrived(self) -> Iterator[Event]:
        """Answers that are there by now; their workers go on to what waits."""
        while self.ends and self.ends[0][0] <= self.now:
            at, _, worker, event = heapq.heappop(self.ends)
            heapq.heappush(self.idle, worker)
            if self.waiting:
                self._begin(self.waiting.popleft(), at + self.cluster.latency)
            if event.task not in self.killed:  # type: ignore[union-attr]
                yield event

    def _decide(self, events: list[Event]) -> None:
        if not events and not self.ends and not self.waiting and self.end.tasks and self.state.wake_at is not None:
            self.now = max(self.now, self.state.wake_at)
        for event in [*events, Tick()]:
            self.now += self.cluster.dispatch / 2 if event in events else 0.0
            began = time.process_time()
            commands = self.state.apply(event, self.now) if self.end.tasks else self.state.start(self.now)
            self.end.seconds += time.process_time() - began
            self.end.decisions += len(commands) + 1
            for command in commands:
                if isinstance(command, Submit):
                    self.now += self.cluster.dispatch / 2
                    self._submitted(command.task)
                elif isinstance(command, Kill):
                    self.killed.add(command.task)
                elif isinstance(command, Finish):
                    self.end.outcome = command

    def _submitted(self, task: Task) -> None:
        self.end.tasks += 1
        if self.idle:
            self._begin(task, self.now + self.cluster.latency)
        else:
            self.waiting.append(task)

    def _begin(self, task: Task, at: float) -> None:
        worker = heapq.heappop(self.idle)
        seconds, done, kind = 0.0, 0, self.cluster.fails(task)
        while done < len(task.chunks) and seconds <= task.seconds:
            seconds += self.cost(task.stage, task.chunks[done]) * self.cluster.slow(worker)
            done += 1
        event: Event
        if kind is None:
            kept = task.chunks[:done]
            self.end.done.update(((task.stage, chunk), self.end.done.get((task.stage, chunk), 0) + 1) for chunk in kept)
            self.end.work += seconds
            event = TaskDone(task.number, tuple(Kept(task.stage, 0, chunk, "", "", 0, 0, True) for chunk in kept),
                             seconds, left=task.chunks[done:])
        else:
            event = TaskFailed(task.number, Failure(kind, "simulated", task.chunks[0]))
        heapq.heappush(self.ends, (at + seconds, task.number, worker, event))
