"""A run in which all kernels that weren't told what to do about a cell that fails skip it: its graph, rewritten."""

from __future__ import annotations

from dataclasses import replace
from typing import NoReturn

from gridcompute.actions.dags import Propagate
from gridcompute.actions.gaps import IsNull
from gridcompute.actions.maps import Elementwise, Map
from gridcompute.actions.rows import Explode, Filter
from gridcompute.actions.shapes import Choose, Concat, Select, TakeAt
from gridcompute.actions.shuffles import Shuffle
from gridcompute.actions.stencils import Iterate, Stencil
from gridcompute.actions.writes import Write
from gridcompute.errors import UsageError
from gridcompute.op import Action, Graph, Op
from gridcompute.skipping import can_skip

Column = tuple[int, str]
"""An input's number and the name of one of its columns."""


def skipping(graph: Graph) -> Graph:
    """The graph with all kernels skipping cells that can, and that weren't told what to do.

    Raises:
        UsageError: an op behind one of them can't tell the nulls that it would then get.
    """
    made: dict[int, Op] = {}
    for op in graph.ops:
        made[id(op)] = _rebuilt(op, tuple(made[id(source)] for source in op.inputs))
    return Graph(tuple((name, made[id(op)]) for name, op in graph.outputs), graph.coords)


def _rebuilt(op: Op, inputs: tuple[Op, ...]) -> Op:
    """An op over rewritten inputs; itself where nothing changes."""
    action = _skipping(op.action)
    if action is op.action and inputs == op.inputs:
        return op
    gaps = {(i, f.name) for i, (source, before) in enumerate(zip(inputs, op.inputs, strict=True))
            for f, old in zip(source.fields, before.fields, strict=True) if f.nullable and not old.nullable}
    _require_told(op, gaps)
    if action.skips and not isinstance(action, Explode):
        names = {f.name for f in op.fields}
    else:
        names = _with_gaps(op, gaps)
    fields = tuple(replace(f, nullable=f.nullable or f.name in names) for f in op.fields)
    return replace(op, action=action, inputs=inputs, fields=fields)


def _skipping(action: Action) -> Action:
    if isinstance(action, Map):
        unsaid = not action.on_error and can_skip(action.kernel)
        return replace(action, on_error="skip") if unsaid else action
    if isinstance(action, Explode | Stencil):
        cells = _skipping(action.cells)
        return action if cells is action.cells else replace(action, cells=cells)  # type: ignore[arg-type]
    return action


def _require_told(op: Op, gaps: set[Column]) -> None:
    """Refuse a kernel that can't tell nulls which its columns had not before."""
    action = op.action
    several = action.several if isinstance(action, Propagate) else (getattr(action, "cells", action),)
    for cells in several:
        if not isinstance(cells, Map):
            continue
        for i, name in cells.columns:
            field = op.inputs[i].field(name)
            told = "valid" in cells.kernel.specials and not isinstance(action, Iterate)
            if (i, name) in gaps and (field.ragged or field.dtype.kind != "f") and not told:
                _refuse(op, op.inputs[i], name, str(field.kind if field.ragged else field.dtype))


def _refuse(op: Op, source: Op, name: str, held: str) -> NoReturn:
    raise UsageError(
        f"on_error='skip' for the whole run: column {name!r} ({held}) of {source} may then have nulls, which {op} "
        "can't tell", hint=f"fill or drop them before {op}, take a last argument `valid` there, or say on_error='stop' "
        f"at {source}")


def _with_gaps(op: Op, gaps: set[Column]) -> set[str]:
    """Columns that have nulls because these columns of its inputs have."""
    action = op.action
    if isinstance(action, Elementwise):
        return {op.fields[0].name} if gaps.intersection(o for o in action.operands if isinstance(o, tuple)) else set()
    if isinstance(action, Choose):
        return {new for new, place in action.names if place in gaps}
    if isinstance(action, Concat):
        return {name for _, name in gaps}
    first = {name for i, name in gaps if i == 0}
    if isinstance(action, Filter):
        return first - _dropped(op)
    if isinstance(action, Explode):
        return first & set(action.keep)
    # A group's keys are never null, and its reductions say themselves what they give.
    passes = isinstance(action, Select | TakeAt | Write) or type(action) is Shuffle
    return first if passes else set()


def _dropped(op: Op) -> set[str]:
    """Columns whose nulls a `dropna` drops."""
    if op.name != "dropna":
        return set()
    test = op.inputs[1].inputs[0]
    return {name for _, name in test.action.columns} if isinstance(test.action, IsNull) else set()
