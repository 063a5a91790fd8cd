"""Zonal, meridional and area means against cdo and xarray, on a made field with gaps and on a real one with land."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from cdo import agrees, archive, cdo
from gridcompute_workloads.climate.areas import (
    Box,
    area_means,
    box_means,
    boxes_of,
    edges,
    latitude_weights,
    row_edges,
)
from gridcompute_workloads.climate.normals import FEW
from gridcompute_workloads.climate.zonal import cut_off, meridional_means, zonal_statistics

import gridcompute as grid
from gridcompute.coords import Coordinate
from gridcompute.errors import DimensionError, ParameterError
from gridcompute.resuming import run_workload

pytestmark = pytest.mark.usefixtures("own_folder")

QUIET: dict[str, Any] = {"executor": "inline", "quiet": True, "store": "work"}


def areas(path: str, name: str, out: str, *words: str) -> str:
    """Our areas of a file's cells, for cdo: its own take parallels for great circles, 2e-4 off at 2 degrees."""
    with xr.open_dataset(path) as data:
        one = data[name].isel(time=0, drop=True)
        lat = Coordinate("lat", "lat", one["lat"].values)
        weights = np.broadcast_to(latitude_weights(lat)[:, None], one.shape)
        one.astype("f8").copy(data=weights).rename("cell_area").drop_encoding().to_netcdf(
            f"whole-{out}", encoding={"cell_area": {"_FillValue": None}})  # fmt: skip
    if not words:
        return f"-setgridarea,whole-{out}"
    values = cdo(*words, f"whole-{out}")
    with xr.open_dataset("cdo-result.nc") as data:
        data.load().to_netcdf(out, encoding={"cell_area": {"_FillValue": None}})
    assert np.isfinite(values).all()
    return f"-setgridarea,{out}"


def checked(path: str, name: str) -> None:
    """All of it against cdo."""
    field = grid.open_dataset(path)[name]
    boxes = boxes_of("globe; 190,240,-5,5 280,40,-30,60")
    run = grid.run(zonal_statistics(field), area_means(field, boxes), meridional_means(field), **QUIET)
    source, rows = f"-selname,{name}", run.part(0, 1)
    agrees(rows["mean"].to_numpy(), cdo("zonmean", source, path), 1e-12, atol=1e-12)
    agrees(rows["std"].to_numpy(), cdo("zonstd", source, path), 1e-8, atol=1e-6)  # cdo: of large sums
    agrees(rows["min"].to_numpy(), cdo("zonmin", source, path), 0)
    agrees(rows["max"].to_numpy(), cdo("zonmax", source, path), 0)
    means = run[1].to_numpy()
    assert run[1].to_xarray()[name].attrs["cell_methods"] == "area: mean"
    assert run[1].to_xarray()["box"].values.tolist() == ["globe", "190,240,-5,5", "280,40,-30,60"]
    agrees(means[..., 0], cdo("fldmean", areas(path, name, "a.nc"), source, path), 1e-12)
    agrees(run[2].to_numpy(), cdo("mermean", areas(path, name, "a.nc"), source, path), 1e-12, atol=1e-12)
    for i, box in ((1, "190,240,-5,5"), (2, "280,400,-30,60")):
        chosen = f"-sellonlatbox,{box}"
        if not np.isnan(means[..., i]).all():
            weights = areas(path, name, "b.nc", chosen)
            agrees(means[..., i], cdo("fldmean", weights, chosen, source, path), 1e-12)


def test_a_real_field_with_land_equals_cdo(data_dir: Path) -> None:
    with xr.open_dataset(data_dir / "climate" / "sst.mnmean.nc") as data:
        part = data[["sst"]].isel(time=slice(0, 12)).astype("f8")
        part.to_netcdf("s.nc")
    checked("s.nc", "sst")
    with xr.open_dataset("s.nc") as data:
        cosines = data["sst"].weighted(np.cos(np.radians(data["lat"].astype("f8")))).mean(("lat", "lon"))
    run = grid.run(area_means(grid.open_dataset("s.nc")["sst"], weights="cos"), **QUIET)
    agrees(run[0].to_numpy(), cosines.values, 1e-12)


def test_a_field_with_gaps_equals_cdo() -> None:
    archive("d.nc", "noleap", "2000-01-01", "2000-01-20", shape=(19, 36))
    checked("d.nc", "t")


def test_areas_are_exact() -> None:
    globe = np.linspace(90, -90, 19)
    np.testing.assert_allclose(latitude_weights(Coordinate("y", "y", globe)).sum(), 2.0, rtol=1e-15)
    assert row_edges(globe)[[0, 1, -1]].tolist() == [90, 85, -90]
    assert row_edges(np.arange(-88.0, 89, 2))[[0, 1]].tolist() == [-90, -87]  # less than a row would be left out
    assert row_edges(np.array([10.0, 20.0])).tolist() == [5, 15, 25]
    assert edges(np.array([3.0])).tolist() == [2.5, 3.5]
    np.testing.assert_allclose(latitude_weights(Coordinate("y", "y", globe), "cos")[9], 1.0)
    with pytest.raises(ParameterError, match="latitudes from"):
        latitude_weights(Coordinate("y", "y", np.array([0.0, 95.0])))
    with pytest.raises(ParameterError, match="'mass' weights"):
        latitude_weights(Coordinate("y", "y", globe), "mass")


def test_means_over_boxes_are_kept_in_few_chunks() -> None:
    coords = {"lat": np.linspace(-80.0, 80, 9), "lon": np.arange(0.0, 360, 30)}
    field = grid.from_arrays({"t": np.zeros((1000, 9, 12))}, dims=("time", "lat", "lon"), coords=coords)["t"]
    stages = grid.plan(area_means(field)).to_dict()["stages"]
    (chunks,) = [stage["chunks"] for stage in stages if "box_means" in stage["name"]]
    assert chunks == FEW


def test_boxes() -> None:
    lon = np.arange(0.0, 360, 10)
    assert Box.parse("350,10,-5,5").columns(lon).nonzero()[0].tolist() == [0, 1, 35]
    assert Box.parse("-10,10,-5,5").columns(lon).nonzero()[0].tolist() == [0, 1, 35]
    assert Box.parse("170,-170,-5,5").columns(lon - 180).nonzero()[0].tolist() == [0, 1, 35]
    assert Box.parse("globe").columns(lon).all()
    assert Box.parse("0,360,0,1").columns(lon).all()
    assert Box.parse("NINO3.4").rows(np.array([-6.0, -5, 0, 5])).tolist() == [False, True, True, True]
    for wrong in ("nino5", "1,2,3", "0,10,5,-5", "0,10,0,91", "a,b,c,d", "nan,1,0,1"):
        with pytest.raises(ParameterError, match=r"(the|no) box"):
            Box.parse(wrong)
    with pytest.raises(ParameterError, match="twice"):
        boxes_of("globe globe")
    assert [box.name for box in boxes_of("280, 360, 0, 60; nino3 tropics")] == ["280, 360, 0, 60", "nino3", "tropics"]


def test_longitudes_may_jump_and_what_has_no_edges_is_refused() -> None:
    values = np.random.default_rng(1).random((3, 2, 6))

    def field(lat: Any, lon: Any) -> Any:
        data = xr.Dataset({"t": (("time", "lat", "lon"), values)}, {"lat": lat, "lon": lon})
        return grid.open_dataset(data)["t"]

    run = grid.run(area_means(field([-10.0, 10.0], [0.0, 60, 120, -180, -120, -60])), **QUIET)
    agrees(run[0].to_numpy()[:, 0], values.mean((1, 2)), 1e-12)
    even = [0.0, 60, 120, 180, 240, 300]
    for lat, lon, said in (([5.0, 5.0], even, "latitudes neither"),
                           ([0.0, 10], [0.0, 60, 60, 180, 240, 300], "longitudes neither"),
                           ([0.0, 10], [0.0, np.nan, 120, 180, 240, 300], "finite"),
                           ([0.0, 10], [0.0, 72, 144, 216, 288, 360], "more than once")):  # fmt: skip
        with pytest.raises(ParameterError, match=said):
            area_means(field(lat, lon))
    projected = {"y": ("y", [0.0, 10], {"units": "km"}), "x": ("x", even, {"units": "km"})}
    data = grid.open_dataset(xr.Dataset({"t": (("time", "y", "x"), values)}, projected))
    with pytest.raises(DimensionError, match="no latitude"):
        area_means(data["t"])


def test_boxes_beyond_the_input_are_told() -> None:
    def told(lon: Any, *boxes: str) -> list[str]:
        lat = np.arange(15.0, 61.0, 5)
        part = grid.from_arrays({"t": np.zeros((10, len(lon)))}, dims=("lat", "lon"), coords={"lat": lat, "lon": lon})
        return [line.split(" is a mean")[0] for line in cut_off(part["t"], [Box.parse(box) for box in boxes])]

    region = np.arange(-135.0, -44.0, 5)
    assert told(region, "-120,-80,20,50", "225,315,15,60") == []
    beyond = ["globe", "-120,-20,20,50", "-120,-80,-20,50", "-160,-80,20,50"]
    assert told(region, *beyond) == beyond
    assert told(np.arange(0.0, 360, 10), "350,10,20,50", "0,360,20,50") == []


def test_fields_without_times_have_zonal_means_too() -> None:
    lat, lon = np.arange(-80.0, 81, 20), np.arange(0.0, 360, 30)
    values = lat[:, None] + np.zeros((2, 9, 12))
    coords = {"level": [500, 850], "lat": lat, "lon": lon}
    xr.Dataset({"u": (("level", "lat", "lon"), values)}, coords).to_netcdf("l.nc")
    run_workload("climate.zonal", {"input": "l.nc", "output": "z.zarr"}, QUIET)
    with xr.open_zarr("z.zarr") as found:
        assert found["mean"].dims == ("level", "lat")
        assert found["mean"].values[1].tolist() == lat.tolist()


def test_uneven_longitudes_count_by_their_widths_and_empty_boxes_are_refused() -> None:
    lon, lat = np.array([0.0, 10.0, 30.0, 70.0]), np.array([0.0, 10.0])
    values = np.random.default_rng(1).random((3, 2, 4))
    values[0, 0, 1] = np.nan
    xr.Dataset({"t": (("time", "lat", "lon"), values)}, {"lat": lat, "lon": lon}).to_netcdf("u.nc")
    field = grid.open_dataset("u.nc")["t"]
    weights = latitude_weights(Coordinate("lat", "lat", lat))[:, None] * np.abs(np.diff(edges(lon)))
    known = ~np.isnan(values)
    expected = np.nansum(values * weights, (1, 2)) / (known * weights).sum((1, 2))
    run = grid.run(area_means(field), **QUIET)
    agrees(run[0].to_numpy()[:, 0], expected, 1e-12)
    with pytest.raises(ParameterError, match="no cell of t"):
        area_means(field, [Box.parse("100,120,0,5")])
    with pytest.raises(DimensionError, match="no longitude"):
        zonal_statistics(grid.from_arrays({"t": values}, dims=("time", "a", "b"))["t"])


def test_the_kernel_without_a_compiler() -> None:
    rng = np.random.default_rng(2)
    sums, counts, shares = rng.random((2, 3)), rng.integers(0, 3, (2, 3)), rng.random((2, 2, 3))
    shares[1] = 0
    sums[counts == 0] = np.nan
    found = box_means.func(sums, counts, shares)
    assert found[0] == pytest.approx((shares[0] * np.nan_to_num(sums)).sum() / (shares[0] * counts).sum(), rel=1e-14)
    assert np.isnan(found[1])


def test_the_workload_writes_what_xarray_opens_and_draws() -> None:
    archive("d.nc", "noleap", "2000-01-01", "2000-01-20", "f4", (9, 8))
    given = {"input": "d.nc", "output": "z.zarr", "box": "globe;0,90,-60,60", "meridional": True}
    carried = run_workload("climate.zonal", given, QUIET)
    assert [path.name for path in carried.files] == ["z.png"]
    assert any(line.startswith("0,90,-60,60: mean") for line in carried.lines)
    found = xr.open_zarr("z.zarr")
    assert found["mean"].dims == ("time", "lat")
    assert found["mean"].attrs["cell_methods"] == "lon: mean"
    source = xr.open_dataset("d.nc")["t"].astype("f8")
    np.testing.assert_allclose(found["mean"].values, source.mean("lon").values, rtol=1e-12)
    assert xr.open_zarr("z-boxes.zarr")["t"].dims == ("time", "box")
    assert xr.open_zarr("z-meridional.zarr")["t"].dims == ("time", "lon")
    assert xr.open_zarr("z-boxes.zarr")["t"].attrs["units"] == "K"
    run_workload("climate.zonal", {"input": "d.nc", "output": "y.zarr", "box": "none", "picture": "none"}, QUIET)
    assert not Path("y-boxes.zarr").exists()
