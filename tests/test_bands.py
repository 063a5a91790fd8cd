"""`iterate` over several nodes: bands give the reference's bits, in this process and on Ray; lost members, errors."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from interrupted import journals
from test_gang import PROPERTY, active, draws, fails, line, plain, plane, ring_of, rule, sums

import gridcompute as grid
from benchmarks import nodes
from gridcompute import gang, ray_nodes, stepping
from gridcompute.bands import Band, Deal, cut, deal
from gridcompute.columns import Fixed
from gridcompute.config import environment
from gridcompute.errors import KernelError, WorkerLostError
from gridcompute.executor import InlineExecutor
from gridcompute.journal import read
from gridcompute.orders import Payload
from gridcompute.ray_executor import RayExecutor
from gridcompute.shipping import by_value
from gridcompute.spread import Iteration, Spread, chosen
from gridcompute.stepping import CompiledSteps, Crew
from gridcompute.testing.nodes import NodesHere
from gridcompute.worker import classify

pytestmark = pytest.mark.ray

THREADS = st.lists(st.integers(1, 3), min_size=1, max_size=4)


def iteration(op: Any, values: Sequence[Any]) -> Iteration:
    action = op.action
    return Iteration(action.cells, action.neighbours, action.fill, op.space.names, values[0].shape,
                     tuple(one.dtype for one in values), action.steps)  # fmt: skip


def same(op: Any, values: list[Any], threads: list[int], reach: int) -> None:
    """Bands on any nodes, with rounds of any length, give the reference's bits; so does a rest begun in the middle."""
    columns = [Fixed(one) for one in values]
    expected, what = plain(op, columns), iteration(op, values)
    state, row = columns, 0
    for last in (op.action.steps // 3, op.action.steps):
        made = Spread(what, NodesHere(what, threads), threads, state, row, 1e-3, reach=reach)
        while made.row < last:
            made.go(min(last, made.row + 2 * reach + 1))
        state, row = made.columns(), last
    for found, right in zip(state, expected, strict=True):
        np.testing.assert_array_equal(found.values.view(np.uint8), right.values.view(np.uint8))


@PROPERTY
@given(length=st.integers(1, 40), steps=st.integers(0, 20), period=st.integers(1, 5), lead=st.integers(0, 4),
       narrow=st.booleans(), kind=st.sampled_from(["f8", "f4"]), threads=THREADS, reach=st.integers(1, 5))  # fmt: skip
def test_edges_of_any_pattern(length: int, steps: int, period: int, lead: int, narrow: bool, kind: str,
                              threads: list[int], reach: int) -> None:  # fmt: skip
    values = np.random.default_rng(length).random(length).astype(kind)
    lazy = grid.from_arrays({"v": values}, dims="x")
    edges = grid.Edges(rule(length), period=period, lead=lead, max_inputs=6, active=active if narrow else None)
    same(lazy.iterate(sums, steps, edges=edges, scale=0.75).op, [values], threads, reach)


@PROPERTY
@given(length=st.sampled_from([1, 7, 30, 60]), steps=st.integers(0, 15),
       sides=st.sampled_from([(0, 0), (1, 0), (1, 2)]), narrow=st.booleans(), threads=THREADS,
       reach=st.integers(1, 6))  # fmt: skip
def test_several_columns_random_numbers_and_edges_that_reach_a_little(
    length: int, steps: int, sides: tuple[int, int], narrow: bool, threads: list[int], reach: int
) -> None:
    back, on = sides

    def near(step: int, cell: int, out: Any) -> int:
        count = 0
        for one in range(cell - back - step % 2, cell + on + 1):
            out[count] = one % length
            count += 1
        return count

    values = [np.arange(length) * 0.5, np.arange(length, dtype=np.int32)]
    lazy = grid.from_arrays({"a": values[0], "b": values[1]}, dims="x")
    edges = grid.Edges(near, period=2, max_inputs=6, active=active if narrow else None)
    same(lazy.iterate(draws, steps, edges=edges, seed=4).op, values, threads, reach)


@PROPERTY
@given(length=st.integers(1, 60), steps=st.integers(0, 12), sides=st.tuples(st.integers(0, 4), st.integers(0, 4)),
       ends=st.sampled_from(["clip", "periodic", "fill"]), threads=THREADS, reach=st.integers(1, 6))  # fmt: skip
def test_windows_on_a_line(length: int, steps: int, sides: tuple[int, int], ends: str, threads: list[int],
                           reach: int) -> None:  # fmt: skip
    values = np.random.default_rng(length).random(length)
    lazy = grid.from_arrays({"v": values}, dims="x")
    same(lazy.iterate(line, steps, halo={"x": sides}, boundary=ends, fill=2.5).op, [values], threads, reach)


@PROPERTY
@given(shape=st.tuples(st.integers(1, 20), st.integers(1, 5)), tall=st.integers(0, 3), wide=st.integers(0, 3),
       first=st.sampled_from(["clip", "periodic", "fill"]), second=st.sampled_from(["clip", "periodic", "fill"]),
       turned=st.booleans(), threads=THREADS, reach=st.integers(1, 5))  # fmt: skip
def test_windows_in_a_plane(shape: tuple[int, int], tall: int, wide: int, first: str, second: str, turned: bool,
                            threads: list[int], reach: int) -> None:  # fmt: skip
    values = np.random.default_rng(tall).random(shape).astype("f4")
    lazy = grid.from_arrays({"v": values}, dims=("x", "y") if turned else ("y", "x"))
    out = lazy.iterate(plane, 7, halo={"y": (tall, 1), "x": (0, wide)}, boundary={"y": first, "x": second}, fill=1.5)
    same(out.op, [values], threads, reach)


def test_windows_that_do_not_reach_over_the_first_dimension() -> None:
    values = np.random.default_rng(1).random((5, 6, 4))
    lazy = grid.from_arrays({"v": values}, dims=("t", "y", "x"))
    same(lazy.iterate(plane, 4, halo={"y": 1, "x": (0, 2)}).op, [values], [1, 2], 3)


@grid.kernel("(n)->()")
def stamped(inputs, cell, step):  # type: ignore[no-untyped-def]
    for one in inputs:
        if one // 1000 != step:
            raise ValueError("a value of another step")
    return 1000 * (step + 1) + cell[0]


def forward(step: int, cell: int, out: Any) -> int:
    out[0], out[1], out[2] = cell, (cell + 1) % 60, (cell + 2 * step) % 60
    return 3


def check_stamps(threads: list[int], reach: int) -> None:
    values = [np.arange(60)]
    op = grid.from_arrays({"v": values[0]}, dims="x")["v"].iterate(
        stamped, 23, edges=grid.Edges(forward, period=2, max_inputs=3)).op  # fmt: skip
    what = iteration(op, values)
    made = Spread(what, NodesHere(what, threads), threads, [Fixed(values[0])], 0, 1e-3, reach=reach)
    while made.row < 23:
        made.go(min(23, made.row + reach + 2))
    np.testing.assert_array_equal(made.columns()[0].values, 23000 + np.arange(60))


@pytest.mark.parametrize("threads", [[1], [1, 1], [2, 1, 3]])
@pytest.mark.parametrize("reach", [1, 2, 5])
def test_a_kernel_sees_no_value_that_is_not_true(threads: list[int], reach: int) -> None:
    check_stamps(threads, reach)


def test_a_member_holds_its_units_and_their_halo_only() -> None:
    values = np.zeros((1000, 3))
    op = grid.from_arrays({"v": values}, dims=("y", "x"))["v"].iterate(plane, 9, halo={"y": (1, 2), "x": 1}).op
    what = iteration(op, [values])
    for reach in (1, 5):
        made = what.gang(1, what.band(400, 500, reach))
        assert made.width == 100 + 3 * reach
        assert made.rings[0].size == made.depth * made.width * 3


@pytest.mark.parametrize("mutant", ["a layer too many", "a layer too few", "halos of the round before"])
def test_what_would_break_it_is_caught(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if mutant == "halos of the round before":
        monkeypatch.setattr(gang.Gang, "show", lambda *_: None)
    else:
        shift = 1 if mutant == "a layer too many" else -1

        def wrong(band: Band, members: int) -> Deal:
            made, layers = deal(band, members), np.arange(max(1, band.reach)) + shift
            return replace(made, counts=made.counts[:, np.clip(layers, 0, len(layers) - 1)])

        monkeypatch.setattr(gang, "deal", wrong)
    with pytest.raises(KernelError, match="a value of another step"):
        check_stamps([1, 1, 1], 3)


@given(length=st.integers(1, 30), weights=st.lists(st.integers(1, 9), min_size=1, max_size=8))
def test_bands_are_the_whole_together(length: int, weights: list[int]) -> None:
    found = cut(length, weights)
    assert [at for lo, hi in found for at in range(lo, hi)] == list(range(length))
    assert all(lo < hi for lo, hi in found)
    assert len(found) == min(length, len(weights))


@grid.kernel("(n)->()")
def twice_wrong(inputs, cell, step):  # type: ignore[no-untyped-def]
    if (step == 7 and cell[0] == 1) or (step == 6 and cell[0] >= 5):
        raise ValueError("wrong")
    return inputs.sum() % 7.0


def begun(out: Any, offer: Callable[[Iteration], NodesHere], **options: Any) -> Spread:
    values = [np.arange(8.0)]
    what = iteration(out.op, values)
    made = offer(what)
    return Spread(what, made, made.threads, [Fixed(one) for one in values], 0, 1e-3, **options)


@pytest.mark.parametrize("reach", [1, 2, None])
def test_of_several_errors_that_of_the_first_step_and_cell_is_told(reach: int | None) -> None:
    made = begun(ring_of(twice_wrong, 100), lambda what: NodesHere(what, [1, 1]), reach=reach)
    with pytest.raises(KernelError, match=r"failed in step 6 at cell \(5,\)") as caught:
        made.go(100)
    assert (caught.value.step, caught.value.cell) == (6, (5,))


def test_a_lost_member_is_a_lost_worker() -> None:
    made = begun(ring_of(sums, 100, scale=0.5), lambda what: NodesHere(what, [1, 1], lost=(1, 20)), reach=2)
    with pytest.raises(WorkerLostError, match="node 1 is gone") as caught:
        made.go(100)
    assert classify(caught.value) == "lost_worker"


def test_a_round_is_as_long_as_its_cost_and_that_of_the_halo_say() -> None:
    ring = [Band(90, 0, 30, np.arange(30, 90), np.arange(0, 61, 2))] * 3
    for latency, reach in ((0.0, 1), (0.010, 3), (0.020, 4), (1e9, 6)):  # the last is bound by a round's duration
        assert chosen(ring, [1, 1, 1], 1e-3, latency, 100)[0] == reach
    assert chosen(ring, [1, 1, 1], 1e-3, 0.0, 100) == (1, pytest.approx(0.03))
    assert chosen(ring, [2, 2, 2], 1e-3, 1.0, 2)[0] == 2


def test_the_nodes_of_a_run_are_its_own_and_the_largest_others() -> None:
    listed = [{"NodeID": name, "Alive": name != "d", "Resources": {"CPU": cores}}
              for name, cores in (("a", 2.0), ("b", 4.0), ("c", 8.0), ("d", 64.0), ("e", 0.0))]  # fmt: skip
    for cores, found in ((4, [("b", 4, 0)]), (6, [("b", 4, 0), ("c", 2, 2)]),
                         (99, [("b", 4, 0), ("c", 8, 8), ("a", 2, 2)])):  # fmt: skip
        assert [(node["NodeID"], *numbers) for node, *numbers in ray_nodes.places(listed, "b", cores)] == found


# --- handed over, and back ---


STEPS = 600


@pytest.mark.parametrize(("expected", "sure", "told"), [
    (0.0, 1e9, ["Gang", "Spread"]),
    (0.0, 0.0, ["Gang", "Spread", "Gang"]),
    (1e9, 0.0, ["Gang"]),
])  # fmt: skip
def test_it_goes_to_several_nodes_and_comes_back_where_that_is_slower(
    expected: float, sure: float, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gridcompute.spread.chosen", lambda *_: (2, expected))
    monkeypatch.setattr(stepping, "SURE_SECONDS", sure)
    asked, places = list[NodesHere](), list[str]()

    def offer(what: Iteration) -> NodesHere:
        asked.append(NodesHere(what, [1, 2]))
        return asked[-1]

    op, start = ring_of(sums, STEPS, scale=0.5).op, [Fixed(np.arange(8.0))]
    steps = CompiledSteps(op.action.cells, op.action.neighbours, 0.0, ("x",), start, Crew(2, offer=offer), 0, STEPS)
    while steps.row < STEPS:
        steps.go(min(steps.row + 50, STEPS))
        places += [type(steps._at).__name__] if not places or places[-1] != type(steps._at).__name__ else []
    assert places == told
    np.testing.assert_array_equal(steps.columns()[0].values, plain(op, start)[0].values)
    steps.close()
    assert [one.open for one in asked] == [False]


def test_little_work_stays_on_one_node() -> None:
    op, asked = ring_of(sums, STEPS, scale=0.5).op, list[Iteration]()
    steps = CompiledSteps(op.action.cells, op.action.neighbours, 0.0, ("x",), [Fixed(np.arange(8.0))],
                          Crew(2, offer=asked.append, worth=10.0), 0, STEPS)  # fmt: skip
    while steps.row < STEPS:
        steps.go(STEPS)
    assert not asked


class OnNodes(InlineExecutor):
    """Tasks in this process, with nodes for an iterate; some of the nodes are lost."""

    def __init__(self, lost: Sequence[tuple[int, int] | None]) -> None:
        super().__init__()
        self.asked, self._losses = list[NodesHere](), list(lost)

    def begin(self, payloads: Sequence[Payload]) -> None:
        super().begin([replace(one, offer=self._offer) for one in payloads])

    def _offer(self, what: Iteration) -> NodesHere:
        self.asked.append(NodesHere(what, [1, 1], self._losses[len(self.asked)]))
        return self.asked[-1]


def test_a_run_whose_nodes_are_lost_goes_on_from_the_last_state(own_folder: Path,
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gridcompute.spread.chosen", lambda *_: (2, 0.0))
    out, rows = ring_of(sums, 3000, scale=0.5, checkpoint=300), list[int]()
    made = CompiledSteps.__init__

    def noted(self: Any, *arguments: Any) -> None:
        rows.append(arguments[6])
        made(self, *arguments)

    monkeypatch.setattr(CompiledSteps, "__init__", noted)
    executor = OnNodes([(1, 300), (0, 300)])
    run = grid.run(out, executor=executor, store="work", quiet=True)
    np.testing.assert_array_equal(run[0].to_numpy(), plain(out.op, [Fixed(np.arange(8.0))])[0].values)
    assert (run.status.retries, len(rows), len(executor.asked)) == (2, 3, 2)  # the third goes on on one node
    assert 0 < rows[1] < rows[2] < 3000
    assert not any(one.open for one in executor.asked)
    told = [e["message"] for e in read(journals(own_folder)[-1]) if e["kind"] == "failed"]
    assert all("a worker was lost in stage sums" in one and "node" in one for one in told), told


def test_what_takes_long_takes_several_tasks_on_nodes_too(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gridcompute.spread.chosen", lambda *_: (2, 0.0))
    out, executor, kept = ring_of(sums, 1200, scale=0.5, checkpoint=150), OnNodes([None] * 8), list[str]()
    keep = stepping.Crew.keep

    def noted(self: Any, row: int, every: int, state: Any) -> None:
        open_nodes = [one for one in executor.asked if one.open and sum(one.calls)]
        kept.append("nodes" if open_nodes else "one")
        keep(replace(self, until=0.0) if open_nodes else self, row, every, state)

    monkeypatch.setattr(stepping.Crew, "keep", noted)
    run = grid.run(out, executor=executor, store="work", quiet=True)
    np.testing.assert_array_equal(run[0].to_numpy(), plain(out.op, [Fixed(np.arange(8.0))])[0].values)
    assert run.status.tasks == 1 + kept.count("nodes") > 1
    assert run.status.retries == 0
    assert not any(one.open for one in executor.asked)


def test_a_kernel_that_raises_on_nodes_is_named_as_on_one(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gridcompute.spread.chosen", lambda *_: (3, 0.0))
    executor = OnNodes([None])
    with pytest.raises(KernelError, match=r"fails failed in step 700 at x=5 of v in arrays in memory: ValueError"):
        grid.run(ring_of(fails, 1000, checkpoint=100), executor=executor, store="work", quiet=True)
    assert executor.asked[0].calls[0] > 10
    assert not executor.asked[0].open


# --- on Ray ---


@grid.kernel("(n)->()")
def slow(inputs, cell, step):  # type: ignore[no-untyped-def]
    total = inputs.sum() + step
    for _ in range(10000):
        total = (total * 1.37 + 1.0) % 1000.0
    if step == 900 and cell[0] == 50:
        raise ValueError("fifty")
    return total


def near(step: int, cell: int, out: Any) -> int:
    out[0], out[1], out[2] = max(0, cell - 1), cell, min(63, cell + 1)
    return 3


def slowly(steps: int) -> Any:
    lazy = grid.from_arrays({"v": np.arange(64.0)}, dims="x")["v"]
    return lazy.iterate(slow, steps, edges=grid.Edges(near, max_inputs=3), checkpoint=50)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A Ray of two nodes with one core each, on this machine; tasks are begun on the first."""
    from gridcompute import ray_session

    folder = tmp_path_factory.mktemp("nodes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRIDCOMPUTE_STATE", str(folder / "state"))
        ray = ray_session.prepared()
        from ray.cluster_utils import Cluster

        ray.shutdown()
        made = Cluster()
        with environment({name: value for name, value in ray_session.ENVIRONMENT.items() if name not in os.environ}):
            for number in (2, 3):  # Ray takes 127.0.0.1 for the machine's outward address
                made.add_node(num_cpus=1, node_ip_address=f"127.0.0.{number}", include_dashboard=False)
        ray_session.connect(workers=2, address=made.address)
        yield made
        ray.shutdown()
        made.shutdown()


def on_two(cluster: Any) -> RayExecutor:
    made = RayExecutor(workers=2, address=cluster.address)
    made.worth = 0.0
    return made


def processes(name: str) -> list[psutil.Process]:
    """This process's Ray workers of a name."""
    found = []
    for one in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if name in " ".join(one.cmdline()):
                found.append(one)
    return found


def awaited(happens: Callable[[], Any], seconds: float = 60.0) -> Any:
    until = time.monotonic() + seconds
    while not (found := happens()):
        assert time.monotonic() < until
        time.sleep(0.02)
    return found


def test_members_and_leaders_that_die_on_ray(cluster: Any, own_folder: Path) -> None:
    """First a member is killed, then the task that leads: it goes on from a kept state, and nothing is left behind."""
    out = slowly(700)
    run = grid.start(out, executor=on_two(cluster), store=own_folder / "work", quiet=True)

    def kept() -> set[str]:
        return {path.name for path in (own_folder / "work").rglob("*s*.g0.arrow")}

    for victim in ("ray::RayMember.go", "ray::stage 0"):
        awaited(lambda: len(processes("ray::RayMember.go")) == 2)
        members = processes("ray::RayMember")
        before = kept()
        awaited(lambda: kept() - before)  # noqa: B023
        awaited(lambda: processes(victim))[0].kill()  # noqa: B023
        psutil.wait_procs(members, 10)
        assert not [one for one in members if one.is_running()]
    alone = grid.run(out, executor="inline", store="memory://bands-alone", quiet=True)
    assert run.wait(120)[0].to_numpy().tobytes() == alone[0].to_numpy().tobytes()
    told = [e["message"] for e in read(journals(own_folder)[-1]) if e["kind"] == "failed"]
    assert len(told) == 2
    assert "one of the 2 nodes that carry it together, 127.0.0.2, 127.0.0.3, lost its process" in told[0]


def test_two_nodes_give_the_bits_of_one(cluster: Any) -> None:
    import ray

    lazy = grid.from_arrays({"v": np.zeros((80, 50))}, dims=("y", "x"))["v"]
    out = lazy.iterate(grid.kernel("(y,x)->()")(nodes.diffuse), 200, halo={"y": 1, "x": 1}, boundary="periodic")
    told = nodes.led(by_value(out.op))
    assert told["same"]
    assert told["latency"] > 0
    assert told["reach"] > 1
    awaited(lambda: ray.available_resources().get("CPU") == 2)


def test_nodes_that_are_busy_are_not_waited_for(cluster: Any, own_folder: Path) -> None:
    import ray

    @ray.remote(num_cpus=1)
    def busy() -> None:
        time.sleep(600)

    other = busy.options(max_retries=0).remote()
    awaited(lambda: ray.available_resources().get("CPU") != 2)
    out = slowly(100)
    run = grid.run(out, executor=on_two(cluster), store=own_folder / "work", quiet=True)
    assert run[0].to_numpy().tobytes() == plain(out.op, [Fixed(np.arange(64.0))])[0].values.tobytes()
    ray.cancel(other, force=True)
    awaited(lambda: ray.available_resources().get("CPU") == 2)


def test_members_of_another_numerics_class_take_no_part(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_nodes, "numerics_class", lambda: "another")
    asked = ray_nodes.RayNodes(iteration(slowly(9).op, [np.arange(64.0)]), 2)
    awaited(lambda: asked.ready() is not None)
    assert asked.ready() == ()
    awaited(lambda: not processes("ray::RayMember"), 5)


def test_a_kernel_that_raises_on_ray(cluster: Any, own_folder: Path) -> None:
    run = grid.start(slowly(2000), executor=on_two(cluster), store=own_folder / "work", quiet=True)
    awaited(lambda: len(processes("ray::RayMember.go")) == 2)
    with pytest.raises(KernelError, match=r"slow failed in step 900 at x=50 of v in arrays in memory: ValueError"):
        run.wait(60)
    awaited(lambda: not processes("ray::RayMember"), 5)
