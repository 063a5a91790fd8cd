"""Parquet and Arrow IPC: a folder with one file a chunk, and a manifest that comes last.

On a local disk the parts are written into `<url>.partial-<recipe>` and that folder is renamed at the end, so a
reader sees all or nothing. Object stores can't rename: there the parts are in place at once and only the manifest
tells that they are all there; `open_result` insists on it.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gridcompute.auxiliary import plain
from gridcompute.columns import Block, Column, Field, Fixed, Ragged
from gridcompute.coords import Coordinate
from gridcompute.errors import DimensionError, ParameterError, StoreError
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
from gridcompute.store import LocalStore, Store, open_store
from gridcompute.tabular import array_of, arrow_type
from gridcompute.times import TimeType, time_attrs

MANIFEST = "_manifest.json"
FORMAT = 1


@dataclass(frozen=True)
class _TableSink:
    """A folder of parts at a URL.

    Attributes:
        url: a folder, or any URL that `open_store` takes.
        storage_options: of the store.
    """

    url: str
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    form = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", plain_path(self.url))  # workers have other current folders

    @property
    def key(self) -> object:
        """See `Sink`."""
        return (self.form, FORMAT)

    def store(self, suffix: str = "") -> Store:
        """The store at the output's URL, or beside it."""
        local = "://" not in self.url
        url = self.url.rstrip("/") + suffix
        return open_store(url, **{**({"private": False} if local else {}), **self.storage_options})

    def output(
        self, space: Space, fields: Sequence[Field], coords: Sequence[Coordinate], extents: Sequence[int],
        recipe: str, attrs: tuple[tuple[str, str], ...] = (),
    ) -> TableOutput:  # fmt: skip
        """See `Sink`.

        Raises:
            ParameterError: two columns (coordinates count) of one name.
            DimensionError: an unknown length among several dimensions, but not the first.
        """
        if not space.known and (len(space.dims) > 1 and space.shape[0] is not None):
            raise DimensionError(f"{self.url}: only the first dimension of {space} may have an unknown length")
        target = Target(space, tuple(fields), plain(coords), tuple(max(1, e) for e in extents), recipe, attrs)
        output = TableOutput(self, target)
        names = output.schema.names
        for name in names:
            if names.count(name) > 1:
                raise ParameterError(f"{self.url}: two columns would be called {name!r}", hint="rename one of them")
        return output

    def prepare(
        self, space: Space, fields: Sequence[Field], coords: Sequence[Coordinate], extents: Sequence[int],
        recipe: str, *, resume: bool = False, attrs: tuple[tuple[str, str], ...] = (),
    ) -> TableOutput:  # fmt: skip
        """See `Sink`."""
        output = self.output(space, fields, coords, extents, recipe, attrs)
        final = self.store()
        finished = finished_recipe(final)
        if finished is None and isinstance(final, LocalStore) and not data_names(final):
            if not resume:
                require_room(final, output.target)
            claim(output.store, recipe, None, resume=True)  # the folder's name has the recipe in it
        else:
            claim(final, recipe, finished, resume=resume and not isinstance(final, LocalStore))
        return output


class ParquetSink(_TableSink):
    """Parquet parts, compressed by zstd, with a checksum a page."""

    form = "parquet"


class ArrowSink(_TableSink):
    """Arrow IPC parts, compressed by zstd."""

    form = "arrow"


def finished_recipe(store: Store) -> str | None:
    """Recipe in a finished output's manifest; None where there is none, empty where it can't be read."""
    try:
        manifest = json.loads(store.get(MANIFEST))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError):
        return ""
    return str(manifest.get("recipe", "")) if isinstance(manifest, dict) else ""


@dataclass(frozen=True, eq=False)
class TableOutput:
    """A prepared folder of parts; see `Output`."""

    sink: _TableSink
    target: Target

    @property
    def url(self) -> str:
        """See `Output`."""
        return self.sink.url

    @property
    def store(self) -> Store:
        """Where the parts are now."""
        final = self.sink.store()
        if not isinstance(final, LocalStore) or final.exists(MANIFEST):
            return final
        return self.sink.store(f".partial-{self.target.recipe[:8]}")

    def __getstate__(self) -> dict[str, Any]:
        return {"sink": self.sink, "target": self.target}

    @cached_property
    def _indexed(self) -> tuple[str, ...]:
        """Dimensions without a coordinate of their own, which get their index as a column; not the rows of a table."""
        own = {c.name for c in self.target.coords}
        names = self.target.space.names
        return tuple(name for name in names if name not in own) if len(names) > 1 else ()

    @cached_property
    def schema(self) -> pa.Schema:
        """Columns of every part: indices and coordinates of the dimensions, then the fields."""
        columns = [pa.field(name, pa.int64(), False) for name in self._indexed]
        for c in self.target.coords:
            labels = pa.array([], _label_type(c))
            times = {"units": json.dumps(c.unit), "calendar": json.dumps(c.calendar)}
            columns.append(
                pa.field(c.name, labels.type, False, metadata={**dict(c.attrs), **(times if c.is_time else {})})
            )
        columns += [
            pa.field(f.name, arrow_type(f), f.nullable, metadata=_metadata(f)) for f in self.target.fields
        ]
        return pa.schema(columns)

    def write_chunk(
        self, block: Block, region: Region, position: Sequence[int], *, replace: bool = False, dry: bool = False
    ) -> list[Written]:
        """See `Output`: one file, one row per cell."""
        self.target.require_chunk(region, position)
        table = self._table(block, region)
        path = f"part-{self.target.number(position):05d}.{self.sink.form}"
        return [commit(self.store, path, self._encoded(table), replace=replace, dry=dry, rows=table.num_rows)]

    def _table(self, block: Block, region: Region) -> pa.Table:
        space = self.target.space
        shape = tuple(
            block.rows if n is None else hi - lo for (_, n), (lo, hi) in zip(space.dims, region.bounds, strict=True)
        )
        spans = dict(zip(space.names, region.bounds, strict=True))
        arrays = []
        for name in self._indexed:
            lo = spans[name][0]
            length = shape[space.names.index(name)]
            arrays.append(pa.array(_spread(np.arange(lo, lo + length), (name,), space.names, shape)))
        for c in self.target.coords:
            part = c.taken(slice(*spans[c.dim]))
            labels = part.labels() if pa.types.is_timestamp(_label_type(c)) else part.values
            arrays.append(pa.array(_spread(labels, (c.dim,), space.names, shape), _label_type(c)))
        arrays += [array_of(_flat(block[f.name], f, space.names, shape), f) for f in self.target.fields]
        return pa.Table.from_arrays(arrays, schema=self.schema)

    def _encoded(self, table: pa.Table) -> bytes:
        sink = io.BytesIO()
        if self.sink.form == "parquet":
            pq.write_table(table, sink, compression="zstd", row_group_size=1 << 20, write_page_checksum=True)
        else:
            with pa.ipc.new_file(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as file:
                file.write_table(table)
        return sink.getvalue()

    def finalize(self, written: Iterable[Written]) -> None:
        """See `Output`.

        Raises:
            StoreError: parts are missing.
            OutputExistsError: something else stands at the URL by now.
        """
        final, recipe = self.sink.store(), self.target.recipe
        if finished_recipe(final) == recipe:
            return
        store, parts = self.store, sorted(set(written), key=lambda one: one.path)
        counts = self.target.counts
        if None not in counts and len(parts) != (expected := int(np.prod([n or 0 for n in counts]))):
            raise StoreError(
                f"{self.url} has {len(parts)} of {expected} parts, so it isn't finished",
                hint="resume the run",
            )
        if not parts:  # readers take the columns from the first part
            parts = [
                commit(
                    store,
                    f"part-00000.{self.sink.form}",
                    self._encoded(self.schema.empty_table()),
                    replace=True,
                )
            ]
        manifest = {
            "format": "gridcompute parts", "version": FORMAT, "kind": self.sink.form, "recipe": recipe,
            "rows": sum(part.rows for part in parts), "columns": {f.name: str(f.type) for f in self.schema},
            "attrs": {name: json.loads(text) for name, text in self.target.attrs},
            "parts": [{"path": p.path, "rows": p.rows, "size": p.size, "digest": p.digest} for p in parts],
        }  # fmt: skip
        store.put(MANIFEST, (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode())
        store.delete(CLAIM)
        if isinstance(store, LocalStore) and isinstance(final, LocalStore) and store.root != final.root:
            claim(final, recipe, finished_recipe(final), resume=False)
            _rename(store.root, final.root)

    @property
    def complete(self) -> bool:
        """See `Output`: the parts have the sizes that the manifest says."""
        final = self.sink.store()
        if finished_recipe(final) != self.target.recipe:
            return False
        try:
            parts = {(part["path"], part["size"]) for part in json.loads(final.get(MANIFEST))["parts"]}
        except (FileNotFoundError, ValueError, KeyError, TypeError, RecursionError):
            return False
        return parts <= set(final.list_sizes())

    def give_up(self) -> bool:
        """See `Output`."""
        return give_up(self.store)

    def verify(self, written: Written) -> bool:
        """See `Output`."""
        return holds(self.store, written)

    def discard(self) -> None:
        """See `Output`: the manifest first."""
        store = self.store
        for name in [MANIFEST, *data_names(store), CLAIM]:
            store.delete(name)
        remove_empty_folders(store)


def _rename(partial: str, final: str) -> None:
    """Put a finished folder in its place; hidden files that are there (a lease) move along."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(final, CLAIM))
        for name in os.listdir(final):
            os.replace(os.path.join(final, name), os.path.join(partial, name))
        os.rmdir(final)
    os.rename(partial, final)
    folder = os.open(os.path.dirname(final) or ".", os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _metadata(f: Field) -> dict[str, str] | None:
    """Attributes of a column, but those that its type says."""
    said = dict(time_attrs(f)) if TimeType.of(f) else {}
    return {name: text for name, text in f.attrs if name not in said} or None


def _label_type(c: Coordinate) -> pa.DataType:
    """Times become timestamps where their calendar is today's, else integers with the unit as metadata."""
    if c.is_time:
        return pa.timestamp("us") if c.labels().dtype.kind == "M" else pa.int64()
    return pa.large_string() if c.values.dtype.kind == "U" else pa.from_numpy_dtype(c.values.dtype)


def _spread(values: Any, dims: tuple[str, ...], names: tuple[str, ...], shape: tuple[int, ...]) -> Any:
    """Values over some dimensions, repeated over all, flat."""
    own = tuple(n if name in dims else 1 for name, n in zip(names, shape, strict=True))
    return np.ascontiguousarray(np.broadcast_to(np.asarray(values).reshape(own), shape)).reshape(-1)


def _flat(column: Column, f: Field, names: tuple[str, ...], shape: tuple[int, ...]) -> Column:
    if isinstance(column, Ragged):
        if len(names) == 1:
            return column
        return column.taken(_spread(np.arange(column.cells), f.dims, names, shape))
    valid = None if column.valid is None else _spread(column.valid, f.dims, names, shape)
    return Fixed(_spread(column.values, f.dims, names, shape), valid)
