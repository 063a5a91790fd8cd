"""Nulls and NaN: where they are, and a value in their place."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gridcompute.actions.maps import Place
from gridcompute.columns import Array, Block, Column, Fixed, Ragged, rows_of
from gridcompute.op import Action, Op, Read
from gridcompute.spaces import Region


def gaps(column: Column) -> Array:
    """Where a column has no value, of its cells' shape: nulls, and NaN among floats."""
    if isinstance(column, Ragged):
        return np.zeros(column.cells, bool) if column.valid is None else ~column.valid
    missing = np.isnan(column.values) if column.values.dtype.kind == "f" else np.zeros(column.values.shape, bool)
    return missing if column.valid is None else missing | ~column.valid


@dataclass(frozen=True, eq=False)
class IsNull(Action):
    """Whether any of several columns, which all span the output's dimensions, has no value.

    Attributes:
        columns: where they are.
    """

    columns: tuple[Place, ...]

    @property
    def key(self) -> object:
        """See `Action`."""
        return self.columns

    def compute(self, op: Op, region: Region, read: Read) -> Block:
        """See `Action`."""
        blocks = {i: read(i, op.reads(i, region)[0]) for i, _ in self.columns}
        missing = gaps(blocks[self.columns[0][0]][self.columns[0][1]])
        for i, name in self.columns[1:]:
            missing = missing | gaps(blocks[i][name])
        rows = rows_of(op.space, ((block, op.inputs[i].space) for i, block in sorted(blocks.items())))
        return Block(region, {op.fields[0].name: Fixed(missing)}, rows)


@dataclass(frozen=True, eq=False)
class FillNull(Action):
    """A column with a value where it has none.

    Attributes:
        column: of input 0.
        value: a number, of the column's dtype.
    """

    column: str
    value: float | int | bool

    @property
    def key(self) -> object:
        """See `Action`."""
        return (self.column, self.value)

    def compute(self, op: Op, region: Region, read: Read) -> Block:
        """See `Action`."""
        block = read(0, op.reads(0, region)[0])
        column = block[self.column]
        assert isinstance(column, Fixed)
        missing = gaps(column)
        values = column.values
        if missing.any():
            values = np.where(missing, values.dtype.type(self.value), values)
        return Block(region, {op.fields[0].name: Fixed(values)}, block.rows)
