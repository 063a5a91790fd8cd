"""One chunk as an Arrow IPC file: any Arrow reader opens it; this one trusts nothing in it.

Layout: one record batch, or one for each group of rows that can be read apart (see `gridcompute.rowgroups`), or pieces
of large columns, as byte planes (see `gridcompute.planes`).
Rows are the positions over the dims that all columns share, in the space's order (one row if they share none). A
column's other dims lie inside its cells as nested fixed-size lists.
Strings are large_string (large_binary where they aren't UTF-8), lists large_list, nulls Arrow's. The schema's
metadata has two keys: `gridcompute`, a JSON object (fields, space, region, digests ...), and
`gridcompute.check`, the BLAKE2b-128 of that JSON. Both keys stay what they are in all later formats, so that
a newer one is told from a broken one. Format 2 has byte planes and digests large columns in pieces; what has
neither is of format 1.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import struct
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import ipc

from gridcompute.arrowcolumns import from_arrow, to_arrow
from gridcompute.columns import Block, Column, Field
from gridcompute.content import block_digest, canonical, checked_dtype, column_digest, in_pieces
from gridcompute.errors import CorruptShardError, GridError, ParameterError, RecordError, UsageError
from gridcompute.extents import check_shape, extents_of
from gridcompute.footprint import starved
from gridcompute.ipcsizes import MAGIC, check_sizes
from gridcompute.numerics import numerics_class
from gridcompute.planes import Whole, batches, least_bytes, most_bytes, piece_rows, suited, taken_apart
from gridcompute.rowgroups import grouped, seal_rows
from gridcompute.spaces import Region, Space

FORMAT = 2
PLAIN_FORMAT = 1
MAX_BYTES = 8 * 2**30  # decompressed; a shard of more than 5 GiB can't be committed to S3 anyway
HEAD_BYTES = 2**16  # holds the schema of nearly every shard, and the whole of a small one
_KEY, _CHECK = b"gridcompute", b"gridcompute.check"
_SCHEMA = 8  # position of the schema's message: marker, length, flatbuffer
# Everything that Arrow, JSON and NumPy raise over bytes that aren't what they should be.
BROKEN = (pa.ArrowException, ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError,
           OSError, RecursionError, NotImplementedError, struct.error, UsageError)


@dataclass(frozen=True)
class Header:
    """What a shard says about itself.

    Attributes:
        fields: its columns.
        space: the op's space.
        region: the chunk's place in it.
        extents: length of each of the columns' dims in this chunk.
        rows: the block's rows.
        digest: of the logical content.
        digests: the same for each column.
        numerics: class of the process that computed it.
        meta: what the writer added (recipe, token ...).
        groups: of each record batch the row at which it ends, its bytes, and its checksum; none where there is but one.
        format: of the shard.
        step: rows of each piece but the last; 0 where there is but one record batch, or one a group.
        planes: columns that are byte planes.
    """

    fields: tuple[Field, ...]
    space: Space
    region: Region
    extents: Mapping[str, int]
    rows: int
    digest: str
    digests: Mapping[str, str]
    numerics: str
    meta: Mapping[str, str]
    groups: tuple[tuple[int, int, int], ...] = ()
    format: int = PLAIN_FORMAT
    step: int = 0
    planes: frozenset[str] = frozenset()

    @property
    def row_dims(self) -> tuple[str, ...]:
        """The dims whose positions are the batch's rows."""
        return row_dims(self.fields, self.space)


def row_dims(fields: Sequence[Field], space: Space) -> tuple[str, ...]:
    """The dims that all fields share, in the space's order."""
    return tuple(d for d in space.names if fields and all(d in f.dims for f in fields))


def encode(block: Block, fields: Sequence[Field], space: Space, meta: Mapping[str, str] | None = None, *,
           compression: str | None = "zstd", threads: int = 1) -> tuple[bytes | memoryview, str]:
    """A block as a shard's bytes, and the digest of its content.

    Args:
        block: the chunk's columns, one for each field.
        fields: what they are; their order is the file's.
        space: the op's space; `block.region` lies in it.
        meta: texts to keep (recipe, token ...).
        compression: "zstd" (level 1), "lz4" or None, of the buffers; none where there are groups of rows. The digest
            doesn't depend on it.
        threads: that digest and compress large columns; the bytes don't depend on it.

    Raises:
        ParameterError: a column that isn't what its field says, or of a type that shards don't hold.
    """
    extents = extents_of(block, fields, space)
    rows = row_dims(fields, space)
    count = math.prod(extents[d] for d in rows)
    whole: dict[str, Column] = {}
    for field in fields:
        whole[field.name] = column = canonical(field, block[field.name])
        check_shape(field, column, extents)
    digests = {field.name: column_digest(field, whole[field.name], threads) for field in fields}
    apart = taken_apart(fields, whole) if compression and not block.groups else frozenset()
    described = [{"name": field.name, "dims": field.dims, "dtype": field.dtype.newbyteorder("<").str,
                  "kind": field.kind, "nullable": field.nullable, "attrs": field.attrs,
                  "digest": digests[field.name], **({"planes": True} if field.name in apart else {})}
                 for field in fields]
    digest = block_digest(fields, digests)
    step, groups = piece_rows(whole, count) if apart else 0, []
    written: Iterable[pa.RecordBatch]
    if step:
        written = batches(fields, whole, rows, extents, apart, step, threads)
    else:
        arrays = [to_arrow(field, whole[field.name], rows, extents) for field in fields]
        written = grouped(pa.RecordBatch.from_arrays(arrays, [field.name for field in fields]), block.groups)
        groups = [(end, ipc.get_record_batch_size(batch), seal_rows(whole, end - batch.num_rows, end))
                  for end, batch in zip(block.groups, written, strict=True)] if block.groups else []
    newer = step or any(map(in_pieces, whole.values()))
    text = json.dumps({"format": FORMAT if newer else PLAIN_FORMAT, "fields": described, "space": space.dims,
                       "region": block.region.bounds, "extents": extents, "rows": block.rows,
                       "length": count, "digest": digest, "numerics": numerics_class(), "meta": dict(meta or {}),
                       **({"groups": groups} if groups else {}), **({"step": step} if step else {})},
                      allow_nan=False).encode()
    most = most_bytes(fields, extents, rows, step) + 3 * len(text) if step else 0
    data = _written(written, text, None if groups else compression, threads, most)
    try:
        check_sizes(data, MAX_BYTES)
    except ValueError as error:
        message = f"the chunk {block.region} can't be kept in a shard: {error}"
        raise ParameterError(message, hint="make the chunks smaller") from None
    return data, digest


def _written(batches: Iterable[pa.RecordBatch], text: bytes, compression: str | None, threads: int,
             most: int) -> bytes | memoryview:
    """An Arrow IPC file of record batches, of which one is there at a time; of `most` bytes at most if not 0."""
    codec = pa.Codec("zstd", 1) if compression == "zstd" else compression
    if threads > pa.cpu_count():  # it was told of one core only, as workers that have one each are
        pa.set_cpu_count(threads)
    options = ipc.IpcWriteOptions(compression=codec, use_threads=threads > 1, allow_64bit=True)
    # Room that isn't written to costs nothing; a buffer that grows would be copied each time.
    room, some = np.empty(most, np.uint8), iter(batches)
    sink = pa.FixedSizeBufferWriter(pa.py_buffer(room)) if most else pa.BufferOutputStream()
    first = next(some)
    schema = first.schema.with_metadata({_KEY: text, _CHECK: _check(text)})
    with ipc.new_file(sink, schema, options=options) as writer:
        for batch in itertools.chain([first], some):
            writer.write_batch(batch.replace_schema_metadata(schema.metadata))
    return room[:sink.tell()].data if most else sink.getvalue().to_pybytes()


def decode(data: bytes, *, names: Collection[str] | None = None, verify: bool = True, path: str = "",
           limit: int = MAX_BYTES) -> tuple[Block, dict[str, str]]:
    """A shard's block and its texts (the writer's meta, with digest, numerics and format).

    Columns are read-only views of `data` where it isn't compressed.

    Args:
        data: the bytes.
        names: the columns wanted; the others aren't decompressed.
        verify: recompute the digest of each wanted column.
        path: where the bytes are from, for errors.
        limit: the most that they may take when decompressed.

    Raises:
        CorruptShardError: anything wrong with the bytes.
        RecordError: a format newer than this version writes.
        ParameterError: a wanted column that the shard doesn't have.
    """
    header = read_header(data, path=path, limit=limit)
    known = {f.name: f for f in header.fields}
    wanted = [known[n] for n in known if names is None or n in names]
    missing = sorted(set(names or ()) - set(known))
    if missing:
        raise ParameterError(f"the shard {path} has no column {missing[0]!r}",
                             hint=f"it has {', '.join(known)}")
    try:
        columns = _columns(data, header, wanted)
        for field in wanted if verify else ():
            newer = header.format > PLAIN_FORMAT
            if column_digest(field, columns[field.name], pieces=newer) != header.digests[field.name]:
                raise ValueError(f"the values of column {field.name!r} don't match their digest")
    except BROKEN as error:
        raise broken(path, error) from error
    meta = {**header.meta, "digest": header.digest, "numerics": header.numerics, "format": str(header.format)}
    return Block(header.region, columns, header.rows, groups=tuple(end for end, _, _ in header.groups)), meta


def read_header(data: bytes, *, path: str = "", limit: int = MAX_BYTES) -> Header:
    """What a shard's bytes say about themselves, without its values. Raises as `decode` does."""
    try:
        held = check_sizes(data, limit)
        with ipc.open_file(pa.py_buffer(data)) as reader:
            header = _described(reader.schema, path)
        if header.step and least_bytes(header.fields, header.extents) > held:
            raise ValueError("its columns have fewer bytes than described")
        return header
    except RecordError:
        raise
    except BROKEN as error:
        raise broken(path, error) from error


def read_ends(read: Callable[[int, int], bytes], size: int, *, path: str = "") -> Header:
    """`read_header` of a stored shard, whose two ends are all that is read of it.

    Args:
        read: its bytes from one position to another.
        size: its length.
        path: its name, for messages.

    Raises:
        CorruptShardError: it is cut off, or doesn't begin as a shard does; its values aren't looked at.
        RecordError: a newer version wrote it.
    """
    try:
        head = read(0, min(size, HEAD_BYTES))
        tail = head if size <= HEAD_BYTES else read(size - len(MAGIC), size)
        if not tail.endswith(MAGIC):
            raise ValueError("not an Arrow IPC file, or cut off")
        schema, stop = _schema(head, read)
        if stop > size:
            raise ValueError("its schema's length is wrong")
        return _described(schema, path)
    except (RecordError, FileNotFoundError):
        raise
    except BROKEN as error:
        raise broken(path, error) from error


def read_head(read: Callable[[int, int], bytes], *, path: str = "") -> tuple[Header, pa.Schema, int]:
    """A stored shard's description, the schema of its record batches, and where the first of them begins.

    Args:
        read: its bytes from one position to another.
        path: its name, for messages.

    Raises:
        CorruptShardError: it doesn't begin as a shard does.
        RecordError: a newer version wrote it.
    """
    try:
        head = read(0, HEAD_BYTES)
        schema, stop = _schema(head, read)
        return _described(schema, path), schema.remove_metadata(), stop
    except (RecordError, FileNotFoundError):
        raise
    except BROKEN as error:
        raise broken(path, error) from error


def _schema(head: bytes, read: Callable[[int, int], bytes]) -> tuple[pa.Schema, int]:
    """The schema that a file begins with, of whose bytes the first are known, and where its message ends."""
    if not head.startswith(MAGIC):
        raise ValueError("not an Arrow IPC file")
    mark, length = struct.unpack_from("<Ii", head, _SCHEMA)
    stop = _SCHEMA + 8 + length
    if mark != 0xFFFFFFFF or not 0 < length < 2**28:
        raise ValueError("its schema's length is wrong")
    message = head[_SCHEMA:stop] if stop <= len(head) else read(_SCHEMA, stop)
    return ipc.read_schema(pa.py_buffer(message)), stop


def _described(schema: pa.Schema, path: str) -> Header:
    metadata = schema.metadata or {}
    text = metadata[_KEY]
    if metadata[_CHECK] != _check(text):
        raise ValueError("its description doesn't match its digest")
    values = json.loads(text)
    if int(values["format"]) > FORMAT:
        raise RecordError(f"the shard {path} has format {values['format']}, this version knows {FORMAT}",
                          hint="update gridcompute, or use another work folder")
    return _header(values)


def broken(path: str, error: Exception) -> Exception:
    """What to raise where a shard's bytes gave an error: that it is corrupt, unless this process is short of memory.

    Sizes are checked before anything is allocated, so that says nothing of the bytes, and a good shard isn't voided.
    """
    if starved(error):
        return MemoryError(f"no memory to read the shard {path or '(bytes)'}: {error}")
    what = error.message if isinstance(error, GridError) else f"{error}"
    what = what[:300] or type(error).__name__
    return CorruptShardError(f"the shard {path or '(bytes)'} is corrupt: {what}", path=path,
                             hint="it is computed again; if this recurs, check the disk")


def _check(text: bytes) -> bytes:
    return hashlib.blake2b(text, digest_size=16).hexdigest().encode()


def _header(values: dict[str, Any]) -> Header:
    fields = tuple(
        Field(_text(f["name"]), tuple(map(_text, f["dims"])), checked_dtype(_text(f["dtype"])), f["kind"],
              bool(f["nullable"]), tuple((_text(k), _text(v)) for k, v in f["attrs"]))
        for f in values["fields"])
    kinds = {f.kind for f in fields} - {"fixed", "string", "list"}
    if kinds or len({f.name for f in fields}) != len(fields):
        raise ValueError("its description names a column twice, or an unknown kind")
    space = Space(tuple((_text(d), None if n is None else _count(n)) for d, n in values["space"]))
    region = Region(tuple((_count(lo), _count(hi)) for lo, hi in values["region"]))
    extents = {_text(d): _count(n) for d, n in values["extents"].items()}
    digests = {f["name"]: _text(f["digest"]) for f in values["fields"]}
    groups = tuple((_count(end), _count(size), _count(check)) for end, size, check in values.get("groups", ()))
    header = Header(fields, space, region, extents, _count(values["rows"]), _text(values["digest"]), digests,
                    _text(values["numerics"]), {_text(k): _text(v) for k, v in values["meta"].items()}, groups,
                    _count(values["format"]), _count(values.get("step", 0)),
                    frozenset(f.name for f, said in zip(fields, values["fields"], strict=True) if said.get("planes")))
    if len(region.bounds) != len(space.dims) or any(lo > hi for lo, hi in region):
        raise ValueError("its region doesn't fit its space")
    if any(d not in space or d not in extents for f in fields for d in f.dims):
        raise ValueError("a column spans a dimension that its space doesn't have")
    if values["length"] != math.prod(extents[d] for d in header.row_dims):
        raise ValueError("its number of rows doesn't fit its extents")
    ends = [end for end, _, _ in groups]
    if ends and (ends != sorted(ends) or ends[-1] != values["length"] or len(header.row_dims) != 1):
        raise ValueError("its groups aren't its rows")
    if (header.step and (groups or header.format == PLAIN_FORMAT or any(f.ragged for f in fields))) \
            or (header.planes and not header.step) or any(f.name in header.planes and not suited(f) for f in fields):
        raise ValueError("its pieces aren't of its columns")
    if block_digest(fields, digests) != header.digest:
        raise ValueError("its digest doesn't fit those of its columns")
    return header


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"its description has {value!r:.60} where a text should be")
    return value


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**62:
        raise ValueError(f"its description has {value!r:.60} where a number should be")
    return value


def _columns(data: bytes, header: Header, wanted: Sequence[Field]) -> dict[str, Column]:
    if not wanted:
        return {}
    # Given all of them, Arrow would copy what it can share.
    positions = [header.fields.index(f) for f in wanted] if len(wanted) < len(header.fields) else None
    options = ipc.IpcReadOptions(use_threads=False, included_fields=positions)
    count = math.prod(header.extents[d] for d in header.row_dims)
    with ipc.open_file(pa.py_buffer(data), options=options) as reader:
        if reader.num_record_batches != (-(-count // header.step) if header.step else max(1, len(header.groups))):
            raise ValueError("it has another number of record batches than described")
        if header.step:
            return _joined(reader, header, wanted, count)
        batch = reader.read_all().combine_chunks().to_batches()[0] if header.groups and header.rows \
            else reader.get_batch(0)
    _fits(batch, wanted, count)
    return {f.name: from_arrow(f, array, header.row_dims, header.extents)
            for f, array in zip(wanted, batch.columns, strict=True)}


def _joined(reader: Any, header: Header, wanted: Sequence[Field], count: int) -> dict[str, Column]:
    """Columns from their pieces, of which one is decompressed at a time."""
    columns = {f.name: Whole(f, header.row_dims, header.extents, f.name in header.planes) for f in wanted}
    for number in range(reader.num_record_batches):
        batch = reader.get_batch(number)
        _fits(batch, wanted, min(header.step, count - number * header.step))
        for column, array in zip(columns.values(), batch.columns, strict=True):
            column.add(array)
    return {name: column.column() for name, column in columns.items()}


def _fits(batch: pa.RecordBatch, wanted: Sequence[Field], rows: int) -> None:
    batch.validate(full=True)
    if batch.schema.names != [f.name for f in wanted]:
        raise ValueError("its columns aren't those it describes")
    if batch.num_rows != rows:
        raise ValueError("its number of rows isn't the one it describes")
