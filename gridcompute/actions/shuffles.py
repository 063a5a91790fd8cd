"""Cells by key: into buckets by hash or by range, each bucket gathered and, for a sort, put in order.

Every input chunk is written once: its rows grouped by bucket, or put in order for a sort. A bucket then reads its rows
of every chunk, in chunk order, so the result does not depend on which was done first. Where the buckets of a sort begin
follows from samples of all chunks.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gridcompute.actions.shapes import joined, joined_blocks, picked
from gridcompute.axes import Axis, Layout
from gridcompute.columns import Array, Block, Column, Field, Fixed, Ragged
from gridcompute.op import Action, Op, Read
from gridcompute.rowgroups import cut_rows, even_groups, group_rows
from gridcompute.spaces import Region

SAMPLES = 256
"""Keys that a chunk sends to the choice of range splitters."""

CHUNK, ROW, NEXT, STEP = "__chunk", "__row", "__next", "__step"
"""Of a sample: its chunk, its row there, that of the next sample (or the number of rows), and the rows of a group."""

Groups = Callable[[int, int, int], list[Block]]
"""`groups(chunk, first, last)` gives the groups of rows first to last (exclusive) of a chunk of input 0."""


def comparable(column: Column, field: Field) -> pa.Array:
    """A key column as an Arrow array: nulls kept, strings as bytes (the order of UTF-8)."""
    if isinstance(column, Ragged):
        items = (
            column.values.tobytes()
            if column.values.flags.c_contiguous
            else np.ascontiguousarray(column.values).tobytes()
        )
        cells = [items[a:b] for a, b in zip(column.offsets[:-1], column.offsets[1:], strict=True)]
        mask = None if column.valid is None else ~column.valid
        return pa.array(cells, pa.large_binary(), mask=mask)
    half = field.dtype == np.float16  # Arrow doesn't rank these
    return pa.array(column.values.astype(np.float32) if half else column.values,
                    mask=None if column.valid is None else ~column.valid)


def sort_order(block: Block, keys: tuple[tuple[str, bool], ...], fields: tuple[Field, ...]) -> Array:
    """Indices that sort a block by (column, descending) keys: stable, NaN then nulls last."""
    by_name = {f.name: f for f in fields}
    order: Array | None = None
    for name, descending in reversed(keys):
        places = in_order(block[name], by_name[name], descending)
        order = np.argsort(places, kind="stable") if order is None else order[np.argsort(places[order], kind="stable")]
    return np.arange(block.rows) if order is None else order


def in_order(column: Column, field: Field, descending: bool = False) -> Array:
    """Numbers that compare as the cells of a key column do: whole numbers themselves, else dense ranks."""
    if isinstance(column, Fixed) and column.values.dtype.kind in "iu" and (column.valid is None or column.valid.all()):
        return ~column.values if descending else column.values
    return dense_ranks(column, field, descending)


def dense_ranks(column: Column, field: Field, descending: bool = False) -> Array:
    """Dense rank of each cell of a key column: equal cells share one, NaN ranks after values, null after NaN."""
    return _ranks(comparable(column, field), descending)


def _ranks(values: pa.Array, descending: bool) -> Array:
    """Dense rank of each value: equal values share one, NaN ranks after numbers, null after NaN."""
    direction = "descending" if descending else "ascending"
    ranks = pc.rank(values, sort_keys=direction, tiebreaker="dense")  # nulls come last by default
    return np.asarray(ranks.to_numpy(zero_copy_only=False)).astype(np.int64)


def hash_bucket(column: Column, n: int) -> Array:
    """Bucket of each cell, from its value alone: equal values (0.0 and -0.0, all NaN) meet; nulls lie in bucket 0."""
    if isinstance(column, Ragged):
        values = memoryview(np.ascontiguousarray(column.values).view(np.uint8).data)
        size = column.values.itemsize
        ends = zip(column.offsets[:-1] * size, column.offsets[1:] * size, strict=True)
        mixed = np.array([zlib.crc32(values[a:b]) for a, b in ends], np.uint64)
    else:
        plain = column.values
        if plain.dtype.kind == "f":
            plain = np.where(np.isnan(plain), np.nan, plain + plain.dtype.type(0)).astype(np.float64)
        mixed = plain.astype(np.float64 if plain.dtype.kind == "f" else np.int64).view(np.uint64)
    with np.errstate(over="ignore"):
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
    buckets = (mixed % np.uint64(n)).astype(np.int32)
    if column.valid is not None:
        buckets[~column.valid] = 0
    return buckets


@dataclass(frozen=True, eq=False)
class Shuffle(Action):
    """Rows by key, as the user asks for it; lowered into samples, splitters, partitions and buckets.

    Attributes:
        keys: columns with whether the order is descending.
        order: whether rows are sorted (by range), or only equal keys brought together (by hash).
    """

    keys: tuple[tuple[str, bool], ...]
    order: bool
    makes_rows: ClassVar[bool] = True

    @property
    def key(self) -> object:
        """See `Action`."""
        return (self.keys, self.order)

    def gather(self, buckets: int) -> Bucket:
        """What makes the result of partitioned rows."""
        return Bucket(self.keys, self.order, buckets)


@dataclass(frozen=True, eq=False)
class Sample(Action):
    """Evenly spaced keys of each chunk's sorted first key column, with the rows where they lie."""

    by: str
    descending: bool
    makes_rows: ClassVar[bool] = True
    durable: ClassVar[bool] = True

    @property
    def key(self) -> object:
        """See `Action`."""
        return (self.by, self.descending, SAMPLES)

    @property
    def step(self) -> str:
        """See `Action`."""
        return "sample"

    @staticmethod
    def fields(by: Field) -> tuple[Field, ...]:
        """Columns of the samples of a key column."""
        return (by, *(Field(name, by.dims, np.dtype(np.int64)) for name in (CHUNK, ROW, NEXT, STEP)))

    def compute(self, op: Op, region: Region, read: Read) -> Block:
        """See `Action`."""
        block, source = read(0, op.reads(0, region)[0]), op.inputs[0]
        rows = np.linspace(0, block.rows - 1, min(SAMPLES, block.rows)).astype(np.int64)
        order = sort_order(block, ((self.by, self.descending),), source.fields)
        column = picked(block[self.by], source.field(self.by), source.space.names[0], order[rows])
        rest = (np.full(len(rows), region.bounds[0][0]), rows, np.append(rows[1:], block.rows)[:len(rows)],
                np.full(len(rows), group_rows(block)))
        numbers = {name: Fixed(np.asarray(values, np.int64))
                   for name, values in zip((CHUNK, ROW, NEXT, STEP), rest, strict=True)}
        return Block(region, {self.by: column, **numbers}, len(rows))


@dataclass(frozen=True, eq=False)
class Splitters(Action):
    """The samples of all chunks in one, so that a bucket reads them at once."""

    makes_rows: ClassVar[bool] = True
    durable: ClassVar[bool] = True

    @property
    def key(self) -> object:
        """See `Action`."""
        return ()

    @property
    def step(self) -> str:
        """See `Action`."""
        return "splitters"

    def axes(self, op: Op, inputs: tuple[Layout, ...]) -> dict[str, Axis]:
        """See `Action`: one block."""
        return {op.space.names[0]: Axis((1,), extent=1, blocks=True)}

    def compute(self, op: Op, region: Region, read: Read) -> Block:
        """See `Action`."""
        return replace(read(0, op.reads(0, region)[0]), region=region)


@dataclass(frozen=True, eq=False)
class Ordered(Action):
    """Each chunk's rows in order (stable), in groups that can be read one by one."""

    keys: tuple[tuple[str, bool], ...]
    makes_rows: ClassVar[bool] = True
    durable: ClassVar[bool] = True

    @property
    def key(self) -> object:
        """See `Action`."""
        return self.keys

    @property
    def step(self) -> str:
        """See `Action`."""
        return "chunks in order"

    def compute(self, op: Op, region: Region, read: Read) -> Block:
        """See `Action`."""
        block, source = read(0, op.reads(0, region)[0]), op.inputs[0]
        ordered = _rows_at(block, source.fields, source.space.names[0], sort_order(block, self.keys, source.fields))
        return replace(ordered, region=region, groups=even_groups(block))


@dataclass(frozen=True, eq=False)
class Partition(Action):
    """Each chunk's rows grouped by bucket (stable), by hash."""

    keys: tuple[tuple[str, bool], ...]
    buckets: int
    makes_rows: ClassVar[bool] = True
    durable: ClassVar[bool] = True

    @property
    def key(self) -> object:
        """See `Action`."""
        return (self.keys, self.buckets)

    @property
    def step(self) -> str:
        """See `Action`."""
        return "partition"

    def compute(self, op: Op, region: Region, read: Read) -> Block:
        """See `Action`."""
        block, source = read(0, op.reads(0, region)[0]), op.inputs[0]
        buckets = hash_bucket(block[self.keys[0][0]], self.buckets)
        for name, _ in self.keys[1:]:
            buckets = (buckets.astype(np.int64) * 31 + hash_bucket(block[name], self.buckets)) % self.buckets
        order = np.argsort(buckets, kind="stable")
        ends = np.searchsorted(buckets[order], np.arange(self.buckets), side="right")
        parted = _rows_at(block, source.fields, source.space.names[0], order)
        return replace(parted, region=region, groups=tuple(ends.tolist()))


@dataclass(frozen=True, eq=False)
class Bucket(Action):
    """One bucket's rows of all chunks, in chunk order; sorted by the keys where the shuffle is a sort.

    Input 0 has the chunks' rows, in order or by bucket; input 1, of a sort, the splitters.
    """

    keys: tuple[tuple[str, bool], ...]
    order: bool
    buckets: int
    makes_rows: ClassVar[bool] = True
    durable: ClassVar[bool] = True
    together: ClassVar[bool] = False
    """Whether rows of equal keys mustn't come to lie in two buckets."""

    @property
    def key(self) -> object:
        """See `Action`."""
        return (self.keys, self.order, self.buckets)

    def axes(self, op: Op, inputs: tuple[Layout, ...]) -> dict[str, Axis]:
        """See `Action`: one block a bucket."""
        return {op.space.names[0]: Axis((self.buckets,), extent=1, blocks=True)}

    def compute(self, op: Op, region: Region, read: Read, groups: Groups | None = None) -> Block:
        """See `Action`."""
        assert groups is not None
        source = op.inputs[0]
        dim, chunks = source.space.names[0], source.whole.shape[0]
        if self.order:
            pieces = list(self._by_range(op, region, read, groups))
        else:
            pieces = [block for chunk in range(chunks) for block in groups(chunk, *region.bounds[0])]
        none = replace(read(0, Region.of((0, 0))), region=region) if not pieces else None
        block = none or joined_blocks(pieces, source.fields, dim, region)
        pieces.clear()  # what they are views of isn't needed any more
        if not self.order:
            return block
        return _rows_at(block, source.fields, dim, sort_order(block, self.keys, source.fields))

    def _by_range(self, op: Op, region: Region, read: Read, groups: Groups) -> Iterator[Block]:
        """The bucket's rows of each chunk: those between its two splitters."""
        by, descending = self.keys[0]
        block, field = read(1, op.reads(1, op.whole)[0]), op.inputs[1].field(by)
        samples = _Samples.of(block, in_order(block[by], field, descending))
        apart = not self.together and len(self.keys) == 1
        ends = [samples.splitter(number, self.buckets) for number in region.bounds[0]]
        for chunk in np.unique(samples.chunk).tolist():
            low, high = (samples.bracket(end, chunk, apart) for end in ends)
            step = samples.step(chunk)
            first, last = low.start // step, -(-high.stop // step)
            if low.start >= high.stop:
                continue
            rows = groups(chunk, first, last)
            splitters = picked(block[by], field, field.dims[0], np.clip(ends, 0, block.rows - 1))
            places = in_order(joined([splitters, *(piece[by] for piece in rows)], 0), field, descending)
            start, stop = (bracket.row(places[2:], places[i], first * step) for i, bracket in enumerate((low, high)))
            yield from cut_rows(rows, start, stop)


@dataclass(frozen=True)
class _Bracket:
    """Rows of a chunk of which one is the first behind a splitter: from `start` to `stop`, both possible.

    Attributes:
        start: least row.
        stop: greatest row.
        side: whether equal keys lie behind the splitter ("left") or before it ("right").
    """

    start: int
    stop: int
    side: Literal["left", "right"] = "left"

    def row(self, places: Array, splitter: Any, first: int) -> int:
        """That row, among rows that begin with row `first` and have these places in the order of keys."""
        if self.start == self.stop:
            return self.start - first
        return int(np.searchsorted(places, splitter, self.side))


@dataclass(frozen=True, eq=False)
class _Samples:
    """Samples of all chunks, in the order of chunks and rows; `place` compares as their keys do."""

    place: Array
    chunk: Array
    row: Array
    next: Array
    group: Array

    @classmethod
    def of(cls, block: Block, places: Array) -> _Samples:
        return cls(places, *(np.asarray(block[name].values) for name in (CHUNK, ROW, NEXT, STEP)))

    def splitter(self, number: int, buckets: int) -> int:
        """The sample at which a bucket begins: -1 for the first bucket, the number of samples behind the last.

        Samples stand for the rows from them to the next one, so that buckets have about as many.
        """
        if not 0 < number < buckets:
            return -1 if number <= 0 else len(self.place)
        order = np.lexsort((self.row, self.chunk, self.place))
        weights = (self.next - self.row)[order]
        before = np.cumsum(weights) - weights
        found = int(np.searchsorted(before, int(weights.sum()) * number // buckets))
        return int(order[found]) if found < len(order) else len(order)

    def _of(self, chunk: int) -> slice:
        return slice(*(int(np.searchsorted(self.chunk, chunk, side)) for side in ("left", "right")))

    def step(self, chunk: int) -> int:
        """Rows of each of a chunk's groups."""
        return int(self.group[self._of(chunk)][0])

    def bracket(self, splitter: int, chunk: int, apart: bool) -> _Bracket:
        """Where a splitter lies in a chunk.

        Args:
            splitter: a sample, or -1, or the number of samples.
            chunk: one that has rows.
            apart: whether rows of its key may lie on either side; then they do in the order of chunks and rows.
        """
        own = self._of(chunk)
        rows = int(self.next[own][-1])
        if not 0 <= splitter < len(self.place):
            return _Bracket(*((0, 0) if splitter < 0 else (rows, rows)))
        there = int(self.chunk[splitter])
        if apart and chunk == there:
            return _Bracket(*(int(self.row[splitter]),) * 2)
        side: Literal["left", "right"] = "right" if apart and chunk < there else "left"
        before = int(np.searchsorted(self.place[own], self.place[splitter], side))
        if not before:  # the first row is a sample
            return _Bracket(0, 0)
        start = int(self.row[own][before - 1]) + 1
        return _Bracket(start, int(self.next[own][before - 1]), side)


def _rows_at(block: Block, fields: tuple[Field, ...], dim: str, order: Array) -> Block:
    """A block's rows in another order."""
    return Block(block.region, {f.name: picked(block[f.name], f, dim, order) for f in fields}, block.rows)
