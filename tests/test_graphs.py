"""Random graphs of all ops: what plain NumPy gives, and equal bytes in any order, task size and number of workers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st
from oracle import columns_of, same
from oracle_graphs import Grown, grow_arrays, grow_tables
from places import few

import gridcompute as grid
from gridcompute import axes, lower, pacing
from gridcompute.executor import InlineExecutor
from gridcompute.shardfile import read_header
from gridcompute.store import open_store

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("module_folder")]

_stores = iter(range(10**6))

# A graph is told in one line, so shrinking it isn't worth the minutes it takes.
UNSHRUNK = {"phases": (Phase.explicit, Phase.reuse, Phase.generate), "report_multiple_bugs": False}


def shards(url: str) -> dict[str, str]:
    """Digest of every committed shard by its path."""
    store = open_store(url)
    return {path: read_header(store.get(path), path=path).digest for path, _ in store.list_sizes("shards")
            if path.endswith(".arrow")}  # fmt: skip


def outcome(outputs: list[Grown], executor: Any, url: str) -> tuple[dict[str, str], Any]:
    """Run; the digests, and the finished run."""
    finished = grid.run(*(g.lazy for g in outputs), executor=executor, store=url, quiet=True)
    return shards(url), finished


def checked(outputs: list[Grown], seed: int, patch: pytest.MonkeyPatch) -> dict[str, str]:
    """Inline in three ways: equal to the model, and to each other."""
    for g in outputs:
        note(g.said)
    first, finished = outcome(outputs, InlineExecutor(), f"memory://g{next(_stores)}")
    for i, g in enumerate(outputs):
        try:
            same(columns_of(finished[i]), g.model)
        except AssertionError as error:
            raise AssertionError(f"{g.said}: {error}") from error
    for workers, seconds in ((1, 1e9), (2, 0.0)):
        patch.setattr(pacing, "TASK_SECONDS", seconds)
        again, _ = outcome(outputs, InlineExecutor(shuffle=seed, workers=workers), f"memory://g{next(_stores)}")
        assert again == first
    return first


@pytest.mark.parametrize("family", [grow_arrays, grow_tables])
@settings(max_examples=few(8), **UNSHRUNK)
@given(st.data(), st.integers(2, 6), st.integers(0, 99))
def test_graphs_give_what_numpy_gives(family: Any, data: st.DataObject, steps: int, seed: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        checked(family(data.draw, steps), seed, patch)


@pytest.mark.parametrize("family", [grow_arrays, grow_tables])
@settings(max_examples=few(4), **UNSHRUNK)
@given(st.data(), st.integers(2, 6), st.sampled_from([40, 100, 400]), st.integers(1, 9))
def test_graphs_cut_oddly(family: Any, data: st.DataObject, steps: int, chunk_bytes: int, spread: int) -> None:
    """Other extents than small data would get: the values stay."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(axes, "CHUNK_BYTES", chunk_bytes)
        patch.setattr(lower, "BUCKET_BYTES", chunk_bytes)
        patch.setattr(lower, "MAX_BUCKETS", 5)  # buckets of a few bytes each would be read thousands of times
        patch.setattr(axes, "SPREAD", spread)
        patch.setattr(axes, "PART_PIECES", 2)
        patch.setattr(axes, "PART_FLOOR", 16)
        checked(family(data.draw, steps), 1, patch)


@pytest.fixture(name="on_ray", scope="module")
def _on_ray() -> Iterator[dict[int, Any]]:
    from gridcompute.ray_executor import RayExecutor

    made = {workers: RayExecutor(workers=workers) for workers in (2, 1)}
    yield made
    for executor in made.values():
        executor.close()


@pytest.mark.parametrize("family", [grow_arrays, grow_tables])
@settings(max_examples=few(3), suppress_health_check=list(HealthCheck), deadline=None, **UNSHRUNK)
@given(st.data(), st.integers(3, 6))
def test_ray_gives_the_same_bytes(family: Any, on_ray: dict[int, Any], data: st.DataObject, steps: int) -> None:
    outputs = family(data.draw, steps)
    for g in outputs:
        note(g.said)
    wanted, _ = outcome(outputs, InlineExecutor(), f"memory://g{next(_stores)}")
    for executor in on_ray.values():
        found, _ = outcome(outputs, executor, os.path.abspath(f"ray{next(_stores)}"))
        assert found == wanted
