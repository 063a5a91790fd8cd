"""The memory of a task, known beforehand: what it computes with, what it gives, and what writing that takes.

A task of reductions has the states of all its cells and what each thread reads beside them; then results, most of which
take the place of a state (see `gridcompute.fold_bands`); then one result after the other is written, each with its
compressed bytes beside it. Its peak is the most of these, not their sum.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from gridcompute.actions.folds import Fold
from gridcompute.cost import Cost
from gridcompute.ended import read_of
from gridcompute.endings import chosen
from gridcompute.fold_bands import stretch_of
from gridcompute.op import Op
from gridcompute.planes import LEAST_BYTES, PIECE_BYTES
from gridcompute.pointwise import regions
from gridcompute.spaces import Region
from gridcompute.tiles import cuts

FILE_SHARE = 0.5
"""Of a stored chunk's decoded bytes, those of its file, as estimated."""

SHARD_SHARE = 0.75
"""Of a result's bytes what its shard is taken to have: measured 0.2 of smooth fields to 0.9 of nothing but noise."""


@dataclass(frozen=True)
class Peak:
    """Bytes of a stage's tasks, without a worker's base.

    Attributes:
        work: until results are there, on one thread.
        end: the most from then on, until all are written.
        part: of `work`, and of `end` without writing, what parts of a chunk need less of.
        fixed: what any of them needs as much of.
        results: of each root, which parts are put together in.
        thread: each thread beyond the first, while they read.
    """

    work: int
    end: int = 0
    part: int = 0
    fixed: int = 0
    results: tuple[int, ...] = ()
    thread: int = 0

    def of(self, parts: int = 1, threads: int = 1, room: int = 0) -> int:
        """The most at once of a chunk that is computed in parts.

        Args:
            parts: pieces.
            threads: that read; parts are computed by one.
            room: bytes that there are, for which results may go in turns; 0 for any number.
        """
        if parts == 1:
            return max(self.work + (threads - 1) * self.thread, self.end)
        some = -(-self.part // parts)
        return self.fixed + max((sum(turn) + max(some, *map(writing, turn))
                                 for turn in self.turns(self.results, parts, room)), default=some)

    def turns(self, results: Sequence[int], parts: int, room: int) -> Iterator[tuple[int, ...]]:
        """Results that are computed together in one pass over what they read, and written before the next: as few
        passes as there is room for.

        Args:
            results: bytes of each, in their order.
            parts: in which they are computed.
            room: bytes that there are.
        """
        some, turn = -(-self.part // parts), tuple[int, ...]()
        for one in results:
            more = (*turn, one)
            if turn and room and self.fixed + sum(more) + max(some, *map(writing, more)) > room:
                yield turn
                more = (one,)
            turn = more
        if turn:
            yield turn


def writing(result: int) -> int:
    """Bytes beside a result while it is made a shard: its file, and pieces of it before and after they are packed."""
    return int(SHARD_SHARE * result) + (2 * min(result, PIECE_BYTES) if result >= LEAST_BYTES else result)


@dataclass(frozen=True)
class Beside:
    """What a thread has beside the states that it folds into.

    Attributes:
        piece: extents of what is folded at a time; 0 for all, none where nothing is read.
        read: bytes: a tile with the files that it is decoded from, and a piece.
        undivided: of these, what is decoded as a whole, however small a part is wanted.
    """

    piece: tuple[int, ...] = ()
    read: int = 0
    undivided: int = 0


def at_once(cost: Cost, kept: Collection[str], folds: Sequence[Op], box: Region) -> Beside:
    """Of folds that read the same boxes.

    Args:
        cost: of the plan's ops.
        kept: recipes of those that are kept.
        folds: lowered.
        box: one of theirs.
    """
    found = cuts(folds, lambda op: op.recipe in kept, box)
    sources = list(dict.fromkeys(fold.inputs[0] for fold in folds))
    whole = max((cost.stored_bytes(source) for source in sources
                 if source.recipe not in kept and not cost.by_blocks(source)), default=0)
    if not found.free:
        share = int(box.cells * max(map(cost.input_weight, sources)))
        return Beside((0,) * len(box.bounds), share, min(share, whole))
    tile, piece = (Region(tuple((lo, lo + min(n or hi - lo, hi - lo)) for (lo, hi), n in
                                zip(box.bounds, extents, strict=True))) for extents in (found.tile, found.piece))
    read = regions([(source, tile) for source in sources], found.leaves)
    # What is decoded block by block is read so (see `sources.bloscs`).
    held = sum(sum(part.cells for part in parts) * cost.input_weight(leaf)
               * (1 if cost.by_blocks(leaf) else 1 + FILE_SHARE) for leaf, parts in read.items())
    share = int(held + piece.cells * sum(map(cost.input_weight, sources)))
    return Beside(found.piece, share, min(share, whole))


def reduced(roots: Sequence[tuple[Op, Region]], folds: Sequence[tuple[Op, Region]], beside: Beside) -> Peak:
    """Of a task that folds.

    Args:
        roots: what it keeps, and the region of each.
        folds: the reductions among them, and those that end in them.
        beside: what their threads read.
    """
    tops = [op for op, _ in roots if not isinstance(op.action, Fold)]
    kept = {op for op, _ in roots}
    states = {op: _states(op, region) for op, region in folds}
    given = {op: _given(op, region, beside.piece, None if op in kept else read_of(op, tops)) for op, region in folds}
    live = sum(states.values())
    work, most, end, results = live + beside.read, live, 0, list[int]()

    def ends(op: Op) -> None:
        nonlocal live, most
        place, fresh = given[op]
        most = max(most, live + fresh)
        live += place + fresh - states[op]

    for op in (op for op, _ in folds if op not in kept):
        ends(op)
    for op, region in roots:
        size, before = int(region.cells * op.cell_bytes), live
        if isinstance(op.action, Fold):
            ends(op)
            before = live - sum(given[op])
        elif not chosen(op):
            live += size
        most, end, live = max(most, live), max(end, live + writing(size)), before
        results.append(size)
    part = max(work - beside.undivided, most)
    return Peak(work, max(most, end), part, beside.undivided, tuple(results), beside.read)


def _states(op: Op, region: Region) -> int:
    assert isinstance(op.action, Fold)
    return op.action.state_bytes(op, region)


def _given(op: Op, region: Region, piece: Sequence[int], only: Collection[str] | None) -> tuple[int, int]:
    """Bytes of a fold's results that lie where states were, and of others.

    Args:
        op: the fold.
        region: of it.
        piece: extents of what is folded at a time.
        only: of the results, those that are wanted; None: all.
    """
    action = op.action
    assert isinstance(action, Fold)
    reduction, dtype = action.reduce.reduction, op.inputs[0].field(action.reduce.column).dtype
    where, names = dict(zip(op.space.names, region.bounds, strict=True)), op.inputs[0].space.names
    kept = tuple(where[name] for name in action.kept)
    cells = math.prod(hi - lo for lo, hi in kept) * (action.reduce.group[1] if action.reduce.group else 1)
    some = dict(zip(names, piece or (0,) * len(names), strict=True))
    band = tuple((lo, min(hi, lo + (some[name] or hi - lo))) for name, (lo, hi) in zip(action.kept, kept, strict=True))
    fields = reduction.state_fields(dtype)
    free = [kind.itemsize * size for i, (_, kind, size) in enumerate(fields)
            if i != reduction.counted or not action.last]
    if not action.last:  # a count is put together for all cells when they are closed
        fresh = 8 * (reduction.counted >= 0)
        return cells * (sum(free) - fresh), cells * fresh
    place = total = 0
    for field, out in zip(op.fields, reduction.output_fields(dtype), strict=True):
        if only is not None and field.name not in only:
            continue
        size = out.size * out.dtype.itemsize
        total += size + out.size * out.nullable
        if size in free:
            free.remove(size)
            place += size
    if stretch_of(band, kept) is None:  # then bands are put together
        place = 0
    return cells * place, cells * (total - place)
