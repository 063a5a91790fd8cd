"""What is said where a chunk gave different results: who computed it, where it lies, who was outvoted."""

from __future__ import annotations

from dataclasses import replace

from gridcompute.ballots import Rule
from gridcompute.errors import DivergenceError
from gridcompute.events import Ruled, Vote
from gridcompute.journal import Journal
from gridcompute.located import chunk_of
from gridcompute.planning import Plan
from gridcompute.status import Status

SHOWN = 12
"""Digits of a digest or a node's name that a message shows."""


def rule_of(wanted: Rule, plan: Plan) -> Rule:
    """The rule for a plan's stages; what one task carries on all of a run's cores isn't computed twice."""
    exempt = frozenset(stage.number for stage in plan.stages if any(op.action.spans for op in stage.roots))
    return replace(wanted, seeds=tuple(stage.recipe for stage in plan.stages), exempt=exempt)


def verdict(ruled: Ruled, plan: Plan) -> str:
    """A ruling in words: op, chunk, cells, who got what, who was outvoted and who is quarantined."""
    stage = plan.stages[ruled.stage]
    ranges = chunk_of(stage.roots[0].space, stage.layouts[0].region(ruled.chunk))
    where = f"stage {stage.name}, chunk {ruled.chunk}" + (f" ({ranges})" if ranges else "")
    told = "; ".join(f"{_who(vote)} got {_short(vote.digest)}" for vote in ruled.votes)
    if not ruled.winner:
        return f"no {ruled.need} of at most {ruled.most} results agree for {where}: {told}"
    out = [vote for vote in ruled.votes if vote.digest != ruled.winner]
    text = f"outvoted in {where}: {' and '.join(dict.fromkeys(map(_who, out)))} ({told})"
    if len(ruled.votes) == 1:
        text += f"; {ruled.need} had agreed on {_short(ruled.winner)}"
    if ruled.barred:
        text += f"; quarantined: {', '.join(_named(who) for who in ruled.barred)}"
    return text


def split(ruled: Ruled, plan: Plan) -> DivergenceError:
    """The error of a chunk of which no result can win."""
    if len({vote.numerics for vote in ruled.votes if vote.numerics}) > 1:
        hint = ("the workers are of different numerics classes, whose last bits may differ: give verify_tolerance=, "
                "or use machines of one class")
    elif len({vote.digest for vote in ruled.votes}) == len(ruled.votes) > 2:
        hint = ("every result differs: the kernel reads something that isn't in its recipe (a clock, the environment, "
                "unseeded randomness, a race)")
    else:
        hint = "memory, a processor or a library is broken somewhere; check the machines named, then run again"
    return DivergenceError(verdict(ruled, plan), hint=hint)


def noted(ruled: Ruled, plan: Plan, status: Status, journal: Journal) -> DivergenceError | None:
    """Take note of a ruling; the error that ends the run where no result can win."""
    said = verdict(ruled, plan)
    journal.append("divergence", stage=ruled.stage, chunk=ruled.chunk, winner=ruled.winner, message=said[:2000],
                   votes=[[vote.worker, vote.node, vote.digest] for vote in ruled.votes], barred=list(ruled.barred))
    status.divergences.append(said)
    lost = dict.fromkeys(_who(vote) for vote in ruled.votes if ruled.winner and vote.digest != ruled.winner)
    status.outvoted += [who for who in lost if who not in status.outvoted]
    status.quarantined += ruled.barred
    return None if ruled.winner else split(ruled, plan)


def _who(vote: Vote) -> str:
    if not vote.worker:
        return "somebody before"
    return vote.worker + (f" on node {_named(vote.node)}" if vote.node else "")


def _named(who: str) -> str:
    return who if ":" in who or "." in who else who[:SHOWN]


def _short(digests: str) -> str:
    return "/".join(one[:SHOWN] or "nothing" for one in digests.split("/"))
