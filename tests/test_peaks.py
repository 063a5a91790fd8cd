"""What a task of reductions takes, known beforehand: states, what is read beside them, results, and their writing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from test_parts import bytes_of, few_chunks
from zarr.codecs import BloscCodec, ZstdCodec

import gridcompute as grid
from gridcompute import bounds
from gridcompute.actions.folds import Folding
from gridcompute.bounds import abreast, fitting, most_needed, needs
from gridcompute.errors import MemoryBoundError
from gridcompute.executor import InlineExecutor
from gridcompute.footprint import WORKER_BYTES
from gridcompute.orders import Payload
from gridcompute.peaks import Peak, writing
from gridcompute.planning import Plan, Stage
from gridcompute.ray_executor import RayExecutor
from gridcompute.running import graph_of

pytestmark = pytest.mark.usefixtures("own_folder")

MIB = 2**20
CELLS = 90 * 40
DAYS = np.arange(24) % 6


def field() -> Any:
    values = np.random.default_rng(1).normal(size=(24, 90, 40)).astype("f4")
    return grid.from_arrays({"t": values}, dims=("time", "y", "x"))["t"]


def days() -> Any:
    return field().groupby(DAYS, dim="time")


def stage_of(*outputs: Any) -> Stage:
    (stage,) = Plan(graph_of(list(outputs))).stages
    return stage


@pytest.fixture
def one_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    few_chunks(monkeypatch, 1)


def test_the_peak_is_that_of_the_worst_moment_not_the_sum_of_all() -> None:
    peak = Peak(work=100, end=90, part=80, fixed=5, results=(20, 8), thread=30)
    assert peak.of() == 100
    assert peak.of(threads=3) == 160, "what is read is gone when results are written"
    assert replace(peak, end=140).of(threads=2) == 140
    assert peak.of(parts=2) == 5 + 28 + 40, "both results as a whole, and a part or what is written"
    assert peak.of(parts=4) == 5 + 28 + writing(20)


@pytest.mark.usefixtures("one_chunk")
def test_results_that_take_the_place_of_states_are_counted_once() -> None:
    mean, var, top = (stage_of(one) for one in (days().mean(), days().var(), days().reduce("argmax")))
    cells = 6 * CELLS
    state = (8 + 4) * cells  # a sum, and what was missing
    assert mean.peak.work - mean.peak.thread == state
    assert mean.peak.end == 8 * cells + writing(8 * cells), "the mean lies where the sum was"
    assert var.peak.end == max(8 * 3 * cells, 8 * cells + writing(8 * cells))
    assert top.peak.end > 8 * cells + writing(8 * cells) - 1
    both = stage_of(days().mean(), days().var())
    assert both.peak.work == mean.peak.work + var.peak.work - mean.peak.thread
    assert both.peak.end < mean.peak.end + var.peak.end + state
    assert both.peak.results == (8 * cells, 8 * cells)


def test_results_go_in_as_few_turns_as_there_is_room_for() -> None:
    peak = Peak(work=100 * MIB, part=80 * MIB, results=(10 * MIB, MIB // 2, 30 * MIB, MIB // 4))
    turns = [tuple(turn) for turn in peak.turns(peak.results, 8, 0)]
    assert turns == [peak.results]
    tight = 40 * MIB + writing(30 * MIB) - 1
    assert list(peak.turns(peak.results, 8, tight)) == [(10 * MIB, MIB // 2), (30 * MIB, MIB // 4)]
    assert peak.of(8, room=tight) <= tight < peak.of(8)
    assert list(peak.turns(peak.results, 8, 1)) == [(one,) for one in peak.results], "refused by whoever compares"


@pytest.mark.usefixtures("one_chunk")
def test_in_parts_and_turns_the_bytes_are_the_same_and_the_plan_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = [days().mean(), field().std("time"), days().var()]
    stage = stage_of(*outputs)
    wanted = bytes_of(outputs, InlineExecutor())
    size = max(stage.peak.results)
    room = size + max(writing(size), -(-stage.peak.part // 4)) + 16 * CELLS
    memory = WORKER_BYTES + room
    assert needs(stage) > memory
    assert needs(stage, 4) > memory >= needs(stage, 4, memory=memory)
    monkeypatch.setattr(bounds, "LIGHT_PARTS", 1)
    planned = grid.plan(*outputs, memory=memory)
    (parts,) = planned.parts.values()
    assert parts.turns == 2
    assert f"each chunk in {parts.number} parts, its results in 2 turns, to stay within" in planned.explain()
    assert f"is read up to {2 * parts.number} times" in planned.explain()
    assert planned.peak_bytes <= memory
    folded: list[str] = []
    end = Folding.end

    def ending(self: Any, *arguments: Any) -> Any:
        folded.append(self.action.label)
        return end(self, *arguments)

    monkeypatch.setattr(Folding, "end", ending)
    tight = Tight(memory)
    assert bytes_of(outputs, tight) == wanted
    assert tight.parts == {parts.number}
    assert len(folded) == 3 * parts.number
    last = max(i for i, name in enumerate(folded) if name == "mean")
    assert "var" not in folded[:last], "the second turn begins when the first has written its results"
    with pytest.raises(MemoryBoundError, match="parts it still needs"):
        grid.plan(*outputs, memory=WORKER_BYTES + size)


class Tight(InlineExecutor):
    """Plans and computes with so much memory, whatever the run says."""

    def __init__(self, memory: int) -> None:
        super().__init__()
        self.memory, self.parts = memory, set[int]()

    def begin(self, payloads: Any) -> None:
        super().begin([replace(payload, memory=self.memory) for payload in payloads])
        self.stages = {payload.stage.number: payload.stage for payload in payloads}

    def submit(self, order: Any) -> None:
        number = bounds._needed(self.stages[order.task.stage], self.memory, 256)
        self.parts.add(number)
        super().submit(replace(order, task=replace(order.task, parts=number)))


@pytest.mark.usefixtures("one_chunk")
def test_a_task_with_the_cores_of_several_workers_stays_in_the_bound_of_one() -> None:
    plan = Plan(graph_of([days().mean()]))
    (stage,) = plan.stages
    ray = RayExecutor(workers=4)
    memory = needs(stage) + 2 * stage.peak.thread
    ray._nodes = lambda: [4]  # type: ignore[method-assign]
    wide = ray._widened(Payload(stage, {}, "", memory=memory), abreast(stage, ray.workers))
    assert (wide.threads, wide.memory) == (4, memory)
    assert fitting(stage, wide.threads, wide.memory) == 3
    assert most_needed(plan, 0, 1, {}, workers=4) == needs(stage, threads=4)
    assert most_needed(plan, memory, 1, {}, workers=4) == memory, "three threads"
    assert most_needed(plan, memory, 1, {0: 2}, workers=4) == needs(stage, 2)
    assert most_needed(plan, 0, 1, {}) == needs(stage)
    planned = grid.plan(days().mean(), workers=4, memory=memory)
    assert planned.peak_bytes == memory
    assert "each chunk on 3 cores" in planned.explain()
    assert "cores" not in grid.plan(days().mean(), workers=1, memory=memory).explain()


@pytest.mark.usefixtures("one_chunk")
@pytest.mark.parametrize(("codec", "divided"), [(BloscCodec(cname="zstd", typesize=4, blocksize=4096), True),
                                                (ZstdCodec(), False)])
def test_what_cannot_be_decoded_in_part_is_counted_for_each_part(codec: Any, divided: bool, tmp_path: Path) -> None:
    array = zarr.create_array(str(tmp_path / "a.zarr"), shape=(24, 90, 400), chunks=(12, 90, 400), dtype="<f4",
                              compressors=codec, dimension_names=("time", "y", "x"))
    array[:] = np.random.default_rng(2).integers(0, 9, array.shape)
    opened = grid.open_zarr(str(tmp_path / "a.zarr"))
    stored, chunk = opened[next(iter(opened.columns))], 12 * 90 * 400 * 4
    peak = stage_of(stored.mean("time")).peak
    assert (peak.fixed, peak.part + peak.fixed) == (0 if divided else chunk, peak.work)
    assert peak.of(parts=90) >= peak.fixed + sum(peak.results)
    assert (peak.thread < 2.1 * chunk) == divided, "of what is decoded block by block the file isn't in memory"
    doubled = stored.map(twice)
    last = Plan(graph_of([doubled, doubled.mean("time")])).stages[-1].peak
    assert last.results
    assert last.fixed == 0, "it reads what is kept"


@grid.kernel("(time)->(time)")
def twice(series: Any) -> Any:
    return series * 2.0
