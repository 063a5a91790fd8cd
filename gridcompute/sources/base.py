"""What every source promises: the two protocols, and how columns are chosen from one.

A source is a frozen value without open handles: it pickles as its path and options, and a worker opens the
file when it first reads from it. What a source says of itself is small: a space, fields, coordinates.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol, runtime_checkable

from gridcompute.columns import Block, Column, Field
from gridcompute.coords import Coordinate
from gridcompute.errors import DimensionError, MissingInputError, ParameterError
from gridcompute.spaces import Region, Space


@runtime_checkable
class Source(Protocol):
    """Columns that can be read by region.

    Attributes:
        space: dimensions with known lengths.
        fields: its columns.
        coords: coordinates of its dimensions.
        stored: extent of the stored chunks per dimension; 1 where any region reads equally well.
        stored_bytes: decoded bytes of one stored chunk, all columns.
        key: what determines the values but for lengths and versions of objects; for `keys.digest`.
        uniform: whether `objects` is the same for every region.
        together: where there is one, pairs of a dimension and how many of its positions no chunk may separate.
        remote: where there is one, whether reading waits for another machine: workers then read ahead.

    Errors: `read` raises CorruptInputError for what can't be decoded, MissingInputError for what went away.
    """

    @property
    def space(self) -> Space: ...  # noqa: D102
    @property
    def fields(self) -> tuple[Field, ...]: ...  # noqa: D102
    @property
    def coords(self) -> tuple[Coordinate, ...]: ...  # noqa: D102
    @property
    def stored(self) -> tuple[tuple[str, int], ...]: ...  # noqa: D102
    @property
    def stored_bytes(self) -> int: ...  # noqa: D102
    @property
    def key(self) -> object: ...  # noqa: D102
    @property
    def uniform(self) -> bool: ...  # noqa: D102

    def objects(self, region: Region) -> tuple[str, ...]:
        """Identities of the outside objects that a region reads, sorted."""
        ...

    def read(self, region: Region, names: Sequence[str]) -> Block:
        """The named columns over a region of `space`."""
        ...

    def select(self, names: Sequence[str]) -> Source:
        """The source with only these columns and their dimensions; MissingInputError lists what there is."""
        ...


@runtime_checkable
class IngestSource(Protocol):
    """Columns of files whose lengths only reading them tells.

    Attributes:
        parts: URLs of the files, in order.
        dim: the one dimension, its length unknown.
        fields: its columns.
        key: as of `Source`; the files don't count, only how they are read.
        together: as of `Source`; each block is a multiple of it.
    """

    @property
    def parts(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def dim(self) -> str: ...  # noqa: D102
    @property
    def fields(self) -> tuple[Field, ...]: ...  # noqa: D102
    @property
    def key(self) -> object: ...  # noqa: D102

    def objects(self, part: str) -> tuple[str, ...]:
        """Identity of a file."""
        ...

    def blocks(self, part: str) -> Iterator[Block]:
        """A file's rows, cut by the canonical rule (see `gridcompute.sources.blocks`)."""
        ...


@runtime_checkable
class MarkedFiles(IngestSource, Protocol):
    """Files some of which can be read from the middle: what is committed then is where blocks begin, not their rows.

    Attributes:
        located: whether these can be.
        mark_fields: columns of marks (see `gridcompute.sources.marks`).
    """

    @property
    def located(self) -> bool: ...  # noqa: D102
    @property
    def mark_fields(self) -> tuple[Field, ...]: ...  # noqa: D102

    def marks(self, part: str) -> Iterator[Block]:
        """The marks of a file's blocks, which are those of `blocks`."""
        ...

    def read_rows(self, part: str, marks: Block, start: int, stop: int, names: Sequence[str]) -> Mapping[str, Column]:
        """The named columns of some rows of a block.

        Raises:
            CorruptInputError: the file isn't what it was when its marks were made.
        """
        ...


def chosen(
    fields: Sequence[Field], names: Sequence[str], where: str, left_out: Sequence[tuple[str, str]] = ()
) -> tuple[Field, ...]:
    """The named fields, in the order of the names.

    Raises:
        MissingInputError: a name that isn't there; the message lists what is.
        ParameterError: a name that is there with a type that can't be used.
    """
    known, unfit = {f.name: f for f in fields}, dict(left_out)
    for name in names:
        if name in unfit and name not in known:
            raise ParameterError(f"column {name!r} of {where} can't be used: {unfit[name]}", hint="leave it out")
        if name not in known:
            raise MissingInputError(f"no variable {name!r} in {where}", hint=f"it has {', '.join(known) or 'none'}")
    return tuple(known[name] for name in names)


def narrowed(
    space: Space, coords: Sequence[Coordinate], fields: Sequence[Field]
) -> tuple[Space, tuple[Coordinate, ...]]:
    """The dimensions that some fields span, and the coordinates of these."""
    dims = {name for f in fields for name in f.dims}
    return space.only(*dims), tuple(c for c in coords if c.dim in dims)


def require_within(space: Space, region: Region) -> None:
    """Refuse a region that leaves a space (DimensionError)."""
    if len(region.bounds) != len(space.dims) or not space.whole().contains(region):
        raise DimensionError(f"region {region} isn't within {space}")
