"""Inner products of a column with itself: a matrix over the positions of some dimensions, summed over all others.

The other dimensions are cut into boxes, and boxes are put together to blocks whose values are many times those of the
matrix. A block adds its boxes in order, by BLAS in float64; `sum` over the blocks, with a fixed tree, does the rest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gridcompute.axes import Axis, Layout
from gridcompute.columns import Array, Block, Field, Fixed
from gridcompute.op import Action, Op, Read
from gridcompute.spaces import Region, Space

BLOCK = "block"
"""Dimension of the matrices that are summed."""

STATE_SHARE = 32
"""A block has at least so many times the bytes of its matrix, which is committed, read and added."""

LEAST_WORK = 2**33
"""Products that a block has at least: about 0.2 s of one core, worth a task and the sum of one matrix more."""


@dataclass(frozen=True)
class Boxes:
    """Position b along `BLOCK` reads the boxes `b * run` to `(b + 1) * run`, with all of the other dimensions.

    Attributes:
        layout: of the dimensions that are summed over.
        run: boxes of a block.
        share: cells of a box for each value of the matrix, for a plan's memory.
    """

    layout: Layout
    run: int
    share: float

    @property
    def key(self) -> tuple[object, ...]:
        """What enters the recipe: sums depend on how they are cut."""
        return ("boxes", [(name, axis.parts, axis.extent) for name, axis in self.layout.axes], self.run)

    @property
    def count(self) -> int:
        """Number of blocks."""
        return -(-self.layout.chunks // self.run)

    def inputs(self, region: Region, out: Space, into: Region, names: tuple[str, ...]) -> tuple[Region, ...]:
        """See `Access`: one box after the other."""
        lo, hi = region.bounds[0]
        found = []
        for box in range(lo * self.run, min(hi * self.run, self.layout.chunks)):
            where = dict(zip(self.layout.space.names, self.layout.region(box).bounds, strict=True))
            found.append(Region(tuple(where.get(name, full) for name, full in zip(names, into.bounds, strict=True))))
        return tuple(found)

    def consumers(self, region: Region, names: tuple[str, ...], out: Space, whole: Region) -> Region:
        """See `Access`."""
        where = dict(zip(names, region.bounds, strict=True))
        boxes = list(self.layout.covering(Region(tuple(where[name] for name in self.layout.space.names))))
        blocks = (boxes[0] // self.run, boxes[-1] // self.run + 1) if boxes else (0, 0)
        return Region((blocks, *whole.bounds[1:]))


@dataclass(frozen=True, eq=False)
class Gram(Action):
    """Matrices of inner products, one a block.

    Attributes:
        column: of the input.
        dims: whose positions are the rows, one after the other; the last output dimensions are rows and columns.
        names: of the output dimensions that are rows and columns.
        centred: whether each series along `dims` has its mean taken off first.
        box_bytes: of a box in float64, twice.
    """

    column: str
    dims: tuple[str, ...]
    names: tuple[str, str]
    centred: bool
    box_bytes: int
    durable: ClassVar[bool] = True

    @property
    def key(self) -> object:
        """See `Action`."""
        return (self.column, self.dims, self.names, self.centred)

    @property
    def whole(self) -> frozenset[str]:
        """See `Action`."""
        return frozenset(self.names)

    @property
    def step(self) -> str:
        """See `Action`."""
        return "inner products"

    @property
    def aligned(self) -> bool:
        """See `Action`: a part of a matrix would need the same boxes."""
        return True

    @property
    def held_bytes(self) -> int:
        """See `Action`."""
        return self.box_bytes

    def axes(self, op: Op, inputs: tuple[Layout, ...]) -> dict[str, Axis]:
        """See `Action`: a chunk a block."""
        return {name: Axis((length or 0,), extent=1 if name == BLOCK else length or 0)
                for name, length in op.space.dims}

    def compute(self, op: Op, region: Region, read: Read) -> Block:
        """See `Action`."""
        f = op.inputs[0].field(self.column)
        size = op.space.shape[1] or 0
        total, lost = np.zeros((size, size)), np.zeros(size, bool)
        for box in op.reads(0, region):
            column = read(0, box)[self.column]
            assert isinstance(column, Fixed)
            rows = in_rows(column, f, self.dims)
            if self.centred:
                mean = rows.mean(axis=0)
                known = ~np.isnan(mean)
                rows = rows - mean if known.all() else rows[:, known] - mean[known]
            elif (gone := np.isnan(rows.sum(axis=1))).any():
                lost |= gone
                rows = np.where(gone[:, None], 0.0, rows)
            total += rows @ rows.T
        total[lost], total[:, lost] = np.nan, np.nan
        return Block(region, {op.fields[0].name: Fixed(total[None])}, 1)


def in_rows(column: Fixed, f: Field, dims: tuple[str, ...]) -> Array:
    """Values in float64 as a matrix, the column's own where it can be: a row for each of `dims`; nulls are NaN."""
    order = [*(f.dims.index(dim) for dim in dims), *(i for i, dim in enumerate(f.dims) if dim not in dims)]
    values = column.values if column.valid is None else np.where(column.valid, column.values, np.nan)
    turned = values.transpose(order)
    count = math.prod(turned.shape[:len(dims)])
    return np.ascontiguousarray(turned.reshape(count, -1), np.float64)


def boxes_of(axes: Mapping[str, Axis], extents: tuple[int, ...], fixed: int, bytes_each: float) -> Boxes:
    """Blocks of boxes of the dimensions that are summed over.

    Args:
        axes: these dimensions.
        extents: of a box.
        fixed: rows of the matrix.
        bytes_each: of a value of the column.
    """
    layout = Layout.of({name: Axis((axis.length,), extent=extent)
                        for (name, axis), extent in zip(axes.items(), extents, strict=True)})
    cells = math.prod(map(min, extents, (axis.length for axis in axes.values())))
    own = max(1, int(cells * fixed * bytes_each))
    run = max(1, -(-STATE_SHARE * 8 * fixed * fixed // own), -(-LEAST_WORK // max(1, fixed * fixed * cells)))
    return Boxes(layout, run, cells / max(fixed, 1))


def product(dims: tuple[str, ...], space: Space) -> int:
    """Positions of some dimensions together."""
    return math.prod(space[dim] or 1 for dim in dims)

