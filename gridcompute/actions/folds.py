"""Reductions: each segment is folded chunk by chunk, in chunk order; segments' states merge in a fixed tree (law 1).

`Reduce` is what the user asks for. Lowering cuts its input, groups the chunks along the reduced dimensions into
segments, and puts a `Fold` (states of one segment) and as many `Merge` levels as it takes in its place; a single
segment needs no merge.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from gridcompute.access import Access, Tree
from gridcompute.axes import Axis, Layout, cut
from gridcompute.columns import Array, Block, Column, Field, Fixed
from gridcompute.fold import States
from gridcompute.fold_bands import Bands, Stretch, stretch_of
from gridcompute.keys import digest
from gridcompute.op import Action, Op, Read
from gridcompute.reducer import Reduction
from gridcompute.segments import SEGMENT, Segments, cut_into_segments
from gridcompute.spaces import Region, Space
from gridcompute.threads import each

GROUP = "group"
FAN = 16
"""Segments that one merge takes in."""


@dataclass(frozen=True, eq=False)
class Reduce(Action):
    """A column reduced over dimensions, into groups where `codes` says so.

    Attributes:
        reduction: what is computed.
        column: of the input.
        dims: reduced dimensions, in the input's order.
        names: output columns.
        group: dimension of the groups and their number, or None.
        codes: group of each position along the one reduced dimension `dims[0]`, -1 for none.
    """

    reduction: Reduction
    column: str
    dims: tuple[str, ...]
    names: tuple[str, ...]
    group: tuple[str, int] | None = None
    codes: Array | None = None

    @property
    def key(self) -> object:
        """See `Action`."""
        return (self.reduction.key, self.column, self.dims, self.names, self.group, self.codes)

    @property
    def parts(self) -> Mapping[str, str]:
        """See `Action`."""
        return {f"reduction {self.reduction.name}": digest(self.reduction.key),
                "grouping": digest((self.column, self.dims, self.group, self.codes))}

    @property
    def positional(self) -> bool:
        """See `Action`: an argmin gives a position, so the cells before it must have been counted."""
        return self.reduction.positional

    @property
    def label(self) -> str:
        """See `Action`."""
        return self.reduction.name


def _state_fields(reduce: Reduce, field: Field, kept: tuple[str, ...]) -> tuple[Space, tuple[Field, ...]]:
    states = reduce.reduction.state_fields(field.dtype)
    sizes = tuple((f"state_{name}", size) for name, _, size in states)
    fields = tuple(Field(f"state_{name}", (SEGMENT, GROUP, *kept, f"state_{name}"), dtype) for name, dtype, _ in states)
    return Space(sizes), fields


@dataclass(frozen=True, eq=False)
class Fold(Action):
    """States of a segment; its results where it is the only one (`last`)."""

    reduce: Reduce
    segments: Segments
    kept: tuple[str, ...]
    last: bool
    durable: ClassVar[bool] = True
    threaded: ClassVar[bool] = True

    @property
    def key(self) -> object:
        """See `Action`."""
        return (self.reduce.key, self.segments, self.last)

    @property
    def label(self) -> str:
        """See `Action`."""
        return self.reduce.label

    @property
    def step(self) -> str:
        """See `Action`."""
        return "" if self.last else "fold"

    @property
    def parts(self) -> Mapping[str, str]:
        """See `Action`."""
        return self.reduce.parts

    def compute(self, op: Op, region: Region, read: Read) -> Block:
        """See `Action`."""
        folding = self.begin(op, region)
        for box in op.reads(0, region):
            folding.take(box, read(0, box))
        return folding.end()

    def begin(self, op: Op, region: Region, lanes: int = 0) -> Folding:
        """A segment about to be folded, box by box; several may go through the data together.

        Args:
            op: that this is the action of.
            region: of the op.
            lanes: of the chunk that the region is a part of; 0 where it is all of it.
        """
        return Folding(self, op, region, lanes)

    def lanes(self, op: Op, region: Region) -> int:
        """Lanes of a fold: a rule of the chunk's region."""
        return Folding(self, op, region).lanes

    def state_bytes(self, op: Op, region: Region) -> int:
        """Bytes of the states of a region's cells."""
        where = dict(zip(op.space.names, region.bounds, strict=True))
        cells = math.prod(where[name][1] - where[name][0] for name in self.kept)
        groups = self.reduce.group[1] if self.reduce.group else 1
        return self.reduce.reduction.state_bytes(op.inputs[0].field(self.reduce.column).dtype) * groups * cells

    def origin(self, region: Region) -> int:
        """Positions before the segment, where the reduction reports positions (along unknown dimensions: 0)."""
        if self.last or not self.reduce.reduction.positional or any(axis.blocks for _, axis in self.segments.dims):
            return 0
        layout = self.segments.layout
        return sum(layout.region(chunk).cells for chunk in range(region.start[0] * self.segments.run))


Band = tuple[tuple[int, int], ...]
"""Bounds of some kept cells, dimension by dimension."""


class Folding:
    """A segment while its boxes come in: in order, whole or as tiles of some of the kept cells each (a band)."""

    def __init__(self, action: Fold, op: Op, region: Region, lanes: int = 0) -> None:
        self.action, self.op, self.region = action, op, region
        reduce, source = action.reduce, op.inputs[0]
        field = source.field(reduce.column)
        where = dict(zip(op.space.names, region.bounds, strict=True))
        self.kept = tuple(where[name] for name in action.kept)
        self.shape = tuple(hi - lo for lo, hi in self.kept)
        self.axes = [field.dims.index(name) for name in reduce.dims]
        self.places = [source.space.names.index(name) for name in action.kept]
        self.fold = reduce.reduction.compiled(field.dtype)
        self.groups = reduce.group[1] if reduce.group else 1
        # As many as the whole region has, or a cut of it: how it is taken apart may not change a bit.
        cut = dict([action.segments.slowest] if action.segments.slowest else [])
        at_once = math.prod(min(n, cut[name].extent) if name in cut else n
                            for name, n in zip(action.kept, self.shape, strict=True))
        self.lanes = lanes or self.fold.lanes(at_once, self.groups)
        self.bands: dict[Band, States] = {}
        self.whole: Bands | None = None
        self.stretches: dict[Stretch, States] = {}
        self._lock = threading.Lock()

    def take(self, box: Region, block: Block) -> None:
        """Fold the next box of its band; bands may be folded at once by several threads."""
        reduce = self.action.reduce
        column, codes = block[reduce.column], None
        assert isinstance(column, Fixed)
        if reduce.codes is not None:
            lo, hi = box.bounds[self.op.inputs[0].space.names.index(reduce.dims[0])]
            codes = reduce.codes[lo:hi]
        band = tuple(box.bounds[place] for place in self.places)
        states = self.bands.get(band)
        if states is None:
            states = self.bands[band] = self._fresh(band)
        self.fold.fold(states, column.values, self.axes, valid=column.valid, codes=codes)

    def _fresh(self, band: Band) -> States:
        """States of a band: a part of those of all cells where it is one stretch of them."""
        origin = self.action.origin(self.region)
        stretch = self._stretch(band)
        if stretch is None:
            return self.fold.empty(math.prod(hi - lo for lo, hi in band), self.groups, lanes=self.lanes, origin=origin)
        with self._lock:
            if self.whole is None:
                self.whole = Bands(self.fold, math.prod(self.shape), self.groups, origin)
        states = self.stretches[stretch] = self.whole.states(stretch)
        return states

    def _stretch(self, band: Band) -> Stretch | None:
        return stretch_of(band, self.kept) if self.lanes == 1 else None

    def end(self, threads: int = 1, only: Collection[str] | None = None) -> Block:
        """The states, or the results where this is the only segment; bands are closed by several threads.

        Args:
            threads: at most.
            only: of the results, those that are wanted; None: all. Others may be missing.
        """
        if not self.bands:
            self.bands[self.kept] = self._fresh(self.kept)
        apart = {band: states for band, states in self.bands.items() if self._stretch(band) is None}
        whole, stretches = self.whole, self.stretches
        self.bands, self.whole, self.stretches = {}, None, {}  # this outlives the block, and what isn't part of it goes
        if len(apart) == 1 and self.kept in apart:
            return self._block(self._shaped(self._closed(apart.pop(self.kept)), self.shape))
        found: list[Fixed] = []
        if whole is not None:
            wanted = [only is None or f.name in only for f in self.op.fields]
            last = self.action.last
            some = whole.results(stretches, threads, wanted) if last else whole.closed(stretches, threads)
            found = self._shaped(some, self.shape, 1 + last)

        def put(band: Band) -> None:
            part = self._shaped(self._closed(apart.pop(band)), tuple(hi - lo for lo, hi in band))
            at = tuple(slice(lo - base, hi - base) for (lo, hi), (base, _) in zip(band, self.kept, strict=True))
            with self._lock:
                found.extend(self._room(part) if not found else ())
                for i, piece in enumerate(part):
                    if piece.valid is not None and found[i].valid is None:
                        found[i] = Fixed(found[i].values, np.ones(found[i].values.shape, bool))
            for target, piece in zip(found, part, strict=True):
                target.values[(slice(None), *at)] = piece.values
                if piece.valid is not None and target.valid is not None:
                    target.valid[(slice(None), *at)] = piece.valid

        deque(each(threads, put, list(apart)), 0)
        return self._block(found)

    def _closed(self, states: States) -> list[Fixed]:
        """A band's closed states, or results where they are the last."""
        return self.fold.results(states) if self.action.last else [Fixed(one) for one in self.fold.close(states)]

    def _shaped(self, some: list[Fixed], shape: tuple[int, ...], first: int = 1) -> list[Fixed]:
        """Columns of some kept cells, the `first` dimensions of whose arrays are groups and cells, as arrays of groups,
        kept cells and the rest.
        """
        full = [(self.groups, *shape, *one.values.shape[first:]) for one in some]
        return [Fixed(one.values.reshape(to), None if one.valid is None else one.valid.reshape(to))
                for one, to in zip(some, full, strict=True)]

    def _room(self, part: list[Fixed]) -> list[Fixed]:
        """Arrays of all kept cells for what is like some of theirs."""
        lead, rest = (self.groups, *self.shape), 1 + len(self.shape)
        return [Fixed(np.empty((*lead, *one.values.shape[rest:]), one.values.dtype)) for one in part]

    def _block(self, results: list[Fixed]) -> Block:
        """What `_shaped` gave, as the op's columns."""
        grouped = self.action.reduce.group is not None
        columns: dict[str, Column] = {}
        for field, one in zip(self.op.fields, results, strict=True):
            if not self.action.last:
                columns[field.name] = Fixed(one.values[None])
            elif grouped:
                columns[field.name] = one
            else:
                columns[field.name] = Fixed(one.values[0], None if one.valid is None else one.valid[0])
        rows = self.region.shape[0] if self.region.bounds else 1
        return Block(self.region, columns, rows if self.action.last else 1)


def _packed(action: Merge, op: Op, region: Region, states: list[Array], shape: tuple[int, ...]) -> Block:
    reduce = action.reduce
    groups = reduce.group[1] if reduce.group else 1
    columns: dict[str, Column] = {}
    if not action.last:
        for field, array in zip(op.fields, states, strict=True):
            columns[field.name] = Fixed(array.reshape((1, groups, *shape, array.shape[1])))
        return Block(region, columns, 1)
    lead = (groups, *shape) if reduce.group else shape
    results = reduce.reduction.compiled(action.dtype).finish(states)
    for field, result in zip(op.fields, results, strict=True):
        full = (*lead, *result.values.shape[1:])
        columns[field.name] = Fixed(result.values.reshape(full),
                                    None if result.valid is None else result.valid.reshape(full))
    return Block(region, columns, region.shape[0] if region.bounds else 1)


@dataclass(frozen=True, eq=False)
class Merge(Action):
    """States of up to `FAN` segments merged in order; the results where nothing is left to merge (`last`)."""

    reduce: Reduce
    dtype: np.dtype[Any]
    kept: tuple[str, ...]
    last: bool
    durable: ClassVar[bool] = True

    @property
    def key(self) -> object:
        """See `Action`."""
        return (self.reduce.key, self.dtype, self.last, FAN)

    @property
    def step(self) -> str:
        """See `Action`."""
        return "" if self.last else "merge"

    @property
    def parts(self) -> Mapping[str, str]:
        """See `Action`."""
        return self.reduce.parts

    def compute(self, op: Op, region: Region, read: Read) -> Block:
        """See `Action`."""
        fold, source = self.reduce.reduction.compiled(self.dtype), op.inputs[0]
        wanted = op.reads(0, region)[0]
        merged: list[Array] | None = None
        shape: tuple[int, ...] = ()
        for segment in range(*wanted.bounds[0]):
            block = read(0, Region(((segment, segment + 1), *wanted.bounds[1:])))
            arrays = []
            for field in source.fields:
                column = block[field.name]
                assert isinstance(column, Fixed)
                shape = column.values.shape[2:-1]
                arrays.append(column.values.reshape(-1, column.values.shape[-1]))
            merged = arrays if merged is None else fold.merge(merged, arrays)
        assert merged is not None
        return _packed(self, op, region, merged, shape)


def over_segments(op: Op, source: Op, axes: Mapping[str, Axis], cell_bytes: float, stored_bytes: int,
                  whole: frozenset[str] = frozenset(), light: bool = False, live_bytes: float = 0.0,
                  parallel: int = 0) -> list[tuple[Op, Layout]]:
    """A reduction over the axes of its lowered input: the fold and its merges, the last of which gives the result.

    Args:
        op: the reduction as the user asked for it.
        source: the input, lowered.
        axes: the input's axes, not yet cut.
        cell_bytes: bytes read for one of its cells.
        stored_bytes: decoded bytes of a stored chunk.
        whole: dimensions that a kernel fused into the fold gives only whole.
        light: whether no kernel is fused into it.
        live_bytes: most bytes that are live at once for one of its cells.
        parallel: chunks that a kernel fused into it asks for, where data is small; 0 for the default.
    """
    reduce = op.action
    assert isinstance(reduce, Reduce)
    field = source.field(reduce.column)
    layout = cut(axes, cell_bytes=cell_bytes, stored_bytes=stored_bytes, whole=whole, light=light,
                 live_bytes=live_bytes, parallel=parallel)
    kept = tuple(name for name in field.dims if name not in reduce.dims)
    groups = reduce.group or (GROUP, 1)
    layout, segments = cut_into_segments(
        layout, reduce.dims, kept, state_bytes=reduce.reduction.state_bytes(field.dtype) * groups[1],
        cell_bytes=cell_bytes, light=light and field.dims == source.space.names)
    kept_axes = {name: layout[name] for name in kept}
    states, state_fields = _state_fields(reduce, field, kept)
    inner = {name: Axis((size or 1,), extent=size or 1) for name, size in states.dims}

    def made(action: Action, access: Access, before: Op, last: bool, count: int) -> tuple[Op, Layout]:
        if last:
            lead = {groups[0]: Axis((groups[1],), extent=max(groups[1], 1))} if reduce.group else {}
            extra = {dim: Axis((length or 0,), extent=max(length or 1, 1))
                     for dim, length in op.space.dims if dim not in kept and dim not in lead}
            shape, fields = Layout.of({**lead, **kept_axes, **extra}), op.fields
        else:
            group = {GROUP: Axis((groups[1],), extent=max(groups[1], 1))}
            shape, fields = Layout.of({SEGMENT: Axis((count,), extent=1), **group, **kept_axes, **inner}), state_fields
        return Op(action, (before,), (access,), shape.space, fields, op.name, shape.whole), shape

    count = max(segments.count, 1)
    steps = [made(Fold(reduce, segments, kept, count == 1), segments, source, count == 1, count)]
    while count > 1:
        count = -(-count // FAN)
        steps.append(
            made(Merge(reduce, field.dtype, kept, count == 1), Tree(SEGMENT, FAN), steps[-1][0], count == 1, count)
        )
    return steps
