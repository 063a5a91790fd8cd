"""Committed shards that are nobody's result: deleted behind the run's back as soon as nothing needs them.

    kept/<recipe>      a claim: the shards of this recipe are to stay (a run's result, or `keep_intermediates`)

Nothing depends on a deletion: one that fails leaves a file, one that comes too early costs its recomputation.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from gridcompute.actions.loads import Ingest, Load
from gridcompute.actions.writes import Write
from gridcompute.commits import AT_ONCE, blocks_recipe
from gridcompute.events import Kept
from gridcompute.ledger import Ledger
from gridcompute.op import Op
from gridcompute.pages import Page
from gridcompute.planning import Plan, Stage
from gridcompute.shard import Record, commit_record, parse_shard_name
from gridcompute.spaces import Region
from gridcompute.status import Status
from gridcompute.store import Store
from gridcompute.stored import StoredSource

CLAIM = b"kept: delete it with the shards of its recipe\n"

BATCH = 256
"""Shards deleted between two looks at who claims them."""

AHEAD = 2**16
"""Shards that wait to be deleted, at most: then the run waits, too."""


def claim_path(recipe: str) -> str:
    """Name of the claim of a recipe's shards.

    >>> claim_path("beef0123")
    'kept/beef0123'
    """
    return f"kept/{recipe}"


def recipes_of(op: Op) -> tuple[str, ...]:
    """Recipes under which the shards of a kept op lie."""
    return (op.recipe, blocks_recipe(op.recipe)) if isinstance(op.action, Ingest) else (op.recipe,)


def disposable(plan: Plan) -> frozenset[int]:
    """Stages of a plan whose committed chunks nothing needs once their consumers are committed.

    None of a phase that only counts: the next ones may read any of them.
    """
    if not plan.final:
        return frozenset()
    recipes = [op.recipe for stage in plan.stages for op in stage.roots]
    return frozenset(stage.number for stage in plan.stages
                     if not stage.held and stage.number not in plan.goals
                     and all(recipes.count(op.recipe) == 1 for op in stage.roots))


def _places(item: Kept) -> list[tuple[str, int]]:
    """Names and bytes of a chunk's shards: of an ingested file, those of its blocks; its record stays."""
    return [(block[0], block[3]) for block in item.blocks] or [(item.place, item.nbytes)]


class Intermediates:
    """Those of one run.

    Args:
        store: the work store.
        status: where deletions are counted.
        keep: delete nothing, and claim everything.
    """

    def __init__(self, store: Store, status: Status, *, keep: bool = False) -> None:
        self._store, self._status, self._keep = store, status, keep
        self._going: frozenset[int] = frozenset()
        self._earlier: list[Ledger] = []
        self._passed: set[str] = set()
        self._claimed: set[str] = set()
        self._queue: queue.Queue[tuple[str, int] | None] = queue.Queue(AHEAD)
        self._thread: threading.Thread | None = None
        self._refused, self._failed = False, 0

    def again(self) -> None:
        """The phases begin, once more perhaps."""
        self._earlier, self._passed = [], set()

    def begin(self, plan: Plan) -> frozenset[int]:
        """A phase is planned: claim what is to stay, before it is looked for; what earlier ones left goes.

        Returns:
            The stages that are disposable.
        """
        stays = [op for stage in plan.stages if not stage.held for op in stage.roots] if self._keep else \
            [op for op in plan.lowered.outputs.values() if not isinstance(op.action, Write)]
        for recipe in dict.fromkeys(name for op in stays for name in recipes_of(op)):
            self._store.put_new(claim_path(recipe), CLAIM)
        self._going = frozenset() if self._keep else disposable(plan)
        if plan.final:
            loads = [op.action.source for op in plan.lowered.ops.values() if isinstance(op.action, Load)]
            needed = {source.recipe for source in loads if isinstance(source, StoredSource)}
            self._pass(needed | {op.recipe for stage in plan.stages for op in stage.roots})
        return self._going

    def least_bytes(self, plan: Plan, stage: Stage) -> int:
        """What the work store must have room for, of a stage's results: nothing of those that go one by one."""
        readers = (after for after, producers in enumerate(plan.producers) if stage.number in producers)
        going = stage.number in self._going and not any(plan.barrier(after, stage.number) for after in readers)
        return 0 if going else stage.write_bytes

    def counted(self, ledger: Ledger) -> None:
        """A phase that counted is over."""
        self._earlier.append(ledger)

    def found(self, ledger: Ledger) -> None:
        """What is there at the start."""
        self._keeps(sum(page.nbytes for stage in self._going for page in ledger.pages[stage]))

    def added(self, items: Iterable[Kept]) -> None:
        """Chunks were kept."""
        self._keeps(sum(item.nbytes for item in items if item.stage in self._going))

    def _keeps(self, nbytes: int) -> None:
        self._status.kept_bytes += nbytes
        self._status.most_kept_bytes = max(self._status.most_kept_bytes, self._status.kept_bytes)

    def dropped(self, items: Iterable[Kept]) -> None:
        """Nothing needs these chunks of the phase any more."""
        items = list(items)
        self._keeps(-sum(item.nbytes for item in items if item.stage in self._going))
        self.strays(items)

    def strays(self, items: Iterable[Kept]) -> None:
        """Chunks that were kept once more by a task that didn't know better."""
        self._delete_soon((item.place, item.nbytes) for item in items if item.stage in self._going and item.place)

    def finish(self) -> None:
        """All is done: what was counted in earlier phases goes, too."""
        self._pass(set())

    def _pass(self, needed: set[str]) -> None:
        """Let go of what earlier phases kept, but for these recipes; counts stay, so that a next run knows them."""
        for ledger in () if self._keep else self._earlier:
            for stage in ledger.plan.stages:
                for op, page in zip(stage.roots, ledger.pages[stage.number], strict=True):
                    if stage.held or op.recipe in needed or op.recipe in self._passed:
                        continue
                    self._passed.add(op.recipe)
                    counts = stage.number in ledger.plan.goals and not isinstance(op.action, Ingest)
                    with contextlib.suppress(Exception):  # it stays: that is no reason to fail
                        for first in range(0, len(page), BATCH):
                            self._pass_some(ledger, page, range(first, min(first + BATCH, len(page))), counts=counts)

    def _pass_some(self, ledger: Ledger, page: Page, chunks: range, *, counts: bool) -> None:
        items = [page.kept(chunk) for chunk in chunks if page.has(chunk)]
        if counts:
            items = [item for item in items if item.digest and item.rows >= 0]
        places = [(p, n) for item in items for p, n in _places(item) if p not in ledger.absent]
        if counts and places:
            there = self._unclaimed({place for place, _ in places})
            known = [(item, page.layout.region(item.chunk)) for item in items if item.place in there]
            with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="counts") as pool:
                list(pool.map(self._count, known))
        self._delete_soon(places)

    def _count(self, one: tuple[Kept, Region]) -> None:
        """Keep what a later phase needs to know of a shard."""
        item, region = one
        name = parse_shard_name(item.place)
        assert name is not None
        commit_record(self._store, name.recipe, region, name.token, Record("", item.nbytes, item.digest, item.rows))

    def _delete_soon(self, places: Iterable[tuple[str, int]]) -> None:
        for one in places:
            self._queue.put(one)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="deletes", daemon=True)
                self._thread.start()

    def close(self, *, wait: bool) -> None:
        """Let deletions end, or leave those that are left for another time."""
        if self._thread is None:
            return
        self._refused = self._refused or not wait
        self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="deletes") as pool:
            ended = False
            while not ended:
                batch = [self._queue.get()]
                while len(batch) < BATCH and batch[-1] is not None:
                    try:
                        batch.append(self._queue.get_nowait())
                    except queue.Empty:
                        break
                ended = batch[-1] is None
                self._delete_all([one for one in batch if one is not None], pool.map)

    def _delete_all(self, places: list[tuple[str, int]], each: Callable[..., Iterable[int | None]] = map) -> None:
        with contextlib.suppress(Exception):  # whose claims can't be seen isn't touched
            unclaimed = self._unclaimed({place for place, _ in places})
            for nbytes in each(self._delete, [one for one in places if one[0] in unclaimed]):
                self._status.deleted += nbytes is not None
                self._status.deleted_bytes += nbytes or 0
                self._failed += nbytes is None
                # A store that lets nobody delete isn't asked for each shard; `gridcompute clean` may do better.
                self._refused = self._refused or self._failed >= BATCH

    def _unclaimed(self, places: set[str]) -> set[str]:
        recipes = {place: name.recipe for place in places if (name := parse_shard_name(place)) is not None}
        self._claimed |= {recipe for recipe in {*recipes.values()} - self._claimed
                          if self._store.exists(claim_path(recipe))}
        return {place for place, recipe in recipes.items() if recipe not in self._claimed}

    def _delete(self, one: tuple[str, int]) -> int | None:
        if self._refused:
            return None
        with contextlib.suppress(Exception):
            self._store.delete(one[0])
            return one[1]
        return None
