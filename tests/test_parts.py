"""Chunks computed in parts: the same bytes for any graph and any number of parts, and less memory at once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import oracle_kernels as k
import pytest
from hypothesis import given, note, reject, settings
from hypothesis import strategies as st
from oracle_graphs import Grown, grow_arrays, grow_tables
from places import few
from test_graphs import UNSHRUNK

import gridcompute as grid
from gridcompute import axes, ended, parts, segments
from gridcompute.actions import maps
from gridcompute.errors import UsageError
from gridcompute.executor import InlineExecutor
from gridcompute.orders import Order
from gridcompute.planning import Plan
from gridcompute.running import graph_of
from gridcompute.spaces import Region
from gridcompute.store import open_store

pytestmark = pytest.mark.usefixtures("own_folder")

_stores = iter(range(10**6))


class InParts(InlineExecutor):
    """Every task is done in so many parts, whatever the run says."""

    def __init__(self, number: int, threads: int = 1) -> None:
        super().__init__(threads=threads)
        self.number = number

    def submit(self, order: Order) -> None:
        super().submit(replace(order, task=replace(order.task, parts=self.number)))


def few_chunks(patch: pytest.MonkeyPatch, spread: int) -> None:
    """Small data in few chunks, so that each has something to be taken apart."""
    for module in (axes, maps, segments):
        patch.setattr(module, "SPREAD", spread)


def bytes_of(outputs: list[Any], executor: InlineExecutor) -> dict[str, bytes]:
    """All that a run commits, byte by byte."""
    url = f"memory://parts{next(_stores)}"
    grid.run(*outputs, executor=executor, store=url, quiet=True)
    store = open_store(url)
    return {path: store.get(path) for path, _ in store.list_sizes("shards")}


@pytest.mark.parametrize("family", [grow_arrays, grow_tables])
@settings(max_examples=few(8), **UNSHRUNK)
@given(st.data(), st.integers(2, 6), st.integers(1, 3), st.sampled_from([2, 3, 4, 7, 256]), st.integers(1, 2))
def test_any_number_of_parts_gives_the_same_bytes(family: Any, data: st.DataObject, steps: int, spread: int,
                                                  number: int, threads: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        few_chunks(patch, spread)
        grown: list[Grown] = family(data.draw, steps)
        for g in grown:
            note(g.said)
        outputs = [g.lazy for g in grown]
        try:
            wanted = bytes_of(outputs, InlineExecutor())
        except UsageError:  # numba can't index the cell of a space without dimensions, in parts or not
            reject()
        assert bytes_of(outputs, InParts(number, threads)) == wanted


CUBE = np.random.default_rng(3).normal(size=(24, 9, 14)).astype("f4")
CUBE[5, :, 3] = np.nan


def field() -> Any:
    return grid.from_arrays({"t": CUBE}, dims=("time", "y", "x"))["t"]


def words() -> Any:
    texts = [None if i % 7 == 3 else "ab" * (i % 5) for i in range(60)]
    return grid.from_arrays({"s": texts, "v": np.arange(60.0)}, dims="row")


@grid.kernel("(time)->()")
def trend(series: Any) -> Any:
    total = 0.0
    for i in range(len(series)):
        total += series[i] * i
    return total


@grid.kernel("(x)->()")
def flow(window: Any) -> Any:
    return window[0] * 0.5 + window[2]


GRAPHS = {
    "map": (lambda: field().map(trend), True),
    "arithmetic": (lambda: (field() * 2.0 - 1.0).fillna(0.0), True),
    "stencil": (lambda: field().stencil(flow, {"x": 1}, boundary="periodic"), True),
    "stencil over a map": (lambda: field().map(k.scaled).stencil(flow, {"x": 1}), True),
    "mean over time": (lambda: field().mean("time"), True),
    "variance of all": (lambda: field().var(), True),
    "quantile": (lambda: field().reduce("quantile", "time", q=0.3), True),
    "argmax": (lambda: field().reduce("argmax", "time"), True),
    "by month": (lambda: field().groupby(np.arange(24) % 12, dim="time").mean(), True),
    "root of a variance by month": (
        lambda: field().groupby(np.arange(24) % 12, dim="time").var() ** 0.5 + field().mean("time"), True),
    "take": (lambda: field().take(grid.from_arrays({"i": np.arange(20) % 9}, dims="i")["i"] + 0, "y"), True),
    "drawn": (lambda: field().map(k.drawn, seed=4, name="d"), True),
    "text": (lambda: grid.concat([words(), words()], "row"), True),
    "running": (lambda: field().map(k.running), True),
    "written": (lambda: (field() * 2.0).write("parts.zarr", overwrite=True), True),
    "batch": (lambda: field().map(k.batched), False),
    "task": (lambda: field().map(k.plain), False),
    "iterate": (lambda: field().iterate(k.heat, 2, halo={"x": 1}), False),
    "filter": (lambda: words().filter(words()["v"] > 10.0), False),
    "sort": (lambda: words().sort("v", descending=True), False),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_what_can_be_taken_apart_is_and_gives_the_same_bytes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    few_chunks(monkeypatch, 1)
    make, divisible = GRAPHS[name]
    plan = Plan(graph_of([make()]))
    most = max(plan.most_parts(stage.number, 0) for stage in plan.stages)
    assert (most > 1) == divisible
    wanted = bytes_of([make()], InlineExecutor())
    assert wanted
    regions: list[Region] = []
    extents = parts.extents

    def seen(names: Any, shape: Any, free: Any, number: int) -> Any:
        found = extents(names, shape, free, number)
        regions.extend([Region()] if found != tuple(shape) else [])
        return found

    def tiled(*arguments: Any) -> Any:
        found = parts.tile(*arguments)
        regions.extend([Region()] * any(found))
        return found

    monkeypatch.setattr(parts, "extents", seen)
    monkeypatch.setattr(ended, "tile", tiled)
    for number in (2, 5, 256):
        assert bytes_of([make()], InParts(number)) == wanted
    assert bool(regions) == divisible


def test_the_output_dimension_of_a_kernel_stays_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    few_chunks(monkeypatch, 1)
    plan = Plan(graph_of([field().map(k.running)]))
    (root,) = plan.stages[0].roots
    assert parts.free_dims(root, lambda op: False) == {"time", "y"}
    assert parts.most_parts(root, root.whole, lambda op: False) == 24 * 9


def test_extents() -> None:
    assert parts.extents(("a", "b"), (8, 3), {"a", "b"}, 1) == (8, 3)
    assert parts.extents(("a", "b"), (8, 3), {"a", "b"}, 10**6) == (1, 1)
    assert parts.extents(("a", "b"), (8, 3), {"b"}, 10**6) == (8, 1)
    assert parts.extents(("a", "b"), (8, 3), set(), 4) == (8, 3)


def test_less_is_in_memory_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what a chunk is computed from, no more than a part and its like is there at any time."""
    few_chunks(monkeypatch, 1)
    largest: list[int] = []
    compute = maps.Elementwise.compute

    def watched(self: Any, op: Any, region: Region, read: Any) -> Any:
        block = compute(self, op, region, read)
        largest.append(block.nbytes)
        return block

    monkeypatch.setattr(maps.Elementwise, "compute", watched)
    sizes = {}
    for number in (1, 4, 16):
        largest.clear()
        bytes_of([((field() + 1.0) * 2.0).sum("time")], InParts(number))
        sizes[number] = max(largest)
    assert sizes[4] <= sizes[1] / 4
    assert sizes[16] <= sizes[1] / 14
