"""Tiles and their pieces: boxes taken apart, folded by several threads, give the bits of whole ones folded by one."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

import gridcompute as grid
from gridcompute import axes, slabs, tiles
from gridcompute.actions.folds import Fold
from gridcompute.executor import Executor, InlineExecutor
from gridcompute.planning import Plan
from gridcompute.running import graph_of
from gridcompute.shardfile import read_header
from gridcompute.sources.zarrs import ZarrSource
from gridcompute.spaces import Region
from gridcompute.store import open_store
from gridcompute.tiles import Cuts, pieces

pytestmark = pytest.mark.ray


@st.composite
def apart(draw: Any) -> tuple[list[Region], Cuts]:
    shape = draw(st.lists(st.integers(1, 7), min_size=1, max_size=4))
    first = draw(st.integers(0, len(shape) - 1))
    reduced = {first} | draw(st.sets(st.integers(first, len(shape) - 1)))
    free = [i for i in range(len(shape)) if i not in reduced or i == first]
    tile, piece = (tuple(draw(st.integers(0, 8)) if i in free else 0 for i in range(len(shape))) for _ in range(2))
    starts, boxes = draw(st.integers(0, 5)), []
    for number in range(draw(st.integers(1, 3))):
        lo = starts + number * shape[first]
        boxes.append(Region(tuple((lo, lo + n) if i == first else (3, 3 + n) for i, n in enumerate(shape))))
    return boxes, Cuts(tile, piece, frozenset(free), frozenset(free) - reduced, ())


@given(apart())
def test_every_value_is_in_one_piece_and_those_of_a_cell_come_in_order(case: tuple[list[Region], Cuts]) -> None:
    boxes, cuts = case
    reduced = set(range(len(boxes[0].bounds))) - cuts.kept

    def positions(regions: list[Region]) -> dict[tuple[int, ...], list[tuple[int, ...]]]:
        """By kept cell, the places of its values in the order of the fold."""
        found = defaultdict(list)
        for region in regions:
            for place in np.ndindex(*region.shape):
                at = tuple(lo + i for lo, i in zip(region.start, place, strict=True))
                cell = tuple(i for dim, i in enumerate(at) if dim not in reduced)
                found[cell].append(tuple(i for dim, i in enumerate(at) if dim in reduced))
        return dict(found)

    expected, bands = positions(boxes), cuts.bands(boxes)
    seen = [positions([piece for tile in band for piece in pieces(tile, cuts.piece)]) for band in bands]
    assert sum(map(len, seen)) == len(expected)
    assert {cell: places for band in seen for cell, places in band.items()} == expected


# --- whole runs ---


@pytest.fixture(name="path")
def _path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A stack with gaps, cut into several segments, of six stored chunks a box."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GRIDCOMPUTE_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(axes, "CHUNK_BYTES", 24 * 11 * 13 * 4)
    monkeypatch.setattr(axes, "DECODE_BYTES", 0)
    monkeypatch.setattr(tiles, "TILE_BYTES", 6 * 4 * 5 * 4)
    rng = np.random.default_rng(5)
    group = zarr.create_group(str(tmp_path / "stack.zarr"))
    for name, dtype in (("v", "f4"), ("n", "i2")):
        array = group.create_array(name, shape=(96, 11, 13), chunks=(6, 4, 5), dtype=dtype,
                                   dimension_names=("time", "lat", "lon"))
        data = rng.normal(size=array.shape) * 10.0 ** rng.integers(-3, 4, array.shape)
        if dtype == "f4":
            data[rng.random(data.shape) < 0.1] = np.nan
        array[...] = data.astype(dtype)
        if dtype == "i2":
            array.attrs["_FillValue"] = 0
    return str(tmp_path / "stack.zarr")


def reduced(path: str) -> list[Any]:
    opened = grid.open_zarr(path)
    field, whole = opened["v"], opened["n"]
    codes = np.arange(96) % 12
    return [
        *(field.reduce(how, "time") for how in ("mean", "var", "max", "argmax", "first", "linregress")),
        field.groupby(codes, dim="time").mean(), field.reduce("topk", "time", k=3), whole.sum("time"),
        field.max(), field.var(), field.mean(("lat", "lon")), field.sum(("time", "lon")), field.reduce("argmin", "lon"),
        (field * 2 + whole).var("time"), field.isel(lat=slice(0, 2), lon=slice(0, 3)).mean("time"),
    ]  # fmt: skip


def digests(store: str) -> dict[str, str]:
    opened = open_store(store)
    return {name: read_header(opened.get(name), path=name).digest for name in opened.list("shards")}


def untaken(folds: Any, kept: Any, box: Region) -> Cuts:
    """The plain way: boxes as they are."""
    nothing = (0,) * len(box.bounds)
    return Cuts(nothing, nothing, frozenset(), frozenset(), ())


def test_tiles_and_threads_change_no_bit(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, outputs, shapes = f"memory://tiles-{tmp_path.name}", reduced(path), list[Any]()
    with monkeypatch.context() as patched:
        patched.setattr(slabs, "cuts", untaken)
        patched.setattr(ZarrSource, "piecewise", False)
        patched.setattr("gridcompute.sources.zarrs._chunks", lambda folder: None)
        grid.run(*outputs, executor=InlineExecutor(), store=f"{own}-plain")
    expected = digests(f"{own}-plain")
    assert len(expected) > 40

    def noted(*given: Any) -> Cuts:
        shapes.append(tiles.cuts(*given).tile)
        return tiles.cuts(*given)

    monkeypatch.setattr(slabs, "cuts", noted)
    for threads, piece in ((1, 2**20), (2, 700), (3, 100), (30, 1)):
        monkeypatch.setattr(tiles, "PIECE_BYTES", piece)
        monkeypatch.setattr(tiles, "FIELD_BYTES", piece)
        grid.run(*outputs, executor=InlineExecutor(threads=threads, shuffle=threads), store=f"{own}-{threads}")
        assert digests(f"{own}-{threads}") == expected
    assert {(6, 4, 5), (6, 0, 0), (6, 4, 0)} & set(shapes)
    assert (0, 0, 0) in shapes  # a selection isn't read position by position


def test_a_segment_is_read_by_stored_chunks(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    regions, read = [], ZarrSource.read

    def noted(self: ZarrSource, region: Region, names: Any) -> Any:
        regions.append(region)
        return read(self, region, names)

    monkeypatch.setattr(ZarrSource, "read", noted)
    field = grid.open_zarr(path)["v"]
    outputs = [field.mean("time"), field.var("time")]
    stage = Plan(graph_of(outputs)).stages[0]
    assert [type(op.action) for op in stage.roots] == [Fold, Fold]
    run = grid.run(*outputs, executor="inline")
    values = np.asarray(zarr.open_group(path)["v"][:], "f8")
    np.testing.assert_allclose(run[0].to_numpy(), np.nanmean(values, 0))
    np.testing.assert_allclose(run[1].to_numpy(), np.nanvar(values, 0), rtol=1e-6)
    assert len(regions) == len(set(regions)) == 16 * 9  # each stored chunk once, by both


def test_stacks_end_to_end_are_read_by_stored_chunks(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(path, "later.zarr")
    shapes, read = set(), ZarrSource.read

    def noted(self: ZarrSource, region: Region, names: Any) -> Any:
        shapes.add(region.shape)
        return read(self, region, names)

    monkeypatch.setattr(ZarrSource, "read", noted)
    run = grid.run(grid.open_dataset([path, "later.zarr"], dim="time")["v"].var("time"), executor="inline")
    values = np.asarray(zarr.open_group(path)["v"][:], "f8")
    np.testing.assert_allclose(run[0].to_numpy(), np.nanvar(values, 0), rtol=1e-6)
    assert shapes == {(6, lat, lon) for lat in (4, 3) for lon in (5, 3)}


@pytest.mark.faults
@pytest.mark.parametrize("threads", [1, 2])
def test_a_torn_chunk_fails_the_run_by_name(path: str, threads: int) -> None:
    chunk = Path(path) / "v" / "c" / "7" / "1" / "2"
    chunk.write_bytes(chunk.read_bytes()[:-9])
    with pytest.raises(grid.errors.GridError, match=r"array 'v', region 42-48_4-8_10-13"):
        grid.run(grid.open_zarr(path)["v"].mean("time"), executor=InlineExecutor(threads=threads))


@pytest.fixture(name="on_ray", params=[(1, 1), (2, 1), (2, 2)], ids=lambda pair: f"{pair[0]}x{pair[1]}")
def _on_ray(request: pytest.FixtureRequest) -> Iterator[Executor]:
    from gridcompute.ray_executor import RayExecutor

    workers, threads = request.param
    made = RayExecutor(workers=workers, threads=threads)
    yield made
    made.close()


def test_ray_workers_of_one_and_two_threads_give_the_same_bits(path: str, tmp_path: Path, on_ray: Executor) -> None:
    grid.run(*reduced(path)[:8], executor=InlineExecutor(), store=str(tmp_path / "inline"))
    grid.run(*reduced(path)[:8], executor=on_ray, store=str(tmp_path / "ray"))
    assert digests(str(tmp_path / "ray")) == digests(str(tmp_path / "inline"))
