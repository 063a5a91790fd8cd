"""Values of one chunk in memory: named columns, fixed or ragged, with nulls.

A `Field` says what a column is; `Fixed` and `Ragged` hold the values of one region; a `Block` is a chunk's
columns together. Arrow and NumPy share the buffers: nothing here copies unless it must.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from gridcompute.errors import ParameterError
from gridcompute.skips import Skips
from gridcompute.spaces import Region, Space, writable

Array = np.ndarray[Any, Any]
Kind = Literal["fixed", "string", "list"]


@dataclass(frozen=True)
class Field:
    """What a column is.

    Attributes:
        name: the column's name, unique in its collection.
        dims: the dimensions it spans, in the space's order.
        dtype: element type in NumPy's terms (uint8 for strings, the item's type for lists).
        kind: "fixed" (one element a cell), "string" (UTF-8 bytes a cell) or "list" (elements a cell).
        nullable: whether cells may be null.
        attrs: attributes such as units, as sorted pairs of name and JSON text.
    """

    name: str
    dims: tuple[str, ...]
    dtype: np.dtype[Any]
    kind: Kind = "fixed"
    nullable: bool = False
    attrs: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        for name in (self.name, *self.dims):
            if not (isinstance(name, str) and writable(name)):
                raise ParameterError(f"a column or its dimension can't have the name {name!r}", hint="names are text")
        if self.dtype.char in "gG":  # long doubles differ between machines
            raise ParameterError(f"column {self.name!r} can't have the type {self.dtype}", hint="convert it to float64")

    @property
    def ragged(self) -> bool:
        """Whether cells differ in length."""
        return self.kind != "fixed"

    def renamed(self, name: str) -> Field:
        """The same field under another name."""
        return replace(self, name=name)


@dataclass(frozen=True, eq=False)
class Fixed:
    """One element a cell: `values` has the region's shape over the field's dims.

    `valid` is a boolean array of the same shape, or None where nothing is null. Values under a null are
    arbitrary; a digest zeroes them.
    """

    values: Array
    valid: Array | None = None

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return int(self.values.nbytes) + (0 if self.valid is None else int(self.valid.nbytes))


@dataclass(frozen=True, eq=False)
class Ragged:
    """A run of elements a cell, cells along one dimension (n of them).

    Attributes:
        offsets: int64, n + 1 entries, not decreasing; cell i is `values[offsets[i]:offsets[i + 1]]`.
            `offsets[0]` need not be 0: a slice of a longer column shares its buffers.
        values: one-dimensional elements.
        valid: boolean per cell, or None.
    """

    offsets: Array
    values: Array
    valid: Array | None = None

    @property
    def cells(self) -> int:
        """Number of cells."""
        return len(self.offsets) - 1

    @property
    def nbytes(self) -> int:
        """Bytes held by the cells (not by the buffers they are sliced from)."""
        items = int(self.offsets[-1] - self.offsets[0]) if len(self.offsets) else 0
        return (
            int(self.offsets.nbytes) + items * self.values.itemsize + (0 if self.valid is None else self.valid.nbytes)
        )

    def sliced(self, start: int, stop: int) -> Ragged:
        """Cells start to stop, without a copy."""
        valid = None if self.valid is None else self.valid[start:stop]
        return Ragged(self.offsets[start : stop + 1], self.values, valid)

    def compact(self) -> Ragged:
        """The same cells in memory of their own, without what else lies in the buffers."""
        lo, hi = self.offsets[0], self.offsets[-1]
        valid = None if self.valid is None else self.valid.copy()
        return Ragged(self.offsets - lo, self.values[lo:hi].copy(), valid)

    def taken(self, index: Array) -> Ragged:
        """The cells at `index` (int64), in that order, copied."""
        size, values = self.values.itemsize, np.ascontiguousarray(self.values)
        offsets = np.ascontiguousarray(self.offsets, np.int64) * size
        # As texts, whatever the items are: Arrow copies a cell at a time, not an item.
        cells = pa.LargeBinaryArray.from_buffers(pa.large_binary(), self.cells,
                                                 [None, pa.py_buffer(offsets), pa.py_buffer(values.view(np.uint8))])
        _, places, items = cells.take(pa.array(index, pa.int64())).buffers()
        return Ragged(np.frombuffer(places, np.int64, len(index) + 1) // size, np.frombuffer(items, values.dtype),
                      None if self.valid is None else self.valid[index])

    @classmethod
    def of(cls, cells: Iterable[bytes | Array | None], dtype: Any = np.uint8) -> Ragged:
        """Build from separate cells; None is a null.

        Raises:
            ParameterError: a cell that isn't one-dimensional.
        """
        parts = [None if c is None else np.frombuffer(c, np.uint8) if isinstance(c, bytes) else np.asarray(c, dtype)
                 for c in cells]
        offsets = np.zeros(len(parts) + 1, np.int64)
        np.cumsum([0 if p is None else p.size for p in parts], out=offsets[1:])
        full = [p for p in parts if p is not None]
        if any(p.ndim != 1 for p in full):
            raise ParameterError("a cell of variable length has one dimension", hint="flatten it, or give equal shapes")
        values = np.concatenate(full).astype(dtype, copy=False) if full else np.empty(0, dtype)
        valid = None if len(full) == len(parts) else np.array([p is not None for p in parts], bool)
        return cls(offsets, values, valid)


Column = Fixed | Ragged


@dataclass(frozen=True, eq=False)
class Block:
    """The columns of one region.

    Attributes:
        region: where it lies in its op's space (block numbers along dimensions of unknown length).
        columns: values by name; each column's array spans the dims of its field.
        rows: cells along the first dimension; differs from the region's extent where the length is unknown.
        skips: cells that the op itself skipped in computing it (of no use to those that read it).
        groups: rows at which groups end that can be read one by one once the block is kept; none: only as a whole.
    """

    region: Region
    columns: Mapping[str, Column] = field(default_factory=dict)
    rows: int = 0
    skips: tuple[Skips, ...] = ()
    groups: tuple[int, ...] = ()

    def __getitem__(self, name: str) -> Column:
        return self.columns[name]

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(column.nbytes for column in self.columns.values())

    def renamed(self, names: Mapping[str, str]) -> Block:
        """The columns named in `names`, under their new names."""
        return Block(self.region, {new: self.columns[old] for old, new in names.items()}, self.rows)


def rows_of(space: Space, inputs: Iterable[tuple[Block, Space]]) -> int:
    """Cells along the first dimension of `space`, from blocks over the same positions of spaces that share some."""
    first = space.names[0] if space.names else ""
    blocks = [(block, names) for block, other in inputs if first in (names := other.names)]
    for block, names in blocks:
        if names[0] == first:
            return block.rows
    return blocks[0][0].region.shape[blocks[0][1].index(first)] if blocks else 1


def field_region(space: Space, region: Region, dims: tuple[str, ...]) -> Region:
    """The part of a region of `space` that a column over `dims` spans."""
    where = dict(zip(space.names, region.bounds, strict=True))
    return Region(tuple(where[name] for name in dims))
