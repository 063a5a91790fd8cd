"""Columns and Arrow arrays: which types have a place in a column, and the way there and back without copies.

Times, dates and durations become integers with CF attributes, and Arrow's own types again (see `times`); structs
become a column per member ("MET.pt"), lists of structs a list column per member; dictionaries their values.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gridcompute.columns import Column, Field, Fixed, Ragged
from gridcompute.errors import CorruptInputError, ParameterError
from gridcompute.times import TimeType, date_attrs, length_attrs


def leaves(schema: pa.Schema) -> list[tuple[str, tuple[str, ...], pa.DataType, bool]]:
    """Name, path, type and nullability of each column, structs taken apart."""
    out: list[tuple[str, tuple[str, ...], pa.DataType, bool]] = []

    def visit(path: tuple[str, ...], kind: pa.DataType, nullable: bool) -> None:
        if pa.types.is_struct(kind):
            for child in kind:
                visit((*path, child.name), child.type, nullable or child.nullable)
        elif _is_list(kind) and pa.types.is_struct(kind.value_type):
            for child in kind.value_type:
                visit((*path, child.name), pa.large_list(child.type), nullable)
        else:
            out.append((".".join(path), path, kind, nullable))

    for field in schema:
        visit((field.name,), field.type, field.nullable)
    return out


def field_of(name: str, kind: pa.DataType, dim: str, nullable: bool) -> Field:
    """The field of an Arrow type.

    Raises:
        ParameterError: a type that has no place in a column; the message names both.
    """
    item = kind
    if pa.types.is_dictionary(item):
        item = item.value_type
    if _is_text(item):
        return Field(name, (dim,), np.dtype(np.uint8), "string", nullable)
    ragged = _is_list(item)
    if ragged:
        item = item.value_type
    dtype, attrs = _plain(item)
    if dtype is None:
        raise ParameterError(
            f"column {name!r} has the type {kind}",
            hint="cast it to numbers, text, times or lists of numbers, or leave it out",
        )
    return Field(name, (dim,), dtype, "list" if ragged else "fixed", nullable or pa.types.is_null(item), attrs)


def _plain(kind: pa.DataType) -> tuple[np.dtype[Any] | None, tuple[tuple[str, str], ...]]:
    if pa.types.is_null(kind):
        return np.dtype(np.float64), ()
    if pa.types.is_timestamp(kind):
        return np.dtype(np.int64), date_attrs(kind.unit, kind.tz)
    if pa.types.is_date32(kind):
        return np.dtype(np.int32), date_attrs("D")
    if pa.types.is_date64(kind):
        return np.dtype(np.int64), date_attrs("ms")
    if pa.types.is_time(kind):
        of_day = "time32" if pa.types.is_time32(kind) else "time64"
        return np.dtype(np.int32 if of_day == "time32" else np.int64), length_attrs(kind.unit, of_day)
    if pa.types.is_duration(kind):
        return np.dtype(np.int64), length_attrs(kind.unit)
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return np.dtype(kind.to_pandas_dtype()), ()
    return None, ()


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def leaf(table: Any, path: tuple[str, ...]) -> pa.Array:
    """One column of a table or record batch by its path, as one array; nulls of structs reach down."""
    column = table.column(path[0])
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):  # too long for 32-bit offsets
        array = pa.concat_arrays(_widened(array).chunks) if array.num_chunks else pa.array([], array.type)
    for name in path[1:]:
        if pa.types.is_struct(array.type):
            array = pc.struct_field(array, name)
        else:
            array = _large(array)
            valid = None if not array.null_count else pc.invert(array.is_valid())
            array = pa.LargeListArray.from_arrays(array.offsets, pc.struct_field(array.values, name), mask=valid)
    return array


def _widened(array: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = array.type
    return array.cast(
        pa.large_string() if _is_text(kind) else pa.large_list(kind.value_type) if _is_list(kind) else kind
    )


def _large(array: pa.Array) -> pa.Array:
    kind = array.type
    return array if pa.types.is_large_list(kind) else array.cast(pa.large_list(kind.value_type))


def column_of(array: pa.Array, field: Field, where: str = "") -> Column:
    """An Arrow array as the column of a field, sharing its buffers if it can; NaN under the nulls of floats.

    Raises:
        CorruptInputError: a null within a list of integers.
    """
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    valid = array.is_valid().to_numpy(zero_copy_only=False) if array.null_count else None
    if field.kind == "fixed":
        return Fixed(_values(array, field, valid), valid)
    array = array.cast(pa.large_string()) if field.kind == "string" else _large(array)
    offsets = (
        np.frombuffer(array.buffers()[1], np.int64, len(array) + 1, array.offset * 8)
        if len(array)
        else np.zeros(1, np.int64)
    )
    if field.kind == "string":
        data = array.buffers()[2]
        return Ragged(offsets, np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8), valid)
    items = array.values
    if items.null_count and field.dtype.kind != "f":
        raise CorruptInputError(
            f"{where}: column {field.name!r} has a null within a list of {field.dtype}",
            hint="fill it before, or leave the column out",
        )
    inner = items.is_valid().to_numpy(zero_copy_only=False) if items.null_count else None
    return Ragged(offsets, _values(items, field, inner), valid)


def _values(array: pa.Array, field: Field, valid: Any) -> Any:
    kind = array.type
    if pa.types.is_null(kind):
        return np.full(len(array), np.nan if field.dtype.kind == "f" else 0, field.dtype)
    if pa.types.is_temporal(kind):
        array = array.view(pa.int32() if field.dtype == np.int32 else pa.int64())
    if valid is not None:
        array = pc.fill_null(
            array, float("nan") if field.dtype.kind == "f" else False if field.dtype.kind == "b" else 0
        )
    values = array.to_numpy(zero_copy_only=False)
    return values if values.dtype == field.dtype else values.astype(field.dtype)


def array_of(column: Column, field: Field) -> pa.Array:
    """A column (one-dimensional) as an Arrow array: primitive, large_string or large_list; times as Arrow's own.

    Raises:
        ParameterError: bytes of a string column that aren't UTF-8; times beyond what Arrow's type holds.
    """
    if isinstance(column, Fixed):
        return _items(column.values, field, column.valid)
    start, stop = int(column.offsets[0]), int(column.offsets[-1])
    values = np.ascontiguousarray(column.values[start:stop])
    offsets = pa.py_buffer(np.ascontiguousarray(column.offsets - start))
    cells = column.cells
    bits = None if column.valid is None else pa.py_buffer(np.packbits(column.valid, bitorder="little"))
    if field.kind == "list":
        items = _items(values, field)
        return pa.Array.from_buffers(arrow_type(field), cells, [bits, offsets], children=[items])
    array = pa.Array.from_buffers(pa.large_string(), cells, [bits, offsets, pa.py_buffer(values)])
    try:
        array.validate(full=True)
    except pa.ArrowInvalid as error:
        raise ParameterError(
            f"column {field.name!r} isn't text: {error}", hint="return UTF-8 bytes, or lists"
        ) from None
    return array


def _items(values: Any, field: Field, valid: Any = None) -> pa.Array:
    """Elements as an Arrow array of their own type."""
    mask, times = None if valid is None else ~valid, TimeType.of(field)
    if times is None:
        return pa.array(np.ascontiguousarray(values), pa.from_numpy_dtype(field.dtype), mask=mask)
    return pa.array(np.ascontiguousarray(times.counts(values, valid, field.name)), mask=mask).view(_time_type(times))


def _time_type(times: TimeType) -> pa.DataType:
    if times.kind == "timestamp":
        return pa.timestamp(times.unit, times.timezone or None)
    return pa.date32() if times.kind == "date32" else getattr(pa, times.kind)(times.unit)


def arrow_type(field: Field) -> pa.DataType:
    """The Arrow type that `array_of` gives."""
    if field.kind == "string":
        return pa.large_string()
    times = TimeType.of(field)
    kind = pa.from_numpy_dtype(field.dtype) if times is None else _time_type(times)
    return pa.large_list(pa.field("item", kind)) if field.kind == "list" else kind
