"""A dataset in other chunks: from maps that follow each other in time to series of boxes, or any other."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import gridcompute as grid
from gridcompute.config import parse_bytes
from gridcompute.errors import MissingInputError, ParameterError
from gridcompute.registry import Job

from .inputs import default_archive, zarr_named


def rechunk(
    input: str = "",
    variable: str = "",
    chunks: str = "time=-1",
    chunk_bytes: str = "32MB",
    compressor: str = "zstd",
    level: int = 3,
    output: str = "rechunked.zarr",
    overwrite: bool = False,
) -> Job:
    """A dataset in chunks of another shape, as a Zarr store, however much larger than memory it is.

    Values, attributes and coordinates stay, variables of text don't; packed integers become the numbers that they stand
    for. How it is done follows from the shapes: stored chunks are read once for a run of output chunks that fits in a
    fixed part of memory, or, where they would be decoded more than four times, go through pieces in the work store.
    `gridcompute plan` shows it, with the most memory that a worker takes.

    Args:
        input: netCDF file, Zarr store, anything else that xarray reads, a URL or a pattern; by default the 240 years
            of North American air temperature of the package iris-sample-data.
        variable: the only variable to write; by default all.
        chunks: extents of the output's chunks such as "time=-1,lat=91,lon=180", -1 for a whole dimension. Those that
            aren't named are cut as `chunk_bytes` says.
        chunk_bytes: a chunk's uncompressed size at most, where the dimensions named in `chunks` leave a choice.
        compressor: of Blosc: zstd, lz4, lz4hc, zlib or blosclz.
        level: of compression, 0 to 9.
        output: Zarr store to write.
        overwrite: replace an output that other data or parameters have left there.

    Examples:
        gridcompute run climate.rechunk
        gridcompute run climate.rechunk --input era5.zarr --chunks time=-1,lat=91,lon=180 --output series.zarr
        gridcompute run climate.rechunk --input "tas_*.nc" --chunks time=24 --compressor lz4 --level 5
    """
    data = grid.open_dataset(input or default_archive())
    if variable:
        if variable not in data.columns:
            raise MissingInputError(f"the input has no variable {variable!r}",
                                    hint=f"it has {', '.join(data.columns) or 'none'}")
        data = data[variable]
    else:  # bounds and curvilinear coordinates are columns too; they are written as the coordinates that they are
        labels = {coordinate.name for coordinate in data.coords}
        own = [name for name in data.columns if name not in labels] or list(data.columns)
        beside = {coordinate.name for coordinate in data[own].coords}
        data = data[[name for name in data.columns if name in own or name not in beside]]
    other = [field.name for field in data.fields if field.ragged]
    if len(other) == len(data.columns):
        raise ParameterError(f"the input {'holds text: ' + ', '.join(other) if other else 'has no variables'}",
                             hint="text isn't rechunked; choose a variable of numbers with --variable")
    data = data[[name for name in data.columns if name not in other]]
    result = data.write(zarr_named(output), overwrite=overwrite, chunks=_extents(chunks),
                        chunk_bytes=parse_bytes(chunk_bytes), compressor=compressor, level=level)
    where = input or "A1B_north_america.nc from iris-sample-data (240 years)"
    lines = [f"input {', '.join(data.columns)} of {where}"] + [f"left out, as text: {', '.join(other)}"] * bool(other)
    return Job([result], lambda run: _found(output), lines)


def _extents(text: str) -> dict[str, int]:
    """Extents by dimension of a text such as "time=-1,lat=91".

    >>> _extents("time=-1, lat=91")
    {'time': -1, 'lat': 91}
    """
    found: dict[str, int] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        name, equals, number = (piece.strip() for piece in part.partition("="))
        if name in found:
            raise ParameterError(f"chunks {text!r} name the dimension {name!r} twice", hint="once is enough")
        try:
            found[name] = int(number)
        except ValueError:
            equals = ""
        if not equals or not name:
            raise ParameterError(f"chunks {part!r} doesn't name a dimension and its extent",
                                 hint="write it as time=-1,lat=91,lon=180")
    return found


def _found(output: str) -> Iterator[str | Path]:
    """A line for each variable that was written."""
    for name, values in grid.open_result(output).data_vars.items():
        extents = values.encoding.get("chunks", values.shape)
        count = math.prod(-(-n // max(e, 1)) for n, e in zip(values.shape, extents, strict=True))
        shape = ", ".join(f"{dim} {e}" for dim, e in zip(values.dims, extents, strict=True))
        yield f"{name} in {count:,} chunk{'s' * (count != 1)} of ({shape})"
