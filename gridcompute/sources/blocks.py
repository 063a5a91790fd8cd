"""The canonical cut of rows whose number isn't known: 64 Ki rows or 64 MB of values, whichever comes first.

The cut depends on the rows alone, never on the pieces in which a reader delivers them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from gridcompute.columns import Block, Column, Fixed, Ragged
from gridcompute.sources.joined import joined
from gridcompute.spaces import Region

BLOCK_ROWS = 64 * 2**10
BLOCK_BYTES = 64 * 10**6


def recut(pieces: Iterable[Mapping[str, Column]], rows: int = BLOCK_ROWS, limit: int = BLOCK_BYTES) -> Iterator[Block]:
    """Blocks of pieces of rows. A row's size is that of its values, and 8 bytes for each ragged column.

    Args:
        pieces: columns by name, all of one length within a piece.
        rows: most rows of a block.
        limit: most bytes of values of a block, unless a single row has more.
    """
    number, held, count, size = 0, [], 0, 0
    for piece in pieces:
        ends = np.cumsum(_row_bytes(piece))
        start = 0
        while start < len(ends):
            before = int(ends[start - 1]) if start else 0
            fit = int(np.searchsorted(ends, before + limit - size, side="right")) - start
            stop = start + min(max(fit, 0 if count else 1), rows - count)
            if stop > start:
                held.append(_sliced(piece, start, stop))
                count, size = count + stop - start, size + int(ends[stop - 1]) - before
            if stop < len(ends) or count == rows:
                yield _block(number, held, count)
                number, held, count, size = number + 1, [], 0, 0
            start = stop
    if count:
        yield _block(number, held, count)


def _row_bytes(piece: Mapping[str, Column]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    columns = list(piece.values())
    first = columns[0]
    sizes = np.zeros(first.cells if isinstance(first, Ragged) else len(first.values), np.int64)
    for column in columns:
        if isinstance(column, Ragged):
            sizes += np.diff(column.offsets) * column.values.itemsize + 8
        else:
            sizes += column.values.itemsize
    return sizes


def _sliced(piece: Mapping[str, Column], start: int, stop: int) -> dict[str, Column]:
    return {
        name: column.sliced(start, stop)
        if isinstance(column, Ragged)
        else Fixed(column.values[start:stop], None if column.valid is None else column.valid[start:stop])
        for name, column in piece.items()
    }


def _block(number: int, held: list[dict[str, Column]], rows: int) -> Block:
    columns = {name: joined([piece[name] for piece in held], 0) for name in held[0]}
    return Block(Region.of((number, number + 1)), columns, rows)
