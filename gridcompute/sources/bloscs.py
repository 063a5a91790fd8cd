"""Some blocks of a Blosc buffer: it is made of blocks that are compressed one by one, 128 KiB or so each.

A part of a large chunk needs a few of its blocks. They are decoded from a buffer of their own, which is put together
from the whole one's header and their bytes (c-blosc 1, README_CHUNK_FORMAT).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

HEADER = 16
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
    count = len(wanted)
    front = read(0, HEADER + 4 * count)
    if len(front) < HEADER + 4 * count:
        raise ValueError("its header is cut off")
    total, size, said = struct.unpack_from("<III", front, 4)
    if total != raw.size or not size or count != -(-total // size) or stored != said:
        raise ValueError("its header doesn't fit its size")
    begins = np.frombuffer(front, "<u4", count, HEADER).astype(np.int64)
    ends = np.empty(count, np.int64)
    order = np.argsort(begins, kind="stable")  # threads write blocks as they end
    ends[order] = np.append(begins[order[1:]], stored)
    if count and (begins.min() < HEADER + 4 * count or begins.max() >= stored):
        raise ValueError("the places of its blocks are wrong")
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
