"""Shards of earlier phases that were deleted, and that chunks of this phase would read after all."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from gridcompute.actions.loads import Load
from gridcompute.drops import READY, WAITING
from gridcompute.op import Op
from gridcompute.planning import Plan
from gridcompute.spaces import Region
from gridcompute.state import RunState
from gridcompute.stored import StoredSource


def missed(plan: Plan, state: RunState, absent: Collection[str]) -> Iterator[str]:
    """Names of absent shards that chunks which are to be computed read.

    Args:
        plan: of the phase.
        state: at its start.
        absent: names of all shards of which only the counts are known.
    """
    for stage in plan.stages if absent else ():
        if not state.left[stage.number] or not any(_stored(op) for root in stage.roots
                                                   for op in (root, *plan.leaves(root))):
            continue
        for chunk, status in enumerate(state.status[stage.number]):
            for root, layout in zip(stage.roots, stage.layouts, strict=True) if status in (WAITING, READY) else ():
                for source, region in _reads(plan, root, layout.region(chunk)):
                    yield from (place for place in source.places(region) if place in absent)


def _stored(op: Op) -> StoredSource | None:
    action = op.action
    return action.source if isinstance(action, Load) and isinstance(action.source, StoredSource) else None


def _reads(plan: Plan, op: Op, region: Region) -> Iterator[tuple[StoredSource, Region]]:
    """Regions of stored results that a region of a kept op is computed from."""
    seen: set[tuple[int, Region]] = set()
    stack = [(op, region)]
    while stack:
        step, part = stack.pop()
        if (id(step), part) in seen:
            continue
        seen.add((id(step), part))
        if (source := _stored(step)) is not None:
            yield source, part
        stack.extend((before, read) for i, before in enumerate(step.inputs) if id(before) not in plan.home
                     for read in step.reads(i, part))
