"""Finished outputs, opened lazily in the form that their users know."""

from __future__ import annotations

import json
import os
from typing import Any

from gridcompute.errors import CorruptInputError, MissingInputError, ParameterError
from gridcompute.secrecy import clean
from gridcompute.sinks.tables import MANIFEST
from gridcompute.sources import contained
from gridcompute.store import LocalStore, RemoteStore, Store, open_store


def open_result(url: str | os.PathLike[str], **storage_options: Any) -> Any:
    """A finished output: an xarray Dataset (Zarr) or a pyarrow Dataset (Parquet, Arrow IPC), nothing read yet.

    Times whose units xarray can't read, such as months, stay numbers.

    Raises:
        MissingInputError: there is nothing, or an output that isn't finished.
        CorruptInputError: a manifest that can't be read, or a part that is missing or of another size.
        ParameterError: a BAM file, for which there are other readers.
    """
    if os.fspath(url).endswith(".bam"):
        raise ParameterError(f"{os.fspath(url)} is a BAM file", hint="open it with pysam.AlignmentFile, or samtools")
    store = open_store(url, **storage_options)
    if store.exists(MANIFEST):
        return _parts(store)
    if store.exists("zarr.json"):
        import xarray as xr

        options = dict(store.options) if isinstance(store, RemoteStore) else None
        place = contained.store(store.root) if isinstance(store, LocalStore) else store.url
        reading: dict[str, Any] = {"chunks": None, "storage_options": options or None, "zarr_format": 3}
        try:  # of format 3, which has no codec that runs code
            try:
                return xr.open_zarr(place, **reading)
            except ValueError:  # an input's times that xarray has no dates for, such as "months since 1950-01-01"
                return xr.open_zarr(place, decode_times=False, **reading)
        except Exception as error:
            raise CorruptInputError(f"{store.url} can't be opened: {type(error).__name__}: {str(error)[:300]}",
                                    hint="run it again") from clean(error)
    if next(iter(store.list()), None) is not None:
        raise MissingInputError(f"{store.url} isn't a finished result", hint="resume the run that writes it")
    raise MissingInputError(f"no result at {store.url}", hint="check the path, or resume the run that writes it")


def _parts(store: Store) -> Any:
    import pyarrow.dataset as ds

    try:
        manifest = json.loads(store.get(MANIFEST))
        kind, parts = str(manifest["kind"]), [(str(p["path"]), int(p["size"])) for p in manifest["parts"]]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorruptInputError(f"{store.url}: {MANIFEST} can't be read: {error}", hint="run it again") from error
    sizes = dict(store.list_sizes())
    for path, size in parts:
        if sizes.get(path) != size:  # also what keeps a manifest from naming files outside
            raise CorruptInputError(f"{store.url}: part {path!r} is missing or has another size", hint="run it again")
    if isinstance(store, LocalStore):
        return ds.dataset([os.path.join(store.root, path) for path, _ in parts], format=_form(kind))
    if isinstance(store, RemoteStore):
        import fsspec

        files, base = fsspec.core.url_to_fs(store.url, **dict(store.options))
        return ds.dataset([f"{base.rstrip('/')}/{path}" for path, _ in parts], filesystem=files, format=_form(kind))
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffers = [pa.BufferReader(store.get(path)) for path, _ in parts]
    read = pq.read_table if kind == "parquet" else lambda buffer: pa.ipc.open_file(buffer).read_all()
    return ds.dataset(pa.concat_tables([read(buffer) for buffer in buffers]))


def _form(kind: str) -> str:
    return "parquet" if kind == "parquet" else "ipc"
