"""Ops whose number of output cells the data decides: `filter` drops cells, `explode` gives several for one.

Chunk k of the output is what chunk k of the input gives. Along such a dimension positions count blocks (the
chunks) until something needs the cells themselves counted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import numpy as np

from gridcompute.access import Access
from gridcompute.actions.maps import Map, skipped, spread
from gridcompute.actions.shapes import picked
from gridcompute.axes import Axis, Layout
from gridcompute.columns import Block, Column, Fixed
from gridcompute.compiled import explode_cells
from gridcompute.op import Action, Op, Read
from gridcompute.progressword import kernel_runs
from gridcompute.skipping import Carrier, explode_skipping, here, naming_the_cell, work_of
from gridcompute.skips import Skips
from gridcompute.spaces import Region, Space


@dataclass(frozen=True)
class Blockwise:
    """Output block k reads the cells of the input's chunk k along `dim`; other dimensions position by position."""

    dim: str
    axis: Axis

    @property
    def key(self) -> tuple[object, ...]:
        """What enters the recipe: where chunks begin and end, but not how many there are."""
        return ("blockwise", self.dim, self.axis.extent, *([self.axis.run] if self.axis.run > 1 else []))

    def inputs(self, region: Region, out: Space, into: Region, names: tuple[str, ...]) -> tuple[Region, ...]:
        """See `Access`."""
        lo, hi = region.bounds[0]
        rows = (self.axis.bounds(lo)[0], self.axis.bounds(hi - 1)[1]) if hi > lo else (0, 0)
        return (Region((rows, *into.bounds[1:])),)

    def consumers(self, region: Region, names: tuple[str, ...], out: Space, whole: Region) -> Region:
        """See `Access`."""
        found = self.axis.covering(*region.bounds[0])
        return Region(((found.start, found.stop), *whole.bounds[1:]))


@dataclass(frozen=True, eq=False)
class Filter(Action):
    """Cells of input 0 where the boolean column of input 1 is true (and not null)."""

    mask: str
    makes_rows: ClassVar[bool] = True

    @property
    def key(self) -> object:
        """See `Action`."""
        return ("filter", self.mask)

    def compute(self, op: Op, region: Region, read: Read) -> Block:
        """See `Action`."""
        data, source = read(0, op.reads(0, region)[0]), op.inputs[0]
        mask = read(1, op.reads(1, region)[0])[self.mask]
        assert isinstance(mask, Fixed)
        keep = mask.values if mask.valid is None else mask.values & mask.valid
        index = np.flatnonzero(keep)
        dim = source.space.names[0]
        kept = {f.name: picked(data[f.name], source.field(f.name), dim, index) for f in op.fields}
        full = {f.name: replace(kept[f.name], valid=None) for f in op.fields if not f.nullable}
        return Block(region, {**kept, **full}, len(index))


@dataclass(frozen=True, eq=False)
class Explode(Action):
    """One cell to many: a kernel gives arrays, their elements are the output's cells.

    Attributes:
        cells: the kernel with its columns, as `Map` holds them.
        keep: columns of input 0 that are repeated for each output cell.
        most: longest array a cell may give; without it the kernel runs twice (count, then fill).
    """

    cells: Map
    keep: tuple[str, ...] = ()
    most: int | None = None
    heavy: ClassVar[bool] = True
    makes_rows: ClassVar[bool] = True

    @property
    def key(self) -> object:
        """See `Action`."""
        return (self.cells.key, self.keep, self.most)

    @property
    def parts(self) -> dict[str, str]:
        """See `Action`."""
        return dict(self.cells.parts)

    @property
    def skips(self) -> bool:
        """See `Action`."""
        return self.cells.skips

    @property
    def positional(self) -> bool:
        """See `Action`."""
        return self.cells.positional

    @property
    def parallel(self) -> int:
        """See `Action`."""
        return self.cells.parallel

    def compute(self, op: Op, region: Region, read: Read, carrier: Carrier | None = None) -> Block:
        """See `Action`."""
        kernel, params, dtypes = self.cells.kernel, dict(self.cells.params), self.cells.dtypes
        wanted = [op.reads(i, region)[0] for i in range(len(op.inputs))]
        blocks = [read(i, part) for i, part in enumerate(wanted)]
        inputs, given = self.cells_over(op, wanted[0], blocks)
        skips: tuple[Skips, ...] = ()
        laid = partial(work_of, kernel, inputs, params, outputs=dtypes, rows=True, limit=self.most, **given)
        with kernel_runs(str(op), given["shape"], given["origin"], by_cell=kernel.mode == "cell") as word:
            if self.skips:
                work = laid()
                counts, values, failed = explode_skipping(work, carrier or partial(here, mark=word))
                skips = skipped(op, op.inputs[0].space, wanted[0], self.cells.loop, work.cells, failed)
            else:
                with naming_the_cell(laid):
                    counts, values = explode_cells(kernel, inputs, params, outputs=dtypes, max=self.most, progress=word,
                                                   **given)
        made = [f for f in op.fields if f.name not in self.keep]
        columns: dict[str, Column] = {f.name: Fixed(array) for f, array in zip(made, values, strict=True)}
        parents = np.repeat(np.arange(len(counts)), counts)
        for name in self.keep:
            columns[name] = picked(blocks[0][name], op.inputs[0].field(name), op.inputs[0].space.names[0], parents)
        return Block(region, columns, int(counts.sum()), skips)

    def cells_over(self, op: Op, wanted: Region, blocks: list[Block]) -> tuple[list[Column], dict[str, Any]]:
        """As `Map.cells_over`, of the inputs' blocks over a region of theirs."""
        shape = (blocks[0].rows,)
        inputs = [spread(blocks[i][name], op.inputs[i].field(name), self.cells.loop, shape, core)
                  for (i, name), core in zip(self.cells.columns, self.cells.core, strict=True)]
        return inputs, {
            "shape": shape, "origin": (wanted.start[0] if op.inputs[0].space.known else 0,),
            "space_shape": (op.inputs[0].space.shape[0] or 0,), "seed": self.cells.seed, "rng_name": self.cells.name,
        }  # fmt: skip


def over_blocks(op: Op, inputs: tuple[Op, ...], layout: Layout) -> tuple[Op, Layout]:
    """A filter or an explode over the cut layout of its inputs: one output block a chunk."""
    name, axis = layout.axes[0]
    how: Access = Blockwise(name, axis)
    out = Layout.of({op.space.names[0]: Axis((axis.chunks,), extent=1, blocks=True)})
    return Op(op.action, inputs, (how,) * len(inputs), out.space, op.fields, op.name, out.whole), out
