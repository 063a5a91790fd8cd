"""How a task's blocks become durable: small ones several at once, since a commit mostly waits, for a disk or a network.

What a task computes next doesn't wait for the commits of what it computed before; the task ends when all have ended.
Of eight commits that wait for a disk together each takes a tenth of the time of one alone: one sync serves them all.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache

from gridcompute.actions.loads import Ingest
from gridcompute.columns import Block
from gridcompute.errors import DivergenceError
from gridcompute.events import Kept
from gridcompute.keys import digest
from gridcompute.op import Op
from gridcompute.shard import TOMBSTONE, Record, commit, commit_record, shard_path
from gridcompute.sinks.base import Output
from gridcompute.skipnotes import META, note
from gridcompute.skips import Skips, to_text
from gridcompute.spaces import Region
from gridcompute.store import Store

AT_ONCE = 8
"""Commits of a process that are under way together."""

SMALL_BYTES = 2**20
"""Blocks of more bytes are committed at once: their bytes take the time, and the memory."""

PART_REGION = Region.of((0, 1))
"""Region in the name of an ingested file's record: the token alone tells files apart, so their order may change."""


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(AT_ONCE, thread_name_prefix="commit")


# A forked process has the pool, but none of its threads.
os.register_at_fork(after_in_child=_pool.cache_clear)


class Commits:
    """The commits of one task.

    Args:
        together: whether small ones may be under way together; else each is done when `begin` returns.
    """

    def __init__(self, *, together: bool) -> None:
        self._together = together
        self._ended: list[Kept] = []
        self._waiting: deque[tuple[int, Future[Kept]]] = deque()
        self.failed: tuple[int, Exception] | None = None

    def add(self, kept: Iterable[Kept]) -> None:
        """What needs no commit."""
        self._ended += kept

    def begin(self, chunk: int, nbytes: int, work: Callable[[], Kept]) -> None:
        """Do a commit, or have it done. Where an earlier one has failed `failed` says so, and it may not be.

        Args:
            chunk: that it belongs to.
            nbytes: of the block.
            work: commits it.

        Raises:
            Exception: whatever `work` raises where it is done at once.
        """
        if not self._together or nbytes > SMALL_BYTES:
            self._ended.append(work())
            return
        while len(self._waiting) >= AT_ONCE:
            self._take()
        if self.failed is None:  # else it would most likely wait for the same store in vain
            self._waiting.append((chunk, _pool().submit(work)))

    def _take(self) -> None:
        chunk, future = self._waiting.popleft()
        try:
            self._ended.append(future.result())
        except Exception as error:
            self.failed = self.failed or (chunk, error)

    def end(self) -> tuple[Kept, ...]:
        """Wait for all: what was kept."""
        while self._waiting:
            self._take()
        return tuple(self._ended)


def commit_block(store: Store, op: Op, where: tuple[int, int, int], token: str, block: Block,
                 skips: tuple[Skips, ...] = (), threads: int = 1) -> Kept:
    """A block as a shard of the work store, with a note beside it where cells were skipped.

    Args:
        store: the work store.
        op: whose block it is.
        where: stage, root and chunk.
        token: of the chunk.
        block: over the chunk's region.
        skips: cells that were skipped for it.
        threads: that a large one is digested and compressed by.
    """
    if skips:
        note(store, op.recipe, (str(block.region), token), skips)
    meta = {META: to_text(skips)} if skips else None
    done = commit(store, op.recipe, token, block, op.fields, op.space, meta=meta, threads=threads)
    vote = done.own if done.own != done.digest else ""
    return Kept(*where, done.path, done.digest, done.rows, done.size, done.won, skips=skips, vote=vote)


def commit_file(store: Store, op: Op, where: tuple[int, int, int], token: str, blocks: Iterable[Block]) -> Kept:
    """An ingested file: its blocks one by one, then the record that lists them; arguments as `commit_block`."""
    listed = []
    for number, block in enumerate(blocks):
        at = replace(block, region=Region.of((number, number + 1)))
        done = commit(store, blocks_recipe(op.recipe), token, at, op.fields, op.space)
        rows = op.action.rows(block) if isinstance(op.action, Ingest) else done.rows
        listed.append((done.path, rows, done.digest, done.size))
    rows, size = sum(b[1] for b in listed), sum(b[3] for b in listed)
    record = Record("", size, digest([b[2] for b in listed]), rows, (("blocks", json.dumps(listed)),))
    done = commit_record(store, op.recipe, PART_REGION, token, record)
    return Kept(*where, done.path, done.digest, rows, size, done.won, blocks=tuple(listed))


def commit_written(store: Store, op: Op, where: tuple[int, int, int], token: str, block: Block, output: Output,
                   place: tuple[int, ...], skips: tuple[Skips, ...] = ()) -> Kept:
    """A chunk in a sink's own format, then its record; arguments as `commit_block`, with the chunk's place there."""
    region = block.region
    try:
        written = output.write_chunk(block, region, place)
    except DivergenceError:
        # Where an earlier record was declared void, what it names may be broken: the good bytes replace it.
        if not store.exists(shard_path(op.recipe, str(region), token, 0, "record") + TOMBSTONE):
            raise
        written = output.write_chunk(block, region, place, replace=True)
    listed = json.dumps([[w.path, w.size, w.digest, w.rows] for w in written])
    size = sum(w.size for w in written)
    meta = (("written", listed), *([(META, to_text(skips))] if skips else []))
    record = Record("", size, digest([w.digest for w in written]), block.rows, meta)
    done = commit_record(store, op.recipe, region, token, record)
    return Kept(*where, done.path, done.digest, block.rows, done.size, done.won,
                blocks=tuple((w.path, w.rows, w.digest, w.size) for w in written), skips=skips)


def blocks_recipe(recipe: str) -> str:
    """Recipe under which an ingested file's blocks lie, apart from the records of whole files."""
    return digest(("blocks", recipe))
