"""The sink for an output's name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import fsspec

from gridcompute.errors import ParameterError
from gridcompute.sinks.bam import BamSink
from gridcompute.sinks.base import Sink
from gridcompute.sinks.tables import ArrowSink, ParquetSink
from gridcompute.sinks.zarrs import ZarrSink
from gridcompute.sources.files import plain_path
from gridcompute.store import open_store

_NAME_BYTES = 200  # files that belong to an output lie beside it and have longer names
_ENDINGS = {".zarr": "zarr", ".parquet": "parquet", ".pq": "parquet", ".arrow": "arrow", ".feather": "arrow",
            ".bam": "bam"}


def open_sink(url: str, *, format: str | None = None, **options: Any) -> Sink:
    """The sink for a URL.

    Args:
        url: path or fsspec URL.
        format: "zarr", "parquet", "arrow" or "bam", where the name doesn't say.
        options: of the format; `storage_options` go to the file system.

    Raises:
        ParameterError: an unknown format or option.
    """
    place = plain_path(url)
    name = place.rstrip("/").rpartition("/")[2]
    if not name or place.endswith("://") or any(ord(c) < 32 or ord(c) == 127 for c in place):
        raise ParameterError(f"{url!r} names no output", hint="write it like out/trend.zarr or s3://bucket/trend.zarr")
    if "://" in place and (protocol := place.partition("://")[0]) not in fsspec.available_protocols():
        raise ParameterError(f"no protocol {protocol!r}", hint="write a path, or a URL like s3://bucket/trend.zarr")
    if len(name.encode("utf-8", "replace")) > _NAME_BYTES:
        raise ParameterError(f"the name of the output {name[:60]!r}... is too long", hint="shorten it")
    form = format or next((kind for ending, kind in _ENDINGS.items() if place.rstrip("/").endswith(ending)), None)
    kinds = {"zarr": ZarrSink, "parquet": ParquetSink, "arrow": ArrowSink, "bam": BamSink}
    if form not in kinds:
        raise ParameterError(f"in which format is {url!r} to be written?" if form is None else f"no format {form!r}",
                             hint=f"name it with {', '.join(_ENDINGS)}, or say format= one of {', '.join(kinds)}")
    if not isinstance(options.get("storage_options", {}), Mapping):
        raise ParameterError("storage_options isn't a mapping", hint="storage_options={'key': ...}")
    try:
        sink: Sink = kinds[form](place.rstrip("/"), **options)
    except TypeError as error:
        raise ParameterError(f"{form} output: {error}") from None
    open_store(sink.url, **options.get("storage_options", {}))  # refuses what no store can be made of; reads nothing
    return sink
