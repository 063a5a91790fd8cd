"""Joined reductions of a chunk with the ops that end in them (see `gridcompute.endings`): in a worker, as a whole or in
parts, where one read of the data serves all.

Of a reduction with several results only those are made that something reads.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from gridcompute.actions.folds import Fold, Folding
from gridcompute.assemble import Room
from gridcompute.axes import Layout
from gridcompute.columns import Block
from gridcompute.endings import chosen
from gridcompute.op import Op
from gridcompute.parts import Leaf, in_parts, pieces, tile, together
from gridcompute.pointwise import regions
from gridcompute.slabs import Compute, part_of
from gridcompute.spaces import Region
from gridcompute.threads import each

PIECE_BYTES = 2**22
"""Of results, from which a piece of what ends in them is computed."""

OpRegion = tuple[Op, Region]

Folds = Callable[[Sequence[OpRegion], Sequence[int], tuple[int, ...] | None], Iterator[Folding]]
"""Reductions over regions that are read together; with their lanes, and extents of tiles."""


class Ended:
    """What a stage's reductions give, and what is computed from that at once.

    Args:
        cuts: of the reductions that aren't kept, by recipe.
        kept: whether an op's results lie in a store.
        folds: carries out reductions.
        compute: an op's block over a region.

    Attributes:
        threads: that end reductions.
        parts: into which a chunk is taken at least.
    """

    def __init__(self, cuts: Mapping[str, Layout], kept: Leaf, folds: Folds, compute: Compute) -> None:
        self._cuts, self._kept, self._folds, self._compute = cuts, kept, folds, compute
        self.threads = self.parts = 1

    def blocks(self, wanted: Sequence[OpRegion]) -> Iterator[Block]:
        """Of a chunk's ops; in parts all together, piece by piece, where they can be cut alike, or else one by one."""
        if self.parts == 1:
            return self._all(wanted, wanted)
        cuts = together(wanted, self.parts, self._kept)
        if cuts is None:
            return (in_parts(op, region, self.parts, self._kept, partial(self._one, op, region))
                    for op, region in wanted)
        return self._together(wanted, cuts)

    def _together(self, wanted: Sequence[OpRegion], cuts: Sequence[Layout]) -> Iterator[Block]:
        """Piece by piece, each put where it belongs at once."""
        rooms = deque(Room(op.fields, op.space, region) for op, region in wanted)
        places = [list(cut.covering(region)) for cut, (_, region) in zip(cuts, wanted, strict=True)]
        for numbers in zip(*places, strict=True):
            part = [(op, cut.region(number)) for (op, _), cut, number in zip(wanted, cuts, numbers, strict=True)]
            for room, (_, piece), block in zip(rooms, part, self._all(part, wanted), strict=True):
                room.put(block, piece)
        while rooms:
            yield rooms.popleft().block()

    def block(self, op: Op, region: Region) -> Block | None:
        """A reduction that isn't kept where it is read alone, as a replay does; None of another op."""
        cut = self._cuts.get(op.recipe)
        return None if cut is None else self._one(op, cut.region(next(iter(cut.covering(region)))), region)

    def _one(self, op: Op, whole: Region, part: Region) -> Block:
        return next(self._all([(op, part)], [(op, whole)]))

    def _all(self, wanted: Sequence[OpRegion], whole: Sequence[OpRegion]) -> Iterator[Block]:
        """Ops over parts of chunks: reductions have the lanes of the whole, for how it is cut may not change a bit."""
        ends = list(zip(self._behind(wanted), self._behind(whole), strict=True))
        own = [both for both in zip(wanted, whole, strict=True) if isinstance(both[0][0].action, Fold)]
        folds = [(op, part, full, op.action) for (op, part), (_, full) in [*ends, *own] if isinstance(op.action, Fold)]
        op, part, full, first = folds[0]
        most = tile(op, first, full, part, self.parts, self._kept) if self.parts > 1 else None
        foldings = self._folds([(op, part) for op, part, _, _ in folds],
                               [action.lanes(op, full) for op, _, full, action in folds], most)
        tops = [op for op, _ in wanted if not isinstance(op.action, Fold)]
        results = {folding.op: folding.end(self.threads, read_of(folding.op, tops))
                   for folding in itertools.islice(foldings, len(ends))}
        for op, region in wanted:
            yield next(foldings).end(self.threads) if isinstance(op.action, Fold) else self._top(op, region, results)

    def _top(self, op: Op, region: Region, results: Mapping[Op, Block]) -> Block:
        """What ends in reductions: by pieces whose inputs fit a cache, unless nothing but columns are chosen."""
        def computed(piece: Region) -> Block:
            memo = {(fold.recipe, part): part_of(results[fold], fold, part) for fold, some in
                    regions([(op, piece)], results).items() for part in some}
            return self._compute(op, piece, memo)

        read = 0 if chosen(op) else sum(block.nbytes for block in results.values())
        cut = pieces(op, region, -(-read // PIECE_BYTES), self._kept)
        if cut is None:
            return computed(region)
        room = Room(op.fields, op.space, region)
        deque(each(self.threads, lambda piece: room.put(computed(piece), piece),
                   map(cut.region, cut.covering(region))), 0)
        return room.block()

    def _behind(self, wanted: Sequence[OpRegion]) -> list[OpRegion]:
        """The reductions that end in ops, and the region of each."""
        tops = [(op, region) for op, region in wanted if not isinstance(op.action, Fold)]
        folds = {op.recipe: op for top, _ in tops for op in top.walk() if op.recipe in self._cuts}
        return [(op, region) for op, some in regions(tops, folds.values()).items() for region in some]


def read_of(fold: Op, tops: Sequence[Op]) -> set[str]:
    """The columns of a fold that ops over it read."""
    found = set[str]()
    for top in tops:
        for op in top.walk(lambda op: op is fold):
            for i in (i for i, source in enumerate(op.inputs) if source is fold):
                found |= op.action.read_of(op, i)
    return found
