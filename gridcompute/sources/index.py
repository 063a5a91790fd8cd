"""A space without data: cells that a kernel only knows by their index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gridcompute.columns import Block, Field
from gridcompute.coords import Coordinate
from gridcompute.errors import DimensionError
from gridcompute.sources.base import chosen, require_within
from gridcompute.spaces import Region, Space


@dataclass(frozen=True)
class IndexSource:
    """Cells without columns.

    Raises:
        DimensionError: a dimension without a length.
    """

    space: Space
    coords: tuple[Coordinate, ...] = ()

    def __post_init__(self) -> None:
        if not self.space.known:
            raise DimensionError(f"the space {self.space} has a dimension without a length", hint="state each length")

    fields: tuple[Field, ...] = ()
    uniform = True
    stored_bytes = 0

    @property
    def stored(self) -> tuple[tuple[str, int], ...]:
        """See `Source`."""
        return tuple((name, 1) for name in self.space.names)

    @property
    def key(self) -> object:
        """See `Source`: lengths don't count."""
        return ("index", self.space.names)

    def objects(self, region: Region) -> tuple[str, ...]:
        """See `Source`: nothing from outside."""
        return ()

    def read(self, region: Region, names: Sequence[str]) -> Block:
        """See `Source`: no columns, only how many cells."""
        chosen(self.fields, names, "an index space")
        require_within(self.space, region)
        return Block(region, {}, region.shape[0] if region.bounds else 1)

    def select(self, names: Sequence[str]) -> IndexSource:
        """See `Source`."""
        chosen(self.fields, names, "an index space")
        return self
