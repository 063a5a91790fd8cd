"""Large columns as byte planes: all first bytes of the values, all second ones and so on, of a piece of the rows.

The upper bytes of neighbouring numbers are nearly equal, and the lower ones are noise or zero. Apart, zstd packs them
with a third of the work, and smaller, and unpacks them in half the time. A piece is a record batch, so neither who
writes nor who reads holds more than a piece of them twice.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa

from gridcompute.arrowcolumns import bits, flat, flat_values, leaf, nested, row_major, shaped, valid_of, within
from gridcompute.columns import Array, Column, Field, Fixed
from gridcompute.threads import each

LEAST_BYTES = 2**20
"""Of a column's values, from which they are laid out so."""

PIECE_BYTES = 2**25
"""Of a piece: large enough for several threads, and far less than what has to be held anyway."""

_ROWS = 2**16  # that are taken apart at a time: their bytes stay in the cache


def suited(field: Field) -> bool:
    """Whether a column's values have several bytes that can be taken apart."""
    return not field.ragged and field.dtype.kind in "iufmM" and field.dtype.itemsize > 1


def taken_apart(fields: Sequence[Field], columns: Mapping[str, Column]) -> frozenset[str]:
    """Names of the columns that are laid out so, by a rule of types and shapes alone; of some with strings none are."""
    if any(field.ragged for field in fields):
        return frozenset()
    return frozenset(f.name for f in fields if suited(f) and columns[f.name].values.nbytes >= LEAST_BYTES)


def piece_rows(columns: Mapping[str, Column], rows: int) -> int:
    """Rows of a piece."""
    nbytes = sum(column.values.nbytes for column in columns.values())
    return max(1, min(rows, PIECE_BYTES * rows // max(nbytes, 1)))


def planes_type(dtype: np.dtype[np.generic]) -> pa.DataType:
    """Arrow's type of a value in planes, lowest byte first."""
    return pa.struct([pa.field(str(k), pa.uint8(), nullable=False) for k in range(dtype.itemsize)])


def batches(fields: Sequence[Field], columns: Mapping[str, Column], rows: Sequence[str], extents: Mapping[str, int],
            apart: Collection[str], step: int, threads: int) -> Iterator[pa.RecordBatch]:
    """Canonical columns as record batches of `step` rows. A batch is void once the next one is asked for.

    Args:
        fields: of the columns, none of them ragged.
        columns: of these names.
        rows: the dims that the rows run over.
        extents: length of each dim.
        apart: names of those that are taken apart.
        step: rows of all batches but the last.
        threads: that take values apart.
    """
    count = math.prod(extents[d] for d in rows)
    fixed = {name: column for name, column in columns.items() if isinstance(column, Fixed)}
    laid = [row_major(field, fixed[field.name], rows, count) for field in fields]
    rooms = [np.empty(values[:step].nbytes if field.name in apart else 0, np.uint8)
             for field, (values, _) in zip(fields, laid, strict=True)]
    for lo in range(0, count, step):
        arrays = []
        for field, (values, valid), room in zip(fields, laid, rooms, strict=True):
            part = np.ascontiguousarray(values[lo:lo + step]).reshape(-1)
            mask = None if valid is None else valid[lo:lo + step].reshape(-1)
            one = _apart(part, mask, room, threads) if field.name in apart else flat(leaf(field), part, mask)
            arrays.append(nested(one, [extents[d] for d in field.dims if d not in rows], len(values[lo:lo + step])))
        yield pa.RecordBatch.from_arrays(arrays, [field.name for field in fields])


def _apart(values: Array, valid: Array | None, room: Array, threads: int) -> pa.Array:
    width = values.itemsize
    planes, cells = room[:values.nbytes].reshape(width, -1), values.view(np.uint8).reshape(-1, width)

    def copied(lo: int) -> None:
        planes[:, lo:lo + _ROWS] = cells[lo:lo + _ROWS].T

    for _ in each(threads, copied, range(0, len(values), _ROWS)):
        pass
    inner = [pa.Array.from_buffers(pa.uint8(), len(values), [None, pa.py_buffer(plane)]) for plane in planes]
    return pa.Array.from_buffers(planes_type(values.dtype), len(values), [bits(valid)], children=inner)


class Whole:
    """A column as its pieces come in.

    Args:
        field: what it is.
        rows: the dims that the rows run over.
        extents: length of each dim.
        apart: whether its values are taken apart.
    """

    def __init__(self, field: Field, rows: Sequence[str], extents: Mapping[str, int], apart: bool) -> None:
        self._field, self._rows, self._extents, self._apart = field, rows, extents, apart
        self._values = np.empty(math.prod(extents[d] for d in field.dims), field.dtype)
        self._valid: Array | None = None
        self._filled = 0

    def add(self, array: pa.Array) -> None:
        """The next piece.

        Raises:
            ValueError: an array that isn't laid out so, or more of them than there are cells.
        """
        field = self._field
        inner = within(field, array, [self._extents[d] for d in field.dims if d not in self._rows])
        kind = planes_type(field.dtype) if self._apart else leaf(field)
        at = slice(self._filled, self._filled + len(inner))
        if inner.type != kind or at.stop > len(self._values):
            raise ValueError(f"column {field.name!r} is of type {inner.type}, or longer, not as described")
        if self._apart:
            _together(inner, self._values[at].view(np.uint8).reshape(-1, field.dtype.itemsize))
        else:
            self._values[at] = flat_values(inner, field.dtype)
        valid = valid_of(inner)
        if valid is not None:
            if self._valid is None:
                self._valid = np.ones(len(self._values), bool)
            self._valid[at] = valid
        self._filled = at.stop

    def column(self) -> Fixed:
        """All of it.

        Raises:
            ValueError: pieces are missing.
        """
        if self._filled != len(self._values):
            raise ValueError(f"column {self._field.name!r} is shorter than described")
        return shaped(self._field, self._values, self._valid, self._rows, self._extents)


def _together(array: pa.Array, cells: Array) -> None:
    planes = [array.field(k) for k in range(array.type.num_fields)]
    if any(plane.null_count for plane in planes):
        raise ValueError("a value has nulls inside")
    parts = [flat_values(plane, np.dtype(np.uint8)) for plane in planes]
    for lo in range(0, len(cells), _ROWS):
        for k, part in enumerate(parts):
            cells[lo:lo + _ROWS, k] = part[lo:lo + _ROWS]


def least_bytes(fields: Sequence[Field], extents: Mapping[str, int]) -> int:
    """Bytes that the buffers of columns in pieces have at least: a shard that has fewer isn't what it says."""
    cells = [(math.prod(extents[d] for d in field.dims), field.dtype) for field in fields]
    return sum(n // 8 if dtype.kind == "b" else n * dtype.itemsize for n, dtype in cells)


def most_bytes(fields: Sequence[Field], extents: Mapping[str, int], rows: Sequence[str], step: int) -> int:
    """Bytes that columns in pieces take at most as compressed record batches, beside the file's schema."""
    count = math.prod(extents[d] for d in rows)
    plain = sum(math.prod(extents[d] for d in field.dims) * (8 * field.dtype.itemsize + 1) // 8 for field in fields)
    buffers = sum(2 + field.dtype.itemsize + len(field.dims) for field in fields)
    # Of what doesn't get smaller a codec makes a 255th more at most, and some bytes a buffer.
    return plain + plain // 128 + -(-count // step) * (4096 + 1024 * buffers) + 2**16
