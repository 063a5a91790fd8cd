"""The run as a pure state machine: events in, commands out. No clock, no I/O, no Ray (law 7).

A chunk is released when its own inputs are kept, deepest stage first; tasks are runs of ready chunks, sized from
the time that chunks of their stage have taken; failures go to the policy.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from gridcompute.errors import RunError
from gridcompute.events import (
    CancelAsked,
    Command,
    Drop,
    Event,
    Failure,
    Finish,
    Kill,
    Submit,
    Task,
    TaskDone,
    TaskFailed,
)
from gridcompute.retry import Policy

IDLE, WAITING, READY, RUNNING, DONE = range(5)

TASK_SECONDS = 0.25
"""Duration toward which tasks are sized: dispatch costs about a millisecond."""

CANCEL_SECONDS = 5.0
"""Grace that running tasks get after a cancel."""


class StageView(Protocol):
    """What the machine needs to know of a stage."""

    @property
    def chunks(self) -> int: ...  # noqa: D102
    @property
    def held(self) -> bool: ...  # noqa: D102
    @property
    def task_bytes(self) -> int: ...  # noqa: D102


class PlanView(Protocol):
    """What the machine needs to know of a plan; `gridcompute.planning.Plan` is one."""

    @property
    def stages(self) -> Sequence[StageView]: ...  # noqa: D102
    @property
    def goals(self) -> tuple[int, ...]: ...  # noqa: D102
    @property
    def producers(self) -> Sequence[frozenset[int]]: ...  # noqa: D102

    def inputs(self, stage: int, chunk: int) -> Iterator[tuple[int, int]]: ...  # noqa: D102
    def consumers(self, stage: int, chunk: int) -> Iterator[tuple[int, int]]: ...  # noqa: D102
    def barrier(self, stage: int, producer: int) -> bool: ...  # noqa: D102


@dataclass(frozen=True)
class Limits:
    """What the machine may use.

    Attributes:
        workers: tasks that can run at once.
        queue: tasks submitted ahead per worker, so that none waits for the driver.
        live_bytes: most estimated bytes of tasks in work and of held chunks; one task may always run.
        deadline: seconds after which a submitted task is taken for hung.
    """

    workers: int = 1
    queue: int = 2
    live_bytes: int = 2**62
    deadline: float = 3600.0


class RunState:
    """One phase of a run.

    Args:
        plan: stages and their dependencies.
        done: chunks that are kept already, by stage.
        limits: workers, memory, deadline.
        policy: what is done about failures.
    """

    def __init__(self, plan: PlanView, done: Mapping[int, Iterable[int]], limits: Limits, policy: Policy) -> None:
        self.plan, self.limits, self.policy = plan, limits, policy
        self.status = [bytearray(stage.chunks) for stage in plan.stages]
        self.left = [0] * len(plan.stages)
        self.kept = [0] * len(plan.stages)
        self.needed = [0] * len(plan.stages)
        self.running: dict[int, tuple[Task, float]] = {}
        self.retries = 0
        self.outcome: Finish | None = None
        self._ready: list[list[int]] = [[] for _ in plan.stages]
        self._queued = [0] * len(plan.stages)
        self._alone: set[tuple[int, int]] = set()
        self._attempts: dict[tuple[int, int], int] = {}
        self._delayed: list[tuple[float, int, int]] = []
        self._seconds: list[float | None] = [None] * len(plan.stages)
        self._live = 0
        self._tasks = 0
        self._cancel_at: float | None = None
        for stage, chunks in done.items():
            for chunk in chunks:
                self.status[stage][chunk] = DONE
        self._find_needed()

    def _find_needed(self) -> None:
        """Walk back from the goals: a chunk is needed only if a needed consumer lacks its shard."""
        wanted: list[Iterable[int]] = [()] * len(self.plan.stages)
        marks: list[set[int] | None] = [set() for _ in self.plan.stages]
        for stage in reversed(range(len(self.plan.stages))):
            everything = stage in self.plan.goals
            wanted[stage] = range(self.plan.stages[stage].chunks) if everything else sorted(marks[stage] or ())
            for chunk in wanted[stage]:
                self.needed[stage] += 1
                if self.status[stage][chunk] == DONE:
                    self.kept[stage] += 1
                    continue
                self.status[stage][chunk] = WAITING
                self.left[stage] += 1
                for producer, before in self.plan.inputs(stage, chunk) if self.plan.producers[stage] else ():
                    found = marks[producer]
                    assert found is not None
                    found.add(before)
            marks[stage] = None
        for stage, chunks in enumerate(wanted):
            for chunk in chunks:
                if self.status[stage][chunk] == WAITING and self._inputs_done(stage, chunk):
                    self._release(stage, chunk)

    def _inputs_done(self, stage: int, chunk: int) -> bool:
        if not self.plan.producers[stage]:
            return True
        return all(self.status[producer][before] == DONE for producer, before in self.plan.inputs(stage, chunk))

    def _release(self, stage: int, chunk: int) -> None:
        self.status[stage][chunk] = READY
        heapq.heappush(self._ready[stage], chunk)

    def start(self, now: float) -> list[Command]:
        """The first commands."""
        return self._next(now, [])

    def apply(self, event: Event, now: float) -> list[Command]:
        """Take in one event at a time `now` (seconds, any origin); what to do about it."""
        commands: list[Command] = []
        if self.outcome is not None:
            return commands
        if isinstance(event, TaskDone):
            self._done(event, commands)
        elif isinstance(event, TaskFailed):
            self._failed(event, now, commands)
        elif isinstance(event, CancelAsked) and self._cancel_at is None:
            self._cancel_at = now
        else:
            self._overdue(now, commands)
        return self._next(now, commands)

    def _ended(self, number: int) -> Task | None:
        entry = self.running.pop(number, None)
        if entry is None:
            return None
        self._live -= self._task_bytes(entry[0].stage)
        return entry[0]

    def _task_bytes(self, stage: int) -> int:
        return self.plan.stages[stage].task_bytes

    def _done(self, event: TaskDone, commands: list[Command]) -> None:
        task = self._ended(event.task)
        if task is None:
            return
        per_chunk = event.seconds / len(task.chunks)
        before = self._seconds[task.stage]
        self._seconds[task.stage] = per_chunk if before is None else 0.7 * before + 0.3 * per_chunk
        for chunk in task.chunks:
            self._keep(task.stage, chunk, commands)

    def _keep(self, stage: int, chunk: int, commands: list[Command]) -> None:
        if self.status[stage][chunk] == DONE:
            return
        self.status[stage][chunk] = DONE
        self.left[stage] -= 1
        self.kept[stage] += 1
        waits = {consumer: self.plan.barrier(consumer, stage) for consumer in range(stage + 1, len(self.plan.stages))
                 if stage in self.plan.producers[consumer]}
        for consumer, after in self.plan.consumers(stage, chunk) if waits and not all(waits.values()) else ():
            if not waits[consumer] and self.status[consumer][after] == WAITING and self._inputs_done(consumer, after):
                self._release(consumer, after)
        if self.left[stage] == 0:
            for consumer in (c for c, barrier in waits.items() if barrier):
                for after, status in enumerate(self.status[consumer]):
                    if status == WAITING and self._inputs_done(consumer, after):
                        self._release(consumer, after)
        self._drop_inputs(stage, chunk, commands)

    def _drop_inputs(self, stage: int, chunk: int, commands: list[Command]) -> None:
        """Let go of held chunks whose last consumer this was."""
        if not any(self.plan.stages[p].held for p in self.plan.producers[stage]):
            return
        for producer, before in self.plan.inputs(stage, chunk):
            if self.plan.stages[producer].held and all(
                    self.status[s][c] in (DONE, IDLE) for s, c in self.plan.consumers(producer, before)):
                commands.append(Drop(producer, before))

    def _failed(self, event: TaskFailed, now: float, commands: list[Command]) -> None:
        task = self._ended(event.task)
        if task is None:
            return
        kept = {item.chunk for item in event.kept}
        for chunk in task.chunks:
            if chunk in kept:
                self._keep(task.stage, chunk, commands)
        rest = [chunk for chunk in task.chunks if chunk not in kept]
        failure = event.failure
        blamed = [failure.chunk] if failure.chunk in rest else rest
        for chunk in rest:
            if chunk in blamed:
                self._retry(task.stage, chunk, failure, now, commands)
            elif self.status[task.stage][chunk] == RUNNING:
                self._release(task.stage, chunk)

    def _retry(self, stage: int, chunk: int, failure: Failure, now: float, commands: list[Command]) -> None:
        attempt = self._attempts[stage, chunk] = self._attempts.get((stage, chunk), 0) + 1
        decision = self.policy.decide(failure.kind, attempt, stage * 1_000_003 + chunk)
        self.status[stage][chunk] = WAITING
        if decision.action == "stop" or (decision.action == "recompute" and failure.lost is None):
            self._stop("failed", failure, commands)
            return
        self.retries += 1
        if decision.alone:
            self._alone.add((stage, chunk))
        if decision.action == "recompute":
            assert failure.lost is not None
            self._lose(*failure.lost)
        if decision.delay > 0:
            heapq.heappush(self._delayed, (now + decision.delay, stage, chunk))
        elif self._inputs_done(stage, chunk):
            self._release(stage, chunk)

    def _lose(self, stage: int, chunk: int) -> None:
        """A kept chunk is gone: it must be made again, and so must whatever of its own inputs is gone by now."""
        if self.status[stage][chunk] in (DONE, IDLE):
            if self.status[stage][chunk] == DONE:
                self.kept[stage] -= 1
            else:
                self.needed[stage] += 1
            self.status[stage][chunk] = WAITING
            self.left[stage] += 1
            for producer, before in self.plan.inputs(stage, chunk):
                if self.status[producer][before] == IDLE or (
                        self.status[producer][before] == DONE and self.plan.stages[producer].held):
                    self._lose(producer, before)
            if self._inputs_done(stage, chunk):
                self._release(stage, chunk)

    def lost(self, stage: int, chunk: int) -> None:
        """Tell the machine that a kept chunk turned out unusable (found by the driver between tasks)."""
        self._lose(stage, chunk)

    def _overdue(self, now: float, commands: list[Command]) -> None:
        for number, (task, since) in list(self.running.items()):
            if now - since > self.limits.deadline:
                commands.append(Kill(number))
                message = f"a task of stage {task.stage} ran longer than its deadline of {self.limits.deadline:g} s"
                self._failed(TaskFailed(number, Failure("hang", message)), now, commands)

    def _stop(self, outcome: str, failure: Failure | None, commands: list[Command]) -> None:
        if self.outcome is None:
            commands.extend(Kill(number) for number in self.running)
            self.outcome = Finish("failed" if outcome == "failed" else "cancelled", failure)
            commands.append(self.outcome)

    def _next(self, now: float, commands: list[Command]) -> list[Command]:
        """Submit what can run; finish when nothing is left."""
        if self.outcome is not None:
            return commands
        while self._delayed and self._delayed[0][0] <= now:
            _, stage, chunk = heapq.heappop(self._delayed)
            if self.status[stage][chunk] == WAITING and self._inputs_done(stage, chunk):
                self._release(stage, chunk)
        if self._cancel_at is not None:
            if not self.running or now - self._cancel_at >= CANCEL_SECONDS:
                self._stop("cancelled", None, commands)
            return commands
        for stage in reversed(range(len(self._ready))):
            while self._ready[stage] and self._room(stage):
                commands.append(Submit(self._task(stage, now)))
        if not any(self.left):
            self.outcome = Finish("done")
            commands.append(self.outcome)
        elif not self.running and not self._delayed:
            raise RunError("the run is stuck: chunks are left, but none can be released")
        return commands

    def _room(self, stage: int) -> bool:
        if not self.running:
            return True
        fits = self._live + self._task_bytes(stage) <= self.limits.live_bytes
        return fits and len(self.running) < self.limits.workers * self.limits.queue

    def _task(self, stage: int, now: float) -> Task:
        """The next run of ready chunks: about `TASK_SECONDS` of work, less near the end so that all workers end together."""
        ready = self._ready[stage]
        seconds = self._seconds[stage]
        size = 1 if seconds is None else max(1, min(int(TASK_SECONDS / max(seconds, 1e-6)), 4096))
        size = min(size, max(1, len(ready) // (2 * self.limits.workers)))
        chunks = [heapq.heappop(ready)]
        if (stage, chunks[0]) not in self._alone:
            while len(chunks) < size and ready and (stage, ready[0]) not in self._alone:
                chunks.append(heapq.heappop(ready))
        for chunk in chunks:
            self.status[stage][chunk] = RUNNING
        self._tasks += 1
        attempt = 1 + max(self._attempts.get((stage, chunk), 0) for chunk in chunks)
        task = Task(self._tasks, stage, tuple(chunks), attempt)
        self.running[task.number] = (task, now)
        self._live += self._task_bytes(stage)
        return task

    @property
    def wake_at(self) -> float | None:
        """When the next delayed chunk is due."""
        return self._delayed[0][0] if self._delayed else None
