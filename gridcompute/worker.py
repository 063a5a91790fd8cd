"""Carrying out tasks: read regions, compute, commit. Runs in a worker process; only small events go back."""

from __future__ import annotations

import contextlib
import itertools
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from gridcompute.actions.dags import Propagate
from gridcompute.actions.folds import Fold, Folding
from gridcompute.actions.loads import Ingest
from gridcompute.actions.rechunks import Gather
from gridcompute.actions.shuffles import Bucket
from gridcompute.actions.stencils import Iterate
from gridcompute.actions.writes import Write
from gridcompute.apart import Isolation
from gridcompute.assemble import assemble
from gridcompute.blas import one_thread
from gridcompute.bounds import fitting, room
from gridcompute.checkpoints import Checkpoints
from gridcompute.codecache import compile_seconds, compiled
from gridcompute.columns import Block
from gridcompute.commits import Commits
from gridcompute.ended import Ended
from gridcompute.errors import CorruptShardError, DivergenceError, GridError, KernelError, RunError, WorkerLostError
from gridcompute.events import Failure, FailureKind, Kept, TaskDone, TaskFailed, Turn
from gridcompute.footprint import Footprint, bounded, released, starved, trimmed
from gridcompute.groupreads import read_groups
from gridcompute.located import located
from gridcompute.numerics import numerics_class
from gridcompute.op import Op, Read
from gridcompute.orders import KeptOp, LostInputError, Order, Payload
from gridcompute.parts import in_parts
from gridcompute.progressword import chunk_begins, publishing
from gridcompute.readahead import Loads, ReadAhead, loads, waits
from gridcompute.shard import decode_at, tombstone
from gridcompute.skips import Skips, merged
from gridcompute.slabs import folded
from gridcompute.sources.buffers import BUFFERS
from gridcompute.sources.chunks import forget
from gridcompute.spaces import Region
from gridcompute.stepping import Crew, PausedError
from gridcompute.store import Store, open_store, transient, unanswered
from gridcompute.stored import PARTLY
from gridcompute.votes import keep_block, keep_file, keep_held, keep_written

CACHE_BYTES = 64 * 2**20
"""Decoded input shards that a worker keeps within a task."""

LARGE_BYTES = 64 * 2**20
"""Of results, from which what was read for them is let go of before they are written: to get that memory again costs
less than compressing them, and they need it."""

TURN_SECONDS = 300.0
"""An `iterate` or a `propagate` that takes longer goes on in another task from a state that was kept: a deadline is no
bound for it."""

PATIENCE = 4
"""Share of a deadline that one cell may take in a process of its own, before it is skipped."""

GANG_ATTEMPTS = 2
"""Tries of such an op with several threads."""


_stage = 0
"""Of this process: which stage did the last task."""

_starved = False
"""Of this process: whether a task ran out of memory since it was last cleared of what nobody needs."""


class StageWorker:
    """Carries out tasks of one stage."""

    def __init__(self, payload: Payload, store: Store | None = None) -> None:
        self.payload = payload
        self.store = store if store is not None else open_store(payload.store, **payload.options)
        edges = Counter(recipe for root in payload.stage.roots for recipe in self._edges(root))
        self._shared = {recipe for recipe, count in edges.items() if count > 1}
        self._places: Mapping[tuple[str, int], Any] = {}
        self._turn = Turn()
        self._cache: dict[tuple[str, int], Block] = {}
        self._cached = 0
        self._threads = self._members = payload.threads
        self._offer, self._parts = payload.offer, 1
        self._ended = Ended(dict(payload.stage.folds), self._kept, self._folds, self._compute)
        self._carrier: Isolation | None = None
        self._ahead: ReadAhead | None = None
        self._waits = waits(op for root in payload.stage.roots for op in root.walk())
        self._skipped: list[Skips] = []
        self._skipping = [{op.recipe for op in root.walk() if op.action.skips} for root in payload.stage.roots]

    def _edges(self, root: Op) -> Iterator[str]:
        """What the ops that are computed for a root read: a recipe as often as it is an input."""
        for op in root.walk(lambda op: op is not root and op.recipe in self.payload.kept):
            if op is root or op.recipe not in self.payload.kept:
                yield from (source.recipe for source in op.inputs)

    def run(self, order: Order, worker: str = "") -> TaskDone | TaskFailed:
        """Do a task; what was kept before a failure is reported with it."""
        global _starved
        if _starved:  # only now are the frames gone that held what was in the way
            _starved = False
            released()
        # Where something had ended a worker, kernels that skip are watched in a process of their own.
        watched = contextlib.closing(Isolation(self.payload.deadline / PATIENCE)) if order.task.alone else None
        with (publishing(order.word), bounded(self.payload.memory), one_thread(),
              self._reading_ahead(order) as self._ahead, watched or contextlib.nullcontext() as self._carrier):
            return self._run(order, worker) if order.fault is None else order.fault.carry_out(self, order, worker)

    def _run(self, order: Order, worker: str) -> TaskDone | TaskFailed:
        global _stage, _starved
        if _stage != id(self):  # what the stage before had decoded isn't in this one's bound
            _stage = id(self)
            forget()
            BUFFERS.settle()
            PARTLY.clear()
            trimmed()
        began, before, known, footprint = time.perf_counter(), compile_seconds(), compiled(), Footprint()
        self._places, self._cache, self._cached, self._turn = order.places, {}, 0, order.task.turn
        # Only a task's own thread publishes its cell, so what killed or held up a task runs on one the second time.
        self._parts = order.task.parts
        self._threads = self.payload.threads if order.task.attempt == self._parts == 1 else 1
        # A gang that lost its process begins as one again; what goes on failing is then told by cell.
        again = order.task.attempt <= GANG_ATTEMPTS
        self._members, self._offer = (self.payload.threads, self.payload.offer) if again else (1, None)
        commits, failed = Commits(together=len(order.task.chunks) > 1), None
        done = 0
        for place, (chunk, tokens, roots) in enumerate(zip(order.task.chunks, order.tokens, order.roots, strict=True)):
            try:
                chunk_begins(chunk)
                if self._ahead is not None:
                    self._ahead.turn(self._loads(order, place + 1))
                self._chunk(chunk, tokens, roots, commits)
            except PausedError:
                break
            except Exception as error:
                failed = chunk, error
                break
            done += 1
            if commits.failed or time.perf_counter() - began - (compile_seconds() - before) > order.task.seconds:
                break
        kept = commits.end()
        seconds, own = time.perf_counter() - began, compile_seconds() - before
        numerics = numerics_class() if self._turn.voted else ""
        if failed := failed or commits.failed:
            failure = self._failure(failed[1], failed[0])
            if failure.kind == "out_of_memory":
                _starved = True
                failure = replace(failure, peak_bytes=footprint.peak, own_bytes=footprint.own)
            return TaskFailed(order.task.number, failure, kept, seconds, worker, numerics=numerics)
        left = order.task.chunks[done:]
        return TaskDone(order.task.number, kept, seconds, worker, own, footprint.peak, left, compiled() - known,
                        footprint.own, numerics=numerics)

    def _reading_ahead(self, order: Order) -> contextlib.AbstractContextManager[ReadAhead | None]:
        """For tasks of several chunks, where reading waits or a core is free; not where memory may be short."""
        plain = order.task.attempt == order.task.parts == 1 and len(order.task.chunks) > 1
        stage = self.payload.stage
        folds = bool(stage.folds) or any(isinstance(op.action, Fold) for op in stage.roots)  # which read by tiles
        return ReadAhead() if plain and not folds and (self._waits or self.payload.threads > 1) else \
            contextlib.nullcontext()

    def _loads(self, order: Order, place: int) -> Loads:
        """What the chunk at a place of a task reads from outside."""
        stage = self.payload.stage
        return {} if place >= len(order.task.chunks) else loads(
            [(stage.roots[i], stage.layouts[i].region(order.task.chunks[place])) for i in order.roots[place]],
            self.payload.kept)

    def _chunk(self, chunk: int, tokens: Sequence[str], roots: Sequence[int], commits: Commits) -> None:
        """Compute a chunk of these roots; their commits are begun."""
        stage = self.payload.stage
        wanted = [(stage.roots[i], stage.layouts[i].region(chunk)) for i in roots]
        memo: dict[tuple[str, Region], Block] = {}
        self._skipped = []
        blocks: Iterator[Block]
        first = stage.roots[0]
        if isinstance(first.action, Ingest):
            where = (stage.number, 0, chunk)
            blocks_of = partial(first.action.blocks, chunk)
            commits.add([keep_file(self.store, first, where, tokens[0], blocks_of, self._turn)])
            return
        if stage.folds or all(isinstance(op.action, Fold) for op in stage.roots):
            blocks = self.reduced(wanted)
        else:
            blocks = (self._root(op, region, memo, tokens[i]) for i, (op, region) in zip(roots, wanted, strict=True))
        if stage.held:  # all or none
            commits.add([keep_held(stage.roots[i], (stage.number, i, chunk), block, self._turn, self._there(i, chunk))
                         for i, block in zip(roots, blocks, strict=True)])
            return
        # A root that was committed before another failed isn't done again.
        for i in roots:
            block = next(blocks)
            skips = merged(one for one in self._skipped if one.recipe in self._skipping[i])
            commits.begin(chunk, block.nbytes, partial(self._commit, i, chunk, tokens[i], block, skips))
            del block  # before there is memory for the next one

    def _commit(self, root: int, chunk: int, token: str, block: Block, skips: tuple[Skips, ...]) -> Kept:
        stage = self.payload.stage
        op, layout, where = stage.roots[root], stage.layouts[root], (stage.number, root, chunk)
        if isinstance(op.action, Write):
            block = replace(block, region=layout.region(chunk))
            output = self.payload.outputs[op.recipe]
            return keep_written(self.store, op, where, token, block, output, layout.place(chunk), self._turn, skips)
        kept = keep_block(self.store, op, where, token, block, self._turn, self._there(root, chunk), skips,
                          self._threads)
        if op.action.spans:
            self._checkpoints(op, block.region, token).clear()
        return kept

    def _there(self, root: int, chunk: int) -> Any:
        """What is kept of a chunk by now, where its values are to be compared."""
        return self._places.get((self.payload.stage.roots[root].recipe, chunk))

    def _root(self, op: Op, region: Region, memo: dict[tuple[str, Region], Block], token: str) -> Block:
        if isinstance(op.action, Write):
            source, part = op.inputs[0], op.reads(0, region)[0]
            return in_parts(source, part, 1 if self._kept(source) else self._parts, self._kept,
                            lambda piece: self._read(op, 0, piece, {} if self._parts > 1 else memo))
        if isinstance(op.action, Iterate | Propagate):
            crew = Crew(self._members, self._checkpoints(op, region, token), time.monotonic() + TURN_SECONDS,
                        self._offer, self.payload.worth)
            return self._compute(op, region, memo, partial(op.action.compute, crew=crew))
        return in_parts(op, region, self._parts, self._kept,
                        lambda piece: self._compute(op, piece, {} if self._parts > 1 else memo))

    def _kept(self, op: Op) -> bool:
        return op.recipe in self.payload.kept

    def _checkpoints(self, op: Op, region: Region, token: str) -> Checkpoints:
        return Checkpoints(self.store, op.recipe, token, region, op.fields, op.space)

    def _compute(self, op: Op, region: Region, memo: dict[tuple[str, Region], Block],
                 compute: Callable[[Op, Region, Read], Block] | None = None) -> Block:
        allowed = [op.reads(i, region) for i in range(len(op.inputs))]

        def read(i: int, part: Region) -> Block:
            if not any(box.contains(part) for box in allowed[i]) and part.cells:
                raise RunError(f"{op} reads {part} of its input {i}, which its access doesn't name")
            return self._read(op, i, part, memo)

        if op.action.skips:
            compute = partial(op.action.compute, carrier=self._carrier)  # type: ignore[call-arg]
        if isinstance(op.action, Bucket | Gather):
            compute = partial(op.action.compute, groups=partial(self._groups, op.inputs[0].recipe))
        try:
            block = (compute or op.action.compute)(op, region, read)
            self._skipped += block.skips
            return block
        except KernelError as error:
            located(error, op, region)
            raise

    def _read(self, op: Op, i: int, region: Region, memo: dict[tuple[str, Region], Block]) -> Block:
        """An input's region."""
        return self._block(op.inputs[i], region, memo)

    def _block(self, source: Op, region: Region, memo: dict[tuple[str, Region], Block]) -> Block:
        """An op's region: from shards where it is kept, else computed here, once a chunk where several read it."""
        key = (source.recipe, region)
        if key in memo:
            return memo[key]
        kept = self.payload.kept.get(source.recipe)
        if kept is not None:
            return assemble(kept.fields, kept.layout, region, lambda chunk: self._shard(source.recipe, kept, chunk))
        block = self._ended.block(source, region) or (self._ahead and self._ahead.take(*key)) \
            or self._compute(source, region, memo)
        if source.recipe in self._shared:
            memo[key] = block
        return block

    def reduced(self, wanted: Sequence[tuple[Op, Region]]) -> Iterator[Block]:
        """Joined reductions, and what ends in them."""
        self._ended.parts, self._ended.threads = self._parts, self._threads
        if self._parts == 1:
            return self._ended.blocks(wanted)
        sizes, some = [int(region.cells * op.cell_bytes) for op, region in wanted], iter(wanted)
        turns = self.payload.stage.peak.turns(sizes, self._parts, room(self.payload.memory))
        return itertools.chain.from_iterable(
            self._ended.blocks(list(itertools.islice(some, len(turn)))) for turn in turns)

    def _folds(self, wanted: Sequence[tuple[Op, Region]], lanes: Sequence[int],
               most: tuple[int, ...] | None) -> Iterator[Folding]:
        threads = fitting(self.payload.stage, self._threads, self.payload.memory)
        found = folded(wanted, self._kept, self._block, threads, lanes, most)
        if sum(self.payload.stage.peak.results) >= LARGE_BYTES:
            forget()
            BUFFERS.settle()
        return found

    def _shard(self, recipe: str, kept: KeptOp, chunk: int) -> Block:
        key = (recipe, chunk)
        if key in self._cache:
            return self._cache[key]
        place = self._place(recipe, chunk)
        if isinstance(place, Block):
            return place
        with self._losing(kept, chunk, place):
            block = decode_at(self.store.get(place), place)
        if self._cached + block.nbytes <= CACHE_BYTES:
            self._cache[key] = block
            self._cached += block.nbytes
        return block

    def _groups(self, recipe: str, chunk: int, first: int, last: int) -> list[Block]:
        """Groups of rows of a shuffle's chunk."""
        place, read = self._place(recipe, chunk), self.store.get_range
        with self._losing(self.payload.kept[recipe], chunk, place):
            return read_groups(partial(read, place), first, last, path=place, store=self.store.url)

    def _place(self, recipe: str, chunk: int) -> Any:
        place = self._places.get((recipe, chunk))
        if place is None:
            raise RunError(f"no place was sent for chunk {chunk} of {recipe}")
        return place

    @contextlib.contextmanager
    def _losing(self, kept: KeptOp, chunk: int, place: str) -> Iterator[None]:
        """A shard that is read: where it is gone, or void by what is found in it, it is an input that was lost."""
        try:
            yield
        except FileNotFoundError:
            raise LostInputError(f"the shard {place} is gone", kept.stage, chunk) from None
        except CorruptShardError as error:
            tombstone(self.store, place, error.message)
            raise LostInputError(error.message, kept.stage, chunk) from error

    def _failure(self, error: Exception, chunk: int) -> Failure:
        kind = classify(error)
        lost = (error.stage, error.chunk) if isinstance(error, LostInputError) else None
        cell = error.cell if isinstance(error, KernelError) else None
        if kind == "out_of_memory":  # without the error itself: its frames hold what there was
            return Failure(kind, f"{type(error).__name__}: {error}".partition("\n")[0], chunk)
        if kind == "transient":
            error = unanswered(error, f"in stage {self.payload.stage.name}")
        if isinstance(error, GridError):
            text = str(error)
        else:
            text = f"{type(error).__name__} in stage {self.payload.stage.name}: {error}"
            error = RunError(text, hint="".join(traceback.format_exception(error)[-3:]).strip())
        return Failure(kind, text, chunk, cell, error, lost)


def classify(error: BaseException) -> FailureKind:
    """The class of a failure (see `gridcompute.events.FailureKind`)."""
    if starved(error):
        return "out_of_memory"
    if isinstance(error, LostInputError | CorruptShardError):
        return "corrupt_shard"
    if isinstance(error, KernelError):
        return "user"
    if isinstance(error, DivergenceError):
        return "divergence"
    if isinstance(error, WorkerLostError):
        return "lost_worker"
    return "transient" if transient(error) else "fatal"
