"""Some groups of a kept block, by one read of its shard (see `gridcompute.rowgroups`)."""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Callable

import pyarrow as pa
from pyarrow import ipc

from gridcompute.arrowcolumns import from_arrow
from gridcompute.columns import Block, Column
from gridcompute.errors import CorruptShardError
from gridcompute.ipcsizes import check_message
from gridcompute.rowgroups import seal_rows
from gridcompute.shardfile import BROKEN, HEAD_BYTES, MAX_BYTES, Header, broken, read_head

_HEADS = 1024
_heads: OrderedDict[str, tuple[Header, pa.Schema, int]] = OrderedDict()
"""Of this process: descriptions of shards that were read last, by what their store and name are."""


def read_groups(read: Callable[[int, int], bytes], first: int, last: int, *, path: str, store: str) -> list[Block]:
    """Groups `first` to `last` (exclusive) of a stored shard.

    Args:
        read: its bytes from one position to another.
        first: number of the first group.
        last: of the one after the last.
        path: the shard's name.
        store: where it lies.

    Raises:
        CorruptShardError: anything wrong with the bytes.
        FileNotFoundError: there is no such shard.
    """
    key, early = f"{store} {path}", b""
    known = _heads.get(key)
    if known is None:
        early = read(0, HEAD_BYTES)
        known = read_head(lambda start, stop: early[start:stop] if stop <= HEAD_BYTES else read(start, stop), path=path)
    _heads[key] = known
    _heads.move_to_end(key)
    while len(_heads) > _HEADS:
        _heads.popitem(last=False)
    header, schema, begin = known
    if not 0 <= first <= last <= len(header.groups):
        raise CorruptShardError(f"the shard {path} is corrupt: it has {len(header.groups)} groups", path=path)
    sizes = [size for _, size, _ in header.groups]
    start, stop = begin + sum(sizes[:first]), begin + sum(sizes[:last])
    try:
        # A small shard came as a whole with its head.
        data = memoryview(early[start:stop] if stop <= len(early) else read(start, stop) if first < last else b"")
        blocks = []
        for number in range(first, last):
            blocks.append(_group(header, schema, number, data[:sizes[number]]))
            data = data[sizes[number]:]
        return blocks
    except FileNotFoundError:
        raise
    except BROKEN as error:
        raise broken(path, error) from error


def _group(header: Header, schema: pa.Schema, number: int, data: memoryview) -> Block:
    end, size, check = header.groups[number]
    rows = end - (header.groups[number - 1][0] if number else 0)
    if len(data) != size:
        raise ValueError("it is cut off")
    mark, length = struct.unpack_from("<Ii", data)
    if mark != 0xFFFFFFFF or not 0 < length <= size - 8:
        raise ValueError("a record batch's length is wrong")
    check_message(data, 8 + length, MAX_BYTES)
    batch = ipc.read_record_batch(pa.py_buffer(data), schema)
    batch.validate(full=True)
    if batch.num_rows != rows:
        raise ValueError("a group's number of rows isn't the one it describes")
    dims = header.row_dims
    extents = {**header.extents, dims[0]: rows}
    columns: dict[str, Column] = {field.name: from_arrow(field, array, dims, extents)
                                  for field, array in zip(header.fields, batch.columns, strict=True)}
    if seal_rows(columns, 0, rows) != check:
        raise ValueError("the values of a group don't match their checksum")
    return Block(header.region, columns, rows)
