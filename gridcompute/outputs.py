"""The outputs of a plan that are written: what each will hold, and what of them is there already."""

from __future__ import annotations

from gridcompute.actions.writes import Write
from gridcompute.keys import digest
from gridcompute.op import Op
from gridcompute.planning import Plan
from gridcompute.sinks.base import Output, Sink


def sink_of(op: Op) -> Sink:
    """The sink of an op that writes."""
    sink: Sink = op.action.sink  # type: ignore[attr-defined]
    return sink


def outputs_of(plan: Plan) -> dict[str, Output]:
    """What the ops of a final plan write, by recipe; no place is looked at yet.

    Raises:
        GridError: a format can't hold its columns.
    """
    coords, found = dict(plan.graph.coords), {}
    for name, op in plan.sinks if plan.final else ():
        number, root = plan.home[id(op)]
        extents = [axis.extent for _, axis in plan.stages[number].layouts[root].axes]
        assert isinstance(op.action, Write)
        # With the versions of the inputs and all labels: the same recipe over changed data is another dataset. So it
        # is in other chunks: their files would stand where these are to be, as one of a version that cuts otherwise.
        labels, lengths = coords.get(name, ()), op.space.shape
        chunks = op.action.grid(op) or [e if n is None else min(e, n) for e, n in zip(extents, lengths, strict=True)]
        recipe = digest((op.recipe, plan.token(op, op.whole), [c.key for c in labels], [f.attrs for f in op.fields],
                         chunks))
        found[op.recipe] = op.action.sink.output(op.space, op.fields, labels, extents, recipe)
    return found


def finished(op: Op, output: Output | None) -> bool:
    """Whether an op's output is there as a whole, whatever work store its records are in: nothing is left to do."""
    return isinstance(op.action, Write) and output is not None and output.complete
