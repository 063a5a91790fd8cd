"""Rows of a block in groups, each a record batch of its own: what a shuffle keeps, and reads part by part.

A group's bytes follow from the shard's description alone, so a run of groups is one read. Each has a checksum; the
digests of columns are of all rows and can't be told from a part of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa

from gridcompute.columns import Block, Column, Fixed, Ragged
from gridcompute.content import seal
from gridcompute.spaces import Region

GROUP_BYTES = 256 * 2**10
"""Of rows that are read together at least, where nothing else decides."""


def even_groups(block: Block) -> tuple[int, ...]:
    """Ends of groups of about `GROUP_BYTES`."""
    step = group_rows(block)
    return (*range(step, block.rows, step), block.rows) if block.rows else ()


def group_rows(block: Block) -> int:
    """Rows of each such group but the last; from the values alone."""
    nbytes = sum(column.values[:1].nbytes * _items(column) for column in block.columns.values())
    return max(1, -(-block.rows // max(1, nbytes // GROUP_BYTES)))


def _items(column: Column) -> int:
    return column.values.shape[0] if isinstance(column, Fixed) else int(column.offsets[-1] - column.offsets[0])


def grouped(batch: pa.RecordBatch, ends: Sequence[int]) -> list[pa.RecordBatch]:
    """A record batch in groups that end at these rows; in one where none are given."""
    if not ends:
        return [batch]
    return [batch.slice(start, end - start) for start, end in zip((0, *ends[:-1]), ends, strict=True)]


def rows_at(column: Column, start: int, stop: int) -> Column:
    """Some rows of a column, sharing its memory; offsets begin at 0."""
    valid = None if column.valid is None else column.valid[start:stop]
    if isinstance(column, Fixed):
        return Fixed(column.values[start:stop], valid)
    first, last = column.offsets[start], column.offsets[stop]
    return Ragged(column.offsets[start:stop + 1] - first, column.values[first:last], valid)


def cut_rows(pieces: list[Block], start: int, stop: int) -> Iterator[Block]:
    """Rows start to stop of blocks that lie one after the other, in blocks again; a few of many rows are copied.

    A view keeps all that it is cut from: of many chunks each bucket has a few rows, in groups of many.
    """
    for piece in pieces:
        a, b = max(0, start), min(piece.rows, stop)
        if a < b:
            columns = {name: rows_at(column, a, b) for name, column in piece.columns.items()}
            few = 2 * (b - a) < piece.rows
            yield Block(piece.region, {name: _copied(column) if few else column for name, column in columns.items()},
                        b - a)
        start, stop = start - piece.rows, stop - piece.rows


def _copied(column: Column) -> Column:
    valid = None if column.valid is None else column.valid.copy()
    if isinstance(column, Fixed):
        return Fixed(column.values.copy(), valid)
    return Ragged(column.offsets, column.values.copy(), valid)


def seal_rows(columns: Mapping[str, Column], start: int, stop: int) -> int:
    """Checksum of some rows."""
    rows = {name: rows_at(column, start, stop) for name, column in columns.items()}
    full = {name: _full(column) for name, column in rows.items()}
    return seal(Block(Region(), full, stop - start))


def _full(column: Column) -> Column:
    """Without marks where nothing is null: an array of some rows of Arrow's has none then."""
    if column.valid is None or not np.all(column.valid):
        return column
    return Fixed(column.values) if isinstance(column, Fixed) else Ragged(column.offsets, column.values)
