"""netCDF and whatever else xarray reads, lazily; times stay exact integers."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from gridcompute.auxiliary import Auxiliary
from gridcompute.columns import Block, Column, Field
from gridcompute.coords import Coordinate
from gridcompute.errors import GridError, MissingInputError, ParameterError
from gridcompute.secrecy import clean, learn
from gridcompute.sources.arrays import ArraySource, from_xarray
from gridcompute.sources.auxiliaries import auxiliaries
from gridcompute.sources.base import chosen, narrowed, require_within
from gridcompute.sources.classic import needed_bytes
from gridcompute.sources.decoding import Decoding, Described, Variable, coordinate_of
from gridcompute.sources.files import (
    OpenFiles,
    broken,
    expand,
    filesystem,
    identity,
    is_remote,
    open_file,
    plain_path,
)
from gridcompute.sources.gribs import cut_off
from gridcompute.sources.joined import Joined, join
from gridcompute.sources.references import is_references, store_of
from gridcompute.sources.zarrs import ZarrSource, is_zarr, open_zarr
from gridcompute.spaces import Region, Space

_OPEN = OpenFiles()
# The netCDF and HDF5 libraries aren't thread-safe, whichever file is read.
LIBRARY = threading.RLock()
_HDF5, _CLASSIC, _GRIB = b"\x89HDF", b"CDF", b"GRIB"


@dataclass(frozen=True, eq=False)
class DatasetSource:
    """One file that xarray reads; see `open_dataset`."""

    path: str
    engine: str | None
    space: Space
    fields: tuple[Field, ...]
    coords: tuple[Coordinate, ...]
    stored: tuple[tuple[str, int], ...]
    stored_bytes: int
    decodings: tuple[tuple[str, Decoding], ...]
    left_out: tuple[tuple[str, str], ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    group: str = ""
    auxiliary: tuple[Auxiliary, ...] = ()
    uniform = True

    @property
    def decoding(self) -> object:
        """What determines values but for the file."""
        kept = {f.name for f in self.fields}
        return [(name, decoding.key) for name, decoding in self.decodings if name in kept]

    @property
    def remote(self) -> bool:
        """See `Source`."""
        return is_remote(self.path)

    @property
    def key(self) -> object:
        """See `Source`."""
        return ("dataset", self.path, self.engine, self.decoding, *([self.group] if self.group else []))

    def objects(self, region: Region) -> tuple[str, ...]:
        """See `Source`: the file, wherever the region lies."""
        return (identity(self.path, self.options),)

    def read(self, region: Region, names: Sequence[str]) -> Block:
        """See `Source`."""
        require_within(self.space, region)
        fields, decodings = chosen(self.fields, names, self.path, self.left_out), dict(self.decodings)
        where = dict(zip(self.space.names, region.slices, strict=True))
        columns: dict[str, Column] = {}
        with LIBRARY:
            version = identity(self.path, self.options, verify=False)
            dataset = _OPEN.get(
                (self.path, self.engine, self.group), version,
                lambda: _opened(self.path, self.engine, self.options, self.group),
            )  # fmt: skip
            for f in fields:
                decoding = decodings[f.name]
                try:
                    variable = dataset.variables[f.name]
                    raw = variable[tuple(where[dim] for dim in decoding.dims)].values
                except Exception as error:  # each library behind xarray raises errors of its own
                    raise broken(self.path, f"variable {f.name!r}, region {region}", error) from clean(error)
                expected = tuple(where[dim].stop - where[dim].start for dim in decoding.dims)
                if raw.shape != expected:
                    raise broken(self.path, f"variable {f.name!r}", "the file has changed since it was opened")
                columns[f.name] = decoding.decode(raw, f.dims)
        return Block(region, columns, region.shape[0] if region.bounds else 1)

    def select(self, names: Sequence[str]) -> DatasetSource:
        """See `Source`."""
        fields = chosen(self.fields, names, self.path, self.left_out)
        space, coords = narrowed(self.space, self.coords, fields)
        extents = {name: extent for name, extent in self.stored if name in space}
        size = sum(f.dtype.itemsize * int(np.prod([extents[dim] for dim in f.dims])) for f in fields)
        return replace(self, space=space, fields=fields, coords=coords, stored=tuple(extents.items()),
                       stored_bytes=size, auxiliary=())

    def __str__(self) -> str:
        return self.path


def open_dataset(
    paths: Any,
    *,
    engine: str | None = None,
    dim: str | None = None,
    group: str = "",
    targets: str | Sequence[str] | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> DatasetSource | ZarrSource | ArraySource | Joined:
    """Open a dataset lazily; nothing but its metadata and coordinates is read.

    Args:
        paths: a path or URL of a netCDF file, Zarr store or anything else that xarray reads; a glob
            pattern or a list of these, put end to end in sorted (listed) order; or an xarray Dataset or DataArray.
        engine: xarray's name of the reader, if it can't tell by itself.
        dim: the dimension along which several files follow each other; None finds it.
        group: the group within the file, such as "forecast/surface".
        targets: where the files may lie to which a reference file (kerchunk's) leads, if not beside it: folders, URLs.
        storage_options: fsspec's, for URLs.

    Raises:
        MissingInputError: a file that isn't there.
        CorruptInputError: a file that isn't a dataset; the message says what was tried.
        AlignmentError: files that don't agree, naming the file and the dimension.
    """
    if hasattr(paths, "data_vars") or hasattr(paths, "to_dataset"):
        return from_xarray(paths)
    options = dict(storage_options or {})
    learn(options)
    if isinstance(paths, str | os.PathLike):
        path = plain_path(paths)
        if not any(sign in path for sign in "*?[") or os.path.exists(path):
            return _open_one(path, engine, options, group, targets)
    sources = [_open_one(path, engine, options, group, targets) for path in expand(paths, **options)]
    return join(sources, dim)


def open_unlabelled(path: str, engine: str | None, group: str) -> DatasetSource | ZarrSource:
    """A local file whose coordinates are known already: they aren't read again.

    netCDF's library crashes if a file is opened again that was read for text and closed while another has it open.
    """
    return _open_one(path, engine, {}, group, None, labelled=False)


def _open_one(
    path: str, engine: str | None, options: Mapping[str, Any], group: str, targets: Any, *, labelled: bool = True
) -> DatasetSource | ZarrSource:
    group = group.strip("/")
    if engine == "kerchunk" or path.startswith("reference://") or (engine is None and is_references(path, options)):
        place, given = store_of(path, targets, options, group)
        return open_zarr(place, storage_options=given)
    if engine == "zarr" or (engine is None and is_zarr(path, options)):
        return open_zarr(within(path, group), storage_options=options)
    identity(path, options, verify=False)  # first, whether it is there at all
    # Closed again: an open handle here would keep others from writing the file.
    with LIBRARY, _opened(path, engine, options, group) as dataset:
        variables = [_variable(str(name), v, name in dataset.coords) for name, v in dataset.variables.items()]
        described = Described.of(variables, path)
        coords = []
        for v in variables if labelled else ():
            if v.is_coordinate and len(v.dims) == 1 and v.dims[0] in described.space:
                try:
                    c = coordinate_of(v, np.asarray(dataset.variables[v.name].values))
                except GridError:
                    raise
                except Exception as error:
                    raise broken(path, f"coordinate {v.name!r}", error) from clean(error)
                coords += [] if c is None else [c]
        read: Callable[[Variable], Any] = lambda v: np.asarray(dataset.variables[v.name].values)  # noqa: E731
        beside = auxiliaries(variables, read, dataset.attrs, path) if labelled else ()
    return DatasetSource(
        path,
        engine,
        described.space,
        described.fields,
        tuple(coords),
        described.stored,
        described.stored_bytes,
        described.decodings,
        described.left_out,
        options,
        group,
        beside,
    )


def within(path: str, group: str) -> str:
    """Where a group of a Zarr store lies.

    Raises:
        ParameterError: it would lie outside, or within a file.
    """
    parts = [part for part in group.split("/") if part]
    if any(part in (".", "..") for part in parts) or (parts and not is_remote(path) and os.path.isfile(path)):
        raise ParameterError(f"{path} can't be opened at the group {group!r}",
                             hint="groups of folders and URLs can: unpack a zipped store first")
    return "/".join([path.rstrip("/"), *parts])


def _variable(name: str, variable: Any, is_coordinate: bool) -> Variable:
    chunks = variable.encoding.get("chunksizes") or None
    preferred = variable.encoding.get("preferred_chunks")
    if not chunks and isinstance(preferred, Mapping) and not variable.encoding.get("contiguous"):
        chunks = tuple(preferred.get(d, n) for d, n in zip(variable.dims, variable.shape, strict=True))
    fits = chunks and len(chunks) == len(variable.dims) and all(isinstance(c, int | np.integer) for c in chunks)
    return Variable(
        name,
        tuple(map(str, variable.dims)),
        variable.shape,
        variable.dtype,
        dict(variable.attrs),
        tuple(map(int, chunks)) if fits and chunks else None,
        is_coordinate,
    )


def _opened(path: str, engine: str | None, options: Mapping[str, Any], group: str = "") -> Any:
    """The dataset with its values as stored: neither masked, nor scaled, nor times decoded."""
    import xarray as xr

    with open_file(path, options) as file:
        magic = file.read(4)
        if magic[:3] == _CLASSIC:
            _require_complete(path, file)
        if magic == _GRIB and (why := cut_off(file)):
            raise broken(path, "the file is cut off", why)
    tried: list[str] = []
    within_file: dict[str, Any] = {"group": group} if group else {}
    for reader in _readers(path, engine, magic):
        target = _target(path, reader, magic, options)
        try:
            return xr.open_dataset(
                target,
                engine=reader,
                mask_and_scale=False,
                decode_times=False,
                cache=False,
                decode_timedelta=False,
                chunks=None,
                create_default_indexes=False,  # which would read coordinates
                **within_file,
            )
        except Exception as error:  # each reader raises errors of its own
            if engine is not None and isinstance(error, ValueError) and "unrecognized engine" in str(error):
                raise ParameterError(
                    f"xarray has no engine {engine!r}", hint="leave engine out, or install it"
                ) from None
            text = " ".join(str(error).split())[:160]
            tried.append(f"{reader or 'any engine of xarray'} ({type(error).__name__}: {text})")
    raise broken(path, "isn't a dataset that can be read", "tried " + "; ".join(tried),
                 instead="tables are opened by grid.open_table, FASTA and FASTQ by grid.open_sequences")


def _require_complete(path: str, file: Any) -> None:
    file.seek(0)
    try:
        needed = needed_bytes(file)
    except ValueError as error:
        raise broken(path, "isn't a dataset that can be read", error) from clean(error)
    if (size := file.seek(0, os.SEEK_END)) < needed:
        raise broken(path, "the file is cut off", f"{size} bytes instead of {needed}")


def _readers(path: str, engine: str | None, magic: bytes) -> list[str | None]:
    if engine is not None:
        return [engine]
    if magic == _HDF5:
        # h5netcdf reads only the parts it needs of a remote file, but not without h5py.
        partly = ["h5netcdf"] if importlib.util.find_spec("h5py") else []
        return [*partly, "netcdf4"] if is_remote(path) else ["netcdf4", *partly]
    return ["netcdf4"] if magic[:3] == _CLASSIC else [None]


def _target(path: str, reader: str | None, magic: bytes, options: Mapping[str, Any]) -> Any:
    if not is_remote(path):
        return path
    if reader == "h5netcdf":
        files, name = filesystem(path, options)
        return files.open(name, "rb")
    # The netCDF library only reads local files.
    files, name = filesystem(path, options)
    local = os.path.join(_copies().name, hashlib.sha256(identity(path, options, verify=False).encode()).hexdigest())
    try:
        if not os.path.exists(local):
            files.get_file(name, f"{local}.part")
            os.replace(f"{local}.part", local)
    except OSError as error:
        raise MissingInputError(
            f"{path} can't be fetched: {error}", hint="check the URL, the network and the space in the temporary folder"
        ) from clean(error)
    return local


@functools.cache
def _copies() -> tempfile.TemporaryDirectory[str]:
    """A folder for copies of remote files, removed when this process ends."""
    return tempfile.TemporaryDirectory(prefix="gridcompute-inputs-")
