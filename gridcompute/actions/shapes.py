"""Choosing and joining positions: slices, single positions, index lists, concatenation. No values change."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from gridcompute import access
from gridcompute.axes import DECODE_BYTES, Axis, Layout
from gridcompute.columns import Array, Block, Column, Field, Fixed, Ragged, rows_of
from gridcompute.errors import KernelError
from gridcompute.op import Action, Op, Read
from gridcompute.spaces import Region


def picked(column: Column, field: Field, dim: str, index: Array | slice | int) -> Column:
    """A column restricted along one dimension; an int drops the dimension."""
    if dim not in field.dims:
        return column
    if isinstance(column, Ragged):
        if isinstance(index, slice):
            start, stop, step = index.indices(column.cells)
            if step == 1:
                return column.sliced(start, max(start, stop)).compact()
            index = np.arange(start, stop, step)
        return column.taken(np.atleast_1d(np.asarray(index, np.int64)))
    where = tuple(index if name == dim else slice(None) for name in field.dims)
    return Fixed(column.values[where], None if column.valid is None else column.valid[where])


def joined(columns: list[Column], axis: int) -> Column:
    """Columns one after the other along an axis."""
    if len(columns) == 1:
        return columns[0]
    if isinstance(columns[0], Ragged):
        ragged = [c for c in columns if isinstance(c, Ragged)]
        lengths = np.concatenate([np.diff(c.offsets) for c in ragged])
        offsets = np.zeros(len(lengths) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        values = np.concatenate([c.values[c.offsets[0]:c.offsets[-1]] for c in ragged])
        return Ragged(offsets, values, _joined_masks([c.valid for c in ragged], [(c.cells,) for c in ragged], 0))
    fixed = [c for c in columns if isinstance(c, Fixed)]
    return Fixed(np.concatenate([c.values for c in fixed], axis),
                 _joined_masks([c.valid for c in fixed], [c.values.shape for c in fixed], axis))


def _joined_masks(masks: list[Array | None], shapes: list[tuple[int, ...]], axis: int) -> Array | None:
    if all(mask is None for mask in masks):
        return None
    return np.concatenate([np.ones(shape, bool) if mask is None else mask
                           for mask, shape in zip(masks, shapes, strict=True)], axis)


def joined_blocks(blocks: list[Block], fields: tuple[Field, ...], dim: str, region: Region) -> Block:
    """Blocks one after the other along a dimension."""
    if len(blocks) == 1:
        return Block(region, blocks[0].columns, blocks[0].rows)
    columns: dict[str, Column] = {}
    for f in fields:
        if dim in f.dims:
            columns[f.name] = joined([b[f.name] for b in blocks], f.dims.index(dim))
        else:
            columns[f.name] = blocks[0][f.name]
    return Block(region, columns, sum(b.rows for b in blocks))


@dataclass(frozen=True, eq=False)
class Select(Action):
    """Positions of one dimension, as its access (a `Slice` or a `Take`) names them."""

    how: access.Slice | access.Take

    @property
    def label(self) -> str:
        """See `Action`."""
        return "isel"

    @property
    def key(self) -> object:
        """See `Action`."""
        return ("select", self.how)

    @property
    def positional(self) -> bool:
        """See `Action`."""
        return True

    def axes(self, op: Op, inputs: tuple[Layout, ...]) -> dict[str, Axis]:
        """See `Action`: stored chunks no longer line up along the dimension."""
        axes = dict(inputs[0].axes)
        if isinstance(self.how, access.Slice) and not self.how.keep:
            del axes[self.how.dim]
        else:
            axes[self.how.dim] = Axis((op.space[self.how.dim] or 0,))
        return axes

    def compute(self, op: Op, region: Region, read: Read) -> Block:
        """See `Action`."""
        how, source, boxes = self.how, op.inputs[0], op.reads(0, region)
        block = joined_blocks([read(0, box) for box in boxes], source.fields, how.dim, region)
        index: Array | slice | int
        if isinstance(how, access.Take):
            lo, hi = region.bounds[op.space.names.index(how.dim)]
            starts, ends = np.array(how.runs(lo, hi)).T
            positions = how.index[lo:hi]
            run = np.searchsorted(starts, positions, "right") - 1
            index = positions - (starts - np.cumsum(ends - starts) + (ends - starts))[run]
        elif how.keep:
            index = slice(None, None, how.step)
        else:
            index = 0
        columns = {f.name: picked(block[f.name], source.field(f.name), how.dim, index) for f in op.fields}
        return Block(region, columns, region.shape[0] if region.bounds else 1)


@dataclass(frozen=True, eq=False)
class Concat(Action):
    """Inputs one after the other along a dimension; each is cut on its own, so one more changes no other's chunks."""

    dim: str

    @property
    def key(self) -> object:
        """See `Action`."""
        return ("concat", self.dim)

    @property
    def positional(self) -> bool:
        """See `Action`."""
        return True

    def axes(self, op: Op, inputs: tuple[Layout, ...]) -> dict[str, Axis]:
        """See `Action`."""
        axes = dict(inputs[0].axes)
        along = [layout[self.dim] for layout in inputs]
        parts = tuple(part for axis in along for part in axis.parts)
        axes[self.dim] = Axis(parts, multiple=max(axis.multiple for axis in along),
                              together=math.lcm(*(axis.together for axis in along)))
        return axes

    def compute(self, op: Op, region: Region, read: Read) -> Block:
        """See `Action`."""
        blocks = [read(i, part) for i in range(len(op.inputs)) for part in op.reads(i, region)]
        if not blocks:
            first = op.inputs[0]
            empty = replace(
                first.whole,
                bounds=tuple(
                    (lo, lo) if name == self.dim else at
                    for name, at, (lo, _) in zip(op.space.names, region.bounds, first.whole.bounds, strict=True)
                ),
            )
            blocks = [read(0, empty)]
        return joined_blocks(blocks, op.fields, self.dim, region)


@dataclass(frozen=True, eq=False)
class Transpose(Action):
    """Columns with their dimensions in another order."""

    @property
    def key(self) -> object:
        """See `Action`: the order is that of the op's columns."""
        return "transpose"

    def axes(self, op: Op, inputs: tuple[Layout, ...]) -> dict[str, Axis]:
        """See `Action`."""
        return {name: inputs[0][name] for name in op.space.names}

    def compute(self, op: Op, region: Region, read: Read) -> Block:
        """See `Action`."""
        source, block = op.inputs[0], read(0, op.reads(0, region)[0])
        columns: dict[str, Column] = {}
        for f in op.fields:
            column, dims = block[f.name], source.field(f.name).dims
            assert isinstance(column, Fixed)
            order = [dims.index(name) for name in f.dims]
            valid = None if column.valid is None else np.ascontiguousarray(column.valid.transpose(order))
            columns[f.name] = Fixed(np.ascontiguousarray(column.values.transpose(order)), valid)
        return Block(region, columns, region.shape[0] if region.bounds else 1)


TAKE_BYTES = DECODE_BYTES
"""Input that a take has in memory at once."""

TAKE_SPREAD = 16
"""Chunks that a take's output is cut into where memory doesn't ask for more."""


@dataclass(frozen=True, eq=False)
class TakeAt(Action):
    """Cells of input 0 along `dim`, at the positions that input 1's column holds."""

    dim: str
    index: str
    heavy: ClassVar[bool] = True

    @property
    def key(self) -> object:
        """See `Action`."""
        return ("take", self.dim, self.index)

    @property
    def positional(self) -> bool:
        """See `Action`."""
        return True

    def axes(self, op: Op, inputs: tuple[Layout, ...]) -> dict[str, Axis]:
        """See `Action`: the index's axis stands in for the dimension."""
        (new, axis), = inputs[1].axes
        return {new if name == self.dim else name: axis if name == self.dim else old for name, old in inputs[0].axes}

    def compute(self, op: Op, region: Region, read: Read) -> Block:
        """See `Action`: goes over the positions in their order, so that a piece of the input is in memory at a time."""
        data = op.inputs[0]
        index = read(1, op.reads(1, region)[0])[self.index]
        assert isinstance(index, Fixed)
        place = data.space.names.index(self.dim)
        length = data.whole.shape[place]
        known = np.ones(len(index.values), bool) if index.valid is None else index.valid
        wrong = ~known | (index.values < 0) | (index.values >= length)
        if wrong.any():
            at = int(np.flatnonzero(wrong)[0])
            row = at + region.bounds[place][0]
            said = (f"position {index.values[at]} at row {row} lies outside dimension {self.dim!r} of length {length}"
                    if known[at] else f"the position at row {row} is null")
            raise KernelError(f"take: {said}", op=str(op), cell=(row,), hint="check the index column")
        order = np.argsort(index.values, kind="stable")
        wanted, box = index.values[order].astype(np.int64), list(op.reads(0, region)[0].bounds)
        others = math.prod(hi - lo for i, (lo, hi) in enumerate(box) if i != place)
        step = max(1, int(TAKE_BYTES / max(data.cell_bytes * others, 1e-9)))
        pieces: list[Block] = []
        for first in np.unique(wanted // step) * step if len(wanted) else (0,):
            here = wanted[slice(*np.searchsorted(wanted, (first, first + step)))]
            lo, hi = (int(here[0]), int(here[-1]) + 1) if len(here) else (0, 0)
            box[place] = (lo, hi)
            block = read(0, Region(tuple(box)))
            columns = {f.name: picked(block[f.name], data.field(f.name), self.dim, here - lo) for f in op.fields}
            pieces.append(Block(region, columns, len(here)))
        sorted_cells = joined_blocks(pieces, data.fields, self.dim, region)
        back = np.argsort(order)
        return Block(region, {f.name: picked(sorted_cells[f.name], data.field(f.name), self.dim, back)
                              for f in op.fields}, region.shape[0])


@dataclass(frozen=True, eq=False)
class Choose(Action):
    """Columns of one or several inputs side by side, under new names: (new name, (input, old name))."""

    names: tuple[tuple[str, tuple[int, str]], ...]

    @property
    def key(self) -> object:
        """See `Action`."""
        return self.names

    def read_of(self, op: Op, i: int) -> set[str]:
        """See `Action`."""
        return {old for _, (place, old) in self.names if place == i}

    def compute(self, op: Op, region: Region, read: Read) -> Block:
        """See `Action`."""
        blocks = [read(i, op.reads(i, region)[0]) for i in range(len(op.inputs))]
        return Block(region, {new: blocks[i][old] for new, (i, old) in self.names},
                     rows_of(op.space, zip(blocks, (source.space for source in op.inputs), strict=True)))
