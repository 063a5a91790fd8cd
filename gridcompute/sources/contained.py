"""What a Zarr store from outside can't do: lead out of its folder, have unknown codecs run, claim what nothing holds.

Its metadata is read before anything else of it, and says how the rest is to be read: so it is judged first.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

from gridcompute.errors import CorruptInputError

MOST_BYTES = 2**30
"""Decoded bytes of a coordinate, and of a stored chunk that is larger than its array."""

MOST_METADATA = 2**28
"""Bytes of a metadata file; consolidated metadata of ten thousand arrays has a tenth of that."""

_METADATA = ("zarr.json", ".zgroup", ".zarray", ".zattrs", ".zmetadata")
_CODECS = frozenset({
    "bytes", "endian", "transpose", "sharding_indexed", "vlen-utf8", "vlen-bytes", "crc32c",
    "blosc", "zstd", "gzip", "zlib", "bz2", "lzma", "lz4", "pcodec", "zfpy",
    "delta", "fixedscaleoffset", "quantize", "bitround", "packbits", "shuffle", "astype", "categorize", "vlen-array",
    "adler32", "crc32", "fletcher32", "jenkins_lookup3",
})  # fmt: skip
"""Formats 2 and 3 together. Left out: pickle, which runs code; msgpack2, json2 and base64, which no array needs."""


def require_sound(name: str, array: Any, where: str) -> None:
    """Refuse an array by its metadata: its name, its codecs, a chunk that is far larger than itself.

    Raises:
        CorruptInputError: what is wrong with it.
    """
    if not name or name in (".", "..") or "/" in name or "\\" in name or not name.isprintable():
        raise _unsound(where, f"an array is named {name!r:.60}", "an array's name is one part of a path")
    unknown = [codec for codec in _named(array) if codec.removeprefix("numcodecs.") not in _CODECS]
    if unknown:
        raise _unsound(where, f"array {name!r} is stored with the codec {unknown[0]!r:.60}",
                       "only well-known codecs are decoded, as others may run code; write it with one of those")
    shape, item = tuple(array.shape), int(getattr(array.dtype, "itemsize", 1))
    stored = tuple(getattr(array, "shards", None) or getattr(array, "chunks", None) or shape)
    beyond = any(c > n for c, n in zip(stored, shape, strict=False))
    if (beyond and math.prod(stored) * item > MOST_BYTES) or item > MOST_BYTES // 1024:
        raise _unsound(where, f"array {name!r} of shape {shape} has chunks of {stored}, {item} bytes a value",
                       "no chunk may be so much larger than what is in it")


def require_small(name: str, array: Any, where: str) -> None:
    """Refuse a coordinate that wouldn't fit in memory beside everything else."""
    if math.prod(array.shape) * int(getattr(array.dtype, "itemsize", 1)) > MOST_BYTES:
        raise _unsound(where, f"coordinate {name!r} has {math.prod(array.shape):,} values", "leave it out of the store")


def require_inside(root: str, path: str) -> None:
    """Refuse a path that symbolic links lead out of a folder (CorruptInputError)."""
    real, top = os.path.realpath(path), _real(root)
    if real != top and not real.startswith(top.rstrip("/") + "/"):
        raise _unsound(root, f"a symbolic link leads out of it: {os.path.relpath(path, root)}",
                       "put the file itself in its place")


@lru_cache(maxsize=4096)
def _real(folder: str) -> str:
    return os.path.realpath(folder)


@lru_cache(maxsize=4096)
def require_folder_inside(root: str, folder: str) -> None:
    """`require_inside` of a folder, looked at once a process."""
    require_inside(root, folder)


def opened(root: str, path: str) -> Any:
    """A file below a folder, opened to read without a buffer; CorruptInputError where a link leads out of the folder.

    The folders on the way are looked at once a process.
    """
    require_folder_inside(root, os.path.dirname(path))

    def plainly(name: str, flags: int) -> int:
        try:
            return os.open(name, flags | os.O_NOFOLLOW)
        except OSError:
            if not os.path.islink(name):
                raise
        require_inside(root, name)
        return os.open(name, flags)

    return open(path, "rb", buffering=0, opener=plainly)


@lru_cache(maxsize=1)
def _kind() -> Any:
    from zarr.storage import LocalStore

    class Contained(LocalStore):
        """Zarr's store in a folder, but that no link leads out of it and metadata has a bound."""

        async def get(self, key: str, *arguments: Any, **options: Any) -> Any:
            """See `zarr.abc.store.Store`."""
            path = os.path.join(str(self.root), key)
            require_inside(str(self.root), path)
            if key.rpartition("/")[2] in _METADATA and os.path.isfile(path) and os.path.getsize(path) > MOST_METADATA:
                raise _unsound(str(self.root), f"{key} has {os.path.getsize(path):,} bytes", "metadata is smaller")
            return await super().get(key, *arguments, **options)

    return Contained


def store(root: str) -> Any:
    """Zarr's own store of a local folder, read-only, that isn't left."""
    return _kind()(root, read_only=True)


def _named(array: Any) -> Iterator[str]:
    """Names of all codecs of an array, those within shards too."""
    metadata = array.metadata
    if metadata.zarr_format == 2:
        for codec in (metadata.compressor, *(metadata.filters or ())):
            if codec is not None:
                yield str(getattr(codec, "codec_id", type(codec).__name__))
    else:
        yield from _of(metadata.to_dict()["codecs"])


def _of(codecs: Iterable[Any]) -> Iterator[str]:
    for codec in codecs:
        values = codec if isinstance(codec, dict) else codec.to_dict()
        yield str(values["name"])
        inner = values.get("configuration") or {}
        for part in ("codecs", "index_codecs"):
            yield from _of(inner.get(part) or ())


def _unsound(where: str, what: str, hint: str) -> CorruptInputError:
    return CorruptInputError(f"{where}: {what}", hint=hint)
