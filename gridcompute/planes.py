"""Large columns as byte planes: all first bytes of the values, all second ones and so on, of a piece of the rows.

The upper bytes of neighbouring numbers are nearly equal, and the lower ones are noise or zero. Apart, zstd packs them
with a third of the work, and smaller, and unpacks them in half the time. A piece is a record batch, so neither who
writes nor who reads holds more than a piece of them twice.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa

from gridcompute.arrowcolumns import bits, flat, flat_values, leaf, nested, row_major, shaped, valid_of, within
from gridcompute.columns import Array, Column, Field, Fixed
from gridcompute.threads import each

LEAST_BYTES = 2**20
"""Of a block's values, from which they are laid out so."""

PIECE_BYTES = 2**25
"""Of a piece: large enough for several threads, and far less than what has to be held anyway."""

_ROWS = 2**16  # that are taken apart at a time: their bytes stay in the cache


def in_planes(field: Field) -> bool:
    """Whether a column's values are taken apart where they are many."""
    return not field.ragged and field.dtype.kind in "iufmM" and field.dtype.itemsize > 1


def piece_rows(fields: Sequence[Field], columns: Mapping[str, Column], rows: int) -> int:
    """Rows of a piece, by a rule of types and shapes alone; 0 for a block that stays as it is."""
    nbytes = sum(column.values.nbytes for column in columns.values())
    if nbytes < LEAST_BYTES or any(f.ragged for f in fields) or not any(map(in_planes, fields)):
        return 0
    return max(1, min(rows, PIECE_BYTES * rows // nbytes))


def planes_type(dtype: np.dtype[np.generic]) -> pa.DataType:
    """Arrow's type of a value in planes, lowest byte first."""
    return pa.struct([pa.field(str(k), pa.uint8(), nullable=False) for k in range(dtype.itemsize)])


def batches(fields: Sequence[Field], columns: Mapping[str, Column], rows: Sequence[str], extents: Mapping[str, int],
            step: int, threads: int) -> Iterator[pa.RecordBatch]:
    """Canonical columns as record batches of `step` rows. A batch is void once the next one is asked for.

    Args:
        fields: of the columns, none of them ragged.
        columns: of these names.
        rows: the dims that the rows run over.
        extents: length of each dim.
        step: rows of all batches but the last.
        threads: that take values apart.
    """
    count = math.prod(extents[d] for d in rows)
    fixed = {name: column for name, column in columns.items() if isinstance(column, Fixed)}
    laid = [row_major(field, fixed[field.name], rows, count) for field in fields]
    rooms = [np.empty(values[:step].nbytes if in_planes(field) else 0, np.uint8)
             for field, (values, _) in zip(fields, laid, strict=True)]
    for lo in range(0, count, step):
        arrays = []
        for field, (values, valid), room in zip(fields, laid, rooms, strict=True):
            part = values[lo:lo + step].reshape(-1)
            mask = None if valid is None else valid[lo:lo + step].reshape(-1)
            one = _apart(part, mask, room, threads) if in_planes(field) else flat(leaf(field), part, mask)
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
    """

    def __init__(self, field: Field, rows: Sequence[str], extents: Mapping[str, int]) -> None:
        self._field, self._rows, self._extents = field, rows, extents
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
        kind = planes_type(field.dtype) if in_planes(field) else leaf(field)
        at = slice(self._filled, self._filled + len(inner))
        if inner.type != kind or at.stop > len(self._values):
            raise ValueError(f"column {field.name!r} is of type {inner.type}, or longer, not as described")
        if in_planes(field):
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
