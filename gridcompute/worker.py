"""Carrying out tasks: read regions, compute, commit. Runs in a worker process; only small events go back.

Kept ops are looked up by recipe, so the same payload means the same in every process.
"""

from __future__ import annotations

import json
import resource
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from gridcompute.actions.folds import Fold
from gridcompute.actions.loads import Ingest
from gridcompute.actions.stencils import Iterate
from gridcompute.actions.writes import Write
from gridcompute.assemble import assemble
from gridcompute.axes import Layout
from gridcompute.checkpoints import Checkpoints
from gridcompute.codecache import compile_seconds
from gridcompute.columns import Block, Field
from gridcompute.errors import CorruptShardError, DivergenceError, GridError, KernelError, RunError
from gridcompute.events import Failure, FailureKind, Kept, Task, TaskDone, TaskFailed
from gridcompute.keys import digest
from gridcompute.located import located
from gridcompute.op import Op, Read, detached
from gridcompute.planning import Plan, Stage
from gridcompute.progressword import Word, chunk_begins, publishing
from gridcompute.shard import TOMBSTONE, Record, commit, commit_record, decode_at, shard_path, tombstone
from gridcompute.sinks.base import Output
from gridcompute.spaces import Region
from gridcompute.stepping import Crew, PausedError
from gridcompute.store import Store, open_store, transient
from gridcompute.tiles import bands, extents, in_order

CACHE_BYTES = 64 * 2**20
"""Decoded input shards that a worker keeps within a task."""

TURN_SECONDS = 300.0
"""An `iterate` that takes longer goes on in another task from a state that was kept: a deadline is no bound for it."""

GANG_ATTEMPTS = 2
"""Tries of an `iterate` with several threads."""

PART_REGION = Region.of((0, 1))
"""Region in the name of an ingested file's record: the token alone tells files apart, so their order may change."""


@dataclass(frozen=True)
class KeptOp:
    """How the results of a kept op of another stage are read."""

    stage: int
    layout: Layout
    fields: tuple[Field, ...]


@dataclass(frozen=True, eq=False)
class Payload:
    """What a worker needs to know of a stage; sent once.

    Attributes:
        stage: its ops and layouts.
        kept: results that it reads, by recipe.
        store: URL of the work store.
        options: the store's.
        outputs: prepared outputs of the ops that write, by recipe.
        threads: that a worker reads and decodes with.
    """

    stage: Stage
    kept: Mapping[str, KeptOp]
    store: str
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    outputs: Mapping[str, Output] = field(default_factory=dict)
    threads: int = 1

    @classmethod
    def of(cls, plan: Plan, stage: Stage, store: Store, outputs: Mapping[str, Output], threads: int = 1) -> Payload:
        """The payload of one stage of a plan."""
        kept = {}
        for root in stage.roots:
            for leaf in plan.leaves(root):
                home = plan.home.get(id(leaf))
                if home is not None:
                    kept[leaf.recipe] = KeptOp(home[0], plan.stages[home[0]].layouts[home[1]], leaf.fields)
        roots = detached(stage.roots, lambda op: op not in stage.roots and op.recipe in kept)
        return cls(replace(stage, roots=roots), kept, store.url, getattr(store, "options", {}), outputs, threads)


@dataclass(frozen=True, eq=False)
class Order:
    """One task with what only the driver knows.

    Attributes:
        task: stage and chunks.
        tokens: per chunk, one token a root.
        roots: per chunk, the roots that aren't kept yet.
        places: shard (or held block, or a reference to it) of each input chunk, by (recipe, chunk).
        word: where the task publishes its progress.
    """

    task: Task
    tokens: tuple[tuple[str, ...], ...]
    roots: tuple[tuple[int, ...], ...]
    places: Mapping[tuple[str, int], Any]
    word: Word | None = None


class LostInputError(RunError):
    """An input shard is gone or doesn't verify; it must be made again."""

    def __init__(self, message: str, stage: int, chunk: int) -> None:
        super().__init__(message)
        self.stage = stage
        self.chunk = chunk


class StageWorker:
    """Carries out tasks of one stage."""

    def __init__(self, payload: Payload, store: Store | None = None) -> None:
        self.payload = payload
        self.store = store if store is not None else open_store(payload.store, **payload.options)
        edges = Counter(recipe for root in payload.stage.roots for recipe in self._edges(root))
        self._shared = {recipe for recipe, count in edges.items() if count > 1}
        self._places: Mapping[tuple[str, int], Any] = {}
        self._cache: dict[tuple[str, int], Block] = {}
        self._cached = 0
        self._threads = self._members = payload.threads

    def _edges(self, root: Op) -> Iterator[str]:
        """What the ops that are computed for a root read: a recipe as often as it is an input."""
        for op in root.walk(lambda op: op is not root and op.recipe in self.payload.kept):
            if op is root or op.recipe not in self.payload.kept:
                yield from (source.recipe for source in op.inputs)

    def run(self, order: Order, worker: str = "") -> TaskDone | TaskFailed:
        """Do a task; what was kept before a failure is reported with it."""
        with publishing(order.word):
            return self._run(order, worker)

    def _run(self, order: Order, worker: str) -> TaskDone | TaskFailed:
        began, compiled = time.perf_counter(), compile_seconds()
        self._places, self._cache, self._cached = order.places, {}, 0
        # Only a task's own thread publishes its cell, so what killed or held up a task runs on one the second time.
        self._threads = self.payload.threads if order.task.attempt == 1 else 1
        # A gang that lost its process begins as one again; what goes on failing is then told by cell.
        self._members = self.payload.threads if order.task.attempt <= GANG_ATTEMPTS else 1
        kept: list[Kept] = []
        seconds, own, done = 0.0, 0.0, 0
        for chunk, tokens, roots in zip(order.task.chunks, order.tokens, order.roots, strict=True):
            try:
                chunk_begins(chunk)
                made = self._chunk(chunk, tokens, roots)
                # A root that was committed before another failed isn't done again; of held ones it's all or none.
                for item in list(made) if self.payload.stage.held else made:
                    kept.append(item)  # noqa: PERF402 (what came before an error counts)
            except PausedError:
                seconds, own = time.perf_counter() - began, compile_seconds() - compiled
                break
            except Exception as error:
                failure = self._failure(error, chunk)
                return TaskFailed(order.task.number, failure, tuple(kept), time.perf_counter() - began, worker)
            done += 1
            seconds, own = time.perf_counter() - began, compile_seconds() - compiled
            if seconds - own > order.task.seconds:
                break
        left = order.task.chunks[done:]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return TaskDone(order.task.number, tuple(kept), seconds, worker, own, peak, left)

    def _chunk(self, chunk: int, tokens: Sequence[str], roots: Sequence[int]) -> Iterator[Kept]:
        stage = self.payload.stage
        wanted = [(stage.roots[i], stage.layouts[i].region(chunk)) for i in roots]
        memo: dict[tuple[str, Region], Block] = {}
        blocks: Iterator[Block]
        if isinstance(stage.roots[0].action, Ingest):
            yield self._ingest(stage.roots[0], stage.roots[0].action, 0, chunk, tokens[0])
            return
        if all(isinstance(op.action, Fold) for op in stage.roots):
            blocks = self._folds(wanted)
        else:
            blocks = (self._root(op, region, memo, tokens[i]) for i, (op, region) in zip(roots, wanted, strict=True))
        for i, (op, _), block in zip(roots, wanted, blocks, strict=True):
            token = tokens[i]
            if isinstance(op.action, Write):
                yield self._written(op, i, chunk, token, block)
            elif stage.held:
                yield Kept(stage.number, i, chunk, "", "", block.rows, block.nbytes, value=block)
            else:
                done = commit(self.store, op.recipe, token, block, op.fields, op.space)
                if isinstance(op.action, Iterate):
                    self._checkpoints(op, block.region, token).clear()
                yield Kept(stage.number, i, chunk, done.path, done.digest, done.rows, done.size, done.won)

    def _root(self, op: Op, region: Region, memo: dict[tuple[str, Region], Block], token: str) -> Block:
        if isinstance(op.action, Write):
            return self._read(op, 0, op.reads(0, region)[0], memo)
        if isinstance(op.action, Iterate):
            crew = Crew(self._members, self._checkpoints(op, region, token), time.monotonic() + TURN_SECONDS)
            return self._compute(op, region, memo, partial(op.action.compute, crew=crew))
        return self._compute(op, region, memo)

    def _checkpoints(self, op: Op, region: Region, token: str) -> Checkpoints:
        return Checkpoints(self.store, op.recipe, token, region, op.fields, op.space)

    def _compute(self, op: Op, region: Region, memo: dict[tuple[str, Region], Block],
                 compute: Callable[[Op, Region, Read], Block] | None = None) -> Block:
        allowed = [op.reads(i, region) for i in range(len(op.inputs))]

        def read(i: int, part: Region) -> Block:
            if not any(box.contains(part) for box in allowed[i]) and part.cells:
                raise RunError(f"{op} reads {part} of its input {i}, which its access doesn't name")
            return self._read(op, i, part, memo)

        try:
            return (compute or op.action.compute)(op, region, read)
        except KernelError as error:
            located(error, op, region)
            raise

    def _read(self, op: Op, i: int, region: Region, memo: dict[tuple[str, Region], Block]) -> Block:
        """An input's region: from shards where it is kept, else computed here, once a chunk where several read it."""
        source = op.inputs[i]
        kept = self.payload.kept.get(source.recipe)
        if kept is not None:
            return assemble(kept.fields, kept.layout, region, lambda chunk: self._shard(source.recipe, kept, chunk))
        key = (source.recipe, region)
        block = memo.get(key) or self._compute(source, region, memo)
        if source.recipe in self._shared:
            memo[key] = block
        return block

    def _folds(self, wanted: Sequence[tuple[Op, Region]]) -> Iterator[Block]:
        """Joined reductions: each box of the segment is read once and folded by all, strictly in order."""
        passes = []
        for op, region in wanted:
            assert isinstance(op.action, Fold)
            passes.append(op.action.begin(op, region))

        def fetch(several: tuple[Region, ...]) -> list[Block]:
            memo: dict[tuple[str, Region], Block] = {}
            return [self._read(op, 0, box, memo) for (op, _), box in zip(wanted, several, strict=True)]

        def take(several: tuple[Region, ...], blocks: Sequence[Block]) -> None:
            for folding, box, block in zip(passes, several, blocks, strict=True):
                folding.take(box, block)

        in_order(fetch, take, self._bands(wanted), self._threads)
        return (folding.end() for folding in passes)

    def _bands(self, wanted: Sequence[tuple[Op, Region]]) -> list[list[tuple[Region, ...]]]:
        """What joined reductions read, a box for each of them, by bands that may be folded at once."""
        boxes = [op.reads(0, region) for op, region in wanted]
        tile = extents([op for op, _ in wanted], self.payload.kept)
        if tile is None or any(own != boxes[0] for own in boxes):
            return [list(zip(*boxes, strict=True))]
        reduced = {i for i, name in enumerate(wanted[0][0].inputs[0].space.names)
                   if any(isinstance(op.action, Fold) and name in op.action.reduce.dims for op, _ in wanted)}
        return [[(box,) * len(wanted) for box in band] for band in bands(boxes[0], tile, reduced)]

    def _shard(self, recipe: str, kept: KeptOp, chunk: int) -> Block:
        key = (recipe, chunk)
        if key in self._cache:
            return self._cache[key]
        place = self._places.get(key)
        if place is None:
            raise RunError(f"no place was sent for chunk {chunk} of {recipe}")
        if isinstance(place, Block):
            return place
        try:
            block = decode_at(self.store.get(place), place)
        except FileNotFoundError:
            raise LostInputError(f"the shard {place} is gone", kept.stage, chunk) from None
        except CorruptShardError as error:
            tombstone(self.store, place, error.message)
            raise LostInputError(error.message, kept.stage, chunk) from error
        if self._cached + block.nbytes <= CACHE_BYTES:
            self._cache[key] = block
            self._cached += block.nbytes
        return block

    def _ingest(self, op: Op, action: Ingest, root: int, chunk: int, token: str) -> Kept:
        """Commit a file's blocks one by one, then the record that lists them."""
        blocks = []
        for number, block in enumerate(action.blocks(chunk)):
            at = replace(block, region=Region.of((number, number + 1)))
            done = commit(self.store, blocks_recipe(op.recipe), token, at, op.fields, op.space)
            blocks.append((done.path, done.rows, done.digest, done.size))
        listed = json.dumps(blocks)
        rows, size = sum(b[1] for b in blocks), sum(b[3] for b in blocks)
        record = Record("", size, digest([b[2] for b in blocks]), rows, (("blocks", listed),))
        done = commit_record(self.store, op.recipe, PART_REGION, token, record)
        return Kept(
            self.payload.stage.number, root, chunk, done.path, done.digest, rows, size, done.won, blocks=tuple(blocks)
        )

    def _written(self, op: Op, root: int, chunk: int, token: str, block: Block) -> Kept:
        layout = self.payload.stage.layouts[root]
        region = layout.region(chunk)
        output, block, place = self.payload.outputs[op.recipe], replace(block, region=region), layout.place(chunk)
        try:
            written = output.write_chunk(block, region, place)
        except DivergenceError:
            # Where an earlier record was declared void, what it names may be broken: the good bytes replace it.
            if not self.store.exists(shard_path(op.recipe, str(region), token, 0, "record") + TOMBSTONE):
                raise
            written = output.write_chunk(block, region, place, replace=True)
        listed = json.dumps([[w.path, w.size, w.digest, w.rows] for w in written])
        record = Record(
            "", sum(w.size for w in written), digest([w.digest for w in written]), block.rows, (("written", listed),)
        )
        done = commit_record(self.store, op.recipe, region, token, record)
        return Kept(self.payload.stage.number, root, chunk, done.path, done.digest, block.rows, done.size, done.won,
                    blocks=tuple((w.path, w.rows, w.digest, w.size) for w in written))

    def _failure(self, error: Exception, chunk: int) -> Failure:
        kind = classify(error)
        lost = (error.stage, error.chunk) if isinstance(error, LostInputError) else None
        cell = error.cell if isinstance(error, KernelError) else None
        if isinstance(error, GridError):
            text = str(error)
        else:
            text = f"{type(error).__name__} in stage {self.payload.stage.name}: {error}"
            error = RunError(text, hint="".join(traceback.format_exception(error)[-3:]).strip())
        return Failure(kind, text, chunk, cell, error, lost)


def classify(error: BaseException) -> FailureKind:
    """The class of a failure (see `gridcompute.events.FailureKind`)."""
    if isinstance(error, LostInputError | CorruptShardError):
        return "corrupt_shard"
    if isinstance(error, KernelError):
        return "user"
    if isinstance(error, DivergenceError):
        return "divergence"
    if isinstance(error, MemoryError):
        return "out_of_memory"
    return "transient" if transient(error) else "fatal"


def blocks_recipe(recipe: str) -> str:
    """Recipe under which an ingested file's blocks lie, apart from the records of whole files."""
    return digest(("blocks", recipe))


