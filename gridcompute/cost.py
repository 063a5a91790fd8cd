"""What an op costs with all that is fused into it: bytes live and read for one of its cells, and how it spreads."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import Any

from gridcompute.access import Part, Point, Slice, Whole
from gridcompute.actions.loads import Ingest, Load
from gridcompute.actions.maps import Map
from gridcompute.actions.shapes import TAKE_BYTES, TAKE_SPREAD, TakeAt
from gridcompute.actions.shuffles import Bucket, Ordered, Sample
from gridcompute.actions.stencils import Stencil
from gridcompute.actions.writes import Write
from gridcompute.axes import Layout
from gridcompute.op import Op
from gridcompute.rechunking import Columns, bytes_of
from gridcompute.sources.blocks import BLOCK_BYTES, BLOCK_ROWS
from gridcompute.spaces import Region

RANK_BYTES = 48.0
"""Of a row that is put in order: its key, its rank, its place, each more than once."""


SHARED_BYTES = 2**20
"""An input that all cells read as a whole counts for none of them up to this size."""

STORED_SHARE = 0.75
"""Of a stored chunk's bytes what its file may have."""

WRITTEN = 3
"""Of a chunk that is written: its values one after the other, what is made of them, and a buffer of the compressor."""


class Cost:
    """Properties of lowered ops, each found once until another op is kept: ops may share inputs many times over.

    Args:
        layouts: of the lowered ops, by id; grows.
        kept: ids of those that are kept; grows.
    """

    def __init__(self, layouts: Mapping[int, Layout], kept: Collection[int]) -> None:
        self._layouts, self._kept = layouts, kept
        self._memo: dict[tuple[str, Op], Any] = {}

    def forget(self) -> None:
        """Another op is kept: what was found may not hold any more."""
        self._memo.clear()

    def once(self, what: str, op: Op, find: Callable[[], Any]) -> Any:
        """A property of an op and all that is fused into it."""
        key = (what, op)
        if key not in self._memo:
            self._memo[key] = find()
        return self._memo[key]

    def fused(self, op: Op) -> list[Op]:
        """The inputs that are computed with the op."""
        return [source for source in op.inputs if id(source) not in self._kept]

    def parallel(self, op: Op) -> int:
        """Chunks that even small data is cut into; few after a take, since each may read all of its input."""
        if isinstance(op.action, TakeAt):
            return TAKE_SPREAD
        most: int = self.once("parallel", op, lambda: max([op.action.parallel, *map(self.parallel, self.fused(op))]))
        return most

    def heavy(self, op: Op) -> bool:
        """Whether the op, or one fused into it, runs a kernel."""
        found: bool = self.once("heavy", op, lambda: op.action.heavy or any(map(self.heavy, self.fused(op))))
        return found

    def stored_bytes(self, op: Op) -> int:
        """Decoded bytes of the largest stored chunk that the op reads from outside, or of a take's piece."""
        if isinstance(op.action, Load):
            return int(op.action.source.stored_bytes)
        own = TAKE_BYTES if isinstance(op.action, TakeAt) else 0
        most: int = self.once("stored", op, lambda: max([own, *map(self.stored_bytes, self.fused(op))]))
        return most

    def weight(self, op: Op) -> float:
        """Most bytes that are live at once for a cell of the output, while one input is computed after the other.

        What is read through several edges stays to the end (see `gridcompute.worker`), the rest until it was used.
        """
        known: float = self.once("weight", op, lambda: self._weight(op))
        return known

    def read(self, op: Op) -> float:
        """Bytes read from outside and from kept ops for a cell of the output."""
        leaves = (size for step, size in self._sizes(op).items() if step is not op and not self._inner(op, step))
        known: float = self.once("read", op, lambda: sum(leaves))
        return known

    def least(self, op: Op) -> Mapping[str, int]:
        """Extents of what is decoded at least where parts of stored chunks are read; empty where it is all of one."""
        if isinstance(op.action, Load):
            return dict(getattr(op.action.source, "least", ()))
        if id(op) in self._kept or not op.inputs or any(access != Point for access in op.accesses):
            return {}
        found = [self.least(source) for source in op.inputs]
        return {name: max(one.get(name, 1) for one in found) for name in op.space.names} if all(found) else {}

    def by_blocks(self, op: Op) -> bool:
        """Whether a part of a stored chunk is decoded, and its file read, without all of it."""
        least = self.least(op)
        return bool(least) and math.prod(least.values()) * op.cell_bytes < self.stored_bytes(op)

    def row_bytes(self, op: Op, region: Region) -> tuple[int, int] | None:
        """Bytes of a task that writes chunks which its sink cuts (`Write.grid`), and those that its parts share."""
        grid = op.action.grid(op) if isinstance(op.action, Write) else None
        if grid is None:
            return None
        columns, names = self.columns(op.inputs[0]), op.space.names
        row = int(sum(bytes_of(columns, dict(zip(names, region.shape, strict=True)))))
        chunk = int(max(bytes_of(columns, dict(zip(names, map(min, grid, region.shape), strict=True))), default=0))
        read = self.stored_bytes(op) * (1 + STORED_SHARE)  # one that isn't wanted whole lies beside what was wanted
        shared = row + int(read) + WRITTEN * chunk
        return shared, shared

    def columns(self, op: Op) -> Columns:
        """An op's columns, a value's bytes with what its task has beside it while it is computed."""
        alike = len({f.dims for f in op.fields}) == 1  # else a cell of the op isn't one of each column
        more = max(1.0, self.input_weight(op) / max(op.cell_bytes, 1e-9)) if alike else 1.0
        return [(f.dims, f.dtype.itemsize * more) for f in op.fields if not f.ragged]

    def block_rows(self, op: Op) -> float:
        """Cells, as estimated, of a position along a dimension that counts blocks; 1 where cells are counted."""
        known: float = self.once("rows", op, lambda: 1.0 if op.space.known else self._block_rows(op))
        return known

    def _block_rows(self, op: Op) -> float:
        if isinstance(op.action, Ingest):
            return min(BLOCK_ROWS, BLOCK_BYTES / max(op.cell_bytes, 1.0))
        before = [source for source in op.inputs if not source.space.known]
        if isinstance(op.action, Bucket):
            return max(1.0, self.block_rows(before[0]) * before[0].whole.cells / op.action.buckets) if before else 1.0
        if not before:
            if not self._layouts[id(op)].chunks:
                return 1.0
            first = Region(((0, 1), *op.whole.bounds[1:]))
            return max((float(box.shape[0]) for box in op.reads(0, first)), default=1.0)
        return max(map(self.block_rows, before))

    def input_weight(self, source: Op) -> float:
        """Most bytes that are live at once for a cell of an op that is read."""
        return source.cell_bytes if id(source) in self._kept else self.weight(source)

    def input_read(self, source: Op) -> float:
        """Bytes read from outside and from kept ops for a cell of an op that is read."""
        return source.cell_bytes if id(source) in self._kept or not source.inputs else self.read(source)

    def _inner(self, op: Op, step: Op) -> tuple[Op, ...]:
        """What is computed for a step of an op, within its task."""
        return step.inputs if step is op or id(step) not in self._kept else ()

    def _weight(self, op: Op) -> float:
        size = self._sizes(op)
        edges = Counter(source for step in size for source in self._inner(op, step))
        peak: dict[Op, float] = {}
        for step in reversed(size):
            live = most = 0.0
            for source in self._inner(op, step):
                most = max(most, live + peak[source])
                live += size[source]
            peak[step] = max(most, live + size[step] + self._arranged(step, size))
        return peak[op] + sum(size[step] for step, count in edges.items() if count > 1)

    @staticmethod
    def _arranged(step: Op, size: Mapping[Op, float]) -> float:
        """Bytes that are laid out anew: a kernel's inputs whose core dimensions don't come last, a stencil's with its
        halo, what a take has found before it is put in order, the ranks of a sort's rows.
        """
        if isinstance(step.action, Stencil):
            return size.get(step.inputs[0], 0.0)
        if isinstance(step.action, TakeAt):
            return 2 * size[step]
        if isinstance(step.action, Bucket | Ordered | Sample):
            return RANK_BYTES
        if not isinstance(step.action, Map):
            return 0.0
        found = {i for (i, name), core in zip(step.action.columns, step.action.core, strict=True)
                 if core and step.inputs[i].field(name).dims[-len(core):] != core}
        return sum(size.get(step.inputs[i], 0.0) for i in found)

    def _sizes(self, op: Op) -> dict[Op, float]:
        """Bytes of each op in a task that a cell of the output takes, consumers first."""
        steps = list(op.walk(lambda step: not self._inner(op, step)))[::-1]
        cells = {op: 1.0}
        for step in steps:
            for i, source in enumerate(self._inner(op, step)):
                cells[source] = max(cells.get(source, 0.0), cells[step] * self._per_cell(step, i))
        return {step: cells[step] * step.cell_bytes for step in steps}

    def _per_cell(self, op: Op, i: int) -> float:
        """Cells of input i in memory for one cell of the output."""
        source, access = op.inputs[i], op.accesses[i]
        if (share := getattr(access, "share", None)) is not None:
            return float(share)
        axes = self._layouts[id(source)].axes
        if isinstance(access, Part):  # a cell of a concatenation comes from one of its inputs
            return access.length / max(op.space[access.dim] or 1, 1)
        read = {name for name, _ in access.dims} if isinstance(access, Whole) else set()
        alone = all(name in read or name not in op.space for name in source.space.names)
        cells = math.prod(axis.length for _, axis in axes)
        if alone and op.space.known and source.cell_bytes * cells <= SHARED_BYTES:
            return float(cells / max(op.space.cells or 1, 1))  # all cells of a task read the same few values
        # What the output has whole too is read once for all of its cells.
        read -= set(op.space.names) if op.action.spans else op.action.whole
        dropped = access.dim if isinstance(access, Slice) and not access.keep else ""
        if isinstance(op.action, TakeAt) and i == 0:  # goes over it piece by piece
            dropped = op.action.dim
        # An output dimension that is new costs no more reading: its positions are made together.
        new = max(math.prod(op.space[name] or 1 for name in op.action.whole
                            if name in op.space and name not in source.space), 1)
        return math.prod(axis.length for name, axis in axes
                         if not axis.blocks and name != dropped and (name in read or name not in op.space)) / new
