"""Stored values of CF variables to values: gaps, scale and offset, booleans, text; as xarray decodes them.

One difference is meant: integers with a fill value and without a scale stay integers, with a mask, so that
nothing above 2**24 (or 2**53) is rounded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gridcompute.columns import Column, Field, Fixed, Ragged
from gridcompute.coords import Coordinate, packed
from gridcompute.errors import DimensionError
from gridcompute.spaces import Space

Array = np.ndarray[Any, Any]
ENCODING = (
    "_FillValue",
    "missing_value",
    "scale_factor",
    "add_offset",
    "_Unsigned",
    "dtype",
    "coordinates",
    "_ARRAY_DIMENSIONS",
    "_Encoding",
)


@dataclass(frozen=True)
class Decoding:
    """How one variable is stored.

    Attributes:
        dims: its dimensions in the order they are stored in.
        dtype: its stored type.
        fills: stored values that mean a gap, of that type; NaN isn't among them.
        scaling: scale_factor and add_offset, those that there are.
        kind: "plain", "masked" (integers with gaps), "gaps" (floats with fills), "scaled", "bool", "text".
    """

    dims: tuple[str, ...]
    dtype: np.dtype[Any]
    kind: str
    fills: tuple[Any, ...] = ()
    scaling: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def of(cls, dims: Sequence[str], dtype: np.dtype[Any], attrs: Mapping[str, Any]) -> Decoding | None:
        """Read CF attributes; None for a type that has no place in a column."""
        dtype, dims = np.dtype(dtype), tuple(dims)
        if dtype.kind in "OUST":
            return cls(dims, dtype, "text")
        if dtype.kind not in "biuf":
            return None
        dtype = dtype.newbyteorder("=")
        if dtype.kind in "iu" and str(attrs.get("_Unsigned", "")).lower() in ("true", "false"):
            dtype = np.dtype(f"{'u' if str(attrs['_Unsigned']).lower() == 'true' else 'i'}{dtype.itemsize}")
        fills = _fills(dtype, attrs)
        scaling = tuple((name, attrs[name]) for name in ("scale_factor", "add_offset") if attrs.get(name) is not None)
        if attrs.get("dtype") == "bool" and dtype.kind in "iu":
            return cls(dims, dtype, "bool")
        if scaling:
            return cls(dims, dtype, "scaled", fills, scaling)
        if fills or (dtype == np.float16 and "_FillValue" in attrs):
            return cls(dims, dtype, "gaps" if dtype.kind == "f" else "masked", fills)
        return cls(dims, dtype, "plain")

    @property
    def key(self) -> str:
        """What of this determines values, as text."""
        scaling = [(name, str(np.asarray(value).dtype), np.asarray(value).tolist()) for name, value in self.scaling]
        return repr((self.dims, self.dtype.str, self.kind, [fill.item() for fill in self.fills], scaling))

    def field(self, name: str, space: Space, attrs: Mapping[str, Any]) -> Field:
        """The field that the variable becomes."""
        dims = tuple(dim for dim in space.names if dim in self.dims)
        lasting = str(attrs.get("dtype")).startswith("time")  # of durations; see `times`
        kept = packed({k: value for k, value in attrs.items() if k not in ENCODING or (k == "dtype" and lasting)})
        if self.kind == "text":
            return Field(name, dims, np.dtype(np.uint8), "string", False, kept)
        dtype = self._numbers(np.zeros(0, self.dtype))[0].dtype
        return Field(name, dims, dtype, "fixed", self.kind == "masked", kept)

    def decode(self, raw: Array, dims: Sequence[str]) -> Column:
        """A stored block as a column whose axes are `dims`."""
        if self.kind == "text":
            return Ragged.of([cell if isinstance(cell, bytes) else str(cell).encode() for cell in raw.tolist()])
        values, valid = self._numbers(raw)
        order = [self.dims.index(dim) for dim in dims]
        if order != sorted(order):
            values = np.ascontiguousarray(values.transpose(order))
            valid = None if valid is None else np.ascontiguousarray(valid.transpose(order))
        return Fixed(values, valid)

    def _numbers(self, raw: Array) -> tuple[Array, Array | None]:
        values = np.asarray(raw)
        if values.dtype.byteorder not in "=|" and not values.dtype.isnative:
            values = values.astype(values.dtype.newbyteorder("="))
        if values.dtype != self.dtype:
            same = values.dtype.itemsize == self.dtype.itemsize and values.dtype.kind + self.dtype.kind in (
                "iu",
                "ui",
            )
            values = values.view(self.dtype) if same else values.astype(self.dtype)
        if self.kind == "bool":
            return values.astype(bool), None
        if self.kind == "scaled":
            return self._scaled(values), None
        if self.kind == "plain":
            return values, None
        gaps = np.isin(values, np.array(self.fills, self.dtype))
        if self.kind == "masked":
            return values, None if not gaps.any() else ~gaps
        wide = values.astype(np.float32) if self.dtype == np.float16 else values
        return np.where(gaps, wide.dtype.type(np.nan), wide), None

    def _scaled(self, values: Array) -> Array:
        import xarray as xr  # its rules for the type of the result are long, and must be the same

        attrs = dict(self.scaling)
        if self.fills:
            attrs["_FillValue"] = self.fills[0]
            if len(self.fills) > 1:
                values = np.where(np.isin(values, np.array(self.fills, self.dtype)), self.fills[0], values)
        variable = xr.Variable([f"d{i}" for i in range(values.ndim)], values, attrs)
        decoded: Array = xr.conventions.decode_cf_variable("v", variable, decode_times=False).values
        return decoded


def _fills(dtype: np.dtype[Any], attrs: Mapping[str, Any]) -> tuple[Any, ...]:
    fills: list[Any] = []
    for name in ("_FillValue", "missing_value"):
        if attrs.get(name) is None or isinstance(attrs[name], str | bytes):
            continue
        for value in np.ravel(np.asarray(attrs[name])):
            if value != value or (dtype.kind in "iu" and value != int(value)):
                continue  # NaN is a gap already; of integers nothing equals it
            if dtype.kind in "iu":
                bits = int(value) % 2 ** (8 * dtype.itemsize)
                fills.append(np.array(bits, f"u{dtype.itemsize}").view(dtype)[()])
            elif dtype.kind == "f":
                fills.append(dtype.type(value))
    units, kind = str(attrs.get("units", "")), str(attrs.get("dtype", ""))
    if dtype == np.int64 and (" since " in units or kind.startswith("timedelta64")):
        fills.append(np.int64(np.iinfo(np.int64).min))  # NaT, which xarray writes without a fill value
    return tuple(dict.fromkeys(fills))


@dataclass(frozen=True)
class Variable:
    """What is known of a stored variable when a dataset is opened."""

    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    attrs: Mapping[str, Any]
    chunks: tuple[int, ...] | None
    is_coordinate: bool = False


@dataclass(frozen=True, eq=False)
class Described:
    """A dataset's space, fields and how they are stored: what all readers of CF data have in common."""

    space: Space
    fields: tuple[Field, ...]
    decodings: tuple[tuple[str, Decoding], ...]
    stored: tuple[tuple[str, int], ...]
    stored_bytes: int
    left_out: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, variables: Sequence[Variable], where: str) -> Described:
        """Describe variables; one-dimensional coordinates don't become columns.

        Raises:
            DimensionError: variables that give a dimension different lengths.
        """
        columns = [v for v in variables if not (v.is_coordinate and len(v.dims) <= 1)]
        space = _space(columns, where)
        fields, decodings, left_out = [], [], []
        for v in columns:
            decoding = Decoding.of(v.dims, v.dtype, v.attrs)
            if decoding is None or len(set(v.dims)) < len(v.dims):
                left_out.append((v.name, f"its type is {v.dtype} over {v.dims}"))
            elif decoding.kind == "text" and (len(v.dims) != 1 or v.dtype.kind not in "OUST"):
                left_out.append((v.name, f"text over {len(v.dims)} dimensions has no place in a column"))
            else:
                fields.append(decoding.field(v.name, space, v.attrs))
                decodings.append((v.name, decoding))
        kept = {f.name for f in fields}
        stored, size = _stored([v for v in columns if v.name in kept], fields, space)
        return cls(space, tuple(fields), tuple(decodings), stored, size, tuple(left_out))


def _space(variables: Sequence[Variable], where: str) -> Space:
    lengths: dict[str, int] = {}
    for v in sorted(variables, key=lambda one: -len(one.dims)):
        for dim, length in zip(v.dims, v.shape, strict=True):
            if lengths.setdefault(dim, length) != length:
                raise DimensionError(f"dimension {dim!r} of {where} has the lengths {lengths[dim]} and {length}")
    return Space.of(lengths)


def _stored(
    variables: Sequence[Variable], fields: Sequence[Field], space: Space
) -> tuple[tuple[tuple[str, int], ...], int]:
    """Chunk extents of the variable with the most values, and the decoded bytes of such a chunk."""
    extents = dict.fromkeys(space.names, 1)
    for v in sorted(variables, key=lambda one: int(np.prod(one.shape))):
        if v.chunks:
            extents |= {dim: max(1, min(c, n)) for dim, c, n in zip(v.dims, v.chunks, v.shape, strict=True)}
    size = sum(f.dtype.itemsize * int(np.prod([extents[dim] for dim in f.dims])) for f in fields)
    return tuple(extents.items()), size


def coordinate_of(variable: Variable, raw: Array) -> Coordinate | None:
    """A one-dimensional stored variable as a coordinate, gaps of integers as NaN."""
    decoding = Decoding.of(variable.dims, variable.dtype, variable.attrs)
    lasting = str(variable.attrs.get("dtype")).startswith("time")  # of durations; see `times`
    attrs = {k: value for k, value in variable.attrs.items() if k not in ENCODING or (k == "dtype" and lasting)}
    if decoding is None or len(variable.dims) != 1:
        return None
    if decoding.kind == "text":
        cells = [cell.decode("utf-8", "replace") if isinstance(cell, bytes) else cell for cell in raw.tolist()]
        if not all(isinstance(cell, str) for cell in cells):
            return None
        return Coordinate.of_cf(
            variable.dims[0], variable.name, np.array(cells, "U") if cells else np.empty(0, "U1"), attrs
        )
    column = decoding.decode(raw, variable.dims)
    values = column.values if column.valid is None else np.where(column.valid, column.values, np.nan)
    return Coordinate.of_cf(variable.dims[0], variable.name, values, attrs)
