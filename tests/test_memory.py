"""Memory: what a task takes is measured, bounded, made smaller where it was too much, remembered, and named."""

from __future__ import annotations

import errno
import json
import resource
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hungry import Hungry
from test_parts import few_chunks
from test_state import FakePlan, FakeStage

import gridcompute as grid
from gridcompute import bounds, footprint, shardfile
from gridcompute.actions import maps
from gridcompute.errors import CorruptInputError, MemoryBoundError, OutOfMemoryError
from gridcompute.events import Failure, Submit, Task, TaskDone, TaskFailed
from gridcompute.footprint import Footprint, Kills, bounded
from gridcompute.planview import Limits
from gridcompute.record import load
from gridcompute.retry import Policy
from gridcompute.shard import TOMBSTONE
from gridcompute.sizes import AGAIN, Sizes
from gridcompute.state import RunState
from gridcompute.store import open_store
from gridcompute.summary import report, report_screen
from gridcompute.worker import classify

MIB = 2**20
GIB = 2**30
_stores = iter(range(10**6))


@pytest.fixture(autouse=True)
def place(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRIDCOMPUTE_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("GRIDCOMPUTE_CACHE", str(tmp_path_factory.getbasetemp() / "code"))
    monkeypatch.chdir(tmp_path)


def url() -> str:
    return f"memory://memory{next(_stores)}"


def shards(store: str) -> dict[str, bytes]:
    opened = open_store(store)
    return {path: opened.get(path) for path, _ in opened.list_sizes("shards")}


# --- measured ---


@pytest.mark.own_process
def test_each_task_has_its_own_peak() -> None:
    peaks, owns = [], []
    for size in (200, 40):
        taken = Footprint()
        array = np.ones(size * MIB // 8)
        del array
        peaks.append(taken.peak)
        owns.append(taken.own)
    assert 195 * MIB <= owns[0] <= 230 * MIB
    assert 35 * MIB <= owns[1] <= 70 * MIB
    assert peaks[0] > peaks[1] > owns[1]


@pytest.mark.own_process
def test_what_is_shared_does_not_count(tmp_path: Path) -> None:
    """Pages of a file that is mapped, as Ray's objects are, belong to all that map it."""
    np.ones(100 * MIB // 8).tofile(tmp_path / "mapped")
    taken = Footprint()
    mapped = np.memmap(tmp_path / "mapped", mode="r")
    assert mapped.sum(dtype=np.int64) > 0
    assert taken.own < 30 * MIB


def test_where_the_system_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(footprint._own, "files", (-1, -1))
    taken = Footprint()
    assert taken.peak == resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert taken.own >= 0
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with bounded(MIB):
        assert resource.getrlimit(resource.RLIMIT_DATA) == before


@pytest.mark.own_process
def test_a_run_tells_of_each_stage_what_its_tasks_took() -> None:
    run = grid.run(grid.from_source(Hungry(10**6))["v"] * 2.0, executor="inline", store=url(), quiet=True)
    (stage,) = run.status.task_bytes
    assert run.status.task_bytes[stage] > 60 * 10**6 * 8 / 256 * 0.9
    assert run.status.peak_bytes > run.status.task_bytes[stage]
    told = report(load(run.name))
    assert told["stages"][0]["bytes"] == run.status.task_bytes[stage]
    assert told["stages"][0]["planned_bytes"] > 0
    assert any("a task took at most" in line and "planned: " in line for line in report_screen(told))


# --- bounded ---


@pytest.mark.own_process
def test_a_task_cannot_go_beyond_its_bound_and_the_process_can_afterwards() -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with bounded(GIB):
        assert np.ones(300 * MIB // 8).sum() > 0
        with pytest.raises(MemoryError):
            np.ones(3 * GIB // 8)
        with pytest.raises(ZeroDivisionError), bounded(GIB):
            1 / 0  # noqa: B018
        with pytest.raises(MemoryError):
            np.ones(3 * GIB // 8)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    assert len(np.empty(3 * GIB // 8)) > 0
    with bounded(0):
        assert resource.getrlimit(resource.RLIMIT_DATA) == before


def test_runs_in_several_threads_leave_no_limit() -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    first, second = bounded(GIB), bounded(2 * GIB)
    first.__enter__()
    limit = resource.getrlimit(resource.RLIMIT_DATA)
    second.__enter__()
    first.__exit__(None, None, None)
    assert resource.getrlimit(resource.RLIMIT_DATA) == limit != before
    second.__exit__(None, None, None)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


@pytest.mark.own_process
def test_a_callers_own_data_is_not_part_of_the_bound() -> None:
    own = np.ones(600 * MIB // 8)
    footprint.settled(again=True)
    try:
        with bounded(GIB):
            assert np.ones(300 * MIB // 8).sum() > 0
    finally:
        del own
        footprint.settled(again=True)


@pytest.mark.own_process
def test_what_a_caller_made_between_two_runs_is_not_part_of_the_bound() -> None:
    grid.run(numbers(5120), executor="inline", store=url(), quiet=True)
    own = np.ones(800 * MIB // 8)
    run = grid.run(numbers(5000), executor="inline", store=url(), memory="600MB", quiet=True)
    assert run.summary()["retries"] == 0
    assert own.sum() > 0


@pytest.mark.own_process
def test_a_cell_that_is_too_big_is_named_with_peak_and_bound() -> None:
    @grid.kernel("()->()")
    def huge(x: Any) -> Any:
        return np.ones(int(x) * 1_000_000).sum()

    values = np.ones((8, 4))
    values[5, 2] = 400
    lazy = grid.from_arrays({"v": values}, dims=("y", "x"))["v"].map(huge)
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with pytest.raises(OutOfMemoryError, match=r"huge, chunk 22 \(y 5 to 6, x 2 to 3\), in huge at y=5, x=2 of v in "
                       r"arrays in memory \(it had [\d,]+ MiB, a worker may take 900 MiB\): MemoryError") as caught:
        grid.run(lazy, executor="inline", store=url(), memory="900MB", quiet=True)
    assert "memory=" in caught.value.hint
    assert "can't be computed in parts" in caught.value.hint
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


def test_kills_by_the_system_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counter = tmp_path / "vmstat"
    counter.write_text("nr_free_pages 5\noom_kill 3\n")
    monkeypatch.setattr(footprint, "VMSTAT", str(counter))
    kills = Kills()
    assert not kills.another()
    counter.write_text("nr_free_pages 5\noom_kill 5\n")
    assert [kills.another() for _ in range(3)] == [True, True, False]
    counter.unlink()
    assert not kills.another()


@pytest.mark.parametrize(("error", "kind"), [
    (MemoryError(), "out_of_memory"), (OSError(12, "no"), "out_of_memory"), (OSError(5, "no"), "transient"),
    (OSError("ZSTD compression failed: Allocation error : not enough memory"), "out_of_memory"),
    (RuntimeError("Zstd decompression error: Allocation error : not enough memory"), "out_of_memory"),
    (RuntimeError("can't start new thread"), "out_of_memory"), (ValueError("not enough memory"), "fatal"),
])  # fmt: skip
def test_who_says_that_there_was_no_memory(error: Exception, kind: str) -> None:
    assert classify(error) == kind
    told = CorruptInputError("array 'v' can't be decoded")
    told.__cause__ = error
    assert (classify(told) == "out_of_memory") == (kind == "out_of_memory")


# --- made smaller, and remembered ---


def starving(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """Arithmetic over more cells than so many runs out of memory."""
    compute = maps.Elementwise.compute

    def failing(self: Any, op: Any, region: Any, read: Any) -> Any:
        if region.cells > most:
            raise MemoryError("Unable to allocate")
        return compute(self, op, region, read)

    monkeypatch.setattr(maps.Elementwise, "compute", failing)


def numbers(n: int) -> Any:
    return grid.from_arrays({"v": np.arange(float(n))}, dims="x")["v"] * 2.0 - 1.0


def test_a_chunk_that_ran_out_of_memory_is_done_in_parts_and_so_it_is_from_then_on(
        monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, third = url(), url(), url()
    grid.run(numbers(5120), executor="inline", store=first, quiet=True)
    starving(monkeypatch, 6)  # of the 20 cells of a chunk
    run = grid.run(numbers(5120), executor="inline", store=second, quiet=True)
    assert shards(second) == shards(first)
    assert list(run.status.parts.values()) == [4]
    assert 3 <= run.summary()["retries"] <= 6  # alone, in 2 parts, in 4: not for each of the 256 chunks
    assert all("a worker ran out of memory in stage" in message for message in run.status.failures)
    plan = grid.plan(numbers(5120), store=url())
    assert "each chunk in 4 parts, as it ran out of memory before" in plan.explain()
    assert plan.to_dict()["stages"][0]["parts"] == 4
    again = grid.run(numbers(5120), executor="inline", store=third, quiet=True)
    assert shards(third) == shards(first)
    assert again.summary()["retries"] == 0
    assert list(again.status.parts.values()) == [4]
    assert any("each chunk in 4 parts" in line for line in report_screen(report(load(again.name))))


@pytest.mark.parametrize("error", [MemoryError("Unable to allocate"), pa.ArrowMemoryError("malloc of size 7 failed"),
                                   OSError(errno.ENOMEM, "Cannot allocate memory")])
def test_a_good_shard_is_not_voided_by_a_worker_that_is_short_of_memory(
        error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    series = grid.from_arrays({"v": np.arange(60.0).reshape(20, 3)}, dims=("t", "x"))["v"]
    store, columns, met = url(), shardfile._columns, []

    def short(data: Any, header: Any, wanted: Any) -> Any:
        if not met:
            met.append(header)
            raise error
        return columns(data, header, wanted)

    monkeypatch.setattr(shardfile, "_columns", short)
    run = grid.run(series - series.mean("t"), executor="inline", store=store, quiet=True)
    assert met
    assert (run[0].to_numpy() == np.arange(60.0).reshape(20, 3) - [28.5, 29.5, 30.5]).all()
    assert ["ran out of memory" in message for message in run.status.failures] == [True]
    assert not [path for path in shards(store) if path.endswith(TOMBSTONE)]
    assert run.summary()["retries"] == 1, "the mean isn't computed again"


def test_what_cannot_be_made_smaller_stops_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    starving(monkeypatch, 0)
    with pytest.raises(OutOfMemoryError, match=r"chunk \d+ \(x \d+ to \d+\), computed in \d+ parts \(it had") as caught:
        grid.run(numbers(5120), executor="inline", store=url(), quiet=True)
    assert "can't be computed in more parts" in caught.value.hint
    assert bounds._read() == {}


@pytest.mark.own_process
def test_the_real_limit_and_a_reader_that_takes_more_than_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers in chunks of 78,125: 37 MiB each while they are read, and the bound leaves 24."""
    few_chunks(monkeypatch, 8)
    n = 8 * 78_125
    lazy = grid.from_source(Hungry(n))["v"] * 2.0
    grid.run(lazy.isel(x=slice(0, 1000)), executor="inline", store=url(), quiet=True)  # loads what any run needs
    free = resource.getrlimit(resource.RLIMIT_DATA)
    footprint.released()
    footprint.settled(again=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(footprint, "SLACK_BYTES", 0)
        base = min(footprint.settled(), footprint.WORKER_BYTES)
        patch.setattr(bounds, "WORKER_BYTES", base)
        small = base + 24 * MIB
        run = grid.run(lazy, executor="inline", store=url(), memory=small, quiet=True)
    assert resource.getrlimit(resource.RLIMIT_DATA) == free
    assert np.array_equal(run["v"].to_numpy(), np.arange(n) * 2.0)
    (parts,) = run.status.parts.values()
    assert parts >= 2
    assert bounds._read()[recipe_of(lazy)]["parts"] == parts


def recipe_of(lazy: Any) -> str:
    return str(grid.plan(lazy).plan.stages[0].recipe)


# --- the plan ---


def stack() -> Any:
    wide = grid.from_arrays({"a": np.broadcast_to(np.float64(1), (64, 1024, 1024))}, dims=("t", "y", "x"))["a"]
    return (wide * 2.0 + 1.0).mean("t")


def test_what_fits_in_parts_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    few_chunks(monkeypatch, 8)
    whole = grid.plan(stack(), memory="8GB", workers=1)
    assert not whole.parts
    tight = whole.peak_bytes - 40 * MIB
    planned = grid.plan(stack(), memory=tight)
    (parts,) = planned.parts.values()
    assert parts.number > 1
    assert planned.peak_bytes <= tight
    assert f"each chunk in {parts.number} parts, to stay within " in planned.explain()
    assert f"read up to {parts.number} times" in planned.explain()
    with pytest.raises(MemoryBoundError, match=r"parts it still needs"):
        grid.plan(stack(), memory=footprint.WORKER_BYTES)


def test_a_plan_in_parts_runs_in_parts_and_is_not_taken_for_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    few_chunks(monkeypatch, 8)
    lazy = stack()
    tight = grid.plan(lazy, memory="8GB", workers=1).peak_bytes - 40 * MIB
    run = grid.run(lazy, executor="inline", store=url(), memory=tight, quiet=True)
    assert (run["a"].to_numpy() == 3.0).all()
    assert max(run.status.parts.values()) > 1
    assert run.summary()["retries"] == 0
    assert bounds._read() == {}


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"format": 2, "sizes": {}}', '{"format": 1}', "[" * 10_000,
                                  '{"format": 1, "sizes": []}', '{"format": 1, "sizes": {"r": 7}}', "\x00" * 99,
                                  '{"format": 1, "sizes": {"r": {"parts": 1e9, "memory": 1, "time": 0}}}',
                                  '{"format": 1, "sizes": {"r": {"parts": true, "memory": 1, "time": 0}}}',
                                  '{"format": 1, "sizes": {"r": {"parts": 4, "memory": -1, "time": 0}}}',
                                  '{"format": 1, "sizes": {"r": {"parts": 4, "memory": 1, "time": "x"}}}',
                                  '{"format": 1, "sizes": {}}' + " " * 2**18])  # fmt: skip
def test_a_damaged_memory_costs_nothing(text: str) -> None:
    bounds.remember("r", 4, GIB)
    bounds._path().write_text(text)
    assert bounds._read() == {}
    bounds.remember("s", 8, GIB)
    assert bounds._read()["s"]["parts"] == 8


def test_what_is_remembered_is_private_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter(range(1, 10**6))
    monkeypatch.setattr(bounds.time, "time", lambda: float(next(times)))
    for number in range(bounds.MOST_KEPT + 20):
        bounds.remember(f"{number:032x}", 2, GIB)
    kept = bounds._read()
    assert len(kept) == bounds.MOST_KEPT
    assert f"{19:032x}" not in kept
    assert f"{20:032x}" in kept
    assert stat.S_IMODE(bounds._path().stat().st_mode) == 0o600
    assert bounds._path().stat().st_size < bounds.MOST_BYTES
    assert [path.name for path in bounds._path().parent.iterdir()] == [bounds.FILE]
    assert json.loads(bounds._path().read_text())["format"] == bounds.FORMAT


def test_with_much_more_memory_the_parts_are_forgotten() -> None:
    lazy = numbers(5120)
    bounds.remember(recipe_of(lazy), 4, 2 * GIB)
    plan = grid.plan(lazy).plan
    assert bounds.planned_parts(plan, 3 * GIB)[0].number == 4
    assert bounds.planned_parts(plan, 0)[0].number == 4
    assert not bounds.planned_parts(plan, 5 * GIB)
    bounds.remember(recipe_of(lazy), 128, 2 * GIB)  # more than its chunks have cells
    assert not bounds.planned_parts(plan, 2 * GIB)


# --- what the state machine does ---


def failing(task: Task, own: int = 0) -> TaskFailed:
    return TaskFailed(task.number, Failure("out_of_memory", "full", task.chunks[0], peak_bytes=own, own_bytes=own))


def submitted(commands: list[Any]) -> list[Task]:
    return [command.task for command in commands if isinstance(command, Submit)]


def test_alone_then_in_parts_then_not_at_all() -> None:
    plan = FakePlan([FakeStage(6)], {}, (0,), divisible={0: 5})
    state = RunState(plan, {}, Limits(workers=1, queue=1), Policy())
    (task,) = submitted(state.start(0.0))
    sizes = []
    while state.outcome is None:
        sizes.append((len(task.chunks), task.parts))
        (task,) = submitted(state.apply(failing(task, 100), 0.0)) or (task,)
    assert sizes == [(1, 1), (1, 1), (1, 2), (1, 4), (1, 8)]
    assert state.outcome.outcome == "failed"


def test_a_size_that_worked_holds_for_its_stage() -> None:
    plan = FakePlan([FakeStage(4)], {}, (0,), divisible={0: 64})
    state = RunState(plan, {}, Limits(workers=1, queue=1), Policy())
    (task,) = submitted(state.start(0.0))
    done = []
    while state.outcome is None:
        if task.parts < 4:
            commands = state.apply(failing(task, 100), 0.0)
        else:
            done.append((task.parts, len(task.chunks)))
            commands = state.apply(TaskDone(task.number, (), own_bytes=7), 0.0)
        (task,) = submitted(commands) or (task,)
    assert state.outcome.outcome == "done"
    assert {parts for parts, _ in done} == {4}
    assert state.retries == 3


def test_where_nobody_knows_what_a_task_took_fewer_run_at_once() -> None:
    plan = FakePlan([FakeStage(40, task_bytes=10)], {}, (0,))
    state = RunState(plan, {}, Limits(workers=4, queue=1, live_bytes=400), Policy())
    first = submitted(state.start(0.0))
    assert len(first) == 4
    for task in first:
        state.apply(failing(task), 0.0)
    # Each is taken to need twice a worker's share at least, and more with each kill: one at a time in the end.
    assert len(state.running) == 1
    (task,) = state.running.values()
    more = state.apply(TaskDone(task.number, (), own_bytes=30), 0.0)
    assert len(submitted(more)) == 4


def test_kills_without_a_cause_are_given_some_tries() -> None:
    sizes = Sizes(FakePlan([FakeStage(1)], {}, (0,)), {}, 100)
    task = Task(1, 0, (0,), attempt=2)
    said = [sizes.exceeded(task, 0, Failure("out_of_memory", "killed")) for _ in range(AGAIN)]
    assert said == [True] * (AGAIN - 1) + [False]
    assert sizes.exceeded(Task(2, 0, (0, 1)), 0, Failure("out_of_memory", "killed"))


def test_a_chunk_that_had_taken_little_is_given_some_tries() -> None:
    """It lost its worker before, so it isn't new; then there was no memory, though others had taken it."""
    task = Task(1, 0, (0,), attempt=2)
    little = Failure("out_of_memory", "full", peak_bytes=300, own_bytes=7)
    sizes = Sizes(FakePlan([FakeStage(1)], {}, (0,)), {}, 100)
    assert [sizes.exceeded(task, 0, little) for _ in range(AGAIN)] == [True] * (AGAIN - 1) + [False]
    much = Failure("out_of_memory", "full", peak_bytes=300, own_bytes=90)
    assert not Sizes(FakePlan([FakeStage(1)], {}, (0,)), {}, 100).exceeded(task, 0, much)
