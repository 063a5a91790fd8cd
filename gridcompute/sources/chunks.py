"""Stored chunks of a local Zarr array, decoded straight into the memory that is handed out.

zarr-python stays the plain way: it reads everything. What it costs beside the codec, an event loop and a copy or two a
chunk, is saved here for the arrays that most are: C order, numbers, one compressor or none, no shards, a folder.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gridcompute.sources.bloscs import block_bytes, blocks_of, decode_blocks, decode_runs
from gridcompute.sources.buffers import BUFFERS
from gridcompute.sources.contained import opened

Array = np.ndarray[Any, Any]

_BYTES_BYTES = {"ZstdCodec": "zstd", "BloscCodec": "blosc", "GzipCodec": "gzip"}
"""Codecs of format 3 that are numcodecs' own, with their names there."""

RUNS_BYTES = 8 * 2**20
"""Of a chunk, from which its file is decoded as it is read, where its codec allows that."""

_MOST = 2
"""Times what a chunk should hold that a header may claim; what is decoded is compared with what it should be."""

Held = tuple[tuple[Any, ...], Array, Array | None]
"""The version of a chunk's file, its memory, and which of its blocks are decoded there; None where all are."""

_own = threading.local()


def _zstd_size(data: memoryview) -> int | None:
    """Decoded bytes by a Zstandard frame's header (RFC 8878, 3.1.1), None where it doesn't say."""
    if len(data) < 6 or bytes(data[:4]) != b"\x28\xb5\x2f\xfd":
        return None
    descriptor = data[4]
    single, flag = descriptor >> 5 & 1, descriptor >> 6
    width = (single, 2, 4, 8)[flag]
    start = 5 + (1 - single) + (0, 1, 2, 4)[descriptor & 3]
    size = int.from_bytes(data[start : start + width], "little") + 256 * (flag == 1)
    return size if width and len(data) >= start + width else None


def _blosc_size(data: memoryview) -> int | None:
    """Decoded bytes by the header of a Blosc buffer; ValueError for one that is cut off: Blosc reads past its end."""
    stored = int.from_bytes(data[12:16], "little")
    if len(data) < 16 or stored > len(data):
        raise ValueError(f"it is {len(data)} bytes long, and its header says {stored}: it was cut off")
    if stored < len(data):
        return None
    return int.from_bytes(data[4:8], "little")


def _lz4_size(data: memoryview) -> int | None:
    """Decoded bytes as numcodecs puts them before an LZ4 block."""
    return int.from_bytes(data[:4], "little") if len(data) > 4 else None


_SIZES: Mapping[str, Callable[[memoryview], int | None]] = {
    "zstd": _zstd_size, "blosc": _blosc_size, "lz4": _lz4_size, "gzip": lambda data: None, "zlib": lambda data: None,
}  # fmt: skip
"""How many bytes a compressor's output says it holds; what it doesn't say is found by decoding into new memory."""


@dataclass(frozen=True)
class StoredChunks:
    """A local Zarr array whose chunk files can be decoded one by one.

    Attributes:
        folder: of the array.
        shape: of the array.
        chunks: extents of a chunk; those at the end are stored whole.
        dtype: as stored, in its byte order.
        fill: value of the chunks that have no file.
        compressor: numcodecs' codec, or None.
        key: path of a chunk file by its place.
    """

    folder: str
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: np.dtype[Any]
    fill: Any
    compressor: Any
    key: Callable[[tuple[int, ...]], str]

    @classmethod
    def of(cls, array: Any, folder: str) -> StoredChunks | None:
        """How to read a `zarr.Array` that lies in a folder; None for one that zarr-python must read."""
        dtype, metadata = array.dtype, array.metadata
        if not array.ndim or not isinstance(dtype, np.dtype) or dtype.kind not in "biuf" or 0 in array.shape:
            return None
        if metadata.zarr_format == 2:
            known = metadata.compressor is None or getattr(metadata.compressor, "codec_id", "") in _SIZES
            if metadata.order != "C" or metadata.filters or not known:
                return None
            compressor, stored = metadata.compressor, np.dtype(dtype)
        else:
            codecs = [type(codec).__name__ for codec in metadata.codecs]
            regular = type(metadata.chunk_grid).__name__ == "RegularChunkGrid" and not metadata.storage_transformers
            if not regular or codecs[0] != "BytesCodec" or codecs[1:] not in ([], *([c] for c in _BYTES_BYTES)):
                return None
            import numcodecs

            compressor = numcodecs.get_codec({"id": _BYTES_BYTES[codecs[1]]}) if codecs[1:] else None
            endian = metadata.codecs[0].endian
            stored = np.dtype(dtype).newbyteorder(endian.value if endian is not None else "=")
        fill = stored.type(0) if metadata.fill_value is None else metadata.fill_value
        return cls(folder, tuple(array.shape), tuple(array.chunks), stored, fill, compressor, metadata.encode_chunk_key)

    def read(self, where: Sequence[slice]) -> Array:
        """A box of values, in their stored byte order; its memory is used again once nobody looks into it.

        Within `keeping` a box that lies in one stored chunk is a read-only view of it.

        Raises:
            OSError: a chunk file can't be read.
            Exception: a codec's own, of a chunk that can't be decoded; ValueError of one with too few bytes or many.
        """
        shape = tuple(part.stop - part.start for part in where)
        spans = [range(part.start // n, -(-part.stop // n)) for part, n in zip(where, self.chunks, strict=True)]
        if _kept() is not None and shape != self.chunks and all(len(span) == 1 for span in spans):
            first = [span[0] * n for span, n in zip(spans, self.chunks, strict=True)]
            inside = tuple(slice(part.start - at, part.stop - at) for part, at in zip(where, first, strict=True))
            everything = tuple(slice(0, n) for n in self.chunks)  # as the other pieces are read next
            view: Array = self._holding(tuple(span[0] for span in spans), everything)[inside]
            view.flags.writeable = False
            return view
        out = BUFFERS.array(shape, self.dtype)
        for place in itertools.product(*spans):
            first = [i * n for i, n in zip(place, self.chunks, strict=True)]
            common = [(max(part.start, at), min(part.stop, at + n))
                      for part, at, n in zip(where, first, self.chunks, strict=True)]
            target = out[tuple(slice(lo - part.start, hi - part.start)
                               for (lo, hi), part in zip(common, where, strict=True))]
            if target.shape == self.chunks and target.flags.c_contiguous:
                self._decode(place, target)
                continue
            box = tuple(slice(lo - at, hi - at) for (lo, hi), at in zip(common, first, strict=True))
            target[...] = self._holding(place, box)[box]
        return out

    def _holding(self, place: tuple[int, ...], box: tuple[slice, ...]) -> Array:
        """A chunk with the part that is wanted; a thread keeps the last one: the next box often wants another part."""
        name = os.path.join(self.folder, self.key(place))
        version: tuple[Any, ...] = (name, self.chunks, self.dtype.str)
        with contextlib.suppress(OSError):  # else decoding tells
            status = os.stat(name)
            version = (*version, status.st_size, status.st_mtime_ns, status.st_ino)
        kept, last = _kept(), getattr(_own, "last", None)
        found: Held | None = last if last and last[0] == version else (kept or {}).get(version)
        if found is None:
            _own.last = last = None  # before there is memory for another one
        _, chunk, there = found or (version, BUFFERS.array(self.chunks, self.dtype), None)
        if found is None or (there is not None and not there.all()):
            there = self._more(place, chunk, box, there)
            if there is None:
                self._decode(place, chunk)
        _own.last = (version, chunk, there)
        if kept is not None:
            kept[version] = _own.last
        return chunk

    def _more(self, place: tuple[int, ...], chunk: Array, box: tuple[slice, ...], there: Array | None) -> Array | None:
        """Decode the blocks that a box needs beside those that are there: which are now; None for all at once."""
        everything = there is None and all((part.start, part.stop) == (0, n) for part, n in
                                           zip(box, self.chunks, strict=True))
        if everything or getattr(self.compressor, "codec_id", "") != "blosc":
            return None
        with contextlib.suppress(FileNotFoundError, IsADirectoryError, NotADirectoryError), opened(
                self.folder, os.path.join(self.folder, self.key(place))) as file:
            def read(start: int, stop: int) -> bytes:
                return os.pread(file.fileno(), stop - start, start)

            size, stored = block_bytes(read), os.fstat(file.fileno()).st_size
            if not size or 4 * (chunk.nbytes // size) > stored:  # each block has a place in the header
                return None
            wanted, raw = blocks_of(self.chunks, self.dtype.itemsize, box, size), chunk.reshape(-1).view(np.uint8)
            there = np.zeros(len(wanted), bool) if there is None else there
            decode_blocks(self.compressor, read, stored, raw, wanted & ~there)
            return there | wanted
        return None

    @property
    def blocks(self) -> tuple[int, ...]:
        """Extents of what is decoded at least for one value: of a block of the first chunk, or of a chunk."""
        if getattr(self.compressor, "codec_id", "") != "blosc":
            return self.chunks
        room, found = 0, list(self.chunks)
        with contextlib.suppress(FileNotFoundError, IsADirectoryError, NotADirectoryError), opened(
                self.folder, os.path.join(self.folder, self.key((0,) * len(self.shape)))) as file:
            room = block_bytes(lambda start, stop: os.pread(file.fileno(), stop - start, start)) // self.dtype.itemsize
        for i in range(len(found)):
            inner = math.prod(found[i + 1:])
            if room:
                found[i] = max(1, min(found[i], -(-room // inner)))
        return tuple(found)

    def _decode(self, place: tuple[int, ...], target: Array) -> None:
        """Put a whole chunk into contiguous memory."""
        name = self.key(place)
        size = math.prod(self.chunks) * self.dtype.itemsize
        raw = target.reshape(-1).view(np.uint8)
        if size >= RUNS_BYTES and self._in_runs(name, raw):
            return
        data = _content(self.folder, os.path.join(self.folder, name))
        if data is None:
            target[...] = self.fill
            return
        # Into the target only what says that it fills it: a shorter chunk would leave old values behind.
        said = None if self.compressor is None else _SIZES[self.compressor.codec_id](data)
        if said == size:
            self.compressor.decode(data, raw)
            return
        if said is not None and said > _MOST * size:
            raise ValueError(f"chunk {name} says that it holds {said} bytes, not {size}")
        decoded = np.frombuffer(data if self.compressor is None else _unpacked(self.compressor, data, size), np.uint8)
        if decoded.size != size:
            raise ValueError(f"chunk {name} holds {decoded.size} bytes, not {size}")
        raw[:] = decoded


    def _in_runs(self, name: str, raw: Array) -> bool:
        """Decode a chunk whose file needn't be in memory as a whole; False where that can't be done."""
        if getattr(self.compressor, "codec_id", "") != "blosc":
            return False
        try:
            file = opened(self.folder, os.path.join(self.folder, name))
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return False
        with file:
            def into(start: int, room: memoryview) -> int:
                filled = 0
                while filled < len(room) and (count := os.preadv(file.fileno(), [room[filled:]], start + filled)):
                    filled += count
                return filled

            return decode_runs(self.compressor, into, os.fstat(file.fileno()).st_size, raw, _memory)


def _unpacked(compressor: Any, data: memoryview, size: int) -> Any:
    """Decoded bytes; at most one more than there should be, as what isn't said beforehand may be without bound."""
    if compressor.codec_id in ("gzip", "zlib", "zstd"):
        import pyarrow as pa

        kind = "zstd" if compressor.codec_id == "zstd" else "gzip"  # which takes either header
        with pa.CompressedInputStream(pa.BufferReader(bytes(data)), kind) as stream:
            return stream.read(size + 1)
    if compressor.codec_id == "blosc" and int.from_bytes(data[4:8], "little") > _MOST * size:
        raise ValueError(f"it says that it holds {int.from_bytes(data[4:8], 'little')} bytes, not {size}")
    return compressor.decode(bytes(data))


def forget() -> None:
    """Let go of the chunk that this thread keeps, and of the memory that it reads files into."""
    _own.last = _own.memory = None


@contextlib.contextmanager
def keeping() -> Iterator[None]:
    """While it lasts this thread keeps every stored chunk of which it reads a part: a tile is read piece by piece."""
    _own.kept = {}
    try:
        yield
    finally:
        _own.kept = None


def _kept() -> dict[tuple[Any, ...], Held] | None:
    found: dict[tuple[Any, ...], Held] | None = getattr(_own, "kept", None)
    return found


def _memory(size: int) -> memoryview:
    """So many bytes of this thread, those of the last call again."""
    memory = getattr(_own, "memory", None)
    if memory is None or len(memory) < size:
        memory = _own.memory = np.empty(size + size // 4, np.uint8)  # whose room to spare isn't written to
    view: memoryview = memory.data[:size]
    return view


def _content(folder: str, path: str) -> memoryview | None:
    """A file's bytes, in memory of this thread that the next call overwrites; None where there is no file."""
    try:
        file = opened(folder, path)  # a chunk that isn't there is no error
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return None
    with file:
        size = os.fstat(file.fileno()).st_size
        view, filled = _memory(size), 0
        while filled < size and (count := file.readinto(view[filled:])):
            filled += count
        return view[:filled]
