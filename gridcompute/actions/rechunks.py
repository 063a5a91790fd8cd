"""Stored chunks to output chunks through pieces: a slab is read once, and a row put together from its pieces.

A slab's pieces are committed as one shard, one after the other, each in C order: a run of theirs is a run of the
output. What makes rows reads the pieces that it needs of every slab, each with a read of its own.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import numpy as np

from gridcompute.access import Point
from gridcompute.actions.loads import Load
from gridcompute.actions.shapes import Choose
from gridcompute.actions.shuffles import Groups
from gridcompute.axes import Axis, Layout
from gridcompute.columns import Array, Block, Column, Field, Fixed
from gridcompute.op import Action, Op, Read
from gridcompute.rechunking import PASSES, SMALL_BYTES, passes, pieces, slabs_of
from gridcompute.spaces import Region, Space

RUN = "run"
"""Dimension of pieces: the cells of one slab after the other."""


@dataclass(frozen=True)
class Slabs:
    """Cells of pieces read the slab that they lie in; `consumers` and `inputs` are each other's for `Rows`.

    Attributes:
        layout: the slabs.
    """

    layout: Layout
    share: ClassVar[float] = 1.0
    """Cells of the input in memory for one of the output."""

    @cached_property
    def starts(self) -> Array:
        """First cell of each slab, with the total at the end."""
        sizes = [self.layout.region(k).cells for k in range(self.layout.chunks)]
        return np.array([0, *itertools.accumulate(sizes)], np.int64)

    @property
    def key(self) -> tuple[object, ...]:
        """What enters the recipe: the layout is in that of `Scatter`."""
        return ("slabs",)

    def box(self, lo: int, hi: int) -> Region:
        """The box around the slabs that have some of the cells lo to hi."""
        if hi <= lo:
            return Region(tuple((0, 0) for _ in self.layout.axes))
        first, last = (int(np.searchsorted(self.starts, at, "right")) - 1 for at in (lo, hi - 1))
        every = [self.layout.region(k).bounds for k in range(first, last + 1)]
        return Region(tuple((min(b[i][0] for b in every), max(b[i][1] for b in every)) for i in range(len(every[0]))))

    def cells(self, slab: int) -> tuple[int, int]:
        """First and last-plus-one cell of a slab."""
        return int(self.starts[slab]), int(self.starts[slab + 1])

    def within(self, region: Region, names: tuple[str, ...]) -> Region:
        """The part of a region of other dimensions that these have."""
        where = dict(zip(names, region.bounds, strict=True))
        return Region(tuple(where[name] for name in self.layout.space.names))

    def inputs(self, region: Region, out: Space, into: Region, names: tuple[str, ...]) -> tuple[Region, ...]:
        """See `Access`."""
        where = dict(zip(self.layout.space.names, self.box(*region.bounds[0]), strict=True))
        return (Region(tuple(where.get(name, full) for name, full in zip(names, into.bounds, strict=True))),)

    def consumers(self, region: Region, names: tuple[str, ...], out: Space, whole: Region) -> Region:
        """See `Access`."""
        return Region((self.span(self.within(region, names)),))

    def span(self, region: Region) -> tuple[int, int]:
        """From the first to the last cell of the slabs that a region meets."""
        found = list(self.layout.covering(region))
        return (self.cells(found[0])[0], self.cells(found[-1])[1]) if found else (0, 0)


@dataclass(frozen=True)
class Rows:
    """Any region reads the pieces of the slabs that it meets."""

    slabs: Slabs
    share: ClassVar[float] = 1.0

    @property
    def key(self) -> tuple[object, ...]:
        """What enters the recipe: which slabs there are doesn't change a value."""
        return ("rows",)

    def inputs(self, region: Region, out: Space, into: Region, names: tuple[str, ...]) -> tuple[Region, ...]:
        """See `Access`."""
        part = self.slabs.within(region, out.names)
        return tuple(Region((self.slabs.cells(slab),)) for slab in self.slabs.layout.covering(part))

    def consumers(self, region: Region, names: tuple[str, ...], out: Space, whole: Region) -> Region:
        """See `Access`."""
        where = dict(zip(self.slabs.layout.space.names, self.slabs.box(*region.bounds[0]), strict=True))
        return Region(tuple(where.get(name, full) for name, full in zip(out.names, whole.bounds, strict=True)))


@dataclass(frozen=True, eq=False)
class Scatter(Action):
    """A slab's cells in the order of its pieces; cells of the dimension `RUN`.

    Attributes:
        slabs: what is read at once.
        rows: what each piece belongs to.
    """

    slabs: Slabs
    rows: Layout
    durable: ClassVar[bool] = True

    @property
    def key(self) -> object:
        """See `Action`."""
        return [[(name, axis.parts, axis.extent) for name, axis in one.axes] for one in (self.slabs.layout, self.rows)]

    @property
    def step(self) -> str:
        """See `Action`."""
        return "pieces"

    @property
    def aligned(self) -> bool:
        """See `Action`."""
        return True

    def axes(self, op: Op, inputs: tuple[Layout, ...]) -> dict[str, Axis]:
        """See `Action`: a chunk for each slab."""
        sizes = np.diff(self.slabs.starts).tolist()
        return {RUN: Axis(tuple(sizes), extent=max(sizes, default=1))}

    def compute(self, op: Op, region: Region, read: Read) -> Block:
        """See `Action`."""
        slab, (lo, hi) = self.slabs.box(*region.bounds[0]), region.bounds[0]
        block = read(0, op.reads(0, region)[0])
        parts = pieces(slab, self.rows)
        ends = tuple(itertools.accumulate(part.cells for _, part in parts))
        columns: dict[str, Column] = {}
        for f in op.fields:
            column = block[f.name]
            assert isinstance(column, Fixed)
            columns[f.name] = Fixed(*(None if values is None else self._scattered(values, slab, parts)
                                      for values in (column.values, column.valid)))  # type: ignore[arg-type]
        return Block(region, columns, hi - lo, groups=ends)

    @staticmethod
    def _scattered(values: Array, slab: Region, parts: list[tuple[int, Region]]) -> Array:
        found, at = np.empty(slab.cells, values.dtype), 0
        for _, part in parts:
            target = found[at: at + part.cells].reshape(part.shape)
            target[...] = values[part.within(slab)]
            at += part.cells
        return found


@dataclass(frozen=True, eq=False)
class Gather(Action):
    """Any region put together from its pieces."""

    slabs: Slabs
    rows: Layout

    @property
    def label(self) -> str:
        """See `Action`."""
        return "rechunk"

    @property
    def key(self) -> object:
        """See `Action`."""
        return ()

    def axes(self, op: Op, inputs: tuple[Layout, ...]) -> dict[str, Axis]:
        """See `Action`: pieces end where rows do."""
        return {name: replace(axis.regular, multiple=axis.extent, extent=0) for name, axis in self.rows.axes}

    def compute(self, op: Op, region: Region, read: Read, groups: Groups | None = None) -> Block:
        """See `Action`."""
        assert groups is not None
        values = {f.name: np.empty(region.shape, f.dtype) for f in op.fields}
        valid: dict[str, Array] = {}
        for number in self.slabs.layout.covering(region):
            slab = self.slabs.layout.region(number)
            wanted = dict(pieces(slab, self.rows, region))
            for first, last in _runs(sorted(wanted)):
                for piece, block in zip(range(first, last), groups(number, first, last), strict=True):
                    part = wanted[piece].intersect(region)
                    source, target = part.within(wanted[piece]), part.within(region)
                    for f in op.fields:
                        column = block[f.name]
                        values[f.name][target] = column.values.reshape(wanted[piece].shape)[source]
                        if column.valid is not None:
                            mask = valid.setdefault(f.name, np.ones(region.shape, bool))
                            mask[target] = column.valid.reshape(wanted[piece].shape)[source]
        return Block(region, {name: Fixed(one, valid.get(name)) for name, one in values.items()}, region.shape[0])


def _runs(numbers: list[int]) -> list[tuple[int, int]]:
    """Numbers in order as runs of followers: first and last-plus-one."""
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and found[-1][1] == number:
            found[-1] = (found[-1][0], number + 1)
        else:
            found.append((number, number + 1))
    return found


Added = Callable[[Op, tuple[Op, ...], Layout], Op]
"""Adds an op over lowered inputs to a plan."""


def crossed(source: Op, stored: Mapping[str, Axis], row: Sequence[int]) -> list[tuple[str, ...]]:
    """Columns, by their dimensions, whose stored chunks rows would decode too often."""
    found: dict[tuple[str, ...], list[str]] = {}
    for f in source.fields:
        if not f.ragged:
            found.setdefault(f.dims, []).append(f.name)
    long = dict(zip(stored, row, strict=True))
    return [tuple(names) for dims, names in found.items()
            if math.prod(stored[dim].length for dim in dims) * source.field(names[0]).dtype.itemsize > SMALL_BYTES
            and passes([stored[dim] for dim in dims], [long[dim] for dim in dims]) > PASSES]


def through_pieces(source: Op, groups: Sequence[tuple[str, ...]], row: Sequence[int],
                   layouts: Mapping[int, Layout], kept: Collection[int]) -> list[tuple[Op, Layout]]:
    """The ops that give a source's columns, some of them through pieces, in order; those that scatter are to be kept.

    Args:
        source: lowered.
        groups: columns that share their dimensions, which go through pieces.
        row: extents of the rows.
        layouts: of lowered ops, by id.
        kept: ids of those whose results are kept: others are computed by who reads them, and no more than is needed.
    """
    steps: list[tuple[Op, Layout]] = []
    stored = dict(layouts[id(source)].axes)

    def added(op: Op, inputs: tuple[Op, ...], layout: Layout) -> Op:
        steps.append((op.rebuilt(inputs, layout), layout))
        return steps[-1][0]

    long, home = dict(zip(stored, row, strict=True)), {}
    for names in groups:
        fields = tuple(source.field(name) for name in names)
        rows = Layout.of({dim: replace(stored[dim].regular, extent=long[dim], run=1) for dim in fields[0].dims})
        slabs = slabs_of({dim: stored[dim] for dim in fields[0].dims}, [long[dim] for dim in fields[0].dims],
                         sum(f.dtype.itemsize for f in fields))
        way, title = Slabs(slabs), f"rechunk {', '.join(names)}"
        flat = tuple(Field(f.name, (RUN,), f.dtype, f.kind, f.nullable, f.attrs) for f in fields)
        read = _only(source, names, layouts, kept, added)
        parted = Op(Scatter(way, rows), (read,), (way,), Space.of({RUN: int(way.starts[-1])}), flat, title)
        parted = added(parted, (read,), Layout.of(parted.action.axes(parted, ())))
        gathered = Op(Gather(way, rows), (parted,), (Rows(way),), slabs.space, fields, title)
        gathered = added(gathered, (parted,), Layout.of(gathered.action.axes(gathered, ())))
        home.update(dict.fromkeys(names, gathered))
    if rest := tuple(f.name for f in source.fields if f.name not in home):
        home.update(dict.fromkeys(rest, _only(source, rest, layouts, kept, added)))
    inputs = tuple(dict.fromkeys(home.values()))
    columns = tuple((f.name, (inputs.index(home[f.name]), f.name)) for f in source.fields)
    whole = replace(source, action=Choose(columns), inputs=inputs, accesses=(Point,) * len(inputs))
    added(whole, inputs, Layout.of(stored))
    return steps


def _only(op: Op, names: Collection[str], layouts: Mapping[int, Layout], kept: Collection[int], added: Added) -> Op:
    """An op that reads no more from outside than some of its columns need."""
    fields = tuple(f for f in op.fields if f.name in names)
    if len(fields) == len(op.fields) or id(op) in kept or not isinstance(op.action, Load | Choose):
        return op
    if isinstance(op.action, Load):
        return added(replace(op, fields=fields), (), layouts[id(op)])
    places = {new: place for new, place in op.action.names if new in names}
    used = sorted({i for i, _ in places.values()})
    inputs = tuple(_only(op.inputs[i], {old for j, old in places.values() if i == j}, layouts, kept, added)
                   for i in used)
    action = Choose(tuple((new, (used.index(i), old)) for new, (i, old) in places.items()))
    accesses = tuple(op.accesses[i] for i in used)
    return added(replace(op, action=action, accesses=accesses, fields=fields), inputs, layouts[id(op)])
