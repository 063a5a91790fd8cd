"""A segment folded by several threads: each decodes tiles of its own, and cells get their values in order all the same.

A thread takes the next tile and, with it, a ticket for the states of each of its pieces. It folds a piece when its
tickets are called: when every piece before it that has values for the same states is done. So one thread may fold the
second piece of a tile while another folds the first piece of the next one. Tickets are drawn in the order of the tiles,
and pieces are done in their order within one, so whoever holds the oldest tile never waits.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from typing import Generic, TypeVar

from gridcompute.actions.folds import Fold, Folding
from gridcompute.columns import Block, Column, Fixed, field_region
from gridcompute.op import Op
from gridcompute.pointwise import direct, regions
from gridcompute.sources.buffers import BUFFERS
from gridcompute.sources.chunks import keeping
from gridcompute.spaces import Region
from gridcompute.tiles import cuts, pieces

T = TypeVar("T")
P = TypeVar("P")
U = TypeVar("U")

LEAD = 4
"""Tiles by which a band may be ahead of another before its thread turns to that one."""

LOOK_SECONDS = 0.5
"""After which a thread that waits for its turn looks whether all is to stop."""

Memo = dict[tuple[str, Region], Block]
Compute = Callable[[Op, Region, Memo], Block]
"""An op's block over a region, with what has been computed before and may be used again."""

Ticket = tuple[tuple[Hashable, int], ...]


class StoppedError(Exception):
    """Another thread has failed."""


class Turns:
    """Who may change which states next.

    Attributes:
        stopped: nobody goes on. Whoever may be interrupted sets it instead of calling `stop`, and holds no lock then.
    """

    def __init__(self) -> None:
        self._drawn: Counter[Hashable] = Counter()
        self._done: Counter[Hashable] = Counter()
        self._called = threading.Condition()
        self.stopped = False

    def draw(self, states: Sequence[Hashable]) -> Ticket:
        """A place behind all who have drawn one for these states before."""
        with self._called:
            self._drawn.update(states)
            return tuple((one, self._drawn[one] - 1) for one in states)

    def wait(self, ticket: Ticket) -> None:
        """Until it is called.

        Raises:
            StoppedError: it won't be.
        """
        with self._called:
            while not self._called.wait_for(lambda: self.stopped or all(
                    self._done[one] == place for one, place in ticket), LOOK_SECONDS):
                pass
            if self.stopped:
                raise StoppedError

    def done(self, ticket: Ticket) -> None:
        """Call the next ones."""
        with self._called:
            for one, _ in ticket:
                self._done[one] += 1
                if self._done[one] == self._drawn[one]:  # so that states of one piece alone aren't kept count of
                    del self._done[one], self._drawn[one]
            self._called.notify_all()

    def stop(self) -> None:
        """Nobody goes on."""
        with self._called:
            self.stopped = True
            self._called.notify_all()


class Left(Generic[T]):
    """The tiles that are left of some bands. A thread stays with its band until another one lags."""

    def __init__(self, bands: Sequence[Sequence[T]]) -> None:
        self._bands, self._busy = [deque(band) for band in bands], Counter[int]()

    def __len__(self) -> int:
        return sum(map(len, self._bands))

    def next(self, own: int) -> tuple[int, T] | None:
        """A band and its next tile for a thread that has done one of band `own` (-1 for none); None when all are taken.

        Of a band that another thread is in only where no other is left.
        """
        self._busy[own] -= 1
        waiting = [i for i, band in enumerate(self._bands) if band]
        idle = [i for i in waiting if self._busy[i] <= 0]
        most = max(idle or waiting, key=lambda i: len(self._bands[i]), default=-1)
        if most < 0:
            return None
        stays = own in waiting and not (idle and len(self._bands[most]) > len(self._bands[own]) + LEAD)
        band = own if stays else most
        self._busy[band] += 1
        return band, self._bands[band].popleft()


def in_turn(bands: Sequence[Sequence[T]], pieces_of: Callable[[T], Sequence[tuple[P, Sequence[Hashable]]]],
            opened: Callable[[T], contextlib.AbstractContextManager[Callable[[P], U]]],
            take: Callable[[P, U], object], threads: int) -> None:
    """Do all tiles of some bands: fetch each piece of a tile, and take it in when it is its turn.

    Args:
        bands: each a sequence of tiles; those of different bands have no states in common.
        pieces_of: a tile's pieces, each with what tells its states.
        opened: a tile, while its pieces are fetched: any number of tiles at once.
        take: takes in what was fetched of a piece: never two at once of those that share states, and in order.
        threads: at most. None is the caller's where there are several: a KeyboardInterrupt, which strikes the main
            one anywhere, may end it where others wait for it, or with a lock in its hands.
    """
    left, turns, lock = Left(bands), Turns(), threading.Lock()
    threads = max(1, min(threads, len(left)))

    def drawn() -> Iterator[tuple[T, list[tuple[P, Ticket]]]]:
        band = -1
        while True:
            with lock:
                found = None if turns.stopped else left.next(band)
                if found is None:
                    return
                band, tile = found
                some = [(piece, turns.draw(states)) for piece, states in pieces_of(tile)]
            yield tile, some

    def work() -> None:
        try:
            for tile, some in drawn():
                with opened(tile) as fetch:
                    for piece, ticket in some:
                        fetched = fetch(piece)
                        turns.wait(ticket)
                        take(piece, fetched)
                        turns.done(ticket)
                        del fetched  # which would hold its memory while the next one is fetched
        except StoppedError:
            return
        except BaseException:
            turns.stop()
            raise

    if threads == 1:
        work()
        return
    pool = ThreadPoolExecutor(threads, thread_name_prefix="in-turn")
    try:
        try:
            each = [pool.submit(work) for _ in range(threads)]
            wait(each)
        finally:
            turns.stopped = True
    finally:  # again: it may strike there
        turns.stopped = True
        pool.shutdown()
    for one in each:
        one.result()


def folded(wanted: Sequence[tuple[Op, Region]], kept: Callable[[Op], bool], compute: Compute, threads: int,
           lanes: Sequence[int] = (), most: tuple[int, ...] | None = None) -> Iterator[Folding]:
    """Joined reductions: what they read is read once and folded by all, strictly in order.

    Args:
        wanted: folds, and the region of each.
        kept: whether an op's results lie in a store.
        compute: an op's block.
        threads: at most.
        lanes: of each for its whole chunk, where the regions are parts of one.
        most: positions of a tile per dimension at most, 0 for any number.

    Returns:
        Each about to end: what isn't asked for stays as states.
    """
    boxes = {op.reads(0, region) for op, region in wanted}
    if len(boxes) > 1:
        return itertools.chain.from_iterable(folded([one], kept, compute, threads, lanes[i:i + 1], most)
                                             for i, one in enumerate(wanted))
    passes = [_begun(*one, lane) for one, lane in zip(wanted, lanes or (0,) * len(wanted), strict=True)]
    (own,) = boxes
    if own:
        _carried(passes, own, kept, compute, threads, most)
    return (passes.pop(0) for _ in wanted)


def _begun(op: Op, region: Region, lanes: int) -> Folding:
    assert isinstance(op.action, Fold)
    return op.action.begin(op, region, lanes)


def _carried(passes: Sequence[Folding], boxes: Sequence[Region], kept: Callable[[Op], bool], compute: Compute,
             threads: int, most: tuple[int, ...] | None) -> None:
    """Take boxes into foldings."""
    ops = [folding.op for folding in passes]
    sources = list(dict.fromkeys(op.inputs[0] for op in ops))
    found = cuts(ops, kept, boxes[0])
    if most is not None:
        found = found.within(most)
    places = sorted({tuple(folding.places) for folding in passes})
    # What isn't decoded piece by piece is computed for a tile, and looked into piece by piece.
    leaves = [leaf for leaf in found.leaves if not direct(leaf, kept)]

    def pieces_of(tile: Region) -> list[tuple[Region, list[Hashable]]]:
        return [(piece, [(place, tuple(piece.bounds[i] for i in place)) for place in places])
                for piece in pieces(tile, found.piece)]

    @contextlib.contextmanager
    def opened(tile: Region) -> Iterator[Callable[[Region], list[Block]]]:
        memo: Memo = {}
        blocks = {leaf: compute(leaf, _hull(parts), memo)
                  for leaf, parts in regions([(source, tile) for source in sources], leaves).items()}
        with keeping():  # not before: a selection may read a little of each of many stored chunks
            yield partial(fetched, blocks)

    def fetched(blocks: Mapping[Op, Block], piece: Region) -> list[Block]:
        parts = regions([(source, piece) for source in sources], blocks) if blocks else {}
        memo = {(leaf.recipe, part): part_of(blocks[leaf], leaf, part) for leaf, some in parts.items() for part in some}
        return [compute(op.inputs[0], piece, memo) for op in ops]

    def take(piece: Region, blocks: Sequence[Block]) -> None:
        for folding, block in zip(passes, blocks, strict=True):
            folding.take(piece, block)

    in_turn(found.bands(boxes), pieces_of, opened, take, threads)
    BUFFERS.settle()  # so that results are packed in memory that decoding needed


def _hull(parts: Sequence[Region]) -> Region:
    """The least region that contains some."""
    return Region(tuple((min(lo for lo, _ in dim), max(hi for _, hi in dim))
                        for dim in zip(*(part.bounds for part in parts), strict=True)))


def part_of(block: Block, op: Op, part: Region) -> Block:
    """A view of a block over a part of its region."""
    columns: dict[str, Column] = {}
    for field in op.fields:
        column = block[field.name]
        assert isinstance(column, Fixed)
        where = field_region(op.space, part, field.dims).within(field_region(op.space, block.region, field.dims))
        columns[field.name] = Fixed(column.values[where], None if column.valid is None else column.valid[where])
    return Block(part, columns, part.shape[0] if part.bounds else 1)
