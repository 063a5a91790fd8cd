"""Columns as Arrow arrays and back, sharing the buffers; a column's inner dims become fixed-size lists."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from gridcompute.columns import Array, Column, Field, Fixed, Ragged
from gridcompute.errors import ParameterError

_TIMES = ("s", "ms", "us", "ns")


def leaf(field: Field) -> pa.DataType:
    """Arrow's type of one element."""
    dtype = field.dtype
    if dtype.kind == "b":
        return pa.bool_()
    if dtype.kind in "mM":
        unit = np.datetime_data(dtype)
        if unit[1] != 1 or unit[0] not in _TIMES:
            return pa.int64()
        return pa.timestamp(unit[0]) if dtype.kind == "M" else pa.duration(unit[0])
    return pa.binary(dtype.itemsize) if dtype.kind in "Sc" else pa.from_numpy_dtype(dtype.newbyteorder("="))


def _order(field: Field, rows: Sequence[str]) -> list[int]:
    """Axes of a field with the row dims first."""
    names = list(field.dims)
    return [names.index(d) for d in rows] + [i for i, d in enumerate(names) if d not in rows]


def to_arrow(field: Field, column: Column, rows: Sequence[str], extents: Mapping[str, int]) -> pa.Array:
    """A canonical column as an Arrow array with one element for each position over the row dims.

    Args:
        field: what the column is.
        column: its values, of shape `extents` over the field's dims.
        rows: the dims that the rows run over, each of them one of the field's.
        extents: length of each dim.
    """
    inner = [extents[d] for d in field.dims if d not in rows]
    count = math.prod(extents[d] for d in rows)
    if isinstance(column, Ragged):
        order = _order(field, rows)
        if order != sorted(order):
            shape = [extents[d] for d in field.dims]
            column = column.taken(np.arange(column.cells).reshape(shape).transpose(order).reshape(-1))
        return nested(_ragged_to_arrow(field, column), inner, count)
    values, valid = row_major(field, column, rows, count)
    return nested(flat(leaf(field), values.reshape(-1), None if valid is None else valid.reshape(-1)), inner, count)


def row_major(field: Field, column: Fixed, rows: Sequence[str], count: int) -> tuple[Array, Array | None]:
    """A column's values, and what is valid of them, with a row for each of `count` positions over the row dims."""
    order = _order(field, rows)
    one, other = (None if array is None else array.transpose(order).reshape(count, array.size // max(count, 1))
                  for array in (column.values, column.valid))
    assert one is not None
    return one, other


def nested(array: pa.Array, inner: Sequence[int], count: int) -> pa.Array:
    """Cells as `count` rows of fixed-size lists, one level for each of the inner dims' lengths."""
    for level in range(len(inner), 0, -1):
        kind = pa.list_(pa.field("item", array.type), inner[level - 1])
        outer = count * math.prod(inner[: level - 1])
        array = pa.Array.from_buffers(kind, outer, [None], children=[array])
    return array


def flat(kind: pa.DataType, values: Array, valid: Array | None) -> pa.Array:
    """Values of fixed width as an Arrow array of such elements."""
    count = len(values)
    values = np.packbits(values, bitorder="little") if kind == pa.bool_() else np.ascontiguousarray(values)
    return pa.Array.from_buffers(kind, count, [bits(valid), pa.py_buffer(values.view(np.uint8))])


def bits(valid: Array | None) -> pa.Buffer | None:
    """Arrow's bitmap of what is valid."""
    return None if valid is None else pa.py_buffer(np.packbits(valid, bitorder="little"))


def _ragged_to_arrow(field: Field, column: Ragged) -> pa.Array:
    offsets, validity = pa.py_buffer(column.offsets), bits(column.valid)
    if field.kind == "list":
        item = flat(leaf(field), column.values, None)
        kind = pa.large_list(item.type)
        return pa.Array.from_buffers(kind, column.cells, [validity, offsets], children=[item])
    if field.dtype != np.uint8:
        raise ParameterError(f"column {field.name!r} is a string of {field.dtype}, not of uint8")
    buffers = [validity, offsets, pa.py_buffer(column.values)]
    text = pa.Array.from_buffers(pa.large_string(), column.cells, buffers)
    if len(column.values) and column.values.max() >= 128:
        try:
            text.validate(full=True)
        except pa.ArrowInvalid:
            return pa.Array.from_buffers(pa.large_binary(), column.cells, buffers)
    return text


def from_arrow(field: Field, array: pa.Array, rows: Sequence[str], extents: Mapping[str, int]) -> Column:
    """A column from what `to_arrow` made of it, without copies where the dims are in the rows' order.

    Raises:
        ValueError: an array that isn't laid out so.
    """
    array = within(field, array, [extents[d] for d in field.dims if d not in rows])
    if field.ragged:
        column = _ragged_from_arrow(field, array)
        order = _order(field, rows)
        if order != sorted(order):
            shape = [extents[field.dims[axis]] for axis in order]
            back = [order.index(axis) for axis in range(len(order))]
            column = column.taken(np.arange(column.cells).reshape(shape).transpose(back).reshape(-1))
        return column
    if array.type != leaf(field):
        raise ValueError(f"column {field.name!r} is of type {array.type}, not as described")
    return shaped(field, flat_values(array, field.dtype), valid_of(array), rows, extents)


def within(field: Field, array: pa.Array, inner: Sequence[int]) -> pa.Array:
    """The cells inside fixed-size lists, one level for each of the inner dims' lengths.

    Raises:
        ValueError: an array that isn't laid out so.
    """
    for size in inner:
        if not pa.types.is_fixed_size_list(array.type) or array.type.list_size != size or array.null_count:
            raise ValueError(f"column {field.name!r} isn't laid out as described")
        below = array.values
        if len(below) != len(array) * size:
            raise ValueError(f"column {field.name!r} is of another length than described")
        array = below
    return array


def shaped(field: Field, values: Array, valid: Array | None, rows: Sequence[str], extents: Mapping[str, int]) -> Fixed:
    """A column from its cells with the row dims first."""
    order = _order(field, rows)
    shape = [extents[field.dims[axis]] for axis in order]
    back = [order.index(axis) for axis in range(len(order))]
    return Fixed(values.reshape(shape).transpose(back), None if valid is None else valid.reshape(shape).transpose(back))


def _ragged_from_arrow(field: Field, array: pa.Array) -> Ragged:
    texts = field.kind == "string"
    if array.type not in ((pa.large_string(), pa.large_binary()) if texts else (pa.large_list(leaf(field)),)):
        raise ValueError(f"column {field.name!r} is of type {array.type}, not as described")
    buffers, count = array.buffers(), len(array)
    offsets = np.frombuffer(buffers[1], np.int64, count + 1) if count else np.zeros(1, np.int64)
    if texts:
        raw = buffers[2]
        values = np.frombuffer(raw, np.uint8) if raw is not None and raw.size else np.empty(0, np.uint8)
    else:
        if array.values.null_count:
            raise ValueError(f"column {field.name!r} has nulls inside its lists")
        values = flat_values(array.values, field.dtype)
    if offsets[0] != 0 or offsets[-1] > len(values):
        raise ValueError(f"the offsets of column {field.name!r} lead outside its values")
    return Ragged(_aligned(offsets), values[: offsets[-1]], valid_of(array))


def flat_values(array: pa.Array, dtype: np.dtype[Any]) -> Array:
    """The values of an Arrow array of fixed width, shared where they are aligned."""
    buffer, count = array.buffers()[1], len(array)
    if not count or buffer is None:
        if count:
            raise ValueError("a column without values")
        return np.empty(0, dtype)
    if dtype.kind == "b":
        return np.unpackbits(np.frombuffer(buffer, np.uint8), count=count, bitorder="little").view(bool)
    return _aligned(np.frombuffer(buffer, dtype, count))


def _aligned(values: Array) -> Array:
    return values if values.flags.aligned else values.copy()  # compiled loops need it


def valid_of(array: pa.Array) -> Array | None:
    """What is valid of an Arrow array; None where all is."""
    buffer = array.buffers()[0]
    if buffer is None or not array.null_count:
        return None
    return np.unpackbits(np.frombuffer(buffer, np.uint8), count=len(array), bitorder="little").view(bool)
