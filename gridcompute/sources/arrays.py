"""Values that are in memory already: NumPy arrays, Arrow tables, pandas frames, xarray datasets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gridcompute.columns import Block, Column, Field, Fixed, Ragged, field_region
from gridcompute.coords import Coordinate, packed
from gridcompute.errors import DimensionError, ParameterError
from gridcompute.keys import digest
from gridcompute.sources.base import chosen, narrowed, require_within
from gridcompute.sources.decoding import ENCODING
from gridcompute.spaces import Region, Space
from gridcompute.tabular import column_of, field_of, leaf, leaves
from gridcompute.times import UNITS, date_attrs, length_attrs


@dataclass(frozen=True, eq=False)
class ArraySource:
    """Columns in memory. Their content is their version: `objects` is a digest of what a region holds.

    Attributes:
        hashed: whether `objects` takes so long that a run asks once for each region.
    """

    space: Space
    fields: tuple[Field, ...]
    columns: Mapping[str, Column]
    coords: tuple[Coordinate, ...] = ()
    together: tuple[tuple[str, int], ...] = ()
    uniform = False
    hashed = True

    @property
    def stored(self) -> tuple[tuple[str, int], ...]:
        """See `Source`."""
        return tuple((name, 1) for name in self.space.names)

    @property
    def stored_bytes(self) -> int:
        """See `Source`."""
        return sum(f.dtype.itemsize for f in self.fields)

    @property
    def decoding(self) -> object:
        """What determines values but for the data, for sources put end to end."""
        return [(f.name, f.dims, f.dtype, f.kind) for f in self.fields]

    @property
    def key(self) -> object:
        """See `Source`: the content counts in `objects`."""
        return ("arrays", self.decoding)

    def objects(self, region: Region) -> tuple[str, ...]:
        """See `Source`: one digest of the values within the region, gaps zeroed."""
        block = self.read(region, [f.name for f in self.fields])
        content: list[Any] = []
        for f in self.fields:
            column = block[f.name]
            if isinstance(column, Ragged):
                values = column.values[column.offsets[0] : column.offsets[-1]]
                content.append((np.diff(column.offsets), values, column.valid))
            else:
                content.append((_zeroed(column), column.valid))
        return (digest(content),)

    def read(self, region: Region, names: Sequence[str]) -> Block:
        """See `Source`: views, not copies."""
        require_within(self.space, region)
        columns: dict[str, Column] = {}
        for f in chosen(self.fields, names, "these arrays"):
            column, part = self.columns[f.name], field_region(self.space, region, f.dims)
            if isinstance(column, Ragged):
                columns[f.name] = column.sliced(*part.bounds[0])
            else:
                valid = None if column.valid is None else column.valid[part.slices]
                columns[f.name] = Fixed(column.values[part.slices], valid)
        return Block(region, columns, region.shape[0] if region.bounds else 1)

    def select(self, names: Sequence[str]) -> ArraySource:
        """See `Source`."""
        fields = chosen(self.fields, names, "these arrays")
        space, coords = narrowed(self.space, self.coords, fields)
        return ArraySource(space, fields, {name: self.columns[name] for name in names}, coords, self.together)

    def __str__(self) -> str:
        return "arrays in memory"


def _zeroed(column: Fixed) -> Any:
    values = column.values
    if column.valid is not None:
        values = np.where(column.valid, values, values.dtype.type(0))
    if values.dtype.kind == "f" and values.size and np.isnan(values.min()):
        values = np.where(np.isnan(values), values.dtype.type(np.nan), values)
    return values


def from_arrays(data: Any, dims: Any = None, coords: Mapping[str, Any] | Sequence[Coordinate] = ()) -> ArraySource:
    """Columns from values in memory.

    Args:
        data: a mapping of name to NumPy array (masked ones too), list of text or of arrays, Arrow array or
            `Ragged`; or a NumPy array, Arrow table, pandas DataFrame, xarray Dataset or DataArray.
        dims: names of the dimensions: one tuple for all, or a mapping of column name to tuple. Optional
            where all columns are one-dimensional (then "row").
        coords: coordinates, or a mapping of dimension name to labels.

    Raises:
        DimensionError: dims that don't fit the arrays, or lengths that disagree.
        ParameterError: values of a type that has no place in a column.
    """
    if hasattr(data, "data_vars") or (hasattr(data, "coords") and hasattr(data, "to_dataset")):
        return from_xarray(data)
    if hasattr(data, "schema") and hasattr(data, "num_rows"):
        return from_arrow(data, _row(dims))
    if hasattr(data, "iloc"):
        import pyarrow as pa

        require_different(map(str, data.columns), "the frame")
        return from_arrow(pa.Table.from_pandas(data, preserve_index=None), _row(dims))
    given = {"values": data} if isinstance(data, np.ndarray) else data
    if not isinstance(given, Mapping):
        raise ParameterError(f"from_arrays takes a mapping of name to array, not {type(data).__name__}")
    if not given:
        raise ParameterError("from_arrays got no columns", hint="give a mapping of name to array")
    built = {name: _column(name, value, _dims_of(name, value, dims)) for name, value in given.items()}
    fields = tuple(f for f, _ in built.values())
    columns = {name: column for name, (_, column) in built.items()}
    space, ordered = _arranged(fields, columns)
    return ArraySource(space, ordered[0], ordered[1], _coordinates(space, coords))


def _row(dims: Any) -> str:
    names = (dims,) if isinstance(dims, str) else tuple(dims or ("row",))
    if len(names) != 1:
        raise DimensionError(f"a table has one dimension, not {names}")
    return str(names[0])


def _dims_of(name: str, value: Any, dims: Any) -> tuple[str, ...]:
    given = dims.get(name) if isinstance(dims, Mapping) else dims
    named = isinstance(given, Sequence) and all(isinstance(dim, str) for dim in given)
    if given is not None and not named:
        raise DimensionError(f"column {name!r}: dims are {given!r}", hint="names of dimensions: ('time', 'lat')")
    ndim = value.ndim if isinstance(value, np.ndarray) else 1
    if given is None and ndim == 1:
        return ("row",)
    names = (given,) if isinstance(given, str) else tuple(given or ())
    if len(names) != ndim or len(set(names)) != ndim:
        raise DimensionError(
            f"column {name!r} has {ndim} dimensions, but dims names {names}",
            hint="name each dimension: dims=('time', 'lat', 'lon')",
        )
    return names


def _column(name: str, value: Any, dims: tuple[str, ...]) -> tuple[Field, Column]:
    if isinstance(value, Ragged):
        return Field(name, dims, value.values.dtype, "list", value.valid is not None), value
    if hasattr(value, "type") and hasattr(value, "null_count"):
        import pyarrow as pa

        array = leaf(pa.table({name: value}), (name,))
        field = field_of(name, array.type, dims[0], array.null_count > 0)
        return field, column_of(array, field)
    if not isinstance(value, np.ndarray) or value.dtype.kind in "OUT":
        if not isinstance(value, Iterable):
            raise ParameterError(f"column {name!r} is {value!r:.60}, a {type(value).__name__}", hint="give an array")
        return _cells(name, np.asarray(value, object).tolist() if isinstance(value, np.ndarray) else list(value), dims)
    mask = getattr(value, "mask", np.ma.nomask)
    valid: Any = None if mask is np.ma.nomask else ~mask
    values = np.asarray(value)
    attrs: tuple[tuple[str, str], ...] = ()
    if values.dtype.kind in "mM":
        unit, gaps = np.datetime_data(values.dtype)[0], np.isnat(values)
        if unit not in UNITS:
            raise ParameterError(f"column {name!r} has the type {values.dtype}", hint="give times in seconds or days")
        if gaps.any():
            valid = ~gaps if valid is None else valid & ~gaps
        attrs = date_attrs(unit) if values.dtype.kind == "M" else length_attrs(unit)
        values = values.astype(f"{values.dtype.kind}8[{unit}]").astype(np.int64)  # a type may count, say, by 25 s
    if values.dtype.kind not in "biuf":
        raise ParameterError(f"column {name!r} has the type {values.dtype}", hint="give numbers, booleans or text")
    values = values if values.dtype.isnative else values.astype(values.dtype.newbyteorder("="))
    return Field(name, dims, values.dtype, "fixed", valid is not None, attrs), Fixed(values, valid)


def _cells(name: str, cells: list[Any], dims: tuple[str, ...]) -> tuple[Field, Column]:
    """Separate cells: text, or arrays of numbers, None for a null."""
    full = [cell for cell in cells if cell is not None]
    if len(dims) != 1:
        raise DimensionError(f"column {name!r} of text or lists has one dimension, not {dims}")
    if all(isinstance(cell, str | bytes) for cell in full):
        try:
            raw = [cell.encode() if isinstance(cell, str) else cell for cell in cells]
        except UnicodeEncodeError as error:
            raise ParameterError(f"column {name!r} has a text that isn't valid Unicode: {error.reason}") from None
        return Field(name, dims, np.dtype(np.uint8), "string", len(full) < len(cells)), Ragged.of(raw)
    try:
        arrays = [None if cell is None else np.asarray(cell) for cell in cells]
        if full and all(array is None or array.ndim == 0 for array in arrays):
            scalars = np.asarray(full)
            if scalars.dtype.kind in "biufmM":
                return _column(name, _with_gaps(cells, scalars), dims)
            arrays = [np.empty(0, object)]
        if any(array is not None and array.ndim != 1 for array in arrays):
            arrays = [np.empty(0, object)]
        dtype = np.result_type(*[array.dtype for array in arrays if array is not None and array.size])
    except (ValueError, TypeError):
        dtype = np.dtype(object)
    if dtype.kind not in "biuf":
        raise ParameterError(f"column {name!r} has cells of mixed or unfit types", hint="give numbers, text or lists")
    return Field(name, dims, dtype, "list", len(full) < len(cells)), Ragged.of(arrays, dtype)


def _with_gaps(cells: Sequence[Any], scalars: Any) -> Any:
    """Scalars between the Nones among some cells."""
    if len(scalars) == len(cells):
        return scalars
    mask = np.array([cell is None for cell in cells])
    values = np.zeros(len(cells), scalars.dtype)
    values[~mask] = scalars
    return np.ma.MaskedArray(values, mask)


def require_different(names: Iterable[str], where: str) -> None:
    """Refuse a name that stands twice (ParameterError)."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ParameterError(f"{where} has two columns {name!r}", hint="rename one")
        seen.add(name)


def _arranged(
    fields: Sequence[Field], columns: Mapping[str, Column]
) -> tuple[Space, tuple[tuple[Field, ...], dict[str, Column]]]:
    """The common space, and the columns with their axes in its order."""
    lengths: dict[str, int] = {}
    for f in sorted(fields, key=lambda one: -len(one.dims)):
        column = columns[f.name]
        shape = (column.cells,) if isinstance(column, Ragged) else column.values.shape
        for dim, length in zip(f.dims, shape, strict=True):
            if lengths.setdefault(dim, length) != length:
                raise DimensionError(f"column {f.name!r} has length {length} along {dim!r}, others {lengths[dim]}")
    placed: list[Field] = []
    turned: dict[str, Column] = {}
    for f in fields:
        column = columns[f.name]
        dims = tuple(dim for dim in lengths if dim in f.dims)
        if isinstance(column, Fixed) and dims != f.dims:
            order = [f.dims.index(dim) for dim in dims]
            valid = None if column.valid is None else column.valid.transpose(order)
            column = Fixed(column.values.transpose(order), valid)
        placed.append(Field(f.name, dims, f.dtype, f.kind, f.nullable, f.attrs))
        turned[f.name] = column
    return Space.of(lengths), (tuple(placed), turned)


def _coordinates(space: Space, coords: Mapping[str, Any] | Sequence[Coordinate]) -> tuple[Coordinate, ...]:
    listed: list[Coordinate] = []
    if not isinstance(coords, Mapping):
        if not isinstance(coords, Sequence) or not all(isinstance(c, Coordinate) for c in coords):
            raise ParameterError(f"coords are {coords!r:.60}", hint="give a mapping of dimension to labels")
        coords = {c.name: c for c in coords}
    for name, labels in coords.items():
        if isinstance(labels, Coordinate):
            listed.append(labels)
            continue
        import xarray as xr

        try:
            made = Coordinate.from_xarray(name, xr.Variable((name,), labels))
        except (ValueError, TypeError, OverflowError) as error:
            raise ParameterError(f"coordinate {name!r}: {error}", hint="give one label a position") from None
        if made is None:
            raise ParameterError(f"coordinate {name!r} has labels of a type that can't be used")
        listed.append(made)
    for c in listed:
        if c.dim not in space or len(c) != space[c.dim]:
            raise DimensionError(f"coordinate {c.name!r} has {len(c)} labels for dimension {c.dim!r} of {space}")
    return tuple(listed)


def from_arrow(table: Any, dim: str = "row") -> ArraySource:
    """Columns of an Arrow table (or record batch), sharing its buffers.

    Raises:
        ParameterError: a column of a type that has no place here.
    """
    fields, columns = [], {}
    require_different([name for name, *_ in leaves(table.schema)], "the table")
    for name, path, kind, nullable in leaves(table.schema):
        field = field_of(name, kind, dim, nullable)
        array = leaf(table, path)
        field = Field(name, field.dims, field.dtype, field.kind, array.null_count > 0, field.attrs)
        fields.append(field)
        columns[name] = column_of(array, field, f"column {name!r}")
    return ArraySource(Space.of({dim: table.num_rows}), tuple(fields), columns)


def from_xarray(data: Any) -> ArraySource:
    """Columns and coordinates of an xarray Dataset or DataArray, read into memory.

    Raises:
        ParameterError: a variable of a type that has no place in a column.
    """
    dataset = data if hasattr(data, "data_vars") else data.to_dataset(name=data.name or "values")
    coords = [Coordinate.from_xarray(str(name), v) for name, v in dataset.coords.items() if v.ndim == 1]
    fields, columns = [], {}
    for name, variable in {
        **dataset.data_vars,
        **{n: v for n, v in dataset.coords.items() if v.ndim > 1},
    }.items():
        field, column = _column(str(name), np.asarray(variable.values), tuple(map(str, variable.dims)))
        kept = {key: value for key, value in variable.attrs.items() if key not in ENCODING}
        fields.append(
            Field(field.name, field.dims, field.dtype, field.kind, field.nullable, field.attrs or packed(kept))
        )
        columns[field.name] = column
    space, ordered = _arranged(fields, columns)
    kept_coords = [c for c in coords if c is not None and c.dim in space]
    return ArraySource(space, ordered[0], ordered[1], _coordinates(space, kept_coords))
