"""Zarr, format 3, as xarray writes it: workers write encoded chunks, the driver the metadata at the end."""

from __future__ import annotations

import base64
import json
import math
import struct
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from importlib import metadata
from typing import Any

import numpy as np

from gridcompute.auxiliary import attributes_of, dims_of, told
from gridcompute.columns import Block, Field, Fixed
from gridcompute.coords import Coordinate
from gridcompute.errors import DimensionError, OutputExistsError, ParameterError, StoreError
from gridcompute.rechunking import chunks_of, grid
from gridcompute.sinks.base import (
    CLAIM,
    Target,
    Written,
    claim,
    commit,
    data_names,
    give_up,
    holds,
    remove_empty_folders,
    require_room,
)
from gridcompute.sources.files import plain_path
from gridcompute.spaces import Region, Space
from gridcompute.store import Store, open_store

RECIPE = "gridcompute_recipe"
"""Attribute of a finished group."""

OLDEST_NUMCODECS = (0, 16)
"""Older ones write blosc chunks whose bytes aren't shuffled by item: 1.6 times larger, 3 times slower to read."""

_CODECS = ("zstd", "lz4", "zlib", "blosclz", "lz4hc")
_BLOSC_LIMIT = 2**31 - 64


@dataclass(frozen=True)
class ZarrSink:
    """A Zarr group at a URL, its chunks those of the plan, compressed by blosc.

    Attributes:
        url: a folder, or any URL that `open_store` takes.
        compressor: blosc's: zstd, lz4, lz4hc, zlib or blosclz. lz4 is 5 times faster to write and 2 to 3 times to read
            than zstd at its level 3, on climate data, and 5 to 30 % larger.
        level: of compression, 0 to 9.
        chunks: extents of chunks by dimension, -1 for a whole one; dimensions that aren't named are cut so that a chunk
            has about `chunk_bytes`. Without any, chunks are those of the plan.
        chunk_bytes: such a chunk's uncompressed bytes at most; 0 for 32 MiB.
        storage_options: of the store.

    Raises:
        ParameterError: an unknown compressor, level or extent; a numcodecs that is too old.
    """

    url: str
    compressor: str = "zstd"
    level: int = 3
    chunks: Mapping[str, int] | None = None
    chunk_bytes: int = 0
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        require_numcodecs()
        object.__setattr__(self, "url", plain_path(self.url))  # workers have other current folders
        if self.compressor not in _CODECS or not 0 <= self.level <= 9:
            raise ParameterError(
                f"no blosc compressor {self.compressor!r} at level {self.level}",
                hint=f"choose from {', '.join(_CODECS)}, 0 to 9",
            )
        if self.chunks is None and self.chunk_bytes:
            object.__setattr__(self, "chunks", {})
        asked = {} if self.chunks is None else self.chunks
        wrong = not isinstance(asked, Mapping) or [
            name for name, n in asked.items() if not isinstance(n, int) or isinstance(n, bool) or n == 0 or n < -1]
        if wrong or self.chunk_bytes < 0:
            raise ParameterError(f"chunks can't be {asked!r} of {self.chunk_bytes} bytes",
                                 hint='name dimensions with their extents, -1 for all: {"time": -1, "lat": 90}')

    @property
    def key(self) -> object:
        """See `Sink`."""
        own = () if self.chunks is None else (sorted(self.chunks.items()), self.chunk_bytes)
        return ("zarr", 3, "blosc", self.compressor, self.level, *own)

    def grid(self, space: Space, fields: Sequence[Field]) -> tuple[int, ...] | None:
        """Extents of the chunks that were asked for; None where they are those of the plan.

        Raises:
            ParameterError: a dimension that isn't there.
        """
        if self.chunks is None:
            return None
        return grid(self.chunks, space, [(f.dims, f.dtype.itemsize) for f in fields], self.chunk_bytes)

    def output(
        self, space: Space, fields: Sequence[Field], coords: Sequence[Coordinate], extents: Sequence[int],
        recipe: str, attrs: tuple[tuple[str, str], ...] = (),
    ) -> ZarrOutput:  # fmt: skip
        """See `Sink`.

        Raises:
            ParameterError: text or lists, or a name that stands for a column and a coordinate.
            DimensionError: an unknown length.
        """
        if not space.known:
            raise DimensionError(
                f"{self.url}: Zarr needs all lengths, but they are {space}",
                hint="write Parquet: it takes as many rows as come",
            )
        names = [f.name for f in fields]
        names += [c.name for c in told(coords, names, dict(space.dims))]
        for name in names:
            if names.count(name) > 1 or "/" in name or not name or name.startswith((".", "__")):
                raise ParameterError(f"{self.url}: {name!r} can't name one array", hint="rename the column")
        lengths = dict(zip(space.names, self.grid(space, fields) or extents, strict=True))
        for f in fields:
            if f.ragged:
                raise ParameterError(f"column {f.name!r} holds {f.kind}s, which Zarr can't", hint="write Parquet")
            if math.prod(lengths[dim] for dim in f.dims) * f.dtype.itemsize > _BLOSC_LIMIT:
                raise ParameterError(
                    f"a chunk of column {f.name!r} is above blosc's limit of 2 GiB",
                    hint="keep fewer dimensions whole",
                )
        target = Target(space, tuple(fields), tuple(coords), tuple(max(1, e) for e in extents), recipe, attrs)
        return ZarrOutput(self, target)

    def prepare(
        self, space: Space, fields: Sequence[Field], coords: Sequence[Coordinate], extents: Sequence[int],
        recipe: str, *, resume: bool = False, attrs: tuple[tuple[str, str], ...] = (),
    ) -> ZarrOutput:  # fmt: skip
        """See `Sink`."""
        output = self.output(space, fields, coords, extents, recipe, attrs)
        finished = output.finished
        if finished is None and not resume:
            require_room(output.store, output.target)
        claim(output.store, recipe, finished, resume=resume)
        return output


@dataclass(frozen=True, eq=False)
class ZarrOutput:
    """A prepared Zarr group; see `Output`."""

    sink: ZarrSink
    target: Target

    @property
    def url(self) -> str:
        """See `Output`."""
        return self.sink.url

    @property
    def store(self) -> Store:
        """The store below the output's URL."""
        return _store(self.sink)

    @property
    def finished(self) -> str | None:
        """Recipe of the finished group that is there; empty for one of another origin."""
        try:
            attributes = json.loads(self.store.get("zarr.json"))["attributes"]
            return str(attributes.get(RECIPE, ""))
        except FileNotFoundError:
            return "" if self.store.exists(".zgroup") or self.store.exists(".zarray") else None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return ""

    def write_chunk(
        self, block: Block, region: Region, position: Sequence[int], *, replace: bool = False, dry: bool = False
    ) -> list[Written]:
        """See `Output`: one file per column; a column without some dimension is written by its first chunk there."""
        target, store = self.target, self.store
        target.require_chunk(region, position)
        places = dict(zip(target.space.names, position, strict=True))
        written = []
        for f in target.fields:
            if any(place for name, place in places.items() if name not in f.dims):
                continue
            column = block[f.name]
            assert isinstance(column, Fixed)
            values, where = _stored(f, column, self.url), dict(zip(target.space.names, region.bounds, strict=True))
            for place, box in chunks_of([where[dim] for dim in f.dims], [self.grid[dim] for dim in f.dims]):
                data = self._encoded(f, values[box])
                written.append(commit(store, "/".join([f.name, "c", *map(str, place)]), data, replace=replace, dry=dry))
        return written

    @cached_property
    def grid(self) -> dict[str, int]:
        """Extents of the stored chunks: those asked for, else those of the plan."""
        space = self.target.space
        found = self.sink.grid(space, self.target.fields) or self.target.extents
        return {name: max(1, min(extent, length or 0))
                for (name, length), extent in zip(space.dims, found, strict=True)}

    def _encoded(self, f: Field, values: Any) -> bytes:
        """A chunk's bytes, as zarr-python makes them: filled up where a dimension ends, little-endian, compressed."""
        import zarr.codecs  # noqa: F401  # it tells Blosc to leave threads alone: they would give other bytes
        from numcodecs.blosc import Blosc

        dtype, fill, _ = _encoding(f)
        shape = tuple(self.grid[dim] for dim in f.dims)
        if np.shape(values) != shape:
            whole = np.full(shape, fill, dtype)
            whole[tuple(map(slice, np.shape(values)))] = values
            values = whole
        plain = np.ascontiguousarray(values, dtype.newbyteorder("<"))
        codec = Blosc(self.sink.compressor, self.sink.level, Blosc.BITSHUFFLE if dtype.itemsize == 1 else Blosc.SHUFFLE,
                      typesize=dtype.itemsize)
        return bytes(codec.encode(plain))

    def _array(self, store: Any, f: Field) -> Any:
        import zarr

        lengths = {name: n or 0 for name, n in self.target.space.dims}
        dtype, fill, attrs = _encoding(f)
        return zarr.create_array(
            store, name=f.name, shape=tuple(lengths[dim] for dim in f.dims), dtype=dtype,
            chunks=tuple(self.grid[dim] for dim in f.dims),
            compressors=self._codec(dtype), fill_value=fill, attributes=attrs, dimension_names=f.dims, zarr_format=3,
            config={"write_empty_chunks": True},
        )  # fmt: skip

    def _codec(self, dtype: np.dtype[Any]) -> Any:
        from zarr.codecs import BloscCodec

        require_numcodecs()  # a worker may have another than the driver
        cname: Any = self.sink.compressor
        shuffle: Any = "bitshuffle" if dtype.itemsize == 1 else "shuffle"
        return BloscCodec(cname=cname, clevel=self.sink.level, shuffle=shuffle, typesize=dtype.itemsize)

    def _metadata(self) -> dict[str, bytes]:
        """Every file that isn't a column's chunk, in the order they are to be written: the group's own last."""
        import zarr
        from zarr.storage import MemoryStore

        store, target = MemoryStore(), self.target
        attrs: dict[str, Any] = attributes_of(target.coords) | {name: json.loads(text) for name, text in target.attrs}
        coords = told(target.coords, [f.name for f in target.fields], dict(target.space.dims))
        others = sorted(c.name for c in coords if c.name != c.dim)
        if others:
            attrs["coordinates"] = " ".join(others)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # consolidated metadata isn't in the specification yet; xarray reads it
            group = zarr.create_group(store, attributes={**attrs, RECIPE: target.recipe}, zarr_format=3)
            for f in target.fields:
                self._array(store, f)
            for c in coords:
                text = c.values.dtype.kind == "U"
                array = group.create_array(
                    c.name, shape=c.values.shape, dtype="str" if text else c.values.dtype,
                    dimension_names=dims_of(c), chunks=tuple(max(1, n) for n in c.values.shape),
                    attributes=_coordinate_attrs(c), config={"write_empty_chunks": True},
                    compressors="auto" if text else self._codec(c.values.dtype),
                )  # fmt: skip
                if len(c):
                    array[...] = c.values.astype(object) if text else c.values
            zarr.consolidate_metadata(store)
        files = {key: bytes(value.to_bytes()) for key, value in store._store_dict.items()}
        return {key: files[key] for key in sorted(files, key=lambda key: (key == "zarr.json", key))}

    def finalize(self, written: Iterable[Written]) -> None:
        """See `Output`.

        Raises:
            StoreError: fewer files were written than the arrays have chunks.
            OutputExistsError: another recipe's group is there by now.
        """
        expected = self.chunk_files
        if (count := len({one.path for one in written})) != expected:
            raise StoreError(
                f"{self.url} has {count} of {expected} chunk files, so it isn't finished",
                hint="resume the run",
            )
        store, finished = self.store, self.finished
        if finished is not None and finished != self.target.recipe:
            raise OutputExistsError(f"{self.url} has become another dataset meanwhile", hint="write elsewhere")
        for path, data in self._metadata().items():
            store.put(path, data)
        store.delete(CLAIM)

    @property
    def chunk_files(self) -> int:
        """Files that all `write_chunk` together give."""
        counts = {name: -(-(length or 0) // self.grid[name]) for name, length in self.target.space.dims}
        return sum(math.prod(counts[dim] for dim in f.dims) for f in self.target.fields)

    @property
    def complete(self) -> bool:
        """See `Output`: the metadata is written last, so it is enough that no chunk's file has gone since."""
        if self.finished != self.target.recipe:
            return False
        store, names = self.store, [f.name for f in self.target.fields]
        return self.chunk_files == sum(found.startswith(f"{name}/c") for name in names for found in store.list(name))

    def give_up(self) -> bool:
        """See `Output`."""
        return give_up(self.store)

    def verify(self, written: Written) -> bool:
        """See `Output`."""
        return holds(self.store, written)

    def discard(self) -> None:
        """See `Output`: the metadata first, so that no half of a dataset is ever seen."""
        store = self.store
        for name in ["zarr.json", *data_names(store), CLAIM]:
            store.delete(name)
        remove_empty_folders(store)


@lru_cache(maxsize=1)
def require_numcodecs() -> None:
    """Refuse a numcodecs that is older than `OLDEST_NUMCODECS` (ParameterError)."""
    found = metadata.version("numcodecs")
    numbers = tuple(int(part) for part in found.split(".")[:2] if part.isdigit())
    if numbers < OLDEST_NUMCODECS:
        raise ParameterError(f"numcodecs {found} is installed, which writes blosc chunks without shuffling their bytes",
                             hint="install numcodecs >= 0.16 on every node")


def _store(sink: Any) -> Store:
    local = "://" not in sink.url
    return open_store(sink.url, **{**({"private": False} if local else {}), **sink.storage_options})


def _encoding(f: Field) -> tuple[np.dtype[Any], Any, dict[str, Any]]:
    """Stored type, fill value and attributes of a column; xarray's way of writing gaps."""
    attrs: dict[str, Any] = {name: json.loads(text) for name, text in f.attrs}
    if f.dtype.kind == "f":
        attrs["_FillValue"] = base64.standard_b64encode(struct.pack("<d", np.nan)).decode()
        return f.dtype, float("nan"), attrs
    if not f.nullable:
        return f.dtype, False if f.dtype.kind == "b" else 0, attrs
    if f.dtype.kind == "b":
        return (
            np.dtype(np.int8),
            -1,
            {**attrs, "_FillValue": -1, "flag_values": [0, 1], "flag_meanings": "false true"},
        )
    gap = _gap(f)
    return f.dtype, gap, {**attrs, "_FillValue": gap}


def _gap(f: Field) -> int:
    limits = np.iinfo(f.dtype)
    return int(limits.min if f.dtype.kind == "i" else limits.max)


def _stored(f: Field, column: Fixed, url: str) -> Any:
    values, valid = column.values, column.valid
    if f.dtype.kind == "f":
        return values if valid is None else np.where(valid, values, values.dtype.type(np.nan))
    if not f.nullable:
        if valid is not None and not valid.all():
            raise ParameterError(f"column {f.name!r} has nulls, but wasn't declared to", hint="report this as a bug")
        return values
    full = np.ones(values.shape, bool) if valid is None else valid
    if f.dtype.kind == "b":
        return np.where(full, values.astype(np.int8), np.int8(-1))
    gap = f.dtype.type(_gap(f))
    if (values[full] == gap).any():
        raise ParameterError(
            f"{url}: column {f.name!r} holds the value {gap}, which marks its gaps",
            hint="convert it to a wider type, or write Parquet",
        )
    return np.where(full, values, gap)


def _coordinate_attrs(c: Coordinate) -> dict[str, Any]:
    attrs: dict[str, Any] = {name: json.loads(text) for name, text in c.attrs}
    return {**attrs, "units": c.unit, "calendar": c.calendar} if c.is_time else attrs
