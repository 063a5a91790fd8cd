"""What graphs write as Zarr, Parquet and Arrow reads back as the model says; a second run writes nothing."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import oracle_kernels as k
import pyarrow.parquet as pq
import pytest
import xarray as xr
from oracle import Col, Table, elementwise, filtered, mapped, ordered, reduced
from oracle_graphs import source_arrays, source_table

import gridcompute as grid
from gridcompute import lower
from gridcompute.errors import (
    ClusterError,
    CorruptInputError,
    DivergenceError,
    LeaseError,
    OutputExistsError,
    ParameterError,
    StoreError,
)
from gridcompute.executor import InlineExecutor
from gridcompute.record import load
from gridcompute.sinks.tables import TableOutput
from gridcompute.sinks.zarrs import ZarrOutput

pytestmark = pytest.mark.usefixtures("own_folder")

ARRAY, PLANE = source_arrays(1)
ROWS = source_table(2)
KEPT = filtered(ROWS.model, "row", elementwise("less", ROWS.model["k"], 2))
NONE = filtered(ROWS.model, "row", elementwise("greater", ROWS.model["k"], 99))


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


class Unreachable(InlineExecutor):
    """A cluster that nobody answers for."""

    def begin(self, payloads: Any) -> None:
        raise ClusterError("nobody listens there")


def doubled(url: str, factor: int = 2, **options: Any) -> Any:
    return (grid.from_arrays({"a": np.arange(64.0)}, dims="x") * factor).write(url, **options)


@pytest.mark.parametrize("url", ["o.zarr", "o.parquet", "o.arrow"])
def test_a_finished_output_is_not_computed_again_for_another_work_store(url: str) -> None:
    first = grid.run(doubled(url), executor=InlineExecutor(), store="one", quiet=True)
    chunks = first.summary()["computed"]
    assert chunks > 0
    assert f"{chunks} of {chunks} chunk" in grid.plan(doubled(url), store="two").explain()
    again = grid.run(doubled(url), executor=Unreachable(), store="two", quiet=True)
    assert (again.summary()["computed"], again.summary()["reused"]) == (0, chunks)
    assert again["a"].to_numpy()[-1] == 126
    part = next(path for path in sorted(Path(url).rglob("*")) if path.match("a/c/0") or path.match("part-*"))
    part.unlink() if url == "o.zarr" else part.write_bytes(b"other")  # a size is kept only of tables
    if url == "o.zarr":
        repaired = grid.run(doubled(url), executor=InlineExecutor(), store="three", quiet=True)
        assert repaired.summary()["computed"] == chunks
        assert part.exists()
    else:
        with pytest.raises(DivergenceError):
            grid.run(doubled(url), executor=InlineExecutor(), store="three", quiet=True)


@pytest.mark.parametrize("url", ["deep/o.zarr", "deep/o.parquet"])
def test_a_run_that_cannot_begin_leaves_nothing_at_its_outputs(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2):
        with pytest.raises(ClusterError):
            grid.run(doubled(url), doubled("p.zarr"), executor=Unreachable(), store="store", quiet=True)
        assert [str(path) for path in Path().rglob("*") if "o." in path.name or "p." in path.name] == []
    monkeypatch.setattr("gridcompute.stores.local.LocalStore.free_bytes", lambda self: 1)
    with pytest.raises(StoreError, match="room"):
        grid.run(doubled(url), doubled("q.arrow"), executor=InlineExecutor(), store="store", quiet=True)
    assert [str(path) for path in Path().rglob("*") if "o." in path.name or "q." in path.name] == []


def test_ctrl_c_while_ray_starts_leaves_nothing_at_outputs() -> None:
    class Starts(InlineExecutor):
        def begin(self, payloads: Any) -> None:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        grid.run(doubled("o.zarr"), executor=Starts(), store="store", quiet=True)
    assert sorted(os.listdir()) == ["state", "store"]


@pytest.mark.parametrize("url", ["o.zarr", "o.parquet"])
def test_what_cannot_be_replaced_stays(url: str) -> None:
    grid.run(doubled(url), executor=InlineExecutor(), store="store", quiet=True)
    before = {path: path.read_bytes() for path in Path(url).rglob("*") if path.is_file()}
    with pytest.raises(ClusterError):
        grid.run(doubled(url, 3, overwrite=True), executor=Unreachable(), store="store", quiet=True)
    text = grid.from_arrays({"a": ["x", "y"]}, dims="x").write("o.zarr", overwrite=True)
    with pytest.raises(ParameterError, match="which Zarr can't"):
        grid.run(text, executor=InlineExecutor(), store="store", quiet=True)
    assert before == {path: path.read_bytes() for path in Path(url).rglob("*") if path.is_file()}
    grid.run(doubled(url, 3, overwrite=True), executor=InlineExecutor(), store="store", quiet=True)
    assert before != {path: path.read_bytes() for path in Path(url).rglob("*") if path.is_file()}


def test_a_run_that_cannot_go_on_keeps_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(status: Any) -> None:
        if sum(status.done.values()):
            raise KeyboardInterrupt

    monkeypatch.setattr(lower, "SINK_BYTES", 100)
    with pytest.raises(KeyboardInterrupt):
        grid.run(doubled("o.zarr"), executor=InlineExecutor(), store="store", watch=stop)
    before = sorted(Path().glob(".o.zarr*")) + sorted(Path("o.zarr").rglob("*"))
    assert len(before) > 2
    with pytest.raises(ClusterError):
        grid.run(doubled("o.zarr"), executor=Unreachable(), store="store", quiet=True)
    assert before == sorted(Path().glob(".o.zarr*")) + sorted(Path("o.zarr").rglob("*"))
    done = grid.run(doubled("o.zarr"), executor=InlineExecutor(), store="store", quiet=True)
    assert done.summary()["reused"] > 0
    assert not list(Path().glob(".o.zarr*"))


def test_a_flipped_byte_in_a_page_names_the_file() -> None:
    values = np.random.default_rng(1).random(4096)
    grid.run(grid.from_arrays({"v": values}).write("o.parquet"), executor=InlineExecutor(), store="store", quiet=True)
    part = next(Path("o.parquet").glob("*.parquet"))
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)
    with pytest.raises(CorruptInputError, match=rf"{part.name}.*rows 0 to 4096.*CRC"):
        grid.run(grid.open_table(str(part)), executor=InlineExecutor(), store="store", quiet=True)


def test_a_file_in_the_way_is_called_so() -> None:
    Path("o.parquet").write_text("mine")
    with pytest.raises(StoreError, match=r"o\.parquet isn't possible, that is a file") as refused:
        grid.run(doubled("o.parquet"), executor=InlineExecutor(), store="store", quiet=True)
    assert "link" not in str(refused.value)


def test_a_run_that_its_output_refused_is_not_the_last_one() -> None:
    first = grid.run(doubled("o.parquet"), executor=InlineExecutor(), store="store", quiet=True)
    with pytest.raises(OutputExistsError):
        grid.run(doubled("o.parquet", 3), executor=InlineExecutor(), store="store", quiet=True)
    assert load("last").run == first.name
    assert [path.name for path in Path("store/runs").iterdir()] == [first.name]


@pytest.mark.parametrize("option", ["workers", "threads"])
def test_half_a_worker_is_refused(option: str) -> None:
    with pytest.raises(ParameterError, match=rf"{option} is 1\.5"):
        grid.run(doubled("o.parquet"), executor="inline", quiet=True, **{option: 1.5})


@pytest.mark.faults
@pytest.mark.parametrize("form", ["zarr", "parquet"])
def test_what_is_there_in_other_chunks_is_another_output(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As another version would cut it. The last chunk is the same region in both, under another number."""
    values = np.arange(1.0, 96.0)

    def run(extent: int, **options: Any) -> Any:
        monkeypatch.setattr(lower, "SINK_BYTES", 16 * extent)
        lazy = grid.from_arrays({"v": values}, dims="n") * 2.0
        return grid.run(lazy.write(f"out.{form}", **options), executor="inline", store="store", quiet=True)

    def files() -> list[Path]:
        found = [path for folder in Path().glob(f"out.{form}*") for path in folder.rglob("*") if path.is_file()]
        return sorted(path for path in found if path.parent.name == "c" or path.name.startswith("part-"))

    def killed(*args: Any) -> None:
        raise CorruptInputError("here it was killed", hint="none")

    output = ZarrOutput if form == "zarr" else TableOutput
    with monkeypatch.context() as patch, pytest.raises(CorruptInputError, match="killed"):
        patch.setattr(output, "finalize", killed)
        run(10)
    assert len(files()) == 10
    for path in files()[:-1]:
        path.unlink()
    before = files()
    with pytest.raises(LeaseError, match="belongs to another recipe"):
        run(30)
    assert files() == before
    run(30, overwrite=True)
    assert read_back(form) == (2 * values).tolist()
    with pytest.raises(OutputExistsError, match="exists already"):
        run(10)
    assert run(30).summary()["computed"] == 0
    last = run(10, overwrite=True)
    assert last.summary()["computed"] > 0
    assert read_back(form) == (2 * values).tolist()
    assert len([path for path in files() if ".partial-" not in str(path)]) == 10


def read_back(form: str) -> Any:
    if form == "zarr":
        return xr.open_zarr("out.zarr")["v"].values.tolist()
    return pq.read_table("out.parquet")["v"].to_pylist()
