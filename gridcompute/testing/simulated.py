"""A cluster that isn't there: the real state machine and policy in virtual time, with any number of workers.

>>> plan = FlatPlan(1000)
>>> end = simulate(plan, lambda stage, chunk: 1.0, Cluster(workers=10))
>>> 100.0 <= end.makespan < 102.0
True
"""

from __future__ import annotations

import heapq
import math
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from gridcompute.drops import DONE, GONE
from gridcompute.events import (
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
    TaskSlow,
    Tick,
)
from gridcompute.planview import Limits, PlanView
from gridcompute.retry import Policy
from gridcompute.voting import VotingState

Cost = Callable[[int, int], float]
"""Seconds that a chunk takes: `cost(stage, chunk)`."""


@dataclass(frozen=True)
class FlatStage:
    """A stage of independent chunks."""

    chunks: int
    held: bool = False
    task_bytes: int = 0
    block_bytes: int = 0


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

    def most_parts(self, stage: int, chunk: int) -> int:
        """See `PlanView`."""
        return 1


@dataclass(frozen=True)
class Cluster:
    """What is simulated. Free workers take submitted tasks in their order, as Ray's do.

    Attributes:
        workers: tasks that run at once.
        dispatch: seconds of the one driver for a task, half to submit it, half to take in its answer.
        latency: seconds from a worker to the next task that waits for it.
        queue: tasks submitted ahead per worker.
        looks: seconds between two looks of the driver at tasks past their time; it takes in each as an answer.
        slow: factor by worker number, for stragglers.
        fails: the kind of failure of a task, or None; asked once for each task. It fails in the middle of its chunks,
            and what it had kept by then counts.
        restart: seconds until there is another worker in the place of one that was lost.
    """

    workers: int
    dispatch: float = 0.001
    latency: float = 0.001
    queue: int = 2
    looks: float = 0.5
    slow: Callable[[int], float] = lambda worker: 1.0
    fails: Callable[[Task], FailureKind | None] = lambda task: None
    restart: float = 3.0


@dataclass
class Simulated:
    """How it went.

    Attributes:
        makespan: virtual seconds from the first command to the end.
        work: virtual seconds of chunks that were kept.
        lost: virtual seconds of workers in chunks that failed, and of those that were lost until another was there.
        tasks: tasks that ran.
        retries: chunks tried again.
        copies, won: second copies that were made of tasks, and those that were first.
        decisions: commands and events of the state machine.
        seconds: real seconds of processor time that these took.
        outcome: the finish.
        done: how often each (stage, chunk) was kept.
    """

    makespan: float = 0.0
    work: float = 0.0
    lost: float = 0.0
    tasks: int = 0
    retries: int = 0
    copies: int = 0
    won: int = 0
    decisions: int = 0
    seconds: float = 0.0
    outcome: Finish | None = None
    done: dict[tuple[int, int], int] = field(default_factory=dict)


def simulate(plan: PlanView, cost: Cost, cluster: Cluster, policy: Policy | None = None, *,
             copies: bool = True) -> Simulated:
    """Run a plan's chunks in virtual time; `copies` says whether second ones are made."""
    return _Simulation(plan, cost, cluster, policy or Policy(), copies).run()


def list_schedule(costs: Sequence[float], workers: int, slow: Callable[[int], float] = lambda worker: 1.0) -> float:
    """Makespan of greedy list scheduling (Graham 1966): each chunk in order to the worker that is free first.

    Args:
        costs: seconds of each chunk.
        workers: how many.
        slow: factor by worker number; nobody knows it beforehand.
    """
    free, end = [(0.0, worker) for worker in range(workers)], 0.0
    for seconds in costs:
        at, worker = free[0]
        heapq.heapreplace(free, (at + seconds * slow(worker), worker))
        end = max(end, at + seconds * slow(worker))
    return end


class _Simulation:
    def __init__(self, plan: PlanView, cost: Cost, cluster: Cluster, policy: Policy, copies: bool) -> None:
        self.cost, self.cluster, self.copies = cost, cluster, copies
        limits = Limits(cluster.workers, cluster.queue, deadline=1e12)
        began = time.process_time()
        self.state = VotingState(plan, {}, limits, policy)
        self.end = Simulated(seconds=time.process_time() - began)
        self.now, self.looked = 0.0, 0.0
        self.idle = list(range(cluster.workers))
        self.waiting: deque[Task] = deque()
        self.coming: list[tuple[float, int, int | None, Event | None]] = []
        self.chunks: dict[int, list[float]] = {}
        self.killed: set[int] = set()

    def run(self) -> Simulated:
        self._decide([])
        while self.end.outcome is None:
            if not self.state.more or (self.coming and self.coming[0][0] <= self.now):
                self.now = max(self.now, self._next_time())
            self._decide([*self._arrived(), *self._late()])
        self.end.makespan, self.end.retries = self.now, self.state.retries
        self.end.copies, self.end.won = self.state.copies, self.state.won
        return self.end

    def _next_time(self) -> float:
        look = self.looked + self.cluster.looks if self.state.short else math.inf
        due = self.state.wake_at
        return min(self.coming[0][0] if self.coming else math.inf, math.inf if due is None else due, look)

    def _arrived(self) -> Iterator[Event]:
        """Answers that are there by now; their workers go on to what waits."""
        while self.coming and self.coming[0][0] <= self.now:
            at, number, worker, event = heapq.heappop(self.coming)
            if worker is not None:
                heapq.heappush(self.idle, worker)
                if self.waiting:
                    self._begin(self.waiting.popleft(), at + self.cluster.latency)
            if event is not None:
                self.chunks.pop(number)
                if number not in self.killed:
                    yield event

    def _kept(self, event: Event) -> None:
        """What an answer tells of counts where nobody was earlier."""
        if isinstance(event, TaskDone | TaskFailed | TaskSlow):
            news = [(k.stage, k.chunk) for k in event.kept if self.state.status[k.stage][k.chunk] not in (DONE, GONE)]
            self.end.done.update((at, self.end.done.get(at, 0) + 1) for at in news)

    def _late(self) -> Iterator[Event]:
        """Chunks in work of tasks past their time, and tasks that are slow, as the driver sees them at times."""
        if self.now < self.looked + self.cluster.looks:
            return
        self.looked = self.now
        for task in {task.number: task for task in (*self.state.late(math.inf), *self.state.slow(math.inf))}.values():
            if task.number in self.chunks:
                begins = self.chunks[task.number]
                seen = math.ceil(begins[0] / self.cluster.looks) * self.cluster.looks
                if seen <= self.now:
                    self.state.began(task.number, seen)
        unseen = set(self.state.unseen)  # when these began nobody knows, so none is taken for late
        for task in self.state.late(self.now):
            if task.number in self.chunks and task.number not in unseen:
                at = bisect_right(self.chunks[task.number], self.now) - 1
                yield TaskLate(task.number, task.chunks[at])
        for task in self.state.slow(self.now) if self.copies else ():
            if task.number in self.chunks:
                at = bisect_right(self.chunks[task.number], self.now) - 1
                yield TaskSlow(task.number, tuple(Kept(task.stage, 0, one, "", "", 0, 0) for one in task.chunks[:at]))

    def _decide(self, events: list[Event]) -> None:
        for event in [*events, Tick()]:
            self.now += 0.0 if isinstance(event, Tick) else self.cluster.dispatch / 2
            self._kept(event)
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
        slow, kind = self.cluster.slow(worker), self.cluster.fails(task)
        begins, now = [], at
        for chunk in task.chunks[: None if kind is None else len(task.chunks) // 2 + 1]:
            begins.append(now)
            now += self.cost(task.stage, chunk) * slow
            if now > at + task.seconds:
                break
        self.chunks[task.number] = begins
        kept = task.chunks[: len(begins) - (kind is not None)]
        items = tuple(Kept(task.stage, 0, chunk, "", "", 0, 0, True) for chunk in kept)
        event: Event = TaskDone(task.number, items, now - at, left=task.chunks[len(kept) :])
        back = now
        if kind is None:
            self.end.work += now - at
        else:
            event = TaskFailed(task.number, Failure(kind, "simulated", task.chunks[len(kept)]), items)
            back += self.cluster.restart if kind in ("lost_worker", "out_of_memory") else 0.0
            self.end.work += begins[-1] - at
            self.end.lost += back - begins[-1]
        heapq.heappush(self.coming, (now, task.number, worker if back == now else None, event))
        if back > now:
            heapq.heappush(self.coming, (back, task.number, worker, None))
