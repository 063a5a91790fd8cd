"""Zarr stores, format 2 and 3, read by zarr-python: only the chunks that a region touches."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import math
import os
import struct
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from gridcompute.auxiliary import Auxiliary
from gridcompute.columns import Block, Column, Field, field_region
from gridcompute.coords import Coordinate
from gridcompute.errors import GridError, MissingInputError
from gridcompute.keys import digest
from gridcompute.secrecy import clean, learn
from gridcompute.sources import contained, references
from gridcompute.sources.auxiliaries import auxiliaries
from gridcompute.sources.base import chosen, narrowed, require_within
from gridcompute.sources.chunks import StoredChunks
from gridcompute.sources.contained import require_folder_inside, require_small, require_sound
from gridcompute.sources.decoding import Decoding, Described, Variable, coordinate_of
from gridcompute.sources.files import (
    VERIFY,
    OpenFiles,
    broken,
    filesystem,
    identity,
    is_remote,
    plain_path,
    signed_in,
    stamp_of,
)
from gridcompute.spaces import Region, Space

_OPEN = OpenFiles(64)
_LISTED = 10.0  # seconds for which a listing of a remote array's chunks is believed
MOST_FILES = 2**20
"""Chunk files of one array that a task may read."""

_METADATA = ("zarr.json", ".zgroup", ".zarray", ".zmetadata")


@dataclass(frozen=True, eq=False)
class ZarrSource:
    """A group (or a single array) of a Zarr store; see `open_zarr`.

    Attributes:
        layouts: per column the array's path, a digest of its metadata less its shape, and the extents of its
            chunk files (shards where it has them).
        least: extents of what is decoded at least where a part of a stored chunk is read; empty for all of it.
    """

    url: str
    space: Space
    fields: tuple[Field, ...]
    coords: tuple[Coordinate, ...]
    stored: tuple[tuple[str, int], ...]
    stored_bytes: int
    decodings: tuple[tuple[str, Decoding], ...]
    layouts: tuple[tuple[str, tuple[str, str, tuple[int, ...]]], ...]
    left_out: tuple[tuple[str, str], ...] = ()
    least: tuple[tuple[str, int], ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    auxiliary: tuple[Auxiliary, ...] = ()

    @property
    def decoding(self) -> object:
        """What determines values but for the store."""
        kept = {f.name for f in self.fields}
        return [(name, decoding.key) for name, decoding in self.decodings if name in kept]

    @property
    def remote(self) -> bool:
        """See `Source`."""
        return is_remote(self.url)

    @property
    def key(self) -> object:
        """See `Source`."""
        return ("zarr", self.url, self.decoding)

    @property
    def uniform(self) -> bool:
        """See `Source`: only a zipped store is one object."""
        return self._zipped

    @property
    def piecewise(self) -> bool:
        """Whether reading stored chunks one by one costs no more than several at once: they are decoded directly."""
        folders = [f"{self.url}/{path}" if path else self.url for _, (path, *_) in self.layouts]
        return not is_remote(self.url) and all(_chunks(folder) is not None for folder in folders)

    @property
    def _zipped(self) -> bool:
        return not is_remote(self.url) and os.path.isfile(self.url)

    def objects(self, region: Region) -> tuple[str, ...]:
        """See `Source`: the chunk files that the region touches (absent ones too), and metadata."""
        if self._zipped:
            return (identity(self.url, self.options),)
        group, found, layouts = _group(self.url, self.options), [], dict(self.layouts)
        for f in self.fields:
            path, metadata, extents = layouts[f.name]
            decoding = dict(self.decodings)[f.name]
            where = dict(zip(self.space.names, region.bounds, strict=True))
            ranges = [
                range(where[dim][0] // n, -(-where[dim][1] // n)) for dim, n in zip(decoding.dims, extents, strict=True)
            ]
            if math.prod(map(len, ranges)) > MOST_FILES:
                raise broken(self.url, f"array {f.name!r}", f"{math.prod(map(len, ranges)):,} files hold {region}",
                             instead="write it with larger chunks")
            encode = _array(group, path).metadata.encode_chunk_key
            found.append(f"{path}|{metadata}")
            found += self._versions(path, (encode(place) for place in itertools.product(*ranges)))
        return tuple(sorted(found))

    def _versions(self, path: str, keys: Iterator[str]) -> Iterator[str]:
        verify = os.environ.get(VERIFY, "0") not in ("", "0")
        if self.url.startswith(references.SCHEME):
            yield from references.versions(_group(self.url, self.options), path, keys, verify)
            return
        root = f"{self.url}/{path}" if path else self.url
        listing = _listing(root, self.options) if is_remote(root) else None
        for key in keys:
            if listing is not None and not verify:
                yield f"{path}/{key}|{listing.get(key, 'absent')}"
                continue
            try:
                yield f"{path}/{key}|{identity(f'{root}/{key}', self.options, verify).rpartition('|')[2]}"
            except MissingInputError:
                yield f"{path}/{key}|absent"

    def read(self, region: Region, names: Sequence[str]) -> Block:
        """See `Source`."""
        require_within(self.space, region)
        fields, decodings = chosen(self.fields, names, self.url, self.left_out), dict(self.decodings)
        where = dict(zip(self.space.names, region.slices, strict=True))
        columns: dict[str, Column] = {}
        for f in fields:
            decoding = decodings[f.name]
            try:
                raw = self._raw(f.name, tuple(where[dim] for dim in decoding.dims))
            except GridError:
                raise
            except Exception as error:  # codecs raise errors of their own
                raise broken(self.url, f"array {f.name!r}, region {region}", error) from clean(error)
            same = decoding.kind == "text" or _alike(raw.dtype, decoding.dtype)
            if not same or raw.shape != field_region(self.space, region, decoding.dims).shape:
                raise broken(self.url, f"array {f.name!r}", "it has changed since it was opened")
            columns[f.name] = decoding.decode(raw, f.dims)
        return Block(region, columns, region.shape[0] if region.bounds else 1)

    def _raw(self, name: str, where: tuple[slice, ...]) -> Any:
        """Stored values of a box: chunk by chunk where that can be, else by zarr-python."""
        path = dict(self.layouts)[name][0]
        folder = f"{self.url}/{path}" if path else self.url
        chunks = None if is_remote(self.url) else _chunks(folder)
        if chunks is not None:
            require_folder_inside(self.url, folder)
        gone = chunks is None and not is_remote(self.url) and not self._zipped
        if gone and not any(os.path.exists(f"{folder}/{one}") for one in _METADATA):
            raise MissingInputError(f"the array {folder} isn't there any more", hint="check the path, then run again")
        if chunks is not None and len(where) == len(chunks.shape) and all(part.stop > part.start for part in where):
            if any(part.stop > n for part, n in zip(where, chunks.shape, strict=True)):
                raise broken(self.url, f"array {name!r}", "it has changed since it was opened")
            return chunks.read(where)
        return np.asarray(_array(_group(self.url, self.options), path)[where])

    def select(self, names: Sequence[str]) -> ZarrSource:
        """See `Source`."""
        fields = chosen(self.fields, names, self.url, self.left_out)
        space, coords = narrowed(self.space, self.coords, fields)
        extents = {name: extent for name, extent in self.stored if name in space}
        size = sum(f.dtype.itemsize * int(np.prod([extents[dim] for dim in f.dims])) for f in fields)
        return replace(self, space=space, fields=fields, coords=coords, stored=tuple(extents.items()),
                       stored_bytes=size, auxiliary=())

    def __str__(self) -> str:
        return self.url


def is_zarr(path: str, options: Mapping[str, Any]) -> bool:
    """Whether a path or URL looks like a Zarr store."""
    if path.rstrip("/").endswith((".zarr", ".zarr.zip")):
        return True
    if is_remote(path):
        return False
    return os.path.isdir(path) and any(os.path.exists(os.path.join(path, name)) for name in _METADATA)


def open_zarr(url: str | os.PathLike[str], *, storage_options: Mapping[str, Any] | None = None) -> ZarrSource:
    """Open a Zarr group or array lazily, format 2 or 3, consolidated or not.

    Values are decoded as xarray does (fill values, scale and offset), but integers with gaps stay integers.

    Raises:
        MissingInputError: there is nothing at the URL.
        CorruptInputError: what is there isn't Zarr, or its metadata can't be read.
    """
    path, options = plain_path(url).rstrip("/"), dict(storage_options or {})
    learn(options)
    _OPEN.forget((path, repr(sorted(options.items()))))
    group = _group(path, options)
    try:
        arrays = dict(sorted(group.arrays())) if hasattr(group, "arrays") else {_base(path): group}
        for name, array in arrays.items():
            require_sound(name, array, path)
        attrs = dict(group.attrs) if hasattr(group, "arrays") else {}
        variables = _variables(arrays, attrs)
    except GridError:
        raise
    except Exception as error:
        raise broken(path, "its metadata can't be read", error) from clean(error)
    described = Described.of(variables, path)
    coords = []
    for v in variables:
        if v.is_coordinate and len(v.dims) == 1 and v.dims[0] in described.space:
            require_small(v.name, arrays[v.name], path)
            try:
                c = coordinate_of(v, _whole(path, v.name if hasattr(group, "arrays") else "", arrays[v.name]))
            except GridError:
                raise
            except Exception as error:
                raise broken(path, f"coordinate {v.name!r}", error) from clean(error)
            coords += [] if c is None else [c]
    single = not hasattr(group, "arrays")
    layouts = tuple(
        (f.name, ("" if single else f.name, _metadata_digest(arrays[f.name]), _files(arrays[f.name])))
        for f in described.fields)
    return ZarrSource(
        path, described.space, described.fields, tuple(coords), described.stored, described.stored_bytes,
        described.decodings, layouts, described.left_out, _least(path, variables, layouts), options,
        auxiliaries(variables, lambda v: _whole(path, "" if single else v.name, arrays[v.name]), attrs, path))


def _whole(url: str, path: str, array: Any) -> Any:
    """All values of an array, read as `ZarrSource` reads."""
    chunks = None if is_remote(url) or 0 in array.shape else _chunks(f"{url}/{path}" if path else url)
    return np.asarray(array[...] if chunks is None else chunks.read(tuple(slice(0, n) for n in chunks.shape)))


def _least(url: str, variables: Sequence[Variable], layouts: Sequence[tuple[str, tuple[str, str, tuple[int, ...]]]]
           ) -> tuple[tuple[str, int], ...]:
    """See `ZarrSource`: of the variable with the most values."""
    paths = {name: path for name, (path, *_) in layouts}
    largest = max((v for v in variables if v.name in paths), key=lambda v: math.prod(v.shape), default=None)
    if largest is None or is_remote(url):
        return ()
    chunks = _chunks(f"{url}/{paths[largest.name]}" if paths[largest.name] else url)
    with contextlib.suppress(OSError):
        return () if chunks is None else tuple(zip(largest.dims, chunks.blocks, strict=True))
    return ()


def _base(path: str) -> str:
    return path.rpartition("/")[2].removesuffix(".zip").removesuffix(".zarr") or "values"


def _group(url: str, options: Mapping[str, Any]) -> Any:
    return _OPEN.get((url, repr(sorted(options.items()))), "", lambda: _opened(url, options))


def _chunks(folder: str) -> StoredChunks | None:
    """A local array read chunk by chunk, opened anew when its metadata was written anew; None where that can't be."""
    for name in ("zarr.json", ".zarray"):
        try:
            status = os.stat(f"{folder}/{name}")
        except OSError:
            continue
        version = f"{name}-{status.st_size}-{status.st_mtime_ns}-{status.st_ino}"
        return _OPEN.get(("chunks", folder), version, lambda: _direct(folder))
    return None


def _direct(folder: str) -> StoredChunks | None:
    array = _opened(folder, {})
    require_sound(_base(folder), array, folder)
    return StoredChunks.of(array, folder)


def _array(group: Any, path: str) -> Any:
    try:
        array = group[path] if path else group
    except KeyError:
        raise MissingInputError(f"the Zarr store {group.store} has no array {path!r} any more",
                                hint="check the path, then run again") from None
    require_sound(path or "values", array, str(group.store))
    return array


def _alike(found: np.dtype[Any], opened: np.dtype[Any]) -> bool:
    """Whether stored values still have the type that they had, but for byte order and sign."""
    return found.itemsize == opened.itemsize and (found.kind == opened.kind or {found.kind, opened.kind} == {"i", "u"})


def _opened(url: str, options: Mapping[str, Any]) -> Any:
    import zarr

    if not is_remote(url) and not os.path.exists(url):
        raise MissingInputError(f"no Zarr store {url}", hint="check the path")
    extra = {"use_listings_cache": False} if url.startswith(("s3://", "s3a://")) else {}
    try:
        if url.startswith(references.SCHEME):
            return references.opened(url, options)
        if is_remote(url):
            with signed_in(url):
                return zarr.open(url, mode="r", storage_options={**extra, **options})
        zipped = os.path.isfile(url)
        return zarr.open(zarr.storage.ZipStore(url, mode="r") if zipped else contained.store(url), mode="r")
    except GridError:
        raise
    except (FileNotFoundError, zipfile.BadZipFile) as error:
        if is_remote(url):
            raise MissingInputError(f"no Zarr store at {url}: {error}", hint="check the URL") from None
        raise broken(url, "isn't a Zarr store", "it has no zarr.json, .zgroup or .zarray",
                     instead="netCDF files are opened by grid.open_dataset") from clean(error)
    except OSError as error:
        raise MissingInputError(f"{url} can't be reached: {error}",
                                hint="check the URL and the network") from clean(error)
    except Exception as error:
        raise broken(url, "isn't a Zarr store that can be read", error) from clean(error)


def _variables(arrays: Mapping[str, Any], whole: Mapping[str, Any]) -> list[Variable]:
    said = [whole, *(array.attrs for array in arrays.values())]
    variables, named = [], " ".join(str(attrs.get("coordinates", "")) for attrs in said).split()
    for name, array in arrays.items():
        dims = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
        if not dims or len(dims) != array.ndim or None in dims:
            dims = [f"{name}_dim_{i}" for i in range(array.ndim)]
        own = len(dims) == 1 and dims[0] == name
        variables.append(
            Variable(
                name,
                tuple(map(str, dims)),
                tuple(array.shape),
                _dtype(array),
                _attrs(array),
                tuple(array.chunks) if array.ndim else None,
                own or name in named,
            )
        )
    return variables


def _dtype(array: Any) -> np.dtype[Any]:
    dtype = array.dtype
    return np.dtype(dtype) if isinstance(dtype, np.dtype) else np.dtype(object)


def _attrs(array: Any) -> dict[str, Any]:
    """Attributes, with the fill value as xarray takes it: format 2 has the array's own."""
    attrs = dict(array.attrs)
    if array.metadata.zarr_format == 2:
        if array.fill_value is not None:
            attrs["_FillValue"] = array.fill_value
    elif isinstance(attrs.get("_FillValue"), str) and _dtype(array).kind == "f":
        try:
            attrs["_FillValue"] = struct.unpack("<d", base64.standard_b64decode(attrs["_FillValue"]))[0]
        except (ValueError, struct.error):
            attrs["_FillValue"] = float(attrs["_FillValue"])
    return attrs


def _metadata_digest(array: Any) -> str:
    plain = {key: value for key, value in array.metadata.to_dict().items() if key not in ("shape", "attributes")}
    return digest(json.dumps(plain, sort_keys=True, default=str))


def _files(array: Any) -> tuple[int, ...]:
    return tuple(getattr(array, "shards", None) or array.chunks)


_listings: dict[str, tuple[float, dict[str, str]]] = {}


def _listing(root: str, options: Mapping[str, Any]) -> dict[str, str]:
    """Versions of all files of a remote array by one listing, much cheaper than a request for each."""
    taken, listed = _listings.get(root, (-_LISTED, {}))
    if time.monotonic() - taken > _LISTED:
        files, path = filesystem(root, options)
        try:
            found = files.find(path, detail=True)
        except FileNotFoundError:
            found = {}
        listed = {
            name[len(path) :].lstrip("/"): stamp_of(info) or str(info.get("size")) for name, info in found.items()
        }
        _listings[root] = (time.monotonic(), listed)
    return listed
