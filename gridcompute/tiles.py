"""Boxes of a reduction taken apart, twice: into tiles of stored chunks, and these into pieces that fit a cache.

A tile is decoded once, by one thread; its pieces are computed and folded one after the other by all that want them. A
piece has some of the kept cells, or some positions along the slowest reduced dimension, so that a cell's values stay in
order as long as pieces come in order; `gridcompute.slabs` sees to that. So neither can change a bit (law 1).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from gridcompute.actions.folds import Fold
from gridcompute.op import Op
from gridcompute.pointwise import Behind, direct
from gridcompute.spaces import Region

TILE_BYTES = 2**20
"""Input bytes up to which a tile takes several stored chunks: less wouldn't be worth a call."""

PIECE_BYTES = 8 * 2**20
"""Bytes of a piece: so much stays in the last cache until all have folded it, and its rows are long enough."""

FIELD_BYTES = 16 * 2**20
"""Bytes of a piece where the states of all kept cells pass by for each: fewer passes are worth more than that cache."""


@dataclass(frozen=True)
class Cuts:
    """How the boxes of folds that read the same ones are taken apart.

    Attributes:
        tile: positions per dimension of the folds' input, 0 for all of a box.
        piece: the same, of a piece of a tile.
        free: numbers of the dimensions along which both may be cut.
        kept: of these, those of the dimensions that all of them keep.
        leaves: what is computed for a tile before its pieces are (see `pointwise.Behind`).
    """

    tile: tuple[int, ...]
    piece: tuple[int, ...]
    free: frozenset[int]
    kept: frozenset[int]
    leaves: tuple[Op, ...]

    def bands(self, boxes: Sequence[Region]) -> list[list[Region]]:
        """The tiles of boxes, in order, those with the same cells of the dimensions that all keep together."""
        found: dict[tuple[tuple[int, int], ...], list[Region]] = {}
        for tile in itertools.chain.from_iterable(pieces(box, self.tile) for box in boxes):
            found.setdefault(tuple(tile.bounds[i] for i in sorted(self.kept)), []).append(tile)
        return list(found.values())

    def within(self, most: Sequence[int]) -> Cuts:
        """The same with tiles of at most so many positions, 0 for any number."""
        tile = tuple(min(a or b, b or a) for a, b in zip(most, self.tile, strict=True))
        return replace(self, tile=tile)


def pieces(region: Region, extents: Sequence[int]) -> Iterator[Region]:
    """A region in pieces of some extents, 0 for all of it, in order."""
    cuts = [[(at, min(at + (n or hi - lo), hi)) for at in range(lo, hi, n or max(hi - lo, 1))]
            for (lo, hi), n in zip(region.bounds, extents, strict=True)]
    return (Region(bounds) for bounds in itertools.product(*cuts))


def cuts(folds: Sequence[Op], kept: Callable[[Op], bool], box: Region) -> Cuts:
    """How to take apart the boxes of folds.

    Args:
        folds: lowered, joined: they read the same boxes.
        kept: whether an op's results lie in a store.
        box: one of them.
    """
    source = folds[0].inputs[0]
    names, behind = source.space.names, Behind.of((fold.inputs[0] for fold in folds), kept)
    nothing = (0,) * len(names)
    if any(fold.inputs[0].space != source.space for fold in folds) or not source.space.known \
            or any(f.ragged for leaf in behind.leaves for f in leaf.fields):
        return Cuts(nothing, nothing, frozenset(), frozenset(), ())
    free, all_keep = set(names) - behind.whole, set(names)
    for fold in folds:
        column, reduced = _reduced(fold)
        # Along the slowest reduced dimension positions may be told apart, along a further one they alternate.
        free &= set(column) - set(reduced[1:])
        all_keep &= set(column) - set(reduced)
    tile = _tile(folds, names, behind, free) if all(direct(leaf, kept) for leaf in behind.leaves) else nothing
    shape = tuple(min(n or size, size) for n, size in zip(tile, box.shape, strict=True))
    found = frozenset(names.index(name) for name in free)
    together = frozenset(names.index(name) for name in all_keep & free)
    return Cuts(tile, _piece(folds, names, shape, sorted(found)), found, together, behind.leaves)


def _reduced(fold: Op) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Dimensions of a fold's column, and those that it reduces."""
    assert isinstance(fold.action, Fold)
    reduce = fold.action.reduce
    return fold.inputs[0].field(reduce.column).dims, reduce.dims


def _tile(folds: Sequence[Op], names: Sequence[str], behind: Behind, free: Collection[str]) -> tuple[int, ...]:
    """The stored chunk behind folds, or several."""
    space = folds[0].inputs[0].space
    known = [dict(leaf.action.source.stored) for leaf in behind.leaves]  # type: ignore[attr-defined]
    stored = {name: max(one.get(name, 1) for one in known) if name in free else 0 for name in names}
    cell_bytes = max(fold.inputs[0].cell_bytes for fold in folds)
    room = TILE_BYTES / (cell_bytes * math.prod(stored[name] or space[name] or 1 for name in names))
    for name in reversed(names):
        if name in free and room >= 2:
            more = min(int(room), -(-(space[name] or 1) // stored[name]))
            stored[name], room = stored[name] * more, room / more
    return tuple(stored[name] for name in names)


def _piece(folds: Sequence[Op], names: Sequence[str], tile: Sequence[int], free: Iterable[int]) -> tuple[int, ...]:
    """Extents of a tile's pieces: cut first where the fewest states are in work for several pieces."""
    found, cell_bytes = list(tile), max(fold.inputs[0].cell_bytes for fold in folds)
    passed = {i: sum(_states(fold, names, tile) for fold in folds if names[i] not in _kept(fold)) for i in free}
    for i in sorted(passed, key=lambda i: (passed[i], i)):
        most = FIELD_BYTES if passed[i] > PIECE_BYTES else PIECE_BYTES
        if (size := math.prod(found) * cell_bytes) > most:
            found[i] = max(1, int(found[i] * most / size))
    # Elsewhere another box may be longer than this one, and its values must stay in their order.
    return tuple(n if i in passed else 0 for i, n in enumerate(found))


def _kept(fold: Op) -> set[str]:
    column, reduced = _reduced(fold)
    return set(column) - set(reduced)


def _states(fold: Op, names: Sequence[str], tile: Sequence[int]) -> float:
    """Bytes of the states that a tile's values go into, one group of each."""
    assert isinstance(fold.action, Fold)
    reduce, kept = fold.action.reduce, _kept(fold)
    one = reduce.reduction.state_bytes(fold.inputs[0].field(reduce.column).dtype)
    return one * math.prod(n for name, n in zip(names, tile, strict=True) if name in kept)
