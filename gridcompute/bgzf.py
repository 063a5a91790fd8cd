"""BGZF: gzip in blocks of at most 64 KiB, so that a reader can begin at any of them (SAM specification, section 4.1).

A virtual offset names a place: where its block begins in the file, times 65,536, plus the place in the block's bytes.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from isal import igzip_lib, isal_zlib

from gridcompute.columns import Array

BLOCK = 65_280
"""Bytes that are compressed into one block, as htslib cuts them."""

LEVEL = 1
"""Of ISA-L: as small as zlib's level 6 on aligned reads within 1 %, twenty times as fast."""

END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
"""The empty block that ends a file: a reader that doesn't find it warns that the file is cut off."""

_HEAD = struct.Struct("<4s6B2s2sHH")
_TAIL = struct.Struct("<II")
_STORED = struct.Struct("<BHH")


def compress(data: Any, level: int = LEVEL) -> tuple[bytes, Array]:
    """Bytes as BGZF blocks, without the one that ends a file.

    Args:
        data: anything with the buffer protocol; of bytes.
        level: 0 to 3, of ISA-L.

    Returns:
        The blocks, and int64 of shape (blocks + 1,): where each begins, then their length in all.
    """
    view = memoryview(data).cast("B")
    pieces: list[bytes] = []
    ends = [0]
    for start in range(0, len(view), BLOCK):
        pieces.append(block(view[start:start + BLOCK], level))
        ends.append(ends[-1] + len(pieces[-1]))
    return b"".join(pieces), np.array(ends, np.int64)


def block(data: Any, level: int = LEVEL) -> bytes:
    """At most `BLOCK` bytes as one block."""
    raw = igzip_lib.compress(data, level, igzip_lib.COMP_DEFLATE)
    if len(raw) > len(data) + _STORED.size:  # what can't be compressed is stored, so that a block's size fits 16 bits
        raw = _STORED.pack(1, len(data), len(data) ^ 0xFFFF) + bytes(data)
    head = _HEAD.pack(b"\x1f\x8b\x08\x04", 0, 0, 0, 0, 0, 255, b"\x06\x00", b"BC", 2, len(raw) + 25)
    return head + raw + _TAIL.pack(isal_zlib.crc32(data), len(data))


def virtual_offsets(begins: Array, places: Array) -> Array:
    """Virtual offsets (int64) of places in the bytes that were compressed.

    Args:
        begins: of the blocks, as `compress` gives them.
        places: int64, 0 to the number of bytes.
    """
    blocks = places // BLOCK
    offsets: Array = (begins[blocks] << 16) | (places - blocks * BLOCK)
    return offsets


def shifted(offsets: Array, by: int) -> Array:
    """Virtual offsets of the same places when so many bytes lie before the blocks."""
    moved: Array = offsets + (by << 16)
    return moved
