"""Some blocks of a Blosc buffer: it is made of blocks that are compressed one by one, 128 KiB or so each.

A part of a large chunk needs a few of its blocks. They are decoded from a buffer of their own, which is put together
from the whole one's header and their bytes (c-blosc 1, README_CHUNK_FORMAT).
"""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

HEADER = 16
RUN_BYTES = 2**20
"""Of a buffer's blocks that are read at a time: they stay in the cache until they are decoded."""

_COPIED = 0x02  # flag: the values follow as they are


Bytes = Callable[[int, int], bytes]
"""A buffer's bytes from one position to another."""


def block_bytes(read: Bytes) -> int:
    """Bytes of a block by a buffer's header; 0 where it isn't made of blocks."""
    head = read(0, HEADER)
    return 0 if len(head) < HEADER or head[2] & _COPIED else int(struct.unpack_from("<I", head, 8)[0])


def blocks_of(shape: Sequence[int], itemsize: int, box: Sequence[slice], size: int) -> Array:
    """Which blocks of `size` bytes hold values of a box of an array in C order: a boolean for each."""
    blocks = -(-math.prod(shape) * itemsize // size)
    inner = len(shape)
    while inner and (inner == len(shape) or (box[inner].start, box[inner].stop) == (0, shape[inner])):
        inner -= 1  # dimensions behind this one are whole: a run of values is one of positions along it
    strides = [math.prod(shape[i + 1:]) * itemsize for i in range(len(shape))]
    starts = np.zeros(1, np.int64)
    for i in range(inner):
        starts = (starts[:, None] + np.arange(box[i].start, box[i].stop) * strides[i]).reshape(-1)
    length = (box[inner].stop - box[inner].start) * strides[inner]
    starts = starts + box[inner].start * strides[inner]
    edges = np.zeros(blocks + 1, np.int64)
    np.add.at(edges, starts // size, 1)
    np.add.at(edges, (starts + length - 1) // size + 1, -1)
    return np.cumsum(edges[:-1]) > 0


def _blocks(read: Bytes, stored: int, total: int, count: int) -> tuple[bytes, int, Array, Array]:
    """A buffer's header, the bytes of its blocks, and where each begins and ends."""
    front = read(0, HEADER + 4 * count)
    if len(front) < HEADER + 4 * count:
        raise ValueError("its header is cut off")
    holds, size, said = struct.unpack_from("<III", front, 4)
    if total != holds or not size or count != -(-total // size) or stored != said:
        raise ValueError("its header doesn't fit its size")
    begins = np.frombuffer(front, "<u4", count, HEADER).astype(np.int64)
    ends = np.empty(count, np.int64)
    order = np.argsort(begins, kind="stable")  # threads write blocks as they end
    ends[order] = np.append(begins[order[1:]], stored)
    if count and (begins.min() < HEADER + 4 * count or begins.max() >= stored):
        raise ValueError("the places of its blocks are wrong")
    return front, size, begins, ends


def decode_runs(codec: Any, into: Callable[[int, memoryview], int], stored: int, raw: Array,
                memory: Callable[[int], memoryview]) -> bool:
    """Decode all of a large buffer, of whose bytes a megabyte is in memory at a time.

    Args:
        codec: numcodecs' Blosc.
        into: fills memory with the buffer's bytes from a position on: how many there were.
        stored: how many it has.
        raw: bytes of all values.
        memory: so many bytes, those of the call before again.

    Returns:
        Whether it was decoded; False where its blocks don't lie one after the other, or there is something wrong.
    """
    def read(start: int, stop: int) -> bytes:
        some = bytearray(stop - start)
        return bytes(some[:into(start, memoryview(some))])

    size = block_bytes(read)
    count = -(-raw.size // size) if size else 0
    if not size or 8 * count > stored:  # or it is hardly more than its header
        return False
    try:
        front, size, begins, ends = _blocks(read, stored, raw.size, count)
    except ValueError:
        return False
    if (begins[1:] != ends[:-1]).any():
        return False
    cuts = np.unique(np.searchsorted(begins, np.arange(begins[0], stored, RUN_BYTES)))
    # A short block at the end isn't a buffer: none may have more than it holds.
    cuts = np.append(cuts[cuts < count - 1] if count > 1 else cuts[:1], count)
    for first, last in itertools.pairwise(cuts.tolist()):
        lo, hi, head = first * size, min(last * size, raw.size), HEADER + 4 * (last - first)
        length = head + int(ends[last - 1] - begins[first])
        data = memory(length)
        data[:HEADER] = front[:4] + struct.pack("<III", hi - lo, size, length)
        data[HEADER:head] = (begins[first:last] - begins[first] + head).astype("<u4").tobytes()
        if into(int(begins[first]), data[head:]) != length - head:
            raise ValueError("its blocks are cut off")
        codec.decode(data, raw[lo:hi])
    return True


def decode_blocks(codec: Any, read: Bytes, stored: int, raw: Array, wanted: Array) -> None:
    """Decode some blocks into their places.

    Args:
        codec: numcodecs' Blosc.
        read: bytes of the whole buffer.
        stored: how many it has.
        raw: bytes of all values.
        wanted: which blocks.

    Raises:
        ValueError: the buffer's header is wrong.
    """
    count, total = len(wanted), raw.size
    front, size, begins, ends = _blocks(read, stored, total, count)
    edges = np.flatnonzero(np.diff(wanted.astype(np.int8), prepend=0, append=0))
    for first, last in edges.reshape(-1, 2).tolist():
        first -= 0 < first == count - 1  # a short block at the end isn't a buffer: none may have more than it holds
        sizes = ends[first:last] - begins[first:last]
        places = HEADER + 4 * (last - first) + np.cumsum(sizes) - sizes
        lo, hi = first * size, min(last * size, total)
        head = front[:4] + struct.pack("<III", hi - lo, size, int(places[-1] + sizes[-1]))
        follow = (begins[first + 1: last] == ends[first: last - 1]).all()
        runs = [(begins[first], ends[last - 1])] if follow else list(zip(begins, ends, strict=True))[first:last]
        data = b"".join([head, places.astype("<u4").tobytes(), *(read(int(a), int(b)) for a, b in runs)])
        if len(data) != places[-1] + sizes[-1]:
            raise ValueError("its blocks are cut off")
        codec.decode(data, raw[lo:hi])
