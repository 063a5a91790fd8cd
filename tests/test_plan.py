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
from gridcompute.errors import MemoryBoundError

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRIDCOMPUTE_STATE", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)


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
    with pytest.raises(MemoryBoundError, match=r"needs [0-9.]+ GiB per worker, but a worker may take 600.0 MiB"):
        grid.plan(large.iterate(k.heat, 2, halo={"x": 1}), memory="600MB")
