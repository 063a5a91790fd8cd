"""What labels data beside coordinates of one dimension: scalar and curvilinear ones, bounds, dataset attributes.

They travel in a collection's `coords`, are known when data is opened, and are never computed. One stays as long as
the dimensions that it spans do; where two collections that come together disagree, it goes, as in xarray.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gridcompute.coords import Coordinate, concatenated, packed

if TYPE_CHECKING:
    import xarray as xr

Array = np.ndarray[Any, Any]
WHOLE = "/"
"""Name of what carries the attributes of the dataset itself; no variable can have it."""

_OWN_ATTRS = "gridcompute_"


@dataclass(frozen=True, eq=False)
class Auxiliary(Coordinate):
    """Values over any dimensions of their own; `dim` is empty.

    Attributes:
        dims: its dimensions, as many as `values` has.
        own: those of them that only it has: the vertices of bounds.
    """

    dims: tuple[str, ...] = ()
    own: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", np.asarray(self.values))
        flat = self._flat
        object.__setattr__(self, "values", flat.values.reshape(self.values.shape))

    @property
    def _flat(self) -> Coordinate:
        return Coordinate("", self.name, self.values.reshape(-1), self.unit, self.calendar, self.attrs)

    @property
    def key(self) -> str:
        """Digest of the content."""
        shape = json.dumps([self.dims, self.values.shape, self.own])
        return hashlib.sha256(f"{self._flat.key} {shape}".encode()).hexdigest()

    def __len__(self) -> int:
        return int(self.values.size)

    def labels(self) -> Array:
        """Values as users write them, see `Coordinate.labels`."""
        return self._flat.labels().reshape(self.values.shape)

    def to_xarray(self) -> xr.Variable:
        """As xarray reads it from a file (times decoded)."""
        import xarray as xr

        flat = self._flat.renamed("all").to_xarray()
        made = xr.Variable(self.dims, np.asarray(flat.values).reshape(self.values.shape), flat.attrs)
        made.encoding = dict(flat.encoding)
        return made

    @classmethod
    def of(cls, name: str, dims: Sequence[str], flat: Coordinate | None, shape: Sequence[int],
           own: Sequence[str] = ()) -> Auxiliary | None:  # fmt: skip
        """Values taken as those of a coordinate are, in their shape; None where that couldn't be."""
        if flat is None:
            return None
        values = flat.values.reshape(tuple(shape))
        return cls("", name, values, flat.unit, flat.calendar, flat.attrs, tuple(dims), tuple(own))


def whole(attrs: Mapping[str, Any]) -> tuple[Auxiliary, ...]:
    """A dataset's own attributes; nothing where it has none."""
    kept = {key: value for key, value in attrs.items() if not str(key).startswith(_OWN_ATTRS) and key != "coordinates"}
    return (Auxiliary("", WHOLE, np.zeros((), np.int8), attrs=packed(kept)),) if kept else ()


def dims_of(c: Coordinate) -> tuple[str, ...]:
    """The dimensions of any coordinate."""
    return c.dims if isinstance(c, Auxiliary) else (c.dim,)


def fits(c: Coordinate, lengths: Mapping[str, int | None]) -> bool:
    """Whether a coordinate can stand in a space of these lengths."""
    if not isinstance(c, Auxiliary):
        return c.dim in lengths
    each = zip(c.dims, c.values.shape, strict=True)
    return all(lengths.get(dim, n if dim in c.own else -1) == n for dim, n in each)


def without(coords: Iterable[Coordinate], dims: Iterable[str]) -> list[Coordinate]:
    """The coordinates that span none of some dimensions."""
    gone = set(dims)
    return [c for c in coords if not gone & set(dims_of(c))]


def picked(c: Coordinate, dim: str, index: int | slice | Array) -> Coordinate:
    """A coordinate of chosen positions of a dimension; one position leaves it without the dimension."""
    if dim not in dims_of(c):
        return c
    if not isinstance(c, Auxiliary):
        if not isinstance(index, int):
            return c.taken(index)
        c = Auxiliary("", c.name, c.values, c.unit, c.calendar, c.attrs, (c.dim,))
    axis = c.dims.index(dim)
    where: list[Any] = [slice(None)] * c.values.ndim
    where[axis] = index
    dims = tuple(d for d in c.dims if d != dim or not isinstance(index, int))
    return replace(c, values=c.values[tuple(where)], dims=dims)


def end_to_end(parts: Sequence[Sequence[Auxiliary]], dim: str) -> tuple[Auxiliary, ...]:
    """What several files have in common: the same in each, or one after the other along their first dimension."""
    joined = []
    for c in parts[0]:
        same = [found for part in parts for found in part if found.name == c.name and found.dims == c.dims]
        if len(same) != len(parts):
            continue
        if dim not in c.dims and all(found == c for found in same):
            joined.append(c)
        if c.dims[:1] == (dim,):
            shape = (sum(found.values.shape[0] for found in same), *c.values.shape[1:])
            made = Auxiliary.of(c.name, c.dims, concatenated([found._flat for found in same]), shape, c.own)
            joined += [] if made is None else [made]
    return tuple(joined)


def plain(coords: Iterable[Coordinate]) -> tuple[Coordinate, ...]:
    """Those of one dimension: what a table has."""
    return tuple(c for c in coords if not isinstance(c, Auxiliary))


def told(coords: Iterable[Coordinate], names: Iterable[str], lengths: Mapping[str, int | None]) -> list[Coordinate]:
    """What is written beside columns: what fits and hasn't a column's name; no mention of bounds that are gone."""
    columns = set(names)
    kept = [c for c in coords
            if fits(c, lengths) and (not isinstance(c, Auxiliary) or (c.name not in columns and c.name != WHOLE))]
    there = columns | {c.name for c in kept}

    def gone(name: str, text: str) -> bool:
        return name in ("bounds", "climatology") and json.loads(text) not in there

    return [replace(c, attrs=tuple(pair for pair in c.attrs if not gone(*pair))) for c in kept]


def attributes_of(coords: Iterable[Coordinate]) -> dict[str, Any]:
    """The dataset's own attributes among coordinates."""
    return {name: json.loads(text) for c in coords if c.name == WHOLE for name, text in c.attrs}
