"""What graphs write as Zarr, Parquet and Arrow reads back as the model says; a second run writes nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracle_kernels as k
import pytest
from oracle import Col, Table, elementwise, filtered, mapped, ordered, reduced
from oracle_graphs import source_arrays, source_table

import gridcompute as grid
from gridcompute import lower
from gridcompute.executor import InlineExecutor

ARRAY, PLANE = source_arrays(1)
ROWS = source_table(2)
KEPT = filtered(ROWS.model, "row", elementwise("less", ROWS.model["k"], 2))
NONE = filtered(ROWS.model, "row", elementwise("greater", ROWS.model["k"], 99))


@pytest.fixture(autouse=True)
def place(tmp_path_factory: pytest.TempPathFactory, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRIDCOMPUTE_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("GRIDCOMPUTE_CACHE", str(tmp_path_factory.getbasetemp() / "code"))
    monkeypatch.chdir(tmp_path)


def written(lazy: Any, url: str) -> Any:
    """The result as its sink gives it, after a second run that has nothing to do."""
    run = grid.run(lazy.write(url), executor=InlineExecutor(shuffle=1, workers=2), store="store", quiet=True)
    again = grid.run(lazy.write(url), executor=InlineExecutor(), store="store", quiet=True)
    assert again.summary()["computed"] == 0
    return run[0]


def as_list(col: Col) -> str:
    """Cells as Arrow's `to_pylist` gives them, as text: NaN equals itself."""
    cells = zip(col.values, col.known, strict=True)
    return repr(
        [None if not ok else bytes(v).decode() if col.kind == "string" else np.asarray(v).tolist() for v, ok in cells]
    )


@pytest.mark.parametrize("size", [2**24, 100])
def test_zarr(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lower, "SINK_BYTES", size)
    kept = ROWS.lazy.filter(ROWS.lazy["k"] < 2)
    plane = PLANE.lazy
    cases = [
        (
            ARRAY.lazy.map(k.scaled).assign(b=plane),
            Table({"scaled": mapped(k.scaled, [ARRAY.col], ["s"])["s"], "b": PLANE.col}),
        ),
        (
            ARRAY.lazy.map(k.plain).assign(b=plane),
            Table({"plain": mapped(k.plain, [ARRAY.col], ["p"])["p"], "b": PLANE.col}),
        ),
        (ROWS.lazy[["n"]].sum(), Table({"n": reduced(ROWS.model["n"], "sum")})),
        (kept["v"].map(k.placed), mapped(k.placed, [KEPT["v"]], ["placed"])),
        (kept["v"] * plane, Table({"v": elementwise("multiply", KEPT["v"], PLANE.col)})),
    ]
    for i, (lazy, model) in enumerate(cases):
        dataset = written(lazy, f"out{i}.zarr").to_xarray()
        for name, col in model.columns.items():
            np.testing.assert_array_equal(dataset[name].transpose(*col.dims).values, col.values)


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
@pytest.mark.parametrize("size", [2**24, 100])
def test_tables(ending: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lower, "SINK_BYTES", size)
    table = ROWS.lazy
    kept = table.filter(table["k"] < 2)
    cases = [
        (table, ROWS.model),
        (kept, KEPT),
        (kept.sort("v"), ordered(KEPT, "row", ["v"], False)),
        (table.filter(table["k"] > 99), NONE),
    ]
    for i, (lazy, model) in enumerate(cases):
        found = written(lazy, f"out{i}.{ending}").to_arrow()
        assert found.column_names == list(model.columns)
        for name, col in model.columns.items():
            assert repr(found[name].to_pylist()) == as_list(col), name
