"""What is kept, by chunk: from one listing a recipe at the start, then from events."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from gridcompute.actions.loads import Ingest
from gridcompute.actions.writes import Write
from gridcompute.axes import Layout
from gridcompute.commits import PART_REGION, blocks_recipe
from gridcompute.errors import CorruptShardError, StoreError
from gridcompute.events import Kept, Task
from gridcompute.marked import MarkedSource
from gridcompute.op import Op
from gridcompute.orders import Order
from gridcompute.outputs import finished
from gridcompute.pages import Page
from gridcompute.planning import Plan, Stage
from gridcompute.shard import MAX_GENERATIONS, TOMBSTONE, Done, done, names, read_record, shard_path, tombstone
from gridcompute.sinks.base import Output, Written
from gridcompute.skipnotes import notes, read_note, skips_in
from gridcompute.skips import Tally
from gridcompute.spaces import Region
from gridcompute.store import Store
from gridcompute.stored import Entry, StoredSource, ends

Listing = Mapping[tuple[str, str], Done]
"""The committed shards of a recipe, by region and token."""


class Ledger:
    """Places of kept chunks of one phase.

    Args:
        plan: the phase.
        store: the work store.
        outputs: prepared outputs of the ops that write, by recipe.
        wanted: names of shards whose counts aren't enough this time.
        tally: of the run's skipped cells.
        verify: whether what is found of outputs is hashed.

    Attributes:
        absent: names of shards of which only the counts are there, which is enough for this phase.
        partly: chunks of which something was found committed, but not of all roots, as pairs of stage and chunk.
        reused: chunks that were found committed.
        finished: recipes of outputs that were found finished.
    """

    def __init__(self, plan: Plan, store: Store, outputs: Mapping[str, Output], wanted: Collection[str] = (),
                 tally: Tally | None = None, *, verify: bool = False) -> None:
        self.plan, self.store, self.outputs, self.wanted = plan, store, outputs, wanted
        self.absent: set[str] = set()
        self.pages = [[Page(stage.number, root, op.recipe, layout)
                       for root, (op, layout) in enumerate(zip(stage.roots, stage.layouts, strict=True))]
                      for stage in plan.stages]
        self.tally = tally or Tally()
        self.partly: list[tuple[int, int]] = []
        self.reused = 0
        self.finished: set[str] = set()
        self._blocks: dict[str, frozenset[str]] = {}
        self._files: dict[str, dict[str, int]] = {}
        self._verify = verify

    def find(self) -> dict[int, list[int]]:
        """Chunks of each stage that are committed already (law 2: a shard that exists is done).

        An output that is finished counts as a whole, whatever records of it this work store has. Contents are only
        looked at where inputs are verified, too.
        """
        found: dict[int, list[int]] = {}
        for stage in self.plan.stages:
            if stage.held:
                continue
            listings = [done(self.store, op.recipe) for op in stage.roots]
            self._tell(stage, range(stage.chunks), listings)
            whole = {op.recipe for op, listing in zip(stage.roots, listings, strict=True)
                     if not (listing and self._verify) and finished(op, self.outputs.get(op.recipe))}
            if not (any(listings) or whole):
                continue
            self.finished |= whole
            for chunk in range(stage.chunks):
                self.add(self._entries(stage.number, chunk, listings))
            missing = [len(self.missing(stage.number, chunk)) for chunk in range(stage.chunks)]
            found[stage.number] = complete = [chunk for chunk, number in enumerate(missing) if not number]
            self.partly += ((stage.number, chunk) for chunk, number in enumerate(missing)
                            if 0 < number < len(stage.roots))
            self.reused += len(complete)
        return found

    def _tell(self, stage: Stage, chunks: Iterable[int], listings: Sequence[Listing]) -> None:
        """Take note of the cells that were skipped for committed chunks; a sink's records tell it themselves."""
        for root, (op, listing) in enumerate(zip(stage.roots, listings, strict=True)):
            if stage.skips and not isinstance(op.action, Write) and (noted := notes(self.store, op.recipe)):
                for chunk in chunks:
                    at = str(stage.layouts[root].region(chunk)), self.token(stage.number, chunk)[root]
                    if at in noted:
                        self.tally.add(read_note(self.store, noted[at], listing.get(at)))

    def _entries(self, stage: int, chunk: int, listings: Sequence[Listing]) -> Iterator[Kept]:
        """What is there of a chunk."""
        for root, listing in enumerate(listings):
            if self.plan.stages[stage].roots[root].recipe in self.finished:
                yield Kept(stage, root, chunk, "", "", -1, 0, won=False)
            elif listing and (entry := self._entry(stage, root, chunk, listing)) is not None:
                yield entry

    def _entry(self, stage: int, root: int, chunk: int, listing: Listing) -> Kept | None:
        op, region = self.plan.stages[stage].roots[root], self.plan.stages[stage].layouts[root].region(chunk)
        token = self.token(stage, chunk)[root]
        at = PART_REGION if isinstance(op.action, Ingest) else region
        entry = listing.get((str(at), token))
        if entry is None:
            return None
        if entry.kind == "record":
            return self._recorded(op, stage, root, chunk, entry)
        return Kept(stage, root, chunk, entry.path, "", -1, entry.size, won=False)

    def _sizes(self, recipe: str) -> dict[str, int]:
        """Files of an output with their sizes, from one listing."""
        if recipe not in self._files:
            self._files[recipe] = dict(self.outputs[recipe].store.list_sizes())
        return self._files[recipe]

    def _counts(self, stage: int) -> bool:
        """Whether counts are all that is asked of a stage in this phase."""
        return not self.plan.final and stage in self.plan.goals

    def _missed(self, op: Op, places: Iterable[str]) -> tuple[set[str], bool]:
        """Those of an ingest op's blocks that aren't there; whether one of them is void."""
        if op.recipe not in self._blocks:
            self._blocks[op.recipe] = names(self.store, blocks_recipe(op.recipe))
        there = self._blocks[op.recipe]
        void = {place for place in places if place + TOMBSTONE in there}
        return void | {place for place in places if place not in there}, bool(void)

    def _recorded(self, op: Op, stage: int, root: int, chunk: int, entry: Done) -> Kept | None:
        """A record counts only if what it names is still there, or was deleted and only its counts are asked for."""
        region = PART_REGION if isinstance(op.action, Ingest) else self.plan.stages[stage].layouts[root].region(chunk)
        token, place, missed = self.token(stage, chunk)[root], entry.path, set[str]()
        blocks: tuple[tuple[str, int, str, int], ...] = ()
        try:
            record = read_record(self.store, op.recipe, region, token, generation=entry.generation)
            meta, whole = dict(record.meta), True
            if isinstance(op.action, Ingest):
                blocks = tuple((str(p), int(r), str(d), int(s)) for p, r, d, s in json.loads(meta["blocks"]))
                missed, void = self._missed(op, [place for place, *_ in blocks])
                whole = not void
            elif not isinstance(op.action, Write):
                place = shard_path(op.recipe, str(region), token, entry.generation)
                missed = {place}
            else:
                written = [Written(str(p), int(s), str(d), int(r)) for p, s, d, r in json.loads(meta["written"])]
                blocks = tuple((w.path, w.rows, w.digest, w.size) for w in written)
                sizes, output = self._sizes(op.recipe), self.outputs[op.recipe]
                whole = all(sizes.get(w.path) == w.size and (not self._verify or output.verify(w)) for w in written)
            skips = skips_in(meta)
        except (CorruptShardError, KeyError, ValueError, TypeError, RecursionError) as error:
            tombstone(self.store, entry.path, str(error))
            return None
        if not whole:
            tombstone(self.store, entry.path, "what it names is gone or changed")
            return None
        if missed and (not self._counts(stage) or not missed.isdisjoint(self.wanted)):
            return None  # made again under the same names
        self.absent |= missed
        return Kept(stage, root, chunk, place, record.digest, record.rows, record.size, won=False, blocks=blocks,
                    skips=skips)

    def committed(self, task: Task) -> tuple[Kept, ...]:
        """What a task that gave no answer had committed: it needn't be done again.

        Where votes are counted that tells too little: it is computed again, and compared.
        """
        stage = self.plan.stages[task.stage]
        if stage.held or task.turn.voted:
            return ()
        listings = [done(self.store, op.recipe) for op in stage.roots]
        self._blocks, self._files = {}, {}
        self._tell(stage, task.chunks, listings)
        found = (entry for chunk in task.chunks for entry in self._entries(stage.number, chunk, listings))
        # A listing says nothing of rows; where they matter they were read.
        return tuple(entry if entry.rows >= 0 else
                     replace(entry, rows=stage.layouts[entry.root].region(entry.chunk).cells) for entry in found)

    def reached(self, task: Task) -> int:
        """How many of a task's chunks are committed by now, done in their order; of a held stage nothing is seen."""
        stage = self.plan.stages[task.stage]
        if stage.held:
            return 0
        return bisect_left(task.chunks, True, key=lambda chunk: not all(
            self.store.exists(self._path(op, stage.layouts[root].region(chunk), token))
            for root, (op, token) in enumerate(zip(stage.roots, self.token(task.stage, chunk), strict=True))))

    @staticmethod
    def _path(op: Op, region: Region, token: str, generation: int = 0) -> str:
        """Where a worker commits an op's chunk, at first or in a later generation."""
        recorded = isinstance(op.action, Write | Ingest)
        at = PART_REGION if isinstance(op.action, Ingest) else region
        return shard_path(op.recipe, str(at), token, generation, "record" if recorded else "arrow")

    def missing(self, stage: int, chunk: int) -> tuple[int, ...]:
        """The roots of a chunk that aren't kept."""
        return tuple(root for root, page in enumerate(self.pages[stage]) if not page.has(chunk))

    def token(self, stage: int, chunk: int) -> tuple[str, ...]:
        """The tokens of a chunk, one a root."""
        return tuple(self.plan.chunk_token(stage, root, chunk) for root in range(len(self.plan.stages[stage].roots)))

    def add(self, kept: Iterable[Kept]) -> None:
        """Take note of what was kept."""
        for item in kept:
            self.tally.add(item.skips)
            self.pages[item.stage][item.root].add(replace(item, skips=()) if item.skips else item)

    def drop(self, stage: int, chunk: int) -> tuple[Kept, ...]:
        """Let go of a chunk: what was kept of it."""
        going = tuple(page.kept(chunk) for page in self.pages[stage] if page.has(chunk))
        for page in self.pages[stage]:
            page.drop(chunk)
        return going

    def order(self, task: Task) -> Order:
        """A task with its tokens and the places of its inputs."""
        places: dict[tuple[str, int], Any] = {}
        for chunk in task.chunks:
            for producer, before in self.plan.inputs(task.stage, chunk):
                for root, op in enumerate(self.plan.stages[producer].roots):
                    kept = self.pages[producer][root].kept(before)
                    places[op.recipe, before] = kept.place or kept.value
            for root, op in enumerate(self.plan.stages[task.stage].roots if self._compares(task) else ()):
                kept = self.pages[task.stage][root].kept(chunk)
                places[op.recipe, chunk] = kept.place or kept.value
        tokens = tuple(self.token(task.stage, chunk) for chunk in task.chunks)
        # A chunk of which nothing is missing is made again because a consumer found it broken.
        everything = tuple(range(len(self.plan.stages[task.stage].roots)))
        roots = tuple((not task.turn.voted and self.missing(task.stage, chunk)) or everything for chunk in task.chunks)
        return Order(task, tokens, roots, places)

    @staticmethod
    def _compares(task: Task) -> bool:
        return task.turn.check and task.turn.tolerance > 0

    def void(self, stage: int, chunk: int, reason: str) -> None:
        """What is kept of a chunk, or may have been committed of it by somebody who didn't tell, counts no more."""
        at = self.plan.stages[stage]
        tokens = self.token(stage, chunk)
        for page, op, layout, token in zip(self.pages[stage], at.roots, at.layouts, tokens, strict=True):
            places: list[str] = []
            if page.has(chunk):
                kept = page.kept(chunk)
                places = [kept.place, *(place for place, *_ in kept.blocks if isinstance(op.action, Ingest))]
            elif not at.held:
                places = [self._free(op, layout.region(chunk), token)]
            for place in filter(None, places):
                tombstone(self.store, place, reason)
            page.drop(chunk)

    def _free(self, op: Op, region: Region, token: str) -> str:
        """Where a worker would commit an op's chunk now."""
        for generation in range(MAX_GENERATIONS):
            path = self._path(op, region, token, generation)
            if not self.store.exists(path + TOMBSTONE):
                return path
        raise StoreError(f"{MAX_GENERATIONS} generations of {path} are void", hint="remove the recipe's folder")

    def stored(self, op: Op) -> StoredSource:
        """The committed chunks of a kept op, as a source: its blocks counted, its result readable."""
        number, root = self.plan.home[id(op)]
        layout = self.plan.stages[number].layouts[root]
        page = self.pages[number][root]
        entries: Sequence[Entry] = page
        if isinstance(op.action, Ingest):
            blocks = (block for chunk in range(layout.chunks) for block in page.kept(chunk).blocks)
            entries = tuple(Entry(place, digest, rows) for place, rows, digest, _ in blocks)
            (name, files), = layout.axes
            layout = Layout.of({name: replace(files, parts=(len(entries),))})
        elif layout.blocked:  # else nobody needs to know how many rows there are, and digests are read when asked for
            for chunk in range(layout.chunks):
                page.add(self._counted(page.kept(chunk)))
        kept = StoredSource(self.store.url, op.recipe, op.fields, layout, entries, getattr(self.store, "options", {}))
        if not isinstance(op.action, Ingest) or op.action.marked is None:
            return kept
        owners = tuple(number for number in range(page.layout.chunks) for _ in page.kept(number).blocks)
        return MarkedSource.over(kept, op.action.marked, owners)

    def _counted(self, kept: Kept) -> Kept:
        """With what a listing doesn't tell of a shard."""
        if kept.rows >= 0 and kept.digest:
            return kept
        header = ends(self.store, kept.place, kept.nbytes)
        return replace(kept, digest=header.digest, rows=header.rows)
