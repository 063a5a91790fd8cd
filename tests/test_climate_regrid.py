"""climate.regrid: against cdo, between its two forms, through weight files, and what it refuses."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from places import few

import gridcompute as grid
from gridcompute.cellinputs import loop_parameter
from gridcompute.errors import CorruptInputError, GridError, MissingInputError, ParameterError, StoreError
from gridcompute.loops import kernel_function, read_only

xr = pytest.importorskip("xarray")
from gridcompute_workloads.climate.grids import (  # noqa: E402
    RADIUS,
    Grid,
    box_grid,
    cell_areas,
    gaussian_latitudes,
    goes_round,
    named_grid,
)
from gridcompute_workloads.climate.regrid import regridded, weights_between  # noqa: E402
from gridcompute_workloads.climate.regridding.applying import regrid_field, regrid_list  # noqa: E402
from gridcompute_workloads.climate.regridding.clipping import clipped_weights  # noqa: E402
from gridcompute_workloads.climate.regridding.files import fitted, read_weights, write_weights  # noqa: E402
from gridcompute_workloads.climate.regridding.gridfiles import file_grid  # noqa: E402
from gridcompute_workloads.climate.regridding.nearest import vectors  # noqa: E402
from gridcompute_workloads.climate.regridding.weights import as_links, from_links  # noqa: E402

METHODS = {"conservative": "con", "bilinear": "bil", "nearest": "nn"}


def applied(weights: Any, field: Any, least: float = 0.0) -> Any:
    """Weights applied at once to fields of rows and columns, or to a list; one compiled function serves all grids."""
    weights = loop_parameter(weights)
    if field.ndim == 1:
        return kernel_function(regrid_list)(read_only(field), weights, np.float64(least))
    return np.stack([kernel_function(regrid_field)(read_only(one), weights, np.float64(least)) for one in field])


def values_on(lat: Any, lon: Any, seed: int = 0) -> Any:
    y, x = np.deg2rad(lat), np.deg2rad(lon)
    return 280 + 20 * np.cos(y) + 5 * np.sin(3 * x) * np.cos(y) + np.random.default_rng(seed).normal(size=y.shape)


def save(path: Path, lat: Any, lon: Any, *, gaps: bool = False, dtype: str = "f8", values: Any = None) -> Path:
    """A file of one field; latitudes and longitudes of one or two dimensions."""
    dims = ("lat", "lon") if lat.ndim == 1 else ("y", "x")
    if values is None:
        values = values_on(*(np.meshgrid(lat, lon, indexing="ij") if lat.ndim == 1 else (lat, lon)))
    if gaps:
        values = np.where(np.random.default_rng(1).random(values.shape) < 0.2, np.nan, values)
        values[5:15, 10:30] = np.nan
    north, east = ({"units": f"degrees_{side}", "standard_name": name}
                   for side, name in (("north", "latitude"), ("east", "longitude")))  # fmt: skip
    data = xr.Dataset({"t": (("time", *dims), values[None].astype(dtype), {"units": "K"})},
                      coords={"time": ("time", [0.0], {"units": "days since 2000-01-01"})})  # fmt: skip
    data = data.assign_coords(lat=(dims[:1] if lat.ndim == 1 else dims, lat, north),
                              lon=(dims[1:] if lat.ndim == 1 else dims, lon, east))  # fmt: skip
    data.t.encoding |= {"_FillValue": -9e33}
    data.to_netcdf(path)
    return path


def turned(rlat: Any, rlon: Any) -> tuple[Any, Any]:
    """Places of a rotated grid whose pole is at 39 N, 162 W."""
    y, x, tilt = np.deg2rad(rlat), np.deg2rad(rlon), np.deg2rad(90 - 39.25)
    a, b, c = np.cos(y) * np.cos(x), np.cos(y) * np.sin(x), np.sin(y)
    lat = np.rad2deg(np.arcsin(np.sin(tilt) * a + np.cos(tilt) * c))
    return lat, np.mod(np.rad2deg(np.arctan2(b, np.cos(tilt) * a - np.sin(tilt) * c)) + 198.0, 360.0) - 180.0


def rotated(ny: int = 21, nx: int = 31) -> tuple[Any, Any, Any, Any]:
    """Centres and corners of a rotated grid: lat, lon, (ny, nx, 4) twice."""
    rlat, rlon = np.meshgrid(np.linspace(-20, 20, ny), np.linspace(-25, 25, nx), indexing="ij")
    dy, dx = 20.0 / (ny - 1), 25.0 / (nx - 1)
    corners = [turned(rlat + a * dy, rlon + b * dx) for a, b in ((-1, -1), (-1, 1), (1, 1), (1, -1))]
    return *turned(rlat, rlon), np.stack([c[0] for c in corners], -1), np.stack([c[1] for c in corners], -1)


def save_rotated(path: Path) -> Path:
    lat, lon, lat_corners, lon_corners = rotated()
    save(path, lat, lon)
    with xr.open_dataset(path) as found:
        data = found.load()
    for name, corners in (("lat", lat_corners), ("lon", lon_corners)):
        data[name].attrs["bounds"] = f"{name}_corners"
        data[f"{name}_corners"] = (("y", "x", "corner"), corners)
        data[f"{name}_corners"].encoding["_FillValue"] = None
    data.to_netcdf(path.with_suffix(".2.nc"))
    return path.with_suffix(".2.nc")


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files of fields on grids of all kinds."""
    at = tmp_path_factory.mktemp("fields")
    return {
        "poles": save(at / "poles.nc", np.linspace(90, -90, 61), np.arange(0, 360, 3.0)),
        "halves": save(at / "halves.nc", np.arange(-88.75, 90, 2.5), np.arange(-178.75, 180, 2.5)),
        "gaussian": save(at / "gaussian.nc", gaussian_latitudes(32), np.arange(64) * 5.625),
        "region": save(at / "region.nc", np.linspace(20, 60, 21), np.linspace(-20.5, 39.5, 31)),
        "gaps": save(at / "gaps.nc", np.linspace(90, -90, 61), np.arange(0, 360, 3.0), gaps=True),
        "rotated": save_rotated(at / "rotated.nc"),
    }


@pytest.fixture(scope="module")
def cdo(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A function that runs cdo and gives the path of what it wrote."""
    if shutil.which("cdo") is None:
        pytest.skip("cdo isn't installed (package cdo)")
    folder, count = tmp_path_factory.mktemp("cdo"), iter(range(1000))

    def run(operator: str, *inputs: Path, doubles: bool = True) -> Path:
        out = folder / f"{next(count)}.nc"
        wide = ["-b", "F64"] if doubles else []
        done = subprocess.run(["cdo", "-s", *wide, operator, *map(str, inputs), str(out)], capture_output=True,
                              text=True, check=False)  # fmt: skip
        assert done.returncode == 0, done.stderr
        return out

    return run


def field_of(path: Path) -> Any:
    with xr.open_dataset(path) as data:
        return data["t"].values


def agree(mine: Any, theirs: Any, most: float) -> None:
    """Equal gaps, and values that differ by no more than a part."""
    assert mine.shape == theirs.shape
    np.testing.assert_array_equal(np.isnan(mine), np.isnan(theirs))
    assert np.isfinite(theirs).any()
    assert np.nanmax(np.abs(mine / theirs - 1)) <= most


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("source", ["poles", "halves", "gaussian", "region", "gaps", "rotated"])
def test_equals_cdo(source: str, method: str, sources: dict[str, Path], cdo: Any) -> None:
    place, _, _ = file_grid(str(sources[source]), "t")
    weights = weights_between(place, named_grid("r72x36"), method)
    theirs = field_of(cdo(f"remap{METHODS[method]},r72x36", sources[source]))
    least = 0.0 if method == "conservative" else 1.0
    agree(applied(weights, field_of(sources[source]), least), theirs, 1e-12)


def test_of_equally_near_cells_the_first_is_taken_where_cdo_takes_any(tmp_path: Path, cdo: Any) -> None:
    lat, lon = np.linspace(20, 60, 21), np.linspace(-20, 40, 31)  # every second target is halfway between two
    source, target = Grid("rectilinear", lat, lon), named_grid("r72x36")
    mine = weights_between(source, target, "nearest").source
    theirs = read_weights(str(cdo("gennn,r72x36", save(tmp_path / "ties.nc", lat, lon))))
    order = np.argsort(theirs.rows)
    points, others = vectors(*source.centres), vectors(*target.centres)
    near = [np.linalg.norm(points[chosen] - others, axis=1) for chosen in (mine, theirs.columns[order])]
    np.testing.assert_allclose(*near, rtol=1e-12)
    assert (mine <= theirs.columns[order]).all()


@pytest.mark.parametrize("target", ["r180x90", "n16"])
@pytest.mark.parametrize("method", ["conservative", "bilinear"])
def test_finer_and_gaussian_targets_equal_cdo(target: str, method: str, sources: dict[str, Path], cdo: Any) -> None:
    place, _, _ = file_grid(str(sources["halves"]), "t")
    weights = weights_between(place, named_grid(target), method)
    theirs = field_of(cdo(f"remap{METHODS[method]},{target}", sources["halves"]))
    agree(applied(weights, field_of(sources["halves"]), 0.5), theirs, 1e-12)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("step", [0.25, 0.75])
def test_one_degree_from_fine_grids_equals_cdo_in_float32(step: float, method: str, tmp_path: Path, cdo: Any) -> None:
    lat, lon = np.linspace(90, -90, round(180 / step) + 1), np.arange(round(360 / step)) * step
    path = save(tmp_path / "fine.nc", lat, lon, dtype="f4")
    weights = weights_between(Grid("rectilinear", lat, lon), named_grid("r360x180"), method)
    mine = applied(weights, field_of(path), 1.0)
    assert mine.dtype == np.float32
    agree(mine.astype("f8"), field_of(cdo(f"remap{METHODS[method]},r360x180", path, doubles=False)).astype("f8"), 1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_real_fields_equal_cdo(method: str, data_dir: Path, tmp_path: Path, cdo: Any) -> None:
    files = {"sst": data_dir / "climate" / "sst.mnmean.nc", "u": data_dir / "climate" / "eraint_uvz.nc"}
    for name, path in files.items():
        if not path.is_file():
            pytest.skip(f"no {path}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # packed values whose fill value is NaN
            data = xr.open_dataset(path, decode_times=False)
        with data:
            first = data[name][(0,) * (data[name].ndim - 2)]
            lat, lon = (np.asarray(first[dim].values, "f8") for dim in first.dims)
            values = np.asarray(first.values, "f8") + 300.0  # away from 0, for differences relative to values
        here = save(tmp_path / f"{name}.nc", lat, lon, values=values)
        weights = weights_between(Grid("rectilinear", lat, lon), named_grid("r360x180"), method)
        theirs = field_of(cdo(f"remap{METHODS[method]},r360x180", here))
        agree(applied(weights, field_of(here), 0.0 if method == "conservative" else 1.0), theirs, 1e-12)


@pytest.mark.parametrize(("source", "method"), [("halves", "conservative"), ("halves", "bilinear"), ("gaps", "nearest"),
                                                ("rotated", "conservative"), ("region", "bilinear")])  # fmt: skip
def test_weight_files_go_to_cdo_and_come_from_it(source: str, method: str, sources: dict[str, Path], tmp_path: Path,
                                                 cdo: Any) -> None:  # fmt: skip
    place, _, _ = file_grid(str(sources[source]), "t")
    target, field, least = named_grid("r72x36"), field_of(sources[source]), 0.0 if method == "conservative" else 1.0
    theirs = field_of(cdo(f"remap{METHODS[method]},r72x36", sources[source]))
    weights = weights_between(place, target, method)
    mine = write_weights(str(tmp_path / "mine.nc"), weights, place, target, method)
    agree(field_of(cdo(f"remap,r72x36,{mine}", sources[source])), theirs, 1e-12)
    for path in (cdo(f"gen{METHODS[method]},r72x36", sources[source]),
                 write_weights(str(tmp_path / "esmf.nc"), weights, place, target, method, "esmf")):  # fmt: skip
        stored = read_weights(str(path))
        read, found = fitted(stored, place, None)
        assert (stored.method, found.kind, found.shape) == (method, "rectilinear", (36, 72))
        np.testing.assert_allclose(found.lat, target.lat, rtol=0, atol=1e-9)
        agree(applied(read, field, least), theirs, 1e-12)


# --- the two forms of weights, and what must hold for any grid ---


def axis(draw: Any, low: float, high: float, least: int = 2) -> Any:
    """Uneven positions between two ends, in either order."""
    steps = np.cumsum(draw(st.lists(st.integers(1, 9), min_size=least + 1, max_size=12)))
    values = low + (high - low) * steps[:-1] / steps[-1]
    return values[::-1] if draw(st.booleans()) else values


@st.composite
def cases(draw: Any) -> tuple[Grid, Grid, int, float]:
    """A source and target (global or regional), a seed for fields, and a least valid share."""
    grids = []
    for _ in range(2):
        west = draw(st.sampled_from([-180.0, 0.0, -37.5]))
        lon = west + np.arange(draw(st.integers(3, 12))) * 30.0 if draw(st.booleans()) else axis(draw, west, west + 350)
        grids.append(Grid("rectilinear", axis(draw, -90.0, 90.0), lon))
    return grids[0], grids[1], draw(st.integers(0, 99)), draw(st.sampled_from([0.0, 0.3, 0.999, 1.0]))


@settings(max_examples=few(25), deadline=None)
@given(cases(), st.sampled_from(["conservative", "bilinear"]))
def test_rows_of_a_product_equal_listed_cells(case: tuple[Grid, Grid, int, float], method: str) -> None:
    source, target, seed, least = case
    draw = np.random.default_rng(seed)
    fields = draw.normal(size=(6, *source.shape))
    fields[draw.random(fields.shape) < np.linspace(0, 0.9, 6)[:, None, None]] = np.nan
    weights = weights_between(source, target, method)
    if len(weights.cells):  # the caps are lists already, with a share of their own
        least = min(least, 0.0)
        fields = fields[:1]
    listed = from_links(target, *as_links(weights, source.shape[1]))
    np.testing.assert_allclose(applied(weights, fields, least), applied(listed, fields, least), rtol=1e-12, atol=1e-12)


def test_least_valid_shares() -> None:
    source, target = box_grid((0.0, 4.0, -1.0, 1.0), 1.0), box_grid((-1.0, 5.0, -1.0, 1.0), 2.0)
    field = np.arange(8.0).reshape(1, 2, 4)
    field[0, 0, 1] = np.nan  # a quarter of the middle target; of the others half lies beyond the source
    product = weights_between(source, target)
    for weights in (product, from_links(target, *as_links(product, 4))):
        for least, there in ((0.0, [1, 1, 1]), (0.5, [1, 1, 1]), (0.6, [0, 1, 0]), (0.75, [0, 1, 0]), (0.8, [0, 0, 0])):
            np.testing.assert_array_equal(np.isfinite(applied(weights, field, least)[0, 0]), np.array(there, bool))
        assert applied(weights, field)[0, 0, 1] == pytest.approx((2 + 5 + 6) / 3, rel=1e-3)


@settings(max_examples=few(25), deadline=None)
@given(cases())
def test_constants_stay_and_global_means_too(case: tuple[Grid, Grid, int, float]) -> None:
    source, target, seed, _ = case
    for method in ("conservative", "bilinear"):
        found = applied(weights_between(source, target, method), np.full((1, *source.shape), 3.25), 0.0)
        np.testing.assert_allclose(found[np.isfinite(found)], 3.25, rtol=1e-12)
    whole = [Grid("rectilinear", np.sort(np.append(one.lat[np.abs(one.lat) < 85], [-89.0, 89.0])), np.arange(6) * 60.0)
             for one in (source, target)]  # fmt: skip
    field = np.random.default_rng(seed).normal(size=(1, *whole[0].shape))
    found = applied(weights_between(*whole, "conservative"), field)
    areas = [cell_areas(one.lat, one.lon) for one in whole]
    totals = [(area * values[0]).sum() for area, values in zip(areas, (field, found), strict=True)]
    np.testing.assert_allclose(totals[1], totals[0], rtol=1e-9, atol=1e-3 * RADIUS)


def as_cells(one: Grid, points: int) -> Grid:
    """A box grid's cells with so many corners along each parallel, between which great circles run."""
    lat, lon = (c.reshape(one.shape) for c in one.centres)
    half, along = (one.lat[1] - one.lat[0]) / 2, np.linspace(-1, 1, points)
    ys, xs = np.repeat([-half, half], points), np.concatenate([along, along[::-1]]) * half
    return Grid("curvilinear", lat, lon, lat[..., None] + ys, lon[..., None] + xs)


@pytest.mark.parametrize(("south", "points", "most"), [(10.0, 41, 1e-5), (-1.0, 2, 1e-6)])
def test_cells_clipped_against_each_other_share_what_boxes_share(south: float, points: int, most: float) -> None:
    # Near the equator great circles are parallels, nearly. Elsewhere corners along parallels make cells that aren't
    # convex: these can be clipped, but not be clipped against.
    size = 4.0 if points > 2 else 0.2
    source = box_grid((0.0, 10 * size, south, south + 10 * size), size)
    target = box_grid((size / 2, 8 * size, south + size / 2, south + 8 * size), size * 0.75)
    field = values_on(*np.meshgrid(source.lat, source.lon, indexing="ij"))[None]
    boxes = applied(weights_between(source, target), field)
    pairs = [(as_cells(source, points), target), (source, as_cells(target, points))]
    pairs += [(as_cells(source, 2), as_cells(target, 2))] if points == 2 else []
    for pair in pairs:
        np.testing.assert_allclose(applied(clipped_weights(*pair), field), boxes, rtol=most)


def test_triangles_of_a_list_cover_the_globe() -> None:
    places = [(pole, lon) for pole in (90.0, -90.0) for lon in (0.0, 90.0, 180.0, 270.0)]
    octants = np.array([[(0.0, lon), (0.0, lon + 90.0), (pole, lon)] for pole, lon in places])
    source = Grid("unstructured", octants[..., 0].mean(1), octants[:, 0, 1] + 45, octants[..., 0], octants[..., 1])
    target = named_grid("r12x6")
    found = applied(weights_between(source, target), np.arange(8.0))
    assert found[4, 3] == pytest.approx(0.5)  # centred on 90 E: half of the first, half of the second octant
    assert found[5, 1] == pytest.approx(0.0)
    assert found[0, 1] == pytest.approx(4.0)
    assert np.isfinite(found).all()
    near = applied(weights_between(source, target, "nearest"), np.arange(8.0))
    assert near[4, 1] == 0.0
    with pytest.raises(ParameterError, match="cells are a list"):
        weights_between(source, target, "bilinear")


# --- grids ---


def test_areas_edges_and_rounds() -> None:
    assert cell_areas(np.linspace(90, -90, 37), np.arange(0, 360, 5.0)).sum() == pytest.approx(4 * np.pi * RADIUS**2)
    assert cell_areas(gaussian_latitudes(64), np.arange(64) * 5.625, radius=1).sum() == pytest.approx(4 * np.pi)
    assert cell_areas(np.array([0.0]), np.array([0.0]), 1.0).shape == (1, 1)
    assert goes_round(np.arange(0, 360, 1.875, dtype=np.float32))
    assert goes_round(np.array([170.0, -170.0, -150.0, *np.arange(-130, 170, 20.0)]))
    assert not goes_round(np.arange(0, 350, 1.0))
    assert not goes_round(np.array([0.0]))


def test_names_of_grids() -> None:
    assert named_grid("r360x180").lat[[0, -1]].tolist() == [-89.5, 89.5]
    assert named_grid("global_1").lon[[0, -1]].tolist() == [-179.5, 179.5]
    assert named_grid("F16").shape == (32, 64)
    np.testing.assert_allclose(gaussian_latitudes(4), [59.44440828, 19.87571915, -19.87571915, -59.44440828])
    for name in ("", "r0x10", "r10", "F0", "T42", "global_0", "r999999x999999", "r10x10; rm"):
        with pytest.raises(ParameterError, match="there is no grid"):
            named_grid(name)


@pytest.mark.parametrize(("lat", "lon", "says"), [
    ([0.0, 1.0, 1.0], [0.0, 1.0], "neither increase nor decrease"),
    ([0.0, np.nan], [0.0, 1.0], "finite"),
    ([0.0, 91.0], [0.0, 1.0], "not in degrees"),
    ([0.0, 1.0], [0.0, 100.0, 200.0, 300.0, 400.0], "more than once round"),
    ([], [0.0], "empty"),
])  # fmt: skip
def test_coordinates_of_no_grid_are_refused(lat: Any, lon: Any, says: str) -> None:
    with pytest.raises(ParameterError, match=says):
        Grid("rectilinear", np.array(lat), np.array(lon))


# --- weight files from outside ---

BROKEN: dict[str, tuple[Any, str]] = {
    "source outside": (lambda d: d.src_address.__setitem__(3, 99_999), "src_address has 99999"),
    "target outside": (lambda d: d.dst_address.__setitem__(0, 0), "dst_address has 0"),
    "far outside": (lambda d: d.dst_address.__setitem__(0, -(2**31)), "dst_address has -2147483648"),
    "not a number": (lambda d: d.remap_matrix.__setitem__((5, 0), np.nan), "aren't finite"),
    "infinite": (lambda d: d.remap_matrix.__setitem__((5, 0), np.inf), "aren't finite"),
    "dims": (lambda d: d.src_grid_dims.__setitem__(0, 7), "the grid has"),
    "no dims": (lambda d: d.dst_grid_dims.__setitem__(0, 0), "dst_grid_dims is"),
    "share": (lambda d: d.dst_grid_frac.__setitem__(0, np.nan), "isn't a share"),
    "centres": (lambda d: d.dst_grid_center_lat.__setitem__(0, np.nan), "isn't a place"),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Grid, Grid]:
    path = tmp_path_factory.mktemp("weights") / "good.nc"
    source, target = box_grid((0.0, 40.0, 0.0, 20.0), 2.0), box_grid((0.0, 40.0, 0.0, 20.0), 5.0)
    return write_weights(str(path), weights_between(source, target), source, target, "conservative"), source, target


@pytest.mark.parametrize("kind", BROKEN)
def test_hostile_weight_files_are_refused(kind: str, good: tuple[Path, Grid, Grid], tmp_path: Path) -> None:
    change, says = BROKEN[kind]
    with xr.open_dataset(good[0], decode_cf=False) as found:
        data = found.load()
    change(data)
    data.to_netcdf(tmp_path / "bad.nc")
    with pytest.raises(CorruptInputError, match=says):
        read_weights(str(tmp_path / "bad.nc"))


def test_weight_files_of_wrong_form_are_refused(good: tuple[Path, Grid, Grid], tmp_path: Path) -> None:
    with xr.open_dataset(good[0], decode_cf=False) as found:
        data = found.load()
    wrong = {
        "neither": data.drop_vars("remap_matrix"), "no dst_address": data.drop_vars("dst_address"),
        "3 weights a link": data.assign(remap_matrix=(("num_links", "three"), np.zeros((data.sizes["num_links"], 3)))),
        "src_address is float64": data.assign(src_address=data.src_address.astype("f8")),
        "src_address is": data.assign(src_address=("other", np.ones(3, np.int32))),
    }  # fmt: skip
    for says, changed in wrong.items():
        changed.to_netcdf(tmp_path / "bad.nc")
        with pytest.raises(CorruptInputError, match=says):
            read_weights(str(tmp_path / "bad.nc"))
    (tmp_path / "text.nc").write_text("not a file of weights")
    with pytest.raises(CorruptInputError, match="can't be read"):
        read_weights(str(tmp_path / "text.nc"))
    with pytest.raises(MissingInputError):
        read_weights(str(tmp_path / "none.nc"))


def test_weights_of_another_grid_are_refused(good: tuple[Path, Grid, Grid]) -> None:
    stored, (_, source, target) = read_weights(str(good[0])), good
    assert fitted(stored, source, target)[1] is target
    with pytest.raises(ParameterError, match="the input has"):
        fitted(stored, box_grid((0.0, 40.0, 0.0, 20.0), 1.0), None)
    with pytest.raises(ParameterError, match="cells elsewhere"):
        fitted(stored, Grid("rectilinear", source.lat[::-1], source.lon), None)
    with pytest.raises(ParameterError, match="another target"):
        fitted(stored, source, box_grid((1.0, 41.0, 0.0, 20.0), 5.0))
    with pytest.raises(ParameterError, match="don't say a target"):
        fitted(replace(stored, target=None), source, None)


# --- the workload ---


def test_workload_writes_cf_and_saves_weights(own_folder: Path) -> None:
    job = grid.workload("climate.regrid")(bounds="-130,-60,20,55", resolution=5.0, save_weights="w.nc")
    run = grid.run(*job.outputs, executor="inline", quiet=True)
    said = [str(one) for one in job.finish(run)]
    assert {"w.nc", "regridded.png"} <= {Path(one).name for one in said}
    with xr.open_zarr("regridded.zarr") as mine:
        assert mine.air_temperature.dims == ("time", "lat", "lon")
        assert (mine.lat.attrs["units"], mine.lon.attrs["units"]) == ("degrees_north", "degrees_east")
        assert mine.air_temperature.attrs["units"] == "K"
        assert mine.air_temperature.attrs["cell_methods"] == "time: mean (interval: 6 hour) area: mean"
        first = mine.air_temperature[0].values
    again = grid.workload("climate.regrid")(weights="w.nc", output="again.zarr", picture="none")
    run = grid.run(*again.outputs, executor="inline", quiet=True)
    assert "no picture" not in " ".join(str(one) for one in again.finish(run))
    with xr.open_zarr("again.zarr") as mine:
        np.testing.assert_allclose(mine.air_temperature[0].values, first, rtol=1e-6)


def test_workload_takes_curvilinear_input_and_targets(sources: dict[str, Path], own_folder: Path) -> None:
    call = grid.workload("climate.regrid")
    job = call(input=str(sources["rotated"]), grid="r36x18", method="bilinear", output="a.zarr", picture="none")
    run = grid.run(*job.outputs, executor="inline", quiet=True)
    place, _, _ = file_grid(str(sources["rotated"]), "t")
    wanted = applied(weights_between(place, named_grid("r36x18"), "bilinear"), field_of(sources["rotated"]), 1.0)
    np.testing.assert_array_equal(run["t"].to_numpy(), wanted)
    like = {"like": str(sources["rotated"]), "method": "bilinear", "picture": "none"}
    job = call(input=str(sources["region"]), output="b.zarr", **like)
    grid.run(*job.outputs, executor="inline", quiet=True)
    with xr.open_zarr("b.zarr") as mine:
        assert mine.t.dims == ("time", "y", "x")
        np.testing.assert_allclose(mine.lat.values, place.lat)


def test_names_of_dimensions_and_whole_numbers() -> None:
    lat, lon = np.array([0.0, 10.0]), np.array([0.0, 10.0])
    array, coords = np.array([[[1, 2], [3, 4]]]), {"lat": lat, "lon": lon}
    counts = grid.from_arrays({"n": array}, dims=("time", "lat", "lon"), coords=coords)
    found = regridded(counts, box_grid((-5.0, 15.0, -5.0, 15.0), 20.0))
    assert found.dims == ("time", "latitude", "longitude")
    assert found.fields[0].dtype == np.float64
    value = grid.run(found, executor="inline", quiet=True)["n"].to_numpy().item()
    assert value == pytest.approx(2.5, rel=0.02)


@pytest.mark.parametrize(("options", "says"), [
    ({"method": "cubic"}, "no method 'cubic'"),
    ({"grid": "T42"}, "no grid 'T42'"),
    ({"grid": "r10x10", "bounds": "0,0,1,1", "resolution": 1.0}, "said twice"),
    ({"bounds": "0,0,1,1"}, "both --bounds and --resolution"),
    ({"bounds": "0,0,1", "resolution": 1.0}, "bounds are"),
    ({"bounds": "10,0,0,1", "resolution": 1.0}, "no grid has the bounds"),
    ({"bounds": "0,1,0,1", "resolution": 0.3}, "don't fill"),
    ({"min_valid": 1.5}, "least valid share"),
    ({"weight_format": "csv"}, "no weight format"),
    ({"weights": "nowhere.nc"}, "no file"),
    ({"like": "nowhere.nc"}, "no file"),
    ({"save_weights": "no/folder/w.nc"}, "no such folder"),
    ({"save_weights": "regridded.zarr/"}, "can't both go to"),
    ({"variable": "rain"}, "no variable 'rain'"),
])  # fmt: skip
def test_bad_parameters_are_refused(options: dict[str, Any], says: str, own_folder: Path) -> None:
    with pytest.raises(GridError, match=says):
        grid.workload("climate.regrid")(**options)


def test_weights_replace_weights_only(sources: dict[str, Path], own_folder: Path) -> None:
    with pytest.raises(StoreError, match="holds no weights"):
        grid.workload("climate.regrid")(save_weights=str(sources["poles"]))


def small_cases() -> list[Any]:
    """Fields on other grids by all methods: three of rectilinear weights, three of a rotated grid's."""
    source, target = box_grid((0.0, 40.0, -20.0, 20.0), 10.0), box_grid((-5.0, 45.0, -25.0, 25.0), 10.0)
    field = np.arange(16.0).reshape(1, 4, 4) / 7
    field[0, 1, 2] = np.nan
    found = [applied(weights_between(source, target, method), field, 0.25) for method in METHODS]
    lat, lon, *corners = rotated(3, 4)
    curved, target = Grid("curvilinear", lat, lon, *corners), box_grid((-20.0, 40.0, 40.0, 60.0), 10.0)
    field = np.arange(12.0).reshape(1, 3, 4) / 7
    return found + [applied(weights_between(curved, target, method), field) for method in METHODS]


def test_plain_python_gives_the_same(tmp_path: Path) -> None:
    code = "import sys, numpy; from test_climate_regrid import small_cases; numpy.savez(sys.argv[1], *small_cases())"
    own = {"NUMBA_DISABLE_JIT": "1", "GRIDCOMPUTE_STATE": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "plain.npz")], capture_output=True, text=True,
                          cwd=Path(__file__).parent, env={**os.environ, **own}, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    with np.load(tmp_path / "plain.npz") as stored:
        plain = [stored[name] for name in stored.files]
    for i, (one, other) in enumerate(zip(small_cases(), plain, strict=True)):
        np.testing.assert_allclose(one, other, rtol=1e-12)
        if i < 3:  # weights made by NumPy alone: the same bits
            np.testing.assert_array_equal(one, other)
