"""Sinks: what they write is read back by xarray, zarr and pyarrow; on disk, in memory and on a mock S3."""

from __future__ import annotations

import itertools
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from gridcompute.columns import Block, Field, Fixed, Ragged
from gridcompute.coords import Coordinate, packed
from gridcompute.errors import (
    CorruptInputError,
    DimensionError,
    DivergenceError,
    MissingInputError,
    OutputExistsError,
    ParameterError,
    StoreError,
)
from gridcompute.keys import digest
from gridcompute.sinks.base import Output, Sink
from gridcompute.sinks.results import open_result
from gridcompute.sinks.tables import MANIFEST, ArrowSink, ParquetSink
from gridcompute.sinks.zarrs import ZarrSink
from gridcompute.sources.tables import open_table
from gridcompute.sources.zarrs import open_zarr
from gridcompute.spaces import Region, Space
from gridcompute.store import open_store

SPACE = Space.of(time=5, x=7)
FIELDS = (
    Field("t", ("time", "x"), np.dtype("f4"), attrs=packed({"units": "K"})),
    Field("n", ("time", "x"), np.dtype("i8"), nullable=True),
    Field("flag", ("x",), np.dtype(bool)),
    Field("maybe", ("x",), np.dtype(bool), nullable=True),
    Field("mean", (), np.dtype("f8")),
)
COORDS = (
    Coordinate("time", "time", np.arange(5), "days since 2001-01-30", "360_day"),
    Coordinate("x", "x", np.linspace(0, 3, 7), attrs=packed({"units": "m"})),
    Coordinate("x", "station", np.array(list("abcdefg"))),
)
EXTENTS = (2, 3)
RECIPE = "0123456789abcdef0123456789abcdef"
ROWS = st.tuples(st.integers(0, 9), st.none() | st.text(max_size=4), st.lists(st.integers(-9, 9), max_size=3))


def columns():
    rng = np.random.default_rng(0)
    t = rng.normal(size=(5, 7)).astype("f4")
    t[0:2, 0:3] = np.nan  # a whole chunk
    n = rng.integers(-(2**60), 2**60, (5, 7))
    return {
        "t": Fixed(t), "n": Fixed(n, rng.random((5, 7)) > 0.3), "flag": Fixed(rng.random(7) > 0.5),
        "maybe": Fixed(rng.random(7) > 0.5, np.arange(7) % 3 > 0), "mean": Fixed(np.array(2.5)),
    }  # fmt: skip


def chunks(space=SPACE, extents=EXTENTS, fields=FIELDS, data=None):
    data = data or columns()
    counts = [-(-n // e) for n, e in zip(space.shape, extents, strict=True)]
    for position in itertools.product(*map(range, counts)):
        region = Region(
            tuple(
                (p * e, min(n, (p + 1) * e)) for p, e, n in zip(position, extents, space.shape, strict=True)
            )
        )
        where = dict(zip(space.names, region.slices, strict=True))
        block = {}
        for f in fields:
            column, index = data[f.name], tuple(where[dim] for dim in f.dims)
            if isinstance(column, Ragged):
                block[f.name] = column.sliced(index[0].start, index[0].stop)
            else:
                block[f.name] = Fixed(
                    column.values[index], None if column.valid is None else column.valid[index]
                )
        yield Block(region, block, region.shape[0]), region, position


def written(sink, *, finish=True, **kwargs):
    output = pickle.loads(pickle.dumps(sink.prepare(SPACE, FIELDS, COORDS, EXTENTS, RECIPE, **kwargs)))
    files = [one for chunk in chunks() for one in output.write_chunk(*chunk)]
    if finish:
        output.finalize(files)
    return output, files


@pytest.fixture(scope="session")
def s3():
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    options = {"key": "k", "secret": "s", "endpoint_url": f"http://{host}:{port}"}
    import s3fs

    s3fs.S3FileSystem(**options).mkdir("bucket")
    yield options
    server.stop()


def check_zarr(ds):
    data = columns()
    np.testing.assert_array_equal(ds.t.values, data["t"].values)
    assert ds.t.dtype == np.float32
    assert ds.t.attrs["units"] == "K"
    np.testing.assert_array_equal(np.isnan(ds.n.values), ~data["n"].valid)
    assert ds.flag.values.tolist() == data["flag"].values.tolist()
    assert ds.flag.dtype == bool
    maybe = np.where(data["maybe"].valid, data["maybe"].values, np.nan)
    np.testing.assert_array_equal(ds.maybe.values, maybe)
    assert float(ds["mean"]) == 2.5
    assert [str(day) for day in ds.time.values[:2]] == ["2001-01-30 00:00:00", "2001-02-01 00:00:00"]
    assert ds.station.values.tolist() == list("abcdefg")
    assert "station" in ds.coords
    np.testing.assert_array_equal(ds.x.values, COORDS[1].values)


@pytest.mark.parametrize("place", ["disk", "s3"])
def test_zarr_is_what_xarray_opens(tmp_path: Path, place, request):
    options = request.getfixturevalue("s3") if place == "s3" else {}
    url = "s3://bucket/out/a.zarr" if place == "s3" else str(tmp_path / "a.zarr")
    sink = ZarrSink(url, storage_options=options)
    assert isinstance(sink, Sink)
    output, files = written(sink, finish=False)
    assert isinstance(output, Output)
    with pytest.raises(MissingInputError, match="isn't a finished"):
        open_result(url, **options)
    output.finalize(files)
    check_zarr(open_result(url, **options))
    output.finalize(files)
    assert all(output.verify(one) for one in files)
    source = open_zarr(url, storage_options=options)
    n = source.read(Region.of((0, 5), (0, 7)), ["n"])["n"] if source.space == SPACE else None
    if n is not None:
        np.testing.assert_array_equal(n.values[n.valid], columns()["n"].values[columns()["n"].valid])
    assert {c.name: c for c in source.coords}["time"] == COORDS[0]
    store = open_store(url, **options)
    store.put(files[0].path, b"torn")
    assert not output.verify(files[0])
    store.delete(files[0].path)
    assert not output.verify(files[0])
    output.discard()
    assert list(store.list()) == []


def test_blosc_shuffles_by_the_items_size(tmp_path: Path):
    _, files = written(ZarrSink(str(tmp_path / "a.zarr")))
    sizes = {"t": 4, "n": 8, "flag": 1, "maybe": 1, "mean": 8}
    for one in files:
        name = one.path.partition("/")[0]
        assert (tmp_path / "a.zarr" / one.path).read_bytes()[3] == sizes[name], one.path
    assert {one.path.count("/") for one in files if one.path.startswith("t/")} == {3}
    assert len(files) == 9 + 9 + 3 + 3 + 1  # each of the whole, each along x, one


def test_equal_blocks_give_equal_bytes(tmp_path: Path):
    for make in (ZarrSink, ParquetSink, ArrowSink):
        _, first = written(make(str(tmp_path / "a")))
        _, second = written(make(str(tmp_path / "b")))
        assert first == second
        for name in "ab":
            for path in sorted((tmp_path / name).rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
            (tmp_path / name).rmdir()


@pytest.mark.parametrize("make", [ZarrSink, ParquetSink, ArrowSink])
def test_a_chunk_is_written_once(tmp_path: Path, make):
    output, files = written(make(str(tmp_path / "out")), finish=False)
    block, region, position = next(chunks())
    assert output.write_chunk(block, region, position)[0] in files
    other = Block(region, {**block.columns, "t": Fixed(np.ones_like(block["t"].values))}, block.rows)
    with pytest.raises(DivergenceError):
        output.write_chunk(other, region, position)
    assert all(output.verify(one) for one in files)
    changed = output.write_chunk(other, region, position, replace=True)
    assert all(output.verify(one) for one in changed)
    assert not all(output.verify(one) for one in files)
    with pytest.raises(DimensionError):
        output.write_chunk(block, Region.of((0, 1), (0, 3)), position)


@pytest.mark.parametrize("make", [ZarrSink, ParquetSink, ArrowSink])
def test_what_is_there_already(tmp_path: Path, make):
    url = str(tmp_path / "out")
    output, files = written(make(url), finish=False)
    again = make(url).prepare(SPACE, FIELDS, COORDS, EXTENTS, RECIPE)  # the same recipe, not finished
    with pytest.raises(StoreError, match="isn't finished"):
        again.finalize(files[:-1])
    again.finalize(files)
    make(url).prepare(SPACE, FIELDS, COORDS, EXTENTS, RECIPE).finalize(files)  # finished
    assert all(output.verify(one) for one in files)
    with pytest.raises(OutputExistsError):
        make(url).prepare(SPACE, FIELDS, COORDS, EXTENTS, "f" * 32)
    with pytest.raises(OutputExistsError):
        make(url).prepare(SPACE, FIELDS, COORDS, EXTENTS, "f" * 32, resume=True)
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    with pytest.raises(OutputExistsError):
        make(str(other)).prepare(SPACE, FIELDS, COORDS, EXTENTS, RECIPE)
    assert sorted(path.name for path in other.iterdir()) == ["thesis.txt"]


@pytest.mark.parametrize("make", [ZarrSink, ParquetSink])
def test_places_that_cannot_be_written(tmp_path: Path, make, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError):
        make(str(tmp_path / "file" / "out")).prepare(SPACE, FIELDS, COORDS, EXTENTS, RECIPE)
    with pytest.raises(StoreError, match="room"):
        make(str(tmp_path / "big")).prepare(
            Space.of(x=10**17), (Field("v", ("x",), np.dtype("f8")),), (), (10**6,), RECIPE
        )
    assert not (tmp_path / "big" / "zarr.json").exists()


def test_columns_that_zarr_cannot_hold(tmp_path: Path):
    def prepare(fields, space=SPACE, coords=(), extents=EXTENTS):
        ZarrSink(str(tmp_path / "a")).prepare(space, fields, coords, extents, RECIPE)

    text = Field("name", ("x",), np.dtype("u1"), "string")
    with pytest.raises(ParameterError, match="write Parquet"):
        prepare((text,))
    with pytest.raises(DimensionError, match="needs all lengths"):
        prepare((Field("v", ("row",), np.dtype("f8")),), Space.of(row=None), extents=(1,))
    with pytest.raises(ParameterError, match="can't name one array"):
        prepare((Field("x", ("x",), np.dtype("f8")),), coords=COORDS)
    with pytest.raises(ParameterError, match="2 GiB"):
        prepare((Field("v", ("x",), np.dtype("f8")),), Space.of(x=10**10), extents=(10**9,))
    with pytest.raises(ParameterError, match="compressor"):
        ZarrSink("a", compressor="zip")
    output = ZarrSink(str(tmp_path / "a")).prepare(
        Space.of(x=2), (Field("v", ("x",), np.dtype("i1"), nullable=True),), (), (2,), RECIPE
    )
    with pytest.raises(ParameterError, match="marks its gaps"):
        output.write_chunk(
            Block(Region.of((0, 2)), {"v": Fixed(np.array([-128, 1], "i1"))}, 2), Region.of((0, 2)), (0,)
        )


@pytest.mark.parametrize("place", ["disk", "s3", "memory"])
@pytest.mark.parametrize("make", [ParquetSink, ArrowSink])
def test_tables_of_a_grid(tmp_path: Path, make, place, request):
    options = request.getfixturevalue("s3") if place == "s3" else {}
    url = {
        "disk": str(tmp_path / "out"),
        "s3": f"s3://bucket/{make.__name__}",
        "memory": f"memory://{make.__name__}",
    }[place]
    output, files = written(make(url, options), finish=False)
    with pytest.raises(MissingInputError):
        open_result(url, **options)
    output.finalize(files)
    table = open_result(url, **options).to_table()
    assert table.num_rows == 35
    assert table.column_names == ["time", "x", "station", "t", "n", "flag", "maybe", "mean"]
    data, frame = columns(), table.to_pandas()
    order = np.array(
        [time * 7 + list("abcdefg").index(s) for time, s in zip(frame["time"], frame["station"], strict=True)]
    )
    assert sorted(order) == list(range(35))
    np.testing.assert_array_equal(frame["t"], data["t"].values.reshape(-1)[order])
    valid = data["n"].valid.reshape(-1)[order]
    assert table["n"].is_null().to_pylist() == (~valid).tolist()
    assert [v for v in table["n"].to_pylist() if v is not None] == data["n"].values.reshape(-1)[order][
        valid
    ].tolist()
    assert set(frame["mean"]) == {2.5}
    assert json.loads(table.schema.field("time").metadata[b"calendar"]) == "360_day"
    assert all(output.verify(one) for one in files)
    assert sum(one.rows for one in files) == 35
    output.discard()
    assert list(open_store(url, **options).list()) == []


@settings(max_examples=25)
@given(st.lists(st.lists(ROWS, max_size=5), max_size=4), st.sampled_from([ParquetSink, ArrowSink]))
def test_tables_of_unknown_length(tmp_path_factory, blocks, make):
    url = tmp_path_factory.mktemp("out") / "rows"
    fields = (
        Field("n", ("row",), np.dtype("u1")),
        Field("s", ("row",), np.dtype("u1"), "string", True),
        Field("l", ("row",), np.dtype("i2"), "list"),
    )
    output = make(str(url)).prepare(Space.of(row=None), fields, (), (1,), RECIPE)
    files = []
    for i, rows in enumerate(blocks):
        column = {
            "n": Fixed(np.array([r[0] for r in rows], "u1")),
            "s": Ragged.of([None if r[1] is None else r[1].encode() for r in rows]),
            "l": Ragged.of([np.array(r[2], "i2") for r in rows], "i2"),
        }
        region = Region.of((i, i + 1))
        files += output.write_chunk(Block(region, column, len(rows)), region, (i,))
    assert not url.exists()
    output.finalize(files)
    table = open_result(url).to_table()
    assert [(r["n"], r["s"], r["l"]) for r in table.to_pylist()] == list(
        itertools.chain.from_iterable(blocks)
    )
    assert json.loads((url / MANIFEST).read_text())["rows"] == table.num_rows
    if make is ParquetSink:
        assert pq.read_table(url, columns=["n"]).num_rows == table.num_rows
        opened = open_table(sorted(map(str, url.glob("*.parquet"))))
        if table.num_rows:
            assert opened.space["row"] == table.num_rows
        else:
            assert [list(opened.blocks(part)) for part in opened.parts] == [[] for _ in opened.parts]


def test_text_that_is_none(tmp_path: Path):
    fields = (Field("s", ("row",), np.dtype("u1"), "string"),)
    output = ParquetSink(str(tmp_path / "a")).prepare(Space.of(row=None), fields, (), (1,), RECIPE)
    with pytest.raises(ParameterError, match="isn't text"):
        output.write_chunk(Block(Region.of((0, 1)), {"s": Ragged.of([b"\xff"])}, 1), Region.of((0, 1)), (0,))
    with pytest.raises(ParameterError, match="two columns"):
        ParquetSink(str(tmp_path / "b")).prepare(
            SPACE, (Field("time", ("x",), np.dtype("f4")),), (), EXTENTS, RECIPE
        )
    with pytest.raises(DimensionError, match="first dimension"):
        ParquetSink(str(tmp_path / "b")).prepare(Space.of(x=3, row=None), fields, (), (1, 1), RECIPE)


def test_a_lease_within_the_output_moves_along(tmp_path: Path):
    url = tmp_path / "out"
    url.mkdir()
    (url / ".lease").write_text("mine")
    written(ParquetSink(str(url)))
    assert (url / ".lease").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert open_result(url).count_rows() == 35


def test_results_that_cannot_be_opened(tmp_path: Path):
    with pytest.raises(MissingInputError, match="no result"):
        open_result(tmp_path / "none")
    written(ParquetSink(str(tmp_path / "out")))
    (tmp_path / "out" / "part-00003.parquet").unlink()
    with pytest.raises(CorruptInputError, match="part-00003"):
        open_result(tmp_path / "out")
    manifest = tmp_path / "out" / MANIFEST
    manifest.write_text(json.dumps({"kind": "parquet", "parts": [{"path": "../../etc/passwd", "size": 1}]}))
    with pytest.raises(CorruptInputError, match="missing"):
        open_result(tmp_path / "out")
    for text in ("{", "[]", '{"kind": 1}'):
        manifest.write_text(text)
        with pytest.raises(CorruptInputError):
            open_result(tmp_path / "out")
    with pytest.raises(OutputExistsError):
        ParquetSink(str(tmp_path / "out")).prepare(SPACE, FIELDS, COORDS, EXTENTS, RECIPE)


def test_keys_leave_out_the_place(tmp_path: Path):
    assert digest(ZarrSink("a").key) == digest(ZarrSink("b").key)
    assert digest(ZarrSink("a").key) != digest(ZarrSink("a", level=1).key)
    assert digest(ParquetSink("a").key) != digest(ArrowSink("a").key)
    assert os.path.isabs(ZarrSink("a").url)
    assert "secret" not in repr(ZarrSink("s3://bucket/a", storage_options={"secret": "s"}))


def test_real_fields_come_back(tmp_path: Path):
    import iris_sample_data

    from gridcompute.sources.xarrays import open_dataset

    source = open_dataset(Path(iris_sample_data.path) / "A1B_north_america.nc").select(["air_temperature"])
    coords = tuple(c for c in source.coords)
    output = ZarrSink(str(tmp_path / "t.zarr")).prepare(
        source.space, source.fields, coords, (240, 20, 49), RECIPE
    )
    files = []
    for i, (lo, hi) in enumerate([(0, 20), (20, 37)]):
        region = Region.of((0, 240), (lo, hi), (0, 49))
        files += output.write_chunk(source.read(region, ["air_temperature"]), region, (0, i, 0))
    output.finalize(files)
    ours, theirs = open_result(tmp_path / "t.zarr"), xr.open_dataset(source.path, decode_timedelta=False)
    np.testing.assert_array_equal(ours.air_temperature.values, theirs.air_temperature.values)
    assert ours.time.values.tolist() == theirs.time.values.tolist()
    assert ours.air_temperature.attrs["units"] == "K"
    for c in coords:
        np.testing.assert_array_equal(ours[c.name].values, theirs[c.name].values)


def test_pyarrow_reads_arrow_parts(tmp_path: Path):
    _, files = written(ArrowSink(str(tmp_path / "out")))
    part = pa.ipc.open_file(tmp_path / "out" / files[0].path).read_all()
    assert part.num_rows == files[0].rows
    assert pa.dataset.dataset(tmp_path / "out", format="ipc", exclude_invalid_files=True).count_rows() == 35
