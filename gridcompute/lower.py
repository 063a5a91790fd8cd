"""From a graph to ops that can be run: reductions split, shuffles spelled out, kept ops cut into chunks.

Named rewrites, all decided from the graph alone: `cull` (only what outputs need is visited), `fuse` (an op that
isn't kept is computed inside its consumer's task, over whatever region that reads), `split` (reductions into
segments and merges, shuffles into partitions and buckets), `coalesce` (a sink takes larger chunks than a heavy
kernel before it), `end` (what is computed from reductions alone is kept instead of them). `gridcompute.planning` adds
`join`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from gridcompute.access import Halo, Point, Take, Whole
from gridcompute.actions.folds import Reduce, over_segments
from gridcompute.actions.loads import Ingest, Load
from gridcompute.actions.maps import Elementwise, Map
from gridcompute.actions.rechunks import Scatter, crossed, through_pieces
from gridcompute.actions.rows import Explode, Filter, over_blocks
from gridcompute.actions.shapes import Choose, TakeAt, Transpose
from gridcompute.actions.shuffles import Ordered, Partition, Sample, Shuffle, Splitters
from gridcompute.actions.writes import Write
from gridcompute.axes import Axis, Layout, cut
from gridcompute.cost import Cost
from gridcompute.endings import Endings
from gridcompute.op import Graph, Op
from gridcompute.pointwise import Behind
from gridcompute.rechunking import SMALL_BYTES, rows_of
from gridcompute.sources.base import Source

COALESCE = 2**20
"""A sink's chunk smaller than this is worth a stage of its own with larger chunks."""

SINK_BYTES = 16 * 2**20
"""Byte target of such a sink's chunk."""

BUCKET_BYTES = 32 * 2**20
"""Byte target of a shuffle's bucket, by estimate: texts and lists may have several times as many."""

MAX_BUCKETS = 4096

LIVE_SHARE = 4
"""Times what is read that a fold's input may have in memory at once, to be cut by what is read."""

DEEPEST = 64
"""An op after so many fused ones is kept: each of them is a call within the other in a worker."""


@dataclass
class Lowered:
    """What lowering gives: every op in its runnable form, and the layout of those that are kept.

    Attributes:
        outputs: runnable op of each output; empty while something must be counted first.
        layouts: layout by `id(op)`: cut where the op is kept, else only its axes.
        kept: ids of the ops that are kept (committed or held).
        pending: kept ops whose cells must be counted before the rest can be planned.
        ops: all runnable ops by id.
    """

    outputs: dict[str, Op] = field(default_factory=dict)
    layouts: dict[int, Layout] = field(default_factory=dict)
    kept: list[int] = field(default_factory=list)
    pending: list[Op] = field(default_factory=list)
    ops: dict[int, Op] = field(default_factory=dict)


class Lowering:
    """One pass over a graph. `counted` gives, by recipe, a source over the committed blocks of a counted op."""

    def __init__(self, graph: Graph, counted: Mapping[str, Source]) -> None:
        self.graph = graph
        self.counted = counted
        self.result = Lowered()
        self._done: dict[int, Op | None] = {}
        self.cost = Cost(self.result.layouts, self.result.kept)
        self._depth: dict[int, int] = {}
        self._consumers: dict[int, list[Op]] = {}
        for op in graph.ops:
            for source in op.inputs:
                self._consumers.setdefault(id(source), []).append(op)
        self._before_heavy: set[int] = set()
        for op in reversed(graph.ops):
            if any(c.action.heavy or id(c) in self._before_heavy for c in self._consumers.get(id(op), ())):
                self._before_heavy.add(id(op))

    def run(self) -> Lowered:
        """Lower all outputs."""
        for name, op in self.graph.outputs:
            lowered = self._visit(op)
            if lowered is not None:
                if id(lowered) not in self.result.kept:
                    self._keep(lowered)
                self.result.outputs[name] = lowered
        if self.result.pending:
            self.result.outputs = {}
        else:
            self._end_folds()
        return self.result

    def _end_folds(self) -> None:
        """Reductions that are read where they end aren't kept (see `gridcompute.endings`)."""
        found = Endings(self.result.ops.values(), set(map(id, self.result.outputs.values())), self.result.layouts,
                        self.result.kept)
        self.result.layouts.update(found.roots)
        kept = [one for one in self.result.kept if one not in found.folds]
        self.result.kept[:] = dict.fromkeys([*kept, *found.roots])
        self.cost.forget()

    def _visit(self, op: Op) -> Op | None:
        for step in op.walk():
            if id(step) not in self._done:
                inputs = [self._done[id(source)] for source in step.inputs]
                self._done[id(step)] = (
                    None if any(i is None for i in inputs) else self._lower(step, tuple(i for i in inputs if i))
                )
        return self._done[id(op)]

    def _lower(self, op: Op, inputs: tuple[Op, ...]) -> Op | None:
        layouts = tuple(self.result.layouts[id(source)] for source in inputs)
        blocked = [source for source, layout in zip(inputs, layouts, strict=True) if layout.blocked]
        if blocked and (op.action.positional or self._needs_count(op, layouts)):
            for source in blocked:
                self._count(source)
            return None
        if isinstance(op.action, Ingest):
            return self._ingest(op)
        if isinstance(op.action, Reduce):
            return self._reduce(op, inputs[0])
        if isinstance(op.action, Shuffle):
            return self._shuffle(op, inputs[0])
        if isinstance(op.action, Filter | Explode):
            return self._rows(op, inputs)
        if isinstance(op.action, Write):
            return self._write(op, inputs[0])
        layout = Layout.of(op.action.axes(op, layouts))
        lowered = self._add(op.rebuilt(inputs, layout), layout)
        if self._is_kept(op, lowered):
            self._keep(lowered)
        return lowered

    def _needs_count(self, op: Op, layouts: tuple[Layout, ...]) -> bool:
        """Whether an op that takes any positions still can't work on blocks."""
        if isinstance(op.action, Reduce):
            return any(axis.blocks for name, axis in layouts[0].axes if name not in op.action.dims)
        if isinstance(op.action, Write):
            return op.action.needs_lengths
        whole = {name for access in op.accesses if isinstance(access, Whole) for name, _ in access.dims}
        return any(axis.blocks and name in whole for layout in layouts for name, axis in layout.axes)

    def _count(self, op: Op) -> None:
        """Plan what decides the op's cells so far only; the rest follows when its blocks are committed."""
        if not op.action.makes_rows:
            for source in op.inputs:
                if self.result.layouts[id(source)].blocked:
                    self._count(source)
            return
        if id(op) not in self.result.kept:
            self._keep(op)
        if op not in self.result.pending:
            self.result.pending.append(op)

    def _add(self, op: Op, layout: Layout) -> Op:
        self.result.layouts[id(op)] = layout
        self.result.ops[id(op)] = op
        self._depth[id(op)] = 1 + max((self._depth[id(source)] for source in self.cost.fused(op)), default=0)
        return op

    def _is_kept(self, op: Op, lowered: Op) -> bool:
        """Outputs are kept anyway; so is what can't be computed over any region, or would be computed twice."""
        action, consumers = op.action, self._consumers.get(id(op), [])
        if action.durable or self._depth[id(lowered)] >= DEEPEST:
            return True
        if action.aligned:
            return not self._shares_chunks(op)
        if not action.heavy or not consumers:
            return False
        plain = all(isinstance(c.action, Map | Elementwise | Choose | Reduce | Transpose | Write) for c in consumers)
        if action.whole & set(op.space.names) and not plain:
            return True
        again = any(isinstance(access, Halo) or c.action.spans or isinstance(c.action, TakeAt)
                    or (isinstance(access, Take) and access.scattered)
                    for c in consumers for source, access in zip(c.inputs, c.accesses, strict=True) if source is op)
        return again or len(consumers) > 1

    def _shares_chunks(self, op: Op) -> bool:
        """Whether one kernel of chunks is all that reads an op, cell by cell: then its chunks are the op's as well."""
        consumers = self._consumers.get(id(op), [])
        return len(consumers) == 1 and isinstance(consumers[0].action, Map) and consumers[0].action.aligned and all(
            access is Point and source.space == op.space
            for source, access in zip(consumers[0].inputs, consumers[0].accesses, strict=True))

    def _keep(self, op: Op, layout: Layout | None = None) -> None:
        """Cut the op's axes (or take the given layout, or that of a kept input of its shape) and keep its chunks."""
        axes = dict(self.result.layouts[id(op)].axes)
        if layout is None:
            whole = op.action.whole | self._whole_of(op)
            if any(axis.blocks for axis in axes.values()):  # blocks are put together along their own dimension only
                whole |= {name for name, axis in axes.items() if not axis.blocks}
            if not _fits(axes, whole):
                layout = self._inherited(op, axes)
                if layout is None or not _fits(dict(layout.axes), whole):
                    layout = cut(axes, cell_bytes=self.cost.weight(op), whole=whole, parallel=self.cost.parallel(op),
                                 stored_bytes=self.cost.stored_bytes(op), light=not self.cost.heavy(op))
        if layout is not None:
            self.result.layouts[id(op)] = layout
        self.result.kept.append(id(op))
        self.cost.forget()

    def _whole_of(self, op: Op) -> frozenset[str]:
        """Dimensions of the output that a fused op gives only whole, or that not every column has."""
        if op.action.spans:
            return frozenset(op.space.names)

        def found() -> frozenset[str]:
            dims = frozenset(name for name in op.space.names if any(name not in f.dims for f in op.fields))
            for source in self.cost.fused(op):
                dims |= (source.action.whole | self._whole_of(source)) & frozenset(op.space.names)
            return dims

        whole: frozenset[str] = self.cost.once("whole", op, found)
        return whole

    def _inherited(self, op: Op, axes: Mapping[str, Axis]) -> Layout | None:
        """The cuts of a kept input over the same dimensions: then chunk reads chunk."""
        if op.action.whole:
            return None
        for source in op.inputs:
            layout = self.result.layouts[id(source)]
            if id(source) in self.result.kept:
                if {n: axis.parts for n, axis in layout.axes} == {n: axis.parts for n, axis in axes.items()} \
                        and tuple(layout.space.names) == tuple(axes):
                    return layout
            else:
                found: Layout | None = self.cost.once("inherited", source, partial(self._inherited, source, axes))
                if found is not None:
                    return found
        return None

    def _counted(self, op: Op) -> Op | None:
        """The op as a source of known length, once its blocks are committed."""
        source = self.counted.get(op.recipe)
        if source is None:
            return None
        load = Load(source)
        built = Op(load, (), (), source.space, source.fields, op.name)
        layout = Layout.of(load.axes(built, ()))
        return self._add(built.rebuilt((), layout), layout)

    def _ingest(self, op: Op) -> Op | None:
        layout = Layout.of(op.action.axes(op, ()))
        assert isinstance(op.action, Ingest)
        lowered = replace(op.rebuilt((), layout), fields=op.action.kept_fields(op.fields))
        known = self._counted(lowered)
        if known is None:
            self._count(self._add(lowered, layout))
        return known

    def _rows(self, op: Op, inputs: tuple[Op, ...]) -> Op | None:
        """A filter or explode: what it reads is cut now, since its blocks are those chunks."""
        first = inputs[0]
        axes = dict(self.result.layouts[id(first)].axes)
        if all(axis.extent for axis in axes.values()):
            layout = Layout.of(axes)
        else:
            cost = self.cost
            layout = cut(axes, cell_bytes=sum(map(cost.input_weight, inputs)), parallel=cost.parallel(op),
                         stored_bytes=max(map(cost.stored_bytes, inputs)),
                         light=id(op) not in self._before_heavy and not any(map(cost.heavy, (op, *inputs))))
        lowered, out = over_blocks(op, inputs, layout)
        if (known := self._counted(lowered)) is not None:
            return known
        self._add(lowered, out)
        if self._is_kept(op, lowered):
            self._keep(lowered)
        return lowered

    def _reduce(self, op: Op, source: Op) -> Op:
        whole = frozenset() if id(source) in self.result.kept else source.action.whole | self._whole_of(source)
        # By what is read: so they have the cuts of another reduction of the same data without the ops that are fused.
        read, live = self.cost.input_read(source), self.cost.input_weight(source)
        if Behind.of([source], lambda one: id(one) in self.result.kept).read:
            live = read  # what is computed from it comes in small pieces
        steps = over_segments(op, source, dict(self.result.layouts[id(source)].axes),
                              read if live <= LIVE_SHARE * read else live, self.cost.stored_bytes(source), whole,
                              light=not self.cost.heavy(source), live_bytes=live,
                              parallel=self.cost.parallel(source))
        for step, layout in steps:
            self._add(step, layout)
            if step.action.durable:
                self._keep(step, layout)
        return steps[-1][0]

    def _shuffle(self, op: Op, source: Op) -> Op | None:
        shuffle = op.action
        assert isinstance(shuffle, Shuffle)
        axes = dict(self.result.layouts[id(source)].axes)
        cost = self.cost
        layout = Layout.of(axes) if all(a.extent for a in axes.values()) else cut(
            axes, cell_bytes=cost.input_weight(source), stored_bytes=cost.stored_bytes(source),
            light=not cost.heavy(source))
        name, axis = layout.axes[0]
        total = axis.length * source.cell_bytes
        buckets = axis.chunks if axis.blocks else max(1, -(-int(total) // BUCKET_BYTES))
        buckets = min(max(buckets, 1), MAX_BUCKETS)
        unknown = replace(op, inputs=(source,))
        by, descending = shuffle.keys[0]
        split = Ordered(shuffle.keys) if shuffle.order else Partition(shuffle.keys, buckets)
        parted, shape = over_blocks(replace(unknown, action=split, fields=op.inputs[0].fields), (source,), layout)
        self._keep(self._add(parted, shape), shape)
        whole, inputs = Whole(((name, None),)), [parted]
        if shuffle.order:
            sample = replace(unknown, action=Sample(by, descending), fields=Sample.fields(op.inputs[0].field(by)))
            sampled, shape = over_blocks(sample, (source,), layout)
            self._keep(self._add(sampled, shape), shape)
            joined = Op(Splitters(), (sampled,), (whole,), op.space, sampled.fields, op.name)
            one = Layout.of(joined.action.axes(joined, (shape,)))
            inputs.append(self._add(joined.rebuilt((sampled,), one), one))
            self._keep(inputs[1], one)
        gather = Op(shuffle.gather(buckets), tuple(inputs), (whole,) * len(inputs), op.space, op.fields, op.name)
        out = Layout.of(gather.action.axes(gather, (shape,)))
        gathered = gather.rebuilt(tuple(inputs), out)
        if (known := self._counted(gathered)) is not None:
            return known
        self._add(gathered, out)
        if not self._only_written(op):
            self._keep(gathered, out)
        return gathered

    def _only_written(self, op: Op) -> bool:
        """Whether a sink is all that reads an op, and takes its blocks as they are."""
        actions = [consumer.action for consumer in self._consumers.get(id(op), [])]
        written = len(actions) == 1 and isinstance(actions[0], Write) and not actions[0].needs_lengths
        return written and all(output is not op for _, output in self.graph.outputs)

    def _write(self, op: Op, source: Op) -> Op:
        """A sink: in step with the op before it where that makes chunks of a good size, else with chunks of its own."""
        write = op.action
        assert isinstance(write, Write)
        axes = dict(self.result.layouts[id(source)].axes)
        axes = {name: axis if axis.blocks else axis.regular for name, axis in axes.items()}
        layout: Layout | None = None
        if (grid := write.grid(op)) is not None:
            return self._rechunked(op, source, grid)
        if any(axis.blocks for axis in axes.values()):
            layout = Layout.of({name: replace(axis, extent=1 if axis.blocks else axis.extent or max(axis.length, 1))
                                for name, axis in axes.items()})
        elif id(source) not in self.result.kept and self.cost.heavy(source):
            whole = source.action.whole | self._whole_of(source)
            fine = cut(axes, cell_bytes=self.cost.weight(source), whole=whole, parallel=self.cost.parallel(source),
                       stored_bytes=self.cost.stored_bytes(source))
            if fine.chunks <= 1 or fine.region(0).cells * source.cell_bytes >= COALESCE:
                layout = fine
            else:
                self._keep(source)
        if layout is None:
            uncut = {name: replace(axis, extent=0) for name, axis in axes.items()}
            layout = cut(
                uncut,
                cell_bytes=max(self.cost.weight(op.rebuilt((source,), Layout.of(uncut))), source.cell_bytes),
                parallel=1,
                chunk_bytes=SINK_BYTES,
                stored_bytes=self.cost.stored_bytes(op.rebuilt((source,), Layout.of(uncut))),
            )
        lowered = self._add(op.rebuilt((source,), layout), layout)
        self._keep(lowered, layout)
        return lowered

    def _rechunked(self, op: Op, source: Op, grid: tuple[int, ...]) -> Op:
        """A sink whose chunks were asked for: from what is stored, or from pieces of it (`gridcompute.rechunking`)."""
        # Columns that kernels give are kept one by one: together they would be cut along the dimensions of all alone.
        for part in source.inputs if isinstance(source.action, Choose) else (source,):
            if not {id(source), id(part)} & set(self.result.kept) and self.cost.heavy(part):
                self._keep(part)
        stored = dict(self.result.layouts[id(source)].axes)
        fine = self.cost.least(source)
        decoded = {name: replace(axis, multiple=min(axis.multiple, fine.get(name, axis.multiple)))
                   for name, axis in stored.items()}
        row = rows_of(decoded, grid, self.cost.columns(source))
        if groups := crossed(source, decoded, row):
            row = rows_of(decoded, grid, self.cost.columns(source), SMALL_BYTES)
            for step, layout in through_pieces(source, groups, row, self.result.layouts, self.result.kept):
                source = self._add(step, layout)
                if isinstance(step.action, Scatter):
                    self._keep(step, layout)
        layout = Layout.of({name: replace(axis.regular, extent=extent, run=1)  # runs are those of a fold's own chunks
                            for (name, axis), extent in zip(stored.items(), row, strict=True)})
        lowered = self._add(op.rebuilt((source,), layout), layout)
        self._keep(lowered, layout)
        return lowered


def _fits(axes: Mapping[str, Axis], whole: frozenset[str]) -> bool:
    """Whether axes are cut already, and not along dimensions that must stay whole."""
    uncut = all(axes[name].blocks or axes[name].chunks <= 1 for name in whole & set(axes))
    return uncut and all(axis.extent for axis in axes.values())
