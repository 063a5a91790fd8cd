"""Regions of a run's ops as its workers would read them, without committing anything."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from itertools import islice
from typing import Any

from gridcompute.actions.folds import Fold
from gridcompute.actions.loads import Ingest
from gridcompute.columns import Block
from gridcompute.marked import MarkedSource
from gridcompute.op import Op
from gridcompute.orders import KeptOp, LostInputError, Payload
from gridcompute.planning import Plan
from gridcompute.rowgroups import rows_at
from gridcompute.shard import Done, done, parse_shard_name
from gridcompute.spaces import Region
from gridcompute.store import Store
from gridcompute.stored import Entry, StoredSource
from gridcompute.worker import StageWorker


class ReadOnly:
    """A store of which everything can be read, and in which nothing changes: writing and deleting do nothing."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def put_new(self, path: str, data: bytes | memoryview) -> bool:
        """Nothing."""
        return True

    def put(self, path: str, data: bytes) -> None:
        """Nothing."""

    def delete(self, path: str) -> None:
        """Nothing."""

    def sweep(self, older_than: float = 86400.0) -> int:
        """Nothing."""
        return 0


class Reader(StageWorker):
    """Reads what an op of a stage needs: from committed shards, or by computing the chunks that aren't there.

    Args:
        plan: of the stage.
        payload: of the stage.
        store: the work store.
        others: the readers of all stages, by number.
    """

    def __init__(self, plan: Plan, payload: Payload, store: Any, others: dict[int, Reader]) -> None:
        super().__init__(payload, store)
        self._plan, self._others = plan, others
        self._listings: dict[str, dict[tuple[str, str], Done]] = {}

    def read_input(self, op: Op, i: int, region: Region, memo: dict[tuple[str, Region], Block]) -> Block:
        """A region of an op's input."""
        return self._read(op, i, region, memo)

    def _shard(self, recipe: str, kept: KeptOp, chunk: int) -> Block:
        """See `StageWorker`: a chunk that isn't committed, or is broken, is computed."""
        root = next(i for i, op in enumerate(self._plan.stages[kept.stage].roots) if op.recipe == recipe)
        at = str(kept.layout.region(chunk)), self._plan.chunk_token(kept.stage, root, chunk)
        entry = self._listing(recipe).get(at)
        if entry is not None:
            self._places = {(recipe, chunk): entry.path}
            try:
                return super()._shard(recipe, kept, chunk)
            except LostInputError:
                pass
        return self._others[kept.stage].made(root, chunk, at[1])

    def _groups(self, recipe: str, chunk: int, first: int, last: int) -> list[Block]:
        """See `StageWorker`: of the whole chunk."""
        block = self._shard(recipe, self.payload.kept[recipe], chunk)
        ends = (0, *block.groups)
        return [replace(block, columns={name: rows_at(column, *ends[i: i + 2]) for name, column
                                        in block.columns.items()}, rows=ends[i + 1] - ends[i], groups=())
                for i in range(first, last)]

    def _listing(self, recipe: str) -> dict[tuple[str, str], Done]:
        if recipe not in self._listings:
            self._listings[recipe] = done(self.store, recipe)
        return self._listings[recipe]

    def token(self, root: int, chunk: int) -> str:
        """Of the inputs that a root's chunk reads."""
        return self._plan.chunk_token(self.payload.stage.number, root, chunk)

    def made(self, root: int, chunk: int, token: str) -> Block:
        """A root's chunk, computed."""
        op, region = self.payload.stage.roots[root], self.payload.stage.layouts[root].region(chunk)
        if self.payload.stage.folds or isinstance(op.action, Fold):
            return next(self.reduced([(op, region)]))
        return self._root(op, region, {}, token)


@dataclass(frozen=True, eq=False)
class Remade(StoredSource):
    """What an earlier phase kept, of which chunks that were deleted since are computed.

    Attributes:
        home: the reader of the stage that had made them.
        root: which of the stage's.
    """

    home: Reader | None = None
    root: int = 0

    @classmethod
    def of(cls, source: StoredSource, home: Reader, root: int) -> StoredSource:
        """A stored source, and who can make its chunks again."""
        if isinstance(source, MarkedSource):
            assert source.marks is not None
            return replace(source, marks=cls.of(source.marks, home, root))
        return cls(**{f.name: getattr(source, f.name) for f in fields(source)}, home=home, root=root)

    def missed(self, entry: Entry) -> Block:
        """See `StoredSource`."""
        name = parse_shard_name(entry.place)
        if self.home is None or name is None:
            return super().missed(entry)
        action = self.home.payload.stage.roots[self.root].action
        if not isinstance(action, Ingest):
            chunk = next(i for i, one in enumerate(self.entries) if one.place == entry.place)
            return self.home.made(self.root, chunk, name.token)
        number = int(name.region.partition("-")[0])
        file = next(i for i in range(self.home.payload.stage.chunks) if self.home.token(self.root, i) == name.token)
        return next(islice(action.blocks(file), number, None))


def readers(plan: Plan, store: Any) -> Iterator[Reader]:
    """A reader of each stage of a plan."""
    found: dict[int, Reader] = {}
    for stage in plan.stages:
        found[stage.number] = Reader(plan, Payload.of(plan, stage, store, {}), store, found)
    yield from found.values()
