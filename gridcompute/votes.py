"""What a worker says of a chunk where votes are counted: it keeps it and says its digest, or only says its digest.

Where another result is there already, that isn't an error here but a vote: `Kept.digest` is what is there, `Kept.vote`
what this attempt got.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from gridcompute.columns import Block, Column, Field, Fixed, Ragged
from gridcompute.commits import PART_REGION, commit_block, commit_file, commit_written
from gridcompute.content import canonical, content_digest
from gridcompute.errors import CorruptShardError, DivergenceError
from gridcompute.events import Kept, Turn
from gridcompute.keys import digest
from gridcompute.op import Op
from gridcompute.shard import Record, decode_at, done, read_record, tombstone
from gridcompute.sinks.base import Output
from gridcompute.skips import Skips
from gridcompute.spaces import Region
from gridcompute.store import Store

Where = tuple[int, int, int]
"""Stage, root and chunk."""


def keep_held(op: Op, where: Where, block: Block, turn: Turn, there: Any = None) -> Kept:
    """A block that is held: with its digest where votes are counted.

    Args:
        op: whose block it is.
        where: it belongs.
        block: over the chunk's region.
        turn: how the task takes part.
        there: the block that is kept by now, where values are compared.
    """
    own = content_digest(block, op.fields) if turn.voted else ""
    if not turn.check:
        return Kept(*where, "", own, block.rows, block.nbytes, value=block)
    if isinstance(there, Block) and close(block, there, op.fields, turn.tolerance):
        own = content_digest(there, op.fields)
    return Kept(*where, "", own, block.rows, 0)


def keep_block(store: Store, op: Op, where: Where, token: str, block: Block, turn: Turn, there: Any = None,
               skips: tuple[Skips, ...] = (), threads: int = 1) -> Kept:
    """A block that is a shard; arguments as `commit_block`, and as `keep_held`, where `there` is a shard's place."""
    if turn.check:
        own = content_digest(block, op.fields, threads)
        return Kept(*where, "", _agreed(store, op, block, own, turn, there), block.rows, 0)
    if not turn.voted:
        return commit_block(store, op, where, token, block, skips, threads)
    try:
        kept = commit_block(store, op, where, token, block, skips, threads)
    except DivergenceError as error:
        if not error.path:
            raise
        kept = Kept(*where, error.path, error.there, block.rows, len(store.get(error.path)), won=False, vote=error.own)
    vote = _agreed(store, op, block, kept.vote, turn, kept.place) if kept.vote else ""
    return replace(kept, vote="" if vote == kept.digest else vote)


def keep_file(store: Store, op: Op, where: Where, token: str, blocks: Callable[[], Iterable[Block]],
              turn: Turn) -> Kept:
    """A file that is ingested; arguments as `commit_file`, but that its blocks can be read again."""
    if turn.check:
        return Kept(*where, "", _file_digest(op, blocks), 0, 0)
    while True:
        try:
            return commit_file(store, op, where, token, blocks())
        except DivergenceError as error:
            if not turn.voted or not error.path:
                raise
            record = _recorded(store, op, PART_REGION, token)
            if record is not None:
                return _other(where, record, "blocks", _file_digest(op, blocks))
            tombstone(store, error.path, "left by an attempt that kept no record, and computed otherwise since")


def keep_written(store: Store, op: Op, where: Where, token: str, block: Block, output: Output, place: tuple[int, ...],
                 turn: Turn, skips: tuple[Skips, ...] = ()) -> Kept:
    """A chunk in a sink's own format; arguments as `commit_written`."""
    if turn.check:
        return Kept(*where, "", _written_digest(block, output, place), block.rows, 0)
    try:
        return commit_written(store, op, where, token, block, output, place, skips)
    except DivergenceError:
        if not turn.voted:
            raise
    record = _recorded(store, op, block.region, token)
    if record is not None:
        return _other(where, record, "written", _written_digest(block, output, place))
    # Nobody has declared those bytes done: they are of an attempt that was lost.
    output.write_chunk(block, block.region, place, replace=True)
    return commit_written(store, op, where, token, block, output, place, skips)


def _file_digest(op: Op, blocks: Callable[[], Iterable[Block]]) -> str:
    return digest([content_digest(block, op.fields) for block in blocks()])


def _written_digest(block: Block, output: Output, place: tuple[int, ...]) -> str:
    return digest([one.digest for one in output.write_chunk(block, block.region, place, dry=True)])


def _recorded(store: Store, op: Op, region: Region, token: str) -> tuple[str, Record] | None:
    """The record of a chunk that counts by now."""
    entry = done(store, op.recipe).get((str(region), token))
    if entry is None or entry.kind != "record":
        return None
    return entry.path, read_record(store, op.recipe, region, token, generation=entry.generation)


def _other(where: Where, found: tuple[str, Record], listed: str, own: str) -> Kept:
    """What is recorded already, and the vote for something else."""
    path, record = found
    rows = json.loads(dict(record.meta)[listed])
    if listed == "written":  # as commits write them: the size comes second
        rows = [(place, count, one, size) for place, size, one, count in rows]
    blocks = tuple((str(place), int(count), str(one), int(size)) for place, count, one, size in rows)
    return Kept(*where, path, record.digest, record.rows, record.size, won=False, blocks=blocks,
                vote="" if own == record.digest else own)


def _agreed(store: Store, op: Op, block: Block, own: str, turn: Turn, there: Any) -> str:
    """The digest that a block votes for: that of what is there, where it is as good as equal."""
    if not turn.tolerance or not isinstance(there, str) or not there:
        return own
    try:
        other = decode_at(store.get(there), there)
    except (CorruptShardError, FileNotFoundError):  # whoever reads it next finds out
        return own
    return content_digest(other, op.fields) if close(block, other, op.fields, turn.tolerance) else own


def close(one: Block, other: Block, fields: Iterable[Field], tolerance: float) -> bool:
    """Whether two blocks are equal but for relative differences of floating point values up to a tolerance.

    Nulls, texts, integers, lengths and NaN must be where they are in the other.
    """
    return one.region == other.region and all(
        _close(canonical(field, one[field.name]), canonical(field, other[field.name]), tolerance) for field in fields)


def _close(one: Column, other: Column, tolerance: float) -> bool:
    if type(one) is not type(other) or one.values.shape != other.values.shape:
        return False
    if (one.valid is None) != (other.valid is None) or not np.array_equal(
            np.atleast_1d(one.valid), np.atleast_1d(other.valid)):  # type: ignore[arg-type]
        return False
    if isinstance(one, Ragged) and isinstance(other, Ragged) and not np.array_equal(one.offsets, other.offsets):
        return False
    assert isinstance(one, Fixed | Ragged)
    if one.values.dtype.kind not in "fc":
        return bool(np.array_equal(one.values, other.values))
    a, b = one.values, other.values
    with np.errstate(invalid="ignore", over="ignore"):
        within = np.abs(a - b) <= tolerance * np.maximum(np.abs(a), np.abs(b))
        near = (a == b) | (within & np.isfinite(a) & np.isfinite(b))
    return bool((near | (np.isnan(a) & np.isnan(b))).all())
