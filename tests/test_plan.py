"""Plans as text and as JSON, against files under tests/golden (UPDATE_GOLDEN=1 writes them anew)."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import oracle_kernels as k
import pytest

import gridcompute as grid
from gridcompute.errors import MemoryBoundError, OutputExistsError
from gridcompute.executor import InlineExecutor
from gridcompute.sinks.base import CLAIM

pytestmark = pytest.mark.usefixtures("own_folder")

GOLDEN = Path(__file__).parent / "golden"


def field() -> Any:
    return grid.from_arrays({"a": np.zeros((24, 37, 49), np.float32)}, dims=("t", "y", "x"))["a"]


def rows() -> Any:
    return grid.from_arrays({"k": np.arange(1000) % 7, "v": np.arange(1000.0)}, dims="row")


def joined_reductions() -> list[Any]:
    anomaly = field() - 1.5
    return [anomaly.mean("t"), anomaly.var("t"), anomaly.sum()]


def kernels_and_a_sink() -> list[Any]:
    return [field().map(k.running).map(k.scaled).write("out.zarr")]


def halo_of_a_kernel() -> list[Any]:
    return [field().map(k.scaled).stencil(k.window, {"x": 1})]


def sorted_rows() -> list[Any]:
    return [rows().sort("v")]


def counted_first() -> list[Any]:
    table = rows()
    kept = table.filter(table["k"] < 3)
    return [kept["v"].map(k.scaled).map(k.drawn), kept["v"].sum()]


GRAPHS = [joined_reductions, kernels_and_a_sink, halo_of_a_kernel, sorted_rows, counted_first]


def _same(path: Path, text: str) -> None:
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text(), f"{path.name} differs; UPDATE_GOLDEN=1 writes it anew"


@pytest.mark.parametrize("graph", GRAPHS, ids=lambda graph: graph.__name__)
def test_plans_read_as_they_did(graph: Any) -> None:
    outputs = graph()
    planned = grid.plan(*outputs, workers=2, memory="8GB")
    _same(GOLDEN / f"{graph.__name__}.txt", planned.explain() + "\n")
    facts = planned.to_dict()
    for stage in facts["stages"]:
        assert all(len(recipe) == 32 for recipe in stage.pop("recipes"))
    _same(GOLDEN / f"{graph.__name__}.json", json.dumps(facts, indent=1) + "\n")


def test_plans_name_recipes_that_only_the_graph_decides() -> None:
    first, again = (grid.plan(*joined_reductions(), workers=n, memory="8GB").to_dict() for n in (1, 9))
    assert [s["recipes"] for s in first["stages"]] == [s["recipes"] for s in again["stages"]]
    assert [s["extents"] for s in first["stages"]] == [s["extents"] for s in again["stages"]]


def test_a_step_over_the_whole_space_is_estimated_once_a_cell() -> None:
    planned = grid.plan(field().iterate(k.heat, 2, halo={"x": 1}), workers=2, memory="8GB")
    assert planned.to_dict()["stages"][0]["chunk_bytes"] < 10 * 24 * 37 * 49 * 4


def test_what_cannot_fit_is_refused_with_the_numbers() -> None:
    large = grid.from_arrays({"a": np.broadcast_to(np.float32(0), (2, 30_000, 20_000))}, dims=("t", "y", "x"))["a"]
    with pytest.raises(MemoryBoundError, match=r"needs [0-9.]+ GiB per worker .* a worker may take 600.0 MiB"):
        grid.plan(large.iterate(k.heat, 2, halo={"x": 1}), memory="600MB")


def written(**options: Any) -> Any:
    return field().map(k.scaled).write("out.zarr", **options)


def test_a_plan_says_that_its_output_is_there_with_another_recipe(tmp_path: Path) -> None:
    assert grid.plan(written()).to_dict()["conflicts"] == []
    grid.run(written(), executor="inline")
    assert grid.plan(written()).to_dict()["conflicts"] == []  # its own: a run finds all done
    other = (field() + 1.0).map(k.scaled).write("out.zarr")
    planned = grid.plan(other)
    assert planned.to_dict()["conflicts"] == [{"output": str(tmp_path / "out.zarr"), "reason": "exists already"}]
    assert f"a run would be refused: {tmp_path / 'out.zarr'} exists already; remove it" in planned.explain()
    assert grid.plan((field() + 1.0).map(k.scaled).write("out.zarr", overwrite=True)).to_dict()["conflicts"] == []
    with pytest.raises(OutputExistsError, match="exists already"):
        grid.run(other, executor="inline")


@pytest.mark.parametrize("name", ["out.zarr", "out.parquet"])
def test_a_plan_says_that_something_else_lies_at_its_output(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "notes.txt").write_text("mine")
    (found,) = grid.plan(field().map(k.scaled).write(name)).to_dict()["conflicts"]
    assert found["reason"] == "exists already"


def test_a_plan_says_that_another_run_is_not_finished_there(tmp_path: Path) -> None:
    (tmp_path / "out.zarr").mkdir()
    (tmp_path / "out.zarr" / CLAIM).write_text("another recipe")
    (found,) = grid.plan(written()).to_dict()["conflicts"]
    assert found["reason"] == "holds another run's unfinished output"


class Idle(InlineExecutor):
    """Fails the test where work begins."""

    def begin(self, payloads: Any) -> None:
        raise AssertionError("work began")


def test_an_output_that_exists_is_refused_before_anything_starts(tmp_path: Path) -> None:
    grid.run(written(), executor="inline")
    with pytest.raises(OutputExistsError):
        grid.run((field() + 1.0).map(k.scaled).write("out.zarr"), executor=Idle())
    (tmp_path / "kept.parquet").mkdir()
    (tmp_path / "kept.parquet" / "notes.txt").write_text("mine")
    table = rows()
    counted = table.filter(table["k"] < 3)["v"].map(k.drawn).write("kept.parquet")  # counts rows in a first phase
    with pytest.raises(OutputExistsError, match=r"kept\.parquet exists already"):
        grid.run(counted, executor=Idle())


def test_a_kernel_over_a_bare_space_is_computed_not_read() -> None:
    @grid.kernel("->()")
    def drawn(rng):
        return grid.random.normal(rng)

    told = str(grid.plan(grid.space(path=1000).map(drawn, seed=1).mean("path")))
    assert "reads nothing, computes drawn on the way" in told
