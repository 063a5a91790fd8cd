"""Reads of Parquet tables: a row a read, or a row a fragment with both mates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from gridcompute.columns import Ragged
from gridcompute.errors import CorruptInputError, GridError, MissingInputError, ParameterError
from gridcompute.secrecy import clean
from gridcompute.sources.files import broken, is_remote, open_file
from gridcompute.sources.reads import COLUMNS, Reads

MAGIC = b"PAR1"

MATE = "2"
"""At the end of the names of the columns of second mates."""

_ROWS = 4096


def table_columns(path: str, options: Mapping[str, Any], columns: Mapping[str, str]) -> tuple[str, ...]:
    """Which columns of reads a table has: name, sequence, perhaps quality; sequence2, quality2 where it has mates.

    Args:
        path: of the table.
        options: fsspec's.
        columns: names in the table, by what they are, where they are others.

    Raises:
        CorruptInputError: it isn't Parquet, or broken.
        MissingInputError: a column isn't there; the message lists what is.
        ParameterError: a column of another type than text; a mate's quality without that of the other.
    """
    with _opened(path, options) as file:
        schema = file.schema_arrow
    known = (*COLUMNS, *(name + MATE for name in COLUMNS[1:]))
    if unknown := next((name for name in columns if name not in known), ""):
        raise ParameterError(f"columns= names {unknown!r}", hint=f"reads have {', '.join(known)}")
    named = {name: columns.get(name, name) for name in known}
    needed = {*columns, *COLUMNS[:2]}
    for name, own in named.items():
        if own not in schema.names:
            if name in needed:
                raise MissingInputError(f"no column {own!r} in {path}", hint=f"it has {', '.join(schema.names)}; say "
                                        f"which is the {name} by columns={{{name!r}: ...}}")
            continue
        kind = schema.field(own).type
        if not any(test(kind) for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view,
                                           pa.types.is_binary, pa.types.is_large_binary)):
            raise ParameterError(f"column {own!r} of {path} is {kind}", hint=f"the {name} of a read is text")
    there = tuple(name for name, own in named.items() if own in schema.names)
    if "sequence" + MATE not in there:
        return tuple(name for name in there if not name.endswith(MATE))
    if ("quality" in there) != ("quality" + MATE in there):
        raise ParameterError(f"{path} has qualities of one mate only", hint="give both, or leave both out")
    return there


def table_reads(path: str, options: Mapping[str, Any], columns: Sequence[str],
                named: Mapping[str, str]) -> Iterator[tuple[Reads, ...]]:
    """The reads of a table; of a table with mates these side by side.

    Args:
        path: of the table.
        options: fsspec's.
        columns: those that it has, as of `table_columns`.
        named: names in the table, by what they are.

    Raises:
        CorruptInputError: it is broken; a read has no name or no sequence.
    """
    done, own = 0, {name: named.get(name, name) for name in columns}
    sides = [{name: name for name in COLUMNS if name in columns}]
    if "sequence" + MATE in columns:
        sides.append({name: "name" if name == "name" else name + MATE for name in sides[0]})
    with _opened(path, options) as file:
        batches = file.iter_batches(batch_size=_ROWS, columns=list(own.values()), use_threads=False)
        while True:
            try:
                batch = next(batches, None)
                texts = {} if batch is None else {
                    name: _text(batch.column(own[name]), name, path, done) for name in columns}
            except GridError:
                raise
            except (pa.ArrowException, OSError, ValueError) as error:
                raise broken(path, f"after row {done}", error) from clean(error)
            if batch is None:
                return
            if batch.num_rows:
                yield tuple(Reads.of({name: texts[column] for name, column in side.items()}) for side in sides)
            done += batch.num_rows


def _text(array: Any, name: str, path: str, done: int) -> Ragged:
    array = array.cast(pa.large_string())
    if array.null_count:
        if not name.startswith("quality"):
            row = done + int(np.flatnonzero(np.asarray(array.is_null()))[0])
            raise CorruptInputError(f"{path}: row {row}: the {name} is null", hint="leave the row out")
        array = array.fill_null("")
    _, offsets, values = array.buffers()
    first = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
    return Ragged(first, np.frombuffer(values, np.uint8) if values is not None else np.empty(0, np.uint8))


def _opened(path: str, options: Mapping[str, Any]) -> Any:
    import pyarrow.parquet as pq

    try:
        source = pa.PythonFile(open_file(path, options), "r") if is_remote(path) else pa.memory_map(path)
        return pq.ParquetFile(source, page_checksum_verification=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise broken(path, "isn't a readable Parquet file", error) from clean(error)
