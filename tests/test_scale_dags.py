"""The benchmark of explicit graphs at a tiny size: its oracle's forms agree, and a wrong result is no measurement."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

import gridcompute as grid  # noqa: E402
from benchmarks import scale_dags  # noqa: E402
from benchmarks import scale_dags_oracle as oracle  # noqa: E402
from benchmarks.peering import Peers  # noqa: E402
from benchmarks.rows import OURS, Session, WrongResultError  # noqa: E402

pytestmark = pytest.mark.usefixtures("own_folder")


def test_edges_and_hashes_are_the_formulas(monkeypatch: pytest.MonkeyPatch) -> None:
    for window in (10_000, 7):
        monkeypatch.setattr(oracle, "WINDOW", window)
        oracle._walk.cache_clear()
        oracle.expected.cache_clear()
        dag = grid.Dag.of_edges(*oracle.edges(300), 300)
        assert [dag.inputs_of(task) for task in range(300)] == [oracle.inputs(task) for task in range(300)]
        assert oracle.expected(300).tolist() == oracle.hashes(300)
    with np.errstate(over="ignore"):
        assert oracle.chained(7, [3, 2**63]) == int(oracle.task(7, np.array([3, 2**63], np.uint64)))
    oracle._walk.cache_clear()
    oracle.expected.cache_clear()


def test_rows_at_a_tiny_size(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(scale_dags, "DASK_TASKS", 20)
    tiny = lambda self, size, *_: (100,) if isinstance(size, tuple) else min(size, 100)  # noqa: E731
    monkeypatch.setattr(Session, "pick", lambda self, size, *_: 2 if size == 1 else tiny(self, size))
    session = Session(folder=str(tmp_path), peers=("dask",))
    with Peers(session) as peers:
        found = {row.name: row for row in scale_dags.rows(session, peers)}
    assert {"dag/build/1e2", "dag/held/1e2", "dag/task/1e2/1 thread", "dag/run/1e2/1 thread", "dag/python/1e2/loop",
            "dag/python/1e2/whole", "dag/dask/20"} <= set(found)  # fmt: skip
    assert all(len(values) == 2 for row in found.values() for values in row.raw.values())
    assert found["dag/held/1e2"].met
    assert set(found["dag/dask/20"].raw) == {OURS, "dask"}


def test_a_graph_with_another_edge_is_no_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    sources, targets = oracle.edges(50)
    last = int(targets.argmax())
    sources[last] = 0 if sources[last] else 1
    monkeypatch.setattr(oracle, "edges", lambda tasks: (sources, targets))
    with pytest.raises(WrongResultError, match="50 tasks"):
        scale_dags._Ours(50).run(1)
    assert not scale_dags.build(50)["right"]
