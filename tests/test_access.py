"""`consumers` is the inverse of `inputs`: it may name too much, never too little. Release order stands on this."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gridcompute as grid
from gridcompute import access
from gridcompute.access import MOST_RUNS, Access, Halo, Part, Point, Slice, Take, Tree, Whole, wrapped
from gridcompute.actions.rows import Blockwise
from gridcompute.axes import Axis, Layout
from gridcompute.errors import ParameterError
from gridcompute.planning import Plan
from gridcompute.running import graph_of
from gridcompute.segments import Segments
from gridcompute.spaces import Region, Space

lengths = st.integers(1, 7)


def intervals(length: int) -> st.SearchStrategy[tuple[int, int]]:
    """Non-empty half-open intervals within a length."""
    pairs = st.tuples(st.integers(0, length - 1), st.integers(1, length))
    return pairs.filter(lambda pair: pair[0] < pair[1])


def regions(shape: tuple[int, ...]) -> st.SearchStrategy[Region]:
    """Non-empty regions of a space."""
    return st.tuples(*map(intervals, shape)).map(lambda bounds: Region(tuple(bounds)))


@st.composite
def cases(draw: Any) -> tuple[Access, Space, Space]:
    """An access with the spaces of its input and its output."""
    n, m = draw(lengths), draw(lengths)
    both = Space.of(y=m, x=n)
    kind = draw(st.sampled_from(["point", "whole", "missing", "slice", "drop", "take", "part", "halo", "tree", "root"]))
    if kind == "point":
        return Point, both, both
    if kind == "whole":
        return Whole((("x", n),)), both, draw(st.sampled_from([both, Space.of(y=m), Space.of(y=m, k=3)]))
    if kind == "missing":  # an input without all of the output's dimensions
        return Point, Space.of(x=n), both
    if kind == "slice":
        found = range(n)[draw(st.slices(n))]
        return Slice("x", found.start, found.step), both, Space.of(y=m, x=len(found))
    if kind == "drop":
        return Slice("x", draw(st.integers(0, n - 1)), keep=False), both, Space.of(y=m)
    if kind == "take":
        index = np.array(draw(st.lists(st.integers(0, n - 1), max_size=6)), np.int64)
        return Take("x", index), both, Space.of(y=m, x=len(index))
    if kind == "part":
        before, after = draw(st.integers(0, 5)), draw(st.integers(0, 5))
        return Part("x", before, n), both, Space.of(y=m, x=before + n + after)
    if kind == "halo":
        sides = st.integers(0, 9)
        # While rows are being counted the access doesn't know the length: it says 0.
        dims = (("y", draw(sides), draw(sides), draw(st.sampled_from([m, 0]))), ("x", draw(sides), draw(sides), n))
        ends = st.sampled_from(["clip", "periodic", "fill"])
        return Halo(dims, (draw(ends), draw(ends))), both, both
    fan = draw(st.integers(1, 4))
    tree = Tree("y", fan)
    return tree, both, Space.of(x=n) if kind == "root" and m <= fan else Space.of(y=-(-m // fan), x=n)


@given(cases(), st.data())
def test_consumers_are_the_inverse_of_inputs(case: tuple[Access, Space, Space], data: st.DataObject) -> None:
    access, source, out = case
    if 0 in out.shape:
        return
    region = data.draw(regions(tuple(n or 0 for n in out.shape)))
    part = data.draw(regions(tuple(n or 0 for n in source.shape)))
    reads = access.inputs(region, out, source.whole(), source.names)
    for box in reads:
        assert source.whole().contains(box)
    fed = access.consumers(part, source.names, out, out.whole())
    assert out.whole().contains(fed) or not fed.cells
    if any(box.intersect(part).cells for box in reads):
        assert fed.intersect(region).cells, f"{region} reads {part}, but its consumers are {fed}"


@given(st.lists(st.integers(0, 9), min_size=1, max_size=4), st.integers(1, 4), st.data())
def test_blocks_of_rows(parts: list[int], extent: int, data: st.DataObject) -> None:
    axis = Axis(tuple(parts), extent)
    if not axis.chunks:
        return
    access, out = Blockwise("row", axis), Space.of(item=axis.chunks)
    seen = []
    for block in range(axis.chunks):
        (box,) = access.inputs(Region.of((block, block + 1)), out, Region.of((0, axis.length)), ("row",))
        seen.append(box)
        part = data.draw(intervals(axis.length))
        fed = access.consumers(Region.of(part), ("row",), out, out.whole())
        if box.intersect(Region.of(part)).cells:
            assert fed.contains(Region.of((block, block + 1)))
    assert sorted(i for box in seen for i in range(*box.bounds[0])) == list(range(axis.length))


@given(lengths, lengths, st.integers(1, 4), st.integers(1, 4), st.integers(1, 5), st.data())
def test_segments_read_each_chunk_once_and_in_order(
    m: int, n: int, a: int, b: int, run: int, data: st.DataObject
) -> None:
    layout = Layout.of({"y": Axis((m,), a), "x": Axis((n,), b)})
    segments = Segments(layout.axes, run)
    out, source = Space.of(segment=segments.count, group=1), Space.of(y=m, x=n)
    boxes = []
    for s in range(segments.count):
        region = Region.of((s, s + 1), (0, 1))
        reads = segments.inputs(region, out, source.whole(), source.names)
        boxes += reads
        part = data.draw(regions((m, n)))
        if any(box.intersect(part).cells for box in reads):
            assert segments.consumers(part, source.names, out, out.whole()).intersect(region).cells
    assert boxes == [layout.region(chunk) for chunk in range(layout.chunks)]


@given(st.integers(-30, 30), st.integers(0, 30), st.integers(1, 9))
def test_wrapped_pieces_are_the_positions_in_order(lo: int, count: int, length: int) -> None:
    pieces = wrapped(lo, lo + count, length)
    assert [i for a, b in pieces for i in range(a, b)] == [i % length for i in range(lo, lo + count)]


POSITIONS = st.lists(st.one_of(st.integers(0, 5), st.integers(0, 2000), st.integers(10**9, 10**9 + 40)), max_size=200)


@given(POSITIONS, st.data())
def test_runs_of_a_take_hold_its_positions_and_little_else(positions: list[int], data: st.DataObject) -> None:
    take = Take("x", np.array(positions, np.int64))
    lo, hi = data.draw(intervals(len(positions))) if positions else (0, 0)
    runs, wanted = take.runs(lo, hi), positions[lo:hi]
    assert all(a < b for a, b in runs) or not wanted
    assert all(a < b for (_, a), (b, _) in itertools.pairwise(runs)), "in order and apart"
    assert all(any(a <= one < b for a, b in runs) for one in wanted)
    assert len(runs) <= MOST_RUNS + 1
    if wanted:
        assert {a for a, _ in runs} | {b - 1 for _, b in runs} <= set(wanted), "each begins and ends with one"
        slack = max(1, (max(wanted) - min(wanted)) // MOST_RUNS)
        assert sum(b - a for a, b in runs) <= max(2 * len(wanted), slack * len(set(wanted)))


@given(POSITIONS, st.integers(1, 7), st.data())
def test_consumers_of_a_take_are_all_that_read_a_part(positions: list[int], piece: int, data: st.DataObject) -> None:
    before, access.PIECE = access.PIECE, piece
    try:
        take, out = Take("x", np.array(positions, np.int64)), Space.of(x=len(positions))
        into, ends = Space.of(x=10**9 + 41), sorted({0, *positions, *(one + 1 for one in positions), 10**9 + 41})
        lo = data.draw(st.sampled_from(ends))
        part = Region.of((lo, data.draw(st.sampled_from([lo + 1, *(one for one in ends if one > lo)]))))
        fed = take.consumers(part, ("x",), out, out.whole())
        if positions:
            region = Region.of(data.draw(intervals(len(positions))))
            read = take.inputs(region, out, into.whole(), ("x",))
            if any(box.intersect(part).cells for box in read) and region.cells:
                assert fed.intersect(region).cells, f"{region} reads {part}, but its consumers are {fed}"
    finally:
        access.PIECE = before


def test_a_held_input_of_a_scattered_take_stays_until_all_have_read_it(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    values, index = draw.random(20_000), draw.permutation(20_000)
    twice = grid.kernel("()->()", names=("v",))(lambda value: 2 * value)
    held = grid.from_arrays({"x": values}, dims="y").map(twice)
    assert any(stage.held for stage in Plan(graph_of([held.isel(y=index)])).stages)
    run = grid.run(held.isel(y=index), executor="inline", store=tmp_path / "work", quiet=True)
    np.testing.assert_array_equal(run["v"].to_numpy(), 2 * values[index])


def test_a_take_that_jumps_about_is_scattered() -> None:
    n = 10_000
    assert not Take("x", np.arange(n)).scattered
    assert not Take("x", np.arange(n)[::-1].copy()).scattered
    assert not Take("x", np.empty(0, np.int64)).scattered
    assert Take("x", np.random.default_rng(0).permutation(n)).scattered


@pytest.mark.parametrize("kind", ["clusters", "permutation", "few"])
def test_a_take_from_far_apart_gives_what_numpy_gives(kind: str) -> None:
    n, draw = 20_000, np.random.default_rng(3)
    index = {"clusters": np.concatenate([draw.integers(a, a + 9, 700) for a in (19_000, 3, 9_000, 12_345)]),
             "permutation": draw.permutation(n), "few": np.array([n - 1, 0, n - 1])}[kind]
    cells = grid.space(n=n).map(grid.kernel("->()", names=("v",))(lambda cell: 3.0 * cell[0]))
    run = grid.run(cells.take(index, "n"), executor="inline", store="memory://far-apart", quiet=True)
    np.testing.assert_array_equal(run["v"].to_numpy(), 3.0 * index)


@pytest.mark.parametrize(("index", "said"), [
    ([[1]], "must be one list, not of shape"), (np.ma.MaskedArray([1, 2], [0, 1]), "are masked"),
    ([0.5], "must be whole numbers, not float64"), ([7], "position 7 lies outside"),
])  # fmt: skip
def test_positions_that_mean_nothing_are_refused(index: Any, said: str) -> None:
    with pytest.raises(ParameterError, match=said):
        grid.from_arrays({"x": np.arange(5)}, dims="y").isel(y=index)
