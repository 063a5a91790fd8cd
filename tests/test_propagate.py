"""Values along a graph of cells: the plain path's bits for any number of members, errors, kinds, dtypes, states."""

from __future__ import annotations

import contextlib
import graphlib
import json
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gridcompute as grid
from gridcompute import checkpoints, dagloops, driver, flows, gang, stretches, worker
from gridcompute.actions.dags import PlainFlow
from gridcompute.columns import Fixed
from gridcompute.errors import (
    DimensionError,
    GridError,
    KernelError,
    MissingInputError,
    ParameterError,
    RunError,
    SignatureError,
    UsageError,
)
from gridcompute.flows import Flow, fits
from gridcompute.orders import Payload
from gridcompute.progressword import Board, Mark, publishing
from gridcompute.shipping import by_value
from gridcompute.store import open_store

pytestmark = pytest.mark.usefixtures("own_folder")

PROPERTY = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


@grid.kernel("(n),()->()")
def mixed(inputs, own):  # type: ignore[no-untyped-def]
    """Other inputs, or another order of them, give another value."""
    total = own
    for i in range(inputs.size):
        total = (total * 1.25 + inputs[i] * (i + 1)) % 97.0
    return total


@grid.kernel("(n),(n),(),()->(),()")
def pairs(sums, deep, own, count, scale, cell, rng):  # type: ignore[no-untyped-def]
    longest = 0
    for one in deep:
        longest = max(longest, one)
    return sums.sum() * scale + own + grid.random.uniform(rng) * cell[0], longest + count


@grid.kernel("(n),()->()")
def other(inputs, own, shift=2.0):  # type: ignore[no-untyped-def]
    return inputs.size + own * 0.5 + shift


@grid.kernel("(n),()->()")
def drawn(inputs, own, rng):  # type: ignore[no-untyped-def]
    return grid.random.uniform(rng) + own + (inputs[0] if inputs.size else 0.0) % 3.0


@grid.kernel("(n),(m),(k)->()")
def wide(inputs, fixed, text):  # type: ignore[no-untyped-def]
    total = fixed[0] - fixed[-1] + text.size
    for letter in text:
        total += letter
    return (total + inputs.sum()) % 1001.0


@grid.kernel("(n,time),(n),(time)->(time),()")
def routed(upstream, most, own):  # type: ignore[no-untyped-def]
    """A series a cell, and the greatest number that was met on the way."""
    flow, top = own.copy(), own[0]
    for i in range(upstream.shape[0]):
        top = max(top, most[i])
        for k in range(flow.size):
            flow[k] = (flow[k] * 1.25 + upstream[i, k] * (i + 1)) % 97.0
    for one in flow:
        top = max(top, one)
    return flow, top


@grid.kernel("(n)->()", dtypes=["u8"])
def hashed(inputs, cell):  # type: ignore[no-untyped-def]
    chain = np.uint64(cell[0] + 1) * np.uint64(0x9E3779B97F4A7C15)
    for one in inputs:
        chain = (chain + one) * np.uint64(0xD1342543DE82EF95)
        chain ^= chain >> np.uint64(32)
    return chain


@grid.kernel("(n)->()")
def longest(inputs):  # type: ignore[no-untyped-def]
    found = 0
    for one in inputs:
        found = max(found, one)
    return found + 1


@grid.kernel("(n)->()")
def first_of(inputs):  # type: ignore[no-untyped-def]
    return inputs[0] if inputs.size else 0


@grid.kernel("->()")
def placed(cell):  # type: ignore[no-untyped-def]
    return cell[0] % 2


@grid.kernel("(n),()->()")
def fails(inputs, own):  # type: ignore[no-untyped-def]
    if own == 700.0:
        raise ValueError("seven hundred")
    return own + inputs.sum() * 0.0


def graph(seed: int, cells: int, *, window: int = 0, shuffled: bool = False) -> grid.Dag:
    """About two inputs a cell, of the cells before it (of so many); perhaps under other numbers."""
    rng = np.random.default_rng(seed)
    edges = [(int(rng.integers(max(0, cell - window) if window else 0, cell)), cell) for cell in range(1, cells)
             for _ in range(rng.integers(0, 5))]  # fmt: skip
    number = rng.permutation(cells) if shuffled else np.arange(cells)
    return grid.Dag.of_edges([number[s] for s, _ in edges], [number[t] for _, t in edges], cells)


def carried(out: Any, own: Sequence[Any] = (), kind: Any = None, members: int = 1, cuts: Sequence[int] = (),
            plain: bool = False) -> list[Any]:
    """What a flow of so many members gives, begun anew at each cut."""
    action = out.op.action
    cells, row = action.dag.cells, 0
    values = [np.zeros([out.op.space[name] for name in f.dims], f.dtype) for f in out.op.fields]
    columns = [Fixed(one) if isinstance(one, np.ndarray) else one for one in own]
    for last in (*cuts, cells):
        if plain:
            flow: Any = PlainFlow(action.several, action.dag, kind, columns, values, 1, row)
            while flow.row < last:
                flow.go(last)
        else:
            flow = Flow(action.several, action.dag, kind, columns, values, members, row)
            while flow.row < last:
                flow.run(members, last, 60.0)
        row, values = flow.row, [one.values.copy() for one in flow.columns()]
    return values


def same(out: Any, own: Sequence[Any] = (), kind: Any = None) -> list[Any]:
    """Any number of members, begun anew anywhere, give the plain path's bits; what they are."""
    assert fits(out.op.action.several)
    expected = carried(out, own, kind, plain=True)
    cells = out.op.action.dag.cells
    for members, cuts in ((1, ()), (2, ()), (3, (cells // 3,)), (5, (1, cells // 2))):
        for found, right in zip(carried(out, own, kind, members, cuts), expected, strict=True):
            assert found.dtype == right.dtype
            np.testing.assert_array_equal(found.view(np.uint8), right.view(np.uint8))
    return expected


@PROPERTY
@given(seed=st.integers(0, 10**6), cells=st.integers(1, 300), window=st.sampled_from([0, 1, 3, 40]),
       shuffled=st.booleans(), kind=st.sampled_from(["f8", "f4"]))  # fmt: skip
def test_any_graph(seed: int, cells: int, window: int, shuffled: bool, kind: str) -> None:
    dag, own = graph(seed, cells, window=window, shuffled=shuffled), np.random.default_rng(seed).random(cells)
    own = own.astype(kind)
    (found,) = same(grid.from_arrays({"own": own}, dims="x").propagate(mixed, dag), [own])
    done: dict[int, Any] = {}
    for cell in dag.order.tolist():
        done[cell] = mixed.func(np.array([done[i] for i in dag.inputs_of(cell)], found.dtype), float(own[cell]))
    np.testing.assert_array_equal(found, [done[cell] for cell in range(cells)])


@PROPERTY
@given(seed=st.integers(0, 10**6), cells=st.integers(1, 120), shuffled=st.booleans())
def test_several_outputs_parameters_and_random_numbers(seed: int, cells: int, shuffled: bool) -> None:
    rng, dag = np.random.default_rng(seed), graph(seed, cells, shuffled=shuffled)
    own, count = rng.random(cells), rng.integers(1, 9, cells).astype(np.int32)
    lazy = grid.from_arrays({"own": own, "count": count}, dims="x")
    out = lazy.propagate(pairs, dag, names=("total", "deep"), scale=0.25, seed=seed)
    assert [(f.name, f.dtype) for f in out.fields] == [("total", np.float64), ("deep", np.int64)]
    same(out, [own, count])
    assert out.op.recipe != lazy.propagate(pairs, dag, names=("total", "deep"), scale=0.25, seed=seed + 1).op.recipe


@PROPERTY
@given(seed=st.integers(0, 10**6), cells=st.integers(1, 120), shuffled=st.booleans())
def test_a_column_says_which_kernel_a_cell_runs(seed: int, cells: int, shuffled: bool) -> None:
    rng, dag = np.random.default_rng(seed), graph(seed, cells, shuffled=shuffled)
    own, kind = rng.random(cells), rng.integers(0, 3, cells)
    lazy = grid.from_arrays({"own": own, "which": kind.astype(np.int8)}, dims="x")
    out = lazy.propagate([mixed, other, drawn], dag, kind="which", shift=1.5)
    expected = same(out, [own], kind)
    by_array = lazy[["own"]].propagate([mixed, other, drawn], dag, kind=kind, shift=1.5)
    run = grid.run(out.rename(mixed="a"), by_array.rename(mixed="b"), executor="inline", quiet=True)
    for name in ("a", "b"):
        np.testing.assert_array_equal(run[name].to_numpy(), expected[0])


@PROPERTY
@given(seed=st.integers(0, 10**6), cells=st.integers(1, 60), times=st.integers(1, 5), shuffled=st.booleans())
def test_results_that_are_arrays(seed: int, cells: int, times: int, shuffled: bool) -> None:
    dag, own = graph(seed, cells, shuffled=shuffled), np.random.default_rng(seed).random((cells, times))
    lazy = grid.from_arrays({"own": own}, dims=("x", "time"))
    out = lazy.propagate(routed, dag, names=("flow", "most"))
    assert [(f.name, f.dims) for f in out.fields] == [("flow", ("x", "time")), ("most", ("x",))]
    flow, most = same(out, [own])
    done: dict[int, Any] = {}
    for cell in dag.order.tolist():
        read = [done[i] for i in dag.inputs_of(cell)]
        done[cell] = routed.func(np.array([one for one, _ in read]).reshape(-1, times),
                                 np.array([one for _, one in read]), own[cell])  # fmt: skip
    np.testing.assert_array_equal(flow, [done[cell][0] for cell in range(cells)])
    np.testing.assert_array_equal(most, [done[cell][1] for cell in range(cells)])


def test_arrays_through_a_run_with_states_on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "TURN_SECONDS", 0.0)
    dag, own = graph(1, 80, shuffled=True), np.random.default_rng(1).random((3, 80))
    lazy = grid.from_arrays({"own": own}, dims=("time", "x"))
    run = grid.run(lazy.propagate(routed, dag, names=("flow", "most"), checkpoint=30), executor="inline", store="work",
                   quiet=True)  # fmt: skip
    assert run.status.tasks == 3
    monkeypatch.setattr("gridcompute.actions.dags.fits", lambda *_: False)
    plain = grid.run(lazy.propagate(routed, dag, names=("flow", "most")), executor="inline", store="other", quiet=True)
    for name in ("flow", "most"):
        np.testing.assert_array_equal(run[name].to_numpy(), plain[name].to_numpy())
    assert run["flow"].to_numpy().shape == (80, 3)


@pytest.mark.parametrize("plain", [False, True])
def test_a_result_of_another_length_names_its_cell(plain: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    @grid.kernel("(n,time),(time)->(time)")
    def short(inputs, own):  # type: ignore[no-untyped-def]
        return own[1:] if own[0] == 2.0 else own

    if plain:
        monkeypatch.setattr("gridcompute.actions.dags.fits", lambda *_: False)
    lazy = grid.from_arrays({"own": np.repeat(np.arange(3.0), 4).reshape(3, 4)}, dims=("x", "time"))
    words = "gave 3 elements along 'time'" if plain else "a result has another length"
    with pytest.raises(KernelError, match=f"short (failed )?at x=2 .*{words}"):
        grid.run(lazy.propagate(short, grid.Dag.of_parents([-1, 0, 1])), executor="inline", quiet=True)


@pytest.mark.parametrize("turned", [False, True])
def test_columns_with_inner_extents_and_text(turned: bool) -> None:
    rng, dag = np.random.default_rng(5), graph(5, 60, shuffled=True)
    inner = rng.random((60, 4))
    text = ["ab" * int(n) for n in rng.integers(0, 4, 60)]
    dims = ("m", "x") if turned else ("x", "m")
    lazy = grid.from_arrays({"inner": inner.T if turned else inner}, dims=dims)
    lazy = lazy.assign(text=grid.from_arrays({"text": text}, dims="x"))
    out = lazy.propagate(wide, dag)
    assert out.dims == ("x",)
    found = grid.run(out, executor="inline", quiet=True, threads=2)[0].to_numpy()
    done: dict[int, float] = {}
    for cell in dag.order.tolist():
        letters = np.frombuffer(text[cell].encode(), np.uint8)
        done[cell] = wide.func(np.array([done[i] for i in dag.inputs_of(cell)]), inner[cell], letters)
    np.testing.assert_allclose(found, [done[cell] for cell in range(60)], rtol=1e-12)


def test_a_space_without_columns_and_a_length_that_is_counted_first() -> None:
    dag = graph(3, 40)
    out = grid.space(task=40).propagate(longest, dag)
    assert grid.run(out, executor="inline", quiet=True)[0].to_numpy().max() == dag.levels
    table = grid.from_arrays({"own": np.arange(60.0)}, dims="row")
    some = table.filter(table["own"] < 40.0)
    run = grid.run(some.propagate(mixed, dag), executor="inline", quiet=True)
    np.testing.assert_array_equal(run[0].to_numpy(), carried(
        grid.from_arrays({"own": np.arange(40.0)}, dims="row").propagate(mixed, dag), [np.arange(40.0)])[0])
    with pytest.raises(RunError, match="there are 39 cells, but the graph has 40"):
        grid.run(table.filter(table["own"] < 39.0).propagate(mixed, dag), executor="inline", quiet=True)


def test_kernels_that_loops_do_not_take() -> None:
    dag, own = graph(4, 50, shuffled=True), np.random.default_rng(4).random(50)
    lazy = grid.from_arrays({"own": own}, dims="x")
    (expected,) = carried(lazy.propagate(mixed, dag), [own])

    @grid.task("(n),()->()", dtypes=["f8"])
    def plain(inputs: Any, own: Any) -> Any:
        return np.array([mixed.func(np.array(one), x) for one, x in zip(inputs.to_pylist(), own, strict=True)])

    @grid.kernel("(n),()->()")
    def masked(inputs, own, valid):  # type: ignore[no-untyped-def]
        total = own if valid[1] else 0.5
        for i in range(inputs.size):
            total = (total * 1.25 + inputs[i] * (i + 1)) % 97.0
        return total

    outs = [lazy.propagate(plain, dag), lazy.propagate(masked, dag)]
    assert not any(fits(out.op.action.several) for out in outs)
    for out in outs:
        found = grid.run(out, executor="inline", quiet=True)[0].to_numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_nulls_are_nan() -> None:
    own = np.ma.array([1.0, 2.0, 3.0], mask=[False, True, False])
    lazy = grid.from_arrays({"own": own}, dims="x")
    out = grid.run(lazy.propagate(mixed, grid.Dag.of_parents([-1, -1, 0])), executor="inline", quiet=True)[0].to_numpy()
    np.testing.assert_array_equal(out, [1.0, np.nan, 4.75])


def test_dtypes_settle_or_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    dag = grid.Dag.of_parents([-1, 0])
    small = grid.from_arrays({"own": np.zeros(2, np.float32)}, dims="x")
    assert small.propagate(mixed, dag).fields[0].dtype == np.float64  # 1.25 is
    assert grid.space(x=2).propagate(longest, dag).fields[0].dtype == np.int64
    assert grid.space(x=2).propagate(hashed, dag).fields[0].dtype == np.uint64

    with pytest.raises(UsageError, match="with inputs' results of int64, kernel hashed can't be compiled") as other_one:
        grid.space(x=2).propagate(grid.kernel("(n)->()")(hashed.func), dag)
    assert "dtypes=" in str(other_one.value)

    turned = {np.dtype(np.int64): np.dtype(np.float32), np.dtype(np.float32): np.dtype(np.int64)}
    monkeypatch.setattr("gridcompute.ops_dags.output_dtypes", lambda kernel, kinds, params: [turned[kinds[0][0]]])
    with pytest.raises(SignatureError, match="never stay: int64 -> float32 -> int64") as caught:
        grid.space(x=2).propagate(longest, dag)
    assert "dtypes=" in str(caught.value)


@pytest.mark.parametrize("window", [3, 300, 30_000])
@pytest.mark.parametrize("shuffled", [False, True])
def test_many_cells_by_several_members_at_once(window: int, shuffled: bool) -> None:
    rng, cells = np.random.default_rng(window), 100_000
    targets = np.repeat(np.arange(1, cells), 2)
    sources = np.maximum(targets - rng.integers(1, window + 1, len(targets)), 0)
    number = rng.permutation(cells) if shuffled else np.arange(cells)
    out = grid.space(x=cells).propagate(hashed, grid.Dag.of_edges(number[sources], number[targets], cells))
    (expected,) = carried(out)
    for members in (2, 2, 3):
        np.testing.assert_array_equal(carried(out, members=members)[0], expected)


CHAIN = grid.Dag.of_parents(np.arange(-1, 999))


@pytest.mark.parametrize("members", [1, 2, 4])
def test_a_kernel_that_raises_names_the_cell_and_ends_its_peers(members: int) -> None:
    own, began = np.arange(1000.0), time.monotonic()
    out = grid.from_arrays({"own": own}, dims="x").propagate(fails, CHAIN)
    with pytest.raises(KernelError, match=r"fails failed at cell \(700,\): ValueError: seven hundred") as caught:
        carried(out, [own], members=members)
    assert caught.value.cell == (700,)
    assert time.monotonic() - began < 30
    assert not [t for t in threading.enumerate() if t.name.startswith("flow")]


def test_of_several_members_each_has_a_mark_of_its_own(tmp_path: Path) -> None:
    """Where a task publishes its progress, the cell that is told is still the one that raised."""
    own = np.arange(1000.0)
    out = grid.from_arrays({"own": own}, dims="x").propagate(fails, grid.Dag.of_edges([], [], 1000))
    with contextlib.closing(Board(tmp_path)) as board, publishing(board.take(1)):
        for _ in range(30):
            with pytest.raises(KernelError, match=r"cell \(700,\)"):
                carried(out, [own], members=3)


@pytest.mark.parametrize("plain", [False, True])
def test_a_run_names_cell_and_input(plain: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if plain:
        monkeypatch.setattr("gridcompute.actions.dags.fits", lambda *_: False)
    out = grid.from_arrays({"own": np.arange(1000.0)}, dims="x").propagate(fails, CHAIN)
    with pytest.raises(KernelError, match=r"fails failed at x=700 of own in arrays in memory: ValueError") as caught:
        grid.run(out, executor="inline", quiet=True, threads=2)
    assert "isel" not in caught.value.hint  # which would run the others too


def test_one_member_publishes_the_cell_that_it_is_at(monkeypatch: pytest.MonkeyPatch) -> None:
    marks: list[Mark | None] = []

    class Watched(Board):
        def free(self, task: int, *, reuse: bool = True) -> None:
            marks.append(self.read(task))
            super().free(task, reuse=reuse)

    monkeypatch.setattr(driver, "Board", Watched)
    with pytest.raises(KernelError):
        grid.run(grid.from_arrays({"own": np.arange(1000.0)}, dims="x").propagate(fails, CHAIN), executor="inline")
    assert [(mark.op, mark.cell) for mark in marks if mark is not None and mark.op] == [("fails", (700,))]


def test_a_kind_that_is_none_names_its_cell() -> None:
    lazy = grid.from_arrays({"own": np.zeros(3), "which": np.array([0, 1, 2])}, dims="x")
    out = lazy.propagate([mixed, other], grid.Dag.of_parents([-1, 0, 1]), kind="which")
    with pytest.raises(KernelError, match=r"at x=2 .*its kind is 2, but there are 2 kernels"):
        grid.run(out, executor="inline", quiet=True)


def test_a_member_that_is_never_answered_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gang, "PATIENCE_SECONDS", 0.05)
    out = grid.from_arrays({"own": np.arange(1000.0)}, dims="x").propagate(mixed, CHAIN)
    flow = Flow(out.op.action.several, CHAIN, None, [Fixed(np.arange(1000.0))], [np.zeros(1000)], 2, 500)
    flow._flags[:] = 0  # nobody will ever say that the cell before is done
    with pytest.raises(RunError, match=r"member \d of 2 waited more than 0 s at cell \d+ for an input"):
        flow.run(2, 1000, 60.0)


def unwaited(text: str) -> str:
    """Inputs are read whether they are there or not."""
    asked = "if load_acquire(flags, w) == 0:"
    assert text.count(asked) == 1
    return text.replace(asked, "if w < 0:")


def raised_first(text: str) -> str:
    """A cell is said to be done before it is."""
    raised, begun = "            store_release(flags, p, 1)\n", "            touch(mark, p)\n"
    assert text.count(raised) == text.count(begun) == 1
    return text.replace(raised, "").replace(begun, begun + raised)


@pytest.mark.parametrize("mutant", [unwaited, raised_first, None])
def test_mutants_are_caught(mutant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """They give other values, so the tests above would see it."""

    @grid.kernel("(n),()->()")
    def slow(inputs, own):  # type: ignore[no-untyped-def]
        total = own + inputs.sum()
        for _ in range(20000):
            total = (total * 1.37 + 1.0) % 1000.0
        return total

    own = np.arange(1000.0)
    out = grid.from_arrays({"own": own}, dims="x").propagate(slow, CHAIN)
    (expected,) = carried(out, [own])
    dagloops._make.cache_clear()
    source = dagloops.source
    if mutant:
        monkeypatch.setattr(dagloops, "source", lambda shape: mutant(source(shape)))
    try:
        assert np.array_equal(carried(out, [own], members=2)[0], expected) == (mutant is None)
    finally:
        dagloops._make.cache_clear()


def test_the_critical_path_of_real_workflows(data_dir: Path) -> None:
    @grid.kernel("(n),()->()")
    def finished(inputs, seconds):  # type: ignore[no-untyped-def]
        begun = 0.0
        for one in inputs:
            begun = max(begun, one)
        return begun + seconds

    files = sorted((data_dir / "workflows").glob("*.json"))
    if not files:
        pytest.skip(f"no workflows in {data_dir}")
    for file in files:
        workflow = json.loads(file.read_text())["workflow"]
        tasks = {task["id"]: task["parents"] for task in workflow["specification"]["tasks"]}
        took = {task["id"]: float(task["runtimeInSeconds"]) for task in workflow["execution"]["tasks"]}
        number = {name: i for i, name in enumerate(tasks)}
        edges = [(number[parent], number[name]) for name, parents in tasks.items() for parent in parents]
        dag = grid.Dag.of_edges([s for s, _ in edges], [t for _, t in edges], len(tasks))
        lazy = grid.from_arrays({"seconds": np.array([took[name] for name in tasks])}, dims="task")
        found = grid.run(lazy.propagate(finished, dag), executor="inline", quiet=True)[0].to_numpy()
        ends: dict[str, float] = {}
        for name in graphlib.TopologicalSorter(tasks).static_order():
            ends[name] = max((ends[parent] for parent in tasks[name]), default=0.0) + took[name]
        assert found.tolist() == [ends[name] for name in tasks], file.name


def test_a_stretch_ends_with_its_time_and_goes_on() -> None:
    own = np.arange(1000.0)
    out = grid.from_arrays({"own": own}, dims="x").propagate(mixed, CHAIN)
    flow, rows = Flow(out.op.action.several, CHAIN, None, [Fixed(own)], [np.zeros(1000)], 3, 0), []
    while flow.row < 1000:
        flow.run(3, 1000, 0.0)
        rows.append(flow.row)
    assert len(rows) > 2
    np.testing.assert_array_equal(flow.columns()[0].values, carried(out, [own])[0])


# --- states on the way ---


class Broken(Exception):
    """What ends a run in the middle."""


def chain_of(checkpoint: int = 0, cells: int = 1000) -> Any:
    dag = grid.Dag.of_parents(np.arange(-1, cells - 1))
    return grid.from_arrays({"own": np.arange(float(cells))}, dims="x").propagate(mixed, dag, checkpoint=checkpoint)


def interrupted(out: Any, store: str, monkeypatch: pytest.MonkeyPatch, row: int) -> None:
    go = Flow.go

    def stop(self: Any, last: int) -> None:
        go(self, last)
        if self.row >= row:
            raise Broken

    with monkeypatch.context() as patched:
        patched.setattr(Flow, "go", stop)
        with pytest.raises(GridError):
            grid.run(out, executor="inline", store=store, quiet=True)


def states(store: str) -> list[str]:
    return [path for path in open_store(store).list("shards") if "s" in path.split("-")[-1].split(".")[0]]


@pytest.mark.parametrize("plain", [False, True])
def test_a_run_that_broke_off_goes_on_from_the_last_state(plain: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    out, begun = chain_of(100), []
    (expected,) = carried(out, [np.arange(1000.0)])
    interrupted(out, "work", monkeypatch, 350)
    assert [path.split("s")[-1] for path in states("work")] == ["300.g0.arrow"]
    if plain:
        monkeypatch.setattr("gridcompute.actions.dags.fits", lambda *_: False)
    made = PlainFlow if plain else Flow
    begin = made.__init__

    def noted(self: Any, *arguments: Any) -> None:
        begun.append(arguments[6])
        begin(self, *arguments)

    monkeypatch.setattr(made, "__init__", noted)
    run = grid.run(out, executor="inline", store="work", quiet=True)
    np.testing.assert_array_equal(run[0].to_numpy(), expected)
    assert begun == [300]
    assert states("work") == []


def test_a_graph_that_takes_long_takes_several_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "TURN_SECONDS", 0.0)
    run = grid.run(chain_of(300), executor="inline", store="work", quiet=True)
    np.testing.assert_array_equal(run[0].to_numpy(), carried(chain_of(), [np.arange(1000.0)])[0])
    assert (run.status.tasks, run.status.computed, run.status.retries) == (4, 1, 0)


@pytest.mark.parametrize("plain", [False, True])
def test_states_are_kept_when_it_is_time(plain: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "EVERY_SECONDS", 0.0)
    monkeypatch.setattr(checkpoints, "SHARE", 0.0)
    monkeypatch.setattr(stretches, "STRETCH_SECONDS", 1e-9)
    monkeypatch.setattr(flows, "STRETCH_SECONDS", 0.0)
    if plain:
        monkeypatch.setattr("gridcompute.actions.dags.fits", lambda *_: False)
    keep, kept = checkpoints.Checkpoints.keep, []

    def noted(self: Any, row: int, block: Any) -> None:
        kept.append(row)
        keep(self, row, block)

    monkeypatch.setattr(checkpoints.Checkpoints, "keep", noted)
    run = grid.run(chain_of(cells=150), executor="inline", store="work", quiet=True)
    np.testing.assert_array_equal(run[0].to_numpy(), carried(chain_of(cells=150), [np.arange(150.0)])[0])
    assert kept == sorted(kept)
    assert kept
    assert not states("work")


def test_recipes() -> None:
    lazy = grid.from_arrays({"own": np.zeros(3)}, dims="x")
    dag, turned = grid.Dag.of_parents([-1, 0, 0]), grid.Dag.of_parents([-1, 0, 1])
    first = lazy.propagate(mixed, dag).op.recipe
    assert first == lazy.propagate(mixed, grid.Dag([0, 0, 1, 2], [0, 0]), checkpoint=3).op.recipe
    assert len({first, lazy.propagate(mixed, turned).op.recipe, lazy.propagate(other, dag).op.recipe}) == 3
    lazy = lazy.assign(which=grid.from_arrays({"which": np.zeros(3, np.int64)}, dims="x"))
    both = [lazy.propagate(one, dag, kind="which").op for one in ([mixed, other], [other, mixed])]
    assert both[0].recipe != both[1].recipe
    parts = [{f"{k}": one[f"kernel {k}: signature"] for k in (0, 1)} for one in (op.action.parts for op in both)]
    assert parts[0] == parts[1]
    assert both[0].action.parts["graph of cells"] == dag.key


def test_a_plan_says_what_the_graph_is() -> None:
    text = grid.plan(chain_of()).explain()
    assert "goes along 999 edges of 1,000 cells in 1,000 levels (24.4 KiB)" in text
    assert "-> (x: 1000) in 1 chunk" in text
    large = grid.Dag(np.zeros(5 * 10**6 + 1, np.int64), [])
    bare, along = (grid.plan(grid.space(x=5 * 10**6).propagate(hashed, large)).peak_bytes, large.nbytes)
    assert bare >= along


def test_a_worker_is_sent_the_graph_once(tmp_path: Path) -> None:
    dag = graph(2, 20_000)
    lazy = grid.space(x=20_000).map(placed)
    plan = grid.plan(lazy.propagate([longest, first_of], dag, kind="placed")).plan
    sent = sum(len(by_value(Payload.of(plan, stage, open_store(str(tmp_path)), {}))) for stage in plan.stages)
    assert dag.nbytes < sent < dag.nbytes + 100_000


ABOUT = grid.from_arrays({"own": np.zeros(3), "n": np.ma.array([1, 2, 3], mask=[0, 1, 0]), "m": np.arange(3)}, dims="x")
DAG = grid.Dag.of_parents([-1, 0, 0])


@grid.kernel("(n),()->(),()")
def unfed(inputs, own):  # type: ignore[no-untyped-def]
    return own, own


@grid.kernel("(n)->()")
def stepping(inputs, step):  # type: ignore[no-untyped-def]
    return step


@grid.kernel("(n,z),()->(z)", dtypes=["f8"])
def grown(inputs, own):  # type: ignore[no-untyped-def]
    return np.zeros(2)


@grid.kernel("(n),(n)->()")
def alike(inputs, own):  # type: ignore[no-untyped-def]
    return 1.0


@pytest.mark.parametrize(("make", "error", "words"), [
    (lambda: ABOUT[["own"]].propagate(len, DAG), ParameterError, "takes a kernel or several, not <built-in"),
    (lambda: ABOUT[["own"]].propagate([], DAG), ParameterError, r"takes a kernel or several, not \[\]"),
    (lambda: ABOUT[["own"]].propagate(mixed, [0, 1]), ParameterError, "takes a graph of cells, not list"),
    (lambda: ABOUT[["own"]].propagate(unfed, DAG), SignatureError, "doesn't take its inputs' results"),
    (lambda: ABOUT[["own"]].propagate(alike, DAG), SignatureError, "can't have the length 'n' of the results"),
    (lambda: ABOUT[["own"]].propagate(stepping, DAG), SignatureError, "takes step, but a graph of cells has none"),
    (lambda: ABOUT[["own", "m"]].propagate(mixed, DAG), SignatureError, r"takes 1 columns, but got 2: 'own', 'm'"),
    (lambda: ABOUT[["n"]].propagate(mixed, DAG), UsageError, r"column 'n' \(int64\) may have nulls"),
    (lambda: ABOUT[["own"]].propagate(mixed, CHAIN), DimensionError, "'x' has 3 cells, but the graph has 1,000"),
    (lambda: ABOUT[["own"]].propagate(mixed, grid.Dag([0, 1, 1, 1], [0])), ParameterError, "cell 0 reads itself"),
    (lambda: ABOUT[["own"]].propagate(mixed, DAG, checkpoint=-1), ParameterError, "checkpoint is -1"),
    (lambda: ABOUT[["own"]].propagate(mixed, DAG, scale=1.0), ParameterError, "has no parameter 'scale'"),
    (lambda: ABOUT[["own"]].propagate([mixed, other], DAG), ParameterError, "2 kernels and no kind"),
    (lambda: ABOUT[["own", "m"]].propagate(mixed, DAG, kind="m"), ParameterError, "1 kernel and a kind"),
    (lambda: ABOUT[["own"]].propagate([mixed, other], DAG, kind="z"), MissingInputError, "no column 'z' for kind="),
    (lambda: ABOUT[["own"]].propagate([mixed, other], DAG, kind=[0, 1]), ParameterError, r"kind is of shape \(2,\)"),
    (lambda: ABOUT[["own"]].propagate([mixed, other], DAG, kind=[0.0, 1.0, 0.0]), ParameterError, "is float64 over"),
    (lambda: ABOUT[["own", "n"]].propagate([mixed, other], DAG, kind="n"), ParameterError, "int64, with nulls over"),
    (lambda: ABOUT[["own"]].propagate([mixed, other], DAG, kind=np.ma.MaskedArray([0, 1, 0], [0, 1, 0])),
     ParameterError, "with nulls over"),
    (lambda: ABOUT[["own", "m"]].propagate([mixed, longest], DAG, kind="m"), SignatureError, "different signatures"),
    (lambda: ABOUT[["own", "m"]].propagate([mixed, other], DAG, kind="m", z=1), ParameterError, "a parameter 'z'"),
    (lambda: ABOUT[["own"]].propagate(grown, DAG), DimensionError, "no column has the dimension 'z' of its results"),
    (lambda: grid.from_arrays({"own": np.zeros((3, 2))}, dims=("x", "y")).propagate(mixed, DAG), DimensionError,
     "goes over the cells of one dimension"),
])  # fmt: skip
def test_what_does_not_fit_is_refused(make: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        make()
