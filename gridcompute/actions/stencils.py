"""Neighbourhoods: a kernel over a window around each cell, once (`stencil`) or step after step (`iterate`)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, get_args

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from gridcompute.access import Boundary, Halo, wrapped
from gridcompute.actions.maps import Map, skipped
from gridcompute.columns import Array, Block, Column, Fixed, Ragged
from gridcompute.compiled import run_cells
from gridcompute.digests import digest, in_words
from gridcompute.edges import Edges
from gridcompute.errors import KernelError
from gridcompute.gang import fits
from gridcompute.loops import in_step
from gridcompute.op import Action, Op, Read
from gridcompute.progressword import kernel_runs
from gridcompute.skipping import Carrier, here, run_skipping, work_of
from gridcompute.skips import Skips
from gridcompute.spaces import Region
from gridcompute.stepping import ALONE, CompiledSteps, Crew

__all__ = ["Edges", "Iterate", "Stencil"]

Run = Callable[[list[Column], Region, tuple[int, ...], Array | None], list[Column]]
"""Runs a kernel over the cells of a region: their windows, the region, the space's lengths, where progress goes."""

WINDOW_BYTES = 16 * 2**20
"""Windows are laid out contiguously for the kernel, this many bytes at a time."""


@dataclass(frozen=True, eq=False)
class Stencil(Action):
    """A kernel over windows of one column.

    At the ends of a dimension the window reads the nearest cell ("clip", as NumPy's take), the other end
    ("periodic"), or a constant ("fill"); over a corner, where one of its dimensions is filled, the constant.

    Attributes:
        cells: the kernel; its core dimensions are the halo's.
        halo: which neighbours.
        fill: value outside, for boundary "fill".
    """

    cells: Map
    halo: Halo
    fill: float = 0.0
    heavy: ClassVar[bool] = True

    @property
    def key(self) -> object:
        """See `Action`."""
        return (self.cells.key, self.halo, self.fill)

    @property
    def parts(self) -> Mapping[str, str]:
        """See `Action`."""
        return {**self.cells.parts, "halo": digest((self.halo, self.fill))}

    @property
    def skips(self) -> bool:
        """See `Action`."""
        return self.cells.skips

    @property
    def positional(self) -> bool:
        """See `Action`."""
        return True

    @property
    def held_bytes(self) -> int:
        """See `Action`: windows as they are laid out for the kernel, and the results of some."""
        return 2 * WINDOW_BYTES

    def compute(self, op: Op, region: Region, read: Read, carrier: Carrier | None = None) -> Block:
        """See `Action`."""
        skips: list[Skips] = []

        def skipping(inputs: list[Column], part: Region, lengths: tuple[int, ...], word: Array | None) -> list[Column]:
            work = work_of(self.cells.kernel, inputs, dict(self.cells.params), outputs=self.cells.dtypes,
                           shape=part.shape, origin=part.start, space_shape=lengths, seed=self.cells.seed,
                           rng_name=self.cells.name)
            results, failed = run_skipping(work, carrier or partial(here, mark=word))
            skips.extend(skipped(op, op.space, part, op.space.names, work.cells, failed))
            return results

        results = self.windows_over(op, region, read, skipping if self.skips else None)
        named = {f.name: result for f, result in zip(op.fields, results, strict=True)}
        return Block(region, named, region.shape[0], tuple(skips))

    def windows_over(self, op: Op, region: Region, read: Read, run: Run | None = None) -> list[Column]:
        """What the kernel gives for the windows of a region's cells; see `windows_run`."""
        name = self.cells.columns[0][1]
        column = self._stitched(op, region, [read(0, part)[name] for part in op.reads(0, region)])
        return windows_run(self.cells, [column], [self.halo], op.space.names, region, op.space.shape, run=run)

    def _stitched(self, op: Op, region: Region, pieces: list[Column]) -> Fixed:
        """The region with its halo, put together from the boxes read and completed at the boundary."""
        fixed, sides = [piece for piece in pieces if isinstance(piece, Fixed)], self.halo.sides
        for axis, (name, (lo, hi)) in reversed(list(enumerate(zip(op.space.names, region.bounds, strict=True)))):
            before, after, boundary = sides.get(name, (0, 0, "clip"))
            if boundary == "periodic":
                run = len(wrapped(lo - before, hi + after, op.whole.bounds[axis][1]))
                fixed = [_merged(fixed[i:i + run], axis) for i in range(0, len(fixed), run)]
        return padded(fixed[0], self.halo, op.space.names, region, op.space.shape, self.fill)


def _merged(pieces: list[Fixed], axis: int) -> Fixed:
    """Boxes that follow each other along one axis, as one."""
    return Fixed(np.concatenate([piece.values for piece in pieces], axis), _masks(pieces, axis))


def _masks(pieces: list[Fixed], axis: int) -> Array | None:
    if all(piece.valid is None for piece in pieces):
        return None
    return np.concatenate([np.ones(p.values.shape, bool) if p.valid is None else p.valid for p in pieces], axis)


def padded(column: Fixed, halo: Halo, names: tuple[str, ...], region: Region, shape: tuple[int | None, ...],
           fill: float) -> Fixed:
    """Complete a region's halo where it would reach over a clipped or filled edge of the space."""
    widths: dict[Boundary, list[tuple[int, int]]] = {kind: [(0, 0)] * len(names) for kind in get_args(Boundary)}
    sides = halo.sides
    for axis, (name, (lo, hi), length) in enumerate(zip(names, region.bounds, shape, strict=True)):
        before, after, boundary = sides.get(name, (0, 0, "clip"))
        widths[boundary][axis] = (max(0, before - lo), max(0, hi + after - (length or 0)))
    values, valid = column.values, column.valid
    if np.any(widths["clip"]):
        values = np.pad(values, widths["clip"], mode="edge")
        valid = None if valid is None else np.pad(valid, widths["clip"], mode="edge")
    if np.any(widths["fill"]):
        values = np.pad(values, widths["fill"], constant_values=values.dtype.type(fill))
        valid = None if valid is None else np.pad(valid, widths["fill"], constant_values=True)
    return Fixed(values, valid)


def windows_run(cells: Map, columns: list[Fixed], halos: list[Halo], names: tuple[str, ...], region: Region,
                shape: tuple[int | None, ...], step: int = 0, run: Run | None = None) -> list[Column]:
    """Run a kernel over the windows of columns that carry their halo; by `run`, or by `run_cells`.

    Returns:
        One column an output, of the region's shape.
    """
    views: list[tuple[Array, Array | None]] = []
    for column, halo in zip(columns, halos, strict=True):
        axes = tuple(names.index(name) for name, *_ in halo.dims)
        extents = tuple(before + after + 1 for _, before, after, _ in halo.dims)
        views.append((sliding_window_view(column.values, extents, axes),
                      None if column.valid is None else sliding_window_view(column.valid, extents, axes)))
    row_bytes = sum(view.nbytes // max(view.shape[0], 1) for view, _ in views)
    rows = max(1, int(WINDOW_BYTES // max(row_bytes, 1)))
    (first, last), rest = region.bounds[0], region.bounds[1:]
    parts: list[list[Column]] = []
    lengths = tuple(n or 0 for n in shape)
    for lo in range(0, last - first, rows):
        hi = min(lo + rows, last - first)
        inputs: list[Column] = [
            Fixed(np.ascontiguousarray(view[lo:hi]), None if mask is None else np.ascontiguousarray(mask[lo:hi]))
            for view, mask in views]
        part = Region(((first + lo, first + hi), *rest))
        with kernel_runs(cells.name, part.shape, part.start, by_cell=cells.kernel.mode == "cell") as word:
            parts.append(run(inputs, part, lengths, word) if run is not None else
                         run_cells(cells.kernel, inputs, dict(cells.params), outputs=list(cells.dtypes),
                                   shape=part.shape, origin=part.start, space_shape=lengths, seed=cells.seed,
                                   rng_name=cells.name, step=step, progress=word))
    return [_merged([p for p in column if isinstance(p, Fixed)], 0) for column in zip(*parts, strict=True)]


@dataclass(frozen=True, eq=False)
class Iterate(Action):
    """The same kernel step after step over the whole space, each step reading the one before.

    Attributes:
        cells: the kernel: one window (or one run of neighbours) in per column, one value out per column.
        steps: how many.
        neighbours: a `Halo`, or `Edges` over a space of one dimension.
        fill: value outside, for boundary "fill".
        keep: the state is kept after each so many steps; 0: when it is time. It isn't part of the key.
    """

    cells: Map
    steps: int
    neighbours: Halo | Edges
    fill: float = 0.0
    keep: int = 0
    heavy: ClassVar[bool] = True
    durable: ClassVar[bool] = True
    spans: ClassVar[bool] = True

    @property
    def key(self) -> object:
        """See `Action`."""
        return (self.cells.key, self.steps, self.neighbours, self.fill)

    @property
    def parts(self) -> Mapping[str, str]:
        """See `Action`."""
        return {**self.cells.parts, "steps": in_words(self.steps), "neighbours": digest(self.neighbours)}

    @property
    def positional(self) -> bool:
        """See `Action`."""
        return True

    @property
    def aligned(self) -> bool:
        """See `Action`."""
        return True

    def compute(self, op: Op, region: Region, read: Read, crew: Crew = ALONE) -> Block:
        """See `Action`; the crew says what carries it, and where states are kept on the way."""
        kept = crew.checkpoints.latest() if crew.checkpoints is not None and self.steps > 1 else None
        row, block = kept or (0, read(0, op.inputs[0].whole))
        names = [f.name for f in op.fields] if kept else [name for _, name in self.cells.columns]
        columns = [_without_nulls(column) for column in map(block.__getitem__, names) if isinstance(column, Fixed)]
        steps: CompiledSteps | _PlainSteps
        if self.steps > row and fits(self.cells, self.neighbours, columns):
            steps = CompiledSteps(self.cells, self.neighbours, self.fill, op.space.names, columns, crew, row,
                                  self.steps)
        else:
            steps = _PlainSteps(self, op, region, columns, row)
        del kept, block, columns  # the steps have it
        with contextlib.closing(steps):
            while steps.row < self.steps:
                steps.go(min(self.steps, steps.row - steps.row % self.keep + self.keep) if self.keep else self.steps)
                if steps.row < self.steps:
                    crew.keep(steps.row, self.keep, lambda: _block(op, region, steps.columns()))
            return _block(op, region, steps.columns())

    def stepped(self, op: Op, region: Region, columns: list[Fixed], step: int,
                tables: dict[int, tuple[Array, Array]]) -> list[Fixed]:
        """One step without a compiled loop over steps: the reference of `gridcompute.gang`."""
        try:
            if isinstance(self.neighbours, Halo):
                return self._windows(op, region, columns, step)
            return self._gathered(region, columns, step, tables)
        except KernelError as error:
            raise in_step(error, step) from error.__cause__

    def _windows(self, op: Op, region: Region, columns: list[Fixed], step: int) -> list[Fixed]:
        halo = self.neighbours
        assert isinstance(halo, Halo)
        around, sides = [], halo.sides
        for column in columns:
            ends = [sides[name][:2] if name in sides and sides[name][2] == "periodic" else (0, 0)
                    for name in op.space.names]
            wrapped_round = Fixed(np.pad(column.values, ends, mode="wrap"))
            around.append(padded(wrapped_round, halo, op.space.names, region, op.space.shape, self.fill))
        results = windows_run(self.cells, around, [halo] * len(around), op.space.names, region, op.space.shape, step)
        return [_as_before(r, c) for r, c in zip(results, columns, strict=True)]

    def _gathered(self, region: Region, columns: list[Fixed], step: int,
                  tables: dict[int, tuple[Array, Array]]) -> list[Fixed]:
        edges = self.neighbours
        assert isinstance(edges, Edges)
        length = region.shape[0]
        width = edges.width(step, length)
        phase = edges.phase(step)
        if edges.active is not None or phase not in tables:
            tables[phase] = edges.table(phase, width, length)
        offsets, index = tables[phase]
        inputs: list[Column] = [Ragged(offsets, column.values[index]) for column in columns]
        with kernel_runs(self.cells.name, (width,), (0,), by_cell=self.cells.kernel.mode == "cell") as word:
            results = run_cells(self.cells.kernel, inputs, dict(self.cells.params), outputs=list(self.cells.dtypes),
                                shape=(width,), origin=(0,), space_shape=(length,), seed=self.cells.seed,
                                rng_name=self.cells.name, step=step, progress=word)
        merged = []
        for result, column in zip(results, columns, strict=True):
            assert isinstance(result, Fixed)
            merged.append(Fixed(np.concatenate([result.values.astype(column.values.dtype), column.values[width:]])))
        return merged


class _PlainSteps:
    """Steps one by one through `run_cells`, for kernels and columns that compiled loops don't take."""

    def __init__(self, action: Iterate, op: Op, region: Region, columns: list[Fixed], row: int) -> None:
        self.row, self._state, self._action, self._where = row, columns, action, (op, region)
        self._tables: dict[int, tuple[Array, Array]] = {}

    def go(self, last: int) -> None:
        """One step."""
        self._state = self._action.stepped(*self._where, self._state, self.row, self._tables)
        self.row += 1

    def columns(self) -> list[Fixed]:
        """The state."""
        return self._state

    def close(self) -> None:
        """Nothing is open."""


def _block(op: Op, region: Region, columns: list[Fixed]) -> Block:
    return Block(region, {f.name: c for f, c in zip(op.fields, columns, strict=True)}, region.shape[0])


def _without_nulls(column: Fixed) -> Fixed:
    """A float column's nulls as NaN, as kernels see them (others are refused before)."""
    if column.valid is None:
        return column
    return Fixed(np.where(column.valid, column.values, column.values.dtype.type(np.nan)))


def _as_before(result: Column, column: Fixed) -> Fixed:
    assert isinstance(result, Fixed)
    return Fixed(result.values.astype(column.values.dtype, copy=False))
