"""An xarray Dataset or DataArray as a collection: nothing is read that isn't in memory but coordinates."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gridcompute.actions.loads import Load
from gridcompute.auxiliary import Auxiliary, whole
from gridcompute.collection import Collection
from gridcompute.columns import Field
from gridcompute.coords import Coordinate, packed
from gridcompute.errors import DimensionError, EmptyGridError, ParameterError
from gridcompute.op import Op
from gridcompute.ops import Ref
from gridcompute.sources import arrays, xarrays
from gridcompute.sources.auxiliaries import FLAT, MOST_BYTES
from gridcompute.sources.decoding import ENCODING
from gridcompute.sources.files import identity, is_remote, plain_path
from gridcompute.sources.lazy import LazySource, Origin, chunks_of, origin_of, version_of
from gridcompute.spaces import Space
from gridcompute.times import date_attrs, length_attrs

if TYPE_CHECKING:
    import xarray as xr

_READERS = {"NetCDF4ArrayWrapper": "netcdf4", "H5NetCDFArrayWrapper": "h5netcdf"}
MOST_TEXTS = 2**20
"""Texts of a variable that are taken into memory; text isn't read by region."""
_STEPS = {"plain": (frozenset(),), "gaps": (frozenset({"_apply_mask"}),),
          "scaled": (frozenset({"_scale_offset_decoding"}), frozenset({"_scale_offset_decoding", "_apply_mask"}))}
"""What xarray does to stored values where our decoding gives the same."""


def is_xarray(value: Any) -> bool:
    """Whether something is an xarray Dataset or DataArray, or as good as one."""
    return hasattr(value, "data_vars") or (hasattr(value, "coords") and hasattr(value, "to_dataset"))


def from_xarray(data: Any) -> Collection:
    """See `gridcompute.api.from_xarray`."""
    if not is_xarray(data):
        raise ParameterError(f"from_xarray takes a Dataset or DataArray, not {type(data).__name__}",
                             hint="files are opened by grid.open_dataset, arrays by grid.from_arrays")
    dataset: xr.Dataset = data if hasattr(data, "data_vars") else _named(data)
    beside = _beside(dataset)
    wanted = {str(name): v.variable for name, v in dataset.data_vars.items() if str(name) not in beside}
    if not wanted:
        raise EmptyGridError("the dataset has no variables", hint="give one that has data, not coordinates alone")
    for name, variable in wanted.items():
        if len(set(variable.dims)) < variable.ndim:
            raise _unfit(name, f"has a dimension twice: {', '.join(map(str, variable.dims))}")
        if 0 in variable.shape:
            raise EmptyGridError(f"variable {name!r} has no cells: its shape is {variable.shape}")
    order = list(dict.fromkeys(d for v in sorted(wanted.values(), key=lambda v: -v.ndim) for d in map(str, v.dims)))
    files = _Files()
    columns = {name: _column(name, v, [d for d in order if d in map(str, v.dims)], files) for name, v in wanted.items()}
    return Collection(columns, [*_labels(dataset, beside), *whole(dataset.attrs)])


def _named(array: Any) -> Any:
    return (array.rename("values") if array.name is None or array.name in array.coords else array).to_dataset()


def _unfit(name: str, why: str, hint: str = "") -> ParameterError:
    return ParameterError(f"{name!r} {why}: it has no place in a collection",
                          hint=hint or f"leave it out: .drop_vars({name!r})")


def _beside(dataset: Any) -> dict[str, str]:
    """Variables that describe others, and the coordinate that each bounds; empty for grid mappings and single texts."""
    found = {}
    for name, v in dataset.variables.items():
        if v.ndim == 0 and v.dtype.kind in "OUST" and isinstance(v.values.item(), str | bytes):
            found[str(name)] = ""
        said = {**v.encoding, **v.attrs}
        for key in ("bounds", "climatology"):
            if name in dataset.coords and key in said and str(said[key]) in dataset.variables:
                found[str(said[key])] = str(name)
        if "grid_mapping" in said and str(said["grid_mapping"]) in dataset.variables:
            found[str(said["grid_mapping"])] = ""
    return found


def _labels(dataset: Any, beside: Mapping[str, str]) -> Iterator[Coordinate]:
    """The coordinates: all of the dataset, and what describes them."""
    for key in dict.fromkeys([*dataset.coords, *beside]):
        name, variable = str(key), dataset.variables[key]
        dims = tuple(map(str, variable.dims))
        if variable.size * variable.dtype.itemsize > MOST_BYTES and variable.ndim != 1:
            raise _unfit(name, f"has {variable.size:,} labels, more than are kept in memory")
        if len(set(dims)) < len(dims):
            raise _unfit(name, f"has a dimension twice: {', '.join(dims)}")
        parent = dataset.variables[beside[name]] if beside.get(name) else None
        made: Coordinate | None
        if variable.ndim == 1 and parent is None:
            made = Coordinate.from_xarray(name, _plain(variable, variable.values, dims))
        else:
            values = np.asarray(variable.values).reshape(-1)
            flat = Coordinate.from_xarray(name, _plain(variable, values, (FLAT,), parent))
            own = () if parent is None else tuple(d for d in dims if d not in map(str, parent.dims))
            made = Auxiliary.of(name, dims, flat, variable.shape, own)
        if made is None and not (parent is None and name in beside):  # a grid mapping's value means nothing
            several = hasattr(dataset.indexes.get(key), "levels")
            raise _unfit(name, "is a MultiIndex", f"make coordinates of its levels: .reset_index({name!r})") \
                if several else _unfit(name, f"holds {variable.dtype} labels")
        yield made or Auxiliary("", name, np.zeros((), np.int8), attrs=packed(variable.attrs))


def _plain(variable: Any, values: Any, dims: tuple[str, ...], parent: Any = None) -> Any:
    """A variable without what would be said twice; one of bounds that are numbers has the units of what they bound."""
    import xarray as xr

    attrs = {key: value for key, value in variable.attrs.items() if key not in ENCODING}
    for key in ("bounds", "climatology"):
        if key in variable.encoding:
            attrs[key] = variable.encoding[key]
    if parent is not None and np.asarray(values).dtype.kind in "iuf":
        attrs = {key: parent.attrs[key] for key in ("units", "calendar") if key in parent.attrs} | attrs
    encoding = {key: variable.encoding[key] for key in ("units", "calendar", "dtype") if key in variable.encoding}
    if np.asarray(values).dtype.kind not in "mMO":
        encoding.pop("dtype", None)
    return xr.Variable(dims, values, attrs, encoding)


class _Files:
    """The files of a dataset, each opened once."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], Any] = {}

    def get(self, path: str, group: str, engine: str | None) -> Any:
        if (path, group) not in self._known:
            self._known[path, group] = xarrays.open_unlabelled(path, engine, group)
        return self._known[path, group]


def _column(name: str, variable: Any, dims: Sequence[str], files: _Files) -> Ref:
    """One variable, its axes in this order."""
    text = variable.dtype.kind in "OUST" and variable.ndim == 1 and variable.size <= MOST_TEXTS
    if variable.dtype.kind not in "biufmMOUST" or (variable.dtype.kind in "OUST" and not (text or _is_read(variable))):
        raise _unfit(name, f"holds {variable.dtype} of shape {variable.shape}")
    if text or _is_read(variable):
        try:
            one = arrays.from_arrays({name: _turned(np.asarray(variable.values), variable, dims)}, {name: tuple(dims)})
        except (ParameterError, DimensionError) as error:
            raise _unfit(name, f"holds {variable.dtype}, but {error.message}") from None
        return _loaded(one, variable)
    found = origin_of(variable)
    own = _own(name, variable, dims, found, files) if found else None
    return own or _loaded(_lazy(name, variable, dims, found), variable)


def _is_read(variable: Any) -> bool:
    return isinstance(variable._data, np.ndarray) or (bool(variable._in_memory) and not hasattr(variable._data, "dask"))


def _turned(values: Any, variable: Any, dims: Sequence[str]) -> Any:
    return values.transpose([list(map(str, variable.dims)).index(dim) for dim in dims])


def _loaded(source: Any, variable: Any) -> Ref:
    field = source.fields[0]
    return Op(Load(source), (), (), source.space, (_described(field, variable),), field.name), field.name


def _described(field: Field, variable: Any) -> Field:
    """The field with the attributes that the variable has now; those of times stay."""
    attrs = {key: value for key, value in variable.attrs.items() if key not in ENCODING}
    if "grid_mapping" in variable.encoding:
        attrs["grid_mapping"] = variable.encoding["grid_mapping"]
    return replace(field, attrs=tuple(sorted((dict(packed(attrs)) | dict(field.attrs)).items())))


def _lazy(name: str, variable: Any, dims: Sequence[str], found: Origin | None) -> LazySource:
    dtype = variable.dtype
    attrs: tuple[tuple[str, str], ...] = ()
    if dtype.kind in "mM":
        unit = np.datetime_data(dtype)[0]
        dtype, attrs = np.dtype(np.int64), date_attrs(unit) if dtype.kind == "M" else length_attrs(unit)
    field = Field(name, tuple(dims), dtype.newbyteorder("="), "fixed", variable.dtype.kind in "mM", attrs)
    space = Space(tuple((dim, dict(zip(map(str, variable.dims), variable.shape, strict=True))[dim]) for dim in dims))
    sizes, source = chunks_of(variable), str(variable.encoding.get("source", ""))
    stamp = ""
    if source and (is_remote(source) or os.path.exists(source)):
        stamp = identity(plain_path(source), {}, verify=False) if not is_remote(source) else source
    bare = variable.copy(deep=False)
    return LazySource(bare, version_of(variable, found, stamp), space, (field,),
                      tuple((dim, sizes[dim]) for dim in dims), source or f"variable {name!r}")


def _own(name: str, variable: Any, dims: Sequence[str], found: Origin, files: _Files) -> Ref | None:
    """The variable as our own reader reads it, where that gives the same values."""
    place = _place(found.backend)
    if place is None or not all(isinstance(key, int | np.integer | slice | np.ndarray) for key in found.key):
        return None
    path, group, stored, engine = place
    source = files.get(path, group, engine)
    field = next((f for f in source.fields if f.name == stored), None)
    if field is None or field.ragged or field.nullable or field.dtype != variable.dtype:
        return None
    decoding = dict(source.decodings)[stored]
    if found.steps not in _STEPS.get(decoding.kind, ()) or len(found.key) != len(decoding.dims):
        return None
    if decoding.kind == "scaled" and bool(decoding.fills) != ("_apply_mask" in found.steps):
        return None
    one = source.select([stored])
    made = Collection.of(Op(Load(one), (), (), one.space, (_described(one.fields[0], variable),), stored))
    for dim, key in zip(decoding.dims, found.key, strict=True):
        if not (isinstance(key, slice) and key == slice(None)):
            made = made.isel(**{dim: int(key) if isinstance(key, int | np.integer) else key})
    ref = next(iter(made.columns.values()))
    lengths = dict(zip(map(str, variable.dims), variable.shape, strict=True))
    return ref if ref[0].field(stored).dims == tuple(dims) and dict(made.space.dims) == lengths else None


def _place(backend: Any) -> tuple[str, str, str, str | None] | None:
    """Path, group and name in a file that our own reader reads, and its reader; None for another kind."""
    kind = type(backend).__name__
    if kind in _READERS:
        store = backend.datastore
        path, group = getattr(store, "_filename", None), getattr(store, "_group", None) or ""
        if not isinstance(path, str) or is_remote(path) or not os.path.isfile(path):
            return None
        return os.path.abspath(path), str(group).strip("/"), str(backend.variable_name), None
    if kind == "ZarrArrayWrapper":
        array = backend._array
        root = getattr(array.store, "root", None)
        group, _, stored = str(array.path).rpartition("/")
        if root is None or not os.path.isdir(root) or not stored:
            return None
        return xarrays.within(os.path.abspath(root), group), "", stored, "zarr"
    return None
