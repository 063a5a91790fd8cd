"""Tables: Parquet and Arrow IPC by rows, CSV as it comes."""

from __future__ import annotations

import bisect
import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from gridcompute.columns import Block, Column, Field
from gridcompute.coords import Coordinate
from gridcompute.errors import AlignmentError, CorruptInputError, GridError, ParameterError
from gridcompute.secrecy import clean, learn
from gridcompute.sources.base import chosen, require_within
from gridcompute.sources.blocks import recut
from gridcompute.sources.files import OpenFiles, broken, expand, filesystem, identity, is_remote, open_file
from gridcompute.sources.joined import Joined, join
from gridcompute.sources.norows import NoRows
from gridcompute.spaces import Region, Space
from gridcompute.tabular import column_of, field_of, leaf, leaves

_OPEN = OpenFiles()
_SUFFIX = re.compile(r"\.(parquet|parq|pq|arrow|feather|ipc|csv|tsv)(\.gz|\.bz2|\.xz|\.zst)?$", re.IGNORECASE)
_FORMS = {"parq": "parquet", "pq": "parquet", "feather": "arrow", "ipc": "arrow"}
_ROW = re.compile(r"Row #(\d+)")
_LONG = "straddling object"  # Arrow's word for a row beyond a block
_BLOCK = 1 << 20  # bytes of CSV from which its types are taken


@dataclass(frozen=True, eq=False)
class TableSource:
    """One Parquet or Arrow IPC file; see `open_table`.

    Attributes:
        starts: first row of each row group (record batch), and the number of rows at the end.
        paths: per column, its path in the file's schema (members of structs have longer ones).
    """

    path: str
    form: str
    fields: tuple[Field, ...]
    paths: tuple[tuple[str, tuple[str, ...]], ...]
    starts: tuple[int, ...]
    dim: str = "row"
    left_out: tuple[tuple[str, str], ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    coords: tuple[Coordinate, ...] = ()
    uniform = True

    @property
    def space(self) -> Space:
        """See `Source`."""
        return Space.of({self.dim: self.starts[-1]})

    @property
    def stored(self) -> tuple[tuple[str, int], ...]:
        """See `Source`: the rows of the largest row group."""
        return ((self.dim, max(1, int(np.diff(self.starts).max(initial=1)))),)

    @property
    def stored_bytes(self) -> int:
        """See `Source`: with 16 elements assumed in a ragged cell."""
        row = sum(f.dtype.itemsize * (16 if f.ragged else 1) for f in self.fields)
        return row * self.stored[0][1]

    @property
    def decoding(self) -> object:
        """What determines values but for the file."""
        return (self.form, self.dim, [(f.name, f.dtype, f.kind) for f in self.fields])

    @property
    def key(self) -> object:
        """See `Source`."""
        return ("table", self.path, self.decoding)

    def objects(self, region: Region) -> tuple[str, ...]:
        """See `Source`."""
        return (identity(self.path, self.options),)

    def read(self, region: Region, names: Sequence[str]) -> Block:
        """See `Source`: decodes the row groups that the rows lie in."""
        require_within(self.space, region)
        fields = chosen(self.fields, names, self.path, self.left_out)
        lo, hi = region.bounds[0]
        first = bisect.bisect_right(self.starts, lo) - 1
        last = max(bisect.bisect_left(self.starts, hi), first + 1)
        groups = range(first, min(last, len(self.starts) - 1))
        paths = dict(self.paths)
        version = identity(self.path, self.options, verify=False)
        try:
            file = _OPEN.get((self.path, self.form), version, lambda: _opened(self.path, self.form, self.options))
            table = _rows(file, self.form, groups, sorted({paths[f.name][0] for f in fields}))
            table = table.slice(lo - self.starts[first], hi - lo)
            if table.num_rows != hi - lo:
                raise broken(self.path, f"rows {lo} to {hi}", "the file has changed since it was opened")
            columns = {f.name: column_of(leaf(table, paths[f.name]), f, self.path) for f in fields}
        except GridError:
            raise
        except (pa.ArrowException, OSError, ValueError, KeyError) as error:
            raise broken(self.path, f"rows {lo} to {hi}", error) from clean(error)
        return Block(region, columns, hi - lo)

    def select(self, names: Sequence[str]) -> TableSource:
        """See `Source`."""
        return replace(self, fields=chosen(self.fields, names, self.path, self.left_out))

    def __str__(self) -> str:
        return self.path


def _opened(path: str, form: str, options: Mapping[str, Any]) -> Any:
    import pyarrow.parquet as pq

    source = pa.PythonFile(open_file(path, options), "r") if is_remote(path) else pa.memory_map(path)
    # Checks the pages that carry a checksum, as those of our sink do.
    return pq.ParquetFile(source, page_checksum_verification=True) if form == "parquet" else pa.ipc.open_file(source)


def _rows(file: Any, form: str, groups: range, columns: list[str]) -> Any:
    if form == "parquet":
        return file.read_row_groups(list(groups), columns=columns, use_threads=False)
    batches = [file.get_batch(i).select(columns) for i in groups]
    return pa.Table.from_batches(batches, pa.schema([file.schema.field(name) for name in columns]))


@dataclass(frozen=True)
class CsvSource:
    """CSV files, plain or compressed; see `open_table`.

    Attributes:
        types: column names and their Arrow types as text, fixed when the first file was opened.
    """

    parts: tuple[str, ...]
    types: tuple[tuple[str, str], ...]
    dim: str = "row"
    delimiter: str = ","
    names: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def _every(self) -> tuple[Field, ...]:
        fields = (field_of(name, _type(kind), self.dim, True) for name, kind in self.types)
        return tuple(replace(f, nullable=f.kind != "string") for f in fields)

    @property
    def fields(self) -> tuple[Field, ...]:
        """See `IngestSource`: every column but text, where an empty cell is empty text, may have gaps."""
        return chosen(self._every, self.names, self.parts[0]) if self.names else self._every

    @property
    def key(self) -> object:
        """See `IngestSource`."""
        return ("csv", self.types, self.dim, self.delimiter, tuple(f.name for f in self.fields))

    def objects(self, part: str) -> tuple[str, ...]:
        """See `IngestSource`."""
        return (identity(part, self.options),)

    def blocks(self, part: str) -> Iterator[Block]:
        """See `IngestSource`.

        Raises:
            CorruptInputError: naming the file and the data row (counted from 1) of a cell that doesn't parse.
        """
        names = [f.name for f in self.fields]
        # Cut by all columns, so that choosing some of them doesn't move the cuts.
        for block in recut(self._pieces(part)):
            yield Block(block.region, {name: block[name] for name in names}, block.rows)

    def _pieces(self, part: str) -> Iterator[dict[str, Column]]:
        done = 0
        types = {name: _type(kind) for name, kind in self.types}
        with _decompressed(part, self.options) as file:
            try:
                for batch in _csv_reader(file, self.delimiter, types):
                    arrays = {name: leaf(batch, (name,)) for name in types}
                    done += batch.num_rows
                    if batch.num_rows:
                        yield {f.name: column_of(arrays[f.name], f, part) for f in self._every}
            except (pa.ArrowException, OSError, EOFError, ValueError) as error:
                if "Empty CSV file" in str(error):
                    return
                if _LONG in str(error):
                    raise _long(part, done) from clean(error)
                row = _ROW.search(str(error))
                place = f"data row {int(row[1]) - 1}" if row else f"after data row {done}"
                raise CorruptInputError(
                    f"{part}: {place}: {' '.join(str(error).split())[:300]}",
                    hint="mend the row, or give the column another type: types={'column': 'string'}",
                ) from clean(error)

    def select(self, names: Sequence[str]) -> CsvSource:
        """The source with only these columns."""
        chosen(self._every, names, self.parts[0])
        return replace(self, names=tuple(names))


def _csv_reader(file: Any, delimiter: str, types: Mapping[str, pa.DataType]) -> Any:
    import pyarrow.csv as pc

    return pc.open_csv(
        pa.PythonFile(file, "r"),
        # One thread, as only then an error tells its row.
        read_options=pc.ReadOptions(use_threads=False, block_size=_BLOCK),
        parse_options=pc.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=pc.ConvertOptions(column_types=dict(types)),
    )


def _long(path: str, done: int) -> CorruptInputError:
    return CorruptInputError(f"{path}: after data row {done}: a row is longer than {_BLOCK:,} bytes",
                             hint="close the quote that is open, or write the table as Parquet")


def _decompressed(path: str, options: Mapping[str, Any]) -> Any:
    import fsspec

    try:
        if is_remote(path):
            files, name = filesystem(path, options)
            return fsspec.core.OpenFile(files, name, "rb", compression=fsspec.utils.infer_compression(name))
        identity(path, options, verify=False)
        return fsspec.open(path, "rb", compression="infer")
    except ValueError as error:
        raise ParameterError(f"{path}: {error}", hint="decompress it first") from clean(error)


def _type(text: str) -> pa.DataType:
    try:
        match = re.fullmatch(r"timestamp\[(\w+)(?:, tz=(.+))?\]", text)
        if match:
            return pa.timestamp(match[1], match[2])
        if (match := re.fullmatch(r"(time32|time64|duration)\[(\w+)\]", text)) is not None:
            return getattr(pa, match[1])(match[2])
        return pa.type_for_alias(re.sub(r"\[(day|ms)\]", "", text) if text.startswith("date") else text)
    except (ValueError, TypeError) as error:
        raise ParameterError(
            f"no column type {text!r}", hint="write int64, float64, string, bool, date32 ..."
        ) from clean(error)


def open_table(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    dim: str = "row",
    types: Mapping[str, str] | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> TableSource | Joined | NoRows | CsvSource:
    """Open Parquet, Arrow IPC or CSV files; the format is told by the name.

    Args:
        paths: a path, URL or pattern, or a list of these; several are put end to end. Files
            without rows have empty results.
        dim: name of the rows' dimension.
        types: Arrow types of CSV columns by name; the others are taken from the first file's first megabyte.
        storage_options: fsspec's, for URLs.

    Raises:
        MissingInputError: a file that isn't there.
        CorruptInputError: a file that isn't of the format that its name says.
        ParameterError: an unknown format, or no column of a type that has a place here.
        AlignmentError: files of different columns, naming file and column.
    """
    options = dict(storage_options or {})
    learn(options)
    files = expand(paths, **options)
    forms = {path: _form(path) for path in files}
    if len(set(forms.values())) > 1:
        raise AlignmentError(f"{files[0]} is {forms[files[0]]}, other files aren't", hint="open one format at a time")
    form = forms[files[0]]
    if form in ("csv", "tsv"):
        return _open_csv(files, "," if form == "csv" else "\t", dim, types or {}, options)
    if types:
        raise ParameterError(f"types= is for CSV; {form} files have types of their own")
    single = isinstance(paths, str | os.PathLike) and len(files) == 1 and not any(c in str(paths) for c in "*?[")
    sources = [_open_file(path, form, dim, options) for path in files]
    table = sources[0] if single else join(sources, dim)
    return table if table.space[dim] else NoRows.of(sources)


def _form(path: str) -> str:
    match = _SUFFIX.search(path.partition("?")[0] if "://" in path else path)
    form = "" if match is None else _FORMS.get(match[1].lower(), match[1].lower())
    if not form or (match and match[2] and form not in ("csv", "tsv")):
        raise ParameterError(
            f"the format of {path} can't be told by its name",
            hint="tables end in .parquet, .arrow, .feather, .csv, .csv.gz, .tsv; netCDF and Zarr are opened by "
            "grid.open_dataset, FASTA and FASTQ by grid.open_sequences",
        )
    return form


def _open_file(path: str, form: str, dim: str, options: Mapping[str, Any]) -> TableSource:
    if not is_remote(path) and os.path.isdir(path):
        raise ParameterError(f"{path} is a folder", hint=f"open the files in it: {path}/*.{form}")
    version = identity(path, options, verify=False)
    try:
        file = _OPEN.get((path, form), version, lambda: _opened(path, form, options))
        if form == "parquet":
            schema, meta = file.schema_arrow, file.metadata
            rows = [meta.row_group(i).num_rows for i in range(meta.num_row_groups)]
            full = _full_in_parquet(meta, schema)
        else:
            batches = [file.get_batch(i) for i in range(file.num_record_batches)]
            schema, rows = file.schema, [batch.num_rows for batch in batches]
            full = {f.name for i, f in enumerate(schema) if not any(b.column(i).null_count for b in batches)}
    except (pa.ArrowException, OSError, ValueError) as error:
        raise broken(path, f"isn't a readable {form} file", error) from clean(error)
    fields, kept, left_out = [], [], []
    for name, where, kind, nullable in leaves(schema):
        try:
            own = field_of(name, kind, dim, nullable)
            gapless = len(where) == 1 and where[0] in full and own.dtype.kind != "f"  # a float's NaN needs no telling
            fields.append(replace(own, nullable=False) if gapless else own)
            kept.append((name, where))
        except ParameterError:
            left_out.append((name, f"its type is {kind}"))
    if not fields:
        raise ParameterError(
            f"{path} has no column of a type that can be used: "
            + ", ".join(f"{name!r} ({why})" for name, why in left_out)
        )
    starts = tuple(int(n) for n in np.cumsum([0, *rows]))
    return TableSource(path, form, tuple(fields), tuple(kept), starts, dim, tuple(left_out), options)


def _full_in_parquet(meta: Any, schema: pa.Schema) -> set[str]:
    """Columns, structs aside, without nulls by the statistics of all row groups, which nearly all writers leave."""
    names = {f.name: f.name for f in schema} | {
        f"{f.name}.list.{f.type.value_field.name}": f.name for f in schema if pa.types.is_list(f.type)
    }
    full = set()
    for i in range(meta.num_columns):
        name = names.get(meta.schema.column(i).path)
        if name is not None and all(
            (told := meta.row_group(g).column(i).statistics) is not None and told.has_null_count and not told.null_count
            for g in range(meta.num_row_groups)
        ):
            full.add(name)
    return full


def _open_csv(
    files: tuple[str, ...], delimiter: str, dim: str, types: Mapping[str, str], options: Mapping[str, Any]
) -> CsvSource:
    first: list[tuple[str, str]] = []
    for path in files:
        try:
            with _decompressed(path, options) as file:
                given = {name: _type(kind) for name, kind in types.items()}
                schema = _csv_reader(file, delimiter, given).schema
        except (pa.ArrowException, OSError, EOFError) as error:
            if "Empty CSV file" in str(error):
                continue
            if _LONG in str(error):
                raise _long(path, 0) from clean(error)
            raise broken(path, "isn't readable as CSV", error) from clean(error)
        _require_utf8(path, schema)
        # A column that begins with a megabyte of gaps may hold anything later.
        found = [(f.name, "string" if pa.types.is_null(f.type) else str(f.type)) for f in schema]
        if not first:
            first = found
            _require_columns(path, [name for name, _ in found], types)
        elif [name for name, _ in found] != [name for name, _ in first]:
            odd = sorted({name for name, _ in found} ^ {name for name, _ in first}) or ["(their order)"]
            raise AlignmentError(f"the columns of {path} aren't those of {files[0]}: {odd[0]!r}")
    if not first:
        raise CorruptInputError(f"{files[0]} has neither a header nor rows", hint="a CSV file begins with its header")
    return CsvSource(files, tuple(first), dim, delimiter, options=options)


def _require_utf8(path: str, schema: pa.Schema) -> None:
    """Refuse text in another encoding: its bytes would be taken for UTF-8 (CorruptInputError)."""
    odd = next((n for n, f in enumerate(schema, 1) if pa.types.is_binary(f.type)), 0)
    with contextlib.suppress(UnicodeDecodeError):
        schema.names  # noqa: B018 - decodes them
        if not odd:
            return
    where = f"column {odd}" if odd else "the header"
    raise CorruptInputError(f"{path}: {where} isn't UTF-8", hint="convert the file: iconv -t utf-8")


def _require_columns(path: str, names: list[str], types: Mapping[str, str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise CorruptInputError(f"{path} has two columns {twice[0]!r}", hint="rename one in the header")
    for name in types:
        if name not in names:
            raise ParameterError(
                f"types names {name!r}, but {path} has no such column", hint=f"it has {', '.join(names)}"
            )
