"""Joined reductions of a chunk with the ops that end in them (see `gridcompute.endings`): in a worker, as a whole or in
parts, where one read of the data serves all.

Folds end band by band: some kept cells' states become results, what ends in them is computed from these while they lie
in the cache, and both are gone before the next band.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from gridcompute.actions.folds import Band, Fold, Folding
from gridcompute.assemble import Room, assemble
from gridcompute.axes import Layout
from gridcompute.columns import Block
from gridcompute.endings import chosen
from gridcompute.op import Op
from gridcompute.parts import Leaf, in_parts, pieces, tile, together
from gridcompute.pointwise import regions
from gridcompute.slabs import Compute, part_of
from gridcompute.spaces import Region
from gridcompute.threads import each

PIECE_BYTES = 2**20
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
        found: list[list[Block]] = [[] for _ in wanted]
        places = [list(cut.covering(region)) for cut, (_, region) in zip(cuts, wanted, strict=True)]
        for numbers in zip(*places, strict=True):
            part = [(op, cut.region(number)) for (op, _), cut, number in zip(wanted, cuts, numbers, strict=True)]
            for some, block in zip(found, self._all(part, wanted), strict=True):
                some.append(block)
        return (assemble(op.fields, cut, region, dict(zip(place, some, strict=True)).__getitem__)
                for (op, region), cut, place, some in zip(wanted, cuts, places, found, strict=True))

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
        ending = {folding.op.recipe: folding for folding in itertools.islice(foldings, len(ends))}
        tops = self._tops([one for one in wanted if not isinstance(one[0].action, Fold)], ending)
        for op, _ in wanted:
            yield next(foldings).end(self.threads) if isinstance(op.action, Fold) else tops.pop(op.recipe)

    def _tops(self, tops: Sequence[OpRegion], foldings: Mapping[str, Folding]) -> dict[str, Block]:
        """What ends in foldings, by its recipe: those that keep the same dimensions have the same bands."""
        rooms = {op.recipe: Room(op.fields, op.space, region) for op, region in tops}
        full, found = {op.recipe: region for op, region in tops}, dict[str, Block]()
        of = {op.recipe: [foldings[fold.recipe] for fold, _ in self._behind([(op, region)])] for op, region in tops}
        calls: dict[tuple[tuple[str, ...], Band], list[OpRegion]] = {}
        for op, region in tops:
            first = of[op.recipe][0]
            for band in list(first.bands) or [first.kept]:
                calls.setdefault((first.action.kept, band), []).append((op, region))

        def end(call: tuple[tuple[tuple[str, ...], Band], list[OpRegion]]) -> None:
            (kept, band), some = call
            where = dict(zip(kept, band, strict=True))
            results = {one.op: one.ended(band) for one in dict.fromkeys(
                itertools.chain.from_iterable(of[op.recipe] for op, _ in some))}
            for op, region in some:
                part = Region(tuple(where.get(name, at) for name, at in
                                    zip(op.space.names, region.bounds, strict=True)))
                for piece in self._pieces(op, part, results):
                    memo = {(fold.recipe, one): part_of(results[fold], fold, one) for fold, regions_of in
                            regions([(op, piece)], results).items() for one in regions_of}
                    block = self._compute(op, piece, memo)
                    if piece == full[op.recipe]:
                        found[op.recipe] = block
                    else:
                        rooms[op.recipe].put(block, piece)

        deque(each(self.threads, end, list(calls.items())), 0)
        return {recipe: found[recipe] if recipe in found else room.block() for recipe, room in rooms.items()}

    def _pieces(self, op: Op, part: Region, results: Mapping[Op, Block]) -> Iterator[Region]:
        """A part of an op in pieces whose inputs fit a cache, unless nothing but columns are chosen."""
        read = 0 if chosen(op) else sum(block.nbytes for block in results.values())
        cut = pieces(op, part, -(-read // PIECE_BYTES), self._kept)
        return iter([part]) if cut is None else map(cut.region, cut.covering(part))

    def _behind(self, wanted: Sequence[OpRegion]) -> list[OpRegion]:
        """The reductions that end in ops, and the region of each."""
        tops = [(op, region) for op, region in wanted if not isinstance(op.action, Fold)]
        folds = {op.recipe: op for top, _ in tops for op in top.walk() if op.recipe in self._cuts}
        return [(op, region) for op, some in regions(tops, folds.values()).items() for region in some]
