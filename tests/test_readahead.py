"""Reading ahead: the next chunk is read while one is computed, by the same calls and to the same bits."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import gridcompute as grid
from gridcompute.errors import GridError
from gridcompute.executor import InlineExecutor
from gridcompute.planning import Plan
from gridcompute.readahead import ReadAhead, loads
from gridcompute.running import graph_of
from gridcompute.sources.zarrs import ZarrSource
from gridcompute.spaces import Region

pytestmark = pytest.mark.usefixtures("module_folder")
STEPS, CHUNK = 120, 3


@pytest.fixture(name="path")
def _path(tmp_path: Path) -> str:
    made = zarr.create_array(str(tmp_path / "t.zarr"), shape=(STEPS, 4, 5), chunks=(CHUNK, 4, 5), dtype="f4",
                             dimension_names=("time", "lat", "lon"))  # fmt: skip
    made[:] = np.random.default_rng(3).normal(size=made.shape)
    return str(tmp_path / "t.zarr")


class Watched:
    """Reads of a source: which regions, by which thread; one of them may fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, failing: int = -1) -> None:
        self.reads = Counter[tuple[int, int]]()
        self.threads, self.begun = set[str](), threading.Event()
        plain = ZarrSource.read

        def read(source: ZarrSource, region: Any, names: Any) -> Any:
            self.reads[region.bounds[0]] += 1
            self.threads.add(threading.current_thread().name.split("_")[0])
            if region.start[0] >= CHUNK:
                self.begun.set()
            if region.start[0] == failing:
                raise GridError("the line was cut")
            return plain(source, region, names)

        monkeypatch.setattr(ZarrSource, "read", read)


def field(path: str) -> Any:
    return grid.open_zarr(path)["t"]


def in_one_task(threads: int) -> InlineExecutor:
    return InlineExecutor(threads=threads)


def test_the_next_chunk_is_read_while_one_is_computed(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    (op,) = Plan(graph_of([field(path) + 1])).stages[0].roots
    first, second = (loads([(op, Region(((at, at + CHUNK), (0, 4), (0, 5))))], ()) for at in (0, CHUNK))
    assert list(first) == [(op.inputs[0].recipe, Region(((0, CHUNK), (0, 4), (0, 5))))]
    with ReadAhead() as ahead:
        ahead.turn(first)
        assert ahead.take(*next(iter(first))) is None  # of the chunk after this one
        ahead.turn(second)
        assert watched.begun.wait(60)  # nobody has asked for it
        block = ahead.take(*next(iter(first)))
        np.testing.assert_array_equal(block["t"].values, zarr.open_array(path)[:CHUNK])
        ahead.turn({})
        ahead.turn(first)  # the second wasn't taken: blocks are asked for in pieces, so nothing more is read ahead
        ahead.turn({})
        assert ahead.take(*next(iter(first))) is None
    assert watched.reads == {(0, CHUNK): 1, (CHUNK, 2 * CHUNK): 1}


@pytest.mark.parametrize(("remote", "threads", "ahead"), [(False, 1, False), (True, 1, True), (False, 2, True)])
def test_where_it_reads_ahead(path: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, remote: bool, threads: int,
                              ahead: bool) -> None:
    expected = grid.run(field(path) + 1, executor=in_one_task(1), store=str(tmp_path / "a"), quiet=True)[0].to_numpy()
    monkeypatch.setattr(ZarrSource, "remote", remote)
    watched = Watched(monkeypatch)
    run = grid.run(field(path) + 1, executor=in_one_task(threads), store=str(tmp_path / "b"), quiet=True)
    assert ("read-ahead" in watched.threads) == ahead
    assert set(watched.reads.values()) == {1}
    np.testing.assert_array_equal(run[0].to_numpy(), expected)


def test_what_reading_raises_is_raised_where_it_is_wanted(path: str, monkeypatch: pytest.MonkeyPatch,
                                                          tmp_path: Path) -> None:
    monkeypatch.setattr(ZarrSource, "remote", True)
    Watched(monkeypatch, failing=2 * CHUNK)
    with pytest.raises(GridError, match="the line was cut"):
        grid.run(field(path) + 1, executor=in_one_task(1), store=str(tmp_path / "s"), quiet=True)
    assert not [one for one in threading.enumerate() if one.name.startswith("read-ahead")]
