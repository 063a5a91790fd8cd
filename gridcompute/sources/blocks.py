"""The canonical cut of rows whose number isn't known: 64 Ki rows or 64 MB of values, whichever comes first.

The cut depends on the rows alone, never on the pieces in which a reader delivers them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from gridcompute.columns import Block, Column, Fixed, Ragged
from gridcompute.sources.joined import joined
from gridcompute.spaces import Region

Array = np.ndarray[Any, Any]

BLOCK_ROWS = 64 * 2**10
BLOCK_BYTES = 64 * 10**6


class Cut:
    """Where blocks end, from the sizes of rows as they come.

    Args:
        rows: most rows of a block.
        limit: most bytes of a block, unless a single row has more.
    """

    def __init__(self, rows: int = BLOCK_ROWS, limit: int = BLOCK_BYTES) -> None:
        self._rows, self._limit = rows, limit
        self._count = self._size = 0

    def parts(self, sizes: Array) -> Iterator[tuple[int, int, bool]]:
        """The parts of the next rows that lie in one block each: start, stop (of the next rows), and whether it ends.

        Args:
            sizes: bytes of each of the next rows.
        """
        ends = np.cumsum(sizes)
        start = 0
        while start < len(ends):
            before = int(ends[start - 1]) if start else 0
            fit = int(np.searchsorted(ends, before + self._limit - self._size, side="right")) - start
            stop = start + min(max(fit, 0 if self._count else 1), self._rows - self._count)
            self._count += stop - start
            self._size += (int(ends[stop - 1]) if stop else 0) - before
            full = stop < len(ends) or self._count == self._rows
            if full:
                self._count = self._size = 0
            yield start, stop, full
            start = stop


def recut(pieces: Iterable[Mapping[str, Column]], rows: int = BLOCK_ROWS, limit: int = BLOCK_BYTES,
          group: int = 1) -> Iterator[Block]:
    """Blocks of pieces of rows. A row's size is that of its values, and 8 bytes for each ragged column.

    Args:
        pieces: columns by name, all of one length within a piece, a multiple of `group`.
        rows: most rows of a block.
        limit: most bytes of values of a block, unless a single group has more.
        group: rows that stay together.
    """
    number, held, count, cut = 0, list[dict[str, Column]](), 0, Cut(rows // group, limit)
    for piece in pieces:
        for start, stop, ends in cut.parts(_row_bytes(piece).reshape(-1, group).sum(axis=1)):
            if stop > start:
                held.append(_sliced(piece, group * start, group * stop))
                count += group * (stop - start)
            if ends:
                yield _block(number, held, count)
                number, held, count = number + 1, [], 0
    if count:
        yield _block(number, held, count)


def _row_bytes(piece: Mapping[str, Column]) -> Array:
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
