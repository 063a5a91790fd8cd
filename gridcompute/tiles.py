"""Boxes of a reduction taken apart into tiles of a few stored chunks, and carried out by several threads.

A *band* is the part of the kept cells that a tile has. The tiles of a band come in order, and so do each cell's values;
bands have nothing to do with each other. So neither the tiles nor the threads can change a bit (law 1), while a tile is
folded by all that want it where it was decoded: in the processor's cache.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from gridcompute.access import Point
from gridcompute.actions.folds import Fold
from gridcompute.actions.loads import Load
from gridcompute.op import Op
from gridcompute.spaces import Region

T = TypeVar("T")
U = TypeVar("U")

TILE_BYTES = 2**20
"""Input bytes up to which a tile takes several stored chunks: less wouldn't be worth a call."""

LEAD = 4
"""Tiles by which a band may be ahead of another before its thread turns to that one."""


def extents(folds: Sequence[Op], kept: Collection[str]) -> tuple[int, ...] | None:
    """Positions of a tile per dimension of the input of folds that read the same boxes, 0 for all; None for no tiles.

    Args:
        folds: lowered, joined.
        kept: recipes of the ops whose results lie in a store.
    """
    sources = [fold.inputs[0] for fold in folds]
    found = [_stored(source, kept) for source in sources]
    if None in found or len({source.space for source in sources}) > 1:
        return None
    dims, cut, first = sources[0].space.names, set(sources[0].space.names), set()
    for fold in folds:
        assert isinstance(fold.action, Fold)
        reduced = fold.action.reduce.dims
        cut &= set(fold.inputs[0].field(fold.action.reduce.column).dims) - set(reduced)
        first.add(reduced[0])
    # Along the slowest reduced dimension positions may be told apart, along a further one they alternate.
    cut |= first if len(first) == 1 else set()
    stored = {name: max(one[name] for one in found if one) if name in cut else 0 for name in dims}
    cell_bytes = max(source.cell_bytes for source in sources)
    room = TILE_BYTES / (cell_bytes * math.prod(stored[name] or sources[0].space[name] or 1 for name in dims))
    for name in reversed(dims):
        if name in cut and room >= 2:
            more = min(int(room), -(-(sources[0].space[name] or 1) // stored[name]))
            stored[name], room = stored[name] * more, room / more
    return tuple(stored[name] for name in dims)


def _stored(op: Op, kept: Collection[str]) -> Mapping[str, int] | None:
    """Extents of the stored chunks behind an op that is computed position by position; None for any other."""
    action = op.action
    if op.recipe in kept or not op.space.known:
        return None
    if isinstance(action, Load):
        return dict(action.source.stored) if getattr(action.source, "piecewise", False) else None
    if action.heavy or action.aligned or action.whole or not op.inputs or any(one != Point for one in op.accesses):
        return None
    found = [_stored(source, kept) for source in op.inputs]
    if None in found:
        return None
    return {name: max(one.get(name, 1) for one in found if one) for name in op.space.names}


def bands(boxes: Sequence[Region], extents: Sequence[int], reduced: Collection[int]) -> list[list[Region]]:
    """The tiles of boxes, by band, in the order of the fold.

    Args:
        boxes: that lie one after the other along the reduced dimensions, with the same kept cells.
        extents: of a tile, 0 for all.
        reduced: numbers of the reduced dimensions.
    """
    found: dict[tuple[tuple[int, int], ...], list[Region]] = {}
    for box in boxes:
        cuts = [[(at, min(at + (n or hi - lo), hi)) for at in range(lo, hi, n or max(hi - lo, 1))]
                for (lo, hi), n in zip(box.bounds, extents, strict=True)]
        for bounds in itertools.product(*cuts):
            band = tuple(pair for i, pair in enumerate(bounds) if i not in reduced)
            found.setdefault(band, []).append(Region(bounds))
    return list(found.values())


def in_order(fetch: Callable[[T], U], take: Callable[[T, U], object], bands: Sequence[Sequence[T]],
             threads: int) -> None:
    """Fetch each item and take it in: in order within a band; by several threads at once, or fetched ahead."""
    if len(bands) > 1 and len(bands) >= threads:
        together(lambda item: take(item, fetch(item)), bands, threads)
        return
    items = [item for step in itertools.zip_longest(*bands) for item in step if item is not None]
    fetched = iter(ahead(fetch, items, threads))
    for item in items:
        take(item, next(fetched))  # without a name, which would hold its memory while the next one is fetched


def ahead(fetch: Callable[[T], U], items: Sequence[T], threads: int) -> Iterator[U]:
    """`fetch` of each item, in order; with several threads the next ones are fetched while one is used."""
    if threads <= 1:
        yield from map(fetch, items)
        return
    with ThreadPoolExecutor(threads) as pool:
        waiting = deque(pool.submit(fetch, item) for item in items[:threads])
        for item in items[threads:]:
            yield waiting.popleft().result()
            waiting.append(pool.submit(fetch, item))
        while waiting:
            yield waiting.popleft().result()


def together(step: Callable[[T], object], bands: Sequence[Sequence[T]], threads: int) -> None:
    """Do a step for each item of some bands, in order within each, bands at once by several threads.

    A thread stays with its band, whose states are in its cache, until another one lags.
    """
    left, idle, failed = [deque(band) for band in bands], set(range(len(bands))), list[BaseException]()
    lock = threading.Lock()

    def work() -> None:
        own = -1
        while True:
            with lock:
                if own >= 0:
                    idle.add(own)
                most = max(sorted(idle), key=lambda i: len(left[i]), default=-1)
                if failed or most < 0 or not left[most]:
                    return
                if own < 0 or len(left[most]) > len(left[own]) + (LEAD if left[own] else 0):
                    own = most
                idle.discard(own)
                item = left[own].popleft()
            try:
                step(item)
            except BaseException as error:
                failed.append(error)
                raise

    if threads <= 1:
        work()
        return
    with ThreadPoolExecutor(threads - 1) as pool:
        others = [pool.submit(work) for _ in range(threads - 1)]
        work()
    for other in others:
        other.result()
