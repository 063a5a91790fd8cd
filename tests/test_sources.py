"""Sources, compared with xarray, pyarrow and dnaio reading the same; broken files of every kind."""

from __future__ import annotations

import gzip
import os
import pickle
from pathlib import Path

import dnaio
import iris_sample_data
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gridcompute.columns import Fixed, Ragged
from gridcompute.coords import Coordinate
from gridcompute.errors import (
    AlignmentError,
    CorruptInputError,
    DimensionError,
    MissingInputError,
    ParameterError,
)
from gridcompute.keys import digest
from gridcompute.sources.arrays import from_arrays
from gridcompute.sources.base import IngestSource, Source
from gridcompute.sources.blocks import recut
from gridcompute.sources.fastx import open_sequences, read_reference
from gridcompute.sources.index import IndexSource
from gridcompute.sources.tables import open_table
from gridcompute.sources.xarrays import open_dataset
from gridcompute.sources.zarrs import open_zarr
from gridcompute.spaces import Region, Space

pytestmark = pytest.mark.filterwarnings("ignore::xarray.SerializationWarning", "ignore::zarr.errors.ZarrUserWarning")
IRIS = Path(iris_sample_data.path)


def values(source, name, region=None):
    """A column as floats with NaN where null, or as a list of cells."""
    column = source.read(region or source.space.whole(), [name])[name]
    if isinstance(column, Ragged):
        cells = [column.values[a:b] for a, b in zip(column.offsets, column.offsets[1:], strict=False)]
        return [None if column.valid is not None and not column.valid[i] else c for i, c in enumerate(cells)]
    if column.valid is None:
        return column.values
    return np.where(column.valid, column.values, np.nan)


def text(cells):
    return [None if cell is None else cell.tobytes().decode() for cell in cells]


def check_dataset(source, expected, labelled=None):
    """Every column and coordinate of a source equals xarray's, whole and in a part."""
    assert isinstance(source, Source)
    source = pickle.loads(pickle.dumps(source))
    digest(source.key)
    names = [f.name for f in source.fields]
    assert names or not len(expected.data_vars)
    for f in source.fields:
        one = source.select([f.name])
        wanted = expected[f.name].transpose(*f.dims)
        if f.kind == "string":
            assert text(values(one, f.name)) == [str(cell) for cell in wanted.values]
            continue
        got = values(one, f.name)
        np.testing.assert_array_equal(np.asarray(got, float), wanted.values.astype(float), err_msg=f.name)
        if not f.nullable:
            assert got.dtype == wanted.dtype, f.name
        part = Region(tuple((n // 3, max(n // 3 + 1, n - 1)) for n in one.space.shape))
        np.testing.assert_array_equal(
            np.asarray(values(one, f.name, part), float), wanted.values[part.slices].astype(float)
        )
        assert one.objects(part)
        assert dict(one.stored).keys() == set(one.space.names)
    for c in source.coords:
        np.testing.assert_array_equal(c.to_xarray().values, (expected if labelled is None else labelled)[c.name].values)


# --- netCDF ---


def test_every_netcdf_of_the_data_reads_as_xarray_does(data_dir: Path):
    files = sorted((data_dir / "climate").glob("*.nc"))
    assert files
    for path in files:
        source = open_dataset(path)
        try:
            expected = xr.open_dataset(path, decode_timedelta=False)
        except ValueError:
            expected = xr.open_dataset(path, decode_times=False)
        raw = xr.open_dataset(path, decode_times=False)
        coords = [c for c in source.coords if expected[c.name].dtype.kind not in "OM" or c.is_time]
        assert len(coords) == len(source.coords)
        check_dataset(source, raw, expected)  # bounds of times are columns, and stay numbers
        raw.close()
        expected.close()


@pytest.mark.parametrize("name", ["A1B_north_america.nc", "vlstr_type.nc", "mesh_C4_synthetic_float.nc",
                                  "atlantic_profiles.nc", "rotated_pole.nc"])  # fmt: skip
def test_files_of_iris(name):
    path = IRIS / name
    expected = xr.open_dataset(path, decode_times=False, decode_timedelta=False)
    source = open_dataset(path)
    for f in source.fields:
        if f.kind == "fixed":
            np.testing.assert_array_equal(
                np.asarray(values(source.select([f.name]), f.name), float),
                expected[f.name].values.astype(float),
            )


def test_the_default_input():
    source = open_dataset(IRIS / "A1B_north_america.nc")
    one = source.select(["air_temperature"])
    assert one.space == Space.of(time=240, latitude=37, longitude=49)
    assert dict(one.stored) == {"time": 1, "latitude": 37, "longitude": 49}
    assert one.stored_bytes == 37 * 49 * 4
    time = next(c for c in one.coords if c.name == "time")
    assert (time.time_unit.calendar, time.values.dtype) == ("360_day", np.int64)
    assert one.uniform
    assert one.objects(Region.of((0, 1), (0, 1), (0, 1))) == one.objects(one.space.whole())
    assert ("units", '"K"') in one.fields[0].attrs
    with pytest.raises(MissingInputError, match="it has air_temperature"):
        source.select(["tas"])
    with pytest.raises(DimensionError):
        one.read(Region.of((0, 241), (0, 1), (0, 1)), ["air_temperature"])


def test_errors_of_datasets(tmp_path: Path):
    with pytest.raises(MissingInputError, match=r"nothing\.nc"):
        open_dataset(tmp_path / "nothing.nc")
    with pytest.raises(MissingInputError, match="no file matches"):
        open_dataset(tmp_path / "*.nc")
    with pytest.raises(MissingInputError, match="list is empty"):
        open_dataset([])
    (tmp_path / "text.nc").write_text("this is not a dataset")
    with pytest.raises(CorruptInputError, match="tried"):
        open_dataset(tmp_path / "text.nc")
    whole = (IRIS / "A1B_north_america.nc").read_bytes()
    (tmp_path / "cut.nc").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CorruptInputError, match=r"cut\.nc"):
        open_dataset(tmp_path / "cut.nc")
    (tmp_path / "empty.nc").write_bytes(b"")
    with pytest.raises(CorruptInputError, match=r"empty\.nc"):
        open_dataset(tmp_path / "empty.nc")
    with pytest.raises(ParameterError, match="no engine"):
        open_dataset(IRIS / "A1B_north_america.nc", engine="abacus")


def test_a_truncated_classic_file(tmp_path: Path):
    path = tmp_path / "classic.nc"
    xr.Dataset({"v": (("t", "x"), np.arange(200_000.0).reshape(2000, 100))}).to_netcdf(
        path, format="NETCDF3_64BIT", engine="netcdf4"
    )
    source = open_dataset(path)
    assert source.stored == (("t", 1), ("x", 1))
    np.testing.assert_array_equal(values(source, "v")[-1], np.arange(199_900, 200_000))
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(CorruptInputError, match=r"classic\.nc"):
        open_dataset(path).read(source.space.whole(), ["v"])


def test_integers_with_gaps_stay_integers(tmp_path: Path):
    path = tmp_path / "ints.nc"
    big = np.array([2**60 + 1, -1, 5])
    ds = xr.Dataset(
        {
            "n": ("x", big),
            "u": ("x", np.array([1, -1, 3], np.int8)),
            "b": ("x", [True, False, True]),
            "s": ("x", ["a", "", "ü"]),
            "turned": (("y", "x"), np.ones((2, 3))),
            "other": (("x", "y"), np.arange(6.0).reshape(3, 2)),
        }
    )
    ds["u"].attrs["_Unsigned"] = "true"
    ds.to_netcdf(path, encoding={"n": {"_FillValue": -1}, "u": {"_FillValue": None}})
    source = open_dataset(path)
    column = source.read(source.space.whole(), ["n"])["n"]
    assert column.values[[0, 2]].tolist() == [2**60 + 1, 5]
    assert column.valid.tolist() == [True, False, True]
    block = source.read(source.space.whole(), ["b", "s", "turned", "other", "u"])
    assert block["b"].values.tolist() == [True, False, True]
    assert text(values(source.select(["s"]), "s")) == ["a", "", "ü"]
    assert block["turned"].values.shape == block["other"].values.shape
    assert block["u"].values.tolist() == [1, 255, 3]
    one = source.select(["other"])
    np.testing.assert_array_equal(values(one, "other"), ds["other"].transpose(*one.space.names))


@settings(max_examples=40)
@given(
    hnp.arrays(st.sampled_from(["i1", "i2", "i4", "u1", "u2", "f4", "f8", ">i2", ">f4"]), st.integers(1, 6),
               elements=st.integers(0, 9)),
    st.sampled_from([None, 0, 3]), st.sampled_from([None, 1]),
    st.sampled_from([None, np.float32(0.5), np.float64(0.1), 2.0]),
    st.sampled_from([None, np.float32(1), np.float64(10)]),
)  # fmt: skip
def test_decoding_is_xarrays(raw, fill, missing, scale, offset):
    from gridcompute.sources.decoding import Decoding

    attrs = {"_FillValue": fill, "missing_value": missing, "scale_factor": scale, "add_offset": offset}
    attrs = {key: value for key, value in attrs.items() if value is not None}
    for name in ("_FillValue", "missing_value"):
        if name in attrs:
            attrs[name] = raw.dtype.newbyteorder("=").type(attrs[name])
    expected = xr.conventions.decode_cf_variable("v", xr.Variable("x", raw, attrs), decode_times=False)
    decoding = Decoding.of(("x",), raw.dtype, attrs)
    column = decoding.decode(raw, ("x",))
    if column.valid is None:
        np.testing.assert_array_equal(column.values.astype(float), expected.values.astype(float))
    else:
        np.testing.assert_array_equal(np.where(column.valid, column.values, np.nan), expected.values.astype(float))
    if decoding.kind != "masked":
        assert column.values.dtype == expected.dtype
    assert column.values.dtype == decoding.field("v", Space.of(x=len(raw)), {}).dtype


def _yearly(folder: Path, years):
    for year in years:
        time = np.arange(12) * 30
        ds = xr.Dataset(
            {
                "tas": (("time", "x"), np.full((12, 3), float(year)) + np.arange(3)),
                "mask": ("x", [1.0, 2.0, 3.0]),
            },
            coords={
                "time": ("time", time, {"units": f"days since {year}-01-01", "calendar": "360_day"}),
                "x": [1, 2, 3],
            },
        )
        ds.to_netcdf(folder / f"{year}.nc")


def test_files_end_to_end(tmp_path: Path):
    _yearly(tmp_path, [2002, 2001, 2003])
    source = open_dataset(str(tmp_path / "*.nc"))
    assert source.dim == "time"
    assert source.parts == (("time", (12, 12, 12)),)
    expected = xr.concat([xr.open_dataset(tmp_path / f"{y}.nc") for y in (2001, 2002, 2003)], "time",
                         data_vars="minimal", coords="minimal", compat="override", join="exact")  # fmt: skip
    check_dataset(source, expected)
    both = Region.of((10, 15), (0, 2))
    got = source.read(both, ["tas", "mask"])
    np.testing.assert_array_equal(got["tas"].values, expected["tas"].values[10:15, :2])
    assert got["mask"].values.tolist() == [1.0, 2.0]
    one = source.select(["tas"])
    assert len(one.objects(both)) == 2
    assert len(one.objects(Region.of((0, 12), (0, 3)))) == 1
    key, before = one.key, one.objects(both)
    _yearly(tmp_path, [2004])
    longer = open_dataset(str(tmp_path / "*.nc")).select(["tas"])
    assert digest(longer.key) == digest(key)
    assert longer.objects(both) == before


def test_files_that_disagree(tmp_path: Path):
    _yearly(tmp_path, [2001, 2002])
    other = xr.open_dataset(tmp_path / "2002.nc", decode_times=False).load()
    paths = [tmp_path / "2001.nc", tmp_path / "odd.nc"]
    for change, message in [
        (other.assign_coords(x=[1, 2, 4]), "coordinate 'x'"), (other.isel(x=slice(2)), "dimension 'x'"),
        (other.drop_vars("mask"), "'mask'"), (other.assign(more=1.0), "'more'"),
        (other.assign(tas=other.tas.astype("f4")), "float32"), (other.expand_dims(z=2), "dimensions"),
    ]:  # fmt: skip
        change.to_netcdf(tmp_path / "odd.nc")
        with pytest.raises(AlignmentError, match=message) as caught:
            open_dataset(paths)
        assert "odd.nc" in str(caught.value)


def test_identity_follows_the_file(tmp_path: Path, monkeypatch):
    _yearly(tmp_path, [2001])
    path = tmp_path / "2001.nc"
    source = open_dataset(path)
    first = source.objects(source.space.whole())
    os.utime(path, ns=(1, 1))
    assert source.objects(source.space.whole()) != first
    monkeypatch.setenv("GRIDCOMPUTE_VERIFY_INPUTS", "1")
    hashed = source.objects(source.space.whole())
    os.utime(path, ns=(2, 2))
    assert source.objects(source.space.whole()) == hashed


# --- in memory ---


def test_an_xarray_dataset_itself():
    ds = xr.Dataset(
        {"a": (("x", "y"), np.arange(6.0).reshape(2, 3)), "n": ("y", ["p", "q", "r"])},
        coords={"x": [10, 20], "y": pd.date_range("2001-01-01", periods=3)},
    )
    check_dataset(open_dataset(ds), ds)
    check_dataset(open_dataset(ds["a"]), ds[["a"]])
    check_dataset(open_dataset(ds["a"].rename(None)), ds[["a"]].rename(a="values"))


def test_arrays():
    source = from_arrays(
        {"a": np.arange(6).reshape(2, 3), "b": np.ma.array([1.0, 2.0], mask=[0, 1])},
        dims={"a": ("x", "y"), "b": ("x",)},
        coords={"x": [1.5, 2.5]},
    )
    assert source.space == Space.of(x=2, y=3)
    assert source.coords == (Coordinate("x", "x", np.array([1.5, 2.5])),)
    assert values(source, "b").tolist()[0] == 1.0
    assert source.read(source.space.whole(), ["b"])["b"].valid.tolist() == [True, False]
    assert isinstance(source, Source)
    assert source.select(["b"]).space == Space.of(x=2)
    again = from_arrays(
        {"a": np.arange(6).reshape(2, 3), "b": np.ma.array([1.0, 9.0], mask=[0, 1])},
        dims={"a": ("x", "y"), "b": ("x",)},
    )
    part = Region.of((0, 1), (0, 3))
    assert again.objects(part) == source.objects(part)
    assert again.objects(source.space.whole()) == source.objects(source.space.whole())
    assert pickle.loads(pickle.dumps(source)).objects(part) == source.objects(part)
    rows = from_arrays({"t": ["a", None, "ccc"], "l": [[1, 2], [], [3]], "n": [1, 2, 3]})
    assert text(values(rows, "t")) == ["a", None, "ccc"]
    assert [cell.tolist() for cell in values(rows, "l")] == [[1, 2], [], [3]]
    assert values(rows, "n").tolist() == [1, 2, 3]
    assert text(values(rows, "t", Region.of((1, 3)))) == [None, "ccc"]
    days = from_arrays({"d": np.array(["2001-01-01", "NaT"], "datetime64[s]")})
    assert ("units", '"seconds since 1970-01-01"') in days.fields[0].attrs
    assert days.fields[0].nullable


def test_an_appended_row_leaves_the_older_regions_alone():
    short, long = from_arrays({"a": np.arange(4.0)}), from_arrays({"a": np.arange(5.0)})
    assert short.objects(Region.of((0, 4))) == long.objects(Region.of((0, 4)))
    assert digest(short.key) == digest(long.key)


@pytest.mark.parametrize(("data", "dims", "error"), [
    ({}, None, ParameterError), ({"a": np.zeros((2, 2))}, None, DimensionError),
    ({"a": np.zeros(2), "b": np.zeros(3)}, None, DimensionError), ({"a": np.zeros(2, complex)}, None, ParameterError),
    ({"a": np.zeros((2, 2))}, ("x", "x"), DimensionError), ({"a": [1, "x"]}, None, ParameterError),
    ({"a": [{}, 1]}, None, ParameterError), (pd.DataFrame({"a": [1]}), ("x", "y"), DimensionError),
])  # fmt: skip
def test_arrays_that_do_not_fit(data, dims, error):
    with pytest.raises(error):
        from_arrays(data, dims)


def test_tables_in_memory():
    frame = pd.DataFrame({"a": [1, 2], "s": ["x", "yy"]})
    source = from_arrays(frame)
    assert values(source, "a").tolist() == [1, 2]
    assert text(values(source, "s")) == ["x", "yy"]
    with pytest.raises(ParameterError, match="'d'"):
        from_arrays(pa.table({"d": pa.array([1], pa.decimal128(5))}))
    with pytest.raises(DimensionError):
        from_arrays({"a": np.zeros(2)}, coords={"row": [1, 2, 3]})


def test_an_index_space():
    source = IndexSource(Space.of(path=10**9))
    assert isinstance(source, Source)
    assert source.read(Region.of((5, 25)), []).rows == 20
    assert source.objects(Region.of((5, 25))) == ()
    assert digest(source.key) == digest(IndexSource(Space.of(path=7)).key)
    assert source.select([]) == source
    with pytest.raises(MissingInputError):
        source.select(["x"])
    with pytest.raises(DimensionError):
        IndexSource(Space.of(path=None))


# --- Zarr ---


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("consolidated", [True, False])
def test_zarr_reads_as_xarray_does(tmp_path: Path, zarr_format, consolidated):
    rng = np.random.default_rng(3)
    ds = xr.Dataset(
        {
            "t": (("time", "x", "y"), rng.normal(size=(7, 5, 4)).astype("f4")),
            "packed": (("x", "y"), rng.normal(size=(5, 4))),
            "n": ("x", np.arange(5)),
            "flag": ("x", np.arange(5) > 2),
            "scalar": 3.5,
        },
        coords={"time": pd.date_range("2001-01-01", periods=7), "x": np.arange(5) * 0.5},
    )
    ds["packed"][1, 1] = np.nan
    ds["t"][0, 0, 0] = np.nan
    encoding = {
        "t": {"chunks": (2, 3, 4)},
        "packed": {"dtype": "i2", "scale_factor": 0.01, "add_offset": 1.0, "_FillValue": -9},
    }
    store = tmp_path / "a.zarr"
    ds.to_zarr(store, zarr_format=zarr_format, consolidated=consolidated, encoding=encoding)
    source = open_zarr(store)
    check_dataset(source, xr.open_zarr(store, consolidated=consolidated))
    assert dict(source.select(["t"]).stored) == {"time": 2, "x": 3, "y": 4}
    assert isinstance(open_dataset(store), type(source))


def test_a_zarr_is_the_same_in_whatever_order_it_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    values = {name: (("y", "x"), np.ones((2, 3))) for name in "ab"}
    xr.Dataset(values, {"y": [1, 2], "x": [1, 2, 3]}).to_zarr(tmp_path / "in.zarr", zarr_format=3, consolidated=False)
    listed, keys = zarr.Group.arrays, []
    for order in (list, lambda names: list(names)[::-1]):
        monkeypatch.setattr(zarr.Group, "arrays", lambda group, order=order: iter(order(sorted(listed(group)))))
        source = open_zarr(tmp_path / "in.zarr")
        keys.append(([f.name for f in source.fields], [c.key for c in source.coords]))
    assert keys[0] == keys[1]


def test_a_zarr_region_knows_its_chunks(tmp_path: Path):
    store = tmp_path / "a.zarr"
    group = zarr.create_group(store)
    array = group.create_array("v", shape=(6, 4), chunks=(2, 2), dtype="f4", dimension_names=["t", "x"])
    array[...] = np.arange(24).reshape(6, 4)
    source = open_zarr(store)
    region = Region.of((0, 2), (0, 3))
    before = source.objects(region)
    assert len(before) == 3  # two chunks and the metadata
    assert not source.uniform
    assert len(source.objects(source.space.whole())) == 7
    array[5, 3] = -1
    assert source.objects(region) == before
    array[1, 2] = -1
    assert source.objects(region) != before
    array.resize((8, 4))
    longer = open_zarr(store)
    assert longer.space["t"] == 8
    assert digest(longer.key) == digest(source.key)
    assert longer.objects(Region.of((4, 6), (0, 2))) == source.objects(Region.of((4, 6), (0, 2)))
    assert any("absent" in name for name in longer.objects(Region.of((6, 8), (0, 2))))
    assert values(longer, "v", Region.of((6, 8), (0, 2))).tolist() == [[0, 0], [0, 0]]


def test_single_arrays_and_shards(tmp_path: Path):
    array = zarr.create_array(tmp_path / "one.zarr", shape=(8, 8), chunks=(2, 2), shards=(4, 4), dtype="i4")
    array[...] = np.arange(64).reshape(8, 8)
    source = open_zarr(tmp_path / "one.zarr")
    assert [f.name for f in source.fields] == ["one"]
    assert values(source, "one", Region.of((1, 3), (0, 8))).tolist() == np.arange(64).reshape(8, 8)[1:3].tolist()
    assert len(source.objects(Region.of((0, 4), (0, 4)))) == 2


def test_errors_of_zarr(tmp_path: Path):
    with pytest.raises(MissingInputError, match="none"):
        open_zarr(tmp_path / "none.zarr")
    (tmp_path / "plain.zarr").mkdir()
    with pytest.raises(CorruptInputError, match=r"plain\.zarr"):
        open_zarr(tmp_path / "plain.zarr")
    (tmp_path / "plain.zarr" / "zarr.json").write_text("{broken")
    with pytest.raises(CorruptInputError, match=r"plain\.zarr"):
        open_zarr(tmp_path / "plain.zarr")
    group = zarr.create_group(tmp_path / "torn.zarr")
    array = group.create_array("v", shape=(4,), chunks=(2,), dtype="f8")
    array[...] = 1.0
    chunk = tmp_path / "torn.zarr" / "v" / "c" / "1"
    chunk.write_bytes(chunk.read_bytes()[:3])
    source = open_zarr(tmp_path / "torn.zarr")
    assert values(source, "v", Region.of((0, 2))).tolist() == [1, 1]
    with pytest.raises(CorruptInputError, match="'v'"):
        values(source, "v")


# --- tables ---


def test_real_parquet(data_dir: Path):
    files = sorted((data_dir / "hep").glob("*.parquet"))
    assert files
    for path in files:
        source, table = open_table(path), pq.read_table(path)
        assert isinstance(source, Source)
        region = Region.of((7, 31))
        block = source.read(region, [f.name for f in source.fields][:60])
        for name, column in block.columns.items():
            top, *members = dict(source.paths)[name]
            cells = table[top].to_pylist()[7:31]
            for member in members:
                cells = [[item[member] for item in c] if isinstance(c, list) else c[member] for c in cells]
            if isinstance(column, Ragged):
                got = [cell.tolist() for cell in values(source, name, region)]
                np.testing.assert_equal(got, [list(cell) for cell in cells], name)
            else:
                np.testing.assert_equal(column.values.tolist(), cells, name)


ARROW_COLUMNS = {
    "i": pa.array([1, None, 3], pa.int64()), "u": pa.array([1, 2, 3], pa.uint8()),
    "h": pa.array([1, None, 2], pa.float32()),
    "b": pa.array([True, None, False]), "s": pa.array(["a", None, "üx"]),
    "ls": pa.array(["a", "b", ""], pa.large_string()),
    "t": pa.array([1, None, 3], pa.timestamp("us")), "d": pa.array([1, 2, 3], pa.date32()),
    "l": pa.array([[1, 2], None, []], pa.list_(pa.int16())),
    "f": pa.array([[1.0, None], [], [2.0]], pa.list_(pa.float64())),
    "z": pa.array([[1, 2], [3, 4], [5, 6]], pa.list_(pa.int32(), 2)),
    "dict": pa.array(["p", "q", "p"]).dictionary_encode(),
    "null": pa.nulls(3), "st": pa.array([{"x": 1, "y": "k"}, {"x": 2, "y": None}, {"x": 3, "y": "m"}]),
    "bl": pa.array([[True], [], [False, True]]),
}  # fmt: skip


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_types_of_tables(tmp_path: Path, form):
    table = pa.table(ARROW_COLUMNS)
    path = tmp_path / f"t.{form}"
    if form == "parquet":
        pq.write_table(table, path, row_group_size=2)
    else:
        with pa.ipc.new_file(path, table.schema) as file:
            file.write_table(table, max_chunksize=2)
    source = pickle.loads(pickle.dumps(open_table(path)))
    assert (source.space, source.stored) == (Space.of(row=3), (("row", 2),))
    assert values(source, "i")[[0, 2]].tolist() == [1, 3]
    assert source.read(Region.of((1, 3)), ["i"])["i"].valid.tolist() == [False, True]
    assert np.isnan(source.read(Region.of((0, 3)), ["h"])["h"].values[1])
    assert text(values(source, "s")) == ["a", None, "üx"]
    assert text(values(source, "ls", Region.of((1, 3)))) == ["b", ""]
    assert values(source, "t")[[0, 2]].tolist() == [1, 3]
    assert values(source, "d").tolist() == [1, 2, 3]
    assert [None if cell is None else cell.tolist() for cell in values(source, "l")] == [[1, 2], None, []]
    assert np.isnan(values(source, "f")[0][1])
    assert [cell.tolist() for cell in values(source, "z", Region.of((1, 3)))] == [[3, 4], [5, 6]]
    assert text(values(source, "dict")) == ["p", "q", "p"]
    assert np.isnan(values(source, "null")).all()
    assert values(source, "st.x").tolist() == [1, 2, 3]
    assert text(values(source, "st.y")) == ["k", None, "m"]
    assert [cell.tolist() for cell in values(source, "bl")] == [[True], [], [False, True]]
    assert values(source, "b")[[0, 2]].tolist() == [True, False]


def test_errors_of_tables(tmp_path: Path):
    with pytest.raises(MissingInputError):
        open_table(tmp_path / "none.parquet")
    (tmp_path / "dir.parquet").mkdir()
    with pytest.raises(ParameterError, match=r"is a folder\n.*dir\.parquet/\*\.parquet"):
        open_table(tmp_path / "dir.parquet")
    with pytest.raises(ParameterError, match="by its name"):
        open_table(tmp_path / "none.xlsx")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises(CorruptInputError, match=r"bad\.parquet"):
        open_table(tmp_path / "bad.parquet")
    (tmp_path / "bad.arrow").write_bytes(b"")
    with pytest.raises(CorruptInputError, match=r"bad\.arrow"):
        open_table(tmp_path / "bad.arrow")
    pq.write_table(pa.table({"m": pa.array([1], pa.decimal128(5)), "a": [1]}), tmp_path / "some.parquet")
    with pytest.raises(ParameterError, match="decimal"):
        open_table(tmp_path / "some.parquet").select(["m"])
    assert [f.name for f in open_table(tmp_path / "some.parquet").fields] == ["a"]
    pq.write_table(pa.table({"m": pa.array([1], pa.decimal128(5))}), tmp_path / "none.parquet")
    with pytest.raises(ParameterError, match="'m'"):
        open_table(tmp_path / "none.parquet")
    pq.write_table(pa.table({"x": pa.array([[1, None]])}), tmp_path / "holes.parquet")
    with pytest.raises(CorruptInputError, match="null within a list"):
        open_table(tmp_path / "holes.parquet").read(Region.of((0, 1)), ["x"])


def test_a_file_of_another_format_is_told_its_reader(tmp_path: Path):
    pq.write_table(pa.table({"a": [1]}), table := tmp_path / "a.parquet")
    (reads := tmp_path / "a.fastq").write_text("@r\nA\n+\nI\n")
    for opened, path, reader in [(open_dataset, table, "open_table"), (open_table, reads, "open_sequences"),
                                 (open_zarr, table, "open_dataset")]:  # fmt: skip
        with pytest.raises((CorruptInputError, ParameterError), match=rf"grid\.{reader}"):
            opened(path)


@pytest.mark.parametrize("opened", [open_dataset, open_table, open_zarr, open_sequences])
def test_a_bucket_without_credentials_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    options = {"endpoint_url": "http://127.0.0.1:1", "skip_instance_cache": True}
    for name in ("x.zarr",) if opened is open_zarr else ("x.parquet", "x*.parquet"):
        with pytest.raises(MissingInputError, match=r'no credentials\n.*"anon": True'):
            opened(f"s3://bucket/{name}", storage_options=options)


def test_several_tables(tmp_path: Path):
    for i in range(3):
        pq.write_table(
            pa.table({"a": np.arange(5) + 10 * i, "s": [f"r{i}{k}" for k in range(5)]}),
            tmp_path / f"{i}.parquet",
        )
    source = open_table(str(tmp_path / "*.parquet"))
    assert source.parts == (("row", (5, 5, 5)),)
    assert values(source, "a", Region.of((3, 12))).tolist() == [3, 4, 10, 11, 12, 13, 14, 20, 21]
    assert text(values(source, "s", Region.of((4, 6)))) == ["r04", "r10"]
    pq.write_table(pa.table({"b": [1]}), tmp_path / "4.parquet")
    with pytest.raises(AlignmentError, match=r"'a'.*4\.parquet"):
        open_table(str(tmp_path / "*.parquet"))
    (tmp_path / "x.csv").write_text("a\n1\n")
    with pytest.raises(AlignmentError):
        open_table([str(tmp_path / "0.parquet"), str(tmp_path / "x.csv")])


def test_a_hostile_file_never_escapes_as_another_error(tmp_path: Path):
    pq.write_table(pa.table({"a": np.arange(1000), "s": ["x" * 10] * 1000}), tmp_path / "good.parquet")
    good = bytearray((tmp_path / "good.parquet").read_bytes())
    rng = np.random.default_rng(0)
    for i in range(40):
        bad = good.copy()
        for place in rng.integers(0, len(bad), 5):
            bad[place] ^= 0xFF
        path = tmp_path / f"bad{i}.parquet"
        path.write_bytes(bad[: int(rng.integers(1, len(bad)))] if i % 2 else bad)
        try:
            source = open_table(path)
            source.read(source.space.whole(), [f.name for f in source.fields])
        except (CorruptInputError, ParameterError):
            continue


# --- CSV ---


def rows_of(source, name):
    out = []
    for part in source.parts:
        for block in source.blocks(part):
            column = block[name]
            if isinstance(column, Ragged):
                cells = [
                    column.values[a:b].tobytes().decode()
                    for a, b in zip(column.offsets, column.offsets[1:], strict=False)
                ]
            else:
                cells = column.values.tolist()
            out += [c if column.valid is None or column.valid[i] else None for i, c in enumerate(cells)]
    return out


def test_real_csv_reads_as_pyarrow_does(data_dir: Path):
    files = sorted((data_dir / "climate").glob("*.csv"))
    assert files
    for path in files:
        source, table = open_table(path), pa.csv.read_csv(path)
        assert isinstance(source, IngestSource)
        for f in source.fields:
            wanted = table[f.name]
            if f.kind == "string":
                wanted = pa.csv.read_csv(
                    path, convert_options=pa.csv.ConvertOptions(column_types={f.name: pa.string()})
                )[f.name]
            assert rows_of(source, f.name) == wanted.to_pylist(), f.name


@pytest.mark.parametrize("suffix", ["csv", "csv.gz"])
def test_csv_types_and_gaps(tmp_path: Path, suffix):
    path = tmp_path / f"t.{suffix}"
    opened = gzip.open if suffix.endswith("gz") else open
    with opened(path, "wt") as file:
        file.write('i,f,s,d\n1,0.5,x,2001-02-03\n,,y,\n3,nan,"a,\nb",2001-02-04\n')
    source = pickle.loads(pickle.dumps(open_table(path)))
    assert {f.name: f.dtype.str for f in source.fields} == {"i": "<i8", "f": "<f8", "s": "|u1", "d": "<i4"}
    assert rows_of(source, "i") == [1, None, 3]
    assert rows_of(source, "s") == ["x", "y", "a,\nb"]
    assert rows_of(source.select(["f"]), "f")[0] == 0.5
    assert source.objects(source.parts[0])


def test_a_cell_that_does_not_parse(tmp_path: Path):
    path = tmp_path / "late.csv"
    path.write_text("a,b\n" + "".join(f"{i},x{i}\n" for i in range(200_000)) + "oops,y\n")
    source = open_table(path)
    with pytest.raises(CorruptInputError, match=r"late\.csv: data row 200001.*oops"):
        list(source.blocks(source.parts[0]))
    lenient = open_table(path, types={"a": "string"})
    assert rows_of(lenient, "a")[-1] == "oops"
    with pytest.raises(ParameterError, match="no such column"):
        open_table(path, types={"c": "string"})
    with pytest.raises(ParameterError, match="no column type"):
        open_table(path, types={"a": "number"})


def test_columns_without_nulls_are_known_before_reading(tmp_path: Path):
    full = pa.table({"s": ["a", ""], "n": [1, 2], "l": [[1], [2]], "x": [1.0, 2.0], "st": [{"y": 1}, {"y": 2}]})
    gaps = pa.table({"s": ["a", None], "n": [1, 2], "l": [[1], [2]], "x": [1.0, 2.0], "st": [{"y": 1}, {"y": 2}]})

    def nullable(path: Path | str) -> set[str]:
        return {f.name for f in open_table(path).fields if f.nullable}

    pq.write_table(full, tmp_path / "0.parquet", row_group_size=1)
    assert nullable(tmp_path / "0.parquet") == {"x", "st.y"}
    pq.write_table(gaps, tmp_path / "1.parquet", row_group_size=1)
    assert nullable(str(tmp_path / "*.parquet")) == {"s", "x", "st.y"}
    pq.write_table(full, tmp_path / "untold.parquet", write_statistics=False)
    assert nullable(tmp_path / "untold.parquet") == {"s", "n", "l", "x", "st.y"}
    for name, table in (("full", full), ("gaps", gaps)):
        with pa.ipc.new_file(tmp_path / f"{name}.arrow", table.schema) as file:
            file.write_table(table, max_chunksize=1)
        assert ("s" in nullable(tmp_path / f"{name}.arrow")) is (name == "gaps")
    (tmp_path / "a.csv").write_text("s,n\na,1\n,2\n")
    assert nullable(tmp_path / "a.csv") == {"n"}


def test_broken_csv(tmp_path: Path):
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(CorruptInputError, match="neither a header"):
        open_table(tmp_path / "empty.csv")
    (tmp_path / "header.csv").write_text("a,b\n")
    assert list(open_table(tmp_path / "header.csv").blocks(str(tmp_path / "header.csv"))) == []
    (tmp_path / "short.csv").write_text("a,b\n1,2\n3\n")
    with pytest.raises(CorruptInputError, match=r"short\.csv"):
        open_table(tmp_path / "short.csv")
    (tmp_path / "twice.csv").write_text("a,a\n1,2\n")
    with pytest.raises(CorruptInputError, match="two columns"):
        open_table(tmp_path / "twice.csv")
    packed = gzip.compress(("a,b\n" + "1,2\n" * 900_000).encode(), 0)
    (tmp_path / "cut.csv.gz").write_bytes(packed[: len(packed) * 3 // 4])
    with pytest.raises(CorruptInputError, match=r"cut\.csv\.gz"):
        list(open_table(tmp_path / "cut.csv.gz").blocks(str(tmp_path / "cut.csv.gz")))
    (tmp_path / "one.csv").write_text("a,c\n1,2\n")
    (tmp_path / "two.csv").write_text("a,b\n1,2\n")
    with pytest.raises(AlignmentError, match="'b'"):
        open_table([str(tmp_path / "two.csv"), str(tmp_path / "one.csv")])


# --- sequences ---


def test_blocks_do_not_depend_on_the_pieces():
    rng = np.random.default_rng(1)
    lengths = rng.integers(0, 40, 500)
    lengths[100] = 5000
    data = Ragged.of([rng.integers(0, 9, n, np.uint8) for n in lengths])
    whole = {"s": data, "n": Fixed(np.arange(500), np.arange(500) % 7 > 0)}

    def cut(sizes):
        start = 0
        for size in [*sizes, 500]:
            stop = min(start + size, 500)
            yield {
                "s": data.sliced(start, stop),
                "n": Fixed(whole["n"].values[start:stop], whole["n"].valid[start:stop]),
            }
            start = stop

    plain = [(b.rows, b.region) for b in recut([whole], rows=64, limit=1000)]
    expected, rows, size = [], 0, 0
    for n in lengths:  # the rule, one row at a time
        if rows and (rows == 64 or size + n + 16 > 1000):
            expected.append(rows)
            rows, size = 0, 0
        rows, size = rows + 1, size + n + 16
    assert [rows for rows, _ in plain] == [*expected, rows]
    for seed in range(20):
        sizes = np.random.default_rng(seed).integers(0, 90, 12).tolist()
        blocks = list(recut(cut(sizes), rows=64, limit=1000))
        assert [(b.rows, b.region) for b in blocks] == plain
        assert np.concatenate([b["n"].values for b in blocks]).tolist() == list(range(500))
        joined = np.concatenate([b["s"].values[b["s"].offsets[0] : b["s"].offsets[-1]] for b in blocks])
        assert joined.tolist() == data.values.tolist()


@given(
    st.lists(st.tuples(st.text("abc 1", max_size=8), st.text("ACGTNacgtn", max_size=70)), max_size=12),
    st.booleans(),
    st.booleans(),
)
def test_sequences_read_as_dnaio_does(tmp_path_factory, reads, fastq, packed):
    path = tmp_path_factory.mktemp("reads") / f"r.{'fastq' if fastq else 'fasta'}{'.gz' if packed else ''}"
    lines = "".join(f"@{n}\n{s}\n+\n{'I' * len(s)}\n" if fastq else f">{n}\n{s}\n" for n, s in reads)
    path.write_bytes(gzip.compress(lines.encode()) if packed else lines.encode())
    source = open_sequences(path)
    if not reads:
        assert list(source.blocks(source.parts[0])) == []
        return
    with dnaio.open(path) as file:
        expected = list(file)
    assert rows_of(source, "name") == [r.name for r in expected]
    assert rows_of(source, "sequence") == [r.sequence for r in expected]
    if fastq:
        assert rows_of(source, "quality") == [r.qualities for r in expected]
    assert [b.region for b in source.blocks(source.parts[0])] == [Region.of((0, 1))]


@pytest.mark.parametrize(("content", "record"), [
    (b"@a\nAC\n+\nII\n@b\nACG\n+\nII\n", "record 2"), (b"@a\nAC\n+\nII\n@b\nACG\n", "record 2"),
    (b"@a\nAC\nII\n", "record 1"), (gzip.compress(b"@a\nAC\n+\nII\n" * 90_000, 1)[:-2000], "record"),
    (b"@a\xff\nAC\n+\nII\n", "record 1"), (b">a\nAC\n", None),
])  # fmt: skip
def test_broken_sequences(tmp_path: Path, content, record):
    path = tmp_path / "reads.fastq"
    path.write_bytes(content)
    source = open_sequences(path)
    if record is None:
        assert rows_of(source, "sequence") == ["AC"]
        return
    with pytest.raises(CorruptInputError, match=record) as caught:
        list(source.blocks(source.parts[0]))
    assert "reads.fastq" in str(caught.value)


def test_files_that_are_no_sequences(tmp_path: Path):
    (tmp_path / "a.txt").write_text("hello")
    with pytest.raises(CorruptInputError, match="neither FASTA nor FASTQ"):
        open_sequences(tmp_path / "a.txt")
    (tmp_path / "cut.fq.gz").write_bytes(gzip.compress(b"@a\nAC\n+\nII\n")[:12])
    with pytest.raises(CorruptInputError, match=r"cut\.fq\.gz"):
        open_sequences(tmp_path / "cut.fq.gz")
    (tmp_path / "a.fa").write_text(">a\nAC\n")
    (tmp_path / "b.fq").write_text("@a\nAC\n+\nII\n")
    with pytest.raises(AlignmentError, match="FASTA"):
        open_sequences([tmp_path / "a.fa", tmp_path / "b.fq"])
    with pytest.raises(MissingInputError):
        open_sequences(tmp_path / "none.fq")
    with pytest.raises(MissingInputError, match="quality"):
        open_sequences(tmp_path / "a.fa").select(["quality"])
    assert [f.name for f in open_sequences(tmp_path / "b.fq").select(["quality"]).fields] == ["quality"]
    digest(open_sequences(tmp_path / "b.fq").key)


def test_a_reference(tmp_path: Path):
    (tmp_path / "ref.fa.gz").write_bytes(gzip.compress(b">one x\nacgt\nNN\n>two\n\n>three\nRYac\n"))
    names, offsets, letters = read_reference(tmp_path / "ref.fa.gz")
    assert names == ("one x", "two", "three")
    assert offsets.tolist() == [0, 6, 6, 10]
    assert letters.tobytes() == b"ACGTNNRYAC"
    (tmp_path / "none.fa").write_text("")
    with pytest.raises(CorruptInputError, match="no sequence"):
        read_reference(tmp_path / "none.fa")
    (tmp_path / "reads.fq").write_text("@a\nAC\n+\nII\n")
    with pytest.raises(CorruptInputError, match="isn't FASTA"):
        read_reference(tmp_path / "reads.fq")


# --- remote ---


@pytest.fixture(scope="module")
def s3():
    import s3fs
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    options = {"key": "k", "secret": "s", "endpoint_url": f"http://{host}:{port}"}
    files = s3fs.S3FileSystem(**options, use_listings_cache=False)
    files.mkdir("inputs")
    yield files, options
    server.stop()


def test_sources_on_s3(tmp_path: Path, s3):
    files, options = s3
    ds = xr.Dataset({"v": (("t", "x"), np.arange(12.0).reshape(4, 3))})
    ds.to_netcdf(tmp_path / "a.nc")
    ds.to_netcdf(tmp_path / "b.nc", format="NETCDF3_64BIT", engine="netcdf4")
    pq.write_table(pa.table({"a": [1, 2, 3]}), tmp_path / "a.parquet")
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"a\n1\n2\n"))
    (tmp_path / "a.fq.gz").write_bytes(gzip.compress(b"@r\nAC\n+\nII\n"))
    ds.to_zarr(tmp_path / "a.zarr", encoding={"v": {"chunks": (2, 3)}})
    files.put(str(tmp_path), "inputs/in", recursive=True)
    url = "s3://inputs/in/"
    for name in ("a.nc", "b.nc", "a.zarr"):
        source = pickle.loads(pickle.dumps(open_dataset(url + name, storage_options=options)))
        np.testing.assert_array_equal(values(source, "v"), ds.v.values)
        before = source.objects(source.space.whole())
        assert before == source.objects(source.space.whole())
        assert "secret" not in repr(source)
    part = Region.of((0, 2), (0, 3))
    before = source.objects(part)
    assert len(before) == 2
    files.pipe_file("inputs/in/a.zarr/v/c/1/0", b"changed")
    assert open_zarr(url + "a.zarr", storage_options=options).objects(part) == before
    assert values(open_table(url + "a.parquet", storage_options=options), "a").tolist() == [1, 2, 3]
    assert rows_of(open_table(url + "a.csv.gz", storage_options=options), "a") == [1, 2]
    reads = open_sequences(url + "*.fq.gz", storage_options=options)
    assert rows_of(reads, "sequence") == ["AC"]
    (first,) = reads.objects(reads.parts[0])
    files.pipe_file("inputs/in/a.fq.gz", gzip.compress(b"@r\nAG\n+\nII\n"))
    assert reads.objects(reads.parts[0]) != (first,)
    for opened in (open_dataset, open_zarr, open_table, open_sequences):
        with pytest.raises(MissingInputError):
            opened(url + "none.parquet", storage_options=options)


@pytest.mark.parametrize("before", [0, 200_000])
def test_a_row_beyond_the_readers_block_says_so(tmp_path, before):
    (tmp_path / "a.csv").write_text("a,b\n" + "12345,z\n" * before + '1,"' + "x" * 3_000_000)
    with pytest.raises(CorruptInputError, match=r"a\.csv: after data row \d+: a row is longer than") as refused:
        list(open_table(tmp_path / "a.csv").blocks(str(tmp_path / "a.csv")))
    assert "quote" in refused.value.hint
