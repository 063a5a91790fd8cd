"""Index spaces and the boxes within them: integers only, no data.

>>> space = Space.of(lat=37, lon=49)
>>> space.cells
1813
>>> Region.of((0, 8), (16, 24)).shape
(8, 8)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from gridcompute.errors import DimensionError


def writable(name: str) -> bool:
    """Whether a name can be written to a file: half a surrogate pair has no UTF-8."""
    return name.isascii() or name.encode("utf-8", "replace").decode() == name


@dataclass(frozen=True)
class Space:
    """Named dimensions and their lengths, slowest first.

    Attributes:
        dims: pairs of name and length; a length of None is unknown until an ingest stage has counted it.
    """

    dims: tuple[tuple[str, int | None], ...] = ()

    def __post_init__(self) -> None:
        names = [name for name, _ in self.dims]
        for name, length in self.dims:
            if not (isinstance(name, str) and writable(name)):
                raise DimensionError(f"a dimension can't have the name {name!r}", hint="names are text")
            if names.count(name) > 1:
                raise DimensionError(f"dimension {name!r} stands twice in {self}", hint="rename one of them")
            if length is not None and not 0 <= length < 2**63:
                raise DimensionError(f"dimension {name!r} has the length {length:.3g}", hint="0 to 2**63 - 1")

    @classmethod
    def of(cls, dims: Mapping[str, int | None] | None = None, **lengths: int | None) -> Space:
        """Build a space from a mapping or from keywords."""
        return cls(tuple((dims or {}).items()) + tuple(lengths.items()))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the dimensions, slowest first."""
        return tuple(name for name, _ in self.dims)

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Lengths of the dimensions, None where unknown."""
        return tuple(length for _, length in self.dims)

    @property
    def known(self) -> bool:
        """Whether every length is known."""
        return None not in self.shape

    @property
    def cells(self) -> int | None:
        """Number of cells, None while a length is unknown."""
        return math.prod(n for n in self.shape if n is not None) if self.known else None

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __getitem__(self, name: str) -> int | None:
        for known, length in self.dims:
            if known == name:
                return length
        raise DimensionError(f"no dimension {name!r} in {self}", hint=f"the dimensions are {', '.join(self.names)}")

    def without(self, *names: str) -> Space:
        """This space less the named dimensions."""
        return Space(tuple(dim for dim in self.dims if dim[0] not in names))

    def only(self, *names: str) -> Space:
        """The named dimensions of this space, in this space's order."""
        return Space(tuple(dim for dim in self.dims if dim[0] in names))

    def join(self, other: Space) -> Space:
        """This space's dimensions, then those that only the other has; shared ones must agree."""
        for name, length in other.dims:
            if name in self and self[name] != length:
                here, there = ("an unknown length" if n is None else f"length {n}" for n in (self[name], length))
                raise DimensionError(f"dimension {name!r} has {here} here and {there} there")
        return Space(self.dims + tuple(dim for dim in other.dims if dim[0] not in self))

    def whole(self) -> Region:
        """The region that covers the space (all lengths known)."""
        return Region(tuple((0, self._length(name)) for name in self.names))

    def _length(self, name: str) -> int:
        length = self[name]
        if length is None:
            raise DimensionError(f"the length of dimension {name!r} isn't known yet")
        return length

    def __str__(self) -> str:
        return "(" + ", ".join(f"{name}: {'?' if n is None else n}" for name, n in self.dims) + ")"


@dataclass(frozen=True, order=True)
class Region:
    """A box in a space: one half-open interval per dimension, in the space's order.

    Along a dimension whose length isn't known yet, positions count blocks instead of cells.
    """

    bounds: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, *bounds: tuple[int, int]) -> Region:
        """Build a region from its intervals."""
        return cls(tuple((int(lo), int(hi)) for lo, hi in bounds))

    @property
    def shape(self) -> tuple[int, ...]:
        """Extent per dimension."""
        return tuple(hi - lo for lo, hi in self.bounds)

    @property
    def start(self) -> tuple[int, ...]:
        """First index per dimension."""
        return tuple(lo for lo, _ in self.bounds)

    @property
    def cells(self) -> int:
        """Number of positions inside."""
        return math.prod(self.shape)

    @property
    def slices(self) -> tuple[slice, ...]:
        """The region as NumPy slices."""
        return tuple(slice(lo, hi) for lo, hi in self.bounds)

    def within(self, outer: Region) -> tuple[slice, ...]:
        """This region as NumPy slices relative to an enclosing region."""
        return tuple(slice(lo - base, hi - base) for (lo, hi), (base, _) in zip(self.bounds, outer.bounds, strict=True))

    def intersect(self, other: Region) -> Region:
        """The common box (an empty interval where they don't meet)."""
        pairs = zip(self.bounds, other.bounds, strict=True)
        return Region(tuple((max(a, c), max(max(a, c), min(b, d))) for (a, b), (c, d) in pairs))

    def contains(self, other: Region) -> bool:
        """Whether the other region lies wholly inside."""
        return all(a <= c and d <= b for (a, b), (c, d) in zip(self.bounds, other.bounds, strict=True))

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self.bounds)

    def __str__(self) -> str:
        return "_".join(f"{lo}-{hi}" for lo, hi in self.bounds) or "all"
