"""The run as a pure state machine: events in, commands out. No clock, no I/O, no Ray (law 7).

A chunk is released when its own inputs are kept, deepest stage first; tasks are runs of ready chunks, sized from
the time that chunks of their stage have taken; failures go to the policy.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from gridcompute.attempts import Attempts
from gridcompute.drops import DONE, GONE, IDLE, READY, RUNNING, WAITING, Drops
from gridcompute.durations import Durations
from gridcompute.errors import RunError
from gridcompute.events import (
    Answer,
    CancelAsked,
    Command,
    Drop,
    Event,
    Failure,
    Finish,
    Kept,
    Kill,
    Submit,
    Task,
    TaskDone,
    TaskFailed,
    TaskLate,
    Turn,
)
from gridcompute.pacing import BURST, MOST, MOST_BYTES, Pace
from gridcompute.planview import Limits, PlanView
from gridcompute.ready import Ready
from gridcompute.retry import Policy
from gridcompute.sizes import Sizes

_PLAIN = Turn()

CANCEL_SECONDS = 5.0
"""Grace that running tasks get after a cancel."""


class RunState:
    """One phase of a run.

    Args:
        plan: stages and their dependencies.
        done: chunks that are kept already, by stage.
        limits: workers, memory, deadline.
        policy: what is done about failures.
        disposable: committed stages whose chunks are dropped once nothing needs them.
    """

    def __init__(self, plan: PlanView, done: Mapping[int, Iterable[int]], limits: Limits, policy: Policy, *,
                 disposable: Collection[int] = ()) -> None:
        self.plan, self.limits = plan, limits
        self.status = [bytearray(stage.chunks) for stage in plan.stages]
        self.left = [0] * len(plan.stages)
        self.kept = [0] * len(plan.stages)
        self.needed = [0] * len(plan.stages)
        self.running: dict[int, Task] = {}
        self.retries = 0
        self.more = False
        self.outcome: Finish | None = None
        self._ready = [Ready() for _ in plan.stages]
        self._durations, self._attempts = Durations(), Attempts(policy)
        self._sizes = Sizes(plan, {})
        self._taken: dict[int, tuple[int, ...]] = {}
        self._held: dict[tuple[int, int], int] = {}
        self._losses = False
        self._paces = [Pace() for _ in plan.stages]
        self._live = 0
        self._tasks = 0
        self._cancel_at: float | None = None
        # Asked for each chunk, and always the same: the consumers of a stage, and which of them need all of it; how
        # many chunks its tasks may have.
        self._waits = [{after: plan.barrier(after, stage) for after in range(stage + 1, len(plan.stages))
                        if stage in plan.producers[after]} for stage in range(len(plan.stages))]
        self._most = [max(1, MOST_BYTES // stage.block_bytes) if stage.block_bytes else MOST for stage in plan.stages]
        self._drops = Drops(plan, self.status, self.left, self._waits, disposable)
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
        if self._attempts.rests((stage, chunk)):
            return
        self.status[stage][chunk] = READY
        self._ready[stage].push(chunk)

    def start(self, now: float, partly: Iterable[tuple[int, int]] = ()) -> list[Command]:
        """The first commands; the limits are known by now. Something of the chunks `partly` is there, but not all."""
        self._sizes = Sizes(self.plan, self.limits.parts, self.limits.share)
        return self._next(now, [Drop(*one) for one in self._drops.found(partly)])

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
            self._durations.ended(number)
            self._live -= self._sizes.ended(task)
        return task

    def _done(self, event: TaskDone, commands: list[Command]) -> None:
        taken = self._taken.pop(event.task, ())
        task = self._ended(event.task)
        if task is None:
            return
        done = len(task.chunks) + len(taken) - len(event.left)
        self._sizes.measured(task, event.own_bytes)
        self._paces[task.stage].took(event.seconds - event.compile_seconds, done)
        self._hold(task.stage, event.kept)
        if event.left == task.chunks:  # it has come further: how often it failed before counts no more
            self._attempts.forget(task.stage, event.left)
        left = set(event.left)
        self._counted(task, [chunk for chunk in (*task.chunks, *taken) if chunk not in left], event, commands)
        self._give_back(task.stage, [chunk for chunk in task.chunks if chunk in left])

    def _counted(self, task: Task, chunks: Iterable[int], event: Answer, commands: list[Command]) -> None:
        """These chunks were computed; `gridcompute.voting` asks whether that is enough."""
        for chunk in chunks:
            self._keep(task.stage, chunk, commands)

    def _turn(self, stage: int, chunk: int) -> Turn:
        """How a ready chunk is computed; chunks of one task agree in it."""
        return _PLAIN

    def _sole(self, stage: int, chunks: Iterable[int]) -> list[int]:
        """Those in work that no other task has too."""
        return [chunk for chunk in chunks if self.status[stage][chunk] == RUNNING]

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
        for chunk in self._sole(stage, chunks):
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
        self._attempts.kept += 1
        waits = self._waits[stage]
        for consumer, after in self.plan.consumers(stage, chunk) if waits and not all(waits.values()) else ():
            if not waits[consumer] and self.status[consumer][after] == WAITING and self._inputs_done(consumer, after):
                self._release(consumer, after)
        if self.left[stage] == 0:
            for consumer in (c for c, barrier in waits.items() if barrier):
                for after, status in enumerate(self.status[consumer]):
                    if status == WAITING and self._inputs_done(consumer, after):
                        self._release(consumer, after)
        for one in self._drops.after(stage, chunk, again=self._losses):
            self._let_go(*one)
            commands.append(Drop(*one))

    def _failed(self, event: TaskFailed, now: float, commands: list[Command]) -> None:
        self._taken.pop(event.task, None)
        task = self._ended(event.task)
        if task is None:
            return
        if event.failure.kind == "hang":
            commands.append(Kill(event.task))
        self._hold(task.stage, event.kept)
        self._counted(task, sorted({item.chunk for item in event.kept}), event, commands)
        rest = self._sole(task.stage, task.chunks)
        failure = event.failure
        blamed = [failure.chunk] if failure.chunk in rest else rest
        for chunk in blamed:
            if failure.kind == "out_of_memory" and not self._sizes.exceeded(task, chunk, failure):
                self._stop("failed", failure, commands)
                return
            self._retry(task.stage, chunk, event, now, commands)
        self._give_back(task.stage, rest)

    def _retry(self, stage: int, chunk: int, event: TaskFailed, now: float, commands: list[Command]) -> None:
        failure = event.failure
        decision = self._attempts.failed((stage, chunk), failure, now, event.seconds)
        self.status[stage][chunk] = WAITING
        if decision.action == "stop":
            self._stop("failed", failure, commands)
            return
        self.retries += 1
        if decision.action == "recompute":
            assert failure.lost is not None
            self._lose(*failure.lost)
        if decision.delay <= 0 and self._inputs_done(stage, chunk):
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
            self._durations.began(task, now)

    @property
    def unseen(self) -> list[int]:
        """Tasks that no worker was seen at."""
        return self._durations.unseen

    def overdue(self, now: float) -> list[Task]:
        """Tasks past their deadline: the driver reports each as failed, of kind "hang", with what it knows of it."""
        return [self.running[number] for number in self._durations.over(now, self.limits.deadline)]

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
        over = ((since + self.running[number].seconds, number) for number, since in self._durations.begun()
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
        for stage, chunk in self._attempts.rested(now):
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
        self._durations.assume(self.limits.workers, now)
        if not any(self.left):
            commands.extend(Kill(number) for number in self.running)  # of what others have done by now
            self.outcome = Finish("done")
            commands.append(self.outcome)
        elif not self.running and self._attempts.wake_at is None:
            raise RunError("the run is stuck: chunks are left, but none can be released")
        return commands

    def _room(self, stage: int) -> bool:
        if not self.running:
            return True
        fits = self._live + self._sizes.load(stage) <= self.limits.live_bytes
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
        alone, turn = self._attempts.alone, self._turn(stage, chunks[0])
        while len(chunks) < size and not alone((stage, chunks[-1])):
            if (more := self._first(stage)) is None or alone((stage, more)) or self._turn(stage, more) != turn:
                break
            chunks.append(ready.pop())
        for chunk in chunks:
            self.status[stage][chunk] = RUNNING
        return self._begun(stage, tuple(chunks), turn)

    def _begun(self, stage: int, chunks: tuple[int, ...], turn: Turn) -> Task:
        self._tasks += 1
        seconds = self._paces[stage].limit(len(chunks), self.limits.workers)
        attempt, parts = 1 + self._attempts.of(stage, chunks), self._sizes.parts(stage)
        alone = self._attempts.alone((stage, chunks[0]))
        task = Task(self._tasks, stage, chunks, attempt, seconds, parts, alone, turn)
        self.running[task.number] = task
        self._durations.submitted(task.number)
        self._live += self._sizes.begun(task)
        return task

    @property
    def wake_at(self) -> float | None:
        """When the next delayed chunk is due."""
        return self._attempts.wake_at
