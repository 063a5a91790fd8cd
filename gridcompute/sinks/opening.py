"""The sink for an output's name."""

from __future__ import annotations

from typing import Any

from gridcompute.errors import ParameterError
from gridcompute.sinks.base import Sink
from gridcompute.sinks.tables import ArrowSink, ParquetSink
from gridcompute.sinks.zarrs import ZarrSink
from gridcompute.sources.files import plain_path

_ENDINGS = {".zarr": "zarr", ".parquet": "parquet", ".pq": "parquet", ".arrow": "arrow", ".feather": "arrow"}


def open_sink(url: str, *, format: str | None = None, **options: Any) -> Sink:
    """The sink for a URL.

    Args:
        url: path or fsspec URL.
        format: "zarr", "parquet" or "arrow", where the name doesn't say.
        options: of the format; `storage_options` go to the file system.

    Raises:
        ParameterError: an unknown format or option.
    """
    place = plain_path(url)
    form = format or next((kind for ending, kind in _ENDINGS.items() if place.rstrip("/").endswith(ending)), None)
    kinds = {"zarr": ZarrSink, "parquet": ParquetSink, "arrow": ArrowSink}
    if form not in kinds:
        raise ParameterError(f"in which format is {url!r} to be written?" if form is None else f"no format {form!r}",
                             hint=f"name it with {', '.join(_ENDINGS)}, or say format= one of {', '.join(kinds)}")
    try:
        sink: Sink = kinds[form](place.rstrip("/"), **options)
    except TypeError as error:
        raise ParameterError(f"{form} output: {error}") from None
    return sink
