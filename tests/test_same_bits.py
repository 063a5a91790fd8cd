"""The same graph gives the same bits: one thread or many, chunks in any order, compiled or not."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

import gridcompute as grid
from gridcompute import axes
from gridcompute.executor import InlineExecutor
from gridcompute.shardfile import read_header
from gridcompute.sources.arrays import ArraySource
from gridcompute.store import open_store

REDUCTIONS = ("sum", "var", "max", "first", "argmax")


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GRIDCOMPUTE_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(axes, "CHUNK_BYTES", 8000)


def values() -> np.ndarray:
    rng = np.random.default_rng(5)
    data = rng.normal(size=(60, 8, 9)).astype(np.float32) * 10.0 ** rng.integers(-6, 6, (60, 8, 9))
    data[rng.random(data.shape) < 0.05] = np.nan
    return data.astype(np.float32)


def digests(store: str) -> dict[str, str]:
    opened = open_store(store)
    return {name: read_header(opened.get(name), path=name).digest for name in opened.list("shards")}


def reduced() -> list[grid.Collection]:
    field = grid.from_arrays({"v": values()}, dims=("time", "lat", "lon"))["v"]
    groups = [i % 7 for i in range(60)]
    return [*(field.reduce(how, "time") for how in REDUCTIONS), field.sum(), field.var(),
            field.groupby(groups, dim="time").mean(), field.reduce("topk", "time", k=3)]


def test_threads_and_order_change_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    outputs, own = reduced(), f"memory://{tmp_path.name}"  # stores in memory outlive a test
    grid.run(*outputs, executor=InlineExecutor(), store=f"{own}-plain")
    expected = digests(f"{own}-plain")
    assert len(expected) > 40
    read = ArraySource.read

    def late(self, region, names):
        time.sleep(0.0003 * (hash(region) % 2))  # so that reads ahead finish in another order
        return read(self, region, names)

    monkeypatch.setattr(ArraySource, "read", late)
    for name, executor in {
        "threads": InlineExecutor(threads=4, shuffle=1),
        "order": InlineExecutor(shuffle=2, workers=3),
    }.items():
        grid.run(*outputs, executor=executor, store=f"{own}-{name}")
        assert digests(f"{own}-{name}") == expected


def test_an_uncompiled_run_gives_the_same_shards(tmp_path: Path) -> None:
    script = tmp_path / "job.py"
    script.write_text(textwrap.dedent("""
        import sys
        import numpy as np
        import gridcompute as grid

        SCALE = 3

        @grid.kernel("(time)->(),()", names=("slope", "level"))
        def fit(series, shift):
            return grid.stats.sen_slope(series) * SCALE, grid.stats.nanmean(series) + shift

        @grid.kernel("->()")
        def draw(cell, rng):
            return cell[0] + grid.random.normal(rng)

        data = np.random.default_rng(1).normal(size=(12, 4, 5))
        trend = grid.from_arrays({"v": data}, dims=("time", "lat", "lon")).map(fit, shift=0.5)
        drawn = grid.space(path=50).map(draw, seed=7)
        grid.run(trend, drawn, drawn.mean(), executor="inline", store=sys.argv[1])
    """))
    for store, disabled in (("jit", "0"), ("plain", "1")):
        subprocess.run([sys.executable, str(script), store], check=True, cwd=tmp_path, timeout=200,
                       env={**os.environ, "NUMBA_DISABLE_JIT": disabled})
    assert digests("jit") == digests("plain")
    assert len(digests("jit")) > 20


@grid.kernel("->()")
def drawn(rng):
    return grid.random.uniform(rng)


def test_drawn_numbers_of_another_width_are_computed_anew() -> None:
    wide = grid.run(grid.space(path=4, asset=512).map(drawn, seed=1), executor="inline")
    wider = grid.run(grid.space(path=4, asset=1024).map(drawn, seed=1), executor="inline")
    assert wider.status.reused == 0  # the same regions, but the cells have other numbers
    more = grid.run(grid.space(path=8, asset=1024).map(drawn, seed=1), executor="inline")
    assert wide["drawn"].to_numpy()[1, 0] != wider["drawn"].to_numpy()[1, 0]
    np.testing.assert_array_equal(more["drawn"].to_numpy()[:4], wider["drawn"].to_numpy())
