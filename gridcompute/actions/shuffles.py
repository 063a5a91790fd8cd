"""Cells by key: into buckets by hash or by range, each bucket gathered and, for a sort, put in order.

Every input chunk is written once, its rows grouped by bucket; a bucket then reads its rows of every chunk, in
chunk order, so the result doesn't depend on which chunk was done first.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gridcompute.actions.shapes import joined_blocks, picked
from gridcompute.axes import Axis, Layout
from gridcompute.columns import Array, Block, Column, Field, Fixed, Ragged
from gridcompute.op import Action, Op, Read
from gridcompute.spaces import Region

BUCKET = "__bucket"
SAMPLES = 256
"""Keys that a chunk sends to the choice of range splitters."""


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
    order = np.arange(block.rows)
    for name, descending in reversed(keys):
        ranks = dense_ranks(block[name], by_name[name], descending)
        order = order[np.argsort(ranks[order], kind="stable")]
    return order


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
    """Evenly spaced keys of each chunk's sorted first key column."""

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

    def compute(self, op: Op, region: Region, read: Read) -> Block:
        """See `Action`."""
        block, source = read(0, op.reads(0, region)[0]), op.inputs[0]
        order = sort_order(block, ((self.by, self.descending),), source.fields)
        picks = (
            order[np.linspace(0, len(order) - 1, min(SAMPLES, len(order))).astype(np.int64)] if len(order) else order
        )
        column = picked(block[self.by], source.field(self.by), source.space.names[0], picks)
        return Block(region, {self.by: column}, len(picks))


@dataclass(frozen=True, eq=False)
class Partition(Action):
    """Each chunk's rows grouped by bucket (stable), with each row's bucket; input 1 holds the samples of a sort."""

    keys: tuple[tuple[str, bool], ...]
    order: bool
    buckets: int
    makes_rows: ClassVar[bool] = True
    durable: ClassVar[bool] = True

    @property
    def key(self) -> object:
        """See `Action`."""
        return (self.keys, self.order, self.buckets)

    @property
    def step(self) -> str:
        """See `Action`."""
        return "partition"

    def compute(self, op: Op, region: Region, read: Read) -> Block:
        """See `Action`."""
        block, source = read(0, op.reads(0, region)[0]), op.inputs[0]
        by, _ = self.keys[0]
        if self.order:
            buckets = self._by_range(op, block, read)
        else:
            buckets = hash_bucket(block[by], self.buckets)
            for name, _ in self.keys[1:]:
                buckets = (buckets.astype(np.int64) * 31 + hash_bucket(block[name], self.buckets)) % self.buckets
        order = np.argsort(buckets, kind="stable")
        dim = source.space.names[0]
        columns: dict[str, Column] = {f.name: picked(block[f.name], f, dim, order) for f in source.fields}
        columns[BUCKET] = Fixed(buckets[order].astype(np.int32))
        return Block(region, columns, block.rows)

    def _by_range(self, op: Op, block: Block, read: Read) -> Array:
        """Bucket by rank among the samples: equal keys always share a bucket."""
        by, descending = self.keys[0]
        samples, field = read(1, op.reads(1, op.whole)[0])[by], op.inputs[1].field(by)
        both = pa.concat_arrays([comparable(samples, field), comparable(block[by], field)])
        ranks = _ranks(both, descending)
        of_samples, of_rows = np.sort(ranks[:len(both) - block.rows]), ranks[len(both) - block.rows:]
        if not len(of_samples):
            return np.zeros(block.rows, np.int32)
        cuts = of_samples[np.linspace(0, len(of_samples), self.buckets + 1).astype(np.int64)[1:-1]]
        return np.searchsorted(cuts, of_rows, side="right").astype(np.int32)


@dataclass(frozen=True, eq=False)
class Bucket(Action):
    """One bucket's rows of all chunks, in chunk order; sorted by the keys where the shuffle is a sort."""

    keys: tuple[tuple[str, bool], ...]
    order: bool
    buckets: int
    makes_rows: ClassVar[bool] = True
    durable: ClassVar[bool] = True

    @property
    def key(self) -> object:
        """See `Action`."""
        return (self.keys, self.order, self.buckets)

    def axes(self, op: Op, inputs: tuple[Layout, ...]) -> dict[str, Axis]:
        """See `Action`: one block a bucket."""
        return {op.space.names[0]: Axis((self.buckets,), extent=1, blocks=True)}

    def compute(self, op: Op, region: Region, read: Read) -> Block:
        """See `Action`."""
        source = op.inputs[0]
        fields = tuple(f for f in source.fields if f.name != BUCKET)
        (lo, hi), dim = region.bounds[0], source.space.names[0]
        pieces = []
        for chunk in range(source.whole.shape[0]):
            block = read(0, Region.of((chunk, chunk + 1)))
            held = block[BUCKET]
            assert isinstance(held, Fixed)
            rows = slice(*np.searchsorted(held.values, [lo, hi]).tolist())
            columns = {f.name: picked(block[f.name], f, dim, rows) for f in fields}
            pieces.append(Block(region, columns, rows.stop - rows.start))
        none = replace(read(0, Region.of((0, 0))), region=region) if not pieces else None
        block = none or joined_blocks(pieces, fields, dim, region)
        if not self.order:
            return block
        order = sort_order(block, self.keys, fields)
        return Block(region, {f.name: picked(block[f.name], f, dim, order) for f in fields}, block.rows)
