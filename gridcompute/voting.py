"""The run's state machine where a chunk is computed more than once on purpose: second copies, checks, quorums.

A chunk whose ballot isn't settled is ready again, so whatever holds for ready chunks holds for it: its consumers wait,
an input that is lost is made again, a failure goes to the policy. What it reads stays until it counts, and so does
what is kept of it. When it counts, its ballot is closed and it may be deleted; one that is needed again after that is
computed and voted on anew: to compare it with what it was would need a digest of every chunk that is gone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from gridcompute.attempts import Chunk
from gridcompute.ballots import Ballots, Rule, Standing, Verdict
from gridcompute.drops import DONE, GONE, RUNNING, WAITING
from gridcompute.events import (
    Answer,
    Command,
    Event,
    Failure,
    Ruled,
    Submit,
    Task,
    TaskDone,
    TaskFailed,
    TaskSlow,
    Turn,
    Void,
    Vote,
)
from gridcompute.planview import Limits, PlanView
from gridcompute.retry import Policy
from gridcompute.state import RunState
from gridcompute.status import Status

LEAST_COPIES, SHARE = 2, 0.1
"""Second copies at most: so many, or this share of the chunks that are needed."""

START_SECONDS = 5.0
"""What a worker that wasn't seen at its task may need to start."""


class VotingState(RunState):
    """`RunState` with ballots and second copies.

    Args:
        plan, done, limits, policy, disposable: as `RunState`.
        rule: which chunks need more than one vote.
        standing: of workers and nodes, over the run's phases.

    Attributes:
        copies, won: second copies made, and those that were first.
        ballots: of this phase.
    """

    def __init__(self, plan: PlanView, done: Mapping[int, Iterable[int]], limits: Limits, policy: Policy,
                 rule: Rule | None = None, standing: Standing | None = None, *,
                 disposable: Collection[int] = ()) -> None:
        self.ballots = Ballots(rule or Rule(), standing or Standing(), [stage.chunks for stage in plan.stages])
        self.copies = self.won = 0
        self._twins: dict[int, int] = {}
        self._tainted: set[tuple[int, int]] = set()
        self._relied: set[Chunk] = set()  # that are made again, while what was computed from them counts
        self._compiling = [0.0] * len(plan.stages)
        super().__init__(plan, done, limits, policy, disposable=disposable)

    def told(self, status: Status) -> None:
        """Add the phase's figures to those of the run."""
        status.copies += self.copies
        status.won += self.won
        status.confirmed += self.ballots.confirmed
        status.same_process += self.ballots.same

    def apply(self, event: Event, now: float) -> list[Command]:
        """See `RunState`."""
        if not isinstance(event, TaskSlow):
            return super().apply(event, now)
        commands: list[Command] = []
        task = self.running.get(event.task)
        if self.outcome is None and task is not None and self._cancel_at is None:
            self._second(task, event, commands)
        return commands if self.outcome is not None else self._next(now, commands)

    # Second copies.

    def slow(self, now: float) -> list[Task]:
        """Tasks of which a second copy pays: somebody is idle, nothing is ready, and a fresh one would be done sooner.

        The driver reports each as `TaskSlow`, with what it has committed.
        """
        idle = self.limits.workers - len(self.running)
        left = max(LEAST_COPIES, int(SHARE * sum(self.needed))) - self.copies
        if self._cancel_at is not None or idle <= 0 or left <= 0 or any(map(len, self._ready)):
            return []
        over = sorted((due, number) for number, since in self._durations.begun()
                      if (due := since + self._patience(number)) < now)
        return [self.running[number] for _, number in over[: min(idle, left)]]

    def _patience(self, number: int) -> float:
        task = self.running[number]
        if number in self._twins or task.stage in self.ballots.rule.exempt or not self._sole(task.stage, task.chunks):
            return float("inf")
        start = START_SECONDS if number in self._durations.unseen else 0.0
        return self._paces[task.stage].slow(len(task.chunks)) + self._compiling[task.stage] + start

    def _second(self, task: Task, event: TaskSlow, commands: list[Command]) -> None:
        """Keep what is committed of a slow task, and have another do what is left as well."""
        self._hold(task.stage, event.kept)
        self._counted(task, sorted({item.chunk for item in event.kept}), event, commands)
        rest = tuple(chunk for chunk in task.chunks if self.status[task.stage][chunk] == RUNNING)
        if task.number in self._twins or not rest or not self._room(task.stage) or self.outcome is not None or not all(
                self._inputs_done(task.stage, chunk) for chunk in rest):
            return
        # What it was to check may be void by now: then the copy keeps what it gets.
        check = task.turn.check and all(self._turn(task.stage, chunk).check for chunk in rest)
        copy = self._begun(task.stage, rest, replace(task.turn, check=check, copy=True))
        self._twins[task.number], self._twins[copy.number] = copy.number, task.number
        self.copies += 1
        commands.append(Submit(copy))

    def _begun(self, stage: int, chunks: tuple[int, ...], turn: Turn) -> Task:
        """See `RunState`. What is lost is made again though a copy may have it in work: then these are twins too."""
        copies = [number for number in self._twins if number in self.running and self.running[number].stage == stage
                  and not set(chunks).isdisjoint(self.running[number].chunks)] if self._losses else []
        task = super()._begun(stage, chunks, turn)
        self._twins.update((task.number, number) for number in copies)
        return task

    def _sole(self, stage: int, chunks: Iterable[int]) -> list[int]:
        """See `RunState`."""
        found = super()._sole(stage, chunks)
        if not self._twins or not found:
            return found
        others = (self.running[number] for number in self._twins if number in self.running)
        busy = {chunk for task in others if task.stage == stage for chunk in task.chunks}
        return [chunk for chunk in found if chunk not in busy]

    # Votes.

    def _turn(self, stage: int, chunk: int) -> Turn:
        return self.ballots.turn(stage, chunk)

    def _done(self, event: TaskDone, commands: list[Command]) -> None:
        task = self.running.get(event.task)
        if task is not None:
            self._compiling[task.stage] = max(self._compiling[task.stage], event.compile_seconds)
            if task.turn.copy and any(self.status[task.stage][item.chunk] == RUNNING for item in event.kept):
                self.won += 1
        super()._done(event, commands)

    def _failed(self, event: TaskFailed, now: float, commands: list[Command]) -> None:
        task, failure = self.running.get(event.task), event.failure
        super()._failed(event, now, commands)
        # Of a chunk that another did meanwhile: what they got isn't the same.
        if task is not None and failure.kind == "divergence":
            self._stop("failed", failure, commands)

    def _counted(self, task: Task, chunks: Iterable[int], event: Answer, commands: list[Command]) -> None:
        if self.ballots.rule.plain:
            for chunk in chunks:
                self._keep(task.stage, chunk, commands)
            return
        found: dict[int, list[tuple[str, str]]] = {}
        for item in event.kept:
            found.setdefault(item.chunk, []).append((item.vote or item.digest, item.digest))
        status, barred = self.status[task.stage], self.ballots.standing.barred
        # What counted before comes last, and only while it does: of that the driver has told nothing that is a vote.
        known = {chunk for chunk in chunks if status[chunk] in (DONE, GONE)}
        for chunk in sorted(chunks, key=known.__contains__):
            if self.outcome is None and (chunk not in known or status[chunk] == DONE):
                own, there = ("/".join(each) for each in zip(*found.get(chunk, [("", "")]), strict=True))
                self._vote(task, chunk, Vote(event.worker, event.node, own, event.numerics), there, commands)
        # Not between two chunks: what the task tells of the second may be made of what is void from then on.
        if self.outcome is None and self.ballots.standing.barred != barred:
            commands.extend(Void(*chunk) for chunk in self.ballots.strike())
            self._distrust(self.ballots.unconfirmed(), commands)

    def _vote(self, task: Task, chunk: int, vote: Vote, there: str, commands: list[Command]) -> None:
        at, status = (task.stage, chunk), self.status[task.stage][chunk]
        void = (task.number, chunk) in self._tainted or self.ballots.standing.bars(vote.worker, vote.node)
        self._tainted.discard((task.number, chunk))
        if status == DONE:
            if not void and not task.turn.check and vote.digest != there:
                self._disputed(at, vote, there, commands)
            return
        if void:
            if not task.turn.check:
                commands.append(Void(*at))
                self.ballots.void(at)
            self._again(at)
            return
        self._ruled(at, *self.ballots.take(at, vote, there, check=task.turn.check), commands)

    def _disputed(self, at: Chunk, vote: Vote, there: str, commands: list[Command]) -> None:
        """A late result of a chunk that counts differs from it: a third one settles it, unless several agree on it."""
        if self.ballots.asks(at):
            need, most = self.ballots.rule.votes(*at)
            commands.append(Ruled(*at, (vote,), there, need, most))
            return
        ballot = self.ballots.reopened(at, vote, there)
        self._distrust([at], commands)
        self._ruled(at, *self.ballots.decide(at, ballot), commands)

    def _again(self, at: Chunk) -> None:
        """Another task computes a chunk, once its inputs are there; whoever else has it in work may vote too."""
        if self.status[at[0]][at[1]] == RUNNING:
            self.status[at[0]][at[1]] = WAITING
            if self._inputs_done(*at):
                self._release(*at)

    def _ruled(self, at: Chunk, verdict: Verdict, ruled: Ruled | None, commands: list[Command]) -> None:
        if ruled is not None:
            commands.append(ruled)
        if verdict == "split":
            self._stop("failed", Failure("divergence", "its results differ", at[1]), commands)
            return
        if verdict == "keep":
            self._keep(*at, commands)
        else:
            if verdict == "void":
                commands.append(Void(*at))
            self._again(at)

    def _lose(self, stage: int, chunk: int) -> None:
        """See `RunState`."""
        if self.status[stage][chunk] in (DONE, GONE) and not self.ballots.rule.plain:
            self._relied.add((stage, chunk))
            self.ballots.lost((stage, chunk))
        super()._lose(stage, chunk)

    def _distrust(self, chunks: Iterable[Chunk], commands: list[Command]) -> None:
        """Chunks are computed again, and whatever was computed from them; so is what is being computed from them."""
        over, seen = list(chunks), set[Chunk]()
        while over:
            if (at := over.pop()) in seen:
                continue
            seen.add(at)
            stage, chunk = at
            status = self.status[stage][chunk]
            if self.ballots.clear(at):
                commands.append(Void(*at))
            self._tainted.update((number, chunk) for number, task in self.running.items() if task.stage == stage
                                 and (chunk in task.chunks or chunk in self._taken.get(number, ())))
            if status == DONE:
                commands.append(Void(*at))
                self._lose(*at)
            # What is gone stays so until something that is computed again reads it.
            if status in (DONE, GONE) or at in self._relied:
                self._relied.discard(at)
                over.extend(self.plan.consumers(*at))
