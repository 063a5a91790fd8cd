"""What is computed from reductions alone runs where they end: in one stage, with the same bits, in parts too."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr

import gridcompute as grid
from gridcompute import axes, ended, endings, readahead, tiles
from gridcompute.actions import maps
from gridcompute.assemble import Room
from gridcompute.endings import Endings
from gridcompute.executor import InlineExecutor
from gridcompute.planning import Plan
from gridcompute.running import graph_of

CUBE = np.random.default_rng(5).normal(3.0, 1.0, size=(24, 9, 14)).astype("f4")
CUBE[5, :, 3] = np.nan
CUBE[:, 2, 2] = np.nan
DAYS = np.arange(24) % 6

_stores = itertools.count()

pytestmark = pytest.mark.usefixtures("own_folder")


def field() -> Any:
    return grid.from_arrays({"t": CUBE}, dims=("time", "y", "x"))["t"]


@grid.kernel("(group),(group),()->()", names=("spread",), parallel=1)
def spread(count: Any, mean: Any, middle: Any) -> Any:
    total = 0.0
    for i in range(len(count)):
        total += count[i] * (mean[i] - middle) ** 2
    return total


@grid.kernel("(group)->()", names=("slow",))
def slow(mean: Any) -> Any:
    return mean.sum()


@grid.kernel("(),(time)->()", names=("rank",), parallel=1)
def rank(middle: Any, series: Any) -> Any:
    found = 0
    for value in series:
        found += value > middle
    return found


@grid.kernel("(group),(group)->()", names=("product",), parallel=1)
def product(one: Any, other: Any) -> Any:
    return (one * other).sum()


def by_day(field: Any) -> Any:
    return field.groupby(DAYS, dim="time")


def between(field: Any) -> Any:
    """How far the means of days lie from the mean."""
    return by_day(field).count().map(spread, by_day(field).mean(), field.mean("time"))


def planned(*outputs: Any) -> Plan:
    return Plan(graph_of(outputs))


def values(*outputs: Any, executor: Any = None) -> list[np.ndarray[Any, Any]]:
    store = f"memory://endings{next(_stores)}"
    run = grid.run(*outputs, executor=executor or InlineExecutor(), store=store, quiet=True)
    return [column.values for i in range(len(outputs)) for column in run[i].to_xarray().data_vars.values()]


def apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every reduction is kept, and a stage of its own reads it."""
    monkeypatch.setattr(Endings, "_tops", lambda self, fold: [])


ENDING: dict[str, Callable[[], Any]] = {
    "arithmetic": lambda: field().var("time") ** 0.5 + field().mean("time") * 2.0,
    "a kernel over groups": lambda: between(field()),
    "renamed": lambda: by_day(field()).mean().rename(t="mean"),
    "transposed": lambda: (by_day(field()).mean() + 1.0).transpose("y", "x", "group"),
    "side by side": lambda: field().mean("time").assign(high=field().max("time")),
    "zonal": lambda: field().std("x") + 1.0,
}


@pytest.mark.parametrize("name", ENDING)
def test_one_stage_gives_what_two_gave(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned(ENDING[name]())
    assert [len(stage.folds) > 0 for stage in plan.stages] == [True]
    found = values(ENDING[name]())
    monkeypatch.setattr(tiles, "PIECE_BYTES", 500)  # in many bands, on several threads
    monkeypatch.setattr(ended, "PIECE_BYTES", 200)
    pieces = values(ENDING[name](), executor=InlineExecutor(threads=3))
    apart(monkeypatch)
    assert len(planned(ENDING[name]()).stages) == 2
    for one, same, other in zip(found, pieces, values(ENDING[name]()), strict=True):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(same, other)


def test_it_is_what_numpy_says() -> None:
    (found,) = values(between(field()))
    there, cube = np.isfinite(CUBE), np.nan_to_num(CUBE.astype("f8"))
    with np.errstate(invalid="ignore"):
        middle = cube.sum(0) / there.sum(0)
        means = np.stack([cube[day::6].sum(0) / there[day::6].sum(0) for day in range(6)])
    counts = np.stack([there[day::6].sum(0) for day in range(6)])
    wanted = np.where(counts.all(0), (counts * (means - middle) ** 2).sum(0), np.nan)
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_everything_that_reads_the_same_boxes_joins_one_pass() -> None:
    plan = planned(by_day(field()).mean().rename(t="mean"), between(field()), field().max("time"))
    assert len(plan.stages) == 1
    assert len(plan.stages[0].folds) == 3  # the mean of days is one, whoever asks for it


def test_what_keeps_other_dimensions_ends_in_the_same_task(monkeypatch: pytest.MonkeyPatch) -> None:
    cube = np.random.default_rng(6).normal(size=(48, 90, 140)).astype("f4")

    def outputs() -> list[Any]:
        data = grid.from_arrays({"t": cube}, dims=("time", "y", "x"))["t"]
        return [data.std("x") + 1.0, data.mean("time") * 2.0, data.max("x")]

    monkeypatch.setattr(axes, "LIGHT_FLOOR", 2**30)
    (stage,) = planned(*outputs()).stages
    assert len({layout.space.names for _, layout in stage.folds}) == 2
    exact = cube.astype("f8")
    expected = (exact.std(2) + 1.0, exact.mean(0) * 2.0, cube.max(2))
    for found, wanted in zip(values(*outputs(), executor=InlineExecutor(threads=2)), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-12)


STAYS: dict[str, Callable[[], list[Any]]] = {
    "asked for too": lambda: [(one := field().mean("time")), one * 2.0],
    "read at other places": lambda: [field() - field().mean("time")],
    "both": lambda: [field().mean("time") * 2.0, field() - field().mean("time")],
    "reduced again": lambda: [field().mean("time").mean("x")],
    "a neighbour": lambda: [field().mean("time").take(np.array([3, 1]), "x")],
    "a slow kernel, for many workers": lambda: [by_day(field()).mean().map(slow)],
    "written as it is": lambda: [field().mean("time").write("mean.zarr")],
    "by other boxes": lambda: [field().mean("time") + grid.from_arrays(
        {"t": CUBE}, dims=("time", "y", "x"))["t"].mean(["x", "y"]).mean("time")],
}


def test_what_is_large_beside_a_reduction_is_read_in_a_stage_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The chunks of a fold are cut for its states: a kernel that reads a series beside it needs far more memory."""
    def ranks() -> Any:
        data = field()
        return data.mean("time").map(rank, data)

    (stage,) = planned(ranks()).stages
    assert len(stage.folds) == 1
    found = values(ranks())
    monkeypatch.setattr(endings, "SHARED_BYTES", CUBE.nbytes - 1)
    plan = planned(ranks())
    assert not any(stage.folds for stage in plan.stages)
    np.testing.assert_array_equal(values(ranks())[0], found[0])


def test_a_kernel_for_many_workers_beside_a_reduction_keeps_its_chunks() -> None:
    parts = grid.from_arrays({"p": CUBE[:4].transpose(1, 2, 0)}, dims=("y", "x", "group"))["p"]
    plan = planned(field().mean("time") + parts.map(slow))
    assert not any(stage.folds for stage in plan.stages)
    assert plan.stages[-1].chunks > 1


@pytest.mark.parametrize("name", STAYS)
def test_what_is_read_otherwise_is_kept(name: str) -> None:
    plan = planned(*STAYS[name]())
    assert not any(stage.folds for stage in plan.stages)
    assert len(plan.stages) > 1
    run = grid.run(*STAYS[name](), executor="inline", quiet=True)
    assert run.summary()["state"] == "done"


def test_of_what_is_written_only_the_last_is_kept_where_that_is_less() -> None:
    first, second = planned(between(field()).write("less.zarr")).stages
    assert [str(root) for root in first.roots] == ["spread"]
    assert len(first.folds) == 3
    assert not second.folds
    same = planned((by_day(field()).mean() * 2.0).write("same.zarr"))
    assert not any(stage.folds for stage in same.stages)
    grid.run(between(field()).write("less.zarr"), executor="inline", quiet=True)
    np.testing.assert_array_equal(xr.open_zarr("less.zarr", consolidated=False)["spread"].values,
                                  values(between(field()))[0])


@pytest.mark.parametrize("number", [2, 5, 256])
def test_parts_read_the_data_once_a_part_whatever_ends_in_it(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from test_parts import InParts, few_chunks

    few_chunks(monkeypatch, 1)
    outputs = [by_day(field()).mean().rename(t="mean"), between(field()), field().max("time")]
    wanted = values(*outputs)
    boxes: list[Any] = []
    folded = ended.Ended._all

    def seen(self: Any, some: Any, whole: Any) -> Any:
        boxes.append([region for _, region in some])
        return folded(self, some, whole)

    monkeypatch.setattr(ended.Ended, "_all", seen)
    for one, other in zip(values(*outputs, executor=InParts(number)), wanted, strict=True):
        np.testing.assert_array_equal(one, other)
    if number < 100:  # (y, x) has 126 cells: beyond, each goes by itself
        assert number <= len(boxes) < 3 * number
        assert all(len(some) == 3 for some in boxes)


def test_chunks_along_kept_dimensions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(axes, "LIGHT_FLOOR", 1)
    monkeypatch.setattr(axes, "CHUNK_BYTES", 400)
    outputs = [between(field()), by_day(field()).mean().rename(t="mean")]
    found = values(*outputs)
    apart(monkeypatch)
    for one, other in zip(found, values(*outputs), strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_is_written_and_read_with_another_reduction_costs_no_second_pass() -> None:
    one = field().var("time") * field().mean("time")
    plan = planned(one.write("once.zarr"), one * 2.0 + field().max("time"))
    assert sum(any(not leaf.inputs for root in stage.roots for leaf in plan.leaves(root)) for stage in plan.stages) == 1
    alone = planned(one.write("once.zarr"), one * 2.0)
    assert len(alone.stages[0].folds) == 2


def test_columns_that_are_chosen_stay_where_they_are_and_others_are_planned_for(
        monkeypatch: pytest.MonkeyPatch) -> None:
    from test_parts import few_chunks

    put: list[Any] = []

    class Seen(Room):
        def put(self, block: Any, at: Any) -> None:
            put.append(at)
            super().put(block, at)

    few_chunks(monkeypatch, 1)
    monkeypatch.setattr(ended, "Room", Seen)
    (mean,) = values(by_day(field()).mean().rename(t="mean"))
    assert not put
    np.testing.assert_array_equal(mean, values(by_day(field()).mean())[0])
    (chosen,) = planned(by_day(field()).mean().rename(t="mean")).stages
    (computed,) = planned((by_day(field()).mean() * 2.0).rename(t="mean")).stages
    assert computed.peak.end == chosen.peak.end + mean.nbytes


def test_its_chunks_are_read_by_tiles_and_not_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(axes, "LIGHT_FLOOR", 1)
    monkeypatch.setattr(axes, "CHUNK_BYTES", 400)
    ahead: list[Any] = []
    turn = readahead.ReadAhead.turn

    def seen(self: Any, following: Any) -> None:
        ahead.append(following)
        turn(self, following)

    monkeypatch.setattr(readahead.ReadAhead, "turn", seen)
    assert planned(between(field())).stages[0].chunks > 1
    values(between(field()), executor=InlineExecutor(threads=2))
    assert not ahead
    values(field() * 2.0, executor=InlineExecutor(threads=2))  # as those of other ops are
    assert ahead


def test_a_kernel_that_fails_there_names_its_cell() -> None:
    @grid.kernel("(group)->()", parallel=1)
    def bad(mean: Any) -> Any:
        if mean[0] > 3.9:
            raise ValueError("too warm")
        return mean[0]

    with pytest.raises(grid.errors.KernelError, match=r"at y=0, x=4 .*too warm"):
        values(by_day(field()).mean().map(bad))


def test_a_column_that_is_two_inputs_is_laid_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    laid, plain, means = list[Any](), maps.spread, by_day(field()).mean()
    monkeypatch.setattr(maps, "spread", lambda column, *rest, **how: [
        laid.append(column), plain(column, *rest, **how)][1])
    (found,) = values(means.map(product, means.rename(t="again")))
    assert sum(column.values.size for column in laid) == 6 * 9 * 14
    (each,) = values(means)
    np.testing.assert_allclose(found, (each ** 2).sum(0), rtol=1e-12)
