"""The run as a pure state machine: events in, commands out. No clock, no I/O, no Ray (law 7).

A chunk is released when its own inputs are kept, deepest stage first; tasks are runs of ready chunks, sized from
the time that chunks of their stage have taken; failures go to the policy.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

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
)
from gridcompute.pacing import BURST, MOST, MOST_BYTES, Pace
from gridcompute.planview import Limits, PlanView
from gridcompute.ready import Ready
from gridcompute.retry import Policy

IDLE, WAITING, READY, RUNNING, DONE, GONE = range(6)
"""Of a chunk: needed by nobody; lacks an input, waits out a delay; may be submitted; submitted; kept; held, let go."""

START_SECONDS = 60.0
"""Time that a worker process may take to start before its task's deadline counts."""

CANCEL_SECONDS = 5.0
"""Grace that running tasks get after a cancel."""


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
        self.running: dict[int, Task] = {}
        self.retries = 0
        self.more = False
        self.outcome: Finish | None = None
        self._ready = [Ready() for _ in plan.stages]
        self._since: dict[int, float] = {}
        self._unsure: deque[int] = deque()
        self._begun: set[int] = set()
        self._taken: dict[int, tuple[int, ...]] = {}
        self._alone: set[tuple[int, int]] = set()
        self._attempts: dict[tuple[int, int], dict[tuple[FailureKind, tuple[int, int] | None], int]] = {}
        self._delayed: list[tuple[float, int, int]] = []
        self._held: dict[tuple[int, int], int] = {}
        self._losses = False
        self._resting: set[tuple[int, int]] = set()
        self._paces = [Pace() for _ in plan.stages]
        self._live = 0
        self._tasks = 0
        self._cancel_at: float | None = None
        # Asked for each chunk, and always the same: the consumers of a stage, and which of them need all of it; how
        # many chunks its tasks may have; whether it reads held chunks.
        self._waits = [{after: plan.barrier(after, stage) for after in range(stage + 1, len(plan.stages))
                        if stage in plan.producers[after]} for stage in range(len(plan.stages))]
        self._most = [max(1, MOST_BYTES // stage.block_bytes) if stage.block_bytes else MOST for stage in plan.stages]
        self._reads_held = [any(plan.stages[p].held for p in producers) for producers in plan.producers]
        for stage, chunks in done.items():
            for chunk in chunks:
                self.status[stage][chunk] = DONE
        self._find_needed()

    def _find_needed(self) -> None:
        """Walk back from the goals: a chunk is needed only if a needed consumer lacks its shard."""
        lacking: list[Sequence[int]] = [()] * len(self.plan.stages)
        marks = [bytearray(stage.chunks) for stage in self.plan.stages]
        for stage in reversed(range(len(self.plan.stages))):
            status, every = self.status[stage], range(self.plan.stages[stage].chunks)
            all_of_it = stage in self.plan.goals or all(marks[stage])
            wanted: Sequence[int] = every if all_of_it else [c for c in every if marks[stage][c]]
            lacking[stage] = wanted if DONE not in status else [chunk for chunk in wanted if status[chunk] != DONE]
            self.needed[stage], self.left[stage] = len(wanted), len(lacking[stage])
            self.kept[stage] = len(wanted) - len(lacking[stage])
            for chunk in lacking[stage]:
                status[chunk] = WAITING
                for producer, before in self.plan.inputs(stage, chunk) if self.plan.producers[stage] else ():
                    marks[producer][before] = 1
        for stage, chunks in enumerate(lacking):
            for chunk in chunks:
                if self._inputs_done(stage, chunk):
                    self._release(stage, chunk)

    def _inputs_done(self, stage: int, chunk: int) -> bool:
        if not self.plan.producers[stage]:
            return True
        return all(self.status[producer][before] == DONE for producer, before in self.plan.inputs(stage, chunk))

    def _release(self, stage: int, chunk: int) -> None:
        if (stage, chunk) in self._resting:
            return
        self.status[stage][chunk] = READY
        self._ready[stage].push(chunk)

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
        elif isinstance(event, TaskLate):
            self._split(event)
        elif isinstance(event, CancelAsked) and self._cancel_at is None:
            self._cancel_at = now
        return self._next(now, commands)

    def _ended(self, number: int) -> Task | None:
        task = self.running.pop(number, None)
        if task is not None:
            self._since.pop(number, None)
            self._begun.discard(number)
            self._live -= self._task_bytes(task.stage)
        return task

    def _task_bytes(self, stage: int) -> int:
        return self.plan.stages[stage].task_bytes

    def _done(self, event: TaskDone, commands: list[Command]) -> None:
        taken = self._taken.pop(event.task, ())
        task = self._ended(event.task)
        if task is None:
            return
        done = len(task.chunks) + len(taken) - len(event.left)
        self._paces[task.stage].took(event.seconds - event.compile_seconds, done)
        self._hold(task.stage, event.kept)
        if event.left == task.chunks:  # it has come further: how often it failed before counts no more
            for chunk in event.left:
                self._attempts.pop((task.stage, chunk), None)
        left = set(event.left)
        for chunk in (*task.chunks, *taken):
            if chunk not in left:
                self._keep(task.stage, chunk, commands)
        self._give_back(task.stage, [chunk for chunk in task.chunks if chunk in left])

    def _split(self, event: TaskLate) -> None:
        """What a late task won't begin any more goes back; one that it does all the same counts whoever is first."""
        task = self.running.get(event.task)
        if task is None or event.chunk not in task.chunks or task.number in self._taken:
            return
        at = task.chunks.index(event.chunk) + 1
        self.running[task.number] = replace(task, chunks=task.chunks[:at])
        self._taken[task.number] = task.chunks[at:]
        self._give_back(task.stage, task.chunks[at:])

    def _give_back(self, stage: int, chunks: Iterable[int]) -> None:
        for chunk in chunks:
            if self.status[stage][chunk] == RUNNING:
                self._release(stage, chunk)

    def _hold(self, stage: int, kept: Iterable[Kept]) -> None:
        """Held blocks count as live until they are let go."""
        if self.plan.stages[stage].held:
            for item in (one for one in kept if self.status[stage][one.chunk] not in (DONE, GONE)):
                self._held[stage, item.chunk] = self._held.get((stage, item.chunk), 0) + item.nbytes
                self._live += item.nbytes

    def _let_go(self, stage: int, chunk: int) -> None:
        self._live -= self._held.pop((stage, chunk), 0)

    def _keep(self, stage: int, chunk: int, commands: list[Command]) -> None:
        if self.status[stage][chunk] in (DONE, GONE):  # another task had it too
            return
        self.status[stage][chunk] = DONE
        self.left[stage] -= 1
        self.kept[stage] += 1
        waits = self._waits[stage]
        for consumer, after in self.plan.consumers(stage, chunk) if waits and not all(waits.values()) else ():
            if not waits[consumer] and self.status[consumer][after] == WAITING and self._inputs_done(consumer, after):
                self._release(consumer, after)
        if self.left[stage] == 0:
            for consumer in (c for c, barrier in waits.items() if barrier):
                for after, status in enumerate(self.status[consumer]):
                    if status == WAITING and self._inputs_done(consumer, after):
                        self._release(consumer, after)
        if self._reads_held[stage]:
            self._drop_inputs(stage, chunk, commands)

    def _drop_inputs(self, stage: int, chunk: int, commands: list[Command]) -> None:
        """Let go of held chunks whose last consumer this was."""
        for producer, before in self.plan.inputs(stage, chunk):
            if self.plan.stages[producer].held and self.status[producer][before] == DONE and all(
                    self.status[s][c] in (DONE, GONE, IDLE) for s, c in self.plan.consumers(producer, before)):
                self.status[producer][before] = GONE
                self._let_go(producer, before)
                commands.append(Drop(producer, before))

    def _failed(self, event: TaskFailed, now: float, commands: list[Command]) -> None:
        self._taken.pop(event.task, None)
        task = self._ended(event.task)
        if task is None:
            return
        if event.failure.kind == "hang":
            commands.append(Kill(event.task))
        self._hold(task.stage, event.kept)
        for chunk in sorted({item.chunk for item in event.kept}):
            self._keep(task.stage, chunk, commands)
        rest = [chunk for chunk in task.chunks if self.status[task.stage][chunk] == RUNNING]
        failure = event.failure
        blamed = [failure.chunk] if failure.chunk in rest else rest
        for chunk in blamed:
            self._retry(task.stage, chunk, failure, now, commands)
        self._give_back(task.stage, rest)

    def _retry(self, stage: int, chunk: int, failure: Failure, now: float, commands: list[Command]) -> None:
        attempts = self._attempts.setdefault((stage, chunk), {})
        cause = (failure.kind, failure.lost)  # each input that is lost has attempts of its own
        attempt = attempts[cause] = attempts.get(cause, 0) + 1
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
            self._resting.add((stage, chunk))
        elif self._inputs_done(stage, chunk):
            self._release(stage, chunk)

    def _lose(self, stage: int, chunk: int) -> None:
        """A kept chunk is gone: it must be made again, and so must whatever of its own inputs is gone by now."""
        status = self.status[stage][chunk]
        if status not in (DONE, GONE, IDLE):
            return
        # Consumers that are ready by now aren't any more: they are found when they would be submitted.
        self._losses = True
        self._let_go(stage, chunk)
        self.status[stage][chunk] = WAITING
        self.left[stage] += 1
        # A chunk that was there before the run without being needed wasn't counted.
        self.kept[stage] = max(0, self.kept[stage] - (status != IDLE))
        self.needed[stage] = max(self.needed[stage], self.kept[stage] + self.left[stage])
        for producer, before in self.plan.inputs(stage, chunk):
            if self.status[producer][before] in (GONE, IDLE):
                self._lose(producer, before)
        if self._inputs_done(stage, chunk):
            self._release(stage, chunk)

    def began(self, task: int, now: float) -> None:
        """A worker was seen at a task: its deadline counts from now."""
        if task in self.running:
            self._since[task] = now
            self._begun.add(task)

    @property
    def unseen(self) -> list[int]:
        """Tasks that no worker was seen at."""
        return [number for number in self.running if number not in self._begun]

    def overdue(self, now: float) -> list[Task]:
        """Tasks past their deadline: the driver reports each as failed, of kind "hang", with what it knows of it."""
        return [self.running[number] for number, since in self._since.items()
                if now - since > self.limits.deadline + (0.0 if number in self._begun else START_SECONDS)]

    @property
    def short(self) -> bool:
        """Whether some workers will soon have nothing to do."""
        return sum(map(len, self._ready)) <= self.limits.workers

    def late(self, now: float) -> list[Task]:
        """Tasks past their time with chunks that nobody begins, the longest over first; none while enough is ready.

        For each the driver finds out which chunk is in work, and reports it as `TaskLate`.
        """
        if not self.short or self._cancel_at is not None:
            return []
        over = ((since + self.running[number].seconds, number) for number, since in self._since.items()
                if len(self.running[number].chunks) > 1 and number not in self._taken)
        return [self.running[number] for due, number in sorted(over) if due < now]

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
            self._resting.discard((stage, chunk))
            if self.status[stage][chunk] == WAITING and self._inputs_done(stage, chunk):
                self._release(stage, chunk)
        if self._cancel_at is not None:
            if not self.running or now - self._cancel_at >= CANCEL_SECONDS:
                self._stop("cancelled", None, commands)
            return commands
        self.more = False
        for stage in reversed(range(len(self._ready))):
            while not self.more and self._first(stage) is not None and self._room(stage):
                commands.append(Submit(self._task(stage)))
                self.more = len(commands) >= BURST
        while self._unsure and len(self._since) < self.limits.workers:  # the earliest must have found a worker
            number = self._unsure.popleft()
            if number in self.running:
                self._since.setdefault(number, now)
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

    def _first(self, stage: int) -> int | None:
        """The next ready chunk; those that lost an input since they became ready wait again."""
        ready, status = self._ready[stage], self.status[stage]
        while ready and (status[ready.first] != READY or (self._losses and not self._inputs_done(stage, ready.first))):
            chunk = ready.pop()
            if status[chunk] == READY:  # else a task that it was taken from has done it all the same
                status[chunk] = WAITING
        return ready.first if ready else None

    def _task(self, stage: int) -> Task:
        """The next run of ready chunks."""
        ready = self._ready[stage]
        size = min(self._paces[stage].size(len(ready), self.limits.workers), self._most[stage])
        chunks = [ready.pop()]
        if (stage, chunks[0]) not in self._alone:
            while len(chunks) < size and (more := self._first(stage)) is not None and (stage, more) not in self._alone:
                chunks.append(ready.pop())
        for chunk in chunks:
            self.status[stage][chunk] = RUNNING
        self._tasks += 1
        tries = (sum(self._attempts.get((stage, chunk), {}).values()) for chunk in chunks if self._attempts)
        seconds = self._paces[stage].limit(len(chunks), self.limits.workers)
        alone = (stage, chunks[0]) in self._alone
        task = Task(self._tasks, stage, tuple(chunks), 1 + max(tries, default=0), seconds, alone)
        self.running[task.number] = task
        self._unsure.append(task.number)
        self._live += self._task_bytes(stage)
        return task

    @property
    def wake_at(self) -> float | None:
        """When the next delayed chunk is due."""
        return self._delayed[0][0] if self._delayed else None
