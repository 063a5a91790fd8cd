"""Committed chunks as lazy xarray arrays: only the chunks that an index touches are read."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from xarray.backends import BackendArray
from xarray.core import indexing

from gridcompute.columns import Field, Fixed
from gridcompute.spaces import Region
from gridcompute.stored import StoredSource
from gridcompute.times import TimeType, time_attrs


class _Stored(BackendArray):
    """One column. Times come decoded, other whole numbers that may be null as float64: as xarray has it."""

    def __init__(self, source: StoredSource, field: Field) -> None:
        self._source, self._field, self._times = source, field, TimeType.of(field)
        lengths = dict(source.space.dims)
        self.shape = tuple(int(lengths[dim] or 0) for dim in field.dims)
        whole = field.nullable and field.dtype.kind in "iub"
        self.dtype = self._times.dtype if self._times else np.dtype(np.float64) if whole else field.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.BASIC, self._read)

    def _read(self, key: tuple[Any, ...]) -> Any:
        bounds: dict[str, tuple[int, int]] = {}
        after: list[slice | int] = []
        for dim, index, length in zip(self._field.dims, key, self.shape, strict=True):
            if isinstance(index, slice):
                found = range(*index.indices(length))
                low = min(found, default=0)
                bounds[dim] = (low, max(found, default=-1) + 1)
                after.append(slice(None, None, found.step))
            else:
                bounds[dim] = (int(index), int(index) + 1)
                after.append(0)
        if any(hi <= lo for lo, hi in bounds.values()):
            return np.empty(self.shape, self.dtype)[key]
        space = self._source.space
        region = Region(tuple(bounds.get(name, (0, 1)) for name in space.names))
        column = self._source.read(region, [self._field.name])[self._field.name]
        assert isinstance(column, Fixed)
        values = column.values
        if self._times is not None:
            values = self._times.to_numpy(values, column.valid, self._field.name)
        elif column.valid is not None:
            values = np.where(column.valid, values if values.dtype.kind in "fc" else values.astype(np.float64), np.nan)
        return values.astype(self.dtype, copy=False)[tuple(after)]


def attributes(field: Field) -> dict[str, Any]:
    """A column's attributes as xarray has them beside its values: those of decoded times are in the type."""
    gone = dict(time_attrs(field)).keys() - {"timezone"} if TimeType.of(field) else set()
    return {name: json.loads(text) for name, text in field.attrs if name not in gone}


def lazy(source: StoredSource, field: Field) -> Any:
    """A column of committed chunks as an array that xarray reads by region."""
    return indexing.LazilyIndexedArray(_Stored(source, field))
