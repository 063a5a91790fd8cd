"""Joined reductions of a chunk with the ops that end in them (see `gridcompute.endings`): in a worker, as a whole or in
parts, where one read of the data serves all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from gridcompute.actions.folds import Fold
from gridcompute.actions.shapes import Choose
from gridcompute.assemble import assemble
from gridcompute.axes import Layout
from gridcompute.columns import Block
from gridcompute.op import Op
from gridcompute.parts import Leaf, in_parts, pieces, tile, together
from gridcompute.pointwise import regions
from gridcompute.slabs import part_of
from gridcompute.spaces import Region
from gridcompute.tiles import PIECE_BYTES

OpRegion = tuple[Op, Region]

Folds = Callable[[Sequence[OpRegion], Sequence[int], tuple[int, ...] | None], Iterator[Block]]
"""Blocks of reductions over regions that are read together; with their lanes, and extents of tiles."""


class Ended:
    """What a stage's reductions give, and what is computed from that at once.

    Args:
        cuts: of the reductions that aren't kept, by recipe.
        kept: whether an op's results lie in a store.
        folds: carries out reductions.
        compute: an op's block over a region.

    Attributes:
        threads: that compute what ends in reductions.
        parts: into which a chunk is taken at least.
    """

    def __init__(self, cuts: Mapping[str, Layout], kept: Leaf, folds: Folds,
                 compute: Callable[[Op, Region], Block]) -> None:
        self._cuts, self._kept, self._folds, self._compute = cuts, kept, folds, compute
        self._results: dict[str, Block] = {}
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
        """A reduction that isn't kept, over a region; None of another op."""
        if op.recipe in self._results:
            return part_of(self._results[op.recipe], op, region)
        if op.recipe not in self._cuts:
            return None
        cut = self._cuts[op.recipe]  # it is read alone, as a replay does
        return self._one(op, cut.region(next(iter(cut.covering(region)))), region)

    def _one(self, op: Op, whole: Region, part: Region) -> Block:
        return next(self._all([(op, part)], [(op, whole)]))

    def _all(self, wanted: Sequence[OpRegion], whole: Sequence[OpRegion]) -> Iterator[Block]:
        """Ops over parts of chunks: reductions have the lanes of the whole, for how it is cut may not change a bit."""
        ends = list(zip(self._behind(wanted), self._behind(whole), strict=True))
        own = [both for both in zip(wanted, whole, strict=True) if isinstance(both[0][0].action, Fold)]
        folds = [(op, part, full, op.action) for (op, part), (_, full) in [*ends, *own] if isinstance(op.action, Fold)]
        op, part, full, first = folds[0]
        most = tile(op, first, full, part, self.parts, self._kept) if self.parts > 1 else None
        blocks = self._folds([(op, part) for op, part, _, _ in folds],
                             [action.lanes(op, full) for op, _, full, action in folds], most)
        results = {op.recipe: next(blocks) for (op, _), _ in ends}
        for op, part in wanted:
            if isinstance(op.action, Fold):
                yield next(blocks)
                continue
            self._results = results
            block = self._top(op, part)
            self._results = {}  # a part's results may not stay while the next one is read
            yield block

    def _behind(self, wanted: Sequence[OpRegion]) -> list[OpRegion]:
        """The reductions that end in ops, and the region of each."""
        tops = [(op, region) for op, region in wanted if not isinstance(op.action, Fold)]
        folds = {op.recipe: op for top, _ in tops for op in top.walk() if op.recipe in self._cuts}
        return [(op, region) for op, some in regions(tops, folds.values()).items() for region in some]

    def _top(self, op: Op, region: Region) -> Block:
        """What ends in reductions: by pieces that fit a cache, unless nothing but columns are chosen."""
        made = any(not isinstance(one.action, Choose) for one in op.walk(lambda one: one.recipe in self._results)
                   if one.recipe not in self._results)
        read = sum(block.nbytes for block in self._results.values())
        cut = pieces(op, region, -(-read // PIECE_BYTES), self._kept) if made else None
        if cut is None:
            return self._compute(op, region)
        with ThreadPoolExecutor(self.threads) as pool:
            blocks = pool.map(lambda number: self._compute(op, cut.region(number)), cut.covering(region))
            return assemble(op.fields, cut, region, lambda _: next(blocks))
