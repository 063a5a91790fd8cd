"""A page of the ledger: the kept chunks of one root of a stage, some 70 bytes each whatever their number.

A chunk's shard is named by recipe, region, token and generation (see `gridcompute.shard`), so all but the last two
follow from the layout. What has no such name, a held block or a sink's files, stands beside them as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, overload

import numpy as np

from gridcompute.axes import Layout
from gridcompute.events import Kept
from gridcompute.shard import parse_shard_name, shard_path
from gridcompute.stored import Entry

UNKNOWN = -1
"""Rows of a shard that was found by its name alone."""

_ROW = np.dtype([("generation", "i2"), ("rows", "i8"), ("nbytes", "i8"), ("token", "S16"), ("digest", "S32")])


class Page(Sequence[Entry]):
    """Kept chunks by number; as a sequence, their entries.

    Args:
        stage, root: of the chunks.
        recipe: the root's.
        layout: how it is cut.
    """

    def __init__(self, stage: int, root: int, recipe: str, layout: Layout) -> None:
        self._where, self._recipe, self.layout = (stage, root), recipe, layout
        self._rows = np.zeros(layout.chunks, _ROW)  # memory that nobody has written to costs nothing
        self._others: dict[int, Kept] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def has(self, chunk: int) -> bool:
        """Whether a chunk is kept."""
        return bool(self._rows["generation"][chunk]) or chunk in self._others

    def add(self, item: Kept) -> None:
        """Take note of a chunk."""
        self.drop(item.chunk)
        name = None if item.blocks or item.value is not None else parse_shard_name(item.place)
        derived = name is not None and self._path(item.chunk, name.token, name.generation) == item.place
        if name is None or not derived or len(name.token) > 16 or len(item.digest) > 32:
            self._others[item.chunk] = item
        else:
            self._rows[item.chunk] = (1 + name.generation, item.rows, item.nbytes, name.token, item.digest)

    @property
    def nbytes(self) -> int:
        """Stored bytes of all that is kept."""
        rows = int(self._rows["nbytes"].sum(where=self._rows["generation"] != 0))
        return rows + sum(item.nbytes for item in self._others.values())

    def drop(self, chunk: int) -> None:
        """Let go of a chunk."""
        self._others.pop(chunk, None)
        self._rows["generation"][chunk] = 0

    def kept(self, chunk: int) -> Kept:
        """What was noted of a chunk.

        Raises:
            KeyError: nothing.
        """
        if chunk in self._others:
            return self._others[chunk]
        generation, rows, nbytes, token, digest = self._rows[chunk].item()
        if not generation:
            raise KeyError(chunk)
        place = self._path(chunk, token.decode(), generation - 1)
        return Kept(*self._where, chunk, place, digest.decode(), rows, nbytes, won=False)

    def _path(self, chunk: int, token: str, generation: int) -> str:
        return shard_path(self._recipe, str(self.layout.region(chunk)), token, generation)

    @overload
    def __getitem__(self, chunk: int) -> Entry: ...
    @overload
    def __getitem__(self, chunk: slice) -> tuple[Entry, ...]: ...
    def __getitem__(self, chunk: int | slice) -> Any:
        if isinstance(chunk, slice):
            return tuple(self[one] for one in range(*chunk.indices(len(self))))
        item = self.kept(range(len(self))[chunk])
        return Entry(item.place, item.digest, item.rows, item.nbytes)

    def __iter__(self) -> Iterator[Entry]:
        return (self[chunk] for chunk in range(len(self)))
