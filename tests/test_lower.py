"""Rewrites: what is joined, fused, culled, held and counted, and that nothing else is computed."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import oracle_kernels as k
import pytest

import gridcompute as grid
from gridcompute import axes
from gridcompute.actions.folds import Fold
from gridcompute.events import Task, TaskDone
from gridcompute.executor import InlineExecutor
from gridcompute.ledger import Ledger
from gridcompute.orders import Payload
from gridcompute.planning import Plan
from gridcompute.running import graph_of
from gridcompute.shipping import by_value
from gridcompute.store import open_store
from gridcompute.worker import StageWorker

pytestmark = pytest.mark.usefixtures("own_folder")


@pytest.fixture(name="field")
def _field() -> Any:
    return grid.from_arrays({"a": np.arange(60.0).reshape(3, 4, 5)}, dims=("t", "y", "x"))["a"]


def plan(*outputs: Any) -> Plan:
    return Plan(graph_of(outputs))


def test_reductions_over_the_same_chunks_are_one_stage(field: Any) -> None:
    stages = plan(field.mean("t"), field.var("t"), field.max("t")).stages
    folds = [stage for stage in stages if all(isinstance(op.action, Fold) for op in stage.roots)]
    assert [len(stage.roots) for stage in folds] == [3]


def test_a_chain_is_fused(field: Any) -> None:
    (stage,) = plan((field.map(k.scaled) + 1).map(k.scaled) * 2).stages
    assert stage.name == "multiply"


def test_a_kernel_that_is_read_twice_is_kept_once(field: Any) -> None:
    heavy = field.map(k.scaled)
    stages = plan(heavy.map(k.weighted), heavy.map(k.placed)).stages
    assert [stage.name for stage in stages].count("scaled") == 1
    assert len(stages) == 3 or any(len(stage.roots) == 2 for stage in stages)


@pytest.mark.parametrize("parallel", [None, 4])
def test_a_reduction_is_cut_as_its_kernel_asks(parallel: int | None) -> None:
    @grid.kernel("()->()", names=("double",), parallel=parallel)
    def double(value):  # type: ignore[no-untyped-def]
        return 2 * value

    wide = grid.from_arrays({"a": np.arange(4000.0).reshape(400, 10)}, dims=("y", "x"))["a"]
    (stage,) = plan(wide.map(double).mean("x")).stages
    assert stage.chunks <= 4 if parallel else stage.chunks > 100


def test_array_s_regions_are_digested_once(field: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    source = field.op.action.source
    objects = type(source).objects
    monkeypatch.setattr(type(source), "objects", lambda self, region: asked.append(region) or objects(self, region))
    first, second = plan(field.mean("t"), field.sum("y")), plan(field.mean("t"))
    for found in (first, second):
        for stage in found.stages:
            for chunk in range(stage.chunks):
                found.chunk_token(stage.number, 0, chunk)
                found.chunk_token(stage.number, 0, chunk)
        assert len(asked) == len(set(asked)) > 0
        asked.clear()  # another run asks again: what is in an array may have changed


def _counting(folder: Path) -> Any:
    @grid.task("()->()", dtypes="f8")
    def counted(values, folder=str(folder)):
        import uuid

        with open(f"{folder}/{uuid.uuid4()}", "w"):
            pass
        return values * 1.0

    return counted


def test_what_no_output_needs_is_not_computed(field: Any, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    calls.mkdir()
    both = field.map(_counting(calls)).assign(b=field * 2)
    grid.run(both["b"], executor=InlineExecutor(), store="memory://culled", quiet=True)
    assert not list(calls.iterdir())
    few = field.map(_counting(calls)).isel(t=0)
    grid.run(few, executor=InlineExecutor(), store="memory://few", quiet=True)
    chunks = plan(field.map(_counting(calls))).stages[0].chunks
    assert 0 < len(list(calls.iterdir())) < chunks


@pytest.mark.parametrize("steps", [["scaled"], ["scaled", "weighted"], ["scaled", "plain"]])
def test_a_run_goes_on_from_what_is_there(field: Any, tmp_path: Path, steps: list[str]) -> None:
    """Of a deleted shard's chain only the missing part is computed."""
    calls = tmp_path / "calls"
    calls.mkdir()
    lazy = field.map(_counting(calls))
    for step in steps:
        lazy = lazy.map(getattr(k, step))
    first = grid.run(lazy, executor=InlineExecutor(), store="store", quiet=True)
    wanted, made = first[0].to_numpy(), len(list(calls.iterdir()))
    assert made
    again = grid.run(lazy, executor=InlineExecutor(), store="store", quiet=True)
    assert again.summary()["computed"] == 0
    assert len(list(calls.iterdir())) == made
    shard = first[0]._stored().entries[0].place
    (Path("store") / shard).unlink()
    third = grid.run(lazy, executor=InlineExecutor(), store="store", quiet=True)
    np.testing.assert_array_equal(third[0].to_numpy(), wanted)
    assert third.summary()["computed"] >= 1
    assert len(list(calls.iterdir())) <= made + 5


def test_an_op_between_a_filter_and_one_that_counts_is_planned_once() -> None:
    """A regression: the driver went through phases for ever."""
    table = grid.from_arrays({"v": np.arange(20.0)}, dims="row")
    kept = table.filter(table["v"] > 3)
    first = plan((kept["v"] * 2).map(k.scaled).map(k.placed))
    assert not first.final
    assert [str(op) for op in first.lowered.pending] == ["filter"]


def test_of_joined_ops_only_the_missing_one_is_computed(field: Any, tmp_path: Path) -> None:
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
    first, second = (field.map(_counting(folder)) for folder in folders)
    (stage,) = plan(first, second).stages
    assert stage.chunks > 1
    for wanted in ([first], [first, second]):
        grid.run(*wanted, executor=InlineExecutor(), store=str(tmp_path / "store"), quiet=True)
    assert [len(list(folder.iterdir())) for folder in folders] == [stage.chunks, stage.chunks]


def test_graphs_deeper_than_the_stack(field: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(axes, "LIGHT_FLOOR", 2**20)
    chain, halves, rows = field, field, grid.from_arrays({"k": np.arange(500)}, dims="row")
    for _ in range(2000):
        chain = chain + 1
    for _ in range(300):  # 2**300 paths
        halves = halves * 0.5 + halves * 0.5
    for number in range(50):
        rows = rows.filter(rows["k"] != number)
    run = grid.run(chain, halves, rows, executor=InlineExecutor(), store=str(tmp_path / "store"), quiet=True)
    values = grid.run(field, executor=InlineExecutor(), store=str(tmp_path / "store"), quiet=True)[0].to_numpy()
    np.testing.assert_array_equal(run[0].to_numpy(), values + 2000)
    np.testing.assert_array_equal(run[1].to_numpy(), values)
    assert run[2].to_arrow()["k"].to_pylist() == list(range(50, 500))


def test_a_worker_is_sent_its_own_stage_only(field: Any, tmp_path: Path) -> None:
    chain = field
    for _ in range(1000):
        chain = chain + 1
    planned = plan(chain)
    store = open_store(str(tmp_path / "store"))
    sizes = [len(by_value(Payload.of(planned, stage, store, {}))) for stage in planned.stages]
    assert max(sizes) < 2 * min(sizes)


def test_a_task_begins_no_chunk_after_its_time(field: Any, tmp_path: Path) -> None:
    planned = plan(field + 1)
    (stage,) = planned.stages
    assert stage.chunks > 2
    store = open_store(str(tmp_path / "store"))
    ledger, worker = Ledger(planned, store, {}), StageWorker(Payload.of(planned, stage, store, {}), store)
    task = Task(1, 0, tuple(range(stage.chunks)), seconds=0.0)
    done = worker.run(ledger.order(task))
    assert isinstance(done, TaskDone)
    assert ({item.chunk for item in done.kept}, done.left) == ({0}, task.chunks[1:])
    rest = worker.run(ledger.order(replace(task, chunks=done.left, seconds=math.inf)))
    assert isinstance(rest, TaskDone)
    assert ({item.chunk for item in rest.kept}, rest.left) == (set(done.left), ())


def test_rows_are_cut_finely_where_a_kernel_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(axes, "LIGHT_FLOOR", 2**20)
    rows = grid.from_arrays({"k": np.arange(1000.0)}, dims="row")
    kept = rows.filter(rows["k"] > 3)
    assert plan(kept["k"].map(k.scaled) + 1).stages[0].chunks == 250
    assert plan(kept["k"] + 1).stages[0].chunks == 1


@pytest.mark.parametrize("readers", [1, 2])
def test_a_chain_of_kernels_of_chunks_shares_their_chunks(readers: int) -> None:
    """With one reader, a kernel of chunks itself, nothing is kept between the two; the values are the same."""
    first = grid.kernel("()->()", batch=True, names=("a",))(lambda x: x + np.arange(len(x)))  # sees its chunk
    second = grid.kernel("()->()", batch=True, names=("b",))(lambda x: 2 * x)
    values = grid.from_arrays({"x": np.arange(1000)}, dims="row")
    between = values.map(first)
    outputs = [between.map(second), between.map(second, names=("c",))][:readers]
    assert str(grid.plan(*outputs)).startswith("1 stage") == (readers == 1)
    run = grid.run(*outputs, executor="inline", quiet=True)
    extent = int(np.flatnonzero(np.diff(run["b"].to_numpy()) != 4)[0]) + 1
    assert (run["b"].to_numpy() == 2 * (np.arange(1000) + np.arange(1000) % extent)).all()
