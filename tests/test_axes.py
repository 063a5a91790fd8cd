"""Chunks: every position in exactly one, none across two parts, and the same cuts whatever comes after."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gridcompute as grid
from gridcompute import axes
from gridcompute.axes import Axis, Layout, cut
from gridcompute.columns import Fixed
from gridcompute.sources.arrays import ArraySource
from gridcompute.spaces import Region

parts = st.lists(st.integers(0, 40), min_size=1, max_size=4).map(tuple)


@st.composite
def layouts(draw: Any) -> Layout:
    """Layouts of one to three dimensions, cut anyhow."""
    names = ("z", "y", "x")[: draw(st.integers(1, 3))]
    return Layout.of({name: Axis(draw(parts), draw(st.integers(0, 9))) for name in names})


@given(layouts())
def test_every_position_lies_in_exactly_one_chunk(layout: Layout) -> None:
    for name, axis in layout.axes:
        bounds = [axis.bounds(chunk) for chunk in range(axis.chunks)]
        assert [i for lo, hi in bounds for i in range(lo, hi)] == list(range(axis.length)), name
        edges = [sum(axis.parts[:i]) for i in range(len(axis.parts) + 1)]
        assert all(not lo < edge < hi for lo, hi in bounds for edge in edges), "a chunk straddles two parts"
    assert sum(layout.region(chunk).cells for chunk in range(layout.chunks)) == layout.whole.cells


@given(layouts(), st.data())
def test_covering_names_the_chunks_that_meet_a_region(layout: Layout, data: st.DataObject) -> None:
    bounds = []
    for _, axis in layout.axes:
        a, b = data.draw(st.integers(0, axis.length)), data.draw(st.integers(0, axis.length))
        bounds.append((min(a, b), max(a, b)))
    region = Region(tuple(bounds))
    wanted = [c for c in range(layout.chunks) if layout.region(c).intersect(region).cells]
    assert list(layout.covering(region)) == (wanted if region.cells else [])


@given(layouts())
def test_places_count_row_by_row(layout: Layout) -> None:
    for chunk in range(min(layout.chunks, 200)):
        number = 0
        for place, count in zip(layout.place(chunk), layout.counts, strict=True):
            assert 0 <= place < count
            number = number * count + place
        assert number == chunk
        pairs = zip(layout.place(chunk), layout.axes, strict=True)
        assert layout.region(chunk).bounds == tuple(axis.bounds(place) for place, (_, axis) in pairs)


@given(parts, parts, st.integers(1, 12), st.floats(0.1, 1e4), st.integers(1, 300), st.integers(1, 10**6), st.booleans())
def test_cut(
    first: tuple[int, ...],
    second: tuple[int, ...],
    multiple: int,
    cell_bytes: float,
    parallel: int,
    chunk_bytes: int,
    hold: bool,
) -> None:
    given_axes = {"y": Axis(first), "x": Axis(second, multiple=multiple)}
    whole = frozenset(["x"] if hold else [])
    layout = cut(given_axes, cell_bytes=cell_bytes, whole=whole, parallel=parallel, chunk_bytes=chunk_bytes)
    assert all(axis.extent >= 1 for _, axis in layout.axes)
    if hold:
        assert layout["x"].chunks == (1 if sum(second) else 0)
    widest = max((layout.region(c).cells for c in range(min(layout.chunks, 300))), default=0)
    smallest = sum(second) if hold else 1
    assert widest * cell_bytes <= max(chunk_bytes, smallest * cell_bytes * 1.0000001)
    again = cut(
        {"y": Axis(first), "x": Axis(second, multiple=multiple)},
        cell_bytes=cell_bytes,
        whole=whole,
        parallel=parallel,
        chunk_bytes=chunk_bytes,
    )
    assert again == layout


@given(st.lists(st.integers(1, 10**6), min_size=2, max_size=5), st.data())
def test_a_part_that_is_appended_leaves_the_cuts_before_as_they_are(lengths: list[int], data: st.DataObject) -> None:
    """As long as it isn't the longest by far: extents follow from the longest part, not from the sum."""
    before = cut({"row": Axis(tuple(lengths))}, cell_bytes=8)["row"]
    more = data.draw(st.integers(1, max(lengths)))
    after = cut({"row": Axis((*lengths, more))}, cell_bytes=8)["row"]
    assert [after.bounds(c) for c in range(before.chunks)] == [before.bounds(c) for c in range(before.chunks)]


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=4), st.integers(1, 7), st.integers(1, 40),
       st.integers(0, 300), st.integers(0, 4000))
def test_no_chunk_separates_what_belongs_together(parts: list[int], together: int, multiple: int, parallel: int,
                                                  chunk_bytes: int) -> None:
    axis = Axis(tuple(part * together for part in parts), multiple=multiple, together=together)
    layout = cut({"row": axis}, cell_bytes=100, parallel=parallel, chunk_bytes=chunk_bytes)
    assert all(bound % together == 0 for chunk in range(layout.chunks) for bound in layout["row"].bounds(chunk))


@pytest.mark.parametrize("pairs", [1, 3, 100, 1001])
def test_a_kernel_of_chunks_sees_mates_side_by_side(pairs: int) -> None:
    def paired(number):
        if len(number) % 2 or (number[::2] + 1 != number[1::2]).any() or (number[::2] % 2).any():
            raise ValueError("mates are apart")
        return number

    numbers = grid.from_arrays({"number": np.arange(2 * pairs)}, dims="read")
    one = replace(ArraySource(numbers.space, numbers.fields, {"number": Fixed(np.arange(2 * pairs))}),
                  together=(("read", 2),))
    for parallel in (1, 32, 256):
        kernel = grid.kernel("()->()", batch=True, parallel=parallel)(paired)
        run = grid.run(grid.from_source(one).map(kernel), executor="inline", quiet=True)
        assert (run[0].to_numpy() == np.arange(2 * pairs)).all()


def test_small_data_with_heavy_cells_still_spreads() -> None:
    layout = cut({"lat": Axis((37,)), "lon": Axis((49,))}, cell_bytes=960)
    assert 200 <= layout.chunks <= 400
    assert cut({"lat": Axis((37,)), "lon": Axis((49,))}, cell_bytes=960, parallel=4).chunks <= 8


def test_stored_chunks_are_kept_together_where_one_fits() -> None:
    stored = cut({"time": Axis((1000,), multiple=100), "x": Axis((64,), multiple=64)}, cell_bytes=8, parallel=10)
    assert stored["x"].extent == 64
    assert stored["time"].extent % 100 == 0
    large = cut(
        {"time": Axis((1000,), multiple=100), "x": Axis((64,), multiple=64)},
        cell_bytes=8,
        stored_bytes=axes.DECODE_BYTES + 1,
    )
    assert large["time"].extent == 100


def test_light_cells_are_not_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(axes, "LIGHT_FLOOR", 2**20)
    small, large = {"x": Axis((1000,))}, {"x": Axis((2**24,))}
    assert cut(small, cell_bytes=8).chunks == 250
    assert cut(small, cell_bytes=8, light=True).chunks == 1
    assert cut(large, cell_bytes=8, light=True) == cut({"x": Axis((2**24,))}, cell_bytes=8, parallel=128)


def test_chunks_are_whole_stored_chunks_where_they_fit() -> None:
    stack = {"t": Axis((3840,), multiple=120), "y": Axis((180,), multiple=60), "x": Axis((360,), multiple=120)}
    light = cut(stack, cell_bytes=4, stored_bytes=120 * 60 * 120 * 4, light=True)
    assert [axis.extent for _, axis in light.axes] == [120, 60, 120]
    coarse = cut(stack, cell_bytes=4, parallel=1, chunk_bytes=32 * 2**20)
    assert [axis.extent for _, axis in coarse.axes] == [120, 180, 360]


def test_a_stored_chunk_above_the_target_is_one_chunk_or_is_divided() -> None:
    def slab(steps: int, lat: int, **options: Any) -> int:
        stack = {"t": Axis((960,), multiple=steps), "y": Axis((lat,), multiple=lat), "x": Axis((1440,), multiple=1440)}
        layout = cut(stack, cell_bytes=4, stored_bytes=steps * lat * 1440 * 4, **options)
        assert (layout["y"].extent, layout["x"].extent) == (lat, 1440)
        return layout["t"].extent

    assert slab(24, 721) == 24, "100 MB"
    assert slab(24, 721, live_bytes=8) == 24
    assert slab(24, 721, live_bytes=20) == 12, "what is live with it is too much: half of it"
    assert slab(100, 721) == 10, "400 MB: pieces of 64 MiB at most that divide it"
    assert slab(31, 4 * 721) == 4, "no pieces divide it"
    assert slab(8, 721) == 8


@given(parts, st.integers(1, 9), st.integers(1, 5), st.data())
def test_chunks_that_are_runs_of_cuts(lengths: tuple[int, ...], extent: int, run: int, data: st.DataObject) -> None:
    """They begin and end where cuts do, over the ends of parts too."""
    axis = Axis(lengths, extent, run=run)
    cuts = [axis.cuts.bounds(i) for i in range(axis.cuts.chunks)]
    expected = [(cuts[i][0], cuts[min(i + run, len(cuts)) - 1][1]) for i in range(0, len(cuts), run)]
    assert [axis.bounds(chunk) for chunk in range(axis.chunks)] == expected
    if axis.length:
        lo = data.draw(st.integers(0, axis.length - 1))
        hi = data.draw(st.integers(lo + 1, axis.length))
        assert list(axis.covering(lo, hi)) == [i for i, (a, b) in enumerate(expected) if a < hi and lo < b]
    assert cut({"x": replace(axis, extent=0)}, cell_bytes=8)["x"].run == 1


def test_a_stored_chunk_is_decoded_few_times() -> None:
    """By at most four chunks where the data is large; a small one spreads as if it weren't stored in chunks."""
    maps = {"y": Axis((180,), multiple=60), "x": Axis((360,), multiple=120)}
    large = cut(maps, cell_bytes=4 * 1000)
    assert (large["y"].extent, large["x"].extent) == (60 / 4, 120)
    small = {"y": Axis((37,), multiple=37), "x": Axis((49,), multiple=49)}
    assert cut(small, cell_bytes=960).chunks >= 256


@pytest.mark.parametrize(("parallel", "extent"), [(0, 1024), (256, 1024), (32, 8192), (1, 65536), (1024, 256)])
def test_quick_kernels_want_fewer_pieces_of_a_part_and_heavy_ones_more(parallel: int, extent: int) -> None:
    layout = cut({"row": Axis((65536, 65536, 100))}, cell_bytes=1000, parallel=parallel)
    assert layout["row"].extent == extent


@pytest.mark.parametrize(("quick", "chunks"), [(8, 8), (256, 250)])
def test_the_kernel_of_a_chain_says_how_many_chunks(quick: int, chunks: int) -> None:
    """Arithmetic, which says nothing, doesn't count."""
    def doubled(x):
        return 2 * x

    values = grid.from_arrays({"x": np.arange(1000.0)}, dims="row")
    plan = grid.plan((values["x"] + 1).map(grid.kernel("()->()", parallel=quick)(doubled)))
    assert f"{chunks} chunks" in str(plan)
