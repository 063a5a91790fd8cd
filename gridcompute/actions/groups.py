"""Rows in groups by the values of their own columns: a sort by key, whose buckets come out reduced."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gridcompute.actions.gaps import gaps
from gridcompute.actions.shapes import picked
from gridcompute.actions.shuffles import Bucket, Groups, Shuffle, dense_ranks
from gridcompute.columns import Array, Block, Column, Field, Fixed, Ragged
from gridcompute.keys import digest
from gridcompute.op import Op, Read
from gridcompute.reducer import Reduction
from gridcompute.spaces import Region


@dataclass(frozen=True, eq=False)
class Group(Shuffle):
    """One row for each distinct key, in the keys' order; rows without a key (null or NaN) belong to no group.

    Attributes:
        reduction: what becomes of the other columns.
        columns: those that are reduced, with the names of what each gives.
    """

    reduction: Reduction
    columns: tuple[tuple[str, tuple[str, ...]], ...]

    @property
    def label(self) -> str:
        """See `Action`."""
        return f"groupby {self.reduction.name}"

    @property
    def key(self) -> object:
        """See `Action`."""
        return (self.keys, self.order, self.reduction.key, self.columns)

    @property
    def parts(self) -> Mapping[str, str]:
        """See `Action`."""
        return {f"reduction {self.reduction.name}": digest(self.reduction.key),
                "grouping": digest((self.keys, self.columns))}

    def gather(self, buckets: int) -> Bucket:
        """See `Shuffle`."""
        return GroupBucket(self.keys, self.order, buckets, self)


@dataclass(frozen=True, eq=False)
class GroupBucket(Bucket):
    """A bucket's groups; a bucket holds all rows of each of its keys, in the order of the input."""

    group: Group
    heavy: ClassVar[bool] = True
    together: ClassVar[bool] = True

    @property
    def label(self) -> str:
        """See `Action`."""
        return self.group.label

    @property
    def key(self) -> object:
        """See `Action`."""
        return (self.group.key, self.buckets)

    @property
    def parts(self) -> Mapping[str, str]:
        """See `Action`."""
        return self.group.parts

    def compute(self, op: Op, region: Region, read: Read, groups: Groups | None = None) -> Block:
        """See `Action`."""
        block, source = super().compute(op, region, read, groups), op.inputs[0]
        fields = {name: source.field(name) for name, _ in self.keys}
        rows, codes = _groups(block, fields)
        firsts = rows[np.searchsorted(codes, np.arange(codes[-1] + 1 if len(codes) else 0))]
        columns: dict[str, Column] = {}
        for name, field in fields.items():
            key = picked(block[name], field, source.space.names[0], firsts)
            columns[name] = Fixed(key.values) if isinstance(key, Fixed) else Ragged(key.offsets, key.values)
        for name, outputs in self.group.columns:
            column = block[name]
            values = np.zeros(column.cells, np.int8) if isinstance(column, Ragged) else column.values
            valid = None if column.valid is None else column.valid[rows]
            results = self.group.reduction.eager(values[rows], 0, valid=valid, codes=codes, groups=len(firsts))
            columns.update(zip(outputs, results, strict=True))
        return Block(region, columns, len(firsts))


def _groups(block: Block, keys: Mapping[str, Field]) -> tuple[Array, Array]:
    """The rows of a sorted block that have a key, and the number of each one's group, from 0."""
    keyed, begins = np.ones(block.rows, bool), np.zeros(block.rows, bool)
    for name, field in keys.items():
        keyed &= ~gaps(block[name])
        begins[1:] |= np.diff(dense_ranks(block[name], field)) != 0
    rows = np.flatnonzero(keyed)
    # A group's rows lie together, and it begins where any key changes, be it at a row without a key.
    return rows, np.unique(np.cumsum(begins)[rows], return_inverse=True)[1].astype(np.int64)
