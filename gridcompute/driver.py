"""The thin driver: owns the clock, the executor, the journal and the store; the state machine decides.

A run goes through phases: while a graph has ops whose cells must be counted first, a phase carries out just those;
the last one gives the outputs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TypeVar

from gridcompute.absent import missed
from gridcompute.ballots import Rule, Standing
from gridcompute.bounds import most_needed, planned_parts, remember
from gridcompute.deliveries import Deliveries
from gridcompute.drops import DONE, GONE
from gridcompute.errors import CorruptShardError, GridError, InterruptedRunError, KernelError, RunError, StoreError
from gridcompute.events import (
    CancelAsked,
    Command,
    Drop,
    Event,
    Finish,
    Kept,
    Kill,
    Ruled,
    Submit,
    TaskDone,
    TaskFailed,
    TaskLate,
    TaskSlow,
    Tick,
    Void,
)
from gridcompute.executor import Executor
from gridcompute.footprint import WORKER_BYTES
from gridcompute.intermediates import Intermediates, recipes_of
from gridcompute.journal import Journal
from gridcompute.ledger import Ledger
from gridcompute.leftovers import clear
from gridcompute.looks import LOOK_SECONDS, look
from gridcompute.losses import SILENT, named
from gridcompute.op import Graph
from gridcompute.orders import Payload
from gridcompute.outlasting import outlast
from gridcompute.planning import Plan
from gridcompute.planview import UNBOUNDED, Limits
from gridcompute.progressword import Board
from gridcompute.retry import Policy
from gridcompute.skips import Tally, place_of
from gridcompute.sources.base import Source
from gridcompute.status import Status, Watch
from gridcompute.store import Store
from gridcompute.stored import StoredSource
from gridcompute.verdicts import noted, rule_of
from gridcompute.voting import VotingState

POLL_SECONDS = 0.5

REPLANS = 4
"""Times that one result of an earlier phase may turn out broken before the run stops."""

T = TypeVar("T")


class _AbsentError(Exception):
    """Shards of an earlier phase are needed of which only the counts were kept."""

    def __init__(self, names: set[str]) -> None:
        super().__init__(f"{len(names)} shards")
        self.names = names


class Driver:
    """Carries out a graph.

    Args:
        graph: what is asked for.
        store: the work store.
        executor: who carries out tasks.
        journal: history.
        run: name of the run.
        limits: memory, deadline (workers come from the executor).
        memory: bytes that a worker may take, 0 for no bound.
        overwrite: names of outputs that replace what lies there.
        rule: which chunks are computed more than once to compare them.
        clock: seconds, for deadlines and delays; by default the executor's own, where it has one, else real time.
        watch: called after each event.
        keep_intermediates: delete no committed shards.
        verify_outputs: hash what is found of outputs.
    """

    def __init__(
        self,
        graph: Graph,
        store: Store,
        executor: Executor,
        journal: Journal,
        *,
        run: str = "",
        memory: int = 0,
        deadline: float = 3600.0,
        overwrite: frozenset[str] = frozenset(),
        policy: Policy | None = None,
        rule: Rule | None = None,
        clock: Callable[[], float] | None = None,
        watch: Watch | None = None,
        keep_intermediates: bool = False,
        verify_outputs: bool = False,
    ) -> None:
        self.graph, self.store, self.executor, self.journal, self.watch = graph, store, executor, journal, watch
        self.run_name, self.memory, self.deadline = run, memory, deadline
        self.policy, self.rule, self._standing = policy or Policy(), rule or Rule(), Standing()
        self.clock = getattr(executor, "clock", time.monotonic) if clock is None else clock
        self.status, self.tally, self.sleep = Status(), Tally(), getattr(executor, "sleep", time.sleep)
        self.cancelled, self.results = threading.Event(), dict[str, StoredSource]()
        self._intermediates = Intermediates(store, self.status, keep=keep_intermediates)
        self._delivered, self._verify = False, verify_outputs
        self._split: GridError | None = None
        self._absent: set[str] = set()
        self._wanted: set[str] = set()
        self._board = Board(journal.path.parent)
        self._parts: dict[str, int] = {}
        # Where Ray can't be reached, what can't be replaced stays.
        self._deliveries = Deliveries(run, overwrite, self._again, reach=lambda: executor.begin([]),
                                      drawn=self.rule.drawn)

    def run(self) -> Mapping[str, StoredSource]:
        """All phases, to the end.

        Returns:
            The kept chunks of each output that isn't written by a sink.

        Raises:
            GridError: of the tree in `gridcompute.errors`; InterruptedRunError where the run was cancelled.
        """
        self.status.started = time.time()
        try:
            broken: list[str] = []
            first = True
            while True:
                try:
                    self._phases(first=first)
                    break
                except _AbsentError as error:
                    # A result of an earlier phase was deleted, its counts weren't: it is made again after all.
                    first, self._wanted = False, self._wanted | error.names
                except CorruptShardError as error:
                    first = False
                    # A result of an earlier phase doesn't verify: it is void by now, so going through the phases
                    # again makes it anew, and finds the rest.
                    broken.append(error.path)
                    if not error.path or broken.count(error.path) == REPLANS:
                        raise
                    self.status.failures.append(error.message)
                    self.journal.append("again", message=error.message[:2000])
        finally:
            clear(self.executor, self._board, self.store, self._deliveries.outputs)
            self._board.close()
            self._intermediates.close(wait=self._delivered)
            self.status.ended = time.time()
            self._watched()
        return self.results

    def _phases(self, *, first: bool) -> None:
        counted: dict[str, Source] = {}
        self.status.phase, self._absent = 0, set()
        self._intermediates.again()
        while True:
            plan = Plan(self.graph, counted)
            self.status.phase += 1
            ledger = self._phase(plan, first=first)
            if plan.final:
                break
            self._intermediates.counted(ledger)
            for op in plan.lowered.pending:
                counted[op.recipe] = self._again(partial(ledger.stored, op))
        self.results.update(self._deliveries.deliver(plan, ledger, self.journal))
        self._again(self._intermediates.finish)
        self._delivered = True
        self.journal.append("done", computed=self.status.computed, reused=self.status.reused)

    def _phase(self, plan: Plan, *, first: bool) -> Ledger:
        parts = {stage: one.number for stage, one in planned_parts(plan, self.memory).items()}  # refused here (law 4)
        self._parts = {plan.stages[stage].recipe: number for stage, number in parts.items()}
        try:
            ledger, state = self._readied(plan, parts, first=first)
            workers = self.executor.workers if self.executor.widens else 1  # how many, is known by now
            worst = most_needed(plan, self.memory, self.executor.threads, parts, workers=workers)
            self.status.bound_bytes = max(self.status.bound_bytes, worst)
        except BaseException:
            self._deliveries.leave()
            raise
        try:
            self._loop(state, ledger, plan)
        except KernelError:
            self._deliveries.leave(plan.stages[task.stage] for task in state.running.values())
            raise
        finally:
            state.told(self.status)
        self.journal.append("phase-done", number=self.status.phase)
        return ledger

    def _readied(self, plan: Plan, parts: Mapping[int, int], *, first: bool) -> tuple[Ledger, VotingState]:
        """All that comes before the first task, the executor's start included."""
        self._deliveries.prepare(plan)
        going = self._again(partial(self._intermediates.begin, plan))
        ledger = Ledger(plan, self.store, self._deliveries.outputs, self._wanted, self.tally,
                        verify=self._verify)
        found = self._again(ledger.find)
        self._absent |= ledger.absent
        self._intermediates.found(ledger)
        self._has_room(plan, found)
        if first:
            self.status.reused += ledger.reused
        stages = {stage.number: stage.name for stage in plan.stages}
        self.journal.append("phase", number=self.status.phase, stages=stages, reused=ledger.reused,
                            chunks={stage.number: stage.chunks for stage in plan.stages},
                            found={number: len(chunks) for number, chunks in found.items()},
                            recipes={stage.number: [name for op in stage.roots for name in recipes_of(op)]
                                     for stage in plan.stages},
                            bytes={stage.number: stage.task_bytes for stage in plan.stages})
        state = VotingState(plan, found, Limits(), self.policy, rule_of(self.rule, plan), self._standing,
                            disposable=going)
        if wanted := set(missed(plan, state, self._absent)):
            raise _AbsentError(wanted)
        self._counts(plan, state)
        self._watched()
        if any(state.left):
            # Only now: refusals and finished work needn't wait for Ray to start.
            threads, outputs = self.executor.threads, self._deliveries.outputs
            self.executor.begin([Payload.of(plan, stage, self.store, outputs, threads, memory=self.memory,
                                            deadline=self.deadline) for stage in plan.stages])
            live = max(1, self.memory - WORKER_BYTES) * self.executor.workers if self.memory else UNBOUNDED
            state.limits = Limits(self.executor.workers, self.executor.queue, live, self.deadline, parts)
            if self.cancelled.is_set():
                raise self._interrupted()
        return ledger, state

    def _loop(self, state: VotingState, ledger: Ledger, plan: Plan) -> None:
        commands, looked = state.start(self.clock(), ledger.partly), self.clock()
        while True:
            finish = self._carry_out(commands, state, ledger)
            if finish is not None:
                return self._finished(finish)
            events: list[Event] = list(self.executor.poll(self._patience(state)))
            if not events or self.clock() >= looked + LOOK_SECONDS:  # thousands of tasks may run
                looked = self.clock()
                events += self._again(lambda: list(look(state, self._board, ledger, self.clock)))
            if self.cancelled.is_set():
                events.append(CancelAsked())
            commands = [command for event in [*events, Tick()]
                        for command in state.apply(self._noted(event, state, ledger), self.clock())]
            self.status.retries = state.retries
            if events:
                self._counts(plan, state)
                self._watched()

    def _patience(self, state: VotingState) -> float:
        if state.more:
            return 0.0
        due = state.wake_at
        return POLL_SECONDS if due is None else min(POLL_SECONDS, max(0.0, due - self.clock()))

    def _carry_out(self, commands: list[Command], state: VotingState, ledger: Ledger) -> Finish | None:
        finish = None
        for command in commands:
            if isinstance(command, Submit):
                if command.task.number in state.running:
                    order = ledger.order(command.task)
                    self.executor.submit(replace(order, word=self._board.take(command.task.number)))
            elif isinstance(command, Kill):
                self.executor.kill(command.task)
                self._board.free(command.task, reuse=False)
            elif isinstance(command, Drop):
                self._intermediates.dropped(ledger.drop(command.stage, command.chunk))
            elif isinstance(command, Void):
                self._again(partial(ledger.void, command.stage, command.chunk, "outvoted, or of somebody who was"))
            elif isinstance(command, Ruled):
                self._split = noted(command, ledger.plan, self.status, self.journal) or self._split
            else:
                finish = command
        return finish

    def _noted(self, event: Event, state: VotingState, ledger: Ledger) -> Event:
        """Ledger, journal and figures, before the state machine decides; the event with what is known here of it."""
        if isinstance(event, TaskLate | Tick | CancelAsked):
            return event
        task = state.running.get(event.task)
        if task is None:
            return event
        stage = ledger.plan.stages[task.stage]
        if isinstance(event, TaskFailed) and event.failure.kind in SILENT:
            self._board.died = True
            kept = event.kept or self._again(partial(ledger.committed, task))
            most = ledger.plan.most_parts(task.stage, task.chunks[0])
            event = named(event, task, stage, self._board.read(task.number), kept, memory=self.memory, most=most)
        if isinstance(event, TaskSlow):
            news = self._news(event.kept, state, ledger)
            if news:
                self.journal.append("kept", task=event.task, stage=task.stage, seconds=0.0, worker="",
                                    early=True, chunks=sorted({item.chunk for item in news}))
            return replace(event, kept=news)
        if not (isinstance(event, TaskFailed) and event.failure.kind == "hang"):
            self._board.free(task.number)
        if not task.turn.check:
            event = replace(event, kept=self._news(event.kept, state, ledger))
        self.status.tasks += 1
        self.status.task_seconds += event.seconds
        skipped = {"skipped": self.tally.count} if self.tally.count else {}
        self.journal.append("checked" if task.turn.check else "kept", task=event.task, stage=task.stage,
                            chunks=sorted({item.chunk for item in event.kept}), seconds=round(event.seconds, 6),
                            worker=event.worker, **skipped,
                            **({"bytes": event.own_bytes, "parts": task.parts} if isinstance(event, TaskDone) else {}))
        if isinstance(event, TaskDone):
            self.status.measured(f"{stage.number + 1} {stage.name}", event.own_bytes, task.parts)
            if task.parts > self._parts.get(stage.recipe, 1):
                self._parts[stage.recipe] = task.parts
                remember(stage.recipe, task.parts, self.memory)
            self.status.compile_seconds += event.compile_seconds
            self.status.compiled += event.compiled
            self.status.peak_bytes = max(self.status.peak_bytes, event.peak_bytes)
        elif isinstance(event, TaskFailed):
            failure = event.failure
            self.status.failures.append(failure.message)
            self.journal.append("failed", task=event.task, stage=task.stage, failure=failure.kind, chunk=failure.chunk,
                                cell=failure.cell, lost=failure.lost, message=failure.message[:2000],
                                **place_of(failure.error))
        return event

    def _news(self, found: tuple[Kept, ...], state: VotingState, ledger: Ledger) -> tuple[Kept, ...]:
        """Of what a task kept that which the state machine is to hear of, once it is in the ledger."""
        # What was taken from a late task, and which it did all the same, may be kept by now.
        news = [item for item in found if state.status[item.stage][item.chunk] not in (DONE, GONE)]
        self.status.doubled += len({item.chunk for item in found} - {item.chunk for item in news})
        self._intermediates.strays(item for item in found if state.status[item.stage][item.chunk] == GONE)
        ledger.add(news)
        self._intermediates.added(news)
        for item in news:
            self.status.rows += max(0, item.rows)
            self.status.nbytes += item.nbytes
        complete = {item.chunk for item in news if not ledger.missing(item.stage, item.chunk)}
        self.status.computed += len(complete)
        return tuple(item for item in found if item.chunk in complete or item.vote)

    def _finished(self, finish: Finish) -> None:
        if finish.outcome == "done":
            return
        if finish.outcome == "cancelled":
            raise self._interrupted()
        failure = finish.failure
        assert failure is not None
        if self._split is not None and failure.kind == "divergence":
            failure = replace(failure, message=self._split.message, error=self._split)
        error = failure.error if isinstance(failure.error, GridError) else RunError(failure.message)
        self.journal.append("stopped", failure=failure.kind, message=failure.message[:2000])
        raise error

    def _interrupted(self) -> InterruptedRunError:
        self.journal.append("cancelled")
        return InterruptedRunError("the run was interrupted; what was committed stays", hint="run it again to go on")

    def _counts(self, plan: Plan, state: VotingState) -> None:
        self.status.skipped = self.tally.count
        names = [f"{stage.number + 1} {stage.name}" for stage in plan.stages]
        self.status.done = dict(zip(names, state.kept, strict=True))
        self.status.total = dict(zip(names, state.needed, strict=True))

    def _watched(self) -> None:
        if self.watch is not None:
            self.watch(self.status)

    def _has_room(self, plan: Plan, found: Mapping[int, list[int]]) -> None:
        """Refuse what won't fit on the work store's disk even at a quarter of its uncompressed size."""
        free, need, outputs = self.store.free_bytes(), 0, self._deliveries.outputs
        for stage in plan.stages:
            sized = not stage.held and stage.chunks and all(op.recipe not in outputs for op in stage.roots)
            if sized:
                left = stage.chunks - len(found.get(stage.number, ()))
                need += self._intermediates.least_bytes(plan, stage) * left // stage.chunks
        if free is not None and free < need / 4:
            raise StoreError(
                f"the work store {self.store.url} has room for {free / 2**20:,.0f} MiB, but the plan keeps "
                f"{need / 2**20:,.0f} MiB (uncompressed) there",
                hint="make room, or choose another work store with store=",
            )

    def _again(self, step: Callable[[], T]) -> T:
        """A step of the driver itself, tried again while its failure is one that passes."""
        return outlast(step, self.policy, self.sleep)
