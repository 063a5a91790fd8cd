"""Weight files: SCRIP's and ESMF's, read and written; cdo, ESMF, xESMF and NCO exchange these.

What is read comes from outside: each number is checked before a kernel uses it as an index.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gridcompute.errors import CorruptInputError, ParameterError, StoreError

from ..grids import ROUND, Grid  # noqa: TID252 - the package has another name where it is installed
from .gridfiles import opened
from .weights import Weights, as_links, from_links

Array = np.ndarray[Any, Any]

SCRIP = {"row": "dst_address", "col": "src_address", "S": "remap_matrix", "frac": "dst_grid_frac",
         "lat_a": "src_grid_center_lat", "lon_a": "src_grid_center_lon", "lat_b": "dst_grid_center_lat",
         "lon_b": "dst_grid_center_lon"}  # fmt: skip
ESMF = {"row": "row", "col": "col", "S": "S", "frac": "frac_b", "lat_a": "yc_a", "lon_a": "xc_a", "lat_b": "yc_b",
        "lon_b": "xc_b"}  # fmt: skip
SAME_PLACE = 1e-3
"""Degrees within which a cell's centre is the same place in a weight file and in the data (float32 has 3e-5)."""

METHODS = {
    "conservative": "Conservative remapping using clipping on sphere",
    "bilinear": "Bilinear remapping",
    "nearest": "Nearest neighbor",
}


@dataclass(frozen=True, eq=False)
class Stored:
    """What a weight file says.

    Attributes:
        path: of the file.
        method: "conservative", "bilinear", "nearest"; "" where it doesn't say.
        rows: target cells of the links.
        columns: source cells of the links.
        weights: of the links.
        share: of each target cell that the source covers; None: not said.
        source: shape (ny, nx) or (cells,) of the source.
        target: target grid; None where the file has no coordinates.
        centres: latitudes and longitudes of the source in degrees; None where the file has none.
    """

    path: str
    method: str
    rows: Array
    columns: Array
    weights: Array
    share: Array | None
    source: tuple[int, ...]
    target: Grid | None
    centres: tuple[Array, Array] | None


def read_weights(path: str) -> Stored:
    """Read a weight file.

    Raises:
        MissingInputError: it isn't there.
        CorruptInputError: it is no weight file, or one that can't be used; says why.
    """
    with opened(path) as data:
        names = SCRIP if "remap_matrix" in data.variables else ESMF
        _need(path, data, names["S"] in data.variables, "it has neither remap_matrix (SCRIP) nor S (ESMF)")
        for key in ("row", "col"):
            _need(path, data, names[key] in data.variables, f"it has no {names[key]}")
        values = np.asarray(data[names["S"]].values, np.float64)
        if values.ndim == 2:
            _need(path, data, values.shape[1] == 1, f"it has {values.shape[1]} weights a link, not 1")
            values = values[:, 0]
        links = [np.asarray(data[names[key]].values) for key in ("row", "col")]
        for key, found in zip(("row", "col"), links, strict=True):
            same = found.shape == values.shape and found.dtype.kind in "iu"
            _need(path, data, same, f"{names[key]} is {found.dtype} of {found.shape}, {names['S']} of {values.shape}")
        _need(path, data, bool(np.isfinite(values).all()), f"{names['S']} holds values that aren't finite")
        source, target = _dims(path, data, names, "src", "a"), _dims(path, data, names, "dst", "b")
        for key, found, shape in zip(("row", "col"), links, (target, source), strict=True):
            outside = (found < 1) | (found > int(np.prod(shape)))
            first = int(found[outside.argmax()]) if outside.any() else 0
            _need(path, data, not outside.any(), f"{names[key]} has {first}: the grid has {int(np.prod(shape))} cells")
        share = np.asarray(data[names["frac"]].values, np.float64) if names["frac"] in data.variables else None
        if share is not None:
            good = share.shape == (int(np.prod(target)),) and bool(np.isfinite(share).all()) and share.min() >= -ROUND
            _need(path, data, good, f"{names['frac']} isn't a share of each target cell")
            share = np.clip(share, 0.0, 1.0)
        method = str(data.attrs.get("map_method", "")).lower()
        known = [m for m in ("conservative", "bilinear", "nearest") if m in method]
        row, column = (found.astype(np.int64) - 1 for found in links)
        centres = _centres(path, data, names, "a", source)
        around = _centres(path, data, names, "b", target)
    grid = None if around is None else _grid(path, target, *around)
    return Stored(path, known[0] if known else "", row, column, values, share, source, grid, centres)


def _need(path: str, data: Any, good: bool, why: str) -> None:
    if not good:
        raise CorruptInputError(
            f"{path} can't be used as weights: {why}", hint="cdo gencon, ESMF and --save-weights write such files"
        )


def _dims(path: str, data: Any, names: dict[str, str], side: str, letter: str) -> tuple[int, ...]:
    """Shape of a grid, slowest dimension first; the file has the fastest first."""
    size = data.sizes.get(f"{side}_grid_size" if names is SCRIP else f"n_{letter}")
    name = f"{side}_grid_dims"
    if name in data.variables:
        found = np.asarray(data[name].values)
        good = found.ndim == 1 and 1 <= len(found) <= 2 and found.dtype.kind in "iuf" and bool((found >= 1).all())
        _need(path, data, good, f"{name} is {found.tolist()[:5]}")
        shape = tuple(int(one) for one in reversed(found.tolist()))
    else:
        _need(path, data, size is not None, f"it has no {name}")
        shape = (int(size or 0),)
    product = shape[0] * (shape[1] if len(shape) > 1 else 1)
    _need(path, data, size in (None, product), f"{name} is {list(shape)}, but the grid has {size} cells")
    _need(path, data, product < 2**31, f"{name} says {product} cells")
    return shape


def _centres(path: str, data: Any, names: dict[str, str], letter: str, shape: tuple[int, ...]) -> Any:
    found = []
    for what in ("lat", "lon"):
        name = names[f"{what}_{letter}"]
        if name not in data.variables:
            return None
        values = np.asarray(data[name].values, np.float64)
        good = values.shape == (int(np.prod(shape)),) and bool(np.isfinite(values).all())
        _need(path, data, good, f"{name} isn't a place of each of the {int(np.prod(shape))} cells")
        radians = str(data[name].attrs.get("units", "")).lower().startswith("rad")
        found.append(np.round(np.rad2deg(values), 10) if radians else values)
    return found[0], found[1]


def _grid(path: str, shape: tuple[int, ...], lat: Array, lon: Array) -> Grid:
    try:
        if len(shape) == 1:
            return Grid("unstructured", lat, lon)
        lat, lon = lat.reshape(shape), lon.reshape(shape)
        if np.ptp(lat, axis=1).max() < ROUND and np.ptp(lon, axis=0).max() < ROUND:
            return Grid("rectilinear", lat[:, 0], lon[0])
        return Grid("curvilinear", lat, lon)
    except ParameterError as error:
        raise CorruptInputError(f"{path} can't be used as weights: {error.message}") from None


def fitted(stored: Stored, source: Grid, target: Grid | None) -> tuple[Weights, Grid]:
    """Weights of a file for data on a grid, and the target grid.

    Raises:
        ParameterError: they were made for another grid, or there is no target grid.
    """
    if int(np.prod(stored.source)) != source.size:
        raise ParameterError(
            f"the weights of {stored.path} are for fields of {stored.source}, the input has {source.shape}",
            hint="make them for this grid: leave --weights away, or see cdo gencon",
        )
    if stored.centres is not None and not same_places(stored.centres, source.centres):
        raise ParameterError(
            f"the weights of {stored.path} are for cells elsewhere: their first is at "
            f"{stored.centres[0][0]:g}, {stored.centres[1][0]:g}, the input's at {source.centres[0][0]:g}, "
            f"{source.centres[1][0]:g}",
            hint="latitudes and longitudes must be in the same order",
        )
    if target is not None and stored.target is not None and (
        target.size != stored.target.size or not same_places(target.centres, stored.target.centres)
    ):
        raise ParameterError(f"the weights of {stored.path} are for another target than the one that is named")
    target = target or stored.target
    if target is None or int(stored.rows.max(initial=0)) >= target.size or len(target.shape) != 2:
        raise ParameterError(
            f"the weights of {stored.path} don't say a target of rows and columns", hint="name it with --grid or --like"
        )
    return from_links(target, stored.rows, stored.columns, stored.weights, stored.share), target


def same_places(one: tuple[Array, Array], other: tuple[Array, Array]) -> bool:
    """Whether cells have the same centres; at a pole any longitude is the same."""
    east = np.abs((one[1] - other[1] + 180.0) % 360.0 - 180.0) * np.cos(np.deg2rad(other[0]))
    return bool(np.abs(one[0] - other[0]).max() < SAME_PLACE and east.max() < SAME_PLACE)


def write_weights(path: str, weights: Weights, source: Grid, target: Grid, method: str, form: str = "scrip") -> Path:
    """Write a weight file; it appears at once.

    Args:
        path: of the netCDF file.
        weights: what it holds.
        source: grid.
        target: grid.
        method: "conservative", "bilinear" or "nearest".
        form: "scrip" or "esmf".

    Raises:
        StoreError: the folder can't be written to.
    """
    import xarray as xr

    rows, columns, found, share = as_links(weights, source.shape[-1])
    order = np.lexsort((columns, rows))
    links = {"row": rows[order] + 1, "col": columns[order] + 1, "S": found[order]}
    make = _scrip if form == "scrip" else _esmf
    data = xr.Dataset(make(links, share, source, target))
    data.attrs = {
        "title": "weights of gridcompute", "conventions": "SCRIP" if form == "scrip" else "NCAR-CSM",
        "normalization": "fracarea" if method == "conservative" else "none", "map_method": METHODS[method],
        "source_grid": _named(source), "dest_grid": _named(target),
    }  # fmt: skip
    place = Path(path).absolute()
    try:
        descriptor, temporary = tempfile.mkstemp(dir=place.parent, suffix=".nc")
    except OSError as error:
        raise StoreError(f"the weights can't be written to {place}: {error.strerror}",
                         hint="choose another --save-weights") from error
    os.close(descriptor)
    try:
        data.to_netcdf(temporary, encoding={name: {"_FillValue": None} for name in data.variables})
        os.replace(temporary, place)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
    return place


def _named(grid: Grid) -> str:
    return {"rectilinear": "lonlat"}.get(grid.kind, grid.kind)


def _places(grid: Grid, lat: str, lon: str, dim: str) -> dict[str, Any]:
    units = {"units": "degrees"}
    return {lat: (dim, grid.centres[0], units), lon: (dim, grid.centres[1], units)}


def _scrip(links: dict[str, Array], share: Array, source: Grid, target: Grid) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for side, grid in (("src", source), ("dst", target)):
        dim = f"{side}_grid_size"
        made[f"{side}_grid_dims"] = (f"{side}_grid_rank", np.array(grid.shape[::-1], np.int32))
        made |= _places(grid, f"{side}_grid_center_lat", f"{side}_grid_center_lon", dim)
        made[f"{side}_grid_imask"] = (dim, np.ones(grid.size, np.int32), {"units": "unitless"})
        made[f"{side}_grid_frac"] = (dim, np.ones(grid.size), {"units": "unitless"})
    made["dst_grid_frac"] = ("dst_grid_size", share, {"units": "unitless"})
    made["src_address"] = ("num_links", links["col"].astype(np.int32))
    made["dst_address"] = ("num_links", links["row"].astype(np.int32))
    made["remap_matrix"] = (("num_links", "num_wgts"), links["S"][:, None])
    return made


def _esmf(links: dict[str, Array], share: Array, source: Grid, target: Grid) -> dict[str, Any]:
    made = {
        "src_grid_dims": ("src_grid_rank", np.array(source.shape[::-1], np.int32)),
        "dst_grid_dims": ("dst_grid_rank", np.array(target.shape[::-1], np.int32)),
        **_places(source, "yc_a", "xc_a", "n_a"), **_places(target, "yc_b", "xc_b", "n_b"),
        "mask_a": ("n_a", np.ones(source.size, np.int32)), "mask_b": ("n_b", np.ones(target.size, np.int32)),
        "frac_b": ("n_b", share), "S": ("n_s", links["S"]),
    }  # fmt: skip
    return made | {key: ("n_s", links[key].astype(np.int32)) for key in ("row", "col")}
