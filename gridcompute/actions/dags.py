"""Along a graph: kernels whose cells read the results of other cells of the same op (`propagate`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gridcompute.actions.maps import Map, Place, spread
from gridcompute.columns import Array, Block, Column, Fixed, Ragged
from gridcompute.compiled import run_cells
from gridcompute.dags import Dag
from gridcompute.digests import digest
from gridcompute.errors import KernelError, RunError
from gridcompute.flows import Flow, fits
from gridcompute.op import Action, Op, Read
from gridcompute.progressword import kernel_runs
from gridcompute.spaces import Region
from gridcompute.status import counted
from gridcompute.stepping import ALONE, Crew


@dataclass(frozen=True, eq=False)
class Propagate(Action):
    """Kernels over the cells of one dimension in an order in which each finds its inputs' results.

    Attributes:
        several: the kernels, of one signature: first a run of results of the cell's inputs an output, then columns.
        dag: which cells each reads.
        kind: where the number of each cell's kernel comes from; None where there is one.
        keep: the state is kept after each so many cells; 0: when it is time. It isn't part of the key.
    """

    several: tuple[Map, ...]
    dag: Dag
    kind: Place | None = None
    keep: int = 0
    heavy: ClassVar[bool] = True
    durable: ClassVar[bool] = True
    spans: ClassVar[bool] = True

    @property
    def cells(self) -> Map:
        """The first kernel."""
        return self.several[0]

    @property
    def key(self) -> object:
        """See `Action`."""
        return ([one.key for one in self.several], self.dag, self.kind)

    @property
    def parts(self) -> Mapping[str, str]:
        """See `Action`."""
        of_all = [(f"kernel {k}: " if len(self.several) > 1 else "", one.parts) for k, one in enumerate(self.several)]
        named = {prefix + name: value for prefix, parts in of_all for name, value in parts.items()}
        return {**named, "graph of cells": self.dag.key, "kinds": digest(self.kind)}

    @property
    def positional(self) -> bool:
        """See `Action`."""
        return True

    @property
    def aligned(self) -> bool:
        """See `Action`."""
        return True

    @property
    def held_bytes(self) -> int:
        """See `Action`: the graph, and a byte a cell that says that it is done."""
        return self.dag.nbytes + self.dag.cells

    @property
    def remark(self) -> str:
        """See `Action`."""
        dag = self.dag
        return f"along {counted(dag.edges, 'edge')} of {counted(dag.cells, 'cell')} in {counted(dag.levels, 'level')}"

    def compute(self, op: Op, region: Region, read: Read, crew: Crew = ALONE) -> Block:
        """See `Action`; the crew says how many threads carry it, and where states are kept on the way."""
        kept = crew.checkpoints.latest() if crew.checkpoints is not None else None
        own, kind = self._own(op, read)
        if kept:
            row, values = kept[0], [np.array(kept[1][f.name].values) for f in op.fields]
        else:
            lengths = dict(zip(op.space.names, op.whole.shape, strict=True))
            row, values = 0, [np.zeros([lengths[name] for name in f.dims], f.dtype) for f in op.fields]
        make = Flow if fits(self.several) else PlainFlow
        flow = make(self.several, self.dag, kind, own, values, crew.members, row)
        keep = self.keep if flow.exact else 0
        while flow.row < self.dag.cells:
            flow.go(min(self.dag.cells, flow.row - flow.row % keep + keep) if keep else self.dag.cells)
            if flow.row < self.dag.cells:
                crew.keep(flow.row, keep, lambda: _block(op, region, flow.columns()))
        return _block(op, region, flow.columns())

    def _own(self, op: Op, read: Read) -> tuple[list[Column], Array | None]:
        """The cells' own columns, and the number of each one's kernel."""
        cells = op.whole.shape[0]  # counted by now
        if cells != self.dag.cells:
            raise RunError(f"propagate {op}: there are {counted(cells, 'cell')}, but the graph has {self.dag.cells:,}",
                           hint="give one node a cell, in the cells' order")
        blocks = [read(i, source.whole) for i, source in enumerate(op.inputs)]
        own = [spread(blocks[i][name], op.inputs[i].field(name), self.cells.loop, (cells,), core)
               for (i, name), core in zip(self.cells.columns, self.cells.core, strict=True)]
        if self.kind is None:
            return own, None
        column = blocks[self.kind[0]][self.kind[1]]
        assert isinstance(column, Fixed)
        wrong = np.flatnonzero((column.values < 0) | (column.values >= len(self.several)))
        if len(wrong):
            cell = int(wrong[0])
            raise KernelError(f"propagate {op} failed at cell {(cell,)}: its kind is {column.values[cell]}, but there "
                              f"are {counted(len(self.several), 'kernel')}", op=str(op), cell=(cell,),
                              hint="kinds count the kernels from 0")
        return own, column.values.astype(np.int64)


def _block(op: Op, region: Region, columns: Sequence[Fixed]) -> Block:
    named: dict[str, Column] = {f.name: c for f, c in zip(op.fields, columns, strict=True)}
    return Block(region, named, len(columns[0].values))


class PlainFlow:
    """Cells through `run_cells`, for kernels that compiled loops don't take: the reference of `gridcompute.flows`.

    Cells that follow each other, have the same kernel and don't read each other go together, unless results are arrays.
    Arguments are `Flow`'s.
    """

    exact = False

    def __init__(self, several: Sequence[Map], dag: Dag, kind: Array | None, own: Sequence[Column],
                 values: Sequence[Array], members: int, row: int) -> None:
        self.row, self.dag, self.values = row, dag, list(values)
        self._several, self._kind, self._own = several, kind, own
        self._arrays = any(one.ndim > 1 for one in values)

    def go(self, last: int) -> None:
        """One run of cells."""
        row, dag = self.row, self.dag
        first, count = int(dag.order[row]), 1
        while self._joins(row, count):
            count += 1
        at = slice(int(dag.offsets[first]), int(dag.offsets[first + count]))
        offsets = dag.offsets[first: first + count + 1] - at.start
        read = [values[dag.inputs[at]] for values in self.values]
        inputs: list[Column] = [Fixed(one[None]) if self._arrays else Ragged(offsets, one) for one in read]
        inputs += [_cut(column, first, count) for column in self._own]
        one = self._several[0 if self._kind is None else int(self._kind[first])]
        with kernel_runs(one.name, (count,), (first,), by_cell=one.kernel.mode == "cell") as word:
            results = run_cells(one.kernel, inputs, dict(one.params), outputs=list(one.dtypes), shape=(count,),
                                origin=(first,), space_shape=(dag.cells,), seed=one.seed, rng_name=one.name,
                                progress=word)
        for values, result in zip(self.values, results, strict=True):
            assert isinstance(result, Fixed)
            values[first: first + count] = result.values
        self.row += count

    def _joins(self, row: int, count: int) -> bool:
        """Whether the cell after so many can be computed with them."""
        dag, place = self.dag, row + count
        if self._arrays or place >= dag.cells or dag.order[place] != dag.order[row] + count:
            return False
        first, cell = dag.order[row], dag.order[place]
        read = dag.inputs[dag.offsets[cell]: dag.offsets[cell + 1]]
        alike = self._kind is None or self._kind[cell] == self._kind[first]
        return bool(alike and not np.any((read >= first) & (read < cell)))

    def columns(self) -> list[Fixed]:
        """The results."""
        return [Fixed(values) for values in self.values]


def _cut(column: Column, first: int, count: int) -> Column:
    if isinstance(column, Ragged):
        return column.sliced(first, first + count)
    cells = slice(first, first + count)
    return Fixed(column.values[cells], None if column.valid is None else column.valid[cells])
