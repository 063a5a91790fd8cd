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


def _leaf(field: Field) -> pa.DataType:
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
    order = _order(field, rows)
    inner = [extents[d] for d in field.dims if d not in rows]
    if isinstance(column, Ragged):
        if order != sorted(order):
            shape = [extents[d] for d in field.dims]
            column = column.taken(np.arange(column.cells).reshape(shape).transpose(order).reshape(-1))
        array = _ragged_to_arrow(field, column)
    else:
        valid = None if column.valid is None else column.valid.transpose(order).reshape(-1)
        array = _flat(_leaf(field), column.values.transpose(order).reshape(-1), valid)
    for level in range(len(inner), 0, -1):
        kind = pa.list_(pa.field("item", array.type), inner[level - 1])
        outer = math.prod([extents[d] for d in rows] + inner[: level - 1])
        array = pa.Array.from_buffers(kind, outer, [None], children=[array])
    return array


def _flat(kind: pa.DataType, values: Array, valid: Array | None) -> pa.Array:
    count = len(values)
    values = np.packbits(values, bitorder="little") if kind == pa.bool_() else np.ascontiguousarray(values)
    return pa.Array.from_buffers(kind, count, [_bits(valid), pa.py_buffer(values.view(np.uint8))])


def _bits(valid: Array | None) -> pa.Buffer | None:
    return None if valid is None else pa.py_buffer(np.packbits(valid, bitorder="little"))


def _ragged_to_arrow(field: Field, column: Ragged) -> pa.Array:
    offsets, validity = pa.py_buffer(column.offsets), _bits(column.valid)
    if field.kind == "list":
        item = _flat(_leaf(field), column.values, None)
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
    for size in [extents[d] for d in field.dims if d not in rows]:
        if not pa.types.is_fixed_size_list(array.type) or array.type.list_size != size or array.null_count:
            raise ValueError(f"column {field.name!r} isn't laid out as described")
        below = array.values
        if len(below) != len(array) * size:
            raise ValueError(f"column {field.name!r} is of another length than described")
        array = below
    order = _order(field, rows)
    shape = [extents[field.dims[axis]] for axis in order]
    back = [order.index(axis) for axis in range(len(order))]
    if field.ragged:
        column = _ragged_from_arrow(field, array)
        if order != sorted(order):
            column = column.taken(np.arange(column.cells).reshape(shape).transpose(back).reshape(-1))
        return column
    if array.type != _leaf(field):
        raise ValueError(f"column {field.name!r} is of type {array.type}, not as described")
    valid = _valid(array)
    values = _values(array, field.dtype).reshape(shape).transpose(back)
    return Fixed(values, None if valid is None else valid.reshape(shape).transpose(back))


def _ragged_from_arrow(field: Field, array: pa.Array) -> Ragged:
    texts = field.kind == "string"
    if array.type not in ((pa.large_string(), pa.large_binary()) if texts else (pa.large_list(_leaf(field)),)):
        raise ValueError(f"column {field.name!r} is of type {array.type}, not as described")
    buffers, count = array.buffers(), len(array)
    offsets = np.frombuffer(buffers[1], np.int64, count + 1) if count else np.zeros(1, np.int64)
    if texts:
        raw = buffers[2]
        values = np.frombuffer(raw, np.uint8) if raw is not None and raw.size else np.empty(0, np.uint8)
    else:
        if array.values.null_count:
            raise ValueError(f"column {field.name!r} has nulls inside its lists")
        values = _values(array.values, field.dtype)
    if offsets[0] != 0 or offsets[-1] > len(values):
        raise ValueError(f"the offsets of column {field.name!r} lead outside its values")
    return Ragged(_aligned(offsets), values[: offsets[-1]], _valid(array))


def _values(array: pa.Array, dtype: np.dtype[Any]) -> Array:
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


def _valid(array: pa.Array) -> Array | None:
    buffer = array.buffers()[0]
    if buffer is None or not array.null_count:
        return None
    return np.unpackbits(np.frombuffer(buffer, np.uint8), count=len(array), bitorder="little").view(bool)
