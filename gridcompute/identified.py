"""Ops that give the same values become one, so that whatever asks for them shares a pass; sources that only look the
same get recipes of their own.

A recipe leaves out what data is read from (files that are joined, the contents of arrays), since versions of data are
counted region by region. Within a graph that isn't enough: two archives of one form have one recipe.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from gridcompute.actions.loads import Ingest, Load
from gridcompute.actions.writes import Write
from gridcompute.op import Op


def identified(outputs: Sequence[Op]) -> list[Op]:
    """The same outputs over a graph in which equal ops are one op, and ops of equal recipes read the same data.

    An archive that was opened twice is one source. Of different sources with one recipe the second, third ... are
    numbered, in the order of the graph.
    """
    sources: dict[str, list[Any]] = {}
    known: dict[object, Op] = {}
    made: dict[Op, Op] = {}
    for output in outputs:
        for op in output.walk(made.__contains__):
            if op in made:
                continue
            one = _numbered(op, sources) if isinstance(op.action, Load | Ingest) else _over(op, made)
            # Outputs stay apart: each has a place of its own.
            key = one if isinstance(one.action, Write) else (
                one.recipe, one.fields, one.space, tuple(id(source) for source in one.inputs))
            made[op] = known.setdefault(key, one)
    return [made[output] for output in outputs]


def _over(op: Op, made: dict[Op, Op]) -> Op:
    inputs = tuple(made[source] for source in op.inputs)
    if all(new is old for new, old in zip(inputs, op.inputs, strict=True)):
        return op
    return replace(op, inputs=inputs)


def _numbered(op: Op, sources: dict[str, list[Any]]) -> Op:
    """A source's op; with its number, where others have the same recipe."""
    assert isinstance(op.action, Load | Ingest)
    alike, source = sources.setdefault(op.recipe, []), op.action.source
    number = next((i for i, other in enumerate(alike) if _same(source, other)), len(alike))
    if number == len(alike):
        alike.append(source)
    return replace(op, action=replace(op.action, twin=number)) if number else op


def _same(one: Any, other: Any) -> bool:
    """Whether two sources of one key read the same data."""
    if one is other:
        return True
    if type(one) is not type(other) or getattr(one, "options", None) != getattr(other, "options", None):
        return False
    if hasattr(one, "sources"):
        return len(one.sources) == len(other.sources) and all(map(_same, one.sources, other.sources))
    if hasattr(one, "parts") and not hasattr(one, "space"):
        return bool(one == other)
    places = [getattr(source, "path", getattr(source, "url", None)) for source in (one, other)]
    if places[0] is not None:
        return bool(places[0] == places[1] and one.key == other.key)
    return bool(one.space == other.space and one.objects(one.space.whole()) == other.objects(other.space.whole()))
