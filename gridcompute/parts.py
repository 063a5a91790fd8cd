"""A chunk computed piece by piece and put together: less memory at once, the same bits (law 1).

Ops are computed over any region of their space (that is how they are fused), so a piece of a chunk is a region like any
other. A reduction takes its boxes in pieces, each in its place of the order. What can't be taken apart: an op whose
values depend on where a chunk ends (a batch kernel, a task), one over the whole space (`iterate`, `propagate`), one
that makes rows (a filter, a sort), a dimension that a kernel gives whole, and a single cell.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence

from gridcompute.actions.folds import Fold, Merge
from gridcompute.actions.writes import Write
from gridcompute.assemble import assemble
from gridcompute.axes import Axis, Layout
from gridcompute.columns import Block
from gridcompute.op import Op
from gridcompute.spaces import Region

MOST_PARTS = 256
"""Of a chunk."""

Leaf = Callable[[Op], bool]
"""Whether an op's results are kept: it isn't computed with those that read it."""


def free_dims(op: Op, leaf: Leaf) -> frozenset[str]:
    """Dimensions along which pieces of an op's region may be computed one by one; of a fold also one of its input."""
    action = op.action
    cells = getattr(action, "cells", action)
    if action.spans or action.makes_rows or cells.aligned or any(n is None for n in op.space.shape):
        return frozenset()
    if isinstance(action, Fold):
        source, reduced = op.inputs[0], action.reduce.dims
        if not source.space.known:
            return frozenset()
        # As tiles: along the slowest reduced dimension positions are in order, along a further one they alternate.
        cut = (set(source.field(action.reduce.column).dims) - set(reduced)) | {reduced[0]}
        return frozenset(cut) - (frozenset() if leaf(source) else _whole(source, leaf))
    if isinstance(action, Merge):
        return frozenset(action.kept)
    if isinstance(action, Write):
        return frozenset() if leaf(op.inputs[0]) else free_dims(op.inputs[0], leaf)
    dims = frozenset(op.space.names) - _whole(op, leaf)
    return dims & {op.space.names[0]} if any(f.ragged for f in op.fields) and op.space.names else dims


def _whole(op: Op, leaf: Leaf) -> frozenset[str]:
    """Dimensions that an op, or one fused into it, gives only whole."""
    found: frozenset[str] = frozenset()
    for step in op.walk(lambda one: one is not op and leaf(one)):
        if step is op or not leaf(step):
            found |= step.action.whole
        if isinstance(step.action, Fold) and step is not op and not leaf(step):
            found |= set(step.space.names) - set(step.action.kept)
    return found


def most_parts(op: Op, region: Region, leaf: Leaf) -> int:
    """Into how many parts a region may be taken at most; 1 where it can't be taken apart."""
    if isinstance(op.action, Write):
        return most_parts(op.inputs[0], op.reads(0, region)[0], leaf) if free_dims(op, leaf) else 1
    free = free_dims(op, leaf)
    found = math.prod(n for name, n in zip(op.space.names, region.shape, strict=True) if name in free)
    if isinstance(op.action, Fold):
        found *= _rows(op, op.action, region) if op.action.reduce.dims[0] in free else 1
    return max(1, min(MOST_PARTS, found))


def _rows(op: Op, fold: Fold, region: Region) -> int:
    """Positions along the slowest reduced dimension of a fold's largest box."""
    place = op.inputs[0].space.names.index(fold.reduce.dims[0])
    return max((box.shape[place] for box in op.reads(0, region)), default=1)


def extents(names: Sequence[str], shape: Sequence[int], free: Collection[str], parts: int) -> tuple[int, ...]:
    """Extents of pieces, at least so many where that can be: the longest are halved first.

    >>> extents(("time", "lat"), (100, 8), {"time", "lat"}, 3)
    (25, 8)
    """
    found = list(shape)
    while math.prod(-(-n // max(e, 1)) for n, e in zip(shape, found, strict=True)) < parts:
        longest = max((i for i, name in enumerate(names) if name in free), key=lambda i: found[i], default=-1)
        if longest < 0 or found[longest] <= 1:
            break
        found[longest] = -(-found[longest] // 2)
    return tuple(found)


def in_parts(op: Op, region: Region, parts: int, leaf: Leaf, compute: Callable[[Region], Block]) -> Block:
    """An op's block over a region, `parts` pieces one after the other; joined in memory of its own.

    Args:
        op: any; where a fold's region has fewer cells its boxes come in pieces too (`tile`).
        region: of the op.
        parts: pieces.
        leaf: whose results are kept.
        compute: the op's block over any region.
    """
    if (cut := pieces(op, region, parts, leaf)) is None:
        return compute(region)
    return assemble(op.fields, cut, region, lambda piece: compute(cut.region(piece)))


def pieces(op: Op, region: Region, parts: int, leaf: Leaf, free: Collection[str] | None = None) -> Layout | None:
    """A cut of an op's region into `parts` pieces at least, where that can be; None where it can't be taken apart.

    Args:
        op: any.
        region: of the op.
        parts: pieces.
        leaf: whose results are kept.
        free: dimensions that may be cut; None: as many as the op allows.
    """
    dims = free_dims(op, leaf) & set(op.space.names if free is None else free) if parts > 1 and region.cells else ()
    if not dims:
        return None
    lengths = extents(op.space.names, region.shape, dims, parts)
    # Boundaries of the region are boundaries of parts, so no piece reaches over one.
    axes = {name: Axis((lo, hi - lo, length - hi), extent=max(extent, 1)) for name, (lo, hi), (_, length), extent in
            zip(op.space.names, region.bounds, op.whole.bounds, lengths, strict=True)}
    return Layout.of(axes)


def together(wanted: Sequence[tuple[Op, Region]], parts: int, leaf: Leaf) -> list[Layout] | None:
    """Cuts of several ops' regions along the same dimensions, into as many pieces: piece by piece they belong together.

    None where all of them can't be taken into so many pieces in the same way.
    """
    free = frozenset.intersection(*(free_dims(op, leaf) & set(op.space.names) for op, _ in wanted))
    cuts = [pieces(op, region, parts, leaf, free) for op, region in wanted]
    shapes = {tuple((name, cut[name].parts, cut[name].extent) for name in cut.space.names if name in free)
              for cut in cuts if cut is not None}
    most = min(len(list(cut.covering(region))) if cut else 1 for cut, (_, region) in zip(cuts, wanted, strict=True))
    return [cut for cut in cuts if cut] if len(shapes) == 1 and None not in cuts and most >= parts else None


def tile(op: Op, fold: Fold, whole: Region, part: Region, parts: int, leaf: Leaf) -> tuple[int, ...]:
    """Extents of the pieces of a fold's boxes for a part of its chunk, 0 for all; see `gridcompute.tiles.bands`."""
    names, first = op.inputs[0].space.names, fold.reduce.dims[0]
    if first not in free_dims(op, leaf):
        return (0,) * len(names)
    more = max(1, -(-parts * part.cells // max(whole.cells, 1)))
    return tuple(-(-_rows(op, fold, part) // more) if name == first else 0 for name in names)
