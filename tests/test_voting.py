"""Chunks that are computed more than once: the state machine with ballots against a model of what workers got."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule
from test_state import ChunkId, FakePlan, FakeStage, RunMachine, chain, random_plan, tasks

from gridcompute.ballots import LOST, Ballot, Ballots, Rule, Standing
from gridcompute.drops import DONE, GONE, RUNNING
from gridcompute.events import (
    Command,
    Drop,
    Event,
    Failure,
    Finish,
    Kept,
    Kill,
    Ruled,
    Submit,
    Task,
    TaskDone,
    TaskFailed,
    TaskSlow,
    Tick,
    Void,
    Vote,
)
from gridcompute.planview import Limits
from gridcompute.retry import Policy
from gridcompute.state import CANCEL_SECONDS, RunState
from gridcompute.testing.simulated import Cluster, FlatPlan, simulate
from gridcompute.voting import VotingState

RULES = (Rule(quorum=(2, 3)), Rule(verify=1.0), Rule(verify=0.4), Rule(quorum=(3, 5)))
WORKERS = {"w0": "A", "w1": "A", "w2": "B", "w3": "C", "liar": "L"}
"""Nodes by worker."""


class CopyingMachine(RunMachine):
    """The plain machine, with second copies."""

    state: VotingState

    def made(self, draw: random.Random | None = None) -> RunState:
        self.over_with: set[tuple[int, int]] = set()
        return VotingState(self.plan, self.found, self.limits, Policy(), disposable=self.disposable)

    def submitted(self, task: Task) -> None:
        if not task.turn.copy:
            super().submitted(task)
            return
        assert self.cancelled is None
        same = [one for one in self.running.values() if one.stage == task.stage and set(task.chunks) <= set(one.chunks)]
        assert len(same) == 1, "a copy of a task that runs, and only one"
        assert not self.state._ready or not any(map(len, self.state._ready))
        assert all(one in self.kept for chunk in task.chunks for one in self.plan.inputs(task.stage, chunk))
        self.running[task.number] = task
        assert len(self.running) <= self.limits.workers * self.limits.queue

    def send(self, event: Event) -> None:
        self.over_with |= {(t.number, c) for t in self.running.values() for c in t.chunks
                           if self.state.status[t.stage][c] in (DONE, GONE)}
        super().send(event)

    def busy(self) -> set[ChunkId]:
        """What another has done may be lost, and is made again though a task has it in work still."""
        return {(t.stage, c) for t in self.running.values() for c in t.chunks if (t.number, c) not in self.over_with}

    def lost_by(self, task: Task) -> list[int]:
        return [chunk for chunk in super().lost_by(task) if not any(
            chunk in other.chunks for other in self.running.values()
            if other.stage == task.stage and other.number in self.state._twins)]

    def take(self, commands: list[Command]) -> None:
        # What nobody waits for any more may still read a held block: it is let go by the driver, not by the store.
        busy = {(t.stage, c) for t in self.running.values() for c in t.chunks
                if self.state.status[t.stage][c] == RUNNING}
        for command in commands:
            if isinstance(command, Drop):
                assert not busy & set(self.plan.feeds.get((command.stage, command.chunk), ()))
                self.held.discard((command.stage, command.chunk))
                self.kept.discard((command.stage, command.chunk))
                self.partly.discard((command.stage, command.chunk))
                self.dropped((command.stage, command.chunk))
        super().take([command for command in commands if not isinstance(command, Drop)])
        self.commands[-1] = commands

    def dropped(self, one: ChunkId) -> None:
        """What is let go is deleted."""

    @rule(data=st.data())
    @precondition(lambda self: self.finish is None and bool(self.state.slow(math.inf)))
    def slow(self, data: st.DataObject) -> None:
        task = data.draw(st.sampled_from(self.state.slow(math.inf)))
        self.second(task, data.draw(st.integers(0, len(task.chunks) - 1)))

    def second(self, task: Task, count: int) -> None:
        done = () if self.plan.stages[task.stage].held else task.chunks[:count]
        self.send(TaskSlow(task.number, self.keep(task, done)))


TestCopyingMachine = CopyingMachine.TestCase
TestCopyingMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


class VotingMachine(CopyingMachine):
    """Workers of which one lies at times; values follow from what was read, so a lie goes on to whatever is made of it.

    What is kept at the end must be the truth, wherever a majority or a quarantine could find it out.
    """

    @initialize(seed=st.integers(0, 2**32), workers=st.integers(1, 3), cap=st.sampled_from((4, 9, 2**62)),
                before=st.floats(0, 0.5), rules=st.sampled_from(RULES), lies=st.sampled_from((0.0, 0.3, 1.0)))
    def begin_voting(self, seed: int, workers: int, cap: int, before: float, rules: Rule, lies: float) -> None:
        plan = random_plan(random.Random(seed))
        self.rules = Rule(rules.verify, rules.quorum, [str(s) for s in range(len(plan.stages))])
        self.lies, self.draw = lies, random.Random(seed)
        self.store: dict[ChunkId, str] = {}
        self.read: dict[tuple[int, int], str] = {}
        self.votes: dict[ChunkId, list[str]] = {}
        self.rulings: list[Ruled] = []
        self.at: dict[int, str] = {}
        super().begin(seed, workers, cap, before, 1)

    def begin(self, **given: object) -> None:  # type: ignore[override]
        """Instead of the plain machine's."""

    def made(self, draw: random.Random | None = None) -> RunState:
        for stage, chunks in self.found.items():
            for chunk in chunks:
                self.store[stage, chunk] = self.truth((stage, chunk))
        return VotingState(self.plan, self.found, self.limits, Policy(), self.rules, Standing(),
                           disposable=self.disposable)

    def truth(self, at: ChunkId) -> str:
        return f"{at[0]}.{at[1]}({','.join(self.truth(one) for one in self.plan.inputs(*at))})"

    def submitted(self, task: Task) -> None:
        assert self.cancelled is None
        for chunk in task.chunks:
            assert (task.stage, chunk) not in self.kept, "submitted though it counts"
            read = []
            for one in self.plan.inputs(task.stage, chunk):
                assert one in self.kept, f"submitted before its input {one} counts"
                read.append(self.store[one])
            self.read[task.number, chunk] = f"{task.stage}.{chunk}({','.join(read)})"
            if task.turn.check:
                assert (task.stage, chunk) in self.store, "a check of what isn't there"
        # Whom a task should avoid, it avoids; the machine only asks.
        others = [name for name in WORKERS if name not in (*task.turn.barred, *task.turn.avoid)
                  and WORKERS[name] not in task.turn.barred] or ["w0"]
        self.at[task.number] = self.draw.choice(others)
        self.running[task.number] = task

    def dropped(self, one: ChunkId) -> None:
        assert self.plan.stages[one[0]].held or one[0] in self.disposable, "let go of what stays"
        assert one not in self.state.ballots._open, "deleted though it is voted on"
        self.store.pop(one, None)

    def take(self, commands: list[Command]) -> None:
        for command in commands:
            if isinstance(command, Void):
                at = (command.stage, command.chunk)
                self.store.pop(at, None)
                self.kept.discard(at)
                self.held.discard(at)
            elif isinstance(command, Ruled):
                self.rulings.append(command)
        super().take([command for command in commands if not isinstance(command, Void | Ruled)])
        self.commands[-1] = commands

    def keep(self, task: Task, chunks: tuple[int, ...]) -> tuple[Kept, ...]:
        kept, worker = [], self.at[task.number]
        for chunk in chunks:
            at, status = (task.stage, chunk), self.state.status[task.stage][chunk]
            own = self.read[task.number, chunk]
            if worker == "liar" and self.draw.random() < self.lies:
                own = f"lie {len(self.history)} instead of {own}"
            if task.turn.check:
                if status not in (DONE, GONE):
                    self.votes.setdefault(at, []).append(own)
                    kept.append(Kept(*at[:1], 0, chunk, "", own, 1, 0))
                continue
            there = self.store.get(at, own) if status != GONE else own
            if status in (DONE, GONE):
                if there != own and status == DONE:
                    kept.append(Kept(task.stage, 0, chunk, "", there, 1, 0, vote=own))
                continue
            if self.plan.stages[task.stage].held:
                there = own
                self.held.add(at)
            self.store[at] = there
            self.votes.setdefault(at, []).append(own)
            kept.append(Kept(task.stage, 0, chunk, "", there, 1, self.nbytes, vote=own if own != there else ""))
        return tuple(kept)

    def second(self, task: Task, count: int) -> None:
        self.send(TaskSlow(task.number))

    def send(self, event: Event) -> None:
        if isinstance(event, TaskDone | TaskFailed):
            worker = self.at.get(event.task, "")
            event = replace(event, worker=worker, node=WORKERS.get(worker, ""))
        self.history.append((event, self.now))
        commands = self.state.apply(event, self.now)
        voided = {(c.stage, c.chunk) for c in commands if isinstance(c, Void)}
        for stage, status in enumerate(self.state.status):
            for chunk, one in enumerate(status):
                if one == DONE and (stage, chunk) not in self.kept:
                    assert (stage, chunk) not in voided, "void, but counts"
                    self.counts((stage, chunk))
                    self.kept.add((stage, chunk))
        self.take(commands)

    def counts(self, at: ChunkId) -> None:
        need = self.rules.votes(*at)[0]
        assert self.votes[at].count(self.store[at]) >= need, "counts without its votes"

    @rule(data=st.data())
    @precondition(RunMachine.live)
    def failed(self, data: st.DataObject) -> None:  # type: ignore[override]
        """What it had committed it doesn't tell: the next attempt finds it."""
        task, chunks = self.pick(data)
        count = data.draw(st.integers(0, len(chunks) - 1))
        kept = self.keep(task, chunks[:count])
        told = data.draw(st.booleans()) or self.plan.stages[task.stage].held
        self.send(TaskFailed(task.number, Failure("transient", "it failed", -1), kept if told else ()))

    def input_lost(self, **given: object) -> None:  # type: ignore[override]
        """The plain machine plays this."""

    def late(self, **given: object) -> None:  # type: ignore[override]
        """The plain machine plays this."""

    def bounded(self) -> None:
        """The plain machine plays this."""

    def teardown(self) -> None:
        if not hasattr(self, "store"):
            return
        for _ in range(5000):
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
        assert not self.running or self.finish.outcome != "done"
        standing = self.state.ballots.standing
        assert set(standing.barred) <= {"liar", "L"}, "somebody honest was quarantined"
        if self.finish.outcome == "done":
            goals = [(s, c) for s in self.plan.goals for c in range(self.plan.stages[s].chunks)]
            assert all(at in self.kept for at in goals)
            if standing.barred or self.rules.quorum or self.rules.verify == 1.0:
                assert all(self.store[at] == self.truth(at) for at in goals), "a lie is kept"
        elif self.finish.outcome == "failed":
            assert self.finish.failure is not None
            attempts = Policy().attempts["transient"]
            failed = sum(isinstance(event, TaskFailed) for event, _ in self.history)
            assert failed >= attempts or self.lies, "failed without a reason"


TestVotingMachine = VotingMachine.TestCase
TestVotingMachine.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)


def voting(plan: FakePlan, rules: Rule, workers: int = 1, standing: Standing | None = None) -> VotingState:
    rules = Rule(rules.verify, rules.quorum, [str(s) for s in range(len(plan.stages))], rules.exempt)
    return VotingState(plan, {}, Limits(workers, queue=1), Policy(), rules, standing)


def answer(task: Task, digest: str, worker: str = "w0", node: str = "A", numerics: str = "") -> TaskDone:
    kept = tuple(Kept(task.stage, 0, chunk, "", digest, 1, 0) for chunk in task.chunks)
    return TaskDone(task.number, kept, 0.01, worker, node=node, numerics=numerics)


def test_a_check_comes_before_the_consumers() -> None:
    state = voting(chain(1, 1), Rule(verify=1.0))
    first, = tasks(state.start(0.0))
    assert first.turn.voted
    assert not first.turn.check
    check, = tasks(state.apply(answer(first, "d"), 0.0))
    assert (check.stage, check.turn.check, check.turn.number, check.turn.avoid) == (0, True, 1, ("A", "w0"))
    then, = tasks(state.apply(answer(check, "d", "w1"), 0.0))
    assert then.stage == 1
    assert (state.ballots.confirmed, state.ballots.same) == (1, 0)


def test_a_divergence_is_settled_by_a_third_vote() -> None:
    state = voting(chain(1), Rule(verify=1.0))
    first, = tasks(state.start(0.0))
    second, = tasks(state.apply(answer(first, "right"), 0.0))
    third, = tasks(state.apply(answer(second, "wrong", "w1", "B"), 0.0))
    assert (third.turn.check, third.turn.number) == (True, 2)
    ruled, end = state.apply(answer(third, "right", "w2", "C"), 0.0)
    assert isinstance(ruled, Ruled)
    assert (ruled.winner, len(ruled.votes), ruled.barred) == ("right", 3, ())
    assert end == Finish("done")


def test_an_outvoted_result_is_void_and_the_winners_is_kept() -> None:
    state = voting(chain(1), Rule(quorum=(2, 3)))
    first, = tasks(state.start(0.0))
    second, = tasks(state.apply(answer(first, "wrong"), 0.0))
    third, = tasks(state.apply(answer(second, "right", "w1", "B"), 0.0))
    ruled, void, submit = state.apply(answer(third, "right", "w2", "C"), 0.0)
    assert isinstance(ruled, Ruled)
    assert void == Void(0, 0)
    assert isinstance(submit, Submit)
    assert not submit.task.turn.check
    assert state.apply(answer(submit.task, "right", "w1", "B"), 0.0)[-1] == Finish("done")


def test_results_that_all_differ_end_the_run() -> None:
    state = voting(chain(1), Rule(quorum=(3, 5)))
    commands = state.start(0.0)
    for number in range(3):
        task, = tasks(commands)
        commands = state.apply(answer(task, f"d{number}", f"w{number}"), 0.0)
    task, = tasks(commands)  # two more votes could still agree with one of the three
    ruled, end = state.apply(answer(task, "d3", "w3"), 0.0)
    assert isinstance(ruled, Ruled)
    assert (ruled.winner, ruled.need, ruled.most, len(ruled.votes)) == ("", 3, 5, 4)
    assert isinstance(end, Finish)
    assert end.failure is not None
    assert (end.outcome, end.failure.kind, end.failure.chunk) == ("failed", "divergence", 0)


def test_who_loses_votes_is_quarantined_and_what_it_did_alone_is_done_again() -> None:
    plan = FakePlan([FakeStage(40), FakeStage(1)], {(1, 0): [(0, chunk) for chunk in range(40)]}, (1,))
    state = voting(plan, Rule(verify=0.2))
    checked = [chunk for chunk in range(40) if state.ballots.asks((0, chunk))]
    assert 2 < len(checked) < 20
    commands, by_liar, again = state.start(0.0), set(), set()
    barred = False
    for _ in range(300):
        if isinstance(commands[-1], Finish):
            break
        task, = tasks(commands)
        barred = bool(state.ballots.standing.barred)
        if task.stage == 0 and not task.turn.check and not task.turn.number and not barred:
            by_liar.update(task.chunks)
            commands = state.apply(answer(task, "wrong", "liar", "L"), 0.0)
        else:
            assert not barred or task.turn.barred == ("L",)
            again.update(task.chunks if task.stage == 0 and not task.turn.check else ())
            commands = state.apply(answer(task, "right", f"w{task.turn.number % 2}", "AB"[task.turn.number % 2]), 0.0)
    assert commands[-1] == Finish("done")
    assert state.ballots.standing.barred == ("L",)
    assert by_liar <= again
    assert state.kept == [40, 1]


def test_what_was_made_of_it_is_done_again_too() -> None:
    standing = Standing()
    state = voting(chain(3, 3), Rule(verify=1e-9), standing=standing)
    assert [state.ballots.asks((0, chunk)) for chunk in range(3)] == [False, False, False]
    first, = tasks(state.start(0.0))
    then, = tasks(state.apply(answer(first, "wrong", "liar", "L"), 0.0))
    assert then.stage == 1
    standing.barred = ("L",)
    commands: list[Command] = []
    state._distrust(state.ballots.unconfirmed(), commands)
    assert commands == [Void(0, first.chunks[0])]
    # What is made of it now is no result either.
    commands = state.apply(answer(then, "made of wrong", "w1", "A"), 0.0)
    assert Void(1, then.chunks[0]) in commands
    made, = tasks(commands)
    assert (made.stage, made.chunks) == (0, first.chunks)


def test_nobody_is_blamed_by_his_own_kind() -> None:
    standing = Standing()
    for _ in range(LOST):
        assert standing.lose(Vote("w", "A", "1", "x"), [Vote("w", "A", "2", "x")] * 2) == ""
        assert standing.lose(Vote("w", "A", "1", "x"), [Vote("v", "B", "2", "y")] * 2) == ""
        assert standing.lose(Vote("", "", "1", "x"), [Vote("v", "B", "2", "x")] * 2) == ""
    assert standing.barred == ()
    assert [standing.lose(Vote("w", "A", "1"), [Vote("v", "A", "2")] * 2) for _ in range(LOST)] == ["", "w"]


def test_a_late_other_result_reopens_what_one_vote_decided() -> None:
    state = voting(chain(40, 40), Rule(verify=1e-9), workers=1)
    task, = tasks(state.start(0.0))
    first, = task.chunks
    task, = tasks(state.apply(answer(task, "right"), 0.0))
    copy = state._begun(0, (first,), state.ballots.turn(0, first))
    other = TaskDone(copy.number, (Kept(0, 0, first, "", "right", 1, 0, vote="wrong"),), 0.01, "w1", node="B")
    commands = state.apply(other, 0.0)
    assert Void(0, first) in commands
    assert state.ballots.asks((0, first))


def test_the_sample_follows_from_the_recipe_alone() -> None:
    one, other = Rule(0.1, seeds=["a" * 32]), Rule(0.1, seeds=["b" * 32])
    sample = [chunk for chunk in range(5000) if one.votes(0, chunk) == (2, 3)]
    assert 400 < len(sample) < 600
    assert sample == [chunk for chunk in range(5000) if Rule(0.1, seeds=["a" * 32]).votes(0, chunk) == (2, 3)]
    assert sample != [chunk for chunk in range(5000) if other.votes(0, chunk) == (2, 3)]
    assert all(Rule(1.0, seeds=["a"]).votes(0, chunk) == (2, 3) for chunk in range(500))
    assert Rule(1.0, seeds=["a"], exempt=frozenset({0})).votes(0, 3) == (1, 1)


def copied(workers: int = 3) -> tuple[VotingState, Task]:
    """One chunk in work that takes longer than others did, and workers that are idle."""
    state = VotingState(chain(6), {}, Limits(workers, queue=1), Policy())
    commands = state.start(0.0)
    for _ in range(5):
        number = max(state.running)
        state.began(number, 0.0)
        commands = state.apply(TaskDone(number, (), 1.0), 1.0)
    del commands
    last, = state.running.values()
    state.began(last.number, 1.0)
    return state, last


def test_what_is_lost_while_a_copy_has_it_is_made_once_more_and_not_twice() -> None:
    state = VotingState(chain(1, 1), {}, Limits(3, queue=1), Policy())
    first, = tasks(state.start(0.0))
    copy, = tasks(state.apply(TaskSlow(first.number), 0.0))
    then, = tasks(state.apply(TaskDone(first.number, ()), 0.0))
    again, = tasks(state.apply(TaskFailed(then.number, Failure("corrupt_shard", "", 0, lost=(0, 0))), 0.0))
    assert (copy.stage, copy.chunks) == (again.stage, again.chunks) == (0, (0,))
    # Each leaves it to the other, and is neither blamed nor copied.
    assert state.slow(math.inf) == []
    assert state.apply(TaskFailed(copy.number, Failure("transient", "", 0)), 0.0) == []
    assert state.retries == 1
    last, = tasks(state.apply(TaskDone(again.number, ()), 0.0))
    assert last.stage == 1


def test_a_second_copy_where_it_pays() -> None:
    state, last = copied()
    assert state.slow(3.9) == []
    assert state.slow(4.1) == [last]
    copy, = tasks(state.apply(TaskSlow(last.number), 4.1))
    assert (copy.chunks, copy.turn.copy, copy.turn.check) == (last.chunks, True, False)
    assert state.slow(1e9) == []
    # The other isn't waited for, and what becomes of it changes nothing.
    commands = state.apply(TaskDone(copy.number, (Kept(0, 0, last.chunks[0], "", "", 1, 0),), 1.0), 5.0)
    assert commands == [Kill(last.number), Finish("done")]
    assert (state.copies, state.won) == (1, 1)


def test_no_copy_while_others_are_busy_or_of_what_cannot_be_copied() -> None:
    state, _ = copied(workers=1)
    assert state.slow(1e9) == []
    state, _ = copied()
    state.ballots.rule = Rule(exempt=frozenset({0}))
    assert state.slow(1e9) == []
    state = VotingState(chain(2), {}, Limits(4, queue=1), Policy())
    state.start(0.0)
    assert state.slow(1e9) == []  # nobody knows what is usual


def test_a_copy_that_is_lost_leaves_its_chunk_to_the_other() -> None:
    state, last = copied()
    copy, = tasks(state.apply(TaskSlow(last.number), 4.1))
    assert state.apply(TaskFailed(copy.number, Failure("lost_worker", "gone")), 4.2) == []
    assert state.apply(TaskDone(last.number, ()), 9.0) == [Finish("done")]
    state, last = copied()
    copy, = tasks(state.apply(TaskSlow(last.number), 4.1))
    assert state.apply(TaskFailed(last.number, Failure("lost_worker", "gone")), 4.2) == []
    assert state.apply(TaskDone(copy.number, ()), 9.0) == [Finish("done")]
    state, last = copied()
    copy, = tasks(state.apply(TaskSlow(last.number), 4.1))
    state.apply(TaskFailed(last.number, Failure("lost_worker", "gone")), 4.2)
    again, = tasks(state.apply(TaskFailed(copy.number, Failure("lost_worker", "gone")), 4.3))
    assert again.chunks == last.chunks


def test_a_copy_that_got_something_else_stops_the_run() -> None:
    state = VotingState(chain(1, 1), {}, Limits(3, queue=1), Policy())
    first, = tasks(state.start(0.0))
    copy, = tasks(state.apply(TaskSlow(first.number), 1.0))
    then, = tasks(state.apply(TaskDone(first.number, (), 1.0), 2.0))
    failure = Failure("divergence", "two results", 0)
    assert state.apply(TaskFailed(copy.number, failure), 3.0) == [Kill(then.number), Finish("failed", failure)]


def test_ballots_count_several_roots_as_one() -> None:
    state = voting(chain(1), Rule(quorum=(2, 2)))
    first, = tasks(state.start(0.0))
    kept = [tuple(Kept(0, root, 0, "", digest, 1, 0) for root, digest in enumerate(pair)) for pair in ("ab", "ac")]
    check, = tasks(state.apply(TaskDone(first.number, kept[0], worker="w0"), 0.0))
    commands = state.apply(TaskDone(check.number, kept[1], worker="w1"), 0.0)
    assert isinstance(commands[-1], Finish)
    assert commands[-1].outcome == "failed"


@pytest.mark.parametrize("need", [2, 3])
def test_what_the_majority_got_must_be_got_again(need: int) -> None:
    ballots = Ballots(Rule(quorum=(need, need + 1), seeds=["s"]), Standing(), [1])
    verdicts = [ballots.take((0, 0), Vote("w", "A", "first"), "first", check=False)[0]]
    verdicts += [ballots.take((0, 0), Vote(f"v{i}", "B", "most"), "", check=True)[0] for i in range(need)]
    assert verdicts[-1] == "void"
    for i in range(20):
        verdict, _ = ballots.take((0, 0), Vote(f"x{i}", "C", f"other{i}"), f"other{i}", check=False)
        if verdict == "split":
            break
    assert verdict == "split"
    assert i < need + 1


@pytest.mark.parametrize("workers", [4, 16, 100])
def test_a_worker_that_is_slow_is_not_waited_for(workers: int) -> None:
    """Simulated, in virtual time; and where nobody is slow, copies cost nothing."""
    costs = [10.0 * random.Random(chunk).uniform(0.5, 1.5) for chunk in range(5 * workers)]
    found = {}
    for slow in (True, False):
        cluster = Cluster(workers, slow=lambda worker, slow=slow: 10.0 if slow and not worker else 1.0)  # type: ignore[misc]
        for copies in (True, False):
            end = simulate(FlatPlan(len(costs)), lambda _, chunk: costs[chunk], cluster, copies=copies)
            assert set(end.done.values()) == {1}
            assert len(end.done) == len(costs)
            found[slow, copies] = end
    assert found[True, True].won >= 1
    assert found[True, True].makespan < 0.8 * found[True, False].makespan
    assert found[False, True].makespan <= 1.001 * found[False, False].makespan
    assert found[False, False].copies == 0


def test_what_is_in_work_at_a_barred_worker_does_not_count() -> None:
    standing = Standing()
    state = voting(chain(2), Rule(verify=1e-9), workers=2, standing=standing)
    first, second = tasks(state.start(0.0))
    standing.barred = ("L",)
    void, again = state.apply(answer(first, "wrong", "liar", "L"), 0.0)
    assert void == Void(0, first.chunks[0])
    assert isinstance(again, Submit)
    assert (again.task.chunks, again.task.turn.barred) == (first.chunks, ("L",))
    failed = TaskFailed(second.number, Failure("transient", "it failed"), answer(second, "wrong").kept, worker="liar",
                        node="L")
    commands = state.apply(failed, 0.0)
    assert Void(0, second.chunks[0]) in commands
    assert state.kept == [0]


def test_what_is_there_already_is_a_vote_of_nobody() -> None:
    ballots = Ballots(Rule(verify=1e-9, seeds=["s"]), Standing(), [1])
    verdict, ruled = ballots.take((0, 0), Vote("w", "A", "mine"), "there", check=False)
    assert (verdict, ruled) == ("again", None)
    assert ballots.turn(0, 0).check
    verdict, ruled = ballots.take((0, 0), Vote("v", "B", "there"), "", check=True)
    assert verdict == "keep"
    assert ruled is not None
    assert (ruled.winner, [vote.worker for vote in ruled.votes]) == ("there", ["", "w", "v"])


def test_a_copy_of_a_check_keeps_what_it_gets_where_that_is_void() -> None:
    state = voting(chain(1), Rule(quorum=(3, 5)), workers=3)
    first, = tasks(state.start(0.0))
    check, = tasks(state.apply(answer(first, "wrong", "liar", "L"), 0.0))
    assert check.turn.check
    state.ballots.standing.barred = ("L",)
    assert state.ballots.strike() == [(0, 0)]
    copy, = tasks(state.apply(TaskSlow(check.number), 1.0))
    assert (copy.turn.copy, copy.turn.check) == (True, False)


def test_what_was_made_of_a_chunk_that_is_made_again_is_found_too() -> None:
    """It was deleted, is needed again, and only then somebody finds out who had made it."""
    plan = FakePlan([FakeStage(1), FakeStage(2), FakeStage(1)],
                    {(1, 0): [(0, 0)], (1, 1): [(0, 0)], (2, 0): [(1, 0), (1, 1)]}, (2,))
    standing, seeds = Standing(), [str(s) for s in range(3)]
    state = VotingState(plan, {}, Limits(1, queue=1), Policy(), Rule(verify=1e-9, seeds=seeds), standing,
                        disposable={0})
    first, = tasks(state.start(0.0))
    commands = state.apply(answer(first, "wrong", "liar", "L"), 0.0)
    while state.left[1]:
        then, = tasks(commands)
        commands = state.apply(answer(then, "made of wrong"), 0.0)
    assert Drop(0, 0) in commands
    last, = tasks(commands)
    lost = Failure("corrupt_shard", "gone", 0, lost=(1, 0))
    again, = tasks(state.apply(TaskFailed(last.number, lost), 0.0))
    assert (again.stage, state.status[0][0], state.status[1][1]) == (0, RUNNING, DONE)
    standing.barred = ("L",)
    commands = []
    state._distrust(state.ballots.unconfirmed(), commands)
    assert Void(1, 1) in commands
    assert state.left[:2] == [1, 2]


def test_who_is_quarantined_loses_no_more() -> None:
    standing = Standing()
    for _ in range(LOST + 3):
        standing.lose(Vote("w", "A", "1"), [Vote("v", "B", "2")] * 2)
    assert standing.barred == ("A",)


def test_what_the_same_event_undoes_does_not_count() -> None:
    """A task tells of two chunks: by the first somebody is found out, the second is made of what he did alone."""
    state = voting(chain(2, 2), Rule(verify=1e-9), workers=2)
    commands = state.start(0.0)
    for task in tasks(commands):
        commands = state.apply(answer(task, "wrong", "liar", "L"), 0.0)
    assert state.left == [0, 2]
    state.ballots.standing.lose(Vote("liar", "L", "x"), [Vote("w1", "A", "y")])
    state.ballots._open[1, 0] = Ballot(2, 3, [Vote("liar", "L", "x"), Vote("w1", "A", "y")])
    both = state._begun(1, (0, 1), state.ballots.turn(1, 1))
    commands = state.apply(answer(both, "y", "w0", "B"), 0.0)
    assert state.ballots.standing.barred == ("L",)
    assert state.left == [2, 2]
    assert {Void(1, 0), Void(1, 1), Void(0, 0), Void(0, 1)} <= set(commands)
