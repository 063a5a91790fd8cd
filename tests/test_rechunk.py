"""Rechunking: from stored chunks to those that were asked for, in one stage or through pieces, with the same bytes."""

from __future__ import annotations

import hashlib
import os
import signal
from pathlib import Path
from typing import Any

import interrupted
import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numcodecs.blosc import Blosc
from places import few
from zarr.codecs import BloscCodec

import gridcompute as grid
from gridcompute import lower, rechunking
from gridcompute.access import Access
from gridcompute.actions import rechunks
from gridcompute.axes import Axis, Layout
from gridcompute.errors import ParameterError
from gridcompute.executor import InlineExecutor
from gridcompute.planning import Plan
from gridcompute.reading import readers
from gridcompute.resuming import run_workload
from gridcompute.running import graph_of
from gridcompute.sources import bloscs, chunks
from gridcompute.spaces import Region, Space
from gridcompute.store import open_store

pytestmark = pytest.mark.usefixtures("own_folder")

SHAPE, STORED, ASKED = (50, 37, 41), (8, 37, 41), {"time": -1, "lat": 10, "lon": 7}


def stack() -> xr.Dataset:
    """A stack of maps with a gap, integers with gaps, a plane, and coordinates."""
    draw = np.random.default_rng(1)
    t = draw.normal(size=SHAPE).astype("f4")
    t[3, 4, 5] = np.nan
    count = draw.integers(0, 9, size=SHAPE).astype("i2")
    data = {"t": (("time", "lat", "lon"), t, {"units": "K"}), "n": (("time", "lat", "lon"), count, {"_FillValue": 3}),
            "m": (("lat", "lon"), count[0])}
    coords = {"time": ("time", np.arange(50), {"units": "days since 2001-01-01", "calendar": "noleap"}),
              "lat": ("lat", np.linspace(-90, 90, 37), {"units": "degrees_north"}), "lon": np.arange(41.0)}
    return xr.Dataset(data, coords)


@pytest.fixture
def stored() -> str:
    """The stack in slabs of 8 maps."""
    stack().to_zarr("in.zarr", encoding={"t": {"chunks": STORED}, "n": {"chunks": STORED}}, zarr_format=3,
                    consolidated=False)
    return "in.zarr"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory for next to nothing, so that data go through pieces."""
    for module, name, value in ((rechunking, "ROW_BYTES", 4000), (rechunking, "SLAB_BYTES", 3000),
                                (rechunking, "SMALL_BYTES", 4000), (rechunks, "SMALL_BYTES", 4000),
                                (lower, "SMALL_BYTES", 4000)):
        monkeypatch.setattr(module, name, value)


def digests(url: str) -> dict[str, str]:
    return {str(path.relative_to(url)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(Path(url).glob("*/c/**/*")) if path.is_file()}


def write(source: str, url: str, **options: Any) -> Any:
    asked = {"chunks": ASKED, **options}
    return grid.open_dataset(source).write(url, **asked)


def run(lazy: Any, **options: Any) -> Any:
    return grid.run(lazy, store="store", quiet=True, executor=InlineExecutor(**options))


def stages(lazy: Any) -> list[str]:
    return [stage.name for stage in Plan(graph_of([lazy])).stages]


# --- the same values and bytes, whatever the way ---


def test_one_stage_and_two_write_what_zarr_python_writes(stored: str, request: pytest.FixtureRequest) -> None:
    whole = write(stored, "one.zarr")
    assert stages(whole) == ["write one.zarr"]
    run(whole)
    request.getfixturevalue("small")
    parted = write(stored, "two.zarr")
    assert stages(parted) == ["rechunk n, t: pieces", "write two.zarr"]
    run(parted, shuffle=3, threads=2)
    assert digests("one.zarr") == digests("two.zarr")
    want, found = stack(), xr.open_zarr("two.zarr", consolidated=False)
    assert found["t"].encoding["chunks"] == (50, 10, 7)
    assert found["t"].attrs == {"units": "K"}
    assert found["lat"].attrs == {"units": "degrees_north"}
    assert found["time"].dt.calendar == "noleap"
    for name in ("t", "m"):
        np.testing.assert_array_equal(found[name].values, want[name].values)
    np.testing.assert_array_equal(found["n"].values, np.where(want["n"] == 3, np.nan, want["n"]))
    plain = zarr.create_array("plain.zarr", shape=SHAPE, chunks=(50, 10, 7), dtype="f4", zarr_format=3, compressors=[
        BloscCodec(cname="zstd", clevel=3, shuffle="shuffle", typesize=4)], fill_value=float("nan"))
    plain[...] = want["t"].values
    ours, theirs = Path("one.zarr/t/c"), Path("plain.zarr/c")
    names = sorted(str(path.relative_to(theirs)) for path in theirs.rglob("*") if path.is_file())
    assert len(names) == 24
    assert all((ours / name).read_bytes() == (theirs / name).read_bytes() for name in names)


@pytest.mark.usefixtures("small")
def test_each_stored_chunk_is_decoded_once(stored: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    decode = chunks.StoredChunks._decode

    def counted(self: Any, place: tuple[int, ...], target: Any) -> None:
        seen.append(f"{self.folder} {place}")
        decode(self, place, target)

    monkeypatch.setattr(chunks.StoredChunks, "_decode", counted)
    monkeypatch.setattr(chunks.StoredChunks, "_more", lambda *args: None)  # the last one isn't wanted whole
    lazy = grid.open_dataset(stored)["t"].write("out.zarr", chunks=ASKED)
    seen.clear()
    run(lazy)
    assert sorted(seen) == sorted(f"{os.path.abspath(stored)}/t {(i, 0, 0)}" for i in range(7))


def test_a_kernel_before_it_runs_once_for_each_cell(stored: str) -> None:
    doubled = (grid.open_dataset(stored)["t"] * 2.0).write("out.zarr", chunks=ASKED)
    run(doubled)
    np.testing.assert_array_equal(xr.open_zarr("out.zarr", consolidated=False)["t"].values, stack()["t"].values * 2)


def test_an_output_in_chunks_of_another_order_of_size(stored: str) -> None:
    run(write(stored, "maps.zarr", chunks={"time": 1}))
    found = xr.open_zarr("maps.zarr", consolidated=False)
    assert found["t"].encoding["chunks"] == (1, 37, 41)
    np.testing.assert_array_equal(found["t"].values, stack()["t"].values)


@pytest.mark.usefixtures("small")
def test_rows_are_no_longer_than_said_after_a_fold_of_long_chunks() -> None:
    values = np.arange(3000 * 4 * 64, dtype="f4").reshape(3000, 4, 64)
    xr.Dataset({"t": (("time", "lat", "lon"), values)}).to_zarr("in.zarr", encoding={"t": {"chunks": (32, 4, 64)}})
    lazy = grid.open_dataset("in.zarr")["t"].mean(["lat", "lon"]).write("out.zarr", chunks={"time": 100})
    fold, written = Plan(graph_of([lazy])).stages
    assert fold.layouts[0]["time"].run > 1  # else this would test nothing
    assert written.layouts[0].region(0).shape[0] * 8 <= 4000
    run(lazy)
    np.testing.assert_allclose(xr.open_zarr("out.zarr")["t"].values, values.astype("f8").mean((1, 2)))


# --- faults ---

JOB = '''
import gridcompute as grid
from unittest import mock
from gridcompute import lower, rechunking
from gridcompute.actions import rechunks

def run(folder, **options):
    data = grid.open_dataset(f"{folder}/../in.zarr")["t"]
    with mock.patch.multiple(rechunking, ROW_BYTES=4000, SLAB_BYTES=3000, SMALL_BYTES=4000), \\
            mock.patch.object(rechunks, "SMALL_BYTES", 4000), mock.patch.object(lower, "SMALL_BYTES", 4000):
        return grid.run(data.write(f"{folder}/out.zarr", chunks={"time": -1, "lat": 10, "lon": 7}),
                        store=f"{folder}/work", quiet=True, **options)
'''


@pytest.mark.faults
@pytest.mark.parametrize("at", ["kept:1", "kept:3", "kept:5"])
def test_killed_at_any_point_it_goes_on(at: str, stored: str, tmp_path: Path) -> None:
    whole = interrupted.write_job(tmp_path / "whole", JOB)
    interrupted.load_job(whole).run(whole, executor="inline")
    folder = interrupted.write_job(tmp_path / "killed", JOB)
    code, _, err = interrupted.finish(interrupted.start(folder, kill=at))
    assert code == -signal.SIGKILL, err
    pieces = sorted(folder.glob("work/shards/**/*.arrow"))
    assert pieces
    if at == "kept:3":  # and meanwhile a bit of a piece flips: the slab is read again
        data = bytearray(pieces[0].read_bytes())
        data[len(data) // 2] ^= 4
        pieces[0].chmod(0o600)
        pieces[0].write_bytes(data)
    again = interrupted.load_job(folder).run(folder, executor="inline")
    assert again.summary()["state"] == "done"
    assert digests(str(folder / "out.zarr")) == digests(str(whole / "out.zarr"))
    left = list(folder.glob("work/shards/**/*.arrow"))  # pieces that nothing needs are gone, but what was void
    assert left == (pieces[:1] if at == "kept:3" else [])


@pytest.mark.usefixtures("small")
def test_rows_can_be_read_when_their_pieces_are_gone(stored: str) -> None:
    lazy = grid.open_dataset(stored)["t"].write("out.zarr", chunks=ASKED)
    ran = run(lazy)
    plan = Plan(graph_of([lazy]))
    last = list(readers(plan, open_store("store")))[-1]
    block = last.made(0, 5, last.token(0, 5))
    np.testing.assert_array_equal(block["t"].values, stack()["t"].values[block.region.slices])
    assert ran.summary()["state"] == "done"


# --- what is decided ---


def test_a_plan_says_the_most_memory_and_keeps_within() -> None:
    axes = {"time": Axis((960,), multiple=24), "lat": Axis((721,), multiple=721), "lon": Axis((1440,), multiple=1440)}
    columns = [(("time", "lat", "lon"), 4.0)]
    row = rechunking.rows_of(axes, (960, 91, 180), columns)
    assert np.prod(row) * 4 <= rechunking.ROW_BYTES
    assert rechunking.passes(axes.values(), row) > rechunking.PASSES
    blocks = {**axes, "time": Axis((960,), multiple=1), "lat": Axis((721,), multiple=23)}
    row = rechunking.rows_of(blocks, (960, 91, 180), columns)
    assert rechunking.passes(blocks.values(), row) <= rechunking.PASSES


@settings(max_examples=few(20), deadline=None)
@given(st.data())
def test_passes_are_counted(data: Any) -> None:
    parts = tuple(data.draw(st.lists(st.integers(1, 30), min_size=1, max_size=3)))
    axis = Axis(parts, multiple=data.draw(st.integers(1, 12)))
    extent = data.draw(st.integers(1, 40))
    first, last = rechunking._ends(axis)
    meets = [len({i // extent for i in range(a, b)}) for a, b in zip(first, last, strict=True)]
    assert rechunking.passes([axis], [extent]) == pytest.approx(np.mean(meets))


@settings(max_examples=few(15), deadline=None)
@given(st.data())
def test_pieces_and_accesses(data: Any) -> None:
    shape = (data.draw(st.integers(1, 12)), data.draw(st.integers(1, 9)))
    ends = [data.draw(st.integers(1, 6)) for _ in range(4)]
    names = ("a", "b")
    slabs = Layout.of({n: Axis((size,), extent=e) for n, size, e in zip(names, shape, ends[:2], strict=True)})
    rows = Layout.of({n: Axis((size,), extent=e) for n, size, e in zip(names, shape, ends[2:], strict=True)})
    way = rechunks.Slabs(slabs)
    into: Access = rechunks.Rows(way)
    flat, whole = Space.of({"run": int(way.starts[-1])}), slabs.whole
    for number in range(slabs.chunks):
        slab = slabs.region(number)
        every = rechunking.pieces(slab, rows)
        assert [i for i, _ in every] == list(range(len(every)))
        assert sum(part.cells for _, part in every) == slab.cells
        cells = Region((way.cells(number),))
        assert way.inputs(cells, flat, whole, names) == (slab,)
        for chunk in range(rows.chunks):
            region = rows.region(chunk)
            meets = slab.intersect(region).cells > 0
            assert [part for _, part in rechunking.pieces(slab, rows, region)] == [
                part for _, part in every if part.intersect(region).cells]
            assert (cells in into.inputs(region, slabs.space, flat.whole(), ("run",))) == meets
            assert not meets or into.consumers(cells, ("run",), slabs.space, whole).intersect(region).cells
        assert way.consumers(slab, names, flat, flat.whole()).contains(cells)


@pytest.mark.parametrize("asked", [{"time": 0}, {"level": 2}, {"time": -2}, {"time": 1.5}])
def test_chunks_that_make_no_sense(asked: dict[str, Any], stored: str) -> None:
    with pytest.raises(ParameterError, match="chunks"):
        grid.plan(write(stored, "out.zarr", chunks=asked))


# --- blocks of Blosc ---


@settings(max_examples=few(12), deadline=None)
@given(st.integers(0, 2**32))
def test_blocks_of_a_chunk_are_decoded_as_all_of_it_is(seed: int) -> None:
    draw = np.random.default_rng(seed)
    shape = tuple(int(n) for n in draw.integers(1, (9, 60, 90)))
    values = np.cumsum(draw.integers(-2, 3, size=shape), axis=-1).astype(draw.choice(["f4", "f8", "i1", "i2"]))
    codec = Blosc(str(draw.choice(["zstd", "lz4"])), 3, Blosc.SHUFFLE, blocksize=int(draw.choice([0, 512, 4096])))
    data = memoryview(codec.encode(values))
    size = bloscs.block_bytes(lambda a, b: bytes(data[a:b]))
    if not size:  # too small to be compressed
        return
    box = tuple(slice(*sorted(draw.choice(n + 1, 2, replace=False).tolist())) for n in shape)
    wanted = bloscs.blocks_of(shape, values.itemsize, box, size)
    inside = np.zeros(shape, bool)
    inside[box] = True
    bytewise = np.repeat(inside.reshape(-1), values.itemsize)
    np.testing.assert_array_equal(wanted, np.add.reduceat(bytewise, np.arange(0, values.nbytes, size)) > 0)
    out = np.zeros_like(values)
    bloscs.decode_blocks(codec, lambda a, b: bytes(data[a:b]), len(data), out.reshape(-1).view(np.uint8), wanted)
    np.testing.assert_array_equal(out[box], values[box])


def test_a_part_of_a_chunk_leaves_blocks_undecoded(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.arange(64 * 128 * 128, dtype="f4").reshape(64, 128, 128)
    how = {"chunks": values.shape, "compressors": BloscCodec(cname="zstd", typesize=4)}
    data = xr.Dataset({"t": (("time", "lat", "lon"), values)})
    data.to_zarr("big.zarr", zarr_format=3, consolidated=False, encoding={"t": how})
    with monkeypatch.context() as patched:
        patched.setattr(chunks, "_content", None)  # a chunk may be large: opening looks at its header alone
        assert dict(grid.open_dataset("big.zarr")["t"].columns["t"][0].action.source.least)["time"] < 64
    counts: list[int] = []
    plain = bloscs.decode_blocks

    def counted(codec: Any, read: Any, stored: int, raw: Any, wanted: Any) -> None:
        counts.append(int(wanted.sum()))
        plain(codec, read, stored, raw, wanted)

    monkeypatch.setattr(chunks, "decode_blocks", counted)
    chunks.forget()
    source = grid.open_dataset("big.zarr")
    first = run(source["t"].isel(lat=slice(0, 8)).sum())[0].to_numpy()
    assert first == values[:, :8].astype("f8").sum()
    assert 0 < sum(counts) < 40  # of 64 blocks of one map each, or fewer and larger ones


@pytest.mark.parametrize("where", [4, 12, 17])
def test_a_header_that_lies_is_found(where: int) -> None:
    codec = Blosc("zstd", 3, Blosc.SHUFFLE, blocksize=1024)
    values = np.arange(4096, dtype="f4")
    data = bytearray(codec.encode(values))
    wanted = np.ones(values.nbytes // 1024, bool)
    data[where + 1] ^= 0x7F
    with pytest.raises(ValueError, match="its"):
        bloscs.decode_blocks(codec, lambda a, b: bytes(data[a:b]), len(data), np.empty(values.nbytes, np.uint8), wanted)
    with pytest.raises(ValueError, match="its"):
        bloscs.decode_blocks(codec, lambda a, b: bytes(data[a:b]), 100, np.empty(values.nbytes, np.uint8), wanted)


# --- the workload ---


def test_workload(stored: str) -> None:
    options = {"executor": "inline", "quiet": True}
    carried = run_workload("climate.rechunk", {"input": stored, "chunks": "time=-1,lat=10,lon=7"}, options)
    assert carried.runs[0].state == "done"
    assert any("t in 24 chunks of (time 50, lat 10, lon 7)" in line for line in carried.lines)
    np.testing.assert_array_equal(xr.open_zarr("rechunked.zarr")["t"].values, stack()["t"].values)
    for asked in ("time", "time=x", "=3"):
        with pytest.raises(ParameterError, match="dimension and its extent"):
            run_workload("climate.rechunk", {"input": stored, "chunks": asked, "output": "no.zarr"}, options)
    with pytest.raises(ParameterError, match="'time' twice"):
        run_workload("climate.rechunk", {"input": stored, "chunks": "time=3,time=4", "output": "no.zarr"}, options)
    xr.Dataset({"name": ("x", np.array(["a", "b"], object))}).to_netcdf("text.nc")
    with pytest.raises(ParameterError, match="text: name"):
        run_workload("climate.rechunk", {"input": "text.nc", "output": "no.zarr"}, options)
