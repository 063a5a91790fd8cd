"""What every sink promises, and what they share.

A `Sink` is where and how; `prepare` checks the place and gives an `Output`, which also knows what is written. Both are
frozen and pickle small. Workers call `write_chunk`; the driver calls `prepare` and `finalize`. A chunk in the sink's
own format is the shard: the caller commits a record of the `Written` afterwards, and the chunk is done with that.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from gridcompute.columns import Block, Field
from gridcompute.coords import Coordinate
from gridcompute.errors import DimensionError, DivergenceError, OutputExistsError, StoreError
from gridcompute.spaces import Region, Space
from gridcompute.stores.base import Store
from gridcompute.stores.local import LocalStore

CLAIM = ".gridcompute-recipe"
"""Name within an output that isn't finished: holds its recipe. Names that begin with a dot are never data."""

EXISTS_HINT = "remove it, write elsewhere, or replace it by write(..., overwrite=True)"


@dataclass(frozen=True)
class Written:
    """A file of an output: path below the output's URL, bytes, digest of the bytes, and rows (tables only)."""

    path: str
    size: int
    digest: str
    rows: int = 0


@dataclass(frozen=True, eq=False)
class Target:
    """What an output holds.

    Attributes:
        space: of the columns; one dimension may have an unknown length (positions are blocks).
        fields: its columns.
        coords: coordinates of the dimensions.
        extents: positions per chunk and dimension.
        recipe: key of what is written.
        attrs: attributes of the whole, as sorted pairs of name and JSON text.
    """

    space: Space
    fields: tuple[Field, ...]
    coords: tuple[Coordinate, ...]
    extents: tuple[int, ...]
    recipe: str
    attrs: tuple[tuple[str, str], ...] = ()

    @property
    def counts(self) -> tuple[int | None, ...]:
        """Chunks per dimension; None where the length is unknown."""
        return tuple(None if n is None else -(-n // e) for n, e in zip(self.space.shape, self.extents, strict=True))

    @property
    def bytes(self) -> int | None:
        """Bytes of all fixed values, uncompressed; None where a length is unknown."""
        if not self.space.known:
            return None
        lengths = dict(self.space.dims)
        return sum(f.dtype.itemsize * math.prod(lengths[dim] or 0 for dim in f.dims) for f in self.fields)

    def number(self, position: Sequence[int]) -> int:
        """A chunk's number, row-major; along an unknown length the block's own number.

        Raises:
            DimensionError: an unknown length among several dimensions, but not the first.
        """
        total = 0
        for i, (place, count) in enumerate(zip(position, self.counts, strict=True)):
            if count is None and i:
                raise DimensionError(f"{self.space}: only the first dimension may have an unknown length")
            total = total * (1 if count is None else count) + place
        return total

    def require_chunk(self, region: Region, position: Sequence[int]) -> None:
        """Refuse a region that isn't exactly the chunk at a position (DimensionError)."""
        for (name, length), (lo, hi), place, extent in zip(
            self.space.dims, region.bounds, position, self.extents, strict=True
        ):
            if length is not None and (lo, hi) != (place * extent, min(length, (place + 1) * extent)):
                raise DimensionError(f"positions {lo} to {hi} of {name!r} aren't chunk {place} of extent {extent}")


@runtime_checkable
class Output(Protocol):
    """A prepared output; frozen, picklable."""

    @property
    def url(self) -> str: ...  # noqa: D102
    @property
    def target(self) -> Target: ...  # noqa: D102
    @property
    def store(self) -> Store: ...  # noqa: D102

    def write_chunk(
        self, block: Block, region: Region, position: Sequence[int], *, replace: bool = False, dry: bool = False
    ) -> list[Written]:
        """Write one chunk: atomic, and the same block gives the same bytes.

        Args:
            block: the columns over the region.
            region: exactly the chunk at `position` (along an unknown length: any).
            position: the chunk's place per dimension.
            replace: put these bytes even where others are (after `verify` has failed).
            dry: only say what would be written.

        Raises:
            DivergenceError: other bytes are there already, and `replace` isn't set.
        """
        ...

    def finalize(self, written: Iterable[Written]) -> None:
        """Write metadata, then the one file that makes the dataset appear. Doing it twice is fine."""
        ...

    def verify(self, written: Written) -> bool:
        """Whether the stored file has the size and digest that were recorded."""
        ...

    @property
    def complete(self) -> bool:
        """Whether this recipe's finished dataset is there, with all its files."""
        ...

    def give_up(self) -> bool:
        """Take the claim back where nothing else was written yet, so that the place is free for others.

        Returns:
            Whether no unfinished output is left there.
        """
        ...

    def discard(self) -> None:
        """Remove all that was written; names that begin with a dot (a lease) and the folder may stay."""
        ...


@runtime_checkable
class Sink(Protocol):
    """A format and a place; frozen, picklable.

    Attributes:
        url: where the output is to be.
        key: format and options without the place, for the recipe.
    """

    @property
    def url(self) -> str: ...  # noqa: D102
    @property
    def key(self) -> object: ...  # noqa: D102

    def output(
        self, space: Space, fields: Sequence[Field], coords: Sequence[Coordinate], extents: Sequence[int],
        recipe: str, attrs: tuple[tuple[str, str], ...] = (),
    ) -> Output:  # fmt: skip
        """What would be written, without looking at the place.

        Raises:
            ParameterError: a column that the format can't hold.
            DimensionError: an unknown length that it can't.
        """
        ...

    def prepare(
        self, space: Space, fields: Sequence[Field], coords: Sequence[Coordinate], extents: Sequence[int],
        recipe: str, *, resume: bool = False, attrs: tuple[tuple[str, str], ...] = (),
    ) -> Output:  # fmt: skip
        """`output`, with the place checked and claimed, before any work starts.

        Raises:
            OutputExistsError: something else is there; not raised for the same recipe's output, finished or not,
                nor with `resume` for one that isn't finished.
            StoreError: the place isn't writable, or has too little room.
            ParameterError, DimensionError: as `output`.
        """
        ...


def digest_bytes(data: bytes) -> str:
    """32 hexadecimal digits of BLAKE2b."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def commit(store: Store, path: str, data: bytes, *, replace: bool, dry: bool = False, rows: int = 0) -> Written:
    """Write a chunk's file, the first writer winning; nothing where it is `dry`.

    Raises:
        DivergenceError: other bytes are there, and `replace` isn't set.
    """
    written = Written(path, len(data), digest_bytes(data), rows)
    if dry:
        return written
    if replace:
        store.put(path, data)
    elif not store.put_new(path, data) and not holds(store, written):
        raise DivergenceError(
            f"{store.url}: {path} is there with other bytes than this chunk has now",
            hint="a changed machine or library may round differently; discard the output, or replace the chunk",
        )
    return written


def holds(store: Store, written: Written) -> bool:
    """Whether a store has exactly the bytes that were recorded."""
    try:
        data = store.get(written.path)
    except FileNotFoundError:
        return False
    return len(data) == written.size and digest_bytes(data) == written.digest


def data_names(store: Store) -> list[str]:
    """Names of an output's files, leases and other hidden ones left out."""
    return [name for name in store.list() if not name.startswith(".")]


def claim(store: Store, recipe: str, finished: str | None, *, resume: bool) -> None:
    """Take an empty place for a recipe, or come back to it; writes `CLAIM`.

    Args:
        store: the output's place.
        recipe: of what is to be written.
        finished: recipe of a finished output that is there; None where there is none.
        resume: whether files without a claim may be this recipe's own.

    Raises:
        OutputExistsError: something else is there.
        StoreError: the place can't be written.
    """
    if finished is not None:
        if finished != recipe:
            raise OutputExistsError(f"{store.url} exists already", hint=EXISTS_HINT)
        return
    store.probe()
    if store.put_new(CLAIM, recipe.encode()):
        if not resume and data_names(store):
            store.delete(CLAIM)
            raise OutputExistsError(f"{store.url} exists already", hint=EXISTS_HINT)
    elif store.get(CLAIM) != recipe.encode():
        raise OutputExistsError(
            f"{store.url} holds another run's unfinished output",
            hint="resume that run, remove the output, write elsewhere, or replace it by write(..., overwrite=True)",
        )


def give_up(store: Store) -> bool:
    """See `Output.give_up`."""
    if store.exists(CLAIM) and not data_names(store):
        store.delete(CLAIM)
        remove_empty_folders(store)
    return not store.exists(CLAIM)


def require_room(store: Store, target: Target) -> None:
    """Refuse an output that won't fit even at a quarter of its uncompressed size (StoreError)."""
    need, free = target.bytes, store.free_bytes()
    if need is not None and free is not None and free < need / 4:
        raise StoreError(
            f"{store.url} has room for {free / 1e9:.2f} GB, but the output has {need / 1e9:.2f} GB of values",
            hint="make room, or write elsewhere",
        )


def remove_empty_folders(store: Store) -> None:
    """Remove the empty folders that a local output leaves."""
    if isinstance(store, LocalStore):
        for folder, _, _ in os.walk(store.root, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(folder)
