"""Committed chunks as a source: how a later phase, or the user, reads what a run has kept."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

from gridcompute.assemble import assemble
from gridcompute.axes import Axis, Layout
from gridcompute.columns import Block, Field
from gridcompute.coords import Coordinate
from gridcompute.errors import CorruptShardError, GridError
from gridcompute.outlasting import outlast
from gridcompute.shard import decode_at, tombstone
from gridcompute.shardfile import Header, read_ends
from gridcompute.sources.base import chosen
from gridcompute.spaces import Region, Space
from gridcompute.store import Store, open_store


@dataclass(frozen=True)
class Entry:
    """One committed chunk: its shard's name, its digest, its cells along the first dimension, its bytes.

    Where it was found by its name alone the digest is empty: whoever needs it asks the shard (see `ends`).
    """

    place: str
    digest: str
    rows: int
    nbytes: int = 0


@dataclass(frozen=True, eq=False)
class StoredSource:
    """The chunks of an op, all committed.

    Attributes:
        store: URL of the work store.
        recipe: of the op.
        fields: its columns.
        layout: how its space is cut; blocks whose cells are counted by now.
        entries: one a chunk, in order.
        options: of the store.
    """

    store: str
    recipe: str
    fields: tuple[Field, ...]
    layout: Layout
    entries: Sequence[Entry]
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    coords: tuple[Coordinate, ...] = ()
    uniform = False

    @cached_property
    def counted(self) -> Layout:
        """The layout in cells: along a dimension of blocks, one part a block."""
        if not self.layout.blocked:
            return self.layout
        rows = tuple(entry.rows for entry in self.entries)
        axes = {name: Axis(rows, together=axis.together) if axis.blocks else axis for name, axis in self.layout.axes}
        return Layout.of(axes)

    @property
    def together(self) -> tuple[tuple[str, int], ...]:
        """See `Source`."""
        return tuple((name, axis.together) for name, axis in self.layout.axes)

    @property
    def parts(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Lengths of the parts per dimension."""
        return tuple((name, axis.parts) for name, axis in self.counted.axes)

    @property
    def space(self) -> Space:
        """See `Source`."""
        return self.counted.space

    @property
    def stored(self) -> tuple[tuple[str, int], ...]:
        """See `Source`."""
        return ()

    @property
    def stored_bytes(self) -> int:
        """See `Source`."""
        return 0

    @property
    def key(self) -> object:
        """See `Source`: what was computed, not where it lies."""
        return ("stored", self.recipe)

    @cached_property
    def _full(self) -> Sequence[Entry]:
        """One entry a chunk of the counted layout, in which a block without cells has none."""
        return tuple(e for e in self.entries if e.rows) if self.layout.blocked else self.entries

    def objects(self, region: Region) -> tuple[str, ...]:
        """See `Source`: the shards read, with where the region begins in each."""
        if not self.layout.blocked:
            entries = [self.entries[chunk] for chunk in self.layout.covering(region)]
            return tuple(f"{e.digest or ends(_opened(self), e.place, e.nbytes).digest}@0" for e in entries)
        (lo, hi), (_, axis) = region.bounds[0], self.counted.axes[0]
        return tuple(f"{self._full[chunk].digest}@{lo - axis.bounds(chunk)[0]}" for chunk in axis.covering(lo, hi))

    def places(self, region: Region) -> tuple[str, ...]:
        """Names of the shards that a region is read from."""
        if not self.layout.blocked:
            return tuple(self.entries[chunk].place for chunk in self.layout.covering(region))
        return tuple(self._full[chunk].place for chunk in self.counted.covering(region))

    def missed(self, entry: Entry) -> Block:
        """What stands for a shard that is gone."""
        raise CorruptShardError(f"the shard {entry.place} is gone", path=entry.place, hint="run again: it is made anew")

    def read(self, region: Region, names: Sequence[str]) -> Block:
        """See `Source`."""
        fields = tuple(chosen(self.fields, names, "the stored result"))
        store = _opened(self)

        def fetch(chunk: int) -> Block:
            entry = self._full[chunk]
            try:
                return decode_at(outlast(partial(store.get, entry.place)), entry.place, names=names)
            except FileNotFoundError:
                return self.missed(entry)
            except CorruptShardError as error:
                # Declared void, so that the next run makes it anew; a store that can only be read is left as it is.
                with contextlib.suppress(GridError, OSError):
                    tombstone(store, entry.place, error.message)
                raise

        return assemble(fields, self.counted, region, fetch)

    def select(self, names: Sequence[str]) -> StoredSource:
        """See `Source`."""
        fields = tuple(chosen(self.fields, names, "the stored result"))
        return StoredSource(self.store, self.recipe, fields, self.layout, self.entries, self.options, self.coords)


def ends(store: Store, place: str, nbytes: int) -> Header:
    """What a shard says of itself, of which only the two ends are read.

    Raises:
        CorruptShardError: it is gone, or broken, and declared void.
    """
    try:
        return read_ends(partial(store.get_range, place), nbytes, path=place)
    except FileNotFoundError:
        raise CorruptShardError(f"the shard {place} is gone", path=place, hint="run again") from None
    except CorruptShardError as error:
        tombstone(store, place, error.message)
        raise


def _opened(source: StoredSource) -> Store:
    return open_store(source.store, **source.options)
