"""How a graph is carried out: stages of kept ops, what each chunk reads, what it costs. O(ops), lazy over tasks.

Siblings that read the same chunks are joined into one stage, so that the data passes through a worker once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from gridcompute.actions.folds import Fold
from gridcompute.actions.loads import Ingest, Load
from gridcompute.actions.shapes import Concat
from gridcompute.actions.writes import Write
from gridcompute.axes import Layout
from gridcompute.errors import MemoryBoundError
from gridcompute.keys import digest
from gridcompute.lower import Lowered, Lowering
from gridcompute.op import Graph, Op
from gridcompute.parts import most_parts
from gridcompute.peaks import Beside, Peak, at_once, reduced
from gridcompute.segments import boxes_of
from gridcompute.sources.base import Source
from gridcompute.spaces import Region
from gridcompute.walks import inputs_first

HELD_BYTES = 256 * 2**20
"""An intermediate of at most so many bytes may be held in memory instead of committed."""

MOST_CHUNKS = 20_000_000
"""A stage with more is refused: its chunks' names alone would fill a driver."""

HELD_SHARE = 2
"""It is held only if what was read for it has at most so many times its bytes: making it again costs a read."""

ChunkId = tuple[int, int]
"""A stage's number and a chunk's number in it."""

OpRegion = tuple[Op, Region]
"""A region of an op."""


@dataclass(frozen=True, eq=False)
class Stage:
    """Kept ops that are computed together, chunk by chunk.

    Attributes:
        number: place in the plan; a stage only reads stages of lower number.
        roots: the ops that are kept.
        layouts: how each is cut; chunk k of one goes with chunk k of the others.
        held: whether results are held in memory instead of committed.
        peak: estimated bytes of one chunk in work.
        read_bytes: estimated bytes read from outside, all chunks.
        write_bytes: estimated bytes kept, all chunks.
        skips: whether a kernel of it skips cells in which it fails.
        folds: reductions that end in roots and aren't kept: recipe and cuts of each.
    """

    number: int
    roots: tuple[Op, ...]
    layouts: tuple[Layout, ...]
    held: bool
    peak: Peak
    read_bytes: int
    write_bytes: int
    skips: bool = False
    folds: tuple[tuple[str, Layout], ...] = ()

    @property
    def task_bytes(self) -> int:
        """Estimated peak bytes of one chunk in work, on one thread."""
        return self.peak.of()

    @property
    def spans(self) -> bool:
        """See `Action`: of its tasks."""
        return any(op.action.spans for op in self.roots)

    @property
    def threaded(self) -> bool:
        """See `Action`: of its tasks."""
        return bool(self.folds) or all(op.action.threaded for op in self.roots)

    @property
    def chunks(self) -> int:
        """Number of chunks."""
        return self.layouts[0].chunks

    @property
    def block_bytes(self) -> int:
        """Estimated bytes of a chunk's results that stay in the worker until its task ends: of held ones."""
        return -(-self.write_bytes // self.chunks) if self.held and self.chunks else 0

    @property
    def name(self) -> str:
        """Names of the kept ops, with the step of those that take several stages."""
        names = (f"{op}: {op.action.step}" if op.action.step else str(op) for op in self.roots)
        return " + ".join(dict.fromkeys(names))

    @property
    def recipe(self) -> str:
        """The first root's recipe: stages with the same one keep the same bytes."""
        return self.roots[0].recipe


def _require_countable(op: Op, layout: Layout) -> None:
    """Refuse more chunks than a run could name, before they are listed."""
    chunks = max(layout.chunks, op.action.segments.layout.chunks if isinstance(op.action, Fold) else 0)
    if chunks > MOST_CHUNKS:
        raise MemoryBoundError(
            f"stage {op} goes over {chunks:.2g} chunks, more than the {MOST_CHUNKS:,} that a run can keep count of",
            hint="select a part; if an input's metadata says so, check whether the file is broken",
        )


class Plan:
    """One phase of a graph: everything that can be planned before further blocks are counted.

    Args:
        graph: what is asked for.
        counted: by recipe, sources over the blocks of ops that earlier phases counted.
    """

    def __init__(self, graph: Graph, counted: Mapping[str, Source] | None = None) -> None:
        self.graph = graph
        lowering = Lowering(graph, counted or {})
        self.lowered: Lowered = lowering.run()
        self._cost = lowering.cost
        self._kept = dict.fromkeys(self._needed())  # in their order: stages must be numbered alike in every process
        self.stages: tuple[Stage, ...] = tuple(self._staged())
        self.home: dict[int, tuple[int, int]] = {
            id(root): (stage.number, i) for stage in self.stages for i, root in enumerate(stage.roots)}
        self._above: dict[int, list[tuple[Op, int]]] = {}
        for op in self.lowered.ops.values():
            for i, source in enumerate(op.inputs):
                self._above.setdefault(id(source), []).append((op, i))
        self._constant: dict[int, str | None] = {}
        self._tokens: dict[OpRegion, str] = {}

    @property
    def final(self) -> bool:
        """Whether this phase gives the outputs (else it counts blocks, and another phase follows)."""
        return not self.lowered.pending

    @cached_property
    def goals(self) -> tuple[int, ...]:
        """Numbers of the stages that are asked for in this phase."""
        wanted = self.lowered.outputs.values() if self.final else self.lowered.pending
        return tuple(sorted({self.home[id(op)][0] for op in wanted}))

    def _needed(self) -> Iterator[int]:
        """Kept ops that the phase's goals reach, in order (cull)."""
        wanted = list(self.lowered.outputs.values()) if self.final else list(self.lowered.pending)
        reached = {id(op) for goal in wanted for op in goal.walk()}
        return (key for key in dict.fromkeys(self.lowered.kept) if key in reached)

    def _staged(self) -> Iterator[Stage]:
        """Group kept ops that read the same leaves over the same chunks (join)."""
        groups: list[list[Op]] = []
        signatures: list[tuple[object, frozenset[int]]] = []
        order = sorted((self.lowered.ops[key] for key in self._kept), key=lambda op: self._depths[id(op)])
        for op in order:
            depth = self._depths[id(op)]
            signature = (self._cuts(op), frozenset(id(leaf) for leaf in self.leaves(op)))
            for group, known in zip(groups, signatures, strict=True):
                joins = (
                    known[0] == signature[0] and known[1] & signature[1] and self._depths[id(group[0])] == depth
                )
                if joins and not isinstance(op.action, Ingest):
                    group.append(op)
                    break
            else:
                groups.append([op])
                signatures.append(signature)
        for number, group in enumerate(groups):
            yield self._stage(number, tuple(group))

    @cached_property
    def _depths(self) -> dict[int, int]:
        """Length of the longest chain of kept ops before each."""
        known: dict[int, int] = {}

        def before(op: Op) -> list[Op]:
            return [leaf for leaf in self.leaves(op) if id(leaf) in self._kept]

        for key in self._kept:
            for op in inputs_first(self.lowered.ops[key], before, lambda op: id(op) in known):
                known[id(op)] = max((1 + known[id(leaf)] for leaf in before(op)), default=0)
        return known

    def _cuts(self, op: Op) -> object:
        for fold in self._folds(op):
            assert isinstance(fold.action, Fold)
            return boxes_of(fold.action.segments, self.lowered.layouts[id(fold)], fold.inputs[0].space.names)
        return self.lowered.layouts[id(op)]

    def _folds(self, root: Op) -> list[Op]:
        """A kept reduction itself, or those that end in a kept op."""
        if isinstance(root.action, Fold):
            return [root]
        return [op for op in root.walk(lambda op: op is not root and (id(op) in self._kept or isinstance(
            op.action, Fold))) if isinstance(op.action, Fold) and id(op) not in self._kept]

    def _stage(self, number: int, roots: tuple[Op, ...]) -> Stage:
        layouts = tuple(self.lowered.layouts[id(op)] for op in roots)
        outputs = {id(op) for op in self.lowered.outputs.values()} | {id(op) for op in self.lowered.pending}
        folds = {op.recipe: op for root in roots for op in self._folds(root)}
        kept = sum(int(op.cell_bytes * op.whole.cells) for op in roots)
        peak, read = self._reduced(roots, layouts, folds) if folds else self._computed(roots, layouts)
        durable = bool(folds) or any(op.action.durable or id(op) in outputs for op in roots)
        blocked = any(layout.blocked for layout in layouts)
        # Results much smaller than what was read for them are work worth keeping; others are a pass over the data.
        held = not durable and not blocked and 0 < read <= HELD_SHARE * kept and kept <= HELD_BYTES
        # Which cells were skipped is known from what is committed.
        skips = any(op.action.skips for root in roots for op in root.walk(
            lambda op, root=root: op is not root and id(op) in self._kept))  # type: ignore[misc]
        ended = tuple((key, self.lowered.layouts[id(op)]) for key, op in folds.items() if op not in roots)
        return Stage(number, roots, layouts, held and not skips, peak, read, kept, skips, ended)

    def _computed(self, roots: tuple[Op, ...], layouts: tuple[Layout, ...]) -> tuple[Peak, int]:
        """What a task takes that doesn't fold, and bytes read by all."""
        cost, task, fixed, read = self._cost, 0, 0, 0
        for op, layout in zip(roots, layouts, strict=True):
            _require_countable(op, layout)
            one, chunks = layout.region(0) if layout.chunks else op.whole, layout.chunks
            expected = one.cells * cost.block_rows(op)
            need = int(expected * cost.weight(op)) if op.inputs else 0
            output = cost.stored_bytes(op) + 2 * int(expected * op.cell_bytes)
            if (row := cost.row_bytes(op, one)) is not None:
                need, output = row[0] - row[1], row[1]
            output += op.action.held_bytes
            task, fixed = task + need + output, fixed + output
            read += int(one.cells * cost.read(op)) * chunks
        return Peak(task, part=task - fixed, fixed=fixed), read

    def _reduced(self, roots: tuple[Op, ...], layouts: tuple[Layout, ...], folds: Mapping[str, Op]) -> tuple[Peak, int]:
        """The same of one that folds."""
        cost, read, box, regions_of = self._cost, 0, None, []
        for op in folds.values():
            layout = self.lowered.layouts[id(op)]
            _require_countable(op, layout)
            one = layout.region(0) if layout.chunks else op.whole
            boxes = op.reads(0, one)
            box = box or next(iter(boxes), None)
            cells = boxes[0].cells if boxes else 0
            read = max(read, int(cells * cost.input_read(op.inputs[0])) * len(boxes) * layout.chunks)
            regions_of.append((op, one))
        wanted = [(op, layout.region(0) if layout.chunks else op.whole)
                  for op, layout in zip(roots, layouts, strict=True)]
        kept = {self.lowered.ops[key].recipe for key in self._kept}
        beside = at_once(cost, kept, tuple(folds.values()), box) if box else Beside()
        return reduced(wanted, regions_of, beside), read

    def leaves(self, op: Op) -> Iterator[Op]:
        """The kept ops and sources that one op's task reads."""
        seen: set[int] = set()
        stack = list(reversed(op.inputs))
        while stack:
            source = stack.pop()
            if id(source) in seen:
                continue
            seen.add(id(source))
            if id(source) in self._kept or not source.inputs:
                yield source
            else:
                stack.extend(reversed(source.inputs))

    def inputs(self, stage: int, chunk: int) -> Iterator[ChunkId]:
        """Kept chunks that a chunk reads, each once."""
        seen: set[ChunkId] = set()
        for root, layout in zip(self.stages[stage].roots, self.stages[stage].layouts, strict=True):
            for found in self._down(root, layout.region(chunk), set()):
                if found not in seen:
                    seen.add(found)
                    yield found

    def _down(self, op: Op, region: Region, passed: set[tuple[int, Region]]) -> Iterator[ChunkId]:
        if (id(op), region) in passed:  # fused ops may share inputs many times over
            return
        passed.add((id(op), region))
        for i, source in enumerate(op.inputs):
            home = self.home.get(id(source))
            if home is None and not source.inputs:
                continue
            for part in op.reads(i, region):
                if home is None:
                    yield from self._down(source, part, passed)
                else:
                    number, place = home
                    yield from ((number, c) for c in self.stages[number].layouts[place].covering(part))

    def consumers(self, stage: int, chunk: int) -> Iterator[ChunkId]:
        """Kept chunks that may read a chunk, each once."""
        seen: set[ChunkId] = set()
        for root, layout in zip(self.stages[stage].roots, self.stages[stage].layouts, strict=True):
            for found in self._up(root, layout.region(chunk), set()):
                if found not in seen:
                    seen.add(found)
                    yield found

    def _up(self, op: Op, region: Region, passed: set[tuple[int, Region]]) -> Iterator[ChunkId]:
        if (id(op), region) in passed:
            return
        passed.add((id(op), region))
        for consumer, i in self._above.get(id(op), ()):
            part = consumer.feeds(i, region)
            home = self.home.get(id(consumer))
            if home is None:
                yield from self._up(consumer, part, passed)
            else:
                number, place = home
                yield from ((number, c) for c in self.stages[number].layouts[place].covering(part))

    @cached_property
    def producers(self) -> tuple[frozenset[int], ...]:
        """Per stage, the stages that it reads."""
        return tuple(frozenset(self.home[id(leaf)][0] for root in stage.roots for leaf in self.leaves(root)
                               if id(leaf) in self.home) for stage in self.stages)

    def barrier(self, stage: int, producer: int) -> bool:
        """Whether chunks of a stage read all chunks of a producer: they then wait for the stage, not chunk by chunk."""
        known: dict[tuple[int, int], bool] = self.__dict__.setdefault("_barriers", {})
        if (stage, producer) not in known:
            total, last = self.stages[producer].chunks, self.stages[stage].chunks - 1
            ends = {0, last} if last >= 0 else ()
            known[stage, producer] = total > 1 and all(
                sum(1 for number, _ in self.inputs(stage, chunk) if number == producer) == total for chunk in ends)
        return known[stage, producer]

    def most_parts(self, stage: int, chunk: int) -> int:
        """Into how many parts a chunk may be taken: as many as each of the stage's roots can."""
        one = self.stages[stage]
        return min(most_parts(op, layout.region(chunk), lambda op: id(op) in self._kept)
                   for op, layout in zip(one.roots, one.layouts, strict=True))

    def token(self, op: Op, region: Region) -> str:
        """Digest of the outside objects that a region of an op reads, with their places where they may move (law 2)."""
        # Merges and consumers ask for the tokens of the same kept chunks again; fused ops may share inputs many times.
        fused: dict[OpRegion, str] = {}

        def place(op: Op) -> dict[OpRegion, str]:
            again = isinstance(op.action, Load) and getattr(op.action.source, "hashed", False)
            return self._tokens if again or id(op) in self.home else fused

        def known(part: OpRegion) -> str | None:
            return self._uniform(part[0]) or place(part[0]).get(part)

        for part in inputs_first((op, region), self._before, lambda part: known(part) is not None):
            place(part[0])[part] = digest(self._objects(*part, known))
        found = known((op, region))
        assert found is not None
        return found

    def chunk_token(self, stage: int, root: int, chunk: int) -> str:
        """The token in the name of a chunk's shard."""
        op = self.stages[stage].roots[root]
        return self.token(op, self.stages[stage].layouts[root].region(chunk))[:16]

    def _uniform(self, op: Op) -> str | None:
        """The token of every region of an op, or None where regions read different objects."""
        for step in inputs_first(op, lambda step: step.inputs, lambda step: id(step) in self._constant):
            if isinstance(step.action, Load):
                source = step.action.source
                value = digest(tuple(source.objects(step.whole))) if source.uniform else None
            elif isinstance(step.action, Ingest) or (isinstance(step.action, Concat) and len(step.inputs) > 1):
                value = None
            else:
                parts = [self._constant[id(source)] for source in step.inputs]
                value = None if None in parts else parts[0] if len(set(parts)) == 1 else digest(parts)
            self._constant[id(step)] = value
        return self._constant[id(op)]

    def _before(self, part: OpRegion) -> Iterator[OpRegion]:
        """What a region's token is made of."""
        op, region = part
        return ((source, read) for i, source in enumerate(op.inputs) for read in op.reads(i, region))

    def _objects(self, op: Op, region: Region, known: Callable[[OpRegion], str | None]) -> tuple[object, ...]:
        if isinstance(op.action, Load):
            return (op.action.source.objects(region),)
        if isinstance(op.action, Ingest):
            names = op.action.source.parts[slice(*region.bounds[0])]
            return tuple(op.action.source.objects(name) for name in names)
        moving = isinstance(op.action, Concat)
        return tuple((known(part), part[1].bounds if moving else ()) for part in self._before((op, region)))

    def root_of(self, output: str) -> Op:
        """The runnable op of a named output (a final phase)."""
        return self.lowered.outputs[output]

    @property
    def sinks(self) -> tuple[tuple[str, Op], ...]:
        """Outputs that are written, with their names."""
        return tuple((name, op) for name, op in self.lowered.outputs.items() if isinstance(op.action, Write))
