"""A variable that xarray has not read yet: by region in the workers, through its backend or its Dask graph."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gridcompute.columns import Block, Field, Fixed
from gridcompute.coords import Coordinate
from gridcompute.errors import GridError
from gridcompute.secrecy import clean
from gridcompute.sources.arrays import _column
from gridcompute.sources.base import chosen, require_within
from gridcompute.sources.files import broken
from gridcompute.sources.xarrays import LIBRARY
from gridcompute.spaces import Region, Space

_WRAPPED = ("MemoryCachedArray", "CopyOnWriteArray", "ImplicitToExplicitIndexingAdapter")
_DECODING = "_ElementwiseFunctionArray"


@dataclass(frozen=True, eq=False)
class LazySource:
    """One variable of an xarray dataset.

    Attributes:
        variable: xarray's, not in memory; it pickles as files' names and how they are read, or as a Dask graph.
        version: what tells its values from others'.
        space: its dimensions in the order of the column's axes.
        stored: extents of its chunks.
        where: what messages call it.
    """

    variable: Any
    version: str
    space: Space
    fields: tuple[Field, ...]
    stored: tuple[tuple[str, int], ...]
    where: str
    coords: tuple[Coordinate, ...] = ()
    uniform = True

    @property
    def stored_bytes(self) -> int:
        """See `Source`."""
        return int(np.prod([n for _, n in self.stored], dtype=np.int64)) * self.fields[0].dtype.itemsize

    @property
    def decoding(self) -> object:
        """What determines values but for the data."""
        return [(f.name, f.dims, f.dtype, f.nullable) for f in self.fields]

    @property
    def key(self) -> object:
        """See `Source`: the content counts in `objects`."""
        return ("xarray", self.decoding)

    def objects(self, region: Region) -> tuple[str, ...]:
        """See `Source`."""
        return (self.version,)

    def read(self, region: Region, names: Sequence[str]) -> Block:
        """See `Source`."""
        import dask

        require_within(self.space, region)
        (f,) = chosen(self.fields, names, self.where)
        spans, dims = dict(zip(self.space.names, region.slices, strict=True)), tuple(map(str, self.variable.dims))
        try:
            with LIBRARY, dask.config.set(scheduler="synchronous"):  # workers are the only ones to run side by side
                raw = np.asarray(self.variable[tuple(spans[dim] for dim in dims)].values)
        except GridError:
            raise
        except Exception as error:  # each library behind xarray raises errors of its own
            raise broken(self.where, f"variable {f.name!r}, region {region}", error) from clean(error)
        expected = tuple(spans[dim].stop - spans[dim].start for dim in dims)
        found, column = _column(f.name, raw, dims)
        if raw.shape != expected or found.dtype != f.dtype or not isinstance(column, Fixed):
            what = f"gives {raw.dtype} of shape {raw.shape}, not {f.dtype} of {expected}"
            raise broken(self.where, f"variable {f.name!r}, region {region}", what)
        order = [dims.index(dim) for dim in f.dims]
        valid = None if column.valid is None else column.valid.transpose(order)
        turned = Fixed(np.ascontiguousarray(column.values.transpose(order)), valid)
        return Block(region, {f.name: turned}, region.shape[0] if region.bounds else 1)

    def select(self, names: Sequence[str]) -> LazySource:
        """See `Source`."""
        return replace(self, fields=chosen(self.fields, names, self.where))

    def __str__(self) -> str:
        return self.where


@dataclass(frozen=True)
class Origin:
    """Where an unread variable comes from, as far as xarray's layers show it.

    Attributes:
        backend: xarray's array of the file.
        key: an index a dimension of the file: a slice, a number or positions.
        steps: names of what is done to stored values.
    """

    backend: Any
    key: tuple[Any, ...]
    steps: frozenset[str]


def origin_of(variable: Any) -> Origin | None:
    """The origin of a variable of which nothing was loaded or computed since a file was opened; else None."""
    data = variable._data
    if hasattr(data, "dask"):
        data = _opened(data)
    steps, name = [], type(data).__name__
    while name in _WRAPPED or name == _DECODING:
        if name == _DECODING:
            function = data.func.func if isinstance(data.func, functools.partial) else data.func
            steps.append(str(getattr(function, "__name__", "?")))
        data = data.array
        name = type(data).__name__
    if name != "LazilyIndexedArray" or not hasattr(data.array, "get_duck_array"):
        return None
    return Origin(data.array, tuple(data.key.tuple), frozenset(steps))


def _opened(array: Any) -> Any:
    """What `xr.open_dataset(chunks=...)` made a Dask array of, if nothing was done to it since."""
    first = f"original-{array.name}"
    if not array.name.startswith("open_dataset-") or set(array.dask.layers) != {first, array.name}:
        return None
    node = dict(array.dask.layers[first]).get(first)
    return getattr(node, "value", node)


def version_of(variable: Any, found: Origin | None, stamp: str) -> str:
    """What tells an unread variable's values from others': its Dask graph's name, or its file and what is done to it.

    Args:
        variable: xarray's.
        found: its origin.
        stamp: identity of the file it says it is from; empty where there is none.
    """
    from dask.base import tokenize

    data = variable._data
    if hasattr(data, "dask"):
        return f"dask {data.name} {stamp}"
    inner = found.backend if found else data
    known = {name: str(getattr(inner, name)) for name in ("variable_name", "dtype", "shape") if hasattr(inner, name)}
    own = [type(inner).__name__, known] if "variable_name" in known and stamp else tokenize(inner)
    layers, layer = [], data
    while layer is not inner and hasattr(layer, "array"):
        layers.append((type(layer).__name__, tokenize(getattr(layer, "func", None), getattr(layer, "key", None))))
        layer = layer.array
    group = str(getattr(getattr(inner, "datastore", None), "_group", ""))
    return f"lazy {tokenize(own, layers, group, variable.dims)} {stamp}"


def chunks_of(variable: Any) -> Mapping[str, int]:
    """Extents of a variable's chunks: of its Dask array, else as it is stored."""
    dims = tuple(map(str, variable.dims))
    if variable.chunks:
        return {dim: max(sizes) for dim, sizes in zip(dims, variable.chunks, strict=True)}
    preferred = variable.encoding.get("preferred_chunks") or {}
    if not preferred:
        sizes = variable.encoding.get("chunksizes") or variable.encoding.get("chunks") or ()
        preferred = dict(zip(dims, sizes, strict=False))
    return {dim: max(1, min(int(preferred.get(dim, 1)), n)) for dim, n in zip(dims, variable.shape, strict=True)}
