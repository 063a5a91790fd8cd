"""Results of a finished run, read when asked for: as NumPy, Arrow, pandas or xarray."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gridcompute.auxiliary import attributes_of, told
from gridcompute.columns import Block, Field, Fixed, Ragged
from gridcompute.coords import Coordinate
from gridcompute.errors import ParameterError
from gridcompute.spaces import Space
from gridcompute.stored import StoredSource
from gridcompute.times import TimeType

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    import xarray as xr


class Result:
    """Columns of a finished run.

    Args:
        names: the columns.
        source: their committed chunks; None where a sink wrote them.
        coords: coordinates of their dimensions.
        url: what the sink wrote, empty where the work store has them.
    """

    def __init__(
        self, names: Sequence[str], source: StoredSource | None, coords: Sequence[Coordinate], url: str = ""
    ) -> None:
        self.names, self._source, self.url = list(names), source, url
        self.coords = tuple(coords)

    def __repr__(self) -> str:
        return f"<Result {', '.join(self.names)}{f' in {self.url}' if self.url else ''}>"

    @property
    def fields(self) -> tuple[Field, ...]:
        """What each column is (results in the work store)."""
        return tuple(f for f in self._stored().fields if f.name in self.names)

    def _stored(self) -> StoredSource:
        if self._source is None:
            raise ParameterError(
                f"this result was written to {self.url}", hint="to_xarray, to_arrow and to_pandas read it from there"
            )
        return self._source

    def block(self) -> Block:
        """All cells in memory, as the framework holds them."""
        source = self._stored()
        return source.read(source.space.whole(), [f.name for f in self.fields])

    def to_numpy(self) -> Any:
        """The one column as an array over its dimensions, times as datetime64 or timedelta64.

        Nulls of floats are NaN, of times NaT, other nulls come as a masked array.

        Raises:
            ParameterError: several columns, or strings or lists.
        """
        if self._source is None:
            values = self.to_xarray() if self.url.rstrip("/").endswith(".zarr") else self.to_pandas()
            return np.asarray(values[self.names[0]])
        if len(self.names) != 1:
            raise ParameterError(
                f"to_numpy needs one column, but there are {', '.join(self.names)}",
                hint=f"run[{self.names[0]!r}].to_numpy()",
            )
        column = self.block()[self.names[0]]
        if isinstance(column, Ragged):
            raise ParameterError(f"column {self.names[0]!r} has cells of variable length", hint="use to_arrow")
        return _plain(column, self.fields[0])

    def to_arrow(self) -> pa.Table:
        """Columns over one dimension as an Arrow table; columns without dimensions as its one row.

        Times are Arrow's own, see `gridcompute.times`.
        """
        if self._source is None:
            from gridcompute.sinks.results import open_result

            return open_result(self.url).to_table().select(self.names)
        block = self.block()
        if len(self._stored().space.names) > 1:
            raise ParameterError("a table has one dimension", hint="use to_xarray")
        return _table(block, self.fields, self._stored().space)

    def to_pandas(self) -> pd.DataFrame:
        """Columns over one dimension as a pandas frame."""
        return self.to_arrow().to_pandas()

    def to_xarray(self) -> xr.Dataset:
        """The columns with their coordinates, read from the store when they are indexed; nulls as NaN or NaT.

        Raises:
            ParameterError: strings or lists.
        """
        import xarray as xr

        dataset: xr.Dataset
        if self._source is None:
            from gridcompute.sinks.results import open_result

            dataset = open_result(self.url)
            return dataset.drop_vars([name for name in dataset.data_vars if name not in self.names])
        from gridcompute.lazyarrays import attributes, lazy

        variables = {}
        for f in self.fields:
            if f.ragged:
                raise ParameterError(f"column {f.name!r} has cells of variable length", hint="use to_arrow")
            variables[f.name] = xr.Variable(f.dims, lazy(self._source, f), attributes(f))
        lengths = dict(self._stored().space.only(*{d for f in self.fields for d in f.dims}).dims)
        coords = {c.name: c.to_xarray() for c in told(self.coords, self.names, lengths)}
        for coordinate in coords.values():
            coordinate.encoding.setdefault("_FillValue", None)  # CF wants none in coordinates
        return xr.Dataset(variables, coords, attributes_of(self.coords))


def _plain(column: Fixed, field: Field) -> Any:
    if (times := TimeType.of(field)) is not None:
        return times.to_numpy(column.values, column.valid, field.name)
    if column.valid is None:
        return column.values
    if column.values.dtype.kind == "f":
        return np.where(column.valid, column.values, np.nan)
    return np.ma.MaskedArray(column.values, ~column.valid)


def _table(block: Block, fields: Sequence[Field], space: Space) -> pa.Table:
    import pyarrow as pa

    from gridcompute.arrowcolumns import to_arrow
    from gridcompute.tabular import array_of

    rows = space.names[:1]
    extents = dict.fromkeys(rows, block.rows)
    return pa.table({
        f.name: to_arrow(f, block[f.name], rows, extents) if TimeType.of(f) is None else array_of(block[f.name], f)
        for f in fields
    })
