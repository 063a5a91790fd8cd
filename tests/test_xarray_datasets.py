"""xarray datasets as collections and back: values, labels and attributes as xarray has them, however they come."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from places import few

import gridcompute as grid
from gridcompute import axes
from gridcompute.actions.loads import Load
from gridcompute.auxiliary import Auxiliary
from gridcompute.errors import CorruptInputError, EmptyGridError, GridError, ParameterError
from gridcompute.sources.arrays import ArraySource
from gridcompute.sources.lazy import LazySource
from gridcompute.sources.xarrays import DatasetSource
from gridcompute.sources.zarrs import ZarrSource
from gridcompute.spaces import Region

pytestmark = pytest.mark.filterwarnings(
    "ignore::xarray.SerializationWarning", "ignore::zarr.errors.ZarrUserWarning", "ignore:Duplicate dimension names",
    "ignore:The specified chunks separate",
)
CALENDARS = ("standard", "proleptic_gregorian", "noleap", "360_day", "all_leap", "julian")
REAL = ("A1B_north_america", "ostia_monthly", "sst.mnmean", "era5_1995-07-14T12", "eraint_uvz",
        "ta_day_BCC-ESM1_historical_r1i1p1f1_gn_19900101-20091231",
        "ta_Amon_IPSL-CM6A-LR_historical_r1i1p1f1_gr_185001-201412", "uwnd_mean")  # fmt: skip


@pytest.fixture(autouse=True)
def _small_data_is_one_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tested here is what is read and what it is called, not how it is cut."""
    monkeypatch.setattr(axes, "LIGHT_FLOOR", 2**20)


def computed(*collections: Any, store: str = "work") -> xr.Dataset:
    run = grid.run(*collections, executor="inline", quiet=True, store=store)
    return run[0].to_xarray()


def sources(collection: grid.Collection) -> dict[str, Any]:
    """The source at the bottom of each column."""
    found = {}
    for name, (op, _) in collection.columns.items():
        (load,) = [one for one in op.walk() if isinstance(one.action, Load)]
        found[name] = load.action.source
    return found


def same(found: xr.Dataset, expected: xr.Dataset) -> None:
    """Equal variables and labels; what bounds and grid mappings are called doesn't count, nor what they are held as."""
    found = found.load()
    names = list(found.data_vars)
    for name in names:
        np.testing.assert_array_equal(found[name].values, expected[name].values, err_msg=name)
        assert found[name].dims == expected[name].dims
    for name, c in expected[names].coords.items():
        assert name in found.coords, name
        np.testing.assert_array_equal(found[name].values, c.values, err_msg=str(name))
        assert found[name].dims == c.dims


@pytest.mark.parametrize("chunks", [None, {}])
@pytest.mark.parametrize("name", REAL)
def test_real_files_are_read_as_xarray_does_by_our_own_reader(own_folder: Path, data_dir: Path, name: str, chunks: Any):
    with xr.open_dataset(data_dir / "climate" / f"{name}.nc", chunks=chunks) as ds:
        lazy = ds.grid
        assert {type(source) for source in sources(lazy).values()} == {DatasetSource}
        small = {dim: slice(0, 7) for dim in ("time", "level", "latitude") if dim in lazy.dims}
        found = computed(lazy.isel(**small))
        same(found, ds.isel({dim: part for dim, part in small.items() if dim in ds.dims}))
        for key, value in ds.attrs.items():
            np.testing.assert_array_equal(found.attrs[key], value)
        for key in found.data_vars:
            kept = {k: v for k, v in ds[key].attrs.items() if not isinstance(v, np.generic | np.ndarray)}
            assert kept.items() <= found[key].attrs.items()


def test_bounds_and_scalars_go_with_what_they_describe(own_folder: Path, data_dir: Path) -> None:
    with xr.open_dataset(data_dir / "climate" / "A1B_north_america.nc", decode_coords="all") as ds:
        part = computed(ds.grid.isel(time=slice(3, 6)))
        np.testing.assert_array_equal(part["time_bnds"], ds["time_bnds"][3:6])
        assert part["time"].attrs["bounds"] == "time_bnds"
        assert part["air_temperature"].attrs["grid_mapping"] == "latitude_longitude"
        assert part["forecast_reference_time"].values == ds["forecast_reference_time"].values
        one = computed(ds.grid.isel(time=4))
        assert one["time"].values == ds["time"].values[4]
        np.testing.assert_array_equal(one["time_bnds"], ds["time_bnds"][4])
        mean = computed(ds.grid.mean("time"))
        assert "time_bnds" not in mean.variables
        assert "height" in mean.coords
    opened = computed(grid.open_dataset(data_dir / "climate" / "A1B_north_america.nc")["air_temperature"].isel(time=4))
    np.testing.assert_array_equal(opened["time_bnds"], one["time_bnds"])
    assert opened.attrs == one.attrs


def test_what_was_changed_since_opening_is_read_through_xarray(own_folder: Path, data_dir: Path) -> None:
    path = data_dir / "climate" / "era5_1995-07-14T12.nc"
    with xr.open_dataset(path) as ds, xr.open_dataset(path, chunks={"latitude": 50}) as dask:
        turned = dask + 1
        assert {type(source) for source in sources(turned.grid).values()} == {LazySource}
        same(computed(turned.grid), turned)
        assert {type(source) for source in sources(dask.grid).values()} == {DatasetSource}
        part = ds.isel(latitude=slice(5, 90, 3), longitude=[7, 3, 100])
        assert {type(source) for source in sources(part.grid).values()} == {DatasetSource}
        same(computed(part.grid), part)
        one = ds.isel(latitude=7).rename(u10="u")
        assert type(sources(one.grid)["u"]) is DatasetSource
        same(computed(one.grid), one)
        moved = ds.rename(latitude="y")
        assert type(sources(moved.grid)["u10"]) is LazySource
        same(computed(moved.grid), moved)
        across = ds.transpose("longitude", "latitude")
        same(computed(across.grid), across)
        known = ds["u10"].copy(data=np.zeros(ds["u10"].shape))  # its encoding still names the file
        assert type(sources(known.grid)["u10"]) is ArraySource
        assert (computed(known.grid)["u10"] == 0).all()
    for options in ({"mask_and_scale": False}, {"decode_cf": False}):
        with xr.open_dataset(path, **options) as ds:
            found = computed(ds[["u10"]].grid)
            assert found["u10"].dtype == ds["u10"].dtype == np.int16
            np.testing.assert_array_equal(found["u10"], ds["u10"])


def test_versions_of_lazy_variables_follow_what_is_done_to_them(own_folder: Path) -> None:
    ds = xr.Dataset({"a": ("x", np.arange(12, dtype="i2"), {})})
    ds["a"].encoding = {"_FillValue": np.int16(5)}  # integers with gaps: xarray's floats, read through xarray
    ds.to_netcdf("a.nc")

    def version(data: xr.Dataset) -> str:
        source = sources(data.grid)["a"]
        assert type(source) is LazySource
        return source.version

    with xr.open_dataset("a.nc") as one, xr.open_dataset("a.nc") as two:
        assert version(one) == version(two), "opened twice it is the same"
        assert version(one.isel(x=slice(1, None))) != version(one)
        assert version(one.isel(x=slice(1, None))) != version(one.isel(x=slice(2, None)))
        same(computed(one.isel(x=[3, 5, 7]).grid), one.isel(x=[3, 5, 7]))
    with xr.open_dataset("a.nc", chunks={"x": 5}) as one, xr.open_dataset("a.nc", chunks={"x": 5}) as two:
        assert version(one * 2) == version(two * 2)
        assert version(one * 2) != version(two * 3)
        source = sources((one * 2).grid)["a"]
        assert source.stored == (("x", 5),)
    with xr.open_dataset("a.nc") as one:
        first = version(one)
    ds.to_netcdf("a.nc")
    with xr.open_dataset("a.nc") as one:
        assert version(one) != first, "the file was written anew"


def test_lazy_variables_go_to_workers_unread(own_folder: Path) -> None:
    from gridcompute.shipping import packed, unpacked

    ds = xr.Dataset({"a": ("x", np.arange(50_000, dtype="i4"))})
    ds["a"].encoding = {"_FillValue": np.int32(5)}
    ds.to_netcdf("a.nc")
    with xr.open_dataset("a.nc") as plain, xr.open_dataset("a.nc", chunks={"x": 1000}) as dask:
        for opened in (plain, dask, dask.where(dask["a"] > 9)):
            source = sources(opened.grid)["a"]
            sent = packed(source)
            assert sum(part.nbytes for part in sent) < 60_000, "files' names and a graph, not the values"
            there = unpacked(sent)
            assert there.objects(there.space.whole()) == source.objects(source.space.whole())
            region = Region.of((4, 4000))
            np.testing.assert_array_equal(there.read(region, ["a"])["a"].values, opened["a"][4:4000])
    Path("a.nc").write_bytes(b"\x89HDF no more")
    with pytest.raises(GridError, match=r"a\.nc"):
        unpacked(packed(sources(plain.grid)["a"])).read(region, ["a"])


def test_dask_is_never_computed_as_a_whole(own_folder: Path) -> None:
    da = pytest.importorskip("dask.array")
    seen = []

    def block(block_id: tuple[int, int]) -> Any:
        seen.append(block_id)
        return np.full((10, 4), block_id[0], "f4")

    made = da.map_blocks(block, chunks=((10,) * 6, (4,)), dtype="f4", meta=np.empty((0, 0), "f4"))
    lazy = grid.from_xarray(xr.DataArray(made, dims=("t", "x"), name="v"))
    assert seen == [], "nothing is computed when it is taken"
    found = computed(lazy.isel(t=slice(20, 30)))
    assert found["v"].values.tolist() == [[2.0] * 4] * 10
    assert set(seen) == {(2, 0)}, "only the blocks that are needed"


def test_zarr_opened_by_xarray_is_read_chunk_by_chunk(own_folder: Path) -> None:
    ds = drawn(np.random.default_rng(3), "noleap", "f4", text=True)
    ds.to_zarr("a.zarr", group="in/side", consolidated=False)
    for chunks in (None, {}):
        with xr.open_zarr("a.zarr", group="in/side", chunks=chunks, consolidated=False) as opened:
            assert {type(source) for source in sources(opened.grid).values()} == {ZarrSource}
            same(computed(opened.grid), opened)


def test_zarr_zipped_and_sharded(own_folder: Path) -> None:
    ds = drawn(np.random.default_rng(3), "noleap", "f4")
    ds.to_zarr("a.zarr", consolidated=False)
    shutil.make_archive("a.zarr", "zip", "a.zarr")
    ds.to_zarr("s.zarr", encoding={"v": {"chunks": (1, 2, 3), "shards": (2, 4, 3)}}, consolidated=False)
    for name in ("a.zarr.zip", "s.zarr"):
        same(computed(grid.open_zarr(name)["v"]), ds)
    with pytest.raises(ParameterError, match="zipped"):
        grid.open_zarr("a.zarr.zip", group="in")


def test_netcdf_groups(own_folder: Path) -> None:
    ds = drawn(np.random.default_rng(4), "standard", "f8")
    xr.Dataset({"v": ("x", [1.0])}).to_netcdf("a.nc")
    ds.to_netcdf("a.nc", group="deep/down", mode="a")
    same(computed(grid.open_dataset("a.nc", group="deep/down")["v"]), ds)
    with xr.open_dataset("a.nc", group="deep/down") as opened:
        assert {source.group for source in sources(opened.grid).values()} == {"deep/down"}
        same(computed(opened.grid), opened)
    with pytest.raises(GridError, match="nowhere"):
        grid.open_dataset("a.nc", group="nowhere")


def drawn(
    random: np.random.Generator, calendar: str, dtype: str, *, dims: int = 3, text: bool = False
) -> xr.Dataset:
    """A dataset of every kind of label: cftime or not, curvilinear, scalar, text, without an index; bounds.

    Text goes into Zarr only: netCDF's library 4.9.3 crashes where one process opens a file with text three times.
    """
    shape = (5, 4, 3)[:dims]
    names = ("time", "y", "x")[:dims]
    values = random.normal(280, 10, shape).astype(dtype) if dtype[0] == "f" else random.integers(0, 99, shape, dtype)
    if dtype[0] == "f":
        values[random.random(shape) < 0.2] = np.nan
    times = xr.date_range("1999-12-28", periods=5, freq="D", calendar=calendar,
                          use_cftime=calendar not in ("standard", "proleptic_gregorian"))  # fmt: skip
    step = times[1] - times[0]
    ds = xr.Dataset(
        {"v": (names, values, {"units": "K", "standard_name": "air_temperature", "note": "drawn"})},
        coords={"time": ("time", times, {"bounds": "time_bnds"}),
                "time_bnds": (("time", "bnds"), np.stack([np.asarray(times), np.asarray(times + step)], 1)),
                "height": ((), 2.0, {"units": "m"}), "reference": ((), times[0])},
        attrs={"title": "drawn", "version": 3},
    )  # fmt: skip
    for name in ("time", "time_bnds"):
        ds[name].encoding = {"units": "hours since 1990-01-01", "calendar": calendar}
    if dims == 3:
        ds = ds.assign_coords(lat=(("y", "x"), random.random((4, 3)), {"units": "degrees_north"}),
                              level=("y", [1000, 850, 500, 10]))  # fmt: skip
    if text:
        ds = ds.assign_coords(member=("x", ["a", "bb", "ccc"]), made_by="a model")
    return ds


@pytest.mark.parametrize("calendar", CALENDARS)
@pytest.mark.parametrize("decoded", [True, False])
def test_round_trips_through_files(own_folder: Path, calendar: str, decoded: bool) -> None:
    ds = drawn(np.random.default_rng(1), calendar, "f4")
    ds.to_netcdf("in.nc")
    with xr.open_dataset("in.nc", decode_times=decoded, decode_coords="all") as opened:
        result = computed(opened.grid)
        same(result, xr.decode_cf(opened))
        result.to_netcdf("out.nc")
        result.to_zarr("out.zarr", consolidated=False)
        grid.run(opened.grid.write("kept.zarr"), executor="inline", quiet=True, store="work")
        for back in (
            xr.open_dataset("out.nc", decode_times=decoded, decode_coords="all"),
            xr.open_zarr("out.zarr", decode_times=decoded, consolidated=False),
            xr.open_zarr("kept.zarr", decode_times=decoded, consolidated=True),
            grid.open_result("kept.zarr") if decoded else None,
        ):
            if back is None:
                continue
            with back:
                same(back, opened)
                assert back["v"].attrs["units"] == "K"
                assert back.attrs["title"] == "drawn"
                if decoded:
                    assert back["time"].encoding["calendar"] == opened["time"].encoding["calendar"]
        same(computed(grid.open_zarr("kept.zarr")["v"], store="again"), xr.decode_cf(opened))


def test_results_in_memory_round_trip(own_folder: Path) -> None:
    ds = drawn(np.random.default_rng(1), "360_day", "f8", text=True)
    ds["n"] = ("y", np.arange(4))
    ds["when"] = ("y", np.array(["2001-01-01", "NaT", "2001-01-03", "2001-01-04"], "datetime64[ns]"))
    ds["name"] = ("x", ["p", "q", "r"])
    lazy = grid.from_xarray(ds)
    result = computed(lazy[["v", "n", "when"]])
    same(result, ds)
    result.to_zarr("out.zarr", consolidated=False)
    grid.run(lazy[["v", "n", "when"]].write("kept.zarr"), executor="inline", quiet=True, store="work")
    for back in (xr.open_zarr("out.zarr", consolidated=False), xr.open_zarr("kept.zarr")):
        same(back, ds)
    assert grid.run(lazy["name"], executor="inline", quiet=True, store="work")[0].to_arrow()["name"].to_pylist() == [
        "p", "q", "r"]  # fmt: skip


@settings(max_examples=few(12))
@given(st.data())
def test_any_dataset_is_what_xarray_decodes(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Types, fills, scales and calendars: through a file, opened by xarray in any way, the values are xarray's."""
    folder = tmp_path_factory.mktemp("drawn")
    dtype = data.draw(st.sampled_from(["f4", "f8", "i2", "i4", "u1", "i8"]))
    ds = drawn(np.random.default_rng(data.draw(st.integers(0, 99))), data.draw(st.sampled_from(CALENDARS)), dtype,
               dims=data.draw(st.integers(1, 3)))  # fmt: skip
    packed = data.draw(st.sampled_from(["i2", "i4", dtype]))
    encoding: dict[str, Any] = {"dtype": packed} if dtype[0] == "f" else {}
    if packed[0] == "i" and dtype[0] == "f":
        encoding |= {"scale_factor": data.draw(st.sampled_from([0.01, np.float32(0.5)])), "_FillValue": -99}
        encoding |= data.draw(st.sampled_from([{}, {"add_offset": 270.0}]))
    elif data.draw(st.booleans()):
        encoding["_FillValue"] = 7
    zarr = data.draw(st.booleans())
    if zarr:
        ds.to_zarr(folder / "a.zarr", encoding={"v": encoding}, consolidated=False)
    else:
        ds.to_netcdf(folder / "a.nc", encoding={"v": encoding})
    options = {"chunks": data.draw(st.sampled_from([None, {}, {"time": 2}])),
               "mask_and_scale": data.draw(st.booleans()), "decode_times": data.draw(st.booleans())}  # fmt: skip
    if zarr:
        options |= {"engine": "zarr", "consolidated": False}
    with xr.open_dataset(folder / ("a.zarr" if zarr else "a.nc"), **options) as opened:
        lazy = opened.grid["v"]
        block = lazy.op.action.source.read(lazy.space.whole(), ["v"])["v"]
        values = block.values if block.valid is None else np.where(block.valid, block.values, np.nan)
        np.testing.assert_array_equal(values, opened["v"].values)
        assert values.dtype == opened["v"].dtype
        assert {c.name for c in lazy.coords if c.name != "/"} == {*map(str, opened.coords), "time_bnds"}
        labels = xr.decode_cf(opened, mask_and_scale=False)  # times are times, even where they weren't decoded
        for c in lazy.coords:
            if c.name in labels.coords:
                np.testing.assert_array_equal(c.to_xarray().values, labels[c.name].values)


def test_cell_methods_say_what_was_done(own_folder: Path) -> None:
    ds = drawn(np.random.default_rng(1), "noleap", "f4")
    ds["v"].attrs |= {"cell_methods": "area: mean", "actual_range": [1.0, 2.0]}
    lazy = ds.grid["v"]

    def attrs(made: grid.Collection) -> dict[str, Any]:
        return {name: json.loads(text) for name, text in made.fields[0].attrs}

    mean = attrs(lazy.mean("time"))
    assert mean == {"units": "K", "standard_name": "air_temperature", "note": "drawn",
                    "cell_methods": "area: mean time: mean"}  # fmt: skip
    assert attrs(lazy.max(["x", "y"]))["cell_methods"] == "area: mean y: x: maximum"
    assert attrs(lazy.groupby("time.month").std())["cell_methods"] == "area: mean time: standard_deviation"
    assert attrs(lazy.mean("time").max("x"))["cell_methods"] == "area: mean time: mean x: maximum"
    assert attrs(lazy.var("time"))["units"] == "K2"
    assert attrs(lazy.count("time")) == {"units": "1"}
    assert attrs(lazy.reduce("quantile", "time", q=0.5)) == {"units": "K", "standard_name": "air_temperature"}
    assert "cell_methods" not in attrs(lazy.reduce("argmax", "time"))
    assert attrs(lazy.isel(time=0))["cell_methods"] == "area: mean"
    ds["v"].attrs = {"units": "m s-1", "cell_methods": ""}
    assert attrs(ds.grid["v"].var("time")) == {"units": "(m s-1)2", "cell_methods": "time: variance"}
    ds["v"].attrs = {"note": "no word of CF"}
    assert attrs(ds.grid["v"].mean("time")) == {}
    assert computed(lazy.mean("time"))["v"].attrs == mean


def test_scalar_coordinates_that_disagree_go(own_folder: Path) -> None:
    ds = drawn(np.random.default_rng(1), "noleap", "f4")
    lazy = ds.grid["v"]
    found = computed(lazy.isel(time=1) - lazy.isel(time=0))
    expected = ds["v"].isel(time=1) - ds["v"].isel(time=0)
    assert {*found.coords} == {*map(str, expected.coords)}
    np.testing.assert_array_equal(found["v"], expected)
    assert "time" not in found.coords
    assert computed(lazy.isel(time=-1))["time"].values == ds["time"].values[-1]
    assert computed(lazy.isel(y=[3, 1]))["level"].values.tolist() == [10, 850]
    np.testing.assert_array_equal(computed(lazy.isel(y=[3, 1]))["lat"], ds["lat"][[3, 1]])
    assert {*computed(lazy.take(np.array([1, 1, 0, 2, 3]), "time")).coords} >= {"lat", "height"}
    joined = grid.concat([lazy.isel(time=slice(0, 2)), lazy.isel(time=slice(2, 5))], "time")
    assert "lat" in computed(joined).coords
    assert "time_bnds" not in computed(joined).coords, "bounds of another length"


def test_several_files_keep_what_they_share(own_folder: Path) -> None:
    ds = drawn(np.random.default_rng(1), "noleap", "f4")
    ds.isel(time=slice(0, 2)).to_netcdf("a1.nc")
    ds.isel(time=slice(2, 5)).to_netcdf("a2.nc")
    found = computed(grid.open_dataset("a*.nc")["v"])
    same(found, ds)
    np.testing.assert_array_equal(found["time_bnds"], ds["time_bnds"])
    assert found.attrs["title"] == "drawn"


@pytest.mark.parametrize("first", ["xarray", "gridcompute"])
def test_the_accessor_is_there_whichever_is_imported_first(first: str) -> None:
    second = {"xarray": "gridcompute", "gridcompute": "xarray"}[first]
    code = f"""
import sys
import {first}
assert "{second}" not in sys.modules
import {second}
import xarray as xr, gridcompute as grid
assert not any("gridcompute" in type(finder).__module__ for finder in sys.meta_path)
assert type(xr.__spec__.loader).__module__ != "gridcompute.accessor"
da = xr.DataArray([1.0, 2.0], dims="x", name="a")
assert isinstance(da.grid, grid.Collection) and isinstance(da.to_dataset().gridcompute, grid.Collection)
assert "verbs" in xr.Dataset.grid.__doc__
assert not hasattr(da.grid, "compute")
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_accessor_follows_changes_and_leaves_others_alone(own_folder: Path) -> None:
    from types import SimpleNamespace

    from gridcompute.accessor import register

    ds = xr.Dataset({"a": ("x", [1.0, 2.0])})
    assert set(ds.grid.columns) == {"a"}
    ds["b"] = ("x", [3.0, 4.0])
    assert set(ds.grid.columns) == {"a", "b"}, "a collection is made anew each time"
    assert computed(ds["a"].grid * 2 + ds["b"].grid)["a"].values.tolist() == [5.0, 8.0]
    theirs = type("Dataset", (), {"grid": property(lambda self: "theirs")})
    with pytest.warns(UserWarning, match="another package"):
        register(SimpleNamespace(Dataset=theirs, DataArray=type("DataArray", (), {})))  # type: ignore[arg-type]
    assert theirs().grid == "theirs"
    with pytest.raises(ParameterError, match="dimension twice"):
        _ = xr.Dataset({"a": (("x", "x"), np.zeros((2, 2)))}).grid


def test_a_kernel_reads_naturally(own_folder: Path) -> None:
    @grid.kernel("(time)->()", names=("range",))
    def span(series):
        return series.max() - series.min()

    ds = drawn(np.random.default_rng(1), "noleap", "f8", text=True).fillna(0.0)
    found = computed(ds["v"].grid.map(span))
    np.testing.assert_array_equal(found["range"], ds["v"].max("time") - ds["v"].min("time"))
    assert {"lat", "height", "member"} <= {*found.coords}
    months = computed(ds.grid["v"].groupby("time.month").mean())
    np.testing.assert_allclose(months["v"], ds["v"].groupby("time.month").mean("time"))


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: xr.Dataset({"a": (("x", "x"), np.zeros((2, 2)))}), "'a' has a dimension twice"),
        (lambda: xr.Dataset({"a": ("x", np.array([1, None, {}], object))}), "'a' holds object"),
        (lambda: xr.Dataset({"a": ("x", np.zeros(3, complex))}), "'a' holds complex128"),
        (lambda: xr.Dataset({"a": (("x", "y"), np.array([["a"], ["b"]]))}), "'a' holds"),
        (lambda: xr.Dataset({"a": ("x", xr.date_range("2001", periods=2, calendar="noleap", use_cftime=True))}),
         "'a' holds object"),
        (lambda: xr.Dataset({"a": ("x", [1.0])}, {"c": ("x", np.array([{}], object))}), "'c' holds object labels"),
        (lambda: xr.Dataset({"a": (("x", "y"), np.zeros((2, 2)))}).stack(z=("x", "y")), "'z' is a MultiIndex"),
        (lambda: 5, "takes a Dataset or DataArray, not int"),
        (lambda: np.zeros(3), "takes a Dataset or DataArray, not ndarray"),
    ],
)  # fmt: skip
def test_what_has_no_place_is_refused_by_name(made: Any, said: str) -> None:
    with pytest.raises(ParameterError, match=said):
        grid.from_xarray(made())


def test_what_is_empty_is_refused() -> None:
    for empty in (xr.Dataset(), xr.Dataset(coords={"x": [1]}), xr.Dataset({"a": ("x", [])})):
        with pytest.raises(EmptyGridError):
            grid.from_xarray(empty)
    large = xr.DataArray(np.zeros((2, 2)), dims=("x", "y"), name="a").assign_coords(
        lat=(("x", "y"), np.broadcast_to(0.0, (2, 2))))  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gridcompute.datasets.MOST_BYTES", 8)
        with pytest.raises(ParameterError, match="more than are kept in memory"):
            grid.from_xarray(large)


def test_a_single_text_is_a_label_and_levels_of_a_multiindex_can_be_kept(own_folder: Path) -> None:
    ds = xr.Dataset({"t": (("x", "y"), np.arange(4.0).reshape(2, 2)), "station": ((), "Bern")}, {"x": [1, 2]})
    assert str(computed(ds.grid.mean("x"))["station"].values) == "Bern"
    stacked = ds[["t"]].assign_coords(y=[5, 6]).stack(z=("x", "y"))
    with pytest.raises(ParameterError) as caught:
        grid.from_xarray(stacked)
    assert caught.value.hint == "make coordinates of its levels: .reset_index('z')"
    assert computed(grid.from_xarray(stacked.reset_index("z")))["y"].values.tolist() == [5, 6, 5, 6]


def test_a_dataarray_without_a_name_or_named_as_its_coordinate(own_folder: Path) -> None:
    da = xr.DataArray([1.0, 2.0], {"x": [5, 6]}, name=None)
    assert set(da.grid.columns) == {"values"}
    assert set(da["x"].grid.columns) == {"values"}
    assert computed(da["x"].grid)["values"].values.tolist() == [5, 6]


def test_names_that_are_numbers_or_empty() -> None:
    values = np.arange(6.0).reshape(2, 3)
    data = xr.Dataset({"t": ((0, 1), values), 5: ((1,), values[0]), "": ((1,), values[1])})
    found = grid.run(grid.from_xarray(data), executor="inline", quiet=True)[0].to_xarray()
    np.testing.assert_array_equal(found["t"].values, values)
    assert found["t"].dims == ("0", "1")
    np.testing.assert_array_equal(found[""].values, values[1])
    np.testing.assert_array_equal(found["5"].values, values[0])


def test_auxiliaries_are_compared_by_content() -> None:
    one = Auxiliary("", "lat", np.zeros((2, 3)), dims=("y", "x"))
    assert one == Auxiliary("", "lat", np.zeros((2, 3)), dims=("y", "x"))
    assert one != Auxiliary("", "lat", np.zeros((2, 3)), dims=("x", "y"))
    assert one != Auxiliary("", "lat", np.zeros((3, 2)), dims=("y", "x"))
    with pytest.raises(ParameterError):
        Auxiliary("", "lat", np.zeros((2, 3), object), dims=("y", "x"))


@pytest.mark.faults
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_grib_is_read_lazily_in_workers(own_folder: Path) -> None:
    pytest.importorskip("cfgrib")
    codes = pytest.importorskip("eccodes")
    random = np.random.default_rng(1)
    with open("a.grib", "wb") as file:
        for day in (20010101, 20010102, 20010103):
            for level in (850, 500):
                message = codes.codes_grib_new_from_samples("regular_ll_pl_grib2")
                sizes = {"Ni": 12, "Nj": 7, "iDirectionIncrementInDegrees": 30, "jDirectionIncrementInDegrees": 30,
                         "longitudeOfLastGridPointInDegrees": 330, "latitudeOfFirstGridPointInDegrees": 90,
                         "latitudeOfLastGridPointInDegrees": -90}
                for key, value in {**sizes, "dataDate": day, "level": level, "shortName": "t"}.items():
                    codes.codes_set(message, key, value)
                codes.codes_set_values(message, random.normal(280, 5, 84))
                codes.codes_write(message, file)
                codes.codes_release(message)
    with xr.open_dataset("a.grib", engine="cfgrib", backend_kwargs={"indexpath": ""}) as ds:
        assert type(sources(ds.grid)["t"]) is LazySource
        same(computed(ds.grid), ds)
        assert {"step", "valid_time"} <= {*computed(ds.grid).coords}
        mean = computed(ds["t"].grid.mean("time"))
        np.testing.assert_allclose(mean["t"], ds["t"].mean("time"), rtol=1e-6)
        same(computed(grid.open_dataset("a.grib", engine="cfgrib")["t"]), ds)
    data = Path("a.grib").read_bytes()
    for wrong in (data[: len(data) // 2 + 5], data[:-1], data[:10], data[:-4] + b"7776", b"GRIB" + bytes(90)):
        Path("cut.grib").write_bytes(wrong)
        with pytest.raises(CorruptInputError, match="cut off"):
            grid.open_dataset("cut.grib", engine="cfgrib")
    Path("cut.grib").write_bytes(data + bytes(100) + data)
    grid.open_dataset("cut.grib", engine="cfgrib")
